//! Tenants' own keys for providers: every kind of call goes out with them, what was begun with them is asked for with
//! them, and at rest they are encrypted.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::gateway::{ADMIN_KEY, GEMINI_KEY, OPENAI_KEY};
use super::support::machine::until;
use super::support::postgres::Database;
use super::support::provider::Seen;
use super::support::websocket::{self, Sessions, handshake};
use super::support::*;

const MASTER: &str = "7c9e1f0ab35d48261e6f90c2d4a8b3757c9e1f0ab35d48261e6f90c2d4a8b375";
const NEXT_MASTER: &str = "15a7cc04e9b2f8366d01ab7f8e239c5415a7cc04e9b2f8366d01ab7f8e239c54";
const OPENAI_OF_ACME: &str = "sk-proj-planted-own-of-acme-openai-41d7";
const GEMINI_OF_ACME: &str = "AIza-planted-own-of-acme-gemini-93bc";

/// What is changed through one gateway is in force on all within this.
const WITHIN: Duration = Duration::from_secs(5);

fn put(gateway: &Gateway, tenant: &str, provider: &str, key: &str) -> Answer {
    let target = format!("/admin/tenants/{tenant}/provider-keys/{provider}");
    gateway.admin(Request::post(target, json!({"key": key}).to_string()).method("PUT"))
}

