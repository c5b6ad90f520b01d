//! Puts the parts together, runs them, and takes them down in the right order.
//!
//! May use: everything. Two kinds of runtime: one single-threaded runtime for each worker, which moves requests, and one
//! small runtime of our own for everything that must outlive them: the recorder, the ledger, the admin listener.

mod admin_key;
mod admin_listener;
pub mod advice;
mod background;
mod counters;
pub mod ledger;
mod lifecycle;
mod origins;
mod recovery;
pub mod reload;
mod signals;
mod sockets;
pub mod tls;
pub mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::adapters::file_journal::FileJournal;
use crate::adapters::system_clock::SystemClock;
use crate::config::{self, Config};
use crate::domain::ids::PlanName;
use crate::domain::key::KeyHash;
use crate::domain::price::PriceBook;
use crate::domain::provider_key::MasterId;
use crate::edge::api::health::{Pulse, TellPulse};
use crate::edge::api::{self, ApiState, STORE_TIMEOUT};
use crate::edge::body::{Budget, LOCAL_BUFFER_BYTES};
use crate::edge::exchange::{Gate, Live};
use crate::edge::listener::{Connections, Phase};
use crate::edge::strangers::Strangers;
use crate::metering::admin::Admin;
use crate::metering::deferred::{Books, Deferred};
use crate::metering::fresh::Fresh;
use crate::metering::identity::{Identities, Mode};
use crate::metering::meter::Meter;
use crate::metering::objects::Objects;
use crate::metering::price_books::{self, Format};
use crate::metering::recorder::Recorder;
use crate::metering::reports::Reports;
use crate::metering::snapshot::{Plans, Snapshots};
use crate::metering::vault::Vault;
use crate::metering::verify::counters::CountersSource;
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::counters::CounterStore;
use crate::ports::journal::Journal;
use crate::ports::prices::ActiveBook;
use crate::ports::tenants::TenantStore;
use crate::ports::usage::UsageStore;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::request_log::RequestLog;

use self::background::Background;
use self::counters::{Counters, Facts};
use self::ledger::{Ledger, PATIENCE_OF_COMMANDS};
use self::reload::{Checked, Reloader, Source};
use self::signals::Signals;

pub use self::admin_key::known as known_admin_key;
pub use self::recovery::{is_served, journal_dir};

/// Threads of the runtime beside the workers: one may wait for the disk while the other serves an admin.
const LEDGER_THREADS: usize = 2;

/// What still runs on that runtime at the end, such as a statement that waits for a lock, is left after this.
const RUNTIME_END_MAX: Duration = Duration::from_millis(100);

/// Why the gateway does not start: one line that names the fix.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A listener cannot be had.
    #[error("{key} {address}: {reason}: {fix} with {variable}")]
    Listen {
        /// The configuration key.
        key: &'static str,
        /// The environment variable that sets it.
        variable: &'static str,
        /// What it says.
        address: SocketAddr,
        /// What the system said.
        reason: String,
        /// What helps.
        fix: &'static str,
    },
    /// The data directory cannot be had.
    #[error("data_dir {}: {reason}: make it writable for this user, or set TOLLGATE_DATA_DIR", path.display())]
    DataDir {
        /// The directory or the file in it.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The ledger cannot be opened.
    #[error("ledger {ledger}: {source}")]
    Ledger {
        /// Its file, or its database.
        ledger: String,
        /// What it said.
        source: StoreError,
    },
    /// There is no ledger.
    #[error(
        "ledger {ledger} does not exist: name the directory of yours with --data-dir (TOLLGATE_DATA_DIR), or begin one with `tollgate serve` or `tollgate tenant create`"
    )]
    NoLedger {
        /// Its file.
        ledger: String,
    },
    /// A tenant is on a plan that is no longer configured.
    #[error(
        "tenant {tenant} is on plan {plan}, which the configuration does not have: add [plans.{plan}] to it, or put the tenant on another plan with `tollgate tenant set-plan {tenant} PLAN`"
    )]
    UnknownPlan {
        /// The tenant.
        tenant: String,
        /// The plan.
        plan: String,
    },
    /// A price file is wrong.
    #[error("{key} {}: {reason}", path.display())]
    Prices {
        /// The configuration key that names it.
        key: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// TLS to providers cannot be set up.
    #[error("no TLS root certificates were found: install ca-certificates, or name a bundle in SSL_CERT_FILE")]
    Roots,
    /// TLS to clients cannot be set up.
    #[error("{key} {}: {reason}: name a file in {variable}", path.display())]
    Tls {
        /// The configuration key.
        key: &'static str,
        /// The environment variable that sets it.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A host name that no certificate can name.
    #[error("providers.*.url: {0} is no host name that TLS can verify")]
    HostName(String),
    /// The ledger has keys of tenants that no given master key opens.
    #[error(
        "secrets.key: tenants' own keys for providers are sealed with master keys that are not given (ids {0}): add them behind the first in TOLLGATE_SECRETS_KEY, or in the file of TOLLGATE_SECRETS_KEY_FILE; where one is lost, `tollgate secrets forget ID` removes what it sealed"
    )]
    Sealed(String),
    /// A thread or runtime cannot be had.
    #[error("the system refused a thread: {0}: raise the limit of processes (ulimit -u)")]
    Thread(String),
    /// Random bytes cannot be had.
    #[error("the system gives no random bytes, which keys are made of")]
    Random,
    /// Signals cannot be had.
    #[error("the system refuses a handler for signals: {0}: allow the system call sigaction")]
    Signals(String),
    /// Another process serves from the same data directory.
    #[error("data_dir {}: another tollgate is running on it: stop that one, or set TOLLGATE_DATA_DIR to another directory", path.display())]
    DataDirTaken {
        /// The directory.
        path: PathBuf,
    },
    /// Another process serves from the same ledger.
    #[error("ledger {ledger}: another tollgate is running on it and counts its limits: {fix}")]
    LedgerTaken {
        /// Its file, or its database.
        ledger: String,
        /// What helps.
        fix: &'static str,
    },
    /// A ledger is to be copied into itself.
    #[error("ledger {ledger}: --from and --to are the same one: name another in one of them")]
    SameLedger {
        /// Its file, or its database.
        ledger: String,
    },
    /// The shared counters cannot be used.
    #[error("counters.url: {0}")]
    Counters(String),
    /// The journal cannot be opened.
    #[error("journal {}: {reason}: make room on its disk and let this user write there", path.display())]
    Journal {
        /// Its directory.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
}

