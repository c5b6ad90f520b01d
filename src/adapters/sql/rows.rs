//! How events, sums, tenants and keys stand in rows.
//!
//! May use: `domain`, `ports`. Every conversion goes through all fields by name or in the order of one column list, so
//! that a new field does not compile, or a new column does not pass its test, until it is handled.

use std::borrow::Cow;

use super::cells::{Cell, Cells, Columns, unreadable};
use crate::domain::event::{Corrected, Outcome, UsageEvent, UsageSource};
use crate::domain::ids::{EventId, ProviderId};
use crate::domain::key::{Key, KeyHash};
use crate::domain::money::PicoUsd;
use crate::domain::price::{Priced, ServiceTier};
use crate::domain::tenant::Tenant;
use crate::domain::time::{Micros, Window};
use crate::ports::StoreError;
use crate::ports::usage::{StoredEvent, Sums};

/// What an event is written to and read from, in this order; a read has `row` before them.
pub(in crate::adapters) const EVENT_COLUMNS: [&str; 41] = [
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
    "cache_write_long_tokens",
    "prompt_audio_tokens",
    "prompt_image_tokens",
    "cached_audio_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "completion_audio_tokens",
    "completion_image_tokens",
    "audio_ms",
    "characters",
    "images",
    "web_searches",
    "file_searches",
    "usage_source",
    "estimated_cost_pico_usd",
    "billable_cost_pico_usd",
    "priced",
    "price_version",
    "service_tier",
    "requested_at",
    "utc_offset_s",
    "duration_us",
    "first_byte_us",
    "status",
    "outcome",
    "request_id",
    "corrects",
    "priced_before",
];

/// The sums of a day or month, in the order of [`sum_cells`] and [`sums`].
pub(in crate::adapters) const SUM_COLUMNS: [&str; 27] = [
    "requests",
    "chats",
    "failed_requests",
    "prompt_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "cache_write_long_tokens",
    "prompt_audio_tokens",
    "prompt_image_tokens",
    "cached_audio_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "completion_audio_tokens",
    "completion_image_tokens",
    "audio_ms",
    "characters",
    "images",
    "web_searches",
    "file_searches",
    "estimated_cost_micro_usd",
    "estimated_cost_rest_pico_usd",
    "billable_cost_micro_usd",
    "billable_cost_rest_pico_usd",
    "unpriced_requests",
    "estimated_requests",
    "estimated_prompt_tokens",
    "estimated_completion_tokens",
];

/// What a key is written to and read from, in this order.
pub(in crate::adapters) const KEY_COLUMNS: &str =
    "id, tenant_id, hash, last4, name, created_at, expires_at, revoked_at, last_used_at, allowed_models";

/// What a tenant is read from, in this order; its plan is the newest of its history.
pub(in crate::adapters) const TENANT_COLUMNS: &str = "id, name, \
    (SELECT plan FROM tenant_plans WHERE tenant_id = tenants.id ORDER BY row DESC LIMIT 1), suspended, created_at, timezone";

/// Pico-dollars in a micro-dollar: where a sum of money is split into its two columns.
pub(in crate::adapters) const PICO_PER_MICRO: i128 = 1_000_000;

/// The table of the sums of days or months.
pub(in crate::adapters) fn table(window: Window) -> &'static str {
    match window {
        Window::Day => "usage_daily",
        Window::Month => "usage_monthly",
    }
}

/// A count; rows hold 63 bits.
pub(in crate::adapters) fn count(count: u64) -> Result<Cell<'static>, StoreError> {
    let fits = i64::try_from(count).map_err(|_| StoreError::Refused(format!("the count {count}")));
    fits.map(Cell::from)
}

