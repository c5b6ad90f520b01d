//! Rates: requests and tokens that flow by the minute, and requests at once.

use crate::domain::ids::{EventId, TenantId};
use crate::domain::plan::Subject;
use crate::domain::rate::RateMetric;

use super::BoxFuture;
use super::counters::CountersUnavailable;

/// What one call wants of one rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateClaim {
    /// Of whom in the tenant.
    pub subject: Subject,
    /// Which rate.
    pub metric: RateMetric,
    /// How much: 1, but for tokens.
    pub amount: u64,
    /// At most so much, at least 1.
    pub max: u64,
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateOutcome {
    /// Everything was taken. So each rate stands then, in the order of the claims.
    Taken(Vec<RateStanding>),
    /// Nothing was taken, as one rate has no room.
    Refused {
        /// Which claim, by its place.
        claim: usize,
        /// After how many microseconds there may be; 0 where nobody knows.
        wait_us: u64,
    },
}

/// How much of a rate is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateStanding {
    /// How much a bucket lacks, or how many requests run.
    pub taken: u64,
    /// After how many microseconds the bucket is full; 0 for requests at once.
    pub full_in_us: u64,
}

/// How long a request that runs keeps its place while nobody says that it still does: a gateway that was killed frees its places
/// within this.
pub const PLACE_LASTS_US: u64 = 30_000_000;

/// Rates of tenants. The contract:
///
/// - All claims are of one tenant. `take` takes all of them or none, under any concurrency.
/// - A call that asks or ends again by the same id, because an answer was lost on the way, takes and gives back once, where the
///   store is elsewhere.
/// - A request keeps its place until `end`; of a process that dies until [`PLACE_LASTS_US`] is over at the latest.
/// - `end` gives places back, and into each bucket what was taken too much and has not filled again since (or takes what was
///   too little). It never fails and never blocks. Called once for each `take`, but for those that were refused: where nobody
///   knows whether anything was taken, with nothing used; then nothing is given back that was not taken.
pub trait RateStore: Send + Sync {
    /// Takes what the call `id` wants.
    fn take<'a>(
        &'a self,
        id: EventId,
        tenant: &'a TenantId,
        claims: &'a [RateClaim],
    ) -> BoxFuture<'a, Result<RateOutcome, CountersUnavailable>>;

    /// The call is over: of each claim, in order, so much was used.
    fn end(&self, id: EventId, tenant: &TenantId, claims: &[RateClaim], used: &[u64]);

    /// How rates stand, by claims whose amounts say nothing.
    fn read<'a>(
        &'a self,
        tenant: &'a TenantId,
        claims: &'a [RateClaim],
    ) -> BoxFuture<'a, Result<Vec<RateStanding>, CountersUnavailable>>;
}
