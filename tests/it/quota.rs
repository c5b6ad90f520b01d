//! The limit is a limit: who is refused, when, and which chats are given back.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use super::support::bodies::*;
use super::support::*;

/// The plan every dev tenant starts on.
const STARTER_CHATS: usize = 500;

#[test]
fn of_560_calls_at_once_exactly_500_reach_the_provider() {
    let provider = Provider::start(|seen| honest(seen).after(Step::Pause(Duration::from_millis(300))));
    let gateway = Setup::new(&provider).start();
    let start = Arc::new(Barrier::new(STARTER_CHATS + 60));
    let callers: Vec<_> = (0..STARTER_CHATS + 60)
        .map(|at| {
            let (start, proxy) = (Arc::clone(&start), gateway.proxy);
            let caller = move || {
                let request = if at % 2 == 0 { chat("acme") } else { gemini("acme") };
                let mut wire = Wire::open(proxy);
                start.wait();
                wire.ask(&request).status
            };
            thread::Builder::new().stack_size(256 * 1024).spawn(caller).unwrap()
        })
        .collect();
    let statuses: Vec<u16> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), STARTER_CHATS);
    assert_eq!(statuses.iter().filter(|status| **status == 402).count(), 60);
    assert_eq!(provider.count(), STARTER_CHATS);
    assert_eq!(gateway.chats("acme"), (500, 0));
    let usage = gateway.booked("acme", 500);
    assert_eq!((usage.requests, usage.chats, usage.failed_requests), (500, 500, 0));
    assert_eq!(usage.tokens(), (5500, 3500, 9000));
}

#[test]
fn a_402_speaks_the_dialect_of_the_caller() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    use_up(&gateway, "acme", STARTER_CHATS);
    assert_eq!(gateway.chats("acme"), (500, 0));

    let refused = gateway.send(&chat("acme"));
    assert_eq!(refused.status, 402);
    assert_eq!(refused.header("x-should-retry").as_deref(), Some("false"));
    assert_eq!(refused.header("content-type").as_deref(), Some("application/json"));
    assert!(refused.header("ratelimit").is_some_and(|left| left.starts_with("\"chats\";r=0;t=")), "{refused:?}");
    let error = refused.json()["error"].clone();
    let quota = error["quota"].clone();
    let reset = quota["resets_at"].as_str().unwrap().to_owned();
    let period =
        gateway.json("acme", "/billing/usage?range=month")["period"]["start"].as_str().unwrap()[..7].to_owned();
    assert_eq!(
        error["message"],
        format!("Tenant acme has used 500 of 500 chats of plan starter for {period}. Resets {reset}.")
    );
    assert_eq!(
        (&error["type"], &error["param"], &error["code"]),
        (&"insufficient_quota".into(), &serde_json::Value::Null, &"quota_exceeded".into())
    );
    let expected = serde_json::json!({"tenant_id": "acme", "plan": "starter", "scope": "tenant", "metric": "chats",
        "window": "month", "limit": 500, "used": 500, "held": 0, "requested": 1, "resets_at": reset});
    assert_eq!(quota, expected);
    assert_eq!(gateway.limits("acme")["resets_at"], reset.as_str());

    let refused = gateway.send(&gemini("acme"));
    let error = refused.json()["error"].clone();
    assert_eq!(refused.status, 402);
    assert_eq!((&error["code"], &error["status"]), (&402.into(), &"RESOURCE_EXHAUSTED".into()));
    let detail = &error["details"][0];
    assert_eq!(detail["reason"], "QUOTA_EXCEEDED");
    let text = detail.to_string();
    assert!(text.contains("\"used\":500") && text.contains("\"tenant_id\":\"acme\""), "{text}");

    assert_eq!(provider.count(), STARTER_CHATS, "nothing of a refused call goes upstream");
    let usage = gateway.booked("acme", 500);
    assert_eq!((usage.requests, usage.failed_requests), (500, 0));

    // What is no chat is not refused, other tenants neither, and a larger plan counts at once.
    assert_eq!(gateway.send(&Request::get("/v1/models").bearer("acme")).status, 200);
    assert_eq!(gateway.send(&chat("other")).status, 200);
    let body = r#"{"tenant_id":"acme","plan":"growth"}"#;
    let changed = gateway.send(&Request::post("/billing/plan", body).bearer("acme"));
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_eq!(gateway.send(&chat("acme")).status, 200);
    assert_eq!(gateway.chats("acme"), (501, 4499));
}

#[test]
fn a_connection_is_of_use_after_a_402_whose_request_was_still_on_its_way() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    use_up(&gateway, "acme", STARTER_CHATS);
    let large = format!(
        r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{}"}}]}}"#,
        "x".repeat(20 * 1024 * 1024)
    );
    for _ in 0..3 {
        let mut wire = Wire::open(gateway.proxy);
        let answer = wire.ask(&chat_with("acme", large.as_str()));
        assert_eq!((answer.status, answer.whole), (402, true));
        assert_eq!(answer.json()["error"]["code"], "quota_exceeded");
        let closes = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if closes {
            assert!(wire.is_closed_by_peer());
        } else {
            assert_eq!(wire.ask(&chat("acme")).status, 402);
            assert_eq!(wire.ask(&chat("other")).status, 200);
        }
    }
}
