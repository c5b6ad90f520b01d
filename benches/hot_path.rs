//! What a call costs inside the gateway, without a network: nanoseconds and allocations of checking its head, routing,
//! reading the request, admission (with counters in the process, and from leases of shared ones), reading the answer, settlement and the
//! price.
//!
//! `cargo bench --bench hot_path [-- FILTER]`. Each line is the median of [`ROUNDS`] rounds of about [`ROUND`]; the
//! allocations of one operation are exact. Machine and commit belong beside every number that is kept.

use std::alloc::System;
use std::collections::HashMap;
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use http::Method;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use tollgate::adapters::file_journal::disk::Folder;
use tollgate::adapters::file_journal::{FileJournal, Options};
use tollgate::adapters::memory_counters::MemoryCounters;
use tollgate::adapters::memory_shared::MemoryShared;
use tollgate::adapters::sqlite::SqliteLedger;
use tollgate::adapters::system_clock::SystemClock;
use tollgate::config::price_file;
use tollgate::domain::plan::{Limit, Metric, Plan, Scope};
use tollgate::domain::price::tariff::{Pricing, Tariff};
use tollgate::domain::price::{PriceBook, ServiceTier};
use tollgate::domain::settlement::Ending;
use tollgate::domain::tenant::Tenant;
use tollgate::domain::time::{Micros, Window};
use tollgate::domain::tokens::Tokens;
use tollgate::domain::zone::Zone;
use tollgate::edge::hygiene::Head;
use tollgate::edge::hygiene::chunks::Chunks;
use tollgate::metering::in_flight::{Caller, InFlight};
use tollgate::metering::meter::Meter;
use tollgate::metering::node_counters::{self, Leases, NodeCounters, Outside};
use tollgate::metering::snapshot::{Account, Snapshot, Snapshots};
use tollgate::metering::vault::OwnKeys;
use tollgate::ports::counters::CounterStore;
use tollgate::ports::journal::{Journal, Slot};
use tollgate::ports::shared::{Member, NodeId};
use tollgate::ports::sink::Sink;
use tollgate::providers::{self, Call, CredentialPlace, Endpoint, Provider};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Rounds of which the median is shown.
const ROUNDS: usize = 9;
/// About how long a round lasts.
const ROUND: Duration = Duration::from_millis(40);
/// Calls that are in flight at once while admission and settlement are timed apart.
const CALLS: usize = 512;
/// What the journal may take on disk, as by default.
const JOURNAL_BYTES: u64 = 1 << 30;
/// Events of the streams that are read, without head and tail.
const EVENTS: usize = 100;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Prints the table and leaves out what was not asked for.
struct Table {
    filter: Option<String>,
}

impl Table {
    fn wants(&self, name: &str) -> bool {
        self.filter.as_deref().is_none_or(|filter| name.contains(filter))
    }

    /// Times `once`, which does `units` operations each time it is called.
    fn time(&self, name: &str, units: u64, mut once: impl FnMut() -> Outcome) -> Outcome {
        if !self.wants(name) {
            return Ok(());
        }
        once()?;
        let start = Instant::now();
        once()?;
        let times = (ROUND.as_nanos() / start.elapsed().as_nanos().max(1)).clamp(1, 1_000_000);
        let mut rounds = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            for _ in 0..times {
                once()?;
            }
            rounds.push(start.elapsed().as_nanos() * 10 / times / u128::from(units));
        }
        let region = Region::new(ALLOCATOR);
        once()?;
        let change = region.change();
        self.print(
            name,
            &mut rounds,
            u64::try_from(change.allocations)?,
            u64::try_from(change.bytes_allocated)?,
            units,
        );
        Ok(())
    }

    fn print(&self, name: &str, tenths_ns: &mut [u128], allocations: u64, bytes: u64, units: u64) {
        tenths_ns.sort_unstable();
        let median = tenths_ns.get(tenths_ns.len() / 2).copied().unwrap_or_default();
        let tenths = |value: u64| format!("{}.{}", value / 10, value % 10);
        println!(
            "{name:<44} {:>10} ns {:>8} allocations {:>10} bytes",
            format!("{}.{}", median / 10, median % 10),
            tenths(allocations * 10 / units),
            bytes / units
        );
    }
}

