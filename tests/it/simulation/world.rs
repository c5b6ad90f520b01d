//! What a simulation consists of beside the nodes: its seed and chance, what is decided for the whole run, and the model of
//! what must be true.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tollgate::domain::plan::OnCountersDown;
use tollgate::domain::time::Micros;

use super::budgets::Budgets;
use super::bugs::Bug;
use super::chance::{Chance, mixed};
use super::model::Model;
use super::node::Broken;
use super::wire::Trouble;

/// Which counters are under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One node and its own.
    One,
    /// Some nodes that share theirs.
    Many,
}

/// What a seed decides for the whole run.
#[derive(Debug, Clone)]
pub struct Setup {
    pub kind: Kind,
    pub strict: bool,
    pub sync_interval_ms: u64,
    /// Bytes that the disk has.
    pub disk_bytes: u64,
    /// Calls have texts of the largest size.
    pub fat: bool,
    /// Chats of the two limited tenants, in a month and in a day.
    pub month_max: u64,
    pub day_max: u64,
    pub begins: Micros,
    /// Faults come so often, in a thousand moments; 0 in a run without any.
    pub trouble: u64,
    /// The disk fails too, beside being full.
    pub disk_fails: bool,
    /// The wall clock jumps.
    pub clock_jumps: bool,
    /// Processes are killed.
    pub kills: bool,
    /// How far each node's clock is beside the true time: as many as there are nodes.
    pub skews_us: Vec<i64>,
    pub leases: bool,
    pub on_counters_down: OnCountersDown,
    /// Messages to the shared counters are lost so often, in a thousand.
    pub loss: u64,
    /// Tenants are put on other plans.
    pub plans_change: bool,
    /// Limits of tokens and cost, beside those of chats.
    pub budgets: Option<Budgets>,
}

/// What a run was made of.
#[derive(Debug, Default, Clone, Copy)]
pub struct Figures {
    pub calls: u64,
    pub reached: u64,
    pub booked: u64,
    pub kills: u64,
    pub power_cuts: u64,
    pub faults: u64,
    pub lost_to_power: u64,
    /// The shared counters lost a tenant, or all.
    pub forgotten: u64,
    /// They were opened anew.
    pub built: u64,
    pub from_lease: u64,
    /// The most chats above a limit at once, while nodes were dead or silent.
    pub over: u64,
}

impl Figures {
    pub fn add(&mut self, other: &Self) {
        let Self {
            calls,
            reached,
            booked,
            kills,
            power_cuts,
            faults,
            lost_to_power,
            forgotten,
            built,
            from_lease,
            over,
        } = other;
        self.calls += calls;
        self.reached += reached;
        self.booked += booked;
        self.kills += kills;
        self.power_cuts += power_cuts;
        self.faults += faults;
        self.lost_to_power += lost_to_power;
        self.forgotten += forgotten;
        self.built += built;
        self.from_lease += from_lease;
        self.over = self.over.max(*over);
    }
}

pub struct World {
    pub bug: Option<Bug>,
    pub chance: Chance,
    pub setup: Setup,
    pub model: Mutex<Model>,
    pub figures: Mutex<Figures>,
    /// Of each node.
    pub broken: Vec<Arc<Broken>>,
    /// What the shared counters suffer.
    pub store: Trouble,
    trace: bool,
    failure: Mutex<Option<String>>,
    digest: AtomicU64,
    faults: AtomicU64,
    begun: Instant,
    /// No more trouble comes.
    is_peace: AtomicBool,
    upset_us: AtomicU64,
}

impl World {
    /// Within the runtime of the simulation, whose clock it keeps.
    pub fn new(seed: u64, kind: Kind, bug: Option<Bug>, trace: bool) -> Arc<Self> {
        let chance = Chance::new(seed);
        let setup = Setup::draw(&chance, kind);
        Arc::new(Self {
            bug,
            model: Mutex::new(Model::new(&setup)),
            chance,
            broken: setup.skews_us.iter().map(|_| Arc::default()).collect(),
            setup,
            figures: Mutex::default(),
            store: Trouble::default(),
            trace,
            failure: Mutex::default(),
            digest: AtomicU64::new(seed),
            faults: AtomicU64::new(0),
            begun: Instant::now(),
            is_peace: AtomicBool::new(false),
            upset_us: AtomicU64::new(0),
        })
    }

    pub fn is_shared(&self) -> bool {
        self.setup.kind == Kind::Many
    }

