//! Unit prices of one model at one moment, and the bill of one call by them.
//!
//! May use: tokens and money of this layer.

use crate::domain::money::{MoneyError, PicoUsd};
use crate::domain::tokens::Tokens;

/// How many kinds of token have a price of their own.
pub const KINDS: usize = 9;

/// A kind of token that can have a price of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TokenKind {
    /// Input that is nothing of the below.
    Input,
    /// Input read from the provider's cache, audio aside.
    Cached,
    /// Input written to the provider's cache.
    CacheWrite,
    /// Audio input that was not cached.
    InputAudio,
    /// Audio input read from the provider's cache.
    CachedAudio,
    /// Image input.
    InputImage,
    /// Output that is nothing of the below; thoughts are part of it.
    Output,
    /// Audio output.
    OutputAudio,
    /// Image output.
    OutputImage,
}

impl TokenKind {
    /// The name in price files and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Cached => "cached",
            Self::CacheWrite => "cache_write",
            Self::InputAudio => "input_audio",
            Self::CachedAudio => "cached_audio",
            Self::InputImage => "input_image",
            Self::Output => "output",
            Self::OutputAudio => "output_audio",
            Self::OutputImage => "output_image",
        }
    }
}

/// Prices in pico-dollars (1e-12 USD) a token. `None`: the provider publishes no price for that kind alone, and
/// [`Rates::bill`] says what then holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// Input.
    pub input: i64,
    /// Output; `None` for models that put out none (embeddings).
    pub output: Option<i64>,
    /// Input read from the cache.
    pub cached: Option<i64>,
    /// Input written to the cache.
    pub cache_write: Option<i64>,
    /// Audio input.
    pub input_audio: Option<i64>,
    /// Audio input read from the cache.
    pub cached_audio: Option<i64>,
    /// Image input.
    pub input_image: Option<i64>,
    /// Audio output.
    pub output_audio: Option<i64>,
    /// Image output.
    pub output_image: Option<i64>,
}

/// One line of a bill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// What was bought.
    pub kind: TokenKind,
    /// How many.
    pub tokens: u64,
    /// At how many pico-dollars each.
    pub pico_per_token: i64,
}

/// The bill of one call: every token of it in exactly one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bill {
    /// A line for each kind; many have no tokens.
    pub lines: [Line; KINDS],
    /// Whether every token had a price that is meant for it.
    pub complete: bool,
}

/// What is left of a whole while its kinds are taken out, the special ones first.
struct Remainder {
    left: u64,
    short: bool,
}

impl Line {
    /// What the line costs.
    pub fn cost(&self) -> Result<PicoUsd, MoneyError> {
        PicoUsd::of(self.tokens, self.pico_per_token)
    }
}

impl Bill {
    /// What the call costs: the sum of the lines.
    pub fn total(&self) -> Result<PicoUsd, MoneyError> {
        self.lines.iter().try_fold(PicoUsd::ZERO, |sum, line| sum.plus(line.cost()?))
    }
}

impl Remainder {
    fn of(whole: u64) -> Self {
        Self { left: whole, short: false }
    }

    fn take(&mut self, wanted: u64) -> u64 {
        let taken = wanted.min(self.left);
        self.left -= taken;
        self.short |= taken < wanted;
        taken
    }
}

impl Rates {
    /// Whether nothing costs anything.
    pub fn is_free(&self) -> bool {
        self.input == 0 && self.optional().iter().all(|(_, price)| price.unwrap_or(0) == 0)
    }

    /// Every kind but input with its price, for files, reports and checks.
    pub fn optional(&self) -> [(TokenKind, Option<i64>); KINDS - 1] {
        [
            (TokenKind::Cached, self.cached),
            (TokenKind::CacheWrite, self.cache_write),
            (TokenKind::InputAudio, self.input_audio),
            (TokenKind::CachedAudio, self.cached_audio),
            (TokenKind::InputImage, self.input_image),
            (TokenKind::Output, self.output),
            (TokenKind::OutputAudio, self.output_audio),
            (TokenKind::OutputImage, self.output_image),
        ]
    }

    /// The bill for `tokens`. Kinds partition the call: a special kind takes its tokens away from the general one.
    ///
    /// Where a kind has no price of its own:
    /// * cached input and cache writes cost what input costs: the provider gives no discount. Never nothing.
    /// * image input costs what input costs: both providers count images into their text input price, and publish
    ///   an image price only where it differs.
    /// * cached audio costs what audio costs.
    /// * audio and image output and audio input are charged as text, and the bill is not complete: providers publish
    ///   much higher prices for them, so a missing one is a gap in the price list and no decision.
    /// * output of a model without an output price costs nothing, and the bill is not complete.
    ///
    /// Counts that contradict each other (kinds that add up to more than their whole) are charged up to the whole, and
    /// the bill is not complete. Neither is it where images have a price of their own and part of the input was cached:
    /// no count says how much of the cached part was images.
    pub fn bill(&self, tokens: &Tokens) -> Bill {
        let mut input = Remainder::of(tokens.prompt);
        let cached_audio = input.take(tokens.cached_audio);
        let cached = input.take(tokens.cached.saturating_sub(tokens.cached_audio));
        let cache_write = input.take(tokens.cache_write);
        let input_audio = input.take(tokens.prompt_audio.saturating_sub(tokens.cached_audio));
        let contradicts = input.short;
        let input_image = input.take(tokens.prompt_image);
        let mut output = Remainder::of(tokens.completion);
        let output_audio = output.take(tokens.completion_audio);
        let output_image = output.take(tokens.completion_image);

        let text_out = self.output.unwrap_or(0);
        let cached_price = self.cached.unwrap_or(self.input);
        let images_unclear = self.input_image.is_some() && tokens.prompt_image > 0 && cached + cache_write > 0;
        let complete = !(contradicts
            || output.short
            || images_unclear
            || (input_audio > 0 && self.input_audio.is_none())
            || (cached_audio > 0 && self.cached_audio.or(self.input_audio).is_none())
            || (output_audio > 0 && self.output_audio.is_none())
            || (output_image > 0 && self.output_image.is_none())
            || (output.left > 0 && self.output.is_none()));
        let line = |kind, tokens, pico_per_token| Line { kind, tokens, pico_per_token };
        let lines = [
            line(TokenKind::Input, input.left, self.input),
            line(TokenKind::Cached, cached, cached_price),
            line(TokenKind::CacheWrite, cache_write, self.cache_write.unwrap_or(self.input)),
            line(TokenKind::InputAudio, input_audio, self.input_audio.unwrap_or(self.input)),
            line(TokenKind::CachedAudio, cached_audio, self.cached_audio.or(self.input_audio).unwrap_or(cached_price)),
            line(TokenKind::InputImage, input_image, self.input_image.unwrap_or(self.input)),
            line(TokenKind::Output, output.left, text_out),
            line(TokenKind::OutputAudio, output_audio, self.output_audio.unwrap_or(text_out)),
            line(TokenKind::OutputImage, output_image, self.output_image.unwrap_or(text_out)),
        ];
        Bill { lines, complete }
    }
}
