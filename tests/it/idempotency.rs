//! Changes with an `Idempotency-Key`, against the real binary: done once, answered the same, through crashes, with no
//! secret at rest.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use serde_json::{Value, json};

use super::support::bodies::*;
use super::support::gateway::ADMIN_KEY;
use super::support::*;

/// Tries of the same request at once.
const AT_ONCE: usize = 50;

fn once(uri: &str, key: &str, body: &Value) -> Request {
    Request::post(uri, body.to_string()).header("Idempotency-Key", key)
}

fn create(id: &str) -> Value {
    json!({"id": id, "name": format!("The {id}"), "plan": "starter"})
}

/// The audit log, as each entry's action and tenant.
fn log(gateway: &Gateway) -> Vec<(String, String)> {
    let answer = gateway.admin(Request::get("/admin/audit?limit=1000"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap().to_owned();
    let entries = answer.json()["entries"].as_array().unwrap().clone();
    entries.iter().map(|entry| (text(entry, "action"), text(entry, "tenant_id"))).collect()
}

fn entries_of(gateway: &Gateway, action: &str, tenant: &str) -> usize {
    log(gateway).iter().filter(|(a, t)| a == action && t == tenant).count()
}

/// The parts of an answer that have to be the same each time.
fn told(answer: &Answer) -> (u16, Option<String>, String) {
    (answer.status, answer.header("location"), answer.text())
}

/// Sends `request` from many clients at the same moment.
fn at_once(gateway: &Gateway, request: &Request) -> Vec<Answer> {
    let barrier = Barrier::new(AT_ONCE);
    thread::scope(|scope| {
        let send = || {
            barrier.wait();
            gateway.admin(request.clone())
        };
        let clients: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(send)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

#[test]
fn fifty_equal_requests_at_once_are_one_change_one_entry_and_one_answer() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).prod().start();
    for (uri, key, body, action) in [
        ("/admin/tenants", "create-1", create("acme"), "tenant.create"),
        ("/admin/tenants/acme/keys", "key-1", json!({"name": "app"}), "key.create"),
        ("/billing/plan", "plan-1", json!({"tenant_id": "acme", "plan": "growth"}), "plan.set"),
    ] {
        let answers = at_once(&gateway, &once(uri, key, &body));
        let first = told(&answers[0]);
        assert!(matches!(first.0, 200 | 201), "{uri}: {}", first.2);
        assert!(answers.iter().all(|answer| told(answer) == first), "{uri}: {answers:?}");
        let made = answers.iter().filter(|answer| answer.header("idempotent-replayed").is_none()).count();
        assert_eq!(made, 1, "{uri}");
        assert_eq!(entries_of(&gateway, action, "acme"), 1, "{uri}: {:?}", log(&gateway));
    }
    assert_eq!(log(&gateway).len(), 3);
    let tenants = gateway.admin(Request::get("/admin/tenants")).json();
    assert_eq!((tenants["tenants"].as_array().unwrap().len(), &tenants["tenants"][0]["plan"]), (1, &json!("growth")));
    let keys = gateway.admin(Request::get("/admin/tenants/acme/keys")).json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
}

#[test]
fn another_body_is_refused_and_changes_nothing() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).prod().start();
    gateway.issue("acme", "starter");
    gateway.issue("other", "starter");
    let before = log(&gateway);
    for (uri, body, other) in [
        ("/admin/tenants", create("new"), create("another")),
        (
            "/admin/tenants/acme/keys",
            json!({"name": "app"}),
            json!({"name": "app", "expires_at": "2099-01-01T00:00:00Z"}),
        ),
        (
            "/billing/plan",
            json!({"tenant_id": "acme", "plan": "growth"}),
            json!({"tenant_id": "other", "plan": "growth"}),
        ),
    ] {
        let first = gateway.admin(once(uri, "one", &body));
        assert!(matches!(first.status, 200 | 201), "{uri}: {}", first.text());
        let refused = gateway.admin(once(uri, "one", &other));
        let problem = refused.json();
        assert_eq!((refused.status, &problem["code"]), (422, &json!("idempotency_key_reused")), "{uri}");
        assert_eq!(refused.header("content-type").as_deref(), Some("application/problem+json"), "{uri}");
        assert_eq!(told(&gateway.admin(once(uri, "one", &body))), told(&first), "{uri}");
    }
    assert_eq!(log(&gateway).len(), before.len() + 3);
    assert_eq!(gateway.admin(Request::get("/admin/tenants/another")).status, 404);
    assert_eq!(gateway.admin(Request::get("/admin/tenants/other")).json()["plan"], "starter");
    for bad in ["", "a b", &"k".repeat(256)] {
        let answer = gateway.admin(once("/admin/tenants", bad, &create("bad")));
        assert_eq!(answer.status, 400, "{bad:?}: {}", answer.text());
        assert!(answer.text().contains("Idempotency-Key"), "{}", answer.text());
    }
    assert_eq!(gateway.admin(Request::get("/admin/tenants/bad")).status, 404);
}

#[test]
fn the_proxy_listener_does_it_too_and_a_key_is_its_callers_own() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let body = json!({"tenant_id": "acme", "plan": "growth"});
    let send = |tenant: &str| {
        let body = json!({"tenant_id": tenant, "plan": "growth"});
        gateway.send(&once("/billing/plan", "one", &body).bearer(tenant))
    };
    let (first, again, other) = (send("acme"), send("acme"), send("globex"));
    assert_eq!((first.status, told(&again)), (200, told(&first)), "{}", first.text());
    assert_eq!((other.status, other.json()["tenant_id"].as_str()), (200, Some("globex")));
    // On the admin listener it is the same caller.
    let there = once("/billing/plan", "one", &body).bearer("acme").send(gateway.admin);
    assert_eq!((told(&there), there.header("idempotent-replayed").as_deref()), (told(&first), Some("true")));
    assert_eq!(entries_of(&gateway, "plan.set", "acme"), 1);
    // A tenant that dev mode makes is a change as well.
    assert_eq!(entries_of(&gateway, "tenant.create", "acme"), 1);
}

