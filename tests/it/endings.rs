//! Calls that end early: who leaves, who breaks off, and what is booked then.

use std::time::{Duration, Instant};

use super::support::bodies::*;
use super::support::machine::tell;
use super::support::*;

/// A stream that waits after the first `before` events until the gate is passed.
fn held_stream(before: usize, events: &[Vec<u8>], gate: &Gate, pace: Duration) -> Script {
    let mut script = Script::open(&[("Content-Type", "text/event-stream")]);
    for (at, event) in events.iter().enumerate() {
        if at == before {
            script = script.then(Step::Wait(gate.clone(), 1));
        }
        script = script.then(Step::Send(wire::chunk(event))).then(Step::Pause(pace));
    }
    script.then(Step::Send(wire::LAST_CHUNK.to_vec()))
}

/// Asks and reads until `text` came, then leaves.
fn leave_after(gateway: &Gateway, request: &Request, text: &str) {
    let mut wire = Wire::open(gateway.proxy);
    wire.send(&request.bytes());
    assert_eq!(wire.head_of_answer("POST").unwrap().status(), 200);
    let mut got = Vec::new();
    while !String::from_utf8_lossy(&got).contains(text) {
        match wire.piece() {
            Piece::Bytes(bytes) => got.extend(bytes),
            end => panic!("{end:?} before {text}"),
        }
    }
}

#[test]
fn a_stream_whose_client_leaves_is_read_on_to_its_usage() {
    let rows: [(&str, Request, Vec<Vec<u8>>); 3] = [
        ("unasked", chat_with("unasked", CHAT_STREAM_REQUEST), chat_events(100)),
        ("asked", chat_with("asked", CHAT_USAGE_REQUEST), chat_events(100)),
        ("sse", gemini("sse").to(GEMINI_SSE), gemini_events(100)),
    ];
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    for (tenant, request, events) in rows {
        let gate = Gate::default();
        // The gateway sees that its client is gone when it writes: the events after the third come one by one.
        let script = held_stream(3, &events, &gate, Duration::from_millis(2));
        provider.now_does(move |_| script.clone());
        leave_after(&gateway, &request, "word2 ");
        gate.pass();
        let usage = gateway.booked(tenant, 1);
        assert_eq!((usage.tokens(), usage.requests, usage.chats), ((11, 7, 18), 1, 1), "{tenant}");
        assert_eq!(usage.estimated.requests, 0, "{tenant}");
        let event = gateway.event(tenant);
        assert_eq!(
            (&event["outcome"], &event["usage_source"]),
            (&"client_left".into(), &"provider".into()),
            "{tenant}"
        );
        assert_eq!(gateway.chats(tenant), (1, 499), "{tenant}");
    }
}

#[test]
fn a_client_that_leaves_at_once_is_billed_as_the_provider_bills() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    for (tenant, request) in [("chat", chat("chat")), ("gemini", gemini("gemini"))] {
        let gate = Gate::default();
        let waits = gate.clone();
        provider.now_does(move |seen| honest(seen).after(Step::Wait(waits.clone(), 1)));
        let before = provider.count();
        let mut wire = Wire::open(gateway.proxy);
        wire.send(&request.bytes());
        provider.demand_count(before + 1);
        drop(wire);
        gate.pass();
        let usage = gateway.booked(tenant, 1);
        assert_eq!((usage.tokens(), usage.chats, usage.estimated.requests), ((11, 7, 18), 1, 0), "{tenant}");
        assert_eq!(gateway.event(tenant)["usage_source"], "provider", "{tenant}");
    }
}

#[test]
fn a_client_that_hangs_up_at_the_end_marker_had_its_whole_answer() {
    let gate = Gate::default();
    let mut script = Script::open(&[("Content-Type", "text/event-stream")]);
    script.0.extend(chat_events(3).iter().map(|event| Step::Send(wire::chunk(event))));
    let script = script.then(Step::Wait(gate.clone(), 1)).then(Step::Send(wire::LAST_CHUNK.to_vec()));
    let provider = Provider::always(script);
    let gateway = Setup::new(&provider).start();
    leave_after(&gateway, &chat_with("acme", CHAT_STREAM_REQUEST), "[DONE]");
    gate.pass();
    let event = gateway.event("acme");
    assert_eq!((&event["outcome"], &event["usage_source"]), (&"completed".into(), &"provider".into()));
    assert_eq!(gateway.booked("acme", 1).tokens(), (11, 7, 18));
}

