//! What every [`RateStore`] promises.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate::adapters::memory_rates::MemoryRates;
use tollgate::adapters::redis_counters::RedisCounters;
use tollgate::adapters::system_clock::SystemClock;
use tollgate::domain::plan::{Scope, Subject};
use tollgate::domain::rate::{MINUTE_US, RateMetric};
use tollgate::ports::rates::{RateClaim, RateOutcome, RateStanding, RateStore};
use tollgate::ports::shared::SharedCounters;

use super::super::support::redis::{RedisCluster, RedisServer, Reply};
use super::{Keep, event_id, tenant};

const LEDGER: &str = "aaaaaaaabbbbbbbb";
const WITHIN: Duration = Duration::from_secs(10);
const BOUND: Duration = Duration::from_secs(20);
/// How long a place lasts here; a gateway's last thirty seconds.
const LASTS: Duration = Duration::from_millis(900);

/// Two gateways' views of one store, which are the same one in a process.
struct Rates {
    name: &'static str,
    here: Arc<dyn RateStore>,
    there: Arc<dyn RateStore>,
    _keep: Vec<Keep>,
}

async fn redis(name: &'static str, url: String, server: Keep) -> Rates {
    let mut views: Vec<Arc<dyn RateStore>> = Vec::new();
    let mut keep = vec![server];
    for _ in 0..2 {
        let (clock, runtime) = (Arc::new(SystemClock::new()), tokio::runtime::Handle::current());
        let counters = RedisCounters::start(url.parse().unwrap(), clock, &runtime);
        counters.claim(LEDGER).await.unwrap();
        views.push(Arc::new(counters.rates_lasting(LASTS, WITHIN, &runtime)));
        keep.push(Box::new(counters));
    }
    let [here, there] = views.try_into().unwrap_or_else(|_| panic!("two views"));
    Rates { name, here, there, _keep: keep }
}

async fn shared() -> Vec<Rates> {
    let (server, cluster) =
        tokio::task::spawn_blocking(|| (RedisServer::start(), RedisCluster::start())).await.unwrap();
    vec![redis("redis", server.url(), Box::new(server)).await, redis("cluster", cluster.url(), Box::new(cluster)).await]
}

async fn adapters() -> Vec<Rates> {
    let own: Arc<dyn RateStore> = Arc::new(MemoryRates::new(Arc::new(SystemClock::new())));
    let memory = Rates { name: "memory", here: own.clone(), there: own, _keep: Vec::new() };
    std::iter::once(memory).chain(shared().await).collect()
}

fn claim(metric: RateMetric, amount: u64, max: u64) -> RateClaim {
    RateClaim { subject: Subject::Tenant, metric, amount, max }
}

async fn takes(store: &Arc<dyn RateStore>, call: u64, claims: &[RateClaim]) -> bool {
    matches!(store.take(event_id(call), &tenant("acme"), claims).await.unwrap(), RateOutcome::Taken(_))
}

/// Ends may be told later.
async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < BOUND, "not within {BOUND:?}: {what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn all_claims_are_taken_or_none() {
    for Rates { name, here, there, _keep } in adapters().await {
        let claims = [claim(RateMetric::Requests, 1, 10), claim(RateMetric::Concurrent, 1, 2)];
        assert!(takes(&here, 1, &claims).await, "{name}");
        let taken = there.take(event_id(2), &tenant("acme"), &claims).await.unwrap();
        let RateOutcome::Taken(stand) = taken else { panic!("{name}: {taken:?}") };
        assert_eq!((stand[0].taken, stand[1]), (2, RateStanding { taken: 2, full_in_us: 0 }), "{name}");
        // A tenth of a minute for each, but for what filled meanwhile.
        assert!((MINUTE_US / 10 + 1..=2 * MINUTE_US / 10).contains(&stand[0].full_in_us), "{name}: {stand:?}");
        let before = here.read(&tenant("acme"), &claims).await.unwrap();
        for call in 3..20 {
            let outcome = there.take(event_id(call), &tenant("acme"), &claims).await.unwrap();
            assert_eq!(outcome, RateOutcome::Refused { claim: 1, wait_us: 0 }, "{name}");
        }
        let after = here.read(&tenant("acme"), &claims).await.unwrap();
        assert_eq!((before[0].taken, before[1].taken), (2, 2), "{name}");
        assert!(after[0].taken <= before[0].taken && after[1].taken == 2, "{name}: {after:?}");
        // Another user and another tenant have rates of their own.
        let subject = Subject::of(Scope::User, "alice").unwrap();
        assert!(takes(&here, 20, &[RateClaim { subject, ..claims[1].clone() }]).await, "{name}");
        here.end(event_id(1), &tenant("acme"), &claims, &[1, 0]);
        eventually(name, async || takes(&there, 21, &claims).await).await;
    }
}

