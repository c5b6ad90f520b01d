//! Events priced again by the prices in force: what then differs is written as signed corrections, and nothing is edited.
//!
//! May use: `domain`, `ports`, the snapshot. An event keeps its tier, what it used and the moment of its admission, by which
//! prices have their dates. What is billed goes by the plan that its tenant was on then, as that plan is now; by what priced
//! the event where there is no such plan any more.
//!
//! A correction stands in the day and month of its event. Its id follows from the newest row that it goes on from, so that
//! each row is corrected once: of two who do this at once one writes, and the other is told. Original and corrections together
//! are always what the prices of the newest correction say.
//!
//! Left as it is, and counted, is what a row alone cannot tell the price of: events that their own prices do not explain
//! (the sum of a batch whose requests were priced one by one), sums of batches by prices that depend on the length or number of
//! requests, and events for which there is no price now.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::domain::audit::Change;
use crate::domain::event::{Correction, Outcome, UsageEvent};
use crate::domain::ids::{EventId, TenantId};
use crate::domain::money::{MoneyError, PicoUsd};
use crate::domain::price::tariff::{Charged, Pricing, Tariff, Version};
use crate::domain::price::{PriceBook, Priced, ServiceTier};
use crate::domain::time::Micros;
use crate::ports::StoreError;
use crate::ports::tenants::{Act, PlanChange, TenantStore, plan_at};
use crate::ports::usage::{EventsQuery, UsageStore};

use super::price_books::find;
use super::snapshot::{Snapshot, Snapshots};

/// Events in one step, which is also the most corrections in one transaction: whoever else writes waits for no more.
const STEP_EVENTS: u32 = if cfg!(test) { 3 } else { 500 };

/// Which events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Requested at or after.
    pub from: Micros,
    /// Requested before.
    pub to: Micros,
    /// Of one tenant.
    pub tenant: Option<TenantId>,
    /// Of one model, as the provider answered.
    pub model: Option<String>,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, tenant: _, model } = self;
        write!(f, "from {from} to {to}")?;
        model.as_ref().map_or(Ok(()), |model| write!(f, " of {model}"))
    }
}

/// What became of the events of one model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// How many were looked at.
    pub events: u64,
    /// How many have a correction now, or would have.
    pub corrected: u64,
    /// How many their own prices do not explain.
    pub unexplained: u64,
    /// How many have no price now.
    pub unpriced: u64,
    /// What the looked at ones cost before.
    pub cost_before: PicoUsd,
    /// What they cost now.
    pub cost_after: PicoUsd,
    /// What was billed for them before.
    pub billable_before: PicoUsd,
    /// What is billed for them now.
    pub billable_after: PicoUsd,
}

/// What became of all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rerated {
    /// By provider and model.
    pub models: BTreeMap<(String, String), Line>,
    /// The version of the list that they were priced by.
    pub version: String,
}

/// Why it was not done to the end. What was written stays, and doing it again goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RerateError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody else corrected the same rows, by the same prices or others: those corrections stand.
    #[error("another `tollgate prices rerate` runs on this ledger: do this again when it is over")]
    Another,
    /// A sum that no integer of ours holds.
    #[error(transparent)]
    Money(#[from] MoneyError),
}

/// Prices events again.
pub struct Rerating {
    usage: Arc<dyn UsageStore>,
    tenants: Arc<dyn TenantStore>,
    snapshots: Arc<Snapshots>,
}

/// What is known of tariffs in one run.
struct Known<'a> {
    rerating: &'a Rerating,
    snapshot: Arc<Snapshot>,
    histories: HashMap<TenantId, Vec<PlanChange>>,
    books: HashMap<String, Option<Arc<PriceBook>>>,
    tariffs: HashMap<Arc<str>, Option<Arc<Tariff>>>,
}

/// How an event stands, its corrections included.
struct Standing {
    newest: EventId,
    cost: PicoUsd,
    billable: PicoUsd,
    priced: Priced,
}

impl Rerating {
    /// Of this ledger, by the prices in these snapshots.
    pub fn new(usage: Arc<dyn UsageStore>, tenants: Arc<dyn TenantStore>, snapshots: Arc<Snapshots>) -> Self {
        Self { usage, tenants, snapshots }
    }

