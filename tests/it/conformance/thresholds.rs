//! What every [`UsageStore`](tollgate::ports::usage::UsageStore) promises of thresholds: each is crossed once in a window, by
//! what is booked, whoever books it.

use std::sync::Arc;

use tollgate::domain::event::{Corrected, Outcome, UsageEvent};
use tollgate::domain::ids::EventId;
use tollgate::domain::money::PicoUsd;
use tollgate::domain::plan::{Limit, Metric, Plan, Scope, Subject};
use tollgate::domain::price::Priced;
use tollgate::domain::threshold::{Crossing, Thresholds};
use tollgate::domain::time::{Micros, Period, Window};
use tollgate::domain::tokens::Tokens;
use tollgate::ports::counters::CounterKey;
use tollgate::ports::crossings::{Appended, CrossingsQuery, Watched};

use super::usage::{Store, adapters};
use super::{at, event, tenant};

/// What a test tells of a crossing: of whom, what, in which period, which percent, how much was used, by which event.
type Told = (Subject, Metric, String, u16, u64, EventId);

fn limit(scope: Scope, metric: Metric, window: Window, max: u64) -> Limit {
    Limit { scope, metric, window, max }
}

fn watched(limits: &[Limit], thresholds: &str) -> Watched {
    let plan = Plan {
        limits: limits.to_vec(),
        thresholds: Thresholds::parse(thresholds).unwrap(),
        ..Plan::unlimited("small".parse().unwrap())
    };
    [(tenant("acme"), Arc::new(plan))].into_iter().collect()
}

/// Ten chats a month.
fn ten_chats() -> Watched {
    watched(&[limit(Scope::Tenant, Metric::Chats, Window::Month, 10)], "80,100")
}

/// Some plain events with these numbers.
fn some(numbers: std::ops::Range<u64>) -> Vec<UsageEvent> {
    numbers.map(event).collect()
}

fn told(crossings: &[Crossing]) -> Vec<Told> {
    let one = |Crossing { subject, metric, period, percent, used, event, .. }: &Crossing| {
        (subject.clone(), *metric, period.to_string(), *percent, *used, *event)
    };
    crossings.iter().map(one).collect()
}

async fn append(store: &Store, events: &[UsageEvent], watched: &Watched) -> (u64, Vec<Told>) {
    let Appended { new, crossed } = store.append_watched(events, watched).await.unwrap();
    (new, told(&crossed))
}

/// All that is noted, which is in ascending rows.
async fn listed(store: &Store) -> Vec<Crossing> {
    let query = CrossingsQuery { tenant: None, after: 0, crossings_max: 1_000 };
    let found = store.crossings(&query).await.unwrap();
    assert!(found.is_sorted_by(|one, next| one.row < next.row) && found.iter().all(|one| one.row > 0));
    found.into_iter().map(|stored| stored.crossing).collect()
}

fn chats(percent: u16, used: u64, by: u64) -> Told {
    (Subject::Tenant, Metric::Chats, "2026-11".to_owned(), percent, used, event(by).id)
}

#[tokio::test]
async fn each_threshold_is_crossed_once_by_the_event_that_reaches_it() {
    for (name, store, _keep) in adapters().await {
        let plan = ten_chats();
        assert_eq!(append(&store, &some(0..7), &plan).await, (7, vec![]), "{name}");
        assert_eq!(append(&store, &some(7..8), &plan).await, (1, vec![chats(80, 8, 7)]), "{name}");
        assert_eq!(append(&store, &some(8..9), &plan).await, (1, vec![]), "{name}");
        assert_eq!(append(&store, &some(9..12), &plan).await, (3, vec![chats(100, 12, 9)]), "{name}");
        assert_eq!(append(&store, &some(12..30), &plan).await, (18, vec![]), "{name}");
        let all = listed(&store).await;
        assert_eq!(told(&all), [chats(80, 8, 7), chats(100, 12, 9)], "{name}");
        let Crossing { tenant: whose, limit, plan, at, .. } = &all[0];
        let over = Micros(event(7).requested_at.0 + 1_200);
        assert_eq!((whose, *limit, plan.as_str(), *at), (&tenant("acme"), 10, "small", over), "{name}");
    }
}

