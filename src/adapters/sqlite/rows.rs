//! How events, sums, tenants and keys stand in rows.
//!
//! May use: `domain`, `ports`. Every conversion goes through all fields by name or in the order of one column list, so
//! that a new field does not compile, or a new column does not pass its test, until it is handled.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;

use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, Decode, Encode, Row, Sqlite, Type};

use super::store_error;
use crate::domain::event::{Outcome, UsageEvent, UsageSource};
use crate::domain::ids::{EventId, ProviderId};
use crate::domain::key::{Key, KeyHash};
use crate::domain::money::PicoUsd;
use crate::domain::price::{Priced, ServiceTier};
use crate::domain::tenant::Tenant;
use crate::domain::time::Micros;
use crate::domain::tokens::Tokens;
use crate::ports::StoreError;
use crate::ports::usage::{StoredEvent, Sums};

/// What an event is written to and read from, in this order; a read has `row` before them.
pub(super) const EVENT_COLUMNS: [&str; 31] = [
    "id",
    "tenant_id",
    "key_id",
    "user_id",
    "kb_id",
    "provider",
    "model",
    "requested_model",
    "endpoint",
    "chats",
    "prompt_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "prompt_audio_tokens",
    "prompt_image_tokens",
    "cached_audio_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "completion_audio_tokens",
    "completion_image_tokens",
    "usage_source",
    "estimated_cost_pico_usd",
    "priced",
    "price_version",
    "service_tier",
    "requested_at",
    "duration_us",
    "first_byte_us",
    "status",
    "outcome",
    "request_id",
];

/// The sums of a day or month, in the order of [`bind_sums`] and [`sums`].
pub(super) const SUM_COLUMNS: [&str; 19] = [
    "requests",
    "chats",
    "failed_requests",
    "prompt_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "prompt_audio_tokens",
    "prompt_image_tokens",
    "cached_audio_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "completion_audio_tokens",
    "completion_image_tokens",
    "estimated_cost_micro_usd",
    "estimated_cost_rest_pico_usd",
    "unpriced_requests",
    "estimated_requests",
    "estimated_prompt_tokens",
    "estimated_completion_tokens",
];

/// What a key is written to and read from, in this order.
pub(super) const KEY_COLUMNS: &str =
    "id, tenant_id, hash, last4, name, created_at, expires_at, revoked_at, last_used_at";

/// What a tenant is read from, in this order; its plan is the newest of its history.
pub(super) const TENANT_COLUMNS: &str = "id, name, \
    (SELECT plan FROM tenant_plans WHERE tenant_id = tenants.id ORDER BY row DESC LIMIT 1), suspended, created_at";

/// Pico-dollars in a micro-dollar: where a sum of money is split into its two columns.
pub(super) const PICO_PER_MICRO: i128 = 1_000_000;

/// The values of a statement, in the order of its placeholders.
#[derive(Default)]
pub(super) struct Values(pub(super) SqliteArguments);

/// Reads the columns of a row one after the other.
pub(super) struct Columns<'r> {
    row: &'r SqliteRow,
    next: usize,
}

impl Values {
    pub(super) fn add<'t, T>(&mut self, value: T) -> Result<(), StoreError>
    where
        T: Encode<'t, Sqlite> + Type<Sqlite>,
    {
        self.0.add(value).map_err(|error| StoreError::Refused(error.to_string()))
    }

    /// A count; rows hold 63 bits.
    pub(super) fn count(&mut self, count: u64) -> Result<(), StoreError> {
        self.count_some(Some(count))
    }

    fn count_some(&mut self, count: Option<u64>) -> Result<(), StoreError> {
        let fits = count.map(i64::try_from).transpose();
        self.add(fits.map_err(|_| StoreError::Refused(format!("the count {}", count.unwrap_or_default())))?)
    }

    fn tokens(&mut self, tokens: &Tokens) -> Result<(), StoreError> {
        tokens.kinds().into_iter().try_for_each(|count| self.count(count))
    }
}

impl<'r> Columns<'r> {
    pub(super) fn of(row: &'r SqliteRow) -> Self {
        Self { row, next: 0 }
    }

    pub(super) fn take<T>(&mut self) -> Result<T, StoreError>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite>,
    {
        let at = self.next;
        self.next = at.saturating_add(1);
        self.row.try_get(at).map_err(store_error)
    }

