//! Old events, dropped from Postgres by whole partitions.
//!
//! May use: `domain`, `ports`. A partition is dropped in a moment, but nobody may use the table in that moment, and whoever
//! wants to use it waits behind whoever waits to drop. So the wait is short and tried again. A partition is a month in UTC, and
//! an event belongs to the month of its tenant's clock. Where some of a partition stay, as clocks east of UTC are in the next
//! month already, the others are deleted in small steps that keep nobody waiting, and the partition is dropped a month later;
//! so are those of the next partition whose clocks are west of UTC.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Postgres};
use tokio::time::sleep;

use super::partitions::{OWN_FROM, name_of, partitions};
use super::session::{MOMENT, Session};
use super::{PostgresLedger, store_error};
use crate::adapters::sql::Dialect;
use crate::adapters::sql::statement::Statement;
use crate::adapters::sql::usage::{LOCAL, one};
use crate::adapters::sql::{crossings, scopes};
use crate::domain::time::{MICROS_PER_DAY, Micros, Period};
use crate::ports::StoreError;

/// How long everyone may wait behind this. Somebody who reads the whole ledger (`tollgate verify`) is in the way for longer
/// than that; then it is tried again later.
const LOCK: &str = "LOCK TABLE usage_events IN ACCESS EXCLUSIVE MODE";

/// Tries to have the table for a moment, and the pause between two: after two to three minutes it is better to say who is
/// waited for than to go on.
const TRIES_MAX: u32 = 120;
const PAUSE: Duration = Duration::from_secs(1);

/// Rows that one step looks through: some tens of milliseconds, in which nobody waits.
const ROWS_PER_STEP: i64 = 5_000;

/// Between two steps: the server has other work.
const STEP_PAUSE: Duration = Duration::from_millis(20);

/// What holds the events of one time, and how it is emptied.
struct Old {
    until: Micros,
    /// Which: a table, perhaps with a condition.
    table: String,
    /// At once, while nobody has the table; `None`: row by row.
    emptied: Option<String>,
}

impl PostgresLedger {
    /// What [`crate::ports::usage::UsageStore::drop_events`] promises.
    pub(super) async fn drop_all(&self, before: Period, tell: &mut (dyn FnMut(u64) + Send)) -> Result<(), StoreError> {
        let mut session = Session::of(&self.writer).await?;
        let months = partitions(&mut session).await;
        let months = session.answer(months)?;
        let early = "usage_events_before".to_owned();
        let mut all = vec![Old { until: OWN_FROM, emptied: Some(format!("TRUNCATE {early}")), table: early }];
        let bound = before.start().0;
        for month in months.into_iter().filter(|month| *month < before) {
            let table = name_of(month);
            // Of a clock that was ahead.
            let stay =
                month.end() == before.start() && self.count(&format!("{table} WHERE {LOCAL} >= {bound}")).await? > 0;
            let emptied = (!stay).then(|| format!("DROP TABLE {table}"));
            all.push(Old { until: month.end(), emptied, table: format!("{table} WHERE {LOCAL} < {bound}") });
        }
        // Of a clock that was behind.
        let beyond = bound.saturating_add(MICROS_PER_DAY);
        let gone = format!("usage_events WHERE requested_at BETWEEN {bound} AND {beyond} AND {LOCAL} < {bound}");
        all.push(Old { until: before.start(), emptied: None, table: gone });
        let mut dropped = 0_u64;
        for old in all {
            let events = self.count(&old.table).await?;
            // A month without events has a partition like any other; before 2000 there is one for all of time.
            let is_there = events > 0 || (old.emptied.is_some() && old.until > OWN_FROM);
            if !is_there {
                continue;
            }
            self.empty(&old, &mut || tell(dropped)).await?;
            if old.emptied.is_none() {
                self.delete(&old.table, &mut |deleted| tell(dropped.saturating_add(deleted))).await?;
            }
            dropped = dropped.saturating_add(events);
            tell(dropped);
        }
        self.forget_room();
        self.drop_scopes(before).await
    }

    /// Deletes rows of a table in steps, in the order that they were written in.
    async fn delete(&self, table: &str, tell: &mut (dyn FnMut(u64) + Send)) -> Result<(), StoreError> {
        let (mut after, mut deleted) = (i64::MIN, 0_u64);
        loop {
            let question = format!("SELECT MIN(row) FROM {table} AND row > $1");
            let mut session = Session::of(&self.writer).await?;
            let first = sqlx::query_scalar(AssertSqlSafe(question)).bind(after).fetch_one(&mut *session);
            let first: Option<i64> = Session::within(first).await?;
            let Some(first) = session.answer(Ok(first))? else { return Ok(()) };
            after = first.saturating_add(ROWS_PER_STEP - 1);
            let step = format!("DELETE FROM {table} AND row BETWEEN $1 AND $2");
            let mut session = Session::of(&self.writer).await?;
            let done = sqlx::query(AssertSqlSafe(step)).bind(first).bind(after).execute(&mut *session);
            let done = Session::within(done).await?;
            deleted = deleted.saturating_add(session.answer(Ok(done))?.rows_affected());
            tell(deleted);
            sleep(STEP_PAUSE).await;
        }
    }

    async fn drop_scopes(&self, before: Period) -> Result<(), StoreError> {
        loop {
            let mut session = Session::of(&self.writer).await?;
            let sums = scopes::drop_some::<Postgres>(&mut session, before).await;
            let crossed = crossings::drop_some::<Postgres>(&mut session, before).await;
            let dropped = sums.and_then(|sums| Ok(sums.max(crossed?)));
            if session.answer(dropped)? < scopes::DROPPED_MAX.unsigned_abs() {
                return Ok(());
            }
        }
    }

    async fn count(&self, table: &str) -> Result<u64, StoreError> {
        let mut reader = self.reader().await?;
        let question = Statement::new(format!("SELECT COUNT(*) FROM {table}"));
        let found = Postgres::rows(&mut reader, question).await;
        let count = found.map_err(store_error).and_then(|rows| one(&rows)?.count());
        reader.answer(count)
    }

    /// Tells that it waits, too: a minute without a word looks like a fault.
    async fn empty(&self, old: &Old, waits: &mut (dyn FnMut() + Send)) -> Result<(), StoreError> {
        for _ in 0..TRIES_MAX {
            if self.is_emptied(old).await? {
                return Ok(());
            }
            waits();
            sleep(PAUSE).await;
        }
        Err(StoreError::Unavailable(
            "somebody has read events for minutes (`tollgate verify`, pg_dump, a long report), and none can be dropped \
             meanwhile: do this again when that is over"
                .to_owned(),
        ))
    }

    /// One try; `false` when somebody is in the way.
    async fn is_emptied(&self, old: &Old) -> Result<bool, StoreError> {
        let until = old.until.0;
        // Said first, or with it: whoever asks gets no answer from what is left.
        let (lock, emptied) = match &old.emptied {
            Some(emptied) => (LOCK, emptied.as_str()),
            None => ("", ""),
        };
        let text = format!(
            "BEGIN; {MOMENT}; {lock}; \
             UPDATE meta SET events_from = GREATEST(COALESCE(events_from, {until}), {until}); {emptied}"
        );
        let mut session = Session::of(&self.writer).await?;
        match session.say_unless_in_use(&text).await {
            Ok(false) => session.end(Ok(false)).await,
            done => session.commit(done).await,
        }
    }
}
