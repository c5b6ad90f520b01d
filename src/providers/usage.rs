//! Usage objects, read as what an untrusted third party says: whole numbers of a believable size, or not believed.
//!
//! May use: `domain`. How the counts add up was measured on recorded answers of both providers: OpenAI's details are parts
//! of its counts; Gemini's thoughts and tool use stand beside its counts, and what it leaves out is 0. The rules:
//!
//! - A count is a whole number written as digits, at most 10 million of them in a call. One count that is not, or a part
//!   above its whole, and the object is not believed: the call is estimated and flagged.
//! - The total is never booked. It is the sum of what is; one that says otherwise (in 982 recorded answers none did) does
//!   not change the counts, but flags them.
//! - From the total follow only counts that are nowhere else: the thoughts of Gemini's OpenAI-compatible endpoint, and
//!   the output of a Gemini turn without `candidatesTokenCount`. Where it has to be read for them it has to be a count.

use serde_json::value::RawValue;

use crate::domain::price::ServiceTier;
use crate::domain::quantities::AUDIO_MS_MAX;
use crate::domain::tokens::{TOKENS_PER_CALL_MAX, Tokens};

use super::json::{self, Count};

/// The usage object cannot be true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unbelievable;

/// What a usage object says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reported {
    /// Its counts, checked.
    pub(super) tokens: Tokens,
    /// Whether its total, if it has one, is their sum.
    pub(super) adds_up: bool,
    /// The tier it names, where it has a place for one.
    pub(super) tier: Option<ServiceTier>,
    /// Where it counts time instead of tokens: milliseconds of audio.
    pub(super) audio_ms: Option<u64>,
}

/// The values of every `usage` member of one message, in their order. An honest message has one.
#[derive(Debug, Default)]
pub(super) struct Usages<'a>(Vec<&'a RawValue>);

/// More members of that name in one message are passed over, but for the last: millions of them fit into a large one.
const USAGES_MAX: usize = 16;

impl<'a> Usages<'a> {
    pub(super) fn push(&mut self, usage: &'a RawValue) {
        if self.0.len() == USAGES_MAX {
            self.0.pop();
        }
        self.0.push(usage);
    }

    pub(super) fn last(&self) -> Option<&'a RawValue> {
        self.0.last().copied()
    }

    /// All that are there; `null` says that there is none yet.
    pub(super) fn objects(&self) -> impl Iterator<Item = &'a RawValue> {
        self.0.iter().copied().filter(|usage| usage.get() != "null")
    }
}

/// How output is counted in an OpenAI-shaped usage object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// `completion_tokens` (or `output_tokens`) holds all of it.
    Counted,
    /// What `total_tokens` has beyond `prompt_tokens`: Gemini's OpenAI-compatible endpoint shows thoughts only there.
    WithinTotal,
    /// There is none (embeddings).
    None,
}

const OPENAI_USAGE: &[&str] = &[
    "prompt_tokens",
    "input_tokens",
    "completion_tokens",
    "output_tokens",
    "total_tokens",
    "prompt_tokens_details",
    "input_tokens_details",
    "input_token_details",
    "completion_tokens_details",
    "output_tokens_details",
    "output_token_details",
    "type",
    "seconds",
    "prompt_token_details",
];

const OPENAI_DETAILS: &[&str] = &[
    "cached_tokens",
    "cache_write_tokens",
    "audio_tokens",
    "image_tokens",
    "reasoning_tokens",
    "cached_tokens_details",
    "cache_write_tokens_details",
];

const GEMINI_USAGE: &[&str] = &[
    "promptTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
    "toolUsePromptTokenCount",
    "cachedContentTokenCount",
    "totalTokenCount",
    "promptTokensDetails",
    "promptTokenDetails",
    "toolUsePromptTokensDetails",
    "cacheTokensDetails",
    "candidatesTokensDetails",
    "serviceTier",
    "trafficType",
    // As sessions spell it.
    "responseTokenCount",
    "responseTokensDetails",
];

