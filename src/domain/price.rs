//! Prices and what a call costs by them.
//!
//! A [`PriceBook`] is made once from a price file and never changes; a new file is a new book with a new version. The
//! unit prices of a model hang on the service tier, the date and the length of the input; `rates` does the sums. A book
//! may lie over another one, its base: a name that an entry of its own is for has the prices of that entry alone, and
//! every other name those of the base.
//!
//! May use: this layer.

use std::collections::HashMap;
use std::sync::Arc;

use super::models::plain_name;
use super::money::PicoUsd;
use super::quantities::{AUDIO_MS_MAX, CHARACTERS_MAX, COUNT_MAX};
use super::time::Micros;
use super::tokens::TOKENS_PER_CALL_MAX;

pub mod changes;
pub mod pattern;
pub mod rates;
pub mod tariff;

use pattern::Pattern;
use rates::{Bill, Kind, Rates, Unit, Used};

/// The dearest token, or character, that is believed: 0.1 USD. The dearest published token costs 0.0006 USD.
pub const PICO_PER_TOKEN_MAX: i64 = 100_000_000_000;

/// The cheapest token that is not free, as it is believed: the cheapest published one costs ten times as much.
const PICO_PER_TOKEN_LEAST: i64 = 1_000;

/// The dearest hour of audio that is believed: 1,000 USD. Those that are published cost 0.27 to 3 USD.
const PICO_PER_HOUR_MAX: i64 = 1_000_000_000_000_000;

/// The dearest image, search or request that is believed: 10 USD. The dearest published search costs 0.035 USD.
const PICO_PER_PIECE_MAX: i64 = 10_000_000_000_000;

/// A call of as much of everything as is believed, at the highest prices, still fits a ledger row.
const _: () = {
    let tokens = 2 * TOKENS_PER_CALL_MAX as i128 * PICO_PER_TOKEN_MAX as i128;
    let characters = CHARACTERS_MAX as i128 * PICO_PER_TOKEN_MAX as i128;
    let hours = (AUDIO_MS_MAX / 3_600_000) as i128 * PICO_PER_HOUR_MAX as i128;
    let pieces = (3 * COUNT_MAX + 1) as i128 * PICO_PER_PIECE_MAX as i128;
    assert!(tokens + characters + hours + pieces <= i64::MAX as i128);
};

/// The highest price of a kind that is believed.
fn pico_max(kind: Kind) -> i64 {
    match kind.unit() {
        Unit::Token | Unit::Character => PICO_PER_TOKEN_MAX,
        Unit::Hour => PICO_PER_HOUR_MAX,
        Unit::Image | Unit::Search | Unit::Request => PICO_PER_PIECE_MAX,
    }
}

/// How far a cost can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Priced {
    /// Every token has a price.
    Priced,
    /// The price is an explicit zero, or nothing was charged.
    Free,
    /// The model has no price: the cost is unknown, never 0.
    Unpriced,
    /// There is a cost, but not every price behind it is the provider's own for just this: a kind of token or a service
    /// tier without a price, or a model whose price could not be verified.
    Incomplete,
}

impl Priced {
    /// All of them, for parsers.
    pub const ALL: [Self; 4] = [Self::Priced, Self::Free, Self::Unpriced, Self::Incomplete];

    /// The name in rows and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Priced => "priced",
            Self::Free => "free",
            Self::Unpriced => "unpriced",
            Self::Incomplete => "incomplete",
        }
    }

    /// The one with that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priced| priced.as_str() == text)
    }
}

/// The service tier a call was served at, as the provider's answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum ServiceTier {
    /// The list price.
    #[default]
    Standard,
    /// Cheaper and slower.
    Flex,
    /// Asynchronous batches.
    Batch,
    /// Dearer and faster.
    Priority,
    /// The dearest and fastest: three times the priority price where it is sold.
    Ultrafast,
}

impl ServiceTier {
    /// All of them, for parsers.
    pub const ALL: [Self; 5] = [Self::Standard, Self::Flex, Self::Batch, Self::Priority, Self::Ultrafast];

    /// The name in rows, answers and price files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Flex => "flex",
            Self::Batch => "batch",
            Self::Priority => "priority",
            Self::Ultrafast => "ultrafast",
        }
    }

    /// The one with that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.as_str() == text)
    }
}

