//! A byte of the journal is flipped: whichever it is, the gateway starts, books every call exactly whose record was not
//! hit, books nothing twice and nothing that nobody called, and says that there is damage.
//!
//! Every 16th byte or so in an ordinary run, each one with `TOLLGATE_TEST_FULL=1` (`tests/run --full`).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::support::audit::Ledger;
use super::support::load::{self, End, Made, Paused, Tenant};
use super::support::machine::{Chance, figures, full};
use super::support::provider::Seen;
use super::support::*;

/// Bytes from one flip to the next in an ordinary run.
const STRIDE: usize = 16;
/// Calls that are settled before the process is killed.
const SETTLED: usize = 3;
/// Every so many flips the gateway is used, ended and started again.
const USED_ONE_IN: usize = 8;
const WORKERS: usize = 2;

/// A journal that a killed gateway left, with nothing of it in the ledger.
struct Left {
    provider: Provider,
    tenant: Tenant,
    gateway: Gateway,
    made: Vec<Made>,
    seen: Vec<Seen>,
    /// How far each file of the journal was written after each settled call.
    marks: Vec<Vec<(PathBuf, usize)>>,
}

/// The files of a journal and how far each is written: beyond that are zeros.
fn written(journal: &Path) -> Vec<(PathBuf, usize)> {
    let mut files: Vec<_> = fs::read_dir(journal).expect("a journal").map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let used = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        (path, used)
    };
    files.into_iter().map(used).filter(|(_, used)| *used > 0).collect()
}

impl Left {
    fn make() -> Self {
        let provider = Provider::start(load::charging);
        let mut gateway = Setup::new(&provider).prod().start();
        let tenant = load::tenants(&gateway, &[("acme", "pro")])[0].clone();
        let lock = Ledger::locked(&gateway.ledger_file());
        let journal = gateway.data_dir().join("journal");
        let numbers = AtomicU64::new(0);
        let (mut made, mut marks) = (Vec::new(), Vec::new());
        for _ in 0..SETTLED {
            made.push(load::call_once(&gateway, &tenant, &numbers));
            assert_eq!(made.last().map(|made| made.end), Some(End::Whole));
            marks.push(written(&journal));
        }
        let stream = Paused::open(&gateway, &provider, &tenant, &numbers, 1);
        gateway.kill();
        made.extend(stream.give_up());
        drop(lock);
        let seen = provider.seen();
        Self { provider, tenant, gateway, made, seen, marks }
    }

    /// The calls whose records byte `at` of `file` may be a part of, by their places in `made`.
    fn hit(&self, file: &Path, at: usize) -> Vec<usize> {
        // A record may end in zeros, which cannot be told from what is not written yet: of an ordinary call all that stands
        // behind its status may be none (quantities, what it corrects, its offset), a byte each.
        const ZEROS_MAX: usize = 24;
        let end = |call: usize| self.marks[call].iter().find(|(path, _)| path == file).map_or(0, |(_, used)| *used);
        let begins = |call: usize| if call == 0 { 0 } else { end(call - 1) };
        let ends = |call: usize| if call == SETTLED { usize::MAX } else { end(call) + ZEROS_MAX };
        (0..=SETTLED).filter(|call| (begins(*call)..ends(*call)).contains(&at)).collect()
    }

    fn start(&self, data: &Path) -> Gateway {
        Setup::new(&self.provider).prod().set("TOLLGATE_DATA_DIR", data.to_str().unwrap()).start()
    }

    /// Flips one bit of a copy, starts on it, and looks. Gives how long the start took.
    fn check(&self, flip: &Flip) -> Duration {
        let copy = TempDir::new().unwrap();
        let data = copy.path().join("data");
        copy_tree(self.gateway.data_dir(), &data);
        let path = data.join(flip.file.strip_prefix(self.gateway.data_dir()).unwrap());
        let mut bytes = fs::read(&path).unwrap();
        bytes[flip.at] ^= flip.bits;
        fs::write(&path, bytes).unwrap();

        let mut gateway = self.start(&data);
        load::caught_up(&gateway);
        let events = {
            let mut ledger = Ledger::open(&gateway.ledger_file());
            ledger.demand_right_sums();
            ledger.events()
        };
        // Whose record is hit may be lost or estimated; every other call is there, exactly.
        let hit = self.hit(&flip.file, flip.at);
        let is_hit = |number: u64| hit.iter().any(|call| self.made[*call].number == number);
        let may_be_lost =
            |made: &Made| Made { end: if is_hit(made.number) { End::Left } else { made.end }, ..made.clone() };
        let made: Vec<Made> = self.made.iter().map(may_be_lost).collect();
        let seen: Vec<_> = self.seen.iter().filter(|seen| !is_hit(load::number_of_seen(seen))).cloned().collect();
        load::account(&made, &seen, &events, &[]);
        // A flip in the last record looks as if it had not been written to its end.
        let log = gateway.log().to_lowercase();
        let is_told = ["damage", "not written whole"].iter().any(|words| log.contains(words));
        assert!(is_told, "{flip:?}: no word of the damage:\n{log}");
        if flip.is_used {
            let numbers = AtomicU64::new(1_000);
            let more = load::call_once(&gateway, &self.tenant, &numbers);
            assert_eq!(more.end, End::Whole, "{flip:?}");
            gateway.kill();
            gateway = self.start(&data);
            load::caught_up(&gateway);
            let again = Ledger::open(&gateway.ledger_file()).events();
            assert_eq!(again.len(), events.len() + 1, "{flip:?}: {again:?}");
            assert_eq!(again[..events.len()], events, "{flip:?}");
        }
        let started_in = gateway.started_in;
        gateway.kill();
        started_in
    }
}

#[derive(Debug)]
struct Flip {
    file: PathBuf,
    at: usize,
    bits: u8,
    /// Whether the gateway is used after that.
    is_used: bool,
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_flipped_byte_anywhere_in_the_journal_costs_at_most_the_call_it_is_of() {
    let left = Left::make();
    let mut chance = Chance::new();
    // Nothing flipped: all of it is found, and the call that was in flight is interrupted.
    let copy = TempDir::new().unwrap();
    let data = copy.path().join("data");
    copy_tree(left.gateway.data_dir(), &data);
    let mut gateway = left.start(&data);
    load::caught_up(&gateway);
    let events = Ledger::open(&gateway.ledger_file()).events();
    let account = load::account(&left.made, &left.seen, &events, &[]);
    assert_eq!((account.whole, account.booked, account.interrupted), (SETTLED, SETTLED + 1, 1), "{account:?}");
    gateway.kill();

    let mut flips = Vec::new();
    for (file, used) in written(&left.gateway.data_dir().join("journal")) {
        let mut at = 0;
        while at < used {
            let bits = 1 << chance.below(8);
            flips.push(Flip { file: file.clone(), at, bits, is_used: flips.len() % USED_ONE_IN == 0 });
            at += if full() { 1 } else { 1 + usize::try_from(chance.below(2 * STRIDE as u64 - 1)).unwrap() };
        }
    }
    let next = AtomicUsize::new(0);
    let slowest = thread::scope(|scope| {
        let worker = || {
            let mut slowest = Duration::ZERO;
            while let Some(flip) = flips.get(next.fetch_add(1, Ordering::SeqCst)) {
                slowest = slowest.max(left.check(flip));
            }
            slowest
        };
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().expect("no flip does harm")).max().unwrap_or_default()
    });
    figures(&format!(
        "journal flips: seed {}, {} flips, all started, calls lost that were not hit 0, twice 0, slowest restart {} ms",
        chance.seed,
        flips.len(),
        slowest.as_millis()
    ));
}
