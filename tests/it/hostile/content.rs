//! What a body holds: depth, members that stand twice, codings, size.

use super::*;
use crate::refusals::check;

fn chat_body(body: impl AsRef<[u8]>) -> Vec<u8> {
    let length = format!("Content-Length: {}", body.as_ref().len());
    [head(LINE, &[HOST, AUTH, JSON, &length]), body.as_ref().to_vec()].concat()
}

fn coded(coding: &str, body: &[u8]) -> Vec<u8> {
    let lines = [format!("Content-Encoding: {coding}"), format!("Content-Length: {}", body.len())];
    [head(LINE, &[HOST, AUTH, JSON, &lines[0], &lines[1]]), body.to_vec()].concat()
}

pub fn rows() -> Vec<Row> {
    let with = |member: &str| CHAT_REQUEST.replacen('{', &format!("{{{member},"), 1);
    let deep = |open: &str, close: &str, times: usize| format!("{}1{}", open.repeat(times), close.repeat(times));
    let list = |times| deep("[", "]", times);
    let object = |times| deep("{\"a\":", "}", times);
    let bomb = gzip(&vec![b' '; 64 << 20]);
    let mut depth = Row::new("B17", "JSON as deep as it is long");
    for (name, body) in [
        ("200,000 lists", list(200_000)),
        ("1,000,000 lists", list(1_000_000)),
        ("200,000 objects", object(200_000)),
        ("lists that are not closed", "[".repeat(200_000)),
        ("objects that are not closed", "{\"a\":".repeat(200_000)),
    ] {
        depth = depth.form(name, chat_body(body), Comes::Denied(&[400]));
    }
    for (name, body) in [
        ("lists in an unknown member", with(&format!(r#""x":{}"#, list(200_000)))),
        ("objects in an unknown member", with(&format!(r#""x":{}"#, object(200_000)))),
        ("lists in place of messages", format!(r#"{{"model":"gpt-4o-mini","messages":{}}}"#, list(200_000))),
        ("lists in the stream options", with(&format!(r#""stream_options":{}"#, list(200_000)))),
        ("lists in place of the model", format!(r#"{{"model":{},"messages":[]}}"#, list(200_000))),
    ] {
        depth = depth.form(name, chat_body(body), Comes::ServedOrRefused(&[400]));
    }
    let mut codings = Row::new("B20", "a body with a content coding, 64 MiB in 64 KiB");
    for coding in ["gzip", "GZIP", "x-gzip", "deflate", "br", "zstd", "gzip, gzip", "identity, gzip", "unknown"] {
        codings = codings.form(coding, coded(coding, &bomb), Comes::Denied(&[415]));
    }
    vec![depth, codings]
}

#[test]
fn no_body_is_too_much_to_look_at() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    gateway.send(&chat("warm"));
    gateway.forget_memory_peak();
    let before = gateway.memory_kib();
    play(&gateway, &provider, rows());
    let grown = gateway.memory_peak_kib().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more");
}

#[test]
fn a_member_that_stands_twice_is_billed_as_the_provider_reads_it() {
    // Of a member that stands twice the provider takes the last; the answer says which model it was.
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let front = |member: &str| CHAT_REQUEST.replacen('{', &format!("{{{member},"), 1);
    let back = |member: &str| CHAT_REQUEST.replacen(r#"}]}"#, &format!("}}],{member}}}"), 1);
    let forms = [
        ("another model before", front(r#""model":"gpt-4""#)),
        ("another model behind", back(r#""model":"gpt-4""#)),
        ("another model, escaped", back(r#""mod\u0065l":"gpt-4""#)),
        ("no model behind", back(r#""model":null"#)),
        ("a stream and none", back(r#""stream":true,"stream":false"#)),
        ("none and a stream", back(r#""stream":false,"stream":true"#)),
        ("none and a stream, escaped", back(r#""stream":false,"str\u0065am":true"#)),
        ("two stream options", back(r#""stream":true,"stream_options":{"include_usage":true},"stream_options":{}"#)),
        ("two limits", back(r#""max_tokens":1,"max_tokens":1000000"#)),
        ("a member of another case", back(r#""Model":"gpt-4","STREAM":true"#)),
    ];
    let mut served = 0;
    for (at, (name, body)) in forms.iter().enumerate() {
        let tenant = format!("twice-{at}");
        let answer = gateway.send(&chat_with(&tenant, body.as_str()));
        match answer.status {
            200 => {
                assert!(answer.whole, "{name}");
                let usage = gateway.booked(&tenant, 1);
                assert_eq!((usage.tokens(), usage.cost()), ((11, 7, 18), CHAT_PICO_USD), "{name}");
                served += 1;
            }
            status => assert_eq!(status, 400, "{name}: {}", answer.text()),
        }
    }
    let outcome = format!("{} refused, {served} billed as the provider read them", forms.len() - served);
    tell("B18", "members that stand twice", forms.len(), &outcome);
}

#[test]
fn a_body_over_the_limit_is_refused_by_length_and_by_count() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).set("TOLLGATE_BODY_LIMIT", "64KiB").start();
    let body = |bytes: usize| {
        let frame = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":""}]}"#;
        frame.replace(r#""""#, &format!(r#""{}""#, "x".repeat(bytes - frame.len())))
    };
    assert_eq!(body(65_536).len(), 65_536);
    assert_eq!(gateway.send(&chat_with("acme", body(65_536))).status, 200);
    let answer = check(&gateway, &provider, &chat_with("acme", body(65_537)), 413);
    assert_eq!(answer.json()["error"]["code"], "body_too_large");
    check(&gateway, &provider, &Request::post(GEMINI, body(65_537)).google("acme"), 413);

    // By length: before anything of it is sent.
    let mut wire = Wire::open(gateway.proxy);
    wire.send(&chat_with("acme", vec![b' '; 1 << 20]).head_bytes());
    assert_eq!(wire.answer().expect("an early answer").status, 413);

    // By count: chunks without end.
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer acme\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut wire = Wire::open(gateway.proxy);
    wire.send(head.as_bytes());
    let chunk = wire::chunk(&[b' '; 16 * 1024]);
    for _ in 0..64 {
        if wire.try_send(&chunk).is_err() {
            break;
        }
    }
    assert_eq!(wire.answer().expect("an answer").status, 413);

    // Chunks within the limit are a body like any other, and reach the provider with a length.
    let mut wire = Wire::open(gateway.proxy);
    wire.send(head.as_bytes());
    for chunk in wire::chunks(CHAT_REQUEST.as_bytes(), 7) {
        wire.send(&chunk);
    }
    wire.send(wire::LAST_CHUNK);
    assert_eq!(wire.answer().expect("an answer").status, 200);
    assert_eq!(provider.last().body, CHAT_REQUEST.as_bytes());
    assert_eq!(provider.last().header("content-length"), Some(CHAT_REQUEST.len().to_string().as_str()));
    assert_eq!(gateway.booked("acme", 2).requests, 2);
    tell("A13", "bodies over the limit, by length and by count", 4, "413, 0 whole bodies at the provider");
}
