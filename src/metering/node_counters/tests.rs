//! Several nodes over one store that forgets, hangs and comes back, on a clock that is turned by hand.

use std::sync::atomic::AtomicU64;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::adapters::memory_shared::MemoryShared;
use crate::domain::plan::{Metric, Subject};
use crate::domain::time::Micros;
use crate::metering::fakes::{FakeStore, event, units};
use crate::ports::shared::{
    Beat, CallState, ClaimError, Count, Epoch, Finish, Joined, Joining, Listing, Look, NodeId, Note, Noted, Noting,
    Part,
};

struct TokioClock {
    began: Instant,
    random: AtomicU64,
}

impl Clock for TokioClock {
    fn now(&self) -> Micros {
        "2026-11-24T10:00:00Z".parse().unwrap()
    }

    fn monotonic_us(&self) -> u64 {
        // Not 0, which is no time.
        micros(self.began.elapsed()) + 1
    }

    fn random(&self) -> u128 {
        u128::from(self.random.fetch_add(1, Ordering::Relaxed))
    }
}

/// The store behind a wire: a message takes two milliseconds each way, and none comes back while it hangs.
struct Wire {
    store: MemoryShared,
    hangs: AtomicBool,
    holds: AtomicU64,
}

impl Wire {
    async fn go(&self) {
        sleep(Duration::from_millis(2)).await;
        while self.hangs.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(10)).await;
        }
    }
}

type Answer<'a, T> = BoxFuture<'a, Result<T, CountersUnavailable>>;

impl SharedCounters for Wire {
    fn claim<'a>(&'a self, ledger_id: &'a str) -> BoxFuture<'a, Result<(), ClaimError>> {
        self.store.claim(ledger_id)
    }

    fn hold<'a>(&'a self, ask: &'a Ask<'a>) -> Answer<'a, Held> {
        self.holds.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            self.go().await;
            let held = self.store.hold(ask).await;
            self.go().await;
            held
        })
    }

    fn note<'a>(&'a self, noting: &'a Noting<'a>) -> Answer<'a, Noted> {
        Box::pin(async move {
            self.go().await;
            let noted = self.store.note(noting).await;
            self.go().await;
            noted
        })
    }

    fn join<'a>(&'a self, joining: &'a Joining<'a>) -> Answer<'a, Joined> {
        Box::pin(async move {
            self.go().await;
            self.store.join(joining).await
        })
    }

    fn look<'a>(&'a self, node: NodeId, tenant: &'a TenantId) -> Answer<'a, Look> {
        Box::pin(async move {
            self.go().await;
            self.store.look(node, tenant).await
        })
    }

    fn sums<'a>(&'a self, part: &'a Part<'a>) -> BoxFuture<'a, Result<bool, CountersUnavailable>> {
        self.store.sums(part)
    }

    fn finish<'a>(&'a self, finish: &'a Finish<'a>) -> Answer<'a, bool> {
        Box::pin(async move {
            self.go().await;
            self.store.finish(finish).await
        })
    }

    fn read<'a>(&'a self, tenant: &'a TenantId, counters: &'a [CounterKey]) -> Answer<'a, Option<Vec<Count>>> {
        Box::pin(async move {
            self.go().await;
            self.store.read(tenant, counters).await
        })
    }

    fn list(&self) -> Answer<'_, Vec<(CounterKey, Count)>> {
        self.store.list()
    }

    fn changed<'a>(&'a self, tenant: &'a TenantId, revision: i64, within: Duration) -> Answer<'a, ()> {
        self.store.changed(tenant, revision, within)
    }

    fn beat<'a>(&'a self, beat: &'a Beat<'a>) -> Answer<'a, Pulse> {
        Box::pin(async move {
            self.go().await;
            self.store.beat(beat).await
        })
    }
}

struct Net {
    clock: Arc<TokioClock>,
    wire: Arc<Wire>,
    ledger: Arc<FakeStore>,
    leases: Option<Leases>,
    lives: AtomicU64,
}

