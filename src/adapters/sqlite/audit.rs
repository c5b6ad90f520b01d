//! What belongs to every change of tenants and keys in SQLite: its entry in the audit log, the memory of its idempotency
//! key, the revision.
//!
//! May use: `domain`, `ports`. All of it runs inside the transaction of the change.

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, query_with};

use super::rows::{Columns, Values};
use super::store_error;
use crate::domain::audit::{Action, Actor, AuditEntry, Author, Change, Facts};
use crate::domain::time::Micros;
use crate::ports::StoreError;
use crate::ports::tenants::{Act, Answered, AuditQuery, AuditStart, Digest, Memory, REMEMBERED_US};

/// Memories that one change drops, at most: each change adds one, so a backlog shrinks, and no change waits long for it.
const DROPPED_MAX: i64 = 64;

/// What an entry is read from, in this order.
const ENTRY_COLUMNS: &str = "row, at, actor, actor_key, request_id, idempotency_key_sha256, action, tenant_id, key_id, \
    name_before, plan_before, suspended_before, last4_before, expires_at_before, \
    name_after, plan_after, suspended_after, last4_after, expires_at_after";

/// What an entry is written to, in this order: the same without `row`, which SQLite counts.
const INSERT_ENTRY: &str = "INSERT INTO audit_log (at, actor, actor_key, request_id, idempotency_key_sha256, action, \
    tenant_id, key_id, name_before, plan_before, suspended_before, last4_before, expires_at_before, \
    name_after, plan_after, suspended_after, last4_after, expires_at_after) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// What was answered to an earlier request with the idempotency key of this one.
pub(super) async fn recall_act(connection: &mut SqliteConnection, act: &Act) -> Result<Option<Answered>, StoreError> {
    let Some(memory) = &act.memory else { return Ok(None) };
    recall(connection, memory.id, act.at).await
}

/// What was answered to a request of this id, unless that is too long ago.
pub(super) async fn recall(
    connection: &mut SqliteConnection,
    id: Digest,
    now: Micros,
) -> Result<Option<Answered>, StoreError> {
    let find = sqlx::query("SELECT request, answer FROM idempotency_records WHERE id = ? AND at > ?");
    let find = find.bind(id.0.to_vec()).bind(forgotten_at(now));
    let found = find.fetch_optional(connection).await.map_err(store_error)?;
    let answered = |row: &SqliteRow| {
        let mut columns = Columns::of(row);
        Ok(Answered { request: Digest(columns.bytes()?), sealed: columns.take()? })
    };
    found.as_ref().map(answered).transpose()
}

/// The end of every change: what it changed goes to the audit log and raises the revision, its request is remembered,
/// and some of what is remembered too long is dropped. The caller commits.
pub(super) async fn finish(
    connection: &mut SqliteConnection,
    act: &Act,
    change: Option<&Change>,
) -> Result<(), StoreError> {
    let text = "DELETE FROM idempotency_records WHERE id IN \
                (SELECT id FROM idempotency_records WHERE at <= ? ORDER BY at LIMIT ?)";
    let drop = sqlx::query(text).bind(forgotten_at(act.at)).bind(DROPPED_MAX);
    drop.execute(&mut *connection).await.map_err(store_error)?;
    if let Some(memory) = &act.memory {
        remember(connection, memory, act.at).await?;
    }
    let Some(change) = change else { return Ok(()) };
    let values = entry_values(act, change)?;
    query_with(INSERT_ENTRY, values.0).execute(&mut *connection).await.map_err(store_error)?;
    let raise = sqlx::query("UPDATE meta SET revision = revision + 1").execute(connection);
    raise.await.map(|_| ()).map_err(store_error)
}

