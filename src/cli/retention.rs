//! `tollgate retention`: drops the events of old months, beside a gateway that serves or without one. Sums stay for ever.
//!
//! May use: everything.

use std::collections::BTreeMap;
use std::io;

use clap::Args;
use serde_json::{Value, json};
use tokio::runtime::Builder;

use crate::adapters::file_journal::disk::Folder;
use crate::adapters::file_journal::{Stored, survey};
use crate::adapters::system_clock::SystemClock;
use crate::boot;
use crate::boot::ledger::{Ledger, PATIENCE_OF_COMMANDS};
use crate::config::Config;
use crate::domain::audit::Change;
use crate::domain::time::{MICROS_PER_DAY, Micros, Period, Window};
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::tenants::{Act, TenantStore};
use crate::ports::usage::UsageStore;

use super::Failure;
use super::accounts::author;
use super::output::{Output, table};
use super::progress::{Elsewhere, Progress};

/// What `tollgate retention --help` ends with.
pub(super) const EXAMPLES: &str = "\
The running month counts as one of the kept ones; months are those of UTC. Sums by provider, model, day and month stay for \
ever, so totals, limits and cost reports do not change; what only events can tell (by key, user, kb and hour, line items) \
is refused for dropped months. On Postgres whole partitions go, for each of which whoever reads all events just then \
(tollgate verify, pg_dump) is waited for up to three minutes; on SQLite small batches, whose room is used again.

Kept in any case are months that the journal of this data directory may still book into. A gateway that was off through \
all kept months and comes back with a call in its journal that was booked already would book it again: start such a \
gateway before.

Examples:
  tollgate retention --keep 13mo --dry-run
  tollgate retention --keep 13mo";

/// Fewer would drop calls that a journal may still hold: those of the last minutes of a month.
const MONTHS_MIN: u32 = 2;

/// A hundred years.
const MONTHS_MAX: u32 = 1_200;

/// What to keep.
#[derive(Args)]
pub(super) struct RetentionArgs {
    /// How many months of events to keep, such as 13mo.
    #[arg(long, value_name = "MONTHS", value_parser = months)]
    keep: u32,
    /// Only says what would be dropped.
    #[arg(long)]
    dry_run: bool,
}

/// Calls in the journal that are not known to be booked, by month.
type Waiting = BTreeMap<Period, u64>;

/// What is to be dropped, and why not more.
struct Plan {
    /// Events of months before this one go.
    before: Period,
    /// The months and their events.
    months: Vec<(Period, u64)>,
    /// A month that would go too, but for calls of it in the journal.
    kept_back: Option<(Period, u64)>,
}

fn months(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("mo").and_then(|number| number.parse().ok());
    number
        .filter(|months| (MONTHS_MIN..=MONTHS_MAX).contains(months))
        .ok_or_else(|| format!("write a number of months from {MONTHS_MIN} to {MONTHS_MAX}, such as 13mo"))
}

/// Runs `tollgate retention`.
pub(super) fn retention(args: RetentionArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the system refused a runtime: {error}: raise the limits of this user (ulimit -a)"))?;
    let plan = runtime.block_on(async {
        let ledger = Ledger::open(config, false, PATIENCE_OF_COMMANDS).await?;
        let done = run(&args, config, &*ledger.usage(), &*ledger.tenants()).await;
        ledger.leave().await;
        done
    })?;
    output.print(&document(&plan, args.dry_run), || text(&plan, args.dry_run))
}