fn set(gateway: &Gateway, tenant: &str, provider: &str, key: &str) -> Value {
    let answer = put(gateway, tenant, provider, key);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Two tenants, of which acme has keys of its own.
fn start(setup: Setup) -> (Gateway, String, String) {
    let gateway = setup.prod().set("TOLLGATE_SECRETS_KEY", MASTER).start();
    let (acme, other) = (gateway.issue("acme", "pro"), gateway.issue("other", "pro"));
    set(&gateway, "acme", "openai", OPENAI_OF_ACME);
    set(&gateway, "acme", "gemini", GEMINI_OF_ACME);
    (gateway, acme, other)
}

/// The credential that a provider was sent.
fn credential(seen: &Seen) -> String {
    let bearer = seen.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    bearer.or_else(|| seen.header("x-goog-api-key")).unwrap_or_default().to_owned()
}

#[test]
fn every_kind_of_call_goes_out_with_the_tenants_own_key() {
    let provider = Provider::start(|seen| match seen.header("content-type") {
        Some(kind) if kind.starts_with("multipart/") => Script::json(200, r#"{"text":"Hello"}"#),
        _ => bodies::honest(seen),
    });
    let (gateway, acme, other) = start(Setup::new(&provider));
    let form = "--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ngpt-4o-transcribe\r\n--x\r\nContent-Disposition: form-data; \
                name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n--x--\r\n";
    let form = |key: &str| {
        let form = Request { body: Some(form.into()), ..Request::get("/v1/audio/transcriptions").method("POST") };
        let form = form.header("Content-Type", "multipart/form-data; boundary=x");
        form.bearer(key)
    };
    let calls: [(&str, &dyn Fn(&str) -> Request, bool); 7] = [
        ("a chat", &chat, true),
        ("a stream", &|key| chat_with(key, bodies::CHAT_USAGE_REQUEST), true),
        ("a free call", &|key| Request::get("/v1/models").bearer(key), true),
        ("a form", &form, true),
        ("a generation", &gemini, false),
        (
            "a key in the query",
            &|key| Request::post(format!("{}?key={key}", bodies::GEMINI), bodies::GEMINI_REQUEST),
            false,
        ),
        ("a free call of Gemini", &|key| Request::get("/v1beta/models").google(key), false),
    ];
    for (what, call, is_openai) in calls {
        let (own, operators) = if is_openai { (OPENAI_OF_ACME, OPENAI_KEY) } else { (GEMINI_OF_ACME, GEMINI_KEY) };
        for (key, expected) in [(&acme, own), (&other, operators)] {
            let known = provider.count();
            let answer = gateway.send(&call(key));
            assert!(answer.status < 500, "{what}: {}", answer.text());
            let seen = provider.seen_from(known);
            assert_eq!(seen.len(), 1, "{what}: {} {}", answer.status, answer.text());
            assert_eq!(credential(&seen[0]), expected, "{what}");
            let told = seen[0].everything();
            assert!(!told.contains(key.as_str()), "{what}: the tenant's key went out");
        }
    }
    assert_eq!(gateway.admin(removal("acme", "openai")).status, 204);
    assert_eq!(gateway.send(&chat(&acme)).status, 200);
    assert_eq!(credential(&provider.last()), OPENAI_KEY, "after it was removed");
}

fn removal(tenant: &str, provider: &str) -> Request {
    Request::get(format!("/admin/tenants/{tenant}/provider-keys/{provider}")).method("DELETE")
}

#[test]
fn a_session_is_opened_with_the_tenants_own_key() {
    let sessions = Sessions::start(|_, mut peer| while peer.hear().is_some() {});
    let (gateway, acme, other) = start(Setup::at(&sessions.url()));
    for (key, own) in [(&acme, OPENAI_OF_ACME), (&other, OPENAI_KEY)] {
        let request = handshake("/v1/realtime?model=gpt-realtime").bearer(key);
        let (peer, _) = websocket::open(gateway.proxy, &request).unwrap_or_else(|answer| panic!("{}", answer.text()));
        assert_eq!(credential(sessions.seen().last().unwrap()), own);
        drop(peer);
    }
}

#[test]
fn an_upload_is_carried_on_with_the_key_that_it_was_begun_with() {
    let provider = Provider::start(|seen| match seen.header("x-goog-upload-command") {
        Some("start") => {
            let address = "https://generativelanguage.googleapis.com/upload/v1beta/files?upload_id=1";
            Script::answer(200, &[("X-Goog-Upload-URL", address)], "")
        }
        _ => Script::answer(200, &[("X-Goog-Upload-Status", "final")], "{}"),
    });
    let (gateway, acme, other) = start(Setup::new(&provider));
    let begun = |key: &str| {
        let begin = Request::post("/upload/v1beta/files", "{}").google(key).header("X-Goog-Upload-Command", "start");
        let address = gateway.send(&begin).header("x-goog-upload-url").expect("an address");
        address.split_once("gateway.test").unwrap().1.to_owned()
    };
    let piece = |target: &str| Request::post(target, "abc").header("X-Goog-Upload-Command", "upload, finalize");
    for (key, own) in [(&acme, GEMINI_OF_ACME), (&other, GEMINI_KEY)] {
        let target = begun(key);
        assert_eq!(credential(&provider.last()), own);
        assert_eq!(gateway.send(&piece(&target)).status, 200);
        assert_eq!(credential(&provider.last()), own);
    }
    // Whoever writes another tenant into an address gets no further, whichever key signs.
    let count = provider.count();
    for (from, to) in [(".acme.", ".other."), (".other.", ".acme.")] {
        let target = begun(if from == ".acme." { &acme } else { &other });
        assert_eq!(gateway.send(&piece(&target.replace(from, to))).status, 401);
    }
    assert_eq!(provider.count(), count + 2);
}

#[test]
fn what_is_finished_later_is_asked_for_with_the_tenants_own_key() {
    let response = |status: &str| {
        let usage = json!({"input_tokens": 12, "output_tokens": 5, "total_tokens": 17});
        let usage = if status == "completed" { usage } else { Value::Null };
        json!({"id": "resp_1", "object": "response", "background": true, "status": status, "model": "gpt-4.1-2025-04-14",
            "output": [], "usage": usage, "service_tier": "default"})
        .to_string()
    };
    let provider = Provider::start(move |seen| match seen.method.as_str() {
        "POST" => Script::json(200, response("queued")),
        // With another key the provider would not know it.
        _ if credential(seen) == OPENAI_OF_ACME => Script::json(200, response("completed")),
        _ => Script::json(404, "{}"),
    });
    let (gateway, acme, _) = start(Setup::new(&provider).set("TOLLGATE_POLL_INTERVAL", "100ms"));
    let body = json!({"model": "gpt-4.1", "input": "Hello?", "background": true}).to_string();
    assert_eq!(gateway.send(&Request::post("/v1/responses", body).bearer(&acme)).status, 200);
    until("a bill", Duration::from_secs(30), || gateway.events(&acme).len() >= 2);
    let bill = gateway.events(&acme)[1].clone();
    assert_eq!((&bill["outcome"], &bill["total_tokens"]), (&"completed".into(), &17.into()), "{bill}");
    assert!(provider.seen().iter().all(|seen| credential(seen) == OPENAI_OF_ACME));
}

#[test]
fn a_gateway_without_keys_serves_tenants_that_have_their_own() {
    let provider = Provider::start(bodies::honest);
    let setup = Setup::new(&provider).unset("OPENAI_API_KEY").unset("GEMINI_API_KEY");
    let (gateway, acme, other) = start(setup);
    assert_eq!((gateway.send(&chat(&acme)).status, gateway.send(&gemini(&acme)).status), (200, 200));
    let refused = gateway.send(&chat(&other));
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &"provider_not_configured".into()));
    assert_eq!(provider.count(), 2);
}

