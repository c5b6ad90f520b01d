//! A journal in the memory of this process: bounded, gone with the process.
//!
//! May use: `domain`, `ports`.
//!
//! Settling calls and the one reader meet only where the reader takes over the list of settled events: a swap of two
//! pointers under the lock, whatever the length. Events are moved, never cloned, unless the reader asks for fewer than
//! it was given before.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::domain::event::UsageEvent;
use crate::ports::BoxFuture;
use crate::ports::journal::{Backlog, Batch, Journal, JournalFull, Slot};

/// Events in one piece of the list. Pieces keep settling O(1) at its worst: a list that grows as one block is copied
/// whole now and then.
const PIECE_EVENTS: usize = 128;

/// Marks the count of taken places as closed: one atomic, so that no call is admitted after the reader saw the end.
const CLOSED: u64 = 1 << 63;

/// A bounded queue of settled events, and the count of calls that will settle into it.
#[derive(Debug)]
pub struct MemoryJournal {
    capacity: u64,
    /// Admitted and not yet acknowledged or released; [`CLOSED`] on top.
    taken: AtomicU64,
    /// Settled and not yet acknowledged.
    settled: AtomicU64,
    /// Ever settled: the number that names the newest event.
    newest: AtomicU64,
    inbox: Mutex<Pieces>,
    reader: Mutex<Reader>,
    /// Wakes the reader: the inbox is no longer empty, or the journal may have come to its end.
    ready: Notify,
}

type Pieces = VecDeque<Vec<UsageEvent>>;

#[derive(Debug, Default)]
struct Reader {
    waiting: Pieces,
    /// Given out and not yet acknowledged.
    given: Option<Arc<[UsageEvent]>>,
    /// How many events were acknowledged so far.
    acknowledged: u64,
}

impl MemoryJournal {
    /// A journal for at most `capacity` calls that are in flight or not yet in the ledger.
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity: capacity.min(CLOSED - 1),
            taken: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            inbox: Mutex::default(),
            reader: Mutex::default(),
            ready: Notify::new(),
        }
    }

    fn take(&self, events_max: usize) -> Option<Batch> {
        let mut reader = self.reader.lock();
        if reader.given.is_none() {
            let arrived = mem::take(&mut *self.inbox.lock());
            reader.waiting.extend(arrived);
        }
        reader.give(events_max)
    }

    fn is_at_end(&self) -> bool {
        self.taken.load(Ordering::Acquire) == CLOSED
    }

    fn free(&self, places: u64) {
        if self.taken.fetch_sub(places, Ordering::AcqRel) == CLOSED + places {
            self.ready.notify_one();
        }
    }
}

impl Journal for MemoryJournal {
    fn admit(&self) -> Result<Slot, JournalFull> {
        // A closed journal's count is above every capacity.
        let take_one = |taken: u64| (taken < self.capacity).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, take_one);
        taken.map(Slot).map_err(|_| JournalFull)
    }

    fn settle(&self, _slot: Slot, event: UsageEvent) {
        self.settled.fetch_add(1, Ordering::AcqRel);
        self.newest.fetch_add(1, Ordering::AcqRel);
        let mut inbox = self.inbox.lock();
        let was_empty = inbox.is_empty();
        match inbox.back_mut() {
            Some(piece) if piece.len() < PIECE_EVENTS => piece.push(event),
            _ => {
                let mut piece = Vec::with_capacity(PIECE_EVENTS);
                piece.push(event);
                inbox.push_back(piece);
            }
        }
        drop(inbox);
        // The reader always takes the whole inbox, so only the first event in it has to wake it.
        if was_empty {
            self.ready.notify_one();
        }
    }

    fn release(&self, _slot: Slot) {
        self.free(1);
    }

    fn ready(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            while self.settled.load(Ordering::Acquire) == 0 && !self.is_closed() {
                self.ready.notified().await;
            }
        })
    }

    fn next(&self, events_max: usize) -> BoxFuture<'_, Batch> {
        Box::pin(async move {
            loop {
                if let Some(batch) = self.take(events_max.max(1)) {
                    return batch;
                }
                if self.is_at_end() {
                    let through = self.reader.lock().acknowledged;
                    return Batch { events: Arc::default(), through };
                }
                // A wake between the look above and this wait is kept by `Notify` and ends the wait at once.
                self.ready.notified().await;
            }
        })
    }

    fn ack(&self, through: u64) {
        let (acknowledged, events) = self.reader.lock().acknowledge(through);
        self.settled.fetch_sub(acknowledged, Ordering::AcqRel);
        self.free(acknowledged);
        // The events are freed here, outside of every lock.
        drop(events);
    }

    fn close(&self) {
        self.taken.fetch_or(CLOSED, Ordering::AcqRel);
        self.ready.notify_one();
    }

    fn is_closed(&self) -> bool {
        self.taken.load(Ordering::Acquire) & CLOSED != 0
    }

    fn settled_through(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    fn backlog(&self) -> Backlog {
        let events = self.settled.load(Ordering::Acquire);
        let state = self.taken.load(Ordering::Acquire);
        let taken = state & !CLOSED;
        let free = if state == taken { self.capacity.saturating_sub(taken) } else { 0 };
        Backlog { events, in_flight: taken.saturating_sub(events), free }
    }
}

impl Reader {
    /// What was given before and not acknowledged, or the oldest of what waits; at most `events_max` of it.
    fn give(&mut self, events_max: usize) -> Option<Batch> {
        let given = match &self.given {
            Some(given) => Arc::clone(given),
            None => {
                let given: Arc<[UsageEvent]> = self.oldest(events_max)?.into();
                self.given = Some(Arc::clone(&given));
                given
            }
        };
        let events = match given.get(..events_max) {
            Some(first) if first.len() < given.len() => Arc::from(first),
            _ => given,
        };
        let through = self.acknowledged.saturating_add(length(&events));
        Some(Batch { events, through })
    }

    fn oldest(&mut self, events_max: usize) -> Option<Vec<UsageEvent>> {
        let mut oldest = self.waiting.pop_front()?;
        if oldest.len() > events_max {
            self.waiting.push_front(oldest.split_off(events_max));
            return Some(oldest);
        }
        while let Some(mut piece) = self.waiting.pop_front() {
            let room = events_max.saturating_sub(oldest.len());
            if piece.len() > room {
                let rest = piece.split_off(room);
                self.waiting.push_front(rest);
            }
            if piece.is_empty() {
                break;
            }
            oldest.append(&mut piece);
        }
        Some(oldest)
    }

    /// Forgets what is acknowledged and says how many events that were. Events that were not given out cannot be
    /// acknowledged, nor any twice.
    fn acknowledge(&mut self, through: u64) -> (u64, Option<Arc<[UsageEvent]>>) {
        let given = self.given.take();
        let Some(events) = &given else { return (0, None) };
        let acknowledged = through.saturating_sub(self.acknowledged).min(length(events));
        let rest = usize::try_from(acknowledged).ok().and_then(|at| events.get(at..)).unwrap_or_default();
        if !rest.is_empty() {
            self.given = Some(if acknowledged == 0 { Arc::clone(events) } else { Arc::from(rest) });
        }
        self.acknowledged = self.acknowledged.saturating_add(acknowledged);
        (acknowledged, given)
    }
}

fn length(events: &[UsageEvent]) -> u64 {
    u64::try_from(events.len()).unwrap_or(u64::MAX)
}
