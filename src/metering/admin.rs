//! Administration: tenants, their plans and keys, and how their limits stand.
//!
//! May use: `domain`, `ports`, the snapshot. A change counts at once in this process, because each one ends with a new
//! snapshot; other processes see the store's revision grow.

use std::sync::Arc;

use crate::domain::ids::{KeyId, PlanName, TenantId};
use crate::domain::key::{self, Key};
use crate::domain::plan::{Limit, Metric, Standing};
use crate::domain::tenant::Tenant;
use crate::domain::time::{Micros, Period, Window};
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::counters::{CounterKey, CounterStore, CountersUnavailable};
use crate::ports::tenants::{TenantChange, TenantStore};

use super::identity::hash;
use super::snapshot::{Account, Snapshots};

/// Characters of a display name. It is for people, and it is kept in every snapshot.
pub const NAME_CHARS_MAX: usize = 128;

/// Why an administrative act was not done. Each sentence may be shown to whoever asked, except those of `Store`,
/// `Counters` and `Randomness`, which may hold another program's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// No tenant has that id.
    #[error("there is no tenant {0}")]
    UnknownTenant(TenantId),
    /// The tenant has no key with that id.
    #[error("tenant {tenant} has no key {key}")]
    UnknownKey {
        /// Whose key was asked for.
        tenant: TenantId,
        /// Which key.
        key: KeyId,
    },
    /// No plan has that name.
    #[error("there is no plan of that name; the plans are {}", list(.known))]
    UnknownPlan {
        /// The plans there are.
        known: Vec<PlanName>,
    },
    /// The tenant is on a plan that the configuration does not have any more.
    #[error("tenant {tenant} is on plan {plan}, which is not configured any more; the plans are {}", list(.known))]
    PlanGone {
        /// The tenant.
        tenant: TenantId,
        /// The plan it is on.
        plan: PlanName,
        /// The plans there are.
        known: Vec<PlanName>,
    },
    /// A tenant with that id exists.
    #[error("tenant {0} exists already")]
    TenantExists(TenantId),
    /// A display name that is empty, too long or has control characters.
    #[error("a name has 1 to {NAME_CHARS_MAX} characters, none of them a control character")]
    InvalidName,
    /// A key that would never be accepted.
    #[error("the key would expire at {expires_at}, which is not after now ({now})")]
    ExpiryPassed {
        /// When it would expire.
        expires_at: Micros,
        /// The time at which it was asked for.
        now: Micros,
    },
    /// The operating system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Randomness(String),
    /// Counters cannot be read.
    #[error(transparent)]
    Counters(#[from] CountersUnavailable),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AdminError {
    /// Whether the same call may succeed later as it is: something outside did not answer.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Store(StoreError::Unavailable(_)) | Self::Counters(_) | Self::Randomness(_))
    }
}

/// How one limit of a tenant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitRow {
    /// What is counted.
    pub metric: Metric,
    /// In which day or month.
    pub period: Period,
    /// How much fits; `None` when unlimited.
    pub limit: Option<u64>,
    /// How much is gone.
    pub standing: Standing,
}

impl LimitRow {
    /// What is left; `None` when unlimited.
    pub fn remaining(&self) -> Option<u64> {
        self.limit.map(|limit| self.standing.remaining(limit))
    }

    /// When the window ends.
    pub fn resets_at(&self) -> Micros {
        self.period.end()
    }
}

/// How a tenant stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsView {
    /// Whose limits.
    pub tenant: TenantId,
    /// The plan it is on.
    pub plan: PlanName,
    /// Chats a month, limited or not.
    pub chats: LimitRow,
    /// The plan's other limits, in its order.
    pub others: Vec<LimitRow>,
}

/// All administration. Cheap to share; holds no state of its own.
pub struct Admin {
    store: Arc<dyn TenantStore>,
    snapshots: Arc<Snapshots>,
    counters: Arc<dyn CounterStore>,
    clock: Arc<dyn Clock>,
}

