//! What a simulation consists of beside the process: its seed and chance, what is broken now, when the process dies, and
//! the model of what must be true.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tollgate::domain::time::Micros;

use super::bugs::Bug;
use super::chance::{Chance, mixed};
use super::executor::{self, Role};
use super::model::Model;

/// Where the process dies. Each counts down; none is reached by itself.
#[derive(Debug, Clone, Copy)]
pub enum Death {
    /// Before a step.
    Step,
    /// In an operation of the disk.
    DiskOp,
    /// Right before or right after a commit of the ledger.
    Commit,
}

/// What a seed decides for the whole run.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
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
}

/// What is out of order now.
#[derive(Debug, Default)]
pub struct Broken {
    pub disk_full: AtomicBool,
    pub writes: AtomicBool,
    pub syncs: AtomicBool,
    pub reads: AtomicBool,
    pub ledger_down: AtomicBool,
    pub ledger_silent: AtomicBool,
    pub acks_lost: AtomicBool,
    pub counters: AtomicBool,
    /// The disk has no more room than the setup says.
    pub disk_small: AtomicBool,
    /// Events that the ledger refuses for good.
    pub poison: AtomicBool,
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
}

impl Figures {
    pub fn add(&mut self, other: &Self) {
        let Self { calls, reached, booked, kills, power_cuts, faults, lost_to_power } = other;
        self.calls += calls;
        self.reached += reached;
        self.booked += booked;
        self.kills += kills;
        self.power_cuts += power_cuts;
        self.faults += faults;
        self.lost_to_power += lost_to_power;
    }
}

pub struct World {
    pub bug: Option<Bug>,
    pub chance: Chance,
    pub setup: Setup,
    pub broken: Broken,
    pub model: Mutex<Model>,
    pub figures: Mutex<Figures>,
    /// The process was buried or ended.
    pub changed: Notify,
    trace: bool,
    failure: Mutex<Option<String>>,
    digest: AtomicU64,
    life: AtomicU32,
    dead: AtomicBool,
    countdowns: [AtomicI64; 3],
    disk_ops: AtomicU64,
    faults: AtomicU64,
    begun: Instant,
    clock_offset_us: AtomicI64,
    /// No more trouble comes.
    pub is_peace: AtomicBool,
}

const NEVER: i64 = i64::MAX;

impl World {
    /// Within the runtime of the simulation, whose clock it keeps.
    pub fn new(seed: u64, bug: Option<Bug>, trace: bool) -> Arc<Self> {
        let chance = Chance::new(seed);
        let setup = Setup::draw(&chance);
        Arc::new(Self {
            bug,
            model: Mutex::new(Model::new(&setup)),
            chance,
            setup,
            broken: Broken::default(),
            figures: Mutex::default(),
            changed: Notify::new(),
            trace,
            failure: Mutex::default(),
            digest: AtomicU64::new(seed),
            life: AtomicU32::new(0),
            dead: AtomicBool::new(false),
            countdowns: [const { AtomicI64::new(NEVER) }; 3],
            disk_ops: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            begun: Instant::now(),
            clock_offset_us: AtomicI64::new(0),
            is_peace: AtomicBool::new(false),
        })
    }

