//! Where paths go, and where they do not.

use super::*;

fn found(method: Method, path: &str, place: CredentialPlace) -> String {
    match route(&method, path, place) {
        Ok((provider, endpoint)) => {
            let model = endpoint.model.map(|model| format!(" {model}")).unwrap_or_default();
            format!("{} {} {}{model}", provider.id(), endpoint.name, endpoint.path)
        }
        Err(Refusal::MethodNotAllowed { allow }) => format!("405 {allow}"),
        Err(Refusal::UnknownRoute) => "404".into(),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn posts_go_where_they_are_metered_or_nowhere() {
    let check =
        |path: &str, expected: &str| assert_eq!(found(Method::POST, path, CredentialPlace::Bearer), expected, "{path}");
    check("/v1/chat/completions", "openai chat.completions /v1/chat/completions");
    check("/openai/v1/responses", "openai responses /v1/responses");
    check("/v1/responses/compact", "openai responses.compact /v1/responses/compact");
    check(
        "/v1/models/gemini-pro:generateContent",
        "gemini generateContent /v1/models/gemini-pro:generateContent gemini-pro",
    );
    check(
        "/gemini/v1alpha/tunedModels/t-1:streamGenerateContent",
        "gemini streamGenerateContent /v1alpha/tunedModels/t-1:streamGenerateContent t-1",
    );
    check(
        "/v1beta/models/gemini%2Dpro%3AcountTokens",
        "gemini countTokens /v1beta/models/gemini%2Dpro%3AcountTokens gemini-pro",
    );
    check(
        "/v1beta1/projects/p/locations/l/publishers/google/models/m@001:embedContent",
        "gemini embedContent /v1beta1/projects/p/locations/l/publishers/google/models/m@001:embedContent m@001",
    );
    check(
        "/v1/publishers/google/models/m:generateContent",
        "gemini generateContent /v1/publishers/google/models/m:generateContent m",
    );
    check("/v1beta/openai/chat/completions", "gemini chat.completions /v1beta/openai/chat/completions");
    check("/gemini/v1beta/openai/embeddings", "gemini embeddings /v1beta/openai/embeddings");
    for nowhere in [
        "",
        "/",
        "/v1",
        "/v2/chat/completions",
        "/v1/images/generations",
        "/v1/chat/completions/",
        "//v1/chat/completions",
        "/openai",
        "/openaiv1/chat/completions",
        "/openai//v1/chat/completions",
        "/v1/chat/../chat/completions",
        "/gemini/openai/v1/responses",
        "/v1beta/models/m:predict",
        "/v1beta/models/m:generateContent:x",
        "/v1beta/models/:generateContent",
        "/v1beta/models/a/b:generateContent",
        "/v1beta/models/..%2fb:generateContent",
        "/v1beta/models/%2e%2e:generateContent",
        "/v1beta/models/..:generateContent/../x:generateContent",
        "/v1beta1/models/m:generateContent",
        "/v1beta/models/m%00:generateContent",
        "/v1beta/models/m%20x:generateContent",
        "/upload/v1beta/files",
        "/v1beta/cachedContents",
        "/v1beta/projects/p/locations/l/publishers/google/models/m:generateContent",
        "/v1beta/openai/images/generations",
        "/v1beta1/projects/p/locations/l/publishers/anthropic/models/m:generateContent",
    ] {
        check(nowhere, "404");
    }
}

#[test]
fn reads_pass_and_other_methods_are_named() {
    let check = |method: Method, path: &str, expected: &str| {
        assert_eq!(found(method, path, CredentialPlace::Bearer), expected, "{path}");
    };
    check(Method::GET, "/v1/models", "openai read /v1/models");
    check(Method::GET, "/v1/models/ft:gpt-4o:acme::x1", "openai read /v1/models/ft:gpt-4o:acme::x1");
    check(Method::HEAD, "/v1/files/f/content", "openai read /v1/files/f/content");
    check(Method::GET, "/v1/chat/completions", "openai read /v1/chat/completions");
    check(Method::GET, "/v1beta/models", "gemini read /v1beta/models");
    check(Method::GET, "/v1beta/files/f:download", "gemini read /v1beta/files/f:download");
    check(Method::GET, "/v1beta/openai/models", "gemini read /v1beta/openai/models");
    check(Method::GET, "/v1/realtime", "404");
    check(Method::GET, "/v1/organization/usage", "404");
    check(Method::GET, "/v1beta/models/m:predict", "404");
    check(Method::DELETE, "/v1/files/f", "404");
    check(Method::DELETE, "/v1/chat/completions", "405 GET, HEAD, POST");
    check(Method::GET, "/v1/embeddings", "405 POST");
    check(Method::GET, "/v1beta/models/m:generateContent", "405 POST");
    check(Method::PUT, "/v1beta/openai/chat/completions", "405 POST");
}

#[test]
fn the_credential_decides_whose_v1_it_is() {
    let check =
        |path: &str, place: CredentialPlace, expected: &str| assert_eq!(found(Method::GET, path, place), expected);
    check("/v1/models", CredentialPlace::Google, "gemini read /v1/models");
    check("/v1/models", CredentialPlace::None, "openai read /v1/models");
    check("/openai/v1/models", CredentialPlace::Google, "openai read /v1/models");
    check("/gemini/v1/models", CredentialPlace::Bearer, "gemini read /v1/models");
    check(
        "/v1/projects/p/locations/l/publishers/google/models",
        CredentialPlace::Bearer,
        "gemini read /v1/projects/p/locations/l/publishers/google/models",
    );
}

#[test]
fn refusals_are_in_the_callers_dialect() {
    let is_google = |path: &str, place: CredentialPlace| {
        dialect_of(path, place).refusal_body(&Refusal::UnknownRoute).contains("NOT_FOUND")
    };
    assert!(is_google("/v1beta/nothing", CredentialPlace::Bearer));
    assert!(is_google("/nothing", CredentialPlace::Google));
    assert!(is_google("/upload/v1beta/files", CredentialPlace::None));
    assert!(is_google("/v1/models/m:predict", CredentialPlace::Bearer));
    assert!(!is_google("/nothing", CredentialPlace::None));
    assert!(!is_google("/v1/nothing", CredentialPlace::Bearer));
    assert!(!is_google("/v1beta/openai/chat/completions", CredentialPlace::Bearer));
}

#[test]
fn every_route_of_the_table_is_found() {
    for row in table() {
        let path =
            row.path.replace("{model}", "m").replace("{project}", "p").replace("{location}", "l").replace("**", "x");
        let place = if row.provider == "gemini" { CredentialPlace::Google } else { CredentialPlace::Bearer };
        for method in row.methods.split(", ") {
            let (provider, endpoint) = route(&method.parse().unwrap(), &path, place).unwrap();
            assert_eq!(
                (provider.id().as_str(), endpoint.name, endpoint.kind),
                (row.provider.as_str(), row.name, row.kind),
                "{path}"
            );
        }
    }
}
