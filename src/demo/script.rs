//! What a model's name asks the simulated provider to do, and how it counts words.
//!
//! May use: nothing of ours. Directives are joined by `+`, as in `slow-300ms+cut-3`; any other name is a model that
//! answers at once:
//!
//! | directive | effect |
//! |---|---|
//! | `error-429` | answers with that status and an error of the dialect |
//! | `slow-300ms` | waits before the head |
//! | `pace-50ms` | waits between the events of a stream (10 ms without it) |
//! | `words-100` | answers with that many words (12 without it) |
//! | `no-usage` | says nothing of its usage |
//! | `cut-3` | breaks the connection after three events, or in the middle of a JSON document |
//! | `gzip` | compresses, if the request accepts it |
//!
//! **One word is one token.** Prompt tokens are the words of all texts of the request (and the elements of prompts that
//! are token arrays); completion tokens are the words of all answers. A tool call counts 1 and 1 for each argument.

use std::time::Duration;

use serde_json::Value;

/// Longer answers would be built whole in memory.
const WORDS_MAX: usize = 100_000;
/// A test that waits longer than this waits for nothing.
const PAUSE_MAX: Duration = Duration::from_secs(600);
const WORDS_DEFAULT: usize = 12;
const PACE_DEFAULT: Duration = Duration::from_millis(10);
const VOCABULARY: [&str; 12] = [
    "Hello",
    "from",
    "the",
    "simulated",
    "provider.",
    "Your",
    "request",
    "came",
    "through",
    "the",
    "gateway",
    "whole.",
];

/// What one request's model name asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Script {
    /// Answer with this status instead.
    pub error: Option<u16>,
    /// Wait before the head.
    pub delay: Duration,
    /// Wait between events.
    pub pace: Duration,
    /// Words of one answer.
    pub words: usize,
    /// Leave usage out.
    pub no_usage: bool,
    /// Break the connection after so many events.
    pub cut_after: Option<usize>,
    /// Compress.
    pub gzip: bool,
}

impl Script {
    /// Reads a model's name.
    pub fn of(model: &str) -> Self {
        let mut script = Self {
            error: None,
            delay: Duration::ZERO,
            pace: PACE_DEFAULT,
            words: WORDS_DEFAULT,
            no_usage: false,
            cut_after: None,
            gzip: false,
        };
        for part in model.split('+') {
            let (name, value) = part.split_once('-').unwrap_or((part, ""));
            match (name, value) {
                ("error", status) => script.error = status.parse().ok().filter(|status| (400..600).contains(status)),
                ("slow", pause) => script.delay = milliseconds(pause).unwrap_or(script.delay),
                ("pace", pause) => script.pace = milliseconds(pause).unwrap_or(script.pace),
                ("words", count) => script.words = count.parse().unwrap_or(WORDS_DEFAULT).min(WORDS_MAX),
                ("no", "usage") => script.no_usage = true,
                ("cut", events) => script.cut_after = events.parse().ok(),
                ("gzip", "") => script.gzip = true,
                _ => {}
            }
        }
        script
    }

    /// The words of one answer, at most `limit` of them, and whether the limit cut it.
    pub fn answer(&self, limit: Option<u64>) -> (Vec<&'static str>, bool) {
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let words = VOCABULARY.iter().copied().cycle().take(self.words.min(limit)).collect();
        (words, self.words > limit)
    }
}

fn milliseconds(text: &str) -> Option<Duration> {
    let ms = text.strip_suffix("ms")?.parse().ok()?;
    Some(Duration::from_millis(ms).min(PAUSE_MAX))
}

/// The words of every text below a request's value: members `text` and `content`, array elements and plain strings.
pub(super) fn words(value: &Value) -> u64 {
    match value {
        Value::String(text) => u64::try_from(text.split_whitespace().count()).unwrap_or(u64::MAX),
        // Prompts may be arrays of token numbers.
        Value::Number(_) => 1,
        Value::Array(items) => items.iter().map(words).sum(),
        Value::Object(members) => members
            .iter()
            .filter(|(name, _)| matches!(name.as_str(), "text" | "content" | "parts" | "contents" | "input" | "output"))
            .map(|(_, value)| words(value))
            .sum(),
        Value::Null | Value::Bool(_) => 0,
    }
}

/// Arguments that fit a tool's JSON schema well enough to be parsed.
pub(super) fn arguments(schema: &Value) -> Value {
    let properties = schema.get("properties").and_then(Value::as_object);
    let example = |schema: &Value| {
        let kind = schema.get("type").and_then(Value::as_str).unwrap_or("string").to_ascii_lowercase();
        match kind.as_str() {
            "integer" | "number" => Value::from(1),
            "boolean" => Value::from(true),
            "array" => Value::Array(Vec::new()),
            "object" => Value::Object(serde_json::Map::new()),
            _ => schema.get("enum").and_then(|options| options.get(0)).cloned().unwrap_or_else(|| Value::from("Paris")),
        }
    };
    let members = properties.into_iter().flatten().map(|(name, schema)| (name.clone(), example(schema)));
    Value::Object(members.collect())
}

/// Sets one member of a JSON object.
pub(super) fn put(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}

/// What a tool call counts: 1, and 1 for each argument.
pub(super) fn call_tokens(arguments: &Value) -> u64 {
    1 + arguments.as_object().map_or(0, |members| u64::try_from(members.len()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_is_read_part_by_part() {
        let plain = Script::of("gpt-4o-mini");
        assert_eq!(plain, Script::of("gemini-2.5-flash"));
        assert_eq!((plain.error, plain.delay, plain.words), (None, Duration::ZERO, 12));
        let all = Script::of("slow-300ms+pace-1ms+cut-3+no-usage+words-5+gzip+error-429");
        assert_eq!(all.delay, Duration::from_millis(300));
        assert_eq!((all.error, all.cut_after, all.no_usage, all.words, all.gzip), (Some(429), Some(3), true, 5, true));
        assert_eq!(Script::of("error-999").error, None);
        assert_eq!(Script::of("slow-999999999ms").delay, PAUSE_MAX);
    }

    #[test]
    fn a_word_is_a_token() {
        for (value, expected) in [
            (json!("one two  three"), 3),
            (
                json!([{"role": "user", "content": "one two"}, {"role": "user", "content": [{"type": "text", "text": "x"}]}]),
                3,
            ),
            (json!([[1, 2, 3], [4]]), 4),
            (json!({"parts": [{"text": "a b"}, {"inlineData": {"data": "AAAA"}}]}), 2),
        ] {
            assert_eq!(words(&value), expected, "{value}");
        }
    }

    #[test]
    fn an_answer_keeps_its_limit() {
        assert_eq!(Script::of("words-20").answer(Some(5)), (VOCABULARY[..5].to_vec(), true));
        assert_eq!(Script::of("words-20").answer(None).0.len(), 20);
        assert!(!Script::of("x").answer(Some(12)).1);
    }
}
