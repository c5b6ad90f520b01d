//! Objects that a provider keeps for all tenants in one account: each is its maker's alone.
//!
//! The scripted provider is as a real one: it gives any object to whoever names it. So what is refused has to be refused
//! before it is asked.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::support::machine::figures;
use super::support::provider::Seen;
use super::support::*;

/// What the provider tells of any object.
const CONTENT: &str = "what only its maker may read";

const RESPONSES: &str = "/v1/responses";
const GOOGLE_FILE: &str = "https://generativelanguage.googleapis.com/v1beta/";

/// A provider that makes an object at each POST, and gives whatever is asked for.
fn keeper() -> Provider {
    let made = AtomicUsize::new(1);
    Provider::start(move |seen| {
        if seen.method != "POST" {
            return Script::json(200, json!({"content": CONTENT, "id": "x"}).to_string());
        }
        answered(seen, made.fetch_add(1, Ordering::SeqCst))
    })
}

fn answered(seen: &Seen, number: usize) -> Script {
    let path = seen.target.split('?').next().unwrap_or_default();
    let usage = json!({"input_tokens": 11, "output_tokens": 7, "total_tokens": 18});
    let response = json!({"id": format!("resp_{number}"), "object": "response", "status": "completed", "model": "gpt-4.1",
        "output": [{"id": format!("msg_{number}"), "type": "message"}], "usage": usage});
    let of = |kind: &str| json!({"id": format!("{kind}{number}"), "object": kind, "content": CONTENT});
    let body = match path {
        RESPONSES if seen.json()["stream"] == true => {
            let created =
                json!({"type": "response.created", "response": {"id": format!("resp_{number}"), "output": []}});
            let completed = json!({"type": "response.completed", "response": response});
            let events = [created, completed].map(|event| format!("data: {event}\n\n").into_bytes());
            return Script::pieces("text/event-stream", &events);
        }
        RESPONSES => response,
        bodies::CHAT => {
            let mut answer: Value = serde_json::from_str(bodies::CHAT_ANSWER).unwrap();
            answer["id"] = format!("chatcmpl-{number}").into();
            answer
        }
        "/v1/files" => of("file-"),
        "/v1/batches" => of("batch_"),
        "/v1/conversations" => of("conv_"),
        "/v1/vector_stores" => of("vs_"),
        "/v1/assistants" => of("asst_"),
        "/v1/threads" => of("thread_"),
        "/v1/uploads" => of("upload_"),
        "/upload/v1beta/files" => json!({"file": {"name": format!("files/f{number}")}}),
        "/v1beta/cachedContents" => {
            json!({"name": format!("cachedContents/c{number}"), "usageMetadata": {"totalTokenCount": 9}})
        }
        "/v1beta/interactions" => {
            json!({"id": format!("i{number}"), "status": "completed", "usage": {"total_tokens": 18}})
        }
        "/v1/uploads/upload_77/complete" => json!({"id": "upload_77", "object": "upload", "file": {"id": "file-77"}}),
        "/v1beta/fileSearchStores" => json!({"name": format!("fileSearchStores/s{number}")}),
        path if path.ends_with(":batchGenerateContent") => {
            json!({"name": format!("batches/b{number}"), "metadata": {}})
        }
        path if path.ends_with(":generateContent") => serde_json::from_str(bodies::GEMINI_ANSWER).unwrap(),
        _ => json!({"content": CONTENT}),
    };
    Script::json(200, body.to_string())
}

