//! `tollgate demo`: the gateway, a simulated provider, a tenant with a key, and a printed line for each thing to try.
//!
//! May use: everything. Nothing of the process's environment but the log filter is read, so that nobody's real keys or
//! ledger take part.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::adapters::system_clock::SystemClock;
use crate::boot::{self, Ready};
use crate::config::{self, Config, Environment, Flag, ProcessEnvironment};
use crate::demo::provider;
use crate::domain::key::Key;
use crate::domain::time::{MICROS_PER_DAY, Micros};
use crate::domain::zone::Zone;
use crate::metering::admin::{Order, mint_key};
use crate::ports::clock::Clock;
use crate::telemetry::logging;

use super::accounts::{Access, author, with_ledger};
use super::output::{self, Output};
use super::{Common, Failure, flags};

const TENANT: &str = "demo";
const PROXY_PORT: u16 = 8080;
const ADMIN_PORT: u16 = 9090;

/// What is said of calls, and not of how the gateway came up: that is what the demo prints itself.
const QUIET_START: &str = "info,tollgate::boot=warn";

/// So many ports after the usual one are tried before any free one is taken.
const PORTS_TRIED_MAX: u16 = 20;

/// Where the demo listens.
#[derive(Args)]
pub(super) struct DemoArgs {
    /// Where apps connect; the first free port from 127.0.0.1:8080 on without it.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Where admins connect; the first free port from 127.0.0.1:9090 on without it.
    #[arg(long, value_name = "IP:PORT")]
    admin_listen: Option<String>,
}

/// On a ledger that is kept its key ends by itself, should the demo not come to revoke it.
const KEY_LASTS_MICROS: i64 = MICROS_PER_DAY;

/// A directory that goes when the demo goes.
struct TemporaryDir(PathBuf);

impl TemporaryDir {
    fn create(name: &str) -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            format!("{}: {error}: set TMPDIR to a writable directory, or give --data-dir", path.display())
        })?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        // What cannot be removed now, the system removes from its temporary directory later.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// The keys of one demo.
struct Keys {
    tenant: String,
    admin: String,
    provider: String,
}

/// What is printed beside the keys.
struct Notes {
    /// Ports that were taken.
    moved: Vec<String>,
    /// Where the ledger and the counters are that stay when the demo goes; empty when nothing stays.
    kept: Vec<String>,
}

/// Runs the demo until it is told to end.
pub(super) fn demo(common: &Common, args: DemoArgs, output: Output) -> Result<(), Failure> {
    let admin = mint_key()?;
    let provider_key = mint_key()?;
    // The random end of a key that is used nowhere else: nobody can have prepared a directory of that name.
    let name = format!("tollgate-demo-{}", mint_key()?.trim_start_matches("tg_live_"));
    let temporary = match common.data_dir {
        Some(_) => None,
        None => Some(TemporaryDir::create(&name)?),
    };
    let (provider, provider_address) = start_provider(provider_key.clone())?;
    let data_dir = temporary.as_ref().map(|directory| directory.0.as_path());
    let given = [args.listen.is_some(), args.admin_listen.is_some()];
    let config = config(common, args, data_dir, provider_address, (&admin, &provider_key))?;
    let [proxy_given, admin_given] = given;
    let moved = [
        moved_from(PROXY_PORT, config.listen.proxy, "--listen", proxy_given),
        moved_from(ADMIN_PORT, config.listen.admin, "--admin-listen", admin_given),
    ];
    let moved = moved.into_iter().flatten().collect();
    let notes = Notes { moved, kept: kept(&config, temporary.as_ref().map(|directory| directory.0.as_path())) };
    logging::start(&config.log.filter, false)?;
    let (key, tenant) = issue(&config, !notes.kept.is_empty())?;
    let keys = Keys { tenant, admin, provider: provider_key };
    let served = boot::serve(&config, None, |ready| {
        if let Err(Failure(lines)) = announce(ready, provider_address, &keys, &notes, output) {
            output::complain(&lines);
        }
    });
    provider.shutdown_background();
    let revoked = if notes.kept.is_empty() { Ok(()) } else { revoke(&config, &key) };
    drop(temporary);
    served?;
    revoked
}

/// A key of the demo's tenant, and what it says. One in a ledger that is kept ends in a day.
fn issue(config: &Config, is_kept: bool) -> Result<(Key, String), Failure> {
    let author = author();
    let ends_at = is_kept.then(|| Micros(SystemClock::new().now().0.saturating_add(KEY_LASTS_MICROS)));
    with_ledger(config, Access::Migrates, async |desk| {
        let id = TENANT.parse().map_err(|error| Failure::from(format!("{TENANT}: {error}")))?;
        if desk.admin.tenant(&id).await.is_err() {
            desk.admin.create_tenant(Order::by(&author), id.clone(), "Demo".to_owned(), "starter", Zone::UTC).await?;
        }
        Ok(desk.admin.issue_key(Order::by(&author), &id, "demo".to_owned(), ends_at, None).await?)
    })
}

