//! The counters of a gateway that shares them with others.
//!
//! May use: `domain`, `ports`, the snapshot. `local` is what this node knows of a tenant; `telling` carries its news to the
//! shared store; `building` builds what the store has lost from the ledger and the nodes' own calls; `beating` gives signs of
//! life, hears of the others, and knows whether the store can be asked at all.
//!
//! ```text
//! Meter ── hold ──► a lease in hand?          admitted, told a moment later
//!                   used up, as said before?  refused
//!                   the store is away?        refused, or what is left of a lease: as the plan says
//!                   SharedCounters::hold      one round trip: admitted, with a lease for the next; or used up, after idle
//!                                             leases came back; or unknown: built anew first
//! Meter ── settle ─► local ── telling ──► SharedCounters::note
//! Recorder ─ booked ─► local ── telling ──► SharedCounters::note
//! ```

mod beating;
mod building;
mod local;
mod telling;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::select;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::domain::counting::{Amounts, Counting};
use crate::domain::event::UsageEvent;
use crate::domain::ids::{EventId, TenantId};
use crate::domain::plan::{OnCountersDown, Standing};
use crate::domain::time::Window;
use crate::ports::BoxFuture;
use crate::ports::clock::Clock;
use crate::ports::counters::{
    Claim, Counted, CounterKey, CounterStore, CountersHealth, CountersUnavailable, HoldOutcome, Terms, used_by,
};
use crate::ports::shared::{Ask, Floors, Held, Member, Pulse, SharedCounters, Wanted};
use crate::ports::sink::Sink;
use crate::ports::tenants::TenantStore;
use crate::ports::usage::UsageStore;

use super::snapshot::Snapshots;

use self::building::Buildings;
use self::local::{Asking, Begin, Local, micros};

/// Always in the same order, so that what a node does follows from what happens to it. Operators choose the ids.
type Hashing = BuildHasherDefault<DefaultHasher>;

/// What is known of some tenants.
type Shard = HashMap<TenantId, Local, Hashing>;

/// Shards of what is known of tenants, each with its own lock.
const SHARDS: usize = 64;

/// How long a call waits while its tenant is built anew, or leases come back.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// How often a call that waits for leases to come back looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// A call that waits for a tenant to be built is told when it is; and looks by itself so often.
const LOOK_ANYWAY: Duration = Duration::from_millis(250);

/// A lease is at most this part of what is left for each node: so a node that takes one leaves most of it to the others.
const LEASE_PARTS: u64 = 4;

/// A question that has no answer in time, of a store that was in time a moment ago, stands in a queue: a burst of calls
/// makes one, here and there. It is asked again, so often in all, each time with twice the time.
const TRIES_MAX: u32 = 4;

/// After so long without an answer in time the store is away or slow, and nothing is asked again.
const IN_TIME_FOR: Duration = Duration::from_millis(500);

/// Questions in a row without an answer after which the store counts as away, until a beat gets through.
const FAILURES_MAX: u32 = 5;

/// How a node uses shared counters.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Which node this is.
    pub member: Member,
    /// A question that decides on a call has so long; above 0.
    pub call_budget: Duration,
    /// Leases, or none.
    pub leases: Option<Leases>,
}

/// How leases are taken.
#[derive(Debug, Clone, Copy)]
pub struct Leases {
    /// At most so many units at once; above 0.
    pub units_max: u64,
    /// How long one lasts; above 0.
    pub lasts: Duration,
}

