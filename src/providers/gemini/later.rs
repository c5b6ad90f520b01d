//! What Gemini finishes later than it answers: batches, interactions, and their results.
//!
//! May use: `domain`, the shared readers. A batch is an operation: its metadata says how it stands, and where its results
//! are, which say what each request used. Shapes are those of Google's SDKs.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::wire::{CONTINUATION_BYTES_MAX, GeminiWire};
use crate::domain::tokens::{TOKENS_PER_CALL_MAX, Tokens};
use crate::domain::unit::{UnitName, UnitState};
use crate::providers::answer::{DONE, Message, Wire};
use crate::providers::json::{self, Count};
use crate::providers::request;
use crate::providers::text::{Anchor, anchor};
use crate::providers::told::Told;
use crate::providers::usage::{self, Usages};
use crate::providers::{Reading, Reads, Results, ToldUnit};

/// The messages that tell of batches.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchesWire {
    /// Whether it is the answer to what began the batch, which charges nothing itself.
    pub(super) begins: bool,
}

/// Requests of one batch whose results are kept: 200 bytes each. A batch in one answer has a few thousand at most.
const RESULTS_MAX: usize = 100_000;

impl BatchesWire {
    fn read_members(self, message: &[u8], told: &mut Told) -> Option<()> {
        let (mut name, mut metadata, mut done, mut response, mut failed) = (None, None, false, None, false);
        json::members(message, &["name", "metadata", "done", "response", "error"], |index, raw| match index {
            0 => name = json::text(raw),
            1 => metadata = Some(raw),
            2 => done = raw.get() == "true",
            3 => response = Some(raw),
            _ => failed = raw.get() != "null",
        })
        .ok()?;
        let name: UnitName = name?.parse().ok()?;
        if name.collection() != "batches" {
            return None;
        }
        let (mut state, mut output) = (None, None);
        if let Some(metadata) = metadata.filter(|raw| json::is_object(raw)) {
            json::members(metadata.get().as_bytes(), &["state", "output", "model"], |index, raw| match index {
                0 => state = json::text(raw),
                1 => output = Some(raw),
                _ => told.answered_by(raw),
            })
            .ok()?;
        }
        let state = if self.begins { UnitState::Running } else { state_of(state.as_deref(), done, failed) };
        let output = output.or(response).filter(|_| state != UnitState::Running);
        let results = output.map_or(Results::None, results);
        told.unit = Some(Box::new(ToldUnit { name, state, results }));
        Some(())
    }
}

fn state_of(state: Option<&str>, done: bool, failed: bool) -> UnitState {
    let word = state.and_then(|state| state.rsplit_once("STATE_")).map(|(_, word)| word);
    match word {
        Some("SUCCEEDED" | "PARTIALLY_SUCCEEDED") => UnitState::Done,
        Some("FAILED") => UnitState::Failed,
        Some("CANCELLED" | "EXPIRED") => UnitState::Cancelled,
        Some("UNSPECIFIED") | None if done && failed => UnitState::Failed,
        Some("UNSPECIFIED") | None if done => UnitState::Done,
        _ => UnitState::Running,
    }
}

/// The results of a batch, from its output.
fn results(output: &RawValue) -> Results {
    const LISTS: &[&str] = &["responsesFile", "inlinedResponses", "inlinedEmbedContentResponses"];
    let (mut file, mut list) = (None, None);
    let read = json::members(output.get().as_bytes(), LISTS, |index, raw| match index {
        0 => file = json::text(raw),
        _ => list = Some(raw),
    });
    if read.is_err() {
        return Results::None;
    }
    if let Some(file) = file.and_then(|file| file.parse::<UnitName>().ok()).filter(|file| file.collection() == "files")
    {
        return Results::File(format!("/download/v1beta/{file}:download?alt=media"));
    }
    let Some(list) = list else { return Results::None };
    let mut inner = None;
    json::members(list.get().as_bytes(), &["inlinedResponses"], |_, raw| inner = Some(raw)).unwrap_or_default();
    let mut all = Vec::new();
    let whole = inner.is_none_or(|inner| {
        let seen = json::elements(inner.get().as_bytes(), |element| {
            all.extend(result(element.get().as_bytes()));
            all.len() <= RESULTS_MAX
        });
        seen.is_ok()
    });
    if !whole {
        // One that is not known stands for all that were not read.
        all.push(Reading::default());
    }
    Results::Here(all)
}

impl Wire for BatchesWire {
    fn read(&self, message: &[u8], _whole: bool, told: &mut Told) -> Message {
        self.read_members(message, told).unwrap_or_default();
        Message::default()
    }

    fn nothing_is_possible(&self) -> bool {
        true
    }

    fn text_is_output(&self) -> bool {
        false
    }
}

/// Whether a file, by what is said of it, may hold the results of a batch: it is none that a client uploaded.
pub(super) fn may_be_results(file: &[u8]) -> bool {
    let mut source = None;
    json::members(file, &["source"], |_, raw| source = json::text(raw)).unwrap_or_default();
    !matches!(source.as_deref(), Some("UPLOADED" | "REGISTERED"))
}

