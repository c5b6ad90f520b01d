//! `tollgate prices rerate`: events priced again by the prices in force.
//!
//! May use: as [`super`].

use clap::Args;
use serde_json::{Value, json};

use crate::adapters::system_clock::SystemClock;
use crate::config::Config;
use crate::domain::ids::TenantId;
use crate::domain::money::PicoUsd;
use crate::domain::time::{Micros, Period};
use crate::edge::api::wire::Usd;
use crate::metering::rerate::{Line, Rerated, Scope};
use crate::ports::clock::Clock;
use crate::ports::tenants::Act;

use super::super::accounts::{author, with_ledger};
use super::super::output::{Output, table};
use super::super::progress::{Elsewhere, Progress};
use super::Failure;

/// What `tollgate prices rerate --help` ends with.
pub(super) const HELP: &str = "\
Each event is priced by the prices in force: with its own tier, tokens and quantities, and by the dates that held when it was \
admitted; what is billed goes by the plan that its tenant was on then, as that plan is now. No event is changed: where a cost \
differs, one signed row with the difference is written, which counts in the day and month of the event, and one entry of the \
audit log before the first of them. Done twice it does nothing more. It runs beside a gateway that serves. Cost budgets go on from what they have counted.

Left as they are: events that have no price now, and sums of batches whose requests were priced one by one, or have prices now \
that depend on their length or number. Of two that run at once one writes, and the other ends and says so.

Examples:
  tollgate prices rerate --from 2026-11-01 --dry-run
  tollgate prices rerate --from 2026-11-01 --to 2026-12-01 --model gpt-4o-mini --json";

/// Which events.
#[derive(Args)]
pub(in super::super) struct RerateArgs {
    /// Requested at or after this day or instant (UTC).
    #[arg(long, value_name = "TIME", value_parser = instant)]
    from: Micros,
    /// Requested before this day or instant (UTC); now without it.
    #[arg(long, value_name = "TIME", value_parser = instant)]
    to: Option<Micros>,
    /// Of one tenant.
    #[arg(long)]
    tenant: Option<TenantId>,
    /// Of one model, as the provider answered.
    #[arg(long)]
    model: Option<String>,
    /// Only says what would be written.
    #[arg(long)]
    dry_run: bool,
}

fn instant(text: &str) -> Result<Micros, String> {
    let day = Period::parse_day(text).map(Period::start);
    day.or_else(|_| text.parse()).map_err(|_| "write a day or an instant, such as 2026-11-24".to_owned())
}

/// Prices events again.
pub(super) fn rerate(args: RerateArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let RerateArgs { from, to, tenant, model, dry_run } = args;
    let scope = Scope { from, to: to.unwrap_or_else(|| SystemClock::new().now()), tenant, model };
    let rerated = with_ledger(config, async |desk| {
        if let Some(tenant) = &scope.tenant {
            // A mistyped tenant is an error, not a tenant without events.
            desk.admin.tenant(tenant).await?;
        }
        let mut progress = Progress::new(Elsewhere::Lines);
        let mut tell = |events| progress.tell_of_many("rerate", events, "events");
        let act = Act::by(author(), SystemClock::new().now());
        let rerated = desk.rerating.run(&scope, Some(&act).filter(|_| !dry_run), &mut tell).await;
        progress.end();
        rerated.map_err(|error| Failure::from(error.to_string()))
    })?;
    let total = total(&rerated)?;
    output.print(&document(&rerated, &total, dry_run), || text(&rerated, &total, dry_run))
}

fn total(rerated: &Rerated) -> Result<Line, Failure> {
    let mut total = Line::default();
    let too_large = |error: crate::domain::money::MoneyError| Failure::from(error.to_string());
    for line in rerated.models.values() {
        total.events = total.events.saturating_add(line.events);
        total.corrected = total.corrected.saturating_add(line.corrected);
        total.unexplained = total.unexplained.saturating_add(line.unexplained);
        total.unpriced = total.unpriced.saturating_add(line.unpriced);
        total.cost_before = total.cost_before.plus(line.cost_before).map_err(too_large)?;
        total.cost_after = total.cost_after.plus(line.cost_after).map_err(too_large)?;
        total.billable_before = total.billable_before.plus(line.billable_before).map_err(too_large)?;
        total.billable_after = total.billable_after.plus(line.billable_after).map_err(too_large)?;
    }
    Ok(total)
}

fn difference(after: PicoUsd, before: PicoUsd) -> PicoUsd {
    after.minus(before).unwrap_or_default()
}

fn line_document(line: &Line) -> Value {
    let both = |before: PicoUsd, after: PicoUsd| {
        let difference = difference(after, before);
        json!({"before": Usd(before), "after": Usd(after), "difference": Usd(difference)})
    };
    json!({
        "events": line.events, "corrected": line.corrected, "unexplained": line.unexplained, "unpriced": line.unpriced,
        "cost_usd": both(line.cost_before, line.cost_after),
        "billable_usd": both(line.billable_before, line.billable_after),
    })
}

fn document(rerated: &Rerated, total: &Line, dry_run: bool) -> Value {
    let of_model = |((provider, model), line): (&(String, String), &Line)| {
        let mut document = line_document(line);
        if let Some(members) = document.as_object_mut() {
            members.insert("provider".to_owned(), provider.as_str().into());
            members.insert("model".to_owned(), model.as_str().into());
        }
        document
    };
    let models: Vec<Value> = rerated.models.iter().map(of_model).collect();
    json!({
        "ok": true, "dry_run": dry_run, "price_version": rerated.version, "total": line_document(total), "models": models,
    })
}

fn text(rerated: &Rerated, total: &Line, dry_run: bool) -> String {
    let row = |provider: &str, model: &str, line: &Line| {
        [
            provider.to_owned(),
            model.to_owned(),
            line.events.to_string(),
            line.corrected.to_string(),
            line.cost_before.to_string(),
            line.cost_after.to_string(),
            difference(line.cost_after, line.cost_before).to_string(),
            difference(line.billable_after, line.billable_before).to_string(),
        ]
    };
    let models = rerated.models.iter();
    let mut rows: Vec<_> = models.map(|((provider, model), line)| row(provider, model, line)).collect();
    rows.push(row("total", "", total));
    let head = ["PROVIDER", "MODEL", "EVENTS", "CORRECTED", "USD BEFORE", "USD AFTER", "DIFFERENCE", "BILLED"];
    let mut text = format!("Prices of version {}\n\n{}\n", rerated.version, table(head, &rows));
    for (count, why) in [
        (total.unpriced, "have no price now and keep what they cost"),
        (total.unexplained, "were not priced from their row alone and keep what they cost"),
    ] {
        if count > 0 {
            text.push_str(&format!("{count} events {why}.\n"));
        }
    }
    let done = if dry_run { "would be written" } else { "were written" };
    text + &format!("{} corrections {done}.", total.corrected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_day_or_an_instant() {
        let day: Micros = "2026-11-24T00:00:00Z".parse().unwrap();
        assert_eq!(instant("2026-11-24"), Ok(day));
        assert_eq!(instant("2026-11-24T10:00:00Z"), Ok(Micros(day.0 + 36_000_000_000)));
        assert!(instant("yesterday").is_err() && instant("2026-11").is_err());
    }
}
