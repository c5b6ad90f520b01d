//! What every [`Journal`] promises.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tempfile::TempDir;
use tollgate::adapters::file_journal::disk::Folder;
use tollgate::adapters::file_journal::{BYTES_MIN, FileJournal, Options};
use tollgate::domain::ids::EventId;
use tollgate::ports::journal::{Backlog, Batch, Journal, JournalFull};

use super::{event, event_id};

/// A journal, what it is told to do beside its work, and what must outlive it.
struct Store {
    journal: Arc<FileJournal>,
    _directory: TempDir,
}

impl std::ops::Deref for Store {
    type Target = Arc<FileJournal>;

    fn deref(&self) -> &Self::Target {
        &self.journal
    }
}

/// Every adapter, of the smallest size.
fn adapters() -> Vec<(&'static str, Store)> {
    let open = |strict| {
        let directory = tempfile::tempdir().unwrap();
        let disk = Arc::new(Folder::open(directory.path()).unwrap());
        let (journal, _) = FileJournal::open(disk, Options { bytes_max: BYTES_MIN, strict }).unwrap();
        Store { journal: Arc::new(journal), _directory: directory }
    };
    vec![("group", open(false)), ("strict", open(true))]
}

/// What the reader gets. A journal that never wakes its reader fails the test instead of hanging it.
async fn next(journal: &FileJournal, events_max: usize) -> Batch {
    tokio::time::timeout(Duration::from_secs(20), journal.next(events_max)).await.unwrap()
}

fn settle(journal: &FileJournal, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let slot = journal.admit(&event(number)).unwrap();
        journal.settle(slot, &event(number));
    }
}

fn ids(batch: &Batch) -> Vec<EventId> {
    batch.events.iter().map(|event| event.id).collect()
}

fn expected(numbers: std::ops::Range<u64>) -> Vec<EventId> {
    numbers.map(event_id).collect()
}

#[tokio::test]
async fn the_call_that_finds_no_room_is_refused_until_events_are_acknowledged() {
    for (name, journal) in adapters() {
        let mut admitted = Vec::new();
        while let Ok(slot) = journal.admit(&event(admitted.len() as u64)) {
            admitted.push(slot);
        }
        let calls = admitted.len() as u64;
        assert!(calls > 100, "{name}: {calls}");
        let backlog = journal.backlog();
        assert!(backlog.full && backlog.bytes <= backlog.bytes_max, "{name}: {backlog:?}");
        assert_eq!((backlog.events, backlog.in_flight), (0, calls), "{name}");
        // All of them have their room, though there is none for another.
        for (number, slot) in (0..).zip(admitted) {
            journal.settle(slot, &event(number));
        }
        let mut seen = 0;
        while seen < calls {
            let batch = next(&journal, 500).await;
            seen += batch.events.len() as u64;
            journal.ack(batch.through);
        }
        journal.maintain();
        settle(&journal, calls..calls + 100);
        assert!(!journal.backlog().full, "{name}");
    }
}

#[tokio::test]
async fn the_same_events_come_again_until_they_are_acknowledged() {
    for (name, journal) in adapters() {
        settle(&journal, 0..300);
        let first = next(&journal, 100).await;
        assert_eq!(ids(&first), expected(0..100), "{name}");
        settle(&journal, 300..310);
        assert_eq!(ids(&next(&journal, 100).await), expected(0..100), "{name}");
        // A reader may take smaller steps after a failure, and acknowledge a part.
        let part = next(&journal, 30).await;
        assert_eq!(ids(&part), expected(0..30), "{name}");
        journal.ack(part.through);
        assert_eq!(ids(&next(&journal, 1_000).await), expected(30..100), "{name}");
        journal.ack(first.through);
        assert_eq!(ids(&next(&journal, 1_000).await), expected(100..310), "{name}");
        assert_eq!(journal.backlog().events, 210, "{name}");
    }
}

