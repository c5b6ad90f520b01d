//! Redis is away in every way that it can be: calls are refused in time, or go on from leases as the plan says, the state
//! is seen, and all of it ends by itself.

use std::time::{Duration, Instant};

use super::{Counters, Stage, World, ended, metric};
use crate::support::load::{End, Tenant};
use crate::support::machine::{figures, full, until};
use crate::support::postgres::Database;
use crate::support::redis::{Data, RedisServer};
use crate::support::*;
use fault_proxy::{Fault, FaultProxy};

const NODES: usize = 2;
/// The longest that any call waits, the first ones too.
const ANSWERED_MAX: Duration = Duration::from_secs(3);
/// The longest once it is known that Redis is away.
const REFUSED_MAX: Duration = Duration::from_secs(1);
/// From the fault to the first word of it in `/readyz`.
const NOTICED_MAX: Duration = Duration::from_secs(5);
/// From the end of the fault to the first admitted call.
const RECOVERED_MAX: Duration = Duration::from_secs(5);
/// Units of a lease at most.
const LEASE_MAX: usize = 64;
/// Calls at once, over both gateways.
const CALLS: usize = 24;
const LIMIT: usize = 1_500;

/// What happens to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// `kill -STOP`.
    Stopped,
    /// Nothing comes through, on old connections and new ones.
    BlackHole,
    /// What is asked gets there; no answer comes back.
    DeafHole,
    /// Connections are closed.
    Cut,
    /// 200 ms to and fro.
    Slow,
    /// It is a replica, of a master that is not there.
    ReadOnly,
    /// `maxmemory` is reached.
    OutOfMemory,
    /// `kill -9`, and empty when it comes back.
    Killed,
}

use Trouble::*;

struct Stand {
    world: World,
    proxy: FaultProxy,
    /// Its plan says `refuse`.
    careful: Tenant,
    /// Its plan says `lease`.
    lenient: Tenant,
}

impl Stand {
    fn new(leases: bool) -> Self {
        let redis = RedisServer::start();
        let proxy = FaultProxy::start(redis.address());
        let plans = format!(
            "[plans.careful]\nchats_per_month = {LIMIT}\non_counters_down = \"refuse\"\n\
             [plans.lenient]\nchats_per_month = {LIMIT}\non_counters_down = \"lease\"\n"
        );
        let redis_url = Some(format!("redis://{}", proxy.address));
        let stage = Stage { plans, leases, redis_url, database_url: None };
        let world = World::over(stage, Counters::One(redis), Database::new(), NODES);
        let (careful, lenient) = (world.tenant("careful", "careful"), world.tenant("lenient", "lenient"));
        Self { world, proxy, careful, lenient }
    }

    fn begin(&mut self, trouble: Trouble) {
        match trouble {
            Stopped => self.world.redis().stop(),
            BlackHole => self.proxy.set(Fault::Hang),
            DeafHole => self.proxy.set(Fault::HangAnswers),
            Cut => self.proxy.set(Fault::Cut),
            Slow => self.proxy.set(Fault::Delay(Duration::from_millis(100), Duration::from_millis(100))),
            ReadOnly => self.world.redis().done(&["REPLICAOF", "127.0.0.1", "1"]),
            OutOfMemory => self.world.redis().config("maxmemory", "1"),
            Killed => self.world.redis().kill(),
        }
    }

    fn end(&mut self, trouble: Trouble) {
        match trouble {
            Stopped => self.world.redis().cont(),
            BlackHole | DeafHole | Cut | Slow => self.proxy.set(Fault::None),
            ReadOnly => self.world.redis().done(&["REPLICAOF", "NO", "ONE"]),
            OutOfMemory => self.world.redis().config("maxmemory", "0"),
            Killed => self.world.redis().restart(Data::Lost),
        }
    }

    /// Calls at once; demands that each has its answer in time, and that it is one of these.
    fn demand(&mut self, tenant: &Tenant, within: Duration, allowed: &[End], during: &str) -> (Vec<End>, Duration) {
        let answers = self.world.wave(tenant, CALLS, &self.world.proxies()).join();
        let ends: Vec<End> = answers.made.iter().map(|made| made.end).collect();
        self.world.made.extend(answers.made);
        let name = &tenant.name;
        assert!(ends.iter().all(|end| allowed.contains(end)), "{during}: {name}: {ends:?}");
        assert!(answers.slowest < within, "{during}: {name}: an answer took {:?}", answers.slowest);
        (ends, answers.slowest)
    }

    /// Every gateway says that its counters are away, and serves all the same.
    fn demand_told(&self, trouble: Trouble) -> Duration {
        let began = Instant::now();
        for node in &self.world.nodes {
            until(&format!("{trouble:?} is told"), NOTICED_MAX, || {
                let answer = Request::get("/readyz").send(node.admin);
                assert_eq!(answer.status, 200, "{trouble:?}: {}", answer.text());
                let said = answer.json();
                let is_down = said["checks"]["counters"] == "down";
                assert!(!is_down || said["status"] == "degraded", "{trouble:?}: {said}");
                is_down
            });
        }
        began.elapsed()
    }

