//! Tests of the turns of a session: what is held while they run, and what each way of ending leaves behind.

use http::Method;
use tempfile::TempDir;

use crate::adapters::file_journal::FileJournal;
use crate::adapters::memory_counters::MemoryCounters;
use crate::adapters::system_clock::SystemClock;
use crate::domain::budget::Sizing;
use crate::domain::event::{Outcome, UsageEvent, UsageSource};
use crate::domain::ids::PlanName;
use crate::domain::plan::{Limit, Metric, Plan, Scope, Standing};
use crate::domain::time::{MICROS_PER_DAY, Micros, Window};
use crate::metering::budget;
use crate::metering::fakes::{self, World};
use crate::metering::identity::{Mode, hash};
use crate::metering::snapshot::Account;
use crate::metering::vault::OwnKey;
use crate::ports::clock::Clock;
use crate::ports::counters::Claim;
use crate::ports::journal::Journal;
use crate::providers::{self, CredentialPlace};

use super::*;

struct Bench {
    world: World,
    meter: Arc<Meter>,
    journal: Arc<FileJournal>,
    clock: Arc<SystemClock>,
    _directory: TempDir,
}

const ASK: &[u8] = br#"{"type":"response.create"}"#;
const AUDIO: &[u8] = br#"{"type":"input_audio_buffer.append","audio":"AAAA"}"#;
const CREATED: &[u8] = br#"{"type":"response.created","response":{"id":"a"}}"#;
const DONE: &[u8] = br#"{"type":"response.done","response":{"id":"a","usage":{"input_tokens":11,"output_tokens":7}}}"#;

impl Bench {
    async fn open() -> Self {
        let world = World::open().await;
        let (journal, _directory) = fakes::journal();
        let clock = Arc::new(SystemClock::new());
        let counters = Arc::new(MemoryCounters::new());
        let meter = Arc::new(Meter::new(counters, journal.clone(), world.snapshots.clone(), clock.clone(), Vec::new()));
        Self { world, meter, journal, clock, _directory }
    }

    fn turns(&self) -> Turns {
        self.turns_of(self.world.snapshots.load().accounts.get("acme").cloned().unwrap())
    }

    fn turns_of(&self, account: Arc<Account>) -> Turns {
        let caller = Caller { account, key: None, user_id: None, kb_id: None };
        let (provider, endpoint) = providers::route(&Method::GET, "/v1/realtime", CredentialPlace::Bearer).unwrap();
        let reader = provider.session(&endpoint, Some("model=gpt-realtime")).unwrap();
        let opening = Opening { caller, secret: "acme".into(), provider, endpoint, reader, request_id: None };
        let (snapshots, store) = (self.world.snapshots.clone(), self.world.store.clone());
        let (admin, starter) = (hash("an admin key that nobody presents"), PlanName::starter());
        let identities = Identities::new(Mode::Dev, admin, starter, snapshots, store, self.clock.clone());
        Turns::new(self.meter.clone(), Arc::new(identities), opening)
    }

    async fn standing(&self) -> Standing {
        let account = self.world.snapshots.load().accounts.get("acme").cloned().unwrap();
        self.meter.standings(&account).await.first().unwrap().standing
    }

    async fn events(&self) -> Vec<UsageEvent> {
        self.journal.next(10).await.events.to_vec()
    }
}

#[tokio::test]
async fn a_turn_is_held_from_its_question_and_used_at_its_end() {
    let bench = Bench::open().await;
    let mut turns = bench.turns();
    turns.client(ASK).await.unwrap();
    assert_eq!((bench.standing().await, turns.are_awaited()), (Standing { used: 0, held: 1 }, true));
    turns.server(CREATED, false).await.unwrap();
    assert!(turns.are_awaited());
    turns.server(DONE, false).await.unwrap();
    assert_eq!((bench.standing().await, turns.are_awaited()), (Standing { used: 1, held: 0 }, false));
    turns.end(Ending::Whole).await;
    let events = bench.events().await;
    assert_eq!(events.len(), 1);
    assert_eq!(
        (events[0].tokens.prompt, events[0].tokens.completion, events[0].source),
        (11, 7, UsageSource::Provider)
    );
    assert_eq!((events[0].outcome, events[0].chats, events[0].status), (Outcome::Completed, 1, 101));
}

