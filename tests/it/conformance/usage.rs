//! What every [`UsageStore`] promises.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use tollgate::domain::counting::Counting;
use tollgate::domain::event::{Corrected, Correction, Outcome, UsageEvent, UsageSource};
use tollgate::domain::ids::ProviderId;
use tollgate::domain::money::PicoUsd;
use tollgate::domain::plan::{Metric, Scope, Subject};
use tollgate::domain::price::{Priced, ServiceTier};
use tollgate::domain::quantities::Quantities;
use tollgate::domain::time::{Micros, Period, Window};
use tollgate::domain::tokens::Tokens;
use tollgate::ports::StoreError;
use tollgate::ports::counters::CounterKey;
use tollgate::ports::usage::{
    Dimension, Entry, EventsQuery, Group, StandingOf, SumKey, SumValues, Sums, SumsQuery, UsageStore, UsedKey,
    UsedValues,
};

use super::{Keep, at, event, event_id, postgres, sqlite, tenant};

pub(super) type Store = Arc<dyn UsageStore>;

/// Every adapter, empty, with what has to live as long as it does.
pub(super) async fn adapters() -> Vec<(&'static str, Store, Keep)> {
    let (sqlite, directory) = sqlite().await;
    let (postgres, database) = postgres().await;
    vec![("sqlite", sqlite, Box::new(directory)), ("postgres", postgres, Box::new(database))]
}

/// Events of all kinds: three tenants, two providers, three models, keys, users and none, two months around midnight,
/// every outcome, estimates, unpriced models, and the dearest rows there can be.
fn many() -> Vec<UsageEvent> {
    let times = ["2026-10-31T23:59:59.999999Z", "2026-11-01T00:00:00Z", "2026-11-24T10:59:59Z", "2026-11-24T11:00:00Z"];
    (0..600_u64)
        .map(|number| {
            // A linear congruential sequence (Knuth's MMIX constants) for each event: arbitrary, the same in every run.
            let mut state = number;
            let mut pick = |out_of: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                usize::try_from((state >> 33) % out_of).unwrap()
            };
            let outcome = Outcome::ALL[pick(9)];
            let is_correction = outcome == Outcome::Correction;
            let source = [UsageSource::Provider, UsageSource::Estimate][pick(2)];
            let priced = [Priced::Priced, Priced::Unpriced, Priced::Free, Priced::Incomplete][pick(4)];
            let cost = match priced {
                _ if is_correction => Some(PicoUsd(1_500_000 * i128::from(number) - 300_000_001)),
                Priced::Unpriced => None,
                Priced::Free => Some(PicoUsd::ZERO),
                Priced::Priced => Some(PicoUsd::from(i64::MAX)),
                Priced::Incomplete => Some(PicoUsd(1_000_000 + i128::from(number))),
            };
            let tokens = Tokens {
                prompt: number * 11,
                cached: number,
                cache_write: number * 2,
                cache_write_long: number,
                prompt_audio: number * 3,
                prompt_image: number * 4,
                cached_audio: number / 2,
                completion: number * 7,
                reasoning: number * 5,
                completion_audio: number * 6,
                completion_image: number / 3,
            };
            let has_used = !outcome.is_failed() && !is_correction;
            let quantities = Quantities::from_kinds([number * 1_001, number * 9, number / 7, number % 4, number % 3]);
            UsageEvent {
                tenant: tenant(["acme", "beta", "gamma"][pick(3)]),
                key: [None, Some("key_0123456789abcdef".parse().unwrap())][pick(2)].clone(),
                user_id: [None, Some("alice".into()), Some("bob \u{1f980} '\"%".into())][pick(3)].clone(),
                kb_id: [None, Some("kb".into())][pick(2)].clone(),
                provider: ProviderId::new(["openai", "gemini"][pick(2)]),
                model: ["gpt-4o", "gemini-pro", "o3"][pick(3)].into(),
                chats: u64::from(has_used),
                tokens: if has_used { tokens } else { Tokens::default() },
                quantities: if has_used { quantities } else { Quantities::default() },
                source,
                cost,
                billable: cost.map(|cost| PicoUsd(if is_correction { cost.0 - 7 } else { cost.0 / 10 * 9 })),
                priced,
                service_tier: ServiceTier::ALL[pick(4)],
                requested_at: at(times[pick(4)]),
                utc_offset_s: [0, 19_800, -36_000][pick(3)],
                first_byte_us: [None, Some(5)][pick(2)],
                status: [0, 200, 599][pick(3)],
                outcome,
                request_id: [None, Some("req".into())][pick(2)].clone(),
                corrects: is_correction
                    .then(|| Corrected { event: event(number / 2).id, priced: Priced::ALL[pick(4)] }),
                ..event(number)
            }
        })
        .collect()
}