/// What the counters are made of.
pub struct Outside {
    /// The shared store.
    pub shared: Arc<dyn SharedCounters>,
    /// The ledger that they follow from.
    pub usage: Arc<dyn UsageStore>,
    /// Tenants and plans.
    pub tenants: Arc<dyn TenantStore>,
    /// The newest of them that this node has.
    pub snapshots: Arc<Snapshots>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Counters that this node shares. Its tasks are [`NodeCounters::run`].
pub struct NodeCounters {
    options: Options,
    outside: Outside,
    shards: Vec<Mutex<Shard>>,
    /// Tenants with something to tell.
    queue: Mutex<Vec<TenantId>>,
    news: Notify,
    buildings: Buildings,
    /// What all nodes are asked for with the next beat, and what not any more.
    wishes: Mutex<Wishes>,
    hurry: Notify,
    heard: watch::Sender<Heard>,
    failures: AtomicU32,
    /// When the store last answered within a call's budget.
    in_time_us: AtomicU64,
    is_down: AtomicBool,
    from_lease: AtomicU64,
}

/// Why a question has no answer.
enum Unanswered {
    /// The store is away, or says no.
    Away(CountersUnavailable),
    /// There are others before it.
    Queued(CountersUnavailable),
}

/// The last answer to a beat.
#[derive(Debug, Clone, Default)]
struct Heard {
    /// When the beat was sent, on the monotonic clock; 0 for none yet.
    sent_us: u64,
    pulse: Pulse,
}

/// What all nodes are to be asked for (`true`), and what not any more: of each the newest word, so at most two of a tenant.
#[derive(Default)]
struct Wishes(BTreeMap<(TenantId, Wanted), bool>);

impl Wishes {
    fn is_wanted(&mut self, tenant: &TenantId, wanted: Wanted) {
        self.0.insert((tenant.clone(), wanted), true);
    }

    fn is_done(&mut self, tenant: &TenantId, wanted: Wanted) {
        self.0.insert((tenant.clone(), wanted), false);
    }
}

impl NodeCounters {
    /// Counters over what is outside. Nobody is admitted before [`Self::run`] runs.
    pub fn new(options: Options, outside: Outside) -> Self {
        Self {
            options,
            outside,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            queue: Mutex::default(),
            news: Notify::new(),
            buildings: Buildings::default(),
            wishes: Mutex::default(),
            hurry: Notify::new(),
            heard: watch::Sender::new(Heard::default()),
            failures: AtomicU32::new(0),
            in_time_us: AtomicU64::new(0),
            is_down: AtomicBool::new(false),
            from_lease: AtomicU64::new(0),
        }
    }

    /// Takes in an event of an earlier life that the ledger may not have yet. Before [`Self::run`].
    pub fn adopt(&self, event: &UsageEvent) {
        let amounts = used_by(event, self.counting());
        if amounts.is_empty() {
            return;
        }
        self.with(&event.tenant, |local| local.adopt(event.id, amounts));
        self.has_news(&event.tenant);
    }

    /// Everything that these counters do beside calls: beats, messages, building. Ends only when it is dropped.
    pub async fn run(&self) {
        tokio::join!(self.beat(), self.follow(), self.tell(), self.join_all(), self.finish_all(), self.outlive());
    }

    fn with<T>(&self, tenant: &TenantId, work: impl FnOnce(&mut Local) -> T) -> T {
        let at = usize::try_from(Hashing::default().hash_one(tenant)).unwrap_or_default() % SHARDS;
        let Some(shard) = self.shards.get(at) else { return work(&mut Local::default()) };
        let mut shard = shard.lock();
        if !shard.contains_key(tenant) {
            shard.insert(tenant.clone(), Local::default());
        }
        match shard.get_mut(tenant) {
            Some(local) => work(local),
            None => work(&mut Local::default()),
        }
    }

    /// What this node counts.
    fn counting(&self) -> Counting {
        self.outside.snapshots.counting()
    }

    fn now_us(&self) -> u64 {
        self.outside.clock.monotonic_us()
    }

    /// From where on counters are built: with the period before, as calls may be settled in it, and other nodes be there yet.
    fn floors(&self) -> Floors {
        let now = self.outside.clock.now();
        // It is yesterday yet for a tenant whose zone is behind UTC.
        let yesterday = Window::Day.period(now).previous();
        Floors { month: Window::Month.period(yesterday.start()).previous(), day: yesterday.previous() }
    }

    /// Puts a tenant into the courier's queue.
    fn has_news(&self, tenant: &TenantId) {
        let is_new = self.with(tenant, |local| !std::mem::replace(&mut local.is_queued, true));
        if is_new {
            self.queue.lock().push(tenant.clone());
            self.news.notify_one();
        }
    }

