//! Who else wants to hear of settled events and refusals: metrics, the request log, later webhooks and exports.

use crate::domain::event::UsageEvent;
use crate::domain::refusal::Refusal;

/// Hears what the gateway did. It must not block.
pub trait Sink: Send + Sync {
    /// The ledger has these events: each once, in batches, off the request path.
    fn booked(&self, events: &[UsageEvent]);

    /// The ledger had some of these events before they were written: from a try that had no answer, or, of bills, from
    /// another gateway. Told before they are booked.
    fn doubted(&self, _events: &[UsageEvent]) {}

    /// The gateway answered a request itself, on the request path.
    fn refused(&self, _refusal: &Refusal) {}
}
