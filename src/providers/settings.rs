//! What a request body says of itself beside its text: how much it wants at most, what it refers to, which tier it asks for.
//!
//! May use: `domain`, the siblings `json`, `prompt` and `usage`. Both dialects have names of their own for the same things, so
//! all of them are read wherever they stand: a member that a provider does not know it refuses or ignores.

use serde_json::value::RawValue;

use crate::domain::price::ServiceTier;

use super::json::{self, Count};
use super::usage::tier_named;

/// The members that are read here, in the order of [`Settings::look`].
pub(super) const SETTINGS: [&str; 20] = [
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens_to_sample",
    "n",
    "best_of",
    "generationConfig",
    "generation_config",
    "service_tier",
    "serviceTier",
    "previous_response_id",
    "previous_interaction_id",
    "conversation",
    "cachedContent",
    "cached_content",
    "web_search_options",
    "input_file_id",
    "assistant_id",
    "thread",
    "batch",
];

/// Members of Gemini's settings of a generation.
const OF_GENERATION: [&str; 4] = ["maxOutputTokens", "max_output_tokens", "candidateCount", "candidate_count"];

/// Members of a tool that only say how it is called; Gemini has one object for many tools and for those it runs itself.
const DECLARATIONS: [&str; 2] = ["functionDeclarations", "function_declarations"];

/// Types of tools that the client runs: the provider reads of them what stands in the body.
const RUN_BY_CLIENT: [&str; 3] = ["function", "custom", "namespace"];

/// What was read so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Settings {
    output_max: Option<u64>,
    answers: Option<u64>,
    best_of: Option<u64>,
    pub(super) tier: Option<ServiceTier>,
    pub(super) refers: bool,
}

impl Settings {
    /// Takes in the value of a member of [`SETTINGS`].
    pub(super) fn look(&mut self, name: &str, raw: &RawValue) {
        match name {
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" | "max_tokens_to_sample" => {
                self.declares(Count::of(raw));
            }
            "n" => self.answers = whole(Count::of(raw)),
            "best_of" => self.best_of = whole(Count::of(raw)),
            "generationConfig" | "generation_config" => self.generation(raw),
            "service_tier" | "serviceTier" => self.tier = json::text(raw).and_then(|name| requested_tier(&name)),
            _ => self.refers |= raw.get() != "null",
        }
    }

    /// Takes in the tools: those that the provider runs itself bring text that the body does not have.
    pub(super) fn look_at_tools(&mut self, raw: &RawValue) {
        if self.refers {
            return;
        }
        let mut all_of_client = true;
        // What is no array of objects the provider refuses.
        let _is_array = json::elements(raw.get().as_bytes(), |tool| {
            all_of_client &= is_run_by_client(tool);
            all_of_client
        });
        self.refers |= !all_of_client;
    }

    /// How many answers are made.
    pub(super) fn answers(&self) -> u64 {
        self.answers.unwrap_or(1).max(self.best_of.unwrap_or(1)).max(1)
    }

    /// The most tokens of output, of all answers together.
    pub(super) fn output_max(&self) -> Option<u64> {
        self.output_max.map(|max| max.saturating_mul(self.answers()))
    }

    /// Of several maxima the largest holds: which of them a provider obeys is not ours to say.
    fn declares(&mut self, count: Count) {
        self.output_max = self.output_max.max(whole(count));
    }

    fn generation(&mut self, raw: &RawValue) {
        // What is no object the provider refuses.
        let _is_object = json::members(raw.get().as_bytes(), &OF_GENERATION, |index, raw| match index {
            0 | 1 => self.declares(Count::of_text(raw)),
            _ => self.answers = whole(Count::of_text(raw)),
        });
    }
}

fn whole(count: Count) -> Option<u64> {
    match count {
        Count::Whole(count) => Some(count),
        Count::Absent | Count::Null | Count::Bad => None,
    }
}

/// The tier of that name; none for `auto`, which leaves it to the account.
fn requested_tier(name: &str) -> Option<ServiceTier> {
    let named = tier_named(name, ServiceTier::Standard);
    // A name that says nothing of the price gives back whatever stands for it.
    (tier_named(name, ServiceTier::Batch) == named).then_some(named)
}

