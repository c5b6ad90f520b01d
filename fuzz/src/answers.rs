//! Answers of providers, read by what bills them.

use bytes::Bytes;
use http::Method;

use crate::control::Control;
use crate::domain::tokens::Tokens;
use crate::providers::{AnswerReader, CredentialPlace, Reading, Shortener, route};

/// Where the answer comes from, with a request that asks for nothing special.
const PATHS: [&str; 16] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/images/generations",
    "/v1/audio/transcriptions",
    "/v1/audio/speech",
    "/v1/batches",
    "/v1/threads/t/runs",
    "/v1beta/openai/chat/completions",
    "/v1beta/models/m:generateContent",
    "/v1beta/models/m:streamGenerateContent",
    "/v1beta/models/m:batchEmbedContents",
    "/v1beta/models/m:batchGenerateContent",
    "/v1beta/interactions",
    "/v1beta/cachedContents",
];

/// The gateway asks for usage in a stream with the first, the client itself with the second.
const REQUESTS: [&str; 3] = [
    r#"{"model":"m","stream":true,"messages":[],"input":"x","n":2}"#,
    r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[],"input":"x"}"#,
    r#"{"model":"m","input":"x","contents":[]}"#,
];

fn reader(path: &str, request: &str, content_type: Option<&str>) -> Option<(Box<dyn AnswerReader>, bool)> {
    let (provider, endpoint) = route(&Method::POST, path, CredentialPlace::None).ok()?;
    let call = provider.call(&endpoint, None, &Bytes::copy_from_slice(request.as_bytes())).ok()?;
    Some((provider.reader(&endpoint, &call, content_type), call.edits.is_empty()))
}

fn replay(mut reader: Box<dyn AnswerReader>, pieces: &[&[u8]]) -> (Vec<u8>, bool, Reading) {
    let mut out = Vec::new();
    for piece in pieces {
        reader.pass(Bytes::copy_from_slice(piece), &mut out);
    }
    reader.flush(&mut out);
    (out.concat(), reader.is_complete(), reader.reading())
}

/// An answer is read and passed on alike however it is cut; what is read can be believed; nothing is changed unless the
/// gateway asked for the usage event, and then something is left out at most.
fn alike(path: &str, request: &str, content_type: Option<&str>, body: &[u8], pieces: [&[u8]; 3]) {
    let make = || reader(path, request, content_type);
    let Some((first, is_unchanged)) = make() else { return };
    let whole = replay(first, &[body]);
    let Some((second, _)) = make() else { return };
    assert_eq!(replay(second, &pieces), whole, "{path}: cut in three");
    let Some((third, _)) = make() else { return };
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(replay(third, &bytes), whole, "{path}: byte by byte");
    let (out, is_complete, reading) = whole;
    if is_unchanged {
        assert_eq!(out, body, "{path}: the client's bytes");
    } else {
        assert!(out.len() <= body.len(), "{path}");
    }
    let Some((mut looking, _)) = make() else { return };
    looking.look(body);
    let looked = (looking.is_complete(), looking.reading());
    assert_eq!(looked.1, reading, "{path}: looked at");
    assert!(is_complete || !looked.0);
    if let Some(tokens) = reading.tokens {
        assert!(tokens.checked().is_ok(), "{path}: {tokens:?}");
    }
    assert!(reading.quantities.checked().is_ok(), "{path}: {:?}", reading.quantities);
    assert!(reading.output.len() <= crate::providers::OUTPUT_TEXT_BYTES_MAX);
    if let Some(model) = &reading.model {
        assert!(!model.chars().any(char::is_control), "{path}: {model:?}");
    }
}

/// Streams of events, and what would end one early.
pub fn sse(data: &[u8]) {
    let mut control = Control(data);
    let (path, request) = (control.choose(&PATHS), control.choose(&REQUESTS));
    let (body, pieces) = control.cut();
    alike(path, request, Some("text/event-stream; charset=utf-8"), body, pieces);
    let Ok((_, endpoint)) = route(&Method::POST, path, CredentialPlace::None) else { return };
    let Some(mut shortener) = Shortener::of(endpoint.reads, 2, body.len() % 2 == 0) else { return };
    for piece in pieces {
        assert!(shortener.follow(piece) <= piece.len());
    }
    if shortener.is_between_events() {
        let ending = shortener.ending(&Tokens { prompt: 11, completion: 7, ..Tokens::default() });
        assert_eq!(shortener.follow(&ending), ending.len(), "what ends a stream is whole events");
        // The reader of the bill takes them for the end as clients do.
        let stream = [body, &ending].concat();
        let Some((reader, true)) = reader(path, REQUESTS[1], Some("text/event-stream")) else { return };
        let (out, _, _) = replay(reader, &[&stream]);
        assert!(out.ends_with(&ending));
    }
}

/// Documents.
pub fn document(data: &[u8]) {
    let mut control = Control(data);
    let (path, request) = (control.choose(&PATHS), control.choose(&REQUESTS));
    let content_type = control.choose(&[Some("application/json"), None, Some("text/plain")]);
    let (body, pieces) = control.cut();
    alike(path, request, content_type, body, pieces);
    // Lines of results: each is a call that was paid for.
    for path in ["/v1/batches", "/v1beta/models/m:batchGenerateContent"] {
        let Ok((provider, _)) = route(&Method::POST, path, CredentialPlace::None) else { continue };
        if let Some(reading) = provider.result(body) {
            assert!(reading.tokens.unwrap_or_default().checked().is_ok());
        }
    }
}

/// Gemini's streams that are one array.
pub fn gemini_array(data: &[u8]) {
    let control = Control(data);
    let (body, pieces) = control.cut();
    alike("/v1beta/models/m:streamGenerateContent", REQUESTS[2], Some("application/json"), body, pieces);
}
