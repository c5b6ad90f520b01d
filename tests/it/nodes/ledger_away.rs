//! Postgres is away: no call is refused, nothing is lost, and the ledger catches up; also where a gateway is killed
//! meanwhile, and where many gateways write the same sums at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Counters, Stage, World, ended, metric};
use crate::support::load::{self, End, Load, Plan, Tenant};
use crate::support::machine::{Chance, figures, full, until};
use crate::support::postgres::{Database, Server};
use crate::support::redis::RedisServer;
use crate::support::*;
use fault_proxy::{Fault, FaultProxy};

const NODES: usize = 2;
/// From the end of the trouble until everything is booked: the longest pause between two tries, and room.
const CAUGHT_UP_MAX: Duration = Duration::from_secs(30);

/// What happens to Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// `kill -STOP` of all of its processes.
    Stopped,
    /// Nothing comes through.
    BlackHole,
    /// Connections are closed.
    Cut,
    /// `kill -9` of all of its processes.
    Killed,
}

use Trouble::*;

struct Stand {
    world: World,
    proxy: FaultProxy,
    server: Server,
    tenants: Arc<Vec<Tenant>>,
    chance: Chance,
}

impl Stand {
    fn new(leases: bool) -> Self {
        let server = Server::start();
        let proxy = FaultProxy::start(std::net::SocketAddr::from(([127, 0, 0, 1], server.port)));
        let database = Database::on(&server);
        let database_url = database.url.replace(&format!(":{}/", server.port), &format!(":{}/", proxy.address.port()));
        let stage = Stage { database_url: Some(database_url), ..Stage::new(leases, 500) };
        let world = World::over(stage, Counters::One(RedisServer::start()), database, NODES);
        let tenants = Arc::new(vec![world.tenant("acme", "wide"), world.tenant("globex", "wide")]);
        Self { world, proxy, server, tenants, chance: Chance::new() }
    }

    fn load(&mut self) -> Vec<Load> {
        let (tenants, numbers) = (&self.tenants, &self.world.numbers);
        let plan = |node: &Gateway| Plan { clients: 4, leaves_one_in: 25, ..Plan::new(node.proxy, tenants, numbers) };
        let plans: Vec<Plan> = self.world.nodes.iter().map(plan).collect();
        plans.iter().map(|plan| Load::start(plan, &mut self.chance)).collect()
    }

    fn begin(&self, trouble: Trouble) {
        match trouble {
            Stopped => self.server.pause(),
            BlackHole => self.proxy.set(Fault::Hang),
            Cut => self.proxy.set(Fault::Cut),
            Killed => self.server.kill(),
        }
    }

    fn end(&self, trouble: Trouble) {
        match trouble {
            Stopped => self.server.go_on(),
            BlackHole | Cut => self.proxy.set(Fault::None),
            Killed => self.server.start_again(),
        }
    }

    fn waiting(&self) -> u64 {
        // Not `/readyz`, which waits for the ledger.
        let waiting =
            |node: &Gateway| metric(node, "tollgate_recorder_backlog_events").parse::<u64>().expect("a number");
        self.world.nodes.iter().map(waiting).sum()
    }

    /// Calls under load while Postgres is away, and after. With `dies`, the second gateway is killed meanwhile.
    fn suffer(&mut self, trouble: Trouble, dies: bool) {
        let calls = if full() { 2_000 } else { 150 };
        let load = self.load();
        load::demand_asked(&self.world.provider, self.world.provider.count() + 30);
        self.begin(trouble);
        load::demand_asked(&self.world.provider, self.world.provider.count() + calls);
        let waited = self.waiting();
        if dies {
            self.world.nodes[1].kill();
        }
        for load in load {
            self.world.made.extend(load.stop());
        }
        assert!(waited > 0, "{trouble:?}: nothing waits");
        self.end(trouble);
        let began = Instant::now();
        if dies {
            self.world.restart(1);
        }
        until("the ledger has caught up", CAUGHT_UP_MAX, || self.waiting() == 0);
        let took = began.elapsed();
        let all: Vec<&Tenant> = self.tenants.iter().collect();
        // Nobody is refused: 402 and 503 are no answers here.
        let account = self.world.demand_all_right(&all, &[]);
        figures(&format!(
            "Postgres {trouble:?}{}, {}: {} calls so far, refused 0, lost 0, twice 0; {waited} waited, caught up within {} ms",
            if dies { ", a gateway killed meanwhile" } else { "" },
            self.world.stage.told(),
            account.calls,
            took.as_millis()
        ));
    }
}

#[test]
fn while_postgres_is_away_calls_go_on_and_none_is_lost() {
    let mut stand = Stand::new(true);
    let troubles: &[(Trouble, bool)] = if full() {
        &[
            (Stopped, false),
            (BlackHole, false),
            (Cut, false),
            (Killed, false),
            (Cut, true),
            (Stopped, true),
            (Killed, true),
        ]
    } else {
        &[(Stopped, false), (Cut, true), (Killed, false)]
    };
    for (trouble, dies) in troubles {
        stand.suffer(*trouble, *dies);
    }
    stand.world.demand_verified();
}

#[test]
fn gateways_that_book_the_same_tenants_at_once_never_lock_each_other_out() {
    let nodes = if full() { 16 } else { 4 };
    // So many gateways and their clients on a few cores make Redis wait, which is not what this is about.
    let mut stage = Stage::new(true, 500);
    stage.plans.push_str("[counters]\ncall_budget = \"2s\"\n");
    let mut world = World::start(stage, nodes);
    let tenants: Vec<Tenant> = ["acme", "globex", "initech", "umbrella"].map(|name| world.tenant(name, "wide")).into();
    let tenants = Arc::new(tenants);
    let mut chance = Chance::new();
    let calls = if full() { 20_000 } else { 400 };
    let plan = |node: &Gateway| Plan { clients: 4, ..Plan::new(node.proxy, &tenants, &world.numbers) };
    let loads: Vec<Load> = world.nodes.iter().map(|node| Load::start(&plan(node), &mut chance)).collect();
    until("calls", Duration::from_secs(300), || world.provider.count() >= calls);
    for load in loads {
        world.made.extend(load.stop());
    }
    let all: Vec<&Tenant> = tenants.iter().collect();
    // One call in thousands may find Redis too slow all the same, where other tests have the machine as well.
    let account = world.demand_all_right(&all, &[503]);
    assert_eq!(ended(&world.made, End::Whole), account.booked);
    assert!(account.refused * 1_000 <= account.booked, "{} of {} are refused", account.refused, account.booked);
    let deadlocks = world.database.say("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()");
    assert_eq!(deadlocks, "0");
    world.demand_verified();
    figures(&format!(
        "{nodes} gateways book {} calls of the same four tenants: lost 0, twice 0, deadlocks 0",
        account.booked
    ));
}
