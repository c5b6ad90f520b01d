//! Tenants, their plans and their keys: questions and changes.
//!
//! May use: `domain`, `ports`. Every change runs inside a transaction of its caller, which has taken care that no other
//! change runs meanwhile, and commits. One that is done before changed nothing.

use sqlx::error::ErrorKind;

use super::cells::Columns;
use super::rows::{self, KEY_COLUMNS, TENANT_COLUMNS};
use super::statement::{Statement, places};
use super::usage::one;
use super::{Dialect, audit, prices, provider_keys};

use crate::domain::audit::Change;
use crate::domain::ids::{KeyId, PlanName, TenantId};
use crate::domain::key::{Key, KeyHash};
use crate::domain::tenant::Tenant;
use crate::domain::time::Micros;
use crate::ports::StoreError;
use crate::ports::tenants::{Act, Directory, Done, PlanChange, TenantChange};

/// What the last use of a key is rounded down to: enough for people, and it spares a write for most calls.
const TOUCH_US: i64 = 60_000_000;

/// Everything, inside a transaction that sees one instant: the revision belongs to what is read with it.
pub(in crate::adapters) async fn load<D: Dialect>(snapshot: &mut D::Connection) -> Result<Directory, StoreError> {
    let revision = revision::<D>(snapshot).await?;
    let text = format!("SELECT {TENANT_COLUMNS} FROM tenants ORDER BY id");
    let tenants = D::rows(snapshot, Statement::new(text)).await.map_err(D::error)?;
    let text = format!("SELECT {KEY_COLUMNS} FROM keys WHERE revoked_at IS NULL ORDER BY row");
    let keys = D::rows(snapshot, Statement::new(text)).await.map_err(D::error)?;
    Ok(Directory {
        tenants: tenants.iter().map(rows::tenant).collect::<Result<_, _>>()?,
        keys: keys.iter().map(rows::key).collect::<Result<_, _>>()?,
        provider_keys: provider_keys::all::<D>(snapshot).await?,
        prices: prices::active::<D>(snapshot).await?,
        revision,
    })
}

pub(in crate::adapters) async fn revision<D: Dialect>(connection: &mut D::Connection) -> Result<i64, StoreError> {
    let found = D::rows(connection, Statement::new("SELECT revision FROM meta")).await.map_err(D::error)?;
    one(&found)?.integer()
}

pub(in crate::adapters) async fn create_tenant<D: Dialect>(
    connection: &mut D::Connection,
    tenant: &Tenant,
    act: &Act,
) -> Result<Done<()>, StoreError> {
    if let Some(answered) = audit::recall_act::<D>(connection, act).await? {
        return Ok(Done::Before(answered));
    }
    let Tenant { id, name, plan, suspended, zone, created_at } = tenant;
    let text = "INSERT INTO tenants (id, name, suspended, created_at, timezone) VALUES ($1, $2, $3, $4, $5)";
    let insert = Statement::new(text).bind(id.as_str()).bind(name.as_str()).bind(*suspended).bind(created_at.0);
    let insert = insert.bind(zone.name());
    let inserted = D::run(connection, insert).await;
    inserted.map_err(|error| taken::<D>(error, || format!("the tenant {id}")))?;
    add_plan::<D>(connection, id, plan, *created_at, act).await?;
    audit::finish::<D>(connection, act, Some(&Change::tenant_created(tenant))).await?;
    Ok(Done::Now(()))
}

pub(in crate::adapters) async fn change_tenant<D: Dialect>(
    connection: &mut D::Connection,
    id: &TenantId,
    change: &TenantChange,
    act: &Act,
) -> Result<Done<Tenant>, StoreError> {
    if let Some(answered) = audit::recall_act::<D>(connection, act).await? {
        return Ok(Done::Before(answered));
    }
    let TenantChange { name, suspended, plan, zone } = change;
    let before = find_tenant::<D>(connection, id).await?.ok_or_else(|| missing_tenant(id))?;
    let after = Tenant {
        id: before.id.clone(),
        name: name.clone().unwrap_or_else(|| before.name.clone()),
        plan: plan.clone().unwrap_or_else(|| before.plan.clone()),
        suspended: suspended.unwrap_or(before.suspended),
        zone: zone.clone().unwrap_or_else(|| before.zone.clone()),
        created_at: before.created_at,
    };
    let change = Change::tenant_changed(&before, &after);
    if change.is_some() {
        let update = Statement::new("UPDATE tenants SET name = $1, suspended = $2, timezone = $3 WHERE id = $4");
        let update = update.bind(after.name.as_str()).bind(after.suspended).bind(after.zone.name()).bind(id.as_str());
        D::run(connection, update).await.map_err(D::error)?;
    }
    if after.plan != before.plan {
        add_plan::<D>(connection, id, &after.plan, act.at, act).await?;
    }
    audit::finish::<D>(connection, act, change.as_ref()).await?;
    Ok(Done::Now(after))
}

