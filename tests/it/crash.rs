//! kill -9, SIGTERM and a second process: whatever ends a gateway, no call is lost, booked twice, or given away.
//!
//! Four kills in an ordinary run, twenty with `TOLLGATE_TEST_FULL=1` (`tests/run --full`).

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, SystemTime};

use super::support::audit::{Ledger, audit};
use super::support::bodies::honest;
use super::support::load::{self, End, Load, Made, Plan, Tenant};
use super::support::machine::{Chance, figures, full};
use super::support::*;

/// Chats of a tenant whose limit is met while gateways are killed.
const TIGHT_CHATS: usize = 40;
const PLANS: &str = "[plans.tight]\nchats_per_month = 40\n";

/// A restart, from the start of the process to its ready line.
const RESTART_MAX: Duration = Duration::from_secs(5);

pub(super) fn this_month() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now = tollgate::domain::time::Micros(i64::try_from(now.as_micros()).unwrap());
    tollgate::domain::time::Window::Month.period(now).to_string()
}

#[test]
fn killed_under_load_it_loses_nothing_books_nothing_twice_and_holds_its_limits() {
    let rounds = if full() { 20 } else { 4 };
    let mut chance = Chance::new();
    let provider = Provider::start(load::charging);
    let setup = || Setup::new(&provider).prod();
    let mut gateway = setup().config(PLANS).start();
    let mut names: Vec<(String, &str)> = ["acme", "globex", "initech"].map(|name| (name.to_owned(), "pro")).into();
    // Every other round has a tenant of its own whose limit is met about when the process is killed.
    names.extend((0..rounds / 2).map(|pair| (format!("tight-{pair}"), "tight")));
    let plans: Vec<(&str, &str)> = names.iter().map(|(name, plan)| (name.as_str(), *plan)).collect();
    let tenants = load::tenants(&gateway, &plans);
    let numbers = Arc::new(AtomicU64::new(0));
    let mut made = Vec::new();
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let of_round =
            |tenant: &Tenant| !tenant.name.starts_with("tight") || tenant.name == format!("tight-{}", round / 2);
        let of_round = tenants.iter().filter(|tenant| of_round(tenant)).cloned().collect();
        let plan = Plan { clients: 24, leaves_one_in: 25, ..Plan::new(gateway.proxy, &Arc::new(of_round), &numbers) };
        // In every third round the ledger takes nothing, so that all of it must come out of the journal.
        let lock = (round % 3 == 1).then(|| Ledger::locked(&gateway.ledger_file()));
        let before = provider.count();
        let load = Load::start(&plan, &mut chance);
        load::demand_asked(&provider, before + 20 + usize::try_from(chance.below(400)).unwrap());
        thread::sleep(Duration::from_micros(chance.below(20_000)));
        gateway.kill();
        made.extend(load.stop());
        drop(lock);
        // A start that is killed as well, somewhere in its recovery.
        if round % 2 == 1 {
            let again = setup().on_ledger_of(&gateway).config(PLANS);
            again.start_and_kill(Duration::from_millis(chance.below(250)));
        }
        gateway = setup().on_ledger_of(&gateway).config(PLANS).start();
        slowest = slowest.max(gateway.started_in);
        assert!(gateway.started_in < RESTART_MAX, "round {round}: a restart took {:?}", gateway.started_in);
        // What the process left behind is on its way to the ledger when the next one serves.
        load::caught_up(&gateway);
        let booked = Ledger::open(&gateway.ledger_file()).events();
        load::account(&made, &provider.seen(), &booked, &[402]);
    }
    use_up_the_rest(&gateway, &tenants, &numbers, &mut made);
    let booked = audit(&gateway, &this_month());
    let account = load::account(&made, &provider.seen(), &booked, &[402]);
    for tenant in tenants.iter().filter(|tenant| tenant.name.starts_with("tight")) {
        let chats = booked.iter().filter(|event| event.tenant_id == tenant.name).count();
        assert_eq!(chats, TIGHT_CHATS, "{}: calls in flight at a kill count, and no more is let through", tenant.name);
    }
    let in_flight = account.cut;
    assert!(account.whole <= account.booked && account.booked <= account.seen + in_flight, "{account:?}");
    figures(&format!(
        "kill -9: seed {}, {rounds} rounds, {} calls, {} whole, {} booked ({} interrupted), lost 0, twice 0, limits passed 0, slowest restart {} ms",
        chance.seed,
        account.calls,
        account.whole,
        account.booked,
        account.interrupted,
        slowest.as_millis()
    ));
}

