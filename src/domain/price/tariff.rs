//! What a tenant pays: the list of prices, and what its plan makes of it.
//!
//! May use: this layer. The provider's cost of a call is by the list alone. What is billed is the plan's own price where
//! it has one for the model, else that cost at the plan's percent, rounded up to a whole pico-dollar once a call. A model
//! that answers and is on no list has the prices of the one that was asked for: [`Named`].

use std::fmt;
use std::sync::Arc;

use super::rates::{Rates, Used};
use super::{Charge, PriceBook, Priced, ServiceTier};
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
    /// Whether that is by prices of the plan's own.
    pub is_own: bool,
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
    /// of the model that was asked for, [`Named::priced_as`], it is never more than [`Priced::Incomplete`].
    pub fn charge(&self, named: Named<'_>, tier: ServiceTier, used: impl Into<Used>, at: Micros) -> Charged {
        let (used, provider, model) = (used.into(), named.provider, self.priced_as(named, at));
        let charge = self.list.charge(provider, model, tier, used, at);
        let charge = if model == named.answered { charge } else { charge.doubted() };
        let own = self.pricing.own.as_ref().and_then(|own| own.explain(provider, model, tier, used, at));
        // An entry that has no price of anything that was used is none.
        match own.and_then(|own| own.charge().cost) {
            Some(billable) => Charged { charge, billable: Some(billable), is_own: true },
            None => Charged { charge, billable: self.billable(charge.cost), is_own: false },
        }
    }

    /// Whether the sum of many calls has the price of all of them: unless long calls have another price than short ones, or
    /// each call one of its own, as how many there were the sum does not say.
    pub fn prices_sums(&self, named: Named<'_>, tier: ServiceTier, prompt_tokens: u64, at: Micros) -> bool {
        let model = self.priced_as(named, at);
        let is_one = |book: &PriceBook| {
            let rates = |input| book.rates(named.provider, model, tier, input, at);
            rates(0) == rates(prompt_tokens) && rates(0).is_none_or(|rates| rates.request.is_none())
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
    /// will cost. By the plan's own prices, and also by the list's where a call may be billed by those, as the plan's own
    /// have nothing of what it used.
    pub fn ceiling(&self, call: &Prospect<'_>) -> Option<Ceiling> {
        let Pricing { percent, own } = &self.pricing;
        let billed = |pico| percent.of_price(pico);
        let of_list = |Dearest { ceiling: Ceiling { input, output, request }, .. }| Ceiling {
            input: billed(input),
            output: billed(output),
            request: billed(request),
        };
        let listed = || dearest(&self.list, call).map(of_list);
        let Some(own) = own.as_deref().and_then(|own| dearest(own, call)) else { return listed() };
        if own.has_input && own.has_output && own.has_quantities {
            return Some(own.ceiling);
        }
        let Some(listed) = listed() else { return Some(own.ceiling) };
        // What costs nothing by the list either (the output of embeddings) is not missing.
        let has_all = (own.has_input || listed.input == 0) && (own.has_output || listed.output == 0);
        Some(if has_all && own.has_quantities { own.ceiling } else { own.ceiling.max(listed) })
    }
}

impl<'a> Named<'a> {
    /// The name whose prices the call has. It is the one that was answered, unless that has no price in either list and the
    /// one that was asked for has: what an alias stands for may be newer than the list, and such a call must not slip
    /// through a limit of cost that the alias was held against.
    pub fn priced_as(self, list: &PriceBook, own: Option<&PriceBook>, at: Micros) -> &'a str {
        let Self { provider, answered, requested } = self;
        let is_known = |model| [Some(list), own].into_iter().flatten().any(|book| book.knows(provider, model, at));
        if is_known(answered) || !is_known(requested) { answered } else { requested }
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

/// The dearest of one book, and what of it has a price at all.
#[derive(Debug, Clone, Copy)]
struct Dearest {
    ceiling: Ceiling,
    has_input: bool,
    has_output: bool,
    has_quantities: bool,
}

fn dearest(book: &PriceBook, call: &Prospect<'_>) -> Option<Dearest> {
    let Prospect { provider, model, tier, input_tokens, at, .. } = *call;
    let model = book.model(provider, model)?;
    // The step that an input of that length is at, and each one below it: the input may turn out to be shorter.
    let of = |tier: ServiceTier| {
        let steps = model.rows.iter().filter(move |row| row.tier == tier).map(|row| row.above.saturating_add(1));
        let lengths = steps.filter(|length| *length <= input_tokens).chain([input_tokens, 0]);
        let rows = lengths.filter_map(move |length| model.rates(tier, length, at));
        rows.map(|rates| of_rates(rates, call)).reduce(Dearest::max)
    };
    of(tier).or_else(|| of(ServiceTier::Standard))
}

fn of_rates(rates: &Rates, call: &Prospect<'_>) -> Dearest {
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
    let bill = rates.bill(Used { quantities, ..Used::default() });
    let known = bill.total().and_then(PicoUsd::to_row);
    let least = i64::from(rates.input.is_none() && !rates.is_free());
    let request = known.unwrap_or(i64::MAX).saturating_add(fees(rates, searches)).max(least);
    Dearest {
        ceiling: Ceiling { input: max(&input), output: max(&output), request },
        has_input: rates.input.is_some(),
        has_output: rates.output.is_some(),
        has_quantities: !bill.lacks_prices_of_quantities(),
    }
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

impl Dearest {
    fn max(self, other: Self) -> Self {
        Self {
            ceiling: self.ceiling.max(other.ceiling),
            has_input: self.has_input && other.has_input,
            has_output: self.has_output && other.has_output,
            has_quantities: self.has_quantities && other.has_quantities,
        }
    }
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::price::pattern::Pattern;
    use crate::domain::price::{ModelPrices, Origin, PriceRow};
    use crate::domain::tokens::Tokens;

    fn percent(text: &str) -> Percent {
        Percent::parse(text).unwrap()
    }

    fn row(tier: ServiceTier, above: u64, rates: Rates) -> PriceRow {
        PriceRow { tier, from: None, above, rates }
    }

    fn model(rows: Vec<PriceRow>) -> ModelPrices {
        ModelPrices {
            provider: "openai".into(),
            name: "m".into(),
            names: vec![Pattern::parse("m*").unwrap()],
            except: Vec::new(),
            unverified: None,
            rows,
            origin: Origin::default(),
        }
    }

    fn book(version: &str, rows: Vec<PriceRow>) -> Arc<PriceBook> {
        Arc::new(PriceBook::new(version.into(), vec![model(rows)]).unwrap())
    }

    fn named<'a>(answered: &'a str, requested: &'a str) -> Named<'a> {
        Named { provider: "openai", answered, requested }
    }

    fn ceiling(tariff: &Tariff, tier: ServiceTier, input_tokens: u64, with_media: bool) -> Option<[i64; 2]> {
        let (provider, model, at) = ("openai", "m-1", Micros(0));
        let ceiling = tariff.ceiling(&Prospect {
            provider,
            model,
            tier,
            input_tokens,
            with_media,
            quantities: Quantities::default(),
            searches: 0,
            at,
        });
        ceiling.map(|Ceiling { input, output, .. }| [input, output])
    }

    #[test]
    fn percentages_are_read_exactly_or_not_at_all() {
        for (text, hundredths) in
            [("100", 10_000), ("120", 12_000), ("97.5", 9_750), ("0.25", 25), ("0", 0), ("100000", 10_000_000)]
        {
            assert_eq!(Percent::parse(text), Some(Percent(hundredths)), "{text}");
            assert_eq!(percent(text).to_string(), text);
        }
        for text in ["", "-1", "1.234", "1.", ".5", "1e2", "100000.01", "+5", "5%", "99999999999"] {
            assert_eq!(Percent::parse(text), None, "{text}");
        }
        assert_eq!((percent("97.50"), percent("7.05").to_string()), (percent("97.5"), "7.05".to_owned()));
    }

    #[test]
    fn what_is_billed_is_rounded_up_once() {
        for (text, cost, billed) in [
            ("100", 7, 7),
            ("120", 1, 2),
            ("120", 5, 6),
            ("97.5", 1_000, 975),
            ("0.01", 1, 1),
            ("0", 9, 0),
            ("33.33", 0, 0),
        ] {
            assert_eq!(percent(text).of(PicoUsd(cost)), Ok(PicoUsd(billed)), "{text} of {cost}");
        }
        assert_eq!(percent("200").of(PicoUsd(i128::MAX)), Err(MoneyError::Overflow));
    }

    #[test]
    fn the_version_names_all_that_makes_a_price() {
        let (list, own) = (
            book("aaaaaaaaaaaa", vec![row(ServiceTier::Standard, 0, Rates { input: Some(1), ..Rates::default() })]),
            "bbbbbbbbbbbb",
        );
        let own_book = book(own, vec![row(ServiceTier::Standard, 0, Rates { input: Some(1), ..Rates::default() })]);
        for (percent, own, version) in [
            ("100", None, "aaaaaaaaaaaa"),
            ("97.5", None, "aaaaaaaaaaaax97.5"),
            ("100", Some(own), "aaaaaaaaaaaa+bbbbbbbbbbbb"),
            ("120", Some(own), "aaaaaaaaaaaa+bbbbbbbbbbbbx120"),
        ] {
            let percent = Percent::parse(percent).unwrap();
            let pricing = Pricing { percent, own: own.map(|_| own_book.clone()) };
            assert_eq!(*Tariff::new(list.clone(), pricing).version(), *version);
            assert_eq!(Version::parse(version), Some(Version { list: "aaaaaaaaaaaa", own, percent }));
        }
        assert_eq!(Version::parse("aaaaaaaaaaaaxx"), None);
    }

    #[test]
    fn the_ceiling_is_the_dearest_kind_and_step_that_the_call_can_meet() {
        let short = Rates {
            input: Some(10),
            output: Some(20),
            cache_write: Some(12),
            input_audio: Some(90),
            ..Rates::default()
        };
        // A longer input may be cheaper: then the shorter one counts, as the input may turn out to be.
        let long = Rates { input: Some(8), output: Some(30), ..Rates::default() };
        let flex = Rates { input: Some(5), output: Some(10), output_audio: Some(70), ..Rates::default() };
        let rows = || {
            vec![
                row(ServiceTier::Standard, 0, short),
                row(ServiceTier::Standard, 100, long),
                row(ServiceTier::Flex, 0, flex),
            ]
        };
        let list = Tariff::new(book("a", rows()), Pricing::default());
        assert_eq!(ceiling(&list, ServiceTier::Standard, 100, false), Some([12, 20]));
        assert_eq!(ceiling(&list, ServiceTier::Standard, 101, false), Some([12, 30]));
        assert_eq!(ceiling(&list, ServiceTier::Standard, 101, true), Some([90, 30]));
        assert_eq!(ceiling(&list, ServiceTier::Flex, 101, false), Some([5, 70]));
        // A tier without prices is charged at the standard ones.
        assert_eq!(ceiling(&list, ServiceTier::Batch, 0, false), Some([12, 20]));
        let (provider, model, tier) = ("openai", "other", ServiceTier::Standard);
        let other = Prospect {
            provider,
            model,
            tier,
            input_tokens: 1,
            with_media: true,
            quantities: Quantities::default(),
            searches: 0,
            at: Micros(0),
        };
        assert_eq!(list.ceiling(&other), None);

        let marked_up = Tariff::new(book("a", rows()), Pricing { percent: percent("125"), own: None });
        assert_eq!(ceiling(&marked_up, ServiceTier::Standard, 100, false), Some([15, 25]));
        let own = book(
            "b",
            vec![row(ServiceTier::Standard, 0, Rates { input: Some(1), output: Some(2), ..Rates::default() })],
        );
        let own = Tariff::new(book("a", rows()), Pricing { percent: percent("125"), own: Some(own) });
        assert_eq!(ceiling(&own, ServiceTier::Standard, 101, true), Some([1, 2]));
    }

    #[test]
    fn what_is_charged_beside_tokens_counts_as_far_as_it_is_known_before() {
        let spoken = Rates { character: Some(15), ..Rates::default() };
        let heard = Rates { audio_hour: Some(360), ..Rates::default() };
        let free = Rates { audio_hour: Some(0), ..Rates::default() };
        let dear = Rates { input: Some(3), request: Some(5), ..Rates::default() };
        let quantities = Quantities { characters: 4, ..Quantities::default() };
        let (provider, model, tier, at) = ("openai", "m", ServiceTier::Standard, Micros(0));
        let call = Prospect { provider, model, tier, input_tokens: 9, with_media: false, quantities, searches: 0, at };
        for (rates, percent_of_it, input, request) in [
            (spoken, "100", 0, 60),
            (spoken, "150", 0, 90),
            (heard, "100", 0, 1),
            (heard, "1", 0, 1),
            (free, "100", 0, 0),
            (dear, "100", 3, 5),
        ] {
            let list = book("a", vec![row(ServiceTier::Standard, 0, rates)]);
            let tariff = Tariff::new(list, Pricing { percent: percent(percent_of_it), own: None });
            let expected = Ceiling { input, output: 0, request };
            assert_eq!(tariff.ceiling(&call), Some(expected), "{rates:?} at {percent_of_it} %");
        }
    }

    #[test]
    fn an_own_price_that_lacks_a_kind_does_not_lower_the_ceiling_below_what_is_billed_instead() {
        let standard = |rates| vec![row(ServiceTier::Standard, 0, rates)];
        let (some, none) = (Some::<i64>, None);
        let rates = |input, output| Rates { input, output, ..Rates::NONE };
        let spoken = |character| Rates { character: some(character), ..rates(some(1), some(1)) };
        for (list, own, characters, expected) in [
            // What the own entry has no price of is billed at twice the list's.
            (rates(some(10), some(40)), Rates { character: some(5), ..Rates::NONE }, 0, (20, 80, 1)),
            (rates(some(10), some(40)), rates(some(2), none), 0, (20, 80, 0)),
            (rates(some(10), some(40)), rates(some(2), some(3)), 0, (2, 3, 0)),
            // Embeddings put nothing out.
            (rates(some(10), none), rates(some(2), none), 0, (2, 0, 0)),
            // Speech by the character has no tokens, so that an own price of those bills nothing of it.
            (spoken(7), rates(some(1), some(1)), 3, (2, 2, 42)),
            (spoken(7), spoken(5), 3, (1, 1, 15)),
        ] {
            let pricing = Pricing { percent: percent("200"), own: Some(book("b", standard(own))) };
            let tariff = Tariff::new(book("a", standard(list)), pricing);
            let (provider, model, tier, at) = ("openai", "m", ServiceTier::Standard, Micros(0));
            let quantities = Quantities { characters, ..Quantities::default() };
            let (input_tokens, with_media, searches) = (9, false, 0);
            let call = Prospect { provider, model, tier, input_tokens, with_media, quantities, searches, at };
            let Ceiling { input, output, request } = tariff.ceiling(&call).unwrap();
            assert_eq!((input, output, request), expected, "{list:?} {own:?}");
            let tokens = Tokens { prompt: if characters > 0 { 0 } else { 9 }, ..Tokens::default() };
            let billed = tariff.charge(named("m", "m"), tier, Used { tokens, quantities }, at).billable.unwrap();
            assert!(billed.0 <= i128::from(input * 9 + request), "{billed:?} {list:?} {own:?}");
        }
    }

    #[test]
    fn fees_of_searches_are_in_the_ceiling() {
        let rates = Rates { input: Some(0), output: Some(0), ..Rates::NONE };
        let by_search = Rates { web_search: Some(10), file_search: Some(3), ..rates };
        let by_request = Rates { grounded: Some(35), file_search: Some(3), ..rates };
        for (rates, searches, percent_of_it, request) in [
            (by_search, 0, "100", 0),
            (by_search, 1, "100", 10),
            (by_search, 16, "150", 240),
            (by_request, 0, "100", 0),
            (by_request, 16, "100", 35 + 48),
            (rates, 16, "100", 0),
            (by_search, u64::MAX, "100", i64::MAX),
        ] {
            let list = book("a", vec![row(ServiceTier::Standard, 0, rates)]);
            let tariff = Tariff::new(list, Pricing { percent: percent(percent_of_it), own: None });
            let (provider, model, tier, at) = ("openai", "m", ServiceTier::Standard, Micros(0));
            let (input_tokens, with_media, quantities) = (9, false, Quantities::default());
            let call = Prospect { provider, model, tier, input_tokens, with_media, quantities, searches, at };
            assert_eq!(tariff.ceiling(&call).unwrap().request, request, "{rates:?} {searches}");
        }
    }

    #[test]
    fn a_plan_bills_its_own_price_or_its_percent_of_the_cost() {
        let of = |input, output| {
            vec![row(ServiceTier::Standard, 0, Rates { input: Some(input), output, ..Rates::default() })]
        };
        let list = || book("a", of(3, Some(7)));
        let tokens = Tokens { prompt: 11, completion: 1, ..Tokens::default() };
        let charged = |tariff: &Tariff, model: &str| {
            let Charged { charge, billable, is_own } =
                tariff.charge(named(model, model), ServiceTier::Standard, &tokens, Micros(0));
            (charge.cost.map(|cost| cost.0), charge.priced, billable.map(|billable| billable.0), is_own)
        };
        let plain = Tariff::new(list(), Pricing::default());
        assert_eq!(charged(&plain, "m"), (Some(40), Priced::Priced, Some(40), false));
        assert_eq!(charged(&plain, "other"), (None, Priced::Unpriced, None, false));
        let dear = Tariff::new(list(), Pricing { percent: percent("101"), own: None });
        assert_eq!(charged(&dear, "m"), (Some(40), Priced::Priced, Some(41), false));
        // A price of its own is not marked up, and bills a model that the list does not know.
        let own = Arc::new(
            PriceBook::new(
                "b".into(),
                vec![ModelPrices { names: vec![Pattern::parse("*").unwrap()], ..model(of(1, Some(0))) }],
            )
            .unwrap(),
        );
        let own = Tariff::new(list(), Pricing { percent: percent("200"), own: Some(own) });
        assert_eq!(charged(&own, "m"), (Some(40), Priced::Priced, Some(11), true));
        assert_eq!(charged(&own, "other"), (None, Priced::Unpriced, Some(11), true));
        // What no row holds is not known.
        assert_eq!(dear.billable(Some(i64::MAX.into())), None);
    }

    #[test]
    fn an_answer_of_an_unknown_model_has_the_prices_of_the_one_that_was_asked_for() {
        use Priced::{Free, Incomplete, Priced as Exact, Unpriced};
        let book = |version: &str, models: &[(&str, i64)], from: Option<Micros>| {
            let entry = |(name, input): &(&str, i64)| {
                let rates = Rates { input: Some(*input), output: Some(*input), ..Rates::default() };
                let rows = vec![PriceRow { from, ..row(ServiceTier::Standard, 0, rates) }];
                ModelPrices { name: (*name).into(), names: vec![Pattern::parse(name).unwrap()], ..model(rows) }
            };
            Arc::new(PriceBook::new(version.into(), models.iter().map(entry).collect()).unwrap())
        };
        let list = book("a", &[("alias", 3), ("listed", 7), ("free", 0)], None);
        let tariff = |own: Option<Arc<PriceBook>>| Tariff::new(list.clone(), Pricing { own, ..Pricing::default() });
        let (plain, own) = (tariff(None), tariff(Some(book("b", &[("alias", 2), ("mine", 5), ("only", 4)], None))));
        let later = Tariff::new(book("c", &[("alias", 3)], Some(Micros(1))), Pricing::default());
        let tokens = Tokens { prompt: 10, ..Tokens::default() };
        for (tariff, answered, requested, cost, billed, priced) in [
            (&plain, "listed", "alias", Some(70), Some(70), Exact),
            (&plain, "alias-2", "alias", Some(30), Some(30), Incomplete),
            (&plain, "alias-2", "unheard-of", None, None, Unpriced),
            (&plain, "alias-2", "", None, None, Unpriced),
            (&plain, "free", "alias", Some(0), Some(0), Free),
            // Nobody wrote down that this one is free.
            (&plain, "free-2", "free", Some(0), Some(0), Incomplete),
            (&own, "alias-2", "alias", Some(30), Some(20), Incomplete),
            (&own, "listed", "alias", Some(70), Some(70), Exact),
            (&own, "mine", "alias", None, Some(50), Unpriced),
            (&own, "alias-2", "only", None, Some(40), Unpriced),
            (&later, "alias-2", "alias", None, None, Unpriced),
        ] {
            let charged = tariff.charge(named(answered, requested), ServiceTier::Standard, &tokens, Micros(0));
            let Charged { charge, billable, .. } = charged;
            let pico = |amount: Option<PicoUsd>| amount.map(|amount| amount.0);
            let found = (pico(charge.cost), pico(billable), charge.priced);
            assert_eq!(found, (cost, billed, priced), "{answered} for {requested}");
        }
    }

    proptest! {
        #[test]
        fn a_call_is_never_billed_above_its_ceiling(
            prices in (0_i64..1_000_000, 0_i64..1_000_000),
            tokens in (0_u64..1_000_000, 0_u64..1_000_000),
            hundredths in 0..=HUNDREDTHS_MAX,
        ) {
            let percent = Percent(hundredths);
            let cost = PicoUsd::of(tokens.0, prices.0).unwrap().plus(PicoUsd::of(tokens.1, prices.1).unwrap()).unwrap();
            let held = PicoUsd::of(tokens.0, percent.of_price(prices.0)).unwrap();
            let held = held.plus(PicoUsd::of(tokens.1, percent.of_price(prices.1)).unwrap()).unwrap();
            prop_assert!(percent.of(cost).unwrap() <= held);
        }
    }
}
