//! The billing matrix from outside: each way of ending at each point that a call can have reached, by the real binary.
//!
//! Statuses and providers that break off or hang before the head of a plain call are rows of `quota`.

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use super::support::bodies::*;
use super::support::*;

/// What the call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// A chat without a stream.
    Plain,
    /// A chat as a stream, which says what it charged at its end.
    Stream,
    /// A Gemini stream, which says in each event what it charged so far.
    Gemini,
}

/// One thing that the provider does.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// The head of an answer that is billed.
    Head,
    /// The head of an answer with this status, and a length.
    Status(u16),
    /// The first half of the body, or the first words of the stream.
    Half,
    /// The same again and again, with pauses, far beyond every limit of time.
    Words,
    /// The second half of the body, or the other words and the usage, with pauses: a client that left is noticed.
    Rest,
    /// The terminal event of a stream.
    Done,
    /// The same without the end of its line.
    DoneUnended,
    /// The end of the framing.
    Last,
    /// Waits until the client has left.
    ClientLeft,
    /// Nothing any more.
    Hang,
    Fin,
    Rst,
}

/// What the client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    /// Reads to the end.
    Reads,
    /// Leaves by FIN or by RST as soon as the provider was asked.
    LeavesAtOnce { reset: bool },
    /// Leaves by FIN or by RST when it has read so far.
    LeavesAfter { text: &'static str, reset: bool },
}

/// What the books say then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bill {
    /// The chat given back, no tokens.
    Back,
    /// The chat kept, tokens as reported.
    Reported(u64, u64),
    /// The chat kept, an estimate of the prompt and of some output.
    Estimated,
    /// The chat kept, an estimate of the prompt alone.
    Prompt,
}

type Row = (Dialect, &'static [Part], Client, Bill, &'static str);

use Bill::{Back, Estimated, Prompt, Reported};
use Client::Reads;
use Dialect::{Gemini, Plain, Stream};
use Part::{ClientLeft, Done, DoneUnended, Fin, Half, Hang, Head, Last, Rest, Rst, Status, Words};

