//! The ledger in Postgres, which any number of gateways share: connections, schema, closing, and what its errors mean.
//!
//! May use: `domain`, `ports`, and of the adapters [`super::sql`], which has what is the same in every dialect. `usage`
//! fills [`crate::ports::usage::UsageStore`] with `append` and `partitions`, `tenants` fills
//! [`crate::ports::tenants::TenantStore`], `transfer` lets it be copied, `session` is one connection at work.
//!
//! Seven connections at most for each gateway: one that appends, one that changes tenants and keys, four that read, and
//! one that claims the ledger. Nothing waits without a bound: the server ends statements and waits for locks, and a server
//! that has gone silent is given up from here.

mod append;
mod claim;
mod dialect;
mod objects;
mod partitions;
mod prices;
mod retention;
mod session;
mod tenants;
mod transfer;
mod units;
mod usage;

use std::error::Error as _;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Postgres};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

pub use self::claim::{Beside, Claim};
use self::partitions::Months;
use crate::adapters::sql::transfer::demand_whole;
use crate::ports::StoreError;

/// Every version of the schema, embedded. A file added below `migrations` is seen once this file is compiled again.
static MIGRATOR: Migrator = sqlx::migrate!("migrations/postgres");

/// Reading connections: as many as SQLite has. Each is a process of the server, whose usual hundred are enough for fourteen
/// gateways.
const READERS_MAX: u32 = 4;

/// How long a caller waits for a connection, new ones included.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that was idle for so long is given back to the server.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// One try to connect while the server is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two tries.
const CONNECT_PAUSE: Duration = Duration::from_millis(250);

/// A machine that is gone without a word is noticed by the server after 25 seconds, not after hours: what it had locked is
/// free then.
const KEEPALIVE: &str = "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3";

/// What every connection is set to. The server ends what takes longer; `jit` would compile for seconds what a report asks
/// once.
const LIMITS: &str = "SET statement_timeout = '30s'; SET lock_timeout = '10s'; \
    SET idle_in_transaction_session_timeout = '60s'; SET jit = off";

/// Longer than the server lets anything take, so that this ends only what the server will not: it is gone.
const SILENCE_MAX: Duration = Duration::from_secs(40);

/// A schema that is being changed by another process is waited for so long.
const MIGRATION_LOCK: &str = "SET lock_timeout = '120s'; SET statement_timeout = 0";

/// The oldest version whose functions and partitions are known to do: 13.
const SERVER_VERSION_MIN: i32 = 130_000;

/// The numbers of our advisory locks in this database: `toll` in ASCII, and one of these.
const LOCK_CLASS: i32 = 0x746f_6c6c;
const LOCK_APPEND: i32 = 1;
const LOCK_PARTITIONS: i32 = 2;
const LOCK_SOLE: i32 = 3;

/// The ledger in one Postgres database, as both its usage store and its tenant store.
#[derive(Debug)]
pub struct PostgresLedger {
    /// `postgres://host:port/database`, for people.
    name: String,
    options: ShownNever,
    writer: PgPool,
    changer: PgPool,
    readers: PgPool,
    months: Mutex<Months>,
}

/// How to connect, password included.
struct ShownNever(PgConnectOptions);

impl std::fmt::Debug for ShownNever {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl PostgresLedger {
    /// Connects to the database that `url` names. A server that cannot be reached yet is waited for up to `patience`, as
    /// it may be starting, too; one that answers and refuses is not. The schema is not touched: call [`Self::migrate`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] with what is wrong and the fix. No error shows a password.
    pub async fn open(url: &str, patience: Duration) -> Result<Self, StoreError> {
        // The words of the parser may repeat what it was given, so they are not passed on.
        let wrong = |_| StoreError::Unavailable("DATABASE_URL is no URL of Postgres".to_owned());
        let options = PgConnectOptions::from_str(url).map_err(wrong)?.disable_statement_logging();
        let options = match options.get_application_name() {
            Some(_) => options,
            None => options.application_name("tollgate"),
        };
        let name = name(&options);
        let mut connection = connect(&options, &name, patience).await?;
        let checked = check_server(&mut connection).await;
        connection.close().await.unwrap_or_default();
        checked?;
        // Plans that are made for each question: a tenant with a million events and one with ten have nothing in common,
        // and a month's partition is chosen when the month is known.
        let readers = "SET plan_cache_mode = force_custom_plan; SET default_transaction_read_only = on";
        Ok(Self {
            writer: pool(1, "SET plan_cache_mode = force_generic_plan").connect_lazy_with(options.clone()),
            changer: pool(1, "").connect_lazy_with(options.clone()),
            readers: pool(READERS_MAX, readers).connect_lazy_with(options.clone()),
            options: ShownNever(options),
            name,
            months: Mutex::default(),
        })
    }

