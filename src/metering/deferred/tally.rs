//! What a unit used and costs, from what the provider said of it or of its parts.
//!
//! May use: `domain`, `providers`, `ports`.

use crate::domain::event::{Outcome, UsageSource};
use crate::domain::money::PicoUsd;
use crate::domain::price::rates::Used;
use crate::domain::price::tariff::{Charged, Named, Tariff};
use crate::domain::price::{Charge, Priced, ServiceTier};
use crate::domain::quantities::Quantities;
use crate::domain::tokens::{TOKENS_PER_CALL_MAX, Tokens};
use crate::domain::unit::UnitState;
use crate::metering::in_flight::uncounted;
use crate::ports::units::DeferredUnit;
use crate::providers::Reading;

/// Bytes of text for a token, where only bytes are known.
const BYTES_PER_TOKEN: u64 = 4;

/// The part of a bill that is not the unit's own.
pub(super) struct Bill {
    pub used: Used,
    pub source: UsageSource,
    pub charged: Charged,
    pub model: Option<String>,
    pub tier: ServiceTier,
    pub outcome: Outcome,
    pub status: u16,
}

/// The sum of the parts of a unit, each priced for itself: prices depend on the length of one request.
#[derive(Debug, Default)]
pub(super) struct Tally {
    used: Used,
    cost: PicoUsd,
    /// What is billed by prices of the plan's own.
    own: PicoUsd,
    /// The cost of all others.
    listed: PicoUsd,
    /// What is billed for some parts is not known.
    is_billed_in_part: bool,
    /// How many parts there are of each kind of price.
    parts: [u64; 4],
    model: Option<String>,
    /// Of some parts it is not known what they used, or it cannot be believed.
    in_doubt: bool,
}

/// Whether it is a batch, which has prices of its own.
fn is_batch(unit: &DeferredUnit) -> bool {
    unit.name.collection() == "batches"
}

fn tier(unit: &DeferredUnit, reading: &Reading) -> ServiceTier {
    if is_batch(unit) { ServiceTier::Batch } else { reading.tier }
}

fn named<'a>(unit: &'a DeferredUnit, model: Option<&'a str>) -> Named<'a> {
    let answered = model.unwrap_or(&unit.model);
    Named { provider: unit.provider.as_str(), answered, requested: &unit.requested_model }
}

/// Whether the sum that a batch says of itself does for its price. One of nothing does not: it may not be filled in yet.
pub(super) fn is_enough(unit: &DeferredUnit, reading: &Reading, tariff: &Tariff) -> bool {
    let sum = reading.tokens.filter(|tokens| tokens.total() > 0 && !reading.distrusted);
    let Some(tokens) = sum else { return false };
    let named = named(unit, reading.model.as_deref());
    tariff.prices_sums(named, tier(unit, reading), tokens.prompt, unit.requested_at)
}

impl Tally {
    /// Adds one part.
    pub(super) fn add(&mut self, unit: &DeferredUnit, part: &Reading, tariff: &Tariff) {
        self.in_doubt |= part.distrusted;
        if self.model.is_none() {
            self.model.clone_from(&part.model);
        }
        let used = part.tokens.map(|tokens| Used { tokens, quantities: part.quantities });
        let sum = used.and_then(|used| Some((used, self.used.plus(&used)?)));
        let Some((used, sum)) = sum else {
            self.in_doubt = true;
            return;
        };
        self.used = sum;
        let named = named(unit, part.model.as_deref());
        let charged = tariff.charge(named, tier(unit, part), used, unit.requested_at);
        let charged = if part.uncounted { uncounted(charged, &used) } else { charged };
        let Charged { charge, billable, is_own } = charged;
        // What has no price of the plan's own is billed by its percent of the sum: rounded up once.
        let own = if is_own { billable.and_then(|billable| self.own.plus(billable).ok()) } else { Some(self.own) };
        self.is_billed_in_part |= own.is_none() || (!is_own && charge.cost.is_none());
        self.own = own.unwrap_or(self.own);
        if !is_own {
            self.listed = charge.cost.and_then(|cost| self.listed.plus(cost).ok()).unwrap_or(self.listed);
        }
        let cost = charge.cost.and_then(|cost| self.cost.plus(cost).ok());
        let priced = if cost.is_some() { charge.priced } else { Priced::Unpriced };
        self.cost = cost.unwrap_or(self.cost);
        if let Some(parts) = self.parts.get_mut(place(priced)) {
            *parts = parts.saturating_add(1);
        }
    }

    fn charge(&self) -> Charge {
        let has = |priced| self.parts.get(place(priced)).is_some_and(|parts| *parts > 0);
        if has(Priced::Unpriced) {
            return Charge { cost: None, priced: Priced::Unpriced };
        }
        let priced = [Priced::Incomplete, Priced::Priced].into_iter().find(|priced| has(*priced));
        Charge { cost: Some(self.cost), priced: priced.unwrap_or(Priced::Free) }
    }

    fn charged(&self, tariff: &Tariff) -> Charged {
        let billed = tariff.billable(Some(self.listed)).filter(|_| !self.is_billed_in_part);
        let billable = billed.and_then(|billed| billed.plus(self.own).ok());
        Charged { charge: self.charge(), billable, is_own: false }
    }
}

