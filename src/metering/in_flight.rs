//! One admitted call, from admission to settlement.
//!
//! Whatever happens to the exchange that owns it, an [`InFlight`] settles exactly once: [`InFlight::settle`] consumes it,
//! and dropping it (shutdown, a panic, a cancelled task) settles it as interrupted. [`verdict`] says who pays then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use tracing::{error, warn};

use crate::domain::event::{Outcome, UsageEvent, UsageSource};
use crate::domain::ids::EventId;
use crate::domain::key::Key;
use crate::domain::plan::{Limit, Metric, Standing, Subject};
use crate::domain::price::rates::Used;
use crate::domain::price::tariff::{Charged, Tariff};
use crate::domain::price::{Charge, Priced, ServiceTier};
use crate::domain::quantities::Quantities;
use crate::domain::settlement::{Basis, Ending, Phase, Verdict, verdict};
use crate::domain::time::{Micros, Period};
use crate::domain::tokens::{TOKENS_PER_CALL_MAX, Tokens};
use crate::domain::unit::Unit;
use crate::ports::counters::{Claim, used_by};
use crate::ports::journal::Slot;
use crate::providers::estimate::{self, EstimateInput};
use crate::providers::{AnswerReader, Call, Edit, Endpoint, Prompt, Provider, Reading, Shortener};

use super::continued::Continued;
use super::deferred::delivered_tokens;
use super::meter::Meter;
use super::overrun::Overrun;
use super::rates::{Permit, RateRoom};
use super::snapshot::Account;

/// Who calls, on whose behalf.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The tenant and its plan.
    pub account: Arc<Account>,
    /// The key that was presented; `None` for a dev tenant.
    pub key: Option<Arc<Key>>,
    /// `x-tollgate-user-id`.
    pub user_id: Option<Box<str>>,
    /// `x-tollgate-kb-id`.
    pub kb_id: Option<Box<str>>,
}

impl Caller {
    /// Whether its calls go out with a key of the tenant's own.
    pub fn has_own_account(&self, provider: &'static dyn Provider) -> bool {
        self.account.has_own_key(&provider.id())
    }
}

/// One limit of the caller's plan as it stands with this call in it.
#[derive(Debug, Clone, Copy)]
pub struct LimitStanding {
    /// The limit.
    pub limit: Limit,
    /// The window.
    pub period: Period,
    /// When it began and when it ends, by the tenant's clock.
    pub bounds: [Micros; 2],
    /// What is used and held.
    pub standing: Standing,
}

impl LimitStanding {
    /// The limit of an account as it stands in a window.
    pub(super) fn of(account: &Account, limit: Limit, period: Period, standing: Standing) -> Self {
        let zone = &account.tenant.zone;
        Self { limit, period, bounds: [zone.start(period), zone.end(period)], standing }
    }
}

/// A call that was admitted: it owns a hold and a place in the journal.
#[must_use = "an admitted call settles as interrupted when it is dropped"]
pub struct InFlight {
    pub(super) open: Option<Box<Open>>,
}

/// All that settling needs, owned from admission on: settling cannot fail.
pub(super) struct Open {
    pub meter: Arc<Meter>,
    pub slot: Slot,
    pub claims: Vec<Claim>,
    pub permit: Option<Permit>,
    pub overrun: Option<Overrun>,
    pub limits: Vec<LimitStanding>,
    /// The most tokens of one answer that the hold follows from, where the request has to say so.
    pub written: Option<u64>,
    /// The tokens that the hold is for, input and output; 0 where nothing counts them.
    pub held_tokens: u64,
    pub provider: &'static dyn Provider,
    pub endpoint: Endpoint,
    pub call: Call,
    /// Its tenant's own key opens the provider for it.
    pub own_account: bool,
    /// It goes on with an earlier answer, and was counted with that.
    pub goes_on: Option<Continued>,
    pub tariff: Arc<Tariff>,
    pub started_us: u64,
    /// As it stands if nothing else is heard of the call; settling makes the final one of it.
    pub event: UsageEvent,
    pub progress: Progress,
}

