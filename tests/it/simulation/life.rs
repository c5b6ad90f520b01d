//! One life of the process: it opens the journal, recovers as the gateway's start does, serves calls, and drains or dies.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tollgate::adapters::file_journal::{FileJournal, Options, Stored, survey};
use tollgate::adapters::memory_counters::MemoryCounters;
use tollgate::config::price_file;
use tollgate::domain::counting::{Amounts, subjects_of};
use tollgate::domain::event::UsageEvent;
use tollgate::domain::ids::{EventId, TenantId};
use tollgate::domain::plan::{Metric, Subject};
use tollgate::domain::price::PriceBook;
use tollgate::domain::time::{Period, Window};
use tollgate::metering::deferred::{self, Deferred};
use tollgate::metering::estimator::Estimator;
use tollgate::metering::fresh::Fresh;
use tollgate::metering::meter::Meter;
use tollgate::metering::node_counters::{Leases, NodeCounters};
use tollgate::metering::rebuild::rebuild;
use tollgate::metering::recorder::Recorder;
use tollgate::metering::snapshot::Snapshots;
use tollgate::ports::StoreError;
use tollgate::ports::counters::{CounterKey, CounterStore};
use tollgate::ports::journal::Journal;
use tollgate::ports::shared::Member;
use tollgate::ports::sink::Sink;
use tollgate::ports::usage::{SumsQuery, UsageStore};
use tollgate::providers::estimate;

use super::bills::{SimAsk, SimUnits, hearing};
use super::bugs;
use super::call::{CallTask, Script};
use super::disk::{Platter, SimDisk};
use super::executor::{Role, TaskId, cancel, spawn};
use super::ledger::{Books, SimLedger};
use super::model::TENANTS;
use super::node::Node;
use super::peace::Meeting;
use super::ports::{SimClock, SimCounters, SimSink};
use super::tenants::{PLANS, SimTenants, Tenants, max_of};
use super::wire::{Store, id_of};

/// After the last call is over, the gateway gives the ledger so long to take what is left.
const FLUSH_MAX: Duration = Duration::from_secs(30);

/// Beyond the longest pause of the recorder and the longest wait of a call for the disk.
const HEALING_MAX: Duration = Duration::from_secs(16);

/// How long a question to the ledger waits for the recorder.
const CATCH_UP_MAX: Duration = Duration::from_secs(2);

/// As often a node looks whether tenants were changed, whatever it hears.
const REFRESH: Duration = Duration::from_secs(2);

/// After this a node knows whether the counters answer.
const AWAY_US: u64 = 1_500_000;

/// A change that all nodes have by then acts on all.
const SPREAD_MAX: Duration = Duration::from_secs(2);

/// What a call's question to the shared counters has, and how long a lease lasts.
pub const CALL_BUDGET: Duration = Duration::from_millis(50);
const LEASE: Duration = Duration::from_secs(3);

/// The least a journal may have: sixteen segments of 64 KiB.
const JOURNAL_BYTES: u64 = tollgate::adapters::file_journal::BYTES_MIN;
const SEGMENT_BYTES: u64 = JOURNAL_BYTES / 16;

static PRICES: LazyLock<Arc<PriceBook>> = LazyLock::new(|| Arc::new(price_file::builtin().unwrap()));

/// What outlives a process.
#[derive(Clone)]
pub struct Outside {
    pub node: Arc<Node>,
    pub platter: Arc<Platter>,
    pub books: Arc<Books>,
    pub tenants: Arc<Tenants>,
    pub store: Arc<Store>,
    pub meeting: Rc<Meeting>,
}

/// What a life is told to do.
#[derive(Debug, Clone, Copy)]
pub struct Orders {
    /// How long it serves.
    pub serve_ms: u64,
    /// At most so many milliseconds between two calls.
    pub gap_ms_max: u64,
    /// Peace comes before it drains: it must recover without a restart.
    pub sees_peace: bool,
}

/// What admits calls.
enum Counters {
    Own(Arc<SimCounters>),
    Shared(Arc<NodeCounters>),
}

