//! One connection to one server, shared by all who ask: the script in it, its clock, and what its errors mean.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo, Pipeline, RedisConnectionInfo,
    RedisError, ServerError, Value,
};
use tokio::sync::Notify;
use tracing::warn;

use crate::domain::redis_url::RedisHost;

use super::server_clock::ServerClock;
use super::settings::Settings;
use super::words::{Answer, Arguments};

/// All operations. The run id of the process is put before it.
const SCRIPT: &str = concat!(include_str!("counters.lua"), include_str!("rates.lua"));

/// The first version whose scripts stay in the process that they were loaded into: before, replicas and saved data had them
/// too, and would take an older copy of the counters for the truth.
const VERSION_MIN: (u32, u32) = (7, 0);

/// A connection that is not there after this does not come. Also the longest wait for one of its first answers.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(1);

/// Commands that wait to be written. Beyond it callers wait, no longer than they may.
const WAITING_MAX: usize = 1_024;

/// Commands were sent and nothing was answered for so long: the connection is dead.
const SILENT_MAX_US: u64 = 1_000_000;

/// A reason that a server gives is shown up to so many characters.
const REASON_CHARS_MAX: usize = 160;

/// A connection that works.
pub(super) struct Live {
    /// Where it leads.
    pub(super) host: RedisHost,
    /// Told when somebody finds that it does not work any more.
    pub(super) lost: Notify,
    settings: Arc<Settings>,
    connection: MultiplexedConnection,
    loaded: ArcSwap<Loaded>,
    loading: tokio::sync::Mutex<()>,
    /// Since when commands are under way without any answer; 0 when there are none.
    silent_since_us: AtomicU64,
}

/// The script in one process of Redis.
pub(super) struct Loaded {
    sha: String,
    clock: Mutex<ServerClock>,
}

/// What a server says of itself.
#[derive(Debug, Default)]
pub(super) struct Facts {
    run_id: String,
    version: String,
    mode: String,
    role: String,
    policy: String,
    time_us: Option<i64>,
    /// How much of the stream of changes it has: of two that say they are the master, the one with more is.
    pub(super) offset: i64,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Away {
    /// It may be there later.
    Gone(String),
    /// It will not do as it is; the text says what helps.
    Unfit(String),
}

/// Why a command gave nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The process does not have the script: it is another, or its scripts were flushed.
    NoScript,
    /// The slot is elsewhere.
    Moved(Option<RedisHost>),
    /// The slot is on its way to there.
    Ask(Option<RedisHost>),
    /// The connection is of no use any more.
    Lost(String),
    /// The server says no.
    Refused(String),
    /// No answer in time.
    Silent,
}

/// One operation of the script.
#[derive(Clone, Copy)]
pub(super) struct Operation<'a> {
    pub(super) name: &'static str,
    pub(super) key: &'a [u8],
    pub(super) arguments: &'a Arguments,
    /// On our clock; at the server nothing is done after it.
    pub(super) deadline_us: u64,
}

impl Live {
    /// Connects, asks the server what it is, and loads the script.
    pub(super) async fn connect(settings: Arc<Settings>, host: RedisHost) -> Result<(Facts, Self), Away> {
        let connecting = Self::connect_unbounded(settings, host.clone());
        let too_slow = || Away::Gone(format!("{host} does not answer"));
        tokio::time::timeout(CONNECT_MAX, connecting).await.unwrap_or_else(|_| Err(too_slow()))
    }

    async fn connect_unbounded(settings: Arc<Settings>, host: RedisHost) -> Result<(Facts, Self), Away> {
        let connection = opened(&settings, &host).await.map_err(|error| away(&host, &error))?;
        let none = Loaded { sha: String::new(), clock: Mutex::default() };
        let live = Self {
            host,
            lost: Notify::new(),
            settings,
            connection,
            loaded: ArcSwap::from_pointee(none),
            loading: tokio::sync::Mutex::default(),
            silent_since_us: AtomicU64::new(0),
        };
        let deadline_us = live.settings.now_us().saturating_add(super::micros(CONNECT_MAX));
        let facts = live.load(deadline_us).await?;
        live.warn_of_eviction(&facts);
        Ok((facts, live))
    }

