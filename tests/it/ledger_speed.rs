//! What the ledgers do in a second: events booked through the recorder, sums included, and billing answers for a tenant with
//! very many events.
//!
//! 40,000 events in an ordinary run, a million with `TOLLGATE_TEST_FULL=1`. The bounds are those of a release: a build for
//! tests compiles SQLite and the encoding of rows without optimisation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::Builder;
use tollgate::adapters::file_journal::disk::Folder;
use tollgate::adapters::file_journal::{FileJournal, Options};
use tollgate::boot::ledger::Ledger;
use tollgate::config::Config;
use tollgate::domain::event::UsageEvent;
use tollgate::domain::ids::ProviderId;
use tollgate::domain::plan::{Limit, Metric, Plan, Scope};
use tollgate::domain::tenant::Tenant;
use tollgate::domain::time::{Micros, Window};
use tollgate::domain::zone::Zone;
use tollgate::metering::recorder::Recorder;
use tollgate::metering::snapshot::{Account, Snapshot, Snapshots};
use tollgate::metering::vault::OwnKeys;
use tollgate::metering::verify::{Differences, ledger};
use tollgate::ports::crossings::CrossingsQuery;
use tollgate::ports::journal::Journal;
use tollgate::ports::tenants::TenantStore;
use tollgate::ports::usage::UsageStore;

use super::conformance::{at, event, postgres, sqlite, tenant};
use super::support::bodies::honest;
use super::support::machine::{figures, full};
use super::support::postgres::Database;
use super::support::*;

/// What the recorder has to reach, in a release.
const EVENTS_A_SECOND: u128 = 20_000;

/// What 99 of 100 answers have to stay below, in a release.
const ANSWER_MAX: Duration = Duration::from_millis(20);

/// Answers of each kind.
const ANSWERS: usize = 200;

/// Whether bounds of time are meant for this build of the tests.
fn is_optimised() -> bool {
    !cfg!(debug_assertions)
}

/// Calls of 200 tenants and six models within one hour, as they come to a busy gateway.
fn busy(number: u64) -> UsageEvent {
    let model = ["gpt-4o", "gpt-4o-mini", "o3"][usize::try_from(number % 3).unwrap()];
    let second = i64::try_from(number * 3_600 / 200_000).unwrap();
    UsageEvent {
        tenant: tenant(&format!("tenant-{}", number * 7_919 % 200)),
        provider: ProviderId::new(["openai", "gemini"][usize::try_from(number % 2).unwrap()]),
        model: model.into(),
        user_id: Some(format!("user-{}", number % 500).into()),
        requested_at: Micros(at("2026-11-24T10:00:00Z").0 + second * 1_000_000),
        ..event(number)
    }
}

/// Settles `events` calls in a journal, and then has the recorder book them all; gives how long that took.
async fn book(
    usage: Arc<dyn UsageStore>,
    tenants: Arc<dyn TenantStore>,
    events: u64,
    watched: Option<Arc<Snapshots>>,
) -> Duration {
    let directory = TempDir::new().unwrap();
    let disk = Arc::new(Folder::open(directory.path()).unwrap());
    let (journal, _) = FileJournal::open(disk, Options { bytes_max: 1 << 30, strict: false }).unwrap();
    let journal = Arc::new(journal);
    for number in 0..events {
        let event = busy(number);
        let slot = journal.admit(&event).unwrap();
        journal.settle(slot, &event);
    }
    journal.close();
    let recorder = Recorder::new(journal.clone(), usage.clone(), tenants, Vec::new());
    let recorder = if let Some(plans) = watched { recorder.watching(plans) } else { recorder };
    let began = Instant::now();
    recorder.run().await;
    let took = began.elapsed();
    let mut differences = Differences::default();
    let facts = ledger::compare(&*usage, &mut differences, &mut |_, _| {}).await.unwrap();
    assert_eq!((facts.events, differences.kept()), (events, &[][..]));
    took
}

