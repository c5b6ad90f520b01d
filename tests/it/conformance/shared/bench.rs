//! What the suite of shared counters stands on: the stores, and one gateway that speaks of one tenant.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Runtime;
use tollgate::adapters::memory_shared::MemoryShared;
use tollgate::adapters::redis_counters::RedisCounters;
use tollgate::adapters::system_clock::SystemClock;
use tollgate::domain::counting::Counting;
use tollgate::domain::ids::{EventId, TenantId};
use tollgate::domain::plan::{Metric, Subject};
use tollgate::domain::time::Period;
use tollgate::ports::counters::{Claim, CounterKey, CountersUnavailable};
use tollgate::ports::shared::{
    Ask, CallState, Count, Epoch, Finish, Floors, Held, Joined, Joining, Listing, Look, Member, NodeId, Note, Noted,
    Noting, SharedCounters,
};

use crate::support::redis::{RedisCluster, RedisServer};

use crate::conformance::{event_id, tenant};

pub(super) type Store = Arc<dyn SharedCounters>;

pub(super) const LEDGER: &str = "5e1f0c9a-b7d2-4836-8000-000000000001";
/// Ample: nothing here is about time that is short.
pub(super) const WITHIN: Duration = Duration::from_secs(10);
pub(super) const HOUR: Duration = Duration::from_secs(3_600);

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
pub(super) async fn adapters() -> Vec<(&'static str, Store)> {
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
pub(super) fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(super) fn epoch() -> Epoch {
    Epoch((u128::from(u64::MAX) << 64) | u128::from(unique()))
}

pub(super) fn month(text: &str) -> Period {
    Period::parse_month(text).unwrap()
}

pub(super) fn day(text: &str) -> Period {
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
    pub(super) fn another(&self) -> Self {
        Self { member: Member { node: NodeId(unique()), life: 1 }, ..self.clone() }
    }

    /// The same gateway after a restart.
    pub(super) fn restarted(&self) -> Self {
        Self { member: Member { node: self.member.node, life: unique() }, ..self.clone() }
    }

    pub(super) fn counter(&self, period: Period) -> CounterKey {
        CounterKey { tenant: self.tenant.clone(), subject: Subject::Tenant, metric: Metric::Chats, period }
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
            counting: Counting::TENANT,
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
        let noting = Noting { member: *member, tenant, epoch, notes, lease_left, within: *within };
        store.note(&noting).await.unwrap()
    }

    pub(super) fn call(&self, call: u64, state: CallState, amount: u64) -> Note {
        Note { id: event_id(call), state, amounts: vec![(self.november(), amount)], listing: Listing::Known }
    }

    pub(super) async fn join_with(&self, epoch: Epoch, is_forced: bool, calls: &[Note]) -> Joined {
        let Self { store, tenant, member, within } = self;
        let joining = Joining {
            member: *member,
            tenant,
            epoch,
            is_forced,
            floors: floors(),
            counting: Counting::TENANT,
            calls,
            is_first: true,
            is_last: true,
            within: *within,
        };
        store.join(&joining).await.unwrap()
    }

    pub(super) async fn join_counting(&self, counting: Counting) -> Joined {
        let Self { store, tenant, member, within } = self;
        let joining = Joining {
            member: *member,
            tenant,
            epoch: epoch(),
            is_forced: false,
            floors: floors(),
            counting,
            calls: &[],
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
        self.finish_as(None, epoch, joins, sums, known).await
    }

    pub(super) async fn finish_as(
        &self,
        writer: Option<u64>,
        epoch: Epoch,
        joins: u64,
        sums: &[(CounterKey, u64)],
        known: &[EventId],
    ) -> bool {
        let finish = Finish { tenant: &self.tenant, epoch, joins, writer, sums, known, within: self.within };
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

    pub(super) async fn listed(&self) -> BTreeMap<String, Count> {
        let all = self.store.list().await.unwrap();
        let own = all.into_iter().filter(|(key, count)| key.tenant == self.tenant && *count != Count::default());
        own.map(|(key, count)| (format!("{} {}:{}", key.subject, key.metric.as_str(), key.period), count)).collect()
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
