//! Where the most tokens of output stand in a request body, what the body says there, and how others are written in their place.
//!
//! May use: the siblings `json` and `request`. A maximum goes where the client wrote one, in the member that it used; where it
//! wrote none, into the member that the provider documents. The rest of the body stays as it is. What no provider is sure to
//! read as the number that we read is no maximum: a declared one is held, and nothing else is written in its place.

use std::ops::Range;

use serde_json::value::RawValue;

use crate::domain::refusal::Refusal;

use super::json::{self, Count};
use super::request::{inside, place};
use super::{Edit, Endpoint, Reads};

/// Maxima that one body may declare, and objects in which it may: clients write one or two, and each is held against each other.
const DECLARED_MAX: usize = 16;

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

/// How the requests of an endpoint say the most tokens of one answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maximum {
    /// The members that hold the settings which it is one of; none where it stands at the top of the body.
    within: &'static [&'static str],
    /// The names that the endpoint reads, the one to write first; none where it takes no maximum.
    names: &'static [&'static str],
    /// What stands before the number where it is inserted.
    member: &'static str,
    /// The same with the settings around it.
    whole: &'static str,
    /// Whether another one is ever written: not where the call is charged when it is done.
    is_written: bool,
}

const CHAT: Maximum = Maximum {
    names: &["max_completion_tokens", "max_tokens"],
    member: r#""max_completion_tokens":"#,
    is_written: true,
    ..Maximum::NOWHERE
};
const CHAT_BY_TOKENS: Maximum =
    Maximum { names: &["max_tokens", "max_completion_tokens"], member: r#""max_tokens":"#, ..CHAT };
const COMPLETIONS: Maximum = Maximum { names: &["max_tokens"], ..CHAT_BY_TOKENS };
const RESPONSES: Maximum = Maximum { names: &["max_output_tokens"], member: r#""max_output_tokens":"#, ..CHAT };
const RUN: Maximum = Maximum { names: &["max_completion_tokens"], ..Maximum::NOWHERE };
const GENERATE: Maximum = Maximum {
    within: &["generationConfig", "generation_config"],
    names: &["maxOutputTokens", "max_output_tokens"],
    member: r#""maxOutputTokens":"#,
    whole: r#""generationConfig":{"maxOutputTokens":"#,
    is_written: true,
};
const INTERACTION: Maximum =
    Maximum { within: &["generation_config"], whole: r#""generation_config":{"max_output_tokens":"#, ..RESPONSES };

impl Maximum {
    /// The endpoint takes none.
    pub(super) const NOWHERE: Self = Self { within: &[], names: &[], member: "", whole: "", is_written: false };

    /// That of an endpoint.
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        match (endpoint.reads, endpoint.name) {
            (Reads::Chat, _) => CHAT,
            (Reads::ChatWithinTotal, _) => CHAT_BY_TOKENS,
            (Reads::Completions, _) => COMPLETIONS,
            (Reads::Responses, "responses") => RESPONSES,
            (Reads::Run, _) => RUN,
            (Reads::Generate, _) => GENERATE,
            (Reads::Interaction, _) => INTERACTION,
            _ => Self::NOWHERE,
        }
    }
}

/// What a body says of the most tokens of one answer, while its members are read.
pub(super) struct Maxima<'b> {
    body: &'b [u8],
    of: Maximum,
    /// What stands at the top of the body.
    top: Given,
    spots: Vec<Spot>,
    largest: Option<u64>,
    is_doubted: bool,
    /// How many were met: those beyond [`DECLARED_MAX`] are not looked at.
    met: usize,
}

/// What one object says, by the index of each name.
#[derive(Default)]
struct Given {
    values: Vec<(usize, Range<usize>)>,
    nulls: Vec<(usize, Range<usize>)>,
    largest: Option<u64>,
    is_bad: bool,
}

impl<'b> Maxima<'b> {
    pub(super) fn new(of: Maximum, body: &'b [u8]) -> Self {
        Self { body, of, top: Given::default(), spots: Vec::new(), largest: None, is_doubted: false, met: 0 }
    }

    /// Takes in a member of the body.
    pub(super) fn look(&mut self, name: &str, raw: &RawValue) {
        let Maximum { within, names, .. } = self.of;
        if within.contains(&name) {
            self.look_within(raw);
        } else if within.is_empty()
            && let Some(index) = names.iter().position(|known| *known == name)
            && is_looked_at(&mut self.met)
        {
            self.top.take(index, place(self.body, raw), Count::of(raw));
        }
    }

    /// Of two objects the last one may hold, or both: each has to say a maximum, and has one written into it.
    fn look_within(&mut self, raw: &RawValue) {
        let Some(range) = place(self.body, raw).filter(|_| is_looked_at(&mut self.met)) else { return };
        let (mut given, mut met) = (Given::default(), self.met);
        let see = |index, raw: &RawValue| {
            if is_looked_at(&mut met) {
                given.take(index, place(self.body, raw), Count::of_text(raw));
            }
        };
        if json::members(raw.get().as_bytes(), self.of.names, see).is_ok() {
            self.add(given, range);
        } else {
            self.is_doubted = true;
            let before = self.of.whole.split_once(':').map_or("", |(_, object)| object);
            self.spots.push(Spot { range, before, after: "}" });
        }
        self.met = met;
    }

    fn add(&mut self, given: Given, within: Range<usize>) {
        let declared = given.declared();
        self.is_doubted |= declared.is_none();
        // Of several the largest: which of them a provider obeys is not ours to say.
        self.largest = self.largest.max(declared);
        self.spots.extend(given.spots(self.body, within, self.of.member));
    }

    /// The most tokens that the body declares for one answer, and where another maximum goes.
    pub(super) fn finish(mut self) -> Result<(Option<u64>, Option<OutputCap>), Refusal> {
        if self.of.names.is_empty() {
            return Ok((None, None));
        }
        if self.met > DECLARED_MAX {
            return Err(Refusal::BadJson { reason: "it says more than 16 times how long an answer may be" });
        }
        if self.of.within.is_empty() {
            let top = std::mem::take(&mut self.top);
            self.add(top, 0..self.body.len());
        } else if self.spots.is_empty()
            && let Some((at, is_empty)) = inside(self.body, 0..self.body.len())
        {
            let after = if is_empty { "}" } else { "}," };
            self.spots.push(Spot { range: at..at, before: self.of.whole, after });
        }
        let Self { of, mut spots, largest, is_doubted, .. } = self;
        spots.sort_by_key(|spot| spot.range.start);
        let cap = (of.is_written && !spots.is_empty()).then_some(OutputCap(spots));
        Ok((largest.filter(|_| !is_doubted), cap))
    }
}

/// Counts one more, and says whether it is looked at.
fn is_looked_at(met: &mut usize) -> bool {
    *met = met.saturating_add(1);
    *met <= DECLARED_MAX
}

impl Given {
    fn take(&mut self, index: usize, place: Option<Range<usize>>, count: Count) {
        let stands = place.map(|place| (index, place));
        match count {
            Count::Absent | Count::Null => self.nulls.extend(stands),
            Count::Whole(count @ 1..) => {
                self.values.extend(stands);
                self.largest = self.largest.max(Some(count));
            }
            // Some providers take 0 for none at all.
            Count::Whole(0) | Count::Bad => {
                self.values.extend(stands);
                self.is_bad = true;
            }
        }
    }

    fn has_value(&self, index: usize) -> bool {
        self.values.iter().any(|(other, _)| *other == index)
    }

    /// Nothing where any of them is no number that every provider reads alike, or is taken back.
    fn declared(&self) -> Option<u64> {
        let is_taken_back = self.nulls.iter().any(|(index, _)| self.has_value(*index));
        self.largest.filter(|_| !self.is_bad && !is_taken_back)
    }

    fn spots(self, body: &[u8], within: Range<usize>, member: &'static str) -> Vec<Spot> {
        // A member without a value is given one where no other has any; of two names only one may have a value.
        let first = self.nulls.first().map(|(index, _)| *index).filter(|_| self.values.is_empty());
        let nulls = self.nulls.iter().filter(|(index, _)| Some(*index) == first || self.has_value(*index));
        let stand = self.values.iter().chain(nulls).map(|(_, range)| range.clone());
        let mut spots: Vec<Spot> = stand.map(|range| Spot { range, before: "", after: "" }).collect();
        if spots.is_empty()
            && let Some((at, is_empty)) = inside(body, within)
        {
            spots.push(Spot { range: at..at, before: member, after: if is_empty { "" } else { "," } });
        }
        spots
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Method;

    use super::super::request::{ModelIn, StreamBy, read};
    use super::super::{Call, CredentialPlace, apply, route};
    use super::*;

    const CHAT: &str = "/v1/chat/completions";
    const GENERATE: &str = "/v1beta/models/gemini-2.5-flash:generateContent";

    fn call(path: &str, body: &str) -> Call {
        let (_, endpoint) = route(&Method::POST, path, CredentialPlace::Bearer).unwrap();
        let body = Bytes::copy_from_slice(body.as_bytes());
        read(&body, ModelIn::Path("m"), StreamBy::Body, Maximum::of(&endpoint)).unwrap()
    }

    fn capped(path: &str, body: &str, max: u64) -> Option<String> {
        let edits: Vec<Edit> = call(path, body).cap?.edits(max).collect();
        Some(String::from_utf8(apply(&edits, &Bytes::copy_from_slice(body.as_bytes())).concat()).unwrap())
    }

    #[test]
    fn a_maximum_that_a_provider_may_read_otherwise_is_none_and_every_one_is_written_over() {
        for (path, body, written) in [
            (CHAT, r#"{"max_tokens":1e5}"#, r#"{"max_tokens":50}"#),
            (CHAT, r#"{"max_tokens":0}"#, r#"{"max_tokens":50}"#),
            (
                CHAT,
                r#"{"max_completion_tokens":16,"max_tokens":1e5}"#,
                r#"{"max_completion_tokens":50,"max_tokens":50}"#,
            ),
            (CHAT, r#"{"max_tokens":16,"max_tokens":null}"#, r#"{"max_tokens":50,"max_tokens":50}"#),
            (
                GENERATE,
                r#"{"generationConfig":{"maxOutputTokens":16,"max_output_tokens":1e5}}"#,
                r#"{"generationConfig":{"maxOutputTokens":50,"max_output_tokens":50}}"#,
            ),
            (
                GENERATE,
                r#"{"generationConfig":{"maxOutputTokens":16},"generation_config":{}}"#,
                r#"{"generationConfig":{"maxOutputTokens":50},"generation_config":{"maxOutputTokens":50}}"#,
            ),
            (
                GENERATE,
                r#"{"generationConfig":{"maxOutputTokens":16},"generationConfig":null}"#,
                r#"{"generationConfig":{"maxOutputTokens":50},"generationConfig":{"maxOutputTokens":50}}"#,
            ),
        ] {
            assert_eq!(call(path, body).output_max, None, "{body}");
            assert_eq!(capped(path, body, 50).as_deref(), Some(written), "{body}");
        }
    }

    #[test]
    fn more_maxima_than_anybody_writes_are_refused() {
        let refused = |path: &str, body: String| {
            let (_, endpoint) = route(&Method::POST, path, CredentialPlace::Bearer).unwrap();
            read(&Bytes::from(body), ModelIn::Path("m"), StreamBy::Body, Maximum::of(&endpoint)).is_err()
        };
        let (nulls, values) =
            (|times| r#""max_tokens":null,"#.repeat(times), |times| r#""max_completion_tokens":1,"#.repeat(times));
        let top = |each| format!("{{{}{}\"messages\":[]}}", nulls(each), values(each));
        let within = |each| {
            let (nulls, values) = (r#""maxOutputTokens":null,"#.repeat(each), r#""max_output_tokens":1,"#.repeat(each));
            format!("{{\"generationConfig\":{{{nulls}{values}\"topK\":1}}}}")
        };
        let objects = |each| format!("{{{}\"contents\":[]}}", r#""generationConfig":{},"#.repeat(each));
        assert!(!refused(CHAT, top(8)) && refused(CHAT, top(9)));
        assert!(!refused(GENERATE, within(7)) && refused(GENERATE, within(8)));
        assert!(!refused(GENERATE, objects(16)) && refused(GENERATE, objects(17)));
        // Held each against each other these would take minutes.
        assert!(
            refused(CHAT, top(100_000)) && refused(GENERATE, within(100_000)) && refused(GENERATE, objects(100_000))
        );
    }

    #[test]
    fn only_the_names_that_an_endpoint_has_declare_a_maximum() {
        for (path, body, written) in [
            (CHAT, r#"{"max_output_tokens":16}"#, r#"{"max_completion_tokens":50,"max_output_tokens":16}"#),
            (CHAT, r#"{"max_tokens_to_sample":16}"#, r#"{"max_completion_tokens":50,"max_tokens_to_sample":16}"#),
            (
                CHAT,
                r#"{"generationConfig":{"maxOutputTokens":16}}"#,
                r#"{"max_completion_tokens":50,"generationConfig":{"maxOutputTokens":16}}"#,
            ),
            ("/v1/responses", r#"{"max_tokens":16}"#, r#"{"max_output_tokens":50,"max_tokens":16}"#),
            ("/v1/completions", r#"{"max_completion_tokens":16}"#, r#"{"max_tokens":50,"max_completion_tokens":16}"#),
            (
                GENERATE,
                r#"{"maxOutputTokens":16,"max_tokens":16}"#,
                r#"{"generationConfig":{"maxOutputTokens":50},"maxOutputTokens":16,"max_tokens":16}"#,
            ),
        ] {
            assert_eq!(call(path, body).output_max, None, "{body}");
            assert_eq!(capped(path, body, 50).as_deref(), Some(written), "{body}");
        }
        assert_eq!(call("/v1/threads/runs", r#"{"max_completion_tokens":16}"#).output_max, Some(16));
        assert_eq!(call("/v1/responses/compact", r#"{"max_output_tokens":16}"#).output_max, None);
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
