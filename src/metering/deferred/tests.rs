//! Bills of units over fakes: what each ending is booked as, and that it is booked once.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::domain::event::{Outcome, UsageSource};
use crate::domain::ids::PlanName;
use crate::domain::money::PicoUsd;
use crate::domain::plan::Plan;
use crate::domain::price::pattern::Pattern;
use crate::domain::price::rates::Rates;
use crate::domain::price::tariff::Percent;
use crate::domain::price::{ModelPrices, Origin, PriceBook, PriceRow, Priced, ServiceTier};
use crate::domain::time::Micros;
use crate::metering::fakes::units::{FakeAsk, FakeUnits, unit};
use crate::metering::fakes::{self, StoppedClock, World};
use crate::ports::usage::UsageStore;

mod going;

const HOUR_US: i64 = 3_600 * MICROS_PER_SECOND;

/// One node: its bills go to `world.store`.
struct Bench {
    world: World,
    units: Arc<FakeUnits>,
    ask: FakeAsk,
    deferred: Deferred,
    running: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

/// `m` costs 2 for a token of input and 4 for one of output, twice that above 100 of input; half of it in batches. A search
/// of the web costs 1,000 everywhere.
fn prices() -> PriceBook {
    let row = |tier, above, input, output| PriceRow {
        tier,
        from: None,
        above,
        rates: Rates { input: Some(input), output: Some(output), web_search: Some(1_000), ..Rates::default() },
    };
    let model = ModelPrices {
        provider: "openai".into(),
        name: "m".into(),
        names: vec![Pattern::parse("m").unwrap()],
        except: Vec::new(),
        unverified: None,
        rows: vec![
            row(ServiceTier::Standard, 0, 2, 4),
            row(ServiceTier::Batch, 0, 1, 2),
            row(ServiceTier::Batch, 100, 2, 4),
        ],
        origin: Origin::default(),
    };
    let gemini = ModelPrices { provider: "gemini".into(), ..model.clone() };
    PriceBook::new("test".into(), vec![model, gemini]).unwrap()
}

impl Bench {
    async fn open() -> Self {
        let world = World::open_with(prices()).await;
        let (journal, directory) = fakes::journal();
        let (store, units) = (world.store.clone(), Arc::new(FakeUnits::default()));
        let recorder = Arc::new(Recorder::new(journal.clone(), store.clone(), store.clone(), Vec::new()));
        let running = tokio::spawn({
            let recorder = recorder.clone();
            async move { recorder.run().await }
        });
        let deferred = Deferred::new(Books {
            units: units.clone(),
            usage: store.clone(),
            tenants: store,
            journal,
            counters: world.counters.clone(),
            recorder,
            snapshots: world.snapshots.clone(),
            clock: Arc::new(StoppedClock(World::now())),
        });
        Self { world, units, ask: FakeAsk::default(), deferred, running, _directory: directory }
    }

    fn begin(&self, provider: &'static str, name: &str, age_us: i64) -> DeferredUnit {
        let unit = unit(provider, name, Micros(World::now().0 - age_us));
        self.units.add(unit.clone());
        unit
    }

    /// One turn of questions.
    async fn turn(&self) {
        self.deferred.turn(&self.ask, Duration::from_secs(10)).await;
    }

