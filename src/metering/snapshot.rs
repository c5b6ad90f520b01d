//! Tenants, keys, plans and prices as the request path sees them: one immutable value behind an atomic pointer.
//!
//! Reading takes no lock and no I/O. Writing builds a new value and swaps it in; writers are admin calls and the
//! refresher, a few a minute.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::domain::ids::{PlanName, TenantId};
use crate::domain::key::{Key, KeyHash};
use crate::domain::plan::Plan;
use crate::domain::price::PriceBook;
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
    /// What calls cost.
    pub prices: Arc<PriceBook>,
    /// The store's revision that this was read at.
    pub revision: i64,
}

impl Snapshot {
    fn build(directory: Directory, plans: Arc<Plans>, prices: Arc<PriceBook>) -> Self {
        let account = |tenant: Tenant| {
            let plan = plans.get(&tenant.plan).cloned();
            (tenant.id.clone(), Arc::new(Account { tenant, plan }))
        };
        Self {
            accounts: directory.tenants.into_iter().map(account).collect(),
            keys: directory.keys.into_iter().map(|key| (key.hash, Arc::new(key))).collect(),
            plans,
            prices,
            revision: directory.revision,
        }
    }
}

/// The shared pointer to the newest snapshot.
#[derive(Debug, Default)]
pub struct Snapshots {
    current: ArcSwap<Snapshot>,
}

impl From<Snapshot> for Snapshots {
    fn from(snapshot: Snapshot) -> Self {
        Self { current: ArcSwap::from_pointee(snapshot) }
    }
}

impl Snapshots {
    /// Reads everything from the store for the first time.
    pub async fn open(store: &dyn TenantStore, plans: Plans, prices: PriceBook) -> Result<Self, StoreError> {
        let snapshot = Snapshot::build(store.load().await?, Arc::new(plans), Arc::new(prices));
        Ok(Self { current: ArcSwap::from_pointee(snapshot) })
    }

    /// The newest snapshot. The guard is cheap and must not be held across an await; clone the parts that are needed.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Reads everything again if any process changed it since. Says whether it did.
    pub async fn refresh(&self, store: &dyn TenantStore) -> Result<bool, StoreError> {
        let revision = store.revision().await?;
        if revision == self.current.load().revision {
            return Ok(false);
        }
        let (plans, prices) = {
            let current = self.current.load();
            (current.plans.clone(), current.prices.clone())
        };
        let next = Arc::new(Snapshot::build(store.load().await?, plans, prices));
        // Two refreshes may run at once (an admin call and the refresher): the newer revision stays.
        self.current.rcu(|current| Arc::clone(if current.revision > next.revision { current } else { &next }));
        Ok(true)
    }
}
