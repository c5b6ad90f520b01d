//! One tenant that floods the gateway does not make another one wait.
//!
//! The gateway has a core of its own; the clients, the provider and the stores share another. The bound is that of a
//! release, measured in the long form; the short form shows that a flood refuses nobody else. It holds for a tenant that a
//! plan stops, by what is left of it or by how many of its calls may run at once. Calls that nothing stops fill the core of
//! the provider and the stores, where the other tenant's have to wait as well: that is measured, and bound by nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::machine::{figures, full, pin, thread_id};
use crate::support::postgres::{Database, Server};
use crate::support::redis::RedisServer;
use crate::support::*;

const GATEWAYS_CORE: u32 = 0;
const OTHERS_CORE: u32 = 1;
/// Connections of the tenant that floods, each with one call after the other.
const FLOOD: usize = 64;
/// Connections of the other tenant, and calls a second on each: an open loop.
const QUIET: u64 = 4;
const RATE: u64 = 25;
/// Chats of the plan that is used up.
const USED_UP: usize = 20;
/// Calls at once of the plan with a cap.
const CAP: usize = 8;
/// What is asked for is below twice the quiet p99 and this.
const MORE_MAX: Duration = Duration::from_millis(5);
/// The machine may be busy with other tests: so often at most.
const ROUNDS_MAX: u32 = 4;

/// Where it is measured.
struct Place {
    gateway: Gateway,
    quiet: String,
    _provider: Provider,
    _redis: RedisServer,
    _database: Database,
    _server: Server,
}

impl Place {
    /// `None` where nothing can be put on a core.
    fn new() -> Option<Self> {
        let (server, redis) = (Server::start(), RedisServer::start());
        let others = [server.processes(), vec![redis.process_id()]].concat();
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        if cores < 2 || !pin(&others, OTHERS_CORE) {
            return None;
        }
        let database = Database::on(&server);
        let provider = Provider::start(bodies::honest);
        // A flood that nothing stops makes Redis wait for its core, which is not what this is about.
        let plans = format!(
            "[plans.tight]\nchats_per_month = {USED_UP}\n[plans.wide]\nchats_per_month = 100000000\n\
             [plans.capped]\nchats_per_month = 100000000\nconcurrent_requests = {CAP}\n\
             [counters]\ncall_budget = \"2s\"\n"
        );
        let gateway = Setup::new(&provider)
            .prod()
            .on_core(GATEWAYS_CORE)
            .set("TOLLGATE_WORKERS", "1")
            .set("RUST_LOG", "warn")
            .set("DATABASE_URL", &database.url)
            .set("REDIS_URL", &redis.url())
            .config(&plans)
            .start();
        let quiet = gateway.issue("quiet", "wide");
        Some(Self { gateway, quiet, _provider: provider, _redis: redis, _database: database, _server: server })
    }

    /// The p99 of the quiet tenant's calls, each from when it was due.
    fn p99(&self, lasts: Duration) -> Duration {
        let clients: Vec<_> = (0..QUIET)
            .map(|client| {
                let (to, key) = (self.gateway.proxy, self.quiet.clone());
                thread::spawn(move || {
                    pin(&[thread_id()], OTHERS_CORE);
                    let (request, mut wire) = (chat(&key), Wire::open(to));
                    let every = Duration::from_micros(1_000_000 / RATE);
                    let began = Instant::now() + Duration::from_micros(1_000_000 / RATE / QUIET * client);
                    let mut took = Vec::new();
                    let mut due = began;
                    while due < began + lasts {
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        assert_eq!(wire.ask(&request).status, 200);
                        took.push(due.elapsed());
                        due += every;
                    }
                    took
                })
            })
            .collect();
        let mut all: Vec<Duration> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        all.sort_unstable();
        all[all.len() * 99 / 100]
    }
}

/// Calls as fast as they go, until it is told to stop.
struct Flooding {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    clients: Vec<thread::JoinHandle<()>>,
}

impl Flooding {
    fn start(to: SocketAddr, key: &str, answers: &'static [u16]) -> Self {
        let (stop, calls) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let client = |_| {
            let (stop, calls, request) = (Arc::clone(&stop), Arc::clone(&calls), chat(key));
            thread::spawn(move || {
                pin(&[thread_id()], OTHERS_CORE);
                let mut wire = Wire::open(to);
                while !stop.load(Ordering::SeqCst) {
                    let answer = wire.ask(&request);
                    assert!(answers.contains(&answer.status), "{}: {}", answer.status, answer.text());
                    calls.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        let clients = (0..FLOOD).map(client).collect();
        Self { stop, calls, clients }
    }

    fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        std::mem::take(&mut self.clients).into_iter().for_each(|client| client.join().expect("no client panics"));
        self.calls.load(Ordering::SeqCst)
    }
}

/// Also where a test fails: the next has the machine to itself.
impl Drop for Flooding {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn flooded(place: &Place, plan: &str, key: &str, answers: &'static [u16]) {
    let lasts = if full() { Duration::from_secs(8) } else { Duration::from_secs(1) };
    let is_measured = full() && is_release() && answers != [200];
    for round in 1..=ROUNDS_MAX {
        let quiet = place.p99(lasts);
        let (began, flooding) = (Instant::now(), Flooding::start(place.gateway.proxy, key, answers));
        // Every one of them is at it.
        machine::until("the flood", Duration::from_secs(20), || flooding.calls.load(Ordering::SeqCst) >= FLOOD as u64);
        let loud = place.p99(lasts);
        let calls = flooding.stop();
        let rate = u128::from(calls) * 1_000 / began.elapsed().as_millis().max(1);
        let is_bounded = loud <= quiet * 2 + MORE_MAX;
        if is_bounded || round == ROUNDS_MAX || !is_measured {
            figures(&format!(
                "flood of {FLOOD} connections on {plan}, {rate} calls/s: p99 of another tenant {} us, quiet {} us",
                loud.as_micros(),
                quiet.as_micros()
            ));
            assert!(is_bounded || !is_measured, "p99 {loud:?} beside a flood, {quiet:?} without one");
            return;
        }
    }
}

#[test]
fn a_tenant_that_floods_does_not_make_another_one_wait() {
    let Some(place) = Place::new() else {
        figures("flood: left out, this machine has one core or no taskset");
        return;
    };
    let used_up = place.gateway.issue("loud", "tight");
    use_up(&place.gateway, &used_up, USED_UP);
    flooded(&place, "a plan that is used up", &used_up, &[402]);
    if full() {
        let capped = place.gateway.issue("louder", "capped");
        flooded(&place, "a plan with a cap on calls at once", &capped, &[200, 429]);
        let unstopped = place.gateway.issue("loudest", "wide");
        flooded(&place, "a plan that does not stop it", &unstopped, &[200]);
    }
}
