//! Reads request bodies: whole, under a process-wide budget of bytes, or piece by piece.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures_util::poll;
use pingora_core::ErrorType;
use pingora_core::protocols::http::ServerSession;
use pingora_timeout::fast_timeout::fast_timeout;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, Instant};

use crate::domain::bound::Bound;
use crate::domain::refusal::Refusal;

use super::exchange::Asked;
use super::pace::Intake;

/// The budget is counted in pages of this size, since a semaphore counts in 32 bits.
const PAGE_BYTES: u64 = 1024;

/// Room for a body is doubled up to this; a longer one gets room for all of it, or for the largest usual one.
const ROOM_FROM_BYTES: usize = 512 * 1024;
const ROOM_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of bodies for the gateway's own routes that may be held at once. They are read before a key is, so that strangers
/// could fill what is for calls: these are counted apart.
pub const LOCAL_BUFFER_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes of request bodies that may be held in memory at once, by all calls together (`listen.buffer_total`).
#[derive(Debug, Clone)]
pub struct Budget {
    pages: Arc<Semaphore>,
    bytes: u64,
}

/// A part of the budget; it is given back when dropped.
#[derive(Debug, Default)]
pub struct Reserved {
    permit: Option<OwnedSemaphorePermit>,
    bytes: u64,
}

impl Reserved {
    /// Whether it is no more than so many bytes.
    pub fn is_at_most(&self, bytes: usize) -> bool {
        u64::try_from(bytes).is_ok_and(|bytes| self.bytes <= bytes)
    }

    /// Gives back what is more than so many bytes.
    pub fn shrink(&mut self, bytes: u64) {
        let pages = self.bytes.saturating_sub(bytes) / PAGE_BYTES;
        let more = usize::try_from(pages).ok().and_then(|pages| self.permit.as_mut()?.split(pages));
        if more.is_some() {
            self.bytes -= pages * PAGE_BYTES;
        }
    }
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: u64) -> Self {
        let pages = usize::try_from(bytes.div_ceil(PAGE_BYTES)).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { pages: Arc::new(Semaphore::new(pages)), bytes }
    }

    /// This budget if it is one of so many bytes, else a new one. What is held of the old one then counts against the
    /// old one until it is given back: together they hold at most both, and only for as long as those calls last.
    pub fn of(&self, bytes: u64) -> Self {
        if bytes == self.bytes { self.clone() } else { Self::new(bytes) }
    }

    /// Makes a part of the budget as large as so many bytes; [`Refusal::BuffersFull`] when there are not so many left.
    pub fn grow(&self, reserved: &mut Reserved, bytes: u64) -> Result<(), Refusal> {
        if bytes <= reserved.bytes {
            return Ok(());
        }
        let more = (bytes - reserved.bytes).div_ceil(PAGE_BYTES);
        let pages = u32::try_from(more).map_err(|_| Refusal::BuffersFull)?;
        let permit = self.pages.clone().try_acquire_many_owned(pages).map_err(|_| Refusal::BuffersFull)?;
        match &mut reserved.permit {
            Some(held) => held.merge(permit),
            None => reserved.permit = Some(permit),
        }
        reserved.bytes = reserved.bytes.saturating_add(more.saturating_mul(PAGE_BYTES));
        Ok(())
    }
}

/// A whole body and its part of the budget.
#[derive(Debug)]
pub struct Whole {
    /// The body.
    pub bytes: Bytes,
    /// Held for as long as the body is.
    pub reserved: Reserved,
}

/// Reads a whole body of at most `limit` bytes. What it holds of `budget` is what has come: a length is only said, and costs
/// whoever says it nothing.
pub async fn read_whole(
    session: &mut ServerSession,
    asked: &mut Asked<'_>,
    (budget, limit): (&Budget, u64),
) -> Result<Whole, Refusal> {
    let (length, intake) = (asked.length, &mut asked.intake);
    if length.is_some_and(|length| length > limit) {
        return Err(Refusal::BodyTooLarge { limit });
    }
    let mut reserved = Reserved::default();
    let Some(first) = read_piece(session, intake).await? else {
        return Ok(Whole { bytes: Bytes::new(), reserved });
    };
    if count(&first) > limit {
        return Err(Refusal::BodyTooLarge { limit });
    }
    budget.grow(&mut reserved, count(&first))?;
    // Nearly every body comes in one piece: no copy then.
    let Some(second) = read_piece(session, intake).await? else {
        return Ok(Whole { bytes: first, reserved });
    };
    let largest = usize::try_from(length.unwrap_or(limit)).unwrap_or(usize::MAX);
    let mut all = Vec::new();
    let mut keep = |piece: Bytes| {
        if count(&all).saturating_add(count(&piece)) > limit {
            return Err(Refusal::BodyTooLarge { limit });
        }
        make_room(&mut all, piece.len(), largest)?;
        budget.grow(&mut reserved, held(&all, piece.len()))?;
        all.extend_from_slice(&piece);
        Ok(())
    };
    keep(first)?;
    let mut next = Some(second);
    while let Some(piece) = next {
        keep(piece)?;
        next = read_piece(session, intake).await?;
    }
    if all.capacity() <= ROOM_FROM_BYTES {
        all.shrink_to_fit();
        reserved.shrink(count(&all));
    }
    Ok(Whole { bytes: all.into(), reserved })
}

