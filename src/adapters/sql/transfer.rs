//! Rows as they stand, on their way out of a ledger and into another; and the mark of a copy that is not finished.
//!
//! May use: `domain`, `ports`. Many new rows at once are each adapter's own.
//!
//! The mark is a table that only an unfinished copy has, with one row for each table: no other ledger ever sees it, and it
//! comes and goes in the transactions of what it tells.

use super::Dialect;
use super::cells::{Cell, Cells, Columns, unreadable};
use super::statement::{Statement, places};
use super::usage::one;
use crate::domain::ids::EventId;
use crate::ports::StoreError;
use crate::ports::transfer::{Batch, Column, Row, Shape, Standing, Table, Unfinished, Value, decoded, encoded};

/// The table that is the mark.
const MARK: &str = "unfinished_copy";

/// What a ledger that is marked says to everybody but the copy.
const UNFINISHED: &str = "a copy into this ledger is not finished; run the same `tollgate copy` again";

/// What differs between dialects.
pub(in crate::adapters) trait Movable: Dialect {
    /// The type of bytes.
    const BYTES: &'static str;
    /// How many tables have the name `$1`.
    const TABLES_NAMED: &'static str;
}

/// Refuses a ledger that a copy was not finished into.
pub(in crate::adapters) async fn demand_whole<D: Movable>(connection: &mut D::Connection) -> Result<(), StoreError> {
    if is_there::<D>(connection, MARK).await? { Err(StoreError::Unavailable(UNFINISHED.to_owned())) } else { Ok(()) }
}

/// How a ledger stands before a copy.
pub(in crate::adapters) async fn standing<D: Movable>(connection: &mut D::Connection) -> Result<Standing, StoreError> {
    let mut standing = Standing::default();
    if !is_there::<D>(connection, Table::Meta.as_str()).await? {
        return Ok(standing);
    }
    let question = Statement::new(format!("SELECT {} FROM meta", D::LEDGER_ID));
    let found = D::rows(connection, question).await.map_err(D::error)?;
    standing.ledger_id = Some(one(&found)?.owned()?);
    for table in Table::ALL.into_iter().filter(|table| *table != Table::Meta) {
        // An older schema may lack some.
        if is_there::<D>(connection, table.as_str()).await? {
            let question = Statement::new(format!("SELECT 1 FROM {} LIMIT 1", table.as_str()));
            standing.has_rows |= !D::rows(connection, question).await.map_err(D::error)?.is_empty();
        }
    }
    if is_there::<D>(connection, MARK).await? {
        standing.unfinished = Some(unfinished::<D>(connection).await?);
    }
    Ok(standing)
}

async fn unfinished<D: Movable>(connection: &mut D::Connection) -> Result<Unfinished, StoreError> {
    let question = Statement::new(format!("SELECT ledger_id, name, place FROM {MARK}"));
    let mut unfinished = Unfinished::default();
    for row in D::rows(connection, question).await.map_err(D::error)? {
        let mut columns = Columns::of(&row);
        unfinished.ledger_id = columns.owned()?;
        let name = columns.owned()?;
        let table = Table::parse(&name).ok_or_else(|| unreadable("table", &name))?;
        let place = decoded(columns.blob()?).ok_or_else(|| unreadable("place in", &name))?;
        if !place.is_empty() {
            unfinished.places.push((table, place));
        }
    }
    Ok(unfinished)
}

async fn is_there<D: Movable>(connection: &mut D::Connection, table: &'static str) -> Result<bool, StoreError> {
    let found = D::rows(connection, Statement::new(D::TABLES_NAMED).bind(table)).await.map_err(D::error)?;
    Ok(one(&found)?.integer()? > 0)
}

