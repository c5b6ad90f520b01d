//! What a call takes of the limits of its plan while it is in flight, and what becomes of one that does not fit.
//!
//! May use: `domain`, `providers`, the counters' keys, the snapshot. No I/O: the meter asks the counters.
//!
//! A chat takes one of the tenant's chats in each window, limited or not, so that a limit set in the middle of a window
//! knows what was used before. A billed call takes tokens and cost of each limit that its plan has for the tenant, the key,
//! the user and the knowledge base that it is made for; whoever is not named has no limit.

use crate::domain::budget::{Budget, Sizing, Unpriced};
use crate::domain::counting::Counting;
use crate::domain::hold::{self, Bounds, Known, OUTPUT_MIN, Size};
use crate::domain::ids::ProviderId;
use crate::domain::plan::{Limit, Metric, Plan, Scope, Standing, Subject};
use crate::domain::price::ServiceTier;
use crate::domain::price::tariff::{Ceiling, Prospect, Tariff};
use crate::domain::rate::RateMetric;
use crate::domain::refusal::{QuotaFacts, Refusal};
use crate::domain::time::Micros;
use crate::ports::counters::{Claim, CounterKey};
use crate::providers::{Call, Endpoint, Kind, Provider, Reads, Searches, estimate};

use super::in_flight::{Caller, LimitStanding, bounded};
use super::snapshot::Account;
use super::snapshot::Snapshots;

/// What a call may use of tokens and money.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quote {
    size: Size,
    answers: u64,
    /// What its tokens cost at most; `None` where no cost limit counts it.
    dearest: Option<Ceiling>,
    /// The least that it holds of a cost limit.
    cost_min: u64,
    /// The most tokens of one answer that have to be written into the request, as nothing else bounds them.
    write: Option<u64>,
    /// Whether another maximum can be written into the request.
    can_write: bool,
}

/// The most tokens of one answer, for the request of a call whose hold follows from it.
pub(super) type Written = Option<u64>;

/// What a call takes of each limit, worked out once for each try.
pub(super) struct Ask<'a> {
    pub caller: &'a Caller,
    pub plan: &'a Plan,
    pub tariff: &'a Tariff,
    pub kind: Kind,
    pub at: Micros,
}

/// Whether the plan limits how fast tokens flow.
fn bounds_flow(plan: &Plan) -> bool {
    plan.rates.iter().any(|rate| rate.metric == RateMetric::Tokens)
}

/// The subject of a limit in a call; `None` where the call is not made for one.
pub(super) fn subject(scope: Scope, caller: &Caller) -> Option<Subject> {
    match scope {
        Scope::Tenant => Some(Subject::Tenant),
        Scope::Key => caller.key.as_ref().map(|key| Subject::Key(key.id.clone())),
        Scope::User => caller.user_id.as_deref().map(|id| Subject::User(id.into())),
        Scope::Kb => caller.kb_id.as_deref().map(|id| Subject::Kb(id.into())),
    }
}

/// The limits of the caller's plan that hold for it, and the counter of each.
pub(super) fn limits<'a>(
    caller: &'a Caller,
    plan: &'a Plan,
    at: Micros,
) -> impl Iterator<Item = (&'a Limit, CounterKey)> {
    plan.limits.iter().filter_map(move |limit| Some((limit, counter(caller, limit, at)?)))
}

fn counter(caller: &Caller, limit: &Limit, at: Micros) -> Option<CounterKey> {
    let Limit { scope, metric, window, .. } = *limit;
    let subject = subject(scope, caller)?;
    let tenant = &caller.account.tenant;
    Some(CounterKey { tenant: tenant.id.clone(), subject, metric, period: tenant.zone.period(window, at) })
}

/// Whether an account may have a provider keep what is charged by the hour; [`Refusal::Storage`] where its plan limits cost,
/// which nobody can hold to that. What its own account keeps it pays itself.
pub fn may_store(account: Option<&Account>, provider: &ProviderId) -> Result<(), Refusal> {
    let Some(account) = account.filter(|account| !account.has_own_key(provider)) else { return Ok(()) };
    // One on an unknown plan is refused elsewhere.
    let Some(plan) = account.plan.as_deref() else { return Ok(()) };
    let limits_cost = plan.limits.iter().any(|limit| limit.metric == Metric::Cost);
    let is_refused = limits_cost && plan.budget.unpriced == Unpriced::Refuse;
    if is_refused { Err(Refusal::Storage { plan: plan.name.clone() }) } else { Ok(()) }
}

