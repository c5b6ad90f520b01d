//! Tenants, keys, plans and prices as the request path sees them: one immutable value behind an atomic pointer.
//!
//! Reading takes no lock and no I/O. Writing builds a new value and swaps it in; writers are admin calls, the
//! refresher and reloads, a few a minute.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

use crate::domain::hold::Bounds;
use crate::domain::ids::{PlanName, ProviderId, TenantId};
use crate::domain::key::{Key, KeyHash};
use crate::domain::limits::ModelLimits;
use crate::domain::plan::Plan;
use crate::domain::price::PriceBook;
use crate::domain::price::tariff::{Pricing, Tariff};
use crate::domain::tenant::Tenant;
use crate::ports::StoreError;
use crate::ports::tenants::{Directory, TenantStore};

/// All plans by name.
pub type Plans = BTreeMap<PlanName, Arc<Plan>>;

/// A tenant and the plan it is on.
#[derive(Debug, Clone)]
pub struct Account {
    /// The tenant.
    pub tenant: Tenant,
    /// Its plan; `None` when the configuration has no plan of that name (any more): such a tenant is refused, since
    /// nobody can say what it may use.
    pub plan: Option<Arc<Plan>>,
    /// The revision of the store that this was read at.
    pub revision: i64,
}

/// One consistent view.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Every tenant.
    pub accounts: HashMap<TenantId, Arc<Account>>,
    /// Every key that is not revoked, by the SHA-256 of the key.
    pub keys: HashMap<KeyHash, Arc<Key>>,
    /// Every plan.
    pub plans: Arc<Plans>,
    /// What providers charge.
    pub prices: Arc<PriceBook>,
    /// What each plan makes of it.
    pub tariffs: HashMap<PlanName, Arc<Tariff>>,
    /// The store's revision that this was read at.
    pub revision: i64,
}

impl Snapshot {
    fn build(directory: Directory, plans: Arc<Plans>, prices: Arc<PriceBook>) -> Self {
        let revision = directory.revision;
        let account = |tenant: Tenant| {
            let plan = plans.get(&tenant.plan).cloned();
            (tenant.id.clone(), Arc::new(Account { tenant, plan, revision }))
        };
        Self {
            accounts: directory.tenants.into_iter().map(account).collect(),
            keys: directory.keys.into_iter().map(|key| (key.hash, Arc::new(key))).collect(),
            tariffs: plans.values().map(|plan| (plan.name.clone(), tariff(&prices, plan.pricing.clone()))).collect(),
            plans,
            prices,
            revision: directory.revision,
        }
    }

    /// What tenants on a plan pay; by the list of prices where there is no such plan.
    pub fn tariff(&self, plan: &PlanName) -> Arc<Tariff> {
        self.tariffs.get(plan).cloned().unwrap_or_else(|| tariff(&self.prices, Pricing::default()))
    }
}

fn tariff(list: &Arc<PriceBook>, pricing: Pricing) -> Arc<Tariff> {
    Arc::new(Tariff::new(list.clone(), pricing))
}

/// A tenant is on a plan that the offered ones do not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanMissing {
    /// The tenant.
    pub tenant: TenantId,
    /// The plan it is on.
    pub plan: PlanName,
}

/// The shared pointer to the newest snapshot.
#[derive(Debug, Default)]
pub struct Snapshots {
    current: ArcSwap<Snapshot>,
    /// The most tokens that an answer of a model may have: for estimates and holds, so not a part of what bills are made from.
    limits: ArcSwap<ModelLimits>,
    /// What is believed of calls that say too little of themselves.
    bounds: ArcSwap<Bounds>,
    /// Held while the next snapshot is built from the current one: of two writers, each would undo what the other brought.
    writing: Mutex<()>,
}

impl From<Snapshot> for Snapshots {
    fn from(snapshot: Snapshot) -> Self {
        Self {
            current: ArcSwap::from_pointee(snapshot),
            limits: ArcSwap::default(),
            bounds: ArcSwap::default(),
            writing: Mutex::new(()),
        }
    }
}

impl Snapshots {
    /// Reads everything from the store for the first time.
    pub async fn open(store: &dyn TenantStore, plans: Plans, prices: PriceBook) -> Result<Self, StoreError> {
        Ok(Snapshot::build(store.load().await?, Arc::new(plans), Arc::new(prices)).into())
    }

    /// The newest snapshot. The guard is cheap and must not be held across an await; clone the parts that are needed.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// The most tokens that an answer of this model may have, where that is known.
    pub fn output_max(&self, provider: &ProviderId, model: &str) -> Option<u64> {
        self.limits.load().output_max(provider, model)
    }

    /// What is believed of calls that say too little of themselves.
    pub fn bounds(&self) -> Bounds {
        **self.bounds.load()
    }

    /// Puts other sizes of calls in force.
    pub fn set_sizes(&self, limits: ModelLimits, bounds: Bounds) {
        self.limits.store(Arc::new(limits));
        self.bounds.store(Arc::new(bounds));
    }

    /// Whether the plan of every tenant is there; if not, one that is on another.
    pub fn every_plan_is_known(&self) -> Result<(), PlanMissing> {
        let current = self.current.load();
        all_known(current.accounts.values().map(|account| &account.tenant), &current.plans)
    }

    /// Reads everything again if any process changed it since. Says whether it did.
    pub async fn refresh(&self, store: &dyn TenantStore) -> Result<bool, StoreError> {
        let revision = store.revision().await?;
        if revision == self.current.load().revision {
            return Ok(false);
        }
        let directory = store.load().await?;
        // Plans and prices are taken only now: they may have been replaced while the store was read.
        let _writing = self.writing.lock();
        let current = self.current.load();
        // Two refreshes may run at once (an admin call and the refresher): the newer revision stays.
        if current.revision <= directory.revision {
            let next = Snapshot::build(directory, current.plans.clone(), current.prices.clone());
            self.current.store(Arc::new(next));
        }
        Ok(true)
    }

    /// Puts other plans and prices in force, both at once. Calls that are admitted already keep theirs.
    ///
    /// # Errors
    /// A tenant is on a plan that is not among them; nothing is changed then.
    pub fn replace(&self, plans: Plans, prices: PriceBook) -> Result<(), PlanMissing> {
        let _writing = self.writing.lock();
        let current = self.current.load();
        let tenants = || current.accounts.values().map(|account| &account.tenant);
        all_known(tenants(), &plans)?;
        let directory =
            Directory { tenants: tenants().cloned().collect(), keys: Vec::new(), revision: current.revision };
        let next = Snapshot::build(directory, Arc::new(plans), Arc::new(prices));
        self.current.store(Arc::new(Snapshot { keys: current.keys.clone(), ..next }));
        Ok(())
    }
}

/// A tenant whose plan nobody knows could only be refused: better said before it is.
fn all_known<'a>(tenants: impl IntoIterator<Item = &'a Tenant>, plans: &Plans) -> Result<(), PlanMissing> {
    match tenants.into_iter().find(|tenant| !plans.contains_key(&tenant.plan)) {
        None => Ok(()),
        Some(Tenant { id, plan, .. }) => Err(PlanMissing { tenant: id.clone(), plan: plan.clone() }),
    }
}

#[cfg(test)]
mod tests;