#[tokio::test]
async fn what_was_never_begun_is_given_back_and_what_was_begun_is_kept() {
    for (ending, outcome) in [
        (Ending::Whole, Outcome::Completed),
        (Ending::ClientLeft, Outcome::ClientLeft),
        (Ending::BrokeOff, Outcome::UpstreamFailed),
        (Ending::Dropped, Outcome::Interrupted),
    ] {
        for begun in [false, true] {
            let bench = Bench::open().await;
            let mut turns = bench.turns();
            turns.client(AUDIO).await.unwrap();
            assert!(!turns.are_awaited(), "silence is not awaited");
            if begun {
                turns.server(CREATED, false).await.unwrap();
            }
            turns.end(ending).await;
            let kept = u64::from(begun);
            assert_eq!(bench.standing().await, Standing { used: kept, held: 0 }, "{ending:?}");
            let events = bench.events().await;
            assert_eq!((events.len(), events[0].outcome, events[0].chats), (1, outcome, kept), "{ending:?}");
            assert_eq!(events[0].source == UsageSource::Estimate && events[0].tokens.prompt > 0, begun, "{ending:?}");
        }
    }
}

#[tokio::test]
async fn a_session_that_is_dropped_settles_all_of_its_turns() {
    let bench = Bench::open().await;
    let mut turns = bench.turns();
    turns.client(ASK).await.unwrap();
    turns.client(ASK).await.unwrap();
    turns.server(CREATED, false).await.unwrap();
    assert_eq!(bench.standing().await, Standing { used: 0, held: 2 });
    drop(turns);
    // Both went out, and nobody knows how far the second had come.
    assert_eq!(bench.standing().await, Standing { used: 2, held: 0 });
    let events = bench.events().await;
    assert!(events.len() == 2 && events.iter().all(|event| event.outcome == Outcome::Interrupted), "{events:?}");
}

#[tokio::test]
async fn a_session_has_so_many_turns_at_once_and_no_more() {
    let bench = Bench::open().await;
    let mut turns = bench.turns();
    for _ in 0..TURNS_MAX {
        turns.client(ASK).await.unwrap();
    }
    assert_eq!(turns.client(ASK).await, Err(Refusal::TooManyTurns));
    assert_eq!(bench.standing().await.held, TURNS_MAX as u64);
    turns.end(Ending::ClientLeft).await;
    assert_eq!(bench.standing().await, Standing::default());
}