impl Ask<'_> {
    /// What the call may use, where a limit of its plan counts that.
    ///
    /// # Errors
    /// [`Refusal::Deferred`], [`Refusal::NoPrice`] and [`Refusal::Storage`].
    pub fn quote(
        &self,
        (provider, endpoint, call): (&'static dyn Provider, &Endpoint, &Call),
        snapshots: &Snapshots,
    ) -> Result<Option<Quote>, Refusal> {
        let Self { caller, plan, kind, .. } = self;
        let counts =
            |metric| plan.limits.iter().any(|limit| limit.metric == metric && subject(limit.scope, caller).is_some());
        let counts_cost = counts(Metric::Cost);
        let is_limited = counts_cost || counts(Metric::Tokens);
        if *kind == Kind::Unbilled || !(is_limited || bounds_flow(plan)) {
            return Ok(None);
        }
        if is_limited && plan.budget.refuses_deferred() && endpoint.reads.is_finished_later(call.in_background) {
            return Err(Refusal::Deferred { plan: plan.name.clone() });
        }
        if endpoint.reads == Reads::Cache {
            may_store(Some(&caller.account), &provider.id())?;
        }
        let bounds = snapshots.bounds();
        let of_model = || snapshots.output_max(&provider.id(), &call.model);
        let model_max = default_max(endpoint.name).or_else(of_model);
        let known = Known {
            input_estimate: estimate::of_prompt(&call.prompt).prompt,
            body_bytes: call.body_bytes,
            beyond_body: call.has_media || call.refers,
            has_output: endpoint.reads.has_output(),
            declared: call.output_max,
            answers: call.answers,
            model_max,
            costs_tokens_only: endpoint.reads.costs_tokens_only(),
        };
        let size = known.size(plan.budget.hold, &bounds);
        let is_bound = !known.has_output || known.declared.is_some() || plan.budget.hold == Sizing::Estimate;
        let write = (!is_bound && call.cap.is_some()).then(|| size.output / known.answers.max(1));
        let dearest = if counts_cost { self.dearest((provider, call), size, &bounds)? } else { None };
        let cost_min = if known.costs_tokens_only { 1 } else { bounds.cost_min.max(1) };
        let can_write = call.cap.is_some() && known.has_output;
        Ok(Some(Quote { size, answers: known.answers.max(1), dearest, cost_min, write, can_write }))
    }

    /// What a token costs at most; `None` where it costs nothing, or nobody knows and the plan does not mind.
    fn dearest(
        &self,
        (provider, call): (&'static dyn Provider, &Call),
        size: Size,
        bounds: &Bounds,
    ) -> Result<Option<Ceiling>, Refusal> {
        let Self { plan, tariff, at, .. } = self;
        let with_media = call.has_media || call.refers;
        let searches = match (call.searches, plan.budget.hold) {
            (Searches::Never, _) => 0,
            (Searches::Often, Sizing::WorstCase) => bounds.searches_max,
            (Searches::Once | Searches::Often, _) => 1,
        };
        let (provider, model) = (provider.id(), call.model.as_str());
        let prospect = Prospect {
            provider: provider.as_str(),
            model,
            tier: ServiceTier::Standard,
            input_tokens: size.input,
            with_media,
            quantities: call.quantities,
            searches,
            at: *at,
        };
        let ceilings = tiers_of(call, plan.budget.hold, bounds.account_tier)
            .filter_map(|tier| tariff.ceiling(&Prospect { tier, ..prospect }));
        match ceilings.reduce(dearer) {
            // What searches may charge what nobody published.
            Some(dearest) => Ok(Some(dearest).filter(|dearest| searches > 0 || !hold::is_free(dearest))),
            None if plan.budget.unpriced == Unpriced::Allow => Ok(None),
            None => Err(Refusal::NoPrice { model: bounded(call.model.clone()), plan: plan.name.clone() }),
        }
    }

    /// What the call takes of each counter: chats first.
    pub fn claims(&self, quote: Option<&Quote>) -> Vec<Claim> {
        let Self { caller, plan, kind, at, .. } = self;
        let mut claims = Vec::with_capacity(Counting::WINDOWS.len() + plan.limits.len());
        if *kind == Kind::Chat {
            let tenant = &caller.account.tenant;
            // Whether or not the plan limits them.
            claims.extend(Counting::WINDOWS.into_iter().map(|window| Claim {
                counter: CounterKey {
                    tenant: tenant.id.clone(),
                    subject: Subject::Tenant,
                    metric: Metric::Chats,
                    period: tenant.zone.period(window, *at),
                },
                amount: 1,
                max: plan.limit(Scope::Tenant, Metric::Chats, window).map(|limit| plan.budget.with_grace(limit.max)),
            }));
        }
        // Most plans limit nothing else.
        for limit in &plan.limits {
            let amount = match (limit.metric, quote) {
                (Metric::Chats, _) if *kind == Kind::Chat && limit.scope != Scope::Tenant => 1,
                (Metric::Chats, _) | (_, None) => continue,
                (metric, Some(quote)) => match quote.amount(metric, &plan.budget) {
                    Some(amount) => amount,
                    None => continue,
                },
            };
            let max = Some(plan.budget.with_grace(limit.max));
            claims.extend(counter(caller, limit, *at).map(|counter| Claim { counter, amount, max }));
        }
        claims
    }

    /// The refusal of a call that has no room on `claim`.
    pub fn refusal(&self, claim: Option<&Claim>, standing: Standing) -> Refusal {
        let Self { caller, plan, .. } = self;
        let Some(Claim { counter, amount, max: Some(max) }) = claim else {
            // A store that refuses a claim without a maximum breaks its contract: refuse without naming a quota.
            return Refusal::CountersDown;
        };
        let CounterKey { tenant, subject, metric, period } = counter;
        // What the plan says, without its grace.
        let limit = plan.limit(subject.scope(), *metric, period.window()).map_or(*max, |limit| limit.max);
        let is_held = *metric != Metric::Chats && has_room(claim, standing);
        let facts = Box::new(QuotaFacts {
            tenant: tenant.clone(),
            subject: subject.clone(),
            plan: caller.account.tenant.plan.clone(),
            metric: *metric,
            period: *period,
            resets_at: caller.account.tenant.zone.end(*period),
            limit,
            standing,
            asked: *amount,
        });
        if is_held { Refusal::BudgetHeld(facts) } else { Refusal::QuotaUsedUp(facts) }
    }

    /// The refusal that says most of a call that did not fit: of a limit that is used up before one that others hold.
    pub fn refusal_of_all(&self, claims: &[Claim], standings: &[Standing], refused: usize) -> Refusal {
        let all = || claims.iter().zip(standings).map(|(claim, standing)| (Some(claim), *standing));
        let used_up = all().find(|(claim, standing)| !has_room(*claim, *standing));
        let (claim, standing) = used_up.or_else(|| all().nth(refused)).unwrap_or((None, Standing::default()));
        self.refusal(claim, standing)
    }
}

/// Whether what is used leaves room for a claim, were nothing held.
fn has_room(claim: Option<&Claim>, standing: Standing) -> bool {
    let Some(Claim { amount, max: Some(max), .. }) = claim else { return true };
    standing.used.checked_add(*amount).is_some_and(|then| then <= *max)
}

impl Quote {
    /// What the call holds of a limit on `metric`; `None` where that does not count it.
    fn amount(&self, metric: Metric, budget: &Budget) -> Option<u64> {
        let amount = match metric {
            Metric::Chats => return None,
            // Whatever is asked, it is not nothing.
            Metric::Tokens => self.size.tokens().max(1),
            Metric::Cost => self.size.cost(&self.dearest?).max(self.cost_min),
        };
        Some(budget.hold_max(metric).map_or(amount, |cap| amount.min(cap)))
    }

    /// All tokens, input and output.
    pub fn tokens(&self) -> u64 {
        self.size.tokens()
    }

    /// What has to be written into the request for this to hold.
    pub fn written(&self) -> Written {
        self.write
    }

    /// The same with less output, so that it fits what is left; `None` where that is not worth a call, or would not be less.
    pub fn lowered(&self, claims: &[Claim], standings: &[Standing]) -> Option<Self> {
        if !self.can_write {
            return None;
        }
        let left =
            |(claim, standing): (&Claim, &Standing)| Some((claim.counter.metric, standing.remaining(claim.max?)));
        let output = self.output_within(claims.iter().zip(standings).filter_map(left))?;
        let each = output / self.answers;
        let lower = each.saturating_mul(self.answers);
        (each >= OUTPUT_MIN && lower < self.size.output).then_some(Self {
            size: Size { output: lower, ..self.size },
            write: Some(each),
            ..*self
        })
    }

    /// The most output for which the call stays within each of these amounts; `None` where there is none.
    fn output_within(&self, amounts: impl Iterator<Item = (Metric, u64)>) -> Option<u64> {
        let room = |(metric, amount)| match metric {
            Metric::Chats => None,
            Metric::Tokens => Some(self.size.output_within_tokens(amount)),
            Metric::Cost => Some(self.size.output_within_cost(amount, &self.dearest?)),
        };
        amounts.filter_map(room).min()
    }

    /// How far the output of a call may go by what it holds.
    pub fn output_of(&self, claims: &[Claim]) -> Option<u64> {
        self.output_within(claims.iter().map(|claim| (claim.counter.metric, claim.amount)))
    }

    /// How much more output there is room for, beyond what the call holds.
    pub fn output_beyond(&self, claims: &[Claim], standings: &[Standing]) -> u64 {
        let beyond = Self {
            size: Size::default(),
            dearest: self.dearest.map(|dearest| Ceiling { request: 0, ..dearest }),
            ..*self
        };
        let left =
            |(claim, standing): (&Claim, &Standing)| Some((claim.counter.metric, standing.remaining(claim.max?)));
        beyond.output_within(claims.iter().zip(standings).filter_map(left)).unwrap_or(u64::MAX)
    }

    /// The same of a call that uses next to nothing.
    pub fn smallest(&self) -> Self {
        Self { size: Size::default(), cost_min: 1, ..*self }
    }

    /// The same with the least output that is worth a call: whether a limit is used up is judged by this where the output
    /// may be lowered.
    pub fn least(&self) -> Self {
        let least = OUTPUT_MIN.saturating_mul(self.answers);
        if !self.can_write {
            return *self;
        }
        Self { size: Size { output: self.size.output.min(least), ..self.size }, ..*self }
    }
}

/// The tiers that a call may be charged by. Where none is named the account's setting decides; which one answers is the
/// provider's to say, as one that has no room falls back to the standard. An estimate is by the first alone.
fn tiers_of(call: &Call, hold: Sizing, of_account: ServiceTier) -> impl Iterator<Item = ServiceTier> {
    let tier = call.service_tier.unwrap_or(of_account);
    let is_standard_too = hold == Sizing::WorstCase && tier != ServiceTier::Standard;
    is_standard_too.then_some(ServiceTier::Standard).into_iter().chain([tier])
}

/// The dearer of both in each.
fn dearer(one: Ceiling, other: Ceiling) -> Ceiling {
    Ceiling {
        input: one.input.max(other.input),
        output: one.output.max(other.output),
        request: one.request.max(other.request),
    }
}

/// What a provider puts in place of a maximum that is not declared, where that is not all that the model can do.
fn default_max(endpoint: &str) -> Option<u64> {
    // OpenAI's reference of the completions API.
    (endpoint == "completions").then_some(16)
}

/// How the limits that a call counts against stand with it.
pub(super) fn limit_standings(
    account: &Account,
    plan: &Plan,
    claims: &[Claim],
    standings: &[Standing],
) -> Vec<LimitStanding> {
    let limited = |(claim, standing): (&Claim, &Standing)| {
        let CounterKey { subject, metric, period, .. } = &claim.counter;
        let limit: &Limit = plan.limit(subject.scope(), *metric, period.window())?;
        Some(LimitStanding::of(account, *limit, *period, *standing))
    };
    claims.iter().zip(standings).filter_map(limited).collect()
}

#[cfg(test)]
mod tests;