/// Adds the values of [`EVENT_COLUMNS`].
pub(in crate::adapters) fn event_cells<'e>(cells: &mut Vec<Cell<'e>>, event: &'e UsageEvent) -> Result<(), StoreError> {
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
        quantities,
        source,
        cost,
        billable,
        priced,
        price_version,
        service_tier,
        requested_at,
        utc_offset_s,
        duration_us,
        first_byte_us,
        overhead_us: _, // for metrics, not for bills
        status,
        outcome,
        request_id,
        unit: _, // in a table of its own
        corrects,
    } = event;
    cells.push((*id).into());
    cells.push(tenant.as_str().into());
    cells.push(key.as_ref().map(|key| key.as_str()).into());
    cells.push(user_id.as_deref().into());
    cells.push(kb_id.as_deref().into());
    cells.push(provider.as_str().into());
    cells.push((&**model).into());
    cells.push((&**requested_model).into());
    cells.push((&**endpoint).into());
    cells.push(count(*chats)?);
    for number in tokens.kinds().into_iter().chain(quantities.kinds()) {
        cells.push(count(number)?);
    }
    cells.push(source.as_str().into());
    for amount in [cost, billable] {
        let amount = amount.map(PicoUsd::to_row).transpose();
        cells.push(amount.map_err(|error| StoreError::Refused(format!("event {id}: {error}")))?.into());
    }
    cells.push(priced.as_str().into());
    cells.push((&**price_version).into());
    cells.push(service_tier.as_str().into());
    cells.push(requested_at.0.into());
    cells.push(i64::from(*utc_offset_s).into());
    cells.push(count(*duration_us)?);
    cells.push(first_byte_us.map(count).transpose()?.unwrap_or(Cell::Integer(None)));
    cells.push(i64::from(*status).into());
    cells.push(outcome.as_str().into());
    cells.push(request_id.as_deref().into());
    cells.push(corrects.map(|corrected| corrected.event).into());
    cells.push(corrects.map(|corrected| corrected.priced.as_str()).into());
    Ok(())
}

/// Reads `row` and then [`EVENT_COLUMNS`].
pub(in crate::adapters) fn event(row: &impl Cells) -> Result<StoredEvent, StoreError> {
    let mut columns = Columns::of(row);
    let row = columns.integer()?;
    // Fields are read in the order they stand here, which is that of the columns.
    let mut event = UsageEvent {
        id: columns.id()?,
        tenant: columns.parse()?,
        key: columns.parse_some()?,
        user_id: columns.text_some()?.map(Box::from),
        kb_id: columns.text_some()?.map(Box::from),
        provider: ProviderId::from_row(columns.owned()?),
        model: columns.text()?.into(),
        requested_model: columns.text()?.into(),
        endpoint: Cow::Owned(columns.owned()?),
        chats: columns.count()?,
        tokens: columns.tokens()?,
        quantities: columns.quantities()?,
        source: columns.named(UsageSource::parse)?,
        cost: columns.integer_some()?.map(PicoUsd::from),
        billable: columns.integer_some()?.map(PicoUsd::from),
        priced: columns.named(Priced::parse)?,
        price_version: columns.text()?.into(),
        service_tier: columns.named(ServiceTier::parse)?,
        requested_at: columns.instant()?,
        utc_offset_s: offset(columns.integer()?)?,
        duration_us: columns.count()?,
        first_byte_us: columns.count_some()?,
        status: status(columns.integer()?)?,
        outcome: columns.named(Outcome::parse)?,
        request_id: columns.text_some()?.map(Box::from),
        corrects: corrected(columns.id_some()?, columns.named_some(Priced::parse)?)?,
        overhead_us: 0,
        unit: None,
    };
    // A row of before there were two of them has one, which is what was billed.
    event.billable = event.billable.or(event.cost);
    Ok(StoredEvent { row, event })
}

fn corrected(event: Option<EventId>, priced: Option<Priced>) -> Result<Option<Corrected>, StoreError> {
    match (event, priced) {
        (Some(event), Some(priced)) => Ok(Some(Corrected { event, priced })),
        (None, None) => Ok(None),
        (Some(event), None) => Err(unreadable("a correction without priced_before, of", event)),
        (None, Some(priced)) => Err(unreadable("a correction of nothing, which was", priced.as_str())),
    }
}

pub(super) fn offset(integer: i64) -> Result<i32, StoreError> {
    i32::try_from(integer).map_err(|_| unreadable("utc_offset_s", integer))
}

