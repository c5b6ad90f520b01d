//! The command line: what the commands are, and how each ends. What they do is written in the modules below.
//!
//! May use: everything. Thin: a command reads its arguments, loads the configuration, calls one thing and prints it.
//! A mistake in the set-up is one line on stderr that names the fix, and exit code 1; in the command's use, exit code 2.

mod accounts;
mod asking;
mod audit;
mod copy;
mod demo;
mod health;
mod output;
mod prices;
mod progress;
mod retention;
mod run;
mod secrets;
mod usage;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::boot::BootError;
use crate::config::{Config, ConfigErrors, Environment, Flag, ProcessEnvironment};
use crate::metering::admin::AdminError;
use crate::metering::reports::ReportError;

use output::Output;

/// Exit code for a command line that is none, as clap has it.
const USAGE_ERROR: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  tollgate demo                                  try everything, without a key and without a network
  OPENAI_API_KEY=sk-... tollgate serve           the gateway, in dev mode, on 127.0.0.1:8080
  tollgate check --config tollgate.toml          what is in effect, and why
  tollgate tenant create acme --plan growth
  tollgate key create acme --name backend        the key is shown this once
  tollgate usage acme --group-by model";

/// The gateway that LLM bills can be trusted to.
#[derive(Parser)]
#[command(name = "tollgate", version, about, after_help = EXAMPLES, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Args)]
struct Common {
    /// The configuration file (or TOLLGATE_CONFIG). None is needed.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The directory of the ledger (data_dir).
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// Sets any configuration key, such as --set upstream.idle_timeout=60s; may be repeated.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Prints JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the gateway.
    #[command(after_help = "Examples:\n  tollgate serve\n  tollgate serve --env prod --listen 0.0.0.0:8080")]
    Serve(ServeArgs),
    /// Runs the gateway with a simulated provider and a demo tenant, and prints what to try.
    #[command(after_help = "Examples:\n  tollgate demo\n  tollgate demo --listen 127.0.0.1:0")]
    Demo(demo::DemoArgs),
    /// Checks configuration, plans and prices; prints what is in effect and where each value comes from.
    #[command(after_help = "Examples:\n  tollgate check\n  tollgate check --config tollgate.toml --json")]
    Check,
    /// Creates the ledger's schema or brings it up to date; serve does so by itself.
    Migrate,
    /// Tenants: create, list, show, suspend, resume, set-plan.
    #[command(subcommand)]
    Tenant(accounts::TenantCommand),
    /// Keys of tenants: create, rotate, list, revoke.
    #[command(subcommand)]
    Key(accounts::KeyCommand),
    /// What is encrypted in the ledger: rotate, forget.
    #[command(subcommand)]
    Secrets(secrets::SecretsCommand),
    /// Who changed what: tenants, their plans and keys.
    #[command(after_help = "Examples:\n  tollgate audit\n  tollgate audit acme --limit 10 --json")]
    Audit(audit::AuditArgs),
    /// Plans: list, show. Plans are changed in the configuration.
    #[command(subcommand)]
    Plan(usage::PlanCommand),
    /// What a tenant, or everyone, used.
    #[command(after_help = "Examples:\n  tollgate usage\n  tollgate usage acme --range day\n  \
                            tollgate usage acme --date 2026-10 --group-by provider,model")]
    Usage(usage::UsageArgs),
    /// Prices: list, show, explain an event, diff with a file.
    #[command(subcommand, after_help = prices::EXAMPLES)]
    Prices(prices::PricesCommand),
    /// Compares events with their sums, the journal and the counters; exit code 1 when anything differs.
    #[command(after_help = verify::EXAMPLES)]
    Verify,
    /// Drops the events of old months; their sums stay.
    #[command(after_help = retention::EXAMPLES)]
    Retention(retention::RetentionArgs),
    /// Copies a ledger into another store, whole and compared: SQLite to Postgres, and back.
    #[command(after_help = copy::EXAMPLES)]
    Copy(copy::CopyArgs),
    /// Asks a running gateway whether it is well; exit code 0 if so.
    #[command(after_help = "Examples:\n  tollgate health\n  tollgate health --ready --admin")]
    Health(health::HealthArgs),
}

#[derive(Args)]
struct ServeArgs {
    /// Where apps connect (listen.proxy).
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Where admins connect (listen.admin).
    #[arg(long, value_name = "IP:PORT")]
    admin_listen: Option<String>,
    /// dev or prod (env).
    #[arg(long, value_name = "MODE")]
    env: Option<String>,
}

