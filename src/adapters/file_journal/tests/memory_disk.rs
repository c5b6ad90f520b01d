//! A disk in memory that can be told to fail.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::super::disk::{Disk, DiskFile};

/// A disk in memory, as thousands of journals are opened here, and as it can be told to fail.
#[derive(Default)]
pub(super) struct MemoryDisk {
    pub(super) files: Mutex<BTreeMap<String, Arc<MemoryFile>>>,
    pub(super) fails: Arc<Fails>,
}

/// What fails.
#[derive(Default)]
pub(super) struct Fails {
    pub(super) create: AtomicBool,
    pub(super) write: AtomicBool,
    pub(super) sync: AtomicBool,
    /// How many syncs are still to panic.
    pub(super) panics: AtomicU64,
}

impl Fails {
    fn check(flag: &AtomicBool) -> io::Result<()> {
        if flag.load(Ordering::SeqCst) { Err(io::Error::other("the disk is gone")) } else { Ok(()) }
    }
}

pub(super) struct MemoryFile {
    bytes: Mutex<Vec<u8>>,
    fails: Arc<Fails>,
}

impl MemoryDisk {
    pub(super) fn put(&self, name: &str, bytes: Vec<u8>) -> Arc<MemoryFile> {
        let file = Arc::new(MemoryFile { bytes: Mutex::new(bytes), fails: self.fails.clone() });
        self.files.lock().insert(name.to_owned(), file.clone());
        file
    }
}

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        Fails::check(&self.fails.create)?;
        Ok(self.put(name, vec![0; usize::try_from(bytes).unwrap()]))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.files.lock().get(name).unwrap().clone())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, name: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock();
        let file = files.remove(name).unwrap();
        files.insert(to.to_owned(), file);
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().len() as u64)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        Fails::check(&self.fails.write)?;
        let at = usize::try_from(offset).unwrap();
        self.bytes.lock()[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let file = self.bytes.lock();
        let rest = file.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let length = rest.len().min(bytes.len());
        bytes[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn sync(&self) -> io::Result<()> {
        let panics = &self.fails.panics;
        assert!(panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err());
        Fails::check(&self.fails.sync)
    }
}
