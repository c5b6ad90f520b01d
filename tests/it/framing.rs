//! HTTP as clients and providers really speak it, and as attackers do.

use std::time::{Duration, Instant};

use super::support::bodies::*;
use super::support::*;

fn head(line: &str, headers: &[&str]) -> Vec<u8> {
    let mut text = format!("{line}\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

const AUTH: &str = "Authorization: Bearer acme";
const JSON: &str = "Content-Type: application/json";
const LINE: &str = "POST /v1/chat/completions HTTP/1.1";

#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let mut wire = Wire::open(gateway.proxy);
    let request = chat("acme").header("Expect", "100-continue");
    wire.send(&request.head_bytes());
    assert_eq!(wire.head_of_answer("POST").expect("an interim answer").status(), 100);
    wire.send(CHAT_REQUEST.as_bytes());
    let answer = wire.answer().expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, CHAT_ANSWER));
    assert_eq!(gateway.booked("acme", 1).tokens(), (11, 7, 18));
}

#[test]
fn a_client_of_http_1_0_gets_a_body_that_ends_with_the_connection() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    for (tenant, body, expected) in [
        ("chat", CHAT_REQUEST, CHAT_ANSWER.as_bytes().to_vec()),
        ("stream", CHAT_USAGE_REQUEST, whole(&chat_events(3))),
    ] {
        let mut wire = Wire::open(gateway.proxy);
        let auth = format!("Authorization: Bearer {tenant}");
        let length = format!("Content-Length: {}", body.len());
        wire.send(&head("POST /v1/chat/completions HTTP/1.0", &["Host: x", &auth, JSON, &length]));
        wire.send(body.as_bytes());
        let answer = wire.answer().expect("an answer");
        assert_eq!(answer.header("transfer-encoding"), None, "{tenant}");
        assert_eq!((answer.status, answer.text()), (200, String::from_utf8_lossy(&expected).into_owned()), "{tenant}");
        assert!(wire.is_closed_by_peer(), "{tenant}");
        assert_eq!(gateway.booked(tenant, 1).tokens(), (11, 7, 18), "{tenant}");
    }
}

#[test]
fn an_answer_to_head_has_no_body() {
    let provider = Provider::start(|_| Script::raw("HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n"));
    let gateway = Setup::new(&provider).start();
    let mut wire = Wire::open(gateway.proxy);
    let answer = wire.ask(&Request::get("/v1/models").bearer("acme").method("HEAD"));
    assert!(matches!(answer.status, 200 | 405), "{}", answer.status);
    let next = wire.ask(&Request::get("/billing/limits").bearer("acme"));
    assert_eq!(next.json()["tenant_id"], "acme");
}

#[test]
fn pipelined_requests_get_their_answers_in_order_or_none() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let mut wire = Wire::open(gateway.proxy);
    wire.send(&[chat("acme").bytes(), gemini("acme").bytes()].concat());
    assert_eq!(wire.answer().expect("the first answer").text(), CHAT_ANSWER);
    if let Some(second) = wire.answer() {
        assert_eq!(second.text(), GEMINI_ANSWER);
        assert_eq!(gateway.booked("acme", 2).requests, 2);
    } else {
        assert_eq!(gateway.booked("acme", 1).requests, 1);
    }
}

#[test]
fn a_client_may_end_its_sending_and_still_wants_its_answer() {
    let provider = Provider::start(|seen| honest(seen).after(Step::Pause(Duration::from_millis(100))));
    let gateway = Setup::new(&provider).start();
    let mut wire = Wire::open(gateway.proxy);
    wire.send(&chat("acme").bytes());
    wire.end_of_sending();
    // A half-closed client may be taken for one that left, but it is booked either way.
    if let Some(answer) = wire.answer() {
        assert_eq!((answer.status, answer.text().as_str()), (200, CHAT_ANSWER));
    }
    assert_eq!(gateway.booked("acme", 1).tokens(), (11, 7, 18));
}

