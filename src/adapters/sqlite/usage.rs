//! Events and their sums in SQLite.
//!
//! May use: `domain`, `ports`.

use std::collections::{BTreeMap, HashSet};

use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, QueryBuilder, Row, Sqlite, SqliteConnection, query_with};

use super::rows::{self, Columns, EVENT_COLUMNS, SUM_COLUMNS, Values};
use super::{SqliteLedger, store_error};
use crate::domain::event::{Outcome, UsageEvent, UsageSource};
use crate::domain::ids::{EventId, TenantId};
use crate::domain::price::Priced;
use crate::domain::time::{Period, Window};
use crate::ports::usage::{Dimension, Entry, EventsQuery, Group, StandingOf, StoredEvent, Sums, SumsQuery, UsageStore};
use crate::ports::{BoxFuture, StoreError};

/// Rows in one INSERT, largest first: a statement costs a hand-over to SQLite's thread and back, which its rows share.
/// Few sizes, so that whatever the size of a batch its statements are prepared once and stay in the cache of 100; 64
/// rows of 31 values are far below SQLite's 32,766 values a statement.
const ROWS_PER_INSERT: [usize; 4] = [64, 16, 4, 1];

/// Ids in one SELECT: far below SQLite's 32,766 values a statement, and one size for all but the last.
const IDS_PER_STATEMENT: usize = 1_000;

/// Where the answer to a question about sums lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Events,
    Days,
    Months,
}

/// What the sums of one batch are kept by while it is added up: as in the primary key of the sums, in its order.
type SumKey<'a> = (&'a str, Period, &'a str, &'a str);

impl UsageStore for SqliteLedger {
    fn append<'a>(&'a self, events: &'a [UsageEvent]) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let appended = self.append_all(events).await;
            appended.inspect_err(|error| self.distrust_writer_after(error))
        })
    }

    fn sums<'a>(&'a self, query: &'a SumsQuery) -> BoxFuture<'a, Result<Vec<Group>, StoreError>> {
        Box::pin(async move {
            let mut statement = sums_statement(query);
            let found = statement.build().fetch_all(&self.readers).await.map_err(store_error)?;
            found.iter().map(|row| group(row, query.group_by.len())).collect()
        })
    }

    fn events<'a>(&'a self, query: &'a EventsQuery) -> BoxFuture<'a, Result<Vec<StoredEvent>, StoreError>> {
        Box::pin(async move {
            let mut statement = events_statement(query);
            let found = statement.build().fetch_all(&self.readers).await.map_err(store_error)?;
            found.iter().map(rows::event).collect()
        })
    }

    fn event<'a>(
        &'a self,
        tenant: Option<&'a TenantId>,
        id: EventId,
    ) -> BoxFuture<'a, Result<Option<StoredEvent>, StoreError>> {
        Box::pin(async move {
            let mut statement = QueryBuilder::new(select_events());
            statement.push(" WHERE id = ").push_bind(id.to_bytes().to_vec());
            if let Some(tenant) = tenant {
                statement.push(" AND tenant_id = ").push_bind(tenant.as_str().to_owned());
            }
            let found = statement.build().fetch_optional(&self.readers).await.map_err(store_error)?;
            found.as_ref().map(rows::event).transpose()
        })
    }

    fn known<'a>(&'a self, ids: &'a [EventId]) -> BoxFuture<'a, Result<Vec<EventId>, StoreError>> {
        Box::pin(async move {
            let mut connection = self.readers.acquire().await.map_err(store_error)?;
            known(&mut connection, ids).await
        })
    }

    fn chats<'a>(&'a self, period: Period) -> BoxFuture<'a, Result<Vec<(TenantId, u64)>, StoreError>> {
        Box::pin(async move {
            let table = Source::of(period.window()).table();
            let mut statement = QueryBuilder::new("SELECT tenant_id, SUM(chats) FROM ");
            statement.push(table).push(" WHERE period = ").push_bind(period.to_string()).push(" GROUP BY tenant_id");
            let found = statement.build().fetch_all(&self.readers).await.map_err(store_error)?;
            let pair = |row| {
                let mut columns = Columns::of(row);
                Ok((columns.parse()?, columns.count()?))
            };
            found.iter().map(pair).collect()
        })
    }

    fn standing_of<'a>(
        &'a self,
        tenants: &'a [TenantId],
        from: [Period; 2],
        ids: &'a [EventId],
    ) -> BoxFuture<'a, Result<StandingOf, StoreError>> {
        Box::pin(async move {
            // One reading transaction sees one instant.
            let mut snapshot = self.readers.begin().await.map_err(store_error)?;
            let mut chats = Vec::new();
            for (tenants, from) in tenants.chunks(IDS_PER_STATEMENT).flat_map(|some| from.map(|from| (some, from))) {
                chats.extend(chats_since(&mut snapshot, tenants, from).await?);
            }
            let known = known(&mut snapshot, ids).await?;
            snapshot.rollback().await.map_err(store_error)?;
            Ok(StandingOf { chats, known })
        })
    }

    fn find<'a>(&'a self, ids: &'a [EventId]) -> BoxFuture<'a, Result<Vec<StoredEvent>, StoreError>> {
        Box::pin(self.find_all(ids))
    }

    fn walk<'a>(&'a self, see: &'a mut (dyn FnMut(Entry) + Send)) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.walk_all(see))
    }

    fn ledger_id(&self) -> BoxFuture<'_, Result<String, StoreError>> {
        Box::pin(self.own_id())
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.check_schema())
    }
}

