//! What a tenant pays: the list of prices, and what its plan makes of it.
//!
//! May use: this layer. The provider's cost of a call is by the list alone. What is billed is the plan's own price where
//! it has one for the model, else that cost at the plan's percent, rounded up to a whole pico-dollar once a call. A tier or
//! a kind that the plan's own prices leave out is no present: it has the list's price at the plan's percent. A model that
//! answers and is on no list has the prices of the one that was asked for: [`Named`].

use std::fmt;
use std::sync::Arc;

use super::rates::{Kind, Rates, Used};
use super::{Charge, Explanation, ModelPrices, PriceBook, Priced, ServiceTier};
use crate::domain::money::{MoneyError, PicoUsd};
use crate::domain::quantities::Quantities;
use crate::domain::time::Micros;

/// Hundredths of a percent in the whole.
const WHOLE: u32 = 10_000;

/// The highest percentage: a thousandfold. More is a slip of a finger.
const HUNDREDTHS_MAX: u32 = 1_000 * WHOLE;

/// A percentage of a price, in whole hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Percent(u32);

/// What a plan makes of the list of prices.
#[derive(Debug, Clone, Default)]
pub struct Pricing {
    /// What is billed of the provider's cost.
    pub percent: Percent,
    /// Prices of its own: they are billed as they stand, whatever the provider charges.
    pub own: Option<Arc<PriceBook>>,
}

/// The list of prices and what one plan makes of it.
#[derive(Debug, Clone, Default)]
pub struct Tariff {
    list: Arc<PriceBook>,
    pricing: Pricing,
    version: Arc<str>,
}

/// What the version of a tariff names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version<'a> {
    /// The list of prices.
    pub list: &'a str,
    /// The plan's own prices.
    pub own: Option<&'a str>,
    /// The plan's percentage.
    pub percent: Percent,
}

/// Whose prices a call has, by the names of its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named<'a> {
    /// Who was called.
    pub provider: &'a str,
    /// The model as the provider answered.
    pub answered: &'a str,
    /// The model as the client asked.
    pub requested: &'a str,
}

/// What a call costs, and what is billed for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charged {
    /// What the provider charges.
    pub charge: Charge,
    /// What the tenant is billed; `None` where that is not known.
    pub billable: Option<PicoUsd>,
    /// Whether that is by prices of the plan's own, if only in part.
    pub is_own: bool,
}

/// A price that a plan's own list leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Who sells it.
    pub provider: Box<str>,
    /// The plan's entry.
    pub model: Box<str>,
    /// The tier of the row.
    pub tier: ServiceTier,
    /// What has no price there.
    pub kind: Kind,
    /// Whether the list has one, by which it is billed; else nobody can say what it is to be billed at.
    pub is_listed: bool,
}

/// What is known of a call before it is made.
#[derive(Debug, Clone, Copy)]
pub struct Prospect<'a> {
    /// Who is called.
    pub provider: &'a str,
    /// The model that is asked for.
    pub model: &'a str,
    /// The tier that is asked for.
    pub tier: ServiceTier,
    /// The longest that its input can be.
    pub input_tokens: u64,
    /// Whether there may be audio or images in it.
    pub with_media: bool,
    /// What it says itself that will be charged beside tokens, such as characters to be spoken.
    pub quantities: Quantities,
    /// How many searches the provider may make for it, of the web or of files.
    pub searches: u64,
    /// When it is admitted.
    pub at: Micros,
}

/// The dearest that a token, and a request, can be, in billed pico-dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ceiling {
    /// A token of input.
    pub input: i64,
    /// A token of output.
    pub output: i64,
    /// The request itself, with what is known before of all that is charged beside tokens. Never 0 for a model that is not
    /// charged by the token and not free: how long its audio will be, or how many its images, nobody knows.
    pub request: i64,
}

impl Percent {
    /// All of it.
    pub const WHOLE: Self = Self(WHOLE);

