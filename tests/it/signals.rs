//! What the process does when it is signalled: drains, cuts, reloads.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::support::bodies::*;
use super::support::*;

const POLL: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(10);
/// What an end may take beyond the drain limit.
const GRACE: Duration = Duration::from_secs(2);

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(POLL);
    }
}

/// A stream of ten words that waits after the third until the gate is passed.
fn held_stream(gate: &Gate) -> Script {
    let mut script = Script::open(&[("Content-Type", "text/event-stream")]);
    for (at, event) in chat_events(10).iter().enumerate() {
        if at == 3 {
            script = script.then(Step::Wait(gate.clone(), 1));
        }
        script = script.then(Step::Send(wire::chunk(event)));
    }
    script.then(Step::Send(wire::LAST_CHUNK.to_vec()))
}

/// Begins a stream of `tenant` that hangs after its third word.
fn begin_stream(gateway: &Gateway, tenant: &str) -> (Wire, Vec<u8>) {
    let mut wire = Wire::open(gateway.proxy);
    wire.send(&chat_with(tenant, CHAT_USAGE_REQUEST).bytes());
    assert_eq!(wire.head_of_answer("POST").unwrap().status(), 200);
    let mut body = Vec::new();
    while !String::from_utf8_lossy(&body).contains("word2 ") {
        match wire.piece() {
            Piece::Bytes(bytes) => body.extend(bytes),
            end => panic!("{end:?}"),
        }
    }
    (wire, body)
}

/// A provider with one stream under way that waits for the gate.
fn streaming(setup: impl FnOnce(&Provider) -> Setup) -> (Provider, Gateway, Gate, Wire, Vec<u8>) {
    let (provider, gate) = (Provider::start(honest), Gate::default());
    let gateway = setup(&provider).start();
    let script = held_stream(&gate);
    provider.now_does(move |_| script.clone());
    let (wire, body) = begin_stream(&gateway, "acme");
    (provider, gateway, gate, wire, body)
}

fn is_draining(gateway: &Gateway) -> bool {
    let answer = Request::get("/readyz").send(gateway.admin);
    answer.status == 503 && answer.json()["checks"]["draining"] == true
}

/// The ledger's one event of `acme`, as a gateway has it that is started on the same ledger.
fn booked_after(provider: &Provider, gateway: &Gateway) -> serde_json::Value {
    let again = Setup::new(provider).on_ledger_of(gateway).start();
    again.event("acme")
}

#[test]
fn while_draining_nobody_new_is_served_and_readiness_says_so() {
    let (provider, mut gateway, gate, mut wire, mut body) = streaming(Setup::new);
    // Two more connections: one with half a request, and one idle, whose answer says that the gateway has taken both.
    let mut half = Wire::open(gateway.proxy);
    let request = chat("acme").bytes();
    half.send(&request[..20]);
    let mut idle = Wire::open(gateway.proxy);
    assert_eq!(idle.ask(&Request::get("/healthz")).status, 200);
    gateway.signal("TERM");
    until("the admin listener says that it drains", || is_draining(&gateway));
    until("new connections are refused", || std::net::TcpStream::connect(gateway.proxy).is_err());
    assert!(idle.is_closed_by_peer(), "an idle connection is closed");
    half.send(&request[20..]);
    let refused = half.answer().expect("an answer to the request that had begun");
    assert_eq!((refused.status, refused.header("connection")), (503, Some("close".to_owned())));
    assert!(refused.header("retry-after").is_some());
    assert!(half.is_closed_by_peer());
    assert_eq!(provider.count(), 1);
    gate.pass();
    assert!(wire.rest(&mut body), "the stream under way ends whole");
    assert_eq!(body, whole(&chat_events(10)));
    let status = gateway.ended();
    assert!(status.success(), "{status}");
    assert_eq!(booked_after(&provider, &gateway)["outcome"], "completed");
}

#[test]
fn a_stream_whose_client_left_is_drained_too() {
    let (provider, mut gateway, gate, wire, _) = streaming(Setup::new);
    drop(wire);
    gateway.signal("TERM");
    until("the gateway drains", || is_draining(&gateway));
    gate.pass();
    let status = gateway.ended();
    assert!(status.success(), "{status}");
    let event = booked_after(&provider, &gateway);
    assert_eq!((&event["total_tokens"], &event["usage_source"]), (&18.into(), &"provider".into()), "{event}");
}

