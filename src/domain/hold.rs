//! How much of a token or a cost limit one call holds until its provider says what it used.
//!
//! May use: this layer. Pure: what is known of the call comes in, amounts come out. The two ways differ in what they may be
//! wrong about. An estimate is what the call will probably use, and is wrong by the difference. A worst case is never below
//! what the call uses: a token of text is at least one byte of the body, what the body does not hold (an image, a file, an
//! earlier answer) has at most the tokens that a model reads at once, and the provider was told the most that it may put out.

use super::budget::Sizing;
use super::money::PicoUsd;
use super::price::ServiceTier;
use super::price::tariff::Ceiling;

/// Pico-dollars in a nano-dollar, which is what counters of cost count.
const PICO_PER_NANO: i128 = 1_000;

/// Fewer tokens of output are not worth a call: it is OpenAI's own least maximum.
pub const OUTPUT_MIN: u64 = 16;

/// What is believed where neither the call nor the model says how much it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Tokens that a model reads at most: for input that is not in the body.
    pub context_max: u64,
    /// Tokens of one answer of a model that nobody knows the maximum of.
    pub output_max: u64,
    /// The least cost, in nano-dollars, that a call holds whose cost no number of tokens bounds: images, speech.
    pub cost_min: u64,
    /// Searches that a provider makes at most for one call.
    pub searches_max: u64,
    /// The tier of a call that names none: the provider account's own setting.
    pub account_tier: ServiceTier,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            context_max: 1_048_576,
            output_max: 16_384,
            cost_min: 10_000_000,
            searches_max: 16,
            account_tier: ServiceTier::Standard,
        }
    }
}

/// What is known of a call before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// Tokens of its input, estimated.
    pub input_estimate: u64,
    /// Bytes of its body.
    pub body_bytes: u64,
    /// Whether the model reads what is not in the body, or what has tokens that do not follow from its bytes.
    pub beyond_body: bool,
    /// Whether its answer is made of tokens that a maximum bounds.
    pub has_output: bool,
    /// The most tokens that it declares, all answers together.
    pub declared: Option<u64>,
    /// How many answers it asks for.
    pub answers: u64,
    /// The most tokens of one answer of its model.
    pub model_max: Option<u64>,
    /// Whether tokens alone say what it costs.
    pub costs_tokens_only: bool,
}

/// The most that a call may use, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Input.
    pub input: u64,
    /// Output, all answers together.
    pub output: u64,
}

impl Known {
    /// How much a call is taken for.
    pub fn size(&self, sizing: Sizing, bounds: &Bounds) -> Size {
        let input = match sizing {
            Sizing::Estimate => self.input_estimate,
            Sizing::WorstCase if self.beyond_body => self.body_bytes.saturating_add(bounds.context_max),
            Sizing::WorstCase => self.body_bytes,
        };
        let undeclared = || self.model_max.unwrap_or(bounds.output_max).saturating_mul(self.answers.max(1));
        let output = if self.has_output { self.declared.unwrap_or_else(undeclared) } else { 0 };
        Size { input, output }
    }
}

impl Size {
    /// All tokens.
    pub fn tokens(self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// What they cost at most, in nano-dollars, rounded up; at least 1, as a call that costs something is not free.
    pub fn cost(self, dearest: &Ceiling) -> u64 {
        let of = |tokens: u64, pico: i64| i128::from(tokens).saturating_mul(i128::from(pico));
        let pico = of(self.input, dearest.input)
            .saturating_add(of(self.output, dearest.output))
            .saturating_add(i128::from(dearest.request));
        nano_up(PicoUsd(pico)).max(1)
    }

    /// The most tokens of output for which all tokens stay within `tokens`.
    pub fn output_within_tokens(self, tokens: u64) -> u64 {
        tokens.saturating_sub(self.input)
    }

    /// The most tokens of output for which the cost stays within so many nano-dollars; none where the input alone is beyond.
    pub fn output_within_cost(self, nano: u64, dearest: &Ceiling) -> u64 {
        let input = i128::from(self.input).saturating_mul(i128::from(dearest.input));
        let fixed = input.saturating_add(i128::from(dearest.request));
        let left = (i128::from(nano) * PICO_PER_NANO).saturating_sub(fixed);
        match (left, i128::from(dearest.output)) {
            (..0, _) => 0,
            (_, ..=0) => u64::MAX,
            (left, output) => u64::try_from(left / output).unwrap_or(u64::MAX),
        }
    }
}

/// Whether a call costs nothing at these prices, whatever it uses.
pub fn is_free(dearest: &Ceiling) -> bool {
    (dearest.input, dearest.output, dearest.request) == (0, 0, 0)
}

/// An amount in whole nano-dollars, rounded up; 0 for a negative one.
pub fn nano_up(amount: PicoUsd) -> u64 {
    u64::try_from(amount.0.max(0).saturating_add(PICO_PER_NANO - 1) / PICO_PER_NANO).unwrap_or(u64::MAX)
}

/// Nano-dollars as money.
pub fn money_of(nano: u64) -> PicoUsd {
    PicoUsd(i128::from(nano) * PICO_PER_NANO)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        context_max: 1_000,
        output_max: 300,
        cost_min: 7,
        searches_max: 16,
        account_tier: ServiceTier::Standard,
    };

