//! Unit prices of one model at one moment, and the bill of one call by them.
//!
//! May use: tokens, quantities and money of this layer.

use crate::domain::money::{MoneyError, PicoUsd};
use crate::domain::quantities::Quantities;
use crate::domain::tokens::Tokens;

/// How many kinds of thing have a price of their own.
pub const KINDS: usize = 17;

/// What has a price of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Input that is nothing of the below.
    Input,
    /// Input read from the provider's cache, audio aside.
    Cached,
    /// Input written to the provider's cache, to be kept for less than an hour.
    CacheWrite,
    /// Input written to the provider's cache, to be kept for an hour or longer.
    CacheWriteLong,
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
    /// Audio by its length.
    AudioHour,
    /// A character that is spoken.
    Character,
    /// An image that is made.
    Image,
    /// A search of the web.
    WebSearch,
    /// A request in which the web was searched, however often.
    Grounded,
    /// A search of files.
    FileSearch,
    /// The request itself.
    Request,
}

/// What prices are said for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// A token.
    Token,
    /// An hour, of which milliseconds are counted: prices that providers publish are whole pico-dollars an hour, but not a
    /// millisecond.
    Hour,
    /// A character.
    Character,
    /// An image.
    Image,
    /// A search.
    Search,
    /// A request.
    Request,
}

impl Unit {
    /// The name of what is counted.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Hour => "millisecond",
            Self::Character => "character",
            Self::Image => "image",
            Self::Search => "search",
            Self::Request => "request",
        }
    }

    /// For how many of what is counted a price is.
    pub fn per(self) -> u64 {
        if self == Self::Hour { 3_600_000 } else { 1 }
    }
}

impl Kind {
    /// The name in price files and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Cached => "cached",
            Self::CacheWrite => "cache_write",
            Self::CacheWriteLong => "cache_write_long",
            Self::InputAudio => "input_audio",
            Self::CachedAudio => "cached_audio",
            Self::InputImage => "input_image",
            Self::Output => "output",
            Self::OutputAudio => "output_audio",
            Self::OutputImage => "output_image",
            Self::AudioHour => "audio_hour",
            Self::Character => "character",
            Self::Image => "image",
            Self::WebSearch => "web_search",
            Self::Grounded => "grounded",
            Self::FileSearch => "file_search",
            Self::Request => "request",
        }
    }

    /// What its price is said for.
    pub fn unit(self) -> Unit {
        match self {
            Self::AudioHour => Unit::Hour,
            Self::Character => Unit::Character,
            Self::Image => Unit::Image,
            Self::WebSearch | Self::FileSearch => Unit::Search,
            Self::Grounded | Self::Request => Unit::Request,
            Self::Input
            | Self::Cached
            | Self::CacheWrite
            | Self::CacheWriteLong
            | Self::InputAudio
            | Self::CachedAudio
            | Self::InputImage
            | Self::Output
            | Self::OutputAudio
            | Self::OutputImage => Unit::Token,
        }
    }
}

/// What one call used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// Tokens.
    pub tokens: Tokens,
    /// What is charged beside them.
    pub quantities: Quantities,
}

impl From<&Tokens> for Used {
    fn from(tokens: &Tokens) -> Self {
        Self { tokens: *tokens, quantities: Quantities::default() }
    }
}

impl Used {
    /// Whether it used nothing at all.
    pub fn is_nothing(&self) -> bool {
        self.tokens.total() == 0 && self.quantities.is_nothing()
    }

    /// Both together; `None` where a count does not fit.
    pub fn plus(&self, other: &Self) -> Option<Self> {
        let (tokens, quantities) = (self.tokens.plus(&other.tokens)?, self.quantities.plus(&other.quantities)?);
        Some(Self { tokens, quantities })
    }
}

/// Prices in pico-dollars (1e-12 USD) for each [`Unit`]. `None`: the provider publishes no price for that kind alone, and
/// [`Rates::bill`] says what then holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Input; `None` for models that are not charged by the token.
    pub input: Option<i64>,
    /// Output; `None` for models that put out none (embeddings).
    pub output: Option<i64>,
    /// Input read from the cache.
    pub cached: Option<i64>,
    /// Input written to the cache.
    pub cache_write: Option<i64>,
    /// Input written to the cache for an hour or longer.
    pub cache_write_long: Option<i64>,
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
    /// An hour of audio.
    pub audio_hour: Option<i64>,
    /// A character that is spoken.
    pub character: Option<i64>,
    /// An image that is made.
    pub image: Option<i64>,
    /// A search of the web. Where `grounded` has a price there is none.
    pub web_search: Option<i64>,
    /// A request in which the web was searched, however often.
    pub grounded: Option<i64>,
    /// A search of files.
    pub file_search: Option<i64>,
    /// The request itself; without one nothing is charged for it.
    pub request: Option<i64>,
}

/// One line of a bill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// What was bought.
    pub kind: Kind,
    /// How many: tokens, milliseconds, characters, images, searches, requests.
    pub quantity: u64,
    /// The price, in pico-dollars for [`Unit::per`] of them; `None` where there is none.
    pub pico: Option<i64>,
}

