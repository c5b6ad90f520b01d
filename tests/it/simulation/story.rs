//! The story of one seed: some lives in trouble, each ended by a kill, a power cut or a drain, then one in peace, and
//! after it the books are compared.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tollgate::domain::event::UsageEvent;
use tollgate::domain::ids::TenantId;
use tollgate::domain::time::{Period, Window};
use tollgate::ports::usage::Sums;

use super::disk::Platter;
use super::executor::{Role, spawn};
use super::ledger::Books;
use super::life::{End, Orders, Outside, live};
use super::model::TENANTS;
use super::world::{Death, World, yielded};

/// A life that is longer hangs: its longest waits together are a few minutes.
const LIFE_MAX: Duration = Duration::from_secs(3_600);

/// Where the clock may stand beside the truth, in seconds.
const HOUR: i64 = 3_600;
const MONTH: i64 = 28 * 24 * HOUR;

/// Tells the story of the world's seed to its end, or until something is wrong.
pub async fn tell(world: Arc<World>) {
    let (platter, books) = (Platter::new(&world), Books::new(&world));
    let outside = Outside { world: world.clone(), platter, books };
    world.note(|| format!("{:?}", world.setup));
    world.broken.disk_small.store(true, Relaxed);
    for _ in 0..3 {
        spawn(Role::World, trouble(world.clone()));
    }
    for _ in 0..world.chance.between(1, 5) {
        if !world.is_peace() {
            in_trouble(&outside).await;
        }
    }
    world.make_peace();
    let orders = Orders { serve_ms: 40, gap_ms_max: 20, sees_peace: false };
    match one_life(&outside, orders).await {
        Some(End::Drained { flushed: true }) => compare(&outside),
        end => world.fail(format!("a life in peace ends as {end:?}")),
    }
}

async fn in_trouble(outside: &Outside) {
    let world = &outside.world;
    let chance = &world.chance;
    let orders = Orders {
        serve_ms: chance.early_or_late(300),
        gap_ms_max: chance.pick(&[3, 20, 60]),
        sees_peace: chance.per_mille(100),
    };
    if !orders.sees_peace {
        match chance.below(8) {
            0 => {}
            1..=3 => world.die_after(Death::Step, chance.early_or_late(1_000)),
            4..=6 => world.die_after(Death::DiskOp, chance.early_or_late(200)),
            _ => world.die_after(Death::Commit, chance.early_or_late(5)),
        }
    }
    if one_life(outside, orders).await == Some(End::NotStarted) {
        sleep(Duration::from_millis(chance.early_or_late(10_000))).await;
    }
}

/// One life and its end; `None` when it was killed.
async fn one_life(outside: &Outside, orders: Orders) -> Option<End> {
    let world = &outside.world;
    let end = Rc::new(Cell::new(None));
    let (lives, tells) = (outside.clone(), end.clone());
    world.revive();
    spawn(Role::Process, async move {
        let world = lives.world.clone();
        tells.set(Some(live(lives, orders).await));
        world.changed.notify_one();
    });
    let over = async {
        while end.get().is_none() && !world.is_dead() {
            world.changed.notified().await;
        }
    };
    if timeout(LIFE_MAX, over).await.is_err() {
        world.fail("a life hangs");
    }
    let killed = world.is_dead();
    world.die();
    yielded().await;
    let power_cut = killed && world.chance.per_mille(500);
    if killed {
        let mut figures = world.figures.lock();
        figures.kills += 1;
        figures.power_cuts += u64::from(power_cut);
    }
    if power_cut {
        world.note(|| "the power is cut".to_owned());
        outside.platter.power_cut();
    }
    let died = world.model.lock().dies(power_cut, |id| outside.books.event(id));
    if let Err(wrong) = died {
        world.fail(wrong);
    }
    if killed { None } else { end.get() }
}

/// Breaks things for a while, one after the other.
async fn trouble(world: Arc<World>) {
    let (chance, broken) = (&world.chance, &world.broken);
    loop {
        sleep(Duration::from_millis(chance.between(1, 60))).await;
        if world.is_peace() {
            return;
        }
        if world.setup.clock_jumps && chance.per_mille(40) {
            world.turn_clock(chance.pick(&[0, -HOUR, -HOUR, HOUR, MONTH]));
        }
        if !chance.per_mille(world.setup.trouble) {
            continue;
        }
        let outages = [
            &broken.disk_full,
            &broken.ledger_down,
            &broken.ledger_silent,
            &broken.acks_lost,
            &broken.counters,
            &broken.poison,
        ];
        let failures = [&broken.writes, &broken.syncs, &broken.reads];
        let what = if world.setup.disk_fails && chance.per_mille(600) {
            chance.pick(&failures)
        } else {
            chance.pick(&outages)
        };
        what.store(true, Relaxed);
        // Mostly as short as a hiccup; now and then an hour.
        let ms = match chance.below(1_000) {
            0 => 3_600_000,
            1..=150 => chance.early_or_late(20_000),
            _ => chance.early_or_late(300),
        };
        sleep(Duration::from_millis(ms)).await;
        if !world.is_peace() {
            what.store(false, Relaxed);
        }
    }
}

/// Every call is in the ledger as it must be, nothing else is, and the sums are those of the calls.
fn compare(outside: &Outside) {
    let Outside { world, books, .. } = outside;
    let model = world.model.lock();
    let events = books.events();
    world.figures.lock().booked += events.len() as u64;
    let in_ledger = model.owns(&events).and_then(|()| model.verify_ledger(&BTreeSet::new(), |id| books.event(id)));
    let wrong = in_ledger.err().or_else(|| {
        books.sums().into_iter().find_map(|((tenant, period), sums)| {
            let of = |event: &&UsageEvent| is_of(event, &tenant, period);
            let fold = events.iter().filter(of).fold(Sums::default(), |fold, event| fold.plus(&Sums::of(event)).unwrap());
            let at = TENANTS.iter().position(|name| *name == tenant.as_str()).unwrap();
            let window = if period.window() == Window::Month { 0 } else { 1 };
            let [chats, prompt, completion, pico_usd] = model.sums(at, window, period);
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
    event.tenant == *tenant && period.window().period(event.requested_at) == period
}