fn value(event: &UsageEvent, dimension: Dimension) -> Option<String> {
    let text = |text: &Option<Box<str>>| text.as_ref().map(ToString::to_string);
    match dimension {
        Dimension::Provider => Some(event.provider.to_string()),
        Dimension::Model => Some(event.model.to_string()),
        Dimension::Key => event.key.as_ref().map(ToString::to_string),
        Dimension::User => text(&event.user_id),
        Dimension::Kb => text(&event.kb_id),
        Dimension::Day => Some(event.period(Window::Day).to_string()),
        Dimension::Hour => event.local().to_string().get(..13).map(str::to_owned),
    }
}

/// The answer by plain addition over the events.
fn model(events: &[UsageEvent], query: &SumsQuery) -> Vec<Group> {
    let mut groups: BTreeMap<Vec<Option<String>>, Sums> = BTreeMap::new();
    if query.group_by.is_empty() {
        groups.insert(Vec::new(), Sums::default());
    }
    for event in events {
        let is_asked = query.tenant.as_ref().is_none_or(|tenant| *tenant == event.tenant)
            && query.period.is_none_or(|period| event.period(period.window()) == period);
        if is_asked {
            let values = query.group_by.iter().map(|dimension| value(event, *dimension)).collect();
            let sums = groups.entry(values).or_default();
            *sums = sums.plus(&Sums::of(event)).unwrap();
        }
    }
    groups.into_iter().map(|(values, sums)| Group { values, sums }).collect()
}

fn total(tenant: Option<&str>, period: Option<Period>) -> SumsQuery {
    SumsQuery { tenant: tenant.map(super::tenant), period, group_by: Vec::new() }
}

fn list(after: Option<i64>, events_max: u32) -> EventsQuery {
    EventsQuery { tenant: None, from: None, to: None, priced: None, after, events_max }
}

/// Whether days, months and events tell the same, whichever of them a question is answered from.
async fn check_sums(name: &str, store: &Store, events: &[UsageEvent]) {
    let groupings: [&[Dimension]; 10] = [
        &[],
        &[Dimension::Provider],
        &[Dimension::Model, Dimension::Provider],
        &[Dimension::Day],
        &[Dimension::Day, Dimension::Model],
        &[Dimension::Hour],
        &[Dimension::Key],
        &[Dimension::User, Dimension::Kb],
        &[Dimension::Provider, Dimension::Key, Dimension::Day],
        &Dimension::ALL,
    ];
    let periods = [
        None,
        Some(Period::parse_month("2026-10").unwrap()),
        Some(Period::parse_month("2026-11").unwrap()),
        Some(Period::parse_month("2026-12").unwrap()),
        Some(Period::parse_day("2026-10-31").unwrap()),
        Some(Period::parse_day("2026-11-24").unwrap()),
    ];
    for period in periods {
        for asked in [None, Some("acme"), Some("gamma"), Some("nobody")] {
            for group_by in groupings {
                let query = SumsQuery { group_by: group_by.to_vec(), ..total(asked, period) };
                let groups = store.sums(&query).await.unwrap();
                assert_eq!(groups, model(events, &query), "{name} {query:?}");
            }
        }
    }
}