/// Sets the mark.
pub(in crate::adapters) async fn set_mark<D: Movable>(
    connection: &mut D::Connection,
    ledger_id: &str,
) -> Result<(), StoreError> {
    let bytes = D::BYTES;
    let make = format!(
        "CREATE TABLE {MARK} (ledger_id TEXT NOT NULL, name TEXT NOT NULL PRIMARY KEY, place {bytes} NOT NULL)"
    );
    run::<D>(connection, Statement::new(make)).await?;
    for table in Table::ALL {
        let text = format!("INSERT INTO {MARK} (ledger_id, name, place) VALUES ($1, $2, $3)");
        let note = Statement::new(text).bind(ledger_id).bind(table.as_str()).bind([].as_slice());
        run::<D>(connection, note).await?;
    }
    Ok(())
}

/// Takes the mark away.
pub(in crate::adapters) async fn take_mark<D: Movable>(connection: &mut D::Connection) -> Result<(), StoreError> {
    run::<D>(connection, Statement::new(format!("DROP TABLE {MARK}"))).await
}

/// Forgets the place of a table.
pub(in crate::adapters) async fn forget<D: Movable>(
    connection: &mut D::Connection,
    table: Table,
) -> Result<(), StoreError> {
    note::<D>(connection, table, &[]).await
}

async fn note<D: Movable>(connection: &mut D::Connection, table: Table, place: &[Value]) -> Result<(), StoreError> {
    let text = format!("UPDATE {MARK} SET place = $1 WHERE name = $2");
    let place = encoded(place);
    run::<D>(connection, Statement::new(text).bind(place.as_slice()).bind(table.as_str())).await
}

async fn run<D: Movable>(connection: &mut D::Connection, statement: Statement<'_>) -> Result<(), StoreError> {
    D::run(connection, statement).await.map(|_| ()).map_err(D::error)
}

/// How many rows a table has.
pub(in crate::adapters) async fn count<D: Movable>(
    connection: &mut D::Connection,
    table: Table,
) -> Result<u64, StoreError> {
    let question = Statement::new(format!("SELECT COUNT(*) FROM {}", table.as_str()));
    let found = D::rows(connection, question).await.map_err(D::error)?;
    one(&found)?.count()
}

/// Rows behind a key.
pub(in crate::adapters) async fn page<D: Movable>(
    connection: &mut D::Connection,
    table: Table,
    after: Option<&[Value]>,
    rows_max: u32,
) -> Result<Vec<Row>, StoreError> {
    let key = names(key_columns(table));
    let mut question = Statement::new(format!("SELECT {} FROM {}", names(table.columns()), table.as_str()));
    if let Some(after) = after {
        question.push(&format!(" WHERE ({key}) > ({})", places(after.len())));
        question = question.bind_all(cells(key_columns(table), after)?);
    }
    question.push(&format!(" ORDER BY {key} LIMIT ")).push_bind(i64::from(rows_max));
    let found = D::rows(connection, question).await.map_err(D::error)?;
    found.iter().map(|row| read(table, row)).collect()
}

fn read(table: Table, row: &impl Cells) -> Result<Row, StoreError> {
    let columns = table.columns();
    let mut values = Vec::with_capacity(columns.len());
    for (at, column) in columns.iter().enumerate() {
        let value = match column.shape {
            Shape::Integer => row.integer(at).map(|value| value.map(Value::Integer)),
            Shape::Truth => row.truth(at).map(|value| value.map(|truth| Value::Integer(i64::from(truth)))),
            Shape::Text => row.text(at).map(|value| value.map(|text| Value::Text(text.to_owned()))),
            Shape::Bytes => row.bytes(at).map(|value| value.map(|bytes| Value::Bytes(bytes.to_vec()))),
            Shape::Id => row.id(at).map(|value| value.map(|bytes| Value::Bytes(bytes.into_owned()))),
        };
        let told = |error| match error {
            StoreError::Corrupt(why) => {
                StoreError::Corrupt(format!("{} {values:?}: {}: {why}", table.as_str(), column.name))
            }
            other => other,
        };
        let value = value.map_err(told)?;
        values.push(value.unwrap_or(Value::Null));
    }
    Ok(Row(values))
}

