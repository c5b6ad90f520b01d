//! One structured log line for each metered call, once the ledger has it.
//!
//! May use: `domain`, `ports`. Target `tollgate::request`, level `info`: `RUST_LOG=info,tollgate::request=off` turns
//! it off.

use tracing::info;

use crate::domain::event::UsageEvent;
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
