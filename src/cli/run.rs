//! The commands that are about the gateway as a whole: serve, check, migrate.
//!
//! May use: everything.

use std::path::Path;

use serde_json::{Value, json};

use crate::boot::reload::Source;
use crate::boot::{self, Ready, Told};
use crate::config::{Config, LogFormat};
use crate::ports::prices::ActiveBook;
use crate::telemetry::logging::{self, Filter};

use super::accounts::Access;
use super::output::{self, Output, table};
use super::{Failure, accounts};

/// Runs the gateway until it is told to end. `load` reads the configuration, `file` included, now and at each SIGHUP.
pub(super) fn serve(
    load: &dyn Fn() -> Result<Config, Failure>,
    file: Option<&Path>,
    output: Output,
) -> Result<(), Failure> {
    let config = load()?;
    let log = logging::start(&config.log.filter, config.log.format == LogFormat::Json)?;
    let again = || can_be_read_again(file).and_then(|()| load()).map_err(|Failure(errors)| errors);
    boot::serve(&config, Some(Source { load: &again, log: &log }), |ready| announce(ready, output))?;
    Ok(())
}

/// A pipe (`--config <(decrypt tollgate.toml)`) is empty the second time, which would be a valid configuration.
fn can_be_read_again(file: Option<&Path>) -> Result<(), Failure> {
    match file.map(|path| (path, path.metadata())) {
        Some((path, Ok(metadata))) if !metadata.is_file() && !metadata.is_dir() => {
            Err(format!("{}: is no file that can be read twice: restart instead", path.display()).into())
        }
        _ => Ok(()),
    }
}

/// The one line on stdout that says where the gateway listens. Scripts wait for it, as ports may be free ones.
fn announce(ready: Ready, output: Output) {
    let Ready { proxy, admin } = ready;
    let line = if output.is_json() {
        json!({"ready": {"proxy": proxy.to_string(), "admin": admin.to_string()}}).to_string()
    } else {
        format!("tollgate ready proxy={proxy} admin={admin}")
    };
    if let Err(Failure(lines)) = output::write_line(&line) {
        // The gateway serves; that nobody could be told is no reason to end.
        output::complain(&lines);
    }
}

/// Says what is in effect, or everything that is wrong.
pub(super) fn check(loaded: Result<Config, Failure>, output: Output) -> Result<(), Failure> {
    let checked = loaded.and_then(|config| {
        let filter = Filter::parse(&config.log.filter);
        match (boot::prices(&config), boot::plans(&config), boot::check_tls(&config), filter) {
            (Ok(prices), Ok(plans), Ok(()), Ok(_)) => Ok((prices, plans, config)),
            (prices, plans, tls, filter) => {
                let errors = [prices.err(), plans.err(), tls.err()].into_iter().flatten();
                Err(Failure(errors.map(|error| error.to_string()).chain(filter.err()).collect()))
            }
        }
    });
    // A ledger that cannot be asked now is no mistake in the configuration.
    let checked = checked.and_then(|(prices, plans, config)| match boot::told_by_ledger(&config) {
        Ok(Told { sealed: Some(error), .. }) => Err(error.into()),
        Ok(told) => Ok((prices, plans, config, Ok(told.prices))),
        Err(error) => Ok((prices, plans, config, Err(error))),
    });
    let (prices, plans, config, in_ledger) = match checked {
        Ok(checked) => checked,
        Err(Failure(errors)) => {
            if output.is_json() {
                output.print(&json!({"ok": false, "errors": errors}), String::new)?;
            }
            return Err(Failure(errors));
        }
    };
    let settings: Vec<_> = config
        .explain()
        .iter()
        .map(|row| json!({"key": row.key, "value": row.value, "source": row.source.to_string()}))
        .collect();
    let models = prices.models().count();
    let version = prices.version();
    let (active, why) = match in_ledger {
        Ok(None) => (Value::Null, "in force: no other was put in force for all gateways".to_owned()),
        Ok(Some((ActiveBook { version, since, by }, _))) => (
            json!({"version": &*version, "since": since.to_string(), "by": by}),
            format!(
                "not in force: version {version} goes before it, since {since}, by {by}; \
                 tollgate prices update --configured ends that"
            ),
        ),
        Err(error) => (Value::Null, format!("in force unless another was put in force for all gateways: {error}")),
    };
    let of_prices = boot::advice::of_prices(&prices, &plans);
    let warnings: Vec<String> = config.warnings.iter().cloned().chain(config.advice()).chain(of_prices).collect();
    let document = json!({
        "ok": true, "settings": settings, "warnings": warnings,
        "prices": {"version": &*version, "models": models, "active": active},
    });
    output.print(&document, || {
        let rows: Vec<_> =
            config.explain().iter().map(|row| [row.key.clone(), row.value.clone(), row.source.to_string()]).collect();
        let mut text = table(["KEY", "VALUE", "FROM"], &rows);
        text.push_str(&format!("\nPrices: {models} models, version {version}, {why}.\n"));
        for warning in &warnings {
            text.push_str(&format!("Warning: {warning}.\n"));
        }
        text.push_str("The configuration is right.");
        text
    })
}

/// Creates the schema or brings it up to date.
pub(super) fn migrate(config: &Config, output: Output) -> Result<(), Failure> {
    let name = boot::ledger::name(&config.ledger);
    accounts::with_ledger(config, Access::Migrates, async |_| Ok(()))?;
    output.print(&json!({"ok": true, "ledger": name}), || format!("The ledger {name} is up to date."))
}
