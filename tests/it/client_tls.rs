//! Clients over TLS: the same line, a certificate that is exchanged while the gateway runs, and what is said of wrong files.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

use super::support::bodies::*;
use super::support::front::*;
use super::support::*;

/// A gateway that speaks TLS, and the port that leads to it.
fn start(setup: Setup, terms: &Terms<'_>) -> Gateway {
    let mut gateway = setup.set("TOLLGATE_TLS_CERT", CERTIFICATE).set("TOLLGATE_TLS_KEY", KEY).start();
    gateway.proxy = tls_to(gateway.proxy, terms);
    gateway
}

#[test]
fn calls_over_tls_are_calls() {
    let provider = Provider::start(honest);
    for terms in
        [Terms::default(), Terms { only_tls_1_2: true, ..Terms::default() }, Terms { speaks: &[], ..Terms::default() }]
    {
        let gateway = start(Setup::new(&provider), &terms);
        let mut wire = Wire::open(gateway.proxy);
        for call in 1..=3 {
            let answer = wire.ask(&chat("acme"));
            assert_eq!((answer.status, answer.text().as_str()), (200, CHAT_ANSWER), "call {call}");
            assert_eq!(gateway.booked("acme", call).chats, call);
        }
        let answer = wire.ask(&chat_with("acme", CHAT_USAGE_REQUEST));
        assert_eq!((answer.body, answer.whole), (whole(&chat_events(3)), true));
        // Larger than what is gathered, and than what TLS takes at once.
        let long = format!(r#"{{"model":"gpt-4o-mini","messages":[],"user":"{}"}}"#, "x".repeat(600_000));
        assert_eq!(wire.ask(&chat_with("acme", long.clone())).status, 200);
        assert_eq!(provider.last().body, long.as_bytes());
        assert_eq!(gateway.booked("acme", 5).chats, 5);
    }
}

#[test]
fn a_body_that_ends_with_its_connection_ends_with_a_goodbye() {
    let provider = Provider::start(honest);
    let gateway = start(Setup::new(&provider), &Terms::default());
    let mut wire = Wire::open(gateway.proxy);
    let length = CHAT_REQUEST.len();
    let head = format!("POST {CHAT} HTTP/1.0\r\nAuthorization: Bearer acme\r\nContent-Length: {length}\r\n\r\n");
    wire.send(format!("{head}{CHAT_REQUEST}").as_bytes());
    // The carrier passes on an end only where TLS said that it is one.
    assert_eq!(wire.answer().expect("an answer").text(), CHAT_ANSWER);
    assert!(wire.is_closed_by_peer());
}

#[test]
fn an_event_is_passed_on_at_once_over_tls_too() {
    let gate = Gate::default();
    let waits = gate.clone();
    let provider = Provider::start(move |_| {
        Script::open(&[("Content-Type", "text/event-stream")])
            .then(Step::Send(wire::chunk(&chat_event("one"))))
            .then(Step::Wait(waits.clone(), 1))
            .then(Step::Send(wire::chunk(&[chat_usage_event(), DONE.to_vec()].concat())))
            .then(Step::Send(wire::LAST_CHUNK.to_vec()))
    });
    let gateway = start(Setup::new(&provider), &Terms::default());
    let mut wire = Wire::open(gateway.proxy);
    wire.send(&chat_with("acme", CHAT_USAGE_REQUEST).bytes());
    assert_eq!(wire.head_of_answer("POST").unwrap().status(), 200);
    assert_eq!(wire.piece(), Piece::Bytes(chat_event("one")));
    gate.pass();
    let mut rest = Vec::new();
    assert!(wire.rest(&mut rest));
    assert_eq!(rest, [chat_usage_event(), DONE.to_vec()].concat());
    assert_eq!(gateway.booked("acme", 1).tokens(), (11, 7, 18));
}

#[test]
fn a_client_that_leaves_over_tls_is_noticed() {
    let gate = Gate::default();
    let waits = gate.clone();
    let provider = Provider::start(move |seen| honest(seen).after(Step::Wait(waits.clone(), 1)));
    let setup = Setup::new(&provider).set("TOLLGATE_TLS_CERT", CERTIFICATE).set("TOLLGATE_TLS_KEY", KEY);
    let mut gateway = setup.start();
    let session = ClientConnection::new(Terms::default().client(), "localhost".try_into().unwrap()).unwrap();
    let mut tls = StreamOwned::new(session, TcpStream::connect(gateway.proxy).unwrap());
    tls.write_all(&chat("acme").bytes()).unwrap();
    provider.demand_count(1);
    // Without a carrier between, its end has come to the gateway before the answer does.
    drop(tls);
    gate.pass();
    gateway.proxy = tls_to(gateway.proxy, &Terms::default());
    assert_eq!(gateway.booked("acme", 1).tokens(), (11, 7, 18));
    assert_eq!(gateway.event("acme")["outcome"], "client_left");
}

#[test]
fn what_does_not_finish_its_handshake_is_cut_off_in_time() {
    let provider = Provider::start(honest);
    let setup = Setup::new(&provider).set("TOLLGATE_HEADER_TIMEOUT", "1s");
    let gateway = setup.set("TOLLGATE_TLS_CERT", CERTIFICATE).set("TOLLGATE_TLS_KEY", KEY).start();
    let started = Instant::now();
    let mut silent = Wire::open(gateway.proxy);
    let mut plain = Wire::open(gateway.proxy);
    plain.send(&chat("acme").bytes());
    assert!(plain.answer().is_none(), "an answer in the clear");
    assert!(silent.is_closed_by_peer());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(provider.count(), 0);
}

#[test]
fn a_half_handshake_does_not_hold_up_the_end() {
    let provider = Provider::start(honest);
    let setup = Setup::new(&provider).set("TOLLGATE_HEADER_TIMEOUT", "60s");
    let mut gateway = setup.set("TOLLGATE_TLS_CERT", CERTIFICATE).set("TOLLGATE_TLS_KEY", KEY).start();
    let _silent = Wire::open(gateway.proxy);
    // A call after it shows that it was taken.
    assert_eq!(chat("acme").send(tls_to(gateway.proxy, &Terms::default())).status, 200);
    let started = Instant::now();
    gateway.stop();
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[test]
fn a_renewed_certificate_is_shown_after_a_reload_and_a_wrong_one_never() {
    let provider = Provider::start(honest);
    let files = tempfile::TempDir::new().unwrap();
    let (cert, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    std::fs::copy(CERTIFICATE, &cert).unwrap();
    std::fs::copy(KEY, &key).unwrap();
    let gateway = Setup::new(&provider)
        .set("TOLLGATE_TLS_CERT", cert.to_str().unwrap())
        .set("TOLLGATE_TLS_KEY", key.to_str().unwrap())
        .set("TOLLGATE_RELOAD_WATCH", "false")
        .config("")
        .start();
    let old = tls_to(gateway.proxy, &Terms::default());
    let new = tls_to(gateway.proxy, &Terms { trusts: RENEWED, ..Terms::default() });
    let is_served = |by| {
        let mut wire = Wire::open(by);
        drop(wire.try_send(&Request::get("/healthz").bytes()));
        wire.answer().is_some_and(|answer| answer.status == 200)
    };
    let mut kept = Wire::open(old);
    assert_eq!(kept.ask(&chat("acme")).status, 200);
    assert_eq!((is_served(old), is_served(new)), (true, false));
    // The pair is half renewed: the old one stays.
    std::fs::copy(RENEWED, &cert).unwrap();
    gateway.signal("HUP");
    let until = Instant::now() + Duration::from_secs(10);
    while !gateway.log().contains("it is not the key of the certificate") {
        assert!(Instant::now() < until, "{}", gateway.log());
        std::thread::yield_now();
    }
    assert_eq!((is_served(old), is_served(new)), (true, false));
    std::fs::copy(RENEWED_KEY, &key).unwrap();
    gateway.signal("HUP");
    while !is_served(new) {
        assert!(Instant::now() < until + Duration::from_secs(10), "{}", gateway.log());
    }
    assert!(!is_served(old));
    assert_eq!(kept.ask(&chat("acme")).status, 200, "a connection that is open goes on");
}

/// What `tollgate check` says with these files.
fn check(cert: &str, key: &str) -> (bool, String) {
    let mut command = Command::new(binary());
    command.arg("check").env_clear().env("OPENAI_API_KEY", "sk-planted");
    command.env("TOLLGATE_TLS_CERT", cert).env("TOLLGATE_TLS_KEY", key);
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn wrong_files_are_told_by_check_and_refused_at_the_start() {
    assert_eq!(check(CERTIFICATE, KEY), (true, String::new()));
    let empty = tempfile::NamedTempFile::new().unwrap();
    let empty = empty.path().to_str().unwrap();
    for (cert, key, told) in [
        (CERTIFICATE, "", "listen.tls.cert is set and listen.tls.key is not: set both, or none: TOLLGATE_TLS_KEY=FILE"),
        ("", KEY, "listen.tls.key is set and listen.tls.cert is not: set both, or none: TOLLGATE_TLS_CERT=FILE"),
        ("/nowhere/cert.pem", KEY, "listen.tls.cert /nowhere/cert.pem: it cannot be read"),
        (CERTIFICATE, "/nowhere/key.pem", "listen.tls.key /nowhere/key.pem: it cannot be read"),
        (empty, KEY, "there is no certificate in it"),
        (CERTIFICATE, empty, "there is no private key in it"),
        (CERTIFICATE, CERTIFICATE, "there is no private key in it"),
        (KEY, KEY, "there is no certificate in it"),
        (CERTIFICATE, RENEWED_KEY, "it is not the key of the certificate"),
    ] {
        let (right, said) = check(cert, key);
        assert!(!right && said.contains(told) && said.lines().count() == 1, "{cert} {key}: {said}");
        let setup = Setup::at("http://127.0.0.1:1").set("TOLLGATE_TLS_CERT", cert).set("TOLLGATE_TLS_KEY", key);
        let said = setup.refused();
        assert!(said.contains(told) && said.lines().count() == 1, "{cert} {key}: {said}");
    }
}

#[test]
fn the_address_of_an_upload_leads_back_over_tls() {
    let address = "https://generativelanguage.googleapis.com/upload/v1beta/files?upload_id=1";
    let provider = Provider::always(Script::answer(200, &[("X-Goog-Upload-URL", address)], ""));
    let gateway = start(Setup::new(&provider), &Terms::default());
    let begin = Request::post("/upload/v1beta/files", "{}").google("acme").header("X-Goog-Upload-Command", "start");
    let turned = |request: &Request| gateway.send(request).header("x-goog-upload-url").expect("an address");
    let told = turned(&begin);
    assert!(told.starts_with("https://gateway.test/upload/v1beta/files?upload_id=1&"), "{told}");
    // What stands before the gateway knows better how its client came.
    let told = turned(&begin.header("X-Forwarded-Proto", "http"));
    assert!(told.starts_with("http://gateway.test/upload/"), "{told}");
}

#[test]
fn a_gateway_that_speaks_tls_is_asked_for_its_health_over_tls() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).set("TOLLGATE_TLS_CERT", CERTIFICATE).set("TOLLGATE_TLS_KEY", KEY).start();
    let health = |cert: &str, key: &str| {
        let mut command = Command::new(binary());
        command.arg("health").env_clear().env("TOLLGATE_TLS_CERT", cert).env("TOLLGATE_TLS_KEY", key);
        command.env("TOLLGATE_LISTEN", gateway.proxy.to_string());
        command.env("TOLLGATE_ADMIN_LISTEN", gateway.admin.to_string());
        command.output().unwrap().status.success()
    };
    assert!(health(CERTIFICATE, KEY));
    assert!(!health("", ""), "in the clear nothing is answered");
}

#[test]
fn a_demo_is_in_the_clear_whatever_its_configuration_says() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("tollgate.toml");
    std::fs::write(&file, format!("[listen.tls]\ncert = {CERTIFICATE:?}\nkey = {KEY:?}\n")).unwrap();
    let mut child = Command::new(binary())
        .args(["demo", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--config"])
        .arg(&file)
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let proxy = lines.find_map(|line| line.strip_prefix("tollgate ready proxy=")?.split(' ').next()?.parse().ok());
    let key = lines.find_map(|line| Some(line.trim().strip_prefix("its key")?.trim().to_owned()));
    let answer = proxy.zip(key).map(|(proxy, key)| chat(&key).send(proxy).status);
    drop(lines);
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(answer, Some(200), "{}", String::from_utf8_lossy(&output.stderr));
}
