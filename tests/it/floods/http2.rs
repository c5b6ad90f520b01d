//! Floods of HTTP/2: what comes too often is told to go, costs no memory, and holds nobody else up.

use super::frames::*;
use super::*;

/// Within this each flood is over.
const FLOOD_MAX: Duration = Duration::from_secs(10);

/// What a flood may have memory grow by.
const GROWTH_KIB_MAX: u64 = 32 * 1024;

type Round = Box<dyn Fn(u32) -> Vec<u8>>;

/// The id of the stream of a round.
fn stream(round: u32) -> u32 {
    2 * round + 1
}

fn get(stream: u32, end: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | end, stream, &request("GET", "/healthz", None))
}

fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request("POST", CHAT, Some("flood")))
}

fn cancel(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

fn floods() -> Vec<(&'static str, Vec<u8>, Round)> {
    let same = |bytes: Vec<u8>| -> Round { Box::new(move |_| bytes.clone()) };
    let window = |stream: u32, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    let long = fields(&[("x-long", &"x".repeat(100))]).repeat(100);
    vec![
        ("PING", vec![], same(frame(PING, 0, 0, &[7; 8]))),
        ("SETTINGS", vec![], same(frame(SETTINGS, 0, 0, &[]))),
        ("SETTINGS that change something", vec![], same(frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]))),
        ("PRIORITY", vec![], same(frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]))),
        ("WINDOW_UPDATE", vec![], same(window(0, 1))),
        ("frames of no known kind", vec![], same(frame(0x77, 0, 0, &[1; 16]))),
        ("empty DATA", post(1), same(frame(DATA, 0, 1, &[]))),
        (
            "empty CONTINUATION",
            frame(HEADERS, 0, 1, &request("GET", "/healthz", None)),
            same(frame(CONTINUATION, 0, 1, &[])),
        ),
        (
            "CONTINUATION",
            frame(HEADERS, 0, 1, &request("GET", "/healthz", None)),
            same(frame(CONTINUATION, 0, 1, &long)),
        ),
        ("rapid reset", vec![], Box::new(|round| [get(stream(round), END_STREAM), cancel(stream(round))].concat())),
        ("rapid reset of calls", vec![], Box::new(|round| [post(stream(round)), cancel(stream(round))].concat())),
        (
            "made to reset, by a window",
            vec![],
            Box::new(move |round| [post(stream(round)), window(stream(round), 0x7fff_ffff)].concat()),
        ),
        (
            "made to reset, by a frame behind the end",
            vec![],
            Box::new(|round| [get(stream(round), END_STREAM), frame(DATA, 0, stream(round), b"x")].concat()),
        ),
        ("streams without end", vec![], Box::new(|round| post(stream(round)))),
        ("streams that depend on themselves", vec![], same(frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 9]))),
    ]
}

#[test]
fn what_comes_too_often_is_told_to_go_and_costs_nothing() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider)
        .config("[plans.starter]\nchats_per_month = -1")
        .set("TOLLGATE_H2C", "true")
        .set("TOLLGATE_BODY_TIMEOUT", "2s")
        .set("RUST_LOG", "warn")
        .start();
    use_up(&gateway, "warm", 20);
    let runtime = runtime();
    for (name, begin, round) in floods() {
        let before = gateway.memory_kib();
        gateway.forget_memory_peak();
        let ordinary = Ordinary::start(&gateway, "acme");
        let end = runtime.block_on(storm(gateway.proxy, begin, round, FLOOD_MAX));
        let (calls, slowest) = ordinary.stop();
        let grown = gateway.memory_peak_kib().saturating_sub(before);
        let Some(end) = end else { panic!("{name}: goes on after {FLOOD_MAX:?}, {grown} KiB more") };
        let reason = end.reason.map_or("no word".to_owned(), |reason| format!("{reason:#x}"));
        figures(&format!(
            "floods: HTTP/2, {name}: cut after {} rounds sent, {} ms, GOAWAY {reason}; {calls} ordinary calls beside it, slowest {} ms; {} KiB more at most",
            end.rounds,
            end.after.as_millis(),
            slowest.as_millis(),
            grown
        ));
        assert!(end.reason.is_some_and(|reason| reason != 0), "{name}: {end:?}");
        assert!(slowest < ORDINARY_MAX, "{name}: {slowest:?}");
        assert!(grown < GROWTH_KIB_MAX, "{name}: {grown} KiB more");
    }
    assert!(reached(&gateway, "http2_frames") > 0 && reached(&gateway, "http2_resets") > 0);
    assert_eq!(gateway.chats("flood").0, 0, "nothing of it was a call");
    tell("A16", "floods of HTTP/2 frames", floods().len(), "told to go, memory flat, ordinary calls within 1 s");
}

