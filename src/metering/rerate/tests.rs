//! Tests of pricing events again, on fakes.

use super::super::fakes::{self, FORMAT, World, plans};
use super::*;
use crate::domain::audit::{Action, Actor, AuditEntry, Author, Facts};
use crate::domain::event::UsageSource;
use crate::domain::price::tariff::Percent;
use crate::domain::tokens::Tokens;
use crate::ports::prices::{KeptBook, PriceStore};
use crate::ports::tenants::{Act, AuditFilter, AuditQuery, AuditStart};
use crate::ports::usage::{Sums, SumsQuery};

/// `m` costs so much for a token of input, and three times that above 100; `b` the same, and no other model anything.
fn book(input: u32) -> PriceBook {
    let above = 3 * input;
    let entry = |name: &str| {
        format!(
            r#"{{"provider":"openai","model":"{name}","match":["{name}"],"rates":[
            {{"tier":"standard","input":{input},"output":0}},{{"tier":"standard","above":100,"input":{above},"output":0}}]}}"#
        )
    };
    let file = format!(r#"{{"format":1,"base":"none","models":[{},{}]}}"#, entry("m"), entry("b"));
    (FORMAT.parse)(file.as_bytes()).unwrap()
}

struct Bench {
    world: World,
    events: Vec<UsageEvent>,
}

const AT: &str = "2026-11-20T10:00:00Z";

impl Bench {
    /// Prices of 10, in force and kept.
    async fn open() -> Self {
        let bench = Self { world: World::open_with(book(10)).await, events: Vec::new() };
        bench.in_force(book(10)).await;
        bench
    }

    async fn in_force(&self, book: PriceBook) {
        self.world.snapshots.replace(plans(), book).unwrap();
        self.world.snapshots.keep_books(&*self.world.store, World::now()).await.unwrap();
    }

    fn event(&self, number: u128, model: &str, prompt: u64) -> UsageEvent {
        let tariff = self.world.snapshots.load().tariff(&"starter".parse().unwrap());
        let tokens = Tokens { prompt, ..Tokens::default() };
        let event = UsageEvent { tokens, ..fakes::event("acme", number, "openai", model, AT) };
        let Charged { charge, billable, .. } = charged(&tariff, &event);
        UsageEvent { cost: charge.cost, billable, priced: charge.priced, price_version: tariff.version(), ..event }
    }

    async fn book(&mut self, event: UsageEvent) {
        self.world.store.append(std::slice::from_ref(&event)).await.unwrap();
        self.events.push(event);
    }

    fn rerating(&self) -> Rerating {
        let store = self.world.store.clone();
        Rerating::new(store.clone(), store, self.world.snapshots.clone())
    }

    async fn rerate_of(&self, scope: Scope, dry_run: bool) -> Rerated {
        let act = Act::by(Author::of(Actor::Cli), World::now());
        self.rerating().run(&scope, Some(&act).filter(|_| !dry_run), &mut |_| {}).await.unwrap()
    }

    /// What the audit log says of pricing again: who, which events, by which prices.
    async fn log(&self) -> Vec<String> {
        let filter = AuditFilter { action: Some(Action::PricesRerate), ..AuditFilter::default() };
        let query = AuditQuery { filter, start: AuditStart::After(0), entries_max: 100 };
        let entries = self.world.store.audit(&query).await.unwrap();
        let told = |entry: AuditEntry| {
            let Facts { events, prices, .. } = entry.change.after;
            format!("{} {} {}", entry.author.actor.as_str(), events.unwrap(), prices.unwrap())
        };
        entries.into_iter().map(told).collect()
    }

    async fn rerate(&self) -> Rerated {
        self.rerate_of(all(), false).await
    }

    async fn sums(&self) -> Sums {
        let query = SumsQuery { tenant: None, period: None, group_by: Vec::new() };
        self.world.store.sums(&query).await.unwrap()[0].sums
    }

    /// What all costs, what is billed for it, and how many events there are.
    async fn totals(&self) -> (i128, i128, usize) {
        let query = EventsQuery { tenant: None, from: None, to: None, priced: None, after: None, events_max: 1_000 };
        let (sums, events) = (self.sums().await, self.world.store.events(&query).await.unwrap());
        (sums.cost.0, sums.billable.0, events.len())
    }
}

fn all() -> Scope {
    let (from, to) = ("2026-11-01T00:00:00Z".parse().unwrap(), "2026-12-01T00:00:00Z".parse().unwrap());
    Scope { from, to, tenant: None, model: None }
}

fn corrected(rerated: &Rerated) -> u64 {
    rerated.models.values().map(|line| line.corrected).sum()
}

