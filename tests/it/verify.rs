//! `tollgate verify` finds what was planted and nothing else: in a ledger, in a journal, in counters, beside a gateway.
//!
//! The ledger of the timing has 20,000 events in an ordinary run, a million with `TOLLGATE_TEST_FULL=1`.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tempfile::TempDir;
use tokio::runtime::Builder;
use tollgate::adapters::sqlite::SqliteLedger;
use tollgate::metering::verify::{Differences, Kind, ledger};
use tollgate::ports::usage::UsageStore;

use super::conformance::{at, event, sqlite, tenant};
use super::support::bodies::{CHAT_ANSWER, honest};
use super::support::gateway::ADMIN_KEY;
use super::support::load::{self, Load, Plan};
use super::support::machine::{Chance, figures, full};
use super::support::*;
use tollgate::domain::event::UsageEvent;

/// A statement on the file of a ledger, past every program that guards it.
pub(super) fn tamper(file: &Path, statements: &str) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = connect(file).await;
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}

/// The one number that a question about the file of a ledger has for an answer.
pub(super) fn asked(file: &Path, question: &str) -> i64 {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = connect(file).await;
        let number = sqlx::query_scalar(AssertSqlSafe(question)).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        number
    })
}

pub(super) async fn connect(file: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(file).busy_timeout(std::time::Duration::from_secs(10));
    options.connect().await.unwrap()
}

/// Runs `tollgate verify` on a data directory.
pub(super) fn verify(data_dir: &Path, admin: Option<std::net::SocketAddr>, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.arg("verify").args(arguments).env_clear().env("TOLLGATE_DATA_DIR", data_dir);
    command.env("TOLLGATE_ADMIN_KEY", ADMIN_KEY).current_dir(data_dir);
    if let Some(admin) = admin {
        command.env("TOLLGATE_ADMIN_LISTEN", admin.to_string());
    }
    command.output().expect("the binary starts")
}

/// The same, as its document; demands that the exit code says the same.
fn verified(data_dir: &Path, admin: Option<std::net::SocketAddr>) -> Value {
    let output = verify(data_dir, admin, &["--json"]);
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {told}"));
    assert_eq!(output.status.code(), Some(i32::from(document["ok"] == false)), "{told}");
    assert_eq!(document["ok"], document["difference_count"] == 0, "{told}");
    assert!(output.stderr.is_empty(), "{told}");
    document
}

/// Every difference as `kind where what`.
fn told(document: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let one = |one: &Value| format!("{} {} {}", text(&one["kind"]), text(&one["where"]), text(&one["what"]));
    document["differences"].as_array().unwrap().iter().map(one).collect()
}

/// Three calls of `acme` on one day, and one of `beta` a month before.
fn four() -> Vec<UsageEvent> {
    let before = UsageEvent { tenant: tenant("beta"), requested_at: at("2026-10-31T23:59:59Z"), ..event(4) };
    vec![event(1), event(2), event(3), before]
}

/// The differences of a ledger with four events after `statements`.
async fn differences_after(statements: &str) -> Vec<(Kind, String)> {
    let (store, directory) = sqlite().await;
    store.append(&four()).await.unwrap();
    let mut connection = connect(&directory.path().join("billing/billing.db")).await;
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    compared(&*store).await
}

async fn compared(store: &dyn UsageStore) -> Vec<(Kind, String)> {
    let mut differences = Differences::default();
    ledger::compare(store, &mut differences, &mut |_, _| {}).await.unwrap();
    differences.kept().iter().map(|one| (one.kind, one.to_string())).collect()
}

/// The id of `event(1)`.
fn first() -> String {
    event(1).id.to_string()
}

/// A sum of what counters count that is not what it has to be.
fn of_scope(what: &str, expected: u64, found: &str) -> String {
    format!("usage_scopes {what}: expected {expected}, found {found}")
}

/// A sum of a tenant.
const OF_ACME: &str = "usage_daily acme 2026-11-24 openai gpt-4o";

