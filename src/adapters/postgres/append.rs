//! Events on their way into Postgres, with the sums they change.
//!
//! May use: `domain`, `ports`.
//!
//! One statement is the whole transaction: it takes a lock that all gateways share, writes the events that are not there
//! yet with the units that they deferred, adds exactly those up, and adds that to the sums of days and months and of everybody
//! whom they count on; where plans are watched it also notes which thresholds these sums crossed. So nothing
//! but its own work happens under the lock, no round trip, and rows become visible in the order of their numbers: a number
//! is taken under the lock, which the server gives up after the commit is visible. Whoever pages by `row > last` misses
//! none.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments, AssertSqlSafe, Postgres, query_with};
use tokio::time::{sleep, timeout};

use super::dialect::{Uuid, storable};
use super::{LOCK_APPEND, LOCK_CLASS, PostgresLedger, SILENCE_MAX, code, silent, store_error};
use crate::adapters::sql::cells::{Cell, Columns};
use crate::adapters::sql::crossings::{self, CROSSING_COLUMNS};
use crate::adapters::sql::rows::{self, EVENT_COLUMNS, SUM_COLUMNS, table};
use crate::adapters::sql::scopes::{self, AMOUNT_COLUMNS, SUM_COLUMNS as SCOPE_COLUMNS};
use crate::adapters::sql::units::{self, UNIT_COLUMNS};
use crate::adapters::sql::usage::{DAY_US, of_event};
use crate::domain::event::UsageEvent;
use crate::domain::quantities::Quantities;
use crate::domain::threshold::watched as limits;
use crate::domain::time::Window;
use crate::domain::tokens::Tokens;
use crate::ports::StoreError;
use crate::ports::crossings::{Appended, Watched};

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
    /// Thresholds of limits, column by column; `None` where no plan is watched.
    watched: Option<Vec<Column<'e>>>,
}

