//! Counters in Redis that several gateways share.
//!
//! May use: `domain`, `ports`.
//!
//! One script (`counters.lua`) does every operation on one key: everything of a tenant lies in one hash, so it is evicted,
//! lost or moved as a whole, and one call stays on one slot of a cluster.
//!
//! **Whose data.** A process of Redis that comes back with an older copy of its data, or a replica that was promoted and is
//! behind, looks right and is not. So the run id of the process stands in the text of the script that is loaded into it,
//! and in each hash that the script writes: another process does not know the script (NOSCRIPT; it is loaded with that run
//! id), and takes what it finds of others for missing.
//!
//! **Never late.** A command may lie in a connection that hangs and arrive when its caller has long given up. Each one
//! carries the server's time after which it does nothing. What time it is there is known from the answers
//! ([`server_clock`]), never later than it is.
//!
//! One connection to each server is shared by all who ask ([`live`]), is made anew when it breaks or says nothing
//! ([`server`]), and leads to who has the key ([`topology`]).

mod continuations;
mod live;
mod operations;
mod rates;
mod server;
mod server_clock;
mod settings;
mod topology;
mod words;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::Value;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tracing::{error, info};

use crate::domain::ids::TenantId;
use crate::domain::redis_url::RedisUrl;
use crate::ports::clock::Clock;
use crate::ports::counters::CountersUnavailable;
use crate::ports::shared::ClaimError;

use live::{Away, Failure, Operation};
use server::Server;
use settings::Settings;
use topology::Topology;
use words::{Answer, Arguments, Strange};

/// A call is sent at most so often: another process, a slot that moved, a clock that was not known yet; and two to spare.
const ATTEMPTS_MAX: u32 = 6;

/// What is no part of a call has so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// At the start, the first connection has so long.
const CLAIM_MAX: Duration = Duration::from_secs(3);

/// The claim is renewed this often: it may be lost with everything else.
const CLAIM_EVERY: Duration = Duration::from_secs(5);

/// Who may use the counters: the id of the ledger.
const LEDGER_KEY: &str = "tollgate:ledger";

/// Keys that a step of a walk over all looks at, about.
const SCAN_COUNT: u32 = 500;

/// Steps of a walk over the keys of one server: 500 million keys.
const SCANS_MAX: u32 = 1_000_000;

/// Counters in one Redis, or a cluster of them. Cheap to ask from any task of any runtime. Nothing but the claim is
/// possible before the claim.
pub struct RedisCounters {
    store: Arc<Store>,
    upkeep: JoinHandle<()>,
}

struct Store {
    settings: Arc<Settings>,
    topology: Topology,
    ledger: OnceLock<Ledger>,
    /// Another ledger was found to use these counters.
    is_foreign: AtomicBool,
}

struct Ledger {
    id: String,
    /// What all keys of its tenants begin with, up to the brace.
    prefix: String,
    /// The key of its gateways.
    nodes: String,
}

impl RedisCounters {
    /// Connects in the background, on `runtime`; returns at once. The connection is made anew whenever it breaks.
    pub fn start(url: RedisUrl, clock: Arc<dyn Clock>, runtime: &Handle) -> Self {
        let settings = Arc::new(Settings::new(url, clock));
        let topology = Topology::start(Arc::clone(&settings), runtime);
        let store = Arc::new(Store { settings, topology, ledger: OnceLock::new(), is_foreign: AtomicBool::new(false) });
        let upkeep = runtime.spawn(renew(Arc::clone(&store)));
        Self { store, upkeep }
    }
}

impl Drop for RedisCounters {
    fn drop(&mut self) {
        self.upkeep.abort();
    }
}

impl Store {
    fn ledger(&self) -> Result<&Ledger, CountersUnavailable> {
        self.ledger.get().ok_or_else(|| CountersUnavailable("they are not claimed yet".to_owned()))
    }

    fn tenant_key(&self, tenant: &TenantId) -> Result<Vec<u8>, CountersUnavailable> {
        Ok(format!("{}{{{tenant}}}", self.ledger()?.prefix).into_bytes())
    }

    fn wait(&self, deadline_us: u64) -> Duration {
        Duration::from_micros(deadline_us.saturating_sub(self.settings.now_us()))
    }

    /// Has the script do an operation, at once or never. Gives the word of its answer, and what follows.
    async fn run(
        &self,
        name: &'static str,
        key: &[u8],
        arguments: &Arguments,
        within: Duration,
    ) -> Result<(String, Answer), CountersUnavailable> {
        if self.is_foreign.load(Ordering::Relaxed) {
            return Err(CountersUnavailable("Redis holds the counters of another ledger".to_owned()));
        }
        let deadline_us = self.settings.now_us().saturating_add(micros(within));
        self.attempts(&Operation { name, key, arguments, deadline_us }).await.map_err(CountersUnavailable)
    }