/// What statements leave behind, and the differences that they make.
type Planted = (&'static str, Vec<(Kind, String)>);

async fn check(cases: Vec<Planted>) {
    for (statements, expected) in cases {
        assert_eq!(differences_after(statements).await, expected, "{statements}");
    }
}

#[tokio::test]
async fn each_wrong_sum_is_found_to_the_column_and_no_other() {
    const OF_BETA: &str = "usage_monthly beta 2026-10 openai gpt-4o";
    let whole = "requests 1, chats 1, prompt_tokens 11, completion_tokens 7, estimated_cost_pico_usd 97500000, \
                 billable_cost_pico_usd 97500000";
    let cases: Vec<Planted> = vec![
        ("SELECT 1", vec![]),
        (
            "UPDATE usage_daily SET prompt_tokens = prompt_tokens + 1 WHERE tenant_id = 'acme'",
            vec![(Kind::Sum, format!("{OF_ACME}: prompt_tokens: expected 33, found 34"))],
        ),
        (
            "UPDATE usage_daily SET requests = -1, chats = -9223372036854775808 WHERE tenant_id = 'acme'",
            vec![
                (Kind::Sum, format!("{OF_ACME}: requests: expected 3, found -1")),
                (Kind::Sum, format!("{OF_ACME}: chats: expected 3, found -9223372036854775808")),
            ],
        ),
        (
            "UPDATE usage_monthly SET estimated_cost_rest_pico_usd = estimated_cost_rest_pico_usd + 1 WHERE tenant_id = 'beta'",
            vec![(Kind::Sum, format!("{OF_BETA}: estimated_cost_pico_usd: expected 97500000, found 97500001"))],
        ),
        (
            "UPDATE usage_monthly SET estimated_cost_micro_usd = 0, estimated_cost_rest_pico_usd = 97500000 WHERE tenant_id = 'beta'",
            vec![],
        ),
        (
            "DELETE FROM usage_monthly WHERE tenant_id = 'beta'",
            vec![(Kind::Sum, format!("{OF_BETA}: row: expected {whole}, found none"))],
        ),
        (
            "UPDATE usage_monthly SET model = 'o3' WHERE tenant_id = 'beta'",
            vec![
                (
                    Kind::Sum,
                    format!("usage_monthly beta 2026-10 openai o3: row: expected none, as it has no events, found {whole}"),
                ),
                (Kind::Sum, format!("{OF_BETA}: row: expected {whole}, found none")),
            ],
        ),
        (
            "UPDATE usage_events SET estimated_cost_pico_usd = estimated_cost_pico_usd + 1 WHERE row = 4",
            vec![
                (
                    Kind::Sum,
                    "usage_daily beta 2026-10-31 openai gpt-4o: estimated_cost_pico_usd: expected 97500001, found 97500000"
                        .to_owned(),
                ),
                (Kind::Sum, format!("{OF_BETA}: estimated_cost_pico_usd: expected 97500001, found 97500000")),
            ],
        ),
    ];
    check(cases).await;
}

#[tokio::test]
async fn each_wrong_sum_of_what_is_counted_is_found_to_the_column_and_no_other() {
    let cases: Vec<Planted> = vec![
        (
            "UPDATE usage_scopes SET tokens = tokens + 1 WHERE tenant_id = 'acme' AND scope = 'key' AND period = '2026-11'",
            vec![(Kind::Sum, of_scope("acme 2026-11 key key_0123456789abcdef: tokens", 54, "55"))],
        ),
        (
            "DELETE FROM usage_scopes WHERE tenant_id = 'beta' AND scope = 'tenant' AND period = '2026-10-31'",
            vec![
                (Kind::Sum, of_scope("beta 2026-10-31 tenant: chats", 1, "no row")),
                (Kind::Sum, of_scope("beta 2026-10-31 tenant: tokens", 18, "no row")),
                (Kind::Sum, of_scope("beta 2026-10-31 tenant: cost_nano_usd", 97_500, "no row")),
            ],
        ),
        (
            "UPDATE usage_scopes SET scope = 'user' WHERE tenant_id = 'beta' AND scope = 'key' AND period = '2026-10'; \
             UPDATE usage_scopes SET tokens = 0, cost_nano_usd = 0 WHERE tenant_id = 'beta' AND scope = 'user'; \
             UPDATE usage_scopes SET chats = 7 WHERE tenant_id = 'beta' AND scope = 'user'",
            vec![
                (Kind::Sum, of_scope("beta 2026-10 user key_0123456789abcdef: chats", 0, "7")),
                (Kind::Sum, of_scope("beta 2026-10 key key_0123456789abcdef: chats", 1, "no row")),
                (Kind::Sum, of_scope("beta 2026-10 key key_0123456789abcdef: tokens", 18, "no row")),
                (Kind::Sum, of_scope("beta 2026-10 key key_0123456789abcdef: cost_nano_usd", 97_500, "no row")),
            ],
        ),
        (
            "UPDATE usage_daily SET billable_cost_rest_pico_usd = billable_cost_rest_pico_usd - 1, audio_ms = 5 WHERE tenant_id = 'acme'",
            vec![
                (Kind::Sum, format!("{OF_ACME}: audio_ms: expected 0, found 5")),
                (Kind::Sum, format!("{OF_ACME}: billable_cost_pico_usd: expected 292500000, found 292499999")),
            ],
        ),
        // Rows of before there were two costs have one.
        ("UPDATE usage_events SET billable_cost_pico_usd = NULL", vec![]),
    ];
    check(cases).await;
}

#[tokio::test]
async fn each_event_that_cannot_be_is_found_and_no_other() {
    let event_1 = format!("event {}", first());
    let cases: Vec<Planted> = vec![
        (
            "UPDATE usage_events SET cached_tokens = 12 WHERE row = 1; UPDATE usage_daily SET cached_tokens = 12 WHERE tenant_id = 'acme'; UPDATE usage_monthly SET cached_tokens = 12 WHERE tenant_id = 'acme'",
            vec![(
                Kind::Event,
                format!("{event_1}: cached_tokens is a part of prompt_tokens: expected that, found 12"),
            )],
        ),
        (
            "UPDATE usage_events SET outcome = 'lost', service_tier = 'x', status = -1 WHERE row = 1",
            vec![
                (Kind::Event, format!("{event_1}: status is below 1000: expected that, found -1")),
                (Kind::Event, format!("{event_1}: outcome is a known one: expected that, found lost")),
                (Kind::Event, format!("{event_1}: service_tier is a known one: expected that, found x")),
            ],
        ),
        (
            "UPDATE usage_events SET priced = 'unpriced', duration_us = -5 WHERE row = 1; UPDATE usage_daily SET unpriced_requests = 1 WHERE tenant_id = 'acme'; UPDATE usage_monthly SET unpriced_requests = 1 WHERE tenant_id = 'acme'",
            vec![
                (Kind::Event, format!("{event_1}: duration_us is not below 0: expected that, found -5")),
                (
                    Kind::Event,
                    format!(
                        "{event_1}: a cost is there exactly where there is a price: expected that, found 97500000, unpriced"
                    ),
                ),
            ],
        ),
        (
            "UPDATE usage_events SET priced_before = 'unpriced', file_searches = -1 WHERE row = 1;
             UPDATE usage_daily SET unpriced_requests = -1, file_searches = -1 WHERE tenant_id = 'acme';
             UPDATE usage_monthly SET unpriced_requests = -1, file_searches = -1 WHERE tenant_id = 'acme'",
            vec![
                (
                    Kind::Event,
                    format!(
                        "{event_1}: a correction names what it corrects, and nothing else does: expected that, found completed"
                    ),
                ),
                (Kind::Event, format!("{event_1}: file_searches is not below 0: expected that, found -1")),
            ],
        ),
        (
            "UPDATE usage_events SET utc_offset_s = -64801, cache_write_long_tokens = 1 WHERE row = 1;
             UPDATE usage_daily SET period = '2026-11-23', cache_write_long_tokens = 1 WHERE tenant_id = 'acme';
             UPDATE usage_events SET utc_offset_s = -50400 WHERE row IN (2, 3);
             UPDATE usage_monthly SET cache_write_long_tokens = 1 WHERE tenant_id = 'acme';
             UPDATE usage_scopes SET period = '2026-11-23' WHERE tenant_id = 'acme' AND period = '2026-11-24'",
            vec![
                (Kind::Event, format!("{event_1}: utc_offset_s is within 18 hours: expected that, found -64801")),
                (
                    Kind::Event,
                    format!(
                        "{event_1}: cache_write_long_tokens is a part of cache_write_tokens: expected that, found 1"
                    ),
                ),
            ],
        ),
    ];
    check(cases).await;
}

#[tokio::test]
async fn a_deleted_event_is_missed_by_each_of_its_sums() {
    let found = differences_after("DELETE FROM usage_events WHERE row = 2").await;
    let expected: Vec<String> = ["usage_daily acme 2026-11-24", "usage_monthly acme 2026-11"]
        .iter()
        .flat_map(|sum| {
            let values =
                [("requests", 2, 3), ("chats", 2, 3), ("prompt_tokens", 22, 33), ("completion_tokens", 14, 21)];
            let cost =
                ["estimated_cost_pico_usd", "billable_cost_pico_usd"].map(|name| (name, 195_000_000, 292_500_000));
            let line = move |(name, expected, found): (&str, u64, u64)| {
                format!("{sum} openai gpt-4o: {name}: expected {expected}, found {found}")
            };
            values.into_iter().chain(cost).map(line).collect::<Vec<_>>()
        })
        .collect();
    let mut expected = expected;
    for sum in ["acme 2026-11", "acme 2026-11-24"] {
        for of in ["key key_0123456789abcdef", "tenant"] {
            expected.push(of_scope(&format!("{sum} {of}: chats"), 2, "3"));
            expected.push(of_scope(&format!("{sum} {of}: tokens"), 36, "54"));
            expected.push(of_scope(&format!("{sum} {of}: cost_nano_usd"), 195_000, "292500"));
        }
    }
    assert_eq!(found.into_iter().map(|(_, told)| told).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn an_id_that_stands_twice_is_found_where_nothing_forbids_it_any_more() {
    let found = differences_after(
        "CREATE TABLE other AS SELECT * FROM usage_events; DROP TABLE usage_events;
         ALTER TABLE other RENAME TO usage_events; UPDATE usage_events SET id = (SELECT id FROM usage_events WHERE row = 1) WHERE row = 2",
    )
    .await;
    assert_eq!(
        found,
        [(Kind::Event, format!("event {}: an id is one event's: expected that, found 2 events", first()))]
    );
}

#[tokio::test]
async fn an_index_that_does_not_hold_what_its_table_holds_is_damage() {
    // The index is built of half the rows, and then said to be of all.
    let found = differences_after(
        "DROP INDEX usage_events_by_tenant; CREATE INDEX usage_events_by_tenant ON usage_events (tenant_id) WHERE row > 2;
         PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, ' WHERE row > 2', '') WHERE name = 'usage_events_by_tenant';
         PRAGMA writable_schema = RESET",
    )
    .await;
    assert!(!found.is_empty() && found.iter().all(|(kind, _)| *kind == Kind::Store), "{found:?}");
}

#[tokio::test]
async fn a_damaged_page_is_told_and_ends_nothing_early() {
    let (store, directory) = sqlite().await;
    let events: Vec<UsageEvent> = (0..5_000).map(event).collect();
    store.append(&events).await.unwrap();
    let file = directory.path().join("billing/billing.db");
    store.close().await.unwrap();
    let mut bytes = std::fs::OpenOptions::new().read(true).write(true).open(&file).unwrap();
    let pages = bytes.metadata().unwrap().len() / 4_096;
    // A page in the middle is one of events or of their indexes.
    bytes.seek(SeekFrom::Start(pages / 2 * 4_096)).unwrap();
    let mut page = [0; 4_096];
    bytes.read_exact(&mut page).unwrap();
    bytes.seek(SeekFrom::Current(-4_096)).unwrap();
    bytes.write_all(&page.map(|byte| !byte)).unwrap();
    drop(bytes);
    let store = SqliteLedger::open(file.to_str().unwrap(), false).await.unwrap();
    let found = compared(&store).await;
    assert!(found.iter().any(|(kind, _)| *kind == Kind::Store), "{found:?}");
}

#[test]
fn a_ledger_after_traffic_has_no_difference_while_it_serves_and_after() {
    let provider = Provider::start(|seen| match seen.target.as_str() {
        "/v1/embeddings" => Script::json(200, CHAT_ANSWER),
        _ if seen.header("x-fail").is_some() => Script::json(500, "{}"),
        _ => honest(seen),
    });
    let mut gateway = Setup::new(&provider).start();
    for key in ["acme", "beta", "gamma"] {
        use_up(&gateway, key, 5);
        assert_eq!(gateway.send(&gemini(key)).status, 200);
        assert_eq!(gateway.send(&chat(key).header("x-fail", "1")).status, 500);
        // Until then they wait in the journal, where they are counted, too.
        gateway.booked(key, 7);
    }
    let document = verified(gateway.data_dir(), Some(gateway.admin));
    assert_eq!(told(&document), Vec::<String>::new());
    assert_eq!(document["ledger"]["events"], 21, "{document}");
    // Chats, tokens and cost of a day and a month of each tenant, known exactly.
    assert_eq!((&document["counters"]["compared"], &document["counters"]["moving"]), (&18.into(), &0.into()));
    assert_eq!(document["counters"]["not_compared"], Value::Null);
    gateway.stop();
    let document = verified(gateway.data_dir(), None);
    assert_eq!((told(&document).len(), &document["counters"]["not_compared"]), (0, &"no gateway serves".into()));
    let output = verify(gateway.data_dir(), None, &[]);
    let line = String::from_utf8(output.stdout).unwrap();
    let expected = "No difference in 21 events, 6 day sums, 6 month sums, 0 calls of the journal (0 not booked yet, 0 in \
                    flight), no counters, as no gateway serves; ";
    assert!(line.starts_with(expected) && line.lines().count() == 1, "{line}");
}

#[test]
fn a_difference_is_a_line_and_an_exit_code_while_the_gateway_serves() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    use_up(&gateway, "acme", 3);
    gateway.booked("acme", 3);
    tamper(&gateway.ledger_file(), "UPDATE usage_monthly SET completion_tokens = 22");
    let output = verify(gateway.data_dir(), Some(gateway.admin), &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with("usage_monthly acme 20"), "{text}");
    assert!(lines[0].ends_with(" openai gpt-4o-mini: completion_tokens: expected 21, found 22"), "{text}");
    assert!(lines[1].starts_with("1 difference in 3 events, 1 day sums, 1 month sums, "), "{text}");
    assert!(lines[1].contains(", 6 counters; "), "{text}");
    assert!(output.stderr.is_empty());
}

#[test]
fn a_counter_that_the_ledger_does_not_bear_out_is_found() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    use_up(&gateway, "acme", 3);
    use_up(&gateway, "beta", 2);
    gateway.booked("acme", 3);
    gateway.booked("beta", 2);
    // Events and sums agree; the counter knows better.
    let chats = |table| format!("UPDATE {table} SET chats = chats - 1 WHERE tenant_id = 'acme'");
    tamper(
        &gateway.ledger_file(),
        &format!(
            "{} AND row = (SELECT MIN(row) FROM usage_events WHERE tenant_id = 'acme'); {}; {}; {}",
            chats("usage_events"),
            chats("usage_daily"),
            chats("usage_monthly"),
            chats("usage_scopes")
        ),
    );
    let document = verified(gateway.data_dir(), Some(gateway.admin));
    let found = told(&document);
    // The journal, which still has the call, knows better too.
    assert_eq!(found.len(), 3, "{document}");
    assert!(found[0].starts_with("journal journal event ") && found[0].ends_with(" of acme chats"), "{found:?}");
    for counter in &found[1..] {
        assert!(counter.starts_with("counter counter acme chats 20") && counter.ends_with(" used"), "{found:?}");
    }
    assert_eq!(document["differences"][2]["expected"], "2 in the ledger");
    assert_eq!(document["differences"][2]["found"], "3");
    // A sum alone is not what counters are compared with.
    tamper(&gateway.ledger_file(), "UPDATE usage_monthly SET chats = chats + 5 WHERE tenant_id = 'beta'");
    let found = told(&verified(gateway.data_dir(), Some(gateway.admin)));
    let of_beta: Vec<&String> = found.iter().filter(|one| one.contains(" beta ")).collect();
    assert!(of_beta.len() == 1 && of_beta[0].ends_with("openai gpt-4o-mini chats"), "{found:?}");
}

