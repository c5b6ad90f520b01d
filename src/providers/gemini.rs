//! Gemini's API (also as Vertex serves it): its table of routes, what a request says, how an answer says what it charged.
//!
//! May use: `domain`, the shared readers. Facts are those of Google's published API reference and SDKs.

use bytes::Bytes;
use http::Method;
use serde_json::value::RawValue;

use crate::domain::ids::ProviderId;
use crate::domain::refusal::Refusal;
use crate::domain::unit::UnitName;

use super::answer::Answer;
use super::cap::Maximum;
use super::objects::{Finder, Makes, Named, Touches, may_name, named_in, references};
use super::openai;
use super::request::{self, ModelIn, StreamBy};
use super::table::{self, Route, billed, chat, free, session, tells};
use super::{
    AnswerReader, Call, CredentialHeader, Endpoint, FileQuestion, Kind, Provider, Reading, Reads, SessionReader,
    dialect, json, path,
};

mod later;
mod live;
mod objects;
mod wire;

use later::{BatchesWire, InteractionWire};
use wire::GeminiWire;

/// The provider.
pub(super) static GEMINI: Gemini = Gemini;

/// The same provider behind its OpenAI-compatible endpoint.
pub(super) static GEMINI_OPENAI: GeminiOpenAi = GeminiOpenAi;

/// The path below which the OpenAI-compatible endpoint is.
pub(super) const OPENAI_BASE: &str = "/v1beta/openai/";

/// All that is forwarded to the OpenAI-compatible endpoint.
#[rustfmt::skip]
pub(super) const OPENAI_ROUTES: &[Route] = &[
    chat("/v1beta/openai/chat/completions", "chat.completions", Reads::ChatWithinTotal),
    billed("/v1beta/openai/embeddings", "embeddings", Reads::Embeddings),
    billed("/v1beta/openai/images/generations", "images.generations", Reads::Images),
    free("GET, HEAD", "/v1beta/openai/models/**", "models"),
];

/// A path of the Gemini API in each of its versions.
macro_rules! gemini {
    ($rest:literal) => {
        concat!("/{v1beta,v1,v1alpha}", $rest)
    };
}

/// A path below a location of a Vertex project.
macro_rules! vertex {
    ($rest:literal) => {
        concat!("/{v1beta1,v1}/projects/{project}/locations/{location}", $rest)
    };
}

/// Where sessions are: the gRPC name of their method, in each version and, for keys that are bound to one setup, once more.
const LIVE: &str = "/ws/google.ai.generativelanguage.{v1beta,v1alpha,v1}.GenerativeService.\
    {BidiGenerateContent,BidiGenerateContentConstrained}";

/// All that is forwarded to Gemini and Vertex. [`MODEL`] stands for each of [`MODELS`]. A GET never bills, unless it begins
/// a session.
#[rustfmt::skip]
pub(super) const ROUTES: &[Route] = &[
    chat("{model}:generateContent", "generateContent", Reads::Generate),
    chat("{model}:streamGenerateContent", "streamGenerateContent", Reads::Generate),
    chat(gemini!("/interactions"), "interactions", Reads::Interaction),
    session(LIVE, "bidiGenerateContent", Reads::Live),
    billed("{model}:embedContent", "embedContent", Reads::Embed),
    billed("{model}:batchEmbedContents", "batchEmbedContents", Reads::Embed),
    billed("{model}:predict", "predict", Reads::Predict),
    billed("{model}:predictLongRunning", "predictLongRunning", Reads::Predict),
    billed("{model}:batchGenerateContent", "batchGenerateContent", Reads::Batches),
    billed("{model}:asyncBatchEmbedContent", "asyncBatchEmbedContent", Reads::Batches),
    billed(gemini!("/cachedContents"), "cachedContents", Reads::Cache),
    billed(vertex!("/cachedContents"), "cachedContents", Reads::Cache),
    free("POST", "{model}:countTokens", "countTokens"),
    free("POST", "{model}:computeTokens", "computeTokens"),
    free("POST", "{model}:fetchPredictOperation", "operations"),
    free("GET, HEAD", gemini!("/models/**"), "models"),
    free("GET, HEAD", gemini!("/tunedModels/**"), "models"),
    free("GET, HEAD", gemini!("/operations/**"), "operations"),
    free("GET, HEAD, DELETE", gemini!("/cachedContents/**"), "cachedContents.stored"),
    tells("PATCH", gemini!("/cachedContents/**"), "cachedContents.stored", Reads::Cache),
    free("GET, HEAD", gemini!("/files/**"), "files"),
    tells("DELETE", gemini!("/files/**"), "files", Reads::Batches),
    free("GET, HEAD", gemini!("/files/{file}:download"), "files"),
    free("POST", concat!("/upload", gemini!("/files")), "files"),
    free("GET, HEAD, POST, DELETE", gemini!("/fileSearchStores/**"), "fileSearchStores"),
    free("POST", gemini!("/fileSearchStores/{store}:importFile"), "fileSearchStores"),
    free("POST", concat!("/upload", gemini!("/fileSearchStores/{store}:uploadToFileSearchStore")), "fileSearchStores"),
    free("GET, HEAD", concat!("/download", gemini!("/files/{file}:download")), "files"),
    tells("GET, HEAD", gemini!("/batches/{batch}"), "batches.stored", Reads::Batches),
    free("GET, HEAD", gemini!("/batches"), "batches.stored"),
    tells("DELETE", gemini!("/batches/{batch}"), "batches.stored", Reads::Batches),
    free("POST", gemini!("/batches/{batch}:cancel"), "batches.cancel"),
    tells("GET, HEAD", gemini!("/interactions/{interaction}"), "interactions.stored", Reads::Interaction),
    tells("DELETE", gemini!("/interactions/{interaction}"), "interactions.stored", Reads::Interaction),
    tells("POST", gemini!("/interactions/{interaction}/cancel"), "interactions.cancel", Reads::Interaction),
    free("GET, HEAD", "/{v1beta1,v1}/publishers/google/models/**", "models"),
    free("GET, HEAD", vertex!("/publishers/google/models/**"), "models"),
    free("GET, HEAD, DELETE", vertex!("/cachedContents/**"), "cachedContents.stored"),
    tells("PATCH", vertex!("/cachedContents/**"), "cachedContents.stored", Reads::Cache),
];