/// What a call costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// The cost; `None` exactly when `priced` is [`Priced::Unpriced`].
    pub cost: Option<PicoUsd>,
    /// How far it can be trusted.
    pub priced: Priced,
}

impl Charge {
    /// The same where there is a doubt whether it is what is charged. What is not known stays so.
    pub fn doubted(self) -> Self {
        let priced = if self.priced == Priced::Unpriced { Priced::Unpriced } else { Priced::Incomplete };
        Self { priced, ..self }
    }
}

/// Why a call costs what it costs.
#[derive(Debug, Clone, Copy)]
pub struct Explanation<'a> {
    /// The entry that its model's name found.
    pub model: &'a ModelPrices,
    /// The prices that held, by tier, date and length of the input.
    pub row: &'a PriceRow,
    /// Whether they are those of the tier that the call was served at; else they are the standard ones.
    pub is_own_tier: bool,
    /// Every token of it, line by line.
    pub bill: Bill,
}

/// Prices of one model.
#[derive(Debug, Clone)]
pub struct ModelPrices {
    /// Who sells it: the provider's short name.
    pub provider: Box<str>,
    /// The name of the entry.
    pub name: Box<str>,
    /// The model names it is for.
    pub names: Vec<Pattern>,
    /// Names that it is not for, though they fit.
    pub except: Vec<Pattern>,
    /// Why its prices could not be verified, if so: its costs are [`Priced::Incomplete`].
    pub unverified: Option<Box<str>>,
    /// The prices, in any order.
    pub rows: Vec<PriceRow>,
    /// Who says so.
    pub origin: Origin,
}

/// Who says what a model costs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// In whose list it stands.
    pub list: ListOf,
    /// Where they have it from, and of when it is.
    pub source: Option<Arc<str>>,
    /// Tiers whose prices are corrections, and where those are from.
    pub tiers: Vec<(ServiceTier, Arc<str>)>,
}

impl Origin {
    /// In whose list the prices of a tier stand, and where they are from.
    pub fn of(&self, tier: ServiceTier) -> (ListOf, Option<&Arc<str>>) {
        match self.tiers.iter().find(|(corrected, _)| *corrected == tier) {
            Some((_, source)) if self.list != ListOf::Operator => (ListOf::Correction, Some(source)),
            Some((_, source)) => (ListOf::Operator, Some(source)),
            None => (self.list, self.source.as_ref()),
        }
    }

    /// The same as a text: `correction (llm-prices 1.0.0, 2026-10-23)`.
    pub fn told(&self, tier: ServiceTier) -> String {
        let (list, source) = self.of(tier);
        let list = list.as_str();
        source.map_or_else(|| list.to_owned(), |source| format!("{list} ({source})"))
    }
}

/// Whose list of prices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ListOf {
    /// The one that is built in, as it was published.
    BuiltIn,
    /// A correction in the one that is built in.
    Correction,
    /// The operator's.
    #[default]
    Operator,
}

impl ListOf {
    /// The name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BuiltIn => "built-in",
            Self::Correction => "correction",
            Self::Operator => "operator",
        }
    }
}

/// Prices of one model from a date on, for one tier, for inputs longer than a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceRow {
    /// The service tier.
    pub tier: ServiceTier,
    /// From when on; `None` for always.
    pub from: Option<Micros>,
    /// The row holds for a whole request whose input, cached or not, is longer than this. 0 is the first step, which
    /// every tier and date has, and holds for an empty input too.
    pub above: u64,
    /// The prices.
    pub rates: Rates,
}

/// The prices of all models.
#[derive(Debug, Default)]
pub struct PriceBook {
    version: Arc<str>,
    shelves: Vec<Shelf>,
    /// What it was read from; empty where it was not.
    document: Arc<str>,
    base: Option<Arc<PriceBook>>,
}

