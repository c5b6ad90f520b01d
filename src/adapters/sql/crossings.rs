//! Thresholds that were crossed: which those of a batch are, how they stand in rows, and the questions asked of them.
//!
//! May use: `domain`, `ports`. What crossing is, is decided in `domain::threshold` alone; Postgres says it in SQL again.

use super::Dialect;
use super::cells::{Cell, Cells, Columns};
use super::scopes::{DROPPED_MAX, Place, ScopeSums};
use super::statement::Statement;
use crate::domain::counting::Amounts;
use crate::domain::event::UsageEvent;
use crate::domain::plan::{Metric, Scope, Subject};
use crate::domain::threshold::{Crossing, crossed, is_reached};
use crate::domain::time::{Micros, Period, Window};
use crate::ports::StoreError;
use crate::ports::counters::CounterKey;
use crate::ports::crossings::{CrossingsQuery, StoredCrossing, Watched};

/// What a crossing is written to and read from, in this order.
pub(in crate::adapters) const CROSSING_COLUMNS: [&str; 11] = [
    "tenant_id",
    "scope",
    "subject",
    "metric",
    "period",
    "percent",
    "limit_units",
    "used_units",
    "plan",
    "event_id",
    "at",
];

/// A day or a month, as sums are named.
pub(in crate::adapters) fn parse_period(text: &str) -> Option<Period> {
    [Window::Month, Window::Day].into_iter().find_map(|window| window.parse(text).ok())
}

/// What sums that a batch changed have crossed: `after` is how they stand now, and `sums` what the batch added. In the order
/// of the events.
pub(in crate::adapters) fn of_batch(
    events: &[&UsageEvent],
    sums: &ScopeSums,
    after: &[(Place, Amounts)],
    watched: &Watched,
) -> Vec<Crossing> {
    let mut found: Vec<(usize, Crossing)> = Vec::new();
    for (place, after) in after {
        let (tenant, period, subject) = place;
        let (Some(plan), Some(period), Some(added)) = (watched.plan(tenant), parse_period(period), sums.added(place))
        else {
            continue;
        };
        let before = without(after, added);
        for (limit, percent) in crossed(plan, (subject.scope(), period.window()), (&before, after)) {
            let metric = limit.metric;
            let mut so_far = before.of_metric(metric);
            let crossing = events.iter().enumerate().find(|(_, event)| {
                if event.tenant == *tenant && is_of(event, subject) && event.period(period.window()) == period {
                    so_far = so_far.saturating_add(Amounts::of(event).of_metric(metric));
                    return is_reached(so_far, limit.max, percent);
                }
                false
            });
            let Some((at, event)) = crossing else { continue };
            found.push((
                at,
                Crossing {
                    tenant: tenant.clone(),
                    subject: subject.clone(),
                    metric,
                    period,
                    percent,
                    limit: limit.max,
                    used: after.of_metric(metric),
                    plan: plan.name.clone(),
                    event: event.id,
                    at: Micros(event.requested_at.0.saturating_add_unsigned(event.duration_us)),
                },
            ));
        }
    }
    // Stable: of one event those of one sum stay in the order of their percents.
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, crossing)| crossing).collect()
}

fn without(after: &Amounts, added: &Amounts) -> Amounts {
    Amounts {
        chats: after.chats.saturating_sub(added.chats),
        tokens: after.tokens.saturating_sub(added.tokens),
        cost_nano: after.cost_nano.saturating_sub(added.cost_nano),
    }
}

fn is_of(event: &UsageEvent, subject: &Subject) -> bool {
    match subject {
        Subject::Tenant => true,
        Subject::Key(id) => event.key.as_ref() == Some(id),
        Subject::User(id) => event.user_id.as_deref() == Some(&**id),
        Subject::Kb(id) => event.kb_id.as_deref() == Some(&**id),
    }
}

