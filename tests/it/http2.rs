//! Clients of HTTP/2: the same contract, on streams of one connection.

use std::time::{Duration, Instant};

use super::support::bodies::*;
use super::support::front::{CERTIFICATE, KEY};
use super::support::http2::Http2;
use super::support::load::caught_up;
use super::support::*;

fn clear(provider: &Provider) -> Setup {
    Setup::new(provider).set("TOLLGATE_H2C", "true")
}

fn events_then_wait(gate: &Gate) -> Script {
    Script::open(&[("Content-Type", "text/event-stream")])
        .then(Step::Send(wire::chunk(&chat_event("one"))))
        .then(Step::Wait(gate.clone(), 1))
        .then(Step::Send(wire::chunk(&[chat_usage_event(), DONE.to_vec()].concat())))
        .then(Step::Send(wire::LAST_CHUNK.to_vec()))
}

#[test]
fn calls_of_all_kinds_go_at_once_over_one_connection() {
    let provider = Provider::start(honest);
    let tls = Setup::new(&provider).set("TOLLGATE_TLS_CERT", CERTIFICATE).set("TOLLGATE_TLS_KEY", KEY).start();
    let gateway = clear(&provider).start();
    for (mut client, name) in [(Http2::open_tls(tls.proxy), "tls"), (Http2::open(gateway.proxy), "clear")] {
        let kinds = [
            (chat("acme"), CHAT_ANSWER.as_bytes().to_vec()),
            (chat_with("acme", CHAT_USAGE_REQUEST), whole(&chat_events(3))),
            (gemini("acme"), GEMINI_ANSWER.into()),
            (gemini("acme").to(GEMINI_SSE), whole(&gemini_events(3))),
            (chat("acme").to("/v1/nothing"), Vec::new()),
        ];
        let requests: Vec<Request> = (0..50).map(|at| kinds[at % 5].0.clone()).collect();
        for (at, answer) in client.ask_all(&requests).into_iter().enumerate() {
            if at % 5 == 4 {
                assert_eq!(answer.status, 404, "{name} {at}");
                continue;
            }
            assert_eq!((answer.status, answer.whole), (200, true), "{name} {at}: {}", answer.text());
            assert_eq!(answer.text(), String::from_utf8_lossy(&kinds[at % 5].1), "{name} {at}");
            assert!(answer.header("x-tollgate-request-id").is_some() && answer.header("ratelimit").is_some());
            for name in ["connection", "transfer-encoding", "keep-alive"] {
                assert_eq!(answer.header(name), None);
            }
        }
        let limits = client.ask(&Request::get("/billing/limits").bearer("acme")).json();
        assert_eq!(limits["used"], 40, "{name}");
    }
    let usage = gateway.booked("acme", 40);
    assert_eq!(usage.tokens(), (440, 280, 720));
    // The head as the provider gets it is that of HTTP/1.1.
    for seen in provider.seen() {
        assert_eq!(seen.header("host"), Some(provider.address.to_string().as_str()));
        assert!(seen.headers.iter().all(|(name, _)| !name.starts_with(':')), "{:?}", seen.headers);
        assert_eq!(seen.header("content-length"), Some(seen.body.len().to_string().as_str()));
    }
}

#[test]
fn in_the_clear_it_is_spoken_only_where_that_was_asked_for() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let refused = match Http2::try_open(gateway.proxy) {
        Ok(mut client) => client.send(&chat("acme")).and_then(|stream| stream.answer()).is_err(),
        Err(_) => true,
    };
    assert!(refused);
    assert_eq!(provider.count(), 0);
    // Where it was, HTTP/1.1 is spoken too, however slowly it begins.
    let gateway = clear(&provider).start();
    let mut wire = Wire::open(gateway.proxy);
    let bytes = chat("acme").bytes();
    wire.send(&bytes[..1]);
    wire.send(&bytes[1..]);
    assert_eq!(wire.answer().expect("an answer").text(), CHAT_ANSWER);
    assert_eq!(wire.ask(&Request::get("/healthz").method("GET")).status, 200);
}

