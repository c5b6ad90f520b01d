//! What the simulation found, each as a story of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::FutureExt;
use tollgate::adapters::file_journal::{BYTES_MIN, FileJournal, Options, Recovered};
use tollgate::domain::event::{Outcome, UsageEvent};
use tollgate::domain::ids::EventId;
use tollgate::ports::journal::Journal;

use super::super::conformance::event;
use super::disk::Platter;
use super::node::Node;
use super::world::{Kind, World};

/// A disk and the journals that are opened on it, one after the other.
struct Bench {
    node: Arc<Node>,
    platter: Arc<Platter>,
    strict: bool,
}

/// Tells a story within a runtime, whose clock stands still.
fn tell(seed: u64, strict: bool, story: impl FnOnce(&Bench)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let _entered = runtime.enter();
    let node = Node::new(&World::new(seed, Kind::One, None, false), 0);
    let platter = Platter::new(&node);
    story(&Bench { node, platter, strict });
}

impl Bench {
    fn open(&self) -> (FileJournal, Recovered) {
        self.node.revive();
        let disk = self.platter.of_life(self.node.begin_life());
        FileJournal::open(disk, Options { bytes_max: BYTES_MIN, strict: self.strict }).unwrap()
    }

    fn cut_power(&self, journal: FileJournal) {
        self.node.die();
        drop(journal);
        self.platter.power_cut();
    }
}

fn settle(journal: &FileJournal, number: u64) {
    let slot = journal.admit(&event(number)).unwrap();
    journal.settle(slot, &event(number));
}

fn waiting(journal: &FileJournal) -> Vec<EventId> {
    let mut waiting = Vec::new();
    journal.waiting(&mut |event: UsageEvent| waiting.push(event.id)).unwrap();
    waiting
}

#[test]
fn a_power_cut_takes_nothing_that_a_start_has_found() {
    for seed in 0..20 {
        tell(seed, false, |bench| {
            let (journal, _) = bench.open();
            (0..10).for_each(|number| settle(&journal, number));
            // Killed before the first sync.
            bench.node.die();
            drop(journal);
            let (journal, recovered) = bench.open();
            assert_eq!(recovered.settled, 10);
            bench.cut_power(journal);
            let (journal, _) = bench.open();
            assert_eq!(waiting(&journal).len(), 10, "seed {seed}");
        });
    }
}

#[test]
fn what_the_first_sync_of_a_segment_loses_is_written_again() {
    for seed in 0..20 {
        tell(seed, false, |bench| {
            let (journal, _) = bench.open();
            (0..10).for_each(|number| settle(&journal, number));
            bench.node.broken.syncs.store(true, Relaxed);
            journal.maintain();
            bench.node.broken.syncs.store(false, Relaxed);
            journal.maintain();
            bench.cut_power(journal);
            let (journal, _) = bench.open();
            let ids: BTreeSet<EventId> = waiting(&journal).into_iter().collect();
            assert_eq!(ids.len(), 10, "seed {seed}");
        });
    }
}

#[test]
fn strict_waits_for_a_settlement_that_the_disk_did_not_take() {
    tell(0, true, |bench| {
        let (journal, _) = bench.open();
        settle(&journal, 0);
        let slot = journal.admit(&event(1)).unwrap();
        journal.maintain();
        bench.node.broken.writes.store(true, Relaxed);
        let position = journal.settle(slot, &event(1));
        assert!(journal.durable(position).now_or_never().is_none());
        journal.maintain();
        assert!(journal.durable(position).now_or_never().is_none(), "it is in memory still");
        bench.node.broken.writes.store(false, Relaxed);
        journal.maintain();
        assert_eq!(journal.durable(position).now_or_never(), Some(true));
    });
}

#[test]
fn a_segment_whose_head_cannot_be_written_leaves_no_file() {
    for seed in 0..20 {
        tell(seed, false, |bench| {
            let (journal, _) = bench.open();
            bench.node.broken.writes.store(true, Relaxed);
            for _ in 0..10 {
                assert!(journal.admit(&event(0)).is_err());
                journal.maintain();
            }
            assert_eq!(bench.platter.names(), Vec::<String>::new());
            bench.node.broken.writes.store(false, Relaxed);
            journal.maintain();
            settle(&journal, 0);
        });
    }
}

#[test]
fn a_refused_call_is_not_booked_though_its_admission_was_written() {
    for seed in 0..20 {
        tell(seed, false, |bench| {
            let (journal, _) = bench.open();
            settle(&journal, 0);
            // It may write all of it and fail all the same.
            bench.node.broken.writes.store(true, Relaxed);
            assert!(journal.admit(&event(1)).is_err());
            bench.node.broken.writes.store(false, Relaxed);
            journal.maintain();
            bench.node.die();
            drop(journal);
            let (journal, recovered) = bench.open();
            assert_eq!((waiting(&journal).len(), recovered.interrupted), (1, 0), "seed {seed}");
        });
    }
}

#[test]
fn an_event_in_quarantine_is_not_booked_as_it_was_admitted() {
    for seed in 0..20 {
        tell(seed, false, |bench| {
            let (journal, _) = bench.open();
            let slot = journal.admit(&UsageEvent { outcome: Outcome::Interrupted, ..event(1) }).unwrap();
            journal.maintain();
            // The ledger refuses it before the next sync.
            journal.settle(slot, &event(1));
            journal.quarantine(&event(1), "a sum would not fit").unwrap();
            bench.cut_power(journal);
            let (journal, recovered) = bench.open();
            assert_eq!((recovered.interrupted, recovered.requeued), (0, 1), "seed {seed}");
            let mut as_settled = true;
            journal.waiting(&mut |waiting| as_settled &= waiting == event(1)).unwrap();
            assert!(as_settled, "seed {seed}");
        });
    }
}

#[test]
fn what_is_written_again_into_a_segment_whose_sync_failed_is_synced() {
    for seed in 0..20 {
        tell(seed, false, |bench| {
            let (journal, _) = bench.open();
            // More than half of a segment is taken, so there is a spare one, and its sync fails, too.
            (0..150).for_each(|number| settle(&journal, number));
            journal.maintain();
            bench.node.broken.syncs.store(true, Relaxed);
            (150..160).for_each(|number| settle(&journal, number));
            (0..3).for_each(|_| journal.maintain());
            bench.node.broken.syncs.store(false, Relaxed);
            (0..2).for_each(|_| journal.maintain());
            bench.cut_power(journal);
            let (journal, _) = bench.open();
            let ids: BTreeSet<EventId> = waiting(&journal).into_iter().collect();
            assert_eq!(ids.len(), 160, "seed {seed}");
        });
    }
}