    async fn hold_all(&self, id: EventId, claims: &[Claim], terms: Terms) -> Result<HoldOutcome, CountersUnavailable> {
        let Some(tenant) = claims.first().map(|claim| &claim.counter.tenant) else {
            return Ok(HoldOutcome::Held(Vec::new()));
        };
        let until_us = self.now_us().saturating_add(micros(WAIT_MAX));
        let mut asked = Asked {
            counters: self,
            tenant,
            id,
            claims,
            terms,
            until_us,
            recalled: false,
            within: self.options.call_budget,
            tries: 0,
            is_open: true,
        };
        loop {
            let [opened, leased, arrived] =
                self.with(tenant, |local| [&local.opened, &local.leased, &local.arrived].map(Arc::clone));
            let (mut opened, mut leased) = (std::pin::pin!(opened.notified()), std::pin::pin!(leased.notified()));
            let mut arrived = std::pin::pin!(arrived.notified());
            opened.as_mut().enable();
            leased.as_mut().enable();
            arrived.as_mut().enable();
            let now_us = self.now_us();
            if now_us >= asked.until_us {
                return Err(CountersUnavailable(
                    "the counters are being built anew, or their store is slow, for too long".into(),
                ));
            }
            if self.is_down.load(Ordering::Relaxed) {
                return asked.without("the shared counters do not answer".into());
            }
            let pause = match self.begin(id, claims, now_us) {
                Begin::Held(standings) => return asked.is_held(standings),
                Begin::Refused { claim, standing } => return asked.is_refused(claim, standing),
                Begin::Ask(asking) => {
                    let mut over = AskOver {
                        counters: self,
                        tenant,
                        asking: &asking,
                        late_us: Some(asked.late_us(now_us)),
                        is_declined: true,
                    };
                    let answer = self.ask((tenant, id, claims), terms, &asking, asked.within).await;
                    if let Ok(held) = &answer {
                        over.late_us = None;
                        over.is_declined =
                            matches!(held, Held::Taken { leased: 0, .. } | Held::Leased { .. } | Held::Full { .. });
                    }
                    match self.heed(&mut asked, &asking, answer).await {
                        Next::Over(outcome) => return outcome,
                        Next::Wait(pause) => pause,
                    }
                }
                Begin::Wait => {
                    drop(timeout(LOOK_ANYWAY, select(opened, select(leased, arrived))).await);
                    continue;
                }
            };
            timeout(pause, opened).await.unwrap_or_default();
        }
    }

    /// What follows from an answer of the store.
    async fn heed(&self, asked: &mut Asked<'_>, asking: &Asking, answer: Result<Held, Unanswered>) -> Next {
        let Asked { tenant, id, claims, .. } = *asked;
        match answer {
            Ok(Held::Taken { epoch, counts, leased }) => {
                let held = |local: &mut Local| local.held(id, claims, asking, (epoch, &counts, leased));
                match self.with(tenant, held) {
                    Some(standings) => Next::Over(asked.is_held(standings)),
                    // It joined anew meanwhile: ask again.
                    None => Next::Wait(Duration::ZERO),
                }
            }
            Ok(Held::Full { claim, count }) => {
                let standing = self.with(tenant, |local| local.refused(id, claims, claim, &count));
                Next::Over(asked.is_refused(claim, standing))
            }
            Ok(Held::Leased { claim, count }) => {
                self.recall(asked);
                if self.now_us().saturating_add(micros(LOOK_AGAIN)) < asked.until_us {
                    return Next::Wait(LOOK_AGAIN);
                }
                // A node that does not give back what it has is gone, and its lease over: this is the last word.
                let standing = self.with(tenant, |local| local.refused(id, claims, claim, &count));
                Next::Over(asked.is_refused(claim, standing))
            }
            Ok(Held::Behind { revision }) => Next::Over(self.catch_up(revision).await),
            // Its clock was turned on while it waited: nothing is built for a day that is long over.
            Ok(Held::Unjoined) if claims.iter().any(|claim| self.floors().are_above(&claim.counter)) => {
                Next::Over(Err(CountersUnavailable("the clock was set while the call waited".into())))
            }
            Ok(Held::Unjoined) => {
                self.buildings.want(tenant, self.with(tenant, |local| local.is_part(asking)));
                Next::Wait(LOOK_ANYWAY)
            }
            Ok(Held::Building) => {
                self.buildings.want(tenant, false);
                Next::Wait(LOOK_ANYWAY)
            }
            Err(Unanswered::Queued(_)) if asked.tries.saturating_add(1) < TRIES_MAX => {
                asked.tries = asked.tries.saturating_add(1);
                asked.within = asked.within.saturating_mul(2);
                Next::Wait(Duration::ZERO)
            }
            Err(Unanswered::Away(error) | Unanswered::Queued(error)) => {
                self.failed();
                Next::Over(asked.without(error.0))
            }
        }
    }

