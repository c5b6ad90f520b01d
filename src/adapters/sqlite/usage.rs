//! Events and their sums in SQLite.
//!
//! May use: `domain`, `ports`. Questions are those of [`crate::adapters::sql`]; the append is SQLite's own.

use std::collections::{BTreeMap, HashSet};

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row, Sqlite, SqliteConnection, query_with};

use super::dialect::arguments;
use super::{SqliteLedger, store_error, units};
use crate::adapters::sql::cells::{Cell, Columns};
use crate::adapters::sql::crossings::{self, CROSSING_COLUMNS};
use crate::adapters::sql::rows::{self, EVENT_COLUMNS, SUM_COLUMNS, table};
use crate::adapters::sql::scopes::{self, AMOUNT_COLUMNS, Place, ScopeSums};
use crate::adapters::sql::usage;
use crate::domain::counting::{Amounts, Counting};
use crate::domain::event::UsageEvent;
use crate::domain::ids::{EventId, TenantId};
use crate::domain::threshold::{Crossing, watched as limits};
use crate::domain::time::{Micros, Period, Window};
use crate::ports::counters::CounterKey;
use crate::ports::crossings::{Appended, CrossingsQuery, StoredCrossing, Watched};
use crate::ports::usage::{Entry, EventsQuery, Group, StandingOf, StoredEvent, Sums, SumsQuery, UsageStore};
use crate::ports::{BoxFuture, StoreError};

/// Rows in one INSERT, largest first: a statement costs a hand-over to SQLite's thread and back, which its rows share.
/// Few sizes, so that whatever the size of a batch its statements are prepared once and stay in the cache of 100; 64
/// rows of 41 values are far below SQLite's 32,766 values a statement.
const ROWS_PER_INSERT: [usize; 4] = [64, 16, 4, 1];

/// The newest event is never dropped: its number would be given to another one.
const NOT_THE_NEWEST: &str = "row < (SELECT MAX(row) FROM usage_events)";

/// What the sums of one batch are kept by while it is added up: as in the primary key of the sums, in its order.
type SumKey<'a> = (&'a str, Period, &'a str, &'a str);

