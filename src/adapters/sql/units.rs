//! Units that wait for their bill.
//!
//! May use: `domain`, `ports`.

use std::time::Duration;

use super::Dialect;
use super::cells::{Cell, Cells, Columns};
use super::rows::{count, offset};
use super::statement::Statement;
use crate::domain::event::{Outcome, UsageEvent};
use crate::domain::ids::{ProviderId, TenantId};
use crate::domain::time::Micros;
use crate::domain::unit::{Unit, UnitName};
use crate::ports::StoreError;
use crate::ports::units::{DeferredUnit, Pauses};

/// What a unit is written to with its event, in this order.
pub(in crate::adapters) const UNIT_COLUMNS: [&str; 18] = [
    "provider",
    "unit",
    "event_id",
    "requested_at",
    "utc_offset_s",
    "tenant_id",
    "key_id",
    "user_id",
    "kb_id",
    "model",
    "requested_model",
    "endpoint",
    "prompt_tokens",
    "delivered_tokens",
    "output_max",
    "own_account",
    "due_at",
    "asked",
];

/// What a unit is read from, in this order.
const READ_COLUMNS: &str = "provider, unit, event_id, requested_at, utc_offset_s, tenant_id, key_id, user_id, kb_id, \
    model, requested_model, endpoint, prompt_tokens, delivered_tokens, output_max, own_account";

/// Doublings of the first pause: more is beyond any longest one.
const DOUBLINGS_MAX: u32 = 16;

/// The unit that an event deferred. That a bill names its unit defers nothing.
pub(in crate::adapters) fn deferred(event: &UsageEvent) -> Option<&Unit> {
    event.unit.as_deref().filter(|_| event.outcome == Outcome::Deferred)
}

/// The values of [`UNIT_COLUMNS`].
pub(in crate::adapters) fn unit_cells<'e>(event: &'e UsageEvent, unit: &'e Unit) -> Result<Vec<Cell<'e>>, StoreError> {
    Ok(vec![
        event.provider.as_str().into(),
        unit.name.as_str().into(),
        event.id.into(),
        event.requested_at.0.into(),
        i64::from(event.utc_offset_s).into(),
        event.tenant.as_str().into(),
        event.key.as_ref().map(|key| key.as_str()).into(),
        event.user_id.as_deref().into(),
        event.kb_id.as_deref().into(),
        (&*event.model).into(),
        (&*event.requested_model).into(),
        (&*event.endpoint).into(),
        count(unit.prompt_tokens)?,
        count(unit.delivered_tokens)?,
        unit.output_max.map(|most| i64::try_from(most).unwrap_or(i64::MAX)).into(),
        i64::from(unit.own_account).into(),
        // Due at once.
        event.requested_at.0.into(),
        0_i64.into(),
    ])
}

fn unit(row: &impl Cells) -> Result<DeferredUnit, StoreError> {
    let mut columns = Columns::of(row);
    Ok(DeferredUnit {
        provider: ProviderId::from_row(columns.owned()?),
        name: columns.parse()?,
        event: columns.id()?,
        requested_at: columns.instant()?,
        utc_offset_s: offset(columns.integer()?)?,
        tenant: columns.parse()?,
        key: columns.parse_some()?,
        user_id: columns.text_some()?.map(Box::from),
        kb_id: columns.text_some()?.map(Box::from),
        model: columns.text()?.into(),
        requested_model: columns.text()?.into(),
        endpoint: columns.owned()?,
        prompt_tokens: columns.count()?,
        delivered_tokens: columns.count()?,
        output_max: columns.count_some()?,
        own_account: columns.integer()? != 0,
    })
}

/// What [`crate::ports::units::UnitStore::waiting`] promises.
pub(in crate::adapters) async fn waiting<D: Dialect>(
    connection: &mut D::Connection,
    provider: &ProviderId,
    name: &UnitName,
) -> Result<Option<DeferredUnit>, StoreError> {
    let text =
        format!("SELECT {READ_COLUMNS} FROM deferred_units WHERE provider = $1 AND unit = $2 AND settled_at IS NULL");
    let statement = Statement::new(text).bind(provider.as_str()).bind(name.as_str());
    let found = D::rows(connection, statement).await.map_err(D::error)?;
    found.first().map(unit).transpose()
}