#[test]
fn the_answer_is_the_same_after_a_restart_and_after_kill_9() {
    let provider = Provider::start(honest);
    let mut gateway = Setup::new(&provider).prod().start();
    let requests = [
        once("/admin/tenants", "create", &create("acme")),
        once("/admin/tenants/acme/keys", "key", &json!({"name": "app"})),
        once("/billing/plan", "plan", &json!({"tenant_id": "acme", "plan": "growth"})),
    ];
    let first: Vec<_> = requests.iter().map(|request| told(&gateway.admin(request.clone()))).collect();
    let before = log(&gateway);
    for signal in ["KILL", "TERM", "KILL"] {
        gateway.signal(signal);
        gateway.ended();
        gateway = Setup::new(&provider).prod().on_ledger_of(&gateway).start();
        let again: Vec<_> = requests.iter().map(|request| told(&gateway.admin(request.clone()))).collect();
        assert_eq!(again, first, "{signal}");
        assert_eq!(log(&gateway), before, "{signal}");
    }
    let key: Value = serde_json::from_str(&first[1].2).unwrap();
    assert_eq!(gateway.send(&chat(key["key"].as_str().unwrap())).status, 200, "the key works");
}

/// A kill at any moment leaves each change done with its entry and its answer, or not at all; tried again, it is done
/// once, and what was answered before is answered the same.
#[test]
fn changes_that_a_kill_interrupts_are_made_once_when_they_are_tried_again() {
    const CLIENTS: usize = 4;
    let provider = Provider::start(honest);
    let mut gateway = Setup::new(&provider).prod().start();
    let mut answered: BTreeMap<String, (u16, Option<String>, String)> = BTreeMap::new();
    let (mut asked, mut made_unheard) = (0, 0);
    for round in 0..5 {
        let kill_after = 3 + 7 * round;
        let name = |client: usize, number: usize| format!("t{round}-{client}-{number}");
        let done = Arc::new(AtomicUsize::new(0));
        let told_now = thread::scope(|scope| {
            let (gateway, done, name) = (&gateway, &done, &name);
            let work = |client: usize| {
                move || {
                    let mut told_now = Vec::new();
                    // Until the gateway is gone; the bound is far beyond the kill.
                    for number in 0..10_000 {
                        let id = name(client, number);
                        let request = once("/admin/tenants", &id, &create(&id)).bearer(ADMIN_KEY);
                        let Some(answer) = try_send(gateway, &request) else { return (number + 1, told_now) };
                        told_now.push((id, answer));
                        if done.fetch_add(1, Ordering::SeqCst) == kill_after {
                            gateway.signal("KILL");
                        }
                    }
                    panic!("the gateway outlived its kill")
                }
            };
            let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(work(client))).collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>()
        });
        gateway.ended();
        gateway = Setup::new(&provider).prod().on_ledger_of(&gateway).start();
        for (client, (sent, told_now)) in told_now.into_iter().enumerate() {
            answered.extend(told_now);
            for number in 0..sent {
                let id = name(client, number);
                let again = gateway.admin(once("/admin/tenants", &id, &create(&id)));
                assert_eq!(again.status, 201, "{id}: {}", again.text());
                assert_eq!(answered.get(&id).unwrap_or(&told(&again)), &told(&again), "{id}");
                let was_made = again.header("idempotent-replayed").is_some();
                assert!(was_made || !answered.contains_key(&id), "{id} was answered and then lost");
                made_unheard += usize::from(was_made && !answered.contains_key(&id));
                asked += 1;
            }
        }
    }
    let entries = log(&gateway);
    let distinct: std::collections::BTreeSet<_> = entries.iter().collect();
    assert_eq!((entries.len(), distinct.len()), (asked, asked), "one entry for each tenant");
    let tenants = gateway.admin(Request::get("/admin/tenants")).json();
    assert_eq!(tenants["tenants"].as_array().unwrap().len(), asked);
    println!(
        "5 kills: {asked} changes asked for, {} answered before the kill, {made_unheard} made but not heard of",
        answered.len()
    );
}

