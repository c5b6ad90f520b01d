//! One admitted call, from admission to settlement.
//!
//! Whatever happens to the exchange that owns it, an [`InFlight`] settles exactly once: [`InFlight::settle`] consumes it,
//! and dropping it (shutdown, a panic, a cancelled task) settles it as interrupted.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::event::{Outcome, UsageEvent, UsageSource};
use crate::domain::ids::{EventId, KeyId};
use crate::domain::money::PicoUsd;
use crate::domain::plan::{Limit, Standing};
use crate::domain::price::{Charge, PriceBook, Priced, ServiceTier};
use crate::domain::settlement::{Basis, Ending, Verdict, verdict};
use crate::domain::time::{Micros, Period};
use crate::domain::tokens::Tokens;
use crate::ports::counters::Claim;
use crate::ports::journal::Slot;
use crate::providers::estimate::{self, EstimateInput};
use crate::providers::{AnswerReader, Call, Endpoint, Provider, Reading};

use super::meter::Meter;
use super::snapshot::Account;

/// Who calls, on whose behalf.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The tenant and its plan.
    pub account: Arc<Account>,
    /// The key that was presented; `None` for a dev tenant.
    pub key: Option<KeyId>,
    /// `x-tollgate-user-id`.
    pub user_id: Option<Box<str>>,
    /// `x-tollgate-kb-id`.
    pub kb_id: Option<Box<str>>,
}

/// One limit of the caller's plan as it stands with this call in it.
#[derive(Debug, Clone, Copy)]
pub struct LimitStanding {
    /// The limit.
    pub limit: Limit,
    /// The window.
    pub period: Period,
    /// What is used and held.
    pub standing: Standing,
}

/// A call that was admitted: it owns a hold and a place in the journal.
#[must_use = "an admitted call settles as interrupted when it is dropped"]
pub struct InFlight {
    open: Option<Box<Open>>,
}

/// All that settling needs, owned from admission on: settling cannot fail.
pub(super) struct Open {
    pub meter: Arc<Meter>,
    pub slot: Slot,
    pub claims: Vec<Claim>,
    pub limits: Vec<LimitStanding>,
    pub provider: &'static dyn Provider,
    pub endpoint: Endpoint,
    pub call: Call,
    pub prices: Arc<PriceBook>,
    pub started_us: u64,
    /// As it stands if nothing else is heard of the call; settling makes the final one of it.
    pub event: UsageEvent,
    pub progress: Progress,
}

/// What is known of the exchange so far.
#[derive(Default)]
pub(super) struct Progress {
    sent: bool,
    status: u16,
    reader: Option<Box<dyn AnswerReader>>,
    request_id: Option<Box<str>>,
    first_byte_us: Option<u64>,
    upstream_us: u64,
    sent_us: Option<u64>,
    /// Set when settlement began, so that a drop in the middle of it books the true ending.
    ending: Option<Ending>,
}

impl InFlight {
    pub(super) fn new(open: Open) -> Self {
        Self { open: Some(Box::new(open)) }
    }

    /// The event's id.
    pub fn id(&self) -> Option<EventId> {
        self.open.as_ref().map(|open| open.event.id)
    }

    /// The limits of the caller's plan that this call counts against, itself included.
    pub fn limits(&self) -> &[LimitStanding] {
        self.open.as_ref().map_or(&[], |open| &open.limits)
    }

    /// Whether the answer will carry one usage event that the client did not ask for.
    pub fn takes_out_usage(&self) -> bool {
        self.open.as_ref().is_some_and(|open| !open.call.edits.is_empty())
    }

    /// Whether the client asked for a stream.
    pub fn is_stream(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.call.stream)
    }

    /// The request begins to go out: from here on the provider may charge.
    pub fn sending(&mut self) {
        if let Some(open) = &mut self.open {
            open.progress.sent = true;
            open.progress.sent_us = Some(open.meter.monotonic_us());
        }
    }

    /// The head of the answer came.
    pub fn head(&mut self, status: u16, content_type: Option<&str>, request_id: Option<&str>) {
        let Some(open) = &mut self.open else { return };
        let now = open.meter.monotonic_us();
        let progress = &mut open.progress;
        progress.status = status;
        progress.first_byte_us = Some(now.saturating_sub(open.started_us));
        progress.upstream_us = now.saturating_sub(progress.sent_us.unwrap_or(now));
        progress.request_id =
            request_id.map(|id| id.chars().filter(|c| c.is_ascii_graphic()).take(REQUEST_ID_CHARS_MAX).collect());
        progress.reader = Some(open.provider.reader(&open.endpoint, &open.call, content_type));
    }

    /// The next bytes of an answer in identity coding: pushes onto `out` what the client is to get.
    pub fn pass(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) {
        match self.reader() {
            Some(reader) => reader.pass(chunk, out),
            None => out.push(chunk),
        }
    }

    /// The next decoded bytes of an answer that is relayed in another coding.
    pub fn look(&mut self, decoded: &[u8]) {
        if let Some(reader) = self.reader() {
            reader.look(decoded);
        }
    }

    /// The answer is over: pushes what was held back.
    pub fn flush(&mut self, out: &mut Vec<Bytes>) {
        if let Some(reader) = self.reader() {
            reader.flush(out);
        }
    }

    /// Whether the answer said that it is complete.
    pub fn is_complete(&self) -> bool {
        self.open.as_ref().and_then(|open| open.progress.reader.as_ref()).is_some_and(|reader| reader.is_complete())
    }

    /// Books the call. Waits only where tokens must be estimated, which happens off this thread.
    pub async fn settle(mut self, ending: Ending) {
        let Some(open) = &mut self.open else { return };
        open.progress.ending = Some(ending);
        let reading = open.reading();
        let estimate = match open.estimate_input(verdict(ending), &reading) {
            Some(input) => Some(open.meter.estimator.run(input).await),
            None => None,
        };
        if let Some(open) = self.open.take() {
            let journal = open.meter.journal.clone();
            let position = open.close(ending, reading, estimate);
            journal.durable(position).await;
        }
    }

    /// Books a call that had no answer; `status` is what the client gets instead.
    pub async fn settle_unanswered(mut self, status: u16) {
        if let Some(open) = &mut self.open {
            open.progress.status = status;
        }
        self.settle(Ending::NoHead).await;
    }

    fn reader(&mut self) -> Option<&mut Box<dyn AnswerReader>> {
        self.open.as_mut().and_then(|open| open.progress.reader.as_mut())
    }
}