#[test]
fn what_is_open_at_the_drain_limit_is_cut_and_booked_as_interrupted() {
    let drain_limit = Duration::from_secs(1);
    let (provider, mut gateway, _gate, mut wire, mut body) =
        streaming(|provider| Setup::new(provider).set("TOLLGATE_SHUTDOWN_DRAIN_LIMIT", "1s"));
    let began = Instant::now();
    gateway.signal("TERM");
    assert!(!wire.rest(&mut body), "the stream is cut");
    assert!(began.elapsed() >= drain_limit);
    let status = gateway.ended();
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < drain_limit + GRACE, "{:?}", began.elapsed());
    demand_interrupted(&booked_after(&provider, &gateway));
}

/// Three words were delivered, and the provider had said no usage yet.
fn demand_interrupted(event: &serde_json::Value) {
    assert_eq!((&event["outcome"], &event["usage_source"]), (&"interrupted".into(), &"estimate".into()), "{event}");
    for tokens in ["prompt_tokens", "completion_tokens"] {
        assert!(event[tokens].as_u64().unwrap() > 0, "{tokens} in {event}");
    }
}

#[test]
fn a_second_signal_cuts_at_once() {
    for second in ["INT", "TERM"] {
        let (provider, mut gateway, _gate, mut wire, mut body) = streaming(Setup::new);
        gateway.signal("INT");
        until("the gateway drains", || is_draining(&gateway));
        let began = Instant::now();
        gateway.signal(second);
        assert!(!wire.rest(&mut body), "the stream is cut");
        let status = gateway.ended();
        assert!(status.success(), "{status}");
        assert!(began.elapsed() < GRACE, "{:?}", began.elapsed());
        demand_interrupted(&booked_after(&provider, &gateway));
    }
}

/// Holds the write lock of a ledger until it is dropped.
struct Locked {
    _runtime: tokio::runtime::Runtime,
    _connection: sqlx::SqliteConnection,
}

fn lock(gateway: &Gateway) -> Locked {
    use sqlx::Connection;
    let ledger = gateway.files().into_iter().find(|path| path.ends_with("billing.db")).expect("a ledger");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connection = runtime.block_on(async {
        let mut connection = sqlx::SqliteConnection::connect(&format!("sqlite://{}", ledger.display())).await.unwrap();
        sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.unwrap();
        connection
    });
    Locked { _runtime: runtime, _connection: connection }
}

#[test]
fn a_ledger_that_takes_nothing_does_not_hold_up_the_end() {
    // The limit alone bounds the wait, then a second signal does.
    for (drain_limit, signals) in [("1s", ["TERM"].as_slice()), ("30s", &["INT", "INT"])] {
        let provider = Provider::start(honest);
        let mut gateway = Setup::new(&provider).set("TOLLGATE_SHUTDOWN_DRAIN_LIMIT", drain_limit).start();
        assert_eq!(gateway.send(&chat("acme")).status, 200);
        gateway.booked("acme", 1);
        let locked = lock(&gateway);
        assert_eq!(gateway.send(&chat("acme")).status, 200);
        let began = Instant::now();
        for (at, signal) in signals.iter().enumerate() {
            gateway.signal(signal);
            if at + 1 < signals.len() {
                until("the signal is taken", || gateway.log().contains("Draining"));
            }
        }
        let status = gateway.ended();
        let took = began.elapsed();
        assert!(status.success(), "{status}");
        assert!(took < Duration::from_secs(1) + GRACE, "{took:?} of {drain_limit}");
        let lines = logged(&gateway, 0, "booked at the next start");
        assert!(lines.len() == 1 && lines[0].contains("events=1"), "{lines:?}");
        drop(locked);
        let usage = Setup::new(&provider).on_ledger_of(&gateway).start().booked("acme", 2);
        assert_eq!((usage.chats, usage.cost()), (2, 2 * CHAT_PICO_USD));
    }
}

#[test]
fn a_reload_does_not_disturb_a_drain() {
    let (_provider, mut gateway, gate, mut wire, mut body) = streaming(|provider| Setup::new(provider).config(""));
    gateway.signal("TERM");
    until("the gateway drains", || is_draining(&gateway));
    gateway.signal("HUP");
    until("the signal is answered", || gateway.log().contains("is not read again"));
    gate.pass();
    assert!(wire.rest(&mut body), "the stream under way ends whole");
    let status = gateway.ended();
    assert!(status.success(), "{status}");
}

/// The lines with `text` that the gateway logs from `from` on, as soon as there is one.
fn logged(gateway: &Gateway, from: usize, text: &str) -> Vec<String> {
    let lines =
        || -> Vec<String> { gateway.log()[from..].lines().filter(|l| l.contains(text)).map(str::to_owned).collect() };
    until(text, || !lines().is_empty());
    lines()
}

