//! Configuration: flags over environment over file over defaults, checked whole before anything starts.
//!
//! May use: `domain`. Two types: the raw `settings` (text by key, with sources) and the checked [`Config`] (plain
//! typed fields). [`Config::load`] gives one or the other: a config that is right, or every error at once, each one
//! line that names its key, its source and the fix.

mod budgets;
mod clients;
mod guessable;
mod keys;
mod ledger;
mod output_limits;
mod plans;
pub mod price_file;
mod running;
mod settings;
pub mod stamps;
mod tls;
mod values;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::{SecretBox, SecretString};

use crate::domain::hold::Bounds;
use crate::domain::ids::PlanName;
use crate::domain::limits::ModelLimits;
use crate::domain::object::{Isolation, UnknownObjects};
use crate::domain::plan::{Metric, Plan};
use crate::domain::printable::printable;
use crate::domain::quantities::COUNT_MAX;
use crate::domain::redis_url::RedisUrl;

pub use clients::Clients;
pub use keys::{KEYS, Key};
pub use ledger::{Ledger, parse as parse_ledger};
pub use settings::{Environment, Flag, ProcessEnvironment, Source};
pub use tls::{Roots, Tls};
pub use values::Origin;

use settings::{Raw, Settings};
use stamps::Stamped;

/// Who may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Tenant names are credentials; loopback only.
    Dev,
    /// Issued keys only.
    Prod,
}

impl Mode {
    /// `dev` or `prod`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Prod => "prod",
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The listeners and what they take.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Where apps connect. Port 0 takes a free one.
    pub proxy: SocketAddr,
    /// Where admin routes, metrics and health answer. Port 0 takes a free one.
    pub admin: SocketAddr,
    /// For a client's whole request head; above 0.
    pub header_timeout: Duration,
    /// The longest silence inside a request body; above 0.
    pub body_timeout: Duration,
    /// How long an idle client connection is kept; 0 closes after each answer.
    pub keepalive_timeout: Duration,
    /// The longest time that a client may take nothing of its answer; above 0.
    pub write_timeout: Duration,
    /// The largest buffered (JSON) request body, in bytes; at most `buffer_total`.
    pub body_limit: u64,
    /// All buffered request bodies together, in bytes.
    pub buffer_total: u64,
    /// The largest streamed request body, in bytes.
    pub upload_limit: u64,
    /// The largest message of a session, in bytes.
    pub session_message_limit: u64,
    /// Where clients see the gateway; `None`: where they say.
    pub public_url: Option<Origin>,
    /// Whether HTTP/2 is spoken in the clear.
    pub h2c: bool,
    /// TLS for `proxy`; `None` for plain HTTP.
    pub tls: Option<Tls>,
    /// TLS for `admin`; `None` for plain HTTP.
    pub admin_tls: Option<Tls>,
}

/// One provider.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// Its key; the provider is off without one.
    pub api_key: Option<SecretString>,
    /// Where it is.
    pub origin: Origin,
}

/// All providers.
#[derive(Debug, Clone)]
pub struct Providers {
    /// OpenAI.
    pub openai: ProviderSettings,
    /// Gemini.
    pub gemini: ProviderSettings,
    /// Where Vertex paths go; they carry the Gemini key.
    pub vertex: Origin,
}

/// Times and bounds towards providers.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// To connect, TLS included; above 0.
    pub connect_timeout: Duration,
    /// To the head of the answer; above 0.
    pub first_byte_timeout: Duration,
    /// The longest silence inside an answer; above 0.
    pub idle_timeout: Duration,
    /// How long a provider is read on after the client left; 0 closes at once.
    pub drain_timeout: Duration,
    /// How many bytes are read on at most after the client left.
    pub drain_bytes: u64,
    /// The first pause between two questions for what a provider finishes later; above 0.
    pub poll_interval: Duration,
    /// Idle connections that are kept.
    pub idle_connections_max: usize,
    /// Whether HTTP/2 is spoken where a provider offers it.
    pub http2: bool,
    /// Whom they are known by over TLS.
    pub roots: Roots,
}

/// Log output.
#[derive(Debug, Clone)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// Which lines are written, in the syntax of `RUST_LOG`.
    pub filter: String,
}

/// One row of `tollgate check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key.
    pub key: String,
    /// The value as it may be shown: secrets masked, `(none)` for none.
    pub value: String,
    /// Where it comes from.
    pub source: Source,
}

/// How the journal is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Journal {
    /// Bytes of all its files together.
    pub bytes_max: u64,
    /// Whether an answer waits for the disk.
    pub strict: bool,
    /// How often it is synced.
    pub fsync_interval: Duration,
}

