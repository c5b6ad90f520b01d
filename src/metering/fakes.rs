//! Ports in memory for tests of this layer and of the routers above it: the plainest thing that keeps each contract.

pub(crate) mod objects;
mod prices;
mod tenants;
pub(crate) mod units;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::adapters::file_journal::disk::Folder;
use crate::adapters::file_journal::{BYTES_MIN, FileJournal, Options};
use crate::config::price_file;
use crate::domain::audit::{Actor, AuditEntry, Author, Change};
use crate::domain::counting::{Amounts, Counting};
use crate::domain::event::{Outcome, UsageEvent, UsageSource};
use crate::domain::ids::{EventId, PlanName, ProviderId, TenantId};
use crate::domain::key::{Key, KeyHash};
use crate::domain::money::PicoUsd;
use crate::domain::plan::{Limit, Metric, Plan, Scope, Standing, Subject};
use crate::domain::price::{PriceBook, Priced, ServiceTier};
use crate::domain::provider_key::SealedKey;
use crate::domain::quantities::Quantities;
use crate::domain::tenant::Tenant;
use crate::domain::time::{Micros, Period, Window};
use crate::domain::tokens::Tokens;
use crate::domain::zone::Zone;
use crate::ports::clock::Clock;
use crate::ports::counters::{
    Claim, Counted, CounterKey, CounterStore, CountersHealth, CountersUnavailable, HoldOutcome, Terms, used_by,
};
use crate::ports::prices::{ActiveBook, BookListing, KeptBook};
use crate::ports::tenants::{Act, Answered, Digest, Done, PlanChange, REMEMBERED_US};
use crate::ports::usage::{
    Dimension, Entry, EventsQuery, Group, StandingOf, StoredEvent, Stratum, SumKey, Sums, SumsQuery, UsageStore,
    UsedKey, UsedStratum, UsedValues,
};
use crate::ports::{BoxFuture, StoreError};

use super::admin::{Admin, Order};
use super::price_books::Format;
use super::recorder::Recorder;
use super::reports::Reports;
use super::snapshot::{Plans, Snapshots};
use super::verify::counters::CountersSource;

/// What the store says when it is down: words that no client may ever read.
pub(crate) const STORE_WORDS: &str = "secret-host:5432 refused";

/// A journal of the smallest size on a disk of its own.
pub(crate) fn journal() -> (Arc<FileJournal>, TempDir) {
    journal_with(false)
}

/// The same, strict or not. Nobody syncs it.
pub(crate) fn journal_with(strict: bool) -> (Arc<FileJournal>, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(Folder::open(directory.path()).unwrap());
    let (journal, _) = FileJournal::open(disk, Options { bytes_max: BYTES_MIN, strict }).unwrap();
    (Arc::new(journal), directory)
}

/// A clock that stands still.
pub(crate) struct StoppedClock(pub(crate) Micros);

impl Clock for StoppedClock {
    fn now(&self) -> Micros {
        self.0
    }

    fn monotonic_us(&self) -> u64 {
        0
    }

    fn random(&self) -> u128 {
        7
    }
}

/// Counters that show what they are told.
#[derive(Default)]
pub(crate) struct ShownCounters(pub(crate) Mutex<HashMap<CounterKey, Standing>>);

