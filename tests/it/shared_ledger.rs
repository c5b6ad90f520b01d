//! The real binary on a ledger in Postgres: gateway and commands, one gateway at a time without Redis, a server that is not
//! there.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::runtime::Builder;
use tollgate::boot::ledger::Ledger;
use tollgate::config::Config;
use tollgate::domain::event::UsageEvent;

use super::conformance::{at, event};
use super::support::bodies::honest;
use super::support::fault_proxy::{Fault, FaultProxy};
use super::support::machine::{TurnedClock, figures, full, until};
use super::support::postgres::Database;
use super::support::redis::RedisServer;
use super::support::*;

const NOTICED_MAX: Duration = Duration::from_secs(30);

/// Runs a command on the ledger of `url`.
fn command(url: &str, data_dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).env_clear().env("DATABASE_URL", url).env("TOLLGATE_DATA_DIR", data_dir);
    command.env("TOLLGATE_ADMIN_KEY", gateway::ADMIN_KEY).current_dir(data_dir);
    command.output().expect("the binary starts")
}

fn document(url: &str, data_dir: &Path, arguments: &[&str]) -> Value {
    let output = command(url, data_dir, &[arguments, &["--json"]].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {told}{}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {told}"))
}

#[test]
fn calls_are_booked_in_postgres_and_every_command_finds_them_there() {
    let database = Database::new();
    let provider = Provider::start(honest);
    let mut gateway = Setup::new(&provider).set("DATABASE_URL", &database.url).prod().start();
    let key = gateway.issue("acme", "starter");
    use_up(&gateway, &key, 30);
    let usage = gateway.booked(&key, 30);
    assert_eq!((usage.chats, gateway.chats(&key)), (30, (30, 470)));
    assert_eq!(gateway.events(&key).len(), 30);
    assert_eq!(gateway.ready()["status"], "ready");

    let tell = |arguments: &[&str]| document(&database.url, gateway.data_dir(), arguments);
    assert_eq!(tell(&["usage", "acme"])["requests"], 30);
    assert_eq!(tell(&["tenant", "list"])[0]["id"], "acme");
    assert_eq!(tell(&["key", "list", "acme"]).as_array().unwrap().len(), 1);
    assert_eq!(tell(&["audit"])["entries"].as_array().unwrap().len(), 2);
    assert_eq!(tell(&["migrate"])["ok"], true);
    let admin = format!("listen.admin={}", gateway.admin);
    let verified = tell(&["verify", "--set", &admin]);
    assert_eq!((&verified["ok"], &verified["ledger"]["events"]), (&Value::from(true), &Value::from(30)));
    assert!(verified["counters"]["compared"].as_u64().is_some_and(|compared| compared > 0), "{verified}");
    gateway.stop();

    // The counters of the next start are those of the ledger.
    let gateway = Setup::new(&provider).set("DATABASE_URL", &database.url).prod().start();
    assert_eq!(gateway.chats(&key), (30, 470));
    assert_eq!(gateway.events(&key).len(), 30);
}

#[test]
fn a_start_says_nothing_of_tables_that_are_there_already() {
    let database = Database::new();
    let provider = Provider::start(honest);
    // As another gateway leaves it that makes the schema at the same time.
    database.say(
        "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
         installed_on TIMESTAMPTZ NOT NULL DEFAULT now(), success BOOLEAN NOT NULL, checksum BYTEA NOT NULL, \
         execution_time BIGINT NOT NULL)",
    );
    let gateway = Setup::new(&provider).set("DATABASE_URL", &database.url).start();
    // The line of a call comes after all those of the start.
    use_up(&gateway, "acme", 1);
    until("the line of a call", NOTICED_MAX, || gateway.log().contains("tenant=acme"));
    let log = gateway.log();
    assert!(!log.contains("already exists"), "{log}");
}

