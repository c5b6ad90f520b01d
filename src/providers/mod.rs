//! What each provider's API looks like: routes, dialect of refusals, request tweak, usage reader. Bytes in, usage out.
//!
//! May use: `domain`. No I/O. One file per provider plus one line in [`ALL`]; the shared readers of SSE, JSON and JSON
//! arrays stand beside them.

use bytes::Bytes;
use http::Method;

use crate::domain::ids::ProviderId;
use crate::domain::price::ServiceTier;
use crate::domain::quantities::Quantities;
use crate::domain::refusal::Refusal;
use crate::domain::tokens::Tokens;
use crate::domain::unit::{UnitName, UnitState};

use objects::{Finder, Makes, Named, Touches};

mod answer;
mod cap;
mod dialect;
mod elide;
pub mod estimate;
mod form;
mod gemini;
mod json;
mod json_array;
mod json_doc;
mod lines;
mod media;
mod nesting;
pub mod objects;
mod openai;
mod path;
mod prompt;
mod request;
mod route;
mod session;
mod settings;
mod shorten;
mod sse;
mod table;
mod text;
mod told;
#[cfg(feature = "gateway")]
mod tools;
mod usage;
#[cfg(feature = "gateway")]
mod vocabulary;

pub use cap::OutputCap;
pub use form::FormReader;
pub use lines::Lines;
pub use path::is_plain;
pub use request::{KEPT_PROMPT_BYTES_MAX, apply};
pub use route::{Row, dialect_of, is_upload, is_vertex, places_of_models, route, table};
pub use session::{Asked, Beside, SessionReader, Tells, Turn, TurnName};
pub use shorten::Shortener;
pub use text::OUTPUT_TEXT_BYTES_MAX;

/// Every provider, once. A new one is one file, one line here and one arm in [`route()`].
///
/// [`route()`] may also give Gemini behind its OpenAI-compatible endpoint: same id and key, other dialect.
pub static ALL: &[&dyn Provider] = &[&openai::OPENAI, &gemini::GEMINI];

/// How a request of an endpoint counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A generation request: metered, and one chat. A session has one in each turn.
    Chat,
    /// Billed, but no chat (embeddings, images, audio).
    Billed,
    /// Not billed: passed through, no event.
    Unbilled,
}

/// Which body a request of an endpoint has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyRule {
    /// A JSON object, buffered whole: admission reads it.
    Json,
    /// A form (`multipart/form-data`), streamed: its fields are read as they pass. Any other body is taken for JSON.
    Form,
    /// Whatever the client sends, streamed.
    Streamed,
}

/// Where an answer says what it charged: a line of the table of routes names one, a reader understands it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Chat completions: `usage`, in a stream the last event with one, which the gateway asks for.
    Chat,
    /// The same behind Gemini's OpenAI-compatible endpoint, which shows thoughts in `total_tokens` alone.
    ChatWithinTotal,
    /// Completions: as chat completions.
    Completions,
    /// Responses: `usage`, in a stream that of the terminal event's response; tools that charge apart are in `tool_usage`.
    Responses,
    /// Embeddings: `usage.prompt_tokens`.
    Embeddings,
    /// Images: `usage`, in a stream that of the `completed` event; older models have none and bill by the image.
    Images,
    /// Transcripts: `usage` in tokens or in seconds, in a stream that of `transcript.text.done`; plain text has none.
    Transcript,
    /// Speech: audio has no usage; a stream of events has it in `speech.audio.done`.
    Speech,
    /// Gemini's generations: `usageMetadata`, in a stream the last one whole.
    Generate,
    /// Gemini's embeddings: `usageMetadata`; older models have none.
    Embed,
    /// Vertex predictions: the token counts of embeddings; images and videos have none and bill by the piece.
    Predict,
    /// Gemini's caches: `usageMetadata.totalTokenCount`, beside storage by the hour.
    Cache,
    /// A realtime session: `response.usage` of each `response.done`.
    Realtime,
    /// OpenAI's batches: the answer names one, which is billed when it is done.
    Batch,
    /// Runs of OpenAI's assistants: billed when they are done, once however many requests moved them on.
    Run,
    /// Gemini's batches, of generations or embeddings: as OpenAI's.
    Batches,
    /// Gemini's interactions: `usage`, in a stream that of the terminal event; one in the background when it is done.
    Interaction,
    /// A live session of OpenAI: seconds, beside what it delegates.
    LiveSeconds,
    /// A live session of Gemini: `usageMetadata` of each turn.
    Live,
    /// Not billed: nothing is read.
    Nothing,
}

