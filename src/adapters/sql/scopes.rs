//! What each tenant, key, user and knowledge base used in a day or a month, as counters count it: how it is added up, and
//! the questions that counters are built from.
//!
//! May use: `domain`, `ports`. What an event counts is decided in `domain::counting` alone.

use std::collections::BTreeMap;

use super::cells::{Cell, Cells, Columns};
use super::rows::count;
use super::statement::Statement;
use super::usage::{BILLABLE, known};
use super::{Dialect, LISTED_MAX};
use crate::domain::counting::{Amounts, Counting, subjects_of};
use crate::domain::event::{Outcome, UsageEvent};
use crate::domain::ids::{EventId, TenantId};
use crate::domain::plan::{Metric, Scope, Subject};
use crate::domain::time::{Period, Window};
use crate::ports::StoreError;
use crate::ports::counters::CounterKey;
use crate::ports::usage::StandingOf;

/// What is summed up, behind the four columns of the key.
pub(in crate::adapters) const AMOUNT_COLUMNS: [&str; 3] = ["chats", "tokens", "cost_nano_usd"];

/// The columns of the key and these.
pub(in crate::adapters) const SUM_COLUMNS: &str = "tenant_id, period, scope, subject, chats, tokens, cost_nano_usd";

/// The subjects of an event and their scopes, for a dialect that adds up itself.
pub(in crate::adapters) const SUBJECTS: &str = "('tenant', ''), ('key', key_id), ('user', user_id), ('kb', kb_id)";

/// What an event counts of [`AMOUNT_COLUMNS`], in SQL: the same as [`Amounts::of`].
pub(in crate::adapters) fn amounts<D: Dialect>() -> [String; 3] {
    // Not by adding to it first: one near the end of 64 bits is beyond them then.
    let cost =
        format!("CASE outcome WHEN '{}' THEN 0 ELSE {}({BILLABLE}, 0) END", Outcome::Correction.as_str(), D::GREATEST);
    let nano = format!("({cost}) / 1000 + CASE WHEN ({cost}) % 1000 > 0 THEN 1 ELSE 0 END");
    ["chats".to_owned(), "prompt_tokens + completion_tokens".to_owned(), nano]
}

/// Whose and when, in the order of the primary key: the subjects of a tenant and period lie side by side.
pub(in crate::adapters) type Place = (TenantId, String, Subject);

/// What a batch adds, each sum once, in the order of their keys.
#[derive(Debug, Default)]
pub(in crate::adapters) struct ScopeSums(BTreeMap<Place, Amounts>);

impl ScopeSums {
    /// What these events add.
    pub(in crate::adapters) fn of<'e>(events: impl IntoIterator<Item = &'e UsageEvent>) -> Result<Self, StoreError> {
        let mut all: BTreeMap<Place, Amounts> = BTreeMap::new();
        for event in events {
            let amounts = Amounts::of(event);
            if amounts.are_zero() {
                continue;
            }
            for window in Counting::WINDOWS {
                let period = event.period(window).to_string();
                for subject in subjects_of(event) {
                    let sums = all.entry((event.tenant.clone(), period.clone(), subject)).or_default();
                    let sum = sums.plus(&amounts);
                    *sums =
                        sum.ok_or_else(|| StoreError::Refused(format!("event {}: the sum of its {period}", event.id)))?;
                }
            }
        }
        Ok(Self(all))
    }

    /// The values of each row: its key, then [`AMOUNT_COLUMNS`].
    pub(in crate::adapters) fn rows(&self) -> Vec<(&Place, &Amounts)> {
        self.0.iter().collect()
    }

    /// What is added to one sum.
    pub(in crate::adapters) fn added(&self, place: &Place) -> Option<&Amounts> {
        self.0.get(place)
    }
}

/// Adds the values of a row.
pub(in crate::adapters) fn row_cells<'a>(
    cells: &mut Vec<Cell<'a>>,
    ((tenant, period, subject), amounts): (&'a Place, &Amounts),
) -> Result<(), StoreError> {
    cells.extend([tenant.as_str(), period, subject.scope().as_str(), subject.id()].map(Cell::from));
    for metric in Metric::ALL {
        cells.push(count(amounts.of_metric(metric))?);
    }
    Ok(())
}

/// Reads a row: its key, then [`AMOUNT_COLUMNS`].
pub(in crate::adapters) fn sum(row: &impl Cells) -> Result<(Place, Amounts), StoreError> {
    let mut columns = Columns::of(row);
    let (tenant, period) = (columns.parse()?, columns.owned()?);
    let scope = columns.named(Scope::parse)?;
    let subject = columns.named(|id| Subject::of(scope, id))?;
    // Read in the order they stand here, which is that of the columns.
    let amounts = Amounts { chats: columns.count()?, tokens: columns.count()?, cost_nano: columns.count()? };
    Ok(((tenant, period, subject), amounts))
}