/// How calls are counted.
#[derive(Debug, Clone)]
pub struct Counters {
    /// The counters that several gateways share; `None` for those in the process.
    pub url: Option<RedisUrl>,
    /// How long a call waits for shared counters; above 0.
    pub call_budget: Duration,
    /// How many calls of a tenant are admitted at most without asking them; 0 for none.
    pub lease_max: u64,
    /// How long what was leased for that lasts.
    pub lease_ttl: Duration,
}

/// A configuration that is right. Its `Debug` form shows no secret.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who may come in.
    pub mode: Mode,
    /// The directory of the ledger and of the generated admin key.
    pub data_dir: PathBuf,
    /// The listeners.
    pub listen: Listen,
    /// What clients may take.
    pub clients: Clients,
    /// The given admin key; `None` where one is to be made.
    pub admin_key: Option<SecretString>,
    /// The master keys for what is encrypted at rest; the first encrypts.
    pub master_keys: Vec<Arc<SecretBox<[u8; 32]>>>,
    /// Where the ledger is.
    pub ledger: Ledger,
    /// The providers.
    pub providers: Providers,
    /// Times and bounds towards them.
    pub upstream: Upstream,
    /// How far tenants that share a provider's account are kept apart in it.
    pub isolation: Isolation,
    /// How long answers in flight may take after SIGTERM.
    pub shutdown_drain_limit: Duration,
    /// Threads that move requests; at least 1.
    pub workers: usize,
    /// The way to the ledger.
    pub journal: Journal,
    /// How calls are counted.
    pub counters: Counters,
    /// How calls are sized that say too little of themselves.
    pub budgets: Bounds,
    /// The operator's price file; `None` for the built-in list.
    pub prices_file: Option<PathBuf>,
    /// The most tokens that an answer of a model may have.
    pub limits: ModelLimits,
    /// Whether files that change are read again without a signal.
    pub reload_watch: bool,
    /// What it was read from and names: the file, secrets in files, price files; each as it was before it was read.
    pub files: Vec<Stamped>,
    /// Every plan, in the order of their names.
    pub plans: Vec<Plan>,
    /// The price files that plans have of their own; not read yet.
    pub plan_prices: Vec<(PlanName, PathBuf)>,
    /// Log output.
    pub log: Log,
    /// What is probably a mistake, one line each.
    pub warnings: Vec<String>,
    settings: Vec<Setting>,
}

/// Everything that is wrong with a configuration, one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl Config {
    /// Reads and checks everything. `file` is the file of `--config` or `TOLLGATE_CONFIG`, which must then exist.
    ///
    /// # Errors
    /// All mistakes at once; nothing of a wrong configuration is used.
    pub fn load(flags: &[Flag], environment: &dyn Environment, file: Option<&Path>) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(Settings::collect(flags, environment, file));
        let config = reader.config();
        let mut errors = reader.settings.errors;
        if let Some(config) = &config {
            errors.extend(config.contradictions());
        }
        match config {
            Some(config) if errors.is_empty() => Ok(config),
            // A line each: a name in a file may have line ends in it.
            _ => Err(ConfigErrors(errors.iter().map(|error| printable(error).into_owned()).collect())),
        }
    }

    /// Every key with its effective value, secrets masked, and where it comes from.
    pub fn explain(&self) -> &[Setting] {
        &self.settings
    }

    /// What is right and worth a second look, one line each: for whoever checks a configuration.
    pub fn advice(&self) -> Vec<String> {
        let has_none = |plan: &&Plan| plan.limits.iter().all(|limit| limit.metric != Metric::Cost);
        let names: Vec<&str> = self.plans.iter().filter(has_none).map(|plan| plan.name.as_str()).collect();
        let mut lines = Vec::new();
        if !names.is_empty() {
            let line = "without a cost limit, so that nothing bounds what their tenants spend: set cost_usd_per_month";
            lines.push(format!("plans {line} ({})", names.join(", ")));
        }
        if !self.listen.admin.ip().is_loopback() && self.listen.admin_tls.is_none() {
            lines.push(format!(
                "listen.admin is {} in the clear, so that the admin key can be read on its way: set admin.tls.cert and \
                 admin.tls.key, or keep it on a network of your own",
                self.listen.admin
            ));
        }
        lines
    }

    /// What is wrong between values that are right each for itself.
    fn contradictions(&self) -> Vec<String> {
        let mut errors = Vec::new();
        let Listen { proxy, admin, body_limit, buffer_total, .. } = &self.listen;
        for (key, variable, address) in
            [("listen.proxy", "TOLLGATE_LISTEN", proxy), ("listen.admin", "TOLLGATE_ADMIN_LISTEN", admin)]
        {
            if self.mode == Mode::Dev && !address.ip().is_loopback() {
                errors.push(format!(
                    "{key} is {address}, but dev mode lets any tenant name in and is for loopback only: set \
                     TOLLGATE_ENV=prod, or {variable}=127.0.0.1:{}",
                    address.port()
                ));
            }
        }
        if proxy == admin && proxy.port() != 0 {
            errors.push(format!("listen.proxy and listen.admin are both {proxy}: give one of them another port"));
        }
        if body_limit > buffer_total {
            errors.push(format!(
                "listen.body_limit ({body_limit} bytes) is above listen.buffer_total ({buffer_total} bytes), so that no \
                 such body could ever pass: raise the total or lower the limit"
            ));
        }
        errors
    }
}

