//! `tollgate prices rerate`: events priced again by the prices in force.
//!
//! May use: as [`super`].

use clap::Args;
use serde_json::{Value, json};

use crate::adapters::system_clock::SystemClock;
use crate::boot;
use crate::config::Config;
use crate::domain::ids::TenantId;
use crate::domain::money::PicoUsd;
use crate::domain::plan::Plan;
use crate::domain::price::tariff::{Percent, Pricing};
use crate::domain::time::{Micros, Period};
use crate::edge::api::wire::Usd;
use crate::metering::admin::prices::PricesView;
use crate::metering::rerate::{Line, Rerated, Scope};
use crate::metering::snapshot::Plans;
use crate::ports::clock::Clock;
use crate::ports::prices::BookListing;
use crate::ports::tenants::Act;

use super::super::accounts::{Access, author, with_ledger};
use super::super::output::{Output, ask, table};
use super::super::progress::{Elsewhere, Progress};
use super::Failure;

/// What `tollgate prices rerate --help` ends with.
pub(super) const HELP: &str = "\
Each event is priced by the prices in force: with its own tier, tokens and quantities, and by the dates that held when it was \
admitted; what is billed goes by the plan that its tenant was on then, as that plan is now. No event is changed: where a cost \
differs, one signed row with the difference is written, which counts in the day and month of the event, and one entry of the \
audit log before the first of them. Done twice it does nothing more. It runs beside a gateway that serves. Cost budgets go on from what they have counted.

What would be written is shown with the price book and the plans that say so, and then asked for. Both are those of this ledger \
where they were put in force for all gateways, else those of the configuration that this command was given: give it that of the \
gateways (--config). Prices that no gateway of this ledger ever had are refused.

Left as they are: events that have no price now, and sums of batches whose requests were priced one by one, or have prices now \
that depend on their length or number. Of two that run at once one writes, and the other ends and says so.

Examples:
  tollgate prices rerate --from 2026-11-01 --dry-run
  tollgate prices rerate --from 2026-11-01 --to 2026-12-01 --model gpt-4o-mini --yes --json";

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
    /// The version of the price book that is meant, where no book was put in force for all gateways and the ledger has more
    /// than one that may be.
    #[arg(long, value_name = "VERSION")]
    book: Option<String>,
    /// Only says what would be written.
    #[arg(long)]
    dry_run: bool,
    /// Asks nobody.
    #[arg(long)]
    yes: bool,
}

fn instant(text: &str) -> Result<Micros, String> {
    let day = Period::parse_day(text).map(Period::start);
    day.or_else(|_| text.parse()).map_err(|_| "write a day or an instant, such as 2026-11-24".to_owned())
}

/// By what events are priced again.
struct By {
    book: String,
    is_in_force: bool,
    /// The plans that bill anything but what providers charge: name, percent, version of its own prices.
    plans: Vec<(String, String, Option<String>)>,
}

