//! Events on their way into Postgres, with the sums they change.
//!
//! May use: `domain`, `ports`.
//!
//! One statement is the whole transaction: it takes a lock that all gateways share, writes the events that are not there
//! yet with the units that they deferred, adds exactly those up, and adds that to the sums of days and months and of everybody
//! whom they count on. So nothing
//! but its own work happens under the lock, no round trip, and rows become visible in the order of their numbers: a number
//! is taken under the lock, which the server gives up after the commit is visible. Whoever pages by `row > last` misses
//! none.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use sqlx::postgres::PgArguments;
use sqlx::{Arguments, AssertSqlSafe, Postgres, Row, query_with};
use tokio::time::{sleep, timeout};

use super::dialect::{Uuid, storable};
use super::{LOCK_APPEND, LOCK_CLASS, PostgresLedger, SILENCE_MAX, code, silent, store_error};
use crate::adapters::sql::cells::Cell;
use crate::adapters::sql::rows::{self, EVENT_COLUMNS, SUM_COLUMNS, table};
use crate::adapters::sql::scopes::{self, AMOUNT_COLUMNS};
use crate::adapters::sql::units::{self, UNIT_COLUMNS};
use crate::adapters::sql::usage::{DAY_US, of_event};
use crate::domain::event::UsageEvent;
use crate::domain::quantities::Quantities;
use crate::domain::time::Window;
use crate::domain::tokens::Tokens;
use crate::ports::StoreError;

/// Tries of one batch that met another transaction in its way. Whoever calls tries again later and for ever.
const TRIES_MAX: u32 = 5;

/// Between two such tries; more each time, as what is in the way may be there again.
const PAUSE: Duration = Duration::from_millis(20);

/// The values of many events, column by column.
enum Column<'e> {
    Ids(Vec<Option<Uuid>>),
    Integers(Vec<Option<i64>>),
    Texts(Vec<Option<Cow<'e, str>>>),
}

/// A batch, ready to be sent.
struct Batch<'e> {
    columns: Vec<Column<'e>>,
    /// Each day that an event belongs to, by its number since 1970, with the names that it and its month have in sums.
    days: BTreeMap<i64, [String; 2]>,
    /// Units that events deferred, column by column.
    units: Vec<Column<'e>>,
}

impl PostgresLedger {
    /// What [`crate::ports::usage::UsageStore::append`] promises.
    pub(super) async fn append_all(&self, events: &[UsageEvent]) -> Result<u64, StoreError> {
        if events.is_empty() {
            return Ok(0);
        }
        let batch = Batch::of(events)?;
        let mut tries: u32 = 0;
        loop {
            self.make_room(events).await?;
            let error = match self.append_once(&batch).await {
                Ok(added) => return Ok(added),
                Err(error) => error,
            };
            tries = tries.saturating_add(1);
            let is_in_the_way = match code(&error).as_deref() {
                Some("40P01" | "40001") => true,
                // A retention dropped the partition in the moment after it was seen.
                Some("23514") => {
                    self.forget_room();
                    true
                }
                _ => false,
            };
            if !is_in_the_way || tries >= TRIES_MAX {
                return Err(store_error(error));
            }
            sleep(PAUSE * tries).await;
        }
    }

    async fn append_once(&self, batch: &Batch<'_>) -> Result<u64, sqlx::Error> {
        let values = batch.values().map_err(sqlx::Error::Encode)?;
        let mut connection = self.writer.acquire().await?;
        // All of the answer: the commit is over when its last message is read.
        let answer = query_with(AssertSqlSafe(STATEMENT.as_str()), values).fetch_all(&mut *connection);
        let Ok(answer) = timeout(SILENCE_MAX, answer).await else {
            // The next try has a connection of its own. If this one's work is done after all, that finds every event there.
            drop(connection.detach());
            return Err(silent());
        };
        let added: i64 = answer?.first().ok_or(sqlx::Error::RowNotFound)?.try_get(0)?;
        Ok(u64::try_from(added).unwrap_or(0))
    }
}

