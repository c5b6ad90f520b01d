//! The provider breaks or says what is no HTTP: the client gets one clear answer, the chat is given back, and nothing of
//! what two parsers could read in two ways goes on to the client.

use std::net::TcpListener;
use std::time::Instant;

use super::*;

/// The head of a 200 with these lines, and a body.
fn ok(lines: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n{body}").into_bytes()
}

#[test]
fn what_is_no_answer_is_a_502_and_the_chat_is_given_back() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let long = |count: usize| "x".repeat(count);
    let many: String = (0..500).map(|at| format!("X-{at}: y\r\n")).collect();
    let forms: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("a body of HTTP/0.9", CHAT_ANSWER.into()),
        ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("TLS", b"\x15\x03\x01\x00\x02\x02\x46".to_vec()),
        ("half a status line", b"HTTP/1.1 20".to_vec()),
        ("half a head", b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()),
        ("HTTP/9.9", b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("a status of letters", b"HTTP/1.1 2xx OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("a status of two digits", b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("a status of 0", b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("a length of letters", ok("Content-Length: five\r\n", "hello")),
        ("a length and a letter", ok("Content-Length: 5x\r\n", "hello")),
        ("a length below 0", ok("Content-Length: -1\r\n", "hello")),
        ("a length with a sign", ok("Content-Length: +5\r\n", "hello")),
        ("a length beyond numbers", ok("Content-Length: 99999999999999999999\r\n", "hello")),
        ("two lengths", ok("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!")),
        ("a list of lengths", ok("Content-Length: 5, 6\r\n", "hello!")),
        ("no colon", ok("nonsense\r\nContent-Length: 5\r\n", "hello")),
        ("a space before the colon", ok("Content-Length : 5\r\n", "hello")),
        ("folded", ok("X: a\r\n b\r\nContent-Length: 5\r\n", "hello")),
        ("a bare CR", ok("X: a\rSet-Cookie: b\r\nContent-Length: 5\r\n", "hello")),
        ("a NUL", ok("X: a\0b\r\nContent-Length: 5\r\n", "hello")),
        ("a NUL in a name", ok("X\0: a\r\nContent-Length: 5\r\n", "hello")),
        ("a header of 1 MiB", ok(&format!("X: {}\r\nContent-Length: 5\r\n", long(1 << 20)), "hello")),
        ("500 headers", ok(&format!("{many}Content-Length: 5\r\n"), "hello")),
        ("a head without end", format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(100_000)).into_bytes()),
        ("another protocol, unasked", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nnoise".to_vec()),
    ];
    let count = forms.len();
    let mut wrong = Vec::new();
    for (at, (name, bytes)) in forms.into_iter().enumerate() {
        let tenant = format!("form-{at}");
        provider.now_does(move |_| Script::raw(bytes.clone()).then(Step::Close));
        let before = provider.count();
        let answer = gateway.send(&chat(&tenant));
        let text = answer.text();
        let is_told = answer.status == 502
            && serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|body| body["error"]["code"].is_string())
            && !text.contains("127.0.0.1")
            && answer.header("set-cookie").is_none();
        let asked = provider.count() - before;
        if !is_told || asked != 1 || gateway.chats(&tenant) != (0, 500) {
            wrong.push(format!("{name}: {} {text}, asked {asked} times", answer.status));
        }
        provider.now_does(honest);
        assert_eq!(gateway.send(&chat(&tenant)).status, 200, "{name}: the next call is fine");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    tell("D41", "answers that are no HTTP", count, "502 in JSON, asked once, the chat given back");
    tell("C31", "secrets in the words of a failure", count, "no address, path or key in any of them");
}

