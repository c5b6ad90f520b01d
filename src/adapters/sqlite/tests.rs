//! What is SQLite's own: files, schema versions, closing, and which index answers which question.

mod changes;
mod upgrade;

use std::os::unix::fs::PermissionsExt;

use sqlx::{AssertSqlSafe, Row};
use tempfile::TempDir;

use super::*;
use crate::domain::audit::{Actor, Author};
use crate::domain::tenant::Tenant;
use crate::domain::time::Micros;
use crate::domain::zone::Zone;
use crate::ports::tenants::{Act, TenantStore};
use crate::ports::usage::UsageStore;

async fn open(directory: &TempDir) -> SqliteLedger {
    SqliteLedger::open(directory.path().join("a/b/ledger.db").to_str().unwrap(), true).await.unwrap()
}

fn acme() -> Tenant {
    Tenant {
        id: "acme".parse().unwrap(),
        name: "Acme".to_owned(),
        plan: "starter".parse().unwrap(),
        suspended: false,
        zone: Zone::UTC,
        created_at: Micros(1),
    }
}

fn act() -> Act {
    Act::by(Author::of(Actor::Cli), Micros(1))
}

#[test]
fn a_location_is_a_path_with_or_without_its_scheme() {
    for (location, path) in [
        ("data/billing.db", Some("data/billing.db")),
        ("sqlite://data/billing.db", Some("data/billing.db")),
        ("sqlite:///var/lib/tollgate/billing.db", Some("/var/lib/tollgate/billing.db")),
        ("sqlite:billing.db", Some("billing.db")),
        ("", None),
        ("sqlite://", None),
        ("sqlite::memory:", None),
        ("sqlite://billing.db?mode=ro", None),
    ] {
        assert_eq!(parse(location).ok(), path.map(PathBuf::from), "{location}");
    }
}

#[tokio::test]
async fn a_new_ledger_and_its_directories_are_its_owners_only() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = open(&directory).await;
    ledger.migrate().await.unwrap();
    for (path, mode) in [("a", 0o700), ("a/b", 0o700), ("a/b/ledger.db", 0o600), ("a/b/ledger.db-wal", 0o600)] {
        let metadata = std::fs::metadata(directory.path().join(path)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{path}");
    }
}

#[tokio::test]
async fn what_cannot_be_opened_says_why_and_where() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("file"), "no database, but long enough to be taken for the head of one. ".repeat(20)).unwrap();

    let missing = SqliteLedger::open(&at("none.db"), false).await.unwrap_err();
    assert!(matches!(&missing, StoreError::Missing(what) if what.contains("none.db")), "{missing}");
    assert!(!directory.path().join("none.db").exists());
    let below_a_file = SqliteLedger::open(&at("file/x/ledger.db"), true).await.unwrap_err();
    assert!(matches!(&below_a_file, StoreError::Unavailable(why) if why.contains("file/x")), "{below_a_file}");
    let no_database = SqliteLedger::open(&at("file"), true).await.unwrap_err();
    assert!(matches!(&no_database, StoreError::Corrupt(why) if why.contains("file")), "{no_database}");
}

#[tokio::test]
async fn a_ledger_is_ready_once_it_has_its_schema() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = open(&directory).await;
    let before = ledger.ready().await.unwrap_err();
    assert!(before.to_string().contains("tollgate migrate"), "{before}");
    ledger.migrate().await.unwrap();
    assert_eq!(ledger.ready().await, Ok(()));
    assert_eq!(ledger.migrate().await, Ok(()), "a second time");
}

#[tokio::test]
async fn a_ledger_of_a_newer_version_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = open(&directory).await;
    ledger.migrate().await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9000, 'from the future', TRUE, x'00', 0)";
    sqlx::query(newer).execute(&ledger.writer).await.unwrap();
    for refused in [ledger.migrate().await, ledger.ready().await] {
        assert!(matches!(&refused, Err(StoreError::Corrupt(why)) if why.contains("9000")), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_may_make_the_schema_at_once() {
    for _ in 0..10 {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (open(&directory).await, open(&directory).await);
        let both = futures_util::future::join(one.migrate(), two.migrate()).await;
        assert_eq!(both, (Ok(()), Ok(())));
    }
}

#[tokio::test]
async fn a_closed_ledger_is_one_file_with_everything_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = open(&directory).await;
    ledger.migrate().await.unwrap();
    ledger.create_tenant(&acme(), &act()).await.unwrap();
    ledger.close().await.unwrap();
    let files: Vec<_> =
        std::fs::read_dir(directory.path().join("a/b")).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(files, ["ledger.db"]);
    assert!(ledger.create_tenant(&acme(), &act()).await.is_err(), "closed");
    assert_eq!(open(&directory).await.load().await.unwrap().tenants, [acme()]);
}

#[tokio::test]
async fn a_change_of_one_process_is_seen_by_another() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (open(&directory).await, open(&directory).await);
    one.migrate().await.unwrap();
    let before = two.revision().await.unwrap();
    one.create_tenant(&acme(), &act()).await.unwrap();
    assert!(two.revision().await.unwrap() > before);
    assert_eq!(two.load().await.unwrap().tenants, [acme()]);
}