/// Why prices make no book.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceBookError {
    /// An entry that no name can find.
    #[error("{provider}/{model} has no pattern of names")]
    NoNames {
        /// The provider.
        provider: Box<str>,
        /// The entry.
        model: Box<str>,
    },
    /// A pattern stands twice, or an earlier entry takes all that it is for.
    #[error("{provider}/{model}: the pattern {pattern} is taken by {taken_by}: take it out of one of them")]
    Overlap {
        /// The provider.
        provider: Box<str>,
        /// The entry.
        model: Box<str>,
        /// The pattern.
        pattern: Box<str>,
        /// The entry that has it already.
        taken_by: Box<str>,
    },
    /// An entry without standard prices.
    #[error("{provider}/{model} has no standard prices")]
    NoStandard {
        /// The provider.
        provider: Box<str>,
        /// The entry.
        model: Box<str>,
    },
    /// Two rows for the same tier, date and step.
    #[error("{provider}/{model}: two rows of prices for the same tier ({tier}), date and step", tier = tier.as_str())]
    TwoRows {
        /// The provider.
        provider: Box<str>,
        /// The entry.
        model: Box<str>,
        /// The tier.
        tier: ServiceTier,
    },
    /// A tier has no row for short inputs at some date.
    #[error("{provider}/{model}: tier {tier} has a date without prices for short inputs", tier = tier.as_str())]
    NoFirstStep {
        /// The provider.
        provider: Box<str>,
        /// The entry.
        model: Box<str>,
        /// The tier.
        tier: ServiceTier,
    },
    /// An entry that takes a name from the base, and has no price for a time at which the base has one.
    #[error(
        "{provider}/{model} has no price before {from}, and the price list below it has one: add rates without from"
    )]
    Gap {
        /// The provider.
        provider: Box<str>,
        /// The entry.
        model: Box<str>,
        /// From when on it has prices.
        from: Micros,
    },
    /// A price below 0 or above the highest that is believed.
    #[error("{provider}/{model}: {pico} pico-dollars is no price of {kind}; such prices are 0 to {max}", kind = kind.as_str())]
    Range {
        /// The provider.
        provider: Box<str>,
        /// The entry.
        model: Box<str>,
        /// What it is of.
        kind: Kind,
        /// The price.
        pico: i64,
        /// The highest there is.
        max: i64,
    },
    /// A row without any price.
    #[error("{provider}/{model}: a row of tier {tier} has no price", tier = tier.as_str())]
    NoPrice {
        /// The provider.
        provider: Box<str>,
        /// The entry.
        model: Box<str>,
        /// The tier.
        tier: ServiceTier,
    },
    /// A row that has a price of some kind of token and none of input, which every call has.
    #[error("{provider}/{model}: a row of tier {tier} has prices of tokens and none of input", tier = tier.as_str())]
    NoInput {
        /// The provider.
        provider: Box<str>,
        /// The entry.
        model: Box<str>,
        /// The tier.
        tier: ServiceTier,
    },
    /// Searches of the web that are charged both one by one and by the request.
    #[error("{provider}/{model}: web_search and grounded in one row; searches of the web are charged by one of them")]
    TwoSearches {
        /// The provider.
        provider: Box<str>,
        /// The entry.
        model: Box<str>,
    },
}

/// What one provider sells.
#[derive(Debug, Default)]
struct Shelf {
    provider: Box<str>,
    models: Vec<ModelPrices>,
    /// Plain names, to the entry's place in `models`.
    by_name: HashMap<Box<str>, usize>,
    /// Patterns in the order of the entries.
    by_pattern: Vec<(Pattern, usize)>,
}

impl PriceBook {
    /// A book of `models`. A plain name finds its entry whatever patterns there are; patterns are tried in order.
    ///
    /// # Errors
    /// Everything that is wrong with the entries.
    pub fn new(version: Arc<str>, models: Vec<ModelPrices>) -> Result<Self, Vec<PriceBookError>> {
        let mut errors = Vec::new();
        let mut shelves: Vec<Shelf> = Vec::new();
        for mut model in models {
            model.check(&mut errors);
            model.rows.sort_by_key(|row| (row.tier, row.from, row.above));
            match shelves.iter_mut().find(|shelf| shelf.provider == model.provider) {
                Some(shelf) => shelf.add(model, &mut errors),
                None => {
                    let mut shelf = Shelf { provider: model.provider.clone(), ..Shelf::default() };
                    shelf.add(model, &mut errors);
                    shelves.push(shelf);
                }
            }
        }
        shelves.iter().for_each(|shelf| shelf.check(&mut errors));
        if errors.is_empty() { Ok(Self { version, shelves, ..Self::default() }) } else { Err(errors) }
    }

