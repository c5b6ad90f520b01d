//! Tenants, their plans and their keys in SQLite.
//!
//! May use: `domain`, `ports`.

use sqlx::error::ErrorKind;
use sqlx::{AssertSqlSafe, SqliteConnection, query_with};

use super::rows::{self, Columns, KEY_COLUMNS, TENANT_COLUMNS, Values};
use super::{SqliteLedger, audit, store_error};
use crate::domain::audit::{AuditEntry, Change};
use crate::domain::ids::{KeyId, PlanName, TenantId};
use crate::domain::key::{Key, KeyHash};
use crate::domain::tenant::Tenant;
use crate::domain::time::Micros;
use crate::ports::tenants::{
    Act, Answered, AuditQuery, Digest, Directory, Done, PlanChange, TenantChange, TenantStore,
};
use crate::ports::{BoxFuture, StoreError};

/// What the last use of a key is rounded down to: enough for people, and it spares a write for most calls.
const TOUCH_US: i64 = 60_000_000;

impl TenantStore for SqliteLedger {
    fn load(&self) -> BoxFuture<'_, Result<Directory, StoreError>> {
        Box::pin(self.load_all())
    }

    fn revision(&self) -> BoxFuture<'_, Result<i64, StoreError>> {
        Box::pin(async move {
            let revision = sqlx::query_scalar("SELECT revision FROM meta").fetch_one(&self.readers);
            revision.await.map_err(store_error)
        })
    }

    fn create_tenant<'a>(&'a self, tenant: &'a Tenant, act: &'a Act) -> BoxFuture<'a, Result<Done<()>, StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            if let Some(answered) = audit::recall_act(&mut transaction, act).await? {
                return Ok(Done::Before(answered));
            }
            let Tenant { id, name, plan, suspended, created_at } = tenant;
            let insert = sqlx::query("INSERT INTO tenants (id, name, suspended, created_at) VALUES (?, ?, ?, ?)");
            let insert = insert.bind(id.as_str()).bind(name).bind(suspended).bind(created_at.0);
            let inserted = insert.execute(&mut *transaction).await;
            inserted.map_err(|error| taken(error, || format!("the tenant {id}")))?;
            add_plan(&mut transaction, id, plan, *created_at, act).await?;
            audit::finish(&mut transaction, act, Some(&Change::tenant_created(tenant))).await?;
            self.commit(transaction).await?;
            Ok(Done::Now(()))
        })
    }

    fn change_tenant<'a>(
        &'a self,
        id: &'a TenantId,
        change: &'a TenantChange,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<Tenant>, StoreError>> {
        Box::pin(self.change(id, change, act))
    }

    fn plan_history<'a>(&'a self, tenant: &'a TenantId) -> BoxFuture<'a, Result<Vec<PlanChange>, StoreError>> {
        Box::pin(async move {
            let text = "SELECT plan, valid_from, changed_by FROM tenant_plans WHERE tenant_id = ? ORDER BY row";
            let found = sqlx::query(text).bind(tenant.as_str()).fetch_all(&self.readers).await.map_err(store_error)?;
            let change = |row| {
                let mut columns = Columns::of(row);
                Ok(PlanChange { plan: columns.parse()?, valid_from: columns.instant()?, by: columns.take()? })
            };
            found.iter().map(change).collect()
        })
    }

    fn add_key<'a>(&'a self, key: &'a Key, act: &'a Act) -> BoxFuture<'a, Result<Done<()>, StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            if let Some(answered) = audit::recall_act(&mut transaction, act).await? {
                return Ok(Done::Before(answered));
            }
            if find_tenant(&mut transaction, &key.tenant).await?.is_none() {
                return Err(missing_tenant(&key.tenant));
            }
            let mut values = Values::default();
            rows::bind_key(&mut values, key)?;
            let text = format!("INSERT INTO keys ({KEY_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)");
            let inserted = query_with(AssertSqlSafe(text), values.0).execute(&mut *transaction).await;
            inserted.map_err(|error| taken(error, || format!("the key {}", key.id)))?;
            audit::finish(&mut transaction, act, Some(&Change::key_created(key))).await?;
            self.commit(transaction).await?;
            Ok(Done::Now(()))
        })
    }

    fn keys<'a>(&'a self, tenant: &'a TenantId) -> BoxFuture<'a, Result<Vec<Key>, StoreError>> {
        Box::pin(async move {
            let text = format!("SELECT {KEY_COLUMNS} FROM keys WHERE tenant_id = ? ORDER BY created_at DESC, row DESC");
            let found = sqlx::query(AssertSqlSafe(text)).bind(tenant.as_str()).fetch_all(&self.readers).await;
            found.map_err(store_error)?.iter().map(rows::key).collect()
        })
    }

    fn revoke_key<'a>(
        &'a self,
        tenant: &'a TenantId,
        key: &'a KeyId,
        act: &'a Act,
    ) -> BoxFuture<'a, Result<Done<Key>, StoreError>> {
        Box::pin(async move {
            let mut transaction = self.write().await?;
            if let Some(answered) = audit::recall_act(&mut transaction, act).await? {
                return Ok(Done::Before(answered));
            }
            let text = "UPDATE keys SET revoked_at = ? WHERE id = ? AND tenant_id = ? AND revoked_at IS NULL";
            let revoke = sqlx::query(text).bind(act.at.0).bind(key.as_str()).bind(tenant.as_str());
            let revoked = revoke.execute(&mut *transaction).await.map_err(store_error)?;
            let text = format!("SELECT {KEY_COLUMNS} FROM keys WHERE id = ? AND tenant_id = ?");
            let find = sqlx::query(AssertSqlSafe(text)).bind(key.as_str()).bind(tenant.as_str());
            let found = find.fetch_optional(&mut *transaction).await.map_err(store_error)?;
            let found = found.ok_or_else(|| StoreError::Missing(format!("the key {key} of tenant {tenant}")))?;
            let found = rows::key(&found)?;
            let change = (revoked.rows_affected() > 0).then(|| Change::key_revoked(&found));
            audit::finish(&mut transaction, act, change.as_ref()).await?;
            self.commit(transaction).await?;
            Ok(Done::Now(found))
        })
    }

    fn recall(&self, id: Digest, now: Micros) -> BoxFuture<'_, Result<Option<Answered>, StoreError>> {
        Box::pin(async move {
            let mut connection = self.readers.acquire().await.map_err(store_error)?;
            audit::recall(&mut connection, id, now).await
        })
    }

    fn audit<'a>(&'a self, query: &'a AuditQuery) -> BoxFuture<'a, Result<Vec<AuditEntry>, StoreError>> {
        Box::pin(async move {
            let mut statement = audit::statement(query);
            let found = statement.build().fetch_all(&self.readers).await.map_err(store_error)?;
            audit::entries(&found, query)
        })
    }

    fn touch_keys<'a>(&'a self, used: &'a [(KeyId, Micros)]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            if used.is_empty() {
                return Ok(());
            }
            let mut transaction = self.write().await?;
            for (key, at) in used {
                let minute = at.0 - at.0.rem_euclid(TOUCH_US);
                let text = "UPDATE keys SET last_used_at = ?1 WHERE id = ?2 AND COALESCE(last_used_at < ?1, TRUE)";
                let touch = sqlx::query(text).bind(minute).bind(key.as_str());
                touch.execute(&mut *transaction).await.map_err(store_error)?;
            }
            self.commit(transaction).await
        })
    }

    fn admin_key_hash(&self) -> BoxFuture<'_, Result<Option<KeyHash>, StoreError>> {
        Box::pin(async move {
            let found = sqlx::query("SELECT admin_key_hash FROM meta").fetch_one(&self.readers).await;
            rows::hash(&found.map_err(store_error)?)
        })
    }

    fn set_admin_key_hash(&self, hash: KeyHash) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let set = sqlx::query("UPDATE meta SET admin_key_hash = ?, revision = revision + 1");
            let set = set.bind(hash.0.to_vec()).execute(&self.writer);
            set.await.map(|_| ()).map_err(store_error)
        })
    }
}

