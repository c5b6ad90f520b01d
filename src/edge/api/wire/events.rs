//! The bodies of line items.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::event::UsageEvent;
use crate::metering::reports::EventsPage;

use super::Usd;
use super::cost::{QuantitiesBody, TokensBody};

/// One line item.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventBody {
    /// Unique for ever; the answer to the call carried it as `x-tollgate-request-id`.
    #[schema(example = "019abf5e-0e00-7000-8000-000000000001")]
    id: String,
    /// Who pays.
    tenant_id: String,
    /// The key that made the call.
    key_id: Option<String>,
    /// `x-tollgate-user-id`.
    user_id: Option<Box<str>>,
    /// `x-tollgate-kb-id`.
    kb_id: Option<Box<str>>,
    /// Who was called.
    #[schema(example = "openai")]
    provider: String,
    /// The model, as the provider answered.
    model: Box<str>,
    /// The model, as the client asked.
    requested_model: Box<str>,
    /// The route.
    #[schema(example = "chat.completions")]
    endpoint: String,
    /// 1 for a chat that counts, else 0.
    chats: u64,
    #[serde(flatten)]
    tokens: TokensBody,
    /// What was charged beside tokens.
    #[serde(flatten)]
    quantities: QuantitiesBody,
    /// What the provider charges; null when the model has no price. In a correction: what is to be added to it.
    estimated_cost_usd: Option<Usd>,
    /// What is billed: the same, unless the plan has prices of its own.
    billable_cost_usd: Option<Usd>,
    /// `priced`, `free`, `unpriced`, or `incomplete` for a lower bound.
    priced: &'static str,
    /// The version of the prices that it was priced by.
    price_version: String,
    /// The service tier that the provider answered with.
    service_tier: &'static str,
    /// When the call was admitted: the period that it counts in.
    request_timestamp: String,
    /// How far the tenant's clock was ahead of UTC then, in seconds: the day and month are those of that clock.
    utc_offset_s: i32,
    /// From admission to settlement, in microseconds.
    duration_us: u64,
    /// From admission to the first byte of the answer, in microseconds.
    first_byte_us: Option<u64>,
    /// The status that the client got; 0 for none.
    status: u16,
    /// How the call ended. `deferred`: the provider finishes it later, and what it used is a line item of its own.
    /// `correction`: no call, but a change of what an earlier line item costs.
    #[schema(example = "completed")]
    outcome: &'static str,
    /// `provider`, or `estimate` where it reported nothing.
    usage_source: &'static str,
    /// The provider's own id of the request; for the bill of a deferred call, of what it began.
    request_id: Option<Box<str>>,
    /// The line item that a correction corrects.
    corrects: Option<String>,
    /// What `priced` was there until then.
    priced_before: Option<&'static str>,
}

impl From<UsageEvent> for EventBody {
    fn from(event: UsageEvent) -> Self {
        let UsageEvent {
            id,
            tenant,
            key,
            user_id,
            kb_id,
            provider,
            model,
            requested_model,
            endpoint,
            chats,
            tokens,
            quantities,
            source,
            cost,
            billable,
            priced,
            price_version,
            service_tier,
            requested_at,
            utc_offset_s,
            duration_us,
            first_byte_us,
            overhead_us: _, // Not in the ledger.
            status,
            outcome,
            request_id,
            unit: _, // Not with the events of the ledger.
            corrects,
        } = event;
        Self {
            id: id.to_string(),
            tenant_id: tenant.to_string(),
            key_id: key.map(|key| key.to_string()),
            user_id,
            kb_id,
            provider: provider.to_string(),
            model,
            requested_model,
            endpoint: endpoint.into_owned(),
            chats,
            tokens: tokens.into(),
            quantities: quantities.into(),
            estimated_cost_usd: cost.map(Usd),
            billable_cost_usd: billable.map(Usd),
            priced: priced.as_str(),
            price_version: price_version.to_string(),
            service_tier: service_tier.as_str(),
            request_timestamp: requested_at.to_string(),
            utc_offset_s,
            duration_us,
            first_byte_us,
            status,
            outcome: outcome.as_str(),
            usage_source: source.as_str(),
            request_id,
            corrects: corrects.map(|corrected| corrected.event.to_string()),
            priced_before: corrects.map(|corrected| corrected.priced.as_str()),
        }
    }
}

/// One page of line items.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventsBody {
    /// Line items in insert order.
    events: Vec<EventBody>,
    /// The `cursor` of the next page; null when this is the last one for now. Later events come after the last `id`
    /// here, which is a cursor too.
    next_cursor: Option<String>,
}

impl From<EventsPage> for EventsBody {
    fn from(page: EventsPage) -> Self {
        let EventsPage { events, next } = page;
        Self {
            events: events.into_iter().map(EventBody::from).collect(),
            next_cursor: next.map(|next| next.to_string()),
        }
    }
}
