//! `tollgate verify`: everything that has to be equal, compared, beside a gateway that serves or without one.
//!
//! May use: everything. Nothing is written: the journal is only read, and the ledger is read in one transaction.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::runtime::Builder;
use tokio::sync::mpsc;

use crate::adapters::file_journal::disk::{Disk, Folder};
use crate::adapters::file_journal::{Damage, Stored, survey};
use crate::boot;
use crate::boot::ledger::{Ledger, PATIENCE_OF_COMMANDS};
use crate::config::Config;
use crate::edge::api::wire::counters::CountersBody;
use crate::metering::verify::counters::{CountersCheck, CountersFacts, CountersView};
use crate::metering::verify::journal::{JournalCheck, JournalFacts};
use crate::metering::verify::ledger::{self, LedgerFacts};
use crate::metering::verify::{Difference, Differences, Kind};
use crate::ports::StoreError;
use crate::ports::usage::UsageStore;

use super::Failure;
use super::asking::Listener;
use super::output::Output;
use super::progress::{Elsewhere, Progress};

/// What `tollgate verify --help` ends with.
pub(super) const EXAMPLES: &str = "\
Compared are: every day and month sum with its events, every event with what an event can be, the files of the ledger, \
every settled call of the journal with the ledger, and the counters of the gateway that serves from the data directory. \
It may serve meanwhile: nothing waits for this.

Exit code: 0 nothing differs, 1 something does or cannot be read, 2 a mistake in the command line.

Examples:
  tollgate verify
  tollgate verify --json | jq '.differences[]'
  tollgate verify --config tollgate.toml --set listen.admin=127.0.0.1:9191";

/// Records of the journal on their way from the thread that reads to the one that compares.
const RECORDS_WAITING_MAX: usize = 1_024;

/// How often what looks damaged is read again: a record that is being written looks so for some microseconds.
const READ_AGAIN_MAX: u32 = 3;

/// Between two looks at what moves.
const PAUSE: Duration = Duration::from_millis(50);

/// The answer with all counters: a million of them.
const COUNTERS_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Everything that was found.
struct Report {
    differences: Differences,
    journal: JournalFacts,
    ledger: LedgerFacts,
    counters: Counters,
    took: Duration,
}

/// What became of the counters.
enum Counters {
    Compared(CountersFacts),
    /// There are none: they live in a gateway, and none serves.
    NoGateway,
    /// Why not.
    NotCompared(String),
}

/// Compares; any difference is a failure.
pub(super) fn verify(config: &Config, output: Output) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the system refused a runtime: {error}: raise the limits of this user (ulimit -a)"))?;
    let report = runtime.block_on(compare(config))?;
    output.print(&document(&report), || text(&report))?;
    // What differs was told; the exit code says that there was something.
    if report.differences.total() == 0 { Ok(()) } else { Err(Failure(Vec::new())) }
}

async fn compare(config: &Config) -> Result<Report, Failure> {
    let ledger = Ledger::open(config, false, PATIENCE_OF_COMMANDS).await?;
    let report = compare_with(config, &*ledger.usage()).await;
    ledger.leave().await;
    report
}

async fn compare_with(config: &Config, store: &dyn UsageStore) -> Result<Report, Failure> {
    let started = Instant::now();
    let failed = |error: StoreError| Failure::from(format!("ledger {}: {error}", boot::ledger::name(&config.ledger)));
    store.ready().await.map_err(failed)?;
    let served = boot::is_served(&config.data_dir);
    let served = served.map_err(|error| format!("{}/lock: {error}", config.data_dir.display()))?;
    let mut differences = Differences::default();
    let journal = journal(config, store, served, &mut differences).await?;
    let mut progress = Progress::new(Elsewhere::Nothing);
    let ledger =
        ledger::compare(store, &mut differences, &mut |done, of| progress.tell("compare", done, of, "events")).await;
    progress.end();
    let ledger = ledger.map_err(failed)?;
    let counters = counters(config, store, (&ledger, &journal), served, &mut differences).await;
    Ok(Report { differences, journal, ledger, counters, took: started.elapsed() })
}

