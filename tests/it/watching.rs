//! Files that change on disk: in force without a signal, whole or not at all.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::support::bodies::*;
use super::support::*;

/// A change is in force on every node within this.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(5);
/// Several looks at the files: what did not happen in this time does not happen.
const LOOKS: Duration = Duration::from_secs(4);
const POLL: Duration = Duration::from_millis(20);

/// A directory of configuration as several gateways have it, such as one that is mounted or copied to each.
struct Shared(TempDir);

impl Shared {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).unwrap();
    }

    fn gateway(&self, provider: &Provider) -> Gateway {
        let path = self.at("tollgate.toml");
        Setup::new(provider).set("TOLLGATE_CONFIG", &path.display().to_string()).start()
    }
}

fn starter(chats: u64) -> String {
    format!("[plans.starter]\nchats_per_month = {chats}\n")
}

fn monthly_limit(gateway: &Gateway) -> u64 {
    gateway.limits("acme")["monthly_limit"].as_u64().unwrap()
}

fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + IN_FORCE_WITHIN;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(POLL);
    }
}

fn for_some_looks(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LOOKS;
    while Instant::now() < end {
        assert!(holds(), "{what}");
        thread::sleep(POLL);
    }
}

/// `tollgate_config_reloads_total`: taken, refused.
fn reloads(gateway: &Gateway) -> (u64, u64) {
    let text = Request::get("/metrics").send(gateway.admin).text();
    let count = |result: &str| {
        let name = format!("tollgate_config_reloads_total{{result=\"{result}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).expect(&name)
    };
    (count("ok"), count("error"))
}

/// `gpt-4o-mini` at so many pico-dollars a token.
fn price_list(pico_usd: u64) -> String {
    format!(
        r#"{{"format":1,"models":[{{"provider":"openai","model":"gpt-4o-mini","match":["gpt-4o-mini"],
            "rates":[{{"tier":"standard","input":{pico_usd},"output":{pico_usd}}}]}}]}}"#
    )
}

#[test]
fn what_is_replaced_on_disk_is_in_force_on_every_node_within_five_seconds() {
    let (provider, shared) = (Provider::start(honest), Shared::new());
    // As Kubernetes mounts a ConfigMap: files are links through a link to the directory of the version.
    for (version, chats) in [("1", 10), ("2", 20)] {
        std::fs::create_dir(shared.at(version)).unwrap();
        std::fs::write(shared.at(version).join("tollgate.toml"), starter(chats)).unwrap();
    }
    symlink("1", shared.at("data")).unwrap();
    symlink("data/tollgate.toml", shared.at("tollgate.toml")).unwrap();
    let nodes = [shared.gateway(&provider), shared.gateway(&provider)];
    let all_have =
        |chats: u64| soon(&format!("{chats} chats"), || nodes.iter().all(|node| monthly_limit(node) == chats));
    all_have(10);
    symlink("2", shared.at("next")).unwrap();
    std::fs::rename(shared.at("next"), shared.at("data")).unwrap();
    all_have(20);
    // As rsync and most editors do it: another file is moved over the old one.
    shared.write("new", &starter(30));
    std::fs::rename(shared.at("new"), shared.at("tollgate.toml")).unwrap();
    all_have(30);
    // As cp does it.
    shared.write("tollgate.toml", &starter(40));
    all_have(40);
    for node in &nodes {
        assert_eq!(reloads(node), (3, 0), "{}", node.log());
    }
}

#[test]
fn a_price_file_and_a_secret_in_a_file_are_watched_too() {
    let (provider, shared) = (Provider::start(honest), Shared::new());
    shared.write("prices.json", &price_list(1));
    shared.write("openai", "sk-first");
    let prices = shared.at("prices.json").display().to_string();
    let setup = Setup::new(&provider).unset("OPENAI_API_KEY").set("TOLLGATE_PRICES_FILE", &prices);
    let gateway = setup.set("OPENAI_API_KEY_FILE", &shared.at("openai").display().to_string()).start();
    assert_eq!(gateway.send(&chat("before")).status, 200);
    assert_eq!(provider.last().header("authorization"), Some("Bearer sk-first"));
    assert_eq!(gateway.booked("before", 1).cost(), 18);
    shared.write("prices.json", &price_list(3));
    shared.write("openai", "sk-second");
    soon("both are read again", || reloads(&gateway) != (0, 0));
    assert_eq!(gateway.send(&chat("after")).status, 200);
    assert_eq!(provider.last().header("authorization"), Some("Bearer sk-second"));
    assert_eq!(gateway.booked("after", 1).cost(), 3 * 18);
}

