//! What is encrypted in the ledger, from a shell.
//!
//! May use: `metering`, `config`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::config::Config;
use crate::domain::provider_key::{MasterId, SealedKey};
use crate::metering::admin::{Resealed, Unopened};

use super::Failure;
use super::accounts::{Access, author, with_ledger};
use super::output::{Output, ask, table};

/// What `tollgate secrets` can do.
#[derive(Subcommand)]
pub(super) enum SecretsCommand {
    /// Encrypts tenants' own keys for providers anew, with the first master key of secrets.key.
    ///
    /// Put the new master key in front of the others on every gateway, run this, then take the others away. What was done
    /// stays done when it ends early; run it again for the rest.
    #[command(after_help = "Example:\n  TOLLGATE_SECRETS_KEY=$new,$old tollgate secrets rotate")]
    Rotate,
    /// Removes tenants' own keys for providers that are sealed with a master key which is lost.
    ///
    /// Nothing opens them any more, and no gateway starts on a ledger that has them. Their tenants' calls go out with the
    /// operator's key from then on, where there is one: have them set their own again. A master key that is given here is
    /// refused, as its keys can be opened: run this with secrets.key as the gateways have it. Each removal is one change
    /// with its line in the audit log; what was done stays done when this ends early.
    #[command(
        after_help = "Example:\n  tollgate secrets forget 0123456789abcdef        the id that the refused start names"
    )]
    Forget(ForgetArgs),
}

/// What to forget.
#[derive(Args)]
pub(super) struct ForgetArgs {
    /// The id of the master key that is lost: 16 hexadecimal digits.
    #[arg(value_name = "MASTER_KEY_ID")]
    master: MasterId,
    /// Only says what would be removed.
    #[arg(long)]
    dry_run: bool,
    /// Asks nobody.
    #[arg(long)]
    yes: bool,
}

/// Runs `tollgate secrets`.
pub(super) fn secrets(command: &SecretsCommand, config: &Config, output: Output) -> Result<(), Failure> {
    match command {
        SecretsCommand::Rotate => rotate(config, output),
        SecretsCommand::Forget(args) => forget(args, config, output),
    }
}

fn forget(args: &ForgetArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let ForgetArgs { master, dry_run, yes } = args;
    let author = author();
    let access = if *dry_run { Access::Reads } else { Access::Changes };
    let (keys, is_done) = with_ledger(config, access, async |desk| {
        let found = desk.admin.sealed_with(*master).await?;
        let is_wanted = !found.is_empty() && !dry_run;
        if !is_wanted || !(*yes || ask(&format!("{}\nRemove them?", keys_table(&found)))?) {
            return Ok((found, false));
        }
        Ok((desk.admin.forget(&author, found).await?, true))
    })?;
    let row = |key: &SealedKey| {
        let (tenant, provider) = (key.tenant.as_str(), key.provider.as_str());
        json!({"tenant_id": tenant, "provider": provider, "last4": key.last4, "set_at": key.set_at.to_string()})
    };
    let rows: Vec<Value> = keys.iter().map(row).collect();
    let document = json!({"master_key_id": master.to_string(), "removed": is_done, "keys": rows});
    output.print(&document, || match (keys.len(), is_done) {
        (0, _) => format!("No key in the ledger is sealed with master key {master}."),
        (_, false) => format!("{}\nNothing was removed.", keys_table(&keys)),
        (count, true) => format!(
            "{}\nRemoved: {count}. Calls of these tenants go out with the operator's key, where there is one.",
            keys_table(&keys)
        ),
    })
}

fn keys_table(keys: &[SealedKey]) -> String {
    let row = |key: &SealedKey| {
        [key.tenant.to_string(), key.provider.to_string(), format!("…{}", key.last4), key.set_at.to_string()]
    };
    table(["TENANT", "PROVIDER", "KEY", "SET"], &keys.iter().map(row).collect::<Vec<_>>())
}

fn rotate(config: &Config, output: Output) -> Result<(), Failure> {
    let author = author();
    let Resealed { first, resealed, as_they_were, unopened } =
        with_ledger(config, Access::Changes, async |desk| Ok(desk.admin.reseal(&author).await?))?;
    let first = first.to_string();
    let lines: Vec<String> = unopened
        .iter()
        .map(|Unopened { tenant, provider, why }| format!("tenant {tenant}, provider {provider}: {why}"))
        .collect();
    let document = json!({
        "master_key_id": first, "resealed": resealed, "as_they_were": as_they_were, "unopened": lines,
    });
    output.print(&document, || {
        format!(
            "Master key {first}: {resealed} keys encrypted anew, {as_they_were} were already, {} not opened.",
            lines.len()
        )
    })?;
    if lines.is_empty() { Ok(()) } else { Err(Failure(lines)) }
}
