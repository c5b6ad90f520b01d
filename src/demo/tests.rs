//! Tests of the simulated provider over a real socket: shapes, usage, directives, statistics.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

struct Running {
    address: std::net::SocketAddr,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn start() -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    Running { address, task: tokio::spawn(serve(listener, "provider-key".into())) }
}

impl Running {
    /// Sends one request and reads to the end of the connection: status, head, body without its chunk framing.
    async fn send(&self, method: &str, path: &str, extra: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let auth = if extra.contains("uthorization") { "" } else { "x-goog-api-key: provider-key\r\n" };
        let auth = if path.starts_with("/v1/models") || path.contains(':') {
            auth
        } else {
            "authorization: Bearer provider-key\r\n"
        };
        let auth = if extra.contains("no-key") { "" } else { auth };
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{auth}{extra}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = if head.contains("chunked") { unchunked(body) } else { body.to_owned() };
        (status, head.to_owned(), body)
    }

    async fn post(&self, path: &str, body: Value) -> (u16, String) {
        let (status, _, answer) = self.send("POST", path, "x-test: 1", &body.to_string()).await;
        (status, answer)
    }

    async fn document(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, body).await;
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(&answer).unwrap()
    }

    async fn stats(&self) -> Value {
        serde_json::from_str(&self.send("GET", "/__stats", "no-key: 1", "").await.2).unwrap()
    }
}

fn unchunked(mut text: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        body.push_str(rest.get(..size).unwrap());
        text = rest.get(size + 2..).unwrap();
    }
    body
}

fn data_of(stream: &str) -> Vec<Value> {
    stream.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect()
}

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "three short words"}]})
}

#[tokio::test]
async fn a_chat_says_its_words_and_its_usage() {
    let provider = start().await;
    let answer = provider.document("/v1/chat/completions", chat("gpt-4o-mini")).await;
    assert_eq!(answer["usage"]["prompt_tokens"], 3);
    assert_eq!(answer["usage"]["completion_tokens"], 12);
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(text.split(' ').count(), 12);
    let mut two = chat("gpt-4o-mini");
    two["n"] = json!(2);
    two["max_tokens"] = json!(5);
    let answer = provider.document("/v1beta/openai/chat/completions", two).await;
    assert_eq!(answer["usage"]["completion_tokens"], 10);
    assert_eq!(answer["choices"][1]["finish_reason"], "length");
    let stats = provider.stats().await;
    assert_eq!(stats["billed"], json!({"answers": 2, "prompt_tokens": 6, "completion_tokens": 22}));
    assert_eq!(stats["endpoints"]["chat.completions"]["answers"], 2);
}

#[tokio::test]
async fn a_chat_stream_tells_its_usage_only_when_asked() {
    let provider = start().await;
    let mut request = chat("pace-0ms");
    request["stream"] = json!(true);
    let (_, silent) = provider.post("/v1/chat/completions", request.clone()).await;
    assert!(silent.ends_with("data: [DONE]\n\n") && !silent.contains("usage"));
    request["stream_options"] = json!({"include_usage": true});
    let (_, telling) = provider.post("/v1/chat/completions", request).await;
    let chunks = data_of(&telling);
    assert_eq!(chunks.len(), data_of(&silent).len() + 1);
    let (last, others) = chunks.split_last().unwrap();
    assert_eq!(last["usage"]["total_tokens"], 15);
    assert_eq!(last["choices"], json!([]));
    assert!(others.iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)));
    let text: String = others.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text.split(' ').count(), 12);
}