    /// The same with what it was read from.
    pub fn written(self, document: Arc<str>) -> Self {
        Self { document, ..self }
    }

    /// The same over another book, which has none below it.
    ///
    /// # Errors
    /// A name would lose its price for a time at which the base has one.
    pub fn over(self, base: Arc<Self>) -> Result<Self, Vec<PriceBookError>> {
        let gaps = self.gaps(&base);
        if gaps.is_empty() { Ok(Self { base: Some(base), ..self }) } else { Err(gaps) }
    }

    /// Entries that take a name from the base, or from one of its entries, and have no price for a time at which the base
    /// has one.
    fn gaps(&self, base: &Self) -> Vec<PriceBookError> {
        let names = |model: &ModelPrices| model.names.iter().map(Pattern::shortest).collect::<Vec<_>>();
        let below = |model: &ModelPrices| names(model).into_iter().chain([model.name.to_string()]);
        let own =
            self.own_models().flat_map(|model| names(model).into_iter().map(move |name| (&*model.provider, name)));
        let all = own.chain(base.own_models().flat_map(|model| below(model).map(move |name| (&*model.provider, name))));
        let mut gaps: Vec<PriceBookError> = Vec::new();
        for (provider, name) in all {
            let (Some(over), Some(under)) = (self.own_model(provider, &name), base.model(provider, &name)) else {
                continue;
            };
            let Some(from) = over.begins() else { continue };
            let gap = PriceBookError::Gap { provider: provider.into(), model: over.name.clone(), from };
            if under.begins().is_none_or(|begins| begins < from) && !gaps.contains(&gap) {
                gaps.push(gap);
            }
        }
        gaps
    }

    /// The book below it.
    pub fn base(&self) -> Option<&Arc<Self>> {
        self.base.as_ref()
    }

    /// What it was read from, without its base; empty where it was not.
    pub fn document(&self) -> &Arc<str> {
        &self.document
    }

    /// Which prices these are, for events.
    pub fn version(&self) -> Arc<str> {
        Arc::clone(&self.version)
    }

    /// All entries that a name still finds, provider by provider in the order of the file; those of the base come last.
    pub fn models(&self) -> impl Iterator<Item = &ModelPrices> {
        let below = self.base.iter().flat_map(|base| base.own_models()).filter(|model| self.is_found(model));
        self.own_models().chain(below)
    }

    /// The entries of its own, without those of its base.
    pub fn own_models(&self) -> impl Iterator<Item = &ModelPrices> {
        self.shelves.iter().flat_map(|shelf| shelf.models.iter())
    }

    /// Prices of its own that are hardly meant: under a thousandth of a dollar for a million tokens, and not 0. Whoever
    /// wrote dollars for a million, or cents, wrote such.
    pub fn implausible(&self) -> impl Iterator<Item = (&ModelPrices, Kind, i64)> {
        let rows = self.own_models().flat_map(|model| model.rows.iter().map(move |row| (model, row)));
        let prices = rows.flat_map(|(model, row)| row.rates.kinds().map(|(kind, pico)| (model, kind, pico)));
        let is_slip = |kind: Kind, pico| kind.unit() == Unit::Token && (1..PICO_PER_TOKEN_LEAST).contains(&pico);
        prices.filter_map(move |(model, kind, pico)| Some((model, kind, pico.filter(|pico| is_slip(kind, *pico))?)))
    }

    fn is_found(&self, model: &ModelPrices) -> bool {
        let found = |name: &Pattern| self.model(&model.provider, &name.shortest());
        model.names.iter().filter_map(found).any(|found| std::ptr::eq(found, model))
    }

    /// The entry for a model by the name that the provider's answer or a request gives it: [`plain_name`], as where models
    /// are allowed, so that `models/` or a path in front of it and upper case do not matter.
    pub fn model(&self, provider: &str, model: &str) -> Option<&ModelPrices> {
        self.own_model(provider, model).or_else(|| self.base.as_ref()?.own_model(provider, model))
    }

    fn own_model(&self, provider: &str, model: &str) -> Option<&ModelPrices> {
        let shelf = self.shelves.iter().find(|shelf| *shelf.provider == *provider)?;
        let name = model.strip_prefix("publishers/google/").unwrap_or(model);
        shelf.find(&plain_name(name)?)
    }

