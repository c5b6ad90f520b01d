//! Tenants' own keys for providers: set, shown, removed, sealed anew.
//!
//! May use: as [`super`], and the vault. What is given to this module is wrapped; what leaves it is sealed.

use secrecy::{ExposeSecret, SecretString};

use crate::domain::audit::Author;
use crate::domain::ids::{ProviderId, TenantId};
use crate::domain::provider_key::{MasterId, SealedKey, can_be_key};
use crate::metering::vault::VaultError;
use crate::ports::StoreError;
use crate::ports::tenants::{Act, Done};
use crate::providers;

use super::{Admin, AdminError, Order};

/// What became of the sealed keys of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resealed {
    /// The master key under which they are.
    pub first: MasterId,
    /// How many were sealed anew.
    pub resealed: usize,
    /// How many were as they are to be.
    pub as_they_were: usize,
    /// Those that could not be opened, and so stay as they are.
    pub unopened: Vec<Unopened>,
}

/// A key that could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unopened {
    /// Whose.
    pub tenant: TenantId,
    /// For which provider.
    pub provider: ProviderId,
    /// Why.
    pub why: VaultError,
}

impl Admin {
    /// Puts a tenant's own key for a provider in the place of the one it has. The tenant's calls go out with it from now on.
    pub async fn set_provider_key(
        &self,
        author: &Author,
        tenant: &TenantId,
        provider: &str,
        key: &SecretString,
    ) -> Result<SealedKey, AdminError> {
        let provider = known_provider(provider)?;
        if !can_be_key(key.expose_secret()) {
            return Err(AdminError::InvalidProviderKey);
        }
        let now = self.clock.now();
        let sealed = self.snapshots.vault().seal(tenant, &provider, now, key)?;
        match self.store.set_provider_key(&sealed, &Act::by(author.clone(), now)).await {
            Ok(done) => self.done(&Order::<()>::by(author), tenant, done).await?,
            Err(StoreError::Missing(_)) => return Err(AdminError::UnknownTenant(tenant.clone())),
            Err(error) => return Err(error.into()),
        }
        Ok(sealed)
    }

    /// Removes it: the tenant's calls go out with the operator's key again. Removing twice changes nothing.
    pub async fn remove_provider_key(
        &self,
        author: &Author,
        tenant: &TenantId,
        provider: &str,
    ) -> Result<(), AdminError> {
        let provider = known_provider(provider)?;
        let act = Act::by(author.clone(), self.clock.now());
        match self.store.remove_provider_key(tenant, &provider, None, &act).await {
            Ok(done) => self.done(&Order::<()>::by(author), tenant, done).await.map(drop),
            Err(StoreError::Missing(_)) => Err(AdminError::UnknownTenant(tenant.clone())),
            Err(error) => Err(error.into()),
        }
    }

    /// All of a tenant's, sealed, in the order of the providers' names.
    pub async fn provider_keys(&self, tenant: &TenantId) -> Result<Vec<SealedKey>, AdminError> {
        self.tenant(tenant).await?;
        let snapshot = self.snapshots.load();
        Ok(snapshot.sealed.iter().filter(|key| key.tenant == *tenant).cloned().collect())
    }

    /// Seals every key under the first master key that is under another. Each is one change: what was done stays done when
    /// this ends early, and doing it again does the rest. One that is set or removed meanwhile is left alone.
    pub async fn reseal(&self, author: &Author) -> Result<Resealed, AdminError> {
        let vault = self.snapshots.vault();
        let first = vault.first().ok_or(VaultError::NoMasterKey)?;
        let mut sealed = Resealed { first, resealed: 0, as_they_were: 0, unopened: Vec::new() };
        for before in self.store.load().await?.provider_keys {
            let after = match vault.reseal(&before) {
                Ok(Some(after)) => after,
                Ok(None) => {
                    sealed.as_they_were = sealed.as_they_were.saturating_add(1);
                    continue;
                }
                Err(VaultError::Randomness) => return Err(VaultError::Randomness.into()),
                Err(why) => {
                    let SealedKey { tenant, provider, .. } = before;
                    sealed.unopened.push(Unopened { tenant, provider, why });
                    continue;
                }
            };
            let act = Act::by(author.clone(), self.clock.now());
            if let Done::Now(true) = self.store.reseal_provider_key(&before, &after, &act).await? {
                sealed.resealed = sealed.resealed.saturating_add(1);
            }
        }
        self.publish().await;
        Ok(sealed)
    }

    /// All keys that are sealed with a master key which is not given here: those that only it would open.
    pub async fn sealed_with(&self, lost: MasterId) -> Result<Vec<SealedKey>, AdminError> {
        if self.snapshots.vault().has(lost) {
            return Err(VaultError::NotLost(lost).into());
        }
        let keys = self.store.load().await?.provider_keys;
        Ok(keys.into_iter().filter(|key| key.master == lost).collect())
    }

    /// Removes those of `keys` that are still there, sealed with that master key, and says which they were. Each is one change:
    /// what was done stays done when this ends early. A row may be of a provider that this version does not know.
    pub async fn forget(&self, author: &Author, keys: Vec<SealedKey>) -> Result<Vec<SealedKey>, AdminError> {
        let mut removed = Vec::with_capacity(keys.len());
        for key in keys {
            let SealedKey { tenant, provider, master, .. } = &key;
            let act = Act::by(author.clone(), self.clock.now());
            let done = self.store.remove_provider_key(tenant, provider, Some(*master), &act).await?;
            if self.done(&Order::<()>::by(author), tenant, done).await? {
                removed.push(key);
            }
        }
        Ok(removed)
    }
}

fn known_provider(name: &str) -> Result<ProviderId, AdminError> {
    let known = providers::ALL.iter().map(|provider| provider.id());
    let found = known.clone().find(|id| id.as_str() == name);
    found.ok_or_else(|| AdminError::UnknownProvider(known.map(|id| id.to_string()).collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests;
