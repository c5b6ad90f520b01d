//! Bodies and streams of the OpenAI dialect, as its SDKs parse them.
//!
//! May use: nothing of ours but the script. Shapes follow OpenAI's published API reference.

use serde_json::{Value, json};

use super::embed;
use super::provider::{Answer, Counted};
use super::script::{Script, arguments, call_tokens, put, words};

pub(super) const CREATED: u64 = 1_764_000_000;
/// More answers to one request than the API allows.
const CHOICES_MAX: u64 = 128;

/// A request of this dialect after its routing.
pub(super) struct Request<'a> {
    pub body: &'a Value,
    pub model: &'a str,
    pub script: Script,
    /// The number of this request, for ids.
    pub number: u64,
}

/// What one answer says.
pub(super) enum Saying {
    Text { words: Vec<&'static str>, cut: bool },
    ToolCall { name: String, arguments: Value },
}

impl Saying {
    pub fn tokens(&self) -> u64 {
        match self {
            Self::Text { words, .. } => u64::try_from(words.len()).unwrap_or(0),
            Self::ToolCall { arguments, .. } => call_tokens(arguments),
        }
    }

    fn finish_reason(&self) -> &'static str {
        match self {
            Self::Text { cut: true, .. } => "length",
            Self::Text { .. } => "stop",
            Self::ToolCall { .. } => "tool_calls",
        }
    }
}

