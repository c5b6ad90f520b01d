//! Shared counters in memory, and the way there: messages are late, lost, done without an answer, or not answered at all.
//! Nothing is done once the time is over that it was asked to be done within. The store forgets, stands still, is away, or
//! takes nothing in.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tollgate::adapters::memory_shared::MemoryShared;
use tollgate::domain::ids::TenantId;
use tollgate::domain::time::{Micros, Window};
use tollgate::ports::BoxFuture;
use tollgate::ports::clock::Clock;
use tollgate::ports::counters::{CounterKey, CountersUnavailable};
use tollgate::ports::shared::{
    Ask, Beat, CallState, ClaimError, Count, Finish, Held, Joined, Joining, LeaseAsk, Listing, Look, NodeId, Note,
    Noted, Noting, Part, Pulse, SharedCounters,
};

use super::bugs::Bug;
use super::executor::{Role, spawn};
use super::model::TENANTS;
use super::node::Node;
use super::ports::without_money;
use super::tally::{SILENT_US, Way};
use super::world::World;

/// A message that reads has so long.
const PATIENCE: Duration = Duration::from_secs(2);

/// A node that was silent until so long ago may still be missing where counters are opened: whoever opens them heard of the
/// others before it read the ledger.
const SILENT_UNTIL_US: u64 = 4_000_000;

/// What the store suffers now.
#[derive(Debug, Default)]
pub struct Trouble {
    /// Errors at once.
    pub down: AtomicBool,
    /// It stands still.
    pub silent: AtomicBool,
    /// It takes nothing in.
    pub read_only: AtomicBool,
    /// Messages take long.
    pub slow: AtomicBool,
}

impl Trouble {
    pub fn mend(&self) {
        let Self { down, silent, read_only, slow } = self;
        [down, silent, read_only, slow].into_iter().for_each(|flag| flag.store(false, Relaxed));
    }
}

/// The store, which all nodes share.
pub struct Store {
    world: Arc<World>,
    nodes: Vec<Arc<Node>>,
    memory: MemoryShared,
    heard: Vec<Heard>,
}

/// What the world knows of a node's way to the store.
#[derive(Default)]
struct Heard {
    beat_us: AtomicU64,
    silent_until_us: AtomicU64,
    trouble_us: AtomicU64,
}

struct StoreClock(Arc<World>);

impl Clock for StoreClock {
    fn now(&self) -> Micros {
        self.0.setup.begins
    }

    fn monotonic_us(&self) -> u64 {
        self.0.elapsed_us()
    }

    fn random(&self) -> u128 {
        0
    }
}

impl Store {
    pub fn new(world: &Arc<World>, nodes: &[Arc<Node>]) -> Arc<Self> {
        let memory = MemoryShared::new(Arc::new(StoreClock(world.clone())));
        let heard = nodes.iter().map(|_| Heard::default()).collect();
        Arc::new(Self { world: world.clone(), nodes: nodes.to_vec(), memory, heard })
    }

    /// The way there of one node.
    pub fn of_node(self: &Arc<Self>, node: &Arc<Node>) -> Arc<SimWire> {
        // A process that begins is not silent yet.
        self.heard[node.number].beat_us.store(self.world.elapsed_us(), Relaxed);
        Arc::new(SimWire { store: self.clone(), node: node.clone() })
    }

    /// Everything is lost, or one tenant.
    pub fn forget(&self, tenant: Option<usize>) {
        let world = &self.world;
        world.count_fault();
        world.upsets();
        world.note(|| format!("fault: the store forgets {}", tenant.map_or("all", |tenant| TENANTS[tenant])));
        world.figures.lock().forgotten += 1;
        match tenant {
            None => self.memory.forget(),
            Some(tenant) => self.memory.forget_tenant(&TENANTS[tenant].parse().unwrap()),
        }
        world.model.lock().is_forgotten(tenant);
    }

    /// How a counter stands; `None` where its tenant is not open.
    pub fn count(&self, key: &CounterKey) -> Option<Count> {
        let read = self.memory.read(&key.tenant, std::slice::from_ref(key)).now_or_never().unwrap().unwrap();
        read.map(|counts| counts[0])
    }