impl SqliteLedger {
    async fn load_all(&self) -> Result<Directory, StoreError> {
        // One reading transaction sees one snapshot, so that the revision belongs to what is read with it.
        let mut snapshot = self.readers.begin().await.map_err(store_error)?;
        let revision = sqlx::query_scalar("SELECT revision FROM meta").fetch_one(&mut *snapshot);
        let revision = revision.await.map_err(store_error)?;
        let text = format!("SELECT {TENANT_COLUMNS} FROM tenants ORDER BY id");
        let tenants = sqlx::query(AssertSqlSafe(text)).fetch_all(&mut *snapshot).await.map_err(store_error)?;
        let text = format!("SELECT {KEY_COLUMNS} FROM keys WHERE revoked_at IS NULL ORDER BY row");
        let keys = sqlx::query(AssertSqlSafe(text)).fetch_all(&mut *snapshot).await.map_err(store_error)?;
        snapshot.commit().await.map_err(store_error)?;
        Ok(Directory {
            tenants: tenants.iter().map(rows::tenant).collect::<Result<_, _>>()?,
            keys: keys.iter().map(rows::key).collect::<Result<_, _>>()?,
            revision,
        })
    }

    async fn change(&self, id: &TenantId, change: &TenantChange, act: &Act) -> Result<Done<Tenant>, StoreError> {
        let TenantChange { name, suspended, plan } = change;
        let mut transaction = self.write().await?;
        if let Some(answered) = audit::recall_act(&mut transaction, act).await? {
            return Ok(Done::Before(answered));
        }
        let before = find_tenant(&mut transaction, id).await?.ok_or_else(|| missing_tenant(id))?;
        let after = Tenant {
            id: before.id.clone(),
            name: name.clone().unwrap_or_else(|| before.name.clone()),
            plan: plan.clone().unwrap_or_else(|| before.plan.clone()),
            suspended: suspended.unwrap_or(before.suspended),
            created_at: before.created_at,
        };
        let change = Change::tenant_changed(&before, &after);
        if change.is_some() {
            let update = sqlx::query("UPDATE tenants SET name = ?, suspended = ? WHERE id = ?");
            let update = update.bind(&after.name).bind(after.suspended).bind(id.as_str());
            update.execute(&mut *transaction).await.map_err(store_error)?;
        }
        if after.plan != before.plan {
            add_plan(&mut transaction, id, &after.plan, act.at, act).await?;
        }
        audit::finish(&mut transaction, act, change.as_ref()).await?;
        self.commit(transaction).await?;
        Ok(Done::Now(after))
    }
}

