//! Plants secrets and prompts wherever one can be, makes calls of every kind, good, failing and malformed, at the most
//! talkative log level, and looks for them everywhere afterwards: in the log, in answers, metrics, the ledger, the journal,
//! Redis, and in the memory of the process.
//!
//! What each kind of thing is held to:
//!
//! - Nothing that was planted is in a log line, a metric, a table, a journal, a key or value of Redis, or in an answer to
//!   somebody to whom it does not belong. Ids of users are kept by design, and are not planted as secrets.
//! - Of keys of tenants and the admin's, the gateway keeps hashes; of prompts and completions nothing. Memory that was given
//!   back to the allocator is not overwritten, since the buffers of the HTTP libraries are theirs: what is left of a call
//!   there goes when its room is used again. What the gateway holds itself it overwrites: the credential of a call, the
//!   bytes of a connection. So what is demanded of memory is that the rest is such a residue and no store: after
//!   [`CALLS_MORE`] further calls with one key and one prompt fewer copies than [`COPIES_MAX`] of any of them. Copies are
//!   counted and printed.
//! - Keys for providers and master keys are in memory by need, wrapped. They too are counted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::machine::{figures, tell as tell_row, until};
use super::support::postgres::Database;
use super::support::redis::{RedisServer, Reply};
use super::support::websocket::{self, handshake};
use super::support::*;

mod places;

use places::{in_memory, in_postgres, in_redis};

/// What was planted, by what it is.
#[derive(Default)]
struct Planted(BTreeMap<String, Vec<u8>>);

/// What was found: where, what.
type Found = Vec<(String, String)>;

impl Planted {
    fn plant(&mut self, what: &str, value: impl AsRef<[u8]>) {
        assert!(value.as_ref().len() >= 12, "{what} would be found by chance");
        self.0.insert(what.to_owned(), value.as_ref().to_vec());
    }

    /// A word that stands nowhere else.
    fn word(&mut self, what: &str) -> String {
        let crc = crc32fast::hash(what.as_bytes());
        let word = format!("planted-{}-{crc:08x}-{:08x}", what.replace(' ', "-"), crc.wrapping_mul(2_654_435_761));
        self.plant(what, &word);
        word
    }

    /// Those of them that are in `bytes`, as they are, in hexadecimal, or as JSON writes them.
    fn found(&self, place: &str, bytes: &[u8], found: &mut Found) {
        for (what, value) in &self.0 {
            let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
            let is_there = |needle: &[u8]| memchr::memmem::find(bytes, needle).is_some();
            if is_there(value) || is_there(hex.as_bytes()) || is_there(hex.to_uppercase().as_bytes()) {
                found.push((place.to_owned(), what.clone()));
            }
        }
    }

    /// The same without those whose name begins so.
    fn without(&self, beginnings: &[&str]) -> Self {
        let kept = self.0.iter().filter(|(what, _)| !beginnings.iter().any(|begin| what.starts_with(begin)));
        Self(kept.map(|(what, value)| (what.clone(), value.clone())).collect())
    }
}

/// Secrets in files, as an orchestrator mounts them: then the environment of the process has none.
struct Files(tempfile::TempDir);

impl Files {
    fn set(&self, setup: Setup, variable: &str, secret: &str) -> Setup {
        let path = self.0.path().join(variable);
        std::fs::write(&path, secret).unwrap();
        setup.unset(variable).set(&format!("{variable}_FILE"), path.to_str().unwrap())
    }
}

/// A stand of one gateway, and everything that was planted.
struct Stand {
    planted: Planted,
    gateway: Gateway,
    provider: Provider,
    files: Files,
    /// Answers of the gateway's own, whole, to whoever asked.
    answers: Vec<Vec<u8>>,
    keys: BTreeMap<&'static str, String>,
}

/// Calls with the same key and prompt: were any of it kept for each, there would be so many copies.
const CALLS_MORE: usize = 200;

/// Copies in room that was given back, of any key or prompt: the most that was found is 10.
const COPIES_MAX: usize = 64;

const MASTER: &str = "5d0c3f1ab79e48260c6f17c2d4e8b3915d0c3f1ab79e48260c6f17c2d4e8b391";

