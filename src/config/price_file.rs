//! The price file: `config/prices.json`, which is built in, or one of an operator's own, which lies over it.
//!
//! ```json
//! {"format": 1, "about": {"anything": "for people"}, "models": [
//!   {"provider": "gemini", "model": "gemini-2.5-pro", "match": ["gemini-2.5-pro*"], "except": ["*-tts"], "rates": [
//!     {"tier": "standard", "input": 1250000, "cached": 125000, "output": 10000000},
//!     {"tier": "standard", "above": 200000, "input": 2500000, "cached": 250000, "output": 15000000},
//!     {"tier": "batch", "from": "2026-10-14", "input": 625000, "output": 5000000}]}]}
//! ```
//!
//! Prices are whole pico-dollars (1e-12 USD) a token, so 1 USD per million tokens is 1000000. Beside those of tokens
//! (`input`, `cached`, `cache_write`, `cache_write_long` for writes that are kept for an hour or longer, `input_audio`,
//! `cached_audio`, `input_image`, `output`, `output_audio`, `output_image`) a row may have prices for an `audio_hour`, a
//! `character` that is spoken, an `image` that is made, a `web_search` or, for each request that searched the web however
//! often, `grounded`, a `file_search`, and the `request` itself. An hour is the one unit of which parts are charged: what a
//! call's milliseconds come to is rounded up to a whole pico-dollar, once. A row has at least one price.
//!
//! `match` and `except` are
//! patterns of lower-case model names (`*` anything, `#` one digit); a plain name wins over every pattern, and patterns
//! are tried in the order of the file. `from` is a day (UTC) and missing for a price that always held; `above` is the
//! number of input tokens beyond which the row holds for the whole request. `unverified` gives a reason to doubt an
//! entry. Kinds without a price: see [`Rates::bill`]. An unknown field is an error.
//!
//! `base` says what lies below the file: the built-in list without one, or `"none"`. A name that an entry of the file is
//! for, by its plain name or a pattern, has the prices of that entry and no others; all other names have those of the
//! base. `source`, of the file or of one entry, says where its prices are from, and of when they are;
//! `tier_sources` of an entry says it of single tiers.
//!
//! A plan's own file stands alone: it says what is billed for the models in it, and nothing of others.
//!
//! A file over the built-in list is kept with the version of that list in its `base`: a document says all that it means,
//! whichever program reads it later. Its version is the first 12 hexadecimal digits of its SHA-256.
//!
//! May use: `domain`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde::de::{self, IgnoredAny, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use crate::domain::price::pattern::Pattern;
use crate::domain::price::rates::Rates;
use crate::domain::price::{ListOf, ModelPrices, Origin, PriceBook, PriceBookError, PriceRow, ServiceTier};
use crate::domain::time::Period;

/// A price file of all providers there are is under 1 MB. Each that was ever in force is kept in the ledger.
pub const PRICE_FILE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Who is called, and so whose models have prices: a price of anybody else's would never hold.
const PROVIDERS: [&str; 2] = ["openai", "gemini"];

/// The base of a file that stands alone.
const NO_BASE: &str = "none";

/// The base of all others.
const BUILT_IN: &str = "built-in";

/// How many bytes of the SHA-256 of the file name its version.
const VERSION_BYTES: usize = 6;

static BUILTIN: &[u8] = include_bytes!("../../config/prices.json");

/// Why a price file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PriceFileError {
    /// Larger than [`PRICE_FILE_BYTES_MAX`].
    #[error("a price file of {0} bytes; at most {PRICE_FILE_BYTES_MAX} are read")]
    TooLarge(usize),
    /// Not JSON of the right form.
    #[error("{0}")]
    Syntax(#[from] serde_json::Error),
    /// Another format than 1.
    #[error("price file format {0}; this program reads format 1")]
    Format(u32),
    /// Another base than there is.
    #[error("its base is {0:?}; write \"built-in\" (version {1}) or \"none\"")]
    Base(String, Arc<str>),
    /// A base, where there is none.
    #[error("its base is {0:?}; a plan's own prices lie over no other: leave it out")]
    BaseOfPlan(String),
    /// Well-formed, and wrong.
    #[error("{}", listed(.0))]
    Entries(Vec<EntryError>),
}