/// Why a command failed: lines for stderr, each naming its fix.
#[derive(Debug)]
struct Failure(Vec<String>);

impl From<String> for Failure {
    fn from(line: String) -> Self {
        Self(vec![line])
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self(errors.0)
    }
}

impl From<BootError> for Failure {
    fn from(error: BootError) -> Self {
        Self(vec![error.to_string()])
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        Self(vec![error.to_string()])
    }
}

impl From<ReportError> for Failure {
    fn from(error: ReportError) -> Self {
        Self(vec![error.to_string()])
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version end well and go to stdout; a closed pipe there is nobody's mistake.
            drop(error.print());
            return if error.use_stderr() { ExitCode::from(USAGE_ERROR) } else { ExitCode::SUCCESS };
        }
    };
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(lines)) => {
            output::complain(&lines);
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: Cli) -> Result<(), Failure> {
    let Cli { common, command } = cli;
    let output = Output::new(common.json);
    match command {
        Command::Serve(ServeArgs { listen, admin_listen, env }) => {
            let own = [
                ("--listen", "listen.proxy", listen),
                ("--admin-listen", "listen.admin", admin_listen),
                ("--env", "env", env),
            ];
            let file = config_file(&common);
            run::serve(&|| load(&common, own.clone()), file.as_deref(), output)
        }
        Command::Demo(args) => demo::demo(&common, args, output),
        Command::Check => run::check(load(&common, []), output),
        Command::Migrate => run::migrate(&load(&common, [])?, output),
        Command::Tenant(command) => accounts::tenant(command, &load(&common, [])?, output),
        Command::Key(command) => accounts::key(command, &load(&common, [])?, output),
        Command::Secrets(command) => secrets::secrets(&command, &load(&common, [])?, output),
        Command::Audit(args) => audit::audit(args, &load(&common, [])?, output),
        Command::Plan(command) => usage::plan(command, &load(&common, [])?, output),
        Command::Usage(args) => usage::usage(args, &load(&common, [])?, output),
        Command::Prices(command) => prices::prices(command, &load(&common, [])?, output),
        Command::Verify => verify::verify(&load(&common, [])?, output),
        Command::Retention(args) => retention::retention(args, &load(&common, [])?, output),
        Command::Copy(args) => copy::copy(&args, output),
        Command::Health(args) => health::health(args, &load(&common, [])?, output),
    }
}

/// Loads the configuration for a command with flags of its own.
fn load<'a>(
    common: &Common,
    own: impl IntoIterator<Item = (&'a str, &'a str, Option<String>)>,
) -> Result<Config, Failure> {
    let flags = flags(common, own)?;
    Ok(Config::load(&flags, &ProcessEnvironment, config_file(common).as_deref())?)
}

fn config_file(common: &Common) -> Option<PathBuf> {
    common.config.clone().or_else(|| ProcessEnvironment.get("TOLLGATE_CONFIG").map(PathBuf::from))
}

fn flags<'a>(
    common: &Common,
    own: impl IntoIterator<Item = (&'a str, &'a str, Option<String>)>,
) -> Result<Vec<Flag>, Failure> {
    let mut flags = Vec::new();
    for pair in &common.set {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("--set {pair:?} has no '=': write --set KEY=VALUE, such as --set env=prod"))?;
        flags.push(Flag { name: "--set".to_owned(), key: key.to_owned(), value: value.to_owned() });
    }
    let shared = [("--data-dir", "data_dir", common.data_dir.clone())];
    for (name, key, value) in shared.into_iter().chain(own) {
        let flag = |value| Flag { name: name.to_owned(), key: key.to_owned(), value };
        flags.extend(value.map(flag));
    }
    Ok(flags)
}

#[cfg(test)]
mod documents;
#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_every_command_says_what_it_does() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        let mut open = vec![command];
        while let Some(command) = open.pop() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            open.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn flags_become_keys_of_the_configuration() {
        let cli = Cli::try_parse_from(["tollgate", "check", "--data-dir", "d", "--set", "env=prod"]).unwrap();
        let flags = flags(&cli.common, [("--listen", "listen.proxy", Some("127.0.0.1:1".into()))]).unwrap();
        let pairs: Vec<_> = flags.iter().map(|flag| (flag.key.as_str(), flag.value.as_str())).collect();
        assert_eq!(pairs, [("env", "prod"), ("data_dir", "d"), ("listen.proxy", "127.0.0.1:1")]);
        let cli = Cli::try_parse_from(["tollgate", "check", "--set", "env"]).unwrap();
        assert!(super::flags(&cli.common, []).is_err());
    }
}
