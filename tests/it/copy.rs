//! `tollgate copy` between SQLite and Postgres: everything, equal to the bit, taken up wherever it was ended.
//!
//! The ledger of the timing has 20,000 events in an ordinary run, a million with `TOLLGATE_TEST_FULL=1`.

mod ends;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Row};
use tempfile::TempDir;
use tokio::runtime::Builder;
use tollgate::adapters::sqlite::SqliteLedger;
use tollgate::domain::event::{Corrected, Outcome, UsageEvent};
use tollgate::domain::money::PicoUsd;
use tollgate::domain::price::Priced;
use tollgate::domain::quantities::Quantities;
use tollgate::domain::time::Micros;
use tollgate::domain::tokens::Tokens;
use tollgate::ports::transfer::{Shape, Table};
use tollgate::ports::usage::UsageStore;

use super::conformance::{at, event, tenant};
use super::support::postgres::Database;
use super::support::*;
use super::verify::{connect, fill, tamper, verify};

/// A data directory with a ledger in it.
struct Home(TempDir);

impl Home {
    fn empty() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("billing/billing.db")
    }

    fn url(&self) -> String {
        format!("sqlite://{}", self.file().display())
    }

    /// One with a schema and these events, with their sums.
    fn with(events: &[UsageEvent]) -> Self {
        let home = Self::empty();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ledger = SqliteLedger::open(home.file().to_str().unwrap(), true).await.unwrap();
            ledger.migrate().await.unwrap();
            assert_eq!(ledger.append(events).await, Ok(u64::try_from(events.len()).unwrap()));
            ledger.close().await.unwrap();
        });
        home
    }

    /// One of so many plain events.
    fn of(events: u64) -> Self {
        let home = Self::with(&[]);
        fill(&home.file(), events);
        tamper(&home.file(), OTHERS);
        home
    }

    /// Every row of every table, as SQLite writes its values: also those of columns that nobody thought of.
    fn rows(&self) -> Vec<String> {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = connect(&self.file()).await;
            let mut rows = Vec::new();
            let tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_sqlx%' ESCAPE '\\' ORDER BY name";
            let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut connection).await.unwrap();
            for table in tables {
                let columns = "SELECT 'quote(' || name || ')' FROM pragma_table_xinfo(?) ORDER BY cid";
                let columns: Vec<String> = sqlx::query_scalar(columns).bind(&table).fetch_all(&mut connection).await.unwrap();
                let text = format!("SELECT {} AS line FROM {table} ORDER BY line", columns.join(" || ', ' || "));
                let lines: Vec<String> = sqlx::query_scalar(AssertSqlSafe(text)).fetch_all(&mut connection).await.unwrap();
                rows.extend(lines.into_iter().map(|line| format!("{table}: {line}")));
            }
            connection.close().await.unwrap();
            rows
        })
    }

    /// Demands that `tollgate verify` finds nothing.
    fn demand_no_difference(&self) {
        let output = verify(self.0.path(), None, &["--json"]);
        assert!(output.status.success(), "{}", said(&output));
    }
}

