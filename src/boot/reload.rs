//! What of a configuration can change while the gateway runs: put together in one way at the start and at each reload.
//!
//! May use: everything. A reload has two halves. Everything that can fail happens in the first, and changes nothing; the
//! second puts each part in force by one swap of a pointer, so a request sees it as it was or as it is.
//!
//! A signal asks for a reload, and so does a file that changed: on many nodes nobody sends signals. Then a file that is
//! still being written must not be taken for a short one, so it is read once two looks found it the same.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::adapters::system_clock::SystemClock;
use crate::config::stamps::Stamped;
use crate::config::{Config, Mode};
use crate::domain::key::KeyHash;
use crate::domain::price::PriceBook;
use crate::edge::api::STORE_TIMEOUT;
use crate::edge::body::Budget;
use crate::edge::exchange::{Live, Settings};
use crate::metering::snapshot::{PlanMissing, Plans, PlansRefused};
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::telemetry::logging::{Filter, Log};

use super::{BootError, Parts, admin_key, advice, all_opened, ledger, origins, plans, prices, tls, vault};

/// How a running gateway comes by its configuration again.
pub struct Source<'a> {
    /// Reads it as it was read at the start: the same flags and file, the environment, the files that it names.
    pub load: &'a dyn Fn() -> Result<Config, Vec<String>>,
    /// The log, whose filter is a part of it.
    pub log: &'a Log,
}

/// What of a configuration can change, checked and put together, but not in force.
pub(super) struct Checked {
    pub plans: Plans,
    pub prices: PriceBook,
    pub live: Live,
}

/// Puts together what can change. What `before` has and need not be made anew is taken from there: connections to
/// providers, bytes that are held for bodies.
pub(super) fn check(config: &Config, before: Option<&Live>) -> Result<Checked, BootError> {
    let (known, budget) = match before {
        Some(before) => (before.origins.as_slice(), before.budget.of(config.listen.buffer_total)),
        None => (&[][..], Budget::new(config.listen.buffer_total)),
    };
    let public_url = config.listen.public_url.as_ref().map(ToString::to_string);
    let (origins, shown) = (origins::of(config, known)?, tls::of(config)?);
    let tls::Shown { proxy: tls, admin: admin_tls } = shown;
    let balancers = config.clients.balancers.clone();
    let live = Live { origins, budget, settings: settings(config), public_url, balancers, tls, admin_tls };
    Ok(Checked { plans: plans(config)?, prices: prices(config)?, live })
}

fn settings(config: &Config) -> Settings {
    Settings {
        body_limit: config.listen.body_limit,
        upload_limit: config.listen.upload_limit,
        session_message_limit: config.listen.session_message_limit,
        isolation: config.isolation,
        pages_of_here: config.mode == Mode::Dev,
        header_timeout: config.listen.header_timeout,
        body_timeout: config.listen.body_timeout,
        write_timeout: config.listen.write_timeout,
        h2c: config.listen.h2c,
        keepalive_timeout: config.listen.keepalive_timeout,
        drain_timeout: config.upstream.drain_timeout,
        drain_bytes: config.upstream.drain_bytes,
        first_byte_timeout: config.upstream.first_byte_timeout,
        poll_interval: config.upstream.poll_interval,
        connections_max: config.clients.connections_max,
        connections_per_address: config.clients.connections_per_address,
        requests_per_tenant: config.clients.requests_per_tenant,
        failed_keys_per_minute: config.clients.failed_keys_per_minute,
        head_limit: usize::try_from(config.clients.head_limit).unwrap_or(usize::MAX),
        headers_max: usize::try_from(config.clients.headers_max).unwrap_or(usize::MAX),
        request_timeout: config.clients.request_timeout,
        rate_min: config.clients.rate_min,
        http2_streams: u32::try_from(config.clients.http2_streams).unwrap_or(u32::MAX),
        http2_resets: usize::try_from(config.clients.http2_resets).unwrap_or(usize::MAX),
        stream_timeout: config.clients.stream_timeout,
    }
}

/// Reloads a running gateway, or leaves it as it is.
pub(super) struct Reloader<'a> {
    source: Source<'a>,
    current: Config,
    /// What was wrong at the last reload; empty when nothing was.
    errors: Vec<String>,
    seen: Option<Seen>,
}

/// The files at the last look, where that found something to do.
struct Seen {
    files: Vec<Stamped>,
    /// Whether it was said what is wrong with them.
    is_said: bool,
}

/// Everything of a reload that can fail, done.
struct Next {
    config: Config,
    waiting: Vec<String>,
    checked: Checked,
    filter: Filter,
    admin_key: Option<KeyHash>,
}

impl<'a> Reloader<'a> {
    /// A gateway that was started with `started`.
    pub(super) fn new(source: Source<'a>, started: &Config) -> Self {
        Self { source, current: started.clone(), errors: Vec::new(), seen: None }
    }

    /// The configuration in force.
    pub(super) fn current(&self) -> &Config {
        &self.current
    }

    /// Reads the configuration and puts it in force, or says what is wrong with it. Dropping this future changes nothing.
    pub(super) async fn reload(&mut self, parts: &Parts) {
        let errors = match self.next(parts).await {
            Ok(next) => self.put_in_force(next, parts).err(),
            Err(errors) => Some(errors),
        };
        self.tell("signal", errors, parts);
        self.seen = as_they_are(&self.current.files).await.map(|files| Seen { files, is_said: true });
    }