    pub(super) fn parse<T>(&mut self) -> Result<T, StoreError>
    where
        T: FromStr,
        T::Err: Display,
    {
        parse(self.take::<&str>()?)
    }

    pub(super) fn parse_some<T>(&mut self) -> Result<Option<T>, StoreError>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.take::<Option<&str>>()?.map(parse).transpose()
    }

    fn text(&mut self) -> Result<Option<Box<str>>, StoreError> {
        Ok(self.take::<Option<&str>>()?.map(Box::from))
    }

    pub(super) fn named<T>(&mut self, named: impl FnOnce(&str) -> Option<T>) -> Result<T, StoreError> {
        let text = self.take::<&str>()?;
        named(text).ok_or_else(|| unreadable("name", text))
    }

    pub(super) fn count(&mut self) -> Result<u64, StoreError> {
        let count = self.take::<i64>()?;
        u64::try_from(count).map_err(|_| unreadable("count", count))
    }

    fn count_some(&mut self) -> Result<Option<u64>, StoreError> {
        let count = self.take::<Option<i64>>()?;
        count.map(|count| u64::try_from(count).map_err(|_| unreadable("count", count))).transpose()
    }

    pub(super) fn instant(&mut self) -> Result<Micros, StoreError> {
        self.take().map(Micros)
    }

    pub(super) fn instant_some(&mut self) -> Result<Option<Micros>, StoreError> {
        Ok(self.take::<Option<i64>>()?.map(Micros))
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let bytes = self.take::<&[u8]>()?;
        bytes.try_into().map_err(|_| unreadable("length", bytes.len()))
    }

    fn tokens(&mut self) -> Result<Tokens, StoreError> {
        let mut kinds = Tokens::default().kinds();
        for kind in &mut kinds {
            *kind = self.count()?;
        }
        Ok(Tokens::from_kinds(kinds))
    }
}

/// Adds the values of [`EVENT_COLUMNS`].
pub(super) fn bind_event(values: &mut Values, event: &UsageEvent) -> Result<(), StoreError> {
    let UsageEvent {
        id,
        tenant,
        key,
        user_id,
        kb_id,
        provider,
        model,
        requested_model,
        endpoint,
        chats,
        tokens,
        source,
        cost,
        priced,
        price_version,
        service_tier,
        requested_at,
        duration_us,
        first_byte_us,
        overhead_us: _, // for metrics, not for bills
        status,
        outcome,
        request_id,
    } = event;
    values.add(id.to_bytes().as_slice())?;
    values.add(tenant.as_str())?;
    values.add(key.as_ref().map(|key| key.as_str()))?;
    values.add(user_id.as_deref())?;
    values.add(kb_id.as_deref())?;
    values.add(provider.as_str())?;
    values.add(&**model)?;
    values.add(&**requested_model)?;
    values.add(&**endpoint)?;
    values.count(*chats)?;
    values.tokens(tokens)?;
    values.add(source.as_str())?;
    let cost = cost.map(PicoUsd::to_row).transpose();
    values.add(cost.map_err(|error| StoreError::Refused(format!("event {id}: {error}")))?)?;
    values.add(priced.as_str())?;
    values.add(&**price_version)?;
    values.add(service_tier.as_str())?;
    values.add(requested_at.0)?;
    values.count(*duration_us)?;
    values.count_some(*first_byte_us)?;
    values.add(i64::from(*status))?;
    values.add(outcome.as_str())?;
    values.add(request_id.as_deref())
}

/// Reads `row` and then [`EVENT_COLUMNS`].
pub(super) fn event(row: &SqliteRow) -> Result<StoredEvent, StoreError> {
    let mut columns = Columns::of(row);
    let row = columns.take()?;
    // Fields are read in the order they stand here, which is that of the columns.
    let event = UsageEvent {
        id: EventId::from_bytes(columns.bytes()?),
        tenant: columns.parse()?,
        key: columns.parse_some()?,
        user_id: columns.text()?,
        kb_id: columns.text()?,
        provider: ProviderId::from_row(columns.take()?),
        model: columns.take::<&str>()?.into(),
        requested_model: columns.take::<&str>()?.into(),
        endpoint: Cow::Owned(columns.take()?),
        chats: columns.count()?,
        tokens: columns.tokens()?,
        source: columns.named(UsageSource::parse)?,
        cost: columns.take::<Option<i64>>()?.map(PicoUsd::from),
        priced: columns.named(Priced::parse)?,
        price_version: columns.take::<&str>()?.into(),
        service_tier: columns.named(ServiceTier::parse)?,
        requested_at: columns.instant()?,
        duration_us: columns.count()?,
        first_byte_us: columns.count_some()?,
        status: columns.take()?,
        outcome: columns.named(Outcome::parse)?,
        request_id: columns.text()?,
        overhead_us: 0,
    };
    Ok(StoredEvent { row, event })
}

