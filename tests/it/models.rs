//! Which models a plan may use: others are refused before anything goes on, and what is answered is what is priced.

use super::support::gateway::pico_usd_of;
use super::support::*;

const PLANS: &str = "[plans.starter]\nchats_per_month = 500\nallowed_models = [\"gpt-4o*\", \"gemini-2.5-flash*\", \"gpt-4o-transcribe\"]\n";
const FORM: &str = "multipart/form-data; boundary=toll";

fn post(target: &str, body: &str) -> Request {
    Request::post(target, body)
}

/// A form with its parts in this order.
fn form(parts: &[(&str, &[u8])]) -> Request {
    let mut body = Vec::new();
    for (head, content) in parts {
        body.extend_from_slice(format!("--toll\r\nContent-Disposition: form-data; {head}\r\n\r\n").as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--toll--\r\n");
    let request = Request { body: Some(body), ..Request::get("/v1/audio/transcriptions").method("POST") };
    request.header("Content-Type", FORM)
}

#[test]
fn a_model_that_the_plan_does_not_allow_is_403_in_the_callers_words() {
    let provider = Provider::start(bodies::honest);
    let gateway = Setup::new(&provider).config(PLANS).start();
    for (target, body) in [
        (bodies::CHAT, r#"{"model":"gpt-5","messages":[]}"#),
        (bodies::CHAT, r#"{"model":"gpt-4o","messages":[],"model":"gpt-5","stream":true}"#),
        (bodies::CHAT, r#"{"model":"","messages":[]}"#),
        ("/v1/responses", r#"{"prompt":{"id":"pmpt_1"}}"#),
        ("/v1/embeddings", r#"{"model":"text-embedding-3-small","input":"x"}"#),
        ("/v1beta/openai/chat/completions", r#"{"model":"models/gemini-2.5-pro","messages":[]}"#),
    ] {
        let answer = gateway.send(&post(target, body).bearer("acme"));
        let error = &answer.json()["error"];
        let said = (answer.status, &error["type"], &error["code"]);
        assert_eq!(said, (403, &"permission_error".into(), &"model_not_allowed".into()), "{target} {body}: {error}");
        assert!(error["message"].as_str().is_some_and(|said| said.contains("gemini-2.5-flash*")), "{error}");
        assert_eq!(answer.header("x-should-retry").as_deref(), Some("false"));
    }
    for (method, body) in [
        ("generateContent", bodies::GEMINI_REQUEST),
        ("streamGenerateContent?alt=sse", bodies::GEMINI_REQUEST),
        ("countTokens", bodies::GEMINI_REQUEST),
    ] {
        let answer = gateway.send(&post(&format!("/v1beta/models/gemini-2.5-pro:{method}"), body).google("acme"));
        let error = &answer.json()["error"];
        let said = (&error["code"], &error["status"], &error["details"][0]["reason"]);
        assert_eq!(said, (&403.into(), &"PERMISSION_DENIED".into(), &"MODEL_NOT_ALLOWED".into()), "{method}: {error}");
    }
    let model: (&str, &[u8]) = ("name=\"model\"", b"whisper-1");
    let hidden = vec![b'x'; 1 << 20];
    let file: (&str, &[u8]) = ("name=\"file\"; filename=\"a.wav\"", &hidden);
    let allowed: (&str, &[u8]) = ("name=\"model\"", b"gpt-4o-transcribe");
    for parts in [[model, file], [file, model], [file, allowed]] {
        // A model behind a large file is not seen before the call would go on.
        assert_eq!(gateway.send(&form(&parts).bearer("acme")).status, 403);
    }
    assert_eq!(provider.count(), 0);
    let usage = gateway.usage("acme");
    assert_eq!((usage.calls(), usage.chats), (0, 0), "nothing is counted");
    assert_eq!(gateway.json("acme", "/billing/limits")["remaining"], 500);
    provider.now_does(|_| Script::json(200, r#"{"text":"Pay."}"#));
    assert_eq!(gateway.send(&form(&[allowed, file]).bearer("acme")).status, 200);
    assert_eq!(gateway.send(&Request::get("/v1/models/gpt-5").bearer("acme")).status, 200);
}

#[test]
fn an_allowed_alias_is_recorded_as_asked_and_priced_as_answered() {
    let answer = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"Pay."},"finish_reason":"stop"}],"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}"#;
    let provider = Provider::always(Script::json(200, answer));
    let gateway = Setup::new(&provider).config(PLANS).start();
    let asked = r#"{"model":"gpt-4o","messages":[{"role":"user","content":"Hi"}]}"#;
    assert_eq!(gateway.send(&chat_with("acme", asked)).status, 200);
    let event = gateway.event("acme");
    let models = (&event["requested_model"], &event["model"]);
    assert_eq!(models, (&"gpt-4o".into(), &"gpt-4o-mini-2024-07-18".into()));
    // 0.15 and 0.60 USD a million, as the smaller model costs.
    assert_eq!(pico_usd_of(&event["estimated_cost_usd"]), 11 * 150_000 + 7 * 600_000, "{event}");
    // A plan without a list may use every model.
    let moved = Request::post("/billing/plan", r#"{"tenant_id":"acme","plan":"growth"}"#);
    assert_eq!(gateway.admin(moved).status, 200);
    assert_eq!(gateway.send(&chat_with("acme", asked.replace("gpt-4o", "o1"))).status, 200);
}

#[test]
fn a_key_may_have_a_list_of_its_own_within_the_plans() {
    let provider = Provider::start(bodies::honest);
    let gateway = Setup::new(&provider).prod().config(PLANS).start();
    let any = gateway.issue("acme", "starter");
    let issued =
        gateway.issue_key("acme", serde_json::json!({"name": "mini", "allowed_models": ["gpt-4o-mini*", "o3"]}));
    let list = serde_json::json!(["gpt-4o-mini*", "o3"]);
    assert_eq!(issued["allowed_models"], list);
    let key = issued["key"].as_str().unwrap();
    let ask = |key: &str, model: &str| {
        let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"Hi"}}]}}"#);
        gateway.send(&chat_with(key, body))
    };
    assert_eq!((ask(&any, "gpt-4o").status, ask(key, "gpt-4o-mini").status), (200, 200));
    for (model, by) in [("gpt-4o", "this key"), ("o3", "plan starter")] {
        let answer = ask(key, model);
        let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(answer.status == 403 && message.contains(by), "{model}: {message}");
    }
    assert_eq!(provider.count(), 2);
    // It is told wherever the key is, and not for one without.
    let known = gateway.admin(Request::get("/admin/tenants/acme/keys")).json();
    assert_eq!((&known["keys"][0]["allowed_models"], &known["keys"][1]["allowed_models"]), (&list, &().into()));
    let log = gateway.admin(Request::get("/admin/audit?tenant_id=acme")).json();
    assert!(log.to_string().contains(r#""allowed_models":["gpt-4o-mini*","o3"]"#), "{log}");
    for bad in [r#"[]"#, r#"["GPT-4o"]"#, r#"["a,b"]"#, r#""gpt-4o""#] {
        let body = format!(r#"{{"name":"bad","allowed_models":{bad}}}"#);
        let answer = gateway.admin(Request::post("/admin/tenants/acme/keys", body));
        assert_eq!(answer.status, 422, "{bad}: {}", answer.text());
    }
}
