//! What could be deleted, hidden or asked for in the wrong account before it is billed.

use super::*;
use crate::domain::ids::TenantId;
use crate::domain::refusal::Refusal;
use crate::providers::Reads;

const BATCH: &str = r#"{"id":"batch_1","object":"batch","status":"completed","model":"m","output_file_id":"file-1"}"#;

fn run(status: &str) -> String {
    format!(
        r#"{{"id":"run_1","object":"thread.run","thread_id":"thread_1","status":"{status}","model":"m","usage":{{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}}}"#
    )
}

impl Bench {
    /// What somebody is told who deletes this.
    async fn deletes(&self, name: &str) -> Option<(u16, Option<u32>)> {
        let tenant: TenantId = "acme".parse().unwrap();
        let whose = Whose { tenant: &tenant, own_account: false };
        self.deletes_in(whose, name).await
    }

    async fn deletes_in(&self, whose: Whose<'_>, name: &str) -> Option<(u16, Option<u32>)> {
        let provider = ProviderId::new("openai");
        let went = self.deferred.before_it_goes(&self.ask, whose, (&provider, &name.parse().unwrap())).await;
        went.err().map(|refusal: Refusal| (refusal.status(), refusal.retry_after_s()))
    }

    /// An answer passed by.
    fn told(&self, unit: &DeferredUnit, reads: Reads, body: &str) {
        let mut reader = provider_of(unit).unwrap().unit_reader(reads, None).unwrap();
        reader.look(body.as_bytes());
        self.deferred.told(unit.provider.clone(), reader.reading());
    }

