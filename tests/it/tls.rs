//! The provider is reached over TLS, and only when its certificate is one that the roots vouch for.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::support::bodies::*;
use super::support::front::{CERTIFICATE, KEY};
use super::support::redis::RedisServer;
use super::support::*;

/// A provider that answers each request on a TLS connection with `body`; gives its port.
fn provider(body: Vec<u8>) -> u16 {
    let certificate = CertificateDer::from_pem_file(CERTIFICATE).unwrap();
    let key = PrivateKeyDer::from_pem_file(KEY).unwrap();
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(crypto).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for tcp in listener.incoming().map_while(Result::ok) {
            let tls = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), tcp);
            let body = body.clone();
            thread::spawn(move || answer_all(tls, &body));
        }
    });
    port
}

/// Ends when the other side does, or when it does not trust the certificate.
fn answer_all(tls: impl Read + Write, body: &[u8]) {
    let mut wire = BufReader::new(tls);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if wire.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        wire.read_exact(&mut vec![0; length]).unwrap();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        wire.get_mut().write_all(&[head.as_bytes(), body].concat()).unwrap();
        wire.get_mut().flush().unwrap();
    }
}

#[test]
fn a_provider_that_the_roots_vouch_for_is_called_over_tls() {
    let port = provider(CHAT_ANSWER.into());
    // One that speaks no HTTP/2 is also called by a gateway that asks for it.
    for http2 in ["false", "true"] {
        let setup = Setup::at(&format!("https://localhost:{port}")).set("SSL_CERT_FILE", CERTIFICATE);
        let gateway = setup.set("TOLLGATE_UPSTREAM_HTTP2", http2).start();
        for calls in 1..=3 {
            let answer = gateway.send(&chat("acme"));
            assert_eq!((answer.status, answer.body.as_slice()), (200, CHAT_ANSWER.as_bytes()));
            assert_eq!(gateway.booked("acme", calls).chats, calls);
        }
    }
}

#[test]
fn a_provider_that_nobody_vouches_for_gets_nothing() {
    let port = provider(CHAT_ANSWER.into());
    // Roots that vouch for another: the name is right, the certificate is not theirs.
    let other = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(other.path(), include_bytes!("../fixtures/tls/other.pem")).unwrap();
    let gateway =
        Setup::at(&format!("https://localhost:{port}")).set("SSL_CERT_FILE", other.path().to_str().unwrap()).start();
    for _ in 0..3 {
        assert_eq!(gateway.send(&chat("acme")).status, 502);
    }
    assert_eq!(gateway.chats("acme").0, 0);
    // Whoever runs it is told why, once and not for each call.
    let told = gateway.log();
    let told: Vec<_> = told.lines().filter(|line| line.contains("could not be reached")).collect();
    assert!(matches!(*told, [line] if line.contains("localhost") && line.contains("UnknownIssuer")), "{told:?}");
}

#[test]
fn roots_of_the_operator_count_beside_those_of_the_system_or_alone() {
    let port = provider(CHAT_ANSWER.into());
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls/other.pem");
    let gateway = |system: &str, own: &str, only: &str| {
        let setup = Setup::at(&format!("https://localhost:{port}")).set("SSL_CERT_FILE", system);
        setup.set("TOLLGATE_UPSTREAM_CA", own).set("TOLLGATE_UPSTREAM_CA_ONLY", only)
    };
    for (system, own, only, status) in [
        (other, CERTIFICATE, "false", 200),
        (CERTIFICATE, other, "false", 200),
        (other, CERTIFICATE, "true", 200),
        (CERTIFICATE, other, "true", 502),
        (other, other, "false", 502),
    ] {
        let answer = gateway(system, own, only).start().send(&chat("acme"));
        assert_eq!(answer.status, status, "{system} {own} {only}: {}", answer.text());
    }
    for (own, only, told) in [
        ("/nowhere/ca.pem", "false", "upstream.ca /nowhere/ca.pem: it cannot be read"),
        (KEY, "true", "there is no certificate in it"),
        ("", "true", "set TOLLGATE_UPSTREAM_CA=FILE"),
    ] {
        let said = gateway(CERTIFICATE, own, only).refused();
        assert!(said.contains(told) && said.lines().count() == 1, "{own} {only}: {said}");
    }
}

#[test]
fn other_roots_are_in_force_when_their_file_changes() {
    let port = provider(CHAT_ANSWER.into());
    let files = tempfile::TempDir::new().unwrap();
    let file = files.path().join("roots.pem");
    let put = |bytes: &[u8]| {
        // Moved into its place whole, as whoever renews a file does it.
        let next = files.path().join("next");
        std::fs::write(&next, bytes).unwrap();
        std::fs::rename(&next, &file).unwrap();
    };
    put(&std::fs::read(CERTIFICATE).unwrap());
    let setup = Setup::at(&format!("https://localhost:{port}")).set("TOLLGATE_UPSTREAM_CA", file.to_str().unwrap());
    let gateway = setup.set("TOLLGATE_UPSTREAM_CA_ONLY", "true").start();
    let models = Request::get("/v1/models").bearer("acme");
    assert_eq!(gateway.send(&models).status, 200);
    let answers = |status: u16| {
        let until = Instant::now() + Duration::from_secs(20);
        while gateway.send(&models).status != status {
            assert!(Instant::now() < until, "not {status}: {}", gateway.log());
        }
    };
    // A connection that was verified by the roots before is not used again either.
    put(include_bytes!("../fixtures/tls/other.pem"));
    answers(502);
    put(&std::fs::read(CERTIFICATE).unwrap());
    answers(200);
}

/// A Redis that is reached over TLS alone, and its port for that.
fn redis() -> (RedisServer, u16) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let number = port.to_string();
    let settings = [
        ["--tls-port", &number],
        ["--tls-cert-file", CERTIFICATE],
        ["--tls-key-file", KEY],
        ["--tls-ca-cert-file", CERTIFICATE],
        ["--tls-auth-clients", "no"],
    ];
    (RedisServer::with(settings.as_flattened()), port)
}

#[test]
fn counters_that_the_roots_vouch_for_are_shared_over_tls() {
    let (server, port) = redis();
    let provider = Provider::start(honest);
    let url = format!("rediss://localhost:{port}");
    let gateway = Setup::new(&provider).set("REDIS_URL", &url).set("SSL_CERT_FILE", CERTIFICATE).start();
    use_up(&gateway, "acme", 3);
    assert!(server.calls("evalsha") > 0);
    // Roots that vouch for another: no call is let through uncounted.
    let other = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(other.path(), include_bytes!("../fixtures/tls/other.pem")).unwrap();
    let gateway =
        Setup::new(&provider).set("REDIS_URL", &url).set("SSL_CERT_FILE", other.path().to_str().unwrap()).start();
    assert_eq!(gateway.send(&chat("acme")).status, 503);
}
