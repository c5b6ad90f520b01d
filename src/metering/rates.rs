//! What a call takes of the rates of its plan, and gives back when it is over.
//!
//! May use: `domain`, `ports`. Rates are asked before the budgets, and a call that those refuse gives back what it took.

use std::sync::Arc;
use tracing::debug;

use crate::domain::ids::{EventId, TenantId};
use crate::domain::plan::{OnCountersDown, Plan, Subject};
use crate::domain::rate::{Rate, RateMetric};
use crate::domain::refusal::{RateFacts, Refusal};
use crate::ports::clock::Clock;
use crate::ports::rates::{RateClaim, RateOutcome, RateStanding, RateStore};

use super::budget::subject;
use super::in_flight::Caller;

/// What a call in flight has of rates, or may have. Dropping it gives all of it back.
pub(super) struct Permit {
    store: Arc<dyn RateStore>,
    id: EventId,
    tenant: TenantId,
    claims: Vec<RateClaim>,
    /// How each rate stood when it was taken from.
    stood: Vec<RateStanding>,
}

/// A rate a minute of the whole tenant, as it stands with the call in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateRoom {
    /// What it counts.
    pub metric: RateMetric,
    /// How much a minute.
    pub max: u64,
    /// How much is left of it.
    pub left: u64,
    /// After how many seconds there is more: all of it, or where a call was refused as much as that wants.
    pub resets_s: u64,
}

impl RateRoom {
    /// The rate that has no room for a call, where it is one of the tenant's by the minute.
    pub fn of_refusal(refusal: &Refusal) -> Option<Self> {
        let Refusal::RateLimited(facts) = refusal else { return None };
        let RateFacts { subject, metric, limit, retry_after_s, .. } = &**facts;
        let is_told = *subject == Subject::Tenant && *metric != RateMetric::Concurrent;
        is_told.then(|| Self { metric: *metric, max: *limit, left: 0, resets_s: u64::from(*retry_after_s) })
    }
}

/// What a call wants of the rates that hold for it.
pub(super) fn claims(caller: &Caller, plan: &Plan, tokens: u64) -> Vec<RateClaim> {
    let claim = |Rate { scope, metric, max }: &Rate| {
        let amount = if *metric == RateMetric::Tokens { tokens } else { 1 };
        Some(RateClaim { subject: subject(*scope, caller)?, metric: *metric, amount, max: *max })
    };
    plan.rates.iter().filter_map(claim).collect()
}

impl Permit {
    /// Takes what a call needs; `None` where no rate holds for it, or nobody can be asked and the plan does not mind.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`], [`Refusal::CountersDown`].
    pub async fn take(
        store: Option<&Arc<dyn RateStore>>,
        clock: &dyn Clock,
        (caller, plan): (&Caller, &Plan),
        tokens: u64,
    ) -> Result<Option<Self>, Refusal> {
        let claims = claims(caller, plan, tokens);
        if claims.is_empty() {
            return Ok(None);
        }
        let store = store.ok_or(Refusal::CountersDown)?;
        // Of its own: a call that tries again takes before the end of its last try is told.
        let id = clock.event_id();
        // Before it is asked: an answer that comes late, or to nobody any more, may have taken all of it.
        let tenant = caller.account.tenant.id.clone();
        let mut permit = Self { store: store.clone(), id, tenant, claims, stood: Vec::new() };
        match store.take(id, &permit.tenant, &permit.claims).await {
            Ok(RateOutcome::Taken(stood)) => {
                permit.stood = stood;
                Ok(Some(permit))
            }
            Ok(RateOutcome::Refused { claim, wait_us }) => {
                let (tenant, claims) = (permit.tenant.clone(), std::mem::take(&mut permit.claims));
                let Some(RateClaim { subject, metric, max, .. }) = claims.get(claim).cloned() else {
                    return Err(Refusal::CountersDown);
                };
                let retry_after_s = u32::try_from(wait_us.div_ceil(1_000_000)).unwrap_or(u32::MAX).max(1);
                let plan = plan.name.clone();
                Err(Refusal::RateLimited(Box::new(RateFacts {
                    tenant,
                    subject,
                    plan,
                    metric,
                    limit: max,
                    retry_after_s,
                })))
            }
            Err(_) if plan.on_counters_down == OnCountersDown::Lease => Ok(None),
            Err(error) => {
                debug!(%error, "A call is refused: the rates cannot be asked.");
                Err(Refusal::CountersDown)
            }
        }
    }

    /// The rates a minute of the tenant.
    pub fn rooms(&self) -> Vec<RateRoom> {
        let is_told = |(claim, _): &(&RateClaim, &RateStanding)| {
            claim.subject == Subject::Tenant && claim.metric != RateMetric::Concurrent
        };
        let room = |(claim, stood): (&RateClaim, &RateStanding)| RateRoom {
            metric: claim.metric,
            max: claim.max,
            left: claim.max.saturating_sub(stood.taken),
            resets_s: stood.full_in_us.div_ceil(1_000_000),
        };
        self.claims.iter().zip(&self.stood).filter(is_told).map(room).collect()
    }

    /// Whether the rates of a plan are those that it was taken of. How many tokens were taken is set right when the call is over.
    pub fn is_for(&self, caller: &Caller, plan: &Plan) -> bool {
        let wanted = claims(caller, plan, 0);
        let same = |(a, b): (&RateClaim, &RateClaim)| (&a.subject, a.metric, a.max) == (&b.subject, b.metric, b.max);
        wanted.len() == self.claims.len() && wanted.iter().zip(&self.claims).all(same)
    }

    /// The call is over, and used so many tokens.
    pub fn over(mut self, tokens: u64) {
        let used = |claim: &RateClaim| match claim.metric {
            RateMetric::Requests => 1,
            RateMetric::Tokens => tokens,
            RateMetric::Concurrent => 0,
        };
        let claims = std::mem::take(&mut self.claims);
        let used: Vec<u64> = claims.iter().map(used).collect();
        self.store.end(self.id, &self.tenant, &claims, &used);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.claims.is_empty() {
            self.store.end(self.id, &self.tenant, &self.claims, &vec![0; self.claims.len()]);
        }
    }
}

#[cfg(test)]
mod tests;