#[test]
fn a_client_that_is_told_to_go_hears_why_though_it_still_sends() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).set("TOLLGATE_H2C", "true").start();
    // Closed with pings unread, a connection is reset, and what its client had not got yet is lost: now and then the reason.
    let reasons = (0..20).map(|_| {
        let pings = |_| frame(PING, 0, 0, &[7; 8]);
        runtime().block_on(storm(gateway.proxy, vec![], pings, FLOOD_MAX)).expect("an end").reason
    });
    assert_eq!(reasons.collect::<Vec<_>>(), [Some(0xb); 20]);
}

#[test]
fn a_refusal_that_nobody_takes_kept_what_its_client_had_sent() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).set("TOLLGATE_H2C", "true").start();
    // Its client lets no body come, and the bytes of its own lie in the window of the stream.
    let no_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let mut fields_of_stranger = request("POST", CHAT, None);
    fields_of_stranger.extend_from_slice(&fields(&[("content-length", "10000000")]));
    let mut malformed = request("TRACE", CHAT, None);
    malformed.extend_from_slice(&fields(&[("content-length", "10000000")]));
    let sent = [
        PREFACE.to_vec(),
        no_window,
        frame(HEADERS, END_HEADERS, 1, &fields_of_stranger),
        frame(DATA, 0, 1, &[b'x'; 16 * 1024]).repeat(3),
        frame(HEADERS, END_HEADERS, 3, &malformed),
    ];
    let resets = async {
        let mut tcp = TcpStream::connect(gateway.proxy).await.unwrap();
        tcp.write_all(&sent.concat()).await.unwrap();
        let (mut read, _write) = tcp.split();
        let mut resets = 0;
        while resets < 2 {
            let Some((kind, _)) = next_frame(&mut read).await else { break };
            resets += usize::from(kind == RST_STREAM);
        }
        resets
    };
    // Far from the time that a client has for an answer of any size.
    assert_eq!(runtime().block_on(async { timeout(Duration::from_secs(30), resets).await }), Ok(2));
    assert_eq!(reached(&gateway, "answer_pace"), 2);
    assert_eq!(gateway.send(&chat("acme")).status, 200);
}

#[test]
fn pings_at_the_rate_of_a_client_go_on_for_as_long_as_it_has_calls() {
    let gate = Gate::default();
    let waits = gate.clone();
    let provider = Provider::start(move |seen| honest(seen).after(Step::Wait(waits.clone(), 1)));
    let gateway = Setup::new(&provider).set("TOLLGATE_H2C", "true").start();
    let answered = runtime().block_on(async {
        let mut tcp = TcpStream::connect(gateway.proxy).await.unwrap();
        let body = frame(DATA, END_STREAM, 1, CHAT_REQUEST.as_bytes());
        let head = frame(HEADERS, END_HEADERS, 1, &request("POST", CHAT, Some("acme")));
        tcp.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &head, &body].concat()).await.unwrap();
        let (mut read, mut write) = tcp.split();
        // As many as a purse has at its begin, and acknowledged one by one.
        for _ in 0..1_000 {
            write.write_all(&frame(PING, 0, 0, &[1; 8])).await.unwrap();
            while next_frame(&mut read).await.expect("the connection stands").0 != PING {}
        }
        gate.pass();
        while let Some((kind, payload)) = next_frame(&mut read).await {
            if kind == DATA && !payload.is_empty() {
                return String::from_utf8(payload).unwrap();
            }
        }
        String::new()
    });
    assert_eq!(answered, CHAT_ANSWER);
    assert_eq!(gateway.booked("acme", 1).chats, 1);
}