#[tokio::test]
async fn original_and_corrections_are_the_new_price_however_often_it_is_done() {
    let mut bench = Bench::open().await;
    for (number, prompt) in (1..=7).zip([1, 2, 3, 100, 101, 0, 50]) {
        bench.book(bench.event(number, "m", prompt)).await;
    }
    let before = (10 * (1 + 2 + 3 + 100 + 50) + 30 * 101, 7);
    assert_eq!(bench.totals().await, (before.0, before.0, before.1));
    bench.in_force(book(20)).await;
    let looked = bench.rerate_of(all(), true).await;
    assert_eq!(bench.totals().await, (before.0, before.0, 7), "a dry run writes nothing");
    assert_eq!(bench.log().await, [] as [String; 0]);
    let first = bench.rerate().await;
    assert_eq!(first, looked);
    let line = &first.models[&("openai".to_owned(), "m".to_owned())];
    assert_eq!((line.events, line.corrected, line.unexplained, line.unpriced), (6, 6, 0, 0));
    assert_eq!((line.cost_before.0, line.cost_after.0), (before.0, 2 * before.0));
    assert_eq!(bench.totals().await, (2 * before.0, 2 * before.0, 13));
    assert_eq!((bench.sums().await.requests, bench.sums().await.chats), (7, 7), "corrections are no calls");
    assert_eq!(corrected(&bench.rerate().await), 0);
    assert_eq!(bench.totals().await.2, 13);
    // More than one step wrote, and the second run nothing.
    let told = bench.log().await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("cli from ") && told[0].contains(&*first.version), "{told:?}");

    // A price that rises and falls back comes to nothing, and may rise again.
    for (input, factor, rows) in [(10, 1, 19), (20, 2, 25), (10, 1, 31)] {
        bench.in_force(book(input)).await;
        assert_eq!(corrected(&bench.rerate().await), 6);
        assert_eq!(bench.totals().await, (factor * before.0, factor * before.0, rows));
    }
}

#[tokio::test]
async fn of_two_at_once_one_corrects_an_event_and_the_other_is_told() {
    let mut bench = Bench::open().await;
    for number in 1..=2 {
        bench.book(bench.event(number, "m", 5)).await;
    }
    // Both have seen the events before either writes.
    let mut both = Vec::new();
    for input in [20, 30] {
        bench.in_force(book(input)).await;
        let rerating = bench.rerating();
        let mut known = Known::of(&rerating, bench.world.snapshots.load_full());
        both.push(rerating.step(&mut known, &bench.events, &mut Rerated::default()).await.unwrap());
    }
    let rerating = bench.rerating();
    assert_eq!(rerating.write(&both[0][..1]).await, Ok(()));
    let refused = rerating.write(&both[1]).await;
    assert_eq!(refused, Err(RerateError::Another));
    assert_eq!(refused.unwrap_err().to_string().lines().count(), 1);
    assert_eq!(bench.totals().await, (5 * 20 + 5 * 30, 5 * 20 + 5 * 30, 4), "each by the prices of one of them");
    bench.rerate().await;
    assert_eq!(bench.totals().await, (2 * 5 * 30, 2 * 5 * 30, 5));
}

#[tokio::test]
async fn prices_in_force_that_cannot_be_read_price_nothing_again() {
    let bench = Bench::open().await;
    let newer = KeptBook { version: "0a1b2c3d4e5f".into(), document: "{}".into(), base: None };
    bench.world.store.set_prices(Some(&[newer]), &Act::by(Author::of(Actor::Cli), World::now())).await.unwrap();
    bench.world.snapshots.refresh(&*bench.world.store).await.unwrap();
    let store = bench.world.store.clone();
    let rerating = Rerating::new(store.clone(), store, bench.world.snapshots.clone());
    let act = Act::by(Author::of(Actor::Cli), World::now());
    let refused = rerating.run(&all(), Some(&act), &mut |_| {}).await;
    assert!(matches!(refused, Err(RerateError::Store(StoreError::Corrupt(_)))), "{refused:?}");
}

#[tokio::test]
async fn only_what_is_asked_for_is_priced_again() {
    let mut bench = Bench::open().await;
    bench.book(bench.event(1, "m", 5)).await;
    bench.book(bench.event(2, "b", 5)).await;
    bench.book(UsageEvent { tenant: "globex".parse().unwrap(), ..bench.event(3, "m", 5) }).await;
    bench.book(UsageEvent { requested_at: "2026-10-31T23:59:59Z".parse().unwrap(), ..bench.event(4, "m", 5) }).await;
    bench.in_force(book(20)).await;
    let of_b = Scope { model: Some("b".to_owned()), ..all() };
    let of_globex = Scope { tenant: Some("globex".parse().unwrap()), ..all() };
    for (scope, cost) in [(of_b, 250), (of_globex, 300), (all(), 350)] {
        assert_eq!(corrected(&bench.rerate_of(scope, false).await), 1);
        assert_eq!(bench.totals().await.0, cost);
    }
}

