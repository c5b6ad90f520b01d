//! A wall clock that jumps: over the end of a month, back an hour, ahead a month and back. No period reopens, none is
//! counted twice, whether or not the process is killed and restarted in between.

use std::sync::atomic::AtomicU64;

use super::support::audit::audit;
use super::support::load::{self, End, Paused, Tenant};
use super::support::machine::{TurnedClock, figures};
use super::support::*;

const CHATS: u64 = 5;
const CONFIG: &str = "[plans.tight]\nchats_per_month = 5\n";

struct World {
    clock: TurnedClock,
    provider: Provider,
    gateway: Gateway,
    tenant: Tenant,
    numbers: AtomicU64,
    /// Whether the process is killed and started again after a turn of the clock, by the turn's number.
    is_killed_at: fn(u32) -> bool,
    turns: u32,
    made: Vec<load::Made>,
    slowest_ms: u128,
}

impl World {
    fn new(clock: TurnedClock, is_killed_at: fn(u32) -> bool) -> Self {
        let provider = Provider::start(load::charging);
        let gateway = by(&clock, Setup::new(&provider)).start();
        let tenant = load::tenants(&gateway, &[("acme", "tight")])[0].clone();
        let (numbers, made) = (AtomicU64::new(0), Vec::new());
        Self { clock, provider, gateway, tenant, numbers, is_killed_at, turns: 0, made, slowest_ms: 0 }
    }

    fn turn_to(&mut self, instant: &str) {
        self.clock.stop_at(instant);
        self.restart();
    }

    fn restart(&mut self) {
        self.turns += 1;
        if (self.is_killed_at)(self.turns) {
            self.gateway.kill();
            let again = Setup::new(&self.provider).on_ledger_of(&self.gateway);
            self.gateway = by(&self.clock, again).start();
            self.slowest_ms = self.slowest_ms.max(self.gateway.started_in.as_millis());
        }
    }

    /// So many calls are served.
    fn call(&mut self, calls: usize) {
        for _ in 0..calls {
            self.made.push(load::call_once(&self.gateway, &self.tenant, &self.numbers));
            assert_eq!(self.made.last().map(|made| made.end), Some(End::Whole));
        }
    }

    /// The month has no chat left.
    fn demand_used_up(&mut self) {
        self.made.push(load::call_once(&self.gateway, &self.tenant, &self.numbers));
        assert_eq!(self.made.last().map(|made| made.end), Some(End::Refused(402)));
    }

    /// Of the month in which the clock stands `used` are used; and every sum is right.
    fn demand_used(&self, month: &str, used: u64) {
        let limits = self.gateway.limits(&self.tenant.key);
        let left = CHATS - used;
        assert_eq!(
            (&limits["used"], &limits["held"], &limits["remaining"]),
            (&used.into(), &0.into(), &left.into()),
            "{month}: {limits}"
        );
        load::caught_up(&self.gateway);
        let booked = audit(&self.gateway, month);
        load::account(&self.made, &self.provider.seen(), &booked, &[402]);
        let in_month = booked.iter().filter(|event| event.month == month).count();
        assert_eq!(in_month as u64, used, "{month}: {booked:?}");
    }
}

fn by(clock: &TurnedClock, setup: Setup) -> Setup {
    clock.variables().iter().fold(setup.prod().config(CONFIG), |setup, (name, value)| setup.set(name, value))
}

/// The clock goes over the end of November, back an hour, on, ahead to January, back to December, to November.
fn jump_about(name: &str, is_killed_at: fn(u32) -> bool) {
    let Some(clock) = TurnedClock::new() else {
        figures("clock jumps: left out, libfaketime is not installed");
        return;
    };
    let mut world = World::new(clock, is_killed_at);
    // Admitted in the last tenth of a second of the month, ended in the next one.
    world.turn_to("2026-11-30 23:59:59.9");
    world.call(1);
    let stream = Paused::open(&world.gateway, &world.provider, &world.tenant, &world.numbers, 1);
    world.clock.stop_at("2026-12-01 00:00:05");
    world.made.extend(stream.finish());
    world.restart();
    world.demand_used("2026-12", 0);
    world.call(1);
    world.demand_used("2026-12", 1);
    world.restart();
    world.demand_used("2026-12", 1);

    // Back an hour: November is as it was, and ends at its limit.
    world.turn_to("2026-11-30 23:00:05");
    world.demand_used("2026-11", 2);
    world.call(3);
    world.demand_used_up();
    world.restart();
    world.demand_used_up();
    world.demand_used("2026-11", 5);

    // December goes on where it was.
    world.turn_to("2026-12-01 00:10:00");
    world.demand_used("2026-12", 1);
    world.call(1);

    // Ahead a month, and back.
    world.turn_to("2027-01-03 00:00:00");
    world.demand_used("2027-01", 0);
    world.call(1);
    world.turn_to("2026-12-02 00:00:00");
    world.demand_used("2026-12", 2);
    world.call(3);
    world.demand_used_up();
    world.turn_to("2026-11-30 23:59:58");
    world.demand_used_up();
    world.turn_to("2027-01-03 00:00:01");
    world.demand_used("2027-01", 1);

    let booked = audit(&world.gateway, "2027-01");
    let days = |day: &str| booked.iter().filter(|event| event.day == day).count();
    assert_eq!(["2026-11-30", "2026-12-01", "2026-12-02", "2027-01-03"].map(days), [5, 2, 3, 1]);
    let account = load::account(&world.made, &world.provider.seen(), &booked, &[402]);
    assert_eq!((account.whole, account.booked, account.interrupted), (11, 11, 0), "{account:?}");
    let restarts =
        if world.slowest_ms > 0 { format!("slowest restart {} ms", world.slowest_ms) } else { "no restart".to_owned() };
    figures(&format!(
        "clock jumps, {name}: {} turns over 3 months, {} calls booked, {restarts}, periods reopened 0, negative 0",
        world.turns,
        booked.len()
    ));
}

#[test]
fn a_clock_that_jumps_reopens_no_period() {
    jump_about("never killed", |_| false);
}

#[test]
fn a_clock_that_jumps_reopens_no_period_though_the_process_is_killed_at_each_turn() {
    jump_about("killed at each turn", |_| true);
}

#[test]
fn a_period_that_was_not_in_sight_at_the_start_is_not_reopened_when_the_clock_gets_there() {
    jump_about("killed at even turns", |turn| turn % 2 == 0);
    jump_about("killed at odd turns", |turn| turn % 2 == 1);
}
