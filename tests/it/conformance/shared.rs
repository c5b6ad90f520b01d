//! What every [`SharedCounters`] promises: rule by rule, and step by step beside the model.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tollgate::adapters::memory_shared::MemoryShared;
use tollgate::adapters::redis_counters::RedisCounters;
use tollgate::adapters::system_clock::SystemClock;
use tollgate::domain::ids::{EventId, TenantId};
use tollgate::domain::plan::Metric;
use tollgate::domain::time::Period;
use tollgate::ports::counters::{Claim, CounterKey, CountersUnavailable};
use tollgate::ports::shared::{
    Ask, Beat, CallState, ClaimError, Count, Epoch, Finish, Floors, Held, Joined, Joining, LeaseAsk, Look, Member,
    NodeId, Note, Noted, Noting, SharedCounters, Wanted,
};

use crate::support::machine::Chance;
use crate::support::redis::{RedisCluster, RedisServer};

use super::{event_id, tenant};

pub(super) type Store = Arc<dyn SharedCounters>;

pub(super) const LEDGER: &str = "5e1f0c9a-b7d2-4836-8000-000000000001";
/// Ample: nothing here is about time that is short.
pub(super) const WITHIN: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3_600);
const BOUND: Duration = Duration::from_secs(20);

/// Connections of all tests live in it.
pub(super) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}

/// Counters at an address, claimed.
pub(super) async fn connected(url: &str) -> Arc<RedisCounters> {
    let clock = Arc::new(SystemClock::new());
    let store = Arc::new(RedisCounters::start(url.parse().unwrap(), clock, runtime().handle()));
    store.claim(LEDGER).await.unwrap();
    store
}

/// Every adapter. The servers are those of the whole run, so each test has tenants and nodes of its own.
async fn adapters() -> Vec<(&'static str, Store)> {
    static SINGLE: OnceLock<RedisServer> = OnceLock::new();
    static CLUSTER: OnceLock<RedisCluster> = OnceLock::new();
    let (single, cluster) = tokio::task::spawn_blocking(|| {
        (SINGLE.get_or_init(RedisServer::start).url(), CLUSTER.get_or_init(RedisCluster::start).url())
    })
    .await
    .unwrap();
    let memory = MemoryShared::new(Arc::new(SystemClock::new()));
    vec![("memory", Arc::new(memory)), ("redis", connected(&single).await), ("cluster", connected(&cluster).await)]
}

/// A number that no other test has.
fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn epoch() -> Epoch {
    Epoch((u128::from(u64::MAX) << 64) | u128::from(unique()))
}

pub(super) fn month(text: &str) -> Period {
    Period::parse_month(text).unwrap()
}

fn day(text: &str) -> Period {
    Period::parse_day(text).unwrap()
}

pub(super) fn floors() -> Floors {
    Floors { month: month("2026-11"), day: day("2026-11-24") }
}

/// One tenant of one test, and a gateway that speaks of it.
#[derive(Clone)]
pub(super) struct Bench {
    pub(super) store: Store,
    pub(super) tenant: TenantId,
    pub(super) member: Member,
    pub(super) within: Duration,
}

impl Bench {
    pub(super) fn new(store: &Store, name: &str) -> Self {
        let member = Member { node: NodeId(unique()), life: u64::MAX - 7 };
        Self { store: Arc::clone(store), tenant: tenant(&format!("{name}-{}", unique())), member, within: WITHIN }
    }

    /// Another gateway for the same tenant.
    fn another(&self) -> Self {
        Self { member: Member { node: NodeId(unique()), life: 1 }, ..self.clone() }
    }

    /// The same gateway after a restart.
    fn restarted(&self) -> Self {
        Self { member: Member { node: self.member.node, life: unique() }, ..self.clone() }
    }

    pub(super) fn counter(&self, period: Period) -> CounterKey {
        CounterKey { tenant: self.tenant.clone(), metric: Metric::Chats, period }
    }

    pub(super) fn november(&self) -> CounterKey {
        self.counter(month("2026-11"))
    }

    pub(super) fn claim(&self, max: impl Into<Option<u64>>) -> Claim {
        Claim { counter: self.november(), amount: 1, max: max.into() }
    }

