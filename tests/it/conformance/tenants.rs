//! What every [`TenantStore`] promises.

use std::sync::Arc;

use tollgate::domain::audit::{Action, Actor, Author, Change};
use tollgate::domain::ids::{KeyId, PlanName, ProviderId};
use tollgate::domain::key::{Key, KeyHash};
use tollgate::domain::provider_key::{MasterId, SealedKey};
use tollgate::domain::tenant::Tenant;
use tollgate::domain::time::Micros;
use tollgate::domain::zone::Zone;
use tollgate::ports::StoreError;
use tollgate::ports::tenants::{Act, AuditFilter, AuditQuery, AuditStart, Done, PlanChange, TenantChange, TenantStore};

use super::{Keep, at, postgres, sqlite, tenant};

type Store = Arc<dyn TenantStore>;

/// Every adapter, empty, with what has to live as long as it does.
async fn adapters() -> Vec<(&'static str, Store, Keep)> {
    let (sqlite, directory) = sqlite().await;
    let (postgres, database) = postgres().await;
    vec![("sqlite", sqlite, Box::new(directory)), ("postgres", postgres, Box::new(database))]
}

fn plan(name: &str) -> PlanName {
    name.parse().unwrap()
}

fn acme() -> Tenant {
    Tenant {
        id: tenant("acme"),
        name: "Acme & Söhne".to_owned(),
        plan: plan("starter"),
        suspended: false,
        zone: Zone::UTC,
        created_at: at("2026-11-24T10:00:00Z"),
    }
}

fn key(number: u8) -> Key {
    Key {
        id: KeyId::from_random(u64::from(number)),
        tenant: tenant("acme"),
        hash: KeyHash([number; 32]),
        last4: "wxyz".to_owned(),
        name: format!("key {number}"),
        created_at: Micros(at("2026-11-24T10:00:00Z").0 + i64::from(number)),
        expires_at: number.is_multiple_of(2).then(|| at("2027-01-01T00:00:00Z")),
        revoked_at: None,
        last_used_at: None,
        models: number.is_multiple_of(3).then(|| "gpt-4o*, gemini-2.5-flash".parse().unwrap()),
    }
}

fn now() -> Micros {
    at("2026-11-25T12:00:30.5Z")
}

fn act() -> Act {
    act_at(now())
}

fn act_at(at: Micros) -> Act {
    Act::by(Author::of(Actor::Admin), at)
}

fn done<T>(outcome: Result<Done<T>, StoreError>) -> Result<T, StoreError> {
    match outcome? {
        Done::Now(done) => Ok(done),
        Done::Before(answered) => panic!("{answered:?}"),
    }
}

#[tokio::test]
async fn what_was_created_is_loaded_with_its_revision() {
    for (name, store, _directory) in adapters().await {
        let empty = store.load().await.unwrap();
        assert!(empty.tenants.is_empty() && empty.keys.is_empty(), "{name}");
        let other = Tenant { id: tenant("other"), suspended: true, ..acme() };
        store.create_tenant(&other, &act()).await.unwrap();
        store.create_tenant(&acme(), &act()).await.unwrap();
        for number in [1, 2] {
            store.add_key(&key(number), &act()).await.unwrap();
        }
        let mut directory = store.load().await.unwrap();
        directory.tenants.sort_by(|one, two| one.id.cmp(&two.id));
        directory.keys.sort_by(|one, two| one.id.cmp(&two.id));
        assert_eq!(directory.tenants, [acme(), other], "{name}");
        assert_eq!(directory.keys, [key(1), key(2)], "{name}");
        assert_eq!(Ok(directory.revision), store.revision().await, "{name}");
    }
}

#[tokio::test]
async fn every_change_raises_the_revision_and_what_changes_nothing_does_not() {
    for (name, store, _directory) in adapters().await {
        let mut last = store.revision().await.unwrap();
        let mut check = async |what: &str, is_raised: bool| {
            let revision = store.revision().await.unwrap();
            assert_eq!(revision > last, is_raised, "{name}: {what}");
            assert!(revision >= last, "{name}: {what}");
            last = revision;
        };
        let id = tenant("acme");
        store.create_tenant(&acme(), &act()).await.unwrap();
        check("create", true).await;
        store.create_tenant(&acme(), &act()).await.unwrap_err();
        check("create again", false).await;
        let growth = TenantChange { plan: Some(plan("growth")), ..TenantChange::default() };
        store.change_tenant(&id, &growth, &act()).await.unwrap();
        check("change", true).await;
        store.change_tenant(&id, &growth, &act()).await.unwrap();
        check("change to the same", false).await;
        store.change_tenant(&tenant("nobody"), &growth, &act()).await.unwrap_err();
        check("change nobody", false).await;
        store.add_key(&key(1), &act()).await.unwrap();
        check("key", true).await;
        store.add_key(&key(1), &act()).await.unwrap_err();
        check("key again", false).await;
        store.touch_keys(&[(key(1).id, now())]).await.unwrap();
        check("touch", false).await;
        store.revoke_key(&id, &key(1).id, &act()).await.unwrap();
        check("revoke", true).await;
        store.revoke_key(&id, &key(1).id, &act()).await.unwrap();
        check("revoke again", false).await;
        store.set_admin_key_hash(KeyHash([9; 32]), "wxyz", &act()).await.unwrap();
        check("admin key", true).await;
    }
}