/// One node and its tasks.
struct Node {
    counters: Arc<NodeCounters>,
    tasks: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

impl Net {
    fn new(leases: bool) -> Self {
        let clock = Arc::new(TokioClock { began: Instant::now(), random: AtomicU64::new(1) });
        let store = MemoryShared::new(clock.clone());
        let wire = Wire { store, hangs: AtomicBool::new(false), holds: AtomicU64::new(0) };
        let lasts = Duration::from_secs(3);
        Self {
            clock,
            wire: Arc::new(wire),
            ledger: Arc::new(FakeStore::default()),
            leases: leases.then_some(Leases { units_max: 64, lasts }),
            lives: AtomicU64::new(1),
        }
    }

    fn start(&self, node: u64) -> Node {
        self.start_with(node, &[])
    }

    fn start_with(&self, node: u64, left: &[UsageEvent]) -> Node {
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        let options = Options {
            member: Member { node: NodeId(node), life },
            call_budget: Duration::from_millis(50),
            leases: self.leases,
        };
        let outside = Outside {
            shared: self.wire.clone(),
            usage: self.ledger.clone(),
            tenants: self.ledger.clone(),
            snapshots: Arc::default(),
            clock: self.clock.clone(),
        };
        let counters = Arc::new(NodeCounters::new(options, outside));
        left.iter().for_each(|event| counters.adopt(event));
        let tasks = tokio::spawn({
            let counters = counters.clone();
            async move { counters.run().await }
        });
        Node { counters, tasks }
    }

    /// `n` calls at once, spread over the nodes; how many were admitted.
    async fn calls(&self, nodes: &[&Node], from: u64, n: u64, max: u64) -> Vec<u64> {
        let calls = (from..from + n).map(|call| {
            let node = nodes[usize::try_from(call).unwrap() % nodes.len()].counters.clone();
            tokio::spawn(async move { (call, held(&node, call, max).await) })
        });
        let mut admitted = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            let (call, is_held) = call.await.unwrap();
            admitted.extend(is_held.unwrap().then_some(call));
        }
        admitted
    }

    async fn standing(&self, node: &Node) -> Standing {
        node.counters.read(&[claims(0)[0].counter.clone()]).await.unwrap()[0]
    }
}

fn id(call: u64) -> EventId {
    EventId::new(1_764_000_000_000, u128::from(call) << 20)
}

fn claims(max: u64) -> [Claim; 2] {
    let now: Micros = "2026-11-24T10:00:00Z".parse().unwrap();
    [(Window::Month, Some(max)), (Window::Day, None)].map(|(window, max)| Claim {
        counter: CounterKey {
            tenant: "acme".parse().unwrap(),
            subject: Subject::Tenant,
            metric: Metric::Chats,
            period: window.period(now),
        },
        amount: 1,
        max,
    })
}

async fn held(counters: &NodeCounters, call: u64, max: u64) -> Result<bool, CountersUnavailable> {
    match counters.hold(id(call), &claims(max), Terms::default()).await? {
        HoldOutcome::Held(_) => Ok(true),
        HoldOutcome::Refused { .. } => Ok(false),
        HoldOutcome::Changed => panic!("changed"),
    }
}

fn booked_event(call: u64) -> UsageEvent {
    let event = event("acme", u128::from(call), "openai", "gpt-4o", "2026-11-24T10:00:00Z");
    UsageEvent { id: id(call), ..event }
}

fn settle(node: &Node, call: u64, used: u64) {
    let used: Vec<_> = claims(0).into_iter().map(|claim| (claim.counter, used)).collect();
    node.counters.settle(id(call), &claims(0), &used);
}

/// The ledger books a call of a node.
async fn book(net: &Net, node: &Node, call: u64) {
    let event = booked_event(call);
    net.ledger.append(std::slice::from_ref(&event)).await.unwrap();
    node.counters.booked(&[event]);
}

const EITHER: [bool; 2] = [false, true];

