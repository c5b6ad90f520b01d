//! Tests of what a call holds, what is refused and lowered, and what settling makes of it, over counters in memory.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use tempfile::TempDir;

use crate::adapters::memory_counters::MemoryCounters;
use crate::adapters::system_clock::SystemClock;
use crate::domain::key::{Key, KeyHash};
use crate::domain::limits::ModelLimits;
use crate::domain::price::pattern::Pattern;
use crate::domain::price::rates::Rates;
use crate::domain::price::{ModelPrices, Origin, PriceBook, PriceRow};
use crate::domain::settlement::Ending;
use crate::metering::fakes::{self, World};
use crate::metering::in_flight::InFlight;
use crate::metering::meter::Meter;
use crate::metering::snapshot::Plans;
use crate::ports::counters::CounterStore;
use crate::providers::{self, CredentialPlace};

use crate::domain::budget::{OnOverrun, WhenDeferred, WhenShort};

use crate::domain::time::Window;

use super::*;

mod changes;

/// Nano-dollars in a dollar.
const DOLLAR: u64 = 1_000_000_000;

/// A token of input costs a thousandth of a token of output, of which a thousand cost three cents.
const RATES: Rates = Rates { input: Some(30_000), output: Some(30_000_000), ..Rates::NONE };

struct Bench {
    world: World,
    meter: Arc<Meter>,
    counters: Arc<MemoryCounters>,
    _directory: TempDir,
}

fn prices() -> PriceBook {
    prices_of("test", RATES)
}

/// A dear model at these rates, a free one, and one whose searches alone cost something: a cent each.
fn prices_of(version: &str, rates: Rates) -> PriceBook {
    let model = |name: &str, rates| ModelPrices {
        provider: "openai".into(),
        name: name.into(),
        names: vec![Pattern::parse(name).unwrap()],
        except: Vec::new(),
        unverified: None,
        origin: Origin::default(),
        rows: vec![PriceRow { tier: ServiceTier::Standard, from: None, above: 0, rates }],
    };
    let free = Rates { input: Some(0), output: Some(0), ..Rates::default() };
    let searching = Rates { web_search: Some(10_000_000_000), ..free };
    let models = vec![model("dear", rates), model("free", free), model("searching", searching)];
    PriceBook::new(version.into(), models).unwrap()
}

fn limit(scope: Scope, metric: Metric, window: Window, max: u64) -> Limit {
    Limit { scope, metric, window, max }
}

fn cost(max: u64) -> Limit {
    limit(Scope::Tenant, Metric::Cost, Window::Month, max)
}

const WORST: Budget = Budget {
    hold: Sizing::WorstCase,
    when_short: WhenShort::Refuse,
    unpriced: Unpriced::Refuse,
    deferred: WhenDeferred::Refuse,
    on_overrun: OnOverrun::Finish,
    hold_cost_max: None,
    hold_tokens_max: None,
    grace_percent: 0,
};

impl Bench {
    async fn open(limits: &[Limit], budget: Budget) -> Self {
        let world = World::open_with(prices()).await;
        let (journal, _directory) = fakes::journal();
        let (counters, clock) = (Arc::new(MemoryCounters::new()), Arc::new(SystemClock::new()));
        let meter = Arc::new(Meter::new(counters.clone(), journal, world.snapshots.clone(), clock.clone(), Vec::new()));
        let bench = Self { world, meter, counters, _directory };
        bench.put(limits, budget);
        bench
    }

    /// Puts other limits in force.
    fn put(&self, limits: &[Limit], budget: Budget) {
        self.put_priced(limits, budget, prices());
    }

    fn put_priced(&self, limits: &[Limit], budget: Budget, prices: PriceBook) {
        let mut plans: Plans = fakes::plans();
        let name: crate::domain::ids::PlanName = "starter".parse().unwrap();
        let plan = Plan { limits: limits.to_vec(), budget, ..Plan::unlimited(name.clone()) };
        plans.insert(name, Arc::new(plan));
        self.world.snapshots.replace(plans, prices).unwrap();
    }