/// Tenants, plans, keys, audit entries and idempotency records with everything that can be in them.
const OTHERS: &str = "
    UPDATE meta SET revision = 41, admin_key_hash = unhex(printf('%064x', 7)), events_from = -5,
        active_prices = '0a1b2c3d4e5f', active_prices_since = -2, active_prices_by = 'cli';
    INSERT INTO tenants (id, name, suspended, created_at) VALUES
        ('acme', 'Ácme Überweisung 𝄞 ''; DROP', 0, 1764000000000000), ('beta', '', 1, -1), ('z', 'Ω\u{fffd}', 0, 9223372036854775807);
    INSERT INTO tenant_plans (row, tenant_id, plan, valid_from, changed_by) VALUES
        (1, 'acme', 'starter', 1764000000000000, NULL), (2, 'beta', 'pro', -9223372036854775807 - 1, 'key_0123456789abcdef'),
        (9, 'acme', 'growth', 1764000000000001, 'admin');
    INSERT INTO keys (row, id, tenant_id, hash, last4, name, created_at, expires_at, revoked_at, last_used_at, allowed_models) VALUES
        (3, 'key_1', 'acme', unhex(printf('%064x', 1)), 'abcd', 'live', 1, NULL, NULL, 60000000, NULL),
        (5, 'key_2', 'acme', unhex(printf('%064x', 2)), 'efgh', 'über', 1, 2, NULL, NULL, 'gpt-4o*, o3'),
        (7, 'key_3', 'beta', unhex(printf('%064x', 3)), '0000', 'revoked', -1, 9223372036854775807, 5, NULL, '*');
    INSERT INTO provider_keys (tenant_id, provider, last4, master_key_id, sealed, set_at) VALUES
        ('acme', 'openai', 'ab~d', '00ff00ff00ff00ff', unhex('00ff00'), -1), ('acme', 'gemini', '', '0', unhex(''), 9),
        ('z', 'openai', 'Ω', '', unhex('ff'), 9223372036854775807);
    INSERT INTO audit_log (row, at, actor, actor_key, action, tenant_id, key_id, request_id, idempotency_key_sha256,
            name_before, name_after, plan_before, plan_after, suspended_before, suspended_after, last4_before, last4_after,
            expires_at_before, expires_at_after, allowed_models_before, allowed_models_after,
            prices_before, prices_after, events_before, events_after) VALUES
        (1, 1, 'cli', NULL, 'tenant.create', 'acme', NULL, NULL, NULL, NULL, 'Ácme', NULL, 'starter', NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        (3, 2, 'cli', NULL, 'prices.set', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'configured', '0a1b2c3d4e5f', NULL, NULL),
        (4, 2, 'admin', 'wxyz', 'key.revoke', 'gone', 'key_3', 'req ✓', unhex(printf('%064x', 9)), 'a', 'b', 'c', 'd', 1, 0, 'e', 'f', -1, 9, 'g*', 'h', 'i', 'j', 'k', 'l');
    INSERT INTO price_books (version, document, base, added_at, added_by) VALUES
        ('fa1f49b7e8e3', '{ü}', NULL, -1, 'gateway'), ('0a1b2c3d4e5f', '{}', 'fa1f49b7e8e3', 2, 'cli');
    INSERT INTO threshold_crossings (row, tenant_id, scope, subject, metric, period, percent, limit_units, used_units, plan,
            event_id, at) VALUES
        (2, 'acme', 'user', 'Ünï', 'cost_usd', '2026-11-24', 1000, 1, 9223372036854775807, 'starter', unhex(printf('%032x', 1)), -1),
        (5, 'acme', 'tenant', '', 'chats', '2026-11', 80, 10, 8, 'pro', unhex(printf('%032x', 2)), 9223372036854775807);
    INSERT INTO idempotency_records (id, request, answer, at) VALUES
        (unhex(printf('%064x', 4)), unhex(printf('%064x', 5)), unhex('00ff00'), 1764000000000000),
        (unhex(printf('%064x', 255)), unhex(printf('%064x', 6)), unhex(''), -1);
    INSERT INTO deferred_units (provider, unit, event_id, requested_at, tenant_id, key_id, user_id, kb_id, model,
            requested_model, endpoint, prompt_tokens, due_at, asked, settled_at) VALUES
        ('gemini', 'batches/b', unhex(printf('%032x', 1)), -1, 'acme', NULL, NULL, NULL, '', '', '', 0, -1, 0, NULL),
        ('openai', 'batches/b', unhex(printf('%032x', 2)), 9, 'z', 'key_1', 'ü', 'k', 'm', 'r', 'batches', 7, 8, 6, 5);
    INSERT INTO provider_objects (provider, name, tenant_id, passes, noted_at) VALUES
        ('openai', 'file-1', 'acme', 0, 1764000000000000), ('gemini', 'files/1', 'gone', 1, -1);";

/// Events of several months and models, with everything that can be in them.
fn events() -> Vec<UsageEvent> {
    let of = |number: u64, at: Micros| UsageEvent { requested_at: at, ..event(number) };
    let most = u64::try_from(i64::MAX).unwrap();
    vec![
        of(1, at("2026-11-24T10:00:00Z")),
        of(2, at("2026-10-31T23:59:59.999999Z")),
        UsageEvent {
            model: "ü𝄞 'q\" \\ \u{1}".into(),
            user_id: Some("Ünï".into()),
            kb_id: Some("kb".into()),
            ..of(3, at("2025-02-28T00:00:00Z"))
        },
        UsageEvent {
            tenant: tenant("beta"),
            cost: None,
            priced: Priced::Unpriced,
            key: None,
            first_byte_us: None,
            request_id: None,
            ..of(4, at("2026-11-01T00:00:00Z"))
        },
        UsageEvent {
            cost: Some(PicoUsd(i128::from(i64::MAX))),
            tokens: Tokens { prompt: most - 7, completion: 7, ..Tokens::default() },
            tenant: tenant("z"),
            duration_us: most,
            ..of(5, at("2026-11-24T10:00:00Z"))
        },
        UsageEvent {
            tokens: Tokens { prompt: 9, cache_write: 5, cache_write_long: 4, ..Tokens::default() },
            quantities: Quantities::from_kinds([1, 2, 3, 4, 5]),
            billable: Some(PicoUsd(1)),
            utc_offset_s: -36_000,
            ..of(6, Micros(-1))
        },
        UsageEvent {
            chats: 0,
            tokens: Tokens::default(),
            cost: Some(PicoUsd(5)),
            billable: Some(PicoUsd(-1)),
            outcome: Outcome::Correction,
            corrects: Some(Corrected { event: event(4).id, priced: Priced::Unpriced }),
            ..of(7, at("1931-05-06T07:08:09Z"))
        },
        of(8, at("2199-12-31T23:59:59Z")),
        of(9, at("2300-01-01T00:00:00Z")),
    ]
}

/// A ledger with all kinds of rows.
fn of_every_kind() -> Home {
    let home = Home::with(&events());
    tamper(&home.file(), OTHERS);
    // A gap, as a retention leaves it.
    tamper(
        &home.file(),
        "UPDATE usage_events SET row = row + 100 WHERE row > 7; UPDATE usage_daily SET last_row = 9223372036854775807",
    );
    home
}

fn command(from: &str, to: &str) -> Command {
    let mut command = Command::new(binary());
    command.args(["copy", "--json", "--from", from, "--to", to]).env_clear().stdin(Stdio::null());
    command
}

fn copy(from: &str, to: &str) -> Output {
    command(from, to).output().expect("the binary starts")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Copies, and demands that both are equal; gives what was said.
pub(super) fn copied(from: &str, to: &str) -> Value {
    let output = copy(from, to);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&document["ok"], &document["difference_count"]), (&true.into(), &0.into()), "{document}");
    assert_eq!(document["tables"].as_array().unwrap().len(), Table::ALL.len());
    assert!(
        document["tables"]
            .as_array()
            .unwrap()
            .iter()
            .all(|table| table["equal"] == true && table["from"] == table["to"])
    );
    document
}

