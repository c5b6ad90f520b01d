//! Changes with an idempotency key, and what the audit log says of them.

use super::*;
use crate::domain::key::last4;
use crate::ports::tenants::TenantStore;

const KEY: &str = "8e03978e-40d5-43dd-bc93-6894a57f9324";

impl Site {
    /// A POST on the admin listener with these headers beside the credential.
    async fn post(&self, uri: &str, credential: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = request("POST", uri, credential, body);
        for (name, value) in headers {
            request
                .headers_mut()
                .append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        self.send(admin_router(self.state.clone()), request).await
    }

    async fn once(&self, uri: &str, key: &str, body: &str) -> Answer {
        self.post(uri, ADMIN_KEY, &[("idempotency-key", key)], body).await
    }

    async fn log(&self, query: &str) -> Vec<Value> {
        let answer = self.admin("GET", &format!("/admin/audit{query}"), ADMIN_KEY, "").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["entries"].as_array().unwrap().clone()
    }
}

/// Every POST there is, a body for it, and another that differs.
const POSTS: [(&str, &str, &str, &str); 3] = [
    ("/admin/tenants", r#"{"id":"initech","plan":"growth"}"#, r#"{"id":"initech","plan":"pro"}"#, "tenant.create"),
    ("/admin/tenants/acme/keys", r#"{"name":"ci"}"#, r#"{"name":"cd"}"#, "key.create"),
    (
        "/billing/plan",
        r#"{"tenant_id":"acme","plan":"growth"}"#,
        r#"{"tenant_id":"globex","plan":"growth"}"#,
        "plan.set",
    ),
];

#[tokio::test]
async fn the_same_request_is_done_once_and_answered_the_same() {
    for (uri, body, other, action) in POSTS {
        let site = Site::open(Mode::Prod).await;
        let before = site.log("").await.len();
        let first = site.once(uri, KEY, body).await;
        assert!(matches!(first.status, 200 | 201), "{uri}: {}", first.text);
        assert!(!first.headers.contains_key("idempotent-replayed"), "{uri}");
        let spaced = body.replace(':', " : ");
        // Quoted or not, and however the body is spaced.
        for (key, body) in [(KEY, body), (&format!("\"{KEY}\""), body), (KEY, &spaced)] {
            let again = site.once(uri, key, body).await;
            assert_eq!((again.status, &again.text), (first.status, &first.text), "{uri} {key} {body}");
            for header in ["location", "content-type", "cache-control"] {
                assert_eq!(again.headers.get(header), first.headers.get(header), "{uri} {header}");
            }
            assert_eq!(again.headers["idempotent-replayed"], "true", "{uri}");
        }
        let refused = site.once(uri, KEY, other).await;
        assert_eq!((refused.status, refused.code().as_str()), (422, "idempotency_key_reused"), "{uri}");
        assert_eq!(refused.json()["field"], "Idempotency-Key");
        let log = site.log("").await;
        assert_eq!(log.len(), before + 1, "{uri}: {log:?}");
        assert_eq!((&log[before]["action"], &log[before]["actor"]), (&json!(action), &json!("admin")));
        assert_eq!(log[before]["actor_key"], json!(last4(ADMIN_KEY)));
        let text = serde_json::to_string(&log).unwrap();
        assert!(!text.contains(KEY) && !text.contains(ADMIN_KEY) && !text.contains("tg_live_"), "{text}");
    }
}

#[tokio::test]
async fn an_answer_is_given_again_whatever_became_of_the_world_since() {
    let site = Site::open(Mode::Prod).await;
    let body = r#"{"name":"ci","expires_at":"2026-11-24T10:00:00.000001Z"}"#;
    let first = site.once("/admin/tenants/acme/keys", KEY, body).await;
    let plan = site.once("/billing/plan", KEY, r#"{"tenant_id":"acme","plan":"growth"}"#).await;
    let id = first.json()["id"].as_str().unwrap().to_owned();
    site.admin("DELETE", &format!("/admin/tenants/acme/keys/{id}"), ADMIN_KEY, "").await;
    site.admin("POST", "/billing/plan", ADMIN_KEY, r#"{"tenant_id":"acme","plan":"pro"}"#).await;
    site.world.show_chats("acme", 400, 3);
    assert_eq!(site.once("/admin/tenants/acme/keys", KEY, body).await.text, first.text);
    assert_eq!(site.once("/billing/plan", KEY, r#"{"tenant_id":"acme","plan":"growth"}"#).await.text, plan.text);
    assert_eq!(site.world.admin.tenant(&"acme".parse().unwrap()).await.unwrap().plan.as_str(), "pro");
}

#[tokio::test]
async fn a_key_belongs_to_one_caller_and_one_path() {
    let site = Site::open(Mode::Dev).await;
    for id in ["acme", "globex"] {
        let made = site.once(&format!("/admin/tenants/{id}/keys"), KEY, r#"{"name":"ci"}"#).await;
        assert_eq!((made.status, made.headers.get("idempotent-replayed")), (201, None), "{id}");
        assert_eq!(made.json()["tenant_id"], id);
    }
    let headers = [("idempotency-key", KEY)];
    let (acme, globex) = (r#"{"tenant_id":"acme","plan":"pro"}"#, r#"{"tenant_id":"globex","plan":"pro"}"#);
    assert_eq!(site.post("/billing/plan", ADMIN_KEY, &headers, acme).await.status, 200);
    let own = site.post("/billing/plan", &site.globex_key, &headers, globex).await;
    assert_eq!((own.status, own.headers.get("idempotent-replayed")), (200, None), "{}", own.text);
    assert_eq!(own.json()["tenant_id"], "globex");
    let log = site.log("?tenant_id=globex").await;
    let last = log.last().unwrap();
    assert_eq!((&last["actor"], &last["action"]), (&json!("tenant"), &json!("plan.set")), "{last}");
    assert!(last["actor_key"].as_str().unwrap().starts_with("key_"), "{last}");
    // However the path is written, it is the same.
    let encoded = site.once("/admin/tenants/%61cme/keys", KEY, r#"{"name":"ci"}"#).await;
    assert_eq!(encoded.headers["idempotent-replayed"], "true", "{}", encoded.text);
    // Of another tenant, also with a key that was used: refused before anything is remembered.
    let foreign = site.post("/billing/plan", &site.globex_key, &headers, acme).await;
    assert_eq!(foreign.status, 403, "{}", foreign.text);
}

#[tokio::test]
async fn a_refusal_is_not_remembered() {
    let site = Site::open(Mode::Prod).await;
    for (body, status) in [
        (r#"{"id":"acme","plan":"pro"}"#, 409),
        (r#"{"id":"new","plan":"gold"}"#, 422),
        (r#"{"id":"new"}"#, 422),
        ("{", 400),
    ] {
        assert_eq!(site.once("/admin/tenants", KEY, body).await.status, status, "{body}");
    }
    let before = site.log("").await.len();
    assert_eq!(site.once("/admin/tenants", KEY, r#"{"id":"new","plan":"pro"}"#).await.status, 201);
    assert_eq!(site.log("").await.len(), before + 1);
}

#[tokio::test]
async fn a_malformed_key_is_refused_by_name_and_nothing_is_done() {
    let site = Site::open(Mode::Prod).await;
    let before = site.world.store.load().await.unwrap();
    let long = "k".repeat(256);
    for key in ["", "a b", "\"a", &long] {
        for (uri, body, ..) in POSTS {
            let answer = site.once(uri, key, body).await;
            assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_header"), "{key}");
            assert!(answer.text.contains("Idempotency-Key"), "{}", answer.text);
        }
    }
    let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
    let answer = site.post("/admin/tenants", ADMIN_KEY, &twice, POSTS[0].1).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_header"));
    let after = site.world.store.load().await.unwrap();
    assert_eq!((after.tenants, after.keys, after.revision), (before.tenants, before.keys, before.revision));
}

#[tokio::test]
async fn without_a_key_what_changes_nothing_twice_has_one_entry() {
    let site = Site::open(Mode::Prod).await;
    let before = site.log("?tenant_id=acme").await.len();
    for _ in 0..2 {
        let answer = site.admin("POST", "/billing/plan", ADMIN_KEY, r#"{"tenant_id":"acme","plan":"pro"}"#).await;
        assert_eq!((answer.status, &answer.json()["monthly_limit"]), (200, &json!(-1)));
        let answer = site.admin("PATCH", "/admin/tenants/acme", ADMIN_KEY, r#"{"suspended":true}"#).await;
        assert_eq!(answer.status, 200);
    }
    let log = site.log("?tenant_id=acme").await;
    assert_eq!(log.len(), before + 2, "{log:?}");
    let plan = &log[before];
    assert_eq!((&plan["before"], &plan["after"]), (&json!({"plan": "starter"}), &json!({"plan": "pro"})));
    let suspended = &log[before + 1];
    assert_eq!(suspended["action"], "tenant.change");
    assert_eq!(
        (&suspended["before"], &suspended["after"]),
        (&json!({"suspended": false}), &json!({"suspended": true}))
    );
}

#[tokio::test]
async fn a_ledger_that_fails_is_a_503_and_the_next_try_is_the_first() {
    let mut site = Site::open(Mode::Prod).await;
    site.state.store_timeout = Duration::from_millis(20);
    for (uri, body, ..) in POSTS {
        site.world.store.set_down(true);
        let answer = site.once(uri, KEY, body).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "ledger_unavailable"), "{uri}");
        assert!(!answer.text.contains(STORE_WORDS), "{}", answer.text);
        site.world.store.set_down(false);
        let answer = site.once(uri, KEY, body).await;
        assert!(matches!(answer.status, 200 | 201) && !answer.headers.contains_key("idempotent-replayed"), "{uri}");
    }
}

#[tokio::test]
async fn the_log_comes_in_pages_for_the_admin_only() {
    let site = Site::open(Mode::Prod).await;
    let headers = [("x-request-id", "req-42")];
    site.post("/billing/plan", ADMIN_KEY, &headers, r#"{"tenant_id":"acme","plan":"pro"}"#).await;
    let all = site.log("").await;
    let actions: Vec<&str> = all.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["tenant.create", "tenant.create", "key.create", "key.create", "plan.set"]);
    assert_eq!((&all[4]["request_id"], &all[4]["at"]), (&json!("req-42"), &json!("2026-11-24T10:00:00Z")));
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for _ in 0..3 {
        let page = site.admin("GET", &format!("/admin/audit?limit=2{cursor}"), ADMIN_KEY, "").await.json();
        seen.extend(page["entries"].as_array().unwrap().clone());
        let Some(next) = page["next_cursor"].as_str() else { break };
        assert_eq!(page["entries"][1]["id"], next);
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, all);
    assert_eq!(site.log("?tenant_id=globex").await.len(), 2);
    for (uri, status, code) in [
        ("/admin/audit?tenant_id=nobody", 404, "unknown_tenant"),
        ("/admin/audit?cursor=x", 400, "invalid_parameter"),
        ("/admin/audit?cursor=-1", 400, "invalid_parameter"),
        ("/admin/audit?limit=0", 400, "invalid_parameter"),
        ("/admin/audit?limit=1001", 400, "invalid_parameter"),
        ("/admin/audit?from=x", 400, "invalid_parameter"),
        ("/admin/audit?since=x", 400, "invalid_query"),
    ] {
        let answer = site.admin("GET", uri, ADMIN_KEY, "").await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{uri}");
    }
    assert_eq!(site.admin("GET", "/admin/audit", &site.acme_key, "").await.status, 403);
    assert_eq!(site.admin("GET", "/admin/audit", "", "").await.status, 401);
    assert_eq!(site.proxy("GET", "/admin/audit", &site.acme_key, "").await.status, 404);
}