impl CounterStore for ShownCounters {
    fn hold<'a>(
        &'a self,
        _: EventId,
        _: &'a [Claim],
        _: Terms,
    ) -> BoxFuture<'a, Result<HoldOutcome, CountersUnavailable>> {
        Box::pin(async { Err(CountersUnavailable("these only show".to_owned())) })
    }

    fn settle(&self, _: EventId, _: &[Claim], _: &[(CounterKey, u64)]) {}

    fn read<'a>(&'a self, counters: &'a [CounterKey]) -> BoxFuture<'a, Result<Vec<Standing>, CountersUnavailable>> {
        let known = self.0.lock();
        let standings = counters.iter().map(|counter| known.get(counter).copied().unwrap_or_default()).collect();
        Box::pin(async { Ok(standings) })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Counted>, CountersUnavailable>> {
        let counted = |(counter, standing): (&CounterKey, &Standing)| Counted {
            counter: counter.clone(),
            standing: *standing,
            booked: standing.used,
        };
        let all = self.0.lock().iter().map(counted).collect();
        Box::pin(async { Ok(all) })
    }

    fn seed<'a>(&'a self, _: &'a [(CounterKey, u64)]) -> BoxFuture<'a, Result<(), CountersUnavailable>> {
        Box::pin(async { Ok(()) })
    }

    fn changed<'a>(&'a self, _: &'a TenantId, _: i64) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn health(&self) -> CountersHealth {
        CountersHealth::default()
    }
}

#[derive(Default)]
struct Tables {
    tenants: BTreeMap<TenantId, Tenant>,
    keys: Vec<Key>,
    provider_keys: Vec<SealedKey>,
    revision: i64,
    admin_key: Option<KeyHash>,
    events: Vec<StoredEvent>,
    refused: HashSet<EventId>,
    panics: u32,
    audit: Vec<AuditEntry>,
    memories: HashMap<Digest, (Micros, Answered)>,
    books: BTreeMap<Arc<str>, (KeptBook, BookListing)>,
    prices: Option<ActiveBook>,
    plans_of: HashMap<TenantId, Vec<PlanChange>>,
}

impl Tables {
    fn recall(&self, id: Digest, now: Micros) -> Option<Answered> {
        let (at, answered) = self.memories.get(&id)?;
        (at.0 > now.0 - REMEMBERED_US).then(|| answered.clone())
    }

    fn take_provider_key(&mut self, tenant: &TenantId, provider: &ProviderId) -> Option<SealedKey> {
        let is_it = |key: &SealedKey| key.tenant == *tenant && key.provider == *provider;
        self.provider_keys.iter().position(is_it).map(|at| self.provider_keys.remove(at))
    }

    /// Does `work` unless it was done, and writes down what it changed.
    fn once<T>(
        &mut self,
        act: &Act,
        work: impl FnOnce(&mut Self) -> Result<(T, Option<Change>), StoreError>,
    ) -> Result<Done<T>, StoreError> {
        if let Some(answered) = act.memory.as_ref().and_then(|memory| self.recall(memory.id, act.at)) {
            return Ok(Done::Before(answered));
        }
        let (done, change) = work(self)?;
        if let Some(change) = change {
            self.revision += 1;
            let row = self.audit.last().map_or(1, |last| last.row + 1);
            let sha256 = act.memory.as_ref().map(|memory| memory.key_sha256.0);
            let author = act.author.clone();
            self.audit.push(AuditEntry { row, at: act.at, author, idempotency_key_sha256: sha256, change });
        }
        if let Some(memory) = &act.memory {
            self.memories.insert(memory.id, (act.at, memory.answered.clone()));
        }
        Ok(Done::Now(done))
    }
}

/// Tenants and ledger in memory, which can be told to be down or never to answer.
#[derive(Default)]
pub(crate) struct FakeStore {
    tables: Mutex<Tables>,
    down: AtomicBool,
    silent: AtomicBool,
    slowness: Mutex<Option<Arc<Slowness>>>,
}

/// Where a slow store stands.
#[derive(Default)]
pub(crate) struct Slowness {
    pub(crate) asked: Notify,
    pub(crate) let_go: Notify,
}

impl FakeStore {
    /// From now on every call fails, or none.
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// From now on a batch with this event is refused for good.
    pub(crate) fn refuse(&self, id: EventId) {
        self.tables.lock().refused.insert(id);
    }

    /// From now on whoever reads everything gets it as it was when it was asked for, and only when it is let go.
    pub(crate) fn slow_down(&self) -> Arc<Slowness> {
        self.slowness.lock().insert(Arc::default()).clone()
    }

