//! `tollgate copy`: a ledger moved into another store, whole and compared.
//!
//! May use: everything. No configuration is read: both ledgers are named.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tokio::runtime::Builder;

use crate::boot::transfer::End;
use crate::config::{self, Ledger};
use crate::metering::copy::compare::{Comparison, Side, Sides};
use crate::metering::copy::{self, Course, Report};
use crate::metering::verify::Difference;
use crate::ports::StoreError;
use crate::ports::transfer::Table;

use super::Failure;
use super::output::{Output, table};
use super::progress::{Elsewhere, Progress};

/// What `tollgate copy --help` ends with.
pub(super) const EXAMPLES: &str = "\
Copied is everything: the ledger's id, tenants and their plans, keys, events with their numbers (so that cursors of lists \
stay valid), sums as they stand, the audit log, what idempotency keys were answered. The target is an empty database, or \
a file that does not exist yet; its schema is made. At the end both are compared: every row, a SHA-256 over all rows of \
each table, and the sums of every tenant and month.

Stop the gateways of both ledgers first, with SIGTERM, and keep their data directories: what a killed one still has in its \
journal is booked into the copy by the gateway that is started on it next. A gateway that serves is noticed and the copy \
refused. A source that has changed meanwhile is found by the comparison: run the same command again, and it makes up for \
that.

A copy that was ended half way, however, goes on where it was when the same command is run again. Until it is finished \
nothing else opens the target. Run again after that, it only compares.

A password need not stand in the URL: PGPASSWORD and ~/.pgpass are read.

Exit code: 0 copied and equal, 1 refused, failed or different, 2 a mistake in the command line.

Examples:
  tollgate copy --from sqlite://data/billing/billing.db --to postgres://tollgate@db/tollgate
  tollgate copy --from postgres://tollgate@db/tollgate --to sqlite://data/billing/billing.db --json";

#[derive(Args)]
pub(super) struct CopyArgs {
    /// The ledger that is read: sqlite://PATH or postgres://USER@HOST/DATABASE.
    #[arg(long, value_name = "URL")]
    from: String,
    /// The ledger that is written, and is empty.
    #[arg(long, value_name = "URL")]
    to: String,
}

/// What was done, and how long it took.
struct Done {
    course: Course,
    report: Report,
    /// The names of source and target.
    names: [String; 2],
    took: Duration,
}

/// Copies and compares; any difference is a failure.
pub(super) fn copy(args: &CopyArgs, output: Output) -> Result<(), Failure> {
    let named = |flag: &str, url: &str| config::parse_ledger(url).map_err(|error| format!("{flag} {error}"));
    let (from, to) = (named("--from", &args.from)?, named("--to", &args.to)?);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the system refused a runtime: {error}: raise the limits of this user (ulimit -a)"))?;
    let done = runtime.block_on(run(&from, &to))?;
    output.print(&document(&done), || text(&done))?;
    // What differs was told; the exit code says that there was something.
    if done.report.comparison.is_equal() { Ok(()) } else { Err(Failure(Vec::new())) }
}

async fn run(from: &Ledger, to: &Ledger) -> Result<Done, Failure> {
    let started = Instant::now();
    let source = End::source(from).await?;
    let target = End::target(to, &source).await?;
    let failed = |end: &End, error: StoreError| Failure::from(format!("ledger {}: {error}", end.name()));
    let (reader, writer) = (source.rows(), target.rows());
    let ours = reader.standing().await.map_err(|error| failed(&source, error))?;
    let theirs = writer.standing().await.map_err(|error| failed(&target, error))?;
    let course = copy::course(&ours, &theirs).map_err(|error| format!("ledger {} {error}", target.name()))?;
    target.prepare().await?;
    let mut progress = Progress::new(Elsewhere::Lines);
    let copied = copy::copy(reader.as_ref(), writer.as_ref(), course, &mut |step| {
        progress.tell(&format!("{} {}", step.doing, step.table.as_str()), step.done, step.of, "rows");
    })
    .await;
    progress.end();
    let report = copied.map_err(|failure| match failure {
        copy::Failure::From(error) => failed(&source, error),
        copy::Failure::To(error) => failed(&target, error),
    })?;
    let names = [source.name().to_owned(), target.name().to_owned()];
    target.close().await?;
    source.close().await?;
    Ok(Done { course, report, names, took: started.elapsed() })
}

fn document(done: &Done) -> Value {
    let Done { course, report: Report { written, comparison }, names: [from, to], took } = done;
    let Comparison { tables, tenant_months, differences } = comparison;
    let side = |side: &Side| json!({"rows": side.rows, "sha256": hex(&side.sha256)});
    let table = |(table, sides): (&Table, &Sides)| {
        json!({
            "table": table.as_str(), "written": written.get(table).copied().unwrap_or_default(),
            "from": side(&sides.from), "to": side(&sides.to), "equal": sides.from == sides.to,
        })
    };
    let difference = |difference: &Difference| {
        let Difference { kind: _, place, what, expected, found } = difference;
        json!({"where": place, "what": what, "from": expected, "to": found})
    };
    json!({
        "ok": comparison.is_equal(),
        "from": from, "to": to,
        "run": match course {
            Course::Begin => "copied",
            Course::TakeUp => "taken up",
            Course::Compare => "compared",
        },
        "tables": tables.iter().map(table).collect::<Vec<_>>(),
        "tenant_months": tenant_months,
        "difference_count": differences.total(),
        "differences": differences.kept().iter().map(difference).collect::<Vec<_>>(),
        "milliseconds": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    })
}

fn text(done: &Done) -> String {
    let Done { course, report: Report { written, comparison }, names: [from, to], took } = done;
    let Comparison { tables, tenant_months, differences } = comparison;
    let mut lines: Vec<String> = differences.kept().iter().map(told).collect();
    let more = differences.total().saturating_sub(u64::try_from(lines.len()).unwrap_or(u64::MAX));
    if more > 0 {
        lines.push(format!("… and {more} more"));
    }
    let rows: Vec<[String; 5]> = tables
        .iter()
        .map(|(table, Sides { from, to })| {
            let equal = if from == to { hex(&from.sha256) } else { "different".to_owned() };
            let written = written.get(table).copied().unwrap_or_default();
            [table.as_str().to_owned(), from.rows.to_string(), to.rows.to_string(), written.to_string(), equal]
        })
        .collect();
    lines.push(table(["TABLE", "FROM", "TO", "WRITTEN", "SHA-256 OF BOTH"], &rows));
    let (seconds, tenths) = (took.as_secs(), took.subsec_millis() / 100);
    let took = format!("{tenant_months} tenants' months compared; {seconds}.{tenths} s");
    lines.push(match (course, comparison.is_equal()) {
        (Course::Begin | Course::TakeUp, true) => format!("{to} is a copy of {from}, equal to the bit: {took}."),
        (Course::Compare, true) => {
            format!("{to} was a finished copy of {from} already, and still is, equal to the bit: {took}.")
        }
        (Course::Begin | Course::TakeUp, false) => {
            format!("{to} is not equal to {from}, as when that changed meanwhile: run the same command again. {took}.")
        }
        (Course::Compare, false) => format!(
            "{to} was a finished copy of {from}, and one of them has changed since; nothing was written. To copy again, name an empty ledger. {took}."
        ),
    });
    lines.join("\n")
}

fn told(difference: &Difference) -> String {
    let Difference { kind: _, place, what, expected, found } = difference;
    format!("{place}: {what}: {expected} in the source, {found} in the copy")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
