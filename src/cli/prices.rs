//! Prices, from a shell: what is charged, since when, why a call cost what it did, and what another file would change.
//! List, show, diff and explain go by the book that is in force for the ledger, where one is.
//!
//! May use: `boot`, `config` for price files, `edge` for money in documents, the ledger by [`with_ledger`].

mod billing;
mod books;
#[cfg(test)]
#[path = "prices/golden.rs"]
mod documents;
mod rerate;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Serialize;

use crate::adapters::system_clock::SystemClock;
use crate::boot;
use crate::config::{Config, price_file};
use crate::domain::event::{UsageEvent, UsageSource};
use crate::domain::ids::EventId;
use crate::domain::money::PicoUsd;
use crate::domain::price::rates::{Kind, Rates, Unit};
use crate::domain::price::tariff::Version;
use crate::domain::price::{Explanation, ModelPrices, PriceBook, PriceRow, Priced};
use crate::domain::time::{Micros, Period};
use crate::edge::api::wire::Usd;
use crate::edge::api::wire::prices::{EntryBody, LineBody};
use crate::ports::clock::Clock;

use self::billing::{Billing, OfPlan};
use super::Failure;
use super::accounts::with_ledger;
use super::output::{Output, complain, table};

/// Prices are shown for a million tokens, as providers publish them.
const TOKENS_SHOWN: u64 = 1_000_000;

pub(super) const EXAMPLES: &str = "\
Examples:
  tollgate prices show gpt-4o-mini
  tollgate prices show gemini-2.5-pro --at 2027-01-01
  tollgate prices explain 019ac2f0-5b1e-7c3a-9d8e-0f1e2d3c4b5a
  tollgate prices diff contract-prices.json
  tollgate prices update --from contract-prices.json --yes";

