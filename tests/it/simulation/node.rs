//! One gateway of the simulation, over all its lives: whether it lives and when it dies, how its clock goes, and what around
//! it is out of order.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tollgate::domain::ids::EventId;
use tollgate::domain::time::Micros;

use super::executor::{self, Role};
use super::world::World;

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
    /// Nothing goes to the shared counters, and nothing comes from there.
    pub cut_off: AtomicBool,
}

pub struct Node {
    pub world: Arc<World>,
    pub number: usize,
    pub broken: Arc<Broken>,
    /// The process was buried or ended.
    pub changed: Notify,
    /// The events that the ledger had when it was last asked how tenants stand.
    pub read: Mutex<BTreeSet<EventId>>,
    life: AtomicU32,
    dead: AtomicBool,
    countdowns: [AtomicI64; 3],
    disk_ops: AtomicU64,
    /// Beside the true time.
    clock_offset_us: AtomicI64,
    skew_us: i64,
}

const NEVER: i64 = i64::MAX;

/// What is everybody's.
impl Deref for Node {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl Node {
    pub fn new(world: &Arc<World>, number: usize) -> Arc<Self> {
        let skew_us = world.setup.skews_us.get(number).copied().unwrap_or_default();
        Arc::new(Self {
            world: world.clone(),
            number,
            broken: world.broken[number].clone(),
            changed: Notify::new(),
            read: Mutex::default(),
            life: AtomicU32::new(0),
            dead: AtomicBool::new(false),
            countdowns: [const { AtomicI64::new(NEVER) }; 3],
            disk_ops: AtomicU64::new(0),
            clock_offset_us: AtomicI64::new(skew_us),
            skew_us,
        })
    }

    /// Tells what happens, where a seed is looked at.
    pub fn note(&self, what: impl FnOnce() -> String) {
        self.world.note(|| format!("node {} life {}  {}", self.number, self.life(), what()));
    }

    pub fn injected(&self, what: &str) {
        self.count_fault();
        self.note(|| format!("fault: {what}"));
    }

    pub fn wall_clock(&self) -> Micros {
        let elapsed = i64::try_from(self.elapsed_us()).unwrap();
        Micros(self.setup.begins.0 + elapsed + self.clock_offset_us.load(Relaxed))
    }

    /// Somebody sets the clock so many seconds beside where it was at first.
    pub fn turn_clock(&self, seconds: i64) {
        self.clock_offset_us.store(self.skew_us + seconds * 1_000_000, Relaxed);
        self.note(|| format!("the clock is set {seconds} s aside, to {}", self.wall_clock()));
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

    /// Which of its calls is polled now.
    pub fn calling(&self) -> Option<usize> {
        match executor::current() {
            Some(Role::Call(node, number)) if node == self.number => Some(number),
            _ => None,
        }
    }
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
            cut_off,
        } = self;
        let of_disk = [disk_full, writes, syncs, reads, disk_small];
        for flag in of_disk.into_iter().chain([ledger_down, ledger_silent, acks_lost, counters, poison, cut_off]) {
            flag.store(false, Relaxed);
        }
    }
}
