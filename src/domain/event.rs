//! The event: one metered call, as it stands in the ledger for ever.

use std::borrow::Cow;
use std::sync::Arc;

use super::ids::{EventId, KeyId, ProviderId, TenantId};
use super::money::PicoUsd;
use super::price::rates::Used;
use super::price::tariff::Named;
use super::price::{Priced, ServiceTier};
use super::quantities::Quantities;
use super::time::{MICROS_PER_SECOND, Micros, Period, Window};
use super::tokens::Tokens;
use super::unit::Unit;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The provider's whole answer was had and went to the client.
    Completed,
    /// The client left before the end of its answer.
    ClientLeft,
    /// The provider broke off inside its answer.
    UpstreamFailed,
    /// The provider answered with a status of 400 or more.
    UpstreamError,
    /// No answer was had: unreachable, too slow, or broken before the head.
    NoAnswer,
    /// The gateway ended while the call ran.
    Interrupted,
    /// The provider took it and finishes later: what it used is one more event, which is the request.
    Deferred,
    /// The gateway ended its answer, as nothing was left of a limit of its plan.
    BudgetCut,
    /// No call: it changes what an earlier event costs, by a difference.
    Correction,
}

impl Outcome {
    /// All of them, for parsers and tables.
    pub const ALL: [Self; 9] = [
        Self::Completed,
        Self::ClientLeft,
        Self::UpstreamFailed,
        Self::UpstreamError,
        Self::NoAnswer,
        Self::Interrupted,
        Self::Deferred,
        Self::BudgetCut,
        Self::Correction,
    ];

    /// The outcome's name in rows and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ClientLeft => "client_left",
            Self::UpstreamFailed => "upstream_failed",
            Self::UpstreamError => "upstream_error",
            Self::NoAnswer => "no_answer",
            Self::Interrupted => "interrupted",
            Self::Deferred => "deferred",
            Self::BudgetCut => "budget_cut",
            Self::Correction => "correction",
        }
    }

    /// The outcome with that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }

    /// Whether the call counts as failed (`failed_requests`), not as a request.
    pub fn is_failed(self) -> bool {
        matches!(self, Self::UpstreamError | Self::NoAnswer)
    }

    /// Whether the call counts as a request. One that was deferred does so when it is billed; a correction is no call.
    pub fn is_request(self) -> bool {
        !self.is_failed() && !matches!(self, Self::Deferred | Self::Correction)
    }
}

/// Where an event's tokens come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UsageSource {
    /// The provider said so (or nothing was charged).
    Provider,
    /// The gateway estimated.
    Estimate,
}

impl UsageSource {
    /// The source's name in rows and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Estimate => "estimate",
        }
    }

    /// The source with that name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Provider, Self::Estimate].into_iter().find(|source| source.as_str() == text)
    }
}

/// The furthest that any clock of the world is, or was, from UTC: the bound of `utc_offset_s`, in seconds.
pub const UTC_OFFSET_MAX_S: i32 = 18 * 3_600;

/// What a correction corrects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrected {
    /// The event, never a correction of it.
    pub event: EventId,
    /// How far its cost could be trusted until then.
    pub priced: Priced,
}

/// What a correction makes of the cost of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    /// The newest correction of the event; the event itself where there is none.
    pub after: EventId,
    /// How far the cost could be trusted until then.
    pub priced_before: Priced,
    /// How far it can be trusted now.
    pub priced: Priced,
    /// What is to be added to the cost; what was not known until then counts as 0.
    pub cost: PicoUsd,
    /// What is to be added to the billable cost.
    pub billable: PicoUsd,
    /// The version of the prices that say so.
    pub price_version: Arc<str>,
}