/// What `tollgate prices` can do.
#[derive(Subcommand)]
pub(super) enum PricesCommand {
    /// Lists the prices of all models, in dollars for a million tokens.
    List {
        /// Only of this provider: openai or gemini.
        #[arg(long)]
        provider: Option<String>,
        /// As they hold on this day (UTC), such as 2026-11-24; today without it.
        #[arg(long, value_name = "DATE", value_parser = day)]
        at: Option<Micros>,
    },
    /// Shows what a call to a model is charged by.
    #[command(after_help = "Example:\n  tollgate prices show gpt-4o-mini --at 2026-10-01")]
    Show {
        /// The model as requests or answers name it.
        model: String,
        /// As they hold on this day (UTC), such as 2026-11-24; today without it.
        #[arg(long, value_name = "DATE", value_parser = day)]
        at: Option<Micros>,
    },
    /// Explains what an event cost, line by line; exit code 1 when the lines do not add up to what was booked.
    #[command(after_help = "Example:\n  tollgate prices explain 019ac2f0-5b1e-7c3a-9d8e-0f1e2d3c4b5a")]
    Explain {
        /// The event's id: `x-tollgate-request-id` of the answer.
        event: EventId,
        /// The price file it was priced by, where that is neither the built-in nor the configured one.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Compares a price file with the prices in effect.
    #[command(after_help = "Example:\n  tollgate prices diff contract-prices.json")]
    Diff {
        /// The price file.
        file: PathBuf,
    },
    /// Puts a price book in force for all gateways of the ledger, live.
    #[command(after_help = books::UPDATE_HELP)]
    Update(books::UpdateArgs),
    /// Lists the price books that the ledger has: every one that was ever in force.
    Books,
    /// Prices the events of a time again, by the prices in force, and writes the differences as corrections.
    #[command(after_help = rerate::HELP)]
    Rerate(rerate::RerateArgs),
}

/// Runs `tollgate prices`.
pub(super) fn prices(command: PricesCommand, config: &Config, output: Output) -> Result<(), Failure> {
    let configured = boot::prices(config)?;
    let book = match command {
        PricesCommand::Update(args) => return books::update(&args, configured, config, output),
        PricesCommand::Books => return books::books(config, output),
        PricesCommand::Rerate(args) => return rerate::rerate(args, config, output),
        PricesCommand::Explain { event, file } => return explain(event, file.as_deref(), configured, config, output),
        PricesCommand::List { .. } | PricesCommand::Show { .. } | PricesCommand::Diff { .. } => {
            effective(configured, config)
        }
    };
    let today = || SystemClock::new().now();
    match command {
        PricesCommand::List { provider, at } => {
            let of = |model: &&ModelPrices| provider.as_deref().is_none_or(|wanted| *model.provider == *wanted);
            list(&book, &book.models().filter(of).collect::<Vec<_>>(), at.unwrap_or_else(today), output)
        }
        PricesCommand::Show { model, at } => list(&book, &find(&book, &model)?, at.unwrap_or_else(today), output),
        PricesCommand::Diff { file } => books::diff(&book, &file, output),
        PricesCommand::Update(_) | PricesCommand::Books | PricesCommand::Rerate(_) | PricesCommand::Explain { .. } => {
            Ok(())
        }
    }
}

/// The book that is in force for the ledger; that of the configuration where none was put there, or the ledger does not
/// say, of which a line on stderr tells.
fn effective(configured: PriceBook, config: &Config) -> PriceBook {
    match boot::active_prices(config) {
        Ok(None) => configured,
        Ok(Some((_, book))) => book,
        Err(error) => {
            let told =
                format!("the prices are those of the configuration; whether others are in force is not known: {error}");
            complain(&[told]);
            configured
        }
    }
}

fn day(text: &str) -> Result<Micros, String> {
    Period::parse_day(text).map(Period::start).map_err(|error| error.to_string())
}

fn read(path: &Path) -> Result<PriceBook, Failure> {
    let failed = |reason: String| Failure::from(format!("{}: {reason}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    price_file::parse(&bytes).map_err(|error| failed(error.to_string()))
}

fn find<'a>(book: &'a PriceBook, model: &str) -> Result<Vec<&'a ModelPrices>, Failure> {
    let mut providers: Vec<&str> = book.models().map(|model| &*model.provider).collect();
    providers.dedup();
    let mut found: Vec<&ModelPrices> = Vec::new();
    for provider in providers {
        let entry = book.model(provider, model);
        found.extend(entry.filter(|entry| !found.iter().any(|known| std::ptr::eq(*known, *entry))));
    }
    if found.is_empty() {
        return Err(format!("{model} has no price: calls to it are booked as unpriced; add it to prices.file").into());
    }
    Ok(found)
}

#[derive(Serialize)]
struct BookDocument<'a> {
    version: &'a str,
    models: Vec<ModelDocument<'a>>,
}

#[derive(Serialize)]
struct ModelDocument<'a> {
    provider: &'a str,
    model: &'a str,
    unverified: Option<&'a str>,
    prices: Vec<RowDocument>,
}

#[derive(Serialize)]
struct RowDocument {
    tier: &'static str,
    from: Option<String>,
    above: u64,
    list: &'static str,
    source: Option<String>,
    picodollars_per_token: BTreeMap<&'static str, Option<i64>>,
    /// For an hour of audio, or one of anything else that is charged beside tokens.
    picodollars_per_unit: BTreeMap<&'static str, Option<i64>>,
}

/// Prints entries as they hold at an instant.
fn list(book: &PriceBook, models: &[&ModelPrices], at: Micros, output: Output) -> Result<(), Failure> {
    let version = book.version();
    let document =
        BookDocument { version: &version, models: models.iter().map(|model| model_document(model, at)).collect() };
    output.print(&document, || {
        let rows: Vec<_> = models.iter().flat_map(|model| list_rows(model, at)).collect();
        let head = ["PROVIDER", "MODEL", "TIER", "ABOVE", "INPUT", "CACHED", "OUTPUT", "BESIDE TOKENS", "SOURCE", ""];
        format!("Dollars for a million tokens, version {version}\n\n{}", table(head, &rows))
    })
}