impl UsageStore for SqliteLedger {
    fn append<'a>(&'a self, events: &'a [UsageEvent]) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let appended = self.append_all(events, &Watched::default()).await;
            appended.map(|appended| appended.new).inspect_err(|error| self.distrust_writer_after(error))
        })
    }

    fn append_watched<'a>(
        &'a self,
        events: &'a [UsageEvent],
        watched: &'a Watched,
    ) -> BoxFuture<'a, Result<Appended, StoreError>> {
        Box::pin(async move {
            let appended = self.append_all(events, watched).await;
            appended.inspect_err(|error| self.distrust_writer_after(error))
        })
    }

    fn crossings<'a>(&'a self, query: &'a CrossingsQuery) -> BoxFuture<'a, Result<Vec<StoredCrossing>, StoreError>> {
        Box::pin(async move { crossings::list::<Sqlite>(&mut *self.reader().await?, query).await })
    }

    fn crossed<'a>(&'a self, counters: &'a [CounterKey]) -> BoxFuture<'a, Result<Vec<Crossing>, StoreError>> {
        Box::pin(async move { crossings::of_counters::<Sqlite>(&mut *self.reader().await?, counters).await })
    }

    fn sums<'a>(&'a self, query: &'a SumsQuery) -> BoxFuture<'a, Result<Vec<Group>, StoreError>> {
        Box::pin(async move { usage::sums::<Sqlite>(&mut *self.reader().await?, query).await })
    }

    fn events<'a>(&'a self, query: &'a EventsQuery) -> BoxFuture<'a, Result<Vec<StoredEvent>, StoreError>> {
        Box::pin(async move { usage::events::<Sqlite>(&mut *self.reader().await?, query).await })
    }

    fn event<'a>(
        &'a self,
        tenant: Option<&'a TenantId>,
        id: EventId,
    ) -> BoxFuture<'a, Result<Option<StoredEvent>, StoreError>> {
        Box::pin(async move { usage::event::<Sqlite>(&mut *self.reader().await?, tenant, id).await })
    }

    fn known<'a>(&'a self, ids: &'a [EventId]) -> BoxFuture<'a, Result<Vec<EventId>, StoreError>> {
        Box::pin(async move { usage::known::<Sqlite>(&mut *self.reader().await?, ids).await })
    }

    fn used(&self, period: Period, counting: Counting) -> BoxFuture<'_, Result<Vec<(CounterKey, u64)>, StoreError>> {
        Box::pin(async move { scopes::used::<Sqlite>(&mut *self.reader().await?, period, counting).await })
    }

    fn standing_of<'a>(
        &'a self,
        tenants: &'a [TenantId],
        from: [Period; 2],
        counting: Counting,
        ids: &'a [EventId],
    ) -> BoxFuture<'a, Result<StandingOf, StoreError>> {
        Box::pin(async move {
            let mut snapshot = self.readers.begin().await.map_err(store_error)?;
            let standing = scopes::standing_of::<Sqlite>(&mut snapshot, tenants, from, counting, ids).await?;
            snapshot.rollback().await.map_err(store_error)?;
            Ok(standing)
        })
    }

    fn find<'a>(&'a self, ids: &'a [EventId]) -> BoxFuture<'a, Result<Vec<StoredEvent>, StoreError>> {
        Box::pin(async move { usage::find::<Sqlite>(&mut *self.reader().await?, ids).await })
    }

    fn corrections<'a>(&'a self, ids: &'a [EventId]) -> BoxFuture<'a, Result<Vec<StoredEvent>, StoreError>> {
        Box::pin(async move { usage::corrections::<Sqlite>(&mut *self.reader().await?, ids).await })
    }

    fn walk<'a>(&'a self, see: &'a mut (dyn FnMut(Entry) + Send)) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.walk_all(see))
    }

    fn events_from(&self) -> BoxFuture<'_, Result<Option<Micros>, StoreError>> {
        Box::pin(async move { usage::events_from::<Sqlite>(&mut *self.reader().await?).await })
    }

    fn old_events(&self, before: Period) -> BoxFuture<'_, Result<Vec<(Period, u64)>, StoreError>> {
        Box::pin(async move { usage::old_events::<Sqlite>(&mut *self.reader().await?, before, NOT_THE_NEWEST).await })
    }

    fn drop_events<'a>(
        &'a self,
        before: Period,
        tell: &'a mut (dyn FnMut(u64) + Send),
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.drop_all(before, tell))
    }

    fn ledger_id(&self) -> BoxFuture<'_, Result<String, StoreError>> {
        Box::pin(async move { usage::ledger_id::<Sqlite>(&mut *self.reader().await?).await })
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.check_schema())
    }
}

impl SqliteLedger {
    async fn append_all(&self, events: &[UsageEvent], watched: &Watched) -> Result<Appended, StoreError> {
        if events.is_empty() {
            return Ok(Appended::default());
        }
        let mut transaction = self.write().await?;
        let last = last_row(&mut transaction).await?;
        let mut added = 0;
        for some in pieces(events) {
            added += insert_events(&mut transaction, some).await?;
        }
        if added == 0 {
            return Ok(Appended::default());
        }
        let is_all_new = u64::try_from(events.len()) == Ok(added);
        let new = if is_all_new { events.iter().collect() } else { new_ones(&mut transaction, events, last).await? };
        let rows = [last.saturating_add(1), last_row(&mut transaction).await?];
        for window in [Window::Day, Window::Month] {
            add_sums(&mut transaction, window, &new, rows).await?;
        }
        let crossed = add_scopes(&mut transaction, &new, watched).await?;
        units::insert(&mut transaction, &new).await?;
        self.commit(transaction).await?;
        Ok(Appended { new: added, crossed })
    }
}