#[test]
fn killed_it_leaves_nothing_behind_that_keeps_the_next_one_from_starting() {
    let database = Database::new();
    let provider = Provider::start(honest);
    let mut gateway = Setup::new(&provider).set("DATABASE_URL", &database.url).start();
    use_up(&gateway, "acme", 20);
    gateway.kill();
    let again = Setup::new(&provider).set("DATABASE_URL", &database.url).on_ledger_of(&gateway).start();
    assert_eq!(again.booked("acme", 20).chats, 20);
}

#[test]
fn without_redis_a_second_gateway_on_one_ledger_is_refused_and_told_of_redis() {
    let database = Database::new();
    let provider = Provider::start(honest);
    let setup = || Setup::new(&provider).set("DATABASE_URL", &database.url);
    let mut gateway = setup().start();
    let said = setup().refused();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("another tollgate") && said.contains("REDIS_URL"), "{said}");
    assert!(said.contains("postgres://127.0.0.1:") && !said.contains("tollgate@"), "{said}");
    gateway.stop();
    drop(setup().start());
}

#[test]
fn a_gateway_that_counts_for_itself_and_those_that_count_together_refuse_each_other() {
    let (database, redis) = (Database::new(), RedisServer::start());
    let provider = Provider::start(honest);
    let alone = || Setup::new(&provider).set("DATABASE_URL", &database.url);
    let together = || alone().set("REDIS_URL", &redis.url());
    let mut nodes = [together().start(), together().start()];
    for node in &mut nodes {
        let said = alone().refused();
        assert!(said.lines().count() == 1 && said.contains("REDIS_URL for both"), "{said}");
        let copy = ["copy", "--from", &database.url, "--to", "sqlite://copy.db"];
        let output = command(&database.url, node.data_dir(), &copy);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("stop it first"), "{said}");
        node.stop();
    }
    let mut sole = alone().start();
    let said = together().refused();
    assert!(said.lines().count() == 1 && said.contains("REDIS_URL for both"), "{said}");
    sole.stop();
    drop(together().start());
}

#[test]
fn a_claim_whose_connection_is_lost_is_taken_again() {
    let database = Database::new();
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).set("DATABASE_URL", &database.url).start();
    let holders = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 3 AND \
                   database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(database.say(holders), "1");
    database.say(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    until("claimed again", NOTICED_MAX, || gateway.log().contains("The ledger is claimed again."));
    assert_eq!(database.say(holders), "1");
    use_up(&gateway, "acme", 3);
    assert_eq!(gateway.booked("acme", 3).chats, 3);
}

#[test]
fn a_server_that_is_not_there_is_one_line_that_names_the_fix_and_no_password() {
    let provider = Provider::start(honest);
    let url = "postgres://tollgate:hunter2@127.0.0.1:1/ledger";
    let setup = Setup::new(&provider).set("DATABASE_URL", url).set("RUST_LOG", "warn");
    let data_dir = setup.data_dir();
    let began = Instant::now();
    let said = setup.refused();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.len() == 2 && lines[0].contains("Waiting for Postgres"), "{said}");
    let named = lines[1].contains("postgres://127.0.0.1:1/ledger") && lines[1].contains("DATABASE_URL");
    assert!(named && !said.contains("hunter2"), "{said}");
    assert!(began.elapsed() > Duration::from_secs(10), "it may be starting, too");

    std::fs::create_dir_all(&data_dir).unwrap();
    for arguments in [&["usage"][..], &["verify"], &["migrate"], &["check"]] {
        let output = command(url, &data_dir, arguments);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        assert_eq!(output.status.success(), arguments == ["check"], "{said}");
        assert!(!said.contains("hunter2"), "{said}");
        assert!(arguments == ["check"] || (said.lines().count() == 1 && said.contains("DATABASE_URL")), "{said}");
    }
}