/// Takes values out of settings by key, noting each error and each shown value on the way.
struct Reader {
    settings: Settings,
    shown: Vec<Setting>,
}

impl Reader {
    fn new(settings: Settings) -> Self {
        Self { settings, shown: Vec::new() }
    }

    /// The checked value of one key, which has a default or is wrong without a value.
    fn value<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.optional(name, parse).flatten()
    }

    /// The checked value of one key that may have none: `Some(None)` when it has none, `None` when it is wrong.
    #[expect(clippy::option_option, reason = "absent and wrong are two things, and an error is noted already")]
    fn optional<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<Option<T>> {
        let key = keys::find(name)?;
        let raw = self.settings.get(name).cloned();
        let Raw { text, source } = raw.unwrap_or_else(|| Raw { text: key.default.to_owned(), source: Source::Default });
        let text = if name == "storage.url" { text.replace("{data_dir}", &self.data_dir_text()) } else { text };
        let value = match (text.is_empty(), key.secret) {
            (true, _) => "(none)".to_owned(),
            (false, true) if name.ends_with(".url") => values::masked_url(&text),
            (false, true) => values::masked(&text),
            (false, false) if name.ends_with("url") => values::public_url(&text),
            (false, false) => text.clone(),
        };
        self.shown.push(Setting { key: name.to_owned(), value: value.clone(), source: source.clone() });
        if text.is_empty() {
            return Some(None);
        }
        match parse(&text) {
            Ok(parsed) => Some(Some(parsed)),
            Err(reason) => {
                let shown = if key.secret { String::new() } else { format!(" {value:?}") };
                self.settings.errors.push(format!("{source}: {name}{shown} {reason}"));
                None
            }
        }
    }

    fn data_dir_text(&self) -> String {
        let given = self.settings.get("data_dir").map(|raw| raw.text.clone()).filter(|text| !text.is_empty());
        given.unwrap_or_else(|| keys::find("data_dir").map_or_else(String::new, |key| key.default.to_owned()))
    }

    /// Reads every key, the wrong ones too, so that all errors are found; `None` when any was wrong.
    fn config(&mut self) -> Option<Config> {
        let mode = self.value("env", mode);
        let data_dir = self.value("data_dir", |text| Ok(PathBuf::from(text)));
        let listen = self.listen();
        let admin_key = self.optional("admin.key", values::admin_key);
        let master_keys = self.optional("secrets.key", values::master_keys);
        let ledger = self.value("storage.url", ledger::parse);
        let counters = self.counters();
        let budgets = self.budgets();
        let clients = self.clients();
        let providers = self.providers();
        let upstream = self.upstream();
        let isolation = self.isolation(mode == Some(Mode::Dev));
        let shutdown_drain_limit = self.value("shutdown.drain_limit", values::duration);
        let workers = self.value("runtime.workers", |text| values::count(text, 0..=1_024));
        let journal = self.journal();
        let prices_file = self.optional("prices.file", |text| Ok(PathBuf::from(text)));
        let limits = self.limits();
        let reload_watch = self.value("reload.watch", values::yes);
        let format = self.value("log.format", log_format);
        let filter = self.value("log.filter", |text| Ok(text.to_owned()));

        let found = plans::read(&self.settings.plans, &mut self.settings.errors);
        self.shown.extend(found.rows.into_iter().map(|plans::Row { key, value, source }| Setting {
            key,
            value,
            source,
        }));
        let providers = providers?;
        let prices_file = prices_file?;
        let of_plans = found.prices.iter().map(|(_, path)| path.as_path());
        self.settings.files.extend(prices_file.as_deref().into_iter().chain(of_plans).map(Stamped::now));
        self.warn_of(&providers);
        Some(Config {
            mode: mode?,
            data_dir: data_dir?,
            listen: listen?,
            admin_key: admin_key?,
            master_keys: master_keys?.unwrap_or_default(),
            ledger: ledger?,
            providers,
            upstream: upstream?,
            isolation: isolation?,
            shutdown_drain_limit: shutdown_drain_limit?,
            workers: usize::try_from(workers?).ok().filter(|workers| *workers > 0).unwrap_or_else(cores),
            journal: journal?,
            counters: counters?,
            budgets: budgets?,
            clients: clients?,
            prices_file,
            limits: limits?,
            reload_watch: reload_watch?,
            files: std::mem::take(&mut self.settings.files),
            plans: found.plans,
            plan_prices: found.prices,
            log: Log { format: format?, filter: filter? },
            warnings: std::mem::take(&mut self.settings.warnings),
            settings: std::mem::take(&mut self.shown),
        })
    }

    fn limits(&mut self) -> Option<ModelLimits> {
        let own = self.optional("models.output_max", output_limits::parse)?;
        let limits = own.map_or_else(|| output_limits::parse(""), Ok);
        limits.map_err(|reason| self.settings.errors.push(reason)).ok()
    }

    fn counters(&mut self) -> Option<Counters> {
        let url = self.optional("counters.url", |text| text.parse::<RedisUrl>().map_err(|error| error.to_string()));
        let call_budget = self.value("counters.call_budget", values::positive_duration);
        let lease_max = self.value("counters.lease_max", |text| values::count(text, 0..=1_000_000));
        let lease_ttl = self.value("counters.lease_ttl", lease_ttl);
        Some(Counters { url: url?, call_budget: call_budget?, lease_max: lease_max?, lease_ttl: lease_ttl? })
    }

    fn budgets(&mut self) -> Option<Bounds> {
        let tokens = |text: &str| values::count(text, 1..=1_000_000_000);
        let context_max = self.value("budgets.context_max", tokens);
        let output_max = self.value("budgets.output_max", tokens);
        let cost_min = self.value("budgets.hold_min_usd", budgets::dollars);
        let searches_max = self.value("budgets.searches_max", |text| values::count(text, 1..=COUNT_MAX));
        let account_tier = self.value("budgets.account_tier", budgets::tier);
        Some(Bounds {
            context_max: context_max?,
            output_max: output_max?,
            cost_min: cost_min?,
            searches_max: searches_max?,
            account_tier: account_tier?,
        })
    }

    fn journal(&mut self) -> Option<Journal> {
        let bytes_max = self.value("journal.bytes_max", journal_bytes);
        let strict = self.value("journal.durability", durability);
        let fsync_interval = self.value("journal.fsync_interval", fsync_interval);
        Some(Journal { bytes_max: bytes_max?, strict: strict?, fsync_interval: fsync_interval? })
    }

    fn listen(&mut self) -> Option<Listen> {
        let proxy = self.value("listen.proxy", values::address);
        let admin = self.value("listen.admin", values::address);
        let header_timeout = self.value("listen.header_timeout", values::positive_duration);
        let body_timeout = self.value("listen.body_timeout", values::positive_duration);
        let keepalive_timeout = self.value("listen.keepalive_timeout", values::duration);
        let write_timeout = self.value("listen.write_timeout", values::positive_duration);
        let body_limit = self.value("listen.body_limit", values::bytes);
        let buffer_total = self.value("listen.buffer_total", values::bytes);
        let upload_limit = self.value("listen.upload_limit", values::bytes);
        let session_message_limit = self.value("listen.session_message_limit", values::bytes);
        let public_url = self.optional("listen.public_url", str::parse::<Origin>);
        let h2c = self.value("listen.h2c", values::yes);
        let tls = self.tls_of_proxy();
        let admin_tls = self.tls_of_admin();
        Some(Listen {
            proxy: proxy?,
            admin: admin?,
            header_timeout: header_timeout?,
            body_timeout: body_timeout?,
            keepalive_timeout: keepalive_timeout?,
            write_timeout: write_timeout?,
            body_limit: body_limit?,
            buffer_total: buffer_total?,
            upload_limit: upload_limit?,
            session_message_limit: session_message_limit?,
            public_url: public_url?,
            h2c: h2c?,
            tls: tls?,
            admin_tls: admin_tls?,
        })
    }

    fn providers(&mut self) -> Option<Providers> {
        let openai_key = self.optional("providers.openai.api_key", values::header_secret);
        let openai = self.value("providers.openai.url", str::parse::<Origin>);
        let gemini_key = self.optional("providers.gemini.api_key", values::header_secret);
        let gemini = self.value("providers.gemini.url", str::parse::<Origin>);
        let vertex = self.optional("providers.vertex.url", str::parse::<Origin>);
        let gemini = gemini?;
        Some(Providers {
            openai: ProviderSettings { api_key: openai_key?, origin: openai? },
            vertex: vertex?.unwrap_or_else(|| gemini.clone()),
            gemini: ProviderSettings { api_key: gemini_key?, origin: gemini },
        })
    }

    fn upstream(&mut self) -> Option<Upstream> {
        let connect_timeout = self.value("upstream.connect_timeout", values::positive_duration);
        let first_byte_timeout = self.value("upstream.first_byte_timeout", values::positive_duration);
        let idle_timeout = self.value("upstream.idle_timeout", values::positive_duration);
        let drain_timeout = self.value("upstream.drain_timeout", values::duration);
        let drain_bytes = self.value("upstream.drain_bytes", values::bytes);
        let poll_interval = self.value("upstream.poll_interval", values::positive_duration);
        let http2 = self.value("upstream.http2", values::yes);
        let idle_max = self.value("upstream.idle_connections_max", |text| values::count(text, 0..=100_000));
        let roots = self.roots();
        Some(Upstream {
            connect_timeout: connect_timeout?,
            first_byte_timeout: first_byte_timeout?,
            idle_timeout: idle_timeout?,
            drain_timeout: drain_timeout?,
            drain_bytes: drain_bytes?,
            poll_interval: poll_interval?,
            idle_connections_max: usize::try_from(idle_max?).ok()?,
            http2: http2?,
            roots: roots?,
        })
    }

    /// Where any name is a credential nothing is anybody's own: in dev what is left to the mode is allowed.
    fn isolation(&mut self, is_dev: bool) -> Option<Isolation> {
        let allowed = |text: &str| values::allowed(text, is_dev);
        let unknown = self.value("isolation.unknown_objects", allowed);
        let lists = self.value("isolation.lists", allowed);
        let unknown = if unknown? { UnknownObjects::Allow } else { UnknownObjects::Refuse };
        Some(Isolation { unknown, lists: lists? })
    }

    fn warn_of(&mut self, providers: &Providers) {
        let Providers { openai, gemini, vertex } = providers;
        let is_none = |key: &Option<SecretString>| key.is_none();
        if is_none(&openai.api_key) && is_none(&gemini.api_key) && self.settings.get("secrets.key").is_none() {
            self.settings.warnings.push(
                "no provider has a key, so that every call is refused: set OPENAI_API_KEY or GEMINI_API_KEY".into(),
            );
        }
        let origins = [("openai", &openai.origin), ("gemini", &gemini.origin), ("vertex", vertex)];
        for (name, origin) in origins {
            if !origin.tls && !origin.is_loopback() {
                let line = format!("providers.{name}.url sends keys and prompts in the clear: use https://");
                self.settings.warnings.push(line);
            }
        }
    }
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "dev" => Ok(Mode::Dev),
        "prod" => Ok(Mode::Prod),
        _ => Err("is no mode: write dev or prod; TOLLGATE_ENV wins over ENV".into()),
    }
}

