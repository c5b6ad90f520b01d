//! Reports: what was used and what it costs, put together from the ledger's sums and line items.
//!
//! May use: `domain`, `providers`, `ports`, the snapshot. Only assembles: every figure is a sum that the store made. All
//! figures of one report come from one question, so that its parts add up to its total even while calls are booked.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::event::UsageEvent;
use crate::domain::ids::{EventId, TenantId};
use crate::domain::money::PicoUsd;
use crate::domain::price::rates::Rates;
use crate::domain::price::{PriceBook, Priced, ServiceTier};
use crate::domain::threshold::Crossing;
use crate::domain::time::{Micros, Period, Window};
use crate::domain::zone::Zone;
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::crossings::CrossingsQuery;
use crate::ports::usage::{Dimension, EventsQuery, Group, Sums, SumsQuery, UsageStore};

use super::cost_lines::{self, CostLine};
use super::snapshot::Snapshots;

/// Groups in one report: more than this nobody reads, and the answer would be tens of megabytes.
pub const GROUPS_MAX: usize = 50_000;

/// Line items on one page: about a megabyte of JSON.
pub const EVENTS_PER_PAGE_MAX: u32 = 1_000;

/// The sums in a report. The layer above says them under this name and needs to know no port.
pub type Totals = Sums;

/// One group of a report and its sums.
pub type GroupRow = Group;

/// What a report is grouped by: each dimension at most once.
pub type GroupBy = Vec<Dimension>;

/// Why there is no report. Each sentence may be shown to whoever asked, except that of `Store`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The report would have more than [`GROUPS_MAX`] groups.
    #[error(
        "the report would have {groups} groups, the limit is {GROUPS_MAX}; ask for a shorter range or fewer groups"
    )]
    TooManyGroups {
        /// How many it would have.
        groups: usize,
    },
    /// A grouping that names something else than dimensions, or one of them twice.
    #[error("group_by takes a list, separated by commas, of each at most once: {}", dimension_names())]
    InvalidGroupBy,
    /// The cursor is no line item of those that were asked for.
    #[error("the cursor names no event of this list")]
    UnknownCursor,
    /// Some of the events that the report is of were dropped by a retention: what is left would be a wrong answer.
    #[error(
        "{0} were dropped and only their sums were kept, by provider, model and day; ask for a later time or for one of these"
    )]
    Dropped(String),
    /// A sum that no integer of ours holds.
    #[error("a sum is too large to be added up")]
    Overflow,
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for ReportError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Missing(events) => Self::Dropped(events),
            other => Self::Store(other),
        }
    }
}

impl ReportError {
    /// Whether the same question may be answered later as it is: the store did not answer.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Store(StoreError::Unavailable(_)))
    }
}

/// What was used in one day or month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageReport {
    /// Of whom; `None` for all tenants.
    pub tenant: Option<TenantId>,
    /// When.
    pub period: Period,
    /// By whose clock.
    pub zone: Zone,
    /// Everything.
    pub totals: Totals,
    /// The same by provider, those with nothing too.
    pub providers: BTreeMap<String, Totals>,
    /// What `groups` are grouped by.
    pub group_by: GroupBy,
    /// The same by the asked dimensions; empty when none was asked.
    pub groups: Vec<GroupRow>,
}

/// What was spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CostReport {
    /// Of whom; `None` for all tenants.
    pub tenant: Option<TenantId>,
    /// When; `None` for all time.
    pub period: Option<Period>,
    /// By whose clock.
    pub zone: Zone,
    /// Everything.
    pub totals: Totals,
    /// The same by provider and model.
    pub rows: Vec<CostRow>,
    /// What `groups` are grouped by.
    pub group_by: GroupBy,
    /// The same by the asked dimensions; empty when none was asked.
    pub groups: Vec<GroupRow>,
    /// The version of the price book that is in force now. Each event keeps the version that priced it.
    pub price_version: Arc<str>,
}

/// What one model of one provider cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CostRow {
    /// The provider's short name.
    pub provider: String,
    /// The model, as the provider answered.
    pub model: String,
    /// Its sums.
    pub sums: Totals,
    /// List prices of the standard tier for short inputs, at the end of the report's time; `None` when the model has no
    /// price. Each event was charged by the prices of its own tier, length and moment.
    pub rates: Option<Rates>,
}