/// Copies, and demands differences; gives them as `where what from to`.
fn differences(from: &str, to: &str) -> (Value, Vec<String>) {
    let output = copy(from, to);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["ok"], false, "{document}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let one = |one: &Value| [&one["where"], &one["what"], &one["from"], &one["to"]].map(text).join(" ");
    let told = document["differences"].as_array().unwrap().iter().map(one).collect();
    (document, told)
}

/// Demands that a copy is refused in one line with all of these words.
fn refused(from: &str, to: &str, words: &[&str]) {
    let output = copy(from, to);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
}

fn table(document: &Value, table: Table) -> &Value {
    document["tables"].as_array().unwrap().iter().find(|one| one["table"] == table.as_str()).unwrap()
}

#[test]
fn a_ledger_with_everything_in_it_goes_to_postgres_and_back_unchanged() {
    let (home, database, back) = (of_every_kind(), Database::new(), Home::empty());
    home.demand_no_difference();
    let there = copied(&home.url(), &database.url);
    assert_eq!(there["run"], "copied");
    for (name, rows) in [
        (Table::UsageEvents, 9),
        (Table::Keys, 3),
        (Table::ProviderKeys, 3),
        (Table::AuditLog, 3),
        (Table::ThresholdCrossings, 2),
        (Table::PriceBooks, 2),
        (Table::IdempotencyRecords, 2),
        (Table::Meta, 1),
    ] {
        assert_eq!(table(&there, name)["from"]["rows"], rows, "{there}");
        assert_eq!(table(&there, name)["written"], rows, "{there}");
    }
    // beta, z, and five months of acme within, and two beyond, a calendar that people use.
    assert_eq!(there["tenant_months"], 9, "{there}");
    let here = copied(&database.url, &back.url());
    back.demand_no_difference();
    assert_eq!(home.rows(), back.rows());
    for name in Table::ALL {
        assert_eq!(table(&there, name)["from"], table(&here, name)["to"], "{there} {here}");
    }
    // And among themselves.
    let (other, another) = (Database::new(), Home::empty());
    copied(&database.url, &other.url);
    copied(&other.url, &another.url());
    let last = Home::empty();
    copied(&another.url(), &last.url());
    assert_eq!(home.rows(), last.rows());
    let rows = Home::with(&[]).rows();
    assert!(
        rows.len() == 1 && rows[0].starts_with("meta: "),
        "the mark is left, or a table that no test fills: {rows:?}"
    );
    assert_eq!(copied(&last.url(), &home.url())["run"], "compared");
}