fn model_document(model: &ModelPrices, at: Micros) -> ModelDocument<'_> {
    let row = |row: &PriceRow| RowDocument {
        tier: row.tier.as_str(),
        from: row.from.map(|from| from.to_string()),
        above: row.above,
        list: model.origin.of(row.tier).0.as_str(),
        source: model.origin.of(row.tier).1.map(ToString::to_string),
        picodollars_per_token: kinds(&row.rates, true).collect(),
        picodollars_per_unit: kinds(&row.rates, false).collect(),
    };
    ModelDocument {
        provider: &model.provider,
        model: &model.name,
        unverified: model.unverified.as_deref(),
        prices: in_force(model, at).into_iter().map(row).collect(),
    }
}

/// Every kind of token, or of what is charged beside tokens, and its price.
fn kinds(rates: &Rates, of_tokens: bool) -> impl Iterator<Item = (&'static str, Option<i64>)> {
    let wanted = rates.kinds().into_iter().filter(move |(kind, _)| (kind.unit() == Unit::Token) == of_tokens);
    wanted.map(|(kind, price)| (kind.as_str(), price))
}

/// `audio_hour 0.36, request 0.01`: dollars for one of each that has a price.
fn beside_tokens(rates: &Rates) -> String {
    let told = |(kind, price): (Kind, Option<i64>)| Some(format!("{} {}", kind.as_str(), shown(kind.unit(), price?)));
    let beside = rates.kinds().into_iter().filter(|(kind, _)| kind.unit() != Unit::Token);
    beside.filter_map(told).collect::<Vec<_>>().join(", ")
}

/// The rows that are in force at an instant, one for each tier and step.
fn in_force(model: &ModelPrices, at: Micros) -> Vec<&PriceRow> {
    let mut rows: Vec<&PriceRow> = Vec::new();
    for row in &model.rows {
        let held = model.row(row.tier, row.above.saturating_add(1), at);
        rows.extend(held.filter(|held| !rows.iter().any(|known| std::ptr::eq(*known, *held))));
    }
    rows
}

fn list_rows(model: &ModelPrices, at: Micros) -> Vec<[String; 10]> {
    let optional = |price: Option<i64>| price.map_or_else(|| "-".to_owned(), |price| shown(Unit::Token, price));
    let row = |PriceRow { tier, above, rates, .. }: &PriceRow| {
        [
            model.provider.to_string(),
            model.name.to_string(),
            tier.as_str().to_owned(),
            above.to_string(),
            optional(rates.input),
            optional(rates.cached),
            optional(rates.output),
            beside_tokens(rates),
            model.origin.told(*tier),
            if model.unverified.is_some() { "unverified".to_owned() } else { String::new() },
        ]
    };
    in_force(model, at).into_iter().map(row).collect()
}

/// A price in dollars: for a million tokens, or for one of anything else.
fn shown(unit: Unit, pico: i64) -> String {
    let (many, _) = sold_by(unit.as_str());
    for_so_many(many, pico)
}

/// How many of a unit prices are shown for, and what to call them.
fn sold_by(unit: &str) -> (u64, &str) {
    match unit {
        "token" => (TOKENS_SHOWN, "million"),
        "millisecond" => (1, "hour"),
        unit => (1, unit),
    }
}

fn for_so_many(many: u64, pico: i64) -> String {
    PicoUsd::of(many, pico).map_or_else(|error| error.to_string(), |price| price.to_string())
}

/// Why an event cost what it did.
#[derive(Serialize)]
struct ExplainedDocument {
    event_id: String,
    provider: String,
    model: String,
    service_tier: &'static str,
    price_version: String,
    /// The entry of the price file, and the row of it; null where the model had no price.
    entry: Option<EntryBody>,
    lines: Vec<LineBody>,
    computed_cost_usd: Option<Usd>,
    booked_cost_usd: Option<Usd>,
    /// What the tenant is billed for it.
    billing: Billing,
    priced: &'static str,
    remarks: Vec<&'static str>,
}

