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
use tollgate::domain::event::UsageEvent;
use tollgate::domain::ids::{EventId, TenantId};
use tollgate::domain::plan::{Limit, Metric, OnCountersDown, Plan};
use tollgate::domain::price::PriceBook;
use tollgate::domain::tenant::Tenant;
use tollgate::domain::time::{Micros, Period, Window};
use tollgate::metering::estimator::Estimator;
use tollgate::metering::fresh::Fresh;
use tollgate::metering::meter::Meter;
use tollgate::metering::rebuild::rebuild;
use tollgate::metering::recorder::Recorder;
use tollgate::metering::snapshot::{Account, Snapshot, Snapshots};
use tollgate::ports::StoreError;
use tollgate::ports::counters::{CounterKey, CounterStore};
use tollgate::ports::journal::Journal;
use tollgate::ports::usage::{SumsQuery, UsageStore};
use tollgate::providers::estimate;

use super::bugs;
use super::call::{CallTask, Script};
use super::disk::{Platter, SimDisk};
use super::executor::{Role, TaskId, cancel, spawn};
use super::ledger::{Books, SimLedger};
use super::model::TENANTS;
use super::ports::{SimClock, SimCounters, SimSink};
use super::tenants::NoTenants;
use super::world::World;

/// After the last call is over, the gateway gives the ledger so long to take what is left.
const FLUSH_MAX: Duration = Duration::from_secs(30);

/// Beyond the longest pause of the recorder and the longest wait of a call for the disk.
const HEALING_MAX: Duration = Duration::from_secs(16);

/// How long a question to the ledger waits for the recorder.
const CATCH_UP_MAX: Duration = Duration::from_secs(2);

/// The least a journal may have: sixteen segments of 64 KiB.
const JOURNAL_BYTES: u64 = tollgate::adapters::file_journal::BYTES_MIN;
const SEGMENT_BYTES: u64 = JOURNAL_BYTES / 16;

static PRICES: LazyLock<Arc<PriceBook>> = LazyLock::new(|| Arc::new(price_file::builtin().unwrap()));

/// What outlives a process.
#[derive(Clone)]
pub struct Outside {
    pub world: Arc<World>,
    pub platter: Arc<Platter>,
    pub books: Arc<Books>,
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

/// A running process.
pub struct Process {
    pub world: Arc<World>,
    pub accounts: Vec<Arc<Account>>,
    outside: Outside,
    orders: Orders,
    disk: Arc<SimDisk>,
    ledger: Arc<SimLedger>,
    counters: Arc<SimCounters>,
    files: Arc<FileJournal>,
    journal: Arc<dyn Journal>,
    recorder: Arc<Recorder>,
    recorded: Rc<Ended>,
    meter: OnceCell<Arc<Meter>>,
    calls: RefCell<Vec<(usize, TaskId)>>,
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
        process.world.make_peace();
        sleep(HEALING_MAX).await;
        process.serve().await;
    }
    End::Drained { flushed: process.drain().await }
}

fn accounts(world: &World) -> Vec<Arc<Account>> {
    let account = |at: usize, name: &str| {
        let limit = match at {
            0 => Some(Limit { metric: Metric::Chats, window: Window::Month, max: world.setup.month_max }),
            1 => Some(Limit { metric: Metric::Chats, window: Window::Day, max: world.setup.day_max }),
            _ => None,
        };
        let plan = Plan {
            name: name.parse().unwrap(),
            limits: limit.into_iter().collect(),
            on_counters_down: OnCountersDown::default(),
        };
        let tenant = Tenant {
            id: name.parse().unwrap(),
            name: name.to_owned(),
            plan: plan.name.clone(),
            suspended: false,
            created_at: Micros(0),
        };
        Arc::new(Account { tenant, plan: Some(Arc::new(plan)), revision: 0 })
    };
    TENANTS.iter().enumerate().map(|(at, name)| account(at, name)).collect()
}

fn estimator(world: &Arc<World>) -> Estimator {
    let world = world.clone();
    Estimator::counting(Arc::new(move |input, permit| {
        // The fourth is too slow for the call that waits for it.
        let ms = world.chance.pick(&[0, 1, 20, 4_000]);
        Box::pin(async move {
            let _until_counted = permit;
            sleep(Duration::from_millis(ms)).await;
            Some(estimate::by_bytes(&input))
        })
    }))
}

