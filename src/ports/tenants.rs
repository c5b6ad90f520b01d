//! Tenants, their plans and keys, at rest.

use crate::domain::ids::{KeyId, PlanName, TenantId};
use crate::domain::key::{Key, KeyHash};
use crate::domain::tenant::Tenant;
use crate::domain::time::Micros;

use super::{BoxFuture, StoreError};

/// All tenants and keys, and the revision they were read at.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    /// Every tenant.
    pub tenants: Vec<Tenant>,
    /// Every key that is not revoked.
    pub keys: Vec<Key>,
    /// Grows with each change; see [`TenantStore::revision`].
    pub revision: i64,
}

/// A change to a tenant; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantChange {
    /// A new display name.
    pub name: Option<String>,
    /// Suspended or not.
    pub suspended: Option<bool>,
    /// A new plan.
    pub plan: Option<PlanName>,
    /// Who asks for it, such as `admin` or `tenant`, for the history of plans.
    pub by: Option<String>,
}

/// A plan that a tenant was put on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanChange {
    /// The plan.
    pub plan: PlanName,
    /// Since when; until the next change.
    pub valid_from: Micros,
    /// Who asked for it, where that is known.
    pub by: Option<String>,
}

/// The store of tenants, plans of tenants and keys. The contract: each call is one transaction; one that changes
/// anything also raises the revision, so that another process sees it; one that fails changed nothing.
pub trait TenantStore: Send + Sync {
    /// Everything, read at one revision.
    fn load(&self) -> BoxFuture<'_, Result<Directory, StoreError>>;

    /// A number that grows with every change of tenants or keys by any process.
    fn revision(&self) -> BoxFuture<'_, Result<i64, StoreError>>;

    /// Creates a tenant on a plan. [`StoreError::Exists`] when the id is taken.
    fn create_tenant<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Changes a tenant and says how it is now; another plan is a new entry in its history. [`StoreError::Missing`] when there is none.
    fn change_tenant<'a>(
        &'a self,
        id: &'a TenantId,
        change: &'a TenantChange,
        now: Micros,
    ) -> BoxFuture<'a, Result<Tenant, StoreError>>;

    /// The plans a tenant was put on, oldest first; the last is the one it is on. Empty when there is no such tenant.
    fn plan_history<'a>(&'a self, tenant: &'a TenantId) -> BoxFuture<'a, Result<Vec<PlanChange>, StoreError>>;

    /// Adds a key. [`StoreError::Missing`] when its tenant does not exist, [`StoreError::Exists`] when its id or hash
    /// is taken.
    fn add_key<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), StoreError>>;

    /// All keys of a tenant, revoked ones too, newest first.
    fn keys<'a>(&'a self, tenant: &'a TenantId) -> BoxFuture<'a, Result<Vec<Key>, StoreError>>;

    /// Revokes a key; revoking twice changes nothing. [`StoreError::Missing`] when the tenant has no such key.
    fn revoke_key<'a>(
        &'a self,
        tenant: &'a TenantId,
        key: &'a KeyId,
        now: Micros,
    ) -> BoxFuture<'a, Result<Key, StoreError>>;

    /// Remembers when keys last made a call, to the minute below. Keys that are not there and earlier times than the
    /// known ones change nothing. The revision stays: no decision depends on it.
    fn touch_keys<'a>(&'a self, used: &'a [(KeyId, Micros)]) -> BoxFuture<'a, Result<(), StoreError>>;

    /// The hash of the admin key, if one was made for this ledger.
    fn admin_key_hash(&self) -> BoxFuture<'_, Result<Option<KeyHash>, StoreError>>;

    /// Keeps the hash of the admin key.
    fn set_admin_key_hash(&self, hash: KeyHash) -> BoxFuture<'_, Result<(), StoreError>>;
}
