//! What each provider's API looks like: routes, dialect of refusals, request tweak, usage reader. Bytes in, usage out.
//!
//! May use: `domain`. No I/O. One file per provider plus one line in [`ALL`]; the shared readers of SSE, JSON and JSON
//! arrays stand beside them.

use bytes::Bytes;
use http::Method;

use crate::domain::ids::ProviderId;
use crate::domain::price::ServiceTier;
use crate::domain::refusal::Refusal;
use crate::domain::tokens::Tokens;

mod answer;
mod dialect;
pub mod estimate;
mod gemini;
mod json;
mod json_array;
mod json_doc;
mod nesting;
mod openai;
mod path;
mod prompt;
mod request;
mod route;
mod sse;
mod text;
mod told;
mod usage;

pub use request::{KEPT_PROMPT_BYTES_MAX, apply};
pub use route::{Row, dialect_of, is_vertex, route, table};
pub use text::OUTPUT_TEXT_BYTES_MAX;

/// Every provider, once. A new one is one file, one line here and one arm in [`route()`].
///
/// [`route()`] may also give Gemini behind its OpenAI-compatible endpoint: same id and key, other dialect.
pub static ALL: &[&dyn Provider] = &[&openai::OPENAI, &gemini::GEMINI];

/// How a request of an endpoint counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A generation request: metered, and one chat.
    Chat,
    /// Billed by tokens, but no chat (embeddings).
    Billed,
    /// Not billed: passed through, no event.
    Unbilled,
}

/// Which body a request of an endpoint has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyRule {
    /// A JSON object, buffered whole: admission reads it.
    Json,
    /// Whatever the client sends, streamed.
    Streamed,
}

/// One route of one provider, found for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name in events, metrics and logs, such as `chat.completions`.
    pub name: &'static str,
    /// How it counts.
    pub kind: Kind,
    /// Its body.
    pub body: BodyRule,
    /// The model, where the path names it (percent-decoded, without `models/`).
    pub model: Option<String>,
    /// The path to ask the provider for: the client's, without our prefix.
    pub path: String,
}

/// Bytes to put in place of `range` of the request body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// What is replaced; empty to insert.
    pub range: std::ops::Range<usize>,
    /// What stands there instead.
    pub with: String,
}

/// What is kept of a prompt in case it must be estimated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// The request body, as it is small enough to keep.
    Body(Bytes),
    /// How many bytes of text a large request body holds.
    TextBytes(u64),
}

/// What admission and metering need to know of a request body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The requested model; empty where the request names none.
    pub model: String,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// Edits that ask the provider for usage in the stream, in ascending order; empty where nothing is to be asked.
    /// When there are any, the reader takes the one extra event out again.
    pub edits: Vec<Edit>,
    /// For an estimate, should there be no usage.
    pub prompt: Prompt,
}

/// How a credential is sent to a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CredentialHeader {
    /// The header's name, lower case.
    pub name: &'static str,
    /// What stands before the key in its value.
    pub prefix: &'static str,
}

/// What an answer said of its usage.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// The last whole usage object, checked; `None` where there was none or it could not be believed.
    pub tokens: Option<Tokens>,
    /// A usage object was there and could not be believed, or its total is not the sum of its counts. What is booked then
    /// is flagged as an estimate.
    pub distrusted: bool,
    /// The model that answered.
    pub model: Option<String>,
    /// The service tier that answered.
    pub tier: ServiceTier,
    /// The text that was delivered, for an estimate; bounded by `OUTPUT_TEXT_BYTES_MAX`.
    pub output: String,
    /// How many bytes of text were delivered, also beyond the bound.
    pub output_bytes: u64,
}

/// Reads one answer. It looks at bytes as they pass and gives the same reading for every way of cutting them.
pub trait AnswerReader: Send {
    /// Looks at the next decoded bytes of the body.
    fn look(&mut self, decoded: &[u8]);

    /// Looks at the next bytes and pushes onto `out` what the client is to get of them: everything, except for the one
    /// usage event that the client did not ask for. What may still turn out to be that event is held back, within a bound.
    fn pass(&mut self, chunk: Bytes, out: &mut Vec<Bytes>);

    /// The body is over: pushes what was held back.
    fn flush(&mut self, out: &mut Vec<Bytes>);

    /// Whether the answer said that it is complete: `data: [DONE]`, `response.completed`, the end of the document.
    fn is_complete(&self) -> bool;

    /// What the answer said. Called once, at the end, however it came.
    fn reading(&mut self) -> Reading;
}

/// One provider's API.
pub trait Provider: Sync {
    /// Its short name.
    fn id(&self) -> ProviderId;

    /// The environment variable of its key, for messages.
    fn key_variable(&self) -> &'static str;

    /// Where its key goes.
    fn credential(&self) -> CredentialHeader;

    /// Finds the endpoint for a path of its API (without our prefix, without the query), or says why there is none:
    /// [`Refusal::UnknownRoute`] or [`Refusal::MethodNotAllowed`].
    fn endpoint(&self, method: &Method, path: &str) -> Result<Endpoint, Refusal>;

    /// Reads what admission needs from a JSON body.
    fn call(&self, endpoint: &Endpoint, query: Option<&str>, body: &Bytes) -> Result<Call, Refusal>;

    /// A reader for the answer to `call`. `content_type` is the answer's.
    fn reader(&self, endpoint: &Endpoint, call: &Call, content_type: Option<&str>) -> Box<dyn AnswerReader>;

    /// A refusal in the dialect of this API: a JSON document.
    fn refusal_body(&self, refusal: &Refusal) -> String;
}

/// Where a request presented its credential, which decides between the two meanings of `/v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialPlace {
    /// `Authorization: Bearer` or `api-key`.
    Bearer,
    /// `x-goog-api-key` or `?key=`.
    Google,
    /// Nowhere.
    None,
}

/// One route as it is declared.
#[derive(Debug, Clone, Copy)]
struct Route {
    /// Its methods, as in an `Allow` header.
    methods: &'static str,
    /// Its path, or a part of it where the provider puts it together.
    path: &'static str,
    /// The endpoint's name.
    name: &'static str,
    /// How it counts.
    kind: Kind,
}

impl Route {
    fn endpoint(&self, path: &str) -> Endpoint {
        let body = if self.kind == Kind::Unbilled { BodyRule::Streamed } else { BodyRule::Json };
        Endpoint { name: self.name, kind: self.kind, body, model: None, path: path.to_owned() }
    }
}

#[cfg(test)]
mod tests;