    /// The next `times` batches are met with a panic.
    pub(crate) fn panic(&self, times: u32) {
        self.tables.lock().panics = times;
    }

    /// From now on a tenant was on these plans, each since then.
    pub(crate) fn set_plan_history(&self, tenant: &str, plans: &[(&str, i64)]) {
        let change =
            |(plan, at): &(&str, i64)| PlanChange { plan: plan.parse().unwrap(), valid_from: Micros(*at), by: None };
        self.tables.lock().plans_of.insert(tenant.parse().unwrap(), plans.iter().map(change).collect());
    }

    /// From now on no call is ever answered.
    pub(crate) fn fall_silent(&self) {
        self.silent.store(true, Ordering::SeqCst);
    }

    fn answer<'a, T: Send + 'a>(
        &self,
        work: impl FnOnce(&mut Tables) -> Result<T, StoreError>,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        if self.silent.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        let result = if self.down.load(Ordering::SeqCst) {
            Err(StoreError::Unavailable(STORE_WORDS.to_owned()))
        } else {
            work(&mut self.tables.lock())
        };
        Box::pin(async { result })
    }
}

fn value(event: &UsageEvent, dimension: Dimension) -> Option<String> {
    match dimension {
        Dimension::Provider => Some(event.provider.to_string()),
        Dimension::Model => Some(event.model.to_string()),
        Dimension::Key => event.key.as_ref().map(ToString::to_string),
        Dimension::User => event.user_id.as_deref().map(str::to_owned),
        Dimension::Kb => event.kb_id.as_deref().map(str::to_owned),
        Dimension::Day => Some(event.period(Window::Day).to_string()),
        Dimension::Hour => event.local().to_string().get(..13).map(str::to_owned),
    }
}

impl UsageStore for FakeStore {
    fn append<'a>(&'a self, events: &'a [UsageEvent]) -> BoxFuture<'a, Result<u64, StoreError>> {
        self.answer(|tables| {
            if tables.panics > 0 {
                tables.panics -= 1;
                panic!("a store that panics");
            }
            if events.iter().any(|event| tables.refused.contains(&event.id)) {
                return Err(StoreError::Refused("an event that does not fit".to_owned()));
            }
            let before = tables.events.len();
            for event in events {
                if tables.events.iter().all(|stored| stored.event.id != event.id) {
                    let row = tables.events.last().map_or(1, |last| last.row + 1);
                    tables.events.push(StoredEvent { row, event: event.clone() });
                }
            }
            Ok((tables.events.len() - before) as u64)
        })
    }

    fn sums<'a>(&'a self, query: &'a SumsQuery) -> BoxFuture<'a, Result<Vec<Group>, StoreError>> {
        self.answer(|tables| {
            let mut groups: BTreeMap<Vec<Option<String>>, Sums> = BTreeMap::new();
            let wanted = |event: &&UsageEvent| {
                query.tenant.as_ref().is_none_or(|tenant| event.tenant == *tenant)
                    && query.period.is_none_or(|period| event.period(period.window()) == period)
            };
            for event in tables.events.iter().map(|stored| &stored.event).filter(wanted) {
                let values = query.group_by.iter().map(|dimension| value(event, *dimension)).collect();
                let sums = groups.entry(values).or_default();
                *sums = sums.plus(&Sums::of(event)).unwrap();
            }
            Ok(groups.into_iter().map(|(values, sums)| Group { values, sums }).collect())
        })
    }

    fn events<'a>(&'a self, query: &'a EventsQuery) -> BoxFuture<'a, Result<Vec<StoredEvent>, StoreError>> {
        self.answer(|tables| {
            let rows = tables.events.iter().filter(|StoredEvent { row, event }| {
                query.tenant.as_ref().is_none_or(|tenant| event.tenant == *tenant)
                    && query.from.is_none_or(|from| event.requested_at >= from)
                    && query.to.is_none_or(|to| event.requested_at < to)
                    && query.priced.is_none_or(|priced| event.priced == priced)
                    && query.after.is_none_or(|after| *row > after)
            });
            Ok(rows.take(query.events_max as usize).cloned().collect())
        })
    }