/// In a table, a model in each of [`MODELS`].
pub(super) const MODEL: &str = "{model}";

/// Where models are.
pub(super) const MODELS: &[&str] = &[
    gemini!("/{models,tunedModels}"),
    "/{v1beta1,v1}/publishers/google/models",
    vertex!("/publishers/google/models"),
    // What serves a tuned model on Vertex.
    vertex!("/endpoints"),
];

/// Longer names are no models.
const MODEL_BYTES_MAX: usize = 128;

#[derive(Debug)]
pub(super) struct Gemini;

#[derive(Debug)]
pub(super) struct GeminiOpenAi;

impl Provider for Gemini {
    fn id(&self) -> ProviderId {
        const { ProviderId::new("gemini") }
    }

    fn key_variable(&self) -> &'static str {
        "GEMINI_API_KEY"
    }

    fn credential(&self) -> CredentialHeader {
        CredentialHeader { name: "x-goog-api-key", prefix: "" }
    }

    fn endpoint(&self, method: &Method, path: &str) -> Result<Endpoint, Refusal> {
        if !path::is_plain(path) {
            return Err(Refusal::UnknownRoute);
        }
        // Whoever has such a token speaks to the provider directly.
        if path.ends_with("/auth_tokens") {
            return Err(Refusal::OpensElsewhere);
        }
        let (parent, last) = path.rsplit_once('/').ok_or(Refusal::UnknownRoute)?;
        let last = path::decoded(last).ok_or(Refusal::UnknownRoute)?;
        // A method of something is never a name, so no wildcard takes it.
        let of_method = last.rsplit_once(':');
        let is_of_model = |letters| {
            of_method.is_some_and(|(model, _)| is_model(model))
                && MODELS.iter().any(|at| table::fits(at, parent, letters))
        };
        let route = table::find(ROUTES, method, |pattern, letters| match (pattern.rsplit_once(':'), of_method) {
            (None, None) => table::fits(pattern, path, letters),
            (Some((MODEL, wanted)), Some((_, verb))) => letters.same(wanted, verb) && is_of_model(letters),
            (Some((of, wanted)), Some((_, verb))) => {
                letters.same(wanted, verb)
                    && path.rsplit_once(':').is_some_and(|(path, _)| table::fits(of, path, letters))
            }
            _ => false,
        })?;
        let model = of_method.filter(|_| route.path.starts_with(MODEL)).map(|(model, _)| model.to_owned());
        Ok(Endpoint { model, ..route.endpoint(path) })
    }

    fn call(&self, endpoint: &Endpoint, query: Option<&str>, body: &Bytes) -> Result<Call, Refusal> {
        refuse_hidden(query)?;
        let (model_in, stream_by) = match endpoint.reads {
            Reads::Interaction => (ModelIn::BodyOrAgent, StreamBy::Body),
            _ => (ModelIn::Body, StreamBy::Route(endpoint.name == "streamGenerateContent")),
        };
        let model = endpoint.model.as_deref().map_or(model_in, ModelIn::Path);
        let call = request::read(body, model, stream_by, Maximum::of(endpoint))?;
        let continues = match endpoint.reads {
            Reads::Generate => wire::continued(body),
            Reads::Interaction => later::continued(body),
            _ => None,
        };
        Ok(without_collection(Call { continues, ..call }))
    }

    fn reader(&self, endpoint: &Endpoint, call: &Call, content_type: Option<&str>) -> Box<dyn AnswerReader> {
        match endpoint.reads {
            Reads::Batches => {
                let begins = endpoint.kind != Kind::Unbilled;
                Box::new(Answer::new(BatchesWire { begins }, content_type, false))
            }
            Reads::Interaction => {
                let wire = InteractionWire { in_background: call.in_background };
                Box::new(Answer::new(wire, content_type, false))
            }
            reads => Box::new(Answer::new(GeminiWire(reads), content_type, false)),
        }
    }

    fn unit_reader(&self, reads: Reads, content_type: Option<&str>) -> Option<Box<dyn AnswerReader>> {
        match reads {
            Reads::Batches => Some(Box::new(Answer::new(BatchesWire { begins: false }, content_type, false))),
            // Whoever asks for it by its name may have begun it in the background.
            Reads::Interaction => {
                Some(Box::new(Answer::new(InteractionWire { in_background: true }, content_type, false)))
            }
            _ => None,
        }
    }

    fn unit_question(&self, unit: &UnitName) -> Option<(String, Reads)> {
        let reads = match unit.collection() {
            "batches" => Reads::Batches,
            "interactions" => Reads::Interaction,
            _ => return None,
        };
        Some((format!("/v1beta/{unit}"), reads))
    }

    fn file_question(&self, file: &UnitName) -> Option<FileQuestion> {
        Some(FileQuestion { target: format!("/v1beta/{file}"), may_be_results: later::may_be_results })
    }

    fn is_readable(&self, query: Option<&str>) -> Result<(), Refusal> {
        refuse_hidden(query)
    }

    fn result(&self, line: &[u8]) -> Option<Reading> {
        later::result(line)
    }

    fn session(&self, endpoint: &Endpoint, query: Option<&str>) -> Result<Box<dyn SessionReader>, Refusal> {
        refuse_hidden(query)?;
        let names =
            query.into_iter().flat_map(|query| query.split('&')).map(|pair| pair.split('=').next().unwrap_or(pair));
        // It would stand beside the key that is put in.
        if names.into_iter().any(|name| path::decoded(name).as_deref() == Some("access_token")) {
            return Err(Refusal::TwoKeys);
        }
        match endpoint.reads {
            Reads::Live => Ok(Box::new(live::Live::default())),
            _ => Err(Refusal::UnknownRoute),
        }
    }

    fn touches(&self, method: &Method, endpoint: &Endpoint) -> Touches {
        objects::touches(method, endpoint)
    }

    fn references(&self, _: &Endpoint, call: Option<&Call>, body: &[u8]) -> Result<Vec<Named>, Refusal> {
        match call {
            None => references::<objects::InGemini>(body),
            Some(_) if may_name::<objects::InGemini>(body, &[]) => named_in::<objects::InGemini>(body),
            Some(_) => Ok(Vec::new()),
        }
    }

    fn finder(&self, makes: Makes, content_type: Option<&str>) -> Option<Finder> {
        match makes {
            Makes::All => Some(Finder::new(content_type, objects::made)),
            Makes::Chosen => Some(Finder::new(content_type, objects::uploaded)),
            Makes::Results => Some(Finder::new(content_type, objects::results)),
            Makes::Nothing | Makes::IfStored | Makes::UnlessNotStored => None,
        }
    }

    fn refusal_body(&self, refusal: &Refusal) -> String {
        dialect::google(refusal)
    }
}

