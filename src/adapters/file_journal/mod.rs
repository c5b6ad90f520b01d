//! The journal as an append-only log of files: what a process wrote before it was killed is there when it starts again.
//!
//! May use: `domain`, `ports`.
//!
//! One `pwrite` a record, behind the last one, into a file whose room was set aside: that is all the request path pays.
//! [`FileJournal::maintain`], called by a thread of its own, does the rest: it syncs what was written, makes the next
//! segment before it is needed, removes segments that the ledger has taken over, and mends what a failing disk left.
//!
//! | file | what is in it |
//! |---|---|
//! | [`record`] | one record: frame, checksum, the way past damage |
//! | [`codec`] | an event as bytes |
//! | [`segment`] | one file: head, and its records as they are found |
//! | [`log`] | the writing end: places, promised room, healing |
//! | [`reader`] | the reading end |
//! | [`recovery`] | opening: what an earlier process left |
//! | [`disk`] | what all this needs of a disk |

mod codec;
pub mod disk;
mod log;
mod reader;
mod record;
mod recovery;
mod segment;

use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::domain::event::UsageEvent;
use crate::ports::journal::{Backlog, Batch, Journal, JournalFull, Slot};
use crate::ports::{BoxFuture, StoreError};

use self::disk::Disk;
use self::log::Log;
use self::reader::Reader;
use self::record::Kind;

pub use self::recovery::{Recovered, Stored, survey};
pub use self::segment::Damage;

/// Segments that the bound is divided into, and the largest a segment becomes. Many small ones give room back sooner;
/// 16 MiB are made in a few milliseconds, some seconds before they are needed.
const SEGMENTS: u64 = 16;
const SEGMENT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The smallest bound: sixteen segments that each hold some dozen records of the largest kind.
pub const BYTES_MIN: u64 = 1024 * 1024;

/// What a settlement may need beyond its admission: a longer model name (200 bytes), a request id (130), two amounts of money
/// (32), and more digits in 22 numbers.
const SETTLEMENT_GROWTH_BYTES: u64 = 640;

/// Files of refused events. If the ledger refuses more than this, it is not the events that are wrong, and the recorder
/// had better wait.
const QUARANTINED_MAX: u64 = 10_000;

/// How long `durable` waits at most: a disk that does not sync for so long must not hold answers for ever.
const DURABLE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Between two tries to read a journal whose disk fails.
const READ_AGAIN: Duration = Duration::from_secs(1);

const QUARANTINE_SUFFIX: &str = ".quarantined";
const DAMAGED_SUFFIX: &str = ".damaged";

/// How the journal is kept.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bytes of all segments together, at least [`BYTES_MIN`].
    pub bytes_max: u64,
    /// Whether [`Journal::durable`] waits for the disk.
    pub strict: bool,
}

/// The journal on a disk.
pub struct FileJournal {
    disk: Arc<dyn Disk>,
    strict: bool,
    log: Mutex<Log>,
    reader: Mutex<Reader>,
    /// Settled and not acknowledged.
    events: AtomicU64,
    /// Where the newest settled record ends.
    newest: AtomicU64,
    quarantined: AtomicU64,
    started: Instant,
    /// Since when, from `started`, the reader has acknowledged nothing though there was something; in microseconds.
    waiting_since_us: AtomicU64,
    /// Wakes the reader: there are events, or the journal may have come to its end.
    ready: Notify,
    /// Everything before this survives a power cut.
    synced: watch::Sender<u64>,
    maintainer: OnceLock<Thread>,
    stopped: AtomicBool,
}

