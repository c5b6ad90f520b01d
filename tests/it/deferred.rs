//! What providers finish later than they answer: booked with its chat at once, and billed once, whoever asks, whoever dies.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::audit::Ledger;
use super::support::gateway::pico_usd_of;
use super::support::load;
use super::support::machine::until;
use super::support::*;
use super::verify::verify;

/// A bill is in the ledger within this of its cause.
const BILLED_MAX: Duration = Duration::from_secs(30);

/// So seldom that nobody is asked in a test.
pub const NEVER: &str = "1h";
const OFTEN: &str = "100ms";

const MODEL: &str = "gpt-4.1-2025-04-14";

/// 12 tokens of input and 5 of output of that model.
const COST: u64 = 12 * 2_000_000 + 5 * 8_000_000;

/// A provider that keeps what it was given to do: by the path that it is asked for, what it answers.
#[derive(Clone, Default)]
pub struct Desk(Arc<Mutex<HashMap<String, Script>>>);

impl Desk {
    pub fn says(&self, target: &str, script: Script) {
        self.0.lock().unwrap().insert(target.to_owned(), script);
    }

    pub fn tells(&self, target: &str, body: &Value) {
        self.says(target, Script::json(200, body.to_string()));
    }

    pub fn answer(&self, target: &str) -> Option<Script> {
        self.0.lock().unwrap().get(target).cloned()
    }

