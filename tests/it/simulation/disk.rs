//! A disk in memory that fails, tears and forgets.
//!
//! A file has what was written (the page cache: it outlives a kill) and what is safe (it outlives a power cut). A sync
//! makes safe what was written before it began. A power cut keeps of each unsynced page of 4 KiB all, nothing, or its
//! first bytes; it also undoes the last removals and new names, as many as it likes back to the last new file. A sync that
//! fails forgets which pages it had to write, as Linux does: a later one that succeeds says nothing of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use tollgate::adapters::file_journal::disk::{Disk, DiskFile};

use super::bugs::Bug;
use super::executor;
use super::node::{Death, Node};

const PAGE: usize = 4096;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// The disk, which all lives of the process share.
pub struct Platter {
    node: Arc<Node>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Arc<Mutex<File>>>,
    /// What a power cut may undo, oldest first.
    undo: Vec<Undo>,
}

enum Undo {
    Removed(String, Arc<Mutex<File>>),
    Renamed(String, String),
}

#[derive(Default)]
struct File {
    size: usize,
    /// Both without the zeros at their end.
    written: Vec<u8>,
    safe: Vec<u8>,
    /// Pages that a sync has to write.
    dirty: BTreeSet<usize>,
}

impl Platter {
    pub fn new(node: &Arc<Node>) -> Arc<Self> {
        Arc::new(Self { node: node.clone(), state: Mutex::default() })
    }

    /// The disk as the process of one life has it.
    pub fn of_life(self: &Arc<Self>, life: u32) -> Arc<SimDisk> {
        Arc::new(SimDisk { platter: self.clone(), life })
    }

    pub fn names(&self) -> Vec<String> {
        self.state.lock().files.keys().cloned().collect()
    }

    /// Whether a failed sync left anything that no later sync will write.
    pub fn has_forgotten(&self) -> bool {
        self.state.lock().files.values().any(|file| file.lock().has_forgotten())
    }

    /// The power is gone, and with it what was not safe.
    pub fn power_cut(&self) {
        let chance = &self.node.chance;
        let mut state = self.state.lock();
        let undone = chance.below(state.undo.len() as u64 + 1);
        for _ in 0..undone {
            match state.undo.pop() {
                Some(Undo::Removed(name, file)) => drop(state.files.insert(name, file)),
                Some(Undo::Renamed(from, to)) => {
                    if let Some(file) = state.files.remove(&to) {
                        state.files.insert(from, file);
                    }
                }
                None => {}
            }
        }
        state.undo.clear();
        for file in state.files.values() {
            let File { written, safe, dirty, .. } = &mut *file.lock();
            for page in std::mem::take(dirty) {
                match chance.below(3) {
                    0 => {}
                    1 => keep(safe, written, page, PAGE),
                    _ => keep(safe, written, page, usize::try_from(chance.below(PAGE as u64)).unwrap()),
                }
            }
            written.clone_from(safe);
        }
    }
}

impl File {
    fn has_forgotten(&self) -> bool {
        self.written.chunks(PAGE).enumerate().any(|(page, written)| {
            let safe = self.safe.get(page * PAGE..).unwrap_or_default();
            let is_safe = |(at, byte): (usize, &u8)| *byte == safe.get(at).copied().unwrap_or(0);
            !self.dirty.contains(&page) && !written.iter().enumerate().all(is_safe)
        })
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.written.len() < end {
            self.written.resize(end, 0);
        }
        self.written[offset..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            self.dirty.extend(offset / PAGE..=(end - 1) / PAGE);
        }
    }
}

/// Makes the first `bytes` of a page safe, as it is in `written`.
fn keep(safe: &mut Vec<u8>, written: &[u8], page: usize, bytes: usize) {
    let begin = page * PAGE;
    let end = (begin + bytes).min(written.len());
    if begin >= end {
        return;
    }
    if safe.len() < end {
        safe.resize(end, 0);
    }
    safe[begin..end].copy_from_slice(&written[begin..end]);
}

/// The disk of one process.
pub struct SimDisk {
    platter: Arc<Platter>,
    life: u32,
}

struct Handle {
    disk: Arc<SimDisk>,
    file: Arc<Mutex<File>>,
}

