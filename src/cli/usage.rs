//! Plans, prices and what was used, from a shell.
//!
//! May use: `boot`, `metering`, `edge` for the documents of the billing routes, `config`.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::adapters::system_clock::SystemClock;
use crate::boot;
use crate::config::Config;
use crate::domain::ids::TenantId;
use crate::domain::money::PicoUsd;
use crate::domain::plan::Plan;
use crate::domain::price::rates::Rates;
use crate::domain::price::{ModelPrices, PriceBook, ServiceTier};
use crate::domain::time::{Micros, Period, Window};
use crate::edge::api::wire::UsageBody;
use crate::metering::reports::{self, Totals, UsageReport};
use crate::ports::clock::Clock;

use super::Failure;
use super::accounts::with_ledger;
use super::output::{Output, table};

/// Prices are shown for a million tokens, as providers publish them.
const TOKENS_SHOWN: u64 = 1_000_000;

/// What `tollgate plan` can do.
#[derive(Subcommand)]
pub(super) enum PlanCommand {
    /// Lists all plans and their limits.
    List,
    /// Shows one plan.
    Show {
        /// The plan's name.
        plan: String,
    },
}

/// What `tollgate prices` can do.
#[derive(Subcommand)]
pub(super) enum PricesCommand {
    /// Lists the prices of all models, in dollars for a million tokens.
    List {
        /// Only of this provider: openai or gemini.
        #[arg(long)]
        provider: Option<String>,
    },
    /// Shows what a call to a model is charged by.
    #[command(after_help = "Example:\n  tollgate prices show gpt-4o-mini")]
    Show {
        /// The model as requests or answers name it.
        model: String,
    },
}

/// A kind of window.
#[derive(Clone, Copy, ValueEnum)]
enum Range {
    Day,
    Month,
}

/// What to sum up.
#[derive(Args)]
pub(super) struct UsageArgs {
    /// Of one tenant; of all without one.
    tenant: Option<TenantId>,
    /// A day or a month; what --date names, or the month that is running.
    #[arg(long)]
    range: Option<Range>,
    /// Which one: 2026-11-24 or 2026-11.
    #[arg(long)]
    date: Option<String>,
    /// By provider, model, key, user, kb, day or hour; several with commas.
    #[arg(long)]
    group_by: Option<String>,
}

/// Runs `tollgate plan`.
pub(super) fn plan(command: PlanCommand, config: &Config, output: Output) -> Result<(), Failure> {
    let row = |plan: &Plan| [plan.name.to_string(), limits_of(plan)];
    match command {
        PlanCommand::List => {
            let document: Vec<Value> = config.plans.iter().map(plan_document).collect();
            output.print(&document, || table(["PLAN", "LIMITS"], &config.plans.iter().map(row).collect::<Vec<_>>()))
        }
        PlanCommand::Show { plan } => {
            let found = config.plans.iter().find(|known| known.name.as_str() == plan).ok_or_else(|| {
                let known: Vec<&str> = config.plans.iter().map(|plan| plan.name.as_str()).collect();
                format!("there is no plan {plan}; the plans are {}", known.join(", "))
            })?;
            output.print(&plan_document(found), || table(["PLAN", "LIMITS"], &[row(found)]))
        }
    }
}

fn plan_document(plan: &Plan) -> Value {
    let limits: Vec<Value> = plan
        .limits
        .iter()
        .map(|limit| json!({"metric": limit.metric.as_str(), "window": limit.window.as_str(), "limit": limit.max}))
        .collect();
    json!({"plan": plan.name.as_str(), "limits": limits})
}

fn limits_of(plan: &Plan) -> String {
    let limits: Vec<String> = plan
        .limits
        .iter()
        .map(|limit| format!("{} {} a {}", limit.max, limit.metric.as_str(), limit.window.as_str()))
        .collect();
    if limits.is_empty() { "unlimited".to_owned() } else { limits.join(", ") }
}

/// Runs `tollgate usage`.
pub(super) fn usage(args: UsageArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let UsageArgs { tenant, range, date, group_by } = args;
    let period = period(range, date.as_deref(), SystemClock::new().now())?;
    let group_by = group_by.as_deref().map(reports::parse_group_by).transpose()?.unwrap_or_default();
    let report = with_ledger(config, async |desk| {
        if let Some(tenant) = &tenant {
            // A mistyped tenant is an error, not a tenant that used nothing.
            desk.admin.tenant(tenant).await?;
        }
        Ok(desk.reports.usage(tenant.clone(), period, group_by).await?)
    })?;
    let text = usage_text(&report);
    output.print(&UsageBody::from(report), || text)
}

fn period(range: Option<Range>, date: Option<&str>, now: Micros) -> Result<Period, Failure> {
    let day = |text| Period::parse_day(text).map_err(|error| Failure::from(format!("--date: {error}")));
    let month = |text| Period::parse_month(text).map_err(|error| Failure::from(format!("--date: {error}")));
    match (range, date) {
        (None | Some(Range::Month), None) => Ok(Window::Month.period(now)),
        (Some(Range::Day), None) => Ok(Window::Day.period(now)),
        (Some(Range::Day), Some(text)) => day(text),
        (Some(Range::Month), Some(text)) => month(text),
        (None, Some(text)) => day(text).or_else(|_| month(text)),
    }
}