#[test]
fn a_provider_that_breaks_off_is_seen_by_the_client_and_estimated() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let half = &CHAT_ANSWER.as_bytes()[..CHAT_ANSWER.len() / 2];
    let length =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", CHAT_ANSWER.len());
    let sse = |events: &[Vec<u8>]| {
        let mut script = Script::open(&[("Content-Type", "text/event-stream")]);
        script.0.extend(events.iter().map(|event| Step::Send(wire::chunk(event))));
        script
    };
    let rows: [(&str, Request, Script, bool); 6] = [
        ("fin", chat_with("fin", CHAT_STREAM_REQUEST), sse(&chat_events(50)[..20]).then(Step::Close), true),
        ("rst", chat_with("rst", CHAT_STREAM_REQUEST), sse(&chat_events(50)[..20]).then(Step::Reset), true),
        (
            "in-a-chunk",
            chat_with("in-a-chunk", CHAT_USAGE_REQUEST),
            sse(&chat_events(50)[..20]).then(Step::Send(b"ff\r\ndata: {\"id\"".to_vec())).then(Step::Close),
            true,
        ),
        ("before-any", chat_with("before-any", CHAT_STREAM_REQUEST), sse(&[]).then(Step::Close), true),
        ("json", chat("json"), Script::raw([length.as_bytes(), half].concat()).then(Step::Close), true),
        // Gemini says in each event what it charged so far: the last one counts.
        ("gemini", gemini("gemini").to(GEMINI_SSE), sse(&gemini_events(50)[..20]).then(Step::Close), false),
    ];
    for (tenant, request, script, estimated) in rows {
        provider.now_does(move |_| script.clone());
        // An early break may come before the head was passed on: then there is no answer at all, or a broken one.
        let mut wire = Wire::open(gateway.proxy);
        wire.send(&request.bytes());
        let answer = wire.answer();
        let seen = answer.as_ref().is_none_or(|answer| !answer.whole && answer.status == 200);
        assert!(seen, "{tenant}: the break is hidden: {answer:?}");
        let usage = gateway.booked(tenant, 1);
        assert_eq!((usage.requests, usage.chats), (1, 1), "{tenant}");
        assert_eq!(usage.estimated.requests, u64::from(estimated), "{tenant}");
        assert!(usage.prompt_tokens > 0 && usage.cost() > 0, "{tenant}: {usage:?}");
        let (source, outcome) =
            if estimated { ("estimate", "upstream_failed") } else { ("provider", "upstream_failed") };
        let event = gateway.event(tenant);
        assert_eq!((&event["usage_source"], &event["outcome"]), (&source.into(), &outcome.into()), "{tenant}");
        match tenant {
            "gemini" => assert_eq!(usage.tokens(), (11, 3, 14)),
            "before-any" => assert_eq!(usage.completion_tokens, 0),
            _ => assert!(usage.completion_tokens > 0, "{tenant}: {usage:?}"),
        }
        assert_eq!(gateway.chats(tenant), (1, 499), "{tenant}");
        provider.now_does(honest);
        assert_eq!(gateway.send(&chat(tenant)).status, 200, "{tenant}: the next call");
    }
    tell("D39", "an answer that breaks off", 6, "a break that the client sees, booked once");
}

