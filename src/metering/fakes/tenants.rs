//! Tenants, their keys and the log of their changes in memory.

use super::FakeStore;
use crate::domain::audit::{AuditEntry, Change};
use crate::domain::ids::{KeyId, ProviderId, TenantId};
use crate::domain::key::{Key, KeyHash};
use crate::domain::provider_key::{MasterId, SealedKey};
use crate::domain::tenant::Tenant;
use crate::domain::time::Micros;
use crate::ports::tenants::{
    Act, Answered, AuditQuery, AuditStart, Digest, Directory, Done, PlanChange, TenantChange, TenantStore,
};
use crate::ports::{BoxFuture, StoreError};

impl TenantStore for FakeStore {
    fn load(&self) -> BoxFuture<'_, Result<Directory, StoreError>> {
        let answer = self.answer(|tables| {
            let keys = tables.keys.iter().filter(|key| key.revoked_at.is_none()).cloned().collect();
            let (tenants, prices) = (tables.tenants.values().cloned().collect(), tables.prices.clone());
            let provider_keys = tables.provider_keys.clone();
            Ok(Directory { tenants, keys, provider_keys, prices, revision: tables.revision })
        });
        match self.slowness.lock().clone() {
            None => answer,
            Some(slowness) => Box::pin(async move {
                slowness.asked.notify_one();
                slowness.let_go.notified().await;
                answer.await
            }),
        }
    }

    fn revision(&self) -> BoxFuture<'_, Result<i64, StoreError>> {
        self.answer(|tables| Ok(tables.revision))
    }

    fn create_tenant<'a>(&'a self, tenant: &'a Tenant, act: &'a Act) -> BoxFuture<'a, Result<Done<()>, StoreError>> {
        self.answer(|tables| {
            tables.once(act, |tables| {
                if tables.tenants.contains_key(&tenant.id) {
                    return Err(StoreError::Exists(tenant.id.to_string()));
                }
                tables.tenants.insert(tenant.id.clone(), tenant.clone());
                Ok(((), Some(Change::tenant_created(tenant))))
            })
        })
    }

    fn change_tenant<'a>(
        &'a self,
        id: &'a TenantId,
        change: &'a TenantChange,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<Tenant>, StoreError>> {
        self.answer(|tables| {
            tables.once(act, |tables| {
                let tenant = tables.tenants.get_mut(id).ok_or_else(|| StoreError::Missing(id.to_string()))?;
                let before = tenant.clone();
                let TenantChange { name, suspended, plan, zone } = change.clone();
                tenant.name = name.unwrap_or_else(|| tenant.name.clone());
                tenant.suspended = suspended.unwrap_or(tenant.suspended);
                tenant.zone = zone.unwrap_or_else(|| tenant.zone.clone());
                tenant.plan = plan.unwrap_or_else(|| tenant.plan.clone());
                Ok((tenant.clone(), Change::tenant_changed(&before, tenant)))
            })
        })
    }

    fn plan_history<'a>(&'a self, tenant: &'a TenantId) -> BoxFuture<'a, Result<Vec<PlanChange>, StoreError>> {
        self.answer(|tables| Ok(tables.plans_of.get(tenant).cloned().unwrap_or_default()))
    }

    fn touch_keys<'a>(&'a self, _: &'a [(KeyId, Micros)]) -> BoxFuture<'a, Result<(), StoreError>> {
        self.answer(|_| Ok(()))
    }

    fn add_key<'a>(&'a self, key: &'a Key, act: &'a Act) -> BoxFuture<'a, Result<Done<()>, StoreError>> {
        self.answer(|tables| {
            tables.once(act, |tables| {
                tables.keys.insert(0, key.clone());
                Ok(((), Some(Change::key_created(key))))
            })
        })
    }

    fn keys<'a>(&'a self, tenant: &'a TenantId) -> BoxFuture<'a, Result<Vec<Key>, StoreError>> {
        self.answer(|tables| Ok(tables.keys.iter().filter(|key| key.tenant == *tenant).cloned().collect()))
    }

    fn revoke_key<'a>(
        &'a self,
        tenant: &'a TenantId,
        key: &'a KeyId,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<Key>, StoreError>> {
        self.answer(|tables| {
            tables.once(act, |tables| {
                let found = tables.keys.iter_mut().find(|known| known.tenant == *tenant && known.id == *key);
                let found = found.ok_or_else(|| StoreError::Missing(key.to_string()))?;
                let change = found.revoked_at.is_none().then(|| Change::key_revoked(found));
                found.revoked_at.get_or_insert(act.at);
                Ok((found.clone(), change))
            })
        })
    }

    fn rotate_key<'a>(
        &'a self,
        old: &'a KeyId,
        ends_at: Micros,
        new: &'a Key,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<()>, StoreError>> {
        self.answer(|tables| {
            tables.once(act, |tables| {
                let is_it =
                    |known: &&mut Key| known.tenant == new.tenant && known.id == *old && known.revoked_at.is_none();
                let found = tables.keys.iter_mut().find(is_it).ok_or_else(|| StoreError::Missing(old.to_string()))?;
                let before = found.clone();
                found.expires_at = Some(found.expires_at.map_or(ends_at, |at| at.min(ends_at)));
                let rotated = Change::key_rotated(&before, found);
                tables.once(&Act::by(act.author.clone(), act.at), |_| Ok(((), Some(rotated))))?;
                tables.keys.insert(0, new.clone());
                Ok(((), Some(Change::key_created(new))))
            })
        })
    }

    fn set_provider_key<'a>(&'a self, key: &'a SealedKey, act: &'a Act) -> BoxFuture<'a, Result<Done<()>, StoreError>> {
        self.answer(|tables| {
            tables.once(act, |tables| {
                if !tables.tenants.contains_key(&key.tenant) {
                    return Err(StoreError::Missing(key.tenant.to_string()));
                }
                let before = tables.take_provider_key(&key.tenant, &key.provider);
                tables.provider_keys.push(key.clone());
                Ok(((), Change::provider_key_set(before.as_ref(), Some(key))))
            })
        })
    }

    fn remove_provider_key<'a>(
        &'a self,
        tenant: &'a TenantId,
        provider: &'a ProviderId,
        sealed_with: Option<MasterId>,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<bool>, StoreError>> {
        self.answer(|tables| {
            tables.once(act, |tables| {
                let is_meant = |key: &SealedKey| sealed_with.is_none_or(|master| key.master == master);
                let known = tables.provider_keys.iter().find(|key| (&key.tenant, &key.provider) == (tenant, provider));
                if !known.is_some_and(is_meant) {
                    return Ok((false, None));
                }
                let before = tables.take_provider_key(tenant, provider);
                Ok((true, Change::provider_key_set(before.as_ref(), None)))
            })
        })
    }

    fn reseal_provider_key<'a>(
        &'a self,
        before: &'a SealedKey,
        after: &'a SealedKey,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<bool>, StoreError>> {
        self.answer(|tables| {
            tables.once(act, |tables| {
                let Some(found) = tables.provider_keys.iter_mut().find(|known| *known == before) else {
                    return Ok((false, None));
                };
                *found = after.clone();
                Ok((true, Some(Change::resealed(before, after))))
            })
        })
    }

    fn recall(&self, id: Digest, now: Micros) -> BoxFuture<'_, Result<Option<Answered>, StoreError>> {
        self.answer(|tables| Ok(tables.recall(id, now)))
    }

    fn record<'a>(&'a self, change: &'a Change, act: &'a Act) -> BoxFuture<'a, Result<(), StoreError>> {
        self.answer(|tables| tables.once(act, |_| Ok(((), Some(change.clone())))).map(|_| ()))
    }

    fn audit<'a>(&'a self, query: &'a AuditQuery) -> BoxFuture<'a, Result<Vec<AuditEntry>, StoreError>> {
        self.answer(|tables| {
            let AuditQuery { filter, start, entries_max } = query;
            let found: Vec<AuditEntry> = tables.audit.iter().filter(|entry| filter.fits(entry)).cloned().collect();
            let max = *entries_max as usize;
            Ok(match start {
                AuditStart::After(row) => found.into_iter().filter(|entry| entry.row > *row).take(max).collect(),
                AuditStart::End => found[found.len().saturating_sub(max)..].to_vec(),
            })
        })
    }

    fn admin_key_hash(&self) -> BoxFuture<'_, Result<Option<KeyHash>, StoreError>> {
        self.answer(|tables| Ok(tables.admin_key))
    }

    fn set_admin_key_hash<'a>(
        &'a self,
        hash: KeyHash,
        last4: &'a str,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.answer(|tables| {
            let is_first = tables.admin_key.is_none();
            tables.admin_key.get_or_insert(hash);
            tables.once(act, |_| Ok(((), is_first.then(|| Change::admin_key_created(last4))))).map(|_| ())
        })
    }
}