/// Answers that can be read, and not by everybody in the same way.
fn odd_answers() -> Vec<(&'static str, Vec<u8>)> {
    let length = format!("Content-Length: {}\r\n", CHAT_ANSWER.len());
    let chunk = format!("{:x}\r\n{CHAT_ANSWER}\r\n0\r\n\r\n", CHAT_ANSWER.len());
    let json = "Content-Type: application/json\r\n";
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(50);
    vec![
        ("a length twice", ok(&format!("{json}{length}{length}"), CHAT_ANSWER)),
        ("a list of the same length", {
            let count = CHAT_ANSWER.len();
            ok(&format!("{json}Content-Length: {count}, {count}\r\n"), CHAT_ANSWER)
        }),
        ("a length and chunks", ok(&format!("{json}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), &chunk)),
        ("chunks and a length", ok(&format!("{json}Transfer-Encoding: chunked\r\n{length}"), &chunk)),
        ("no reason", format!("HTTP/1.1 200\r\n{json}{length}\r\n{CHAT_ANSWER}").into_bytes()),
        ("fifty interim answers", [interim.into_bytes(), ok(&format!("{json}{length}"), CHAT_ANSWER)].concat()),
        (
            "connection headers",
            ok(
                &format!(
                    "{json}{length}Connection: x-hop, keep-alive\r\nX-Hop: hop-of\r\nKeep-Alive: hop-of\r\nUpgrade: hop-of\r\nProxy-Authenticate: hop-of\r\nTrailer: hop-of\r\n"
                ),
                CHAT_ANSWER,
            ),
        ),
        (
            "an answer behind the answer",
            ok(
                &format!("{json}{length}"),
                &format!("{CHAT_ANSWER}HTTP/1.1 200 OK\r\nX-Split: hop-of\r\nContent-Length: 0\r\n\r\n"),
            ),
        ),
        (
            "trailers that name framing",
            ok(
                &format!("{json}Transfer-Encoding: chunked\r\n"),
                &format!(
                    "{:x}\r\n{CHAT_ANSWER}\r\n0\r\nContent-Length: 3\r\nSet-Cookie: hop-of\r\n\r\n",
                    CHAT_ANSWER.len()
                ),
            ),
        ),
        ("ours", ok(&format!("{json}{length}x-tollgate-request-id: hop-of\r\nRateLimit: hop-of\r\n"), CHAT_ANSWER)),
    ]
}

#[test]
fn an_odd_answer_is_made_plain_before_it_goes_on() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let forms = odd_answers();
    let count = forms.len();
    let mut wrong = Vec::new();
    for (at, (name, bytes)) in forms.into_iter().enumerate() {
        let tenant = format!("odd-{at}");
        provider.now_does(move |_| Script::raw(bytes.clone()).then(Step::Close));
        let mut wire = Wire::open(gateway.proxy);
        wire.send(&chat(&tenant).bytes());
        let head = wire.head_of_answer("POST").unwrap_or_else(|| panic!("{name}: no answer"));
        let mut body = Vec::new();
        let whole = wire.rest(&mut body);
        let framings = |head: &Head| {
            head.headers
                .iter()
                .filter(|(name, _)| ["content-length", "transfer-encoding"].contains(&name.as_str()))
                .count()
        };
        let is_plain = head.status() == 200
            && framings(&head) == 1
            && head.headers.iter().all(|(_, value)| !value.contains("hop-of"))
            && (whole, body.as_slice()) == (true, CHAT_ANSWER.as_bytes());
        if !is_plain {
            wrong.push(format!("{name}: {head:?} {whole} {}", String::from_utf8_lossy(&body)));
        }
        provider.now_does(honest);
        // A call that goes out while its connection is being closed has no answer, and nobody could tell.
        assert!(provider.closed().wait_at_most(u64::try_from(at).unwrap() + 1, Duration::from_secs(10)), "{name}");
        // What came too much is nobody's next answer.
        wire.send(&chat(&tenant).bytes());
        assert_eq!(wire.answer().map(|answer| answer.text()).as_deref(), Some(CHAT_ANSWER), "{name}");
        assert_eq!(gateway.booked(&tenant, 2).tokens(), (22, 14, 36), "{name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    tell("D41", "answers whose framing is odd", count, "one framing, the whole body, booked exactly");
}

#[test]
fn chunks_that_are_none_are_a_break() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let head = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
    let size = format!("{:x}", CHAT_ANSWER.len());
    let forms = [
        ("no size", format!("\r\n{CHAT_ANSWER}\r\n0\r\n\r\n")),
        ("a size of letters", format!("xyz\r\n{CHAT_ANSWER}\r\n0\r\n\r\n")),
        ("a size below 0", format!("-{size}\r\n{CHAT_ANSWER}\r\n0\r\n\r\n")),
        ("a size beyond numbers", format!("fffffffffffffffff\r\n{CHAT_ANSWER}\r\n0\r\n\r\n")),
        ("too little", format!("{size}0\r\n{CHAT_ANSWER}\r\n0\r\n\r\n")),
        ("too much", format!("{size}\r\n{CHAT_ANSWER}more\r\n0\r\n\r\n")),
        ("no last chunk", format!("{size}\r\n{CHAT_ANSWER}\r\n")),
        ("half a chunk", format!("{size}\r\n{}", &CHAT_ANSWER[..40])),
    ];
    let count = forms.len();
    for (at, (name, body)) in forms.into_iter().enumerate() {
        let tenant = format!("chunks-{at}");
        let bytes = ok(head, &body);
        provider.now_does(move |_| Script::raw(bytes.clone()).then(Step::Close));
        let answer = gateway.send(&chat(&tenant));
        assert!(answer.status == 502 || !answer.whole, "{name}: looks whole: {} {}", answer.status, answer.text());
        let usage = gateway.booked(&tenant, 1);
        assert_eq!(usage.calls(), 1, "{name}");
        provider.now_does(honest);
        assert_eq!(gateway.send(&chat(&tenant)).status, 200, "{name}: the next call is fine");
    }
    tell("D41", "answers whose chunks are none", count, "a break that the client sees, booked once");
}

#[test]
fn a_provider_that_does_not_answer_is_given_up_in_time() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).set("TOLLGATE_UPSTREAM_TIMEOUT", "1s").start();
    let forms = [
        ("nothing", Script::default()),
        ("a status line", Script::raw("HTTP/1.1 200 OK\r\n")),
        ("interim answers alone", Script::raw("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n")),
        ("half a head", Script::raw("HTTP/1.1 200 OK\r\nContent-Le")),
    ];
    let count = forms.len();
    for (at, (name, script)) in forms.into_iter().enumerate() {
        let tenant = format!("hangs-{at}");
        provider.now_does(move |_| script.clone().then(Step::Hang));
        let began = Instant::now();
        assert_eq!(gateway.send(&chat(&tenant)).status, 504, "{name}");
        assert!(began.elapsed() < Duration::from_secs(4), "{name}: {:?}", began.elapsed());
        assert_eq!(gateway.chats(&tenant), (0, 500), "{name}");
    }
    tell(
        "D40",
        "a provider that hangs before the end of its head",
        count,
        "504 within the timeout and 3 s, the chat given back",
    );
}

#[test]
fn a_chat_that_the_provider_did_not_bill_is_given_back() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).set("TOLLGATE_UPSTREAM_TIMEOUT", "1s").start();
    let status = |status| Script::json(status, r#"{"error":{"message":"as the provider says"}}"#);
    let rows: [(&str, Script, u16, &str); 17] = [
        ("400", status(400), 400, "upstream_error"),
        ("401", status(401), 401, "upstream_error"),
        ("402", status(402), 402, "upstream_error"),
        ("404", status(404), 404, "upstream_error"),
        ("429", status(429), 429, "upstream_error"),
        ("500", status(500), 500, "upstream_error"),
        ("503", status(503), 503, "upstream_error"),
        ("529", status(529), 529, "upstream_error"),
        ("300", Script::answer(300, &[("Location", "http://127.0.0.1:9/elsewhere")], ""), 300, "completed"),
        ("301", Script::answer(301, &[("Location", "//127.0.0.1:9/elsewhere")], ""), 301, "completed"),
        ("307", Script::answer(307, &[("Location", "http://127.0.0.1:9/elsewhere")], ""), 307, "completed"),
        ("308", Script::answer(308, &[("Location", "/v1/elsewhere")], ""), 308, "completed"),
        ("204", Script::answer(204, &[], ""), 204, "completed"),
        ("302", Script::answer(302, &[("Location", "http://127.0.0.1:9/elsewhere")], ""), 302, "completed"),
        ("close", Script::default().then(Step::Close), 502, "no_answer"),
        ("reset", Script::default().then(Step::Reset), 502, "no_answer"),
        ("half-a-head-hang", Script::raw("HTTP/1.1 200 OK\r\nContent-Le").then(Step::Hang), 504, "no_answer"),
    ];
    for (tenant, script, expected, outcome) in rows {
        provider.now_does(move |_| script.clone());
        let before = provider.count();
        let answer = gateway.send(&chat(tenant));
        assert_eq!(answer.status, expected, "{tenant}: {}", answer.text());
        assert_eq!(provider.count(), before + 1, "{tenant}: asked once");
        if outcome == "upstream_error" {
            assert_eq!(answer.text(), r#"{"error":{"message":"as the provider says"}}"#, "{tenant}");
        }
        if outcome == "no_answer" {
            let error = answer.json()["error"].clone();
            assert!(error["message"].is_string() && error["code"].is_string(), "{tenant}: {error}");
            assert!(!answer.text().contains("127.0.0.1"), "{tenant}: {}", answer.text());
        }
        assert_eq!(gateway.chats(tenant), (0, 500), "{tenant}");
        let usage = gateway.booked(tenant, 1);
        let failed = u64::from(outcome != "completed");
        assert_eq!((usage.failed_requests, usage.requests, usage.chats), (failed, 1 - failed, 0), "{tenant}");
        assert_eq!((usage.tokens(), usage.cost(), usage.unpriced_requests), ((0, 0, 0), 0, 0), "{tenant}");
        assert_eq!(gateway.event(tenant)["outcome"], outcome, "{tenant}");
        // The next call is fine.
        provider.now_does(honest);
        assert_eq!(gateway.send(&chat(tenant)).status, 200, "{tenant}");
        assert_eq!(gateway.chats(tenant), (1, 499), "{tenant}");
    }
    tell("D44", "a provider that sends its client elsewhere", 5, "passed on, asked once, 0 connections elsewhere");
    tell("D45", "errors of a provider", 8, "passed on as they are, the chat given back");
}

#[test]
fn what_a_provider_says_besides_its_status_passes() {
    let provider = Provider::always(Script::answer(
        429,
        &[("Content-Type", "application/json"), ("Retry-After", "7"), ("x-ratelimit-remaining-requests", "0")],
        r#"{"error":{"code":429}}"#,
    ));
    let gateway = Setup::new(&provider).start();
    for request in [chat("acme"), gemini("acme")] {
        let answer = gateway.send(&request);
        assert_eq!((answer.status, answer.text().as_str()), (429, r#"{"error":{"code":429}}"#));
        assert_eq!(answer.header("retry-after").as_deref(), Some("7"));
        assert_eq!(answer.header("x-ratelimit-remaining-requests").as_deref(), Some("0"));
    }
    let redirect = Script::answer(302, &[("Location", "https://elsewhere.test/")], "");
    provider.now_does(move |_| redirect.clone());
    let answer = gateway.send(&chat("acme"));
    assert_eq!((answer.status, answer.header("location").as_deref()), (302, Some("https://elsewhere.test/")));
}

#[test]
fn a_provider_that_cannot_be_reached_is_a_502_in_each_dialect() {
    // A port that was free a moment ago refuses.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = Setup::at(&format!("http://{address}")).start();
    let answer = gateway.send(&chat("acme"));
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (502, &"upstream_unreachable".into()));
    let answer = gateway.send(&gemini("acme"));
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (502, &502.into()));
    assert!(!answer.text().contains(&address.port().to_string()), "{}", answer.text());
    assert_eq!(gateway.chats("acme"), (0, 500));
    let usage = gateway.booked("acme", 2);
    assert_eq!((usage.failed_requests, usage.requests, usage.tokens()), (2, 0, (0, 0, 0)));
}

#[test]
fn a_request_that_was_sent_whole_is_not_sent_again() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    // The first call leaves a connection in the pool, on which the second one meets the end.
    assert_eq!(gateway.send(&chat("acme")).status, 200);
    for ending in [Step::Close, Step::Reset] {
        provider.now_does(honest);
        assert_eq!(gateway.send(&chat("acme")).status, 200);
        let before = provider.count();
        provider.now_does(move |_| Script::default().then(ending.clone()));
        assert_eq!(gateway.send(&chat("acme")).status, 502);
        assert_eq!(provider.count(), before + 1);
    }
    tell("D42", "a provider that dies after a whole request", 2, "502, asked once");
}

#[test]
fn connections_that_the_provider_closed_while_idle_cost_no_call() {
    let provider = Provider::start(|seen| honest(seen).then(Step::Close));
    let gateway = Setup::new(&provider).start();
    for call in 1..=30 {
        let answer = gateway.send(&chat("acme"));
        assert_eq!((answer.status, answer.text().as_str()), (200, CHAT_ANSWER), "call {call}");
        // The next call comes when the provider has closed.
        assert!(provider.closed().wait(call), "call {call}");
    }
    assert_eq!(gateway.booked("acme", 30).tokens(), (330, 210, 540));
    tell("D43", "idle connections that the provider has closed", 30, "30 of 30 calls served");
}
