//! The ledger in Postgres as an accountant sees it: its tables read without the gateway, its sums added up again.

use std::collections::BTreeMap;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tokio::runtime::Builder;

use crate::support::audit::Booked;

const EVENTS: &str = "SELECT uuid_send(id) AS id, tenant_id, user_id, outcome, usage_source, chats, prompt_tokens,
    completion_tokens, to_char(to_timestamp(requested_at / 1000000) AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day,
    to_char(to_timestamp(requested_at / 1000000) AT TIME ZONE 'UTC', 'YYYY-MM') AS month
    FROM usage_events ORDER BY row";

/// Calls, chats, tokens and cost of a tenant, a period, a provider and a model.
type Sums = BTreeMap<(String, String, String, String), [i64; 5]>;
type Row = (String, String, String, String, i64, i64, i64, i64, i64);

fn with<T>(url: &str, work: impl AsyncFnOnce(&mut PgConnection) -> T) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = PgConnection::connect(url).await.expect("Postgres answers");
        let found = work(&mut connection).await;
        connection.close().await.unwrap();
        found
    })
}

/// Every booked call, in insert order.
pub fn events(url: &str) -> Vec<Booked> {
    with(url, async |connection| sqlx::query_as(EVENTS).fetch_all(connection).await.unwrap())
}

/// How many are booked.
pub fn count(url: &str) -> usize {
    let count = "SELECT COUNT(*) FROM usage_events";
    let count: i64 = with(url, async |connection| sqlx::query_scalar(count).fetch_one(connection).await.unwrap());
    usize::try_from(count).unwrap()
}

/// Demands that the sums of days and months are those of the events.
pub fn demand_right_sums(url: &str) {
    for (table, period) in [("usage_daily", "YYYY-MM-DD"), ("usage_monthly", "YYYY-MM")] {
        let kept = format!(
            "SELECT tenant_id, period, provider, model, requests + failed_requests, chats, prompt_tokens,
                completion_tokens, estimated_cost_micro_usd * 1000000 + estimated_cost_rest_pico_usd FROM {table}"
        );
        let added_up = format!(
            "SELECT tenant_id, to_char(to_timestamp(requested_at / 1000000) AT TIME ZONE 'UTC', '{period}'), provider,
                model, COUNT(*), SUM(chats)::BIGINT, SUM(prompt_tokens)::BIGINT, SUM(completion_tokens)::BIGINT,
                SUM(COALESCE(estimated_cost_pico_usd, 0))::BIGINT FROM usage_events GROUP BY 1, 2, 3, 4"
        );
        assert_eq!(sums(url, &kept), sums(url, &added_up), "{table}: not the sums of the events");
    }
}

fn sums(url: &str, of: &str) -> Sums {
    let statement = sqlx::query_as(AssertSqlSafe(of));
    let rows: Vec<Row> = with(url, async |connection| statement.fetch_all(connection).await.unwrap());
    let row = |(tenant, period, provider, model, calls, chats, prompt, completion, cost)| {
        ((tenant, period, provider, model), [calls, chats, prompt, completion, cost])
    };
    rows.into_iter().map(row).collect()
}