#[test]
fn counters_that_cannot_be_asked_are_said_not_to_be_compared() {
    let provider = Provider::start(honest);
    let [one, other] = [Setup::new(&provider).start(), Setup::new(&provider).start()];
    let reason = |admin| verified(one.data_dir(), admin)["counters"]["not_compared"].as_str().unwrap().to_owned();
    assert!(reason(Some(other.admin)).ends_with("books in another ledger"));
    assert!(reason(Some("127.0.0.1:0".parse().unwrap())).starts_with("listen.admin has port 0"));
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(reason(Some(nobody)).starts_with("a gateway serves, but not at "));
    let answer = one.send(&Request::get("/admin/counters").bearer("acme"));
    assert_eq!(answer.status, 404, "not on the proxy listener");
    let answer = Request::get("/admin/counters").bearer("acme").send(one.admin);
    assert_eq!(answer.status, 403, "not for tenants");
}

#[test]
fn a_ledger_that_is_not_there_is_one_line() {
    let directory = TempDir::new().unwrap();
    let output = verify(directory.path(), None, &[]);
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), line.lines().count()), (Some(1), 1), "{line}");
    assert!(line.contains("billing.db") && line.contains("does not exist"), "{line}");
    assert!(std::fs::read_dir(directory.path()).unwrap().next().is_none(), "nothing is made");
    assert_eq!(verify(directory.path(), None, &["--nothing"]).status.code(), Some(2));
}

