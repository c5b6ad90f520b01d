//! The whole ledger shown as it stands at one instant, for whoever compares its parts.
//!
//! May use: `domain`, `ports`. One reading transaction from the first row to the last: in WAL mode that is a view which
//! stands still while others write, without a copy. It keeps the write-ahead log from being cut back for as long as it
//! lasts, so it must end.

use std::fmt::Write;

use futures_util::TryStreamExt;
use futures_util::future::join;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::rows::{self, Columns, EVENT_COLUMNS, SUM_COLUMNS};
use super::{SqliteLedger, store_error};
use crate::domain::event::{Outcome, UsageSource};
use crate::domain::ids::EventId;
use crate::domain::price::{Priced, ServiceTier};
use crate::domain::time::{Micros, Window};
use crate::domain::tokens::Tokens;
use crate::ports::StoreError;
use crate::ports::usage::{Entry, StoredEvent, Stratum, SumKey, SumValues, Sums};

/// Events added up by one statement: so many are sorted in memory at once (some 4 MiB), and there is something to say
/// about progress twenty times in half a million.
const EVENTS_PER_STEP: i64 = 20_000;

/// Events looked up by one statement; far below SQLite's 32,766 values.
const IDS_PER_LOOKUP: usize = 250;

/// Findings of SQLite's own check that are told; a torn file has one for every page.
const DAMAGES_MAX: u32 = 100;

/// Microseconds of a day.
const DAY_US: i64 = 86_400_000_000;

/// A rule that every event keeps: its words, when a row breaks it, and what then to show of the row.
struct Rule {
    words: &'static str,
    broken: String,
    shown: &'static str,
}

impl SqliteLedger {
    /// What [`crate::ports::usage::UsageStore::walk`] promises. SQLite checks its file on a connection of its own in the
    /// meantime: that check is as long as all the rest, and knows nothing of instants.
    pub(super) async fn walk_all(&self, see: &mut (dyn FnMut(Entry) + Send)) -> Result<(), StoreError> {
        let (found, shown) = join(damages(&self.readers), self.walk_rows(see)).await;
        found?.into_iter().for_each(|damage| see(Entry::Damage(damage)));
        shown
    }

    async fn walk_rows(&self, see: &mut (dyn FnMut(Entry) + Send)) -> Result<(), StoreError> {
        let mut view = self.readers.begin().await.map_err(store_error)?;
        let events = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM usage_events");
        let events = events.fetch_one(&mut *view).await.map_err(store_error)?;
        see(Entry::Begin { events: u64::try_from(events).unwrap_or(0) });
        strata(&mut view, see).await?;
        impossible(&mut view, see).await?;
        repeated(&mut view, see).await?;
        for window in [Window::Day, Window::Month] {
            sums(&mut view, window, see).await?;
        }
        view.rollback().await.map_err(store_error)
    }

    /// What [`crate::ports::usage::UsageStore::find`] promises.
    pub(super) async fn find_all(&self, ids: &[EventId]) -> Result<Vec<StoredEvent>, StoreError> {
        let mut found = Vec::new();
        for some in ids.chunks(IDS_PER_LOOKUP) {
            let places = vec!["?"; some.len()].join(", ");
            let text = format!("SELECT row, {} FROM usage_events WHERE id IN ({places})", EVENT_COLUMNS.join(", "));
            let query =
                some.iter().fold(sqlx::query(AssertSqlSafe(text)), |query, id| query.bind(id.to_bytes().to_vec()));
            let rows = query.fetch_all(&self.readers).await.map_err(store_error)?;
            for row in &rows {
                found.push(rows::event(row)?);
            }
        }
        Ok(found)
    }

    /// What [`crate::ports::usage::UsageStore::ledger_id`] promises.
    pub(super) async fn own_id(&self) -> Result<String, StoreError> {
        let id = sqlx::query_scalar::<_, String>("SELECT lower(hex(ledger_id)) FROM meta");
        id.fetch_one(&self.readers).await.map_err(store_error)
    }

