//! Resumable uploads: begun with a key, carried on by an address that leads through the gateway and nowhere else.

use super::support::gateway::GEMINI_KEY;
use super::support::*;

const FILES: &str = "/upload/v1beta/files";
const BEGUN: &str = "upload_id=AbC-_9&upload_protocol=resumable";
const FILE: &str = r#"{"file":{"name":"files/1"}}"#;

/// Gemini as recorded: a begin is answered with an address of Google's, the last piece with the file.
fn storage() -> Provider {
    Provider::start(|seen| match seen.header("x-goog-upload-command") {
        Some("start") => {
            let address = format!("https://generativelanguage.googleapis.com{FILES}?{BEGUN}");
            let headers =
                [("X-Goog-Upload-URL", address.as_str()), ("Location", &address), ("X-Goog-Upload-Status", "active")];
            Script::answer(200, &headers, "")
        }
        Some("upload, finalize") => Script::answer(200, &[("X-Goog-Upload-Status", "final")], FILE),
        Some("cancel") => Script::answer(200, &[("X-Goog-Upload-Status", "cancelled")], ""),
        _ => Script::answer(200, &[("X-Goog-Upload-Status", "active"), ("X-Goog-Upload-Size-Received", "3")], ""),
    })
}

fn begin(key: &str, bytes: usize) -> Request {
    Request::post(FILES, r#"{"file":{"display_name":"a"}}"#)
        .google(key)
        .header("X-Goog-Upload-Protocol", "resumable")
        .header("X-Goog-Upload-Command", "start")
        .header("X-Goog-Upload-Header-Content-Length", bytes.to_string())
}

/// Begins an upload and gives the path and query of its address.
fn begun(gateway: &Gateway, key: &str) -> String {
    let answer = gateway.send(&begin(key, 6));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let address = answer.header("x-goog-upload-url").expect("an address");
    let at = address.find(FILES).unwrap_or_else(|| panic!("{address}"));
    address[at..].to_owned()
}

fn piece(target: &str, command: &str, body: impl Into<Vec<u8>>) -> Request {
    Request::post(target, body).header("X-Goog-Upload-Command", command).header("X-Goog-Upload-Offset", "0")
}

fn demand_401(answer: &Answer, why: &str) {
    let error = &answer.json()["error"];
    let said = (answer.status, &error["code"], &error["status"], &error["details"][0]["reason"]);
    assert_eq!(said, (401, &401.into(), &"UNAUTHENTICATED".into(), &"INVALID_UPLOAD".into()), "{why}");
}

#[test]
fn an_upload_goes_through_the_gateway_from_its_begin_to_its_end() {
    let provider = storage();
    let gateway = Setup::new(&provider).prod().start();
    let key = gateway.issue("acme", "starter");
    for (prefix, scheme) in [("", "http"), ("/gemini", "https")] {
        let request = begin(&key, 6).to(format!("{prefix}{FILES}")).header("X-Forwarded-Proto", scheme);
        let answer = gateway.send(&request);
        let address = answer.header("x-goog-upload-url").expect("an address");
        let leads = format!("{scheme}://gateway.test{prefix}{FILES}?{BEGUN}&tollgate_upload=");
        assert!(address.starts_with(&leads), "{address}");
        assert_eq!(answer.header("location").as_ref(), Some(&address));
        let told = format!("{:?}", answer.headers);
        assert!(!told.contains("googleapis") && !told.contains(GEMINI_KEY) && !told.contains(&key), "{told}");

        let target = address.strip_prefix(&format!("{scheme}://gateway.test")).unwrap();
        for (command, body) in [("upload", "abc"), ("query", ""), ("upload, finalize", "def"), ("cancel", "")] {
            let answer = gateway.send(&piece(target, command, body));
            assert_eq!(answer.status, 200, "{command}: {}", answer.text());
            assert!(answer.header("x-goog-upload-status").is_some() && answer.header("ratelimit").is_some());
            let seen = provider.last();
            assert_eq!((seen.target, seen.body.as_slice()), (format!("{FILES}?{BEGUN}"), body.as_bytes()));
            let sent =
                |name: &str| seen.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
            assert_eq!((sent("x-goog-api-key"), sent("x-goog-upload-command")), (Some(GEMINI_KEY), Some(command)));
        }
        assert_eq!(gateway.send(&piece(target, "upload, finalize", "def")).text(), FILE);
        // With the key as well, as some clients do.
        assert_eq!(gateway.send(&piece(target, "query", "").google(&key)).status, 200);
    }
    assert_eq!(gateway.usage(&key).calls(), 0, "uploads are free");
}

#[test]
fn an_address_that_is_not_the_callers_is_refused_before_anything_goes_on() {
    let provider = storage();
    let gateway = Setup::new(&provider).prod().start();
    let (acme, other) = (gateway.issue("acme", "starter"), gateway.issue("other", "starter"));
    let address = begun(&gateway, &acme);
    let known = provider.count();
    let of_other = address.replace(".acme.", ".other.");
    assert_ne!(of_other, address);
    let plain = format!("{FILES}?{BEGUN}");
    let foreign = address.replace("AbC-_9", "AbC-_8");
    for (why, request) in [
        ("no signature", piece(&plain, "upload, finalize", "abc")),
        ("no signature, with a key", piece(&plain, "upload, finalize", "abc").google(&acme)),
        ("no address at all", piece(FILES, "upload", "abc").google(&acme)),
        ("another tenant in it", piece(&of_other, "upload", "abc")),
        ("another upload", piece(&foreign, "upload", "abc")),
        ("another tenant's key beside it", piece(&address, "upload", "abc").google(&other)),
        ("nonsense", piece(&format!("{plain}&tollgate_upload=x"), "query", "")),
    ] {
        let answer = gateway.send(&request);
        if why == "no signature" {
            assert_eq!(
                (answer.status, &answer.json()["error"]["details"][0]["reason"]),
                (401, &"MISSING_API_KEY".into())
            );
        } else {
            demand_401(&answer, why);
        }
    }
    // The address opens nothing else.
    let (_, query) = address.split_once('?').unwrap();
    for target in [format!("{}?{query}", bodies::GEMINI), format!("/v1beta/files?{query}")] {
        assert_eq!(gateway.send(&Request::post(target, bodies::GEMINI_REQUEST)).status / 100, 4);
    }
    assert_eq!(provider.count(), known, "nothing of these was forwarded");
    // It ends with the key that began it.
    let id = gateway.admin(Request::get("/admin/tenants/acme/keys")).json();
    let id = id["keys"][0]["id"].as_str().unwrap_or_else(|| panic!("{id}")).to_owned();
    assert_eq!(gateway.send(&piece(&address, "query", "")).status, 200);
    let gone = gateway.admin(Request::get(format!("/admin/tenants/acme/keys/{id}")).method("DELETE"));
    assert_eq!(gone.status / 100, 2, "{}", gone.text());
    demand_401(&gateway.send(&piece(&address, "query", "")), "a revoked key");
}

#[test]
fn another_node_takes_an_upload_on() {
    let provider = storage();
    let first = Setup::new(&provider).set("TOLLGATE_PUBLIC_URL", "https://llm.example.com").start();
    let answer = first.send(&begin("acme", 6));
    let address = answer.header("x-goog-upload-url").expect("an address");
    let target = address.strip_prefix("https://llm.example.com").unwrap_or_else(|| panic!("{address}")).to_owned();
    // It shares no more than the provider's key, and knows the tenant.
    let second = Setup::new(&provider).start();
    demand_401(&second.send(&piece(&target, "query", "")), "a tenant that is not there");
    assert_eq!(second.usage("acme").calls(), 0);
    assert_eq!(second.send(&piece(&target, "upload, finalize", "abcdef")).text(), FILE);
    let third = Setup::new(&provider).set("GEMINI_API_KEY", "AIzaOfAnotherAccount").start();
    assert_eq!(third.usage("acme").calls(), 0);
    demand_401(&third.send(&piece(&target, "query", "")), "another account at the provider");
}

#[test]
fn a_large_piece_streams_and_an_upload_over_the_limit_is_refused() {
    const LIMIT: usize = 48 << 20;
    let provider = storage();
    let limit = LIMIT.to_string();
    let gateway = Setup::new(&provider).set("TOLLGATE_BODY_LIMIT", "1MiB").set("TOLLGATE_UPLOAD_LIMIT", &limit).start();
    let address = begun(&gateway, "acme");
    let before = gateway.memory_kib();
    let body: Vec<u8> = (0..LIMIT).map(|at| u8::try_from(at % 251).unwrap()).collect();
    assert_eq!(gateway.send(&piece(&address, "upload, finalize", body.clone())).text(), FILE);
    assert!(provider.last().body == body, "the piece arrives as it was sent");
    let grown = gateway.memory_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more");
    let known = provider.count();
    let over = piece(&address, "upload", "abc");
    let offset = ("X-Goog-Upload-Offset".to_owned(), (LIMIT - 2).to_string());
    let headers = over.headers.iter().filter(|(name, _)| *name != offset.0).cloned().chain([offset.clone()]).collect();
    assert_eq!(gateway.send(&Request { headers, ..over }).status, 413);
    assert_eq!(gateway.send(&begin("acme", LIMIT + 1)).status, 413);
    assert_eq!(provider.count(), known);
}