impl<'e> Batch<'e> {
    fn of(events: &'e [UsageEvent]) -> Result<Self, StoreError> {
        let mut columns: Vec<Column<'e>> = Vec::new();
        let mut days = BTreeMap::new();
        let mut cells = Vec::with_capacity(EVENT_COLUMNS.len());
        for event in events {
            rows::event_cells(&mut cells, event)?;
            if columns.is_empty() {
                columns = cells.iter().map(|cell| Column::like(cell, events.len())).collect();
            }
            for (column, cell) in columns.iter_mut().zip(cells.drain(..)) {
                column.push(cell);
            }
            days.entry(event.local().0.div_euclid(DAY_US))
                .or_insert_with(|| [Window::Day, Window::Month].map(|window| event.period(window).to_string()));
        }
        Ok(Self { columns, days, units: units_of(events)? })
    }

    /// The values of [`statement`].
    fn values(&self) -> Result<PgArguments, sqlx::error::BoxDynError> {
        let mut values = PgArguments::default();
        self.columns.iter().try_for_each(|column| column.add_to(&mut values))?;
        values.add(self.days.keys().copied().collect::<Vec<i64>>())?;
        values.add(self.days.values().map(|[day, _]| day.as_str()).collect::<Vec<&str>>())?;
        values.add(self.days.values().map(|[_, month]| month.as_str()).collect::<Vec<&str>>())?;
        self.units.iter().try_for_each(|column| column.add_to(&mut values))?;
        Ok(values)
    }
}

/// The values of [`UNIT_COLUMNS`] of the units that `events` deferred: mostly none, and then of columns without values.
fn units_of(events: &[UsageEvent]) -> Result<Vec<Column<'_>>, StoreError> {
    let mut columns = UNIT_COLUMNS.map(Column::of_unit);
    for event in events {
        let Some(unit) = units::deferred(event) else { continue };
        for (column, cell) in columns.iter_mut().zip(units::unit_cells(event, unit)?) {
            column.push(cell);
        }
    }
    Ok(columns.into())
}

impl<'e> Column<'e> {
    /// An empty one for a column of units.
    fn of_unit(name: &str) -> Self {
        match name {
            "event_id" => Self::Ids(Vec::new()),
            "requested_at" | "utc_offset_s" | "prompt_tokens" | "due_at" | "asked" => Self::Integers(Vec::new()),
            _ => Self::Texts(Vec::new()),
        }
    }

    fn add_to(&self, values: &mut PgArguments) -> Result<(), sqlx::error::BoxDynError> {
        match self {
            Self::Ids(ids) => values.add(ids.as_slice()),
            Self::Integers(integers) => values.add(integers.as_slice()),
            Self::Texts(texts) => values.add(texts.as_slice()),
        }
    }

    /// One for cells of this kind.
    fn like(cell: &Cell<'_>, rows: usize) -> Self {
        match cell {
            Cell::Id(_) => Self::Ids(Vec::with_capacity(rows)),
            Cell::Text(_) => Self::Texts(Vec::with_capacity(rows)),
            _ => Self::Integers(Vec::with_capacity(rows)),
        }
    }

    fn push(&mut self, cell: Cell<'e>) {
        match (self, cell) {
            (Self::Ids(ids), Cell::Id(id)) => ids.push(id.map(Uuid)),
            (Self::Texts(texts), Cell::Text(text)) => texts.push(text.map(|text| match text {
                Cow::Borrowed(text) => storable(text),
                Cow::Owned(text) => storable(&text).into_owned().into(),
            })),
            (Self::Integers(integers), Cell::Integer(integer)) => integers.push(integer),
            // A column has one kind of value in all events; the lists would differ in length, which the server refuses.
            _ => {}
        }
    }
}

/// What sums are made of, beside tokens and quantities: with these all that is kept in memory of a batch while it is added up.
const SUMMED: &str = "row, id, tenant_id, key_id, user_id, kb_id, provider, model, requested_at, utc_offset_s, outcome, chats, usage_source, \
    estimated_cost_pico_usd, billable_cost_pico_usd, priced, priced_before";

static STATEMENT: LazyLock<String> = LazyLock::new(statement);

