//! Questions about events and their sums.
//!
//! May use: `domain`, `ports`. Questions about sums are answered from the smallest table that can.

use std::collections::BTreeMap;

use super::cells::{Cells, Columns};
use super::rows::{self, EVENT_COLUMNS, SUM_COLUMNS, table};
use super::statement::Statement;
use super::{Dialect, LISTED_MAX};
use crate::domain::event::{Outcome, UTC_OFFSET_MAX_S, UsageSource};
use crate::domain::ids::{EventId, TenantId};
use crate::domain::price::Priced;
use crate::domain::time::{MICROS_PER_SECOND, Micros, Period, Window};
use crate::ports::StoreError;
use crate::ports::usage::{Dimension, EventsQuery, Group, StoredEvent, SumsQuery};

/// Microseconds of a day.
pub(in crate::adapters) const DAY_US: i64 = 86_400_000_000;

/// What the tenant's clock showed at an event's admission: by it an event is in a month, and dropped with that month.
pub(in crate::adapters) const LOCAL: &str = "requested_at + utc_offset_s * 1000000";

/// What an event adds to what is billed: rows of before the two costs were told apart have one of them.
pub(super) const BILLABLE: &str = "COALESCE(billable_cost_pico_usd, estimated_cost_pico_usd, 0)";

/// The furthest that the clock of an event's tenant can be from UTC, in microseconds.
const OFFSET_MAX_US: i64 = UTC_OFFSET_MAX_S as i64 * MICROS_PER_SECOND;

/// Where the answer to a question about sums lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Events,
    Sums(Window),
}

impl Source {
    /// The smallest table that can answer `query`.
    fn for_query(query: &SumsQuery) -> Self {
        let has = |wanted: &[Dimension]| query.group_by.iter().any(|dimension| wanted.contains(dimension));
        if needs_events(query) {
            Self::Events
        } else if has(&[Dimension::Day]) {
            Self::Sums(Window::Day)
        } else {
            Self::Sums(query.period.map_or(Window::Month, Period::window))
        }
    }

    fn table(self) -> &'static str {
        match self {
            Self::Events => "usage_events",
            Self::Sums(window) => table(window),
        }
    }

    fn dimension<D: Dialect>(self, dimension: Dimension) -> &'static str {
        match (dimension, self) {
            (Dimension::Provider, _) => "provider",
            (Dimension::Model, _) => "model",
            (Dimension::Key, _) => "key_id",
            (Dimension::User, _) => "user_id",
            (Dimension::Kb, _) => "kb_id",
            (Dimension::Day, Self::Events) => D::DAY,
            (Dimension::Day, Self::Sums(_)) => "period",
            (Dimension::Hour, _) => D::HOUR,
        }
    }

    /// The sums in the order of [`SUM_COLUMNS`]. From events they mean what [`crate::ports::usage::Sums::of`] means. One
    /// beyond 64 bits is an error in both dialects, never a float.
    fn sum(self, column: &str) -> String {
        let of = match self {
            Self::Sums(_) => column.to_owned(),
            Self::Events => of_event(column),
        };
        format!("CAST(COALESCE(SUM({of}), 0) AS BIGINT)")
    }
}

/// Whether only events can answer a question about sums.
pub(in crate::adapters) fn needs_events(query: &SumsQuery) -> bool {
    let only_in_events = [Dimension::Key, Dimension::User, Dimension::Kb, Dimension::Hour];
    query.group_by.iter().any(|dimension| only_in_events.contains(dimension))
}