const AT_ONCE: Client = Client::LeavesAtOnce { reset: false };
const RESET_AT_ONCE: Client = Client::LeavesAtOnce { reset: true };
const IN_STREAM: Client = Client::LeavesAfter { text: "word1", reset: false };
const RESET_IN_STREAM: Client = Client::LeavesAfter { text: "word1", reset: true };
const AT_DONE: Client = Client::LeavesAfter { text: "[DONE]", reset: false };
const RESET_AT_DONE: Client = Client::LeavesAfter { text: "[DONE]", reset: true };

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Sent, and no head.
    (Stream, &[Fin], Reads, Back, "no_answer"),
    (Stream, &[Rst], Reads, Back, "no_answer"),
    (Stream, &[Hang], Reads, Back, "no_answer"),
    (Gemini, &[Fin], Reads, Back, "no_answer"),
    (Gemini, &[Rst], Reads, Back, "no_answer"),
    (Gemini, &[Hang], Reads, Back, "no_answer"),
    (Plain, &[ClientLeft, Fin], AT_ONCE, Back, "no_answer"),
    (Plain, &[ClientLeft, Rst], RESET_AT_ONCE, Back, "no_answer"),
    (Plain, &[Hang], AT_ONCE, Back, "no_answer"),
    (Stream, &[Hang], RESET_AT_ONCE, Back, "no_answer"),
    (Plain, &[ClientLeft, Head, Half, Rest], AT_ONCE, Reported(11, 7), "client_left"),
    (Plain, &[ClientLeft, Head, Half, Rest], RESET_AT_ONCE, Reported(11, 7), "client_left"),
    (Stream, &[ClientLeft, Head, Half, Rest, Done, Last], AT_ONCE, Reported(11, 7), "client_left"),
    (Stream, &[ClientLeft, Head, Half, Rest, Done, Last], RESET_AT_ONCE, Reported(11, 7), "client_left"),
    // A head, and nothing behind it.
    (Plain, &[Head, Fin], Reads, Prompt, "upstream_failed"),
    (Plain, &[Head, Rst], Reads, Prompt, "upstream_failed"),
    (Plain, &[Head, Hang], Reads, Prompt, "upstream_failed"),
    (Stream, &[Head, Fin], Reads, Prompt, "upstream_failed"),
    (Stream, &[Head, Rst], Reads, Prompt, "upstream_failed"),
    (Stream, &[Head, Hang], Reads, Prompt, "upstream_failed"),
    (Stream, &[Head, Last], Reads, Prompt, "completed"),
    (Gemini, &[Head, Fin], Reads, Prompt, "upstream_failed"),
    (Gemini, &[Head, Last], Reads, Prompt, "completed"),
    // In the body.
    (Plain, &[Head, Half, Fin], Reads, Estimated, "upstream_failed"),
    (Plain, &[Head, Half, Rst], Reads, Estimated, "upstream_failed"),
    (Plain, &[Head, Half, Hang], Reads, Estimated, "upstream_failed"),
    (Stream, &[Head, Half, Fin], Reads, Estimated, "upstream_failed"),
    (Stream, &[Head, Half, Rst], Reads, Estimated, "upstream_failed"),
    (Stream, &[Head, Half, Hang], Reads, Estimated, "upstream_failed"),
    (Gemini, &[Head, Half, Fin], Reads, Reported(11, 3), "upstream_failed"),
    (Gemini, &[Head, Half, Rst], Reads, Reported(11, 3), "upstream_failed"),
    (Gemini, &[Head, Half, Hang], Reads, Reported(11, 3), "upstream_failed"),
    (Stream, &[Head, Half, ClientLeft, Rest, Done, Last], IN_STREAM, Reported(11, 7), "client_left"),
    (Stream, &[Head, Half, ClientLeft, Rest, Done, Last], RESET_IN_STREAM, Reported(11, 7), "client_left"),
    (Gemini, &[Head, Half, ClientLeft, Rest, Last], RESET_IN_STREAM, Reported(11, 7), "client_left"),
    (Stream, &[Head, Half, ClientLeft, Words], IN_STREAM, Estimated, "client_left"),
    (Stream, &[Head, Half, ClientLeft, Words], RESET_IN_STREAM, Estimated, "client_left"),
    (Gemini, &[Head, Half, ClientLeft, Words], RESET_IN_STREAM, Reported(11, 3), "client_left"),
    (Stream, &[Head, Half, ClientLeft, Rest, Fin], RESET_IN_STREAM, Reported(11, 7), "upstream_failed"),
    (Stream, &[Head, Half, ClientLeft, Half, Half, Rst], RESET_IN_STREAM, Estimated, "upstream_failed"),
    // Behind the terminal event.
    (Stream, &[Head, Half, Rest, Done, Fin], Reads, Reported(11, 7), "completed"),
    (Stream, &[Head, Half, Rest, Done, Rst], Reads, Reported(11, 7), "completed"),
    (Stream, &[Head, Half, Rest, Done, Hang], Reads, Reported(11, 7), "completed"),
    (Stream, &[Head, Half, Rest, DoneUnended, Fin], Reads, Reported(11, 7), "completed"),
    (Stream, &[Head, Half, Rest, Done, ClientLeft, Last], AT_DONE, Reported(11, 7), "completed"),
    (Stream, &[Head, Half, Rest, Done, ClientLeft, Fin], RESET_AT_DONE, Reported(11, 7), "completed"),
    (Stream, &[Head, Half, Rest, Done, ClientLeft, Hang], RESET_AT_DONE, Reported(11, 7), "completed"),
    // Answers that no provider bills, however they end.
    (Plain, &[Status(302), Half, Rest], Reads, Back, "completed"),
    (Plain, &[Status(302), Half, Fin], Reads, Back, "upstream_failed"),
    (Plain, &[Status(302), Half, Hang], Reads, Back, "upstream_failed"),
    (Plain, &[ClientLeft, Status(302), Half, Rest], RESET_AT_ONCE, Back, "client_left"),
    (Stream, &[ClientLeft, Status(302), Half, Words], RESET_AT_ONCE, Back, "client_left"),
    (Plain, &[Status(500), Half, Fin], Reads, Back, "upstream_error"),
    (Plain, &[Status(500), Half, Rst], Reads, Back, "upstream_error"),
    (Plain, &[Status(500), Half, Hang], Reads, Back, "upstream_error"),
    (Stream, &[Status(429), Fin], Reads, Back, "upstream_error"),
    (Gemini, &[Status(429), Hang], Reads, Back, "upstream_error"),
    (Plain, &[ClientLeft, Status(429), Half, Rest], AT_ONCE, Back, "upstream_error"),
    // The drain cap once billed this one.
    (Stream, &[ClientLeft, Status(429), Half, Words], RESET_AT_ONCE, Back, "upstream_error"),
];