    fn begin(&self, id: EventId, claims: &[Claim], now_us: u64) -> Begin {
        let tenant = claims.first().map(|claim| &claim.counter.tenant);
        let Some(tenant) = tenant else { return Begin::Held(Vec::new()) };
        let is_live = self.is_live(now_us);
        let nodes = self.nodes();
        let (begin, is_news) = self.with(tenant, |local| {
            let mut begin = local.begin(id, claims, now_us, is_live);
            if let Begin::Ask(asking) = &mut begin
                && is_live
                && let Some(Leases { units_max, lasts }) = self.options.leases
            {
                local.with_lease(asking, claims, (units_max, nodes.max(1).saturating_mul(LEASE_PARTS), lasts));
            }
            let is_news = local.has_news() && !std::mem::replace(&mut local.is_queued, true);
            (begin, is_news)
        });
        if is_news {
            self.queue.lock().push(tenant.clone());
            self.news.notify_one();
        }
        if matches!(begin, Begin::Held(_)) {
            self.from_lease.fetch_add(1, Ordering::Relaxed);
        }
        begin
    }

    async fn ask(
        &self,
        (tenant, id, claims): (&TenantId, EventId, &[Claim]),
        terms: Terms,
        asking: &Asking,
        within: Duration,
    ) -> Result<Held, Unanswered> {
        let ask = Ask {
            member: self.options.member,
            tenant,
            id,
            claims,
            revision: terms.revision,
            counting: self.counting(),
            is_alone: asking.is_alone,
            lease: asking.lease,
            within,
        };
        let asked_us = self.now_us();
        let answer = timeout(within, self.outside.shared.hold(&ask)).await;
        let answer = answer.unwrap_or_else(|_| Err(CountersUnavailable("the shared counters took too long".into())));
        match answer {
            Ok(held) => {
                self.failures.store(0, Ordering::Relaxed);
                self.has_answered(asked_us);
                Ok(held)
            }
            Err(error) => {
                let now_us = self.now_us();
                // Timers are exact to a millisecond.
                let is_over = now_us.saturating_sub(asked_us) >= micros(within).saturating_sub(1_000);
                let in_time_us = self.in_time_us.load(Ordering::Relaxed);
                let is_in_time = in_time_us > 0 && now_us.saturating_sub(in_time_us) < micros(IN_TIME_FOR);
                Err(if is_over && is_in_time { Unanswered::Queued(error) } else { Unanswered::Away(error) })
            }
        }
    }

    /// The store answered a question of that time.
    fn has_answered(&self, asked_us: u64) {
        let now_us = self.now_us();
        if now_us.saturating_sub(asked_us) <= micros(self.options.call_budget) {
            self.in_time_us.store(now_us, Ordering::Relaxed);
        }
    }

    /// Has every node give back what it has leased of a tenant, this one included.
    fn recall(&self, asked: &mut Asked<'_>) {
        let now_us = self.now_us();
        if self.with(asked.tenant, Local::recalled) {
            self.has_news(asked.tenant);
        }
        if !std::mem::replace(&mut asked.recalled, true) {
            asked.until_us = asked.until_us.min(now_us.saturating_add(self.recall_max_us()));
            self.wishes.lock().is_wanted(asked.tenant, Wanted::Lease);
            self.hurry.notify_one();
        }
    }

    /// After this every lease of a node that does not answer is over.
    fn recall_max_us(&self) -> u64 {
        let lasts = self.options.leases.map_or(Duration::ZERO, |leases| leases.lasts);
        micros(lasts).saturating_add(500_000).min(micros(WAIT_MAX))
    }