#[test]
fn a_key_goes_in_and_never_comes_out() {
    let provider = Provider::start(bodies::honest);
    let (gateway, acme, _) = start(Setup::new(&provider).set("RUST_LOG", "trace"));
    let list = gateway.admin(Request::get("/admin/tenants/acme/provider-keys")).json();
    let providers: Vec<&Value> = list["provider_keys"].as_array().unwrap().iter().map(|key| &key["provider"]).collect();
    assert_eq!(providers, ["gemini", "openai"]);
    let one = gateway.admin(Request::get("/admin/tenants/acme/provider-keys/openai"));
    assert_eq!((one.status, &one.json()["last4"]), (200, &"41d7".into()));
    assert!(one.json()["set_at"].is_string() && one.json()["master_key_id"].as_str().unwrap().len() == 16);
    // Wrong ones, and keys where they do not belong.
    for (provider, body, status, code) in [
        ("openai", json!({"key": "short"}), 422, "invalid_field"),
        ("openai", json!({"key": "with a space planted-wrong-key"}), 422, "invalid_field"),
        ("openai", json!({"key": ["sk-planted-wrong-key"]}), 422, "invalid_body"),
        ("openai", json!({"key": OPENAI_OF_ACME, "x": 1}), 422, "invalid_field"),
        ("anthropic", json!({"key": OPENAI_OF_ACME}), 404, "unknown_provider"),
    ] {
        let target = format!("/admin/tenants/acme/provider-keys/{provider}");
        let answer = gateway.admin(Request::post(target, body.to_string()).method("PUT"));
        let text = answer.text();
        assert_eq!(answer.status, status, "{body}: {text}");
        assert!(!text.contains("planted"), "{body}: {text}");
        assert!(code == "invalid_body" || text.contains(code), "{body}: {text}");
    }
    assert_eq!(put(&gateway, "nobody", "openai", OPENAI_OF_ACME).status, 404);
    // The admin key only, on the admin listener only.
    let target = "/admin/tenants/acme/provider-keys";
    assert_eq!(Request::get(target).bearer(&acme).send(gateway.admin).status, 403);
    assert_eq!(gateway.send(&Request::get(target).bearer(ADMIN_KEY)).status / 100, 4);
    let log = gateway.admin(Request::get("/admin/audit?tenant_id=acme")).text();
    assert!(log.contains("provider_key.set") && log.contains("41d7"), "{log}");
    for text in [log, list.to_string(), one.text(), gateway.log()] {
        assert!(!text.contains(OPENAI_OF_ACME) && !text.contains(GEMINI_OF_ACME) && !text.contains(MASTER), "{text}");
    }
}

fn tollgate(gateway: &Gateway, arguments: &[&str], master: &str) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).env_clear().env("TOLLGATE_DATA_DIR", gateway.data_dir());
    command.env("TOLLGATE_SECRETS_KEY", master).output().unwrap()
}