impl Admin {
    /// Administration of what these hold.
    pub fn new(
        store: Arc<dyn TenantStore>,
        snapshots: Arc<Snapshots>,
        counters: Arc<dyn CounterStore>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { store, snapshots, counters, clock }
    }

    /// Creates a tenant on a plan.
    pub async fn create_tenant(&self, id: TenantId, name: String, plan: &str) -> Result<Tenant, AdminError> {
        check_name(&name)?;
        let plan = self.plan(plan)?;
        let tenant = Tenant { id, name, plan, suspended: false, created_at: self.clock.now() };
        match self.store.create_tenant(&tenant).await {
            Ok(()) => {}
            Err(StoreError::Exists(_)) => return Err(AdminError::TenantExists(tenant.id)),
            Err(error) => return Err(error.into()),
        }
        self.publish().await;
        Ok(tenant)
    }

    /// Renames a tenant, suspends it or lets it in again; `None` leaves a field as it is.
    pub async fn change_tenant(
        &self,
        id: &TenantId,
        name: Option<String>,
        suspended: Option<bool>,
    ) -> Result<Tenant, AdminError> {
        if let Some(name) = &name {
            check_name(name)?;
        }
        self.change(id, &TenantChange { name, suspended, ..TenantChange::default() }).await
    }

    /// Puts a tenant on a plan. What was used carries over. Setting the plan that it is on already changes nothing. `by`
    /// says who asks, for the history.
    pub async fn set_plan(&self, id: &TenantId, plan: &str, by: &str) -> Result<Tenant, AdminError> {
        let plan = self.plan(plan)?;
        let tenant = self.tenant(id).await?;
        if tenant.plan == plan {
            return Ok(tenant);
        }
        self.change(id, &TenantChange { plan: Some(plan), by: Some(by.to_owned()), ..TenantChange::default() }).await
    }

    /// Every tenant, in the order of their ids.
    pub async fn tenants(&self) -> Result<Vec<Tenant>, AdminError> {
        self.snapshots.refresh(&*self.store).await?;
        let mut tenants: Vec<Tenant> =
            self.snapshots.load().accounts.values().map(|account| account.tenant.clone()).collect();
        tenants.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Ok(tenants)
    }

    /// One tenant, as the store has it now.
    pub async fn tenant(&self, id: &TenantId) -> Result<Tenant, AdminError> {
        self.snapshots.refresh(&*self.store).await?;
        self.known(id).map(|account| account.tenant.clone()).ok_or_else(|| AdminError::UnknownTenant(id.clone()))
    }

    /// Issues a key; gives what is kept of it and the key itself, which is nowhere kept.
    pub async fn issue_key(
        &self,
        tenant: &TenantId,
        name: String,
        expires_at: Option<Micros>,
    ) -> Result<(Key, String), AdminError> {
        check_name(&name)?;
        let now = self.clock.now();
        if let Some(expires_at) = expires_at.filter(|at| *at <= now) {
            return Err(AdminError::ExpiryPassed { expires_at, now });
        }
        self.tenant(tenant).await?;
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
        };
        match self.store.add_key(&key).await {
            Ok(()) => {}
            Err(StoreError::Missing(_)) => return Err(AdminError::UnknownTenant(tenant.clone())),
            Err(error) => return Err(error.into()),
        }
        self.publish().await;
        Ok((key, plaintext))
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
    pub async fn revoke_key(&self, tenant: &TenantId, id: &KeyId) -> Result<Key, AdminError> {
        self.tenant(tenant).await?;
        let revoked = match self.store.revoke_key(tenant, id, self.clock.now()).await {
            Ok(key) => key,
            Err(StoreError::Missing(_)) => {
                return Err(AdminError::UnknownKey { tenant: tenant.clone(), key: id.clone() });
            }
            Err(error) => return Err(error.into()),
        };
        self.publish().await;
        Ok(revoked)
    }