/// What is known of the exchange so far.
#[derive(Default)]
pub(super) struct Progress {
    phase: Phase,
    status: u16,
    reader: Option<Box<dyn AnswerReader>>,
    request_id: Option<Box<str>>,
    first_byte_us: Option<u64>,
    upstream_us: u64,
    sent_us: Option<u64>,
    /// It is charged by how long it lasts.
    by_time: bool,
    /// The gateway ended the answer, as nothing was left.
    cut: bool,
    /// Set when settlement began, so that a drop in the middle of it books the true ending.
    ending: Option<Ending>,
    /// What the reader said at the end, once it was asked: it is asked once.
    reading: Option<Reading>,
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

    /// The rates a minute of the tenant that this call takes from, itself included.
    pub fn rates(&self) -> Vec<RateRoom> {
        let permit = self.open.as_ref().and_then(|open| open.permit.as_ref());
        permit.map_or_else(Vec::new, Permit::rooms)
    }

    /// Whether the answer will carry one usage event that the client did not ask for.
    pub fn takes_out_usage(&self) -> bool {
        self.open.as_ref().is_some_and(|open| !open.call.edits.is_empty())
    }

    /// All edits of the request body, in ascending order.
    pub fn edits(&self) -> Vec<Edit> {
        let Some(open) = &self.open else { return Vec::new() };
        let Call { edits, cap, .. } = &open.call;
        let cap = open.written.zip(cap.as_ref()).into_iter().flat_map(|(max, cap)| cap.edits(max));
        let mut all: Vec<Edit> = edits.iter().cloned().chain(cap).collect();
        all.sort_by_key(|edit| edit.range.start);
        all
    }

