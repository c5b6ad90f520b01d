//! The whole ledger shown as it stands at one instant, for whoever compares its parts.
//!
//! May use: `domain`, `ports`. The caller opens a reading transaction that sees one instant from the first row to the last.

use std::fmt::Write;

use futures_util::TryStreamExt;

use super::Dialect;
use super::cells::{Cells, Columns};
use super::rows::{PICO_PER_MICRO, SUM_COLUMNS, table};
use super::rules::{Rule, rules};
use super::scopes::{self, AMOUNT_COLUMNS};
use super::statement::Statement;
use super::usage::{BILLABLE, DAY_US, events_from, one};
use crate::domain::ids::EventId;
use crate::domain::quantities::Quantities;
use crate::domain::time::{Micros, Window};
use crate::domain::tokens::Tokens;
use crate::ports::StoreError;
use crate::ports::usage::{Entry, Stratum, SumKey, SumValues, Sums, UsedKey, UsedStratum};

/// Events added up by one statement: so many are sorted in memory at once (some 4 MiB), and there is something to say
/// about progress twenty times in half a million.
const EVENTS_PER_STEP: i64 = 20_000;

/// Whoever is shown the ledger.
type See<'a> = &'a mut (dyn FnMut(Entry) + Send);

/// What [`crate::ports::usage::UsageStore::walk`] promises, but for the store's own check of its files.
pub(in crate::adapters) async fn walk<D: Dialect>(view: &mut D::Connection, see: See<'_>) -> Result<(), StoreError> {
    let events = D::rows(view, Statement::new("SELECT COUNT(*) FROM usage_events")).await.map_err(D::error)?;
    let from = events_from::<D>(view).await?;
    see(Entry::Begin { events: one(&events)?.count()?, from });
    steps::<D>(view, &strata_statement(), &mut |row| {
        let (stratum, newest) = stratum(row)?;
        see(Entry::Events(Box::new(stratum)));
        Ok(newest)
    })
    .await?;
    impossible::<D>(view, see).await?;
    repeated::<D>(view, see).await?;
    for window in [Window::Day, Window::Month] {
        sums::<D>(view, window, see).await?;
    }
    steps::<D>(view, &counted_statement::<D>(), &mut |row| {
        let (stratum, newest) = counted(row)?;
        see(Entry::Counted(Box::new(stratum)));
        Ok(newest)
    })
    .await?;
    used::<D>(view, see).await
}

/// Adds events up in steps by their place, so that each step sorts a bounded number of them. `take` gives the place of the
/// newest event in a row of the answer.
async fn steps<D: Dialect>(
    view: &mut D::Connection,
    text: &str,
    take: &mut (dyn FnMut(&D::Row) -> Result<i64, StoreError> + Send),
) -> Result<(), StoreError> {
    let (mut last, mut step) = (i64::MIN, EVENTS_PER_STEP);
    loop {
        let statement = Statement::new(text).bind(last).bind(step);
        let rows = match D::rows(view, statement).await.map_err(D::error) {
            // SQLite: together they are more than 64 bits hold. Fewer may not be, and one alone never is.
            Err(StoreError::Refused(_)) if step > 1 => {
                step /= 2;
                continue;
            }
            other => other?,
        };
        if rows.is_empty() {
            return Ok(());
        }
        for row in &rows {
            last = last.max(take(row)?);
        }
        step = step.saturating_mul(2).min(EVENTS_PER_STEP);
    }
}

/// The last midnight. The remainder of a division has the sign of what is divided: also before 1970.
fn day() -> String {
    format!("local - ((local % {DAY_US}) + {DAY_US}) % {DAY_US}")
}

fn strata_statement() -> String {
    let kinds = ["tenant_id", "provider", "model", "outcome", "usage_source", "priced", "priced_before"];
    let costs = ["estimated_cost_pico_usd", "billable"];
    let amounts: Vec<&str> = ["chats"].into_iter().chain(Tokens::KINDS).chain(Quantities::KINDS).chain(costs).collect();
    let columns = kinds.into_iter().chain(amounts.iter().copied()).map(|column| match column {
        "billable" => format!("{BILLABLE} AS billable"),
        same => same.to_owned(),
    });
    let columns = columns.collect::<Vec<String>>().join(", ");
    let sums: Vec<String> = amounts.iter().map(|amount| format!("CAST(COALESCE(SUM({amount}), 0) AS TEXT)")).collect();
    let day = day();
    format!(
        "SELECT tenant_id, {day}, provider, model, outcome, usage_source, priced, priced_before, MAX(row), COUNT(*), {} \
         FROM (SELECT row, requested_at + utc_offset_s * 1000000 AS local, {columns} FROM usage_events \
         WHERE row > $1 ORDER BY row LIMIT $2) AS step GROUP BY 1, 2, 3, 4, 5, 6, 7, 8",
        sums.join(", ")
    )
}

fn stratum(row: &impl Cells) -> Result<(Stratum, i64), StoreError> {
    let mut columns = Columns::of(row);
    // Fields are read in the order they stand here, which is that of the columns.
    let tenant = columns.any_text()?;
    let day = Micros(columns.integer()?);
    let [provider, model] = [columns.any_text()?, columns.any_text()?];
    let [outcome, source, priced] = [columns.any_text()?, columns.any_text()?, columns.any_text()?];
    let priced_before = columns.any_text_some()?;
    let newest = columns.integer()?;
    let events = columns.count()?;
    let chats = columns.amount()?;
    let (mut tokens, mut quantities) = (Tokens::default().kinds().map(i128::from), [0; Quantities::KINDS.len()]);
    for kind in tokens.iter_mut().chain(&mut quantities) {
        *kind = columns.amount()?;
    }
    let [cost, billable] = [columns.amount()?, columns.amount()?];
    let stratum = Stratum {
        tenant,
        day,
        provider,
        model,
        outcome,
        source,
        priced,
        priced_before,
        events,
        chats,
        tokens,
        quantities,
        cost,
        billable,
    };
    Ok((stratum, newest))
}

