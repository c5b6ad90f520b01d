//! The whole line under a clock that panics: at each reading of it one call ends there, is booked, and all else goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

use crate::adapters::file_journal::FileJournal;
use crate::adapters::memory_counters::MemoryCounters;
use crate::adapters::system_clock::SystemClock;
use crate::domain::event::{Outcome, UsageEvent, UsageSource};
use crate::domain::ids::{PlanName, ProviderId};
use crate::domain::network::Networks;
use crate::domain::object::Isolation;
use crate::domain::plan::Standing;
use crate::domain::time::Micros;
use crate::metering::deferred::{Books, Deferred};
use crate::metering::fakes::objects::FakeObjects;
use crate::metering::fakes::units::FakeUnits;
use crate::metering::fakes::{self, World};
use crate::metering::identity::{self, Identities, Mode};
use crate::metering::meter::Meter;
use crate::metering::objects::Objects;
use crate::metering::recorder::Recorder;
use crate::ports::clock::Clock;
use crate::ports::journal::Journal;

use super::body::{Budget, LOCAL_BUFFER_BYTES};
use super::exchange::{Gate, Live, Origin, Settings};
use super::listener::{self, Connections, Phase};
use super::strangers::Strangers;
use super::upstream::{Limits, Place, Upstream};

/// Panics at one reading.
struct ClumsyClock {
    inner: SystemClock,
    readings: AtomicU64,
    panics_at: AtomicU64,
    panicked: AtomicBool,
}

impl ClumsyClock {
    fn reading(&self) {
        if self.readings.fetch_add(1, Ordering::SeqCst) == self.panics_at.load(Ordering::SeqCst) {
            self.panicked.store(true, Ordering::SeqCst);
            panic!("the clock panics");
        }
    }

    /// The reading after the next `count` panics.
    fn panic_after(&self, count: u64) {
        self.panicked.store(false, Ordering::SeqCst);
        self.panics_at.store(self.readings.load(Ordering::SeqCst) + count, Ordering::SeqCst);
    }

    fn has_panicked(&self) -> bool {
        self.panics_at.store(u64::MAX, Ordering::SeqCst);
        self.panicked.load(Ordering::SeqCst)
    }
}

impl Clock for ClumsyClock {
    fn now(&self) -> Micros {
        self.reading();
        self.inner.now()
    }

    fn monotonic_us(&self) -> u64 {
        self.reading();
        self.inner.monotonic_us()
    }

    fn random(&self) -> u128 {
        self.reading();
        self.inner.random()
    }
}

const ANSWER: &str = r#"{"model":"gpt-4o","choices":[{"message":{"content":"One."}}],"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}"#;
const DELTA: &str = "data: {\"model\":\"gpt-4o\",\"choices\":[{\"delta\":{\"content\":\"One.\"}}]}\n\n";
const END: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7,\"total_tokens\":18}}\n\ndata: [DONE]\n\n";

/// Answers that do not say where they end, except by their framing. By the word that asks for them.
const CANNED: [(&str, &str); 5] = [
    ("unfit", "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"error\": 1}"),
    ("page", "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 12\r\n\r\n<p>Hello</p>"),
    ("brotli", "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 12\r\n\r\n0123456789ab"),
    ("empty", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n"),
    ("nothing", "HTTP/1.1 204 No Content\r\n\r\n"),
];

/// What the provider does with a request whose body holds `word`, and how often it was asked.
#[derive(Default)]
struct Provider {
    asked: AtomicU64,
    go_on: Notify,
}

impl Provider {
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(self.clone().answer(tcp));
        }
    }

    async fn answer(self: Arc<Self>, mut tcp: TcpStream) {
        let mut got = Vec::new();
        while tcp.read_buf(&mut got).await.is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&got).into_owned();
            // The body is one JSON object, the last thing of a request.
            let Some((_, body)) = text.split_once("\r\n\r\n").filter(|(_, body)| body.ends_with("}]}")) else {
                continue;
            };
            self.asked.fetch_add(1, Ordering::SeqCst);
            got.clear();
            let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
            let stream = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            let written = if body.contains("waits") {
                let begun = tcp.write_all(format!("{stream}{}", chunk(DELTA)).as_bytes()).await;
                self.go_on.notified().await;
                begun.and(tcp.write_all(format!("{}0\r\n\r\n", chunk(END)).as_bytes()).await)
            } else if let Some((_, answer)) = CANNED.iter().find(|(word, _)| body.contains(word)) {
                tcp.write_all(answer.as_bytes()).await
            } else if body.contains("\"stream\":true") {
                tcp.write_all(format!("{stream}{}{}0\r\n\r\n", chunk(DELTA), chunk(END)).as_bytes()).await
            } else {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    ANSWER.len()
                );
                tcp.write_all(format!("{head}{ANSWER}").as_bytes()).await
            };
            if written.is_err() {
                return;
            }
        }
    }
}