/// What is cut at each point by the end of the gateway.
#[rustfmt::skip]
const CUT_ROWS: &[Row] = &[
    (Plain, &[Hang], Reads, Prompt, "interrupted"),
    (Stream, &[Hang], Reads, Prompt, "interrupted"),
    (Gemini, &[Hang], Reads, Prompt, "interrupted"),
    (Stream, &[Head, Hang], Reads, Prompt, "interrupted"),
    (Plain, &[Head, Half, Hang], Reads, Estimated, "interrupted"),
    (Stream, &[Head, Half, Hang], Reads, Estimated, "interrupted"),
    (Gemini, &[Head, Half, Hang], Reads, Reported(11, 3), "interrupted"),
    (Stream, &[Head, Half, ClientLeft, Words], RESET_IN_STREAM, Estimated, "interrupted"),
    (Stream, &[Head, Half, Rest, Done, Hang], Reads, Reported(11, 7), "completed"),
    (Plain, &[Status(302), Half, Hang], Reads, Back, "interrupted"),
    (Plain, &[Status(500), Half, Hang], Reads, Back, "upstream_error"),
];

/// A row as it is played.
struct Case {
    tenant: String,
    row: Row,
    client_left: Gate,
}

impl Case {
    fn all(rows: &[Row]) -> Vec<Self> {
        let case =
            |(at, row): (usize, &Row)| Self { tenant: format!("row-{at}"), row: *row, client_left: Gate::default() };
        rows.iter().enumerate().map(case).collect()
    }

    fn request(&self) -> Request {
        // The provider knows the row by the prompt.
        let marked = |body: &str| body.replace("Count to three.", &format!("<{}> Count to three.", self.tenant));
        match self.row.0 {
            Plain => chat_with(&self.tenant, marked(CHAT_REQUEST)),
            Stream => chat_with(&self.tenant, marked(CHAT_STREAM_REQUEST)),
            Gemini => Request::post(GEMINI_SSE, marked(GEMINI_REQUEST)).google(&self.tenant),
        }
    }

    fn script(&self) -> Script {
        let steps = self.row.1.iter().flat_map(|part| self.steps(*part));
        Script(steps.collect())
    }

