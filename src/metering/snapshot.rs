//! Tenants, keys, plans and prices as the request path sees them: one immutable value behind an atomic pointer.
//!
//! Reading takes no lock and no I/O. Writing builds a new value and swaps it in; writers are admin calls, the
//! refresher and reloads, a few a minute.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

use crate::domain::counting::Counting;
use crate::domain::hold::Bounds;
use crate::domain::ids::{PlanName, ProviderId, TenantId};
use crate::domain::key::{Key, KeyHash};
use crate::domain::limits::ModelLimits;
use crate::domain::plan::{Metric, Plan, Scope};
use crate::domain::price::PriceBook;
use crate::domain::price::tariff::{Pricing, Tariff};
use crate::domain::provider_key::{MasterId, SealedKey};
use crate::domain::tenant::Tenant;
use crate::domain::time::{Micros, Window};
use crate::ports::StoreError;
use crate::ports::prices::ActiveBook;
use crate::ports::tenants::{Directory, TenantStore};

use super::price_books::{Format, find, kept};
use super::vault::{OwnKey, OwnKeys, Vault};

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
    /// Its own keys for providers.
    pub own_keys: OwnKeys,
    /// The revision of the store that this was read at.
    pub revision: i64,
}

impl Account {
    /// Whether its calls to a provider go out with a key of its own: what is there it keeps, and pays, itself.
    pub fn has_own_key(&self, provider: &ProviderId) -> bool {
        self.own_keys.get(provider).is_some()
    }
}

/// One consistent view.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Every tenant.
    pub accounts: HashMap<TenantId, Arc<Account>>,
    /// Every key that is not revoked, by the SHA-256 of the key.
    pub keys: HashMap<KeyHash, Arc<Key>>,
    /// Every tenant's own keys for providers, as the store has them.
    pub sealed: Arc<[SealedKey]>,
    /// Every plan.
    pub plans: Arc<Plans>,
    /// What providers charge: the active book, else the configuration's.
    pub prices: Arc<PriceBook>,
    /// The configuration's prices.
    pub configured: Arc<PriceBook>,
    /// The book that was put in force for all gateways.
    pub active: Option<ActiveBook>,
    /// What each plan makes of the prices.
    pub tariffs: HashMap<PlanName, Arc<Tariff>>,
    /// The store's revision that this was read at.
    pub revision: i64,
}

/// What a snapshot has of the configuration.
struct Configured {
    plans: Arc<Plans>,
    prices: Arc<PriceBook>,
    vault: Arc<Vault>,
}

impl Snapshot {
    /// `prices` are those in force.
    fn build(directory: Directory, configured: Configured, prices: Arc<PriceBook>) -> Self {
        let revision = directory.revision;
        let Configured { plans, prices: configured, vault } = configured;
        let mut own = opened(&vault, &directory.provider_keys);
        let account = |tenant: Tenant| {
            let plan = plans.get(&tenant.plan).cloned();
            let own_keys = own.remove(&tenant.id).unwrap_or_default().into_iter().collect();
            (tenant.id.clone(), Arc::new(Account { tenant, plan, own_keys, revision }))
        };
        Self {
            accounts: directory.tenants.into_iter().map(account).collect(),
            sealed: directory.provider_keys.into(),
            keys: directory.keys.into_iter().map(|key| (key.hash, Arc::new(key))).collect(),
            tariffs: plans.values().map(|plan| (plan.name.clone(), tariff(&prices, plan.pricing.clone()))).collect(),
            plans,
            prices,
            configured,
            active: directory.prices,
            revision: directory.revision,
        }
    }

    /// The same tenants and keys under another configuration.
    fn with(&self, configured: Configured, prices: Arc<PriceBook>) -> Self {
        let directory = Directory {
            tenants: self.accounts.values().map(|account| account.tenant.clone()).collect(),
            keys: Vec::new(),
            provider_keys: self.sealed.to_vec(),
            prices: self.active.clone(),
            revision: self.revision,
        };
        Self { keys: self.keys.clone(), ..Self::build(directory, configured, prices) }
    }

    /// What tenants on a plan pay; by the list of prices where there is no such plan.
    pub fn tariff(&self, plan: &PlanName) -> Arc<Tariff> {
        self.tariffs.get(plan).cloned().unwrap_or_else(|| tariff(&self.prices, Pricing::default()))
    }

    /// Every book that calls may be priced by now.
    fn books(&self) -> impl Iterator<Item = &Arc<PriceBook>> {
        let own = self.plans.values().filter_map(|plan| plan.pricing.own.as_ref());
        [&self.configured, &self.prices].into_iter().chain(own)
    }
}