fn is_run_by_client(tool: &RawValue) -> bool {
    let tool = tool.get().as_bytes();
    let (mut members, mut declarations) = (0u32, 0u32);
    if json::values(tool, |_| members = members.saturating_add(1)).is_err() {
        return true;
    }
    let mut kind = None;
    let [declared, declared_snake] = DECLARATIONS;
    let _is_object = json::members(tool, &["type", declared, declared_snake], |index, raw| match index {
        0 => kind = Some(raw),
        _ => declarations = declarations.saturating_add(1),
    });
    match kind {
        Some(kind) => json::text(kind).is_some_and(|kind| RUN_BY_CLIENT.contains(&&*kind)),
        None => declarations == members,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::request::{ModelIn, StreamBy, read};
    use super::super::{Call, KEPT_PROMPT_BYTES_MAX};
    use super::*;

    fn call(body: &str) -> Call {
        let body = Bytes::copy_from_slice(body.as_bytes());
        read(&body, ModelIn::Path("m"), StreamBy::Body).unwrap_or_else(|refusal| panic!("{body:?}: {refusal}"))
    }

    #[test]
    fn the_declared_maximum_is_that_of_all_answers_together() {
        for (body, max) in [
            ("{}", None),
            (r#"{"max_tokens":7}"#, Some(7)),
            (r#"{"max_tokens":7,"max_completion_tokens":9}"#, Some(9)),
            (r#"{"max_output_tokens":16,"n":3}"#, Some(48)),
            (r#"{"n":3}"#, None),
            (r#"{"max_tokens":7,"n":2,"best_of":5}"#, Some(35)),
            (r#"{"max_tokens":7,"n":0}"#, Some(7)),
            (r#"{"max_tokens":null}"#, None),
            (r#"{"max_tokens":0}"#, Some(0)),
            (r#"{"max_tokens":-1}"#, None),
            (r#"{"max_tokens":"7"}"#, None),
            (r#"{"m\u0061x_tokens":7}"#, Some(7)),
            (r#"{"max_tokens":18446744073709551615,"n":2}"#, Some(u64::MAX)),
            (r#"{"generationConfig":{"maxOutputTokens":5,"candidateCount":2}}"#, Some(10)),
            (r#"{"generation_config":{"max_output_tokens":"5"}}"#, Some(5)),
            (r#"{"generationConfig":{"stopSequences":["maxOutputTokens"]}}"#, None),
            (r#"{"messages":[{"max_tokens":7}]}"#, None),
        ] {
            assert_eq!(call(body).output_max, max, "{body}");
        }
        assert_eq!((call("{}").answers, call(r#"{"n":3}"#).answers, call(r#"{"n":2,"best_of":5}"#).answers), (1, 3, 5));
    }

    #[test]
    fn what_is_read_from_elsewhere_is_told() {
        for (body, refers) in [
            (r#"{"input":"hi"}"#, false),
            (r#"{"input":"hi","previous_response_id":null}"#, false),
            (r#"{"input":"hi","previous_response_id":"resp_1"}"#, true),
            (r#"{"input":"hi","conversation":{"id":"conv_1"}}"#, true),
            (r#"{"prompt":{"id":"pmpt_1","version":"2"}}"#, true),
            (r#"{"prompt":"hi"}"#, false),
            (r#"{"contents":[],"cachedContent":"cachedContents/1"}"#, true),
            (r#"{"input":[{"type":"item_reference","id":"msg_1"}]}"#, true),
            (r#"{"input":[{"type":"input_file","file_id":"file-1"}]}"#, true),
            (r#"{"input":[{"type":"input_image","image_url":"https://x/y.png"}]}"#, true),
            (r#"{"input":[{"type":"input_image","image_url":"data:image/png;base64,AAAA"}]}"#, false),
            (r#"{"contents":[{"parts":[{"fileData":{"fileUri":"gs://b/c"}}]}]}"#, true),
            (r#"{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="}}]}]}"#, false),
            (r#"{"tools":[{"type":"function","function":{"name":"web_search"}}]}"#, false),
            (r#"{"tools":[{"type":"function"},{"type":"web_search"}]}"#, true),
            (r#"{"tools":[{"functionDeclarations":[{"name":"google_search"}]}]}"#, false),
            (r#"{"tools":[{"functionDeclarations":[]},{"google_search":{}}]}"#, true),
            (r#"{"tools":[{"functionDeclarations":[],"urlContext":{}}]}"#, true),
            (r#"{"tools":null,"web_search_options":{}}"#, true),
        ] {
            assert_eq!(call(body).refers, refers, "{body}");
        }
    }

    #[test]
    fn media_are_told_wherever_they_stand() {
        let image = r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}"#;
        for (body, has) in [
            (r#"{"messages":[{"role":"user","content":"data"}]}"#.to_owned(), false),
            (format!(r#"{{"messages":[{{"role":"user","content":[{image}]}}]}}"#), true),
            (
                format!(
                    r#"{{"messages":[{{"role":"user","content":"{}"}},{image}]}}"#,
                    "x".repeat(KEPT_PROMPT_BYTES_MAX)
                ),
                true,
            ),
            (r#"{"input":[{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}]}"#.to_owned(), true),
            (r#"{"input":[{"type":"input_file","file_id":"file-1"}]}"#.to_owned(), true),
        ] {
            let call = call(&body);
            assert_eq!((call.has_media, call.body_bytes), (has, body.len() as u64), "{}", body.len());
        }
    }

    #[test]
    fn a_tier_is_told_where_it_has_a_price_of_its_own() {
        for (name, tier) in [
            ("\"flex\"", Some(ServiceTier::Flex)),
            ("\"priority\"", Some(ServiceTier::Priority)),
            ("\"default\"", Some(ServiceTier::Standard)),
            ("\"auto\"", None),
            ("\"x\"", None),
            ("null", None),
            ("7", None),
        ] {
            assert_eq!(call(&format!(r#"{{"service_tier":{name}}}"#)).service_tier, tier, "{name}");
        }
        assert_eq!(call(r#"{"serviceTier":"flex"}"#).service_tier, Some(ServiceTier::Flex));
    }
}
