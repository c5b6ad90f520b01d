//! Bodies and streams of the Gemini dialect, as its SDKs parse them.
//!
//! May use: nothing of ours but the script. Shapes follow Google's published API reference; zero counts are left out,
//! as the real API does.

use serde_json::{Value, json};

use super::embed;
use super::openai::pieces;
use super::provider::{Answer, Counted};
use super::script::{Script, arguments, call_tokens, put, words};

/// More candidates than the API allows.
const CANDIDATES_MAX: u64 = 8;

/// A request of this dialect after its routing.
pub(super) struct Request<'a> {
    pub body: &'a Value,
    pub model: &'a str,
    pub script: Script,
    /// The number of this request, for ids.
    pub number: u64,
    /// `alt=sse` was asked for.
    pub sse: bool,
}

/// An error of this dialect.
pub(super) fn error(status: u16, message: &str) -> Value {
    let name = match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        500 => "INTERNAL",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "UNKNOWN",
    };
    json!({"error": {"code": status, "message": message, "status": name}})
}

/// `GET /v1beta/models`.
pub(super) fn models() -> Value {
    let list: Vec<Value> =
        ["gemini-2.5-flash", "gemini-2.5-pro", "gemini-embedding-001"].into_iter().map(model).collect();
    json!({"models": list})
}

/// `GET /v1beta/models/{id}`.
pub(super) fn model(id: &str) -> Value {
    json!({
        "name": format!("models/{id}"), "version": "001", "displayName": id, "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536, "supportedGenerationMethods": ["generateContent", "countTokens"],
    })
}

fn put_if_some(object: &mut Value, name: &str, count: u64) {
    if count > 0 {
        put(object, name, json!(count));
    }
}

fn usage(counted: Counted) -> Value {
    let mut usage = json!({
        "totalTokenCount": counted.total(),
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": counted.prompt}],
    });
    put_if_some(&mut usage, "promptTokenCount", counted.prompt);
    put_if_some(&mut usage, "candidatesTokenCount", counted.completion);
    usage
}

fn declared_function(body: &Value) -> Option<(String, Value)> {
    let tools = body.get("tools")?.as_array()?;
    let declarations = tools
        .iter()
        .filter_map(|tool| tool.get("functionDeclarations").or_else(|| tool.get("function_declarations"))?.as_array());
    let first = declarations.flatten().next()?;
    // SDKs spell it each in their own way.
    let names = ["parameters", "parametersJsonSchema", "parameters_json_schema"];
    let schema = names.into_iter().find_map(|name| first.get(name)).cloned().unwrap_or_default();
    Some((first.get("name")?.as_str()?.to_owned(), schema))
}

fn answers_a_call(body: &Value) -> bool {
    let last = body.get("contents").and_then(Value::as_array).and_then(|contents| contents.last());
    let parts = last.and_then(|last| last.get("parts")).and_then(Value::as_array);
    parts.is_some_and(|parts| parts.iter().any(|part| part.get("functionResponse").is_some()))
}