/// Where a started gateway listens.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// Apps connect here.
    pub proxy: SocketAddr,
    /// Admins connect here.
    pub admin: SocketAddr,
}

/// The price book: the operator's file, or the built-in one.
pub fn prices(config: &Config) -> Result<PriceBook, BootError> {
    let Some(path) = &config.prices_file else {
        return config::price_file::builtin().map_err(|error| BootError::Prices {
            key: "prices".into(),
            path: "built-in".into(),
            reason: error.to_string(),
        });
    };
    price_file("prices.file", path, config::price_file::parse)
}

/// How the bytes of a price file become a book.
type Parse = fn(&[u8]) -> Result<PriceBook, config::price_file::PriceFileError>;

fn price_file(key: &str, path: &Path, parse: Parse) -> Result<PriceBook, BootError> {
    let failed = |reason: String| BootError::Prices { key: key.to_owned(), path: path.to_owned(), reason };
    let bytes = fs::read(path).map_err(|error| failed(error.to_string()))?;
    parse(&bytes).map_err(|error| failed(error.to_string()))
}

/// How price books are read.
pub const PRICE_FORMAT: Format = Format {
    parse: |file| config::price_file::parse(file).map_err(|error| error.to_string()),
    read: |document, base| config::price_file::read(document, base).map_err(|error| error.to_string()),
};

/// The book that was put in force for all gateways of the ledger, and by whom. A ledger that is not there has none; its
/// schema is not touched.
///
/// # Errors
/// When the ledger does not say.
pub fn active_prices(config: &Config) -> Result<Option<(ActiveBook, PriceBook)>, BootError> {
    told_by_ledger(config).map(|told| told.prices)
}

/// What a ledger says before anything is served from it.
#[derive(Default)]
pub struct Told {
    /// The book that was put in force for all gateways, and by whom.
    pub prices: Option<(ActiveBook, PriceBook)>,
    /// What a start is refused for: keys of tenants that no master key given here opens.
    pub sealed: Option<BootError>,
}

/// What the ledger says, if there is one; its schema is not touched.
///
/// # Errors
/// When it does not say.
pub fn told_by_ledger(config: &Config) -> Result<Told, BootError> {
    if matches!(&config.ledger, config::Ledger::Sqlite(path) if !path.exists()) {
        return Ok(Told::default());
    }
    let failed = |source| BootError::Ledger { ledger: ledger::name(&config.ledger), source };
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| BootError::Thread(error.to_string()))?;
    runtime.block_on(async {
        let ledger = Ledger::open(config, false, PATIENCE_OF_COMMANDS).await?;
        let store = ledger.tenants();
        let told = async {
            ledger.usage().ready().await?;
            let directory = store.load().await?;
            let sealed = all_opened(vault(config).missing(&directory.provider_keys)).err();
            let Some(active) = directory.prices else { return Ok(Told { prices: None, sealed }) };
            let book = price_books::find(&*store, &active.version, PRICE_FORMAT).await?;
            let missing = || StoreError::Corrupt(format!("the price book in force, {}, is not there", active.version));
            Ok(Told { prices: Some((active.clone(), book.ok_or_else(missing)?)), sealed })
        };
        let told = told.await.map_err(failed);
        ledger.leave().await;
        told
    })
}