fn revoke(config: &Config, key: &Key) -> Result<(), Failure> {
    let author = author();
    let revoked = with_ledger(config, Access::Changes, async |desk| {
        desk.admin.revoke_key(&author, &key.tenant, &key.id).await?;
        Ok(())
    });
    revoked.map_err(|Failure(lines)| {
        let (tenant, id) = (&key.tenant, &key.id);
        let fix = format!("the demo's key works for a day: revoke it with `tollgate key revoke {tenant} {id}`");
        Failure(lines.into_iter().chain([fix]).collect())
    })
}

/// What outlives the demo: all that is not in its own directory.
fn kept(config: &Config, own: Option<&Path>) -> Vec<String> {
    let goes = own.is_some_and(|own| match &config.ledger {
        config::Ledger::Sqlite(path) => path.starts_with(own),
        config::Ledger::Postgres(_) => false,
    });
    let ledger = (!goes).then(|| format!("the ledger {}", boot::ledger::name(&config.ledger)));
    let counters = config.counters.url.as_ref().map(|_| "the counters of counters.url".to_owned());
    ledger.into_iter().chain(counters).collect()
}

fn start_provider(key: String) -> Result<(Runtime, SocketAddr), Failure> {
    let failed = |error: std::io::Error| {
        Failure::from(format!("the simulated provider cannot start: {error}: free a loopback port or a thread"))
    };
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(failed)?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    runtime.spawn(provider::serve(listener, key));
    Ok((runtime, address))
}

/// The demo's configuration: what the user gave over what the demo needs.
fn config(
    common: &Common,
    args: DemoArgs,
    data_dir: Option<&Path>,
    provider: SocketAddr,
    (admin_key, provider_key): (&str, &str),
) -> Result<Config, Failure> {
    let DemoArgs { listen, admin_listen } = args;
    let own = |key: &str, value: String| Flag { name: "demo".to_owned(), key: key.to_owned(), value };
    let origin = format!("http://{provider}");
    let mut all = vec![
        own("admin.key", admin_key.to_owned()),
        own("providers.openai.url", origin.clone()),
        own("providers.gemini.url", origin),
        own("providers.openai.api_key", provider_key.to_owned()),
        own("providers.gemini.api_key", provider_key.to_owned()),
    ];
    all.extend(data_dir.map(|path| own("data_dir", path.display().to_string())));
    all.extend(match listen {
        None => Some(own("listen.proxy", free_from(PROXY_PORT).to_string())),
        Some(_) => None,
    });
    all.extend(match admin_listen {
        None => Some(own("listen.admin", free_from(ADMIN_PORT).to_string())),
        Some(_) => None,
    });
    all.extend(flags(
        common,
        [("--listen", "listen.proxy", listen), ("--admin-listen", "listen.admin", admin_listen)],
    )?);
    let mut environment: BTreeMap<String, String> = BTreeMap::new();
    let filter = ProcessEnvironment.get("RUST_LOG");
    if let Some(filter) = filter.or_else(|| common.config.is_none().then(|| QUIET_START.to_owned())) {
        environment.insert("RUST_LOG".to_owned(), filter);
    }
    let mut config = Config::load(&all, &environment, common.config.as_deref())?;
    // What it prints is to be pasted into a shell that trusts no certificate of anyone's.
    config.listen.tls = None;
    config.listen.admin_tls = None;
    Ok(config)
}

/// The first free loopback port from `port` on; any free one when all of the next are taken.
fn free_from(port: u16) -> SocketAddr {
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let near = (port..port.saturating_add(PORTS_TRIED_MAX)).map(loopback);
    near.into_iter().find(|address| TcpListener::bind(address).is_ok()).unwrap_or_else(|| loopback(0))
}

/// What to say of a port that was to be the usual one and is taken.
fn moved_from(port: u16, config: SocketAddr, flag: &str, given: bool) -> Option<String> {
    let moved = !given && config.port() != port;
    moved.then(|| format!("Port {port} is taken: the demo uses the next free one; {flag} chooses another.\n"))
}