async fn find_tenant(connection: &mut SqliteConnection, id: &TenantId) -> Result<Option<Tenant>, StoreError> {
    let text = format!("SELECT {TENANT_COLUMNS} FROM tenants WHERE id = ?");
    let found = sqlx::query(AssertSqlSafe(text)).bind(id.as_str()).fetch_optional(connection);
    found.await.map_err(store_error)?.as_ref().map(rows::tenant).transpose()
}

async fn add_plan(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    plan: &PlanName,
    valid_from: Micros,
    act: &Act,
) -> Result<(), StoreError> {
    let insert = sqlx::query("INSERT INTO tenant_plans (tenant_id, plan, valid_from, changed_by) VALUES (?, ?, ?, ?)");
    let insert = insert.bind(tenant.as_str()).bind(plan.as_str()).bind(valid_from.0).bind(act.author.actor.as_str());
    insert.execute(connection).await.map(|_| ()).map_err(store_error)
}

fn missing_tenant(id: &TenantId) -> StoreError {
    StoreError::Missing(format!("the tenant {id}"))
}

/// The error of an INSERT, where a taken name or hash has a meaning of its own.
fn taken(error: sqlx::Error, what: impl FnOnce() -> String) -> StoreError {
    let is_taken = error.as_database_error().is_some_and(|error| error.kind() == ErrorKind::UniqueViolation);
    if is_taken { StoreError::Exists(what()) } else { store_error(error) }
}