    /// Whether the client asked for a stream.
    pub fn is_stream(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.call.stream)
    }

    /// The model that is asked for, where it was met only after admission: a form may name it behind its files.
    pub fn asks_for(&mut self, model: Option<&str>) {
        if let (Some(open), Some(model)) = (&mut self.open, model)
            && open.call.model.is_empty()
        {
            open.call.model = model.to_owned();
            open.event.model = bounded(model.to_owned());
            open.event.requested_model = open.event.model.clone();
        }
    }

    /// What the call was made with, where its length was not known at admission.
    pub fn asked_with(&mut self, prompt: Prompt) {
        if let Some(open) = &mut self.open {
            open.call.prompt = prompt;
        }
    }

    /// The request begins to go out: from here on the provider may charge.
    pub fn sending(&mut self) {
        if let Some(open) = &mut self.open {
            open.progress.phase = Phase::Sent;
            open.progress.sent_us = Some(open.meter.monotonic_us());
        }
    }

    /// The head of the answer came.
    pub fn head(&mut self, status: u16, content_type: Option<&str>, request_id: Option<&str>) {
        let Some(open) = &mut self.open else { return };
        let reader = open.provider.reader(&open.endpoint, &open.call, content_type);
        open.answered(status, request_id, reader);
    }

    /// A turn of a session begins to be answered; `reader` reads it. Its session's head is long past, and was a 101 with
    /// this id of the provider's.
    pub fn begins(&mut self, reader: Box<dyn AnswerReader>, request_id: Option<&str>) {
        if let Some(open) = &mut self.open {
            open.answered(SWITCHED, request_id, reader);
        }
    }

    /// What a turn of a session asks grows until it is answered.
    pub fn asks_more(&mut self, prompt_bytes: u64) {
        if let Some(open) = &mut self.open
            && let Prompt::TextBytes(bytes) = &mut open.call.prompt
        {
            *bytes = bytes.saturating_add(prompt_bytes);
            open.event.tokens = estimate::of_prompt(&open.call.prompt);
        }
    }

    /// The same by audio that is charged by its length.
    pub fn hears_more(&mut self, audio_ms: u64) {
        if let Some(open) = &mut self.open {
            let quantities = &mut open.call.quantities;
            quantities.audio_ms = quantities.audio_ms.saturating_add(audio_ms);
            open.event.quantities = quantities.checked().unwrap_or(open.event.quantities);
            open.event.tokens = Tokens::default();
        }
    }

    /// When it was admitted: by that it is counted in its periods.
    pub fn admitted_at(&self) -> Option<Micros> {
        self.open.as_ref().map(|open| open.event.requested_at)
    }

    /// A turn of a session, which has just begun, is charged by how long it lasts: by the clock, where its provider does not
    /// say that at its end.
    pub fn lasts(&mut self) {
        if let Some(open) = &mut self.open {
            open.progress.by_time = true;
        }
    }

    /// A turn of a session failed, and its provider bills nothing for it.
    pub fn fails(&mut self) {
        if let Some(open) = &mut self.open {
            open.progress.phase = Phase::Failed;
        }
    }

    /// Books a turn of a session that ended before the turn was begun: no provider bills what it did not answer.
    pub async fn settle_unbegun(mut self, ending: Ending) {
        if let Some(open) = &mut self.open {
            open.progress.status = SWITCHED;
            open.progress.phase = Phase::Unbilled;
        }
        self.settle(ending).await;
    }

    /// The next bytes of an answer in identity coding: pushes onto `out` what the client is to get.
    pub fn pass(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) {
        match self.reader_of_piece() {
            Some(reader) => reader.pass(chunk, out),
            None => out.push(chunk),
        }
    }

    /// The next decoded bytes of an answer that is relayed in another coding.
    pub fn look(&mut self, decoded: &[u8]) {
        if let Some(reader) = self.reader_of_piece() {
            reader.look(decoded);
        }
    }

    /// The answer is over: pushes what was held back.
    pub fn flush(&mut self, out: &mut Vec<Bytes>) {
        if let Some(reader) = self.reader() {
            reader.flush(out);
        }
    }

    /// Whether the answer is longer by now than what is known to be there for it.
    pub fn is_over_hold(&self) -> bool {
        let Some(Open { overrun: Some(overrun), progress, .. }) = self.open.as_deref() else { return false };
        progress.reader.as_ref().is_some_and(|reader| overrun.is_passed_by(reader.delivered_tokens()))
    }

    /// Whether such an answer may go on. Where nobody can be asked it may.
    pub async fn may_go_on(&mut self) -> bool {
        let Some(Open { meter, claims, overrun: Some(overrun), progress, .. }) = self.open.as_deref_mut() else {
            return true;
        };
        let output = progress.reader.as_ref().map_or(0, |reader| reader.delivered_tokens());
        let standings = meter.read(claims).await.unwrap_or_default();
        standings.len() != claims.len() || overrun.may_go_on(output, claims, &standings)
    }

    /// The gateway ends the answer here.
    pub fn cut(&mut self) {
        if let Some(open) = &mut self.open {
            open.progress.cut = true;
        }
    }

    /// How a stream of this answer ends where its output maximum is met; `None` where it has no such form.
    pub fn shortener(&self) -> Option<Shortener> {
        let open = self.open.as_ref()?;
        open.overrun.as_ref()?;
        // Who did not ask for usage is not asked for it: what was asked for in its place is taken out again.
        Shortener::of(open.endpoint.reads, open.call.answers, open.call.edits.is_empty())
    }

    /// Whether the answer said that it is complete.
    pub fn is_complete(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.is_complete())
    }

    /// Books the call, and says with which tokens. Waits only where tokens must be estimated, which happens off this thread.
    pub async fn settle(mut self, ending: Ending) -> Tokens {
        let Some(open) = &mut self.open else { return Tokens::default() };
        open.progress.ending = Some(ending);
        let verdict = open.judge(ending);
        let estimate = match open.estimate_input(verdict) {
            Some(input) => Some(open.meter.estimate(input).await),
            None => None,
        };
        if let Some(open) = &mut self.open {
            open.write_up(verdict, estimate);
            open.lets_go_on(verdict).await;
        }
        let mut booked = Tokens::default();
        if let Some(open) = self.open.take() {
            booked = open.event.tokens;
            let journal = open.meter.journal.clone();
            let position = open.hand_over();
            if !journal.durable(position).await {
                warn!("An answer ends before the disk has its event.");
            }
        }
        booked
    }

    /// Books a call that had no answer; `status` is what the client gets instead.
    pub async fn settle_unanswered(mut self, ending: Ending, status: u16) {
        if let Some(open) = &mut self.open {
            open.progress.status = status;
        }
        self.settle(ending).await;
    }

    fn reader_of_piece(&mut self) -> Option<&mut Box<dyn AnswerReader>> {
        if let Some(open) = &mut self.open {
            open.progress.phase = open.progress.phase.after_piece(false);
        }
        self.reader()
    }

    fn reader(&mut self) -> Option<&mut Box<dyn AnswerReader>> {
        self.open.as_mut().and_then(|open| open.progress.reader.as_mut())
    }
}