/// What one event adds to a column of [`SUM_COLUMNS`].
pub(in crate::adapters) fn of_event(column: &str) -> String {
    let names = |are: fn(Outcome) -> bool| {
        let names = Outcome::ALL.into_iter().filter(|outcome| are(*outcome));
        names.map(|outcome| format!("'{}'", outcome.as_str())).collect::<Vec<_>>().join(", ")
    };
    let failed = format!("outcome IN ({})", names(Outcome::is_failed));
    let is_request = format!("outcome NOT IN ({})", names(|outcome| !outcome.is_request()));
    let one_if = |condition: &str| format!("CASE WHEN {condition} THEN 1 ELSE 0 END");
    let (unpriced, estimate) = (Priced::Unpriced.as_str(), UsageSource::Estimate.as_str());
    match column {
        "requests" => one_if(&is_request),
        "failed_requests" => one_if(&failed),
        // Both cut towards zero, as Rust does.
        "estimated_cost_micro_usd" => "COALESCE(estimated_cost_pico_usd, 0) / 1000000".to_owned(),
        "estimated_cost_rest_pico_usd" => "COALESCE(estimated_cost_pico_usd, 0) % 1000000".to_owned(),
        "billable_cost_micro_usd" => format!("{BILLABLE} / 1000000"),
        "billable_cost_rest_pico_usd" => format!("{BILLABLE} % 1000000"),
        // A correction takes away what the event counted and adds what it counts now.
        "unpriced_requests" => format!(
            "CASE WHEN priced_before IS NULL THEN {} ELSE {} - {} END",
            one_if(&format!("priced = '{unpriced}' AND {is_request}")),
            one_if(&format!("priced = '{unpriced}'")),
            one_if(&format!("priced_before = '{unpriced}'")),
        ),
        "estimated_requests" => one_if(&format!("usage_source = '{estimate}' AND {is_request}")),
        "estimated_prompt_tokens" => format!("CASE usage_source WHEN '{estimate}' THEN prompt_tokens ELSE 0 END"),
        "estimated_completion_tokens" => {
            format!("CASE usage_source WHEN '{estimate}' THEN completion_tokens ELSE 0 END")
        }
        same => same.to_owned(),
    }
}

/// What [`crate::ports::usage::UsageStore::sums`] promises.
pub(in crate::adapters) async fn sums<D: Dialect>(
    connection: &mut D::Connection,
    query: &SumsQuery,
) -> Result<Vec<Group>, StoreError> {
    let found = D::rows(connection, sums_statement::<D>(query)).await.map_err(D::error)?;
    if needs_events(query) {
        let [from, to] = [query.period.map(Period::start), query.period.map(Period::end)];
        demand_events::<D>(connection, query.tenant.as_ref(), from, to).await?;
    }
    found.iter().map(|row| group(row, query.group_by.len())).collect()
}

fn sums_statement<D: Dialect>(query: &SumsQuery) -> Statement<'_> {
    let source = Source::for_query(query);
    let dimensions: Vec<&str> = query.group_by.iter().map(|dimension| source.dimension::<D>(*dimension)).collect();
    let sums = SUM_COLUMNS.map(|column| source.sum(column));
    let mut columns = dimensions.clone();
    columns.extend(sums.iter().map(String::as_str));
    let mut statement = Statement::new(format!("SELECT {} FROM {}", columns.join(", "), source.table()));
    statement.push(" WHERE TRUE");
    if let Some(tenant) = &query.tenant {
        statement.push(" AND tenant_id = ").push_bind(tenant.as_str());
    }
    if let Some(period) = query.period {
        match source {
            Source::Events => {
                // The wider range is the one that an index knows.
                let [start, end] = [period.start().0, period.end().0];
                statement.push(" AND requested_at >= ").push_bind(start.saturating_sub(OFFSET_MAX_US));
                statement.push(" AND requested_at < ").push_bind(end.saturating_add(OFFSET_MAX_US));
                statement.push(" AND requested_at + utc_offset_s * 1000000 >= ").push_bind(start);
                statement.push(" AND requested_at + utc_offset_s * 1000000 < ").push_bind(end);
            }
            // A day's name sorts as the day does, so the days of a month are one range of names.
            Source::Sums(Window::Day) => {
                statement.push(" AND period >= ").push_bind(Window::Day.period(period.start()).to_string());
                statement.push(" AND period < ").push_bind(Window::Day.period(period.end()).to_string());
            }
            Source::Sums(Window::Month) => {
                statement.push(" AND period = ").push_bind(period.to_string());
            }
        }
    }
    if !dimensions.is_empty() {
        let places: Vec<String> = (1..=dimensions.len()).map(|at| at.to_string()).collect();
        statement.push(&format!(" GROUP BY {}", places.join(", ")));
        // Events without a value come first, as `None` does.
        statement.push(&format!(" ORDER BY {} NULLS FIRST", places.join(" NULLS FIRST, ")));
    }
    statement
}

fn group(row: &impl Cells, dimensions: usize) -> Result<Group, StoreError> {
    let mut columns = Columns::of(row);
    let values = (0..dimensions).map(|_| columns.owned_some()).collect::<Result<_, _>>()?;
    Ok(Group { values, sums: rows::sums(&mut columns)? })
}