#[test]
fn an_event_is_passed_on_at_once() {
    let gate = Gate::default();
    let waits = gate.clone();
    let provider = Provider::start(move |_| events_then_wait(&waits));
    let gateway = clear(&provider).start();
    let mut client = Http2::open(gateway.proxy);
    let mut stream = client.send(&chat_with("acme", CHAT_USAGE_REQUEST)).unwrap();
    assert_eq!(stream.head().unwrap().status, 200);
    assert_eq!(stream.piece().unwrap().unwrap(), chat_event("one"));
    gate.pass();
    assert_eq!(stream.piece().unwrap().unwrap(), [chat_usage_event(), DONE.to_vec()].concat());
    assert_eq!(stream.piece().unwrap(), None);
    assert_eq!(gateway.booked("acme", 1).tokens(), (11, 7, 18));
    assert_eq!(gateway.event("acme")["outcome"], "completed");
}

#[test]
fn a_stream_that_is_reset_is_read_on_to_its_usage_and_its_siblings_go_on() {
    let gate = Gate::default();
    let waits = gate.clone();
    let provider = Provider::start(move |seen| match seen.json()["stream"].as_bool() {
        Some(true) => events_then_wait(&waits),
        _ => honest(seen),
    });
    let gateway = clear(&provider).start();
    let mut client = Http2::open(gateway.proxy);
    let mut stream = client.send(&chat_with("leaver", CHAT_USAGE_REQUEST)).unwrap();
    assert_eq!(stream.head().unwrap().status, 200);
    assert_eq!(stream.piece().unwrap().unwrap(), chat_event("one"));
    stream.reset();
    // The answer to what came after the reset shows that the reset was seen.
    assert_eq!(client.ask(&chat("acme")).text(), CHAT_ANSWER);
    gate.pass();
    let usage = gateway.booked("leaver", 1);
    assert_eq!((usage.tokens(), usage.chats, usage.estimated.requests), ((11, 7, 18), 1, 0));
    let event = gateway.event("leaver");
    assert_eq!((&event["outcome"], &event["usage_source"]), (&"client_left".into(), &"provider".into()));
    assert_eq!(gateway.event("acme")["outcome"], "completed");
}

#[test]
fn all_streams_of_a_connection_that_breaks_are_booked() {
    let gate = Gate::default();
    let waits = gate.clone();
    let provider = Provider::start(move |_| events_then_wait(&waits));
    let gateway = clear(&provider).start();
    let mut client = Http2::open(gateway.proxy);
    for _ in 0..20 {
        let mut stream = client.send(&chat_with("acme", CHAT_USAGE_REQUEST)).unwrap();
        assert_eq!(stream.head().unwrap().status, 200);
        // Dropped unread it would be reset, which is another test.
        std::mem::forget(stream);
    }
    client.cut();
    gate.pass();
    let usage = gateway.booked("acme", 20);
    assert_eq!((usage.tokens(), usage.chats, usage.estimated.requests), ((220, 140, 360), 20, 0));
}

#[test]
fn a_provider_that_breaks_off_is_seen_as_a_reset() {
    let provider = Provider::start(|_| {
        Script::open(&[("Content-Type", "text/event-stream")])
            .then(Step::Send(wire::chunk(&chat_event("one"))))
            .then(Step::Close)
    });
    let gateway = clear(&provider).start();
    let mut client = Http2::open(gateway.proxy);
    let answer = client.ask(&chat_with("acme", CHAT_USAGE_REQUEST));
    assert_eq!((answer.status, answer.whole), (200, false));
    assert_eq!(answer.body, chat_event("one"), "what came is not lost with the end");
    gateway.booked("acme", 1);
    assert_eq!(gateway.event("acme")["outcome"], "upstream_failed");
    assert_eq!(client.ask(&Request::get("/healthz")).status, 200);
}

