//! Plans and what was used, from a shell.
//!
//! May use: `boot`, `metering`, `edge` for the documents of the billing routes, `config`.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::config::Config;
use crate::domain::hold::money_of;
use crate::domain::ids::TenantId;
use crate::domain::plan::{Limit, Metric, Plan, Scope};
use crate::domain::time::{Period, Window};
use crate::edge::api::wire::UsageBody;
use crate::metering::reports::{self, Totals, UsageReport};

use super::Failure;
use super::accounts::{Access, with_ledger};
use super::output::{Output, table};

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
    let row = |plan: &Plan| [plan.name.to_string(), limits_of(plan), thresholds_of(plan)];
    let titles = ["PLAN", "LIMITS", "THRESHOLDS"];
    match command {
        PlanCommand::List => {
            let document: Vec<Value> = config.plans.iter().map(plan_document).collect();
            output.print(&document, || table(titles, &config.plans.iter().map(row).collect::<Vec<_>>()))
        }
        PlanCommand::Show { plan } => {
            let found = config.plans.iter().find(|known| known.name.as_str() == plan).ok_or_else(|| {
                let known: Vec<&str> = config.plans.iter().map(|plan| plan.name.as_str()).collect();
                format!("there is no plan {plan}; the plans are {}", known.join(", "))
            })?;
            output.print(&plan_document(found), || table(titles, &[row(found)]))
        }
    }
}

fn plan_document(plan: &Plan) -> Value {
    let limit = |limit: &Limit| {
        let amount = match limit.metric {
            // Every digit, and no float.
            Metric::Cost => json!(money_of(limit.max).to_string()),
            _ => json!(limit.max),
        };
        json!({"scope": limit.scope.as_str(), "metric": limit.metric.as_str(), "window": limit.window.as_str(), "limit": amount})
    };
    json!({
        "plan": plan.name.as_str(),
        "limits": plan.limits.iter().map(limit).collect::<Vec<Value>>(),
        "thresholds": plan.thresholds.percents().collect::<Vec<u16>>(),
    })
}

fn limits_of(plan: &Plan) -> String {
    let limit = |limit: &Limit| {
        let amount = match limit.metric {
            Metric::Cost => format!("{} USD", money_of(limit.max)),
            metric => format!("{} {}", limit.max, metric.as_str()),
        };
        let each =
            if limit.scope == Scope::Tenant { String::new() } else { format!(" for each {}", limit.scope.as_str()) };
        format!("{amount} a {}{each}", limit.window.as_str())
    };
    let limits: Vec<String> = plan.limits.iter().map(limit).collect();
    if limits.is_empty() { "unlimited".to_owned() } else { limits.join(", ") }
}

fn thresholds_of(plan: &Plan) -> String {
    let percents: Vec<String> = plan.thresholds.percents().map(|percent| format!("{percent} %")).collect();
    if percents.is_empty() { "none".to_owned() } else { percents.join(", ") }
}

/// Runs `tollgate usage`.
pub(super) fn usage(args: UsageArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let UsageArgs { tenant, range, date, group_by } = args;
    let group_by = group_by.as_deref().map(reports::parse_group_by).transpose()?.unwrap_or_default();
    let report = with_ledger(config, Access::Reads, async |desk| {
        if let Some(tenant) = &tenant {
            // A mistyped tenant is an error, not a tenant that used nothing.
            desk.admin.tenant(tenant).await?;
        }
        let period = period(range, date.as_deref(), |window| desk.reports.current(window, tenant.as_ref()))?;
        Ok(desk.reports.usage(tenant.clone(), period, group_by).await?)
    })?;
    let text = usage_text(&report);
    output.print(&UsageBody::from(report), || text)
}

fn period(range: Option<Range>, date: Option<&str>, current: impl Fn(Window) -> Period) -> Result<Period, Failure> {
    let day = |text| Period::parse_day(text).map_err(|error| Failure::from(format!("--date: {error}")));
    let month = |text| Period::parse_month(text).map_err(|error| Failure::from(format!("--date: {error}")));
    match (range, date) {
        (None | Some(Range::Month), None) => Ok(current(Window::Month)),
        (Some(Range::Day), None) => Ok(current(Window::Day)),
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
    format!("Usage of {whose} in {} ({})\n\n{}", report.period, report.zone, table(head, &rows))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_names_its_own_range() {
        let now = |window: Window| window.period("2026-11-24T10:00:00Z".parse().unwrap());
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
}