fn explain(
    id: EventId,
    file: Option<&Path>,
    configured: PriceBook,
    config: &Config,
    output: Output,
) -> Result<(), Failure> {
    let (event, kept, plan) = with_ledger(config, async |desk| {
        let event = desk.reports.event(None, id).await?;
        let event = event
            .ok_or_else(|| Failure::from(format!("there is no event {id} in this ledger: see GET /billing/events")))?;
        let kept = desk.admin.price_book(list_of(&event)).await?;
        let version = Version::parse(&event.price_version);
        let own = match version.and_then(|version| version.own) {
            Some(own) => desk.admin.price_book(own).await?,
            None => None,
        };
        let plan = OfPlan::of(version, own)?;
        Ok((event, kept, plan))
    })?;
    let book = book_of(&event, file, kept, configured)?;
    let document = explained_document(&event, &book, &plan)?;
    let differs =
        document.computed_cost_usd.as_ref().map(|usd| usd.0) != document.booked_cost_usd.as_ref().map(|usd| usd.0);
    let differs = differs || document.billing.differs();
    output.print(&document, || explained_text(&document))?;
    if differs { Err("the lines do not add up to what was booked".to_owned().into()) } else { Ok(()) }
}

/// The version of the list that an event was priced by.
fn list_of(event: &UsageEvent) -> &str {
    Version::parse(&event.price_version).map_or(&*event.price_version, |version| version.list)
}

/// The prices of the version that the event names: the ledger has every book that was in force since it keeps them.
fn book_of(
    event: &UsageEvent,
    file: Option<&Path>,
    kept: Option<PriceBook>,
    configured: PriceBook,
) -> Result<PriceBook, Failure> {
    let is_it = |book: &PriceBook| *book.version() == *list_of(event);
    let known = match file {
        Some(file) => Some(read(file)?),
        None => kept.or_else(|| Some(configured).filter(is_it)).or_else(|| price_file::builtin().ok()),
    };
    known.filter(is_it).ok_or_else(|| {
        format!("it was priced by version {}, which is another: name its file with --file FILE", list_of(event)).into()
    })
}

fn explained_document(event: &UsageEvent, list: &PriceBook, plan: &OfPlan) -> Result<ExplainedDocument, Failure> {
    let too_large = |error: crate::domain::money::MoneyError| Failure::from(error.to_string());
    let model = plan.priced_as(event, list);
    let explained = billing::explained(list, event, model);
    // What was not charged, such as a failed call, has no lines whatever the model costs.
    let charged = explained.as_ref().filter(|_| event.priced != Priced::Free && event.priced != Priced::Unpriced);
    let lines = charged.map(LineBody::all).transpose().map_err(too_large)?.unwrap_or_default();
    let computed = match (charged, event.priced) {
        (Some(explained), _) => Some(explained.bill.total().map_err(too_large)?),
        (None, Priced::Free) => Some(PicoUsd::ZERO),
        (None, _) => None,
    };
    let entry = explained.as_ref().map(EntryBody::from);
    Ok(ExplainedDocument {
        event_id: event.id.to_string(),
        provider: event.provider.to_string(),
        model: event.model.to_string(),
        service_tier: event.service_tier.as_str(),
        price_version: event.price_version.to_string(),
        entry,
        lines,
        computed_cost_usd: computed.map(Usd),
        booked_cost_usd: event.cost.map(Usd),
        billing: Billing::of(event, plan, list)?,
        priced: event.priced.as_str(),
        remarks: remarks(event, explained.as_ref(), model),
    })
}