/// Longer request ids of a provider are cut: the ledger's rows are bounded.
const REQUEST_ID_CHARS_MAX: usize = 128;

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            open.interrupted();
        }
    }
}

impl Open {
    fn reading(&mut self) -> Reading {
        self.progress.reader.as_mut().map(|reader| reader.reading()).unwrap_or_default()
    }

    fn estimate_input(&self, verdict: Verdict, reading: &Reading) -> Option<EstimateInput> {
        let needed = verdict.basis == Basis::ReportedOrEstimate && reading.tokens.is_none();
        needed.then(|| EstimateInput {
            provider: self.provider.id(),
            model: self.call.model.clone(),
            prompt: self.call.prompt.clone(),
            output: reading.output.clone(),
            output_bytes: reading.output_bytes,
        })
    }

    fn interrupted(mut self: Box<Self>) {
        let ending = self.progress.ending.unwrap_or(Ending::Dropped { sent: self.progress.sent });
        let reading = self.reading();
        // A drop may happen on any thread at any time: only the cheap estimate is allowed here.
        let estimate = self.estimate_input(verdict(ending), &reading).map(|input| estimate::by_bytes(&input));
        self.close(ending, reading, estimate);
    }

    /// Gives back or keeps the chat and hands the event to the journal. Gives its position there.
    fn close(self: Box<Self>, ending: Ending, reading: Reading, estimate: Option<Tokens>) -> u64 {
        let Self { meter, slot, claims, prices, started_us, mut event, progress, .. } = *self;
        let verdict = verdict(ending);
        let used: Vec<u64> = claims.iter().map(|claim| if verdict.chat_kept { claim.amount } else { 0 }).collect();
        meter.counters.settle(event.id, &claims, &used);

        (event.tokens, event.source) = match (verdict.basis, reading.tokens, estimate) {
            (Basis::Nothing, _, _) => (Tokens::default(), UsageSource::Provider),
            (Basis::ReportedOrEstimate, Some(reported), _) => (reported, UsageSource::Provider),
            (Basis::ReportedOrEstimate, None, estimate) => (estimate.unwrap_or_default(), UsageSource::Estimate),
        };
        if let Some(model) = reading.model.filter(|model| !model.is_empty()) {
            event.model = bounded(model);
        }
        let charge = match verdict.basis {
            Basis::Nothing => Charge { cost: Some(PicoUsd::ZERO), priced: Priced::Free },
            Basis::ReportedOrEstimate => charge(&prices, &event, reading.tier),
        };
        (event.cost, event.priced) = (charge.cost, charge.priced);
        event.chats = used.first().copied().unwrap_or(0);
        event.service_tier = reading.tier;
        event.duration_us = meter.monotonic_us().saturating_sub(started_us);
        event.first_byte_us = progress.first_byte_us;
        event.overhead_us = progress.first_byte_us.map_or(0, |first| first.saturating_sub(progress.upstream_us));
        event.status = progress.status;
        event.outcome = verdict.outcome;
        event.request_id = progress.request_id;
        meter.journal.settle(slot, &event)
    }
}

fn charge(prices: &PriceBook, event: &UsageEvent, tier: ServiceTier) -> Charge {
    prices.charge(event.provider.as_str(), &event.model, tier, &event.tokens, event.requested_at)
}

/// The event of a call that was just admitted, as it stands if nothing else is ever heard of it: the prompt estimated,
/// no answer, and the chat counted, since the provider may have seen the request.
pub(super) fn pending(
    id: EventId,
    admitted_at: Micros,
    (caller, claims): (Caller, &[Claim]),
    (provider, endpoint, call): (&'static dyn Provider, &Endpoint, &Call),
    prices: &PriceBook,
) -> UsageEvent {
    let mut event = UsageEvent {
        id,
        tenant: caller.account.tenant.id.clone(),
        key: caller.key,
        user_id: caller.user_id,
        kb_id: caller.kb_id,
        provider: provider.id(),
        model: bounded(call.model.clone()),
        requested_model: bounded(call.model.clone()),
        endpoint: endpoint.name.into(),
        chats: claims.first().map_or(0, |claim| claim.amount),
        tokens: estimate::of_prompt(&call.prompt),
        source: UsageSource::Estimate,
        cost: None,
        priced: Priced::Unpriced,
        price_version: prices.version(),
        service_tier: ServiceTier::default(),
        requested_at: admitted_at,
        duration_us: 0,
        first_byte_us: None,
        overhead_us: 0,
        status: 0,
        outcome: Outcome::Interrupted,
        request_id: None,
    };
    let charge = charge(prices, &event, event.service_tier);
    (event.cost, event.priced) = (charge.cost, charge.priced);
    event
}

/// Longer model names are cut: they come from outside, and the ledger's rows are bounded.
const MODEL_BYTES_MAX: usize = 200;

fn bounded(mut name: String) -> Box<str> {
    if name.len() > MODEL_BYTES_MAX {
        let end = (0..=MODEL_BYTES_MAX).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
        name.truncate(end);
    }
    name.into_boxed_str()
}
