//! Admission: everything that can fail happens here, so that settlement cannot.

use std::sync::Arc;
use tracing::debug;

use crate::domain::bound::Bound;
use crate::domain::budget::{OnOverrun, WhenShort};
use crate::domain::counting::Counting;
use crate::domain::ids::{EventId, ProviderId, TenantId};
use crate::domain::models::Models;
use crate::domain::plan::{Limit, Metric, Plan, Scope, Standing};
use crate::domain::price::rates::Used;
use crate::domain::price::tariff::{Named, Tariff};
use crate::domain::price::{Priced, ServiceTier};
use crate::domain::quantities::Quantities;
use crate::domain::refusal::{ModelFacts, Refusal};
use crate::domain::tenant::Tenant;
use crate::domain::time::Micros;
use crate::domain::tokens::Tokens;
use crate::ports::clock::Clock;
use crate::ports::continuations::Continuations;
use crate::ports::counters::{Claim, CounterKey, CounterStore, HoldOutcome, Terms};
use crate::ports::journal::Journal;
use crate::ports::rates::RateStore;
use crate::ports::sink::Sink;
use crate::providers::estimate::EstimateInput;
use crate::providers::{Call, Endpoint, Kind, Prompt, Provider};

pub use super::budget::may_store;
use super::budget::{self, Ask, Quote, Written, limit_standings};
use super::continued::{Continued, token_hash};
use super::estimator::{Estimate, Estimator};
use super::in_flight::{Caller, InFlight, LimitStanding, Open, Progress, pending};
use super::overrun::Overrun;
use super::rates::Permit;
use super::snapshot::{Account, Snapshots};

/// How often a tenant may be changed while one call of it is admitted: more than twice is an accident.
const CHANGES_MAX: usize = 3;

/// How often one call is sized anew because others took what it was lowered to.
const SIZES_MAX: usize = 3;