/// What [`crate::ports::units::UnitStore::below`] promises.
pub(in crate::adapters) async fn below<D: Dialect>(
    connection: &mut D::Connection,
    provider: &ProviderId,
    path: &str,
    tenant: Option<&TenantId>,
    units_max: u32,
) -> Result<Vec<DeferredUnit>, StoreError> {
    let of_tenant = if tenant.is_some() { " AND tenant_id = $6" } else { "" };
    // No pattern: names have underscores, which would stand for anything.
    let text = format!(
        "SELECT {READ_COLUMNS} FROM deferred_units WHERE settled_at IS NULL AND provider = $1 \
           AND (unit = $2 OR substr(unit, 1, CAST($3 AS INTEGER)) = $4){of_tenant} ORDER BY unit LIMIT $5"
    );
    let begin = format!("{path}/");
    let length = i64::try_from(begin.chars().count()).unwrap_or(i64::MAX);
    let statement =
        Statement::new(text).bind(provider.as_str()).bind(path).bind(length).bind(&*begin).bind(i64::from(units_max));
    let statement = match tenant {
        Some(tenant) => statement.bind(tenant.as_str()),
        None => statement,
    };
    let found = D::rows(connection, statement).await.map_err(D::error)?;
    found.iter().map(unit).collect()
}

/// Whether any unit is due: looking keeps nobody waiting.
pub(in crate::adapters) async fn is_any_due<D: Dialect>(
    connection: &mut D::Connection,
    now: Micros,
) -> Result<bool, StoreError> {
    let text = "SELECT 1 FROM deferred_units WHERE settled_at IS NULL AND due_at <= $1 LIMIT 1";
    let found = D::rows(connection, Statement::new(text).bind(now.0)).await.map_err(D::error)?;
    Ok(!found.is_empty())
}

/// What [`crate::ports::units::UnitStore::claim`] promises. A statement of its own is a transaction of its own.
pub(in crate::adapters) async fn claim<D: Dialect>(
    connection: &mut D::Connection,
    now: Micros,
    pauses: Pauses,
    units_max: u32,
) -> Result<Vec<DeferredUnit>, StoreError> {
    let (least, skip) = (D::LEAST, D::SKIP_LOCKED);
    let text = format!(
        "UPDATE deferred_units SET asked = asked + 1, due_at = $1 + \
           {least}($2 * (CAST(1 AS BIGINT) << CAST({least}(asked, {DOUBLINGS_MAX}) AS INTEGER)), $3) \
         WHERE (provider, unit) IN (SELECT provider, unit FROM deferred_units \
           WHERE settled_at IS NULL AND due_at <= $1 ORDER BY due_at LIMIT $4{skip}) \
         RETURNING {READ_COLUMNS}"
    );
    let microseconds = |pause: Duration| i64::try_from(pause.as_micros()).unwrap_or(i64::MAX >> 32);
    let statement = Statement::new(text)
        .bind(now.0)
        .bind(microseconds(pauses.first))
        .bind(microseconds(pauses.longest))
        .bind(i64::from(units_max));
    let claimed = D::rows(connection, statement).await.map_err(D::error)?;
    claimed.iter().map(unit).collect()
}

/// What [`crate::ports::units::UnitStore::settled`] promises.
pub(in crate::adapters) async fn settled<D: Dialect>(
    connection: &mut D::Connection,
    provider: &ProviderId,
    name: &UnitName,
    at: Micros,
) -> Result<(), StoreError> {
    let text = "UPDATE deferred_units SET settled_at = $1 WHERE provider = $2 AND unit = $3 AND settled_at IS NULL";
    let statement = Statement::new(text).bind(at.0).bind(provider.as_str()).bind(name.as_str());
    D::run(connection, statement).await.map(|_| ()).map_err(D::error)
}

/// What [`crate::ports::units::UnitStore::forget`] promises.
pub(in crate::adapters) async fn forget<D: Dialect>(
    connection: &mut D::Connection,
    before: Micros,
) -> Result<u64, StoreError> {
    let statement = Statement::new("DELETE FROM deferred_units WHERE settled_at < $1").bind(before.0);
    D::run(connection, statement).await.map_err(D::error)
}
