//! Who may call: good and bad credentials in every place, and which of them leave the gateway.

use std::thread;
use std::time::{Duration, Instant};

use super::support::bodies::*;
use super::support::gateway::{GEMINI_KEY, OPENAI_KEY};
use super::support::http2::Http2;
use super::support::machine::tell;
use super::support::*;

/// A revocation reaches every call within this.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);

/// Each place a key may stand in, for a request of each dialect.
pub fn in_each_place(key: &str) -> Vec<Request> {
    vec![
        Request::post(CHAT, CHAT_REQUEST).bearer(key),
        Request::post(CHAT, CHAT_REQUEST).header("api-key", key),
        Request::post(GEMINI, GEMINI_REQUEST).google(key),
        Request::post(GEMINI, GEMINI_REQUEST).bearer(key),
        Request::post(format!("{GEMINI}?key={key}"), GEMINI_REQUEST),
        Request::post(format!("{GEMINI_SSE}&key={key}"), GEMINI_REQUEST),
        Request::post("/v1/embeddings", r#"{"model":"text-embedding-3-small","input":"x"}"#).bearer(key),
        Request::get("/v1/models").bearer(key),
    ]
}

fn is_gemini(request: &Request) -> bool {
    request.target.starts_with("/v1beta")
}

/// A 401 in the caller's dialect that does not say the key again.
pub fn demand_401(answer: &Answer, request: &Request, key: &str) {
    let name = format!("{key:?} at {} {:?}", request.target, request.headers);
    assert_eq!(answer.status, 401, "{name}: {}", answer.text());
    let error = answer.json()["error"].clone();
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{name}: {error}");
    if is_gemini(request) {
        assert_eq!((&error["code"], &error["status"]), (&401.into(), &"UNAUTHENTICATED".into()), "{name}");
    } else {
        assert!(error["code"].is_string() && error["type"].is_string(), "{name}: {error}");
        assert_eq!(answer.header("x-should-retry").as_deref(), Some("false"), "{name}");
    }
    assert!(key.len() < 4 || !answer.text().contains(key), "{name}: the key is echoed");
}

#[test]
fn a_page_of_elsewhere_spends_nothing_in_dev() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let from = |origin: &str, request: Request| {
        let request = request.header("Origin", origin);
        gateway.send(&request).status
    };
    let all = || [Request::post(format!("{GEMINI}?key=acme"), GEMINI_REQUEST), Request::get("/billing/usage?key=acme")];
    for origin in ["https://evil.example", "null"] {
        assert_eq!(all().map(|request| from(origin, request)), [403, 403], "{origin}");
    }
    assert_eq!((provider.count(), gateway.chats("acme").0), (0, 0));
    assert_eq!(all().map(|request| from("http://localhost:3000", request)), [200, 200]);
    // The admin listener knows the same names. A page sends this without asking first: to it, the body is text.
    let plan = r#"{"tenant_id":"acme","plan":"pro"}"#;
    let change = |origin: &str| {
        let request = Request::post("/billing/plan?key=acme", plan).header("Content-Type", "text/plain");
        request.header("Origin", origin).send(gateway.admin)
    };
    for origin in ["https://evil.example", "null"] {
        let answer = change(origin);
        assert_eq!((answer.status, &answer.json()["code"]), (403, &"foreign_page".into()), "{origin}");
        let metrics = Request::get("/metrics").header("Origin", origin).send(gateway.admin);
        assert_eq!(metrics.status, 403, "{origin}");
    }
    assert_ne!(change("http://localhost:3000").json()["code"], "foreign_page");
    // A key is what a page cannot know.
    let gateway = Setup::new(&provider).prod().start();
    let key = gateway.issue("acme", "starter");
    let chat = Request::post(CHAT, CHAT_REQUEST).bearer(&key).header("Origin", "https://app.example");
    assert_eq!(gateway.send(&chat).status, 200);
}

