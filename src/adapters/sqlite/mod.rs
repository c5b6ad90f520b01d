//! The ledger in one SQLite file: opening, schema, closing, and what its errors mean.
//!
//! May use: `domain`, `ports`, and of the adapters [`super::sql`], which has what is the same in every dialect. `usage`
//! fills [`crate::ports::usage::UsageStore`], `tenants` fills [`crate::ports::tenants::TenantStore`], `walk` shows all of
//! the ledger to whoever compares its parts, `transfer` lets it be copied.
//!
//! WAL, synchronous FULL: a commit that returned survives a power cut. One connection writes, because SQLite has one
//! writer at a time anyway and waiting in our own queue is fairer than its lock; a few others read, each from one
//! snapshot. Writing transactions begin IMMEDIATE, so that none has to give up half way for another process.

mod dialect;
mod objects;
mod prices;
mod retention;
mod tenants;
mod transfer;
mod units;
mod usage;
mod walk;

use std::fs::{DirBuilder, OpenOptions};
use std::future::ready;
use std::io::{Error as IoError, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, Transaction};

use crate::adapters::sql::transfer::demand_whole;
use crate::ports::StoreError;

/// Every version of the schema, embedded. A file added below `migrations` is seen once this file is compiled again.
static MIGRATOR: Migrator = sqlx::migrate!("migrations/sqlite");

/// Reading connections: billing reads are rare and short, and each connection is a thread and a page cache.
const READERS_MAX: u32 = 4;

/// How long a statement waits for another process (a command line beside the gateway) to end its write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a caller waits for a connection: longer than the busy timeout, so that the error names the real cause.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pages (4 KiB each) in the write-ahead log before it is moved into the file: 16 MiB. At SQLite's 1,000 a busy ledger
/// writes and syncs the pages that every batch touches four times as often.
const CHECKPOINT_PAGES: &str = "4000";

/// Page cache of each connection in KiB (SQLite counts those negative): the last pages of every table and index that a
/// batch touches, for some thousand tenants. SQLite's own 2 MiB reads them again and again.
const CACHE_KIB: &str = "-16384";

/// The write-ahead log is cut back to this many bytes after a checkpoint, so that one large import does not keep disk.
const WAL_BYTES_MAX: &str = "67108864";

/// The ledger in one SQLite file, as both its usage store and its tenant store.
#[derive(Debug)]
pub struct SqliteLedger {
    path: PathBuf,
    writer: SqlitePool,
    /// Whether the writing connection is to be replaced before it is used again: see [`Self::distrust_writer_after`].
    writer_is_suspect: Arc<AtomicBool>,
    readers: SqlitePool,
}

impl SqliteLedger {
    /// Opens the file that `location` names: a path, or `sqlite://` or `sqlite:` and a path, taken as it stands (no
    /// parameters, no escapes). With `create` a missing file is made, readable by its owner only, and the directories
    /// above it are too. The schema is not touched: call [`Self::migrate`].
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is no file and `create` is false; [`StoreError::Unavailable`], naming the
    /// path, when it cannot be made or opened; [`StoreError::Corrupt`] when it is no SQLite file.
    pub async fn open(location: &str, create: bool) -> Result<Self, StoreError> {
        let path = parse(location)?;
        if !path.exists() {
            if !create {
                return Err(StoreError::Missing(format!("the ledger {}", path.display())));
            }
            make(&path).map_err(|(at, error)| cannot_open(&at, &error.to_string()))?;
        }
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .pragma("cache_size", CACHE_KIB)
            // What a single statement would undo, and what a read sorts, stays in memory: both are bounded by a batch or a
            // page of an answer, and as files they cost more than the write itself.
            .pragma("temp_store", "MEMORY")
            .pragma("journal_size_limit", WAL_BYTES_MAX);
        let writer_is_suspect = Arc::new(AtomicBool::new(false));
        let is_suspect = Arc::clone(&writer_is_suspect);
        let writer = pool(1)
            .before_acquire(move |_, _| Box::pin(ready(Ok(!is_suspect.swap(false, Ordering::Relaxed)))))
            .connect_with(options.clone())
            .await;
        let writer = writer.map_err(|error| opening_error(&path, error))?;
        let readers = pool(READERS_MAX).connect_with(options.pragma("query_only", "ON")).await;
        let readers = readers.map_err(|error| opening_error(&path, error))?;
        Ok(Self { path, writer, writer_is_suspect, readers })
    }