impl SqliteLedger {
    async fn append_all(&self, events: &[UsageEvent]) -> Result<u64, StoreError> {
        if events.is_empty() {
            return Ok(0);
        }
        let mut transaction = self.write().await?;
        let last = sqlx::query_scalar::<_, i64>("SELECT COALESCE(MAX(row), 0) FROM usage_events");
        let last = last.fetch_one(&mut *transaction).await.map_err(store_error)?;
        let mut added = 0;
        for some in pieces(events) {
            added += insert_events(&mut transaction, some).await?;
        }
        if added == 0 {
            return Ok(0);
        }
        let is_all_new = u64::try_from(events.len()) == Ok(added);
        let new = if is_all_new { events.iter().collect() } else { new_ones(&mut transaction, events, last).await? };
        for window in [Window::Day, Window::Month] {
            add_sums(&mut transaction, window, &new).await?;
        }
        self.commit(transaction).await?;
        Ok(added)
    }
}

impl Source {
    /// Where sums of one day or one month lie.
    fn of(window: Window) -> Self {
        match window {
            Window::Day => Self::Days,
            Window::Month => Self::Months,
        }
    }

    /// The smallest table that can answer `query`.
    fn for_query(query: &SumsQuery) -> Self {
        let has = |wanted: &[Dimension]| query.group_by.iter().any(|dimension| wanted.contains(dimension));
        if has(&[Dimension::Key, Dimension::User, Dimension::Kb, Dimension::Hour]) {
            Self::Events
        } else if has(&[Dimension::Day]) {
            Self::Days
        } else {
            Self::of(query.period.map_or(Window::Month, Period::window))
        }
    }

    fn table(self) -> &'static str {
        match self {
            Self::Events => "usage_events",
            Self::Days => "usage_daily",
            Self::Months => "usage_monthly",
        }
    }

    fn dimension(self, dimension: Dimension) -> &'static str {
        match (dimension, self) {
            (Dimension::Provider, _) => "provider",
            (Dimension::Model, _) => "model",
            (Dimension::Key, _) => "key_id",
            (Dimension::User, _) => "user_id",
            (Dimension::Kb, _) => "kb_id",
            (Dimension::Day, Self::Events) => "strftime('%Y-%m-%d', requested_at / 1000000, 'unixepoch')",
            (Dimension::Day, Self::Days | Self::Months) => "period",
            (Dimension::Hour, _) => "strftime('%Y-%m-%dT%H', requested_at / 1000000, 'unixepoch')",
        }
    }

    /// The sums in the order of [`SUM_COLUMNS`]. From events they mean what [`Sums::of`] means.
    fn sum(self, column: &str) -> String {
        let of = match self {
            Self::Days | Self::Months => column.to_owned(),
            Self::Events => sum_of_events(column),
        };
        format!("COALESCE(SUM({of}), 0)")
    }
}

fn sum_of_events(column: &str) -> String {
    let failed: Vec<String> = Outcome::ALL
        .iter()
        .filter(|outcome| outcome.is_failed())
        .map(|outcome| format!("'{}'", outcome.as_str()))
        .collect();
    let failed = format!("outcome IN ({})", failed.join(", "));
    let (unpriced, estimate) = (Priced::Unpriced.as_str(), UsageSource::Estimate.as_str());
    match column {
        "requests" => format!("NOT {failed}"),
        "failed_requests" => failed,
        // Both cut towards zero, as Rust does. A SUM of integers that overflows is an error in SQLite, never a float.
        "estimated_cost_micro_usd" => "estimated_cost_pico_usd / 1000000".to_owned(),
        "estimated_cost_rest_pico_usd" => "estimated_cost_pico_usd % 1000000".to_owned(),
        "unpriced_requests" => format!("priced = '{unpriced}' AND NOT {failed}"),
        "estimated_requests" => format!("usage_source = '{estimate}' AND NOT {failed}"),
        "estimated_prompt_tokens" => format!("CASE usage_source WHEN '{estimate}' THEN prompt_tokens ELSE 0 END"),
        "estimated_completion_tokens" => {
            format!("CASE usage_source WHEN '{estimate}' THEN completion_tokens ELSE 0 END")
        }
        same => same.to_owned(),
    }
}