    fn steps(&self, part: Part) -> Vec<Step> {
        let dialect = self.row.0;
        let has_length = dialect == Plain;
        let send = |bytes: &[u8]| Step::Send(if has_length { bytes.to_vec() } else { wire::chunk(bytes) });
        let slowly = |events: &[Vec<u8>]| {
            let pair = |event: &Vec<u8>| [send(event), Step::Pause(Duration::from_millis(2))];
            events.iter().flat_map(pair).collect::<Vec<_>>()
        };
        let (first, second) = CHAT_ANSWER.as_bytes().split_at(CHAT_ANSWER.find(", three").unwrap());
        let head = |status: u16| {
            let framing = if has_length {
                format!("Content-Length: {}", CHAT_ANSWER.len())
            } else {
                "Transfer-Encoding: chunked".into()
            };
            let content_type = if has_length { "application/json" } else { "text/event-stream" };
            let head = format!("HTTP/1.1 {status} Scripted\r\nContent-Type: {content_type}\r\n{framing}\r\n\r\n");
            vec![Step::Send(head.into_bytes())]
        };
        match (part, dialect) {
            (Head, _) => head(200),
            (Status(status), _) => head(status),
            (Half, Plain) => vec![send(first)],
            (Half, Stream) => slowly(&chat_events(5)[..2]),
            (Half, _) => slowly(&gemini_events(5)[..2]),
            (Rest, Plain) => vec![send(second)],
            (Rest, Stream) => slowly(&chat_events(30)[2..31]),
            (Rest, _) => slowly(&gemini_events(30)[2..]),
            (Words, _) => {
                let more = if dialect == Gemini { gemini_events(5)[1].clone() } else { chat_event("more ") };
                (0..40).flat_map(|_| [send(&more), Step::Pause(Duration::from_millis(150))]).collect()
            }
            (Done, _) => vec![send(DONE)],
            (DoneUnended, _) => vec![send(b"data: [DONE]")],
            (Last, _) => vec![Step::Send(wire::LAST_CHUNK.to_vec())],
            (ClientLeft, _) => vec![Step::Wait(self.client_left.clone(), 1)],
            (Hang, _) => vec![Step::Hang],
            (Fin, _) => vec![Step::Close],
            (Rst, _) => vec![Step::Reset],
        }
    }

    fn was_asked(&self, provider: &Provider) -> bool {
        let mark = format!("<{}>", self.tenant);
        provider.seen().iter().any(|seen| String::from_utf8_lossy(&seen.body).contains(&mark))
    }

    /// Asks, and leaves if the row says so.
    fn ask(&self, gateway: &Gateway, provider: &Provider) -> Wire {
        let mut wire = Wire::open(gateway.proxy);
        wire.send(&self.request().bytes());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.was_asked(provider) {
            assert!(Instant::now() < deadline, "{:?}: the provider is not asked", self.row);
            thread::sleep(Duration::from_millis(2));
        }
        let reset = match self.row.2 {
            Reads => return wire,
            Client::LeavesAtOnce { reset } => reset,
            Client::LeavesAfter { text, reset } => {
                read_until(&mut wire, text);
                reset
            }
        };
        let left = Wire::open(gateway.proxy);
        if reset {
            wire.reset();
        } else {
            drop(wire);
        }
        self.client_left.pass();
        left
    }

    /// What the client sees of an answer that it reads to the end.
    fn demand_seen(&self, wire: &mut Wire) {
        let (dialect, parts, _, _, outcome) = self.row;
        let answer = wire.answer();
        match outcome {
            "no_answer" => {
                let status = if matches!(parts, [.., Hang]) { 504 } else { 502 };
                assert_eq!(answer.expect("a refusal").status, status, "{:?}", self.row);
            }
            _ => {
                // A break at once may leave no head to pass on; no break looks like an end.
                let whole = answer.as_ref().is_some_and(|answer| answer.whole);
                let ended = matches!(parts, [.., Last]) || (dialect == Plain && matches!(parts, [.., Rest]));
                assert_eq!(whole, ended, "{:?}: {answer:?}", self.row);
            }
        }
    }

    fn demand_booked(&self, gateway: &Gateway) {
        let (_, _, _, bill, outcome) = self.row;
        let said = format!("{}: {:?}", self.tenant, self.row);
        let event = gateway.event(&self.tenant);
        let usage = gateway.booked(&self.tenant, 1);
        assert_eq!(event["outcome"], outcome, "{said}: {event}");
        let kept = u64::from(bill != Back);
        assert_eq!(gateway.chats(&self.tenant), (kept, 500 - i64::try_from(kept).unwrap()), "{said}");
        assert_eq!((usage.chats, event["chats"].as_u64()), (kept, Some(kept)), "{said}: {event}");
        let failed = u64::from(matches!(outcome, "no_answer" | "upstream_error"));
        assert_eq!((usage.failed_requests, usage.requests), (failed, 1 - failed), "{said}");
        let source = if matches!(bill, Estimated | Prompt) { "estimate" } else { "provider" };
        assert_eq!(event["usage_source"], source, "{said}: {event}");
        assert_eq!(usage.estimated.requests, u64::from(source == "estimate"), "{said}");
        match bill {
            Back => assert_eq!((usage.tokens(), usage.cost()), ((0, 0, 0), 0), "{said}"),
            Reported(prompt, completion) => {
                assert_eq!(usage.tokens(), (prompt, completion, prompt + completion), "{said}");
                assert!(usage.cost() > 0, "{said}");
            }
            Estimated | Prompt => {
                assert!((5..60).contains(&usage.prompt_tokens), "{said}: {usage:?}");
                assert_eq!(usage.completion_tokens > 0, bill == Estimated, "{said}: {usage:?}");
                assert!(usage.completion_tokens < 400 && usage.cost() > 0, "{said}: {usage:?}");
            }
        }
    }
}