#[test]
fn an_answer_that_ends_with_its_connection_is_whole() {
    let raw = |content_type: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n");
        Script::raw([head.as_bytes(), body].concat()).then(Step::Close)
    };
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let rows: [(&str, Request, Script, Vec<u8>); 3] = [
        ("chat", chat("chat"), raw("application/json", CHAT_ANSWER.as_bytes()), CHAT_ANSWER.into()),
        (
            "stream",
            chat_with("stream", CHAT_USAGE_REQUEST),
            raw("text/event-stream", &whole(&chat_events(3))),
            whole(&chat_events(3)),
        ),
        (
            "http-one",
            gemini("http-one"),
            Script::raw(format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{GEMINI_ANSWER}"))
                .then(Step::Close),
            GEMINI_ANSWER.into(),
        ),
    ];
    for (tenant, request, script, body) in rows {
        provider.now_does(move |_| script.clone());
        let answer = gateway.send(&request);
        assert_eq!((answer.status, answer.whole), (200, true), "{tenant}");
        assert_eq!(answer.text(), String::from_utf8_lossy(&body), "{tenant}");
        assert_eq!(gateway.booked(tenant, 1).tokens(), (11, 7, 18), "{tenant}");
        assert_eq!(gateway.event(tenant)["outcome"], "completed", "{tenant}");
    }
}

#[test]
fn interim_answers_of_a_provider_are_no_answer() {
    let early = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    let answer = format!(
        "{early}HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{CHAT_ANSWER}",
        CHAT_ANSWER.len()
    );
    let provider = Provider::always(Script::raw(answer));
    let gateway = Setup::new(&provider).start();
    let answer = gateway.send(&chat("acme"));
    assert_eq!((answer.status, answer.text().as_str()), (200, CHAT_ANSWER));
    assert_eq!(gateway.booked("acme", 1).tokens(), (11, 7, 18));
}

#[test]
fn ambiguous_requests_are_refused_and_their_connection_closed() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let hidden = "GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer hidden\r\n\r\n";
    let length = format!("Content-Length: {}", CHAT_REQUEST.len());
    let chunked = "Transfer-Encoding: chunked";
    let mut rows: Vec<(String, Vec<u8>)> = [
        ("both", vec!["Host: x", &length, chunked]),
        ("length twice", vec!["Host: x", &length, &length]),
        ("two lengths", vec!["Host: x", &length, "Content-Length: 5"]),
        ("gzip, chunked", vec!["Host: x", "Transfer-Encoding: gzip, chunked"]),
        ("chunked, identity", vec!["Host: x", "Transfer-Encoding: chunked, identity"]),
        ("xchunked", vec!["Host: x", "Transfer-Encoding: xchunked"]),
        ("quoted", vec!["Host: x", "Transfer-Encoding: \"chunked\""]),
        ("chunked twice", vec!["Host: x", chunked, chunked]),
        ("no host", vec![&length]),
        ("two hosts", vec!["Host: x", "Host: y", &length]),
        ("folded", vec!["Host: x", "X-A: b\r\n c", &length]),
        ("space before colon", vec!["Host: x", "Content-Length : 5"]),
        ("no colon", vec!["Host: x", "nonsense", &length]),
        ("bare cr", vec!["Host: x", "X-A: b\rX-B: c", &length]),
        ("nul", vec!["Host: x", "X-A: b\0c", &length]),
    ]
    .into_iter()
    .map(|(name, headers)| (name.to_owned(), head(LINE, &[&[AUTH, JSON], headers.as_slice()].concat())))
    .collect();
    for value in ["+5", "-1", "0x5", "5;", "5, 5", "5,6", "", "5 5", "99999999999999999999", "1e1", "five"] {
        let length = format!("Content-Length: {value}");
        rows.push((format!("length {value:?}"), head(LINE, &["Host: x", AUTH, JSON, &length])));
    }
    for size in ["", "0x5", "+5", "-5", "5_0", "g", "fffffffffffffffff", " 5"] {
        let mut bytes = head(LINE, &["Host: x", AUTH, JSON, chunked]);
        bytes.extend_from_slice(format!("{size}\r\nhello\r\n0\r\n\r\n").as_bytes());
        rows.push((format!("chunk size {size:?}"), bytes));
    }
    for line in [
        "TRACE /v1/models HTTP/1.1",
        "CONNECT elsewhere.test:443 HTTP/1.1",
        "GET v1/models HTTP/1.1",
        "GET /v1/mod\0els HTTP/1.1",
        "GET /v1/mod\rels HTTP/1.1",
        "GET  /v1/models HTTP/1.1",
        "GET /v1/models HTTP/1.32",
        "GET /v1/models HTTP/3.0",
        "GET /v1/models",
    ] {
        rows.push((line.to_owned(), head(line, &["Host: x", AUTH])));
    }
    let mut wrong = Vec::new();
    for (name, bytes) in rows {
        let before = provider.count();
        let mut wire = Wire::open(gateway.proxy);
        wire.send(&bytes);
        // The rest may meet a connection that is closed already.
        drop(wire.try_send(format!("{CHAT_REQUEST}{hidden}").as_bytes()));
        let first = wire.answer().map(|answer| answer.status);
        let second = wire.answer().map(|answer| answer.status);
        // After a broken line nothing is served; after a body whose end is unclear the connection is closed as well.
        let goes_on = if name.contains(" HTTP/") || name.starts_with("GET ") {
            second.is_some_and(|status| status < 400)
        } else {
            second.is_some()
        };
        if first.is_some_and(|status| status < 400) || goes_on || provider.count() != before {
            wrong.push(format!("{name}: {first:?}, then {second:?}, {} sent upstream", provider.count() - before));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(gateway.usage("acme").calls(), 0);
    assert_eq!(gateway.send(&chat("acme")).status, 200);
}

#[test]
fn a_body_left_over_from_a_refusal_is_never_taken_for_a_request() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let hidden = Request::get("/v1/models").bearer("hidden").bytes();
    for (key, target) in [("NOT A KEY", CHAT), ("acme", "/v1/unknown")] {
        let mut wire = Wire::open(gateway.proxy);
        let request = Request::post(target, hidden.clone()).bearer(key);
        let first = wire.ask(&request);
        assert!(first.status >= 400, "{key}");
        assert_eq!(provider.count(), 0, "{key}: {:?}", provider.seen());
        if first.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            assert!(wire.is_closed_by_peer(), "{key}");
        } else {
            assert_eq!(wire.ask(&Request::get("/billing/limits").bearer("next")).json()["tenant_id"], "next", "{key}");
        }
    }
}

