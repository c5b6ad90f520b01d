//! Each limit towards clients by itself: what it refuses, how it says so, where it is counted, and what it leaves alone.

use std::io::Read;

use super::super::support::front::{CERTIFICATE, KEY};
use super::super::support::machine::until;
use super::super::support::provider::Seen;
use super::super::support::websocket::{self, Peer, Sessions, handshake};
use super::*;

fn unlimited(provider: &Provider) -> Setup {
    Setup::new(provider).config("[plans.starter]\nchats_per_month = -1")
}

/// A connection that was served once.
fn open(gateway: &Gateway) -> Wire {
    let mut wire = Wire::open(gateway.proxy);
    assert_eq!(wire.ask(&Request::get("/healthz")).status, 200);
    wire
}

fn turned_away(gateway: &Gateway) {
    let mut wire = Wire::open(gateway.proxy);
    let sent = wire.try_send(&chat("acme").bytes());
    let answer = wire.answer().unwrap_or_else(|| panic!("it is told why: {sent:?}"));
    assert_eq!((answer.status, answer.header("retry-after").as_deref()), (503, Some("1")));
    assert_eq!(answer.json()["error"]["code"], "too_many_connections");
    assert!(wire.is_closed_by_peer());
}

#[test]
fn one_connection_too_many_is_told_so_and_has_its_place_when_another_goes() {
    let provider = Provider::start(honest);
    for (variable, limit, balancers) in [
        ("TOLLGATE_CONNECTIONS_MAX", "connections", "127.0.0.0/8"),
        ("TOLLGATE_CONNECTIONS_PER_ADDRESS", "connections_per_address", "none"),
    ] {
        let gateway = unlimited(&provider).set(variable, "5").set("TOLLGATE_BALANCERS", balancers).start();
        let mut wires: Vec<_> = (0..5).map(|_| open(&gateway)).collect();
        for refused in 1..=3 {
            turned_away(&gateway);
            assert_eq!(reached(&gateway, limit), refused, "{limit}");
        }
        assert_eq!(wires[0].ask(&chat("acme")).status, 200, "{limit}");
        drop(wires.pop());
        until("a place is free", Duration::from_secs(10), || {
            let mut wire = Wire::open(gateway.proxy);
            wire.try_send(&Request::get("/healthz").bytes()).is_ok()
                && wire.answer().is_some_and(|answer| answer.status == 200)
        });
    }
    assert_eq!(provider.count(), 2);
    // An address of a balancer has no limit of its own.
    let gateway = unlimited(&provider).set("TOLLGATE_CONNECTIONS_PER_ADDRESS", "5").start();
    let wires: Vec<_> = (0..20).map(|_| open(&gateway)).collect();
    assert_eq!((wires.len(), reached(&gateway, "connections_per_address")), (20, 0));
    tell("A15", "a connection beyond the limit", 6, "503, and a place when another goes");
}

#[test]
fn over_tls_one_too_many_is_closed_before_a_handshake() {
    let provider = Provider::start(honest);
    let setup = unlimited(&provider).set("TOLLGATE_TLS_CERT", CERTIFICATE).set("TOLLGATE_TLS_KEY", KEY);
    let gateway = setup.set("TOLLGATE_CONNECTIONS_MAX", "1").set("TOLLGATE_HEADER_TIMEOUT", "1s").start();
    let mut first = Wire::open(gateway.proxy);
    let mut second = Wire::open(gateway.proxy);
    assert!(second.is_closed_by_peer());
    assert_eq!(reached(&gateway, "connections"), 1);
    // Who never shakes hands has as long for it as for a head.
    assert!(first.is_closed_by_peer());
    // It is counted when the connection is gone.
    until("it is counted", Duration::from_secs(5), || reached(&gateway, "head_time") == 1);
}

