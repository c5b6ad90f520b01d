//! The story of one seed: some lives in trouble, each ended by a kill, a power cut or a drain, then one in peace, and
//! after it the books are compared. Where there are several nodes each has its own lives, side by side.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tollgate::domain::event::UsageEvent;
use tollgate::domain::ids::TenantId;
use tollgate::domain::time::{Period, Window};
use tollgate::ports::usage::Sums;

use super::bills::verify;
use super::disk::Platter;
use super::executor::{Role, spawn};
use super::ledger::Books;
use super::life::{End, Orders, Outside, live};
use super::model::TENANTS;
use super::node::{Death, Node};
use super::peace::Meeting;
use super::tenants::Tenants;
use super::wire::Store;
use super::world::{World, yielded};

/// A disk on which a process did not start so often is made larger by whoever runs it: the others wait for it.
const LIVES_WITHOUT_ROOM: u32 = 20;

/// A life that is longer hangs: its longest waits together are a few minutes.
const LIFE_MAX: Duration = Duration::from_secs(3_600);

/// Where the clock may stand beside the truth, in seconds.
const HOUR: i64 = 3_600;
const MONTH: i64 = 28 * 24 * HOUR;

/// Tells the story of the world's seed to its end, or until something is wrong.
pub async fn tell(world: Arc<World>, nodes: Vec<Arc<Node>>) {
    let (books, tenants) = (Books::new(&world), Arc::<Tenants>::default());
    let (store, meeting) = (Store::new(&world, &nodes), Meeting::new(nodes.len()));
    let outside = |node: &Arc<Node>| Outside {
        node: node.clone(),
        platter: Platter::new(node),
        books: books.clone(),
        tenants: tenants.clone(),
        store: store.clone(),
        meeting: meeting.clone(),
    };
    let outsides: Vec<Outside> = nodes.iter().map(outside).collect();
    world.note(|| format!("{:?}", world.setup));
    for node in &nodes {
        node.broken.disk_small.store(true, Relaxed);
        for _ in 0..if world.is_shared() { 1 } else { 3 } {
            spawn(Role::World, trouble(node.clone()));
        }
    }
    if world.is_shared() {
        spawn(Role::World, trouble_of_store(world.clone(), store));
        let over = Rc::new(Semaphore::new(0));
        for outside in &outsides {
            let (outside, over) = (outside.clone(), over.clone());
            spawn(Role::World, async move {
                among_others(&outside).await;
                over.add_permits(1);
            });
        }
        let all = u32::try_from(nodes.len()).unwrap();
        over.acquire_many(all).await.unwrap().forget();
    } else {
        alone(&outsides[0]).await;
    }
    if !world.has_failed() {
        compare(&world, &books, nodes.len());
    }
}

async fn alone(outside: &Outside) {
    let world = &outside.node.world;
    for _ in 0..world.chance.between(1, 5) {
        if !world.is_peace() {
            in_trouble(outside, 300).await;
        }
    }
    world.make_peace();
    let orders = Orders { serve_ms: 40, gap_ms_max: 20, sees_peace: false };
    match one_life(outside, orders).await {
        Some(End::Drained { flushed: true }) => {}
        end => world.fail(format!("a life in peace ends as {end:?}")),
    }
}

/// The last life goes on until all nodes are in theirs, and then sees peace come.
async fn among_others(outside: &Outside) {
    let chance = &outside.node.chance;
    for _ in 0..chance.between(0, 3) {
        in_trouble(outside, 4_000).await;
        sleep(Duration::from_millis(chance.pick(&[0, 0, 100, 1_000, 4_000, 10_000]))).await;
    }
    let orders =
        Orders { serve_ms: chance.between(100, 2_500), gap_ms_max: chance.pick(&[60, 150, 300]), sees_peace: true };
    for lives in 0_u32.. {
        if lives == LIVES_WITHOUT_ROOM {
            outside.node.broken.disk_small.store(false, Relaxed);
        }
        match one_life(outside, orders).await {
            Some(End::Drained { flushed: true }) => return,
            Some(End::NotStarted) if !outside.node.is_peace() => sleep(Duration::from_millis(500)).await,
            end => return outside.node.fail(format!("a life that sees peace ends as {end:?}")),
        }
    }
}

