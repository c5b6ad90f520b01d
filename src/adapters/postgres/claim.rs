//! The claim of a gateway on its ledger: a lock of the server's, held by a connection of its own. One that counts for itself
//! has it alone; those that count together share it.
//!
//! May use: `ports`. The server lets go of it when the connection ends, however it does; a machine that is gone is noticed
//! within half a minute.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::{KEEPALIVE, LOCK_CLASS, LOCK_SOLE, PostgresLedger, SILENCE_MAX, silent, store_error};
use crate::ports::StoreError;

/// A process that ends has the claim a moment longer, which is no reason not to start.
const WAIT_MAX: Duration = Duration::from_secs(2);
const WAIT_PAUSE: Duration = Duration::from_millis(50);

/// Between two looks at the connection, and between two tries to have it again.
const LOOK: Duration = Duration::from_secs(5);

/// As long as another gateway has the claim, that is said once in so many looks.
const TOLD_EVERY: u32 = 12;

/// Beside whom a ledger is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// Limits are counted in this process.
    Nobody,
    /// Limits are counted where others of this kind count, too.
    Others,
}

impl Beside {
    fn function(self) -> &'static str {
        match self {
            Self::Nobody => "pg_try_advisory_lock",
            Self::Others => "pg_try_advisory_lock_shared",
        }
    }
}

/// The claim. Dropping it lets go of it.
#[derive(Debug)]
pub struct Claim {
    connection: PgConnection,
    beside: Beside,
}

impl PostgresLedger {
    /// Claims the ledger for this process; `None` when another has it that it does not go with.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn claim(&self, beside: Beside) -> Result<Option<Claim>, StoreError> {
        let mut waited = Duration::ZERO;
        loop {
            let claimed = self.try_claim(beside).await.map_err(store_error)?;
            if claimed.is_some() || waited >= WAIT_MAX {
                return Ok(claimed);
            }
            sleep(WAIT_PAUSE).await;
            waited = waited.saturating_add(WAIT_PAUSE);
        }
    }

    async fn try_claim(&self, beside: Beside) -> Result<Option<Claim>, sqlx::Error> {
        within(async {
            let mut connection = self.options.0.connect().await?;
            sqlx::raw_sql(KEEPALIVE).execute(&mut connection).await?;
            let question = format!("SELECT {}({LOCK_CLASS}, {LOCK_SOLE})", beside.function());
            let has: bool = sqlx::query_scalar(AssertSqlSafe(question)).fetch_one(&mut connection).await?;
            if has {
                return Ok(Some(Claim { connection, beside }));
            }
            connection.close().await?;
            Ok(None)
        })
        .await
    }
}

impl Claim {
    /// Holds on to the claim: when its connection is lost it is taken again. Runs until it is dropped.
    pub async fn keep(mut self, ledger: Arc<PostgresLedger>) {
        loop {
            sleep(LOOK).await;
            let Err(error) = within(self.connection.ping()).await else { continue };
            warn!(%error, "The connection that claims the ledger was lost; it is claimed again.");
            self = claim_again(&ledger, self.beside).await;
            info!("The ledger is claimed again.");
        }
    }
}

async fn claim_again(ledger: &PostgresLedger, beside: Beside) -> Claim {
    let mut refused: u32 = 0;
    loop {
        match ledger.try_claim(beside).await {
            Ok(Some(claim)) => return claim,
            Ok(None) if refused.is_multiple_of(TOLD_EVERY) => {
                refused = refused.saturating_add(1);
                error!(
                    ledger = ledger.name(),
                    "Another gateway counts on this ledger too, so that limits are passed: stop one of them, or set REDIS_URL for both."
                );
            }
            Ok(None) => refused = refused.saturating_add(1),
            // The recorder and readiness tell of a server that is away.
            Err(_) => {}
        }
        sleep(LOOK).await;
    }
}

async fn within<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    timeout(SILENCE_MAX, work).await.unwrap_or_else(|_| Err(silent()))
}
