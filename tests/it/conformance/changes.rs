//! What every [`TenantStore`] promises of changes: one entry of the audit log for each, and each once where it is asked
//! for with an idempotency key.

use std::sync::Arc;

use tollgate::domain::audit::{Action, Actor, AuditEntry, Author, Change, Facts};
use tollgate::domain::ids::KeyId;
use tollgate::domain::key::{Key, KeyHash};
use tollgate::domain::tenant::Tenant;
use tollgate::domain::time::Micros;
use tollgate::domain::zone::Zone;
use tollgate::ports::StoreError;
use tollgate::ports::tenants::{
    Act, Answered, AuditFilter, AuditQuery, AuditStart, Digest, Done, Memory, REMEMBERED_US, TenantChange, TenantStore,
};

use super::{Keep, at, postgres, sqlite, tenant};

type Store = Arc<dyn TenantStore>;

async fn adapters() -> Vec<(&'static str, Store, Keep)> {
    let (sqlite, directory) = sqlite().await;
    let (postgres, database) = postgres().await;
    vec![("sqlite", sqlite, Box::new(directory)), ("postgres", postgres, Box::new(database))]
}

fn now() -> Micros {
    at("2026-11-25T12:00:30.5Z")
}

fn made(id: &str) -> Tenant {
    Tenant {
        id: tenant(id),
        name: format!("The {id}"),
        plan: "starter".parse().unwrap(),
        suspended: false,
        zone: Zone::UTC,
        created_at: now(),
    }
}

fn key() -> Key {
    Key {
        id: KeyId::from_random(7),
        tenant: tenant("acme"),
        hash: KeyHash([7; 32]),
        last4: "wxyz".to_owned(),
        name: "ci".to_owned(),
        created_at: now(),
        expires_at: Some(at("2027-01-01T00:00:00Z")),
        revoked_at: None,
        last_used_at: None,
        models: Some("gpt-4o*, o3".parse().unwrap()),
    }
}

fn author() -> Author {
    Author { actor: Actor::Admin, key: Some("x7Qa".to_owned()), request_id: Some("req-1".to_owned()) }
}

fn plain() -> Act {
    Act::by(author(), now())
}

fn answered(number: u8) -> Answered {
    Answered { request: Digest([number; 32]), sealed: vec![number; 100] }
}

/// An act that is done once, with the number as its idempotency key.
fn once(number: u8, at: Micros) -> Act {
    let memory = Memory { id: Digest([number; 32]), key_sha256: Digest([number; 32]), answered: answered(number) };
    Act { memory: Some(memory), ..Act::by(author(), at) }
}

fn to_plan(name: &str) -> TenantChange {
    TenantChange { plan: Some(name.parse().unwrap()), ..TenantChange::default() }
}

async fn log(store: &Store) -> Vec<AuditEntry> {
    let query = AuditQuery { filter: AuditFilter::default(), start: AuditStart::After(0), entries_max: 1_000 };
    store.audit(&query).await.unwrap()
}

async fn actions(store: &Store) -> Vec<&'static str> {
    log(store).await.iter().map(|entry| entry.change.action.as_str()).collect()
}

#[tokio::test]
async fn every_change_has_one_entry_that_says_who_and_what() {
    for (name, store, _directory) in adapters().await {
        let acme = tenant("acme");
        store.create_tenant(&made("acme"), &once(1, now())).await.unwrap();
        let renamed = TenantChange { name: Some("New".to_owned()), ..TenantChange::default() };
        store.change_tenant(&acme, &renamed, &plain()).await.unwrap();
        store.change_tenant(&acme, &to_plan("growth"), &plain()).await.unwrap();
        store.add_key(&key(), &plain()).await.unwrap();
        store.revoke_key(&acme, &key().id, &Act::by(Author::of(Actor::Cli), Micros(5))).await.unwrap();
        let entries = log(&store).await;
        let rows: Vec<i64> = entries.iter().map(|entry| entry.row).collect();
        assert!(rows.is_sorted_by(|one, two| one < two) && rows[0] > 0, "{name}: {rows:?}");
        let of_name = |text: &str| Facts { name: Some(text.to_owned()), ..Facts::default() };
        let of_plan = |text: &str| Facts { plan: Some(text.parse().unwrap()), ..Facts::default() };
        let of_key = Facts {
            name: Some("ci".to_owned()),
            last4: Some("wxyz".to_owned()),
            expires_at: key().expires_at,
            models: key().models,
            ..Facts::default()
        };
        let zone: Zone = "Europe/Berlin".parse().unwrap();
        let of_zone = |zone: &Zone| Facts { zone: Some(zone.clone()), ..Facts::default() };
        let moved = TenantChange { zone: Some(zone.clone()), ..TenantChange::default() };
        store.change_tenant(&acme, &moved, &plain()).await.unwrap();
        let entries = [entries, log(&store).await.split_off(5)].concat();
        assert_eq!(store.load().await.unwrap().tenants[0].zone, zone, "{name}");
        let whole = Facts {
            zone: Some(Zone::UTC),
            suspended: Some(false),
            plan: of_plan("starter").plan,
            ..of_name("The acme")
        };
        let none = Facts::default;
        let expected = [
            (Action::TenantCreate, None, none(), whole),
            (Action::TenantChange, None, of_name("The acme"), of_name("New")),
            (Action::PlanSet, None, of_plan("starter"), of_plan("growth")),
            (Action::KeyCreate, Some(key().id), none(), of_key.clone()),
            (Action::KeyRevoke, Some(key().id), of_key, none()),
            (Action::TenantChange, None, of_zone(&Zone::UTC), of_zone(&zone)),
        ];
        assert_eq!(entries.len(), expected.len(), "{name}: {entries:?}");
        for (entry, (action, key, before, after)) in entries.iter().zip(expected) {
            assert_eq!(entry.change, Change { action, tenant: Some(acme.clone()), key, before, after }, "{name}");
        }
        assert_eq!((&entries[0].author, entries[0].at), (&author(), now()), "{name}");
        assert_eq!((&entries[4].author, entries[4].at), (&Author::of(Actor::Cli), Micros(5)), "{name}");
        let keys: Vec<_> = entries.iter().map(|entry| entry.idempotency_key_sha256).collect();
        assert_eq!(keys, [Some([1; 32]), None, None, None, None, None], "{name}");
    }
}

