//! Requests of clients: what admission reads, and the edits that go into them.

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use crate::control::Control;
use crate::providers::{self, Call, CredentialPlace, Edit, FormReader, Kind, route};

const PATHS: [&str; 14] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/images/generations",
    "/v1/audio/speech",
    "/v1/batches",
    "/v1/threads/t/runs",
    "/v1beta/openai/chat/completions",
    "/v1beta/models/m:generateContent",
    "/v1beta/models/m:streamGenerateContent",
    "/v1beta/models/m:countTokens",
    "/v1beta/interactions",
    "/v1beta1/projects/p/locations/l/publishers/google/models/m:predict",
];

fn call(path: &str, body: &Bytes) -> Option<Call> {
    let (provider, endpoint) = route(&Method::POST, path, CredentialPlace::None).ok()?;
    provider.call(&endpoint, Some("alt=sse"), body).ok()
}

fn applied(edits: &[Edit], body: &Bytes) -> Bytes {
    let mut at = 0;
    for edit in edits {
        assert!(
            at <= edit.range.start && edit.range.start <= edit.range.end && edit.range.end <= body.len(),
            "{edit:?}"
        );
        at = edit.range.end;
    }
    Bytes::from(providers::apply(edits, body).concat())
}

/// Takes out of a document what edits may change.
fn rest(body: &[u8]) -> Value {
    let mut value: Value = serde_json::from_slice(body).unwrap();
    if let Some(members) = value.as_object_mut() {
        for name in [
            "stream_options",
            "max_tokens",
            "max_completion_tokens",
            "max_output_tokens",
            "generationConfig",
            "generation_config",
        ] {
            members.remove(name);
        }
    }
    value
}

/// What is read of a body is read of the edited body too; the edited body is JSON and differs in what was to be edited only.
pub fn json(data: &[u8]) {
    let mut control = Control(data);
    let path = control.choose(&PATHS);
    let most = [1, 16, 4096, 1_000_000][usize::from(control.byte()) % 4];
    let body = Bytes::copy_from_slice(control.0);
    let Some(read) = call(path, &body) else { return };
    // What is passed over may be what serde_json cannot hold, such as half of a surrogate pair or 1e999.
    let Ok(first) = serde_json::from_slice::<Value>(&body) else { return };
    assert!(first.is_object() && read.answers >= 1);
    assert_eq!(call(path, &body).as_ref(), Some(&read), "twice alike");
    // The quick look at a call passes over no name that a walk finds. Of a chat the walk knows ids that no chat has.
    if path != PATHS[0] {
        let (provider, endpoint) = route(&Method::POST, path, CredentialPlace::None).expect("it was one");
        let names = provider.references(&endpoint, Some(&read), &body);
        assert_eq!(names, provider.references(&endpoint, None, &body));
    }
    let asked = applied(&read.edits, &body);
    assert_eq!(rest(&asked), rest(&body));
    let again = call(path, &asked).expect("an edited body is read");
    assert!(again.edits.is_empty(), "usage is asked for once");
    let Call {
        model,
        stream,
        in_background,
        continues,
        output_max,
        answers,
        has_media,
        refers,
        searches,
        service_tier,
        quantities,
        ..
    } = &read;
    assert_eq!(
        (&again.model, again.stream, again.in_background, &again.continues, again.output_max, again.answers),
        (model, *stream, *in_background, continues, *output_max, *answers)
    );
    assert_eq!(
        (again.has_media, again.refers, again.searches, again.service_tier, again.quantities),
        (*has_media, *refers, *searches, *service_tier, *quantities)
    );
    if *stream && first["stream_options"].is_object() {
        let options: Value = serde_json::from_slice(&asked).unwrap();
        let before = &first["stream_options"]["include_usage"];
        assert!(
            options["stream_options"]["include_usage"] == true
                || !(before.is_null() || before == false)
                || path != PATHS[0]
        );
    }
    let Some(cap) = &read.cap else { return };
    let edits: Vec<Edit> = cap.edits(most).collect();
    let capped = applied(&edits, &body);
    assert_eq!(rest(&capped), rest(&body));
    let again = call(path, &capped).expect("a capped body is read");
    // A maximum that is no number stays, and stays in doubt.
    let is_held = |call: &Call| match read.output_max {
        Some(_) => call.output_max == Some(most.saturating_mul(call.answers)),
        None => call.output_max.is_none_or(|max| max == most.saturating_mul(call.answers)),
    };
    assert!(is_held(&again), "{:?} {}", again.output_max, String::from_utf8_lossy(&capped));
    // Both at once, as they are sent.
    let mut both: Vec<Edit> = read.edits.iter().cloned().chain(edits).collect();
    both.sort_by_key(|edit| edit.range.start);
    let both = applied(&both, &body);
    let again = call(path, &both).expect("both");
    assert!(again.edits.is_empty());
    assert!(is_held(&again));
}