thread_local! {
    /// Where records are put together: the request path allocates nothing for them.
    static RECORD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn with_record<T>(kind: Kind, event: &UsageEvent, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    RECORD.with_borrow_mut(|record| {
        record::begin(record, kind);
        codec::encode(event, record);
        write(record)
    })
}

impl FileJournal {
    /// Syncs, makes room, tidies up and heals. To be called again and again, by one thread at a time.
    pub fn maintain(&self) {
        self.heal();
        self.sync();
        self.make_spare();
        let done = {
            let mut log = self.log.lock();
            log.carry();
            log.take_done()
        };
        self.discard(done);
    }

    /// Calls [`FileJournal::maintain`] at this interval, on a thread of its own, until [`FileJournal::stop`].
    ///
    /// # Errors
    /// When the system has no thread.
    pub fn start_maintainer(self: &Arc<Self>, interval: Duration) -> io::Result<thread::JoinHandle<()>> {
        let journal = Arc::clone(self);
        let maintainer = thread::Builder::new().name("tollgate-journal".to_owned()).spawn(move || {
            while !journal.stopped.load(Ordering::Acquire) {
                thread::park_timeout(interval);
                // Without this thread nothing is synced and no room comes free, so it outlives a panic.
                if catch_unwind(AssertUnwindSafe(|| journal.maintain())).is_err() {
                    error!("The journal's maintenance met a panic; nothing is lost, and it goes on.");
                }
            }
            journal.leave();
        })?;
        // Whoever waits for the disk wakes it at once, also before it ran for the first time.
        self.maintainer.get_or_init(|| maintainer.thread().clone());
        Ok(maintainer)
    }

    /// Ends the maintainer, which then leaves the files as [`FileJournal::leave`] does: join it before the process ends.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.wake_maintainer();
    }

    /// The last maintenance, for whoever has no thread for it: syncs what is there. When nothing is open and the ledger has
    /// everything, the files go.
    pub fn leave(&self) {
        self.maintain();
        let done = {
            let mut log = self.log.lock();
            if !log.is_closed || !log.is_idle() || self.events.load(Ordering::Acquire) > 0 {
                return;
            }
            log.take_all()
        };
        self.discard(done);
    }

    fn wake_maintainer(&self) {
        if let Some(thread) = self.maintainer.get() {
            thread.unpark();
        }
    }

    fn heal(&self) {
        let mut log = self.log.lock();
        let was_faulty = log.faulty;
        // What was rescued is read twice, from its old place and from the new one.
        self.count(log.heal());
        let (newest, is_faulty) = (log.newest, log.faulty);
        drop(log);
        if was_faulty {
            self.newest.fetch_max(newest, Ordering::AcqRel);
            self.ready.notify_one();
        }
        if was_faulty && !is_faulty {
            info!("The journal's disk takes records again.");
        }
    }

    fn sync(&self) {
        let (unsynced, position, mut all) = {
            let log = self.log.lock();
            (log.unsynced(), log.position(), !log.is_stranded())
        };
        for (base, file, end, suspect) in unsynced {
            // A sync that failed once says nothing by succeeding later: what it should have kept is written again.
            let synced = if suspect { Err(io::ErrorKind::Other.into()) } else { file.sync() };
            match synced {
                Ok(()) => self.log.lock().synced(base, end),
                Err(error) => {
                    all = false;
                    if self.log.lock().not_synced(base) {
                        error!(%error, base, "The journal could not be synced; no calls are admitted until it can.");
                    }
                }
            }
        }
        if all {
            self.synced.send_replace(position);
        }
    }

    /// Makes a segment while nobody waits for it, and so outside of the lock.
    fn make_spare(&self) {
        let (base, bytes) = {
            let mut log = self.log.lock();
            if log.faulty || log.is_closed || !log.wants_spare() {
                return;
            }
            let Some(base) = log.claim_segment() else { return };
            (base, log.segment_bytes())
        };
        match log::create(&*self.disk, base, bytes) {
            Ok(segment) => self.log.lock().add(segment),
            Err(error) => {
                warn!(%error, "The journal has no room for another segment.");
                self.log.lock().no_room = true;
            }
        }
    }

    /// Removes segments; those that are damaged keep their bytes under another name.
    fn discard(&self, done: Vec<(String, bool)>) {
        for (name, keep) in done {
            let gone = match keep {
                true => self.disk.rename(&name, &format!("{name}{DAMAGED_SUFFIX}")),
                false => self.disk.remove(&name),
            };
            if let Err(error) = gone {
                warn!(%error, file = name, "A segment of the journal that is done with could not be removed.");
            }
        }
    }

    /// So many more events wait for the ledger.
    fn count(&self, events: u64) {
        if self.events.fetch_add(events, Ordering::AcqRel) == 0 {
            self.waiting_since_us.store(self.elapsed_us(), Ordering::Release);
        }
    }

    fn gone(&self, events: u64) {
        // Only the one reader takes away, so what is there now is still there in a moment.
        let known = self.events.load(Ordering::Acquire);
        self.events.fetch_sub(events.min(known), Ordering::AcqRel);
    }

    fn elapsed_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn take(&self, events_max: usize) -> io::Result<Option<Batch>> {
        let look = self.reader.lock().take(events_max.max(1), |position| self.log.lock().stretch(position))?;
        if look.lost > 0 {
            error!(events = look.lost, "Settled events can no longer be read from the journal.");
            self.gone(look.lost);
        }
        Ok(look.batch)
    }

    fn is_at_end(&self) -> bool {
        let log = self.log.lock();
        log.is_closed && log.is_idle() && self.events.load(Ordering::Acquire) == 0
    }
}

impl Journal for FileJournal {
    fn admit(&self, pending: &UsageEvent) -> Result<Slot, JournalFull> {
        let admitted = with_record(Kind::Admitted, pending, |record| {
            let settlement = u64::try_from(record.len()).unwrap_or(u64::MAX).saturating_add(SETTLEMENT_GROWTH_BYTES);
            self.log.lock().admit(record, settlement)
        });
        let (place, position) = admitted.ok_or(JournalFull)?;
        Ok(Slot { place: u64::try_from(place).map_err(|_| JournalFull)?, position })
    }