/// A way to make an object and to have it: what makes it, the prefix of its name, and the path that `{}` names it in.
const WAYS: [(&str, &str, &str, &str); 16] = [
    (RESPONSES, r#"{"model":"gpt-4.1","input":"x"}"#, "resp_", "/v1/responses/{}"),
    (RESPONSES, r#"{"model":"gpt-4.1","input":"x","stream":true}"#, "resp_", "/v1/responses/{}/input_items"),
    (RESPONSES, r#"{"model":"gpt-4.1","input":"x","background":true}"#, "resp_", "/openai/v1/responses/{}"),
    (bodies::CHAT, r#"{"model":"gpt-4o-mini","messages":[],"store":true}"#, "chatcmpl-", "/v1/chat/completions/{}"),
    ("/v1/files", "x", "file-", "/v1/files/{}/content"),
    ("/v1/batches", r#"{"input_file_id":"{file}","endpoint":"/v1/responses"}"#, "batch_", "/v1/batches/{}"),
    ("/v1/conversations", "{}", "conv_", "/v1/conversations/{}/items"),
    ("/v1/vector_stores", r#"{"file_ids":["{file}"]}"#, "vs_", "/v1/vector_stores/{}"),
    ("/v1/assistants", r#"{"model":"gpt-4o"}"#, "asst_", "/v1/assistants/{}"),
    ("/v1/threads", "{}", "thread_", "/v1/threads/{}/messages"),
    ("/v1/uploads", "{}", "upload_", ""),
    ("/upload/v1beta/files", "x", "files/f", "/v1beta/{}"),
    ("/v1beta/cachedContents", r#"{"model":"models/gemini-2.5-flash"}"#, "cachedContents/c", "/v1beta/{}"),
    ("/v1beta/models/gemini-2.5-flash:batchGenerateContent", r#"{"batch":{}}"#, "batches/b", "/v1beta/{}"),
    ("/v1beta/interactions", r#"{"model":"gemini-2.5-flash","input":"x"}"#, "i", "/v1beta/interactions/{}"),
    ("/v1beta/fileSearchStores", "{}", "fileSearchStores/s", "/v1beta/{}"),
];

/// Calls whose body names an object, `{}`, by its prefix.
const REFERENCES: [(&str, &str, &str); 14] = [
    ("resp_", RESPONSES, r#"{"model":"gpt-4.1","input":"x","previous_response_id":"{}"}"#),
    ("resp_", "/v1/responses/input_tokens", r#"{"previous_response_id":"{}"}"#),
    ("msg_", RESPONSES, r#"{"model":"gpt-4.1","input":[{"type":"item_reference","id":"{}"}]}"#),
    ("conv_", RESPONSES, r#"{"model":"gpt-4.1","input":"x","conversation":{"id":"{}"}}"#),
    (
        "file-",
        RESPONSES,
        r#"{"model":"gpt-4.1","input":[{"role":"user","content":[{"type":"input_file","file_id":"{}"}]}]}"#,
    ),
    (
        "file-",
        bodies::CHAT,
        r#"{"model":"gpt-4o","messages":[{"role":"user","content":[{"type":"file","file":{"file\u005fid":"{}"}}]}]}"#,
    ),
    ("vs_", RESPONSES, r#"{"model":"gpt-4.1","input":"x","tools":[{"type":"file_search","vector_store_ids":["{}"]}]}"#),
    ("file-", "/v1/batches", r#"{"input_file_id":"{}","endpoint":"/v1/responses"}"#),
    ("file-", "/v1/threads", r#"{"tool_resources":{"code_interpreter":{"file_ids":["{}"]}}}"#),
    ("file-", "/v1/vector_stores", r#"{"file_ids":["{}"]}"#),
    ("files/f", bodies::GEMINI, r#"{"contents":[{"parts":[{"fileData":{"fileUri":"{google}{}"}}]}]}"#),
    ("cachedContents/c", bodies::GEMINI, r#"{"contents":[],"cachedContent":"{}"}"#),
    (
        "files/f",
        "/v1beta/models/gemini-2.5-flash:countTokens",
        r#"{"contents":[{"parts":[{"fileData":{"fileUri":"{}"}}]}]}"#,
    ),
    ("i", "/v1beta/interactions", r#"{"model":"gemini-2.5-flash","input":"x","previous_interaction_id":"{}"}"#),
];

fn is_google(target: &str) -> bool {
    target.starts_with("/v1beta/") || target.starts_with("/upload/")
}

fn with_key(request: Request, key: &str) -> Request {
    if is_google(&request.target) { request.google(key) } else { request.bearer(key) }
}

/// What was made through `gateway` by `key`, by the prefixes of its names.
fn make_all(gateway: &Gateway, key: &str) -> Vec<(&'static str, String)> {
    let mut made: Vec<(&'static str, String)> = vec![];
    for (target, body, prefix, _) in [WAYS[4]].into_iter().chain(WAYS) {
        let file = made.iter().find(|(prefix, _)| *prefix == "file-").map_or("", |(_, name)| name);
        let answer = gateway.send(&with_key(Request::post(target, body.replace("{file}", file)), key));
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        let text = answer.text();
        let is_name = |part: &&str| part.strip_prefix(prefix).is_some_and(|rest| rest.parse::<usize>().is_ok());
        let name = text.split('"').find(is_name).unwrap_or_else(|| panic!("{target}: {text}")).to_owned();
        if prefix == "resp_" {
            made.push(("msg_", name.replace("resp_", "msg_")));
        }
        made.push((prefix, name));
    }
    made
}

/// Demands that a request is refused with 404 in its provider's words, that nothing was asked of the provider, and gives the
/// words without the name.
fn demand_404(provider: &Provider, gateway: &Gateway, request: &Request, name: &str) -> String {
    let known = provider.count();
    let answer = gateway.send(request);
    let error = &answer.json()["error"];
    assert_eq!((answer.status, provider.count()), (404, known), "{}: {}", request.target, answer.text());
    let code = if is_google(&request.target) { &error["status"] } else { &error["code"] };
    assert!(*code == "NOT_FOUND" || *code == "unknown_object", "{}", answer.text());
    assert!(!answer.text().contains(CONTENT), "{}", answer.text());
    answer.text().replace(name, "NAME")
}

#[test]
fn an_object_is_its_makers_alone_wherever_it_is_named() {
    let provider = keeper();
    let gateway = keep_apart(Setup::new(&provider)).prod().start();
    let (acme, globex) = (gateway.issue("acme", "pro"), gateway.issue("globex", "pro"));
    let made = make_all(&gateway, &globex);
    let mut tried = 0;
    for ((_, _, prefix, place), (_, name)) in
        WAYS.iter().zip(made.iter().filter(|(prefix, _)| *prefix != "msg_").skip(1))
    {
        if place.is_empty() {
            continue;
        }
        assert!(name.starts_with(prefix), "{name}");
        let is_only_read = place.ends_with("input_items") || *place == "/v1/batches/{}";
        for method in if is_only_read { &["GET"][..] } else { &["GET", "DELETE"] } {
            let ask = |name: &str| Request::get(place.replace("{}", name)).method(method);
            let refused = demand_404(&provider, &gateway, &with_key(ask(name), &acme), name);
            // As it is said of one that there is not.
            let none = name.replace(|c: char| c.is_ascii_digit(), "0");
            assert_eq!(demand_404(&provider, &gateway, &with_key(ask(&none), &acme), &none), refused, "{place}");
            tried += 2;
            if *method == "GET" {
                let answer = gateway.send(&with_key(ask(name), &globex));
                assert!(answer.status == 200 && answer.text().contains(CONTENT), "{name}: {}", answer.text());
            }
        }
    }
    for (prefix, target, body) in REFERENCES {
        let name = &made.iter().find(|(of, _)| *of == prefix).unwrap_or_else(|| panic!("{prefix}")).1;
        let body = body.replace("{google}", GOOGLE_FILE).replace("{}", name);
        let ask = || Request::post(target, body.clone());
        demand_404(&provider, &gateway, &with_key(ask(), &acme), name);
        tried += 1;
        let known = provider.count();
        let answer = gateway.send(&with_key(ask(), &globex));
        assert_eq!((answer.status, provider.count()), (200, known + 1), "{target} {body}: {}", answer.text());
        assert_eq!(String::from_utf8(provider.last().body).unwrap(), body, "it goes on as it came");
    }
    assert_eq!(gateway.usage(&acme).calls(), 0, "what was refused was no call");
    figures(&format!(
        "isolation: {tried} requests for another tenant's responses, files, batches and caches, by path and by body: 0 reached the provider"
    ));
}

/// With what tenants keep apart by default.
fn keep_apart(setup: Setup) -> Setup {
    setup.unset("TOLLGATE_UNKNOWN_OBJECTS").unset("TOLLGATE_OBJECT_LISTS")
}

#[test]
fn what_is_not_stored_makes_no_object_and_what_is_coded_is_read() {
    let provider = keeper();
    let gateway = keep_apart(Setup::new(&provider)).prod().start();
    let key = gateway.issue("acme", "pro");
    for (target, body) in [
        (RESPONSES, r#"{"model":"gpt-4.1","input":"x","store":false}"#),
        (bodies::CHAT, bodies::CHAT_REQUEST),
        ("/v1beta/interactions", r#"{"model":"gemini-2.5-flash","input":"x","store":false}"#),
    ] {
        assert_eq!(gateway.send(&with_key(Request::post(target, body), &key)).status, 200);
    }
    for name in ["/v1/responses/resp_1", "/v1/chat/completions/chatcmpl-2", "/v1beta/interactions/i3"] {
        assert_eq!(gateway.send(&with_key(Request::get(name), &key)).status, 404, "{name}");
    }
    let coded = Request::post("/v1/conversations", "{}").bearer(&key).header("Content-Encoding", "gzip");
    let known = provider.count();
    assert_eq!((gateway.send(&coded).status, provider.count()), (415, known), "what cannot be read goes nowhere");
    // Whatever coding its client takes, an answer that makes an object is asked for in one that is read.
    let odd = Request::post("/v1/files", "x").bearer(&key).header("Accept-Encoding", "br, zstd");
    assert_eq!(gateway.send(&odd).status, 200);
    let asked = provider.last().header("accept-encoding").unwrap_or_default().to_owned();
    assert!(!asked.contains("br") && !asked.contains("zstd"), "{asked}");
    assert_eq!(gateway.send(&Request::get("/v1/files/file-4").bearer(&key)).status, 200);
}

#[test]
fn lists_of_everybodys_objects_are_refused_unless_they_are_allowed() {
    let provider = keeper();
    // By default the mode says which. In dev a tenant's key is its name.
    let refusing = [
        keep_apart(Setup::new(&provider)).prod().start(),
        keep_apart(Setup::new(&provider)).set("TOLLGATE_OBJECT_LISTS", "refuse").start(),
    ];
    let allowing = [
        keep_apart(Setup::new(&provider)).prod().set("TOLLGATE_OBJECT_LISTS", "allow").start(),
        keep_apart(Setup::new(&provider)).start(),
    ];
    let with_keys = |[prod, dev]: [Gateway; 2]| [(prod.issue("acme", "pro"), prod), ("acme".to_owned(), dev)];
    let (refusing, allowing) = (with_keys(refusing), with_keys(allowing));
    for list in [
        "/v1/files",
        "/v1/batches?limit=10",
        "/v1/vector_stores",
        "/v1/assistants",
        "/v1/chat/completions",
        "/v1beta/files",
        "/v1beta/cachedContents?pageSize=5",
        "/v1beta/batches",
        "/v1beta/fileSearchStores",
        "/v1beta/operations",
    ] {
        for (key, gateway) in &refusing {
            let known = provider.count();
            let refused = gateway.send(&with_key(Request::get(list), key));
            assert_eq!((refused.status, provider.count()), (403, known), "{list}: {}", refused.text());
            assert!(refused.text().contains("isolation.lists"), "{}", refused.text());
        }
        for (key, gateway) in &allowing {
            let known = provider.count();
            let passed = gateway.send(&with_key(Request::get(list), key));
            assert_eq!((passed.status, provider.count()), (200, known + 1), "{list}: {}", passed.text());
        }
    }
    for free in ["/v1/models", "/v1beta/models"] {
        for (key, gateway) in &refusing {
            assert_eq!(gateway.send(&with_key(Request::get(free), key)).status, 200, "{free} is everybody's");
        }
    }
}

#[test]
fn what_was_made_elsewhere_goes_on_only_if_that_is_allowed_and_anothers_never() {
    let provider = keeper();
    let first = keep_apart(Setup::new(&provider)).prod().start();
    let (acme, globex) = (first.issue("acme", "pro"), first.issue("globex", "pro"));
    assert_eq!(first.send(&Request::post("/v1/files", "x").bearer(&globex)).status, 200);
    let file = Request::get("/v1/files/file-1/content");
    demand_404(&provider, &first, &Request::get("/v1/files/file-9").bearer(&acme), "file-9");
    // The next start knows it from the ledger.
    let second = keep_apart(Setup::new(&provider)).prod().set("TOLLGATE_UNKNOWN_OBJECTS", "allow").on_ledger_of(&first);
    drop(first);
    let second = second.start();
    assert_eq!(second.send(&Request::get("/v1/files/file-9").bearer(&acme)).status, 200);
    assert_eq!(second.send(&Request { headers: Vec::new(), ..file.clone() }.bearer(&globex)).status, 200);
    demand_404(&provider, &second, &file.bearer(&acme), "file-1");
    // What is nobody's does not become the first one's who asks for it; what its answer makes does.
    let upload = |end: &str| Request::post(format!("/v1/uploads/upload_77/{end}"), "{}");
    assert_eq!(second.send(&upload("complete").bearer(&acme)).status, 200);
    assert_eq!(second.send(&upload("cancel").bearer(&globex)).status, 200);
    demand_404(&provider, &second, &Request::get("/v1/files/file-77").bearer(&globex), "file-77");
}

/// A form of one field.
fn form(target: &str, field: &str, value: &str) -> Request {
    let body = format!("--x\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n--x--\r\n");
    as_a(Request::post(target, body), "multipart/form-data; boundary=x")
}

/// The same request, which says that its body is of another type.
fn as_a(request: Request, content_type: &str) -> Request {
    Request { headers: Vec::new(), ..request }.header("Content-Type", content_type)
}

#[test]
fn a_body_is_looked_through_whatever_it_is_said_to_be() {
    let provider = keeper();
    let gateway = keep_apart(Setup::new(&provider)).prod().start();
    let (acme, globex) = (gateway.issue("acme", "pro"), gateway.issue("globex", "pro"));
    let sent = |request: Request, key: &str| {
        let known = provider.count();
        let answer = gateway.send(&with_key(request, key));
        (answer.status, provider.count() - known)
    };
    assert_eq!(sent(form("/v1/files", "file", "x"), &globex), (200, 1));
    assert_eq!(sent(Request::post("/v1/uploads", "{}"), &acme), (200, 1));
    const STORES: &str = "/v1/vector_stores";
    const EDITS: &str = "/v1/images/edits";
    let named = || Request::post(STORES, r#"{"file_ids":["file-1"]}"#);
    let edit = || Request::post(EDITS, r#"{"model":"gpt-image-1","prompt":"x","images":[{"file_id":"file-1"}]}"#);
    assert_eq!((sent(named(), &acme), sent(edit(), &acme)), ((404, 0), (404, 0)));
    for (request, status) in [
        (as_a(named(), "multipart/form-data; boundary=x"), 415),
        (as_a(named(), "Multipart/Form-Data"), 415),
        (as_a(named(), "application/x-www-form-urlencoded"), 415),
        (form(STORES, "file_ids[]", "file-1"), 415),
        (as_a(named(), "multipart/form-data; boundary=x").header("Connection", "content-type"), 400),
        (as_a(edit(), "multipart/form-data; boundary=x"), 400),
        (as_a(edit(), "multipart/form-data; boundary=x").header("Connection", "close, Content-Type"), 400),
        (as_a(edit(), "multipart/related; boundary=x"), 400),
        (form(EDITS, "images[0][file_id]", "file-1"), 400),
        (as_a(named(), "application/json; charset=utf-16"), 415),
        (as_a(Request::post(bodies::CHAT, bodies::CHAT_REQUEST), "application/json; charset=utf-7"), 415),
        (as_a(Request::post(bodies::GEMINI, bodies::GEMINI_REQUEST), "application/x-protobuf"), 415),
        (as_a(Request::post(bodies::CHAT, bodies::CHAT_REQUEST), "application/x-www-form-urlencoded"), 415),
        (as_a(Request::post(bodies::GEMINI, bodies::GEMINI_REQUEST), "application/x-www-form-urlencoded"), 415),
    ] {
        let said = format!("{} {:?}", request.target, request.headers);
        assert_eq!(sent(request, &acme), (status, 0), "{said}");
    }
    // What clients send.
    let empty = Request { body: Some(Vec::new()), ..Request::post("/v1/uploads/upload_2/cancel", "") };
    for request in [
        form("/v1/uploads/upload_2/parts", "data", r#"{"file_ids":["file-1"]}"#),
        form(EDITS, "model", "gpt-image-1"),
        as_a(empty, "application/x-www-form-urlencoded"),
        Request::post(bodies::CHAT, bodies::CHAT_REQUEST)
            .header("Connection", "keep-alive, te")
            .header("TE", "trailers"),
    ] {
        let said = format!("{} {:?}", request.target, request.headers);
        assert_eq!(sent(request, &acme), (200, 1), "{said}");
    }
}

#[test]
fn no_reference_goes_unseen_because_of_what_stands_around_it() {
    let provider = keeper();
    let gateway = keep_apart(Setup::new(&provider)).prod().start();
    let (acme, globex) = (gateway.issue("acme", "pro"), gateway.issue("globex", "pro"));
    let made = make_all(&gateway, &globex);
    for (prefix, target, body) in [
        (
            "fileSearchStores/s",
            bodies::GEMINI,
            r#"{"contents":[],"tools":{"fileSearch":{"fileSearchStoreNames":["{}"]}}}"#,
        ),
        ("i", "/v1beta/interactions", r#"{"model":"gemini-2.5-flash","input":"x","previousInteractionId":"{}"}"#),
        (
            "msg_",
            RESPONSES,
            r#"{"model":"gpt-4.1","input":[{"type":"item_reference","id":"{}","encrypted_content":"x"}]}"#,
        ),
        (
            "files/f",
            "/v1beta/openai/chat/completions",
            r#"{"model":"gemini-2.5-flash","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"{google}{}"}}]}]}"#,
        ),
    ] {
        let name = &made.iter().find(|(of, _)| *of == prefix).unwrap_or_else(|| panic!("{prefix}")).1;
        let body = body.replace("{google}", GOOGLE_FILE).replace("{}", name);
        let ask = |key: &str| with_key(Request::post(target, body.clone()), key);
        let known = provider.count();
        let refused = gateway.send(&ask(&acme));
        assert_eq!((refused.status, provider.count()), (404, known), "{body}: {}", refused.text());
        gateway.send(&ask(&globex));
        assert_eq!(provider.count(), known + 1, "{body}");
    }
}

/// A provider of files whose names clients choose: `files/report` is there from one upload to the next.
fn library() -> Provider {
    let made = AtomicUsize::new(0);
    Provider::start(move |seen| {
        let batch = json!({"name": "batches/b1", "metadata": {"output": {"inlinedResponses": {"inlinedResponses": [
            {"metadata": {"responsesFile": "files/plan", "uri": format!("{GOOGLE_FILE}files/plan")}}]}}}, "done": true});
        let body = match (seen.method.as_str(), seen.target.split('?').next().unwrap_or_default()) {
            ("POST", "/upload/v1beta/files") => {
                // The end of an upload that is over may be asked for again.
                let again = seen.header("x-goog-upload-offset").and_then(|offset| offset.parse().ok());
                let number = again.unwrap_or_else(|| made.fetch_add(1, Ordering::SeqCst));
                json!({"file": {"name": "files/report", "createTime": format!("2026-11-24T10:00:{number:02}.25Z")}})
            }
            ("POST", _) => json!({"name": "batches/b1", "metadata": {}}),
            ("DELETE", _) => json!({}),
            (_, "/v1beta/batches/b1") => batch,
            _ => json!({"content": CONTENT}),
        };
        Script::json(200, body.to_string())
    })
}

#[test]
fn a_name_that_clients_choose_is_its_last_makers() {
    let provider = library();
    let gateway = keep_apart(Setup::new(&provider)).prod().start();
    let (acme, globex) = (gateway.issue("acme", "pro"), gateway.issue("globex", "pro"));
    let upload = || Request::post("/upload/v1beta/files", "x");
    let file = || Request::get("/v1beta/files/report");
    let is_of = |owner: &str, stranger: &str| {
        assert_eq!(gateway.send(&file().google(owner)).status, 200);
        demand_404(&provider, &gateway, &file().google(stranger), "report");
    };
    assert_eq!(gateway.send(&upload().google(&globex)).status, 200);
    is_of(&globex, &acme);
    // Its time is over, and the name is free.
    assert_eq!(gateway.send(&upload().google(&acme)).status, 200);
    is_of(&acme, &globex);
    // What the first upload said is told again.
    assert_eq!(gateway.send(&upload().header("X-Goog-Upload-Offset", "0").google(&globex)).status, 200);
    is_of(&acme, &globex);
    assert_eq!(gateway.send(&file().method("DELETE").google(&acme)).status, 200);
    for key in [&acme, &globex] {
        demand_404(&provider, &gateway, &file().google(key), "report");
    }
}

#[test]
fn what_an_answer_repeats_of_a_client_makes_nothing_its_own() {
    let provider = library();
    let gateway = keep_apart(Setup::new(&provider)).prod().start();
    let globex = gateway.issue("globex", "pro");
    let batch = Request::post("/v1beta/models/gemini-2.5-flash:batchGenerateContent", r#"{"batch":{}}"#);
    assert_eq!(gateway.send(&batch.google(&globex)).status, 200);
    assert_eq!(gateway.send(&Request::get("/v1beta/batches/b1").google(&globex)).status, 200);
    demand_404(&provider, &gateway, &Request::get("/v1beta/files/plan").google(&globex), "plan");
}