/// A running process.
pub struct Process {
    pub node: Arc<Node>,
    pub snapshots: Arc<Snapshots>,
    pub outside: Outside,
    life: u32,
    orders: Orders,
    disk: Arc<SimDisk>,
    ledger: Arc<SimLedger>,
    counters: Counters,
    store: Arc<SimTenants>,
    files: Arc<FileJournal>,
    journal: Arc<dyn Journal>,
    recorder: Arc<Recorder>,
    recorded: Rc<Ended>,
    /// What asks for units.
    billing: OnceCell<TaskId>,
    meter: OnceCell<Arc<Meter>>,
    /// What shared counters do beside calls.
    sharing: OnceCell<TaskId>,
    calls: RefCell<Vec<(usize, TaskId)>>,
    /// Calls that are not over.
    pub under_way: Cell<u64>,
}

/// Tells that something is over.
#[derive(Default)]
struct Ended {
    is: Cell<bool>,
    told: Notify,
}

/// How a life ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The gateway did not start.
    NotStarted,
    /// It drained. `flushed`: the ledger has everything.
    Drained { flushed: bool },
}

/// Lives. Returns only if nothing kills it.
pub async fn live(outside: Outside, orders: Orders) -> End {
    let Some(process) = Process::start(&outside, orders) else { return End::NotStarted };
    let process = Rc::new(process);
    if !process.recover().await {
        return End::NotStarted;
    }
    process.serve().await;
    if orders.sees_peace {
        match process.counters {
            Counters::Own(_) => {
                process.node.make_peace();
                sleep(HEALING_MAX).await;
                process.serve().await;
            }
            Counters::Shared(_) => process.meets().await,
        }
    }
    End::Drained { flushed: process.drain().await }
}

fn estimator(node: &Arc<Node>) -> Estimator {
    let node = node.clone();
    Estimator::counting(Arc::new(move |input, permit| {
        // The fourth is too slow for the call that waits for it.
        let ms = node.chance.pick(&[0, 1, 20, 4_000]);
        Box::pin(async move {
            let _until_counted = permit;
            sleep(Duration::from_millis(ms)).await;
            Some(estimate::by_bytes(&input))
        })
    }))
}

fn shared_options(node: &Node) -> tollgate::metering::node_counters::Options {
    let units_max = node.chance.pick(&[1, 4, 64]);
    tollgate::metering::node_counters::Options {
        member: Member { node: id_of(node), life: node.chance.next() },
        call_budget: CALL_BUDGET,
        leases: node.setup.leases.then_some(Leases { units_max, lasts: LEASE }),
    }
}

impl Process {
    fn start(outside: &Outside, orders: Orders) -> Option<Self> {
        let Outside { node, platter, books, tenants, store, .. } = outside.clone();
        let life = node.begin_life();
        let (disk, ledger) = (platter.of_life(life), books.of_life(&node, life));
        let op = node.disk_ops();
        let options = Options { bytes_max: JOURNAL_BYTES, strict: node.setup.strict };
        let files = match FileJournal::open(disk.clone(), options) {
            Ok((files, recovered)) => {
                node.note(|| format!("opens: {recovered:?}"));
                Arc::new(files)
            }
            Err(error) => {
                node.note(|| format!("does not open: {error}"));
                if node.is_peace() && !node.is_dead() {
                    node.fail(format!("the journal does not open: {error}"));
                }
                return None;
            }
        };
        if node.is_alive(life) {
            let on = &mut node.model.lock().on[node.number];
            on.life = life;
            on.began_on_lost_pages = platter.has_forgotten();
            if !on.began_on_lost_pages {
                // What an earlier process left is on the disk for good before anything is built on it.
                on.safe_op = on.safe_op.max(op);
            }
        }
        let journal = bugs::planted(node.bug, files.clone());
        let sink = Arc::new(SimSink { node: node.clone(), heard: Mutex::default() });
        let snapshots = Arc::new(Snapshots::from(tenants.snapshot(&node.setup, &PRICES)));
        let tenants = Arc::new(SimTenants { node: node.clone(), tenants });
        let mut sinks: Vec<Arc<dyn Sink>> = vec![sink];
        let counters = if node.is_shared() {
            node.upsets();
            let options = shared_options(&node);
            let outside = tollgate::metering::node_counters::Outside {
                shared: store.of_node(&node),
                usage: ledger.clone(),
                tenants: tenants.clone(),
                snapshots: snapshots.clone(),
                clock: Arc::new(SimClock(node.clone())),
            };
            let counters = Arc::new(NodeCounters::new(options, outside));
            sinks.push(hearing(node.bug, counters.clone()));
            Counters::Shared(counters)
        } else {
            Counters::Own(Arc::new(SimCounters { node: node.clone(), inner: MemoryCounters::new() }))
        };
        let recorder = Arc::new(Recorder::new(journal.clone(), ledger.clone(), tenants.clone(), sinks));
        let (recorded, meter) = (Rc::default(), OnceCell::new());
        Some(Self {
            node,
            snapshots,
            outside: outside.clone(),
            life,
            orders,
            disk,
            ledger,
            counters,
            store: tenants,
            files,
            journal,
            recorder,
            recorded,
            billing: OnceCell::new(),
            meter,
            sharing: OnceCell::new(),
            calls: RefCell::default(),
            under_way: Cell::new(0),
        })
    }

