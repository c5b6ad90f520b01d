//! Whose the objects are that providers keep: questions and changes.
//!
//! May use: `domain`, `ports`. Every change runs inside a transaction of its caller, who commits.

use super::Dialect;
use super::cells::Columns;
use super::statement::Statement;
use crate::domain::ids::{ProviderId, TenantId};
use crate::domain::object::{Made, ObjectName, OwnedObject};
use crate::domain::time::Micros;
use crate::ports::StoreError;

/// Objects that are forgotten at once, at most: whoever else writes waits for some milliseconds.
const FORGOTTEN_MAX: i64 = 1_000;

pub(in crate::adapters) async fn note<D: Dialect>(
    connection: &mut D::Connection,
    objects: &[OwnedObject],
    at: Micros,
) -> Result<(), StoreError> {
    if objects.is_empty() {
        return Ok(());
    }
    let mut insert =
        Statement::new("INSERT INTO provider_objects (provider, name, tenant_id, passes, noted_at) VALUES ");
    for (place, OwnedObject { provider, made: Made { name, passes }, tenant }) in objects.iter().enumerate() {
        insert.push(if place > 0 { ", (" } else { "(" }).push_bind(provider.as_str());
        insert.push(", ").push_bind(name.as_str()).push(", ").push_bind(tenant.as_str());
        insert.push(", ").push_bind(*passes).push(", ").push_bind(at.0).push(")");
    }
    insert.push(" ON CONFLICT (provider, name) DO NOTHING");
    D::run(connection, insert).await.map(|_| ()).map_err(D::error)
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