#[test]
fn a_master_key_is_exchanged_without_a_pause() {
    let provider = Provider::start(bodies::honest);
    let files = tempfile::TempDir::new().unwrap();
    let file = files.path().join("master");
    std::fs::write(&file, MASTER).unwrap();
    let gateway = Setup::new(&provider).prod().set("TOLLGATE_SECRETS_KEY_FILE", file.to_str().unwrap()).start();
    let acme = gateway.issue("acme", "pro");
    set(&gateway, "acme", "openai", OPENAI_OF_ACME);
    set(&gateway, "acme", "gemini", GEMINI_OF_ACME);
    let is_own = || {
        assert_eq!(gateway.send(&chat(&acme)).status, 200);
        assert_eq!(credential(&provider.last()), OPENAI_OF_ACME);
    };
    is_own();
    // One that opens nothing is refused by a reload, and by a start.
    std::fs::write(&file, NEXT_MASTER).unwrap();
    until("refused", Duration::from_secs(20), || gateway.log().contains("sealed with master keys that are not given"));
    is_own();
    let said = Setup::new(&provider).set("TOLLGATE_SECRETS_KEY", NEXT_MASTER).on_ledger_of(&gateway);
    let copy = tempfile::TempDir::new().unwrap();
    let said = {
        // Another process on the same ledger would be refused for that reason: this one has a copy.
        let made = Command::new("cp").arg("-r").arg(gateway.data_dir()).arg(copy.path()).status().unwrap();
        assert!(made.success());
        said.set("TOLLGATE_DATA_DIR", copy.path().join("data").to_str().unwrap()).refused()
    };
    assert!(
        said.contains("secrets.key") && said.contains("TOLLGATE_SECRETS_KEY") && said.lines().count() == 1,
        "{said}"
    );
    assert!(!said.contains(NEXT_MASTER), "{said}");
    // Both: the new one seals, the old one opens.
    std::fs::write(&file, format!("{NEXT_MASTER}\n{MASTER}\n")).unwrap();
    let other_id = |json: Value| json["master_key_id"].as_str().unwrap().to_owned();
    let shown = || other_id(gateway.admin(Request::get("/admin/tenants/acme/provider-keys/openai")).json());
    let old_id = shown();
    until("both", Duration::from_secs(20), || other_id(set(&gateway, "acme", "gemini", GEMINI_OF_ACME)) != old_id);
    is_own();
    let both = format!("{NEXT_MASTER},{MASTER}");
    for (resealed, as_they_were) in [(1, 1), (0, 2)] {
        let output = tollgate(&gateway, &["secrets", "rotate", "--json"], &both);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.success(), "{told}");
        assert_eq!((&told["resealed"], &told["as_they_were"]), (&resealed.into(), &as_they_were.into()), "{told}");
        assert_eq!(told["unopened"], json!([]), "{told}");
    }
    assert_ne!(shown(), old_id);
    // Without a master key, and with a wrong one, it says what is missing and changes nothing.
    let output = tollgate(&gateway, &["secrets", "rotate"], "");
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("TOLLGATE_SECRETS_KEY"));
    let output = tollgate(&gateway, &["secrets", "rotate"], MASTER);
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("tenant acme, provider openai")
    );
    // The old one goes.
    std::fs::write(&file, NEXT_MASTER).unwrap();
    let reloads = || gateway.log().matches("The configuration was reloaded.").count();
    let before = reloads();
    until("the new one alone", Duration::from_secs(20), || reloads() > before);
    is_own();
}

#[test]
fn without_a_master_key_none_is_taken() {
    let provider = Provider::start(bodies::honest);
    let gateway = Setup::new(&provider).prod().start();
    let acme = gateway.issue("acme", "pro");
    let answer = put(&gateway, "acme", "openai", OPENAI_OF_ACME);
    assert_eq!((answer.status, &answer.json()["code"]), (409, &"no_master_key".into()));
    assert!(answer.text().contains("TOLLGATE_SECRETS_KEY") && !answer.text().contains(OPENAI_OF_ACME));
    assert_eq!(gateway.send(&chat(&acme)).status, 200);
    assert_eq!(credential(&provider.last()), OPENAI_KEY);
}

/// Two gateways on one Postgres: what one is told the other does.
#[test]
fn a_key_that_is_set_on_one_gateway_is_used_by_all() {
    let (provider, database) = (Provider::start(bodies::honest), Database::new());
    let redis = redis::RedisServer::start();
    let node = || {
        let setup = Setup::new(&provider).set("DATABASE_URL", &database.url).set("REDIS_URL", &redis.url());
        setup.prod().set("TOLLGATE_SECRETS_KEY", MASTER).start()
    };
    let (one, two) = (node(), node());
    let acme = one.issue("acme", "pro");
    assert_eq!(two.send(&chat(&acme)).status, 200);
    let soon = |what: &str, expected: &str| {
        let began = Instant::now();
        loop {
            assert_eq!(two.send(&chat(&acme)).status, 200);
            if credential(&provider.last()) == expected {
                return began.elapsed();
            }
            assert!(began.elapsed() < WITHIN, "{what}");
        }
    };
    set(&one, "acme", "openai", OPENAI_OF_ACME);
    let set_in = soon("set", OPENAI_OF_ACME);
    set(&one, "acme", "openai", "sk-planted-own-of-acme-another");
    let replaced_in = soon("replaced", "sk-planted-own-of-acme-another");
    assert_eq!(one.admin(removal("acme", "openai")).status, 204);
    let removed_in = soon("removed", OPENAI_KEY);
    machine::figures(&format!(
        "provider keys: set through one gateway, used by the other after {} ms, replaced {} ms, removed {} ms",
        set_in.as_millis(),
        replaced_in.as_millis(),
        removed_in.as_millis()
    ));
}