    /// Where the ledger is: `postgres://host:port/database`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether no version's schema is in it.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn is_empty(&self) -> Result<bool, StoreError> {
        let found = sqlx::query_scalar::<_, bool>("SELECT to_regclass('_sqlx_migrations') IS NULL");
        let found = timeout(SILENCE_MAX, found.fetch_one(&self.readers)).await.unwrap_or_else(|_| Err(silent()));
        found.map_err(store_error)
    }

    /// Creates the schema, or brings an older one up to this version's. Any number of processes may do it at once: one
    /// does, the others wait and find it done.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the ledger was written by a newer version, or its schema is not one of ours;
    /// [`StoreError::Unavailable`] when a copy into it is not finished.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.check_whole().await?;
        self.prepare().await
    }

    /// The same, also while a copy into it is not finished: for that copy.
    ///
    /// # Errors
    /// As above.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        // What is up to date is left alone: it may belong to another user, who lets this one read and write only.
        if self.check_version().await.is_ok() {
            return Ok(());
        }
        let mut connection = self.options.0.connect().await.map_err(store_error)?;
        sqlx::raw_sql(MIGRATION_LOCK).execute(&mut connection).await.map_err(store_error)?;
        let migrated = MIGRATOR.run(&mut connection).await.map_err(|error| self.migration_error(error));
        connection.close().await.unwrap_or_default();
        migrated
    }

    /// Closes all connections. Later calls fail.
    pub async fn close(&self) {
        self.readers.close().await;
        self.changer.close().await;
        self.writer.close().await;
    }

    /// Whether the schema is the newest that this version knows, and all of the ledger is here.
    async fn check_schema(&self) -> Result<(), StoreError> {
        self.check_whole().await?;
        self.check_version().await
    }

    async fn check_whole(&self) -> Result<(), StoreError> {
        let mut reader = self.reader().await?;
        let whole = demand_whole::<Postgres>(&mut reader).await;
        reader.answer(whole)
    }

    async fn check_version(&self) -> Result<(), StoreError> {
        let applied = sqlx::query_scalar::<_, Option<i64>>("SELECT MAX(version) FROM _sqlx_migrations WHERE success");
        match timeout(SILENCE_MAX, applied.fetch_one(&self.readers)).await.unwrap_or_else(|_| Err(silent())) {
            Ok(applied) if applied == Some(newest_schema()) => Ok(()),
            Ok(Some(applied)) if applied > newest_schema() => Err(self.newer_schema(applied)),
            Ok(_) => Err(older_schema()),
            Err(error) => Err(store_error(error)),
        }
    }

    fn migration_error(&self, error: MigrateError) -> StoreError {
        match error {
            MigrateError::VersionMissing(applied) => self.newer_schema(applied),
            MigrateError::VersionMismatch(version) => {
                let name = &self.name;
                StoreError::Corrupt(format!("version {version} of the schema of {name} is not the released one"))
            }
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => store_error(error),
            other => StoreError::Corrupt(other.to_string()),
        }
    }

    fn newer_schema(&self, applied: i64) -> StoreError {
        let (name, known) = (&self.name, newest_schema());
        StoreError::Corrupt(format!(
            "{name} has version {applied} of the schema, this tollgate knows {known}; start a newer tollgate"
        ))
    }
}

fn older_schema() -> StoreError {
    StoreError::Unavailable("the schema is an older one or missing; run `tollgate migrate`".to_owned())
}

fn newest_schema() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0)
}

fn pool(connections_max: u32, settings: &'static str) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // A server that was started again is noticed here and not by a question that fails.
        .test_before_acquire(true)
        .idle_timeout(Some(IDLE_TIMEOUT))
        .max_lifetime(None)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                sqlx::raw_sql(KEEPALIVE).execute(&mut *connection).await?;
                sqlx::raw_sql(LIMITS).execute(&mut *connection).await?;
                sqlx::raw_sql(settings).execute(connection).await.map(|_| ())
            })
        })
}

