//! How Postgres says what both dialects can say, and how values stand in its rows.
//!
//! May use: `domain`, `ports`.

use std::borrow::Cow;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryFutureExt};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{
    PgArgumentBuffer, PgArguments, PgConnection, PgHasArrayType, PgRow, PgTypeInfo, PgValueFormat, PgValueRef,
};
use sqlx::{Arguments, AssertSqlSafe, Decode, Encode, Postgres, Row, Type, query_with};
use tokio::time::timeout;

use super::{SILENCE_MAX, silent, store_error};
use crate::adapters::sql::Dialect;
use crate::adapters::sql::cells::{Cell, Cells};
use crate::adapters::sql::statement::Statement;
use crate::domain::ids::EventId;
use crate::ports::{BoxFuture, StoreError};

impl Dialect for Postgres {
    const LEAST: &'static str = "LEAST";
    const GREATEST: &'static str = "GREATEST";
    const DAY: &'static str =
        "to_char(to_timestamp(requested_at / 1000000 + utc_offset_s) AT TIME ZONE 'UTC', 'YYYY-MM-DD')";
    const HOUR: &'static str =
        "to_char(to_timestamp(requested_at / 1000000 + utc_offset_s) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24')";
    const TIME_OF_PAGE: &'static str = "requested_at";
    const LEDGER_ID: &'static str = "encode(ledger_id, 'hex')";
    const SKIP_LOCKED: &'static str = " FOR UPDATE SKIP LOCKED";

    fn error(error: sqlx::Error) -> StoreError {
        store_error(error)
    }

    fn rows<'c>(
        connection: &'c mut PgConnection,
        statement: Statement<'_>,
    ) -> BoxFuture<'c, Result<Vec<PgRow>, sqlx::Error>> {
        match arguments(&statement.cells) {
            Ok(values) => {
                let answer = query_with(AssertSqlSafe(statement.text), values).fetch_all(connection);
                timeout(SILENCE_MAX, answer).map(|answer| answer.unwrap_or_else(|_| Err(silent()))).boxed()
            }
            Err(error) => Box::pin(async { Err(error) }),
        }
    }

    fn stream<'c>(
        connection: &'c mut PgConnection,
        statement: Statement<'_>,
    ) -> BoxStream<'c, Result<PgRow, sqlx::Error>> {
        match arguments(&statement.cells) {
            Ok(values) => query_with(AssertSqlSafe(statement.text), values).fetch(connection),
            Err(error) => futures_util::stream::once(async { Err(error) }).boxed(),
        }
    }

    fn run<'c>(connection: &'c mut PgConnection, statement: Statement<'_>) -> BoxFuture<'c, Result<u64, sqlx::Error>> {
        match arguments(&statement.cells) {
            Ok(values) => {
                let done = query_with(AssertSqlSafe(statement.text), values).execute(connection);
                let done = done.map_ok(|done| done.rows_affected());
                timeout(SILENCE_MAX, done).map(|done| done.unwrap_or_else(|_| Err(silent()))).boxed()
            }
            Err(error) => Box::pin(async { Err(error) }),
        }
    }

    fn among_ids(statement: &mut Statement<'_>, column: &str, ids: &[EventId]) {
        statement.push(column).push(" = ANY(").push_bind(Cell::Ids(ids.to_vec())).push(")");
    }

    fn among_names<'a>(statement: &mut Statement<'a>, column: &str, names: Vec<&'a str>) {
        statement.push(column).push(" = ANY(").push_bind(Cell::Texts(names)).push(")");
    }
}

/// The values of a statement, in the order of its placeholders.
fn arguments(cells: &[Cell<'_>]) -> Result<PgArguments, sqlx::Error> {
    let mut values = PgArguments::default();
    for cell in cells {
        match cell {
            Cell::Integer(integer) => values.add(*integer),
            Cell::Text(text) => values.add(text.as_deref().map(storable)),
            Cell::Bytes(bytes) => values.add(bytes.as_deref()),
            Cell::Truth(truth) => values.add(*truth),
            Cell::Id(id) => values.add(id.map(Uuid)),
            Cell::Ids(ids) => values.add(ids.iter().map(|id| Uuid(*id)).collect::<Vec<_>>()),
            Cell::Texts(texts) => values.add(texts),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(values)
}

/// A text that Postgres can hold, which is any without NUL. A NUL becomes the mark for what cannot be shown: an event is
/// booked all the same.
pub(super) fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// An event's id, which Postgres keeps and shows as a UUID.
#[derive(Debug, Clone, Copy)]
pub(super) struct Uuid(pub(super) EventId);

/// Numbers of types that never change (`pg_type.dat` of Postgres).
const UUID: Oid = Oid(2950);
const UUID_ARRAY: Oid = Oid(2951);

impl Type<Postgres> for Uuid {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(UUID)
    }
}

impl PgHasArrayType for Uuid {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(UUID_ARRAY)
    }
}

impl Encode<'_, Postgres> for Uuid {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(&self.0.to_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for Uuid {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => Ok(Self(EventId::from_bytes(value.as_bytes()?.try_into()?))),
            PgValueFormat::Text => Ok(Self(value.as_str()?.parse()?)),
        }
    }
}

impl Cells for PgRow {
    fn integer(&self, at: usize) -> Result<Option<i64>, StoreError> {
        self.try_get(at).map_err(store_error)
    }

    fn text(&self, at: usize) -> Result<Option<&str>, StoreError> {
        self.try_get(at).map_err(store_error)
    }

    fn any_text(&self, at: usize) -> Result<Option<Cow<'_, str>>, StoreError> {
        Ok(self.text(at)?.map(Cow::Borrowed))
    }

    fn bytes(&self, at: usize) -> Result<Option<&[u8]>, StoreError> {
        self.try_get(at).map_err(store_error)
    }

    fn truth(&self, at: usize) -> Result<Option<bool>, StoreError> {
        self.try_get(at).map_err(store_error)
    }

    fn id(&self, at: usize) -> Result<Option<Cow<'_, [u8]>>, StoreError> {
        let id: Option<Uuid> = self.try_get(at).map_err(store_error)?;
        Ok(id.map(|Uuid(id)| Cow::Owned(id.to_bytes().to_vec())))
    }
}
