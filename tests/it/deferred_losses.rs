//! Ways by which what is billed later was once billed at nothing: hidden, deleted, asked for in another account, kept longer.

use serde_json::{Value, json};

use super::deferred::{Desk, NEVER, begin, billed, demand_billed, post};
use super::support::*;

const MASTER: &str = "3f5a0c91be7d48260f6e91c2d4a8b3753f5a0c91be7d48260f6e91c2d4a8b375";
const OWN_KEY: &str = "sk-proj-own-of-acme-2b7c";

fn delete(tenant: &str, target: &str) -> Request {
    Request::get(target).method("DELETE").bearer(tenant)
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

/// Demands that this is refused now, with a time to try again, and that its provider saw no DELETE.
fn demand_kept(gateway: &Gateway, provider: &Provider, request: &Request, expected: (u16, &str)) {
    let asked = provider.count();
    let kept = gateway.send(request);
    assert_eq!(code(&kept), (expected.0, expected.1.to_owned()), "{}", kept.text());
    assert!(kept.header("retry-after").is_some(), "{}", kept.text());
    assert!(provider.seen_from(asked).iter().all(|seen| seen.method != "DELETE"));
}

#[test]
fn a_query_that_hides_what_a_unit_used_is_refused_where_units_are_told_of() {
    let desk = Desk::default();
    let provider = desk.provider();
    let gateway = Setup::new(&provider).set("TOLLGATE_POLL_INTERVAL", NEVER).start();
    let target = "/v1beta/models/gemini-2.5-flash:batchGenerateContent";
    let batch = |state: &str, output: Value| {
        let done = state.ends_with("SUCCEEDED");
        json!({"name": "batches/b1", "metadata": {"model": "models/gemini-2.5-flash", "state": state, "output": output}, "done": done})
    };
    let part = json!({"response": {"candidates": [], "modelVersion": "gemini-2.5-flash",
        "usageMetadata": {"promptTokenCount": 50_000, "candidatesTokenCount": 1_000, "totalTokenCount": 51_000}}});
    desk.tells(&format!("POST {target}"), &batch("BATCH_STATE_PENDING", Value::Null));
    gateway.send(&post(target, &json!({"batch": {"displayName": "d"}})).google("acme"));
    let output = json!({"inlinedResponses": {"inlinedResponses": [part]}});
    for target in ["GET /v1beta/batches/b1", "GET /v1beta/batches/b1?alt=json"] {
        desk.tells(target, &batch("BATCH_STATE_SUCCEEDED", output.clone()));
    }
    let begun = provider.count();
    for (method, target) in [
        ("GET", "/v1beta/batches/b1?fields=name,done"),
        ("GET", "/v1beta/batches/b1?%24fields=name,done"),
        ("GET", "/v1beta/batches/b1?alt=media"),
        ("DELETE", "/v1beta/batches/b1?callback=f"),
        ("GET", "/v1beta/interactions/int-1?fields=id,status"),
        ("POST", "/v1beta/interactions/int-1/cancel?fields=id,status"),
    ] {
        let answer = gateway.send(&Request::get(target).method(method).google("acme"));
        assert_eq!(answer.status, 400, "{method} {target}: {}", answer.text());
        assert!(answer.text().contains("could not read what an answer charges"), "{}", answer.text());
    }
    // To delete it, or not to be allowed to, is no reason to ask for anything either.
    assert_eq!((provider.count(), gateway.events("acme").len()), (begun, 1));
    assert_eq!(gateway.send(&Request::get("/v1beta/batches/b1?alt=json").google("acme")).status, 200);
    let (_, bill) = billed(&gateway, "acme");
    assert_eq!((&bill["prompt_tokens"], &bill["completion_tokens"]), (&50_000.into(), &1_000.into()), "{bill}");
}

#[test]
fn a_response_that_is_deleted_by_another_spelling_of_its_name_is_billed() {
    let desk = Desk::default();
    let provider = desk.provider();
    let gateway = Setup::new(&provider).set("TOLLGATE_POLL_INTERVAL", NEVER).start();
    desk.begins("resp_enc");
    gateway.send(&begin("acme"));
    desk.response("resp_enc", "completed");
    let deleted = json!({"id": "resp_enc", "object": "response.deleted", "deleted": true});
    desk.tells("DELETE /v1/responses/%72esp_enc", &deleted);
    assert_eq!(gateway.send(&delete("acme", "/v1/responses/%72esp_enc")).json(), deleted);
    demand_billed(&gateway, "acme");
    let asked = provider.count();
    assert_eq!(gateway.send(&delete("acme", "/v1/responses/resp_enc;a=b")).status / 100, 4);
    assert_eq!(provider.count(), asked);
}

#[test]
fn a_response_that_runs_is_cancelled_before_it_is_deleted() {
    let desk = Desk::default();
    let provider = desk.provider();
    let gateway = Setup::new(&provider).set("TOLLGATE_POLL_INTERVAL", NEVER).start();
    desk.begins("resp_1");
    desk.tells("DELETE /v1/responses/resp_1", &json!({"id": "resp_1", "deleted": true}));
    gateway.send(&begin("acme"));
    let gone = delete("acme", "/v1/responses/resp_1");
    demand_kept(&gateway, &provider, &gone, (409, "still_running"));
    desk.says("GET /v1/responses/resp_1", Script::json(500, "{}"));
    demand_kept(&gateway, &provider, &gone, (503, "not_billed_yet"));
    assert_eq!(gateway.events("acme").len(), 1);
    // As the refusal says.
    let cancelled = super::deferred::response("resp_1", "cancelled");
    desk.tells("POST /v1/responses/resp_1/cancel", &cancelled);
    desk.tells("GET /v1/responses/resp_1", &cancelled);
    assert_eq!(gateway.send(&post("/v1/responses/resp_1/cancel", &json!({})).bearer("acme")).status, 200);
    assert_eq!(gateway.send(&gone).json()["deleted"], true);
    let (_, bill) = billed(&gateway, "acme");
    assert_eq!((&bill["outcome"], &bill["usage_source"]), (&"client_left".into(), &"estimate".into()), "{bill}");
    // What is settled goes as often as anybody likes.
    assert_eq!(gateway.send(&gone).json()["deleted"], true);
}

#[test]
fn a_stream_in_the_background_that_is_gone_costs_what_was_delivered_of_it() {
    let desk = Desk::default();
    let provider = desk.provider();
    let gateway = Setup::new(&provider).set("TOLLGATE_POLL_INTERVAL", "100ms").start();
    let begun = super::deferred::response("resp_1", "in_progress");
    let created = json!({"type": "response.created", "sequence_number": 0, "response": begun});
    let delta = json!({"type": "response.output_text.delta", "sequence_number": 1, "delta": "f".repeat(800)});
    let open = Script::open(&[("Content-Type", "text/event-stream")]);
    let script = [created, delta].iter().fold(open, |script, event| {
        let event = format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap());
        script.then(Step::Send(wire::chunk(event.as_bytes())))
    });
    desk.says("POST /v1/responses", script.then(Step::Reset));
    let body = json!({"model": "gpt-4.1", "input": "How much?", "background": true, "stream": true});
    gateway.send(&post("/v1/responses", &body).bearer("acme"));
    let (_, bill) = billed(&gateway, "acme");
    assert_eq!((&bill["usage_source"], &bill["completion_tokens"]), (&"estimate".into(), &200.into()), "{bill}");
}

