//! The admin key: the given one, or one that is made once for each ledger.
//!
//! May use: everything.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use tracing::info;

use crate::config::Config;
use crate::domain::audit::{Actor, Author};
use crate::domain::key::{self, KeyHash};
use crate::domain::time::Micros;
use crate::metering::{admin, identity};
use crate::ports::tenants::{Act, TenantStore};

use super::{BootError, ledger};

/// Where a key that is made is written.
fn file(config: &Config) -> PathBuf {
    config.data_dir.join("admin.key")
}

/// The admin key itself, for commands that ask a running gateway: the given one, or the one in its file.
///
/// # Errors
/// What the system said of the file.
pub fn known(config: &Config) -> io::Result<SecretString> {
    match &config.admin_key {
        Some(given) => Ok(given.clone()),
        None => Ok(fs::read_to_string(file(config))?.trim().into()),
    }
}

/// The hash of the admin key: the given one's, or the ledger's own, which is made once and shown in a file.
pub(super) async fn hash(config: &Config, tenants: &dyn TenantStore, now: Micros) -> Result<KeyHash, BootError> {
    if let Some(given) = &config.admin_key {
        return Ok(identity::hash(given.expose_secret()));
    }
    let failed = |source| BootError::Ledger { ledger: ledger::name(&config.ledger), source };
    if let Some(hash) = tenants.admin_key_hash().await.map_err(failed)? {
        return Ok(hash);
    }
    let key = admin::mint_key().map_err(|_| BootError::Random)?;
    let path = file(config);
    let unwritable = |error: io::Error| BootError::DataDir { path: path.clone(), reason: error.to_string() };
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).map_err(unwritable)?;
    writeln!(file, "{key}").and_then(|()| file.sync_all()).map_err(unwritable)?;
    let hash = identity::hash(&key);
    let act = Act::by(Author::of(Actor::Gateway), now);
    tenants.set_admin_key_hash(hash, &key::last4(&key), &act).await.map_err(failed)?;
    if let Some(other) = tenants.admin_key_hash().await.map_err(failed)?.filter(|kept| *kept != hash) {
        info!("Another gateway of this ledger made the admin key; it is in that one's data directory.");
        fs::remove_file(&path).map_err(unwritable)?;
        return Ok(other);
    }
    info!(path = %path.display(), "An admin key was made; it is in this file.");
    Ok(hash)
}
