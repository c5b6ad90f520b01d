//! What of a new configuration a running gateway can take over, and what waits for a restart.
//!
//! May use: nothing beyond [`super`].

use super::{Config, Listen, Log};

/// What can change while the gateway runs: a key of this name, or every key below one that ends with a dot. Everything
/// else waits, a new key too until it is named here: sockets are bound, files are open, threads run, and `env` decides
/// which addresses are safe to be bound to.
const CHANGES_WHILE_RUNNING: [&str; 35] = [
    "admin.key",
    "admin.tls.",
    "listen.header_timeout",
    "listen.body_timeout",
    "listen.keepalive_timeout",
    "listen.write_timeout",
    "listen.body_limit",
    "listen.buffer_total",
    "listen.upload_limit",
    "listen.session_message_limit",
    "isolation.",
    "listen.connections_max",
    "listen.connections_per_address",
    "listen.balancers",
    "listen.requests_per_tenant",
    "listen.failed_keys_per_minute",
    "listen.head_limit",
    "listen.headers_max",
    "listen.request_timeout",
    "listen.rate_min",
    "listen.http2_streams",
    "listen.http2_resets",
    "listen.public_url",
    "listen.h2c",
    "listen.tls.",
    "providers.",
    "upstream.",
    "secrets.key",
    "shutdown.drain_limit",
    "prices.file",
    "models.output_max",
    "reload.",
    "log.filter",
    "plans.",
    "budgets.",
];

impl Config {
    /// This configuration as far as a gateway that was started with `started` can take it over, and the keys that differ
    /// and wait for a restart.
    pub fn taken_over(self, started: &Self) -> (Self, Vec<String>) {
        let changes = |key: &str| {
            CHANGES_WHILE_RUNNING.iter().any(|name| key == *name || (name.ends_with('.') && key.starts_with(name)))
        };
        let is_as_started =
            |key: &str, value: &str| started.settings.iter().any(|row| row.key == key && row.value == value);
        let waiting = self
            .settings
            .iter()
            .filter(|row| !changes(&row.key) && !is_as_started(&row.key, &row.value))
            .map(|row| row.key.clone())
            .collect();
        let Self { listen, admin_key, master_keys, providers, upstream, shutdown_drain_limit, prices_file, .. } = self;
        let Self { limits, budgets, clients, plans, plan_prices, log, .. } = self;
        let taken = Self {
            listen: Listen { proxy: started.listen.proxy, admin: started.listen.admin, ..listen },
            admin_key,
            master_keys,
            providers,
            upstream,
            shutdown_drain_limit,
            prices_file,
            limits,
            budgets,
            clients,
            reload_watch: self.reload_watch,
            files: self.files,
            plans,
            plan_prices,
            log: Log { filter: log.filter, format: started.log.format },
            warnings: self.warnings,
            ..started.clone()
        };
        (taken, waiting)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Flag, KEYS, Ledger};

    fn load(rows: &[(&str, &str)]) -> Config {
        let flag =
            |(key, value): &(&str, &str)| Flag { name: "--set".into(), key: (*key).into(), value: (*value).into() };
        let flags: Vec<Flag> = rows.iter().map(flag).collect();
        Config::load(&flags, &BTreeMap::<String, String>::new(), None).unwrap()
    }

    #[test]
    fn every_key_that_changes_while_running_is_a_key() {
        for name in CHANGES_WHILE_RUNNING.iter().filter(|name| **name != "plans.") {
            assert!(KEYS.iter().any(|key| key.name == *name || key.name.starts_with(name)), "{name}");
        }
    }

    #[test]
    fn what_cannot_change_stays_and_is_named() {
        let started = load(&[("data_dir", "one"), ("upstream.idle_timeout", "5s")]);
        let (taken, waiting) = load(&[
            ("data_dir", "two"),
            ("env", "prod"),
            ("listen.proxy", "127.0.0.1:1"),
            ("listen.body_limit", "1KiB"),
            ("log.filter", "warn"),
            ("upstream.idle_timeout", "7s"),
        ])
        .taken_over(&started);
        // The ledger lies below the data directory, so it would move, too.
        assert_eq!(waiting, ["env", "data_dir", "listen.proxy", "storage.url"]);
        assert_eq!(taken.data_dir, started.data_dir);
        assert_eq!(taken.mode, started.mode);
        assert!(matches!(&taken.ledger, Ledger::Sqlite(path) if path.starts_with("one")), "{:?}", taken.ledger);
        assert_eq!((taken.listen.proxy, taken.listen.body_limit), (started.listen.proxy, 1024));
        assert_eq!((taken.upstream.idle_timeout.as_secs(), taken.log.filter.as_str()), (7, "warn"));
    }
}
