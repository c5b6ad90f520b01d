//! Rows of a Postgres ledger on their way out and in.
//!
//! May use: `domain`, `ports`. New rows are sent column by column, as arrays, and put by one statement a batch.

use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments, AssertSqlSafe, Postgres, query_with};
use tokio::time::timeout;

use super::dialect::Uuid;
use super::session::Session;
use super::{PostgresLedger, SILENCE_MAX, silent, store_error};
use crate::adapters::sql::transfer::{self, Movable, id, names, of_another_kind};
use crate::domain::time::Micros;
use crate::ports::transfer::{Batch, Row, Shape, Standing, Table, Transfer, Value, View};
use crate::ports::{BoxFuture, StoreError};

/// The other ledger may take its time; and a power cut that takes the last batches takes their places with them.
const COPYING: &str = "BEGIN; SET LOCAL synchronous_commit = off";

/// One instant, also while the other ledger takes its time.
const LOOKING: &str = "SET LOCAL idle_in_transaction_session_timeout = 0";

/// New rows are numbered behind the last one.
const NUMBERS: &str = "\
    SELECT setval(pg_get_serial_sequence('tenant_plans', 'row'), COALESCE(MAX(row), 1), MAX(row) IS NOT NULL) FROM tenant_plans;
    SELECT setval(pg_get_serial_sequence('keys', 'row'), COALESCE(MAX(row), 1), MAX(row) IS NOT NULL) FROM keys;
    SELECT setval(pg_get_serial_sequence('audit_log', 'row'), COALESCE(MAX(row), 1), MAX(row) IS NOT NULL) FROM audit_log;
    SELECT setval(pg_get_serial_sequence('threshold_crossings', 'row'), COALESCE(MAX(row), 1), MAX(row) IS NOT NULL) FROM threshold_crossings;
    SELECT setval('usage_events_rows', COALESCE(MAX(row), 1), MAX(row) IS NOT NULL) FROM usage_events";

impl Movable for Postgres {
    const BYTES: &'static str = "BYTEA";
    const TABLES_NAMED: &'static str = "SELECT COUNT(to_regclass($1))";
}

/// A reading transaction that sees one instant.
struct Snapshot(Session);

impl View for Snapshot {
    fn count(&mut self, table: Table) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(transfer::count::<Postgres>(&mut self.0, table))
    }

    fn page<'a>(
        &'a mut self,
        table: Table,
        after: Option<&'a [Value]>,
        rows_max: u32,
    ) -> BoxFuture<'a, Result<Vec<Row>, StoreError>> {
        Box::pin(transfer::page::<Postgres>(&mut self.0, table, after, rows_max))
    }

    fn leave(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async move { self.0.end(Ok(())).await })
    }
}

impl Transfer for PostgresLedger {
    fn standing(&self) -> BoxFuture<'_, Result<Standing, StoreError>> {
        Box::pin(async move {
            let mut snapshot = self.snapshot().await?;
            let standing = transfer::standing::<Postgres>(&mut snapshot).await;
            snapshot.end(standing).await
        })
    }

    fn view(&self) -> BoxFuture<'_, Result<Box<dyn View>, StoreError>> {
        Box::pin(async move {
            let mut snapshot = self.snapshot().await?;
            snapshot.say(LOOKING).await?;
            Ok(Box::new(Snapshot(snapshot)) as Box<dyn View>)
        })
    }

    fn begin<'a>(&'a self, ledger_id: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut change = self.change().await?;
            let begun = transfer::set_mark::<Postgres>(&mut change, ledger_id).await;
            change.commit(begun).await
        })
    }

    fn put<'a>(&'a self, table: Table, batch: &'a Batch) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            if table == Table::UsageEvents {
                self.make_room_at(batch.new.iter().chain(&batch.changed).filter_map(requested_at)).await?;
            }
            let mut session = Session::of(&self.writer).await?;
            session.say(COPYING).await?;
            let put = put(&mut session, table, batch).await;
            session.commit(put).await
        })
    }

    fn forget<'a>(&'a self, tables: &'a [Table]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut change = self.change().await?;
            let forgotten = forget(&mut change, tables).await;
            change.commit(forgotten).await
        })
    }

    fn finish(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let mut change = self.change().await?;
            let finished = finish(&mut change).await;
            change.commit(finished).await
        })
    }
}

