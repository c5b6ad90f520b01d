//! Copies that are ended, taken up and measured.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection};
use tempfile::TempDir;
use tokio::runtime::Builder;
use tollgate::ports::transfer::Table;

use super::super::support::machine::{Chance, figures, full, until};
use super::super::support::postgres::Database;
use super::super::support::*;
use super::super::verify::{connect, tamper};
use super::{Home, command, copied, differences, refused, said, table};
use serde_json::Value;

/// Ample for a copy of some thousand rows on a machine that does other things.
const COPY_MAX: Duration = Duration::from_secs(120);

/// How many events the target has; 0 as long as it has no schema.
fn arrived(to: &dyn Fn(&str) -> Option<i64>) -> i64 {
    to("SELECT COUNT(*) FROM usage_events").unwrap_or(0)
}

fn ask_file(file: &Path, question: &str) -> Option<i64> {
    if !file.exists() {
        return None;
    }
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = connect(file).await;
        let answer = sqlx::query_scalar(AssertSqlSafe(question.to_owned())).fetch_one(&mut connection).await.ok();
        connection.close().await.unwrap();
        answer
    })
}

fn ask_database(database: &Database, question: &str) -> Option<i64> {
    database.try_say(question).ok().map(|answer| answer.parse().unwrap())
}

struct Running(Child);

