//! What clients ask and providers say, in both dialects, and a provider that behaves.
//!
//! Every answer charges 11 prompt and 7 completion tokens, 18 in all, unless it says otherwise.

use super::provider::{Script, Seen};

pub const CHAT: &str = "/v1/chat/completions";
pub const GEMINI: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
pub const GEMINI_SSE: &str = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";
pub const GEMINI_ARRAY: &str = "/v1beta/models/gemini-2.5-flash:streamGenerateContent";

/// gpt-4o-mini, 0.15 and 0.60 dollars a million tokens (OpenAI's price list): 11 in and 7 out, in pico-dollars.
pub const CHAT_PICO_USD: u64 = 11 * 150_000 + 7 * 600_000;
/// gemini-2.5-flash, 0.30 and 2.50 dollars a million tokens (Google's price list): 11 in and 7 out, in pico-dollars.
pub const GEMINI_PICO_USD: u64 = 11 * 300_000 + 7 * 2_500_000;

/// A chat request.
pub const CHAT_REQUEST: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Count to three."}]}"#;
/// A chat request whose answer is to stream.
pub const CHAT_STREAM_REQUEST: &str =
    r#"{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"Count to three."}]}"#;
/// A chat request that asks for a stream with usage.
pub const CHAT_USAGE_REQUEST: &str = r#"{"model":"gpt-4o-mini","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"Count to three."}]}"#;
/// A Gemini request.
pub const GEMINI_REQUEST: &str = r#"{"contents":[{"role":"user","parts":[{"text":"Count to three."}]}]}"#;

pub const CHAT_ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1763980000,"model":"gpt-4o-mini",
 "choices":[{"index":0,"message":{"role":"assistant","content":"One, two, three.","refusal":null},"finish_reason":"stop"}],
 "usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}},
 "service_tier":"default"}"#;

pub const GEMINI_ANSWER: &str = r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"One, two, three."}]},"finishReason":"STOP","index":0}],
 "usageMetadata":{"promptTokenCount":11,"candidatesTokenCount":5,"thoughtsTokenCount":2,"totalTokenCount":18},"modelVersion":"gemini-2.5-flash"}"#;

/// One event of a chat stream, with `word` as its text.
pub fn chat_event(word: &str) -> Vec<u8> {
    format!("data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1763980000,\"model\":\"gpt-4o-mini\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{}}},\"finish_reason\":null}}],\"usage\":null}}\n\n", serde_json::json!(word)).into_bytes()
}

/// The event with the usage of a chat stream.
pub fn chat_usage_event() -> Vec<u8> {
    b"data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1763980000,\"model\":\"gpt-4o-mini\",\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7,\"total_tokens\":18}}\n\n".to_vec()
}

pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// A chat stream of `words` events, with the usage event and the end.
pub fn chat_events(words: usize) -> Vec<Vec<u8>> {
    let mut events: Vec<_> = (0..words).map(|at| chat_event(&format!("word{at} "))).collect();
    events.push(chat_usage_event());
    events.push(DONE.to_vec());
    events
}

/// The elements of a Gemini stream: the usage grows and the last one counts.
pub fn gemini_elements(words: usize) -> Vec<String> {
    (0..words)
        .map(|at| {
            let last = at + 1 == words;
            let (candidates, thoughts) = if last { (5, 2) } else { (1, 2) };
            let finish = if last { r#","finishReason":"STOP""# } else { "" };
            format!(
                r#"{{"candidates":[{{"content":{{"role":"model","parts":[{{"text":"word{at} "}}]}}{finish},"index":0}}],"usageMetadata":{{"promptTokenCount":11,"candidatesTokenCount":{candidates},"thoughtsTokenCount":{thoughts},"totalTokenCount":{}}},"modelVersion":"gemini-2.5-flash"}}"#,
                11 + candidates + thoughts
            )
        })
        .collect()
}

/// A Gemini stream as server-sent events.
pub fn gemini_events(words: usize) -> Vec<Vec<u8>> {
    gemini_elements(words).iter().map(|element| format!("data: {element}\r\n\r\n").into_bytes()).collect()
}

/// A Gemini stream as one JSON array.
pub fn gemini_array(words: usize) -> Vec<u8> {
    format!("[{}\n]\n", gemini_elements(words).join("\n,\r\n")).into_bytes()
}

/// Whether a request body asks for usage in the stream.
pub fn asks_usage(seen: &Seen) -> bool {
    seen.json()["stream_options"]["include_usage"] == true
}

/// A provider of both dialects that does what the real ones do.
pub fn honest(seen: &Seen) -> Script {
    let target = seen.target.as_str();
    if target.contains("alt=sse") {
        Script::pieces("text/event-stream", &gemini_events(3))
    } else if target.contains(":streamGenerateContent") {
        Script::pieces("application/json", &[gemini_array(3)])
    } else if target.contains(":generateContent") {
        Script::json(200, GEMINI_ANSWER)
    } else if seen.method != "POST" {
        Script::json(200, r#"{"object":"list","data":[]}"#)
    } else if seen.json()["stream"] == true {
        let mut events = chat_events(3);
        if !asks_usage(seen) {
            events.remove(3);
        }
        Script::pieces("text/event-stream", &events)
    } else {
        Script::json(200, CHAT_ANSWER)
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