#[test]
fn old_months_are_dropped_beside_a_gateway_that_serves() {
    let provider = Provider::start(honest);
    let database = Database::new();
    for url in [None, Some(database.url.as_str())] {
        let setup = Setup::new(&provider);
        let setup = if let Some(url) = url { setup.set("DATABASE_URL", url) } else { setup };
        let gateway = setup.prod().start();
        let file = format!("sqlite://{}", gateway.ledger_file().display());
        let url = url.unwrap_or(&file);
        let tell = |arguments: &[&str]| document(url, gateway.data_dir(), arguments);
        let key = gateway.issue("acme", "starter");
        use_up(&gateway, &key, 5);
        gateway.booked(&key, 5);
        let plan = tell(&["retention", "--keep", "13mo"]);
        assert_eq!((&plan["events"], &plan["kept_back"]), (&Value::from(0), &Value::Null), "{plan}");
        book_old(url, gateway.data_dir());
        use_up(&gateway, &key, 1);
        gateway.booked(&key, 6);
        let dry = tell(&["retention", "--keep", "13mo", "--dry-run"]);
        assert_eq!((&dry["events"], &dry["dry_run"]), (&Value::from(3), &Value::from(true)), "{dry}");
        let plan = tell(&["retention", "--keep", "13mo"]);
        assert_eq!((&plan["events"], &plan["months"]), (&dry["events"], &dry["months"]), "{plan}");
        assert_eq!(tell(&["retention", "--keep", "13mo"])["events"], 0);
        let log = tell(&["audit", "--action", "events.drop"]);
        let entries = log["entries"].as_array().unwrap();
        assert_eq!((entries.len(), &entries[0]["actor"]), (1, &Value::from("cli")), "{log}");
        // A total stands, and what would be wrong is refused.
        assert_eq!(tell(&["usage", "acme", "--date", "2024-01"])["requests"], 2);
        let refused = command(url, gateway.data_dir(), &["usage", "acme", "--date", "2024-01", "--group-by", "key"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("were dropped"), "{said}");
        let target = "/billing/usage?range=month&date=2024-01&group_by=key&tenant_id=acme";
        let answer = gateway.admin(Request::get(target));
        assert_eq!((answer.status, &answer.json()["code"]), (422, &Value::from("events_dropped")));
        assert_eq!(tell(&["verify", "--set", &format!("listen.admin={}", gateway.admin)])["ok"], true);
        assert_eq!(gateway.booked(&key, 6).chats, 6);
    }
}

/// Books three calls of January and February 2024 beside the gateway.
fn book_old(url: &str, data_dir: &Path) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let old = |number, at_text: &str| UsageEvent { requested_at: at(at_text), ..event(number) };
    let events = [old(1, "2024-01-05T00:00:00Z"), old(2, "2024-01-31T23:59:59Z"), old(3, "2024-02-01T00:00:00Z")];
    let variables = BTreeMap::from([
        ("DATABASE_URL".to_owned(), url.to_owned()),
        ("TOLLGATE_DATA_DIR".to_owned(), data_dir.display().to_string()),
    ]);
    let config = Config::load(&[], &variables, None).unwrap();
    runtime.block_on(async {
        let ledger = Ledger::open(&config, false, Duration::ZERO).await.unwrap();
        assert_eq!(ledger.usage().append(&events).await, Ok(3));
        ledger.leave().await;
    });
}

/// Somebody who is in the way of a retention, until the value is dropped.
struct InTheWay {
    runtime: tokio::runtime::Runtime,
    connection: Option<PgConnection>,
}

impl InTheWay {
    /// Says `statement` in a transaction that stays open.
    fn of(url: &str, statement: &'static str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let connection = runtime.block_on(async {
            let mut connection = PgConnection::connect(url).await.unwrap();
            sqlx::raw_sql("BEGIN").execute(&mut connection).await.unwrap();
            sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
            connection
        });
        Self { runtime, connection: Some(connection) }
    }
}

impl Drop for InTheWay {
    fn drop(&mut self) {
        let connection = self.connection.take().unwrap();
        self.runtime.block_on(connection.close()).unwrap();
    }
}

