//! The OpenAPI documents against the routes there are.

use std::collections::BTreeSet;

use secrecy::SecretBox;

use crate::metering::vault::Vault;

use super::*;

/// Every route of a listener, as method and path.
fn listed(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap();
    let methods = |(path, item): (&String, &Value)| {
        let operations: Vec<String> =
            item.as_object().unwrap().keys().map(|method| format!("{method} {path}")).collect();
        operations
    };
    paths.iter().flat_map(methods).collect()
}

const BOTH: [&str; 9] = [
    "get /billing/usage",
    "get /billing/limits",
    "post /billing/plan",
    "get /billing/cost-report",
    "get /billing/events",
    "get /billing/events/{id}",
    "get /healthz",
    "get /readyz",
    "get /openapi.json",
];

const ADMIN_ONLY: [&str; 21] = [
    "get /admin/audit",
    "get /admin/counters",
    "get /admin/threshold-crossings",
    "get /admin/prices",
    "post /admin/prices",
    "delete /admin/prices",
    "post /admin/prices/preview",
    "post /admin/tenants",
    "get /admin/tenants",
    "get /admin/tenants/{id}",
    "patch /admin/tenants/{id}",
    "post /admin/tenants/{id}/keys",
    "get /admin/tenants/{id}/keys",
    "get /admin/tenants/{id}/keys/{key_id}",
    "delete /admin/tenants/{id}/keys/{key_id}",
    "post /admin/tenants/{id}/keys/{key_id}/rotate",
    "get /admin/tenants/{id}/provider-keys",
    "get /admin/tenants/{id}/provider-keys/{provider}",
    "put /admin/tenants/{id}/provider-keys/{provider}",
    "delete /admin/tenants/{id}/provider-keys/{provider}",
    "get /metrics",
];

fn set(routes: &[&str]) -> BTreeSet<String> {
    routes.iter().map(|route| (*route).to_owned()).collect()
}

/// Every `$ref` in a document.
fn references(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                into.insert(reference.clone());
            }
            fields.values().for_each(|value| references(value, into));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, into)),
        _ => {}
    }
}

#[tokio::test]
async fn each_listener_documents_its_own_routes_and_no_other() {
    let site = Site::open(Mode::Prod).await;
    let proxy = site.proxy("GET", "/openapi.json", "", "").await.json();
    let admin = site.admin("GET", "/openapi.json", "", "").await.json();
    assert_eq!(listed(&proxy), set(&BOTH));
    assert_eq!(listed(&admin), set(&[&BOTH[..], &ADMIN_ONLY].concat()));
    assert!(!proxy.to_string().contains("/admin/"), "the proxy side tells of no admin route");
}

#[tokio::test]
async fn the_document_is_whole() {
    let site = Site::open(Mode::Prod).await;
    for document in [
        site.proxy("GET", "/openapi.json", "", "").await.json(),
        site.admin("GET", "/openapi.json", "", "").await.json(),
    ] {
        assert!(document["openapi"].as_str().unwrap().starts_with("3."));
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.contains("#/components/schemas/ProblemBody"));
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
        let mut ids = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let id = operation["operationId"].as_str().unwrap();
                assert!(ids.insert(id.to_owned()), "{id} twice");
                assert!(!operation["summary"].as_str().unwrap().is_empty(), "{method} {path}");
                for part in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
                    let parameters = operation["parameters"].as_array().unwrap();
                    let named = parameters.iter().any(|one| one["name"] == part && one["in"] == "path");
                    assert!(named, "{method} {path}: {part}");
                }
            }
        }
    }
}

#[tokio::test]
async fn every_keyed_route_documents_its_errors_with_an_example_of_the_real_form() {
    let site = Site::open(Mode::Prod).await;
    let document = site.admin("GET", "/openapi.json", "", "").await.json();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let is_open = operation["security"] == json!([{}]);
            assert_eq!(is_open, !path.starts_with("/billing/") && !path.starts_with("/admin/"), "{method} {path}");
            if is_open {
                continue;
            }
            for status in ["400", "401", "403", "404", "503"] {
                let response = &operation["responses"][status];
                let example = &response["content"]["application/problem+json"]["example"];
                assert_eq!(example["status"].to_string(), status, "{method} {path}: {response}");
                assert!(example["detail"].as_str().unwrap().ends_with('.'), "{example}");
            }
        }
    }
}

