//! One connection at work, for a question or a transaction.
//!
//! May use: `ports`. Whoever leaves it half way, because its caller gave up or the server went silent, closes the
//! connection: waiting for a server that may be gone would keep the connection from all others.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Postgres};
use tokio::time::{sleep, timeout};

use super::{PostgresLedger, SILENCE_MAX, code, silent, store_error};
use crate::ports::StoreError;

/// A transaction that only reads, and sees one instant.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// How long everyone may wait behind whoever tries to lock something, in a transaction; then it is tried again later.
pub(super) const MOMENT: &str = "SET LOCAL lock_timeout = '300ms'";

/// The SQLSTATE of a lock that was not to be had in its time.
const IN_USE: &str = "55P03";

/// Tries to change something, and the pause between two: about a minute in which nothing is told.
const TRIES_MAX: u32 = 45;
const PAUSE: Duration = Duration::from_secs(1);

/// A connection that is closed unless it is given back.
pub(super) struct Session {
    connection: PoolConnection<Postgres>,
    is_done: bool,
}

impl PostgresLedger {
    /// For one question.
    pub(super) async fn reader(&self) -> Result<Session, StoreError> {
        Session::of(&self.readers).await
    }

    /// For several questions of one instant.
    pub(super) async fn snapshot(&self) -> Result<Session, StoreError> {
        let mut session = self.reader().await?;
        session.say(SNAPSHOT).await?;
        Ok(session)
    }

    /// For a change of tenants or keys: one after the other, whichever process makes it.
    pub(super) async fn change(&self) -> Result<Session, StoreError> {
        let mut session = Session::of(&self.changer).await?;
        session.say("BEGIN; SELECT singleton FROM meta FOR UPDATE").await?;
        Ok(session)
    }

    /// The same for what has time, and must not fail because another change takes longer than a caller would wait.
    pub(super) async fn change_in_time(&self) -> Result<Session, StoreError> {
        for _ in 0..TRIES_MAX {
            let mut session = Session::of(&self.changer).await?;
            if session.say_unless_in_use(&format!("BEGIN; {MOMENT}; SELECT singleton FROM meta FOR UPDATE")).await? {
                return Ok(session);
            }
            session.end(Ok(())).await?;
            sleep(PAUSE).await;
        }
        Err(StoreError::Unavailable(
            "somebody has been changing tenants or keys for a minute: do this again later".to_owned(),
        ))
    }
}

impl Session {
    pub(super) async fn of(pool: &PgPool) -> Result<Self, StoreError> {
        let connection = pool.acquire().await.map_err(store_error)?;
        Ok(Self { connection, is_done: false })
    }

    /// Says something that has no answer. `text` is this program's own.
    pub(super) async fn say(&mut self, text: &str) -> Result<(), StoreError> {
        Self::within(sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *self.connection)).await.map(|_| ())
    }

    /// The same for what locks something; `false` when somebody is in the way, after which the transaction can only end.
    pub(super) async fn say_unless_in_use(&mut self, text: &str) -> Result<bool, StoreError> {
        let said = sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *self.connection);
        match timeout(SILENCE_MAX, said).await.unwrap_or_else(|_| Err(silent())) {
            Ok(_) => Ok(true),
            Err(error) if code(&error).as_deref() == Some(IN_USE) => Ok(false),
            Err(error) => Err(store_error(error)),
        }
    }

    /// Waits for an answer, but not for ever.
    pub(super) async fn within<T>(answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
        timeout(SILENCE_MAX, answer).await.unwrap_or_else(|_| Err(silent())).map_err(store_error)
    }

    /// The end of a question: its answer.
    pub(super) fn answer<T>(mut self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        // After an error that is no mere refusal the connection may be anything.
        self.is_done = answer.is_ok();
        answer
    }

    /// The end of a snapshot.
    pub(super) async fn end<T>(mut self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        let answer = answer?;
        self.say("ROLLBACK").await?;
        self.is_done = true;
        Ok(answer)
    }

    /// The end of a transaction that writes: it is committed if everything in it was done.
    pub(super) async fn commit<T>(mut self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        match done {
            Ok(done) => {
                self.say("COMMIT").await?;
                self.is_done = true;
                Ok(done)
            }
            Err(error) => {
                self.is_done = self.say("ROLLBACK").await.is_ok();
                Err(error)
            }
        }
    }
}

impl Deref for Session {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.is_done {
            self.connection.close_on_drop();
        }
    }
}
