//! OpenAI's API: its table of routes, what a request says, how an answer says what it charged.
//!
//! May use: `domain`, the shared readers. Facts are those of OpenAI's published specification (openai/openai-openapi) and
//! its SDKs.

use bytes::Bytes;
use http::Method;

use crate::domain::ids::ProviderId;
use crate::domain::refusal::Refusal;
use crate::domain::unit::UnitName;

use super::answer::Answer;
use super::cap::Maximum;
use super::objects::{Finder, Makes, Named, Touches, named_in, references};
use super::request::{self, ModelIn, StreamBy};
use super::table::{self, Route, billed, chat, form, free, session, tells};
use super::{
    AnswerReader, Call, CredentialHeader, Endpoint, FileQuestion, Kind, Provider, Reading, Reads, Searches,
    SessionReader, dialect, path,
};

mod later;
mod live;
mod objects;
mod realtime;
mod tools;
mod wire;

use later::LaterWire;
pub(super) use wire::OpenAiWire;

/// The provider.
pub(super) static OPENAI: OpenAi = OpenAi;

/// All that is forwarded to OpenAI. A GET never bills, unless it begins a session.
#[rustfmt::skip]
pub(super) const ROUTES: &[Route] = &[
    chat("/v1/chat/completions", "chat.completions", Reads::Chat),
    chat("/v1/responses", "responses", Reads::Responses),
    chat("/v1/completions", "completions", Reads::Completions),
    session("/v1/realtime", "realtime", Reads::Realtime),
    session("/v1/live/sessions", "live", Reads::LiveSeconds),
    billed("/v1/embeddings", "embeddings", Reads::Embeddings),
    billed("/v1/responses/compact", "responses.compact", Reads::Responses),
    billed("/v1/decisions", "decisions", Reads::Responses),
    billed("/v1/images/generations", "images.generations", Reads::Images),
    form("/v1/images/edits", "images.edits", Reads::Images),
    form("/v1/audio/transcriptions", "audio.transcriptions", Reads::Transcript),
    form("/v1/audio/translations", "audio.translations", Reads::Transcript),
    billed("/v1/audio/speech", "audio.speech", Reads::Speech),
    billed("/v1/batches", "batches", Reads::Batch),
    chat("/v1/threads/runs", "threads.runs", Reads::Run),
    chat("/v1/threads/{thread}/runs", "threads.runs", Reads::Run),
    chat("/v1/threads/{thread}/runs/{run}/submit_tool_outputs", "threads.runs", Reads::Run),
    free("POST", "/v1/responses/input_tokens", "responses.input_tokens"),
    tells("POST", "/v1/responses/{response}/cancel", "responses.cancel", Reads::Responses),
    free("POST", "/v1/moderations", "moderations"),
    free("GET, HEAD", "/v1/models/**", "models"),
    free("GET, HEAD", "/v1/chat/completions/**", "chat.completions.stored"),
    free("POST, DELETE", "/v1/chat/completions/{completion}", "chat.completions.stored"),
    tells("GET, HEAD", "/v1/responses/{response}", "responses.stored", Reads::Responses),
    free("GET, HEAD", "/v1/responses/{response}/**", "responses.stored"),
    tells("DELETE", "/v1/responses/{response}", "responses.stored", Reads::Responses),
    free("GET, HEAD, POST, DELETE", "/v1/conversations/**", "conversations"),
    free("POST", "/v1/files", "files"),
    free("GET, HEAD", "/v1/files/**", "files"),
    tells("DELETE", "/v1/files/**", "files", Reads::Batch),
    free("POST", "/v1/uploads/**", "uploads"),
    free("GET, HEAD, POST, DELETE", "/v1/vector_stores/**", "vector_stores"),
    tells("GET, HEAD", "/v1/batches/{batch}", "batches.stored", Reads::Batch),
    tells("POST", "/v1/batches/{batch}/cancel", "batches.cancel", Reads::Batch),
    free("GET, HEAD", "/v1/batches", "batches.stored"),
    free("GET, HEAD, POST, DELETE", "/v1/assistants/**", "assistants"),
    free("POST", "/v1/threads", "threads"),
    free("GET, HEAD, POST", "/v1/threads/{thread}", "threads"),
    tells("DELETE", "/v1/threads/{thread}", "threads", Reads::Run),
    free("GET, HEAD, POST, DELETE", "/v1/threads/{thread}/messages/**", "threads.messages"),
    tells("GET, HEAD, POST", "/v1/threads/{thread}/runs/{run}", "threads.runs.stored", Reads::Run),
    tells("POST", "/v1/threads/{thread}/runs/{run}/cancel", "threads.runs.cancel", Reads::Run),
    free("GET, HEAD", "/v1/threads/{thread}/runs/**", "threads.runs.stored"),
];

