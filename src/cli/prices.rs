//! Prices, from a shell: what is charged, since when, why a call cost what it did, and what another file would change.
//! List, show, diff and explain go by the book that is in force for the ledger, where one is.
//!
//! May use: `boot`, `config` for price files, `edge` for money in documents, the ledger by [`with_ledger`].

mod billing;
mod books;
mod corrections;
#[cfg(test)]
#[path = "prices/golden.rs"]
mod documents;
mod rerate;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use serde::Serialize;

use crate::adapters::system_clock::SystemClock;
use crate::boot;
use crate::config::{Config, price_file};
use crate::domain::event::{UsageEvent, UsageSource};
use crate::domain::ids::EventId;
use crate::domain::money::PicoUsd;
use crate::domain::price::rates::{Kind, Rates, Unit};
use crate::domain::price::tariff::{Tariff, Version};
use crate::domain::price::{Explanation, ModelPrices, PriceBook, PriceRow, Priced};
use crate::domain::time::{Micros, Period};
use crate::edge::api::wire::Usd;
use crate::edge::api::wire::prices::{EntryBody, LineBody};
use crate::ports::clock::Clock;
use crate::providers;

use self::billing::Billing;
use self::corrections::{History, HistoryBody};
use super::Failure;
use super::accounts::{Access, Desk, with_ledger};
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
            if let Some(unknown) = provider.as_deref().filter(|provider| !known_provider(provider)) {
                let known: Vec<_> = providers::ALL.iter().map(|provider| provider.id().to_string()).collect();
                return Err(format!("{unknown} is no provider; there are {}", known.join(" and ")).into());
            }
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

fn known_provider(name: &str) -> bool {
    providers::ALL.iter().any(|provider| provider.id().as_str() == name)
}

fn day(text: &str) -> Result<Micros, String> {
    Period::parse_day(text).map(Period::start).map_err(|error| error.to_string())
}