    /// When a node's way here last had trouble.
    pub fn trouble_us(&self, node: &Node) -> u64 {
        self.heard[node.number].trouble_us.load(Relaxed)
    }

    fn ways(&self) -> Vec<Way> {
        let now_us = self.world.elapsed_us();
        let way = |heard: &Heard| Way {
            is_silent: now_us - heard.beat_us.load(Relaxed) > SILENT_US
                || now_us < heard.silent_until_us.load(Relaxed) + SILENT_UNTIL_US,
            trouble_us: heard.trouble_us.load(Relaxed),
        };
        self.heard.iter().map(way).collect()
    }

    fn checked(&self, checked: Result<(), String>) {
        if let Err(wrong) = checked {
            self.world.fail(wrong);
        }
    }

    fn hold(&self, ask: &Ask<'_>) -> Held {
        let lease = ask.lease.map(|lease| match self.world.bug {
            Some(Bug::LeasesNeverEnd) => LeaseAsk { lasts: Duration::from_secs(86_400), ..lease },
            _ => lease,
        });
        let little = without_money(ask.claims);
        let claims = if self.world.bug == Some(Bug::MoneyNotHeld) { &little } else { ask.claims };
        let held = now(self.memory.hold(&Ask { lease, claims, ..*ask }));
        self.world.note(|| format!("{ask:?}: {held:?}"));
        let Held::Taken { epoch, counts, .. } = &held else { return held };
        let mut model = self.world.model.lock();
        let was_listed = model.call_of(ask.id).is_some_and(|call| call.shared.is_counted);
        let amounts: Vec<_> = ask.claims.iter().map(|claim| (claim.counter.clone(), claim.amount)).collect();
        model.is_listed(ask.id, &amounts);
        let taken = model.has_taken(ask.id, ask.claims);
        self.checked(taken);
        let tenant = place(ask.tenant);
        for (claim, count) in ask.claims.iter().zip(counts) {
            let window = usize::from(claim.counter.period.window() == Window::Day);
            let counted = count.booked + count.settled + count.held + count.leased;
            let admitted = model.has_admitted(
                (tenant, window, claim.counter.period),
                counted,
                &self.ways(),
                self.world.elapsed_us(),
            );
            self.checked(admitted);
            self.checked(model.has_room(claim, counted, &self.ways(), self.world.elapsed_us()));
            if !was_listed && claim.max.is_some_and(|max| counted > max) {
                self.world.fail(format!("call {} is taken with {count:?} for {claim:?}", ask.id));
            }
        }
        if self.world.bug == Some(Bug::StoreLosesAHold) && self.world.chance.per_mille(100) {
            let amounts = Vec::new();
            let gone = Note { id: ask.id, state: CallState::Gone, amounts, listing: Listing::Known };
            now(self.memory.note(&Noting {
                member: ask.member,
                tenant: ask.tenant,
                epoch: *epoch,
                notes: &[gone],
                lease_left: None,
                within: ask.within,
            }));
        }
        held
    }

    fn note(&self, noting: &Noting<'_>) -> Noted {
        // A node that is dead gives nothing back; few stories have one that stays dead.
        let is_kept = self.world.bug == Some(Bug::LeasesNeverEnd);
        let lease_left = noting.lease_left.filter(|_| !is_kept);
        let kept: Vec<Note> = noting.notes.iter().map(|note| self.kept(note)).collect();
        let notes = if self.world.bug == Some(Bug::DifferenceIsKept) { &kept } else { noting.notes };
        let noted = now(self.memory.note(&Noting { lease_left, notes, ..*noting }));
        self.world.note(|| format!("{noting:?}: {noted:?}"));
        if noted == Noted::Done {
            let mut model = self.world.model.lock();
            for note in noting.notes {
                match note.amounts.iter().any(|(_, amount)| *amount > 0) && note.state != CallState::Gone {
                    true => model.is_listed(note.id, &note.amounts),
                    false => model.is_given_back(note.id),
                }
            }
        }
        noted
    }