    pub(super) fn ask<'a>(&'a self, call: u64, claims: &'a [Claim]) -> Ask<'a> {
        Ask {
            member: self.member,
            tenant: &self.tenant,
            id: event_id(call),
            claims,
            revision: 0,
            is_alone: false,
            lease: None,
            within: self.within,
        }
    }

    pub(super) async fn asked(&self, ask: Ask<'_>) -> Held {
        self.store.hold(&ask).await.unwrap()
    }

    pub(super) async fn hold(&self, call: u64, max: impl Into<Option<u64>>) -> Held {
        self.asked(self.ask(call, &[self.claim(max)])).await
    }

    /// The same for a store that may be away.
    pub(super) async fn hold_or_error(&self, call: u64) -> Result<Held, CountersUnavailable> {
        self.store.hold(&self.ask(call, &[self.claim(9)])).await
    }

    pub(super) async fn note(&self, epoch: Epoch, notes: &[Note], lease_left: Option<u64>) -> Noted {
        let Self { store, tenant, member, within } = self;
        let noting = Noting { node: member.node, tenant, epoch, notes, lease_left, within: *within };
        store.note(&noting).await.unwrap()
    }

    pub(super) fn call(&self, call: u64, state: CallState, amount: u64) -> Note {
        Note { id: event_id(call), state, amounts: vec![(self.november(), amount)], from_lease: false }
    }

    pub(super) async fn join_with(&self, epoch: Epoch, is_forced: bool, calls: &[Note]) -> Joined {
        let Self { store, tenant, member, within } = self;
        let joining = Joining {
            member: *member,
            tenant,
            epoch,
            is_forced,
            floors: floors(),
            calls,
            is_first: true,
            is_last: true,
            within: *within,
        };
        store.join(&joining).await.unwrap()
    }

    pub(super) async fn join(&self) -> Joined {
        self.join_with(epoch(), false, &[]).await
    }

    pub(super) async fn look(&self) -> Look {
        self.store.look(self.member.node, &self.tenant).await.unwrap()
    }

    pub(super) async fn finish(&self, epoch: Epoch, joins: u64, sums: &[(CounterKey, u64)], known: &[EventId]) -> bool {
        let finish = Finish { tenant: &self.tenant, epoch, joins, sums, known, within: self.within };
        self.store.finish(&finish).await.unwrap()
    }

    /// Opens the tenant with so much in the ledger; gives the epoch.
    pub(super) async fn open(&self, booked: u64) -> Epoch {
        let Joined::Building(epoch) = self.join().await else { panic!("it is there") };
        let Look::Building { joins, .. } = self.look().await else { panic!("it is not in building") };
        assert!(self.finish(epoch, joins, &[(self.november(), booked)], &[]).await);
        epoch
    }

    pub(super) async fn count(&self) -> Option<Count> {
        let counts = self.store.read(&self.tenant, &[self.november()]).await.unwrap();
        counts.map(|counts| counts[0])
    }

    async fn listed(&self) -> BTreeMap<String, Count> {
        let all = self.store.list().await.unwrap();
        let own = all.into_iter().filter(|(key, count)| key.tenant == self.tenant && *count != Count::default());
        own.map(|(key, count)| (format!("{}:{}", key.metric.as_str(), key.period), count)).collect()
    }
}

pub(super) fn booked(booked: u64) -> Count {
    Count { booked, ..Count::default() }
}

/// The counts of a call that was taken.
pub(super) fn taken(held: Held) -> (Count, u64) {
    match held {
        Held::Taken { counts, leased, .. } => (counts[0], leased),
        other => panic!("not taken: {other:?}"),
    }
}

/// Does `steps` that follow from a seed, and tells what each answered: two stores that do the same tell the same.
async fn story(store: &Store, seed: u64, steps: usize, benches: &[Bench]) -> Vec<String> {
    let mut teller = Teller { chance: Chance::seeded(seed), epochs: vec![Epoch(1)], joins: 0 };
    let mut told = Vec::with_capacity(steps);
    for _ in 0..steps {
        let at = teller.below(benches.len());
        let mut bench = Bench { store: Arc::clone(store), ..benches[at].clone() };
        if teller.one_in(40) {
            bench.member.life = teller.chance.below(3);
        }
        let line = teller.step(&bench, at).await;
        told.push(format!("{line}\n    {:?}", bench.listed().await));
    }
    told
}