fn journal_bytes(text: &str) -> Result<u64, String> {
    let bytes = values::bytes(text)?;
    if bytes < JOURNAL_BYTES_MIN { Err("is less than 1MiB: write a size such as 1GiB".into()) } else { Ok(bytes) }
}

/// Sixteen segments of 64 KiB: less would not hold the settlements of a few dozen calls.
const JOURNAL_BYTES_MIN: u64 = 1 << 20;

fn durability(text: &str) -> Result<bool, String> {
    match text {
        "group" => Ok(false),
        "strict" => Ok(true),
        _ => Err("is no durability: write group or strict".into()),
    }
}

/// Above a minute the promise of what a power cut may take would mean nothing.
const FSYNC_INTERVAL_MAX: Duration = Duration::from_secs(60);

fn fsync_interval(text: &str) -> Result<Duration, String> {
    let interval = values::positive_duration(text)?;
    if interval > FSYNC_INTERVAL_MAX { Err("is longer than 60s: write one such as 50ms".into()) } else { Ok(interval) }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("is no log format: write text or json".into()),
    }
}

/// Shorter ones would end between two looks of a busy machine; longer ones keep what a dead gateway had for too long.
fn lease_ttl(text: &str) -> Result<Duration, String> {
    let ttl = values::duration(text)?;
    let fits = (Duration::from_secs(1)..=Duration::from_secs(60)).contains(&ttl);
    fits.then_some(ttl).ok_or_else(|| "is not from 1s to 60s".into())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
pub(crate) mod documents;
#[cfg(test)]
mod tests;