/// What is wrong with an entry of a price file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// A text that is no pattern.
    #[error("{model}: {pattern:?} is no pattern; write lower case, '*' for anything and '#' for one digit")]
    Pattern {
        /// The entry.
        model: String,
        /// The text.
        pattern: String,
    },
    /// A text that is no day.
    #[error("{model}: {from:?} is no day; write it as 2026-11-24")]
    Day {
        /// The entry.
        model: String,
        /// The text.
        from: String,
    },
    /// A provider that is never called.
    #[error("{model}: {provider:?} is no provider; there are {}", PROVIDERS.join(" and "))]
    Provider {
        /// The entry.
        model: String,
        /// Who sells it, as it is written.
        provider: String,
    },
    /// A text that is no tier.
    #[error("{model}: {tier:?} is no service tier; there are standard, flex, batch, priority and ultrafast")]
    Tier {
        /// The entry.
        model: String,
        /// The text.
        tier: String,
    },
    /// Entries that make no book.
    #[error(transparent)]
    Book(#[from] PriceBookError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireFile {
    format: u32,
    #[serde(default, rename = "about")]
    _about: Option<IgnoredAny>,
    base: Option<String>,
    #[serde(default)]
    built_in: bool,
    source: Option<String>,
    models: Vec<WireModel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireModel {
    provider: String,
    model: String,
    #[serde(rename = "match")]
    names: Vec<String>,
    #[serde(default)]
    except: Vec<String>,
    unverified: Option<String>,
    source: Option<String>,
    #[serde(default)]
    tier_sources: BTreeMap<String, String>,
    rates: Vec<WireRow>,
}

/// A price.
#[derive(Clone, Copy)]
struct Pico(i64);

impl<'de> Deserialize<'de> for Pico {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_i64(PicoVisitor)
    }
}

struct PicoVisitor;