    /// Does it, if it is done by somebody, or only says what would be done. `tell` hears now and then how many events were
    /// looked at. The entry of the audit log stands before the first correction.
    ///
    /// # Errors
    /// When a store fails; what was written is right.
    pub async fn run(
        &self,
        scope: &Scope,
        by: Option<&Act>,
        tell: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Rerated, RerateError> {
        let snapshot = self.snapshots.load_full();
        if let Some(active) = snapshot.active.as_ref().filter(|active| active.version != snapshot.prices.version()) {
            // Other prices than those in force would be a bill of their own.
            let why = format!("the price book in force, {}, cannot be read", active.version);
            return Err(StoreError::Corrupt(why).into());
        }
        let mut rerated = Rerated { version: snapshot.prices.version().to_string(), ..Rerated::default() };
        let mut known = Known::of(self, snapshot);
        let (mut after, mut seen, mut is_recorded) = (None, 0_u64, false);
        loop {
            let query = EventsQuery {
                tenant: scope.tenant.clone(),
                from: Some(scope.from),
                to: Some(scope.to),
                priced: None,
                after,
                events_max: STEP_EVENTS,
            };
            let page = self.usage.events(&query).await?;
            let Some(last) = page.last() else { return Ok(rerated) };
            after = Some(last.row);
            seen = seen.saturating_add(u64::try_from(page.len()).unwrap_or(u64::MAX));
            let is_meant = |event: &UsageEvent| {
                let of_model = scope.model.as_deref().is_none_or(|model| *event.model == *model);
                of_model && event.outcome != Outcome::Correction && event.used_anything()
            };
            let events: Vec<UsageEvent> = page.into_iter().map(|stored| stored.event).filter(is_meant).collect();
            let corrections = self.step(&mut known, &events, &mut rerated).await?;
            if let Some(act) = by.filter(|_| !corrections.is_empty()) {
                if !is_recorded {
                    let change = Change::rerated(scope.tenant.clone(), scope.to_string(), &rerated.version);
                    self.tenants.record(&change, act).await?;
                    is_recorded = true;
                }
                self.write(&corrections).await?;
            }
            tell(seen);
        }
    }

    /// Writes corrections that go on from what each event was just found to be.
    async fn write(&self, corrections: &[UsageEvent]) -> Result<(), RerateError> {
        let new = self.usage.append(corrections).await?;
        if usize::try_from(new) == Ok(corrections.len()) { Ok(()) } else { Err(RerateError::Another) }
    }

    /// The corrections of some events.
    async fn step(
        &self,
        known: &mut Known<'_>,
        events: &[UsageEvent],
        rerated: &mut Rerated,
    ) -> Result<Vec<UsageEvent>, RerateError> {
        let ids: Vec<EventId> = events.iter().map(|event| event.id).collect();
        let mut earlier: HashMap<EventId, Vec<UsageEvent>> = HashMap::new();
        for stored in self.usage.corrections(&ids).await? {
            if let Some(corrected) = stored.event.corrects {
                earlier.entry(corrected.event).or_default().push(stored.event);
            }
        }
        let mut corrections = Vec::new();
        for event in events {
            let standing = Standing::of(event, earlier.get(&event.id).map_or(&[], Vec::as_slice))?;
            let line = rerated.models.entry((event.provider.to_string(), event.model.to_string())).or_default();
            let correction = known.correction(event, &standing, line).await?;
            let (cost, billable) = correction.as_ref().map_or_else(Default::default, |one| (one.cost, one.billable));
            line.events = line.events.saturating_add(1);
            line.corrected = line.corrected.saturating_add(u64::from(correction.is_some()));
            line.cost_before = line.cost_before.plus(standing.cost)?;
            line.cost_after = line.cost_after.plus(standing.cost)?.plus(cost)?;
            line.billable_before = line.billable_before.plus(standing.billable)?;
            line.billable_after = line.billable_after.plus(standing.billable)?.plus(billable)?;
            corrections.extend(correction.map(|correction| event.corrected(correction)));
        }
        Ok(corrections)
    }
}

impl Standing {
    /// `corrections` in the order of their rows.
    fn of(event: &UsageEvent, corrections: &[UsageEvent]) -> Result<Self, MoneyError> {
        let (cost, billable) = (event.cost.unwrap_or_default(), event.billable.unwrap_or_default());
        let mut standing = Self { newest: event.id, cost, billable, priced: event.priced };
        for correction in corrections {
            standing.newest = correction.id;
            standing.cost = standing.cost.plus(correction.cost.unwrap_or_default())?;
            standing.billable = standing.billable.plus(correction.billable.unwrap_or_default())?;
            standing.priced = correction.priced;
        }
        Ok(standing)
    }
}

impl<'a> Known<'a> {
    fn of(rerating: &'a Rerating, snapshot: Arc<Snapshot>) -> Self {
        let (histories, books, tariffs) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { rerating, snapshot, histories, books, tariffs }
    }