#[tokio::test]
async fn a_tool_is_called_once_and_then_answered() {
    let provider = start().await;
    let tool = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}});
    let mut request = chat("m");
    request["tools"] = json!([{"type": "function", "function": {"name": "weather", "parameters": tool}}]);
    let answer = provider.document("/v1/chat/completions", request.clone()).await;
    let call = &answer["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(
        (call["name"].as_str(), call["arguments"].as_str()),
        (Some("weather"), Some(r#"{"city":"Paris","days":1}"#))
    );
    assert_eq!(answer["usage"]["completion_tokens"], 3);
    request["messages"] = json!([{"role": "tool", "content": "sunny"}]);
    let answer = provider.document("/v1/chat/completions", request).await;
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");

    let mut request = json!({"contents": [{"role": "user", "parts": [{"text": "weather please"}]}],
        "tools": [{"functionDeclarations": [{"name": "weather", "parameters": tool}]}]});
    let answer = provider.document("/v1beta/models/m:generateContent", request.clone()).await;
    assert_eq!(answer["candidates"][0]["content"]["parts"][0]["functionCall"]["name"], "weather");
    request["contents"] = json!([{"role": "user", "parts": [{"functionResponse": {"name": "weather"}}]}]);
    let answer = provider.document("/v1beta/models/m:generateContent", request).await;
    assert!(answer["candidates"][0]["content"]["parts"][0]["text"].is_string());

    let mut request = json!({"model": "m", "input": "hi", "stream": true});
    request["tools"] = json!([{"type": "function", "name": "weather", "parameters": tool}]);
    let (_, stream) = provider.post("/v1/responses", request).await;
    assert!(stream.contains("event: response.function_call_arguments.done\n"));
}

#[tokio::test]
async fn responses_completions_and_embeddings_have_their_shapes() {
    let provider = start().await;
    let answer = provider.document("/v1/responses", json!({"model": "m", "input": "a b", "instructions": "c"})).await;
    assert_eq!((&answer["usage"]["input_tokens"], &answer["usage"]["output_tokens"]), (&json!(3), &json!(12)));
    let (_, stream) = provider
        .post("/v1/responses", json!({"model": "pace-0ms", "input": "a", "stream": true, "max_output_tokens": 2}))
        .await;
    let events = data_of(&stream);
    assert!(events.iter().enumerate().all(|(at, event)| event["sequence_number"] == at));
    assert_eq!(events.last().unwrap()["type"], "response.incomplete");
    assert_eq!(events.last().unwrap()["response"]["usage"]["total_tokens"], 3);

    let answer = provider.document("/v1/completions", json!({"model": "m", "prompt": ["a b", "c"]})).await;
    assert_eq!(answer["choices"].as_array().unwrap().len(), 2);
    assert_eq!(answer["usage"]["total_tokens"], 27);

    let request = json!({"model": "m", "input": ["a", "b c"], "encoding_format": "base64", "dimensions": 1});
    let answer = provider.document("/v1/embeddings", request).await;
    assert_eq!(answer["data"][1]["embedding"], "AAAAPw==");
    assert_eq!(answer["usage"], json!({"prompt_tokens": 3, "total_tokens": 3}));
}

#[tokio::test]
async fn gemini_streams_in_both_forms_with_running_usage() {
    let provider = start().await;
    let request = json!({"contents": [{"role": "user", "parts": [{"text": "one two"}]}]});
    let (_, stream) = provider.post("/v1beta/models/pace-0ms:streamGenerateContent?alt=sse", request.clone()).await;
    let events = data_of(&stream);
    assert_eq!(events.len(), 12);
    assert_eq!(events[0]["usageMetadata"]["totalTokenCount"], 3);
    assert_eq!(events[11]["usageMetadata"]["totalTokenCount"], 14);
    assert_eq!(events[11]["candidates"][0]["finishReason"], "STOP");
    let (_, array) = provider.post("/v1beta/models/pace-0ms:streamGenerateContent", request.clone()).await;
    assert_eq!(serde_json::from_str::<Vec<Value>>(&array).unwrap(), {
        let mut same = events.clone();
        same.iter_mut().for_each(|event| event["responseId"] = json!("demo00000001"));
        same
    });
    let counted = provider.document("/v1beta/models/m:countTokens", request).await;
    assert_eq!(counted["totalTokens"], 2);
    let request =
        json!({"requests": [{"content": {"parts": [{"text": "a b"}]}}, {"content": {"parts": [{"text": "c"}]}}]});
    let answer = provider.document("/v1beta/models/gemini-embedding-2:batchEmbedContents", request.clone()).await;
    assert_eq!(answer["usageMetadata"]["promptTokenCount"], 3);
    let answer = provider.document("/v1beta/models/gemini-embedding-001:batchEmbedContents", request).await;
    assert_eq!(answer.get("usageMetadata"), None);
    assert_eq!(provider.stats().await["billed"], json!({"answers": 4, "prompt_tokens": 10, "completion_tokens": 24}));
}

#[tokio::test]
async fn a_models_name_asks_for_errors_silence_and_cuts() {
    let provider = start().await;
    let (status, body) = provider.post("/v1/chat/completions", chat("error-429")).await;
    assert_eq!(status, 429);
    assert!(body.contains("rate_limit_exceeded"));
    let (status, body) = provider.post("/v1beta/models/error-500:generateContent", json!({})).await;
    assert_eq!(status, 500);
    assert!(body.contains("\"status\":\"INTERNAL\""));
    assert_eq!(provider.document("/v1/chat/completions", chat("no-usage")).await.get("usage"), None);
    let mut request = chat("cut-3+pace-0ms");
    request["stream"] = json!(true);
    let (status, head, body) = provider.send("POST", "/v1/chat/completions", "x-test: 1", &request.to_string()).await;
    assert_eq!((status, data_of(&body).len()), (200, 3), "{head}");
    let (_, _, half) = provider.send("POST", "/v1/chat/completions", "x-test: 1", &chat("cut-1").to_string()).await;
    assert!(serde_json::from_str::<Value>(&half).is_err() && half.starts_with('{'));
    let stats = provider.stats().await;
    assert_eq!((&stats["errors"], &stats["billed"]["answers"]), (&json!(2), &json!(3)));
}

#[tokio::test]
async fn wrong_keys_paths_and_bodies_are_refused_in_the_dialect() {
    let provider = start().await;
    let send = async |path: &str, extra: &str, body: &str| {
        let (status, _, body) = provider.send("POST", path, extra, body).await;
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    let (status, body) = send("/v1/chat/completions", "no-key: 1", "{}").await;
    assert_eq!((status, &body["error"]["code"]), (401, &json!("invalid_api_key")));
    let (status, body) = send("/v1beta/models/m:nothing", "x-test: 1", "{}").await;
    assert_eq!((status, &body["error"]["status"]), (404, &json!("NOT_FOUND")));
    assert_eq!(send("/v1/chat/completions", "x-test: 1", "{").await.0, 400);
    let (status, _, models) = provider.send("GET", "/v1/models/gemini-2.5-pro", "x-test: 1", "").await;
    assert_eq!((status, models.contains("models/gemini-2.5-pro")), (200, true));
}

#[test]
fn a_compressed_stream_can_be_inflated_piece_by_piece() {
    use std::io::Read;
    let pieces = ["one\n".to_owned(), "two\n".to_owned()];
    let chunks = compressed(&pieces);
    assert_eq!(chunks.len(), 2);
    let mut first = [0; 4];
    flate2::read::GzDecoder::new(chunks[0].as_ref()).read_exact(&mut first).unwrap();
    assert_eq!(&first, b"one\n");
    let mut text = String::new();
    flate2::read::GzDecoder::new(chunks.concat().as_slice()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "one\ntwo\n");
}
