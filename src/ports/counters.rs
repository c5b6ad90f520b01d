//! Counters of what tenants used, with holds for calls in flight.

use crate::domain::ids::{EventId, TenantId};
use crate::domain::plan::{Metric, Standing};
use crate::domain::time::Period;

use super::BoxFuture;

/// Names one counter. The period is part of the key: nothing is ever reset.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CounterKey {
    /// Whose.
    pub tenant: TenantId,
    /// Of what.
    pub metric: Metric,
    /// In which window.
    pub period: Period,
}

/// What one call wants to take from one counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The counter.
    pub counter: CounterKey,
    /// How much, in units of the metric.
    pub amount: u64,
    /// At most this much may be used and held together; `None` when unlimited (it is counted all the same).
    pub max: Option<u64>,
}

/// The answer to a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldOutcome {
    /// Every claim was taken. The standing of each counter after that, in the order of the claims.
    Held(Vec<Standing>),
    /// Nothing was taken, because this claim (by its place) does not fit.
    Refused {
        /// Which claim.
        claim: usize,
        /// How its counter stands.
        standing: Standing,
    },
}

/// Counters cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("counters are unavailable: {0}")]
pub struct CountersUnavailable(pub String);

/// A cache of the ledger that admits calls. The contract:
///
/// - All claims of one call are of one tenant (so that they can lie in one place). No claims at all are held at once.
/// - `hold` is atomic over all claims of a call: all or none, under any concurrency, and idempotent by `id`: the same
///   hold asked twice is taken once.
/// - `settle` is unconditional: it turns the hold `id` into `used` amounts (one for each claim, in order), which may be
///   0 (given back) or more than was held. It never fails and never blocks; settling twice changes nothing.
/// - `seed` raises a counter's `used` to what the ledger says; it never lowers it.
pub trait CounterStore: Send + Sync {
    /// Takes `claims` for the call `id`, all or none.
    fn hold<'a>(&'a self, id: EventId, claims: &'a [Claim]) -> BoxFuture<'a, Result<HoldOutcome, CountersUnavailable>>;

    /// Turns the hold `id` into what was used. `used` has one amount for each claim of the hold.
    fn settle(&self, id: EventId, claims: &[Claim], used: &[u64]);

    /// How counters stand; zero for one that is not known.
    fn read<'a>(&'a self, counters: &'a [CounterKey]) -> BoxFuture<'a, Result<Vec<Standing>, CountersUnavailable>>;

    /// Every counter there is and how it stands, in no order. Each is read at one instant, not all at the same one.
    fn list(&self) -> BoxFuture<'_, Result<Vec<(CounterKey, Standing)>, CountersUnavailable>>;

    /// Makes known what the ledger says of a counter.
    fn seed<'a>(&'a self, counters: &'a [(CounterKey, u64)]) -> BoxFuture<'a, Result<(), CountersUnavailable>>;
}
