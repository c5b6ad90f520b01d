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
}

/// The store of tenants, plans of tenants and keys. The contract: each call is one transaction that also raises the
/// revision, so that another process sees the change; a call that fails changed nothing.
pub trait TenantStore: Send + Sync {
    /// Everything, read at one revision.
    fn load(&self) -> BoxFuture<'_, Result<Directory, StoreError>>;

    /// A number that grows with every change of tenants or keys by any process.
    fn revision(&self) -> BoxFuture<'_, Result<i64, StoreError>>;

    /// Creates a tenant on a plan. [`StoreError::Exists`] when the id is taken.
    fn create_tenant<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Changes a tenant; a new plan is a new row in its history. [`StoreError::Missing`] when there is none.
    fn change_tenant<'a>(
        &'a self,
        id: &'a TenantId,
        change: &'a TenantChange,
        now: Micros,
    ) -> BoxFuture<'a, Result<Tenant, StoreError>>;

    /// Adds a key. [`StoreError::Missing`] when its tenant does not exist.
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

    /// Notes when keys were last used, to the minute. Does not raise the revision.
    fn touch_keys<'a>(&'a self, used: &'a [(KeyId, Micros)]) -> BoxFuture<'a, Result<(), StoreError>>;

    /// The hash of the admin key, if one was made for this ledger.
    fn admin_key_hash(&self) -> BoxFuture<'_, Result<Option<KeyHash>, StoreError>>;

    /// Keeps the hash of the admin key.
    fn set_admin_key_hash(&self, hash: KeyHash) -> BoxFuture<'_, Result<(), StoreError>>;
}
