//! Tests of tenants' own keys over ports in memory.

use std::sync::Arc;

use secrecy::SecretBox;

use super::*;
use crate::domain::audit::{Action, Actor};
use crate::metering::fakes::World;
use crate::metering::vault::{OwnKey, Vault};
use crate::ports::tenants::{AuditFilter, AuditQuery, AuditStart, TenantStore};

const KEY: &str = "sk-of-acme-0123456789";

fn author() -> Author {
    Author::of(Actor::Cli)
}

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

fn vault(bytes: &[u8]) -> Vault {
    Vault::new(bytes.iter().map(|byte| Arc::new(SecretBox::new(Box::new([*byte; 32])))))
}

/// The key that acme's calls to OpenAI go out with; `None`: the operator's.
fn own_key(world: &World) -> Option<Result<String, ()>> {
    let account = world.snapshots.load().accounts[&acme()].clone();
    account.own_keys.get(&ProviderId::new("openai")).map(|key| match key {
        OwnKey::Open(key) => Ok(key.expose_secret().to_owned()),
        OwnKey::Locked => Err(()),
    })
}

async fn set(world: &World, provider: &str, key: &str) -> Result<SealedKey, AdminError> {
    world.admin.set_provider_key(&author(), &acme(), provider, &key.into()).await
}

#[tokio::test]
async fn a_key_that_is_set_is_used_at_once_and_the_operators_after_it_is_removed() {
    let world = World::open().await;
    world.snapshots.set_vault(vault(&[1]));
    assert_eq!(own_key(&world), None);
    let set_now = set(&world, "openai", KEY).await.unwrap();
    assert_eq!(own_key(&world), Some(Ok(KEY.to_owned())));
    assert_eq!(world.admin.provider_keys(&acme()).await.unwrap(), [set_now]);
    set(&world, "openai", "sk-another-0123456789").await.unwrap();
    assert_eq!(own_key(&world), Some(Ok("sk-another-0123456789".to_owned())));
    for _ in 0..2 {
        world.admin.remove_provider_key(&author(), &acme(), "openai").await.unwrap();
        assert_eq!(own_key(&world), None);
    }
    // Three changes, and none of a removal that removed nothing; no key in any.
    let query = AuditQuery {
        filter: AuditFilter { tenant: Some(acme()), ..AuditFilter::default() },
        start: AuditStart::End,
        entries_max: 3,
    };
    let entries = world.store.audit(&query).await.unwrap();
    let actions: Vec<Action> = entries.iter().map(|entry| entry.change.action).collect();
    assert_eq!(actions, [Action::ProviderKeySet, Action::ProviderKeySet, Action::ProviderKeyRemove]);
    let text = format!("{entries:?}");
    assert!(!text.contains("sk-") && text.contains("6789"), "{text}");
}

#[tokio::test]
async fn what_cannot_be_a_key_or_cannot_be_sealed_is_refused() {
    let world = World::open().await;
    assert_eq!(set(&world, "openai", KEY).await, Err(AdminError::Vault(VaultError::NoMasterKey)));
    world.snapshots.set_vault(vault(&[1]));
    for bad in ["", "short", "with a space in it 0123456789", &"k".repeat(513)] {
        assert_eq!(set(&world, "openai", bad).await, Err(AdminError::InvalidProviderKey), "{bad:?}");
    }
    let told = set(&world, "anthropic", KEY).await.unwrap_err().to_string();
    assert_eq!(told, "there is no provider of that name; the providers are openai, gemini");
    let nobody: TenantId = "nobody".parse().unwrap();
    let refused = world.admin.set_provider_key(&author(), &nobody, "openai", &KEY.into()).await;
    assert_eq!(refused, Err(AdminError::UnknownTenant(nobody)));
    assert_eq!(own_key(&world), None);
}

#[tokio::test]
async fn a_key_that_no_master_key_opens_is_locked_and_never_the_operators() {
    let world = World::open().await;
    world.snapshots.set_vault(vault(&[1]));
    let sealed = set(&world, "openai", KEY).await.unwrap();
    let other = vault(&[2]);
    assert_eq!(world.snapshots.missing(&other).into_iter().collect::<Vec<_>>(), [sealed.master]);
    world.snapshots.set_vault(other);
    assert_eq!(own_key(&world), Some(Err(())));
    // Plans that are reloaded change nothing of it.
    let plans = (*world.snapshots.load().plans).clone();
    world.snapshots.replace(plans, crate::domain::price::PriceBook::default()).unwrap();
    assert_eq!(own_key(&world), Some(Err(())));
    world.snapshots.set_vault(vault(&[2, 1]));
    assert_eq!(own_key(&world), Some(Ok(KEY.to_owned())));
}

#[tokio::test]
async fn sealing_anew_is_done_once_and_leaves_what_it_cannot_open() {
    let world = World::open().await;
    let told = world.admin.reseal(&author()).await;
    assert_eq!(told, Err(AdminError::Vault(VaultError::NoMasterKey)));
    world.snapshots.set_vault(vault(&[1]));
    let old = set(&world, "openai", KEY).await.unwrap();
    world.snapshots.set_vault(vault(&[3]));
    set(&world, "gemini", "gemini-of-acme-0123456789").await.unwrap();
    let both = vault(&[2, 1]);
    let first = both.first().unwrap();
    world.snapshots.set_vault(both);
    let sealed = world.admin.reseal(&author()).await.unwrap();
    assert_eq!((sealed.first, sealed.resealed, sealed.as_they_were, sealed.unopened.len()), (first, 1, 0, 1));
    assert_eq!(sealed.unopened[0].provider.as_str(), "gemini");
    let again = world.admin.reseal(&author()).await.unwrap();
    assert_eq!((again.resealed, again.as_they_were, again.unopened.len()), (0, 1, 1));
    let kept = world.admin.provider_keys(&acme()).await.unwrap();
    let of_openai = kept.iter().find(|key| key.provider.as_str() == "openai").unwrap();
    assert_eq!((of_openai.master, of_openai.set_at), (first, old.set_at));
    world.snapshots.set_vault(vault(&[2]));
    assert_eq!(own_key(&world), Some(Ok(KEY.to_owned())));
}