impl Running {
    fn start(from: &str, to: &str) -> Self {
        Self(command(from, to).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Kills copies again and again, some of them once events have arrived; then lets one end.
fn kill_and_take_up(from: &str, to: &str, events: i64, ask: &dyn Fn(&str) -> Option<i64>) -> (u32, Value) {
    let mut chance = Chance::new();
    let mut halves = 0;
    for _ in 0..3 {
        let running = Running::start(from, to);
        std::thread::sleep(Duration::from_millis(chance.below(120)));
        running.kill();
    }
    // Each of these adds at least a batch, and the last is far from the end.
    for _ in 0..3 {
        let before = arrived(ask);
        if before == events {
            break;
        }
        let running = Running::start(from, to);
        until("events arrive", COPY_MAX, || arrived(ask) > before);
        running.kill();
        let after = arrived(ask);
        assert!(before < after, "{before} {after}");
        halves += u32::from(after < events);
    }
    (halves, copied(from, to))
}

#[test]
fn a_copy_that_is_killed_again_and_again_goes_on_where_it_was() {
    let events = 24_000;
    let (home, database, back) = (Home::of(events), Database::new(), Home::empty());
    let all = i64::try_from(events).unwrap();
    let (there, document) =
        kill_and_take_up(&home.url(), &database.url, all, &|question| ask_database(&database, question));
    assert_eq!(document["run"], "taken up", "{document}");
    // What was there was not written again.
    let written = table(&document, Table::UsageEvents)["written"].as_u64().unwrap();
    assert!(written < events, "{written} of {events}");
    let (here, document) =
        kill_and_take_up(&database.url, &back.url(), all, &|question| ask_file(&back.file(), question));
    assert_eq!(document["run"], "taken up", "{document}");
    assert!(there + here > 0, "no copy was killed half way");
    back.demand_no_difference();
    assert_eq!(home.rows(), back.rows());
    figures(&format!(
        "copy of {events} events: killed 12 times, {} of them with a part of the events there; equal to the bit",
        there + here
    ));
}

#[test]
fn nothing_else_opens_a_ledger_that_is_half_copied() {
    let (home, database, half) = (Home::of(12_000), Database::new(), Home::empty());
    for (to, ask) in [
        (database.url.clone(), &(|question: &str| ask_database(&database, question)) as &dyn Fn(&str) -> Option<i64>),
        (half.url(), &|question: &str| ask_file(&half.file(), question)),
    ] {
        let running = Running::start(&home.url(), &to);
        until("events arrive", COPY_MAX, || arrived(ask) > 0);
        running.kill();
        assert!(arrived(ask) < 12_000, "the copy was over");
        for arguments in [
            &["verify"][..],
            &["tenant", "list"],
            &["migrate"],
            &["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"],
        ] {
            let mut command = Command::new(binary());
            let directory = TempDir::new().unwrap();
            command
                .args(arguments)
                .env_clear()
                .env("DATABASE_URL", &to)
                .env("OPENAI_API_KEY", "sk-x")
                .env("TOLLGATE_DATA_DIR", directory.path());
            let output = command.output().unwrap();
            let said = said(&output);
            assert!(!output.status.success() && said.lines().count() == 1, "{arguments:?}: {said}");
            assert!(
                said.contains("a copy into this ledger is not finished; run the same `tollgate copy` again"),
                "{said}"
            );
        }
        // It is no source, and no target of another.
        refused(&to, &Home::empty().url(), &["is not finished"]);
        refused(&Home::of(1).url(), &to, &["unfinished copy of another ledger", "--from"]);
        assert_eq!(copied(&home.url(), &to)["run"], "taken up");
    }
}

#[test]
fn a_source_that_changes_before_a_copy_is_taken_up_is_noticed_and_made_up_for() {
    let (home, database) = (Home::of(12_000), Database::new());
    let running = Running::start(&home.url(), &database.url);
    until("events arrive", COPY_MAX, || ask_database(&database, "SELECT COUNT(*) FROM usage_events").unwrap_or(0) > 0);
    running.kill();
    // Rows that were copied already: one changes, one goes, one comes, two change places.
    tamper(
        &home.file(),
        "UPDATE usage_events SET model = 'other', requested_at = requested_at + 86400000000 WHERE row = 1; DELETE FROM usage_events WHERE row = 2;
         UPDATE usage_events SET row = -5 WHERE row = 3; UPDATE meta SET revision = revision + 1",
    );
    let (document, told) = differences(&home.url(), &database.url);
    assert_eq!(document["run"], "taken up");
    assert!(
        told.contains(&"usage_events 1 model gpt-4o-mini other".replace("gpt-4o-mini other", "other gpt-4o-mini")),
        "{told:?}"
    );
    assert!(told.contains(&"usage_events 2 row none one".to_owned()), "{told:?}");
    assert!(
        told.contains(&"usage_events -5 row one none".to_owned())
            && told.contains(&"usage_events 3 row none one".to_owned()),
        "{told:?}"
    );
    assert_eq!(told.len(), 5, "{told:?}");
    let document = copied(&home.url(), &database.url);
    assert_eq!(
        (&document["run"], &table(&document, Table::UsageEvents)["written"]),
        (&"taken up".into(), &4.into()),
        "{document}"
    );
    assert_eq!(copied(&home.url(), &database.url)["run"], "compared");
}

/// Runs a copy and gives how long it took and the most memory it had, in KiB.
fn measured(from: &str, to: &str) -> (Duration, u64) {
    let started = Instant::now();
    let mut child = command(from, to).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let path = format!("/proc/{}/status", child.id());
    let mut most = 0;
    let status = loop {
        let status = fs::read_to_string(&path).unwrap_or_default();
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .map(|line| line.trim().trim_end_matches(" kB").parse().unwrap());
        most = most.max(peak.unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let took = started.elapsed();
    let output = child.wait_with_output().unwrap();
    assert!(status.success(), "{}", said(&output));
    (took, most)
}

#[test]
fn a_million_events_are_copied_in_less_than_a_minute_and_little_memory() {
    let events = if full() { 1_000_000 } else { 20_000 };
    let (home, database, back) = (Home::of(events), Database::new(), Home::empty());
    let (there, memory_there) = measured(&home.url(), &database.url);
    let (here, memory_here) = measured(&database.url, &back.url());
    back.demand_no_difference();
    // SQLite is compiled without optimisation in a build for tests; the promise is that of a release.
    let (build, seconds_max) = if is_release() { ("release", 60) } else { ("debug", 1_800) };
    figures(&format!(
        "copy of {events} events, compared: SQLite to Postgres {} ms and {} MiB, back {} ms and {} MiB ({build} build)",
        there.as_millis(),
        memory_there / 1024,
        here.as_millis(),
        memory_here / 1024
    ));
    assert!(there.max(here).as_secs() < seconds_max, "{there:?} {here:?}");
    assert!(memory_there.max(memory_here) < 160 * 1024, "{memory_there} {memory_here} KiB");
    if events <= 20_000 {
        assert_eq!(home.rows(), back.rows());
    }
}