#[tokio::test]
async fn what_exists_already_is_not_made_twice_and_stays_as_it_was() {
    for (name, store, _directory) in adapters().await {
        store.create_tenant(&acme(), &act()).await.unwrap();
        let again = Tenant { name: "Other".to_owned(), plan: plan("pro"), ..acme() };
        let refused = store.create_tenant(&again, &act()).await;
        assert!(matches!(refused, Err(StoreError::Exists(_))), "{name}: {refused:?}");

        store.add_key(&key(1), &act()).await.unwrap();
        let same_id = Key { id: key(1).id, ..key(2) };
        let same_hash = Key { hash: key(1).hash, ..key(2) };
        for taken in [same_id, same_hash] {
            let refused = store.add_key(&taken, &act()).await;
            assert!(matches!(refused, Err(StoreError::Exists(_))), "{name}: {refused:?}");
        }
        let directory = store.load().await.unwrap();
        assert_eq!((directory.tenants, directory.keys), (vec![acme()], vec![key(1)]), "{name}");
        assert_eq!(store.plan_history(&tenant("acme")).await.unwrap().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn what_is_missing_is_said_to_be() {
    for (name, store, _directory) in adapters().await {
        store.create_tenant(&acme(), &act()).await.unwrap();
        store.create_tenant(&Tenant { id: tenant("other"), ..acme() }, &act()).await.unwrap();
        store.add_key(&key(1), &act()).await.unwrap();
        let nobody = tenant("nobody");
        let missing = [
            store.change_tenant(&nobody, &TenantChange::default(), &act()).await.map(|_| ()),
            store.add_key(&Key { tenant: nobody.clone(), ..key(2) }, &act()).await.map(|_| ()),
            store.revoke_key(&tenant("acme"), &key(2).id, &act()).await.map(|_| ()),
            store.revoke_key(&tenant("other"), &key(1).id, &act()).await.map(|_| ()),
        ];
        for outcome in missing {
            assert!(matches!(outcome, Err(StoreError::Missing(_))), "{name}: {outcome:?}");
        }
        assert_eq!(store.keys(&nobody).await, Ok(Vec::new()), "{name}");
        assert_eq!(store.plan_history(&nobody).await, Ok(Vec::new()), "{name}");
        assert_eq!(store.load().await.unwrap().keys, [key(1)], "{name}: nothing was revoked");
    }
}

#[tokio::test]
async fn a_change_touches_only_what_it_names() {
    for (name, store, _directory) in adapters().await {
        store.create_tenant(&acme(), &act()).await.unwrap();
        let mut expected = acme();
        for change in [
            TenantChange { name: Some("New".to_owned()), ..TenantChange::default() },
            TenantChange { suspended: Some(true), ..TenantChange::default() },
            TenantChange { plan: Some(plan("pro")), ..TenantChange::default() },
            TenantChange::default(),
        ] {
            expected.name = change.name.clone().unwrap_or(expected.name);
            expected.suspended = change.suspended.unwrap_or(expected.suspended);
            expected.plan = change.plan.clone().unwrap_or(expected.plan);
            assert_eq!(
                done(store.change_tenant(&expected.id, &change, &act()).await).as_ref(),
                Ok(&expected),
                "{name}"
            );
            assert_eq!(store.load().await.unwrap().tenants, [expected.clone()], "{name}");
        }
    }
}

#[tokio::test]
async fn the_history_of_plans_has_each_change_once() {
    for (name, store, _directory) in adapters().await {
        store.create_tenant(&acme(), &act()).await.unwrap();
        let by = Some("admin".to_owned());
        // A clock that went back does not change which plan is the newest.
        let steps = [("growth", 10), ("growth", 20), ("starter", 5)];
        for (to, at_us) in steps {
            let change = TenantChange { plan: Some(plan(to)), ..TenantChange::default() };
            store.change_tenant(&tenant("acme"), &change, &act_at(Micros(at_us))).await.unwrap();
        }
        let expected = [
            PlanChange { plan: plan("starter"), valid_from: acme().created_at, by: by.clone() },
            PlanChange { plan: plan("growth"), valid_from: Micros(10), by: by.clone() },
            PlanChange { plan: plan("starter"), valid_from: Micros(5), by },
        ];
        assert_eq!(store.plan_history(&tenant("acme")).await.unwrap(), expected, "{name}");
        assert_eq!(store.load().await.unwrap().tenants[0].plan, plan("starter"), "{name}");
    }
}

#[tokio::test]
async fn a_revoked_key_is_listed_but_not_loaded_and_keeps_its_first_date() {
    for (name, store, _directory) in adapters().await {
        store.create_tenant(&acme(), &act()).await.unwrap();
        for number in [1, 2, 3] {
            store.add_key(&key(number), &act()).await.unwrap();
        }
        let revoked = Key { revoked_at: Some(now()), ..key(2) };
        let later = Micros(now().0 + 1);
        assert_eq!(done(store.revoke_key(&tenant("acme"), &key(2).id, &act()).await).as_ref(), Ok(&revoked), "{name}");
        assert_eq!(
            done(store.revoke_key(&tenant("acme"), &key(2).id, &act_at(later)).await).as_ref(),
            Ok(&revoked),
            "{name}"
        );
        assert_eq!(store.load().await.unwrap().keys, [key(1), key(3)], "{name}");
        assert_eq!(store.keys(&tenant("acme")).await.unwrap(), [key(3), revoked, key(1)], "{name}: newest first");
    }
}

#[tokio::test]
async fn the_last_use_of_a_key_is_kept_to_the_minute_and_never_goes_back() {
    for (name, store, _directory) in adapters().await {
        store.create_tenant(&acme(), &act()).await.unwrap();
        store.add_key(&key(1), &act()).await.unwrap();
        store.add_key(&key(2), &act()).await.unwrap();
        let minute = at("2026-11-25T12:00:00Z");
        let earlier = Micros(minute.0 - 1);
        store.touch_keys(&[(key(7).id, now()), (key(1).id, now())]).await.unwrap();
        store.touch_keys(&[(key(1).id, earlier)]).await.unwrap();
        store.touch_keys(&[]).await.unwrap();
        let used: Vec<_> = store.load().await.unwrap().keys.into_iter().map(|key| key.last_used_at).collect();
        assert_eq!(used, [Some(minute), None], "{name}");
    }
}

#[tokio::test]
async fn the_hash_of_the_admin_key_is_the_first_one_set_and_the_log_says_who_made_it() {
    for (name, store, _directory) in adapters().await {
        assert_eq!(store.admin_key_hash().await, Ok(None), "{name}");
        let act = Act::by(Author::of(Actor::Gateway), now());
        for (byte, last4) in [(1, "aaaa"), (2, "bbbb")] {
            store.set_admin_key_hash(KeyHash([byte; 32]), last4, &act).await.unwrap();
            assert_eq!(store.admin_key_hash().await, Ok(Some(KeyHash([1; 32]))), "{name}");
        }
        let query = AuditQuery { filter: AuditFilter::default(), start: AuditStart::After(0), entries_max: 9 };
        let log = store.audit(&query).await.unwrap();
        let told: Vec<_> = log.iter().map(|entry| (&entry.author, entry.at, &entry.change)).collect();
        assert_eq!(told, [(&act.author, now(), &Change::admin_key_created("aaaa"))], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_create_one_tenant_at_once_one_succeeds() {
    for (name, store, _directory) in adapters().await {
        let tries: Vec<_> = (0..20)
            .map(|_| {
                let store = Arc::clone(&store);
                tokio::spawn(async move { store.create_tenant(&acme(), &act()).await.is_ok() })
            })
            .collect();
        let mut created = 0;
        for one in tries {
            created += u32::from(one.await.unwrap());
        }
        assert_eq!(created, 1, "{name}");
    }
}

fn sealed(provider: &'static str, byte: u8) -> SealedKey {
    SealedKey {
        tenant: tenant("acme"),
        provider: ProviderId::new(provider),
        last4: format!("wx{byte:02}"),
        master: MasterId::from_bytes([byte; 8]),
        sealed: vec![byte; 40],
        set_at: Micros(now().0 + i64::from(byte)),
    }
}

#[tokio::test]
async fn a_sealed_key_is_kept_replaced_sealed_anew_and_removed() {
    for (name, store, _directory) in adapters().await {
        let refused = store.set_provider_key(&sealed("openai", 1), &act()).await;
        assert!(matches!(refused, Err(StoreError::Missing(_))), "{name}: {refused:?}");
        store.create_tenant(&acme(), &act()).await.unwrap();
        let mut last = store.revision().await.unwrap();
        let mut check = async |what: &str, is_raised: bool, keys: &[SealedKey]| {
            let directory = store.load().await.unwrap();
            assert_eq!(directory.provider_keys, keys, "{name}: {what}");
            assert_eq!(directory.revision > last, is_raised, "{name}: {what}");
            last = directory.revision;
        };
        let (id, openai) = (tenant("acme"), ProviderId::new("openai"));
        done(store.set_provider_key(&sealed("openai", 1), &act()).await).unwrap();
        done(store.set_provider_key(&sealed("gemini", 2), &act()).await).unwrap();
        check("set", true, &[sealed("gemini", 2), sealed("openai", 1)]).await;
        done(store.set_provider_key(&sealed("openai", 3), &act()).await).unwrap();
        check("replaced", true, &[sealed("gemini", 2), sealed("openai", 3)]).await;
        let anew = SealedKey { master: MasterId::from_bytes([9; 8]), sealed: vec![9; 40], ..sealed("openai", 3) };
        // What was replaced meanwhile is not sealed anew over what is there.
        assert_eq!(done(store.reseal_provider_key(&sealed("openai", 1), &anew, &act()).await), Ok(false), "{name}");
        check("not there any more", false, &[sealed("gemini", 2), sealed("openai", 3)]).await;
        assert_eq!(done(store.reseal_provider_key(&sealed("openai", 3), &anew, &act()).await), Ok(true), "{name}");
        check("sealed anew", true, &[sealed("gemini", 2), anew.clone()]).await;
        // Nor is it removed as one of the master key that it was sealed with.
        let (of_before, of_now) = (Some(sealed("openai", 3).master), Some(anew.master));
        assert_eq!(done(store.remove_provider_key(&id, &openai, of_before, &act()).await), Ok(false), "{name}");
        check("of another master key", false, &[sealed("gemini", 2), anew.clone()]).await;
        assert_eq!(done(store.remove_provider_key(&id, &openai, of_now, &act()).await), Ok(true), "{name}");
        check("removed", true, &[sealed("gemini", 2)]).await;
        assert_eq!(done(store.remove_provider_key(&id, &openai, None, &act()).await), Ok(false), "{name}");
        check("removed again", false, &[sealed("gemini", 2)]).await;
        let refused = store.remove_provider_key(&tenant("nobody"), &openai, None, &act()).await;
        assert!(matches!(refused, Err(StoreError::Missing(_))), "{name}: {refused:?}");
    }
}

#[tokio::test]
async fn a_key_is_rotated_whole_or_not_at_all() {
    for (name, store, _directory) in adapters().await {
        store.create_tenant(&acme(), &act()).await.unwrap();
        done(store.add_key(&key(1), &act()).await).unwrap();
        done(store.add_key(&key(2), &act()).await).unwrap();
        let ends_at = at("2026-12-24T00:00:00Z");
        let entries = async || {
            let query = AuditQuery { filter: AuditFilter::default(), start: AuditStart::End, entries_max: 100 };
            store.audit(&query).await.unwrap()
        };
        let known = entries().await.len();
        done(store.rotate_key(&key(1).id, ends_at, &key(3), &act()).await).unwrap();
        let expires = async |id: KeyId| {
            let keys = store.keys(&tenant("acme")).await.unwrap();
            keys.into_iter().find(|key| key.id == id).unwrap().expires_at
        };
        assert_eq!(expires(key(1).id).await, Some(ends_at), "{name}");
        assert_eq!(expires(key(3).id).await, key(3).expires_at, "{name}");
        let told: Vec<Action> = entries().await[known..].iter().map(|entry| entry.change.action).collect();
        assert_eq!(told, [Action::KeyRotate, Action::KeyCreate], "{name}");
        // One that would end sooner ends when it would have.
        let late = at("2027-06-01T00:00:00Z");
        done(store.rotate_key(&key(2).id, late, &key(5), &act()).await).unwrap();
        assert_eq!(expires(key(2).id).await, Some(at("2027-01-01T00:00:00Z")), "{name}");
        // A hash that is taken, a key that is revoked, a key of another: nothing changes.
        let taken = Key { hash: key(2).hash, ..key(7) };
        let refused = store.rotate_key(&key(3).id, ends_at, &taken, &act()).await;
        assert!(matches!(refused, Err(StoreError::Exists(_))), "{name}: {refused:?}");
        assert_eq!(expires(key(3).id).await, key(3).expires_at, "{name}");
        done(store.revoke_key(&tenant("acme"), &key(1).id, &act()).await).unwrap();
        let strange = Key { tenant: tenant("other"), ..key(8) };
        for (old, new) in [(key(1).id, key(8)), (key(3).id, strange)] {
            let refused = store.rotate_key(&old, ends_at, &new, &act()).await;
            assert!(matches!(refused, Err(StoreError::Missing(_))), "{name}: {refused:?}");
        }
    }
}