    /// The script as it is loaded now.
    pub(super) fn loaded(&self) -> Arc<Loaded> {
        self.loaded.load_full()
    }

    /// Runs the script. Gives the word of the answer and what follows.
    pub(super) async fn evaluate(
        &self,
        loaded: &Loaded,
        operation: &Operation<'_>,
        is_asking: bool,
    ) -> Result<(String, Answer), Failure> {
        let not_after_us = loaded.clock.lock().at(operation.deadline_us).unwrap_or_default();
        let mut command = Cmd::with_capacity(32, 1_024);
        command.arg("EVALSHA").arg(&loaded.sha).arg(1).arg(operation.key).arg(operation.name).arg(not_after_us);
        operation.arguments.put(&mut command);
        let sent_us = self.settings.now_us();
        let value = if is_asking {
            self.send_asking(command, operation.deadline_us).await?
        } else {
            self.send(&command, operation.deadline_us).await?
        };
        let strange = |_| Failure::Refused("the script answers something else".to_owned());
        let mut answer = Answer::new(value).map_err(strange)?;
        let server_us = answer.int().map_err(strange)?;
        loaded.clock.lock().heard(sent_us, self.settings.now_us(), server_us);
        Ok((answer.text().map_err(strange)?, answer))
    }

    /// Loads the script again, unless somebody did since `seen` was.
    pub(super) async fn reload(&self, seen: &Arc<Loaded>, deadline_us: u64) -> Result<(), Failure> {
        let wait = Duration::from_micros(deadline_us.saturating_sub(self.settings.now_us()));
        let _loading = tokio::time::timeout(wait, self.loading.lock()).await.map_err(|_| Failure::Silent)?;
        if !Arc::ptr_eq(seen, &self.loaded()) {
            return Ok(());
        }
        match self.load(deadline_us).await {
            Ok(_) => Ok(()),
            Err(Away::Gone(reason) | Away::Unfit(reason)) => Err(Failure::Lost(reason)),
        }
    }

    /// Sends any command.
    pub(super) async fn send(&self, command: &Cmd, deadline_us: u64) -> Result<Value, Failure> {
        let mut connection = self.connection.clone();
        self.bounded(deadline_us, connection.send_packed_command(command)).await
    }

    /// Says that it works, and takes in what time it is there.
    pub(super) async fn probe(&self) -> Result<(), Failure> {
        let loaded = self.loaded();
        let sent_us = self.settings.now_us();
        let value = self.send(&redis::cmd("TIME"), sent_us.saturating_add(SILENT_MAX_US)).await?;
        if let Ok(mut answer) = Answer::new(value)
            && let (Ok(seconds), Ok(micros)) = (answer.int(), answer.int())
        {
            let server_us = seconds.saturating_mul(1_000_000).saturating_add(micros);
            loaded.clock.lock().heard(sent_us, self.settings.now_us(), server_us);
        }
        Ok(())
    }

    /// Commands are under way and nothing was answered for too long.
    pub(super) fn is_silent(&self) -> bool {
        let since_us = self.silent_since_us.load(Ordering::Relaxed);
        since_us != 0 && self.settings.now_us().saturating_sub(since_us) >= SILENT_MAX_US
    }