impl Reads {
    /// Whether it is a session, which begins with an upgrade to a websocket.
    pub fn is_session(self) -> bool {
        matches!(self, Self::Realtime | Self::LiveSeconds | Self::Live)
    }

    /// Whether an answer puts out tokens that a maximum bounds.
    pub fn has_output(self) -> bool {
        match self {
            Self::Chat
            | Self::ChatWithinTotal
            | Self::Completions
            | Self::Responses
            | Self::Images
            | Self::Transcript
            | Self::Speech
            | Self::Generate
            | Self::Realtime
            | Self::Run
            | Self::Interaction
            | Self::Live => true,
            Self::Embeddings
            | Self::Embed
            | Self::Predict
            | Self::Cache
            | Self::Batch
            | Self::Batches
            | Self::LiveSeconds
            | Self::Nothing => false,
        }
    }

    /// Whether what a call begins is finished, and charged, after its answer: always, or where its client asks for that.
    pub fn is_finished_later(self, in_background: bool) -> bool {
        match self {
            Self::Batch | Self::Run | Self::Batches => true,
            Self::Responses | Self::Interaction => in_background,
            _ => false,
        }
    }

    /// Whether its tokens alone bound what an answer costs.
    pub fn costs_tokens_only(self) -> bool {
        match self {
            Self::Chat
            | Self::ChatWithinTotal
            | Self::Completions
            | Self::Responses
            | Self::Embeddings
            | Self::Generate
            | Self::Embed
            | Self::Realtime
            | Self::Interaction
            | Self::Live => true,
            Self::Images
            | Self::Transcript
            | Self::Speech
            | Self::Predict
            | Self::Cache
            | Self::Batch
            | Self::Run
            | Self::Batches
            | Self::LiveSeconds
            | Self::Nothing => false,
        }
    }

    /// For the table in the documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat | Self::Completions | Self::Responses => "`usage`",
            Self::ChatWithinTotal => "`usage`, thoughts from its total",
            Self::Embeddings => "`usage`, input only",
            Self::Images => "`usage`; without it by the piece, or estimated",
            Self::Transcript => "`usage`, in tokens or by length; without it `duration`, else estimated",
            Self::Speech => "`usage` of events; audio: estimated; tts-1 by the characters that are asked for",
            Self::Generate => "`usageMetadata`",
            Self::Embed => "`usageMetadata`; without it estimated",
            Self::Predict => "`statistics.token_count`; images by the piece; else estimated",
            Self::Cache => "`usageMetadata`; storage: incomplete",
            Self::Realtime => "`usage` of each `response.done`",
            Self::Batch | Self::Run | Self::Batches => "its usage, when it is done",
            Self::Interaction => "`usage`; in the background when it is done",
            Self::LiveSeconds => "`usage` in seconds; of what is delegated",
            Self::Live => "`usageMetadata` of each turn",
            Self::Nothing => "",
        }
    }
}

/// One route of one provider, found for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name in events, metrics and logs, such as `chat.completions`.
    pub name: &'static str,
    /// How it counts.
    pub kind: Kind,
    /// How its answers say what they charged.
    pub reads: Reads,
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
    Body {
        /// The body.
        body: Bytes,
        /// How many bytes of text it is worth, all that the model reads counted as text.
        text_bytes: u64,
    },
    /// How many bytes of text a large request body holds.
    TextBytes(u64),
}

