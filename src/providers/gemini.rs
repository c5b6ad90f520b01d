//! Gemini's API (also as Vertex serves it): routes, what a request says, how an answer says what it charged.
//!
//! May use: `domain`, the shared readers. Facts are those of Google's published API reference and SDKs.

use bytes::Bytes;
use http::Method;

use crate::domain::ids::ProviderId;
use crate::domain::refusal::Refusal;

use super::answer::{Answer, Message, Wire};
use super::openai::{self, OpenAiWire, READ};
use super::request::{self, ModelIn, StreamBy};
use super::text::{Anchor, anchor};
use super::told::Told;
use super::usage::{self, Output, Usages};
use super::{AnswerReader, Call, CredentialHeader, Endpoint, Kind, Provider, Route, dialect, json, path};

/// The provider.
pub(super) static GEMINI: Gemini = Gemini;

/// The same provider behind its OpenAI-compatible endpoint.
pub(super) static GEMINI_OPENAI: GeminiOpenAi = GeminiOpenAi;

/// The path below which the OpenAI-compatible endpoint is.
pub(super) const OPENAI_BASE: &str = "/v1beta/openai/";

/// Routes of the OpenAI-compatible endpoint.
pub(super) const OPENAI_ROUTES: &[Route] = &[
    Route { methods: "POST", path: "/v1beta/openai/chat/completions", name: "chat.completions", kind: Kind::Chat },
    Route { methods: "POST", path: "/v1beta/openai/embeddings", name: "embeddings", kind: Kind::Billed },
];

/// Every other path below it is read as it is.
pub(super) const OPENAI_READS: Route =
    Route { methods: "GET, HEAD", path: "/v1beta/openai/**", name: READ, kind: Kind::Unbilled };

/// Methods of a model, all by POST. `path` is what stands behind the model.
pub(super) const VERBS: &[Route] = &[
    Route { methods: "POST", path: ":generateContent", name: "generateContent", kind: Kind::Chat },
    Route { methods: "POST", path: ":streamGenerateContent", name: "streamGenerateContent", kind: Kind::Chat },
    Route { methods: "POST", path: ":countTokens", name: "countTokens", kind: Kind::Unbilled },
    Route { methods: "POST", path: ":embedContent", name: "embedContent", kind: Kind::Billed },
    Route { methods: "POST", path: ":batchEmbedContents", name: "batchEmbedContents", kind: Kind::Billed },
];

/// Where models are, by the versions that have them there.
pub(super) const PARENTS: &[(&[&str], &str)] = &[
    (&["v1beta", "v1", "v1alpha"], "models"),
    (&["v1beta", "v1", "v1alpha"], "tunedModels"),
    (&["v1beta1", "v1"], "publishers/google/models"),
    (&["v1beta1", "v1"], "projects/{project}/locations/{location}/publishers/google/models"),
];

/// The versions below which everything without a verb is read as it is.
pub(super) const VERSIONS: &[&str] = &["v1beta", "v1", "v1alpha", "v1beta1"];

/// Longer names are no models.
const MODEL_BYTES_MAX: usize = 128;

#[derive(Debug)]
pub(super) struct Gemini;

#[derive(Debug)]
pub(super) struct GeminiOpenAi;

