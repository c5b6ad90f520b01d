//! The OpenAPI documents against the routes there are.

use std::collections::BTreeSet;

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

const ADMIN_ONLY: [&str; 16] = [
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
