//! The bodies of the routes, field by field as the contract has them, and their making from reports.
//!
//! Money is a JSON number with every digit written out; unlimited is -1; every conversion takes its source apart by
//! name, so that a new field does not compile until it is handled.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::domain::hold::money_of;
use crate::domain::money::PicoUsd;
use crate::domain::plan::{Metric, Subject};
use crate::domain::rate::RateMetric;
use crate::domain::time::Period;
use crate::domain::zone::Zone;
use crate::metering::admin::{LimitRow, LimitsView, RateRow, ThresholdRow};
use crate::metering::reports::{GroupBy, GroupRow, Totals, UsageReport};

pub mod audit;
pub mod cost;
pub mod counters;
pub mod crossings;
pub mod events;
pub mod prices;
pub mod tenants;

/// Dollars as a JSON number with every digit, never through a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usd(pub PicoUsd);

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.0.to_string()).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl PartialSchema for Usd {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Number)
            .description(Some("US dollars, exact: every digit is written out. Read it as a decimal, not as a float."))
            .examples([serde_json::json!(0.0000178)])
            .into()
    }
}

impl ToSchema for Usd {}

/// The time that a report is about: `[start, end)`.
#[derive(Debug, Serialize, ToSchema)]
pub struct PeriodBody {
    /// The first instant inside.
    #[schema(example = "2026-11-01T00:00:00Z")]
    start: String,
    /// The first instant after.
    #[schema(example = "2026-12-01T00:00:00Z")]
    end: String,
    /// The zone that the days and months are of: the tenant's. Of all tenants together, each has its own, and this is UTC.
    #[schema(example = "UTC")]
    timezone: String,
}

impl PeriodBody {
    fn new(period: Period, zone: &Zone) -> Self {
        let [start, end] = [zone.start(period), zone.end(period)].map(|at| at.to_string());
        Self { start, end, timezone: zone.to_string() }
    }
}

/// The part of the totals that was estimated.
#[derive(Debug, Serialize, ToSchema)]
pub struct EstimatedBody {
    /// Requests whose tokens were estimated.
    pub requests: u64,
    /// Their prompt tokens.
    pub prompt_tokens: u64,
    /// Their completion tokens.
    pub completion_tokens: u64,
}

/// Sums of what was used.
#[derive(Debug, Serialize, ToSchema)]
pub struct SumsBody {
    /// Answers below 400, and calls that were interrupted or broke off. What was deferred is one when it is billed.
    requests: u64,
    /// Chats that count against the plan.
    chats: u64,
    /// Answers of 400 and more, and calls without an answer. They have no tokens.
    failed_requests: u64,
    /// All input tokens.
    prompt_tokens: u64,
    /// Those of them that were read from the provider's cache.
    cached_tokens: u64,
    /// All output tokens.
    completion_tokens: u64,
    /// Those of them that were spent on reasoning.
    reasoning_tokens: u64,
    /// Input and output.
    total_tokens: u64,
    /// What providers charge for everything that has a price.
    estimated_cost_usd: Usd,
    /// What is billed for it: the same, unless the plan has prices of its own.
    billable_cost_usd: Usd,
    /// Requests whose model has no price: their cost is unknown, not 0.
    unpriced_requests: u64,
    /// The part that was estimated.
    estimated: EstimatedBody,
}

impl From<Totals> for SumsBody {
    fn from(sums: Totals) -> Self {
        let Totals {
            requests,
            chats,
            failed_requests,
            tokens,
            quantities: _, // In the cost report.
            cost,
            billable,
            unpriced_requests,
            estimated_requests,
            estimated_prompt,
            estimated_completion,
        } = sums;
        Self {
            requests,
            chats,
            failed_requests,
            prompt_tokens: tokens.prompt,
            cached_tokens: tokens.cached,
            completion_tokens: tokens.completion,
            reasoning_tokens: tokens.reasoning,
            total_tokens: tokens.total(),
            estimated_cost_usd: Usd(cost),
            billable_cost_usd: Usd(billable),
            // Below 0 are only parts of a sum that were torn from what they correct.
            unpriced_requests: u64::try_from(unpriced_requests).unwrap_or(0),
            estimated: EstimatedBody {
                requests: estimated_requests,
                prompt_tokens: estimated_prompt,
                completion_tokens: estimated_completion,
            },
        }
    }
}