#[derive(Debug)]
pub(super) struct OpenAi;

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
        endpoint(ROUTES, method, path).map_err(|refusal| match refusal {
            Refusal::UnknownRoute | Refusal::MethodNotAllowed { .. } if opens_elsewhere(path) => {
                Refusal::OpensElsewhere
            }
            refusal => refusal,
        })
    }

    fn call(&self, endpoint: &Endpoint, _query: Option<&str>, body: &Bytes) -> Result<Call, Refusal> {
        call(endpoint, body)
    }

    fn reader(&self, endpoint: &Endpoint, call: &Call, content_type: Option<&str>) -> Box<dyn AnswerReader> {
        reader(endpoint, call, content_type)
    }

    fn session(&self, endpoint: &Endpoint, query: Option<&str>) -> Result<Box<dyn SessionReader>, Refusal> {
        match endpoint.reads {
            Reads::LiveSeconds => Ok(Box::new(live::Live::default())),
            Reads::Realtime => Ok(Box::new(realtime::Realtime::new(model_of_session(query)?))),
            _ => Err(Refusal::UnknownRoute),
        }
    }

    fn unit_reader(&self, reads: Reads, content_type: Option<&str>) -> Option<Box<dyn AnswerReader>> {
        match reads {
            Reads::Responses => Some(Box::new(Answer::new(OpenAiWire::told(reads), content_type, false))),
            Reads::Batch | Reads::Run => {
                Some(Box::new(Answer::new(LaterWire { reads, begins: false }, content_type, false)))
            }
            _ => None,
        }
    }

    fn unit_question(&self, unit: &UnitName) -> Option<(String, Reads)> {
        let reads = match unit.collection() {
            "responses" => Reads::Responses,
            "batches" => Reads::Batch,
            "threads" => Reads::Run,
            _ => return None,
        };
        Some((format!("/v1/{unit}"), reads))
    }

    fn file_question(&self, file: &UnitName) -> Option<FileQuestion> {
        Some(FileQuestion { target: format!("/v1/{file}"), may_be_results: later::may_be_results })
    }

    fn result(&self, line: &[u8]) -> Option<Reading> {
        later::result(line)
    }

    fn touches(&self, method: &Method, endpoint: &Endpoint) -> Touches {
        objects::touches(method, endpoint)
    }

    fn references(&self, endpoint: &Endpoint, call: Option<&Call>, body: &[u8]) -> Result<Vec<Named>, Refusal> {
        match call {
            None => references::<objects::InOpenAi>(body),
            Some(_) if objects::may_refer(endpoint, body) => named_in::<objects::InOpenAi>(body),
            Some(_) => Ok(Vec::new()),
        }
    }

    fn finder(&self, makes: Makes, content_type: Option<&str>) -> Option<Finder> {
        match makes {
            Makes::All => Some(Finder::new(content_type, objects::made)),
            Makes::Results => Some(Finder::new(content_type, objects::results)),
            Makes::Nothing | Makes::Chosen | Makes::IfStored | Makes::UnlessNotStored => None,
        }
    }

    fn refusal_body(&self, refusal: &Refusal) -> String {
        dialect::openai(refusal)
    }
}

/// Whether a `/v1` path can only be that of sessions, which Google has elsewhere.
pub(super) fn is_session_path(path: &str) -> bool {
    path == "/v1/realtime" || opens_elsewhere(path)
}

/// Whether a path makes a key or a call by which a client speaks to the provider past the gateway.
fn opens_elsewhere(path: &str) -> bool {
    path.starts_with("/v1/realtime/") || path.starts_with("/v1/live/")
}