#[test]
fn every_column_of_both_schemas_is_copied() {
    let (home, database) = (Home::with(&[]), Database::new());
    copied(&home.url(), &database.url);
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let in_postgres = |table: &str| {
        database.say(&format!(
            "SELECT column_name || ' ' || data_type FROM information_schema.columns WHERE table_name = '{table}' \
             AND is_generated = 'NEVER' ORDER BY column_name COLLATE \"C\""
        ))
    };
    for table in Table::ALL {
        let mut known: Vec<(&str, Shape)> = table.columns().iter().map(|column| (column.name, column.shape)).collect();
        known.sort_unstable_by_key(|(name, _)| *name);
        let types = |of: &dyn Fn(Shape) -> &'static str| {
            known.iter().map(|(name, shape)| format!("{name} {}", of(*shape))).collect::<Vec<_>>()
        };
        let of_sqlite = |shape| match shape {
            Shape::Integer | Shape::Truth => "INTEGER",
            Shape::Text => "TEXT",
            Shape::Bytes | Shape::Id => "BLOB",
        };
        let of_postgres = |shape| match shape {
            Shape::Integer => "bigint",
            Shape::Truth => "boolean",
            Shape::Text => "text",
            Shape::Bytes => "bytea",
            Shape::Id => "uuid",
        };
        let in_sqlite: Vec<String> = runtime.block_on(async {
            let mut connection = connect(&home.file()).await;
            let columns =
                sqlx::query("SELECT name || ' ' || type FROM pragma_table_xinfo(?) WHERE hidden = 0 ORDER BY name");
            let columns = columns.bind(table.as_str()).fetch_all(&mut connection).await.unwrap();
            columns.iter().map(|row| row.get(0)).collect()
        });
        assert_eq!(in_sqlite, types(&of_sqlite), "{}", table.as_str());
        assert_eq!(in_postgres(table.as_str()).lines().collect::<Vec<_>>(), types(&of_postgres), "{}", table.as_str());
    }
    let tables = database.say("SELECT COUNT(*) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace \
                               WHERE nspname = 'public' AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> '_sqlx_migrations'");
    assert_eq!(tables, Table::ALL.len().to_string());
}

