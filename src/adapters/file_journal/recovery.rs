//! Opening: finds what an earlier process left, and makes settled events of the calls that it did not settle.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::domain::event::UsageEvent;
use crate::domain::ids::EventId;

use super::codec::{self, Fields};
use super::disk::Disk;
use super::log::{Log, Segment};
use super::reader::Reader;
use super::record::{self, Kind};
use super::segment::{Damage, Found, HEAD_END};
use super::{BYTES_MIN, FileJournal, Options, QUARANTINE_SUFFIX, SEGMENT_BYTES_MAX, SEGMENTS};

/// What an earlier process left, now all on its way to the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Records read.
    pub records: u64,
    /// Settled events that the ledger may not have.
    pub settled: u64,
    /// Calls that were in flight: booked as interrupted.
    pub interrupted: u64,
    /// Events that the ledger refused before: it is asked again.
    pub requeued: u64,
    /// Bytes that are no records.
    pub damages: Vec<Damage>,
}

/// An event as a journal holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// Settled. `booked`: the journal knows that the ledger has it.
    Settled(UsageEvent, bool),
    /// Admitted and not settled, as it would be booked at a start.
    Open(UsageEvent),
    /// Refused by the ledger, with its words.
    Quarantined(UsageEvent, String),
}

/// Reads a journal without changing it, also one that is being written: shows each event, and gives what is damaged.
///
/// # Errors
/// When a file cannot be read, or is of another version of the format.
pub fn survey(disk: &dyn Disk, mut see: impl FnMut(Stored)) -> io::Result<Vec<Damage>> {
    let booked = read_all(disk, |_, _, _| {})?.booked;
    let mut open = HashMap::new();
    let read = read_all(disk, |_, position, record| match (record.kind, record.id()) {
        (Kind::Settled, Some(id)) => {
            open.remove(&id);
            if let Some(event) = record.event() {
                see(Stored::Settled(event, position <= booked));
            }
        }
        (Kind::Admitted, Some(id)) => drop(open.insert(id, record.payload.to_vec())),
        _ => {}
    })?;
    open.into_values().filter_map(|payload| codec::decode(&payload)).for_each(|event| see(Stored::Open(event)));
    for (_, event, reason) in quarantined(disk)? {
        see(Stored::Quarantined(event, reason));
    }
    Ok(read.damages)
}

#[derive(Default)]
struct Read {
    damages: Vec<Damage>,
    booked: u64,
    segments: Vec<(u64, String, u64)>,
    /// Segments of an older version, which is to be found in them only.
    older: Vec<u64>,
}

/// Reads every segment, one after the other: shows each record with its segment and the position at which it ends.
fn read_all(disk: &dyn Disk, mut see: impl FnMut(u64, u64, record::Record<'_>)) -> io::Result<Read> {
    let mut read = Read::default();
    for (base, name) in Found::names(disk)? {
        let found = match Found::read(disk, base, name) {
            Ok(found) => found,
            // A segment that was done with a moment ago.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let damages = found.records(|end, record| {
            if let Some(booked) = record.booked().filter(|_| record.kind == Kind::Booked) {
                read.booked = read.booked.max(booked);
            }
            see(base, base.saturating_add(end), record);
        });
        if !found.is_current() {
            read.older.push(base);
        }
        read.segments.push((base, found.name.clone(), found.size()));
        read.damages.extend(damages);
    }
    Ok(read)
}

/// A file, the refused event in it, and what the ledger said.
type Quarantined = (String, UsageEvent, String);

fn quarantined(disk: &dyn Disk) -> io::Result<Vec<Quarantined>> {
    let mut found = Vec::new();
    for name in disk.list()?.into_iter().filter(|name| name.ends_with(QUARANTINE_SUFFIX)) {
        let file = disk.open(&name)?;
        let mut bytes = vec![0; record::RECORD_BYTES_MAX];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        let Some(record) = record::read(&bytes, 0).filter(|record| record.kind == Kind::Quarantined) else { continue };
        let mut fields = Fields(record.payload);
        if let Some(reason) = fields.text().map(str::to_owned)
            && let Some(event) = codec::decode(fields.0)
        {
            found.push((name, event, reason));
        }
    }
    Ok(found)
}

/// One segment while the journal is read.
#[derive(Default)]
struct Counts {
    end: u64,
    /// Where its settled records end.
    settled_ends: Vec<u64>,
}

impl Counts {
    fn settled_through(&self, position: u64) -> u64 {
        length(self.settled_ends.iter().filter(|end| **end <= position).count())
    }
}

/// Everything that a process left.
struct Left {
    read: Read,
    records: u64,
    /// Admitted and not settled: the payloads of the records.
    open: HashMap<EventId, Vec<u8>>,
    counts: HashMap<u64, Counts>,
}

impl Left {
    fn read(disk: &dyn Disk) -> io::Result<Self> {
        let (mut records, mut open) = (0, HashMap::new());
        let mut counts: HashMap<u64, Counts> = HashMap::new();
        let read = read_all(disk, |base, position, record| {
            records += 1;
            let counts = counts.entry(base).or_default();
            counts.end = position.saturating_sub(base);
            match (record.kind, record.id()) {
                (Kind::Admitted, Some(id)) => drop(open.insert(id, record.payload.to_vec())),
                (Kind::Settled, Some(id)) => {
                    open.remove(&id);
                    counts.settled_ends.push(position);
                }
                _ => {}
            }
        })?;
        Ok(Self { read, records, open, counts })
    }