#[test]
fn streams_that_are_never_read_are_cut_and_booked() {
    let provider = Provider::start(|_| {
        Script::open(&[("Content-Type", "text/event-stream")])
            .then(Step::SendForever(wire::chunk(&chat_event(&"one ".repeat(1_000)))))
    });
    let gateway = Setup::new(&provider)
        .set("TOLLGATE_H2C", "true")
        .set("TOLLGATE_WRITE_TIMEOUT", "2s")
        .set("TOLLGATE_DRAIN_TIMEOUT", "500ms")
        .start();
    let before = gateway.memory_kib();
    gateway.forget_memory_peak();
    let streams = 50;
    runtime().block_on(async {
        let mut tcp = TcpStream::connect(gateway.proxy).await.unwrap();
        // A window of nothing: the head of each answer comes, and no byte of it.
        let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat();
        for number in 0..streams {
            bytes.extend(frame(HEADERS, END_HEADERS, stream(number), &request("POST", CHAT, Some("acme"))));
            bytes.extend(frame(DATA, END_STREAM, stream(number), CHAT_USAGE_REQUEST.as_bytes()));
        }
        tcp.write_all(&bytes).await.unwrap();
        let (mut read, _write) = tcp.split();
        let mut reset = 0;
        let began = Instant::now();
        while reset < streams {
            let next = timeout(Duration::from_secs(15), next_frame(&mut read)).await.expect("all are cut in time");
            reset += u32::from(next.expect("the connection stands").0 == RST_STREAM);
        }
        figures(&format!(
            "floods: HTTP/2, {streams} streams with no window: reset after {} ms",
            began.elapsed().as_millis()
        ));
    });
    let usage = gateway.booked("acme", streams.into());
    assert_eq!((usage.chats, usage.estimated.requests), (streams.into(), streams.into()));
    let grown = gateway.memory_peak_kib().saturating_sub(before);
    figures(&format!("floods: HTTP/2, {streams} streams with no window: {} MiB more at most", grown / 1024));
    assert!(grown < 128 * 1024, "{grown} KiB more");
    assert_eq!(reached(&gateway, "answer_pace"), u64::from(streams));
}

/// Opens a call on each of the streams, of which the first is another tenant's, and waits for the heads of their answers.
async fn open_calls(tcp: &mut TcpStream, streams: u32) {
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for number in 0..streams {
        let key = if number == 0 { "acme" } else { "leaver" };
        bytes.extend(frame(HEADERS, END_HEADERS, stream(number), &request("POST", CHAT, Some(key))));
        bytes.extend(frame(DATA, END_STREAM, stream(number), CHAT_USAGE_REQUEST.as_bytes()));
    }
    tcp.write_all(&bytes).await.unwrap();
    let mut heads = 0;
    while heads < streams {
        let (kind, _) = next_frame(tcp).await.expect("the connection stands");
        heads += u32::from(kind == HEADERS);
    }
}

fn reason_of(goaway: &[u8]) -> u32 {
    u32::from_be_bytes(goaway[4..8].try_into().unwrap())
}

/// A provider whose streams end when they are told to, and a connection with ten streams of which nine were taken back.
fn left_by_nine(gate: &Gate) -> (Provider, Gateway, TcpStream, Runtime) {
    let waits = gate.clone();
    let provider = Provider::start(move |_| {
        Script::open(&[("Content-Type", "text/event-stream")])
            .then(Step::Send(wire::chunk(&chat_event("one"))))
            .then(Step::Wait(waits.clone(), 1))
            .then(Step::Send(wire::chunk(&[chat_usage_event(), DONE.to_vec()].concat())))
            .then(Step::Send(wire::LAST_CHUNK.to_vec()))
    });
    let gateway = Setup::new(&provider).set("TOLLGATE_H2C", "true").set("TOLLGATE_HTTP2_STREAMS", "10").start();
    let runtime = runtime();
    let tcp = runtime.block_on(async {
        let mut tcp = TcpStream::connect(gateway.proxy).await.unwrap();
        open_calls(&mut tcp, 10).await;
        let cancels: Vec<u8> = (1..10).flat_map(|number| cancel(stream(number))).collect();
        tcp.write_all(&cancels).await.unwrap();
        tcp
    });
    (provider, gateway, tcp, runtime)
}

#[test]
fn calls_that_are_refused_while_others_drain_do_not_end_the_streams_beside_them() {
    let gate = Gate::default();
    let (_provider, gateway, mut tcp, runtime) = left_by_nine(&gate);
    let (refused, reason, rest) = runtime.block_on(async {
        let (mut refused, mut reason, mut number) = (0, None, 10);
        // One after the other, and never more at once than it may have, until it is told to make another connection.
        while reason.is_none() && refused < 10_000 {
            tcp.write_all(&get(stream(number), END_STREAM)).await.unwrap();
            number += 1;
            loop {
                match next_frame(&mut tcp).await.expect("the connection stands") {
                    (RST_STREAM, code) => {
                        assert_eq!(code, 7_u32.to_be_bytes(), "nothing but a refusal");
                        refused += 1;
                        break;
                    }
                    (GOAWAY, payload) => {
                        reason = Some(reason_of(&payload));
                        break;
                    }
                    _ => {}
                }
            }
        }
        gate.pass();
        let mut rest = Vec::new();
        while !rest.ends_with(DONE) {
            let (kind, payload) = next_frame(&mut tcp).await.expect("the stream comes to its end");
            if kind == DATA {
                rest.extend(payload);
            }
        }
        (refused, reason, rest)
    });
    assert!(refused >= 100, "{refused}");
    assert_eq!(reason, Some(0), "no error of the client's");
    assert!(String::from_utf8(rest).unwrap().contains("usage"));
    assert_eq!(gateway.booked("leaver", 9).tokens(), (99, 63, 162));
    assert_eq!(gateway.booked("acme", 1).tokens(), (11, 7, 18));
    assert_eq!(gateway.event("acme")["outcome"], "completed");
}

