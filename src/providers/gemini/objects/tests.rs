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
        (Method::POST, "/upload/v1beta/files", None, false, Makes::Chosen),
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
    const COMPATIBLE: &str = "/v1beta/openai/chat/completions";
    let image = |url: &str| {
        let part = format!(r#"{{"type":"image_url","image_url":{{"url":"{url}","detail":"low"}}}}"#);
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":[{part}]}}]}}"#)
    };
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
            GENERATE,
            r#"{"contents":[],"tools":{"fileSearch":{"fileSearchStoreNames":"fileSearchStores/s1"}}}"#.to_owned(),
            &["fileSearchStores/s1"],
        ),
        (
            "/v1beta/interactions",
            r#"{"model":"m","input":"x","previousInteractionId":"i1"}"#.to_owned(),
            &["interactions/i1"],
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
        (COMPATIBLE, image(FILE), &["files/abc"]),
        (COMPATIBLE, image(&FILE.replace("https:/", "HTTPS:")), &["files/abc"]),
        (COMPATIBLE, image(&format!(" {FILE}")), &["files/abc"]),
        (COMPATIBLE, image("files/abc"), &["files/abc"]),
        (COMPATIBLE, image("https://generativelanguage.googleapis.com/v1beta/x"), &["nothing"]),
        (COMPATIBLE, image("https://example.com/files/abc"), &[]),
        (COMPATIBLE, image("data:image/png;base64,AAAA/files/abc"), &[]),
        (COMPATIBLE, image("iVBORw0KGgo/AAAA=="), &[]),
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
        (r#"{"response":{"uri":"https://generativelanguage.googleapis.com/v1beta/files/1"}}"#, &[]),
        (r#"{"metadata":{"uri":"files/1","output":{"metadata":{"responsesFile":"files/1"}}}}"#, &[]),
        (
            r#"{"metadata":{"output":{"inlinedResponses":{"inlinedResponses":[{"metadata":{"responsesFile":"files/1",
                "uri":"https://generativelanguage.googleapis.com/v1beta/files/1"}}]}}}}"#,
            &[],
        ),
        (r#"{"response":{"responsesFile":"cachedContents/1"}}"#, &[]),
    ] {
        assert_eq!(told(results, message), names, "{message}");
    }
    let uploads = [
        (r#"{"file":{"name":"files/a","createTime":"2026-11-24T10:00:00.5Z"}}"#, &["files/a"][..]),
        (r#"{"name":"files/a","id":"i1"}"#, &[]),
        (r#"{"file":{"displayName":"files/a"}}"#, &[]),
    ];
    for (message, names) in uploads {
        assert_eq!(told(uploaded, message), names, "{message}");
    }
    let mut found = Vec::new();
    uploaded(uploads[0].0.as_bytes(), &mut found);
    uploaded(br#"{"file":{"name":"files/a"}}"#, &mut found);
    let chosen: Vec<_> = found.iter().map(|made| made.chosen).collect();
    assert_eq!(chosen, ["2026-11-24T10:00:00.5Z".parse().ok(), None]);
}

#[test]
fn no_name_is_hidden_from_the_quick_look_at_a_call() {
    for member in InGemini::MEMBERS {
        let object = if member.contains("nteraction") { "i1" } else { "files/abc" };
        for colon in [":", "\t: "] {
            for place in ["contents", "tools", "toolConfig", "someNewSetting"] {
                let body = format!(r#"{{"model":"m","{place}":{{"x":[{{"{member}"{colon}"{object}"}}]}}}}"#);
                for path in [
                    "/v1beta/models/m:generateContent",
                    "/v1beta/models/m:embedContent",
                    "/v1beta/interactions",
                    "/v1beta/cachedContents",
                    "/v1beta/openai/chat/completions",
                ] {
                    assert_eq!(called(path, &body).len(), 1, "{path} {body}");
                }
            }
        }
    }
}

#[test]
fn messages_of_sessions_name_objects() {
    let path = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent";
    let (provider, endpoint) = route(&Method::GET, path, CredentialPlace::Google).unwrap();
    let session = provider.session(&endpoint, None).unwrap();
    for (message, names) in [
        (r#"{"clientContent":{"turns":[{"parts":[{"fileData":{"fileUri":"files/abc"}}]}]}}"#, &["files/abc"][..]),
        (
            r#"{"setup":{"tools":{"fileSearch":{"file_search_store_names":["fileSearchStores/s"]}}}}"#,
            &["fileSearchStores/s"],
        ),
        (r#"{"setup":{"cachedContent":"c"}}"#, &["nothing"]),
        (r#"{"realtimeInput":{"audio":{"data":"AAAA","mimeType":"audio/pcm"}}}"#, &[]),
        (r#"{"toolResponse":{"functionResponses":[{"response":{"uri":"files/abc"}}]}}"#, &[]),
        ("no JSON", &[]),
    ] {
        let named = session.names(message.as_bytes()).unwrap();
        assert_eq!(named.into_iter().map(text).collect::<Vec<_>>(), names, "{message}");
    }
}
