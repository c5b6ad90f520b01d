//! Reads what admission needs from a JSON request body, and asks for usage in a stream where the client did not.
//!
//! May use: `domain`. The body is never written anew: what is asked for goes in as edits of byte ranges.

use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::domain::refusal::Refusal;

use super::cap::{Maxima, Maximum};
use super::json;
use super::nesting::{Bracket, Nesting};
use super::prompt::{Asked, READ_BY_MODEL};
use super::settings::{SETTINGS, Settings};
use super::{Call, Edit, Prompt, Searches};

/// Deeper bodies are refused: serde_json and most parsers of providers stop at this depth, and no tool's schema is near it.
pub(super) const DEPTH_MAX: u32 = 128;

/// The refusal of those.
pub(super) const TOO_DEEP: Refusal = Refusal::BadJson { reason: "it is nested too deeply" };

/// Larger bodies are not kept for an estimate: at 4 bytes a token this is half of the largest context there is.
pub const KEPT_PROMPT_BYTES_MAX: usize = 256 * 1024;

/// A larger body is not copied for its edits.
const JOINED_BODY_BYTES_MAX: usize = 64 * 1024;

/// How a request names its model.
#[derive(Debug, Clone, Copy)]
pub(super) enum ModelIn<'a> {
    /// In the body's `model`, which must be a string.
    Body,
    /// In the body's `model`, if there is one.
    BodyIfAny,
    /// In the body's `model`, or where an agent is asked in its `agent`.
    BodyOrAgent,
    /// Elsewhere: this is it.
    Path(&'a str),
}

/// How a request says that it wants a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamBy {
    /// By `stream` in the body, and usage comes only if `stream_options` asks for it.
    BodyWithOptions,
    /// By `stream` in the body.
    Body,
    /// By the route.
    Route(bool),
}

/// Members that are read here; those of [`SETTINGS`] and of [`READ_BY_MODEL`] follow them.
const OWN: [&str; 7] = ["model", "stream", "stream_options", "background", "store", "audio", "agent"];

