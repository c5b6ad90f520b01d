//! Answers of Gemini that go on in another call: that call is the same chat, for the tenant that was given the token.

use serde_json::json;

use super::support::bodies::*;
use super::support::*;

const TOKEN: &str = "dG8gYmUgY29udGludWVk";

/// An answer that is cut for it to be gone on with.
fn cut_answer() -> String {
    json!({"candidates": [{"content": {"parts": [{"text": "Pay"}], "role": "model"}, "finishReason": "CONTINUATION",
        "continuationToken": TOKEN, "index": 0}], "modelVersion": "gemini-2.5-flash",
        "usageMetadata": {"promptTokenCount": 11, "candidatesTokenCount": 5, "thoughtsTokenCount": 2, "totalTokenCount": 18}})
    .to_string()
}

fn goes_on(tenant: &str) -> Request {
    let body = json!({"contents": [{"parts": [{"text": "What is the toll?"}]}], "continuationToken": TOKEN});
    Request::post(GEMINI, body.to_string()).google(tenant)
}

/// Cut where nothing is gone on with, else whole; as the request asks for it.
fn in_two_parts(seen: &provider::Seen) -> Script {
    let is_second = String::from_utf8_lossy(&seen.body).contains("continuationToken");
    let answer = if is_second { GEMINI_ANSWER.to_owned() } else { cut_answer() };
    if seen.target.contains("alt=sse") {
        Script::pieces("text/event-stream", &[format!("data: {answer}\r\n\r\n").into_bytes()])
    } else {
        Script::json(200, answer)
    }
}

fn demand_ok(gateway: &Gateway, request: &Request) {
    let answer = gateway.send(request);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn an_answer_in_two_calls_is_one_chat() {
    let provider = Provider::start(in_two_parts);
    let gateway = Setup::new(&provider).start();
    for (tenant, begin) in [("whole", GEMINI), ("stream", GEMINI_SSE)] {
        demand_ok(&gateway, &gemini(tenant).to(begin));
        demand_ok(&gateway, &goes_on(tenant));
        let usage = gateway.booked(tenant, 2);
        assert_eq!((usage.requests, usage.chats, usage.tokens()), (2, 1, (22, 14, 36)), "{tenant}");
        assert_eq!(gateway.chats(tenant), (1, 499), "{tenant}");
        // The token was good for one call.
        demand_ok(&gateway, &goes_on(tenant));
        assert_eq!(gateway.chats(tenant), (2, 498), "{tenant}");
    }
}

#[test]
fn a_token_that_this_tenant_was_not_given_begins_a_chat() {
    let provider = Provider::start(in_two_parts);
    let gateway = Setup::new(&provider).start();
    demand_ok(&gateway, &gemini("acme"));
    demand_ok(&gateway, &goes_on("other"));
    assert_eq!(gateway.chats("other"), (1, 499));
    demand_ok(&gateway, &goes_on("acme"));
    assert_eq!(gateway.chats("acme"), (1, 499));
}

#[test]
fn a_call_that_goes_on_is_not_refused_half_way() {
    let provider = Provider::start(in_two_parts);
    let gateway = Setup::new(&provider).config("[plans.starter]\nchats_per_month = 1\n").start();
    demand_ok(&gateway, &gemini("acme"));
    assert_eq!(gateway.send(&gemini("acme")).status, 402);
    demand_ok(&gateway, &goes_on("acme"));
    assert_eq!(gateway.send(&goes_on("acme")).status, 402);
}

#[test]
fn a_call_that_goes_on_and_fails_may_be_made_again() {
    let provider = Provider::start(in_two_parts);
    let gateway = Setup::new(&provider).start();
    demand_ok(&gateway, &gemini("acme"));
    provider.now_does(|_| Script::json(503, r#"{"error":{"code":503}}"#));
    assert_eq!(gateway.send(&goes_on("acme")).status, 503);
    provider.now_does(in_two_parts);
    demand_ok(&gateway, &goes_on("acme"));
    let usage = gateway.booked("acme", 3);
    assert_eq!((usage.requests, usage.failed_requests, usage.chats), (2, 1, 1));
}