fn main() -> Outcome {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let table = Table { filter };
    let book = Arc::new(price_file::builtin()?);
    prices(&table, &book)?;
    hygiene(&table)?;
    requests(&table)?;
    answers(&table)?;
    admissions(&table, book.clone())?;
    journal(&table, book)
}

fn prices(table: &Table, book: &Arc<PriceBook>) -> Outcome {
    let at: Micros = "2026-11-24T10:00:00Z".parse()?;
    let tokens = Tokens { prompt: 3_000, cached: 1_024, completion: 500, reasoning: 100, ..Tokens::default() };
    for (name, provider, model, tier) in [
        ("price: by name", "openai", "gpt-4o-mini-2024-07-18", ServiceTier::Standard),
        ("price: by name, flex, 272k step", "openai", "gpt-6-sol", ServiceTier::Flex),
        ("price: dated snapshot of a pattern", "openai", "gpt-6-sol-2026-08-01", ServiceTier::Standard),
        ("price: last pattern", "gemini", "gemini-robotics-er-2-preview", ServiceTier::Standard),
        ("price: models/ in front", "gemini", "models/gemini-2.5-flash", ServiceTier::Standard),
        ("price: unknown model", "gemini", "gemini-99-ultra-preview", ServiceTier::Standard),
    ] {
        table.time(name, 1, || {
            black_box(book.charge(black_box(provider), black_box(model), tier, black_box(&tokens), at));
            Ok(())
        })?;
    }
    Ok(())
}

/// A request and where it goes.
struct Asked {
    provider: &'static dyn Provider,
    endpoint: Endpoint,
    body: Bytes,
}

fn asked(path: &str, place: CredentialPlace, body: String) -> Outcome<Asked> {
    let (provider, endpoint) =
        providers::route(&Method::POST, path, place).map_err(|refusal| format!("{refusal:?}"))?;
    Ok(Asked { provider, endpoint, body: body.into() })
}

fn call(asked: &Asked) -> Outcome<Call> {
    let call = asked.provider.call(&asked.endpoint, Some("alt=sse"), &asked.body);
    Ok(call.map_err(|refusal| format!("{refusal:?}"))?)
}

