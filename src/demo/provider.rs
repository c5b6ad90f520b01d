//! The simulated provider's server: routes of both dialects, its one key, delivery of answers, statistics.
//!
//! May use: `axum`, `tokio`, `flate2`. Usage is decided before the first byte goes out, so that `GET /__stats` can be
//! compared with a ledger however a client leaves.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::response::Response;
use axum::serve::ListenerExt;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Uri};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::script::Script;
use super::{gemini, openai};

/// As large as the gateway's own default.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Tokens of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counted {
    pub prompt: u64,
    pub completion: u64,
}

impl Counted {
    pub fn total(self) -> u64 {
        self.prompt.saturating_add(self.completion)
    }
}

/// An answer before it is delivered.
pub(super) struct Answer {
    counted: Option<Counted>,
    content_type: &'static str,
    pieces: Vec<String>,
}

impl Answer {
    /// One JSON document that is billed.
    pub fn json(counted: Counted, body: Value) -> Self {
        Self { counted: Some(counted), ..Self::free(body) }
    }

    /// One JSON document that is not billed.
    pub fn free(body: Value) -> Self {
        Self { counted: None, content_type: "application/json", pieces: vec![body.to_string()] }
    }

    /// Server-sent events.
    pub fn events(counted: Counted, pieces: Vec<String>) -> Self {
        Self { counted: Some(counted), content_type: "text/event-stream; charset=utf-8", pieces }
    }

    /// One JSON array, element by element.
    pub fn array(counted: Counted, pieces: Vec<String>) -> Self {
        Self { counted: Some(counted), content_type: "application/json; charset=UTF-8", pieces }
    }
}

/// What was answered since the start.
#[derive(Debug, Default)]
struct Stats {
    number: AtomicU64,
    errors: AtomicU64,
    billed: Mutex<BTreeMap<&'static str, (u64, Counted)>>,
}

impl Stats {
    fn book(&self, endpoint: &'static str, counted: Counted) {
        let mut billed = self.billed.lock();
        let (answers, sum) = billed.entry(endpoint).or_default();
        *answers = answers.saturating_add(1);
        sum.prompt = sum.prompt.saturating_add(counted.prompt);
        sum.completion = sum.completion.saturating_add(counted.completion);
    }

    fn document(&self) -> Value {
        let billed = self.billed.lock();
        let row = |answers: u64, counted: Counted| json!({"answers": answers, "prompt_tokens": counted.prompt, "completion_tokens": counted.completion});
        let total = billed.values().fold((0_u64, Counted::default()), |(answers, sum), (more, counted)| {
            let prompt = sum.prompt.saturating_add(counted.prompt);
            let completion = sum.completion.saturating_add(counted.completion);
            (answers.saturating_add(*more), Counted { prompt, completion })
        });
        let endpoints: BTreeMap<&str, Value> =
            billed.iter().map(|(endpoint, (answers, counted))| (*endpoint, row(*answers, *counted))).collect();
        json!({
            "requests": self.number.load(Ordering::Relaxed), "errors": self.errors.load(Ordering::Relaxed),
            "billed": row(total.0, total.1), "endpoints": endpoints,
        })
    }
}

struct Provider {
    key: String,
    stats: Stats,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    OpenAi,
    Gemini,
}

impl Dialect {
    fn error(self, status: u16, message: &str) -> Value {
        match self {
            Self::OpenAi => openai::error(status, message),
            Self::Gemini => gemini::error(status, message),
        }
    }
}

/// Where a request goes.
enum Route {
    Models(Dialect),
    Model(Dialect, String),
    OpenAi { name: &'static str, run: fn(&openai::Request<'_>) -> Answer },
    Gemini { name: &'static str, model: String, run: fn(&gemini::Request<'_>) -> Answer },
}

/// Serves until the future is dropped. `key` is the only credential it takes.
///
/// # Errors
/// As `axum::serve`: in practice never.
pub async fn serve(listener: TcpListener, key: String) -> std::io::Result<()> {
    let provider = Arc::new(Provider { key, stats: Stats::default() });
    let router = Router::new().fallback(handle).layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).with_state(provider);
    // Each event is to leave at once; a socket that cannot be told so is slow and not wrong.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, router).await
}

async fn handle(
    State(provider): State<Arc<Provider>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if uri.path() == "/__stats" {
        return plain(200, &provider.stats.document());
    }
    let number = provider.stats.number.fetch_add(1, Ordering::Relaxed);
    let dialect = if is_gemini(uri.path(), &headers) { Dialect::Gemini } else { Dialect::OpenAi };
    let fail = |status: u16, message: &str| {
        provider.stats.errors.fetch_add(1, Ordering::Relaxed);
        let mut response = plain(status, &dialect.error(status, message));
        // SDKs try a 429 again after this time; a test should not wait for their own, longer one.
        response.headers_mut().insert("retry-after-ms", HeaderValue::from_static("20"));
        response
    };
    if !provider.knows(&headers) {
        return fail(401, "Incorrect API key provided.");
    }
    let Some(route) = route(&method, uri.path(), dialect) else {
        return fail(404, "The simulated provider has no such route.");
    };
    let document: Value = if method == Method::GET {
        Value::Null
    } else {
        match serde_json::from_slice(&body) {
            Ok(document) => document,
            Err(_) => return fail(400, "The body is not valid JSON."),
        }
    };
    let body = &document;
    let model = match &route {
        Route::Gemini { model, .. } => model.as_str(),
        _ => body.get("model").and_then(Value::as_str).unwrap_or_default(),
    };
    let script = Script::of(model);
    tokio::time::sleep(script.delay).await;
    if let Some(status) = script.error {
        return fail(status, "The model's name asked for this error.");
    }
    let (endpoint, answer) = match &route {
        Route::Models(Dialect::OpenAi) => ("models", Answer::free(openai::models())),
        Route::Models(Dialect::Gemini) => ("models", Answer::free(gemini::models())),
        Route::Model(Dialect::OpenAi, id) => ("models", Answer::free(openai::model(id))),
        Route::Model(Dialect::Gemini, id) => ("models", Answer::free(gemini::model(id))),
        Route::OpenAi { name, run } => (*name, run(&openai::Request { body, model, script, number })),
        Route::Gemini { name, run, .. } => {
            let sse = uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "alt=sse"));
            (*name, run(&gemini::Request { body, model, script, number, sse }))
        }
    };
    if let Some(counted) = answer.counted {
        provider.stats.book(endpoint, counted);
    }
    let gzip = script.gzip
        && headers.get(ACCEPT_ENCODING).is_some_and(|value| value.as_bytes().windows(4).any(|w| w == b"gzip"));
    deliver(answer, &script, gzip, number)
}