    /// As the gateway does it: the thread that syncs, then the counters, from the ledger's sums and what the journal has
    /// beyond them, then the recorder.
    async fn recover(self: &Rc<Self>) -> bool {
        spawn(Role::Maintainer(self.node.number), maintain(self.node.clone(), self.life, self.files.clone()));
        let node = &self.node;
        let clock = SimClock(node.clone());
        let left = match self.waiting() {
            Ok(waiting) => waiting,
            Err(error) => return self.did_not_start(&error.to_string()),
        };
        let event = |id| self.outside.books.event(id).or_else(|| left.get(&id).cloned());
        let lost = node.model.lock().verify(node.number, &BTreeSet::new(), event);
        match lost {
            Ok(lost) => node.figures.lock().lost_to_power += lost,
            Err(wrong) => node.fail(format!("after the start, {wrong}")),
        }
        let now = node.wall_clock();
        node.model.lock().begins(node.number, now);
        node.model.lock().excuse_forgotten(node.number);
        let counters: Arc<dyn CounterStore> = match &self.counters {
            Counters::Own(counters) => {
                if let Err(error) =
                    rebuild(&**counters, &*self.ledger, &*self.journal, &clock, self.snapshots.counting()).await
                {
                    return self.did_not_start(&error.to_string());
                }
                let periods = [Window::Month, Window::Day].map(|window| window.period(now));
                self.check_counters(counters, "after the start", &left, |_| periods.to_vec()).await;
                counters.clone()
            }
            Counters::Shared(counters) => {
                left.values().for_each(|event| counters.adopt(event));
                let running = counters.clone();
                let sharing = spawn(Role::Process(node.number), async move { running.run().await });
                assert!(self.sharing.set(sharing).is_ok());
                let refreshing = self.clone();
                spawn(Role::Process(node.number), async move { refreshing.refreshes().await });
                counters.clone()
            }
        };
        let (recorder, recorded) = (self.recorder.clone(), self.recorded.clone());
        spawn(Role::Process(node.number), async move {
            recorder.run().await;
            recorded.is.set(true);
            recorded.told.notify_one();
        });
        self.bills(counters.clone());
        let (journal, snapshots) = (self.journal.clone(), self.snapshots.clone());
        let meter = Meter::new(counters, journal, snapshots, Arc::new(clock), Vec::new());
        assert!(self.meter.set(Arc::new(meter.with_estimator(estimator(node)))).is_ok());
        true
    }