#[test]
fn one_that_goes_on_after_it_was_asked_to_go_is_turned_out() {
    let gate = Gate::default();
    let (_provider, gateway, mut tcp, runtime) = left_by_nine(&gate);
    let told = async {
        let (mut read, mut write) = tcp.split();
        let send = async {
            let mut number = 10;
            loop {
                let batch: Vec<u8> =
                    (number..number + 100).flat_map(|number| get(stream(number), END_STREAM)).collect();
                if write.write_all(&batch).await.is_err() {
                    return std::future::pending().await;
                }
                number += 100;
            }
        };
        let mut reasons = Vec::new();
        let hear = async {
            while let Some((kind, payload)) = next_frame(&mut read).await {
                if kind == GOAWAY {
                    reasons.push(reason_of(&payload));
                }
            }
        };
        tokio::select! {
            () = hear => {}
            () = send => {}
        }
        reasons
    };
    let reasons = runtime.block_on(async { timeout(FLOOD_MAX, told).await.expect("it is turned out in time") });
    // Where all that comes at once, it is told this alone.
    assert_eq!(reasons.last(), Some(&0xb), "{reasons:?}");
    gate.pass();
    assert_eq!((gateway.booked("acme", 1).requests, gateway.booked("leaver", 9).requests), (1, 9));
}

#[test]
fn a_download_that_is_acknowledged_in_small_pieces_is_no_flood() {
    const LENGTH: usize = 32 << 20;
    let file = vec![b'x'; LENGTH];
    let provider = Provider::always(Script::answer(200, &[("Content-Type", "application/octet-stream")], file));
    let gateway = Setup::new(&provider).set("TOLLGATE_H2C", "true").start();
    let got = runtime().block_on(async {
        let mut tcp = TcpStream::connect(gateway.proxy).await.unwrap();
        // As Go's client has it: 4 MiB for a stream, a GiB for all, and each 4 KiB acknowledged for both.
        let window = |stream: u32, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
        let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 0x40, 0, 0]);
        let ask = frame(HEADERS, END_HEADERS | END_STREAM, 1, &request("GET", "/v1/files/f/content", Some("acme")));
        tcp.write_all(&[PREFACE, &settings, &window(0, 1 << 30), &ask].concat()).await.unwrap();
        let (mut read, mut write) = tcp.split();
        let (mut got, mut acknowledged) = (0, 0);
        while got < LENGTH {
            let (kind, payload) = next_frame(&mut read).await.unwrap_or_else(|| panic!("cut after {got} bytes"));
            assert!(kind != GOAWAY && kind != RST_STREAM, "cut after {got} bytes");
            if kind == DATA {
                got += payload.len();
                let pieces = (got - acknowledged) / 4096;
                acknowledged += pieces * 4096;
                let both = [window(0, 4096), window(1, 4096)].concat();
                write.write_all(&both.repeat(pieces)).await.unwrap();
            }
        }
        got
    });
    assert_eq!(got, LENGTH);
    assert_eq!(reached(&gateway, "http2_frames"), 0);
}

#[test]
fn a_refusal_that_is_not_taken_counts_as_an_answer_that_is_not() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).set("TOLLGATE_H2C", "true").set("TOLLGATE_WRITE_TIMEOUT", "500ms").start();
    runtime().block_on(async {
        let mut tcp = TcpStream::connect(gateway.proxy).await.unwrap();
        let none = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        let ask = |number, method, path| {
            frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &request(method, path, None))
        };
        let asks = [ask(0, "GET", "/v1/models"), ask(1, "TRACE", "/v1/models"), ask(2, "GET", "/healthz")].concat();
        tcp.write_all(&[PREFACE, &none, &asks].concat()).await.unwrap();
        let mut reset = 0;
        while reset < 3 {
            let next = timeout(FLOOD_MAX, next_frame(&mut tcp)).await.expect("all are cut in time");
            reset += u32::from(next.expect("the connection stands").0 == RST_STREAM);
        }
    });
    assert_eq!(reached(&gateway, "answer_pace"), 3);
}
