//! Where the most tokens of output stand in a request body, and how others are written in their place.
//!
//! May use: the siblings `json` and `request`. A maximum goes where the client wrote one, in the member that it used; where it
//! wrote none, into the member that the provider documents. The rest of the body stays as it is.

use std::ops::Range;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::json;
use super::request::{inside, place};
use super::{Edit, Endpoint, Reads};

/// Where a request body has room for the most tokens of one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputCap(Vec<Spot>);

/// One place, and what stands around the number there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Spot {
    range: Range<usize>,
    before: &'static str,
    after: &'static str,
}

impl OutputCap {
    /// The edits that make `max` the most tokens of one answer, in ascending order.
    pub fn edits(&self, max: u64) -> impl Iterator<Item = Edit> {
        self.0.iter().map(move |Spot { range, before, after }| Edit {
            range: range.clone(),
            with: format!("{before}{max}{after}"),
        })
    }
}

/// How one dialect writes the maximum.
struct Member {
    /// The names that it reads, the one to write first.
    names: &'static [&'static str],
    /// The member with `names.0` in it, to insert: what stands before the number, behind it, and behind it with more to follow.
    before: &'static str,
    after: &'static str,
    after_and_more: &'static str,
}

const CHAT: Member = Member {
    names: &["max_completion_tokens", "max_tokens"],
    before: r#""max_completion_tokens":"#,
    after: "",
    after_and_more: ",",
};
const TOKENS: Member = Member { names: &["max_tokens", "max_completion_tokens"], before: r#""max_tokens":"#, ..CHAT };
const RESPONSES: Member = Member { names: &["max_output_tokens"], before: r#""max_output_tokens":"#, ..CHAT };
const GENERATE: Member =
    Member { names: &["maxOutputTokens", "max_output_tokens"], before: r#""maxOutputTokens":"#, ..CHAT };
const INTERACTION: Member = Member { names: &["max_output_tokens", "maxOutputTokens"], ..RESPONSES };

/// Where the settings of a generation stand, in Gemini's dialect.
const SETTINGS: [&str; 2] = ["generationConfig", "generation_config"];

/// Where a maximum goes in a body of this endpoint; `None` where it takes none, or the body has none of the right form.
pub fn output_cap(endpoint: &Endpoint, body: &Bytes) -> Option<OutputCap> {
    let spots = match (endpoint.reads, endpoint.name) {
        (Reads::Chat, _) => at_top(body, &CHAT),
        (Reads::ChatWithinTotal | Reads::Completions, _) => at_top(body, &TOKENS),
        (Reads::Responses, "responses") => at_top(body, &RESPONSES),
        (Reads::Generate, _) => in_settings(body, &GENERATE, r#""generationConfig":{"maxOutputTokens":"#),
        (Reads::Interaction, _) => in_settings(body, &INTERACTION, r#""generation_config":{"max_output_tokens":"#),
        _ => None,
    };
    spots.filter(|spots| !spots.is_empty()).map(|mut spots| {
        spots.sort_by_key(|spot| spot.range.start);
        OutputCap(spots)
    })
}

fn at_top(body: &[u8], member: &Member) -> Option<Vec<Spot>> {
    in_object(body, 0..body.len(), member)
}

/// In every object of settings there is: of two the last one holds, and which of two names does is the provider's affair.
fn in_settings(body: &[u8], member: &Member, whole: &'static str) -> Option<Vec<Spot>> {
    let mut objects: Vec<&RawValue> = Vec::new();
    json::members(body, &SETTINGS, |_, raw| objects.push(raw)).ok()?;
    let mut spots = Vec::new();
    for raw in objects {
        let range = place(body, raw)?;
        if json::is_object(raw) {
            spots.extend(in_object(body, range, member)?);
        } else {
            spots.push(Spot { range, before: whole.split_once(':')?.1, after: "}" });
        }
    }
    if spots.is_empty() {
        let (at, is_empty) = inside(body, 0..body.len())?;
        spots.push(Spot { range: at..at, before: whole, after: if is_empty { "}" } else { "}," } });
    }
    Some(spots)
}

fn in_object(body: &[u8], within: Range<usize>, member: &Member) -> Option<Vec<Spot>> {
    let (mut given, mut nothing) = (Vec::new(), Vec::new());
    json::members(body.get(within.clone())?, member.names, |index, raw| {
        let spot = place(body, raw).map(|range| Spot { range, before: "", after: "" });
        if raw.get() == "null" { nothing.push((index, spot)) } else { given.push(spot) }
    })
    .ok()?;
    if !given.is_empty() {
        return given.into_iter().collect();
    }
    // A member without a value is given one; of two names only one may have any.
    if let Some((index, _)) = nothing.first().cloned() {
        return nothing.into_iter().filter(|(other, _)| *other == index).map(|(_, spot)| spot).collect();
    }
    let (at, is_empty) = inside(body, within)?;
    let after = if is_empty { member.after } else { member.after_and_more };
    Some(vec![Spot { range: at..at, before: member.before, after }])
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::super::{CredentialPlace, apply, route};
    use super::*;

    fn capped(path: &str, body: &str, max: u64) -> Option<String> {
        let (_, endpoint) = route(&Method::POST, path, CredentialPlace::Bearer).unwrap();
        let body = Bytes::copy_from_slice(body.as_bytes());
        let edits: Vec<Edit> = output_cap(&endpoint, &body)?.edits(max).collect();
        Some(String::from_utf8(apply(&edits, &body).concat()).unwrap())
    }

    #[test]
    fn the_maximum_goes_where_the_client_wrote_one() {
        let generate = "/v1beta/models/gemini-2.5-flash:generateContent";
        for (path, body, expected) in [
            ("/v1/chat/completions", r#"{"model":"m"}"#, r#"{"max_completion_tokens":50,"model":"m"}"#),
            ("/v1/chat/completions", r#"{"max_tokens": 900 ,"model":"m"}"#, r#"{"max_tokens": 50 ,"model":"m"}"#),
            (
                "/v1/chat/completions",
                r#"{"max_completion_tokens":9,"m":{"max_tokens":1},"max_completion_tokens":900}"#,
                r#"{"max_completion_tokens":50,"m":{"max_tokens":1},"max_completion_tokens":50}"#,
            ),
            (
                "/v1/chat/completions",
                r#"{"max_tokens":null,"max_completion_tokens":null}"#,
                r#"{"max_tokens":50,"max_completion_tokens":null}"#,
            ),
            (
                "/v1/chat/completions",
                r#"{"max_tokens":null,"max_completion_tokens":7}"#,
                r#"{"max_tokens":null,"max_completion_tokens":50}"#,
            ),
            ("/v1/chat/completions", r#"{"max_tokens":"7"}"#, r#"{"max_tokens":50}"#),
            ("/v1/chat/completions", "{ }", r#"{"max_completion_tokens":50 }"#),
            ("/v1beta/openai/chat/completions", r#"{"model":"m"}"#, r#"{"max_tokens":50,"model":"m"}"#),
            ("/v1/completions", r#"{"model":"m"}"#, r#"{"max_tokens":50,"model":"m"}"#),
            ("/v1/responses", r#"{"model":"m"}"#, r#"{"max_output_tokens":50,"model":"m"}"#),
            ("/v1/responses", r#"{"max_output_tokens":70000}"#, r#"{"max_output_tokens":50}"#),
            (generate, r#"{"contents":[]}"#, r#"{"generationConfig":{"maxOutputTokens":50},"contents":[]}"#),
            (generate, r#"{"generationConfig":{}}"#, r#"{"generationConfig":{"maxOutputTokens":50}}"#),
            (generate, r#"{"generationConfig":null}"#, r#"{"generationConfig":{"maxOutputTokens":50}}"#),
            (
                generate,
                r#"{"generation_config":{"temperature":1,"max_output_tokens":"800"}}"#,
                r#"{"generation_config":{"temperature":1,"max_output_tokens":50}}"#,
            ),
            (
                generate,
                r#"{"generationConfig":{"temperature":1},"contents":[{"maxOutputTokens":3}]}"#,
                r#"{"generationConfig":{"maxOutputTokens":50,"temperature":1},"contents":[{"maxOutputTokens":3}]}"#,
            ),
            (
                "/v1beta/interactions",
                r#"{"input":"hi"}"#,
                r#"{"generation_config":{"max_output_tokens":50},"input":"hi"}"#,
            ),
        ] {
            assert_eq!(capped(path, body, 50).as_deref(), Some(expected), "{body}");
        }
    }

    #[test]
    fn what_takes_no_maximum_gets_none() {
        for path in ["/v1/embeddings", "/v1/images/generations", "/v1/audio/speech", "/v1/responses/compact"] {
            assert_eq!(capped(path, r#"{"model":"m","max_tokens":9}"#, 50), None, "{path}");
        }
    }
}