    /// Reads whole percent, or percent with up to two decimals: `120`, `97.5`.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(decimals) || decimals.len() > 2 {
            return None;
        }
        let decimals: u32 = format!("{decimals:0<2}").parse().ok()?;
        let hundredths = whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(decimals)?;
        (hundredths <= HUNDREDTHS_MAX).then_some(Self(hundredths))
    }

    /// That much of an amount that is not negative, rounded up to a whole pico-dollar.
    ///
    /// # Errors
    /// When it is more than money counts.
    pub fn of(self, amount: PicoUsd) -> Result<PicoUsd, MoneyError> {
        let whole = i128::from(WHOLE);
        let scaled = amount.0.checked_mul(i128::from(self.0)).ok_or(MoneyError::Overflow)?;
        let up = i128::from(scaled.rem_euclid(whole) > 0);
        scaled.div_euclid(whole).checked_add(up).map(PicoUsd).ok_or(MoneyError::Overflow)
    }

    /// That much of a price; the largest there is where it is beyond all prices.
    fn of_price(self, pico: i64) -> i64 {
        self.of(pico.into()).and_then(PicoUsd::to_row).unwrap_or(i64::MAX)
    }
}

impl Default for Percent {
    fn default() -> Self {
        Self::WHOLE
    }
}

/// As it is read: no decimals that say nothing.
impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}"),
            (whole, decimals) if decimals % 10 == 0 => write!(f, "{whole}.{}", decimals / 10),
            (whole, decimals) => write!(f, "{whole}.{decimals:02}"),
        }
    }
}

/// Two books of one version are one book.
impl PartialEq for Pricing {
    fn eq(&self, other: &Self) -> bool {
        let own = |pricing: &Self| pricing.own.as_ref().map(|own| own.version());
        self.percent == other.percent && own(self) == own(other)
    }
}

impl Eq for Pricing {}

impl Tariff {
    /// What a plan makes of a list. Its version is the list's, with what the plan adds behind it: `fa1f49b7e8e3`,
    /// `fa1f49b7e8e3+0a1b2c3d4e5f`, `fa1f49b7e8e3x120`.
    pub fn new(list: Arc<PriceBook>, pricing: Pricing) -> Self {
        let Pricing { percent, own } = &pricing;
        let version = match (own, *percent == Percent::WHOLE) {
            (None, true) => list.version(),
            (None, false) => format!("{}x{percent}", list.version()).into(),
            (Some(own), true) => format!("{}+{}", list.version(), own.version()).into(),
            (Some(own), false) => format!("{}+{}x{percent}", list.version(), own.version()).into(),
        };
        Self { list, pricing, version }
    }

    /// Which prices these are, for events.
    pub fn version(&self) -> Arc<str> {
        Arc::clone(&self.version)
    }

    /// The list of prices: what providers charge.
    pub fn list(&self) -> &Arc<PriceBook> {
        &self.list
    }

    /// What the plan makes of it.
    pub fn pricing(&self) -> &Pricing {
        &self.pricing
    }

    /// What a call costs that was admitted at `at` and served at `tier`, as [`PriceBook::charge`] says, and what is billed
    /// for it: by the plan's own price, also where the provider's is unknown, else its percent of that cost. At the prices
    /// of the model that was asked for, [`Named::priced_as`], it is never more than [`Priced::Incomplete`]; nor is it where
    /// the plan's own price is in doubt.
    pub fn charge(&self, named: Named<'_>, tier: ServiceTier, used: impl Into<Used>, at: Micros) -> Charged {
        let (used, provider, model) = (used.into(), named.provider, self.priced_as(named, at));
        let charge = self.list.charge(provider, model, tier, used, at);
        let charge = if model == named.answered { charge } else { charge.doubted() };
        let own = self.own(provider, model, tier, used, at).map(|own| own.charge());
        match own.and_then(|own| Some((own.priced, own.cost.filter(|billed| billed.to_row().is_ok())?))) {
            Some((priced, billable)) => {
                let charge = if priced == Priced::Incomplete { charge.doubted() } else { charge };
                Charged { charge, billable: Some(billable), is_own: true }
            }
            None => Charged { charge, billable: self.billable(charge.cost), is_own: false },
        }
    }