impl Stand {
    fn start(scaled: Option<(&Database, &RedisServer)>) -> Self {
        let mut planted = Planted::default();
        let completion = planted.word("completion");
        let arguments = planted.word("arguments of a tool in an answer");
        let told = planted.word("words of a failing provider");
        let provider = Provider::start(move |seen| answer(seen, &completion, &arguments, &told));
        let files = Files(tempfile::TempDir::new().unwrap());
        let mut setup = Setup::new(&provider).prod().set("RUST_LOG", "trace").set("TOLLGATE_POLL_INTERVAL", "200ms");
        for (variable, what) in [
            ("TOLLGATE_ADMIN_KEY", "admin key"),
            ("OPENAI_API_KEY", "operators OpenAI key"),
            ("GEMINI_API_KEY", "operators Gemini key"),
        ] {
            setup = files.set(setup, variable, &planted.word(what));
        }
        planted.plant("master key", MASTER);
        let (pairs, _) = MASTER.as_bytes().as_chunks::<2>();
        let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let bytes: Vec<u8> = pairs.iter().map(byte).collect();
        planted.plant("master key in bytes", bytes);
        setup = files.set(setup, "TOLLGATE_SECRETS_KEY", MASTER);
        if let Some((database, redis)) = scaled {
            let password = planted.word("password of the database");
            setup = files.set(setup, "DATABASE_URL", &database.url.replace('@', &format!(":{password}@")));
            let password = planted.word("password of Redis");
            redis.done(&["ACL", "SETUSER", "scrubbed", "on", &format!(">{password}"), "~*", "&*", "+@all"]);
            let address = redis.address();
            setup = files.set(setup, "REDIS_URL", &format!("redis://scrubbed:{password}@{address}"));
        }
        let config = "[plans.pro]\nchats_per_month = -1\n\n[plans.tight]\nchats_per_month = 1\n";
        let gateway = setup.config(config).start();
        Self { planted, gateway, provider, files, answers: Vec::new(), keys: BTreeMap::new() }
    }

    fn admin_key(&self) -> String {
        String::from_utf8(self.planted.0["admin key"].clone()).unwrap()
    }

    /// Asks the admin listener; keeps the answer unless it is to hold a key.
    fn admin(&mut self, request: Request) -> Answer {
        let answer = request.bearer(&self.admin_key()).send(self.gateway.admin);
        let is_key_shown = serde_json::from_slice::<Value>(&answer.body).is_ok_and(|body| !body["key"].is_null());
        if !is_key_shown {
            self.keep(&answer);
        }
        answer
    }

    fn keep(&mut self, answer: &Answer) {
        self.answers.push(format!("{:?}", answer.headers).into_bytes());
        self.answers.push(answer.body.clone());
    }