fn chat(prompt_bytes: usize, stream: bool) -> String {
    let prompt = "word ".repeat(prompt_bytes / 5);
    format!(r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{prompt}"}}],"stream":{stream}}}"#)
}

fn contents(prompt_bytes: usize) -> String {
    format!(r#"{{"contents":[{{"role":"user","parts":[{{"text":"{}"}}]}}]}}"#, "word ".repeat(prompt_bytes / 5))
}

/// The head of a chat as OpenAI's Python SDK sends it.
const HEAD: &str = "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.example.com\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Connection: keep-alive\r\nAccept: application/json\r\nContent-Type: application/json\r\nUser-Agent: OpenAI/Python 2.8.1\r\n\
    X-Stainless-Lang: python\r\nX-Stainless-Package-Version: 2.8.1\r\nX-Stainless-OS: Linux\r\nX-Stainless-Arch: x64\r\n\
    X-Stainless-Runtime: CPython\r\nX-Stainless-Runtime-Version: 3.12.3\r\nX-Stainless-Async: false\r\n\
    x-stainless-retry-count: 0\r\nx-stainless-read-timeout: 600\r\nContent-Length: 1042\r\n\
    Authorization: Bearer tg_live_0123456789abcdefghijklmnopqrstuv012345\r\n\r\n";

/// What looks at the bytes of a request before it is parsed: 1 µs at most for a head.
fn hygiene(table: &Table) -> Outcome {
    table.time("hygiene: the head of an SDK", 1, || {
        let whole = Head::default().look(black_box(HEAD.as_bytes()));
        black_box(whole.map_err(|refusal| format!("{refusal:?}"))?.ok_or("not over")?);
        Ok(())
    })?;
    // As large as pingora reads at once, and as small as an SDK that streams a file writes.
    for (name, chunk_bytes) in
        [("hygiene: 64 KB in chunks of 8 KB", 8192), ("hygiene: 64 KB in chunks of 64 bytes", 64)]
    {
        let mut body = Vec::new();
        for _ in 0..65_536 / chunk_bytes {
            body.extend_from_slice(format!("{chunk_bytes:x}\r\n{}\r\n", "x".repeat(chunk_bytes)).as_bytes());
        }
        body.extend_from_slice(b"0\r\n\r\n");
        table.time(name, 1, || {
            black_box(Chunks::default().follow(black_box(&body)).map_err(|malformed| format!("{malformed:?}"))?);
            Ok(())
        })?;
    }
    Ok(())
}

const CHAT: &str = "/v1/chat/completions";
const GENERATE: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const GENERATE_STREAM: &str = "/v1beta/models/gemini-2.5-flash:streamGenerateContent";

fn requests(table: &Table) -> Outcome {
    for (name, path, place) in [
        ("route: chat completions", CHAT, CredentialPlace::Bearer),
        ("route: streamGenerateContent", GENERATE_STREAM, CredentialPlace::Google),
    ] {
        table.time(name, 1, || {
            black_box(providers::route(&Method::POST, black_box(path), place).is_ok());
            Ok(())
        })?;
    }
    for (name, path, place, body) in [
        ("request: chat, 1 KB", CHAT, CredentialPlace::Bearer, chat(1_000, false)),
        ("request: chat, stream, 1 KB", CHAT, CredentialPlace::Bearer, chat(1_000, true)),
        ("request: chat, stream, 100 KB", CHAT, CredentialPlace::Bearer, chat(100_000, true)),
        ("request: generateContent, 1 KB", GENERATE, CredentialPlace::Google, contents(1_000)),
    ] {
        let asked = asked(path, place, body)?;
        table.time(name, 1, || {
            black_box(call(&asked)?);
            Ok(())
        })?;
    }
    Ok(())
}

/// A recorded-looking answer and what reads it.
struct Answer {
    asked: Asked,
    content_type: &'static str,
    chunks: Vec<Bytes>,
}

fn openai_events() -> Vec<Bytes> {
    let head = r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_1","choices":["#;
    let event = format!(
        "{head}{}",
        "{\"index\":0,\"delta\":{\"content\":\" word\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"aB3dE\"}\n\n"
    );
    let usage = format!(
        "{head}{}",
        "],\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":100,\"total_tokens\":120,\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0,\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}}\n\n"
    );
    let mut chunks = vec![Bytes::from(event); EVENTS];
    chunks.push(usage.into());
    chunks.push(Bytes::from_static(b"data: [DONE]\n\n"));
    chunks
}

fn gemini_events() -> Vec<Bytes> {
    let event = |count: usize| {
        format!(
            "data: {{\"candidates\": [{{\"content\": {{\"parts\": [{{\"text\": \" word\"}}],\"role\": \"model\"}},\"index\": 0}}],\"usageMetadata\": {{\"promptTokenCount\": 20,\"candidatesTokenCount\": {count},\"totalTokenCount\": {},\"promptTokensDetails\": [{{\"modality\": \"TEXT\",\"tokenCount\": 20}}]}},\"modelVersion\": \"gemini-2.5-flash\",\"responseId\": \"abc\"}}\r\n\r\n",
            count + 20
        )
    };
    (1..=EVENTS).map(|count| event(count).into()).collect()
}

fn openai_document() -> Bytes {
    let text = "word ".repeat(200);
    format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o-mini-2024-07-18","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null,"annotations":[]}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":20,"completion_tokens":200,"total_tokens":220,"prompt_tokens_details":{{"cached_tokens":0,"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0}}}},"service_tier":"default"}}"#
    )
    .into()
}