/// What the result of one request of a batch says. `None` where it came to nothing, which costs nothing.
pub(super) fn result(line: &[u8]) -> Option<Reading> {
    let (mut response, mut failed) = (None, false);
    let read = json::members(line, &["response", "error"], |index, raw| match index {
        0 => response = Some(raw).filter(|raw| json::is_object(raw)),
        _ => failed = raw.get() != "null",
    });
    if read.is_err() {
        return Some(Reading::default());
    }
    let response = match response {
        Some(response) => response.get().as_bytes(),
        None if failed => return None,
        None => return Some(Reading::default()),
    };
    let (mut told, wire) = (Told::default(), GeminiWire(Reads::Generate));
    wire.read(response, true, &mut told);
    let mut reading = told.reading(true, true);
    if reading.tokens.is_none() && !reading.distrusted {
        // An embedding counts its input alone.
        let mut count = Count::Absent;
        json::members(response, &["tokenCount"], |_, raw| count = Count::of_text(raw)).unwrap_or_default();
        reading.tokens = match count {
            Count::Whole(prompt) if prompt <= TOKENS_PER_CALL_MAX => Some(Tokens { prompt, ..Tokens::default() }),
            _ => None,
        };
    }
    Some(reading)
}

/// The messages of interactions.
#[derive(Debug, Clone, Copy)]
pub(super) struct InteractionWire {
    /// Whether the request asked for an answer in the background.
    pub(super) in_background: bool,
}

/// Members of an interaction and of the events about one, in the order of `see` below.
const MEMBERS: &[&str] =
    &["id", "status", "usage", "model", "agent", "service_tier", "event_type", "interaction", "continuation_token"];

/// What a request for an interaction goes on with: its `continuation_token`.
pub(super) fn continued(body: &[u8]) -> Option<Box<str>> {
    static TOKEN: Anchor = anchor!("continuation_token");
    // Few have one, and the whole body is looked through for it: a quick look first.
    TOKEN.find(body)?;
    request::member(body, "continuation_token", CONTINUATION_BYTES_MAX)
}

impl InteractionWire {
    fn read_members(self, message: &[u8], whole: bool, told: &mut Told) -> Message {
        let (mut id, mut status, mut kind) = (None::<Cow<'_, str>>, None::<Cow<'_, str>>, None::<Cow<'_, str>>);
        let (mut model, mut tier, mut interaction, mut token) = (None, None, None, None);
        let mut usages = Usages::default();
        let parsed = json::members(message, MEMBERS, |index, raw| match index {
            0 => id = json::text(raw),
            1 => status = json::text(raw),
            2 => usages.push(raw),
            // An agent is billed as what it says it is.
            3 | 4 => model = model.or(Some(raw).filter(|raw| raw.get() != "null")),
            5 => tier = Some(raw),
            6 => kind = json::text(raw),
            7 => interaction = Some(raw),
            _ => token = json::text(raw).filter(|token| token.len() <= CONTINUATION_BYTES_MAX),
        });
        if parsed.is_err() {
            return Message::default();
        }
        if let Some(model) = model {
            told.answered_by(model);
        }
        if let Some(tier) = tier {
            told.served_at(tier);
        }
        if let Some(interaction) = interaction.filter(|raw| json::is_object(raw)) {
            self.read_members(interaction.get().as_bytes(), whole, told);
        }
        if status.is_some() {
            // The last word counts: what is over without a token is not gone on with.
            told.continuation = token.map(Into::into);
        }
        let state = status.as_deref().map(state_of_interaction);
        match (state, id.and_then(|id| UnitName::of("interactions", &id))) {
            (Some(state), Some(name)) if whole || self.in_background => {
                told.unit = Some(Box::new(ToldUnit { name, state, results: Results::None }));
            }
            // An event that names it by another member.
            (Some(state), None) if kind.is_some() => told.unit.iter_mut().for_each(|unit| unit.state = state),
            _ => {}
        }
        // What one that runs has used so far is not what it will have used.
        let is_over = state.is_none_or(|state| state != UnitState::Running);
        for usage in usages.objects().filter(|_| is_over) {
            let (searches, others) = usage::grounded(usage);
            told.quantities.web_searches = searches;
            told.uncounted |= others;
            told.used(usage::interaction(usage));
        }
        let last = matches!(kind.as_deref(), Some("interaction.completed" | "error"));
        Message { usage_only: false, last }
    }
}

fn state_of_interaction(status: &str) -> UnitState {
    match status {
        "completed" | "incomplete" | "requires_action" | "requires_continuation" | "budget_exceeded" => UnitState::Done,
        "failed" => UnitState::Failed,
        "cancelled" => UnitState::Cancelled,
        _ => UnitState::Running,
    }
}

impl Wire for InteractionWire {
    fn read(&self, message: &[u8], whole: bool, told: &mut Told) -> Message {
        if message == DONE {
            return Message { usage_only: false, last: true };
        }
        static TEXT: Anchor = anchor!("text");
        static ARGUMENTS: Anchor = anchor!("arguments");
        let read = self.read_members(message, whole, told);
        if !whole || told.needs_text() {
            told.output.collect(message, &TEXT);
            told.output.collect(message, &ARGUMENTS);
        }
        read
    }

    fn nothing_is_possible(&self) -> bool {
        true
    }

    fn text_is_output(&self) -> bool {
        // An interaction shows what was asked as well.
        false
    }
}