/// Reads the journal in a thread of its own and compares each record. Before the ledger is: see the module that compares.
async fn journal(
    config: &Config,
    store: &dyn UsageStore,
    served: bool,
    differences: &mut Differences,
) -> Result<JournalFacts, Failure> {
    let path = boot::journal_dir(config);
    let unreadable = |error: io::Error| Failure::from(format!("journal {}: {error}", path.display()));
    let failed = |error: StoreError| Failure::from(format!("ledger {}: {error}", boot::ledger::name(&config.ledger)));
    let Some(folder) = Folder::open_existing(&path).map_err(unreadable)? else { return Ok(JournalFacts::default()) };
    let folder = Arc::new(folder);
    let (send, mut records) = mpsc::channel(RECORDS_WAITING_MAX);
    let reader = thread::spawn({
        let folder = folder.clone();
        // A receiver that is gone has failed, and says why.
        move || survey(&*folder, |stored| send.blocking_send(stored).unwrap_or_default())
    });
    let mut check = JournalCheck::new(store, differences);
    while let Some(stored) = records.recv().await {
        match stored {
            Stored::Settled(event, booked) => check.settled(event, booked).await,
            Stored::Open(event) => {
                check.open(&event);
                Ok(())
            }
            Stored::Quarantined(event, reason) => check.quarantined(&event, &reason).await,
        }
        .map_err(failed)?;
    }
    let facts = check.finish().await.map_err(failed)?;
    let read = reader.join().map_err(|_| Failure::from("the journal's reader ended early".to_owned()))?;
    let damages = lasting(&folder, read.map_err(unreadable)?, served).map_err(unreadable)?;
    for Damage { file, offset, bytes, torn } in damages {
        let place = format!("journal {} offset {offset}", path.join(file).display());
        let found = if torn { "bytes of a record that was not written whole" } else { "bytes that are no records" };
        differences.add(Kind::Damage, place, "records", ("whole ones", format!("{bytes} {found}")));
    }
    for name in folder.list().map_err(unreadable)?.into_iter().filter(|name| name.ends_with(".damaged")) {
        let found = "a segment that was damaged and put aside; remove it when you are done with it";
        differences.add(Kind::Damage, format!("journal {}", path.join(name).display()), "file", ("none", found));
    }
    Ok(facts)
}

/// What is still damaged when it is read again: beside a gateway that writes, the newest record may be half there.
fn lasting(disk: &Folder, mut damages: Vec<Damage>, served: bool) -> io::Result<Vec<Damage>> {
    for _ in 0..READ_AGAIN_MAX {
        if damages.is_empty() || !served {
            break;
        }
        thread::sleep(PAUSE);
        let now = survey(disk, |_| {})?;
        damages.retain(|one| now.iter().any(|other| (&other.file, other.offset) == (&one.file, one.offset)));
    }
    Ok(damages)
}

/// Asks the gateway again and again, until its counters are known to be right or wrong.
async fn counters(
    config: &Config,
    store: &dyn UsageStore,
    (ledger, journal): (&LedgerFacts, &JournalFacts),
    served: bool,
    differences: &mut Differences,
) -> Counters {
    if !served {
        return Counters::NoGateway;
    }
    let mut check = CountersCheck::new(store, ledger, journal);
    loop {
        let looked = match ask(config, store).await {
            Ok(view) => check.look(view).await.map_err(|error| error.to_string()),
            Err(reason) => Err(reason),
        };
        match looked {
            Err(reason) => return Counters::NotCompared(reason),
            Ok(false) => break,
            Ok(true) => tokio::time::sleep(PAUSE).await,
        }
    }
    let facts = check.finish(differences);
    if facts.behind {
        return Counters::NotCompared("the gateway's ledger is behind its calls; look at its /readyz".to_owned());
    }
    Counters::Compared(facts)
}