    /// The unit prices that [`Self::charge`] uses for a call of `input_tokens` tokens of input (all of them, cached or
    /// not); those of the standard tier where the asked tier has none.
    pub fn rates(
        &self,
        provider: &str,
        model: &str,
        tier: ServiceTier,
        input_tokens: u64,
        at: Micros,
    ) -> Option<&Rates> {
        let model = self.model(provider, model)?;
        model.rates(tier, input_tokens, at).or_else(|| model.rates(ServiceTier::Standard, input_tokens, at))
    }

    /// Whether the model has any price at that time.
    fn knows(&self, provider: &str, model: &str, at: Micros) -> bool {
        self.rates(provider, model, ServiceTier::Standard, 0, at).is_some()
    }

    /// What a call costs that was admitted at `at` and served at `tier`.
    ///
    /// A model without an entry, or before the date of its first price, is [`Priced::Unpriced`] and has no cost: never
    /// 0. So are counts too large to be true. See [`Explanation::charge`] for all others.
    pub fn charge(&self, provider: &str, model: &str, tier: ServiceTier, used: impl Into<Used>, at: Micros) -> Charge {
        let unpriced = Charge { cost: None, priced: Priced::Unpriced };
        self.explain(provider, model, tier, used, at).map_or(unpriced, |explained| explained.charge())
    }

    /// Why it costs that; `None` where the model has no price at that date.
    pub fn explain(
        &self,
        provider: &str,
        model: &str,
        tier: ServiceTier,
        used: impl Into<Used>,
        at: Micros,
    ) -> Option<Explanation<'_>> {
        let used = used.into();
        let model = self.model(provider, model)?;
        let own = model.row(tier, used.tokens.prompt, at);
        let row = own.or_else(|| model.row(ServiceTier::Standard, used.tokens.prompt, at))?;
        Some(Explanation { model, row, is_own_tier: own.is_some(), bill: row.rates.bill(used) })
    }
}

impl Explanation<'_> {
    /// The cost and how far it can be trusted.
    ///
    /// A tier without prices is charged at the standard tier and [`Priced::Incomplete`]; what kinds without a price cost,
    /// [`Rates::bill`] says. Where nothing that was used has any price the call is [`Priced::Unpriced`]. A model whose
    /// prices are all 0 is [`Priced::Free`] if everything that was used has one: what has no price is not free. Nothing
    /// used costs 0 and is [`Priced::Priced`] here: whether nothing was charged at all, the caller knows.
    pub fn charge(&self) -> Charge {
        let unpriced = Charge { cost: None, priced: Priced::Unpriced };
        if self.bill.is_unknown() {
            return unpriced;
        }
        if self.row.rates.is_free() && self.bill.has_all_prices() && !self.bill.has_costs() {
            return Charge { cost: Some(PicoUsd::ZERO), priced: Priced::Free };
        }
        let Ok(cost) = self.bill.total() else { return unpriced };
        let exact = self.is_own_tier && self.bill.complete && self.model.unverified.is_none();
        Charge { cost: Some(cost), priced: if exact { Priced::Priced } else { Priced::Incomplete } }
    }
}

impl ModelPrices {
    /// The prices of `tier` for an input of that many tokens at that time, if the tier has any.
    pub fn rates(&self, tier: ServiceTier, input_tokens: u64, at: Micros) -> Option<&Rates> {
        self.row(tier, input_tokens, at).map(|row| &row.rates)
    }

    /// The same with what they hang on.
    pub fn row(&self, tier: ServiceTier, input_tokens: u64, at: Micros) -> Option<&PriceRow> {
        let holds = |row: &&PriceRow| {
            row.tier == tier && row.from.is_none_or(|from| from <= at) && (row.above == 0 || input_tokens > row.above)
        };
        // Sorted by tier, date and step: the last row that holds is the highest step reached at the newest date.
        self.rows.iter().rev().find(holds)
    }

    /// Since when it has prices; `None` for always.
    fn begins(&self) -> Option<Micros> {
        let standard = self.rows.iter().filter(|row| row.tier == ServiceTier::Standard);
        standard.map(|row| row.from).min().flatten()
    }