/// The model that a session's query names, once; one that transcribes names none.
fn model_of_session(query: Option<&str>) -> Result<String, Refusal> {
    let mut model = None;
    for pair in query.into_iter().flat_map(|query| query.split('&')) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match path::decoded(name).as_deref() {
            // Joins a call that was made elsewhere, by whomever.
            Some("call_id") => return Err(Refusal::HidesUsage { parameter: "call_id" }),
            Some("model") if model.is_some() => return Err(Refusal::HidesUsage { parameter: "model" }),
            Some("model") => model = path::decoded(value).map(|model| model.into_owned()),
            _ => {}
        }
    }
    Ok(model.unwrap_or_default())
}

/// The endpoint of a path in a table of this dialect.
pub(super) fn endpoint(routes: &'static [Route], method: &Method, path: &str) -> Result<Endpoint, Refusal> {
    let found = table::find(routes, method, |pattern, letters| table::fits(pattern, path, letters));
    // A path that is spelled as in the table needs no second look: only patterns hold braces.
    let is_known = found.as_ref().is_ok_and(|route| route.path == path) && !path.contains('{');
    if !is_known && !path::is_plain(path) {
        return Err(Refusal::UnknownRoute);
    }
    Ok(found?.endpoint(path))
}

/// Reads a request in OpenAI's dialect.
pub(super) fn call(endpoint: &Endpoint, body: &Bytes) -> Result<Call, Refusal> {
    let (model, stream) = match endpoint.reads {
        Reads::Chat | Reads::ChatWithinTotal | Reads::Completions => (ModelIn::Body, StreamBy::BodyWithOptions),
        // A stored prompt may name the model instead.
        Reads::Responses => (ModelIn::BodyIfAny, StreamBy::Body),
        // The oldest model is the default.
        Reads::Images => (ModelIn::BodyIfAny, StreamBy::Body),
        // Its file names it, where the gateway does not see it.
        Reads::Batch => (ModelIn::BodyIfAny, StreamBy::Route(false)),
        // The assistant has one.
        Reads::Run => (ModelIn::BodyIfAny, StreamBy::Body),
        // Audio comes as it is made.
        Reads::Speech => (ModelIn::Body, StreamBy::Route(true)),
        _ => (ModelIn::Body, StreamBy::Route(false)),
    };
    let mut call = request::read(body, model, stream, Maximum::of(endpoint))?;
    if endpoint.reads == Reads::Chat && call.model.contains(SEARCHES) {
        (call.refers, call.searches) = (true, call.searches.max(Searches::Once));
    }
    if endpoint.reads == Reads::Speech && call.model.starts_with(BY_CHARACTER) {
        // What the gateway cannot count the provider may yet speak.
        let characters = request::characters(body, "input");
        call.quantities.characters = characters
            .ok_or(Refusal::BadJson { reason: "input is missing or is no text, and it is charged by character" })?;
    }
    Ok(call)
}

/// In the names of chat models that search the web before they answer, once, and are charged for it.
pub(super) const SEARCHES: &str = "-search-";

/// Speech of these models is charged by the characters that are spoken; that of others by the token.
const BY_CHARACTER: &str = "tts-1";

/// Images of these models are charged by the piece, and no usage is said of them.
const BY_PIECE: [&str; 2] = ["dall-e", "imagen"];

/// A reader of an answer in OpenAI's dialect.
pub(super) fn reader(endpoint: &Endpoint, call: &Call, content_type: Option<&str>) -> Box<dyn AnswerReader> {
    let begins = endpoint.kind != Kind::Unbilled;
    match endpoint.reads {
        Reads::Batch | Reads::Run => {
            Box::new(Answer::new(LaterWire { reads: endpoint.reads, begins }, content_type, false))
        }
        reads => {
            let wire = OpenAiWire {
                reads,
                in_background: call.in_background,
                asked_for: call.quantities,
                by_piece: BY_PIECE.iter().any(|family| call.model.starts_with(family)),
            };
            Box::new(Answer::new(wire, content_type, !call.edits.is_empty()))
        }
    }
}