    /// The call follows from an older revision than the tenant's.
    async fn catch_up(&self, revision: i64) -> Result<HoldOutcome, CountersUnavailable> {
        // It may have been taken all the same, by a question before that had no answer: it is given back as one that is
        // given up.
        let refreshed = self.outside.snapshots.refresh(&*self.outside.tenants).await;
        match refreshed {
            Ok(_) if self.outside.snapshots.load().revision >= revision => Ok(HoldOutcome::Changed),
            Ok(_) => Err(CountersUnavailable("the tenant was changed, and the ledger does not show it yet".into())),
            Err(error) => Err(CountersUnavailable(format!("the tenant was changed, and cannot be read: {error}"))),
        }
    }

    fn failed(&self) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures >= FAILURES_MAX && !self.is_down.swap(true, Ordering::Relaxed) {
            warn!("The shared counters do not answer: calls are refused, or admitted from leases, until they do.");
        }
    }

    async fn read_of(&self, tenant: &TenantId, keys: &[CounterKey]) -> Result<Vec<Standing>, CountersUnavailable> {
        let until_us = self.now_us().saturating_add(micros(WAIT_MAX));
        let floors = self.floors();
        if keys.iter().any(|key| floors.are_above(key)) {
            return Err(CountersUnavailable("counters go back to the last period, not further".into()));
        }
        loop {
            if self.is_down.load(Ordering::Relaxed) {
                return Err(CountersUnavailable("the shared counters do not answer".into()));
            }
            self.tell_all_of(tenant).await;
            let asked = timeout(self.options.call_budget, self.outside.shared.read(tenant, keys)).await;
            let counts = asked.map_err(|_| CountersUnavailable("the shared counters took too long".into()))??;
            if let Some(counts) = counts {
                let standing = |count: &crate::ports::shared::Count| Standing {
                    used: count.booked.saturating_add(count.settled),
                    held: count.held,
                };
                return Ok(counts.iter().map(standing).collect());
            }
            if self.now_us() >= until_us {
                return Err(CountersUnavailable("the counters are being built anew, and it takes too long".into()));
            }
            // One that this node is a part of has higher floors than this: its clock is another one.
            self.buildings.want(tenant, self.with(tenant, |local| !local.must_join()));
            sleep(LOOK_AGAIN).await;
        }
    }
}