    fn check(&self, errors: &mut Vec<PriceBookError>) {
        let (provider, model) = (&self.provider, &self.name);
        if self.names.is_empty() {
            errors.push(PriceBookError::NoNames { provider: provider.clone(), model: model.clone() });
        }
        if !self.rows.iter().any(|row| row.tier == ServiceTier::Standard) {
            errors.push(PriceBookError::NoStandard { provider: provider.clone(), model: model.clone() });
        }
        for (place, row) in self.rows.iter().enumerate() {
            let tier = row.tier;
            let same_date = |other: &&PriceRow| other.tier == tier && other.from == row.from;
            if self.rows.iter().skip(place + 1).filter(same_date).any(|other| other.above == row.above) {
                errors.push(PriceBookError::TwoRows { provider: provider.clone(), model: model.clone(), tier });
            }
            if !self.rows.iter().filter(same_date).any(|other| other.above == 0) {
                errors.push(PriceBookError::NoFirstStep { provider: provider.clone(), model: model.clone(), tier });
            }
            let prices = row.rates.kinds().into_iter().filter_map(|(kind, pico)| Some((kind, pico?, pico_max(kind))));
            for (kind, pico, max) in prices.clone().filter(|(_, pico, max)| !(0..=*max).contains(pico)) {
                let (provider, model) = (provider.clone(), model.clone());
                errors.push(PriceBookError::Range { provider, model, kind, pico, max });
            }
            let mut kinds = prices.map(|(kind, ..)| kind.unit()).peekable();
            if kinds.peek().is_none() {
                errors.push(PriceBookError::NoPrice { provider: provider.clone(), model: model.clone(), tier });
            }
            if row.rates.input.is_none() && kinds.any(|unit| unit == Unit::Token) {
                errors.push(PriceBookError::NoInput { provider: provider.clone(), model: model.clone(), tier });
            }
            if row.rates.web_search.is_some() && row.rates.grounded.is_some() {
                errors.push(PriceBookError::TwoSearches { provider: provider.clone(), model: model.clone() });
            }
        }
    }
}

impl Shelf {
    fn add(&mut self, model: ModelPrices, errors: &mut Vec<PriceBookError>) {
        let place = self.models.len();
        for pattern in &model.names {
            let taken = if pattern.is_name() {
                self.by_name.insert(pattern.as_str().into(), place)
            } else {
                let taken = self.by_pattern.iter().find(|(other, _)| other == pattern).map(|(_, place)| *place);
                self.by_pattern.push((pattern.clone(), place));
                taken
            };
            if let Some(other) = taken {
                let taken_by = self.models.get(other).unwrap_or(&model).name.clone();
                errors.push(overlap(&model, pattern, taken_by));
            }
        }
        self.models.push(model);
    }

    /// A pattern whose shortest name finds another entry can hardly be meant.
    fn check(&self, errors: &mut Vec<PriceBookError>) {
        for (pattern, place) in &self.by_pattern {
            let (Some(meant), found) = (self.models.get(*place), self.find_pattern(&pattern.shortest())) else {
                continue;
            };
            let taken_by = found.map_or("its own exceptions", |model| &model.name);
            let twice = errors.iter().any(
                |error| matches!(error, PriceBookError::Overlap { pattern: known, .. } if **known == *pattern.as_str()),
            );
            if !found.is_some_and(|found| std::ptr::eq(found, meant)) && !twice {
                errors.push(overlap(meant, pattern, taken_by.into()));
            }
        }
    }

    fn find(&self, name: &str) -> Option<&ModelPrices> {
        match self.by_name.get(name) {
            Some(place) => self.models.get(*place),
            None => self.find_pattern(name),
        }
    }

    fn find_pattern(&self, name: &str) -> Option<&ModelPrices> {
        let fitting = self.by_pattern.iter().filter(|(pattern, _)| pattern.fits(name));
        fitting
            .filter_map(|(_, place)| self.models.get(*place))
            .find(|model| !model.except.iter().any(|except| except.fits(name)))
    }
}

fn overlap(model: &ModelPrices, pattern: &Pattern, taken_by: Box<str>) -> PriceBookError {
    let (provider, name) = (model.provider.clone(), model.name.clone());
    PriceBookError::Overlap { provider, model: name, pattern: pattern.as_str().into(), taken_by }
}

#[cfg(test)]
mod tests;