    /// Calls of the lenient tenant until it is refused: no more than what gateways had leased.
    fn spend_leases(&mut self, trouble: Trouble) -> usize {
        let mut spent = 0;
        for _ in 0..=2 * NODES * LEASE_MAX / CALLS {
            let allowed = [End::Whole, End::Refused(503)];
            let (ends, _) = self.demand(&self.lenient.clone(), REFUSED_MAX, &allowed, &format!("{trouble:?}"));
            let served = ends.iter().filter(|end| **end == End::Whole).count();
            spent += served;
            if served == 0 {
                break;
            }
        }
        assert!(spent <= NODES * LEASE_MAX, "{trouble:?}: {spent} calls without Redis");
        spent
    }

    fn suffer(&mut self, trouble: Trouble) {
        let during = format!("{trouble:?}");
        let (careful, lenient) = (self.careful.clone(), self.lenient.clone());
        for tenant in [&careful, &lenient] {
            self.demand(tenant, ANSWERED_MAX, &[End::Whole], &format!("before {during}"));
        }
        self.begin(trouble);
        let either = [End::Whole, End::Refused(503)];
        let (_, slowest_first) = self.demand(&careful, ANSWERED_MAX, &either, &during);
        let (first, slowest_lenient) = self.demand(&lenient, ANSWERED_MAX, &either, &during);
        let mut spent = first.iter().filter(|end| **end == End::Whole).count();
        // A Redis that is slow is away by turns: a sign of life gets through, and leases are as good as ever; a call that has
        // to ask does not get through.
        let told = (trouble != Slow).then(|| self.demand_told(trouble));
        let allowed = if trouble == Slow { &either[..] } else { &either[1..] };
        let (_, slowest) = self.demand(&careful, REFUSED_MAX, allowed, &during);
        if told.is_some() {
            for node in &self.world.nodes {
                assert_eq!(metric(node, "tollgate_counters_down"), "1", "{during}");
            }
        }
        spent += self.spend_leases(trouble);
        // What does not need counters is served.
        for node in &self.world.nodes {
            node.usage(&careful.key);
        }
        self.end(trouble);
        let recovered = self.recover(&[&careful, &lenient], &during);
        let told = told.map_or("by turns".to_owned(), |told| format!("{} ms", told.as_millis()));
        figures(&format!(
            "Redis {during}, {}: first answers within {} ms, then 503 within {} ms, {spent} calls of the lease plan from leases, \
             told after {told}, admitting {} ms after it ended",
            self.world.stage.told(),
            slowest_first.max(slowest_lenient).as_millis(),
            slowest.as_millis(),
            recovered.as_millis()
        ));
    }

    /// Every gateway admits again, by itself.
    fn recover(&mut self, tenants: &[&Tenant], during: &str) -> Duration {
        let began = Instant::now();
        for at in 0..NODES {
            for tenant in tenants {
                loop {
                    let made = self.world.calls_to(tenant, 1, &[self.world.nodes[at].proxy]);
                    if ended(&made, End::Whole) == 1 {
                        break;
                    }
                    assert_eq!(ended(&made, End::Refused(503)), 1, "after {during}: {made:?}");
                    assert!(began.elapsed() < RECOVERED_MAX, "after {during}: gateway {at} does not admit");
                }
            }
        }
        let took = began.elapsed();
        for node in &self.world.nodes {
            until(&format!("ready after {during}"), RECOVERED_MAX, || node.ready()["status"] == "ready");
            assert_eq!(metric(node, "tollgate_counters_down"), "0", "after {during}");
        }
        took
    }
}

fn suffer_all(leases: bool, troubles: &[Trouble]) {
    let mut stand = Stand::new(leases);
    for trouble in troubles {
        stand.suffer(*trouble);
    }
    let (careful, lenient) = (stand.careful.clone(), stand.lenient.clone());
    stand.world.demand_all_right(&[&careful, &lenient], &[503]);
    stand.world.use_up(&careful, LIMIT);
    stand.world.use_up(&lenient, LIMIT);
    stand.world.demand_all_right(&[&careful, &lenient], &[402, 503]);
    stand.world.demand_verified();
}

const ALL: [Trouble; 8] = [Stopped, BlackHole, DeafHole, Cut, Slow, ReadOnly, OutOfMemory, Killed];

#[test]
fn while_redis_is_away_calls_are_refused_in_time_or_go_on_from_leases_and_it_ends_by_itself() {
    suffer_all(true, if full() { &ALL } else { &[Stopped, BlackHole, Slow, ReadOnly, Killed] });
}

#[test]
fn while_redis_is_away_and_there_are_no_leases_calls_are_refused_in_time() {
    suffer_all(false, if full() { &ALL } else { &[DeafHole, Cut, OutOfMemory] });
}
