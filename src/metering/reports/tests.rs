//! Tests of reports over ports in memory.

use crate::domain::price::pattern::Pattern;
use crate::domain::price::{ModelPrices, Origin, PriceBook, PriceRow};

use super::super::fakes::{World, event};
use super::*;

const NOW: &str = "2026-11-24T10:00:00Z";

async fn booked() -> World {
    let world = World::open().await;
    let events = [
        event("acme", 1, "openai", "gpt-4o-mini", NOW),
        event("globex", 2, "openai", "gpt-4o-mini", NOW),
        event("acme", 3, "gemini", "gemini-1.5-pro", "2026-11-02T00:00:00Z"),
        event("acme", 4, "openai", "gpt-4", "2026-10-31T23:59:59Z"),
    ];
    world.store.append(&events).await.unwrap();
    world
}

fn acme() -> Option<TenantId> {
    Some("acme".parse().unwrap())
}

#[tokio::test]
async fn every_part_of_a_report_adds_up_to_its_total() {
    let world = booked().await;
    let month = world.reports.current(Window::Month, None);
    for group_by in [vec![], vec![Dimension::Model], vec![Dimension::Day, Dimension::Provider], vec![Dimension::Kb]] {
        let report = world.reports.usage(acme(), month, group_by.clone()).await.unwrap();
        assert_eq!((report.totals.requests, report.totals.cost.0), (2, 11_700_000));
        let by_provider = report.providers.values().try_fold(Sums::default(), |sum, sums| add(sum, *sums));
        assert_eq!(by_provider, Ok(report.totals));
        let expected = if group_by.is_empty() { Sums::default() } else { report.totals };
        assert_eq!(total(&report.groups), Ok(expected), "{group_by:?}");
        let cost = world.reports.cost(acme(), Some(month), group_by.clone()).await.unwrap();
        assert_eq!(cost.totals, report.totals);
        assert_eq!(cost.rows.iter().try_fold(Sums::default(), |sum, row| add(sum, row.sums)), Ok(cost.totals));
        assert_eq!(cost.groups, report.groups);
    }
}

#[tokio::test]
async fn rows_are_by_provider_and_model_whatever_else_is_asked() {
    let world = booked().await;
    let report = world.reports.cost(None, None, vec![Dimension::Model]).await.unwrap();
    let rows: Vec<(&str, &str, u64)> =
        report.rows.iter().map(|row| (row.provider.as_str(), row.model.as_str(), row.sums.requests)).collect();
    let expected = [("gemini", "gemini-1.5-pro", 1), ("openai", "gpt-4", 1), ("openai", "gpt-4o-mini", 2)];
    assert_eq!(rows, expected);
}

#[tokio::test]
async fn pages_list_each_event_once_and_say_when_they_end() {
    let world = booked().await;
    let mut seen = Vec::new();
    let mut query = PageQuery { tenant: acme(), events_max: 2, ..PageQuery::default() };
    loop {
        let page = world.reports.events(query.clone()).await.unwrap();
        seen.extend(page.events.iter().map(|event| event.requested_at.to_string()));
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, [NOW, "2026-11-02T00:00:00Z", "2026-10-31T23:59:59Z"]);
}

#[tokio::test]
async fn a_page_that_holds_exactly_all_is_the_last() {
    let world = booked().await;
    let page = world.reports.events(PageQuery { tenant: acme(), events_max: 3, ..PageQuery::default() }).await.unwrap();
    assert_eq!((page.events.len(), page.next), (3, None));
}

#[tokio::test]
async fn a_cursor_of_another_tenant_is_unknown() {
    let world = booked().await;
    let foreign = event("globex", 2, "openai", "gpt-4o-mini", NOW).id;
    let query = PageQuery { tenant: acme(), after: Some(foreign), events_max: 9, ..PageQuery::default() };
    assert_eq!(world.reports.events(query).await, Err(ReportError::UnknownCursor));
    assert_eq!(world.reports.event(acme().as_ref(), foreign).await, Ok(None));
    assert!(world.reports.event(None, foreign).await.unwrap().is_some());
}

#[test]
fn a_sum_that_does_not_fit_is_an_error() {
    let most = Sums { requests: u64::MAX, ..Sums::default() };
    assert_eq!(add(most, Sums { requests: 1, ..Sums::default() }), Err(ReportError::Overflow));
    assert_eq!(add(most, Sums::default()), Ok(most));
}

#[test]
fn a_grouping_names_each_dimension_once() {
    assert_eq!(parse_group_by("model,day"), Ok(vec![Dimension::Model, Dimension::Day]));
    for bad in ["", "model,", "model,model", "tenant", "Model", "model, day"] {
        assert_eq!(parse_group_by(bad), Err(ReportError::InvalidGroupBy), "{bad:?}");
    }
    let told = ReportError::InvalidGroupBy.to_string();
    assert!(told.ends_with("provider, model, key, user, kb, day, hour"), "{told}");
}

#[tokio::test]
async fn a_row_has_the_prices_of_the_end_of_its_time() {
    let row = |from: Option<&str>, input| PriceRow {
        tier: ServiceTier::Standard,
        from: from.map(|from| from.parse().unwrap()),
        above: 0,
        rates: Rates { input: Some(input), output: Some(600_000), ..Rates::default() },
    };
    let model = ModelPrices {
        provider: "openai".into(),
        name: "gpt-4o-mini".into(),
        names: vec![Pattern::parse("gpt-4o-mini").unwrap()],
        except: Vec::new(),
        unverified: None,
        rows: vec![
            row(None, 300_000),
            row(Some("2026-11-01T00:00:00Z"), 150_000),
            row(Some("2026-11-24T10:00:01Z"), 1),
        ],
        origin: Origin::default(),
    };
    let world = World::open_with(PriceBook::new("v1".into(), vec![model]).unwrap()).await;
    let events = [
        event("acme", 1, "openai", "gpt-4o-mini", "2026-10-31T23:59:59Z"),
        event("acme", 2, "openai", "gpt-4o-mini", NOW),
        event("acme", 3, "openai", "unheard-of", NOW),
    ];
    world.store.append(&events).await.unwrap();
    for (month, input) in [("2026-10", 300_000), ("2026-11", 150_000)] {
        let report = world.reports.cost(acme(), Some(Period::parse_month(month).unwrap()), vec![]).await.unwrap();
        assert_eq!(report.rows[0].rates.and_then(|rates| rates.input), Some(input), "{month}");
        assert_eq!(&*report.price_version, "v1");
    }
    let report = world.reports.cost(acme(), None, vec![]).await.unwrap();
    let inputs: Vec<Option<i64>> = report.rows.iter().map(|row| row.rates.and_then(|rates| rates.input)).collect();
    assert_eq!(inputs, [Some(150_000), None]);
}
