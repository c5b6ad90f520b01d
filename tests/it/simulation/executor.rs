//! Runs the tasks of a simulation by hand: chance decides who is polled next, a poll is a step, and between two steps a
//! process may be killed.
//!
//! It stands on a tokio runtime of its own, of one thread and with a paused clock: the code under test waits with tokio's
//! timers, which turn by themselves when nobody is ready, and always in the same order, as nothing else runs there.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

use super::node::Node;
use super::story;
use super::world::World;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// What a task belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The world around the nodes: it outlives a kill.
    World,
    /// The process of a node.
    Process(usize),
    /// A node's call, and its number.
    Call(usize, usize),
    /// A node's thread that syncs its journal.
    Maintainer(usize),
}

impl Role {
    /// The node whose death ends it.
    fn node(self) -> Option<usize> {
        match self {
            Self::World => None,
            Self::Process(node) | Self::Call(node, _) | Self::Maintainer(node) => Some(node),
        }
    }
}

/// Names a task while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskId(u64);

/// The panic of a call, to tell it from those of failing code.
pub struct Planted;

struct Slot {
    id: TaskId,
    role: Role,
    /// `None` while it is polled.
    task: Option<Task>,
    waker: Waker,
    ready: Arc<Ready>,
}

struct Ready {
    is: AtomicBool,
    root: Arc<Mutex<Option<Waker>>>,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.is.store(true, Ordering::Relaxed);
        if let Some(root) = &*self.root.lock() {
            root.wake_by_ref();
        }
    }
}

pub struct Executor {
    world: Arc<World>,
    nodes: Vec<Arc<Node>>,
    slots: RefCell<Vec<Slot>>,
    root: Arc<Mutex<Option<Waker>>>,
    next_id: Cell<u64>,
    current: Cell<Option<Role>>,
    /// How many polls are on the stack.
    depth: Cell<u32>,
}

thread_local! {
    static RUNNING: RefCell<Option<Rc<Executor>>> = const { RefCell::new(None) };
}

fn running() -> Option<Rc<Executor>> {
    RUNNING.with_borrow(Clone::clone)
}

/// Adds a task to the simulation that runs on this thread.
pub fn spawn(role: Role, task: impl Future<Output = ()> + 'static) -> TaskId {
    running().expect("a simulation runs").add(role, Box::pin(task))
}

/// Drops a task where it stands. `false`: it is over already.
pub fn cancel(id: TaskId) -> bool {
    running().expect("a simulation runs").remove(|slot| slot.id == id) > 0
}

/// Who is polled now.
pub fn current() -> Option<Role> {
    running().and_then(|executor| executor.current.get())
}

/// Steps of others in the middle of one of the maintainer's, which in truth is a thread of its own.
pub fn interlude(steps: u64) {
    let Some(executor) = running() else { return };
    let Some(Role::Maintainer(node)) = executor.current.get() else { return };
    for _ in 0..steps {
        if executor.nodes[node].is_dead() || !executor.step() {
            return;
        }
    }
}

/// Runs the story of a world and whatever it spawns, until it is over or the world has failed. The world is made within
/// the runtime, whose clock it keeps.
pub fn run(make: impl FnOnce() -> Arc<World>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let world = {
        let _entered = runtime.enter();
        make()
    };
    let nodes: Vec<Arc<Node>> = (0..world.setup.skews_us.len()).map(|number| Node::new(&world, number)).collect();
    let executor = Rc::new(Executor {
        world: world.clone(),
        nodes: nodes.clone(),
        slots: RefCell::default(),
        root: Arc::default(),
        next_id: Cell::new(0),
        current: Cell::new(None),
        depth: Cell::new(0),
    });
    RUNNING.set(Some(executor.clone()));
    let ended = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(tokio::task::unconstrained(async {
            let main = executor.add(Role::World, Box::pin(story::tell(world.clone(), nodes)));
            poll_fn(|context| executor.poll(context, main)).await;
            // What is left is dropped where it may still ask for the time.
            executor.remove(|_| true);
        }));
    }));
    RUNNING.set(None);
    if let Err(panic) = ended {
        // Tasks hold each other by this executor.
        std::mem::take(&mut *executor.slots.borrow_mut()).into_iter().for_each(std::mem::forget);
        resume_unwind(panic);
    }
}

