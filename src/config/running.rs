//! What of a new configuration a running gateway can take over, and what waits for a restart.
//!
//! May use: `domain`, `values`, nothing else beyond [`super`].

use crate::domain::object::{Isolation, UnknownObjects};

use super::stamps::Stamped;
use super::{Config, Listen, Log, Mode, Setting, Source, Tls, values};

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
    /// This configuration as far as a gateway that runs with `running` can take it over, and the keys that differ and wait
    /// for a restart.
    pub fn taken_over(self, running: &Self) -> (Self, Vec<String>) {
        let tls = kept(self.listen.tls.as_ref(), running.listen.tls.as_ref());
        let admin_tls = kept(self.listen.admin_tls.as_ref(), running.listen.admin_tls.as_ref());
        let changes = |key: &str| {
            CHANGES_WHILE_RUNNING.iter().any(|name| key == *name || (name.ends_with('.') && key.starts_with(name)))
        };
        let is_as_it_runs =
            |key: &str, value: &str| running.settings.iter().any(|row| row.key == key && row.value == value);
        let waits = |row: &&Setting| {
            is_left_out(row, tls.as_ref(), admin_tls.as_ref())
                || (!changes(&row.key) && !is_as_it_runs(&row.key, &row.value))
        };
        let waiting = self.settings.iter().filter(waits).map(|row| row.key.clone()).collect();
        let mut files = self.files.clone();
        // Those that were left out and are still shown are still watched.
        for file in tls.iter().chain(&admin_tls).flat_map(Tls::files).map(Stamped::now) {
            if !files.contains(&file) {
                files.push(file);
            }
        }
        let isolation = self.isolation_in(running.mode);
        // Each field by name: a new one does not compile until it is said here whether it changes.
        let taken = Self {
            mode: running.mode,
            data_dir: running.data_dir.clone(),
            listen: Listen { proxy: running.listen.proxy, admin: running.listen.admin, tls, admin_tls, ..self.listen },
            clients: self.clients,
            admin_key: self.admin_key,
            master_keys: self.master_keys,
            ledger: running.ledger.clone(),
            providers: self.providers,
            upstream: self.upstream,
            isolation,
            shutdown_drain_limit: self.shutdown_drain_limit,
            workers: running.workers,
            journal: running.journal,
            counters: running.counters.clone(),
            budgets: self.budgets,
            prices_file: self.prices_file,
            limits: self.limits,
            reload_watch: self.reload_watch,
            files,
            plans: self.plans,
            plan_prices: self.plan_prices,
            log: Log { filter: self.log.filter, format: running.log.format },
            warnings: self.warnings,
            settings: running.settings.clone(),
        };
        (taken, waiting)
    }

    /// What is left to the mode goes by the one that the process runs in, as the rest of it does: a file that loses its
    /// `env = "prod"` opens nothing in a gateway that stays one of prod.
    fn isolation_in(&self, mode: Mode) -> Isolation {
        let is_allowed = |key: &str| {
            let row = self.settings.iter().find(|row| row.key == key);
            row.is_some_and(|row| values::allowed(&row.value, mode == Mode::Dev).unwrap_or(false))
        };
        let unknown = is_allowed("isolation.unknown_objects");
        let unknown = if unknown { UnknownObjects::Allow } else { UnknownObjects::Refuse };
        Isolation { unknown, lists: is_allowed("isolation.lists") }
    }
}

/// What a listener shows by a new configuration. Other files are shown at once, and so is TLS where there was none; but that
/// a listener speaks in the clear from now on, or asks nobody for a certificate any more, takes a restart: a file that was
/// emptied or cut says so as well.
fn kept(next: Option<&Tls>, now: Option<&Tls>) -> Option<Tls> {
    let Some(now) = now else { return next.cloned() };
    let mut next = next.unwrap_or(now).clone();
    next.client_ca = next.client_ca.or_else(|| now.client_ca.clone());
    Some(next)
}

