//! What changes while a call is admitted, and what one that is not admitted leaves behind.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::adapters::memory_continuations::MemoryContinuations;
use crate::adapters::memory_rates::MemoryRates;
use crate::domain::ids::{EventId, TenantId};
use crate::domain::rate::Rate;
use crate::metering::continued::token_hash;
use crate::metering::snapshot::Account;
use crate::metering::vault::OwnKey;
use crate::ports::BoxFuture;
use crate::ports::continuations::Continuations;
use crate::ports::counters::{Counted, CountersHealth, CountersUnavailable, HoldOutcome, Terms};
use crate::ports::rates::{RateClaim, RateOutcome, RateStanding, RateStore};

use super::*;

/// What happens at a hold before the counters are asked.
enum Happens {
    Nothing,
    /// The tenant is on another plan by now.
    Changed,
    /// No answer ever comes.
    Silence,
}

type Script = Box<dyn Fn(usize) -> Happens + Send + Sync>;

/// Counters at which something happens while a call waits for them.
struct Busy {
    inner: Arc<MemoryCounters>,
    script: Script,
    holds: AtomicUsize,
    is_mute: AtomicBool,
}

impl CounterStore for Busy {
    fn hold<'a>(
        &'a self,
        id: EventId,
        claims: &'a [Claim],
        terms: Terms,
    ) -> BoxFuture<'a, Result<HoldOutcome, CountersUnavailable>> {
        match (self.script)(self.holds.fetch_add(1, Ordering::Relaxed)) {
            Happens::Nothing => self.inner.hold(id, claims, terms),
            Happens::Changed => Box::pin(async { Ok(HoldOutcome::Changed) }),
            Happens::Silence => Box::pin(std::future::pending()),
        }
    }

    fn settle(&self, id: EventId, claims: &[Claim], used: &[(CounterKey, u64)]) {
        self.inner.settle(id, claims, used);
    }

    fn read<'a>(&'a self, counters: &'a [CounterKey]) -> BoxFuture<'a, Result<Vec<Standing>, CountersUnavailable>> {
        if self.is_mute.load(Ordering::Relaxed) {
            return Box::pin(async { Err(CountersUnavailable("they say nothing".into())) });
        }
        self.inner.read(counters)
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Counted>, CountersUnavailable>> {
        self.inner.list()
    }

    fn seed<'a>(&'a self, counters: &'a [(CounterKey, u64)]) -> BoxFuture<'a, Result<(), CountersUnavailable>> {
        self.inner.seed(counters)
    }

    fn changed<'a>(&'a self, tenant: &'a TenantId, revision: i64) -> BoxFuture<'a, ()> {
        self.inner.changed(tenant, revision)
    }

    fn health(&self) -> CountersHealth {
        self.inner.health()
    }
}

/// Rates that remember which calls took of them, and gave back.
struct Told {
    inner: MemoryRates,
    taken: Mutex<Vec<EventId>>,
    ended: Mutex<Vec<EventId>>,
}

impl RateStore for Told {
    fn take<'a>(
        &'a self,
        id: EventId,
        tenant: &'a TenantId,
        claims: &'a [RateClaim],
    ) -> BoxFuture<'a, Result<RateOutcome, CountersUnavailable>> {
        self.taken.lock().push(id);
        self.inner.take(id, tenant, claims)
    }

    fn end(&self, id: EventId, tenant: &TenantId, claims: &[RateClaim], used: &[u64]) {
        self.ended.lock().push(id);
        self.inner.end(id, tenant, claims, used);
    }

    fn read<'a>(
        &'a self,
        tenant: &'a TenantId,
        claims: &'a [RateClaim],
    ) -> BoxFuture<'a, Result<Vec<RateStanding>, CountersUnavailable>> {
        self.inner.read(tenant, claims)
    }
}

/// The same bench over counters at which that happens.
fn busy(bench: Bench, script: Script) -> (Bench, Arc<Busy>) {
    let inner = bench.counters.clone();
    let counters = Arc::new(Busy { inner, script, holds: AtomicUsize::new(0), is_mute: AtomicBool::new(false) });
    let (journal, _directory) = fakes::journal();
    let (snapshots, clock) = (bench.world.snapshots.clone(), Arc::new(SystemClock::new()));
    let meter = Arc::new(Meter::new(counters.clone(), journal, snapshots, clock, Vec::new()));
    (Bench { meter, _directory, ..bench }, counters)
}