/// Room for another piece of a body that may be so large. Each doubling leaves what it was behind for a while, so from some
/// size on there is room for all that may come: pages that are never written to are no memory.
fn make_room(all: &mut Vec<u8>, more: usize, largest: usize) -> Result<(), Refusal> {
    let needed = all.len().saturating_add(more);
    if needed <= all.capacity() {
        return Ok(());
    }
    let doubled = all.capacity().saturating_mul(2);
    let room = if all.len() < ROOM_FROM_BYTES { doubled } else { doubled.max(ROOM_BYTES_MAX) };
    let room = room.min(largest).max(needed);
    all.try_reserve_exact(room - all.len()).map_err(|_| Refusal::BuffersFull)
}

/// What such a body holds once there is `more` of it. A small allocation may be of pages that were in use before.
fn held(all: &Vec<u8>, more: usize) -> u64 {
    let written = all.len().saturating_add(more);
    u64::try_from(all.capacity().min(written.max(ROOM_FROM_BYTES))).unwrap_or(u64::MAX)
}

/// The next piece of a body; `None` at its end.
pub async fn read_piece(session: &mut ServerSession, intake: &mut Intake) -> Result<Option<Bytes>, Refusal> {
    let mut read = pin!(session.read_request_body());
    let (piece, waited) = match poll!(read.as_mut()) {
        Poll::Ready(piece) => (piece, Duration::ZERO),
        Poll::Pending => {
            let began = Instant::now();
            let (wait_max, met) = intake.wait_max(began);
            let piece = fast_timeout(wait_max, read).await.map_err(|_| met)?;
            (piece, began.elapsed())
        }
    };
    let piece = piece.map_err(|error| match error.etype() {
        ErrorType::ReadTimedout => Refusal::TooSlow(Bound::BodyPace),
        _ => Refusal::BodyIncomplete,
    })?;
    intake.begins_by = None;
    intake.pace.waited(waited, piece.as_ref().map_or(0, Bytes::len));
    Ok(piece)
}

fn count(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Budget {
        fn take(&self, bytes: u64) -> Result<Reserved, Refusal> {
            let mut reserved = Reserved::default();
            self.grow(&mut reserved, bytes)?;
            Ok(reserved)
        }
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_no_more() {
        let budget = Budget::new(4 * PAGE_BYTES);
        let first = budget.take(3 * PAGE_BYTES).unwrap();
        assert_eq!(budget.take(2 * PAGE_BYTES).unwrap_err(), Refusal::BuffersFull);
        let mut second = budget.take(1).unwrap();
        assert!(budget.grow(&mut second, PAGE_BYTES).is_ok());
        assert_eq!(budget.grow(&mut second, PAGE_BYTES + 1), Err(Refusal::BuffersFull));
        drop(first);
        assert!(budget.grow(&mut second, 4 * PAGE_BYTES).is_ok());
        second.shrink(2 * PAGE_BYTES + 1);
        assert!(second.is_at_most(3 * 1024) && !second.is_at_most(3 * 1024 - 1));
        let third = budget.take(PAGE_BYTES).unwrap();
        assert_eq!(budget.grow(&mut second, 4 * PAGE_BYTES), Err(Refusal::BuffersFull));
        second.shrink(0);
        drop(third);
        assert!(budget.take(4 * PAGE_BYTES).is_ok());
    }

    #[test]
    fn a_body_without_a_length_is_moved_only_while_it_is_small() {
        let (mut all, mut moves, limit) = (Vec::new(), 0, 20_000_000);
        while all.len() < 20_000_000 {
            let before = all.capacity();
            make_room(&mut all, 60_000, limit).unwrap();
            all.extend_from_slice(&[0; 60_000]);
            moves += usize::from(all.capacity() != before && before > ROOM_FROM_BYTES * 2);
        }
        // At the limit there is none, and beyond it no more is kept than the piece that is refused.
        assert!(moves <= 1 && all.capacity() < 20_000_000 + 60_000 * 2, "{moves} {}", all.capacity());
        assert!(make_room(&mut Vec::new(), usize::MAX, limit).is_err());
    }

    #[test]
    fn what_a_body_only_says_of_its_length_is_not_held() {
        let (mut all, mut copied) = (Vec::new(), 0);
        for _ in 0..2_048 {
            let before = (all.capacity(), all.len());
            make_room(&mut all, 1_000, 64 << 20).unwrap();
            copied += if all.capacity() == before.0 { 0 } else { before.1 };
            assert!(held(&all, 1_000) <= 2 * 1024 + 2 * count(&all), "{} of {}", held(&all, 1_000), all.len());
            all.extend_from_slice(&[0; 1_000]);
        }
        assert!(copied <= 4 * ROOM_FROM_BYTES, "{copied}");
        // And one that is as long as it said has room for that and no more.
        let mut all = Vec::new();
        for _ in 0..10 {
            make_room(&mut all, 1_000, 10_000).unwrap();
            all.extend_from_slice(&[0; 1_000]);
        }
        assert_eq!((all.capacity(), held(&all, 0)), (10_000, 10_000));
    }

    #[test]
    fn a_budget_of_the_same_size_is_the_same_budget() {
        let budget = Budget::new(2 * PAGE_BYTES);
        let held = budget.take(2 * PAGE_BYTES).unwrap();
        assert_eq!(budget.of(2 * PAGE_BYTES).take(1).unwrap_err(), Refusal::BuffersFull);
        assert!(budget.of(3 * PAGE_BYTES).take(3 * PAGE_BYTES).is_ok());
        drop(held);
        assert!(budget.of(2 * PAGE_BYTES).take(1).is_ok());
    }
}
