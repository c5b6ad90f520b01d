//! The billing and admin routes: what they say, to whom, and what they refuse.

use serde_json::{Value, json};

use super::support::bodies::*;
use super::support::gateway::{ADMIN_KEY, pico_usd_of};
use super::support::*;

/// The sums of a usage or cost answer that its groups must add up to.
const SUMMED: [&str; 5] = ["requests", "prompt_tokens", "completion_tokens", "reasoning_tokens", "total_tokens"];

/// An embedding of 8 tokens at 0.02 dollars a million (OpenAI's price list).
const EMBEDDING: &str =
    r#"{"object":"list","data":[],"model":"text-embedding-3-small","usage":{"prompt_tokens":8,"total_tokens":8}}"#;
const EMBEDDING_PICO_USD: u64 = 8 * 20_000;

/// Refused with problem+json that names no secret.
fn demand_problem(answer: &Answer, status: u16, name: &str) -> Value {
    assert_eq!(answer.status, status, "{name}: {}", answer.text());
    assert_eq!(answer.header("content-type").as_deref(), Some("application/problem+json"), "{name}");
    let problem = answer.json();
    assert_eq!(problem["status"], status, "{name}: {problem}");
    assert!(problem["title"].is_string() || problem["detail"].is_string(), "{name}: {problem}");
    problem
}