impl Request<'_> {
    /// What is sent in turn: the parts of each event, the reason to finish, and the tokens said so far.
    fn saying(&self) -> (Vec<(Value, u64)>, &'static str) {
        let settings = self.body.get("generationConfig").unwrap_or(&Value::Null);
        match declared_function(self.body) {
            Some((name, schema)) if !answers_a_call(self.body) => {
                let arguments = arguments(&schema);
                let tokens = call_tokens(&arguments);
                (vec![(json!([{"functionCall": {"name": name, "args": arguments}}]), tokens)], "STOP")
            }
            _ => {
                let (words, cut) = self.script.answer(settings.get("maxOutputTokens").and_then(Value::as_u64));
                let parts = pieces(&words).into_iter().map(|word| (json!([{"text": word}]), 1)).collect();
                (parts, if cut { "MAX_TOKENS" } else { "STOP" })
            }
        }
    }

    fn prompt(&self) -> u64 {
        let of = |name: &str| self.body.get(name).map_or(0, words);
        of("contents").saturating_add(of("systemInstruction"))
    }

    fn candidates(&self) -> u64 {
        let asked = self.body.get("generationConfig").and_then(|settings| settings.get("candidateCount"));
        asked.and_then(Value::as_u64).unwrap_or(1).clamp(1, CANDIDATES_MAX)
    }

    fn document(&self, parts: &Value, finish: Option<&str>, counted: Counted) -> Value {
        let candidates: Vec<Value> = (0..self.candidates())
            .map(|index| {
                let mut candidate = json!({"content": {"parts": parts, "role": "model"}, "index": index});
                if let Some(reason) = finish {
                    put(&mut candidate, "finishReason", json!(reason));
                }
                candidate
            })
            .collect();
        let mut document = json!({
            "candidates": candidates, "modelVersion": self.model, "responseId": format!("demo{:08}", self.number),
        });
        if !self.script.no_usage {
            put(&mut document, "usageMetadata", usage(counted));
        }
        document
    }

    /// `:generateContent`.
    pub fn generate(&self) -> Answer {
        let (steps, finish) = self.saying();
        let said: u64 = steps.iter().map(|(_, tokens)| tokens).sum();
        let counted = Counted { prompt: self.prompt(), completion: said.saturating_mul(self.candidates()) };
        let texts: Vec<&str> = steps.iter().filter_map(|(parts, _)| parts.get(0)?.get("text")?.as_str()).collect();
        let parts = match steps.first() {
            Some((parts, _)) if texts.is_empty() => parts.clone(),
            _ => json!([{"text": texts.concat()}]),
        };
        Answer::json(counted, self.document(&parts, Some(finish), counted))
    }

    /// `:streamGenerateContent`, as server-sent events or as one JSON array; usage is running on every event.
    pub fn stream(&self) -> Answer {
        let (steps, finish) = self.saying();
        let (prompt, candidates, count) = (self.prompt(), self.candidates(), steps.len());
        let mut counted = Counted { prompt, completion: 0 };
        let mut documents: Vec<Value> = Vec::with_capacity(count);
        for (at, (parts, tokens)) in steps.iter().enumerate() {
            counted.completion = counted.completion.saturating_add(tokens.saturating_mul(candidates));
            documents.push(self.document(parts, (at + 1 == count).then_some(finish), counted));
        }
        if documents.is_empty() {
            documents.push(self.document(&json!([{"text": ""}]), Some(finish), counted));
        }
        if self.sse {
            let events = documents.iter().map(|document| format!("data: {document}\r\n\r\n"));
            return Answer::events(counted, events.collect());
        }
        let last = documents.len() - 1;
        let elements = documents.iter().enumerate().map(|(at, document)| {
            let (open, close) = (if at == 0 { "[" } else { ",\r\n" }, if at == last { "\n]\n" } else { "\n" });
            format!("{open}{document}{close}")
        });
        Answer::array(counted, elements.collect())
    }

    /// `:countTokens`.
    pub fn count_tokens(&self) -> Answer {
        let request = self.body.get("generateContentRequest").unwrap_or(self.body);
        let total = Self { body: request, ..*self }.prompt();
        let body = json!({
            "totalTokens": total, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": total}],
        });
        Answer::free(body)
    }

    fn embedding(request: &Value) -> (Value, u64) {
        let values = embed::vector(request.get("outputDimensionality").and_then(Value::as_u64), None);
        let text = request.get("content").map_or(0, words);
        (json!({"values": values}), text)
    }

    /// `:embedContent`.
    pub fn embed(&self) -> Answer {
        let (embedding, prompt) = Self::embedding(self.body);
        let mut body = json!({"embedding": embedding});
        if self.reports_embeddings() {
            put(&mut body, "usageMetadata", usage(Counted { prompt, completion: 0 }));
        }
        Answer::json(Counted { prompt, completion: 0 }, body)
    }

    /// `:batchEmbedContents`.
    pub fn batch_embed(&self) -> Answer {
        let requests = self.body.get("requests").and_then(Value::as_array);
        let embedded: Vec<(Value, u64)> = requests.into_iter().flatten().map(Self::embedding).collect();
        let prompt = embedded.iter().map(|(_, tokens)| tokens).sum();
        let embeddings: Vec<Value> = embedded.into_iter().map(|(embedding, _)| embedding).collect();
        let mut body = json!({"embeddings": embeddings});
        if self.reports_embeddings() {
            // The real API spells it so here: singular, and without a total.
            let details = json!([{"modality": "TEXT", "tokenCount": prompt}]);
            put(&mut body, "usageMetadata", json!({"promptTokenCount": prompt, "promptTokenDetails": details}));
        }
        Answer::json(Counted { prompt, completion: 0 }, body)
    }

    /// The older embedding model says nothing of its usage.
    fn reports_embeddings(&self) -> bool {
        !self.script.no_usage && !self.model.ends_with("embedding-001")
    }
}
