//! What the maintainer does with the log: what is to be synced, what a failing disk left, and what nobody needs any more.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::super::disk::DiskFile;
use super::super::record::{self, Kind};
use super::super::segment::HEAD_END;
use super::{Log, Open, Segment, length, record_bytes_max};

/// Admissions that are carried in one turn: the lock is held for less than a millisecond, and the next turn is near.
const CARRIED_AT_ONCE: usize = 256;

impl Log {
    /// Segments with bytes that no power cut may take and that are not synced yet.
    pub(in super::super) fn unsynced(&self) -> Vec<(u64, Arc<dyn DiskFile>, u64, bool)> {
        let unsynced = self.segments.iter().filter(|segment| segment.synced < segment.end || segment.suspect);
        unsynced.map(|segment| (segment.base, segment.file.clone(), segment.end, segment.suspect)).collect()
    }

    /// A sync of the segment at `base` returned; it covers everything before `end`.
    pub(in super::super) fn synced(&mut self, base: u64, end: u64) {
        if let Some(segment) = self.segments.iter_mut().find(|segment| segment.base == base) {
            segment.synced = segment.synced.max(end);
        }
    }

    /// A sync of the segment at `base` failed. Says whether that is news.
    pub(in super::super) fn not_synced(&mut self, base: u64) -> bool {
        let Some(segment) = self.segments.iter_mut().find(|segment| segment.base == base) else { return false };
        self.faulty = true;
        !std::mem::replace(&mut segment.suspect, true)
    }

    /// Makes the journal whole again after a failure: behind the last good record, in a segment of its own, it writes
    /// what waits in memory and what a failed sync may have lost. Gives how many settled records of the latter kind were
    /// written: they stand in the journal twice.
    pub(in super::super) fn heal(&mut self) -> u64 {
        if !self.faulty {
            // A disk that had no room is asked again.
            self.no_room = false;
            return 0;
        }
        if let Some((file, offset, bytes)) = &self.unwanted {
            // A start would take it for a call that was in flight.
            if file.write_at(&vec![0; *bytes], *offset).and_then(|()| file.sync()).is_err() {
                return 0;
            }
            self.unwanted = None;
        }
        // What failed goes on in a new place. One that is empty still is new: a disk that stays faulty gets no more of them.
        if let Some(head) = self.segments.get_mut(self.head).filter(|head| head.end > HEAD_END) {
            head.sealed = true;
            self.head += 1;
        }
        self.no_room = false;
        let waiting: u64 = self.stranded.iter().map(|stranded| length(&stranded.record)).sum();
        if !self.grow(waiting.saturating_add(record_bytes_max())) {
            return 0;
        }
        let mut rescued = 0;
        if self.rescue(&mut rescued).is_err() {
            return rescued;
        }
        while let Some(mut stranded) = self.stranded.pop() {
            if !self.write_settled(&mut stranded.record) {
                self.stranded.push(stranded);
                return rescued;
            }
            self.closed(stranded.base, self.newest);
        }
        self.faulty = false;
        rescued
    }

