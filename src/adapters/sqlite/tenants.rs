//! Tenants, their plans and their keys in SQLite.
//!
//! May use: `domain`, `ports`. Questions and changes are those of [`crate::adapters::sql`]. Each change is one writing
//! transaction, of which there is one at a time.

use sqlx::Sqlite;

use super::{SqliteLedger, store_error};
use crate::adapters::sql::{audit, changes, provider_keys};
use crate::domain::audit::{AuditEntry, Change};
use crate::domain::ids::{KeyId, ProviderId, TenantId};
use crate::domain::key::{Key, KeyHash};
use crate::domain::provider_key::{MasterId, SealedKey};
use crate::domain::tenant::Tenant;
use crate::domain::time::Micros;
use crate::ports::tenants::{
    Act, Answered, AuditQuery, Digest, Directory, Done, PlanChange, TenantChange, TenantStore,
};
use crate::ports::{BoxFuture, StoreError};

impl TenantStore for SqliteLedger {
    fn load(&self) -> BoxFuture<'_, Result<Directory, StoreError>> {
        Box::pin(async move {
            let mut snapshot = self.readers.begin().await.map_err(store_error)?;
            let directory = changes::load::<Sqlite>(&mut snapshot).await?;
            snapshot.rollback().await.map_err(store_error)?;
            Ok(directory)
        })
    }

    fn revision(&self) -> BoxFuture<'_, Result<i64, StoreError>> {
        Box::pin(async move { changes::revision::<Sqlite>(&mut *self.reader().await?).await })
    }

    fn create_tenant<'a>(&'a self, tenant: &'a Tenant, act: &'a Act) -> BoxFuture<'a, Result<Done<()>, StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let done = changes::create_tenant::<Sqlite>(&mut transaction, tenant, act).await?;
            self.commit(transaction).await?;
            Ok(done)
        })
    }

    fn change_tenant<'a>(
        &'a self,
        id: &'a TenantId,
        change: &'a TenantChange,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<Tenant>, StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let done = changes::change_tenant::<Sqlite>(&mut transaction, id, change, act).await?;
            self.commit(transaction).await?;
            Ok(done)
        })
    }

    fn plan_history<'a>(&'a self, tenant: &'a TenantId) -> BoxFuture<'a, Result<Vec<PlanChange>, StoreError>> {
        Box::pin(async move { changes::plan_history::<Sqlite>(&mut *self.reader().await?, tenant).await })
    }

    fn add_key<'a>(&'a self, key: &'a Key, act: &'a Act) -> BoxFuture<'a, Result<Done<()>, StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let done = changes::add_key::<Sqlite>(&mut transaction, key, act).await?;
            self.commit(transaction).await?;
            Ok(done)
        })
    }

    fn keys<'a>(&'a self, tenant: &'a TenantId) -> BoxFuture<'a, Result<Vec<Key>, StoreError>> {
        Box::pin(async move { changes::keys::<Sqlite>(&mut *self.reader().await?, tenant).await })
    }

    fn revoke_key<'a>(
        &'a self,
        tenant: &'a TenantId,
        key: &'a KeyId,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<Key>, StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let done = changes::revoke_key::<Sqlite>(&mut transaction, tenant, key, act).await?;
            self.commit(transaction).await?;
            Ok(done)
        })
    }

    fn rotate_key<'a>(
        &'a self,
        old: &'a KeyId,
        ends_at: Micros,
        new: &'a Key,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<()>, StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let done = changes::rotate_key::<Sqlite>(&mut transaction, old, ends_at, new, act).await?;
            self.commit(transaction).await?;
            Ok(done)
        })
    }

    fn set_provider_key<'a>(&'a self, key: &'a SealedKey, act: &'a Act) -> BoxFuture<'a, Result<Done<()>, StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let done = provider_keys::set::<Sqlite>(&mut transaction, key, act).await?;
            self.commit(transaction).await?;
            Ok(done)
        })
    }

    fn remove_provider_key<'a>(
        &'a self,
        tenant: &'a TenantId,
        provider: &'a ProviderId,
        sealed_with: Option<MasterId>,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<bool>, StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let done = provider_keys::remove::<Sqlite>(&mut transaction, (tenant, provider), sealed_with, act).await?;
            self.commit(transaction).await?;
            Ok(done)
        })
    }

    fn reseal_provider_key<'a>(
        &'a self,
        before: &'a SealedKey,
        after: &'a SealedKey,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<bool>, StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            let done = provider_keys::reseal::<Sqlite>(&mut transaction, before, after, act).await?;
            self.commit(transaction).await?;
            Ok(done)
        })
    }

    fn recall(&self, id: Digest, now: Micros) -> BoxFuture<'_, Result<Option<Answered>, StoreError>> {
        Box::pin(async move { audit::recall::<Sqlite>(&mut *self.reader().await?, id, now).await })
    }

    fn record<'a>(&'a self, change: &'a Change, act: &'a Act) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            audit::finish::<Sqlite>(&mut transaction, act, Some(change)).await?;
            self.commit(transaction).await
        })
    }

    fn audit<'a>(&'a self, query: &'a AuditQuery) -> BoxFuture<'a, Result<Vec<AuditEntry>, StoreError>> {
        Box::pin(async move { audit::entries::<Sqlite>(&mut *self.reader().await?, query).await })
    }

    fn touch_keys<'a>(&'a self, used: &'a [(KeyId, Micros)]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            if used.is_empty() {
                return Ok(());
            }
            let mut transaction = self.write().await?;
            changes::touch_keys::<Sqlite>(&mut transaction, used).await?;
            self.commit(transaction).await
        })
    }

    fn admin_key_hash(&self) -> BoxFuture<'_, Result<Option<KeyHash>, StoreError>> {
        Box::pin(async move { changes::admin_key_hash::<Sqlite>(&mut *self.reader().await?).await })
    }

    fn set_admin_key_hash<'a>(
        &'a self,
        hash: KeyHash,
        last4: &'a str,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            changes::set_admin_key_hash::<Sqlite>(&mut transaction, hash, last4, act).await?;
            self.commit(transaction).await
        })
    }
}