#[test]
fn what_the_journal_knows_better_is_found() {
    let provider = Provider::start(honest);
    let mut gateway = Setup::new(&provider).start();
    use_up(&gateway, "acme", 6);
    gateway.booked("acme", 6);
    // Killed, it leaves its journal, and verify reads it where no gateway does.
    gateway.kill();
    let document = verified(gateway.data_dir(), None);
    assert_eq!((told(&document).len(), &document["journal"]["settled"]), (0, &6.into()), "{document}");
    // An event that says something else, with sums that agree with it.
    let file = gateway.ledger_file();
    let less = |table| format!("UPDATE {table} SET completion_tokens = completion_tokens - 1");
    tamper(
        &file,
        &format!(
            "{} WHERE row = 2; {}; {}; UPDATE usage_scopes SET tokens = tokens - 1",
            less("usage_events"),
            less("usage_daily"),
            less("usage_monthly")
        ),
    );
    let document = verified(gateway.data_dir(), None);
    let found = told(&document);
    assert!(
        found.len() == 1
            && found[0].starts_with("journal journal event ")
            && found[0].ends_with(" of acme completion_tokens"),
        "{document}"
    );
    assert_eq!(
        (&document["differences"][0]["expected"], &document["differences"][0]["found"]),
        (&"7".into(), &"6".into())
    );
    // And one that is gone, though it was booked.
    tamper(&file, "DELETE FROM usage_events WHERE row = 3");
    let found = told(&verified(gateway.data_dir(), None));
    let gone: Vec<&String> = found.iter().filter(|one| one.ends_with(" of acme ledger")).collect();
    assert_eq!(gone.len(), 1, "{found:?}");
    // A byte of the journal that is another.
    let segment = gateway.files().into_iter().find(|path| path.to_string_lossy().ends_with("0000.log")).unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let found = told(&verified(gateway.data_dir(), None));
    let damage: Vec<&String> = found.iter().filter(|one| one.starts_with("damage journal ")).collect();
    assert!(damage.len() == 1 && damage[0].contains("offset 32"), "{found:?}");
}