#[tokio::test]
async fn every_sum_equals_the_sum_of_its_events_to_the_unit() {
    for (name, store, _directory) in adapters().await {
        let events = many();
        for batch in events.chunks(97) {
            assert_eq!(store.append(batch).await, Ok(u64::try_from(batch.len()).unwrap()), "{name}");
        }
        check_sums(name, &store, &events).await;
    }
}

#[tokio::test]
async fn every_grouping_sums_to_the_total() {
    for (name, store, _directory) in adapters().await {
        store.append(&many()).await.unwrap();
        let total = store.sums(&total(None, None)).await.unwrap()[0].sums;
        assert!(total.cost.0 > i128::from(i64::MAX) * 100, "{name}: the sum is beyond 64 bits");
        assert!(total.estimated_requests > 0 && total.unpriced_requests > 0 && total.failed_requests > 0, "{name}");
        for dimension in Dimension::ALL {
            let query = SumsQuery { tenant: None, period: None, group_by: vec![dimension] };
            let groups = store.sums(&query).await.unwrap();
            let sum = groups.iter().fold(Sums::default(), |sum, group| sum.plus(&group.sums).unwrap());
            assert_eq!(sum, total, "{name} {dimension:?}");
        }
    }
}

#[tokio::test]
async fn an_event_comes_back_as_it_was_written() {
    for (name, store, _directory) in adapters().await {
        let events = many();
        store.append(&events).await.unwrap();
        let listed = store.events(&list(None, 10_000)).await.unwrap();
        assert_eq!(listed.iter().map(|stored| stored.event.clone()).collect::<Vec<_>>(), events, "{name}");
        for stored in listed.iter().take(20) {
            assert_eq!(store.event(None, stored.event.id).await.unwrap().as_ref(), Some(stored), "{name}");
        }
    }
}

#[tokio::test]
async fn the_time_the_gateway_took_is_not_kept() {
    for (name, store, _directory) in adapters().await {
        store.append(&[UsageEvent { overhead_us: 9, ..event(1) }]).await.unwrap();
        assert_eq!(store.event(None, event_id(1)).await.unwrap().unwrap().event, event(1), "{name}");
    }
}

#[tokio::test]
async fn appending_again_changes_nothing() {
    for (name, store, _directory) in adapters().await {
        let events = many();
        store.append(&events[..400]).await.unwrap();
        assert_eq!(store.append(&events[..400]).await, Ok(0), "{name}: all known");
        assert_eq!(store.append(&events[300..500]).await, Ok(100), "{name}: half known");
        let twice: Vec<UsageEvent> = events[500..].iter().chain(&events[500..]).cloned().collect();
        assert_eq!(store.append(&twice).await, Ok(100), "{name}: twice in one batch");
        assert_eq!(store.append(&[]).await, Ok(0), "{name}: none");
        // The same id with other content is the same event: the first one stands.
        let other = UsageEvent { tenant: tenant("beta"), chats: 1_000, ..events[0].clone() };
        assert_eq!(store.append(&[other]).await, Ok(0), "{name}");
        check_sums(name, &store, &events).await;
    }
}