    /// A call that is over, as if it had used all that it claimed.
    fn kept(&self, note: &Note) -> Note {
        let mut model = self.world.model.lock();
        let claims = model.call_of(note.id).map_or(&[][..], |call| &call.claims);
        let claimed = |(counter, amount): &(CounterKey, u64)| {
            let claim = claims.iter().find(|claim| claim.counter == *counter);
            (counter.clone(), claim.map_or(*amount, |claim| claim.amount))
        };
        Note { amounts: note.amounts.iter().map(claimed).collect(), ..note.clone() }
    }

    fn join(&self, joining: &Joining<'_>) -> Joined {
        let joined = now(self.memory.join(joining));
        let Joining { member, tenant, calls, is_first, is_forced, .. } = joining;
        self.world.note(|| format!("{member:?} joins {tenant} ({is_forced}), with {} calls: {joined:?}", calls.len()));
        if matches!(joined, Joined::Building(_)) {
            let mut model = self.world.model.lock();
            // What it had of the node before, it has no more.
            if let Some(node) = self.nodes.iter().position(|node| id_of(node) == member.node).filter(|_| *is_first) {
                model.is_forgotten_of(node, place(tenant));
            }
            joining.calls.iter().for_each(|note| model.is_listed(note.id, &note.amounts));
        }
        joined
    }

    fn look(&self, node: NodeId, tenant: &TenantId) -> Look {
        let mut look = now(self.memory.look(node, tenant));
        self.world.note(|| format!("{node} looks at {tenant}: {look:?}"));
        if let (Some(Bug::JoinsNotWaitedFor), Look::Building { joined, .. }) = (self.world.bug, &mut look) {
            *joined = self.nodes.iter().map(|node| id_of(node)).collect();
        }
        look
    }

    fn finish(&self, node: usize, finish: &Finish<'_>) -> bool {
        let twice: Vec<_> = finish.sums.iter().map(|(key, sum)| (key.clone(), 2 * sum)).collect();
        let finish = &match self.world.bug {
            Some(Bug::SeededTwice) => Finish { sums: &twice, ..*finish },
            Some(Bug::FinishIgnoresKnown) => Finish { known: &[], ..*finish },
            _ => *finish,
        };
        let finished = now(self.memory.finish(finish));
        if finished {
            self.world.note(|| format!("{} is opened by node {node}: {:?}", finish.tenant, finish.sums));
            self.world.figures.lock().built += 1;
            let opened = self.world.model.lock().is_opened(
                place(finish.tenant),
                &self.nodes[node].read.lock(),
                &self.ways(),
                self.world.elapsed_us(),
            );
            self.checked(opened);
        }
        finished
    }

    fn beat(&self, node: usize, beat: &Beat<'_>) -> Pulse {
        let (now_us, heard) = (self.world.elapsed_us(), &self.heard[node]);
        if now_us - heard.beat_us.swap(now_us, Relaxed) > SILENT_US {
            heard.silent_until_us.store(now_us, Relaxed);
        }
        now(self.memory.beat(beat))
    }
}

fn now<T, E: std::fmt::Debug>(future: BoxFuture<'_, Result<T, E>>) -> T {
    future.now_or_never().expect("it is memory").unwrap()
}

fn place(tenant: &TenantId) -> usize {
    TENANTS.iter().position(|name| *name == tenant.as_str()).unwrap()
}

/// The name of a node among those that share.
pub fn id_of(node: &Node) -> NodeId {
    NodeId(node.number as u64 + 1)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Read,
    Write,
}

/// The way of one node to the store.
pub struct SimWire {
    store: Arc<Store>,
    node: Arc<Node>,
}

type Answer<'a, T> = BoxFuture<'a, Result<T, CountersUnavailable>>;

