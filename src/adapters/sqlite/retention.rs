//! Old events, dropped from SQLite beside a gateway that serves.
//!
//! May use: `domain`, `ports`. In small transactions with pauses between them: there is one writer at a time, and the
//! gateway's recorder is to have its turns.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection};
use tokio::time::sleep;

use super::{SqliteLedger, store_error};
use crate::adapters::sql::usage::LOCAL;
use crate::adapters::sql::{crossings, scopes};
use crate::domain::time::{Micros, Period};
use crate::ports::StoreError;

/// Rows that one transaction looks through: some tens of milliseconds of the write lock.
const ROWS_PER_STEP: i64 = 2_000;

/// Between two transactions.
const PAUSE: Duration = Duration::from_millis(20);

impl SqliteLedger {
    /// What [`crate::ports::usage::UsageStore::drop_events`] promises.
    pub(super) async fn drop_all(&self, before: Period, tell: &mut (dyn FnMut(u64) + Send)) -> Result<(), StoreError> {
        let month = before;
        let before = before.start();
        // Said first: whoever asks meanwhile gets no answer from what is left by then.
        let mut transaction = self.write().await?;
        let text = "UPDATE meta SET events_from = MAX(COALESCE(events_from, $1), $1)";
        sqlx::query(text).bind(before.0).execute(&mut *transaction).await.map_err(store_error)?;
        self.commit(transaction).await?;
        let (mut last, mut dropped) = (i64::MIN, 0_u64);
        while let Some((first, end)) = self.step_after(last).await? {
            last = end;
            let mut reader = self.reader().await?;
            if !has_old(&mut reader, first, end, before).await? {
                continue;
            }
            drop(reader);
            dropped = dropped.saturating_add(self.drop_between(first, end, before).await?);
            tell(dropped);
            sleep(PAUSE).await;
        }
        self.drop_scopes(month).await
    }

    async fn drop_scopes(&self, before: Period) -> Result<(), StoreError> {
        loop {
            let mut transaction = self.write().await?;
            let sums = scopes::drop_some::<Sqlite>(&mut transaction, before).await?;
            let dropped = sums.max(crossings::drop_some::<Sqlite>(&mut transaction, before).await?);
            self.commit(transaction).await?;
            if dropped < scopes::DROPPED_MAX.unsigned_abs() {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
    }

    /// The next rows to look through. The newest row of all is left out: were it dropped, its number would come again.
    async fn step_after(&self, last: i64) -> Result<Option<(i64, i64)>, StoreError> {
        let text = "SELECT MIN(row), (SELECT MAX(row) - 1 FROM usage_events) FROM usage_events WHERE row > $1";
        let (first, newest): (Option<i64>, Option<i64>) =
            sqlx::query_as(text).bind(last).fetch_one(&self.readers).await.map_err(store_error)?;
        let (Some(first), Some(newest)) = (first, newest) else { return Ok(None) };
        Ok((first <= newest).then(|| (first, first.saturating_add(ROWS_PER_STEP - 1).min(newest))))
    }

    async fn drop_between(&self, first: i64, last: i64, before: Micros) -> Result<u64, StoreError> {
        let mut transaction = self.write().await?;
        let text = format!("DELETE FROM usage_events WHERE row BETWEEN $1 AND $2 AND {LOCAL} < $3");
        let done =
            sqlx::query(AssertSqlSafe(text)).bind(first).bind(last).bind(before.0).execute(&mut *transaction).await;
        let dropped = done.map_err(store_error)?.rows_affected();
        self.commit(transaction).await?;
        Ok(dropped)
    }
}

/// Whether there is anything to drop: looking keeps nobody waiting.
async fn has_old(connection: &mut SqliteConnection, first: i64, last: i64, before: Micros) -> Result<bool, StoreError> {
    let text = format!("SELECT EXISTS (SELECT 1 FROM usage_events WHERE row BETWEEN $1 AND $2 AND {LOCAL} < $3)");
    let has = sqlx::query_scalar(AssertSqlSafe(text)).bind(first).bind(last).bind(before.0).fetch_one(connection);
    has.await.map_err(store_error)
}
