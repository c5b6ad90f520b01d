//! Administration: tenants, their plans and keys, and how their limits stand.
//!
//! May use: `domain`, `ports`, the snapshot. A change counts at once in this process, because each one ends with a new
//! snapshot; other processes see the store's revision grow.
//!
//! Every change names its author and leaves one entry in the audit log; a change that changes nothing leaves none. A
//! change that was asked for with an idempotency key is made once: its answer is settled before the store is asked, and
//! goes into the transaction of the change ([`super::once`]). A refusal changes nothing and is not remembered: the same
//! key may be tried again, with a body that was put right, too.

mod keys;
pub mod prices;
mod secrets;

pub use keys::{OVERLAP_DEFAULT_S, OVERLAP_MAX_S};
pub use secrets::{Resealed, Unopened};

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::domain::audit::{AuditEntry, Author};
use crate::domain::ids::{KeyId, PlanName, TenantId};
use crate::domain::key;
use crate::domain::plan::{Limit, Metric, Plan, Scope, Standing, Subject};
use crate::domain::provider_key::PROVIDER_KEY_CHARS;
use crate::domain::rate::{Rate, RateMetric};
use crate::domain::tenant::Tenant;
use crate::domain::threshold::Crossing;
use crate::domain::time::{Micros, Period, Window};
use crate::domain::zone::Zone;
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::counters::{CounterKey, CounterStore, CountersUnavailable};
use crate::ports::rates::{RateClaim, RateStanding, RateStore};
use crate::ports::tenants::{Act, Answered, AuditFilter, AuditQuery, AuditStart, Done, TenantChange, TenantStore};
use crate::ports::usage::UsageStore;

use super::once::{Kept, Once};
use super::snapshot::{Account, Snapshots};
use super::vault::VaultError;

/// Characters of a display name. It is for people, and it is kept in every snapshot.
pub const NAME_CHARS_MAX: usize = 128;

/// Entries of the audit log on a page, at most.
pub const ENTRIES_PER_PAGE_MAX: u32 = 1_000;

/// How long the ledger may take to say which thresholds were crossed: how limits stand does not wait for it longer.
const CROSSED_WITHIN: Duration = Duration::from_millis(500);

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
    /// The key was revoked, for good: nothing comes in its place.
    #[error("key {key} of tenant {tenant} is revoked, so that it cannot be rotated; create a new key")]
    KeyRevoked {
        /// Whose key it was.
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
    /// The old key would work on for longer than anybody rotates for.
    #[error("the old key can work on for at most {OVERLAP_MAX_S} seconds")]
    OverlapTooLong,
    /// No provider has that name.
    #[error("there is no provider of that name; the providers are {0}")]
    UnknownProvider(String),
    /// A text that is no provider's key.
    #[error("a provider's key has {} to {} visible ASCII characters", PROVIDER_KEY_CHARS.start(), PROVIDER_KEY_CHARS.end())]
    InvalidProviderKey,
    /// It cannot be sealed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The same request was made and answered before; nothing was done now.
    #[error("this request was answered before")]
    DoneBefore(Kept),
    /// The idempotency key belongs to another request.
    #[error("this idempotency key was used within 24 hours for another body; a new request takes a new key")]
    KeyReused,
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

/// Of whom in a tenant limits are shown, beside those of the tenant itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Who {
    /// A key.
    pub key: Option<KeyId>,
    /// A user.
    pub user_id: Option<Box<str>>,
    /// A knowledge base.
    pub kb_id: Option<Box<str>>,
}

impl Who {
    fn subject(&self, scope: Scope) -> Option<Subject> {
        match scope {
            Scope::Tenant => Some(Subject::Tenant),
            Scope::Key => self.key.clone().map(Subject::Key),
            Scope::User => self.user_id.as_deref().map(|id| Subject::User(id.into())),
            Scope::Kb => self.kb_id.as_deref().map(|id| Subject::Kb(id.into())),
        }
    }
}

