//! Counters of what tenants used, with holds for calls in flight.

use crate::domain::counting::{Counting, counts_of};
use crate::domain::event::UsageEvent;
use crate::domain::ids::{EventId, TenantId};
use crate::domain::plan::{Metric, OnCountersDown, Standing, Subject};
use crate::domain::time::Period;

use super::BoxFuture;

/// Names one counter. The period is part of the key: nothing is ever reset.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CounterKey {
    /// Whose.
    pub tenant: TenantId,
    /// Of whom in it.
    pub subject: Subject,
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

/// What an event used, of each counter that counts it.
pub fn used_by(event: &UsageEvent, counting: Counting) -> Vec<(CounterKey, u64)> {
    let tenant = &event.tenant;
    let of =
        |(subject, metric, period, amount)| (CounterKey { tenant: tenant.clone(), subject, metric, period }, amount);
    counts_of(event, counting).into_iter().map(of).collect()
}

/// What a call's plan says beside its claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terms {
    /// The revision of tenants and plans that the claims follow from.
    pub revision: i64,
    /// What becomes of the call while counters cannot be asked.
    pub on_counters_down: OnCountersDown,
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
    /// Nothing was taken: the tenant was changed meanwhile, and what the claims follow from is out of date. By now the
    /// current snapshot has the change.
    Changed,
}

/// One counter and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Which.
    pub counter: CounterKey,
    /// How it stands.
    pub standing: Standing,
    /// The part of what is used that the ledger is known to have; all of it where that is not known.
    pub booked: u64,
}

/// Whether counters can be asked, for whoever looks after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CountersHealth {
    /// Whether they are shared with other gateways.
    pub shared: bool,
    /// They could not be asked lately: calls are refused, or admitted from what is left of leases.
    pub down: bool,
    /// Tenants whose counters are being built anew.
    pub building: u64,
    /// Gateways that share them, this one included; 0 while that is not known.
    pub nodes: u64,
    /// Calls admitted without asking, since the start.
    pub from_lease: u64,
    /// Units that this gateway has leased and not used.
    pub leased: u64,
    /// Calls whose state the shared counters have not been told.
    pub notes_waiting: u64,
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
/// - `settle` is unconditional: it lets go of what the hold `id` took and counts what was used, on whatever counters of the
///   tenant it was, claimed or not; less than was held, nothing at all (given back), or more. It never fails and never
///   blocks; settling twice changes nothing. A call that was never held may be settled too.
/// - `seed` raises a counter's `used` to what the ledger says; it never lowers it.
pub trait CounterStore: Send + Sync {
    /// Takes `claims` for the call `id`, all or none.
    fn hold<'a>(
        &'a self,
        id: EventId,
        claims: &'a [Claim],
        terms: Terms,
    ) -> BoxFuture<'a, Result<HoldOutcome, CountersUnavailable>>;

    /// Turns the hold `id` on `claims` into what was used: each counter that counts the call, at most once. A claimed counter
    /// that is not there was not used.
    fn settle(&self, id: EventId, claims: &[Claim], used: &[(CounterKey, u64)]);

    /// How counters stand; zero for one that is not known.
    fn read<'a>(&'a self, counters: &'a [CounterKey]) -> BoxFuture<'a, Result<Vec<Standing>, CountersUnavailable>>;

    /// Every counter there is and how it stands, in no order. Each is read at one instant, not all at the same one.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Counted>, CountersUnavailable>>;

    /// Makes known what the ledger says of a counter.
    fn seed<'a>(&'a self, counters: &'a [(CounterKey, u64)]) -> BoxFuture<'a, Result<(), CountersUnavailable>>;

    /// A change of a tenant, its plan or its keys is committed in this revision: returns when every gateway that shares
    /// the counters has it, or after a second.
    fn changed<'a>(&'a self, tenant: &'a TenantId, revision: i64) -> BoxFuture<'a, ()>;

    /// How they are.
    fn health(&self) -> CountersHealth;
}