fn read(answer: &Answer, call: &Call, out: &mut Vec<Bytes>) -> Outcome {
    let mut reader = answer.asked.provider.reader(&answer.asked.endpoint, call, Some(answer.content_type));
    for chunk in &answer.chunks {
        out.clear();
        reader.pass(chunk.clone(), out);
    }
    reader.flush(out);
    let reading = reader.reading();
    reading.tokens.ok_or("the answer's usage was not read")?;
    black_box(reading);
    Ok(())
}

fn answers(table: &Table) -> Outcome {
    let sse = "text/event-stream";
    let events = u64::try_from(EVENTS)?;
    let openai = |stream| asked(CHAT, CredentialPlace::Bearer, chat(100, stream));
    let gemini = || asked(GENERATE_STREAM, CredentialPlace::Google, contents(100));
    let whole = Bytes::from(openai_events().concat());
    let document =
        |chunks| Ok::<_, Box<dyn Error>>(Answer { asked: openai(false)?, content_type: "application/json", chunks });
    let pieces = openai_document().chunks(1_460).map(Bytes::copy_from_slice).collect();
    for (name, units, answer) in [
        (
            "read: chat event, one a chunk",
            events,
            Answer { asked: openai(true)?, content_type: sse, chunks: openai_events() },
        ),
        (
            "read: chat event, all in one chunk",
            events,
            Answer { asked: openai(true)?, content_type: sse, chunks: vec![whole] },
        ),
        (
            "read: Gemini event, one a chunk",
            events,
            Answer { asked: gemini()?, content_type: sse, chunks: gemini_events() },
        ),
        ("read: chat document of 1.5 KB", 1, document(vec![openai_document()])?),
        ("read: chat document of 1.5 KB in segments", 1, document(pieces)?),
    ] {
        let call = call(&answer.asked)?;
        let mut out = Vec::with_capacity(8);
        table.time(name, units, || read(&answer, &call, &mut out))?;
    }
    Ok(())
}

/// Which counters a call is admitted on.
enum On {
    Process,
    /// A lease in hand. The store is in memory: what telling it costs is its thread's, and not timed.
    Lease(Leased),
}

/// One gateway that shares its counters, and its tasks.
struct Leased {
    node: Arc<NodeCounters>,
    runtime: Runtime,
    _ledger: TempDir,
}

fn leased() -> Outcome<Leased> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let directory = tempfile::tempdir()?;
    let location = directory.path().join("ledger.db");
    let ledger = Arc::new(runtime.block_on(SqliteLedger::open(&location.to_string_lossy(), true))?);
    runtime.block_on(ledger.migrate())?;
    let clock = Arc::new(SystemClock::new());
    let member = Member { node: NodeId(1), life: 1 };
    let leases = Some(Leases { units_max: u64::from(u32::MAX), lasts: Duration::from_secs(60) });
    let options = node_counters::Options { member, call_budget: Duration::from_secs(1), leases };
    let shared = Arc::new(MemoryShared::new(clock.clone()));
    let snapshots = Arc::new(Snapshots::from(Snapshot::default()));
    let outside = Outside { shared, usage: ledger.clone(), tenants: ledger, snapshots, clock };
    let node = Arc::new(NodeCounters::new(options, outside));
    runtime.spawn({
        let node = node.clone();
        async move { node.run().await }
    });
    Ok(Leased { node, runtime, _ledger: directory })
}

struct Bench {
    meter: Arc<Meter>,
    on: On,
    journal: Arc<FileJournal>,
    _directory: TempDir,
    caller: Caller,
    answer: Answer,
}

