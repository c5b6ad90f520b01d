//! Where paths go, and where they do not.

use super::*;

fn found(method: Method, path: &str, place: CredentialPlace) -> String {
    match route(&method, path, place) {
        Ok((provider, endpoint)) => {
            let model = endpoint.model.map(|model| format!(" {model}")).unwrap_or_default();
            format!("{} {} {}{model}", provider.id(), endpoint.name, endpoint.path)
        }
        Err(Refusal::MethodNotAllowed { allow }) => format!("405 {allow}"),
        Err(Refusal::UnknownRoute | Refusal::OpensElsewhere) => "404".into(),
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
        "/v1/projects/p/locations/l/endpoints/4711:generateContent",
        "gemini generateContent /v1/projects/p/locations/l/endpoints/4711:generateContent 4711",
    );
    check(
        "/v1/publishers/google/models/m:generateContent",
        "gemini generateContent /v1/publishers/google/models/m:generateContent m",
    );
    check("/v1beta/openai/chat/completions", "gemini chat.completions /v1beta/openai/chat/completions");
    check("/gemini/v1beta/openai/embeddings", "gemini embeddings /v1beta/openai/embeddings");
}

#[test]
fn what_has_no_line_in_a_table_goes_nowhere() {
    for nowhere in [
        "",
        "/",
        "/v1",
        "/v2/chat/completions",
        "/v1/images/variations",
        "/v1/batches/b/x",
        "/v1/threads/t/x",
        "/v1/videos",
        "/v1/fine_tuning/jobs",
        "/v1/realtime/client_secrets",
        "/v1/live/sessions",
        "/v1/models/m",
        "/v1/files/f",
        "/v1/chat/completions/{completion}",
        "/v1beta/files/{file}",
        "/v1/chat/completions/",
        "//v1/chat/completions",
        "/openai",
        "/openaiv1/chat/completions",
        "/openai//v1/chat/completions",
        "/v1/chat/../chat/completions",
        "/gemini/openai/v1/responses",
        "/v1beta/files/f:batchGenerateContent",
        "/v1beta/batches/b/x",
        "/v1beta/batches/b:other",
        "/v1beta/models/m:rawPredict",
        "/v1beta/models/m:download",
        "/v1beta1/interactions",
        "/download/v1/chat/completions",
        "/v1beta/files",
        "/v1beta/files/f:generateContent",
        "/v1beta/files/models/m:generateContent",
        "/v1beta/models/m:generateContent:x",
        "/v1beta/models/:generateContent",
        "/v1beta/models/a/b:generateContent",
        "/v1beta/models/..%2fb:generateContent",
        "/v1beta/models/%2e%2e:generateContent",
        "/v1beta/models/..:generateContent/../x:generateContent",
        "/v1beta1/models/m:generateContent",
        "/v1beta/models/m%00:generateContent",
        "/v1beta/models/m%20x:generateContent",
        "/upload/v1beta/cachedContents",
        "/upload/v1/chat/completions",
        "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContentMore",
        "/v1beta/auth_tokens",
        "/v1beta/projects/p/locations/l/publishers/google/models/m:generateContent",
        "/v1beta/openai/images/edits",
        "/v1beta/openai/responses",
        "/v1beta1/projects/p/locations/l/publishers/anthropic/models/m:generateContent",
    ] {
        assert_eq!(found(Method::POST, nowhere, CredentialPlace::Bearer), "404", "{nowhere}");
    }
}