/// The bill of one call: everything of it in exactly one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bill {
    /// A line for each kind; many have nothing in them.
    pub lines: [Line; KINDS],
    /// Whether everything had a price that is meant for it.
    pub complete: bool,
}

/// What is left of a whole while its kinds are taken out, the special ones first.
struct Remainder {
    left: u64,
    short: bool,
}

impl Line {
    /// What the line costs; nothing is known of one without a price, and it adds nothing. A part of a pico-dollar, which
    /// only audio can have, is rounded up: once, as a call has one such line.
    ///
    /// # Errors
    /// When it is more than money counts.
    pub fn cost(&self) -> Result<PicoUsd, MoneyError> {
        PicoUsd::of_part(self.quantity, self.pico.unwrap_or(0), self.kind.unit().per())
    }

    /// Whether something was bought.
    pub fn is_used(&self) -> bool {
        self.quantity > 0
    }
}

impl Bill {
    /// What the call costs: the sum of the lines.
    ///
    /// # Errors
    /// When it is more than money counts.
    pub fn total(&self) -> Result<PicoUsd, MoneyError> {
        self.lines.iter().try_fold(PicoUsd::ZERO, |sum, line| sum.plus(line.cost()?))
    }

    /// Whether nothing of what was bought has any price, so that nothing is known of the cost.
    pub fn is_unknown(&self) -> bool {
        let mut bought = self.lines.iter().filter(|line| line.is_used()).peekable();
        bought.peek().is_some() && bought.all(|line| line.pico.is_none())
    }

    /// Whether everything that was bought has a price.
    pub fn has_all_prices(&self) -> bool {
        self.lines.iter().all(|line| !line.is_used() || line.pico.is_some())
    }