/// A request of each route that changes something, in an order in which each finds what it changes.
async fn changes(site: &Site) -> Vec<(&'static str, String, String)> {
    let keys = site.world.admin.keys(&"globex".parse().unwrap()).await.unwrap();
    let key = format!("/admin/tenants/globex/keys/{}", keys[0].id);
    site.world.snapshots.set_vault(Vault::new([Arc::new(SecretBox::new(Box::new([7; 32])))]));
    let own = "/admin/tenants/globex/provider-keys/openai";
    let one = |route, path: &str, body: &str| (route, path.to_owned(), body.to_owned());
    vec![
        one("post /billing/plan", "/billing/plan", r#"{"tenant_id":"globex","plan":"growth"}"#),
        one("post /admin/tenants", "/admin/tenants", r#"{"id":"initech","name":"Initech","plan":"starter"}"#),
        one("patch /admin/tenants/{id}", "/admin/tenants/initech", r#"{"suspended":true}"#),
        one("post /admin/tenants/{id}/keys", "/admin/tenants/globex/keys", r#"{"name":"second"}"#),
        one("post /admin/tenants/{id}/keys/{key_id}/rotate", &format!("{key}/rotate"), "{}"),
        one("delete /admin/tenants/{id}/keys/{key_id}", &key, ""),
        one("put /admin/tenants/{id}/provider-keys/{provider}", own, r#"{"key":"sk-of-globex-0123456789abcdef"}"#),
        one("delete /admin/tenants/{id}/provider-keys/{provider}", own, ""),
        one("post /admin/prices", "/admin/prices", PRICES),
        one("delete /admin/prices", "/admin/prices", ""),
    ]
}

/// A price file.
const PRICES: &str = r#"{"format":1,"models":[{"provider":"openai","model":"mine","match":["mine"],
    "rates":[{"tier":"standard","input":7}]}]}"#;

/// What is asked with a body and changes nothing.
const ASKS_ONLY: [&str; 1] = ["post /admin/prices/preview"];

#[tokio::test]
async fn every_route_that_changes_something_leaves_its_entry_in_the_audit_log() {
    let site = Site::open(Mode::Prod).await;
    let entries = async || {
        let log = site.admin("GET", "/admin/audit?limit=1000", ADMIN_KEY, "").await;
        assert_eq!(log.status, 200, "{}", log.text);
        log.json()["entries"].as_array().unwrap().clone()
    };
    let document = site.admin("GET", "/openapi.json", "", "").await.json();
    let changing: BTreeSet<String> = listed(&document)
        .into_iter()
        .filter(|route| !route.starts_with("get ") && !ASKS_ONLY.contains(&route.as_str()))
        .collect();
    let changes = changes(&site).await;
    assert_eq!(changes.iter().map(|(route, ..)| (*route).to_owned()).collect::<BTreeSet<_>>(), changing);
    for (route, path, body) in changes {
        let (method, _) = route.split_once(' ').unwrap();
        let before = entries().await;
        // Whoever may not change it leaves none.
        let refused = site.admin(&method.to_uppercase(), &path, &site.acme_key, &body).await;
        assert_eq!((refused.status, entries().await.len()), (403, before.len()), "{route}: {}", refused.text);
        let done = site.admin(&method.to_uppercase(), &path, ADMIN_KEY, &body).await;
        assert!((200..300).contains(&done.status), "{route}: {} {}", done.status, done.text);
        let after = entries().await;
        // A key in the place of another is two changes.
        let changes = if route.ends_with("/rotate") { 2 } else { 1 };
        assert_eq!(after.len(), before.len() + changes, "{route}: {after:?}");
        let entry = after.last().unwrap();
        assert_eq!((&entry["actor"], &entry["actor_key"]), (&json!("admin"), &json!("ters")), "{route}: {entry}");
        let told = entry["before"].as_object().unwrap().len() + entry["after"].as_object().unwrap().len();
        assert!(told > 0, "{route}: {entry}");
        // Asked for once more it changes nothing, or is refused.
        if !route.ends_with("/keys") && !route.ends_with("/rotate") && method != "put" {
            site.admin(&method.to_uppercase(), &path, ADMIN_KEY, &body).await;
            assert_eq!(entries().await.len(), after.len(), "{route}");
        }
    }
}

#[tokio::test]
async fn the_audit_log_is_asked_by_who_what_and_when() {
    let site = Site::open(Mode::Prod).await;
    for (route, path, body) in changes(&site).await {
        let (method, _) = route.split_once(' ').unwrap();
        site.admin(&method.to_uppercase(), &path, ADMIN_KEY, &body).await;
    }
    let of = async |query: &str| {
        let page = site.admin("GET", &format!("/admin/audit?limit=1000&{query}"), ADMIN_KEY, "").await.json();
        let entries = page["entries"].as_array().unwrap_or_else(|| panic!("{query}: {page}")).clone();
        entries.iter().map(|entry| entry["action"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let admins = of("actor=admin").await;
    assert_eq!(admins.len(), 11);
    assert_eq!(of("action=plan.set").await, ["plan.set"]);
    assert_eq!(of("actor=admin&tenant_id=initech").await, ["tenant.create", "tenant.change"]);
    assert_eq!(of("actor=tenant").await, Vec::<String>::new());
    assert_eq!(of("actor=admin&from=2100-01-01T00:00:00Z").await, Vec::<String>::new());
    assert_eq!(of("actor=admin&to=2100-01-01T00:00:00Z").await, admins);
    for wrong in ["actor=root", "action=plan", "from=yesterday", "actor=admin&actor=cli"] {
        let answer = site.admin("GET", &format!("/admin/audit?{wrong}"), ADMIN_KEY, "").await;
        assert_eq!(answer.status, 400, "{wrong}: {}", answer.text);
    }
}