impl SimWire {
    /// A message and its answer. It is under way whether or not somebody waits for it.
    fn carry<'a, T: 'static + Send>(
        &self,
        does: Does,
        within: Option<Duration>,
        work: impl FnOnce(&Store) -> T + 'static,
    ) -> Answer<'a, T> {
        let (tell, told) = oneshot::channel();
        let way = Under { store: self.store.clone(), node: self.node.clone(), sent: Instant::now(), does, within };
        let [there, back] = [way.ms(), way.ms()];
        if there == 0 && !way.store.world.store.silent.load(Relaxed) {
            let done = way.arrives(work);
            let way_back = async move { way.comes_back(done, back, tell).await };
            if back == 0 {
                way_back.now_or_never();
            } else {
                spawn(Role::World, way_back);
            }
        } else {
            spawn(Role::World, async move {
                sleep(Duration::from_millis(there)).await;
                way.waits().await;
                let done = way.arrives(work);
                way.comes_back(done, back, tell).await;
            });
        }
        Box::pin(async move {
            match told.await {
                Ok(answer) => answer,
                // It never comes.
                Err(_) => pending().await,
            }
        })
    }
}

/// A message under way.
struct Under {
    store: Arc<Store>,
    node: Arc<Node>,
    sent: Instant,
    does: Does,
    within: Option<Duration>,
}

impl Under {
    fn ms(&self) -> u64 {
        let world = &self.store.world;
        if world.store.slow.load(Relaxed) {
            return world.chance.early_or_late(300);
        }
        match world.chance.below(100) {
            0..=59 => 0,
            60..=96 => world.chance.between(1, 4),
            97 | 98 => world.chance.between(5, 20),
            _ if world.setup.loss > 0 && !world.is_peace() => {
                self.suffers("a message takes long");
                world.chance.between(20, 700)
            }
            _ => world.chance.between(5, 20),
        }
    }

    fn suffers(&self, what: &str) {
        let world = &self.store.world;
        self.store.heard[self.node.number].trouble_us.store(world.elapsed_us(), Relaxed);
        world.upsets();
        self.node.injected(what);
    }

    async fn waits(&self) {
        while self.store.world.store.silent.load(Relaxed) {
            self.suffers("the store stands still");
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn is_lost(&self) -> bool {
        let world = &self.store.world;
        if self.node.broken.cut_off.load(Relaxed) {
            self.suffers("a node is cut off");
            return true;
        }
        let is_lost = !world.is_peace() && world.chance.per_mille(world.setup.loss);
        if is_lost {
            self.suffers("a message is lost");
        }
        is_lost
    }

    /// `None`: nobody hears of it.
    fn arrives<T>(&self, work: impl FnOnce(&Store) -> T) -> Option<Result<T, CountersUnavailable>> {
        let world = &self.store.world;
        let Trouble { down, read_only, slow, .. } = &world.store;
        if slow.load(Relaxed) {
            self.suffers("the store is slow");
        }
        let is_late = self.within.is_some_and(|within| self.sent.elapsed() >= within);
        if self.is_lost() || (is_late && world.bug != Some(Bug::LateMessageIsDone)) {
            return None;
        }
        if down.load(Relaxed) || (read_only.load(Relaxed) && self.does == Does::Write) {
            self.suffers("the store is away");
            return Some(Err(CountersUnavailable("away".to_owned())));
        }
        world.mix(world.elapsed_us());
        Some(Ok(work(&self.store)))
    }

    async fn comes_back<T>(
        &self,
        done: Option<Result<T, CountersUnavailable>>,
        ms: u64,
        tell: oneshot::Sender<Result<T, CountersUnavailable>>,
    ) {
        let Some(answer) = done else { return };
        if ms > 0 {
            sleep(Duration::from_millis(ms)).await;
        }
        if !self.is_lost() {
            // Whoever asked may have given up.
            drop(tell.send(answer));
        }
    }
}

impl SharedCounters for SimWire {
    fn claim<'a>(&'a self, ledger_id: &'a str) -> BoxFuture<'a, Result<(), ClaimError>> {
        self.store.memory.claim(ledger_id)
    }

    fn hold<'a>(&'a self, ask: &'a Ask<'a>) -> Answer<'a, Held> {
        let Ask { member, id, revision, counting, is_alone, lease, within, .. } = *ask;
        let (tenant, claims) = (ask.tenant.clone(), ask.claims.to_vec());
        self.carry(Does::Write, Some(within), move |store| {
            let (tenant, claims) = (&tenant, &claims);
            store.hold(&Ask { member, tenant, id, claims, revision, counting, is_alone, lease, within })
        })
    }

