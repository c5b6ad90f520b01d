//! Owners of objects, in memory, which can be told to be away.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::domain::ids::{ProviderId, TenantId};
use crate::domain::object::{ObjectName, OwnedObject};
use crate::domain::time::Micros;
use crate::ports::objects::ObjectStore;
use crate::ports::{BoxFuture, StoreError};

#[derive(Default)]
pub(crate) struct FakeObjects {
    owners: Mutex<HashMap<(ProviderId, ObjectName), TenantId>>,
    pub(crate) away: AtomicBool,
    pub(crate) asked: AtomicUsize,
}

impl FakeObjects {
    fn answer<T>(
        &self,
        work: impl FnOnce(&mut HashMap<(ProviderId, ObjectName), TenantId>) -> T,
    ) -> Result<T, StoreError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("away".to_owned()));
        }
        Ok(work(&mut self.owners.lock()))
    }
}

impl ObjectStore for FakeObjects {
    fn note_objects<'a>(&'a self, objects: &'a [OwnedObject], _: Micros) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.answer(|owners| {
                for OwnedObject { provider, made, tenant } in objects {
                    owners.entry((provider.clone(), made.name.clone())).or_insert_with(|| tenant.clone());
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
                let owner = |name: &ObjectName| owners.get(&(provider.clone(), name.clone())).cloned();
                names.iter().filter_map(|name| Some((name.clone(), owner(name)?))).collect()
            })
        })
    }

    fn forget_objects(&self, _: Micros) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move { self.answer(|_| 0) })
    }
}
