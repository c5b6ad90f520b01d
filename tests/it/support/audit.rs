//! The ledger as an accountant sees it: its tables read without the gateway, its sums added up again, its answers compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::runtime::{Builder, Runtime};

use super::gateway::{Gateway, pico_usd};
use super::wire::{Answer, Request};

/// A connection of its own to the file of a ledger.
pub struct Ledger {
    runtime: Runtime,
    connection: Option<SqliteConnection>,
}

/// One booked call.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Booked {
    pub id: Vec<u8>,
    pub tenant_id: String,
    /// The mark that its client gave it.
    pub user_id: Option<String>,
    pub outcome: String,
    pub usage_source: String,
    pub chats: i64,
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    /// Day and month that it is counted in.
    pub day: String,
    pub month: String,
}

/// What the cost report says of everything. The cost is its text: no digit is lost on the way.
#[derive(Deserialize)]
struct Report {
    totals: Totals,
}

#[derive(Deserialize)]
struct Totals {
    requests: i64,
    failed_requests: i64,
    chats: i64,
    prompt_tokens: i64,
    cached_tokens: i64,
    completion_tokens: i64,
    reasoning_tokens: i64,
    estimated_cost_usd: Box<RawValue>,
}

/// The figures that every sum must agree on, by tenant, period, provider and model.
type Sums = BTreeMap<(String, String, String, String), [i64; 7]>;

const EVENTS: &str = "SELECT id, tenant_id, user_id, outcome, usage_source, chats, prompt_tokens, completion_tokens,
    strftime('%Y-%m-%d', requested_at / 1000000 + utc_offset_s, 'unixepoch') AS day,
    strftime('%Y-%m', requested_at / 1000000 + utc_offset_s, 'unixepoch') AS month FROM usage_events ORDER BY row";

const DAYS: &str = "SELECT tenant_id, period, provider, model, requests + failed_requests, chats,
    prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens,
    estimated_cost_micro_usd * 1000000 + estimated_cost_rest_pico_usd FROM usage_daily";
const MONTHS: &str = "SELECT tenant_id, period, provider, model, requests + failed_requests, chats,
    prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens,
    estimated_cost_micro_usd * 1000000 + estimated_cost_rest_pico_usd FROM usage_monthly";

impl Ledger {
    pub fn open(file: &Path) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let options = SqliteConnectOptions::new().filename(file).busy_timeout(std::time::Duration::from_secs(10));
        let connection = runtime.block_on(options.connect()).expect("the ledger can be opened");
        Self { runtime, connection: Some(connection) }
    }

    fn connection(&mut self) -> (&Runtime, &mut SqliteConnection) {
        (&self.runtime, self.connection.as_mut().expect("the connection is closed at the end only"))
    }

    /// Keeps every other writer out until the value is dropped.
    pub fn locked(file: &Path) -> Self {
        let mut ledger = Self::open(file);
        let (runtime, connection) = ledger.connection();
        runtime.block_on(sqlx::query("BEGIN EXCLUSIVE").execute(connection)).expect("the lock");
        ledger
    }

    pub fn count(&mut self) -> u64 {
        let (runtime, connection) = self.connection();
        let count: i64 =
            runtime.block_on(sqlx::query_scalar("SELECT COUNT(*) FROM usage_events").fetch_one(connection)).unwrap();
        u64::try_from(count).unwrap()
    }

    /// Every booked call, in insert order.
    pub fn events(&mut self) -> Vec<Booked> {
        let (runtime, connection) = self.connection();
        runtime.block_on(sqlx::query_as(EVENTS).fetch_all(connection)).unwrap()
    }

    fn sums(&mut self, of: &str) -> Sums {
        type Row = (String, String, String, String, i64, i64, i64, i64, i64, i64, i64);
        let (runtime, connection) = self.connection();
        let rows: Vec<Row> = runtime.block_on(sqlx::query_as(sqlx::AssertSqlSafe(of)).fetch_all(connection)).unwrap();
        let row = |(tenant, period, provider, model, calls, chats, prompt, cached, completion, reasoning, cost)| {
            ((tenant, period, provider, model), [calls, chats, prompt, cached, completion, reasoning, cost])
        };
        rows.into_iter().map(row).collect()
    }

    /// Demands that the sums of days and months are those of the events, that no id stands twice and nothing is negative.
    pub fn demand_right_sums(&mut self) {
        let added_up = |period: &str| {
            format!(
                "SELECT tenant_id, strftime('{period}', requested_at / 1000000 + utc_offset_s, 'unixepoch'), provider, model, COUNT(*),
                 SUM(chats), SUM(prompt_tokens), SUM(cached_tokens), SUM(completion_tokens), SUM(reasoning_tokens),
                 SUM(COALESCE(estimated_cost_pico_usd, 0)) FROM usage_events GROUP BY 1, 2, 3, 4"
            )
        };
        for (kept, period) in [(DAYS, "%Y-%m-%d"), (MONTHS, "%Y-%m")] {
            let (expected, found) = (self.sums(&added_up(period)), self.sums(kept));
            assert_eq!(found, expected, "not the sums of the events: {kept}");
            assert!(found.values().flatten().all(|figure| *figure >= 0), "{found:?}");
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // Closing gives the lock back before anything else goes on.
        if let Some(connection) = self.connection.take() {
            drop(self.runtime.block_on(connection.close()));
        }
    }
}

