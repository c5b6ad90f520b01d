//! The admin key that a gateway makes, in a data directory that serves one ledger after another.

use std::fs;
use std::time::Duration;

use super::support::bodies::honest;
use super::support::machine::until;
use super::support::*;

const NOTICED_MAX: Duration = Duration::from_secs(10);

fn shown(gateway: &Gateway) -> String {
    fs::read_to_string(gateway.data_dir().join("admin.key")).unwrap().trim().to_owned()
}

fn opens(gateway: &Gateway, key: &str) -> bool {
    Request::get("/admin/tenants").bearer(key).send(gateway.admin).status == 200
}

/// Demands one warning with these words, of which each line of the log names `admin.key`.
fn demand_warned(gateway: &Gateway, words: &[&str]) {
    let is_it = |line: &&str| line.contains("WARN") && line.contains("admin.key");
    until("the warning", NOTICED_MAX, || gateway.log().lines().any(|line| is_it(&line)));
    let log = gateway.log();
    let warnings: Vec<&str> = log.lines().filter(is_it).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(words.iter().all(|word| warnings[0].contains(word)), "{words:?}: {log}");
}

#[test]
fn a_start_with_another_ledger_keeps_the_admin_key_of_the_first() {
    let provider = Provider::start(honest);
    let setup = || Setup::new(&provider).unset("TOLLGATE_ADMIN_KEY");
    let elsewhere = tempfile::tempdir().unwrap();
    let other = format!("sqlite://{}/other.db", elsewhere.path().display());
    let mut gateway = setup().start();
    let first = shown(&gateway);
    assert!(opens(&gateway, &first));
    gateway.stop();

    let mut gateway = setup().on_ledger_of(&gateway).set("DATABASE_URL", &other).start();
    let second = shown(&gateway);
    assert!(first != second && opens(&gateway, &second) && !opens(&gateway, &first));
    demand_warned(&gateway, &["another ledger", "kept"]);
    gateway.stop();

    let mut gateway = setup().on_ledger_of(&gateway).start();
    assert_eq!(shown(&gateway), first);
    assert!(opens(&gateway, &first));
    demand_warned(&gateway, &["another ledger", "kept"]);
    gateway.stop();
}

#[test]
fn a_start_says_that_the_admin_key_is_gone_or_another() {
    let provider = Provider::start(honest);
    let setup = || Setup::new(&provider).unset("TOLLGATE_ADMIN_KEY");
    let mut gateway = setup().start();
    let file = gateway.data_dir().join("admin.key");
    gateway.stop();

    fs::write(&file, "another").unwrap();
    let mut gateway = setup().on_ledger_of(&gateway).start();
    demand_warned(&gateway, &["another admin key", "TOLLGATE_ADMIN_KEY"]);
    assert_eq!(shown(&gateway), "another");
    gateway.stop();

    fs::remove_file(&file).unwrap();
    let mut gateway = setup().on_ledger_of(&gateway).start();
    demand_warned(&gateway, &["not in this file", "TOLLGATE_ADMIN_KEY"]);
    gateway.stop();

    // Who gives a key needs no file.
    let gateway = Setup::new(&provider).on_ledger_of(&gateway).start();
    use_up(&gateway, "acme", 1);
    until("the line of a call", NOTICED_MAX, || gateway.log().contains("tenant=acme"));
    assert!(!gateway.log().contains("admin.key"), "{}", gateway.log());
}