pub(in crate::adapters) async fn plan_history<D: Dialect>(
    connection: &mut D::Connection,
    tenant: &TenantId,
) -> Result<Vec<PlanChange>, StoreError> {
    let text = "SELECT plan, valid_from, changed_by FROM tenant_plans WHERE tenant_id = $1 ORDER BY row";
    let found = D::rows(connection, Statement::new(text).bind(tenant.as_str())).await.map_err(D::error)?;
    let change = |row| {
        let mut columns = Columns::of(row);
        Ok(PlanChange { plan: columns.parse()?, valid_from: columns.instant()?, by: columns.owned_some()? })
    };
    found.iter().map(change).collect()
}

pub(in crate::adapters) async fn add_key<D: Dialect>(
    connection: &mut D::Connection,
    key: &Key,
    act: &Act,
) -> Result<Done<()>, StoreError> {
    if let Some(answered) = audit::recall_act::<D>(connection, act).await? {
        return Ok(Done::Before(answered));
    }
    if find_tenant::<D>(connection, &key.tenant).await?.is_none() {
        return Err(missing_tenant(&key.tenant));
    }
    let cells = rows::key_cells(key);
    let text = format!("INSERT INTO keys ({KEY_COLUMNS}) VALUES ({})", places(cells.len()));
    let inserted = D::run(connection, Statement::new(text).bind_all(cells)).await;
    inserted.map_err(|error| taken::<D>(error, || format!("the key {}", key.id)))?;
    audit::finish::<D>(connection, act, Some(&Change::key_created(key))).await?;
    Ok(Done::Now(()))
}

pub(in crate::adapters) async fn keys<D: Dialect>(
    connection: &mut D::Connection,
    tenant: &TenantId,
) -> Result<Vec<Key>, StoreError> {
    let text = format!("SELECT {KEY_COLUMNS} FROM keys WHERE tenant_id = $1 ORDER BY created_at DESC, row DESC");
    let found = D::rows(connection, Statement::new(text).bind(tenant.as_str())).await.map_err(D::error)?;
    found.iter().map(rows::key).collect()
}

pub(in crate::adapters) async fn revoke_key<D: Dialect>(
    connection: &mut D::Connection,
    tenant: &TenantId,
    key: &KeyId,
    act: &Act,
) -> Result<Done<Key>, StoreError> {
    if let Some(answered) = audit::recall_act::<D>(connection, act).await? {
        return Ok(Done::Before(answered));
    }
    let text = "UPDATE keys SET revoked_at = $1 WHERE id = $2 AND tenant_id = $3 AND revoked_at IS NULL";
    let revoke = Statement::new(text).bind(act.at.0).bind(key.as_str()).bind(tenant.as_str());
    let revoked = D::run(connection, revoke).await.map_err(D::error)?;
    let text = format!("SELECT {KEY_COLUMNS} FROM keys WHERE id = $1 AND tenant_id = $2");
    let find = Statement::new(text).bind(key.as_str()).bind(tenant.as_str());
    let found = D::rows(connection, find).await.map_err(D::error)?;
    let found = found.first().ok_or_else(|| StoreError::Missing(format!("the key {key} of tenant {tenant}")))?;
    let found = rows::key(found)?;
    let change = (revoked > 0).then(|| Change::key_revoked(&found));
    audit::finish::<D>(connection, act, change.as_ref()).await?;
    Ok(Done::Now(found))
}

