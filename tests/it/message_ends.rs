//! Where messages end: answers without a body, trailers, refusals while a body is on its way, interim answers.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::support::bodies::*;
use super::support::http2::Http2;
use super::support::*;

#[test]
fn answers_without_a_body_leave_their_connection_usable() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let mut wire = Wire::open(gateway.proxy);
    for (status, head) in [
        (204, "HTTP/1.1 204 No Content\r\n\r\n"),
        (204, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"),
        (304, "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n"),
        (304, "HTTP/1.1 304 Not Modified\r\nContent-Length: 999\r\n\r\n"),
        (200, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        (200, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ] {
        provider.now_does(move |_| Script::raw(head));
        let answer = wire.ask(&Request::get("/v1/files").bearer("acme"));
        assert_eq!((answer.status, answer.body.len(), answer.whole), (status, 0, true), "{head}");
        if status == 204 {
            let framing = (answer.header("content-length"), answer.header("transfer-encoding"));
            assert_eq!(framing, (None, None), "RFC 9110, 8.6: {head}");
        }
        assert_eq!(wire.ask(&Request::get("/billing/limits").bearer("acme")).json()["tenant_id"], "acme", "{head}");
    }
}

#[test]
fn a_provider_that_switches_protocols_unasked_has_failed() {
    let provider = Provider::always(Script::raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nnoise"));
    let gateway = Setup::new(&provider).start();
    let asked = chat("acme").header("Connection", "Upgrade").header("Upgrade", "websocket");
    for request in [chat("acme"), asked, Request::get("/v1/files").bearer("acme")] {
        let answer = gateway.send(&request);
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert!(provider.last().header("upgrade").is_none() && provider.last().header("connection").is_none());
    }
    assert_eq!(gateway.chats("acme").0, 0);
}

#[test]
fn trailers_of_a_provider_go_on_where_they_can_and_harm_nothing_elsewhere() {
    let trailers = b"0\r\nX-Checksum: abc\r\nContent-Length: 5\r\n\r\n";
    let provider = Provider::start(move |_| {
        Script::open(&[("Content-Type", "application/json"), ("Trailer", "X-Checksum")])
            .then(Step::Send(wire::chunk(CHAT_ANSWER.as_bytes())))
            .then(Step::Send(trailers.to_vec()))
    });
    let gateway = Setup::new(&provider).set("TOLLGATE_H2C", "true").set("TOLLGATE_WORKERS", "1").start();
    let mut wire = Wire::open(gateway.proxy);
    for _ in 0..2 {
        let answer = wire.ask(&chat("acme").header("TE", "trailers"));
        assert_eq!((answer.text().as_str(), answer.whole), (CHAT_ANSWER, true));
    }
    let mut client = Http2::open(gateway.proxy);
    let mut stream = client.send(&chat("acme").header("TE", "trailers")).unwrap();
    stream.head().unwrap();
    assert_eq!(stream.piece().unwrap().unwrap(), CHAT_ANSWER);
    assert_eq!(stream.piece().unwrap(), None);
    let got = stream.trailers().unwrap().expect("trailers");
    assert_eq!((got.len(), got["x-checksum"].to_str().unwrap()), (1, "abc"));
    assert_eq!(gateway.booked("acme", 3).tokens(), (33, 21, 54));
    assert_eq!(provider.connections(), 1, "a connection with trailers is used again");
    assert_eq!(provider.last().header("te"), None);
}

#[test]
fn whoever_waits_to_send_and_is_refused_need_not_send() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).set("TOLLGATE_BODY_LIMIT", "1KiB").start();
    let long = |key: &str| chat_with(key, vec![b'x'; 3_000_000]).header("Expect", "100-continue");
    for (request, status) in [(long("NOT A KEY"), 401), (long("acme"), 413), (long("acme").to("/v1/nothing"), 404)] {
        let mut wire = Wire::open(gateway.proxy);
        wire.send(&request.head_bytes());
        let head = wire.head_of_answer("POST").expect("an answer");
        assert_eq!(head.status(), status, "no 100 before it");
        let mut body = Vec::new();
        assert!(wire.rest(&mut body));
        // Whether the body comes now cannot be known: the connection carries nothing more.
        assert!(wire.is_closed_by_peer());
    }
    assert_eq!(provider.count(), 0);
}

/// Sends a body piece by piece, reading nothing, as clients do that write first and read then.
fn send_all_then_read(gateway: &Gateway, head: &[u8], piece: &[u8], times: usize) -> Option<Answer> {
    let mut wire = Wire::open(gateway.proxy);
    wire.send(head);
    for _ in 0..times {
        if wire.try_send(piece).is_err() {
            break;
        }
    }
    wire.answer()
}

#[test]
fn a_refusal_is_read_by_clients_that_send_their_20_mb_first() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).set("TOLLGATE_BODY_LIMIT", "1MiB").start();
    let piece = vec![b'x'; 64 * 1024];
    let chunk = wire::chunk(&piece);
    let rows = [("NOT A KEY", CHAT, 401), ("acme", "/v1/nothing", 404), ("acme", CHAT, 413)];
    for (key, target, status) in rows {
        let request = Request { body: None, ..chat(key).to(target) };
        let length = request.clone().header("Content-Length", (20 << 20).to_string());
        let answer = send_all_then_read(&gateway, &length.head_bytes(), &piece, 320).expect("the answer is not lost");
        assert_eq!((answer.status, answer.whole), (status, true), "by length");
        let chunked = request.header("Transfer-Encoding", "chunked");
        let answer = send_all_then_read(&gateway, &chunked.head_bytes(), &chunk, 320).expect("the answer is not lost");
        assert_eq!((answer.status, answer.whole), (status, true), "chunked");
    }
    // A body that fits is read before it is refused, and the connection goes on.
    let mut wire = Wire::open(gateway.proxy);
    let small = chat_with("NOT A KEY", vec![b'x'; 200_000]);
    assert_eq!(wire.ask(&small).status, 401);
    assert_eq!(wire.ask(&chat("acme")).status, 200);
}