#[tokio::test]
async fn what_changes_nothing_has_no_entry() {
    for (name, store, _directory) in adapters().await {
        let acme = tenant("acme");
        store.create_tenant(&made("acme"), &plain()).await.unwrap();
        store.add_key(&key(), &plain()).await.unwrap();
        store.revoke_key(&acme, &key().id, &plain()).await.unwrap();
        let before = (log(&store).await, store.revision().await);
        for act in [plain(), once(1, now())] {
            store.change_tenant(&acme, &to_plan("starter"), &act).await.unwrap();
        }
        store.change_tenant(&acme, &TenantChange::default(), &plain()).await.unwrap();
        store.revoke_key(&acme, &key().id, &plain()).await.unwrap();
        store.create_tenant(&made("acme"), &plain()).await.unwrap_err();
        store.add_key(&key(), &plain()).await.unwrap_err();
        store.touch_keys(&[(key().id, now())]).await.unwrap();
        assert_eq!((log(&store).await, store.revision().await), before, "{name}");
        assert_eq!(store.recall(Digest([1; 32]), now()).await, Ok(Some(answered(1))), "{name}: but it is remembered");
    }
}

#[tokio::test]
async fn an_act_with_a_key_is_done_once_and_then_answered_as_before() {
    for (name, store, _directory) in adapters().await {
        let acme = tenant("acme");
        assert_eq!(store.recall(Digest([1; 32]), now()).await, Ok(None), "{name}");
        assert_eq!(store.create_tenant(&made("acme"), &once(1, now())).await, Ok(Done::Now(())), "{name}");
        let again = store.create_tenant(&made("acme"), &once(1, now())).await;
        assert_eq!(again, Ok(Done::Before(answered(1))), "{name}: not that it exists");
        store.change_tenant(&acme, &to_plan("growth"), &once(2, now())).await.unwrap();
        store.change_tenant(&acme, &to_plan("pro"), &plain()).await.unwrap();
        let again = store.change_tenant(&acme, &to_plan("growth"), &once(2, now())).await;
        assert_eq!(again, Ok(Done::Before(answered(2))), "{name}: the later plan stays");
        assert_eq!(store.add_key(&key(), &once(3, now())).await, Ok(Done::Now(())), "{name}");
        assert_eq!(store.add_key(&key(), &once(3, now())).await, Ok(Done::Before(answered(3))), "{name}");
        store.revoke_key(&acme, &key().id, &once(4, now())).await.unwrap();
        let again = store.revoke_key(&acme, &key().id, &once(4, now())).await;
        assert_eq!(again, Ok(Done::Before(answered(4))), "{name}");
        let expected = ["tenant.create", "plan.set", "plan.set", "key.create", "key.revoke"];
        assert_eq!(actions(&store).await, expected, "{name}");
        assert_eq!(store.load().await.unwrap().tenants[0].plan.as_str(), "pro", "{name}");
        // The id decides, whatever else is asked: to tell apart what was asked is the caller's.
        let other = store.create_tenant(&made("other"), &once(1, now())).await;
        assert_eq!(other, Ok(Done::Before(answered(1))), "{name}");
        assert_eq!(store.load().await.unwrap().tenants.len(), 1, "{name}");
    }
}