impl Provider for GeminiOpenAi {
    fn id(&self) -> ProviderId {
        GEMINI.id()
    }

    fn key_variable(&self) -> &'static str {
        GEMINI.key_variable()
    }

    fn credential(&self) -> CredentialHeader {
        CredentialHeader { name: "authorization", prefix: "Bearer " }
    }

    fn endpoint(&self, method: &Method, path: &str) -> Result<Endpoint, Refusal> {
        openai::endpoint(OPENAI_ROUTES, method, path)
    }

    fn call(&self, endpoint: &Endpoint, query: Option<&str>, body: &Bytes) -> Result<Call, Refusal> {
        refuse_hidden(query)?;
        let call = openai::call(endpoint, body)?;
        if endpoint.reads == Reads::ChatWithinTotal {
            refuse_twins(body)?;
        }
        Ok(without_collection(call))
    }

    fn reader(&self, endpoint: &Endpoint, call: &Call, content_type: Option<&str>) -> Box<dyn AnswerReader> {
        openai::reader(endpoint, call, content_type)
    }

    fn unit_reader(&self, _reads: Reads, _content_type: Option<&str>) -> Option<Box<dyn AnswerReader>> {
        None
    }

    fn unit_question(&self, unit: &UnitName) -> Option<(String, Reads)> {
        GEMINI.unit_question(unit)
    }

    fn result(&self, line: &[u8]) -> Option<Reading> {
        GEMINI.result(line)
    }

    /// None of its routes makes an object or names one in its path.
    fn touches(&self, _method: &Method, _endpoint: &Endpoint) -> Touches {
        Touches::default()
    }

    fn references(&self, endpoint: &Endpoint, call: Option<&Call>, body: &[u8]) -> Result<Vec<Named>, Refusal> {
        GEMINI.references(endpoint, call, body)
    }

    fn finder(&self, _makes: Makes, _content_type: Option<&str>) -> Option<Finder> {
        None
    }

    fn refusal_body(&self, refusal: &Refusal) -> String {
        dialect::openai(refusal)
    }
}