/// A gateway with two chats, a Gemini call, an embedding and a failed call of `acme`, and one chat of `other`.
fn used() -> (Provider, Gateway) {
    let provider = Provider::start(|seen| match seen.target.as_str() {
        "/v1/embeddings" => Script::json(200, EMBEDDING),
        _ => honest(seen),
    });
    let gateway = Setup::new(&provider).start();
    gateway.send(&chat("acme").header("x-tollgate-user-id", "u1").header("x-tollgate-kb-id", "k1"));
    gateway.send(&chat_with("acme", CHAT_STREAM_REQUEST).header("x-tollgate-user-id", "u2"));
    gateway.send(&gemini("acme"));
    gateway.send(&Request::post("/v1/embeddings", r#"{"model":"text-embedding-3-small","input":"x"}"#).bearer("acme"));
    provider.now_does(|_| Script::json(500, "{}"));
    gateway.send(&chat("acme"));
    provider.now_does(honest);
    gateway.send(&chat("other"));
    gateway.booked("acme", 5);
    gateway.booked("other", 1);
    (provider, gateway)
}

#[test]
fn usage_has_every_figure_to_the_last_digit() {
    let (_provider, gateway) = used();
    let usage = gateway.usage("acme");
    assert_eq!((usage.requests, usage.chats, usage.failed_requests), (4, 3, 1));
    assert_eq!((usage.tokens(), usage.cached_tokens, usage.reasoning_tokens), ((41, 21, 62), 0, 2));
    assert_eq!(usage.cost(), 2 * CHAT_PICO_USD + GEMINI_PICO_USD + EMBEDDING_PICO_USD);
    assert_eq!((usage.unpriced_requests, usage.estimated.requests), (0, 0));
    assert_eq!(usage.providers["openai"]["requests"], 3);
    assert_eq!(usage.providers["openai"]["total_tokens"], 44);
    assert_eq!(usage.providers["gemini"]["requests"], 1);
    assert!(usage.groups.is_empty());
    for range in ["day", "month"] {
        let answer = gateway.json("acme", &format!("/billing/usage?range={range}"));
        assert_eq!((&answer["tenant_id"], &answer["range"]), (&"acme".into(), &range.into()));
        assert_eq!(answer["period"]["timezone"], "UTC");
        let start = answer["period"]["start"].as_str().unwrap();
        assert!(start.ends_with("T00:00:00Z") && (range == "day" || start.ends_with("-01T00:00:00Z")), "{start}");
        assert_eq!(answer["total_tokens"], 62, "{range}");
    }
    let last_year = gateway.json("acme", "/billing/usage?range=month&date=2001-02");
    assert_eq!((&last_year["requests"], &last_year["period"]["end"]), (&0.into(), &"2001-03-01T00:00:00Z".into()));
    let day = gateway.json("acme", "/billing/usage?range=day&date=2000-02-29");
    assert_eq!(day["period"]["end"], "2000-03-01T00:00:00Z");
}

#[test]
fn every_grouping_sums_to_the_total() {
    let (_provider, gateway) = used();
    let rows =
        ["provider", "model", "key", "user", "kb", "day", "hour", "provider,model", "user,kb,model", "day,provider"];
    for route in [
        "/billing/usage?range=month",
        "/billing/usage?range=day",
        "/billing/cost-report?range=month",
        "/billing/cost-report?range=all",
    ] {
        for group_by in rows {
            let target = format!("{route}&group_by={group_by}");
            let text = gateway.send(&Request::get(&target).bearer("acme")).text();
            let answer: Value = serde_json::from_str(&text).unwrap();
            let groups = answer["groups"].as_array().unwrap_or_else(|| panic!("{target}: {text}"));
            let totals = if answer["totals"].is_object() { &answer["totals"] } else { &answer };
            assert!(!groups.is_empty(), "{target}");
            for name in SUMMED {
                let sum: u64 = groups.iter().filter_map(|group| group[name].as_u64()).sum();
                assert_eq!(totals[name], sum, "{target}: {name} in {text}");
            }
            let costs: u64 = groups.iter().map(|group| pico_usd_of(&group["estimated_cost_usd"])).sum();
            assert_eq!(costs, 2 * CHAT_PICO_USD + GEMINI_PICO_USD + EMBEDDING_PICO_USD, "{target}: {text}");
        }
    }
    for bad in [
        "group_by=nonsense",
        "group_by=provider,provider",
        "range=year",
        "range=month&date=2026-13",
        "range=day&date=2026-02-30",
        "nonsense=1",
        "range=month&range=day",
    ] {
        let answer = gateway.send(&Request::get(format!("/billing/usage?{bad}")).bearer("acme"));
        assert!(matches!(answer.status, 400 | 422), "{bad}: {} {}", answer.status, answer.text());
    }
}

#[test]
fn a_cost_report_has_a_row_for_each_model() {
    let (_provider, gateway) = used();
    let answer = gateway.json("acme", "/billing/cost-report?range=month");
    let rows = answer["rows"].as_array().expect("rows");
    let models: Vec<_> = rows.iter().map(|row| row["model"].as_str().unwrap()).collect();
    for (model, cost) in [
        ("gpt-4o-mini", 2 * CHAT_PICO_USD),
        ("gemini-2.5-flash", GEMINI_PICO_USD),
        ("text-embedding-3-small", EMBEDDING_PICO_USD),
    ] {
        let row = rows.iter().find(|row| row["model"] == model).unwrap_or_else(|| panic!("{model} in {models:?}"));
        assert_eq!(pico_usd_of(&row["estimated_cost_usd"]), cost, "{row}");
    }
    let csv = gateway.send(&Request::get("/billing/cost-report?range=month&format=csv").bearer("acme"));
    assert_eq!(csv.status, 200, "{}", csv.text());
    assert!(csv.header("content-type").is_some_and(|kind| kind.starts_with("text/csv")));
    assert!(csv.text().contains("gemini-2.5-flash"), "{}", csv.text());
}

/// The cells of the lines of a CSV file, by the names of their columns. No cell of it has a comma.
fn cells(text: &str) -> Vec<std::collections::HashMap<String, String>> {
    let mut lines = text.split_terminator("\r\n").map(|line| line.split(',').map(str::to_owned));
    let names: Vec<String> = lines.next().expect("a line of names").collect();
    lines.map(|line| names.iter().cloned().zip(line).collect()).collect()
}

#[test]
fn a_cost_report_by_kinds_and_its_export_add_up_to_the_total() {
    let (_provider, gateway) = used();
    let total = gateway.usage("acme").cost();
    let report = gateway.json("acme", "/billing/cost-report?group_by=kind");
    let kinds = report["kinds"].as_array().unwrap();
    assert_eq!(kinds.iter().map(|kind| pico_usd_of(&kind["estimated_cost_usd"])).sum::<u64>(), total, "{report}");
    assert!(kinds.iter().any(|kind| kind["kind"] == "output" && kind["price_usd"].is_number()), "{report}");
    let shares = |of: &mut dyn Iterator<Item = String>| {
        of.map(|share| share.parse::<tollgate::domain::money::PicoUsd>().unwrap().0).sum::<i128>() / 1_000_000_000_000
    };
    let of_json = shares(&mut kinds.iter().map(|kind| kind["share_percent"].as_str().unwrap().to_owned()));
    let csv = gateway.send(&Request::get("/billing/cost-report?group_by=kind&format=csv").bearer("acme")).text();
    let lines = cells(&csv);
    let of_csv = shares(&mut lines.iter().map(|line| line["share_percent"].clone()));
    assert_eq!((of_json, of_csv, lines.len()), (100, 100, kinds.len()), "{csv}");
    let sum = |lines: &[std::collections::HashMap<String, String>], column: &str| {
        lines.iter().map(|line| line[column].parse::<tollgate::domain::money::PicoUsd>().unwrap().0).sum::<i128>()
    };
    assert_eq!(sum(&lines, "estimated_cost_usd"), i128::from(total));
    let focus = gateway.send(&Request::get("/billing/cost-report?format=focus").bearer("acme"));
    let lines = cells(&focus.text());
    for column in ["BilledCost", "EffectiveCost", "ContractedCost", "ListCost"] {
        assert_eq!(sum(&lines, column), i128::from(total), "{column}: {}", focus.text());
    }
    assert!(
        lines.iter().all(|line| line["SubAccountId"] == "acme" && line["ServiceCategory"] == "AI and Machine Learning")
    );
    // The operator's has a line for each tenant.
    let all = gateway.admin(Request::get("/billing/cost-report?format=focus"));
    let lines = cells(&all.text());
    assert!(
        ["acme", "other"].iter().all(|tenant| lines.iter().any(|line| line["SubAccountId"] == *tenant)),
        "{}",
        all.text()
    );
    for bad in ["?format=focus&range=all", "?format=focus&group_by=day", "?group_by=kind,day", "?format=xml"] {
        let target = format!("/billing/cost-report{bad}");
        demand_problem(&gateway.send(&Request::get(target).bearer("acme")), 400, bad);
    }
}

#[test]
fn a_tenant_sees_itself_and_nothing_else() {
    let (_provider, gateway) = used();
    for route in
        ["/billing/usage?range=month", "/billing/limits?", "/billing/cost-report?range=month", "/billing/events?"]
    {
        let own = gateway.send(&Request::get(format!("{route}&tenant_id=acme")).bearer("acme"));
        assert_eq!(own.status, 200, "{route}: {}", own.text());
        for tenant in ["other", "ACME", "acme&tenant_id=other", "", "*", "unknown"] {
            let answer = gateway.send(&Request::get(format!("{route}&tenant_id={tenant}")).bearer("acme"));
            assert!(
                matches!(answer.status, 400 | 403 | 404 | 422),
                "{route} {tenant}: {} {}",
                answer.status,
                answer.text()
            );
        }
        let admin = gateway.admin(Request::get(format!("{route}&tenant_id=acme")));
        assert_eq!(admin.status, 200, "{route}: {}", admin.text());
        assert!(admin.text().contains("acme") && !admin.text().contains("other"), "{route}: {}", admin.text());
        demand_problem(&gateway.send(&Request::get(route)), 401, route);
        let proxied = gateway.send(&Request::get(format!("{route}&tenant_id=acme")).bearer(ADMIN_KEY));
        assert_eq!(proxied.status, 401, "{route}: the admin key on the proxy");
    }
    // An event of another tenant does not exist.
    let id = gateway.events("other")[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(gateway.send(&Request::get(format!("/billing/events/{id}")).bearer("other")).status, 200);
    let hidden = gateway.send(&Request::get(format!("/billing/events/{id}")).bearer("acme"));
    demand_problem(&hidden, 404, "an event of another tenant");
    demand_problem(&gateway.send(&Request::get("/billing/events/nonsense").bearer("acme")), 404, "no id");
    let cursor = gateway.send(&Request::get(format!("/billing/events?cursor={id}")).bearer("acme"));
    assert!(matches!(cursor.status, 400 | 404 | 422), "{}", cursor.text());
}

#[test]
fn events_come_once_each_in_order_page_by_page() {
    let (_provider, gateway) = used();
    let all: Vec<Value> = gateway.events("acme");
    assert_eq!(all.len(), 5);
    let mut paged = Vec::new();
    let mut target = "/billing/events?limit=2".to_owned();
    for _ in 0..5 {
        let page = gateway.json("acme", &target);
        let events = page["events"].as_array().unwrap();
        assert!(events.len() <= 2);
        paged.extend(events.iter().cloned());
        match page["next_cursor"].as_str() {
            Some(cursor) => target = format!("/billing/events?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(paged, all);
    let one = gateway.json("acme", &format!("/billing/events/{}", all[0]["id"].as_str().unwrap()));
    assert_eq!(one, all[0]);
    let first = &all[0];
    for (name, value) in [
        ("tenant_id", json!("acme")),
        ("provider", json!("openai")),
        ("model", json!("gpt-4o-mini")),
        ("prompt_tokens", json!(11)),
        ("completion_tokens", json!(7)),
        ("total_tokens", json!(18)),
        ("user_id", json!("u1")),
        ("kb_id", json!("k1")),
        ("status", json!(200)),
        ("outcome", json!("completed")),
        ("usage_source", json!("provider")),
        ("priced", json!("priced")),
    ] {
        assert_eq!(first[name], value, "{name} in {first}");
    }
    assert!(first["endpoint"].is_string() && first["request_timestamp"].is_string(), "{first}");
    let failed = all.iter().find(|event| event["status"] == 500).expect("the failed call");
    assert_eq!((&failed["outcome"], &failed["total_tokens"]), (&"upstream_error".into(), &0.into()));
    // The line items are what the sums were made of.
    let sum: u64 = all.iter().filter_map(|event| event["total_tokens"].as_u64()).sum();
    assert_eq!(sum, gateway.usage("acme").total_tokens);
    let cost: u64 = all.iter().map(|event| pico_usd_of(&event["estimated_cost_usd"])).sum();
    assert_eq!(cost, gateway.usage("acme").cost());
}

#[test]
fn a_change_of_plan_counts_at_once_and_keeps_what_was_used() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    use_up(&gateway, "acme", 3);
    assert_eq!(gateway.chats("acme"), (3, 497));
    for (plan, limit, left) in [("growth", 5000, 4997), ("pro", -1, -1), ("starter", 500, 497)] {
        let body = json!({"tenant_id": "acme", "plan": plan}).to_string();
        let changed = gateway.admin(Request::post("/billing/plan", body));
        assert_eq!(changed.status, 200, "{}", changed.text());
        let limits = gateway.limits("acme");
        assert_eq!(changed.json(), limits);
        assert_eq!((&limits["plan"], &limits["monthly_limit"]), (&plan.into(), &limit.into()));
        assert_eq!((&limits["used"], &limits["held"], &limits["remaining"]), (&3.into(), &0.into(), &left.into()));
    }
    let limits = gateway.limits("acme");
    let row = limits["limits"].as_array().unwrap().iter().find(|row| row["metric"] == "chats").expect("chats");
    assert_eq!((&row["window"], &row["limit"], &row["used"]), (&"month".into(), &500.into(), &3.into()));
}

#[test]
fn a_change_of_plan_that_is_wrong_changes_nothing() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    use_up(&gateway, "acme", 1);
    let rows = [
        (r#"{"tenant_id":"acme","plan":"nonsense"}"#, 422),
        (r#"{"tenant_id":"nobody","plan":"growth"}"#, 404),
        (r#"{"tenant_id":"acme","plan":"growth","is_admin":true}"#, 422),
        (r#"{"tenant_id":"acme","plan":"growth","plan":"pro"}"#, 422),
        (r#"{"tenant_id":"acme"}"#, 422),
        (r#"{"plan":"growth"}"#, 422),
        (r#"{"tenant_id":"acme","plan":7}"#, 422),
        ("{", 400),
        ("", 400),
        ("[]", 422),
    ];
    for (body, status) in rows {
        let answer = gateway.admin(Request::post("/billing/plan", body));
        let right = answer.status == status || (status == 400 && answer.status == 422);
        assert!(right, "{body}: {} {}", answer.status, answer.text());
        demand_problem(&answer, answer.status, body);
        assert_eq!(gateway.limits("acme")["plan"], "starter", "{body}");
    }
    let unknown = gateway.admin(Request::post("/billing/plan", rows[0].0)).text();
    assert!(["starter", "growth", "pro"].iter().all(|plan| unknown.contains(plan)), "{unknown}");
    // A tenant changes its own plan in dev, and nobody else's.
    let other =
        gateway.send(&Request::post("/billing/plan", r#"{"tenant_id":"acme","plan":"growth"}"#).bearer("other"));
    demand_problem(&other, 403, "another tenant's plan");
    assert_eq!(gateway.limits("acme")["plan"], "starter");

    let prod = Setup::new(&provider).prod().start();
    let key = prod.issue("acme", "starter");
    let own = prod.send(&Request::post("/billing/plan", r#"{"tenant_id":"acme","plan":"pro"}"#).bearer(&key));
    assert!(matches!(own.status, 401 | 403), "{}", own.text());
    assert_eq!(prod.limits(&key)["plan"], "starter");
}

#[test]
fn tenants_and_keys_are_administered_with_the_admin_key_only() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).prod().start();
    let key = gateway.issue("acme", "starter");
    let body = || Request::post("/admin/tenants", r#"{"id":"b","name":"B","plan":"growth"}"#);
    demand_problem(&body().send(gateway.admin), 401, "no key");
    assert!(matches!(body().bearer(&key).send(gateway.admin).status, 401 | 403));
    assert_eq!(gateway.send(&body().bearer(ADMIN_KEY)).status / 100, 4, "not on the proxy listener");

    let made = gateway.admin(body());
    assert_eq!(made.status, 201);
    assert_eq!((&made.json()["id"], &made.json()["plan"]), (&"b".into(), &"growth".into()));
    demand_problem(&gateway.admin(body()), 409, "twice");
    for (bad, status) in [
        (r#"{"id":"B!","name":"B","plan":"growth"}"#, 422),
        (r#"{"id":"tg_x","name":"B","plan":"growth"}"#, 422),
        (r#"{"id":"c","name":"","plan":"growth"}"#, 422),
        (r#"{"id":"c","name":"C","plan":"nonsense"}"#, 422),
        (r#"{"id":"c","name":"C","plan":"pro","extra":1}"#, 422),
        (r#"{"id":"c","id":"d","name":"C","plan":"pro"}"#, 422),
    ] {
        demand_problem(&gateway.admin(Request::post("/admin/tenants", bad)), status, bad);
    }
    let listed = gateway.admin(Request::get("/admin/tenants")).text();
    assert!(listed.contains("\"acme\"") && listed.contains("\"b\"") && !listed.contains("\"c\""), "{listed}");
    assert_eq!(gateway.admin(Request::get("/admin/tenants/b")).json()["name"], "B");
    demand_problem(&gateway.admin(Request::get("/admin/tenants/nobody")), 404, "unknown tenant");
    let renamed = gateway.admin(Request::post("/admin/tenants/b", r#"{"name":"Bee"}"#).method("PATCH"));
    assert_eq!((renamed.status, &renamed.json()["name"]), (200, &"Bee".into()));

    let issued = gateway.issue_key("b", json!({"name": "app"}));
    let secret = issued["key"].as_str().unwrap();
    assert!(tollgate::domain::key::is_well_formed(secret), "{secret}");
    assert_eq!(issued["last4"], secret[secret.len() - 4..]);
    let keys = gateway.admin(Request::get("/admin/tenants/b/keys")).text();
    assert!(keys.contains(issued["id"].as_str().unwrap()) && !keys.contains(secret), "{keys}");
    demand_problem(&gateway.admin(Request::post("/admin/tenants/nobody/keys", r#"{"name":"x"}"#)), 404, "no tenant");
    let missing = Request::get("/admin/tenants/b/keys/key_0123456789abcdef").method("DELETE");
    demand_problem(&gateway.admin(missing), 404, "no key");
    // The key of one tenant is not revoked through another.
    let target = format!("/admin/tenants/acme/keys/{}", issued["id"].as_str().unwrap());
    demand_problem(&gateway.admin(Request::get(target).method("DELETE")), 404, "another tenant's key");
    assert_eq!(gateway.send(&chat(secret)).status, 200);
    let event = gateway.event(secret);
    assert_eq!((&event["tenant_id"], &event["key_id"]), (&"b".into(), &issued["id"]));
}

#[test]
fn health_metrics_and_the_description_of_the_routes_answer() {
    let (_provider, gateway) = used();
    for address in [gateway.proxy, gateway.admin] {
        assert_eq!(Request::get("/healthz").send(address).status, 200);
        assert_eq!(Request::get("/readyz").send(address).status, 200);
    }
    let metrics = Request::get("/metrics").send(gateway.admin);
    assert_eq!(metrics.status, 200);
    for name in ["tollgate_requests_total", "tollgate_build_info", "openai", "gemini"] {
        assert!(metrics.text().contains(name), "{name} in {}", metrics.text());
    }
    assert!(!metrics.text().contains("acme"), "no label names a tenant");
    assert_ne!(Request::get("/metrics").send(gateway.proxy).status, 200);
    let description = Request::get("/openapi.json").send(gateway.admin);
    assert_eq!(description.status, 200);
    let paths = description.json()["paths"].as_object().expect("paths").clone();
    for path in [
        "/billing/usage",
        "/billing/limits",
        "/billing/plan",
        "/billing/cost-report",
        "/billing/events",
        "/admin/tenants",
    ] {
        assert!(paths.contains_key(path), "{path} in {:?}", paths.keys());
    }
}

#[test]
fn days_and_months_are_those_of_the_tenants_clock_from_its_next_call_on() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).prod().start();
    let created = |body: Value| gateway.admin(Request::post("/admin/tenants", body.to_string()));
    // Far ahead of UTC, so that its day is another one for most of the hours of ours.
    let answer = created(json!({"id": "kiribati", "plan": "starter", "timezone": "pacific/kiritimati"}));
    assert_eq!((answer.status, &answer.json()["timezone"]), (201, &json!("Pacific/Kiritimati")), "{}", answer.text());
    assert_eq!(created(json!({"id": "plain", "plan": "starter"})).json()["timezone"], "UTC");
    let bad = created(json!({"id": "bad", "plan": "starter", "timezone": "Kiribati"}));
    demand_problem(&bad, 422, "a zone that is none");
    let key = gateway.issue_key("kiribati", json!({"name": "k"}))["key"].as_str().unwrap().to_owned();
    let answer = gateway.send(&chat(&key));
    assert_eq!(answer.status, 200, "{}", answer.text());
    gateway.booked(&key, 1);
    let event = gateway.event(&key);
    assert_eq!(event["utc_offset_s"], 14 * 3_600, "{event}");
    let local = |text: &Value, seconds: i64| {
        let at: tollgate::domain::time::Micros = text.as_str().unwrap().parse().unwrap();
        tollgate::domain::time::Micros(at.0 + seconds * 1_000_000).to_string()
    };
    let day = local(&event["request_timestamp"], 14 * 3_600)[..10].to_owned();
    let usage = gateway.json(&key, &format!("/billing/usage?range=day&date={day}&group_by=day,hour"));
    assert_eq!((&usage["requests"], &usage["period"]["timezone"]), (&json!(1), &json!("Pacific/Kiritimati")));
    assert_eq!(local(&usage["period"]["start"], 14 * 3_600), format!("{day}T00:00:00Z"));
    assert_eq!(usage["groups"][0]["group"]["day"], day.as_str(), "{usage}");
    let limits = gateway.json(&key, "/billing/limits");
    assert_eq!(&local(&limits["resets_at"], 14 * 3_600)[7..], "-01T00:00:00Z", "{limits}");
    // Another zone: what was summed stays, and the next call goes by the new clock.
    let patched =
        gateway.admin(Request::post("/admin/tenants/kiribati", r#"{"timezone":"Etc/GMT+12"}"#).method("PATCH"));
    assert_eq!((patched.status, &patched.json()["timezone"]), (200, &json!("Etc/GMT+12")));
    assert_eq!(gateway.send(&chat(&key)).status, 200);
    gateway.booked(&key, 2);
    let of_day = |date: &str| gateway.json(&key, &format!("/billing/usage?range=day&date={date}"))["requests"].clone();
    assert_eq!(of_day(&day), 1);
    let events = gateway.events(&key);
    let newest = events.iter().find(|event| event["utc_offset_s"] == -12 * 3_600).expect("an event by the new clock");
    assert_eq!(of_day(&local(&newest["request_timestamp"], -12 * 3_600)[..10]), 1);
    let audit = gateway.admin(Request::get("/admin/audit?tenant_id=kiribati")).json();
    let change = audit["entries"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&change["before"]["timezone"], &change["after"]["timezone"]),
        (&json!("Pacific/Kiritimati"), &json!("Etc/GMT+12")),
        "{change}"
    );
}