    fn caller(&self, user: Option<&str>) -> Caller {
        let account = self.world.snapshots.load().accounts["acme"].clone();
        let key = Key {
            id: "key_0123456789abcdef".parse().unwrap(),
            tenant: "acme".parse().unwrap(),
            hash: KeyHash([0; 32]),
            last4: "x7Qa".into(),
            name: "k".into(),
            created_at: Micros(0),
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
            models: None,
        };
        Caller { account, key: Some(Arc::new(key)), user_id: user.map(Into::into), kb_id: None }
    }

    async fn ask_as(&self, user: Option<&str>, path: &str, body: &str) -> Result<InFlight, Refusal> {
        let (provider, endpoint) = providers::route(&Method::POST, path, CredentialPlace::Bearer).unwrap();
        let body = Bytes::copy_from_slice(body.as_bytes());
        let caller = self.caller(user);
        let call = provider.call(&endpoint, None, &body).unwrap();
        self.meter.admit(caller, provider, endpoint, call).await
    }

    async fn ask(&self, body: &str) -> Result<InFlight, Refusal> {
        self.ask_as(None, "/v1/chat/completions", body).await
    }

    /// Every counter that is not at zero.
    async fn standings(&self) -> Vec<(String, Standing)> {
        let all = self.counters.list().await.unwrap();
        let name = |counter: CounterKey| {
            format!("{} {} {}", counter.subject, counter.metric.as_str(), counter.period.window().as_str())
        };
        let mut all: Vec<_> = all.into_iter().map(|counted| (name(counted.counter), counted.standing)).collect();
        all.retain(|(_, standing)| *standing != Standing::default());
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    async fn of(&self, name: &str) -> Standing {
        self.standings().await.into_iter().find(|(known, _)| known == name).map(|(_, s)| s).unwrap_or_default()
    }
}

/// A chat that declares so many tokens of output.
fn chat(model: &str, declared: u64) -> String {
    format!(r#"{{"model":"{model}","max_completion_tokens":{declared},"messages":[{{"role":"user","content":"hi"}}]}}"#)
}

async fn answered(mut call: InFlight, input: u64, output: u64) {
    call.sending();
    call.head(200, Some("application/json"), None);
    let answer = format!(
        r#"{{"model":"dear","choices":[],"usage":{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{}}}}}"#,
        input + output
    );
    call.pass(Bytes::from(answer), &mut Vec::new());
    call.settle(Ending::Whole).await;
}

fn facts(refusal: &Refusal) -> &QuotaFacts {
    match refusal {
        Refusal::QuotaUsedUp(facts) | Refusal::BudgetHeld(facts) => facts,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_call_holds_what_it_can_cost_and_settles_what_it_did() {
    let bench = Bench::open(&[cost(DOLLAR), limit(Scope::Tenant, Metric::Tokens, Window::Day, 10_000)], WORST).await;
    let body = chat("dear", 1_000);
    let bytes = u64::try_from(body.len()).unwrap();
    let call = bench.ask(&body).await.unwrap();
    assert_eq!(bench.of("tenant cost_usd month").await, Standing { used: 0, held: 30_000_000 + bytes * 30 });
    assert_eq!(bench.of("tenant tokens day").await, Standing { used: 0, held: 1_000 + bytes });
    assert_eq!(bench.of("tenant chats month").await, Standing { used: 0, held: 1 });
    answered(call, 11, 500).await;
    assert_eq!(bench.of("tenant cost_usd month").await, Standing { used: 15_000_330, held: 0 });
    assert_eq!(bench.of("tenant tokens day").await, Standing { used: 511, held: 0 });
    assert_eq!(bench.of("tenant chats month").await, Standing { used: 1, held: 0 });
}

#[tokio::test]
async fn a_worst_case_holds_the_tier_that_the_account_may_choose() {
    let row = |tier, times: i64| PriceRow {
        tier,
        from: None,
        above: 0,
        rates: Rates { input: Some(times), output: Some(1_000 * times), ..Rates::NONE },
    };
    let tiers = [(ServiceTier::Standard, 2_000), (ServiceTier::Priority, 4_000), (ServiceTier::Flex, 1_000)];
    let dear = ModelPrices {
        provider: "openai".into(),
        name: "dear".into(),
        names: vec![Pattern::parse("dear").unwrap()],
        except: Vec::new(),
        unverified: None,
        origin: Origin::default(),
        rows: tiers.map(|(tier, times)| row(tier, times)).to_vec(),
    };
    let bench = Bench::open(&[cost(DOLLAR)], WORST).await;
    let book = || PriceBook::new("tiers".into(), vec![dear.clone()]).unwrap();
    let estimate = Budget { hold: Sizing::Estimate, ..WORST };
    let (standard, priority) = (ServiceTier::Standard, ServiceTier::Priority);
    for (account_tier, budget, tier, times) in [
        (standard, WORST, None, 2),
        (standard, WORST, Some("auto"), 2),
        (priority, WORST, None, 4),
        (priority, WORST, Some("auto"), 4),
        (priority, WORST, Some("default"), 2),
        (priority, estimate, None, 4),
        (standard, WORST, Some("default"), 2),
        (standard, WORST, Some("flex"), 2),
        (standard, WORST, Some("priority"), 4),
        (standard, estimate, None, 2),
        (standard, estimate, Some("auto"), 2),
        (standard, estimate, Some("flex"), 1),
        (standard, estimate, Some("priority"), 4),
    ] {
        let bounds = Bounds { account_tier, ..Bounds::default() };
        bench.world.snapshots.set_sizes(ModelLimits::default(), bounds);
        bench.put_priced(&[cost(DOLLAR)], budget, book());
        let tier_member = tier.map_or_else(String::new, |tier| format!(r#","service_tier":"{tier}""#));
        let body = chat("dear", 1_000).replacen(r#","max"#, &format!(r#"{tier_member},"max"#), 1);
        let call = bench.ask(&body).await.unwrap();
        let held = bench.of("tenant cost_usd month").await.held;
        // The output, and of the input less than the price of one token of output.
        assert_eq!(held / 1_000_000, times, "{:?} {tier:?}", budget.hold);
        drop(call);
    }
}

#[tokio::test]
async fn what_others_hold_is_429_and_what_is_used_is_402() {
    let bench = Bench::open(&[cost(DOLLAR / 10)], WORST).await;
    let body = chat("dear", 1_000);
    let mut calls = Vec::new();
    for _ in 0..3 {
        calls.push(bench.ask(&body).await.unwrap());
    }
    let before = bench.standings().await;
    let held = bench.ask(&body).await.err().unwrap();
    assert!(matches!(held, Refusal::BudgetHeld(_)), "{held:?}");
    assert_eq!((facts(&held).limit, facts(&held).standing.used), (DOLLAR / 10, 0));
    assert_eq!(bench.standings().await, before, "a refused call leaves every counter as it was");
    for call in calls {
        answered(call, 11, 1_000).await;
    }
    let used_up = bench.ask(&body).await.err().unwrap();
    assert!(matches!(used_up, Refusal::QuotaUsedUp(_)), "{used_up:?}");
    assert_eq!(facts(&used_up).standing, Standing { used: 3 * 30_000_330, held: 0 });
    // A smaller call still fits.
    assert!(bench.ask(&chat("dear", 200)).await.is_ok());
}

#[tokio::test]
async fn of_two_limits_the_used_up_one_is_told_before_the_held_one() {
    let month = limit(Scope::Tenant, Metric::Tokens, Window::Month, 1_500);
    let bench = Bench::open(&[cost(DOLLAR / 20), month], WORST).await;
    answered(bench.ask(&chat("dear", 900)).await.unwrap(), 11, 600).await;
    let _held = bench.ask(&chat("dear", 700)).await.unwrap();
    let refusal = bench.ask(&chat("dear", 900)).await.err().unwrap();
    assert_eq!((facts(&refusal).metric, refusal.status()), (Metric::Tokens, 402), "{refusal:?}");
}

#[tokio::test]
async fn each_user_and_key_has_its_own_budget_and_nobody_is_not_limited() {
    let limits = [
        limit(Scope::User, Metric::Cost, Window::Day, DOLLAR / 25),
        limit(Scope::User, Metric::Chats, Window::Day, 5),
        limit(Scope::Key, Metric::Tokens, Window::Month, 1_000_000),
    ];
    let bench = Bench::open(&limits, WORST).await;
    let body = chat("dear", 1_000);
    let path = "/v1/chat/completions";
    answered(bench.ask_as(Some("alice"), path, &body).await.unwrap(), 11, 1_000).await;
    let refusal = bench.ask_as(Some("alice"), path, &body).await.err().unwrap();
    assert_eq!((&facts(&refusal).subject, refusal.status()), (&Subject::User("alice".into()), 402));
    assert!(bench.ask_as(Some("bob"), path, &body).await.is_ok());
    for _ in 0..9 {
        assert!(bench.ask_as(None, path, &body).await.is_ok());
    }
    assert_eq!(bench.of("user alice chats day").await.used, 1);
    assert_eq!(bench.of("key key_0123456789abcdef tokens month").await.used, 1_011);
}

#[tokio::test]
async fn a_chat_limit_of_a_user_refuses_chats_alone() {
    let bench = Bench::open(&[limit(Scope::User, Metric::Chats, Window::Month, 0)], Budget::default()).await;
    let refusal = bench.ask_as(Some("alice"), "/v1/chat/completions", &chat("dear", 9)).await.err().unwrap();
    assert_eq!((facts(&refusal).metric, refusal.status()), (Metric::Chats, 402));
    assert!(bench.ask_as(Some("alice"), "/v1/embeddings", r#"{"model":"dear","input":"hi"}"#).await.is_ok());
}

#[tokio::test]
async fn every_billed_route_counts_and_a_free_price_skips_cost_alone() {
    let tokens = limit(Scope::Tenant, Metric::Tokens, Window::Month, 100);
    let bench = Bench::open(&[cost(0), tokens], WORST).await;
    let refusal = bench.ask_as(None, "/v1/embeddings", r#"{"model":"dear","input":"hi"}"#).await.err().unwrap();
    assert_eq!((facts(&refusal).metric, refusal.status()), (Metric::Cost, 402));
    let free = bench.ask_as(None, "/v1/embeddings", r#"{"model":"free","input":"hi"}"#).await;
    assert!(free.is_ok());
    let too_long = format!(r#"{{"model":"free","input":"{}"}}"#, "x".repeat(100));
    let refusal = bench.ask_as(None, "/v1/embeddings", &too_long).await.err().unwrap();
    assert_eq!((facts(&refusal).metric, refusal.status()), (Metric::Tokens, 402));
}

#[tokio::test]
async fn fees_of_searches_are_held_where_the_body_has_tools_of_the_provider() {
    const CENT: u64 = DOLLAR / 100;
    let bench = Bench::open(&[cost(DOLLAR)], WORST).await;
    let path = "/v1/responses";
    let ask = async |model: &str, rest: &str| {
        bench.ask_as(None, path, &format!(r#"{{"model":"{model}","input":"hi"{rest}}}"#)).await
    };
    let tools = r#","tools":[{"type":"web_search"}]"#;
    for (budget, model, rest, held) in [
        (WORST, "searching", tools, 16 * CENT),
        (WORST, "searching", r#","prompt":{"id":"pmpt_1"}"#, 16 * CENT),
        (WORST, "searching", "", 0),
        (WORST, "searching", r#","tools":[{"type":"function","name":"web_search"}]"#, 0),
        (Budget::default(), "searching", tools, CENT),
        // Nobody published what they cost: a limit that is used up refuses it all the same.
        (WORST, "free", tools, 1),
    ] {
        bench.put(&[cost(DOLLAR)], budget);
        let _call = ask(model, rest).await.unwrap();
        assert_eq!(bench.of("tenant cost_usd month").await.held, held, "{model} {rest}");
    }
    bench.put(&[cost(CENT)], Budget::default());
    assert!(ask("searching", tools).await.is_ok());
    bench.put(&[cost(CENT)], WORST);
    let refusal = ask("searching", tools).await.err().unwrap();
    assert_eq!((facts(&refusal).metric, refusal.status()), (Metric::Cost, 402));
}

#[tokio::test]
async fn without_a_price_a_cost_limit_refuses_unless_the_plan_allows_it() {
    let bench = Bench::open(&[cost(DOLLAR)], Budget::default()).await;
    let refusal = bench.ask(&chat("unknown", 9)).await.err().unwrap();
    assert_eq!((refusal.status(), refusal.code()), (403, "model_unpriced"));
    assert!(refusal.to_string().contains("Model unknown has no price"), "{refusal}");
    bench.put(&[cost(DOLLAR)], Budget { unpriced: Unpriced::Allow, ..Budget::default() });
    assert!(bench.ask(&chat("unknown", 9)).await.is_ok());
    assert_eq!(bench.of("tenant cost_usd month").await, Standing::default());
    // Without a cost limit nobody asks for a price.
    bench.put(&[], Budget::default());
    assert!(bench.ask(&chat("unknown", 9)).await.is_ok());
}

#[tokio::test]
async fn an_answer_of_a_model_without_a_price_counts_as_the_model_that_was_asked_for() {
    let bench = Bench::open(&[cost(DOLLAR)], WORST).await;
    let mut call = bench.ask(&chat("dear", 1_000)).await.unwrap();
    call.sending();
    call.head(200, Some("application/json"), None);
    let answer =
        br#"{"model":"renamed","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;
    call.pass(Bytes::from_static(answer), &mut Vec::new());
    call.settle(Ending::Whole).await;
    // One token of each kind, in nano-dollars.
    assert_eq!(bench.of("tenant cost_usd month").await, Standing { used: 30_030, held: 0 });
}

#[tokio::test]
async fn a_hold_is_capped_where_it_is_an_estimate() {
    let budget = Budget { hold_cost_max: Some(1_000), hold_tokens_max: Some(40), ..Budget::default() };
    let tokens = limit(Scope::Tenant, Metric::Tokens, Window::Month, 100);
    let bench = Bench::open(&[cost(DOLLAR), tokens], budget).await;
    let _call = bench.ask(&chat("dear", 1_000_000)).await.unwrap();
    assert_eq!(bench.of("tenant cost_usd month").await.held, 1_000);
    assert_eq!(bench.of("tenant tokens month").await.held, 40);
}

#[tokio::test]
async fn a_worst_case_tells_the_provider_what_it_holds() {
    let bench = Bench::open(&[cost(DOLLAR)], WORST).await;
    let undeclared = r#"{"model":"dear","messages":[],"n":2}"#;
    let call = bench.ask(undeclared).await.unwrap();
    let written: Vec<String> = call.edits().into_iter().map(|edit| edit.with).collect();
    assert_eq!(written, [r#""max_completion_tokens":16384,"#], "the configured maximum of each answer");
    let bytes = u64::try_from(undeclared.len()).unwrap();
    assert_eq!(bench.of("tenant cost_usd month").await.held, 2 * 16_384 * 30_000 + bytes * 30);
    drop(call);
    let declared = bench.ask(&chat("dear", 100)).await.unwrap();
    assert_eq!(declared.edits(), []);
    drop(declared);
    // An estimate holds the same output and writes nothing.
    bench.put(&[cost(DOLLAR)], Budget::default());
    assert_eq!(bench.ask(undeclared).await.unwrap().edits(), []);
}

#[tokio::test]
async fn a_clamp_lowers_the_output_to_what_is_left_and_never_below_sixteen_tokens() {
    let clamp = Budget { when_short: WhenShort::Clamp, ..WORST };
    let bench = Bench::open(&[cost(DOLLAR / 100)], clamp).await;
    let body = chat("dear", 1_000);
    let input = u64::try_from(body.len()).unwrap() * 30;
    let fits = (DOLLAR / 100 - input) / 30_000;
    let call = bench.ask(&body).await.unwrap();
    assert_eq!(call.edits().into_iter().map(|edit| edit.with).collect::<Vec<_>>(), [fits.to_string()]);
    assert_eq!(bench.of("tenant cost_usd month").await.held, fits * 30_000 + input);
    // Nothing is left but for what that call holds.
    let refusal = bench.ask(&body).await.err().unwrap();
    assert!(matches!(refusal, Refusal::BudgetHeld(_)), "{refusal:?}");
    answered(call, 11, fits).await;
    let before = bench.standings().await;
    let refusal = bench.ask(&body).await.err().unwrap();
    assert!(matches!(refusal, Refusal::QuotaUsedUp(_)), "{refusal:?}");
    assert_eq!(bench.standings().await, before);
    // What takes no maximum cannot be lowered.
    let image = r#"{"model":"dear","prompt":"a cat"}"#;
    let refusal = bench.ask_as(None, "/v1/images/generations", image).await.err().unwrap();
    assert!(matches!(refusal, Refusal::QuotaUsedUp(_)), "{refusal:?}");
}

#[tokio::test]
async fn what_tokens_do_not_bound_holds_the_least_that_is_configured() {
    let bench = Bench::open(&[cost(DOLLAR)], Budget::default()).await;
    bench.world.snapshots.set_sizes(ModelLimits::default(), hold::Bounds { output_max: 1, ..hold::Bounds::default() });
    let _speech =
        bench.ask_as(None, "/v1/audio/speech", r#"{"model":"dear","input":"hi","voice":"alloy"}"#).await.unwrap();
    assert_eq!(bench.of("tenant cost_usd month").await.held, DOLLAR / 100);
}

#[tokio::test]
async fn grace_admits_beyond_the_limit_and_the_refusal_names_the_limit() {
    let bench = Bench::open(
        &[limit(Scope::Tenant, Metric::Chats, Window::Month, 10)],
        Budget { grace_percent: 20, ..Budget::default() },
    )
    .await;
    for _ in 0..12 {
        answered(bench.ask(&chat("dear", 1)).await.unwrap(), 1, 1).await;
    }
    let refusal = bench.ask(&chat("dear", 1)).await.err().unwrap();
    assert_eq!((facts(&refusal).limit, facts(&refusal).standing.used), (10, 12));
}

#[tokio::test]
async fn a_limit_that_is_lifted_and_put_back_knows_what_was_used() {
    let bench = Bench::open(&[limit(Scope::Tenant, Metric::Chats, Window::Month, 2)], Budget::default()).await;
    answered(bench.ask(&chat("dear", 1)).await.unwrap(), 1, 1).await;
    bench.put(&[], Budget::default());
    answered(bench.ask(&chat("dear", 1)).await.unwrap(), 1, 1).await;
    bench.put(&[limit(Scope::Tenant, Metric::Chats, Window::Month, 2)], Budget::default());
    let refusal = bench.ask(&chat("dear", 1)).await.err().unwrap();
    assert_eq!(facts(&refusal).standing, Standing { used: 2, held: 0 });
}

#[tokio::test]
async fn a_session_may_begin_while_something_is_left_of_every_limit() {
    let bench = Bench::open(&[cost(1)], Budget::default()).await;
    let (provider, endpoint) = providers::route(&Method::GET, "/v1/realtime", CredentialPlace::Bearer).unwrap();
    let caller = bench.caller(None);
    let target = (provider, &endpoint);
    assert_eq!(bench.meter.could_admit(&caller, target, Some("dear")).await, Ok(()));
    bench.put(&[cost(0)], Budget::default());
    let caller = bench.caller(None);
    let refusal = bench.meter.could_admit(&caller, target, Some("dear")).await.unwrap_err();
    assert_eq!((facts(&refusal).metric, refusal.status()), (Metric::Cost, 402));
    let refusal = bench.meter.could_admit(&caller, target, Some("unknown")).await.unwrap_err();
    assert_eq!(refusal.code(), "model_unpriced");
    assert_eq!(bench.standings().await, [], "nothing is held");
}
