//! A provider over HTTP/2: calls share a connection, and what was not taken up is all that is sent twice.

use std::time::{Duration, Instant};

use h2::Reason;

use super::support::bodies::*;
use super::support::front::CERTIFICATE;
use super::support::http2::Http2;
use super::support::http2_provider::{Does, Http2Provider};
use super::support::*;

fn gateway(provider: &Http2Provider) -> Setup {
    Setup::at(&provider.url())
        .set("SSL_CERT_FILE", CERTIFICATE)
        .set("TOLLGATE_UPSTREAM_HTTP2", "true")
        .set("TOLLGATE_H2C", "true")
        .set("TOLLGATE_WORKERS", "1")
}

fn answers() -> Does {
    Does::Answers(CHAT_ANSWER.into())
}

#[test]
fn calls_share_a_connection() {
    let provider = Http2Provider::start(&[answers()]);
    let gateway = gateway(&provider).start();
    let mut client = Http2::open(gateway.proxy);
    assert_eq!(client.ask(&chat("acme")).text(), CHAT_ANSWER);
    for answer in client.ask_all(&vec![chat("acme"); 60]) {
        assert_eq!((answer.status, answer.text().as_str()), (200, CHAT_ANSWER));
    }
    assert_eq!(gateway.send(&chat("acme")).text(), CHAT_ANSWER);
    assert_eq!(gateway.booked("acme", 62).tokens(), (682, 434, 1116));
    assert_eq!(provider.connections(), 1);
    for taken in provider.taken() {
        assert_eq!(taken.uri.to_string(), format!("{}{CHAT}", provider.url()));
        assert_eq!(taken.head.get("host"), None);
        assert_eq!(taken.head["authorization"], format!("Bearer {}", gateway::OPENAI_KEY));
        assert_eq!(taken.head["content-length"], CHAT_REQUEST.len().to_string());
        assert_eq!(taken.body, CHAT_REQUEST.as_bytes());
    }
}

#[test]
fn an_event_is_passed_on_at_once_and_a_leaver_read_on() {
    let events = [chat_event("one"), chat_usage_event(), DONE.to_vec()];
    let provider = Http2Provider::start(&[Does::Streams(events.to_vec())]);
    let gateway = gateway(&provider).start();
    let mut client = Http2::open(gateway.proxy);
    let mut leaver = client.send(&chat_with("leaver", CHAT_USAGE_REQUEST)).unwrap();
    leaver.head().unwrap();
    assert_eq!(leaver.piece().unwrap().unwrap(), chat_event("one"));
    leaver.reset();
    let mut stream = client.send(&chat_with("acme", CHAT_USAGE_REQUEST)).unwrap();
    stream.head().unwrap();
    assert_eq!(stream.piece().unwrap().unwrap(), chat_event("one"));
    provider.go_on();
    assert_eq!(stream.piece().unwrap().unwrap(), events[1]);
    provider.go_on();
    let mut rest = Vec::new();
    while let Some(piece) = stream.piece().unwrap() {
        rest.extend_from_slice(&piece);
    }
    assert_eq!(rest, events[2]);
    for (tenant, outcome) in [("acme", "completed"), ("leaver", "client_left")] {
        assert_eq!(gateway.booked(tenant, 1).tokens(), (11, 7, 18), "{tenant}");
        assert_eq!(gateway.event(tenant)["outcome"], outcome);
    }
    assert_eq!(provider.resets(), 0);
}

#[test]
fn a_call_that_is_read_no_further_is_reset_and_its_siblings_go_on() {
    let provider = Http2Provider::start(&[Does::NeverEnds(chat_event("more")), answers()]);
    let gateway = gateway(&provider).set("TOLLGATE_DRAIN_TIMEOUT", "0s").start();
    let mut client = Http2::open(gateway.proxy);
    let mut leaver = client.send(&chat_with("leaver", CHAT_USAGE_REQUEST)).unwrap();
    leaver.head().unwrap();
    leaver.reset();
    // The answer to what came after the reset shows that the reset was seen; it is noticed at the next write.
    assert_eq!(client.ask(&chat("acme")).text(), CHAT_ANSWER);
    let until = Instant::now() + Duration::from_secs(10);
    while provider.resets() == 0 {
        assert!(Instant::now() < until, "the provider goes on for nobody");
        provider.go_on();
        std::thread::yield_now();
    }
    assert_eq!(gateway.booked("leaver", 1).estimated.requests, 1);
    assert_eq!(gateway.send(&chat("acme")).text(), CHAT_ANSWER);
    assert_eq!(provider.connections(), 1);
}