    /// What is to be corrected of an event, if anything is.
    async fn correction(
        &mut self,
        event: &UsageEvent,
        standing: &Standing,
        line: &mut Line,
    ) -> Result<Option<Correction>, RerateError> {
        let own = self.tariff_of(&event.price_version).await?;
        let explained = own.as_deref().map(|own| charged(own, event));
        let tariff = self.tariff_now(event, own.as_deref()).await?;
        if !is_explained(event, explained.as_ref(), &tariff) {
            line.unexplained = line.unexplained.saturating_add(1);
            return Ok(None);
        }
        let now = charged(&tariff, event);
        let (Some(billable), cost) = (now.billable, now.charge.cost.unwrap_or(standing.cost)) else {
            line.unpriced = line.unpriced.saturating_add(1);
            return Ok(None);
        };
        let priced = match now.charge.cost {
            // A price of the plan's own bills it; what the provider charges stays as far known as it was.
            None => standing.priced,
            Some(_) => as_doubtful(event, explained.as_ref(), now.charge.priced),
        };
        let (cost, billable) = (cost.minus(standing.cost)?, billable.minus(standing.billable)?);
        let becomes_known = (standing.priced == Priced::Unpriced) != (priced == Priced::Unpriced);
        let is_changed = cost != PicoUsd::ZERO || billable != PicoUsd::ZERO || becomes_known;
        let (after, priced_before, price_version) = (standing.newest, standing.priced, tariff.version());
        Ok(is_changed.then_some(Correction { after, priced_before, priced, cost, billable, price_version }))
    }

    /// The prices in force, with what the event's plan makes of them.
    async fn tariff_now(&mut self, event: &UsageEvent, own: Option<&Tariff>) -> Result<Arc<Tariff>, StoreError> {
        if !self.histories.contains_key(&event.tenant) {
            let history = self.rerating.tenants.plan_history(&event.tenant).await?;
            self.histories.insert(event.tenant.clone(), history);
        }
        let history = self.histories.get(&event.tenant).map_or(&[][..], Vec::as_slice);
        let then = plan_at(history, event.requested_at);
        if let Some(change) = then.filter(|change| self.snapshot.plans.contains_key(&change.plan)) {
            return Ok(self.snapshot.tariff(&change.plan));
        }
        let pricing = own.map_or_else(Pricing::default, |own| own.pricing().clone());
        Ok(Arc::new(Tariff::new(self.snapshot.prices.clone(), pricing)))
    }

    /// What an event was priced by, where the ledger has it.
    async fn tariff_of(&mut self, version: &Arc<str>) -> Result<Option<Arc<Tariff>>, StoreError> {
        if let Some(tariff) = self.tariffs.get(version) {
            return Ok(tariff.clone());
        }
        let tariff = match Version::parse(version) {
            None => None,
            Some(Version { list, own, percent }) => {
                let list = self.book(list).await?;
                match (list, own) {
                    (None, _) => None,
                    (Some(list), None) => Some(Tariff::new(list, Pricing { percent, own: None })),
                    (Some(list), Some(own)) => {
                        let own = self.book(own).await?;
                        own.map(|own| Tariff::new(list, Pricing { percent, own: Some(own) }))
                    }
                }
            }
        };
        let tariff = tariff.map(Arc::new);
        self.tariffs.insert(version.clone(), tariff.clone());
        Ok(tariff)
    }

    async fn book(&mut self, version: &str) -> Result<Option<Arc<PriceBook>>, StoreError> {
        if let Some(book) = self.books.get(version) {
            return Ok(book.clone());
        }
        let rerating = self.rerating;
        let at_hand = [&self.snapshot.prices, &self.snapshot.configured].into_iter().find(|b| *b.version() == *version);
        let book = match at_hand {
            Some(book) => Some(book.clone()),
            None => find(&*rerating.tenants, version, rerating.snapshots.format()).await?.map(Arc::new),
        };
        self.books.insert(version.to_owned(), book.clone());
        Ok(book)
    }
}

fn charged(tariff: &Tariff, event: &UsageEvent) -> Charged {
    tariff.charge(event.named(), event.service_tier, event.used(), event.requested_at)
}

/// Whether a row tells what its event costs. Where its own prices are at hand they say so; and a batch may be the sum of many
/// requests, which the prices of `now` have to be indifferent to.
fn is_explained(event: &UsageEvent, own: Option<&Charged>, now: &Tariff) -> bool {
    let is_one_price = || {
        let (tier, prompt_tokens) = (event.service_tier, event.tokens.prompt);
        now.prices_sums(event.named(), tier, prompt_tokens, event.requested_at)
    };
    // What was not known at that time is known by nothing but new prices.
    let is_known = |own: &Charged| own.charge.cost == event.cost && own.billable == event.billable;
    (event.priced == Priced::Unpriced || own.is_none_or(is_known))
        && (event.service_tier != ServiceTier::Batch || is_one_price())
}

/// A price that was doubtful for a reason that no row shows, such as a search beside the tokens, stays so.
fn as_doubtful(event: &UsageEvent, own: Option<&Charged>, now: Priced) -> Priced {
    let was_doubted = event.priced == Priced::Incomplete && own.is_none_or(|own| own.charge.priced == Priced::Priced);
    if was_doubted && now == Priced::Priced { Priced::Incomplete } else { now }
}

#[cfg(test)]
mod tests;