fn bench(book: Arc<PriceBook>, limits: Vec<Limit>, on: On) -> Outcome<Bench> {
    let plan = Plan { limits, ..Plan::unlimited("bench".parse()?) };
    let created_at = Micros(0);
    let tenant = Tenant {
        id: "acme".parse()?,
        name: "Acme".into(),
        plan: plan.name.clone(),
        suspended: false,
        zone: Zone::UTC,
        created_at,
    };
    let account = Arc::new(Account { tenant, plan: Some(Arc::new(plan)), own_keys: OwnKeys::default(), revision: 0 });
    let tariff = Arc::new(Tariff::new(book.clone(), Pricing::default()));
    let tariffs = HashMap::from([(account.tenant.plan.clone(), tariff)]);
    let snapshots = Arc::new(Snapshots::from(Snapshot { prices: book, tariffs, ..Snapshot::default() }));
    let directory = tempfile::tempdir()?;
    let disk = Arc::new(Folder::open(directory.path())?);
    let (journal, _) = FileJournal::open(disk, Options { bytes_max: JOURNAL_BYTES, strict: false })?;
    let journal = Arc::new(journal);
    let clock = Arc::new(SystemClock::new());
    let counters: Arc<dyn CounterStore> = match &on {
        On::Process => Arc::new(MemoryCounters::new()),
        On::Lease(leased) => leased.node.clone(),
    };
    let meter = Arc::new(Meter::new(counters, journal.clone(), snapshots, clock, Vec::new()));
    let caller = Caller { account, key: None, user_id: Some("user-1".into()), kb_id: None };
    let asked = asked(CHAT, CredentialPlace::Bearer, chat(100, false))?;
    let answer = Answer { asked, content_type: "application/json", chunks: vec![openai_document()] };
    Ok(Bench { meter, on, journal, _directory: directory, caller, answer })
}

/// Everything in memory is ready at once; a call that waits is a bug of the bench.
fn now<T>(future: impl Future<Output = T>) -> Outcome<T> {
    Ok(future.now_or_never().ok_or("a step had to wait")?)
}

impl Bench {
    fn admit(&self, call: &Call) -> Outcome<InFlight> {
        let Asked { provider, endpoint, .. } = &self.answer.asked;
        let admitted = self.meter.admit(self.caller.clone(), *provider, endpoint.clone(), call.clone());
        Ok(now(admitted)?.map_err(|refusal| format!("{refusal:?}"))?)
    }

    /// Has a lease in hand, if calls are to be admitted from one.
    fn warm_up(&self, call: &Call) -> Outcome {
        let On::Lease(leased) = &self.on else { return Ok(()) };
        let Asked { provider, endpoint, .. } = &self.answer.asked;
        let admitted = self.meter.admit(self.caller.clone(), *provider, endpoint.clone(), call.clone());
        let admitted = leased.runtime.block_on(admitted).map_err(|refusal| format!("{refusal:?}"))?;
        leased.runtime.block_on(admitted.settle_unanswered(Ending::BrokeOff, 502));
        self.empty_journal()
    }

    fn empty_journal(&self) -> Outcome {
        let batch = now(self.journal.next(usize::MAX))?;
        if let On::Lease(leased) = &self.on {
            leased.node.booked(&batch.events);
        }
        self.journal.ack(batch.through);
        self.journal.maintain();
        Ok(())
    }
}

