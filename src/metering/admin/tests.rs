//! Tests of administration over ports in memory.

use super::super::fakes::World;
use super::*;
use crate::domain::audit::Actor;
use crate::metering::identity::hash;

fn author() -> Author {
    Author::of(Actor::Cli)
}

fn by<T>() -> Order<'static, T> {
    static AUTHOR: Author = Author { actor: Actor::Cli, key: None, request_id: None };
    Order::by(&AUTHOR)
}

fn id(text: &str) -> TenantId {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_new_tenant_and_its_key_count_at_once() {
    let world = World::open().await;
    world.admin.create_tenant(by(), id("initech"), "Initech".to_owned(), "growth", Zone::UTC).await.unwrap();
    let (key, plaintext) = world.admin.issue_key(by(), &id("initech"), "ci".to_owned(), None, None).await.unwrap();
    let snapshot = world.snapshots.load();
    assert_eq!(snapshot.accounts[&id("initech")].plan.as_ref().unwrap().name.as_str(), "growth");
    assert_eq!(snapshot.keys[&hash(&plaintext)].id, key.id);
    assert!(key::is_well_formed(&plaintext) && plaintext.ends_with(&key.last4));
}

#[tokio::test]
async fn a_revoked_key_stops_counting_and_stays_listed() {
    let world = World::open().await;
    let (key, plaintext) = world.admin.issue_key(by(), &id("acme"), "ci".to_owned(), None, None).await.unwrap();
    let first = world.admin.revoke_key(&author(), &id("acme"), &key.id).await.unwrap();
    assert!(!world.snapshots.load().keys.contains_key(&hash(&plaintext)));
    assert_eq!(world.admin.revoke_key(&author(), &id("acme"), &key.id).await.unwrap(), first);
    assert_eq!(world.admin.keys(&id("acme")).await.unwrap(), [first]);
    let other = world.admin.revoke_key(&author(), &id("globex"), &key.id).await;
    assert_eq!(other, Err(AdminError::UnknownKey { tenant: id("globex"), key: key.id }));
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_reason() {
    let World { admin, .. } = World::open().await;
    let told = |error: AdminError| error.to_string();
    let gold = admin.set_plan(by(), &id("acme"), "gold").await.unwrap_err();
    assert_eq!(told(gold), "there is no plan of that name; the plans are growth, pro, starter");
    assert_eq!(told(admin.set_plan(by(), &id("nobody"), "pro").await.unwrap_err()), "there is no tenant nobody");
    let twice = admin.create_tenant(by(), id("acme"), "Acme".to_owned(), "pro", Zone::UTC).await.unwrap_err();
    assert_eq!(told(twice), "tenant acme exists already");
    for name in ["", "  ", "a\nb", &"x".repeat(NAME_CHARS_MAX + 1)] {
        let refused = admin.create_tenant(by(), id("new"), name.to_owned(), "pro", Zone::UTC).await;
        assert_eq!(refused, Err(AdminError::InvalidName), "{name:?}");
    }
    let now = World::now();
    let late = admin.issue_key(by(), &id("acme"), "old".to_owned(), Some(now), None).await;
    assert_eq!(late, Err(AdminError::ExpiryPassed { expires_at: now, now }));
}

#[tokio::test]
async fn a_plan_counts_at_once_and_what_was_used_carries_over() {
    let world = World::open().await;
    world.show_chats("acme", 498, 1);
    let view = world.admin.limits(&id("acme"), &Who::default()).await.unwrap();
    assert_eq!((view.chats.limit, view.chats.remaining()), (Some(500), Some(1)));
    assert_eq!(view.chats.resets_at.to_string(), "2026-12-01T00:00:00Z");
    world.admin.set_plan(by(), &id("acme"), "growth").await.unwrap();
    let view = world.admin.limits(&id("acme"), &Who::default()).await.unwrap();
    assert_eq!((view.chats.limit, view.chats.standing.used, view.chats.remaining()), (Some(5_000), 498, Some(4_501)));
    world.admin.set_plan(by(), &id("acme"), "pro").await.unwrap();
    let view = world.admin.limits(&id("acme"), &Who::default()).await.unwrap();
    assert_eq!((view.plan.as_str(), view.chats.limit, view.chats.remaining()), ("pro", None, None));
}

#[tokio::test]
async fn limits_are_told_while_the_ledger_is_away() {
    let world = World::open().await;
    world.store.set_down(true);
    assert!(world.admin.limits(&id("acme"), &Who::default()).await.is_ok());
    assert!(matches!(world.admin.tenants().await, Err(AdminError::Store(_))));
    world.store.fall_silent();
    assert!(world.admin.limits(&id("acme"), &Who::default()).await.is_ok());
}

#[tokio::test]
async fn a_tenant_made_by_another_process_is_found() {
    let world = World::open().await;
    let tenant = Tenant { id: id("late"), ..world.admin.tenant(&id("acme")).await.unwrap() };
    world.store.create_tenant(&tenant, &Act::by(author(), World::now())).await.unwrap();
    assert_eq!(world.admin.limits(&id("late"), &Who::default()).await.unwrap().plan.as_str(), "starter");
    let ids: Vec<String> = world.admin.tenants().await.unwrap().iter().map(|tenant| tenant.id.to_string()).collect();
    assert_eq!(ids, ["acme", "globex", "late"]);
}

#[test]
fn no_two_keys_are_the_same() {
    assert_ne!(mint_key().unwrap(), mint_key().unwrap());
}

#[tokio::test]
async fn a_rotated_key_works_on_beside_the_new_one_and_no_longer_than_it_would_have() {
    let world = World::open().await;
    let (now, hour) = (World::now(), 3_600 * 1_000_000);
    let issue = async |name: &str, expires_at| {
        world.admin.issue_key(by(), &id("acme"), name.to_owned(), expires_at, None).await.unwrap()
    };
    let rotate = async |old: &KeyId, overlap_s, expires_at| {
        world.admin.rotate_key(by(), &id("acme"), old, overlap_s, expires_at).await
    };
    let expires_of = async |old: &KeyId| world.admin.key(&id("acme"), old).await.unwrap().expires_at;
    let (old, old_secret) = issue("ci", None).await;
    let (new, new_secret) = rotate(&old.id, 3_600, None).await.unwrap();
    assert_eq!((new.name.as_str(), new.expires_at), ("ci", None));
    assert_ne!(old_secret, new_secret);
    assert_eq!(expires_of(&old.id).await, Some(Micros(now.0 + hour)));
    let snapshot = world.snapshots.load_full();
    for secret in [&old_secret, &new_secret] {
        assert!(snapshot.keys[&hash(secret)].is_live(now), "both live");
    }
    assert!(!snapshot.keys[&hash(&old_secret)].is_live(Micros(now.0 + hour)));
    // One that ends sooner ends when it would have; the new one ends as the old one was to, or as it is told.
    let soon = Micros(now.0 + 60 * 1_000_000);
    let (old, _) = issue("short", Some(soon)).await;
    let (new, _) = rotate(&old.id, 3_600, None).await.unwrap();
    assert_eq!((expires_of(&old.id).await, new.expires_at), (Some(soon), Some(soon)));
    let (again, _) = rotate(&new.id, 0, Some(Micros(now.0 + hour))).await.unwrap();
    assert_eq!((expires_of(&new.id).await, again.expires_at), (Some(now), Some(Micros(now.0 + hour))));
    // What cannot be.
    world.admin.revoke_key(&author(), &id("acme"), &again.id).await.unwrap();
    let revoked = AdminError::KeyRevoked { tenant: id("acme"), key: again.id.clone() };
    assert_eq!(rotate(&again.id, 60, None).await, Err(revoked));
    assert_eq!(rotate(&old.id, OVERLAP_MAX_S + 1, None).await, Err(AdminError::OverlapTooLong));
    let other = world.admin.rotate_key(by(), &id("globex"), &old.id, 60, None).await;
    assert_eq!(other, Err(AdminError::UnknownKey { tenant: id("globex"), key: old.id }));
}
