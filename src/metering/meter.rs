//! Admission: everything that can fail happens here, so that settlement cannot.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::domain::counting::Counting;
use crate::domain::ids::{EventId, TenantId};
use crate::domain::models::Models;
use crate::domain::plan::{Limit, Metric, Plan, Scope, Standing, Subject};
use crate::domain::refusal::{ModelFacts, QuotaFacts, Refusal};
use crate::domain::tenant::Tenant;
use crate::domain::time::{Micros, Window};
use crate::ports::clock::Clock;
use crate::ports::continuations::{Continuations, TokenHash};
use crate::ports::counters::{Claim, CounterKey, CounterStore, HoldOutcome, Terms};
use crate::ports::journal::Journal;
use crate::ports::sink::Sink;
use crate::providers::{Call, Endpoint, Kind, Provider};

use super::estimator::Estimator;
use super::in_flight::{Caller, InFlight, LimitStanding, Open, Progress, pending};
use super::snapshot::{Account, Snapshots};

/// Chats are counted in these windows whether or not the plan limits them, so that a limit set in the middle of a
/// window knows what was used before.
const WINDOWS: [Window; 2] = [Window::Month, Window::Day];

/// How often a tenant may be changed while one call of it is admitted: more than twice is an accident.
const CHANGES_MAX: usize = 3;

/// Admits calls.
pub struct Meter {
    pub(super) counters: Arc<dyn CounterStore>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) estimator: Estimator,
    pub(super) counting: Counting,
    continuations: Option<Arc<dyn Continuations>>,
    snapshots: Arc<Snapshots>,
    clock: Arc<dyn Clock>,
    sinks: Vec<Arc<dyn Sink>>,
}

impl Meter {
    /// A meter over its ports.
    pub fn new(
        counters: Arc<dyn CounterStore>,
        journal: Arc<dyn Journal>,
        snapshots: Arc<Snapshots>,
        clock: Arc<dyn Clock>,
        sinks: Vec<Arc<dyn Sink>>,
    ) -> Self {
        let estimator = Estimator::default();
        let counting = snapshots.counting();
        Self { counters, journal, estimator, counting, continuations: None, snapshots, clock, sinks }
    }

    /// The same with another estimator than the tokenizer.
    pub fn with_estimator(self, estimator: Estimator) -> Self {
        Self { estimator, ..self }
    }

    /// The same with a memory of the tokens by which answers go on; without one each such call is a new chat.
    pub fn with_continuations(self, continuations: Arc<dyn Continuations>) -> Self {
        Self { continuations: Some(continuations), ..self }
    }

    /// The gateway answered a request itself.
    pub fn refused(&self, refusal: &Refusal) {
        for sink in &self.sinks {
            sink.refused(refusal);
        }
    }

    pub(super) fn monotonic_us(&self) -> u64 {
        self.clock.monotonic_us()
    }

    /// Admits a call of a billed endpoint, or says why not. Nothing may go to the provider before this returns.
    pub async fn admit(
        self: &Arc<Self>,
        caller: Caller,
        provider: &'static dyn Provider,
        endpoint: Endpoint,
        call: Call,
    ) -> Result<InFlight, Refusal> {
        let admitted_at = self.clock.now();
        let id = self.clock.event_id();
        // What goes on with an answer was counted with its begin.
        let goes_on = self.goes_on(&caller.account.tenant.id, call.continues.as_deref(), id).await;
        let kind = if goes_on { Kind::Billed } else { endpoint.kind };
        let (caller, held, limits) = self.hold(caller, id, (kind, &call.model), admitted_at).await?;
        self.own((id, admitted_at, goes_on), (caller, held, limits), provider, endpoint, call).await
    }

    /// Admits what the provider of a session charged, or began to, of its own accord: it is booked, whatever is left of
    /// the plan, and is no chat.
    pub async fn admit_charged(
        self: &Arc<Self>,
        caller: Caller,
        provider: &'static dyn Provider,
        endpoint: Endpoint,
        call: Call,
    ) -> Result<InFlight, Refusal> {
        let (id, admitted_at) = (self.clock.event_id(), self.clock.now());
        let held = Held { counters: &*self.counters, id, claims: Vec::new() };
        self.own((id, admitted_at, false), (caller, held, Vec::new()), provider, endpoint, call).await
    }

