//! Token and cost limits, of tenants and of each of their users, whose calls hold the most that they can use.
//!
//! What a call takes of a counter is known from the outside: what it claims while it is in flight, and what it used once it
//! is over. So two sums are compared wherever somebody is admitted: that of all calls, which no limit may be passed by, and
//! that of the counters, which may lack only what nobody can know of (`tally`). As a call never uses more than it claims,
//! what is really used never passes a limit either.

use std::collections::BTreeSet;

use tollgate::domain::ids::EventId;
use tollgate::domain::plan::{Limit, Metric, Scope, Subject};
use tollgate::domain::refusal::QuotaFacts;
use tollgate::domain::time::Window;
use tollgate::ports::counters::{Claim, CounterKey};

use super::chance::Chance;
use super::model::{Call, Form, Model, State, UNLIMITED};
use super::tally::Way;
use super::tenants::PLANS;

/// The most output that a call of a limited tenant declares.
pub const OUTPUT_MAX: u64 = 4_000;

/// More than any call claims, in tokens and in nano-dollars.
const CLAIM_MAX: [u64; 2] = [5_000, 5_000_000];

/// Pico-dollars in a nano-dollar.
const PICO_PER_NANO: i128 = 1_000;

/// What the limits of a run are.
#[derive(Debug, Clone, Copy)]
pub struct Budgets {
    tokens_max: u64,
    nano_max: u64,
    /// Of each user.
    user_tokens_max: u64,
    user_nano_max: u64,
}

impl Budgets {
    pub fn draw(chance: &Chance) -> Self {
        Self {
            tokens_max: chance.between(1_500, 15_000),
            nano_max: chance.between(800_000, 8_000_000),
            user_tokens_max: chance.between(1_000, 8_000),
            user_nano_max: chance.between(500_000, 5_000_000),
        }
    }

    /// Those of one of a tenant's plans.
    pub fn limits(&self, tenant: usize, plan: usize) -> Vec<Limit> {
        let of = |scope, metric, window, max: u64| {
            let max = [max, max + max / 2, max / 2 + 1][plan];
            Limit { scope, metric, window, max }
        };
        match tenant {
            0 => vec![
                of(Scope::Tenant, Metric::Tokens, Window::Month, self.tokens_max),
                of(Scope::User, Metric::Cost, Window::Day, self.user_nano_max),
            ],
            1 => vec![
                of(Scope::User, Metric::Tokens, Window::Month, self.user_tokens_max),
                of(Scope::Tenant, Metric::Cost, Window::Day, self.nano_max),
            ],
            _ => Vec::new(),
        }
    }

    fn max(&self, tenant: usize, plan: usize, counter: &CounterKey) -> Option<u64> {
        let CounterKey { subject, metric, period, .. } = counter;
        let is_its =
            |limit: &&Limit| (limit.scope, limit.metric, limit.window) == (subject.scope(), *metric, period.window());
        self.limits(tenant, plan).iter().find(is_its).map(|limit| limit.max)
    }
}

impl Form {
    /// What it counts.
    pub fn amount(&self, metric: Metric) -> u64 {
        match metric {
            Metric::Chats => self.chats,
            Metric::Tokens => self.prompt + self.completion,
            Metric::Cost => u64::try_from((self.pico_usd + PICO_PER_NANO - 1) / PICO_PER_NANO).unwrap(),
        }
    }
}

/// Whether it is one of tokens or cost.
fn is_of_budget(claim: &&Claim) -> bool {
    claim.counter.metric != Metric::Chats
}

impl Call {
    /// What it takes of a counter, as far as anybody knows.
    pub fn takes(&self, counter: &CounterKey) -> u64 {
        let Some(claim) = self.claims.iter().find(|claim| claim.counter == *counter) else { return 0 };
        let of = |form: &Form| form.amount(counter.metric);
        match (&self.booked, self.state, &self.expected) {
            (Some(booked), ..) => booked.as_ref().map_or(0, of),
            (None, State::Asking | State::Refused, _) => 0,
            (None, State::Settling | State::Settled, Some(expected)) => of(expected),
            // Its journal may have it as it was admitted.
            (None, State::Killed, Some(expected)) => of(expected).max(of(&self.pending)),
            (None, ..) => claim.amount,
        }
    }