    fn event<'a>(
        &'a self,
        tenant: Option<&'a TenantId>,
        id: EventId,
    ) -> BoxFuture<'a, Result<Option<StoredEvent>, StoreError>> {
        self.answer(|tables| {
            let theirs = |event: &UsageEvent| tenant.is_none_or(|tenant| event.tenant == *tenant);
            Ok(tables.events.iter().find(|stored| stored.event.id == id && theirs(&stored.event)).cloned())
        })
    }

    fn known<'a>(&'a self, ids: &'a [EventId]) -> BoxFuture<'a, Result<Vec<EventId>, StoreError>> {
        self.answer(|tables| {
            let has = |id: &&EventId| tables.events.iter().any(|stored| stored.event.id == **id);
            Ok(ids.iter().filter(has).copied().collect())
        })
    }

    fn used(&self, period: Period, counting: Counting) -> BoxFuture<'_, Result<Vec<(CounterKey, u64)>, StoreError>> {
        self.answer(|tables| {
            let mut all: HashMap<CounterKey, u64> = HashMap::new();
            let used = tables.events.iter().flat_map(|stored| used_by(&stored.event, counting));
            for (counter, amount) in used.filter(|(counter, _)| counter.period == period) {
                *all.entry(counter).or_default() += amount;
            }
            Ok(all.into_iter().collect())
        })
    }

    fn standing_of<'a>(
        &'a self,
        tenants: &'a [TenantId],
        from: [Period; 2],
        counting: Counting,
        ids: &'a [EventId],
    ) -> BoxFuture<'a, Result<StandingOf, StoreError>> {
        self.answer(|tables| {
            let is_asked = |CounterKey { tenant, period, .. }: &CounterKey| {
                let is_late = from.iter().any(|from| period.window() == from.window() && period >= from);
                is_late && tenants.contains(tenant)
            };
            let mut all: HashMap<CounterKey, u64> = HashMap::new();
            let used = tables.events.iter().flat_map(|stored| used_by(&stored.event, counting));
            for (counter, amount) in used.filter(|(counter, _)| is_asked(counter)) {
                *all.entry(counter).or_default() += amount;
            }
            let has = |id: &&EventId| tables.events.iter().any(|stored| stored.event.id == **id);
            let used = all.into_iter().collect();
            Ok(StandingOf { used, known: ids.iter().filter(has).copied().collect() })
        })
    }

    fn find<'a>(&'a self, ids: &'a [EventId]) -> BoxFuture<'a, Result<Vec<StoredEvent>, StoreError>> {
        self.answer(|tables| {
            Ok(tables.events.iter().filter(|stored| ids.contains(&stored.event.id)).cloned().collect())
        })
    }

    fn corrections<'a>(&'a self, ids: &'a [EventId]) -> BoxFuture<'a, Result<Vec<StoredEvent>, StoreError>> {
        let is_of = |event: &UsageEvent| event.corrects.is_some_and(|corrected| ids.contains(&corrected.event));
        self.answer(|tables| Ok(tables.events.iter().filter(|stored| is_of(&stored.event)).cloned().collect()))
    }

    fn walk<'a>(&'a self, see: &'a mut (dyn FnMut(Entry) + Send)) -> BoxFuture<'a, Result<(), StoreError>> {
        self.answer(|tables| {
            see(Entry::Begin { events: tables.events.len() as u64, from: None });
            let mut sums: BTreeMap<SumKey, Sums> = BTreeMap::new();
            for StoredEvent { event, .. } in &tables.events {
                for window in [Window::Day, Window::Month] {
                    let sums = sums.entry(sum_key(event, window)).or_default();
                    *sums = sums.plus(&Sums::of(event)).unwrap();
                }
                see(Entry::Events(Box::new(stratum(event))));
            }
            for (key, sums) in sums {
                see(Entry::Sum(Box::new((key, sums.values()))));
            }
            let mut used: BTreeMap<UsedKey, UsedValues> = BTreeMap::new();
            for StoredEvent { event, .. } in &tables.events {
                for (counter, amount) in used_by(event, Counting::ALL) {
                    let at = Metric::ALL.iter().position(|metric| *metric == counter.metric).unwrap();
                    used.entry(UsedKey::of(&counter)).or_default()[at] += i128::from(amount);
                }
                see(Entry::Counted(Box::new(used_stratum(event))));
            }
            used.into_iter().for_each(|used| see(Entry::Used(Box::new(used))));
            Ok(())
        })
    }

    /// It keeps what it has.
    fn events_from(&self) -> BoxFuture<'_, Result<Option<Micros>, StoreError>> {
        self.answer(|_| Ok(None))
    }

    fn old_events(&self, _: Period) -> BoxFuture<'_, Result<Vec<(Period, u64)>, StoreError>> {
        self.answer(|_| Ok(Vec::new()))
    }

    fn drop_events<'a>(
        &'a self,
        _: Period,
        _: &'a mut (dyn FnMut(u64) + Send),
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.answer(|_| Ok(()))
    }

    fn ledger_id(&self) -> BoxFuture<'_, Result<String, StoreError>> {
        self.answer(|_| Ok("fake".to_owned()))
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.answer(|_| Ok(()))
    }
}