/// What of a tenant is to be another; `None` leaves it as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantEdit {
    /// A new display name.
    pub name: Option<String>,
    /// Suspended or not.
    pub suspended: Option<bool>,
    /// Another time zone.
    pub zone: Option<Zone>,
}

/// How one limit of a tenant stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitRow {
    /// Of whom.
    pub subject: Subject,
    /// What is counted.
    pub metric: Metric,
    /// In which day or month.
    pub period: Period,
    /// How much fits; `None` when unlimited.
    pub limit: Option<u64>,
    /// How much is gone.
    pub standing: Standing,
    /// When the window ends.
    pub resets_at: Micros,
    /// The plan's thresholds of it; `None` while the ledger cannot be asked which were crossed.
    pub thresholds: Option<Vec<ThresholdRow>>,
}

/// One threshold of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThresholdRow {
    /// The percent of the limit.
    pub percent: u16,
    /// When it was crossed in this window, if it was; also where the limit is another one by now.
    pub crossed_at: Option<Micros>,
}

impl LimitRow {
    /// What is left; `None` when unlimited.
    pub fn remaining(&self) -> Option<u64> {
        self.limit.map(|limit| self.standing.remaining(limit))
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
    /// The plan's rates, in its order.
    pub rates: Vec<RateRow>,
}

/// How one rate of a tenant stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateRow {
    /// Of whom.
    pub subject: Subject,
    /// What is counted.
    pub metric: RateMetric,
    /// How much fits.
    pub limit: u64,
    /// How much is taken.
    pub taken: u64,
    /// When all of it is free again, were nothing more taken; for requests at once the instant of the answer.
    pub resets_at: Micros,
}

/// A change that somebody asks for, and how to tell what was done (`T`) where the answer has to be kept.
pub struct Order<'a, T> {
    author: &'a Author,
    once: Option<(&'a Once, &'a Tell<'a, T>)>,
}

/// Writes an answer.
type Tell<'a, T> = dyn Fn(&T) -> Kept + Send + Sync + 'a;

impl<'a, T> Order<'a, T> {
    /// A change without an idempotency key.
    pub fn by(author: &'a Author) -> Self {
        Self { author, once: None }
    }

    /// The same, made once and answered by `tell`, if there is a key.
    pub fn once(self, once: Option<&'a Once>, tell: &'a Tell<'a, T>) -> Self {
        Self { once: once.map(|once| (once, tell)), ..self }
    }

    /// The change as a store takes it, if what comes of it is `done`.
    fn act(&self, done: &T, at: Micros) -> Result<Act, AdminError> {
        let memory = self.once.map(|(once, tell)| once.memory(tell(done).0)).transpose()?;
        Ok(Act { author: self.author.clone(), at, memory })
    }
}

/// A page of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPage {
    /// Oldest first.
    pub entries: Vec<AuditEntry>,
    /// The row after which the next page begins; `None` when this is the last one for now.
    pub next: Option<i64>,
}

