//! Reports of a tenant with many events: they read sums, so they are quick.
//!
//! 50,000 events in an ordinary run, a million with `TOLLGATE_TEST_FULL=1`.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tokio::runtime::Builder;
use tollgate::adapters::postgres::PostgresLedger;
use tollgate::adapters::sqlite::SqliteLedger;
use tollgate::domain::event::UsageEvent;
use tollgate::domain::time::Micros;
use tollgate::ports::usage::UsageStore;

use crate::conformance::event;
use crate::support::machine::{figures, full};
use crate::support::postgres::Database;
use crate::support::redis::RedisServer;
use crate::support::*;

const DAYS: i64 = 45;
const DAY_US: i64 = 86_400_000_000;
/// Questions to each route.
const QUESTIONS: usize = 200;
/// The promise, of a release.
const P99_MAX: Duration = Duration::from_millis(20);
/// The machine may be busy with other tests: so often at most.
const ROUNDS_MAX: u32 = 5;

/// How a database says what differs.
struct Dialect {
    /// The id of event number `n`.
    id: &'static str,
    /// Where `n` comes from, up to below `{events}`.
    numbers: &'static str,
    /// The period of an event, with this pattern.
    period: fn(&str) -> String,
    patterns: [&'static str; 2],
}

const POSTGRES: Dialect = Dialect {
    id: "(lpad(to_hex(({from} + n * {step}) / 1000), 12, '0') || '7' || lpad(to_hex(n % 4096), 3, '0') || '8'
        || lpad(to_hex(n * 2654435761 % 1000000007), 15, '0'))::uuid",
    numbers: "FROM generate_series(0::BIGINT, {events} - 1) AS n",
    period: |pattern| format!("to_char(to_timestamp(requested_at / 1000000) AT TIME ZONE 'UTC', '{pattern}')"),
    patterns: ["YYYY-MM-DD", "YYYY-MM"],
};

const SQLITE: Dialect = Dialect {
    id: "unhex(printf('%012x7%03x8%015x', ({from} + n * {step}) / 1000, n % 4096, n * 2654435761 % 1000000007))",
    numbers: "FROM (WITH RECURSIVE s (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < {events} - 1) SELECT n FROM s)",
    period: |pattern| format!("strftime('{pattern}', requested_at / 1000000, 'unixepoch')"),
    patterns: ["%Y-%m-%d", "%Y-%m"],
};

/// Events of `acme` over the last days, one after the other.
struct Events {
    count: i64,
    from: i64,
    step: i64,
}

impl Events {
    fn new() -> Self {
        let count = if full() { 1_000_000 } else { 50_000 };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let from = i64::try_from(now.as_micros()).unwrap() - DAYS * DAY_US;
        Self { count, from, step: DAYS * DAY_US / count }
    }