struct Teller {
    chance: Chance,
    epochs: Vec<Epoch>,
    joins: u64,
}

impl Teller {
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.chance.below(u64::try_from(end).unwrap())).unwrap()
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn period(&mut self) -> Period {
        let periods = [month("2026-11"), month("2026-11"), day("2026-11-24"), day("2026-11-25"), month("2026-10")];
        periods[self.below(periods.len())]
    }

    fn amount(&mut self) -> u64 {
        if self.one_in(4) { self.chance.below(4) } else { 1 }
    }

    fn amounts(&mut self, bench: &Bench) -> Vec<(CounterKey, u64)> {
        let mut amounts: Vec<(CounterKey, u64)> = Vec::new();
        for _ in 0..=self.below(2) {
            let counter = bench.counter(self.period());
            if amounts.iter().all(|(known, _)| *known != counter) {
                amounts.push((counter, self.amount()));
            }
        }
        amounts
    }

    /// A call of the gateway at this place alone.
    fn call(&mut self, at: usize) -> EventId {
        event_id(u64::try_from(at * 100 + self.below(8)).unwrap())
    }

    fn note(&mut self, bench: &Bench, at: usize) -> Note {
        let states = [CallState::Held, CallState::Settled, CallState::Booked, CallState::Gone];
        let state = states[self.below(states.len())];
        let from_lease = matches!(state, CallState::Held | CallState::Settled) && self.one_in(2);
        Note { id: self.call(at), state, amounts: self.amounts(bench), from_lease }
    }

    fn epoch(&mut self) -> Epoch {
        let last = self.epochs.len() - 1;
        let at = if self.one_in(20) { self.below(last + 1) } else { last };
        self.epochs[at]
    }

    fn learn(&mut self, epoch: Epoch) {
        if self.epochs.last() != Some(&epoch) {
            self.epochs.push(epoch);
        }
    }

    async fn step(&mut self, bench: &Bench, at: usize) -> String {
        match self.below(20) {
            0..=7 => self.hold(bench, at).await,
            8..=12 => {
                let notes: Vec<_> = (0..self.below(4)).map(|_| self.note(bench, at)).collect();
                let left = self.one_in(3).then(|| self.chance.below(5));
                let epoch = self.epoch();
                format!("note {notes:?} {left:?}: {:?}", bench.note(epoch, &notes, left).await)
            }
            13 | 14 => self.join(bench, at).await,
            15 | 16 => {
                let look = self.look(bench).await;
                // Most of the time it is opened at once: shut, it has little to tell.
                if self.one_in(4) { look } else { format!("{look}; {}", self.finish(bench, at).await) }
            }
            17 => self.finish(bench, at).await,
            18 => {
                let revision = i64::try_from(self.chance.below(4)).unwrap() - 1;
                let revision = if self.one_in(3) { revision } else { 0 };
                bench.store.changed(&bench.tenant, revision, WITHIN).await.unwrap();
                format!("changed {revision}")
            }
            _ => {
                let counters = [bench.november(), bench.counter(day("2026-11-24"))];
                format!("read {:?}", bench.store.read(&bench.tenant, &counters).await.unwrap())
            }
        }
    }

    async fn finish(&mut self, bench: &Bench, at: usize) -> String {
        let sums = self.amounts(bench);
        let known: Vec<_> = (0..self.below(3)).map(|_| self.call(at)).collect();
        let joins = if self.one_in(8) { self.joins + 1 } else { self.joins };
        let epoch = self.epoch();
        format!("finish {sums:?} {known:?}: {}", bench.finish(epoch, joins, &sums, &known).await)
    }

    async fn hold(&mut self, bench: &Bench, at: usize) -> String {
        let amounts = self.amounts(bench);
        let max = |teller: &mut Self| [None, Some(3), Some(6), Some(20)][teller.below(4)];
        let claims: Vec<_> =
            amounts.into_iter().map(|(counter, amount)| Claim { counter, amount, max: max(self) }).collect();
        let mut ask = Ask { id: self.call(at), is_alone: self.one_in(4), ..bench.ask(0, &claims) };
        if self.one_in(2) {
            let lasts = if self.one_in(2) { Duration::ZERO } else { HOUR };
            let (units_max, parts, left) = (self.chance.below(6), 1 + self.chance.below(3), self.chance.below(6));
            ask.lease = Some(LeaseAsk { units_max, parts, lasts, left });
        }
        ask.revision = if self.one_in(8) { 1 } else { 2 };
        let held = bench.asked(ask).await;
        if let Held::Taken { epoch, .. } = held {
            self.learn(epoch);
        }
        format!("hold {ask:?}: {held:?}")
    }

    async fn join(&mut self, bench: &Bench, at: usize) -> String {
        let count = if self.one_in(2) { 0 } else { self.below(4) };
        let calls: Vec<_> = (0..count)
            .map(|_| self.note(bench, at))
            .filter(|note| note.state != CallState::Gone)
            .map(|note| Note { from_lease: false, ..note })
            .collect();
        let joining = Joining {
            member: bench.member,
            tenant: &bench.tenant,
            epoch: Epoch(u128::from(self.chance.next())),
            is_forced: self.one_in(20),
            floors: if self.one_in(2) { floors() } else { Floors { month: month("2026-10"), day: day("2026-11-25") } },
            calls: &calls,
            is_first: !self.one_in(4),
            is_last: !self.one_in(4),
            within: WITHIN,
        };
        let joined = bench.store.join(&joining).await.unwrap();
        let (Joined::Open(epoch) | Joined::Building(epoch)) = joined;
        self.learn(epoch);
        format!("join {joining:?}: {joined:?}")
    }

    /// As one gateway, whoever it is: that others have to wait for a second is another test.
    async fn look(&mut self, bench: &Bench) -> String {
        let mut look = bench.store.look(NodeId(0), &bench.tenant).await.unwrap();
        if let Look::Building { joins, joined, calls, epoch, .. } = &mut look {
            joined.sort();
            calls.sort_by_key(|id| id.to_bytes());
            self.joins = *joins;
            self.learn(*epoch);
        }
        format!("look: {look:?}")
    }
}