/// Calls of every limited tenant until it is refused.
fn use_up_the_rest(gateway: &Gateway, tenants: &[Tenant], numbers: &AtomicU64, made: &mut Vec<Made>) {
    for tenant in tenants.iter().filter(|tenant| tenant.name.starts_with("tight")) {
        for _ in 0..=TIGHT_CHATS {
            made.push(load::call_once(gateway, tenant, numbers));
        }
        assert_eq!(made.last().map(|made| made.end), Some(End::Refused(402)), "{}", tenant.name);
    }
    load::caught_up(gateway);
}

#[test]
fn told_to_end_under_load_it_ends_clean_with_every_call_booked() {
    let mut chance = Chance::new();
    let provider = Provider::start(load::charging);
    let mut gateway = Setup::new(&provider).prod().start();
    let tenants = load::tenants(&gateway, &[("acme", "pro"), ("globex", "pro")]);
    let plan = Plan { clients: 24, leaves_one_in: 25, ..Plan::new(gateway.proxy, &tenants, &Arc::default()) };
    let load = Load::start(&plan, &mut chance);
    load::demand_asked(&provider, 100 + usize::try_from(chance.below(300)).unwrap());
    gateway.signal("TERM");
    let status = gateway.ended();
    let made = load.stop();
    assert!(status.success(), "{status}");
    let mut ledger = Ledger::open(&gateway.ledger_file());
    ledger.demand_right_sums();
    let booked = ledger.events();
    let account = load::account(&made, &provider.seen(), &booked, &[503]);
    assert_eq!((account.booked, account.interrupted), (account.seen, 0), "{account:?}");
    // Whoever had no answer never was with the provider: a kept connection that closed as the call was on its way.
    let asked_and_broken = made
        .iter()
        .filter(|made| made.end == End::Broken)
        .filter(|made| booked.iter().any(|event| event.user_id.as_deref() == Some(&format!("mark-{}", made.number))));
    assert_eq!(asked_and_broken.count(), 0, "an answer under way was cut");
    figures(&format!(
        "SIGTERM under load: seed {}, {} calls, {} whole, {} booked, lost 0, twice 0, exit 0",
        chance.seed, account.calls, account.whole, account.booked
    ));
}

#[test]
fn a_second_gateway_on_a_data_directory_refuses_and_the_first_goes_on() {
    let provider = Provider::start(honest);
    let mut first = Setup::new(&provider).start();
    let second = || Setup::new(&provider).on_ledger_of(&first);
    let refused = second().refused();
    let lines: Vec<&str> = refused.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(lines.len(), 1, "{refused}");
    let directory = first.data_dir().display().to_string();
    for word in [directory.as_str(), "TOLLGATE_DATA_DIR"] {
        assert!(refused.contains(word), "{word} in {refused}");
    }
    // Another directory, and the same ledger: each would count its limits for itself.
    let ledger = format!("sqlite://{}", first.ledger_file().display());
    let refused = Setup::new(&provider).set("DATABASE_URL", &ledger).refused();
    assert!(refused.lines().count() == 1 && refused.contains("DATABASE_URL"), "{refused}");
    use_up(&first, "acme", 3);
    first.booked("acme", 3);
    first.kill();
    let second = Setup::new(&provider).on_ledger_of(&first).start();
    use_up(&second, "acme", 1);
    assert_eq!(second.booked("acme", 4).tokens(), (44, 28, 72));
    figures("second process on a data directory: refused in one line; starts once the first is killed");
}