#[test]
fn a_tenant_has_so_many_requests_at_once_and_its_neighbour_as_many() {
    let gate = Gate::default();
    let waits = gate.clone();
    let provider = Provider::start(move |seen| match seen.target.as_str() {
        "/v1/models" => Script::json(200, "{}").after(Step::Wait(waits.clone(), 1)),
        _ => honest(seen).after(Step::Wait(waits.clone(), 1)),
    });
    let gateway = unlimited(&provider).set("TOLLGATE_REQUESTS_PER_TENANT", "3").start();
    let ask = |request: Request| {
        let mut wire = Wire::open(gateway.proxy);
        wire.send(&request.bytes());
        wire
    };
    // What is free counts as what is billed, since a place is what it takes.
    let models = Request::get("/v1/models").bearer("acme");
    let mut wires = vec![ask(chat("acme")), ask(gemini("acme")), ask(models.clone())];
    until("they are at the provider", Duration::from_secs(10), || provider.count() == 3);
    for request in [chat("acme"), models] {
        let answer = gateway.send(&request);
        assert_eq!((answer.status, answer.header("retry-after").as_deref()), (429, Some("1")));
        assert_eq!(answer.json()["error"]["code"], "too_many_requests");
    }
    wires.push(ask(chat("other")));
    until("the neighbour is there, too", Duration::from_secs(10), || provider.count() == 4);
    gate.pass();
    for wire in &mut wires {
        assert_eq!(wire.answer().expect("an answer").status, 200);
    }
    assert_eq!(gateway.send(&chat("acme")).status, 200, "its places are free");
    assert_eq!(reached(&gateway, "requests_per_tenant"), 2);
    assert_eq!(gateway.booked("acme", 3).chats, 3);
}

#[test]
fn a_session_is_a_request_for_as_long_as_it_lasts() {
    let provider = Sessions::start(|_: &Seen, mut peer: Peer| while peer.hear().is_some() {});
    let setup = Setup::at(&provider.url()).set("TOLLGATE_REQUESTS_PER_TENANT", "1");
    let gateway = setup.set("TOLLGATE_STREAM_TIMEOUT", "2s").start();
    let open = || websocket::open(gateway.proxy, &handshake("/v1/realtime?model=gpt-realtime").bearer("acme")).ok();
    let session = open().expect("a session");
    let answer = gateway.send(&Request::get("/v1/models").bearer("acme"));
    assert_eq!(answer.status, 429, "{}", answer.text());
    drop(session);
    let mut next = None;
    until("its place is free", Duration::from_secs(10), || {
        next = open();
        next.is_some()
    });
    // And it lasts so long.
    let (code, reason) = next.and_then(|(mut session, _)| session.closed()).expect("a close frame");
    assert_eq!((code, reason.as_str()), (1001, "The session lasted as long as one may."));
    assert_eq!(reached(&gateway, "stream_time"), 1);
}

#[test]
fn wrong_keys_are_slowed_down_by_address_and_right_ones_never() {
    let provider = Provider::start(honest);
    let gateway = unlimited(&provider).prod().set("TOLLGATE_FAILED_KEYS_PER_MINUTE", "10").start();
    let key = gateway.issue("acme", "starter");
    // The right form, and the right checksum: minted by nobody.
    let unknown = tollgate::domain::key::mint([9; 32]);
    let from = |address: &str, key: &str| chat(key).header("X-Forwarded-For", format!("198.51.100.9, {address}"));
    for attempt in 0..30 {
        let answer = gateway.send(&from("192.0.2.1", if attempt % 2 == 0 { "wrong" } else { &unknown }));
        let expected = if attempt < 10 { (401, "invalid_api_key") } else { (429, "too_many_failed_keys") };
        let code = answer.json()["error"]["code"].as_str().unwrap().to_owned();
        assert_eq!((answer.status, code.as_str()), expected, "{attempt}");
        assert_eq!(answer.header("retry-after").is_some(), attempt >= 10);
    }
    assert_eq!(gateway.send(&from("192.0.2.1", &key)).status, 200, "who has a key is not held up by a neighbour");
    assert_eq!(gateway.send(&from("192.0.2.2", "wrong")).status, 401, "nor is another address");
    assert_eq!(gateway.send(&chat("wrong")).status, 401, "nor one that is not known");
    let limits = |key: &str| Request::get("/billing/limits").bearer(key).header("X-Forwarded-For", "192.0.2.1");
    assert_eq!(gateway.send(&limits("wrong")).status, 429, "billing is no way round");
    assert_eq!(gateway.send(&limits(&key)).status, 200);
    assert_eq!(reached(&gateway, "failed_keys"), 21);
    // A key that is made while its address is held up works as soon as the gateway knows of it, which made it.
    let fresh = gateway.issue("fresh", "starter");
    assert_eq!(gateway.send(&from("192.0.2.1", &fresh)).status, 200);
    assert_eq!(gateway.booked(&key, 1).chats, 1);
}