fn sums_statement(query: &SumsQuery) -> QueryBuilder<Sqlite> {
    let source = Source::for_query(query);
    let dimensions: Vec<&str> = query.group_by.iter().map(|dimension| source.dimension(*dimension)).collect();
    let sums = SUM_COLUMNS.map(|column| source.sum(column));
    let mut columns = dimensions.clone();
    columns.extend(sums.iter().map(String::as_str));
    let mut statement = QueryBuilder::new(format!("SELECT {} FROM {}", columns.join(", "), source.table()));
    statement.push(" WHERE TRUE");
    if let Some(tenant) = &query.tenant {
        statement.push(" AND tenant_id = ").push_bind(tenant.as_str().to_owned());
    }
    if let Some(period) = query.period {
        match source {
            Source::Events => {
                statement.push(" AND requested_at >= ").push_bind(period.start().0);
                statement.push(" AND requested_at < ").push_bind(period.end().0);
            }
            // A day's name sorts as the day does, so the days of a month are one range of names.
            Source::Days => {
                statement.push(" AND period >= ").push_bind(Window::Day.period(period.start()).to_string());
                statement.push(" AND period < ").push_bind(Window::Day.period(period.end()).to_string());
            }
            Source::Months => {
                statement.push(" AND period = ").push_bind(period.to_string());
            }
        }
    }
    if !dimensions.is_empty() {
        let places: Vec<String> = (1..=dimensions.len()).map(|at| at.to_string()).collect();
        let places = places.join(", ");
        statement.push(" GROUP BY ").push(&places).push(" ORDER BY ").push(&places);
    }
    statement
}

fn group(row: &sqlx::sqlite::SqliteRow, dimensions: usize) -> Result<Group, StoreError> {
    let mut columns = Columns::of(row);
    let values = (0..dimensions).map(|_| columns.take()).collect::<Result<_, _>>()?;
    Ok(Group { values, sums: rows::sums(&mut columns)? })
}

fn select_events() -> String {
    format!("SELECT row, {} FROM usage_events", EVENT_COLUMNS.join(", "))
}

fn events_statement(query: &EventsQuery) -> QueryBuilder<Sqlite> {
    let mut statement = QueryBuilder::new(select_events());
    statement.push(" WHERE row > ").push_bind(query.after.unwrap_or(0));
    if let Some(tenant) = &query.tenant {
        statement.push(" AND tenant_id = ").push_bind(tenant.as_str().to_owned());
    }
    // The plus signs keep the times away from their index: pages are read in insert order from where the last one
    // ended, and an index by time would have every page sort the whole range first.
    if let Some(from) = query.from {
        statement.push(" AND +requested_at >= ").push_bind(from.0);
    }
    if let Some(to) = query.to {
        statement.push(" AND +requested_at < ").push_bind(to.0);
    }
    statement.push(" ORDER BY row LIMIT ").push_bind(i64::from(query.events_max));
    statement
}

/// Those of `ids` that are there.
async fn known(connection: &mut SqliteConnection, ids: &[EventId]) -> Result<Vec<EventId>, StoreError> {
    let mut found = Vec::new();
    for ids in ids.chunks(IDS_PER_STATEMENT) {
        let mut statement = QueryBuilder::new("SELECT id FROM usage_events WHERE id IN (");
        let mut list = statement.separated(", ");
        for id in ids {
            list.push_bind(id.to_bytes().to_vec());
        }
        list.push_unseparated(")");
        let rows = statement.build().fetch_all(&mut *connection).await.map_err(store_error)?;
        for row in &rows {
            found.push(EventId::from_bytes(Columns::of(row).bytes()?));
        }
    }
    Ok(found)
}