fn counted_statement<D: Dialect>() -> String {
    let day = day();
    let amounts = scopes::amounts::<D>().map(|amount| format!("CAST(COALESCE(SUM({amount}), 0) AS TEXT)"));
    format!(
        "SELECT tenant_id, {day}, key_id, user_id, kb_id, MAX(row), {} FROM \
         (SELECT row, requested_at + utc_offset_s * 1000000 AS local, tenant_id, key_id, user_id, kb_id, outcome, chats, \
         prompt_tokens, completion_tokens, estimated_cost_pico_usd, billable_cost_pico_usd FROM usage_events \
         WHERE row > $1 ORDER BY row LIMIT $2) AS step GROUP BY 1, 2, 3, 4, 5",
        amounts.join(", ")
    )
}

fn counted(row: &impl Cells) -> Result<(UsedStratum, i64), StoreError> {
    let mut columns = Columns::of(row);
    let tenant = columns.any_text()?;
    let day = Micros(columns.integer()?);
    let of = [columns.any_text_some()?, columns.any_text_some()?, columns.any_text_some()?];
    let newest = columns.integer()?;
    let values = [columns.amount()?, columns.amount()?, columns.amount()?];
    Ok((UsedStratum { tenant, day, of, values }, newest))
}

/// Shows every sum of what counters count.
async fn used<D: Dialect>(view: &mut D::Connection, see: See<'_>) -> Result<(), StoreError> {
    let text = format!("SELECT tenant_id, period, scope, subject, {} FROM usage_scopes", AMOUNT_COLUMNS.join(", "));
    let mut rows = D::stream(view, Statement::new(text));
    while let Some(row) = rows.try_next().await.map_err(D::error)? {
        let mut columns = Columns::of(&row);
        let (tenant, period) = (columns.any_text()?, columns.any_text()?);
        let (scope, subject) = (columns.any_text()?, columns.any_text()?);
        let values = [columns.integer()?, columns.integer()?, columns.integer()?].map(i128::from);
        see(Entry::Used(Box::new((UsedKey { tenant, period, scope, subject }, values))));
    }
    Ok(())
}

/// Shows events with values that no event can have.
async fn impossible<D: Dialect>(view: &mut D::Connection, see: See<'_>) -> Result<(), StoreError> {
    let rules = rules::<D>();
    let mut text = "SELECT id".to_owned();
    for Rule { broken, shown, .. } in &rules {
        // Writing to a string does not fail.
        write!(text, ", CASE WHEN {broken} THEN CAST({shown} AS TEXT) END").unwrap_or_default();
    }
    let any: Vec<String> = rules.iter().map(|rule| format!("({})", rule.broken)).collect();
    write!(text, " FROM usage_events WHERE {}", any.join(" OR ")).unwrap_or_default();
    let mut rows = D::stream(view, Statement::new(text));
    while let Some(row) = rows.try_next().await.map_err(D::error)? {
        let mut columns = Columns::of(&row);
        let event = name(&columns.id_bytes()?);
        for rule in &rules {
            if let Some(found) = columns.any_text_some()? {
                see(Entry::Impossible { event: event.clone(), rule: rule.words, found });
            }
        }
    }
    Ok(())
}

/// Shows ids that more than one event has: the index that forbids them may be gone.
async fn repeated<D: Dialect>(view: &mut D::Connection, see: See<'_>) -> Result<(), StoreError> {
    let text = "SELECT id, COUNT(*) FROM usage_events GROUP BY id HAVING COUNT(*) > 1";
    let mut rows = D::stream(view, Statement::new(text));
    while let Some(row) = rows.try_next().await.map_err(D::error)? {
        let mut columns = Columns::of(&row);
        let event = name(&columns.id_bytes()?);
        see(Entry::Impossible { event, rule: "an id is one event's", found: format!("{} events", columns.count()?) });
    }
    Ok(())
}

/// An event's id as people know it.
fn name(bytes: &[u8]) -> String {
    match bytes.try_into() {
        Ok(bytes) => EventId::from_bytes(bytes).to_string(),
        Err(_) => format!("{bytes:02x?}"),
    }
}

/// Shows every sum of one kind.
async fn sums<D: Dialect>(view: &mut D::Connection, window: Window, see: See<'_>) -> Result<(), StoreError> {
    let (table, columns) = (table(window), SUM_COLUMNS.join(", "));
    let text = format!("SELECT tenant_id, period, provider, model, {columns} FROM {table}");
    let mut rows = D::stream(view, Statement::new(text));
    while let Some(row) = rows.try_next().await.map_err(D::error)? {
        let mut columns = Columns::of(&row);
        let key = SumKey {
            window,
            tenant: columns.any_text()?,
            period: columns.any_text()?,
            provider: columns.any_text()?,
            model: columns.any_text()?,
        };
        see(Entry::Sum(Box::new((key, values(&mut columns)?))));
    }
    Ok(())
}

/// Reads [`SUM_COLUMNS`]: the two columns of a cost are one value.
fn values(columns: &mut Columns<'_, impl Cells>) -> Result<SumValues, StoreError> {
    let mut values = Sums::default().values();
    for (value, column) in values.iter_mut().zip(Sums::NAMES) {
        *value = i128::from(columns.integer()?);
        if column.ends_with("_pico_usd") {
            *value = *value * PICO_PER_MICRO + i128::from(columns.integer()?);
        }
    }
    Ok(values)
}