#[test]
fn retention_waits_for_whoever_is_in_its_way_and_says_whom_it_waited_for_in_vain() {
    // As `tollgate verify` and pg_dump do, and as a change of tenants does.
    let reads_all = "LOCK TABLE usage_events IN ACCESS SHARE MODE";
    let waits = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let data_dir = tempfile::TempDir::new().unwrap();
    let retention = ["retention", "--keep", "13mo"];
    for statement in [reads_all, "SELECT singleton FROM meta FOR UPDATE"] {
        let database = Database::new();
        document(&database.url, data_dir.path(), &["migrate"]);
        book_old(&database.url, data_dir.path());
        let in_the_way = InTheWay::of(&database.url, statement);
        let url = database.url.clone();
        let path = data_dir.path().to_owned();
        let retaining = thread::spawn(move || document(&url, &path, &retention));
        for is_waiting in ["1", "0", "1"] {
            until("it waits, for a moment at a time", NOTICED_MAX, || database.say(waits) == is_waiting);
        }
        assert!(!retaining.is_finished(), "{statement}");
        drop(in_the_way);
        assert_eq!(retaining.join().unwrap()["events"], 3, "{statement}");
    }
    if full() {
        let database = Database::new();
        document(&database.url, data_dir.path(), &["migrate"]);
        book_old(&database.url, data_dir.path());
        let _in_the_way = InTheWay::of(&database.url, reads_all);
        let began = Instant::now();
        let output = command(&database.url, data_dir.path(), &retention);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = said.lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(last.contains("`tollgate verify`") && last.contains("again when that is over"), "{said}");
        assert!(said.contains("drop 0 %, 0 of 3 events"), "{said}");
        figures(&format!("retention behind a reader without end: gave up after {} s", began.elapsed().as_secs()));
        assert_eq!(database.say("SELECT COUNT(*) FROM usage_events"), "3");
    }
}

#[test]
fn a_month_that_the_journal_may_still_book_into_is_kept_and_that_is_said() {
    let provider = Provider::start(honest);
    let database = Database::new();
    let mut gateway = Setup::new(&provider).set("DATABASE_URL", &database.url).prod().start();
    let key = gateway.issue("acme", "starter");
    // Nothing is booked any more: what is called stays in the journal.
    database.say("ALTER TABLE usage_events RENAME TO elsewhere");
    use_up(&gateway, &key, 2);
    gateway.kill();
    database.say("ALTER TABLE elsewhere RENAME TO usage_events");
    book_old(&database.url, gateway.data_dir());
    let months = 24 * 12;
    let plan = document(&database.url, gateway.data_dir(), &["retention", "--keep", &format!("{months}mo")]);
    assert_eq!((&plan["events"], &plan["kept_back"]), (&Value::from(0), &Value::Null), "{plan}");
    let text = command(&database.url, gateway.data_dir(), &["retention", "--keep", "1mo"]);
    assert_eq!(text.status.code(), Some(2), "so few months would drop what a journal may hold");
    let Some(clock) = TurnedClock::new() else {
        figures("retention beside a full journal: left out, libfaketime is not installed");
        return;
    };
    clock.stop_at("2029-03-01 00:00:00");
    let mut command = Command::new(binary());
    command.args(["retention", "--keep", "13mo", "--json"]).env_clear().envs(clock.variables());
    command.env("DATABASE_URL", &database.url).env("TOLLGATE_DATA_DIR", gateway.data_dir());
    let output = command.output().unwrap();
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&plan["events"], &plan["kept_back"]["calls_in_journal"]), (&Value::from(3), &Value::from(2)), "{plan}");
}