    fn settle(&self, slot: Slot, event: &UsageEvent) -> u64 {
        let place = usize::try_from(slot.place).unwrap_or(usize::MAX);
        // Counted before the reader can see it: it must not acknowledge what was not counted yet.
        self.count(1);
        let position = with_record(Kind::Settled, event, |record| self.log.lock().settle(place, record));
        self.newest.fetch_max(position, Ordering::AcqRel);
        // Always: the reader may have looked between the two steps above, and waits then though the count is not 0.
        self.ready.notify_one();
        position
    }

    fn durable(&self, position: u64) -> BoxFuture<'_, bool> {
        if !self.strict {
            return Box::pin(std::future::ready(true));
        }
        Box::pin(async move {
            let mut synced = self.synced.subscribe();
            if *synced.borrow_and_update() >= position {
                return true;
            }
            self.wake_maintainer();
            let is_synced = timeout(DURABLE_WAIT_MAX, synced.wait_for(|synced| *synced >= position)).await.is_ok();
            if !is_synced {
                error!("The journal's disk does not sync; nobody waits for it any longer.");
            }
            is_synced
        })
    }

    fn ready(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            while self.events.load(Ordering::Acquire) == 0 && !self.is_closed() {
                self.ready.notified().await;
            }
        })
    }

    fn waiting(&self, see: &mut dyn FnMut(UsageEvent)) -> Result<(), StoreError> {
        let see = |stored| match stored {
            Stored::Settled(event, false) => see(event),
            Stored::Settled(..) | Stored::Open(_) | Stored::Quarantined(..) => {}
        };
        survey(&*self.disk, see).map(drop).map_err(|error| StoreError::Unavailable(format!("the journal: {error}")))
    }

    fn next(&self, events_max: usize) -> BoxFuture<'_, Batch> {
        Box::pin(async move {
            loop {
                match self.take(events_max) {
                    Ok(Some(batch)) => return batch,
                    Ok(None) => {}
                    Err(error) => {
                        error!(%error, "The journal cannot be read; it is tried again.");
                        tokio::time::sleep(READ_AGAIN).await;
                        continue;
                    }
                }
                if self.is_at_end() {
                    return Batch { events: Arc::default(), through: self.newest.load(Ordering::Acquire) };
                }
                // A wake between the look above and this wait is kept by `Notify` and ends the wait at once.
                self.ready.notified().await;
            }
        })
    }

    fn ack(&self, through: u64) {
        let mut reader = self.reader.lock();
        let (events, acked) = reader.acknowledge(through);
        self.gone(events);
        self.waiting_since_us.store(self.elapsed_us(), Ordering::Release);
        let mut log = self.log.lock();
        if acked > log.acked {
            log.booked(acked);
        }
        drop(log);
        drop(reader);
        if self.is_closed() {
            self.ready.notify_one();
        }
    }

    fn quarantine(&self, event: &UsageEvent, reason: &str) -> Result<(), StoreError> {
        let failed = |error: io::Error| StoreError::Unavailable(format!("the journal's quarantine: {error}"));
        if self.quarantined.load(Ordering::Acquire) >= QUARANTINED_MAX {
            return Err(StoreError::Unavailable(format!("{QUARANTINED_MAX} events are in quarantine already")));
        }
        let reason = reason.get(..reason.floor_char_boundary(QUARANTINE_REASON_BYTES_MAX)).unwrap_or_default();
        let mut bytes = Vec::new();
        record::begin(&mut bytes, Kind::Quarantined);
        codec::text(&mut bytes, reason);
        codec::encode(event, &mut bytes);
        if !record::seal(&mut bytes, 0) {
            return Err(failed(io::ErrorKind::InvalidData.into()));
        }
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let file = self.disk.create(&format!("{}{QUARANTINE_SUFFIX}", event.id), length).map_err(failed)?;
        file.write_at(&bytes, 0).and_then(|()| file.sync()).map_err(failed)?;
        self.quarantined.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    fn close(&self) {
        self.log.lock().is_closed = true;
        self.ready.notify_one();
    }

    fn is_closed(&self) -> bool {
        self.log.lock().is_closed
    }

    fn settled_through(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    fn backlog(&self) -> Backlog {
        let (in_flight, bytes, bytes_max, full) = {
            let log = self.log.lock();
            (log.in_flight, log.bytes(), log.bytes_max(), log.is_full())
        };
        let events = self.events.load(Ordering::Acquire);
        let since = self.waiting_since_us.load(Ordering::Acquire);
        let waiting_us = if events == 0 { 0 } else { self.elapsed_us().saturating_sub(since) };
        let quarantined = self.quarantined.load(Ordering::Acquire);
        Backlog { events, waiting_us, in_flight, bytes, bytes_max, full, quarantined }
    }
}

/// What is kept of the words with which the ledger refused an event.
const QUARANTINE_REASON_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests;