    /// Does the same if a file changed and has rested since the last look. Where the last reload failed it is tried again
    /// at each look, in silence as long as the same is wrong: what was wrong may lie elsewhere, such as a tenant that was
    /// on a plan which is gone. Dropping this future changes nothing.
    pub(super) async fn look(&mut self, parts: &Parts) {
        if !self.current.reload_watch {
            return;
        }
        let Some(found) = as_they_are(&self.current.files).await else { return };
        if found == self.current.files && self.errors.is_empty() {
            self.seen = None;
            return;
        }
        let is_said = match &self.seen {
            Some(seen) if seen.files == found => seen.is_said,
            _ => {
                self.seen = Some(Seen { files: found, is_said: false });
                return;
            }
        };
        let errors = match self.next(parts).await {
            Ok(next) => {
                if as_they_are(&next.config.files).await.as_ref() != Some(&next.config.files) {
                    // It was written to while it was read: the next looks tell when it rests.
                    self.seen = None;
                    return;
                }
                self.put_in_force(next, parts).err()
            }
            Err(errors) => Some(errors),
        };
        self.seen = Some(Seen { files: found, is_said: true });
        if !is_said || errors.as_ref() != Some(&self.errors) {
            self.tell("file", errors, parts);
        }
    }

    fn tell(&mut self, cause: &str, errors: Option<Vec<String>>, parts: &Parts) {
        parts.reload_failed.store(errors.is_some(), Ordering::Relaxed);
        parts.metrics.reloaded(errors.is_none());
        match &errors {
            None => info!(cause, "The configuration was reloaded."),
            Some(errors) => {
                let errors = errors.join("; ");
                error!(cause, %errors, "The configuration was not reloaded: the last good one stays in force.");
            }
        }
        self.errors = errors.unwrap_or_default();
    }

    async fn next(&self, parts: &Parts) -> Result<Next, Vec<String>> {
        let (config, waiting) = (self.source.load)()?.taken_over(&self.current);
        let mut errors = Vec::new();
        let mut noted = |error: String| errors.push(error);
        let checked = check(&config, Some(&parts.gate.live.load())).map_err(|error| noted(error.to_string()));
        let filter = Filter::parse(&config.log.filter).map_err(&mut noted);
        let (Ok(checked), Ok(filter)) = (checked, filter) else { return Err(errors) };
        all_opened(parts.snapshots.missing(&vault(&config))).map_err(|error| vec![error.to_string()])?;
        let admin_key = self.admin_key(&config, parts).await.map_err(|error| vec![error.to_string()])?;
        // A tenant that another process just put on a plan counts too, when the ledger can tell.
        match timeout(STORE_TIMEOUT, parts.snapshots.refresh(&*parts.ledger.tenants())).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn!(%error, "The plans are checked against the tenants that are known."),
            Err(_) => warn!("The ledger is silent: the plans are checked against the tenants that are known."),
        }
        Ok(Next { config, waiting, checked, filter, admin_key })
    }

    /// The hash of the admin key where that changes. The ledger is asked only if a given key is given no more.
    async fn admin_key(&self, config: &Config, parts: &Parts) -> Result<Option<KeyHash>, BootError> {
        if config.admin_key.is_none() && self.current.admin_key.is_none() {
            return Ok(None);
        }
        match timeout(STORE_TIMEOUT, admin_key::hash(config, &*parts.ledger.tenants(), SystemClock::new().now())).await
        {
            Ok(hash) => hash.map(Some),
            Err(_) => {
                let source = StoreError::Unavailable("it does not answer".to_owned());
                Err(BootError::Ledger { ledger: ledger::name(&config.ledger), source })
            }
        }
    }

    /// Whether every tenant has its plan is judged with the swap: before it, a tenant may still move.
    fn put_in_force(&mut self, next: Next, parts: &Parts) -> Result<(), Vec<String>> {
        let Next { config, waiting, checked: Checked { plans, prices, live }, filter, admin_key } = next;
        let advice = advice::of_prices(&prices, &plans);
        parts.snapshots.replace(plans, prices).map_err(|refused| vec![told(refused)])?;
        parts.snapshots.set_vault(vault(&config));
        parts.snapshots.set_sizes(config.limits.clone(), config.budgets);
        parts.gate.live.store(Arc::new(live));
        if let Some(hash) = admin_key {
            parts.gate.identities.set_admin(hash);
        }
        self.source.log.set_filter(filter);
        for warning in config.warnings.iter().chain(&advice) {
            warn!("{warning}");
        }
        if !waiting.is_empty() {
            let keys = waiting.join(", ");
            warn!(%keys, "These keys changed and wait for a restart.");
        }
        self.current = config;
        Ok(())
    }
}

/// The same files as they are now; `None` when the disk could not be asked. It may be one of the network that hangs: the
/// thread that hears signals does not wait for it.
async fn as_they_are(files: &[Stamped]) -> Option<Vec<Stamped>> {
    let files = files.to_vec();
    spawn_blocking(move || files.iter().map(Stamped::again).collect()).await.ok()
}

fn told(refused: PlansRefused) -> String {
    match refused {
        PlansRefused::Missing(missing) => BootError::from(missing).to_string(),
        PlansRefused::NotCounted { plan, limit: (scope, metric, window) } => format!(
            "plan {plan} limits the {} of each {} in a {}, which this process has not counted since it began: restart it",
            metric.as_str(),
            scope.as_str(),
            window.as_str()
        ),
    }
}

impl From<PlanMissing> for BootError {
    fn from(missing: PlanMissing) -> Self {
        let PlanMissing { tenant, plan } = missing;
        Self::UnknownPlan { tenant: tenant.to_string(), plan: plan.to_string() }
    }
}