/// All administration. Cheap to share; holds no state of its own.
pub struct Admin {
    store: Arc<dyn TenantStore>,
    snapshots: Arc<Snapshots>,
    counters: Arc<dyn CounterStore>,
    rates: Option<Arc<dyn RateStore>>,
    ledger: Option<Arc<dyn UsageStore>>,
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
        Self { store, snapshots, counters, rates: None, ledger: None, clock }
    }

    /// The same with the ledger that knows which thresholds were crossed; without it none is shown.
    pub fn with_ledger(self, ledger: Arc<dyn UsageStore>) -> Self {
        Self { ledger: Some(ledger), ..self }
    }

    /// The same with the rates that calls flow by; without them none are shown.
    pub fn with_rates(self, rates: Arc<dyn RateStore>) -> Self {
        Self { rates: Some(rates), ..self }
    }

    /// Creates a tenant on a plan.
    pub async fn create_tenant(
        &self,
        order: Order<'_, Tenant>,
        id: TenantId,
        name: String,
        plan: &str,
        zone: Zone,
    ) -> Result<Tenant, AdminError> {
        self.recall(&order).await?;
        check_name(&name)?;
        let plan = self.plan(plan)?.name.clone();
        let tenant = Tenant { id, name, plan, suspended: false, zone, created_at: self.clock.now() };
        let act = order.act(&tenant, tenant.created_at)?;
        match self.store.create_tenant(&tenant, &act).await {
            Ok(done) => self.done(&order, &tenant.id, done).await?,
            Err(StoreError::Exists(_)) => return Err(AdminError::TenantExists(tenant.id)),
            Err(error) => return Err(error.into()),
        }
        Ok(tenant)
    }

    /// Renames a tenant, suspends it, lets it in again or gives it another time zone. Its plan: [`Self::set_plan`].
    pub async fn change_tenant(&self, author: &Author, id: &TenantId, edit: TenantEdit) -> Result<Tenant, AdminError> {
        let TenantEdit { name, suspended, zone } = edit;
        if let Some(name) = &name {
            check_name(name)?;
        }
        let act = Act::by(author.clone(), self.clock.now());
        let change = TenantChange { name, suspended, plan: None, zone };
        match self.store.change_tenant(id, &change, &act).await {
            Ok(done) => self.done(&Order::<()>::by(author), id, done).await,
            Err(StoreError::Missing(_)) => Err(AdminError::UnknownTenant(id.clone())),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts a tenant on a plan and says how it then stands. What was used carries over. Setting the plan that it is on
    /// already changes nothing.
    pub async fn set_plan(
        &self,
        order: Order<'_, LimitsView>,
        id: &TenantId,
        plan: &str,
    ) -> Result<LimitsView, AdminError> {
        self.recall(&order).await?;
        let plan = self.plan(plan)?;
        self.tenant(id).await?;
        // Read before the change, as all that can fail comes first; what is used does not depend on the plan.
        let view = self.standing(id, &plan, &Who::default()).await?;
        let act = order.act(&view, self.clock.now())?;
        let change = TenantChange { plan: Some(plan.name.clone()), ..TenantChange::default() };
        match self.store.change_tenant(id, &change, &act).await {
            Ok(done) => self.done(&order, id, done).await?,
            Err(StoreError::Missing(_)) => return Err(AdminError::UnknownTenant(id.clone())),
            Err(error) => return Err(error.into()),
        };
        Ok(view)
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

    /// A page of some entries of the audit log: what comes after the entry in row `after`. More than
    /// [`ENTRIES_PER_PAGE_MAX`] entries count as that.
    pub async fn audit(&self, filter: AuditFilter, after: i64, entries_max: u32) -> Result<AuditPage, AdminError> {
        let entries_max = entries_max.clamp(1, ENTRIES_PER_PAGE_MAX);
        // One more than the page holds tells whether there is a next page.
        let query = AuditQuery { filter, start: AuditStart::After(after), entries_max: entries_max.saturating_add(1) };
        let mut entries = self.store.audit(&query).await?;
        let page = usize::try_from(entries_max).unwrap_or(usize::MAX);
        let has_more = entries.len() > page;
        entries.truncate(page);
        let next = entries.last().filter(|_| has_more).map(|entry| entry.row);
        Ok(AuditPage { entries, next })
    }

    /// The last page of some entries of the audit log.
    pub async fn last_audited(&self, filter: AuditFilter, entries_max: u32) -> Result<AuditPage, AdminError> {
        let entries_max = entries_max.clamp(1, ENTRIES_PER_PAGE_MAX);
        let query = AuditQuery { filter, start: AuditStart::End, entries_max };
        Ok(AuditPage { entries: self.store.audit(&query).await?, next: None })
    }

    /// How a tenant stands at this instant. Asks the counters, and the ledger for no more than crossed thresholds: it is
    /// answered while the ledger is away, unless the tenant is one that this process has not heard of yet.
    pub async fn limits(&self, id: &TenantId, who: &Who) -> Result<LimitsView, AdminError> {
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
        self.standing(id, plan, who).await
    }

    /// The names of all plans, in ascending order.
    pub fn plan_names(&self) -> Vec<PlanName> {
        self.snapshots.load().plans.keys().cloned().collect()
    }

    async fn standing(&self, id: &TenantId, plan: &Plan, who: &Who) -> Result<LimitsView, AdminError> {
        let now = self.clock.now();
        let zone = self.known(id).map(|account| account.tenant.zone.clone()).unwrap_or_default();
        let key = |subject, metric, window: Window| CounterKey {
            tenant: id.clone(),
            subject,
            metric,
            period: zone.period(window, now),
        };
        let (tenant, chats, month) = (Scope::Tenant, Metric::Chats, Window::Month);
        let chats_max = plan.limit(tenant, chats, month).map(|limit| limit.max);
        let is_other = |limit: &&Limit| (limit.scope, limit.metric, limit.window) != (tenant, chats, month);
        let other = |limit: &Limit| Some((key(who.subject(limit.scope)?, limit.metric, limit.window), Some(limit.max)));
        let others = plan.limits.iter().filter(is_other).filter_map(other);
        let (counters, maxima): (Vec<CounterKey>, Vec<Option<u64>>) =
            std::iter::once((key(Subject::Tenant, chats, month), chats_max)).chain(others).unzip();
        let standings = self.counters.read(&counters).await?;
        let mut rows = counters.into_iter().zip(maxima).zip(standings).map(|((counter, limit), standing)| {
            let CounterKey { subject, metric, period, .. } = counter;
            LimitRow { subject, metric, period, limit, standing, resets_at: zone.end(period), thresholds: None }
        });
        let chats = rows.next().ok_or_else(|| CountersUnavailable("no answer for the chats counter".to_owned()))?;
        let (mut chats, mut others): (LimitRow, Vec<LimitRow>) = (chats, rows.collect());
        let crossed = self.crossed(id, plan, std::iter::once(&chats).chain(&others)).await;
        std::iter::once(&mut chats).chain(&mut others).for_each(|row| row.thresholds = thresholds(row, plan, &crossed));
        let rates = self.rates(id, plan, who).await?;
        Ok(LimitsView { tenant: id.clone(), plan: plan.name.clone(), chats, others, rates })
    }

    /// What was crossed of these limits; `None` where the ledger does not say.
    async fn crossed(
        &self,
        id: &TenantId,
        plan: &Plan,
        rows: impl Iterator<Item = &LimitRow>,
    ) -> Option<Vec<Crossing>> {
        let ledger = self.ledger.as_ref()?;
        let limited = rows.filter(|row| row.limit.is_some() && !plan.thresholds.are_none());
        let counter = |row: &LimitRow| CounterKey {
            tenant: id.clone(),
            subject: row.subject.clone(),
            metric: row.metric,
            period: row.period,
        };
        let counters: Vec<CounterKey> = limited.map(counter).collect();
        if counters.is_empty() {
            return Some(Vec::new());
        }
        timeout(CROSSED_WITHIN, ledger.crossed(&counters)).await.ok()?.ok()
    }

    async fn rates(&self, id: &TenantId, plan: &Plan, who: &Who) -> Result<Vec<RateRow>, AdminError> {
        let claim = |Rate { scope, metric, max }: &Rate| {
            Some(RateClaim { subject: who.subject(*scope)?, metric: *metric, amount: 0, max: *max })
        };
        let claims: Vec<RateClaim> = plan.rates.iter().filter_map(claim).collect();
        let Some(rates) = self.rates.as_ref().filter(|_| !claims.is_empty()) else { return Ok(Vec::new()) };
        let (standings, now) = (rates.read(id, &claims).await?, self.clock.now());
        let row = |(RateClaim { subject, metric, max, .. }, standing): (RateClaim, RateStanding)| {
            let full_in = i64::try_from(standing.full_in_us).unwrap_or(i64::MAX);
            let resets_at = Micros(now.0.saturating_add(full_in));
            RateRow { subject, metric, limit: max, taken: standing.taken, resets_at }
        };
        Ok(claims.into_iter().zip(standings).map(row).collect())
    }

    fn plan(&self, name: &str) -> Result<Arc<Plan>, AdminError> {
        let found = self.snapshots.load().plans.get(name).cloned();
        found.ok_or_else(|| AdminError::UnknownPlan { known: self.plan_names() })
    }

    fn known(&self, id: &TenantId) -> Option<Arc<Account>> {
        self.snapshots.load().accounts.get(id).cloned()
    }

    /// Refuses an order that was carried out before, whatever the world looks like by now.
    async fn recall<T>(&self, order: &Order<'_, T>) -> Result<(), AdminError> {
        let Some((once, _)) = order.once else { return Ok(()) };
        match self.store.recall(once.id(), self.clock.now()).await? {
            None => Ok(()),
            Some(answered) => Err(self.before(once, answered).await),
        }
    }

    /// What the store made of an order; afterwards it counts in every gateway that shares the counters.
    async fn done<T, D>(&self, order: &Order<'_, T>, tenant: &TenantId, done: Done<D>) -> Result<D, AdminError> {
        let done = self.done_now(order, done).await?;
        let revision = self.snapshots.load().revision;
        self.counters.changed(tenant, revision).await;
        Ok(done)
    }

    /// The same of what is no tenant's.
    async fn done_now<T, D>(&self, order: &Order<'_, T>, done: Done<D>) -> Result<D, AdminError> {
        match (done, order.once) {
            (Done::Now(done), _) => {
                self.publish().await;
                Ok(done)
            }
            // Another request with the same key was faster.
            (Done::Before(answered), Some((once, _))) => Err(self.before(once, answered).await),
            (Done::Before(_), None) => Err(StoreError::Corrupt("an answer that nobody asked for".to_owned()).into()),
        }
    }

    /// The answer that was given before. Whoever gave it may have ended before the change counted here.
    async fn before(&self, once: &Once, answered: Answered) -> AdminError {
        self.publish().await;
        once.open(answered).map_or_else(|error| error, AdminError::DoneBefore)
    }

    /// Makes a change count in this process. The change itself is stored by then: a failure here is no failure of the
    /// act, because the refresher reads it within its interval.
    async fn publish(&self) {
        if let Err(error) = self.snapshots.refresh(&*self.store).await {
            tracing::warn!(%error, "A change is stored, but this process could not read it back yet.");
        }
    }
}

/// The thresholds of a limit, if it is one.
fn thresholds(row: &LimitRow, plan: &Plan, crossed: &Option<Vec<Crossing>>) -> Option<Vec<ThresholdRow>> {
    let crossed = crossed.as_ref()?;
    let at = |percent| {
        let is_it = |crossing: &&Crossing| {
            (&crossing.subject, crossing.metric, crossing.period, crossing.percent)
                == (&row.subject, row.metric, row.period, percent)
        };
        crossed.iter().find(is_it).map(|crossing| crossing.at)
    };
    row.limit?;
    Some(plan.thresholds.percents().map(|percent| ThresholdRow { percent, crossed_at: at(percent) }).collect())
}

/// A new key out of 32 bytes of the system's randomness, to be shown once. Fit for a tenant and for the admin.
pub fn mint_key() -> Result<String, AdminError> {
    let mut random = [0; 32];
    fill_random(&mut random)?;
    Ok(key::mint(random))
}

pub(super) fn fill_random(bytes: &mut [u8]) -> Result<(), AdminError> {
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
