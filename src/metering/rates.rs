//! What a call takes of the rates of its plan, and gives back when it is over.
//!
//! May use: `domain`, `ports`. Rates are asked before the budgets, and a call that those refuse gives back what it took.

use std::sync::Arc;

use crate::domain::ids::{EventId, TenantId};
use crate::domain::plan::{OnCountersDown, Plan};
use crate::domain::rate::{Rate, RateMetric};
use crate::domain::refusal::{RateFacts, Refusal};
use crate::ports::clock::Clock;
use crate::ports::rates::{RateClaim, RateOutcome, RateStore};

use super::budget::subject;
use super::in_flight::Caller;

/// What a call in flight has of rates, or may have. Dropping it gives all of it back.
pub(super) struct Permit {
    store: Arc<dyn RateStore>,
    id: EventId,
    tenant: TenantId,
    claims: Vec<RateClaim>,
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
        let mut permit = Self { store: store.clone(), id, tenant: caller.account.tenant.id.clone(), claims };
        match store.take(id, &permit.tenant, &permit.claims).await {
            Ok(RateOutcome::Taken) => Ok(Some(permit)),
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
            Err(_) => Err(Refusal::CountersDown),
        }
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