#[tokio::test]
async fn a_correction_changes_costs_and_the_unpriced_and_nothing_else() {
    for (name, store, _directory) in adapters().await {
        let unpriced = UsageEvent {
            cost: None,
            billable: None,
            priced: Priced::Unpriced,
            requested_at: at("2026-10-31T20:00:00Z"),
            utc_offset_s: 19_800,
            ..event(1)
        };
        store.append(&[unpriced.clone(), event(2)]).await.unwrap();
        let to = |after: &UsageEvent, before, cost, version: &str| {
            unpriced.corrected(Correction {
                after: after.id,
                priced_before: before,
                priced: Priced::Priced,
                cost: PicoUsd(cost),
                billable: PicoUsd(2 * cost),
                price_version: version.into(),
            })
        };
        let first = to(&unpriced, Priced::Unpriced, 9_000_001, "v2");
        let second = to(&first, Priced::Priced, -8_000_000, "v3");
        let back = to(&second, Priced::Priced, 8_000_000, "v2");
        let corrections = [first, second, back];
        assert_eq!(store.append(&corrections).await, Ok(3), "{name}");
        assert_eq!(store.append(&corrections).await, Ok(0), "{name}: again");
        check_sums(name, &store, &[&[unpriced.clone(), event(2)][..], &corrections].concat()).await;
        let october = Period::parse_month("2026-10").unwrap();
        assert_eq!(store.sums(&total(None, Some(october))).await.unwrap()[0].sums, Sums::default(), "{name}");
        let november = store.sums(&total(None, Some(Period::parse_month("2026-11").unwrap()))).await.unwrap();
        let Sums { requests, chats, tokens, cost, billable, unpriced_requests, .. } = november[0].sums;
        assert_eq!((requests, chats, tokens.prompt, unpriced_requests), (2, 2, 22, 0), "{name}");
        assert_eq!((cost.0, billable.0), (97_500_000 + 9_000_001, 97_500_000 + 18_000_002), "{name}");
        let (_, events, sums) = walked(&store).await;
        assert_eq!(events, sums, "{name}");
        let found = store.event(None, corrections[1].id).await.unwrap().unwrap().event;
        assert_eq!(found, corrections[1], "{name}");
        assert_eq!(found.corrects, Some(Corrected { event: unpriced.id, priced: Priced::Priced }), "{name}");
        let of_both = store.corrections(&[event(2).id, unpriced.id]).await.unwrap();
        let of_both: Vec<_> = of_both.into_iter().map(|stored| stored.event).collect();
        assert_eq!(of_both, corrections, "{name}: in the order in which they were written");
        assert_eq!(store.corrections(&[event(2).id]).await, Ok(Vec::new()), "{name}");
    }
}

#[tokio::test]
async fn of_two_events_with_one_id_in_a_batch_the_first_counts() {
    for (name, store, _directory) in adapters().await {
        let [first, second] = [event(1), UsageEvent { model: "other".into(), chats: 5, ..event(1) }];
        assert_eq!(store.append(&[first.clone(), second]).await, Ok(1), "{name}");
        check_sums(name, &store, &[first]).await;
    }
}

#[tokio::test]
async fn an_append_that_is_dropped_on_the_way_leaves_no_half() {
    let events = many();
    let mut dropped = 0_u32;
    for polls in 1..200_u32 {
        for (name, store, _directory) in adapters().await {
            let mut left = polls;
            let mut append = store.append(&events);
            let whole = std::future::poll_fn(|context| {
                left -= 1;
                match append.poll_unpin(context) {
                    std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(None),
                    other => other.map(Some),
                }
            })
            .await;
            drop(append);
            dropped += u32::from(whole.is_none());
            // A commit may still be on its way. What is written after it tells that it has ended.
            let after = event(1_000_000);
            store.append(std::slice::from_ref(&after)).await.unwrap();
            let listed = store.events(&list(None, 10_000)).await.unwrap();
            assert!([1, 1 + events.len()].contains(&listed.len()), "{name} {polls}: {}", listed.len());
            let kept: Vec<UsageEvent> = listed.into_iter().map(|stored| stored.event).collect();
            let query = SumsQuery { group_by: vec![Dimension::Model], ..total(Some("acme"), None) };
            assert_eq!(store.sums(&query).await.unwrap(), model(&kept, &query), "{name} {polls}");
            // Sent again after the unknown outcome, it is there once.
            store.append(&events).await.unwrap();
            let all: Vec<UsageEvent> = events.iter().cloned().chain([after]).collect();
            assert_eq!(store.sums(&query).await.unwrap(), model(&all, &query), "{name} {polls}");
            if whole.is_some() {
                assert!(dropped > 3, "{name}: {dropped} drops hit an append on its way");
                return;
            }
        }
    }
    panic!("no append ever ended");
}