/// How often a provider may run a tool of its own for a call, such as a search, that it charges for beside tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Searches {
    /// It has no such tool.
    #[default]
    Never,
    /// Before it answers.
    Once,
    /// As often as its model likes.
    Often,
}

/// What admission and metering need to know of a request body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The requested model; empty where the request names none.
    pub model: String,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// Whether the client asked for an answer that is finished later.
    pub in_background: bool,
    /// Whether the client said that the answer is to be stored, or is not to be; audio always is for a while.
    pub stored: Option<bool>,
    /// Edits that ask the provider for usage in the stream, in ascending order; empty where nothing is to be asked.
    /// When there are any, the reader takes the one extra event out again.
    pub edits: Vec<Edit>,
    /// For an estimate, should there be no usage.
    pub prompt: Prompt,
    /// The token by which the call goes on with an earlier answer.
    pub continues: Option<Box<str>>,
    /// The most tokens of output that the client declared, of all answers that it asked for together; `None` where it
    /// declared nothing that a provider would take for a maximum.
    pub output_max: Option<u64>,
    /// How many answers it asks for, at least 1.
    pub answers: u64,
    /// Where another maximum can be written into the body; `None` where it takes none.
    pub cap: Option<OutputCap>,
    /// The length of the body; of a session's turn that of the messages that ask for it.
    pub body_bytes: u64,
    /// Whether an image, audio or a file is asked with: their tokens do not follow from the bytes of the body.
    pub has_media: bool,
    /// Whether the model reads, or may fetch, what is not in the body: an earlier answer, a stored prompt, a file or an
    /// image by its address, a cache, a search. Its tokens are not bounded by the bytes of the body.
    pub refers: bool,
    /// Whether the provider may search for it, and be paid for that.
    pub searches: Searches,
    /// The service tier that the client asked for, where it named one that has a price of its own.
    pub service_tier: Option<ServiceTier>,
    /// What the request itself says that will be charged, such as characters to be spoken. Where there is any of it, nothing
    /// else is charged.
    pub quantities: Quantities,
}

impl Call {
    /// A call of which no more is known.
    pub fn new(model: String, prompt: Prompt) -> Self {
        Self {
            model,
            stream: false,
            in_background: false,
            stored: None,
            edits: Vec::new(),
            prompt,
            continues: None,
            output_max: None,
            answers: 1,
            cap: None,
            body_bytes: 0,
            has_media: false,
            refers: false,
            searches: Searches::Never,
            service_tier: None,
            quantities: Quantities::default(),
        }
    }
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
    /// What was charged beside tokens; all that was charged where there are no tokens.
    pub quantities: Quantities,
    /// A part of the answer was too long to be read, and nothing after it says what was charged: what is said here may be
    /// less than that.
    pub unread: bool,
    /// Something was charged that no count says (a tool's own tokens, storage): what the counts cost is not all that the
    /// call costs.
    pub uncounted: bool,
    /// The model that answered.
    pub model: Option<String>,
    /// The service tier that answered.
    pub tier: ServiceTier,
    /// The token by which another call goes on with this answer.
    pub continuation: Option<Box<str>>,
    /// The text that was delivered, for an estimate; bounded by `OUTPUT_TEXT_BYTES_MAX`.
    pub output: String,
    /// How many bytes of text were delivered, also beyond the bound.
    pub output_bytes: u64,
    /// The unit that the answer is about, if it is about one.
    pub unit: Option<Box<ToldUnit>>,
}

/// What an answer said of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldUnit {
    /// Its name.
    pub name: UnitName,
    /// How it stands.
    pub state: UnitState,
    /// Where its results are, which say what each part of it used. A unit without parts has none.
    pub results: Results,
}

/// The results of a unit that has many parts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Results {
    /// There are none.
    #[default]
    None,
    /// In the answer: what each part said.
    Here(Vec<Reading>),
    /// In a file with a line for each part: what to ask the provider for.
    File(String),
}