fn failed(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl SimDisk {
    fn node(&self) -> &Node {
        &self.platter.node
    }

    /// Begins an operation. A process that is dead does nothing any more; one may die in the middle of it.
    fn begin(&self, kind: u64, bytes: usize) -> io::Result<bool> {
        let node = self.node();
        if !node.is_alive(self.life) {
            return Err(failed(EIO));
        }
        node.note(|| format!("disk operation {}: kind {kind}, {bytes} bytes", node.disk_ops()));
        node.mix(node.count_disk_op() ^ (kind << 56) ^ ((bytes as u64) << 24));
        let dies = node.is_time_to_die(Death::DiskOp);
        if dies {
            node.die();
        }
        Ok(dies)
    }

    fn is_broken(&self, flag: &AtomicBool, what: &str) -> bool {
        let broken = flag.load(Relaxed);
        if broken {
            self.node().injected(what);
        }
        broken
    }

    /// A write or a sync fails: what the process believes to be on the disk may not be.
    fn is_failing(&self, flag: &AtomicBool, what: &str) -> bool {
        let broken = self.is_broken(flag, what);
        self.node().model.lock().on[self.node().number].disk_is_suspect |= broken;
        broken
    }

    /// Others go on while the maintainer waits for the disk: it syncs, and makes a spare segment, outside of the journal's
    /// lock. Where it heals a disk that failed or was full it holds the lock, and others would wait for it.
    fn interlude(&self) {
        let is_healing = {
            let on = &self.node().model.lock().on[self.node().number];
            on.disk_is_suspect || on.disk_was_full
        };
        if !is_healing {
            executor::interlude(self.node().chance.below(4));
        }
    }

    /// A part of so many bytes: none, all, or anything between.
    fn part(&self, bytes: usize) -> usize {
        match self.node().chance.below(4) {
            0 => 0,
            1 => bytes,
            _ => usize::try_from(self.node().chance.below(bytes as u64 + 1)).unwrap(),
        }
    }

    fn find(&self, name: &str) -> io::Result<Arc<Mutex<File>>> {
        self.platter.state.lock().files.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.begin(1, 0)?;
        Ok(self.platter.names())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let dies = self.begin(2, name.len())?;
        let node = self.node();
        self.interlude();
        let mut state = self.platter.state.lock();
        let taken: usize = state.files.values().map(|file| file.lock().size).sum();
        let is_small = node.broken.disk_small.load(Relaxed);
        let is_full = is_small && (taken as u64).saturating_add(bytes) > node.setup.disk_bytes;
        if is_full {
            node.injected("the disk has no room left");
        }
        if is_full || self.is_broken(&node.broken.disk_full, "the disk is full") {
            node.model.lock().on[node.number].disk_was_full = true;
            return Err(failed(ENOSPC));
        }
        if dies && node.chance.per_mille(500) {
            return Err(failed(EIO));
        }
        let file = Arc::new(Mutex::new(File { size: usize::try_from(bytes).unwrap(), ..File::default() }));
        state.files.insert(name.to_owned(), file.clone());
        // The directory is synced with a new name in it, and so is what was done to it before.
        state.undo.clear();
        Ok(Arc::new(Handle { disk: Arc::new(Self { platter: self.platter.clone(), life: self.life }), file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.begin(3, name.len())?;
        let file = self.find(name)?;
        Ok(Arc::new(Handle { disk: Arc::new(Self { platter: self.platter.clone(), life: self.life }), file }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let dies = self.begin(4, name.len())?;
        if dies && self.node().chance.per_mille(500) {
            return Err(failed(EIO));
        }
        let mut state = self.platter.state.lock();
        let file = state.files.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.undo.push(Undo::Removed(name.to_owned(), file));
        Ok(())
    }

    fn rename(&self, name: &str, to: &str) -> io::Result<()> {
        let dies = self.begin(5, name.len())?;
        if dies && self.node().chance.per_mille(500) {
            return Err(failed(EIO));
        }
        let mut state = self.platter.state.lock();
        let file = state.files.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), file);
        state.undo.push(Undo::Renamed(name.to_owned(), to.to_owned()));
        Ok(())
    }
}

impl DiskFile for Handle {
    fn size(&self) -> io::Result<u64> {
        self.disk.begin(6, 0)?;
        Ok(self.file.lock().size as u64)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let dies = self.disk.begin(7, bytes.len())?;
        self.disk.node().note(|| format!("  file {:p} at {offset}", Arc::as_ptr(&self.file)));
        let offset = usize::try_from(offset).unwrap();
        let mut file = self.file.lock();
        if offset + bytes.len() > file.size {
            self.disk
                .node()
                .fail(format!("a write beyond the room that was set aside: {} bytes at {offset}", bytes.len()));
            return Err(failed(ENOSPC));
        }
        if dies || self.disk.is_failing(&self.disk.node().broken.writes, "a write fails") {
            let part = self.disk.part(bytes.len());
            file.write(&bytes[..part], offset);
            return Err(failed(EIO));
        }
        file.write(bytes, offset);
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.begin(8, bytes.len())?;
        if self.disk.is_broken(&self.disk.node().broken.reads, "a read fails") {
            return Err(failed(EIO));
        }
        let file = self.file.lock();
        let offset = usize::try_from(offset).unwrap().min(file.size);
        let read = bytes.len().min(file.size - offset);
        let there = file.written.get(offset..).unwrap_or_default();
        let there = &there[..there.len().min(read)];
        bytes[..there.len()].copy_from_slice(there);
        bytes[there.len()..read].fill(0);
        Ok(read)
    }

    fn sync(&self) -> io::Result<()> {
        let dies = self.disk.begin(9, 0)?;
        self.disk.node().note(|| format!("  file {:p}", Arc::as_ptr(&self.file)));
        let node = self.disk.node();
        let (before, dirty) = {
            let mut file = self.file.lock();
            (file.written.clone(), std::mem::take(&mut file.dirty))
        };
        self.disk.interlude();
        let mut file = self.file.lock();
        let is_broken = self.disk.is_failing(&node.broken.syncs, "a sync fails");
        if node.bug == Some(Bug::SyncThatDoesNot) {
            file.dirty.extend(dirty);
            return Ok(());
        }
        let is_killed = dies || !node.is_alive(self.disk.life);
        for page in dirty {
            if (is_broken || is_killed) && node.chance.per_mille(500) {
                if is_killed {
                    file.dirty.insert(page);
                }
                continue;
            }
            // As it was when the sync began.
            keep(&mut file.safe, &before, page, PAGE);
        }
        if is_broken || is_killed { Err(failed(EIO)) } else { Ok(()) }
    }
}
