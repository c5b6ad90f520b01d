//! What the messages of OpenAI's answers mean: documents and events of every endpoint that is billed.
//!
//! May use: the shared readers.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde_json::value::RawValue;

use super::later;
use super::tools::{self, charges};
use crate::domain::quantities::Quantities;
use crate::domain::unit::UnitName;
use crate::providers::answer::{DONE, Message, Unread, Wire};
use crate::providers::json;
use crate::providers::prompt::BYTES_PER_TOKEN;
use crate::providers::text::{Anchor, anchor};
use crate::providers::told::Told;
use crate::providers::usage::{self, Output, Usages};
use crate::providers::{Reads, Results, ToldUnit};

/// The messages of an endpoint that is read so.
#[derive(Debug, Clone, Copy)]
pub(in crate::providers) struct OpenAiWire {
    pub(in crate::providers) reads: Reads,
    /// Whether the request asked for an answer in the background.
    pub(in crate::providers) in_background: bool,
    /// What the request itself says that is charged.
    pub(in crate::providers) asked_for: Quantities,
    /// Whether images that are made are charged by the piece where there is no usage.
    pub(in crate::providers) by_piece: bool,
}

/// Members of a message, in the order of `see` below.
const MEMBERS: &[&str] = &[
    "usage",
    "model",
    "service_tier",
    "choices",
    "type",
    "response",
    "output",
    "tool_usage",
    "svg_usage",
    // Of a transcript, its length; of images, all of them.
    "duration",
    "data",
];

/// The same of a response, which can be unfinished: the rest in the order of [`Standing::see`].
const MEMBERS_OF_RESPONSE: &[&str] = &[
    "usage",
    "model",
    "service_tier",
    "choices",
    "type",
    "response",
    "output",
    "tool_usage",
    "svg_usage",
    "id",
    "object",
    "status",
    "background",
];

/// What a response says of itself beside what it charged.
#[derive(Default)]
struct Standing<'a> {
    id: Option<Cow<'a, str>>,
    object: Option<Cow<'a, str>>,
    status: Option<Cow<'a, str>>,
    background: Option<bool>,
}

impl<'a> Standing<'a> {
    fn see(&mut self, index: usize, raw: &'a RawValue) {
        match index {
            9 => self.id = json::text(raw),
            10 => self.object = json::text(raw),
            11 => self.status = json::text(raw),
            _ => self.background = serde_json::from_str(raw.get()).ok(),
        }
    }

    /// The unit that it is, if it is one. A response in the foreground ends with its answer; one that does not say which it
    /// is was asked for in the background, or else is whole and says that it is unfinished.
    fn unit(self, may_be: bool) -> Option<ToldUnit> {
        let Self { id, object, status, background } = self;
        let is_one = object.as_deref() == Some("response") && background.unwrap_or(may_be);
        let state = later::state_of_response(&status?).filter(|_| is_one)?;
        Some(ToldUnit { name: UnitName::of("responses", &id?)?, state, results: Results::None })
    }
}

/// Speech in the formats that are asked for most has 16 to 20 kB a second and 21 tokens (0.015 dollars a minute at 12
/// dollars a million, as OpenAI's price list estimates).
const SPEECH_BYTES_PER_TOKEN: u64 = 800;

/// A square image of medium quality, as its usage says where there is one.
const IMAGE_TOKENS: u64 = 1056;

impl OpenAiWire {
    /// Those of an answer whose request is not known, or asked for nothing special.
    pub(in crate::providers) fn told(reads: Reads) -> Self {
        Self { reads, in_background: false, asked_for: Quantities::default(), by_piece: false }
    }

    fn output(self) -> Output {
        match self.reads {
            Reads::ChatWithinTotal => Output::WithinTotal,
            Reads::Embeddings => Output::None,
            _ => Output::Counted,
        }
    }