/// A gateway whose configuration is a file, and how often it was reloaded.
struct Reloading {
    gateway: Gateway,
    file: std::path::PathBuf,
    reloads: (u64, u64),
}

impl Reloading {
    fn start(setup: Setup, toml: &str) -> Self {
        // Reloads are counted here: only signals may ask for one.
        let gateway = setup.set("TOLLGATE_RELOAD_WATCH", "false").config(toml).start();
        let file = gateway.config_file();
        let reloading = Self { gateway, file, reloads: (0, 0) };
        assert_eq!(reloading.counted(), (0, 0));
        reloading
    }

    /// `tollgate_config_reloads_total`: taken, refused.
    fn counted(&self) -> (u64, u64) {
        let text = Request::get("/metrics").send(self.gateway.admin).text();
        let count = |result: &str| {
            let name = format!("tollgate_config_reloads_total{{result=\"{result}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).expect(&name)
        };
        (count("ok"), count("error"))
    }

    /// Signals and waits until the reload was taken.
    fn taken(&mut self, toml: &str) {
        std::fs::write(&self.file, toml).unwrap();
        self.reloads.0 += 1;
        self.reload();
        assert!(!self.last_failed());
    }

    /// Signals and waits until the reload was refused.
    fn refused(&mut self) {
        self.reloads.1 += 1;
        self.reload();
        assert!(self.last_failed());
    }

    fn reload(&self) {
        let before = self.counted();
        self.gateway.signal("HUP");
        until("the reload is counted", || self.counted() != before);
        assert_eq!(self.counted(), self.reloads);
    }

    fn last_failed(&self) -> bool {
        let ready = Request::get("/readyz").send(self.gateway.admin);
        assert_eq!(ready.status, 200, "a refused reload takes no node out: {}", ready.text());
        ready.json()["configuration"]["last_reload_failed"] == true
    }
}

/// `gpt-4o-mini` at so many pico-dollars a token, in and out.
fn price_file(path: &Path, input: u64, output: u64) {
    let text = format!(
        r#"{{"format":1,"models":[{{"provider":"openai","model":"gpt-4o-mini","match":["gpt-4o-mini"],
            "rates":[{{"tier":"standard","input":{input},"output":{output}}}]}}]}}"#
    );
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_reload_changes_what_can_change_and_names_what_waits() {
    let (first, second) = (Provider::start(honest), Provider::start(honest));
    let setup = Setup::new(&first)
        .unset("TOLLGATE_OPENAI_URL")
        .unset("OPENAI_API_KEY")
        .unset("TOLLGATE_ADMIN_KEY")
        .unset("RUST_LOG");
    // One that repeats a few letters, or has words of examples in it, is refused as weak.
    let admin = |letter: &str| format!("{letter}f3a9c1e7b2d84650a9c3e1f7b6d2840f5e9a7c3b1");
    let config = |provider: &Provider, key: &str, chats: u64, rest: &str| {
        format!(
            "[admin]\nkey = \"{}\"\n[providers.openai]\nurl = \"{}\"\napi_key = \"sk-{key}\"\n\
             [plans.starter]\nchats_per_month = {chats}\n{rest}",
            admin(key),
            provider.url()
        )
    };
    let mut reloading = Reloading::start(setup, &config(&first, "A", 1, ""));
    assert_eq!(reloading.gateway.send(&chat("acme")).status, 200);
    assert_eq!(reloading.gateway.send(&chat("acme")).status, 402);
    let as_admin = |reloading: &Reloading, key: &str| {
        Request::get("/admin/tenants").bearer(&admin(key)).send(reloading.gateway.admin).status
    };
    assert_eq!((as_admin(&reloading, "A"), as_admin(&reloading, "B")), (200, 401));

    let rest = "[plans.gold]\nchats_per_month = 9\n[listen]\nbody_limit = \"300B\"\nproxy = \"127.0.0.1:1\"\n\
                [runtime]\nworkers = 7\n[log]\nfilter = \"debug\"\n";
    reloading.taken(&config(&second, "B", 3, rest));
    let gateway = &reloading.gateway;
    assert_eq!(gateway.send(&chat("acme")).status, 200, "the plan is larger now, and what was used stays used");
    assert_eq!(gateway.chats("acme"), (2, 1));
    assert_eq!((first.count(), second.count()), (1, 1), "the second provider is asked now");
    assert_eq!(second.last().header("authorization"), Some("Bearer sk-B"));
    assert_eq!((as_admin(&reloading, "A"), as_admin(&reloading, "B")), (401, 200));
    let long = CHAT_REQUEST.replace("Count", &"Count ".repeat(100));
    assert_eq!(gateway.send(&chat_with("acme", long)).status, 413);
    let waiting = logged(gateway, 0, "wait for a restart");
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    assert!(waiting[0].contains("runtime.workers"), "{waiting:?}");
}