impl Executor {
    fn add(&self, role: Role, task: Task) -> TaskId {
        let id = TaskId(self.next_id.get());
        self.next_id.set(id.0 + 1);
        let ready = Arc::new(Ready { is: AtomicBool::new(true), root: self.root.clone() });
        let waker = Waker::from(ready.clone());
        self.slots.borrow_mut().push(Slot { id, role, task: Some(task), waker, ready });
        id
    }

    fn remove(&self, which: impl Fn(&Slot) -> bool) -> usize {
        let mut removed = Vec::new();
        {
            let mut slots = self.slots.borrow_mut();
            let mut at = 0;
            while at < slots.len() {
                // One that is on the stack goes when its poll returns.
                if which(&slots[at]) && slots[at].task.is_some() {
                    removed.push(slots.remove(at));
                } else {
                    at += 1;
                }
            }
        }
        let count = removed.len();
        for slot in removed {
            let before = self.current.replace(Some(slot.role));
            drop(slot);
            self.current.set(before);
        }
        count
    }

    fn poll(&self, context: &mut Context<'_>, main: TaskId) -> Poll<()> {
        *self.root.lock() = Some(context.waker().clone());
        loop {
            if self.world.has_failed() || !self.slots.borrow().iter().any(|slot| slot.id == main) {
                return Poll::Ready(());
            }
            if !self.step() {
                return Poll::Pending;
            }
        }
    }

    /// Polls one of those that are ready. `false`: nobody is.
    fn step(&self) -> bool {
        let (id, role, mut task, waker) = {
            let mut slots = self.slots.borrow_mut();
            let is_ready = |slot: &Slot| slot.task.is_some() && slot.ready.is.load(Ordering::Relaxed);
            let ready = slots.iter().filter(|slot| is_ready(slot)).count() as u64;
            if ready == 0 {
                return false;
            }
            let nth = usize::try_from(self.world.chance.below(ready)).unwrap();
            let slot = slots.iter_mut().filter(|slot| is_ready(slot)).nth(nth).unwrap();
            slot.ready.is.store(false, Ordering::Relaxed);
            (slot.id, slot.role, slot.task.take().unwrap(), slot.waker.clone())
        };
        self.world.mix(id.0);
        let node = role.node().map(|node| &self.nodes[node]);
        if let Some(node) = node {
            node.about_to_poll();
        }
        let before = self.current.replace(Some(role));
        self.depth.set(self.depth.get() + 1);
        // A process that was killed before this step does not take it.
        let polled = if node.is_some_and(|node| node.is_dead()) {
            Ok(Poll::Pending)
        } else {
            catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(&mut Context::from_waker(&waker))))
        };
        let is_over = match polled {
            Ok(poll) => poll.is_ready(),
            Err(panic) if panic.is::<Planted>() => true,
            Err(panic) => {
                self.depth.set(self.depth.get() - 1);
                resume_unwind(panic);
            }
        };
        {
            let mut slots = self.slots.borrow_mut();
            let at = slots.iter().position(|slot| slot.id == id).unwrap();
            match is_over {
                true => drop(slots.remove(at)),
                false => slots[at].task = Some(task),
            }
        }
        self.current.set(before);
        self.depth.set(self.depth.get() - 1);
        for node in self.nodes.iter().filter(|node| self.depth.get() == 0 && node.is_dead()) {
            if self.remove(|slot| slot.role.node() == Some(node.number)) > 0 {
                node.buried();
            }
        }
        true
    }
}