async fn ask(config: &Config, store: &dyn UsageStore) -> Result<CountersView, String> {
    const PATH: &str = "/admin/counters";
    let listener = Listener::admin(config).map_err(|Failure(lines)| lines.join("; "))?;
    let url = listener.url(PATH);
    let key = boot::known_admin_key(config);
    let key = key.map_err(|error| format!("the admin key is not known ({error}): set TOLLGATE_ADMIN_KEY"))?;
    let answer = listener.get(PATH, Some(key.expose_secret()), COUNTERS_BYTES_MAX).map_err(|error| {
        format!("a gateway serves, but not at {listener}: {error}: name its listener with --set listen.admin=IP:PORT")
    })?;
    if answer.status != 200 {
        return Err(format!("{url} answers {}: is it this gateway, and its admin key?", answer.status));
    }
    let body: CountersBody = serde_json::from_slice(&answer.body).map_err(|error| format!("{url}: {error}"))?;
    let view = CountersView::try_from(body)?;
    let own = store.ledger_id().await.map_err(|error| error.to_string())?;
    if view.ledger_id != own {
        return Err(format!("the gateway at {listener} books in another ledger"));
    }
    Ok(view)
}

fn document(report: &Report) -> Value {
    let Report { differences, journal, ledger, counters, took } = report;
    let difference = |difference: &Difference| {
        let Difference { kind, place, what, expected, found } = difference;
        json!({"kind": kind.as_str(), "where": place, "what": what, "expected": expected, "found": found})
    };
    let counters = match counters {
        Counters::Compared(facts) => counters_document(*facts, None),
        Counters::NoGateway => counters_document(CountersFacts::default(), Some("no gateway serves")),
        Counters::NotCompared(reason) => counters_document(CountersFacts::default(), Some(reason)),
    };
    json!({
        "ok": differences.total() == 0,
        "difference_count": differences.total(),
        "differences": differences.kept().iter().map(difference).collect::<Vec<_>>(),
        "ledger": {"events": ledger.events, "day_sums": ledger.days, "month_sums": ledger.months},
        "journal": {
            "settled": journal.settled, "waiting": journal.waiting, "in_flight": journal.open,
            "quarantined": journal.quarantined,
        },
        "counters": counters,
        "milliseconds": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    })
}

fn counters_document(facts: CountersFacts, not_compared: Option<&str>) -> Value {
    let CountersFacts { compared, moving, moving_off_max, rounds, behind: _ } = facts;
    let off_max = u64::try_from(moving_off_max).unwrap_or(u64::MAX);
    json!({
        "compared": compared, "moving": moving, "moving_off_max": off_max, "rounds": rounds,
        "not_compared": not_compared,
    })
}

fn text(report: &Report) -> String {
    let Report { differences, journal, ledger, counters, took } = report;
    let mut lines: Vec<String> = differences.kept().iter().map(ToString::to_string).collect();
    let told = u64::try_from(lines.len()).unwrap_or(u64::MAX);
    if differences.total() > told {
        lines.push(format!("… and {} more", differences.total().saturating_sub(told)));
    }
    let verdict = match differences.total() {
        0 => "No difference".to_owned(),
        1 => "1 difference".to_owned(),
        many => format!("{many} differences"),
    };
    let counters = match counters {
        Counters::Compared(CountersFacts { compared, moving: 0, .. }) => format!("{compared} counters"),
        Counters::Compared(CountersFacts { compared, moving, moving_off_max, .. }) => {
            format!("{compared} counters ({moving} more never rested; they are off by {moving_off_max} at most)")
        }
        Counters::NoGateway => "no counters, as no gateway serves".to_owned(),
        Counters::NotCompared(reason) => format!("no counters: {reason}"),
    };
    let LedgerFacts { events, days, months, .. } = ledger;
    let JournalFacts { settled, waiting, open, .. } = journal;
    let (seconds, tenths) = (took.as_secs(), took.subsec_millis() / 100);
    lines.push(format!(
        "{verdict} in {events} events, {days} day sums, {months} month sums, {settled} calls of the journal ({waiting} \
         not booked yet, {open} in flight), {counters}; {seconds}.{tenths} s."
    ));
    lines.join("\n")
}