    /// Statements that put them into a ledger, with their sums.
    fn statements(&self, dialect: &Dialect) -> Vec<String> {
        let put = |text: &str| {
            text.replace("{from}", &self.from.to_string())
                .replace("{step}", &self.step.to_string())
                .replace("{events}", &self.count.to_string())
        };
        let mut statements = vec![put(&format!(
            "INSERT INTO usage_events (id, tenant_id, key_id, user_id, provider, model, requested_model, endpoint, chats,
                prompt_tokens, cached_tokens, cache_write_tokens, prompt_audio_tokens, prompt_image_tokens,
                cached_audio_tokens, completion_tokens, reasoning_tokens, completion_audio_tokens, completion_image_tokens,
                usage_source, estimated_cost_pico_usd, priced, price_version, service_tier, requested_at, duration_us,
                first_byte_us, status, outcome, request_id, utc_offset_s)
             SELECT {}, 'acme', 'key_0123456789abcdef', 'user-' || (n % 50), CASE n % 2 WHEN 0 THEN 'openai' ELSE 'gemini' END,
                CASE n % 3 WHEN 0 THEN 'gpt-4o-mini' WHEN 1 THEN 'gemini-2.5-flash' ELSE 'o3' END, 'gpt-4o',
                'chat.completions', 1, 11 + n % 100, n % 11, 0, 0, 0, 0, 7 + n % 50, n % 7, 0, 0, 'provider', 5850000 + n,
                'priced', '2026-11-24', 'standard', {{from}} + n * {{step}}, 120000, 80000, 200, 'completed', 'req_' || n, 0 {}",
            dialect.id, dialect.numbers
        ))];
        for (table, pattern) in ["usage_daily", "usage_monthly"].into_iter().zip(dialect.patterns) {
            statements.push(format!("DELETE FROM {table}"));
            statements.push(format!(
                "INSERT INTO {table} (tenant_id, period, provider, model, requests, chats, failed_requests, prompt_tokens,
                    cached_tokens, cache_write_tokens, prompt_audio_tokens, prompt_image_tokens, cached_audio_tokens,
                    completion_tokens, reasoning_tokens, completion_audio_tokens, completion_image_tokens,
                    estimated_cost_micro_usd, estimated_cost_rest_pico_usd, unpriced_requests, estimated_requests,
                    estimated_prompt_tokens, estimated_completion_tokens)
                 SELECT tenant_id, {}, provider, model, COUNT(*), SUM(chats), 0, SUM(prompt_tokens), SUM(cached_tokens), 0, 0,
                    0, 0, SUM(completion_tokens), SUM(reasoning_tokens), 0, 0, SUM(estimated_cost_pico_usd / 1000000),
                    SUM(estimated_cost_pico_usd % 1000000), 0, 0, 0, 0 FROM usage_events GROUP BY 1, 2, 3, 4",
                (dialect.period)(pattern)
            ));
        }
        statements.push("ANALYZE".to_owned());
        statements
    }

    /// A few through the ledger itself, which makes the months that it needs.
    async fn begin(&self, ledger: &dyn UsageStore) {
        let at = |part: i64| Micros(self.from + part * DAYS * DAY_US / 10);
        let events: Vec<UsageEvent> =
            (0..=10).map(|part| UsageEvent { requested_at: at(part), ..event(part.unsigned_abs()) }).collect();
        ledger.append(&events).await.unwrap();
    }

    /// An event in the middle, as a cursor.
    fn middle(&self) -> String {
        let n = self.count / 2;
        let ms = (self.from + n * self.step) / 1_000;
        let hex = format!("{ms:012x}7{:03x}8{:015x}", n % 4_096, n * 2_654_435_761 % 1_000_000_007);
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

/// Asks each route, and tells the p99 of each.
fn measure(gateway: &Gateway, key: &str, events: &Events, store: &str) {
    let routes = [
        ("usage of a month", "/billing/usage?range=month".to_owned()),
        ("of a day", "/billing/usage?range=day".to_owned()),
        ("by provider and model", "/billing/usage?range=month&group_by=provider,model".to_owned()),
        ("by day", "/billing/usage?range=month&group_by=day".to_owned()),
        ("cost report", "/billing/cost-report?range=month".to_owned()),
        ("of all time", "/billing/cost-report?range=all".to_owned()),
        ("events", "/billing/events".to_owned()),
        ("from the middle on", format!("/billing/events?cursor={}", events.middle())),
        ("limits", "/billing/limits".to_owned()),
    ];
    let mut told = Vec::new();
    for (what, target) in routes {
        let request = Request::get(target).bearer(key);
        let mut p99 = Duration::MAX;
        for _ in 0..ROUNDS_MAX {
            let mut wire = Wire::open(gateway.proxy);
            let mut took: Vec<Duration> = (0..QUESTIONS)
                .map(|_| {
                    let began = Instant::now();
                    let answer = wire.ask(&request);
                    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
                    began.elapsed()
                })
                .collect();
            took.sort_unstable();
            p99 = p99.min(took[QUESTIONS * 99 / 100 - 1]);
            if p99 < P99_MAX || !is_release() {
                break;
            }
        }
        told.push(format!("{what} {}.{} ms", p99.as_millis(), p99.as_micros() / 100 % 10));
        assert!(p99 < P99_MAX || !is_release(), "{store}: {what}: p99 {p99:?}");
    }
    let build = if is_release() { "release" } else { "debug" };
    figures(&format!("p99 of a tenant with {} events, {store} ({build} build): {}", events.count, told.join(", ")));
}

#[test]
fn reports_of_a_tenant_with_many_events_are_quick_on_postgres() {
    let events = Events::new();
    let (database, redis) = (Database::new(), RedisServer::start());
    let provider = Provider::start(bodies::honest);
    let gateway = Setup::new(&provider)
        .prod()
        .set("DATABASE_URL", &database.url)
        .set("REDIS_URL", &redis.url())
        .config("[plans.wide]\nchats_per_month = 100000000\n")
        .start();
    let key = gateway.issue("acme", "wide");
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let ledger = PostgresLedger::open(&database.url, Duration::ZERO).await.unwrap();
        events.begin(&ledger).await;
    });
    for statement in events.statements(&POSTGRES) {
        database.say(&statement);
    }
    measure(&gateway, &key, &events, "Postgres");
}

#[test]
fn reports_of_a_tenant_with_many_events_are_quick_on_sqlite() {
    let events = Events::new();
    let provider = Provider::start(bodies::honest);
    let plans = "[plans.wide]\nchats_per_month = 100000000\n";
    let mut gateway = Setup::new(&provider).prod().config(plans).start();
    let key = gateway.issue("acme", "wide");
    gateway.stop();
    fill(&gateway.ledger_file(), &events);
    let gateway = Setup::new(&provider).prod().on_ledger_of(&gateway).config(plans).start();
    measure(&gateway, &key, &events, "SQLite");
}

fn fill(file: &Path, events: &Events) {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let ledger = SqliteLedger::open(&file.to_string_lossy(), false).await.unwrap();
        events.begin(&ledger).await;
        ledger.close().await.unwrap();
        let mut connection = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
        for statement in events.statements(&SQLITE) {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
        }
        connection.close().await.unwrap();
    });
}
