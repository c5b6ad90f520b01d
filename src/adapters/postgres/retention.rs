//! Old events, dropped from Postgres by whole partitions.
//!
//! May use: `domain`, `ports`. A partition is dropped in a moment, but nobody may use the table in that moment, and whoever
//! wants to use it waits behind whoever waits to drop. So the wait is short and tried again. A partition is a month in UTC, and
//! an event belongs to the month of its tenant's clock: the few that lie on the other side of the bound are dropped or kept one
//! by one.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Postgres};
use tokio::time::{sleep, timeout};

use super::partitions::{OWN_FROM, name_of, partitions};
use super::session::Session;
use super::{PostgresLedger, SILENCE_MAX, code, silent, store_error};
use crate::adapters::sql::Dialect;
use crate::adapters::sql::statement::Statement;
use crate::adapters::sql::usage::{LOCAL, one};
use crate::adapters::sql::{crossings, scopes};
use crate::domain::time::{MICROS_PER_DAY, Micros, Period};
use crate::ports::StoreError;

/// How long everyone may wait behind this. Somebody who reads the whole ledger (`tollgate verify`) is in the way for longer
/// than that; then it is tried again later.
const LOCK: &str = "BEGIN; SET LOCAL lock_timeout = '300ms'; LOCK TABLE usage_events IN ACCESS EXCLUSIVE MODE";

/// Tries to have the table for a moment, and the pause between two: after two to three minutes it is better to say who is
/// waited for than to go on.
const TRIES_MAX: u32 = 120;
const PAUSE: Duration = Duration::from_secs(1);

/// The SQLSTATE of a lock that was not to be had in its time.
const IN_USE: &str = "55P03";

/// What holds the events of one time, and how it is emptied.
struct Old {
    until: Micros,
    /// Which: a table, perhaps with a condition.
    table: String,
    emptied: String,
}

impl PostgresLedger {
    /// What [`crate::ports::usage::UsageStore::drop_events`] promises.
    pub(super) async fn drop_all(&self, before: Period, tell: &mut (dyn FnMut(u64) + Send)) -> Result<(), StoreError> {
        let mut session = Session::of(&self.writer).await?;
        let months = partitions(&mut session).await;
        let months = session.answer(months)?;
        let early = "usage_events_before".to_owned();
        let mut all = vec![Old { until: OWN_FROM, emptied: format!("TRUNCATE {early}"), table: early }];
        let bound = before.start().0;
        for month in months.into_iter().filter(|month| *month < before) {
            let table = name_of(month);
            // Of a clock that was ahead.
            let stay =
                month.end() == before.start() && self.count(&format!("{table} WHERE {LOCAL} >= {bound}")).await? > 0;
            let gone = format!("{table} WHERE {LOCAL} < {bound}");
            let emptied = if stay { format!("DELETE FROM {gone}") } else { format!("DROP TABLE {table}") };
            all.push(Old { until: month.end(), emptied, table: gone });
        }
        // Of a clock that was behind.
        let beyond = bound.saturating_add(MICROS_PER_DAY);
        let gone = format!("usage_events WHERE requested_at BETWEEN {bound} AND {beyond} AND {LOCAL} < {bound}");
        if self.count(&gone).await? > 0 {
            all.push(Old { until: before.start(), emptied: format!("DELETE FROM {gone}"), table: gone });
        }
        let mut dropped = 0_u64;
        for old in all {
            let events = self.count(&old.table).await?;
            // A month without events has a partition like any other; before 2000 there is one for all of time.
            if events > 0 || old.until > OWN_FROM {
                self.empty(&old, &mut || tell(dropped)).await?;
                dropped = dropped.saturating_add(events);
                tell(dropped);
            }
        }
        self.forget_room();
        self.drop_scopes(before).await
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
        let (until, emptied) = (old.until.0, &old.emptied);
        let text = format!(
            "{LOCK}; UPDATE meta SET events_from = GREATEST(COALESCE(events_from, {until}), {until}); {emptied}"
        );
        let mut session = Session::of(&self.writer).await?;
        let done = sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *session);
        match timeout(SILENCE_MAX, done).await.unwrap_or_else(|_| Err(silent())) {
            Ok(_) => session.commit(Ok(true)).await,
            Err(error) if code(&error).as_deref() == Some(IN_USE) => session.end(Ok(false)).await,
            Err(error) => session.commit(Err(store_error(error))).await,
        }
    }
}