    /// How a tenant stands at this instant. Asks the counters only: it is answered while the ledger is away, unless the
    /// tenant is one that this process has not heard of yet.
    pub async fn limits(&self, id: &TenantId) -> Result<LimitsView, AdminError> {
        if self.known(id).is_none() {
            self.snapshots.refresh(&*self.store).await?;
        }
        let account = self.known(id).ok_or_else(|| AdminError::UnknownTenant(id.clone()))?;
        let tenant = &account.tenant;
        let plan = account.plan.as_ref().ok_or_else(|| AdminError::PlanGone {
            tenant: id.clone(),
            plan: tenant.plan.clone(),
            known: self.plan_names(),
        })?;

        let now = self.clock.now();
        let is_chats = |limit: &Limit| (limit.metric, limit.window) == (Metric::Chats, Window::Month);
        let chats_max = plan.limit(Metric::Chats, Window::Month).map(|limit| limit.max);
        let others = plan.limits.iter().filter(|limit| !is_chats(limit));
        let asked: Vec<(Metric, Window, Option<u64>)> = std::iter::once((Metric::Chats, Window::Month, chats_max))
            .chain(others.map(|limit| (limit.metric, limit.window, Some(limit.max))))
            .collect();
        let counters: Vec<CounterKey> = asked
            .iter()
            .map(|(metric, window, _)| CounterKey { tenant: id.clone(), metric: *metric, period: window.period(now) })
            .collect();
        let standings = self.counters.read(&counters).await?;
        let mut rows = asked.iter().zip(&counters).zip(standings).map(|(((metric, _, limit), counter), standing)| {
            LimitRow { metric: *metric, period: counter.period, limit: *limit, standing }
        });
        let chats = rows.next().ok_or_else(|| CountersUnavailable("no answer for the chats counter".to_owned()))?;
        Ok(LimitsView { tenant: id.clone(), plan: tenant.plan.clone(), chats, others: rows.collect() })
    }

    /// The names of all plans, in ascending order.
    pub fn plan_names(&self) -> Vec<PlanName> {
        self.snapshots.load().plans.keys().cloned().collect()
    }

    fn plan(&self, name: &str) -> Result<PlanName, AdminError> {
        let found = self.snapshots.load().plans.get_key_value(name).map(|(name, _)| name.clone());
        found.ok_or_else(|| AdminError::UnknownPlan { known: self.plan_names() })
    }

    fn known(&self, id: &TenantId) -> Option<Arc<Account>> {
        self.snapshots.load().accounts.get(id).cloned()
    }

    async fn change(&self, id: &TenantId, change: &TenantChange) -> Result<Tenant, AdminError> {
        let changed = match self.store.change_tenant(id, change, self.clock.now()).await {
            Ok(tenant) => tenant,
            Err(StoreError::Missing(_)) => return Err(AdminError::UnknownTenant(id.clone())),
            Err(error) => return Err(error.into()),
        };
        self.publish().await;
        Ok(changed)
    }

    /// Makes a change count in this process. The change itself is stored by then: a failure here is no failure of the
    /// act, because the refresher reads it within its interval.
    async fn publish(&self) {
        if let Err(error) = self.snapshots.refresh(&*self.store).await {
            tracing::warn!(%error, "A change is stored, but this process could not read it back yet.");
        }
    }
}

/// A new key out of 32 bytes of the system's randomness, to be shown once. Fit for a tenant and for the admin.
pub fn mint_key() -> Result<String, AdminError> {
    let mut random = [0; 32];
    fill_random(&mut random)?;
    Ok(key::mint(random))
}

fn fill_random(bytes: &mut [u8]) -> Result<(), AdminError> {
    getrandom::fill(bytes).map_err(|error| AdminError::Randomness(error.to_string()))
}

fn check_name(name: &str) -> Result<(), AdminError> {
    let fits = (1..=NAME_CHARS_MAX).contains(&name.chars().count());
    if fits && !name.trim().is_empty() && !name.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(AdminError::InvalidName)
    }
}

fn list(names: &[PlanName]) -> String {
    names.iter().map(PlanName::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