async fn run(
    args: &RetentionArgs,
    config: &Config,
    store: &dyn UsageStore,
    log: &dyn TenantStore,
) -> Result<Plan, Failure> {
    let failed = |error: StoreError| Failure::from(format!("ledger {}: {error}", boot::ledger::name(&config.ledger)));
    store.ready().await.map_err(failed)?;
    let wanted = first_kept(SystemClock::new().now(), args.keep);
    let waiting = waiting(config)?;
    let kept_back = waiting.first_key_value().filter(|(month, _)| **month < wanted);
    let kept_back = kept_back.map(|(month, calls)| (*month, *calls));
    let before = kept_back.map_or(wanted, |(month, _)| month);
    let months = store.old_events(before).await.map_err(failed)?;
    let plan = Plan { before, months, kept_back };
    if !args.dry_run && plan.events() > 0 {
        let act = Act::by(author(), SystemClock::new().now());
        log.record(&Change::events_dropped(before), &act).await.map_err(failed)?;
        let all = plan.events();
        let mut progress = Progress::new(Elsewhere::Lines);
        let dropped = store.drop_events(before, &mut |done| progress.tell("drop", done, all, "events")).await;
        progress.end();
        dropped.map_err(failed)?;
    }
    Ok(plan)
}

impl Plan {
    fn events(&self) -> u64 {
        self.months.iter().fold(0, |sum, (_, events)| sum.saturating_add(*events))
    }
}

/// The oldest of so many months, the running one included.
fn first_kept(now: Micros, months: u32) -> Period {
    // Where the clocks are behind UTC the month before may be running still.
    let earliest = Micros(now.0.saturating_sub(MICROS_PER_DAY));
    (1..months).fold(Window::Month.period(earliest), |month, _| month.previous())
}

/// What the journal of this data directory may still book, where there is one.
fn waiting(config: &Config) -> Result<Waiting, Failure> {
    let path = boot::journal_dir(config);
    let failed = |error: io::Error| Failure::from(format!("journal {}: {error}", path.display()));
    let mut waiting = Waiting::new();
    let Some(folder) = Folder::open_existing(&path).map_err(failed)? else { return Ok(waiting) };
    let noted = survey(&folder, |stored| match stored {
        Stored::Settled(event, false) | Stored::Open(event) => {
            let calls = waiting.entry(event.period(Window::Month)).or_default();
            *calls = calls.saturating_add(1);
        }
        // What was refused is in no sum, and is right whenever it comes.
        Stored::Settled(_, true) | Stored::Quarantined(..) => {}
    });
    noted.map_err(failed)?;
    Ok(waiting)
}

fn document(plan: &Plan, dry_run: bool) -> Value {
    let months: Vec<Value> =
        plan.months.iter().map(|(month, events)| json!({"month": month.to_string(), "events": events})).collect();
    let kept_back =
        plan.kept_back.map(|(month, calls)| json!({"from_month": month.to_string(), "calls_in_journal": calls}));
    json!({
        "ok": true, "dry_run": dry_run, "kept_from": plan.before.start().to_string(), "events": plan.events(),
        "months": months, "kept_back": kept_back,
    })
}

fn text(plan: &Plan, dry_run: bool) -> String {
    let events = plan.events();
    let mut text = String::new();
    if events > 0 {
        let rows: Vec<_> = plan.months.iter().map(|(month, events)| [month.to_string(), events.to_string()]).collect();
        text.push_str(&table(["MONTH", "EVENTS"], &rows));
        text.push('\n');
    }
    if let Some((month, calls)) = plan.kept_back {
        text.push_str(&format!(
            "The journal holds {calls} calls of {month} that are not known to be booked: events are kept from there on. \
             Let the gateway run, then do this again.\n"
        ));
    }
    let done = if dry_run { "would be dropped" } else { "were dropped" };
    text.push_str(&format!("{events} events before {} {done}; their sums stay.", plan.before));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_month_is_one_of_those_that_are_kept() {
        let now: Micros = "2026-11-30T23:59:59Z".parse().unwrap();
        for (keep, first) in [(2, "2026-10"), (11, "2026-01"), (13, "2025-11")] {
            assert_eq!(first_kept(now, keep).to_string(), first);
        }
    }

    #[test]
    fn so_few_months_that_a_call_could_be_booked_twice_are_refused() {
        assert_eq!((months("13mo"), months("2mo")), (Ok(13), Ok(2)));
        for wrong in ["1mo", "0mo", "13", "13m", "mo", "-2mo", "1201mo", "1.5mo"] {
            assert!(months(wrong).is_err(), "{wrong}");
        }
    }
}