    /// Asks for what the provider finishes later, and books it, until it is drained.
    fn bills(&self, counters: Arc<dyn CounterStore>) {
        let (node, units) = (self.node.clone(), self.outside.books.units.clone());
        let kept = SimUnits { node: node.clone(), units: units.clone(), ledger: self.ledger.clone() };
        let deferred = Deferred::new(deferred::Books {
            units: Arc::new(kept),
            usage: self.ledger.clone(),
            tenants: self.store.clone(),
            journal: self.journal.clone(),
            counters,
            recorder: self.recorder.clone(),
            snapshots: self.snapshots.clone(),
            clock: Arc::new(SimClock(node.clone())),
        });
        let ask = SimAsk { node: node.clone(), units };
        let billing = spawn(Role::Process(node.number), async move {
            let interval = || Duration::from_millis(ask.node.chance.pick(&[10, 20, 100]));
            deferred.run(&ask, &interval).await;
        });
        assert!(self.billing.set(billing).is_ok());
    }

    /// Events on their way to the ledger.
    fn waiting(&self) -> Result<BTreeMap<EventId, UsageEvent>, StoreError> {
        let mut waiting = BTreeMap::new();
        self.journal.waiting(&mut |event| drop(waiting.insert(event.id, event)))?;
        Ok(waiting)
    }

    fn did_not_start(&self, error: &str) -> bool {
        self.node.note(|| format!("does not start: {error}"));
        if self.node.is_peace() {
            self.node.fail(format!("the gateway does not start: {error}"));
        }
        false
    }

    fn quarantined(&self) -> BTreeSet<EventId> {
        let id = |name: &String| name.strip_suffix(".quarantined").map(|id| id.parse().unwrap());
        self.outside.platter.names().iter().filter_map(id).collect()
    }

    pub fn meter(&self) -> &Arc<Meter> {
        self.meter.get().expect("calls come after the start")
    }

    /// The counters are known to be away.
    pub fn is_down(&self) -> bool {
        matches!(&self.counters, Counters::Shared(counters) if counters.health().down)
    }

    /// The way to the counters had trouble just now.
    pub fn was_cut_off(&self) -> bool {
        let trouble_us = self.outside.store.trouble_us(&self.node);
        trouble_us > 0 && self.node.elapsed_us() < trouble_us + AWAY_US
    }

    pub fn admitted_from_lease(&self) -> u64 {
        match &self.counters {
            Counters::Own(_) => 0,
            Counters::Shared(counters) => counters.health().from_lease,
        }
    }

    /// Whether a call of it is under way, or not in the ledger yet.
    pub fn is_busy(&self) -> bool {
        self.under_way.get() > 0 || self.journal.backlog().events > 0
    }

    /// Whether the journal is as large as it may be.
    pub fn is_at_bound(&self) -> bool {
        let backlog = self.journal.backlog();
        backlog.bytes + SEGMENT_BYTES > backlog.bytes_max
    }

    async fn serve(self: &Rc<Self>) {
        let node = self.node.clone();
        let chance = &node.chance;
        let until = Instant::now() + Duration::from_millis(self.orders.serve_ms);
        while Instant::now() < until {
            for _ in 0..chance.pick(&[1, 1, 1, 2, 6]) {
                let plain = node.is_peace() && chance.per_mille(500);
                self.begin_call(if plain { Script::plain(chance) } else { Script::draw(&node) }, !plain);
            }
            if node.is_shared() && chance.per_mille(40) {
                let tenant = usize::try_from(chance.below(3)).unwrap();
                for _ in 0..chance.between(5, 25) {
                    self.begin_call(Script::draw(&node).of(tenant, &node), true);
                }
            }
            if chance.per_mille(100) {
                let asking = self.clone();
                spawn(Role::Process(node.number), async move { asking.ask().await });
            }
            if node.is_shared() && chance.per_mille(150) {
                let looking = self.clone();
                spawn(Role::Process(node.number), async move { looking.looks().await });
            }
            if node.setup.plans_change && chance.per_mille(30) {
                let changing = self.clone();
                spawn(Role::Process(node.number), async move { changing.change_plan().await });
            }
            sleep(Duration::from_millis(chance.between(0, self.orders.gap_ms_max))).await;
        }
    }

    pub fn begin_call(self: &Rc<Self>, script: Script, may_abort: bool) {
        let (number, task) = CallTask::new(self, script, may_abort);
        let id = spawn(Role::Call(self.node.number, number), task);
        self.calls.borrow_mut().push((number, id));
    }

