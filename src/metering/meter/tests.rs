//! Tests of admission and settlement: what a call takes, and what each way of ending leaves behind.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use tempfile::TempDir;

use crate::adapters::file_journal::disk::Folder;
use crate::adapters::file_journal::{FileJournal, Stored, survey};
use crate::adapters::memory_counters::MemoryCounters;
use crate::domain::event::{Outcome, UsageEvent, UsageSource};
use crate::domain::ids::EventId;
use crate::domain::plan::Standing;
use crate::domain::quantities::Quantities;
use crate::domain::refusal::Refusal;
use crate::domain::settlement::Ending;
use crate::metering::fakes::{self, World};
use crate::ports::BoxFuture;
use crate::ports::counters::{
    Claim, Counted, CounterKey, CounterStore, CountersHealth, CountersUnavailable, HoldOutcome, Terms,
};
use crate::providers::{self, CredentialPlace};

use super::*;

mod panics;

struct Bench {
    world: World,
    meter: Arc<Meter>,
    journal: Arc<FileJournal>,
    _directory: TempDir,
}

const ANSWER: &[u8] =
    br#"{"model":"gpt-4o","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}"#;

impl Bench {
    async fn open() -> Self {
        Self::open_on(fakes::journal()).await
    }

    async fn open_on((journal, _directory): (Arc<FileJournal>, TempDir)) -> Self {
        let world = World::open().await;
        let clock = Arc::new(crate::adapters::system_clock::SystemClock::new());
        let counters = Arc::new(MemoryCounters::new());
        let meter = Arc::new(Meter::new(counters, journal.clone(), world.snapshots.clone(), clock, Vec::new()));
        Self { world, meter, journal, _directory }
    }

    fn caller(&self) -> Caller {
        let account = self.world.snapshots.load().accounts.get("acme").cloned().unwrap();
        Caller { account, key: None, user_id: None, kb_id: None }
    }

    async fn admit(&self, path: &str) -> Result<InFlight, Refusal> {
        self.admit_model(path, "gpt-4o").await
    }

