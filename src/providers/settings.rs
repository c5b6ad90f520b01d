//! What a request body says of itself beside its text: how many answers it wants, what it refers to, which tier it asks for.
//!
//! May use: `domain`, the siblings `json`, `prompt` and `usage`. Both dialects have names of their own for the same things, so
//! all of them are read wherever they stand: a member that a provider does not know it refuses or ignores. How long an answer
//! may be is the other way round, as a name that is ignored bounds nothing: `cap` reads that.

use serde_json::value::RawValue;

use crate::domain::price::ServiceTier;

use super::Searches;
use super::json::{self, Count};
use super::usage::tier_named;

/// The members that are read here and by `cap`.
pub(super) const SETTINGS: [&str; 22] = [
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n",
    "best_of",
    "generationConfig",
    "generation_config",
    "service_tier",
    "serviceTier",
    "previous_response_id",
    "previous_interaction_id",
    "previousInteractionId",
    "conversation",
    "cachedContent",
    "cached_content",
    "web_search_options",
    "input_file_id",
    "assistant_id",
    "thread",
    "batch",
    "extra_body",
    "google",
];

/// What Gemini's endpoints in OpenAI's dialect take beside it, and of that what only says how long is thought.
const BESIDE_DIALECT: &str = "google";
const OF_THINKING: [&str; 2] = ["thinking_config", "thinkingConfig"];

/// How many answers are wanted, in Gemini's settings of a generation.
const OF_GENERATION: [&str; 2] = ["candidateCount", "candidate_count"];

/// What a number of answers that cannot be read may be: the most that any provider takes, which is what OpenAI says of `n`.
const ANSWERS_MAX: u64 = 128;

/// Members of a tool that only say how it is called; Gemini has one object for many tools and for those it runs itself.
const DECLARATIONS: [&str; 2] = ["functionDeclarations", "function_declarations"];

/// Types of tools that the client runs: the provider reads of them what stands in the body.
const RUN_BY_CLIENT: [&str; 3] = ["function", "custom", "namespace"];

/// What was read so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Settings {
    /// 0 where it says nothing of them.
    answers: u64,
    pub(super) tier: Option<ServiceTier>,
    pub(super) refers: bool,
    pub(super) searches: Searches,
}

impl Settings {
    /// Takes in the value of a member of [`SETTINGS`].
    pub(super) fn look(&mut self, name: &str, raw: &RawValue) {
        match name {
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" => {}
            "n" | "best_of" => self.wants(raw),
            "generationConfig" | "generation_config" => self.generation(raw),
            "service_tier" | "serviceTier" => self.tier = json::text(raw).and_then(|name| requested_tier(&name)),
            "web_search_options" if raw.get() != "null" => self.searches(Searches::Once),
            // It has tools of its own.
            "assistant_id" if raw.get() != "null" => self.searches(Searches::Often),
            "extra_body" => self.refers |= !has_only(raw, &[BESIDE_DIALECT], says_of_thinking),
            BESIDE_DIALECT => self.refers |= !says_of_thinking(raw),
            _ => self.refers |= raw.get() != "null",
        }
    }

    /// Takes in the tools: those that the provider runs itself bring text that the body does not have.
    pub(super) fn look_at_tools(&mut self, raw: &RawValue) {
        // One that stands without its array is one to Google's servers.
        let mut all_of_client = raw.get().starts_with('[') || raw.get() == "null";
        // Where this ends early, what it looked for was found.
        let _is_over = json::elements(raw.get().as_bytes(), |tool| {
            all_of_client &= is_run_by_client(tool);
            all_of_client
        });
        if !all_of_client {
            self.searches(Searches::Often);
        }
    }

    /// It may be answered with what the provider finds.
    pub(super) fn searches(&mut self, searches: Searches) {
        self.refers = true;
        self.searches = self.searches.max(searches);
    }

    /// How many answers are made.
    pub(super) fn answers(&self) -> u64 {
        self.answers.max(1)
    }

    /// Of several numbers the largest: which of them a provider obeys is not ours to say.
    fn wants(&mut self, raw: &RawValue) {
        let answers = match Count::of_text(raw) {
            Count::Absent | Count::Null => 0,
            Count::Whole(answers) => answers,
            Count::Bad => ANSWERS_MAX,
        };
        self.answers = self.answers.max(answers);
    }

    fn generation(&mut self, raw: &RawValue) {
        // What is no object the provider refuses.
        let _is_object = json::members(raw.get().as_bytes(), &OF_GENERATION, |_, raw| self.wants(raw));
    }
}