    /// The bill of a unit, if it is booked.
    async fn bill(&self, unit: &DeferredUnit) -> Option<UsageEvent> {
        let found = self.world.store.event(None, unit.event.of_bill()).await.unwrap();
        found.map(|stored| stored.event)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn response(status: &str, usage: &str) -> String {
    format!(
        r#"{{"id":"resp_1","object":"response","background":true,"status":"{status}","model":"m","output":[{{"type":"message","content":[{{"type":"output_text","text":"12345678"}}]}}],"usage":{usage}}}"#
    )
}

const USED: &str = r#"{"input_tokens":10,"output_tokens":5,"total_tokens":15}"#;

#[tokio::test(start_paused = true)]
async fn every_ending_of_a_response_has_its_bill() {
    use Outcome::{ClientLeft, Completed, UpstreamError, UpstreamFailed};
    use UsageSource::{Estimate, Provider};
    let rows = [
        ("completed", USED, Some((Completed, Provider, 10, 5, Some(40), Priced::Priced))),
        ("incomplete", USED, Some((Completed, Provider, 10, 5, Some(40), Priced::Priced))),
        ("failed", USED, Some((UpstreamFailed, Provider, 10, 5, Some(40), Priced::Priced))),
        ("failed", "null", Some((UpstreamError, Provider, 0, 0, Some(0), Priced::Free))),
        ("cancelled", "null", Some((ClientLeft, Estimate, 12, 2, Some(32), Priced::Priced))),
        ("completed", "null", Some((Completed, Estimate, 12, 2, Some(32), Priced::Priced))),
        ("queued", "null", None),
        ("in_progress", "null", None),
        ("unheard of", USED, None),
    ];
    for (status, usage, expected) in rows {
        let bench = Bench::open().await;
        let unit = bench.begin("openai", "responses/resp_1", HOUR_US);
        bench.ask.says("/v1/responses/resp_1", 200, &response(status, usage));
        bench.turn().await;
        let bill = bench.bill(&unit).await;
        let said = bill.as_ref().map(|bill| {
            let cost = bill.cost.map(|cost| cost.0);
            (bill.outcome, bill.source, bill.tokens.prompt, bill.tokens.completion, cost, bill.priced)
        });
        assert_eq!(said, expected, "{status} {usage}");
        assert_eq!(bench.units.waiting(), usize::from(expected.is_none()), "{status} {usage}");
        let Some(bill) = bill else { continue };
        assert_eq!((bill.chats, bill.requested_at, bill.tenant.as_str()), (0, unit.requested_at, "acme"));
        assert_eq!((bill.key, bill.user_id, &*bill.requested_model), (unit.key, unit.user_id, "asked"));
        assert_eq!((bill.duration_us, bill.request_id.as_deref()), (HOUR_US as u64, Some("responses/resp_1")));
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_model_has_the_prices_of_the_one_that_was_asked_for() {
    for (requested, cost, priced) in [("m", Some(40), Priced::Incomplete), ("asked", None, Priced::Unpriced)] {
        let bench = Bench::open().await;
        let unit = unit("openai", "responses/resp_1", Micros(World::now().0 - HOUR_US));
        let unit = DeferredUnit { requested_model: requested.into(), ..unit };
        bench.units.add(unit.clone());
        let answer = response("completed", USED).replace(r#""model":"m""#, r#""model":"m-of-tomorrow""#);
        bench.ask.says("/v1/responses/resp_1", 200, &answer);
        bench.turn().await;
        let bill = bench.bill(&unit).await.unwrap();
        assert_eq!((&*bill.model, bill.cost.map(|cost| cost.0), bill.priced), ("m-of-tomorrow", cost, priced));
        assert_eq!(bill.billable, bill.cost);
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_cannot_say_is_waited_for_three_days() {
    let long = 73 * HOUR_US;
    let none = "this is no answer".to_owned();
    let other = response("completed", USED).replace("resp_1", "resp_2");
    let rows = [
        (404, &none, HOUR_US, Some(404)),
        (410, &none, HOUR_US, Some(404)),
        (0, &none, HOUR_US, None),
        (503, &none, HOUR_US, None),
        (401, &none, HOUR_US, None),
        (202, &none, HOUR_US, None),
        (200, &none, HOUR_US, None),
        (200, &other, HOUR_US, None),
        (0, &none, long, Some(0)),
        (200, &response("queued", "null"), long, Some(0)),
    ];
    for (status, body, age_us, expected) in rows {
        let bench = Bench::open().await;
        let unit = bench.begin("openai", "responses/resp_1", age_us);
        bench.ask.says("/v1/responses/resp_1", status, body);
        bench.turn().await;
        let bill = bench.bill(&unit).await;
        assert_eq!(bill.as_ref().map(|bill| bill.status), expected, "{status} {body}");
        if let Some(bill) = bill {
            let said = (bill.outcome, bill.source, bill.tokens.total());
            assert_eq!(said, (Outcome::UpstreamFailed, UsageSource::Estimate, 12), "{status} {body}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_unit_is_billed_once_however_often_it_is_told() {
    let bench = Bench::open().await;
    let unit = bench.begin("openai", "responses/resp_1", HOUR_US);
    let reading = |status: &str| {
        let mut reader = provider_of(&unit).unwrap().unit_reader(providers::Reads::Responses, None).unwrap();
        reader.look(response(status, USED).as_bytes());
        reader.reading()
    };
    for status in ["in_progress", "completed", "completed"] {
        bench.deferred.told(unit.provider.clone(), reading(status));
    }
    let told = async { bench.deferred.listen(&bench.ask).await };
    tokio::time::timeout(Duration::from_secs(5), told).await.unwrap_err();
    bench.turn().await;
    let asked_for = UnitStore::waiting(&*bench.units, &unit.provider, &unit.name).await.unwrap();
    assert_eq!((asked_for, bench.ask.asked.lock().len()), (None, 0));
    let bill = bench.bill(&unit).await.unwrap();
    // As a node that was killed before it could note that the unit is settled.
    bench.units.add(unit.clone());
    bench.ask.says("/v1/responses/resp_1", 200, &response("completed", r#"{"input_tokens":99,"output_tokens":9}"#));
    bench.turn().await;
    assert_eq!(bench.bill(&unit).await, Some(bill));
    assert_eq!(bench.units.waiting(), 0);
    let all = crate::ports::usage::SumsQuery { tenant: None, period: None, group_by: Vec::new() };
    let sums = bench.world.store.sums(&all).await.unwrap()[0].sums;
    assert_eq!((sums.requests, sums.chats, sums.tokens.total()), (1, 0, 15));
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_is_down_is_no_reason_to_forget_a_unit() {
    let bench = Bench::open().await;
    let unit = bench.begin("openai", "responses/resp_1", HOUR_US);
    bench.ask.says("/v1/responses/resp_1", 200, &response("completed", USED));
    bench.world.store.set_down(true);
    bench.turn().await;
    assert_eq!(bench.units.waiting(), 1);
    bench.world.store.set_down(false);
    bench.turn().await;
    assert_eq!(bench.bill(&unit).await.unwrap().tokens.total(), 15);
}

/// A line of an output file.
fn line(status: u16, body: &str) -> String {
    format!(
        r#"{{"id":"l","custom_id":"c","response":{{"status_code":{status},"request_id":"r","body":{body}}},"error":null}}"#
    )
}

fn chat(prompt: u64, completion: u64) -> String {
    let total = prompt + completion;
    format!(
        r#"{{"object":"chat.completion","model":"m","choices":[{{"message":{{"content":"Hi"}}}}],"usage":{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total}}}}}"#
    )
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_billed_by_its_sum_or_by_its_lines() {
    use Outcome::{ClientLeft, Completed, UpstreamError};
    use UsageSource::{Estimate, Provider};
    let batch = |status: &str, rest: &str| {
        format!(r#"{{"id":"batch_1","object":"batch","status":"{status}","model":"m"{rest}}}"#)
    };
    let small = r#","output_file_id":"file-1","usage":{"input_tokens":60,"output_tokens":10,"total_tokens":70}"#;
    let large = r#","output_file_id":"file-1","usage":{"input_tokens":240,"output_tokens":20,"total_tokens":260}"#;
    let unsaid = r#","output_file_id":"file-1""#;
    let alone = r#","usage":{"input_tokens":240,"output_tokens":20,"total_tokens":260}"#;
    let embedding = r#"{"object":"list","model":"m","data":[],"usage":{"prompt_tokens":7,"total_tokens":7}}"#;
    let two = format!("{}\n{}", line(200, &chat(120, 10)), line(200, &chat(120, 10)));
    let mixed = format!("{}\n{}\n\n{}\n", line(200, &chat(30, 5)), line(429, "{}"), line(200, embedding));
    let silent = format!("{}\n{}\n", line(200, &chat(30, 5)), line(200, r#"{"object":"chat.completion"}"#));
    let cut = format!("{}\n{{\"id\":", line(200, &chat(30, 5)));
    type Row<'a> = (String, u16, &'a str, (Outcome, UsageSource, u64, u64, i128, Priced));
    let zero = r#","output_file_id":"file-1","usage":{"input_tokens":0,"output_tokens":0,"total_tokens":0}"#;
    let nothing = zero.replace(r#""output_file_id":"file-1","#, "");
    let rows: [Row<'_>; 14] = [
        // By its sum: short requests and long ones cost the same at this length.
        (batch("completed", small), 200, "", (Completed, Provider, 60, 10, 80, Priced::Priced)),
        // A sum of 240 might be of requests that are long or short: each counts for itself.
        (batch("completed", large), 200, &two, (Completed, Provider, 240, 20, 560, Priced::Priced)),
        (batch("completed", alone), 200, "", (Completed, Provider, 240, 20, 560, Priced::Incomplete)),
        (batch("completed", unsaid), 200, &mixed, (Completed, Provider, 37, 5, 47, Priced::Priced)),
        (batch("expired", unsaid), 200, &mixed, (ClientLeft, Provider, 37, 5, 47, Priced::Priced)),
        (batch("completed", unsaid), 200, &silent, (Completed, Estimate, 30, 5, 40, Priced::Priced)),
        (batch("completed", unsaid), 200, &cut, (Completed, Estimate, 30, 5, 40, Priced::Priced)),
        (batch("completed", unsaid), 404, "", (Outcome::UpstreamFailed, Estimate, 12, 0, 12, Priced::Priced)),
        // A sum of nothing does not take back what the file says.
        (batch("cancelled", zero), 200, &mixed, (ClientLeft, Provider, 37, 5, 47, Priced::Priced)),
        (batch("completed", zero), 200, &mixed, (Completed, Provider, 37, 5, 47, Priced::Priced)),
        (batch("expired", zero), 200, "", (UpstreamError, Provider, 0, 0, 0, Priced::Free)),
        (batch("cancelled", &nothing), 200, "", (UpstreamError, Provider, 0, 0, 0, Priced::Free)),
        (batch("failed", ""), 200, "", (UpstreamError, Provider, 0, 0, 0, Priced::Free)),
        (batch("cancelled", ""), 200, "", (UpstreamError, Provider, 0, 0, 0, Priced::Free)),
    ];
    for (body, status, file, expected) in rows {
        let bench = Bench::open().await;
        let unit = DeferredUnit { model: "m".into(), ..unit("openai", "batches/batch_1", World::now()) };
        bench.units.add(unit.clone());
        bench.ask.says("/v1/batches/batch_1", 200, &body);
        bench.ask.says("/v1/files/file-1/content", status, file);
        bench.turn().await;
        let bill = bench.bill(&unit).await.unwrap_or_else(|| panic!("no bill: {body}"));
        let cost = bill.cost.unwrap().0;
        let said = (bill.outcome, bill.source, bill.tokens.prompt, bill.tokens.completion, cost, bill.priced);
        assert_eq!(said, expected, "{body} {file}");
        assert_eq!(bill.service_tier, ServiceTier::Batch, "{body}");
    }
    // A file that cannot be had now is asked for again.
    let bench = Bench::open().await;
    let unit = bench.begin("openai", "batches/batch_1", HOUR_US);
    bench.ask.says("/v1/batches/batch_1", 200, &batch("completed", unsaid));
    bench.ask.says("/v1/files/file-1/content", 503, "");
    bench.turn().await;
    assert_eq!((bench.bill(&unit).await, bench.units.waiting()), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_passes_by_with_a_sum_of_nothing_is_asked_for() {
    let of = |rest: &str| format!(r#"{{"id":"batch_1","object":"batch","status":"completed","model":"m"{rest}}}"#);
    let early = of(r#","usage":{"input_tokens":0,"output_tokens":0,"total_tokens":0}"#);
    let bench = Bench::open().await;
    let unit = bench.begin("openai", "batches/batch_1", HOUR_US);
    let mut reader = provider_of(&unit).unwrap().unit_reader(providers::Reads::Batch, None).unwrap();
    reader.look(early.as_bytes());
    bench.deferred.told(unit.provider.clone(), reader.reading());
    let later = of(r#","usage":{"input_tokens":60,"output_tokens":10,"total_tokens":70}"#);
    bench.ask.says("/v1/batches/batch_1", 200, &later);
    let told = async { bench.deferred.listen(&bench.ask).await };
    tokio::time::timeout(Duration::from_secs(5), told).await.unwrap_err();
    assert_eq!(bench.bill(&unit).await.map(|bill| bill.tokens.total()), Some(70));
}

#[tokio::test(start_paused = true)]
async fn searches_are_billed_with_the_unit_or_with_each_of_its_parts() {
    let searched = response("completed", USED)
        .replace(r#""output":["#, r#""output":[{"type":"web_search_call"},{"type":"web_search_call"},"#);
    let ran = searched.replace(r#"{"type":"web_search_call"},"#, r#"{"type":"code_interpreter_call"},"#);
    let part = searched.replace(r#""background":true,"#, "");
    let lines = format!("{}\n{}\n{}\n", line(200, &part), line(200, &chat(30, 5)), line(200, &part));
    let batch = r#"{"id":"batch_1","object":"batch","status":"completed","model":"m","output_file_id":"file-1"}"#;
    for (name, answer, web_searches, cost, priced) in [
        ("responses/resp_1", searched.as_str(), 2, 2 * 10 + 4 * 5 + 2_000, Priced::Priced),
        ("responses/resp_1", &ran, 0, 2 * 10 + 4 * 5, Priced::Incomplete),
        ("batches/batch_1", batch, 4, 10 + 2 * 5 + 30 + 2 * 5 + 10 + 2 * 5 + 4_000, Priced::Priced),
    ] {
        let bench = Bench::open().await;
        let unit = bench.begin("openai", name, HOUR_US);
        bench.ask.says(&format!("/v1/{name}"), 200, answer);
        bench.ask.says("/v1/files/file-1/content", 200, &lines);
        bench.turn().await;
        let bill = bench.bill(&unit).await.unwrap_or_else(|| panic!("no bill: {answer}"));
        let said = (bill.quantities.web_searches, bill.cost.map(|cost| cost.0), bill.priced);
        assert_eq!(said, (web_searches, Some(cost), priced), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_gemini_is_billed_by_its_parts() {
    let generated = r#"{"response":{"candidates":[{"content":{"parts":[{"text":"Hi"}]}}],"modelVersion":"m","usageMetadata":{"promptTokenCount":30,"candidatesTokenCount":5,"totalTokenCount":35}}}"#;
    let embedded = r#"{"response":{"embedding":{"values":[0.1]},"tokenCount":"7"}}"#;
    let failed = r#"{"error":{"code":3,"message":"no"}}"#;
    let of = |output: &str| {
        format!(
            r#"{{"name":"batches/b1","metadata":{{"@type":"t","model":"models/m","state":"BATCH_STATE_SUCCEEDED","output":{output}}},"done":true}}"#
        )
    };
    let here = of(&format!(r#"{{"inlinedResponses":{{"inlinedResponses":[{generated},{failed},{generated}]}}}}"#));
    let embeddings =
        of(&format!(r#"{{"inlinedEmbedContentResponses":{{"inlinedResponses":[{embedded},{embedded}]}}}}"#));
    let as_response = format!(
        r#"{{"name":"batches/b1","metadata":{{"state":"JOB_STATE_SUCCEEDED"}},"done":true,"response":{{"inlinedResponses":{{"inlinedResponses":[{generated}]}}}}}}"#
    );
    let in_file = of(r#"{"responsesFile":"files/batch-b1"}"#);
    let running = r#"{"name":"batches/b1","metadata":{"state":"BATCH_STATE_RUNNING"}}"#.to_owned();
    let failed_whole =
        r#"{"name":"batches/b1","metadata":{"state":"BATCH_STATE_FAILED"},"done":true,"error":{"code":13}}"#.to_owned();
    for (body, expected) in [
        (here, Some((60, 10, 80))),
        (embeddings, Some((14, 0, 14))),
        (as_response, Some((30, 5, 40))),
        (in_file, Some((30, 5, 40))),
        (running, None),
        (failed_whole, Some((0, 0, 0))),
    ] {
        let bench = Bench::open().await;
        let unit = DeferredUnit { model: "m".into(), ..unit("gemini", "batches/b1", World::now()) };
        bench.units.add(unit.clone());
        bench.ask.says("/v1beta/batches/b1", 200, &body);
        let lines = format!("{generated}\n{failed}\n");
        bench.ask.says("/download/v1beta/files/batch-b1:download?alt=media", 200, &lines);
        bench.turn().await;
        let bill = bench.bill(&unit).await;
        let said = bill.as_ref().map(|bill| (bill.tokens.prompt, bill.tokens.completion, bill.cost.unwrap().0));
        assert_eq!(said, expected, "{body}");
        assert!(bill.is_none_or(|bill| bill.source == UsageSource::Provider), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_unit_is_billed_by_the_plan_of_its_begin() {
    let bench = Bench::open().await;
    let mut plans = fakes::plans();
    let starter = plans["starter"].clone();
    let named = |name: &str, percent: &str| {
        let pricing = Pricing { percent: Percent::parse(percent).unwrap(), own: None };
        let name: PlanName = name.parse().unwrap();
        (name.clone(), Arc::new(Plan { name, pricing, ..Plan::clone(&starter) }))
    };
    plans.extend([named("cheap", "50"), named("dear", "300"), named("starter", "100")]);
    bench.world.snapshots.replace(plans, prices()).unwrap();
    let began = World::now().0 - HOUR_US;
    let cases: [(&[(&str, i64)], _); 4] = [
        (&[("cheap", 0), ("dear", began + 1)], 50),
        (&[("cheap", 0), ("dear", began)], 300),
        // Since before it was made, by clocks that differ.
        (&[("dear", began + 1)], 300),
        // A plan that there is no more: the one that it is on.
        (&[("gone", 0)], 100),
    ];
    for (history, percent) in cases {
        bench.world.store.set_plan_history("acme", history);
        let unit = bench.begin("openai", "responses/resp_1", HOUR_US);
        let tariff = bench.deferred.tariff(&unit).await.unwrap();
        assert_eq!(tariff.pricing().percent, Percent::parse(&percent.to_string()).unwrap(), "{history:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_unit_is_billed_by_the_book_that_was_in_force_when_it_began() {
    let book = |input: i64| {
        let file = format!(
            r#"{{"format":1,"base":"none","models":[{{"provider":"openai","model":"m","match":["m"],"rates":[
            {{"tier":"standard","input":{input},"output":0}}]}}]}}"#
        );
        (fakes::FORMAT.parse)(file.as_bytes()).unwrap()
    };
    let in_force = async |bench: &Bench, input: i64| {
        bench.world.snapshots.replace(fakes::plans(), book(input)).unwrap();
        bench.world.snapshots.keep_books(&*bench.world.store, World::now()).await.unwrap();
        book(input).version()
    };
    // The event of the begin, whether the ledger has its book, and what ten tokens then cost.
    for (has_event, is_kept, percent, billed) in
        [(true, true, "", 20), (true, true, "x150", 30), (true, false, "", 70), (false, true, "", 70)]
    {
        let bench = Bench::open().await;
        let version = if is_kept { in_force(&bench, 2).await } else { book(2).version() };
        let unit = bench.begin("openai", "responses/resp_1", HOUR_US);
        if has_event {
            let begun = fakes::event("acme", 1, "openai", "m", "2026-11-20T10:00:00Z");
            let price_version = format!("{version}{percent}").into();
            let begun = UsageEvent { id: unit.event, price_version, ..begun };
            bench.world.store.append(&[begun]).await.unwrap();
        }
        in_force(&bench, 7).await;
        bench.ask.says("/v1/responses/resp_1", 200, &response("completed", USED));
        bench.turn().await;
        let bill = bench.bill(&unit).await.unwrap();
        assert_eq!(bill.billable, Some(PicoUsd(billed)), "{has_event} {is_kept} {percent}");
    }
}
