//! The limit is a limit, whatever number of gateways share it, also while one of them or Redis is killed.

use std::time::{Duration, Instant};

use super::{Counters, Stage, World, ended};
use crate::support::load::End;
use crate::support::machine::{Chance, figures, full, until};
use crate::support::postgres::Database;
use crate::support::redis::{Data, RedisCluster, RedisServer};

const NODES: usize = 3;
/// Calls beyond the limit.
const BEYOND: usize = 60;
/// Every client has its answer within this: the longest wait for what a dead gateway had, and a loaded machine.
const ANSWERED_MAX: Duration = Duration::from_secs(15);

/// The limit where gateways die: smaller each time than in the long form.
fn limit() -> usize {
    if full() { 500 } else { 150 }
}

/// N + 60 calls at once at limit N: the provider answers none before every one is decided.
fn at_once(stage: Stage, counters: Counters, is: &str) {
    let limit = 500;
    let mut world = World::over(stage, counters, Database::new(), NODES);
    let acme = world.tenant("acme", "tight");
    let gate = world.hold_answers();
    let began = Instant::now();
    let wave = world.wave(&acme, limit + BEYOND, &world.proxies());
    world.decided(&wave);
    let decided = began.elapsed();
    gate.pass();
    let made = wave.join().made;
    let found = (world.provider.count(), ended(&made, End::Whole), ended(&made, End::Refused(402)));
    let unavailable = ended(&made, End::Refused(503));
    assert_eq!(found, (limit, limit, BEYOND), "with the provider, answered, 402; and {unavailable} x 503");
    world.made.extend(made);
    let account = world.demand_all_right(&[&acme], &[402]);
    assert_eq!((account.booked, account.interrupted), (limit, 0), "{account:?}");
    world.demand_verified();
    figures(&format!(
        "{NODES} gateways, {is}, {}: {limit} + {BEYOND} calls at once, limit {limit}: {limit} with the provider, {BEYOND} x 402, \
         ledger {limit}; all decided within {} ms",
        world.stage.told(),
        decided.as_millis()
    ));
}

#[test]
fn of_560_calls_at_once_over_three_gateways_exactly_500_reach_the_provider() {
    at_once(Stage::new(false, 500), Counters::One(RedisServer::start()), "one Redis");
}

#[test]
fn of_560_calls_at_once_over_three_gateways_with_leases_exactly_500_reach_the_provider() {
    at_once(Stage::new(true, 500), Counters::One(RedisServer::start()), "one Redis");
}

#[test]
fn of_560_calls_at_once_over_three_gateways_on_a_cluster_exactly_500_reach_the_provider() {
    at_once(Stage::new(false, 500), Counters::Cluster(RedisCluster::start()), "a cluster");
    at_once(Stage::new(true, 500), Counters::Cluster(RedisCluster::start()), "a cluster");
}

/// One gateway is killed when some of its calls are with the provider, and started again at once.
fn with_a_gateway_killed(leases: bool) {
    let limit = limit();
    let mut chance = Chance::new();
    let mut world = World::start(Stage::new(leases, limit), NODES);
    let acme = world.tenant("acme", "tight");
    let gate = world.hold_answers();
    let wave = world.wave(&acme, limit + BEYOND, &world.proxies());
    let at = 1 + chance.below(limit as u64 / 2);
    until("calls are with the provider", ANSWERED_MAX, || world.provider.count() as u64 >= at);
    world.nodes[1].kill();
    world.restart(1);
    world.decided(&wave);
    gate.pass();
    let ended_so = wave.join();
    let seen = world.provider.count();
    assert!(seen <= limit, "{seen} calls with the provider");
    assert!(ended_so.slowest < ANSWERED_MAX, "{:?}", ended_so.slowest);
    let broken = ended(&ended_so.made, End::Broken);
    world.made.extend(ended_so.made);
    world.demand_all_right(&[&acme], &[402]);
    world.use_up(&acme, limit);
    let account = world.demand_all_right(&[&acme], &[402]);
    world.demand_verified();
    figures(&format!(
        "{NODES} gateways, {}, one killed after {at} calls and started again: seed {}, {seen} of {limit} with the provider, \
         {broken} cut, {} booked as interrupted, lost 0, then used up exactly; slowest answer {} ms",
        world.stage.told(),
        chance.seed,
        account.interrupted,
        ended_so.slowest.as_millis()
    ));
}

#[test]
fn a_gateway_that_is_killed_loses_no_call_and_lets_none_pass_the_limit() {
    with_a_gateway_killed(false);
}

#[test]
fn a_gateway_that_is_killed_with_leases_loses_no_call_and_lets_none_pass_the_limit() {
    with_a_gateway_killed(true);
}

/// Redis is killed and started again while calls are in flight; then the rest of the limit is asked for, all at once and
/// while the calls from before are still in flight.
fn with_redis_killed(leases: bool, data: Data) {
    let limit = limit();
    let mut chance = Chance::new();
    let mut world = World::start(Stage::new(leases, limit), NODES);
    let acme = world.tenant("acme", "tight");
    if data == Data::Kept {
        // What is saved is older than what was counted.
        world.calls(&acme, 10);
        world.settled();
        world.redis().done(&["SAVE"]);
        world.calls(&acme, 20);
    }
    let gate = world.hold_answers();
    let before = world.provider.count() as u64;
    let first = world.wave(&acme, limit / 2, &world.proxies());
    let at = before + 1 + chance.below(limit as u64 / 3);
    until("calls are with the provider", ANSWERED_MAX, || world.provider.count() as u64 >= at);
    world.redis().restart(data);
    world.decided(&first);
    let in_flight = world.provider.count();
    let (began, second) = (Instant::now(), world.wave(&acme, limit + BEYOND, &world.proxies()));
    world.decided(&second);
    let decided = began.elapsed();
    gate.pass();
    let seen = world.provider.count();
    let (first, second) = (first.join(), second.join());
    let unavailable = ended(&first.made, End::Refused(503)) + ended(&second.made, End::Refused(503));
    world.made.extend(first.made.into_iter().chain(second.made));
    assert!(seen <= limit, "{seen} calls with the provider");
    world.demand_all_right(&[&acme], &[402, 503]);
    world.use_up(&acme, limit);
    world.demand_all_right(&[&acme], &[402, 503]);
    world.demand_verified();
    let how = if data == Data::Lost { "empty" } else { "with an older copy" };
    figures(&format!(
        "{NODES} gateways, {}, Redis killed and back {how} with {in_flight} calls in flight: seed {}, {seen} of {limit} with the \
         provider, {unavailable} x 503, lost 0, then used up exactly; {} more calls decided within {} ms",
        world.stage.told(),
        chance.seed,
        limit + BEYOND,
        decided.as_millis()
    ));
}

#[test]
fn redis_that_is_killed_and_comes_back_empty_lets_no_call_pass_the_limit() {
    with_redis_killed(false, Data::Lost);
}

#[test]
fn redis_that_is_killed_and_comes_back_empty_with_leases_lets_no_call_pass_the_limit() {
    with_redis_killed(true, Data::Lost);
}

#[test]
fn redis_that_is_killed_and_comes_back_with_an_older_copy_lets_no_call_pass_the_limit() {
    with_redis_killed(false, Data::Kept);
}

#[test]
fn redis_that_is_killed_and_comes_back_with_an_older_copy_with_leases_lets_no_call_pass_the_limit() {
    with_redis_killed(true, Data::Kept);
}