#[test]
fn a_large_head_is_refused_and_an_ordinary_one_is_not() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    assert_eq!(gateway.send(&chat("acme").header("X-Long", "x".repeat(8000))).status, 200);
    let before = provider.count();
    let mut many = chat("acme");
    for at in 0..20_000 {
        many = many.header(format!("X-{at}"), "y");
    }
    for request in [chat("acme").header("X-Long", "x".repeat(300_000)), many] {
        let mut wire = Wire::open(gateway.proxy);
        drop(wire.try_send(&request.bytes()));
        if let Some(answer) = wire.answer() {
            assert!(matches!(answer.status, 400 | 414 | 431), "{}", answer.status);
        }
        assert!(wire.is_closed_by_peer());
    }
    assert_eq!(provider.count(), before);
    assert_eq!(gateway.send(&chat("acme")).status, 200);
}

#[test]
fn a_head_that_drips_is_cut_off_in_time() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).set("TOLLGATE_HEADER_TIMEOUT", "1s").start();
    let mut drips: Vec<Wire> = (0..50).map(|_| Wire::open(gateway.proxy)).collect();
    let started = Instant::now();
    for wire in &mut drips {
        wire.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    }
    // One byte now and then keeps a timeout per read awake, but not one for the whole head.
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(200));
        for wire in &mut drips {
            drop(wire.try_send(b"x"));
        }
        assert_eq!(gateway.send(&chat("acme")).status, 200, "an ordinary call goes on");
    }
    for wire in &mut drips {
        wire.stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        if let Some(answer) = wire.answer() {
            assert!(matches!(answer.status, 400 | 408), "{}", answer.status);
        }
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn an_idle_connection_is_used_again() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let mut wire = Wire::open(gateway.proxy);
    for call in 0..20 {
        let request = if call % 2 == 0 { chat("acme") } else { chat_with("acme", CHAT_STREAM_REQUEST) };
        let answer = wire.ask(&request);
        assert_eq!((answer.status, answer.whole), (200, true), "call {call}");
    }
    assert_eq!(gateway.booked("acme", 20).tokens(), (220, 140, 360));
    assert!(provider.connections() < 20, "{} connections for 20 calls in turn", provider.connections());
}
