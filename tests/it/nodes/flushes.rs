//! Counters that are gone are built anew from the ledger: after FLUSHALL under load, and by ten gateways at once.

use std::thread;
use std::time::{Duration, Instant};

use super::{Stage, World, ended, one_call};
use crate::support::load::{self, End, Load, Made, Plan};
use crate::support::machine::{Chance, figures, full};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const NODES: usize = 3;
/// From FLUSHALL to the first admitted call.
const REBUILT_MAX: Duration = Duration::from_secs(5);
/// Chats of the tenant whose limit is met under the flushes.
const TIGHT: usize = 400;

fn flushed(leases: bool) {
    let (flushes, pause) = if full() { (40, 400) } else { (5, 250) };
    let mut chance = Chance::new();
    let mut world = World::start(Stage::new(leases, TIGHT), NODES);
    let tenants = Arc::new(vec![world.tenant("acme", "wide"), world.tenant("globex", "tight")]);
    let loads: Vec<Load> = world
        .nodes
        .iter()
        .map(|node| {
            let plan = Plan { clients: 4, leaves_one_in: 25, ..Plan::new(node.proxy, &tenants, &world.numbers) };
            Load::start(&plan, &mut chance)
        })
        .collect();
    load::demand_asked(&world.provider, 30);
    let mut slowest = Duration::ZERO;
    for flush in 0..flushes {
        thread::sleep(Duration::from_millis(pause + chance.below(pause)));
        world.redis().flush();
        let (began, to) = (Instant::now(), world.nodes[flush % NODES].proxy);
        loop {
            let number = world.numbers.fetch_add(1, Ordering::SeqCst);
            let end = one_call(to, &load::call(number, &tenants[0].key));
            world.made.push(Made { number, tenant: tenants[0].name.clone(), end });
            if end == End::Whole {
                break;
            }
            assert!(began.elapsed() < REBUILT_MAX, "flush {flush}: no call admitted within {REBUILT_MAX:?}: {end:?}");
        }
        slowest = slowest.max(began.elapsed());
    }
    for load in loads {
        world.made.extend(load.stop());
    }
    let all: Vec<_> = tenants.iter().collect();
    let account = world.demand_all_right(&all, &[402, 503]);
    let unavailable = ended(&world.made, End::Refused(503));
    world.use_up(&tenants[1], TIGHT);
    world.demand_all_right(&all, &[402, 503]);
    world.demand_verified();
    let deadlocks = world.database.say("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()");
    assert_eq!(deadlocks, "0");
    figures(&format!(
        "{NODES} gateways, {}, {flushes} x FLUSHALL under load: seed {}, {} calls, {} booked, lost 0, twice 0, overshoot 0, \
         {unavailable} x 503, rebuilt and admitting within {} ms",
        world.stage.told(),
        chance.seed,
        account.calls,
        account.booked,
        slowest.as_millis()
    ));
    assert!(slowest < REBUILT_MAX, "{slowest:?}");
}

#[test]
fn counters_that_are_flushed_under_load_are_built_anew_and_no_limit_is_passed() {
    flushed(false);
}

#[test]
fn counters_that_are_flushed_under_load_with_leases_are_built_anew_and_no_limit_is_passed() {
    flushed(true);
}

/// A ledger with 300 of 500 chats used, and an empty Redis: ten gateways start at once and are asked for 300 more.
fn ten_start(leases: bool) {
    let mut world = World::start(Stage::new(leases, 500), 1);
    let acme = world.tenant("acme", "tight");
    let made = world.calls(&acme, 300);
    assert_eq!(ended(&made, End::Whole), 300);
    world.settled();
    world.nodes[0].stop();
    world.nodes.clear();
    world.redis().flush();
    let began = Instant::now();
    world.add(10);
    let started = began.elapsed();
    let began = Instant::now();
    let made = world.calls(&acme, 300);
    let took = began.elapsed();
    assert_eq!((ended(&made, End::Whole), ended(&made, End::Refused(402))), (200, 100));
    let account = world.demand_all_right(&[&acme], &[402]);
    assert_eq!(account.booked, 500);
    world.demand_verified();
    figures(&format!(
        "10 gateways at once on an empty Redis, 300 of 500 used, {}: of 300 calls at once 200 admitted, 100 x 402; started in \
         {} ms, calls in {} ms",
        world.stage.told(),
        started.as_millis(),
        took.as_millis()
    ));
}

#[test]
fn ten_gateways_that_start_at_once_on_an_empty_redis_admit_exactly_what_is_left() {
    ten_start(true);
    if full() {
        ten_start(false);
    }
}
