//! The way of an event from the admission of its call to the ledger.

use std::sync::Arc;

use crate::domain::event::UsageEvent;

use super::{BoxFuture, StoreError};

/// A call's place in the journal, taken at admission so that settling cannot fail. Given to [`Journal::settle`] exactly
/// once.
#[derive(Debug)]
#[must_use = "a slot that is not settled leaks its place in the journal"]
pub struct Slot {
    /// Names the place within the journal that gave it.
    pub place: u64,
    /// Where the admission record ends, for [`Journal::durable`].
    pub position: u64,
}

/// The journal has no room for another call, or its disk takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal is full")]
pub struct JournalFull;

/// Settled events that the ledger does not have yet.
#[derive(Debug, Clone)]
pub struct Batch {
    /// In the order in which they were settled.
    pub events: Arc<[UsageEvent]>,
    /// Names the end of this batch towards [`Journal::ack`].
    pub through: u64,
}

/// How far the ledger is behind, and what the journal can still take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Settled events that are not in the ledger.
    pub events: u64,
    /// For how long the ledger has taken none of them, in microseconds; 0 when there are none.
    pub waiting_us: u64,
    /// Admitted calls that are not settled.
    pub in_flight: u64,
    /// Bytes that the journal occupies, room set aside included.
    pub bytes: u64,
    /// Bytes that it may occupy at most.
    pub bytes_max: u64,
    /// Whether the next call would be refused.
    pub full: bool,
    /// Events that the ledger refused for good, set aside.
    pub quarantined: u64,
}

/// Owns every event between admission and ledger. The contract:
///
/// - `admit` writes down how the call stands if nothing else is ever heard of it, and takes the room that its settlement
///   needs; or refuses at once. It never waits.
/// - `settle` cannot fail and does not block: its room was taken at admission. When it returned, the event survives the
///   end of this process. It survives a power cut when `durable` returned for its position.
/// - `next` gives settled events oldest first, again and again the same ones until they are `ack`ed. It waits while
///   there are none, and ends with an empty batch once `close` was called, no admitted call is left unsettled and all
///   is acknowledged. One reader at a time; dropping its future loses nothing.
/// - Positions grow. A call that was admitted by a process that is gone and never settled comes out of `next` as it was
///   admitted.
/// - Room is free again when the events that took it are acknowledged.
pub trait Journal: Send + Sync {
    /// Takes a call in: `pending` is its event as it stands if the process ends now.
    fn admit(&self, pending: &UsageEvent) -> Result<Slot, JournalFull>;

    /// Takes over the event of a call. Gives its position.
    fn settle(&self, slot: Slot, event: &UsageEvent) -> u64;

    /// Waits until everything up to `position` survives a power cut. `false`: the disk does not sync, and the wait was given
    /// up. Returns `true` at once in a journal that does not promise that (`durability = group`).
    fn durable(&self, position: u64) -> BoxFuture<'_, bool>;

    /// Waits until there are settled events, or until the journal is closed.
    fn ready(&self) -> BoxFuture<'_, ()>;

    /// Shows every settled event that is not acknowledged, for whoever counts them at a start. An event may come twice.
    fn waiting(&self, see: &mut dyn FnMut(UsageEvent)) -> Result<(), StoreError>;

    /// The oldest settled events, at most `events_max` of them.
    fn next(&self, events_max: usize) -> BoxFuture<'_, Batch>;

    /// The ledger has all events up to `through`, which came with a batch of [`Journal::next`].
    fn ack(&self, through: u64);

    /// Sets an event aside that the ledger refuses for good, with what it said. It is kept, on disk, until somebody
    /// looks after it; it may be acknowledged then.
    fn quarantine(&self, event: &UsageEvent, reason: &str) -> Result<(), StoreError>;

    /// No more admissions: they are refused as if the journal were full. `next` ends when all is acknowledged.
    fn close(&self);

    /// Whether `close` was called.
    fn is_closed(&self) -> bool;

    /// The position of the newest settled event: when that is acknowledged, so is everything settled before this call.
    fn settled_through(&self) -> u64;

    /// How far the ledger is behind.
    fn backlog(&self) -> Backlog;
}
