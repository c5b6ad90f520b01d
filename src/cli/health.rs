//! `tollgate health`: one question to a running gateway, for container health checks.
//!
//! May use: `config`.

use clap::Args;
use serde_json::json;

use crate::config::Config;

use super::Failure;
use super::asking::Listener;
use super::output::Output;

/// Enough for the status line.
const HEAD_BYTES_MAX: u64 = 1_024;

/// What to ask.
#[derive(Args)]
pub(super) struct HealthArgs {
    /// Asks the admin listener instead of the proxy listener.
    #[arg(long)]
    admin: bool,
    /// Asks whether it can serve (/readyz), not only whether it runs (/healthz).
    #[arg(long)]
    ready: bool,
}

/// Asks; an answer other than 200 is a failure.
pub(super) fn health(args: HealthArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let listener = if args.admin { Listener::admin(config)? } else { Listener::proxy(config)? };
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let url = listener.url(path);
    let answer = listener.get(path, None, HEAD_BYTES_MAX);
    let status = answer.map_err(|error| format!("{url}: {error}: is the gateway running?"))?.status;
    if status != 200 {
        return Err(format!("{url} answers {status}: look into the gateway's log").into());
    }
    let address = listener.address.to_string();
    output.print(&json!({"ok": true, "address": address, "status": status}), || format!("{url} answers 200."))
}