/// Demands that no event of that time was dropped. Asked after the answer was read: from when on there are events is told
/// before, or with, their end.
async fn demand_events<D: Dialect>(
    connection: &mut D::Connection,
    tenant: Option<&TenantId>,
    from: Option<Micros>,
    to: Option<Micros>,
) -> Result<(), StoreError> {
    let Some(kept) = events_from::<D>(connection).await? else { return Ok(()) };
    if from.is_some_and(|from| from >= kept) {
        return Ok(());
    }
    let month = |at: Micros| Window::Month.period(at).to_string();
    let mut statement = Statement::new("SELECT 1 FROM usage_monthly WHERE period < ");
    statement.push_bind(month(kept));
    if let Some(tenant) = tenant {
        statement.push(" AND tenant_id = ").push_bind(tenant.as_str());
    }
    if let Some(from) = from {
        statement.push(" AND period >= ").push_bind(month(from));
    }
    if let Some(to) = to {
        statement.push(" AND period <= ").push_bind(month(Micros(to.0.saturating_sub(1))));
    }
    statement.push(" LIMIT 1");
    let dropped = D::rows(connection, statement).await.map_err(D::error)?;
    if dropped.is_empty() { Ok(()) } else { Err(StoreError::Missing(format!("events before {kept}"))) }
}

/// What [`crate::ports::usage::UsageStore::events_from`] promises.
pub(in crate::adapters) async fn events_from<D: Dialect>(
    connection: &mut D::Connection,
) -> Result<Option<Micros>, StoreError> {
    let found = D::rows(connection, Statement::new("SELECT events_from FROM meta")).await.map_err(D::error)?;
    one(&found)?.instant_some()
}

/// What [`crate::ports::usage::UsageStore::old_events`] promises, of the events that meet a condition.
pub(in crate::adapters) async fn old_events<D: Dialect>(
    connection: &mut D::Connection,
    before: Period,
    condition: &str,
) -> Result<Vec<(Period, u64)>, StoreError> {
    let text = format!(
        "SELECT ({LOCAL}) / {DAY_US}, COUNT(*) FROM usage_events WHERE {LOCAL} < $1 AND {condition} GROUP BY 1"
    );
    let found = D::rows(connection, Statement::new(text).bind(before.start().0)).await.map_err(D::error)?;
    let mut months: BTreeMap<Period, u64> = BTreeMap::new();
    for row in &found {
        let mut columns = Columns::of(row);
        let day = Micros(columns.integer()?.saturating_mul(DAY_US));
        let events = months.entry(Window::Month.period(day)).or_default();
        *events = events.saturating_add(columns.count()?);
    }
    Ok(months.into_iter().collect())
}

/// What [`crate::ports::usage::UsageStore::events`] promises.
pub(in crate::adapters) async fn events<D: Dialect>(
    connection: &mut D::Connection,
    query: &EventsQuery,
) -> Result<Vec<StoredEvent>, StoreError> {
    let found = D::rows(connection, events_statement::<D>(query)).await.map_err(D::error)?;
    // Without a time it is a list of what is there.
    if query.from.is_some() || query.to.is_some() {
        demand_events::<D>(connection, query.tenant.as_ref(), query.from, query.to).await?;
    }
    found.iter().map(rows::event).collect()
}

fn select_events() -> String {
    format!("SELECT row, {} FROM usage_events", EVENT_COLUMNS.join(", "))
}

/// A page is read in insert order from where the last one ended. A question for a time is bound to the rows of its days,
/// which the sums of the days know: without that, the first page of last month would read everything before it, and the
/// last page everything after it.
fn events_statement<D: Dialect>(query: &EventsQuery) -> Statement<'_> {
    let EventsQuery { tenant, from, to, priced, after, events_max } = query;
    let after = after.unwrap_or(0);
    let mut statement = Statement::new(select_events());
    if from.is_none() && to.is_none() {
        statement.push(" WHERE row > ").push_bind(after);
    } else {
        statement.push(&format!(" WHERE row > {}(", D::GREATEST)).push_bind(after);
        statement.push(", (SELECT MIN(first_row) FROM usage_daily");
        push_days(&mut statement, query);
        statement.push(") - 1) AND row <= (SELECT MAX(last_row) FROM usage_daily");
        push_days(&mut statement, query);
        statement.push(")");
    }
    if let Some(tenant) = tenant {
        statement.push(" AND tenant_id = ").push_bind(tenant.as_str());
    }
    if let Some(from) = from {
        statement.push(&format!(" AND {} >= ", D::TIME_OF_PAGE)).push_bind(from.0);
    }
    if let Some(to) = to {
        statement.push(&format!(" AND {} < ", D::TIME_OF_PAGE)).push_bind(to.0);
    }
    if let Some(priced) = priced {
        statement.push(" AND priced = ").push_bind(priced.as_str());
    }
    statement.push(" ORDER BY row LIMIT ").push_bind(i64::from(*events_max));
    statement
}