impl Process {
    fn start(outside: &Outside, orders: Orders) -> Option<Self> {
        let Outside { world, platter, books } = outside.clone();
        let life = world.begin_life();
        let (disk, ledger) = (platter.of_life(life), books.of_life(life));
        let op = world.disk_ops();
        let options = Options { bytes_max: JOURNAL_BYTES, strict: world.setup.strict };
        let files = match FileJournal::open(disk.clone(), options) {
            Ok((files, recovered)) => {
                world.note(|| format!("opens: {recovered:?}"));
                Arc::new(files)
            }
            Err(error) => {
                world.note(|| format!("does not open: {error}"));
                if world.is_peace() && !world.is_dead() {
                    world.fail(format!("the journal does not open: {error}"));
                }
                return None;
            }
        };
        if world.is_alive(life) {
            let mut model = world.model.lock();
            model.began_on_lost_pages = platter.has_forgotten();
            if !model.began_on_lost_pages {
                // What an earlier process left is on the disk for good before anything is built on it.
                model.safe_op = model.safe_op.max(op);
            }
        }
        let journal = bugs::planted(world.bug, files.clone());
        let sink = Arc::new(SimSink { world: world.clone(), heard: Mutex::default() });
        let recorder = Arc::new(Recorder::new(journal.clone(), ledger.clone(), Arc::new(NoTenants), vec![sink]));
        let counters = Arc::new(SimCounters { world: world.clone(), inner: MemoryCounters::new() });
        let accounts = accounts(&world);
        let (recorded, meter) = (Rc::default(), OnceCell::new());
        let outside = outside.clone();
        let calls = RefCell::default();
        Some(Self {
            world,
            accounts,
            outside,
            orders,
            disk,
            ledger,
            counters,
            files,
            journal,
            recorder,
            recorded,
            meter,
            calls,
        })
    }

    /// As the gateway does it: the thread that syncs, then the counters, from the ledger's sums and what the journal has
    /// beyond them, then the recorder.
    async fn recover(self: &Rc<Self>) -> bool {
        spawn(Role::Maintainer, maintain(self.world.clone(), self.files.clone()));
        let world = &self.world;
        let clock = SimClock(world.clone());
        let left = match self.waiting() {
            Ok(waiting) => waiting,
            Err(error) => return self.did_not_start(&error.to_string()),
        };
        let event = |id| self.outside.books.event(id).or_else(|| left.get(&id).cloned());
        let lost = world.model.lock().verify(&BTreeSet::new(), event);
        match lost {
            Ok(lost) => world.figures.lock().lost_to_power += lost,
            Err(wrong) => world.fail(format!("after the start, {wrong}")),
        }
        let now = world.wall_clock();
        world.model.lock().begins(now);
        if let Err(error) = rebuild(&*self.counters, &*self.ledger, &*self.journal, &clock).await {
            return self.did_not_start(&error.to_string());
        }
        let periods = [Window::Month, Window::Day].map(|window| window.period(now));
        self.check_counters("after the start", &left, |_| periods.to_vec()).await;
        let (recorder, recorded) = (self.recorder.clone(), self.recorded.clone());
        spawn(Role::Process, async move {
            recorder.run().await;
            recorded.is.set(true);
            recorded.told.notify_one();
        });
        let snapshot = Snapshot { prices: PRICES.clone(), ..Snapshot::default() };
        let snapshots = Arc::new(Snapshots::from(snapshot));
        let meter = Meter::new(self.counters.clone(), self.journal.clone(), snapshots, Arc::new(clock), Vec::new());
        assert!(self.meter.set(Arc::new(meter.with_estimator(estimator(world)))).is_ok());
        true
    }

    /// Events on their way to the ledger.
    fn waiting(&self) -> Result<BTreeMap<EventId, UsageEvent>, StoreError> {
        let mut waiting = BTreeMap::new();
        self.journal.waiting(&mut |event| drop(waiting.insert(event.id, event)))?;
        Ok(waiting)
    }

