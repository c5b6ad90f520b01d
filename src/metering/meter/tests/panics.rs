//! Panics while a call runs: wherever one arises, its call is booked, its chat kept or given back, and all others go on.

use std::sync::Mutex;

use crate::domain::unit::UnitName;
use crate::metering::fakes::STORE_WORDS;
use crate::ports::BoxFuture;
use crate::ports::StoreError;
use crate::ports::journal::{Backlog, Batch, JournalFull, Slot};

use crate::providers::objects::{Finder, Makes, Named, Touches};
use crate::providers::{AnswerReader, CredentialHeader, Reading, Reads};

use super::*;

/// Where the reader of an answer panics. The second of a pair is where it does it again while it is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Nowhere,
    Making,
    Looking,
    Passing,
    Flushing,
    Completeness,
    Reading,
    PassingAndReading,
    FlushingAndReading,
    Everything,
}

/// OpenAI's provider with readers that panic; the model's name says where.
struct Clumsy;

struct ClumsyReader {
    inner: Box<dyn AnswerReader>,
    at: At,
}

impl At {
    const ALL: [Self; 10] = [
        Self::Nowhere,
        Self::Making,
        Self::Looking,
        Self::Passing,
        Self::Flushing,
        Self::Completeness,
        Self::Reading,
        Self::PassingAndReading,
        Self::FlushingAndReading,
        Self::Everything,
    ];

    fn hits(self, here: &[Self]) {
        assert!(!(self == Self::Everything || here.contains(&self)), "the reader panics at {self:?}");
    }
}

impl AnswerReader for ClumsyReader {
    fn look(&mut self, decoded: &[u8]) {
        self.at.hits(&[At::Looking]);
        self.inner.look(decoded);
    }

    fn pass(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) {
        self.inner.pass(chunk, out);
        self.at.hits(&[At::Passing, At::PassingAndReading]);
    }

    fn flush(&mut self, out: &mut Vec<Bytes>) {
        self.at.hits(&[At::Flushing, At::FlushingAndReading]);
        self.inner.flush(out);
    }

    fn is_complete(&self) -> bool {
        self.at.hits(&[At::Completeness]);
        self.inner.is_complete()
    }

    fn reading(&mut self) -> Reading {
        self.at.hits(&[At::Reading, At::PassingAndReading, At::FlushingAndReading]);
        self.inner.reading()
    }
}

impl Provider for Clumsy {
    fn id(&self) -> crate::domain::ids::ProviderId {
        providers::ALL[0].id()
    }

    fn key_variable(&self) -> &'static str {
        providers::ALL[0].key_variable()
    }

    fn credential(&self) -> CredentialHeader {
        providers::ALL[0].credential()
    }

    fn endpoint(&self, method: &Method, path: &str) -> Result<Endpoint, Refusal> {
        providers::ALL[0].endpoint(method, path)
    }

    fn call(&self, endpoint: &Endpoint, query: Option<&str>, body: &Bytes) -> Result<Call, Refusal> {
        providers::ALL[0].call(endpoint, query, body)
    }

    fn reader(&self, endpoint: &Endpoint, call: &Call, content_type: Option<&str>) -> Box<dyn AnswerReader> {
        let at = At::ALL.into_iter().find(|at| call.model == format!("gpt-4o-{at:?}")).unwrap();
        at.hits(&[At::Making]);
        Box::new(ClumsyReader { inner: providers::ALL[0].reader(endpoint, call, content_type), at })
    }

    fn unit_reader(&self, reads: Reads, content_type: Option<&str>) -> Option<Box<dyn AnswerReader>> {
        providers::ALL[0].unit_reader(reads, content_type)
    }

    fn unit_question(&self, unit: &UnitName) -> Option<(String, Reads)> {
        providers::ALL[0].unit_question(unit)
    }

    fn result(&self, line: &[u8]) -> Option<Reading> {
        providers::ALL[0].result(line)
    }

    fn touches(&self, method: &Method, endpoint: &Endpoint) -> Touches {
        providers::ALL[0].touches(method, endpoint)
    }

    fn references(&self, endpoint: &Endpoint, call: Option<&Call>, body: &[u8]) -> Result<Vec<Named>, Refusal> {
        providers::ALL[0].references(endpoint, call, body)
    }

    fn finder(&self, makes: Makes, content_type: Option<&str>) -> Option<Finder> {
        providers::ALL[0].finder(makes, content_type)
    }

    fn refusal_body(&self, refusal: &Refusal) -> String {
        providers::ALL[0].refusal_body(refusal)
    }
}

