//! What calls cost by the built-in prices, beside what the crate genai-prices makes of the same calls. Its list is the one
//! that ours begins with, read and calculated by others; it is a little older than ours, and calculates in floats.

#![allow(
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "the oracle's"
)]

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use genai_prices::{Calculator, ExtractRequest, PriceRequest, Usage, UsageKey};
use serde_json::{Value, json};

use tollgate::config::price_file::builtin;
use tollgate::domain::price::rates::{Rates, Unit, Used};
use tollgate::domain::price::{ModelPrices, ServiceTier};
use tollgate::domain::quantities::Quantities;
use tollgate::domain::time::Micros;
use tollgate::domain::tokens::Tokens;

use super::support::machine::figures;

/// Costs may differ by this much, in pico-dollars: the oracle's own error.
const PICO_DIFFERENCE_MAX: i128 = 1_000;

const TIERS: [ServiceTier; 4] = [ServiceTier::Standard, ServiceTier::Flex, ServiceTier::Batch, ServiceTier::Priority];

/// Names of families, which the oracle finds by whole names alone, and models that are younger than its list.
const UNKNOWN: [&str; 4] = ["ft:gpt-4o", "ft:gpt-4o-mini", "gpt-6-cyber", "gpt-6-rosalind"];

/// Around the dates that prices change at.
const DAYS: [&str; 4] =
    ["2026-11-24T12:00:00Z", "2026-11-30T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"];

/// Usage at and around every step, with every kind of token and every quantity that both know.
fn usages() -> Vec<Used> {
    let beside = [
        Quantities { audio_ms: 1_234_567, ..Quantities::default() },
        Quantities { characters: 4_096, ..Quantities::default() },
        // The oracle counts queries where Google counts prompts: of one query they are the same.
        Quantities { web_searches: 1, ..Quantities::default() },
        Quantities { file_searches: 3, ..Quantities::default() },
    ];
    let text = Tokens { prompt: 1_000, completion: 1_777, ..Tokens::default() };
    let beside =
        beside.into_iter().flat_map(|quantities| [Tokens::default(), text].map(|tokens| Used { tokens, quantities }));
    tokens().iter().map(Used::from).chain(beside).collect()
}

fn tokens() -> Vec<Tokens> {
    let mut all = Vec::new();
    for prompt in [1, 1_000, 128_000, 128_001, 200_000, 200_001, 272_000, 272_001, 999_983] {
        let text = Tokens { prompt, completion: 1_777, ..Tokens::default() };
        all.push(text);
        all.push(Tokens { cached: prompt / 3, reasoning: 1_000, ..text });
        all.push(Tokens { cached: prompt / 3, cache_write: prompt / 5, ..text });
        all.push(Tokens { prompt_audio: prompt / 2, completion_audio: 1_111, ..text });
    }
    all
}

/// Whether there is a price for all that is asked for, so that both know what it costs.
fn is_priced(rates: &Rates, used: &Used) -> bool {
    let lines = rates.bill(*used).lines;
    let mut beside = lines.iter().filter(|line| line.is_used() && line.kind.unit() != Unit::Token);
    (rates.input.is_some() || used.tokens.total() == 0) && beside.all(|line| line.pico.is_some())
}

fn oracle_usage(used: &Used) -> Usage {
    let Tokens { prompt, cached, cache_write, prompt_audio, completion, completion_audio, .. } = used.tokens;
    let Quantities { audio_ms, characters, web_searches, file_searches, .. } = used.quantities;
    let counts = [
        (UsageKey::INPUT_TOKENS, prompt),
        (UsageKey::CACHE_READ_TOKENS, cached),
        (UsageKey::CACHE_WRITE_TOKENS, cache_write),
        (UsageKey::INPUT_AUDIO_TOKENS, prompt_audio),
        (UsageKey::OUTPUT_TOKENS, completion),
        (UsageKey::OUTPUT_AUDIO_TOKENS, completion_audio),
        (UsageKey::INPUT_CHARACTERS, characters),
        (UsageKey::WEB_SEARCHES, web_searches),
        (UsageKey::STORAGE_SEARCHES, file_searches),
    ];
    let mut usage = Usage::new();
    for (key, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        usage.insert(key, count as f64);
    }
    if audio_ms > 0 {
        usage.insert(UsageKey::AUDIO_SECONDS, audio_ms as f64 / 1_000.0);
    }
    usage
}

fn oracle_cost(
    oracle: &Calculator,
    (provider, model): (&str, &str),
    tier: ServiceTier,
    usage: &Usage,
    at: Micros,
) -> Option<i128> {
    let provider = if provider == "gemini" { "google" } else { provider };
    let at: SystemTime = UNIX_EPOCH + Duration::from_micros(at.0.try_into().unwrap());
    let request = PriceRequest::new(model, usage).with_provider_id(provider).with_timestamp(at);
    let request = match tier {
        ServiceTier::Standard => request,
        ServiceTier::Batch => request.with_price_context("processing", "batch"),
        other => request.with_price_context("service_tier", other.as_str()),
    };
    let price = oracle.calculate(&request).ok()?;
    assert!(price.warnings.is_empty(), "{model}: {:?}", price.warnings);
    Some((price.total_price * 1e12).round() as i128)
}