    /// Tells what happens, where a seed is looked at.
    pub fn note(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>10} us  life {}  {}", self.elapsed_us(), self.life(), what());
        }
    }

    /// A promise is broken: the run ends.
    pub fn fail(&self, what: impl Into<String>) {
        let what = what.into();
        self.note(|| format!("BROKEN: {what}"));
        self.failure.lock().get_or_insert(what);
        self.changed.notify_one();
    }

    /// From now on everything works.
    pub fn make_peace(&self) {
        self.note(|| "peace".to_owned());
        self.is_peace.store(true, Relaxed);
        self.broken.mend();
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

    pub fn wall_clock(&self) -> Micros {
        let elapsed = i64::try_from(self.elapsed_us()).unwrap();
        Micros(self.setup.begins.0 + elapsed + self.clock_offset_us.load(Relaxed))
    }

    /// Somebody sets the clock so many seconds beside the truth.
    pub fn turn_clock(&self, seconds: i64) {
        self.clock_offset_us.store(seconds * 1_000_000, Relaxed);
        self.note(|| format!("the clock is set {seconds} s beside the truth, to {}", self.wall_clock()));
    }

    pub fn life(&self) -> u32 {
        self.life.load(Relaxed)
    }

    /// A process may be begun.
    pub fn revive(&self) {
        self.dead.store(false, Relaxed);
    }

    pub fn begin_life(&self) -> u32 {
        self.life.fetch_add(1, Relaxed) + 1
    }

    /// Whether the process of that life can still do anything.
    pub fn is_alive(&self, life: u32) -> bool {
        !self.is_dead() && self.life() == life
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Relaxed)
    }

    /// The process ends here, whatever it is doing.
    pub fn die(&self) {
        for countdown in &self.countdowns {
            countdown.store(NEVER, Relaxed);
        }
        if !self.dead.swap(true, Relaxed) {
            self.note(|| format!("killed at disk operation {}", self.disk_ops()));
        }
    }

    /// The executor dropped all that was of the process.
    pub fn buried(&self) {
        self.changed.notify_one();
    }

    pub fn die_after(&self, death: Death, count: u64) {
        self.countdowns[death as usize].store(i64::try_from(count).unwrap(), Relaxed);
    }

    /// Whether the process dies now.
    pub fn is_time_to_die(&self, death: Death) -> bool {
        let countdown = &self.countdowns[death as usize];
        let left = countdown.load(Relaxed);
        if left == NEVER {
            return false;
        }
        countdown.store(left - 1, Relaxed);
        left <= 1
    }

    pub fn about_to_poll(&self) {
        if self.is_time_to_die(Death::Step) {
            self.die();
        }
    }

    /// The number of the next operation of the disk.
    pub fn disk_ops(&self) -> u64 {
        self.disk_ops.load(Relaxed)
    }

    pub fn count_disk_op(&self) -> u64 {
        self.disk_ops.fetch_add(1, Relaxed)
    }

    /// Faults that were injected so far.
    pub fn faults(&self) -> u64 {
        self.faults.load(Relaxed)
    }

    pub fn injected(&self, what: &str) {
        self.faults.fetch_add(1, Relaxed);
        self.note(|| format!("fault: {what}"));
    }

    /// Goes on at once, after others, or a little later.
    pub async fn pause(&self) {
        match self.chance.below(4) {
            0 | 1 => {}
            2 => yielded().await,
            _ => sleep(Duration::from_millis(self.chance.between(1, 15))).await,
        }
    }

    /// Which call is polled now.
    pub fn calling(&self) -> Option<usize> {
        match executor::current() {
            Some(Role::Call(number)) => Some(number),
            _ => None,
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

impl Broken {
    /// Everything works again, and an event that was refused is taken.
    pub fn mend(&self) {
        let Self {
            disk_full,
            writes,
            syncs,
            reads,
            ledger_down,
            ledger_silent,
            acks_lost,
            counters,
            disk_small,
            poison,
        } = self;
        for flag in
            [disk_full, writes, syncs, reads, ledger_down, ledger_silent, acks_lost, counters, disk_small, poison]
        {
            flag.store(false, Relaxed);
        }
    }
}

impl Setup {
    fn draw(chance: &Chance) -> Self {
        const SEGMENT_BYTES: u64 = 64 * 1024;
        let begins = chance.pick(&[
            "2026-11-24T10:00:00Z",
            "2026-11-24T23:59:59.5Z",
            "2026-11-30T23:59:59.7Z",
            "2026-12-01T00:10:00Z",
            "2027-01-01T00:00:00.2Z",
        ]);
        let disk_bytes = if chance.per_mille(250) { chance.between(3, 6) * SEGMENT_BYTES } else { u64::MAX };
        Self {
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
        }
    }
}