    async fn attempts(&self, operation: &Operation<'_>) -> Result<(String, Answer), String> {
        let mut elsewhere: Option<(Arc<Server>, bool)> = None;
        for _ in 0..ATTEMPTS_MAX {
            let (server, is_asking) = match elsewhere.take() {
                Some(found) => found,
                None => (self.owner(operation).await?, false),
            };
            let live = self.found(server.live(self.wait(operation.deadline_us)).await)?;
            let loaded = live.loaded();
            match live.evaluate(&loaded, operation, is_asking).await {
                Ok((word, _)) if word == "late" => {
                    if self.settings.now_us() >= operation.deadline_us {
                        return Err("Redis did not answer in time".to_owned());
                    }
                }
                Ok(answer) => return Ok(answer),
                Err(Failure::NoScript) => {
                    match live.reload(&loaded, operation.deadline_us).await {
                        Ok(()) => {}
                        Err(Failure::Silent) => return Err("Redis did not answer in time".to_owned()),
                        Err(_) => server.lost(&live),
                    }
                    elsewhere = Some((server, is_asking));
                }
                Err(Failure::Moved(host)) => {
                    self.topology.refresh();
                    elsewhere = host.and_then(|host| self.topology.server(&host)).map(|server| (server, false));
                }
                Err(Failure::Ask(host)) => {
                    elsewhere = host.and_then(|host| self.topology.server(&host)).map(|server| (server, true));
                }
                Err(Failure::Lost(reason)) => {
                    server.lost(&live);
                    self.topology.refresh();
                    // It may have been done. All others say the same when they are done twice.
                    if operation.name == "finish" {
                        return Err(reason);
                    }
                }
                Err(Failure::Refused(reason)) => {
                    self.topology.refresh();
                    return Err(reason);
                }
                Err(Failure::Silent) => return Err("Redis did not answer in time".to_owned()),
            }
        }
        Err("Redis sends from one server to the next".to_owned())
    }

    async fn owner(&self, operation: &Operation<'_>) -> Result<Arc<Server>, String> {
        self.found(self.topology.owner(operation.key, self.wait(operation.deadline_us)).await)
    }

    fn found<T>(&self, found: Result<T, Away>) -> Result<T, String> {
        found.map_err(|(Away::Gone(reason) | Away::Unfit(reason))| {
            self.topology.refresh();
            reason
        })
    }

    /// Puts the ledger's id where nobody did, and says whose it is. Errors are about the store, not about the owner.
    async fn claim(&self, ledger: &Ledger, within: Duration) -> Result<bool, ClaimError> {
        let deadline_us = self.settings.now_us().saturating_add(micros(within));
        let gone = |reason: String| ClaimError::Unavailable(CountersUnavailable(reason));
        let away = |away| match away {
            Away::Gone(reason) => gone(reason),
            Away::Unfit(reason) => ClaimError::Unfit(reason),
        };
        let mut command = redis::cmd("SET");
        command.arg(LEDGER_KEY).arg(&ledger.id).arg("NX").arg("GET");
        let mut elsewhere = None;
        for _ in 0..ATTEMPTS_MAX {
            let server = match elsewhere.take() {
                Some(server) => server,
                None => self.topology.owner(LEDGER_KEY.as_bytes(), self.wait(deadline_us)).await.map_err(away)?,
            };
            let live = server.live(self.wait(deadline_us)).await.map_err(|reason| {
                self.topology.refresh();
                away(reason)
            })?;
            match live.send(&command, deadline_us).await {
                Ok(Value::BulkString(owner)) => return Ok(owner == ledger.id.as_bytes()),
                Ok(_) => return Ok(true),
                Err(Failure::Moved(Some(host)) | Failure::Ask(Some(host))) => {
                    self.topology.refresh();
                    elsewhere = self.topology.server(&host);
                }
                Err(Failure::Lost(_)) => {
                    server.lost(&live);
                    self.topology.refresh();
                }
                Err(Failure::Refused(reason)) => return Err(gone(reason)),
                Err(_) => return Err(gone("Redis did not answer in time".to_owned())),
            }
        }
        Err(gone("Redis sends from one server to the next".to_owned()))
    }

    /// The keys of all tenants of this ledger, over all masters.
    async fn all_keys(&self) -> Result<HashSet<Vec<u8>>, String> {
        let pattern = format!("{}{{*", self.ledger().map_err(|error| error.0)?.prefix);
        let mut keys = HashSet::new();
        for server in self.found(self.topology.masters(PATIENCE).await)? {
            let live = self.found(server.live(PATIENCE).await)?;
            let mut cursor = "0".to_owned();
            for _ in 0..SCANS_MAX {
                let mut command = redis::cmd("SCAN");
                command.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_COUNT);
                let deadline_us = self.settings.now_us().saturating_add(micros(PATIENCE));
                let value = match live.send(&command, deadline_us).await {
                    Ok(value) => value,
                    Err(Failure::Lost(reason)) => {
                        server.lost(&live);
                        return Err(reason);
                    }
                    Err(Failure::Refused(reason)) => return Err(reason),
                    Err(_) => return Err("Redis did not answer in time".to_owned()),
                };
                cursor =
                    step(value, &mut keys).map_err(|Strange| "Redis answers SCAN with something else".to_owned())?;
                if cursor == "0" {
                    break;
                }
            }
        }
        Ok(keys)
    }
}

impl Ledger {
    fn new(id: &str) -> Self {
        let short: String = id.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
        Self {
            id: id.to_owned(),
            prefix: format!("tollgate:2:{short}:"),
            nodes: format!("tollgate:2:{{{short}}}:nodes"),
        }
    }
}

/// One answer of SCAN; gives the cursor of the next.
fn step(value: Value, keys: &mut HashSet<Vec<u8>>) -> Result<String, Strange> {
    let mut answer = Answer::new(value)?;
    let cursor = answer.text()?;
    let mut found = answer.list()?;
    while !found.is_over() {
        keys.insert(found.bytes()?);
    }
    Ok(cursor)
}

/// Until it is aborted: renews the claim.
async fn renew(store: Arc<Store>) {
    loop {
        tokio::time::sleep(CLAIM_EVERY).await;
        let Some(ledger) = store.ledger.get() else { continue };
        // What cannot be asked now is asked in a moment.
        let Ok(is_own) = store.claim(ledger, PATIENCE).await else { continue };
        let was_foreign = store.is_foreign.swap(!is_own, Ordering::Relaxed);
        if !is_own && !was_foreign {
            error!(
                "Redis holds the counters of another ledger: give each ledger a Redis of its own, or another database of it."
            );
        } else if is_own && was_foreign {
            info!("Redis holds the counters of this ledger again.");
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
