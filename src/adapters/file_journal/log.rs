//! The writing end of the journal: where the next record goes, which calls are open, and how much room is promised.
//!
//! Everything here happens under one short lock, in the order of positions. Room is counted so that one thing always
//! holds: what is free in the segments that exist covers the settlement of every open call. So a full disk can refuse a
//! call, but never lose one.

mod upkeep;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::record::{self, Kind, RECORD_BYTES_MAX};
use super::segment::{self, HEAD_END};

/// A place whose call is settled is given to the next one.
type Places = Vec<Option<Open>>;

/// One file with records, or with room for them.
pub(super) struct Segment {
    pub name: String,
    pub base: u64,
    pub size: u64,
    pub file: Arc<dyn DiskFile>,
    /// Where the next record goes, from the begin of the file.
    pub end: u64,
    /// Everything before this survives a power cut.
    pub synced: u64,
    /// A sync failed: what it should have kept is not trusted to be there, whatever a later sync says.
    pub suspect: bool,
    /// No record is added any more.
    pub sealed: bool,
    /// Open calls whose admission stands here.
    pub open: u64,
    /// Settled records in it.
    pub settled: u64,
    /// What took the place of its admissions, settlements or copies behind it, ends at or before this position.
    pub carried_to: u64,
    /// Something is wrong with it: it is kept for whoever wants to know.
    pub damaged: bool,
}

impl Segment {
    /// Bytes that can be written for certain: a record that does not fit at the end leaves at most its own length free.
    fn room(&self) -> u64 {
        if self.sealed { 0 } else { self.size.saturating_sub(self.end).saturating_sub(record_bytes_max()) }
    }

    fn end_position(&self) -> u64 {
        self.base.saturating_add(self.end)
    }
}

/// A call that was admitted and not settled.
#[derive(Debug, Clone, Copy)]
struct Open {
    /// The segment of its admission record.
    base: u64,
    /// Where the record begins in it.
    offset: u64,
    /// How long it is.
    bytes: usize,
    /// Bytes promised to its settlement.
    reserved: u64,
}

/// A settlement that could not be written. It waits in memory for a disk that takes it.
struct Stranded {
    /// The segment of the call's admission.
    base: u64,
    record: Vec<u8>,
}

/// What a reader needs of the segment that a position lies in.
pub(super) struct Stretch {
    pub file: Arc<dyn DiskFile>,
    pub base: u64,
    pub size: u64,
    pub end: u64,
    pub sealed: bool,
    pub settled: u64,
}

/// The writing end.
pub(super) struct Log {
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    bytes_max: u64,
    /// Oldest first. Those behind `head` are empty.
    segments: VecDeque<Segment>,
    /// The place of the segment that is written.
    head: usize,
    /// Where the next new segment begins.
    next_base: u64,
    places: Places,
    free_places: Vec<usize>,
    pub in_flight: u64,
    reserved: u64,
    stranded: Vec<Stranded>,
    /// Where the admission of a refused call may stand, and its length: a write that failed may have written all of it.
    unwanted: Option<(Arc<dyn DiskFile>, u64, usize)>,
    /// The disk failed: nothing is admitted until [`Log::heal`] found it well again.
    pub faulty: bool,
    /// The disk had no room for another segment; it is asked again by [`Log::heal`] only.
    pub no_room: bool,
    pub is_closed: bool,
    /// Everything before this is acknowledged.
    pub acked: u64,
    /// Where the newest settled record ends.
    pub newest: u64,
}

