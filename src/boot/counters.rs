//! Which counters a gateway has: those in its process, or those that it shares with others; and who it is among them.
//!
//! May use: everything.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

use crate::adapters::memory_continuations::MemoryContinuations;
use crate::adapters::memory_counters::MemoryCounters;
use crate::adapters::memory_rates::MemoryRates;
use crate::adapters::redis_counters::RedisCounters;
use crate::config::Config;
use crate::domain::redis_url::RedisUrl;
use crate::metering::node_counters::{Leases, NodeCounters, Options, Outside};
use crate::metering::rebuild::rebuild;
use crate::metering::snapshot::Snapshots;
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::continuations::Continuations;
use crate::ports::counters::CounterStore;
use crate::ports::journal::Journal;
use crate::ports::rates::RateStore;
use crate::ports::shared::{ClaimError, Member, NodeId, SharedCounters};
use crate::ports::sink::Sink;
use crate::ports::tenants::TenantStore;
use crate::ports::usage::UsageStore;

use super::BootError;

/// The last words to the shared counters have so long: what they are not told they learn at the next start.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// The counters of this process.
pub(super) struct Counters {
    pub(super) store: Arc<dyn CounterStore>,
    pub(super) continuations: Arc<dyn Continuations>,
    pub(super) rates: Arc<dyn RateStore>,
    shared: Option<(Arc<NodeCounters>, JoinHandle<()>)>,
}

/// What they follow from.
#[derive(Clone)]
pub(super) struct Facts {
    pub(super) usage: Arc<dyn UsageStore>,
    pub(super) tenants: Arc<dyn TenantStore>,
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Counters {
    /// Counters that know all that the ledger and the journal have. The recorder must not run yet.
    pub(super) async fn open(
        config: &Config,
        facts: Facts,
        failed: impl Fn(StoreError) -> BootError,
    ) -> Result<Self, BootError> {
        match &config.counters.url {
            Some(url) => Self::open_shared(config, url.clone(), facts, failed).await,
            None => {
                let Facts { usage, snapshots, journal, clock, .. } = facts;
                let store: Arc<dyn CounterStore> = Arc::new(MemoryCounters::new());
                rebuild(&*store, &*usage, &*journal, &*clock, snapshots.counting()).await.map_err(failed)?;
                let rates = Arc::new(MemoryRates::new(clock.clone()));
                Ok(Self { store, continuations: Arc::new(MemoryContinuations::new(clock)), rates, shared: None })
            }
        }
    }

    async fn open_shared(
        config: &Config,
        url: RedisUrl,
        facts: Facts,
        failed: impl Fn(StoreError) -> BootError,
    ) -> Result<Self, BootError> {
        let Facts { usage, tenants, snapshots, journal, clock } = facts;
        let ledger_id = usage.ledger_id().await.map_err(&failed)?;
        let redis = RedisCounters::start(url, clock.clone(), &Handle::current());
        match redis.claim(&ledger_id).await {
            Ok(()) => {}
            Err(ClaimError::Unfit(reason)) => return Err(BootError::Counters(reason)),
            // Calls are refused until they answer; everything else is served.
            Err(ClaimError::Unavailable(error)) => warn!(%error, "The shared counters do not answer yet."),
        }
        let member = Member { node: node_id(&config.data_dir, &*clock)?, life: random(&*clock) };
        let continuations = Arc::new(redis.continuations(config.counters.call_budget));
        let rates = Arc::new(redis.rates(config.counters.call_budget, &Handle::current()));
        let lease_max = config.counters.lease_max;
        let options = Options {
            member,
            call_budget: config.counters.call_budget,
            leases: (lease_max > 0).then_some(Leases { units_max: lease_max, lasts: config.counters.lease_ttl }),
        };
        let outside = Outside { shared: Arc::new(redis), usage, tenants, snapshots, clock };
        let node = Arc::new(NodeCounters::new(options, outside));
        journal.waiting(&mut |event| node.adopt(&event)).map_err(failed)?;
        let running = tokio::spawn({
            let node = node.clone();
            async move { node.run().await }
        });
        Ok(Self { store: node.clone(), continuations, rates, shared: Some((node, running)) })
    }

    /// Those of the counters that want to hear what is booked.
    pub(super) fn sinks(&self) -> impl Iterator<Item = Arc<dyn Sink>> {
        self.shared.iter().map(|(node, _)| -> Arc<dyn Sink> { node.clone() })
    }

    /// Tells the others that this node goes.
    pub(super) async fn leave(self) {
        let Some((node, running)) = self.shared else { return };
        let leaving = async {
            node.settle_up().await;
            running.abort();
            // What was under way is over when the task is.
            running.await.unwrap_or_default();
            node.leave().await;
        };
        if timeout(LEAVE_MAX, leaving).await.is_err() {
            warn!("The shared counters were not told everything; the next start does it.");
        }
    }
}

/// Who this gateway is, across restarts: a number that is made once for each data directory.
fn node_id(data_dir: &Path, clock: &dyn Clock) -> Result<NodeId, BootError> {
    let path = data_dir.join("node");
    let failed = |error: io::Error| BootError::DataDir { path: path.clone(), reason: error.to_string() };
    match fs::read_to_string(&path) {
        Ok(text) => {
            let id = u64::from_str_radix(text.trim(), 16).map(NodeId);
            let wrong = "holds no node's number: remove it, and another one is made";
            return id.map_err(|_| BootError::DataDir { path: path.clone(), reason: wrong.into() });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let id = NodeId(random(clock));
    // Under another name first: a process that is killed here leaves no half a number.
    let draft = data_dir.join("node.new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft).map_err(failed)?;
    writeln!(file, "{id}").and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&draft, &path).map_err(failed)?;
    Ok(id)
}

fn random(clock: &dyn Clock) -> u64 {
    let random = clock.random();
    // Both halves are random; one will do.
    u64::try_from(random >> 64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::system_clock::SystemClock;

    #[test]
    fn a_data_directory_is_one_node_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let clock = SystemClock::new();
        let first = node_id(directory.path(), &clock).unwrap();
        assert_eq!(node_id(directory.path(), &clock).unwrap(), first);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(node_id(other.path(), &clock).unwrap(), first);
        fs::write(directory.path().join("node"), "half").unwrap();
        assert!(node_id(directory.path(), &clock).unwrap_err().to_string().contains("remove it"));
    }
}