#[test]
fn the_admin_key_is_guessed_no_faster() {
    let provider = Provider::start(honest);
    let gateway = unlimited(&provider).prod().set("TOLLGATE_FAILED_KEYS_PER_MINUTE", "10").start();
    let key = gateway.issue("acme", "starter");
    let tenants = |key: &str| Request::get("/admin/tenants").bearer(key).send(gateway.admin).status;
    let guesses: Vec<u16> = (0..15).map(|guess| tenants(&format!("a-guess-of-the-admin-key-{guess:016}"))).collect();
    assert_eq!(guesses, [[401; 10].as_slice(), &[429; 5]].concat());
    assert_eq!(reached(&gateway, "failed_keys"), 5);
    // Beyond the limit not even the right one is compared, or a guess would cost nothing.
    assert_eq!(tenants(super::super::support::gateway::ADMIN_KEY), 429);
    // Tenants are known by their keys, and the proxy listener is another door.
    assert_eq!(Request::get("/billing/limits").bearer(&key).send(gateway.admin).status, 200);
    assert_eq!(gateway.send(&chat(&key)).status, 200);
    until("the bucket fills", Duration::from_secs(15), || tenants(super::super::support::gateway::ADMIN_KEY) == 200);
}

#[test]
fn wrong_keys_of_an_app_locked_out_the_admin_who_had_its_address() {
    let provider = Provider::start(honest);
    let gateway = unlimited(&provider).prod().set("TOLLGATE_FAILED_KEYS_PER_MINUTE", "10").start();
    let wrong = |target: &str| Request::get(target).bearer("wrong").header("X-Forwarded-For", "192.0.2.1");
    // At the other listener, by a balancer's word for it, and on behalf of another address than the admin's own.
    for _ in 0..20 {
        gateway.send(&wrong("/billing/limits"));
    }
    assert_eq!(gateway.send(&wrong("/billing/limits")).status, 429);
    let admin = Request::get("/admin/tenants").bearer(super::super::support::gateway::ADMIN_KEY);
    let admin = admin.header("X-Forwarded-For", "192.0.2.1");
    assert_eq!(admin.send(gateway.admin).status, 200);
}

#[test]
fn heads_have_a_limit_of_bytes_and_of_number() {
    let provider = Provider::start(honest);
    let gateway = unlimited(&provider).set("TOLLGATE_HEAD_LIMIT", "16KiB").set("TOLLGATE_HEADERS_MAX", "40").start();
    let with = |count: usize, bytes: usize| {
        (0..count).fold(chat("acme"), |request, number| request.header(format!("X-{number}"), "x".repeat(bytes)))
    };
    for (request, status) in [(with(30, 8), 200), (with(60, 8), 431), (with(3, 5_000), 200), (with(4, 5_000), 431)] {
        let mut wire = Wire::open(gateway.proxy);
        assert_eq!(wire.ask(&request).status, status);
        assert!(status == 200 || wire.is_closed_by_peer());
    }
    assert_eq!((reached(&gateway, "head"), provider.count()), (2, 2));
}