/// The answer, or nothing when the connection is refused or breaks.
fn try_send(gateway: &Gateway, request: &Request) -> Option<(u16, Option<String>, String)> {
    let mut wire = Wire::over(std::net::TcpStream::connect(gateway.admin).ok()?);
    wire.try_send(&request.bytes()).ok()?;
    wire.answer_to(request.method).filter(|answer| answer.whole).map(|answer| told(&answer))
}

#[test]
fn a_new_key_is_told_again_and_is_nowhere_on_the_disk() {
    const IDEMPOTENCY_KEY: &str = "planted-idempotency-key-5e1f0c9ab7d2";
    let provider = Provider::start(honest);
    let mut gateway = Setup::new(&provider).prod().start();
    gateway.admin(once("/admin/tenants", IDEMPOTENCY_KEY, &create("acme")));
    let request = once("/admin/tenants/acme/keys", IDEMPOTENCY_KEY, &json!({"name": "app"}));
    let first = gateway.admin(request.clone());
    let again = gateway.admin(request);
    assert_eq!((first.status, told(&again)), (201, told(&first)), "{}", first.text());
    let key = first.json()["key"].as_str().unwrap().to_owned();
    assert_eq!(gateway.send(&chat(&key)).status, 200);
    let search = |gateway: &Gateway| {
        let files = gateway.files();
        assert!(files.iter().any(|file| file.ends_with("billing.db")), "{files:?}");
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            for secret in [key.as_str(), ADMIN_KEY, IDEMPOTENCY_KEY, &key[8..24]] {
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{secret} in {}", file.display());
            }
        }
        assert!([key.as_str(), ADMIN_KEY, IDEMPOTENCY_KEY].iter().all(|secret| !gateway.log().contains(secret)));
    };
    search(&gateway);
    gateway.stop();
    search(&gateway);
}

