//! A store without tenants: calls of the simulation bring theirs, and have no key whose use could be noted.

use tollgate::domain::audit::AuditEntry;
use tollgate::domain::ids::{KeyId, TenantId};
use tollgate::domain::key::{Key, KeyHash};
use tollgate::domain::tenant::Tenant;
use tollgate::domain::time::Micros;
use tollgate::ports::tenants::{
    Act, Answered, AuditQuery, Digest, Directory, Done, PlanChange, TenantChange, TenantStore,
};
use tollgate::ports::{BoxFuture, StoreError};

/// Whatever is asked of it is missing.
pub struct NoTenants;

type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

fn none<'a, T: Send + 'a>() -> Answer<'a, T> {
    Box::pin(async { Err(StoreError::Missing("a table of tenants".to_owned())) })
}

impl TenantStore for NoTenants {
    fn load(&self) -> Answer<'_, Directory> {
        none()
    }

    fn revision(&self) -> Answer<'_, i64> {
        none()
    }

    fn create_tenant<'a>(&'a self, _: &'a Tenant, _: &'a Act) -> Answer<'a, Done<()>> {
        none()
    }

    fn change_tenant<'a>(&'a self, _: &'a TenantId, _: &'a TenantChange, _: &'a Act) -> Answer<'a, Done<Tenant>> {
        none()
    }

    fn plan_history<'a>(&'a self, _: &'a TenantId) -> Answer<'a, Vec<PlanChange>> {
        none()
    }

    fn add_key<'a>(&'a self, _: &'a Key, _: &'a Act) -> Answer<'a, Done<()>> {
        none()
    }

    fn keys<'a>(&'a self, _: &'a TenantId) -> Answer<'a, Vec<Key>> {
        none()
    }

    fn revoke_key<'a>(&'a self, _: &'a TenantId, _: &'a KeyId, _: &'a Act) -> Answer<'a, Done<Key>> {
        none()
    }

    fn recall(&self, _: Digest, _: Micros) -> Answer<'_, Option<Answered>> {
        none()
    }

    fn audit<'a>(&'a self, _: &'a AuditQuery) -> Answer<'a, Vec<AuditEntry>> {
        none()
    }

    fn touch_keys<'a>(&'a self, _: &'a [(KeyId, Micros)]) -> Answer<'a, ()> {
        none()
    }

    fn admin_key_hash(&self) -> Answer<'_, Option<KeyHash>> {
        none()
    }

    fn set_admin_key_hash(&self, _: KeyHash) -> Answer<'_, ()> {
        none()
    }
}