#[test]
fn isolation_changes_by_a_reload_and_never_by_a_mode_that_was_lost() {
    let provider = Provider::start(honest);
    let setup = Setup::new(&provider).unset("TOLLGATE_UNKNOWN_OBJECTS").unset("TOLLGATE_OBJECT_LISTS");
    let mut reloading = Reloading::start(setup, "env = \"prod\"\n");
    let key = reloading.gateway.issue("acme", "starter");
    let with =
        |value: &str| format!("env = \"prod\"\n[isolation]\nlists = \"{value}\"\nunknown_objects = \"{value}\"\n");
    let refused = |gateway: &Gateway| {
        let status = |target: &str| gateway.send(&Request::get(target).bearer(&key)).status;
        (status("/v1/files") == 403, status("/v1/files/file-nobodys") == 404)
    };
    assert_eq!(refused(&reloading.gateway), (true, true));
    for (toml, is_refused) in
        [(with("allow"), false), (with("refuse"), true), (with("allow"), false), (String::new(), true)]
    {
        reloading.taken(&toml);
        assert_eq!(refused(&reloading.gateway), (is_refused, is_refused), "{toml}");
    }
    let waiting = logged(&reloading.gateway, 0, "wait for a restart");
    assert!(waiting.len() == 1 && waiting[0].contains("env"), "{waiting:?}");
}

#[test]
fn a_configuration_that_is_wrong_changes_nothing_and_every_error_is_named() {
    let provider = Provider::start(honest);
    let good = "[plans.starter]\nchats_per_month = 100\n[plans.gold]\nchats_per_month = 5\n";
    let mut reloading = Reloading::start(Setup::new(&provider).prod().unset("RUST_LOG"), good);
    let key = reloading.gateway.issue("acme", "gold");
    let prices = reloading.file.with_file_name("prices.json");
    std::fs::write(&prices, r#"{"format":1,"models":[{"provider":"openai"}]}"#).unwrap();
    let prices = format!("prices.file = {:?}\n{good}", prices.display().to_string());
    let rows: [(&str, &str, &[&str]); 9] = [
        ("no TOML", "plans = [", &["no valid TOML"]),
        (
            "an unknown key",
            "[plans.starter]\nchats_per_mnth = 3\n[listne]\nproxy = \"x\"\n",
            &["chats_per_month", "listne"],
        ),
        ("a wrong plan", &format!("{good}[plans.trial]\nchats_per_month = -7\n"), &["plans.trial"]),
        ("a wrong price file", &prices, &["prices.file", "prices.json"]),
        ("no such price file", "prices.file = \"gone.json\"\n", &["gone.json"]),
        ("a plan that is in use is gone", "[plans.starter]\nchats_per_month = 7\n", &["gold", "acme"]),
        ("a filter that is none", &format!("log.filter = \"tollgate=loud\"\n{good}"), &["log.filter", "loud"]),
        ("two wrong values", "upstream.idle_timeout = \"soon\"\nlisten.body_limit = \"much\"\n", &["soon", "much"]),
        ("no TLS name", &format!("providers.vertex.url = \"https://-\"\n{good}"), &["host name"]),
    ];
    for (calls, (what, toml, words)) in (1..).zip(rows) {
        std::fs::write(&reloading.file, toml).unwrap();
        let before = reloading.gateway.log().len();
        reloading.refused();
        let lines = logged(&reloading.gateway, before, "was not reloaded");
        assert_eq!(lines.len(), 1, "{what}: {lines:?}");
        for word in words {
            assert!(lines[0].contains(word), "{what}: {word} in {}", lines[0]);
        }
        if calls <= 5 {
            assert_eq!(reloading.gateway.send(&chat(&key)).status, 200, "{what}");
            assert_eq!(reloading.gateway.chats(&key), (calls, 5 - i64::try_from(calls).unwrap()), "{what}");
        }
        assert_eq!(reloading.gateway.json(&key, "/billing/limits")["monthly_limit"], 5, "{what}");
    }
    std::fs::remove_file(&reloading.file).unwrap();
    reloading.refused();
    std::fs::create_dir(&reloading.file).unwrap();
    reloading.refused();
    std::fs::remove_dir(&reloading.file).unwrap();
    reloading.taken(&good.replace('5', "6"));
    assert_eq!(reloading.gateway.chats(&key), (5, 1));
    // Twice in a row, each on its own: nothing is left of the first.
    reloading.taken(good);
    reloading.taken(good);
    assert_eq!(reloading.gateway.chats(&key), (5, 0));
}

#[test]
fn a_pipe_is_not_read_a_second_time() {
    let provider = Provider::start(honest);
    let setup = Setup::new(&provider);
    let mut reloading = Reloading::start(setup, "[plans.starter]\nchats_per_month = 2\n");
    std::fs::remove_file(&reloading.file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&reloading.file).status().unwrap().success());
    reloading.refused();
    assert_eq!(reloading.gateway.limits("acme")["monthly_limit"], 2);
}