impl Provider {
    fn knows(&self, headers: &HeaderMap) -> bool {
        let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let google = headers.get("x-goog-api-key").and_then(|value| value.to_str().ok());
        [bearer, google].into_iter().flatten().any(|key| key == self.key)
    }
}

fn is_gemini(path: &str, headers: &HeaderMap) -> bool {
    let compatible = path.contains("/openai/");
    !compatible
        && (path.starts_with("/v1beta") || path.starts_with("/v1alpha") || headers.contains_key("x-goog-api-key"))
}

fn route(method: &Method, path: &str, dialect: Dialect) -> Option<Route> {
    let rest = ["/v1beta/openai/", "/v1beta/", "/v1alpha/", "/v1/"]
        .into_iter()
        .find_map(|prefix| path.strip_prefix(prefix))?;
    if method == Method::GET {
        return match rest.strip_prefix("models")?.strip_prefix('/') {
            None => (rest == "models").then_some(Route::Models(dialect)),
            Some(id) => Some(Route::Model(dialect, id.to_owned())),
        };
    }
    if method != Method::POST {
        return None;
    }
    if let Some((model, verb)) = rest.strip_prefix("models/").and_then(|rest| rest.rsplit_once(':')) {
        let (name, run): (_, fn(&gemini::Request<'_>) -> Answer) = match verb {
            "generateContent" => ("generateContent", |request| request.generate()),
            "streamGenerateContent" => ("streamGenerateContent", |request| request.stream()),
            "countTokens" => ("countTokens", |request| request.count_tokens()),
            "embedContent" => ("embedContent", |request| request.embed()),
            "batchEmbedContents" => ("batchEmbedContents", |request| request.batch_embed()),
            _ => return None,
        };
        return Some(Route::Gemini { name, model: model.to_owned(), run });
    }
    let (name, run): (_, fn(&openai::Request<'_>) -> Answer) = match rest {
        "chat/completions" => ("chat.completions", |request| request.chat()),
        "responses" => ("responses", |request| request.response()),
        "completions" => ("completions", |request| request.completion()),
        "embeddings" => ("embeddings", |request| request.embeddings()),
        _ => return None,
    };
    Some(Route::OpenAi { name, run })
}

fn plain(status: u16, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn deliver(answer: Answer, script: &Script, gzip: bool, number: u64) -> Response {
    let Answer { content_type, mut pieces, .. } = answer;
    let mut cut = false;
    if let Some(kept) = script.cut_after {
        cut = true;
        if pieces.len() > 1 {
            pieces.truncate(kept);
        } else {
            // One document is cut in its middle.
            pieces = pieces.iter().filter_map(|text| text.get(..text.len() / 2)).map(str::to_owned).collect();
        }
    }
    let whole = pieces.len() == 1 && !cut;
    let chunks = if gzip { compressed(&pieces) } else { pieces.into_iter().map(Bytes::from).collect() };
    let body = match chunks.first() {
        Some(document) if whole => Body::from(document.clone()),
        _ => paced(chunks, script.pace, cut),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if let Ok(id) = HeaderValue::try_from(format!("req_demo{number:08}")) {
        headers.insert("x-request-id", id);
    }
    response
}

/// The pieces one after the other; a cut ends in an error, which breaks the connection.
fn paced(chunks: Vec<Bytes>, pace: Duration, cut: bool) -> Body {
    let broken = cut.then(|| Err(std::io::Error::other("the model's name asked for a cut")));
    let steps = chunks.into_iter().map(Ok).chain(broken).enumerate();
    Body::from_stream(stream::unfold(steps, move |mut steps| async move {
        let (at, step) = steps.next()?;
        if at > 0 {
            tokio::time::sleep(pace).await;
        }
        Some((step, steps))
    }))
}

/// One gzip stream, flushed after each piece so that each can be inflated when it comes.
fn compressed(pieces: &[String]) -> Vec<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let mut chunks: Vec<Bytes> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        // Writing into a Vec cannot fail.
        if encoder.write_all(piece.as_bytes()).and_then(|()| encoder.flush()).is_ok() {
            chunks.push(std::mem::take(encoder.get_mut()).into());
        }
    }
    if let Ok(rest) = encoder.finish() {
        match chunks.pop() {
            Some(last) => chunks.push([last.as_ref(), &rest].concat().into()),
            None => chunks.push(rest.into()),
        }
    }
    chunks
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
