//! What is SQLite's own about changes: that all of one is in one transaction, and that old memories go.

use sqlx::{AssertSqlSafe, Row};
use tempfile::TempDir;

use super::super::SqliteLedger;
use crate::adapters::sql::audit::DROPPED_MAX;
use crate::domain::audit::{Actor, Author};
use crate::domain::tenant::Tenant;
use crate::domain::time::Micros;
use crate::domain::zone::Zone;
use crate::ports::tenants::{Act, Answered, Digest, Memory, REMEMBERED_US, TenantStore};

async fn open(directory: &TempDir) -> SqliteLedger {
    let ledger = SqliteLedger::open(directory.path().join("ledger.db").to_str().unwrap(), true).await.unwrap();
    ledger.migrate().await.unwrap();
    ledger
}

fn made(id: &str) -> Tenant {
    let plan = "starter".parse().unwrap();
    Tenant {
        id: id.parse().unwrap(),
        name: id.to_owned(),
        plan,
        suspended: false,
        zone: Zone::UTC,
        created_at: Micros(1),
    }
}

fn once(number: u64, at: i64) -> Act {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let answered = Answered { request: Digest([1; 32]), sealed: vec![1, 2, 3] };
    let memory = Memory { id: Digest(id), key_sha256: Digest([2; 32]), answered };
    Act { memory: Some(memory), ..Act::by(Author::of(Actor::Admin), Micros(at)) }
}

async fn rows(ledger: &SqliteLedger, table: &str) -> i64 {
    let count = sqlx::query_scalar(AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}")));
    count.fetch_one(&ledger.readers).await.unwrap()
}

#[tokio::test]
async fn a_change_its_entry_and_its_memory_are_written_together_or_not_at_all() {
    for table in ["tenants", "tenant_plans", "audit_log", "idempotency_records"] {
        let directory = tempfile::tempdir().unwrap();
        let ledger = open(&directory).await;
        let before = ledger.revision().await.unwrap();
        let text = format!("CREATE TRIGGER full BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'disk full'); END");
        sqlx::query(AssertSqlSafe(text)).execute(&ledger.writer).await.unwrap();
        ledger.create_tenant(&made("acme"), &once(1, 1)).await.unwrap_err();
        for other in ["tenants", "tenant_plans", "audit_log", "idempotency_records"] {
            assert_eq!(rows(&ledger, other).await, 0, "{other} after a failure at {table}");
        }
        assert_eq!(ledger.revision().await, Ok(before), "{table}");
        sqlx::query("DROP TRIGGER full").execute(&ledger.writer).await.unwrap();
        assert!(ledger.create_tenant(&made("acme"), &once(1, 1)).await.is_ok(), "{table}: tried again");
    }
}

#[tokio::test]
async fn a_call_that_is_given_up_is_whole_or_was_never_made() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = open(&directory).await;
    for polls in 0..40_u64 {
        let tenant = made(&format!("t{polls}"));
        let act = once(polls, 1);
        let mut call = ledger.create_tenant(&tenant, &act);
        for _ in 0..polls {
            if futures_util::poll!(&mut call).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(call);
        // The writer is one connection: this waits until what was given up is over.
        drop(ledger.write().await.unwrap());
        let counts = [
            rows(&ledger, "tenants").await,
            rows(&ledger, "tenant_plans").await,
            rows(&ledger, "audit_log").await,
            rows(&ledger, "idempotency_records").await,
        ];
        assert!(counts.iter().all(|count| *count == counts[0]), "{polls}: {counts:?}");
        ledger.create_tenant(&tenant, &act).await.unwrap();
    }
    assert_eq!(rows(&ledger, "tenants").await, 40);
}