#[test]
fn a_call_in_flight_keeps_the_price_it_was_admitted_at() {
    let (provider, gate) = (Provider::start(honest), Gate::default());
    let setup = Setup::new(&provider);
    let mut reloading = Reloading::start(setup, "");
    let prices = reloading.file.with_file_name("prices.json");
    let config = format!("prices.file = {:?}\n", prices.display().to_string());
    price_file(&prices, 1, 10);
    reloading.taken(&config);
    let waits = gate.clone();
    provider.now_does(move |seen| honest(seen).after(Step::Wait(waits.clone(), 1)));
    let mut wire = Wire::open(reloading.gateway.proxy);
    wire.send(&chat("before").bytes());
    provider.demand_count(1);
    price_file(&prices, 2, 20);
    reloading.taken(&config);
    gate.pass();
    assert_eq!(wire.answer().unwrap().status, 200);
    assert_eq!(reloading.gateway.send(&chat("after")).status, 200);
    let gateway = &reloading.gateway;
    let (before, after) = (gateway.booked("before", 1), gateway.booked("after", 1));
    assert_eq!((before.cost(), after.cost()), (11 + 7 * 10, 11 * 2 + 7 * 20));
    let version = |tenant: &str| gateway.event(tenant)["price_version"].clone();
    assert_ne!(version("before"), version("after"));
}

#[test]
fn connections_to_a_provider_that_stays_are_kept() {
    let (stays, goes, comes) = (Provider::start(honest), Provider::start(honest), Provider::start(honest));
    let setup = Setup::new(&stays).set("TOLLGATE_WORKERS", "1").unset("TOLLGATE_GEMINI_URL");
    let config = |provider: &Provider| format!("providers.gemini.url = \"{}\"\n", provider.url());
    let mut reloading = Reloading::start(setup, &config(&goes));
    let ask = |reloading: &Reloading| {
        for request in [chat("acme"), gemini("acme")] {
            assert_eq!(reloading.gateway.send(&request).status, 200);
        }
    };
    ask(&reloading);
    reloading.taken(&config(&comes));
    ask(&reloading);
    assert_eq!((stays.connections(), goes.connections(), comes.connections()), (1, 1, 1));
    assert_eq!((stays.count(), goes.count(), comes.count()), (2, 1, 1));
    assert!(goes.closed().wait(1), "the connection to a provider that nobody names any more is closed");
}

#[test]
fn calls_go_on_while_the_configuration_is_reloaded_again_and_again() {
    const CALLS: usize = 150;
    let provider = Provider::start(honest);
    let mut reloading = Reloading::start(Setup::new(&provider), "");
    let address = reloading.gateway.proxy;
    let callers: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                let mut wire = Wire::open(address);
                (0..CALLS).filter(|_| wire.ask(&chat("acme")).status == 200).count()
            })
        })
        .collect();
    let mut reloads = 0;
    while reloads < 5 || callers.iter().any(|caller| !caller.is_finished()) {
        reloads += 1;
        let chats = 5_000 + reloads;
        reloading.taken(&format!("[plans.starter]\nchats_per_month = {chats}\n"));
        assert_eq!(reloading.gateway.limits("acme")["monthly_limit"], chats);
    }
    let served: usize = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
    assert_eq!((served, provider.count()), (4 * CALLS, 4 * CALLS));
    let usage = reloading.gateway.booked("acme", 4 * CALLS as u64);
    assert_eq!(usage.cost(), 4 * CALLS as u64 * CHAT_PICO_USD);
}