#[test]
fn a_client_without_end_does_not_hold_the_gateway_for_ever() {
    // The client leaves, the provider goes on: it is read no longer than the drain time.
    let event = chat_event("again and again ");
    let mut script = Script::open(&[("Content-Type", "text/event-stream")]);
    for _ in 0..600 {
        script = script.then(Step::Send(wire::chunk(&event))).then(Step::Pause(Duration::from_millis(50)));
    }
    let provider = Provider::always(script);
    let gateway = Setup::new(&provider).set("TOLLGATE_DRAIN_TIMEOUT", "1s").start();
    leave_after(&gateway, &chat_with("acme", CHAT_STREAM_REQUEST), "again");
    let left = Instant::now();
    assert!(provider.closed().wait_at_most(1, Duration::from_secs(10)), "the provider is still read");
    let took = left.elapsed();
    assert!(took >= Duration::from_millis(500) && took <= Duration::from_secs(4), "{took:?}");
    let usage = gateway.booked("acme", 1);
    assert_eq!((usage.estimated.requests, usage.chats), (1, 1));
    assert!(usage.prompt_tokens > 0 && usage.completion_tokens > 0, "{usage:?}");
    assert_eq!(gateway.event("acme")["outcome"], "client_left");
}

#[test]
fn a_reader_that_does_not_read_costs_no_memory() {
    let block = wire::chunk(&chat_event(&"x".repeat(60_000)));
    let script = Script::open(&[("Content-Type", "text/event-stream")]).then(Step::SendForever(block));
    let provider = Provider::always(script);
    let gateway = Setup::new(&provider).set("TOLLGATE_DRAIN_TIMEOUT", "1s").start();
    let before = gateway.memory_kib();
    let mut wire = Wire::open(gateway.proxy);
    wire.send(&chat_with("acme", CHAT_STREAM_REQUEST).bytes());
    assert_eq!(wire.head_of_answer("POST").unwrap().status(), 200);
    // Backpressure has reached the provider when half a second brings it no further.
    let mut sent = 0;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = provider.sent_bytes();
        if now == sent {
            break;
        }
        sent = now;
        assert!(Instant::now() < deadline, "{sent} bytes and no end");
    }
    assert!(sent < 48 << 20, "{sent} bytes were taken for a client that read none");
    let grown = gateway.memory_kib().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more");
    drop(wire);
    assert!(provider.closed().wait_at_most(1, Duration::from_secs(10)), "the provider is still read");
    let usage = gateway.booked("acme", 1);
    assert_eq!((usage.estimated.requests, usage.chats), (1, 1));
    assert_eq!(gateway.event("acme")["outcome"], "client_left");
    tell(
        "D46",
        "a stream without end and a client that does not read",
        1,
        &format!("{} MiB taken of it, {} MiB more memory; closed and booked", sent >> 20, grown >> 10),
    );
}

#[test]
fn an_error_inside_a_stream_is_passed_on_and_what_came_before_is_billed() {
    let error = b"data: {\"error\":{\"message\":\"The server had an error\",\"type\":\"server_error\"}}\n\n".to_vec();
    let mut events = chat_events(10)[..5].to_vec();
    events.push(error);
    let provider = Provider::always(Script::pieces("text/event-stream", &events));
    let gateway = Setup::new(&provider).start();
    let answer = gateway.send(&chat_with("acme", CHAT_STREAM_REQUEST));
    assert_eq!((answer.text(), answer.whole), (String::from_utf8_lossy(&whole(&events)).into_owned(), true));
    let usage = gateway.booked("acme", 1);
    assert_eq!((usage.chats, usage.estimated.requests), (1, 1));
    assert!(usage.prompt_tokens > 0 && usage.completion_tokens > 0, "{usage:?}");
}

#[test]
fn a_stream_may_last_longer_than_the_wait_for_its_head() {
    // The time to the first byte is no limit on a stream that runs.
    let mut script = Script::open(&[("Content-Type", "text/event-stream")]);
    for event in chat_events(4) {
        script = script.then(Step::Send(wire::chunk(&event))).then(Step::Pause(Duration::from_millis(400)));
    }
    let provider = Provider::always(script.then(Step::Send(wire::LAST_CHUNK.to_vec())));
    let gateway = Setup::new(&provider).set("TOLLGATE_UPSTREAM_TIMEOUT", "1s").start();
    let answer = gateway.send(&chat_with("acme", CHAT_USAGE_REQUEST));
    assert_eq!((answer.status, answer.whole), (200, true));
    assert_eq!(gateway.booked("acme", 1).tokens(), (11, 7, 18));
}