#[test]
fn a_used_up_limit_is_told_after_20_mb_and_the_connection_goes_on() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).config("[plans.starter]\nchats_per_month = 1").start();
    let long = format!(r#"{{"model":"gpt-4o-mini","messages":[],"user":"{}"}}"#, "x".repeat(20 << 20));
    let mut wire = Wire::open(gateway.proxy);
    assert_eq!(wire.ask(&chat("acme")).status, 200);
    for request in [chat_with("acme", long), chat("acme")] {
        assert_eq!(wire.ask(&request).status, 402);
    }
    assert_eq!(wire.ask(&Request::get("/billing/limits").bearer("acme")).json()["used"], 1);
    assert_eq!(provider.count(), 1);
}

#[test]
fn chunks_of_an_upload_go_on_while_more_are_to_come() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let gateway = Setup::at(&url).set("TOLLGATE_WORKERS", "1").start();
    let mut wire = Wire::open(gateway.proxy);
    let request = Request { body: None, ..Request::post("/v1/files", "") }.bearer("acme");
    let request = request.header("Transfer-Encoding", "chunked");
    let (first, rest) = (vec![b'a'; 200_000], vec![b'b'; 300_000]);
    wire.send(&request.head_bytes());
    wire.send(&wire::chunk(&first));
    let mut upstream = Wire::over(listener.accept().unwrap().0);
    assert_eq!(upstream.head_of_request().unwrap().header("transfer-encoding").as_deref(), Some("chunked"));
    let mut got = Vec::new();
    while got.len() < first.len() {
        let Piece::Bytes(bytes) = upstream.piece() else { panic!("an end after {} bytes", got.len()) };
        got.extend_from_slice(&bytes);
    }
    assert!(got == first);
    wire.send(&wire::chunk(&rest));
    wire.send(wire::LAST_CHUNK);
    let mut got = Vec::new();
    assert!(upstream.rest(&mut got) && got == rest);
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    assert_eq!(wire.answer().expect("an answer").text(), "{}");

    // One that breaks off does not look complete.
    let mut wire = Wire::open(gateway.proxy);
    wire.send(&request.head_bytes());
    wire.send(&wire::chunk(&first));
    // The connection of before is used again.
    upstream.head_of_request().unwrap();
    wire.reset();
    let mut got = Vec::new();
    assert!(!upstream.rest(&mut got) && got.len() <= first.len());
}

