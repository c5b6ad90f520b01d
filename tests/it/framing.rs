//! HTTP as clients and providers really speak it, and as attackers do.

use std::io::{Read, Write};
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

const JSON: &str = "Content-Type: application/json";

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
    // It is no answer before the end of a request: the connection goes on.
    assert_eq!(answer.header("connection").as_deref(), Some("keep-alive"));
    assert_eq!(wire.ask(&chat("acme")).status, 200);
    assert_eq!(gateway.booked("acme", 2).tokens(), (22, 14, 36));
}

#[test]
fn an_answer_that_broke_off_does_not_look_whole_to_a_client_of_http_1_0() {
    let provider = Provider::start(|seen| {
        let begun =
            Script::open(&[("Content-Type", "text/event-stream")]).then(Step::Send(wire::chunk(&chat_event("one"))));
        let is_whole = seen.everything().contains("\"whole\"");
        if is_whole { begun.then(Step::Send(wire::LAST_CHUNK.to_vec())) } else { begun.then(Step::Close) }
    });
    let gateway = Setup::new(&provider).start();
    for (user, is_reset) in [("whole", false), ("broken", true)] {
        let body = CHAT_USAGE_REQUEST.replacen('{', &format!(r#"{{"user":"{user}","#), 1);
        let length = format!("Content-Length: {}", body.len());
        let auth = "Authorization: Bearer acme";
        let (mut tcp, _) = Wire::open(gateway.proxy).into_parts();
        let head =
            head("POST /v1/chat/completions HTTP/1.0", &["Host: x", auth, JSON, &length, "Connection: keep-alive"]);
        tcp.write_all(&[head, body.into_bytes()].concat()).unwrap();
        let mut answer = Vec::new();
        let end = tcp.read_to_end(&mut answer);
        assert_eq!(end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset), is_reset, "{user}");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(is_reset || answer.to_ascii_lowercase().contains("connection: close\r\n"), "{answer}");
    }
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it_from_the_gateways_own_routes() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let mut wire = Wire::open(gateway.proxy);
    let request = Request::post("/billing/plan", "{}").bearer("acme").header("Expect", "100-continue");
    wire.send(&request.head_bytes());
    assert_eq!(wire.head_of_answer("POST").expect("an interim answer").status(), 100);
    wire.send(b"{}");
    assert!((400..500).contains(&wire.answer().expect("an answer").status));
    let long = Request { body: None, ..request }.header("Content-Length", "1000000");
    let mut wire = Wire::open(gateway.proxy);
    wire.send(&long.head_bytes());
    assert_eq!(wire.answer().expect("an answer in place of an interim one").status, 413);
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