#[test]
fn a_difference_that_was_planted_in_a_finished_copy_is_found_and_named() {
    let (home, database, file) = (of_every_kind(), Database::new(), Home::empty());
    copied(&home.url(), &database.url);
    copied(&home.url(), &file.url());
    let cases: [(&str, &[&str]); 8] = [
        (
            "UPDATE usage_events SET estimated_cost_pico_usd = estimated_cost_pico_usd + 1 WHERE row = 1",
            &["usage_events 1 estimated_cost_pico_usd 97500000 97500001"],
        ),
        ("UPDATE usage_events SET request_id = '' WHERE row = 4", &["usage_events 4 request_id none "]),
        ("DELETE FROM usage_events WHERE row = 109", &["usage_events 109 row one none"]),
        ("UPDATE keys SET revoked_at = NULL WHERE id = 'key_3'", &["keys 7 revoked_at 5 none"]),
        (
            "UPDATE tenants SET name = 'Acme' WHERE id = 'acme'",
            &["tenants acme name Ácme Überweisung 𝄞 \\'; DROP Acme"],
        ),
        (
            "UPDATE usage_monthly SET chats = chats + 2 WHERE tenant_id = 'beta'",
            &["usage_monthly beta 2026-11 openai gpt-4o chats 1 3", "beta 2026-11: sum over all models chats 1 3"],
        ),
        (
            "UPDATE usage_daily SET first_row = first_row + 1 WHERE tenant_id = 'beta'",
            &["usage_daily beta 2026-11-01 openai gpt-4o first_row 1 2"],
        ),
        ("UPDATE audit_log SET suspended_after = suspended_before WHERE row = 4", &["audit_log 4 suspended_after 0 1"]),
    ];
    let mut all: Vec<String> = Vec::new();
    // Whoever owns a database can do this, and no gateway does.
    database.say("ALTER TABLE audit_log DISABLE TRIGGER USER");
    tamper(&file.file(), "DROP TRIGGER audit_log_never_changes");
    for (statement, expected) in cases {
        database.say(statement);
        tamper(&file.file(), statement);
        all.extend(expected.iter().map(|one| (*one).to_owned()));
        all.sort_unstable();
        for url in [&database.url, &file.url()] {
            let (document, mut told) = differences(&home.url(), url);
            told.sort_unstable();
            assert_eq!(told, all, "{statement}");
            assert_eq!(document["run"], "compared");
        }
    }
}

#[test]
fn a_gateway_serves_from_the_copy_as_if_nothing_had_been() {
    let provider = Provider::start(|_| Script::json(200, bodies::CHAT_ANSWER));
    let database = Database::new();
    let mut gateway = Setup::new(&provider).prod().start();
    let key = gateway.issue("acme", "starter");
    use_up(&gateway, &key, 3);
    gateway.booked(&key, 3);
    let page = gateway.json(&key, "/billing/events?limit=2");
    let before = gateway.events(&key);
    let url = format!("sqlite://{}", gateway.ledger_file().display());
    // As long as it serves, nothing is copied, neither from it nor into it.
    refused(&url, &database.url, &["another tollgate is running on it", "stop it first"]);
    refused(&of_every_kind().url(), &url, &["another tollgate is running on it", "stop it first"]);
    // Its end is a kill: a call is perhaps in the journal only, which stays where it is and goes on with the copy.
    use_up(&gateway, &key, 1);
    gateway.kill();
    copied(&url, &database.url);
    let mut gateway = Setup::new(&provider).prod().set("DATABASE_URL", &database.url).on_ledger_of(&gateway).start();
    refused(&database.url, &Home::empty().url(), &["another tollgate is running on it", "stop it first"]);
    refused(&of_every_kind().url(), &database.url, &["another tollgate is running on it", "stop it first"]);
    assert_eq!(gateway.booked(&key, 4).chats, 4);
    assert_eq!(gateway.events(&key)[..3], before[..]);
    // A cursor goes on where it was.
    let cursor = page["next_cursor"].as_str().unwrap();
    assert_eq!(gateway.json(&key, &format!("/billing/events?cursor={cursor}"))["events"][0], before[2]);
    // What comes is numbered behind what was there: events, tenants' plans, keys, entries of the audit log.
    use_up(&gateway, &key, 1);
    assert_eq!(gateway.booked(&key, 5).chats, 5);
    assert_eq!(gateway.events(&key)[..3], before[..]);
    let other = gateway.issue("beta", "growth");
    use_up(&gateway, &other, 1);
    gateway.issue_key("acme", serde_json::json!({"name": "second"}));
    assert_eq!(gateway.chats(&key), (5, 495));
    gateway.booked(&other, 1);
    gateway.stop();
    // Back to a file, on which a gateway serves again.
    let back = Home::empty();
    copied(&database.url, &back.url());
    let gateway = Setup::new(&provider).prod().set("DATABASE_URL", &back.url()).start();
    assert_eq!((gateway.chats(&key), gateway.chats(&other).0), ((5, 495), 1));
    use_up(&gateway, &other, 1);
    gateway.booked(&other, 2);
    gateway.issue("gamma", "starter");
}