fn with_meter(bench: Bench, change: impl FnOnce(Meter) -> Meter) -> Bench {
    let Bench { world, meter, counters, _directory } = bench;
    let meter = Arc::new(change(Arc::into_inner(meter).unwrap()));
    Bench { world, meter, counters, _directory }
}

fn starter(limits: &[Limit], budget: Budget, rates: Vec<Rate>) -> Plans {
    let name: crate::domain::ids::PlanName = "starter".parse().unwrap();
    let mut plans: Plans = fakes::plans();
    let plan = Plan { limits: limits.to_vec(), budget, rates, ..Plan::unlimited(name.clone()) };
    plans.insert(name, Arc::new(plan));
    plans
}

#[tokio::test]
async fn a_call_is_billed_by_the_prices_that_its_hold_was_sized_by() {
    let bench = Bench::open(&[cost(DOLLAR)], WORST).await;
    let snapshots = bench.world.snapshots.clone();
    let dearer = Rates { input: Some(60_000), output: Some(60_000_000), ..Rates::NONE };
    let script = move |_| {
        snapshots.replace(starter(&[cost(DOLLAR)], WORST, Vec::new()), prices_of("later", dearer)).unwrap();
        Happens::Nothing
    };
    let (bench, _) = busy(bench, Box::new(script));
    answered(bench.ask(&chat("dear", 1_000)).await.unwrap(), 11, 1_000).await;
    assert_eq!(bench.of("tenant cost_usd month").await, Standing { used: 30_000_330, held: 0 });
    answered(bench.ask(&chat("dear", 1_000)).await.unwrap(), 11, 1_000).await;
    assert_eq!(bench.of("tenant cost_usd month").await, Standing { used: 3 * 30_000_330, held: 0 }, "the next one");
}