#[tokio::test]
async fn estimates_and_what_had_no_price_are_priced_and_what_has_none_is_left() {
    let mut bench = Bench::open().await;
    bench.book(UsageEvent { source: UsageSource::Estimate, ..bench.event(1, "m", 5) }).await;
    bench.book(bench.event(2, "new", 5)).await;
    bench.book(bench.event(3, "unknown", 5)).await;
    assert_eq!((bench.totals().await.0, bench.sums().await.unpriced_requests), (50, 2));
    let with_new = r#"{"format":1,"base":"none","models":[{"provider":"openai","model":"new","match":["new"],
        "rates":[{"tier":"standard","input":7}]}]}"#;
    bench.in_force((FORMAT.parse)(with_new.as_bytes()).unwrap()).await;
    let rerated = bench.rerate().await;
    let line = |model: &str| rerated.models[&("openai".to_owned(), model.to_owned())].clone();
    assert_eq!((line("new").corrected, line("unknown").unpriced, line("m").unpriced), (1, 1, 1));
    // What had a price and has none in the new list keeps the old one.
    assert_eq!((bench.totals().await.0, bench.sums().await.unpriced_requests), (50 + 35, 1));
    assert_eq!(corrected(&bench.rerate().await), 0);
}

#[tokio::test]
async fn an_answer_of_an_unknown_model_is_priced_as_asked_for_until_it_is_known() {
    let mut bench = Bench::open().await;
    let event = |number, model: &str, requested: &str| UsageEvent {
        requested_model: requested.into(),
        ..bench.event(number, model, 5)
    };
    let (alias, unknown) = (event(1, "m-of-tomorrow", "m"), event(2, "m-of-tomorrow", "unheard-of"));
    assert_eq!((alias.priced, unknown.priced), (Priced::Unpriced, Priced::Unpriced), "as neither names an alias");
    bench.book(alias).await;
    bench.book(unknown).await;
    // What was booked before there was this rule is priced by it, and once.
    for corrections in [1, 0] {
        assert_eq!(corrected(&bench.rerate().await), corrections);
        assert_eq!((bench.totals().await.0, bench.sums().await.unpriced_requests), (5 * 10, 1));
    }
    bench.in_force(book(20)).await;
    assert_eq!(corrected(&bench.rerate().await), 1);
    assert_eq!(bench.totals().await.0, 5 * 20);
    // The list comes to know it.
    let known = r#"{"format":1,"base":"none","models":[{"provider":"openai","model":"new","match":["m-of-tomorrow"],
        "rates":[{"tier":"standard","input":7}]}]}"#;
    bench.in_force((FORMAT.parse)(known.as_bytes()).unwrap()).await;
    assert_eq!(corrected(&bench.rerate().await), 2);
    assert_eq!((bench.totals().await.0, bench.sums().await.unpriced_requests), (2 * 5 * 7, 0));
    let query = EventsQuery { tenant: None, from: None, to: None, priced: None, after: Some(3), events_max: 9 };
    let events = bench.world.store.events(&query).await.unwrap();
    let priced: Vec<Priced> = events.iter().map(|stored| stored.event.priced).collect();
    assert_eq!(priced, [Priced::Incomplete, Priced::Priced, Priced::Priced]);
    assert_eq!(corrected(&bench.rerate().await), 0);
}

#[tokio::test]
async fn what_a_row_does_not_explain_is_left() {
    let mut bench = Bench::open().await;
    // The sum of two requests of 60, each at the price of short ones.
    let parts = UsageEvent { cost: Some(PicoUsd(1_200)), billable: Some(PicoUsd(1_200)), ..bench.event(1, "m", 120) };
    bench.book(parts).await;
    // Something was charged beside the tokens.
    bench.book(UsageEvent { priced: Priced::Incomplete, ..bench.event(2, "m", 5) }).await;
    bench.in_force(book(20)).await;
    let rerated = bench.rerate().await;
    let line = &rerated.models[&("openai".to_owned(), "m".to_owned())];
    assert_eq!((line.corrected, line.unexplained), (1, 1));
    assert_eq!(bench.totals().await.0, 1_200 + 100);
    let query = EventsQuery { tenant: None, from: None, to: None, priced: None, after: Some(2), events_max: 9 };
    let correction = &bench.world.store.events(&query).await.unwrap()[0].event;
    assert_eq!(correction.priced, Priced::Incomplete);
    // Prices that nobody has any more explain nothing; then the parts of a batch alone are left.
    let gone = |number, tier| UsageEvent {
        price_version: "0a1b2c3d4e5f".into(),
        service_tier: tier,
        ..bench.event(number, "m", 120)
    };
    let (batch, standard) = (gone(3, ServiceTier::Batch), gone(4, ServiceTier::Standard));
    bench.book(UsageEvent { cost: Some(PicoUsd(1)), ..batch }).await;
    bench.book(UsageEvent { cost: Some(PicoUsd(1)), ..standard }).await;
    let rerated = bench.rerate().await;
    assert_eq!(corrected(&rerated), 1);
    assert_eq!(bench.totals().await.0, 1_200 + 100 + 1 + 120 * 60);
}

