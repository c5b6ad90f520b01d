//! Who asks: credentials that are none, in every place and spelling, and two at once.

use super::*;
use crate::credentials::{demand_401, in_each_place};
use crate::support::gateway::ADMIN_KEY;

/// The routes that each bad credential knocks at. With one in a place of Google's, `/v1` is Google's and has none of OpenAI's.
const ROUTES: [(&str, &str, &str); 5] = [
    ("POST", CHAT, CHAT_REQUEST),
    ("POST", GEMINI, GEMINI_REQUEST),
    ("POST", "/v1/embeddings", r#"{"model":"text-embedding-3-small","input":"x"}"#),
    ("GET", "/v1/models", ""),
    ("GET", "/v1beta/models", ""),
];

fn knock((method, target, body): (&str, &str, &str), lines: &[String], query: Option<&str>) -> Vec<u8> {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let length = format!("Content-Length: {}", body.len());
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let fixed: &[&str] = if body.is_empty() { &[HOST] } else { &[HOST, JSON, &length] };
    [head(&format!("{method} {target}{query} HTTP/1.1"), &[fixed, &lines].concat()), body.into()].concat()
}

type Kind = (&'static str, Vec<String>, Option<String>, &'static [u16]);

/// A name, header lines, a query, and with what each is refused.
fn kinds(good: &str, cut: &str) -> Vec<Kind> {
    let auth = |value: &str| vec![format!("Authorization: {value}")];
    let line = |line: String| vec![line];
    vec![
        ("no scheme", auth(good), None, &[401]),
        ("Basic", auth(&format!("Basic {good}")), None, &[401]),
        ("Digest", auth(&format!("Digest username=\"{good}\"")), None, &[401]),
        ("Token", auth(&format!("Token {good}")), None, &[401]),
        ("two schemes", auth(&format!("Bearer Bearer {good}")), None, &[401]),
        ("a tab in place of the space", auth(&format!("Bearer\t{good}")), None, &[401]),
        ("no space", auth(&format!("Bearer{good}")), None, &[401]),
        ("a colon", auth(&format!("Bearer: {good}")), None, &[401]),
        ("quoted", auth(&format!("Bearer \"{good}\"")), None, &[401]),
        ("a list", auth(&format!("Bearer {good}, Bearer {good}")), None, &[401]),
        ("a list of keys", auth(&format!("Bearer {good},{good}")), None, &[401]),
        ("a parameter", auth(&format!("Bearer {good};q=1")), None, &[401]),
        ("nothing", auth(""), None, &[401]),
        ("Bearer alone", auth("Bearer"), None, &[401]),
        ("Bearer and spaces", auth("Bearer    "), None, &[401]),
        ("percent-encoded", auth(&format!("Bearer %74{}", &good[1..])), None, &[401]),
        ("in capitals", auth(&format!("Bearer {}", good.to_uppercase())), None, &[401]),
        ("one letter short", auth(&format!("Bearer {cut}")), None, &[401]),
        ("one letter more", auth(&format!("Bearer {good}x")), None, &[401]),
        ("its prefix", auth("Bearer tg_live_"), None, &[401]),
        ("a letter in two", auth(&format!("Bearer {} {}", &good[..20], &good[20..])), None, &[401]),
        ("a letter of another alphabet", auth(&format!("Bearer {cut}\u{430}")), None, &[401]),
        ("8 KiB of letters", auth(&format!("Bearer {}", "x".repeat(8192))), None, &[401]),
        ("a NUL in it", auth(&format!("Bearer {cut}\0")), None, &[400]),
        ("a NUL behind it", auth(&format!("Bearer {good}\0")), None, &[400]),
        ("a bare CR behind it", auth(&format!("Bearer {good}\rx")), None, &[400]),
        ("folded", auth(&format!("Bearer\r\n {good}")), None, &[400]),
        ("a space before the colon", line(format!("Authorization : Bearer {good}")), None, &[400]),
        ("64 KiB of it", auth(&format!("Bearer {}", "x".repeat(64 * 1024))), None, &[431]),
        ("in a cookie", line(format!("Cookie: Authorization=Bearer {good}; key={good}")), None, &[401]),
        ("in Proxy-Authorization", line(format!("Proxy-Authorization: Bearer {good}")), None, &[401]),
        ("in x-api-key", line(format!("x-api-key: {good}")), None, &[401]),
        ("with underscores", line(format!("x_goog_api_key: {good}")), None, &[401]),
        ("an empty api-key", line("api-key:".into()), None, &[401]),
        ("an empty x-goog-api-key", line("x-goog-api-key: ".into()), None, &[401]),
        ("a wrong x-goog-api-key", line(format!("x-goog-api-key: {cut}")), None, &[401, 404]),
        ("the admin's", auth(&format!("Bearer {ADMIN_KEY}")), None, &[401]),
        ("the provider's", auth(&format!("Bearer {OPENAI_KEY}")), None, &[401]),
        ("the other provider's", line(format!("x-goog-api-key: {GEMINI_KEY}")), None, &[401, 404]),
        ("a tenant's name", auth("Bearer acme"), None, &[401]),
        ("an empty one in the query", vec![], Some("key=".into()), &[401]),
        ("a wrong one in the query", vec![], Some(format!("key={cut}")), &[401, 404]),
        ("another name in the query", vec![], Some(format!("api_key={good}")), &[401]),
        ("a name in capitals in the query", vec![], Some(format!("KEY={good}")), &[401]),
        (
            "encoded twice in the query",
            vec![],
            Some(format!("key=%25{:02x}{}", good.as_bytes()[0], &good[1..])),
            &[401, 404],
        ),
        ("behind a semicolon in the query", vec![], Some(format!("a=b;key={good}")), &[401]),
    ]
}

#[test]
fn what_is_no_credential_opens_nothing_however_it_is_written() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).prod().start();
    let good = gateway.issue("acme", "starter");
    let cut = &good[..good.len() - 1];
    let kinds = kinds(&good, cut);
    let count = kinds.len();
    let mut wrong = Vec::new();
    for (name, lines, query, statuses) in &kinds {
        for route in ROUTES {
            let mut wire = Wire::open(gateway.proxy);
            drop(wire.try_send(&knock(route, lines, query.as_deref())));
            let Some(answer) = wire.answer() else {
                wrong.push(format!("{name} at {}: no answer", route.1));
                continue;
            };
            let text = answer.text();
            let is_json = serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|body| body["error"].is_object());
            if !statuses.contains(&answer.status) || !is_json || text.contains(cut) {
                wrong.push(format!("{name} at {}: {} {text}", route.1, answer.status));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(provider.count(), 0, "{:?}", provider.seen());
    assert_eq!((gateway.usage(&good).calls(), gateway.chats(&good)), (0, (0, 500)));
    for route in ROUTES {
        let mut wire = Wire::open(gateway.proxy);
        wire.send(&knock(route, &[format!("aUTHORIZATION:bEARER  {good} ")], None));
        assert_eq!(wire.answer().expect("an answer").status, 200, "{}", route.1);
    }
    let log = gateway.log();
    assert!(!log.contains(cut) && !log.contains(ADMIN_KEY) && !log.contains(OPENAI_KEY), "a key is in the log");
    tell(
        "C23",
        "what is no credential, at 5 routes each",
        count,
        "refused in JSON, never echoed; 0 requests at the provider",
    );
}

#[test]
fn a_bad_credential_is_refused_in_every_place_and_nothing_goes_upstream() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).prod().start();
    let good = gateway.issue("acme", "starter");
    let mut mistyped = good.clone().into_bytes();
    mistyped[20] = if mistyped[20] == b'x' { b'y' } else { b'x' };
    let mistyped = String::from_utf8(mistyped).unwrap();
    let soon = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(60);
    let bad = [
        "acme".to_owned(),
        "sk-proj-abcdefghijklmnop".to_owned(),
        "tg_live_".to_owned(),
        "tg_live_short".to_owned(),
        // Well formed, never issued.
        tollgate::domain::key::mint([7; 32]),
        good.to_uppercase(),
        format!("{good}x"),
        good[..good.len() - 1].to_owned(),
        mistyped,
        ADMIN_KEY.to_owned(),
        OPENAI_KEY.to_owned(),
        GEMINI_KEY.to_owned(),
    ];
    for key in &bad {
        for request in in_each_place(key) {
            demand_401(&gateway.send(&request), &request, key);
        }
        let billing = gateway.send(&Request::get("/billing/usage?range=month").bearer(key));
        assert_eq!(billing.status, 401, "{key}");
        assert_eq!(billing.header("content-type").as_deref(), Some("application/problem+json"), "{key}");
    }
    for request in [Request::post(CHAT, CHAT_REQUEST), Request::post(GEMINI, GEMINI_REQUEST)] {
        demand_401(&gateway.send(&request), &request, "");
    }
    // An expiry in the past is refused when it is made or when it is used.
    let body = serde_json::json!({"name": "old", "expires_at": soon.to_string()});
    let made = gateway.admin(Request::post("/admin/tenants/acme/keys", body.to_string()));
    if made.status == 201 {
        let expired = made.json()["key"].as_str().unwrap().to_owned();
        for request in in_each_place(&expired) {
            demand_401(&gateway.send(&request), &request, &expired);
        }
    } else {
        assert_eq!(made.status, 422, "{}", made.text());
    }
    assert_eq!(provider.count(), 0);
    assert_eq!(gateway.usage(&good).calls(), 0);
    assert_eq!(gateway.chats(&good), (0, 500));
    assert_eq!(gateway.send(&chat(&good)).status, 200);
}