#[test]
fn unfinished_heads_were_in_no_budget() {
    let provider = Provider::start(honest);
    let gateway = unlimited(&provider).set("TOLLGATE_BODY_LIMIT", "1MiB").set("TOLLGATE_BUFFER_TOTAL", "1MiB").start();
    let long = chat("acme").header("X-Long", "x".repeat(40_000)).bytes();
    let ends = long.len() - 100;
    let begin = || {
        let mut wire = Wire::open(gateway.proxy);
        wire.send(&long[..30_000]);
        wire
    };
    // Each has room for 32 KiB, so that there are 32 at most.
    let mut heads: Vec<Wire> = (0..32).map(|_| begin()).collect();
    let mut refused = None;
    until("no more heads fit", Duration::from_secs(10), || {
        let mut wire = begin();
        wire.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        refused = wire.answer();
        heads.push(wire);
        refused.is_some()
    });
    let answer = refused.unwrap();
    let code = answer.json()["error"]["code"].as_str().unwrap().to_owned();
    assert_eq!((answer.status, code.as_str(), answer.header("retry-after").is_some()), (503, "buffers_full", true));
    assert!(heads.len() <= 34, "{} heads", heads.len());
    assert_eq!(gateway.send(&chat("acme")).status, 503, "nor bodies");
    drop(heads);
    until("there is room again", Duration::from_secs(10), || {
        Wire::open(gateway.proxy).ask(&chat("acme")).status == 200
    });
    let mut whole = Wire::open(gateway.proxy);
    whole.send(&long[..ends]);
    whole.send(&long[ends..]);
    assert_eq!(whole.answer().unwrap().status, 200);
}

#[test]
fn bodies_that_were_only_announced_took_the_common_budget() {
    let provider = Provider::start(honest);
    let gateway = unlimited(&provider).set("TOLLGATE_BODY_LIMIT", "1MiB").set("TOLLGATE_BUFFER_TOTAL", "1MiB").start();
    let announce = |request: Request, bytes: usize| {
        let mut wire = Wire::open(gateway.proxy);
        let request = Request { body: None, ..request }.header("Content-Length", bytes.to_string());
        wire.send(&request.header("Expect", "100-continue").bytes());
        // Asked for the body, it is read from here on.
        let head = wire.head_of_answer("POST").expect("a word");
        assert_eq!(head.status(), 100, "{bytes} bytes are asked for");
        wire
    };
    // Of strangers, who are asked for no key before that, and of tenants. Pieces of which nobody knows when more comes.
    let strangers: Vec<Wire> = (0..32).map(|_| announce(Request::post("/billing/x", ""), 65_536)).collect();
    assert_eq!(gateway.send(&chat("acme")).status, 200, "beside strangers");
    let mut tenants: Vec<Wire> = (0..8).map(|_| announce(chat("slow"), 1 << 20)).collect();
    for wire in &mut tenants {
        wire.send(b"{");
        wire.send(b" ");
    }
    assert_eq!(gateway.send(&chat("acme")).status, 200, "beside tenants");
    drop((strangers, tenants));
    // What strangers do send counts by itself.
    let mut strangers = Vec::new();
    until("no more of the gateway's own bodies fit", Duration::from_secs(30), || {
        let mut wire = Wire::open(gateway.proxy);
        wire.send(&Request { body: None, ..Request::post("/billing/x", "").header("Content-Length", "65536") }.bytes());
        wire.send(&[b'x'; 65_535]);
        strangers.push(wire);
        strangers.len() >= 64 && reached(&gateway, "buffers") > 0
    });
    assert_eq!(gateway.send(&chat("acme")).status, 200, "beside bodies of strangers");
    assert_eq!(gateway.send(&Request::get("/billing/limits").bearer("acme")).status, 200);
    drop(strangers);
    let plan = Request::post("/billing/plan", r#"{"tenant_id":"acme","plan":"starter"}"#).bearer("acme");
    until("there is room again", Duration::from_secs(30), || gateway.send(&plan).status == 200);
}

#[test]
fn a_body_has_a_pace_and_an_end() {
    let provider = Provider::start(honest);
    let gateway = unlimited(&provider)
        .set("TOLLGATE_BODY_TIMEOUT", "1s")
        .set("TOLLGATE_REQUEST_TIMEOUT", "3s")
        .set("TOLLGATE_RATE_MIN", "1KiB")
        .start();
    // Never silent for long, and never over: by pace, and where that is kept by time. Whole bodies and streamed ones.
    for (target, piece, limit, end) in [
        (CHAT, 1, "body_pace", 1..3),
        ("/v1/files", 1, "body_pace", 1..3),
        (CHAT, 1_000, "request_time", 3..6),
        ("/v1/files", 1_000, "request_time", 3..6),
    ] {
        let before = reached(&gateway, limit);
        let mut wire = Wire::open(gateway.proxy);
        let request = Request { body: None, ..Request::post(target, "").bearer("acme") };
        wire.send(&request.header("Content-Length", "1000000").head_bytes());
        let began = Instant::now();
        wire.stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut answer = None;
        while answer.is_none() && began.elapsed() < Duration::from_secs(10) {
            if wire.try_send(&vec![b' '; piece]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(100));
            answer = wire.answer();
        }
        let answer = answer.unwrap_or_else(|| panic!("{target} {piece}: no answer"));
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_str()),
            (408, Some("request_timeout")),
            "{target}"
        );
        assert_eq!(answer.header("x-should-retry").as_deref(), Some("false"));
        let seconds = began.elapsed().as_secs();
        assert!(end.contains(&seconds), "{target} {piece}: {seconds} s");
        assert_eq!(reached(&gateway, limit), before + 1, "{target} {piece}");
    }
    assert_eq!(gateway.send(&chat("acme")).status, 200);
    assert_eq!(gateway.booked("acme", 1).chats, 1);
}