#[test]
fn a_row_that_was_moved_or_changed_is_refused_and_never_the_operators_key() {
    let (provider, database) = (Provider::start(bodies::honest), Database::new());
    let redis = redis::RedisServer::start();
    let setup = Setup::new(&provider).set("DATABASE_URL", &database.url).set("REDIS_URL", &redis.url());
    let (gateway, acme, other) = start(setup);
    // Who can write to the ledger gives other acme's key.
    database.say(
        "INSERT INTO provider_keys SELECT 'other', provider, last4, master_key_id, sealed, set_at FROM provider_keys \
         WHERE tenant_id = 'acme' AND provider = 'openai'; UPDATE meta SET revision = revision + 1",
    );
    let count = provider.count();
    until("refused", WITHIN, || gateway.send(&chat(&other)).status == 503);
    let refused = gateway.send(&chat(&other));
    assert_eq!(refused.json()["error"]["code"], "provider_key_locked", "{}", refused.text());
    assert!(provider.seen_from(count).iter().all(|seen| credential(seen) == OPENAI_KEY));
    assert!(gateway.log().contains("own key cannot be opened"), "{}", gateway.log());
    assert_eq!(gateway.send(&chat(&acme)).status, 200);
    assert_eq!(credential(&provider.last()), OPENAI_OF_ACME);
}

/// Whoever loses a master key loses what it sealed, and nothing else: the gateway starts again.
#[test]
fn a_lost_master_key_is_given_up_and_the_gateway_starts_again() {
    let provider = Provider::start(bodies::honest);
    let (mut gateway, acme, other) = start(Setup::new(&provider));
    let master = gateway.admin(Request::get("/admin/tenants/acme/provider-keys/openai")).json();
    let master = master["master_key_id"].as_str().unwrap().to_owned();
    gateway.stop();
    let again = || Setup::new(&provider).prod().set("TOLLGATE_SECRETS_KEY", NEXT_MASTER).on_ledger_of(&gateway);
    let said = again().refused();
    assert!(said.contains("tollgate secrets forget ID") && said.contains(&master), "{said}");
    let checked = tollgate(&gateway, &["check"], NEXT_MASTER);
    let told = String::from_utf8(checked.stderr).unwrap();
    assert!(!checked.status.success() && told.contains(&master) && told.lines().count() == 1, "{told}");
    let run = |arguments: &[&str], master_keys: &str| {
        let output = tollgate(&gateway, &[&["secrets", "forget"], arguments].concat(), master_keys);
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    // Not one that opens its keys, first or not; nobody can be asked here.
    for given in [MASTER.to_owned(), format!("{NEXT_MASTER},{MASTER}")] {
        let (done, told) = run(&[&master, "--yes"], &given);
        assert!(!done && told.contains("is not lost") && told.lines().count() == 1, "{told}");
    }
    let (done, told) = run(&[&master], NEXT_MASTER);
    assert!(!done && told.contains("--yes"), "{told}");
    // The rows are named before and after.
    for (flag, removed) in [("--dry-run", false), ("--yes", true)] {
        let (done, told) = run(&[&master, flag, "--json"], NEXT_MASTER);
        assert!(done, "{told}");
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!((&told["master_key_id"], &told["removed"]), (&json!(master), &json!(removed)), "{told}");
        let of = |at: usize| (&told["keys"][at]["tenant_id"], &told["keys"][at]["provider"]);
        assert_eq!([of(0), of(1)], [(&json!("acme"), &json!("gemini")), (&json!("acme"), &json!("openai"))], "{told}");
    }
    let (done, told) = run(&[&master, "--yes"], NEXT_MASTER);
    assert!(done && told.starts_with("No key"), "{told}");
    assert!(tollgate(&gateway, &["check"], NEXT_MASTER).status.success());
    let log = tollgate(&gateway, &["audit", "acme", "--action", "provider_key.remove", "--json"], NEXT_MASTER);
    let log: Value = serde_json::from_slice(&log.stdout).unwrap();
    assert_eq!(log["entries"].as_array().map(Vec::len), Some(2), "{log}");
    let gateway = again().start();
    for key in [&acme, &other] {
        assert_eq!(gateway.send(&chat(key)).status, 200);
        assert_eq!(credential(&provider.last()), OPENAI_KEY);
    }
}