/// Prices events again.
pub(super) fn rerate(args: RerateArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let RerateArgs { from, to, tenant, model, book, dry_run, yes } = args;
    let scope = Scope { from, to: to.unwrap_or_else(|| SystemClock::new().now()), tenant, model };
    if scope.from >= scope.to {
        return Err("--from is not before --to: no event is in between".to_owned().into());
    }
    let plans = boot::plans(config)?;
    let access = if dry_run { Access::Reads } else { Access::Changes };
    let (by, rerated, is_written) = with_ledger(config, access, async |desk| {
        if let Some(tenant) = &scope.tenant {
            // A mistyped tenant is an error, not a tenant without events.
            desk.admin.tenant(tenant).await?;
        }
        let view = desk.admin.prices().await?;
        let by = By::of(&view, &plans);
        if !dry_run {
            is_meant(&view, book.as_deref())?;
            for (plan, _, own) in &by.plans {
                let Some(own) = own else { continue };
                if desk.admin.price_book(own).await?.is_none() {
                    let why =
                        "which no gateway of this ledger has: give this command their configuration with --config";
                    return Err(format!("plan {plan} bills by prices of version {own}, {why}").into());
                }
            }
        }
        let run = async |dry_run: bool| {
            let mut progress = Progress::new(Elsewhere::Lines);
            let mut tell = |events| progress.tell_of_many("rerate", events, "events");
            let act = Act::by(author(), SystemClock::new().now());
            let rerated = desk.rerating.run(&scope, Some(&act).filter(|_| !dry_run), &mut tell).await;
            progress.end();
            rerated.map_err(|error| Failure::from(error.to_string()))
        };
        if !dry_run && yes {
            return Ok((by, run(false).await?, true));
        }
        let looked = run(true).await?;
        let total = total(&looked)?;
        let is_asked = !dry_run && total.corrected > 0;
        if !is_asked || !ask(&format!("{}\nWrite them?", text(&by, &looked, &total, false)))? {
            return Ok((by, looked, false));
        }
        Ok((by, run(false).await?, true))
    })?;
    let total = total(&rerated)?;
    let print = || text(&by, &rerated, &total, is_written);
    output.print(&document(&by, &rerated, &total, !is_written), print)
}

impl By {
    fn of(view: &PricesView, plans: &Plans) -> Self {
        let told = |plan: &Plan| {
            let Pricing { percent, own } = &plan.pricing;
            let own = own.as_ref().map(|own| own.version().to_string());
            let is_plain = own.is_none() && *percent == Percent::WHOLE;
            (!is_plain).then(|| (plan.name.to_string(), percent.to_string(), own))
        };
        let plans = plans.values().filter_map(|plan| told(plan)).collect();
        Self { book: view.version.clone(), is_in_force: view.active.is_some(), plans }
    }

    fn told(&self) -> String {
        let Self { book, is_in_force, plans } = self;
        let whose = if *is_in_force { "in force in all gateways" } else { "that of the configuration given here" };
        let mut text = format!("Prices of version {book}, {whose}\n");
        for (plan, percent, own) in plans {
            let own = own.as_ref().map_or_else(String::new, |own| format!(", and by prices of its own, version {own}"));
            text.push_str(&format!("Plan {plan} bills {percent} % of them{own}\n"));
        }
        text
    }
}