/// The tier of that name; none for `auto`, which leaves it to the account.
fn requested_tier(name: &str) -> Option<ServiceTier> {
    let named = tier_named(name, ServiceTier::Standard);
    // A name that says nothing of the price gives back whatever stands for it.
    (tier_named(name, ServiceTier::Batch) == named).then_some(named)
}

/// Whether a value is none, or an object whose members all have one of these names and are as `is_fine` says.
fn has_only(raw: &RawValue, names: &[&'static str], is_fine: impl Fn(&RawValue) -> bool) -> bool {
    let object = raw.get().as_bytes();
    let (mut members, mut fine) = (0u32, 0u32);
    let is_object = json::values(object, |_| members = members.saturating_add(1)).is_ok()
        && json::members(object, names, |_, raw| fine = fine.saturating_add(u32::from(is_fine(raw)))).is_ok();
    raw.get() == "null" || (is_object && members == fine)
}

fn says_of_thinking(google: &RawValue) -> bool {
    has_only(google, &OF_THINKING, |_| true)
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
    use http::Method;

    use super::super::cap::Maximum;
    use super::super::request::{ModelIn, StreamBy, read};
    use super::super::{Call, CredentialPlace, KEPT_PROMPT_BYTES_MAX, route};
    use super::*;

    const CHAT: &str = "/v1/chat/completions";
    const RESPONSES: &str = "/v1/responses";
    const GENERATE: &str = "/v1beta/models/m:generateContent";

    fn call_of(path: &str, body: &str) -> Call {
        let (_, endpoint) = route(&Method::POST, path, CredentialPlace::Bearer).unwrap();
        let body = Bytes::copy_from_slice(body.as_bytes());
        read(&body, ModelIn::Path("m"), StreamBy::Body, Maximum::of(&endpoint))
            .unwrap_or_else(|refusal| panic!("{body:?}: {refusal}"))
    }

    fn call(body: &str) -> Call {
        call_of(CHAT, body)
    }

    #[test]
    fn a_number_of_answers_that_cannot_be_read_is_the_most_there_can_be() {
        for (body, answers) in [
            (r#"{"n":8.0}"#, 128),
            (r#"{"n":1e1}"#, 128),
            (r#"{"n":-1}"#, 128),
            (r#"{"n":[8]}"#, 128),
            (r#"{"n":"8"}"#, 8),
            (r#"{"n":8,"n":1}"#, 8),
            (r#"{"n":8,"n":null}"#, 8),
            (r#"{"n":null}"#, 1),
            (r#"{"n":0}"#, 1),
            (r#"{"generationConfig":{"candidateCount":8.0}}"#, 128),
            (r#"{"generationConfig":{"candidateCount":1e1}}"#, 128),
            (r#"{"generationConfig":{"candidateCount":8,"candidate_count":1}}"#, 8),
            (r#"{"generationConfig":{"candidateCount":8},"generation_config":{"candidateCount":1}}"#, 8),
        ] {
            assert_eq!(call(body).answers, answers, "{body}");
        }
        assert_eq!(call(r#"{"n":8.0,"max_tokens":7}"#).output_max, Some(128 * 7));
    }

    #[test]
    fn the_declared_maximum_is_that_of_all_answers_together() {
        for (path, body, max) in [
            (CHAT, "{}", None),
            (CHAT, r#"{"max_tokens":7}"#, Some(7)),
            (CHAT, r#"{"max_tokens":7,"max_completion_tokens":9}"#, Some(9)),
            (RESPONSES, r#"{"max_output_tokens":16,"n":3}"#, Some(48)),
            (CHAT, r#"{"n":3}"#, None),
            ("/v1/completions", r#"{"max_tokens":7,"n":2,"best_of":5}"#, Some(35)),
            (CHAT, r#"{"max_tokens":7,"n":0}"#, Some(7)),
            (CHAT, r#"{"max_tokens":null}"#, None),
            (CHAT, r#"{"max_tokens":null,"max_completion_tokens":7}"#, Some(7)),
            (CHAT, r#"{"max_tokens":-1}"#, None),
            (CHAT, r#"{"max_tokens":"7"}"#, None),
            (CHAT, r#"{"m\u0061x_tokens":7}"#, Some(7)),
            (CHAT, r#"{"max_tokens":18446744073709551615,"n":2}"#, Some(u64::MAX)),
            (GENERATE, r#"{"generationConfig":{"maxOutputTokens":5,"candidateCount":2}}"#, Some(10)),
            (GENERATE, r#"{"generation_config":{"max_output_tokens":"5"}}"#, Some(5)),
            (GENERATE, r#"{"generationConfig":{"stopSequences":["maxOutputTokens"]}}"#, None),
            ("/v1beta/interactions", r#"{"generation_config":{"max_output_tokens":5}}"#, Some(5)),
            (CHAT, r#"{"messages":[{"max_tokens":7}]}"#, None),
        ] {
            assert_eq!(call_of(path, body).output_max, max, "{body}");
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
    fn what_is_kept_elsewhere_is_told_however_it_is_named() {
        for (body, refers) in [
            (r#"{"messages":[],"extra_body":{"google":{"cached_content":"cachedContents/x"}}}"#, true),
            (r#"{"messages":[],"google":{"cached_content":"cachedContents/x"}}"#, true),
            (r#"{"messages":[],"extra_body":{"other":{}}}"#, true),
            (r#"{"messages":[],"extra_body":7}"#, true),
            (r#"{"messages":[],"extra_body":{"google":{"thinking_config":{},"cached_content":"x"}}}"#, true),
            (r#"{"messages":[],"extra_body":{"google":{"thinking_config":{"thinking_budget":0}}}}"#, false),
            (r#"{"messages":[],"extra_body":null,"google":null}"#, false),
            (r#"{"messages":[{"role":"assistant","audio":{"id":"audio_1"}}]}"#, true),
            (r#"{"messages":[{"role":"assistant","audio" : {"id":"audio_1"}}]}"#, true),
            (r#"{"messages":[{"role":"assistant","content":"audio","audio":null,"id":"x"}]}"#, false),
            (r#"{"messages":[{"role":"assistant","\u0061udio":{"id":"audio_1"}}]}"#, true),
            (r#"{"messages":[{"role":"user","content":[{"name":"stra\u00dfe","a\/b":"\u0061"}]}]}"#, false),
            (r#"{"input":[{"type":"reasoning","id":"rs_1","summary":[]}]}"#, true),
            (r#"{"input":[{"type":"reasoning","id":"rs_1","encrypted_content":null}]}"#, true),
            (r#"{"input":[{"type":"reasoning","id":"rs_1","encrypted_content":""},{"encrypted_content":"x"}]}"#, true),
            (r#"{"input":[{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"gAAA"}]}"#, false),
            (r#"{"input":[{"id":"msg_1"}]}"#, true),
            (r#"{"input":[{"type":"item_reference","id":"msg_1","encrypted_content":"x"}]}"#, true),
            (r#"{"input":"hi","previousInteractionId":"i1"}"#, true),
            (r#"{"input":[{"type":"item\u005freference","id":"msg_1"}]}"#, true),
            (r#"{"input":[{"type":"image_generation_call","id":"ig_1"}]}"#, true),
            (r#"{"input":[{"type":"message","id":"msg_1","role":"assistant","content":[]}]}"#, false),
            (r#"{"input":[{"type":"function_call","id":"fc_1","call_id":"c","name":"f","arguments":"{}"}]}"#, false),
            (r#"{"input":[{"type":"image","uri":"files/1"}]}"#, true),
        ] {
            assert_eq!(call(body).refers, refers, "{body}");
        }
    }

    #[test]
    fn tools_of_the_provider_are_told_also_behind_what_refers() {
        for (body, searches) in [
            (r#"{"input":"hi"}"#, Searches::Never),
            (r#"{"previous_response_id":"resp_1"}"#, Searches::Never),
            (r#"{"previous_response_id":"resp_1","tools":[{"type":"web_search"}]}"#, Searches::Often),
            (r#"{"tools":[{"type":"function"}]}"#, Searches::Never),
            (r#"{"tools":[{"googleSearch":{}}]}"#, Searches::Often),
            (r#"{"tools":{"googleSearch":{}}}"#, Searches::Often),
            (r#"{"tools":null}"#, Searches::Never),
            (r#"{"tools":[]}"#, Searches::Never),
            (r#"{"web_search_options":null}"#, Searches::Never),
            (r#"{"web_search_options":{}}"#, Searches::Once),
            (r#"{"prompt":{"id":"pmpt_1"}}"#, Searches::Often),
            (r#"{"assistant_id":"asst_1"}"#, Searches::Often),
            (r#"{"agent":"deep-research"}"#, Searches::Often),
        ] {
            assert_eq!(call(body).searches, searches, "{body}");
        }
        let (provider, endpoint) = route(&Method::POST, CHAT, CredentialPlace::Bearer).unwrap();
        let body = Bytes::from_static(br#"{"model":"gpt-4o-search-preview","messages":[]}"#);
        let call = provider.call(&endpoint, None, &body).unwrap();
        assert_eq!((call.searches, call.refers), (Searches::Once, true));
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