/// How the database of a URL is named to people: without user, password and parameters.
pub fn name_of(url: &str) -> String {
    PgConnectOptions::from_str(url).map_or_else(|_| "postgres://".to_owned(), |options| name(&options))
}

fn name(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    match options.get_socket() {
        Some(socket) => format!("postgres://{}:{}/{database}", socket.display(), options.get_port()),
        None => format!("postgres://{}:{}/{database}", options.get_host(), options.get_port()),
    }
}

/// The first connection.
async fn connect(options: &PgConnectOptions, name: &str, patience: Duration) -> Result<PgConnection, StoreError> {
    let deadline = Instant::now() + patience;
    let mut is_told = false;
    loop {
        let tried = timeout(CONNECT_TIMEOUT, options.connect()).await.unwrap_or_else(|_| Err(silent()));
        let error = match tried {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        if !may_come_up(&error) || Instant::now() >= deadline {
            return Err(StoreError::Unavailable(cannot_connect(&error)));
        }
        if !is_told {
            warn!(ledger = name, %error, "Waiting for Postgres.");
            is_told = true;
        }
        sleep(CONNECT_PAUSE).await;
    }
}

/// Whether a server that cannot be had now may be had in a moment.
fn may_come_up(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(_) => code(error).is_some_and(|code| code.starts_with("57P") || code.starts_with("53")),
        _ => false,
    }
}

/// Why, and what helps.
fn cannot_connect(error: &sqlx::Error) -> String {
    let fix = match code(error).as_deref() {
        Some(code) if code.starts_with("28") => "give user and password in DATABASE_URL (or DATABASE_URL_FILE)",
        Some("3D000") => "create it (createdb), or name another in DATABASE_URL",
        Some("53300") => "raise max_connections: a gateway takes up to seven",
        Some(_) => "look at the log of Postgres",
        None => match error {
            sqlx::Error::Tls(_) | sqlx::Error::Configuration(_) => {
                "look at sslmode and the certificates in DATABASE_URL"
            }
            _ => "start Postgres, or set DATABASE_URL to where it is",
        },
    };
    let mut words = match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        other => other.to_string(),
    };
    // The driver says "error communicating with database", the cause says why.
    if let Some(cause) = error.source().filter(|cause| !words.contains(&cause.to_string())) {
        words = format!("{words}: {cause}");
    }
    format!("{words}: {fix}")
}

async fn check_server(connection: &mut PgConnection) -> Result<(), StoreError> {
    let question = "SELECT current_setting('server_version_num')::int4, current_setting('server_encoding')";
    let (version, encoding): (i32, String) =
        sqlx::query_as(question).fetch_one(connection).await.map_err(store_error)?;
    if version < SERVER_VERSION_MIN {
        return Err(StoreError::Unavailable("this Postgres is too old: 13 or later is needed".to_owned()));
    }
    if encoding != "UTF8" {
        let fix = "create it anew with ENCODING 'UTF8' TEMPLATE template0";
        return Err(StoreError::Unavailable(format!("the database holds {encoding}, not UTF8: {fix}")));
    }
    Ok(())
}

/// What a server that no longer says anything is taken for.
fn silent() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "Postgres does not answer"))
}

/// The SQLSTATE of an error (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned())
}

/// What an error of the database means to whoever asked, by its SQLSTATE.
fn store_error(error: sqlx::Error) -> StoreError {
    let words = match &error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        other => other.to_string(),
    };
    match code(&error).as_deref() {
        Some("XX001" | "XX002") => StoreError::Corrupt(words),
        // A table or column that is not there.
        Some("42P01" | "42703") => older_schema(),
        // Values that do not fit (22), rules of the schema that they break (23), sizes beyond any (54).
        Some(code) if ["22", "23", "54"].iter().any(|class| code.starts_with(class)) => StoreError::Refused(words),
        Some(_) => StoreError::Unavailable(words),
        None => match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
                StoreError::Corrupt(words)
            }
            _ => StoreError::Unavailable(words),
        },
    }
}