    /// What it takes of a counter that shared counters do not know of.
    fn lacks_of(&self, counter: &CounterKey) -> u64 {
        let listed = self.shared.listed.iter().find(|(listed, _)| listed == counter).map_or(0, |(_, amount)| *amount);
        self.takes(counter).saturating_sub(listed)
    }

    /// Whether shared counters know of less than it takes.
    pub fn lacks(&self) -> bool {
        self.claims.iter().filter(is_of_budget).any(|claim| self.lacks_of(&claim.counter) > 0)
    }

    /// As booked it used no more than it claimed, of anything.
    pub fn keeps_within(&self, number: usize, form: &Form) -> Result<(), String> {
        match self.claims.iter().find(|claim| form.amount(claim.counter.metric) > claim.amount) {
            Some(claim) => Err(format!("call {number} is booked as {form:?}, and claimed no more than {claim:?}")),
            None => Ok(()),
        }
    }
}

impl Model {
    /// A call is taken with these claims: each limit of a plan that it may go by is among them.
    pub fn has_taken(&mut self, id: EventId, claims: &[Claim]) -> Result<(), String> {
        let (Some(budgets), Some(at)) = (self.budgets, self.place_of(id)) else { return Ok(()) };
        self.calls[at].claims = claims.to_vec();
        let call = &self.calls[at];
        let is_right = self.plans(call).any(|plan| {
            let limits = budgets.limits(call.tenant, plan);
            let is_claimed = |limit: &Limit| {
                claims.iter().any(|claim| {
                    let CounterKey { subject, metric, period, .. } = &claim.counter;
                    (limit.scope, limit.metric, limit.window) == (subject.scope(), *metric, period.window())
                        && claim.max == Some(limit.max)
                        && claim.amount > 0
                })
            };
            limits.iter().all(|limit| is_claimed(limit) || (limit.scope == Scope::User && !call.has_user))
        });
        if call.tenant == UNLIMITED || is_right {
            return Ok(());
        }
        Err(format!("a call is taken with {claims:?}, which are not the limits of its plan: {call:?}"))
    }

    /// Calls that were admitted, and take something of a counter, come to so much.
    fn taken(&self, counter: &CounterKey, of: impl Fn(&Call) -> u64) -> u64 {
        self.calls.iter().filter(|call| call.claims.iter().any(|claim| claim.counter == *counter)).map(of).sum()
    }

    fn excused_of(&mut self, counter: &CounterKey) -> u64 {
        let lacks = |call: &Call| if call.shared.is_excused { call.lacks_of(counter) } else { 0 };
        let now = self.taken(counter, lacks);
        let most = self.excused_amounts.entry(counter.clone()).or_default();
        *most = (*most).max(now);
        *most
    }

    /// Shared counters have admitted a call, with so much counted now.
    pub fn has_room(&mut self, claim: &Claim, counted: u64, ways: &[Way], now_us: u64) -> Result<(), String> {
        if self.budgets.is_none() || !is_of_budget(&claim) {
            return Ok(());
        }
        let Claim { counter, max, .. } = claim;
        self.excuse_silent(ways, now_us);
        let lacks = |call: &Call| if call.shared.is_excused { call.lacks_of(counter) } else { 0 };
        let (taken, excused) = (self.taken(counter, |call| call.takes(counter)), self.taken(counter, lacks));
        self.excused_of(counter);
        if taken > counted + excused {
            let lacking = self.calls.iter().enumerate().filter(|(_, call)| call.lacks_of(counter) > 0);
            let lacking: Vec<usize> = lacking.map(|(at, _)| at).collect();
            return Err(format!(
                "the store counts {counted} on {counter:?}, where calls take {taken} of {max:?}; not known are those of {lacking:?}, and {excused} are excused"
            ));
        }
        Ok(())
    }