/// A page asks without an Origin for what it calls its own, and its name may lead here once it is loaded.
#[test]
fn a_name_of_the_web_that_leads_here_reads_nothing_in_dev() {
    let provider = Provider::start(honest);
    let setup = Setup::new(&provider).set("TOLLGATE_H2C", "true");
    let gateway = setup.set("TOLLGATE_PUBLIC_URL", "https://llm.of-ours.example").start();
    let raw = |to, text: String| {
        let mut wire = Wire::open(to);
        wire.send(text.as_bytes());
        wire.answer().expect("an answer")
    };
    let of_host = |to, host: &str| raw(to, format!("GET /billing/usage?key=acme HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    for to in [gateway.proxy, gateway.admin] {
        for host in
            ["evil.example:8080", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "localhost.co"]
        {
            let answer = of_host(to, host);
            assert_eq!(answer.status, 403, "{host}: {}", answer.text());
            let text = answer.text();
            assert!(
                text.to_lowercase().contains("foreign_page") && text.contains("TOLLGATE_PUBLIC_URL"),
                "{host}: {text}"
            );
        }
        let absolute = "GET http://evil.example/billing/usage?key=acme HTTP/1.1\r\nHost: evil.example\r\n\r\n";
        assert_eq!(raw(to, absolute.to_owned()).status, 403);
        let here =
            ["localhost:8080", "LocalHost", "app.localhost", "127.0.0.1:8080", "[::1]:8080", "192.0.2.7", "tollgate"];
        for host in
            here.into_iter().chain(["tollgate:8080", "host.docker.internal", "llm.of-ours.example", "gateway.test"])
        {
            let answer = of_host(to, host);
            assert_eq!(answer.status, 200, "{host}: {}", answer.text());
        }
        assert_eq!(raw(to, "GET /billing/usage?key=acme HTTP/1.0\r\n\r\n".to_owned()).status, 200);
    }
    for (authority, status) in [("evil.example:8080", 403), ("gateway.test", 200)] {
        let head = http::Request::get(format!("http://{authority}/billing/usage?key=acme"));
        let mut client = Http2::open(gateway.proxy);
        let mut stream = client.begin_with(head.version(http::Version::HTTP_2).body(()).unwrap(), true).unwrap();
        assert_eq!(stream.head().unwrap().status.as_u16(), status, "{authority}");
    }
    // A key is what a page cannot know.
    let gateway = Setup::new(&provider).prod().start();
    let key = gateway.issue("acme", "starter");
    let text = format!("GET /billing/usage HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer {key}\r\n\r\n");
    for to in [gateway.proxy, gateway.admin] {
        assert_eq!(raw(to, text.clone()).status, 200);
    }
}

#[test]
fn another_key_of_ours_stays_as_the_presented_one_does() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).prod().start();
    let (new, old) = (gateway.issue("acme", "starter"), gateway.issue("globex", "starter"));
    let request = chat(&new)
        .header("X-Old-Token", old.clone())
        .header("Referer", format!("https://app.example/chat?key={old}"))
        .header("X-Odd", format!("caf\u{e9} {old}"))
        .header("X-Harmless", "tg_live_ is how keys begin");
    assert_eq!(gateway.send(&request).status, 200);
    let seen = provider.last();
    assert!(!seen.everything().contains(&old), "{}", seen.everything());
    assert_eq!(seen.header("x-harmless"), Some("tg_live_ is how keys begin"));
}

#[test]
fn the_tenant_s_key_stays_and_the_provider_s_key_goes_out() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).prod().start();
    let key = gateway.issue("acme", "starter");
    for request in in_each_place(&key) {
        let request = request
            .header("OpenAI-Organization", "org-of-the-client")
            .header("OpenAI-Project", "project-of-the-client")
            .header("Cookie", "session=of-the-client")
            .header("x-api-key", "other-of-the-client")
            .header("x-debug", format!("before {key} after"))
            .header("x-harmless", "stays")
            .header("Connection", "Authorization, x-goog-api-key, x-listed")
            .header("x-listed", "hop-of-the-client");
        let answer = gateway.send(&request);
        assert_eq!(answer.status, 200, "{}: {}", request.target, answer.text());
        let seen = provider.last();
        let everything = seen.everything();
        assert!(!everything.contains(&key) && !everything.contains("of-the-client"), "{everything}");
        assert!(!everything.contains("key="), "{everything}");
        assert_eq!(seen.header("x-harmless"), Some("stays"));
        if is_gemini(&request) {
            assert_eq!(seen.header("x-goog-api-key"), Some(GEMINI_KEY), "{everything}");
            assert_eq!(seen.header("authorization"), None, "{everything}");
        } else {
            assert_eq!(seen.header("authorization"), Some(format!("Bearer {OPENAI_KEY}").as_str()), "{everything}");
            assert_eq!(seen.header("x-goog-api-key"), None, "{everything}");
        }
        assert_eq!(seen.headers.iter().filter(|(name, _)| name == "host").count(), 1, "{everything}");
        assert_eq!(seen.header("host"), Some(provider.address.to_string().as_str()), "{everything}");
        assert_eq!(seen.target.contains("alt=sse"), request.target.contains("alt=sse"), "{everything}");
    }
}