#[tokio::test]
async fn the_sum_of_a_batch_is_not_priced_as_one_long_request() {
    let mut bench = Bench::open().await;
    let priced = |rates: &str| {
        let rates = format!(r#"{{"tier":"standard","input":5,"output":0}},{rates}"#);
        let model = format!(r#"{{"provider":"openai","model":"m","match":["m"],"rates":[{rates}]}}"#);
        (FORMAT.parse)(format!(r#"{{"format":1,"base":"none","models":[{model}]}}"#).as_bytes()).unwrap()
    };
    let flat = |input: u32| priced(&format!(r#"{{"tier":"batch","input":{input},"output":0}}"#));
    bench.in_force(flat(5)).await;
    // Two requests of 60 each, which one price explains. Of one nobody has the prices any more.
    let sum = |bench: &Bench, number| {
        let tokens = Tokens { prompt: 120, ..Tokens::default() };
        let (cost, priced) = (Some(PicoUsd(600)), Priced::Priced);
        let tier = ServiceTier::Batch;
        UsageEvent { tokens, cost, billable: cost, priced, service_tier: tier, ..bench.event(number, "m", 0) }
    };
    let (known, gone) = (sum(&bench, 1), sum(&bench, 2));
    bench.book(known).await;
    bench.book(UsageEvent { price_version: "0a1b2c3d4e5f".into(), ..gone }).await;
    let stepped = r#"{"tier":"batch","input":5,"output":0},{"tier":"batch","above":100,"input":10,"output":0}"#;
    let by_request = r#"{"tier":"batch","input":5,"output":0,"request":7}"#;
    for rates in [stepped, by_request] {
        bench.in_force(priced(rates)).await;
        let line = bench.rerate().await.models[&("openai".to_owned(), "m".to_owned())].clone();
        assert_eq!((line.events, line.corrected, line.unexplained), (2, 0, 2), "{rates}");
    }
    // So is what a plan bills by prices of its own.
    let own = Pricing { own: Some(Arc::new(priced(stepped))), ..Pricing::default() };
    let mut with_own = plans();
    let starter = with_own.get_mut("starter").unwrap();
    *starter = Arc::new(crate::domain::plan::Plan { pricing: own, ..crate::domain::plan::Plan::clone(starter) });
    bench.world.snapshots.replace(with_own, flat(7)).unwrap();
    bench.world.snapshots.keep_books(&*bench.world.store, World::now()).await.unwrap();
    bench.world.store.set_plan_history("acme", &[("starter", 0)]);
    assert_eq!(corrected(&bench.rerate().await), 0);
    assert_eq!(bench.totals().await, (1_200, 1_200, 2));
    bench.in_force(flat(7)).await;
    assert_eq!(corrected(&bench.rerate().await), 2);
    assert_eq!(bench.totals().await, (1_680, 1_680, 4));
}

#[tokio::test]
async fn what_is_billed_goes_by_the_plan_that_the_tenant_was_on() {
    let mut bench = Bench::open().await;
    bench.book(bench.event(1, "m", 5)).await;
    let dear = Pricing { percent: Percent::parse("150").unwrap(), own: None };
    let mut plans = plans();
    let starter = plans.get_mut("starter").unwrap();
    *starter = Arc::new(crate::domain::plan::Plan { pricing: dear, ..crate::domain::plan::Plan::clone(starter) });
    bench.world.snapshots.replace(plans, book(10)).unwrap();
    bench.world.store.set_plan_history("acme", &[("starter", 0)]);
    bench.rerate().await;
    assert_eq!(bench.totals().await, (50, 75, 2));
    assert_eq!(corrected(&bench.rerate().await), 0);
    // A plan that there is no more bills as it did.
    bench.world.store.set_plan_history("acme", &[("gone", 0)]);
    bench.rerate().await;
    assert_eq!(bench.totals().await, (50, 50, 3));
}
