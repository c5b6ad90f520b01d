//! OpenAI's API: routes, what a request says, how an answer says what it charged.
//!
//! May use: `domain`, the shared readers. Facts are those of OpenAI's published specification (openai/openai-openapi) and
//! its SDKs.

use std::sync::LazyLock;

use bytes::Bytes;
use http::Method;
use memchr::memmem::Finder;

use crate::domain::ids::ProviderId;
use crate::domain::refusal::Refusal;

use super::answer::{Answer, DONE, Message, Wire};
use super::request::{self, ModelIn, StreamBy};
use super::text::{Anchor, anchor};
use super::told::Told;
use super::usage::{self, Output, Usages};
use super::{AnswerReader, Call, CredentialHeader, Endpoint, Kind, Provider, Route, dialect, json, path};

/// The provider.
pub(super) static OPENAI: OpenAi = OpenAi;

/// The name of GETs in events and metrics.
pub(super) const READ: &str = "read";

/// Routes by literal path.
pub(super) const ROUTES: &[Route] = &[
    Route { methods: "POST", path: "/v1/chat/completions", name: "chat.completions", kind: Kind::Chat },
    Route { methods: "GET, HEAD", path: "/v1/chat/completions", name: READ, kind: Kind::Unbilled },
    Route { methods: "POST", path: "/v1/responses", name: "responses", kind: Kind::Chat },
    Route { methods: "POST", path: "/v1/completions", name: "completions", kind: Kind::Chat },
    Route { methods: "POST", path: "/v1/embeddings", name: "embeddings", kind: Kind::Billed },
    Route { methods: "POST", path: "/v1/responses/compact", name: "responses.compact", kind: Kind::Billed },
    Route { methods: "POST", path: "/v1/responses/input_tokens", name: "responses.input_tokens", kind: Kind::Unbilled },
];

/// Every other path below is read as it is.
pub(super) const READS: Route = Route { methods: "GET, HEAD", path: "/v1/**", name: READ, kind: Kind::Unbilled };

/// First segments whose GETs are not passed on: sessions that bill, and the operator's own account.
const NOT_READ: &[&str] = &["realtime", "live", "organization"];

#[derive(Debug)]
pub(super) struct OpenAi;

/// What the messages of an endpoint look like.
#[derive(Debug, Clone, Copy)]
pub(super) enum OpenAiWire {
    /// Chat completions.
    Chat(Output),
    /// Completions.
    Completions,
    /// Responses.
    Responses,
    /// Embeddings.
    Embeddings,
}

impl Provider for OpenAi {
    fn id(&self) -> ProviderId {
        const { ProviderId::new("openai") }
    }

    fn key_variable(&self) -> &'static str {
        "OPENAI_API_KEY"
    }

    fn credential(&self) -> CredentialHeader {
        CredentialHeader { name: "authorization", prefix: "Bearer " }
    }

    fn endpoint(&self, method: &Method, path: &str) -> Result<Endpoint, Refusal> {
        if let Some(found) = literal(ROUTES, method, path) {
            return found;
        }
        let rest = path.strip_prefix("/v1/").filter(|_| path::is_plain(path)).ok_or(Refusal::UnknownRoute)?;
        let first = rest.split('/').next().unwrap_or_default();
        if !is_read(method) || NOT_READ.contains(&first) {
            return Err(Refusal::UnknownRoute);
        }
        Ok(READS.endpoint(path))
    }

    fn call(&self, endpoint: &Endpoint, _query: Option<&str>, body: &Bytes) -> Result<Call, Refusal> {
        call(endpoint, body)
    }

    fn reader(&self, endpoint: &Endpoint, call: &Call, content_type: Option<&str>) -> Box<dyn AnswerReader> {
        let wire = match endpoint.name {
            "chat.completions" => OpenAiWire::Chat(Output::Counted),
            "completions" => OpenAiWire::Completions,
            "embeddings" => OpenAiWire::Embeddings,
            _ => OpenAiWire::Responses,
        };
        Box::new(Answer::new(wire, content_type, !call.edits.is_empty()))
    }

    fn refusal_body(&self, refusal: &Refusal) -> String {
        dialect::openai(refusal)
    }
}

