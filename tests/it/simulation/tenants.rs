//! The tenants of the simulation and the plans that they are put on, as a node reads them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;
use tollgate::domain::audit::{AuditEntry, Change};
use tollgate::domain::budget::{Budget, Sizing};
use tollgate::domain::ids::{KeyId, PlanName, ProviderId, TenantId};
use tollgate::domain::key::{Key, KeyHash};
use tollgate::domain::plan::{Limit, Metric, Plan, Scope};
use tollgate::domain::price::PriceBook;
use tollgate::domain::provider_key::{MasterId, SealedKey};
use tollgate::domain::tenant::Tenant;
use tollgate::domain::time::{Micros, Window};
use tollgate::domain::zone::Zone;
use tollgate::metering::snapshot::{Account, Plans, Snapshot};
use tollgate::metering::vault::OwnKeys;
use tollgate::ports::prices::{BookListing, KeptBook, PriceStore};
use tollgate::ports::tenants::{
    Act, Answered, AuditQuery, Digest, Directory, Done, PlanChange, TenantChange, TenantStore,
};
use tollgate::ports::{BoxFuture, StoreError};

use super::model::TENANTS;
use super::node::Node;
use super::world::Setup;

/// What is committed, which all nodes share.
#[derive(Default)]
pub struct Tenants(Mutex<State>);

#[derive(Default, Clone, Copy)]
struct State {
    revision: i64,
    /// Which of its plans a tenant is on.
    plans: [usize; TENANTS.len()],
}

/// Each tenant has so many plans to be put on.
pub const PLANS: usize = 3;

/// What the limit of a plan is: that of the setup, more, or less.
pub fn max_of(setup: &Setup, tenant: usize, plan: usize) -> Option<u64> {
    let max = [setup.month_max, setup.day_max].get(tenant).copied()?;
    [max, max + 7, max / 2 + 1].get(plan).copied()
}

fn name_of(tenant: usize, plan: usize) -> PlanName {
    format!("{}-{plan}", TENANTS[tenant]).parse().unwrap()
}

fn plans(setup: &Setup) -> Plans {
    let mut plans = Plans::new();
    for tenant in 0..TENANTS.len() {
        for plan in 0..PLANS {
            let window = if tenant == 0 { Window::Month } else { Window::Day };
            let limit = max_of(setup, tenant, plan).map(|max| Limit {
                scope: Scope::Tenant,
                metric: Metric::Chats,
                window,
                max,
            });
            let name = name_of(tenant, plan);
            let on_counters_down = setup.on_counters_down;
            let of_budgets = setup.budgets.map_or_else(Vec::new, |budgets| budgets.limits(tenant, plan));
            let limits = limit.into_iter().chain(of_budgets).collect();
            let budget = Budget { hold: Sizing::WorstCase, ..Budget::default() };
            plans.insert(name.clone(), Arc::new(Plan { limits, on_counters_down, budget, ..Plan::unlimited(name) }));
        }
    }
    plans
}

impl Tenants {
    /// Puts a tenant on a plan; gives the revision.
    pub fn put(&self, tenant: usize, plan: usize) -> i64 {
        let mut state = self.0.lock();
        state.revision += 1;
        state.plans[tenant] = plan;
        state.revision
    }

    pub fn snapshot(&self, setup: &Setup, prices: &Arc<PriceBook>) -> Snapshot {
        let Directory { tenants, revision, .. } = self.directory();
        let plans = plans(setup);
        let account = |tenant: Tenant| {
            let plan = plans.get(&tenant.plan).cloned();
            (tenant.id.clone(), Arc::new(Account { tenant, plan, own_keys: OwnKeys::default(), revision }))
        };
        let accounts = tenants.into_iter().map(account).collect();
        let (prices, configured) = (prices.clone(), prices.clone());
        Snapshot { accounts, plans: Arc::new(plans), prices, configured, revision, ..Snapshot::default() }
    }

    fn directory(&self) -> Directory {
        let State { revision, plans } = *self.0.lock();
        let tenant = |(at, name): (usize, &&str)| Tenant {
            id: name.parse().unwrap(),
            name: (*name).to_owned(),
            plan: name_of(at, plans[at]),
            suspended: false,
            zone: Zone::UTC,
            created_at: Micros(0),
        };
        Directory {
            tenants: TENANTS.iter().enumerate().map(tenant).collect(),
            keys: Vec::new(),
            provider_keys: Vec::new(),
            prices: None,
            revision,
        }
    }
}

/// The tenants as one node reads them, in the ledger's store.
pub struct SimTenants {
    pub node: Arc<Node>,
    pub tenants: Arc<Tenants>,
}