/// One worker over fakes.
struct Bench {
    world: World,
    gate: Arc<Gate>,
    clock: Arc<ClumsyClock>,
    journal: Arc<FileJournal>,
    provider: Arc<Provider>,
    proxy: SocketAddr,
    _directory: tempfile::TempDir,
    _phase: watch::Sender<Phase>,
}

/// What bills what is finished later; nothing here is.
fn deferred(world: &World, journal: &Arc<FileJournal>, clock: &Arc<ClumsyClock>) -> Arc<Deferred> {
    let recorder = Recorder::new(journal.clone(), world.store.clone(), world.store.clone(), Vec::new());
    Arc::new(Deferred::new(Books {
        units: Arc::new(FakeUnits::default()),
        usage: world.store.clone(),
        tenants: world.store.clone(),
        journal: journal.clone(),
        counters: Arc::new(MemoryCounters::new()),
        recorder: Arc::new(recorder),
        snapshots: world.snapshots.clone(),
        clock: clock.clone(),
    }))
}

/// No test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

fn settings() -> Settings {
    Settings {
        body_limit: 1 << 20,
        upload_limit: 1 << 20,
        session_message_limit: 1 << 20,
        header_timeout: PATIENCE,
        body_timeout: PATIENCE,
        write_timeout: PATIENCE,
        h2c: false,
        keepalive_timeout: PATIENCE,
        drain_timeout: PATIENCE,
        drain_bytes: 1 << 20,
        first_byte_timeout: PATIENCE,
        isolation: Isolation::default(),
        poll_interval: PATIENCE,
        connections_max: 1_000,
        connections_per_address: 0,
        requests_per_tenant: 1_000,
        failed_keys_per_minute: 0,
        head_limit: 1 << 16,
        headers_max: 128,
        request_timeout: PATIENCE,
        rate_min: 0,
        http2_streams: 100,
        http2_resets: 100,
        stream_timeout: PATIENCE,
        pages_of_here: false,
    }
}

