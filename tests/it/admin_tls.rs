//! The admin listener over TLS: with a certificate of its own, with one that it asks for, and with others after a reload.
//! Beside it whom providers are known by, and which addresses and admin keys are refused.

use std::process::Command;
use std::time::{Duration, Instant};

use super::support::bodies::*;
use super::support::front::*;
use super::support::gateway::ADMIN_KEY;
use super::support::http2::Http2;
use super::support::machine::tell;
use super::support::*;

/// A reload is in force within this.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(20);

fn with_tls(setup: Setup) -> Setup {
    setup.set("TOLLGATE_ADMIN_TLS_CERT", CERTIFICATE).set("TOLLGATE_ADMIN_TLS_KEY", KEY)
}

/// Whether the admin listener answers a client on these terms.
fn is_let_in(gateway: &Gateway, terms: &Terms<'_>) -> bool {
    let mut wire = Wire::open(tls_to(gateway.admin, terms));
    drop(wire.try_send(&Request::get("/admin/tenants").bearer(ADMIN_KEY).bytes()));
    wire.answer().is_some_and(|answer| answer.status == 200)
}

/// What a command of the program says to this gateway, with these variables beside those of its listeners.
fn command(gateway: &Gateway, arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let mut command = Command::new(binary());
    command.args(arguments).env_clear().envs(variables.iter().copied());
    command.env("TOLLGATE_LISTEN", gateway.proxy.to_string()).env("TOLLGATE_ADMIN_LISTEN", gateway.admin.to_string());
    command.env("TOLLGATE_DATA_DIR", gateway.data_dir()).env("TOLLGATE_ADMIN_KEY", ADMIN_KEY);
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_admin_listener_speaks_tls_and_nothing_else() {
    let provider = Provider::start(honest);
    let gateway = with_tls(Setup::new(&provider)).start();
    for terms in
        [Terms::default(), Terms { only_tls_1_2: true, ..Terms::default() }, Terms { speaks: &[], ..Terms::default() }]
    {
        assert!(is_let_in(&gateway, &terms));
    }
    let mut http2 = Http2::open_tls(gateway.admin);
    assert_eq!(http2.ask(&Request::get("/healthz")).status, 200);
    let mut plain = Wire::open(gateway.admin);
    drop(plain.try_send(&Request::get("/healthz").bytes()));
    assert!(plain.answer().is_none(), "an answer in the clear");
    // The proxy listener is what it was.
    assert_eq!(gateway.send(&chat("acme")).status, 200);
}

#[test]
fn handshakes_that_stall_hold_up_nobody() {
    let provider = Provider::start(honest);
    let gateway = with_tls(Setup::new(&provider)).set("TOLLGATE_HEADER_TIMEOUT", "1m").start();
    // Of one address, which once took all places of a handshake with 64.
    let silent: Vec<Wire> = (0..100).map(|_| Wire::open(gateway.admin)).collect();
    let started = Instant::now();
    assert!(is_let_in(&gateway, &Terms::default()));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    drop(silent);
}

#[test]
fn commands_reach_the_admin_listener_over_tls() {
    let provider = Provider::start(honest);
    for client_ca in ["", ADMINS_CA] {
        let gateway = with_tls(Setup::new(&provider)).set("TOLLGATE_ADMIN_TLS_CLIENT_CA", client_ca).start();
        assert_eq!(gateway.send(&chat("acme")).status, 200);
        gateway.booked("acme", 1);
        let tls = |cert, key| {
            [
                ("TOLLGATE_ADMIN_TLS_CERT", cert),
                ("TOLLGATE_ADMIN_TLS_KEY", key),
                ("TOLLGATE_ADMIN_TLS_CLIENT_CA", client_ca),
            ]
        };
        let (good, said) = command(&gateway, &["health", "--admin"], &tls(CERTIFICATE, KEY));
        assert!(good && said.contains("https://127.0.0.1:"), "{said}");
        let (good, said) = command(&gateway, &["verify", "--json"], &tls(CERTIFICATE, KEY));
        assert!(good && said.contains("\"counters\"") && !said.contains("not compared"), "{said}");
        // Another certificate than the one that is shown is nobody's: the admin key is not sent there.
        let (good, said) = command(&gateway, &["health", "--admin"], &tls(RENEWED, RENEWED_KEY));
        assert!(!good && said.contains("another certificate") && said.lines().count() == 1, "{said}");
        let (good, said) = command(&gateway, &["health", "--admin"], &[]);
        assert!(!good && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn only_clients_with_a_certificate_of_the_given_root_come_in() {
    let provider = Provider::start(honest);
    let gateway = with_tls(Setup::new(&provider)).set("TOLLGATE_ADMIN_TLS_CLIENT_CA", ADMINS_CA).start();
    for only_tls_1_2 in [false, true] {
        let shows = |shows| is_let_in(&gateway, &Terms { shows, only_tls_1_2, ..Terms::default() });
        assert!(shows(Some(ADMIN)), "one that the root vouches for");
        assert!(shows(Some((CERTIFICATE, KEY))), "the listener's own");
        assert!(!shows(None), "none");
        assert!(!shows(Some((RENEWED, RENEWED_KEY))), "a stranger's");
    }
    // A certificate opens the listener; it is no admin key.
    let by = tls_to(gateway.admin, &Terms { shows: Some(ADMIN), ..Terms::default() });
    assert_eq!(Request::get("/admin/tenants").send(by).status, 401);
}

#[test]
fn renewed_certificates_and_roots_are_in_force_after_a_reload() {
    let provider = Provider::start(honest);
    let files = tempfile::TempDir::new().unwrap();
    let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let put = |name: &str, from: &str| std::fs::copy(from, path(name)).unwrap();
    put("cert", CERTIFICATE);
    put("key", KEY);
    put("ca", ADMINS_CA);
    let gateway = Setup::new(&provider)
        .set("TOLLGATE_ADMIN_TLS_CERT", &path("cert"))
        .set("TOLLGATE_ADMIN_TLS_KEY", &path("key"))
        .set("TOLLGATE_ADMIN_TLS_CLIENT_CA", &path("ca"))
        .set("TOLLGATE_RELOAD_WATCH", "false")
        .config("")
        .start();
    let old = Terms { shows: Some(ADMIN), ..Terms::default() };
    let new = Terms { trusts: RENEWED, shows: Some(ADMIN), ..Terms::default() };
    let soon = |what: &str, holds: &dyn Fn() -> bool| {
        let until = Instant::now() + IN_FORCE_WITHIN;
        while !holds() {
            assert!(Instant::now() < until, "{what}: {}", gateway.log());
        }
    };
    assert_eq!((is_let_in(&gateway, &old), is_let_in(&gateway, &new)), (true, false));
    // Half renewed: the old pair stays.
    put("cert", RENEWED);
    gateway.signal("HUP");
    soon("refused", &|| gateway.log().contains("admin.tls.key"));
    assert_eq!((is_let_in(&gateway, &old), is_let_in(&gateway, &new)), (true, false));
    put("key", RENEWED_KEY);
    gateway.signal("HUP");
    soon("renewed", &|| is_let_in(&gateway, &new));
    assert!(!is_let_in(&gateway, &old));
    // Other roots: whom the ones before vouched for is out.
    put("ca", CERTIFICATE);
    gateway.signal("HUP");
    soon("other roots", &|| !is_let_in(&gateway, &new));
}

#[test]
fn a_file_that_loses_tls_turns_nothing_off_and_what_waits_is_named() {
    let provider = Provider::start(honest);
    let listen = format!("[listen.tls]\ncert = \"{CERTIFICATE}\"\nkey = \"{KEY}\"\n");
    let admin = format!("[admin.tls]\ncert = \"{CERTIFICATE}\"\nkey = \"{KEY}\"\n");
    let whole = format!("{listen}{admin}client_ca = \"{ADMINS_CA}\"\n");
    let setup = Setup::new(&provider).prod().set("TOLLGATE_RELOAD_WATCH", "false");
    let gateway = setup.config(&whole).start();
    let by_tls = |address, shows| {
        let mut wire = Wire::open(tls_to(address, &Terms { shows, ..Terms::default() }));
        drop(wire.try_send(&Request::get("/healthz").bytes()));
        wire.answer().is_some_and(|answer| answer.status == 200)
    };
    let in_the_clear = |address| {
        let mut wire = Wire::open(address);
        drop(wire.try_send(&Request::get("/healthz").bytes()));
        wire.answer().is_some()
    };
    let is_closed = || {
        assert!(by_tls(gateway.proxy, None) && by_tls(gateway.admin, Some(ADMIN)), "{}", gateway.log());
        assert!(!by_tls(gateway.admin, None), "a client without a certificate is let in");
        assert!(!in_the_clear(gateway.proxy) && !in_the_clear(gateway.admin), "an answer in the clear");
    };
    is_closed();
    let all = "listen.tls.cert, listen.tls.key, admin.tls.cert, admin.tls.key, admin.tls.client_ca";
    for (text, waiting) in [
        (format!("{listen}{admin}"), "admin.tls.client_ca"),
        (listen, "admin.tls.cert, admin.tls.key, admin.tls.client_ca"),
        (String::new(), all),
    ] {
        std::fs::write(gateway.config_file(), text).unwrap();
        let before = gateway.log().len();
        gateway.signal("HUP");
        let until = Instant::now() + IN_FORCE_WITHIN;
        while !gateway.log()[before..].contains("was reloaded") {
            assert!(Instant::now() < until, "{}", gateway.log());
        }
        let log = gateway.log()[before..].to_owned();
        let told = log.lines().find(|line| line.contains("wait for a restart")).unwrap_or_else(|| panic!("{log}"));
        assert!(told.replace('"', "").ends_with(&format!("keys={waiting}")), "{waiting}: {told}");
        is_closed();
    }
}

#[test]
fn wrong_files_are_refused_at_the_start_in_one_line() {
    let start = |cert: &str, key: &str, ca: &str| {
        let setup =
            Setup::at("http://127.0.0.1:1").set("TOLLGATE_ADMIN_TLS_CERT", cert).set("TOLLGATE_ADMIN_TLS_KEY", key);
        setup.set("TOLLGATE_ADMIN_TLS_CLIENT_CA", ca).refused()
    };
    for ((cert, key, ca), told) in [
        (
            (CERTIFICATE, "", ""),
            "admin.tls.cert is set and admin.tls.key is not: set both, or none: TOLLGATE_ADMIN_TLS_KEY=FILE",
        ),
        (("", "", ADMINS_CA), "admin.tls.client_ca is set and admin.tls.cert is not"),
        (("/nowhere/cert.pem", KEY, ""), "admin.tls.cert /nowhere/cert.pem: it cannot be read"),
        ((CERTIFICATE, RENEWED_KEY, ""), "it is not the key of the certificate"),
        ((CERTIFICATE, KEY, "/nowhere/ca.pem"), "admin.tls.client_ca /nowhere/ca.pem: it cannot be read"),
        ((CERTIFICATE, KEY, KEY), "there is no certificate in it"),
    ] {
        let said = start(cert, key, ca);
        assert!(said.contains(told) && said.lines().count() == 1, "{cert} {key} {ca}: {said}");
    }
}

#[test]
fn a_public_address_in_dev_mode_or_a_weak_admin_key_is_refused_in_one_line() {
    for ((name, value), told) in [
        (("TOLLGATE_LISTEN", "0.0.0.0:0"), "TOLLGATE_ENV=prod"),
        (("TOLLGATE_ADMIN_LISTEN", "0.0.0.0:0"), "TOLLGATE_ENV=prod"),
        (("TOLLGATE_ADMIN_LISTEN", "[::]:0"), "TOLLGATE_ADMIN_LISTEN=127.0.0.1"),
        (("TOLLGATE_ADMIN_KEY", "5e1f0c9ab7d248365e1f0c9ab7d2483"), "openssl rand"),
        (("TOLLGATE_ADMIN_KEY", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), "openssl rand"),
        (("TOLLGATE_ADMIN_KEY", "change-me-to-something-long-and-secret"), "openssl rand"),
        (("TOLLGATE_ADMIN_KEY", "AT-LEAST-THIRTY-TWO-CHARACTERS-THAT-NOBODY-GUESSES"), "openssl rand"),
        (("TOLLGATE_ADMIN_KEY", "1234567890123456789012345678901234567890"), "openssl rand"),
    ] {
        for mode in ["dev", "prod"] {
            if mode == "prod" && name != "TOLLGATE_ADMIN_KEY" {
                continue;
            }
            let said = Setup::at("http://127.0.0.1:1").set("TOLLGATE_ENV", mode).set(name, value).refused();
            assert!(said.contains(told) && said.lines().count() == 1, "{name} in {mode}: {said}");
            assert!(name != "TOLLGATE_ADMIN_KEY" || !said.contains(value), "the key is repeated: {said}");
        }
    }
    tell("C30", "a public address in dev mode, a weak admin key", 9, "does not start, in one line");
}
