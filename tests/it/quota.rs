//! The limit is a limit: who is refused, when, and which chats are given back.

use std::net::TcpListener;
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

#[test]
fn a_chat_that_the_provider_did_not_bill_is_given_back() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).set("TOLLGATE_UPSTREAM_TIMEOUT", "1s").start();
    let status = |status| Script::json(status, r#"{"error":{"message":"as the provider says"}}"#);
    let rows: [(&str, Script, u16, &str); 17] = [
        ("400", status(400), 400, "upstream_error"),
        ("401", status(401), 401, "upstream_error"),
        ("402", status(402), 402, "upstream_error"),
        ("404", status(404), 404, "upstream_error"),
        ("429", status(429), 429, "upstream_error"),
        ("500", status(500), 500, "upstream_error"),
        ("503", status(503), 503, "upstream_error"),
        ("529", status(529), 529, "upstream_error"),
        ("204", Script::answer(204, &[], ""), 204, "completed"),
        ("302", Script::answer(302, &[("Location", "http://127.0.0.1:9/elsewhere")], ""), 302, "completed"),
        ("hang", Script::default().then(Step::Hang), 504, "no_answer"),
        ("close", Script::default().then(Step::Close), 502, "no_answer"),
        ("reset", Script::default().then(Step::Reset), 502, "no_answer"),
        ("half-a-head", Script::raw("HTTP/1.1 200 OK\r\nContent-Le").then(Step::Close), 502, "no_answer"),
        ("garbage", Script::raw("no such protocol\r\n\r\n").then(Step::Close), 502, "no_answer"),
        (
            "bad-length",
            Script::raw("HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\nhello").then(Step::Close),
            502,
            "no_answer",
        ),
        ("half-a-head-hang", Script::raw("HTTP/1.1 200 OK\r\nContent-Le").then(Step::Hang), 504, "no_answer"),
    ];
    for (tenant, script, expected, outcome) in rows {
        provider.now_does(move |_| script.clone());
        let before = provider.count();
        let answer = gateway.send(&chat(tenant));
        assert_eq!(answer.status, expected, "{tenant}: {}", answer.text());
        assert_eq!(provider.count(), before + 1, "{tenant}: asked once");
        if outcome == "upstream_error" {
            assert_eq!(answer.text(), r#"{"error":{"message":"as the provider says"}}"#, "{tenant}");
        }
        if outcome == "no_answer" {
            let error = answer.json()["error"].clone();
            assert!(error["message"].is_string() && error["code"].is_string(), "{tenant}: {error}");
            assert!(!answer.text().contains("127.0.0.1"), "{tenant}: {}", answer.text());
        }
        assert_eq!(gateway.chats(tenant), (0, 500), "{tenant}");
        let usage = gateway.booked(tenant, 1);
        let failed = u64::from(outcome != "completed");
        assert_eq!((usage.failed_requests, usage.requests, usage.chats), (failed, 1 - failed, 0), "{tenant}");
        assert_eq!((usage.tokens(), usage.cost(), usage.unpriced_requests), ((0, 0, 0), 0, 0), "{tenant}");
        assert_eq!(gateway.event(tenant)["outcome"], outcome, "{tenant}");
        // The next call is fine.
        provider.now_does(honest);
        assert_eq!(gateway.send(&chat(tenant)).status, 200, "{tenant}");
        assert_eq!(gateway.chats(tenant), (1, 499), "{tenant}");
    }
}

#[test]
fn what_a_provider_says_besides_its_status_passes() {
    let provider = Provider::always(Script::answer(
        429,
        &[("Content-Type", "application/json"), ("Retry-After", "7"), ("x-ratelimit-remaining-requests", "0")],
        r#"{"error":{"code":429}}"#,
    ));
    let gateway = Setup::new(&provider).start();
    for request in [chat("acme"), gemini("acme")] {
        let answer = gateway.send(&request);
        assert_eq!((answer.status, answer.text().as_str()), (429, r#"{"error":{"code":429}}"#));
        assert_eq!(answer.header("retry-after").as_deref(), Some("7"));
        assert_eq!(answer.header("x-ratelimit-remaining-requests").as_deref(), Some("0"));
    }
    let redirect = Script::answer(302, &[("Location", "https://elsewhere.test/")], "");
    provider.now_does(move |_| redirect.clone());
    let answer = gateway.send(&chat("acme"));
    assert_eq!((answer.status, answer.header("location").as_deref()), (302, Some("https://elsewhere.test/")));
}

#[test]
fn a_provider_that_cannot_be_reached_is_a_502_in_each_dialect() {
    // A port that was free a moment ago refuses.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = Setup::at(&format!("http://{address}")).start();
    let answer = gateway.send(&chat("acme"));
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (502, &"upstream_unreachable".into()));
    let answer = gateway.send(&gemini("acme"));
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (502, &502.into()));
    assert!(!answer.text().contains(&address.port().to_string()), "{}", answer.text());
    assert_eq!(gateway.chats("acme"), (0, 500));
    let usage = gateway.booked("acme", 2);
    assert_eq!((usage.failed_requests, usage.requests, usage.tokens()), (2, 0, (0, 0, 0)));
}

#[test]
fn a_request_that_was_sent_whole_is_not_sent_again() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    // The first call leaves a connection in the pool, on which the second one meets the end.
    assert_eq!(gateway.send(&chat("acme")).status, 200);
    for ending in [Step::Close, Step::Reset] {
        provider.now_does(honest);
        assert_eq!(gateway.send(&chat("acme")).status, 200);
        let before = provider.count();
        provider.now_does(move |_| Script::default().then(ending.clone()));
        assert_eq!(gateway.send(&chat("acme")).status, 502);
        assert_eq!(provider.count(), before + 1);
    }
}

#[test]
fn connections_that_the_provider_closed_while_idle_cost_no_call() {
    let provider = Provider::start(|seen| honest(seen).then(Step::Close));
    let gateway = Setup::new(&provider).start();
    for call in 1..=30 {
        let answer = gateway.send(&chat("acme"));
        assert_eq!((answer.status, answer.text().as_str()), (200, CHAT_ANSWER), "call {call}");
        // The next call comes when the provider has closed.
        assert!(provider.closed().wait(call), "call {call}");
    }
    assert_eq!(gateway.booked("acme", 30).tokens(), (330, 210, 540));
}