    fn did_not_start(&self, error: &str) -> bool {
        self.world.note(|| format!("does not start: {error}"));
        if self.world.is_peace() {
            self.world.fail(format!("the gateway does not start: {error}"));
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

    /// Whether the journal is as large as it may be.
    pub fn is_at_bound(&self) -> bool {
        let backlog = self.journal.backlog();
        backlog.bytes + SEGMENT_BYTES > backlog.bytes_max
    }

    async fn serve(self: &Rc<Self>) {
        let world = self.world.clone();
        let chance = &world.chance;
        let until = Instant::now() + Duration::from_millis(self.orders.serve_ms);
        while Instant::now() < until {
            for _ in 0..chance.pick(&[1, 1, 1, 2, 6]) {
                let plain = world.is_peace() && chance.per_mille(500);
                self.begin_call(if plain { Script::plain(chance) } else { Script::draw(&world) }, !plain);
            }
            if chance.per_mille(100) {
                let asking = self.clone();
                spawn(Role::Process, async move { asking.ask().await });
            }
            sleep(Duration::from_millis(chance.between(0, self.orders.gap_ms_max))).await;
        }
    }

    fn begin_call(self: &Rc<Self>, script: Script, may_abort: bool) {
        let (number, task) = CallTask::new(self, script, may_abort);
        let id = spawn(Role::Call(number), task);
        self.calls.borrow_mut().push((number, id));
    }

    /// A question to the ledger knows everything that was settled before it.
    async fn ask(&self) {
        let (settled, asked) = (self.world.model.lock().settled(), Instant::now());
        let query = SumsQuery { tenant: None, period: None, group_by: Vec::new() };
        let answered = Fresh::new(self.ledger.clone(), self.recorder.clone()).sums(&query).await;
        if answered.is_err() || asked.elapsed() >= CATCH_UP_MAX || self.world.is_dead() {
            return;
        }
        let quarantined = self.quarantined();
        for id in settled.into_iter().filter(|id| !quarantined.contains(id)) {
            if self.outside.books.event(id).is_none() {
                self.world.fail(format!("a question is answered without event {id}, which was settled before"));
            }
        }
    }

    /// As the gateway ends: calls finish or are cut, the recorder takes what is left, the journal stops.
    async fn drain(&self) -> bool {
        let world = &self.world;
        let limit = Duration::from_millis(if self.world.is_peace() { 20_000 } else { world.chance.between(0, 2_000) });
        let began = Instant::now();
        while began.elapsed() < limit && self.journal.backlog().in_flight > 0 {
            sleep(Duration::from_millis(5)).await;
        }
        let cut = self.calls.borrow_mut().drain(..).filter(|(_, task)| cancel(*task)).count();
        world.note(|| format!("drains, {cut} calls are cut"));
        self.journal.close();
        let told = self.recorded.told.notified();
        let flushed = self.recorded.is.get() || timeout(FLUSH_MAX, told).await.is_ok();
        if flushed {
            self.check_flushed().await;
        } else if self.world.is_peace() {
            world.fail(format!("the journal does not end: {:?}", self.journal.backlog()));
        }
        self.files.leave();
        if self.world.is_peace() {
            self.check_nothing_is_left();
        }
        flushed
    }

    async fn check_flushed(&self) {
        let world = &self.world;
        let checked = {
            let mut model = world.model.lock();
            let booked = |id| self.outside.books.event(id);
            let quarantined = self.quarantined();
            model.verify(&quarantined, booked).and_then(|_| model.verify_ledger(&quarantined, booked))
        };
        if let Err(wrong) = checked {
            world.fail(format!("after the drain, {wrong}"));
        }
        let held = self.counters.inner.list().await.unwrap().into_iter().find(|counted| counted.standing.held > 0);
        if let Some(held) = held {
            world.fail(format!("after the drain, a call that is over holds: {held:?}"));
        }
        let life = world.life();
        let periods = |tenant| world.model.lock().periods_of(tenant, life);
        self.check_counters("after the drain", &BTreeMap::new(), periods).await;
    }

    /// The counters are what the ledger says and what is on its way there, and nothing is held by a call that is over.
    async fn check_counters(
        &self,
        when: &str,
        waiting: &BTreeMap<EventId, UsageEvent>,
        periods: impl Fn(usize) -> Vec<Period>,
    ) {
        let events = self.outside.books.events();
        let booked: BTreeSet<EventId> = events.iter().map(|event| event.id).collect();
        let waiting = waiting.values().filter(|event| !booked.contains(&event.id));
        let events: Vec<&UsageEvent> = events.iter().chain(waiting).collect();
        for (at, tenant) in TENANTS.iter().enumerate() {
            let tenant: TenantId = tenant.parse().unwrap();
            for period in periods(at) {
                let is_in = |event: &&&UsageEvent| {
                    event.tenant == tenant && period.window().period(event.requested_at) == period
                };
                let chats: u64 = events.iter().filter(is_in).map(|event| event.chats).sum();
                let counter = CounterKey { tenant: tenant.clone(), metric: Metric::Chats, period };
                let standing = self.counters.inner.read(&[counter]).await.unwrap()[0];
                if (standing.used, standing.held) != (chats, 0) {
                    self.world.fail(format!("{when}, {tenant} in {period}: {standing:?}, the events say {chats}"));
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
            self.world.fail(format!("the journal still has {left:?} ({read:?})"));
        }
        let names = self.outside.platter.names();
        if names.iter().any(|name| name.ends_with(".log")) {
            self.world.fail(format!("the journal leaves files: {names:?}"));
        }
    }
}

async fn maintain(world: Arc<World>, files: Arc<FileJournal>) {
    loop {
        sleep(Duration::from_millis(world.setup.sync_interval_ms)).await;
        let (op, faults) = (world.disk_ops(), world.faults());
        files.maintain();
        if world.is_dead() || world.faults() > faults {
            continue;
        }
        world.model.lock().is_healed(op);
    }
}