#[test]
fn what_was_refused_untouched_is_sent_again_and_nothing_else() {
    let provider = Http2Provider::start(&[
        answers(),
        Does::Resets(Reason::REFUSED_STREAM),
        answers(),
        Does::Resets(Reason::INTERNAL_ERROR),
        answers(),
    ]);
    let gateway = gateway(&provider).start();
    assert_eq!(gateway.send(&chat("acme")).status, 200);
    assert_eq!(gateway.send(&chat("acme")).text(), CHAT_ANSWER, "refused once, then answered");
    assert_eq!(gateway.booked("acme", 2).tokens(), (22, 14, 36));
    let answer = gateway.send(&chat("acme"));
    assert_eq!((answer.status, provider.taken().len()), (502, 2), "it may have been charged");
    assert_eq!(gateway.send(&chat("acme")).status, 200);
    assert_eq!(gateway.booked("acme", 4).failed_requests, 1);
    assert_eq!(gateway.chats("acme").0, 3);
}

#[test]
fn a_connection_that_is_on_its_way_out_gets_no_more_calls() {
    let provider = Http2Provider::start(&[Does::SaysGoAway(CHAT_ANSWER.into())]);
    let gateway = gateway(&provider).start();
    for call in 1..=10 {
        let answer = gateway.send(&chat("acme"));
        assert_eq!((answer.status, answer.text().as_str()), (200, CHAT_ANSWER), "call {call}");
    }
    assert_eq!(gateway.booked("acme", 10).tokens(), (110, 70, 180));
    assert_eq!(provider.taken().len(), 10);
}

#[test]
fn what_breaks_under_its_streams_is_a_break_for_each() {
    let waits = Does::Streams(vec![chat_event("one"), chat_usage_event()]);
    let provider = Http2Provider::start(&[waits, Does::Breaks(chat_event("one")), answers()]);
    let gateway = gateway(&provider).start();
    let mut client = Http2::open(gateway.proxy);
    let mut first = client.send(&chat_with("acme", CHAT_USAGE_REQUEST)).unwrap();
    first.head().unwrap();
    assert_eq!(first.piece().unwrap().unwrap(), chat_event("one"));
    let mut other = Http2::open(gateway.proxy);
    let mut second = other.send(&chat_with("other", CHAT_USAGE_REQUEST)).unwrap();
    assert_eq!(second.head().unwrap().status, 200);
    assert_eq!(second.piece().unwrap().unwrap(), chat_event("one"));
    provider.break_off();
    assert!(second.piece().is_err());
    assert!(first.piece().is_err());
    for tenant in ["acme", "other"] {
        gateway.booked(tenant, 1);
        assert_eq!(gateway.event(tenant)["outcome"], "upstream_failed", "{tenant}");
    }
    assert_eq!(gateway.send(&chat("acme")).text(), CHAT_ANSWER);
}

#[test]
fn a_client_that_reads_nothing_holds_up_its_own_stream_alone() {
    // More than the sockets of a client take.
    let flood = Does::Streams(vec![chat_event(&"word ".repeat(8_000)); 1_000]);
    let provider = Http2Provider::start(&[flood, answers()]);
    let gateway = gateway(&provider).set("TOLLGATE_DRAIN_TIMEOUT", "0s").start();
    for _ in 0..1_000 {
        provider.go_on();
    }
    let mut unread = Wire::open(gateway.proxy);
    unread.send(&chat_with("unread", CHAT_USAGE_REQUEST).bytes());
    assert_eq!(unread.head_of_answer("POST").unwrap().status(), 200);
    for _ in 0..20 {
        assert_eq!(gateway.send(&chat("acme")).text(), CHAT_ANSWER);
    }
    assert_eq!(provider.connections(), 1);
    assert_eq!(gateway.usage("unread").calls(), 0, "it is still held up");
    drop(unread);
    assert_eq!(gateway.booked("unread", 1).estimated.requests, 1);
    assert_eq!(gateway.send(&chat("acme")).text(), CHAT_ANSWER);
}