    /// Where the ledger lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nothing was ever written into it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn is_empty(&self) -> Result<bool, StoreError> {
        let tables = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM sqlite_master");
        tables.fetch_one(&self.readers).await.map(|tables| tables == 0).map_err(store_error)
    }

    /// Creates the schema, or brings an older one up to this version's, in one transaction. Two processes may do it at
    /// once: the second finds it done.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the ledger was written by a newer version, or its schema is not one of ours;
    /// [`StoreError::Unavailable`] when a copy into it is not finished.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        demand_whole::<Sqlite>(&mut *self.reader().await?).await?;
        self.prepare().await
    }

    /// The same, also while a copy into it is not finished: for that copy.
    ///
    /// # Errors
    /// As above.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        MIGRATOR.run(&mut *transaction).await.map_err(|error| self.migration_error(error))?;
        self.commit(transaction).await
    }

    /// Moves everything from the write-ahead log into the file and closes it. Later calls fail.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the log could not be moved; nothing is lost, the next start reads it.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.readers.close().await;
        let checkpoint = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.writer).await;
        self.writer.close().await;
        checkpoint.map(|_| ()).map_err(store_error)
    }

    /// Lets go of the ledger and leaves its write-ahead log to whoever else has it open.
    pub async fn leave(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn reader(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        self.readers.acquire().await.map_err(store_error)
    }

    async fn write(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        let begun = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(store_error);
        begun.inspect_err(|error| self.distrust_writer_after(error))
    }

    async fn commit(&self, transaction: Transaction<'static, Sqlite>) -> Result<(), StoreError> {
        let committed = transaction.commit().await.map_err(store_error);
        committed.inspect_err(|error| self.distrust_writer_after(error))
    }

    /// The next write opens a new connection. After an error of the disk one connection may never work again: when a commit
    /// fails SQLite rolls back by itself, the ROLLBACK that follows fails, and the driver believes for ever that a
    /// transaction is open; and a file that was read-only when it was opened stays so for that connection.
    fn distrust_writer_after(&self, error: &StoreError) {
        if matches!(error, StoreError::Unavailable(_) | StoreError::Corrupt(_)) {
            self.writer_is_suspect.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the schema is the newest that this version knows, and all of the ledger is here.
    async fn check_schema(&self) -> Result<(), StoreError> {
        demand_whole::<Sqlite>(&mut *self.reader().await?).await?;
        let applied = sqlx::query_scalar::<_, Option<i64>>("SELECT MAX(version) FROM _sqlx_migrations");
        match applied.fetch_one(&self.readers).await {
            Ok(applied) if applied == Some(newest_schema()) => Ok(()),
            Ok(Some(applied)) if applied > newest_schema() => Err(self.newer_schema(applied)),
            Ok(_) => Err(self.older_schema()),
            Err(sqlx::Error::Database(error)) if error.message().starts_with("no such table") => {
                Err(self.older_schema())
            }
            Err(error) => Err(store_error(error)),
        }
    }

    fn migration_error(&self, error: MigrateError) -> StoreError {
        match error {
            MigrateError::VersionMissing(applied) => self.newer_schema(applied),
            MigrateError::VersionMismatch(version) => {
                let path = self.path.display();
                StoreError::Corrupt(format!("version {version} of the schema of {path} is not the released one"))
            }
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => store_error(error),
            other => StoreError::Corrupt(other.to_string()),
        }
    }

    fn newer_schema(&self, applied: i64) -> StoreError {
        let (path, known) = (self.path.display(), newest_schema());
        StoreError::Corrupt(format!(
            "{path} has version {applied} of the schema, this tollgate knows {known}; start a newer tollgate"
        ))
    }

    fn older_schema(&self) -> StoreError {
        let path = self.path.display();
        StoreError::Unavailable(format!("{path} has an older schema or none; run `tollgate migrate`"))
    }
}

fn newest_schema() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0)
}

fn pool(connections_max: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .min_connections(1)
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // A file does not hang up, so there is nothing to test for and no reason to renew.
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
}

fn parse(location: &str) -> Result<PathBuf, StoreError> {
    let path = location.strip_prefix("sqlite://").or_else(|| location.strip_prefix("sqlite:")).unwrap_or(location);
    // A ledger in memory would have a database of its own in each connection, and promise what it cannot keep.
    if path.is_empty() || path.contains(":memory:") || path.contains('?') {
        let hint = "give a path, such as sqlite://data/billing/billing.db, without parameters";
        return Err(StoreError::Unavailable(format!("{location:?} names no file: {hint}")));
    }
    Ok(PathBuf::from(path))
}

/// Makes the file and the directories above it. An error comes with the path it is about.
fn make(path: &Path) -> Result<(), (PathBuf, IoError)> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(|error| (parent.to_owned(), error))?;
    }
    // Only ever a new file: closing a second handle on an open ledger would drop the locks SQLite holds on it.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err((path.to_owned(), error)),
        _ => Ok(()),
    }
}

fn cannot_open(path: &Path, why: &str) -> StoreError {
    StoreError::Unavailable(format!("cannot open the ledger at {}: {why}", path.display()))
}

fn opening_error(path: &Path, error: sqlx::Error) -> StoreError {
    match store_error(error) {
        StoreError::Corrupt(why) => StoreError::Corrupt(format!("{}: {why}", path.display())),
        StoreError::Unavailable(why) => cannot_open(path, &why),
        other => other,
    }
}

/// What an error of the database means to whoever asked, by its primary code
/// (<https://www.sqlite.org/rescode.html>).
fn store_error(error: sqlx::Error) -> StoreError {
    const TOO_BIG: i32 = 18;
    const CONSTRAINT: i32 = 19;
    const MISMATCH: i32 = 20;
    const CORRUPT: i32 = 11;
    const NOT_A_DATABASE: i32 = 26;
    match &error {
        sqlx::Error::Database(database) => {
            let why = database.message().to_owned();
            let code = database.code().and_then(|code| code.parse::<i32>().ok()).map(|extended| extended & 0xff);
            match code {
                Some(CORRUPT | NOT_A_DATABASE) => StoreError::Corrupt(why),
                Some(TOO_BIG | CONSTRAINT | MISMATCH) => StoreError::Refused(why),
                _ if why.contains("integer overflow") => StoreError::Refused(why),
                _ => StoreError::Unavailable(why),
            }
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            StoreError::Corrupt(error.to_string())
        }
        _ => StoreError::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
