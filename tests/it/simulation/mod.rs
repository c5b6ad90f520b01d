//! The simulation: the real metering code in a world that fails, delays, tears, forgets and kills, all from one seed.
//!
//! What runs is the gateway's own: `Meter`, `InFlight`, `Recorder`, `Fresh`, `FileJournal`, `MemoryCounters` and the steps
//! of its start. What is made up is around it: the clock, the disk below the journal, the ledger, the provider, the client
//! (`call`: what the edge does with an exchange), the operator (`story`) and death. A `model` knows from the outside what
//! must be booked, and every promise is checked against it:
//!
//! - each call that reached the provider is booked exactly once, and no other; only a power cut may lose one, and only one
//!   that the last sync did not cover; in `strict` none;
//! - a call that was settled is booked with the provider's own tokens, to the unit, and its cost to the pico-dollar;
//! - the provider never sees more chats than a limit, and a chat is refused only if the limit is used up;
//! - no limit of tokens or cost is passed, of a tenant or a user, where calls hold the most that they can use, and a call is
//!   refused only if it does not fit;
//! - what the provider finishes later is billed once, whichever nodes ask for it;
//! - when all is over, nothing is held, counters and sums are those of the calls, and the journal is empty;
//! - a ledger that is away refuses nobody; a disk that is full or failed serves again without a restart.
//!
//! A task is polled by chance, time is tokio's paused clock, and a process may die before each step, inside each
//! operation of its disk and on both sides of each commit (`executor`, `world::Death`). The alternatives were turmoil,
//! which simulates networks, and loom, which tries every interleaving of a few lines: neither kills processes or disks.
//!
//! `TOLLGATE_SEEDS=n` sets how many seeds run (1,000; 10,000 with `TOLLGATE_TEST_FULL=1`), from `TOLLGATE_FIRST_SEED` on;
//! `TOLLGATE_SEED=n` runs one and tells its story.

mod bills;
mod budgets;
mod bugs;
mod call;
mod chance;
mod disk;
mod executor;
mod found;
mod ledger;
mod life;
mod model;
mod node;
mod peace;
mod ports;
mod story;
mod tally;
mod tenants;
mod wire;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use super::support::machine::{figures, full};

use bugs::Bug;
use world::{Figures, Kind, World};

/// What became of one seed.
struct Run {
    figures: Figures,
    digest: u64,
    failure: Option<String>,
}