/// The status of a session's turns: it is what the client got when the session began.
const SWITCHED: u16 = 101;

/// Longer request ids of a provider are cut: the ledger's rows are bounded.
pub(super) const REQUEST_ID_CHARS_MAX: usize = 128;

impl Drop for InFlight {
    fn drop(&mut self) {
        let Some(open) = self.open.take() else { return };
        // This may run while a panic unwinds, and a second one that left it would end the process with all its calls.
        if guarded(|| open.interrupted()).is_none() {
            error!("A call could not be settled. The next start books it as it was admitted.");
        }
    }
}

/// What `work` gives, or nothing if it panics.
fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    // All that is looked at afterwards is replaced as a whole or not at all.
    catch_unwind(AssertUnwindSafe(work)).ok()
}

impl Open {
    fn answered(&mut self, status: u16, request_id: Option<&str>, reader: Box<dyn AnswerReader>) {
        let now = self.meter.monotonic_us();
        let progress = &mut self.progress;
        progress.status = status;
        progress.phase = Phase::at_head(status);
        progress.first_byte_us = Some(now.saturating_sub(self.started_us));
        progress.upstream_us = now.saturating_sub(progress.sent_us.unwrap_or(now));
        progress.request_id =
            request_id.map(|id| id.chars().filter(|c| c.is_ascii_graphic()).take(REQUEST_ID_CHARS_MAX).collect());
        progress.reader = Some(reader);
    }

    fn is_complete(&self) -> bool {
        self.progress.reader.as_ref().is_some_and(|reader| reader.is_complete())
    }

    /// Asks the reader how far the answer came and what it said, and gives the verdict.
    fn judge(&mut self, ending: Ending) -> Verdict {
        let Progress { phase, reader, reading, .. } = &mut self.progress;
        if let Some(reader) = reader.as_mut().filter(|_| reading.is_none()) {
            if reader.is_complete() {
                *phase = phase.after_piece(true);
            }
            *reading = Some(reader.reading());
        }
        verdict(*phase, ending)
    }

    fn estimate_input(&self, verdict: Verdict) -> Option<EstimateInput> {
        let reading = self.progress.reading.as_ref();
        let is_unknown = |said: &Reading| said.tokens.is_none() && said.deferred().is_none();
        let needed = verdict.basis == Basis::ReportedOrEstimate && reading.is_none_or(is_unknown);
        // What the request itself says is known, and all.
        let needed = needed && self.call.quantities.is_nothing() && !self.progress.by_time;
        needed.then(|| EstimateInput {
            provider: self.provider.id(),
            model: self.call.model.clone(),
            prompt: self.call.prompt.clone(),
            output: reading.map(|said| said.output.clone()).unwrap_or_default(),
            output_bytes: reading.map_or(0, |said| said.output_bytes),
            output_max: self.output_max(),
        })
    }

