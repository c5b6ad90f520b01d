//! Whose the objects are that providers keep: questions and changes.
//!
//! May use: `domain`, `ports`. Every change runs inside a transaction of its caller, who commits.

use super::Dialect;
use super::cells::Columns;
use super::statement::Statement;
use crate::domain::ids::{ProviderId, TenantId};
use crate::domain::object::{ObjectName, OwnedObject};
use crate::domain::time::Micros;
use crate::ports::StoreError;

/// Objects that are forgotten at once, at most: whoever else writes waits for some milliseconds.
const FORGOTTEN_MAX: i64 = 1_000;

pub(in crate::adapters) async fn note<D: Dialect>(
    connection: &mut D::Connection,
    objects: &[OwnedObject],
    at: Micros,
) -> Result<(), StoreError> {
    let (chosen, others): (Vec<_>, Vec<_>) = objects.iter().partition(|object| object.made.chosen.is_some());
    if !others.is_empty() {
        insert::<D>(connection, &others, at, " DO NOTHING").await?;
    }
    // One by one: a statement may not change a row twice, and few are noted at once.
    for object in chosen {
        let is_later = " DO UPDATE SET tenant_id = excluded.tenant_id, passes = excluded.passes, \
                        noted_at = excluded.noted_at WHERE provider_objects.noted_at < excluded.noted_at";
        insert::<D>(connection, &[object], object.made.chosen.unwrap_or(at), is_later).await?;
    }
    Ok(())
}

/// Notes objects as of `at`, and of those that are known does what `known` says.
async fn insert<D: Dialect>(
    connection: &mut D::Connection,
    objects: &[&OwnedObject],
    at: Micros,
    known: &'static str,
) -> Result<(), StoreError> {
    let mut insert =
        Statement::new("INSERT INTO provider_objects (provider, name, tenant_id, passes, noted_at) VALUES ");
    for (place, OwnedObject { provider, made, tenant }) in objects.iter().enumerate() {
        insert.push(if place > 0 { ", (" } else { "(" }).push_bind(provider.as_str());
        insert.push(", ").push_bind(made.name.as_str()).push(", ").push_bind(tenant.as_str());
        insert.push(", ").push_bind(made.passes).push(", ").push_bind(at.0).push(")");
    }
    insert.push(" ON CONFLICT (provider, name)").push(known);
    D::run(connection, insert).await.map(|_| ()).map_err(D::error)
}

pub(in crate::adapters) async fn drop<D: Dialect>(
    connection: &mut D::Connection,
    provider: &ProviderId,
    name: &ObjectName,
    tenant: &TenantId,
) -> Result<(), StoreError> {
    let text = "DELETE FROM provider_objects WHERE provider = $1 AND name = $2 AND tenant_id = $3";
    let delete = Statement::new(text).bind(provider.as_str()).bind(name.as_str()).bind(tenant.as_str());
    D::run(connection, delete).await.map(|_| ()).map_err(D::error)
}

pub(in crate::adapters) async fn owners<D: Dialect>(
    connection: &mut D::Connection,
    provider: &ProviderId,
    names: &[ObjectName],
) -> Result<Vec<(ObjectName, TenantId)>, StoreError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut find = Statement::new("SELECT name, tenant_id FROM provider_objects WHERE provider = ");
    find.push_bind(provider.as_str()).push(" AND name IN (");
    for (place, name) in names.iter().enumerate() {
        find.push(if place > 0 { ", " } else { "" }).push_bind(name.as_str());
    }
    find.push(")");
    let found = D::rows(connection, find).await.map_err(D::error)?;
    let owner = |row| {
        let mut columns = Columns::of(row);
        let name = columns.text()?;
        let name = ObjectName::parse(name).ok_or_else(|| StoreError::Corrupt(format!("{name:?} names no object")))?;
        Ok((name, columns.parse()?))
    };
    found.iter().map(owner).collect()
}

pub(in crate::adapters) async fn forget<D: Dialect>(
    connection: &mut D::Connection,
    before: Micros,
) -> Result<u64, StoreError> {
    let text = "DELETE FROM provider_objects WHERE (provider, name) IN \
                (SELECT provider, name FROM provider_objects WHERE passes AND noted_at < $1 LIMIT $2)";
    D::run(connection, Statement::new(text).bind(before.0).bind(FORGOTTEN_MAX)).await.map_err(D::error)
}