/// The connection to Postgres that a firewall forgot takes what is said and never answers.
#[test]
fn a_key_is_revoked_in_time_while_a_connection_to_postgres_is_half_open() {
    let provider = Provider::start(honest);
    let database = Database::new();
    let (front, name) = database.url.rsplit_once('/').unwrap();
    let port = front.rsplit_once(':').unwrap().1;
    let proxy = FaultProxy::start(format!("127.0.0.1:{port}").parse().unwrap());
    let through = format!("{}{}/{name}", front.strip_suffix(port).unwrap(), proxy.address.port());
    let gateway = Setup::new(&provider).set("DATABASE_URL", &through).prod().start();
    let key = gateway.issue("acme", "pro");
    assert_eq!(gateway.send(&chat(&key)).status, 200);
    let keys = document(&database.url, gateway.data_dir(), &["key", "list", "acme"]);
    proxy.set(Fault::HangOld);
    document(&database.url, gateway.data_dir(), &["key", "revoke", "acme", keys[0]["id"].as_str().unwrap()]);
    let began = Instant::now();
    until("refused", NOTICED_MAX, || gateway.send(&chat(&key)).status == 401);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// Gateways of another version may be at work on a ledger: what only reads makes none and changes no schema.
#[test]
fn commands_make_no_ledger_where_there_is_none_and_change_no_schema() {
    let reads: [&[&str]; 7] = [
        &["usage"],
        &["audit"],
        &["tenant", "list"],
        &["tenant", "show", "acme"],
        &["key", "list", "acme"],
        &["prices", "books"],
        &["prices", "rerate", "--from", "2026-01-01T00:00:00Z", "--dry-run"],
    ];
    let changes: [&[&str]; 4] = [
        &["tenant", "suspend", "acme"],
        &["key", "create", "acme"],
        &["secrets", "rotate"],
        &["secrets", "forget", "0123456789abcdef", "--yes"],
    ];
    let refused = |url: &str, data_dir: &Path, arguments: &[&str], fix: &str| {
        let output = command(url, data_dir, arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.lines().count() == 1 && told.contains(fix), "{arguments:?}: {told}");
    };
    let nowhere = tempfile::TempDir::new().unwrap();
    let data_dir = nowhere.path().join("data");
    let sqlite = format!("sqlite://{}", data_dir.join("billing/billing.db").display());
    for arguments in reads.iter().chain(&changes) {
        refused(&sqlite, nowhere.path(), arguments, "does not exist");
        assert_eq!(std::fs::read_dir(nowhere.path()).unwrap().count(), 0, "{arguments:?}");
    }
    let database = Database::new();
    for url in [sqlite.as_str(), &database.url] {
        // What a first user does makes one.
        document(url, nowhere.path(), &["tenant", "create", "acme"]);
        document(url, nowhere.path(), &["key", "create", "acme"]);
        assert_eq!(document(url, nowhere.path(), &["tenant", "list"])[0]["id"], "acme");
    }
    // As a ledger is that this version would bring up to date.
    let newest = "DELETE FROM _sqlx_migrations WHERE version = (SELECT MAX(version) FROM _sqlx_migrations)";
    let count = "SELECT COUNT(*) FROM _sqlx_migrations";
    database.say(newest);
    let before = database.say(count);
    for arguments in reads.iter().chain(&changes).chain([&["tenant", "create", "other"][..]].iter()) {
        refused(&database.url, nowhere.path(), arguments, "run `tollgate migrate`");
        assert_eq!(database.say(count), before, "{arguments:?}");
    }
}

/// Ended or killed: no key of a demo works for ever on a ledger that stays.
#[test]
fn a_demo_on_a_ledger_that_is_kept_leaves_no_key_that_works() {
    let directory = tempfile::TempDir::new().unwrap();
    let demo = |signal: &str| {
        let mut child = Command::new(binary())
            .args(["demo", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir"])
            .arg(directory.path())
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let is_last = |line: &String| ["stay in the ledger", "forgets everything"].iter().any(|end| line.contains(end));
        let last = lines.find(is_last);
        Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(last.as_ref().is_some_and(|line| line.contains("stay in")), "{last:?}");
        output
    };
    let ended = demo("INT");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    demo("KILL");
    let url = format!("sqlite://{}", directory.path().join("billing/billing.db").display());
    let keys = document(&url, directory.path(), &["key", "list", "demo"]);
    let ends: Vec<(bool, bool)> = keys
        .as_array()
        .unwrap()
        .iter()
        .map(|key| (key["expires_at"].is_string(), key["revoked_at"].is_string()))
        .collect();
    assert_eq!(ends, [(true, false), (true, true)], "newest first: {keys}");
}
