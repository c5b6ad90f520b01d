//! What Google's paths, bodies and answers name.

use bytes::Bytes;

use super::*;
use crate::domain::refusal::Refusal;
use crate::providers::{CredentialPlace, route};

fn touched(method: Method, path: &str) -> Touches {
    let (provider, endpoint) = route(&method, path, CredentialPlace::Google).unwrap_or_else(|_| panic!("{path}"));
    provider.touches(&method, &endpoint)
}

fn text(named: Named) -> String {
    match named {
        Named::Object(name) => name.to_string(),
        Named::Nothing(_) => "nothing".to_owned(),
    }
}

#[test]
fn a_path_names_its_object_or_asks_for_a_list_or_makes_one() {
    let (none, all) = (Makes::Nothing, Makes::All);
    for (method, path, named, lists, makes) in [
        (Method::POST, "/v1beta/models/gemini-2.5-flash:generateContent", None, false, none),
        (Method::GET, "/v1beta/models", None, false, none),
        (Method::GET, "/v1beta/models/gemini-2.5-flash", None, false, none),
        (Method::GET, "/v1beta/models/veo-3/operations/op1", Some("operations/op1"), false, Makes::Results),
        (Method::GET, "/v1beta/models/veo-3/operations", None, true, none),
        (Method::POST, "/v1beta/models/veo-3:predictLongRunning", None, false, all),
        (Method::GET, "/v1beta/operations/op1", Some("operations/op1"), false, Makes::Results),
        (Method::GET, "/v1beta/files", None, true, none),
        (Method::GET, "/v1beta/files/abc", Some("files/abc"), false, none),
        (Method::GET, "/v1beta/files/a%62c", Some("files/abc"), false, none),
        (Method::DELETE, "/v1/files/abc", Some("files/abc"), false, none),
        (Method::GET, "/v1beta/files/abc:download", Some("files/abc"), false, none),
        (Method::GET, "/download/v1beta/files/abc:download", Some("files/abc"), false, none),
        (Method::POST, "/upload/v1beta/files", None, false, all),
        (Method::POST, "/v1beta/cachedContents", None, false, all),
        (Method::GET, "/v1beta/cachedContents", None, true, none),
        (Method::PATCH, "/v1beta/cachedContents/c1", Some("cachedContents/c1"), false, none),
        (Method::GET, "/v1beta1/projects/p/locations/l/cachedContents/7", Some("cachedContents/7"), false, none),
        (Method::GET, "/v1beta1/projects/p/locations/l/cachedContents", None, true, none),
        (Method::POST, "/v1beta/models/m:batchGenerateContent", None, false, all),
        (Method::GET, "/v1beta/batches", None, true, none),
        (Method::GET, "/v1beta/batches/b1", Some("batches/b1"), false, Makes::Results),
        (Method::POST, "/v1beta/batches/b1:cancel", Some("batches/b1"), false, none),
        (Method::POST, "/v1beta/interactions", None, false, Makes::UnlessNotStored),
        (Method::GET, "/v1beta/interactions/i1", Some("interactions/i1"), false, none),
        (Method::POST, "/v1beta/fileSearchStores", None, false, all),
        (Method::GET, "/v1beta/fileSearchStores/s1/documents/d1", Some("fileSearchStores/s1"), false, none),
        (Method::POST, "/v1beta/fileSearchStores/s1:importFile", Some("fileSearchStores/s1"), false, all),
        (
            Method::POST,
            "/upload/v1beta/fileSearchStores/s1:uploadToFileSearchStore",
            Some("fileSearchStores/s1"),
            false,
            all,
        ),
        (Method::POST, "/v1beta/openai/chat/completions", None, false, none),
    ] {
        let touches = touched(method.clone(), path);
        let named_by = touches.named.map(text);
        assert_eq!((named_by.as_deref(), touches.lists, touches.makes), (named, lists, makes), "{method} {path}");
    }
    assert!(touched(Method::POST, "/v1beta/models/m:countTokens").refers);
    assert!(!touched(Method::POST, "/upload/v1beta/files").refers, "it streams");
}

#[test]
fn an_address_names_an_object_however_it_is_written() {
    for (address, named) in [
        ("https://generativelanguage.googleapis.com/v1beta/files/abc", Some("files/abc")),
        ("HTTPS://GenerativeLanguage.googleapis.com:443/v1beta/files/abc", Some("files/abc")),
        ("https://x@generativelanguage.googleapis.com./v1beta/files/abc:download?alt=media", Some("files/abc")),
        ("https://generativelanguage.googleapis.com/v1beta/%66iles/a%62c", Some("files/abc")),
        ("https://generativelanguage.googleapis.com/v1beta/files%2Fabc", Some("files/abc")),
        ("https://generativelanguage.googleapis.com/v1beta/files%252Fabc", Some("nothing")),
        ("https://generativelanguage.googleapis.com/v1beta/files/x/../abc", Some("nothing")),
        ("https://generativelanguage.googleapis.com/v1beta//files/abc", Some("nothing")),
        ("https://generativelanguage.googleapis.com/v1beta/x", Some("nothing")),
        ("//generativelanguage.googleapis.com/v1beta/files/abc", Some("files/abc")),
        ("files/abc", Some("files/abc")),
        ("https://example.com/files/report.pdf", None),
        ("https://www.youtube.com/watch?v=1", None),
        ("gs://bucket/files/1", None),
        ("data:image/png;base64,AAAA", None),
    ] {
        assert_eq!(of_address(address).map(text).as_deref(), named, "{address}");
    }
}

