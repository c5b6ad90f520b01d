//! What every [`Journal`] promises.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tollgate::adapters::memory_journal::MemoryJournal;
use tollgate::domain::ids::EventId;
use tollgate::ports::journal::{Backlog, Batch, Journal, JournalFull};

use super::{event, event_id};

type Store = Arc<dyn Journal>;

/// Every adapter, made for `capacity` calls.
fn adapters(capacity: u64) -> Vec<(&'static str, Store)> {
    vec![("memory", Arc::new(MemoryJournal::new(capacity)))]
}

/// What the reader gets. A journal that never wakes its reader fails the test instead of hanging it.
async fn next(journal: &Store, events_max: usize) -> Batch {
    tokio::time::timeout(Duration::from_secs(20), journal.next(events_max)).await.unwrap()
}

fn settle(journal: &Store, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let slot = journal.admit().unwrap();
        journal.settle(slot, event(number));
    }
}

fn ids(batch: &Batch) -> Vec<EventId> {
    batch.events.iter().map(|event| event.id).collect()
}

fn expected(numbers: std::ops::Range<u64>) -> Vec<EventId> {
    numbers.map(event_id).collect()
}

#[tokio::test]
async fn the_call_that_finds_no_place_is_refused_until_an_event_is_acknowledged() {
    for (name, journal) in adapters(3) {
        settle(&journal, 0..2);
        let in_flight = journal.admit().unwrap();
        assert_eq!(journal.admit().err(), Some(JournalFull), "{name}");
        assert_eq!(journal.backlog(), Backlog { events: 2, in_flight: 1, free: 0 }, "{name}");

        let batch = next(&journal, 10).await;
        assert_eq!(journal.admit().err(), Some(JournalFull), "{name}: given out is not yet acknowledged");
        journal.ack(batch.through);
        assert_eq!(journal.backlog(), Backlog { events: 0, in_flight: 1, free: 2 }, "{name}");

        journal.release(in_flight);
        assert_eq!(journal.backlog(), Backlog { events: 0, in_flight: 0, free: 3 }, "{name}");
        settle(&journal, 2..5);
        assert_eq!(journal.admit().err(), Some(JournalFull), "{name}");
    }
}

#[tokio::test]
async fn the_same_events_come_again_until_they_are_acknowledged() {
    for (name, journal) in adapters(1_000) {
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
        for (name, journal) in adapters(2_000) {
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
            assert_eq!(journal.backlog(), Backlog { events: 0, in_flight: 0, free: 2_000 }, "{name} {events_max}");
        }
    }
}

#[tokio::test]
async fn what_was_not_given_out_cannot_be_acknowledged() {
    for (name, journal) in adapters(100) {
        settle(&journal, 0..3);
        journal.ack(3);
        assert_eq!(journal.backlog().events, 3, "{name}");
        let batch = next(&journal, 2).await;
        journal.ack(batch.through + 50);
        assert_eq!(ids(&next(&journal, 2).await), expected(2..3), "{name}");
    }
}

#[tokio::test]
async fn a_reader_waits_while_there_is_nothing_and_wakes_with_the_first_event() {
    for (name, journal) in adapters(10) {
        assert!(journal.next(10).now_or_never().is_none(), "{name}");
        let reader = Arc::clone(&journal);
        let waiting = tokio::spawn(async move { next(&reader, 10).await });
        tokio::task::yield_now().await;
        settle(&journal, 0..1);
        assert_eq!(ids(&waiting.await.unwrap()), expected(0..1), "{name}");
    }
}

#[tokio::test]
async fn a_closed_journal_admits_nobody_and_ends_when_the_last_call_is_acknowledged() {
    for (name, journal) in adapters(10) {
        let in_flight = journal.admit().unwrap();
        let gives_up = journal.admit().unwrap();
        settle(&journal, 0..1);
        journal.close();
        assert_eq!(journal.admit().err(), Some(JournalFull), "{name}");
        assert_eq!(journal.backlog(), Backlog { events: 1, in_flight: 2, free: 0 }, "{name}");

        let batch = next(&journal, 10).await;
        journal.ack(batch.through);
        assert!(journal.next(10).now_or_never().is_none(), "{name}: two calls are in flight");
        journal.settle(in_flight, event(1));
        let batch = next(&journal, 10).await;
        assert_eq!(ids(&batch), expected(1..2), "{name}");
        journal.ack(batch.through);

        let reader = Arc::clone(&journal);
        let waiting = tokio::spawn(async move { next(&reader, 10).await });
        tokio::task::yield_now().await;
        journal.release(gives_up);
        assert!(waiting.await.unwrap().events.is_empty(), "{name}");
        assert!(next(&journal, 10).await.events.is_empty(), "{name}: the end stays the end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_lose_nothing_to_one_reader() {
    for (name, journal) in adapters(500) {
        let reader = tokio::spawn({
            let journal = Arc::clone(&journal);
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
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let journal = Arc::clone(&journal);
                tokio::spawn(async move {
                    for number in 0..2_000 {
                        let slot = loop {
                            match journal.admit() {
                                Ok(slot) => break slot,
                                Err(JournalFull) => tokio::task::yield_now().await,
                            }
                        };
                        journal.settle(slot, event(writer * 2_000 + number));
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