/// The snapshots that a gateway begins with; the ledger then has the books that it prices by.
async fn snapshots(
    tenants: &dyn TenantStore,
    plans: Plans,
    prices: PriceBook,
    config: &Config,
) -> Result<Arc<Snapshots>, StoreError> {
    advice::of_prices(&prices, &plans).iter().for_each(|line| warn!("{line}."));
    let snapshots = Snapshots::open(tenants, plans, prices, PRICE_FORMAT).await.map_err(|error| match error {
        // The one thing that is read here beside the tables of tenants.
        StoreError::Corrupt(why) if why.starts_with("the price book") => StoreError::Corrupt(format!(
            "{why}: put another in force with tollgate prices update, or with --configured that of the configuration"
        )),
        error => error,
    })?;
    snapshots.set_sizes(config.limits.clone(), config.budgets);
    snapshots.keep_books(tenants, SystemClock::new().now()).await?;
    Ok(Arc::new(snapshots))
}

/// Opens tenants' own keys for providers.
fn unlock(snapshots: &Snapshots, config: &Config) -> Result<(), BootError> {
    let vault = vault(config);
    all_opened(snapshots.missing(&vault))?;
    snapshots.set_vault(vault);
    Ok(())
}

/// `missing` are the master keys that nobody gave.
fn all_opened(missing: BTreeSet<MasterId>) -> Result<(), BootError> {
    let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
    if missing.is_empty() { Ok(()) } else { Err(BootError::Sealed(missing.join(", "))) }
}

/// What the master keys of the configuration open.
pub fn vault(config: &Config) -> Vault {
    Vault::new(config.master_keys.iter().cloned())
}

/// Which prices are in force, and why.
fn say_which_prices(snapshots: &Snapshots) {
    let snapshot = snapshots.load();
    let (version, configured) = (snapshot.prices.version(), snapshot.configured.version());
    match &snapshot.active {
        None => info!(%version, "Prices are those of the configuration."),
        Some(ActiveBook { since, by, .. }) => {
            info!(%version, %since, %by, %configured, "Prices were put in force for all gateways; they go before the configuration's.");
        }
    }
}

/// Whether the files of TLS are right, towards clients and towards providers.
///
/// # Errors
/// When one is missing or wrong.
pub fn check_tls(config: &Config) -> Result<(), BootError> {
    tls::of(config)?;
    origins::trust(&config.upstream.roots).map(drop)
}

/// All plans by name, with the prices of their own.
pub fn plans(config: &Config) -> Result<Plans, BootError> {
    let mut plans: BTreeMap<_, _> = config.plans.iter().map(|plan| (plan.name.clone(), plan.clone())).collect();
    for (name, path) in &config.plan_prices {
        let book = price_file(&format!("plans.{name}.prices"), path, config::price_file::parse_of_plan)?;
        if let Some(plan) = plans.get_mut(name) {
            plan.pricing.own = Some(Arc::new(book));
        }
    }
    Ok(plans.into_iter().map(|(name, plan)| (name, Arc::new(plan))).collect())
}

