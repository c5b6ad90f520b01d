//! Several gateways over one Redis and one Postgres: the real binary several times, the real stores, and what must hold
//! whatever becomes of any of them.
//!
//! The small forms run each time, the large ones with `TOLLGATE_TEST_FULL=1` (`tests/run --full`).

mod changes;
mod cost;
mod faults;
mod flushes;
mod isolation;
mod ledger;
mod ledger_away;
mod limits;
mod starts;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::gateway::ADMIN_KEY;
use super::support::load::{self, Account, End, Made, Tenant};
use super::support::machine::until;
use super::support::postgres::Database;
use super::support::redis::{RedisCluster, RedisServer};
use super::support::*;

/// Everything that was settled is in the ledger, and the counters know it, within this.
const SETTLED_MAX: Duration = Duration::from_secs(30);
/// Each client of a wave has a thread of its own.
const STACK_BYTES: usize = 256 * 1024;
/// What else is tried when a limit is used up: each of these must be refused.
const BEYOND: usize = 12;
/// Where many calls are left they are made in parts.
const AT_ONCE: usize = 200;

/// Where the shared counters are.
pub enum Counters {
    One(RedisServer),
    Cluster(RedisCluster),
}

/// Gateways, what they stand on, and what was asked of them. Gateways end before their stores do.
pub struct World {
    pub nodes: Vec<Gateway>,
    pub provider: Provider,
    pub counters: Counters,
    pub database: Database,
    pub made: Vec<Made>,
    pub numbers: Arc<AtomicU64>,
    pub stage: Stage,
}

/// What gateways are started with.
#[derive(Debug, Clone)]
pub struct Stage {
    pub plans: String,
    pub leases: bool,
    /// Another way to Redis than the straight one.
    pub redis_url: Option<String>,
    /// Another way to Postgres than the straight one.
    pub database_url: Option<String>,
}

/// A wave's calls as their clients know them, and how long each took.
pub struct Ended {
    pub made: Vec<Made>,
    pub slowest: Duration,
}

/// Many clients that call at once, each one call.
pub struct Wave {
    numbers: BTreeSet<u64>,
    clients: Vec<JoinHandle<Duration>>,
    ended: Arc<Mutex<Vec<Made>>>,
}

impl Stage {
    /// Plan `tight` with so many chats a month, and `wide`, whose limit nobody meets.
    pub fn new(leases: bool, tight: usize) -> Self {
        let plans = format!("[plans.tight]\nchats_per_month = {tight}\n[plans.wide]\nchats_per_month = 1000000\n");
        Self { plans, leases, redis_url: None, database_url: None }
    }

    /// For the lines of figures.
    pub fn told(&self) -> &'static str {
        if self.leases { "leases on" } else { "leases off" }
    }
}

