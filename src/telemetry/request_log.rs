//! One structured log line for each request: metered calls once the ledger has them, refusals at once.
//!
//! May use: `domain`, `ports`. Target `tollgate::request`, level `info`: `RUST_LOG=info,tollgate::request=off` turns
//! it off.

use tracing::{debug, info};

use crate::domain::event::UsageEvent;
use crate::domain::refusal::Refusal;
use crate::ports::sink::Sink;

/// The sink that writes request lines.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestLog;

impl Sink for RequestLog {
    fn booked(&self, events: &[UsageEvent]) {
        for event in events {
            line(event);
        }
    }

    /// Below `info`, as it is written on the request path: whoever floods the gateway with bad keys must not flood its
    /// log. The metric of refusals counts them all.
    fn refused(&self, refusal: &Refusal) {
        let tenant = match refusal {
            Refusal::QuotaUsedUp(quota) | Refusal::BudgetHeld(quota) => Some(quota.tenant.as_str()),
            Refusal::RateLimited(facts) => Some(facts.tenant.as_str()),
            Refusal::Suspended(tenant) => Some(tenant.as_str()),
            _ => None,
        };
        debug!(target: "tollgate::request", status = refusal.status(), code = refusal.code(), tenant, "Request is refused.");
    }
}

/// Every field is a number, a word of ours or a name that the ledger holds as well; the user and knowledge base that an
/// app names are left out, as they may be people.
fn line(event: &UsageEvent) {
    info!(
        target: "tollgate::request",
        event_id = %event.id,
        tenant = %event.tenant,
        provider = %event.provider,
        endpoint = %event.endpoint,
        model = %event.model,
        status = event.status,
        outcome = event.outcome.as_str(),
        prompt_tokens = event.tokens.prompt,
        completion_tokens = event.tokens.completion,
        usage_source = event.source.as_str(),
        priced = event.priced.as_str(),
        cost_usd = event.cost.map(|cost| cost.to_string()),
        ms = event.duration_us / 1_000,
        "Request is booked."
    );
}
