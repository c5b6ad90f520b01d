//! Two tenants of one gateway in prod: whatever one of them tries, it neither sees nor changes what is the other's.
//!
//! The other one's data is marked: its names, users, models, keys and ids are looked for in every byte of every answer, and
//! how it stands is compared before and after. What the asker said itself is no leak when it is said back.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::support::bodies::{CHAT_ANSWER, CHAT_REQUEST};
use super::support::gateway::ADMIN_KEY;
use super::support::machine::{figures, tell};
use super::support::provider::Seen;
use super::support::*;

mod attempts;

/// What only globex's data holds.
const MARK: &str = "7d24c1-mark";
const UPLOADS: &str = "/upload/v1beta/files";

/// What has to become of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// A status from 400 to 499.
    Refused,
    /// That, or an answer about the asker itself.
    Own,
}

/// Which listener is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Proxy,
    Admin,
}

struct Attempt {
    class: &'static str,
    at: At,
    request: Request,
    outcome: Outcome,
}

/// Two tenants, one of them with data that is marked.
struct Site {
    provider: Provider,
    gateway: Gateway,
    acme: String,
    globex: Globex,
}

/// What there is of globex.
struct Globex {
    key: String,
    key_id: String,
    event: String,
    /// The path and query of an upload that it began.
    upload: String,
    secrets: Vec<String>,
}

