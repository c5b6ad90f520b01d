//! Gateways that come and go: what one that leaves had leased is the others', and Redis may come later than a gateway.

use std::time::{Duration, Instant};

use super::{Counters, Stage, World, ended};
use crate::support::load::End;
use crate::support::machine::{figures, until};
use crate::support::postgres::Database;
use crate::support::redis::RedisServer;
use crate::support::*;
use fault_proxy::{Fault, FaultProxy};

/// A lease lasts that long without a word of its gateway: what is had in less was given back.
const LEASE: Duration = Duration::from_secs(3);

#[test]
fn a_gateway_that_leaves_gives_back_what_it_had_leased() {
    const LIMIT: usize = 100;
    let mut world = World::start(Stage::new(true, LIMIT), 2);
    let acme = world.tenant("acme", "tight");
    let mut slowest = Duration::ZERO;
    // Calls until one brings a lease home: the first meets a tenant that has to be built, and after a question without one
    // the next is asked for a tenth of a second later.
    let leaver = world.nodes[1].proxy;
    let (mut used, mut leased) = (0, 0);
    while leased == 0 {
        assert!(used < LIMIT / 2, "nothing is leased: {}", world.nodes[1].ready());
        let made = world.calls_to(&acme, 1, &[leaver]);
        assert_eq!(ended(&made, End::Whole), 1);
        used += 1;
        leased = world.nodes[1].ready()["counters"]["leased"].as_u64().unwrap();
    }
    world.nodes[1].stop();
    let began = Instant::now();
    let left = world.nodes[0].proxy;
    let made = world.calls_to(&acme, LIMIT, &[left]);
    slowest = slowest.max(began.elapsed());
    assert_eq!((ended(&made, End::Whole), ended(&made, End::Refused(402))), (LIMIT - used, used));
    assert!(slowest < LEASE, "the rest was had after {slowest:?}: as the lease was over, not as it was given back");
    world.nodes.truncate(1);
    world.demand_all_right(&[&acme], &[402]);
    world.demand_verified();
    figures(&format!(
        "a gateway that ends in order with {leased} calls leased: the other has all of the rest, {} calls at once in {} ms",
        LIMIT - used,
        slowest.as_millis()
    ));
}

#[test]
fn gateways_start_without_redis_refuse_calls_and_work_when_it_comes() {
    for fault in [Fault::Cut, Fault::Hang] {
        let redis = RedisServer::start();
        let proxy = FaultProxy::start(redis.address());
        proxy.set(fault);
        let stage = Stage { redis_url: Some(format!("redis://{}", proxy.address)), ..Stage::new(true, 50) };
        let mut world = World::over(stage, Counters::One(redis), Database::new(), 3);
        let slowest_start = world.nodes.iter().map(|node| node.started_in).max().unwrap();
        let acme = world.tenant("acme", "tight");
        let answers = world.wave(&acme, 9, &world.proxies()).join();
        assert_eq!(ended(&answers.made, End::Refused(503)), 9, "{fault:?}: {:?}", answers.made);
        assert!(answers.slowest < Duration::from_secs(3), "{fault:?}: {:?}", answers.slowest);
        world.made.extend(answers.made);
        for node in &world.nodes {
            assert_eq!(node.usage(&acme.key).requests, 0);
            assert!(node.events(&acme.key).is_empty());
            until("it is told", Duration::from_secs(5), || node.ready()["checks"]["counters"] == "down");
            assert_eq!(node.ready()["status"], "degraded");
        }
        proxy.set(Fault::None);
        let came = Instant::now();
        until("Redis is used", Duration::from_secs(10), || {
            let made = world.calls(&acme, 3);
            ended(&made, End::Whole) == 3
        });
        let took = came.elapsed();
        world.use_up(&acme, 50);
        world.demand_all_right(&[&acme], &[402, 503]);
        world.demand_verified();
        for node in &mut world.nodes {
            node.stop();
        }
        figures(&format!(
            "3 gateways start without Redis ({fault:?}) in {} ms, refuse with 503, and admit {} ms after it comes",
            slowest_start.as_millis(),
            took.as_millis()
        ));
    }
}

#[test]
fn gateways_that_end_without_redis_end_in_order() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.address());
    let stage = Stage { redis_url: Some(format!("redis://{}", proxy.address)), ..Stage::new(true, 50) };
    let mut world = World::over(stage, Counters::One(redis), Database::new(), 2);
    let acme = world.tenant("acme", "tight");
    world.calls(&acme, 10);
    proxy.set(Fault::Hang);
    let began = Instant::now();
    for node in &mut world.nodes {
        node.stop();
    }
    let took = began.elapsed();
    assert_eq!(super::ledger::count(&world.database.url), 10);
    figures(&format!("2 gateways end in order, one after the other, with Redis black-holed: {} ms", took.as_millis()));
}
