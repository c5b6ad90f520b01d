//! What every [`CounterStore`] promises.

use std::sync::Arc;

use tollgate::adapters::memory_counters::MemoryCounters;
use tollgate::domain::plan::{Metric, Standing, Subject};
use tollgate::domain::time::{Period, Window};
use tollgate::ports::counters::{Claim, CounterKey, CounterStore, HoldOutcome, Terms};

use super::{at, event_id, tenant};

type Store = Arc<dyn CounterStore>;

fn adapters() -> Vec<(&'static str, Store)> {
    vec![("memory", Arc::new(MemoryCounters::new()))]
}

fn month() -> Period {
    Period::parse_month("2026-11").unwrap()
}

fn counter(name: &str, period: Period) -> CounterKey {
    CounterKey { tenant: tenant(name), subject: Subject::Tenant, metric: Metric::Chats, period }
}

fn claim(name: &str, max: Option<u64>) -> Claim {
    Claim { counter: counter(name, month()), amount: 1, max }
}

async fn standing(store: &Store, key: CounterKey) -> Standing {
    store.read(&[key]).await.unwrap()[0]
}

/// What was used of each claimed counter, in order.
fn used_of(claims: &[Claim], amounts: &[u64]) -> Vec<(CounterKey, u64)> {
    claims.iter().zip(amounts).map(|(claim, amount)| (claim.counter.clone(), *amount)).collect()
}