    /// A call is about to use what it claims: with all others that is within each limit.
    pub fn keeps_budgets(&mut self, call: usize) -> Result<(), String> {
        let Some(budgets) = self.budgets else { return Ok(()) };
        let Call { node, tenant, .. } = self.calls[call];
        for claim in self.calls[call].claims.clone().iter().filter(is_of_budget) {
            let counter = &claim.counter;
            let max = self.plans(&self.calls[call]).filter_map(|plan| budgets.max(tenant, plan, counter)).max();
            let Some(max) = max.filter(|_| self.knows(node, Some(counter.period))) else { continue };
            let excused = self.excused_of(counter);
            // One that was refused may be booked all the same, if its admission was written and could not be synced.
            let is_real = |call: &Call| call.reached || call.booked.is_none();
            let taken = self.taken(counter, |call| if is_real(call) { call.takes(counter) } else { 0 });
            if taken > max + excused {
                return Err(format!(
                    "call {call} goes out though {taken} of {max} are taken of {counter:?}, and {excused} are excused"
                ));
            }
        }
        Ok(())
    }

    /// A call is refused for want of room: there must be none. (As with chats: what others claim may be held still.)
    pub fn has_no_room(&self, call: usize, facts: &QuotaFacts, since_us: u64) -> Result<(), String> {
        let QuotaFacts { tenant, subject, metric, period, asked, .. } = facts;
        let counter = CounterKey { tenant: tenant.clone(), subject: subject.clone(), metric: *metric, period: *period };
        let Some(budgets) = self.budgets else { return Err(format!("nobody limits {counter:?}: {facts:?}")) };
        let call = &self.calls[call];
        let max = self.plans(call).filter_map(|plan| budgets.max(call.tenant, plan, &counter)).min();
        let Some(max) = max else { return Err(format!("nobody limits {counter:?}: {facts:?}")) };
        let most = |call: &Call| {
            let is_over = matches!(call.state, State::Settled | State::Refused)
                && call.since_us < since_us
                && call.life == self.on[call.node].life;
            let claimed = call.claims.iter().find(|claim| claim.counter == counter).map_or(0, |claim| claim.amount);
            if is_over { call.takes(&counter) } else { claimed }
        };
        let taken = self.taken(&counter, most);
        if taken + asked <= max {
            return Err(format!("{asked} of {counter:?} are refused with {taken} of {max} taken at most: {facts:?}"));
        }
        Ok(())
    }

    /// Whether so little is left of a tenant's own limits that not every call fits.
    pub fn is_short(&self, tenant: usize) -> bool {
        let Some(budgets) = self.budgets else { return false };
        let plan = self.plan(tenant);
        let counters = self.calls.iter().filter(|call| call.tenant == tenant).flat_map(|call| &call.claims);
        let mut own = counters.filter(is_of_budget).filter(|claim| claim.counter.subject == Subject::Tenant);
        own.any(|Claim { counter, .. }| {
            let claim_max = CLAIM_MAX[usize::from(counter.metric == Metric::Cost)];
            let max = budgets.max(tenant, plan, counter).unwrap_or(u64::MAX);
            self.taken(counter, |call| call.takes(counter)) + claim_max > max
        })
    }

    /// At the end: no more was used of a counter than the largest limit, but for what is excused. (A kill may bring back what
    /// a call was booked as when it was admitted, after its room was given to another.)
    pub fn kept_budgets(&mut self) -> Result<(), String> {
        let Some(budgets) = self.budgets.filter(|_| self.is_shared) else { return Ok(()) };
        let its = |call: &Call| -> Vec<(usize, CounterKey)> {
            call.claims.iter().filter(is_of_budget).map(|claim| (call.tenant, claim.counter.clone())).collect()
        };
        let counters: BTreeSet<(usize, CounterKey)> = self.calls.iter().flat_map(its).collect();
        for (tenant, counter) in counters {
            let Some(max) = (0..PLANS).filter_map(|plan| budgets.max(tenant, plan, &counter)).max() else { continue };
            let (used, excused) = (self.taken(&counter, |call| call.takes(&counter)), self.excused_of(&counter));
            if used > max + excused {
                return Err(format!("{used} are used of {counter:?}, {max} is the limit, and {excused} are excused"));
            }
        }
        Ok(())
    }
}