type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

impl SimTenants {
    async fn read<T>(&self, read: impl FnOnce(Directory) -> T) -> Result<T, StoreError> {
        self.node.pause().await;
        if self.node.broken.ledger_down.load(Relaxed) || self.node.broken.ledger_silent.load(Relaxed) {
            self.node.injected("tenants cannot be read");
            return Err(StoreError::Unavailable("down".to_owned()));
        }
        Ok(read(self.tenants.directory()))
    }
}

/// No key is used and nothing is written here.
fn none<'a, T: Send + 'a>() -> Answer<'a, T> {
    Box::pin(async { Err(StoreError::Missing("a table of keys".to_owned())) })
}

impl PriceStore for SimTenants {
    /// No book is kept: what is finished later is billed by the prices in force, which are always the same here.
    fn price_book<'a>(&'a self, _: &'a str) -> Answer<'a, Option<KeptBook>> {
        Box::pin(async { Ok(None) })
    }

    fn price_books(&self) -> Answer<'_, Vec<BookListing>> {
        none()
    }

    fn keep_price_books<'a>(&'a self, _: &'a [KeptBook], _: &'a str, _: Micros) -> Answer<'a, ()> {
        none()
    }

    fn set_prices<'a>(&'a self, _: Option<&'a [KeptBook]>, _: &'a Act) -> Answer<'a, Done<()>> {
        none()
    }
}

impl TenantStore for SimTenants {
    fn load(&self) -> Answer<'_, Directory> {
        Box::pin(self.read(|directory| directory))
    }

    fn revision(&self) -> Answer<'_, i64> {
        Box::pin(self.read(|directory| directory.revision))
    }

    fn create_tenant<'a>(&'a self, _: &'a Tenant, _: &'a Act) -> Answer<'a, Done<()>> {
        none()
    }

    fn change_tenant<'a>(&'a self, _: &'a TenantId, _: &'a TenantChange, _: &'a Act) -> Answer<'a, Done<Tenant>> {
        none()
    }

    /// Its plan of now, as if it had always been: all plans here bill alike.
    fn plan_history<'a>(&'a self, tenant: &'a TenantId) -> Answer<'a, Vec<PlanChange>> {
        let of = |tenant: Tenant| PlanChange { plan: tenant.plan, valid_from: tenant.created_at, by: None };
        Box::pin(
            self.read(move |directory| {
                directory.tenants.into_iter().filter(|known| known.id == *tenant).map(of).collect()
            }),
        )
    }

    fn add_key<'a>(&'a self, _: &'a Key, _: &'a Act) -> Answer<'a, Done<()>> {
        none()
    }

    fn keys<'a>(&'a self, _: &'a TenantId) -> Answer<'a, Vec<Key>> {
        none()
    }

    fn revoke_key<'a>(&'a self, _: &'a TenantId, _: &'a KeyId, _: &'a Act) -> Answer<'a, Done<Key>> {
        none()
    }

    fn rotate_key<'a>(&'a self, _: &'a KeyId, _: Micros, _: &'a Key, _: &'a Act) -> Answer<'a, Done<()>> {
        none()
    }

    fn set_provider_key<'a>(&'a self, _: &'a SealedKey, _: &'a Act) -> Answer<'a, Done<()>> {
        none()
    }

    fn remove_provider_key<'a>(
        &'a self,
        _: &'a TenantId,
        _: &'a ProviderId,
        _: Option<MasterId>,
        _: &'a Act,
    ) -> Answer<'a, Done<bool>> {
        none()
    }

    fn reseal_provider_key<'a>(&'a self, _: &'a SealedKey, _: &'a SealedKey, _: &'a Act) -> Answer<'a, Done<bool>> {
        none()
    }

    fn recall(&self, _: Digest, _: Micros) -> Answer<'_, Option<Answered>> {
        none()
    }

    fn record<'a>(&'a self, _: &'a Change, _: &'a Act) -> Answer<'a, ()> {
        none()
    }

    fn audit<'a>(&'a self, _: &'a AuditQuery) -> Answer<'a, Vec<AuditEntry>> {
        none()
    }

    fn touch_keys<'a>(&'a self, _: &'a [(KeyId, Micros)]) -> Answer<'a, ()> {
        none()
    }

    fn admin_key_hash(&self) -> Answer<'_, Option<KeyHash>> {
        none()
    }

    fn set_admin_key_hash<'a>(&'a self, _: KeyHash, _: &'a str, _: &'a Act) -> Answer<'a, ()> {
        none()
    }
}
