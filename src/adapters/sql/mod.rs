//! What the ledgers in SQL have in common: which columns there are, what a sum over events means, how values stand in rows,
//! and every question and change that both dialects can say in the same words.
//!
//! May use: `domain`, `ports`. [`super::sqlite`] and [`super::postgres`] fill the ports with it. What differs is small
//! enough for one trait, [`Dialect`]; opening, schema, the append of events and what errors mean are each adapter's own.

pub(super) mod audit;
pub(super) mod cells;
pub(super) mod changes;
pub(super) mod crossings;
pub(super) mod objects;
pub(super) mod prices;
pub(super) mod provider_keys;
pub(super) mod rows;
pub(super) mod rules;
pub(super) mod scopes;
pub(super) mod statement;
pub(super) mod transfer;
pub(super) mod units;
pub(super) mod usage;
pub(super) mod walk;

use futures_util::stream::BoxStream;
use sqlx::Database;

use self::cells::Cells;
use self::statement::Statement;
use crate::domain::ids::EventId;
use crate::ports::{BoxFuture, StoreError};

/// One database and its way of saying things.
pub(super) trait Dialect: Database<Row: Cells> {
    /// The function that gives the smaller of two values.
    const LEAST: &'static str;
    /// The function that gives the larger of two values.
    const GREATEST: &'static str;
    /// The day (`2026-11-24`) of an event, on its tenant's clock.
    const DAY: &'static str;
    /// The hour (`2026-11-24T10`) of an event, on its tenant's clock.
    const HOUR: &'static str;
    /// `requested_at` as pages of events are narrowed by it: in their order, which is that of their rows.
    const TIME_OF_PAGE: &'static str;
    /// The id of the ledger in hex.
    const LEDGER_ID: &'static str;

    /// Behind a SELECT of rows that are to be changed: passes over those that somebody else changes.
    const SKIP_LOCKED: &'static str;

    /// What an error means to whoever asked.
    fn error(error: sqlx::Error) -> StoreError;

    /// All rows of an answer.
    fn rows<'c>(
        connection: &'c mut Self::Connection,
        statement: Statement<'_>,
    ) -> BoxFuture<'c, Result<Vec<Self::Row>, sqlx::Error>>;

    /// The rows of an answer one after the other.
    fn stream<'c>(
        connection: &'c mut Self::Connection,
        statement: Statement<'_>,
    ) -> BoxStream<'c, Result<Self::Row, sqlx::Error>>;

    /// Does something; says to how many rows.
    fn run<'c>(
        connection: &'c mut Self::Connection,
        statement: Statement<'_>,
    ) -> BoxFuture<'c, Result<u64, sqlx::Error>>;

    /// Goes on with `column IN (…)`: at most [`LISTED_MAX`] ids.
    fn among_ids(statement: &mut Statement<'_>, column: &str, ids: &[EventId]);

    /// The same for names.
    fn among_names<'a>(statement: &mut Statement<'a>, column: &str, names: Vec<&'a str>);
}

/// Ids or names in one statement: far below the 32,766 values that SQLite takes, and one size for all but the last.
pub(super) const LISTED_MAX: usize = 1_000;
