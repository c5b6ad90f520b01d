//! Who else wants to hear of settled events: metrics, the request log, later webhooks and exports.

use crate::domain::event::UsageEvent;

/// Hears of each event once, after the ledger has it, in batches, off the request path. It must not block.
pub trait Sink: Send + Sync {
    /// The ledger has these events.
    fn booked(&self, events: &[UsageEvent]);
}