fn record_bytes_max() -> u64 {
    u64::try_from(RECORD_BYTES_MAX).unwrap_or(u64::MAX)
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

impl Log {
    /// A log that goes on in the last of `segments`, or behind it where that one is sealed.
    pub(super) fn new(disk: Arc<dyn Disk>, segment_bytes: u64, bytes_max: u64, segments: VecDeque<Segment>) -> Self {
        let next_base = segments.back().map_or(0, |last| last.base.saturating_add(last.size));
        let head = segments.iter().filter(|segment| segment.sealed).count();
        Self {
            disk,
            segment_bytes,
            bytes_max,
            segments,
            head,
            next_base,
            places: Places::new(),
            free_places: Vec::new(),
            in_flight: 0,
            reserved: 0,
            stranded: Vec::new(),
            unwanted: None,
            faulty: false,
            no_room: false,
            is_closed: false,
            acked: 0,
            newest: 0,
        }
    }

    /// Whether a settlement waits in memory.
    pub(super) fn is_stranded(&self) -> bool {
        !self.stranded.is_empty()
    }

    /// Whether no call is open and no settlement waits in memory.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0 && !self.is_stranded()
    }

    /// Bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    /// Bytes that are free and promised to nobody.
    fn free(&self) -> u64 {
        let room: u64 = self.segments.iter().skip(self.head).map(Segment::room).sum();
        room.saturating_sub(self.reserved)
    }

    /// Whether the next call would be refused.
    pub(super) fn is_full(&self) -> bool {
        let no_more = self.no_room || !self.may_grow();
        self.faulty || (no_more && self.free() < 2 * record_bytes_max())
    }

    /// Makes sure that `bytes` are free and promised to nobody.
    fn provide(&mut self, bytes: u64) -> bool {
        self.free() >= bytes || (self.may_grow() && self.grow(bytes))
    }

    /// The same beyond the bound: for what was promised before, which a restart or a failed disk left without its place.
    fn grow(&mut self, bytes: u64) -> bool {
        while self.free() < bytes {
            if self.no_room {
                return false;
            }
            let Some(base) = self.next_base() else { return false };
            match create(&*self.disk, base, self.segment_bytes) {
                Ok(segment) => self.add(segment),
                Err(_) => {
                    self.no_room = true;
                    return false;
                }
            }
        }
        true
    }

    /// The position of one more segment, if the bound allows one. Whoever got it makes it and calls [`Log::add`].
    pub(super) fn claim_segment(&mut self) -> Option<u64> {
        if self.may_grow() { self.next_base() } else { None }
    }

    fn may_grow(&self) -> bool {
        self.bytes().saturating_add(self.segment_bytes) <= self.bytes_max
    }

    fn next_base(&mut self) -> Option<u64> {
        let base = self.next_base;
        self.next_base = base.checked_add(self.segment_bytes)?;
        Some(base)
    }

    /// Puts a new segment in its place. One that was overtaken while it was made is removed again.
    pub(super) fn add(&mut self, segment: Segment) {
        self.no_room = false;
        let at = self.segments.partition_point(|other| other.base < segment.base);
        // Never before the head, also one that has no record yet: the reader may be there, and looks no further back.
        if at <= self.head && self.head < self.segments.len() {
            drop(self.disk.remove(&segment.name));
            return;
        }
        self.segments.insert(at, segment);
    }

    /// Whether another segment should be made before it is needed.
    pub(super) fn wants_spare(&self) -> bool {
        self.free() < self.segment_bytes / 2
    }

    /// Bytes that all segments may have together.
    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// How large a segment is.
    pub(super) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Admits a call: writes its record and promises room for its settlement. `None` when either cannot be.
    pub(super) fn admit(&mut self, record: &mut [u8], settlement_bytes: u64) -> Option<(usize, u64)> {
        // Longer than any can be: this call is refused, the others have nothing to do with it.
        let fits = record.len() <= RECORD_BYTES_MAX;
        if !fits || self.is_closed || self.faulty || !self.provide(length(record).saturating_add(settlement_bytes)) {
            return None;
        }
        let Ok((base, offset)) = self.append(record) else {
            self.faulty = true;
            self.unwanted = self.segments.get(self.head).map(|head| (head.file.clone(), head.end, record.len()));
            return None;
        };
        let open = Open { base, offset, bytes: record.len(), reserved: settlement_bytes };
        let place = match self.free_places.pop() {
            Some(place) => place,
            None => {
                self.places.push(None);
                self.places.len() - 1
            }
        };
        if let Some(free) = self.places.get_mut(place) {
            *free = Some(open);
        }
        self.in_flight += 1;
        self.reserved = self.reserved.saturating_add(settlement_bytes);
        self.opened(base);
        Some((place, base.saturating_add(offset).saturating_add(length(record))))
    }

    /// Settles a call: the room was promised. Where the disk fails all the same, the record waits in memory; it will be
    /// written somewhere behind the position that is given.
    pub(super) fn settle(&mut self, place: usize, record: &mut [u8]) -> u64 {
        let Some(open) = self.places.get_mut(place).and_then(Option::take) else { return self.newest };
        self.free_places.push(place);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.reserved = self.reserved.saturating_sub(open.reserved);
        if self.faulty || !self.write_settled(record) {
            self.faulty = true;
            // Bounded: nothing is admitted while the disk is faulty, so these are the calls that were open before.
            self.stranded.push(Stranded { base: open.base, record: record.to_vec() });
            return self.position().saturating_add(1);
        }
        self.closed(open.base, self.newest);
        self.newest
    }

    /// Appends a settled record of a call that is not open: one that an earlier process left.
    pub(super) fn write_settled(&mut self, record: &mut [u8]) -> bool {
        let Ok((base, offset)) = self.append(record) else { return false };
        self.newest = base.saturating_add(offset).saturating_add(length(record));
        if let Some(head) = self.segments.get_mut(self.head) {
            head.settled += 1;
        }
        true
    }

    /// The same, with room of its own.
    pub(super) fn recover(&mut self, record: &mut [u8]) -> bool {
        self.grow(length(record)) && self.write_settled(record)
    }

    /// Notes how far the ledger is. Only saves work at the next start, so it is left out where room is short.
    pub(super) fn booked(&mut self, through: u64) {
        self.acked = through;
        let mut record = Vec::with_capacity(16);
        record::begin(&mut record, Kind::Booked);
        record.extend_from_slice(&through.to_le_bytes());
        if !self.faulty && self.provide(length(&record)) && self.append(&mut record).is_err() {
            self.faulty = true;
        }
    }

    /// Writes a record behind the others; says where. Every byte it needs is there, if room was provided for it.
    fn append(&mut self, record: &mut [u8]) -> io::Result<(u64, u64)> {
        let bytes = length(record);
        while let Some(head) = self.segments.get_mut(self.head) {
            if head.sealed || head.size.saturating_sub(head.end) < bytes {
                head.sealed = true;
                self.head += 1;
                continue;
            }
            let offset = head.end;
            if !record::seal(record, head.base.saturating_add(offset)) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            head.file.write_at(record, offset)?;
            head.end = offset.saturating_add(bytes);
            return Ok((head.base, offset));
        }
        Err(io::ErrorKind::StorageFull.into())
    }

    /// Where the newest record ends.
    pub(super) fn position(&self) -> u64 {
        let last = self.segments.iter().take(self.head.saturating_add(1)).next_back();
        last.map_or(self.next_base, Segment::end_position)
    }

    /// The stretch of records that `position` lies in or before; `None` behind the last.
    pub(super) fn stretch(&self, position: u64) -> Option<Stretch> {
        let written = self.segments.iter().take(self.head.saturating_add(1));
        let segment = written.into_iter().find(|segment| position < segment.base.saturating_add(segment.size))?;
        let Segment { file, base, size, end, sealed, settled, .. } = segment;
        Some(Stretch { file: file.clone(), base: *base, size: *size, end: *end, sealed: *sealed, settled: *settled })
    }

    fn opened(&mut self, base: u64) {
        if let Some(segment) = self.segments.iter_mut().rfind(|segment| segment.base == base) {
            segment.open += 1;
        }
    }

    /// An admission of the segment at `base` is needed no more once everything before `end` survives a power cut.
    fn closed(&mut self, base: u64, end: u64) {
        if let Some(segment) = self.segments.iter_mut().rfind(|segment| segment.base == base) {
            segment.open = segment.open.saturating_sub(1);
            segment.carried_to = segment.carried_to.max(end);
        }
    }
}

/// Makes an empty segment.
pub(super) fn create(disk: &dyn Disk, base: u64, bytes: u64) -> io::Result<Segment> {
    let name = segment::name(base);
    let file = disk.create(&name, bytes)?;
    if let Err(error) = file.write_at(&segment::head(base), 0) {
        // A file that nobody counts must not keep room.
        drop(disk.remove(&name));
        return Err(error);
    }
    Ok(Segment {
        name,
        base,
        size: bytes,
        file,
        end: HEAD_END,
        synced: 0,
        suspect: false,
        sealed: false,
        open: 0,
        settled: 0,
        carried_to: 0,
        damaged: false,
    })
}
