//! What is encrypted in the ledger, from a shell.
//!
//! May use: `metering`, `config`.

use clap::Subcommand;
use serde_json::json;

use crate::config::Config;
use crate::metering::admin::{Resealed, Unopened};

use super::Failure;
use super::accounts::{Access, author, with_ledger};
use super::output::Output;

/// What `tollgate secrets` can do.
#[derive(Subcommand)]
pub(super) enum SecretsCommand {
    /// Encrypts tenants' own keys for providers anew, with the first master key of secrets.key.
    ///
    /// Put the new master key in front of the others on every gateway, run this, then take the others away. What was done
    /// stays done when it ends early; run it again for the rest.
    #[command(after_help = "Example:\n  TOLLGATE_SECRETS_KEY=$new,$old tollgate secrets rotate")]
    Rotate,
}

/// Runs `tollgate secrets`.
pub(super) fn secrets(command: &SecretsCommand, config: &Config, output: Output) -> Result<(), Failure> {
    match command {
        SecretsCommand::Rotate => rotate(config, output),
    }
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