/// A number of units as a row holds it: a limit may be beyond 64 bits with a sign, which nothing ever uses up.
pub(in crate::adapters) fn units(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// The values of [`CROSSING_COLUMNS`].
pub(in crate::adapters) fn push_cells<'a>(cells: &mut Vec<Cell<'a>>, crossing: &'a Crossing) {
    let Crossing { tenant, subject, metric, period, percent, limit, used, plan, event, at } = crossing;
    cells.extend([tenant.as_str(), subject.scope().as_str(), subject.id(), metric.as_str()].map(Cell::from));
    cells.push(period.to_string().into());
    cells.extend([i64::from(*percent), units(*limit), units(*used)].map(Cell::from));
    cells.extend([plan.as_str().into(), (*event).into(), at.0.into()]);
}

/// Reads [`CROSSING_COLUMNS`].
pub(in crate::adapters) fn crossing(columns: &mut Columns<'_, impl Cells>) -> Result<Crossing, StoreError> {
    // Fields are read in the order they stand here, which is that of the columns.
    let tenant = columns.parse()?;
    let scope = columns.named(Scope::parse)?;
    Ok(Crossing {
        tenant,
        subject: columns.named(|id| Subject::of(scope, id))?,
        metric: columns.named(Metric::parse)?,
        period: columns.named(parse_period)?,
        percent: u16::try_from(columns.count()?).unwrap_or(u16::MAX),
        limit: columns.count()?,
        used: columns.count()?,
        plan: columns.parse()?,
        event: columns.id()?,
        at: columns.instant()?,
    })
}

/// What [`crate::ports::usage::UsageStore::crossings`] promises.
pub(in crate::adapters) async fn list<D: Dialect>(
    connection: &mut D::Connection,
    query: &CrossingsQuery,
) -> Result<Vec<StoredCrossing>, StoreError> {
    let CrossingsQuery { tenant, after, crossings_max } = query;
    let columns = CROSSING_COLUMNS.join(", ");
    let mut statement = Statement::new(format!("SELECT row, {columns} FROM threshold_crossings WHERE row > "));
    statement.push_bind(*after);
    if let Some(tenant) = tenant {
        statement.push(" AND tenant_id = ").push_bind(tenant.as_str());
    }
    statement.push(" ORDER BY row LIMIT ").push_bind(i64::from(*crossings_max));
    let found = D::rows(connection, statement).await.map_err(D::error)?;
    let stored = |row| {
        let mut columns = Columns::of(row);
        Ok(StoredCrossing { row: columns.integer()?, crossing: crossing(&mut columns)? })
    };
    found.iter().map(stored).collect()
}

/// What [`crate::ports::usage::UsageStore::crossed`] promises.
pub(in crate::adapters) async fn of_counters<D: Dialect>(
    connection: &mut D::Connection,
    counters: &[CounterKey],
) -> Result<Vec<Crossing>, StoreError> {
    if counters.is_empty() {
        return Ok(Vec::new());
    }
    let columns = CROSSING_COLUMNS.join(", ");
    let mut statement = Statement::new(format!("SELECT {columns} FROM threshold_crossings WHERE "));
    for (at, CounterKey { tenant, subject, metric, period }) in counters.iter().enumerate() {
        statement.push(if at > 0 { " OR (tenant_id = " } else { "(tenant_id = " }).push_bind(tenant.as_str());
        statement.push(" AND scope = ").push_bind(subject.scope().as_str());
        statement.push(" AND subject = ").push_bind(subject.id());
        statement.push(" AND period = ").push_bind(period.to_string());
        statement.push(" AND metric = ").push_bind(metric.as_str()).push(")");
    }
    statement.push(" ORDER BY row");
    let found = D::rows(connection, statement).await.map_err(D::error)?;
    found.iter().map(|row| crossing(&mut Columns::of(row))).collect()
}

/// Drops some crossings of times whose sums are dropped too: see [`super::scopes::drop_some`]. The newest one stays: its
/// number would be given to another one.
pub(in crate::adapters) async fn drop_some<D: Dialect>(
    connection: &mut D::Connection,
    before: Period,
) -> Result<u64, StoreError> {
    let text = format!(
        "DELETE FROM threshold_crossings WHERE row IN (SELECT row FROM threshold_crossings WHERE period < $1 \
         AND row < (SELECT MAX(row) FROM threshold_crossings) LIMIT {DROPPED_MAX})"
    );
    // The name of a month is less than those of its days.
    D::run(connection, Statement::new(text).bind(before.previous().to_string())).await.map_err(D::error)
}
