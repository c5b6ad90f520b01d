//! Tests of what is called a difference and what is not, over a ledger in memory.

use std::collections::HashMap;

use super::counters::{CountersCheck, CountersFacts, CountersView, ROUNDS_MAX};
use super::journal::{JournalCheck, JournalFacts};
use super::ledger::{self, LedgerFacts};
use super::*;
use crate::domain::counting::Counting;
use crate::domain::event::{Corrected, Outcome, UsageEvent, UsageSource};
use crate::domain::money::PicoUsd;
use crate::domain::plan::{Metric, Standing, Subject};
use crate::domain::price::Priced;
use crate::domain::quantities::Quantities;
use crate::domain::time::{Micros, Period, Window};
use crate::domain::tokens::Tokens;
use crate::metering::fakes::{FakeStore, event, stratum};
use crate::ports::counters::{Counted, CounterKey, used_by};
use crate::ports::usage::{Sums, UsageStore, UsedKey};

const AT: &str = "2026-11-24T10:00:00Z";

fn chat(number: u128) -> UsageEvent {
    event("acme", number, "openai", "gpt-4o", AT)
}

async fn store(events: &[UsageEvent]) -> FakeStore {
    let store = FakeStore::default();
    store.append(events).await.unwrap();
    store
}

fn whats(differences: &Differences) -> Vec<(Kind, String)> {
    differences.kept().iter().map(|one| (one.kind, one.what.clone())).collect()
}