/// Adds the values of [`SUM_COLUMNS`].
pub(super) fn bind_sums(values: &mut Values, sums: &Sums) -> Result<(), StoreError> {
    let Sums {
        requests,
        chats,
        failed_requests,
        tokens,
        cost,
        unpriced_requests,
        estimated_requests,
        estimated_prompt,
        estimated_completion,
    } = *sums;
    for count in [requests, chats, failed_requests] {
        values.count(count)?;
    }
    values.tokens(&tokens)?;
    for part in [cost.0 / PICO_PER_MICRO, cost.0 % PICO_PER_MICRO] {
        values.add(i64::try_from(part).map_err(|_| StoreError::Refused(format!("the sum of {cost} USD")))?)?;
    }
    for count in [unpriced_requests, estimated_requests, estimated_prompt, estimated_completion] {
        values.count(count)?;
    }
    Ok(())
}

/// Reads [`SUM_COLUMNS`].
pub(super) fn sums(columns: &mut Columns<'_>) -> Result<Sums, StoreError> {
    let [requests, chats, failed_requests] = [columns.count()?, columns.count()?, columns.count()?];
    let tokens = columns.tokens()?;
    let [micro, rest] = [columns.take::<i64>()?, columns.take::<i64>()?];
    Ok(Sums {
        requests,
        chats,
        failed_requests,
        tokens,
        // Two 64-bit numbers, one of them times a million, are far from the end of an i128.
        cost: PicoUsd(i128::from(micro) * PICO_PER_MICRO + i128::from(rest)),
        unpriced_requests: columns.count()?,
        estimated_requests: columns.count()?,
        estimated_prompt: columns.count()?,
        estimated_completion: columns.count()?,
    })
}

/// Reads [`TENANT_COLUMNS`].
pub(super) fn tenant(row: &SqliteRow) -> Result<Tenant, StoreError> {
    let mut columns = Columns::of(row);
    Ok(Tenant {
        id: columns.parse()?,
        name: columns.take()?,
        plan: columns.parse()?,
        suspended: columns.take()?,
        created_at: columns.instant()?,
    })
}

/// Adds the values of [`KEY_COLUMNS`].
pub(super) fn bind_key(values: &mut Values, key: &Key) -> Result<(), StoreError> {
    let Key { id, tenant, hash, last4, name, created_at, expires_at, revoked_at, last_used_at } = key;
    values.add(id.as_str())?;
    values.add(tenant.as_str())?;
    values.add(hash.0.as_slice())?;
    values.add(last4.as_str())?;
    values.add(name.as_str())?;
    values.add(created_at.0)?;
    for at in [expires_at, revoked_at, last_used_at] {
        values.add(at.map(|at| at.0))?;
    }
    Ok(())
}

/// Reads [`KEY_COLUMNS`].
pub(super) fn key(row: &SqliteRow) -> Result<Key, StoreError> {
    let mut columns = Columns::of(row);
    Ok(Key {
        id: columns.parse()?,
        tenant: columns.parse()?,
        hash: KeyHash(columns.bytes()?),
        last4: columns.take()?,
        name: columns.take()?,
        created_at: columns.instant()?,
        expires_at: columns.instant_some()?,
        revoked_at: columns.instant_some()?,
        last_used_at: columns.instant_some()?,
    })
}

/// Reads one hash that may be missing.
pub(super) fn hash(row: &SqliteRow) -> Result<Option<KeyHash>, StoreError> {
    let bytes = Columns::of(row).take::<Option<&[u8]>>()?;
    let hash = bytes.map(|bytes| bytes.try_into().map_err(|_| unreadable("length", bytes.len())));
    Ok(hash.transpose()?.map(KeyHash))
}

fn parse<T>(text: &str) -> Result<T, StoreError>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse().map_err(|error: T::Err| unreadable(&error.to_string(), text))
}

fn unreadable(what: &str, value: impl Display) -> StoreError {
    StoreError::Corrupt(format!("{what}: {value}"))
}