/// Reads so much of an answer each 100 ms; gives what it got until it was cut, or `seconds` were over.
fn read_steadily(gateway: &Gateway, request: &Request, each: usize, seconds: u64) -> (usize, bool) {
    let socket = Socket::new(Domain::for_address(gateway.proxy), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(32 * 1024).unwrap();
    socket.connect(&gateway.proxy.into()).unwrap();
    let mut wire = Wire::over(socket.into());
    wire.send(&request.bytes());
    let (began, mut got, mut piece) = (Instant::now(), 0, vec![0; each]);
    while began.elapsed() < Duration::from_secs(seconds) {
        if wire.stream.read_exact(&mut piece).is_err() {
            return (got, false);
        }
        got += each;
        thread::sleep(Duration::from_millis(100));
    }
    (got, true)
}

#[test]
fn a_steady_slow_reader_is_not_cut_for_what_the_kernel_holds() {
    let big = Script::open(&[("Content-Type", "application/octet-stream")]);
    let provider = Provider::always(big.then(Step::SendForever(wire::chunk(&[b'x'; 60_000]))));
    let setup = |patience: &str| unlimited(&provider).set("TOLLGATE_WRITE_TIMEOUT", patience);
    let content = Request::get("/v1/files/file-1/content").bearer("acme");
    let gateway = setup("2s").start();
    let (got, is_open) = read_steadily(&gateway, &content, 10_000, 10);
    assert!(is_open && got > 400_000, "cut after {got} bytes");
    assert_eq!(reached(&gateway, "answer_pace"), 0);
    // Who takes less than it has to is cut, though it takes something.
    let gateway = setup("2s").set("TOLLGATE_RATE_MIN", "1MiB").start();
    let cut = thread::spawn(move || (read_steadily(&gateway, &content, 10_000, 14), gateway));
    let ((got, is_open), gateway) = cut.join().unwrap();
    assert!(!is_open, "{got} bytes");
    assert_eq!(reached(&gateway, "answer_pace"), 1);
}

#[test]
fn an_answer_lasts_so_long_and_is_booked_as_far_as_it_came() {
    let provider = Provider::start(|_| {
        Script::open(&[("Content-Type", "text/event-stream")]).then(Step::SendForever(wire::chunk(&chat_event("one "))))
    });
    let gateway = unlimited(&provider).set("TOLLGATE_STREAM_TIMEOUT", "1s").start();
    let began = Instant::now();
    let answer = gateway.send(&chat_with("acme", CHAT_USAGE_REQUEST));
    assert_eq!((answer.status, answer.whole), (200, false), "its end is seen to be none");
    assert!((1..10).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    let event = gateway.event("acme");
    assert_eq!((&event["outcome"], &event["usage_source"]), (&"upstream_failed".into(), &"estimate".into()));
    assert!(event["completion_tokens"].as_u64().unwrap() > 0);
    assert_eq!((gateway.chats("acme").0, reached(&gateway, "stream_time")), (1, 1));
    // One that is over before is whole.
    provider.now_does(honest);
    assert!(gateway.send(&chat("other")).whole);
}