#[test]
fn two_different_credentials_are_refused_and_the_same_twice_is_one() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).prod().start();
    let (a, b) = (gateway.issue("a", "starter"), gateway.issue("b", "starter"));
    let two = [
        chat(&a).google(&b),
        chat(&a).header("api-key", &b),
        chat(&a).bearer(&b),
        gemini(&a).bearer(&b),
        gemini(&a).to(format!("{GEMINI}?key={b}")),
        gemini(&a).to(format!("{GEMINI}?key={a}&key={b}")),
        chat(&a).google("nonsense"),
        chat(&a).bearer(&b).bearer(&a),
        chat(&a).header("AUTHORIZATION", format!("bearer {b}")),
        chat(&a).header("Authorization", format!("Basic {b}")),
        chat(&a).to(format!("{CHAT}?k%65y={b}")),
        chat(&a).header("Sec-WebSocket-Protocol", format!("realtime, openai-insecure-api-key.{b}")),
    ];
    let count = two.len();
    for request in two {
        let answer = gateway.send(&request);
        assert!(matches!(answer.status, 400 | 401), "{} {:?}: {}", request.target, request.headers, answer.text());
    }
    assert_eq!(provider.count(), 0);
    assert_eq!(gateway.send(&chat(&a).header("api-key", &a)).status, 200);
    assert_eq!(gateway.send(&gemini(&a).to(format!("{GEMINI}?key={a}"))).status, 200);
    assert_eq!((gateway.booked(&a, 2).requests, gateway.usage(&b).calls()), (2, 0));
    tell("C24", "two credentials in one request", count, "refused; nobody is booked");
}
