//! Which account a credential belongs to.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tracing::warn;

use crate::domain::audit::{Actor, Author};
use crate::domain::ids::{KeyId, PlanName, TenantId};
use crate::domain::key::{self, Key, KeyHash};
use crate::domain::refusal::Refusal;
use crate::domain::tenant::Tenant;
use crate::domain::zone::Zone;
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::tenants::{Act, TenantStore};

use super::look_ups::LookUps;
use super::snapshot::{Account, Snapshots};

/// Unknown keys that are remembered, so that each is looked up once. When full, all are forgotten: an attacker who mints
/// well-formed keys costs at most the look-ups that [`LookUps`] allows.
const UNKNOWN_MAX: usize = 10_000;

/// An unknown key is looked up again after this. One that is issued meanwhile works sooner: as soon as the snapshot, which
/// is asked first and read anew all the time, has it.
const UNKNOWN_FOR_US: u64 = 5_000_000;

/// Who may present what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A tenant id is a credential; unknown ones are created on the starter plan.
    Dev,
    /// Issued keys only.
    Prod,
}

/// Whose a credential is.
#[derive(Debug, Clone)]
pub enum Identity {
    /// A tenant's, and with which key; a dev tenant has none.
    Tenant(Arc<Account>, Option<Arc<Key>>),
    /// The admin's.
    Admin,
}

/// Resolves credentials against the snapshot; goes to the store for what it does not know.
pub struct Identities {
    mode: Mode,
    admin: ArcSwap<KeyHash>,
    starter: PlanName,
    snapshots: Arc<Snapshots>,
    store: Arc<dyn TenantStore>,
    clock: Arc<dyn Clock>,
    unknown: Mutex<HashMap<KeyHash, u64>>,
    look_ups: LookUps,
}

/// The SHA-256 of a key.
pub fn hash(secret: &str) -> KeyHash {
    KeyHash(Sha256::digest(secret.as_bytes()).into())
}

impl Identities {
    /// Identities over the store. `starter` is the plan of tenants that dev mode creates.
    pub fn new(
        mode: Mode,
        admin: KeyHash,
        starter: PlanName,
        snapshots: Arc<Snapshots>,
        store: Arc<dyn TenantStore>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let unknown = Mutex::new(HashMap::new());
        let admin = ArcSwap::from_pointee(admin);
        let look_ups = LookUps::new(clock.clone());
        Self { mode, admin, starter, snapshots, store, clock, unknown, look_ups }
    }

    /// Whether tenant ids are credentials.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// From now on this is the hash of the admin key; the one before opens nothing any more.
    pub fn set_admin(&self, admin: KeyHash) {
        self.admin.store(Arc::new(admin));
    }

    fn is_admin(&self, hash: KeyHash) -> bool {
        hash.0.ct_eq(&self.admin.load().0).into()
    }

    /// Whose `secret` is, where that is known without a look-up; never the admin, whose key is to be guessed least.
    pub fn known(&self, secret: &str) -> Option<Result<Identity, Refusal>> {
        if key::is_well_formed(secret) {
            return self.known_key(hash(secret));
        }
        let id = secret.parse().ok().filter(|_| self.mode == Mode::Dev && !self.is_admin(hash(secret)));
        let account = self.account(&id?)?;
        Some(active(&account).map(|account| Identity::Tenant(account, None)))
    }

    /// Whose `secret` is. [`Refusal::BadKey`] when nobody's, [`Refusal::KeysDown`] when that could not be found out.
    pub async fn find(&self, secret: &str) -> Result<Identity, Refusal> {
        if key::is_well_formed(secret) {
            return self.find_key(hash(secret)).await;
        }
        if self.is_admin(hash(secret)) {
            return Ok(Identity::Admin);
        }
        match (self.mode, secret.parse::<TenantId>()) {
            (Mode::Dev, Ok(id)) => self.find_dev_tenant(id).await,
            _ => Err(Refusal::BadKey),
        }
    }

    async fn find_key(&self, hash: KeyHash) -> Result<Identity, Refusal> {
        if let Some(found) = self.known_key(hash) {
            return found;
        }
        // The admin key may itself have the form of a tenant's key.
        if self.is_admin(hash) {
            return Ok(Identity::Admin);
        }
        if self.is_remembered(hash) {
            return Err(Refusal::BadKey);
        }
        let is_looked_up = self.look_ups.share(self.refresh()).await;
        if let Some(found) = self.known_key(hash) {
            return found;
        }
        // Where nobody could look, a good key must not be called a bad one: clients try again after this, not after 401.
        if !is_looked_up {
            return Err(Refusal::KeysDown);
        }
        self.remember_unknown(hash);
        Err(Refusal::BadKey)
    }

