//! Keys of tenants: issued, rotated, revoked.
//!
//! May use: as [`super`]. A key is shown once, and only its SHA-256 is kept.

use crate::domain::audit::Author;
use crate::domain::ids::{KeyId, TenantId};
use crate::domain::key::{self, Key};
use crate::domain::models::Models;
use crate::domain::time::{MICROS_PER_SECOND, Micros};
use crate::metering::identity::hash;
use crate::ports::StoreError;
use crate::ports::tenants::Act;

use super::{Admin, AdminError, Order, check_name, fill_random, mint_key};

/// How long the old key works on beside the new one where nobody says: a day, in which every app gets the new one.
pub const OVERLAP_DEFAULT_S: u32 = 24 * 60 * 60;

/// And how long at most: beyond a month nobody remembers that it still works.
pub const OVERLAP_MAX_S: u32 = 31 * 24 * 60 * 60;

impl Admin {
    /// Issues a key; gives what is kept of it and the key itself, which is nowhere kept.
    pub async fn issue_key(
        &self,
        order: Order<'_, (Key, String)>,
        tenant: &TenantId,
        name: String,
        expires_at: Option<Micros>,
        models: Option<Models>,
    ) -> Result<(Key, String), AdminError> {
        self.recall(&order).await?;
        let now = self.clock.now();
        let issued = new_key(tenant, (name, models), now, expires_at)?;
        self.tenant(tenant).await?;
        let act = order.act(&issued, now)?;
        match self.store.add_key(&issued.0, &act).await {
            Ok(done) => self.done(&order, tenant, done).await?,
            Err(StoreError::Missing(_)) => return Err(AdminError::UnknownTenant(tenant.clone())),
            Err(error) => return Err(error.into()),
        }
        Ok(issued)
    }

    /// All keys of a tenant, revoked ones too, newest first.
    pub async fn keys(&self, tenant: &TenantId) -> Result<Vec<Key>, AdminError> {
        self.tenant(tenant).await?;
        Ok(self.store.keys(tenant).await?)
    }

    /// One key of a tenant.
    pub async fn key(&self, tenant: &TenantId, id: &KeyId) -> Result<Key, AdminError> {
        let unknown = || AdminError::UnknownKey { tenant: tenant.clone(), key: id.clone() };
        self.keys(tenant).await?.into_iter().find(|key| key.id == *id).ok_or_else(unknown)
    }

    /// Revokes a key for good. Revoking twice changes nothing.
    pub async fn revoke_key(&self, author: &Author, tenant: &TenantId, id: &KeyId) -> Result<Key, AdminError> {
        self.tenant(tenant).await?;
        let act = Act::by(author.clone(), self.clock.now());
        match self.store.revoke_key(tenant, id, &act).await {
            Ok(done) => self.done(&Order::<()>::by(author), tenant, done).await,
            Err(StoreError::Missing(_)) => Err(AdminError::UnknownKey { tenant: tenant.clone(), key: id.clone() }),
            Err(error) => Err(error.into()),
        }
    }

    /// Issues a key in the place of another, with its name and models; the old one works on for `overlap_s` seconds, or
    /// until it would end anyway. The new one ends when it is told to, or as the old one would have.
    pub async fn rotate_key(
        &self,
        order: Order<'_, (Key, String)>,
        tenant: &TenantId,
        old: &KeyId,
        overlap_s: u32,
        expires_at: Option<Micros>,
    ) -> Result<(Key, String), AdminError> {
        self.recall(&order).await?;
        if overlap_s > OVERLAP_MAX_S {
            return Err(AdminError::OverlapTooLong);
        }
        let revoked = || AdminError::KeyRevoked { tenant: tenant.clone(), key: old.clone() };
        let known = self.key(tenant, old).await?;
        if known.revoked_at.is_some() {
            return Err(revoked());
        }
        let now = self.clock.now();
        let issued = new_key(tenant, (known.name, known.models), now, expires_at.or(known.expires_at))?;
        let ends_at = Micros(now.0.saturating_add(i64::from(overlap_s).saturating_mul(MICROS_PER_SECOND)));
        let act = order.act(&issued, now)?;
        match self.store.rotate_key(old, ends_at, &issued.0, &act).await {
            Ok(done) => self.done(&order, tenant, done).await?,
            // Revoked a moment ago: it was there, and no key is ever removed.
            Err(StoreError::Missing(_)) => return Err(revoked()),
            Err(error) => return Err(error.into()),
        }
        Ok(issued)
    }
}

/// A new key with a name and models, and the key itself.
fn new_key(
    tenant: &TenantId,
    (name, models): (String, Option<Models>),
    now: Micros,
    expires_at: Option<Micros>,
) -> Result<(Key, String), AdminError> {
    check_name(&name)?;
    if let Some(expires_at) = expires_at.filter(|at| *at <= now) {
        return Err(AdminError::ExpiryPassed { expires_at, now });
    }
    let plaintext = mint_key()?;
    let mut id = [0; 8];
    fill_random(&mut id)?;
    let key = Key {
        id: KeyId::from_random(u64::from_be_bytes(id)),
        tenant: tenant.clone(),
        hash: hash(&plaintext),
        last4: key::last4(&plaintext),
        name,
        created_at: now,
        expires_at,
        revoked_at: None,
        last_used_at: None,
        models,
    };
    Ok((key, plaintext))
}
