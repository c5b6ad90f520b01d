//! The real binary on a ledger in Postgres: gateway and commands, one gateway at a time without Redis, a server that is not
//! there.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::bodies::honest;
use super::support::machine::until;
use super::support::postgres::Database;
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
    until("claimed again", NOTICED_MAX, || gateway.log().contains("claimed again."));
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