    async fn refreshes(&self) {
        loop {
            sleep(REFRESH).await;
            // One that fails is tried again.
            self.snapshots.refresh(&*self.store).await.unwrap_or_default();
        }
    }

    /// A tenant is put on another plan: whoever asks any node after that goes by it.
    async fn change_plan(&self) {
        let node = &self.node;
        let tenant = usize::try_from(node.chance.below(2)).unwrap();
        let plan = usize::try_from(node.chance.below(PLANS as u64)).unwrap();
        let max = max_of(&node.setup, tenant, plan).unwrap();
        let revision = self.outside.tenants.put(tenant, plan);
        node.note(|| format!("{} has a limit of {max} from now on, in revision {revision}", TENANTS[tenant]));
        let change = node.model.lock().changes(tenant, plan, max);
        if self.snapshots.refresh(&*self.store).await.is_err() {
            return;
        }
        if let Counters::Shared(counters) = &self.counters {
            counters.changed(&TENANTS[tenant].parse().unwrap(), revision).await;
        }
        if node.is_calm_for(SPREAD_MAX) {
            node.model.lock().has_changed(tenant, change, node.elapsed_us());
        }
    }

    /// How a tenant stands: counters are told of all that is to be told first.
    async fn looks(&self) {
        let tenant = TENANTS[usize::try_from(self.node.chance.below(3)).unwrap()];
        let account = self.snapshots.load().accounts[tenant].clone();
        self.meter().standings(&account).await;
    }

    /// A question to the ledger knows everything that was settled before it.
    async fn ask(&self) {
        let (settled, asked) = (self.node.model.lock().settled(self.node.number), Instant::now());
        let query = SumsQuery { tenant: None, period: None, group_by: Vec::new() };
        let answered = Fresh::new(self.ledger.clone(), self.recorder.clone()).sums(&query).await;
        if answered.is_err() || asked.elapsed() >= CATCH_UP_MAX || self.node.is_dead() {
            return;
        }
        let quarantined = self.quarantined();
        for id in settled.into_iter().filter(|id| !quarantined.contains(id)) {
            if self.outside.books.event(id).is_none() {
                self.node.fail(format!("a question is answered without event {id}, which was settled before"));
            }
        }
    }

    /// As the gateway ends: calls finish or are cut, the recorder takes what is left, the journal stops.
    async fn drain(&self) -> bool {
        let node = &self.node;
        let limit = Duration::from_millis(if self.node.is_peace() { 20_000 } else { node.chance.between(0, 2_000) });
        let began = Instant::now();
        while began.elapsed() < limit && self.journal.backlog().in_flight > 0 {
            sleep(Duration::from_millis(5)).await;
        }
        let cut = self.calls.borrow_mut().drain(..).filter(|(_, task)| cancel(*task)).count();
        node.note(|| format!("drains, {cut} calls are cut"));
        self.billing.get().copied().map(cancel);
        self.journal.close();
        let told = self.recorded.told.notified();
        let flushed = self.recorded.is.get() || timeout(FLUSH_MAX, told).await.is_ok();
        if flushed {
            self.check_flushed().await;
        } else if self.node.is_peace() {
            node.fail(format!("the journal does not end: {:?}", self.journal.backlog()));
        }
        if let Counters::Shared(counters) = &self.counters {
            counters.settle_up().await;
            if counters.health().notes_waiting > 0 {
                // It could not, as the store or the ledger is away; nobody does it for it.
                node.model.lock().excuse(node.number);
            }
            self.sharing.get().copied().map(cancel);
            counters.leave().await;
        }
        self.files.leave();
        if self.node.is_peace() {
            self.check_nothing_is_left();
        }
        flushed
    }