    /// Tells what happens, where a seed is looked at.
    pub fn note(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>10} us  {}", self.elapsed_us(), what());
        }
    }

    /// A promise is broken: the run ends.
    pub fn fail(&self, what: impl Into<String>) {
        let what = what.into();
        self.note(|| format!("BROKEN: {what}"));
        self.failure.lock().get_or_insert(what);
    }

    /// From now on everything works.
    pub fn make_peace(&self) {
        self.note(|| "peace".to_owned());
        self.is_peace.store(true, Relaxed);
        self.broken.iter().for_each(|broken| broken.mend());
        self.store.mend();
    }

    pub fn is_peace(&self) -> bool {
        self.is_peace.load(Relaxed)
    }

    pub fn has_failed(&self) -> bool {
        self.failure.lock().is_some()
    }

    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Makes the digest depend on what happened.
    pub fn mix(&self, what: u64) {
        self.digest.store(mixed(self.digest.load(Relaxed) ^ what), Relaxed);
    }

    pub fn digest(&self) -> u64 {
        self.digest.load(Relaxed)
    }

    pub fn elapsed_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap()
    }

    /// Something happens that whoever uses the shared counters may feel for some seconds.
    pub fn upsets(&self) {
        self.upset_us.store(self.elapsed_us(), Relaxed);
    }

    /// Nothing upset them for so long.
    pub fn is_calm_for(&self, span: Duration) -> bool {
        let since_us = self.elapsed_us() - self.upset_us.load(Relaxed);
        since_us >= u64::try_from(span.as_micros()).unwrap()
    }

    /// Faults that were injected so far.
    pub fn faults(&self) -> u64 {
        self.faults.load(Relaxed)
    }

    pub fn count_fault(&self) {
        self.faults.fetch_add(1, Relaxed);
    }

    /// Goes on at once, after others, or a little later.
    pub async fn pause(&self) {
        match self.chance.below(4) {
            0 | 1 => {}
            2 => yielded().await,
            _ => sleep(Duration::from_millis(self.chance.between(1, 15))).await,
        }
    }
}

/// Lets others go first.
pub async fn yielded() {
    let mut was = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut was, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

impl Setup {
    fn draw(chance: &Chance, kind: Kind) -> Self {
        const SEGMENT_BYTES: u64 = 64 * 1024;
        let begins = chance.pick(&[
            "2026-11-24T10:00:00Z",
            "2026-11-24T23:59:59.5Z",
            "2026-11-30T23:59:59.7Z",
            "2026-12-01T00:10:00Z",
            "2027-01-01T00:00:00.2Z",
        ]);
        let disk_bytes = if chance.per_mille(250) { chance.between(3, 6) * SEGMENT_BYTES } else { u64::MAX };
        let is_many = kind == Kind::Many;
        let mut setup = Self {
            kind,
            strict: chance.per_mille(300),
            sync_interval_ms: chance.pick(&[5, 20, 50, 50]),
            disk_bytes,
            fat: chance.per_mille(300),
            month_max: chance.between(2, 30),
            day_max: chance.between(2, 20),
            begins: begins.parse().unwrap(),
            trouble: chance.pick(&[0, 100, 300, 600]),
            disk_fails: chance.per_mille(500),
            clock_jumps: chance.per_mille(300),
            kills: true,
            skews_us: vec![0],
            leases: false,
            on_counters_down: OnCountersDown::Refuse,
            loss: 0,
            plans_change: false,
            budgets: None,
        };
        if is_many {
            let nodes = chance.pick(&[1, 2, 2, 3, 3, 4]);
            let furthest = chance.pick(&[0, 1_000_000, 300_000_000]);
            setup.skews_us = (0..nodes)
                .map(|_| i64::try_from(chance.between(0, 2 * furthest)).unwrap() - i64::try_from(furthest).unwrap())
                .collect();
            setup.sync_interval_ms = 50;
            setup.kills = chance.per_mille(700);
            setup.leases = chance.per_mille(600);
            if setup.leases && chance.per_mille(500) {
                (setup.month_max, setup.day_max) = (chance.between(20, 60), chance.between(20, 40));
            }
            if chance.per_mille(250) {
                setup.on_counters_down = OnCountersDown::Lease;
            }
            setup.loss = chance.pick(&[0, 0, 0, 20, 150]);
            setup.plans_change = chance.per_mille(400);
        }
        setup.budgets = chance.per_mille(400).then(|| Budgets::draw(chance));
        if setup.budgets.is_some() && chance.per_mille(700) {
            // Money is short before chats are.
            (setup.month_max, setup.day_max) = (chance.between(30, 90), chance.between(30, 90));
        }
        setup
    }
}