#[test]
fn calls_that_wait_for_the_ledger_or_run_are_no_difference() {
    let gate = Gate::default();
    let provider = Provider::start({
        let gate = gate.clone();
        move |seen| match seen.header("x-wait") {
            Some(_) => Script(vec![Step::Wait(gate.clone(), 1)]),
            None => honest(seen),
        }
    });
    let mut gateway = Setup::new(&provider).start();
    use_up(&gateway, "acme", 2);
    gateway.booked("acme", 2);
    let lock = super::support::audit::Ledger::locked(&gateway.ledger_file());
    use_up(&gateway, "acme", 3);
    let mut wire = Wire::open(gateway.proxy);
    wire.send(&chat("acme").header("x-wait", "1").bytes());
    load::demand_asked(&provider, 6);
    gateway.kill();
    drop(lock);
    let document = verified(gateway.data_dir(), None);
    assert_eq!(told(&document), Vec::<String>::new(), "{document}");
    let journal = &document["journal"];
    assert_eq!((&journal["settled"], &journal["waiting"], &journal["in_flight"]), (&5.into(), &3.into(), &1.into()));
    gate.pass();
}

#[test]
fn beside_a_gateway_under_load_it_finds_nothing() {
    let provider = Provider::start(load::charging);
    let gateway = Setup::new(&provider).prod().start();
    let tenants = load::tenants(&gateway, &[("acme", "pro"), ("globex", "pro"), ("initech", "growth")]);
    let numbers = Arc::new(AtomicU64::new(0));
    let mut chance = Chance::new();
    let plan = Plan { clients: 16, leaves_one_in: 25, ..Plan::new(gateway.proxy, &tenants, &numbers) };
    let load = Load::start(&plan, &mut chance);
    let runs = if full() { 20 } else { 6 };
    let (mut moving, mut off_max) = (0, 0);
    for run in 0..runs {
        load::demand_asked(&provider, (run + 1) * 100);
        let document = verified(gateway.data_dir(), Some(gateway.admin));
        assert_eq!(told(&document), Vec::<String>::new(), "run {run}: {document}");
        assert_eq!(document["counters"]["not_compared"], Value::Null, "{document}");
        moving += document["counters"]["moving"].as_u64().unwrap();
        off_max = off_max.max(document["counters"]["moving_off_max"].as_u64().unwrap());
    }
    let made = load.stop();
    let document = verified(gateway.data_dir(), Some(gateway.admin));
    assert_eq!((told(&document).len(), &document["counters"]["compared"]), (0, &18.into()), "{document}");
    let of = runs * 18;
    figures(&format!(
        "verify beside {} calls: {runs} runs, 0 differences; of {of} counters {moving} never rested, off by {off_max} at most",
        made.len()
    ));
}