#[tokio::test]
async fn a_batch_with_an_event_that_no_row_can_hold_changes_nothing() {
    for (name, store, _directory) in adapters().await {
        let too_dear = UsageEvent { cost: Some(PicoUsd(i128::from(i64::MAX) + 1)), ..event(1) };
        let too_many = UsageEvent { tokens: Tokens { prompt: u64::MAX, ..Tokens::default() }, ..event(2) };
        for bad in [too_dear, too_many] {
            let refused = store.append(&[event(3), bad]).await;
            assert!(matches!(refused, Err(StoreError::Refused(_))), "{name}: {refused:?}");
        }
        assert_eq!(store.events(&list(None, 10)).await, Ok(Vec::new()), "{name}");
        check_sums(name, &store, &[]).await;
    }
}

#[tokio::test]
async fn a_sum_that_no_longer_fits_is_an_error_and_changes_nothing() {
    for (name, store, _directory) in adapters().await {
        let half = u64::try_from(i64::MAX / 2).unwrap();
        let huge = |number| UsageEvent { tokens: Tokens { prompt: half, ..Tokens::default() }, ..event(number) };
        assert_eq!(store.append(&[huge(1)]).await, Ok(1), "{name}");
        assert_eq!(store.append(&[huge(2)]).await, Ok(1), "{name}");
        let refused = store.append(&[huge(3)]).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{name}: {refused:?}");
        check_sums(name, &store, &[huge(1), huge(2)]).await;
    }
}

#[tokio::test]
async fn a_cursor_passes_every_event_once_while_others_are_written() {
    for (name, store, _directory) in adapters().await {
        let events = many();
        let mut batches = events.chunks(30);
        store.append(batches.next().unwrap()).await.unwrap();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = store.events(&list(after, 7)).await.unwrap();
            let Some(last) = page.last() else { break };
            assert!(page.windows(2).all(|pair| pair[0].row < pair[1].row), "{name}");
            after = Some(last.row);
            seen.extend(page.into_iter().map(|stored| stored.event));
            if let Some(batch) = batches.next() {
                store.append(batch).await.unwrap();
            }
        }
        assert_eq!(seen, events, "{name}");
    }
}

#[tokio::test]
async fn a_list_holds_what_was_requested_from_and_before() {
    for (name, store, _directory) in adapters().await {
        let events = many();
        store.append(&events).await.unwrap();
        let edge = at("2026-11-01T00:00:00Z");
        for (from, to) in [(None, Some(edge)), (Some(edge), None), (Some(edge), Some(Micros(edge.0 + 1)))] {
            let query = EventsQuery { tenant: Some(tenant("beta")), from, to, ..list(None, 10_000) };
            let found: Vec<UsageEvent> = store.events(&query).await.unwrap().into_iter().map(|s| s.event).collect();
            let expected: Vec<UsageEvent> = events
                .iter()
                .filter(|event| event.tenant.as_str() == "beta")
                .filter(|event| from.is_none_or(|from| event.requested_at >= from))
                .filter(|event| to.is_none_or(|to| event.requested_at < to))
                .cloned()
                .collect();
            assert!(!expected.is_empty(), "{from:?} {to:?}");
            assert_eq!(found, expected, "{name} {from:?} {to:?}");
        }
    }
}

