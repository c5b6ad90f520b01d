//! What belongs to every change of tenants and keys: its entry in the audit log, the memory of its idempotency key, the
//! revision.
//!
//! May use: `domain`, `ports`. All of it runs inside the transaction of the change.

use super::Dialect;
use super::cells::{Cell, Cells, Columns};
use super::statement::{Statement, places};
use crate::domain::audit::{Action, Actor, AuditEntry, Author, Change, Facts};
use crate::domain::time::Micros;
use crate::domain::zone::Zone;
use crate::ports::StoreError;
use crate::ports::tenants::{Act, Answered, AuditFilter, AuditQuery, AuditStart, Digest, Memory, REMEMBERED_US};

/// Memories that one change drops, at most: each change adds one, so a backlog shrinks, and no change waits long for it.
pub(in crate::adapters) const DROPPED_MAX: i64 = 64;

/// What an entry is written to and read from, in this order; a read has `row` before them.
const ENTRY_COLUMNS: &str = "at, actor, actor_key, request_id, idempotency_key_sha256, action, tenant_id, key_id, \
    name_before, plan_before, suspended_before, timezone_before, last4_before, expires_at_before, allowed_models_before, \
    prices_before, events_before, \
    name_after, plan_after, suspended_after, timezone_after, last4_after, expires_at_after, allowed_models_after, prices_after, \
    events_after";

/// What was answered to an earlier request with the idempotency key of this one.
pub(in crate::adapters) async fn recall_act<D: Dialect>(
    connection: &mut D::Connection,
    act: &Act,
) -> Result<Option<Answered>, StoreError> {
    let Some(memory) = &act.memory else { return Ok(None) };
    recall::<D>(connection, memory.id, act.at).await
}

/// What was answered to a request of this id, unless that is too long ago.
pub(in crate::adapters) async fn recall<D: Dialect>(
    connection: &mut D::Connection,
    id: Digest,
    now: Micros,
) -> Result<Option<Answered>, StoreError> {
    let text = "SELECT request, answer FROM idempotency_records WHERE id = $1 AND at > $2";
    let find = Statement::new(text).bind(id.0.as_slice()).bind(forgotten_at(now));
    let found = D::rows(connection, find).await.map_err(D::error)?;
    let answered = |row| {
        let mut columns = Columns::of(row);
        Ok(Answered { request: Digest(columns.bytes()?), sealed: columns.blob()?.to_vec() })
    };
    found.first().map(answered).transpose()
}

/// The end of every change: what it changed goes to the audit log and raises the revision, its request is remembered,
/// and some of what is remembered too long is dropped. The caller commits.
pub(in crate::adapters) async fn finish<D: Dialect>(
    connection: &mut D::Connection,
    act: &Act,
    change: Option<&Change>,
) -> Result<(), StoreError> {
    let text = "DELETE FROM idempotency_records WHERE id IN \
                (SELECT id FROM idempotency_records WHERE at <= $1 ORDER BY at LIMIT $2)";
    let drop = Statement::new(text).bind(forgotten_at(act.at)).bind(DROPPED_MAX);
    D::run(connection, drop).await.map_err(D::error)?;
    if let Some(memory) = &act.memory {
        remember::<D>(connection, memory, act.at).await?;
    }
    let Some(change) = change else { return Ok(()) };
    note::<D>(connection, act, change).await?;
    raise::<D>(connection).await
}

/// Writes an entry of the log, beside the one that ends a change.
pub(super) async fn note<D: Dialect>(
    connection: &mut D::Connection,
    act: &Act,
    change: &Change,
) -> Result<(), StoreError> {
    let cells = entry_cells(act, change);
    let text = format!("INSERT INTO audit_log ({ENTRY_COLUMNS}) VALUES ({})", places(cells.len()));
    D::run(connection, Statement::new(text).bind_all(cells)).await.map(|_| ()).map_err(D::error)
}

/// Raises the revision.
pub(super) async fn raise<D: Dialect>(connection: &mut D::Connection) -> Result<(), StoreError> {
    let raise = Statement::new("UPDATE meta SET revision = revision + 1");
    D::run(connection, raise).await.map(|_| ()).map_err(D::error)
}

async fn remember<D: Dialect>(connection: &mut D::Connection, memory: &Memory, at: Micros) -> Result<(), StoreError> {
    let Memory { id, key_sha256: _, answered: Answered { request, sealed } } = memory;
    // One of that id that is still there is too old: the change would not have come this far.
    let text = "INSERT INTO idempotency_records (id, request, answer, at) VALUES ($1, $2, $3, $4) \
                ON CONFLICT (id) DO UPDATE SET request = excluded.request, answer = excluded.answer, at = excluded.at";
    let insert = Statement::new(text).bind(id.0.as_slice()).bind(request.0.as_slice());
    let insert = insert.bind(sealed.as_slice()).bind(at.0);
    D::run(connection, insert).await.map(|_| ()).map_err(D::error)
}

