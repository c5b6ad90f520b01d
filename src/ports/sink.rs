//! Who else wants to hear of settled events and refusals: metrics, the request log, later webhooks and exports.

use crate::domain::event::UsageEvent;
use crate::domain::refusal::Refusal;

/// Hears what the gateway did. It must not block.
pub trait Sink: Send + Sync {
    /// The ledger has these events: each once, in batches, off the request path.
    fn booked(&self, events: &[UsageEvent]);

    /// The ledger had some events of a batch with these bills before it was written: from another gateway, or from a try
    /// that had no answer. Told before they are booked.
    fn doubted(&self, _bills: &[UsageEvent]) {}

    /// The gateway answered a request itself, on the request path.
    fn refused(&self, _refusal: &Refusal) {}
}