#[tokio::test]
async fn a_list_holds_what_is_priced_so_far() {
    for (name, store, _directory) in adapters().await {
        let doubtful = UsageEvent { priced: Priced::Incomplete, ..event(2) };
        store.append(&[event(1), doubtful, event(3)]).await.unwrap();
        let of = async |priced, from| {
            let query = EventsQuery { priced, from, ..list(None, 10) };
            let found = store.events(&query).await.unwrap();
            found.into_iter().map(|stored| stored.event.id).collect::<Vec<_>>()
        };
        let from = Some(event(1).requested_at);
        assert_eq!(of(Some(Priced::Incomplete), None).await, [event_id(2)], "{name}");
        assert_eq!(of(Some(Priced::Incomplete), from).await, [event_id(2)], "{name}");
        assert_eq!(of(Some(Priced::Unpriced), from).await, [], "{name}");
        assert_eq!(of(None, from).await.len(), 3, "{name}");
    }
}

#[tokio::test]
async fn a_tenant_sees_nothing_of_another() {
    for (name, store, _directory) in adapters().await {
        store.append(&[event(1), UsageEvent { tenant: tenant("beta"), ..event(2) }]).await.unwrap();
        let [acme, beta] = [tenant("acme"), tenant("beta")];
        assert!(store.event(Some(&acme), event_id(1)).await.unwrap().is_some(), "{name}");
        assert_eq!(store.event(Some(&beta), event_id(1)).await, Ok(None), "{name}");
        assert_eq!(store.event(Some(&acme), event_id(3)).await, Ok(None), "{name}");
        let query = EventsQuery { tenant: Some(beta), ..list(None, 10) };
        let listed = store.events(&query).await.unwrap();
        assert_eq!(listed.iter().map(|stored| stored.event.id).collect::<Vec<_>>(), [event_id(2)], "{name}");
        assert_eq!(store.sums(&total(Some("beta"), None)).await.unwrap()[0].sums.requests, 1, "{name}");
    }
}

/// What some events used of each counter that is asked for, by plain addition.
fn used(
    events: &[UsageEvent],
    counting: Counting,
    is_asked: impl Fn(&CounterKey) -> bool,
) -> BTreeMap<CounterKey, u64> {
    let mut all = BTreeMap::new();
    for event in events.iter().filter(|event| event.outcome != Outcome::Correction) {
        let nano = event.billable.map_or(0, |cost| u64::try_from((cost.0 + 999) / 1_000).unwrap());
        let user = event.user_id.as_deref().map(|id| Subject::User(id.into()));
        let kb = event.kb_id.as_deref().map(|id| Subject::Kb(id.into()));
        let key = event.key.clone().map(Subject::Key);
        for subject in [Some(Subject::Tenant), key, user, kb].into_iter().flatten() {
            for window in [Window::Month, Window::Day] {
                let tokens = event.tokens.prompt + event.tokens.completion;
                for (metric, amount) in [(Metric::Chats, event.chats), (Metric::Tokens, tokens), (Metric::Cost, nano)] {
                    let period = event.period(window);
                    let counter = CounterKey { tenant: event.tenant.clone(), subject: subject.clone(), metric, period };
                    if amount > 0 && counting.has(subject.scope(), metric, window) && is_asked(&counter) {
                        *all.entry(counter).or_default() += amount;
                    }
                }
            }
        }
    }
    all
}

fn countings() -> [Counting; 3] {
    let some = Counting::one(Scope::User, Metric::Tokens, Window::Day)
        | Counting::one(Scope::Kb, Metric::Cost, Window::Month)
        | Counting::one(Scope::Key, Metric::Chats, Window::Month);
    [Counting::TENANT, Counting::TENANT | some, Counting::ALL]
}

#[tokio::test]
async fn what_was_used_in_a_day_and_in_a_month_is_told_for_all_whom_it_counts_on() {
    for (name, store, _directory) in adapters().await {
        let events = many();
        for batch in events.chunks(300) {
            store.append(batch).await.unwrap();
            store.append(&batch[..200]).await.unwrap();
        }
        let periods = ["2026-10", "2026-11", "2026-12"].map(|month| Period::parse_month(month).unwrap());
        let days = ["2026-10-31", "2026-11-24"].map(|day| Period::parse_day(day).unwrap());
        for period in periods.into_iter().chain(days) {
            for counting in countings() {
                let expected = used(&events, counting, |counter| counter.period == period);
                let found: BTreeMap<_, _> = store.used(period, counting).await.unwrap().into_iter().collect();
                assert_eq!(found, expected, "{name} {period}");
            }
        }
    }
}