/// Whether a key of TLS is set no more and what it stood for is kept.
fn is_left_out(row: &Setting, tls: Option<&Tls>, admin_tls: Option<&Tls>) -> bool {
    let is_shown = match row.key.as_str() {
        "listen.tls.cert" | "listen.tls.key" => tls.is_some(),
        "admin.tls.cert" | "admin.tls.key" => admin_tls.is_some(),
        "admin.tls.client_ca" => admin_tls.is_some_and(|tls| tls.client_ca.is_some()),
        _ => false,
    };
    is_shown && row.source == Source::Default
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::config::{Flag, KEYS, Key, Ledger};

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

    const MASTER: &str = "411f7a853211b0c382b70d0922e75a077b3bc5bf6c3a0257fa9c6cd133b2488d";

    /// Both listeners speak TLS here, and roots are given: some keys count with others only.
    const STARTED: [(&str, &str); 7] = [
        ("listen.tls.cert", "one"),
        ("listen.tls.key", "one"),
        ("admin.tls.cert", "one"),
        ("admin.tls.key", "one"),
        ("admin.tls.client_ca", "one"),
        ("upstream.ca", "one"),
        ("secrets.key", MASTER),
    ];

    /// A right value of a key that is neither its default nor the one above.
    fn another(key: &Key) -> String {
        let digits = key.default.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = key.default.split_at(digits);
        match (key.name, key.default, number.parse::<u64>()) {
            (_, "true", _) => "false".to_owned(),
            (_, "false", _) => "true".to_owned(),
            ("listen.balancers", ..) => "none".to_owned(),
            ("budgets.account_tier", ..) => "flex".to_owned(),
            ("log.filter", ..) => "warn".to_owned(),
            ("models.output_max", ..) => "gpt-x=5".to_owned(),
            ("admin.key", ..) => "bf3a9c1e7b2d84650a9c3e1f7b6d2840f5e9a7c3b1".to_owned(),
            // How many there are is shown, and no more.
            ("secrets.key", ..) => {
                format!("c9e250a0fcb7f5e7ed3791e10cace98ec4c12bec9bccdc49afec082fa6436e62,{}", MASTER)
            }
            (name, ..) if name.starts_with("isolation.") => "refuse".to_owned(),
            (name, ..) if name.ends_with("url") => "https://other.example".to_owned(),
            (.., Ok(number)) => format!("{}{unit}", number + 1),
            _ => "other".to_owned(),
        }
    }

    /// Everything that a part of the gateway could read.
    fn shown(config: &Config) -> String {
        format!("{:?}", Config { settings: Vec::new(), ..config.clone() })
    }

    #[test]
    fn every_key_that_changes_while_running_is_taken_over_and_no_other() {
        let started = load(&STARTED);
        let is_live = |name: &str| CHANGES_WHILE_RUNNING.iter().any(|live| name.starts_with(live));
        for key in KEYS.iter().filter(|key| is_live(key.name)) {
            let value = another(key);
            let rows: Vec<(&str, &str)> = STARTED.iter().copied().chain([(key.name, value.as_str())]).collect();
            let next = load(&rows);
            assert_ne!(shown(&next), shown(&started), "{} = {value} changes nothing", key.name);
            let (taken, waiting) = next.clone().taken_over(&started);
            assert_eq!(shown(&taken), shown(&next), "{}", key.name);
            assert!(waiting.is_empty(), "{}: {waiting:?}", key.name);
        }
    }

    fn files_of(tls: Option<&Tls>) -> Vec<&str> {
        tls.into_iter().flat_map(Tls::files).map(|path| path.to_str().unwrap()).collect()
    }

    #[test]
    fn a_listener_that_speaks_tls_does_so_until_a_restart() {
        let all = ["admin.tls.cert", "admin.tls.key", "admin.tls.client_ca"];
        let with = |file: &'static str, keys: &[&'static str]| -> Config {
            let rows: Vec<_> = keys.iter().map(|key| (*key, file)).collect();
            load(&rows)
        };
        let (clear, pair, asking) = (|| load(&[]), |file| with(file, &all[..2]), |file| with(file, &all));
        for (now, next, shown, told) in [
            (asking("one"), clear(), &["one", "one", "one"][..], &all[..]),
            (asking("one"), pair("two"), &["two", "two", "one"], &all[2..]),
            (asking("one"), asking("two"), &["two", "two", "two"], &[]),
            (pair("one"), clear(), &["one", "one"], &all[..2]),
            (pair("one"), asking("two"), &["two", "two", "two"], &[]),
            (clear(), pair("two"), &["two", "two"], &[]),
            (clear(), clear(), &[], &[]),
        ] {
            let (taken, waiting) = next.taken_over(&now);
            let mut told = told.to_vec();
            told.sort_by_key(|key| KEYS.iter().position(|known| known.name == *key));
            let mut waiting: Vec<&str> = waiting.iter().map(String::as_str).collect();
            waiting.sort_by_key(|key| KEYS.iter().position(|known| known.name == *key));
            assert_eq!((files_of(taken.listen.admin_tls.as_ref()), waiting), (shown.to_vec(), told));
            // A certificate that is kept is watched as the others are.
            for file in shown {
                assert!(taken.files.contains(&Stamped::now(Path::new(file))), "{file}");
            }
        }
    }

    #[test]
    fn tls_that_a_reload_turned_on_is_not_turned_off_by_the_next() {
        let keys = ["listen.tls.cert", "listen.tls.key"];
        let (on, told) = load(&keys.map(|key| (key, "one"))).taken_over(&load(&[]));
        assert!(told.is_empty(), "{told:?}");
        let (kept, told) = load(&[]).taken_over(&on);
        assert_eq!((files_of(kept.listen.tls.as_ref()), told), (vec!["one", "one"], keys.map(str::to_owned).to_vec()));
        // The same file once more: it is still what runs.
        let (kept, told) = load(&[]).taken_over(&kept);
        assert_eq!((files_of(kept.listen.tls.as_ref()), told.len()), (vec!["one", "one"], 2));
    }

    #[test]
    fn isolation_is_taken_over_by_the_mode_that_was_started() {
        let prod = |value: &'static str| {
            load(&[("env", "prod"), ("isolation.unknown_objects", value), ("isolation.lists", value)])
        };
        let open = Isolation { unknown: UnknownObjects::Allow, lists: true };
        let closed = Isolation { unknown: UnknownObjects::Refuse, lists: false };
        for (from, to, expected) in [
            (prod("allow"), prod("refuse"), closed),
            (prod("refuse"), prod("allow"), open),
            (prod("allow"), prod("auto"), closed),
            // What lost its mode is a configuration of dev, and the process stays one of prod.
            (prod("auto"), load(&[]), closed),
            (prod("allow"), load(&[]), closed),
            (load(&[]), prod("auto"), open),
        ] {
            let (taken, _) = to.taken_over(&from);
            assert_eq!(taken.isolation, expected);
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