/// Reads the ledger of a running gateway and demands that everything that is said of it agrees: events, days, months, the
/// usage of each tenant in its months, the cost report, and the chats that the limit counts. Gives the events.
pub fn audit(gateway: &Gateway, month: &str) -> Vec<Booked> {
    let mut ledger = Ledger::open(&gateway.ledger_file());
    ledger.demand_right_sums();
    let events = ledger.events();
    let mut ids: Vec<_> = events.iter().map(|event| &event.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), events.len(), "an id is booked twice");

    demand_right_report(gateway, &mut ledger);

    let admin = |target: &str| ask(gateway, target).json();
    let figure = |value: &Value, name: &str| value[name].as_i64().unwrap_or_else(|| panic!("{name}: {value}"));
    let mut by_tenant: BTreeMap<(&str, &str), [i64; 4]> = BTreeMap::new();
    for event in &events {
        let sums = by_tenant.entry((&event.tenant_id, &event.month)).or_default();
        for (sum, more) in sums.iter_mut().zip([1, event.chats, event.prompt_tokens, event.completion_tokens]) {
            *sum += more;
        }
    }
    for ((tenant, in_month), expected) in by_tenant {
        let usage = admin(&format!("/billing/usage?range=month&date={in_month}&tenant_id={tenant}"));
        let calls = figure(&usage, "requests") + figure(&usage, "failed_requests");
        let found =
            [calls, figure(&usage, "chats"), figure(&usage, "prompt_tokens"), figure(&usage, "completion_tokens")];
        assert_eq!(found, expected, "the usage of {tenant} in {in_month}");
        if in_month == month {
            let limits = admin(&format!("/billing/limits?tenant_id={tenant}"));
            assert_eq!((figure(&limits, "used"), figure(&limits, "held")), (expected[1], 0), "{tenant}: {limits}");
        }
    }
    events
}

fn ask(gateway: &Gateway, target: &str) -> Answer {
    let answer = gateway.admin(Request::get(target));
    assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    answer
}

/// The cost report is the sum of the months, to the last digit.
fn demand_right_report(gateway: &Gateway, ledger: &mut Ledger) {
    let answer = ask(gateway, "/billing/cost-report?range=all");
    let Report { totals: said } = serde_json::from_slice(&answer.body).unwrap();
    let mut sums = [0_i64; 7];
    for row in ledger.sums(MONTHS).values() {
        for (sum, more) in sums.iter_mut().zip(row) {
            *sum += more;
        }
    }
    let cost = i64::try_from(pico_usd(said.estimated_cost_usd.get())).unwrap();
    let calls = said.requests + said.failed_requests;
    let found = [
        calls,
        said.chats,
        said.prompt_tokens,
        said.cached_tokens,
        said.completion_tokens,
        said.reasoning_tokens,
        cost,
    ];
    assert_eq!(found, sums, "the cost report is not the sum of the months: {}", answer.text());
}

/// The files of a ledger that its writer writes.
pub fn files_of(ledger: &Path) -> Vec<PathBuf> {
    let log = ledger.with_extension("db-wal");
    [ledger.to_owned(), log].into_iter().filter(|path| path.exists()).collect()
}