impl PostgresLedger {
    /// What tells one database from all others that are there at the same time, whatever name leads to it.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn identity(&self) -> Result<String, StoreError> {
        let question = "SELECT CONCAT_WS(' ', pg_postmaster_start_time(), inet_server_port(), current_database())";
        let mut reader = self.reader().await?;
        let told = timeout(SILENCE_MAX, sqlx::query_scalar(question).fetch_one(&mut *reader)).await;
        let told = told.unwrap_or_else(|_| Err(silent())).map_err(store_error);
        reader.answer(told)
    }
}

async fn forget(change: &mut Session, tables: &[Table]) -> Result<(), StoreError> {
    for table in tables {
        transfer::forget::<Postgres>(change, *table).await?;
    }
    Ok(())
}

async fn finish(change: &mut Session) -> Result<(), StoreError> {
    change.say(NUMBERS).await?;
    transfer::take_mark::<Postgres>(change).await
}

async fn put(session: &mut Session, table: Table, batch: &Batch) -> Result<(), StoreError> {
    batch.new.iter().chain(&batch.changed).try_for_each(|row| demand_storable(table, row))?;
    transfer::put_old::<Postgres>(session, table, batch).await?;
    if batch.new.is_empty() {
        return Ok(());
    }
    let columns = table.columns();
    let places: Vec<String> = (1..=columns.len()).map(|at| format!("${at}")).collect();
    let (name, names, places) = (table.as_str(), names(columns), places.join(", "));
    let text = format!("INSERT INTO {name} ({names}) SELECT * FROM UNNEST({places})");
    let mut lists = PgArguments::default();
    for (at, column) in columns.iter().enumerate() {
        let values = batch.new.iter().filter_map(|row| row.0.get(at));
        add(&mut lists, column.shape, values)?.map_err(|error| store_error(sqlx::Error::Encode(error)))?;
    }
    let inserted = query_with(AssertSqlSafe(text), lists).execute(&mut **session);
    timeout(SILENCE_MAX, inserted).await.unwrap_or_else(|_| Err(silent())).map(|_| ()).map_err(store_error)
}

/// Refuses what would not be the same here.
fn demand_storable(table: Table, row: &Row) -> Result<(), StoreError> {
    let has_nul = |value: &Value| matches!(value, Value::Text(text) if text.contains('\0'));
    let Some((column, _)) = table.columns().iter().zip(&row.0).find(|(_, value)| has_nul(value)) else { return Ok(()) };
    let (name, key, column) = (table.as_str(), row.key(table), column.name);
    Err(StoreError::Refused(format!(
        "{name} {key:?}: {column} has a NUL character, which Postgres cannot hold: replace it where it comes from"
    )))
}

/// Adds the values of one column of many rows.
fn add<'v>(
    lists: &mut PgArguments,
    shape: Shape,
    values: impl Iterator<Item = &'v Value>,
) -> Result<Result<(), BoxDynError>, StoreError> {
    Ok(match shape {
        Shape::Integer => lists.add(values.map(integer).collect::<Result<Vec<_>, _>>()?),
        Shape::Truth => {
            let truth = |value| Ok(integer(value)?.map(|truth| truth != 0));
            lists.add(values.map(truth).collect::<Result<Vec<_>, StoreError>>()?)
        }
        Shape::Text => lists.add(values.map(text).collect::<Result<Vec<_>, _>>()?),
        Shape::Bytes => lists.add(values.map(bytes).collect::<Result<Vec<_>, _>>()?),
        Shape::Id => {
            let uuid = |value| bytes(value)?.map(|bytes| id(bytes).map(Uuid)).transpose();
            lists.add(values.map(uuid).collect::<Result<Vec<_>, _>>()?)
        }
    })
}

fn integer(value: &Value) -> Result<Option<i64>, StoreError> {
    match value {
        Value::Null => Ok(None),
        Value::Integer(integer) => Ok(Some(*integer)),
        other => Err(of_another_kind(other)),
    }
}

fn text(value: &Value) -> Result<Option<&str>, StoreError> {
    match value {
        Value::Null => Ok(None),
        Value::Text(text) => Ok(Some(text)),
        other => Err(of_another_kind(other)),
    }
}

fn bytes(value: &Value) -> Result<Option<&[u8]>, StoreError> {
    match value {
        Value::Null => Ok(None),
        Value::Bytes(bytes) => Ok(Some(bytes)),
        other => Err(of_another_kind(other)),
    }
}

/// When an event was requested, which says where it stands.
fn requested_at(event: &Row) -> Option<Micros> {
    let mut values = Table::UsageEvents.columns().iter().zip(&event.0);
    let (_, value) = values.find(|(column, _)| column.name == "requested_at")?;
    if let Value::Integer(at) = value { Some(Micros(*at)) } else { None }
}
