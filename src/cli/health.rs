//! `tollgate health`: one question to a running gateway, for container health checks.
//!
//! May use: `config`.

use clap::Args;
use serde_json::json;

use crate::config::Config;

use super::Failure;
use super::asking::{get, reachable};
use super::output::Output;

/// Enough for the status line.
const HEAD_BYTES_MAX: u64 = 1_024;

/// What to ask.
#[derive(Args)]
pub(super) struct HealthArgs {
    /// Asks the admin listener instead of the proxy listener, as it does in any case where that one speaks TLS.
    #[arg(long)]
    admin: bool,
    /// Asks whether it can serve (/readyz), not only whether it runs (/healthz).
    #[arg(long)]
    ready: bool,
}

/// Asks; an answer other than 200 is a failure.
pub(super) fn health(args: HealthArgs, config: &Config, output: Output) -> Result<(), Failure> {
    // Over TLS it would have to trust a certificate that names another host; both listeners tell the same.
    let (key, address) = if args.admin || config.listen.tls.is_some() {
        ("listen.admin", config.listen.admin)
    } else {
        ("listen.proxy", config.listen.proxy)
    };
    if address.port() == 0 {
        return Err(format!("{key} has port 0, so that nobody knows where it is: give it a port").into());
    }
    let address = reachable(address);
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let answer = get(address, path, None, HEAD_BYTES_MAX);
    let status = answer.map_err(|error| format!("http://{address}{path}: {error}: is the gateway running?"))?.status;
    if status != 200 {
        return Err(format!("http://{address}{path} answers {status}: look into the gateway's log").into());
    }
    output.print(&json!({"ok": true, "address": address.to_string(), "status": status}), || {
        format!("http://{address}{path} answers 200.")
    })
}