fn usage_text(report: &UsageReport) -> String {
    let whose = report.tenant.as_ref().map_or("all tenants", TenantId::as_str);
    let mut rows = vec![sums_row("total".to_owned(), &report.totals)];
    if report.groups.is_empty() {
        rows.extend(report.providers.iter().map(|(provider, sums)| sums_row(provider.clone(), sums)));
    }
    rows.extend(report.groups.iter().map(|group| {
        let values: Vec<&str> = group.values.iter().map(|value| value.as_deref().unwrap_or("-")).collect();
        sums_row(values.join(" "), &group.sums)
    }));
    let head = ["", "REQUESTS", "CHATS", "FAILED", "PROMPT", "COMPLETION", "TOTAL", "USD", "UNPRICED", "ESTIMATED"];
    format!("Usage of {whose} in {} (UTC)\n\n{}", report.period, table(head, &rows))
}

fn sums_row(name: String, sums: &Totals) -> [String; 10] {
    [
        name,
        sums.requests.to_string(),
        sums.chats.to_string(),
        sums.failed_requests.to_string(),
        sums.tokens.prompt.to_string(),
        sums.tokens.completion.to_string(),
        sums.tokens.total().to_string(),
        sums.cost.to_string(),
        sums.unpriced_requests.to_string(),
        sums.estimated_requests.to_string(),
    ]
}

/// Runs `tollgate prices`.
pub(super) fn prices(command: PricesCommand, config: &Config, output: Output) -> Result<(), Failure> {
    let book = boot::prices(config)?;
    let now = SystemClock::new().now();
    let models: Vec<&ModelPrices> = match &command {
        PricesCommand::List { provider } => {
            book.models().filter(|model| provider.as_deref().is_none_or(|wanted| *model.provider == *wanted)).collect()
        }
        PricesCommand::Show { model } => find(&book, model)?,
    };
    let document = json!({
        "version": &*book.version(),
        "models": models.iter().map(|model| model_document(model, now)).collect::<Vec<_>>(),
    });
    output.print(&document, || {
        let rows: Vec<_> = models.iter().flat_map(|model| model_rows(model, now)).collect();
        let head = ["PROVIDER", "MODEL", "TIER", "ABOVE", "INPUT", "CACHED", "OUTPUT", ""];
        format!("Dollars for a million tokens, version {}\n\n{}", book.version(), table(head, &rows))
    })
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

/// The rows that are in force at `now`: tier, step and rates.
fn in_force(model: &ModelPrices, now: Micros) -> Vec<(ServiceTier, u64, &Rates)> {
    let mut rows: Vec<(ServiceTier, u64, &Rates)> = Vec::new();
    for row in &model.rows {
        let rates = model.rates(row.tier, row.above.saturating_add(1), now);
        let known = rows.iter().any(|(tier, above, _)| (*tier, *above) == (row.tier, row.above));
        rows.extend(rates.filter(|_| !known).map(|rates| (row.tier, row.above, rates)));
    }
    rows
}

fn for_a_million(pico_per_token: i64) -> String {
    PicoUsd::of(TOKENS_SHOWN, pico_per_token).map_or_else(|error| error.to_string(), |price| price.to_string())
}

fn model_rows(model: &ModelPrices, now: Micros) -> Vec<[String; 8]> {
    let optional = |price: Option<i64>| price.map_or_else(|| "-".to_owned(), for_a_million);
    let row = |(tier, above, rates): (ServiceTier, u64, &Rates)| {
        [
            model.provider.to_string(),
            model.name.to_string(),
            tier.as_str().to_owned(),
            above.to_string(),
            for_a_million(rates.input),
            optional(rates.cached),
            optional(rates.output),
            if model.unverified.is_some() { "unverified".to_owned() } else { String::new() },
        ]
    };
    in_force(model, now).into_iter().map(row).collect()
}

fn model_document(model: &ModelPrices, now: Micros) -> Value {
    let row = |(tier, above, rates): (ServiceTier, u64, &Rates)| {
        let Rates {
            input,
            output,
            cached,
            cache_write,
            input_audio,
            cached_audio,
            input_image,
            output_audio,
            output_image,
        } = rates;
        json!({
            "tier": tier.as_str(), "above_tokens": above,
            "picodollars_per_token": {
                "input": input, "output": output, "cached": cached, "cache_write": cache_write,
                "input_audio": input_audio, "cached_audio": cached_audio, "input_image": input_image,
                "output_audio": output_audio, "output_image": output_image,
            },
        })
    };
    json!({
        "provider": &*model.provider, "model": &*model.name, "unverified": model.unverified.as_deref(),
        "prices": in_force(model, now).into_iter().map(row).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_names_its_own_range() {
        let now: Micros = "2026-11-24T10:00:00Z".parse().unwrap();
        for (range, date, expected) in [
            (None, None, "2026-11"),
            (Some(Range::Day), None, "2026-11-24"),
            (None, Some("2026-10-02"), "2026-10-02"),
            (None, Some("2026-10"), "2026-10"),
            (Some(Range::Month), Some("2026-10"), "2026-10"),
        ] {
            assert_eq!(period(range, date, now).unwrap().to_string(), expected);
        }
        assert!(period(Some(Range::Day), Some("2026-10"), now).is_err());
        assert!(period(None, Some("yesterday"), now).is_err());
    }

    #[test]
    fn prices_are_shown_for_a_million_tokens() {
        assert_eq!(for_a_million(150_000), "0.15");
        assert_eq!(for_a_million(2_500_000), "2.5");
    }
}