/// Does all of a batch but its new rows, and notes its place. The caller writes those behind it and commits.
pub(in crate::adapters) async fn put_old<D: Movable>(
    connection: &mut D::Connection,
    table: Table,
    batch: &Batch,
) -> Result<(), StoreError> {
    for key in &batch.gone {
        let mut remove = Statement::new(format!("DELETE FROM {} WHERE ", table.as_str()));
        push_key(&mut remove, table, key)?;
        run::<D>(connection, remove).await?;
    }
    for row in &batch.changed {
        run::<D>(connection, change(table, row)?).await?;
    }
    note::<D>(connection, table, &batch.place).await
}

fn change(table: Table, row: &Row) -> Result<Statement<'_>, StoreError> {
    let mut change = Statement::new(format!("UPDATE {} SET ", table.as_str()));
    for (at, (column, value)) in table.columns().iter().zip(&row.0).enumerate().skip(table.key_columns()) {
        if at > table.key_columns() {
            change.push(", ");
        }
        change.push(column.name).push(" = ").push_bind(cell(column.shape, value)?);
    }
    change.push(" WHERE ");
    push_key(&mut change, table, row.key(table))?;
    Ok(change)
}

fn push_key<'a>(statement: &mut Statement<'a>, table: Table, key: &'a [Value]) -> Result<(), StoreError> {
    for (at, (column, value)) in key_columns(table).iter().zip(key).enumerate() {
        if at > 0 {
            statement.push(" AND ");
        }
        statement.push(column.name).push(" = ").push_bind(cell(column.shape, value)?);
    }
    Ok(())
}

fn key_columns(table: Table) -> &'static [Column] {
    let columns = table.columns();
    columns.get(..table.key_columns()).unwrap_or(columns)
}

/// `row, id, tenant_id`
pub(in crate::adapters) fn names(columns: &[Column]) -> String {
    columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
}

/// Values of a row or of a key as this module's statements take them.
pub(in crate::adapters) fn cells<'a>(columns: &[Column], values: &'a [Value]) -> Result<Vec<Cell<'a>>, StoreError> {
    columns.iter().zip(values).map(|(column, value)| cell(column.shape, value)).collect()
}

fn cell(shape: Shape, value: &Value) -> Result<Cell<'_>, StoreError> {
    Ok(match (shape, value) {
        (Shape::Integer, Value::Integer(integer)) => Cell::Integer(Some(*integer)),
        (Shape::Integer, Value::Null) => Cell::Integer(None),
        (Shape::Truth, Value::Integer(truth)) => Cell::Truth(Some(*truth != 0)),
        (Shape::Truth, Value::Null) => Cell::Truth(None),
        (Shape::Text, Value::Text(text)) => text.as_str().into(),
        (Shape::Text, Value::Null) => Cell::Text(None),
        (Shape::Bytes, Value::Bytes(bytes)) => bytes.as_slice().into(),
        (Shape::Bytes, Value::Null) => Cell::Bytes(None),
        (Shape::Id, Value::Bytes(bytes)) => Cell::Id(Some(id(bytes)?)),
        (Shape::Id, Value::Null) => Cell::Id(None),
        (_, other) => return Err(of_another_kind(other)),
    })
}

/// A value that its column cannot have. No store of ours shows one.
pub(in crate::adapters) fn of_another_kind(value: &Value) -> StoreError {
    StoreError::Refused(format!("a value of another kind than its column's: {value:?}"))
}

/// An event's id of its bytes.
pub(in crate::adapters) fn id(bytes: &[u8]) -> Result<EventId, StoreError> {
    let id = bytes.try_into().map_err(|_| StoreError::Refused(format!("an event's id of {} bytes", bytes.len())))?;
    Ok(EventId::from_bytes(id))
}