pub(in crate::adapters) async fn rotate_key<D: Dialect>(
    connection: &mut D::Connection,
    old: &KeyId,
    ends_at: Micros,
    new: &Key,
    act: &Act,
) -> Result<Done<()>, StoreError> {
    if let Some(answered) = audit::recall_act::<D>(connection, act).await? {
        return Ok(Done::Before(answered));
    }
    let text = format!("SELECT {KEY_COLUMNS} FROM keys WHERE id = $1 AND tenant_id = $2 AND revoked_at IS NULL");
    let find = Statement::new(text).bind(old.as_str()).bind(new.tenant.as_str());
    let found = D::rows(connection, find).await.map_err(D::error)?;
    let before = found.first().map(rows::key).transpose()?;
    let before = before.ok_or_else(|| StoreError::Missing(format!("the key {old} of tenant {}", new.tenant)))?;
    let ends_at = before.expires_at.map_or(ends_at, |at| at.min(ends_at));
    let update = Statement::new("UPDATE keys SET expires_at = $1 WHERE id = $2").bind(ends_at.0).bind(old.as_str());
    D::run(connection, update).await.map_err(D::error)?;
    let cells = rows::key_cells(new);
    let text = format!("INSERT INTO keys ({KEY_COLUMNS}) VALUES ({})", places(cells.len()));
    let inserted = D::run(connection, Statement::new(text).bind_all(cells)).await;
    inserted.map_err(|error| taken::<D>(error, || format!("the key {}", new.id)))?;
    let after = Key { expires_at: Some(ends_at), ..before.clone() };
    audit::note::<D>(connection, act, &Change::key_rotated(&before, &after)).await?;
    audit::finish::<D>(connection, act, Some(&Change::key_created(new))).await?;
    Ok(Done::Now(()))
}

/// Notes the last uses of keys. In the order of the keys: two processes that note the same ones wait for each other at
/// most once.
pub(in crate::adapters) async fn touch_keys<D: Dialect>(
    connection: &mut D::Connection,
    used: &[(KeyId, Micros)],
) -> Result<(), StoreError> {
    let mut used: Vec<&(KeyId, Micros)> = used.iter().collect();
    used.sort();
    for (key, at) in used {
        let minute = at.0.saturating_sub(at.0.rem_euclid(TOUCH_US));
        let text = "UPDATE keys SET last_used_at = $1 WHERE id = $2 AND COALESCE(last_used_at < $1, TRUE)";
        let touch = Statement::new(text).bind(minute).bind(key.as_str());
        D::run(connection, touch).await.map_err(D::error)?;
    }
    Ok(())
}

pub(in crate::adapters) async fn admin_key_hash<D: Dialect>(
    connection: &mut D::Connection,
) -> Result<Option<KeyHash>, StoreError> {
    let found = D::rows(connection, Statement::new("SELECT admin_key_hash FROM meta")).await.map_err(D::error)?;
    Ok(one(&found)?.bytes_some()?.map(KeyHash))
}

pub(in crate::adapters) async fn set_admin_key_hash<D: Dialect>(
    connection: &mut D::Connection,
    hash: KeyHash,
    last4: &str,
    act: &Act,
) -> Result<(), StoreError> {
    let set = Statement::new("UPDATE meta SET admin_key_hash = $1 WHERE admin_key_hash IS NULL");
    let set = D::run(connection, set.bind(hash.0.as_slice())).await.map_err(D::error)?;
    let change = (set > 0).then(|| Change::admin_key_created(last4));
    audit::finish::<D>(connection, act, change.as_ref()).await
}

pub(super) async fn find_tenant<D: Dialect>(
    connection: &mut D::Connection,
    id: &TenantId,
) -> Result<Option<Tenant>, StoreError> {
    let text = format!("SELECT {TENANT_COLUMNS} FROM tenants WHERE id = $1");
    let found = D::rows(connection, Statement::new(text).bind(id.as_str())).await.map_err(D::error)?;
    found.first().map(rows::tenant).transpose()
}

async fn add_plan<D: Dialect>(
    connection: &mut D::Connection,
    tenant: &TenantId,
    plan: &PlanName,
    valid_from: Micros,
    act: &Act,
) -> Result<(), StoreError> {
    let text = "INSERT INTO tenant_plans (tenant_id, plan, valid_from, changed_by) VALUES ($1, $2, $3, $4)";
    let insert = Statement::new(text).bind(tenant.as_str()).bind(plan.as_str()).bind(valid_from.0);
    let insert = insert.bind(act.author.actor.as_str());
    D::run(connection, insert).await.map(|_| ()).map_err(D::error)
}

pub(super) fn missing_tenant(id: &TenantId) -> StoreError {
    StoreError::Missing(format!("the tenant {id}"))
}

/// The error of an INSERT, where a taken name or hash has a meaning of its own.
fn taken<D: Dialect>(error: sqlx::Error, what: impl FnOnce() -> String) -> StoreError {
    let is_taken = error.as_database_error().is_some_and(|error| error.kind() == ErrorKind::UniqueViolation);
    if is_taken { StoreError::Exists(what()) } else { D::error(error) }
}
