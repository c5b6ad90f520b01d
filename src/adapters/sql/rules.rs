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

fn rule(words: &'static str, broken: &str, shown: &str) -> Rule {
    Rule { words, broken: broken.to_owned(), shown: shown.to_owned() }
}

/// All of them. Texts of names are this program's own.
pub(super) fn rules<D: Dialect>() -> Vec<Rule> {
    let mut rules = vec![
        rule("chats is not below 0", "chats < 0", "chats"),
        rule("duration_us is not below 0", "duration_us < 0", "duration_us"),
        rule("first_byte_us is not below 0", "first_byte_us < 0", "first_byte_us"),
        rule(
            "estimated_cost_pico_usd is not below 0",
            "estimated_cost_pico_usd < 0 AND outcome <> 'correction'",
            "estimated_cost_pico_usd",
        ),
        rule(
            "billable_cost_pico_usd is not below 0",
            "billable_cost_pico_usd < 0 AND outcome <> 'correction'",
            "billable_cost_pico_usd",
        ),
        rule("utc_offset_s is within 18 hours", "utc_offset_s NOT BETWEEN -64800 AND 64800", "utc_offset_s"),
        rule("status is below 1000", "status NOT BETWEEN 0 AND 999", "status"),
        rule(
            "total_tokens is prompt_tokens + completion_tokens",
            "total_tokens IS DISTINCT FROM prompt_tokens + completion_tokens",
            "total_tokens",
        ),
        rule(
            "a cost is there exactly where there is a price",
            "(priced = 'unpriced' AND outcome <> 'correction') <> (estimated_cost_pico_usd IS NULL)",
            "COALESCE(CAST(estimated_cost_pico_usd AS TEXT), 'no cost') || ', ' || priced",
        ),
    ];
    rules.extend(of_corrections_and_quantities());
    let smaller = format!("{}(cached_tokens, prompt_audio_tokens)", D::LEAST);
    let kinds: [(&'static str, &'static str, &str); 11] = [
        ("prompt_tokens is not below 0", "prompt_tokens", "prompt_tokens"),
        ("cached_tokens is a part of prompt_tokens", "cached_tokens", "prompt_tokens"),
        ("cache_write_tokens is a part of prompt_tokens", "cache_write_tokens", "prompt_tokens"),
        ("cache_write_long_tokens is a part of cache_write_tokens", "cache_write_long_tokens", "cache_write_tokens"),
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
        one_of("priced_before is a known one", "priced_before", &Priced::ALL.map(Priced::as_str)),
        one_of("service_tier is a known one", "service_tier", &ServiceTier::ALL.map(ServiceTier::as_str)),
    ]);
    rules
}

fn of_corrections_and_quantities() -> [Rule; 7] {
    [
        rule(
            "a correction names what it corrects, and nothing else does",
            "(outcome = 'correction') <> (corrects IS NOT NULL) OR (outcome = 'correction') <> (priced_before IS NOT NULL)",
            "outcome",
        ),
        rule(
            "a correction has no chats, tokens or quantities",
            "outcome = 'correction' AND (chats <> 0 OR total_tokens <> 0 OR audio_ms <> 0 OR characters <> 0 \
             OR images <> 0 OR web_searches <> 0 OR file_searches <> 0)",
            "total_tokens",
        ),
        rule("audio_ms is not below 0", "audio_ms < 0", "audio_ms"),
        rule("characters is not below 0", "characters < 0", "characters"),
        rule("images is not below 0", "images < 0", "images"),
        rule("web_searches is not below 0", "web_searches < 0", "web_searches"),
        rule("file_searches is not below 0", "file_searches < 0", "file_searches"),
    ]
}