    /// The most tokens of output that were asked for, or that the model can give.
    fn output_max(&self) -> Option<u64> {
        let Call { model, output_max, answers, .. } = &self.call;
        let of_model = || Some(self.meter.output_max(&self.provider.id(), model)?.saturating_mul(*answers));
        output_max.or_else(of_model)
    }

    /// The least tokens, input and output, and output, of an answer of which a part was too long to be read: it cannot have
    /// cost less than its call held for all that we know.
    fn least_of_unread(&self) -> [u64; 2] {
        let is_unread = self.progress.reading.as_ref().is_some_and(|said| said.unread);
        let has_output = self.endpoint.reads.has_output();
        match (is_unread, has_output) {
            (false, _) => [0, 0],
            (true, false) => [self.held_tokens, 0],
            (true, true) => [self.held_tokens, self.output_max().unwrap_or(0).max(1)],
        }
    }

    /// How long a turn has lasted that is charged by that, unless its provider said so at its end.
    fn lasted_ms(&self) -> Option<u64> {
        let Progress { by_time, first_byte_us, reading, .. } = &self.progress;
        let is_sure = |said: &Reading| said.tokens.is_some() && !said.distrusted;
        let is_told = self.is_complete() && reading.as_ref().is_some_and(is_sure);
        let first_byte_us = first_byte_us.filter(|_| *by_time && !is_told)?;
        let begun_us = self.started_us.saturating_add(first_byte_us);
        Some(self.meter.monotonic_us().saturating_sub(begun_us).div_ceil(1_000))
    }

    /// Before the client has all of its answer: it may go on at once, and elsewhere.
    async fn lets_go_on(&mut self, verdict: Verdict) {
        if !verdict.chat_kept {
            if let Some(goes_on) = self.goes_on.take() {
                goes_on.give_back().await;
            }
            return;
        }
        self.keeps_on(verdict);
        if let Some(token) = self.progress.reading.as_mut().and_then(|said| said.continuation.take()) {
            self.meter.lets_go_on(&self.event.tenant, &token).await;
        }
    }

    /// What is billed has used its token.
    fn keeps_on(&mut self, verdict: Verdict) {
        if let Some(goes_on) = self.goes_on.take_if(|_| verdict.chat_kept) {
            goes_on.used();
        }
    }

    fn interrupted(mut self: Box<Self>) {
        let ending = self.progress.ending.unwrap_or(Ending::Dropped);
        // What panicked may have been the reader, and it may do it again: then it has said nothing.
        let verdict = guarded(|| self.judge(ending)).unwrap_or_else(|| verdict(self.progress.phase, ending));
        // A drop may happen on any thread at any time: only the cheap estimate is allowed here.
        let estimate = guarded(|| self.estimate_input(verdict).map(|input| estimate::by_bytes(&input)));
        self.keeps_on(verdict);
        // What is written up is in the event, also where the rest of it failed.
        guarded(|| self.write_up(verdict, estimate.flatten())).unwrap_or_default();
        self.hand_over();
    }