#[test]
fn an_upload_may_take_longer_than_a_head_as_long_as_it_moves() {
    let provider = Provider::always(Script::json(200, "{}"));
    let gateway = Setup::new(&provider).set("TOLLGATE_UPSTREAM_TIMEOUT", "1s").start();
    let piece = vec![b'x'; 100_000];
    for (bytes, times) in [(100_000, 8), (100, 8)] {
        let mut wire = Wire::open(gateway.proxy);
        let request = Request { body: None, ..Request::post("/v1/files", "") }.bearer("acme");
        wire.send(&request.header("Content-Length", (bytes * times).to_string()).head_bytes());
        for _ in 0..times {
            wire.send(&piece[..bytes]);
            std::thread::sleep(Duration::from_millis(300));
        }
        assert_eq!(wire.answer().expect("an answer").status, 200, "{bytes} bytes at a time");
    }
}

#[test]
fn a_provider_has_its_whole_time_from_the_end_of_a_slow_upload() {
    let provider = Provider::always(Script::json(200, "{}").after(Step::Pause(Duration::from_millis(1_400))));
    let gateway = Setup::new(&provider).set("TOLLGATE_UPSTREAM_TIMEOUT", "2s").start();
    let upload = || {
        let mut wire = Wire::open(gateway.proxy);
        let request = Request { body: None, ..Request::post("/v1/files", "") }.bearer("acme");
        wire.send(&request.header("Content-Length", "900").head_bytes());
        for _ in 0..9 {
            wire.send(&[b'x'; 100]);
            std::thread::sleep(Duration::from_millis(300));
        }
        (wire.answer().expect("an answer").status, Instant::now())
    };
    assert_eq!(upload().0, 200, "its end was the last that moved");
    // One that never answers is given up as soon after it.
    provider.now_does(|_| Script::default().then(Step::Hang));
    let began = Instant::now();
    let (status, answered) = upload();
    assert_eq!(status, 504);
    let took = (answered - began).as_millis();
    assert!((4_200..9_000).contains(&took), "{took} ms");
}