#[tokio::test]
async fn what_fails_is_not_remembered() {
    for (name, store, _directory) in adapters().await {
        store.create_tenant(&made("acme"), &plain()).await.unwrap();
        let nobody = tenant("nobody");
        let taken = store.create_tenant(&made("acme"), &once(1, now())).await;
        assert!(matches!(taken, Err(StoreError::Exists(_))), "{name}: {taken:?}");
        let missing = store.change_tenant(&nobody, &to_plan("pro"), &once(2, now())).await;
        assert!(matches!(missing, Err(StoreError::Missing(_))), "{name}: {missing:?}");
        let missing = store.add_key(&Key { tenant: nobody, ..key() }, &once(3, now())).await;
        assert!(matches!(missing, Err(StoreError::Missing(_))), "{name}: {missing:?}");
        for number in [1, 2, 3] {
            assert_eq!(store.recall(Digest([number; 32]), now()).await, Ok(None), "{name}: {number}");
        }
        assert_eq!(store.create_tenant(&made("other"), &once(1, now())).await, Ok(Done::Now(())), "{name}");
    }
}

#[tokio::test]
async fn an_answer_is_remembered_for_24_hours_and_not_a_microsecond_longer() {
    for (name, store, _directory) in adapters().await {
        store.create_tenant(&made("acme"), &once(1, now())).await.unwrap();
        let last = Micros(now().0 + REMEMBERED_US - 1);
        let over = Micros(now().0 + REMEMBERED_US);
        assert_eq!(store.recall(Digest([1; 32]), last).await, Ok(Some(answered(1))), "{name}");
        assert_eq!(store.recall(Digest([1; 32]), over).await, Ok(None), "{name}");
        let again = store.create_tenant(&made("late"), &once(1, last)).await;
        assert_eq!(again, Ok(Done::Before(answered(1))), "{name}");
        assert_eq!(store.create_tenant(&made("late"), &once(1, over)).await, Ok(Done::Now(())), "{name}");
        let later = Micros(over.0 + REMEMBERED_US - 1);
        assert_eq!(store.recall(Digest([1; 32]), later).await, Ok(Some(answered(1))), "{name}: remembered anew");
    }
}

#[tokio::test]
async fn the_log_is_read_in_parts_from_both_ends() {
    for (name, store, _directory) in adapters().await {
        for id in ["a", "b", "c"] {
            store.create_tenant(&made(id), &plain()).await.unwrap();
        }
        for plan in ["growth", "pro"] {
            store.change_tenant(&tenant("b"), &to_plan(plan), &plain()).await.unwrap();
        }
        let all = log(&store).await;
        let part = async |of: Option<&str>, start: AuditStart, entries_max: u32| {
            let query = AuditQuery {
                filter: AuditFilter { tenant: of.map(tenant), ..AuditFilter::default() },
                start,
                entries_max,
            };
            store.audit(&query).await.unwrap()
        };
        assert_eq!(part(None, AuditStart::After(0), 2).await, all[..2], "{name}");
        assert_eq!(part(None, AuditStart::After(all[1].row), 2).await, all[2..4], "{name}");
        assert_eq!(part(None, AuditStart::After(all[4].row), 2).await, [], "{name}");
        assert_eq!(part(None, AuditStart::End, 2).await, all[3..], "{name}");
        let of_b = [all[1].clone(), all[3].clone(), all[4].clone()];
        assert_eq!(part(Some("b"), AuditStart::After(0), 9).await, of_b, "{name}");
        assert_eq!(part(Some("b"), AuditStart::After(all[1].row), 1).await, of_b[1..2], "{name}");
        assert_eq!(part(Some("b"), AuditStart::End, 2).await, of_b[1..], "{name}");
        assert_eq!(part(Some("nobody"), AuditStart::End, 2).await, [], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_with_the_same_key_at_once_one_is_done_and_the_others_hear_its_answer() {
    for (name, store, _directory) in adapters().await {
        let tries: Vec<_> = (0..50u8)
            .map(|number| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    let mut act = once(1, now());
                    // Each has prepared an answer of its own, as each new key has another plaintext.
                    act.memory.as_mut().unwrap().answered.sealed = vec![number];
                    (number, store.create_tenant(&made("acme"), &act).await.unwrap())
                })
            })
            .collect();
        let (mut done, mut told) = (Vec::new(), Vec::new());
        for one in tries {
            match one.await.unwrap() {
                (number, Done::Now(())) => done.push(vec![number]),
                (_, Done::Before(answered)) => told.push(answered.sealed),
            }
        }
        assert_eq!((done.len(), told.len()), (1, 49), "{name}");
        assert!(told.iter().all(|answer| *answer == done[0]), "{name}");
        assert_eq!(actions(&store).await, ["tenant.create"], "{name}");
    }
}