/// Whether the book that prices here is the gateways', as far as the ledger can tell: what was put in force for all is. Of
/// the configuration's it knows which it ever had, and not which of them is in use.
fn is_meant(view: &PricesView, told: Option<&str>) -> Result<(), Failure> {
    let version = view.version.as_str();
    if let Some(other) = told.filter(|told| *told != version) {
        let why = format!("this command prices by version {version}: put {other} in force (tollgate prices update)");
        return Err(format!("{why}, or name the gateways' configuration with --config").into());
    }
    if view.active.is_some() {
        return Ok(());
    }
    let Some(this) = view.kept.iter().find(|book| *book.version == *version) else {
        let why = "the price book of the configuration given here, never priced a call of this ledger";
        let fix = "name the gateways' configuration with --config, or put it in force with tollgate prices update";
        return Err(format!("version {version}, {why}: {fix}").into());
    };
    // One that came in the same moment as a book over it is known as its base alone.
    let is_over = |book: &&BookListing| book.base.as_deref() == Some(version) && book.added_at == this.added_at;
    let over = view.kept.iter().find(is_over);
    match over.filter(|_| told.is_none()) {
        None => Ok(()),
        Some(over) => Err(format!(
            "a gateway may price by version {}, which lies over version {version} of the configuration given here: name the \
             gateways' configuration with --config, or say --book {version}",
            over.version
        )
        .into()),
    }
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

fn document(by: &By, rerated: &Rerated, total: &Line, dry_run: bool) -> Value {
    let of_model = |((provider, model), line): (&(String, String), &Line)| {
        let mut document = line_document(line);
        if let Some(members) = document.as_object_mut() {
            members.insert("provider".to_owned(), provider.as_str().into());
            members.insert("model".to_owned(), model.as_str().into());
        }
        document
    };
    let models: Vec<Value> = rerated.models.iter().map(of_model).collect();
    let plan = |(name, percent, own): &(String, String, Option<String>)| json!({"plan": name, "price_percent": percent, "own_version": own});
    let plans: Vec<Value> = by.plans.iter().map(plan).collect();
    json!({
        "ok": true, "dry_run": dry_run, "price_version": rerated.version, "in_force": by.is_in_force, "plans": plans,
        "total": line_document(total), "models": models,
    })
}

fn text(by: &By, rerated: &Rerated, total: &Line, is_written: bool) -> String {
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
    let mut text = format!("{}\n{}\n", by.told(), table(head, &rows));
    for (count, why) in [
        (total.unpriced, "have no price now and keep what they cost"),
        (total.unexplained, "were not priced from their row alone and keep what they cost"),
    ] {
        if count > 0 {
            text.push_str(&format!("{count} events {why}.\n"));
        }
    }
    let done = if is_written { "were written" } else { "would be written" };
    text + &format!("{} corrections {done}.", total.corrected)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ports::prices::ActiveBook;

    #[test]
    fn a_time_is_a_day_or_an_instant() {
        let day: Micros = "2026-11-24T00:00:00Z".parse().unwrap();
        assert_eq!(instant("2026-11-24"), Ok(day));
        assert_eq!(instant("2026-11-24T10:00:00Z"), Ok(Micros(day.0 + 36_000_000_000)));
        assert!(instant("yesterday").is_err() && instant("2026-11").is_err());
    }

    #[test]
    fn a_book_that_may_not_be_the_gateways_is_refused() {
        let kept = |version: &str, base: Option<&str>| BookListing {
            version: version.into(),
            base: base.map(Into::into),
            added_at: Micros(0),
            added_by: "gateway".into(),
        };
        let view = |kept: Vec<BookListing>, is_active: bool| PricesView {
            version: "aaaaaaaaaaaa".into(),
            active: is_active.then(|| ActiveBook {
                version: "aaaaaaaaaaaa".into(),
                since: Micros(0),
                by: "cli".into(),
            }),
            configured: "aaaaaaaaaaaa".into(),
            kept,
        };
        let refused = |view: PricesView, told| is_meant(&view, told).err().map(|Failure(lines)| lines.concat());
        let (this, over) = (|| kept("aaaaaaaaaaaa", None), || kept("bbbbbbbbbbbb", Some("aaaaaaaaaaaa")));
        assert_eq!(refused(view(vec![this()], false), None), None);
        assert!(refused(view(vec![kept("cccccccccccc", None)], false), None).unwrap().contains("never priced a call"));
        assert!(refused(view(vec![over(), this()], false), None).unwrap().contains("say --book aaaaaaaaaaaa"));
        assert_eq!(refused(view(vec![over(), this()], false), Some("aaaaaaaaaaaa")), None);
        // It was there before the one over it.
        let later = BookListing { added_at: Micros(1), ..over() };
        assert_eq!(refused(view(vec![later, this()], false), None), None);
        assert!(refused(view(vec![this()], true), Some("bbbbbbbbbbbb")).unwrap().contains("put bbbbbbbbbbbb in force"));
        assert_eq!(refused(view(vec![over(), this()], true), None), None);
    }

    #[test]
    fn the_plans_that_bill_otherwise_are_told() {
        let plan = |name: &str, percent: &str| {
            let mut plan = Plan::unlimited(name.parse().unwrap());
            plan.pricing.percent = Percent::parse(percent).unwrap();
            (plan.name.clone(), Arc::new(plan))
        };
        let view =
            PricesView { version: "aaaaaaaaaaaa".into(), active: None, configured: String::new(), kept: Vec::new() };
        let by = By::of(&view, &Plans::from([plan("dear", "120"), plan("plain", "100")]));
        assert_eq!(
            by.told(),
            "Prices of version aaaaaaaaaaaa, that of the configuration given here\nPlan dear bills 120 % of them\n"
        );
    }
}