fn read(path: &Path) -> Result<PriceBook, Failure> {
    let failed = |reason: String| Failure::from(format!("{}: {reason}", path.display()));
    let bytes =
        std::fs::read(path).map_err(|error| failed(format!("it cannot be read: {error}: name a price file")))?;
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
        let head = ["PROVIDER", "MODEL", "TIER", "ABOVE", "INPUT", "CACHED", "OUTPUT", "OTHER KINDS", "SOURCE", ""];
        format!(
            "Dollars for a million tokens, or for one of what is charged beside them, version {version}\n\n{}",
            table(head, &rows)
        )
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

/// `audio_hour 0.36, cache_write 2.5`: dollars for a million tokens, or one of anything else, of each kind that has a price
/// and no column of its own.
fn other_kinds(rates: &Rates) -> String {
    let told = |(kind, price): (Kind, Option<i64>)| Some(format!("{} {}", kind.as_str(), shown(kind.unit(), price?)));
    let others =
        rates.kinds().into_iter().filter(|(kind, _)| !matches!(kind, Kind::Input | Kind::Cached | Kind::Output));
    others.filter_map(told).collect::<Vec<_>>().join(", ")
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
            other_kinds(rates),
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
    /// What it corrects, or what corrects it.
    #[serde(flatten)]
    history: HistoryBody,
    remarks: Vec<&'static str>,
}

fn explain(
    id: EventId,
    file: Option<&Path>,
    configured: PriceBook,
    config: &Config,
    output: Output,
) -> Result<(), Failure> {
    let (history, event, kept, plan) = with_ledger(config, Access::Reads, async |desk| {
        let history = history(desk, id).await?;
        let event = history.standing()?;
        let kept = desk.admin.price_book(list_of(&event)).await?;
        let version = Version::parse(&event.price_version);
        let own = match version.and_then(|version| version.own) {
            Some(own) => desk.admin.price_book(own).await?,
            None => None,
        };
        let plan = billing::pricing(version, own)?;
        Ok((history, event, kept, plan))
    })?;
    let book = book_of(&event, file, kept, configured)?;
    let document = explained_document(&event, &Tariff::new(Arc::new(book), plan), &history)?;
    let differs = document.differs(history.is_of_correction());
    output.print(&document, || explained_text(&document))?;
    if differs { Err("the lines do not add up to what was booked".to_owned().into()) } else { Ok(()) }
}

impl ExplainedDocument {
    /// Whether something else was booked. A correction may be of what is billed alone, by a plan's price of a model that the
    /// list has none for any more: its cost stays what it was.
    fn differs(&self, is_of_correction: bool) -> bool {
        let pico = |usd: &Option<Usd>| usd.as_ref().map(|usd| usd.0);
        let (computed, booked) = (pico(&self.computed_cost_usd), pico(&self.booked_cost_usd));
        let stayed = is_of_correction && computed.is_none();
        (computed != booked && !stayed) || self.billing.differs()
    }
}

/// The event of that id, or the one that it corrects, with all corrections.
async fn history(desk: &Desk, asked: EventId) -> Result<History, Failure> {
    let found = desk.reports.event(None, asked).await?;
    let found = found
        .ok_or_else(|| Failure::from(format!("there is no event {asked} in this ledger: see GET /billing/events")))?;
    let event = match found.corrects {
        None => found,
        Some(corrected) => {
            let event = desk.reports.event(None, corrected.event).await?;
            let gone = || format!("it corrects event {}, which is no longer in this ledger", corrected.event);
            event.ok_or_else(|| Failure::from(gone()))?
        }
    };
    let corrections = desk.reports.corrections(event.id).await?;
    Ok(History { asked, event, corrections })
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

/// `event` is as the history has it standing.
fn explained_document(event: &UsageEvent, tariff: &Tariff, history: &History) -> Result<ExplainedDocument, Failure> {
    let too_large = |error: crate::domain::money::MoneyError| Failure::from(error.to_string());
    let (model, at) = (tariff.priced_as(event.named(), event.requested_at), event.requested_at);
    let explained = tariff.list().explain(event.provider.as_str(), model, event.service_tier, event.used(), at);
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
        event_id: history.asked.to_string(),
        provider: event.provider.to_string(),
        model: event.model.to_string(),
        service_tier: event.service_tier.as_str(),
        price_version: event.price_version.to_string(),
        entry,
        lines,
        computed_cost_usd: computed.map(Usd),
        booked_cost_usd: event.cost.map(Usd),
        billing: Billing::of(event, tariff)?,
        priced: event.priced.as_str(),
        history: history.body()?,
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
    // Its kind names the unit that the price is for, and not the one that is counted.
    let quantity = if line.unit == "millisecond" { format!("{} ms", line.quantity) } else { line.quantity.to_string() };
    [line.kind.to_owned(), quantity, price, one.to_owned(), shown_cost(&line.cost_usd)]
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
    text.push_str(&document.history.head());
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
    rows.extend(document.history.rows(event_id));
    writeln!(text, "\n{}", table(["", "QUANTITY", "PRICE", "FOR A", "USD"], &rows)).unwrap_or_default();
    text + &document.remarks.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::Correction;
    use crate::domain::price::tariff::{Charged, Pricing};
    use crate::domain::tokens::Tokens;
    use crate::metering::fakes;

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

    #[test]
    fn every_kind_that_has_a_price_is_shown() {
        let rates = Rates {
            input: Some(150_000),
            output: Some(600_000),
            cache_write: Some(2_500_000),
            output_audio: Some(80_000_000),
            audio_hour: Some(360_000_000_000),
            ..Rates::default()
        };
        assert_eq!(other_kinds(&rates), "cache_write 2.5, output_audio 80, audio_hour 0.36");
    }

    #[test]
    fn a_correction_and_what_it_corrects_are_explained() {
        let rows = |input: i64| {
            format!(
                r#"{{"provider":"openai","model":"m","match":["m"],"rates":[
                {{"tier":"standard","input":{input},"output":0}}]}}"#
            )
        };
        let tariffs = [10, 7, 9].map(|input| Tariff::new(Arc::new(book(&rows(input))), Pricing::default()));
        let event = fakes::event("acme", 1, "openai", "m", "2026-11-24T10:00:00Z");
        let event = UsageEvent { tokens: Tokens { prompt: 100, ..Tokens::default() }, ..event };
        let priced = |tariff: &Tariff| {
            let Charged { charge, billable, .. } =
                tariff.charge(event.named(), event.service_tier, event.used(), event.requested_at);
            let (cost, price_version) = (charge.cost, tariff.version());
            UsageEvent { cost, billable, priced: charge.priced, price_version, ..event.clone() }
        };
        let booked = priced(&tariffs[0]);
        let correct = |after: &UsageEvent, tariff: &Tariff, difference: i128| {
            let (cost, billable) = (PicoUsd(difference), PicoUsd(difference));
            let (priced, price_version) = (Priced::Priced, tariff.version());
            booked.corrected(Correction {
                after: after.id,
                priced_before: priced,
                priced,
                cost,
                billable,
                price_version,
            })
        };
        let first = correct(&booked, &tariffs[1], -300);
        let second = correct(&first, &tariffs[2], 200);
        let explained = |asked: &UsageEvent, tariff: &Tariff| {
            let corrections = vec![first.clone(), second.clone()];
            let history = History { asked: asked.id, event: booked.clone(), corrections };
            let standing = history.standing().unwrap();
            assert_eq!(standing.price_version, tariff.version());
            let document = explained_document(&standing, tariff, &history).unwrap();
            assert!(!document.differs(history.is_of_correction()), "{}", explained_text(&document));
            (serde_json::to_string(&document).unwrap(), explained_text(&document))
        };
        let (document, text) = explained(&booked, &tariffs[0]);
        assert!(document.contains(r#""corrects":null,"before":null"#), "{document}");
        assert!(document.contains(r#""corrected_cost_usd":0.0000000009,"#), "{document}");
        assert!(text.contains(&first.id.to_string()) && text.contains(&second.id.to_string()), "{text}");
        assert!(text.contains("with its corrections"), "{text}");

        let (document, text) = explained(&second, &tariffs[2]);
        assert!(document.contains(&format!(r#""corrects":"{}""#, booked.id)), "{document}");
        assert!(document.contains(r#""computed_cost_usd":0.0000000009,"#), "{document}");
        assert!(document.contains(r#""priced":"priced","cost_usd":0.0000000007,"#), "{document}");
        assert!(text.contains("A correction of event") && text.contains("0.0000000002"), "{text}");
        let (document, _) = explained(&first, &tariffs[1]);
        assert!(document.contains(r#""priced":"priced","cost_usd":0.000000001,"#), "{document}");
    }
}