/// An error of this dialect.
pub(super) fn error(status: u16, message: &str) -> Value {
    let (kind, code) = match status {
        401 => ("invalid_request_error", "invalid_api_key"),
        404 => ("invalid_request_error", "not_found"),
        429 => ("requests", "rate_limit_exceeded"),
        500.. => ("server_error", "server_error"),
        _ => ("invalid_request_error", "invalid_request"),
    };
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

/// `GET /v1/models`.
pub(super) fn models() -> Value {
    let list: Vec<Value> = ["gpt-4o-mini", "gpt-4o", "text-embedding-3-small"].into_iter().map(model).collect();
    json!({"object": "list", "data": list})
}

/// `GET /v1/models/{id}`.
pub(super) fn model(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": CREATED, "owned_by": "simulated"})
}

/// The words of an answer as the pieces of a stream: joined they are the text.
pub(super) fn pieces(words: &[&str]) -> Vec<String> {
    let mut spaced = words.iter().enumerate();
    spaced.by_ref().map(|(at, word)| if at == 0 { (*word).to_owned() } else { format!(" {word}") }).collect()
}

fn limit(body: &Value) -> Option<u64> {
    ["max_completion_tokens", "max_tokens", "max_output_tokens"].into_iter().find_map(|name| body.get(name)?.as_u64())
}

fn choices(body: &Value) -> u64 {
    body.get("n").and_then(Value::as_u64).unwrap_or(1).clamp(1, CHOICES_MAX)
}

pub(super) fn is_true(body: &Value, name: &str) -> bool {
    body.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn includes_usage(body: &Value) -> bool {
    body.get("stream_options").is_some_and(|options| is_true(options, "include_usage"))
}

fn chat_usage(counted: Counted) -> Value {
    json!({
        "prompt_tokens": counted.prompt, "completion_tokens": counted.completion, "total_tokens": counted.total(),
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0},
    })
}

impl Request<'_> {
    pub fn id(&self, prefix: &str) -> String {
        format!("{prefix}demo{:08}", self.number)
    }

    /// A tool is called when one is offered and the last message is not a tool's answer already.
    pub fn saying(&self, function: impl Fn(&Value) -> Option<(String, Value)>, answered: bool) -> Saying {
        let offered =
            self.body.get("tools").and_then(Value::as_array).and_then(|tools| tools.iter().find_map(function));
        let wanted = self.body.get("tool_choice").and_then(Value::as_str) != Some("none");
        match offered {
            Some((name, schema)) if wanted && !answered => Saying::ToolCall { name, arguments: arguments(&schema) },
            _ => {
                let (words, cut) = self.script.answer(limit(self.body));
                Saying::Text { words, cut }
            }
        }
    }

    /// `POST /v1/chat/completions`.
    pub fn chat(&self) -> Answer {
        let messages = self.body.get("messages").unwrap_or(&Value::Null);
        let last_role = messages.as_array().and_then(|all| all.last()?.get("role")?.as_str());
        let function = |tool: &Value| {
            let function = tool.get("function")?;
            Some((function.get("name")?.as_str()?.to_owned(), function.get("parameters").cloned().unwrap_or_default()))
        };
        let saying = self.saying(function, last_role == Some("tool"));
        let n = choices(self.body);
        let counted = Counted { prompt: words(messages), completion: saying.tokens().saturating_mul(n) };
        if is_true(self.body, "stream") {
            return Answer::events(counted, self.chat_events(&saying, n, counted));
        }
        let message = match &saying {
            Saying::Text { words, .. } => {
                json!({"role": "assistant", "content": words.join(" "), "refusal": null, "annotations": []})
            }
            Saying::ToolCall { name, arguments } => json!({"role": "assistant", "content": null, "refusal": null,
                "annotations": [], "tool_calls": [{"id": self.id("call_"), "type": "function",
                    "function": {"name": name, "arguments": arguments.to_string()}}]}),
        };
        let choices: Vec<Value> = (0..n)
            .map(|index| {
                json!({"index": index, "message": message, "logprobs": null, "finish_reason": saying.finish_reason()})
            })
            .collect();
        let mut body = json!({
            "id": self.id("chatcmpl-"), "object": "chat.completion", "created": CREATED, "model": self.model,
            "choices": choices, "service_tier": "default", "system_fingerprint": "fp_simulated",
        });
        self.put_usage(&mut body, chat_usage(counted));
        Answer::json(counted, body)
    }

    fn chat_events(&self, saying: &Saying, n: u64, counted: Counted) -> Vec<String> {
        let mut deltas = vec![json!({"role": "assistant", "content": "", "refusal": null})];
        match saying {
            Saying::Text { words, .. } => deltas.extend(pieces(words).into_iter().map(|word| json!({"content": word}))),
            Saying::ToolCall { name, arguments } => {
                deltas.push(json!({"tool_calls": [{"index": 0, "id": self.id("call_"), "type": "function",
                    "function": {"name": name, "arguments": ""}}]}));
                let text = arguments.to_string();
                let (left, right) = text.split_at_checked(text.len() / 2).unwrap_or((&text, ""));
                deltas.extend(
                    [left, right].map(|part| json!({"tool_calls": [{"index": 0, "function": {"arguments": part}}]})),
                );
            }
        }
        let finish = saying.finish_reason();
        let choice = |index: u64, delta: &Value, finish: Option<&str>| json!([{"index": index, "delta": delta, "logprobs": null, "finish_reason": finish}]);
        let mut chunks = Vec::new();
        for delta in &deltas {
            chunks.extend((0..n).map(|index| choice(index, delta, None)));
        }
        chunks.extend((0..n).map(|index| choice(index, &json!({}), Some(finish))));
        self.chunk_events("chat.completion.chunk", "chatcmpl-", chunks, counted)
    }

    /// Chunks with their envelope, the usage chunk where it was asked for, and the end mark.
    fn chunk_events(&self, object: &str, prefix: &str, chunks: Vec<Value>, counted: Counted) -> Vec<String> {
        let usage_asked = includes_usage(self.body) && !self.script.no_usage;
        let envelope = |choices: Value, usage: Option<Value>| {
            let mut chunk = json!({
                "id": self.id(prefix), "object": object, "created": CREATED, "model": self.model,
                "service_tier": "default", "system_fingerprint": "fp_simulated", "choices": choices,
            });
            if let Some(usage) = usage {
                put(&mut chunk, "usage", usage);
            }
            format!("data: {chunk}\n\n")
        };
        let none = usage_asked.then_some(Value::Null);
        let mut events: Vec<String> = chunks.into_iter().map(|choices| envelope(choices, none.clone())).collect();
        if usage_asked {
            events.push(envelope(json!([]), Some(chat_usage(counted))));
        }
        events.push("data: [DONE]\n\n".to_owned());
        events
    }

    /// `POST /v1/completions`.
    pub fn completion(&self) -> Answer {
        let prompt = self.body.get("prompt").unwrap_or(&Value::Null);
        let prompts = match prompt {
            Value::Array(items) if items.iter().all(|item| item.is_string() || item.is_array()) => items.len().max(1),
            _ => 1,
        };
        let n = choices(self.body).saturating_mul(u64::try_from(prompts).unwrap_or(1)).min(CHOICES_MAX);
        let (said, cut) = self.script.answer(limit(self.body));
        let finish = if cut { "length" } else { "stop" };
        let each = u64::try_from(said.len()).unwrap_or(0);
        let counted = Counted { prompt: words(prompt), completion: each.saturating_mul(n) };
        let choice = |index: u64, text: &str, finish: Option<&str>| json!({"text": text, "index": index, "logprobs": null, "finish_reason": finish});
        if is_true(self.body, "stream") {
            let mut chunks = Vec::new();
            for word in pieces(&said) {
                chunks.extend((0..n).map(|index| json!([choice(index, &word, None)])));
            }
            chunks.extend((0..n).map(|index| json!([choice(index, "", Some(finish))])));
            return Answer::events(counted, self.chunk_events("text_completion", "cmpl-", chunks, counted));
        }
        let text = said.join(" ");
        let choices: Vec<Value> = (0..n).map(|index| choice(index, &text, Some(finish))).collect();
        let mut body = json!({
            "id": self.id("cmpl-"), "object": "text_completion", "created": CREATED, "model": self.model,
            "choices": choices,
        });
        let usage = json!({"prompt_tokens": counted.prompt, "completion_tokens": counted.completion,
            "total_tokens": counted.total()});
        self.put_usage(&mut body, usage);
        Answer::json(counted, body)
    }

    /// `POST /v1/embeddings`.
    pub fn embeddings(&self) -> Answer {
        let input = self.body.get("input").unwrap_or(&Value::Null);
        let vectors = match input {
            Value::Array(items) if items.iter().all(|item| item.is_string() || item.is_array()) => items.len(),
            _ => 1,
        };
        let dimensions = self.body.get("dimensions").and_then(Value::as_u64);
        let embedding = embed::vector(dimensions, self.body.get("encoding_format").and_then(Value::as_str));
        let data: Vec<Value> =
            (0..vectors).map(|index| json!({"object": "embedding", "index": index, "embedding": embedding})).collect();
        let counted = Counted { prompt: words(input), completion: 0 };
        let mut body = json!({"object": "list", "data": data, "model": self.model});
        self.put_usage(&mut body, json!({"prompt_tokens": counted.prompt, "total_tokens": counted.prompt}));
        Answer::json(counted, body)
    }

    fn put_usage(&self, body: &mut Value, usage: Value) {
        if !self.script.no_usage {
            put(body, "usage", usage);
        }
    }
}