#[tokio::test]
async fn a_batch_that_jumps_crosses_all_it_jumps_over() {
    for (name, store, _keep) in adapters().await {
        // Others' calls, and an event that is there already, count nothing here.
        store.append(&some(0..1)).await.unwrap();
        let mut batch = some(0..20);
        batch.insert(5, UsageEvent { tenant: tenant("beta"), ..event(100) });
        let crossed = append(&store, &batch, &ten_chats()).await;
        assert_eq!(crossed, (20, vec![chats(80, 20, 7), chats(100, 20, 9)]), "{name}");
        // One event may cross several thresholds and limits.
        let limits = [
            limit(Scope::Tenant, Metric::Tokens, Window::Day, 10),
            limit(Scope::Key, Metric::Cost, Window::Month, 100),
            limit(Scope::Tenant, Metric::Chats, Window::Day, 0),
        ];
        let longest = i64::MAX.unsigned_abs();
        let next = [UsageEvent { requested_at: at("2026-12-24T10:00:00Z"), duration_us: longest, ..event(200) }];
        let key = Subject::Key("key_0123456789abcdef".parse().unwrap());
        let mut crossed = append(&store, &next, &watched(&limits, "1,1000")).await.1;
        crossed.sort();
        let by = |subject: &Subject, metric, period: &str, percent, used| {
            (subject.clone(), metric, period.to_owned(), percent, used, next[0].id)
        };
        let expected = [
            by(&Subject::Tenant, Metric::Tokens, "2026-12-24", 1, 18),
            by(&key, Metric::Cost, "2026-12", 1, 97_500),
            by(&key, Metric::Cost, "2026-12", 1_000, 97_500),
        ];
        assert_eq!(crossed, expected, "{name}");
        assert_eq!(listed(&store).await[2].at, Micros(i64::MAX), "{name}");
    }
}

#[tokio::test]
async fn what_is_there_already_and_corrections_cross_nothing() {
    for (name, store, _keep) in adapters().await {
        let cost = watched(&[limit(Scope::Tenant, Metric::Cost, Window::Month, 975_000)], "80,100");
        // 97,500 nano-dollars each.
        assert_eq!(append(&store, &some(0..7), &cost).await, (7, vec![]), "{name}");
        let correction = UsageEvent {
            chats: 0,
            tokens: Tokens::default(),
            outcome: Outcome::Correction,
            cost: Some(PicoUsd(900_000_000)),
            billable: Some(PicoUsd(900_000_000)),
            corrects: Some(Corrected { event: event(0).id, priced: Priced::Priced }),
            ..event(50)
        };
        assert_eq!(append(&store, &[correction], &cost).await, (1, vec![]), "{name}");
        // The same batch again, as after an answer that was lost.
        assert_eq!(append(&store, &some(0..7), &cost).await, (0, vec![]), "{name}");
        let (new, crossed) = append(&store, &some(4..10), &cost).await;
        let used: Vec<_> = crossed.iter().map(|(.., percent, used, by)| (*percent, *used, *by)).collect();
        assert_eq!((new, used), (3, vec![(80, 975_000, event(7).id), (100, 975_000, event(9).id)]), "{name}");
        assert_eq!(append(&store, &some(4..10), &cost).await, (0, vec![]), "{name}");
        assert_eq!(listed(&store).await.len(), 2, "{name}");
    }
}