#[test]
fn what_cannot_be_copied_is_refused_in_a_line_that_names_the_fix() {
    let (home, database) = (of_every_kind(), Database::new());
    let missing = Home::empty();
    refused(&missing.url(), &database.url, &["does not exist"]);
    assert!(!missing.file().parent().unwrap().exists(), "a source was made");
    refused(&Database::new().url, &Home::empty().url(), &["run `tollgate migrate`"]);
    refused("mysql://h/d", &database.url, &["--from is no ledger", "sqlite://"]);
    refused(&home.url(), "postgres://tollgate:hunter2@127.0.0.1:1", &["--to names no database"]);
    refused(&home.url(), "postgres://tollgate:hunter2@127.0.0.1:1/d", &["start Postgres", "postgres://127.0.0.1:1/d"]);
    // The same, by any name.
    refused(&home.url(), &home.url(), &["the same"]);
    let link = home.0.path().join("link.db");
    symlink(home.file(), &link).unwrap();
    refused(&home.url(), &format!("sqlite://{}", link.display()), &["the same"]);
    copied(&home.url(), &database.url);
    refused(&database.url, &database.url.replace("127.0.0.1", "localhost"), &["the same"]);
    // Another ledger, in whatever state.
    refused(&home.url(), &of_every_kind().url(), &["another ledger in it", "--to"]);
    refused(&of_every_kind().url(), &database.url, &["another ledger in it", "--to"]);
    // One that is only empty is none, whatever its id.
    copied(&home.url(), &Home::with(&[]).url());
    // Versions of the schema.
    let newer = of_every_kind();
    tamper(
        &newer.file(),
        "INSERT INTO _sqlx_migrations SELECT version + 90, description, installed_on, success, checksum, execution_time FROM _sqlx_migrations LIMIT 1",
    );
    refused(&newer.url(), &Database::new().url, &["start a newer tollgate"]);
    let older = of_every_kind();
    tamper(&older.file(), "DELETE FROM _sqlx_migrations WHERE version = (SELECT MAX(version) FROM _sqlx_migrations)");
    refused(&older.url(), &Database::new().url, &["run `tollgate migrate`"]);
    // What Postgres cannot hold is named, and SQLite takes it.
    let odd = of_every_kind();
    tamper(&odd.file(), "UPDATE tenants SET name = 'a' || char(0) || 'b' WHERE id = 'beta'");
    refused(&odd.url(), &Database::new().url, &["tenants", "beta", "name has a NUL character"]);
    let taken = Home::empty();
    copied(&odd.url(), &taken.url());
    assert_eq!(odd.rows(), taken.rows());
    let no_file = Home::empty();
    fs::write(no_file.0.path().join("text"), "no ledger").unwrap();
    refused(&format!("sqlite://{}/text", no_file.0.path().display()), &database.url, &["not a database"]);
}