/// The most tokens of a unit with many parts, such as a batch: 50,000 requests, the most that one has, of 200,000 tokens
/// each. At the highest price there is this is the largest cost that a row holds.
const TOKENS_PER_UNIT_MAX: u64 = 10_000_000_000;

/// What an OpenAI-shaped usage object says.
pub(super) fn openai(usage: &RawValue, output: Output) -> Result<Reported, Unbelievable> {
    openai_up_to(usage, output, TOKENS_PER_CALL_MAX)
}

/// The same of a unit with many parts.
pub(super) fn openai_unit(usage: &RawValue) -> Result<Reported, Unbelievable> {
    openai_up_to(usage, Output::Counted, TOKENS_PER_UNIT_MAX)
}

fn openai_up_to(usage: &RawValue, output: Output, most: u64) -> Result<Reported, Unbelievable> {
    let mut counts = [Count::Absent; 5];
    let (mut input_details, mut output_details) = (None, None);
    let (mut kind, mut seconds) = (None, None);
    json::members(usage.get().as_bytes(), OPENAI_USAGE, |index, raw| match index {
        5..=7 => input_details = Some(raw),
        8..=10 => output_details = Some(raw),
        11 => kind = json::text(raw),
        12 => seconds = Some(raw),
        13 => input_details = Some(raw),
        _ => {
            if let Some(count) = counts.get_mut(index) {
                *count = Count::of(raw);
            }
        }
    })
    .map_err(|_| Unbelievable)?;
    if kind.as_deref() == Some("duration") {
        return lasted(seconds);
    }
    let [prompt, input, completion, out, total] = counts;
    let prompt = required_up_to(if prompt == Count::Absent { input } else { prompt }, most)?;
    let completion = if completion == Count::Absent { out } else { completion };
    let input = openai_details(input_details, most)?;
    let parts = openai_details(output_details, most)?;
    let mut reasoning = parts.reasoning;
    let completion = match output {
        Output::None => 0,
        Output::Counted => required_up_to(completion, most)?,
        Output::WithinTotal => {
            // What is 0 may be left out, as in Gemini's own dialect; then the total has to be there.
            let visible = if total == Count::Absent { required(completion)? } else { optional(completion)? };
            // A total that leaves no room for what is visible does not add up: then the parts count.
            let billed = optional(total)?.saturating_sub(prompt).max(visible);
            reasoning = reasoning.max(billed - visible);
            billed
        }
    };
    let tokens = Tokens {
        prompt,
        cached: input.cached,
        cache_write: input.cache_write,
        cache_write_long: input.cache_write_long,
        prompt_audio: input.audio,
        prompt_image: input.image,
        cached_audio: input.cached_audio,
        completion,
        reasoning,
        completion_audio: parts.audio,
        completion_image: parts.image,
    };
    reported_up_to(tokens, total, None, most)
}

/// What so many seconds of audio say, in decimal digits. A part of a millisecond counts as a whole one.
pub(super) fn lasted(seconds: Option<&RawValue>) -> Result<Reported, Unbelievable> {
    let audio_ms = seconds.and_then(|raw| json::thousandths(raw.get())).filter(|ms| *ms <= AUDIO_MS_MAX);
    let reported = |audio_ms| Reported { tokens: Tokens::default(), adds_up: true, tier: None, audio_ms };
    audio_ms.map(|ms| reported(Some(ms))).ok_or(Unbelievable)
}