impl CounterStore for NodeCounters {
    fn hold<'a>(
        &'a self,
        id: EventId,
        claims: &'a [Claim],
        terms: Terms,
    ) -> BoxFuture<'a, Result<HoldOutcome, CountersUnavailable>> {
        Box::pin(self.hold_all(id, claims, terms))
    }

    fn settle(&self, id: EventId, claims: &[Claim], used: &[(CounterKey, u64)]) {
        let tenant = claims.first().map(|claim| &claim.counter.tenant);
        if let Some(tenant) = tenant.or_else(|| used.first().map(|(counter, _)| &counter.tenant)) {
            self.with(tenant, |local| local.settle(id, used));
            self.has_news(tenant);
        }
    }

    fn read<'a>(&'a self, counters: &'a [CounterKey]) -> BoxFuture<'a, Result<Vec<Standing>, CountersUnavailable>> {
        Box::pin(async move {
            let mut standings = Vec::new();
            // Questions are about one tenant nearly always.
            for keys in counters.chunk_by(|a, b| a.tenant == b.tenant) {
                if let Some(first) = keys.first() {
                    standings.extend(self.read_of(&first.tenant, keys).await?);
                }
            }
            Ok(standings)
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Counted>, CountersUnavailable>> {
        Box::pin(async move {
            let counted = |(counter, count): (CounterKey, crate::ports::shared::Count)| Counted {
                counter,
                standing: Standing { used: count.booked.saturating_add(count.settled), held: count.held },
                booked: count.booked,
            };
            Ok(self.outside.shared.list().await?.into_iter().map(counted).collect())
        })
    }

    /// The ledger is asked when a tenant is built: there is nothing to seed.
    fn seed<'a>(&'a self, _: &'a [(CounterKey, u64)]) -> BoxFuture<'a, Result<(), CountersUnavailable>> {
        Box::pin(async { Ok(()) })
    }

    fn changed<'a>(&'a self, tenant: &'a TenantId, revision: i64) -> BoxFuture<'a, ()> {
        Box::pin(self.spread(tenant, revision))
    }

    fn health(&self) -> CountersHealth {
        let (mut leased, mut waiting) = (0_u64, 0_usize);
        for shard in &self.shards {
            for local in shard.lock().values() {
                leased = leased.saturating_add(local.leased());
                waiting = waiting.saturating_add(local.waiting());
            }
        }
        CountersHealth {
            shared: true,
            down: self.is_down.load(Ordering::Relaxed),
            building: self.buildings.count(),
            nodes: self.nodes(),
            from_lease: self.from_lease.load(Ordering::Relaxed),
            leased,
            notes_waiting: u64::try_from(waiting).unwrap_or(u64::MAX),
        }
    }
}

/// Hears from the recorder what the ledger has.
impl Sink for NodeCounters {
    fn booked(&self, events: &[UsageEvent]) {
        for event in events.iter().filter(|event| !Amounts::of(event).are_zero()) {
            let now_us = self.now_us();
            self.with(&event.tenant, |local| local.booked(event.id, now_us));
            self.has_news(&event.tenant);
        }
    }

    /// Bills that another node may have booked, and counted; and what may have been read when a tenant was built.
    fn doubted(&self, events: &[UsageEvent]) {
        for event in events {
            self.with(&event.tenant, |local| local.doubt(event.id, event.is_bill()));
            self.has_news(&event.tenant);
        }
    }
}

/// What becomes of a call that asked.
enum Next {
    Over(Result<HoldOutcome, CountersUnavailable>),
    /// It asks again, after so long or when it is told to.
    Wait(Duration),
}

/// A call that asks to be held: should nobody wait for the answer any more, it is given back.
struct Asked<'a> {
    counters: &'a NodeCounters,
    tenant: &'a TenantId,
    id: EventId,
    claims: &'a [Claim],
    terms: Terms,
    /// How long it may go on.
    until_us: u64,
    /// Leases were called back for it.
    recalled: bool,
    /// How long the last question has.
    within: Duration,
    /// Questions that had no answer.
    tries: u32,
    is_open: bool,
}

impl Asked<'_> {
    fn is_held(&mut self, standings: Vec<Standing>) -> Result<HoldOutcome, CountersUnavailable> {
        self.is_over();
        Ok(HoldOutcome::Held(standings))
    }

    fn is_refused(&mut self, claim: usize, standing: Standing) -> Result<HoldOutcome, CountersUnavailable> {
        self.is_over();
        Ok(HoldOutcome::Refused { claim, standing })
    }

    fn is_over(&mut self) {
        self.is_open = false;
    }

    /// Until when a question that is asked now, or was before, may be answered.
    fn late_us(&self, now_us: u64) -> u64 {
        now_us.saturating_add(micros(self.within))
    }

    /// Without the store a call is refused, or has what is left of the lease: as its plan says.
    fn without(&mut self, reason: String) -> Result<HoldOutcome, CountersUnavailable> {
        if self.terms.on_counters_down == OnCountersDown::Lease {
            let counters = self.counters;
            let now_us = counters.now_us();
            let late_us = self.late_us(now_us);
            let taken = counters.with(self.tenant, |local| local.take_leftover(self.id, self.claims, now_us, late_us));
            if let Some(standings) = taken {
                counters.from_lease.fetch_add(1, Ordering::Relaxed);
                counters.has_news(self.tenant);
                return self.is_held(standings);
            }
        }
        Err(CountersUnavailable(reason))
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let counters = self.counters;
        if self.recalled {
            counters.wishes.lock().is_done(self.tenant, Wanted::Lease);
        }
        if self.is_open {
            let late_us = self.late_us(counters.now_us());
            counters.with(self.tenant, |local| local.abandoned(self.id, late_us));
            counters.has_news(self.tenant);
        }
    }
}

/// The end of a question to the store, also where nobody waited for it.
struct AskOver<'a> {
    counters: &'a NodeCounters,
    tenant: &'a TenantId,
    asking: &'a Asking,
    /// It has had no answer, and may be done until then.
    late_us: Option<u64>,
    is_declined: bool,
}

impl Drop for AskOver<'_> {
    fn drop(&mut self) {
        self.counters.with(self.tenant, |local| local.asked(self.asking, self.late_us, self.is_declined));
        if self.asking.lease.is_some() && self.late_us.is_some() {
            self.counters.has_news(self.tenant);
        }
    }
}

#[cfg(test)]
mod tests;