    /// A tenant with a key, which is planted.
    fn tenant(&mut self, name: &'static str, plan: &str) -> String {
        let body = json!({"id": name, "name": name, "plan": plan}).to_string();
        assert_eq!(self.admin(Request::post("/admin/tenants", body)).status, 201);
        let once = self.planted.word(&format!("idempotency key of {name}"));
        let issue = Request::post(format!("/admin/tenants/{name}/keys"), r#"{"name":"first"}"#);
        let made = self.admin(issue.header("Idempotency-Key", once));
        let key = made.json()["key"].as_str().unwrap().to_owned();
        self.planted.plant(&format!("key of {name}"), &key);
        self.keys.insert(name, key.clone());
        key
    }

    /// A call whose answer is the gateway's own.
    fn refused(&mut self, request: &Request, status: u16) {
        let answer = self.gateway.send(request);
        assert_eq!(answer.status, status, "{}", answer.text());
        self.keep(&answer);
    }

    /// Raw bytes, and whatever comes back.
    fn raw(&mut self, bytes: &[u8]) {
        let mut wire = Wire::open(self.gateway.proxy);
        drop(wire.try_send(bytes));
        if let Some(answer) = wire.answer() {
            assert!(answer.status >= 400, "{}", answer.text());
            self.keep(&answer);
        }
    }
}

/// A provider that is honest with plain calls, and does what a prompt tells it to.
fn answer(seen: &provider::Seen, completion: &str, arguments: &str, told: &str) -> Script {
    let text = String::from_utf8_lossy(&seen.body);
    if seen.header("content-type").is_some_and(|kind| kind.starts_with("multipart/")) {
        return Script::json(200, json!({"id": "file-1", "object": "file", "text": completion}).to_string());
    }
    if text.contains("fail-500") {
        return Script::json(500, json!({"error": {"message": told}}).to_string());
    }
    if text.contains("cut-it") {
        let begun = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{completion}\"}}}}]}}\n\n");
        return Script::open(&[("Content-Type", "text/event-stream")])
            .then(Step::Send(wire::chunk(begun.as_bytes())))
            .then(Step::Close);
    }
    if text.contains("garbage-it") {
        return Script::raw(format!("no HTTP {told}\r\n\r\n"));
    }
    if seen.target.starts_with("/v1/responses") {
        let status = if seen.method == "GET" { "completed" } else { "queued" };
        let output = json!([{"type": "message", "content": [{"type": "output_text", "text": completion}]}]);
        let usage = json!({"input_tokens": 12, "output_tokens": 5, "total_tokens": 17});
        let usage = if status == "completed" { usage } else { Value::Null };
        let response = json!({"id": "resp_1", "object": "response", "background": true, "status": status,
            "model": "gpt-4.1-2025-04-14", "output": output, "usage": usage});
        return Script::json(200, response.to_string());
    }
    let script = bodies::honest(seen);
    let tool = json!([{"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}]).to_string();
    if seen.target == bodies::CHAT && !text.contains("\"stream\":true") {
        let answer = bodies::CHAT_ANSWER.replace("One, two, three.", completion);
        return Script::json(
            200,
            answer.replace("\"refusal\":null", &format!("\"refusal\":null,\"tool_calls\":{tool}")),
        );
    }
    script
}

/// Calls of every kind with something planted in each field.
fn calls(stand: &mut Stand) {
    let acme = stand.tenant("acme", "pro");
    let tight = stand.tenant("tight", "tight");
    for (provider, what) in [("openai", "acmes own OpenAI key"), ("gemini", "acmes own Gemini key")] {
        let key = stand.planted.word(what);
        let put =
            Request::post(format!("/admin/tenants/acme/provider-keys/{provider}"), json!({"key": key}).to_string());
        assert_eq!(stand.admin(put.method("PUT")).status, 200);
    }
    let mut words = Words::new();
    for what in [
        "prompt",
        "system prompt",
        "name of a tool",
        "schema of a tool",
        "arguments of a tool",
        "prompt of a stream",
        "prompt of Gemini",
        "prompt in a form",
        "body of a file",
        "name of a file",
        "prompt of a background response",
        "prompt that fails",
        "prompt that is cut",
        "prompt that meets garbage",
        "prompt in broken JSON",
        "prompt beyond the limit",
        "prompt of a stranger",
        "text in a websocket",
    ] {
        words.insert(what, stand.planted.word(what));
    }
    let word = |what: &str| words[what].as_str();
    let chat = json!({"model": "gpt-4o-mini", "messages": [
        {"role": "system", "content": word("system prompt")}, {"role": "user", "content": word("prompt")},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function",
            "function": {"name": word("name of a tool"), "arguments": word("arguments of a tool")}}]}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"title": word("schema of a tool")}}}]})
    .to_string();
    let of_gemini = json!({"contents": [{"parts": [{"text": word("prompt of Gemini")}]}]}).to_string();
    // Every place of a credential.
    let good: Vec<Request> = vec![
        chat_with(&acme, chat.clone()).header("x-tollgate-user-id", "user-7"),
        Request::post(bodies::CHAT, chat.clone()).header("api-key", &acme),
        Request::post(bodies::CHAT, chat.clone()).bearer(&acme).header("x-api-key", &acme).header("Cookie", &acme),
        chat_with(&acme, streamed(&words, "prompt of a stream", "")),
        Request::post(bodies::GEMINI, of_gemini.clone()).google(&acme),
        Request::post(format!("{}?key={acme}", bodies::GEMINI), of_gemini.clone()),
        Request::post(format!("{}&%6bey={acme}", bodies::GEMINI_SSE), of_gemini.clone()),
        Request::get(format!("/v1beta/models?key={acme}&pageSize={acme}")),
        Request::get("/v1/models").bearer(&acme).header("Referer", format!("https://app.test/?key={acme}")),
    ];
    for request in good {
        let answer = stand.gateway.send(&request);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    for seen in stand.provider.seen() {
        assert!(!seen.everything().contains(&acme), "a tenant's key went out: {}", seen.target);
    }
    other_kinds(stand, &acme, &words);
    failures(stand, (&acme, &tight), &words);
    strangers(stand, &acme, &tight, word("prompt of a stranger"));
    administration(stand, &acme);
    until("a bill", Duration::from_secs(30), || {
        stand.gateway.events(&acme).iter().any(|event| event["outcome"] == "completed" && event["chats"] == 0)
    });
}

