//! Tenants' own keys for providers, sealed: rows and changes.
//!
//! May use: `domain`, `ports`. A store sees what is sealed and never what is in it.

use super::cells::{Cells, Columns};
use super::changes::{find_tenant, missing_tenant};
use super::statement::Statement;
use super::{Dialect, audit};
use crate::domain::audit::Change;
use crate::domain::ids::{ProviderId, TenantId};
use crate::domain::provider_key::{MasterId, SealedKey};
use crate::ports::StoreError;
use crate::ports::tenants::{Act, Done};

/// What a key is written to and read from, in this order.
const COLUMNS: &str = "tenant_id, provider, last4, master_key_id, sealed, set_at";

/// All of them.
pub(super) async fn all<D: Dialect>(connection: &mut D::Connection) -> Result<Vec<SealedKey>, StoreError> {
    let text = format!("SELECT {COLUMNS} FROM provider_keys ORDER BY tenant_id, provider");
    let found = D::rows(connection, Statement::new(text)).await.map_err(D::error)?;
    found.iter().map(sealed_key).collect()
}

fn sealed_key(row: &impl Cells) -> Result<SealedKey, StoreError> {
    let mut columns = Columns::of(row);
    // Fields are read in the order they stand here, which is that of the columns.
    Ok(SealedKey {
        tenant: columns.parse()?,
        provider: ProviderId::from_row(columns.owned()?),
        last4: columns.owned()?,
        master: columns.parse()?,
        sealed: columns.blob()?.to_vec(),
        set_at: columns.instant()?,
    })
}

async fn find<D: Dialect>(
    connection: &mut D::Connection,
    tenant: &TenantId,
    provider: &ProviderId,
) -> Result<Option<SealedKey>, StoreError> {
    let text = format!("SELECT {COLUMNS} FROM provider_keys WHERE tenant_id = $1 AND provider = $2");
    let find = Statement::new(text).bind(tenant.as_str()).bind(provider.as_str());
    let found = D::rows(connection, find).await.map_err(D::error)?;
    found.first().map(sealed_key).transpose()
}

pub(in crate::adapters) async fn set<D: Dialect>(
    connection: &mut D::Connection,
    key: &SealedKey,
    act: &Act,
) -> Result<Done<()>, StoreError> {
    if let Some(answered) = audit::recall_act::<D>(connection, act).await? {
        return Ok(Done::Before(answered));
    }
    if find_tenant::<D>(connection, &key.tenant).await?.is_none() {
        return Err(missing_tenant(&key.tenant));
    }
    let before = find::<D>(connection, &key.tenant, &key.provider).await?;
    let SealedKey { tenant, provider, last4, master, sealed, set_at } = key;
    let text = format!(
        "INSERT INTO provider_keys ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant_id, provider) DO \
         UPDATE SET last4 = excluded.last4, master_key_id = excluded.master_key_id, sealed = excluded.sealed, \
         set_at = excluded.set_at"
    );
    let master = master.to_string();
    let insert = Statement::new(text).bind(tenant.as_str()).bind(provider.as_str()).bind(last4.as_str());
    let insert = insert.bind(master.as_str()).bind(sealed.as_slice()).bind(set_at.0);
    D::run(connection, insert).await.map_err(D::error)?;
    audit::finish::<D>(connection, act, Change::provider_key_set(before.as_ref(), Some(key)).as_ref()).await?;
    Ok(Done::Now(()))
}

pub(in crate::adapters) async fn remove<D: Dialect>(
    connection: &mut D::Connection,
    (tenant, provider): (&TenantId, &ProviderId),
    sealed_with: Option<MasterId>,
    act: &Act,
) -> Result<Done<bool>, StoreError> {
    if let Some(answered) = audit::recall_act::<D>(connection, act).await? {
        return Ok(Done::Before(answered));
    }
    if find_tenant::<D>(connection, tenant).await?.is_none() {
        return Err(missing_tenant(tenant));
    }
    let is_meant = |key: &SealedKey| sealed_with.is_none_or(|master| key.master == master);
    let before = find::<D>(connection, tenant, provider).await?.filter(is_meant);
    if before.is_none() {
        audit::finish::<D>(connection, act, None).await?;
        return Ok(Done::Now(false));
    }
    let delete = Statement::new("DELETE FROM provider_keys WHERE tenant_id = $1 AND provider = $2");
    let delete = delete.bind(tenant.as_str()).bind(provider.as_str());
    D::run(connection, delete).await.map_err(D::error)?;
    audit::finish::<D>(connection, act, Change::provider_key_set(before.as_ref(), None).as_ref()).await?;
    Ok(Done::Now(true))
}

pub(in crate::adapters) async fn reseal<D: Dialect>(
    connection: &mut D::Connection,
    before: &SealedKey,
    after: &SealedKey,
    act: &Act,
) -> Result<Done<bool>, StoreError> {
    if let Some(answered) = audit::recall_act::<D>(connection, act).await? {
        return Ok(Done::Before(answered));
    }
    let text = "UPDATE provider_keys SET master_key_id = $1, sealed = $2 \
                WHERE tenant_id = $3 AND provider = $4 AND sealed = $5";
    let master = after.master.to_string();
    let update = Statement::new(text).bind(master.as_str()).bind(after.sealed.as_slice());
    let update = update.bind(before.tenant.as_str()).bind(before.provider.as_str()).bind(before.sealed.as_slice());
    // One that was set anew meanwhile is sealed under the first master key already.
    let is_done = D::run(connection, update).await.map_err(D::error)? > 0;
    let change = is_done.then(|| Change::resealed(before, after));
    audit::finish::<D>(connection, act, change.as_ref()).await?;
    Ok(Done::Now(is_done))
}
