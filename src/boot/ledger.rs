//! The ledger that the configuration names: opened, and closed again.
//!
//! May use: everything.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::task::JoinHandle;

use crate::adapters::postgres::{self, Beside, PostgresLedger};
use crate::adapters::sqlite::SqliteLedger;
use crate::config::{self, Config};
use crate::ports::StoreError;
use crate::ports::objects::ObjectStore;
use crate::ports::tenants::TenantStore;
use crate::ports::units::UnitStore;
use crate::ports::usage::UsageStore;

use super::BootError;

/// A gateway waits so long for a Postgres that is starting, too: containers come up in any order.
const PATIENCE: Duration = Duration::from_secs(15);

/// A command at a terminal waits no longer than its user would.
pub const PATIENCE_OF_COMMANDS: Duration = Duration::from_secs(2);

/// An open ledger.
#[derive(Debug, Clone)]
pub enum Ledger {
    /// In one file.
    Sqlite(Arc<SqliteLedger>),
    /// In one database.
    Postgres(Arc<PostgresLedger>),
}

impl Ledger {
    /// Opens the ledger that the configuration names. With `create` a missing file is made, and the schema is brought up
    /// to date.
    ///
    /// # Errors
    /// With the name of the ledger and what is wrong.
    pub async fn open(config: &Config, create: bool, patience: Duration) -> Result<Self, BootError> {
        let failed = |source| BootError::Ledger { ledger: name(&config.ledger), source };
        let ledger = Self::open_at(&config.ledger, create, patience).await.map_err(|error| match error {
            BootError::Ledger { ledger, source: StoreError::Missing(_) } => BootError::NoLedger { ledger },
            error => error,
        })?;
        if create {
            ledger.migrate().await.map_err(failed)?;
        }
        Ok(ledger)
    }

    /// Opens the ledger for a command that works with one of this version's schema alone: another version's gateways may be
    /// at work on it, and what a schema is changed for is said. With `begin` one that is not there, or is empty, is made.
    ///
    /// # Errors
    /// With the name of the ledger and what is wrong.
    pub async fn open_as_it_is(config: &Config, begin: bool, patience: Duration) -> Result<Self, BootError> {
        let failed = |source| BootError::Ledger { ledger: name(&config.ledger), source };
        let is_missing = matches!(&config.ledger, config::Ledger::Sqlite(path) if !path.exists());
        let ledger = Self::open(config, begin && is_missing, patience).await?;
        let is_current = async {
            if begin && ledger.is_empty().await? {
                ledger.migrate().await?;
            }
            ledger.usage().ready().await
        };
        if let Err(source) = is_current.await {
            ledger.leave().await;
            return Err(failed(source));
        }
        Ok(ledger)
    }

    /// Opens the ledger that is there, whatever its schema. With `create` a missing file is made.
    ///
    /// # Errors
    /// With the name of the ledger and what is wrong.
    pub(super) async fn open_at(at: &config::Ledger, create: bool, patience: Duration) -> Result<Self, BootError> {
        let failed = |source| BootError::Ledger { ledger: name(at), source };
        Ok(match at {
            config::Ledger::Sqlite(path) => {
                Self::Sqlite(Arc::new(SqliteLedger::open(&path.to_string_lossy(), create).await.map_err(failed)?))
            }
            config::Ledger::Postgres(url) => {
                let opened = PostgresLedger::open(url.expose_secret(), patience).await;
                Self::Postgres(Arc::new(opened.map_err(failed)?))
            }
        })
    }

    /// Opens it for a gateway, which waits for a server that is starting, and claims it.
    ///
    /// # Errors
    /// As [`Self::open`] and [`Self::claim`].
    pub async fn open_to_serve(config: &Config) -> Result<(Self, Option<JoinHandle<()>>), BootError> {
        let ledger = Self::open(config, true, PATIENCE).await?;
        let claiming = ledger.claim(config).await?;
        Ok((ledger, claiming))
    }

    /// Its events and sums.
    pub fn usage(&self) -> Arc<dyn UsageStore> {
        match self {
            Self::Sqlite(ledger) => ledger.clone(),
            Self::Postgres(ledger) => ledger.clone(),
        }
    }

    /// What waits for its bill.
    pub fn units(&self) -> Arc<dyn UnitStore> {
        match self {
            Self::Sqlite(ledger) => ledger.clone(),
            Self::Postgres(ledger) => ledger.clone(),
        }
    }

    /// Whose the objects are that providers keep.
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        match self {
            Self::Sqlite(ledger) => ledger.clone(),
            Self::Postgres(ledger) => ledger.clone(),
        }
    }

    /// Its tenants and keys.
    pub fn tenants(&self) -> Arc<dyn TenantStore> {
        match self {
            Self::Sqlite(ledger) => ledger.clone(),
            Self::Postgres(ledger) => ledger.clone(),
        }
    }

    /// Claims it for this process: limits that are counted in the process are those of one gateway, and one that shares its
    /// counters does so with all others. (A file is locked instead.) The claim is held for as long as the task runs.
    ///
    /// # Errors
    /// [`BootError::LedgerTaken`] when another gateway has it, and one of the two counts for itself.
    async fn claim(&self, config: &Config) -> Result<Option<JoinHandle<()>>, BootError> {
        let Self::Postgres(ledger) = self else { return Ok(None) };
        let beside = if config.counters.url.is_some() { Beside::Others } else { Beside::Nobody };
        let failed = |source| BootError::Ledger { ledger: ledger.name().to_owned(), source };
        let fix = "set REDIS_URL for both, so that they count together, or stop that one";
        let taken = || BootError::LedgerTaken { ledger: ledger.name().to_owned(), fix };
        let claim = ledger.claim(beside).await.map_err(failed)?.ok_or_else(taken)?;
        Ok(Some(tokio::spawn(claim.keep(ledger.clone()))))
    }

    /// Closes it for good.
    ///
    /// # Errors
    /// When a file was not closed cleanly; nothing is lost.
    pub async fn close(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(ledger) => ledger.close().await,
            Self::Postgres(ledger) => {
                ledger.close().await;
                Ok(())
            }
        }
    }

    /// Lets go of it as one who only looked.
    pub async fn leave(&self) {
        match self {
            Self::Sqlite(ledger) => ledger.leave().await,
            Self::Postgres(ledger) => ledger.close().await,
        }
    }

    async fn is_empty(&self) -> Result<bool, StoreError> {
        match self {
            Self::Sqlite(ledger) => ledger.is_empty().await,
            Self::Postgres(ledger) => ledger.is_empty().await,
        }
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(ledger) => ledger.migrate().await,
            Self::Postgres(ledger) => ledger.migrate().await,
        }
    }
}

/// What people call the ledger: its file, or host, port and database.
pub fn name(ledger: &config::Ledger) -> String {
    match ledger {
        config::Ledger::Sqlite(path) => path.display().to_string(),
        config::Ledger::Postgres(url) => postgres::name_of(url.expose_secret()),
    }
}