fn status(integer: i64) -> Result<u16, StoreError> {
    u16::try_from(integer).map_err(|_| unreadable("status", integer))
}

/// Adds the values of [`SUM_COLUMNS`].
pub(in crate::adapters) fn sum_cells(cells: &mut Vec<Cell<'_>>, sums: &Sums) -> Result<(), StoreError> {
    let Sums {
        requests,
        chats,
        failed_requests,
        tokens,
        quantities,
        cost,
        billable,
        unpriced_requests,
        estimated_requests,
        estimated_prompt,
        estimated_completion,
    } = *sums;
    for number in [requests, chats, failed_requests].into_iter().chain(tokens.kinds()).chain(quantities.kinds()) {
        cells.push(count(number)?);
    }
    for amount in [cost, billable] {
        for part in [amount.0 / PICO_PER_MICRO, amount.0 % PICO_PER_MICRO] {
            let part = i64::try_from(part).map_err(|_| StoreError::Refused(format!("the sum of {amount} USD")))?;
            cells.push(part.into());
        }
    }
    cells.push(unpriced_requests.into());
    for number in [estimated_requests, estimated_prompt, estimated_completion] {
        cells.push(count(number)?);
    }
    Ok(())
}

/// Reads [`SUM_COLUMNS`].
pub(in crate::adapters) fn sums(columns: &mut Columns<'_, impl Cells>) -> Result<Sums, StoreError> {
    let [requests, chats, failed_requests] = [columns.count()?, columns.count()?, columns.count()?];
    let (tokens, quantities) = (columns.tokens()?, columns.quantities()?);
    let [cost, billable] = [money(columns)?, money(columns)?];
    Ok(Sums {
        requests,
        chats,
        failed_requests,
        tokens,
        quantities,
        cost,
        billable,
        unpriced_requests: columns.integer()?,
        estimated_requests: columns.count()?,
        estimated_prompt: columns.count()?,
        estimated_completion: columns.count()?,
    })
}

/// A sum of money of its two columns.
fn money(columns: &mut Columns<'_, impl Cells>) -> Result<PicoUsd, StoreError> {
    let [micro, rest] = [columns.integer()?, columns.integer()?];
    // Two 64-bit numbers, one of them times a million, are far from the end of an i128.
    Ok(PicoUsd(i128::from(micro) * PICO_PER_MICRO + i128::from(rest)))
}

/// Reads [`TENANT_COLUMNS`].
pub(in crate::adapters) fn tenant(row: &impl Cells) -> Result<Tenant, StoreError> {
    let mut columns = Columns::of(row);
    Ok(Tenant {
        id: columns.parse()?,
        name: columns.owned()?,
        plan: columns.parse()?,
        suspended: columns.truth()?,
        created_at: columns.instant()?,
        zone: columns.parse()?,
    })
}

/// The values of [`KEY_COLUMNS`].
pub(in crate::adapters) fn key_cells(key: &Key) -> Vec<Cell<'_>> {
    let Key { id, tenant, hash, last4, name, created_at, expires_at, revoked_at, last_used_at, models } = key;
    let instant = |at: &Option<Micros>| Cell::from(at.map(|at| at.0));
    vec![
        id.as_str().into(),
        tenant.as_str().into(),
        hash.0.as_slice().into(),
        last4.as_str().into(),
        name.as_str().into(),
        created_at.0.into(),
        instant(expires_at),
        instant(revoked_at),
        instant(last_used_at),
        Cell::text_some(models.as_ref()),
    ]
}

/// Reads [`KEY_COLUMNS`].
pub(in crate::adapters) fn key(row: &impl Cells) -> Result<Key, StoreError> {
    let mut columns = Columns::of(row);
    Ok(Key {
        id: columns.parse()?,
        tenant: columns.parse()?,
        hash: KeyHash(columns.bytes()?),
        last4: columns.owned()?,
        name: columns.owned()?,
        created_at: columns.instant()?,
        expires_at: columns.instant_some()?,
        revoked_at: columns.instant_some()?,
        last_used_at: columns.instant_some()?,
        models: columns.parse_some()?,
    })
}