/// Whether a `/v1` path can only be Google's: it ends in a method of a model or is below a Vertex project.
pub(super) fn is_google_path(path: &str) -> bool {
    let last = path.rsplit('/').next().and_then(path::decoded);
    let verb = last.as_deref().and_then(|last| last.rsplit_once(':')).map(|(_, verb)| verb);
    path.starts_with("/v1/projects/")
        || path.starts_with("/v1/publishers/")
        || verb.is_some_and(|verb| GOOGLE_VERBS.contains(&verb))
}

/// Methods of Google's API, those that no route of ours has included: their refusals are in Google's dialect. A list,
/// since OpenAI's names of fine-tuned models have colons as well.
const GOOGLE_VERBS: &[&str] = &[
    "generateContent",
    "streamGenerateContent",
    "countTokens",
    "computeTokens",
    "embedContent",
    "batchEmbedContents",
    "asyncBatchEmbedContent",
    "batchGenerateContent",
    "generateAnswer",
    "generateMessage",
    "generateText",
    "predict",
    "predictLongRunning",
    "fetchPredictOperation",
    "uploadToFileSearchStore",
    "importFile",
    "rawPredict",
    "streamRawPredict",
    "download",
    "cancel",
];

/// Parameters of all Google APIs that choose parts of an answer or another form of it (cloud.google.com/apis/docs/
/// system-parameters): usage would be left out, or be unreadable.
fn refuse_hidden(query: Option<&str>) -> Result<(), Refusal> {
    for pair in query.into_iter().flat_map(|query| query.split('&')) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = path::decoded(name).unwrap_or_default();
        let parameter = match name.strip_prefix('$').unwrap_or(&name) {
            "fields" => "fields",
            "callback" => "callback",
            "alt" if !matches!(value, "sse" | "json") => "alt",
            _ => continue,
        };
        return Err(Refusal::HidesUsage { parameter });
    }
    Ok(())
}

/// The JSON of Google's messages has a second name for each member, in camel case (protobuf.dev/programming-guides/json), and
/// whoever reads it may take text for true. A chat in OpenAI's dialect is read under its documented names alone, so what bounds
/// it or tells its usage may have no other.
fn refuse_twins(body: &[u8]) -> Result<(), Refusal> {
    const NAMES: &[&str] =
        &["stream", "stream_options", "streamOptions", "maxTokens", "maxCompletionTokens", "extraBody"];
    let is_switch = |raw: &RawValue| matches!(raw.get(), "true" | "false" | "null");
    let mut wrong = None;
    let of_options = |index, raw: &RawValue| match index {
        0 => (!is_switch(raw)).then_some("stream_options.include_usage is neither true nor false"),
        _ => Some("includeUsage is called include_usage here"),
    };
    let read = json::members(body, NAMES, |index, raw| {
        let reason = match index {
            0 => (!is_switch(raw)).then_some("stream is neither true nor false"),
            1 => {
                let (options, mut reason) = (raw.get().as_bytes(), None);
                let see = |index, raw: &RawValue| reason = reason.or(of_options(index, raw));
                // What is no object is refused by whoever reads it.
                json::members(options, &["include_usage", "includeUsage"], see).unwrap_or_default();
                reason
            }
            2 => Some("streamOptions is called stream_options here"),
            3 => Some("maxTokens is called max_tokens here"),
            4 => Some("maxCompletionTokens is called max_completion_tokens here"),
            _ => Some("extraBody is called extra_body here"),
        };
        wrong = wrong.or(reason);
    });
    // That it is an object was seen before.
    read.unwrap_or_default();
    wrong.map_or(Ok(()), |reason| Err(Refusal::BadJson { reason }))
}

/// A model is named with or without its collection; prices know it without.
fn without_collection(call: Call) -> Call {
    let model = call.model.strip_prefix("models/").map(str::to_owned);
    Call { model: model.unwrap_or(call.model), ..call }
}

fn is_model(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MODEL_BYTES_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._@+".contains(&byte))
}
