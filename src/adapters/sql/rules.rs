//! What every event keeps to, as questions for rows that do not.
//!
//! May use: `domain`.

use super::Dialect;
use crate::domain::event::{Outcome, UsageSource};
use crate::domain::price::{Priced, ServiceTier};

/// A rule that every event keeps: its words, when a row breaks it, and what then to show of the row.
pub(super) struct Rule {
    pub(super) words: &'static str,
    pub(super) broken: String,
    pub(super) shown: String,
}

/// All of them. Texts of names are this program's own.
pub(super) fn rules<D: Dialect>() -> Vec<Rule> {
    let rule = |words, broken: &str, shown: &str| Rule { words, broken: broken.to_owned(), shown: shown.to_owned() };
    let mut rules = vec![
        rule("chats is not below 0", "chats < 0", "chats"),
        rule("duration_us is not below 0", "duration_us < 0", "duration_us"),
        rule("first_byte_us is not below 0", "first_byte_us < 0", "first_byte_us"),
        rule("estimated_cost_pico_usd is not below 0", "estimated_cost_pico_usd < 0", "estimated_cost_pico_usd"),
        rule("status is below 1000", "status NOT BETWEEN 0 AND 999", "status"),
        rule(
            "total_tokens is prompt_tokens + completion_tokens",
            "total_tokens IS DISTINCT FROM prompt_tokens + completion_tokens",
            "total_tokens",
        ),
        rule(
            "a cost is there exactly where there is a price",
            "(priced = 'unpriced') <> (estimated_cost_pico_usd IS NULL)",
            "COALESCE(CAST(estimated_cost_pico_usd AS TEXT), 'no cost') || ', ' || priced",
        ),
    ];
    let smaller = format!("{}(cached_tokens, prompt_audio_tokens)", D::LEAST);
    let kinds: [(&'static str, &'static str, &str); 10] = [
        ("prompt_tokens is not below 0", "prompt_tokens", "prompt_tokens"),
        ("cached_tokens is a part of prompt_tokens", "cached_tokens", "prompt_tokens"),
        ("cache_write_tokens is a part of prompt_tokens", "cache_write_tokens", "prompt_tokens"),
        ("prompt_audio_tokens is a part of prompt_tokens", "prompt_audio_tokens", "prompt_tokens"),
        ("prompt_image_tokens is a part of prompt_tokens", "prompt_image_tokens", "prompt_tokens"),
        ("cached_audio_tokens is a part of cached_tokens and prompt_audio_tokens", "cached_audio_tokens", &smaller),
        ("completion_tokens is not below 0", "completion_tokens", "completion_tokens"),
        ("reasoning_tokens is a part of completion_tokens", "reasoning_tokens", "completion_tokens"),
        ("completion_audio_tokens is a part of completion_tokens", "completion_audio_tokens", "completion_tokens"),
        ("completion_image_tokens is a part of completion_tokens", "completion_image_tokens", "completion_tokens"),
    ];
    for (words, part, whole) in kinds {
        let broken = if part == whole { format!("{part} < 0") } else { format!("{part} NOT BETWEEN 0 AND {whole}") };
        rules.push(Rule { words, broken, shown: part.to_owned() });
    }
    let one_of = |words, column: &str, names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
        Rule { words, broken: format!("{column} NOT IN ({})", names.join(", ")), shown: column.to_owned() }
    };
    let sources = [UsageSource::Provider, UsageSource::Estimate];
    rules.extend([
        one_of("outcome is a known one", "outcome", &Outcome::ALL.map(Outcome::as_str)),
        one_of("usage_source is a known one", "usage_source", &sources.map(UsageSource::as_str)),
        one_of("priced is a known one", "priced", &Priced::ALL.map(Priced::as_str)),
        one_of("service_tier is a known one", "service_tier", &ServiceTier::ALL.map(ServiceTier::as_str)),
    ]);
    rules
}