    /// Lets go of the ledger and leaves its write-ahead log to whoever else has it open.
    pub async fn leave(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// What SQLite finds wrong with its file: pages, and indexes that do not hold what their tables do.
async fn damages(readers: &sqlx::SqlitePool) -> Result<Vec<String>, StoreError> {
    let found = sqlx::query_scalar::<_, String>(AssertSqlSafe(format!("PRAGMA integrity_check({DAMAGES_MAX})")));
    let found = found.fetch_all(readers).await.map_err(store_error)?;
    Ok(found.into_iter().filter(|line| line != "ok").collect())
}

/// Adds events up in steps by their place, so that each step sorts a bounded number of them.
async fn strata(view: &mut SqliteConnection, see: &mut (dyn FnMut(Entry) + Send)) -> Result<(), StoreError> {
    let text = strata_statement();
    let (mut last, mut step) = (i64::MIN, EVENTS_PER_STEP);
    loop {
        let rows = sqlx::query(AssertSqlSafe(text.clone())).bind(last).bind(step).fetch_all(&mut *view).await;
        let rows = match rows.map_err(store_error) {
            // Together they are more than 64 bits hold: fewer may not be, and one alone never is.
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
            let (stratum, newest) = stratum(row)?;
            last = last.max(newest);
            see(Entry::Events(Box::new(stratum)));
        }
        step = step.saturating_mul(2).min(EVENTS_PER_STEP);
    }
}

fn strata_statement() -> String {
    let kinds = ["tenant_id", "requested_at", "provider", "model", "outcome", "usage_source", "priced"];
    let amounts: Vec<&str> = ["chats"].into_iter().chain(Tokens::KINDS).chain(["estimated_cost_pico_usd"]).collect();
    let columns = [&kinds[..], &amounts].concat().join(", ");
    let sums: Vec<String> = amounts.iter().map(|amount| format!("COALESCE(SUM({amount}), 0)")).collect();
    // The remainder of a division has the sign of what is divided: this is the last midnight, also before 1970.
    let day = format!("requested_at - ((requested_at % {DAY_US}) + {DAY_US}) % {DAY_US}");
    format!(
        "SELECT tenant_id, {day}, provider, model, outcome, usage_source, priced, MAX(row), COUNT(*), {} FROM \
         (SELECT row, {columns} FROM usage_events WHERE row > ? ORDER BY row LIMIT ?) GROUP BY 1, 2, 3, 4, 5, 6, 7",
        sums.join(", ")
    )
}

fn stratum(row: &SqliteRow) -> Result<(Stratum, i64), StoreError> {
    let mut columns = Columns::of(row);
    // Fields are read in the order they stand here, which is that of the columns.
    let tenant = text(&mut columns)?;
    let day = Micros(columns.take()?);
    let [provider, model, outcome, source, priced] =
        [text(&mut columns)?, text(&mut columns)?, text(&mut columns)?, text(&mut columns)?, text(&mut columns)?];
    let newest = columns.take()?;
    let events = columns.count()?;
    let chats = amount(&mut columns)?;
    let mut tokens = [0; 10];
    for kind in &mut tokens {
        *kind = amount(&mut columns)?;
    }
    let cost = amount(&mut columns)?;
    Ok((Stratum { tenant, day, provider, model, outcome, source, priced, events, chats, tokens, cost }, newest))
}

/// A text as it stands, also where it is none: a flipped bit is to be shown, not to end the walk.
fn text(columns: &mut Columns<'_>) -> Result<String, StoreError> {
    Ok(String::from_utf8_lossy(columns.take::<&[u8]>()?).into_owned())
}

fn amount(columns: &mut Columns<'_>) -> Result<i128, StoreError> {
    columns.take::<i64>().map(i128::from)
}

/// Shows events with values that no event can have.
async fn impossible(view: &mut SqliteConnection, see: &mut (dyn FnMut(Entry) + Send)) -> Result<(), StoreError> {
    let rules = rules();
    let mut text = "SELECT id".to_owned();
    for Rule { broken, shown, .. } in &rules {
        // Writing to a string does not fail.
        write!(text, ", CASE WHEN {broken} THEN CAST({shown} AS TEXT) END").unwrap_or_default();
    }
    let any: Vec<String> = rules.iter().map(|rule| format!("({})", rule.broken)).collect();
    write!(text, " FROM usage_events WHERE {}", any.join(" OR ")).unwrap_or_default();
    let mut rows = sqlx::query(AssertSqlSafe(text)).fetch(view);
    while let Some(row) = rows.try_next().await.map_err(store_error)? {
        let event = name(&row)?;
        for (at, rule) in rules.iter().enumerate() {
            let found = row.try_get::<Option<&[u8]>, _>(at + 1).map_err(store_error)?;
            if let Some(found) = found {
                let found = String::from_utf8_lossy(found).into_owned();
                see(Entry::Impossible { event: event.clone(), rule: rule.words, found });
            }
        }
    }
    Ok(())
}

/// Shows ids that more than one event has: the index that forbids them may be gone.
async fn repeated(view: &mut SqliteConnection, see: &mut (dyn FnMut(Entry) + Send)) -> Result<(), StoreError> {
    let text = "SELECT id, COUNT(*) AS times FROM usage_events GROUP BY id HAVING times > 1";
    let mut rows = sqlx::query(text).fetch(view);
    while let Some(row) = rows.try_next().await.map_err(store_error)? {
        let times: i64 = row.try_get(1).map_err(store_error)?;
        see(Entry::Impossible { event: name(&row)?, rule: "an id is one event's", found: format!("{times} events") });
    }
    Ok(())
}

/// An event's id as people know it.
fn name(row: &SqliteRow) -> Result<String, StoreError> {
    let bytes: &[u8] = row.try_get(0).map_err(store_error)?;
    Ok(match bytes.try_into() {
        Ok(bytes) => EventId::from_bytes(bytes).to_string(),
        Err(_) => format!("{bytes:02x?}"),
    })
}

/// All of them. Texts of names are this program's own.
fn rules() -> Vec<Rule> {
    let rule = |words, broken: &str, shown| Rule { words, broken: broken.to_owned(), shown };
    let mut rules = vec![
        rule("chats is not below 0", "chats < 0", "chats"),
        rule("duration_us is not below 0", "duration_us < 0", "duration_us"),
        rule("first_byte_us is not below 0", "first_byte_us < 0", "first_byte_us"),
        rule("estimated_cost_pico_usd is not below 0", "estimated_cost_pico_usd < 0", "estimated_cost_pico_usd"),
        rule("status is below 1000", "status NOT BETWEEN 0 AND 999", "status"),
        rule(
            "total_tokens is prompt_tokens + completion_tokens",
            "total_tokens IS NOT prompt_tokens + completion_tokens",
            "total_tokens",
        ),
        rule(
            "a cost is there exactly where there is a price",
            "(priced = 'unpriced') <> (estimated_cost_pico_usd IS NULL)",
            "COALESCE(estimated_cost_pico_usd, 'no cost') || ', ' || priced",
        ),
    ];
    let kinds: [(&'static str, &'static str, &'static str); 10] = [
        ("prompt_tokens is not below 0", "prompt_tokens", "prompt_tokens"),
        ("cached_tokens is a part of prompt_tokens", "cached_tokens", "prompt_tokens"),
        ("cache_write_tokens is a part of prompt_tokens", "cache_write_tokens", "prompt_tokens"),
        ("prompt_audio_tokens is a part of prompt_tokens", "prompt_audio_tokens", "prompt_tokens"),
        ("prompt_image_tokens is a part of prompt_tokens", "prompt_image_tokens", "prompt_tokens"),
        (
            "cached_audio_tokens is a part of cached_tokens and prompt_audio_tokens",
            "cached_audio_tokens",
            "MIN(cached_tokens, prompt_audio_tokens)",
        ),
        ("completion_tokens is not below 0", "completion_tokens", "completion_tokens"),
        ("reasoning_tokens is a part of completion_tokens", "reasoning_tokens", "completion_tokens"),
        ("completion_audio_tokens is a part of completion_tokens", "completion_audio_tokens", "completion_tokens"),
        ("completion_image_tokens is a part of completion_tokens", "completion_image_tokens", "completion_tokens"),
    ];
    for (words, part, whole) in kinds {
        let broken = if part == whole { format!("{part} < 0") } else { format!("{part} NOT BETWEEN 0 AND {whole}") };
        rules.push(Rule { words, broken, shown: part });
    }
    let one_of = |words, column, names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
        Rule { words, broken: format!("{column} NOT IN ({})", names.join(", ")), shown: column }
    };
    let sources = [UsageSource::Provider, UsageSource::Estimate];
    rules.extend([
        one_of("outcome is a known one", "outcome", &Outcome::ALL.map(Outcome::as_str)),
        one_of("usage_source is a known one", "usage_source", &sources.map(UsageSource::as_str)),
        one_of("priced is a known one", "priced", &Priced::ALL.map(Priced::as_str)),
        one_of("service_tier is a known one", "service_tier", &ServiceTier::ALL.map(ServiceTier::as_str)),
    ]);
    rules
}

/// Shows every sum of one kind.
async fn sums(
    view: &mut SqliteConnection,
    window: Window,
    see: &mut (dyn FnMut(Entry) + Send),
) -> Result<(), StoreError> {
    let table = match window {
        Window::Day => "usage_daily",
        Window::Month => "usage_monthly",
    };
    let statement = format!("SELECT tenant_id, period, provider, model, {} FROM {table}", SUM_COLUMNS.join(", "));
    let mut rows = sqlx::query(AssertSqlSafe(statement)).fetch(view);
    while let Some(row) = rows.try_next().await.map_err(store_error)? {
        let mut columns = Columns::of(&row);
        let key = SumKey {
            window,
            tenant: text(&mut columns)?,
            period: text(&mut columns)?,
            provider: text(&mut columns)?,
            model: text(&mut columns)?,
        };
        see(Entry::Sum(Box::new((key, values(&mut columns)?))));
    }
    Ok(())
}

/// Reads [`SUM_COLUMNS`]: the two columns of the cost are one value.
fn values(columns: &mut Columns<'_>) -> Result<SumValues, StoreError> {
    let mut values = [0; 18];
    for (value, column) in values.iter_mut().zip(Sums::NAMES) {
        *value = amount(columns)?;
        if column == "estimated_cost_pico_usd" {
            *value = *value * rows::PICO_PER_MICRO + amount(columns)?;
        }
    }
    Ok(values)
}