/// All 200 tenants on a plan with two limits that each of them crosses, and one of each user that none does.
fn limited() -> Arc<Snapshots> {
    let limit = |scope, metric, window, max| Limit { scope, metric, window, max };
    let limits = vec![
        limit(Scope::Tenant, Metric::Chats, Window::Month, 100),
        limit(Scope::Tenant, Metric::Cost, Window::Month, 10_000_000),
        limit(Scope::User, Metric::Tokens, Window::Day, 2_000_000),
    ];
    let plan = Arc::new(Plan { limits, ..Plan::unlimited("limited".parse().unwrap()) });
    let account = |number: u64| {
        let id = tenant(&format!("tenant-{number}"));
        let created_at = at("2026-11-01T00:00:00Z");
        let tenant = Tenant {
            id: id.clone(),
            name: id.to_string(),
            plan: plan.name.clone(),
            suspended: false,
            zone: Zone::UTC,
            created_at,
        };
        (id, Arc::new(Account { tenant, plan: Some(plan.clone()), own_keys: OwnKeys::default(), revision: 1 }))
    };
    let accounts = (0..200).map(account).collect();
    Arc::new(Snapshots::from(Snapshot { accounts, ..Snapshot::default() }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watching_thresholds_costs_the_recorder_little() {
    let events = if full() { 200_000 } else { 40_000 };
    let build = if is_optimised() { "release" } else { "debug" };
    for watched in [None, Some(limited())] {
        let (sqlite, _directory) = sqlite().await;
        let (postgres, _database) = postgres().await;
        for (name, usage, tenants) in [
            ("sqlite", sqlite.clone() as Arc<dyn UsageStore>, sqlite as Arc<dyn TenantStore>),
            ("postgres", postgres.clone(), postgres),
        ] {
            let took = book(usage.clone(), tenants, events, watched.clone()).await;
            let query = CrossingsQuery { tenant: None, after: 0, crossings_max: 1_000_000 };
            let noted = usage.crossings(&query).await.unwrap().len();
            assert_eq!(noted, if watched.is_some() { 200 * 2 * 2 } else { 0 }, "{name}");
            let rate = u128::from(events) * 1_000_000 / took.as_micros();
            figures(&format!("recorder into {name}: {rate} events/s, {noted} thresholds noted ({build} build)"));
            assert!(!is_optimised() || rate >= EVENTS_A_SECOND, "{name}: {rate} events a second");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recorder_books_twenty_thousand_events_a_second_with_their_sums() {
    let events = if full() { 200_000 } else { 40_000 };
    let (sqlite, _directory) = sqlite().await;
    let (postgres, _database) = postgres().await;
    let build = if is_optimised() { "release" } else { "debug" };
    for (name, usage, tenants) in [
        ("sqlite", sqlite.clone() as Arc<dyn UsageStore>, sqlite as Arc<dyn TenantStore>),
        ("postgres", postgres.clone(), postgres),
    ] {
        let took = book(usage, tenants, events, None).await;
        let rate = u128::from(events) * 1_000_000 / took.as_micros();
        figures(&format!("recorder into {name}: {rate} events/s with sums ({events} events, {build} build)"));
        assert!(!is_optimised() || rate >= EVENTS_A_SECOND, "{name}: {rate} events a second");
    }
}

/// An event of tenant `acme`, one of so many over the last twelve months.
fn of_a_year(number: u64, of: u64) -> UsageEvent {
    let year = at("2026-11-30T00:00:00Z").0 - at("2025-12-01T00:00:00Z").0;
    let since = i128::from(year) * i128::from(number) / i128::from(of);
    let requested_at = Micros(at("2025-12-01T00:00:00Z").0 + i64::try_from(since).unwrap());
    UsageEvent { tenant: tenant("acme"), requested_at, ..busy(number) }
}

/// Asks `ANSWERS` times; gives the times that half and 99 of 100 answers stay below.
fn times(gateway: &Gateway, targets: &[String]) -> [Duration; 2] {
    let mut wire = Wire::open(gateway.admin);
    let mut times: Vec<Duration> = (0..ANSWERS)
        .map(|at| {
            let target = &targets[at % targets.len()];
            let began = Instant::now();
            let answer = wire.ask(&Request::get(target).bearer(gateway::ADMIN_KEY));
            let took = began.elapsed();
            assert_eq!(answer.status, 200, "{target}: {}", answer.text());
            took
        })
        .collect();
    times.sort();
    [50, 99].map(|percent| times[ANSWERS * percent / 100 - 1])
}

#[test]
fn billing_of_a_tenant_with_a_million_events_takes_milliseconds() {
    let events: u64 = if full() { 1_000_000 } else { 40_000 };
    let provider = Provider::start(honest);
    let database = Database::new();
    for url in [None, Some(database.url.as_str())] {
        let setup = Setup::new(&provider);
        let setup = if let Some(url) = url { setup.set("DATABASE_URL", url) } else { setup };
        let gateway = setup.prod().start();
        gateway.issue("acme", "pro");
        let middle = fill(url, &gateway, events);
        let name = url.map_or("sqlite", |_| "postgres");
        let months: Vec<String> = (1..=11).map(|month| format!("2026-{month:02}")).collect();
        let each = |target: &dyn Fn(&str) -> String| months.iter().map(|month| target(month)).collect::<Vec<String>>();
        let (mut told, mut slow) = (Vec::new(), Vec::new());
        for (what, targets) in [
            ("usage", each(&|month| format!("/billing/usage?range=month&date={month}&tenant_id=acme"))),
            ("by day", each(&|month| format!("/billing/usage?range=month&date={month}&group_by=day&tenant_id=acme"))),
            ("limits", vec!["/billing/limits?tenant_id=acme".to_owned()]),
            ("cost of all time", vec!["/billing/cost-report?range=all&tenant_id=acme".to_owned()]),
            ("first events", vec!["/billing/events?tenant_id=acme".to_owned()]),
            ("events after a cursor", vec![format!("/billing/events?tenant_id=acme&cursor={middle}")]),
            (
                "events of a month",
                each(&|month| {
                    format!("/billing/events?tenant_id=acme&from={month}-01T00:00:00Z&to={month}-28T00:00:00Z")
                }),
            ),
            (
                "last events of a day",
                each(&|month| {
                    format!("/billing/events?tenant_id=acme&from={month}-20T23:00:00Z&to={month}-21T00:00:00Z")
                }),
            ),
            ("an event", vec![format!("/billing/events/{middle}?tenant_id=acme")]),
        ] {
            let took = times(&gateway, &targets);
            let [half, most] = took.map(|took| format!("{}.{}", took.as_millis(), took.as_micros() % 1_000 / 100));
            told.push(format!("{what} {half}/{most}"));
            slow.extend((took[1] >= ANSWER_MAX).then_some(what));
        }
        let build = if is_release() { "release" } else { "debug" };
        figures(&format!("{name}, {events} events of one tenant, ms p50/p99 ({build} build): {}", told.join(", ")));
        assert!(!is_release() || slow.is_empty(), "{name}: {slow:?}");
    }
}

/// Books so many events beside the gateway; gives the id of the one in the middle.
fn fill(url: Option<&str>, gateway: &Gateway, events: u64) -> String {
    let file = format!("sqlite://{}", gateway.ledger_file().display());
    let variables = [
        ("DATABASE_URL".to_owned(), url.unwrap_or(&file).to_owned()),
        ("TOLLGATE_DATA_DIR".to_owned(), gateway.data_dir().display().to_string()),
    ];
    let config = Config::load(&[], &std::collections::BTreeMap::from(variables), None).unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let ledger = Ledger::open(&config, false, Duration::ZERO).await.unwrap();
        let usage = ledger.usage();
        for first in (0..events).step_by(2_000) {
            let batch: Vec<UsageEvent> = (first..first + 2_000).map(|number| of_a_year(number, events)).collect();
            assert_eq!(usage.append(&batch).await, Ok(2_000));
        }
        ledger.leave().await;
    });
    event(events / 2).id.to_string()
}