    /// Why a call is billed at prices of the plan's own; `None` where it has none for the model, the tier or anything that
    /// was used. Kinds that they leave out are in it at the list's price and the plan's percent.
    pub fn own(
        &self,
        provider: &str,
        model: &str,
        tier: ServiceTier,
        used: Used,
        at: Micros,
    ) -> Option<Explanation<'_>> {
        let own = self.pricing.own.as_ref()?.explain(provider, model, tier, used, at)?;
        if own.bill.is_unknown() {
            return None;
        }
        let Some(listed) = self.list.explain(provider, model, tier, used, at) else { return Some(own) };
        if listed.is_own_tier && !own.is_own_tier {
            return None;
        }
        Some(Explanation { bill: self.over_listed(&own.row.rates, &listed.row.rates).bill(used), ..own })
    }

    fn over_listed(&self, own: &Rates, listed: &Rates) -> Rates {
        own.over(&listed.each(|pico| self.pricing.percent.of_price(pico)))
    }

    /// Whether the sum of many calls has the price of all of them: unless long calls have another price than short ones, or
    /// each call one of its own, as how many there were the sum does not say.
    pub fn prices_sums(&self, named: Named<'_>, tier: ServiceTier, prompt_tokens: u64, at: Micros) -> bool {
        let model = self.priced_as(named, at);
        let is_one = |book: &PriceBook| {
            let rates = |input| book.rates(named.provider, model, tier, input, at);
            // A price for each request, or for each that searched.
            let is_by_request = |rates: &Rates| rates.request.or(rates.grounded).is_some();
            rates(0) == rates(prompt_tokens) && !rates(0).is_some_and(is_by_request)
        };
        is_one(&self.list) && self.pricing.own.as_deref().is_none_or(is_one)
    }

    /// [`Named::priced_as`] by these prices.
    pub fn priced_as<'a>(&self, named: Named<'a>, at: Micros) -> &'a str {
        named.priced_as(&self.list, self.pricing.own.as_deref(), at)
    }

    /// What is billed of a cost for which the plan has no price of its own; unknown where that is not known, or is beyond
    /// what a ledger row holds.
    pub fn billable(&self, cost: Option<PicoUsd>) -> Option<PicoUsd> {
        cost.and_then(|cost| self.pricing.percent.of(cost).ok()).filter(|billable| billable.to_row().is_ok())
    }

    /// The dearest that each token of a call can be, as it is billed: of every kind that it can have (`with_media`: also
    /// audio and images), at every step up to `input_tokens`, and by the prices of the tier, or the standard ones where
    /// it has none; with the fees of its searches. `None` where the model has no price: nobody can say what such a call
    /// will cost.
    pub fn ceiling(&self, call: &Prospect<'_>) -> Option<Ceiling> {
        let listed = self.list.model(call.provider, call.model);
        let own = self.pricing.own.as_ref().and_then(|own| own.model(call.provider, call.model));
        // The first step, and each one that an input of that length is above: the input may turn out to be shorter. Prices
        // are the same from one step to the next.
        let rows = [listed, own].into_iter().flatten().flat_map(|model| &model.rows);
        let steps = rows.map(|row| row.above).filter(|above| (1..call.input_tokens).contains(above));
        let lengths = steps.map(|above| above.saturating_add(1)).chain([0]);
        lengths.filter_map(|length| self.ceiling_of(listed, own, call, length)).reduce(Ceiling::max)
    }

    /// The same for an input of that length, by the prices that [`Self::charge`] takes.
    fn ceiling_of(
        &self,
        listed: Option<&ModelPrices>,
        own: Option<&ModelPrices>,
        call: &Prospect<'_>,
        input_tokens: u64,
    ) -> Option<Ceiling> {
        let of = |model: Option<&ModelPrices>, tier| model?.rates(tier, input_tokens, call.at).copied();
        let standard = |model| of(model, ServiceTier::Standard);
        let (own_tier, listed_tier) = (of(own, call.tier), of(listed, call.tier));
        let own = match (own_tier, listed_tier) {
            (None, Some(_)) => None,
            (own_tier, _) => own_tier.or_else(|| standard(own)),
        };
        match (own, listed_tier.or_else(|| standard(listed))) {
            (None, None) => None,
            (Some(own), None) => Some(of_rates(&own, call)),
            (Some(own), Some(listed)) => Some(of_rates(&self.over_listed(&own, &listed), call)),
            (None, Some(listed)) => {
                let Ceiling { input, output, request } = of_rates(&listed, call);
                let billed = |pico| self.pricing.percent.of_price(pico);
                Some(Ceiling { input: billed(input), output: billed(output), request: billed(request) })
            }
        }
    }
}