#[test]
fn a_thread_stays_until_its_run_is_over() {
    let desk = Desk::default();
    let provider = desk.provider();
    let gateway = Setup::new(&provider).set("TOLLGATE_POLL_INTERVAL", NEVER).start();
    let used = json!({"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23});
    let run = |status: &str, usage: &Value| json!({"id": "run_1", "object": "thread.run", "thread_id": "thread_1", "status": status, "model": "gpt-4.1", "usage": usage});
    desk.tells("POST /v1/threads/thread_1/runs", &run("queued", &Value::Null));
    desk.tells("GET /v1/threads/thread_1/runs/run_1", &run("requires_action", &Value::Null));
    desk.tells("DELETE /v1/threads/thread_1", &json!({"id": "thread_1", "object": "thread.deleted", "deleted": true}));
    gateway.send(&post("/v1/threads/thread_1/runs", &json!({"assistant_id": "asst_1"})).bearer("acme"));
    let gone = delete("acme", "/v1/threads/thread_1");
    demand_kept(&gateway, &provider, &gone, (409, "still_running"));
    desk.tells("GET /v1/threads/thread_1/runs/run_1", &run("completed", &used));
    assert_eq!(gateway.send(&gone).json()["deleted"], true);
    let (_, bill) = billed(&gateway, "acme");
    assert_eq!(bill["total_tokens"], 23, "{bill}");
}

#[test]
fn a_unit_is_billed_though_its_tenant_changed_to_a_key_of_its_own_or_back() {
    let desk = Desk::default();
    let accounts = desk.clone();
    // Each account knows what was begun in it, and nothing else.
    let provider = Provider::start(move |seen| {
        let is_own = seen.header("authorization").is_some_and(|value| value.ends_with(OWN_KEY));
        let place = if is_own { "own " } else { "" };
        let answer = accounts.answer(&format!("{place}{} {}", seen.method, seen.target));
        answer.unwrap_or_else(|| Script::json(404, r#"{"error":{"message":"No such thing."}}"#))
    });
    let setup = Setup::new(&provider).prod().set("TOLLGATE_SECRETS_KEY", MASTER);
    let gateway = setup.set("TOLLGATE_POLL_INTERVAL", "100ms").start();
    let target = |tenant: &str| format!("/admin/tenants/{tenant}/provider-keys/openai");
    let put = |tenant: &str| {
        let put = Request::post(target(tenant), json!({"key": OWN_KEY}).to_string()).method("PUT");
        assert_eq!(gateway.admin(put).status, 200);
    };
    let keys = ["to-own", "to-operator"].map(|tenant| gateway.issue(tenant, "pro"));
    put("to-operator");
    for (id, place, key) in [("resp_1", "", &keys[0]), ("resp_2", "own ", &keys[1])] {
        let queued = super::deferred::response(id, "queued");
        desk.tells(&format!("{place}POST /v1/responses"), &queued);
        desk.tells(&format!("{place}GET /v1/responses/{id}"), &queued);
        assert_eq!(gateway.send(&begin(key)).json()["id"], id);
    }
    put("to-own");
    assert_eq!(gateway.admin(Request::get(target("to-operator")).method("DELETE")).status / 100, 2);
    // A key that is set again opens that account again.
    put("to-operator");
    for (id, place) in [("resp_1", ""), ("resp_2", "own ")] {
        desk.tells(&format!("{place}GET /v1/responses/{id}"), &super::deferred::response(id, "completed"));
    }
    for key in &keys {
        let (_, bill) = billed(&gateway, key);
        let said = (&bill["usage_source"], &bill["total_tokens"]);
        assert_eq!(said, (&"provider".into(), &17.into()), "{bill}");
    }
}

#[test]
fn a_cache_is_kept_no_longer_under_a_cost_limit_than_can_be_charged() {
    let desk = Desk::default();
    let provider = desk.provider();
    let cache = json!({"name": "cachedContents/c1", "model": "models/gemini-2.5-flash", "usageMetadata": {"totalTokenCount": 4_000}});
    desk.tells("POST /v1beta/cachedContents", &cache);
    desk.tells("PATCH /v1beta/cachedContents/c1", &cache);
    let create =
        |tenant: &str| post("/v1beta/cachedContents", &json!({"model": "models/gemini-2.5-flash"})).google(tenant);
    let extend =
        |tenant: &str| post("/v1beta/cachedContents/c1", &json!({"ttl": "31536000s"})).method("PATCH").google(tenant);
    let limited = "[plans.starter]\ncost_usd_per_month = 5\n";
    let gateway = Setup::new(&provider).config(limited).start();
    for request in [create("acme"), extend("acme")] {
        let answer = gateway.send(&request);
        assert!(answer.status == 403 && answer.text().contains("charged by the hour"), "{}", answer.text());
    }
    assert_eq!(provider.count(), 0);
    for plan in [format!("{limited}unpriced = \"allow\"\n"), String::new()] {
        let gateway = Setup::new(&provider).config(&plan).start();
        assert_eq!((gateway.send(&create("acme")).status, gateway.send(&extend("acme")).status), (200, 200), "{plan}");
    }
}