#[tokio::test]
async fn a_plan_that_becomes_a_worst_case_during_admission_has_its_maximum_written() {
    let bench = Bench::open(&[cost(DOLLAR)], Budget::default()).await;
    let snapshots = bench.world.snapshots.clone();
    let script = move |hold| {
        snapshots.replace(starter(&[cost(DOLLAR)], WORST, Vec::new()), prices()).unwrap();
        if hold == 0 { Happens::Changed } else { Happens::Nothing }
    };
    let (bench, counters) = busy(bench, Box::new(script));
    let call = bench.ask(r#"{"model":"dear","messages":[]}"#).await.unwrap();
    assert_eq!(counters.holds.load(Ordering::Relaxed), 2);
    let written: Vec<String> = call.edits().into_iter().map(|edit| edit.with).collect();
    assert_eq!(written, [r#""max_completion_tokens":16384,"#]);
}

#[tokio::test]
async fn a_unit_was_noted_in_the_account_of_a_key_that_its_request_was_not_made_with() {
    let bench = Bench::open(&[], Budget::default()).await;
    let script = |hold| if hold == 0 { Happens::Changed } else { Happens::Nothing };
    let (bench, counters) = busy(bench, Box::new(script));
    let body = r#"{"model":"dear","messages":[]}"#;
    let (provider, endpoint) =
        providers::route(&Method::POST, "/v1/chat/completions", CredentialPlace::Bearer).unwrap();
    let call = provider.call(&endpoint, None, &Bytes::from_static(body.as_bytes())).unwrap();
    // Its request is made with the tenant's own key, and the newest account has none.
    let mut caller = bench.caller(None);
    let own_keys = [(provider.id(), OwnKey::Open("sk-own".into()))].into_iter().collect();
    caller.account = Arc::new(Account { own_keys, ..Account::clone(&caller.account) });
    let admitted = bench.meter.admit(caller, provider, endpoint, call).await.unwrap();
    assert_eq!(counters.holds.load(Ordering::Relaxed), 2);
    assert!(admitted.open.as_ref().unwrap().own_account);
}

#[tokio::test]
async fn a_change_that_leaves_the_rates_alone_takes_none_of_them_again() {
    let rate = |max| Rate { scope: Scope::Tenant, metric: RateMetric::Concurrent, max };
    for (later, takes) in [(1, 1), (2, 2)] {
        let bench = Bench::open(&[], Budget::default()).await;
        let snapshots = bench.world.snapshots.clone();
        snapshots.replace(starter(&[], Budget::default(), vec![rate(1)]), prices()).unwrap();
        let script = move |hold| {
            snapshots.replace(starter(&[cost(DOLLAR)], WORST, vec![rate(later)]), prices()).unwrap();
            if hold == 0 { Happens::Changed } else { Happens::Nothing }
        };
        let inner = MemoryRates::new(Arc::new(SystemClock::new()));
        let rates = Arc::new(Told { inner, taken: Mutex::default(), ended: Mutex::default() });
        let (bench, _) = busy(bench, Box::new(script));
        let bench = with_meter(bench, |meter| meter.with_rates(rates.clone()));
        let call = bench.ask(&chat("dear", 10)).await.unwrap();
        let mut taken = rates.taken.lock().clone();
        assert_eq!((taken.len(), rates.ended.lock().clone()), (takes, taken[..takes - 1].to_vec()));
        drop(call);
        assert_eq!(*rates.ended.lock(), taken, "each is given back once");
        taken.dedup();
        assert_eq!(taken.len(), takes, "each by an id of its own");
    }
}

#[tokio::test]
async fn a_refusal_stays_one_where_the_counters_cannot_be_read() {
    let tokens = limit(Scope::Tenant, Metric::Tokens, Window::Month, 100_000);
    for when_short in [WhenShort::Refuse, WhenShort::Clamp] {
        let bench = Bench::open(&[cost(1), tokens], Budget { when_short, ..WORST }).await;
        let (bench, counters) = busy(bench, Box::new(|_| Happens::Nothing));
        counters.is_mute.store(true, Ordering::Relaxed);
        let refusal = bench.ask(&chat("dear", 1_000)).await.err().unwrap();
        assert_eq!((facts(&refusal).metric, refusal.status()), (Metric::Cost, 402), "{refusal:?}");
    }
}

#[tokio::test]
async fn a_call_that_is_not_admitted_gives_its_continuation_back() {
    let chats = limit(Scope::Tenant, Metric::Chats, Window::Month, 0);
    let tokens = |max| limit(Scope::Tenant, Metric::Tokens, Window::Month, max);
    let bench = Bench::open(&[chats, tokens(0)], Budget::default()).await;
    let script = |hold| if hold == 1 { Happens::Silence } else { Happens::Nothing };
    let (bench, _) = busy(bench, Box::new(script));
    let known = Arc::new(MemoryContinuations::new(Arc::new(SystemClock::new())));
    let bench = with_meter(bench, |meter| meter.with_continuations(known.clone()));
    known.issue(&"acme".parse().unwrap(), token_hash("t")).await;
    let path = "/v1beta/models/dear:generateContent";
    let goes_on = |token: &str| format!(r#"{{"contents":[],"continuationToken":"{token}"}}"#);
    let ask = async |token: &str| bench.ask_as(None, path, &goes_on(token)).await;

    let refusal = ask("t").await.err().unwrap();
    assert_eq!((facts(&refusal).metric, refusal.status()), (Metric::Tokens, 402), "it is no chat: {refusal:?}");
    bench.put(&[chats, tokens(1_000_000)], Budget::default());
    assert!(tokio::time::timeout(Duration::from_millis(1), ask("t")).await.is_err(), "its client leaves");
    // Given back by a task of its own, which runs once this one waits.
    tokio::task::yield_now().await;
    let admitted = ask("t").await.unwrap();
    let again = ask("t").await.err().unwrap();
    assert_eq!(facts(&again).metric, Metric::Chats, "one call has it at a time");
    drop(admitted);
    tokio::task::yield_now().await;
    assert!(ask("t").await.is_ok(), "nothing was sent");
    for _ in 0..2 {
        let strange = ask("another").await.err().unwrap();
        assert_eq!(facts(&strange).metric, Metric::Chats, "what nobody was given is never given back");
    }
}