    async fn send_asking(&self, command: Cmd, deadline_us: u64) -> Result<Value, Failure> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("ASKING").add_command(command);
        let mut connection = self.connection.clone();
        let sending = async move {
            let mut answers = connection.send_packed_commands(&pipeline, 0, 2).await?;
            Ok(answers.pop().unwrap_or_default())
        };
        self.bounded(deadline_us, sending).await
    }

    async fn bounded(
        &self,
        deadline_us: u64,
        sending: impl Future<Output = Result<Value, RedisError>>,
    ) -> Result<Value, Failure> {
        let now_us = self.settings.now_us();
        let wait = Duration::from_micros(deadline_us.saturating_sub(now_us));
        // Any answer on this connection ends the silence.
        if self.silent_since_us.load(Ordering::Relaxed) == 0 {
            self.silent_since_us.store(now_us.max(1), Ordering::Relaxed);
        }
        let Ok(outcome) = tokio::time::timeout(wait, sending).await else {
            if self.is_silent() {
                self.lost.notify_one();
            }
            return Err(Failure::Silent);
        };
        self.silent_since_us.store(0, Ordering::Relaxed);
        match outcome {
            Ok(Value::ServerError(error)) => Err(refused(&error)),
            Ok(value) => Ok(value),
            Err(error) => Err(broken(error)),
        }
    }

    /// Asks which process this is, and loads the script with its run id.
    async fn load(&self, deadline_us: u64) -> Result<Facts, Away> {
        let gone = |failure| away_by(&self.host, failure);
        let sent_us = self.settings.now_us();
        let value = self.send(&redis::cmd("INFO"), deadline_us).await.map_err(gone)?;
        let came_us = self.settings.now_us();
        let facts = Facts::read(&value);
        self.check(&facts)?;
        let mut clock = ServerClock::default();
        if let Some(time_us) = facts.time_us {
            clock.heard(sent_us, came_us, time_us);
        }
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(format!("local RUN = '{}'\n{SCRIPT}", facts.run_id));
        let value = self.send(&command, deadline_us).await.map_err(gone)?;
        let Value::BulkString(sha) = value else {
            return Err(Away::Unfit(format!("{} does not load scripts: use Redis itself, without a proxy", self.host)));
        };
        let sha = String::from_utf8_lossy(&sha).into_owned();
        self.loaded.store(Arc::new(Loaded { sha, clock: Mutex::new(clock) }));
        Ok(facts)
    }

    fn check(&self, facts: &Facts) -> Result<(), Away> {
        let (host, unfit) = (&self.host, |text: String| Err(Away::Unfit(text)));
        // It becomes a part of the script's text.
        if facts.run_id.is_empty() || !facts.run_id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return unfit(format!("{host} does not say its run_id in INFO: use Redis itself, without a proxy"));
        }
        let (major, minor) = VERSION_MIN;
        if facts.version() < VERSION_MIN {
            return unfit(format!("{host} is Redis {}: use {major}.{minor} or later", facts.version));
        }
        match (self.settings.url.is_cluster(), facts.mode == "cluster") {
            (false, true) => {
                return unfit(format!("{host} is a node of a cluster: use redis+cluster:// or rediss+cluster://"));
            }
            (true, false) => return unfit(format!("{host} is no node of a cluster: use redis:// or rediss://")),
            (true, true) => return Ok(()),
            (false, false) => {}
        }
        if facts.role == "master" { Ok(()) } else { Err(Away::Gone(format!("{host} is a replica"))) }
    }

    fn warn_of_eviction(&self, facts: &Facts) {
        if !matches!(facts.policy.as_str(), "noeviction" | "") && self.settings.is_first_warning() {
            warn!(
                host = %self.host,
                policy = facts.policy,
                "Redis may evict counters, which then are built anew from the ledger again and again: \
                 set maxmemory-policy to noeviction."
            );
        }
    }
}