    /// Answers by target; what it does not know is 404.
    pub fn provider(&self) -> Provider {
        let desk = self.clone();
        Provider::start(move |seen| {
            let known = desk.answer(&format!("{} {}", seen.method, seen.target));
            known.unwrap_or_else(|| Script::json(404, r#"{"error":{"message":"No such thing."}}"#))
        })
    }

    /// The response with this id stands so.
    pub fn response(&self, id: &str, status: &str) {
        self.tells(&format!("GET /v1/responses/{id}"), &response(id, status));
        let kind = if status == "failed" { "response.failed" } else { "response.completed" };
        let event = json!({"type": kind, "sequence_number": 9, "response": response(id, status)});
        let events = [format!("event: {kind}\ndata: {event}\n\n").into_bytes()];
        self.says(&format!("GET /v1/responses/{id}?stream=true"), Script::pieces("text/event-stream", &events));
    }

    /// A POST that is answered by a response that has just begun.
    pub fn begins(&self, id: &str) {
        self.tells("POST /v1/responses", &response(id, "queued"));
        self.response(id, "in_progress");
    }
}

pub fn response(id: &str, status: &str) -> Value {
    let usage = if status == "completed" {
        json!({"input_tokens": 12, "output_tokens": 5, "total_tokens": 17})
    } else {
        Value::Null
    };
    json!({"id": id, "object": "response", "background": true, "status": status, "model": MODEL, "output": [],
        "usage": usage, "service_tier": "default"})
}

pub fn begin(tenant: &str) -> Request {
    let body = json!({"model": "gpt-4.1", "input": "How much is the toll?", "background": true});
    post("/v1/responses", &body).bearer(tenant).header("x-tollgate-user-id", "u7")
}

pub fn post(target: &str, body: &Value) -> Request {
    Request::post(target, body.to_string())
}

fn fetch(tenant: &str, id: &str) -> Request {
    Request::get(format!("/v1/responses/{id}")).bearer(tenant)
}

/// The two events of a tenant that began one unit, once it is billed: what began it and its bill.
pub fn billed(gateway: &Gateway, tenant: &str) -> (Value, Value) {
    until("a bill", BILLED_MAX, || gateway.events(tenant).len() >= 2);
    let events = gateway.events(tenant);
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(events[0]["outcome"], "deferred", "{events:?}");
    (events[0].clone(), events[1].clone())
}

/// Demands that the response of a tenant was billed once, to it, with its tokens.
pub fn demand_billed(gateway: &Gateway, tenant: &str) {
    let (begun, bill) = billed(gateway, tenant);
    assert_eq!((&begun["chats"], &begun["total_tokens"], &begun["priced"]), (&1.into(), &0.into(), &"free".into()));
    assert_eq!((&bill["outcome"], &bill["usage_source"]), (&"completed".into(), &"provider".into()), "{bill}");
    assert_eq!(
        (&bill["chats"], &bill["prompt_tokens"], &bill["completion_tokens"]),
        (&0.into(), &12.into(), &5.into())
    );
    assert_eq!((&bill["model"], &bill["requested_model"]), (&MODEL.into(), &"gpt-4.1".into()), "{bill}");
    for same in ["request_timestamp", "endpoint", "user_id", "key_id", "provider", "requested_model"] {
        assert_eq!(begun[same], bill[same], "{same}");
    }
    assert_eq!(pico_usd_of(&bill["estimated_cost_usd"]), COST);
    let usage = gateway.usage(tenant);
    assert_eq!((usage.requests, usage.failed_requests, usage.chats), (1, 0, 1));
    assert_eq!((usage.tokens(), usage.cost()), ((12, 5, 17), COST));
    assert_eq!(gateway.chats(tenant), (1, 499));
}

#[test]
fn a_background_response_is_billed_to_whoever_began_it_however_often_it_is_fetched() {
    let desk = Desk::default();
    let provider = desk.provider();
    let gateway = Setup::new(&provider).set("TOLLGATE_POLL_INTERVAL", NEVER).start();
    for (tenant, id, target) in
        [("acme", "resp_1", "/v1/responses/resp_1"), ("globex", "resp_2", "/v1/responses/resp_2?stream=true")]
    {
        desk.begins(id);
        let begun = gateway.send(&begin(tenant));
        assert_eq!((begun.status, begun.json()["status"].as_str()), (200, Some("queued")));
        assert_eq!(provider.last().json()["background"], true);
        assert_eq!(gateway.send(&fetch(tenant, id)).json()["status"], "in_progress");
        // Booked with its chat, and no request yet.
        let (usage, event) = (gateway.usage(tenant), gateway.events(tenant).remove(0));
        assert_eq!((usage.calls(), usage.chats, usage.total_tokens), (0, 1, 0));
        assert_eq!((&event["outcome"], gateway.chats(tenant)), (&"deferred".into(), (1, 499)));
        assert_eq!(begun.header("x-tollgate-request-id").as_deref(), event["id"].as_str());
        desk.response(id, "completed");
        // Another tenant cannot fetch it.
        assert_eq!(gateway.send(&Request::get(target).bearer("initech")).status, 404);
        for _ in 0..3 {
            let answer = gateway.send(&Request::get(target).bearer(tenant));
            assert!(answer.status == 200 && answer.text().contains(id), "{}", answer.text());
            demand_billed(&gateway, tenant);
        }
    }
    let others = gateway.usage("initech");
    assert_eq!((others.calls(), others.chats, gateway.events("initech").len()), (0, 0, 0));
    let verified = verify(gateway.data_dir(), Some(gateway.admin), &[]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    // A stored answer of the foreground is nobody's to bill.
    let foreground = json!({"id": "resp_3", "object": "response", "background": false, "status": "completed", "model": MODEL,
        "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}});
    desk.tells("GET /v1/responses/resp_3", &foreground);
    gateway.send(&fetch("acme", "resp_3"));
    demand_billed(&gateway, "acme");
}

#[test]
fn a_background_response_that_nobody_fetches_is_asked_for() {
    let desk = Desk::default();
    let provider = desk.provider();
    let gateway = Setup::new(&provider).set("TOLLGATE_POLL_INTERVAL", OFTEN).start();
    desk.begins("resp_1");
    gateway.send(&begin("acme"));
    provider.demand_count(3);
    let asked = provider.last();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("GET", "/v1/responses/resp_1"));
    assert_eq!(asked.header("authorization"), Some(format!("Bearer {}", gateway::OPENAI_KEY).as_str()));
    assert_eq!(gateway.usage("acme").calls(), 0);
    desk.response("resp_1", "completed");
    demand_billed(&gateway, "acme");
    // Nobody is asked any more.
    let asked = provider.count();
    thread::sleep(Duration::from_millis(500));
    assert_eq!(provider.count(), asked);
}

#[test]
fn what_came_to_nothing_costs_nothing_and_what_is_gone_is_estimated() {
    let desk = Desk::default();
    let provider = desk.provider();
    let gateway = Setup::new(&provider).set("TOLLGATE_POLL_INTERVAL", OFTEN).start();
    desk.begins("resp_1");
    desk.response("resp_1", "failed");
    gateway.send(&begin("failed"));
    let (_, bill) = billed(&gateway, "failed");
    assert_eq!((&bill["outcome"], &bill["total_tokens"]), (&"upstream_error".into(), &0.into()), "{bill}");
    let usage = gateway.usage("failed");
    assert_eq!((usage.requests, usage.failed_requests, usage.chats, usage.cost()), (0, 1, 1, 0));
    desk.begins("resp_2");
    desk.says("GET /v1/responses/resp_2", Script::json(404, r#"{"error":{}}"#));
    gateway.send(&begin("gone"));
    let (_, bill) = billed(&gateway, "gone");
    assert_eq!((&bill["outcome"], &bill["usage_source"]), (&"upstream_failed".into(), &"estimate".into()), "{bill}");
    assert!(bill["prompt_tokens"].as_u64().is_some_and(|tokens| tokens > 4), "{bill}");
    let usage = gateway.usage("gone");
    assert_eq!((usage.requests, usage.estimated.requests, usage.completion_tokens), (1, 1, 0));
}

#[test]
fn a_background_stream_that_ends_early_is_billed_by_its_name() {
    let desk = Desk::default();
    let provider = desk.provider();
    let gateway = Setup::new(&provider).set("TOLLGATE_POLL_INTERVAL", NEVER).start();
    let created = json!({"type": "response.created", "sequence_number": 0, "response": response("resp_1", "queued")});
    let delta = json!({"type": "response.output_text.delta", "sequence_number": 1, "delta": "Five"});
    let events = |events: &[&Value]| {
        let lines = events.iter().map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()));
        lines.map(String::into_bytes).collect::<Vec<_>>()
    };
    let cut = |end: Step| {
        let open = Script::open(&[("Content-Type", "text/event-stream")]);
        events(&[&created, &delta])
            .iter()
            .fold(open, |script, event| script.then(Step::Send(wire::chunk(event))))
            .then(end)
    };
    let ask = |tenant: &str| {
        let body = json!({"model": "gpt-4.1", "input": "How much?", "background": true, "stream": true});
        post("/v1/responses", &body).bearer(tenant).header("x-tollgate-user-id", "u7")
    };
    for (tenant, script) in
        [("cut", cut(Step::Reset)), ("ended", Script::pieces("text/event-stream", &events(&[&created, &delta])))]
    {
        desk.response("resp_1", "in_progress");
        desk.says("POST /v1/responses", script);
        let answer = gateway.send(&ask(tenant));
        assert_eq!((answer.status, answer.whole), (200, tenant == "ended"), "{tenant}");
        assert_eq!((gateway.usage(tenant).calls(), gateway.events(tenant).len()), (0, 1), "{tenant}");
        // The second unit of that name is the first one: a provider that names two alike is billed for one.
        if tenant == "ended" {
            continue;
        }
        desk.response("resp_1", "completed");
        gateway.send(&fetch(tenant, "resp_1"));
        demand_billed(&gateway, tenant);
    }
    // One that came to its end is billed by it, and fetching it later bills nothing more.
    let completed =
        json!({"type": "response.completed", "sequence_number": 2, "response": response("resp_2", "completed")});
    desk.says("POST /v1/responses", Script::pieces("text/event-stream", &events(&[&created, &delta, &completed])));
    desk.response("resp_2", "completed");
    gateway.send(&ask("whole"));
    gateway.send(&fetch("whole", "resp_2"));
    assert_eq!(gateway.booked("whole", 1).tokens(), (12, 5, 17));
    assert_eq!(gateway.event("whole")["outcome"], "completed");
}

/// Somebody who has read a stream to just before its end could delete what would tell its price.
#[test]
fn what_is_deleted_is_billed_before_it_goes() {
    let desk = Desk::default();
    let provider = desk.provider();
    let gateway = Setup::new(&provider).set("TOLLGATE_POLL_INTERVAL", NEVER).start();
    desk.begins("resp_1");
    gateway.send(&begin("acme"));
    desk.response("resp_1", "completed");
    desk.tells("DELETE /v1/responses/resp_1", &json!({"id": "resp_1", "object": "response.deleted", "deleted": true}));
    let asked = provider.count();
    let gone = gateway.send(&fetch("acme", "resp_1").method("DELETE"));
    assert_eq!(gone.json()["deleted"], true);
    let seen: Vec<String> = provider.seen_from(asked).into_iter().map(|seen| seen.method).collect();
    assert_eq!(seen, ["GET", "DELETE"]);
    demand_billed(&gateway, "acme");
    // What is no unit of ours goes at once.
    gateway.send(&fetch("acme", "resp_1").method("DELETE"));
    let seen: Vec<String> = provider.seen_from(asked + 2).into_iter().map(|seen| seen.method).collect();
    assert_eq!(seen, ["DELETE"]);
}

#[test]
fn killed_before_the_bill_it_is_billed_once_by_the_next_start() {
    let desk = Desk::default();
    let provider = desk.provider();
    let setup = |interval: &str| Setup::new(&provider).set("TOLLGATE_POLL_INTERVAL", interval);
    let mut gateway = setup(NEVER).start();
    desk.begins("resp_1");
    gateway.send(&begin("acme"));
    gateway.kill();
    desk.response("resp_1", "completed");
    let mut gateway = setup(OFTEN).on_ledger_of(&gateway).start();
    demand_billed(&gateway, "acme");
    gateway.kill();
    // As if it had been killed before it noted that the unit is settled.
    super::verify::tamper(&gateway.ledger_file(), "UPDATE deferred_units SET settled_at = NULL, due_at = 0");
    let asked = provider.count();
    let gateway = setup(OFTEN).on_ledger_of(&gateway).start();
    provider.demand_count(asked + 1);
    until("the unit is settled", BILLED_MAX, || {
        super::verify::asked(&gateway.ledger_file(), "SELECT COUNT(*) FROM deferred_units WHERE settled_at IS NULL")
            == 0
    });
    demand_billed(&gateway, "acme");
}

#[test]
fn a_ledger_that_is_away_when_it_is_fetched_gets_the_bill_later() {
    let desk = Desk::default();
    let provider = desk.provider();
    let gateway = Setup::new(&provider).set("TOLLGATE_POLL_INTERVAL", OFTEN).start();
    // A tenant that is known: a new one would have to be written.
    gateway.send(&fetch("acme", "resp_0"));
    let locked = Ledger::locked(&gateway.ledger_file());
    desk.begins("resp_1");
    gateway.send(&begin("acme"));
    desk.response("resp_1", "completed");
    assert_eq!(gateway.send(&fetch("acme", "resp_1")).json()["status"], "completed");
    drop(locked);
    demand_billed(&gateway, "acme");
}

#[test]
fn many_nodes_that_all_ask_and_are_all_told_bill_once() {
    use super::nodes::{Stage, World};
    let desk = Desk::default();
    let mut stage = Stage::new(false, 10);
    stage.plans.push_str("[upstream]\npoll_interval = \"100ms\"\n");
    let world = World::start(stage, 2);
    let [one, two] = &world.nodes[..] else { panic!("two nodes") };
    let acme: load::Tenant = world.tenant("acme", "wide");
    let other = world.tenant("globex", "wide");
    let keys = [&acme.key, &other.key];
    let behaviour = desk.clone();
    world.provider.now_does(move |seen| {
        let known = behaviour.0.lock().unwrap().get(&format!("{} {}", seen.method, seen.target)).cloned();
        known.unwrap_or_else(|| Script::json(404, "{}"))
    });
    let rounds = 12;
    for round in 0..rounds {
        let id = format!("resp_{round}");
        desk.begins(&id);
        assert_eq!(one.send(&begin(&acme.key)).status, 200);
        desk.response(&id, "completed");
        thread::scope(|scope| {
            for (at, node) in [one, two, one, two].into_iter().enumerate() {
                // Whoever began it, on whichever node, and nobody else.
                let (id, key, status) = (&id, keys[at / 2], [200, 404][at / 2]);
                scope.spawn(move || assert_eq!(node.send(&fetch(key, id)).status, status));
            }
        });
    }
    let usage = two.booked(&acme.key, rounds);
    assert_eq!((usage.requests, usage.chats, usage.tokens()), (rounds, rounds, (12 * rounds, 5 * rounds, 17 * rounds)));
    let unsettled = || world.database.say("SELECT COUNT(*) FROM deferred_units WHERE settled_at IS NULL");
    until("every unit is settled", BILLED_MAX, || unsettled().trim() == "0");
    assert_eq!(two.events(&acme.key).len() as u64, 2 * rounds);
    assert_eq!(two.events(&other.key).len(), 0);
    world.demand_verified();
}

#[test]
fn a_copied_ledger_bills_what_its_first_home_began() {
    let database = super::support::postgres::Database::new();
    let desk = Desk::default();
    let provider = desk.provider();
    let mut gateway = Setup::new(&provider).set("TOLLGATE_POLL_INTERVAL", NEVER).start();
    desk.begins("resp_1");
    gateway.send(&begin("acme"));
    assert_eq!(gateway.events("acme").len(), 1);
    gateway.stop();
    let from = format!("sqlite://{}", gateway.ledger_file().display());
    let copied = super::copy::copied(&from, &database.url);
    let units = copied["tables"].as_array().unwrap().iter().find(|table| table["table"] == "deferred_units").unwrap();
    assert_eq!(units["to"]["rows"], 1, "{copied}");
    desk.response("resp_1", "completed");
    let setup = Setup::new(&provider).set("TOLLGATE_POLL_INTERVAL", OFTEN).set("DATABASE_URL", &database.url);
    demand_billed(&setup.on_ledger_of(&gateway).start(), "acme");
}

#[test]
fn batches_are_billed_at_their_rates_by_their_sum_or_their_files() {
    let desk = Desk::default();
    let provider = desk.provider();
    let gateway = Setup::new(&provider).set("TOLLGATE_POLL_INTERVAL", OFTEN).start();
    let batch = |id: &str, status: &str, rest: Value| {
        let mut batch = json!({"id": id, "object": "batch", "endpoint": "/v1/chat/completions", "status": status});
        rest.as_object().unwrap().iter().for_each(|(name, value)| batch[name] = value.clone());
        batch
    };
    let begin = |tenant: &str, id: &str, then: Value| {
        desk.tells("POST /v1/batches", &batch(id, "validating", json!({})));
        desk.tells(&format!("GET /v1/batches/{id}"), &then);
        let body = json!({"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"});
        assert_eq!(gateway.send(&post("/v1/batches", &body).bearer(tenant)).status, 200);
        billed(&gateway, tenant).1
    };
    let usage = json!({"input_tokens": 20_000_000, "output_tokens": 3_000_000, "total_tokens": 23_000_000});
    let with_sum = batch("batch_1", "completed", json!({"model": MODEL, "usage": usage, "output_file_id": "file-o"}));
    let bill = begin("sum", "batch_1", with_sum);
    assert_eq!((&bill["prompt_tokens"], &bill["service_tier"]), (&20_000_000.into(), &"batch".into()), "{bill}");
    assert_eq!(pico_usd_of(&bill["estimated_cost_usd"]), 20_000_000 * 1_000_000 + 3_000_000 * 4_000_000);
    let line = |status: u16, usage: Value| {
        json!({"id": "l", "custom_id": "c", "error": null, "response": {"status_code": status, "body":
            {"object": "chat.completion", "model": MODEL, "choices": [], "usage": usage}}})
    };
    let used = json!({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110});
    let lines = format!("{}\n{}\n{}\n", line(200, used.clone()), line(400, Value::Null), line(200, used));
    desk.says(
        "GET /v1/files/file-2/content",
        Script::answer(200, &[("Content-Type", "application/octet-stream")], lines),
    );
    let bill = begin("lines", "batch_2", batch("batch_2", "completed", json!({"output_file_id": "file-2"})));
    assert_eq!((&bill["model"], &bill["usage_source"]), (&MODEL.into(), &"provider".into()), "{bill}");
    assert_eq!((&bill["prompt_tokens"], &bill["completion_tokens"]), (&200.into(), &20.into()), "{bill}");
    assert_eq!(pico_usd_of(&bill["estimated_cost_usd"]), 200 * 1_000_000 + 20 * 4_000_000);
    let usage = gateway.usage("lines");
    assert_eq!((usage.requests, usage.chats), (1, 0));
    let bill = begin("nothing", "batch_3", batch("batch_3", "failed", json!({"errors": {"data": []}})));
    assert_eq!((&bill["outcome"], &bill["total_tokens"]), (&"upstream_error".into(), &0.into()), "{bill}");

    let operation = |name: &str, state: &str, rest: Value| json!({"name": name, "metadata": {"model": "models/gemini-2.5-flash", "state": state, "output": rest}});
    let part = json!({"response": {"candidates": [], "modelVersion": "gemini-2.5-flash", "usageMetadata":
        {"promptTokenCount": 30, "candidatesTokenCount": 5, "totalTokenCount": 35}}});
    let target = "/v1beta/models/gemini-2.5-flash:batchGenerateContent";
    desk.tells(&format!("POST {target}"), &operation("batches/b1", "BATCH_STATE_PENDING", Value::Null));
    let output = json!({"inlinedResponses": {"inlinedResponses": [part, part]}});
    desk.tells("GET /v1beta/batches/b1", &operation("batches/b1", "BATCH_STATE_SUCCEEDED", output));
    gateway.send(&post(target, &json!({"batch": {"displayName": "d"}})).google("gemini"));
    let (_, bill) = billed(&gateway, "gemini");
    assert_eq!((&bill["prompt_tokens"], &bill["completion_tokens"]), (&60.into(), &10.into()), "{bill}");
    assert_eq!((&bill["service_tier"], &bill["priced"]), (&"batch".into(), &"priced".into()), "{bill}");
    desk.tells(&format!("POST {target}"), &operation("batches/b2", "BATCH_STATE_PENDING", Value::Null));
    let output = json!({"responsesFile": "files/f2"});
    desk.tells("GET /v1beta/batches/b2", &operation("batches/b2", "BATCH_STATE_SUCCEEDED", output));
    let file = Script::answer(200, &[("Content-Type", "application/jsonl")], format!("{part}\n"));
    desk.says("GET /download/v1beta/files/f2:download?alt=media", file);
    gateway.send(&post(target, &json!({"batch": {"displayName": "d"}})).google("file"));
    let (_, bill) = billed(&gateway, "file");
    assert_eq!((&bill["prompt_tokens"], &bill["completion_tokens"]), (&30.into(), &5.into()), "{bill}");
    assert_eq!(provider.last().header("x-goog-api-key"), Some(gateway::GEMINI_KEY));
}

#[test]
fn interactions_and_runs_are_billed_by_their_names() {
    let desk = Desk::default();
    let provider = desk.provider();
    let gateway = Setup::new(&provider).set("TOLLGATE_POLL_INTERVAL", OFTEN).start();
    let interaction = |status: &str, usage: Value| json!({"id": "int_1", "status": status, "model": "gemini-2.5-flash", "usage": usage});
    desk.tells("POST /v1beta/interactions", &interaction("in_progress", Value::Null));
    let usage =
        json!({"total_input_tokens": 8, "total_output_tokens": 2, "total_thought_tokens": 3, "total_tokens": 13});
    desk.tells("GET /v1beta/interactions/int_1", &interaction("completed", usage));
    let body = json!({"model": "gemini-2.5-flash", "input": "Toll?", "background": true});
    gateway.send(&post("/v1beta/interactions", &body).google("google"));
    let (_, bill) = billed(&gateway, "google");
    assert_eq!((&bill["prompt_tokens"], &bill["completion_tokens"]), (&8.into(), &5.into()), "{bill}");
    assert_eq!(gateway.chats("google"), (1, 499));

    // An answer that goes on is one chat, as one of generateContent.
    let mut first = interaction("requires_continuation", json!({"total_input_tokens": 8, "total_output_tokens": 2}));
    first["continuation_token"] = "tok_1".into();
    let second = interaction("completed", json!({"total_input_tokens": 9, "total_output_tokens": 1}));
    for (answer, more) in [(first, Value::Null), (second, "tok_1".into())] {
        desk.tells("POST /v1beta/interactions", &answer);
        let body = json!({"model": "gemini-2.5-flash", "input": "Toll?", "continuation_token": more});
        gateway.send(&post("/v1beta/interactions", &body).google("goes-on"));
    }
    let usage = gateway.booked("goes-on", 2);
    assert_eq!((usage.tokens(), usage.chats), ((17, 3, 20), 1));

    let run = |status: &str, usage: Value| json!({"id": "run_1", "object": "thread.run", "thread_id": "thread_1", "status": status, "model": "gpt-4.1", "usage": usage});
    let used = json!({"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23});
    desk.tells("POST /v1/threads/thread_1/runs", &run("queued", Value::Null));
    desk.tells("GET /v1/threads/thread_1/runs/run_1", &run("requires_action", Value::Null));
    desk.tells("POST /v1/threads/thread_1/runs/run_1/submit_tool_outputs", &run("completed", used.clone()));
    let body = json!({"assistant_id": "asst_1"});
    gateway.send(&post("/v1/threads/thread_1/runs", &body).bearer("run"));
    let outputs = json!({"tool_outputs": [{"tool_call_id": "c", "output": "5"}]});
    gateway.send(&post("/v1/threads/thread_1/runs/run_1/submit_tool_outputs", &outputs).bearer("run"));
    assert_eq!((gateway.usage("run").calls(), gateway.chats("run")), (0, (2, 498)));
    desk.tells("GET /v1/threads/thread_1/runs/run_1", &run("completed", used));
    let usage = gateway.booked("run", 1);
    assert_eq!((usage.tokens(), usage.chats), ((20, 3, 23), 2));
    assert_eq!(gateway.events("run").len(), 3);
}

#[test]
fn a_batch_is_refused_where_models_are_restricted_as_its_file_names_them() {
    let desk = Desk::default();
    let provider = desk.provider();
    let plans = "[plans.starter]\nallowed_models = [\"gpt-4.1*\"]\n";
    let gateway = Setup::new(&provider).config(plans).start();
    let body = json!({"input_file_id": "file-1", "endpoint": "/v1/responses", "completion_window": "24h"});
    let answer = gateway.send(&post("/v1/batches", &body).bearer("acme"));
    let error = &answer.json()["error"];
    assert_eq!((answer.status, &error["code"]), (403, &"model_not_allowed".into()), "{error}");
    assert!(
        error["message"].as_str().is_some_and(|said| said.contains("names no model where the gateway could see it"))
    );
    assert_eq!((provider.count(), gateway.events("acme").len()), (0, 0));
}