#[test]
fn a_stratum_counts_as_its_events_do() {
    for outcome in Outcome::ALL {
        for source in [UsageSource::Provider, UsageSource::Estimate] {
            for priced in Priced::ALL {
                let cost = (priced != Priced::Unpriced).then_some(PicoUsd(7));
                let tokens = Tokens { prompt: 9, cached: 1, reasoning: 2, completion: 3, ..Tokens::default() };
                let quantities = Quantities::from_kinds([5, 4, 3, 2, 1]);
                let billable = cost.map(|_| PicoUsd(8));
                let event = UsageEvent { outcome, source, priced, cost, billable, tokens, quantities, ..chat(1) };
                for corrects in [None].into_iter().chain(Priced::ALL.map(Some)) {
                    let corrects = corrects.map(|priced| Corrected { event: chat(2).id, priced });
                    let event = UsageEvent { corrects, ..event.clone() };
                    assert_eq!(stratum(&event).values(), Sums::of(&event).values(), "{event:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_ledger_that_agrees_with_itself_has_no_difference_and_its_progress_is_told() {
    let events: Vec<UsageEvent> = (0..40).map(chat).collect();
    let store = store(&events).await;
    let (mut differences, mut told) = (Differences::default(), Vec::new());
    let facts = ledger::compare(&store, &mut differences, &mut |done, of| told.push((done, of))).await.unwrap();
    assert_eq!((facts.events, facts.days, facts.months, differences.total()), (40, 1, 1, 0));
    assert_eq!((told.first(), told.last()), (Some(&(1, 40)), Some(&(40, 40))));
}

#[tokio::test]
async fn counters_of_every_metric_and_subject_are_compared() {
    let of_all = |number| {
        let (key, kb_id) = (Some("key_0123456789abcdef".parse().unwrap()), Some("kb".into()));
        UsageEvent { key, kb_id, ..chat(number) }
    };
    let store = store(&[of_all(1), of_all(2)]).await;
    let (ledger, journal) = (LedgerFacts::default(), JournalFacts::default());
    let used = store.used(Period::parse_month("2026-11").unwrap(), Counting::ALL).await.unwrap();
    let days = store.used(Period::parse_day("2026-11-24").unwrap(), Counting::ALL).await.unwrap();
    let all: Vec<(CounterKey, u64)> = used.into_iter().chain(days).collect();
    // A key, a user and a knowledge base beside the tenant.
    assert_eq!(all.len(), 24);
    for wrong in [None, Some(0), Some(7), Some(23)] {
        let counted = |(at, (counter, used)): (usize, &(CounterKey, u64))| {
            let used = used + u64::from(Some(at) == wrong);
            Counted { counter: counter.clone(), standing: Standing { used, held: 0 }, booked: used }
        };
        let counters = all.iter().enumerate().map(counted).collect();
        let view = CountersView { counters, ..view(0, 0, 0) };
        let mut check = CountersCheck::new(&store, &ledger, &journal);
        while check.look(view.clone()).await.unwrap() {}
        let mut differences = Differences::default();
        assert_eq!(check.finish(&mut differences).compared, 24);
        assert_eq!(differences.total(), u64::from(wrong.is_some()));
        if let (Some(wrong), [difference]) = (wrong, differences.kept()) {
            let CounterKey { subject, metric, period, .. } = &all[wrong].0;
            let of = if *subject == Subject::Tenant { String::new() } else { format!("{subject} ") };
            assert_eq!(difference.place, format!("counter acme {of}{} {period}", metric.as_str()));
        }
    }
}

#[test]
fn more_differences_than_are_kept_are_counted() {
    let mut differences = Differences::default();
    for _ in 0..DIFFERENCES_MAX + 5 {
        differences.add(Kind::Sum, "usage_daily acme", "chats", ("1", "2"));
    }
    assert_eq!((differences.kept().len(), differences.total()), (DIFFERENCES_MAX, DIFFERENCES_MAX as u64 + 5));
    assert_eq!(differences.kept()[0].to_string(), "usage_daily acme: chats: expected 1, found 2");
}

/// What it is, a journal, and what differs.
type Case = (&'static str, Vec<Record>, Vec<(Kind, &'static str)>);

/// A record of a journal.
enum Record {
    Settled(UsageEvent, bool),
    Open(UsageEvent),
    Quarantined(UsageEvent),
}

async fn journal(store: &FakeStore, records: Vec<Record>) -> (JournalFacts, Differences) {
    let mut differences = Differences::default();
    let mut check = JournalCheck::new(store, &mut differences);
    for record in records {
        match record {
            Record::Settled(event, booked) => check.settled(event, booked).await.unwrap(),
            Record::Open(event) => check.open(&event),
            Record::Quarantined(event) => check.quarantined(&event, "too dear").await.unwrap(),
        }
    }
    (check.finish().await.unwrap(), differences)
}

#[tokio::test]
async fn what_the_journal_holds_is_in_the_ledger_as_it_holds_it() {
    use Record::{Open, Quarantined, Settled};
    let store = store(&[chat(1), chat(2)]).await;
    let dear = UsageEvent { cost: Some(PicoUsd(1)), overhead_us: 5, ..chat(1) };
    let guess = UsageEvent { outcome: Outcome::Interrupted, status: 0, chats: 1, ..chat(1) };
    let answered = UsageEvent { outcome: Outcome::Interrupted, ..chat(1) };
    let timed = UsageEvent { overhead_us: 99, ..chat(2) };
    // So many that they are looked up in several batches.
    let many = || (0..600).map(|_| Settled(chat(1), true));
    let cases: Vec<Case> = vec![
        ("nothing", vec![], vec![]),
        ("booked and there", vec![Settled(chat(1), true), Settled(timed, true)], vec![]),
        ("waiting, and booked meanwhile", vec![Settled(chat(1), false)], vec![]),
        ("waiting", vec![Settled(chat(3), false), Open(chat(4))], vec![]),
        ("booked and gone", vec![Settled(chat(3), true)], vec![(Kind::Journal, "ledger")]),
        ("other content", vec![Settled(dear.clone(), true)], vec![(Kind::Journal, "estimated_cost_pico_usd")]),
        ("other content, waiting", vec![Settled(dear, false)], vec![(Kind::Journal, "estimated_cost_pico_usd")]),
        ("a guess of a start", vec![Settled(guess, true)], vec![]),
        ("an interrupted answer", vec![Settled(answered, true)], vec![(Kind::Journal, "outcome")]),
        ("refused", vec![Settled(chat(3), true), Quarantined(chat(3))], vec![(Kind::Quarantine, "ledger")]),
        ("refused, and asked for again", vec![Settled(chat(3), true), Settled(chat(3), false)], vec![]),
        (
            "the same over several batches",
            std::iter::once(Settled(chat(3), true)).chain(many()).chain([Settled(chat(3), false)]).collect(),
            vec![],
        ),
    ];
    for (name, records, expected) in cases {
        let expected: Vec<(Kind, String)> = expected.into_iter().map(|(kind, what)| (kind, what.to_owned())).collect();
        assert_eq!(whats(&journal(&store, records).await.1), expected, "{name}");
    }
}

#[tokio::test]
async fn what_waits_runs_and_was_refused_is_counted() {
    use Record::{Open, Quarantined, Settled};
    let store = store(&[chat(1)]).await;
    let records = vec![Settled(chat(1), true), Settled(chat(2), false), Open(chat(3)), Quarantined(chat(4))];
    let (facts, _) = journal(&store, records).await;
    assert_eq!((facts.settled, facts.waiting, facts.open, facts.quarantined), (2, 1, 1, 1));
    let refused: HashMap<CounterKey, u64> = used_by(&chat(4), Counting::ALL).into_iter().collect();
    assert!(refused.len() > 6, "of a user, too");
    assert_eq!(facts.quarantined_used, refused);
}

/// One that counts nothing but a chat.
fn only_a_chat(number: u128) -> UsageEvent {
    let (cost, billable) = (Some(PicoUsd::ZERO), Some(PicoUsd::ZERO));
    UsageEvent { tokens: Tokens::default(), cost, billable, ..chat(number) }
}

/// A look at the month's and the day's counter of `acme`, each with these chats used and held.
fn view(used: u64, held: u64, in_flight: u64) -> CountersView {
    let at: Micros = AT.parse().unwrap();
    let key = |window: Window| CounterKey {
        subject: Subject::Tenant,
        tenant: "acme".parse().unwrap(),
        metric: Metric::Chats,
        period: window.period(at),
    };
    let counters = [Window::Day, Window::Month]
        .map(|window| Counted { counter: key(window), standing: Standing { used, held }, booked: used })
        .into();
    CountersView { at, ledger_id: String::new(), is_booked: true, in_flight, is_shared: false, counters }
}

/// Shows one view after the other, with so many chats in the ledger after each.
async fn counted(views: Vec<(CountersView, u128)>, refused: u64) -> (CountersFacts, Differences) {
    let store = FakeStore::default();
    let counters = view(0, 0, 0).counters;
    let refused = counters.into_iter().map(|counted| (counted.counter, refused)).collect();
    let journal = JournalFacts { quarantined_used: refused, ..JournalFacts::default() };
    let ledger = LedgerFacts::default();
    let mut check = CountersCheck::new(&store, &ledger, &journal);
    let mut booked = 0;
    for (view, chats) in views {
        for number in booked..chats {
            store.append(&[only_a_chat(number)]).await.unwrap();
        }
        booked = chats;
        if !check.look(view).await.unwrap() {
            break;
        }
    }
    let mut differences = Differences::default();
    (check.finish(&mut differences), differences)
}

fn times(times: usize, view: &CountersView, chats: u128) -> Vec<(CountersView, u128)> {
    (0..times).map(|_| (view.clone(), chats)).collect()
}

#[tokio::test]
async fn a_counter_that_rests_is_right_or_wrong() {
    let facts = |compared, rounds| CountersFacts { compared, rounds, ..CountersFacts::default() };
    for (used, expected) in [(5, 0), (6, 2), (4, 2), (0, 2)] {
        let (found, differences) = counted(times(30, &view(used, 0, 0), 5), 0).await;
        assert_eq!(differences.total(), expected, "{used}");
        assert_eq!(found, facts(2, if expected == 0 { 1 } else { 3 }), "{used}");
    }
    let (_, differences) = counted(times(30, &view(7, 0, 0), 5), 0).await;
    let told = differences.kept()[0].to_string();
    assert_eq!(told, "counter acme chats 2026-11-24: used: expected 5 in the ledger, found 7");
}

#[tokio::test]
async fn a_counter_of_a_running_period_that_is_not_there_is_wrong() {
    let none = CountersView { counters: Vec::new(), ..view(0, 0, 0) };
    let (facts, differences) = counted(times(30, &none, 5), 0).await;
    assert_eq!((differences.total(), facts.compared), (2, 2));
}

#[tokio::test]
async fn a_counter_that_moves_is_wrong_only_beyond_its_movement() {
    let moving =
        |ahead: u64| (0..60).map(move |round: u64| (view(round * 10 + ahead, 1, 1), u128::from(round * 10 + 4)));
    let (facts, differences) = counted(moving(0).collect(), 0).await;
    assert_eq!((differences.total(), facts.compared, facts.moving, facts.rounds), (0, 0, 2, ROUNDS_MAX));
    assert_eq!(facts.moving_off_max, 6, "4 behind the first answer, 6 before the next");
    // By one more than the ledger moved on: certain.
    let (facts, differences) = counted(moving(5).collect(), 0).await;
    assert_eq!((differences.total(), facts.compared, facts.rounds), (2, 2, 3));
    // What the answers leave open shrinks to nothing: right, though it never rested.
    let views = [(view(1, 1, 1), 1), (view(3, 1, 1), 3), (view(4, 1, 1), 4), (view(4, 1, 1), 4)];
    let (facts, differences) = counted(views.into(), 0).await;
    assert_eq!((differences.total(), facts.compared, facts.moving), (0, 2, 0));
}

#[tokio::test]
async fn a_call_between_journal_and_counter_is_no_difference() {
    // Booked, and not counted yet when the first and the second answer were made; or the other way round.
    let late = [(view(5, 1, 0), 6), (view(5, 1, 0), 6), (view(6, 0, 0), 6), (view(6, 0, 0), 6)];
    let early = [(view(6, 0, 1), 5), (view(6, 0, 1), 6), (view(6, 0, 0), 6), (view(6, 0, 0), 6)];
    for views in [late, early] {
        let (facts, differences) = counted(views.into(), 0).await;
        assert_eq!((differences.total(), facts.compared), (0, 2));
    }
}

#[tokio::test]
async fn chats_that_the_ledger_refused_may_be_counted_or_not() {
    for (used, expected) in [(4, 2), (5, 0), (6, 0), (7, 0), (8, 2)] {
        let (_, differences) = counted(times(30, &view(used, 0, 0), 5), 2).await;
        assert_eq!(differences.total(), expected, "{used}");
    }
}

#[tokio::test]
async fn a_hold_of_no_call_is_a_difference() {
    for (held, in_flight, expected) in [(1, 1, 0), (0, 0, 0), (1, 0, 2)] {
        let (_, differences) = counted(times(30, &view(5, held, in_flight), 5), 0).await;
        let held: Vec<_> = whats(&differences).into_iter().filter(|(_, what)| what == "held").collect();
        assert_eq!(held.len(), expected, "{held:?} {in_flight}");
    }
}

#[tokio::test]
async fn a_ledger_that_stays_behind_is_said_to_be() {
    let behind = CountersView { is_booked: false, ..view(9, 0, 0) };
    let (facts, differences) = counted(times(60, &behind, 5), 0).await;
    assert_eq!((differences.total(), facts.behind, facts.compared), (0, true, 0));
    let mut views = times(2, &behind, 5);
    views.extend(times(3, &view(9, 0, 0), 9));
    let (facts, differences) = counted(views, 0).await;
    assert_eq!((differences.total(), facts.behind, facts.compared), (0, false, 2));
}

#[tokio::test]
async fn counters_are_compared_with_the_events_where_sums_are_wrong() {
    let store = store(&[only_a_chat(1), only_a_chat(2)]).await;
    // The events are one less than the sums say.
    let counters = view(0, 0, 0).counters;
    let beyond = counters.iter().map(|counted| (UsedKey::of(&counted.counter), [-1, 0, 0])).collect();
    let ledger = LedgerFacts { used_beyond_sums: beyond, ..LedgerFacts::default() };
    for (used, expected) in [(1, 0), (2, 2)] {
        let journal = JournalFacts::default();
        let mut check = CountersCheck::new(&store, &ledger, &journal);
        while check.look(view(used, 0, 0)).await.unwrap() {}
        let mut differences = Differences::default();
        check.finish(&mut differences);
        assert_eq!(differences.total(), expected, "{used}");
    }
}
