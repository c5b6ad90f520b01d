//! Segments: the files that the journal consists of, their head, and how their records are found again.
//!
//! A segment named `0000000000100000.log` holds the records from that position (hexadecimal) on, behind a head:
//!
//! ```text
//! offset  0         8        12     16        24
//!         TOLLJRNL  version  crc32  position  zeros up to 32
//! ```
//!
//! The rest of the file is zeros, set aside when it was made, so that a record never fails for want of room.

use std::io;

use super::disk::{Disk, DiskFile};
use super::record::{self, Record};

/// Bytes before the first record.
pub(super) const HEAD_BYTES: usize = 32;

/// The same, as an offset.
pub(super) const HEAD_END: u64 = 32;

const MAGIC: &[u8; 8] = b"TOLLJRNL";

/// The format that this version writes. It reads all of them from 1 on.
const VERSION: u32 = 4;

const SUFFIX: &str = ".log";

/// The largest file that is taken for a segment: four times the largest that is made.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The name of the segment that begins at a position.
pub(super) fn name(base: u64) -> String {
    format!("{base:016x}{SUFFIX}")
}

/// Where the segment of that name begins; `None` when it is no segment's name.
pub(super) fn base(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// The head of the segment that begins at a position.
pub(super) fn head(base: u64) -> Vec<u8> {
    head_of(VERSION, base)
}

fn head_of(version: u32, base: u64) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&version.to_le_bytes());
    head.extend_from_slice(&checksum(version, base).to_le_bytes());
    head.extend_from_slice(&base.to_le_bytes());
    head.resize(HEAD_BYTES, 0);
    head
}

fn checksum(version: u32, base: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(MAGIC);
    hasher.update(&version.to_le_bytes());
    hasher.update(&base.to_le_bytes());
    hasher.finalize()
}

/// The version of the format, where the head is whole.
fn version(bytes: &[u8], base: u64) -> Option<u32> {
    let version = u32::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
    let sum = u32::from_le_bytes(*bytes.get(12..)?.first_chunk()?);
    let is_head = bytes.starts_with(MAGIC) && sum == checksum(version, base);
    is_head.then_some(version)
}

/// Bytes of a segment that are no records though something was written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Where it begins, from the begin of the file.
    pub offset: u64,
    /// How many bytes it is.
    pub bytes: u64,
    /// Nothing valid follows in the file: the end of what was being written when the power failed. Otherwise something
    /// changed bytes that were whole once.
    pub torn: bool,
}

/// A segment as it was found.
pub(super) struct Found {
    pub name: String,
    pub base: u64,
    version: u32,
    bytes: Vec<u8>,
}

impl Found {
    /// Every segment on `disk`, oldest first, by its name.
    pub(super) fn names(disk: &dyn Disk) -> io::Result<Vec<(u64, String)>> {
        let mut names: Vec<(u64, String)> =
            disk.list()?.into_iter().filter_map(|name| Some((base(&name)?, name))).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Reads a whole segment.
    pub(super) fn read(disk: &dyn Disk, base: u64, name: String) -> io::Result<Self> {
        let file: std::sync::Arc<dyn DiskFile> = disk.open(&name)?;
        let size = file.size()?;
        let length = usize::try_from(size.min(FILE_BYTES_MAX)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        let version = version(&bytes, base).unwrap_or(VERSION);
        if !(1..=VERSION).contains(&version) {
            let reason = format!("{name} has version {version} of the journal's format, this tollgate knows {VERSION}");
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        }
        Ok(Self { name, base, version, bytes })
    }

    /// Whether its records may be followed by those that this version writes.
    pub(super) fn is_current(&self) -> bool {
        self.version == VERSION
    }

    /// How many bytes the file has.
    pub(super) fn size(&self) -> u64 {
        u64::try_from(self.bytes.len()).unwrap_or(u64::MAX)
    }

    /// Calls `see` with each record and the offset at which it ends. Gives what is damaged. The head need not be whole:
    /// the name says where the segment begins.
    pub(super) fn records(&self, mut see: impl FnMut(u64, Record<'_>)) -> Vec<Damage> {
        let mut damages = Vec::new();
        let mut at = HEAD_BYTES;
        // A file of zeros is one that a process was killed over while it made it.
        let is_written = self.bytes.iter().any(|byte| *byte != 0);
        if is_written && self.bytes.get(..HEAD_BYTES) != Some(head_of(self.version, self.base).as_slice()) {
            damages.push(self.damage(0, at.min(self.bytes.len()), false));
        }
        while let Some(rest) = self.bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let position = self.base.saturating_add(offset(at));
            if let Some(record) = record::read(rest, position) {
                at += record.bytes();
                see(offset(at), record);
                continue;
            }
            let Some(skip) = record::resync(rest, position) else {
                let written = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                if written > 0 {
                    damages.push(self.damage(at, written, true));
                }
                break;
            };
            damages.push(self.damage(at, skip, false));
            at += skip;
        }
        damages
    }

    fn damage(&self, at: usize, bytes: usize, torn: bool) -> Damage {
        Damage { file: self.name.clone(), offset: offset(at), bytes: offset(bytes), torn }
    }
}

fn offset(at: usize) -> u64 {
    u64::try_from(at).unwrap_or(u64::MAX)
}