/// What the messages of an endpoint look like.
#[derive(Debug, Clone, Copy)]
struct GeminiWire {
    generates: bool,
}

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
        let below = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        let (version, rest) = below.filter(|(version, _)| VERSIONS.contains(version)).ok_or(Refusal::UnknownRoute)?;
        let (parent, last) = rest.rsplit_once('/').unwrap_or(("", rest));
        let last = path::decoded(last).ok_or(Refusal::UnknownRoute)?;
        let Some((model, verb)) = last.rsplit_once(':') else {
            return if openai::is_read(method) { Ok(reads(path)) } else { Err(Refusal::UnknownRoute) };
        };
        if verb == "download" && openai::is_read(method) {
            return Ok(reads(path));
        }
        let route =
            VERBS.iter().find(|route| route.path.strip_prefix(':') == Some(verb)).ok_or(Refusal::UnknownRoute)?;
        if !has_models(version, parent) || !is_model(model) {
            return Err(Refusal::UnknownRoute);
        }
        if *method != Method::POST {
            return Err(Refusal::MethodNotAllowed { allow: route.methods });
        }
        Ok(Endpoint { model: Some(model.to_owned()), ..route.endpoint(path) })
    }

    fn call(&self, endpoint: &Endpoint, _query: Option<&str>, body: &Bytes) -> Result<Call, Refusal> {
        let model = ModelIn::Path(endpoint.model.as_deref().unwrap_or_default());
        request::read(body, model, StreamBy::Route(endpoint.name == "streamGenerateContent"))
    }

    fn reader(&self, endpoint: &Endpoint, _call: &Call, content_type: Option<&str>) -> Box<dyn AnswerReader> {
        let generates = endpoint.kind == Kind::Chat;
        Box::new(Answer::new(GeminiWire { generates }, content_type, false))
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
        if let Some(found) = openai::literal(OPENAI_ROUTES, method, path) {
            return found;
        }
        let is_ours = path.starts_with(OPENAI_BASE) && path::is_plain(path);
        if is_ours && openai::is_read(method) { Ok(OPENAI_READS.endpoint(path)) } else { Err(Refusal::UnknownRoute) }
    }

    fn call(&self, endpoint: &Endpoint, _query: Option<&str>, body: &Bytes) -> Result<Call, Refusal> {
        let call = openai::call(endpoint, body)?;
        let model = call.model.strip_prefix("models/").map(str::to_owned);
        Ok(Call { model: model.unwrap_or(call.model), ..call })
    }

    fn reader(&self, endpoint: &Endpoint, call: &Call, content_type: Option<&str>) -> Box<dyn AnswerReader> {
        let wire = match endpoint.name {
            "embeddings" => OpenAiWire::Embeddings,
            _ => OpenAiWire::Chat(Output::WithinTotal),
        };
        Box::new(Answer::new(wire, content_type, !call.edits.is_empty()))
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
    "rawPredict",
    "streamRawPredict",
    "download",
];

fn reads(path: &str) -> Endpoint {
    Route { methods: "GET, HEAD", path: "", name: READ, kind: Kind::Unbilled }.endpoint(path)
}

fn has_models(version: &str, parent: &str) -> bool {
    PARENTS.iter().filter(|(versions, _)| versions.contains(&version)).any(|(_, pattern)| {
        let mut segments = parent.split('/');
        let matches = pattern.split('/').all(|wanted| {
            segments.next().is_some_and(|segment| segment == wanted || (wanted.starts_with('{') && !segment.is_empty()))
        });
        matches && segments.next().is_none()
    })
}

fn is_model(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MODEL_BYTES_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._@+".contains(&byte))
}

impl GeminiWire {
    fn read_members(self, message: &[u8], told: &mut Told) {
        let (mut usages, mut model) = (Usages::default(), None);
        let parsed = json::members(message, &["usageMetadata", "modelVersion"], |index, raw| match index {
            0 => usages.push(raw),
            _ => model = Some(raw),
        });
        if parsed.is_err() {
            return;
        }
        if let Some(model) = model {
            told.answered_by(model);
        }
        for usage in usages.objects() {
            told.used(usage::gemini(usage));
        }
    }
}

impl Wire for GeminiWire {
    fn read(&self, message: &[u8], whole: bool, told: &mut Told) -> Message {
        // Every event of a stream has usage, so there is nothing to skip.
        self.read_members(message, told);
        if self.generates && (!whole || told.needs_text()) {
            static TEXT: Anchor = anchor!("text");
            static ARGS: Anchor = anchor!("args");
            told.output.collect(message, &TEXT);
            told.output.collect(message, &ARGS);
        }
        Message::default()
    }

    fn nothing_is_possible(&self) -> bool {
        self.generates
    }

    fn text_is_output(&self) -> bool {
        true
    }
}