    #[test]
    fn a_call_is_as_large_as_what_bounds_it() {
        let chat = Known {
            input_estimate: 25,
            body_bytes: 100,
            has_output: true,
            answers: 1,
            costs_tokens_only: true,
            ..Known::default()
        };
        let declared = Known { declared: Some(60), model_max: Some(500), ..chat };
        let two = Known { answers: 2, model_max: Some(500), ..chat };
        let refers = Known { beyond_body: true, ..declared };
        let embedding = Known { has_output: false, declared: Some(9), ..chat };
        for (what, known, estimate, worst) in [
            ("undeclared, unknown model", chat, (25, 300), (100, 300)),
            ("declared", declared, (25, 60), (100, 60)),
            ("two answers of a known model", two, (25, 1_000), (100, 1_000)),
            ("an earlier answer", refers, (25, 60), (1_100, 60)),
            ("an embedding", embedding, (25, 0), (100, 0)),
            ("no number of answers", Known { answers: 0, ..chat }, (25, 300), (100, 300)),
            ("nothing too large", Known { body_bytes: u64::MAX, ..refers }, (25, 60), (u64::MAX, 60)),
        ] {
            let size = |sizing| known.size(sizing, &BOUNDS);
            assert_eq!(size(Sizing::Estimate), Size { input: estimate.0, output: estimate.1 }, "{what}");
            assert_eq!(size(Sizing::WorstCase), Size { input: worst.0, output: worst.1 }, "{what}");
        }
    }

    #[test]
    fn cost_is_exact_and_rounded_up_to_a_nano_dollar() {
        let price = Ceiling { input: 150_000, output: 600_000, request: 0 };
        for (input, output, nano) in [(1_000, 1_000, 750_000), (1, 0, 150), (0, 0, 1)] {
            assert_eq!(Size { input, output }.cost(&price), nano, "{input} {output}");
        }
        assert_eq!(Size { input: 1, output: 0 }.cost(&Ceiling { input: 1, ..Ceiling::default() }), 1);
        assert_eq!(Size { input: 0, output: 0 }.cost(&Ceiling { request: 2_001, ..Ceiling::default() }), 3);
        let most = Size { input: u64::MAX, output: u64::MAX };
        assert_eq!(most.cost(&Ceiling { input: i64::MAX, output: i64::MAX, request: i64::MAX }), u64::MAX);
    }

    #[test]
    fn output_is_lowered_to_what_fits() {
        let size = Size { input: 100, output: 5_000 };
        assert_eq!(size.output_within_tokens(180), 80);
        assert_eq!(size.output_within_tokens(80), 0);
        let price = Ceiling { input: 10_000, output: 40_000, request: 0 };
        assert_eq!(size.output_within_cost(1_000, &price), 0, "the input takes it all");
        assert_eq!(size.output_within_cost(1_039, &price), 0);
        assert_eq!(size.output_within_cost(1_040, &price), 1);
        assert_eq!(size.output_within_cost(999, &price), 0);
        assert_eq!(size.output_within_cost(1_000, &Ceiling { output: 0, ..price }), u64::MAX);
    }

    #[test]
    fn the_worked_table_of_the_readme_is_right() {
        let price = Ceiling { input: 2_500_000, output: 10_000_000, request: 0 };
        let left = 30_000_000;
        for (input, output, nano, fits) in [
            (500, 1_000, 11_250_000, 2_875),
            (2_000, 1_000, 15_000_000, 2_500),
            (12_000, 1_000, 40_000_000, 0),
            (6_000, 4_000, 55_000_000, 1_500),
            (900, 1_000, 12_250_000, 2_775),
        ] {
            let size = Size { input, output };
            assert_eq!((size.cost(&price), size.output_within_cost(left, &price)), (nano, fits), "{input} {output}");
        }
    }

    #[test]
    fn nano_dollars_are_money() {
        assert_eq!((nano_up(PicoUsd(1)), nano_up(PicoUsd(2_000)), nano_up(PicoUsd(-5))), (1, 2, 0));
        assert_eq!(money_of(30_000_000).to_string(), "0.03");
    }

    proptest! {
        #[test]
        fn what_is_lowered_to_fit_fits(
            input in 0_u64..10_000_000,
            price in (0_i64..1_000_000, 1_i64..1_000_000, 0_i64..1_000_000),
            room in 1_000_u64..10_000_000_000,
        ) {
            let price = Ceiling { input: price.0, output: price.1, request: price.2 };
            let size = Size { input, output: 0 };
            // Beyond what the input takes there is room for one token of the dearest, at least.
            let nano = size.cost(&price) + room;
            let output = size.output_within_cost(nano, &price);
            prop_assert!(output > 0);
            let cost = |output| Size { output, ..size }.cost(&price);
            prop_assert!(cost(output) <= nano.max(1));
            prop_assert!(cost(output + 1) > nano);
        }
    }
}