    /// Looks into what was told, for a while.
    async fn listens(&self) {
        let listening = self.deferred.listen(&self.ask);
        tokio::time::timeout(Duration::from_secs(5), listening).await.unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_runs_or_cannot_be_asked_for_is_not_deleted() {
    const LATER: Option<u32> = Some(5);
    for (status, body, refused, is_billed) in [
        (200, response("in_progress", "null"), Some((409, LATER)), false),
        (200, response("completed", USED), None, true),
        (200, response("cancelled", "null"), None, true),
        (200, "this is no answer".to_owned(), Some((503, LATER)), false),
        (500, String::new(), Some((503, LATER)), false),
        (0, String::new(), Some((503, LATER)), false),
        // Nothing is left of it to delete.
        (404, String::new(), None, true),
    ] {
        let bench = Bench::open().await;
        let unit = bench.begin("openai", "responses/resp_1", HOUR_US);
        bench.ask.says("/v1/responses/resp_1", status, &body);
        assert_eq!(bench.deletes("responses/resp_1").await, refused, "{status} {body}");
        assert_eq!(bench.bill(&unit).await.is_some(), is_billed, "{status} {body}");
        // What is no unit goes at once.
        assert_eq!(bench.deletes("responses/resp_10").await, None);
        assert_eq!(bench.ask.asked.lock().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_cannot_say_what_runs_lets_nothing_be_deleted() {
    let bench = Bench::open().await;
    bench.begin("openai", "responses/resp_1", HOUR_US);
    bench.ask.says("/v1/responses/resp_1", 200, &response("completed", USED));
    bench.world.store.set_down(true);
    assert_eq!(bench.deletes("responses/resp_1").await, Some((503, Some(5))));
    bench.world.store.set_down(false);
    assert_eq!(bench.deletes("responses/resp_1").await, None);
    assert_eq!(bench.units.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_thread_is_not_deleted_while_a_run_of_it_waits() {
    let name = "threads/thread_1/runs/run_1";
    for (status, refused) in
        [("requires_action", Some((409, Some(5)))), ("completed", None), ("cancelled", None), ("expired", None)]
    {
        let bench = Bench::open().await;
        let unit = bench.begin("openai", name, HOUR_US);
        bench.ask.says(&format!("/v1/{name}"), 200, &run(status));
        assert_eq!(bench.deletes("threads/thread_1").await, refused, "{status}");
        let total = bench.bill(&unit).await.map(|bill| bill.tokens.total());
        assert_eq!(total, refused.is_none().then_some(15), "{status}");
        // Another thread, whose name begins alike.
        assert_eq!(bench.deletes("threads/thread_").await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_of_results_is_not_deleted_before_its_batch_is_billed() {
    let results = format!("{}\n", line(200, &chat(30, 5)));
    for (purpose, file, refused, is_billed) in [
        ("batch_output", 200, None, true),
        ("batch_output", 503, Some((503, Some(5))), false),
        // What was uploaded tells nothing.
        ("batch", 503, None, false),
    ] {
        let bench = Bench::open().await;
        let unit = bench.begin("openai", "batches/batch_1", HOUR_US);
        bench.ask.says("/v1/batches/batch_1", 200, BATCH);
        bench.ask.says("/v1/files/file-1", 200, &format!(r#"{{"id":"file-1","purpose":"{purpose}"}}"#));
        bench.ask.says("/v1/files/file-1/content", file, &results);
        assert_eq!(bench.deletes("files/file-1").await, refused, "{purpose} {file}");
        assert_eq!(bench.bill(&unit).await.is_some(), is_billed, "{purpose} {file}");
    }
    // Of one that runs there are no results yet.
    let bench = Bench::open().await;
    bench.begin("openai", "batches/batch_1", HOUR_US);
    bench.ask.says("/v1/batches/batch_1", 200, &BATCH.replace("completed", "in_progress"));
    bench.ask.says("/v1/files/file-0", 200, r#"{"id":"file-0","purpose":"batch_output"}"#);
    assert_eq!(bench.deletes("files/file-0").await, None);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_hides_what_was_used_does_not_settle_it() {
    let part = r#"{"response":{"candidates":[],"modelVersion":"m","usageMetadata":{"promptTokenCount":30,"candidatesTokenCount":5,"totalTokenCount":35}}}"#;
    let whole = format!(
        r#"{{"name":"batches/b1","metadata":{{"state":"BATCH_STATE_SUCCEEDED","output":{{"inlinedResponses":{{"inlinedResponses":[{part}]}}}}}},"done":true}}"#
    );
    for (body, total) in [(whole.as_str(), Some(35)), ("nothing that can be read", None)] {
        let bench = Bench::open().await;
        let unit = DeferredUnit { model: "m".into(), ..unit("gemini", "batches/b1", World::now()) };
        bench.units.add(unit.clone());
        bench.ask.says("/v1beta/batches/b1", 200, body);
        bench.told(&unit, Reads::Batches, r#"{"name":"batches/b1","done":true}"#);
        bench.listens().await;
        assert_eq!(bench.bill(&unit).await.map(|bill| bill.tokens.total()), total, "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_long_to_look_into_keeps_no_other_waiting() {
    let bench = Bench::open().await;
    let slow = bench.begin("openai", "batches/batch_1", 2 * HOUR_US);
    let quick = bench.begin("openai", "responses/resp_1", HOUR_US);
    bench.ask.says("/v1/files/file-1/content", FakeAsk::SILENT, "");
    for _ in 0..3 {
        bench.told(&slow, Reads::Batch, BATCH);
    }
    bench.told(&quick, Reads::Responses, &response("completed", USED));
    bench.listens().await;
    assert_eq!(bench.bill(&slow).await, None);
    assert_eq!(bench.bill(&quick).await.map(|bill| bill.tokens.total()), Some(15));
    // One that is fetched again meanwhile is not looked into again.
    assert_eq!(*bench.ask.asked.lock(), ["/v1/files/file-1/content"]);
}

#[tokio::test(start_paused = true)]
async fn a_unit_is_asked_for_in_the_account_that_it_was_begun_in() {
    let [operators, own] = ["/v1/responses/resp_1", "own/v1/responses/resp_1"];
    for (own_account, knows, age_us, total) in [
        (false, operators, HOUR_US, Some(15)),
        (true, own, HOUR_US, Some(15)),
        // Another account says that there is no such thing.
        (false, own, HOUR_US, Some(12)),
        (true, operators, HOUR_US, None),
        (true, operators, 73 * HOUR_US, Some(12)),
    ] {
        let bench = Bench::open().await;
        let age = Micros(World::now().0 - age_us);
        let unit = DeferredUnit { own_account, ..unit("openai", "responses/resp_1", age) };
        bench.units.add(unit.clone());
        bench.ask.says(knows, 200, &response("completed", USED));
        bench.turn().await;
        let bill = bench.bill(&unit).await;
        assert_eq!(bill.map(|bill| bill.tokens.total()), total, "{own_account} {knows}");
    }
    // What is deleted in one account is not in another.
    let bench = Bench::open().await;
    bench.units.add(DeferredUnit { own_account: true, ..unit("openai", "responses/resp_1", World::now()) });
    bench.ask.says(own, 200, &response("in_progress", "null"));
    let [acme, globex]: [TenantId; 2] = ["acme", "globex"].map(|tenant| tenant.parse().unwrap());
    for (tenant, own_account, refused) in
        [(&acme, true, Some((409, Some(5)))), (&acme, false, None), (&globex, true, None)]
    {
        let whose = Whose { tenant, own_account };
        assert_eq!(bench.deletes_in(whose, "responses/resp_1").await, refused, "{whose:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_costs_what_was_delivered_or_else_what_was_declared() {
    for (delivered_tokens, output_max, completion) in
        [(0, None, 0), (200, None, 200), (200, Some(1_000), 200), (0, Some(1_000), 1_000)]
    {
        let bench = Bench::open().await;
        let begun = unit("openai", "responses/resp_1", World::now());
        let unit = DeferredUnit { delivered_tokens, output_max, ..begun };
        bench.units.add(unit.clone());
        bench.turn().await;
        let bill = bench.bill(&unit).await.unwrap();
        assert_eq!((bill.source, bill.tokens.prompt, bill.tokens.completion), (UsageSource::Estimate, 12, completion));
    }
    // A provider that says nothing of what it had delivered by then is not believed to have done nothing.
    let bench = Bench::open().await;
    let unit = DeferredUnit { delivered_tokens: 200, ..unit("openai", "responses/resp_1", World::now()) };
    bench.units.add(unit.clone());
    bench.ask.says("/v1/responses/resp_1", 200, &response("cancelled", "null"));
    bench.turn().await;
    assert_eq!(bench.bill(&unit).await.unwrap().tokens.completion, 200);
}