/// A form says the same however it is cut. One that is taken has the parts and the model that a reader finds in it who splits it
/// at its boundary.
pub fn form(data: &[u8]) {
    let mut control = Control(data);
    let length = usize::from(control.byte()) % 80;
    let (head, body) = control.0.split_at(length.min(control.0.len()));
    let (content_type, boundary) = match std::str::from_utf8(head) {
        Ok(text) if text.starts_with("multipart/") => (text.to_owned(), None),
        _ => ("multipart/form-data; boundary=\"b\"".to_owned(), Some("--b")),
    };
    let (body, pieces) = Control(body).cut();
    let read = |pieces: &[&[u8]]| {
        let mut reader = FormReader::new(&content_type)?;
        let mut refused = false;
        for piece in pieces {
            if reader.feed(piece).is_err() {
                refused = true;
                break;
            }
        }
        let is_over = !refused && reader.finish().is_ok();
        // What a refused form said does not matter.
        let told = (!refused).then(|| (reader.model().map(str::to_owned), reader.is_known(), reader.call(7)));
        Some((is_over, told))
    };
    let whole = read(&[body]);
    assert_eq!(read(&pieces), whole, "{content_type}");
    assert_eq!(read(&body.chunks(1).collect::<Vec<_>>()), whole, "{content_type}");
    if let (Some((true, Some((model, ..)))), Some(boundary)) = (whole, boundary) {
        assert_eq!(models_between(body, boundary), Vec::from_iter(model));
    }
}

/// The contents of the parts that seem to be a model, of a form that is over.
fn models_between(body: &[u8], boundary: &str) -> Vec<String> {
    let text = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
    let body = text(body);
    let parts: Vec<&str> = body.split(boundary).collect();
    let [before, parts @ .., behind] = parts.as_slice() else { panic!("no boundary: {body:?}") };
    assert!(["", "\r\n"].contains(before), "{body:?}");
    let behind = behind.strip_prefix("--");
    assert!(behind.is_some_and(|behind| behind.trim_matches(['\r', '\n']).is_empty()), "{body:?}");
    let mut models = Vec::new();
    for part in parts {
        let part = part.strip_prefix("\r\n").and_then(|part| part.strip_suffix("\r\n"));
        let (head, content) = part.and_then(|part| part.split_once("\r\n\r\n")).expect("a head and a content");
        let lines = head.split(['\r', '\n']).filter(|line| line.to_lowercase().starts_with("content-disposition"));
        let is_model = |line: &str| {
            line.split(';').any(|parameter| {
                let (name, value) = parameter.split_once('=').unwrap_or_default();
                name.trim().eq_ignore_ascii_case("name") && value.trim().trim_matches('"') == "model"
            })
        };
        models.extend(lines.filter(|line| is_model(line)).map(|_| content.to_owned()));
    }
    models
}

/// A path has one owner; what is not billed is not a chat; what is given on is the client's path without our prefix.
pub fn path(data: &[u8]) {
    let mut control = Control(data);
    let method = control.choose(&[Method::POST, Method::GET, Method::DELETE, Method::PUT].each_ref()).clone();
    let place = control.choose(&[CredentialPlace::None, CredentialPlace::Bearer, CredentialPlace::Google]);
    let Ok(path) = std::str::from_utf8(control.0) else { return };
    let Ok((provider, endpoint)) = route(&method, path, place) else { return };
    assert!(path.ends_with(&endpoint.path), "{path} {}", endpoint.path);
    assert!(endpoint.path.starts_with('/') && !endpoint.path.starts_with("//"), "{path}");
    // Nothing that a server could take for a way out of its API.
    let lower = endpoint.path.to_ascii_lowercase();
    let segments = lower.split('/').map(|segment| segment.replace("%2e", "."));
    assert!(!segments.into_iter().any(|segment| segment == "." || segment == ".."), "{path}");
    assert!(!lower.contains(['\\', '?', '#', ' ']) && !lower.bytes().any(|byte| byte.is_ascii_control()), "{path:?}");
    if endpoint.kind == Kind::Chat {
        assert!(!endpoint.name.is_empty());
    }
    // With our prefix it is the same endpoint.
    let prefixed = format!("/{}{}", provider.id(), endpoint.path);
    if let Ok((again, found)) = route(&method, &prefixed, place) {
        assert_eq!(again.id(), provider.id());
        assert_eq!((found.name, found.path), (endpoint.name, endpoint.path));
    }
}
