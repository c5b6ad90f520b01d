//! Rates: requests and tokens a minute and requests at once, for the tenant and for each.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::bodies::*;
use super::support::redis::RedisServer;
use super::support::*;

fn plan(keys: &str) -> String {
    format!("[plans.starter]\nchats_per_month = -1\n{keys}\n")
}

fn error(answer: &Answer) -> Value {
    answer.json()["error"].clone()
}

#[test]
fn requests_a_minute_are_429_with_the_time_until_the_next() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).config(&plan("requests_per_minute = 3")).start();
    let free = Request::get("/v1/models").bearer("acme");
    for left in [2, 1, 0] {
        let answer = gateway.send(&chat("acme"));
        assert_eq!(
            (answer.status, answer.header("ratelimit-policy").as_deref()),
            (200, Some(r#""requests";q=3;w=60"#))
        );
        let stands = answer.header("ratelimit").unwrap();
        assert!(stands.starts_with(&format!(r#""requests";r={left};t="#)), "{stands}");
        assert_eq!(gateway.send(&free).status, 200, "what nobody bills takes nothing");
    }
    let refused = gateway.send(&chat("acme"));
    let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    let stands = format!(r#""requests";r=0;t={after}"#);
    assert_eq!(refused.header("ratelimit"), Some(stands));
    let error = error(&refused);
    assert_eq!((refused.status, &error["code"]), (429, &json!("rate_limited")), "{error}");
    assert!((1..=20).contains(&after), "a third of a minute at most: {after}");
    assert_eq!(
        error["rate"],
        json!({"tenant_id": "acme", "plan": "starter", "scope": "tenant", "metric": "requests_per_minute", "limit": 3,
            "retry_after": after})
    );
    assert_eq!(gateway.send(&gemini("acme")).status, 429, "both dialects flow together");
    assert_eq!(gateway.send(&chat("globex")).status, 200, "another tenant");
    let row = gateway.json("acme", "/billing/limits")["limits"][1].clone();
    assert_eq!(
        (&row["metric"], &row["window"], &row["limit"]),
        (&json!("requests_per_minute"), &json!("minute"), &json!(3))
    );
    assert_eq!(gateway.usage("acme").failed_requests, 0);
    assert_eq!(gateway.chats("acme").0, 3);
}

#[test]
fn tokens_a_minute_are_what_calls_used_in_the_end() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).config(&plan("tokens_per_minute = 1000")).start();
    let ask = |max: u32| {
        let body = format!(r#"{{"model":"gpt-4o","max_tokens":{max},"messages":[{{"role":"user","content":"hi"}}]}}"#);
        gateway.send(&Request::post(CHAT, body).bearer("acme"))
    };
    // Each holds 900 and uses 18.
    for _ in 0..4 {
        assert_eq!(ask(900).status, 200);
    }
    let held: Vec<_> = (0..2).map(|_| ask(1_000).status).collect();
    assert_eq!(held, [429, 429], "the bucket lacks what was used");
    assert_eq!(error(&ask(1_000))["code"], "rate_limited");
}

#[test]
fn of_requests_at_once_one_more_than_the_limit_is_429_until_one_is_over() {
    let redis = RedisServer::start();
    at_once(&|setup| setup);
    at_once(&|setup| setup.set("REDIS_URL", &redis.url()));
}

fn at_once(counters: &dyn Fn(Setup) -> Setup) {
    let gate = Gate::default();
    let behaviour = {
        let gate = gate.clone();
        move |seen: &provider::Seen| honest(seen).after(Step::Wait(gate.clone(), 1))
    };
    let provider = Provider::start(behaviour);
    let config = plan("concurrent_requests = 4\nuser_concurrent_requests = 2");
    let gateway = counters(Setup::new(&provider)).config(&config).start();
    let alice = chat("acme").header("x-tollgate-user-id", "alice");
    let mut running: Vec<Wire> = Vec::new();
    let mut start = |request: &Request| {
        let mut wire = Wire::open(gateway.proxy);
        wire.send(&request.bytes());
        running.push(wire);
        provider.demand_count(running.len());
    };
    start(&alice);
    start(&alice);
    let refused = gateway.send(&alice);
    assert_eq!((refused.status, refused.header("retry-after").as_deref()), (429, Some("1")));
    assert_eq!(
        (&error(&refused)["code"], &error(&refused)["rate"]["subject"]),
        (&json!("too_many_requests"), &json!("alice"))
    );
    start(&chat("acme"));
    start(&chat("acme"));
    assert_eq!(error(&gateway.send(&chat("acme")))["rate"]["scope"], "tenant");
    let row = gateway.json("acme", "/billing/limits")["limits"][1].clone();
    assert_eq!((&row["held"], &row["remaining"], &row["window"]), (&json!(4), &json!(0), &json!("now")), "{row}");
    gate.pass();
    for mut wire in running {
        assert_eq!(wire.answer().map(|answer| answer.status), Some(200));
    }
    // All four places are free again, once a shared store is told.
    let began = Instant::now();
    while gateway.json("acme", "/billing/limits")["limits"][1]["held"] != 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "places are kept");
        std::thread::yield_now();
    }
    let mut through = 0;
    while through < 4 {
        let status = gateway.send(&alice).status;
        assert!(status == 200 || (status == 429 && began.elapsed() < Duration::from_secs(10)), "{status}");
        through += usize::from(status == 200);
    }
}

#[test]
fn a_client_that_leaves_and_a_budget_that_refuses_give_back_what_they_took() {
    let provider = Provider::start(|seen| honest(seen).after(Step::Pause(Duration::from_millis(50))));
    let config = plan("concurrent_requests = 1\nrequests_per_minute = 5\nuser_tokens_per_month = 0");
    let gateway = Setup::new(&provider).config(&config).start();
    for _ in 0..20 {
        let refused = gateway.send(&chat("acme").header("x-tollgate-user-id", "alice"));
        assert_eq!(refused.status, 402);
    }
    let mut left = Wire::open(gateway.proxy);
    left.send(&chat("acme").bytes());
    provider.demand_count(1);
    drop(left);
    // The call is read to its end without its client.
    gateway.booked("acme", 1);
    for _ in 0..4 {
        assert_eq!(gateway.send(&chat("acme")).status, 200);
    }
    assert_eq!(error(&gateway.send(&chat("acme")))["code"], "rate_limited");
}
