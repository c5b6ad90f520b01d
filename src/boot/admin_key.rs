//! The admin key: the given one, or one that is made once for each ledger.
//!
//! May use: everything.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use tracing::{info, warn};

use crate::config::Config;
use crate::domain::audit::{Actor, Author};
use crate::domain::key::{self, KeyHash};
use crate::domain::time::Micros;
use crate::metering::{admin, identity};
use crate::ports::tenants::{Act, TenantStore};

use super::{BootError, ledger};

/// Where the key of the ledger is: that of another, which the data directory served before, lies beside it.
const FILE: &str = "admin.key";

/// The admin key itself, for commands that ask a running gateway: the given one, or the one in its file.
///
/// # Errors
/// What the system said of the file.
pub fn known(config: &Config) -> io::Result<SecretString> {
    match &config.admin_key {
        Some(given) => Ok(given.clone()),
        None => Ok(fs::read_to_string(config.data_dir.join(FILE))?.trim().into()),
    }
}

/// The hash of the admin key: the given one's, or the ledger's own, which is made once and shown in a file.
pub(super) async fn hash(config: &Config, tenants: &dyn TenantStore, now: Micros) -> Result<KeyHash, BootError> {
    if let Some(given) = &config.admin_key {
        return Ok(identity::hash(given.expose_secret()));
    }
    let failed = |source| BootError::Ledger { ledger: ledger::name(&config.ledger), source };
    let directory = &config.data_dir;
    let unwritable = |error: io::Error| BootError::DataDir { path: directory.join(FILE), reason: error.to_string() };
    if let Some(hash) = tenants.admin_key_hash().await.map_err(failed)? {
        show(directory, hash).map_err(unwritable)?;
        return Ok(hash);
    }
    let key = admin::mint_key().map_err(|_| BootError::Random)?;
    let hash = identity::hash(&key);
    // In a file before the ledger knows it: a process that ends between the two must not take the only copy along.
    write(directory, &key, hash).map_err(unwritable)?;
    let act = Act::by(Author::of(Actor::Gateway), now);
    let set = tenants.set_admin_key_hash(hash, &key::last4(&key), &act).await;
    let kept = tenants.admin_key_hash().await.map_err(failed)?;
    if kept != Some(hash) {
        fs::remove_file(beside(directory, hash)).map_err(unwritable)?;
    }
    set.map_err(failed)?;
    let kept = kept.unwrap_or(hash);
    if kept == hash {
        info!(path = %directory.join(FILE).display(), "An admin key was made; it is in this file.");
    }
    show(directory, kept).map_err(unwritable)?;
    Ok(kept)
}

/// Whether the text of a file is the key of that hash.
fn is_key(text: &[u8], hash: KeyHash) -> bool {
    identity::hash(String::from_utf8_lossy(text).trim()) == hash
}

/// Where a key waits while it is not that of the ledger: its name tells keys apart, and nothing of them.
fn beside(directory: &Path, hash: KeyHash) -> PathBuf {
    let id = u64::from_be_bytes(hash.0.first_chunk().copied().unwrap_or_default());
    directory.join(format!("{FILE}.{id:016x}"))
}

/// Writes a new key beside the file, for its owner only: the rights of a file that is there would stay as they are.
fn write(directory: &Path, key: &str, hash: KeyHash) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside(directory, hash))?;
    writeln!(file, "{key}")?;
    file.sync_all()?;
    File::open(directory)?.sync_all()
}

/// Puts the key of the ledger into its file, if it is in the directory, and says where the one that was there is now. What
/// is not there, or is of another ledger, is told with what helps: nobody could say so when the key is refused.
fn show(directory: &Path, hash: KeyHash) -> io::Result<()> {
    let (file, waiting) = (directory.join(FILE), beside(directory, hash));
    let held = fs::read(&file);
    if held.as_ref().is_ok_and(|held| is_key(held, hash)) {
        return Ok(());
    }
    if !fs::read(&waiting).is_ok_and(|text| is_key(&text, hash)) {
        let path = file.display();
        match held {
            Ok(_) => warn!(
                %path,
                "This file holds another admin key than the ledger's, which is refused: put the ledger's there, from the data directory of the gateway that made it, or set TOLLGATE_ADMIN_KEY to a new one."
            ),
            Err(error) => warn!(
                %path,
                %error,
                "The ledger's admin key is not in this file: put it there, from the data directory of the gateway that made it, or set TOLLGATE_ADMIN_KEY to a new one."
            ),
        }
        return Ok(());
    }
    match held {
        Ok(other) if !other.trim_ascii().is_empty() => {
            let kept = put_aside(directory, &file, &other)?;
            warn!(path = %file.display(), kept = %kept.display(), "This file held the admin key of another ledger, which is kept beside it; it holds this ledger's now.");
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::rename(&waiting, &file)?;
    File::open(directory)?.sync_all()
}

/// Gives the file a name that is free, by what is in it. This process has the directory to itself.
fn put_aside(directory: &Path, file: &Path, text: &[u8]) -> io::Result<PathBuf> {
    let name = beside(directory, identity::hash(String::from_utf8_lossy(text).trim()));
    let mut free = name.clone();
    for number in 2_u32.. {
        // A link that leads nowhere is there, too.
        match fs::symlink_metadata(&free) {
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            Err(error) => return Err(error),
            Ok(_) => {
                let mut numbered = name.clone().into_os_string();
                numbered.push(format!(".{number}"));
                free = numbered.into();
            }
        }
    }
    fs::rename(file, &free)?;
    Ok(free)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KEYS: [&str; 2] = ["tg_one", "tg_other"];

    fn made(directory: &Path, key: &str) -> KeyHash {
        let hash = identity::hash(key);
        write(directory, key, hash).unwrap();
        show(directory, hash).unwrap();
        hash
    }

    fn shown(directory: &Path) -> String {
        fs::read_to_string(directory.join(FILE)).unwrap().trim().to_owned()
    }

    #[test]
    fn keys_of_ledgers_that_take_turns_are_all_kept() {
        let home = tempfile::tempdir().unwrap();
        let hashes = KEYS.map(|key| made(home.path(), key));
        assert_eq!(shown(home.path()), KEYS[1]);
        for turn in [0, 1, 1, 0] {
            show(home.path(), hashes[turn]).unwrap();
            assert_eq!(shown(home.path()), KEYS[turn]);
            assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);
        }
    }

    #[test]
    fn what_is_in_the_file_is_never_lost_and_nobody_else_reads_the_new_key() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(FILE);
        fs::write(&file, "somebody's own").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        // A file of the name that it would get has something else in it.
        let taken = beside(home.path(), identity::hash("somebody's own"));
        fs::write(&taken, "edited").unwrap();
        let hash = made(home.path(), KEYS[0]);
        assert_eq!(shown(home.path()), KEYS[0]);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&taken).unwrap(), "edited");
        let mut numbered = taken.into_os_string();
        numbered.push(".2");
        assert_eq!(fs::read_to_string(numbered).unwrap(), "somebody's own");
        // Without the key in any file nothing is touched.
        fs::write(&file, "lost").unwrap();
        show(home.path(), hash).unwrap();
        assert_eq!(shown(home.path()), "lost");
    }

    #[test]
    fn a_key_whose_process_ended_before_it_was_shown_is_shown_by_the_next() {
        let home = tempfile::tempdir().unwrap();
        let hash = identity::hash(KEYS[0]);
        write(home.path(), KEYS[0], hash).unwrap();
        show(home.path(), hash).unwrap();
        assert_eq!(shown(home.path()), KEYS[0]);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
