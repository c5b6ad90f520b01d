//! Requests that are wrong: routes, bodies, sizes. Each is refused in the caller's dialect and costs nothing.

use super::support::bodies::*;
use super::support::*;

/// Checks a refusal: status, code or Gemini status, and that nothing went upstream.
pub fn check(gateway: &Gateway, provider: &Provider, request: &Request, status: u16) -> Answer {
    let before = provider.count();
    let answer = gateway.send(request);
    let name = format!("{} {}", request.method, request.target);
    assert_eq!(answer.status, status, "{name}: {}", answer.text());
    assert!(answer.whole, "{name}");
    if request.method != "HEAD" {
        let error = answer.json()["error"].clone();
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{name}: {error}");
    }
    assert_eq!(provider.count(), before, "{name}");
    answer
}

#[test]
fn what_no_provider_serves_is_refused_and_not_forwarded_free() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    for (method, target, status) in [
        ("POST", "/v1/unknown", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("POST", "/v1/chat/completionsx", 404),
        ("POST", "/v1/../v1/chat/completions", 404),
        ("POST", "/V1/chat/completions", 404),
        ("POST", "/", 404),
        ("POST", "/v2/chat/completions", 404),
        // A provider that decodes it begins a run.
        ("POST", "/v1/threads/%72uns", 404),
        ("POST", "/v1beta/models/gemini-2.5-flash", 404),
        ("POST", "/v1beta/models/gemini-2.5-flash:unknownVerb", 404),
        ("POST", "/v1beta/models/a%2F..%2Fb:generateContent", 404),
        ("PUT", CHAT, 405),
        ("PATCH", CHAT, 405),
        ("DELETE", CHAT, 405),
        ("DELETE", GEMINI, 405),
        ("GET", GEMINI, 405),
        ("GET", "/v1/embeddings", 405),
    ] {
        let request = chat("acme").to(target).method(method);
        let answer = gateway.send(&request);
        let refused = answer.status == status || (status == 404 && answer.status == 400);
        assert!(refused, "{method} {target}: {} {}", answer.status, answer.text());
        assert!(status != 405 || answer.header("allow").is_some(), "{method} {target}");
    }
    assert_eq!(provider.count(), 0);
    check(&gateway, &provider, &chat("acme").to("/v1/unknown"), 404);
    assert_eq!(gateway.usage("acme").calls(), 0);
    assert_eq!(gateway.send(&chat("acme")).status, 200);
}

#[test]
fn a_body_that_is_no_object_is_refused() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    for body in
        ["", "{", "null", "[]", "\"text\"", "{\"model\":}", "{\"model\":\"gpt-4o-mini\"} x", "\u{feff}{}", &deep]
    {
        let name = &body[..body.len().min(40)];
        let answer = gateway.send(&chat_with("acme", body));
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        assert_eq!(answer.json()["error"]["code"], "invalid_json", "{name}");
        let answer = gateway.send(&Request::post(GEMINI, body).google("acme"));
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        assert_eq!(answer.json()["error"]["status"], "INVALID_ARGUMENT", "{name}");
    }
    let depth = format!(r#"{{"model":"gpt-4o-mini","messages":{deep}}}"#);
    let answer = gateway.send(&chat_with("acme", depth));
    assert!(matches!(answer.status, 200 | 400), "{}", answer.status);
    let answer = gateway.send(&chat_with("acme", b"{\"model\":\"\xff\"}".to_vec()));
    assert_eq!(answer.status, 400, "{}", answer.text());
    let answer = gateway.send(&chat_with("acme", gzip(CHAT_REQUEST.as_bytes())).header("Content-Encoding", "gzip"));
    assert_eq!(answer.status, 415, "{}", answer.text());
    assert!(provider.count() <= 1, "{}", provider.count());
    assert_eq!(gateway.send(&chat("other")).status, 200);
}

#[test]
fn bodies_beyond_the_common_buffer_are_put_off_and_the_others_go_on() {
    // A large body is held for as long as its provider does not answer.
    let gate = Gate::default();
    let waits = gate.clone();
    let provider = Provider::start(move |seen| match seen.body.len() {
        0..=1_000_000 => honest(seen),
        _ => honest(seen).after(Step::Wait(waits.clone(), 1)),
    });
    let gateway = Setup::new(&provider).config("[listen]\nbuffer_total = \"8MiB\"\nbody_limit = \"4MiB\"\n").start();
    let large = chat_with("acme", CHAT_REQUEST.replace("Count", &"x".repeat(3 << 20)));
    std::thread::scope(|scope| {
        let held: Vec<_> = (0..2).map(|_| scope.spawn(|| gateway.send(&large).status)).collect();
        provider.demand_count(2);
        let refused = gateway.send(&large);
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert_eq!(refused.json()["error"]["code"], "buffers_full");
        assert!(refused.header("retry-after").is_some());
        assert_eq!(gateway.send(&chat("small")).status, 200, "a small call still fits");
        gate.pass();
        for caller in held {
            assert_eq!(caller.join().unwrap(), 200);
        }
    });
    for _ in 0..5 {
        assert_eq!(gateway.send(&large).status, 200, "the buffer is given back");
    }
    assert_eq!(gateway.booked("acme", 7).requests, 7);
}

#[test]
fn a_provider_without_a_key_is_named_with_what_turns_it_on() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).set("GEMINI_API_KEY", "").start();
    let answer = check(&gateway, &provider, &gemini("acme"), 503);
    assert!(answer.text().contains("GEMINI_API_KEY"), "{}", answer.text());
    assert_eq!(gateway.send(&chat("acme")).status, 200);
}
