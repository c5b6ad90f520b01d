//! What every [`SharedCounters`] promises, rule by rule; beside the model in any story; and of Redis, what it must survive.

mod bench;
mod redis;
mod story;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tollgate::domain::counting::Counting;
use tollgate::domain::plan::{Metric, Scope, Subject};
use tollgate::domain::time::Window;
use tollgate::ports::counters::{Claim, CounterKey};
use tollgate::ports::shared::{
    Ask, Beat, CallState, ClaimError, Count, Epoch, Floors, Held, Joined, Joining, LeaseAsk, Listing, Look, Note,
    Noted, Part, Wanted,
};

use bench::{Bench, HOUR, LEDGER, WITHIN, adapters, booked, day, epoch, floors, month, taken};

use super::event_id;

const BOUND: Duration = Duration::from_secs(20);

/// A lease of at most so many units, all of what is left, for an hour.
fn lease(units_max: u64, left: u64) -> Option<LeaseAsk> {
    Some(LeaseAsk { units_max, parts: 1, lasts: HOUR, left })
}

/// What other gateways are wanted for, as far as it concerns this tenant.
async fn wanted(bench: &Bench, wanted: &[Wanted], done: &[Wanted]) -> Vec<Wanted> {
    let of = |wishes: &[Wanted]| wishes.iter().map(|wish| (bench.tenant.clone(), *wish)).collect::<Vec<_>>();
    let (wanted, done) = (of(wanted), of(done));
    let beat =
        Beat { member: bench.member, revision: -3, wanted: &wanted, done: &done, is_last: false, within: WITHIN };
    let pulse = bench.store.beat(&beat).await.unwrap();
    let mut own: Vec<_> =
        pulse.wanted.into_iter().filter(|(tenant, _)| *tenant == bench.tenant).map(|(_, wish)| wish).collect();
    own.sort();
    own
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_holds_at_once_exactly_as_many_as_fit_are_taken() {
    for (name, store) in adapters().await {
        const MAX: u64 = 200;
        let first = Bench::new(&store, "many");
        first.open(50).await;
        let others = [first.clone(), first.another(), first.another()];
        for bench in &others[1..] {
            assert!(matches!(bench.join().await, Joined::Open(_)), "{name}");
        }
        let calls: Vec<_> = (0..MAX + 60)
            .map(|call| {
                let bench = others[usize::try_from(call % 3).unwrap()].clone();
                tokio::spawn(async move { bench.hold(call, MAX).await })
            })
            .collect();
        let (mut held, mut full) = (0, 0);
        for call in calls {
            match call.await.unwrap() {
                Held::Taken { .. } => held += 1,
                Held::Full { .. } => full += 1,
                other => panic!("{name}: {other:?}"),
            }
        }
        assert_eq!((held, full), (MAX - 50, 110), "{name}");
        assert_eq!(first.count().await, Some(Count { booked: 50, held: MAX - 50, ..Count::default() }), "{name}");
    }
}

#[tokio::test]
async fn nobody_is_admitted_before_the_tenant_is_open() {
    for (name, store) in adapters().await {
        let (first, second) = (Bench::new(&store, "opens"), Bench::new(&store, "unused"));
        let second = Bench { tenant: first.tenant.clone(), ..second };
        assert_eq!(first.hold(1, 9).await, Held::Unjoined, "{name}");
        assert_eq!(first.look().await, Look::Unknown, "{name}");
        let Joined::Building(epoch) = first.join_with(epoch(), false, &[first.call(1, CallState::Settled, 2)]).await
        else {
            panic!("{name}: it is open")
        };
        assert_eq!((first.hold(2, 9).await, first.count().await), (Held::Building, None), "{name}");
        let Look::Building { joins, joined, calls, floors: found, .. } = first.look().await else {
            panic!("{name}: not in building")
        };
        assert_eq!((joins, joined, calls, found), (1, vec![first.member.node], vec![event_id(1)], floors()), "{name}");
        assert_eq!(second.look().await, Look::Busy { is_joined: false }, "{name}");
        assert_eq!(second.join().await, Joined::Building(epoch), "{name}: under the epoch that was begun");
        assert_eq!(second.look().await, Look::Busy { is_joined: true }, "{name}");
        let sums = [(first.november(), 4)];
        assert!(!first.finish(epoch, joins, &sums, &[]).await, "{name}: another has joined since");
        assert!(first.finish(epoch, 2, &sums, &[]).await, "{name}");
        assert!(!first.finish(epoch, 2, &sums, &[]).await, "{name}: once");
        assert_eq!(first.look().await, Look::Open(epoch), "{name}");
        assert_eq!(first.count().await, Some(Count { booked: 4, settled: 2, ..Count::default() }), "{name}");
        assert_eq!(taken(second.hold(11, 7).await).0.held, 1, "{name}");
        assert!(matches!(second.hold(12, 7).await, Held::Full { claim: 0, .. }), "{name}");
    }
}

#[tokio::test]
async fn whoever_finishes_has_a_second_for_it() {
    for (name, store) in adapters().await {
        let first = Bench::new(&store, "second");
        let second = first.another();
        first.join().await;
        assert!(matches!(first.look().await, Look::Building { .. }), "{name}");
        let began = Instant::now();
        // Also one that looks on and on: it may not be able to.
        while matches!(second.look().await, Look::Busy { .. }) {
            assert!(began.elapsed() < BOUND, "{name}");
            assert!(matches!(first.look().await, Look::Building { .. }), "{name}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(began.elapsed() > Duration::from_millis(900), "{name}: {:?}", began.elapsed());
    }
}

/// Sums of very many users take longer than a second: others began over meanwhile, and so did the first after that.
#[tokio::test]
async fn whoever_writes_sums_is_left_to_it() {
    for (name, store) in adapters().await {
        let first = Bench::new(&store, "writes");
        let second = first.another();
        first.join().await;
        second.join().await;
        let Look::Building { epoch, joins, .. } = first.look().await else { panic!("{name}") };
        let (began, mut is_first) = (Instant::now(), true);
        while began.elapsed() < Duration::from_millis(1_500) {
            let sums = [(first.november(), 10)];
            let part = Part { tenant: &first.tenant, epoch, joins, writer: 7, is_first, sums: &sums, within: WITHIN };
            assert!(store.sums(&part).await.unwrap(), "{name}");
            is_first = false;
            assert_eq!(second.look().await, Look::Busy { is_joined: true }, "{name}: {:?}", began.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_call_that_is_known_to_the_ledger_is_not_counted_twice() {
    for (name, store) in adapters().await {
        let bench = Bench::new(&store, "known");
        let calls = [
            bench.call(1, CallState::Settled, 1),
            bench.call(2, CallState::Settled, 1),
            bench.call(3, CallState::Booked, 1),
            bench.call(4, CallState::Booked, 1),
            bench.call(5, CallState::Held, 1),
        ];
        let Joined::Building(epoch) = bench.join_with(epoch(), false, &calls).await else { panic!("{name}") };
        // Said in building: it was booked meanwhile. Whether the ledger was read before or after is told by `known`.
        assert_eq!(bench.note(epoch, &[bench.call(2, CallState::Booked, 1)], None).await, Noted::Done, "{name}");
        assert!(bench.finish(epoch, 1, &[(bench.november(), 10)], &[event_id(1), event_id(3)]).await, "{name}");
        assert_eq!(bench.count().await, Some(Count { booked: 12, held: 1, ..Count::default() }), "{name}");
    }
}

#[tokio::test]
async fn a_note_said_twice_changes_nothing() {
    for (name, store) in adapters().await {
        let bench = Bench::new(&store, "notes");
        let epoch = bench.open(0).await;
        taken(bench.hold(1, 9).await);
        for (state, amount, expected) in [
            (CallState::Settled, 3, Count { settled: 3, ..Count::default() }),
            (CallState::Held, 2, Count { held: 2, ..Count::default() }),
            (CallState::Booked, 4, booked(4)),
            (CallState::Settled, 9, booked(4)),
            (CallState::Gone, 9, booked(4)),
        ] {
            for _ in 0..2 {
                assert_eq!(bench.note(epoch, &[bench.call(1, state, amount)], None).await, Noted::Done, "{name}");
                assert_eq!(bench.count().await, Some(expected), "{name}: {state:?}");
            }
        }
        assert_eq!(bench.note(Epoch(7), &[], None).await, Noted::Unjoined, "{name}");
    }
}

#[tokio::test]
async fn a_settlement_may_pass_the_limit_and_the_debt_is_remembered() {
    for (name, store) in adapters().await {
        let bench = Bench::new(&store, "debt");
        let epoch = bench.open(0).await;
        taken(bench.hold(1, 5).await);
        bench.note(epoch, &[bench.call(1, CallState::Settled, 50)], None).await;
        let full = Held::Full { claim: 0, count: Count { settled: 50, ..Count::default() } };
        assert_eq!(bench.hold(2, 5).await, full, "{name}");
    }
}

#[tokio::test]
async fn the_same_hold_asked_again_is_taken_once() {
    for (name, store) in adapters().await {
        let bench = Bench::new(&store, "again");
        let epoch = bench.open(0).await;
        for _ in 0..3 {
            assert_eq!(taken(bench.hold(1, 1).await).0, Count { held: 1, ..Count::default() }, "{name}");
        }
        bench.note(epoch, &[bench.call(1, CallState::Settled, 1)], None).await;
        assert_eq!(taken(bench.hold(1, 1).await).0, Count { settled: 1, ..Count::default() }, "{name}");
        assert!(matches!(bench.hold(2, 1).await, Held::Full { .. }), "{name}");
    }
}

#[tokio::test]
async fn of_two_claims_both_are_taken_or_none() {
    for (name, store) in adapters().await {
        let bench = Bench::new(&store, "both");
        bench.open(0).await;
        let today = bench.counter(day("2026-11-24"));
        let claims = [bench.claim(9), Claim { counter: today.clone(), amount: 1, max: Some(1) }];
        let Held::Taken { counts, .. } = bench.asked(bench.ask(1, &claims)).await else { panic!("{name}") };
        assert_eq!(counts, [Count { held: 1, ..Count::default() }; 2], "{name}");
        let full = Held::Full { claim: 1, count: Count { held: 1, ..Count::default() } };
        assert_eq!(bench.asked(bench.ask(2, &claims)).await, full, "{name}");
        let both = store.read(&bench.tenant, &[bench.november(), today]).await.unwrap().unwrap();
        assert_eq!(both, [Count { held: 1, ..Count::default() }; 2], "{name}");
    }
}

#[tokio::test]
async fn a_period_below_the_floors_is_not_known_and_a_later_one_is_empty() {
    for (name, store) in adapters().await {
        let bench = Bench::new(&store, "floors");
        bench.open(0).await;
        let claim = |period| [Claim { counter: bench.counter(period), amount: 1, max: Some(5) }];
        for below in [month("2026-10"), day("2026-11-23")] {
            assert_eq!(bench.asked(bench.ask(1, &claim(below))).await, Held::Unjoined, "{name}: {below}");
        }
        assert_eq!(store.read(&bench.tenant, &[bench.counter(month("2026-10"))]).await.unwrap(), None, "{name}");
        for above in [month("2027-01"), day("2026-11-25")] {
            assert_eq!(taken(bench.asked(bench.ask(1, &claim(above))).await).1, 0, "{name}: {above}");
        }
        // Whoever needs the earlier one begins anew with lower floors, and the calls stay.
        let joining = Floors { month: month("2026-10"), day: day("2026-11-30") };
        let Bench { member, tenant, within, .. } = bench.another();
        let joining = Joining {
            member,
            tenant: &tenant,
            epoch: epoch(),
            is_forced: true,
            floors: joining,
            counting: Counting::TENANT,
            calls: &[],
            is_first: true,
            is_last: true,
            within,
        };
        assert_eq!(store.join(&joining).await.unwrap(), Joined::Building(joining.epoch), "{name}");
        let Look::Building { floors: found, calls, .. } = bench.look().await else { panic!("{name}") };
        assert_eq!(found, Floors { month: month("2026-10"), day: day("2026-11-24") }, "{name}");
        assert_eq!(calls, [event_id(1)], "{name}");
    }
}

#[tokio::test]
async fn a_gateway_without_calls_need_not_join_and_one_with_calls_must() {
    for (name, store) in adapters().await {
        let first = Bench::new(&store, "alone");
        first.open(0).await;
        let second = first.another();
        assert_eq!(second.hold(11, 9).await, Held::Unjoined, "{name}");
        let claims = [second.claim(9)];
        taken(second.asked(Ask { is_alone: true, ..second.ask(11, &claims) }).await);
        taken(second.hold(12, 9).await);
        // After a restart it says that it is alone, and the store knows better.
        let restarted = second.restarted();
        assert_eq!(
            restarted.asked(Ask { is_alone: true, ..restarted.ask(13, &claims) }).await,
            Held::Unjoined,
            "{name}"
        );
        let Joined::Building(_) = restarted.join().await else { panic!("{name}: its calls are not forgotten") };
        let Look::Building { calls, joins, .. } = restarted.look().await else { panic!("{name}") };
        assert_eq!((calls, joins), (vec![], 1), "{name}: what it lists replaces what it had");
    }
}

#[tokio::test]
async fn claims_of_an_older_revision_take_nothing() {
    for (name, store) in adapters().await {
        let bench = Bench::new(&store, "revision");
        store.changed(&bench.tenant, 99, WITHIN).await.unwrap();
        bench.open(0).await;
        taken(bench.hold(1, 9).await);
        for revision in [7, 5] {
            store.changed(&bench.tenant, revision, WITHIN).await.unwrap();
            assert_eq!(bench.hold(2, 9).await, Held::Behind { revision: 7 }, "{name}");
        }
        let claims = [bench.claim(9)];
        taken(bench.asked(Ask { revision: 7, ..bench.ask(2, &claims) }).await);
        bench.join_with(epoch(), true, &[]).await;
        let Look::Building { epoch, joins, .. } = bench.look().await else { panic!("{name}") };
        assert!(bench.finish(epoch, joins, &[], &[]).await, "{name}");
        assert_eq!(bench.hold(3, 9).await, Held::Behind { revision: 7 }, "{name}: it outlives an epoch");
    }
}

#[tokio::test]
async fn leases_never_pass_the_limit_and_come_back() {
    for (name, store) in adapters().await {
        let first = Bench::new(&store, "lease");
        let epoch = first.open(2).await;
        let second = first.another();
        second.join().await;
        let claims = [first.claim(10)];
        // Of the 7 that are left after the call, at most 5.
        let held = first.asked(Ask { lease: lease(5, 0), ..first.ask(1, &claims) }).await;
        assert_eq!(taken(held), (Count { booked: 2, held: 1, leased: 5, ..Count::default() }, 5), "{name}");
        let held = second.asked(Ask { lease: lease(5, 0), ..second.ask(11, &claims) }).await;
        assert_eq!(taken(held), (Count { booked: 2, held: 2, leased: 6, ..Count::default() }, 1), "{name}");
        let Held::Leased { claim: 0, count } = second.hold(12, 10).await else {
            panic!("{name}: leases are in the way")
        };
        assert_eq!(count.leased, 6, "{name}");
        // A call from the lease takes a unit of it along, once.
        let from_lease = Note { listing: Listing::FromLease, ..first.call(2, CallState::Held, 1) };
        for _ in 0..2 {
            first.note(epoch, std::slice::from_ref(&from_lease), None).await;
        }
        let count = Count { booked: 2, held: 3, leased: 5, ..Count::default() };
        assert_eq!(first.count().await, Some(count), "{name}");
        // What is left is given back down to what is said.
        first.note(epoch, &[], Some(1)).await;
        assert_eq!(first.count().await, Some(Count { leased: 2, ..count }), "{name}");
        taken(second.hold(12, 10).await);
        first.note(epoch, &[], Some(0)).await;
        assert_eq!(first.count().await.unwrap().leased, 1, "{name}");
        // A gateway that begins anew has lost its lease.
        second.note(epoch, &[second.call(11, CallState::Gone, 0), second.call(12, CallState::Gone, 0)], None).await;
        assert_eq!(second.restarted().join().await, Joined::Open(epoch), "{name}");
        assert_eq!(first.count().await.unwrap().leased, 0, "{name}");
    }
}

#[tokio::test]
async fn a_lease_that_is_over_is_in_nobodys_way() {
    for (name, store) in adapters().await {
        let first = Bench::new(&store, "over");
        first.open(0).await;
        let claims = [first.claim(3)];
        let short = LeaseAsk { units_max: 9, parts: 1, lasts: Duration::from_millis(200), left: 0 };
        assert_eq!(taken(first.asked(Ask { lease: Some(short), ..first.ask(1, &claims) }).await).1, 2, "{name}");
        assert!(matches!(first.hold(2, 3).await, Held::Leased { .. }), "{name}");
        let began = Instant::now();
        while !matches!(first.hold(2, 3).await, Held::Taken { .. }) {
            assert!(began.elapsed() < BOUND, "{name}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(first.count().await, Some(Count { held: 2, ..Count::default() }), "{name}");
    }
}

#[tokio::test]
async fn every_counter_of_every_open_tenant_is_listed() {
    for (name, store) in adapters().await {
        let mut expected = BTreeMap::new();
        for at in 0..40 {
            let bench = Bench::new(&store, "listed");
            bench.open(at + 1).await;
            taken(bench.hold(1, None).await);
            expected.insert(bench.tenant.clone(), Count { booked: at + 1, held: 1, ..Count::default() });
        }
        let shut = Bench::new(&store, "listed");
        shut.join().await;
        let all = store.list().await.unwrap();
        let own = all
            .into_iter()
            .filter(|(key, _)| key.tenant.as_str().starts_with("listed-") && key.period == month("2026-11"));
        assert_eq!(own.map(|(key, count)| (key.tenant, count)).collect::<BTreeMap<_, _>>(), expected, "{name}");
    }
}

#[tokio::test]
async fn gateways_hear_of_each_other_and_of_what_they_are_wanted_for() {
    for (name, store) in adapters().await {
        let first = Bench::new(&store, "beat");
        let second = first.another();
        let [join, later] = [1, u128::MAX].map(|epoch| Wanted::Join(Epoch(epoch)));
        assert_eq!(wanted(&first, &[Wanted::Lease, join], &[]).await, [join, Wanted::Lease], "{name}");
        assert_eq!(wanted(&second, &[later], &[Wanted::Lease]).await, [join, later], "{name}");
        assert_eq!(
            wanted(&first, &[], &[join]).await,
            [later],
            "{name}: that one build is done says nothing of another"
        );
        assert_eq!(wanted(&first, &[join], &[later]).await, [join], "{name}");
        let last = Beat { member: second.member, revision: 7, wanted: &[], done: &[], is_last: false, within: WITHIN };
        let pulse = store.beat(&last).await.unwrap();
        let peer = pulse.peers.iter().find(|peer| peer.member == first.member).unwrap();
        assert!(
            peer.revision == -3 && peer.quiet_ms < 5_000 && pulse.known_for_ms >= peer.quiet_ms,
            "{name}: {pulse:?}"
        );
        assert!(pulse.peers.iter().any(|peer| peer.member == second.member && peer.revision == 7), "{name}");
        let pulse = store.beat(&Beat { is_last: true, ..last }).await.unwrap();
        assert!(pulse.peers.iter().all(|peer| peer.member != second.member), "{name}: it has left");
        // A wish ends by itself.
        let began = Instant::now();
        while !wanted(&first, &[], &[]).await.is_empty() {
            assert!(began.elapsed() < BOUND, "{name}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(began.elapsed() > Duration::from_millis(4_000), "{name}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_store_is_one_ledgers() {
    for (name, store) in adapters().await {
        store.claim(LEDGER).await.unwrap();
        store.claim(LEDGER).await.unwrap();
        let other = store.claim("another-ledger").await;
        assert!(matches!(other, Err(ClaimError::Unfit(_))), "{name}: {other:?}");
    }
}

#[tokio::test]
async fn numbers_up_to_2_to_the_53rd_are_exact() {
    for (name, store) in adapters().await {
        const LARGE: u64 = (1 << 53) - 1;
        let bench = Bench::new(&store, "large");
        let epoch = bench.open(LARGE - 3).await;
        assert_eq!(
            taken(bench.hold(1, LARGE - 2).await).0,
            Count { booked: LARGE - 3, held: 1, ..Count::default() },
            "{name}"
        );
        assert!(matches!(bench.hold(2, LARGE - 2).await, Held::Full { .. }), "{name}");
        taken(bench.hold(2, LARGE - 1).await);
        assert!(matches!(bench.hold(3, LARGE - 1).await, Held::Full { .. }), "{name}");
        taken(bench.hold(3, u64::MAX).await);
        bench
            .note(epoch, &[bench.call(1, CallState::Settled, LARGE), bench.call(2, CallState::Settled, LARGE)], None)
            .await;
        // Sums beyond it are kept to the last digit.
        let count = Count { booked: LARGE - 3, settled: LARGE * 2, held: 1, ..Count::default() };
        assert_eq!(bench.count().await, Some(count), "{name}");
        bench.note(epoch, &[bench.call(1, CallState::Booked, LARGE), bench.call(2, CallState::Gone, 0)], None).await;
        assert_eq!(bench.count().await, Some(Count { booked: LARGE * 2 - 3, held: 1, ..Count::default() }), "{name}");
    }
}

#[tokio::test]
async fn many_calls_at_once_are_listed_and_told() {
    for (name, store) in adapters().await {
        let bench = Bench::new(&store, "thousands");
        let calls: Vec<_> = (0..5_000).map(|call| bench.call(call, CallState::Settled, 1)).collect();
        let Joined::Building(epoch) = bench.join_with(epoch(), false, &calls).await else { panic!("{name}") };
        let Look::Building { calls: listed, joins, .. } = bench.look().await else { panic!("{name}") };
        assert_eq!(listed.len(), 5_000, "{name}");
        assert!(bench.finish(epoch, joins, &[], &listed[..1_000]).await, "{name}");
        assert_eq!(bench.count().await, Some(Count { settled: 4_000, ..Count::default() }), "{name}");
        let booked_now: Vec<_> = (0..5_000).map(|call| bench.call(call, CallState::Booked, 1)).collect();
        bench.note(epoch, &booked_now, None).await;
        assert_eq!(bench.count().await, Some(booked(4_000)), "{name}");
    }
}

#[tokio::test]
async fn calls_in_parts_are_all_listed_or_the_gateway_has_not_joined() {
    for (name, store) in adapters().await {
        let bench = Bench::new(&store, "parts");
        let part = |epoch, is_first, is_last, call| {
            let bench = bench.clone();
            async move {
                let calls = [bench.call(call, CallState::Settled, 1)];
                let Bench { store, member, tenant, within } = &bench;
                let (member, within) = (*member, *within);
                let joining = Joining {
                    member,
                    tenant,
                    epoch,
                    is_forced: true,
                    floors: floors(),
                    counting: Counting::TENANT,
                    calls: &calls,
                    is_first,
                    is_last,
                    within,
                };
                store.join(&joining).await.unwrap()
            }
        };
        assert_eq!(part(epoch(), false, true, 1).await, Joined::Moved, "{name}: there is nothing to add to");
        assert_eq!(bench.look().await, Look::Unknown, "{name}");
        let Joined::Building(begun) = part(epoch(), true, false, 1).await else { panic!("{name}") };
        let Look::Building { joins, joined, .. } = bench.look().await else { panic!("{name}") };
        assert_eq!(joined, [], "{name}: the rest is to come");
        assert_eq!(part(epoch(), false, true, 2).await, Joined::Moved, "{name}: another epoch");
        assert_eq!(part(begun, false, true, 2).await, Joined::Building(begun), "{name}");
        assert!(!bench.finish(begun, joins, &[], &[]).await, "{name}: looked at before");
        let Look::Building { joins, joined, calls, .. } = bench.look().await else { panic!("{name}") };
        assert_eq!((joined, calls), (vec![bench.member.node], vec![event_id(1), event_id(2)]), "{name}");
        // Once more, as the answer was not heard: what was listed is replaced, and what was looked at before is not opened.
        assert_eq!(part(begun, true, true, 3).await, Joined::Building(begun), "{name}");
        assert!(!bench.finish(begun, joins, &[], &[]).await, "{name}");
        let Look::Building { joins, calls, .. } = bench.look().await else { panic!("{name}") };
        assert_eq!(calls, [event_id(3)], "{name}");
        assert!(bench.finish(begun, joins, &[], &[]).await, "{name}");
        assert_eq!(part(begun, false, true, 4).await, Joined::Moved, "{name}: it is open");
        assert_eq!(bench.count().await, Some(Count { settled: 1, ..Count::default() }), "{name}");
    }
}

#[tokio::test]
async fn an_earlier_life_of_a_gateway_has_nothing_to_say() {
    for (name, store) in adapters().await {
        let bench = Bench::new(&store, "lives");
        let epoch = bench.open(0).await;
        let later = bench.restarted();
        assert_eq!(later.join().await, Joined::Open(epoch), "{name}");
        let late = Note { listing: Listing::FromLease, ..bench.call(1, CallState::Settled, 1) };
        assert_eq!(bench.note(epoch, std::slice::from_ref(&late), None).await, Noted::Unjoined, "{name}");
        assert_eq!(bench.count().await, Some(Count::default()), "{name}");
        assert_eq!(later.note(epoch, &[late], None).await, Noted::Done, "{name}");
        assert_eq!(bench.count().await, Some(Count { settled: 1, ..Count::default() }), "{name}");
    }
}

#[tokio::test]
async fn counters_of_old_periods_are_let_go_and_those_that_still_move_stay() {
    for (name, store) in adapters().await {
        let bench = Bench::new(&store, "sweeps");
        let epoch = bench.open(0).await;
        let days = ["2026-11-24", "2026-11-25", "2026-11-26", "2026-11-27", "2026-11-28"].map(day);
        for (call, day) in (1..).zip(days) {
            let claims = [bench.claim(None), Claim { counter: bench.counter(day), amount: 1, max: Some(5) }];
            taken(bench.asked(bench.ask(call, &claims)).await);
            // The call of the second day goes on.
            if call != 2 {
                let amounts = claims.iter().map(|claim| (claim.counter.clone(), 1)).collect();
                let booked = Note { amounts, ..bench.call(call, CallState::Booked, 1) };
                bench.note(epoch, &[booked], None).await;
            }
        }
        for (at, day) in days.iter().enumerate() {
            let count = store.read(&bench.tenant, &[bench.counter(*day)]).await.unwrap();
            assert_eq!(count, (at >= 2).then(|| vec![booked(1)]), "{name}: {day}");
        }
        let claims = [Claim { counter: bench.counter(days[1]), amount: 1, max: Some(5) }];
        assert_eq!(bench.asked(bench.ask(9, &claims)).await, Held::Unjoined, "{name}: it is not known any more");
        assert_eq!(
            bench.count().await,
            Some(Count { booked: 4, held: 1, ..Count::default() }),
            "{name}: the month stays"
        );
        let listed: Vec<String> = bench.listed().await.into_keys().collect();
        let kept = ["2026-11", "2026-11-26", "2026-11-27", "2026-11-28"].map(|period| format!("tenant chats:{period}"));
        assert_eq!(listed, kept, "{name}");
    }
}

#[tokio::test]
async fn a_node_that_counts_more_has_the_tenant_built_anew_once_and_one_that_counts_less_does_not() {
    let users = Counting::one(Scope::User, Metric::Cost, Window::Day);
    for (name, store) in adapters().await {
        let first = Bench::new(&store, "counts");
        let begun = first.open(3).await;
        let (second, third) = (first.another(), first.another());
        let claims = [first.claim(9)];
        let ask = |bench: &Bench, counting| (bench.clone(), counting);
        let (bench, counting) = ask(&second, Counting::TENANT | users);
        let alone = Ask { counting, is_alone: true, ..bench.ask(1, &claims) };
        assert_eq!(bench.asked(alone).await, Held::Unjoined, "{name}: what users used is not known");
        let joined = second.join_counting(Counting::TENANT | users).await;
        let Joined::Building(epoch) = joined else { panic!("{name}: {joined:?}") };
        assert_ne!(epoch, begun, "{name}");
        assert_eq!(first.join().await, Joined::Building(epoch), "{name}");
        let Look::Building { joins, counting, .. } = first.look().await else { panic!("{name}") };
        assert_eq!(counting, Counting::TENANT | users, "{name}: all that anybody counts is read");
        assert!(first.finish(epoch, joins, &[(first.november(), 3)], &[]).await, "{name}");
        // The first does not count users, and so it is said once, and no more.
        assert!(matches!(second.hold(2, 9).await, Held::Taken { .. }), "{name}");
        assert_eq!(third.join().await, Joined::Open(epoch), "{name}: it counts no more than they");
        let restarted = first.restarted();
        assert!(matches!(restarted.join_counting(Counting::TENANT | users).await, Joined::Building(_)), "{name}");
    }
}

#[tokio::test]
async fn sums_that_come_in_parts_are_those_of_whoever_began_last() {
    for (name, store) in adapters().await {
        let bench = Bench::new(&store, "parts");
        let Joined::Building(epoch) = bench.join().await else { panic!("{name}") };
        let Look::Building { joins, .. } = bench.look().await else { panic!("{name}") };
        let of = |user: &str| CounterKey { subject: Subject::User(user.into()), ..bench.november() };
        let sums = |writer, is_first, user: &'static str, sum| {
            let (store, tenant, counter) = (&bench.store, &bench.tenant, of(user));
            async move {
                let sums = [(counter, sum)];
                let part = Part { tenant, epoch, joins, writer, is_first, sums: &sums, within: WITHIN };
                store.sums(&part).await.unwrap()
            }
        };
        assert!(sums(1, true, "a", 1).await, "{name}");
        assert!(sums(1, false, "b", 2).await, "{name}");
        assert!(sums(2, true, "a", 5).await, "{name}");
        assert!(!sums(1, false, "c", 3).await, "{name}: another began");
        assert!(!bench.finish_as(Some(1), epoch, joins, &[], &[]).await, "{name}");
        assert!(sums(2, false, "b", 6).await, "{name}");
        assert!(bench.finish_as(Some(2), epoch, joins, &[(of("c"), 7)], &[]).await, "{name}");
        let counts = store.read(&bench.tenant, &["a", "b", "c"].map(of)).await.unwrap().unwrap();
        assert_eq!(counts.iter().map(|count| count.booked).collect::<Vec<_>>(), [5, 6, 7], "{name}");
        assert!(!sums(2, true, "a", 9).await, "{name}: it is open");
    }
}

#[tokio::test]
async fn a_call_counts_any_amounts_on_many_counters() {
    for (name, store) in adapters().await {
        let bench = Bench::new(&store, "amounts");
        let epoch = bench.open(0).await;
        let counters: Vec<CounterKey> = [Subject::Tenant, Subject::User("a:b c/d".into()), Subject::Kb("".into())]
            .into_iter()
            .flat_map(|subject| {
                Metric::ALL.map(|metric| CounterKey { subject: subject.clone(), metric, ..bench.november() })
            })
            .collect();
        let max = 3_000_000_000_000;
        let claims = |amount: u64| -> Vec<Claim> {
            let claim = |counter: &CounterKey| Claim { counter: counter.clone(), amount, max: Some(max) };
            counters.iter().take(8).map(claim).collect()
        };
        let mut plain = Vec::new();
        for call in 0..4 {
            plain.push(matches!(bench.asked(bench.ask(call, &claims(900_000_000_000))).await, Held::Taken { .. }));
        }
        assert_eq!(plain, [true, true, true, false], "{name}");
        let used: Vec<_> =
            counters.iter().zip(1..).map(|(counter, at)| (counter.clone(), at * 1_000_000_007)).collect();
        let settled = Note { amounts: used.clone(), ..bench.call(0, CallState::Settled, 0) };
        let unheld = Note { id: event_id(9), listing: Listing::Unheld, ..settled.clone() };
        assert_eq!(bench.note(epoch, &[settled.clone(), unheld], None).await, Noted::Done, "{name}");
        let booked = Note { state: CallState::Booked, ..settled };
        bench.note(epoch, &[booked], None).await;
        let counts = store.read(&bench.tenant, &counters).await.unwrap().unwrap();
        for (at, (count, (_, used))) in counts.iter().zip(&used).enumerate() {
            let held = if at < 8 { 1_800_000_000_000 } else { 0 };
            assert_eq!(*count, Count { booked: *used, settled: *used, held, leased: 0 }, "{name} {at}");
        }
    }
}

#[tokio::test]
async fn a_call_that_was_not_held_takes_no_unit_of_a_lease() {
    for (name, store) in adapters().await {
        let bench = Bench::new(&store, "unheld");
        let epoch = bench.open(0).await;
        let claims = [bench.claim(100)];
        let ask = Ask { lease: lease(10, 0), ..bench.ask(1, &claims) };
        assert!(matches!(bench.asked(ask).await, Held::Taken { leased: 10, .. }), "{name}");
        for (call, listing, leased) in
            [(2, Listing::Unheld, 10), (3, Listing::FromLease, 9), (3, Listing::FromLease, 9)]
        {
            let note = Note { listing, ..bench.call(call, CallState::Settled, 1) };
            bench.note(epoch, &[note], None).await;
            assert_eq!(bench.count().await.unwrap().leased, leased, "{name} {listing:?}");
        }
    }
}