#[tokio::test]
async fn of_many_at_once_no_more_go_through_than_fit() {
    for Rates { name, here, there, _keep } in adapters().await {
        let claims = [claim(RateMetric::Concurrent, 1, 5), claim(RateMetric::Tokens, 10, 1_000_000)];
        let all = (0..200).map(|call| takes(if call % 2 == 0 { &here } else { &there }, call, &claims));
        let through = futures_util::future::join_all(all).await.into_iter().filter(|taken| *taken).count();
        assert_eq!(through, 5, "{name}");
    }
}

#[tokio::test]
async fn a_bucket_says_how_long_and_takes_back_what_was_too_much() {
    for Rates { name, here, there, _keep } in adapters().await {
        let claims = [claim(RateMetric::Tokens, 600, 1_000)];
        assert!(takes(&here, 1, &claims).await, "{name}");
        let outcome = there.take(event_id(2), &tenant("acme"), &claims).await.unwrap();
        let RateOutcome::Refused { claim: 0, wait_us } = outcome else { panic!("{name}: {outcome:?}") };
        // A fifth of a minute, but for what filled meanwhile.
        assert!((1..=MINUTE_US / 5).contains(&wait_us), "{name}: {wait_us}");
        here.end(event_id(1), &tenant("acme"), &claims, &[100]);
        eventually(name, async || takes(&there, 3, &claims).await).await;
        there.end(event_id(3), &tenant("acme"), &claims, &[1_000]);
        let lacks = async || here.read(&tenant("acme"), &claims).await.unwrap()[0];
        eventually(name, async || lacks().await.taken > 900).await;
        assert!(lacks().await.full_in_us > MINUTE_US * 9 / 10, "{name}");
    }
}

#[tokio::test]
async fn a_gateway_keeps_its_places_while_it_lives_and_not_when_it_is_gone() {
    for Rates { name, here, there, _keep } in shared().await {
        let claims = [claim(RateMetric::Concurrent, 1, 1)];
        assert!(takes(&here, 1, &claims).await, "{name}");
        let began = Instant::now();
        while began.elapsed() < LASTS * 2 {
            assert!(!takes(&there, 2, &claims).await, "{name}: its place was lost after {:?}", began.elapsed());
            tokio::time::sleep(LASTS / 30).await;
        }
        drop(here);
        eventually(name, async || takes(&there, 3, &claims).await).await;
    }
}

#[tokio::test]
async fn a_place_that_was_given_back_is_not_renewed() {
    for Rates { name, here, there, _keep } in shared().await {
        let claims = [claim(RateMetric::Concurrent, 1, 1)];
        assert!(takes(&here, 1, &claims).await, "{name}");
        // Its own gateway does not know that it is over, and says that it runs.
        there.end(event_id(1), &tenant("acme"), &claims, &[0]);
        eventually(name, async || takes(&there, 2, &claims).await).await;
        let began = Instant::now();
        while began.elapsed() < LASTS {
            assert_eq!(here.read(&tenant("acme"), &claims).await.unwrap()[0].taken, 1, "{name}");
            tokio::time::sleep(LASTS / 30).await;
        }
    }
}

/// One that shows that a store was told of an end: it used 500 of a rate of its own, and took 1.
fn shown() -> RateClaim {
    RateClaim { subject: Subject::of(Scope::User, "shown").unwrap(), ..claim(RateMetric::Tokens, 1, 1_000) }
}

async fn end_is_seen(store: &Arc<dyn RateStore>, name: &str, call: u64, taken: &RateClaim) {
    let claims = [taken.clone(), shown()];
    store.end(event_id(call), &tenant("acme"), &claims, &[0, 500]);
    eventually(name, async || store.read(&tenant("acme"), &claims).await.unwrap()[1].taken > 400).await;
}