fn announce(ready: Ready, provider: SocketAddr, keys: &Keys, notes: &Notes, output: Output) -> Result<(), Failure> {
    let examples = examples(ready, keys);
    let Ready { proxy, admin } = ready;
    let Keys { tenant, admin: admin_key, provider: provider_key } = keys;
    let document = json!({
        "proxy": proxy.to_string(), "admin": admin.to_string(), "provider": provider.to_string(),
        "tenant_id": TENANT, "key": tenant, "admin_key": admin_key, "provider_key": provider_key,
        "examples": examples.iter().map(|(title, command)| json!({"title": title, "command": command}))
            .collect::<Vec<Value>>(),
    });
    output.print(&document, || {
        let mut text = format!("tollgate ready proxy={proxy} admin={admin}\n\n");
        for line in &notes.moved {
            text.push_str(line);
        }
        text.push_str(&format!(
            "Tenant {TENANT} is on plan starter: 500 chats a month.\n  its key    {tenant}\n  admin key  {admin_key}\n\
             The provider is simulated and counts a word as a token; the prices are real.\n"
        ));
        for (title, command) in &examples {
            text.push_str(&format!("\n# {title}\n{command}\n"));
        }
        text.push_str(
            "\nA model's name can ask the provider for trouble: error-429, error-500, slow-2000ms, pace-200ms, cut-3,\n\
             words-200, no-usage; joined by '+', as in slow-500ms+cut-3. ",
        );
        text.push_str(&ending(&notes.kept));
        text
    })
}

/// What becomes of it all.
fn ending(kept: &[String]) -> String {
    if kept.is_empty() {
        return "Ctrl-C ends the demo and forgets everything.".to_owned();
    }
    format!(
        "Ctrl-C ends the demo.\nIts key is revoked then, and ends in a day in any case. Tenant {TENANT} and what it used stay in {}.",
        kept.join(" and ")
    )
}

/// What to try: a title and a line for the shell each.
fn examples(ready: Ready, keys: &Keys) -> Vec<(&'static str, String)> {
    let Ready { proxy, admin } = ready;
    let bearer = |key: &str| format!("-H 'Authorization: Bearer {key}'");
    let (own, of_admin) = (bearer(&keys.tenant), bearer(&keys.admin));
    let google = format!("-H 'x-goog-api-key: {}'", keys.tenant);
    let json = "-H 'Content-Type: application/json'";
    let chat = |rest: &str| {
        format!(r#"-d '{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"Say hello"}}]{rest}}}'"#)
    };
    let contents = r#"-d '{"contents":[{"parts":[{"text":"Say hello"}]}]}'"#;
    let models = "v1beta/models/gemini-2.5-flash";
    vec![
        ("OpenAI: a chat", format!("curl -s http://{proxy}/v1/chat/completions {own} {json} {}", chat(""))),
        (
            "OpenAI: a stream",
            format!("curl -sN http://{proxy}/v1/chat/completions {own} {json} {}", chat(r#","stream":true"#)),
        ),
        ("Gemini: a chat", format!("curl -s http://{proxy}/{models}:generateContent {google} {json} {contents}")),
        (
            "Gemini: a stream",
            format!("curl -sN 'http://{proxy}/{models}:streamGenerateContent?alt=sse' {google} {json} {contents}"),
        ),
        ("What was used", format!("curl -s 'http://{proxy}/billing/usage?range=month' {own}")),
        ("What is left", format!("curl -s http://{proxy}/billing/limits {own}")),
        ("What it cost", format!("curl -s 'http://{proxy}/billing/cost-report?range=month' {own}")),
        (
            "Another plan, as admin",
            format!(
                r#"curl -s http://{admin}/billing/plan {of_admin} {json} -d '{{"tenant_id":"demo","plan":"growth"}}'"#
            ),
        ),
        ("Metrics", format!("curl -s http://{admin}/metrics")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_passed_over() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let found = free_from(port);
        assert_ne!(found.port(), port);
        assert!(found.ip().is_loopback());
    }

    #[test]
    fn every_example_is_one_line_and_speaks_to_the_right_listener() {
        let ready = Ready { proxy: "127.0.0.1:1".parse().unwrap(), admin: "127.0.0.1:2".parse().unwrap() };
        let keys = Keys { tenant: "T".to_owned(), admin: "A".to_owned(), provider: "P".to_owned() };
        for (title, command) in examples(ready, &keys) {
            assert!(command.starts_with("curl -s") && !command.contains('\n'), "{title}");
            let to_admin = command.contains("127.0.0.1:2/");
            assert_eq!(to_admin, title.contains("admin") || title == "Metrics", "{command}");
            assert_eq!(command.contains("Bearer A"), title.contains("admin"), "{command}");
            let body = command.split_once("-d '").map(|(_, body)| body.trim_end_matches('\''));
            assert!(body.is_none_or(|body| serde_json::from_str::<Value>(body).is_ok()), "{command}");
        }
    }
}