    async fn admit_model(&self, path: &str, model: &str) -> Result<InFlight, Refusal> {
        let (provider, endpoint) = providers::route(&Method::POST, path, CredentialPlace::Bearer).unwrap();
        let rest = r#""messages":[{"role":"user","content":"hi"}],"input":"Gr\u00fc\u00df Gott""#;
        let body = Bytes::from(format!(r#"{{"model":"{model}",{rest}}}"#));
        let call = provider.call(&endpoint, None, &body).unwrap();
        self.meter.admit(self.caller(), provider, endpoint, call).await
    }

    async fn chat(&self) -> InFlight {
        self.admit("/v1/chat/completions").await.unwrap()
    }

    async fn standing(&self) -> Standing {
        self.meter.standings(&self.caller().account).await.first().unwrap().standing
    }

    /// The one event that was settled.
    async fn event(&self) -> UsageEvent {
        let batch = self.journal.next(10).await;
        assert_eq!(batch.events.len(), 1);
        batch.events[0].clone()
    }
}

#[tokio::test]
async fn a_chat_is_held_while_it_runs_and_used_when_it_is_settled() {
    let bench = Bench::open().await;
    let mut chat = bench.chat().await;
    assert_eq!(bench.standing().await, Standing { used: 0, held: 1 });
    assert_eq!(chat.limits()[0].standing.remaining(500), 499);
    chat.sending();
    chat.head(200, Some("application/json"), Some("req_1"));
    let mut out = Vec::new();
    chat.pass(Bytes::from_static(ANSWER), &mut out);
    assert_eq!(out, [Bytes::from_static(ANSWER)]);
    assert!(chat.is_complete());
    chat.settle(Ending::Whole).await;
    assert_eq!(bench.standing().await, Standing { used: 1, held: 0 });
    let event = bench.event().await;
    assert_eq!((event.tokens.prompt, event.tokens.completion, event.source), (11, 7, UsageSource::Provider));
    assert_eq!((event.outcome, event.chats, event.status), (Outcome::Completed, 1, 200));
    assert_eq!(event.request_id.as_deref(), Some("req_1"));
}

#[tokio::test]
async fn what_the_provider_does_not_bill_is_given_back() {
    for (status, ending, outcome) in [
        (502, Ending::BrokeOff, Outcome::NoAnswer),
        (504, Ending::TimedOut, Outcome::NoAnswer),
        (429, Ending::Whole, Outcome::UpstreamError),
        (204, Ending::Whole, Outcome::Completed),
    ] {
        let bench = Bench::open().await;
        let mut chat = bench.chat().await;
        chat.sending();
        if outcome == Outcome::NoAnswer {
            chat.settle_unanswered(ending, status).await;
        } else {
            chat.head(status, None, None);
            chat.settle(ending).await;
        }
        assert_eq!(bench.standing().await, Standing::default(), "{ending:?}");
        let event = bench.event().await;
        assert_eq!((event.outcome, event.chats, event.tokens.total(), event.status), (outcome, 0, 0, status));
    }
}

#[tokio::test]
async fn a_dropped_call_is_booked_as_interrupted_and_kept_only_if_it_was_sent() {
    for sent in [false, true] {
        let bench = Bench::open().await;
        let mut chat = bench.chat().await;
        if sent {
            chat.sending();
        }
        drop(chat);
        let event = bench.event().await;
        assert_eq!((event.outcome, event.chats), (Outcome::Interrupted, u64::from(sent)));
        assert_eq!(bench.standing().await, Standing { used: u64::from(sent), held: 0 });
        assert_eq!(event.source == UsageSource::Estimate && event.tokens.prompt > 0, sent);
    }
}

/// What is charged by the character is charged for what was asked, however it ended, once the provider may have begun.
#[tokio::test]
async fn speech_by_the_character_is_booked_by_the_characters_that_were_asked_for() {
    for (status, is_dropped, characters, source) in [
        (Some(200), false, 9, UsageSource::Provider),
        (Some(200), true, 9, UsageSource::Provider),
        (None, true, 9, UsageSource::Estimate),
        (Some(500), false, 0, UsageSource::Provider),
    ] {
        let bench = Bench::open().await;
        let mut call = bench.admit_model("/v1/audio/speech", "tts-1-hd").await.unwrap();
        call.sending();
        if let Some(status) = status {
            call.head(status, Some("audio/mpeg"), None);
            call.pass(Bytes::from_static(&[0xff; 4_000]), &mut Vec::new());
        }
        if is_dropped {
            drop(call);
        } else {
            call.settle(Ending::Whole).await;
        }
        let event = bench.event().await;
        let quantities = Quantities { characters, ..Quantities::default() };
        assert_eq!((event.quantities, event.source), (quantities, source), "{status:?} {is_dropped}");
        assert_eq!((event.tokens.total(), event.chats), (0, 0), "{status:?} {is_dropped}");
    }
}

#[tokio::test]
async fn a_settlement_that_is_dropped_while_it_estimates_books_its_own_ending() {
    let bench = Bench::open().await;
    let mut chat = bench.chat().await;
    chat.sending();
    chat.head(200, Some("application/json"), None);
    let mut settling = Box::pin(chat.settle(Ending::BrokeOff));
    // One poll starts the estimate on another thread; then the task goes away.
    let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(settling.as_mut().poll(cx).is_ready())).await;
    assert!(!polled);
    drop(settling);
    let event = bench.event().await;
    assert_eq!((event.outcome, event.source, event.chats), (Outcome::UpstreamFailed, UsageSource::Estimate, 1));
}

#[tokio::test]
async fn the_chat_after_the_last_is_refused_and_takes_nothing() {
    let bench = Bench::open().await;
    let mut running = Vec::new();
    for _ in 0..500 {
        running.push(bench.chat().await);
    }
    let Err(Refusal::QuotaUsedUp(quota)) = bench.admit("/v1/chat/completions").await else { panic!("admitted") };
    assert_eq!((quota.limit, quota.standing), (500, Standing { used: 0, held: 500 }));
    assert_eq!(bench.journal.backlog().in_flight, 500);
    // A used-up chat limit refuses chats only.
    assert!(bench.admit("/v1/embeddings").await.is_ok());
}

#[tokio::test]
async fn without_room_in_the_journal_nothing_is_admitted_or_held() {
    let bench = Bench::open().await;
    let mut running = Vec::new();
    loop {
        match bench.admit("/v1/embeddings").await {
            Ok(call) => running.push(call),
            Err(Refusal::JournalFull) => break,
            Err(refusal) => panic!("{refusal:?}"),
        }
    }
    assert!(matches!(bench.admit("/v1/chat/completions").await, Err(Refusal::JournalFull)));
    assert_eq!(bench.standing().await, Standing::default());
    // Every call that was admitted has its room, and gives it back when the ledger has it.
    let admitted = running.len();
    drop(running);
    let mut booked = 0;
    while booked < admitted {
        let batch = bench.journal.next(100).await;
        booked += batch.events.len();
        bench.journal.ack(batch.through);
    }
    bench.journal.maintain();
    assert!(bench.admit("/v1/chat/completions").await.is_ok());
}

#[tokio::test]
async fn a_call_that_is_never_settled_is_booked_as_it_was_admitted() {
    let bench = Bench::open().await;
    let mut chat = bench.chat().await;
    chat.sending();
    let id = chat.id().unwrap();
    // The process ends here: nothing is dropped, nothing is settled.
    std::mem::forget(chat);
    let disk = Folder::open(bench._directory.path()).unwrap();
    let mut left = Vec::new();
    survey(&disk, |stored| left.push(stored)).unwrap();
    let [Stored::Open(event)] = left.as_slice() else { panic!("{left:?}") };
    assert_eq!((event.id, event.outcome, event.chats), (id, Outcome::Interrupted, 1));
    assert_eq!((event.source, event.tokens.completion), (UsageSource::Estimate, 0));
    assert!(event.tokens.prompt > 0);
}

#[tokio::test(start_paused = true)]
async fn strict_sends_no_call_that_a_power_cut_would_take() {
    let bench = Bench::open_on(fakes::journal_with(true)).await;
    // Nothing is ever synced.
    let refused = bench.admit("/v1/chat/completions").await.err();
    assert_eq!(refused, Some(Refusal::JournalFull));
    assert_eq!(bench.standing().await, Standing::default());
    let event = bench.event().await;
    assert_eq!((event.outcome, event.chats, event.tokens.total()), (Outcome::Interrupted, 0, 0));
}

/// Counters that see how far the journal was when they heard of a call's end.
struct Witness {
    inner: MemoryCounters,
    journal: Arc<FileJournal>,
    seen: parking_lot::Mutex<Vec<u64>>,
}

impl CounterStore for Witness {
    fn hold<'a>(
        &'a self,
        id: EventId,
        claims: &'a [Claim],
        terms: Terms,
    ) -> BoxFuture<'a, Result<HoldOutcome, CountersUnavailable>> {
        self.inner.hold(id, claims, terms)
    }

    fn settle(&self, id: EventId, claims: &[Claim], used: &[(CounterKey, u64)]) {
        self.seen.lock().push(self.journal.settled_through());
        self.inner.settle(id, claims, used);
    }

    fn read<'a>(&'a self, counters: &'a [CounterKey]) -> BoxFuture<'a, Result<Vec<Standing>, CountersUnavailable>> {
        self.inner.read(counters)
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Counted>, CountersUnavailable>> {
        self.inner.list()
    }

    fn seed<'a>(&'a self, counters: &'a [(CounterKey, u64)]) -> BoxFuture<'a, Result<(), CountersUnavailable>> {
        self.inner.seed(counters)
    }

    fn changed<'a>(&'a self, tenant: &'a TenantId, revision: i64) -> BoxFuture<'a, ()> {
        self.inner.changed(tenant, revision)
    }

    fn health(&self) -> CountersHealth {
        self.inner.health()
    }
}