/// Writes a file as a slow copy does: it is short and right for a while, and without its end.
fn write_slowly(path: &Path, end: &str) {
    let mut file = std::fs::File::create(path).unwrap();
    for _ in 0..25 {
        file.write_all(b"# a line of a long file\n").unwrap();
        thread::sleep(Duration::from_millis(100));
    }
    file.write_all(end.as_bytes()).unwrap();
}

#[test]
fn a_file_that_is_half_written_is_not_taken_for_a_short_one() {
    let (provider, shared) = (Provider::start(honest), Shared::new());
    shared.write("tollgate.toml", &starter(10));
    let gateway = shared.gateway(&provider);
    let path = shared.at("tollgate.toml");
    let writer = thread::spawn(move || write_slowly(&path, &starter(20)));
    while !writer.is_finished() {
        assert_eq!(monthly_limit(&gateway), 10, "the plan is at the end of the file: its beginning has the default");
        thread::sleep(POLL);
    }
    soon("the whole file is in force", || monthly_limit(&gateway) == 20);
    assert_eq!(reloads(&gateway), (1, 0));
}

#[test]
fn a_bad_file_changes_nothing_and_is_complained_of_once_until_it_changes() {
    let (provider, shared) = (Provider::start(honest), Shared::new());
    let with_gold = format!("{}[plans.gold]\nchats_per_month = 5\n", starter(10));
    shared.write("tollgate.toml", &with_gold);
    let gateway = shared.gateway(&provider);
    gateway.issue("acme", "gold");
    assert_eq!(monthly_limit(&gateway), 5);
    shared.write("tollgate.toml", &starter(20));
    soon("the complaint", || reloads(&gateway) == (0, 1));
    for_some_looks("the same is said again", || reloads(&gateway) == (0, 1) && monthly_limit(&gateway) == 5);
    assert_eq!(gateway.log().lines().filter(|line| line.contains("was not reloaded")).count(), 1);
    assert_eq!(gateway.ready()["configuration"]["last_reload_failed"], true);
    // The same mistake in a file that was written again is worth a line of its own.
    shared.write("tollgate.toml", &starter(30));
    soon("the second complaint", || reloads(&gateway) == (0, 2));
    // What was wrong is put right elsewhere: nobody has to touch the file again.
    let moved = gateway.admin(Request::post("/billing/plan", r#"{"tenant_id":"acme","plan":"starter"}"#));
    assert_eq!(moved.status, 200, "{}", moved.text());
    soon("the file is in force", || monthly_limit(&gateway) == 30);
    assert_eq!(reloads(&gateway), (1, 2));
    assert_eq!(gateway.ready()["configuration"]["last_reload_failed"], false);
    std::fs::remove_file(shared.at("tollgate.toml")).unwrap();
    soon("the third complaint", || reloads(&gateway) == (1, 3));
    assert_eq!(monthly_limit(&gateway), 30);
    shared.write("tollgate.toml", &starter(40));
    soon("the file is there again", || monthly_limit(&gateway) == 40);
}

#[test]
fn nobody_looks_where_watching_is_turned_off() {
    let (provider, shared) = (Provider::start(honest), Shared::new());
    let off = |chats| format!("reload.watch = false\n{}", starter(chats));
    shared.write("tollgate.toml", &off(10));
    let gateway = shared.gateway(&provider);
    shared.write("tollgate.toml", &off(20));
    for_some_looks("it was read", || monthly_limit(&gateway) == 10);
    shared.write("tollgate.toml", &starter(30));
    gateway.signal("HUP");
    soon("a signal does it", || monthly_limit(&gateway) == 30);
    shared.write("tollgate.toml", &starter(40));
    soon("it is turned on by now", || monthly_limit(&gateway) == 40);
}