/// What an event is summed up under.
pub(crate) fn sum_key(event: &UsageEvent, window: Window) -> SumKey {
    SumKey {
        window,
        tenant: event.tenant.to_string(),
        period: event.period(window).to_string(),
        provider: event.provider.to_string(),
        model: event.model.to_string(),
    }
}

/// What one event counts.
pub(crate) fn used_stratum(event: &UsageEvent) -> UsedStratum {
    let amounts = Amounts::of(event);
    let key = event.key.as_ref().map(ToString::to_string);
    let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
    UsedStratum {
        tenant: event.tenant.to_string(),
        day: event.period(Window::Day).start(),
        of: [key, text(&event.user_id), text(&event.kb_id)],
        values: Metric::ALL.map(|metric| amounts.of_metric(metric).into()),
    }
}

/// A stratum of one event.
pub(crate) fn stratum(event: &UsageEvent) -> Stratum {
    Stratum {
        tenant: event.tenant.to_string(),
        day: event.period(Window::Day).start(),
        provider: event.provider.to_string(),
        model: event.model.to_string(),
        outcome: event.outcome.as_str().to_owned(),
        source: event.source.as_str().to_owned(),
        priced: event.priced.as_str().to_owned(),
        priced_before: event.corrects.map(|corrected| corrected.priced.as_str().to_owned()),
        events: 1,
        chats: event.chats.into(),
        tokens: event.tokens.kinds().map(i128::from),
        quantities: event.quantities.kinds().map(i128::from),
        cost: event.cost.unwrap_or_default().0,
        billable: event.billable.unwrap_or_default().0,
    }
}

/// Price books as they are written.
pub(crate) const FORMAT: Format = Format {
    parse: |file| price_file::parse(file).map_err(|error| error.to_string()),
    read: |document, base| price_file::read(document, base).map_err(|error| error.to_string()),
};

/// The plans of the contract.
pub(crate) fn plans() -> Plans {
    let plan = |name: &str, max: Option<u64>| {
        let name: PlanName = name.parse().unwrap();
        let limits = max
            .map(|max| Limit { scope: Scope::Tenant, metric: Metric::Chats, window: Window::Month, max })
            .into_iter()
            .collect();
        (name.clone(), Arc::new(Plan { limits, ..Plan::unlimited(name) }))
    };
    Plans::from([plan("starter", Some(500)), plan("growth", Some(5_000)), plan("pro", None)])
}

