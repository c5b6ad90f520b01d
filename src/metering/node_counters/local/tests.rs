//! Tests of what one gateway knows, without a store.

use super::*;
use crate::domain::plan::{Metric, Subject};
use crate::domain::time::Period;

#[test]
fn a_doubt_since_the_calls_were_listed_outlives_the_answer() {
    let (mut local, bill) = (Local::default(), EventId::new(1, 1));
    let (listed, _) = local.join(1).unwrap();
    // Another node booked the bill meanwhile, and the sums that open the tenant may have it.
    local.adopt(bill, Vec::new());
    local.doubt(bill, true);
    local.joined(Joined::Building(Epoch(1)), &listed, 2);
    assert!(local.is_doubtful() && local.batch(3).is_none(), "nothing is told before all is built anew");
    local.not_joined(None);
    let (listed, _) = local.join(4).unwrap();
    local.joined(Joined::Building(Epoch(2)), &listed, 5);
    assert!(!local.is_doubtful());
}

/// A claim of the only chat that a month has.
fn last_chat() -> [Claim; 1] {
    let (tenant, period) = ("acme".parse().unwrap(), Period::parse_month("2026-11").unwrap());
    let counter = CounterKey { tenant, subject: Subject::Tenant, metric: Metric::Chats, period };
    [Claim { counter, amount: 1, max: Some(1) }]
}

/// One that is a part of an epoch and has a lease of so many units.
fn leasing(units: u64) -> Local {
    let (mut local, claims, id) = (Local::default(), last_chat(), EventId::new(1, 1));
    local.join(1).unwrap();
    local.joined(Joined::Building(Epoch(1)), &[], 2);
    local.not_joined(None);
    local.is_open(2);
    let Begin::Ask(mut asking) = local.begin(id, &claims, 3, true) else { panic!("it does not ask") };
    local.with_lease(&mut asking, &claims, (units, 1, Duration::from_secs(10)));
    local.held(id, &claims, &asking, (Epoch(1), &[Count { held: 1, ..Count::default() }], units)).unwrap();
    local.asked(&asking, None, false);
    local
}

/// What the only note of the next message says, which arrives.
fn told(local: &mut Local, now_us: u64) -> (CallState, Listing) {
    let batch = local.batch(now_us).unwrap();
    local.told(&batch);
    let [note] = &*batch.notes else { panic!("{:?}", batch.notes) };
    (note.state, note.listing)
}

#[test]
fn a_call_that_was_given_back_before_it_was_listed_never_counts_as_used() {
    let (mut local, claims, id) = (leasing(1), last_chat(), EventId::new(2, 2));
    assert!(matches!(local.begin(id, &claims, 4, true), Begin::Held(_)));
    let lost = local.batch(5).unwrap();
    local.settle(id, &[]);
    local.not_told(&lost, 6);
    // With this in the store another call is refused: it must not be refused for good, as one chat is left in a moment.
    assert_eq!(told(&mut local, 7), (CallState::Held, Listing::FromLease));
    local.refused(EventId::new(3, 3), &claims, 0, &Count { held: 1, ..Count::default() });
    assert!(!matches!(local.begin(EventId::new(4, 4), &claims, 8, true), Begin::Refused { .. }));
    assert_eq!(told(&mut local, 9), (CallState::Gone, Listing::Known));
    assert!(!local.calls.contains_key(&id));
}

#[test]
fn a_refusal_holds_for_the_window_where_nothing_is_held() {
    let (mut local, claims, id) = (leasing(0), last_chat(), EventId::new(2, 2));
    assert!(matches!(local.begin(id, &claims, 4, true), Begin::Ask(_)));
    local.refused(id, &claims, 0, &Count { settled: 1, ..Count::default() });
    assert!(matches!(local.begin(id, &claims, 5, true), Begin::Refused { .. }));
}
