//! Budgets of tokens and money: what a worst case never passes, what an estimate may, who is refused and with what words.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::gateway::{pico_usd, pico_usd_of};
use super::support::postgres::Database;
use super::support::provider::Seen;
use super::support::redis::RedisServer;
use super::support::*;

/// What one call of [`three_cents`] costs, in pico-dollars.
const CALL: u64 = 30_000_000_000;
const DOLLAR: u64 = 1_000_000_000_000;
const CLIENTS: usize = 200;

/// gpt-4o costs 2.50 and 10 dollars a million: 8 tokens and 2,998 tokens are three cents.
const ANSWER: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-2024-08-06","choices":[],
    "usage":{"prompt_tokens":8,"completion_tokens":2998,"total_tokens":3006}}"#;

/// A call that declares exactly the output that it gets, by the price list's tier alone.
fn three_cents(key: &str) -> Request {
    let body = r#"{"model":"gpt-4o","service_tier":"default","max_completion_tokens":2998,
        "messages":[{"role":"user","content":"hi"}]}"#;
    Request::post(bodies::CHAT, body).bearer(key)
}

/// Answers after a moment, so that many calls are in flight at once.
fn slow(_: &Seen) -> Script {
    Script::json(200, ANSWER).after(Step::Pause(Duration::from_millis(50)))
}

fn plan(keys: &str) -> String {
    format!("[plans.starter]\nchats_per_month = -1\n{keys}\n")
}

/// What clients of a budget saw together.
#[derive(Default)]
struct Saw {
    served: AtomicU64,
    held: AtomicU64,
    /// What was used by the word of each 402, in pico-dollars.
    used_at_402: Mutex<Vec<u64>>,
}

