//! Owners of objects, in memory, which can be told to be away.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::domain::ids::{ProviderId, TenantId};
use crate::domain::object::{ObjectName, OwnedObject};
use crate::domain::time::Micros;
use crate::ports::objects::ObjectStore;
use crate::ports::{BoxFuture, StoreError};

/// Whose an object is, and as of when that was noted.
type Owners = HashMap<(ProviderId, ObjectName), (TenantId, Micros)>;

#[derive(Default)]
pub(crate) struct FakeObjects {
    owners: Mutex<Owners>,
    pub(crate) away: AtomicBool,
    pub(crate) asked: AtomicUsize,
}

impl FakeObjects {
    fn answer<T>(&self, work: impl FnOnce(&mut Owners) -> T) -> Result<T, StoreError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("away".to_owned()));
        }
        Ok(work(&mut self.owners.lock()))
    }
}

impl ObjectStore for FakeObjects {
    fn note_objects<'a>(&'a self, objects: &'a [OwnedObject], at: Micros) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.answer(|owners| {
                for OwnedObject { provider, made, tenant } in objects {
                    let (object, as_of) = ((provider.clone(), made.name.clone()), made.chosen.unwrap_or(at));
                    let is_earlier = owners.get(&object).is_none_or(|(_, of)| made.chosen.is_some() && *of < as_of);
                    if is_earlier {
                        owners.insert(object, (tenant.clone(), as_of));
                    }
                }
            })
        })
    }

    fn owners<'a>(
        &'a self,
        provider: &'a ProviderId,
        names: &'a [ObjectName],
    ) -> BoxFuture<'a, Result<Vec<(ObjectName, TenantId)>, StoreError>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.answer(|owners| {
                let owner = |name: &ObjectName| Some(owners.get(&(provider.clone(), name.clone()))?.0.clone());
                names.iter().filter_map(|name| Some((name.clone(), owner(name)?))).collect()
            })
        })
    }

    fn drop_object<'a>(
        &'a self,
        provider: &'a ProviderId,
        name: &'a ObjectName,
        tenant: &'a TenantId,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.answer(|owners| {
                let object = (provider.clone(), name.clone());
                if owners.get(&object).is_some_and(|(owner, _)| owner == tenant) {
                    owners.remove(&object);
                }
            })
        })
    }

    fn forget_objects(&self, _: Micros) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move { self.answer(|_| 0) })
    }
}