/// What a model cost in a day, or in the whole time of a report, by kinds of token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindRow {
    /// Whose; `None` in a report of all tenants together.
    pub tenant: Option<TenantId>,
    /// On which day of its clock; `None` in a report of the whole time.
    pub day: Option<Period>,
    /// The provider's short name.
    pub provider: String,
    /// The model, as the provider answered.
    pub model: String,
    /// The kind of token and its cost.
    pub line: CostLine,
    /// What part of the whole report it is, in [`SHARES`](super::cost_lines::SHARES); `None` where that cost nothing.
    pub share: Option<i128>,
}

/// Costs of tenants by days and kinds of token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindReport {
    /// The rows; their costs add up to the ledger's.
    pub rows: Vec<KindRow>,
    /// The display name and the zone of each tenant that it is about.
    pub zones: BTreeMap<TenantId, (String, Zone)>,
    /// The ledger that they come from.
    pub ledger_id: String,
    /// The version of the price book that is in force now, which has the unit prices.
    pub price_version: Arc<str>,
}

/// One page of line items, in insert order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsPage {
    /// The line items.
    pub events: Vec<UsageEvent>,
    /// Where the next page begins; `None` when this is the last one for now. It is the id of the last event here, so it
    /// tells a tenant nothing of how much others use, which the row number would.
    pub next: Option<EventId>,
}

/// Which page of line items.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PageQuery {
    /// Of one tenant; `None` for all (admin only).
    pub tenant: Option<TenantId>,
    /// Requested at or after.
    pub from: Option<Micros>,
    /// Requested before.
    pub to: Option<Micros>,
    /// Whose cost can be trusted so far.
    pub priced: Option<Priced>,
    /// After this event.
    pub after: Option<EventId>,
    /// At most this many; more than [`EVENTS_PER_PAGE_MAX`] counts as that.
    pub events_max: u32,
}

/// One page of crossed thresholds, in the order in which they were noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrossingsPage {
    /// The crossings, each with its row.
    pub crossings: Vec<(i64, Crossing)>,
    /// The row behind which the next page begins; `None` when this is the last one for now.
    pub next: Option<i64>,
}

/// All reports. Cheap to share; holds no state of its own.
pub struct Reports {
    store: Arc<dyn UsageStore>,
    snapshots: Arc<Snapshots>,
    clock: Arc<dyn Clock>,
}

impl Reports {
    /// Reports from this ledger, with the prices that are in force.
    pub fn new(store: Arc<dyn UsageStore>, snapshots: Arc<Snapshots>, clock: Arc<dyn Clock>) -> Self {
        Self { store, snapshots, clock }
    }

    /// Whether the ledger answers and has the schema that this version needs.
    pub async fn ready(&self) -> Result<(), ReportError> {
        Ok(self.store.ready().await?)
    }

    /// The prices in effect, and the time.
    pub fn prices(&self) -> (Arc<PriceBook>, Micros) {
        (self.snapshots.load().prices.clone(), self.clock.now())
    }

    /// The day or month that is running: where the tenant is; of all of them together, in UTC.
    pub fn current(&self, window: Window, tenant: Option<&TenantId>) -> Period {
        self.zone(tenant).period(window, self.clock.now())
    }

    /// Whose clock the periods of a report are of.
    fn zone(&self, tenant: Option<&TenantId>) -> Zone {
        let snapshot = self.snapshots.load();
        tenant.and_then(|id| snapshot.accounts.get(id)).map(|account| account.tenant.zone.clone()).unwrap_or_default()
    }

    /// What a tenant, or everyone, used in a period.
    pub async fn usage(
        &self,
        tenant: Option<TenantId>,
        period: Period,
        group_by: GroupBy,
    ) -> Result<UsageReport, ReportError> {
        let fine = self.sums(&tenant, Some(period), &group_by, &[Dimension::Provider]).await?;
        let mut providers: BTreeMap<String, Sums> =
            crate::providers::ALL.iter().map(|provider| (provider.id().to_string(), Sums::default())).collect();
        for Group { values, sums } in fold(&fine, &[Dimension::Provider])? {
            providers.insert(value(&values, 0), sums);
        }
        let groups = if group_by.is_empty() { Vec::new() } else { fold(&fine, &group_by)? };
        let zone = self.zone(tenant.as_ref());
        Ok(UsageReport { tenant, period, zone, totals: total(&fine.groups)?, providers, group_by, groups })
    }