/// Admission and settlement need each other, so many calls are admitted and then settled, and each half is timed.
fn admissions(table: &Table, book: Arc<PriceBook>) -> Outcome {
    let chats = |window, max| Limit { scope: Scope::Tenant, metric: Metric::Chats, window, max };
    let both = || vec![chats(Window::Month, u64::MAX), chats(Window::Day, u64::MAX)];
    let of = |scope, metric| Limit { scope, metric, window: Window::Month, max: 1 << 53 };
    let three =
        || vec![of(Scope::Tenant, Metric::Chats), of(Scope::Tenant, Metric::Tokens), of(Scope::User, Metric::Cost)];
    for (name, limits, is_leased) in [
        ("unlimited", Vec::new(), false),
        ("chats a month and a day", both(), false),
        ("chats a month and a day, from a lease", both(), true),
        ("chats, tokens and a user's cost", three(), false),
    ] {
        let (admit, settle) = (format!("admit: {name}"), format!("settle: {name}"));
        if !table.wants(&admit) && !table.wants(&settle) {
            continue;
        }
        let bench = bench(book.clone(), limits, if is_leased { On::Lease(leased()?) } else { On::Process })?;
        let call = call(&bench.answer.asked)?;
        bench.warm_up(&call)?;
        let units = u64::try_from(CALLS)?;
        let (mut admit_tenths, mut settle_tenths) = (Vec::new(), Vec::new());
        let mut counts = [(0, 0), (0, 0)];
        for _ in 0..ROUNDS * 10 {
            let mut calls = Vec::with_capacity(CALLS);
            let (region, start) = (Region::new(ALLOCATOR), Instant::now());
            for _ in 0..CALLS {
                calls.push(bench.admit(&call)?);
            }
            admit_tenths.push(start.elapsed().as_nanos() * 10 / u128::from(units));
            let admitted = region.change();
            for in_flight in &mut calls {
                in_flight.sending();
                in_flight.head(200, Some("application/json"), Some("req_1"));
                let mut out = Vec::with_capacity(1);
                in_flight.pass(openai_document(), &mut out);
            }
            let (region, start) = (Region::new(ALLOCATOR), Instant::now());
            for in_flight in calls {
                now(in_flight.settle(Ending::Whole))?;
            }
            settle_tenths.push(start.elapsed().as_nanos() * 10 / u128::from(units));
            let settled = region.change();
            counts = [(admitted.allocations, admitted.bytes_allocated), (settled.allocations, settled.bytes_allocated)];
            bench.empty_journal()?;
        }
        let [admitted, settled] = counts;
        table.print(&admit, &mut admit_tenths, u64::try_from(admitted.0)?, u64::try_from(admitted.1)?, units);
        table.print(&settle, &mut settle_tenths, u64::try_from(settled.0)?, u64::try_from(settled.1)?, units);
    }
    Ok(())
}

/// One of the things that are done with many calls at once.
type JournalStep<'a> = &'a mut dyn FnMut(&mut Vec<Slot>) -> Outcome;

/// The journal alone: what its two records cost a request, and what reading them back costs the recorder.
fn journal(table: &Table, book: Arc<PriceBook>) -> Outcome {
    if !table.wants("journal: admit") && !table.wants("journal: settle") && !table.wants("journal: read back") {
        return Ok(());
    }
    let bench = bench(book, Vec::new(), On::Process)?;
    let event = {
        let mut call = bench.admit(&call(&bench.answer.asked)?)?;
        call.sending();
        call.head(200, Some("application/json"), Some("req_1"));
        call.pass(openai_document(), &mut Vec::new());
        now(call.settle(Ending::Whole))?;
        let batch = now(bench.journal.next(1))?;
        bench.journal.ack(batch.through);
        batch.events.first().cloned().ok_or("no event")?
    };
    let units = u64::try_from(CALLS)?;
    let mut tenths: [Vec<u128>; 3] = Default::default();
    let mut counts = [(0, 0); 3];
    for _ in 0..ROUNDS * 10 {
        let mut slots = Vec::with_capacity(CALLS);
        let mut steps: [JournalStep<'_>; 3] = [
            &mut |slots| {
                for _ in 0..CALLS {
                    slots.push(bench.journal.admit(&event)?);
                }
                Ok(())
            },
            &mut |slots| {
                for slot in slots.drain(..) {
                    bench.journal.settle(slot, &event);
                }
                Ok(())
            },
            &mut |_| {
                let batch = now(bench.journal.next(CALLS))?;
                bench.journal.ack(batch.through);
                Ok(())
            },
        ];
        for ((step, tenths), counts) in steps.iter_mut().zip(&mut tenths).zip(&mut counts) {
            let (region, start) = (Region::new(ALLOCATOR), Instant::now());
            step(&mut slots)?;
            tenths.push(start.elapsed().as_nanos() * 10 / u128::from(units));
            let change = region.change();
            *counts = (change.allocations, change.bytes_allocated);
        }
        bench.journal.maintain();
    }
    for ((name, tenths), (allocations, bytes)) in
        ["journal: admit", "journal: settle", "journal: read back"].into_iter().zip(&mut tenths).zip(counts)
    {
        table.print(name, tenths, u64::try_from(allocations)?, u64::try_from(bytes)?, units);
    }
    Ok(())
}