/// The highest number of a row. It is never the number of another one later: the newest event stays, whatever goes.
async fn last_row(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    let last = sqlx::query_scalar::<_, i64>("SELECT COALESCE(MAX(row), 0) FROM usage_events");
    last.fetch_one(connection).await.map_err(store_error)
}

/// Writes events that are not there yet and says how many that were.
async fn insert_events(connection: &mut SqliteConnection, events: &[UsageEvent]) -> Result<u64, StoreError> {
    let mut cells = Vec::with_capacity(events.len().saturating_mul(EVENT_COLUMNS.len()));
    for event in events {
        rows::event_cells(&mut cells, event)?;
    }
    let columns = EVENT_COLUMNS.join(", ");
    let places = places(events.len(), EVENT_COLUMNS.len());
    // OR FAIL: a row that is refused ends the transaction anyway, so SQLite need not keep each page as it was before this
    // statement.
    let text = format!("INSERT OR FAIL INTO usage_events ({columns}) VALUES {places} ON CONFLICT (id) DO NOTHING");
    execute(connection, text, &cells).await
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

/// Adds `events`, which were written with numbers in `rows`, to the sums of their days or months: each sum once, in the
/// order of their keys.
async fn add_sums(
    connection: &mut SqliteConnection,
    window: Window,
    events: &[&UsageEvent],
    rows: [i64; 2],
) -> Result<(), StoreError> {
    let mut all: BTreeMap<SumKey<'_>, Sums> = BTreeMap::new();
    for event in events {
        let period = event.period(window);
        let sums = all.entry((event.tenant.as_str(), period, event.provider.as_str(), &event.model)).or_default();
        let fits = sums.plus(&Sums::of(event));
        *sums = fits.ok_or_else(|| StoreError::Refused(format!("event {}: the sum of its {period}", event.id)))?;
    }
    // Days also know between which rows their events stand. The whole batch's are right for each, and cost nothing.
    let bounds: &[i64] = if window == Window::Day { &rows } else { &[] };
    let all: Vec<(SumKey<'_>, Sums)> = all.into_iter().collect();
    for some in pieces(&all) {
        let mut cells = Vec::new();
        for ((tenant, period, provider, model), sums) in some {
            cells.extend([(*tenant).into(), period.to_string().into(), (*provider).into(), (*model).into()]);
            rows::sum_cells(&mut cells, sums)?;
            cells.extend(bounds.iter().map(|row| Cell::from(*row)));
        }
        execute(connection, sums_statement(window, some.len()), &cells).await?;
    }
    Ok(())
}

fn sums_statement(window: Window, rows: usize) -> String {
    let (table, columns) = (table(window), SUM_COLUMNS.join(", "));
    let mut sums = SUM_COLUMNS.map(|column| format!("{column} = {column} + excluded.{column}")).join(", ");
    let bounds = match window {
        Window::Day => {
            sums.push_str(
                ", first_row = MIN(first_row, excluded.first_row), last_row = MAX(last_row, excluded.last_row)",
            );
            ", first_row, last_row"
        }
        Window::Month => "",
    };
    let values = if window == Window::Day { 6 } else { 4 } + SUM_COLUMNS.len();
    format!(
        "INSERT INTO {table} (tenant_id, period, provider, model, {columns}{bounds}) VALUES {} \
         ON CONFLICT (tenant_id, period, provider, model) DO UPDATE SET {sums}",
        places(rows, values)
    )
}

/// Adds `events` to the sums of everybody they count on; gives the thresholds that these crossed. Only sums of a scope and
/// window that a watched plan limits are told back.
async fn add_scopes(
    connection: &mut SqliteConnection,
    events: &[&UsageEvent],
    watched: &Watched,
) -> Result<Vec<Crossing>, StoreError> {
    let sums = ScopeSums::of(events.iter().copied())?;
    let is_watched = |((tenant, period, subject), _): &(&Place, &Amounts)| {
        let of = (subject.scope(), scopes::window_of(period));
        watched.plan(tenant).is_some_and(|plan| limits(plan).any(|limit| (limit.scope, limit.window) == of))
    };
    let (told, others): (Vec<_>, Vec<_>) = sums.rows().into_iter().partition(is_watched);
    for some in pieces(&others) {
        execute(connection, scopes_statement(some.len()), &scope_cells(some)?).await?;
    }
    let mut after = Vec::with_capacity(told.len());
    for some in pieces(&told) {
        let text = format!("{} RETURNING {}", scopes_statement(some.len()), scopes::SUM_COLUMNS);
        let rows = fetch(connection, text, &scope_cells(some)?).await?;
        for row in &rows {
            after.push(scopes::sum(row)?);
        }
    }
    // In the order of their keys, whatever order they were told in.
    after.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    insert_crossings(connection, &crossings::of_batch(events, &sums, &after, watched)).await
}

fn scope_cells<'a>(rows: &[(&'a Place, &'a Amounts)]) -> Result<Vec<Cell<'a>>, StoreError> {
    let mut cells = Vec::with_capacity(rows.len().saturating_mul(7));
    for row in rows {
        scopes::row_cells(&mut cells, *row)?;
    }
    Ok(cells)
}

/// Notes crossings, those that are not noted yet for their window; gives these.
async fn insert_crossings(
    connection: &mut SqliteConnection,
    crossed: &[Crossing],
) -> Result<Vec<Crossing>, StoreError> {
    let (columns, mut new) = (CROSSING_COLUMNS.join(", "), Vec::new());
    for some in pieces(crossed) {
        let mut cells = Vec::with_capacity(some.len().saturating_mul(CROSSING_COLUMNS.len()));
        some.iter().for_each(|crossing| crossings::push_cells(&mut cells, crossing));
        let text = format!(
            "INSERT INTO threshold_crossings ({columns}) VALUES {} \
             ON CONFLICT (tenant_id, scope, subject, period, metric, percent) DO NOTHING RETURNING {columns}",
            places(some.len(), CROSSING_COLUMNS.len())
        );
        for row in &fetch(connection, text, &cells).await? {
            new.push(crossings::crossing(&mut Columns::of(row))?);
        }
    }
    Ok(new)
}

fn scopes_statement(rows: usize) -> String {
    let sums = AMOUNT_COLUMNS.map(|column| format!("{column} = {column} + excluded.{column}")).join(", ");
    format!(
        "INSERT INTO usage_scopes (tenant_id, period, scope, subject, {}) VALUES {} \
         ON CONFLICT (tenant_id, period, scope, subject) DO UPDATE SET {sums}",
        AMOUNT_COLUMNS.join(", "),
        places(rows, 7)
    )
}

/// `text` is made of names in this file and placeholders only.
pub(super) async fn execute(
    connection: &mut SqliteConnection,
    text: String,
    cells: &[Cell<'_>],
) -> Result<u64, StoreError> {
    let values = arguments(cells).map_err(store_error)?;
    let done = query_with(AssertSqlSafe(text), values).execute(connection).await.map_err(store_error)?;
    Ok(done.rows_affected())
}

/// The same, for a statement that tells rows.
async fn fetch(
    connection: &mut SqliteConnection,
    text: String,
    cells: &[Cell<'_>],
) -> Result<Vec<SqliteRow>, StoreError> {
    let values = arguments(cells).map_err(store_error)?;
    query_with(AssertSqlSafe(text), values).fetch_all(connection).await.map_err(store_error)
}

/// `all` in pieces of [`ROWS_PER_INSERT`].
pub(super) fn pieces<T>(mut all: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = ROWS_PER_INSERT.into_iter().find(|size| *size <= all.len())?;
        let (piece, rest) = all.split_at_checked(size)?;
        all = rest;
        Some(piece)
    })
}

/// `(?, ?), (?, ?)` for two rows of two values.
pub(super) fn places(rows: usize, values: usize) -> String {
    let row = format!("({})", vec!["?"; values].join(", "));
    vec![row.as_str(); rows].join(", ")
}