fn read_until(wire: &mut Wire, text: &str) {
    assert_eq!(wire.head_of_answer("POST").expect("a head").status(), 200);
    let mut got = Vec::new();
    while !String::from_utf8_lossy(&got).contains(text) {
        match wire.piece() {
            Piece::Bytes(bytes) => got.extend(bytes),
            end => panic!("{end:?} before {text}"),
        }
    }
}

/// A provider that plays for each call the script of its row, and is honest to all others.
fn provider_of(cases: &[Case]) -> Provider {
    let scripts: Vec<(String, Script)> =
        cases.iter().map(|case| (format!("<{}>", case.tenant), case.script())).collect();
    Provider::start(move |seen| {
        let body = String::from_utf8_lossy(&seen.body);
        let known = scripts.iter().find(|(mark, _)| body.contains(mark));
        known.map_or_else(|| honest(seen), |(_, script)| script.clone())
    })
}

#[test]
fn every_ending_at_every_point_is_paid_for_as_the_matrix_says() {
    let cases = Case::all(ROWS);
    let provider = provider_of(&cases);
    let gateway = Setup::new(&provider)
        .set("TOLLGATE_UPSTREAM_TIMEOUT", "2s")
        .set("TOLLGATE_IDLE_TIMEOUT", "2s")
        .set("TOLLGATE_DRAIN_TIMEOUT", "1s")
        .start();
    thread::scope(|scope| {
        for case in &cases {
            let (gateway, provider) = (&gateway, &provider);
            scope.spawn(move || {
                let mut wire = case.ask(gateway, provider);
                if case.row.2 == Reads {
                    case.demand_seen(&mut wire);
                }
                case.demand_booked(gateway);
                // The next honest call is exact.
                let before = gateway.usage(&case.tenant);
                assert_eq!(gateway.send(&chat(&case.tenant)).status, 200, "{:?}", case.row);
                let after = gateway.booked(&case.tenant, 2);
                let (prompt, completion) =
                    (after.prompt_tokens - before.prompt_tokens, after.completion_tokens - before.completion_tokens);
                assert_eq!(
                    (prompt, completion, after.cost() - before.cost()),
                    (11, 7, CHAT_PICO_USD),
                    "{:?}",
                    case.row
                );
            });
        }
    });
}

#[test]
fn what_a_shutdown_cuts_is_paid_for_as_the_matrix_says() {
    let cases = Case::all(CUT_ROWS);
    let provider = provider_of(&cases);
    let mut gateway = Setup::new(&provider).set("TOLLGATE_SHUTDOWN_DRAIN_LIMIT", "1s").start();
    let wires: Vec<Wire> = cases.iter().map(|case| case.arrived(&gateway, &provider)).collect();
    gateway.stop();
    drop(wires);
    let again = Setup::new(&provider).on_ledger_of(&gateway).start();
    for case in &cases {
        case.demand_booked(&again);
    }
}