    /// What a tenant, or everyone, spent in a period, or ever.
    pub async fn cost(
        &self,
        tenant: Option<TenantId>,
        period: Option<Period>,
        group_by: GroupBy,
    ) -> Result<CostReport, ReportError> {
        let by_model = [Dimension::Provider, Dimension::Model];
        let fine = self.sums(&tenant, period, &group_by, &by_model).await?;
        let prices = self.snapshots.load().prices.clone();
        let now = self.clock.now();
        let zone = self.zone(tenant.as_ref());
        let at = period.map_or(now, |period| now.min(Micros(zone.end(period).0.saturating_sub(1))));
        let rows = fold(&fine, &by_model)?
            .into_iter()
            .map(|Group { values, sums }| {
                let (provider, model) = (value(&values, 0), value(&values, 1));
                let rates = prices.rates(&provider, &model, ServiceTier::Standard, 0, at).copied();
                CostRow { provider, model, sums, rates }
            })
            .collect();
        let groups = if group_by.is_empty() { Vec::new() } else { fold(&fine, &group_by)? };
        Ok(CostReport {
            tenant,
            period,
            zone,
            totals: total(&fine.groups)?,
            rows,
            group_by,
            groups,
            price_version: prices.version(),
        })
    }

    /// What each tenant, or one, spent on each day of its clock in a period, by provider, model and kind of token: at most
    /// [`GROUPS_MAX`] rows.
    pub async fn daily_kinds(&self, tenant: Option<TenantId>, period: Period) -> Result<KindReport, ReportError> {
        let (ledger_id, price_version) = (self.store.ledger_id().await?, self.snapshots.load().prices.version());
        let mut report = KindReport { rows: Vec::new(), zones: BTreeMap::new(), ledger_id, price_version };
        let snapshot = self.snapshots.load().clone();
        let mut tenants: Vec<TenantId> =
            tenant.map_or_else(|| snapshot.accounts.keys().cloned().collect(), |id| vec![id]);
        tenants.sort_unstable();
        let by_day = [Dimension::Day, Dimension::Provider, Dimension::Model];
        for id in tenants {
            let zone = self.zone(Some(&id));
            let whose = Some(id.clone());
            let fine = self.sums(&whose, Some(period), &by_day, &[]).await?;
            for Group { values, sums } in &fine.groups {
                let day = Window::Day.parse(&value(values, 0)).map_err(|_| ReportError::InvalidGroupBy)?;
                let at = Micros(zone.end(day).0.saturating_sub(1)).min(self.clock.now());
                let (provider, model) = (value(values, 1), value(values, 2));
                let rates = snapshot.prices.rates(&provider, &model, ServiceTier::Standard, 0, at);
                let new = |line| {
                    let (tenant, provider, model) = (whose.clone(), provider.clone(), model.clone());
                    KindRow { tenant, day: Some(day), provider, model, line, share: None }
                };
                report.rows.extend(cost_lines::lines(sums, rates).into_iter().map(new));
            }
            if report.rows.len() > GROUPS_MAX {
                return Err(ReportError::TooManyGroups { groups: report.rows.len() });
            }
            let name = snapshot.accounts.get(&id).map_or_else(|| id.to_string(), |account| account.tenant.name.clone());
            report.zones.insert(id, (name, zone));
        }
        shared_out(&mut report.rows);
        Ok(report)
    }

    /// One page of line items.
    pub async fn events(&self, query: PageQuery) -> Result<EventsPage, ReportError> {
        let PageQuery { tenant, from, to, priced, after, events_max } = query;
        let events_max = events_max.clamp(1, EVENTS_PER_PAGE_MAX);
        let after = match after {
            None => None,
            Some(id) => {
                // A cursor of another tenant is unknown, exactly like one that never was.
                Some(self.store.event(tenant.as_ref(), id).await?.ok_or(ReportError::UnknownCursor)?.row)
            }
        };
        // One more than the page holds tells whether there is a next page.
        let query = EventsQuery { tenant, from, to, priced, after, events_max: events_max.saturating_add(1) };
        let mut events: Vec<UsageEvent> =
            self.store.events(&query).await?.into_iter().map(|stored| stored.event).collect();
        let page = usize::try_from(events_max).unwrap_or(usize::MAX);
        let has_more = events.len() > page;
        events.truncate(page);
        let next = events.last().filter(|_| has_more).map(|event| event.id);
        Ok(EventsPage { events, next })
    }

    /// One page of crossed thresholds, of one tenant or of all: what comes behind the row `after`. More than
    /// [`EVENTS_PER_PAGE_MAX`] count as that.
    pub async fn crossings(
        &self,
        tenant: Option<TenantId>,
        after: i64,
        crossings_max: u32,
    ) -> Result<CrossingsPage, ReportError> {
        let crossings_max = crossings_max.clamp(1, EVENTS_PER_PAGE_MAX);
        // One more than the page holds tells whether there is a next page.
        let query = CrossingsQuery { tenant, after, crossings_max: crossings_max.saturating_add(1) };
        let found = self.store.crossings(&query).await?;
        let mut crossings: Vec<_> = found.into_iter().map(|stored| (stored.row, stored.crossing)).collect();
        let page = usize::try_from(crossings_max).unwrap_or(usize::MAX);
        let has_more = crossings.len() > page;
        crossings.truncate(page);
        let next = crossings.last().filter(|_| has_more).map(|(row, _)| *row);
        Ok(CrossingsPage { crossings, next })
    }