/// What a recorded call and its booked event cost, in pico-dollars: as the oracle reads and prices the provider's own usage
/// (with the searches that were booked, as answers tell of them elsewhere), and as it was booked. `None` where the oracle cannot read it, or has no price.
pub(super) fn costs_of_recorded(provider: &str, path: &str, usage: &Value, event: &Value) -> Option<(i128, i128)> {
    let (model, tier) = (event["model"].as_str()?, ServiceTier::parse(event["service_tier"].as_str()?)?);
    let (answer, flavour) = if provider == "google" && !path.contains("/openai/") {
        (json!({"modelVersion": model, "usageMetadata": usage}), "default")
    } else {
        let flavour = ["responses", "embeddings"].into_iter().find(|flavour| path.contains(flavour));
        (json!({"model": model, "usage": usage}), flavour.unwrap_or("chat"))
    };
    let oracle = Calculator::bundled();
    let asked = ExtractRequest::from_value(&answer).with_provider_id(provider).with_api_flavor(flavour);
    let mut read = oracle.extract_provider_usage(&asked).ok()?;
    // Searches are in no usage.
    for (key, count) in [(UsageKey::WEB_SEARCHES, "web_searches"), (UsageKey::STORAGE_SEARCHES, "file_searches")] {
        if let Some(count) = event[count].as_f64().filter(|count| *count > 0.0) {
            read.usage.insert(key, count);
        }
    }
    let at: Micros = event["request_timestamp"].as_str()?.parse().unwrap();
    let theirs = oracle_cost(oracle, (provider, model), tier, &read.usage, at)?;
    let ours = (event["estimated_cost_usd"].as_f64()? * 1e12).round() as i128;
    Some((theirs, ours))
}

/// Whether two costs are one, but for the oracle's floats.
pub(super) fn are_equal(theirs: i128, ours: i128) -> bool {
    (ours - theirs).abs() <= PICO_DIFFERENCE_MAX
}

/// Where ours is meant to be another: the corrections that `config/prices.json` names, of prices that the oracle's list does
/// not have. It takes audio of these models for text, and flex and priority of Gemini for the standard tier.
fn is_corrected(model: &ModelPrices, tier: ServiceTier, tokens: &Tokens) -> bool {
    let audio_models = [
        "gpt-4o-audio-preview",
        "gpt-4o-audio-preview-2024-10-01",
        "gpt-4o-mini-audio-preview",
        "gpt-4o-realtime-preview-2024-10-01",
    ];
    let has_audio = tokens.prompt_audio + tokens.completion_audio > 0;
    (has_audio && audio_models.contains(&&*model.name))
        || (&*model.provider == "gemini" && matches!(tier, ServiceTier::Flex | ServiceTier::Priority))
}

#[test]
fn costs_are_those_of_an_independent_calculation() {
    let (book, oracle) = (builtin().unwrap(), Calculator::bundled());
    let usages: Vec<(Used, Usage)> = usages().into_iter().map(|used| (used, oracle_usage(&used))).collect();
    let (mut equal, mut corrected, mut unknown) = (0, 0, BTreeSet::new());
    for model in book.models() {
        let names = (&*model.provider, &*model.name);
        for (tier, day) in TIERS.into_iter().flat_map(|tier| DAYS.map(|day| (tier, day))) {
            let at: Micros = day.parse().unwrap();
            let holds = |(used, _): &&(Used, Usage)| {
                model.rates(tier, used.tokens.prompt, at).is_some_and(|rates| is_priced(rates, used))
            };
            for (used, usage) in usages.iter().filter(holds) {
                let Some(theirs) = oracle_cost(oracle, names, tier, usage, at) else {
                    unknown.insert(names.1);
                    continue;
                };
                let ours = book.charge(names.0, names.1, tier, *used, at).cost.unwrap().0;
                if are_equal(theirs, ours) {
                    equal += 1;
                } else {
                    assert!(
                        is_corrected(model, tier, &used.tokens),
                        "{names:?} {tier:?} {day} {used:?}: {ours}, not {theirs}"
                    );
                    corrected += 1;
                }
            }
        }
    }
    assert_eq!(unknown.into_iter().collect::<Vec<_>>(), UNKNOWN);
    assert!(equal > 35_000 && corrected < equal / 10, "{equal} are equal, {corrected} corrected");
    figures(&format!("prices: {equal} costs as genai-prices calculates them, {corrected} by corrections of ours"));
}