#[tokio::test]
async fn a_turn_is_estimated_by_what_was_asked_and_what_the_turns_before_said() {
    let bench = Bench::open().await;
    let mut turns = bench.turns();
    turns.client(br#"{"type":"conversation.item.create","item":{"text":"12345678"}}"#).await.unwrap();
    turns.client(ASK).await.unwrap();
    turns.server(CREATED, false).await.unwrap();
    turns.server(DONE, false).await.unwrap();
    turns.client(br#"{"type":"conversation.item.create","item":{"text":"1234"}}"#).await.unwrap();
    turns.client(ASK).await.unwrap();
    turns.client(br#"{"type":"conversation.item.create","item":{"text":"12345678"}}"#).await.unwrap();
    turns.server(br#"{"type":"response.created","response":{"id":"b"}}"#, false).await.unwrap();
    turns.end(Ending::BrokeOff).await;
    let events = bench.events().await;
    assert_eq!((events[1].tokens.prompt, events[1].source), (18 + 1 + 2, UsageSource::Estimate));
}

#[tokio::test]
async fn what_is_not_told_of_transcripts_has_to_fit_what_is_left() {
    // A tenth of a second is one token, and at most one of text; in the worst case each of its four bytes is one.
    for (hold, max) in [(Sizing::Estimate, 10), (Sizing::WorstCase, 25)] {
        let bench = Bench::open().await;
        let mut turns = bench.turns();
        let limit = Limit { scope: Scope::Tenant, metric: Metric::Tokens, window: Window::Month, max };
        let mut plan = Plan { limits: vec![limit], ..Plan::unlimited(PlanName::starter()) };
        plan.budget.hold = hold;
        let account = Account { plan: Some(Arc::new(plan)), ..(*turns.caller.account).clone() };
        turns.caller.account = Arc::new(account);
        let input = r#"{"turn_detection":null,"transcription":{"model":"gpt-4o-transcribe"}}"#;
        let updated = format!(r#"{{"type":"session.updated","session":{{"audio":{{"input":{input}}}}}}}"#);
        turns.server(updated.as_bytes(), false).await.unwrap();
        let append = format!(r#"{{"type":"input_audio_buffer.append","audio":"{}"}}"#, "A".repeat(6_400));
        let commit = br#"{"type":"input_audio_buffer.commit"}"#;
        for item in 0..5 {
            turns.client(append.as_bytes()).await.unwrap();
            turns.client(commit).await.unwrap();
            // The last two wait for the provider.
            if item < 3 {
                let committed = format!(r#"{{"type":"input_audio_buffer.committed","item_id":"{item}"}}"#);
                turns.server(committed.as_bytes(), false).await.unwrap();
            }
        }
        turns.client(append.as_bytes()).await.unwrap();
        let refused = turns.client(commit).await;
        assert!(matches!(refused, Err(Refusal::QuotaUsedUp(_))), "{refused:?}");
        assert!(turns.are_awaited());
        turns.end(Ending::ClientLeft).await;
        let events = bench.events().await;
        let estimated = |event: &UsageEvent| (event.tokens.prompt, event.source) == (1, UsageSource::Estimate);
        assert!(events.len() == 3 && events.iter().all(estimated), "{events:?}");
    }
}

#[tokio::test]
async fn whose_objects_a_session_reaches_follows_from_the_key_that_it_was_opened_with() {
    const NAMES: &[u8] = br#"{"type":"conversation.item.create","item":{"type":"message","role":"user",
        "content":[{"type":"input_file","file_id":"file-of-another"}]}}"#;
    let bench = Bench::open().await;
    let of_operator = bench.world.snapshots.load().accounts.get("acme").cloned().unwrap();
    let own = |key: &str| {
        let own_keys = [(ProviderId::new("openai"), OwnKey::Open(key.into()))].into_iter().collect();
        Arc::new(Account { own_keys, ..(*of_operator).clone() })
    };
    let changed = Err(Refusal::ProviderKeyChanged { provider: "openai".into() });
    for (what, opened, named, found) in [
        ("the operator's", of_operator.clone(), true, Ok(())),
        ("its own, which was removed", own("sk-one"), false, changed),
    ] {
        let mut turns = bench.turns_of(opened);
        assert_eq!(turns.named(NAMES).unwrap().is_some(), named, "{what}");
        assert_eq!(turns.look_up().await, found, "{what}");
        // Whatever is known of the tenant by now, the connection is the one that was opened.
        for now in [of_operator.clone(), own("sk-one"), own("sk-other")] {
            turns.caller.account = now;
            assert_eq!(turns.named(NAMES).unwrap().is_some(), named, "{what}");
        }
    }
    let provider = ProviderId::new("openai");
    let is_same = |one: &Account, other: &Account| one.own_keys.is_same(&other.own_keys, &provider);
    assert!(is_same(&own("sk-one"), &own("sk-one")) && is_same(&of_operator, &of_operator));
    assert!(!is_same(&own("sk-one"), &own("sk-other")) && !is_same(&of_operator, &own("sk-one")));
}

#[tokio::test]
async fn room_for_a_turn_was_taken_in_the_period_of_now_and_not_in_that_of_the_turn() {
    let bench = Bench::open().await;
    let turns = bench.turns();
    let limit = Limit { scope: Scope::Tenant, metric: Metric::Tokens, window: Window::Day, max: 1_000_000 };
    let plan = Arc::new(Plan { limits: vec![limit], ..Plan::unlimited(PlanName::starter()) });
    let account = Account { plan: Some(plan.clone()), ..(*turns.caller.account).clone() };
    let caller = Caller { account: Arc::new(account), ..turns.caller.clone() };
    let now = bench.clock.now();
    let begun = Micros(now.0 - MICROS_PER_DAY);
    let held = async |at| {
        let limits = budget::limits(&caller, &plan, at);
        let claims: Vec<Claim> = limits.map(|(_, counter)| Claim { counter, amount: 0, max: None }).collect();
        bench.meter.read(&claims).await.unwrap().first().unwrap().held
    };
    let call = Call::new("gpt-4o".to_owned(), Prompt::TextBytes(4_000));
    let of = (turns.provider, &turns.endpoint);
    let room = bench.meter.take_room((&caller, Some(begun)), of, &call).await.unwrap().unwrap();
    assert!(held(begun).await > 0 && held(now).await == 0);
    drop(room);
    assert_eq!(held(begun).await, 0);
}
