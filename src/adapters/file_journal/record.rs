//! Records: what each one is, how it is framed, and how a reader finds its way past bytes that are none.
//!
//! ```text
//! offset  0   2    3     4        8
//!         len kind mark  crc32    payload: len bytes
//! ```
//!
//! The checksum (CRC-32, IEEE) runs over the record's position in the journal, its length, its kind and its payload. The
//! position in it makes a record valid in its own place only: stale or misplaced bytes never look like one.

use crc32fast::Hasher;

use crate::domain::event::UsageEvent;
use crate::domain::ids::EventId;

use super::codec;

/// Bytes before the payload.
pub(super) const HEADER_BYTES: usize = 8;

/// No record is longer, its header included: the texts of an event are bounded where they come in, together to less
/// than 2 KiB.
pub(super) const RECORD_BYTES_MAX: usize = 4 * 1024;

/// In every header, so that most bytes that are no header are told so by one comparison.
const MARK: u8 = 0xb7;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A call as it stands if nothing else is heard of it.
    Admitted,
    /// A call as it is booked.
    Settled,
    /// The ledger has all settled records that end at or before a position.
    Booked,
    /// An event that the ledger refused, with its words.
    Quarantined,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Admitted, Self::Settled, Self::Booked, Self::Quarantined];

    fn byte(self) -> u8 {
        match self {
            Self::Admitted => 1,
            Self::Settled => 2,
            Self::Booked => 3,
            Self::Quarantined => 4,
        }
    }
}

/// A record that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub kind: Kind,
    pub payload: &'a [u8],
}

impl Record<'_> {
    /// How many bytes it takes in the journal.
    pub(super) fn bytes(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }

    /// Whose event it is about.
    pub(super) fn id(&self) -> Option<EventId> {
        codec::id(self.payload)
    }

    /// The event in it.
    pub(super) fn event(&self) -> Option<UsageEvent> {
        codec::decode(self.payload)
    }

    /// The position in a [`Kind::Booked`] record.
    pub(super) fn booked(&self) -> Option<u64> {
        self.payload.try_into().ok().map(u64::from_le_bytes)
    }
}

/// Begins a record in `out`; the payload is to be appended, then [`seal`] to be called.
pub(super) fn begin(out: &mut Vec<u8>, kind: Kind) {
    out.clear();
    out.extend_from_slice(&[0, 0, kind.byte(), MARK, 0, 0, 0, 0]);
}

/// Writes length and checksum of the record in `record` for its place. `false`: it is longer than any may be.
#[must_use]
pub(super) fn seal(record: &mut [u8], position: u64) -> bool {
    let Some(payload) = record.len().checked_sub(HEADER_BYTES) else { return false };
    let length = match u16::try_from(payload) {
        Ok(length) if record.len() <= RECORD_BYTES_MAX => length,
        _ => return false,
    };
    if let Some(place) = record.first_chunk_mut() {
        *place = length.to_le_bytes();
    }
    let sum = checksum(record, position);
    if let Some(place) = record.get_mut(4..HEADER_BYTES) {
        place.copy_from_slice(&sum.to_le_bytes());
    }
    true
}

fn checksum(record: &[u8], position: u64) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&position.to_le_bytes());
    hasher.update(record.get(..4).unwrap_or_default());
    hasher.update(record.get(HEADER_BYTES..).unwrap_or_default());
    hasher.finalize()
}

/// The record that `bytes`, which stand at `position`, begin with; `None` when they begin with none.
pub(super) fn read(bytes: &[u8], position: u64) -> Option<Record<'_>> {
    let [low, high, kind, MARK, sum @ ..] = *bytes.first_chunk::<HEADER_BYTES>()? else { return None };
    let kind = Kind::ALL.into_iter().find(|known| known.byte() == kind)?;
    let end = HEADER_BYTES + usize::from(u16::from_le_bytes([low, high]));
    if end > RECORD_BYTES_MAX {
        return None;
    }
    let record = bytes.get(..end)?;
    let payload = record.get(HEADER_BYTES..)?;
    (checksum(record, position) == u32::from_le_bytes(sum)).then_some(Record { kind, payload })
}

/// How many bytes to skip to the next record in `bytes`, the first byte not counted; `None` when there is none.
pub(super) fn resync(bytes: &[u8], position: u64) -> Option<usize> {
    const MARK_AT: usize = 3;
    // A record shows by its mark; the room that was never written has none.
    memchr::memchr_iter(MARK, bytes).filter_map(|mark| mark.checked_sub(MARK_AT)).filter(|at| *at > 0).find(|at| {
        let place = position.saturating_add(u64::try_from(*at).unwrap_or(u64::MAX));
        bytes.get(*at..).is_some_and(|rest| read(rest, place).is_some())
    })
}
