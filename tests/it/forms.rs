//! Forms: those of real clients pass byte for byte, and of one that two readers could read in two ways nothing gets to its end.

use std::fmt::Write;

use super::support::wire::{LAST_CHUNK, chunks};
use super::support::*;

const TARGET: &str = "/v1/audio/transcriptions";
const ANSWER: &str = r#"{"text":"Pay.","usage":{"type":"duration","seconds":60}}"#;
const TYPE: &str = "multipart/form-data; boundary=toll";

/// What is answered to a form, sent with its length and then in chunks.
fn answers(gateway: &Gateway, content_type: &str, body: &str) -> [Answer; 2] {
    let request = Request::get(TARGET).method("POST").header("Content-Type", content_type).bearer("acme");
    let whole = gateway.send(&Request { body: Some(body.into()), ..request.clone() });
    let mut wire = Wire::open(gateway.proxy);
    wire.send(&request.header("Transfer-Encoding", "chunked").head_bytes());
    for chunk in chunks(body.as_bytes(), 1000) {
        // A refusal may come before the end of what is refused.
        if wire.try_send(&chunk).is_err() {
            break;
        }
    }
    wire.try_send(LAST_CHUNK).unwrap_or_default();
    [whole, wire.answer().expect("an answer")]
}

/// A part of boundary `toll`.
fn part(head: &str, content: &str) -> String {
    format!("--toll\r\n{head}\r\n\r\n{content}\r\n")
}

fn field(name: &str, content: &str) -> String {
    part(&format!("Content-Disposition: form-data; name=\"{name}\""), content)
}

#[test]
fn a_form_that_two_parsers_read_as_two_models_is_refused_and_costs_nothing() {
    let provider = Provider::always(Script::json(200, ANSWER));
    let plans = "[plans.starter]\nchats_per_month = 500\nallowed_models = [\"whisper-1\"]\n";
    let gateway = Setup::new(&provider).config(plans).start();
    let (model, end) = (field("model", "whisper-1"), "--toll--\r\n");
    let hidden = "gpt-4o-transcribe";
    // What the other one's boundary makes of a part of ours.
    let inner = format!("--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{hidden}\r\n--b--\r\n");
    let both = format!("{model}{}{end}", field("x", &format!("\r\n{inner}")));
    let other = |head: &str| format!("{model}{}{end}", part(head, hidden));
    let bare = format!(
        "{model}{}{end}",
        field("x", &format!("y\n--toll\nContent-Disposition: form-data; name=\"model\"\n\n{hidden}"))
    );
    for (content_type, body) in [
        ("multipart/form-data; boundary=toll; boundary=b", both.clone()),
        ("multipart/form-data; x=\"; boundary=b\"; boundary=toll", both.clone()),
        ("multipart/mixed; boundary=toll", both),
        (TYPE, other("Content-Disposition: form-data; name*=utf-8''model")),
        (TYPE, other("Content-Disposition: form-data; name=\"x\"; name=\"model\"")),
        (TYPE, other("Content-Disposition: form-data; name=\"x\"\r\nContent-Disposition: form-data; name=\"model\"")),
        (TYPE, other("Content-Disposition: form-data;\r\n name=\"model\"")),
        (TYPE, other("Content-Disposition: form-data; name=\"mo\\del\"")),
        (TYPE, bare),
        (TYPE, format!("{model}{end}{}{end}", field("model", hidden))),
        (TYPE, format!("{model}--toll\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{hidden}")),
        (TYPE, model.clone()),
        (TYPE, String::new()),
    ] {
        for answer in answers(&gateway, content_type, &body) {
            let error = &answer.json()["error"];
            assert_eq!(
                (answer.status, &error["code"]),
                (400, &"invalid_form".into()),
                "{content_type} {body:?}: {error}"
            );
            let said = error["message"].as_str().unwrap();
            assert!(
                said.starts_with("The form in the request body cannot be read in one way: ") && !said.contains('\n'),
                "{said}"
            );
        }
    }
    assert_eq!(provider.count(), 0);
    assert_eq!(gateway.usage("acme").calls(), 0);
}