/// What a Gemini `usageMetadata` says, with the tier it names. All absent is all zero: so it is for a blocked prompt.
pub(super) fn gemini(usage: &RawValue) -> Result<Reported, Unbelievable> {
    let mut counts = [Count::Absent; 6];
    let mut response = Count::Absent;
    let mut input = Modalities::default();
    let (mut cached_parts, mut output_parts) = (Modalities::default(), Modalities::default());
    let mut tier = ServiceTier::Standard;
    let mut bad_details = false;
    json::members(usage.get().as_bytes(), GEMINI_USAGE, |index, raw| {
        let details = match index {
            6..=8 => &mut input,
            9 => &mut cached_parts,
            10 | 14 => &mut output_parts,
            11 | 12 => {
                tier = json::text(raw).map_or(tier, |name| tier_named(&name, tier));
                return;
            }
            _ => {
                *counts.get_mut(index).unwrap_or(&mut response) = Count::of(raw);
                return;
            }
        };
        bad_details |= details.add(raw).is_err();
    })
    .map_err(|_| Unbelievable)?;
    if bad_details {
        return Err(Unbelievable);
    }
    let [prompt, candidates, thoughts, tool_use, cached, total] = counts;
    let known = optional(prompt)?.saturating_add(optional(tool_use)?).saturating_add(optional(thoughts)?);
    // A turn without text can lack `candidatesTokenCount`; what the total has beyond the rest is its output.
    let is_session = response != Count::Absent;
    let candidates = match if is_session { response } else { candidates } {
        Count::Absent => optional(total)?.saturating_sub(known),
        counted => required(counted)?,
    };
    let tokens = Tokens {
        prompt: optional(prompt)?.saturating_add(optional(tool_use)?),
        cached: optional(cached)?,
        // Cached audio is audio input, also where the details of the input leave it out.
        prompt_audio: input.audio.max(cached_parts.audio),
        prompt_image: input.image,
        cached_audio: cached_parts.audio,
        completion: candidates.saturating_add(optional(thoughts)?),
        reasoning: optional(thoughts)?,
        completion_audio: output_parts.audio,
        completion_image: output_parts.image,
        ..Tokens::default()
    };
    let reported = reported(tokens, total, Some(tier))?;
    // In a session the total may leave out the thoughts, which are charged all the same.
    let adds_up = reported.adds_up || (is_session && total == Count::Whole(tokens.total() - tokens.reasoning));
    Ok(Reported { adds_up, ..reported })
}

const INTERACTION_USAGE: &[&str] = &[
    "total_input_tokens",
    "total_cached_tokens",
    "total_output_tokens",
    "total_thought_tokens",
    "total_tool_use_tokens",
    "total_tokens",
    "input_tokens_by_modality",
    "tool_use_tokens_by_modality",
    "cached_tokens_by_modality",
    "output_tokens_by_modality",
];

/// What the `usage` of a Gemini interaction says: counts stand beside each other as in `usageMetadata`.
pub(super) fn interaction(usage: &RawValue) -> Result<Reported, Unbelievable> {
    let mut counts = [Count::Absent; 6];
    let [mut input, mut cached_parts, mut output_parts] = [const { Modalities { audio: 0, image: 0 } }; 3];
    let mut bad_details = false;
    json::members(usage.get().as_bytes(), INTERACTION_USAGE, |index, raw| {
        let details = match index {
            6 | 7 => &mut input,
            8 => &mut cached_parts,
            9 => &mut output_parts,
            _ => {
                if let Some(count) = counts.get_mut(index) {
                    *count = Count::of(raw);
                }
                return;
            }
        };
        bad_details |= raw.get() != "null" && details.add(raw).is_err();
    })
    .map_err(|_| Unbelievable)?;
    if bad_details {
        return Err(Unbelievable);
    }
    let counted = |count| if count == Count::Null { Ok(0) } else { optional(count) };
    let [prompt, cached, output, thoughts, tool_use, total] = counts;
    let tokens = Tokens {
        prompt: counted(prompt)?.saturating_add(counted(tool_use)?),
        cached: counted(cached)?,
        prompt_audio: input.audio.max(cached_parts.audio),
        prompt_image: input.image,
        cached_audio: cached_parts.audio,
        completion: counted(output)?.saturating_add(counted(thoughts)?),
        reasoning: counted(thoughts)?,
        completion_audio: output_parts.audio,
        completion_image: output_parts.image,
        ..Tokens::default()
    };
    reported(tokens, total, None)
}