    /// Writes again what a failed sync may have lost.
    fn rescue(&mut self, written: &mut u64) -> io::Result<()> {
        // As they are before anything is written: the copies may go into one of them, and are not safe by that.
        let suspects: Vec<(u64, Arc<dyn DiskFile>, u64, u64)> = self
            .segments
            .iter()
            .filter(|segment| segment.suspect)
            .map(|segment| (segment.base, segment.file.clone(), segment.synced.max(HEAD_END), segment.end))
            .collect();
        for (base, file, from, end) in suspects {
            let mut bytes = vec![0; usize::try_from(end.saturating_sub(from)).unwrap_or(0)];
            let read = file.read_at(&mut bytes, from)?;
            bytes.truncate(read);
            let open = self.open_in(base);
            let mut done = 0;
            while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
                let offset = from.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
                let position = base.saturating_add(offset);
                let Some(found) = record::read(rest, position) else {
                    // Gone from the cache as well: the records behind it may still be there.
                    done += record::resync(rest, position).unwrap_or(rest.len());
                    continue;
                };
                let mut copy = rest.get(..found.bytes()).unwrap_or_default().to_vec();
                done += found.bytes();
                let is_safe = match (found.kind, open.get(&offset)) {
                    (Kind::Settled, _) => {
                        let is_safe = self.recover(&mut copy);
                        *written += u64::from(is_safe);
                        is_safe
                    }
                    // Beyond the bound, if need be: the calls in flight would be all that could mend it otherwise.
                    (Kind::Admitted, Some(place)) => self.grow(length(&copy)) && self.move_admission(*place, &mut copy),
                    (Kind::Admitted | Kind::Booked | Kind::Quarantined, _) => true,
                };
                if !is_safe {
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
            if let Some(segment) = self.segments.iter_mut().find(|segment| segment.base == base) {
                (segment.suspect, segment.synced) = (false, end);
            }
        }
        Ok(())
    }

    /// The open calls whose admission stands in a segment: their places by the offset of the record.
    fn open_in(&self, base: u64) -> BTreeMap<u64, usize> {
        let places = self.places.iter().enumerate();
        places.filter_map(|(place, open)| Some((open.filter(|open| open.base == base)?.offset, place))).collect()
    }

    /// Writes the admission of an open call again, behind the others. `false`: no room.
    fn move_admission(&mut self, place: usize, copy: &mut [u8]) -> bool {
        if !self.provide(length(copy)) {
            return false;
        }
        let Ok((base, offset)) = self.append(copy) else { return false };
        let Some(Some(open)) = self.places.get_mut(place) else { return false };
        let old = open.base;
        (open.base, open.offset) = (base, offset);
        self.opened(base);
        self.closed(old, base.saturating_add(offset).saturating_add(length(copy)));
        true
    }

    /// Frees the oldest segment of its last open calls, where they alone keep it: writes their admissions again. Long
    /// calls would keep everything behind them otherwise.
    pub(in super::super) fn carry(&mut self) {
        let Some(front) = self.segments.front().filter(|front| self.is_done(front) && front.open > 0) else { return };
        let (base, file) = (front.base, front.file.clone());
        let here: Vec<(usize, Open)> = self
            .open_in(base)
            .into_values()
            .filter_map(|place| Some((place, *self.places.get(place)?.as_ref()?)))
            .collect();
        let bytes: u64 = here.iter().map(|(_, open)| u64::try_from(open.bytes).unwrap_or(u64::MAX)).sum();
        let is_pressed = self.bytes() > self.bytes_max / 2;
        // Carrying costs what it writes: a quarter of a segment at most, unless room becomes scarce.
        if self.faulty || (bytes > self.segment_bytes / 4 && !is_pressed) {
            return;
        }
        for (place, open) in here.into_iter().take(CARRIED_AT_ONCE) {
            let mut copy = vec![0; open.bytes];
            let is_whole = file.read_at(&mut copy, open.offset).is_ok_and(|read| read == open.bytes);
            let is_record = record::read(&copy, base.saturating_add(open.offset)).is_some();
            if !is_whole || !is_record || !self.move_admission(place, &mut copy) {
                return;
            }
        }
    }

    /// Takes out the oldest segments that nobody needs any more: everything in them is in the ledger, no open call began
    /// in them, and what took their place survives a power cut. Gives their names and whether each is to be kept aside.
    pub(in super::super) fn take_done(&mut self) -> Vec<(String, bool)> {
        let mut done = Vec::new();
        let is_free = |front: &Segment| self.is_done(front) && front.open == 0 && self.is_synced_to(front.carried_to);
        let free = self.segments.iter().take_while(|front| is_free(front)).count();
        for _ in 0..free {
            if let Some(front) = self.segments.pop_front() {
                self.head = self.head.saturating_sub(1);
                done.push((front.name, front.damaged));
            }
        }
        done
    }

    fn is_synced_to(&self, position: u64) -> bool {
        let is_synced = |segment: &Segment| {
            !segment.suspect && segment.base.saturating_add(segment.synced) >= segment.end_position().min(position)
        };
        self.segments.iter().all(is_synced)
    }

    fn is_done(&self, segment: &Segment) -> bool {
        segment.sealed && self.acked >= segment.end_position()
    }

    /// Takes out everything: the journal is closed, and nothing is open or waits.
    pub(in super::super) fn take_all(&mut self) -> Vec<(String, bool)> {
        self.head = 0;
        self.segments.drain(..).map(|segment| (segment.name, segment.damaged)).collect()
    }
}