fn run(seed: u64, kind: Kind, bug: Option<Bug>, trace: bool) -> Run {
    let told = std::cell::RefCell::new(None);
    let ran = catch_unwind(AssertUnwindSafe(|| {
        executor::run(|| {
            let world = World::new(seed, kind, bug, trace);
            *told.borrow_mut() = Some(world.clone());
            world
        });
    }));
    let world = told.take().expect("a world");
    let panic = ran.err().map(|panic| match panic.downcast::<String>() {
        Ok(words) => format!("panic: {words}"),
        Err(panic) => format!("panic: {:?}", panic.downcast_ref::<&str>()),
    });
    let figures = *world.figures.lock();
    let figures = Figures { faults: world.faults(), ..figures };
    Run { figures, digest: world.digest(), failure: panic.or_else(|| world.failure()) }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// More failures than this tell nothing more.
const FAILURES_MAX: usize = 10;

/// The command that tells the story of a seed.
fn replay(seed: u64, kind: Kind) -> String {
    let test = if kind == Kind::One { "whatever" } else { "however_many" };
    format!("TOLLGATE_SEED={seed} cargo test --test it simulation::{test} -- --nocapture")
}

/// Runs seeds on every core; tells and gives the first that fail.
fn run_all(seeds: std::ops::Range<u64>, kind: Kind) -> (Figures, Vec<u64>) {
    let (next, total, failed) = (AtomicU64::new(seeds.start), Mutex::new(Figures::default()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failed.lock().unwrap().len() >= FAILURES_MAX {
                        return;
                    }
                    let run = run(seed, kind, None, false);
                    total.lock().unwrap().add(&run.figures);
                    if let Some(failure) = run.failure {
                        println!("seed {seed}: {failure}\n  {}", replay(seed, kind));
                        failed.lock().unwrap().push(seed);
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    (total.into_inner().unwrap(), failed)
}

/// Runs the seeds that were asked for. `None`: it was one, and its story is told.
fn run_asked(kind: Kind, seeds: u64) -> Option<(u64, Figures)> {
    if let Some(seed) = number("TOLLGATE_SEED") {
        let failure = run(seed, kind, None, true).failure;
        assert_eq!(failure, None, "seed {seed}");
        return None;
    }
    let seeds = number("TOLLGATE_SEEDS").unwrap_or(seeds);
    let first = number("TOLLGATE_FIRST_SEED").unwrap_or(0);
    let (total, failed) = run_all(first..first + seeds, kind);
    let commands: Vec<String> = failed.into_iter().map(|seed| replay(seed, kind)).collect();
    assert!(commands.is_empty(), "these seeds fail, and replay:\n{}", commands.join("\n"));
    Some((seeds, total))
}

#[test]
fn whatever_breaks_every_call_is_booked_exactly_once() {
    let began = Instant::now();
    let Some((seeds, total)) = run_asked(Kind::One, if full() { 10_000 } else { 1_000 }) else { return };
    let Figures { calls, reached, booked, kills, power_cuts, faults, lost_to_power, .. } = total;
    figures(&format!(
        "simulation: {seeds} seeds, {calls} calls, {reached} reached the provider, {booked} booked, {kills} kills, {power_cuts} of them power cuts, {faults} faults; lost 0, twice 0, {lost_to_power} not yet synced when the power was cut; {} s",
        began.elapsed().as_secs()
    ));
}

#[test]
fn however_many_nodes_share_counters_no_limit_is_passed() {
    let began = Instant::now();
    let Some((seeds, total)) = run_asked(Kind::Many, if full() { 4_000 } else { 300 }) else { return };
    let Figures { calls, reached, booked, kills, faults, forgotten, built, from_lease, over, .. } = total;
    figures(&format!(
        "simulation of 1 to 4 nodes: {seeds} seeds, {calls} calls, {reached} reached the provider, {booked} booked, {kills} kills, {faults} faults; counters forgotten {forgotten} times and built {built} times; {from_lease} calls from leases; lost 0, twice 0, above a limit 0, while nodes were dead or silent {over} at most; {} s",
        began.elapsed().as_secs()
    ));
}

#[test]
fn a_seed_replays_to_the_last_step() {
    for (seed, kind) in (0..40).map(|seed| (seed, Kind::One)).chain((0..20).map(|seed| (seed, Kind::Many))) {
        let [first, second] = [run(seed, kind, None, false), run(seed, kind, None, false)];
        assert_eq!(first.digest, second.digest, "seed {seed} of {kind:?}");
    }
}

/// The begin of a failure says what it is.
const FAILURE_CHARS_MAX: usize = 100;

/// Seeds among which a planted bug must be seen.
const PLANTED_SEEDS_MAX: u64 = 1_000;

/// The first seed that sees a planted bug; the same seed sees nothing without it.
fn check_planted(kind: Kind, bug: Bug) {
    let seen = (0..PLANTED_SEEDS_MAX).find_map(|seed| Some((seed, run(seed, kind, Some(bug), false).failure?)));
    let Some((seed, failure)) = seen else { panic!("{bug:?} is seen by none of {PLANTED_SEEDS_MAX} seeds") };
    let failure: String = failure.chars().take(FAILURE_CHARS_MAX).collect();
    figures(&format!("simulation: planted bug {bug:?} is seen by seed {seed}: {failure}"));
    assert_eq!(run(seed, kind, None, false).failure, None, "seed {seed} without {bug:?}");
}

#[test]
fn a_call_that_is_settled_twice_is_seen() {
    check_planted(Kind::One, Bug::SettledTwice);
}

#[test]
fn a_call_that_is_dropped_on_abort_is_seen() {
    check_planted(Kind::One, Bug::DroppedOnAbort);
}

#[test]
fn a_journal_that_is_truncated_before_the_commit_is_seen() {
    check_planted(Kind::One, Bug::AckedBeforeCommit);
}

#[test]
fn a_counter_that_is_assumed_0_is_seen() {
    check_planted(Kind::One, Bug::CountersFromZero);
}

#[test]
fn a_ledger_that_books_again_is_seen() {
    check_planted(Kind::One, Bug::LedgerBooksAgain);
}

#[test]
fn a_hold_that_is_forgotten_is_seen() {
    check_planted(Kind::One, Bug::HoldForgotten);
}

#[test]
fn a_sync_that_does_nothing_is_seen() {
    check_planted(Kind::One, Bug::SyncThatDoesNot);
}

#[test]
fn a_difference_that_is_kept_is_seen() {
    check_planted(Kind::One, Bug::DifferenceIsKept);
    check_planted(Kind::Many, Bug::DifferenceIsKept);
}

#[test]
fn money_that_is_not_held_is_seen() {
    check_planted(Kind::One, Bug::MoneyNotHeld);
    check_planted(Kind::Many, Bug::MoneyNotHeld);
}

#[test]
fn bills_that_are_counted_twice_are_seen() {
    check_planted(Kind::Many, Bug::BillsCountedTwice);
}

#[test]
fn users_that_are_not_counted_are_seen() {
    check_planted(Kind::One, Bug::UsersNotCounted);
}

#[test]
fn a_store_that_loses_a_hold_is_seen() {
    check_planted(Kind::Many, Bug::StoreLosesAHold);
}

#[test]
fn counters_that_are_seeded_twice_are_seen() {
    check_planted(Kind::Many, Bug::SeededTwice);
}

#[test]
fn a_finish_that_ignores_what_the_ledger_has_is_seen() {
    check_planted(Kind::Many, Bug::FinishIgnoresKnown);
}

#[test]
fn joins_that_are_not_waited_for_are_seen() {
    check_planted(Kind::Many, Bug::JoinsNotWaitedFor);
}

#[test]
fn a_late_message_that_is_done_after_all_is_seen() {
    check_planted(Kind::Many, Bug::LateMessageIsDone);
}

#[test]
fn leases_that_never_end_are_seen() {
    check_planted(Kind::Many, Bug::LeasesNeverEnd);
}