#[tokio::test]
async fn a_commit_is_on_the_disk_and_readers_cannot_write() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = open(&directory).await;
    ledger.migrate().await.unwrap();
    let pragma = async |pool: &SqlitePool, name: &str| {
        let row = sqlx::query(AssertSqlSafe(format!("PRAGMA {name}"))).fetch_one(pool).await.unwrap();
        row.try_get::<i64, _>(0).map_or_else(|_| row.get::<String, _>(0), |number| number.to_string())
    };
    for (name, value) in [("journal_mode", "wal"), ("synchronous", "2"), ("foreign_keys", "1"), ("query_only", "0")] {
        assert_eq!(pragma(&ledger.writer, name).await, value, "{name}");
    }
    let written = sqlx::query("DELETE FROM meta").execute(&ledger.readers).await;
    assert!(written.is_err(), "a reader wrote");
}

#[tokio::test]
async fn lists_and_sums_are_answered_by_an_index() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = open(&directory).await;
    ledger.migrate().await.unwrap();
    for (question, index) in [
        (
            "SELECT row FROM usage_events WHERE row > 5 AND tenant_id = 'a' ORDER BY row LIMIT 9",
            "usage_events_by_tenant (tenant_id=? AND rowid>?)",
        ),
        (
            "SELECT row FROM usage_events WHERE row > MAX(5, (SELECT MIN(first_row) FROM usage_daily WHERE tenant_id = 'a') - 1)
             AND row <= (SELECT MAX(last_row) FROM usage_daily WHERE tenant_id = 'a') AND tenant_id = 'a'
             AND +requested_at >= 1 ORDER BY row LIMIT 9",
            "usage_events_by_tenant (tenant_id=? AND rowid>? AND rowid<?)",
        ),
        (
            "SELECT SUM(chats) FROM usage_events WHERE TRUE AND tenant_id = 'a' AND requested_at >= 1 AND requested_at < 2",
            "usage_events_by_time (tenant_id=? AND requested_at>? AND requested_at<?)",
        ),
        (
            "SELECT SUM(chats) FROM usage_daily WHERE TRUE AND tenant_id = 'a' AND period >= 'a' AND period < 'b'",
            "PRIMARY KEY (tenant_id=? AND period>? AND period<?)",
        ),
        (
            "SELECT tenant_id, SUM(chats) FROM usage_monthly WHERE period = 'a' GROUP BY tenant_id",
            "usage_monthly_by_period (period=?)",
        ),
    ] {
        let plan =
            sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {question}"))).fetch_all(&ledger.readers).await;
        let plan: Vec<String> = plan.unwrap().iter().map(|row| row.get("detail")).collect();
        assert!(plan.iter().any(|step| step.contains(index)), "{question}: {plan:?}");
        assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE FOR ORDER BY")), "{question}: {plan:?}");
    }
}

#[tokio::test]
async fn a_change_that_the_disk_refused_does_not_keep_the_next_ones_from_being_made() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = open(&directory).await;
    ledger.migrate().await.unwrap();
    // As after a commit that failed for the disk: SQLite has rolled back by itself, and the driver does not know.
    let mut transaction = ledger.write().await.unwrap();
    sqlx::query("ROLLBACK").execute(&mut *transaction).await.unwrap();
    drop(transaction);
    let tenant = acme();
    let act = act();
    let first = ledger.create_tenant(&tenant, &act).await;
    assert!(matches!(first, Ok(_) | Err(StoreError::Unavailable(_))), "{first:?}");
    let second = ledger.change_tenant(&tenant.id, &Default::default(), &act).await;
    assert!(matches!(second, Ok(_) | Err(StoreError::Missing(_))), "{second:?}");
}