/// One booked chat of a tenant, at `at`, with 11 prompt and 7 completion tokens and a cost of 0.00000585 dollars.
pub(crate) fn event(tenant: &str, number: u128, provider: &'static str, model: &str, at: &str) -> UsageEvent {
    let requested_at: Micros = at.parse().unwrap();
    UsageEvent {
        id: EventId::new(requested_at.unix_ms(), number),
        tenant: tenant.parse().unwrap(),
        key: None,
        user_id: Some("u1".into()),
        kb_id: None,
        provider: ProviderId::new(provider),
        model: model.into(),
        requested_model: model.into(),
        endpoint: "chat.completions".into(),
        chats: 1,
        tokens: Tokens { prompt: 11, completion: 7, ..Tokens::default() },
        quantities: Quantities::default(),
        source: UsageSource::Provider,
        cost: Some(PicoUsd(5_850_000)),
        billable: Some(PicoUsd(5_850_000)),
        priced: Priced::Priced,
        price_version: "test".into(),
        service_tier: ServiceTier::Standard,
        requested_at,
        utc_offset_s: 0,
        duration_us: 1_500,
        first_byte_us: Some(900),
        overhead_us: 10,
        status: 200,
        outcome: Outcome::Completed,
        request_id: None,
        unit: None,
        corrects: None,
    }
}

/// Everything that the routers need, on fakes, at 2026-11-24T10:00:00Z, with the tenants `acme` and `globex` on `starter`.
pub(crate) struct World {
    pub(crate) store: Arc<FakeStore>,
    pub(crate) counters: Arc<ShownCounters>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) admin: Arc<Admin>,
    pub(crate) reports: Arc<Reports>,
}

impl World {
    /// The instant of every world.
    pub(crate) fn now() -> Micros {
        "2026-11-24T10:00:00Z".parse().unwrap()
    }

    pub(crate) async fn open() -> Self {
        Self::open_with(PriceBook::default()).await
    }

    /// The same with these prices.
    pub(crate) async fn open_with(prices: PriceBook) -> Self {
        let store = Arc::new(FakeStore::default());
        let counters = Arc::new(ShownCounters::default());
        let clock = Arc::new(StoppedClock(Self::now()));
        let snapshots = Arc::new(Snapshots::open(&*store, plans(), prices, FORMAT).await.unwrap().that_count_all());
        let admin = Arc::new(Admin::new(store.clone(), snapshots.clone(), counters.clone(), clock.clone()));
        let reports = Arc::new(Reports::new(store.clone(), snapshots.clone(), clock));
        let author = Author::of(Actor::Cli);
        for id in ["acme", "globex"] {
            let order = Order::by(&author);
            admin.create_tenant(order, id.parse().unwrap(), id.to_uppercase(), "starter", Zone::UTC).await.unwrap();
        }
        Self { store, counters, snapshots, admin, reports }
    }

    /// What gives the counters, over a journal that is empty.
    pub(crate) fn counting(&self) -> Arc<CountersSource> {
        let (journal, _directory) = journal();
        let recorder = Recorder::new(journal.clone(), self.store.clone(), self.store.clone(), Vec::new());
        let clock = Arc::new(StoppedClock(Self::now()));
        Arc::new(CountersSource::new(self.counters.clone(), journal, self.store.clone(), Arc::new(recorder), clock))
    }

    /// Shows `used` and `held` chats of a tenant in the running month.
    pub(crate) fn show_chats(&self, tenant: &str, used: u64, held: u64) {
        let period = Window::Month.period(Self::now());
        let counter =
            CounterKey { tenant: tenant.parse().unwrap(), subject: Subject::Tenant, metric: Metric::Chats, period };
        self.counters.0.lock().insert(counter, Standing { used, held });
    }
}
