//! Who else wants to hear of settled events and refusals: metrics, the request log, later webhooks and exports.

use crate::domain::bound::Bound;
use crate::domain::event::UsageEvent;
use crate::domain::refusal::Refusal;
use crate::domain::threshold::Crossing;

/// Hears what the gateway did. It must not block.
pub trait Sink: Send + Sync {
    /// The ledger has these events: each once, in batches, off the request path.
    fn booked(&self, events: &[UsageEvent]);

    /// The ledger had some of these events before they were written: from a try that had no answer, or, of bills, from
    /// another gateway. Told before they are booked.
    fn doubted(&self, _events: &[UsageEvent]) {}

    /// Events that this process wrote crossed these thresholds: each is told once, and none again after a restart.
    fn crossed(&self, _crossings: &[Crossing]) {}

    /// The gateway answered a request itself, on the request path.
    fn refused(&self, _refusal: &Refusal) {}

    /// A client met this bound and was cut, or turned away, without an answer of the gateway that says so.
    fn cut(&self, _bound: Bound) {}

    /// The tokens of a call were estimated, as its provider did not say them.
    fn estimated(&self, _by: EstimatedBy) {}
}

/// How tokens were estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EstimatedBy {
    /// By the vocabulary of the model.
    Tokenizer,
    /// By the number of bytes at once: too many estimates were waiting already.
    BytesForWant,
    /// By the number of bytes: the tokenizer took too long, or broke off.
    BytesForTime,
}

impl EstimatedBy {
    /// For metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tokenizer => "tokenizer",
            Self::BytesForWant => "bytes_queue_full",
            Self::BytesForTime => "bytes_too_slow",
        }
    }
}