/// What was remembered at this instant or before is forgotten.
fn forgotten_at(now: Micros) -> i64 {
    now.0.saturating_sub(REMEMBERED_US)
}

/// The values of [`ENTRY_COLUMNS`].
fn entry_cells<'a>(act: &'a Act, change: &'a Change) -> Vec<Cell<'a>> {
    let Act { author: Author { actor, key: actor_key, request_id }, at, memory } = act;
    let Change { action, tenant, key, before, after } = change;
    let mut cells = vec![
        at.0.into(),
        actor.as_str().into(),
        actor_key.as_deref().into(),
        request_id.as_deref().into(),
        memory.as_ref().map(|memory| memory.key_sha256.0.as_slice()).into(),
        action.as_str().into(),
        tenant.as_ref().map(|tenant| tenant.as_str()).into(),
        key.as_ref().map(|key| key.as_str()).into(),
    ];
    for Facts { name, plan, suspended, zone, last4, expires_at, models, prices, events } in [before, after] {
        cells.push(name.as_deref().into());
        cells.push(plan.as_ref().map(|plan| plan.as_str()).into());
        cells.push((*suspended).into());
        cells.push(zone.as_ref().map(Zone::name).into());
        cells.push(last4.as_deref().into());
        cells.push(expires_at.map(|at| at.0).into());
        cells.push(Cell::text_some(models.as_ref()));
        cells.push(prices.as_deref().into());
        cells.push(events.as_deref().into());
    }
    cells
}

/// A part of the log, oldest entry first.
pub(in crate::adapters) async fn entries<D: Dialect>(
    connection: &mut D::Connection,
    query: &AuditQuery,
) -> Result<Vec<AuditEntry>, StoreError> {
    let AuditQuery { filter: AuditFilter { tenant, actor, action, from, to }, start, entries_max } = query;
    let (after, order) = match start {
        AuditStart::After(row) => (*row, " ORDER BY row LIMIT "),
        AuditStart::End => (0, " ORDER BY row DESC LIMIT "),
    };
    let mut statement = Statement::new(format!("SELECT row, {ENTRY_COLUMNS} FROM audit_log WHERE row > "));
    statement.push_bind(after);
    if let Some(tenant) = tenant {
        statement.push(" AND tenant_id = ").push_bind(tenant.as_str());
    }
    if let Some(actor) = actor {
        statement.push(" AND actor = ").push_bind(actor.as_str());
    }
    if let Some(action) = action {
        statement.push(" AND action = ").push_bind(action.as_str());
    }
    if let Some(from) = from {
        statement.push(" AND at >= ").push_bind(from.0);
    }
    if let Some(to) = to {
        statement.push(" AND at < ").push_bind(to.0);
    }
    statement.push(order).push_bind(i64::from(*entries_max));
    let found = D::rows(connection, statement).await.map_err(D::error)?;
    let mut entries = found.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    if *start == AuditStart::End {
        entries.reverse();
    }
    Ok(entries)
}

fn entry(row: &impl Cells) -> Result<AuditEntry, StoreError> {
    let mut columns = Columns::of(row);
    // Fields are read in the order they stand here, which is that of the columns.
    let (row, at) = (columns.integer()?, columns.instant()?);
    let actor = columns.named(Actor::parse)?;
    let author = Author { actor, key: columns.owned_some()?, request_id: columns.owned_some()? };
    let idempotency_key_sha256 = columns.bytes_some()?;
    let change = Change {
        action: columns.named(Action::parse)?,
        tenant: columns.parse_some()?,
        key: columns.parse_some()?,
        before: facts(&mut columns)?,
        after: facts(&mut columns)?,
    };
    Ok(AuditEntry { row, at, author, idempotency_key_sha256, change })
}

fn facts(columns: &mut Columns<'_, impl Cells>) -> Result<Facts, StoreError> {
    Ok(Facts {
        name: columns.owned_some()?,
        plan: columns.parse_some()?,
        suspended: columns.truth_some()?,
        zone: columns.parse_some()?,
        last4: columns.owned_some()?,
        expires_at: columns.instant_some()?,
        models: columns.parse_some()?,
        prices: columns.owned_some()?,
        events: columns.owned_some()?,
    })
}