    /// Makes the final event of the pending one. The call still owns all that it needs to do this again.
    fn write_up(&mut self, verdict: Verdict, estimate: Option<Tokens>) {
        let (least, lasted_ms) = (self.least_of_unread(), self.lasted_ms());
        let Self { meter, claims, tariff, started_us, event, progress, call, endpoint, own_account, .. } = self;
        let reading = progress.reading.get_or_insert_default();
        // What the provider finishes later it charges later.
        let deferred = reading.deferred().filter(|_| verdict.basis == Basis::ReportedOrEstimate).cloned();
        event.outcome = match (&deferred, progress.cut) {
            (Some(_), _) => Outcome::Deferred,
            (None, true) => Outcome::BudgetCut,
            (None, false) => verdict.outcome,
        };
        let basis = if deferred.is_some() { Basis::Nothing } else { verdict.basis };
        if let Some(name) = deferred {
            // The prompt was estimated at admission. Writing up may happen twice.
            let prompt_tokens = event.unit.take().map_or(event.tokens.prompt, |unit| unit.prompt_tokens);
            let delivered_tokens = delivered_tokens(reading.output_bytes);
            let output_max = call.output_max.filter(|_| endpoint.reads.has_output());
            let own_account = *own_account;
            event.unit = Some(Box::new(Unit { name, prompt_tokens, delivered_tokens, output_max, own_account }));
        }
        event.chats = if verdict.chat_kept { chats_of(claims) } else { 0 };
        (event.tokens, event.source) = match (basis, reading.tokens, estimate) {
            (Basis::Nothing, _, _) => (Tokens::default(), UsageSource::Provider),
            (Basis::ReportedOrEstimate, Some(reported), _) if !reading.distrusted => (reported, UsageSource::Provider),
            (Basis::ReportedOrEstimate, reported, estimate) => {
                (reported.or(estimate).unwrap_or(event.tokens), UsageSource::Estimate)
            }
            // It was estimated at admission.
            (Basis::PromptEstimate, _, _) => (event.tokens, UsageSource::Estimate),
        };
        if basis == Basis::ReportedOrEstimate {
            event.tokens = raised(event.tokens, least);
        }
        event.quantities = match basis {
            Basis::Nothing => Quantities::default(),
            // What the request itself says was known at admission.
            Basis::ReportedOrEstimate if reading.tokens.is_none() && reading.quantities.is_nothing() => {
                event.quantities
            }
            Basis::ReportedOrEstimate => reading.quantities,
            Basis::PromptEstimate => event.quantities,
        };
        if let Some(lasted_ms) = lasted_ms.filter(|_| basis == Basis::ReportedOrEstimate) {
            lasts_at_least(event, lasted_ms);
        }
        if let Some(model) = reading.model.take().filter(|model| !model.is_empty()) {
            event.model = bounded(model);
        }
        event.service_tier = reading.tier;
        event.first_byte_us = progress.first_byte_us;
        event.overhead_us = progress.first_byte_us.map_or(0, |first| first.saturating_sub(progress.upstream_us));
        event.status = progress.status;
        event.request_id = progress.request_id.take().or(event.request_id.take());
        let charged = match basis {
            Basis::Nothing => Charged::FREE,
            Basis::ReportedOrEstimate if reading.uncounted => uncounted(charge(tariff, event), &event.used()),
            Basis::ReportedOrEstimate | Basis::PromptEstimate => charge(tariff, event),
        };
        put(event, charged);
        event.duration_us = meter.monotonic_us().saturating_sub(*started_us);
    }

    /// Gives back what is held, counts what was used and hands the event to the journal. Gives the event's position.
    fn hand_over(self: Box<Self>) -> u64 {
        let Self { meter, slot, claims, permit, event, .. } = *self;
        // Counters first: once the journal has the event, the recorder may book it, and a call that is booked is over for them
        // with what they know of it then.
        meter.counters.settle(event.id, &claims, &used_by(&event, meter.counting));
        let position = meter.journal.settle(slot, &event);
        if let Some(permit) = permit {
            permit.over(event.tokens.total());
        }
        position
    }
}

/// These tokens with at least so many, input and output, and so much output. What is missing is output where there is any.
fn raised(tokens: Tokens, [all, output]: [u64; 2]) -> Tokens {
    let missing = all.saturating_sub(tokens.total());
    let (prompt, completion) = if output > 0 { (0, missing) } else { (missing, 0) };
    let prompt = tokens.prompt.saturating_add(prompt).min(TOKENS_PER_CALL_MAX);
    let completion = tokens.completion.saturating_add(completion).max(output).min(TOKENS_PER_CALL_MAX - prompt);
    Tokens { prompt, completion, ..tokens }
}

/// What was told on the way is a part: nobody knows what was charged since then.
fn lasts_at_least(event: &mut UsageEvent, lasted_ms: u64) {
    let audio_ms = event.quantities.audio_ms.max(lasted_ms);
    let quantities = Quantities { audio_ms, ..event.quantities };
    event.quantities = quantities.checked().unwrap_or(event.quantities);
    (event.tokens, event.source) = (Tokens::default(), UsageSource::Estimate);
}