/// Runs the gateway until it is told to end. `ready` is called once it serves. Without a `source` there is nothing to
/// reload, and SIGHUP, which a terminal sends when it is closed, ends the gateway as SIGTERM does.
pub fn serve(config: &Config, source: Option<Source<'_>>, ready: impl FnOnce(Ready)) -> Result<(), BootError> {
    leave_no_core();
    let proxy = sockets::bind("listen.proxy", "TOLLGATE_LISTEN", config.listen.proxy)?;
    let admin = sockets::bind("listen.admin", "TOLLGATE_ADMIN_LISTEN", config.listen.admin)?;
    let addresses = Ready {
        proxy: sockets::address_of(&proxy, config.listen.proxy),
        admin: sockets::address_of(&admin, config.listen.admin),
    };
    let ledger_runtime = Builder::new_multi_thread()
        .worker_threads(LEDGER_THREADS)
        .thread_name("tollgate-ledger")
        .enable_all()
        .build()
        .map_err(|error| BootError::Thread(error.to_string()))?;
    let mut signals = ledger_runtime.block_on(async { Signals::register() })?;
    make_data_dir(&config.data_dir)?;
    let _locks = recovery::Locks::take(config)?;
    let opened = ledger_runtime.block_on(async {
        tokio::select! {
            parts = Parts::open(config) => parts.map(Some),
            // Nothing was served: leaving now is no more than being killed, which opening bears at any point.
            () = signals.end() => Ok(None),
        }
    })?;
    let Some(mut parts) = opened else {
        ledger_runtime.shutdown_timeout(RUNTIME_END_MAX);
        return Ok(());
    };
    let mut reloader = source.map(|source| Reloader::new(source, config));
    let (phase, seen) = watch::channel(Phase::Running);
    let connections = Arc::<Connections>::default();
    let background = Background::start(&ledger_runtime, &mut parts, admin, seen.clone())?;
    let workers = lifecycle::start_workers(config, &parts.gate, &proxy, &connections, &seen)?;
    drop(proxy);
    for warning in &config.warnings {
        warn!("{warning}");
    }
    ready(addresses);
    ledger_runtime.block_on(lifecycle::serve_and_reload(&mut reloader, &parts, &mut signals));
    let config = reloader.as_ref().map_or(config, Reloader::current);
    let flush_until = ledger_runtime.block_on(lifecycle::drain(config, &parts, &connections, &phase, &mut signals));
    for worker in workers {
        if worker.join().is_err() {
            error!("A worker ended in a panic; its calls were booked as interrupted.");
        }
    }
    ledger_runtime.block_on(background.finish(&parts, flush_until, &mut signals));
    ledger_runtime.shutdown_timeout(RUNTIME_END_MAX);
    Ok(())
}

/// Has the system write no core of this process: the keys of providers are in it, and what was said.
fn leave_no_core() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        warn!(%error, "Core dumps cannot be turned off.");
    }
}

/// All parts that requests and answers are made of.
struct Parts {
    gate: Arc<Gate>,
    ledger: Ledger,
    claiming: Option<tokio::task::JoinHandle<()>>,
    journal: Arc<FileJournal>,
    counters: Option<Counters>,
    maintainer: Option<thread::JoinHandle<()>>,
    recording: Option<tokio::task::JoinHandle<()>>,
    snapshots: Arc<Snapshots>,
    metrics: Arc<Metrics>,
    reload_failed: Arc<AtomicBool>,
    admin_router: axum::Router,
}

impl Parts {
    async fn open(config: &Config) -> Result<Self, BootError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (ledger, claiming) = Ledger::open_to_serve(config).await?;
        let failed = |source| BootError::Ledger { ledger: ledger::name(&config.ledger), source };
        let (usage, tenants) = (ledger.usage(), ledger.tenants());
        let admin_key = admin_key::hash(config, tenants.as_ref(), clock.now()).await?;
        let Checked { plans, prices, live } = reload::check(config, None)?;
        let snapshots = snapshots(tenants.as_ref(), plans, prices, config).await.map_err(failed)?;
        snapshots.every_plan_is_known()?;
        unlock(&snapshots, config)?;
        say_which_prices(&snapshots);
        let (files, maintainer) = recovery::open_journal(config)?;
        let journal: Arc<dyn Journal> = files.clone();
        let facts = Facts {
            usage: usage.clone(),
            tenants: tenants.clone(),
            snapshots: snapshots.clone(),
            journal: journal.clone(),
            clock: clock.clone(),
        };
        let own_counters = Counters::open(config, facts.clone(), failed).await?;
        let counters = own_counters.store.clone();
        let metrics = Arc::new(Metrics::new(journal.clone(), counters.clone(), clock.clone()));
        let sinks = || -> Vec<Arc<dyn crate::ports::sink::Sink>> { vec![metrics.clone(), Arc::new(RequestLog)] };
        let recorder_sinks = own_counters.sinks().chain(sinks()).collect();
        let recorder = Recorder::new(journal.clone(), usage.clone(), tenants.clone(), recorder_sinks);
        let recorder = Arc::new(recorder.watching(snapshots.clone()));
        let recording = tokio::spawn({
            let recorder = recorder.clone();
            async move { recorder.run().await }
        });
        let meter = meter(&facts, &own_counters, sinks());
        let identities = Arc::new(identities(config, admin_key, &facts));
        let fresh: Arc<dyn UsageStore> = Arc::new(Fresh::new(usage.clone(), recorder.clone()));
        let counting = CountersSource::new(counters.clone(), journal.clone(), usage, recorder.clone(), clock.clone());
        let (draining, reload_failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let counting_health = counters.clone();
        let admin = Admin::new(tenants, snapshots.clone(), counters, clock.clone()).with_ledger(fresh.clone());
        let state = ApiState {
            admin: Arc::new(admin.with_rates(own_counters.rates.clone())),
            reports: Arc::new(Reports::new(fresh, snapshots.clone(), clock)),
            counting: Arc::new(counting),
            identities: identities.clone(),
            strangers: strangers(&facts, &meter),
            admin_strangers: strangers(&facts, &meter),
            pulse: pulse(journal.clone(), counting_health, draining.clone(), reload_failed.clone()),
            metrics: told(&metrics),
            store_timeout: STORE_TIMEOUT,
        };
        let deferred = deferred(&ledger, &facts, own_counters.store.clone(), recorder);
        let objects = Arc::new(Objects::new(ledger.objects(), facts.clock.clone()));
        let gate = gate((meter, deferred, identities), objects, &state, live, draining);
        let admin_router = api::admin_router(state);
        Ok(Self {
            gate,
            ledger,
            claiming,
            journal: files,
            counters: Some(own_counters),
            maintainer: Some(maintainer),
            recording: Some(recording),
            snapshots,
            metrics,
            reload_failed,
            admin_router,
        })
    }
}