impl PostgresLedger {
    /// What [`crate::ports::usage::UsageStore::append`] promises.
    pub(super) async fn append_all(&self, events: &[UsageEvent], watched: &Watched) -> Result<Appended, StoreError> {
        if events.is_empty() {
            return Ok(Appended::default());
        }
        let batch = Batch::of(events, watched)?;
        let mut tries: u32 = 0;
        loop {
            self.make_room(events).await?;
            let error = match self.append_once(&batch).await {
                Ok(answer) => return appended(&answer, !watched.is_empty()),
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

    async fn append_once(&self, batch: &Batch<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        let text = if batch.watched.is_some() { &WATCHED_STATEMENT } else { &STATEMENT };
        let values = batch.values().map_err(sqlx::Error::Encode)?;
        let mut connection = self.writer.acquire().await?;
        // All of the answer: the commit is over when its last message is read.
        let answer = query_with(AssertSqlSafe(text.as_str()), values).fetch_all(&mut *connection);
        let Ok(answer) = timeout(SILENCE_MAX, answer).await else {
            // The next try has a connection of its own. If this one's work is done after all, that finds every event there.
            drop(connection.detach());
            return Err(silent());
        };
        answer
    }
}

/// What the statement tells: on each row how many events were new, and perhaps a crossing.
fn appended(answer: &[PgRow], is_watched: bool) -> Result<Appended, StoreError> {
    let mut appended = Appended::default();
    for row in answer {
        let mut columns = Columns::of(row);
        appended.new = columns.count()?;
        if is_watched && !columns.is_null()? {
            appended.crossed.push(crossings::crossing(&mut columns)?);
        }
    }
    Ok(appended)
}

impl<'e> Batch<'e> {
    fn of(events: &'e [UsageEvent], watched: &'e Watched) -> Result<Self, StoreError> {
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
        let watched = (!watched.is_empty()).then(|| thresholds_of(watched));
        Ok(Self { columns, days, units: units_of(events)?, watched })
    }

    /// The values of [`statement`].
    fn values(&self) -> Result<PgArguments, sqlx::error::BoxDynError> {
        let mut values = PgArguments::default();
        self.columns.iter().try_for_each(|column| column.add_to(&mut values))?;
        values.add(self.days.keys().copied().collect::<Vec<i64>>())?;
        values.add(self.days.values().map(|[day, _]| day.as_str()).collect::<Vec<&str>>())?;
        values.add(self.days.values().map(|[_, month]| month.as_str()).collect::<Vec<&str>>())?;
        self.units.iter().try_for_each(|column| column.add_to(&mut values))?;
        self.watched.iter().flatten().try_for_each(|column| column.add_to(&mut values))?;
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

/// What each threshold of a watched plan is: [`WATCHED_COLUMNS`].
fn thresholds_of(watched: &Watched) -> Vec<Column<'_>> {
    let mut texts: [Vec<Option<Cow<'_, str>>>; 4] = Default::default();
    let mut integers: [Vec<Option<i64>>; 3] = Default::default();
    for (tenant, plan) in watched.plans() {
        for limit in limits(plan) {
            for percent in plan.thresholds.percents() {
                let row = [tenant.as_str(), limit.scope.as_str(), limit.metric.as_str(), plan.name.as_str()];
                texts.iter_mut().zip(row).for_each(|(column, text)| column.push(Some(Cow::Borrowed(text))));
                let length = i64::from(scopes::name_length(limit.window));
                let row = [length, crossings::units(limit.max), percent.into()];
                integers.iter_mut().zip(row).for_each(|(column, integer)| column.push(Some(integer)));
            }
        }
    }
    texts.map(Column::Texts).into_iter().chain(integers.map(Column::Integers)).collect()
}

impl<'e> Column<'e> {
    /// An empty one for a column of units.
    fn of_unit(name: &str) -> Self {
        match name {
            "event_id" => Self::Ids(Vec::new()),
            "requested_at" | "utc_offset_s" | "prompt_tokens" | "delivered_tokens" | "output_max" | "own_account"
            | "due_at" | "asked" => Self::Integers(Vec::new()),
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

/// What a threshold of a plan is, as [`thresholds_of`] gives it: the length of the names of its periods tells its window.
const WATCHED_COLUMNS: &str = "tenant_id, scope, metric, plan, name_length, limit_units, percent";

static STATEMENT: LazyLock<String> = LazyLock::new(|| statement(false));

/// The same, where plans are watched.
static WATCHED_STATEMENT: LazyLock<String> = LazyLock::new(|| statement(true));

fn statement(is_watched: bool) -> String {
    let events = EVENT_COLUMNS.len();
    let columns = EVENT_COLUMNS.join(", ");
    let lists: Vec<String> = (1..=events).map(|at| format!("${at}")).collect();
    let [number, day, month] = [events + 1, events + 2, events + 3];
    let units = UNIT_COLUMNS.join(", ");
    let unit_lists: Vec<String> = (1..=UNIT_COLUMNS.len()).map(|at| format!("${}", month + at)).collect();
    // When a call was over is asked of those that cross something.
    let summed: &[&str] = if is_watched { &[SUMMED, "duration_us"] } else { &[SUMMED] };
    let summed = [summed, &Tokens::KINDS, &Quantities::KINDS].concat().join(", ");
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
         daily AS ({daily}), monthly AS ({monthly}), added AS ({added}), scopes AS ({scopes}){end}",
        given = EVENT_COLUMNS.map(|column| format!("given.{column}")).join(", "),
        lists = lists.join(", "),
        given_units = UNIT_COLUMNS.map(|column| format!("given.{column}")).join(", "),
        unit_lists = unit_lists.join(", "),
        daily = add_sums(Window::Day),
        monthly = add_sums(Window::Month),
        added = added(),
        scopes = add_scopes(is_watched),
        end = if is_watched { crossed(month + UNIT_COLUMNS.len()) } else { " SELECT COUNT(*) FROM written".to_owned() },
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

/// What the events add to the sums of everybody they count on.
fn added() -> String {
    let columns = AMOUNT_COLUMNS.join(", ");
    let values = AMOUNT_COLUMNS.map(|column| format!("SUM(counted.{column})::bigint AS {column}")).join(", ");
    format!(
        "SELECT tenant_id, period, scope, subject, {values} FROM named \
         CROSS JOIN LATERAL (SELECT {counted}) AS counted ({columns}) \
         CROSS JOIN LATERAL (VALUES (day), (month)) AS periods (period) \
         CROSS JOIN LATERAL (VALUES {subjects}) AS subjects (scope, subject) \
         WHERE subject IS NOT NULL AND (counted.chats > 0 OR counted.tokens > 0 OR counted.cost_nano_usd > 0) \
         GROUP BY 1, 2, 3, 4",
        counted = scopes::amounts::<Postgres>().join(", "),
        subjects = scopes::SUBJECTS,
    )
}

/// Each of these sums once, in the order of their keys; where plans are watched it tells how they then stand.
fn add_scopes(is_watched: bool) -> String {
    let sums = AMOUNT_COLUMNS.map(|column| format!("{column} = usage_scopes.{column} + excluded.{column}")).join(", ");
    let told = if is_watched { format!(" RETURNING {SCOPE_COLUMNS}") } else { String::new() };
    format!(
        "INSERT INTO usage_scopes ({SCOPE_COLUMNS}) SELECT {SCOPE_COLUMNS} FROM added ORDER BY 1, 2, 3, 4 \
         ON CONFLICT (tenant_id, period, scope, subject) DO UPDATE SET {sums}{told}"
    )
}

/// The thresholds that were crossed, in the order of the events that crossed them: those that these sums moved over and that
/// were not noted before. Its values come behind `values` others.
fn crossed(values: usize) -> String {
    let lists = (1..=7).map(|at| format!("${}", values + at)).collect::<Vec<_>>().join(", ");
    let columns = CROSSING_COLUMNS.join(", ");
    let of_metric = |row: &str| {
        let [chats, tokens, cost] = AMOUNT_COLUMNS.map(|column| format!("{row}.{column}"));
        format!("CASE metric WHEN 'chats' THEN {chats} WHEN 'tokens' THEN {tokens} ELSE {cost} END")
    };
    // As in `domain::threshold`; of any size.
    let is_reached = |used: &str| format!("({used})::numeric * 100 >= limit_units::numeric * percent");
    // Durations may be of any size.
    let over_at = format!("LEAST(named.requested_at::numeric + named.duration_us, {})::bigint", i64::MAX);
    format!(
        ", watched AS MATERIALIZED (SELECT * FROM UNNEST({lists}) AS watched ({WATCHED_COLUMNS})), \
         moved AS (SELECT watched.*, scopes.period, scopes.subject, {used} AS used_units, {used} - {more} AS before \
           FROM scopes JOIN added USING (tenant_id, period, scope, subject) \
           JOIN watched ON watched.tenant_id = scopes.tenant_id AND watched.scope = scopes.scope \
             AND watched.name_length = length(scopes.period)), \
         news AS (SELECT * FROM moved WHERE NOT {was} AND {is}), \
         crossed AS (INSERT INTO threshold_crossings ({columns}) \
           SELECT {columns} FROM news CROSS JOIN LATERAL (SELECT * FROM (\
             SELECT named.row AS event_row, named.id AS event_id, {over_at} AS at, \
               before + SUM({counts}) OVER (ORDER BY named.row) AS so_far \
             FROM named CROSS JOIN LATERAL (SELECT {counted}) AS counted ({amounts}) \
             WHERE named.tenant_id = news.tenant_id AND news.period IN (named.day, named.month) AND news.subject = \
               CASE news.scope WHEN 'tenant' THEN '' WHEN 'key' THEN named.key_id WHEN 'user' THEN named.user_id \
               ELSE named.kb_id END\
             ) AS running WHERE {reached} ORDER BY event_row LIMIT 1) AS call \
           ORDER BY event_row, period, scope, subject, metric, percent \
           ON CONFLICT (tenant_id, scope, subject, period, metric, percent) DO NOTHING RETURNING {columns}) \
         SELECT events.new, crossed.* FROM (SELECT COUNT(*) AS new FROM written) AS events LEFT JOIN crossed ON TRUE",
        used = of_metric("scopes"),
        more = of_metric("added"),
        was = is_reached("before"),
        is = is_reached("used_units"),
        counts = of_metric("counted"),
        counted = scopes::amounts::<Postgres>().join(", "),
        amounts = AMOUNT_COLUMNS.join(", "),
        reached = is_reached("so_far"),
    )
}
