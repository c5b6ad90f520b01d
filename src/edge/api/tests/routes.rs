//! Each route: its answer, and what it refuses.

use super::*;

#[tokio::test]
async fn usage_has_the_body_of_the_contract_with_every_digit() {
    let site = Site::open(Mode::Prod).await;
    let answer = site.proxy("GET", "/billing/usage?range=month", &site.acme_key, "").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.headers["cache-control"], "no-store");
    // As text, because reading it as JSON would go through a float.
    assert!(
        answer.text.contains(r#""estimated_cost_usd":0.0000117,"billable_cost_usd":0.0000117,"unpriced_requests":0"#),
        "{}",
        answer.text
    );
    assert!(
        answer.text.contains(r#""estimated_cost_usd":0.00000585,"billable_cost_usd":0.00000585}"#),
        "{}",
        answer.text
    );
    let body = answer.json();
    let period = json!({"start": "2026-11-01T00:00:00Z", "end": "2026-12-01T00:00:00Z", "timezone": "UTC"});
    assert_eq!((&body["tenant_id"], &body["range"], &body["period"]), (&json!("acme"), &json!("month"), &period));
    for (field, value) in [
        ("requests", 2),
        ("chats", 2),
        ("failed_requests", 0),
        ("prompt_tokens", 22),
        ("cached_tokens", 0),
        ("completion_tokens", 14),
        ("reasoning_tokens", 0),
        ("total_tokens", 36),
    ] {
        assert_eq!(body[field], value, "{field}");
    }
    assert_eq!(body["estimated"], json!({"requests": 0, "prompt_tokens": 0, "completion_tokens": 0}));
    assert_eq!(body["providers"]["openai"]["total_tokens"], 18);
    assert_eq!(body["groups"], json!([]));
}

#[tokio::test]
async fn usage_is_by_day_and_by_group() {
    let site = Site::open(Mode::Prod).await;
    let get =
        async |query: &str| site.proxy("GET", &format!("/billing/usage?{query}"), &site.acme_key, "").await.json();
    assert_eq!(get("range=day").await["requests"], 1);
    assert_eq!(get("range=day&date=2026-11-02").await["providers"]["gemini"]["requests"], 1);
    assert_eq!(get("range=month&date=2026-10").await["requests"], 0);
    let grouped = get("group_by=provider,kb").await;
    let keys: Vec<&Value> = grouped["groups"].as_array().unwrap().iter().map(|group| &group["group"]).collect();
    assert_eq!(json!(keys), json!([{"kb": null, "provider": "gemini"}, {"kb": null, "provider": "openai"}]));
    assert_eq!(grouped["groups"][1]["total_tokens"], 18);
}

#[tokio::test]
async fn limits_say_minus_one_for_unlimited() {
    let site = Site::open(Mode::Prod).await;
    site.world.show_chats("acme", 2, 1);
    let body = site.proxy("GET", "/billing/limits", &site.acme_key, "").await.json();
    let resets_at = "2026-12-01T00:00:00Z";
    let row = json!({"scope": "tenant", "metric": "chats", "window": "month", "limit": 500, "used": 2, "held": 1, "remaining": 497, "resets_at": resets_at});
    assert_eq!(
        body,
        json!({"tenant_id": "acme", "plan": "starter", "monthly_limit": 500, "used": 2, "held": 1, "remaining": 497,
               "resets_at": resets_at, "limits": [row]})
    );
    let answer = site.admin("POST", "/billing/plan", ADMIN_KEY, r#"{"tenant_id":"acme","plan":"pro"}"#).await;
    let body = answer.json();
    assert_eq!((answer.status, &body["plan"], &body["used"]), (200, &json!("pro"), &json!(2)));
    assert_eq!((&body["monthly_limit"], &body["remaining"]), (&json!(-1), &json!(-1)));
}

#[tokio::test]
async fn a_plan_is_changed_by_the_admin_and_in_dev_by_its_own_tenant() {
    let change = r#"{"tenant_id":"acme","plan":"growth"}"#;
    let dev = Site::open(Mode::Dev).await;
    let prod = Site::open(Mode::Prod).await;
    assert_eq!(dev.proxy("POST", "/billing/plan", &dev.acme_key, change).await.json()["monthly_limit"], 5_000);
    assert_eq!(dev.proxy("POST", "/billing/plan", "acme", change).await.status, 200);
    assert_eq!(dev.proxy("POST", "/billing/plan", &dev.globex_key, change).await.status, 403);
    assert_eq!(prod.proxy("POST", "/billing/plan", &prod.acme_key, change).await.status, 403);
    assert_eq!(prod.admin("POST", "/billing/plan", &prod.acme_key, change).await.status, 403);
    assert_eq!(prod.admin("POST", "/billing/plan", ADMIN_KEY, change).await.status, 200);
    assert_eq!(prod.admin("POST", "/billing/plan", ADMIN_KEY, change).await.status, 200);
}

#[tokio::test]
async fn a_plan_change_that_cannot_be_is_refused_by_name() {
    let site = Site::open(Mode::Prod).await;
    for (body, status, code, words) in [
        (r#"{"tenant_id":"acme","plan":"gold"}"#, 422, "unknown_plan", "growth, pro, starter"),
        (r#"{"tenant_id":"nobody","plan":"pro"}"#, 404, "unknown_tenant", "nobody"),
        (r#"{"tenant_id":"No Body","plan":"pro"}"#, 404, "unknown_tenant", "no tenant"),
        (r#"{"plan":"pro"}"#, 422, "invalid_field", "tenant_id is missing"),
        (r#"{"tenant_id":"acme","plan":"pro","force":1}"#, 422, "invalid_field", "\\\"force\\\""),
        (r#"{"tenant_id":"acme","tenant_id":"acme","plan":"pro"}"#, 422, "invalid_field", "tenant_id is there twice"),
        (r#"{"tenant_id":"acme","plan":7}"#, 422, "invalid_field", "plan has a value of the wrong type"),
        ("plan=pro", 400, "invalid_json", "not JSON"),
    ] {
        let answer = site.admin("POST", "/billing/plan", ADMIN_KEY, body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{body}");
        assert!(answer.text.contains(words), "{body}: {}", answer.text);
    }
    let long = format!("{{\"tenant_id\":\"acme\",\"plan\":\"{}\"}}", "x".repeat(64 * 1024));
    let answer = site.admin("POST", "/billing/plan", ADMIN_KEY, &long).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    let view = site.admin("GET", "/billing/limits?tenant_id=acme", ADMIN_KEY, "").await.json();
    assert_eq!(view["plan"], "starter");
}

#[tokio::test]
async fn queries_that_cannot_be_are_refused_by_name() {
    let site = Site::open(Mode::Prod).await;
    for (uri, field) in [
        ("/billing/usage?range=year", "range"),
        ("/billing/usage?range=all", "range"),
        ("/billing/usage?range=month&date=2026-11-24", "date"),
        ("/billing/usage?range=day&date=2026-11", "date"),
        ("/billing/usage?date=2026-13", "date"),
        ("/billing/usage?date=", "date"),
        ("/billing/usage?range=day&range=day", "range"),
        ("/billing/usage?group_by=tenant", "group_by"),
        ("/billing/usage?group_by=day,day", "group_by"),
        ("/billing/cost-report?range=day", "range"),
        ("/billing/cost-report?range=all&date=2026-11", "date"),
        ("/billing/cost-report?format=xml", "format"),
        ("/billing/events?from=yesterday", "from"),
        ("/billing/events?from=2026-11-01T00:00:00Z&priced=dear", "priced"),
        ("/billing/events?priced=incomplete", "priced"),
        ("/billing/events?from=2026-11-02T00:00:00Z&to=2026-11-01T00:00:00Z", "from"),
        ("/billing/events?limit=0", "limit"),
        ("/billing/events?limit=1001", "limit"),
        ("/billing/events?limit=ten", "limit"),
        ("/billing/events?cursor=e_1", "cursor"),
        ("/billing/events?cursor=019abf5e-0e00-7000-8000-00000000ffff", "cursor"),
    ] {
        let answer = site.proxy("GET", uri, &site.acme_key, "").await;
        assert_eq!((answer.status, &answer.json()["field"]), (400, &json!(field)), "{uri}: {}", answer.text);
    }
    let unknown = site.proxy("GET", "/billing/usage?rnge=day", &site.acme_key, "").await;
    assert_eq!((unknown.status, unknown.code().as_str()), (400, "invalid_query"));
    assert!(unknown.text.contains("This route has range, date, group_by, tenant_id."), "{}", unknown.text);
    let told = site.proxy("GET", "/billing/usage?date=2026-13", &site.acme_key, "").await.text;
    assert!(told.contains("a month looks like 2026-11"), "{told}");
}

#[tokio::test]
async fn the_cost_report_adds_up_and_is_csv_too() {
    let site = Site::open(Mode::Prod).await;
    let answer = site.admin("GET", "/billing/cost-report?range=all&group_by=model", ADMIN_KEY, "").await;
    assert!(answer.text.contains(r#""estimated_cost_usd":0.00001755"#), "{}", answer.text);
    let body = answer.json();
    assert_eq!((&body["tenant_id"], &body["period"]), (&Value::Null, &Value::Null));
    assert_eq!(body["rows"].as_array().unwrap().len(), 3);
    assert_eq!((&body["rows"][0]["provider"], &body["rows"][0]["model"]), (&json!("gemini"), &json!("gemini-1.5-pro")));
    assert_eq!(body["groups"].as_array().unwrap().len(), 3);
    let csv = site.proxy("GET", "/billing/cost-report?format=csv", &site.acme_key, "").await;
    assert!(csv.headers["content-type"].to_str().unwrap().starts_with("text/csv"));
    assert_eq!(csv.headers["content-disposition"], "attachment; filename=\"cost-report-2026-11.csv\"");
    let lines: Vec<Vec<&str>> = csv.text.trim_end().split("\r\n").map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{}", csv.text);
    assert_eq!(lines[2][..6], ["openai", "gpt-4o-mini", "1", "1", "0", "11"]);
    let cost = lines[0].iter().position(|name| *name == "estimated_cost_usd").unwrap();
    assert_eq!(lines[2][cost], "0.00000585");
    let grouped = site.proxy("GET", "/billing/cost-report?format=csv&group_by=user,kb", &site.acme_key, "").await;
    assert!(grouped.text.contains("\r\nu1,,2,2,0,22,"), "{}", grouped.text);
}

#[tokio::test]
async fn events_come_in_pages_and_one_by_one() {
    let site = Site::open(Mode::Prod).await;
    let first = site.proxy("GET", "/billing/events?limit=1", &site.acme_key, "").await.json();
    let cursor = first["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(first["events"][0]["id"], cursor);
    let second =
        site.proxy("GET", &format!("/billing/events?limit=1&cursor={cursor}"), &site.acme_key, "").await.json();
    assert_eq!((&second["events"][0]["provider"], &second["next_cursor"]), (&json!("gemini"), &Value::Null));
    let one = site.proxy("GET", &format!("/billing/events/{cursor}"), &site.acme_key, "").await;
    assert!(
        one.text.contains(r#""estimated_cost_usd":0.00000585,"billable_cost_usd":0.00000585,"priced":"priced""#),
        "{}",
        one.text
    );
    assert_eq!(one.json(), first["events"][0]);
    assert_eq!(site.admin("GET", "/billing/events", ADMIN_KEY, "").await.json()["events"].as_array().unwrap().len(), 3);
    for uri in ["/billing/events/x", "/billing/events/019abf5e-0e00-7000-8000-00000000ffff", "/billing/events/%ff"] {
        let answer = site.proxy("GET", uri, &site.acme_key, "").await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "unknown_event"), "{uri}");
    }
}

#[tokio::test]
async fn the_life_of_a_tenant_and_its_key() {
    let site = Site::open(Mode::Prod).await;
    let made =
        site.admin("POST", "/admin/tenants", ADMIN_KEY, r#"{"id":"initech","name":"Initech","plan":"growth"}"#).await;
    assert_eq!((made.status, &made.headers["location"]), (201, &HeaderValue::from_static("/admin/tenants/initech")));
    let tenant = json!({"id": "initech", "name": "Initech", "plan": "growth", "suspended": false, "timezone": "UTC", "created_at": "2026-11-24T10:00:00Z"});
    assert_eq!(made.json(), tenant);
    assert_eq!(site.admin("GET", "/admin/tenants/initech", ADMIN_KEY, "").await.json(), tenant);
    assert_eq!(site.admin("GET", "/admin/tenants", ADMIN_KEY, "").await.json()["tenants"].as_array().unwrap().len(), 3);

    let body = r#"{"name":"ci","expires_at":"2027-01-01T00:00:00Z"}"#;
    let issued = site.admin("POST", "/admin/tenants/initech/keys", ADMIN_KEY, body).await;
    let known = issued.json();
    let (key, id) = (known["key"].as_str().unwrap(), known["id"].as_str().unwrap());
    assert_eq!((issued.status, &known["expires_at"]), (201, &json!("2027-01-01T00:00:00Z")));
    assert!(key.starts_with("tg_live_") && key.ends_with(known["last4"].as_str().unwrap()));
    assert_eq!(site.proxy("GET", "/billing/limits", key, "").await.json()["tenant_id"], "initech");

    let listed = site.admin("GET", "/admin/tenants/initech/keys", ADMIN_KEY, "").await;
    assert_eq!(listed.json()["keys"][0]["id"], id);
    assert!(!listed.text.contains(key) && !listed.text.contains("hash"), "{}", listed.text);

    let path = format!("/admin/tenants/initech/keys/{id}");
    assert_eq!(site.admin("GET", &path, ADMIN_KEY, "").await.json()["revoked_at"], Value::Null);
    let revoked = site.admin("DELETE", &path, ADMIN_KEY, "").await;
    assert_eq!((revoked.status, &revoked.json()["revoked_at"]), (200, &json!("2026-11-24T10:00:00Z")));
    assert_eq!(site.admin("DELETE", &path, ADMIN_KEY, "").await.status, 200);
    // It is in the list above, so it would be wrong to say that there is none.
    let rotated = site.admin("POST", &format!("{path}/rotate"), ADMIN_KEY, "{}").await;
    assert_eq!((rotated.status, rotated.code().as_str()), (409, "key_revoked"), "{}", rotated.text);
    assert!(rotated.text.contains(id) && rotated.text.contains("is revoked"), "{}", rotated.text);
    assert_eq!(site.proxy("GET", "/billing/limits", key, "").await.status, 401);

    let patched = site.admin("PATCH", "/admin/tenants/acme", ADMIN_KEY, r#"{"suspended":true}"#).await;
    assert_eq!((patched.status, &patched.json()["suspended"]), (200, &json!(true)));
    let refused = site.proxy("GET", "/billing/limits", &site.acme_key, "").await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "tenant_suspended"));
}

#[tokio::test]
async fn admin_requests_that_cannot_be_are_refused_by_name() {
    let site = Site::open(Mode::Prod).await;
    for (method, path, body, status, code) in [
        ("POST", "/admin/tenants", r#"{"id":"acme","plan":"pro"}"#, 409, "tenant_exists"),
        ("POST", "/admin/tenants", r#"{"id":"A B","plan":"pro"}"#, 422, "invalid_field"),
        ("POST", "/admin/tenants", r#"{"id":"tg_live_x","plan":"pro"}"#, 422, "invalid_field"),
        ("POST", "/admin/tenants", r#"{"id":"new","plan":"gold"}"#, 422, "unknown_plan"),
        ("POST", "/admin/tenants", r#"{"id":"new","name":"","plan":"pro"}"#, 422, "invalid_field"),
        ("POST", "/admin/tenants?id=new", r#"{"id":"new","plan":"pro"}"#, 400, "invalid_query"),
        ("PATCH", "/admin/tenants/acme", r#"{}"#, 422, "invalid_field"),
        ("PATCH", "/admin/tenants/acme", r#"{"plan":"pro"}"#, 422, "invalid_field"),
        ("PATCH", "/admin/tenants/nobody", r#"{"name":"x"}"#, 404, "unknown_tenant"),
        ("GET", "/admin/tenants/nobody", "", 404, "unknown_tenant"),
        ("GET", "/admin/tenants/No%20Body", "", 404, "unknown_tenant"),
        ("GET", "/admin/tenants/%ff", "", 404, "unknown_tenant"),
        ("POST", "/admin/tenants/nobody/keys", r#"{"name":"x"}"#, 404, "unknown_tenant"),
        ("POST", "/admin/tenants/acme/keys", r#"{"name":"x","expires_at":"soon"}"#, 422, "invalid_field"),
        (
            "POST",
            "/admin/tenants/acme/keys",
            r#"{"name":"x","expires_at":"2020-01-01T00:00:00Z"}"#,
            422,
            "invalid_field",
        ),
        ("GET", "/admin/tenants/acme/keys/key_0123456789abcdef", "", 404, "unknown_key"),
        ("DELETE", "/admin/tenants/acme/keys/x", "", 404, "unknown_key"),
        ("GET", "/admin/nothing", "", 404, "unknown_route"),
        ("PUT", "/admin/tenants", "", 405, "method_not_allowed"),
        ("GET", "/billing/limits", "", 400, "invalid_parameter"),
        ("GET", "/billing/limits?tenant_id=nobody", "", 404, "unknown_tenant"),
        ("GET", "/billing/usage?tenant_id=nobody", "", 404, "unknown_tenant"),
        ("GET", "/billing/events?tenant_id=a%00b", "", 404, "unknown_tenant"),
    ] {
        let answer = site.admin(method, path, ADMIN_KEY, body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {path} {body}: {}", answer.text);
    }
    let allow = site.admin("PUT", "/admin/tenants", ADMIN_KEY, "").await.headers["allow"].to_str().unwrap().to_owned();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
}

#[tokio::test]
async fn a_silent_or_broken_ledger_is_a_503_without_its_words() {
    let mut site = Site::open(Mode::Prod).await;
    site.state.store_timeout = Duration::from_millis(20);
    site.world.store.set_down(true);
    for _ in 0..2 {
        for uri in ["/billing/usage", "/billing/cost-report", "/billing/events", "/admin/tenants"] {
            let answer = site.admin("GET", uri, ADMIN_KEY, "").await;
            assert_eq!((answer.status, answer.code().as_str()), (503, "ledger_unavailable"), "{uri}");
            assert!(
                !answer.text.contains(STORE_WORDS) && answer.headers.contains_key("retry-after"),
                "{}",
                answer.text
            );
        }
        assert_eq!(site.proxy("GET", "/billing/limits", &site.acme_key, "").await.status, 200);
        let ready = site.admin("GET", "/readyz", "", "").await;
        assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("degraded")));
        site.world.store.fall_silent();
    }
}

#[tokio::test]
async fn health_takes_no_key_and_tells_the_proxy_side_no_counts() {
    let mut site = Site::open(Mode::Prod).await;
    assert_eq!(site.proxy("GET", "/healthz", "", "").await.text, r#"{"status":"ok"}"#);
    let checks = json!({"store": "ok", "recorder": "ok", "counters": "ok", "draining": false});
    assert_eq!(site.proxy("GET", "/readyz", "", "").await.json(), json!({"status": "ready", "checks": checks}));
    let recorder = json!({
        "events_waiting": 3, "in_flight": 2, "waiting_ms": 70,
        "journal_bytes": 4_096, "journal_bytes_max": 1_048_576, "quarantined": 1,
    });
    assert_eq!(site.admin("GET", "/readyz", "", "").await.json()["recorder"], recorder);
    let metrics = site.admin("GET", "/metrics", "", "").await;
    assert_eq!((metrics.status, metrics.text.as_str()), (200, "# EOF\n"));
    assert_eq!(site.proxy("GET", "/metrics", "", "").await.status, 404);
    let behind = Backlog { waiting_us: 4_000_000, ..Backlog::default() };
    site.state.pulse = Arc::new(move || Pulse { backlog: behind, ..Pulse::default() });
    let answer = site.proxy("GET", "/readyz", "", "").await;
    let said = (answer.status, answer.json()["status"].clone(), answer.json()["checks"]["recorder"].clone());
    assert_eq!(said, (200, json!("degraded"), json!("behind")));
    let down = CountersHealth { shared: true, down: true, nodes: 3, ..CountersHealth::default() };
    site.state.pulse = Arc::new(move || Pulse { counters: down, ..Pulse::default() });
    let answer = site.admin("GET", "/readyz", "", "").await.json();
    assert_eq!((&answer["status"], &answer["checks"]["counters"]), (&json!("degraded"), &json!("down")));
    assert_eq!(answer["counters"]["nodes"], 3);
    let full = Backlog { full: true, ..Backlog::default() };
    for pulse in [Pulse { draining: true, ..Pulse::default() }, Pulse { backlog: full, ..Pulse::default() }] {
        site.state.pulse = Arc::new(move || pulse);
        let answer = site.proxy("GET", "/readyz", "", "").await;
        assert_eq!((answer.status, &answer.json()["status"]), (503, &json!("not_ready")), "{pulse:?}");
    }
}

#[tokio::test]
async fn every_counter_is_shown_to_the_admin_alone() {
    let site = Site::open(Mode::Prod).await;
    site.world.show_chats("acme", 7, 2);
    let answer = site.admin("GET", "/admin/counters", ADMIN_KEY, "").await;
    let counter = json!({
        "tenant_id": "acme", "scope": "tenant", "subject": "", "metric": "chats", "window": "month",
        "period": "2026-11", "used": 7, "booked": 7, "held": 2,
    });
    let body = json!({
        "at": "2026-11-24T10:00:00Z", "ledger_id": "fake", "is_booked": true, "in_flight": 0, "is_shared": false,
        "counters": [counter],
    });
    assert_eq!((answer.status, answer.json()), (200, body));
    assert_eq!(site.admin("GET", "/admin/counters?x=1", ADMIN_KEY, "").await.code(), "invalid_query");
    assert_eq!(site.admin("GET", "/admin/counters", &site.acme_key, "").await.status, 403);
    assert_eq!(site.proxy("GET", "/admin/counters", ADMIN_KEY, "").await.status, 404);
    site.world.store.set_down(true);
    let down = site.admin("GET", "/admin/counters", ADMIN_KEY, "").await;
    assert_eq!((down.status, down.code().as_str()), (503, "ledger_unavailable"));
    assert!(!down.text.contains(STORE_WORDS));
}

#[tokio::test]
async fn a_preview_of_a_cost_is_the_admin_s_and_refuses_what_no_call_can_be() {
    let site = Site::open(Mode::Prod).await;
    let ask = async |body: Value| site.admin("POST", "/admin/prices/preview", ADMIN_KEY, &body.to_string()).await;
    let call = json!({"provider": "openai", "model": "unheard-of", "prompt_tokens": 1_000, "completion_tokens": 10});
    let unknown = ask(call.clone()).await.json();
    assert_eq!((&unknown["priced"], &unknown["entry"]), (&json!("unpriced"), &Value::Null), "{unknown}");
    assert!(unknown["estimated_cost_usd"].is_null());
    for (field, value) in [
        ("provider", json!("opnai")),
        ("service_tier", json!("gold")),
        ("at", json!("tomorrow")),
        ("cached_tokens", json!(1_001)),
    ] {
        let mut wrong = call.clone();
        wrong[field] = value;
        assert_eq!(ask(wrong).await.status, 422, "{field}");
    }
    assert_eq!(site.admin("POST", "/admin/prices/preview", &site.acme_key, &call.to_string()).await.status, 403);
    assert_eq!(site.proxy("POST", "/admin/prices/preview", ADMIN_KEY, &call.to_string()).await.status, 404);
}

#[tokio::test]
async fn prices_are_looked_at_compared_put_in_force_and_taken_back() {
    let site = Site::open(Mode::Prod).await;
    let file = r#"{"format":1,"models":[{"provider":"openai","model":"mine","match":["mine"],
        "rates":[{"tier":"standard","input":7}]}]}"#;
    let books = async || site.admin("GET", "/admin/prices", ADMIN_KEY, "").await.json();
    let before = books().await;
    assert_eq!((&before["active"], &before["version"]), (&json!(null), &before["configured"]));
    let looked = site.admin("POST", "/admin/prices?dry_run=true", ADMIN_KEY, file).await;
    let body = looked.json();
    assert_eq!((looked.status, &body["in_force"]), (200, &json!(false)), "{}", looked.text);
    let mine = body["changes"].as_array().unwrap().iter().find(|change| change["model"] == "mine").unwrap();
    assert_eq!((&mine["before"], &mine["after"], &mine["after_source"]), (&json!(null), &json!(7), &json!("operator")));
    assert_eq!(books().await["version"], before["version"]);

    let put = site.admin("POST", "/admin/prices", ADMIN_KEY, file).await;
    assert_eq!((put.status, &put.json()["in_force"]), (200, &json!(true)), "{}", put.text);
    let after = books().await;
    assert_eq!((&after["version"], &after["active"]["by"]), (&body["after"], &json!("admin")));
    assert!(after["books"].as_array().unwrap().iter().any(|book| book["version"] == body["after"]), "{after}");
    let call = r#"{"provider":"openai","model":"mine","prompt_tokens":3}"#;
    let preview = site.admin("POST", "/admin/prices/preview", ADMIN_KEY, call).await.json();
    assert_eq!((&preview["price_version"], &preview["entry"]["list"]), (&body["after"], &json!("operator")));

    let taken_back = site.admin("DELETE", "/admin/prices", ADMIN_KEY, "").await;
    assert_eq!((taken_back.status, &taken_back.json()["active"]), (200, &json!(null)), "{}", taken_back.text);
    let log = site.admin("GET", "/admin/audit", ADMIN_KEY, "").await.json();
    let told: Vec<_> = log["entries"].as_array().unwrap().iter().filter(|one| one["action"] == "prices.set").collect();
    assert_eq!(told.len(), 2, "{log}");
    assert_eq!((&told[1]["after"]["prices"], &told[1]["tenant_id"]), (&json!("configured"), &json!(null)));

    let wrong = site.admin("POST", "/admin/prices", ADMIN_KEY, r#"{"format":1,"models":[{}]}"#).await;
    assert_eq!((wrong.status, &wrong.json()["code"]), (422, &json!("invalid_prices")), "{}", wrong.text);
    assert_eq!(site.admin("POST", "/admin/prices?dry_run=yes", ADMIN_KEY, file).await.status, 400);
    for method in ["GET", "POST", "DELETE"] {
        assert_eq!(site.admin(method, "/admin/prices", &site.acme_key, file).await.status, 403, "{method}");
    }
}

#[tokio::test]
async fn crossed_thresholds_are_the_admins_to_list() {
    let site = Site::open(Mode::Prod).await;
    let list = "/admin/threshold-crossings";
    let none = json!({"crossings": [], "next_cursor": null});
    assert_eq!(
        site.admin("GET", &format!("{list}?tenant_id=acme&cursor=0&limit=1000"), ADMIN_KEY, "").await.json(),
        none
    );
    for (query, status, code) in [
        ("?tenant_id=nobody", 404, "unknown_tenant"),
        ("?cursor=x", 400, "invalid_parameter"),
        ("?cursor=-1", 400, "invalid_parameter"),
        ("?limit=0", 400, "invalid_parameter"),
        ("?limit=1001", 400, "invalid_parameter"),
        ("?from=x", 400, "invalid_query"),
    ] {
        let answer = site.admin("GET", &format!("{list}{query}"), ADMIN_KEY, "").await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{query}");
    }
    assert_eq!(site.admin("GET", list, &site.acme_key, "").await.status, 403);
    assert_eq!(site.admin("GET", list, "", "").await.status, 401);
    assert_eq!(site.proxy("GET", list, ADMIN_KEY, "").await.status, 404);
}