/// Admits calls.
pub struct Meter {
    pub(super) counters: Arc<dyn CounterStore>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) estimator: Estimator,
    pub(super) counting: Counting,
    continuations: Option<Arc<dyn Continuations>>,
    rates: Option<Arc<dyn RateStore>>,
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
        Self { counters, journal, estimator, counting, continuations: None, rates: None, snapshots, clock, sinks }
    }

    /// The same with another estimator than the tokenizer.
    pub fn with_estimator(self, estimator: Estimator) -> Self {
        Self { estimator, ..self }
    }

    /// The same with a memory of the tokens by which answers go on; without one each such call is a new chat.
    pub fn with_continuations(self, continuations: Arc<dyn Continuations>) -> Self {
        Self { continuations: Some(continuations), ..self }
    }

    /// The same with rates; without them each call of a plan that has any is refused.
    pub fn with_rates(self, rates: Arc<dyn RateStore>) -> Self {
        Self { rates: Some(rates), ..self }
    }

    /// The gateway answered a request itself.
    pub fn refused(&self, refusal: &Refusal) {
        for sink in &self.sinks {
            sink.refused(refusal);
        }
    }

    /// Tells everyone who wants to hear that a client met a bound and was cut without a word.
    pub fn cut(&self, bound: Bound) {
        for sink in &self.sinks {
            sink.cut(bound);
        }
    }

    /// The tokens of a call whose provider did not say what it charged.
    pub(super) async fn estimate(&self, input: EstimateInput) -> Tokens {
        let Estimate { tokens, by } = self.estimator.run(input).await;
        for sink in &self.sinks {
            sink.estimated(by);
        }
        tokens
    }

    /// The most tokens that an answer of this model may have, where that is known.
    pub(super) fn output_max(&self, provider: &ProviderId, model: &str) -> Option<u64> {
        self.snapshots.output_max(provider, model)
    }

    /// Whether a model charges audio by its length, by the prices of the caller's plan.
    pub(super) fn is_by_length(&self, caller: &Caller, provider: &'static dyn Provider, model: &str) -> bool {
        let (provider, at) = (provider.id(), self.clock.now());
        let named = Named { provider: provider.as_str(), answered: model, requested: model };
        let audio = Quantities { audio_ms: 1, ..Quantities::default() };
        let used = Used { quantities: audio, ..Used::default() };
        let tariff = self.snapshots.load().tariff(&caller.account.tenant.plan);
        tariff.charge(named, ServiceTier::Standard, used, at).charge.priced == Priced::Priced
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
        // Its request goes out with the key that the caller has by now, whatever becomes of that while the hold is taken.
        let own_account = caller.has_own_account(provider);
        // What goes on with an answer was counted with its begin.
        let goes_on = self.goes_on(&caller.account.tenant.id, call.continues.as_deref(), id).await;
        let kind = if goes_on.is_some() { Kind::Billed } else { endpoint.kind };
        match self.hold(caller, id, (kind, provider, &endpoint, &call), admitted_at).await {
            Ok(taken) => self.own((id, admitted_at, goes_on, own_account), taken, provider, endpoint, call).await,
            Err(refusal) => {
                if let Some(goes_on) = goes_on {
                    goes_on.give_back().await;
                }
                Err(refusal)
            }
        }
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
        let own_account = caller.has_own_account(provider);
        let held = Held { counters: &*self.counters, id, claims: Vec::new() };
        let tariff = self.snapshots.load().tariff(&caller.account.tenant.plan);
        let (permit, overrun) = (None, None);
        let taken = Taken { caller, tariff, held, permit, overrun, limits: Vec::new(), written: None, held_tokens: 0 };
        self.own((id, admitted_at, None, own_account), taken, provider, endpoint, call).await
    }

    /// The call that owns what is held for it.
    async fn own(
        self: &Arc<Self>,
        (id, admitted_at, goes_on, own_account): (EventId, Micros, Option<Continued>, bool),
        Taken { caller, tariff, mut held, permit, overrun, limits, written, held_tokens }: Taken<'_>,
        provider: &'static dyn Provider,
        endpoint: Endpoint,
        call: Call,
    ) -> Result<InFlight, Refusal> {
        let started_us = self.clock.monotonic_us();
        let event = pending(id, admitted_at, (caller, &held.claims), (provider, &endpoint, &call), &tariff);
        let slot = self.journal.admit(&event).map_err(|_| Refusal::JournalFull)?;
        let position = slot.position;
        let (meter, progress) = (self.clone(), Progress::default());
        let claims = std::mem::take(&mut held.claims);
        let in_flight = InFlight::new(Open {
            meter,
            slot,
            claims,
            permit,
            overrun,
            limits,
            written,
            held_tokens,
            provider,
            endpoint,
            call,
            own_account,
            goes_on,
            tariff,
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

    async fn goes_on(&self, tenant: &TenantId, token: Option<&str>, id: EventId) -> Option<Continued> {
        Continued::take(self.continuations.as_ref()?, tenant, token?, id).await
    }

    /// Lets the tenant go on with an answer, without another chat.
    pub(super) async fn lets_go_on(&self, tenant: &TenantId, token: &str) {
        if let Some(known) = &self.continuations {
            known.issue(tenant, token_hash(token)).await;
        }
    }

    /// Takes what the call needs from the counters, for the caller as it is by the newest revision that anybody knows.
    async fn hold(
        &self,
        mut caller: Caller,
        id: EventId,
        (kind, provider, endpoint, call): (Kind, &'static dyn Provider, &Endpoint, &Call),
        at: Micros,
    ) -> Result<Taken<'_>, Refusal> {
        let mut permit: Option<Permit> = None;
        for _ in 0..CHANGES_MAX {
            may_use(&caller, &call.model)?;
            let plan = plan_of(&caller.account)?;
            // The hold is sized and the call is billed by these prices, whatever comes into force while it waits.
            let tariff = self.snapshots.load().tariff(&plan.name);
            let ask = Ask { caller: &caller, plan, tariff: &tariff, kind, at };
            let quote = ask.quote((provider, endpoint, call), &self.snapshots)?;
            let tokens = quote.map_or(0, |quote| quote.tokens());
            permit = match permit.take().filter(|permit| permit.is_for(&caller, plan)) {
                Some(permit) => Some(permit),
                None => Permit::take(self.rates.as_ref(), &*self.clock, (&caller, plan), tokens).await?,
            };
            if let Some((claims, limits, quote)) = self.take(id, &ask, quote).await? {
                // What was held is given back should anything fail before the call owns it.
                let is_cut = call.stream && plan.budget.on_overrun == OnOverrun::Cut;
                let overrun = quote.filter(|_| is_cut).and_then(|quote| Overrun::of(quote, &claims));
                let held = Held { counters: &*self.counters, id, claims };
                let written = quote.and_then(|quote| quote.written());
                let held_tokens = quote.map_or(0, |quote| quote.tokens());
                return Ok(Taken { caller, tariff, held, permit, overrun, limits, written, held_tokens });
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

    /// Takes it in one size after the other, if the plan lets it be lowered. `None`: the tenant was changed meanwhile.
    async fn take(
        &self,
        id: EventId,
        ask: &Ask<'_>,
        mut quote: Option<Quote>,
    ) -> Result<Option<(Vec<Claim>, Vec<LimitStanding>, Option<Quote>)>, Refusal> {
        let Ask { plan, caller, .. } = ask;
        let terms = Terms { revision: caller.account.revision, on_counters_down: plan.on_counters_down };
        let is_lowered = plan.budget.when_short == WhenShort::Clamp;
        for tries_left in (0..SIZES_MAX).rev() {
            let claims = ask.claims(quote.as_ref());
            let (refused, standing) = match self.counters.hold(id, &claims, terms).await {
                Ok(HoldOutcome::Held(standings)) => {
                    let limits = limit_standings(&caller.account, plan, &claims, &standings);
                    return Ok(Some((claims, limits, quote)));
                }
                Ok(HoldOutcome::Refused { claim, standing }) => (claim, standing),
                Ok(HoldOutcome::Changed) => return Ok(None),
                Err(error) => {
                    debug!(%error, "A call is refused: the counters cannot be asked.");
                    return Err(Refusal::CountersDown);
                }
            };
            let claim = claims.get(refused);
            let is_chats = claim.is_none_or(|claim| claim.counter.metric == Metric::Chats);
            let is_only_one = claims.iter().filter(|claim| claim.max.is_some()).count() < 2;
            if is_chats || (is_only_one && !is_lowered) {
                return Err(ask.refusal(claim, standing));
            }
            // One claim does not fit; what becomes of the call hangs on all of them, where they can be read.
            let Some(standings) = self.read(&claims).await else { return Err(ask.refusal(claim, standing)) };
            let lower = quote.filter(|_| is_lowered).and_then(|quote| quote.lowered(&claims, &standings));
            if tries_left > 0 && lower.is_some() {
                quote = lower;
                continue;
            }
            let judged = if is_lowered { ask.claims(quote.map(|quote| quote.least()).as_ref()) } else { claims };
            return Err(ask.refusal_of_all(&judged, &standings, refused));
        }
        Err(Refusal::CountersDown)
    }

    pub(super) async fn read(&self, claims: &[Claim]) -> Option<Vec<Standing>> {
        let counters: Vec<CounterKey> = claims.iter().map(|claim| claim.counter.clone()).collect();
        self.counters.read(&counters).await.ok()
    }

    /// How the tenant's limits stand, for answers that need no admission. Empty for an unlimited account.
    pub async fn standings(&self, account: &Arc<Account>) -> Vec<LimitStanding> {
        let Ok(plan) = plan_of(account) else { return Vec::new() };
        let caller = Caller { account: account.clone(), key: None, user_id: None, kb_id: None };
        let (limits, counters): (Vec<Limit>, Vec<CounterKey>) = budget::limits(&caller, plan, self.clock.now())
            .filter(|(limit, _)| limit.scope == Scope::Tenant)
            .map(|(limit, counter)| (*limit, counter))
            .unzip();
        if limits.is_empty() {
            return Vec::new();
        }
        let Ok(standings) = self.counters.read(&counters).await else { return Vec::new() };
        let rows = limits.into_iter().zip(counters).zip(standings);
        rows.map(|((limit, counter), standing)| LimitStanding::of(account, limit, counter.period, standing)).collect()
    }

    /// Whether a chat with `model` (`None`: not known yet) could be admitted now, by what the counters say. Nothing is
    /// held: a session that begins takes nothing until its first turn.
    pub async fn could_admit(
        &self,
        caller: &Caller,
        (provider, endpoint): (&'static dyn Provider, &Endpoint),
        model: Option<&str>,
    ) -> Result<(), Refusal> {
        model.map_or(Ok(()), |model| may_use(caller, model))?;
        // How large its turns will be nobody knows: a limit only has to have something left.
        let call = model.map(|model| Call::new(model.to_owned(), Prompt::TextBytes(1)));
        self.has_room((caller, Kind::Chat), (provider, endpoint), call.as_ref(), Quote::smallest).await
    }

    /// The same for what the provider of a session may charge beside its turns, which is no chat: by all of `call`.
    pub async fn could_charge(
        &self,
        caller: &Caller,
        (provider, endpoint): (&'static dyn Provider, &Endpoint),
        call: &Call,
    ) -> Result<(), Refusal> {
        self.has_room((caller, Kind::Billed), (provider, endpoint), Some(call), |quote| *quote).await
    }

    /// Takes room of the limits for what goes on and is charged while it does, beside what its call holds, in the periods of
    /// the time at which that was admitted. `None`: the tenant was changed, and is to be looked up first.
    pub(super) async fn take_room(
        self: &Arc<Self>,
        (caller, admitted_at): (&Caller, Option<Micros>),
        (provider, endpoint): (&'static dyn Provider, &Endpoint),
        call: &Call,
    ) -> Result<Option<Room>, Refusal> {
        let plan = plan_of(&caller.account)?;
        let tariff = self.snapshots.load().tariff(&plan.name);
        let at = admitted_at.unwrap_or_else(|| self.clock.now());
        let ask = Ask { caller, plan, tariff: &tariff, kind: Kind::Billed, at };
        let mut room = Room { meter: self.clone(), id: self.clock.event_id(), claims: Vec::new() };
        let Some(quote) = ask.quote((provider, endpoint, call), &self.snapshots)? else { return Ok(Some(room)) };
        let taken = self.take(room.id, &ask, Some(quote)).await?;
        Ok(taken.map(|(claims, ..)| {
            room.claims = claims;
            room
        }))
    }

    async fn has_room(
        &self,
        (caller, kind): (&Caller, Kind),
        (provider, endpoint): (&'static dyn Provider, &Endpoint),
        call: Option<&Call>,
        sized: fn(&Quote) -> Quote,
    ) -> Result<(), Refusal> {
        let plan = plan_of(&caller.account)?;
        if plan.limits.is_empty() {
            return Ok(());
        }
        let tariff = self.snapshots.load().tariff(&plan.name);
        let ask = Ask { caller, plan, tariff: &tariff, kind, at: self.clock.now() };
        let quote = match call {
            Some(call) => ask.quote((provider, endpoint, call), &self.snapshots)?,
            None => None,
        };
        let claims = ask.claims(quote.as_ref().map(sized).as_ref());
        // Where they cannot be asked, the first turn meets that.
        let Some(standings) = self.read(&claims).await else { return Ok(()) };
        let full = |(_, (claim, standing)): &(usize, (&Claim, &Standing))| {
            claim.max.is_some_and(|max| standing.remaining(max) < claim.amount)
        };
        match claims.iter().zip(&standings).enumerate().find(full) {
            Some((refused, _)) => Err(ask.refusal_of_all(&claims, &standings, refused)),
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

/// What was taken for a call.
struct Taken<'a> {
    caller: Caller,
    /// The prices that it was sized by.
    tariff: Arc<Tariff>,
    held: Held<'a>,
    permit: Option<Permit>,
    overrun: Option<Overrun>,
    limits: Vec<LimitStanding>,
    written: Written,
    /// Input and output that it was taken for.
    held_tokens: u64,
}

/// Room that was taken ahead of what will be charged. It is given back when it is dropped.
#[must_use = "room is given back when it is dropped"]
pub(super) struct Room {
    meter: Arc<Meter>,
    id: EventId,
    claims: Vec<Claim>,
}

impl Drop for Room {
    fn drop(&mut self) {
        if !self.claims.is_empty() {
            self.meter.counters.settle(self.id, &self.claims, &[]);
        }
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

#[cfg(test)]
mod tests;