    /// Whether something that was bought costs something.
    pub fn has_costs(&self) -> bool {
        self.lines.iter().any(|line| line.is_used() && line.pico.is_some_and(|pico| pico > 0))
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

impl Default for Rates {
    fn default() -> Self {
        Self::NONE
    }
}

impl Rates {
    /// No price of anything, to make prices from: the default, for constants.
    pub const NONE: Self = Self {
        input: None,
        output: None,
        cached: None,
        cache_write: None,
        cache_write_long: None,
        input_audio: None,
        cached_audio: None,
        input_image: None,
        output_audio: None,
        output_image: None,
        audio_hour: None,
        character: None,
        image: None,
        web_search: None,
        grounded: None,
        file_search: None,
        request: None,
    };

    /// The same with another price for each that there is.
    #[must_use]
    pub fn each(&self, price: impl Fn(i64) -> i64) -> Self {
        let of = |pico: Option<i64>| pico.map(&price);
        Self {
            input: of(self.input),
            output: of(self.output),
            cached: of(self.cached),
            cache_write: of(self.cache_write),
            cache_write_long: of(self.cache_write_long),
            input_audio: of(self.input_audio),
            cached_audio: of(self.cached_audio),
            input_image: of(self.input_image),
            output_audio: of(self.output_audio),
            output_image: of(self.output_image),
            audio_hour: of(self.audio_hour),
            character: of(self.character),
            image: of(self.image),
            web_search: of(self.web_search),
            grounded: of(self.grounded),
            file_search: of(self.file_search),
            request: of(self.request),
        }
    }

    /// The same with the prices of `below` for what has none here. What [`Self::bill`] takes another price of the same row
    /// for, and finds the bill complete with, is not missing: cached input and images cost what input costs here.
    #[must_use]
    pub fn over(&self, below: &Self) -> Self {
        let tokens = if self.input.is_some() { self } else { below };
        // Searches of the web are charged one by one or by the request, never both.
        let searches = if self.web_search.or(self.grounded).is_some() { self } else { below };
        let cached_audio = below.cached_audio.filter(|_| tokens.input_audio.is_none());
        Self {
            input: tokens.input,
            output: tokens.output.or(below.output),
            cached: tokens.cached,
            cache_write: tokens.cache_write,
            cache_write_long: tokens
                .cache_write_long
                .or(below.cache_write_long.filter(|_| tokens.cache_write.is_some())),
            input_audio: tokens.input_audio.or(below.input_audio),
            cached_audio: tokens.cached_audio.or(cached_audio),
            input_image: tokens.input_image,
            output_audio: tokens.output_audio.or(below.output_audio),
            output_image: tokens.output_image.or(below.output_image),
            audio_hour: self.audio_hour.or(below.audio_hour),
            character: self.character.or(below.character),
            image: self.image.or(below.image),
            web_search: searches.web_search,
            grounded: searches.grounded,
            file_search: self.file_search.or(below.file_search),
            request: self.request.or(below.request),
        }
    }

    /// Whether there are prices, and nothing costs anything.
    pub fn is_free(&self) -> bool {
        let mut prices = self.kinds().into_iter().filter_map(|(_, price)| price).peekable();
        prices.peek().is_some() && prices.all(|price| price == 0)
    }

    /// Every kind with its price, for files, reports and checks.
    pub fn kinds(&self) -> [(Kind, Option<i64>); KINDS] {
        [
            (Kind::Input, self.input),
            (Kind::Cached, self.cached),
            (Kind::CacheWrite, self.cache_write),
            (Kind::CacheWriteLong, self.cache_write_long),
            (Kind::InputAudio, self.input_audio),
            (Kind::CachedAudio, self.cached_audio),
            (Kind::InputImage, self.input_image),
            (Kind::Output, self.output),
            (Kind::OutputAudio, self.output_audio),
            (Kind::OutputImage, self.output_image),
            (Kind::AudioHour, self.audio_hour),
            (Kind::Character, self.character),
            (Kind::Image, self.image),
            (Kind::WebSearch, self.web_search),
            (Kind::Grounded, self.grounded),
            (Kind::FileSearch, self.file_search),
            (Kind::Request, self.request),
        ]
    }

    /// The bill for what a call used. Kinds of token partition it: a special kind takes its tokens away from the general
    /// one. Quantities stand beside tokens.
    ///
    /// Where a kind has no price of its own:
    /// * cached input and cache writes cost what input costs: the provider gives no discount. Never nothing.
    /// * cache writes for an hour or longer cost what short ones cost, and the bill is not complete, unless the provider
    ///   has no price of writes at all: those that publish both charge more for the long ones.
    /// * image input costs what input costs: both providers count images into their text input price, and publish
    ///   an image price only where it differs.
    /// * cached audio costs what audio costs.
    /// * audio and image output and audio input are charged as text, and the bill is not complete: providers publish
    ///   much higher prices for them, so a missing one is a gap in the price list and no decision.
    /// * everything else costs nothing that is known, and the bill is not complete. So it is for input and output of a
    ///   model that is not charged by the token.
    ///
    /// The request itself is the exception: without a price of its own there is nothing to be charged.
    ///
    /// Counts that contradict each other (kinds that add up to more than their whole) are charged up to the whole, and
    /// the bill is not complete. Neither is it where images have a price of their own and part of the input was cached:
    /// no count says how much of the cached part was images.
    pub fn bill(&self, used: impl Into<Used>) -> Bill {
        let Used { tokens, quantities } = used.into();
        let mut input = Remainder::of(tokens.prompt);
        let cached_audio = input.take(tokens.cached_audio);
        let cached = input.take(tokens.cached.saturating_sub(tokens.cached_audio));
        let cache_write_long = input.take(tokens.cache_write_long);
        let cache_write = input.take(tokens.cache_write.saturating_sub(tokens.cache_write_long));
        let input_audio = input.take(tokens.prompt_audio.saturating_sub(tokens.cached_audio));
        let contradicts = input.short;
        let input_image = input.take(tokens.prompt_image);
        let mut output = Remainder::of(tokens.completion);
        let output_audio = output.take(tokens.completion_audio);
        let output_image = output.take(tokens.completion_image);

        let writes = self.cache_write.or(self.input);
        let has_kept = cached + cache_write + cache_write_long > 0;
        let images_unclear = self.input_image.is_some() && tokens.prompt_image > 0 && has_kept;
        let gap = |quantity: u64, own: Option<i64>| quantity > 0 && own.is_none();
        let is_grounded = self.grounded.is_some();
        let searches = if is_grounded { 0 } else { quantities.web_searches };
        let grounded = u64::from(is_grounded && quantities.web_searches > 0);
        let line = |kind, quantity, pico| Line { kind, quantity, pico };
        let lines = [
            line(Kind::Input, input.left, self.input),
            line(Kind::Cached, cached, self.cached.or(self.input)),
            line(Kind::CacheWrite, cache_write, writes),
            line(Kind::CacheWriteLong, cache_write_long, self.cache_write_long.or(writes)),
            line(Kind::InputAudio, input_audio, self.input_audio.or(self.input)),
            line(
                Kind::CachedAudio,
                cached_audio,
                self.cached_audio.or(self.input_audio).or(self.cached).or(self.input),
            ),
            line(Kind::InputImage, input_image, self.input_image.or(self.input)),
            line(Kind::Output, output.left, self.output),
            line(Kind::OutputAudio, output_audio, self.output_audio.or(self.output)),
            line(Kind::OutputImage, output_image, self.output_image.or(self.output)),
            line(Kind::AudioHour, quantities.audio_ms, self.audio_hour),
            line(Kind::Character, quantities.characters, self.character),
            line(Kind::Image, quantities.images, self.image),
            line(Kind::WebSearch, searches, self.web_search),
            line(Kind::Grounded, grounded, self.grounded),
            line(Kind::FileSearch, quantities.file_searches, self.file_search),
            line(Kind::Request, u64::from(self.request.is_some()), self.request),
        ];
        let complete = !(contradicts
            || output.short
            || images_unclear
            || (self.cache_write.is_some() && gap(cache_write_long, self.cache_write_long))
            || gap(input_audio, self.input_audio)
            || gap(cached_audio, self.cached_audio.or(self.input_audio))
            || gap(output_audio, self.output_audio)
            || gap(output_image, self.output_image)
            || lines.iter().any(|line| line.is_used() && line.pico.is_none()));
        Bill { lines, complete }
    }
}
