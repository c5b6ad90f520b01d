//! The reading end of the journal: settled events in their order, read back from the segments.
//!
//! There is one way to the ledger, whether it is a moment behind or an hour: through the file. So what memory holds does
//! not grow with the backlog, and every event that is booked was read from where a restart would read it.

use std::io;
use std::sync::Arc;

use tracing::error;

use crate::domain::event::UsageEvent;
use crate::ports::journal::Batch;

use super::log::Stretch;
use super::record::{self, Kind, RECORD_BYTES_MAX};
use super::segment::HEAD_END;

/// Bytes read at once: some hundred records a system call.
const CHUNK_BYTES: usize = 256 * 1024;

/// Where the reader stands.
pub(super) struct Reader {
    /// Everything before this was read.
    cursor: u64,
    /// Settled records read in the segment of the cursor.
    settled_here: u64,
    buffer: Vec<u8>,
    /// Given out and not acknowledged: the events, and where each ends.
    given: Arc<[UsageEvent]>,
    ends: Vec<u64>,
}

/// What a look at the segments gave.
#[derive(Default)]
pub(super) struct Look {
    pub batch: Option<Batch>,
    /// Settled records that can no longer be read.
    pub lost: u64,
}

impl Reader {
    /// A reader that begins at a position. `settled_before` counts the settled records of its segment that lie before.
    pub(super) fn new(cursor: u64, settled_before: u64) -> Self {
        Self { cursor, settled_here: settled_before, buffer: Vec::new(), given: Arc::default(), ends: Vec::new() }
    }

    /// The oldest events that are not acknowledged, at most `events_max` of them. `log` gives the stretch at a position.
    pub(super) fn take(&mut self, events_max: usize, log: impl Fn(u64) -> Option<Stretch>) -> io::Result<Look> {
        let mut look = Look::default();
        if self.ends.is_empty() {
            let mut events = Vec::new();
            while events.len() < events_max && self.step(events_max, &log, &mut events, &mut look)? {}
            self.given = events.into();
        }
        let Some(through) = self.ends.get(..events_max).unwrap_or(&self.ends).last().copied() else { return Ok(look) };
        let events = match self.given.get(..events_max) {
            Some(first) if first.len() < self.given.len() => Arc::from(first),
            _ => self.given.clone(),
        };
        look.batch = Some(Batch { events, through });
        Ok(look)
    }

    /// Forgets what ends at or before `through`; says how many events that were, and up to where nothing is left to be
    /// acknowledged.
    pub(super) fn acknowledge(&mut self, through: u64) -> (u64, u64) {
        let done = self.ends.iter().take_while(|end| **end <= through).count();
        let last = done.checked_sub(1).and_then(|last| self.ends.get(last)).copied();
        self.ends.drain(..done);
        self.given = self.given.get(done..).map(Arc::from).unwrap_or_default();
        let acked = if self.ends.is_empty() { self.cursor } else { last.unwrap_or(0) };
        (u64::try_from(done).unwrap_or(u64::MAX), acked)
    }

    /// Reads one chunk, or goes to the next segment. `false`: there is nothing more now.
    fn step(
        &mut self,
        events_max: usize,
        log: impl Fn(u64) -> Option<Stretch>,
        events: &mut Vec<UsageEvent>,
        look: &mut Look,
    ) -> io::Result<bool> {
        let Some(stretch) = log(self.cursor) else { return Ok(false) };
        self.cursor = self.cursor.max(stretch.base.saturating_add(HEAD_END));
        let end = stretch.base.saturating_add(stretch.end);
        if self.cursor >= end {
            look.lost += stretch.settled.saturating_sub(self.settled_here);
            self.settled_here = stretch.settled;
            if stretch.sealed {
                (self.cursor, self.settled_here) = (stretch.base.saturating_add(stretch.size), 0);
            }
            return Ok(stretch.sealed);
        }
        let left = usize::try_from(end.saturating_sub(self.cursor)).unwrap_or(usize::MAX);
        let length = left.min(CHUNK_BYTES);
        self.buffer.resize(length, 0);
        let read = stretch.file.read_at(&mut self.buffer, self.cursor.saturating_sub(stretch.base))?;
        let mut done = 0;
        while events.len() < events_max {
            let rest = self.buffer.get(done..read).unwrap_or_default();
            let Some(record) = record::read(rest, self.cursor) else { break };
            done += record.bytes();
            self.cursor = self.cursor.saturating_add(u64::try_from(record.bytes()).unwrap_or(0));
            if record.kind == Kind::Settled
                && let Some(event) = record.event()
            {
                self.settled_here += 1;
                events.push(event);
                self.ends.push(self.cursor);
            }
        }
        if done == 0 {
            self.skip(&stretch, read, left);
        }
        Ok(true)
    }

    /// What was written whole a moment ago is whole no more: somebody else wrote into the file, or the disk lost it.
    fn skip(&mut self, stretch: &Stretch, read: usize, left: usize) {
        let offset = self.cursor.saturating_sub(stretch.base);
        let chunk = self.buffer.get(..read).unwrap_or_default();
        let bytes = record::resync(chunk, self.cursor).unwrap_or(if read == left {
            left
        } else {
            // A record may begin in this chunk and end in the next.
            read.saturating_sub(RECORD_BYTES_MAX).max(1)
        });
        error!(base = stretch.base, offset, bytes, "The journal is damaged here; the records of these bytes are lost.");
        self.cursor = self.cursor.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}