#[test]
fn a_revoked_key_is_refused_while_the_other_key_of_its_tenant_works() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).prod().start();
    let first = gateway.issue("acme", "starter");
    let second = gateway.issue_key("acme", serde_json::json!({"name": "second"}));
    let (second, id) = (second["key"].as_str().unwrap(), second["id"].as_str().unwrap());
    assert_eq!((gateway.send(&chat(&first)).status, gateway.send(&chat(second)).status), (200, 200));
    let gone = gateway.admin(Request::get(format!("/admin/tenants/acme/keys/{id}")).method("DELETE"));
    assert!(matches!(gone.status, 200 | 204), "{}", gone.text());
    let deadline = Instant::now() + REVOKED_WITHIN;
    while gateway.send(&chat(second)).status == 200 {
        assert!(Instant::now() < deadline, "still good");
        thread::sleep(Duration::from_millis(20));
    }
    let request = chat(second);
    demand_401(&gateway.send(&request), &request, second);
    assert_eq!(gateway.send(&chat(&first)).status, 200);
    tell("C28", "a revoked key", 1, "401 within 5 s, the other key of its tenant works");
}

#[test]
fn a_key_that_expires_is_refused_from_then_on() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).prod().start();
    gateway.issue("acme", "starter");
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(1500);
    let key = gateway.issue_key("acme", serde_json::json!({"name": "short", "expires_at": at.to_string()}));
    let key = key["key"].as_str().unwrap();
    assert_eq!(gateway.send(&chat(key)).status, 200);
    let deadline = Instant::now() + Duration::from_secs(10);
    while gateway.send(&chat(key)).status == 200 {
        assert!(Instant::now() < deadline, "still good");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(jiff::Timestamp::now() >= at, "refused before its time");
    let request = chat(key);
    demand_401(&gateway.send(&request), &request, key);
}

#[test]
fn a_slug_is_a_tenant_in_dev_and_nothing_in_prod() {
    let provider = Provider::start(honest);
    let dev = Setup::new(&provider).start();
    for tenant in ["a", "acme", "a_b-9", &"x".repeat(64)] {
        assert_eq!(dev.send(&chat(tenant)).status, 200, "{tenant}");
        assert_eq!(dev.booked(tenant, 1).chats, 1, "{tenant}");
    }
    for key in ["Acme", "a.b", "tg_x", "sk-x", &"x".repeat(65), "a b"] {
        assert_eq!(dev.send(&chat(key)).status, 401, "{key}");
    }
    let key = dev.issue("acme2", "growth");
    assert_eq!(dev.send(&chat(&key)).status, 200, "issued keys are good in dev too");
    assert_eq!(dev.chats(&key), (1, 4999));
}

#[test]
fn a_tenant_in_dev_whose_name_is_a_word_loses_no_header() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    for tenant in ["json", "app", "a"] {
        assert_eq!(gateway.send(&chat(tenant).header("User-Agent", "an-app/1.0")).status, 200, "{tenant}");
        let seen = provider.last();
        assert_eq!(seen.header("content-type"), Some("application/json"), "{tenant}");
        assert_eq!(seen.header("user-agent"), Some("an-app/1.0"), "{tenant}");
    }
}

#[test]
fn a_suspended_tenant_is_refused_and_comes_back() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).prod().start();
    let key = gateway.issue("acme", "starter");
    for (body, status) in [(r#"{"suspended":true}"#, 403), (r#"{"suspended":false}"#, 200)] {
        let changed = gateway.admin(Request::post("/admin/tenants/acme", body).method("PATCH"));
        assert_eq!(changed.status, 200, "{}", changed.text());
        assert_eq!(gateway.send(&chat(&key)).status, status, "{body}");
    }
    assert_eq!(provider.count(), 1);
}
