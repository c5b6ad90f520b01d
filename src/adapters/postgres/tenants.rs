//! Tenants, their plans and their keys in Postgres.
//!
//! May use: `domain`, `ports`. Questions and changes are those of [`crate::adapters::sql`]. Whoever changes something
//! locks the row of `meta` first: changes are made one after the other, as in SQLite, so that one is done once, and a
//! revision that is seen hides no older change that is not.

use sqlx::Postgres;

use super::PostgresLedger;
use super::session::Session;
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

/// In one statement for all keys, and in the order of their rows: two gateways that note the same ones wait for each other
/// and never in a circle.
const TOUCH: &str = "UPDATE keys SET last_used_at = used.minute FROM \
    (SELECT keys.row, told.minute FROM \
        (SELECT id, MAX(at - at % 60000000) AS minute FROM UNNEST($1, $2) AS told (id, at) GROUP BY id) AS told \
        JOIN keys ON keys.id = told.id WHERE COALESCE(keys.last_used_at < told.minute, TRUE) \
        ORDER BY keys.row FOR UPDATE OF keys) AS used \
    WHERE keys.row = used.row";

impl TenantStore for PostgresLedger {
    fn load(&self) -> BoxFuture<'_, Result<Directory, StoreError>> {
        Box::pin(async move {
            let mut snapshot = self.snapshot().await?;
            let directory = changes::load::<Postgres>(&mut snapshot).await;
            snapshot.end(directory).await
        })
    }

    fn revision(&self) -> BoxFuture<'_, Result<i64, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let revision = changes::revision::<Postgres>(&mut reader).await;
            reader.answer(revision)
        })
    }

    fn create_tenant<'a>(&'a self, tenant: &'a Tenant, act: &'a Act) -> BoxFuture<'a, Result<Done<()>, StoreError>> {
        Box::pin(async move {
            let mut change = self.change().await?;
            let done = changes::create_tenant::<Postgres>(&mut change, tenant, act).await;
            change.commit(done).await
        })
    }

    fn change_tenant<'a>(
        &'a self,
        id: &'a TenantId,
        to: &'a TenantChange,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<Tenant>, StoreError>> {
        Box::pin(async move {
            let mut change = self.change().await?;
            let done = changes::change_tenant::<Postgres>(&mut change, id, to, act).await;
            change.commit(done).await
        })
    }

    fn plan_history<'a>(&'a self, tenant: &'a TenantId) -> BoxFuture<'a, Result<Vec<PlanChange>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let history = changes::plan_history::<Postgres>(&mut reader, tenant).await;
            reader.answer(history)
        })
    }

    fn add_key<'a>(&'a self, key: &'a Key, act: &'a Act) -> BoxFuture<'a, Result<Done<()>, StoreError>> {
        Box::pin(async move {
            let mut change = self.change().await?;
            let done = changes::add_key::<Postgres>(&mut change, key, act).await;
            change.commit(done).await
        })
    }

    fn keys<'a>(&'a self, tenant: &'a TenantId) -> BoxFuture<'a, Result<Vec<Key>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let keys = changes::keys::<Postgres>(&mut reader, tenant).await;
            reader.answer(keys)
        })
    }

    fn revoke_key<'a>(
        &'a self,
        tenant: &'a TenantId,
        key: &'a KeyId,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<Key>, StoreError>> {
        Box::pin(async move {
            let mut change = self.change().await?;
            let done = changes::revoke_key::<Postgres>(&mut change, tenant, key, act).await;
            change.commit(done).await
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
            let mut change = self.change().await?;
            let done = changes::rotate_key::<Postgres>(&mut change, old, ends_at, new, act).await;
            change.commit(done).await
        })
    }

    fn set_provider_key<'a>(&'a self, key: &'a SealedKey, act: &'a Act) -> BoxFuture<'a, Result<Done<()>, StoreError>> {
        Box::pin(async move {
            let mut change = self.change().await?;
            let done = provider_keys::set::<Postgres>(&mut change, key, act).await;
            change.commit(done).await
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
            let mut change = self.change().await?;
            let done = provider_keys::remove::<Postgres>(&mut change, (tenant, provider), sealed_with, act).await;
            change.commit(done).await
        })
    }

    fn reseal_provider_key<'a>(
        &'a self,
        before: &'a SealedKey,
        after: &'a SealedKey,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<bool>, StoreError>> {
        Box::pin(async move {
            let mut change = self.change().await?;
            let done = provider_keys::reseal::<Postgres>(&mut change, before, after, act).await;
            change.commit(done).await
        })
    }

    fn recall(&self, id: Digest, now: Micros) -> BoxFuture<'_, Result<Option<Answered>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let answered = audit::recall::<Postgres>(&mut reader, id, now).await;
            reader.answer(answered)
        })
    }

    fn record<'a>(&'a self, done: &'a Change, act: &'a Act) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut change = self.change_in_time().await?;
            let recorded = audit::finish::<Postgres>(&mut change, act, Some(done)).await;
            change.commit(recorded).await
        })
    }

    fn audit<'a>(&'a self, query: &'a AuditQuery) -> BoxFuture<'a, Result<Vec<AuditEntry>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let entries = audit::entries::<Postgres>(&mut reader, query).await;
            reader.answer(entries)
        })
    }

    fn touch_keys<'a>(&'a self, used: &'a [(KeyId, Micros)]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            if used.is_empty() {
                return Ok(());
            }
            let (ids, instants): (Vec<&str>, Vec<i64>) = used.iter().map(|(id, at)| (id.as_str(), at.0)).unzip();
            let mut session = Session::of(&self.changer).await?;
            let touch = sqlx::query(TOUCH).bind(ids).bind(instants);
            let touched = Session::within(touch.execute(&mut *session)).await;
            session.answer(touched.map(|_| ()))
        })
    }

    fn admin_key_hash(&self) -> BoxFuture<'_, Result<Option<KeyHash>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let hash = changes::admin_key_hash::<Postgres>(&mut reader).await;
            reader.answer(hash)
        })
    }

    fn set_admin_key_hash<'a>(
        &'a self,
        hash: KeyHash,
        last4: &'a str,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut change = self.change().await?;
            let done = changes::set_admin_key_hash::<Postgres>(&mut change, hash, last4, act).await;
            change.commit(done).await
        })
    }
}