impl Reading {
    /// The unit that the answer left unfinished and did not charge for: it is billed when it is done.
    pub fn deferred(&self) -> Option<&UnitName> {
        let unit = self.unit.as_deref().filter(|unit| unit.state == UnitState::Running)?;
        (self.tokens.is_none() && !self.distrusted).then_some(&unit.name)
    }

    /// Whether what it says of a unit is enough for its bill: what it used, or where that stands. That it used nothing may be
    /// said too early.
    pub fn says_what_it_used(&self) -> bool {
        let has_results = self.ended().is_some_and(|unit| unit.results != Results::None);
        self.tokens.is_some_and(|tokens| tokens.total() > 0) || has_results
    }

    /// The unit that the answer says is over.
    pub fn ended(&self) -> Option<&ToldUnit> {
        self.unit.as_deref().filter(|unit| unit.state != UnitState::Running)
    }
}

/// Reads one answer. It looks at bytes as they pass and gives the same reading for every way of cutting them; a turn of a
/// session comes in whole messages.
pub trait AnswerReader: Send {
    /// Looks at the next decoded bytes of the body.
    fn look(&mut self, decoded: &[u8]);

    /// Looks at the next bytes and pushes onto `out` what the client is to get of them: everything, except for the one
    /// usage event that the client did not ask for. What may still turn out to be that event is held back, within a bound.
    fn pass(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) {
        self.look(&chunk);
        out.push(chunk);
    }

    /// The body is over: pushes what was held back.
    fn flush(&mut self, _out: &mut Vec<Bytes>) {}

    /// Whether the answer said that it is complete: `data: [DONE]`, `response.completed`, the end of the document.
    fn is_complete(&self) -> bool;

    /// About how many tokens of output were delivered so far.
    fn delivered_tokens(&self) -> u64 {
        0
    }

    /// What the answer said. Called once, at the end, however it came.
    fn reading(&mut self) -> Reading;
}

/// A question about a file.
#[derive(Debug, Clone)]
pub struct FileQuestion {
    /// What to ask for.
    pub target: String,
    /// What its answer means.
    pub may_be_results: fn(&[u8]) -> bool,
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

    /// A reader for a session of `endpoint`, which is one by its `reads`.
    fn session(&self, endpoint: &Endpoint, _query: Option<&str>) -> Result<Box<dyn SessionReader>, Refusal> {
        debug_assert!(!endpoint.reads.is_session(), "{} has sessions and no reader of them", endpoint.name);
        Err(Refusal::UnknownRoute)
    }
    /// A reader for an answer that tells how a unit stands; `None` where none does that is read so.
    fn unit_reader(&self, reads: Reads, content_type: Option<&str>) -> Option<Box<dyn AnswerReader>>;

    /// What to ask for to learn how a unit stands, and how the answer is read; `None` for what is no unit of this API.
    fn unit_question(&self, unit: &UnitName) -> Option<(String, Reads)>;

    /// What to ask for to learn whether a file may hold the results of a batch; `None` where results are in no files.
    fn file_question(&self, _file: &UnitName) -> Option<FileQuestion> {
        None
    }

    /// Refuses a query by which an answer that has to be read could not be. Queries of billed calls come with the call.
    fn is_readable(&self, _query: Option<&str>) -> Result<(), Refusal> {
        Ok(())
    }

    /// What one line of a file of results says; `None` where its part came to nothing.
    fn result(&self, line: &[u8]) -> Option<Reading>;

    /// What a request has to do with objects that the provider keeps, by its route.
    fn touches(&self, method: &Method, endpoint: &Endpoint) -> Touches;

    /// The objects that a JSON body names: that of a call that was read, or one that is read for this alone. No more than a
    /// quick look for most.
    fn references(&self, endpoint: &Endpoint, call: Option<&Call>, body: &[u8]) -> Result<Vec<Named>, Refusal>;

    /// Looks for the objects that an answer makes; `content_type` is the answer's.
    fn finder(&self, makes: Makes, content_type: Option<&str>) -> Option<Finder>;

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

#[cfg(test)]
mod tests;