#[tokio::test(start_paused = true)]
async fn of_many_calls_on_three_nodes_exactly_as_many_as_fit_are_admitted() {
    for leases in EITHER {
        let net = Net::new(leases);
        let nodes = [net.start(1), net.start(2), net.start(3)];
        let all: Vec<&Node> = nodes.iter().collect();
        assert_eq!(net.calls(&all, 0, 560, 500).await.len(), 500, "leases {leases}");
        assert_eq!(net.standing(&nodes[0]).await, Standing { used: 0, held: 500 }, "leases {leases}");
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_lease_most_calls_ask_nobody() {
    let net = Net::new(true);
    let node = net.start(1);
    assert!(held(&node.counters, 0, 100_000).await.unwrap());
    settle(&node, 0, 1);
    let before = net.wire.holds.load(Ordering::Relaxed);
    for call in 1..1_000 {
        assert!(held(&node.counters, call, 100_000).await.unwrap());
        settle(&node, call, 1);
    }
    assert_eq!(net.standing(&node).await, Standing { used: 1_000, held: 0 });
    let asked = net.wire.holds.load(Ordering::Relaxed) - before;
    assert!(asked < 30, "{asked} of 1,000 calls asked");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_back_makes_room_everywhere() {
    for leases in EITHER {
        let net = Net::new(leases);
        let nodes = [net.start(1), net.start(2)];
        for call in 0..5 {
            assert!(held(&nodes[0].counters, call, 5).await.unwrap(), "leases {leases}");
        }
        assert!(!held(&nodes[1].counters, 5, 5).await.unwrap(), "leases {leases}");
        settle(&nodes[0], 0, 0);
        settle(&nodes[0], 1, 1);
        sleep(Duration::from_millis(100)).await;
        assert!(held(&nodes[1].counters, 6, 5).await.unwrap(), "leases {leases}");
        assert_eq!(net.standing(&nodes[0]).await, Standing { used: 1, held: 4 }, "leases {leases}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_one_node_comes_back_before_another_is_refused() {
    let net = Net::new(true);
    let nodes = [net.start(1), net.start(2)];
    assert!(held(&nodes[0].counters, 0, 100).await.unwrap());
    assert!(nodes[0].counters.health().leased > 0);
    assert_eq!(net.calls(&[&nodes[1]], 1, 110, 100).await.len(), 99);
}

#[tokio::test(start_paused = true)]
async fn calls_that_wait_for_a_tenant_in_building_ask_seldom() {
    let net = Net::new(true);
    let node = net.start(1);
    let began = Instant::now();
    assert_eq!(net.calls(&[&node], 0, 4, 100).await.len(), 4);
    assert!(began.elapsed() > Duration::from_secs(1), "it takes so long to know that there are no others");
    // Each asks when it comes, four times a second while it waits, and when the tenant is open.
    let asked = net.wire.holds.load(Ordering::Relaxed);
    assert!(asked < 60, "{asked} questions of 4 calls in {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_used_up_plan_is_refused_without_a_question_until_it_grows() {
    let net = Net::new(true);
    let node = net.start(1);
    assert!(held(&node.counters, 0, 1).await.unwrap());
    settle(&node, 0, 1);
    sleep(Duration::from_millis(50)).await;
    assert!(!held(&node.counters, 1, 1).await.unwrap());
    let asked = net.wire.holds.load(Ordering::Relaxed);
    for call in 2..100 {
        assert!(!held(&node.counters, call, 1).await.unwrap());
    }
    assert_eq!(net.wire.holds.load(Ordering::Relaxed), asked);
    assert!(held(&node.counters, 100, 2).await.unwrap(), "another plan");
}

#[tokio::test(start_paused = true)]
async fn what_the_store_forgets_is_built_anew_to_the_call() {
    for leases in EITHER {
        let net = Net::new(leases);
        let nodes = [net.start(1), net.start(2), net.start(3)];
        let all: Vec<&Node> = nodes.iter().collect();
        let first = net.calls(&all, 0, 300, 500).await;
        for call in &first {
            let node = &nodes[usize::try_from(*call).unwrap() % 3];
            // Some are booked, some settled only, some in flight, some given back.
            match call % 4 {
                0 => {
                    settle(node, *call, 1);
                    book(&net, node, *call).await;
                }
                1 => settle(node, *call, 1),
                2 => {}
                _ => settle(node, *call, 0),
            }
            if *call == 150 {
                net.wire.store.forget();
            }
        }
        net.wire.store.forget();
        let began = Instant::now();
        // 225 of 300 count.
        let admitted = net.calls(&all, 1_000, 400, 500).await.len();
        assert_eq!(admitted, 275, "leases {leases}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let Standing { used, held } = net.standing(&nodes[1]).await;
        assert_eq!((used, held), (150, 75 + 275), "leases {leases}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_tenant_that_is_evicted_is_built_anew_at_once() {
    let net = Net::new(true);
    let nodes = [net.start(1), net.start(2)];
    let all: Vec<&Node> = nodes.iter().collect();
    assert_eq!(net.calls(&all, 0, 50, 100).await.len(), 50);
    net.wire.store.forget_tenant(&"acme".parse().unwrap());
    let began = Instant::now();
    assert_eq!(net.calls(&all, 100, 80, 100).await.len(), 50);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn ten_nodes_on_an_empty_store_count_a_used_ledger_once() {
    let net = Net::new(true);
    for call in 0..40 {
        net.ledger.append(&[booked_event(call)]).await.unwrap();
    }
    let nodes: Vec<Node> = (0..10).map(|node| net.start(node)).collect();
    let all: Vec<&Node> = nodes.iter().collect();
    assert_eq!(net.calls(&all, 1_000, 100, 100).await.len(), 60);
    assert_eq!(net.standing(&nodes[3]).await, Standing { used: 40, held: 60 });
}

#[tokio::test(start_paused = true)]
async fn a_node_that_dies_and_comes_back_counts_its_calls_once() {
    for leases in EITHER {
        let net = Net::new(leases);
        let other = net.start(1);
        let node = net.start(2);
        assert_eq!(net.calls(&[&node], 0, 30, 100).await.len(), 30, "leases {leases}");
        // Ten are booked, the others in its journal.
        for call in 0..20 {
            settle(&node, call, 1);
        }
        for call in 0..10 {
            net.ledger.append(&[booked_event(call)]).await.unwrap();
        }
        drop(node);
        let left: Vec<UsageEvent> = (5..30).map(booked_event).collect();
        let node = net.start_with(2, &left);
        assert_eq!(net.calls(&[&node, &other], 1_000, 100, 100).await.len(), 70, "leases {leases}");
        for event in &left[5..] {
            net.ledger.append(std::slice::from_ref(event)).await.unwrap();
        }
        node.counters.booked(&left);
        sleep(Duration::from_millis(100)).await;
        assert_eq!(net.standing(&other).await, Standing { used: 30, held: 70 }, "leases {leases}");
        let counted = other.counters.list().await.unwrap();
        let mut chats = counted.iter().filter(|counted| counted.counter.metric == Metric::Chats);
        assert!(chats.all(|counted| counted.booked == 30), "{counted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_node_that_is_gone_ends_by_itself() {
    let net = Net::new(true);
    let other = net.start(1);
    let node = net.start(2);
    assert!(held(&node.counters, 0, 100).await.unwrap());
    let leased = node.counters.health().leased;
    assert!(leased > 0);
    drop(node);
    let began = Instant::now();
    assert_eq!(net.calls(&[&other], 1, 110, 100).await.len(), 99);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_refuses_within_its_budget_and_comes_back() {
    for leases in EITHER {
        let net = Net::new(leases);
        let node = net.start(1);
        assert_eq!(net.calls(&[&node], 0, 10, 1_000).await.len(), 10);
        sleep(Duration::from_secs(5)).await;
        net.wire.hangs.store(true, Ordering::Relaxed);
        // It was in time a moment ago, and is asked again.
        let began = Instant::now();
        assert!(held(&node.counters, 99, 1_000).await.is_err(), "leases {leases}");
        assert!(began.elapsed() <= Duration::from_millis(800), "{:?}", began.elapsed());
        sleep(IN_TIME_FOR).await;
        for call in 100..200 {
            let began = Instant::now();
            assert!(held(&node.counters, call, 1_000).await.is_err(), "leases {leases}");
            assert!(began.elapsed() <= Duration::from_millis(60), "{:?}", began.elapsed());
        }
        assert!(node.counters.health().down);
        net.wire.hangs.store(false, Ordering::Relaxed);
        sleep(Duration::from_secs(1)).await;
        assert!(!node.counters.health().down);
        assert_eq!(net.calls(&[&node], 300, 10, 1_000).await.len(), 10);
        sleep(Duration::from_millis(500)).await;
        assert_eq!(net.standing(&node).await, Standing { used: 0, held: 20 }, "leases {leases}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_node_was_being_given_is_free_when_it_is_back() {
    for leases in EITHER {
        let net = Net::new(leases);
        let other = net.start(1);
        let node = net.start(2);
        assert_eq!(net.calls(&[&other], 0, 1, 100).await.len(), 1);
        settle(&other, 0, 1);
        let nodes = [&node];
        {
            let asking = net.calls(&nodes, 100, 30, 100);
            // The questions arrive, the answers do not.
            let hang = async {
                sleep(Duration::from_millis(3)).await;
                net.wire.hangs.store(true, Ordering::Relaxed);
                sleep(Duration::from_millis(30)).await;
            };
            tokio::select! {
                _ = asking => panic!("answered"),
                () = hang => {}
            }
        }
        drop(node);
        net.wire.hangs.store(false, Ordering::Relaxed);
        sleep(Duration::from_millis(500)).await;
        // With leases the first call asks for the others too.
        let held = net.standing(&other).await.held;
        assert!(if leases { held > 0 } else { held == 30 }, "leases {leases}: {held}");
        let _back = net.start(2);
        sleep(Duration::from_secs(5)).await;
        assert_eq!(net.standing(&other).await, Standing { used: 1, held: 0 }, "leases {leases}");
        assert_eq!(net.calls(&[&other], 200, 110, 100).await.len(), 99, "leases {leases}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stands_still_for_a_moment_refuses_nobody() {
    for leases in EITHER {
        let net = Net::new(leases);
        let node = net.start(1);
        assert_eq!(net.calls(&[&node], 0, 1, 1_000).await.len(), 1);
        // Whatever was leased is over.
        sleep(Duration::from_secs(5)).await;
        net.wire.hangs.store(true, Ordering::Relaxed);
        let nodes = [&node];
        let asking = net.calls(&nodes, 100, 30, 1_000);
        let moment = async {
            sleep(Duration::from_millis(200)).await;
            net.wire.hangs.store(false, Ordering::Relaxed);
        };
        assert_eq!(tokio::join!(asking, moment).0.len(), 30, "leases {leases}");
        assert!(!node.counters.health().down, "leases {leases}");
        sleep(Duration::from_millis(500)).await;
        assert_eq!(net.standing(&node).await, Standing { used: 0, held: 31 }, "leases {leases}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_plan_may_use_up_what_is_left_of_a_lease_while_the_store_is_away() {
    let net = Net::new(true);
    let node = net.start(1);
    assert!(held(&node.counters, 0, 100_000).await.unwrap());
    let leased = node.counters.health().leased;
    net.wire.hangs.store(true, Ordering::Relaxed);
    sleep(Duration::from_millis(600)).await;
    let terms = Terms { on_counters_down: OnCountersDown::Lease, ..Terms::default() };
    let mut admitted = 0;
    for call in 1..1_000 {
        let outcome = node.counters.hold(id(call), &claims(100_000), terms).await;
        admitted += u64::from(matches!(outcome, Ok(HoldOutcome::Held(_))));
    }
    assert_eq!(admitted, leased);
    assert!(held(&node.counters, 2_000, 100_000).await.is_err());
    net.wire.hangs.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(net.standing(&node).await, Standing { used: 0, held: leased + 1 });
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_client_left_while_it_asked_is_given_back() {
    let net = Net::new(false);
    let node = net.start(1);
    assert!(held(&node.counters, 0, 10).await.unwrap());
    for call in 1..6 {
        let gone = timeout(Duration::from_millis(1), held(&node.counters, call, 10)).await;
        assert!(gone.is_err());
    }
    sleep(Duration::from_millis(500)).await;
    assert_eq!(net.standing(&node).await, Standing { used: 0, held: 1 });
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_gives_back_what_it_leased_and_is_not_waited_for() {
    let net = Net::new(true);
    let other = net.start(1);
    let node = net.start(2);
    assert!(held(&node.counters, 0, 100).await.unwrap());
    settle(&node, 0, 1);
    book(&net, &node, 0).await;
    node.counters.settle_up().await;
    let counters = node.counters.clone();
    drop(node);
    counters.leave().await;
    net.wire.store.forget_tenant(&"acme".parse().unwrap());
    let began = Instant::now();
    assert_eq!(net.calls(&[&other], 1, 110, 100).await.len(), 99);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn a_call_that_asks_again_is_not_lost_by_word_that_it_is_gone() {
    let gone = |local: &mut Local, claims: &[Claim]| {
        let Begin::Ask(asking) = local.begin(id(1), claims, 1, true) else { panic!("it asks") };
        let answer = (Epoch(1), &[Count::default(); 2][..], 0);
        assert!(local.held(id(1), claims, &asking, answer).is_some());
        local.settle(id(1), &[]);
        let batch = local.batch(2).unwrap();
        assert_eq!(batch.notes[0].state, CallState::Gone);
        batch
    };
    // Its question could be there before that word, and what it took would go with it.
    let (mut local, claims) = (Local::default(), claims(9));
    let first = gone(&mut local, &claims);
    assert!(matches!(local.begin(id(1), &claims, 2, true), Begin::Wait));
    local.not_told(&first, 1_000);
    assert!(matches!(local.begin(id(1), &claims, 999, true), Begin::Wait), "it may be done yet");
    let again = local.batch(1_000).unwrap();
    local.told(&again);
    assert!(matches!(local.begin(id(1), &claims, 1_001, true), Begin::Ask(_)));
    // One that has a unit of a lease is listed after that word.
    let mut local = Local::default();
    let first = gone(&mut local, &claims);
    let Begin::Ask(mut asking) = local.begin(id(2), &claims, 2, true) else { panic!("it asks") };
    local.with_lease(&mut asking, &claims, (9, 1, Duration::from_secs(1)));
    let answer = (Epoch(1), &[Count::default(); 2][..], 3);
    assert!(local.held(id(2), &claims, &asking, answer).is_some());
    local.asked(&asking, None, false);
    assert!(matches!(local.begin(id(1), &claims, 3, true), Begin::Held(_)));
    local.told(&first);
    let second = local.batch(4).unwrap();
    let Note { state, listing, .. } = &second.notes[0];
    assert_eq!((*state, *listing), (CallState::Held, Listing::FromLease));
}

#[test]
fn a_call_that_asks_again_with_other_claims_is_told_with_those() {
    let (mut local, id) = (Local::default(), id(1));
    let counters = [Count::default(); 2];
    let mut asking = None;
    // The store says that the tenant was changed; the call is given up and asks for what the newer plan says.
    for amount in [5, 7] {
        let claims = claims(9).map(|claim| Claim { amount, ..claim });
        let Begin::Ask(asked) = local.begin(id, &claims, 1, true) else { panic!("it asks") };
        asking = Some((asked, claims));
        if amount == 5 {
            local.abandoned(id, 0);
        }
    }
    let (asking, claims) = asking.unwrap();
    assert!(local.held(id, &claims, &asking, (crate::ports::shared::Epoch(1), &counters, 0)).is_some());
    let told = local.batch(2).unwrap();
    assert_eq!(told.notes[0].amounts.iter().map(|(_, amount)| *amount).collect::<Vec<_>>(), [7, 7]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_outlives_calls_with_other_claims() {
    let net = Net::new(true);
    let node = net.start(1);
    assert!(held(&node.counters, 0, 100_000).await.unwrap());
    let leased = node.counters.health().leased;
    assert!(leased > 10);
    let asked = net.wire.holds.load(Ordering::Relaxed);
    for call in 1..10 {
        let [month, day] = claims(100_000);
        let cost = CounterKey { metric: Metric::Cost, ..month.counter.clone() };
        let dear = [month, day, Claim { counter: cost, amount: 1_000, max: Some(1_000_000) }];
        let outcome = node.counters.hold(id(call * 2), &dear, Terms::default()).await;
        assert!(matches!(outcome, Ok(HoldOutcome::Held(_))));
        assert!(held(&node.counters, call * 2 + 1, 100_000).await.unwrap());
    }
    assert_eq!(net.wire.holds.load(Ordering::Relaxed) - asked, 9, "only those that cannot be leased ask");
    assert_eq!(node.counters.health().leased, leased - 9);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_ends_tells_what_it_never_held() {
    let net = Net::new(false);
    let [first, last] = [net.start(1), net.start(2)];
    assert!(held(&first.counters, 0, 1_000).await.unwrap());
    // It has had nothing to do with the tenant, and the ledger has the event before it has joined.
    let event = UsageEvent { chats: 0, ..booked_event(1) };
    last.counters.settle(event.id, &[], &used_by(&event, Counting::TENANT));
    net.ledger.append(std::slice::from_ref(&event)).await.unwrap();
    last.counters.booked(std::slice::from_ref(&event));
    last.counters.settle_up().await;
    let counters = last.counters.clone();
    drop(last);
    counters.leave().await;
    let tokens = CounterKey { metric: Metric::Tokens, ..claims(0)[0].counter.clone() };
    let read = first.counters.read(&[tokens]).await.unwrap();
    assert_eq!(read, [Standing { used: event.tokens.total(), held: 0 }]);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_held_counts_once_and_a_bill_that_two_nodes_book_counts_once() {
    for leases in EITHER {
        let net = Net::new(leases);
        let nodes = [net.start(1), net.start(2)];
        assert!(held(&nodes[0].counters, 0, 1_000).await.unwrap());
        settle(&nodes[0], 0, 0);
        let unit = Some(Box::new(units::begun("batches/b", 1)));
        let bill = UsageEvent { chats: 0, unit, ..booked_event(7) };
        let used = used_by(&bill, Counting::TENANT);
        let tokens = CounterKey { metric: Metric::Tokens, ..claims(0)[0].counter.clone() };
        let used_tokens = async |node: &Node| node.counters.read(std::slice::from_ref(&tokens)).await.unwrap()[0];
        // Both find that the ledger has none; the second hears that it was there when it wrote it.
        for node in &nodes {
            node.counters.settle(bill.id, &[], &used);
        }
        sleep(Duration::from_millis(100)).await;
        net.ledger.append(std::slice::from_ref(&bill)).await.unwrap();
        nodes[0].counters.booked(std::slice::from_ref(&bill));
        sleep(Duration::from_millis(100)).await;
        nodes[1].counters.doubted(std::slice::from_ref(&bill));
        nodes[1].counters.booked(std::slice::from_ref(&bill));
        sleep(Duration::from_secs(3)).await;
        for node in &nodes {
            assert_eq!(used_tokens(node).await, Standing { used: 18, held: 0 }, "leases {leases}");
        }
        let late = UsageEvent { id: id(8), ..bill.clone() };
        nodes[1].counters.settle(late.id, &[], &used_by(&late, Counting::TENANT));
        nodes[1].counters.settle(late.id, &[], &used_by(&late, Counting::TENANT));
        sleep(Duration::from_millis(100)).await;
        assert_eq!(used_tokens(&nodes[0]).await, Standing { used: 36, held: 0 }, "leases {leases}");
    }
}
