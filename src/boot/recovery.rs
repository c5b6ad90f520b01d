//! From the end of the last process to the first call of this one: the lock on the data directory, the journal that was
//! left, and counters that know all of it.
//!
//! May use: everything.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{info, warn};

use crate::adapters::file_journal::disk::Folder;
use crate::adapters::file_journal::{FileJournal, Options, Recovered};
use crate::config::Config;
use crate::domain::plan::Metric;
use crate::domain::time::Window;
use crate::metering::recorder::Recorder;
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::counters::{CounterKey, CounterStore};
use crate::ports::journal::Journal;
use crate::ports::usage::UsageStore;

use super::BootError;

/// A start that waits for the ledger says so this often.
const PROGRESS: Duration = Duration::from_secs(2);

/// A ledger that takes nothing for so long will not take it by waiting.
const STANDSTILL_MAX: Duration = Duration::from_secs(30);

/// The data directory, while this process has it to itself. The system lets go of it when the process ends, however.
pub(super) struct DataLock {
    _file: File,
}

impl DataLock {
    /// Takes the directory, or says who may have it.
    pub(super) fn take(data_dir: &Path) -> Result<Self, BootError> {
        let path = data_dir.join("lock");
        let failed = |error: io::Error| BootError::DataDir { path: path.clone(), reason: error.to_string() };
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(BootError::DataDirTaken { path: data_dir.to_owned() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

/// Where the journal of a data directory lies.
pub fn journal_dir(config: &Config) -> std::path::PathBuf {
    config.data_dir.join("journal")
}

/// Opens the journal and says what was left in it.
pub(super) fn open_journal(config: &Config) -> Result<(Arc<FileJournal>, Recovered), BootError> {
    let path = journal_dir(config);
    let failed = |error: io::Error| BootError::Journal { path: path.clone(), reason: error.to_string() };
    let disk = Arc::new(Folder::open(&path).map_err(failed)?);
    let options = Options { bytes_max: config.journal.bytes_max, strict: config.journal.strict };
    let (journal, recovered) = FileJournal::open(disk, options).map_err(failed)?;
    for damage in &recovered.damages {
        let (file, offset, bytes) = (&damage.file, damage.offset, damage.bytes);
        if damage.torn {
            warn!(
                file,
                offset, bytes, "The journal ends in a record that was not written whole; what came before it is kept."
            );
        } else {
            warn!(
                file,
                offset,
                bytes,
                "The journal is damaged here; everything before and behind it is kept, and the file is put aside once it is booked."
            );
        }
    }
    let Recovered { records, settled, interrupted, requeued, .. } = recovered;
    if settled + interrupted + requeued > 0 {
        info!(
            records,
            settled, interrupted, requeued, "The last process left calls in the journal: they are booked now."
        );
    }
    Ok((Arc::new(journal), recovered))
}

/// Waits until the ledger has everything that was left.
pub(super) async fn book(recorder: &Recorder, journal: &dyn Journal) -> Result<(), BootError> {
    let target = journal.settled_through();
    let (mut left, mut still) = (journal.backlog().events, Duration::ZERO);
    while timeout(PROGRESS, recorder.reaches(target)).await.is_err() {
        let now = journal.backlog().events;
        info!(events = now, "The ledger takes what the last process left.");
        still = if now < left { Duration::ZERO } else { still + PROGRESS };
        left = now;
        if still >= STANDSTILL_MAX {
            return Err(BootError::Unbooked { events: left });
        }
    }
    Ok(())
}

/// Counters start from what the ledger knows of the period before, of this one and of two to come, as many as a counter
/// keeps: a clock that was ahead left events there, and when it gets there again their chats are used still.
pub(super) async fn seed(
    counters: &dyn CounterStore,
    usage: &dyn UsageStore,
    clock: &dyn Clock,
) -> Result<(), StoreError> {
    for window in [Window::Month, Window::Day] {
        let current = window.period(clock.now());
        let next = window.period(current.end());
        for period in [current.previous(), current, next, window.period(next.end())] {
            let key = |tenant| CounterKey { tenant, metric: Metric::Chats, period };
            let known: Vec<_> =
                usage.chats(period).await?.into_iter().map(|(tenant, chats)| (key(tenant), chats)).collect();
            counters.seed(&known).await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        }
    }
    Ok(())
}