#[tokio::test]
async fn standings_of_tenants_are_what_they_used_since_a_month_and_a_day_and_the_events_that_are_booked() {
    let (october, november) = (Period::parse_month("2026-10").unwrap(), Period::parse_month("2026-11").unwrap());
    let (halloween, first) = (Period::parse_day("2026-10-31").unwrap(), Period::parse_day("2026-11-01").unwrap());
    for (name, store, _directory) in adapters().await {
        let events = many();
        store.append(&events).await.unwrap();
        let asked = [tenant("acme"), tenant("gamma"), tenant("nobody")];
        for from in [[october, halloween], [november, halloween], [october, first], [november, first]] {
            let ids: Vec<_> = (500..1_900).map(event_id).collect();
            for counting in countings() {
                let expected = used(&events, counting, |counter| {
                    let is_late = |from: &Period| counter.period.window() == from.window() && counter.period >= *from;
                    asked.contains(&counter.tenant) && from.iter().any(is_late)
                });
                let mut found = store.standing_of(&asked, from, counting, &ids).await.unwrap();
                found.known.sort();
                assert_eq!(found.used.into_iter().collect::<BTreeMap<_, _>>(), expected, "{name} {from:?}");
                assert_eq!(found.known, ids[..100], "{name}");
            }
        }
        let nothing = store.standing_of(&[], [october, halloween], Counting::ALL, &[]).await;
        assert_eq!(nothing, Ok(StandingOf::default()), "{name}");
    }
}

#[tokio::test]
async fn standings_count_the_events_that_they_know_and_no_others_while_others_write() {
    let (month, day) = (Period::parse_month("2026-11").unwrap(), Period::parse_day("2026-11-24").unwrap());
    for (name, store, _directory) in adapters().await {
        let writer = tokio::spawn({
            let store = store.clone();
            async move {
                for number in 0..200 {
                    store.append(&[event(number)]).await.unwrap();
                }
            }
        });
        let ids: Vec<_> = (0..200).map(event_id).collect();
        let mut between = 0;
        while !writer.is_finished() {
            let found = store.standing_of(&[tenant("acme")], [month, day], Counting::TENANT, &ids).await.unwrap();
            let known = u64::try_from(found.known.len()).unwrap();
            let mut chats = found.used.iter().filter(|(counter, _)| counter.metric == Metric::Chats);
            assert!(chats.all(|(_, chats)| *chats == known), "{name}: {known} of {:?}", found.used);
            between += u32::from(0 < known && known < 200);
        }
        writer.await.unwrap();
        assert!(between > 1, "{name}: {between} looks while events were written");
    }
}

#[tokio::test]
async fn a_store_with_its_schema_is_ready() {
    for (name, store, _directory) in adapters().await {
        assert_eq!(store.ready().await, Ok(()), "{name}");
    }
}

