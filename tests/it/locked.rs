//! The ledger is away (locked by another process, or its files read-only): no call is refused, nothing is lost, the lag is
//! seen, and it is made good many times faster than calls come.
//!
//! 6,000 calls wait in an ordinary run, 20,000 with `TOLLGATE_TEST_FULL=1` (`tests/run --full`).

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use super::crash::this_month;
use super::support::audit::{Ledger, audit, files_of};
use super::support::load::{self, Load, Made, Plan, Tenant};
use super::support::machine::{Chance, Frozen, figures, full, until};
use super::support::*;

/// Calls a second while the ledger catches up.
const LIVE_RATE: u64 = 100;
/// How many times faster than that it has to be.
const CATCH_UP_TIMES: u128 = 10;
/// From the end of the fault to the first booked event: the longest pause between two tries (5 s), with room.
const NOTICED_MAX: Duration = Duration::from_secs(15);
const CAUGHT_UP_MAX: Duration = Duration::from_secs(120);

struct World {
    provider: Provider,
    gateway: Gateway,
    tenants: Arc<Vec<Tenant>>,
    numbers: Arc<AtomicU64>,
    chance: Chance,
    made: Vec<Made>,
}

impl World {
    fn new() -> Self {
        let provider = Provider::start(load::charging);
        let gateway = Setup::new(&provider).prod().start();
        let tenants = load::tenants(&gateway, &[("acme", "pro"), ("globex", "pro")]);
        let (numbers, made) = (Arc::default(), Vec::new());
        let mut world = Self { provider, gateway, tenants, numbers, chance: Chance::new(), made };
        world.call(100);
        load::caught_up(&world.gateway);
        world
    }

    fn plan(&self) -> Plan {
        Plan::new(self.gateway.proxy, &self.tenants, &self.numbers)
    }

    /// So many calls, as fast as they go.
    fn call(&mut self, calls: usize) {
        let before = self.provider.count();
        let load = Load::start(&self.plan(), &mut self.chance);
        load::demand_asked(&self.provider, before + calls);
        self.made.extend(load.stop());
    }

    fn waiting(&self) -> u64 {
        self.gateway.ready()["recorder"]["events_waiting"].as_u64().expect("a number")
    }

    /// Calls while the ledger is away: they are served, and the lag is seen to grow.
    fn call_without_ledger(&mut self, calls: usize) {
        self.call(calls / 2);
        until("degraded", NOTICED_MAX, || self.gateway.ready()["status"] == "degraded");
        let waiting = self.waiting();
        assert!(waiting > 0);
        self.call(calls - calls / 2);
        let more = self.waiting();
        assert!(more > waiting, "{waiting} events waited, then {more}");
    }

    /// Everything is booked exactly, and nothing was refused.
    fn demand_all_right(&self) -> load::Account {
        load::caught_up(&self.gateway);
        until("ready", NOTICED_MAX, || self.gateway.ready()["status"] == "ready");
        let booked = audit(&self.gateway, &this_month());
        let account = load::account(&self.made, &self.provider.seen(), &booked, &[]);
        assert_eq!((account.whole, account.booked), (account.calls, account.calls), "{account:?}");
        account
    }
}

#[test]
fn while_the_ledger_is_locked_calls_go_on_and_it_catches_up_ten_times_as_fast_as_they_come() {
    let mut world = World::new();
    let mut ledger = Ledger::open(&world.gateway.ledger_file());
    let lock = Ledger::locked(&world.gateway.ledger_file());
    world.call_without_ledger(if full() { 20_000 } else { 6_000 });
    let every = Duration::from_millis(8_000 / LIVE_RATE);
    let live = Load::start(&Plan { clients: 8, every, ..world.plan() }, &mut world.chance);
    let behind = ledger.count();
    let target = behind + world.waiting();
    drop(lock);
    let noticed = until("an event is booked", NOTICED_MAX, || ledger.count() > behind);
    let (began, first) = (Instant::now(), ledger.count());
    until("the ledger has caught up", CAUGHT_UP_MAX, || ledger.count() >= target);
    let (booked, took) = (ledger.count() - first, began.elapsed());
    world.made.extend(live.stop());
    let account = world.demand_all_right();
    let rate = u128::from(booked) * 1_000_000 / took.as_micros().max(1);
    figures(&format!(
        "ledger locked: {} calls, refused 0, lost 0, twice 0; {} waited, noticed after {} ms, caught up at {rate} events/s beside {LIVE_RATE} calls/s",
        account.calls,
        target - behind,
        noticed.as_millis()
    ));
    assert!(rate >= CATCH_UP_TIMES * u128::from(LIVE_RATE), "{rate} events a second");
}

#[test]
fn while_the_files_of_the_ledger_are_read_only_calls_go_on_and_are_booked_later() {
    let mut world = World::new();
    let Some(frozen) = Frozen::freeze(&files_of(&world.gateway.ledger_file())) else {
        figures("ledger read-only: left out, this user or file system knows no chattr +i");
        return;
    };
    world.call_without_ledger(if full() { 5_000 } else { 500 });
    drop(frozen);
    let account = world.demand_all_right();
    figures(&format!("ledger read-only: {} calls, refused 0, lost 0, twice 0", account.calls));
}

#[test]
fn killed_while_the_ledger_is_locked_it_finds_everything_in_the_journal() {
    let mut world = World::new();
    let lock = Ledger::locked(&world.gateway.ledger_file());
    world.call(if full() { 20_000 } else { 1_000 });
    world.gateway.kill();
    drop(lock);
    world.gateway = Setup::new(&world.provider).prod().on_ledger_of(&world.gateway).start();
    let account = world.demand_all_right();
    let started_in = world.gateway.started_in;
    figures(&format!(
        "kill -9 with the ledger locked: {} calls, lost 0, twice 0, restart {} ms",
        account.calls,
        started_in.as_millis()
    ));
    assert!(started_in < Duration::from_secs(5), "a restart took {started_in:?}");
}