/// What was used of one provider.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProviderBody {
    /// As in the totals.
    requests: u64,
    /// As in the totals.
    prompt_tokens: u64,
    /// As in the totals.
    completion_tokens: u64,
    /// As in the totals.
    total_tokens: u64,
    /// As in the totals.
    estimated_cost_usd: Usd,
    /// As in the totals.
    billable_cost_usd: Usd,
}

impl From<Totals> for ProviderBody {
    fn from(sums: Totals) -> Self {
        Self {
            requests: sums.requests,
            prompt_tokens: sums.tokens.prompt,
            completion_tokens: sums.tokens.completion,
            total_tokens: sums.tokens.total(),
            estimated_cost_usd: Usd(sums.cost),
            billable_cost_usd: Usd(sums.billable),
        }
    }
}

/// One group and its sums.
#[derive(Debug, Serialize, ToSchema)]
pub struct GroupBody {
    /// The value of each asked dimension; null where the events have none.
    #[schema(example = json!({"provider": "openai", "user": null}))]
    group: BTreeMap<&'static str, Option<String>>,
    #[serde(flatten)]
    sums: SumsBody,
}

fn groups(group_by: &GroupBy, groups: Vec<GroupRow>) -> Vec<GroupBody> {
    let names = group_by.iter().map(|dimension| dimension.as_str());
    let body = |GroupRow { values, sums }| GroupBody { group: names.clone().zip(values).collect(), sums: sums.into() };
    groups.into_iter().map(body).collect()
}

/// The answer of `GET /billing/usage`.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageBody {
    /// Whose usage; null for all tenants.
    #[schema(example = "acme")]
    tenant_id: Option<String>,
    /// `day` or `month`.
    #[schema(example = "month")]
    range: &'static str,
    /// The time that it is about.
    period: PeriodBody,
    #[serde(flatten)]
    totals: SumsBody,
    /// The same by provider.
    providers: BTreeMap<String, ProviderBody>,
    /// The same by what `group_by` asked for; every grouping adds up to the totals.
    groups: Vec<GroupBody>,
}

impl From<UsageReport> for UsageBody {
    fn from(report: UsageReport) -> Self {
        let UsageReport { tenant, period, zone, totals, providers, group_by, groups: rows } = report;
        Self {
            tenant_id: tenant.map(|tenant| tenant.to_string()),
            range: period.window().as_str(),
            period: PeriodBody::new(period, &zone),
            totals: totals.into(),
            providers: providers.into_iter().map(|(provider, sums)| (provider, sums.into())).collect(),
            groups: groups(&group_by, rows),
        }
    }
}

/// How much of a metric: a whole number, of cost exact dollars; unlimited is -1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount(Metric, Option<u64>);

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self(Metric::Cost, Some(nano)) => Usd(money_of(nano)).serialize(serializer),
            Self(_, amount) => or_unlimited(amount).serialize(serializer),
        }
    }
}

impl PartialSchema for Amount {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Number)
            .description(Some("Chats or tokens, or exact US dollars; -1 is unlimited."))
            .examples([serde_json::json!(500)])
            .into()
    }
}

impl ToSchema for Amount {}

/// How one limit stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct LimitBody {
    /// For each of whom: `tenant`, `key`, `user` or `kb`.
    #[schema(example = "tenant")]
    scope: &'static str,
    /// Which key, user or knowledge base; left out for the tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// What is counted.
    #[schema(example = "chats")]
    metric: &'static str,
    /// `day` or `month`; of rates `minute`, of requests at once `now`.
    #[schema(example = "month")]
    window: &'static str,
    /// How much fits; -1 when unlimited.
    limit: Amount,
    /// How much is used.
    used: Amount,
    /// How much calls in flight hold.
    held: Amount,
    /// What is left; -1 when unlimited.
    remaining: Amount,
    /// When the window ends.
    #[schema(example = "2026-12-01T00:00:00Z")]
    resets_at: String,
    /// The plan's thresholds and when each was crossed in this window. Left out for what is unlimited and for rates, and while
    /// the ledger does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    thresholds: Option<Vec<ThresholdBody>>,
}