    /// The segments with records, oldest first. Room that was set aside and never used is given back; the last segment is
    /// written on, if it ends as it should, so that a process that is killed again and again takes no more room each time.
    fn segments(&self, disk: &dyn Disk) -> io::Result<VecDeque<Segment>> {
        let mut segments = VecDeque::new();
        for (base, name, size) in &self.read.segments {
            let Some(counts) = self.counts.get(base) else {
                disk.remove(name)?;
                continue;
            };
            let mut damages = self.read.damages.iter().filter(|damage| damage.file == *name).peekable();
            let is_sound = damages.peek().is_none();
            let damaged = damages.any(|damage| !damage.torn);
            let mut segment = sealed(disk, (*base, name.clone(), *size), counts, damaged)?;
            let is_last = Some(base) == self.counts.keys().max();
            segment.sealed = !is_last || !is_sound || self.read.older.contains(base);
            segments.push_back(segment);
        }
        Ok(segments)
    }

    /// Where the reader begins, and how many settled records of that segment lie before.
    fn cursor(&self, segments: &VecDeque<Segment>) -> (u64, u64) {
        let booked = self.read.booked;
        let first = segments.iter().find(|segment| segment.base.saturating_add(segment.end) > booked);
        let Some(first) = first else { return (booked, 0) };
        let cursor = booked.max(first.base.saturating_add(HEAD_END));
        (cursor, self.counts.get(&first.base).map_or(0, |counts| counts.settled_through(cursor)))
    }
}

impl FileJournal {
    /// Opens the journal on `disk`, which no other process may use. Calls that were admitted and not settled are settled
    /// as they stand; everything that the ledger may not have comes out of `next`.
    ///
    /// # Errors
    /// When the disk cannot be read or has no room for one segment, or when the journal is of another version.
    pub fn open(disk: Arc<dyn Disk>, options: Options) -> io::Result<(Self, Recovered)> {
        let bytes_max = options.bytes_max.max(BYTES_MIN);
        let mut left = Left::read(&*disk)?;
        let refused = quarantined(&*disk)?;
        for (_, event, _) in &refused {
            // A power cut took its settlement from the log. It is kept here.
            left.open.remove(&event.id);
        }
        let segments = left.segments(&*disk)?;
        let (cursor, settled_before) = left.cursor(&segments);
        let booked = left.read.booked;
        let settled_ends = || left.counts.values().flat_map(|counts| &counts.settled_ends).copied();
        let mut recovered = Recovered {
            records: left.records,
            settled: length(settled_ends().filter(|end| *end > booked).count()),
            ..Recovered::default()
        };
        let segment_bytes = (bytes_max / SEGMENTS).min(SEGMENT_BYTES_MAX);
        let mut log = Log::new(disk.clone(), segment_bytes, bytes_max, segments);
        log.acked = booked;
        log.newest = settled_ends().max().unwrap_or(0);
        recovered.interrupted = settle_left(&mut log, left.open)?;
        recovered.requeued = requeue(&mut log, &*disk, &refused)?;
        recovered.damages = left.read.damages;
        let events = recovered.settled.saturating_add(recovered.interrupted).saturating_add(recovered.requeued);
        let (position, newest) = (log.position(), if events > 0 { log.newest } else { 0 });
        let journal = Self {
            disk,
            strict: options.strict,
            log: Mutex::new(log),
            reader: Mutex::new(Reader::new(cursor, settled_before)),
            events: AtomicU64::new(events),
            newest: AtomicU64::new(newest),
            quarantined: AtomicU64::new(0),
            started: Instant::now(),
            waiting_since_us: AtomicU64::new(0),
            ready: Notify::new(),
            synced: watch::Sender::new(position),
            maintainer: OnceLock::new(),
            stopped: AtomicBool::new(false),
        };
        Ok((journal, recovered))
    }
}

/// Asks the ledger again for what it refused before: it may be a newer one, or mended.
fn requeue(log: &mut Log, disk: &dyn Disk, refused: &[Quarantined]) -> io::Result<u64> {
    for (_, event, _) in refused {
        let mut record = Vec::new();
        record::begin(&mut record, Kind::Settled);
        codec::encode(event, &mut record);
        write(log, &mut record)?;
    }
    sync(log)?;
    for (name, ..) in refused {
        disk.remove(name)?;
    }
    Ok(length(refused.len()))
}

/// Settles, as they stand, the calls that an earlier process did not settle.
fn settle_left(log: &mut Log, open: HashMap<EventId, Vec<u8>>) -> io::Result<u64> {
    let mut left: Vec<(EventId, Vec<u8>)> = open.into_iter().collect();
    // In the order of their admission, which is that of their ids.
    left.sort_unstable_by_key(|(id, _)| id.to_bytes());
    for (_, payload) in &left {
        let mut record = Vec::with_capacity(payload.len() + record::HEADER_BYTES);
        record::begin(&mut record, Kind::Settled);
        record.extend_from_slice(payload);
        write(log, &mut record)?;
    }
    Ok(length(left.len()))
}

fn write(log: &mut Log, record: &mut [u8]) -> io::Result<()> {
    // What was left fits by right: its room was promised by the process that admitted it.
    if log.recover(record) { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
}

fn sync(log: &mut Log) -> io::Result<()> {
    for (base, file, end, _) in log.unsynced() {
        file.sync()?;
        log.synced(base, end);
    }
    Ok(())
}

fn sealed(
    disk: &dyn Disk,
    (base, name, size): (u64, String, u64),
    counts: &Counts,
    damaged: bool,
) -> io::Result<Segment> {
    let file = disk.open(&name)?;
    Ok(Segment {
        name,
        base,
        size,
        file,
        end: counts.end,
        // Written by a process that may have ended before it was synced.
        synced: 0,
        suspect: false,
        sealed: true,
        open: 0,
        settled: length(counts.settled_ends.len()),
        carried_to: 0,
        damaged,
    })
}

fn length(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