/// The chats that a call is.
fn chats_of(claims: &[Claim]) -> u64 {
    let is_chats = |claim: &&Claim| (claim.counter.metric, &claim.counter.subject) == (Metric::Chats, &Subject::Tenant);
    claims.iter().find(is_chats).map_or(0, |claim| claim.amount)
}

pub(super) fn charge(tariff: &Tariff, event: &UsageEvent) -> Charged {
    tariff.charge(event.named(), event.service_tier, event.used(), event.requested_at)
}

fn put(event: &mut UsageEvent, charged: Charged) {
    let Charged { charge, billable, is_own: _ } = charged;
    (event.cost, event.billable, event.priced) = (charge.cost, billable, charge.priced);
}

/// Something was charged that no count says: beside what was counted the cost is known in part, else it is not known.
pub(super) fn uncounted(charged: Charged, used: &Used) -> Charged {
    let Charged { charge, .. } = charged;
    match charge.priced {
        Priced::Priced | Priced::Incomplete if used.is_nothing() => {
            let charge = Charge { cost: None, priced: Priced::Unpriced };
            Charged { charge, billable: None, ..charged }
        }
        Priced::Priced => Charged { charge: Charge { priced: Priced::Incomplete, ..charge }, ..charged },
        Priced::Free | Priced::Unpriced | Priced::Incomplete => charged,
    }
}

/// The event of a call that was just admitted, as it stands if nothing else is ever heard of it: the prompt estimated,
/// no answer, and the chat counted, since the provider may have seen the request: the matrix's row of killed calls.
pub(super) fn pending(
    id: EventId,
    admitted_at: Micros,
    (caller, claims): (Caller, &[Claim]),
    (provider, endpoint, call): (&'static dyn Provider, &Endpoint, &Call),
    tariff: &Tariff,
) -> UsageEvent {
    let verdict = verdict(Phase::Admitted, Ending::Killed);
    let quantities = call.quantities.checked().unwrap_or_default();
    let mut event = UsageEvent {
        id,
        tenant: caller.account.tenant.id.clone(),
        key: caller.key.map(|key| key.id.clone()),
        user_id: caller.user_id,
        kb_id: caller.kb_id,
        provider: provider.id(),
        model: bounded(call.model.clone()),
        requested_model: bounded(call.model.clone()),
        endpoint: endpoint.name.into(),
        chats: if verdict.chat_kept { chats_of(claims) } else { 0 },
        // What is charged by the character has no tokens.
        tokens: if quantities.is_nothing() { estimate::of_prompt(&call.prompt) } else { Tokens::default() },
        quantities,
        source: UsageSource::Estimate,
        cost: None,
        billable: None,
        priced: Priced::Unpriced,
        price_version: tariff.version(),
        service_tier: ServiceTier::default(),
        requested_at: admitted_at,
        utc_offset_s: caller.account.tenant.zone.offset_s(admitted_at),
        duration_us: 0,
        first_byte_us: None,
        overhead_us: 0,
        status: 0,
        outcome: verdict.outcome,
        request_id: None,
        unit: None,
        corrects: None,
    };
    let charged = charge(tariff, &event);
    put(&mut event, charged);
    event
}

/// Longer model names are cut: they come from outside, and the ledger's rows are bounded. A NUL, which not every store can
/// hold, becomes the mark for what cannot be shown: so a name is the same in all of them.
const MODEL_BYTES_MAX: usize = 200;

pub(super) fn bounded(mut name: String) -> Box<str> {
    if name.contains('\0') {
        name = name.replace('\0', "\u{fffd}");
    }
    if name.len() > MODEL_BYTES_MAX {
        let end = (0..=MODEL_BYTES_MAX).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
        name.truncate(end);
    }
    name.into_boxed_str()
}