/// Behind a model and a long file, when the provider has the most of it already.
#[test]
fn a_form_that_turns_odd_on_its_way_never_gets_to_its_end() {
    let provider = Provider::always(Script::json(200, ANSWER));
    let gateway = Setup::new(&provider).start();
    let model = field("model", "whisper-1");
    let file = part("Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"", &"x".repeat(300_000));
    for rest in [
        field("model", "gpt-4o-transcribe"),
        part("Content-Disposition: form-data; name*=utf-8''model", "a"),
        String::new(),
    ] {
        let body = format!("{model}{file}{rest}");
        for answer in answers(&gateway, TYPE, &body) {
            assert_eq!(
                (answer.status, &answer.json()["error"]["code"]),
                (400, &"invalid_form".into()),
                "{}",
                answer.text()
            );
        }
    }
    assert_eq!(provider.count(), 0, "a request that is not over is none");
    let usage = gateway.booked("acme", 6);
    assert_eq!((usage.requests, usage.failed_requests, usage.cost()), (0, 6, 0));
}

/// As they were recorded, but for the boundary of some: curl 7.88 (with and without --form-escape), requests 2.34, httpx,
/// aiohttp, fetch of Node 20, form-data; as the sources of Go, OkHttp and Apache's client write them; and as Jersey and Faraday are known to.
#[test]
fn forms_of_real_clients_pass_as_they_came() {
    let provider = Provider::always(Script::json(200, ANSWER));
    let gateway = Setup::new(&provider).start();
    let file = "Content-Disposition: form-data; name=\"file\"; filename=";
    let clients: [(&str, &str, &[&str]); 11] = [
        ("curl", "------------------------3b70b4cd2e5f85e6", &["\"a %22q%22\\x.wav\"", "\"a \\\"q\\\"\\\\x.wav\""]),
        (
            "requests",
            "cd289f6e723c13d572bc42ac21d63882",
            &["\"a %22q%22\\x.wav\"\r\nContent-Type: audio/wav", "\"ü.wav\""],
        ),
        ("httpx", "de658b4cd563e707f8a59ecf554dbaeb", &["\"a %22q%22\\\\x.wav\"\r\nContent-Type: audio/wav"]),
        ("aiohttp", "292cce4656984867a52a01a7bd3c5582", &["\"a%20%22q%22%5Cx.wav\"", "\"a \\\"q\\\"\\\\x.wav\""]),
        ("fetch", "----formdata-undici-081805989221", &["\"a %22q%22\\x.wav\"\r\nContent-Type: audio/wav"]),
        (
            "form-data",
            "--------------------------d1fb3334bdbf0b029a64a854",
            &["\"a %22q%22\\x.wav\"\r\nContent-Type: audio/wav"],
        ),
        (
            "Go",
            "\"odd (but) legal:'+_,-./=?\"",
            &["\"a \\\"q\\\"\\\\x.wav\"\r\nContent-Type: application/octet-stream"],
        ),
        ("OkHttp", "7a1c1d2e-9b0f-4f5e-8f5f-0d3b6b1a2c3d", &["\"a %22q%22\\x.wav\"\r\nContent-Type: audio/wav"]),
        ("Apache", "kZ_9-a", &["\"%C3%BC.wav\"; filename*=\"UTF-8''%C3%BC.wav\"\r\nContent-Transfer-Encoding: binary"]),
        (
            "Jersey",
            "Boundary_1_330205_1764000000",
            &["\"a.wav\"; modification-date=\"Sat, 28 Nov 2026 10:00:00 GMT\"; size=4"],
        ),
        (
            "Faraday",
            "-----------RubyMultipartPost-1f",
            &["\"a.wav\"\r\nContent-Length: 4\r\nContent-Type: audio/wav\r\nContent-Transfer-Encoding: binary"],
        ),
    ];
    let mut calls = 0;
    for (client, boundary, names) in clients {
        let delimiter = format!("--{}", boundary.trim_matches('"'));
        let mut body = format!("{delimiter}\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n");
        for name in names {
            write!(body, "{delimiter}\r\n{file}{name}\r\n\r\nRIFF\r\n").unwrap();
        }
        let end = if client == "Faraday" { "--\r\n\r\n" } else { "--\r\n" };
        write!(body, "{delimiter}{end}").unwrap();
        let content_type = format!("multipart/form-data; boundary={boundary}");
        for answer in answers(&gateway, &content_type, &body) {
            assert_eq!(answer.status, 200, "{client}: {}", answer.text());
            let seen = provider.last();
            assert_eq!(
                (seen.body.as_slice(), seen.header("content-type")),
                (body.as_bytes(), Some(content_type.as_str())),
                "{client}"
            );
            calls += 1;
        }
    }
    let usage = gateway.booked("acme", calls);
    assert_eq!((usage.requests, usage.unpriced_requests), (calls, 0));
    assert!(gateway.events("acme").iter().all(|event| event["model"] == "whisper-1"));
}
