//! What every [`UsageStore`] promises of old events that are dropped: their sums stay, and nothing wrong is said of them.

use tollgate::domain::event::UsageEvent;
use tollgate::domain::time::{Micros, Period};
use tollgate::metering::verify::{Differences, ledger};
use tollgate::ports::StoreError;
use tollgate::ports::usage::{Dimension, EventsQuery, SumsQuery};

use super::usage::{Store, adapters};
use super::{at, event, tenant};

/// One event a day from the first of September 2026 to the last of November, half of them of another tenant, booked in an
/// order of their own, but for the last: the newest event of a ledger is hardly ever an old one, and may stay.
fn events() -> Vec<UsageEvent> {
    let start = at("2026-09-01T12:00:00Z").0;
    (0..91)
        .map(|day: i64| UsageEvent {
            tenant: tenant(if day % 2 == 0 { "acme" } else { "beta" }),
            requested_at: Micros(start + if day < 90 { day * 37 % 90 } else { 90 } * 86_400_000_000),
            ..event(u64::try_from(day).unwrap())
        })
        .collect()
}

fn month(text: &str) -> Period {
    Period::parse_month(text).unwrap()
}

async fn months(store: &Store, before: &str) -> Vec<(String, u64)> {
    let found = store.old_events(month(before)).await.unwrap();
    found.into_iter().map(|(month, events)| (month.to_string(), events)).collect()
}

/// How many events there are.
async fn left(store: &Store) -> usize {
    let list = EventsQuery { tenant: None, from: None, to: None, priced: None, after: None, events_max: 10_000 };
    store.events(&list).await.unwrap().len()
}

async fn drop_before(store: &Store, before: &str) -> Vec<u64> {
    let mut told = Vec::new();
    store.drop_events(month(before), &mut |done| told.push(done)).await.unwrap();
    told
}

async fn demand_no_difference(name: &str, store: &Store) {
    let mut differences = Differences::default();
    ledger::compare(&**store, &mut differences, &mut |_, _| {}).await.unwrap();
    assert_eq!(differences.kept(), [], "{name}");
}

fn sums(of: Option<&str>, period: Option<&str>, group_by: &[Dimension]) -> SumsQuery {
    SumsQuery { tenant: of.map(tenant), period: period.map(month), group_by: group_by.to_vec() }
}

/// Everything that sums tell.
async fn all_sums(store: &Store) -> Vec<tollgate::ports::usage::Group> {
    let by = [Dimension::Day, Dimension::Provider, Dimension::Model];
    let mut all = Vec::new();
    for of in [None, Some("acme"), Some("beta")] {
        all.extend(store.sums(&sums(of, None, &by)).await.unwrap());
        all.extend(store.sums(&sums(of, None, &[])).await.unwrap());
        all.extend(store.sums(&sums(of, Some("2026-09"), &[])).await.unwrap());
    }
    all
}

#[tokio::test]
async fn old_events_go_and_their_sums_stay() {
    for (name, store, _keep) in adapters().await {
        store.append(&events()).await.unwrap();
        let before = all_sums(&store).await;
        assert_eq!(store.events_from().await, Ok(None), "{name}");
        let both = [("2026-09".to_owned(), 30), ("2026-10".to_owned(), 31)];
        assert_eq!(months(&store, "2026-11").await, both, "{name}");

        assert_eq!(drop_before(&store, "2026-11").await.last(), Some(&61), "{name}");
        assert_eq!(months(&store, "2026-11").await, [], "{name}");
        assert_eq!(left(&store).await, 30, "{name}");
        assert_eq!(store.events_from().await, Ok(Some(month("2026-11").start())), "{name}");
        assert_eq!(all_sums(&store).await, before, "{name}");
        demand_no_difference(name, &store).await;
        // Again there is nothing, and what is kept does not become less.
        drop_before(&store, "2026-11").await;
        drop_before(&store, "2026-10").await;
        assert_eq!(store.events_from().await, Ok(Some(month("2026-11").start())), "{name}");
        demand_no_difference(name, &store).await;
    }
}

#[tokio::test]
async fn what_only_dropped_events_could_tell_is_refused_and_the_rest_is_told() {
    for (name, store, _keep) in adapters().await {
        store.append(&events()).await.unwrap();
        drop_before(&store, "2026-10").await;
        let is_refused = |answer: Result<usize, StoreError>| matches!(answer, Err(StoreError::Missing(what)) if what.contains("2026-10-01"));
        for by in [Dimension::Key, Dimension::User, Dimension::Kb, Dimension::Hour] {
            let by = [Dimension::Provider, by];
            for (of, period, refused) in [
                (None, None, true),
                (Some("acme"), None, true),
                (Some("acme"), Some("2026-09"), true),
                (Some("acme"), Some("2026-10"), false),
                (None, Some("2026-11"), false),
                (Some("nobody"), None, false),
                (None, Some("2026-08"), false),
            ] {
                let answer = store.sums(&sums(of, period, &by)).await.map(|groups| groups.len());
                assert_eq!(is_refused(answer), refused, "{name} {of:?} {period:?} {by:?}");
            }
        }
        for (from, to, refused) in [
            (None, None, false),
            (Some("2026-09-30T00:00:00Z"), None, true),
            (None, Some("2026-09-30T00:00:00Z"), true),
            (Some("2026-10-01T00:00:00Z"), None, false),
            (None, Some("2026-08-01T00:00:00Z"), false),
        ] {
            let (from, to) = (from.map(at), to.map(at));
            let query = EventsQuery { tenant: None, from, to, priced: None, after: None, events_max: 100 };
            assert_eq!(is_refused(store.events(&query).await.map(|events| events.len())), refused, "{name} {query:?}");
        }
    }
}

