//! Planted bugs: ports that break their contracts the way real ones have, to show that the simulation would see it.

use std::sync::Arc;

use tollgate::domain::event::{Outcome, UsageEvent};
use tollgate::domain::ids::EventId;
use tollgate::ports::journal::{Backlog, Batch, Journal, JournalFull, Slot};
use tollgate::ports::{BoxFuture, StoreError};

use super::chance::mixed;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A call is settled a second time, as an event of its own.
    SettledTwice,
    /// A call that is aborted is not booked.
    DroppedOnAbort,
    /// The journal lets go of events before the ledger has them.
    AckedBeforeCommit,
    /// A process begins with counters at zero.
    CountersFromZero,
    /// The ledger books an event again that is sent again.
    LedgerBooksAgain,
    /// A chat that is given back stays held.
    HoldForgotten,
    /// Nothing is safe after a sync.
    SyncThatDoesNot,
    /// The shared counters lose a hold that they have confirmed.
    StoreLosesAHold,
    /// Counters that are built anew have what the ledger has twice.
    SeededTwice,
    /// Counters that are built anew count a call that the ledger has as one that it does not have.
    FinishIgnoresKnown,
    /// Counters are opened before every node has listed its calls.
    JoinsNotWaitedFor,
    /// A message is done though whoever sent it has given it up.
    LateMessageIsDone,
    /// What a call claimed beyond what it used stays taken.
    DifferenceIsKept,
    /// Of the claims of a call those on tokens and cost are not taken.
    MoneyNotHeld,
    /// A bill that two nodes made is counted by both.
    BillsCountedTwice,
    /// What users used is not counted.
    UsersNotCounted,
    /// A lease is never over, neither by itself nor as it is given back.
    LeasesNeverEnd,
}

/// A journal with a bug in it; those that are elsewhere leave it as it is.
pub fn planted(bug: Option<Bug>, journal: Arc<dyn Journal>) -> Arc<dyn Journal> {
    match bug {
        Some(bug @ (Bug::SettledTwice | Bug::DroppedOnAbort | Bug::AckedBeforeCommit)) => {
            Arc::new(BadJournal { bug, inner: journal })
        }
        _ => journal,
    }
}

struct BadJournal {
    bug: Bug,
    inner: Arc<dyn Journal>,
}

impl Journal for BadJournal {
    fn admit(&self, pending: &UsageEvent) -> Result<Slot, JournalFull> {
        self.inner.admit(pending)
    }

    fn settle(&self, slot: Slot, event: &UsageEvent) -> u64 {
        let is_aborted = matches!(event.outcome, Outcome::ClientLeft | Outcome::Interrupted);
        if self.bug == Bug::DroppedOnAbort && is_aborted {
            // Its place is never given back.
            return 0;
        }
        if self.bug == Bug::SettledTwice {
            let random = event.id.to_bytes().iter().fold(0, |sum, byte| mixed(sum ^ u64::from(*byte)));
            let again = UsageEvent { id: EventId::new(event.requested_at.unix_ms(), random.into()), ..event.clone() };
            if let Ok(slot) = self.inner.admit(&again) {
                self.inner.settle(slot, &again);
            }
        }
        self.inner.settle(slot, event)
    }

    fn durable(&self, position: u64) -> BoxFuture<'_, bool> {
        self.inner.durable(position)
    }

    fn ready(&self) -> BoxFuture<'_, ()> {
        self.inner.ready()
    }

    fn waiting(&self, see: &mut dyn FnMut(UsageEvent)) -> Result<(), StoreError> {
        self.inner.waiting(see)
    }

    fn next(&self, events_max: usize) -> BoxFuture<'_, Batch> {
        Box::pin(async move {
            let batch = self.inner.next(events_max).await;
            if self.bug == Bug::AckedBeforeCommit {
                self.inner.ack(batch.through);
            }
            batch
        })
    }

    fn ack(&self, through: u64) {
        self.inner.ack(through);
    }

    fn quarantine(&self, event: &UsageEvent, reason: &str) -> Result<(), StoreError> {
        self.inner.quarantine(event, reason)
    }

    fn close(&self) {
        self.inner.close();
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    fn settled_through(&self) -> u64 {
        self.inner.settled_through()
    }

    fn backlog(&self) -> Backlog {
        self.inner.backlog()
    }
}