/// A ledger of so many events and their sums, made by SQLite itself: 200 tenants, three models, two months.
pub(super) fn fill(file: &Path, events: u64) {
    tamper(
        file,
        &format!(
            "INSERT INTO usage_events (id, tenant_id, key_id, provider, model, requested_model, endpoint, chats, prompt_tokens,
                cached_tokens, cache_write_tokens, prompt_audio_tokens, prompt_image_tokens, cached_audio_tokens,
                completion_tokens, reasoning_tokens, completion_audio_tokens, completion_image_tokens, usage_source,
                estimated_cost_pico_usd, priced, price_version, service_tier, requested_at, duration_us, first_byte_us, status,
                outcome, request_id)
             WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < {events} - 1)
             SELECT unhex(printf('%012x7%03x8%015x', (1761955200000000 + n * 60 * 86400000000 / {events}) / 1000, n % 4096, n * 2654435761 % 1000000007)),
                'tenant-' || (n * 7919 % 200), 'key_0123456789abcdef', CASE n % 2 WHEN 0 THEN 'openai' ELSE 'gemini' END,
                CASE n % 3 WHEN 0 THEN 'gpt-4o-mini' WHEN 1 THEN 'gemini-2.5-flash' ELSE 'o3' END, 'gpt-4o', 'chat.completions',
                1, 11 + n % 100, n % 11, 0, 0, 0, 0, 7 + n % 50, n % 7, 0, 0, 'provider', 5850000 + n, 'priced', '2026-11-24',
                'standard', 1761955200000000 + n * 60 * 86400000000 / {events}, 120000, 80000, 200, 'completed', 'req_' || n
             FROM n;"
        ),
    );
    for (table, period) in [("usage_daily", "%Y-%m-%d"), ("usage_monthly", "%Y-%m")] {
        tamper(
            file,
            &format!(
                "INSERT INTO {table} (tenant_id, period, provider, model, requests, chats, failed_requests, prompt_tokens,
                    cached_tokens, cache_write_tokens, prompt_audio_tokens, prompt_image_tokens, cached_audio_tokens,
                    completion_tokens, reasoning_tokens, completion_audio_tokens, completion_image_tokens,
                    estimated_cost_micro_usd, estimated_cost_rest_pico_usd, billable_cost_micro_usd,
                    billable_cost_rest_pico_usd, unpriced_requests, estimated_requests,
                    estimated_prompt_tokens, estimated_completion_tokens)
                 SELECT tenant_id, strftime('{period}', requested_at / 1000000, 'unixepoch'), provider, model,
                    COUNT(*), SUM(chats), 0, SUM(prompt_tokens), SUM(cached_tokens), 0, 0, 0, 0, SUM(completion_tokens),
                    SUM(reasoning_tokens), 0, 0, SUM(estimated_cost_pico_usd / 1000000), SUM(estimated_cost_pico_usd % 1000000),
                    SUM(estimated_cost_pico_usd / 1000000), SUM(estimated_cost_pico_usd % 1000000),
                    0, 0, 0, 0 FROM usage_events GROUP BY 1, 2, 3, 4"
            ),
        );
    }
    for (scope, subject) in [("tenant", "''"), ("key", "key_id")] {
        for period in ["%Y-%m-%d", "%Y-%m"] {
            tamper(
                file,
                &format!(
                    "INSERT INTO usage_scopes (tenant_id, period, scope, subject, chats, tokens, cost_nano_usd)
                     SELECT tenant_id, strftime('{period}', requested_at / 1000000, 'unixepoch'), '{scope}', {subject},
                        SUM(chats), SUM(prompt_tokens + completion_tokens), SUM((estimated_cost_pico_usd + 999) / 1000)
                     FROM usage_events GROUP BY 1, 2, 3, 4"
                ),
            );
        }
    }
}

#[test]
fn a_million_events_are_compared_in_seconds() {
    let events = if full() { 1_000_000 } else { 20_000 };
    let provider = Provider::start(honest);
    let mut gateway = Setup::new(&provider).start();
    gateway.stop();
    fill(&gateway.ledger_file(), events);
    let started = Instant::now();
    let document = verified(gateway.data_dir(), None);
    let took = started.elapsed();
    assert_eq!(told(&document), Vec::<String>::new());
    assert_eq!(document["ledger"]["events"], events);
    // SQLite is compiled without optimisation in a build for tests; the promise is that of a release.
    // Ten seconds alone; here the other tests have the machine as well.
    let (build, seconds_max) = if is_release() { ("release", 20) } else { ("debug", 60) };
    figures(&format!("verify of {events} events: {} ms ({build} build)", took.as_millis()));
    assert!(took.as_secs() < seconds_max, "{events} events took {took:?}");
}