#[tokio::test]
async fn any_story_is_the_same_as_the_models() {
    let seed = Chance::new().seed;
    let steps = if crate::support::machine::full() { 20_000 } else { 2_000 };
    let stores = adapters().await;
    let first = Bench::new(&stores[0].1, "story");
    let benches = [first.clone(), first.another(), first.another()];
    let model = story(&stores[0].1, seed, steps, &benches).await;
    for (name, store) in &stores[1..] {
        let other = story(store, seed, steps, &benches).await;
        for (step, (model, other)) in model.iter().zip(&other).enumerate() {
            assert_eq!(model, other, "{name}: seed {seed}, step {step}");
        }
    }
}

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
        assert_eq!(second.look().await, Look::Busy, "{name}");
        assert_eq!(second.join().await, Joined::Building(epoch), "{name}: under the epoch that was begun");
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
        while second.look().await == Look::Busy {
            assert!(began.elapsed() < BOUND, "{name}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(began.elapsed() > Duration::from_millis(900), "{name}: {:?}", began.elapsed());
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
        for above in [month("2027-01"), day("2026-11-25")] {
            assert_eq!(taken(bench.asked(bench.ask(1, &claim(above))).await).1, 0, "{name}: {above}");
        }
        // Whoever needs the earlier one begins anew with lower floors, and the calls stay.
        let joining = Floors { month: month("2026-10"), day: day("2026-11-30") };
        let Bench { member, tenant, within, .. } = bench.clone();
        let joining = Joining {
            member,
            tenant: &tenant,
            epoch: epoch(),
            is_forced: true,
            floors: joining,
            calls: &[],
            is_first: false,
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
        let from_lease = Note { from_lease: true, ..first.call(2, CallState::Held, 1) };
        for _ in 0..2 {
            first.note(epoch, &[from_lease.clone()], None).await;
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
        assert_eq!(wanted(&first, &[Wanted::Lease, Wanted::Join], &[]).await, [Wanted::Join, Wanted::Lease], "{name}");
        assert_eq!(wanted(&second, &[], &[Wanted::Lease]).await, [Wanted::Join], "{name}");
        assert_eq!(wanted(&first, &[], &[]).await, [Wanted::Join], "{name}");
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
