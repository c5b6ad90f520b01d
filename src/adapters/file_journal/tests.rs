//! Tests of the journal's files: what is written is found again, whatever was torn, flipped or refused.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::domain::event::{Corrected, Outcome, UsageSource};
use crate::domain::money::PicoUsd;
use crate::domain::price::{Priced, ServiceTier};
use crate::domain::quantities::Quantities;
use crate::domain::tokens::{TOKENS_PER_CALL_MAX, Tokens};
use crate::domain::unit::{Unit, UnitName};
use crate::metering::fakes::event as plain;
use crate::ports::journal::Journal as _;

use super::disk::Folder;
use super::*;

mod memory_disk;

use memory_disk::MemoryDisk;

struct Bench {
    directory: TempDir,
    options: Options,
}

impl Bench {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), options: Options { bytes_max: BYTES_MIN, strict: false } }
    }

    fn open(&self) -> (FileJournal, Recovered) {
        FileJournal::open(Arc::new(Folder::open(self.directory.path()).unwrap()), self.options).unwrap()
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

fn event(number: u128) -> UsageEvent {
    plain("acme", number, "openai", "gpt-4o", "2026-11-24T10:00:00Z")
}

fn pending(number: u128) -> UsageEvent {
    UsageEvent { outcome: Outcome::Interrupted, source: UsageSource::Estimate, status: 0, ..event(number) }
}

fn settle(journal: &FileJournal, numbers: std::ops::Range<u128>) {
    for number in numbers {
        let slot = journal.admit(&pending(number)).unwrap();
        journal.settle(slot, &event(number));
    }
}

/// Everything that waits, without acknowledging it.
fn waiting(journal: &FileJournal) -> Vec<UsageEvent> {
    match journal.backlog().events {
        0 => Vec::new(),
        _ => journal.take(usize::MAX).unwrap().map(|batch| batch.events.to_vec()).unwrap_or_default(),
    }
}

fn acknowledge_all(journal: &FileJournal) -> usize {
    let mut events = 0;
    while journal.backlog().events > 0 {
        let batch = journal.take(100).unwrap().unwrap();
        events += batch.events.len();
        journal.ack(batch.through);
    }
    events
}

fn events(numbers: std::ops::Range<u128>) -> Vec<UsageEvent> {
    numbers.map(event).collect()
}

#[test]
fn an_event_is_read_as_it_was_written() {
    let mut rich = event(7);
    rich.key = Some("key_0123456789abcdef".parse().unwrap());
    rich.kb_id = Some("ä".repeat(128).into());
    rich.user_id = None;
    rich.cost = None;
    rich.tokens.cached = u64::MAX;
    rich.first_byte_us = None;
    rich.request_id = Some("r".repeat(128).into());
    let name = format!("batches/{}", "b".repeat(100)).parse().unwrap();
    let output_max = Some(9);
    rich.unit = Some(Box::new(Unit { output_max, own_account: true, ..unit(name, u64::MAX) }));
    rich.tokens.cache_write_long = 5;
    rich.quantities = Quantities::from_kinds([u64::MAX, 2, 3, 4, 5]);
    (rich.billable, rich.utc_offset_s) = (Some(PicoUsd(i128::MIN)), -36_000);
    rich.corrects = Some(Corrected { event: event(0).id, priced: Priced::Incomplete });
    for event in [event(0), pending(1), rich] {
        let mut bytes = Vec::new();
        codec::encode(&event, &mut bytes);
        assert_eq!(codec::decode(&bytes), Some(event.clone()));
        assert_eq!(codec::id(&bytes), Some(event.id));
        // Version 1 of the format ended before the unit, version 2 before all that is left out here, version 3 before what is
        // known of a unit: one byte for what was delivered, two for the maximum, one for the account.
        let old_unit = event.unit.as_ref().map(|old| Box::new(unit(old.name.clone(), old.prompt_tokens)));
        let of_version_3 = UsageEvent { unit: old_unit, ..event.clone() };
        let version_3_end = if event.unit.is_some() { bytes.len() - 4 } else { bytes.len() };
        let of_version_2 = UsageEvent {
            tokens: Tokens { cache_write_long: 0, ..event.tokens },
            quantities: Quantities::default(),
            billable: event.cost,
            utc_offset_s: 0,
            corrects: None,
            ..of_version_3.clone()
        };
        let of_version_1 = UsageEvent { unit: None, ..of_version_2.clone() };
        let length = |event: &UsageEvent| {
            let mut bytes = Vec::new();
            codec::encode(event, &mut bytes);
            bytes.len()
        };
        // One byte each for six counts, four for the offset, one for no correction, and the amount.
        let of_unit = |event: &UsageEvent| if event.unit.is_some() { 3 } else { 0 };
        let amount = |event: &UsageEvent| if event.billable.is_some() { 17 } else { 1 };
        let beyond = |event: &UsageEvent| 6 + 4 + 1 + amount(event) + of_unit(event);
        let version_2_end = length(&of_version_2) - beyond(&of_version_2);
        let version_1_end = length(&of_version_1) - beyond(&of_version_1) - 1;
        for end in 0..bytes.len() {
            let expected = if end == version_1_end {
                Some(of_version_1.clone())
            } else if end == version_3_end {
                Some(of_version_3.clone())
            } else {
                (end == version_2_end).then(|| of_version_2.clone())
            };
            assert_eq!(codec::decode(&bytes[..end]), expected, "cut at {end}");
        }
        bytes.push(0);
        assert_eq!(codec::decode(&bytes), None);
    }
}

/// A unit of which no more is known, as those of old.
fn unit(name: UnitName, prompt_tokens: u64) -> Unit {
    Unit { name, prompt_tokens, delivered_tokens: 0, output_max: None, own_account: false }
}

#[test]
fn the_largest_event_fits_into_a_record() {
    let longest = || "\u{10ffff}".repeat(128).into_boxed_str();
    let mut large = event(u128::MAX);
    large.tenant = "t".repeat(64).parse().unwrap();
    (large.user_id, large.kb_id, large.request_id) = (Some(longest()), Some(longest()), Some(longest()));
    let name = format!("batches/{}", "b".repeat(102)).parse().unwrap();
    let most = Unit { delivered_tokens: u64::MAX, output_max: Some(u64::MAX), ..unit(name, u64::MAX) };
    large.unit = Some(Box::new(most));
    (large.model, large.requested_model) = ("m".repeat(200).into(), "m".repeat(200).into());
    let mut record = Vec::new();
    record::begin(&mut record, Kind::Settled);
    codec::encode(&large, &mut record);
    assert!(record::seal(&mut record, u64::MAX), "{} bytes", record.len());
}

#[test]
fn a_process_that_is_killed_loses_nothing() {
    let bench = Bench::new();
    let (journal, recovered) = bench.open();
    assert_eq!(recovered, Recovered::default());
    settle(&journal, 0..10);
    let _open = journal.admit(&pending(10)).unwrap();
    drop(journal);

    let (journal, recovered) = bench.open();
    assert_eq!((recovered.settled, recovered.interrupted, recovered.damages.len()), (10, 1, 0));
    let mut expected = events(0..10);
    expected.push(pending(10));
    assert_eq!(waiting(&journal), expected);
    drop(journal);
    // Killed again before anything was booked: the same events, each once.
    let (journal, recovered) = bench.open();
    assert_eq!((recovered.settled, recovered.interrupted), (11, 0));
    assert_eq!(waiting(&journal), expected);
}

#[test]
fn what_is_acknowledged_does_not_come_again_after_a_restart() {
    let bench = Bench::new();
    let (journal, _) = bench.open();
    settle(&journal, 0..10);
    let batch = journal.take(4).unwrap().unwrap();
    journal.ack(batch.through);
    settle(&journal, 10..12);
    drop(journal);
    let (journal, recovered) = bench.open();
    assert_eq!(recovered.settled, 8);
    assert_eq!(waiting(&journal), events(4..12));
    acknowledge_all(&journal);
    drop(journal);
    let (journal, recovered) = bench.open();
    assert_eq!((recovered.settled, recovered.interrupted), (0, 0));
    assert!(waiting(&journal).is_empty());
    settle(&journal, 12..13);
    assert_eq!(waiting(&journal), events(12..13));
}

#[test]
fn a_clean_end_leaves_no_segment() {
    let bench = Bench::new();
    let (journal, _) = bench.open();
    settle(&journal, 0..500);
    assert_eq!(acknowledge_all(&journal), 500);
    journal.close();
    journal.leave();
    assert_eq!(bench.files(), Vec::<PathBuf>::new());
}

#[test]
fn segments_go_when_the_ledger_has_them_also_behind_a_call_that_lasts() {
    let bench = Bench::new();
    let (journal, _) = bench.open();
    let _long = journal.admit(&pending(u128::MAX)).unwrap();
    // More than the journal may hold at once, several times.
    for round in 0..100 {
        settle(&journal, round * 100..(round + 1) * 100);
        assert_eq!(acknowledge_all(&journal), 100);
        journal.maintain();
        let backlog = journal.backlog();
        assert!(backlog.bytes <= BYTES_MIN / 2, "{round}: {backlog:?}");
    }
    drop(journal);
    // Its admission was carried along.
    let (journal, recovered) = bench.open();
    assert_eq!((recovered.settled, recovered.interrupted), (0, 1));
    assert_eq!(waiting(&journal), [pending(u128::MAX)]);
}

/// A sync takes its time, and under load there is always something that was written since.
#[test]
fn segments_go_though_there_is_always_something_unsynced() {
    let bench = Bench::new();
    let (journal, _) = bench.open();
    for round in 0..100 {
        settle(&journal, round * 100..(round + 1) * 100);
        assert!(acknowledge_all(&journal) >= 100);
        journal.sync();
        settle(&journal, (round + 1) * 1_000_000..(round + 1) * 1_000_000 + 1);
        let done = journal.log.lock().take_done();
        journal.discard(done);
        assert!(journal.backlog().bytes <= BYTES_MIN / 2, "{round}: {:?}", journal.backlog());
    }
}

#[test]
fn torn_or_flipped_bytes_at_any_offset_cost_at_most_the_record_they_hit() {
    let bench = Bench::new();
    let (journal, _) = bench.open();
    settle(&journal, 0..4);
    drop(journal);
    let file = bench.files().remove(0);
    let whole = fs::read(&file).unwrap();
    let written = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for offset in 0..written {
        for damage in [Damaged::Flip, Damaged::Cut, Damaged::Zeros] {
            let mut bytes = whole.clone();
            match damage {
                Damaged::Flip => bytes[offset] ^= 0x10,
                Damaged::Cut => bytes.truncate(offset),
                Damaged::Zeros => bytes[offset..].fill(0),
            }
            if bytes == whole {
                continue;
            }
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            let disk = Arc::new(MemoryDisk::default());
            disk.put(&name, bytes);
            let (journal, recovered) = FileJournal::open(disk, bench.options).unwrap();
            let found = waiting(&journal);
            demand_sound(&found, &recovered, offset, damage, &whole);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damaged {
    Flip,
    Cut,
    Zeros,
}

/// Each call at most once, as it was settled or as it was admitted; all of them whose records lie before the damage.
fn demand_sound(found: &[UsageEvent], recovered: &Recovered, offset: usize, damage: Damaged, whole: &[u8]) {
    let context = format!("{damage:?} at {offset}: {recovered:?}");
    let mut ids: Vec<_> = found.iter().map(|event| event.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), found.len(), "{context}: twice");
    for got in found {
        assert!((0..4).any(|number| *got == event(number) || *got == pending(number)), "{context}: {got:?}");
    }
    let mut at = segment::HEAD_BYTES;
    for number in 0..4 {
        for kind in [Kind::Admitted, Kind::Settled] {
            let record = record::read(&whole[at..], at as u64).unwrap();
            assert_eq!(record.kind, kind);
            at += record.bytes();
            if at <= offset && kind == Kind::Settled {
                assert!(found.contains(&event(number)), "{context}: {number} is lost");
            } else if at <= offset {
                assert!(found.iter().any(|found| found.id == event(number).id), "{context}: {number} is forgotten");
            }
        }
    }
    if damage == Damaged::Flip {
        assert_eq!(recovered.damages.len(), 1, "{context}: not told");
        // What lies behind the damage is kept as well: at most one record is gone.
        assert!(found.len() >= 3, "{context}: {} left", found.len());
    }
}

#[test]
fn a_damaged_segment_is_put_aside_when_it_is_booked() {
    let bench = Bench::new();
    let (journal, _) = bench.open();
    settle(&journal, 0..4);
    drop(journal);
    let file = bench.files().remove(0);
    let mut bytes = fs::read(&file).unwrap();
    bytes[100] ^= 1;
    fs::write(&file, bytes).unwrap();
    let (journal, recovered) = bench.open();
    assert!(!recovered.damages[0].torn);
    settle(&journal, 4..5);
    acknowledge_all(&journal);
    journal.maintain();
    let names: Vec<String> = bench.files().iter().map(|file| file.display().to_string()).collect();
    assert!(names.iter().any(|name| name.ends_with(".log.damaged")), "{names:?}");
}

#[test]
fn an_event_that_the_ledger_refuses_is_kept_and_asked_for_again() {
    let bench = Bench::new();
    let (journal, _) = bench.open();
    settle(&journal, 0..2);
    let batch = journal.take(10).unwrap().unwrap();
    journal.quarantine(&batch.events[0], "a sum would not fit").unwrap();
    journal.ack(batch.through);
    assert_eq!(journal.backlog().quarantined, 1);
    let mut seen = Vec::new();
    survey(&Folder::open(bench.directory.path()).unwrap(), |stored| seen.push(stored)).unwrap();
    assert!(seen.contains(&Stored::Quarantined(event(0), "a sum would not fit".into())), "{seen:?}");
    drop(journal);
    let (journal, recovered) = bench.open();
    assert_eq!((recovered.requeued, recovered.settled), (1, 0));
    assert_eq!(waiting(&journal), events(0..1));
}

#[test]
fn a_survey_changes_nothing_and_sees_what_is_open_settled_and_booked() {
    let bench = Bench::new();
    let (journal, _) = bench.open();
    settle(&journal, 0..2);
    let batch = journal.take(1).unwrap().unwrap();
    journal.ack(batch.through);
    let _open = journal.admit(&pending(2)).unwrap();
    let before: Vec<_> = bench.files().iter().map(|file| fs::read(file).unwrap()).collect();
    let mut seen = Vec::new();
    let damages = survey(&Folder::open(bench.directory.path()).unwrap(), |stored| seen.push(stored)).unwrap();
    assert_eq!(damages, []);
    assert_eq!(seen, [Stored::Settled(event(0), true), Stored::Settled(event(1), false), Stored::Open(pending(2))]);
    let after: Vec<_> = bench.files().iter().map(|file| fs::read(file).unwrap()).collect();
    assert_eq!(before, after);
}

/// Gives a segment's file the head of another version; what it holds then.
fn of_version(file: &std::path::Path, version: u8) -> Vec<u8> {
    let mut bytes = fs::read(file).unwrap();
    bytes[8] = version;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..24]);
    bytes[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
    fs::write(file, &bytes).unwrap();
    bytes
}

/// A program of that version finds nothing in its segments that it does not know.
#[test]
fn a_segment_of_the_first_version_is_read_and_not_written_on() {
    let bench = Bench::new();
    let (journal, _) = bench.open();
    settle(&journal, 0..2);
    drop(journal);
    let file = bench.files().remove(0);
    let bytes = of_version(&file, 1);
    let (journal, recovered) = bench.open();
    assert_eq!((recovered.settled, recovered.damages.len()), (2, 0));
    settle(&journal, 2..3);
    let batch = journal.take(10).unwrap().unwrap();
    assert_eq!(batch.events.iter().map(|event| event.id).collect::<Vec<_>>(), [0, 1, 2].map(|at| event(at).id));
    assert_eq!(fs::read(&file).unwrap(), bytes);
    assert_eq!(bench.files().len(), 2);
}

#[test]
fn a_journal_of_another_version_is_not_touched() {
    let bench = Bench::new();
    let (journal, _) = bench.open();
    settle(&journal, 0..1);
    drop(journal);
    let file = bench.files().remove(0);
    let bytes = of_version(&file, 5);
    let error =
        FileJournal::open(Arc::new(Folder::open(bench.directory.path()).unwrap()), bench.options).err().unwrap();
    assert!(error.to_string().contains("version 5"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), bytes);
}

#[tokio::test]
async fn strict_returns_when_the_disk_has_it() {
    let bench = Bench { options: Options { bytes_max: BYTES_MIN, strict: true }, ..Bench::new() };
    let (journal, _) = bench.open();
    let journal = Arc::new(journal);
    let slot = journal.admit(&pending(0)).unwrap();
    let admitted = slot.position;
    let position = journal.settle(slot, &event(0));
    // Nobody syncs yet.
    assert!(*journal.synced.borrow() < admitted);
    let maintainer = journal.start_maintainer(Duration::from_secs(3_600)).unwrap();
    assert!(journal.durable(admitted).await && journal.durable(position).await);
    assert!(*journal.synced.borrow() >= position);
    journal.stop();
    maintainer.join().unwrap();
}

#[test]
fn a_segment_that_was_overtaken_while_it_was_made_hides_no_event() {
    let bench = Bench::new();
    let (journal, _) = bench.open();
    // The maintainer has its position and makes its file; meanwhile the first calls need a segment at once.
    let base = journal.log.lock().claim_segment().unwrap();
    settle(&journal, 0..1);
    let made = log::create(&*journal.disk, base, journal.log.lock().segment_bytes()).unwrap();
    journal.log.lock().add(made);
    assert_eq!(waiting(&journal), events(0..1));
    settle(&journal, 1..3);
    assert_eq!(acknowledge_all(&journal), 3);
    assert_eq!(journal.backlog().events, 0);
    drop(journal);
    assert_eq!(waiting(&bench.open().0), Vec::new());
}

/// A journal on a disk that can be told to fail.
fn on_memory() -> (FileJournal, Arc<MemoryDisk>) {
    let disk = Arc::new(MemoryDisk::default());
    let (journal, _) = FileJournal::open(disk.clone(), Options { bytes_max: BYTES_MIN, strict: false }).unwrap();
    (journal, disk)
}

#[test]
fn calls_in_flight_are_settled_when_the_disk_takes_records_again() {
    let (journal, disk) = on_memory();
    let slots: Vec<Slot> = (0..5).map(|number| journal.admit(&pending(number)).unwrap()).collect();
    disk.fails.write.store(true, Ordering::SeqCst);
    for (number, slot) in (0..).zip(slots) {
        journal.settle(slot, &event(number));
    }
    assert_eq!(journal.admit(&pending(9)).err(), Some(JournalFull));
    let backlog = journal.backlog();
    assert!(backlog.full && backlog.events == 5, "{backlog:?}");
    for _ in 0..100 {
        journal.maintain();
    }
    assert!(disk.files.lock().len() <= 3, "a disk that stays faulty is not filled");
    disk.fails.write.store(false, Ordering::SeqCst);
    journal.maintain();
    assert!(!journal.backlog().full);
    settle(&journal, 5..6);
    let mut found = waiting(&journal);
    found.sort_by_key(|event| event.id);
    assert_eq!(found, events(0..6));
    assert_eq!(acknowledge_all(&journal), 6);
}

#[test]
fn what_a_failed_sync_may_have_lost_is_written_again() {
    let (journal, disk) = on_memory();
    let open = journal.admit(&pending(7)).unwrap();
    settle(&journal, 0..3);
    disk.fails.sync.store(true, Ordering::SeqCst);
    journal.maintain();
    assert_eq!(journal.admit(&pending(9)).err(), Some(JournalFull));
    disk.fails.sync.store(false, Ordering::SeqCst);
    journal.maintain();
    journal.settle(open, &event(7));
    // The disk lost the first segment: everything stands behind it once more.
    let first = disk.list().unwrap().remove(0);
    disk.put(&first, Vec::new());
    drop(journal);
    let (journal, recovered) = FileJournal::open(disk, Options { bytes_max: BYTES_MIN, strict: false }).unwrap();
    assert_eq!(recovered.interrupted, 0);
    let mut expected = events(0..3);
    expected.push(event(7));
    assert_eq!(waiting(&journal), expected);
}

#[test]
fn a_process_that_is_killed_again_and_again_takes_no_more_room_each_time() {
    let bench = Bench::new();
    for round in 0..20 {
        let (journal, _) = bench.open();
        let _open = journal.admit(&pending(round)).unwrap();
    }
    assert_eq!(bench.files().len(), 1);
    let (journal, _) = bench.open();
    assert_eq!(waiting(&journal).len(), 20);
}

/// Fills the segment that is written, up to the next one. Gives how many calls that took.
fn fill_a_segment(journal: &FileJournal, from: u128) -> u128 {
    let segment_bytes = journal.log.lock().segment_bytes();
    let (segment, mut number) = (|| journal.log.lock().position() / segment_bytes, from);
    let first = segment();
    while segment() == first {
        settle(journal, number..number + 1);
        number += 1;
    }
    number - from
}

#[test]
fn a_segment_stays_until_the_settlements_of_its_calls_survive_a_power_cut() {
    let (journal, disk) = on_memory();
    let long = journal.admit(&pending(u128::MAX)).unwrap();
    fill_a_segment(&journal, 0);
    acknowledge_all(&journal);
    journal.sync();
    // Written and not synced: a power cut takes it. Without its admission nothing would be left of the call.
    journal.settle(long, &event(u128::MAX));
    assert_eq!(journal.log.lock().take_done(), Vec::new());
    journal.maintain();
    assert_eq!(disk.list().unwrap().first(), Some(&segment::name(journal.log.lock().segment_bytes())));
}

#[test]
fn a_head_that_took_no_record_yet_is_not_moved_back_behind_the_reader() {
    let (journal, disk) = on_memory();
    let first = journal.admit(&pending(0)).unwrap();
    let segment_bytes = journal.log.lock().segment_bytes();
    let length = first.position - segment::HEAD_END;
    // The maintainer has a position and makes its file; meanwhile calls need another segment, and the disk fails there.
    let base = journal.log.lock().claim_segment().unwrap();
    let _open: Vec<Slot> = (1..)
        .take_while(|_| journal.log.lock().position() + length <= segment_bytes)
        .map(|number| journal.admit(&pending(number)).unwrap())
        .collect();
    disk.fails.write.store(true, Ordering::SeqCst);
    assert_eq!(journal.admit(&pending(9_999)).err(), Some(JournalFull));
    assert!(journal.take(1).unwrap().is_none());
    disk.fails.write.store(false, Ordering::SeqCst);
    journal.log.lock().add(log::create(&*disk, base, segment_bytes).unwrap());
    journal.maintain();
    journal.settle(first, &event(0));
    assert_eq!(waiting(&journal), events(0..1));
}

#[test]
fn a_full_journal_mends_a_failed_sync_beyond_its_bound() {
    let (journal, disk) = on_memory();
    let mut open = Vec::new();
    while let Ok(slot) = journal.admit(&pending(open.len() as u128)) {
        open.push(slot);
    }
    disk.fails.sync.store(true, Ordering::SeqCst);
    journal.maintain();
    disk.fails.sync.store(false, Ordering::SeqCst);
    journal.maintain();
    assert!(!journal.log.lock().faulty, "the calls in flight would be all that could mend it");
    for (number, slot) in (0..).zip(open) {
        journal.settle(slot, &event(number));
    }
    let events = journal.backlog().events;
    assert_eq!(acknowledge_all(&journal) as u64, events);
}

#[tokio::test]
async fn a_settlement_that_waits_in_memory_is_not_durable() {
    let disk = Arc::new(MemoryDisk::default());
    let (journal, _) = FileJournal::open(disk.clone(), Options { bytes_max: BYTES_MIN, strict: true }).unwrap();
    let slot = journal.admit(&pending(0)).unwrap();
    disk.fails.write.store(true, Ordering::SeqCst);
    let position = journal.settle(slot, &event(0));
    journal.maintain();
    assert!(*journal.synced.borrow() < position, "it is nowhere yet");
    disk.fails.write.store(false, Ordering::SeqCst);
    journal.maintain();
    assert!(*journal.synced.borrow() >= position);
    let batch = journal.take(1).unwrap().unwrap();
    assert!(batch.through >= journal.settled_through(), "whoever waits for the ledger waits for this one");
}

#[test]
fn room_that_was_set_aside_and_never_used_is_no_damage() {
    let disk = Arc::new(MemoryDisk::default());
    disk.put(&segment::name(0), vec![0; 65_536]);
    assert_eq!(survey(&*disk, |_| {}).unwrap(), []);
    let (_, recovered) = FileJournal::open(disk, Options { bytes_max: BYTES_MIN, strict: false }).unwrap();
    assert_eq!(recovered.damages, []);
}

/// The model's name and the request's id are told by the provider, and numbers grow.
#[test]
fn a_settlement_fits_into_the_room_that_its_admission_set_aside() {
    let length = |event: &UsageEvent| {
        let mut bytes = Vec::new();
        codec::encode(event, &mut bytes);
        bytes.len() as u64
    };
    let mut admitted = pending(0);
    admitted.tokens = Tokens::default();
    (admitted.model, admitted.cost, admitted.request_id, admitted.first_byte_us) = ("m".into(), None, None, None);
    admitted.billable = None;
    (admitted.chats, admitted.duration_us, admitted.overhead_us) = (0, 0, 0);
    let mut settled = admitted.clone();
    let max = u64::MAX;
    settled.tokens = Tokens {
        prompt: max,
        cached: max,
        cache_write: max,
        cache_write_long: max,
        prompt_audio: max,
        prompt_image: max,
        cached_audio: max,
        completion: max,
        reasoning: max,
        completion_audio: max,
        completion_image: max,
    };
    let name: UnitName = format!("batches/{}", "b".repeat(102)).parse().unwrap();
    (settled.model, settled.cost) = ("m".repeat(200).into(), Some(PicoUsd(i128::MAX)));
    (settled.billable, settled.quantities) = (settled.cost, Quantities::from_kinds([max; 5]));
    (settled.request_id, settled.first_byte_us) = (Some("r".repeat(128).into()), Some(max));
    (settled.chats, settled.duration_us, settled.overhead_us, settled.status) = (max, max, max, u16::MAX);
    for outcome in Outcome::ALL {
        for priced in Priced::ALL {
            for service_tier in ServiceTier::ALL {
                let mut settled = UsageEvent { outcome, priced, service_tier, ..settled.clone() };
                if outcome == Outcome::Deferred {
                    // What is charged later has used nothing yet.
                    settled.tokens = Tokens::default();
                    settled.quantities = Quantities::default();
                    settled.unit = Some(Box::new(unit(name.clone(), TOKENS_PER_CALL_MAX)));
                }
                let growth = length(&settled) - length(&admitted);
                assert!(growth <= SETTLEMENT_GROWTH_BYTES, "{growth} bytes");
            }
        }
    }
}

#[test]
fn what_a_process_leaves_is_synced_when_its_maintainer_is_joined() {
    let (journal, _) = on_memory();
    let journal = Arc::new(journal);
    let slot = journal.admit(&pending(0)).unwrap();
    // Told to end before it has begun: it has looked at nothing yet.
    journal.stop();
    journal.start_maintainer(Duration::from_secs(3_600)).unwrap().join().unwrap();
    assert!(*journal.synced.borrow() >= slot.position);
}

#[tokio::test]
async fn a_panic_does_not_end_the_maintainer() {
    let disk = Arc::new(MemoryDisk::default());
    let (journal, _) = FileJournal::open(disk.clone(), Options { bytes_max: BYTES_MIN, strict: true }).unwrap();
    let journal = Arc::new(journal);
    disk.fails.panics.store(2, Ordering::SeqCst);
    let maintainer = journal.start_maintainer(Duration::from_millis(1)).unwrap();
    let slot = journal.admit(&pending(0)).unwrap();
    journal.durable(slot.position).await;
    assert!(*journal.synced.borrow() >= slot.position);
    assert_eq!(disk.fails.panics.load(Ordering::SeqCst), 0);
    journal.stop();
    maintainer.join().unwrap();
}