/// The route with exactly this path, if there is one.
pub(super) fn literal(routes: &[Route], method: &Method, path: &str) -> Option<Result<Endpoint, Refusal>> {
    let mut allow: Option<&'static str> = None;
    for route in routes.iter().filter(|route| route.path == path) {
        if route.methods.split(", ").any(|name| name == method.as_str()) {
            return Some(Ok(route.endpoint(path)));
        }
        allow = Some(match allow {
            None => route.methods,
            Some(_) => "GET, HEAD, POST",
        });
    }
    allow.map(|allow| Err(Refusal::MethodNotAllowed { allow }))
}

pub(super) fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Reads a request in OpenAI's dialect.
pub(super) fn call(endpoint: &Endpoint, body: &Bytes) -> Result<Call, Refusal> {
    let (model, stream) = match endpoint.name {
        "chat.completions" | "completions" => (ModelIn::Body, StreamBy::BodyWithOptions),
        // A stored prompt may name the model instead.
        "responses" => (ModelIn::BodyIfAny, StreamBy::Body),
        _ => (ModelIn::Body, StreamBy::Route(false)),
    };
    request::read(body, model, stream)
}

/// Members of a message, in the order of `see` below.
const MEMBERS: &[&str] = &["usage", "model", "service_tier", "choices", "type", "response"];

impl OpenAiWire {
    fn output(self) -> Output {
        match self {
            Self::Chat(output) => output,
            Self::Completions | Self::Responses => Output::Counted,
            Self::Embeddings => Output::None,
        }
    }

    /// Where a message has the text that it delivers.
    fn anchor(self, whole: bool) -> Option<&'static Anchor> {
        static DELTA: Anchor = anchor!("delta");
        static MESSAGE: Anchor = anchor!("message");
        static OUTPUT: Anchor = anchor!("output");
        static TEXT: Anchor = anchor!("text");
        match (self, whole) {
            (Self::Chat(_) | Self::Responses, false) => Some(&DELTA),
            (Self::Chat(_), true) => Some(&MESSAGE),
            (Self::Completions, _) => Some(&TEXT),
            (Self::Responses, true) => Some(&OUTPUT),
            (Self::Embeddings, _) => None,
        }
    }

    fn read_members(self, message: &[u8], told: &mut Told) -> Message {
        let (mut choices, mut kind, mut response) = (None, None, None);
        let mut usages = Usages::default();
        let (mut model, mut tier) = (None, None);
        let parsed = json::members(message, MEMBERS, |index, raw| match index {
            0 => usages.push(raw),
            1 => model = Some(raw),
            2 => tier = Some(raw),
            3 => choices = Some(raw),
            4 => kind = Some(raw),
            _ => response = Some(raw),
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
        for usage in usages.objects() {
            told.used(usage::openai(usage, self.output()));
        }
        let usage_only = usages.last().is_some_and(json::is_object) && choices.is_some_and(json::is_empty_array);
        let mut last = false;
        if matches!(self, Self::Responses) {
            if let Some(response) = response.filter(|response| json::is_object(response)) {
                self.read_members(response.get().as_bytes(), told);
            }
            let kind = kind.and_then(json::text);
            last = matches!(
                kind.as_deref(),
                Some("response.completed" | "response.incomplete" | "response.failed" | "error")
            );
        }
        Message { usage_only, last }
    }
}

impl Wire for OpenAiWire {
    fn read(&self, message: &[u8], whole: bool, told: &mut Told) -> Message {
        if message == DONE {
            return Message { usage_only: false, last: true };
        }
        let matters = whole
            || told.model.is_none()
            || may_have_usage(message)
            || matches!(self, Self::Responses) && may_be_last(message);
        let read = if matters { self.read_members(message, told) } else { Message::default() };
        if (!whole || told.needs_text())
            && let Some(anchor) = self.anchor(whole)
        {
            told.output.collect(message, anchor);
        }
        read
    }

    fn nothing_is_possible(&self) -> bool {
        false
    }

    fn text_is_output(&self) -> bool {
        // A completion may begin with its prompt (`echo`).
        !matches!(self, Self::Completions)
    }
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

/// Whether an event of a Responses stream can be its last.
fn may_be_last(message: &[u8]) -> bool {
    // The many small events begin with their type; any other begin costs a parse.
    !(message.starts_with(b"{\"type\":\"response.")
        && message.get(18..).is_some_and(|rest| {
            let kind = rest.split(|byte| *byte == b'"').next().unwrap_or_default();
            kind.ends_with(b".delta") || kind.ends_with(b".done") || kind.ends_with(b".added")
        }))
}
