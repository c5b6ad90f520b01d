//! The price file: `config/prices.json`, which is built in, or one of an operator's own.
//!
//! ```json
//! {"format": 1, "about": {"anything": "for people"}, "models": [
//!   {"provider": "gemini", "model": "gemini-2.5-pro", "match": ["gemini-2.5-pro*"], "except": ["*-tts"], "rates": [
//!     {"tier": "standard", "input": 1250000, "cached": 125000, "output": 10000000},
//!     {"tier": "standard", "above": 200000, "input": 2500000, "cached": 250000, "output": 15000000},
//!     {"tier": "batch", "from": "2026-10-14", "input": 625000, "output": 5000000}]}]}
//! ```
//!
//! Prices are whole pico-dollars (1e-12 USD) a token, so 1 USD per million tokens is 1000000. `match` and `except` are
//! patterns of lower-case model names (`*` anything, `#` one digit); a plain name wins over every pattern, and patterns
//! are tried in the order of the file. `from` is a day (UTC) and missing for a price that always held; `above` is the
//! number of input tokens beyond which the row holds for the whole request. `unverified` gives a reason to doubt an
//! entry. Kinds without a price: see [`Rates::bill`]. An unknown field is an error.
//!
//! May use: `domain`.

use std::fmt::Write as _;

use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

use crate::domain::price::pattern::Pattern;
use crate::domain::price::rates::Rates;
use crate::domain::price::{ModelPrices, PriceBook, PriceBookError, PriceRow, ServiceTier};
use crate::domain::time::Period;

/// A price file of all providers there are is under 1 MB.
pub const PRICE_FILE_BYTES_MAX: usize = 8 * 1024 * 1024;

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
    rates: Vec<WireRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRow {
    tier: String,
    from: Option<String>,
    #[serde(default)]
    above: u64,
    input: i64,
    output: Option<i64>,
    cached: Option<i64>,
    cache_write: Option<i64>,
    input_audio: Option<i64>,
    cached_audio: Option<i64>,
    input_image: Option<i64>,
    output_audio: Option<i64>,
    output_image: Option<i64>,
}

/// The price book that is built in.
///
/// # Errors
/// None that a released program has: a test reads the same bytes.
pub fn builtin() -> Result<PriceBook, PriceFileError> {
    parse(BUILTIN)
}

/// The price book that a file writes. Its version is the first 12 hexadecimal digits of the file's SHA-256.
///
/// # Errors
/// All that is wrong with the entries; only the first thing where the file is not even well-formed.
pub fn parse(bytes: &[u8]) -> Result<PriceBook, PriceFileError> {
    if bytes.len() > PRICE_FILE_BYTES_MAX {
        return Err(PriceFileError::TooLarge(bytes.len()));
    }
    let WireFile { format, _about, models } = serde_json::from_slice(bytes)?;
    if format != 1 {
        return Err(PriceFileError::Format(format));
    }
    let mut errors = Vec::new();
    let models = models.into_iter().map(|model| read_model(model, &mut errors)).collect();
    match PriceBook::new(version(bytes).into(), models) {
        Ok(book) if errors.is_empty() => Ok(book),
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

fn read_model(wire: WireModel, errors: &mut Vec<EntryError>) -> ModelPrices {
    let WireModel { provider, model, names, except, unverified, rates } = wire;
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
        input_audio,
        cached_audio,
        input_image,
        output_audio,
        output_image,
    } = *wire;
    Rates { input, output, cached, cache_write, input_audio, cached_audio, input_image, output_audio, output_image }
}

fn listed(errors: &[EntryError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
#[path = "price_file_tests.rs"]
mod tests;