/// Rows that one statement drops: some milliseconds of a write lock.
pub(in crate::adapters) const DROPPED_MAX: i64 = 2_000;

/// Drops some sums of times whose events are dropped, and says how many: again until that is fewer than
/// [`DROPPED_MAX`]. Those of the month before are kept, as calls may be settled in it yet.
pub(in crate::adapters) async fn drop_some<D: Dialect>(
    connection: &mut D::Connection,
    before: Period,
) -> Result<u64, StoreError> {
    let before = before.previous();
    let text = format!(
        "DELETE FROM usage_scopes WHERE (tenant_id, period, scope, subject) IN \
         (SELECT tenant_id, period, scope, subject FROM usage_scopes WHERE period < $1 LIMIT {DROPPED_MAX})"
    );
    // The name of a month is less than those of its days.
    D::run(connection, Statement::new(text).bind(before.to_string())).await.map_err(D::error)
}

/// What [`crate::ports::usage::UsageStore::used`] promises.
pub(in crate::adapters) async fn used<D: Dialect>(
    connection: &mut D::Connection,
    period: Period,
    counting: Counting,
) -> Result<Vec<(CounterKey, u64)>, StoreError> {
    let mut statement = Statement::new(select());
    statement.push(" WHERE period = ").push_bind(period.to_string());
    push_scopes(&mut statement, counting);
    answer::<D>(connection, statement, period.window(), counting).await
}

/// What [`crate::ports::usage::UsageStore::standing_of`] promises, inside a transaction that sees one instant.
pub(in crate::adapters) async fn standing_of<D: Dialect>(
    snapshot: &mut D::Connection,
    tenants: &[TenantId],
    from: [Period; 2],
    counting: Counting,
    ids: &[EventId],
) -> Result<StandingOf, StoreError> {
    let mut used = Vec::new();
    for tenants in tenants.chunks(LISTED_MAX) {
        for from in from {
            let mut statement = Statement::new(select());
            statement.push(" WHERE period >= ").push_bind(from.to_string());
            // Names of days and of months are told apart by their length.
            statement.push(" AND length(period) = ").push_bind(i64::from(name_length(from.window())));
            statement.push(" AND ");
            D::among_names(&mut statement, "tenant_id", tenants.iter().map(TenantId::as_str).collect());
            push_scopes(&mut statement, counting);
            used.extend(answer::<D>(snapshot, statement, from.window(), counting).await?);
        }
    }
    Ok(StandingOf { used, known: known::<D>(snapshot, ids).await? })
}

/// The window of a day or month by the length of its name.
pub(in crate::adapters) fn window_of(period: &str) -> Window {
    if period.len() == usize::from(name_length(Window::Month)) { Window::Month } else { Window::Day }
}

pub(in crate::adapters) fn name_length(window: Window) -> u8 {
    match window {
        Window::Day => 10,
        Window::Month => 7,
    }
}

fn select() -> String {
    format!("SELECT {SUM_COLUMNS} FROM usage_scopes")
}

fn push_scopes(statement: &mut Statement<'_>, counting: Counting) {
    let names: Vec<String> = Scope::ALL
        .into_iter()
        .filter(|scope| counting.has_scope(*scope))
        .map(|scope| format!("'{}'", scope.as_str()))
        .collect();
    statement.push(&format!(" AND scope IN ({})", names.join(", ")));
}

async fn answer<D: Dialect>(
    connection: &mut D::Connection,
    statement: Statement<'_>,
    window: Window,
    counting: Counting,
) -> Result<Vec<(CounterKey, u64)>, StoreError> {
    let found = D::rows(connection, statement).await.map_err(D::error)?;
    let mut used = Vec::new();
    for row in &found {
        push_row(&mut used, row, window, counting)?;
    }
    Ok(used)
}

fn push_row(
    used: &mut Vec<(CounterKey, u64)>,
    row: &impl Cells,
    window: Window,
    counting: Counting,
) -> Result<(), StoreError> {
    let mut columns = Columns::of(row);
    let tenant: TenantId = columns.parse()?;
    let period = columns.named(|text| window.parse(text).ok())?;
    let scope = columns.named(Scope::parse)?;
    let subject = columns.named(|id| Subject::of(scope, id))?;
    for metric in Metric::ALL {
        let amount = columns.count()?;
        if amount > 0 && counting.has(scope, metric, window) {
            used.push((CounterKey { tenant: tenant.clone(), subject: subject.clone(), metric, period }, amount));
        }
    }
    Ok(())
}