/// What the `usage` of an interaction says of tools that are charged by the call: searches of the web, and whether there is
/// another one.
pub(super) fn grounded(usage: &RawValue) -> (u64, bool) {
    let (mut searches, mut others) = (0_u64, false);
    let mut count = |entry: &RawValue| {
        let (mut kind, mut calls) = (None, Count::Absent);
        let parsed = json::members(entry.get().as_bytes(), &["type", "count"], |index, raw| match index {
            0 => kind = json::text(raw),
            _ => calls = Count::of(raw),
        });
        match calls {
            Count::Whole(0) | Count::Absent | Count::Null if parsed.is_ok() => {}
            Count::Whole(calls) if kind.as_deref() == Some("google_search") => {
                searches = searches.saturating_add(calls);
            }
            _ => others = true,
        }
        true
    };
    json::members(usage.get().as_bytes(), &["grounding_tool_count"], |_, raw| {
        json::elements(raw.get().as_bytes(), &mut count).unwrap_or_default();
    })
    .unwrap_or_default();
    (searches, others)
}

/// What the `usageMetadata` of a cache says: all that is in it was read once. What keeping it costs, no count says.
pub(super) fn gemini_cache(usage: &RawValue) -> Result<Reported, Unbelievable> {
    let mut total = Count::Absent;
    json::members(usage.get().as_bytes(), &["totalTokenCount"], |_, raw| total = Count::of(raw))
        .map_err(|_| Unbelievable)?;
    reported(Tokens { prompt: required(total)?, ..Tokens::default() }, Count::Absent, None)
}

/// The input of one prediction, where it says so: `embeddings.statistics.token_count`.
fn prediction(prediction: &RawValue) -> Result<Option<u64>, Unbelievable> {
    let mut found = Some(prediction);
    for name in ["embeddings", "statistics", "token_count"] {
        let Some(raw) = found.take() else { return Ok(None) };
        json::members(raw.get().as_bytes(), &[name], |_, raw| found = Some(raw)).map_err(|_| Unbelievable)?;
    }
    found.map(|raw| required(Count::of(raw))).transpose()
}

/// The input of all predictions together; `None` where none of them has a count.
pub(super) fn predictions(predictions: &RawValue) -> Option<Result<Reported, Unbelievable>> {
    let (mut sum, mut bad) = (None, false);
    let whole = json::elements(predictions.get().as_bytes(), |raw| {
        match prediction(raw) {
            Ok(tokens) => sum = tokens.map(|tokens| sum.unwrap_or(0u64).saturating_add(tokens)).or(sum),
            Err(Unbelievable) => bad = true,
        }
        !bad
    });
    if bad || whole.is_err() {
        return Some(Err(Unbelievable));
    }
    sum.map(|prompt| reported(Tokens { prompt, ..Tokens::default() }, Count::Absent, None))
}

fn reported(tokens: Tokens, total: Count, tier: Option<ServiceTier>) -> Result<Reported, Unbelievable> {
    reported_up_to(tokens, total, tier, TOKENS_PER_CALL_MAX)
}

fn reported_up_to(
    tokens: Tokens,
    total: Count,
    tier: Option<ServiceTier>,
    most: u64,
) -> Result<Reported, Unbelievable> {
    let tokens = tokens.checked_up_to(most).map_err(|_| Unbelievable)?;
    if tokens.prompt == 0 && tokens.completion > 0 {
        // No answer without a question.
        return Err(Unbelievable);
    }
    let adds_up = matches!(total, Count::Absent | Count::Null) || total == Count::Whole(tokens.total());
    Ok(Reported { tokens, adds_up, tier, audio_ms: None })
}

/// The tier that a provider calls `name`; `otherwise` when the name says nothing of the price.
pub(super) fn tier_named(name: &str, otherwise: ServiceTier) -> ServiceTier {
    match name {
        "flex" | "ON_DEMAND_FLEX" => ServiceTier::Flex,
        "batch" => ServiceTier::Batch,
        "priority" | "fast" | "ON_DEMAND_PRIORITY" => ServiceTier::Priority,
        "ultrafast" => ServiceTier::Ultrafast,
        "default" | "standard" | "ON_DEMAND" => ServiceTier::Standard,
        _ => otherwise,
    }
}