/// Each client calls until it is told that the budget is used up, and tries a 429 again when it was told to.
fn until_used_up(gateways: &[&Gateway], key: &str) -> Arc<Saw> {
    let (saw, start) = (Arc::new(Saw::default()), Arc::new(Barrier::new(CLIENTS)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|at| {
            let (saw, start, key) = (saw.clone(), start.clone(), key.to_owned());
            let proxy = gateways[at % gateways.len()].proxy;
            let client = move || {
                start.wait();
                loop {
                    let answer = three_cents(&key).send(proxy);
                    match answer.status {
                        200 => saw.served.fetch_add(1, Ordering::Relaxed),
                        429 => {
                            let error = answer.json()["error"].clone();
                            assert_eq!(error["code"], "budget_held", "{error}");
                            let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
                            assert_eq!((after, answer.header("x-should-retry")), (1, None));
                            thread::sleep(Duration::from_secs(after));
                            saw.held.fetch_add(1, Ordering::Relaxed)
                        }
                        402 => {
                            let quota = answer.json()["error"]["quota"].clone();
                            saw.used_at_402.lock().unwrap().push(pico_usd_of(&quota["used"]));
                            return;
                        }
                        other => panic!("{other}: {}", answer.text()),
                    };
                }
            };
            thread::Builder::new().stack_size(256 * 1024).spawn(client).unwrap()
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    saw
}

#[test]
fn a_worst_case_never_passes_a_dollar_and_uses_it_before_it_refuses() {
    let provider = Provider::start(slow);
    let gateway = Setup::new(&provider).config(&plan("cost_usd_per_month = 1\nhold = \"worst_case\"")).start();
    let saw = until_used_up(&[&gateway], "acme");
    let served = saw.served.load(Ordering::Relaxed);
    let usage = gateway.booked("acme", served);
    assert!(usage.cost() <= DOLLAR, "spent {} with {served} calls", usage.cost());
    assert_eq!((usage.cost(), served), (33 * CALL, 33));
    assert_eq!(provider.count(), 33, "nothing of a refused call goes upstream");
    let first = *saw.used_at_402.lock().unwrap().iter().min().unwrap();
    assert!(first >= 97 * DOLLAR / 100, "refused for good with {first} spent");
    assert!(saw.held.load(Ordering::Relaxed) > 0, "200 clients met no other's hold");
    let cost = gateway.json("acme", "/billing/limits")["limits"][1].clone();
    assert_eq!((&cost["metric"], &cost["limit"], &cost["held"]), (&json!("cost_usd"), &json!(1), &json!(0)));
    assert_eq!(pico_usd_of(&cost["used"]), usage.cost());
}

#[test]
fn three_gateways_never_pass_a_dollar_either() {
    for lease_max in ["64", "0"] {
        let (provider, redis, database) = (Provider::start(slow), RedisServer::start(), Database::new());
        let config = plan("cost_usd_per_month = 1\nhold = \"worst_case\"");
        let setup = || {
            Setup::new(&provider)
                .prod()
                .set("DATABASE_URL", &database.url)
                .set("REDIS_URL", &redis.url())
                .set("TOLLGATE_COUNTERS_LEASE_MAX", lease_max)
                .config(&config)
                .start()
        };
        let nodes = [setup(), setup(), setup()];
        let key = nodes[0].issue("acme", "starter");
        let saw = until_used_up(&nodes.each_ref(), &key);
        let served = saw.served.load(Ordering::Relaxed);
        let usage = nodes[0].booked(&key, served);
        assert!(usage.cost() <= DOLLAR, "spent {} with {served} calls", usage.cost());
        let first = *saw.used_at_402.lock().unwrap().iter().min().unwrap();
        assert!(
            first >= 97 * DOLLAR / 100,
            "refused for good with {first} spent, {served} calls, leases of {lease_max}"
        );
        assert_eq!((served, provider.count()), (33, 33), "leases of {lease_max}");
        // Each says the same once all is told.
        for node in &nodes {
            let began = std::time::Instant::now();
            while pico_usd_of(&node.json(&key, "/billing/limits")["limits"][1]["used"]) != usage.cost() {
                assert!(began.elapsed() < Duration::from_secs(30), "{}", node.json(&key, "/billing/limits"));
                thread::yield_now();
            }
        }
    }
}

#[test]
fn a_loop_of_background_calls_never_passes_a_worst_case() {
    let queued = json!({"id": "resp_1", "object": "response", "background": true, "status": "queued", "model": "gpt-4o",
        "output": [], "usage": null});
    let provider = Provider::always(Script::json(200, queued.to_string()));
    let background = r#"{"model":"gpt-4o","input":"hi","max_output_tokens":16,"background":true}"#;
    let batch = r#"{"input_file_id":"file-1","endpoint":"/v1/responses","completion_window":"24h"}"#;
    let gemini = r#"{"batch":{"inputConfig":{"requests":{"requests":[]}}}}"#;
    let ask = |gateway: &Gateway, (path, body): (&str, &str)| gateway.send(&Request::post(path, body).bearer("acme"));
    let later = [
        ("/v1/responses", background),
        ("/v1/batches", batch),
        ("/v1/threads/runs", r#"{"assistant_id":"asst_1"}"#),
        ("/v1beta/models/gemini-2.5-flash:batchGenerateContent", gemini),
        ("/v1beta/interactions", r#"{"model":"gemini-2.5-flash","input":"hi","background":true}"#),
    ];
    for limit in ["cost_usd_per_month = 1", "tokens_per_day = 5000000"] {
        let gateway = Setup::new(&provider).config(&plan(&format!("{limit}\nhold = \"worst_case\""))).start();
        let before = provider.count();
        for call in later {
            let answer = ask(&gateway, call);
            let (status, text) = (answer.status, answer.text());
            assert_eq!(status, 403, "{call:?}: {text}");
            assert!(text.contains("deferred = \\\"allow\\\""), "{text}");
        }
        assert_eq!(ask(&gateway, later[0]).json()["error"]["code"], "deferred_not_allowed");
        assert_eq!(provider.count(), before, "nothing of a refused call goes upstream");
        let foreground = background.replace("true", "false");
        assert_eq!(
            ask(&gateway, ("/v1/responses", &foreground)).status,
            200,
            "what is answered at once is not refused"
        );
    }
    for keys in [
        "tokens_per_day = 5000000\nhold = \"worst_case\"\ndeferred = \"allow\"",
        "tokens_per_day = 5000000",
        "user_tokens_per_day = 5000000\nhold = \"worst_case\"",
        "tokens_per_minute = 5000000\nhold = \"worst_case\"",
    ] {
        let gateway = Setup::new(&provider).config(&plan(keys)).start();
        assert_eq!(ask(&gateway, later[0]).status, 200, "{keys}");
    }
}

#[test]
fn an_estimate_passes_the_limit_by_no_more_than_what_its_calls_used_beyond_their_holds() {
    let provider = Provider::start(slow);
    let held = DOLLAR / 100;
    let config = plan("cost_usd_per_month = 1\nhold_max_usd = 0.01");
    let gateway = Setup::new(&provider).config(&config).start();
    let saw = until_used_up(&[&gateway], "acme");
    let usage = gateway.booked("acme", saw.served.load(Ordering::Relaxed));
    // No more than a hundred holds of a cent fit at once.
    let overshoot = (DOLLAR / held) * (CALL - held);
    assert!(usage.cost() <= DOLLAR + overshoot, "spent {}", usage.cost());
    assert!(usage.cost() > DOLLAR - held, "spent {}", usage.cost());
}

#[test]
fn a_user_has_two_dollars_a_day_without_being_created() {
    let provider = Provider::always(Script::json(200, ANSWER));
    let config = plan("user_cost_usd_per_day = 0.05\nkb_tokens_per_month = 7000\nhold = \"worst_case\"");
    let gateway = Setup::new(&provider).config(&config).start();
    let ask = |name: &'static str, id: &str| gateway.send(&three_cents("acme").header(name, id));
    let (user, kb) = ("x-tollgate-user-id", "x-tollgate-kb-id");
    assert_eq!(ask(user, "alice").status, 200);
    let refused = ask(user, "alice");
    let quota = refused.json()["error"]["quota"].clone();
    assert_eq!((refused.status, &quota["scope"], &quota["subject"]), (402, &json!("user"), &json!("alice")));
    assert_eq!((&quota["window"], pico_usd_of(&quota["used"])), (&json!("day"), CALL));
    assert_eq!(ask(user, "bob").status, 200);
    assert_eq!([ask(kb, "books").status, ask(kb, "books").status, ask(kb, "books").status], [200, 200, 402]);
    assert_eq!(gateway.send(&three_cents("acme")).status, 200, "whoever is not named has no limit");
    let limits = gateway.json("acme", "/billing/limits?user_id=alice&kb_id=books");
    let row = |at: usize| {
        let row = &limits["limits"][at];
        (row["scope"].clone(), row["subject"].clone(), row["metric"].clone())
    };
    assert_eq!(row(1), (json!("kb"), json!("books"), json!("tokens")));
    assert_eq!(row(2), (json!("user"), json!("alice"), json!("cost_usd")));
    assert_eq!(pico_usd_of(&limits["limits"][2]["used"]), CALL, "{limits}");
    assert_eq!(gateway.json("acme", "/billing/limits")["limits"].as_array().unwrap().len(), 1);
}

/// The admin's view of all counters, without the time.
fn counters(gateway: &Gateway) -> Value {
    let request = Request::get("/admin/counters").bearer(gateway::ADMIN_KEY);
    let mut counters = gateway.admin(request).json()["counters"].as_array().unwrap().clone();
    counters.retain(|counter| counter["used"] != 0 || counter["held"] != 0);
    counters.sort_by_key(ToString::to_string);
    Value::from(counters)
}

#[test]
fn a_refused_call_leaves_every_counter_as_it_was() {
    let provider = Provider::always(Script::json(200, ANSWER));
    let config =
        plan("cost_usd_per_month = 0.05\ntokens_per_day = 100000\nuser_chats_per_day = 1\nhold = \"worst_case\"");
    let gateway = Setup::new(&provider).config(&config).start();
    let alice = three_cents("acme").header("x-tollgate-user-id", "alice");
    assert_eq!(gateway.send(&alice).status, 200);
    gateway.booked("acme", 1);
    let before = counters(&gateway);
    let body = |text: &str| Request::post(bodies::CHAT, text).bearer("acme");
    for (what, request, status) in [
        ("the user's chats", alice, 402),
        ("the cost", three_cents("acme"), 402),
        ("the tokens", body(r#"{"model":"gpt-4o","max_tokens":200000,"messages":[]}"#), 402),
        ("the price", body(r#"{"model":"nobody-knows","messages":[]}"#), 403),
        ("the body", body("[]"), 400),
    ] {
        let answer = gateway.send(&request);
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        assert_eq!(counters(&gateway), before, "{what}");
    }
    assert_eq!(provider.count(), 1);
}

#[test]
fn a_clamped_call_goes_out_with_the_maximum_that_is_left() {
    let redis = RedisServer::start();
    clamped(&|setup| setup);
    clamped(&|setup| setup.set("REDIS_URL", &redis.url()));
}

fn clamped(counters: &dyn Fn(Setup) -> Setup) {
    let provider = Provider::start(bodies::honest);
    let config = plan("cost_usd_per_month = 0.02\nhold = \"worst_case\"\nwhen_short = \"clamp\"");
    let gateway = counters(Setup::new(&provider)).config(&config).start();
    let body = r#"{"model":"gpt-4o","stream":true,"max_tokens":9000,"service_tier":"default",
        "messages":[{"role":"user","content":"hi"}]}"#;
    let answer = gateway.send(&Request::post(bodies::CHAT, body).bearer("acme"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sent = provider.last().json();
    // What the bytes of the body leave of two cents, at a thousandth of a cent a token.
    let left = (20_000_000 - u64::try_from(body.len()).unwrap() * 2_500) / 10_000;
    assert_eq!((&sent["max_tokens"], &sent["stream_options"]["include_usage"]), (&json!(left), &json!(true)));
    assert_eq!(sent["messages"], json!([{"role": "user", "content": "hi"}]));
    // What is not declared is bound too.
    gateway.send(&Request::post(bodies::CHAT, r#"{"model":"gpt-4o","messages":[]}"#).bearer("acme"));
    assert!(provider.last().json()["max_completion_tokens"].as_u64().is_some_and(|max| max < 2_000));
}

#[test]
fn headers_tell_of_every_limit_in_whole_numbers() {
    let provider = Provider::always(Script::json(200, ANSWER));
    let config = "[plans.starter]\nchats_per_month = 9\ncost_usd_per_day = 1.5\ntokens_per_month = 1_000_000\n";
    let gateway = Setup::new(&provider).config(config).start();
    let answer = gateway.send(&three_cents("acme"));
    let policy = answer.header("ratelimit-policy").unwrap();
    for part in ["\"chats\";q=9;w=", "\"cost-microusd-day\";q=1500000;w=86400", "\"tokens\";q=1000000;w="] {
        assert!(policy.contains(part), "{policy}");
    }
    let answer = gateway.send(&Request::get("/v1/models").bearer("acme"));
    assert!(answer.header("ratelimit").is_some_and(|left| left.contains("\"cost-microusd-day\";r=1470000;t=")));
}

#[test]
fn the_check_shows_budgets_and_warns_of_a_plan_without_a_cost_limit() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let check = |toml: &str| {
        std::fs::write(file.path(), toml).unwrap();
        let output = std::process::Command::new(binary())
            .args(["check", "--config", file.path().to_str().unwrap()])
            .env_clear()
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (right, said) = check("[plans.team]\nuser_cost_usd_per_day = 2.50\n");
    assert!(right && said.contains("plans.team.user_cost_usd_per_day") && said.contains("2.50"), "{said}");
    assert!(said.contains("without a cost limit") && said.contains("(growth, pro, starter)"), "{said}");
    let (right, said) = check("[plans.team]\nuser_cost_usd_per_dya = 2\n");
    assert!(!right && said.contains("did you mean user_cost_usd_per_day?"), "{said}");
    assert_eq!(pico_usd("2.50"), 5 * DOLLAR / 2);
}

#[test]
fn what_administration_changes_never_touches_a_counter() {
    let provider = Provider::always(Script::json(200, ANSWER));
    let config = plan("cost_usd_per_month = 1\nuser_cost_usd_per_day = 1\nkey_tokens_per_month = 100000");
    let config = format!("{config}[plans.other]\ncost_usd_per_month = 2\nuser_cost_usd_per_day = -1\n");
    let gateway = Setup::new(&provider).prod().config(&config).start();
    let key = gateway.issue("acme", "starter");
    assert_eq!(gateway.send(&three_cents(&key).header("x-tollgate-user-id", "alice")).status, 200);
    gateway.booked(&key, 1);
    let before = counters(&gateway);
    assert!(!before.as_array().unwrap().is_empty());
    let admin = |method: &'static str, target: &str, body: Value| {
        let request = Request::post(target, body.to_string()).method(method).bearer(gateway::ADMIN_KEY);
        gateway.admin(request.header("content-type", "application/json"))
    };
    // An order of changes that nobody chose, the same in every run.
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut made: Vec<String> = Vec::new();
    for step in 0..60 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (what, status) = match (random >> 33) % 6 {
            0 => ("rename", admin("PATCH", "/admin/tenants/acme", json!({"name": format!("Acme {step}")})).status),
            1 => ("suspend", admin("PATCH", "/admin/tenants/acme", json!({"suspended": step % 2 == 0})).status),
            2 => {
                let answer =
                    admin("POST", "/admin/tenants/acme/keys", json!({"name": "k", "allowed_models": ["gpt-4o*"]}));
                made.push(answer.json()["id"].as_str().unwrap().to_owned());
                ("key", answer.status)
            }
            3 => match made.pop() {
                Some(id) => (
                    "revoke",
                    gateway
                        .admin(
                            Request::get(format!("/admin/tenants/acme/keys/{id}"))
                                .method("DELETE")
                                .bearer(gateway::ADMIN_KEY),
                        )
                        .status,
                ),
                None => ("nothing", 200),
            },
            at => {
                let plan = if at == 4 { "other" } else { "starter" };
                ("plan", admin("POST", "/billing/plan", json!({"tenant_id": "acme", "plan": plan})).status)
            }
        };
        assert!((200..300).contains(&status), "{what}: {status}");
        assert_eq!(counters(&gateway), before, "{what}, step {step}");
    }
}

#[test]
fn a_limit_that_is_lifted_and_put_back_knows_what_was_used() {
    let provider = Provider::always(Script::json(200, ANSWER));
    let with = |limit: &str| plan(&format!("cost_usd_per_month = {limit}\nhold = \"worst_case\""));
    let gateway = Setup::new(&provider).config(&with("0.05")).start();
    let put = |limit: &str, shown: Value| {
        std::fs::write(gateway.config_file(), with(limit)).unwrap();
        gateway.signal("HUP");
        let began = std::time::Instant::now();
        // The second row is that of cost, where there is one.
        while gateway.json("acme", "/billing/limits")["limits"][1]["limit"] != shown {
            assert!(began.elapsed() < Duration::from_secs(10), "{limit} is not in force");
            thread::yield_now();
        }
    };
    assert_eq!(gateway.send(&three_cents("acme")).status, 200);
    assert_eq!(gateway.send(&three_cents("acme")).status, 402);
    put("-1", Value::Null);
    assert_eq!([0; 3].map(|_| gateway.send(&three_cents("acme")).status), [200; 3]);
    put("0.13", json!(0.13));
    let refused = gateway.send(&three_cents("acme"));
    let quota = refused.json()["error"]["quota"].clone();
    assert_eq!((refused.status, pico_usd_of(&quota["used"])), (402, 4 * CALL), "{quota}");
    put("0.16", json!(0.16));
    assert_eq!(gateway.send(&three_cents("acme")).status, 200);
}

/// A stream that never ends by itself, a hundred bytes of text an event.
fn endless(seen: &Seen) -> Script {
    // Two bytes are a token, at least: what is cut by the bytes has used up its limit by the tokens.
    let words = "a b c d e ".repeat(10);
    let (begin, event) = if seen.target.contains("streamGenerateContent") {
        let event = format!(
            "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"{words}\"}}]}}}}],\"modelVersion\":\"gemini-2.5-flash\"}}\r\n\r\n"
        );
        (String::new(), event)
    } else if seen.target.contains("responses") {
        let begin = "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"resp_1\",\"model\":\"gpt-4o\",\"usage\":null}}\n\n";
        let event = format!(
            "event: response.output_text.delta\ndata: {{\"type\":\"response.output_text.delta\",\"sequence_number\":1,\"delta\":\"{words}\"}}\n\n"
        );
        (begin.to_owned(), event)
    } else {
        let event = format!(
            "data: {{\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"gpt-4o\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{words}\"}},\"finish_reason\":null}}]}}\n\n"
        );
        (String::new(), event)
    };
    let begin = wire::chunk(begin.as_bytes());
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let begin = if begin.starts_with(b"0\r\n") { Vec::new() } else { begin };
    Script::raw([head.as_bytes(), &begin].concat()).then(Step::SendForever(wire::chunk(event.as_bytes())))
}

#[test]
fn a_stream_that_is_used_up_ends_as_at_its_maximum_and_the_event_says_so() {
    let provider = Provider::start(endless);
    let config = plan("tokens_per_month = 1000\nhold_max_tokens = 100\non_overrun = \"cut\"");
    let body = r#"{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let input = r#"{"model":"gpt-4o","stream":true,"input":"hi"}"#;
    let gemini = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";
    for (target, body, last) in [
        (bodies::CHAT, body, "\"finish_reason\":\"length\""),
        ("/v1/responses", input, "\"incomplete_details\":{\"reason\":\"max_output_tokens\"}"),
        (gemini, r#"{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}"#, "\"finishReason\":\"MAX_TOKENS\""),
    ] {
        let gateway = Setup::new(&provider).config(&config).start();
        let request = Request::post(target, body);
        let request = if target == gemini { request.google("acme") } else { request.bearer("acme") };
        let answer = gateway.send(&request);
        let text = answer.text();
        let tail: String = text.chars().rev().take(600).collect::<Vec<_>>().into_iter().rev().collect();
        assert_eq!(answer.status, 200, "{tail}");
        assert!(tail.contains(last), "{target}: {tail}");
        let events: Vec<&str> = text.split_inclusive("\n\n").collect();
        assert!(target == gemini || events.iter().all(|event| event.ends_with("\n\n")), "{target}: {tail}");
        // A token for four bytes: a thousand, a step beyond, and what came in one piece.
        assert!((3_000..100_000).contains(&text.len()), "{target}: {} bytes", text.len());
        gateway.booked("acme", 1);
        let event = gateway.event("acme");
        assert_eq!((&event["outcome"], &event["usage_source"]), (&json!("budget_cut"), &json!("estimate")), "{event}");
        assert!(event["completion_tokens"].as_u64().is_some_and(|tokens| tokens > 500), "{event}");
        let told = format!("tokens\":{}", event["completion_tokens"]);
        let told_google = format!("candidatesTokenCount\":{}", event["completion_tokens"]);
        assert_eq!(tail.contains(&told) || tail.contains(&told_google), !body.contains("messages"), "{tail}");
        assert_eq!(gateway.send(&request).status, 402, "{target}");
    }
}

#[test]
fn a_stream_that_is_cut_tells_its_usage_to_who_asked_for_it() {
    let provider = Provider::start(endless);
    let config = plan("tokens_per_month = 1000\nhold_max_tokens = 100\non_overrun = \"cut\"");
    let gateway = Setup::new(&provider).config(&config).start();
    let body = r#"{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true},
        "messages":[{"role":"user","content":"hi"}]}"#;
    let text = gateway.send(&Request::post(bodies::CHAT, body).bearer("acme")).text();
    let events: Vec<&str> = text.split_terminator("\n\n").collect();
    let [.., end, usage, "data: [DONE]"] = *events else { panic!("{events:?}") };
    assert!(end.contains("\"finish_reason\":\"length\""), "{end}");
    let usage: Value = serde_json::from_str(usage.strip_prefix("data: ").unwrap()).unwrap();
    gateway.booked("acme", 1);
    let event = gateway.event("acme");
    for count in ["prompt_tokens", "completion_tokens"] {
        assert_eq!(usage["usage"][count], event[count], "{usage} {event}");
    }
    assert_eq!(usage["choices"], json!([]));
}

#[test]
fn a_stream_with_room_for_it_is_not_cut() {
    let provider = Provider::start(bodies::honest);
    let config = plan("tokens_per_month = 1000\nhold_max_tokens = 1\non_overrun = \"cut\"");
    let gateway = Setup::new(&provider).config(&config).start();
    let body = r#"{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let whole = gateway.send(&Request::post(bodies::CHAT, body).bearer("acme")).text();
    assert!(whole.ends_with("data: [DONE]\n\n") && !whole.contains("\"length\""), "{whole}");
    gateway.booked("acme", 1);
    assert_eq!(gateway.event("acme")["outcome"], "completed");
}
