//! A tenant sees itself, however it asks; only the admin key on the admin listener sees all.

use super::*;

/// What only globex's data holds.
const GLOBEX_MODEL: &str = "\"gpt-4\"";

fn with(uri: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let builder =
        headers.iter().fold(Request::builder().uri(uri), |builder, (name, value)| builder.header(*name, *value));
    builder.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn no_way_of_asking_shows_a_tenant_another_ones_data() {
    let site = Site::open(Mode::Prod).await;
    let globex_event = event("globex", 2, "openai", "gpt-4", "2026-11-24T10:00:00Z").id;
    let globex_key_id =
        site.world.admin.keys(&"globex".parse().unwrap()).await.unwrap().first().unwrap().id.to_string();
    let uris = [
        "/billing/usage?tenant_id=globex".to_owned(),
        "/billing/usage?tenant_id=globex&tenant_id=acme".to_owned(),
        "/billing/usage?tenant_id=acme&tenant_id=globex".to_owned(),
        "/billing/usage?tenant_id=acme&tenant%5Fid=globex".to_owned(),
        "/billing/usage?tenant%5fid=globex".to_owned(),
        "/billing/usage?tenant_id=%67lobex".to_owned(),
        "/billing/usage?tenant_id=acme%00globex".to_owned(),
        "/billing/usage?tenant_id=acme,globex".to_owned(),
        "/billing/usage?tenant_id[]=globex".to_owned(),
        "/billing/usage?tenant_id=*".to_owned(),
        "/billing/usage?tenant_id=".to_owned(),
        "/billing/usage?tenant_id".to_owned(),
        "/billing/usage?tenant_id=ACME".to_owned(),
        "/billing/usage?tenant_id=acme%20".to_owned(),
        "/billing/usage?tenant=globex".to_owned(),
        "/billing/usage?TENANT_ID=globex".to_owned(),
        "/billing/usage?group_by=tenant".to_owned(),
        "/billing/usage?group_by=tenant_id,model".to_owned(),
        "/billing/limits?tenant_id=globex".to_owned(),
        "/billing/limits?tenant_id=nobody".to_owned(),
        "/billing/cost-report?range=all&tenant_id=globex".to_owned(),
        "/billing/cost-report?format=csv&tenant_id=globex".to_owned(),
        "/billing/events?tenant_id=globex".to_owned(),
        format!("/billing/events?cursor={globex_event}"),
        format!("/billing/events/{globex_event}"),
        format!("/billing/events/{globex_event}?tenant_id=globex"),
        "/admin/tenants".to_owned(),
        "/admin/tenants/globex".to_owned(),
        "/admin/tenants/acme".to_owned(),
        "/admin/tenants/globex/keys".to_owned(),
        format!("/admin/tenants/globex/keys/{globex_key_id}"),
        format!("/admin/tenants/acme/keys/{globex_key_id}"),
        "/admin/tenants/globex/provider-keys".to_owned(),
        "/admin/tenants/acme/provider-keys/openai".to_owned(),
    ];
    for uri in &uris {
        for answer in
            [site.proxy("GET", uri, &site.acme_key, "").await, site.admin("GET", uri, &site.acme_key, "").await]
        {
            assert!((400..500).contains(&answer.status), "{uri}: {} {}", answer.status, answer.text);
            assert!(!answer.text.contains(GLOBEX_MODEL) && !answer.text.contains("GLOBEX"), "{uri}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn what_is_a_tenants_own_holds_nothing_of_another() {
    let site = Site::open(Mode::Prod).await;
    for uri in [
        "/billing/usage?group_by=model",
        "/billing/usage?tenant_id=acme&group_by=model,key,user,kb,day,hour,provider",
        "/billing/cost-report?range=all",
        "/billing/cost-report?range=all&format=csv",
        "/billing/events?limit=1000",
        "/billing/limits?tenant_id=acme",
    ] {
        let answer = site.proxy("GET", uri, &site.acme_key, "").await;
        assert_eq!(answer.status, 200, "{uri}: {}", answer.text);
        assert!(!answer.text.contains(GLOBEX_MODEL) && !answer.text.contains("globex"), "{uri}: {}", answer.text);
    }
}

#[tokio::test]
async fn whether_another_tenant_exists_is_not_told() {
    let site = Site::open(Mode::Prod).await;
    let known = site.proxy("GET", "/billing/usage?tenant_id=globex", &site.acme_key, "").await;
    let unknown = site.proxy("GET", "/billing/usage?tenant_id=nobody", &site.acme_key, "").await;
    assert_eq!((known.status, &known.text), (403, &unknown.text));
    let globex_event = event("globex", 2, "openai", "gpt-4", "2026-11-24T10:00:00Z").id;
    let known = site.proxy("GET", &format!("/billing/events/{globex_event}"), &site.acme_key, "").await;
    let unknown = site.proxy("GET", "/billing/events/019abf5e-0e00-7000-8000-00000000ffff", &site.acme_key, "").await;
    assert_eq!((known.status, &known.text), (404, &unknown.text));
}

#[tokio::test]
async fn headers_choose_no_tenant() {
    let site = Site::open(Mode::Prod).await;
    let bearer = format!("Bearer {}", site.acme_key);
    for name in
        ["x-tenant-id", "tenant_id", "x-tollgate-tenant-id", "x-forwarded-user", "x-tollgate-user-id", "forwarded"]
    {
        let request = with("/billing/usage", &[("authorization", bearer.as_str()), (name, "globex")]);
        let answer = site.send(proxy_router(site.state.clone()), request).await;
        assert_eq!((answer.status, &answer.json()["tenant_id"]), (200, &json!("acme")), "{name}");
    }
}

#[tokio::test]
async fn two_different_credentials_are_refused_on_both_listeners() {
    let site = Site::open(Mode::Prod).await;
    let bearer = format!("Bearer {}", site.acme_key);
    let with_query = format!("/billing/usage?key={}", site.globex_key);
    for (uri, headers) in [
        ("/billing/usage", [("authorization", bearer.as_str()), ("api-key", site.globex_key.as_str())]),
        ("/billing/usage", [("authorization", bearer.as_str()), ("x-goog-api-key", site.globex_key.as_str())]),
        ("/billing/usage", [("x-goog-api-key", site.acme_key.as_str()), ("api-key", ADMIN_KEY)]),
        (with_query.as_str(), [("authorization", bearer.as_str()), ("accept", "*/*")]),
    ] {
        for router in [proxy_router(site.state.clone()), admin_router(site.state.clone())] {
            let answer = site.send(router, with(uri, &headers)).await;
            assert_eq!((answer.status, answer.code().as_str()), (401, "ambiguous_api_key"), "{uri} {headers:?}");
        }
    }
    let headers = [("authorization", bearer.as_str()), ("x-api-key", ADMIN_KEY)];
    let answer = site.send(admin_router(site.state.clone()), with("/billing/usage", &headers)).await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "ambiguous_api_key"));
    let answer = site.send(proxy_router(site.state.clone()), with("/billing/usage", &headers)).await;
    assert_eq!(answer.json()["tenant_id"], "acme");
}

#[tokio::test]
async fn the_admin_key_opens_the_admin_listener_only() {
    let site = Site::open(Mode::Dev).await;
    for name in ["api-key", "x-api-key"] {
        let answer = site.send(admin_router(site.state.clone()), with("/admin/tenants", &[(name, ADMIN_KEY)])).await;
        assert_eq!(answer.status, 200, "{name}");
    }
    let answer = site.proxy("GET", "/billing/usage", ADMIN_KEY, "").await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "admin_key_not_allowed"));
    assert_eq!(site.proxy("GET", "/admin/tenants", ADMIN_KEY, "").await.status, 404);
    for (key, code) in [("", "missing_api_key"), ("an-admin-key-of-at-least-32-characterX", "invalid_api_key")] {
        let prod = Site::open(Mode::Prod).await;
        let answer = prod.admin("GET", "/admin/tenants", key, "").await;
        assert_eq!((answer.status, answer.code().as_str()), (401, code));
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
}

#[tokio::test]
async fn a_body_changes_no_other_tenant() {
    let site = Site::open(Mode::Dev).await;
    for body in [
        r#"{"tenant_id":"globex","plan":"pro"}"#,
        r#"{"tenant_id":"acme","tenant_id":"globex","plan":"pro"}"#,
        r#"{"tenant_id":"globex","tenant_id":"acme","plan":"pro"}"#,
        r#"{"tenant_id":"acme","tenant\u005fid":"globex","plan":"pro"}"#,
        r#"{"tenant_id":["acme","globex"],"plan":"pro"}"#,
        r#"{"tenant_id":"acme\u0000globex","plan":"pro"}"#,
        r#"{"tenant_id":"\u0067lobex","plan":"pro"}"#,
        r#"[{"tenant_id":"globex","plan":"pro"}]"#,
        r#"["globex","pro"]"#,
    ] {
        let answer = site.proxy("POST", "/billing/plan", &site.acme_key, body).await;
        assert!(matches!(answer.status, 403 | 422), "{body}: {} {}", answer.status, answer.text);
    }
    let moved =
        site.proxy("POST", "/billing/plan?tenant_id=globex", &site.acme_key, r#"{"tenant_id":"acme","plan":"pro"}"#);
    assert_eq!(moved.await.status, 400);
    for tenant in ["acme", "globex"] {
        let view = site.admin("GET", &format!("/billing/limits?tenant_id={tenant}"), ADMIN_KEY, "").await.json();
        assert_eq!(view["plan"], "starter", "{tenant}");
    }
    for (method, path) in [
        ("POST", "/admin/tenants"),
        ("PATCH", "/admin/tenants/globex"),
        ("POST", "/admin/tenants/globex/keys"),
        ("DELETE", "/admin/tenants/globex/keys/key_0123456789abcdef"),
        ("POST", "/admin/tenants/globex/keys/key_0123456789abcdef/rotate"),
        ("PUT", "/admin/tenants/globex/provider-keys/openai"),
        ("DELETE", "/admin/tenants/globex/provider-keys/openai"),
    ] {
        let answer = site.admin(method, path, &site.acme_key, r#"{"name":"x"}"#).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{method} {path}");
    }
}