#[tokio::test]
async fn what_has_filled_again_is_not_given_back_a_second_time() {
    for Rates { name, here, there, _keep } in adapters().await {
        // A second of the bucket, and then all of it.
        let [one, all] = [1, 60].map(|amount| claim(RateMetric::Tokens, amount, 60));
        assert!(takes(&here, 1, &[one.clone(), shown()]).await, "{name}");
        let left = async || here.read(&tenant("acme"), std::slice::from_ref(&one)).await.unwrap()[0].full_in_us;
        eventually(name, async || left().await == 0).await;
        let began = Instant::now();
        assert!(takes(&there, 2, &[all]).await, "{name}");
        end_is_seen(&here, name, 1, &one).await;
        let (left, elapsed) = (left().await, u64::try_from(began.elapsed().as_micros()).unwrap());
        assert!(left + elapsed >= MINUTE_US, "{name}: {left} and {elapsed}");
    }
}

#[tokio::test]
async fn who_took_nothing_gives_nothing_back() {
    for Rates { name, here, there, _keep } in shared().await {
        let tokens = claim(RateMetric::Tokens, 900, 1_000);
        assert!(takes(&here, 1, std::slice::from_ref(&tokens)).await, "{name}");
        // It was never heard of, as one whose question was lost.
        end_is_seen(&there, name, 2, &tokens).await;
        let taken = here.read(&tenant("acme"), &[tokens]).await.unwrap()[0].taken;
        assert!(taken > 400, "{name}: {taken}");
    }
}

#[tokio::test]
async fn what_is_sent_to_redis_twice_is_done_once() {
    for Rates { name, here, there, _keep } in shared().await {
        let tokens = claim(RateMetric::Tokens, 400, 1_000);
        let claims = [tokens.clone(), claim(RateMetric::Concurrent, 1, 5)];
        let lacks = async || here.read(&tenant("acme"), &claims).await.unwrap()[0].taken;
        for _ in 0..2 {
            let taken = here.take(event_id(1), &tenant("acme"), &claims).await.unwrap();
            let RateOutcome::Taken(stand) = taken else { panic!("{name}: {taken:?}") };
            assert!(stand[0].taken <= 400 && stand[1].taken == 1, "{name}: {stand:?}");
        }
        for _ in 0..2 {
            here.end(event_id(1), &tenant("acme"), &claims, &[700, 0]);
        }
        // What is told of another call after that is told on the same connection.
        end_is_seen(&here, name, 2, &claim(RateMetric::Tokens, 1, 1_000)).await;
        let lacks = lacks().await;
        assert!((401..=700).contains(&lacks), "{name}: {lacks}");
        // Its question comes when it is over.
        assert!(takes(&there, 1, &claims).await, "{name}");
        let stand = there.read(&tenant("acme"), &claims).await.unwrap();
        assert!(stand[0].taken <= lacks && stand[1].taken == 0, "{name}: {stand:?}");
    }
}

#[tokio::test]
async fn buckets_in_redis_end_when_they_are_full_and_refused_calls_make_none() {
    let server = tokio::task::spawn_blocking(RedisServer::start).await.unwrap();
    let Rates { here, _keep, .. } = redis("redis", server.url(), Box::new(())).await;
    let keys = || match server.ask(&["KEYS", "*:r{*"]) {
        Reply::List(keys) => keys.len(),
        other => panic!("{other:?}"),
    };
    let of_user = |user: u64| {
        let subject = Subject::of(Scope::User, &format!("u{user}")).unwrap();
        [RateClaim { subject, ..claim(RateMetric::Requests, 1, 600) }]
    };
    for user in 0..100 {
        let claims = of_user(user);
        assert!(takes(&here, user, &claims).await);
        if user % 2 == 0 {
            here.end(event_id(user), &tenant("acme"), &claims, &[1]);
        }
    }
    // A tenth of a second each.
    eventually("buckets that are full are gone", async || keys() == 0).await;
    let full = [claim(RateMetric::Requests, 1, 1)];
    assert!(takes(&here, 200, &full).await);
    let before = keys();
    let refused = [of_user(300)[0].clone(), claim(RateMetric::Concurrent, 1, 1), full[0].clone()];
    assert!(!takes(&here, 201, &refused).await);
    assert_eq!(keys(), before);
}