impl Counters {
    pub fn url(&self) -> String {
        match self {
            Self::One(server) => server.url(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }
}

impl World {
    /// So many gateways over an empty Redis and an empty ledger, started at once. The provider charges by the mark.
    pub fn start(stage: Stage, nodes: usize) -> Self {
        Self::over(stage, Counters::One(RedisServer::start()), Database::new(), nodes)
    }

    pub fn over(stage: Stage, counters: Counters, database: Database, nodes: usize) -> Self {
        let provider = Provider::start(load::charging);
        let (made, numbers) = (Vec::new(), Arc::default());
        let mut world = Self { nodes: Vec::new(), provider, counters, database, made, numbers, stage };
        world.add(nodes);
        world
    }

    /// So many gateways more, started at once.
    pub fn add(&mut self, nodes: usize) {
        let started: Vec<Gateway> = thread::scope(|scope| {
            let starts: Vec<_> = (0..nodes).map(|_| scope.spawn(|| self.setup().start())).collect();
            starts.into_iter().map(|start| start.join().expect("it starts")).collect()
        });
        self.nodes.extend(started);
    }

    fn setup(&self) -> Setup {
        self.stores(Setup::new(&self.provider)).config(&self.stage.plans)
    }

    fn stores(&self, setup: Setup) -> Setup {
        setup
            .prod()
            // A line for each call would hide the others.
            .set("RUST_LOG", "info,tollgate::request=warn")
            .set("DATABASE_URL", &self.database_url())
            .set("REDIS_URL", &self.redis_url())
            .set("TOLLGATE_COUNTERS_LEASE_MAX", if self.stage.leases { "64" } else { "0" })
    }

    fn database_url(&self) -> String {
        self.stage.database_url.clone().unwrap_or_else(|| self.database.url.clone())
    }

    fn redis_url(&self) -> String {
        self.stage.redis_url.clone().unwrap_or_else(|| self.counters.url())
    }

    /// The one Redis.
    pub fn redis(&mut self) -> &mut RedisServer {
        match &mut self.counters {
            Counters::One(server) => server,
            Counters::Cluster(_) => panic!("a cluster"),
        }
    }

    /// Starts a gateway again that was killed, on its data directory.
    pub fn restart(&mut self, node: usize) {
        let setup = self.stores(Setup::new(&self.provider).on_ledger_of(&self.nodes[node])).config(&self.stage.plans);
        self.nodes[node] = setup.start();
    }

    pub fn tenant(&self, name: &str, plan: &str) -> Tenant {
        Tenant { name: name.to_owned(), key: self.nodes[0].issue(name, plan) }
    }

    pub fn proxies(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.proxy).collect()
    }

    /// Calls of a tenant at once, by turns to each of these gateways.
    pub fn wave(&self, tenant: &Tenant, calls: usize, to: &[SocketAddr]) -> Wave {
        let start = Arc::new(Barrier::new(calls));
        let mut wave = Wave { numbers: BTreeSet::new(), clients: Vec::new(), ended: Arc::default() };
        for at in 0..calls {
            let number = self.numbers.fetch_add(1, Ordering::SeqCst);
            wave.numbers.insert(number);
            let (start, ended) = (Arc::clone(&start), Arc::clone(&wave.ended));
            let (to, tenant) = (to[at % to.len()], tenant.clone());
            let client = move || {
                start.wait();
                let (began, end) = (Instant::now(), one_call(to, &load::call(number, &tenant.key)));
                let took = began.elapsed();
                ended.lock().unwrap().push(Made { number, tenant: tenant.name, end });
                took
            };
            wave.clients.push(thread::Builder::new().stack_size(STACK_BYTES).spawn(client).expect("a thread"));
        }
        wave
    }

    /// A wave over all gateways, to its end.
    pub fn calls(&mut self, tenant: &Tenant, calls: usize) -> Vec<Made> {
        self.calls_to(tenant, calls, &self.proxies())
    }

    pub fn calls_to(&mut self, tenant: &Tenant, calls: usize, to: &[SocketAddr]) -> Vec<Made> {
        let ended = self.wave(tenant, calls, to).join();
        self.made.extend(ended.made.iter().cloned());
        ended.made
    }

    /// From now on the provider keeps its answers until the gate is passed.
    pub fn hold_answers(&self) -> Gate {
        let gate = Gate::default();
        let waits = gate.clone();
        self.provider.now_does(move |seen| load::charging(seen).after(Step::Wait(waits.clone(), 1)));
        gate
    }

    /// Waits until all of a wave are with the provider or at their end.
    pub fn decided(&self, wave: &Wave) {
        let mut looked_at = 0;
        let mut seen = BTreeSet::new();
        until("every call is decided", SETTLED_MAX, || {
            let all = self.provider.seen_from(looked_at);
            looked_at += all.len();
            seen.extend(all.iter().map(load::number_of_seen));
            let ended: BTreeSet<u64> = wave.ended.lock().unwrap().iter().map(|made| made.number).collect();
            wave.numbers.iter().all(|number| seen.contains(number) || ended.contains(number))
        });
    }

    /// Waits until everything is in the ledger and the counters know it.
    pub fn settled(&self) {
        let deadline = Instant::now() + SETTLED_MAX;
        for (at, node) in self.nodes.iter().enumerate() {
            loop {
                let ready = node.ready();
                if is_at_rest(&ready) {
                    break;
                }
                assert!(Instant::now() < deadline, "node {at} does not come to rest: {ready}");
                thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Chats of a tenant that are in the ledger.
    pub fn chats(&self, tenant: &Tenant) -> usize {
        ledger::events(&self.database.url).iter().filter(|event| event.tenant_id == tenant.name).count()
    }

    /// Everything rests, nothing is lost or twice, and every gateway says of each tenant what the ledger says.
    pub fn demand_all_right(&self, tenants: &[&Tenant], may_refuse: &[u16]) -> Account {
        self.settled();
        let booked = ledger::events(&self.database.url);
        ledger::demand_right_sums(&self.database.url);
        let account = load::account(&self.made, &self.provider.seen(), &booked, may_refuse);
        for tenant in tenants {
            let chats = booked.iter().filter(|event| event.tenant_id == tenant.name).count();
            for (at, node) in self.nodes.iter().enumerate() {
                let limits = node.limits(&tenant.key);
                let found = (&limits["used"], &limits["held"]);
                assert_eq!(found, (&chats.into(), &0.into()), "{} on node {at}: {limits}", tenant.name);
            }
        }
        account
    }

    /// What is left of a tenant's limit is had exactly, by calls at once over all gateways.
    pub fn use_up(&mut self, tenant: &Tenant, limit: usize) {
        self.settled();
        let used = self.chats(tenant);
        assert!(used <= limit, "{} has {used} chats of {limit}", tenant.name);
        let mut left = limit - used;
        while left > AT_ONCE {
            let made = self.calls(tenant, AT_ONCE);
            assert_eq!(ended(&made, End::Whole), AT_ONCE, "{left} of {limit} were left: {}", told(&made));
            left -= AT_ONCE;
        }
        let made = self.calls(tenant, left + BEYOND);
        let found = (ended(&made, End::Whole), ended(&made, End::Refused(402)));
        let standing: Vec<_> = self.nodes.iter().map(|node| node.limits(&tenant.key)).collect();
        assert_eq!(found, (left, BEYOND), "{left} of {limit} were left: {}, {standing:?}", told(&made));
        self.settled();
        assert_eq!(self.chats(tenant), limit, "{}", tenant.name);
    }

    /// `tollgate verify` beside each gateway finds nothing.
    pub fn demand_verified(&self) {
        for (at, node) in self.nodes.iter().enumerate() {
            let mut command = self.tollgate(&["verify", "--json"]);
            command.env("TOLLGATE_DATA_DIR", node.data_dir()).env("TOLLGATE_ADMIN_LISTEN", node.admin.to_string());
            let output = command.output().expect("the binary starts");
            let told = said(&output);
            assert!(output.status.success(), "node {at}: {told}");
            let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {told}"));
            assert_eq!(document["difference_count"], 0, "node {at}: {document}");
            assert_eq!(document["counters"]["not_compared"], Value::Null, "node {at}: {document}");
        }
    }

    /// The command line on the same stores.
    pub fn tollgate(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).env_clear().current_dir(self.nodes[0].data_dir());
        command.env("TOLLGATE_CONFIG", self.nodes[0].config_file()).env("TOLLGATE_ADMIN_KEY", ADMIN_KEY);
        command.env("DATABASE_URL", self.database_url()).env("REDIS_URL", self.redis_url());
        command
    }
}

impl Wave {
    /// Waits until every client has its answer.
    pub fn join(self) -> Ended {
        let took = self.clients.into_iter().map(|client| client.join().expect("no client panics"));
        let slowest = took.max().unwrap_or_default();
        let mut made = std::mem::take(&mut *self.ended.lock().unwrap());
        made.sort_unstable_by_key(|made| made.number);
        Ended { made, slowest }
    }
}

fn is_at_rest(ready: &Value) -> bool {
    let (recorder, counters) = (&ready["recorder"], &ready["counters"]);
    recorder["events_waiting"] == 0
        && recorder["in_flight"] == 0
        && counters["notes_waiting"] == 0
        && counters["building"] == 0
        && ready["checks"]["counters"] == "ok"
}

/// One call on a connection of its own; broken where nobody listens.
pub fn one_call(to: SocketAddr, request: &Request) -> End {
    Wire::try_open(to).map_or(End::Broken, |mut wire| load::make(&mut wire, request, false))
}

/// How many ended so.
pub fn ended(made: &[Made], end: End) -> usize {
    made.iter().filter(|made| made.end == end).count()
}

/// How calls ended, in short.
pub fn told(made: &[Made]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for made in made {
        *counts.entry(format!("{:?}", made.end)).or_default() += 1;
    }
    format!("{counts:?}")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The value of one line of `GET /metrics`.
pub fn metric(node: &Gateway, name: &str) -> String {
    let text = Request::get("/metrics").send(node.admin).text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
}