/// What a walk of the ledger shows, added up: of events, and of sums.
async fn walked(store: &Store) -> (u64, BTreeMap<SumKey, SumValues>, BTreeMap<SumKey, SumValues>) {
    let (mut count, mut events, mut sums) = (0, BTreeMap::new(), BTreeMap::new());
    let (mut counted, mut used): (BTreeMap<UsedKey, UsedValues>, _) = (BTreeMap::new(), BTreeMap::new());
    let mut see = |entry| match entry {
        Entry::Begin { events, .. } => count = events,
        Entry::Events(stratum) => {
            assert!(sums.is_empty(), "events are shown before sums");
            for window in [Window::Day, Window::Month] {
                let key = SumKey {
                    window,
                    tenant: stratum.tenant.clone(),
                    period: window.period(stratum.day).to_string(),
                    provider: stratum.provider.clone(),
                    model: stratum.model.clone(),
                };
                let sum = events.entry(key).or_insert([0; 25]);
                for (sum, value) in sum.iter_mut().zip(stratum.values()) {
                    *sum += value;
                }
            }
        }
        Entry::Sum(sum) => assert_eq!(sums.insert(sum.0, sum.1), None, "each sum once"),
        Entry::Counted(stratum) => {
            for key in stratum.keys() {
                let counted = counted.entry(key).or_default();
                *counted = [0, 1, 2].map(|at| counted[at] + stratum.values[at]);
            }
        }
        Entry::Used(sum) => assert_eq!(used.insert(sum.0, sum.1), None, "each sum once"),
        other @ (Entry::Impossible { .. } | Entry::Damage(_)) => panic!("{other:?}"),
    };
    store.walk(&mut see).await.unwrap();
    counted.retain(|_, values| *values != [0; 3]);
    assert_eq!(counted, used, "what events count is summed up");
    (count, events, sums)
}

#[tokio::test]
async fn a_walk_shows_every_event_and_every_sum_to_the_unit() {
    for (name, store, _directory) in adapters().await {
        assert_eq!(walked(&store).await, (0, BTreeMap::new(), BTreeMap::new()), "{name}");
        // Some of them cost so much that no two fit into 64 bits together.
        let events = many();
        store.append(&events).await.unwrap();
        let mut expected: BTreeMap<SumKey, Sums> = BTreeMap::new();
        for event in &events {
            for window in [Window::Day, Window::Month] {
                let key = SumKey {
                    window,
                    tenant: event.tenant.to_string(),
                    period: event.period(window).to_string(),
                    provider: event.provider.to_string(),
                    model: event.model.to_string(),
                };
                let sums = expected.entry(key).or_default();
                *sums = sums.plus(&Sums::of(event)).unwrap();
            }
        }
        let expected: BTreeMap<SumKey, SumValues> =
            expected.into_iter().map(|(key, sums)| (key, sums.values())).collect();
        let (count, events, sums) = walked(&store).await;
        assert_eq!(count, 600, "{name}");
        assert_eq!(events, expected, "{name}");
        assert_eq!(sums, expected, "{name}");
    }
}

#[tokio::test]
async fn a_walk_shows_one_instant_while_others_write() {
    for (name, store, _directory) in adapters().await {
        store.append(&many()).await.unwrap();
        let writer = tokio::spawn({
            let store = store.clone();
            async move {
                for number in 0..200 {
                    store.append(&[event(1_000_000 + number)]).await.unwrap();
                }
            }
        });
        let mut walks = 0;
        while !writer.is_finished() {
            let (_, events, sums) = walked(&store).await;
            assert_eq!(events, sums, "{name}");
            walks += 1;
        }
        writer.await.unwrap();
        assert!(walks > 1, "{name}: {walks} walks beside 200 writes");
    }
}

#[tokio::test]
async fn events_are_found_by_their_ids() {
    for (name, store, _directory) in adapters().await {
        let events = many();
        store.append(&events).await.unwrap();
        let asked: Vec<_> = (300..900).map(event_id).collect();
        let mut found: Vec<_> = store.find(&asked).await.unwrap().into_iter().map(|stored| stored.event).collect();
        found.sort_by_key(|event| event.id.to_bytes());
        assert_eq!(found, events[300..], "{name}");
        assert_eq!(store.find(&[]).await, Ok(Vec::new()), "{name}");
    }
}

#[tokio::test]
async fn a_ledger_has_an_id_of_its_own() {
    for ((name, store, _one), (_, other, _two)) in adapters().await.into_iter().zip(adapters().await) {
        let id = store.ledger_id().await.unwrap();
        assert_eq!(store.ledger_id().await, Ok(id.clone()), "{name}");
        assert_ne!(other.ledger_id().await, Ok(id), "{name}");
    }
}
