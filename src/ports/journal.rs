//! The way of an event from the end of its call to the ledger.

use std::sync::Arc;

use crate::domain::event::UsageEvent;

use super::BoxFuture;

/// A place in the journal, taken at admission so that settling cannot fail. Given to [`Journal::settle`] exactly once.
#[derive(Debug)]
#[must_use = "a slot that is not settled leaks its place in the journal"]
pub struct Slot(pub u64);

/// The journal has no place for another call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal is full")]
pub struct JournalFull;

/// Settled events that the ledger does not have yet.
#[derive(Debug, Clone)]
pub struct Batch {
    /// In the order in which they were settled. Shared: the journal keeps them until they are acknowledged.
    pub events: Arc<[UsageEvent]>,
    /// Names the end of this batch towards [`Journal::ack`].
    pub through: u64,
}

/// How far the ledger is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Settled events that are not in the ledger.
    pub events: u64,
    /// Admitted calls that are not settled.
    pub in_flight: u64,
    /// How many more calls can be admitted.
    pub free: u64,
}

/// Owns every event between settlement and ledger. The contract:
///
/// - `admit` takes a slot or refuses at once; it never waits.
/// - `settle` cannot fail and does not block: its place was taken at admission.
/// - `next` gives settled events oldest first, again and again the same ones until they are `ack`ed. It waits while
///   there are none, and ends with an empty batch once `close` was called, no admitted call is left unsettled and all
///   is acknowledged. One reader at a time; dropping its future loses nothing.
/// - A place is free again when its event is acknowledged, or at once when it is released.
pub trait Journal: Send + Sync {
    /// Takes a place for one call.
    fn admit(&self) -> Result<Slot, JournalFull>;

    /// Takes over the event of a call.
    fn settle(&self, slot: Slot, event: UsageEvent);

    /// Gives the place of a call back that turned out to need no event.
    fn release(&self, slot: Slot);

    /// Waits until there are settled events, or until the journal is closed.
    fn ready(&self) -> BoxFuture<'_, ()>;

    /// The oldest settled events, at most `events_max` of them.
    fn next(&self, events_max: usize) -> BoxFuture<'_, Batch>;

    /// The ledger has all events up to `through`, which came with a batch of [`Journal::next`].
    fn ack(&self, through: u64);

    /// No more admissions: they are refused as if the journal were full. `next` ends when all is acknowledged.
    fn close(&self);

    /// Whether `close` was called.
    fn is_closed(&self) -> bool;

    /// Names the newest settled event, as [`Batch::through`] does: when that is acknowledged, so is everything settled
    /// before this call.
    fn settled_through(&self) -> u64;

    /// How far the ledger is behind.
    fn backlog(&self) -> Backlog;
}