fn statement() -> String {
    let events = EVENT_COLUMNS.len();
    let columns = EVENT_COLUMNS.join(", ");
    let lists: Vec<String> = (1..=events).map(|at| format!("${at}")).collect();
    let [number, day, month] = [events + 1, events + 2, events + 3];
    let units = UNIT_COLUMNS.join(", ");
    let unit_lists: Vec<String> = (1..=UNIT_COLUMNS.len()).map(|at| format!("${}", month + at)).collect();
    let summed = [&[SUMMED][..], &Tokens::KINDS, &Quantities::KINDS].concat().join(", ");
    let local = "(requested_at + utc_offset_s * 1000000)";
    let day_of = format!("{local} / {DAY_US} - CASE WHEN {local} % {DAY_US} < 0 THEN 1 ELSE 0 END");
    format!(
        "WITH locked AS MATERIALIZED (SELECT pg_advisory_xact_lock({LOCK_CLASS}, {LOCK_APPEND})::text AS got), \
         written AS (INSERT INTO usage_events ({columns}) \
           SELECT {given} FROM locked CROSS JOIN UNNEST({lists}) AS given ({columns}) WHERE locked.got IS NOT NULL \
           ON CONFLICT (id, requested_at) DO NOTHING RETURNING {summed}), \
         named AS MATERIALIZED (SELECT written.*, days.day, days.month FROM written \
           JOIN UNNEST(${number}, ${day}, ${month}) AS days (number, day, month) ON days.number = {day_of}), \
         deferred AS (INSERT INTO deferred_units ({units}) \
           SELECT {given_units} FROM UNNEST({unit_lists}) AS given ({units}) JOIN written ON written.id = given.event_id \
           ON CONFLICT (provider, unit) DO NOTHING), \
         daily AS ({daily}), monthly AS ({monthly}), scopes AS ({scopes}) SELECT COUNT(*) FROM written",
        given = EVENT_COLUMNS.map(|column| format!("given.{column}")).join(", "),
        lists = lists.join(", "),
        given_units = UNIT_COLUMNS.map(|column| format!("given.{column}")).join(", "),
        unit_lists = unit_lists.join(", "),
        daily = add_sums(Window::Day),
        monthly = add_sums(Window::Month),
        scopes = add_scopes(),
    )
}

/// Each sum once, in the order of their keys.
fn add_sums(window: Window) -> String {
    let (table, period) = (table(window), window.as_str());
    let columns = SUM_COLUMNS.join(", ");
    let values = SUM_COLUMNS.map(|column| format!("SUM({})::bigint", of_event(column))).join(", ");
    let sums = SUM_COLUMNS.map(|column| format!("{column} = {table}.{column} + excluded.{column}")).join(", ");
    let (bound_columns, bound_values, bounds) = match window {
        Window::Day => (
            ", first_row, last_row",
            ", MIN(row), MAX(row)",
            ", first_row = LEAST(usage_daily.first_row, excluded.first_row), \
             last_row = GREATEST(usage_daily.last_row, excluded.last_row)",
        ),
        Window::Month => ("", "", ""),
    };
    format!(
        "INSERT INTO {table} (tenant_id, period, provider, model, {columns}{bound_columns}) \
         SELECT tenant_id, {period}, provider, model, {values}{bound_values} FROM named \
         GROUP BY tenant_id, {period}, provider, model ORDER BY tenant_id, {period}, provider, model \
         ON CONFLICT (tenant_id, period, provider, model) DO UPDATE SET {sums}{bounds}"
    )
}

/// The same for everybody that the events count on.
fn add_scopes() -> String {
    let [chats, tokens, cost_nano] = scopes::amounts::<Postgres>();
    let columns = AMOUNT_COLUMNS.join(", ");
    let values = AMOUNT_COLUMNS.map(|column| format!("SUM(counted.{column})::bigint")).join(", ");
    let sums = AMOUNT_COLUMNS.map(|column| format!("{column} = usage_scopes.{column} + excluded.{column}")).join(", ");
    format!(
        "INSERT INTO usage_scopes (tenant_id, period, scope, subject, {columns}) \
         SELECT tenant_id, period, scope, subject, {values} FROM named \
         CROSS JOIN LATERAL (SELECT {chats}, {tokens}, {cost_nano}) AS counted ({columns}) \
         CROSS JOIN LATERAL (VALUES (day), (month)) AS periods (period) \
         CROSS JOIN LATERAL (VALUES {subjects}) AS subjects (scope, subject) \
         WHERE subject IS NOT NULL AND (counted.chats > 0 OR counted.tokens > 0 OR counted.cost_nano_usd > 0) \
         GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 \
         ON CONFLICT (tenant_id, period, scope, subject) DO UPDATE SET {sums}",
        subjects = scopes::SUBJECTS,
    )
}