/// A count that must be there.
fn required(count: Count) -> Result<u64, Unbelievable> {
    required_up_to(count, TOKENS_PER_CALL_MAX)
}

fn required_up_to(count: Count, most: u64) -> Result<u64, Unbelievable> {
    match count {
        Count::Whole(tokens) if tokens <= most => Ok(tokens),
        _ => Err(Unbelievable),
    }
}

/// A count that is 0 where it is left out.
fn optional(count: Count) -> Result<u64, Unbelievable> {
    if count == Count::Absent { Ok(0) } else { required(count) }
}

#[derive(Debug, Default)]
struct Details {
    cached: u64,
    cache_write: u64,
    cache_write_long: u64,
    audio: u64,
    image: u64,
    reasoning: u64,
    cached_audio: u64,
}

/// Details may be left out or `null`, whole or one by one.
fn openai_details(raw: Option<&RawValue>, most: u64) -> Result<Details, Unbelievable> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(Details::default()) };
    let mut counts = [Count::Absent; 5];
    let (mut of_cached, mut of_written) = (None, None);
    json::members(raw.get().as_bytes(), OPENAI_DETAILS, |index, raw| match counts.get_mut(index) {
        Some(count) => *count = Count::of(raw),
        None if index == 5 => of_cached = Some(raw),
        None => of_written = Some(raw),
    })
    .map_err(|_| Unbelievable)?;
    let is_none = |count| matches!(count, Count::Absent | Count::Null);
    let detail = |count| if is_none(count) { Ok(0) } else { required_up_to(count, most) };
    let [cached, cache_write, audio, image, reasoning] = counts;
    Ok(Details {
        cached: detail(cached)?,
        cache_write: detail(cache_write)?,
        // Of the two times to live there are, 30 minutes and 12 hours, the one of an hour or longer.
        cache_write_long: detail(of_written.map_or(Ok(Count::Absent), |raw| one_of(raw, "ttl_12h_tokens"))?)?,
        audio: detail(audio)?,
        image: detail(image)?,
        reasoning: detail(reasoning)?,
        cached_audio: detail(of_cached.map_or(Ok(Count::Absent), |raw| one_of(raw, "audio_tokens"))?)?,
    })
}

/// The count of that name in details of details.
fn one_of(details: &RawValue, name: &'static str) -> Result<Count, Unbelievable> {
    let mut found = Count::Absent;
    if details.get() != "null" {
        json::members(details.get().as_bytes(), &[name], |_, raw| found = Count::of(raw)).map_err(|_| Unbelievable)?;
    }
    Ok(found)
}

/// Tokens by modality: `[{"modality":"AUDIO","tokenCount":5}, …]`. What they do not cover is text.
#[derive(Debug, Default)]
struct Modalities {
    audio: u64,
    image: u64,
}

/// Details have an entry for each of a handful of modalities. Longer ones are no details, and would take memory.
const MODALITIES_BYTES_MAX: usize = 4 * 1024;

impl Modalities {
    fn add(&mut self, raw: &RawValue) -> Result<(), Unbelievable> {
        // Most answers have text only, which has no count of its own.
        if raw.get().starts_with('[')
            && !["AUDIO", "IMAGE", "audio", "image"].iter().any(|kind| raw.get().contains(kind))
        {
            return Ok(());
        }
        if raw.get().len() > MODALITIES_BYTES_MAX {
            return Err(Unbelievable);
        }
        let parts: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| Unbelievable)?;
        for part in parts {
            let (mut modality, mut count) = (None, Count::Absent);
            json::members(part.get().as_bytes(), &["modality", "tokenCount", "tokens"], |index, raw| match index {
                0 => modality = json::text(raw),
                _ => count = Count::of(raw),
            })
            .map_err(|_| Unbelievable)?;
            let tokens = optional(count)?;
            match modality.as_deref() {
                Some("AUDIO" | "audio") => self.audio = self.audio.saturating_add(tokens),
                Some("IMAGE" | "image") => self.image = self.image.saturating_add(tokens),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