fn place(priced: Priced) -> usize {
    match priced {
        Priced::Priced => 0,
        Priced::Free => 1,
        Priced::Unpriced => 2,
        Priced::Incomplete => 3,
    }
}

impl Bill {
    /// By what the provider said, and by the parts where they were read.
    pub(super) fn of(unit: &DeferredUnit, reading: Reading, parts: Option<Tally>, tariff: &Tariff) -> Self {
        let state = reading.ended().map_or(UnitState::Done, |told| told.state);
        match parts {
            Some(tally) => Self::of_parts(unit, tally, state, tariff),
            None => Self::of_whole(unit, reading, state, tariff),
        }
    }

    fn of_parts(unit: &DeferredUnit, tally: Tally, state: UnitState, tariff: &Tariff) -> Self {
        if tally.in_doubt && tally.used.is_nothing() {
            return Self { model: tally.model, ..Self::estimate(unit, 200, tariff) };
        }
        if tally.used.is_nothing() {
            return Self { model: tally.model, ..Self::nothing(unit) };
        }
        let source = if tally.in_doubt { UsageSource::Estimate } else { UsageSource::Provider };
        let (used, charged, outcome) = (tally.used, tally.charged(tariff), outcome_with_usage(state));
        Self { used, source, charged, model: tally.model, tier: ServiceTier::Batch, outcome, status: 200 }
    }

    fn of_whole(unit: &DeferredUnit, reading: Reading, state: UnitState, tariff: &Tariff) -> Self {
        let tier = tier(unit, &reading);
        let used = reading.tokens.filter(|tokens| tokens.total() > 0 || (state == UnitState::Done && !is_batch(unit)));
        let (tokens, source, outcome) = match (used, state) {
            (Some(tokens), _) => {
                let source = if reading.distrusted { UsageSource::Estimate } else { UsageSource::Provider };
                (tokens, source, outcome_with_usage(state))
            }
            // What came to nothing, and what says that its parts did.
            (None, UnitState::Failed) => return Self { model: reading.model, ..Self::nothing(unit) },
            (None, _) if is_batch(unit) && !reading.distrusted => {
                return Self { model: reading.model, ..Self::nothing(unit) };
            }
            (None, _) => {
                let completion = delivered_tokens(reading.output_bytes).max(unit.delivered_tokens);
                (estimated(unit, completion), UsageSource::Estimate, outcome_with_usage(state))
            }
        };
        let used = Used { tokens, quantities: if used.is_some() { reading.quantities } else { Quantities::default() } };
        let own = tariff.charge(named(unit, reading.model.as_deref()), tier, used, unit.requested_at);
        // A sum of many requests that has the price of one long one: what it costs is not known to the digit.
        let is_short = !is_batch(unit) || is_enough(unit, &reading, tariff);
        let doubted = Charge { priced: worst(own.charge.priced), ..own.charge };
        let own = if is_short { own } else { Charged { charge: doubted, ..own } };
        let charged = if reading.uncounted { uncounted(own, &used) } else { own };
        Self { used, source, charged, model: reading.model, tier, outcome, status: 200 }
    }

    /// By the prompt, and what is known of the output: nobody says what the unit used. `status` is what was answered instead.
    pub(super) fn estimate(unit: &DeferredUnit, status: u16, tariff: &Tariff) -> Self {
        // What was delivered of it, or else the most that it could deliver.
        let delivered = Some(unit.delivered_tokens).filter(|tokens| *tokens > 0);
        let used = Used::from(&estimated(unit, delivered.or(unit.output_max).unwrap_or(0)));
        let tier = if is_batch(unit) { ServiceTier::Batch } else { ServiceTier::default() };
        let charged = tariff.charge(named(unit, None), tier, used, unit.requested_at);
        let (source, outcome) = (UsageSource::Estimate, Outcome::UpstreamFailed);
        Self { used, source, charged, model: None, tier, outcome, status }
    }

    /// Nothing was charged: the unit came to nothing.
    fn nothing(unit: &DeferredUnit) -> Self {
        let tier = if is_batch(unit) { ServiceTier::Batch } else { ServiceTier::default() };
        let (used, source, outcome) = (Used::default(), UsageSource::Provider, Outcome::UpstreamError);
        Self { used, source, charged: Charged::FREE, model: None, tier, outcome, status: 200 }
    }
}

fn outcome_with_usage(state: UnitState) -> Outcome {
    match state {
        UnitState::Running | UnitState::Done => Outcome::Completed,
        UnitState::Failed => Outcome::UpstreamFailed,
        UnitState::Cancelled => Outcome::ClientLeft,
    }
}

/// How many tokens so many bytes of text are, about.
pub(in crate::metering) fn delivered_tokens(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN).min(TOKENS_PER_CALL_MAX)
}

fn estimated(unit: &DeferredUnit, completion: u64) -> Tokens {
    // Whatever was asked, it was not nothing.
    let prompt = unit.prompt_tokens.clamp(1, TOKENS_PER_CALL_MAX);
    Tokens { prompt, completion: completion.min(TOKENS_PER_CALL_MAX - prompt), ..Tokens::default() }
}

fn worst(priced: Priced) -> Priced {
    if priced == Priced::Priced { Priced::Incomplete } else { priced }
}
