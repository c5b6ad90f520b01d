//! The bodies of crossed thresholds.

use serde::Serialize;
use utoipa::ToSchema;

use super::Amount;
use crate::domain::plan::Subject;
use crate::domain::threshold::Crossing;
use crate::metering::reports::CrossingsPage;

/// One threshold that was crossed.
#[derive(Debug, Serialize, ToSchema)]
pub struct CrossingBody {
    /// Its place in the list, and a cursor.
    #[schema(example = "17")]
    id: String,
    /// When the call was over that crossed it.
    #[schema(example = "2026-11-24T10:00:00Z")]
    at: String,
    /// Whose limit.
    #[schema(example = "acme")]
    tenant_id: String,
    /// The plan that it was on.
    #[schema(example = "starter")]
    plan: String,
    /// For each of whom the limit is: `tenant`, `key`, `user` or `kb`.
    #[schema(example = "tenant")]
    scope: &'static str,
    /// Which key, user or knowledge base; left out for the tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// What is counted.
    #[schema(example = "chats")]
    metric: &'static str,
    /// `day` or `month`.
    #[schema(example = "month")]
    window: &'static str,
    /// Which day or month.
    #[schema(example = "2026-11")]
    period: String,
    /// Which percent of the limit.
    #[schema(example = 80)]
    percent: u16,
    /// The limit then, with its top-up and without grace.
    limit: Amount,
    /// What was used when the events were booked that crossed it.
    used: Amount,
    /// The event that crossed it.
    #[schema(example = "019abf5e-0e00-7000-8000-000000000001")]
    event_id: String,
}

impl From<(i64, Crossing)> for CrossingBody {
    fn from((row, crossing): (i64, Crossing)) -> Self {
        let Crossing { tenant, subject, metric, period, percent, limit, used, plan, event, at } = crossing;
        Self {
            id: row.to_string(),
            at: at.to_string(),
            tenant_id: tenant.to_string(),
            plan: plan.to_string(),
            scope: subject.scope().as_str(),
            subject: (subject != Subject::Tenant).then(|| subject.id().to_owned()),
            metric: metric.as_str(),
            window: period.window().as_str(),
            period: period.to_string(),
            percent,
            limit: Amount(metric, Some(limit)),
            used: Amount(metric, Some(used)),
            event_id: event.to_string(),
        }
    }
}

/// One page of crossed thresholds.
#[derive(Debug, Serialize, ToSchema)]
pub struct CrossingsBody {
    /// In the order in which they were noted.
    crossings: Vec<CrossingBody>,
    /// The `cursor` of the next page; null when this is the last one for now. Later ones come after the last `id` here,
    /// which is a cursor too.
    next_cursor: Option<String>,
}

impl From<CrossingsPage> for CrossingsBody {
    fn from(page: CrossingsPage) -> Self {
        let CrossingsPage { crossings, next } = page;
        Self {
            crossings: crossings.into_iter().map(CrossingBody::from).collect(),
            next_cursor: next.map(|next| next.to_string()),
        }
    }
}