fn meter(facts: &Facts, counters: &Counters, sinks: Vec<Arc<dyn crate::ports::sink::Sink>>) -> Arc<Meter> {
    let Facts { snapshots, journal, clock, .. } = facts;
    let meter = Meter::new(counters.store.clone(), journal.clone(), snapshots.clone(), clock.clone(), sinks);
    let meter = meter.with_continuations(counters.continuations.clone()).with_rates(counters.rates.clone());
    Arc::new(meter)
}

/// Who presented wrong credentials.
fn strangers(facts: &Facts, meter: &Arc<Meter>) -> Arc<Strangers> {
    let meter = meter.clone();
    Arc::new(Strangers::new(facts.clock.clone(), move |bound| meter.cut(bound)))
}

/// What requests share.
fn gate(
    (meter, deferred, identities): (Arc<Meter>, Arc<Deferred>, Arc<Identities>),
    objects: Arc<Objects>,
    state: &ApiState,
    live: Live,
    draining: Arc<AtomicBool>,
) -> Arc<Gate> {
    Arc::new(Gate {
        meter,
        deferred,
        objects,
        identities,
        local: api::proxy_router(state.clone()),
        local_budget: Budget::new(LOCAL_BUFFER_BYTES),
        live: ArcSwap::from_pointee(live),
        draining,
        crowd: Arc::default(),
        strangers: state.strangers.clone(),
    })
}

/// Makes the directory for everything that a gateway keeps, its owner's only.
///
/// # Errors
/// When it cannot be made.
pub fn make_data_dir(path: &Path) -> Result<(), BootError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| BootError::DataDir { path: path.to_owned(), reason: error.to_string() })
}

/// The metrics as they are whenever somebody asks.
fn told(metrics: &Arc<Metrics>) -> Arc<dyn Fn() -> String + Send + Sync> {
    let metrics = metrics.clone();
    Arc::new(move || metrics.encode())
}

/// What bills what is finished later.
fn deferred(ledger: &Ledger, facts: &Facts, counters: Arc<dyn CounterStore>, recorder: Arc<Recorder>) -> Arc<Deferred> {
    let Facts { usage, snapshots, journal, clock, .. } = facts.clone();
    let (units, tenants) = (ledger.units(), ledger.tenants());
    Arc::new(Deferred::new(Books { units, usage, tenants, journal, counters, recorder, snapshots, clock }))
}

/// Whose a credential is.
fn identities(config: &Config, admin_key: KeyHash, facts: &Facts) -> Identities {
    let mode = match config.mode {
        config::Mode::Dev => Mode::Dev,
        config::Mode::Prod => Mode::Prod,
    };
    let Facts { tenants, snapshots, clock, .. } = facts.clone();
    Identities::new(mode, admin_key, PlanName::starter(), snapshots, tenants, clock)
}

/// How the process is, for `/readyz`.
fn pulse(
    journal: Arc<dyn Journal>,
    counters: Arc<dyn CounterStore>,
    draining: Arc<AtomicBool>,
    reload_failed: Arc<AtomicBool>,
) -> TellPulse {
    Arc::new(move || Pulse {
        counters: counters.health(),
        draining: draining.load(Ordering::Relaxed),
        backlog: journal.backlog(),
        reload_failed: reload_failed.load(Ordering::Relaxed),
    })
}