#[test]
fn reads_pass_and_other_methods_are_named() {
    let check = |method: Method, path: &str, expected: &str| {
        assert_eq!(found(method, path, CredentialPlace::Bearer), expected, "{path}");
    };
    check(Method::GET, "/v1/models", "openai models /v1/models");
    check(Method::GET, "/v1/models/ft:gpt-4o:acme::x1", "openai models /v1/models/ft:gpt-4o:acme::x1");
    check(Method::HEAD, "/v1/files/f/content", "openai files /v1/files/f/content");
    check(Method::GET, "/v1/chat/completions", "openai chat.completions.stored /v1/chat/completions");
    check(Method::GET, "/v1/responses/r/input_items", "openai responses.stored /v1/responses/r/input_items");
    check(Method::GET, "/v1beta/models", "gemini models /v1beta/models");
    check(Method::GET, "/v1beta/models/m/operations/o", "gemini models /v1beta/models/m/operations/o");
    check(Method::GET, "/v1beta/files/f:download", "gemini files /v1beta/files/f:download");
    check(Method::GET, "/v1beta/openai/models", "gemini models /v1beta/openai/models");
    check(Method::GET, "/v1/realtime", "openai realtime /v1/realtime");
    check(Method::POST, "/v1/realtime", "405 GET");
    let live = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent";
    check(Method::GET, live, &format!("gemini bidiGenerateContent {live}"));
    check(Method::GET, &format!("/{live}"), &format!("gemini bidiGenerateContent {live}"));
    check(Method::GET, &format!("//{live}"), "404");
    check(Method::GET, "/v1/live/sessions/s", "404");
    check(Method::GET, "/v1/organization/usage", "404");
    check(Method::GET, "/v1/batches/b", "openai batches.stored /v1/batches/b");
    check(Method::GET, "/v1/batches", "openai batches.stored /v1/batches");
    check(Method::GET, "/v1/batches/b/x", "404");
    check(Method::GET, "/v1/threads/t/runs/r/steps", "openai threads.runs.stored /v1/threads/t/runs/r/steps");
    check(Method::GET, "/v1/responses", "405 POST");
    check(Method::GET, "/v1beta/batches/b", "gemini batches.stored /v1beta/batches/b");
    check(Method::GET, "/v1beta/interactions/i", "gemini interactions.stored /v1beta/interactions/i");
    check(Method::GET, "/download/v1beta/files/f:download", "gemini files /download/v1beta/files/f:download");
    check(Method::GET, "/v1beta/models/m:batchGenerateContent", "405 POST");
    check(Method::DELETE, "/v1/models/ft:gpt-4o:acme::x1", "404");
    check(Method::POST, "/v1/responses/r", "405 GET, HEAD, DELETE");
    check(Method::DELETE, "/v1/chat/completions", "405 POST, GET, HEAD");
    check(Method::GET, "/v1/embeddings", "405 POST");
    check(Method::GET, "/v1beta/models/m:generateContent", "405 POST");
    check(Method::GET, "/v1beta/models/m%3AgenerateContent", "405 POST");
    check(Method::PUT, "/v1beta/openai/chat/completions", "405 POST");
}

#[test]
fn the_credential_decides_whose_v1_it_is() {
    let check =
        |path: &str, place: CredentialPlace, expected: &str| assert_eq!(found(Method::GET, path, place), expected);
    check("/v1/models", CredentialPlace::Google, "gemini models /v1/models");
    check("/v1/models", CredentialPlace::None, "openai models /v1/models");
    check("/openai/v1/models", CredentialPlace::Google, "openai models /v1/models");
    check("/gemini/v1/models", CredentialPlace::Bearer, "gemini models /v1/models");
    check(
        "/v1/projects/p/locations/l/publishers/google/models",
        CredentialPlace::Bearer,
        "gemini models /v1/projects/p/locations/l/publishers/google/models",
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

/// Paths that a pattern stands for: each alternative once.
fn samples(pattern: &str) -> Vec<String> {
    // The first of its lists, as each of what it lists.
    let lists = pattern.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(names, _)| names);
    if let Some(names) = lists.into_iter().find(|names| names.contains(',')) {
        let list = format!("{{{names}}}");
        return names.split(',').flat_map(|name| samples(&pattern.replacen(&list, name, 1))).collect();
    }
    let mut paths = vec![String::new()];
    for segment in pattern.trim_start_matches('/').split('/') {
        let names: Vec<&str> = match segment.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            Some((_, rest)) => vec![rest],
            None if segment == "**" => vec!["x/y"],
            None => vec![segment],
        };
        let names = names
            .iter()
            .map(|name| if name.is_empty() || name.starts_with(':') { format!("x{name}") } else { (*name).to_owned() });
        let names: Vec<String> = names.collect();
        paths = paths.iter().flat_map(|path| names.iter().map(move |name| format!("{path}/{name}"))).collect();
    }
    paths
}

