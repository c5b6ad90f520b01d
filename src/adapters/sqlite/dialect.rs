//! How SQLite says what both dialects can say, and how values stand in its rows.
//!
//! May use: `domain`, `ports`.

use std::borrow::Cow;
use std::fmt::Write;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryFutureExt};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, Row, Sqlite, SqliteConnection, query_with};

use super::store_error;
use crate::adapters::sql::Dialect;
use crate::adapters::sql::cells::{Cell, Cells};
use crate::adapters::sql::statement::Statement;
use crate::domain::ids::EventId;
use crate::ports::{BoxFuture, StoreError};

impl Dialect for Sqlite {
    const LEAST: &'static str = "MIN";
    const GREATEST: &'static str = "MAX";
    const DAY: &'static str = "strftime('%Y-%m-%d', requested_at / 1000000 + utc_offset_s, 'unixepoch')";
    const HOUR: &'static str = "strftime('%Y-%m-%dT%H', requested_at / 1000000 + utc_offset_s, 'unixepoch')";
    /// The plus sign keeps the time away from its index, which would have every page sort the whole range.
    const TIME_OF_PAGE: &'static str = "+requested_at";
    const LEDGER_ID: &'static str = "lower(hex(ledger_id))";
    /// There is one writer at a time.
    const SKIP_LOCKED: &'static str = "";

    fn error(error: sqlx::Error) -> StoreError {
        store_error(error)
    }

    fn rows<'c>(
        connection: &'c mut SqliteConnection,
        statement: Statement<'_>,
    ) -> BoxFuture<'c, Result<Vec<SqliteRow>, sqlx::Error>> {
        match arguments(&statement.cells) {
            Ok(values) => query_with(AssertSqlSafe(statement.text), values).fetch_all(connection).boxed(),
            Err(error) => Box::pin(async { Err(error) }),
        }
    }

    fn stream<'c>(
        connection: &'c mut SqliteConnection,
        statement: Statement<'_>,
    ) -> BoxStream<'c, Result<SqliteRow, sqlx::Error>> {
        match arguments(&statement.cells) {
            Ok(values) => query_with(AssertSqlSafe(statement.text), values).fetch(connection),
            Err(error) => futures_util::stream::once(async { Err(error) }).boxed(),
        }
    }

    fn run<'c>(
        connection: &'c mut SqliteConnection,
        statement: Statement<'_>,
    ) -> BoxFuture<'c, Result<u64, sqlx::Error>> {
        match arguments(&statement.cells) {
            Ok(values) => {
                let query = query_with(AssertSqlSafe(statement.text), values);
                query.execute(connection).map_ok(|done| done.rows_affected()).boxed()
            }
            Err(error) => Box::pin(async { Err(error) }),
        }
    }

    fn among_ids(statement: &mut Statement<'_>, column: &str, ids: &[EventId]) {
        among(statement, column, ids.iter().map(|id| Cell::from(*id)));
    }

    fn among_names<'a>(statement: &mut Statement<'a>, column: &str, names: Vec<&'a str>) {
        among(statement, column, names.into_iter().map(Cell::from));
    }
}

fn among<'a>(statement: &mut Statement<'a>, column: &str, cells: impl Iterator<Item = Cell<'a>>) {
    // Writing to a string does not fail.
    write!(statement.text, "{column} IN (").unwrap_or_default();
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            statement.push(", ");
        }
        statement.push_bind(cell);
    }
    statement.push(")");
}

/// The values of a statement, in the order of its placeholders.
pub(super) fn arguments(cells: &[Cell<'_>]) -> Result<SqliteArguments, sqlx::Error> {
    let mut values = SqliteArguments::default();
    for cell in cells {
        match cell {
            Cell::Integer(integer) => values.add(*integer),
            Cell::Text(text) => values.add(text.as_deref()),
            Cell::Bytes(bytes) => values.add(bytes.as_deref()),
            Cell::Truth(truth) => values.add(*truth),
            Cell::Id(id) => values.add(id.map(|id| id.to_bytes().to_vec())),
            // SQLite has no lists: `among` writes them out.
            Cell::Ids(_) | Cell::Texts(_) => values.add(None::<i64>),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(values)
}

impl Cells for SqliteRow {
    fn integer(&self, at: usize) -> Result<Option<i64>, StoreError> {
        self.try_get(at).map_err(store_error)
    }

    fn text(&self, at: usize) -> Result<Option<&str>, StoreError> {
        self.try_get(at).map_err(store_error)
    }

    fn any_text(&self, at: usize) -> Result<Option<Cow<'_, str>>, StoreError> {
        Ok(self.bytes(at)?.map(String::from_utf8_lossy))
    }

    fn bytes(&self, at: usize) -> Result<Option<&[u8]>, StoreError> {
        self.try_get(at).map_err(store_error)
    }

    fn truth(&self, at: usize) -> Result<Option<bool>, StoreError> {
        self.try_get(at).map_err(store_error)
    }

    fn id(&self, at: usize) -> Result<Option<Cow<'_, [u8]>>, StoreError> {
        Ok(self.bytes(at)?.map(Cow::Borrowed))
    }
}