#[test]
fn an_upload_that_a_provider_takes_too_slowly_is_over_in_time_as_well() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let gateway = Setup::at(&url).set("TOLLGATE_REQUEST_TIMEOUT", "2s").set("TOLLGATE_UPSTREAM_TIMEOUT", "20s").start();
    let mut wire = Wire::open(gateway.proxy);
    let request = Request { body: None, ..Request::post("/v1/files", "") }.bearer("acme");
    wire.send(&request.header("Content-Length", "400000000").head_bytes());
    let mut more = wire.stream.try_clone().unwrap();
    let sends = std::thread::spawn(move || while more.write_all(&[b'x'; 100_000]).is_ok() {});
    let mut upstream = listener.accept().unwrap().0;
    let began = Instant::now();
    let reads = std::thread::spawn(move || {
        while upstream.read(&mut [0; 100_000]).is_ok_and(|count| count > 0) && began.elapsed() < Duration::from_secs(15)
        {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let answer = wire.answer();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(answer.map(|answer| answer.status), Some(408));
    drop((wire, gateway));
    sends.join().unwrap();
    reads.join().unwrap();
}

#[test]
fn an_early_answer_of_a_provider_is_read_by_clients_that_send_their_20_mb_first() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let gateway = Setup::at(&url).start();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming().map_while(Result::ok) {
            let mut wire = Wire::over(stream);
            let chunks = wire.head_of_request().is_some_and(|head| head.first_line.contains("chunks"));
            wire.send(if chunks {
                b"HTTP/1.1 413 Too Large\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
            } else {
                b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}"
            });
            // What it does not read it does not end either.
            kept.push(wire);
        }
    });
    let piece = vec![b'x'; 64 * 1024];
    let chunk = wire::chunk(&piece);
    for target in ["/v1/files", "/v1/files?chunks"] {
        let request = Request { body: None, ..Request::post(target, "") }.bearer("acme");
        let length = request.clone().header("Content-Length", (20 << 20).to_string());
        let chunked = request.header("Transfer-Encoding", "chunked");
        for (name, head, piece) in [("by length", length, &piece), ("chunked", chunked, &chunk)] {
            let mut wire = Wire::open(gateway.proxy);
            wire.send(&head.head_bytes());
            for at in 0..320 {
                wire.try_send(piece).unwrap_or_else(|error| panic!("{target} {name}: cut at {at} of 320: {error}"));
            }
            let answer = wire.answer().expect("the answer is not lost");
            let told = (answer.status, answer.text(), answer.whole, answer.header("connection"));
            assert_eq!(told, (413, "{}".into(), true, Some("close".into())), "{target} {name}");
        }
    }
}

#[test]
fn what_comes_long_after_a_refused_upgrade_is_no_request() {
    let gate = Gate::default();
    let waits = gate.clone();
    let provider = Provider::start(move |seen| honest(seen).after(Step::Wait(waits.clone(), 1)));
    let gateway = Setup::new(&provider).start();
    let mut wire = Wire::open(gateway.proxy);
    let asked = chat("acme").header("Connection", "Upgrade, HTTP2-Settings").header("Upgrade", "h2c");
    wire.send(&asked.header("HTTP2-Settings", "AAMAAABkAAQAAP__").bytes());
    provider.demand_count(1);
    wire.send(&Request::get("/v1/models?canary").bearer("acme").bytes());
    gate.pass();
    let answer = wire.answer().expect("an answer");
    assert_eq!((answer.status, answer.header("connection").as_deref()), (200, Some("close")));
    // Nor is what comes when the answer was read.
    wire.try_send(&Request::get("/v1/models?canary").bearer("acme").bytes()).unwrap_or_default();
    assert!(wire.is_closed_by_peer());
    assert_eq!(provider.count(), 1, "{:?}", provider.seen());
}

#[test]
fn a_provider_that_sends_interim_answers_without_end_has_failed() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    let provider = Provider::always(Script(vec![Step::SendForever(interim.repeat(500).into_bytes())]));
    let gateway = Setup::new(&provider).set("TOLLGATE_UPSTREAM_TIMEOUT", "60s").start();
    let began = Instant::now();
    assert_eq!(gateway.send(&chat("acme")).status, 502);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(provider.closed().wait(1), "and its connection is over");
    assert_eq!(gateway.chats("acme").0, 0);
    // A few are none too many, and the next request has as many again.
    let some = interim.repeat(200) + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    provider.now_does(move |_| Script::raw(some.clone()));
    for _ in 0..2 {
        assert_eq!(gateway.send(&Request::get("/v1/models").bearer("acme")).status, 200);
    }
}

#[test]
fn a_client_that_never_stops_sending_is_given_up() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let mut wire = Wire::open(gateway.proxy);
    let request = Request { body: None, ..chat("NOT A KEY") }.header("Transfer-Encoding", "chunked");
    wire.send(&request.head_bytes());
    let (started, chunk) = (Instant::now(), wire::chunk(&[b'x'; 64 * 1024]));
    while wire.try_send(&chunk).is_ok() {
        assert!(started.elapsed() < Duration::from_secs(30), "it is read without end");
    }
    assert_eq!(provider.count(), 0);
}