#[test]
fn every_route_of_the_table_is_found_and_no_other_in_its_place() {
    for row in table() {
        let patterns: Vec<String> = match row.path.strip_prefix("{model}") {
            Some(verb) => places_of_models().map(|place| format!("{place}{verb}")).collect(),
            None => vec![row.path.to_owned()],
        };
        let place = if row.provider == "gemini" { CredentialPlace::Google } else { CredentialPlace::Bearer };
        for (path, method) in patterns
            .iter()
            .flat_map(|pattern| samples(pattern))
            .flat_map(|path| row.methods.split(", ").map(move |method| (path.clone(), method)))
        {
            let (provider, endpoint) = route(&method.parse().unwrap(), &path, place).unwrap();
            assert_eq!(
                (provider.id().as_str(), endpoint.name, endpoint.kind, endpoint.reads),
                (row.provider.as_str(), row.name, row.kind, row.reads),
                "{method} {path}"
            );
            let method_of_billed = if endpoint.reads.is_session() { "GET" } else { "POST" };
            assert!(endpoint.kind == Kind::Unbilled || method == method_of_billed, "{method} {path} is billed");
            // A free line that is read tells of what its POST began, or lets what is kept cost more.
            let tells = provider.unit_reader(endpoint.reads, None).is_some() || endpoint.reads == Reads::Cache;
            assert!(endpoint.reads != Reads::Nothing || endpoint.kind == Kind::Unbilled, "{path}");
            assert!(endpoint.reads == Reads::Nothing || endpoint.kind != Kind::Unbilled || tells, "{path}");
        }
    }
}

/// A path as others may write it who mean the same: a letter in percent-encoding or in the other case, parameters of a segment.
fn spellings(path: &str) -> Vec<String> {
    let mut spellings = Vec::new();
    for (at, byte) in path.bytes().enumerate() {
        let (before, rest) = path.split_at(at);
        let after = rest.get(1..).unwrap();
        spellings.push(format!("{before}%{byte:02x}{after}"));
        spellings.push(format!("{before}%{byte:02X}{after}"));
        spellings.push(format!("{before}%25{byte:02x}{after}"));
        if byte.is_ascii_alphabetic() {
            spellings.push(format!("{before}{}{after}", char::from(byte ^ 0x20)));
        }
        if byte == b'/' {
            for other in ["//", "/./", "/x/../", "\\", "/;/", ";a=b/", ";/", "/%2e/", "/x/%2e%2e/"] {
                spellings.push(format!("{before}{other}{after}"));
            }
        }
    }
    spellings.extend(
        ["/", ";", ";a=b", "/.", "/x/..", "%00", "%20", "%2f", "%3f", "%23", ".", "?", "#", "."]
            .map(|end| format!("{path}{end}")),
    );
    spellings
}

#[test]
fn a_path_that_a_provider_reads_as_another_is_counted_as_that_or_refused() {
    let mut forwarded = 0;
    for row in table() {
        let patterns: Vec<String> = match row.path.strip_prefix("{model}") {
            Some(verb) => places_of_models().map(|place| format!("{place}{verb}")).collect(),
            None => vec![row.path.to_owned()],
        };
        let place = if row.provider == "gemini" { CredentialPlace::Google } else { CredentialPlace::Bearer };
        for path in patterns.iter().flat_map(|pattern| samples(pattern)) {
            for method in row.methods.split(", ").map(|method| method.parse().unwrap()) {
                for spelled in spellings(&path) {
                    let Ok((provider, endpoint)) = route(&method, &spelled, place) else { continue };
                    forwarded += 1;
                    assert_eq!(
                        (provider.id().as_str(), endpoint.kind, endpoint.reads),
                        (row.provider.as_str(), row.kind, row.reads),
                        "{method} {spelled} is counted other than {path}"
                    );
                }
            }
        }
    }
    assert!(forwarded > 1000, "{forwarded} spellings of names are let through");
}