/// All keys of tenants' own, opened as far as the master keys go. Each time anew: one takes a microsecond, and this is done
/// when something changed.
fn opened(vault: &Vault, sealed: &[SealedKey]) -> HashMap<TenantId, Vec<(ProviderId, OwnKey)>> {
    let mut own: HashMap<TenantId, Vec<(ProviderId, OwnKey)>> = HashMap::new();
    for key in sealed {
        own.entry(key.tenant.clone()).or_default().push((key.provider.clone(), vault.own_key(key)));
    }
    own
}

/// Another gateway may have a master key that this one lacks. One line, however many there are.
fn tell_of_locked(vault: &Vault, sealed: &[SealedKey]) {
    let mut locked = sealed.iter().filter_map(|key| vault.open(key).err().map(|error| (key, error)));
    if let Some((SealedKey { tenant, provider, .. }, error)) = locked.next() {
        let others = locked.count();
        tracing::error!(%tenant, %provider, %error, others, "A tenant's own key cannot be opened: its calls are refused.");
    }
}

/// The book that was put in force for all gateways, if one was: one of those at hand, or as the store has it.
async fn active(
    store: &dyn TenantStore,
    directory: &Directory,
    at_hand: &[&Arc<PriceBook>],
    format: Format,
) -> Result<Option<Arc<PriceBook>>, StoreError> {
    let Some(ActiveBook { version, .. }) = &directory.prices else { return Ok(None) };
    if let Some(book) = at_hand.iter().find(|book| book.version() == *version) {
        return Ok(Some(Arc::clone(book)));
    }
    match find(store, version, format).await? {
        Some(book) => Ok(Some(Arc::new(book))),
        None => Err(StoreError::Corrupt(format!("the price book in force, {version}, is not there"))),
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

/// Why plans are not put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlansRefused {
    /// A tenant would be without its plan.
    Missing(PlanMissing),
    /// One limits what this process does not count: what was used of it before is not known.
    NotCounted {
        /// The plan.
        plan: PlanName,
        /// What it limits.
        limit: (Scope, Metric, Window),
    },
}

/// The shared pointer to the newest snapshot.
#[derive(Debug)]
pub struct Snapshots {
    current: ArcSwap<Snapshot>,
    /// How price books are read.
    format: Format,
    /// The versions of books that the ledger has for certain.
    kept: Mutex<BTreeSet<Arc<str>>>,
    /// What is counted, as the first plans demand it, for as long as the process lives.
    counting: Counting,
    /// The most tokens that an answer of a model may have: for estimates and holds, so not a part of what bills are made from.
    limits: ArcSwap<ModelLimits>,
    /// What is believed of calls that say too little of themselves.
    bounds: ArcSwap<Bounds>,
    /// What opens tenants' own keys.
    vault: ArcSwap<Vault>,
    /// Held while the next snapshot is built from the current one: of two writers, each would undo what the other brought.
    writing: Mutex<()>,
}

impl From<Snapshot> for Snapshots {
    fn from(snapshot: Snapshot) -> Self {
        let of_accounts = snapshot.accounts.values().filter_map(|account| account.plan.as_deref());
        let counting = Counting::of(snapshot.plans.values().map(|plan| &**plan).chain(of_accounts));
        Self {
            current: ArcSwap::from_pointee(snapshot),
            counting,
            format: Format::default(),
            kept: Mutex::default(),
            limits: ArcSwap::default(),
            bounds: ArcSwap::default(),
            vault: ArcSwap::default(),
            writing: Mutex::new(()),
        }
    }
}

impl Default for Snapshots {
    fn default() -> Self {
        Snapshot::default().into()
    }
}

impl Snapshots {
    /// Reads everything from the store for the first time.
    ///
    /// # Errors
    /// When it cannot be read, or the price book that is in force cannot.
    pub async fn open(
        store: &dyn TenantStore,
        plans: Plans,
        prices: PriceBook,
        format: Format,
    ) -> Result<Self, StoreError> {
        let directory = store.load().await?;
        let configured = Configured { plans: Arc::new(plans), prices: Arc::new(prices), vault: Arc::default() };
        let prices = active(store, &directory, &[&configured.prices], format).await?;
        let prices = prices.unwrap_or_else(|| configured.prices.clone());
        Ok(Self { format, ..Snapshot::build(directory, configured, prices).into() })
    }

    /// The same for whoever admits no calls: where the price book in force cannot be read, the configuration's prices are
    /// there, and why. So another one can be put in force.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open_anyway(
        store: &dyn TenantStore,
        plans: Plans,
        prices: PriceBook,
        format: Format,
    ) -> Result<(Self, Option<String>), StoreError> {
        let directory = store.load().await?;
        let configured = Configured { plans: Arc::new(plans), prices: Arc::new(prices), vault: Arc::default() };
        let (prices, why) = match active(store, &directory, &[&configured.prices], format).await {
            Ok(active) => (active, None),
            Err(StoreError::Corrupt(why)) => (None, Some(why)),
            Err(error) => return Err(error),
        };
        let prices = prices.unwrap_or_else(|| configured.prices.clone());
        Ok((Self { format, ..Snapshot::build(directory, configured, prices).into() }, why))
    }

    /// How price books are read.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Puts the books that calls may be priced by into the ledger, those that it does not have: whatever priced an event
    /// can be had again.
    ///
    /// # Errors
    /// When the store does not take them; asked again it tries again.
    pub async fn keep_books(&self, store: &dyn TenantStore, now: Micros) -> Result<(), StoreError> {
        let snapshot = self.load_full();
        let is_new =
            |book: &&Arc<PriceBook>| !book.document().is_empty() && !self.kept.lock().contains(&book.version());
        let books: Vec<_> = snapshot.books().filter(is_new).flat_map(|book| kept(book)).collect();
        if books.is_empty() {
            return Ok(());
        }
        store.keep_price_books(&books, "gateway", now).await?;
        self.kept.lock().extend(books.into_iter().map(|book| book.version));
        Ok(())
    }

    /// The newest snapshot. The guard is cheap and must not be held across an await; clone the parts that are needed.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// The same, to keep.
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The same, whatever its plans limit later.
    #[cfg(test)]
    pub(crate) fn that_count_all(self) -> Self {
        Self { counting: Counting::ALL, ..self }
    }

    /// What is counted, whatever plans come later.
    pub fn counting(&self) -> Counting {
        self.counting
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

    /// What opens tenants' own keys, and seals others.
    pub fn vault(&self) -> Arc<Vault> {
        self.vault.load_full()
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
        let known = self.load_full();
        let active = active(store, &directory, &[&known.prices, &known.configured], self.format).await;
        // Plans and prices are taken only now: they may have been replaced while the store was read.
        let _writing = self.writing.lock();
        let current = self.current.load();
        let prices = match active {
            Ok(Some(active)) => active,
            Ok(None) => current.configured.clone(),
            Err(StoreError::Corrupt(why)) => {
                // Calls are priced by the last book that could be read, and tenants and keys change all the same.
                tracing::error!(%why, "The price book that was put in force cannot be read; the last one stays.");
                current.prices.clone()
            }
            Err(error) => return Err(error),
        };
        // Two refreshes may run at once (an admin call and the refresher): the newer revision stays.
        if current.revision <= directory.revision {
            tell_of_locked(&self.vault.load(), &directory.provider_keys);
            let (plans, prices_configured) = (current.plans.clone(), current.configured.clone());
            let configured = Configured { plans, prices: prices_configured, vault: self.vault.load_full() };
            let next = Snapshot::build(directory, configured, prices);
            self.current.store(Arc::new(next));
        }
        Ok(true)
    }

    /// Puts other plans and prices of the configuration in force, both at once; where a book was put in force for all
    /// gateways, that one stays. Calls that are admitted already keep theirs.
    ///
    /// # Errors
    /// A tenant is on a plan that is not among them, or one limits what is not counted; nothing is changed then.
    pub fn replace(&self, plans: Plans, prices: PriceBook) -> Result<(), PlansRefused> {
        self.all_counted(&plans)?;
        let _writing = self.writing.lock();
        let current = self.current.load();
        all_known(current.accounts.values().map(|account| &account.tenant), &plans).map_err(PlansRefused::Missing)?;
        let vault = self.vault.load_full();
        let configured = Configured { plans: Arc::new(plans), prices: Arc::new(prices), vault };
        let prices = if current.active.is_some() { &current.prices } else { &configured.prices }.clone();
        self.current.store(Arc::new(current.with(configured, prices)));
        Ok(())
    }

    /// Puts other master keys in force.
    pub fn set_vault(&self, vault: Vault) {
        let _writing = self.writing.lock();
        let (current, vault) = (self.current.load(), Arc::new(vault));
        self.vault.store(vault.clone());
        tell_of_locked(&vault, &current.sealed);
        let (plans, prices) = (current.plans.clone(), current.configured.clone());
        let next = current.with(Configured { plans, prices, vault }, current.prices.clone());
        self.current.store(Arc::new(next));
    }

    /// The master keys that `vault` lacks to open every tenant's own keys.
    pub fn missing(&self, vault: &Vault) -> BTreeSet<MasterId> {
        vault.missing(&self.current.load().sealed)
    }

    fn all_counted(&self, plans: &Plans) -> Result<(), PlansRefused> {
        let first = |plan: &Arc<Plan>| {
            let limit = Counting::of([&**plan]).without(self.counting).each().next()?;
            Some(PlansRefused::NotCounted { plan: plan.name.clone(), limit })
        };
        plans.values().find_map(first).map_or(Ok(()), Err)
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