#[tokio::test]
async fn each_change_drops_a_bounded_number_of_old_memories() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = open(&directory).await;
    let old = u64::try_from(DROPPED_MAX).unwrap() + 10;
    let change = crate::ports::tenants::TenantChange::default();
    ledger.create_tenant(&made("acme"), &Act::by(Author::of(Actor::Cli), Micros(0))).await.unwrap();
    let acme = made("acme").id;
    for number in 0..old {
        ledger.change_tenant(&acme, &change, &once(number, 1)).await.unwrap();
    }
    let then = 1 + REMEMBERED_US;
    for (number, left) in [(1_000, old + 1), (1_001, 12), (1_002, 3), (1_003, 4)] {
        let at = if number == 1_000 { then - 1 } else { then };
        ledger.change_tenant(&acme, &change, &once(number, at)).await.unwrap();
        assert_eq!(rows(&ledger, "idempotency_records").await, i64::try_from(left).unwrap(), "{number}");
    }
}

#[tokio::test]
async fn changes_and_parts_of_the_log_are_found_by_an_index() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = open(&directory).await;
    for (question, index) in [
        (
            "SELECT row FROM audit_log WHERE row > 5 AND tenant_id = 'a' ORDER BY row DESC LIMIT 9",
            "audit_log_by_tenant (tenant_id=? AND rowid>?)",
        ),
        ("SELECT answer FROM idempotency_records WHERE id = x'00' AND at > 1", "PRIMARY KEY (id=?)"),
        ("SELECT id FROM idempotency_records WHERE at <= 1 ORDER BY at LIMIT 64", "idempotency_records_by_time (at<?)"),
    ] {
        let plan =
            sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {question}"))).fetch_all(&ledger.readers).await;
        let plan: Vec<String> = plan.unwrap().iter().map(|row| row.get("detail")).collect();
        assert!(plan.iter().any(|step| step.contains(index)), "{question}: {plan:?}");
        assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{question}: {plan:?}");
    }
}

#[tokio::test]
async fn an_entry_of_the_audit_log_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = open(&directory).await;
    ledger.create_tenant(&made("acme"), &once(1, 1)).await.unwrap();
    // A mark that is not the ledger's own opens nothing.
    sqlx::query("CREATE TEMP TABLE unfinished_copy (x)").execute(&ledger.writer).await.unwrap();
    const COLUMNS: &str = "(row, at, actor, action) VALUES";
    for text in [
        &format!("REPLACE INTO audit_log {COLUMNS} (1, 0, 'cli', 'plan.set')"),
        &format!("INSERT OR REPLACE INTO audit_log {COLUMNS} (2, 0, 'cli', 'plan.set'), (1, 0, 'cli', 'plan.set')"),
        &format!("INSERT INTO audit_log {COLUMNS} (1, 0, 'a', 'b') ON CONFLICT (row) DO UPDATE SET actor = 'cli'"),
        &format!("INSERT INTO audit_log {COLUMNS} (0, 0, 'cli', 'plan.set')"),
        &format!("INSERT INTO audit_log {COLUMNS} (-1, 0, 'cli', 'plan.set')"),
        "UPDATE audit_log SET actor = 'cli'",
        "UPDATE OR REPLACE audit_log SET row = 7",
        "DELETE FROM audit_log",
        "DELETE FROM audit_log WHERE row = 1",
    ] {
        let refused = sqlx::query(AssertSqlSafe(text)).execute(&ledger.writer).await.expect_err(text).to_string();
        assert!(refused.contains("append-only"), "{text}: {refused}");
    }
    sqlx::query("DROP TABLE temp.unfinished_copy").execute(&ledger.writer).await.unwrap();
    let entry = sqlx::query("SELECT row, actor FROM audit_log").fetch_one(&ledger.readers).await.unwrap();
    assert_eq!((entry.get::<i64, _>(0), entry.get::<&str, _>(1)), (1, "admin"));
    // What a copy wrote it may put right until it is finished.
    sqlx::query("CREATE TABLE unfinished_copy (x)").execute(&ledger.writer).await.unwrap();
    sqlx::query("DELETE FROM audit_log").execute(&ledger.writer).await.unwrap();
}