/// Every member that is looked at, so that one pass over the body sees them all.
static MEMBERS: LazyLock<Box<[&'static str]>> =
    LazyLock::new(|| OWN.iter().chain(&SETTINGS).chain(READ_BY_MODEL).copied().collect());

/// Reads `body`, which says how long its answers may be as its endpoint does.
pub(super) fn read(
    body: &Bytes,
    model_in: ModelIn<'_>,
    stream_by: StreamBy,
    maximum: Maximum,
) -> Result<Call, Refusal> {
    refuse_deep(body)?;
    let (mut model, mut stream, mut options, mut agent) = (None, None, None, None);
    let (mut in_background, mut stored) = (false, None);
    let (mut settings, mut asked) = (Settings::default(), Asked::default());
    let mut maxima = Maxima::new(maximum, body);
    json::members(body, &MEMBERS, |index, raw| match MEMBERS.get(index).copied().unwrap_or_default() {
        "model" => model = Some(raw),
        "stream" => stream = Some(raw),
        "stream_options" => options = Some(raw),
        "background" => in_background = raw.get() == "true",
        // Of two, that which stores: then whose it is will be known.
        "store" => stored = stored.max(serde_json::from_str(raw.get()).ok()),
        // An answer in audio is kept for the calls that go on with it.
        "audio" => stored = stored.max((raw.get() != "null").then_some(true)),
        "agent" => {
            // It looks for what it answers with.
            if raw.get() != "null" {
                settings.searches(Searches::Often);
            }
            agent = Some(raw);
        }
        name if index < OWN.len() + SETTINGS.len() => {
            settings.look(name, raw);
            maxima.look(name, raw);
        }
        name => {
            asked.look(name, raw, |_| {});
            match name {
                "tools" => settings.look_at_tools(raw),
                // A stored one, by its id: with its tools.
                "prompt" if json::is_object(raw) => settings.searches(Searches::Often),
                _ => {}
            }
        }
    })
    .map_err(|_| Refusal::BadJson { reason: "it is not a JSON object" })?;
    if matches!(model_in, ModelIn::BodyOrAgent) {
        model = model.or(agent);
    }
    let stream = match stream_by {
        StreamBy::Route(stream) => stream,
        StreamBy::Body | StreamBy::BodyWithOptions => stream.is_some_and(|raw| raw.get() == "true"),
    };
    let asks = stream && stream_by == StreamBy::BodyWithOptions;
    let edits = if asks { ask_for_usage(body, options)? } else { Vec::new() };
    let model = named(model_in, model)?;
    let text_bytes = asked.text_bytes(&model);
    let (declared, cap) = maxima.finish()?;
    let answers = settings.answers();
    let is_kept = body.len() <= KEPT_PROMPT_BYTES_MAX;
    let prompt = if is_kept { Prompt::Body { body: body.clone(), text_bytes } } else { Prompt::TextBytes(text_bytes) };
    Ok(Call {
        stream,
        in_background,
        stored,
        edits,
        output_max: declared.map(|max| max.saturating_mul(answers)),
        answers,
        cap,
        body_bytes: u64::try_from(body.len()).unwrap_or(u64::MAX),
        has_media: asked.has_media(),
        refers: settings.refers || asked.refers(),
        searches: settings.searches,
        service_tier: settings.tier,
        ..Call::new(model, prompt)
    })
}

/// The name of the model that a request asks for.
fn named(model_in: ModelIn<'_>, model: Option<&RawValue>) -> Result<String, Refusal> {
    match model_in {
        ModelIn::Path(model) => Ok(model.to_owned()),
        ModelIn::BodyIfAny if model.is_none_or(|raw| raw.get() == "null") => Ok(String::new()),
        ModelIn::Body | ModelIn::BodyIfAny | ModelIn::BodyOrAgent => {
            let raw = model.ok_or(Refusal::BadJson { reason: "model is missing" })?;
            Ok(json::text(raw).ok_or(Refusal::BadJson { reason: "model is not a string" })?.into_owned())
        }
    }
}

/// The text of a member of the body; `None` where there is none, or a longer one than `bytes_max`.
pub(super) fn member(body: &[u8], name: &'static str, bytes_max: usize) -> Option<Box<str>> {
    let mut found = None;
    json::members(body, &[name], |_, raw| found = Some(raw)).ok()?;
    json::text(found?).filter(|text| text.len() <= bytes_max).map(Into::into)
}

/// How many characters the text of a member has; `None` where there is none that can be read.
pub(super) fn characters(body: &[u8], name: &'static str) -> Option<u64> {
    let mut found = None;
    json::members(body, &[name], |_, raw| found = Some(raw)).ok()?;
    let text = json::text(found?)?;
    Some(u64::try_from(text.chars().count()).unwrap_or(u64::MAX))
}

/// The body with the edits in it, as parts that follow each other. A small one is one part, which one write sends; a large
/// one is not copied.
pub fn apply(edits: &[Edit], body: &Bytes) -> Vec<Bytes> {
    let mut parts = Vec::with_capacity(edits.len() * 2 + 1);
    let mut at = 0;
    for Edit { range, with } in edits {
        // Made from this body, in order: a range that is not in it would leave out nothing.
        let start = range.start.clamp(at, body.len());
        parts.push(body.slice(at..start));
        parts.push(Bytes::copy_from_slice(with.as_bytes()));
        at = range.end.clamp(start, body.len());
    }
    parts.push(body.slice(at..));
    if body.len() > JOINED_BODY_BYTES_MAX { parts } else { vec![Bytes::from(parts.concat())] }
}

fn refuse_deep(body: &[u8]) -> Result<(), Refusal> {
    let mut deepest = 0;
    Nesting::default().follow(body, |bracket, depth, _| {
        if bracket == Bracket::Open {
            deepest = deepest.max(depth);
        }
        deepest <= DEPTH_MAX
    });
    if deepest > DEPTH_MAX { Err(TOO_DEEP) } else { Ok(()) }
}

/// The edit that makes `stream_options.include_usage` true; none where it is, or where the provider will refuse the value.
fn ask_for_usage(body: &Bytes, options: Option<&RawValue>) -> Result<Vec<Edit>, Refusal> {
    let edit = match options {
        None => insert_first(body, 0..body.len(), r#""stream_options":{"include_usage":true}"#),
        Some(raw) if raw.get() == "null" => {
            place(body, raw).map(|range| Edit { range, with: r#"{"include_usage":true}"#.into() })
        }
        Some(raw) if json::is_object(raw) => {
            let mut asked = None;
            json::members(raw.get().as_bytes(), &["include_usage"], |_, raw| asked = Some(raw))
                .map_err(|_| Refusal::BadJson { reason: "stream_options is not a JSON object" })?;
            match asked {
                None => place(body, raw).and_then(|range| insert_first(body, range, r#""include_usage":true"#)),
                Some(asked) if matches!(asked.get(), "false" | "null") => {
                    place(body, asked).map(|range| Edit { range, with: "true".into() })
                }
                Some(_) => None,
            }
        }
        Some(_) => None,
    };
    Ok(edit.into_iter().collect())
}

/// An edit that puts a member first into the object at `within`.
fn insert_first(body: &[u8], within: Range<usize>, member: &str) -> Option<Edit> {
    let (at, is_empty) = inside(body, within)?;
    let comma = if is_empty { "" } else { "," };
    Some(Edit { range: at..at, with: format!("{member}{comma}") })
}

/// Where the first member of the object at `within` stands or would stand, and whether it has none.
pub(super) fn inside(body: &[u8], within: Range<usize>) -> Option<(usize, bool)> {
    let object = body.get(within.clone())?;
    let inside = memchr::memchr(b'{', object)? + 1;
    let is_empty = object.get(inside..)?.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'}');
    Some((within.start + inside, is_empty))
}

/// Where the value stands in the body that it borrows from.
pub(super) fn place(body: &[u8], raw: &RawValue) -> Option<Range<usize>> {
    let value = raw.get().as_bytes();
    let start = value.as_ptr().addr().checked_sub(body.as_ptr().addr())?;
    let range = start..start + value.len();
    (body.get(range.clone()) == Some(value)).then_some(range)
}

#[cfg(test)]
mod tests;
