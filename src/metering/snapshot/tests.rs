//! Tests of replacing plans and prices while tenants are read anew.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use super::super::admin::Order;
use super::super::fakes::{FORMAT, World};
use super::*;
use crate::domain::audit::{Actor, Author};
use crate::domain::plan::{Limit, Metric, Scope};
use crate::domain::price::ServiceTier;
use crate::domain::time::Window;
use crate::domain::zone::Zone;
use crate::ports::prices::{KeptBook, PriceStore};
use crate::ports::tenants::Act;

/// `starter` with so many chats a month, and `growth`.
fn plans(chats_max: u64) -> Plans {
    let limit = Limit { scope: Scope::Tenant, metric: Metric::Chats, window: Window::Month, max: chats_max };
    ["starter", "growth"]
        .into_iter()
        .map(|name| name.parse::<PlanName>().unwrap())
        .map(|name| (name.clone(), Arc::new(Plan { limits: vec![limit], ..Plan::unlimited(name) })))
        .collect()
}

fn chats_max(snapshots: &Snapshots, tenant: &str) -> Option<u64> {
    let snapshot = snapshots.load();
    let plan = snapshot.accounts.get(&tenant.parse::<TenantId>().unwrap())?.plan.clone()?;
    plan.limit(Scope::Tenant, Metric::Chats, Window::Month).map(|limit| limit.max)
}

fn author() -> Author {
    Author::of(Actor::Cli)
}

async fn tenant(world: &World, id: &str) {
    let tenant = Tenant {
        id: id.parse().unwrap(),
        name: id.to_owned(),
        plan: PlanName::starter(),
        suspended: false,
        zone: Zone::UTC,
        created_at: World::now(),
    };
    world.store.create_tenant(&tenant, &Act::by(author(), World::now())).await.unwrap();
}

#[tokio::test]
async fn a_refresh_that_began_before_a_reload_does_not_undo_it() {
    let world = World::open().await;
    let snapshots = world.snapshots.clone();
    tenant(&world, "initech").await;
    let slow = world.store.slow_down();
    let refresh = tokio::spawn({
        let (snapshots, store) = (snapshots.clone(), world.store.clone());
        async move { snapshots.refresh(&*store).await }
    });
    slow.asked.notified().await;
    snapshots.replace(plans(7), PriceBook::default()).unwrap();
    assert_eq!(chats_max(&snapshots, "acme"), Some(7));
    slow.let_go.notify_one();
    assert_eq!(refresh.await.unwrap(), Ok(true));
    assert_eq!((chats_max(&snapshots, "acme"), chats_max(&snapshots, "initech")), (Some(7), Some(7)));
}

#[tokio::test]
async fn a_reload_keeps_tenants_and_keys() {
    let world = World::open().await;
    let (key, _) = world
        .admin
        .issue_key(Order::by(&author()), &"acme".parse().unwrap(), "ci".to_owned(), None, None)
        .await
        .unwrap();
    let before = world.snapshots.load().revision;
    world.snapshots.replace(plans(7), PriceBook::default()).unwrap();
    let after = world.snapshots.load();
    assert_eq!((after.revision, after.accounts.len()), (before, 2));
    assert_eq!(after.keys[&key.hash].id, key.id);
}

#[tokio::test]
async fn plans_that_leave_a_tenant_without_its_plan_change_nothing() {
    let world = World::open().await;
    world.snapshots.replace(plans(7), PriceBook::default()).unwrap();
    world.admin.set_plan(Order::by(&author()), &"globex".parse().unwrap(), "growth").await.unwrap();
    let mut fewer = plans(9);
    fewer.remove("growth");
    let missing = PlanMissing { tenant: "globex".parse().unwrap(), plan: "growth".parse().unwrap() };
    assert_eq!(world.snapshots.replace(fewer, PriceBook::default()), Err(PlansRefused::Missing(missing)));
    assert_eq!(chats_max(&world.snapshots, "acme"), Some(7));
    assert_eq!(world.snapshots.every_plan_is_known(), Ok(()));
}

#[tokio::test]
async fn plans_that_limit_what_is_not_counted_change_nothing() {
    let world = World::open().await;
    let snapshots = Snapshots::open(&*world.store, plans(7), PriceBook::default(), FORMAT).await.unwrap();
    for (scope, is_counted) in [(Scope::Tenant, true), (Scope::User, false), (Scope::Kb, false), (Scope::Key, false)] {
        let mut others = plans(9);
        let mut plan = (**others.values().next().unwrap()).clone();
        plan.limits.push(Limit { scope, metric: Metric::Cost, window: Window::Day, max: 5 });
        let refused = PlansRefused::NotCounted { plan: plan.name.clone(), limit: (scope, Metric::Cost, Window::Day) };
        others.insert(plan.name.clone(), Arc::new(plan));
        let expected = if is_counted { Ok(()) } else { Err(refused) };
        assert_eq!(snapshots.replace(others, PriceBook::default()), expected, "{scope:?}");
        assert_eq!(snapshots.counting(), Counting::TENANT);
    }
    assert_eq!(chats_max(&snapshots, "acme"), Some(9), "of the first, and of no other");
}

