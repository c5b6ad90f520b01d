//! From the end of the last process to the start of this one: the locks on directory and ledger, and the journal that
//! was left.
//!
//! May use: everything.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tracing::{info, warn};

use crate::adapters::file_journal::disk::Folder;
use crate::adapters::file_journal::{FileJournal, Options, Recovered};
use crate::config::{Config, Ledger};
use crate::ports::StoreError;

use super::BootError;

/// The data directory and a ledger in a file, while this process has them to itself: the one holds its journal, and the
/// limits that follow from the other are counted in this process. The system lets go of both when the process ends,
/// however.
pub(super) struct Locks {
    _directory: File,
    _ledger: Option<File>,
}

impl Locks {
    /// Takes both, or says what another process has.
    pub(super) fn take(config: &Config) -> Result<Self, BootError> {
        let taken = || BootError::DataDirTaken { path: config.data_dir.clone() };
        let directory = lock(&config.data_dir.join("lock"), taken)?;
        let ledger = match &config.ledger {
            Ledger::Sqlite(path) => Some(lock_ledger(path, "stop that one, or set DATABASE_URL to another ledger")?),
            Ledger::Postgres(_) => None,
        };
        Ok(Self { _directory: directory, _ledger: ledger })
    }
}

/// Takes a ledger in a file for this process, or says what helps. The lock lies beside the file itself, whatever path
/// leads to it: two that count the same limits would each let all of them through.
pub(super) fn lock_ledger(path: &Path, fix: &'static str) -> Result<File, BootError> {
    let ledger = || path.display().to_string();
    let place = place_of(path)?;
    let mut beside = place.as_os_str().to_owned();
    beside.push(".lock");
    let locked = lock(Path::new(&beside), || BootError::LedgerTaken { ledger: ledger(), fix })?;
    // SQLite, too, keeps locks and log by name: two names of one file are two ledgers that write over each other.
    let names = fs::metadata(&place).map_or(1, |metadata| metadata.nlink());
    if names > 1 {
        let why =
            format!("the file has {names} names (hard links): remove the others, or put a copy (cp) in its place");
        return Err(BootError::Ledger { ledger: ledger(), source: StoreError::Unavailable(why) });
    }
    Ok(locked)
}

/// Where the file of a ledger lies or will lie, without links on the way. Its directory is made.
fn place_of(path: &Path) -> Result<PathBuf, BootError> {
    let failed = |error: io::Error| BootError::DataDir { path: path.to_owned(), reason: error.to_string() };
    let mut at = path.to_owned();
    // What a link leads to may be missing yet. More links in a row than this the system does not follow either.
    for _ in 0..LINKS_MAX {
        match fs::canonicalize(&at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            place => return place.map_err(failed),
        }
        let parent = at.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match fs::read_link(&at) {
            Ok(target) => at = parent.join(target),
            Err(_) => {
                super::make_data_dir(parent)?;
                let name = at.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
                return Ok(fs::canonicalize(parent).map_err(failed)?.join(name));
            }
        }
    }
    Err(failed(io::Error::other("too many symbolic links")))
}

const LINKS_MAX: usize = 40;

fn lock(path: &Path, taken: impl FnOnce() -> BootError) -> Result<File, BootError> {
    let failed = |error: io::Error| BootError::DataDir { path: path.to_owned(), reason: error.to_string() };
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(failed)?;
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if waited < LOCK_WAIT_MAX => {
                thread::sleep(LOCK_POLL);
                waited += LOCK_POLL;
            }
            Err(TryLockError::WouldBlock) => return Err(taken()),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}

/// A process that ends has the directory a moment longer, and one that only looks has it for an instant: neither is a
/// reason not to start.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(1);
const LOCK_POLL: Duration = Duration::from_millis(20);

/// Whether a gateway runs on a data directory. A look, not a claim: it may have changed by the time this returns. Looking
/// shares the lock for an instant, in which a gateway that starts would not get it.
///
/// # Errors
/// What the system said when the lock cannot be looked at.
pub fn is_served(data_dir: &Path) -> io::Result<bool> {
    let file = match File::open(data_dir.join("lock")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Where the journal of a data directory lies.
pub fn journal_dir(config: &Config) -> PathBuf {
    config.data_dir.join("journal")
}

/// Opens the journal, says what was left in it, and starts its maintainer, which is to be joined at the end.
pub(super) fn open_journal(config: &Config) -> Result<(Arc<FileJournal>, thread::JoinHandle<()>), BootError> {
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
    let journal = Arc::new(journal);
    let maintainer = journal.start_maintainer(config.journal.fsync_interval);
    Ok((journal, maintainer.map_err(|error| BootError::Thread(error.to_string()))?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_ledger_is_locked_once_whatever_path_leads_to_it() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::create_dir(at("elsewhere")).unwrap();
        symlink(at("elsewhere"), at("directory")).unwrap();
        symlink("elsewhere/ledger.db", at("link.db")).unwrap();
        symlink("link.db", at("linked_twice.db")).unwrap();
        let paths =
            ["elsewhere/ledger.db", "directory/ledger.db", "link.db", "linked_twice.db", "elsewhere/../link.db"];
        let place = fs::canonicalize(at("elsewhere")).unwrap().join("ledger.db");
        for is_there in [false, true] {
            for path in paths {
                assert_eq!(place_of(&at(path)).unwrap(), place, "{path}, there: {is_there}");
            }
            fs::write(at("elsewhere/ledger.db"), "").unwrap();
        }
        let _held = lock_ledger(&at("link.db"), "fix").unwrap();
        let error = lock_ledger(&at("directory/ledger.db"), "stop that one").unwrap_err().to_string();
        assert!(error.contains("stop that one"), "{error}");
        assert!(lock_ledger(&at("elsewhere/another.db"), "fix").is_ok());
        symlink("round.db", at("round.db")).unwrap();
        assert!(lock_ledger(&at("round.db"), "fix").unwrap_err().to_string().contains("symbolic links"));
    }

    #[test]
    fn a_ledger_with_two_names_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let (one, other) = (home.path().join("one.db"), home.path().join("other.db"));
        fs::write(&one, "").unwrap();
        fs::hard_link(&one, &other).unwrap();
        for path in [&one, &other] {
            let error = lock_ledger(path, "fix").unwrap_err().to_string();
            assert!(error.contains("2 names") && error.contains("remove the others"), "{error}");
        }
        fs::remove_file(&other).unwrap();
        assert!(lock_ledger(&one, "fix").is_ok());
    }
}
