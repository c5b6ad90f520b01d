//! Tests of keys that are not known here, or not yet.

use super::super::fakes::{StoppedClock, World};
use super::*;

fn identities(world: &World) -> Arc<Identities> {
    let clock = Arc::new(StoppedClock(World::now()));
    let admin = hash("an admin key that nobody presents");
    let (snapshots, store) = (world.snapshots.clone(), world.store.clone());
    Arc::new(Identities::new(Mode::Prod, admin, PlanName::starter(), snapshots, store, clock))
}

/// A well-formed key that nobody issued.
fn never_issued(number: u8) -> String {
    key::mint(std::array::from_fn(|at| if at == 0 { number / 62 } else { number % 62 }))
}

/// Issues that key to `acme` as another gateway of the same ledger does: it is in the store, and in no snapshot of ours.
async fn issue_elsewhere(world: &World, secret: &str) {
    let key = Key {
        id: KeyId::from_random(1),
        tenant: "acme".parse().unwrap(),
        hash: hash(secret),
        last4: "0000".to_owned(),
        name: "backend".to_owned(),
        created_at: World::now(),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
        models: None,
    };
    world.store.add_key(&key, &Act::by(Author::of(Actor::Cli), World::now())).await.unwrap();
    assert!(!world.snapshots.load().keys.contains_key(&key.hash));
}

fn demand_acme(found: Result<Identity, Refusal>) {
    match found {
        Ok(Identity::Tenant(account, Some(_))) => assert_eq!(account.tenant.id.as_str(), "acme"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_of_another_gateway_works_at_once_while_somebody_probes() {
    let world = World::open().await;
    let identities = identities(&world);
    // More than the burst that goes without a wait, so that the look-ups of the probes are slowed down.
    let probes: Vec<_> = (0..200)
        .map(|number| {
            let identities = identities.clone();
            tokio::spawn(async move { identities.find(&never_issued(number)).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let secret = never_issued(250);
    issue_elsewhere(&world, &secret).await;
    demand_acme(identities.find(&secret).await);
    for probe in probes {
        assert_eq!(probe.await.unwrap().unwrap_err(), Refusal::BadKey);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_is_looked_up_once_and_works_as_soon_as_the_snapshot_has_it() {
    let world = World::open().await;
    let identities = identities(&world);
    let secret = never_issued(1);
    assert_eq!(identities.find(&secret).await.unwrap_err(), Refusal::BadKey);
    // With the store down a second look-up would be told from the memory of the first.
    world.store.set_down(true);
    assert_eq!(identities.find(&secret).await.unwrap_err(), Refusal::BadKey);
    world.store.set_down(false);
    issue_elsewhere(&world, &secret).await;
    world.snapshots.refresh(&*world.store).await.unwrap();
    demand_acme(identities.find(&secret).await);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_could_not_be_looked_up_is_not_called_wrong_nor_remembered() {
    let world = World::open().await;
    let identities = identities(&world);
    let secret = never_issued(1);
    issue_elsewhere(&world, &secret).await;
    world.store.set_down(true);
    assert_eq!(identities.find(&secret).await.unwrap_err(), Refusal::KeysDown);
    world.store.set_down(false);
    demand_acme(identities.find(&secret).await);
}

#[tokio::test(start_paused = true)]
async fn what_was_got_with_a_key_is_good_as_long_as_the_key_and_on_every_node() {
    let world = World::open().await;
    let identities = identities(&world);
    let (tenant, id) = ("acme".parse().unwrap(), KeyId::from_random(1));
    let holder = async |key| identities.holder(&tenant, key).await.map(|account| account.tenant.id.to_string());
    assert_eq!(holder(None).await, Ok("acme".to_owned()));
    assert_eq!(holder(Some(&id)).await, Err(Refusal::BadUpload));
    world.store.set_down(true);
    assert_eq!(holder(Some(&id)).await, Err(Refusal::KeysDown));
    world.store.set_down(false);
    issue_elsewhere(&world, &never_issued(1)).await;
    assert_eq!(holder(Some(&id)).await, Ok("acme".to_owned()));
    // The key is another tenant's, or nobody's.
    let other = "nobody".parse().unwrap();
    assert_eq!(identities.holder(&other, None).await.unwrap_err(), Refusal::BadUpload);
    let act = Act::by(Author::of(Actor::Cli), World::now());
    world.store.revoke_key(&tenant, &id, &act).await.unwrap();
    world.snapshots.refresh(&*world.store).await.unwrap();
    assert_eq!(holder(Some(&id)).await, Err(Refusal::BadUpload));
}