#[test]
fn what_dies_with_the_process_is_paid_for_as_the_matrix_says() {
    let killed = |row: &Row| {
        let (dialect, parts, client, bill, outcome) = *row;
        // What was settled stays; of all else nothing is known but its admission.
        let settled = matches!(bill, Reported(11, 7));
        (dialect, parts, client, if settled { bill } else { Prompt }, if settled { outcome } else { "interrupted" })
    };
    let rows: Vec<Row> = CUT_ROWS.iter().map(killed).collect();
    let cases = Case::all(&rows);
    let provider = provider_of(&cases);
    let mut gateway = Setup::new(&provider).start();
    let wires: Vec<Wire> = cases.iter().map(|case| case.arrived(&gateway, &provider)).collect();
    gateway.signal("KILL");
    assert!(!gateway.ended().success());
    drop(wires);
    for _ in 0..2 {
        // The second start finds nothing more to book.
        let mut again = Setup::new(&provider).on_ledger_of(&gateway).start();
        for case in &cases {
            case.demand_booked(&again);
        }
        again.stop();
    }
}

impl Case {
    /// Asks, and reads as far as the row comes.
    fn arrived(&self, gateway: &Gateway, provider: &Provider) -> Wire {
        let mut wire = self.ask(gateway, provider);
        if self.row.2 == Reads {
            match self.row.1 {
                // A small body of a known length is passed on at its end.
                _ if self.row.0 == Plain => {}
                [Head, Half, Hang] => read_until(&mut wire, "word1"),
                [Head, Half, Rest, Done, Hang] => read_until(&mut wire, "[DONE]"),
                // Nothing can be seen from outside; the second of grace is ample for what was sent already.
                _ => {}
            }
        }
        wire
    }
}

#[test]
fn a_call_that_never_went_out_is_given_back() {
    // A port that was free a moment ago refuses; one whose owner never speaks lets TLS wait.
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let rows = [
        (format!("http://{refusing}"), 502),
        (format!("https://127.0.0.1:{}", silent.local_addr().unwrap().port()), 504),
    ];
    for (url, status) in rows {
        let gateway = Setup::at(&url).set("TOLLGATE_CONNECT_TIMEOUT", "1s").start();
        for (tenant, request) in [("plain", chat("plain")), ("stream", chat_with("stream", CHAT_STREAM_REQUEST))] {
            assert_eq!(gateway.send(&request).status, status, "{url}");
            let event = gateway.event(tenant);
            assert_eq!((&event["outcome"], &event["usage_source"]), (&"no_answer".into(), &"provider".into()), "{url}");
            let usage = gateway.booked(tenant, 1);
            assert_eq!((usage.failed_requests, usage.chats, usage.tokens()), (1, 0, (0, 0, 0)), "{url}");
            assert_eq!(gateway.chats(tenant), (0, 500), "{url}");
        }
        // A client that leaves inside its request was never admitted.
        let mut wire = Wire::open(gateway.proxy);
        let bytes = chat("early").bytes();
        wire.send(&bytes[..bytes.len() - 5]);
        wire.reset();
        assert_eq!(gateway.chats("early"), (0, 500));
        assert!(gateway.events("early").is_empty());
    }
}

#[test]
fn a_provider_is_read_on_for_so_many_bytes_at_most() {
    let block = wire::chunk(&chat_event(&"x".repeat(4_000)));
    let gate = Gate::default();
    let mut script = Script::open(&[("Content-Type", "text/event-stream")]);
    script.0.extend([
        Step::Send(wire::chunk(&chat_event("word1"))),
        Step::Wait(gate.clone(), 1),
        Step::SendForever(block),
    ]);
    let provider = Provider::always(script);
    let gateway =
        Setup::new(&provider).set("TOLLGATE_DRAIN_TIMEOUT", "60s").set("TOLLGATE_DRAIN_BYTES", "256KiB").start();
    let mut wire = Wire::open(gateway.proxy);
    wire.send(&chat_with("acme", CHAT_STREAM_REQUEST).bytes());
    read_until(&mut wire, "word1");
    wire.reset();
    gate.pass();
    assert!(provider.closed().wait_at_most(1, Duration::from_secs(10)), "the provider is still read");
    let event = gateway.event("acme");
    assert_eq!((&event["outcome"], &event["usage_source"]), (&"client_left".into(), &"estimate".into()));
    assert_eq!(gateway.chats("acme"), (1, 499));
}