const DELTA: &[u8] =
    b"data: {\"model\":\"gpt-4o\",\"choices\":[{\"delta\":{\"content\":\"One, two, three, four, five.\"}}]}\n\n";
const USAGE: &[u8] =
    b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7,\"total_tokens\":18}}\n\n";

impl Bench {
    async fn clumsy_chat(&self, at: At) -> InFlight {
        let body = format!(
            r#"{{"model":"gpt-4o-{at:?}","stream":true,"stream_options":{{"include_usage":true}},"messages":[{{"role":"user","content":"hi"}}]}}"#
        );
        let endpoint = Clumsy.endpoint(&Method::POST, "/v1/chat/completions").unwrap();
        let call = Clumsy.call(&endpoint, None, &Bytes::from(body)).unwrap();
        self.meter.admit(self.caller(), &Clumsy, endpoint, call).await.unwrap()
    }

    /// All that were settled since the last time.
    async fn events(&self, count: usize) -> Vec<UsageEvent> {
        let batch = self.journal.next(10).await;
        assert_eq!(batch.events.len(), count, "{:?}", batch.events);
        self.journal.ack(batch.through);
        batch.events.to_vec()
    }
}

/// What the edge does with a call whose stream breaks off behind its usage.
async fn exchange(mut call: InFlight, decoded: bool) {
    let mut out = Vec::new();
    call.sending();
    call.head(200, Some("text/event-stream"), Some("req_1"));
    for piece in [DELTA, USAGE] {
        if decoded {
            call.look(piece);
        } else {
            call.pass(Bytes::from_static(piece), &mut out);
        }
        assert!(!call.is_complete());
    }
    call.flush(&mut out);
    call.settle(Ending::BrokeOff).await;
}

#[tokio::test]
async fn a_reader_that_panics_ends_its_own_call_which_is_booked() {
    let bench = Bench::open().await;
    let (reported, estimate) = ((11, 7), (7, 0));
    for (at, decoded, tokens, outcome) in [
        (At::Nowhere, false, reported, Outcome::UpstreamFailed),
        (At::Making, false, estimate, Outcome::Interrupted),
        (At::Looking, true, estimate, Outcome::Interrupted),
        // The text was read before the panic: by bytes, 27 of them.
        (At::Passing, false, (7, 7), Outcome::Interrupted),
        (At::Flushing, false, reported, Outcome::Interrupted),
        (At::Completeness, false, estimate, Outcome::Interrupted),
        // Settlement had begun: its ending is known.
        (At::Reading, false, estimate, Outcome::UpstreamFailed),
        (At::PassingAndReading, false, estimate, Outcome::Interrupted),
        (At::FlushingAndReading, false, estimate, Outcome::Interrupted),
        (At::Everything, true, estimate, Outcome::Interrupted),
    ] {
        let before = bench.standing().await.used;
        let mut other = bench.chat().await;
        other.sending();
        other.head(200, Some("application/json"), None);
        let ended = tokio::spawn(exchange(bench.clumsy_chat(at).await, decoded)).await;
        assert_eq!(ended.is_err_and(|error| error.is_panic()), at != At::Nowhere, "{at:?}");
        let event = bench.events(1).await.remove(0);
        let source = if tokens == reported { UsageSource::Provider } else { UsageSource::Estimate };
        assert_eq!((event.outcome, event.chats, event.source), (outcome, 1, source), "{at:?}");
        assert_eq!((event.tokens.prompt, event.tokens.completion), tokens, "{at:?}");
        // The one beside it goes on as if nothing had been.
        assert_eq!(bench.standing().await, Standing { used: before + 1, held: 1 }, "{at:?}");
        other.pass(Bytes::from_static(ANSWER), &mut Vec::new());
        other.settle(Ending::Whole).await;
        let event = bench.events(1).await.remove(0);
        assert_eq!((event.outcome, event.tokens.total()), (Outcome::Completed, 18), "{at:?}");
        assert_eq!(bench.standing().await, Standing { used: before + 2, held: 0 }, "{at:?}");
    }
}