/// Answers a chat of globex by a model of its own, and begins uploads.
fn behave(seen: &Seen) -> Script {
    match seen.header("x-goog-upload-command") {
        Some("start") => {
            let address = format!("https://generativelanguage.googleapis.com{UPLOADS}?upload_id={MARK}");
            Script::answer(200, &[("X-Goog-Upload-URL", address.as_str())], "")
        }
        Some(_) => Script::json(200, r#"{"file":{"name":"files/1"}}"#),
        None if String::from_utf8_lossy(&seen.body).contains(MARK) => {
            Script::json(200, CHAT_ANSWER.replace("gpt-4o-mini", &format!("gpt-4o-mini-{MARK}")))
        }
        None => Script::json(200, CHAT_ANSWER),
    }
}

impl Site {
    fn open() -> Self {
        let provider = Provider::start(behave);
        let gateway = Setup::new(&provider).prod().start();
        let acme = gateway.issue("acme", "starter");
        let body = json!({"id": "globex", "name": format!("Globex {MARK}"), "plan": "growth"});
        let made = gateway.admin(Request::post("/admin/tenants", body.to_string()));
        assert_eq!(made.status, 201, "{}", made.text());
        let issued = gateway.issue_key("globex", json!({"name": format!("key {MARK}")}));
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{issued}")).to_owned();
        let (key, key_id) = (text(&issued["key"]), text(&issued["id"]));
        let marked = CHAT_REQUEST.replace("Count to three.", MARK);
        for _ in 0..3 {
            let call = chat_with(&key, marked.clone())
                .header("x-tollgate-user-id", format!("user {MARK}"))
                .header("x-tollgate-kb-id", format!("kb {MARK}"));
            assert_eq!(gateway.send(&call).status, 200);
        }
        gateway.booked(&key, 3);
        let events = gateway.events(&key);
        let ids: Vec<String> = events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
        let begin = Request::post(UPLOADS, "{}")
            .google(&key)
            .header("X-Goog-Upload-Protocol", "resumable")
            .header("X-Goog-Upload-Command", "start");
        let address = gateway.send(&begin).header("x-goog-upload-url").expect("an address");
        let upload = address[address.find(UPLOADS).expect("a path")..].to_owned();
        let event = ids[0].clone();
        let secrets = [MARK.to_owned(), key.clone(), key_id.clone()].into_iter().chain(ids).collect();
        Self { provider, gateway, acme, globex: Globex { key, key_id, event, upload, secrets } }
    }

    fn address(&self, at: At) -> SocketAddr {
        match at {
            At::Proxy => self.gateway.proxy,
            At::Admin => self.gateway.admin,
        }
    }

    /// Everything that there is to know of globex, without when its key was last used.
    fn standing(&self) -> String {
        let mut all = Vec::new();
        for target in [
            "/billing/usage?tenant_id=globex&group_by=provider,model,key,user,kb",
            "/billing/limits?tenant_id=globex",
            "/billing/cost-report?tenant_id=globex&range=all",
            "/billing/events?tenant_id=globex&limit=1000",
            "/admin/tenants/globex",
            "/admin/tenants/globex/keys",
            "/admin/audit?tenant_id=globex&limit=1000",
        ] {
            let answer = self.gateway.admin(Request::get(target));
            assert_eq!(answer.status, 200, "{target}: {}", answer.text());
            let mut answer = answer.json();
            for key in answer["keys"].as_array_mut().into_iter().flatten() {
                key["last_used_at"].take();
            }
            all.push(answer.to_string());
        }
        let all = all.join("\n");
        assert!(all.contains(MARK) && all.contains("\"growth\""), "{all}");
        all
    }

    /// Makes an attempt; says what is wrong with what came of it.
    fn attempt(&self, attempt: &Attempt) -> Result<(), String> {
        let Attempt { class, at, request, outcome } = attempt;
        let answer = request.send(self.address(*at));
        let said = String::from_utf8_lossy(&request.bytes()).into_owned();
        let told = format!("{:?}\n{}", answer.headers, answer.text());
        let wrong =
            |why: &str| Err(format!("{class}: {} {}: {why}: {} {told}", request.method, request.target, answer.status));
        if let Some(secret) =
            self.globex.secrets.iter().find(|secret| told.contains(*secret) && !said.contains(*secret))
        {
            return wrong(&format!("{secret} is told"));
        }
        match (answer.status, outcome) {
            (400..=499, _) => Ok(()),
            (200, Outcome::Own) => match answer.json().get("tenant_id") {
                Some(tenant) if tenant != "acme" => wrong("another tenant answers"),
                _ => Ok(()),
            },
            _ => wrong("not refused"),
        }
    }
}

#[test]
fn no_attempt_reads_or_changes_what_is_anothers() {
    let site = Site::open();
    let before = site.standing();
    let forwarded = site.provider.count();
    let attempts = attempts::all(&site);
    // Whoever looks finds: what globex is told itself would be found, had acme been told it.
    for (target, outcome) in [("/billing/events", Outcome::Own), ("/billing/limits", Outcome::Refused)] {
        let request = Request::get(target).bearer(&site.globex.key);
        site.attempt(&Attempt { class: "", at: At::Proxy, request, outcome }).expect_err(target);
    }
    let mut classes: Vec<(&str, usize)> = Vec::new();
    let mut found = Vec::new();
    for attempt in &attempts {
        found.extend(site.attempt(attempt).err());
        match classes.iter_mut().find(|(class, _)| *class == attempt.class) {
            Some((_, count)) => *count += 1,
            None => classes.push((attempt.class, 1)),
        }
    }
    assert_eq!(site.provider.count(), forwarded, "nothing of these went to the provider");
    let calls = attempts::calls(&site);
    for call in &calls {
        found.extend(site.attempt(call).err());
    }
    let booked = site.gateway.booked(&site.acme, u64::try_from(site.provider.count() - forwarded).unwrap());
    if site.standing() != before {
        found.push(format!("globex stands otherwise:\n{before}\n{}", site.standing()));
    }
    let own = site.gateway.admin(Request::get("/admin/tenants/acme")).json();
    assert_eq!((&own["plan"], &own["suspended"]), (&"starter".into(), &false.into()), "{own}");
    assert!(found.is_empty(), "{} found:\n{}", found.len(), found.join("\n"));
    assert!(attempts.len() >= 60 && booked.calls() > 0, "{} attempts", attempts.len());
    let listed: Vec<String> = classes.iter().map(|(class, count)| format!("{count} {class}")).collect();
    figures(&format!(
        "isolation: {} attempts to read or change another tenant's data ({}), and {} calls in its name: 0 found",
        attempts.len(),
        listed.join(", "),
        calls.len()
    ));
    let of_admins = attempts.iter().filter(|attempt| matches!(attempt.at, At::Admin)).count();
    tell("C25", "another tenant's usage and data", attempts.len() - of_admins, "not a byte of it");
    tell("C26", "a tenant's key on the routes of admins", of_admins, "refused, nothing changed");
}

#[test]
fn one_secret_opens_one_plane() {
    let provider = Provider::start(behave);
    let first = Setup::new(&provider).prod().start();
    let key = first.issue("acme", "starter");
    // An operator who gives a tenant's key as the admin key has made no admin of the tenant.
    let gateway = Setup::new(&provider).prod().set("TOLLGATE_ADMIN_KEY", &key).on_ledger_of(&first);
    drop(first);
    let gateway = gateway.start();
    for target in ["/admin/tenants", "/admin/audit", "/billing/usage?tenant_id=globex"] {
        let answer = Request::get(target).bearer(&key).send(gateway.admin);
        assert_eq!(answer.status, 403, "{target}: {}", answer.text());
    }
    assert_eq!(gateway.usage(&key).calls(), 0);
    assert_ne!(key, ADMIN_KEY);
    tell("C26", "a tenant's key that is given as the admin key", 3, "403: one secret opens one plane");
}