/// One metered call. Written once, never edited: a correction is a new signed row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageEvent {
    /// Made at admission, unique for ever; writing an event twice changes nothing.
    pub id: EventId,
    /// Who pays.
    pub tenant: TenantId,
    /// The key that made the call; `None` for a dev tenant, which has none.
    pub key: Option<KeyId>,
    /// `x-tollgate-user-id`.
    pub user_id: Option<Box<str>>,
    /// `x-tollgate-kb-id`.
    pub kb_id: Option<Box<str>>,
    /// Who was called.
    pub provider: ProviderId,
    /// The model as the provider answered; the requested one where it did not say.
    pub model: Box<str>,
    /// The model as the client asked.
    pub requested_model: Box<str>,
    /// The route's name, such as `chat.completions`.
    pub endpoint: Cow<'static, str>,
    /// Chats counted: 1 or 0.
    pub chats: u64,
    /// What was charged.
    pub tokens: Tokens,
    /// What was charged beside tokens.
    pub quantities: Quantities,
    /// Where `tokens` and `quantities` come from.
    pub source: UsageSource,
    /// What the provider charges; `None` when neither model has a price. Below 0 in a correction alone.
    pub cost: Option<PicoUsd>,
    /// What the tenant is billed: the cost, unless its plan says otherwise. `None` only where `cost` is.
    pub billable: Option<PicoUsd>,
    /// How far `cost` can be trusted.
    pub priced: Priced,
    /// The version of the price book that priced it.
    pub price_version: Arc<str>,
    /// The service tier that the provider answered with.
    pub service_tier: ServiceTier,
    /// When the call was admitted: the period it is counted in.
    pub requested_at: Micros,
    /// How far the tenant's clock was ahead of UTC then, in seconds: its day and month are those of that clock.
    pub utc_offset_s: i32,
    /// From admission to settlement, in microseconds.
    pub duration_us: u64,
    /// From admission to the first byte of the answer, in microseconds.
    pub first_byte_us: Option<u64>,
    /// The part of the time to the first byte that the gateway itself took, in microseconds. Not kept in the ledger.
    pub overhead_us: u64,
    /// The status that the client got; 0 when it got none.
    pub status: u16,
    /// How the call ended.
    pub outcome: Outcome,
    /// The provider's own id of the request; in a bill, the unit's name.
    pub request_id: Option<Box<str>>,
    /// What is billed later, of a call that was deferred; what is billed, of its bill. The ledger has it beside its events.
    pub unit: Option<Box<Unit>>,
    /// What a correction corrects; `None` in every event of a call.
    pub corrects: Option<Corrected>,
}

impl UsageEvent {
    /// The names that its price goes by.
    pub fn named(&self) -> Named<'_> {
        Named { provider: self.provider.as_str(), answered: &self.model, requested: &self.requested_model }
    }

    /// What the tenant's clock showed at admission, as an instant whose date in UTC is the date of that clock. All that sums
    /// events up by days, months or hours goes by it.
    pub fn local(&self) -> Micros {
        let offset_us = i64::from(self.utc_offset_s).saturating_mul(MICROS_PER_SECOND);
        Micros(self.requested_at.0.saturating_add(offset_us))
    }

    /// What it used.
    pub fn used(&self) -> Used {
        Used { tokens: self.tokens, quantities: self.quantities }
    }

    /// The day or month it is counted in.
    pub fn period(&self, window: Window) -> Period {
        window.period(self.local())
    }

    /// The row that corrects this event: of the same tenant, model and period, with the difference of the costs and nothing
    /// else.
    #[must_use]
    pub fn corrected(&self, correction: Correction) -> Self {
        let Correction { after, priced_before, priced, cost, billable, price_version } = correction;
        Self {
            id: after.of_correction(),
            chats: 0,
            tokens: Tokens::default(),
            quantities: Quantities::default(),
            cost: Some(cost),
            billable: Some(billable),
            priced,
            price_version,
            duration_us: 0,
            first_byte_us: None,
            overhead_us: 0,
            status: 0,
            outcome: Outcome::Correction,
            request_id: None,
            unit: None,
            corrects: Some(Corrected { event: self.id, priced: priced_before }),
            ..self.clone()
        }
    }

    /// Whether anything was used that could have a price.
    pub fn used_anything(&self) -> bool {
        self.tokens.total() > 0 || !self.quantities.is_nothing()
    }

    /// Whether it bills what an earlier event deferred. Told by what the journal keeps; the ledger shows it by its id.
    pub fn is_bill(&self) -> bool {
        self.unit.is_some() && self.outcome != Outcome::Deferred
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_outcomes_are_read_again_and_a_correction_is_no_call() {
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::parse(outcome.as_str()), Some(outcome));
        }
        assert!(!Outcome::Correction.is_request() && !Outcome::Correction.is_failed());
    }
}