impl Visitor<'_> for PicoVisitor {
    type Value = Pico;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("whole pico-dollars: 1 USD for a million tokens is 1000000")
    }

    fn visit_i64<E: de::Error>(self, pico: i64) -> Result<Pico, E> {
        Ok(Pico(pico))
    }

    fn visit_u64<E: de::Error>(self, pico: u64) -> Result<Pico, E> {
        i64::try_from(pico).map(Pico).map_err(|_| E::invalid_value(Unexpected::Unsigned(pico), &self))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRow {
    tier: String,
    from: Option<String>,
    #[serde(default)]
    above: u64,
    input: Option<Pico>,
    output: Option<Pico>,
    cached: Option<Pico>,
    cache_write: Option<Pico>,
    cache_write_long: Option<Pico>,
    input_audio: Option<Pico>,
    cached_audio: Option<Pico>,
    input_image: Option<Pico>,
    output_audio: Option<Pico>,
    output_image: Option<Pico>,
    audio_hour: Option<Pico>,
    character: Option<Pico>,
    image: Option<Pico>,
    web_search: Option<Pico>,
    grounded: Option<Pico>,
    file_search: Option<Pico>,
    request: Option<Pico>,
}

/// The price book that is built in.
///
/// # Errors
/// None that a released program has: a test reads the same bytes.
pub fn builtin() -> Result<PriceBook, PriceFileError> {
    book(wire(BUILTIN)?, &text(BUILTIN)?, None)
}

/// The price book that an operator's file writes: over the built-in list, unless it says that it stands alone.
///
/// # Errors
/// All that is wrong with the entries; only the first thing where the file is not even well-formed.
pub fn parse(bytes: &[u8]) -> Result<PriceBook, PriceFileError> {
    let file = of_operator(bytes)?;
    if file.base.as_deref() == Some(NO_BASE) {
        return book(file, &text(bytes)?, None);
    }
    let base = builtin()?;
    match file.base.as_deref() {
        None | Some(BUILT_IN) => {}
        Some(version) if *version == *base.version() => {}
        Some(other) => return Err(PriceFileError::Base(other.to_owned(), base.version())),
    }
    let document = over(bytes, &base.version())?;
    book(file, &document, Some(Arc::new(base)))
}

/// The price book that a plan's own file writes: it stands alone, so that what is not in it has the list's prices.
///
/// # Errors
/// As [`parse`], or it names a base.
pub fn parse_of_plan(bytes: &[u8]) -> Result<PriceBook, PriceFileError> {
    let was_built_in = wire(bytes)?.built_in;
    let file = of_operator(bytes)?;
    match file.base.as_deref() {
        // A document without a base is believed when it says that it was built in.
        None if was_built_in => book(file, &over(bytes, NO_BASE)?, None),
        None | Some(NO_BASE) => book(file, &text(bytes)?, None),
        Some(other) => Err(PriceFileError::BaseOfPlan(other.to_owned())),
    }
}

/// The price book of a document that was kept, and of the base that it names.
///
/// # Errors
/// It is none of a book, or of one over another base.
pub fn read(document: &str, base: Option<Arc<PriceBook>>) -> Result<PriceBook, PriceFileError> {
    let file = wire(document.as_bytes())?;
    // The list of a program has no base; what an operator wrote is kept with one, or with the word that it has none.
    let file = WireFile { built_in: file.built_in && file.base.is_none(), ..file };
    let named = file.base.as_deref().filter(|base| *base != NO_BASE);
    let there = base.as_ref().map(|base| base.version());
    if named != there.as_deref() {
        return Err(PriceFileError::Base(named.unwrap_or(NO_BASE).to_owned(), there.unwrap_or_else(|| NO_BASE.into())));
    }
    book(file, document, base)
}

/// A file that an operator wrote, whatever it says of itself.
fn of_operator(bytes: &[u8]) -> Result<WireFile, PriceFileError> {
    let file = WireFile { built_in: false, ..wire(bytes)? };
    let is_unknown = |model: &&WireModel| !PROVIDERS.contains(&&*model.provider);
    let error =
        |model: &WireModel| EntryError::Provider { model: model.model.clone(), provider: model.provider.clone() };
    let errors: Vec<_> = file.models.iter().filter(is_unknown).map(error).collect();
    if errors.is_empty() { Ok(file) } else { Err(PriceFileError::Entries(errors)) }
}

fn wire(bytes: &[u8]) -> Result<WireFile, PriceFileError> {
    if bytes.len() > PRICE_FILE_BYTES_MAX {
        return Err(PriceFileError::TooLarge(bytes.len()));
    }
    let file: WireFile = serde_json::from_slice(bytes)?;
    if file.format == 1 { Ok(file) } else { Err(PriceFileError::Format(file.format)) }
}

/// Bytes that were read as JSON are UTF-8.
fn text(bytes: &[u8]) -> Result<String, PriceFileError> {
    serde_json::from_slice::<serde_json::Value>(bytes)?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// The same file, which says what it lies over.
fn over(bytes: &[u8], base: &str) -> Result<String, PriceFileError> {
    let mut document: serde_json::Value = serde_json::from_slice(bytes)?;
    if let Some(members) = document.as_object_mut() {
        members.insert("base".to_owned(), base.into());
    }
    Ok(document.to_string())
}

fn book(file: WireFile, document: &str, base: Option<Arc<PriceBook>>) -> Result<PriceBook, PriceFileError> {
    let WireFile { format: _, _about, base: _, built_in, source, models } = file;
    let source = source.map(Arc::<str>::from);
    let mut errors = Vec::new();
    let mut entry = |mut model: WireModel| {
        let own = model.source.take().map(Arc::<str>::from);
        let list = match (built_in, &own) {
            (false, _) => ListOf::Operator,
            (true, None) => ListOf::BuiltIn,
            (true, Some(_)) => ListOf::Correction,
        };
        let tiers = std::mem::take(&mut model.tier_sources);
        let (tiers, wrong): (Vec<_>, Vec<_>) =
            tiers.into_iter().partition(|(tier, _)| ServiceTier::parse(tier).is_some());
        errors.extend(wrong.into_iter().map(|(tier, _)| EntryError::Tier { model: model.model.clone(), tier }));
        let tiers = tiers.into_iter().filter_map(|(tier, source)| Some((ServiceTier::parse(&tier)?, source.into())));
        let origin = Origin { list, source: own.or_else(|| source.clone()), tiers: tiers.collect() };
        read_model(model, origin, &mut errors)
    };
    let models = models.into_iter().map(&mut entry).collect();
    let book = PriceBook::new(version(document.as_bytes()).into(), models);
    let book = book.and_then(|book| match base {
        Some(base) => book.over(base),
        None => Ok(book),
    });
    match book {
        Ok(book) if errors.is_empty() => Ok(book.written(document.into())),
        Ok(_) => Err(PriceFileError::Entries(errors)),
        Err(more) => {
            errors.extend(more.into_iter().map(EntryError::Book));
            Err(PriceFileError::Entries(errors))
        }
    }
}

fn version(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(VERSION_BYTES).fold(String::new(), |mut hex, byte| {
        // Writing to a String does not fail.
        write!(hex, "{byte:02x}").unwrap_or_default();
        hex
    })
}

fn read_model(wire: WireModel, origin: Origin, errors: &mut Vec<EntryError>) -> ModelPrices {
    let WireModel { provider, model, names, except, unverified, source: _, tier_sources: _, rates } = wire;
    let mut patterns = |texts: Vec<String>| -> Vec<Pattern> {
        let read = |text: String| {
            let pattern = Pattern::parse(&text);
            if pattern.is_none() {
                errors.push(EntryError::Pattern { model: model.clone(), pattern: text });
            }
            pattern
        };
        texts.into_iter().filter_map(read).collect()
    };
    let (names, except) = (patterns(names), patterns(except));
    let rows = rates.into_iter().filter_map(|row| read_row(&model, row, errors)).collect();
    ModelPrices {
        provider: provider.into(),
        name: model.into(),
        names,
        except,
        unverified: unverified.map(String::into_boxed_str),
        rows,
        origin,
    }
}

fn read_row(model: &str, wire: WireRow, errors: &mut Vec<EntryError>) -> Option<PriceRow> {
    let WireRow { tier, from, above, .. } = &wire;
    let Some(tier) = ServiceTier::parse(tier) else {
        errors.push(EntryError::Tier { model: model.into(), tier: tier.clone() });
        return None;
    };
    let from = match from.as_deref().map(|text| (text, Period::parse_day(text))) {
        None => None,
        Some((_, Ok(day))) => Some(day.start()),
        Some((text, Err(_))) => {
            errors.push(EntryError::Day { model: model.into(), from: text.into() });
            return None;
        }
    };
    Some(PriceRow { tier, from, above: *above, rates: read_rates(&wire) })
}

fn read_rates(wire: &WireRow) -> Rates {
    let WireRow {
        tier: _,
        from: _,
        above: _,
        input,
        output,
        cached,
        cache_write,
        cache_write_long,
        input_audio,
        cached_audio,
        input_image,
        output_audio,
        output_image,
        audio_hour,
        character,
        image,
        web_search,
        grounded,
        file_search,
        request,
    } = *wire;
    let of = |pico: Option<Pico>| pico.map(|Pico(pico)| pico);
    Rates {
        input: of(input),
        output: of(output),
        cached: of(cached),
        cache_write: of(cache_write),
        cache_write_long: of(cache_write_long),
        input_audio: of(input_audio),
        cached_audio: of(cached_audio),
        input_image: of(input_image),
        output_audio: of(output_audio),
        output_image: of(output_image),
        audio_hour: of(audio_hour),
        character: of(character),
        image: of(image),
        web_search: of(web_search),
        grounded: of(grounded),
        file_search: of(file_search),
        request: of(request),
    }
}

fn listed(errors: &[EntryError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
#[path = "price_file_tests.rs"]
mod tests;