type Words = BTreeMap<&'static str, String>;

fn plain(words: &Words, what: &str, extra: &str) -> String {
    format!(r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{} {extra}"}}]}}"#, words[what])
}

fn streamed(words: &Words, what: &str, extra: &str) -> String {
    plain(words, what, extra).replacen('{', r#"{"stream":true,"#, 1)
}

/// Forms, what is finished later, a session.
fn other_kinds(stand: &Stand, acme: &str, words: &Words) {
    let word = |what: &str| words[what].as_str();
    let form = format!(
        "--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ngpt-4o-transcribe\r\n--x\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\n{}\r\n--x\r\nContent-Disposition: form-data; \
         name=\"file\"; filename=\"{}\"\r\n\r\n{}\r\n--x--\r\n",
        word("prompt in a form"),
        word("name of a file"),
        word("body of a file")
    );
    for target in ["/v1/files", "/v1/audio/transcriptions"] {
        let form = Request { body: Some(form.clone().into_bytes()), ..Request::get(target).method("POST") };
        let form = form.header("Content-Type", "multipart/form-data; boundary=x");
        assert_eq!(stand.gateway.send(&form.bearer(acme)).status, 200, "{target}");
    }
    let later = json!({"model": "gpt-4.1", "input": word("prompt of a background response"), "background": true});
    assert_eq!(stand.gateway.send(&Request::post("/v1/responses", later.to_string()).bearer(acme)).status, 200);
    let session = handshake("/v1/realtime?model=gpt-realtime");
    let protocol = format!("realtime, openai-insecure-api-key.{acme}");
    if let Ok((mut peer, _)) = websocket::open(stand.gateway.proxy, &session.header("Sec-WebSocket-Protocol", protocol))
    {
        peer.say(&json!({"type": "response.create", "text": word("text in a websocket")}));
    }
}

/// Calls that fail, at the provider and before it.
fn failures(stand: &mut Stand, (acme, tight): (&str, &str), words: &Words) {
    for (what, extra) in [("prompt that fails", "fail-500"), ("prompt that meets garbage", "garbage-it")] {
        assert!(stand.gateway.send(&chat_with(acme, plain(words, what, extra))).status >= 500);
    }
    stand.gateway.send(&chat_with(acme, streamed(words, "prompt that is cut", "cut-it")));
    stand.refused(&chat_with(acme, format!("{{\"model\": \"{}", words["prompt in broken JSON"])), 400);
    assert_eq!(stand.gateway.send(&chat_with(tight, plain(words, "prompt beyond the limit", ""))).status, 200);
    stand.refused(&chat_with(tight, plain(words, "prompt beyond the limit", "")), 402);
}

/// Keys that open nothing, keys in the wrong place, and heads that are none.
fn strangers(stand: &mut Stand, acme: &str, tight: &str, prompt: &str) {
    let unknown = tollgate::domain::key::mint([7; 32]);
    stand.planted.plant("key that nobody has", &unknown);
    let mistyped = format!("{}-", acme.split_at(acme.len() - 1).0);
    let foreign = stand.planted.word("key of another service");
    let admin = stand.admin_key();
    for key in [&unknown, &mistyped, &foreign, &admin] {
        stand.refused(&chat_with(key, prompt), 401);
        stand.refused(&Request::post(bodies::GEMINI, prompt).google(key), 401);
        stand.refused(&Request::post(format!("{}?key={key}", bodies::GEMINI), prompt), 401);
        stand.refused(&Request::get(format!("/billing/usage?range=month&key={key}")), 401);
    }
    stand.refused(&chat_with(acme, prompt).header("x-goog-api-key", tight), 401);
    stand.refused(&Request::get(format!("/v1/nowhere/{prompt}?key={acme}")), 404);
    stand.refused(&Request::get("/billing/usage?range=month&tenant_id=tight").bearer(acme), 403);
    stand.refused(&Request::get(format!("/billing/usage?range={prompt}")).bearer(acme), 400);
    for head in [
        format!("GET /v1/models?key={acme} HTTP/1.1\r\n\r\n"),
        format!("GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization : Bearer {acme}\r\n\r\n"),
        format!("GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {acme}\r\nno colon {acme}\r\n\r\n"),
        format!(
            "POST {} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {acme}\r\nContent-Length: 5, 5\r\n\r\n{prompt}",
            bodies::CHAT
        ),
        format!(
            "POST {} HTTP/1.1\r\nHost: a\r\nx-goog-api-key: {acme}\r\nTransfer-Encoding: chunked\r\n\r\nzz {prompt}\r\n",
            bodies::CHAT
        ),
        format!("{acme} {prompt} HTTP/9.9\r\n{acme}\r\n\r\n"),
        format!("GET /v1/models?key={acme}\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        stand.raw(head.as_bytes());
    }
    // One that leaves in the middle of its body.
    let mut wire = Wire::open(stand.gateway.proxy);
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {acme}\r\nContent-Length: 5000\r\n\r\n",
        bodies::CHAT
    );
    wire.send(format!("{head}{{\"model\":\"gpt-4o-mini\",\"messages\":[{{\"content\":\"{prompt}").as_bytes());
    wire.reset();
}

/// Administration, right and wrong, and a configuration that is wrong.
fn administration(stand: &mut Stand, acme: &str) {
    let id = stand.admin(Request::get("/admin/tenants/acme/keys")).json()["keys"][0]["id"].as_str().unwrap().to_owned();
    let rotated =
        stand.admin(Request::post(format!("/admin/tenants/acme/keys/{id}/rotate"), r#"{"overlap_seconds":600}"#));
    assert_eq!(rotated.status, 201, "{}", rotated.text());
    let new = rotated.json()["key"].as_str().unwrap().to_owned();
    stand.planted.plant("rotated key of acme", &new);
    for key in [acme, &new] {
        assert_eq!(stand.gateway.send(&Request::get("/v1/models").bearer(key)).status, 200, "both work");
    }
    let wrong = stand.planted.word("key in a wrong body");
    for body in
        [json!({"key": [&wrong]}), json!({"key": format!("{wrong} with spaces")}), json!({"key": wrong, "x": 1})]
    {
        let put = Request::post("/admin/tenants/acme/provider-keys/openai", body.to_string()).method("PUT");
        assert_eq!(stand.admin(put).status, 422, "{body}");
    }
    for target in [
        "/admin/tenants",
        "/admin/tenants/acme",
        "/admin/tenants/acme/keys",
        "/admin/tenants/acme/provider-keys",
        "/admin/audit",
        "/billing/usage?range=month",
        "/billing/events",
        "/billing/cost-report?range=month&format=csv",
        "/admin/counters",
        "/metrics",
        "/readyz",
        "/openapi.json",
    ] {
        stand.admin(Request::get(target));
    }
    // A key that is too short, in a file that is read again: what is said of it does not repeat it.
    let short: String = stand.planted.word("weak admin key").chars().take(20).collect();
    stand.planted.plant("weak admin key", &short);
    let path = stand.files.0.path().join("TOLLGATE_ADMIN_KEY");
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, &short).unwrap();
    stand.gateway.signal("HUP");
    let log = || stand.gateway.log();
    until("refused", Duration::from_secs(20), || log().contains("was not reloaded"));
    std::fs::write(&path, good).unwrap();
}

fn demand_none(found: &Found) {
    assert!(found.is_empty(), "found: {found:#?}");
}

/// Looks everywhere outside of the process. Gives the places.
fn outside(stand: &Stand, found: &mut Found) -> Vec<String> {
    let Stand { planted, gateway, answers, .. } = stand;
    let mut places = vec!["the log at level trace".to_owned()];
    planted.found("log", gateway.log().as_bytes(), found);
    for answer in answers {
        planted.found("an answer", answer, found);
    }
    places.push(format!("{} answers of the gateway's own", answers.len() / 2));
    planted.found("metrics", &Request::get("/metrics").send(gateway.admin).body, found);
    places.push("/metrics".to_owned());
    let mut files = 0;
    // The configuration file is the test's, and the data directory the gateway's.
    for file in gateway.files().into_iter().filter(|file| file.starts_with(gateway.data_dir())) {
        let Ok(bytes) = std::fs::read(&file) else { continue };
        files += 1;
        planted.found(&format!("file {}", name(&file)), &bytes, found);
    }
    places.push(format!("{files} files of the data directory: ledger with its WAL, journal"));
    places
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Counts what is in memory after connections are over. Gives the copies of each thing.
fn inside(stand: &Stand) -> BTreeMap<String, usize> {
    in_memory(&stand.gateway.process_id(), &stand.planted.0)
}

fn tell(title: &str, stand: &Stand, places: &[String], copies: &BTreeMap<String, usize>) {
    let names: Vec<&str> = stand.planted.0.keys().map(String::as_str).collect();
    figures(&format!("scrub, {title}: planted {}: {}", names.len(), names.join(", ")));
    figures(&format!("scrub, {title}: looked in {}: found 0", places.join("; ")));
    let left: Vec<String> =
        copies.iter().filter(|(_, count)| **count > 0).map(|(what, count)| format!("{what} {count}")).collect();
    figures(&format!("scrub, {title}: copies in memory, freed or held: {}", left.join(", ")));
    tell_row("C27", &format!("secrets at rest: {title}"), names.len(), "found 0");
    tell_row("C29", &format!("secrets and prompts in logs: {title}"), names.len(), "found 0");
}

#[test]
fn nothing_planted_is_found_in_log_answers_metrics_or_files() {
    let mut stand = Stand::start(None);
    calls(&mut stand);
    let mut found = Found::new();
    let places = outside(&stand, &mut found);
    demand_none(&found);
    let (acme, prompt) = (stand.keys["acme"].clone(), stand.planted.word("prompt of many calls"));
    let body = format!(r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{prompt}"}}]}}"#);
    for _ in 0..CALLS_MORE {
        assert_eq!(stand.gateway.send(&chat_with(&acme, body.clone())).status, 200);
    }
    let copies = inside(&stand);
    let ours = stand.planted.without(&["operators", "acmes own", "master key"]);
    for what in ours.0.keys() {
        assert!(copies[what] < COPIES_MAX, "{what} is in memory {} times", copies[what]);
    }
    tell("one gateway on SQLite", &stand, &places, &copies);
}

#[test]
fn nothing_planted_is_found_in_postgres_or_redis() {
    let (database, redis) = (Database::new(), RedisServer::start());
    let mut stand = Stand::start(Some((&database, &redis)));
    calls(&mut stand);
    let mut found = Found::new();
    let mut places = outside(&stand, &mut found);
    let (tables, rows) = in_postgres(&database, |place, bytes| stand.planted.found(place, bytes, &mut found));
    assert!(tables >= 14 && rows.len() > 1_000, "{tables} tables were read, {} bytes", rows.len());
    places.push(format!("{tables} tables of Postgres, {} bytes", rows.len()));
    let keys = in_redis(&redis, |place, bytes| stand.planted.found(place, bytes, &mut found));
    assert!(keys > 0, "Redis has nothing");
    places.push(format!("{keys} keys of Redis with their values"));
    demand_none(&found);
    tell("one gateway on Postgres and Redis", &stand, &places, &inside(&stand));
}

#[test]
fn the_search_finds_what_is_there() {
    let mut planted = Planted::default();
    let word = planted.word("something");
    planted.plant("bytes of something", [0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4, 5, 6, 7, 8]);
    let search = |bytes: &[u8]| {
        let mut found = Found::new();
        planted.found("here", bytes, &mut found);
        found.len()
    };
    assert_eq!(search(b"nothing of it"), 0);
    assert_eq!(search(format!("before {word} after").as_bytes()), 1);
    assert_eq!(search(b"\\xDEADBEEF0102030405060708"), 1);
    assert_eq!(planted.without(&["bytes"]).0.len(), 1);
    // And in the memory of a process: this one has it.
    let copies = in_memory(&std::process::id().to_string(), &planted.0);
    assert!(copies["something"] >= 1, "{copies:?}");
}