#[tokio::test]
async fn a_panic_before_anything_went_out_gives_the_chat_back() {
    let bench = Bench::open().await;
    let call = bench.chat().await;
    let ended = tokio::spawn(async move {
        let _owned = call;
        panic!("before the request was sent");
    });
    assert!(ended.await.is_err());
    let event = bench.events(1).await.remove(0);
    assert_eq!((event.outcome, event.chats, event.tokens.total()), (Outcome::Interrupted, 0, 0));
    assert_eq!(bench.standing().await, Standing::default());
}

#[tokio::test]
async fn a_panic_behind_the_terminal_event_books_what_was_reported() {
    let bench = Bench::open().await;
    for piece in [&[DELTA, USAGE, b"data: [DONE]\n\n"].concat()[..], ANSWER] {
        let mut call = bench.chat().await;
        call.sending();
        call.head(200, None, None);
        call.pass(Bytes::copy_from_slice(piece), &mut Vec::new());
        assert!(call.is_complete());
        drop(call);
        let event = bench.events(1).await.remove(0);
        assert_eq!((event.outcome, event.chats), (Outcome::Interrupted, 1));
        assert_eq!((event.source, event.tokens.total()), (UsageSource::Provider, 18));
    }
}

#[tokio::test]
async fn what_is_dropped_after_a_refusing_head_is_given_back() {
    let bench = Bench::open().await;
    for (status, outcome) in [(204, Outcome::Interrupted), (302, Outcome::Interrupted), (429, Outcome::UpstreamError)] {
        for ending in [None, Some(Ending::DrainCapped)] {
            let mut call = bench.chat().await;
            call.sending();
            call.head(status, None, None);
            call.pass(Bytes::from_static(ANSWER), &mut Vec::new());
            let outcome = match ending {
                None => {
                    drop(call);
                    outcome
                }
                Some(ending) => {
                    call.settle(ending).await;
                    if status < 400 { Outcome::ClientLeft } else { outcome }
                }
            };
            let event = bench.events(1).await.remove(0);
            assert_eq!((event.outcome, event.chats, event.tokens.total()), (outcome, 0, 0), "{status} {ending:?}");
            assert_eq!(bench.standing().await, Standing::default(), "{status} {ending:?}");
        }
    }
}

#[tokio::test]
async fn a_settlement_that_is_dropped_while_it_estimates_keeps_what_was_delivered() {
    let bench = Bench::open().await;
    let mut call = bench.chat().await;
    call.sending();
    call.head(200, Some("text/event-stream"), None);
    call.pass(Bytes::from_static(DELTA), &mut Vec::new());
    let mut settling = Box::pin(call.settle(Ending::BrokeOff));
    let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(settling.as_mut().poll(cx).is_ready())).await;
    assert!(!polled);
    drop(settling);
    let event = bench.events(1).await.remove(0);
    assert_eq!(
        (event.outcome, event.tokens.completion, event.source),
        (Outcome::UpstreamFailed, 7, UsageSource::Estimate)
    );
}