    fn note<'a>(&'a self, noting: &'a Noting<'a>) -> Answer<'a, Noted> {
        let Noting { member, epoch, lease_left, within, .. } = *noting;
        let (tenant, notes) = (noting.tenant.clone(), noting.notes.to_vec());
        self.carry(Does::Write, Some(within), move |store| {
            store.note(&Noting { member, tenant: &tenant, epoch, notes: &notes, lease_left, within })
        })
    }

    fn join<'a>(&'a self, joining: &'a Joining<'a>) -> Answer<'a, Joined> {
        let Joining { member, epoch, is_forced, floors, counting, is_first, is_last, within, .. } = *joining;
        let (tenant, calls) = (joining.tenant.clone(), joining.calls.to_vec());
        self.carry(Does::Write, Some(within), move |store| {
            let (tenant, calls) = (&tenant, &calls);
            let joining =
                Joining { member, tenant, epoch, is_forced, floors, counting, calls, is_first, is_last, within };
            store.join(&joining)
        })
    }

    fn look<'a>(&'a self, node: NodeId, tenant: &'a TenantId) -> Answer<'a, Look> {
        let tenant = tenant.clone();
        self.carry(Does::Write, None, move |store| store.look(node, &tenant))
    }

    fn sums<'a>(&'a self, part: &'a Part<'a>) -> Answer<'a, bool> {
        let Part { epoch, joins, writer, is_first, within, .. } = *part;
        let (tenant, sums) = (part.tenant.clone(), part.sums.to_vec());
        self.carry(Does::Write, Some(within), move |store| {
            let (tenant, sums) = (&tenant, &sums);
            now(store.memory.sums(&Part { tenant, epoch, joins, writer, is_first, sums, within }))
        })
    }

    fn finish<'a>(&'a self, finish: &'a Finish<'a>) -> Answer<'a, bool> {
        let Finish { epoch, joins, writer, within, .. } = *finish;
        let (tenant, sums, known) = (finish.tenant.clone(), finish.sums.to_vec(), finish.known.to_vec());
        let node = self.node.number;
        self.carry(Does::Write, Some(within), move |store| {
            let (tenant, sums, known) = (&tenant, &sums, &known);
            store.finish(node, &Finish { tenant, epoch, joins, writer, sums, known, within })
        })
    }

    fn read<'a>(&'a self, tenant: &'a TenantId, counters: &'a [CounterKey]) -> Answer<'a, Option<Vec<Count>>> {
        let (tenant, counters) = (tenant.clone(), counters.to_vec());
        self.carry(Does::Read, None, move |store| now(store.memory.read(&tenant, &counters)))
    }

    fn list(&self) -> Answer<'_, Vec<(CounterKey, Count)>> {
        let listed = self.carry(Does::Read, None, |store| now(store.memory.list()));
        // It is many messages, each of which has so long.
        Box::pin(async { timeout(PATIENCE, listed).await.unwrap_or(Err(CountersUnavailable("no answer".to_owned()))) })
    }

    fn changed<'a>(&'a self, tenant: &'a TenantId, revision: i64, within: Duration) -> Answer<'a, ()> {
        let tenant = tenant.clone();
        self.carry(Does::Write, Some(within), move |store| now(store.memory.changed(&tenant, revision, within)))
    }

    fn beat<'a>(&'a self, beat: &'a Beat<'a>) -> Answer<'a, Pulse> {
        let Beat { member, revision, is_last, within, .. } = *beat;
        let (wanted, done, node) = (beat.wanted.to_vec(), beat.done.to_vec(), self.node.number);
        self.carry(Does::Write, Some(within), move |store| {
            store.beat(node, &Beat { member, revision, wanted: &wanted, done: &done, is_last, within })
        })
    }
}