/// Holds and says whether it was taken.
async fn held(store: &Store, call: u64, claims: &[Claim]) -> bool {
    matches!(store.hold(event_id(call), claims, Terms::default()).await.unwrap(), HoldOutcome::Held(_))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_concurrent_holds_exactly_as_many_as_fit_are_taken() {
    for (name, store) in adapters() {
        const MAX: u64 = 500;
        let calls: Vec<_> = (0..MAX + 60)
            .map(|call| {
                let store = Arc::clone(&store);
                tokio::spawn(async move { held(&store, call, &[claim("acme", Some(MAX))]).await })
            })
            .collect();
        let mut taken = 0;
        for call in calls {
            taken += u64::from(call.await.unwrap());
        }
        assert_eq!(taken, MAX, "{name}");
        let all_held = Standing { used: 0, held: MAX };
        assert_eq!(standing(&store, counter("acme", month())).await, all_held, "{name}");
    }
}

#[tokio::test]
async fn the_standing_after_a_hold_and_in_a_refusal_is_that_of_the_counter() {
    for (name, store) in adapters() {
        let claims = [claim("acme", Some(2))];
        let after = store.hold(event_id(1), &claims, Terms::default()).await.unwrap();
        assert_eq!(after, HoldOutcome::Held(vec![Standing { used: 0, held: 1 }]), "{name}");
        store.settle(event_id(1), &claims, &used_of(&claims, &[1]));
        let after = store.hold(event_id(2), &claims, Terms::default()).await.unwrap();
        assert_eq!(after, HoldOutcome::Held(vec![Standing { used: 1, held: 1 }]), "{name}");
        let refused = store.hold(event_id(3), &claims, Terms::default()).await.unwrap();
        assert_eq!(refused, HoldOutcome::Refused { claim: 0, standing: Standing { used: 1, held: 1 } }, "{name}");
    }
}

#[tokio::test]
async fn the_same_hold_asked_again_is_taken_once() {
    for (name, store) in adapters() {
        let claims = [claim("acme", Some(1))];
        for _ in 0..3 {
            let outcome = store.hold(event_id(1), &claims, Terms::default()).await.unwrap();
            assert_eq!(outcome, HoldOutcome::Held(vec![Standing { used: 0, held: 1 }]), "{name}");
        }
        assert!(!held(&store, 2, &claims).await, "{name}");
        store.settle(event_id(1), &claims, &used_of(&claims, &[1]));
        let late = store.hold(event_id(1), &claims, Terms::default()).await.unwrap();
        assert_eq!(late, HoldOutcome::Held(vec![Standing { used: 1, held: 0 }]), "{name}: a settled call is not held");
    }
}

#[tokio::test]
async fn settling_zero_gives_the_hold_back() {
    for (name, store) in adapters() {
        let claims = [claim("acme", Some(1))];
        assert!(held(&store, 1, &claims).await, "{name}");
        assert!(!held(&store, 2, &claims).await, "{name}");
        store.settle(event_id(1), &claims, &used_of(&claims, &[0]));
        assert_eq!(standing(&store, counter("acme", month())).await, Standing::default(), "{name}");
        assert!(held(&store, 3, &claims).await, "{name}");
    }
}

#[tokio::test]
async fn settling_twice_changes_nothing() {
    for (name, store) in adapters() {
        let claims = [claim("acme", Some(5))];
        assert!(held(&store, 1, &claims).await, "{name}");
        assert!(held(&store, 2, &claims).await, "{name}");
        for used in [1, 1, 0, 4] {
            store.settle(event_id(1), &claims, &used_of(&claims, &[used]));
        }
        assert_eq!(standing(&store, counter("acme", month())).await, Standing { used: 1, held: 1 }, "{name}");
    }
}

#[tokio::test]
async fn settling_a_call_that_was_never_held_counts_it_once() {
    for (name, store) in adapters() {
        let claims = [claim("acme", Some(5))];
        store.settle(event_id(1), &claims, &used_of(&claims, &[1]));
        store.settle(event_id(1), &claims, &used_of(&claims, &[1]));
        assert_eq!(standing(&store, counter("acme", month())).await, Standing { used: 1, held: 0 }, "{name}");
    }
}

#[tokio::test]
async fn settling_more_than_was_held_may_pass_the_limit_and_is_remembered() {
    for (name, store) in adapters() {
        let claims = [claim("acme", Some(10))];
        assert!(held(&store, 1, &claims).await, "{name}");
        store.settle(event_id(1), &claims, &used_of(&claims, &[25]));
        assert_eq!(standing(&store, counter("acme", month())).await, Standing { used: 25, held: 0 }, "{name}");
        assert!(!held(&store, 2, &claims).await, "{name}");
    }
}

#[tokio::test]
async fn of_two_claims_both_are_taken_or_none() {
    for (name, store) in adapters() {
        let day = Window::Day.period(at("2026-11-24T10:00:00Z"));
        let by_day = |max| Claim { counter: counter("acme", day), amount: 1, max };
        let both = [claim("acme", Some(9)), by_day(Some(1))];
        assert!(held(&store, 1, &both).await, "{name}");
        let refused = store.hold(event_id(2), &both, Terms::default()).await.unwrap();
        assert_eq!(refused, HoldOutcome::Refused { claim: 1, standing: Standing { used: 0, held: 1 } }, "{name}");
        assert_eq!(standing(&store, counter("acme", month())).await, Standing { used: 0, held: 1 }, "{name}");
        // What was refused holds nothing, so the same call may ask again once there is room.
        store.settle(event_id(1), &both, &used_of(&both, &[0, 0]));
        assert!(held(&store, 2, &both).await, "{name}");
        assert_eq!(standing(&store, counter("acme", day)).await, Standing { used: 0, held: 1 }, "{name}");
    }
}

#[tokio::test]
async fn two_claims_on_one_counter_are_both_counted() {
    for (name, store) in adapters() {
        let both = [claim("acme", Some(1)), claim("acme", Some(1))];
        assert!(!held(&store, 1, &both).await, "{name}");
        assert_eq!(standing(&store, counter("acme", month())).await, Standing::default(), "{name}");
    }
}

#[tokio::test]
async fn an_unlimited_counter_counts_all_the_same() {
    for (name, store) in adapters() {
        let claims = [claim("acme", None)];
        for call in 0..1_000 {
            assert!(held(&store, call, &claims).await, "{name}");
            store.settle(event_id(call), &claims, &used_of(&claims, &[1]));
        }
        assert_eq!(standing(&store, counter("acme", month())).await, Standing { used: 1_000, held: 0 }, "{name}");
    }
}

#[tokio::test]
async fn a_call_without_claims_is_held_at_once() {
    for (name, store) in adapters() {
        assert_eq!(store.hold(event_id(1), &[], Terms::default()).await, Ok(HoldOutcome::Held(Vec::new())), "{name}");
        store.settle(event_id(1), &[], &[]);
    }
}

#[tokio::test]
async fn tenants_and_periods_do_not_share_a_counter() {
    for (name, store) in adapters() {
        let november = [claim("acme", Some(1))];
        let december =
            [Claim { counter: counter("acme", Period::parse_month("2026-12").unwrap()), ..claim("acme", Some(1)) }];
        assert!(held(&store, 1, &november).await, "{name}");
        assert!(held(&store, 2, &december).await, "{name}");
        assert!(held(&store, 3, &[claim("other", Some(1))]).await, "{name}");
        assert!(!held(&store, 4, &november).await, "{name}");
        // A call settles in the period it was admitted in.
        store.settle(event_id(1), &november, &used_of(&november, &[1]));
        assert_eq!(standing(&store, december[0].counter.clone()).await, Standing { used: 0, held: 1 }, "{name}");
        assert_eq!(standing(&store, counter("acme", month())).await, Standing { used: 1, held: 0 }, "{name}");
    }
}

#[tokio::test]
async fn a_seed_raises_and_never_lowers() {
    for (name, store) in adapters() {
        let key = counter("acme", month());
        assert_eq!(standing(&store, key.clone()).await, Standing::default(), "{name}: not known");
        for (seed, used) in [(7, 7), (3, 7), (0, 7), (9, 9)] {
            store.seed(&[(key.clone(), seed)]).await.unwrap();
            assert_eq!(standing(&store, key.clone()).await, Standing { used, held: 0 }, "{name}");
        }
        assert!(!held(&store, 1, &[claim("acme", Some(9))]).await, "{name}");
        assert!(held(&store, 1, &[claim("acme", Some(10))]).await, "{name}");
    }
}

#[tokio::test]
async fn a_list_has_every_counter_as_it_stands() {
    for (name, store) in adapters() {
        assert_eq!(store.list().await, Ok(Vec::new()), "{name}");
        let december = Period::parse_month("2026-12").unwrap();
        let mut expected: Vec<_> = (0..200_u64)
            .flat_map(|number| [month(), december].map(|period| (counter(&format!("tenant-{number}"), period), number)))
            .collect();
        store.seed(&expected).await.unwrap();
        assert!(held(&store, 1, &[claim("tenant-7", None)]).await, "{name}");
        let order = |key: &CounterKey| (key.tenant.clone(), key.period);
        expected.sort_by_key(|(key, _)| order(key));
        let mut listed = store.list().await.unwrap();
        listed.sort_by_key(|counted| order(&counted.counter));
        let held = |key: &CounterKey| u64::from(*key == counter("tenant-7", month()));
        let expected: Vec<_> =
            expected.into_iter().map(|(key, used)| (key.clone(), Standing { used, held: held(&key) })).collect();
        let listed: Vec<_> = listed.into_iter().map(|counted| (counted.counter, counted.standing)).collect();
        assert_eq!(listed, expected, "{name}");
    }
}