    /// The account of a tenant that proves itself by what it got from us with this key, if both are still good.
    /// [`Refusal::BadUpload`] when they are not, [`Refusal::KeysDown`] when that could not be found out.
    pub async fn holder(&self, tenant: &TenantId, key: Option<&KeyId>) -> Result<Arc<Account>, Refusal> {
        if let Some(account) = self.known_holder(tenant, key) {
            return active(&account);
        }
        // Another node may have made them a moment ago.
        let is_looked_up = self.look_ups.share(self.refresh()).await;
        match self.known_holder(tenant, key) {
            Some(account) => active(&account),
            None if is_looked_up => Err(Refusal::BadUpload),
            None => Err(Refusal::KeysDown),
        }
    }

    fn known_holder(&self, tenant: &TenantId, id: Option<&KeyId>) -> Option<Arc<Account>> {
        let snapshot = self.snapshots.load();
        let account = snapshot.accounts.get(tenant)?;
        // All keys are gone through: there is no index by their ids, and a piece of an upload is large.
        let is_good = id.is_none_or(|id| {
            snapshot.keys.values().any(|key| key.id == *id && key.tenant == *tenant && key.is_live(self.clock.now()))
        });
        is_good.then(|| account.clone())
    }

    fn known_key(&self, hash: KeyHash) -> Option<Result<Identity, Refusal>> {
        let snapshot = self.snapshots.load();
        let key = snapshot.keys.get(&hash)?;
        if !key.is_live(self.clock.now()) {
            return Some(Err(Refusal::BadKey));
        }
        let account = snapshot.accounts.get(&key.tenant)?;
        Some(active(account).map(|account| Identity::Tenant(account, Some(key.clone()))))
    }

    async fn find_dev_tenant(&self, id: TenantId) -> Result<Identity, Refusal> {
        if let Some(account) = self.account(&id) {
            return active(&account).map(|account| Identity::Tenant(account, None));
        }
        let tenant = Tenant {
            id: id.clone(),
            name: id.to_string(),
            plan: self.starter.clone(),
            suspended: false,
            zone: Zone::UTC,
            created_at: self.clock.now(),
        };
        let act = Act::by(Author::of(Actor::Tenant), tenant.created_at);
        match self.store.create_tenant(&tenant, &act).await {
            // Another call created it at the same time: as good.
            Ok(_) | Err(StoreError::Exists(_)) => {
                self.refresh().await;
            }
            Err(error) => {
                warn!(%error, "A dev tenant could not be created.");
                return Err(Refusal::CountersDown);
            }
        }
        let account = self.account(&id).ok_or(Refusal::CountersDown)?;
        active(&account).map(|account| Identity::Tenant(account, None))
    }

    /// The account of a tenant, as far as this process knows it.
    pub fn account(&self, id: &TenantId) -> Option<Arc<Account>> {
        self.snapshots.load().accounts.get(id).cloned()
    }

    /// Reads tenants and keys again if they changed. Says whether that was possible.
    async fn refresh(&self) -> bool {
        let refreshed = self.snapshots.refresh(self.store.as_ref()).await;
        if let Err(error) = &refreshed {
            warn!(%error, "Tenants and keys could not be read again; those known stay in force.");
        }
        refreshed.is_ok()
    }

    fn is_remembered(&self, hash: KeyHash) -> bool {
        let now = self.clock.monotonic_us();
        self.unknown.lock().get(&hash).is_some_and(|at| now.saturating_sub(*at) < UNKNOWN_FOR_US)
    }

    fn remember_unknown(&self, hash: KeyHash) {
        let mut unknown = self.unknown.lock();
        if unknown.len() >= UNKNOWN_MAX {
            unknown.clear();
        }
        unknown.insert(hash, self.clock.monotonic_us());
    }
}

fn active(account: &Arc<Account>) -> Result<Arc<Account>, Refusal> {
    if account.tenant.suspended { Err(Refusal::Suspended(account.tenant.id.clone())) } else { Ok(account.clone()) }
}

#[cfg(test)]
mod tests;
