//! The most tokens that one answer of a model may have: `config/output_limits.json`, which is built in, and the lines of an
//! operator's own that go before it.
//!
//! ```json
//! {"format": 1, "about": {"anything": "for people"}, "models": [
//!   {"provider": "openai", "match": ["gpt-4o*"], "output_max": 16384}]}
//! ```
//!
//! `match` has patterns of lower-case model names (`*` anything, `#` one digit); of the lines of a provider the first that
//! fits holds. An operator writes `pattern=tokens` with commas between them, for the models of all providers.
//!
//! May use: `domain`.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::domain::limits::{ModelLimits, OutputLimit};
use crate::domain::price::pattern::Pattern;
use crate::domain::tokens::TOKENS_PER_CALL_MAX;

static BUILTIN: &str = include_str!("../../config/output_limits.json");

/// More than all providers have families of models.
const OWN_MAX: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    #[serde(rename = "about")]
    _about: IgnoredAny,
    models: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    provider: String,
    #[serde(rename = "match")]
    names: Vec<String>,
    output_max: u64,
}

/// The operator's lines, then the built-in ones.
pub(super) fn parse(own: &str) -> Result<ModelLimits, String> {
    let mut lines = Vec::new();
    for text in own.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let (name, max) = text.split_once('=').ok_or_else(|| format!("{text:?}: write PATTERN=TOKENS"))?;
        lines.push(limit(None, name.trim(), max.trim().parse().unwrap_or(0))?);
    }
    if lines.len() > OWN_MAX {
        return Err(format!(
            "has {} patterns, which is more than {OWN_MAX}: use * for families of models",
            lines.len()
        ));
    }
    let File { format, _about, models } = serde_json::from_str(BUILTIN).map_err(|error| error.to_string())?;
    if format != 1 {
        return Err(format!("the built-in table has format {format}, which this program does not read"));
    }
    for Line { provider, names, output_max } in models {
        for name in names {
            lines.push(limit(Some(provider.as_str().into()), &name, output_max)?);
        }
    }
    Ok(ModelLimits::new(lines))
}

fn limit(provider: Option<Box<str>>, name: &str, output_max: u64) -> Result<OutputLimit, String> {
    let models = Pattern::parse(name).ok_or_else(|| {
        format!("{name:?} is no pattern: write names of models in lower case, with * for anything and # for a digit")
    })?;
    if !(1..=TOKENS_PER_CALL_MAX).contains(&output_max) {
        return Err(format!("{name:?}: write how many tokens, from 1 to {TOKENS_PER_CALL_MAX}"));
    }
    Ok(OutputLimit { provider, models, output_max })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::ProviderId;

    #[test]
    fn known_models_have_the_maximum_that_their_provider_publishes() {
        let limits = parse("").unwrap();
        let openai = |model: &str| limits.output_max(&ProviderId::new("openai"), model);
        let gemini = |model: &str| limits.output_max(&ProviderId::new("gemini"), model);
        for (model, max) in [
            ("gpt-4o", 16_384),
            ("gpt-4o-2024-05-13", 4_096),
            ("GPT-4o-mini", 16_384),
            ("ft:gpt-4o-mini-2024-07-18:acme::1", 16_384),
            ("gpt-4", 8_192),
            ("gpt-4-0613", 8_192),
            ("gpt-4-turbo-2024-04-09", 4_096),
            ("gpt-4.1-nano", 32_768),
            ("gpt-3.5-turbo", 4_096),
            ("o1-mini", 65_536),
            ("o3-mini-2025-01-31", 100_000),
            ("gpt-5-pro", 272_000),
            ("gpt-5.1-chat-latest", 16_384),
            ("gpt-5.4-2026-03-05", 128_000),
            ("gpt-6.1-sol", 128_000),
        ] {
            assert_eq!(openai(model), Some(max), "{model}");
            assert_eq!(gemini(model), None, "{model}");
        }
        for (model, max) in [
            ("gemini-1.5-pro-002", 8_192),
            ("gemini-2.0-flash", 8_192),
            ("gemini-2.5-pro", 65_536),
            ("models/gemini-3.8-flash", 65_536),
            ("projects/p/locations/l/publishers/google/models/gemini-2.5-flash", 65_536),
            ("gemini-2.5-flash-image", 32_768),
            ("gemini-2.5-flash-preview-tts", 16_384),
        ] {
            assert_eq!(gemini(model), Some(max), "{model}");
        }
        assert_eq!((openai("whisper-1"), openai(""), openai(&"g".repeat(10_000))), (None, None, None));
    }

    #[test]
    fn every_line_names_a_provider_that_there_is() {
        let File { models, .. } = serde_json::from_str(BUILTIN).unwrap();
        for line in models {
            assert!(matches!(line.provider.as_str(), "openai" | "gemini"), "{}", line.provider);
        }
    }

    #[test]
    fn an_operators_lines_go_first_and_say_what_is_wrong_with_them() {
        let limits = parse("gpt-4o=100, new-*=7").unwrap();
        let openai = |model: &str| limits.output_max(&ProviderId::new("openai"), model);
        assert_eq!((openai("gpt-4o"), openai("gpt-4o-mini"), openai("new-1")), (Some(100), Some(16_384), Some(7)));
        for bad in ["gpt-4o", "gpt-4o=", "gpt-4o=0", "gpt-4o=-1", "GPT=1", "=1", "a=1=2", "gpt-4o=10000000000000000"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