    /// One line item, of one tenant or of any.
    pub async fn event(&self, tenant: Option<&TenantId>, id: EventId) -> Result<Option<UsageEvent>, ReportError> {
        Ok(self.store.event(tenant, id).await?.map(|stored| stored.event))
    }

    /// The corrections of a line item, in insert order.
    pub async fn corrections(&self, event: EventId) -> Result<Vec<UsageEvent>, ReportError> {
        Ok(self.store.corrections(&[event]).await?.into_iter().map(|stored| stored.event).collect())
    }

    /// Sums by what was asked and by `also`, from which both can be folded.
    async fn sums(
        &self,
        tenant: &Option<TenantId>,
        period: Option<Period>,
        asked: &[Dimension],
        also: &[Dimension],
    ) -> Result<Fine, ReportError> {
        let mut group_by = asked.to_vec();
        group_by.extend(also.iter().filter(|dimension| !asked.contains(dimension)));
        let query = SumsQuery { tenant: tenant.clone(), period, group_by };
        let groups = self.store.sums(&query).await?;
        if groups.len() > GROUPS_MAX {
            return Err(ReportError::TooManyGroups { groups: groups.len() });
        }
        Ok(Fine { group_by: query.group_by, groups })
    }
}

/// Reads a grouping as it stands in a query: `provider,model`.
pub fn parse_group_by(text: &str) -> Result<GroupBy, ReportError> {
    let mut group_by = GroupBy::new();
    for name in text.split(',') {
        match Dimension::parse(name) {
            Some(dimension) if !group_by.contains(&dimension) => group_by.push(dimension),
            _ => return Err(ReportError::InvalidGroupBy),
        }
    }
    Ok(group_by)
}

fn dimension_names() -> String {
    Dimension::ALL.map(Dimension::as_str).join(", ")
}

/// The finest grouping that a report needs.
struct Fine {
    group_by: GroupBy,
    groups: Vec<GroupRow>,
}

/// Adds fine groups up by fewer dimensions, in ascending order of their values.
fn fold(fine: &Fine, by: &[Dimension]) -> Result<Vec<GroupRow>, ReportError> {
    let places: Vec<Option<usize>> =
        by.iter().map(|wanted| fine.group_by.iter().position(|dimension| dimension == wanted)).collect();
    let mut folded: BTreeMap<Vec<Option<String>>, Sums> = BTreeMap::new();
    for group in &fine.groups {
        let values = places.iter().map(|at| at.and_then(|at| group.values.get(at)).cloned().flatten()).collect();
        let sums = folded.entry(values).or_default();
        *sums = add(*sums, group.sums)?;
    }
    Ok(folded.into_iter().map(|(values, sums)| Group { values, sums }).collect())
}

/// Says of each row what part of the whole it is.
fn shared_out(rows: &mut [KindRow]) {
    let costs: Vec<PicoUsd> = rows.iter().map(|row| row.line.cost).collect();
    for (row, share) in rows.iter_mut().zip(cost_lines::shares(&costs).unwrap_or_default()) {
        row.share = Some(share);
    }
}

impl CostReport {
    /// The same by provider, model and kind of token.
    pub fn kinds(&self) -> Vec<KindRow> {
        let mut rows = Vec::new();
        for CostRow { provider, model, sums, rates } in &self.rows {
            let new = |line| {
                let (tenant, provider, model) = (self.tenant.clone(), provider.clone(), model.clone());
                KindRow { tenant, day: None, provider, model, line, share: None }
            };
            rows.extend(cost_lines::lines(sums, rates.as_ref()).into_iter().map(new));
        }
        shared_out(&mut rows);
        rows
    }
}

fn total(groups: &[Group]) -> Result<Sums, ReportError> {
    groups.iter().try_fold(Sums::default(), |sum, group| add(sum, group.sums))
}

/// A value that every event has, such as its provider.
fn value(values: &[Option<String>], at: usize) -> String {
    values.get(at).cloned().flatten().unwrap_or_default()
}

fn add(a: Sums, b: Sums) -> Result<Sums, ReportError> {
    a.plus(&b).ok_or(ReportError::Overflow)
}

#[cfg(test)]
mod tests;