/// Chats of some tenants, by period, at or after one.
async fn chats_since(
    connection: &mut SqliteConnection,
    tenants: &[TenantId],
    from: Period,
) -> Result<Vec<(TenantId, Period, u64)>, StoreError> {
    let mut statement = QueryBuilder::new("SELECT tenant_id, period, SUM(chats) FROM ");
    statement.push(Source::of(from.window()).table()).push(" WHERE period >= ").push_bind(from.to_string());
    statement.push(" AND tenant_id IN (");
    let mut list = statement.separated(", ");
    for tenant in tenants {
        list.push_bind(tenant.as_str().to_owned());
    }
    list.push_unseparated(") GROUP BY tenant_id, period");
    let found = statement.build().fetch_all(connection).await.map_err(store_error)?;
    let sum = |row| {
        let mut columns = Columns::of(row);
        let tenant = columns.parse()?;
        let period = columns.named(|text| from.window().parse(text).ok())?;
        Ok((tenant, period, columns.count()?))
    };
    found.iter().map(sum).collect()
}

/// Writes events that are not there yet and says how many that were.
async fn insert_events(connection: &mut SqliteConnection, events: &[UsageEvent]) -> Result<u64, StoreError> {
    let mut values = Values::default();
    for event in events {
        rows::bind_event(&mut values, event)?;
    }
    let columns = EVENT_COLUMNS.join(", ");
    let places = places(events.len(), EVENT_COLUMNS.len());
    // OR FAIL: a row that is refused ends the transaction anyway, so SQLite need not keep each page as it was before this
    // statement.
    let text = format!("INSERT OR FAIL INTO usage_events ({columns}) VALUES {places} ON CONFLICT (id) DO NOTHING");
    execute(connection, text, values.0).await
}

/// Those of `events` that were written after the row `last`: each id once, as the first of its kind was.
async fn new_ones<'a>(
    connection: &mut SqliteConnection,
    events: &'a [UsageEvent],
    last: i64,
) -> Result<Vec<&'a UsageEvent>, StoreError> {
    let written = sqlx::query("SELECT id FROM usage_events WHERE row > ?").bind(last);
    let written = written.fetch_all(connection).await.map_err(store_error)?;
    let ids = written.iter().map(|row| row.try_get::<Vec<u8>, _>(0)).collect::<Result<HashSet<_>, _>>();
    let mut ids = ids.map_err(store_error)?;
    Ok(events.iter().filter(|event| ids.remove(event.id.to_bytes().as_slice())).collect())
}

/// Adds `events` to the sums of their days or months: each sum once, in the order of their keys.
async fn add_sums(connection: &mut SqliteConnection, window: Window, events: &[&UsageEvent]) -> Result<(), StoreError> {
    let mut all: BTreeMap<SumKey<'_>, Sums> = BTreeMap::new();
    for event in events {
        let period = window.period(event.requested_at);
        let sums = all.entry((event.tenant.as_str(), period, event.provider.as_str(), &event.model)).or_default();
        let fits = sums.plus(&Sums::of(event));
        *sums = fits.ok_or_else(|| StoreError::Refused(format!("event {}: the sum of its {period}", event.id)))?;
    }
    let all: Vec<(SumKey<'_>, Sums)> = all.into_iter().collect();
    for some in pieces(&all) {
        let mut values = Values::default();
        for ((tenant, period, provider, model), sums) in some {
            values.add(*tenant)?;
            values.add(period.to_string())?;
            values.add(*provider)?;
            values.add(*model)?;
            rows::bind_sums(&mut values, sums)?;
        }
        let (table, columns) = (Source::of(window).table(), SUM_COLUMNS.join(", "));
        let places = places(some.len(), 4 + SUM_COLUMNS.len());
        let sums = SUM_COLUMNS.map(|column| format!("{column} = {column} + excluded.{column}")).join(", ");
        let text = format!(
            "INSERT INTO {table} (tenant_id, period, provider, model, {columns}) VALUES {places} \
             ON CONFLICT (tenant_id, period, provider, model) DO UPDATE SET {sums}"
        );
        execute(connection, text, values.0).await?;
    }
    Ok(())
}

/// `text` is made of names in this file and placeholders only.
async fn execute(
    connection: &mut SqliteConnection,
    text: String,
    arguments: SqliteArguments,
) -> Result<u64, StoreError> {
    let done = query_with(AssertSqlSafe(text), arguments).execute(connection).await.map_err(store_error)?;
    Ok(done.rows_affected())
}

/// `all` in pieces of [`ROWS_PER_INSERT`].
fn pieces<T>(mut all: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = ROWS_PER_INSERT.into_iter().find(|size| *size <= all.len())?;
        let (piece, rest) = all.split_at_checked(size)?;
        all = rest;
        Some(piece)
    })
}

/// `(?, ?), (?, ?)` for two rows of two values.
fn places(rows: usize, values: usize) -> String {
    let row = format!("({})", vec!["?"; values].join(", "));
    vec![row.as_str(); rows].join(", ")
}