#[test]
fn a_refusal_comes_while_the_body_is_on_its_way() {
    let provider = Provider::start(honest);
    let gateway = clear(&provider).config("[plans.starter]\nchats_per_month = 1").start();
    let mut client = Http2::open(gateway.proxy);
    assert_eq!(client.ask(&chat("acme")).status, 200);
    // Refused when it is whole, and when its key is read: before a byte of the body was.
    let long = format!(r#"{{"model":"gpt-4o-mini","messages":[],"user":"{}"}}"#, "x".repeat(20 << 20));
    assert_eq!(client.ask(&chat_with("acme", long.clone())).status, 402);
    let stranger = chat_with("NOT A KEY", long).header("content-length", (20 << 20).to_string());
    let mut stream = client.begin(&stranger, false).unwrap();
    assert_eq!(stream.head().unwrap().status, 401);
    assert!(stream.piece().unwrap().is_some());
    assert_eq!(stream.piece().unwrap(), None);
    stream.reset();
    let said = client.ask(&Request::post(CHAT, vec![b'x'; 70 << 20]).bearer("other"));
    assert_eq!(said.status, 413);
    assert_eq!(client.ask(&chat("other")).status, 200);
    assert_eq!(provider.count(), 2);
}

#[test]
fn a_body_that_falls_silent_is_given_up() {
    let provider = Provider::start(honest);
    let gateway = clear(&provider).set("TOLLGATE_BODY_TIMEOUT", "500ms").start();
    let mut client = Http2::open(gateway.proxy);
    let mut stream = client.begin(&chat("acme"), false).unwrap();
    stream.write(&b"{\"model\":"[..], false).unwrap();
    let status = stream.head().unwrap().status.as_u16();
    assert!((400..500).contains(&status), "{status}");
    stream.reset();
    assert_eq!(client.ask(&chat("acme")).status, 200);
    assert_eq!(provider.count(), 1);
}

#[test]
fn a_drain_says_go_away_and_lets_calls_end() {
    let gate = Gate::default();
    let waits = gate.clone();
    let provider = Provider::start(move |_| events_then_wait(&waits));
    let mut gateway = clear(&provider).start();
    let mut idle = Http2::open(gateway.proxy);
    assert_eq!(idle.ask(&Request::get("/healthz")).status, 200);
    let mut client = Http2::open(gateway.proxy);
    let mut stream = client.send(&chat_with("acme", CHAT_USAGE_REQUEST)).unwrap();
    assert_eq!(stream.head().unwrap().status, 200);
    gateway.signal("TERM");
    assert_eq!(idle.end().map_err(|error| error.to_string()), Ok(()));
    assert_eq!(stream.piece().unwrap().unwrap(), chat_event("one"));
    gate.pass();
    assert_eq!(stream.piece().unwrap().unwrap(), [chat_usage_event(), DONE.to_vec()].concat());
    assert_eq!(stream.piece().unwrap(), None);
    drop(stream);
    assert_eq!(client.end().map_err(|error| error.to_string()), Ok(()));
    assert!(gateway.ended().success());
}

#[test]
fn an_idle_connection_is_closed_in_time() {
    let provider = Provider::start(honest);
    let gateway = clear(&provider).set("TOLLGATE_KEEPALIVE_TIMEOUT", "500ms").start();
    let mut client = Http2::open(gateway.proxy);
    assert_eq!(client.ask(&chat("acme")).status, 200);
    let started = Instant::now();
    assert_eq!(client.end().map_err(|error| error.to_string()), Ok(()));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    // One that never asks, and one that never finishes its preface.
    let setup = clear(&provider).set("TOLLGATE_KEEPALIVE_TIMEOUT", "500ms").set("TOLLGATE_HEADER_TIMEOUT", "1s");
    let gateway = setup.start();
    let mut client = Http2::open(gateway.proxy);
    let mut half = Wire::open(gateway.proxy);
    half.send(b"PRI * HTTP/2.0\r\n");
    assert_eq!(client.end().map_err(|error| error.to_string()), Ok(()));
    half.answer();
    assert!(half.is_closed_by_peer());
}

#[test]
fn what_would_be_ambiguous_in_http_1_is_refused() {
    let provider = Provider::start(honest);
    let gateway = clear(&provider).start();
    let request = || http::Request::post(format!("https://gateway.test{CHAT}")).header("authorization", "Bearer acme");
    let rows = [
        ("two lengths", request().header("content-length", "5").header("content-length", "6")),
        ("a list", request().header("content-length", "5, 5")),
        ("no number", request().header("content-length", "+5")),
        ("another host", request().header("host", "elsewhere.test")),
        ("two hosts", request().header("host", "gateway.test").header("host", "gateway.test")),
        ("trace", request().method("TRACE")),
        ("connect", http::Request::connect("elsewhere.test:443").header("authorization", "Bearer acme")),
        ("star", http::Request::options("https://gateway.test").header("authorization", "Bearer acme")),
        ("a long head", request().header("x-long", "x".repeat(200_000))),
    ];
    for (name, head) in rows {
        let mut client = Http2::open(gateway.proxy);
        let mut head = head.body(()).unwrap();
        *head.version_mut() = http::Version::HTTP_2;
        let status = client.begin_with(head, false).and_then(|mut stream| {
            stream.write(CHAT_REQUEST, true)?;
            Ok(stream.head()?.status.as_u16())
        });
        assert!(status.as_ref().map_or(true, |status| (400..500).contains(status)), "{name}: {status:?}");
    }
    assert_eq!(provider.count(), 0);
    assert_eq!(gateway.send(&chat("acme")).status, 200);
}

#[test]
fn opening_and_resetting_without_end_makes_no_more_calls_than_streams() {
    let gate = Gate::default();
    let waits = gate.clone();
    let provider = Provider::start(move |_| events_then_wait(&waits));
    let gateway = clear(&provider).config("[plans.starter]\nchats_per_month = -1").start();
    let mut client = Http2::open(gateway.proxy);
    let mut opened = 0;
    for at in 0..2_000 {
        // Each is admitted and sent before it is reset: no reset comes too early to cost anything.
        let Ok(mut stream) = client.send(&chat_with("acme", CHAT_USAGE_REQUEST)) else { break };
        if at < 90 && stream.head().is_err() {
            break;
        }
        opened += 1;
        stream.reset();
    }
    assert!(opened >= 90, "{opened}");
    let until = Instant::now() + Duration::from_secs(10);
    while client.is_open() {
        assert!(Instant::now() < until, "the connection stays open after {opened} resets");
        std::thread::yield_now();
    }
    assert_eq!(Http2::open(gateway.proxy).ask(&Request::get("/healthz")).status, 200, "others are served");
    gate.pass();
    // Some are on their way to the provider when the connection ends.
    caught_up(&gateway);
    let calls = provider.count();
    assert!(calls <= 100, "{calls} calls at the provider of one connection");
    let usage = gateway.booked("acme", calls as u64);
    assert_eq!(usage.chats, calls as u64);
}

#[test]
fn the_address_of_an_upload_names_the_authority_and_a_piece_needs_no_length() {
    let address = "https://generativelanguage.googleapis.com/upload/v1beta/files?upload_id=1";
    let provider = Provider::always(Script::answer(200, &[("X-Goog-Upload-URL", address)], ""));
    let gateway = Setup::new(&provider).set("TOLLGATE_TLS_CERT", CERTIFICATE).set("TOLLGATE_TLS_KEY", KEY).start();
    let mut client = Http2::open_tls(gateway.proxy);
    let begin = Request::post("/upload/v1beta/files", "{}").google("acme").header("X-Goog-Upload-Command", "start");
    let told = client.ask(&begin).header("x-goog-upload-url").expect("an address");
    let target = told.strip_prefix("https://gateway.test").unwrap_or_else(|| panic!("{told}"));
    let piece = Request::post(target, "").header("X-Goog-Upload-Command", "upload, finalize");
    for (bytes, length) in [(1_000, Some("1000")), (2_000_000, None)] {
        let mut stream = client.begin(&piece, false).unwrap();
        let body: Vec<u8> = (0..bytes).map(|at: u32| at.to_le_bytes()[0]).collect();
        for part in body.chunks(70_000) {
            stream.write(part.to_vec(), false).unwrap();
        }
        stream.body.send_data(Vec::new().into(), true).unwrap();
        assert_eq!(stream.head().unwrap().status, 200);
        let seen = provider.last();
        assert!(seen.body == body, "{bytes}: {}", seen.body.len());
        assert_eq!(seen.header("content-length"), length);
    }
}

#[test]
fn a_stream_that_is_not_read_holds_up_itself_and_no_other() {
    let provider = Provider::start(|seen| match seen.json()["stream"].as_bool() {
        Some(true) => Script::open(&[("Content-Type", "text/event-stream")])
            .then(Step::SendForever(wire::chunk(&chat_event(&"word ".repeat(1_000))))),
        _ => honest(seen),
    });
    let setup = clear(&provider).set("TOLLGATE_WRITE_TIMEOUT", "1s").set("TOLLGATE_DRAIN_TIMEOUT", "0s");
    let gateway = setup.set("TOLLGATE_WORKERS", "1").start();
    let mut client = Http2::open(gateway.proxy);
    let mut unread = client.send(&chat_with("unread", CHAT_USAGE_REQUEST)).unwrap();
    assert_eq!(unread.head().unwrap().status, 200);
    std::mem::forget(unread);
    for _ in 0..20 {
        assert_eq!(client.ask(&chat("acme")).text(), CHAT_ANSWER);
    }
    assert_eq!(gateway.booked("unread", 1).estimated.requests, 1);
    assert_eq!(gateway.event("unread")["outcome"], "client_left");
    assert_eq!(client.ask(&chat("acme")).text(), CHAT_ANSWER, "the connection goes on");
}

#[test]
fn a_refusal_of_a_head_has_no_body() {
    let provider = Provider::start(honest);
    let gateway = clear(&provider).start();
    let mut client = Http2::open(gateway.proxy);
    for (key, target, status) in
        [("acme", "/v1/nothing", 404), ("NOT A KEY", "/v1/models", 401), ("acme", "/v1/embeddings", 405)]
    {
        let answer = client.ask(&Request::get(target).method("HEAD").bearer(key));
        assert_eq!((answer.status, answer.body.len()), (status, 0), "{target}");
    }
}

#[test]
fn a_client_that_keeps_up_is_not_cut_for_a_window_that_it_fills_slowly() {
    let length = 224 * 1024;
    let provider = Provider::start(move |_| Script::json(200, vec![b' '; length]));
    // A window is opened again when half of it, 32 KiB, was read: every second and a half, at 20 KiB a second.
    let setup = clear(&provider).set("TOLLGATE_WRITE_TIMEOUT", "2s").set("TOLLGATE_RATE_MIN", "16KiB");
    let gateway = setup.start();
    let mut client = Http2::open(gateway.proxy);
    let mut slow = client.send(&Request::get("/v1/models").bearer("acme")).unwrap();
    assert_eq!(slow.head().unwrap().status, 200);
    let (began, mut read) = (Instant::now(), 0);
    while let Some(piece) = slow.piece().expect("it is not cut") {
        read += piece.len();
        let due = began + Duration::from_millis(u64::try_from(read / 20).unwrap());
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    assert_eq!(read, length);
}

#[test]
fn a_client_that_waits_for_100_continue_does_not_wait_for_ever() {
    let provider = Provider::start(honest);
    let gateway = clear(&provider).start();
    let mut client = Http2::open(gateway.proxy);
    let with_length = |request: Request, body: &str| {
        let length = body.len().to_string();
        Request { body: None, ..request }.header("expect", "100-continue").header("content-length", length)
    };
    for (request, body) in [
        (chat("acme"), CHAT_REQUEST),
        (Request::post("/v1/files", "").bearer("acme"), "x"),
        (Request::post("/billing/plan", "").bearer("acme"), "{}"),
    ] {
        let began = Instant::now();
        let waits = client.begin(&with_length(request, body), false).unwrap();
        let answer = waits.answer().unwrap();
        assert_eq!(answer.status, 417, "{}", answer.text());
        // Those that wait for a while only have sent theirs by then.
        assert!(began.elapsed() > Duration::from_secs(2), "{:?}", began.elapsed());
    }
    assert_eq!(provider.count(), 0);
    let mut sends = client.begin(&with_length(chat("acme"), CHAT_REQUEST), false).unwrap();
    sends.write(CHAT_REQUEST, true).unwrap();
    assert_eq!(sends.answer().unwrap().text(), CHAT_ANSWER);
}

/// Takes nothing of what is sent to `/v1/files`, and answers what else it is asked.
fn takes_no_files() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut unread = Vec::new();
        for tcp in listener.incoming() {
            let mut wire = Wire::over(tcp.unwrap());
            let Some(head) = wire.head_of_request() else { continue };
            if head.first_line.contains("/v1/files") {
                unread.push(wire);
                continue;
            }
            let mut body = Vec::new();
            if wire.rest(&mut body) {
                let length = CHAT_ANSWER.len();
                let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
                wire.send(&[head.as_bytes(), CHAT_ANSWER.as_bytes()].concat());
            }
        }
    });
    address
}

#[test]
fn uploads_that_a_provider_does_not_take_hold_up_themselves_alone() {
    let gateway = Setup::at(&format!("http://{}", takes_no_files())).set("TOLLGATE_H2C", "true").start();
    let mut client = Http2::open(gateway.proxy);
    let large = bytes::Bytes::from(vec![b'x'; 32 << 20]);
    let upload = Request::get("/v1/files")
        .method("POST")
        .bearer("acme")
        .header("content-type", "multipart/form-data; boundary=x")
        .header("content-length", large.len().to_string());
    for _ in 0..3 {
        let mut stream = client.begin(&upload, false).unwrap();
        stream.body.send_data(large.clone(), true).unwrap();
        std::mem::forget(stream);
    }
    // Until everything on their way is full, and then some.
    let until = Instant::now() + Duration::from_secs(3);
    let mut calls = 0;
    while calls < 50 || Instant::now() < until {
        assert_eq!(client.ask(&chat("acme")).status, 200);
        calls += 1;
    }
}
