//! What clients and providers say never makes a line of the log, nor a command for the terminal that shows it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::bodies::*;
use super::support::*;

/// A line as the gateway would write it, behind a line end.
const FORGED: &str = "2026-11-01T00:00:00.000000Z  INFO tollgate::request: Request is booked. tenant=forged";

/// What ends a line somewhere, commands a terminal, or turns text around.
const TRICKS: [&str; 12] = [
    "\n",
    "\r\n",
    "\r",
    "\u{b}",
    "\u{1b}[2K\u{1b}[1A",
    "\u{1b}]0;owned\u{7}",
    "\u{9b}2K",
    "\u{85}",
    "\u{2028}",
    "\u{2029}",
    "\u{202e}",
    "\u{7f}",
];

/// One hostile text for each trick.
fn hostile() -> impl Iterator<Item = String> {
    TRICKS.iter().map(|trick| format!("gpt-4o-mini{trick}{FORGED}"))
}

/// As a path or query writes it.
fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Everything that a client can write somewhere, with each trick in it, and what is counted of it.
fn attack(gateway: &Gateway) -> u64 {
    let mut sent = 0;
    let mut send = |request: Request| {
        let mut wire = Wire::open(gateway.proxy);
        // What is malformed may be cut off without an answer.
        wire.try_send(&request.bytes()).ok();
        drop(wire.answer());
        sent += 1;
    };
    for text in hostile() {
        // Values that JSON can carry are heads' only where HTTP lets them pass: raw, they are headers of their own.
        send(chat_with("acme", json!({"model": text, "messages": [{"role": "user", "content": "x"}]}).to_string()));
        for header in
            ["x-tollgate-user-id", "x-tollgate-kb-id", "User-Agent", "x-request-id", "traceparent", "Accept", "Host"]
        {
            send(chat("acme").header(header, text.clone()));
        }
        send(chat(&text));
        send(gemini(&text));
        send(gemini("acme").to(format!("/v1beta/models/{}:generateContent", percent(&text))));
        send(gemini("acme").to(format!("/v1beta/models/{text}:generateContent")));
        send(gemini("acme").to(format!("{GEMINI}?key={}", percent(&text))));
        send(Request::get(format!("/v1/files/{}", percent(&text))).bearer("acme"));
        send(Request::get(format!("/v1/batches/{text}")).bearer("acme"));
        send(Request::get(format!("/billing/usage?tenant_id={}", percent(&text))).bearer("acme"));
        send(Request::get(format!("/billing/{}", percent(&text))).bearer("acme"));
        send(Request::get("/v1/models").method("BR\u{1b}EW").bearer("acme"));
    }
    for text in hostile() {
        let body = json!({"id": "hostile", "name": text, "plan": text}).to_string();
        drop(gateway.admin(Request::post("/admin/tenants", body)));
    }
    sent
}

/// A provider that says the hostile texts back: as model, id, headers, error and reason.
fn liar() -> Provider {
    let texts: Vec<String> = hostile().collect();
    let next = AtomicUsize::new(0);
    Provider::start(move |seen| {
        let call = next.fetch_add(1, Ordering::Relaxed);
        let text = &texts[call % texts.len()];
        if seen.target.contains("models/") {
            let mut answer: Value = serde_json::from_str(GEMINI_ANSWER).unwrap();
            answer["modelVersion"] = json!(text);
            answer["responseId"] = json!(text);
            return Script::json(200, answer.to_string());
        }
        let mut answer: Value = serde_json::from_str(CHAT_ANSWER).unwrap();
        answer["model"] = json!(text);
        answer["id"] = json!(text);
        answer["service_tier"] = json!(text);
        let one_line = text.replace(['\r', '\n', '\u{b}', '\u{7f}', '\u{1b}', '\u{7}'], "?");
        let headers = [
            ("Content-Type", "application/json"),
            ("x-request-id", one_line.as_str()),
            ("openai-model", one_line.as_str()),
        ];
        // 5 and 12 have no common divisor: each text comes with each kind of answer.
        if call.is_multiple_of(5) {
            let error = json!({"error": {"message": text, "code": text}}).to_string();
            return Script::answer(500, &headers, error);
        }
        Script::answer(200, &headers, answer.to_string())
    })
}

/// Whether a terminal or a reader of lines takes the character for more than text.
fn is_tricky(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The log once nothing more is written to it: until a last line of its own is there.
fn log_after(gateway: &Gateway, last: &str) -> Vec<String> {
    drop(gateway.send(&chat_with(last, CHAT_REQUEST)));
    let until = Instant::now() + Duration::from_secs(20);
    while !gateway.log().contains(last) {
        assert!(Instant::now() < until, "{}", gateway.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    gateway.log().split('\n').filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The line without what stands in quotes.
fn unquoted(line: &str) -> String {
    let (mut plain, mut is_quoted, mut is_escaped) = (String::new(), false, false);
    for c in line.chars() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ if !is_quoted => plain.push(c),
            _ => {}
        }
    }
    plain
}

#[test]
fn no_client_and_no_provider_forges_a_line_of_the_text_log() {
    let provider = liar();
    let gateway = Setup::new(&provider).set("RUST_LOG", "trace").start();
    let sent = attack(&gateway);
    let lines = log_after(&gateway, "lasttenant");
    let mut booked = 0;
    for line in &lines {
        assert!(!line.contains(is_tricky), "{line:?}");
        if line.starts_with("tollgate ready ") {
            continue;
        }
        // The time, the level, whose line it is. A forged line has the time of the forger.
        assert!(!line.starts_with("2026-11-01T00"), "{line:?}");
        let level = line.split_ascii_whitespace().nth(1).unwrap_or_default();
        assert!(line.starts_with("20") && ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"].contains(&level), "{line:?}");
        assert!(!unquoted(line).contains("tenant=forged"), "a field of the forger's, outside of quotes: {line:?}");
        booked += u64::from(line.contains("Request is booked."));
    }
    assert!(sent > 200 && booked > 20, "{sent} sent, {booked} booked: the attack reached nothing");
    println!("{sent} hostile requests, {} lines, {booked} of booked calls, 0 forged", lines.len());
}

#[test]
fn no_client_and_no_provider_forges_a_line_of_the_json_log() {
    let provider = liar();
    let gateway = Setup::new(&provider).set("RUST_LOG", "trace").set("TOLLGATE_LOG_FORMAT", "json").start();
    let sent = attack(&gateway);
    let lines = log_after(&gateway, "lasttenant");
    let mut booked = 0;
    for line in lines.iter().filter(|line| !line.starts_with("tollgate ready ")) {
        assert!(!line.contains(is_tricky), "{line:?}");
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        assert!(
            object["timestamp"].is_string() && object["level"].is_string() && object["tenant"] != "forged",
            "{line:?}"
        );
        booked += u64::from(object["message"] == "Request is booked.");
    }
    assert!(sent > 200 && booked > 20, "{sent} sent, {booked} booked: the attack reached nothing");
    println!("{sent} hostile requests, {} lines, {booked} of booked calls, 0 forged", lines.len());
}