async fn in_trouble(outside: &Outside, serve_ms_max: u64) {
    let node = &outside.node;
    let chance = &node.chance;
    let orders = Orders {
        serve_ms: chance.early_or_late(serve_ms_max),
        gap_ms_max: if node.is_shared() { chance.pick(&[60, 150, 300]) } else { chance.pick(&[3, 20, 60]) },
        sees_peace: !node.is_shared() && chance.per_mille(100),
    };
    if !orders.sees_peace && node.setup.kills {
        match chance.below(8) {
            0 => {}
            1..=3 => node.die_after(Death::Step, chance.early_or_late(if node.is_shared() { 4_000 } else { 1_000 })),
            4..=6 => node.die_after(Death::DiskOp, chance.early_or_late(200)),
            _ => node.die_after(Death::Commit, chance.early_or_late(5)),
        }
    }
    if one_life(outside, orders).await == Some(End::NotStarted) {
        sleep(Duration::from_millis(chance.early_or_late(10_000))).await;
    }
}

/// One life and its end; `None` when it was killed.
async fn one_life(outside: &Outside, orders: Orders) -> Option<End> {
    let node = &outside.node;
    let end = Rc::new(Cell::new(None));
    let (lives, tells) = (outside.clone(), end.clone());
    node.revive();
    spawn(Role::Process(node.number), async move {
        let node = lives.node.clone();
        tells.set(Some(live(lives, orders).await));
        node.changed.notify_one();
    });
    let over = async {
        while end.get().is_none() && !node.is_dead() {
            node.changed.notified().await;
        }
    };
    if timeout(LIFE_MAX, over).await.is_err() {
        node.fail("a life hangs");
    }
    let killed = node.is_dead();
    node.die();
    yielded().await;
    let power_cut = killed && node.chance.per_mille(500);
    if killed {
        let mut figures = node.figures.lock();
        figures.kills += 1;
        figures.power_cuts += u64::from(power_cut);
    }
    if power_cut {
        node.note(|| "the power is cut".to_owned());
        outside.platter.power_cut();
    }
    if node.is_shared() && end.get() != Some(End::Drained { flushed: true }) {
        node.upsets();
        node.model.lock().excuse(node.number);
    }
    let died = node.model.lock().dies(node.number, power_cut, |id| outside.books.event(id));
    if let Err(wrong) = died {
        node.fail(wrong);
    }
    if killed { None } else { end.get() }
}

/// Breaks things around a node for a while, one after the other.
async fn trouble(node: Arc<Node>) {
    let (chance, broken) = (&node.chance, &node.broken);
    let (pause_ms, hour_ms) = if node.is_shared() { (400, 5_000) } else { (60, 3_600_000) };
    loop {
        sleep(Duration::from_millis(chance.between(1, pause_ms))).await;
        if node.is_peace() {
            return;
        }
        if node.setup.clock_jumps && chance.per_mille(40) {
            node.turn_clock(chance.pick(&[0, -HOUR, -HOUR, HOUR, MONTH]));
        }
        if !chance.per_mille(node.setup.trouble) {
            continue;
        }
        let counters = if node.is_shared() { &broken.cut_off } else { &broken.counters };
        // What is refused for good comes again at the next start, and the last of several nodes sees none after peace.
        let refused = if node.is_shared() { counters } else { &broken.poison };
        let outages =
            [&broken.disk_full, &broken.ledger_down, &broken.ledger_silent, &broken.acks_lost, counters, refused];
        let failures = [&broken.writes, &broken.syncs, &broken.reads];
        let what =
            if node.setup.disk_fails && chance.per_mille(600) { chance.pick(&failures) } else { chance.pick(&outages) };
        what.store(true, Relaxed);
        // Mostly as short as a hiccup; now and then very long.
        let ms = match chance.below(1_000) {
            0 => hour_ms,
            1..=150 => chance.early_or_late(20_000),
            _ => chance.early_or_late(300),
        };
        sleep(Duration::from_millis(ms)).await;
        if !node.is_peace() {
            what.store(false, Relaxed);
        }
    }
}

