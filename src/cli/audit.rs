//! The log of administrative changes, from a shell.
//!
//! May use: `metering`, `edge` for the document of the audit route, `config`.

use clap::Args;

use crate::config::Config;
use crate::domain::audit::{Action, Actor, AuditEntry, Facts};
use crate::domain::ids::TenantId;
use crate::domain::time::Micros;
use crate::edge::api::wire::audit::AuditBody;
use crate::ports::tenants::AuditFilter;

use super::Failure;
use super::accounts::{Access, with_ledger};
use super::output::{Output, table};

/// What to show of the log.
#[derive(Args)]
pub(super) struct AuditArgs {
    /// Changes of one tenant; of all without one.
    tenant: Option<TenantId>,
    /// Changes made with the admin key, with a tenant's, on the command line, or by a gateway itself.
    #[arg(long, value_name = "WHO", value_parser = actor)]
    actor: Option<Actor>,
    /// Changes of one kind, such as plan.set.
    #[arg(long, value_name = "WHAT", value_parser = action)]
    action: Option<Action>,
    /// Made at or after this instant.
    #[arg(long, value_name = "TIME")]
    from: Option<Micros>,
    /// Made before this instant.
    #[arg(long, value_name = "TIME")]
    to: Option<Micros>,
    /// How many of the newest entries: up to 1000.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000), conflicts_with = "after")]
    limit: u32,
    /// Instead: the page of entries after this one, up to 1000; 0 for the oldest.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(0..))]
    after: Option<i64>,
}

fn actor(text: &str) -> Result<Actor, String> {
    Actor::parse(text).ok_or_else(|| format!("write one of {}", Actor::names()))
}

fn action(text: &str) -> Result<Action, String> {
    Action::parse(text).ok_or_else(|| format!("write one of {}", Action::names()))
}

/// Runs `tollgate audit`.
pub(super) fn audit(args: AuditArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let AuditArgs { tenant, actor, action, from, to, limit, after } = args;
    let page = with_ledger(config, Access::Reads, async |desk| {
        if let Some(tenant) = &tenant {
            // A mistyped tenant is an error, not a tenant that nobody changed.
            desk.admin.tenant(tenant).await?;
        }
        let filter = AuditFilter { tenant: tenant.clone(), actor, action, from, to };
        Ok(match after {
            Some(after) => desk.admin.audit(filter, after, u32::MAX).await?,
            None => desk.admin.last_audited(filter, limit).await?,
        })
    })?;
    let rows: Vec<_> = page.entries.iter().map(row).collect();
    let next = page.next;
    output.print(&AuditBody::from(page), || {
        let text = table(["ID", "TIME", "WHO", "ACTION", "TENANT", "KEY", "CHANGE"], &rows);
        next.map_or(text.clone(), |next| format!("{text}\nThere are more: --after {next}"))
    })
}

fn row(entry: &AuditEntry) -> [String; 7] {
    let AuditEntry { row, at, author, idempotency_key_sha256: _, change } = entry;
    let who = match &author.key {
        Some(key) => format!("{} {key}", author.actor.as_str()),
        None => author.actor.as_str().to_owned(),
    };
    let tenant = change.tenant.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let key = change.key.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let told = match (facts(&change.before), facts(&change.after)) {
        (before, after) if before.is_empty() || after.is_empty() => before + &after,
        (before, after) => format!("{before} -> {after}"),
    };
    [row.to_string(), at.to_string(), who, change.action.as_str().to_owned(), tenant, key, told]
}

fn facts(facts: &Facts) -> String {
    let Facts { name, plan, suspended, zone, last4, expires_at, models, prices, events } = facts;
    let told = [
        name.as_ref().map(|name| format!("name {name:?}")),
        plan.as_ref().map(|plan| format!("plan {plan}")),
        suspended.map(|suspended| if suspended { "suspended".to_owned() } else { "active".to_owned() }),
        zone.as_ref().map(|zone| format!("timezone {zone}")),
        last4.as_ref().map(|last4| format!("…{last4}")),
        expires_at.map(|at| format!("expires {at}")),
        models.as_ref().map(|models| format!("models {models}")),
        prices.as_ref().map(|version| format!("prices {version}")),
        events.as_ref().map(|events| format!("events {events}")),
    ];
    told.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