#[test]
fn the_command_line_has_one_entry_for_each_change_and_shows_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let tollgate = |arguments: &[&str]| {
        let output = Command::new(binary())
            .args(arguments)
            .arg("--json")
            .env_clear()
            .env("TOLLGATE_DATA_DIR", directory.path())
            .output()
            .expect("the binary starts");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    tollgate(&["tenant", "create", "acme"]);
    let key = tollgate(&["key", "create", "acme", "--name", "app"]);
    for _ in 0..2 {
        assert_eq!(tollgate(&["tenant", "set-plan", "acme", "pro"])["plan"], "pro");
        assert_eq!(tollgate(&["tenant", "suspend", "acme"])["suspended"], true);
        tollgate(&["key", "revoke", "acme", key["id"].as_str().unwrap()]);
    }
    tollgate(&["tenant", "create", "other"]);
    let shown = tollgate(&["audit"]);
    let entries = shown["entries"].as_array().unwrap();
    let actions: Vec<&str> = entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    let expected = ["tenant.create", "key.create", "plan.set", "tenant.change", "key.revoke", "tenant.create"];
    assert_eq!(actions, expected);
    assert!(entries.iter().all(|entry| entry["actor"] == "cli"), "{shown}");
    assert!(!shown.to_string().contains(key["key"].as_str().unwrap()));
    assert_eq!(tollgate(&["audit", "acme"])["entries"].as_array().unwrap().len(), 5);
    assert_eq!(tollgate(&["audit", "acme", "--limit", "1"])["entries"][0]["action"], "key.revoke");
    assert_eq!(tollgate(&["audit", "--after", "5"])["entries"][0]["tenant_id"], "other");
}

#[test]
fn the_admin_key_that_a_gateway_makes_is_one_line_of_the_log() {
    let provider = Provider::start(honest);
    let mut gateway = Setup::new(&provider).unset("TOLLGATE_ADMIN_KEY").start();
    let key = std::fs::read_to_string(gateway.data_dir().join("admin.key")).unwrap().trim().to_owned();
    let log =
        |gateway: &Gateway| Request::get("/admin/audit").bearer(&key).send(gateway.admin).json()["entries"].clone();
    let entries = log(&gateway);
    let entry = &entries[0];
    assert_eq!(entries.as_array().unwrap().len(), 1, "{entries}");
    assert_eq!((&entry["action"], &entry["actor"]), (&json!("admin_key.create"), &json!("gateway")), "{entry}");
    assert_eq!((&entry["before"], &entry["after"]), (&json!({}), &json!({"last4": &key[key.len() - 4..]})), "{entry}");
    assert!(!entries.to_string().contains(&key));
    gateway.stop();
    let again = Setup::new(&provider).unset("TOLLGATE_ADMIN_KEY").on_ledger_of(&gateway).start();
    assert_eq!(log(&again), entries, "it is made once");
}

/// Whoever tries A again after B puts nothing back in force.
#[test]
fn prices_that_are_sent_twice_are_put_in_force_once() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).prod().start();
    let book = |price: u32| {
        json!({"format": 1, "models": [{"provider": "openai", "model": "contract", "match": ["gpt-4o*"],
            "rates": [{"tier": "standard", "input": price, "output": 5}]}]})
    };
    let first = gateway.admin(once("/admin/prices", "a", &book(1)));
    assert_eq!(first.status, 200, "{}", first.text());
    assert_eq!(gateway.admin(once("/admin/prices", "b", &book(2))).status, 200);
    let in_force = || gateway.admin(Request::get("/admin/prices")).json()["version"].clone();
    let of_b = in_force();
    let again = gateway.admin(once("/admin/prices", "a", &book(1)));
    assert_eq!(told(&again), told(&first));
    assert_eq!(again.header("idempotent-replayed").as_deref(), Some("true"));
    assert_eq!(in_force(), of_b);
    let other = gateway.admin(once("/admin/prices", "a", &book(2)));
    assert_eq!((other.status, &other.json()["code"]), (422, &json!("idempotency_key_reused")));
    assert_eq!(in_force(), of_b);
    let entries = gateway.admin(Request::get("/admin/audit?action=prices.set")).json();
    assert_eq!(entries["entries"].as_array().map(Vec::len), Some(2), "{entries}");
}