async fn remember(connection: &mut SqliteConnection, memory: &Memory, at: Micros) -> Result<(), StoreError> {
    let Memory { id, key_sha256: _, answered: Answered { request, sealed } } = memory;
    // One of that id that is still there is too old: the change would not have come this far.
    let text = "INSERT OR REPLACE INTO idempotency_records (id, request, answer, at) VALUES (?, ?, ?, ?)";
    let insert = sqlx::query(text).bind(id.0.to_vec()).bind(request.0.to_vec()).bind(sealed.as_slice()).bind(at.0);
    insert.execute(connection).await.map(|_| ()).map_err(store_error)
}

/// What was remembered at this instant or before is forgotten.
fn forgotten_at(now: Micros) -> i64 {
    now.0.saturating_sub(REMEMBERED_US)
}

fn entry_values(act: &Act, change: &Change) -> Result<Values, StoreError> {
    let Act { author: Author { actor, key: actor_key, request_id }, at, memory } = act;
    let Change { action, tenant, key, before, after } = change;
    let mut values = Values::default();
    values.add(at.0)?;
    values.add(actor.as_str())?;
    values.add(actor_key.as_deref())?;
    values.add(request_id.as_deref())?;
    values.add(memory.as_ref().map(|memory| memory.key_sha256.0.as_slice()))?;
    values.add(action.as_str())?;
    values.add(tenant.as_str())?;
    values.add(key.as_ref().map(|key| key.as_str()))?;
    for Facts { name, plan, suspended, last4, expires_at } in [before, after] {
        values.add(name.as_deref())?;
        values.add(plan.as_ref().map(|plan| plan.as_str()))?;
        values.add(*suspended)?;
        values.add(last4.as_deref())?;
        values.add(expires_at.map(|at| at.0))?;
    }
    Ok(values)
}

/// The question for a part of the log.
pub(super) fn statement(query: &AuditQuery) -> QueryBuilder<Sqlite> {
    let AuditQuery { tenant, start, entries_max } = query;
    let (after, order) = match start {
        AuditStart::After(row) => (*row, " ORDER BY row LIMIT "),
        AuditStart::End => (0, " ORDER BY row DESC LIMIT "),
    };
    let mut statement = QueryBuilder::new("SELECT ");
    statement.push(ENTRY_COLUMNS).push(" FROM audit_log WHERE row > ").push_bind(after);
    if let Some(tenant) = tenant {
        statement.push(" AND tenant_id = ").push_bind(tenant.as_str().to_owned());
    }
    statement.push(order).push_bind(i64::from(*entries_max));
    statement
}

/// The answer to it, oldest entry first.
pub(super) fn entries(rows: &[SqliteRow], query: &AuditQuery) -> Result<Vec<AuditEntry>, StoreError> {
    let mut entries = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    if query.start == AuditStart::End {
        entries.reverse();
    }
    Ok(entries)
}

fn entry(row: &SqliteRow) -> Result<AuditEntry, StoreError> {
    let mut columns = Columns::of(row);
    // Fields are read in the order they stand here, which is that of the columns.
    let (row, at) = (columns.take()?, columns.instant()?);
    let author = Author { actor: columns.named(Actor::parse)?, key: columns.take()?, request_id: columns.take()? };
    let sha256 = columns.take::<Option<Vec<u8>>>()?.map(<[u8; 32]>::try_from).transpose();
    let sha256 = sha256.map_err(|bytes| StoreError::Corrupt(format!("length: {}", bytes.len())))?;
    let change = Change {
        action: columns.named(Action::parse)?,
        tenant: columns.parse()?,
        key: columns.parse_some()?,
        before: facts(&mut columns)?,
        after: facts(&mut columns)?,
    };
    Ok(AuditEntry { row, at, author, idempotency_key_sha256: sha256, change })
}

fn facts(columns: &mut Columns<'_>) -> Result<Facts, StoreError> {
    Ok(Facts {
        name: columns.take()?,
        plan: columns.parse_some()?,
        suspended: columns.take()?,
        last4: columns.take()?,
        expires_at: columns.instant_some()?,
    })
}

#[cfg(test)]
mod tests;
