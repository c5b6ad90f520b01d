//! Whose the objects are that providers keep, at rest.

use crate::domain::ids::{ProviderId, TenantId};
use crate::domain::object::{ObjectName, OwnedObject};
use crate::domain::time::Micros;

use super::{BoxFuture, StoreError};

/// The store of owners. The contract: who was noted first stays the owner, whatever is noted later. An object whose name was
/// chosen is noted as of when it was made, and goes before one of that name that was noted as of earlier.
pub trait ObjectStore: Send + Sync {
    /// Notes whose objects are, all of them or none.
    fn note_objects<'a>(&'a self, objects: &'a [OwnedObject], at: Micros) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Whose these objects of a provider are, of those that were noted.
    fn owners<'a>(
        &'a self,
        provider: &'a ProviderId,
        names: &'a [ObjectName],
    ) -> BoxFuture<'a, Result<Vec<(ObjectName, TenantId)>, StoreError>>;

    /// Forgets an object of a tenant's, which is deleted. Another tenant's of that name stays.
    fn drop_object<'a>(
        &'a self,
        provider: &'a ProviderId,
        name: &'a ObjectName,
        tenant: &'a TenantId,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Forgets some objects that pass by themselves and were noted before `before`; gives how many.
    fn forget_objects(&self, before: Micros) -> BoxFuture<'_, Result<u64, StoreError>>;
}