#[tokio::test]
async fn another_window_has_thresholds_of_its_own_and_another_limit_none() {
    for (name, store, _keep) in adapters().await {
        assert_eq!(append(&store, &some(0..10), &ten_chats()).await.1.len(), 2, "{name}");
        // A limit that is raised is passed again; a plan that is lowered is passed already.
        let more = watched(&[limit(Scope::Tenant, Metric::Chats, Window::Month, 20)], "80,100");
        let fewer = watched(&[limit(Scope::Tenant, Metric::Chats, Window::Month, 5)], "50,100");
        assert_eq!(append(&store, &some(10..25), &more).await, (15, vec![]), "{name}");
        assert_eq!(append(&store, &some(25..26), &fewer).await, (1, vec![]), "{name}");
        let december = |number| UsageEvent { requested_at: at("2026-12-01T00:00:00Z"), ..event(number) };
        let next: Vec<UsageEvent> = (100..110).map(december).collect();
        let crossed = append(&store, &next, &ten_chats()).await.1;
        let expected = [(80, 107), (100, 109)]
            .map(|(percent, by)| (Subject::Tenant, Metric::Chats, "2026-12".to_owned(), percent, 10, event(by).id));
        assert_eq!(crossed, expected, "{name}");
        assert_eq!(listed(&store).await.len(), 4, "{name}");
    }
}

#[tokio::test]
async fn a_user_crosses_for_itself_and_is_asked_for_by_its_counter() {
    for (name, store, _keep) in adapters().await {
        let plan = watched(&[limit(Scope::User, Metric::Chats, Window::Day, 4)], "50,100");
        let of = |user: &str, number| UsageEvent { user_id: Some(user.into()), ..event(number) };
        let odd = "bob \u{1f980} '\"%";
        let batch = [of("alice", 1), of(odd, 2), of("alice", 3), event(4), of(odd, 5), of("alice", 6), of("alice", 7)];
        let (new, crossed) = append(&store, &batch, &plan).await;
        let by = |user: &str, percent, used, by: u64| {
            (Subject::User(user.into()), Metric::Chats, "2026-11-24".to_owned(), percent, used, event(by).id)
        };
        let expected = vec![by("alice", 50, 4, 3), by(odd, 50, 2, 5), by("alice", 100, 4, 7)];
        assert_eq!((new, &crossed), (7, &expected), "{name}");
        assert_eq!(told(&listed(&store).await), expected, "{name}");
        let counter = |subject, metric, period| CounterKey { tenant: tenant("acme"), subject, metric, period };
        let day = Period::parse_day("2026-11-24").unwrap();
        let asked = [
            counter(Subject::User(odd.into()), Metric::Chats, day),
            counter(Subject::User("alice".into()), Metric::Tokens, day),
            counter(Subject::User("alice".into()), Metric::Chats, Period::parse_month("2026-11").unwrap()),
            counter(Subject::Kb(odd.into()), Metric::Chats, day),
        ];
        assert_eq!(told(&store.crossed(&asked).await.unwrap()), [by(odd, 50, 2, 5)], "{name}");
        assert_eq!(store.crossed(&[]).await, Ok(vec![]), "{name}");
    }
}

#[tokio::test]
async fn pages_follow_one_another_and_old_crossings_go_with_their_sums() {
    for (name, store, _keep) in adapters().await {
        let plan = watched(&[limit(Scope::Tenant, Metric::Chats, Window::Day, 1)], "100");
        let on = |day: i64| UsageEvent {
            requested_at: Micros(at("2026-09-01T12:00:00Z").0 + day * 86_400_000_000),
            ..event(u64::try_from(day).unwrap())
        };
        let days: Vec<UsageEvent> = (0..91).map(on).collect();
        assert_eq!(append(&store, &days, &plan).await.1.len(), 91, "{name}");
        let page = async |of: Option<&str>, after, crossings_max| {
            let query = CrossingsQuery { tenant: of.map(tenant), after, crossings_max };
            store.crossings(&query).await.unwrap()
        };
        let first = page(Some("acme"), 0, 60).await;
        let rest = page(None, first[59].row, 60).await;
        let all: Vec<EventId> = first.iter().chain(&rest).map(|stored| stored.crossing.event).collect();
        assert_eq!(all, days.iter().map(|event| event.id).collect::<Vec<_>>(), "{name}");
        assert_eq!(page(Some("beta"), 0, 60).await, [], "{name}");
        // Sums are kept a month longer than events.
        store.drop_events(Period::parse_month("2026-11").unwrap(), &mut |_| ()).await.unwrap();
        let left = page(None, 0, 100).await;
        assert_eq!((left.len(), left[0].crossing.period.to_string()), (61, "2026-10-01".to_owned()), "{name}");
    }
}