/// The days that the time of a question touches, on any clock.
fn push_days<'q>(statement: &mut Statement<'q>, query: &'q EventsQuery) {
    statement.push(" WHERE TRUE");
    if let Some(tenant) = &query.tenant {
        statement.push(" AND tenant_id = ").push_bind(tenant.as_str());
    }
    if let Some(from) = query.from {
        let first = Micros(from.0.saturating_sub(OFFSET_MAX_US));
        statement.push(" AND period >= ").push_bind(Window::Day.period(first).to_string());
    }
    if let Some(to) = query.to {
        let last = Micros(to.0.saturating_sub(1).saturating_add(OFFSET_MAX_US));
        statement.push(" AND period <= ").push_bind(Window::Day.period(last).to_string());
    }
}

/// What [`crate::ports::usage::UsageStore::event`] promises.
pub(in crate::adapters) async fn event<D: Dialect>(
    connection: &mut D::Connection,
    tenant: Option<&TenantId>,
    id: EventId,
) -> Result<Option<StoredEvent>, StoreError> {
    // Whose it is, is looked at here: a planner without statistics, as Postgres has of a new month, may go through all events
    // of the tenant for one with that id.
    let statement = Statement::new(select_events() + " WHERE id = $1").bind(id);
    let found = D::rows(connection, statement).await.map_err(D::error)?;
    let found = found.first().map(rows::event).transpose()?;
    Ok(found.filter(|stored| tenant.is_none_or(|tenant| stored.event.tenant == *tenant)))
}

/// What [`crate::ports::usage::UsageStore::find`] promises.
pub(in crate::adapters) async fn find<D: Dialect>(
    connection: &mut D::Connection,
    ids: &[EventId],
) -> Result<Vec<StoredEvent>, StoreError> {
    let mut found = Vec::new();
    for ids in ids.chunks(LISTED_MAX) {
        let mut statement = Statement::new(select_events() + " WHERE ");
        D::among_ids(&mut statement, "id", ids);
        for row in &D::rows(connection, statement).await.map_err(D::error)? {
            found.push(rows::event(row)?);
        }
    }
    Ok(found)
}

/// What [`crate::ports::usage::UsageStore::corrections`] promises.
pub(in crate::adapters) async fn corrections<D: Dialect>(
    connection: &mut D::Connection,
    ids: &[EventId],
) -> Result<Vec<StoredEvent>, StoreError> {
    let mut found = Vec::new();
    for ids in ids.chunks(LISTED_MAX) {
        let mut statement = Statement::new(select_events() + " WHERE corrects IS NOT NULL AND ");
        D::among_ids(&mut statement, "corrects", ids);
        statement.push(" ORDER BY row");
        for row in &D::rows(connection, statement).await.map_err(D::error)? {
            found.push(rows::event(row)?);
        }
    }
    Ok(found)
}

/// What [`crate::ports::usage::UsageStore::known`] promises.
pub(in crate::adapters) async fn known<D: Dialect>(
    connection: &mut D::Connection,
    ids: &[EventId],
) -> Result<Vec<EventId>, StoreError> {
    let mut found = Vec::new();
    for ids in ids.chunks(LISTED_MAX) {
        let mut statement = Statement::new("SELECT id FROM usage_events WHERE ");
        D::among_ids(&mut statement, "id", ids);
        for row in &D::rows(connection, statement).await.map_err(D::error)? {
            found.push(Columns::of(row).id()?);
        }
    }
    Ok(found)
}

/// What [`crate::ports::usage::UsageStore::ledger_id`] promises.
pub(in crate::adapters) async fn ledger_id<D: Dialect>(connection: &mut D::Connection) -> Result<String, StoreError> {
    let statement = Statement::new(format!("SELECT {} FROM meta", D::LEDGER_ID));
    let found = D::rows(connection, statement).await.map_err(D::error)?;
    one(&found)?.owned()
}

/// The columns of the only row of an answer.
pub(in crate::adapters) fn one<R: Cells>(rows: &[R]) -> Result<Columns<'_, R>, StoreError> {
    rows.first().map(Columns::of).ok_or_else(|| StoreError::Corrupt("a table without its one row".to_owned()))
}