    /// The call that owns what is held for it.
    async fn own(
        self: &Arc<Self>,
        (id, admitted_at, goes_on): (EventId, Micros, bool),
        (caller, mut held, limits): (Caller, Held<'_>, Vec<LimitStanding>),
        provider: &'static dyn Provider,
        endpoint: Endpoint,
        call: Call,
    ) -> Result<InFlight, Refusal> {
        let started_us = self.clock.monotonic_us();
        let prices = self.snapshots.load().prices.clone();
        let event = pending(id, admitted_at, (caller, &held.claims), (provider, &endpoint, &call), &prices);
        let slot = self.journal.admit(&event).map_err(|_| Refusal::JournalFull)?;
        let position = slot.position;
        let (meter, progress) = (self.clone(), Progress::default());
        let claims = std::mem::take(&mut held.claims);
        let in_flight = InFlight::new(Open {
            meter,
            slot,
            claims,
            limits,
            provider,
            endpoint,
            call,
            goes_on,
            prices,
            started_us,
            event,
            progress,
        });
        if !self.journal.durable(position).await {
            // A power cut would take the call, and the provider would have charged it. Dropping it gives it back.
            return Err(Refusal::JournalFull);
        }
        Ok(in_flight)
    }

    async fn goes_on(&self, tenant: &TenantId, token: Option<&str>, id: EventId) -> bool {
        match (&self.continuations, token) {
            (Some(known), Some(token)) => known.take(tenant, token_hash(token), id).await,
            _ => false,
        }
    }

    /// Lets the tenant go on with an answer, without another chat.
    pub(super) async fn lets_go_on(&self, tenant: &TenantId, token: &str) {
        if let Some(known) = &self.continuations {
            known.issue(tenant, token_hash(token)).await;
        }
    }

    /// Takes what the call needs from the counters. Gives the caller as it is by the newest revision that anybody knows.
    async fn hold(
        &self,
        mut caller: Caller,
        id: EventId,
        (kind, model): (Kind, &str),
        admitted_at: Micros,
    ) -> Result<(Caller, Held<'_>, Vec<LimitStanding>), Refusal> {
        for _ in 0..CHANGES_MAX {
            may_use(&caller, model)?;
            let plan = plan_of(&caller.account)?;
            let claims = claims(&caller.account, plan, kind, admitted_at);
            let terms = Terms { revision: caller.account.revision, on_counters_down: plan.on_counters_down };
            match self.counters.hold(id, &claims, terms).await {
                Ok(HoldOutcome::Held(standings)) => {
                    let limits = limit_standings(plan, &claims, &standings);
                    // What was held is given back should anything fail before the call owns it.
                    return Ok((caller, Held { counters: &*self.counters, id, claims }, limits));
                }
                Ok(HoldOutcome::Refused { claim, standing }) => {
                    return Err(used_up(&caller.account, plan, claims.get(claim), standing));
                }
                Ok(HoldOutcome::Changed) => {}
                Err(_) => return Err(Refusal::CountersDown),
            }
            let tenant = &caller.account.tenant.id;
            let account = self.snapshots.load().accounts.get(tenant).cloned().ok_or(Refusal::BadKey)?;
            if account.tenant.suspended {
                return Err(Refusal::Suspended(tenant.clone()));
            }
            caller.account = account;
        }
        Err(Refusal::CountersDown)
    }

    /// How the limits of an account stand, for answers that need no admission. Empty for an unlimited account.
    pub async fn standings(&self, account: &Account) -> Vec<LimitStanding> {
        let Ok(plan) = plan_of(account) else { return Vec::new() };
        if plan.limits.is_empty() {
            return Vec::new();
        }
        let claims = claims(account, plan, Kind::Chat, self.clock.now());
        let counters: Vec<CounterKey> = claims.iter().map(|claim| claim.counter.clone()).collect();
        match self.counters.read(&counters).await {
            Ok(standings) => limit_standings(plan, &claims, &standings),
            Err(_) => Vec::new(),
        }
    }

    /// Whether a chat with `model` (`None`: not known yet) could be admitted now, by what the counters say. Nothing is
    /// held: a session that begins takes nothing until its first turn.
    pub async fn could_admit(&self, caller: &Caller, model: Option<&str>) -> Result<(), Refusal> {
        model.map_or(Ok(()), |model| may_use(caller, model))?;
        let account = &caller.account;
        let plan = plan_of(account)?;
        if plan.limits.is_empty() {
            return Ok(());
        }
        let claims = claims(account, plan, Kind::Chat, self.clock.now());
        let counters: Vec<CounterKey> = claims.iter().map(|claim| claim.counter.clone()).collect();
        // Where they cannot be asked, the first turn meets that.
        let Ok(standings) = self.counters.read(&counters).await else { return Ok(()) };
        let full = |(claim, standing): &(&Claim, &Standing)| {
            claim.max.is_some_and(|max| standing.remaining(max) < claim.amount)
        };
        match claims.iter().zip(&standings).find(full) {
            Some((claim, standing)) => Err(used_up(account, plan, Some(claim), *standing)),
            None => Ok(()),
        }
    }

    /// A new event id, for answers that have no event.
    pub fn request_id(&self) -> String {
        self.clock.event_id().to_string()
    }

    /// The wall clock.
    pub fn now(&self) -> Micros {
        self.clock.now()
    }
}

/// Claims that are held and that no call owns yet.
struct Held<'a> {
    counters: &'a dyn CounterStore,
    id: EventId,
    claims: Vec<Claim>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.claims.is_empty() {
            self.counters.settle(self.id, &self.claims, &[]);
        }
    }
}