#[test]
fn plans_and_prices_change_together_whoever_reads_meanwhile() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let world = runtime.block_on(World::open());
    let snapshots = world.snapshots.clone();
    // The version of the prices says which plans belong to them.
    let offer = |generation: u64| {
        let version = format!("{generation}");
        (plans(generation), PriceBook::new(version.into(), Vec::new()).unwrap())
    };
    let (first_plans, first_prices) = offer(0);
    snapshots.replace(first_plans, first_prices).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let (read, reads) = mpsc::sync_channel(1);
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (snapshots, over, read) = (snapshots.clone(), over.clone(), read.clone());
            std::thread::spawn(move || {
                let acme = "acme".parse::<TenantId>().unwrap();
                while !over.load(Ordering::Relaxed) {
                    let snapshot = snapshots.load();
                    let plan = snapshot.accounts[&acme].plan.clone().unwrap();
                    let limit = plan.limit(Scope::Tenant, Metric::Chats, Window::Month).unwrap().max;
                    assert_eq!(snapshot.prices.version().to_string(), limit.to_string());
                    read.try_send(()).ok();
                }
            })
        })
        .collect();
    for generation in 1..=200 {
        let (plans, prices) = offer(generation);
        snapshots.replace(plans, prices).unwrap();
        // Tenants change all the while.
        runtime.block_on(tenant(&world, &format!("t{generation}")));
        runtime.block_on(snapshots.refresh(&*world.store)).unwrap();
        assert_eq!(chats_max(&snapshots, "acme"), Some(generation));
        reads.recv().unwrap();
    }
    over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
}

fn book(input: u32) -> PriceBook {
    let entry =
        format!(r#"{{"provider":"openai","model":"m","match":["m"],"rates":[{{"tier":"standard","input":{input}}}]}}"#);
    (FORMAT.parse)(format!(r#"{{"format":1,"models":[{entry}]}}"#).as_bytes()).unwrap()
}

fn input(snapshots: &Snapshots) -> i64 {
    let at = World::now();
    snapshots
        .load()
        .prices
        .rates("openai", "m", ServiceTier::Standard, 1, at)
        .and_then(|rates| rates.input)
        .unwrap_or(0)
}

#[tokio::test]
async fn a_book_that_is_put_in_force_anywhere_is_in_force_here_until_that_ends() {
    let world = World::open().await;
    let snapshots = world.snapshots.clone();
    snapshots.replace(plans(7), book(1)).unwrap();
    let call = snapshots.load().tariff(&"starter".parse().unwrap());
    // Another gateway of the ledger.
    world.store.set_prices(Some(&kept(&book(2))), &Act::by(author(), World::now())).await.unwrap();
    assert_eq!(input(&snapshots), 1);
    assert_eq!(snapshots.refresh(&*world.store).await, Ok(true));
    assert_eq!((input(&snapshots), snapshots.load().active.is_some()), (2, true));
    assert_eq!(snapshots.load().tariff(&"starter".parse().unwrap()).version(), book(2).version());
    // A call in flight keeps its prices, and a reload those that are in force.
    assert_eq!(call.version(), book(1).version());
    snapshots.replace(plans(8), book(3)).unwrap();
    assert_eq!((input(&snapshots), chats_max(&snapshots, "acme")), (2, Some(8)));
    // So does a start.
    let restarted = Snapshots::open(&*world.store, plans(7), book(1), FORMAT).await.unwrap();
    assert_eq!(input(&restarted), 2);
    world.store.set_prices(None, &Act::by(author(), World::now())).await.unwrap();
    snapshots.refresh(&*world.store).await.unwrap();
    assert_eq!((input(&snapshots), snapshots.load().active.clone()), (3, None));
}

#[tokio::test]
async fn a_book_that_cannot_be_read_leaves_the_last_one_in_force() {
    let world = World::open().await;
    world.snapshots.replace(plans(7), book(1)).unwrap();
    let newer = KeptBook { version: "0a1b2c3d4e5f".into(), document: "{\"format\": 2}".into(), base: None };
    world.store.set_prices(Some(&[newer]), &Act::by(author(), World::now())).await.unwrap();
    tenant(&world, "initech").await;
    assert_eq!(world.snapshots.refresh(&*world.store).await, Ok(true));
    assert_eq!((input(&world.snapshots), chats_max(&world.snapshots, "initech")), (1, Some(7)));
    // Nobody starts with prices that are not those that were put in force.
    let started = Snapshots::open(&*world.store, plans(7), book(1), FORMAT).await;
    assert!(matches!(started, Err(StoreError::Corrupt(_))), "{started:?}");
    // A command still can, and puts that right.
    let (desk, why) = Snapshots::open_anyway(&*world.store, plans(7), book(1), FORMAT).await.unwrap();
    assert!(why.is_some_and(|why| why.contains("0a1b2c3d4e5f")));
    assert_eq!((input(&desk), desk.load().active.is_some()), (1, true));
    world.store.set_prices(None, &Act::by(author(), World::now())).await.unwrap();
    assert!(Snapshots::open(&*world.store, plans(7), book(1), FORMAT).await.is_ok());
}

#[tokio::test]
async fn every_book_that_calls_may_be_priced_by_is_kept() {
    let world = World::open().await;
    let (list, own) = (book(1), book(5));
    let mut plans = plans(7);
    let growth = plans.get_mut("growth").unwrap();
    let pricing = Pricing { own: Some(Arc::new(book(5))), ..Pricing::default() };
    *growth = Arc::new(Plan { pricing, ..Plan::clone(growth) });
    world.snapshots.replace(plans, book(1)).unwrap();
    world.store.set_down(true);
    assert!(world.snapshots.keep_books(&*world.store, World::now()).await.is_err());
    world.store.set_down(false);
    world.snapshots.keep_books(&*world.store, World::now()).await.unwrap();
    for version in [list.version(), list.base().unwrap().version(), own.version()] {
        let found = find(&*world.store, &version, FORMAT).await.unwrap().unwrap();
        assert_eq!(found.version(), version);
    }
    // Once they are, the store is not asked.
    world.store.set_down(true);
    assert_eq!(world.snapshots.keep_books(&*world.store, World::now()).await, Ok(()));
}