/// The recorder books what the journal has at once: a call that was booked before it was counted kept the amounts of its hold,
/// and the tokens of one from a lease were never counted.
#[tokio::test]
async fn a_call_is_counted_before_anybody_can_book_it() {
    let mut bench = Bench::open().await;
    let (journal, seen) = (bench.journal.clone(), parking_lot::Mutex::default());
    let witness = Arc::new(Witness { inner: MemoryCounters::new(), journal: journal.clone(), seen });
    let clock = Arc::new(crate::adapters::system_clock::SystemClock::new());
    let meter = Meter::new(witness.clone(), journal.clone(), bench.world.snapshots.clone(), clock, Vec::new());
    bench.meter = Arc::new(meter);
    let before = journal.settled_through();
    let mut chat = bench.chat().await;
    chat.sending();
    chat.head(200, Some("application/json"), None);
    chat.pass(Bytes::from_static(ANSWER), &mut Vec::new());
    chat.settle(Ending::Whole).await;
    assert_eq!(*witness.seen.lock(), [before]);
    assert_ne!(journal.settled_through(), before);
}

/// Its `usage` stands behind more than anybody keeps.
#[tokio::test]
async fn an_answer_that_is_too_long_to_read_is_booked_with_no_less_than_its_call_held() {
    let numbers = b"1,".repeat(17 * 1024 * 1024);
    let usage = br#"1],"usage":{"prompt_tokens":900,"completion_tokens":90000,"total_tokens":90900}}"#;
    for (path, held, most) in [
        ("/v1/chat/completions", 0, Some(4_000)),
        ("/v1/chat/completions", 9_000, None),
        ("/v1/chat/completions", 9_000, Some(4_000)),
        ("/v1/chat/completions", 3_000, Some(4_000)),
        ("/v1/embeddings", 9_000, None),
    ] {
        let bench = Bench::open().await;
        let mut call = bench.admit_model(path, "no-such-model").await.unwrap();
        if let Some(open) = &mut call.open {
            (open.held_tokens, open.call.output_max) = (held, most);
        }
        call.sending();
        call.head(200, Some("application/json"), None);
        let mut out = Vec::new();
        for piece in [&br#"{"data":["#[..], &numbers, usage] {
            call.pass(Bytes::copy_from_slice(piece), &mut out);
        }
        let tokens = call.settle(Ending::Whole).await;
        assert_eq!(tokens.total(), held.max(tokens.prompt + most.unwrap_or(0)), "{path}");
        assert_eq!(tokens.completion > 0, path != "/v1/embeddings");
        let event = bench.event().await;
        assert_eq!((event.tokens, event.source), (tokens, UsageSource::Estimate));
    }
}