fn token_hash(token: &str) -> TokenHash {
    TokenHash(Sha256::digest(token.as_bytes()).into())
}

fn plan_of(account: &Account) -> Result<&Plan, Refusal> {
    let Tenant { id, plan, .. } = &account.tenant;
    account.plan.as_deref().ok_or_else(|| Refusal::UnknownPlan { tenant: id.clone(), plan: plan.clone() })
}

/// Whether the plan and the key allow a model; [`Refusal::ModelNotAllowed`] if not.
pub fn may_use(caller: &Caller, model: &str) -> Result<(), Refusal> {
    let plan = plan_of(&caller.account)?;
    let not_in = |list: &Option<Models>| list.as_ref().filter(|allowed| !allowed.allow(model)).cloned();
    let not_of_key = || caller.key.as_ref().and_then(|key| not_in(&key.models));
    let refused = |by: String| move |allowed| Refusal::ModelNotAllowed(Box::new(ModelFacts::new(model, by, allowed)));
    match (not_in(&plan.models), not_of_key()) {
        (Some(allowed), _) => Err(refused(format!("plan {}", plan.name))(allowed)),
        (None, Some(allowed)) => Err(refused("this key".to_owned())(allowed)),
        (None, None) => Ok(()),
    }
}

/// What a call takes: one chat in each window, or nothing.
fn claims(account: &Account, plan: &Plan, kind: Kind, now: Micros) -> Vec<Claim> {
    if kind != Kind::Chat {
        return Vec::new();
    }
    let claim = |window: Window| Claim {
        counter: CounterKey {
            tenant: account.tenant.id.clone(),
            subject: Subject::Tenant,
            metric: Metric::Chats,
            period: window.period(now),
        },
        amount: 1,
        max: plan.limit(Scope::Tenant, Metric::Chats, window).map(|limit| limit.max),
    };
    WINDOWS.into_iter().map(claim).collect()
}

fn limit_standings(plan: &Plan, claims: &[Claim], standings: &[Standing]) -> Vec<LimitStanding> {
    let limited = |(claim, standing): (&Claim, &Standing)| {
        let CounterKey { subject, metric, period, .. } = &claim.counter;
        let limit: &Limit = plan.limit(subject.scope(), *metric, period.window())?;
        Some(LimitStanding { limit: *limit, period: *period, standing: *standing })
    };
    claims.iter().zip(standings).filter_map(limited).collect()
}

fn used_up(account: &Account, plan: &Plan, claim: Option<&Claim>, standing: Standing) -> Refusal {
    match claim {
        Some(Claim { counter, max: Some(limit), .. }) => Refusal::QuotaUsedUp(Box::new(QuotaFacts {
            tenant: account.tenant.id.clone(),
            plan: plan.name.clone(),
            metric: counter.metric,
            period: counter.period,
            limit: *limit,
            standing,
        })),
        // A store that refuses a claim without a maximum breaks its contract: refuse without naming a quota.
        _ => Refusal::CountersDown,
    }
}

#[cfg(test)]
mod tests;