    /// Where a message has the text that it delivers.
    fn anchor(self, whole: bool) -> Option<&'static Anchor> {
        static DELTA: Anchor = anchor!("delta");
        static MESSAGE: Anchor = anchor!("message");
        static OUTPUT: Anchor = anchor!("output");
        static TEXT: Anchor = anchor!("text");
        match (self.reads, whole) {
            (Reads::Chat | Reads::ChatWithinTotal | Reads::Responses | Reads::Transcript, false) => Some(&DELTA),
            (Reads::Chat | Reads::ChatWithinTotal, true) => Some(&MESSAGE),
            (Reads::Completions, _) | (Reads::Transcript, true) => Some(&TEXT),
            (Reads::Responses, true) => Some(&OUTPUT),
            _ => None,
        }
    }

    fn read_members(self, message: &[u8], whole: bool, told: &mut Told) -> Message {
        let members = if self.reads == Reads::Responses { MEMBERS_OF_RESPONSE } else { MEMBERS };
        let mut standing = Standing::default();
        let (mut choices, mut kind, mut response) = (None, None, None);
        let mut usages = Usages::default();
        let (mut model, mut tier) = (None, None);
        let (mut output, mut tools, mut duration, mut images) = (None, None, None, None);
        let parsed = json::members(message, members, |index, raw| match index {
            0 => usages.push(raw),
            1 => model = Some(raw),
            2 => tier = Some(raw),
            3 => choices = Some(raw),
            4 => kind = Some(raw),
            5 => response = Some(raw),
            6 => output = Some(raw),
            7 => tools = Some(raw),
            8 => told.uncounted |= charges(raw),
            9 if self.reads == Reads::Transcript => duration = Some(raw),
            10 if self.reads == Reads::Images => images = Some(raw),
            _ => standing.see(index, raw),
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
        match self.reads {
            // These models search before they answer, once, and are charged for it.
            Reads::Chat if told.model.as_deref().is_some_and(|model| model.contains(super::SEARCHES)) => {
                told.quantities.web_searches = 1;
            }
            Reads::Responses if tools.is_some() || output.is_some() => tools::used(tools, output, told),
            _ => {}
        }
        for usage in usages.objects() {
            told.used(usage::openai(usage, self.output()));
        }
        if usages.objects().next().is_none() {
            // A transcript in all detail, which says no usage, says how long what was heard is.
            if let Some(Ok(lasted)) = duration.map(|raw| usage::lasted(Some(raw))) {
                told.used(Ok(lasted));
            }
            if let Some(images) = images.filter(|_| self.by_piece).and_then(elements) {
                told.charged(Quantities { images, ..Quantities::default() });
            }
        }
        if self.reads == Reads::Responses
            && let Some(response) = response.filter(|response| json::is_object(response))
        {
            self.read_members(response.get().as_bytes(), whole, told);
        }
        if let Some(unit) = standing.unit(whole || self.in_background) {
            told.unit = Some(Box::new(unit));
        }
        let usage_only = usages.last().is_some_and(json::is_object) && choices.is_some_and(json::is_empty_array);
        let last = kind.and_then(json::text).is_some_and(|kind| self.is_last(&kind));
        Message { usage_only, last }
    }

    /// Whether events say which model answers.
    fn names_model(self) -> bool {
        !matches!(self.reads, Reads::Images | Reads::Transcript | Reads::Speech)
    }

    /// Whether no event follows one of this type.
    fn is_last(self, kind: &str) -> bool {
        match self.reads {
            Reads::Responses => {
                matches!(kind, "response.completed" | "response.incomplete" | "response.failed" | "error")
            }
            Reads::Transcript => matches!(kind, "transcript.text.done" | "error"),
            Reads::Speech => matches!(kind, "speech.audio.done" | "error"),
            _ => false,
        }
    }

    /// Whether an event can be the last by a quick look.
    fn may_be_last(self, message: &[u8]) -> bool {
        // The many small events begin with their type; any other begin costs a parse.
        const TYPE: &[u8] = b"{\"type\":\"";
        let kind = message.strip_prefix(TYPE).and_then(|rest| rest.split(|byte| *byte == b'"').next());
        match self.reads {
            Reads::Responses => !kind.is_some_and(|kind| {
                kind.starts_with(b"response.")
                    && [&b".delta"[..], b".done", b".added"].iter().any(|end| kind.ends_with(end))
            }),
            Reads::Transcript | Reads::Speech => !kind.is_some_and(|kind| kind.ends_with(b".delta")),
            _ => false,
        }
    }
}

impl Wire for OpenAiWire {
    fn read(&self, message: &[u8], whole: bool, told: &mut Told) -> Message {
        if message == DONE {
            return Message { usage_only: false, last: true };
        }
        let matters = whole
            || (self.names_model() && told.model.is_none())
            || may_have_usage(message)
            || self.may_be_last(message);
        let read = if matters { self.read_members(message, whole, told) } else { Message::default() };
        if (!whole || told.needs_text())
            && let Some(anchor) = self.anchor(whole)
        {
            told.output.collect(message, anchor);
        }
        if self.reads == Reads::Images && (!whole || told.needs_text()) {
            static IMAGE: Anchor = anchor!("b64_json");
            let images = u64::try_from(IMAGE.find_iter(message).count()).unwrap_or(u64::MAX);
            told.output.bytes = told.output.bytes.saturating_add(images.saturating_mul(IMAGE_TOKENS * BYTES_PER_TOKEN));
        }
        if self.reads == Reads::Speech {
            // An event holds its audio in base64: four characters for three bytes.
            let bytes = length(message).saturating_add(told.output.bytes_cut());
            told.unread_bytes = told.unread_bytes.saturating_add(bytes / 4 * 3);
        }
        read
    }

    fn unread(&self) -> Unread {
        match self.reads {
            Reads::Transcript => Unread::Text,
            Reads::Speech => Unread::Media { bytes_per_token: SPEECH_BYTES_PER_TOKEN },
            _ => Unread::ByFirstByte,
        }
    }

    fn asked_for(&self) -> Quantities {
        self.asked_for
    }

    fn nothing_is_possible(&self) -> bool {
        false
    }

    fn text_is_output(&self) -> bool {
        // A completion may begin with its prompt (`echo`).
        self.reads != Reads::Completions
    }
}

/// How many elements an array has.
fn elements(array: &RawValue) -> Option<u64> {
    let mut elements = 0_u64;
    json::elements(array.get().as_bytes(), |_| {
        elements += 1;
        true
    })
    .ok()?;
    Some(elements)
}

/// Whether a message can have a `usage` that is not `null`. Text with that word, or with escapes that could spell it,
/// costs a parse; the parse decides.
fn may_have_usage(message: &[u8]) -> bool {
    static USAGE: Anchor = anchor!("usage");
    static ESCAPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\\u00"));
    let is_null = |at: usize| {
        let value = message.get(at + USAGE.needle().len()..).unwrap_or_default().trim_ascii_start();
        value.strip_prefix(b":").is_some_and(|value| value.trim_ascii_start().starts_with(b"null"))
    };
    USAGE.find_iter(message).any(|at| !is_null(at)) || ESCAPE.find(message).is_some()
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