/// The shared counters forget, stand still, and are away.
async fn trouble_of_store(world: Arc<World>, store: Arc<Store>) {
    let (chance, trouble) = (&world.chance, &world.store);
    loop {
        sleep(Duration::from_millis(chance.between(1, 2_000))).await;
        if world.is_peace() {
            return;
        }
        if !chance.per_mille(world.setup.trouble) {
            continue;
        }
        let what = match chance.below(10) {
            0..=2 => {
                store.forget(None);
                continue;
            }
            3..=5 => {
                store.forget(Some(usize::try_from(chance.below(TENANTS.len() as u64)).unwrap()));
                continue;
            }
            6 => &trouble.down,
            7 => &trouble.silent,
            8 => &trouble.read_only,
            _ => &trouble.slow,
        };
        what.store(true, Relaxed);
        sleep(Duration::from_millis(chance.early_or_late(4_000))).await;
        if chance.per_mille(300) && !world.is_peace() {
            // It was restarted, and is empty.
            store.forget(None);
        }
        what.store(false, Relaxed);
    }
}

/// Every call is in the ledger as it must be, nothing else is, and the sums are those of the calls.
fn compare(world: &World, books: &Books, nodes: usize) {
    let mut model = world.model.lock();
    let events = books.events();
    {
        let mut figures = world.figures.lock();
        figures.booked += events.len() as u64;
        figures.over = model.over;
    }
    let of_node = |node| model.verify_ledger(node, &BTreeSet::new(), |id| books.event(id));
    let (bills, calls): (Vec<_>, Vec<_>) = events.iter().cloned().partition(UsageEvent::is_bill);
    let billed = verify(world, books, &bills);
    let in_ledger = billed.and_then(|()| model.owns(&calls)).and_then(|()| (0..nodes).try_for_each(of_node));
    let kept = if world.setup.kills { Ok(()) } else { model.kept_budgets() };
    let wrong = in_ledger.and(kept).err().or_else(|| {
        books.sums().into_iter().find_map(|((tenant, period), sums)| {
            let of = |event: &&UsageEvent| is_of(event, &tenant, period);
            let fold = events.iter().filter(of).fold(Sums::default(), |fold, event| fold.plus(&Sums::of(event)).unwrap());
            let at = TENANTS.iter().position(|name| *name == tenant.as_str()).unwrap();
            let window = if period.window() == Window::Month { 0 } else { 1 };
            let [chats, prompt, completion, pico_usd] = model.sums(at, window, period);
            let billed = bills.iter().filter(of).fold(Sums::default(), |fold, bill| fold.plus(&Sums::of(bill)).unwrap());
            let (prompt, completion) =
                (prompt + i128::from(billed.tokens.prompt), completion + i128::from(billed.tokens.completion));
            let pico_usd = pico_usd + billed.cost.0;
            let of_ledger = [
                i128::from(sums.chats),
                i128::from(sums.tokens.prompt),
                i128::from(sums.tokens.completion),
                sums.cost.0,
            ];
            let is_right = sums == fold && of_ledger == [chats, prompt, completion, pico_usd];
            (!is_right).then(|| format!("{tenant} in {period}: sums {sums:?}, events {fold:?}, calls {chats} chats, {prompt} + {completion} tokens, {pico_usd} pico-dollars"))
        })
    });
    if let Some(wrong) = wrong {
        drop(model);
        world.fail(wrong);
    }
}

fn is_of(event: &UsageEvent, tenant: &TenantId, period: Period) -> bool {
    event.tenant == *tenant && event.period(period.window()) == period
}