#[tokio::test]
async fn every_event_comes_once_and_in_order_whatever_the_size_of_the_batches() {
    for events_max in [1, 7, 127, 128, 129, 500, 5_000] {
        for (name, journal) in adapters() {
            settle(&journal, 0..1_000);
            let mut seen = Vec::new();
            while seen.len() < 1_000 {
                let batch = next(&journal, events_max).await;
                assert!((1..=events_max).contains(&batch.events.len()), "{name} {events_max}");
                seen.extend(ids(&batch));
                journal.ack(batch.through);
                journal.ack(batch.through);
            }
            assert_eq!(seen, expected(0..1_000), "{name} {events_max}");
            let Backlog { events, waiting_us, in_flight, .. } = journal.backlog();
            assert_eq!((events, waiting_us, in_flight), (0, 0, 0), "{name} {events_max}");
        }
    }
}

#[tokio::test]
async fn what_was_not_given_out_cannot_be_acknowledged() {
    for (name, journal) in adapters() {
        settle(&journal, 0..3);
        journal.ack(journal.settled_through());
        assert_eq!(journal.backlog().events, 3, "{name}");
        let batch = next(&journal, 2).await;
        journal.ack(batch.through + 50);
        assert_eq!(ids(&next(&journal, 2).await), expected(2..3), "{name}");
    }
}

#[tokio::test]
async fn a_reader_waits_while_there_is_nothing_and_wakes_with_the_first_event() {
    for (name, journal) in adapters() {
        assert!(journal.next(10).now_or_never().is_none(), "{name}");
        let reader = Arc::clone(&journal.journal);
        let waiting = tokio::spawn(async move { next(&reader, 10).await });
        tokio::task::yield_now().await;
        settle(&journal, 0..1);
        assert_eq!(ids(&waiting.await.unwrap()), expected(0..1), "{name}");
    }
}

#[tokio::test]
async fn a_closed_journal_admits_nobody_and_ends_when_the_last_call_is_acknowledged() {
    for (name, journal) in adapters() {
        let in_flight = journal.admit(&event(1)).unwrap();
        let longest = journal.admit(&event(2)).unwrap();
        settle(&journal, 0..1);
        journal.close();
        assert_eq!(journal.admit(&event(3)).err(), Some(JournalFull), "{name}");
        let Backlog { events, in_flight: open, .. } = journal.backlog();
        assert_eq!((events, open), (1, 2), "{name}");

        let batch = next(&journal, 10).await;
        journal.ack(batch.through);
        assert!(journal.next(10).now_or_never().is_none(), "{name}: two calls are in flight");
        journal.settle(in_flight, &event(1));
        let batch = next(&journal, 10).await;
        assert_eq!(ids(&batch), expected(1..2), "{name}");
        journal.ack(batch.through);

        let reader = Arc::clone(&journal.journal);
        let waiting = tokio::spawn(async move { next(&reader, 10).await });
        tokio::task::yield_now().await;
        journal.settle(longest, &event(2));
        let batch = waiting.await.unwrap();
        assert_eq!(ids(&batch), expected(2..3), "{name}");
        journal.ack(batch.through);
        assert!(next(&journal, 10).await.events.is_empty(), "{name}: the end stays the end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_lose_nothing_to_one_reader() {
    for (name, journal) in adapters() {
        let reader = tokio::spawn({
            let journal = Arc::clone(&journal.journal);
            async move {
                let mut seen = Vec::new();
                loop {
                    let batch = next(&journal, 64).await;
                    if batch.events.is_empty() {
                        return seen;
                    }
                    seen.extend(ids(&batch));
                    journal.ack(batch.through);
                }
            }
        });
        let maintenance = Arc::new(std::sync::Mutex::new(Arc::clone(&journal.journal)));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let maintenance = Arc::clone(&maintenance);
                let journal = Arc::clone(&journal.journal);
                tokio::spawn(async move {
                    for number in 0..2_000 {
                        let slot = loop {
                            match journal.admit(&event(writer * 2_000 + number)) {
                                Ok(slot) => break slot,
                                Err(JournalFull) => {
                                    maintenance.lock().unwrap().maintain();
                                    tokio::task::yield_now().await;
                                }
                            }
                        };
                        journal.settle(slot, &event(writer * 2_000 + number));
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        journal.close();
        let mut seen = reader.await.unwrap();
        seen.sort_unstable();
        assert_eq!(seen, expected(0..8_000), "{name}");
    }
}