/// What has to be known of the cost beside its lines.
fn remarks(event: &UsageEvent, explained: Option<&Explanation<'_>>, priced_as: &str) -> Vec<&'static str> {
    let mut remarks = Vec::new();
    let mut remark = |is_so: bool, text| remarks.extend(is_so.then_some(text));
    remark(
        event.source == UsageSource::Estimate,
        "The tokens are an estimate: the provider did not say what it charged.",
    );
    let Some(Explanation { model, is_own_tier, bill, .. }) = explained else {
        remark(true, "The model has no price at that date.");
        return remarks;
    };
    remark(event.priced == Priced::Unpriced, "Nothing of what was charged has a price here.");
    remark(event.priced == Priced::Free, "Nothing was charged.");
    let is_answered = priced_as == &*event.model;
    remark(
        !is_answered,
        "The model that answered has no price at that date: it is priced as the one that was asked for.",
    );
    remark(!is_own_tier, "The tier has no prices: the standard ones were taken.");
    remark(model.unverified.is_some(), "The price of this model could not be verified.");
    remark(!bill.complete, "Something of it has no price of its own, or the counts contradict each other.");
    let is_exact = is_answered && *is_own_tier && model.unverified.is_none() && bill.complete;
    let beyond = event.priced == Priced::Incomplete && is_exact;
    remark(beyond, "Something was charged that no count says, such as storage or the use of a tool.");
    remarks
}

/// A line of a bill.
fn line_row(line: &LineBody) -> [String; 5] {
    let (many, one) = sold_by(line.unit);
    let price = line.picodollars.map_or_else(|| "unknown".to_owned(), |pico| for_so_many(many, pico));
    [line.kind.to_owned(), line.quantity.to_string(), price, one.to_owned(), shown_cost(&line.cost_usd)]
}

/// A line without a count.
fn sum_row(name: String, usd: &Option<Usd>) -> [String; 5] {
    [name, String::new(), String::new(), String::new(), shown_cost(usd)]
}

fn shown_cost(usd: &Option<Usd>) -> String {
    usd.as_ref().map_or_else(|| "unknown".to_owned(), |usd| usd.0.to_string())
}

fn explained_text(document: &ExplainedDocument) -> String {
    let ExplainedDocument { event_id, provider, model, service_tier, price_version, entry, lines, .. } = document;
    let mut text =
        format!("Event {event_id}: {provider} {model}, tier {service_tier}, prices of version {price_version}\n");
    if let Some(EntryBody { model, tier, from, above, list, source }) = entry {
        let from = from.as_deref().map_or_else(String::new, |from| format!(", from {from}"));
        let above = if *above > 0 { format!(", for input above {above} tokens") } else { String::new() };
        // Writing to a String does not fail.
        let source = source.as_ref().map_or_else(String::new, |source| format!(" ({source})"));
        writeln!(text, "Priced as {model}, tier {tier}{from}{above}; {list}{source}").unwrap_or_default();
    }
    let mut rows: Vec<_> = lines.iter().map(line_row).collect();
    rows.push(sum_row("total".to_owned(), &document.computed_cost_usd));
    rows.push(sum_row(format!("booked ({})", document.priced), &document.booked_cost_usd));
    rows.extend(document.billing.rows());
    writeln!(text, "\n{}", table(["", "QUANTITY", "PRICE", "FOR A", "USD"], &rows)).unwrap_or_default();
    text + &document.remarks.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(models: &str) -> PriceBook {
        price_file::parse(format!(r#"{{"format":1,"base":"none","models":[{models}]}}"#).as_bytes()).unwrap()
    }

    #[test]
    fn prices_are_shown_for_a_million_tokens() {
        assert_eq!(shown(Unit::Token, 150_000), "0.15");
        assert_eq!(shown(Unit::Token, 2_500_000), "2.5");
        assert_eq!(shown(Unit::Hour, 360_000_000_000), "0.36");
    }

    #[test]
    fn one_row_for_each_tier_and_step_is_in_force() {
        let book = book(
            r#"{"provider":"gemini","model":"m","match":["m"],"rates":[{"tier":"standard","input":1},
            {"tier":"standard","from":"2027-01-01","input":2},{"tier":"standard","above":200,"input":3},
            {"tier":"batch","input":4}]}"#,
        );
        let inputs = |at: &str| -> Vec<i64> {
            let model = book.model("gemini", "m").unwrap();
            in_force(model, day(at).unwrap()).iter().filter_map(|row| row.rates.input).collect()
        };
        assert_eq!(inputs("2026-12-31"), [1, 3, 4]);
        // The new list of prices has no step any more.
        assert_eq!(inputs("2027-01-01"), [2, 4]);
    }
}