fn called(path: &str, body: &str) -> Vec<String> {
    let (provider, endpoint) = route(&Method::POST, path, CredentialPlace::Google).unwrap();
    let call = provider.call(&endpoint, None, &Bytes::copy_from_slice(body.as_bytes())).unwrap();
    provider.references(&endpoint, Some(&call), body.as_bytes()).unwrap().into_iter().map(text).collect()
}

#[test]
fn a_call_names_what_it_refers_to_and_nothing_else() {
    const GENERATE: &str = "/v1beta/models/m:generateContent";
    const FILE: &str = "https://generativelanguage.googleapis.com/v1beta/files/abc";
    let file = |member: &str| format!(r#"{{"contents":[{{"parts":[{{"fileData":{{"{member}":"{FILE}"}}}}]}}]}}"#);
    let cache = r#"{"contents":[],"cachedContent":"cachedContents/c1"}"#.to_owned();
    let result = r#"{"contents":[{"parts":[{"functionResponse":{"name":"f","response":{"file_uri":"files/x"}}},
        {"functionCall":{"name":"f","args":{"cachedContent":"x"}}}]}],"cached_content":"cachedContents/c1"}"#;
    for (path, body, names) in [
        (GENERATE, r#"{"contents":[{"parts":[{"text":"files/abc"}]}]}"#.to_owned(), &[][..]),
        (GENERATE, file("fileUri"), &["files/abc"]),
        (GENERATE, file("file_uri"), &["files/abc"]),
        (GENERATE, file("file\\u0055ri"), &["files/abc"]),
        (GENERATE, cache.clone(), &["cachedContents/c1"]),
        (GENERATE, cache.replace("cachedContents/", "projects/p/locations/l/cachedContents/"), &["cachedContents/c1"]),
        (GENERATE, cache.replace("cachedContents/", ""), &["nothing"]),
        (GENERATE, result.to_owned(), &["cachedContents/c1"]),
        (
            GENERATE,
            r#"{"contents":[],"tools":[{"fileSearch":{"fileSearchStoreNames":["fileSearchStores/s1"]}}]}"#.to_owned(),
            &["fileSearchStores/s1"],
        ),
        (
            "/v1beta/models/m:batchGenerateContent",
            r#"{"batch":{"inputConfig":{"fileName":"files/abc"}}}"#.to_owned(),
            &["files/abc"],
        ),
        ("/v1beta/models/m:embedContent", file("fileUri").replace("contents\":[", "content\":["), &["files/abc"]),
        (
            "/v1beta/interactions",
            format!(r#"{{"model":"m","input":[{{"type":"document","uri":"{FILE}"}}],"previous_interaction_id":"i1"}}"#),
            &["files/abc", "interactions/i1"],
        ),
        (
            "/v1beta/openai/chat/completions",
            r#"{"model":"m","messages":[],"extra_body":{"google":{"cached_content":"cachedContents/c1"}}}"#.to_owned(),
            &["cachedContents/c1"],
        ),
    ] {
        assert_eq!(called(path, &body), names, "{body}");
    }
    let (provider, endpoint) =
        route(&Method::POST, "/v1beta/models/m:fetchPredictOperation", CredentialPlace::Google).unwrap();
    let body = br#"{"operationName":"projects/p/locations/l/publishers/google/models/veo/operations/op1"}"#;
    let named = provider.references(&endpoint, None, body).unwrap();
    assert_eq!(named.into_iter().map(text).collect::<Vec<_>>(), ["operations/op1"]);
    assert!(matches!(provider.references(&endpoint, None, b"{"), Err(Refusal::BadJson { .. })));
}

#[test]
fn an_answer_makes_what_it_tells_of() {
    let told = |tells: fn(&[u8], &mut Vec<Made>), message: &str| {
        let mut found = Vec::new();
        tells(message.as_bytes(), &mut found);
        found.into_iter().map(|made| made.name.to_string()).collect::<Vec<_>>()
    };
    for (message, names) in [
        (r#"{"file":{"name":"files/abc","uri":"https://x/files/abc"}}"#, &["files/abc"][..]),
        (r#"{"name":"cachedContents/c1","model":"models/m"}"#, &["cachedContents/c1"]),
        (r#"{"name":"projects/p/locations/l/cachedContents/7"}"#, &["cachedContents/7"]),
        (r#"{"name":"batches/b1","metadata":{}}"#, &["batches/b1"]),
        (r#"{"name":"models/veo-3/operations/op1"}"#, &["operations/op1"]),
        (r#"{"id":"i1","status":"completed"}"#, &["interactions/i1"]),
        (r#"{"event_type":"interaction.created","interaction":{"id":"i1"}}"#, &["interactions/i1"]),
        (r#"{"error":{"code":400}}"#, &[]),
    ] {
        assert_eq!(told(made, message), names, "{message}");
    }
    for (message, names) in [
        (r#"{"name":"batches/b1","response":{"responsesFile":"files/out-1"}}"#, &["files/out-1"][..]),
        (r#"{"metadata":{"output":{"responsesFile":"files/out-1"}}}"#, &["files/out-1"]),
        (
            r#"{"name":"models/veo/operations/op1","response":{"generateVideoResponse":{"generatedSamples":[{"video":
                {"uri":"https://generativelanguage.googleapis.com/v1beta/files/v1:download?alt=media"}}]}}}"#,
            &["files/v1"],
        ),
        (r#"{"response":{"uri":"https://example.com/files/1"}}"#, &[]),
    ] {
        assert_eq!(told(results, message), names, "{message}");
    }
}