#[tokio::test]
async fn a_tokenizer_that_panics_leaves_the_count_by_bytes() {
    let bench = Bench::open().await;
    let (counters, clock) = (bench.meter.counters.clone(), bench.meter.clock.clone());
    let mut meter = Meter::new(counters, bench.journal.clone(), bench.world.snapshots.clone(), clock, Vec::new());
    meter.estimator = Estimator::by(|_| panic!("a tokenizer's bug"));
    let bench = Bench { meter: Arc::new(meter), ..bench };
    let mut call = bench.chat().await;
    call.sending();
    call.head(200, Some("text/event-stream"), None);
    call.pass(Bytes::from_static(DELTA), &mut Vec::new());
    call.settle(Ending::Whole).await;
    let event = bench.events(1).await.remove(0);
    assert_eq!((event.outcome, event.source, event.chats), (Outcome::Completed, UsageSource::Estimate, 1));
    assert_eq!(event.tokens.completion, 7);
}

/// A journal that panics where it must not.
struct ClumsyJournal {
    inner: Arc<FileJournal>,
    admits: bool,
    settled: Mutex<u64>,
}

impl Journal for ClumsyJournal {
    fn admit(&self, pending: &UsageEvent) -> Result<Slot, JournalFull> {
        assert!(self.admits, "the journal panics");
        self.inner.admit(pending)
    }

    fn settle(&self, _: Slot, _: &UsageEvent) -> u64 {
        *self.settled.lock().unwrap() += 1;
        panic!("the journal panics");
    }

    fn durable(&self, position: u64) -> BoxFuture<'_, bool> {
        self.inner.durable(position)
    }

    fn ready(&self) -> BoxFuture<'_, ()> {
        self.inner.ready()
    }

    fn next(&self, events_max: usize) -> BoxFuture<'_, Batch> {
        self.inner.next(events_max)
    }

    fn ack(&self, through: u64) {
        self.inner.ack(through);
    }

    fn waiting(&self, see: &mut dyn FnMut(UsageEvent)) -> Result<(), StoreError> {
        self.inner.waiting(see)
    }

    fn quarantine(&self, _: &UsageEvent, _: &str) -> Result<(), StoreError> {
        Err(StoreError::Unavailable(STORE_WORDS.to_owned()))
    }

    fn close(&self) {
        self.inner.close();
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    fn settled_through(&self) -> u64 {
        self.inner.settled_through()
    }

    fn backlog(&self) -> Backlog {
        self.inner.backlog()
    }
}

#[tokio::test]
async fn a_journal_that_panics_ends_neither_the_process_nor_another_call() {
    let bench = Bench::open().await;
    let (counters, clock) = (bench.meter.counters.clone(), bench.meter.clock.clone());
    let clumsy = |admits| {
        let journal = Arc::new(ClumsyJournal { inner: bench.journal.clone(), admits, settled: Mutex::default() });
        let snapshots = bench.world.snapshots.clone();
        let meter = Arc::new(Meter::new(counters.clone(), journal.clone(), snapshots, clock.clone(), Vec::new()));
        (meter, journal)
    };
    let account = bench.caller();
    let admit = |meter: Arc<Meter>, caller: Caller| async move {
        let endpoint = Clumsy.endpoint(&Method::POST, "/v1/chat/completions").unwrap();
        let call = Clumsy.call(&endpoint, None, &Bytes::from_static(b"{\"model\":\"gpt-4o-Reading\"}")).unwrap();
        meter.admit(caller, &Clumsy, endpoint, call).await.unwrap()
    };
    // At admission: what was held is given back.
    let (meter, _) = clumsy(false);
    assert!(tokio::spawn(admit(meter, account.clone())).await.is_err());
    assert_eq!(bench.standing().await, Standing::default());
    // At settlement, with and without a panic under way: the admission record is still there for the next start.
    let (meter, journal) = clumsy(true);
    let mut call = admit(meter.clone(), account.clone()).await;
    call.sending();
    call.head(200, None, None);
    assert!(tokio::spawn(call.settle(Ending::Whole)).await.is_err());
    drop(admit(meter, account).await);
    assert_eq!(*journal.settled.lock().unwrap(), 2);
    assert_eq!(bench.journal.backlog().in_flight, 2);
    let mut call = bench.chat().await;
    call.sending();
    call.settle(Ending::Dropped).await;
    assert_eq!(bench.events(1).await[0].chats, 1);
}