    async fn check_flushed(&self) {
        let node = &self.node;
        let checked = {
            let mut model = node.model.lock();
            let booked = |id| self.outside.books.event(id);
            let quarantined = self.quarantined();
            let verified = model.verify(node.number, &quarantined, booked);
            verified.and_then(|_| model.verify_ledger(node.number, &quarantined, booked))
        };
        if let Err(wrong) = checked {
            node.fail(format!("after the drain, {wrong}"));
        }
        let Counters::Own(counters) = &self.counters else { return };
        let held = counters.inner.list().await.unwrap().into_iter().find(|counted| counted.standing.held > 0);
        if let Some(held) = held {
            node.fail(format!("after the drain, a call that is over holds: {held:?}"));
        }
        let life = (node.number, self.life);
        let periods = |tenant| node.model.lock().periods_of(tenant, life);
        self.check_counters(counters, "after the drain", &BTreeMap::new(), periods).await;
    }

    /// The counters are what the ledger says and what is on its way there, and nothing is held by a call that is over.
    async fn check_counters(
        &self,
        counters: &SimCounters,
        when: &str,
        waiting: &BTreeMap<EventId, UsageEvent>,
        periods: impl Fn(usize) -> Vec<Period>,
    ) {
        let events = self.outside.books.events();
        let booked: BTreeSet<EventId> = events.iter().map(|event| event.id).collect();
        let waiting_ids: BTreeSet<EventId> = waiting.keys().copied().collect();
        let waiting = waiting.values().filter(|event| !booked.contains(&event.id));
        // Counted, and refused by the ledger after that.
        let mut refused = self.quarantined();
        // The file of one that the power took with its content may be there all the same.
        refused.retain(|id| !waiting_ids.contains(id) && !self.node.model.lock().is_lost(*id));
        let refused: Vec<UsageEvent> = refused.into_iter().filter_map(|id| self.outside.books.refused(id)).collect();
        let events: Vec<&UsageEvent> = events.iter().chain(waiting).chain(&refused).collect();
        for (at, tenant) in TENANTS.iter().enumerate() {
            let tenant: TenantId = tenant.parse().unwrap();
            for period in periods(at) {
                let is_in = |event: &&&UsageEvent| event.tenant == tenant && event.period(period.window()) == period;
                let in_period: Vec<&&UsageEvent> = events.iter().filter(is_in).collect();
                let counting = self.snapshots.counting();
                let subjects: BTreeSet<Subject> = in_period.iter().flat_map(|event| subjects_of(event)).collect();
                let all = subjects.iter().flat_map(|subject| Metric::ALL.map(|metric| (subject, metric)));
                let counted = all.filter(|(subject, metric)| counting.has(subject.scope(), *metric, period.window()));
                for (subject, metric) in counted {
                    let of = in_period.iter().filter(|event| subjects_of(event).any(|of| of == *subject));
                    let used: u64 = of.map(|event| Amounts::of(event).of_metric(metric)).sum();
                    let counter = CounterKey { tenant: tenant.clone(), subject: subject.clone(), metric, period };
                    let standing = counters.inner.read(&[counter]).await.unwrap()[0];
                    if (standing.used, standing.held) != (used, 0) {
                        let what = metric.as_str();
                        self.node.fail(format!(
                            "{when}, {subject} of {tenant} in {period}: {standing:?}, the events say {used} {what}"
                        ));
                    }
                }
            }
        }
    }

    /// The last word: the disk has no segment any more, and nobody waits in it.
    fn check_nothing_is_left(&self) {
        let mut left = Vec::new();
        let read = survey(&*self.disk, |stored| {
            if !matches!(stored, Stored::Settled(_, true) | Stored::Quarantined(..)) {
                left.push(stored);
            }
        });
        if read.is_err() || !left.is_empty() {
            self.node.fail(format!("the journal still has {left:?} ({read:?})"));
        }
        let names = self.outside.platter.names();
        if names.iter().any(|name| name.ends_with(".log")) {
            self.node.fail(format!("the journal leaves files: {names:?}"));
        }
    }
}

async fn maintain(node: Arc<Node>, life: u32, files: Arc<FileJournal>) {
    // One whose process dies while it waits for the disk is not dropped with the others.
    while node.is_alive(life) {
        sleep(Duration::from_millis(node.setup.sync_interval_ms)).await;
        let (op, faults) = (node.disk_ops(), node.faults());
        files.maintain();
        if !node.is_alive(life) || node.faults() > faults {
            continue;
        }
        node.model.lock().is_healed(node.number, op);
    }
}
