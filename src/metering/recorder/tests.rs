//! Tests of the way to the ledger: nothing is lost while the store is down, and questions wait for what was settled.

use tempfile::TempDir;

use crate::adapters::file_journal::disk::Folder;
use crate::adapters::file_journal::{FileJournal, Stored, survey};
use crate::metering::fakes::{self, FakeStore, World, event};
use crate::ports::usage::SumsQuery;

use super::*;

fn parts(world: &World) -> (Arc<FileJournal>, Arc<FakeStore>, Arc<Recorder>, TempDir) {
    let (journal, directory) = fakes::journal();
    let store = world.store.clone();
    let recorder = Arc::new(Recorder::new(journal.clone(), store.clone(), store.clone(), Vec::new()));
    (journal, store, recorder, directory)
}

async fn requests(store: &FakeStore) -> u64 {
    let all = SumsQuery { tenant: None, period: None, group_by: Vec::new() };
    store.sums(&all).await.unwrap()[0].sums.requests
}

fn settle(journal: &FileJournal, number: u128) {
    let event = event("acme", number, "openai", "gpt-4o", "2026-11-24T10:00:00Z");
    let slot = journal.admit(&event).unwrap();
    journal.settle(slot, &event);
}

#[tokio::test]
async fn a_question_waits_for_everything_settled_before_it() {
    let world = World::open().await;
    let (journal, store, recorder, _directory) = parts(&world);
    let running = tokio::spawn({
        let recorder = recorder.clone();
        async move { recorder.run().await }
    });
    for number in 0..5 {
        settle(&journal, number);
        recorder.caught_up().await;
        assert_eq!(requests(&store).await, u64::try_from(number).unwrap() + 1);
    }
    journal.close();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn events_outlive_a_store_that_is_down() {
    let world = World::open().await;
    let (journal, store, recorder, _directory) = parts(&world);
    store.set_down(true);
    settle(&journal, 1);
    settle(&journal, 2);
    journal.close();
    let running = tokio::spawn({
        let recorder = recorder.clone();
        async move { recorder.run().await }
    });
    // The clock of this test is turned by hand: an hour of failures passes at once.
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert!(!running.is_finished());
    assert_eq!(journal.backlog().events, 2);
    store.set_down(false);
    running.await.unwrap();
    assert_eq!(requests(&store).await, 2);
    assert_eq!(journal.backlog().events, 0);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_refused_for_good_is_set_aside_and_the_rest_goes_on() {
    let world = World::open().await;
    let (journal, store, recorder, directory) = parts(&world);
    let poison = [3, 4, 17];
    for number in 0..20 {
        settle(&journal, number);
        if poison.contains(&number) {
            store.refuse(event("acme", number, "openai", "gpt-4o", "2026-11-24T10:00:00Z").id);
        }
    }
    journal.close();
    recorder.run().await;
    assert_eq!(requests(&store).await, 17);
    let backlog = journal.backlog();
    assert_eq!((backlog.events, backlog.quarantined), (0, 3));
    let mut kept = 0;
    let disk = Folder::open(directory.path()).unwrap();
    survey(&disk, |stored| kept += u32::from(matches!(stored, Stored::Quarantined(..)))).unwrap();
    assert_eq!(kept, 3);
}

#[tokio::test(start_paused = true)]
async fn a_refused_event_waits_for_a_quarantine_that_cannot_take_it() {
    let world = World::open().await;
    let (journal, store, recorder, directory) = parts(&world);
    settle(&journal, 1);
    store.refuse(event("acme", 1, "openai", "gpt-4o", "2026-11-24T10:00:00Z").id);
    journal.close();
    let name = format!("{}.quarantined", event("acme", 1, "openai", "gpt-4o", "2026-11-24T10:00:00Z").id);
    // A directory in its place: the file cannot be made.
    let in_the_way = directory.path().join(name);
    std::fs::create_dir(&in_the_way).unwrap();
    let running = tokio::spawn({
        let recorder = recorder.clone();
        async move { recorder.run().await }
    });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!running.is_finished());
    assert_eq!((journal.backlog().events, journal.backlog().quarantined), (1, 0));
    std::fs::remove_dir(&in_the_way).unwrap();
    running.await.unwrap();
    assert_eq!((journal.backlog().events, journal.backlog().quarantined), (0, 1));
}

/// Panics at its first batch.
#[derive(Default)]
struct Clumsy(std::sync::atomic::AtomicU64);

impl Sink for Clumsy {
    fn booked(&self, events: &[UsageEvent]) {
        let before = self.0.fetch_add(events.len() as u64, std::sync::atomic::Ordering::SeqCst);
        assert!(before > 0, "the first batch is too much");
    }
}

#[tokio::test]
async fn a_sink_that_panics_misses_its_batch_and_nobody_else_does() {
    let world = World::open().await;
    let (journal, _directory) = fakes::journal();
    let store = world.store.clone();
    let (first, second) = (Arc::new(Clumsy::default()), Arc::new(Clumsy::default()));
    let sinks: Vec<Arc<dyn Sink>> = vec![first.clone(), second.clone()];
    let recorder = Arc::new(Recorder::new(journal.clone(), store.clone(), store.clone(), sinks));
    let running = tokio::spawn({
        let recorder = recorder.clone();
        async move { recorder.run().await }
    });
    for number in 0..3 {
        settle(&journal, number);
        recorder.caught_up().await;
    }
    assert_eq!(requests(&store).await, 3);
    journal.close();
    running.await.unwrap();
    let heard = [first, second].map(|sink| sink.0.load(std::sync::atomic::Ordering::SeqCst));
    assert_eq!(heard, [3, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_loses_nothing() {
    let world = World::open().await;
    let (journal, store, recorder, _directory) = parts(&world);
    (0..3).for_each(|number| settle(&journal, number));
    journal.close();
    store.panic(2);
    recorder.run().await;
    assert_eq!(requests(&store).await, 3);
    assert_eq!(journal.backlog().events, 0);
}
