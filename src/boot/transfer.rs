//! The two ends of a copy: opened, and kept from gateways for as long as it lasts.
//!
//! May use: everything.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use crate::adapters::postgres::{Beside, Claim};
use crate::config;
use crate::ports::StoreError;
use crate::ports::transfer::Transfer;

use super::ledger::{Ledger, PATIENCE_OF_COMMANDS};
use super::{BootError, ledger, recovery};

/// What helps when a gateway serves from one of them.
const FIX: &str = "stop it first, as nothing may change while a ledger is copied";

/// One end. Dropping it lets gateways have it again.
#[derive(Debug)]
pub struct End {
    ledger: Ledger,
    name: String,
    _held: Held,
}

/// What keeps gateways away: what each of them takes when it starts.
#[derive(Debug)]
enum Held {
    Sqlite { _lock: File },
    Postgres { _claim: Claim },
}

impl End {
    /// The end that is read. It has to be there, up to date and whole.
    ///
    /// # Errors
    /// When it is not, or when a gateway serves from it.
    pub async fn source(at: &config::Ledger) -> Result<Self, BootError> {
        // Locking a file that is missing would make its directory.
        let opened = Ledger::open_at(at, false, PATIENCE_OF_COMMANDS).await?;
        let end = Self::hold(at, opened).await?;
        end.ledger.usage().ready().await.map_err(|error| failed(at, error))?;
        Ok(end)
    }

    /// The end that is written. A file that is missing is made; the schema is not touched.
    ///
    /// # Errors
    /// When it cannot be had or is `source` under another name, or when a gateway serves from it.
    pub async fn target(at: &config::Ledger, source: &Self) -> Result<Self, BootError> {
        let opened = Ledger::open_at(at, true, PATIENCE_OF_COMMANDS).await?;
        if opened.is_same(&source.ledger).await.map_err(|error| failed(at, error))? {
            return Err(BootError::SameLedger { ledger: ledger::name(at) });
        }
        Self::hold(at, opened).await
    }

    async fn hold(at: &config::Ledger, opened: Ledger) -> Result<Self, BootError> {
        let name = ledger::name(at);
        let held = match &opened {
            Ledger::Postgres(ledger) => {
                let taken = || BootError::LedgerTaken { ledger: name.clone(), fix: FIX };
                let claim = ledger.claim(Beside::Nobody).await.map_err(|error| failed(at, error))?;
                Held::Postgres { _claim: claim.ok_or_else(taken)? }
            }
            Ledger::Sqlite(ledger) => Held::Sqlite { _lock: recovery::lock_ledger(ledger.path(), FIX)? },
        };
        Ok(Self { ledger: opened, name, _held: held })
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its rows.
    pub fn rows(&self) -> Arc<dyn Transfer> {
        match &self.ledger {
            Ledger::Sqlite(ledger) => ledger.clone(),
            Ledger::Postgres(ledger) => ledger.clone(),
        }
    }

    /// Creates the schema or brings it up to date, also where a copy is not finished.
    ///
    /// # Errors
    /// When it cannot, such as one of a newer version.
    pub async fn prepare(&self) -> Result<(), BootError> {
        let prepared = match &self.ledger {
            Ledger::Sqlite(ledger) => ledger.prepare().await,
            Ledger::Postgres(ledger) => ledger.prepare().await,
        };
        prepared.map_err(|source| BootError::Ledger { ledger: self.name.clone(), source })
    }

    /// Closes it: everything from a log moves into its file.
    ///
    /// # Errors
    /// When that cannot be; nothing is lost.
    pub async fn close(self) -> Result<(), BootError> {
        self.ledger.close().await.map_err(|source| BootError::Ledger { ledger: self.name, source })
    }
}

impl Ledger {
    /// Whether both are one, whatever paths or names lead to it.
    async fn is_same(&self, other: &Self) -> Result<bool, StoreError> {
        Ok(match (self, other) {
            (Self::Sqlite(one), Self::Sqlite(other)) => {
                let id = file_id(one.path());
                id.is_some() && id == file_id(other.path())
            }
            (Self::Postgres(one), Self::Postgres(other)) => one.identity().await? == other.identity().await?,
            _ => false,
        })
    }
}

fn failed(at: &config::Ledger, source: StoreError) -> BootError {
    BootError::Ledger { ledger: ledger::name(at), source }
}

/// What a file is known by, whatever path leads to it.
fn file_id(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}