/// One threshold of a limit.
#[derive(Debug, Serialize, ToSchema)]
pub struct ThresholdBody {
    /// The percent of the limit, with its top-up and without grace.
    #[schema(example = 80)]
    percent: u16,
    /// When the call was over that crossed it; null while none did.
    #[schema(example = "2026-11-24T10:00:00Z")]
    crossed_at: Option<String>,
}

impl From<&ThresholdRow> for ThresholdBody {
    fn from(row: &ThresholdRow) -> Self {
        let ThresholdRow { percent, crossed_at } = *row;
        Self { percent, crossed_at: crossed_at.map(|at| at.to_string()) }
    }
}

/// The answer of `GET /billing/limits` and `POST /billing/plan`.
#[derive(Debug, Serialize, ToSchema)]
pub struct LimitsBody {
    /// Whose limits.
    #[schema(example = "acme")]
    tenant_id: String,
    /// The plan it is on.
    #[schema(example = "starter")]
    plan: String,
    /// Chats a month; -1 when unlimited.
    #[schema(example = 500)]
    monthly_limit: i64,
    /// Chats used this month.
    used: u64,
    /// Chats that calls in flight hold.
    held: u64,
    /// Chats left; -1 when unlimited.
    remaining: i64,
    /// When the month ends.
    #[schema(example = "2026-12-01T00:00:00Z")]
    resets_at: String,
    /// Every limit of the plan that holds for whom it was asked, chats a month first.
    limits: Vec<LimitBody>,
}

/// A limit as the contract writes it.
fn or_unlimited(limit: Option<u64>) -> i64 {
    limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX))
}

impl From<&LimitRow> for LimitBody {
    fn from(row: &LimitRow) -> Self {
        let LimitRow { subject, metric, period, limit, standing, resets_at, thresholds } = row;
        let amount = |amount| Amount(*metric, amount);
        Self {
            scope: subject.scope().as_str(),
            subject: (*subject != Subject::Tenant).then(|| subject.id().to_owned()),
            metric: metric.as_str(),
            window: period.window().as_str(),
            limit: amount(*limit),
            used: amount(Some(standing.used)),
            held: amount(Some(standing.held)),
            remaining: amount(row.remaining()),
            resets_at: resets_at.to_string(),
            thresholds: thresholds.as_ref().map(|all| all.iter().map(ThresholdBody::from).collect()),
        }
    }
}

impl From<&RateRow> for LimitBody {
    fn from(row: &RateRow) -> Self {
        let RateRow { subject, metric, limit, taken, resets_at } = row;
        let amount = |amount| Amount(Metric::Tokens, Some(amount));
        let runs = *metric == RateMetric::Concurrent;
        Self {
            scope: subject.scope().as_str(),
            subject: (*subject != Subject::Tenant).then(|| subject.id().to_owned()),
            metric: metric.as_str(),
            window: if runs { "now" } else { "minute" },
            limit: amount(*limit),
            used: amount(if runs { 0 } else { *taken }),
            held: amount(if runs { *taken } else { 0 }),
            remaining: amount(limit.saturating_sub(*taken)),
            resets_at: resets_at.to_string(),
            thresholds: None,
        }
    }
}

impl From<LimitsView> for LimitsBody {
    fn from(view: LimitsView) -> Self {
        let LimitsView { tenant, plan, chats, others, rates } = view;
        Self {
            tenant_id: tenant.to_string(),
            plan: plan.to_string(),
            monthly_limit: or_unlimited(chats.limit),
            used: chats.standing.used,
            held: chats.standing.held,
            remaining: or_unlimited(chats.remaining()),
            resets_at: chats.resets_at.to_string(),
            limits: std::iter::once(&chats)
                .chain(&others)
                .map(LimitBody::from)
                .chain(rates.iter().map(LimitBody::from))
                .collect(),
        }
    }
}

/// The body of `POST /billing/plan`.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanChange {
    /// Whose plan.
    #[schema(example = "acme")]
    pub tenant_id: String,
    /// The new plan.
    #[schema(example = "growth")]
    pub plan: String,
}

impl PlanChange {
    /// The fields there are.
    pub const FIELDS: &[&str] = &["tenant_id", "plan"];
}
