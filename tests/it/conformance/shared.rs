//! What every [`SharedCounters`] promises: rule by rule, and step by step beside the model.
#![allow(dead_code, unused)]

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
use tollgate::domain::time::{Period, Window};
use tollgate::ports::counters::{Claim, CounterKey};
use tollgate::ports::shared::{
    Ask, Beat, CallState, ClaimError, Count, Epoch, Finish, Floors, Held, Joined, Joining, LeaseAsk, Look, Member,
    NodeId, Note, Noted, Noting, SharedCounters, Wanted,
};

use crate::support::machine::Chance;
use crate::support::redis::{RedisCluster, RedisServer};

#[allow(unused)]
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