/// What a plan's own prices leave out of what nearly every call has: output. Only a model of which the list says that it
/// puts nothing out (embeddings) needs no price of that.
pub fn left_out(list: &PriceBook, own: &PriceBook) -> Vec<LeftOut> {
    let of_row = |model: &ModelPrices, tier, rates: &Rates| {
        let listed = list.model(&model.provider, &model.names.first()?.shortest());
        let is_listed = listed.is_some_and(|listed| listed.rows.iter().any(|row| row.rates.output.is_some()));
        let is_left_out = rates.input.is_some() && rates.output.is_none() && (is_listed || listed.is_none());
        let (provider, model, kind) = (model.provider.clone(), model.name.clone(), Kind::Output);
        is_left_out.then_some(LeftOut { provider, model, tier, kind, is_listed })
    };
    let rows = own.own_models().flat_map(|model| model.rows.iter().map(move |row| (model, row)));
    rows.filter_map(|(model, row)| of_row(model, row.tier, &row.rates)).collect()
}

impl<'a> Named<'a> {
    /// The name whose prices the call has. It is the one that was answered, unless that has no price in either list and the
    /// one that was asked for has: what an alias stands for may be newer than the list, and such a call must not slip
    /// through a limit of cost that the alias was held against.
    pub fn priced_as(self, list: &PriceBook, own: Option<&PriceBook>, at: Micros) -> &'a str {
        let Self { provider, answered, requested } = self;
        let is_known = |model| [Some(list), own].into_iter().flatten().any(|book| book.knows(provider, model, at));
        if answered == requested || is_known(answered) || !is_known(requested) { answered } else { requested }
    }
}

impl Charged {
    /// Nothing was charged.
    pub const FREE: Self = Self {
        charge: Charge { cost: Some(PicoUsd::ZERO), priced: Priced::Free },
        billable: Some(PicoUsd::ZERO),
        is_own: false,
    };
}

impl<'a> Version<'a> {
    /// Reads the version of a tariff.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (books, percent) = match text.split_once('x') {
            Some((books, percent)) => (books, Percent::parse(percent)?),
            None => (text, Percent::WHOLE),
        };
        let (list, own) = books.split_once('+').map_or((books, None), |(list, own)| (list, Some(own)));
        Some(Self { list, own, percent })
    }
}

fn of_rates(rates: &Rates, call: &Prospect<'_>) -> Ceiling {
    let Prospect { with_media, quantities, searches, .. } = *call;
    let max = |prices: &[Option<i64>]| prices.iter().flatten().copied().max().unwrap_or(0);
    let media = |price: Option<i64>| price.filter(|_| with_media);
    let input = [
        rates.input,
        rates.cached,
        rates.cache_write,
        rates.cache_write_long,
        media(rates.input_audio),
        media(rates.cached_audio),
        media(rates.input_image),
    ];
    // What a model puts out is not the caller's choice alone.
    let output = [rates.output, rates.output_audio, rates.output_image];
    let known = rates.bill(Used { quantities, ..Used::default() }).total().and_then(PicoUsd::to_row);
    let least = i64::from(rates.input.is_none() && !rates.is_free());
    let request = known.unwrap_or(i64::MAX).saturating_add(fees(rates, searches)).max(least);
    Ceiling { input: max(&input), output: max(&output), request }
}

/// The most that so many searches cost: each may be of the dearer kind.
fn fees(rates: &Rates, searches: u64) -> i64 {
    if searches == 0 {
        return 0;
    }
    // Where the web is charged by the request it is not by the search.
    let of_web = rates.web_search.filter(|_| rates.grounded.is_none());
    let each = of_web.into_iter().chain(rates.file_search).max().unwrap_or(0);
    let all = PicoUsd::of(searches, each).and_then(PicoUsd::to_row).unwrap_or(i64::MAX);
    all.saturating_add(rates.grounded.unwrap_or(0))
}

impl Ceiling {
    fn max(self, other: Self) -> Self {
        Self {
            input: self.input.max(other.input),
            output: self.output.max(other.output),
            request: self.request.max(other.request),
        }
    }
}

#[cfg(test)]
#[path = "tariff_tests.rs"]
mod tests;