#[tokio::test]
async fn an_event_that_comes_after_its_month_was_dropped_is_booked_all_the_same() {
    for (name, store, _keep) in adapters().await {
        store.append(&events()).await.unwrap();
        drop_before(&store, "2026-11").await;
        let late = UsageEvent { requested_at: at("2026-09-05T00:00:00Z"), ..event(1_000) };
        assert_eq!(store.append(std::slice::from_ref(&late)).await, Ok(1), "{name}");
        assert_eq!(store.append(std::slice::from_ref(&late)).await, Ok(0), "{name}");
        let september = store.sums(&sums(None, Some("2026-09"), &[])).await.unwrap();
        assert_eq!(september[0].sums.requests, 31, "{name}");
        assert_eq!(store.event(None, late.id).await.unwrap().unwrap().event, late, "{name}");
        demand_no_difference(name, &store).await;
        drop_before(&store, "2026-11").await;
        demand_no_difference(name, &store).await;
    }
}

#[tokio::test]
async fn a_month_ends_when_the_clock_of_the_tenant_says() {
    for (name, store, _keep) in adapters().await {
        let of = |number: u64, requested_at: &str, hours: i32| UsageEvent {
            requested_at: at(requested_at),
            utc_offset_s: hours * 3_600,
            ..event(1_000 + number)
        };
        let gone =
            [of(1, "2026-10-31T09:00:00Z", 14), of(2, "2026-11-01T07:00:00Z", -8), of(3, "2026-10-15T00:00:00Z", 0)];
        let kept =
            [of(4, "2026-10-31T11:00:00Z", 14), of(5, "2026-11-01T09:00:00Z", -8), of(6, "2026-11-01T00:00:00Z", 0)];
        store.append(&[gone.clone(), kept.clone()].concat()).await.unwrap();
        let before = all_sums(&store).await;
        assert_eq!(drop_before(&store, "2026-11").await.last(), Some(&3), "{name}");
        let list = EventsQuery { tenant: None, from: None, to: None, priced: None, after: None, events_max: 9 };
        let left: Vec<_> = store.events(&list).await.unwrap().into_iter().map(|stored| stored.event).collect();
        assert_eq!(left, kept, "{name}");
        assert_eq!(all_sums(&store).await, before, "{name}");
        assert_eq!(months(&store, "2026-11").await, [], "{name}");
        demand_no_difference(name, &store).await;
    }
}

#[tokio::test]
async fn a_row_never_has_the_number_of_one_that_was_dropped() {
    for (name, store, _keep) in adapters().await {
        store.append(&events()).await.unwrap();
        let list = EventsQuery { tenant: None, from: None, to: None, priced: None, after: None, events_max: 1_000 };
        let last = store.events(&list).await.unwrap().last().unwrap().row;
        drop_before(&store, "2027-01").await;
        store.append(&[event(1_000)]).await.unwrap();
        let after = store.events(&EventsQuery { after: Some(last), ..list }).await.unwrap();
        assert_eq!(after.iter().map(|stored| stored.event.id).collect::<Vec<_>>(), [event(1_000).id], "{name}");
        demand_no_difference(name, &store).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_written_read_and_compared_while_others_are_dropped() {
    for (name, store, _keep) in adapters().await {
        // Some months of many small pieces.
        let old: Vec<UsageEvent> = (0..9_000)
            .map(|number| {
                let requested_at = at(&format!("2026-{:02}-10T00:00:00Z", 1 + number % 9));
                UsageEvent { requested_at, ..event(number) }
            })
            .collect();
        for batch in old.chunks(1_500) {
            store.append(batch).await.unwrap();
        }
        let writer = tokio::spawn({
            let store = store.clone();
            async move {
                for number in 100_000..100_100 {
                    store.append(&[event(number)]).await.unwrap();
                }
            }
        });
        let dropping = tokio::spawn({
            let store = store.clone();
            async move { drop_before(&store, "2026-10").await }
        });
        while !(writer.is_finished() && dropping.is_finished()) {
            demand_no_difference(name, &store).await;
        }
        writer.await.unwrap();
        let told = dropping.await.unwrap();
        assert!(told.is_sorted() && told.len() > 3, "{name}: {told:?}");
        assert_eq!(told.last(), Some(&9_000), "{name}");
        assert_eq!(left(&store).await, 100, "{name}");
        demand_no_difference(name, &store).await;
    }
}