impl Facts {
    fn read(info: &Value) -> Self {
        let text = match info {
            Value::BulkString(bytes) => String::from_utf8_lossy(bytes),
            Value::VerbatimString { text, .. } => text.as_str().into(),
            _ => return Self::default(),
        };
        let mut facts = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.trim_end().split_once(':')) {
            match name {
                "run_id" => value.clone_into(&mut facts.run_id),
                "redis_version" => value.clone_into(&mut facts.version),
                "redis_mode" => value.clone_into(&mut facts.mode),
                "role" => value.clone_into(&mut facts.role),
                "maxmemory_policy" => value.clone_into(&mut facts.policy),
                "server_time_usec" => facts.time_us = value.parse().ok(),
                "master_repl_offset" => facts.offset = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
        facts
    }

    /// (0, 0) where it cannot be read.
    fn version(&self) -> (u32, u32) {
        let mut parts = self.version.split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }
}

async fn opened(settings: &Settings, host: &RedisHost) -> Result<MultiplexedConnection, RedisError> {
    let (name, port) = (host.name.clone(), host.port);
    let url = &settings.url;
    let address = if url.is_tls() {
        ConnectionAddr::TcpTls { host: name, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(name, port)
    };
    let mut login = RedisConnectionInfo::default().set_db(i64::from(url.database()));
    if let Some(user) = url.user() {
        login = login.set_username(user);
    }
    if let Some(password) = url.password() {
        login = login.set_password(password);
    }
    let client = Client::open(address.into_connection_info()?.set_redis_settings(login))?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_MAX))
        .set_response_timeout(None)
        .set_pipeline_buffer_size(WAITING_MAX);
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// What an error before the first command means.
fn away(host: &RedisHost, error: &RedisError) -> Away {
    let is_login = error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM"));
    if is_login {
        Away::Unfit(format!("{host} refuses the login: set user and password in counters.url"))
    } else if error.is_connection_refusal() {
        Away::Gone(format!("{host} refuses connections"))
    } else if error.is_timeout() {
        Away::Gone(format!("{host} does not answer"))
    } else {
        Away::Gone(format!("{host} cannot be reached: {}", short(&error.to_string())))
    }
}

/// What a failure of the first commands means.
fn away_by(host: &RedisHost, failure: Failure) -> Away {
    match failure {
        Failure::Silent => Away::Gone(format!("{host} does not answer")),
        Failure::Lost(reason) => Away::Gone(format!("{host}: {reason}")),
        Failure::Refused(reason) if reason == LOGIN => {
            Away::Unfit(format!("{host} refuses the login: set user and password in counters.url"))
        }
        Failure::Refused(reason) if reason == RIGHTS || reason.contains("unknown command") => {
            Away::Unfit(format!("{host} does not let scripts be run: permit INFO, TIME, SCRIPT LOAD and EVALSHA"))
        }
        Failure::Refused(reason) => Away::Gone(format!("{host}: {reason}")),
        Failure::NoScript | Failure::Moved(_) | Failure::Ask(_) => Away::Gone(format!("{host} answers something else")),
    }
}

const LOGIN: &str = "Redis wants another login";
const RIGHTS: &str = "the user lacks rights in Redis";

/// What an error that a server answers means.
fn refused(error: &ServerError) -> Failure {
    let details = error.details().unwrap_or_default();
    let elsewhere = || details.split_ascii_whitespace().nth(1).and_then(host_of);
    let refused = |reason: &str| Failure::Refused(reason.to_owned());
    match error.code() {
        "NOSCRIPT" => Failure::NoScript,
        "MOVED" => Failure::Moved(elsewhere()),
        "ASK" => Failure::Ask(elsewhere()),
        // The master is another by now, or will be.
        "READONLY" => Failure::Lost("Redis is a read-only replica".to_owned()),
        "MASTERDOWN" => Failure::Lost("Redis is a replica without its master".to_owned()),
        "LOADING" => refused("Redis is loading its data"),
        "CLUSTERDOWN" => refused("the cluster is down"),
        "TRYAGAIN" => refused("the cluster is moving slots"),
        "OOM" => refused("Redis is out of memory"),
        "MISCONF" => refused("Redis cannot save its data and refuses writes"),
        "NOREPLICAS" => refused("Redis lacks replicas and refuses writes"),
        "BUSY" => refused("Redis is busy with a script"),
        "NOAUTH" | "WRONGPASS" => refused(LOGIN),
        "NOPERM" => refused(RIGHTS),
        code => Failure::Refused(short(&format!("Redis says {code} {details}"))),
    }
}

/// What an error of the connection means.
fn broken(error: RedisError) -> Failure {
    match ServerError::try_from(error) {
        Ok(error) => refused(&error),
        Err(error) => Failure::Lost(short(&format!("the connection to Redis broke: {error}"))),
    }
}

/// `10.0.0.5:7000`, `::1:7000` or `node.example:7000`; `None` when the server does not know its own name.
pub(super) fn host_of(address: &str) -> Option<RedisHost> {
    let (name, port) = address.rsplit_once(':')?;
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().ok().filter(|&port| port > 0)?;
    (!name.is_empty() && name != "?").then(|| RedisHost { name: name.to_owned(), port })
}

fn short(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_CHARS_MAX).collect()
}