impl Bench {
    async fn open() -> Self {
        let world = World::open().await;
        let (journal, directory) = fakes::journal();
        let clock = Arc::new(ClumsyClock {
            inner: SystemClock::new(),
            readings: AtomicU64::new(0),
            panics_at: AtomicU64::new(u64::MAX),
            panicked: AtomicBool::new(false),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let provider = Arc::new(Provider::default());
        tokio::spawn(provider.clone().serve(listener));
        let counters = Arc::new(MemoryCounters::new());
        let meter = Arc::new(Meter::new(counters, journal.clone(), world.snapshots.clone(), clock.clone(), Vec::new()));
        let identities = Arc::new(Identities::new(
            Mode::Dev,
            identity::hash("an admin key that nobody has"),
            PlanName::starter(),
            world.snapshots.clone(),
            world.store.clone(),
            clock.clone(),
        ));
        let second = PATIENCE;
        let limits =
            Limits { connect: second, first_byte: second, idle: second, pooled: second, idle_connections_max: 4 };
        let place = Arc::new(Place {
            host: address.ip().to_string(),
            port: address.port(),
            authority: HeaderValue::from_str(&address.to_string()).unwrap(),
            tls: None,
            http2: false,
            trust: [0; 32],
            failures: Default::default(),
        });
        let upstream = Upstream { place, limits };
        let (provider_id, key) = (ProviderId::new("openai"), SecretString::from("sk-of-the-operator"));
        let origins = vec![Origin { provider: provider_id, vertex: false, upstream, key: Some(key) }];
        let deferred = deferred(&world, &journal, &clock);
        let gate = Arc::new(Gate {
            meter,
            deferred,
            objects: Arc::new(Objects::new(Arc::new(FakeObjects::default()), clock.clone())),
            identities,
            local: axum::Router::new(),
            local_budget: Budget::new(LOCAL_BUFFER_BYTES),
            live: ArcSwap::from_pointee(Live {
                origins,
                budget: Budget::new(1 << 24),
                settings: settings(),
                public_url: None,
                tls: None,
                balancers: Networks::default(),
                admin_tls: None,
            }),
            draining: Arc::new(AtomicBool::new(false)),
            crowd: Arc::default(),
            strangers: Arc::new(Strangers::new(clock.clone(), drop)),
        });
        let listening = listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let proxy = listening.local_addr().unwrap();
        let (phase, seen) = watch::channel(Phase::Running);
        tokio::spawn(listener::serve(gate.clone(), listening, Arc::<Connections>::default(), seen));
        Self { world, gate, clock, journal, provider, proxy, _directory: directory, _phase: phase }
    }

    /// Sends a chat on a connection of its own.
    async fn send(&self, stream: bool, text: &str) -> TcpStream {
        let body = format!(
            r#"{{"model":"gpt-4o","stream":{stream},"stream_options":{{"include_usage":true}},"messages":[{{"role":"user","content":"{text}"}}]}}"#
        );
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer acme\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut tcp = TcpStream::connect(self.proxy).await.unwrap();
        tcp.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        tcp
    }

    async fn standing(&self) -> Standing {
        let account = self.world.snapshots.load().accounts.get("acme").cloned().unwrap();
        self.gate.meter.standings(&account).await.first().unwrap().standing
    }

    /// All that were settled since the last time; none is an answer, too.
    async fn events(&self) -> Vec<UsageEvent> {
        let Ok(batch) = tokio::time::timeout(Duration::from_millis(20), self.journal.next(10)).await else {
            return Vec::new();
        };
        self.journal.ack(batch.through);
        batch.events.to_vec()
    }
}

/// All that comes until the connection is closed, by an end or a reset.
async fn rest(mut tcp: TcpStream) -> String {
    let mut got = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(20), tcp.read_to_end(&mut got)).await;
    assert!(closed.is_ok(), "the connection is not closed");
    String::from_utf8_lossy(&got).into_owned()
}

fn is_whole(answer: &str, stream: bool) -> bool {
    answer.starts_with("HTTP/1.1 200") && answer.ends_with(if stream { "0\r\n\r\n" } else { "}}" })
}

#[tokio::test]
async fn a_panic_anywhere_on_the_line_ends_one_call_and_it_is_booked() {
    let bench = Bench::open().await;
    // One call is under way on the same worker all the time.
    let mut beside = bench.send(true, "waits").await;
    let mut begun = Vec::new();
    while !String::from_utf8_lossy(&begun).contains("One.") {
        assert!(beside.read_buf(&mut begun).await.unwrap() > 0);
    }
    let mut kept = 0;
    for stream in [false, true] {
        let (mut at, mut ended, mut interrupted) = (0, 0, 0);
        loop {
            let asked = bench.provider.asked.load(Ordering::SeqCst);
            bench.clock.panic_after(at);
            let answer = rest(bench.send(stream, "hi").await).await;
            if !bench.clock.has_panicked() {
                assert!(is_whole(&answer, stream), "{answer}");
                assert_eq!(bench.events().await.len(), 1);
                kept += 1;
                break;
            }
            let events = bench.events().await;
            let was_asked = bench.provider.asked.load(Ordering::SeqCst) > asked;
            assert!(events.len() <= 1 && (!was_asked || events.len() == 1), "{at}: {events:?}");
            for event in &events {
                kept += event.chats;
                assert!(event.chats == 1 || !was_asked, "{at}: {event:?}");
                match event.outcome {
                    // All was said, so all was booked; the panic came behind it.
                    Outcome::Completed => assert_eq!(event.tokens.total(), 18, "{at}: {event:?}"),
                    Outcome::Interrupted => interrupted += 1,
                    other => panic!("{at}: {other:?}"),
                }
                let source = if event.outcome == Outcome::Interrupted && event.chats == 1 {
                    UsageSource::Estimate
                } else {
                    UsageSource::Provider
                };
                assert_eq!(event.source, source, "{at}: {event:?}");
            }
            // A whole answer is a booked one.
            assert!(!is_whole(&answer, stream) || events.len() == 1, "{at}: {answer}");
            ended += u64::from(!is_whole(&answer, stream));
            assert_eq!(bench.standing().await, Standing { used: kept, held: 1 }, "{at}");
            // The next call on this worker is exact.
            assert!(is_whole(&rest(bench.send(stream, "hi").await).await, stream), "{at}");
            let events = bench.events().await;
            assert_eq!(
                (events.len(), events[0].outcome, events[0].tokens.total()),
                (1, Outcome::Completed, 18),
                "{at}"
            );
            kept += 1;
            at += 1;
        }
        assert!(ended >= 5 && interrupted >= 2, "{at} readings, {ended} ended by a panic, {interrupted} interrupted");
    }
    bench.provider.go_on.notify_one();
    let whole = String::from_utf8_lossy(&begun).into_owned() + &rest(beside).await;
    assert!(is_whole(&whole, true), "{whole}");
    let events = bench.events().await;
    assert_eq!((events.len(), events[0].outcome, events[0].tokens.total()), (1, Outcome::Completed, 18));
    assert_eq!(bench.standing().await, Standing { used: kept + 1, held: 0 });
}

#[tokio::test]
async fn an_answer_is_booked_before_its_last_byte_whatever_it_is() {
    let bench = Bench::open().await;
    for (word, answer) in CANNED {
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let mut client = bench.send(false, word).await;
        let mut got = Vec::new();
        let has_all = |got: &[u8]| match String::from_utf8_lossy(got).split_once("\r\n\r\n") {
            Some((_, rest)) => rest.len() >= body.len(),
            None => false,
        };
        while !has_all(&got) {
            assert!(client.read_buf(&mut got).await.unwrap() > 0, "{word}");
        }
        // One thread runs client, gateway and provider, and nothing was waited for since the last byte was read.
        assert_eq!(bench.journal.backlog().in_flight, 0, "{word}: it is whole, and not booked");
        assert_eq!(bench.events().await.len(), 1, "{word}");
    }
}
