//! Compares what has to be equal: events with their sums, the journal with the ledger, counters with the ledger.
//!
//! May use: `domain`, `ports`. Pure comparisons over what ports show; nothing is changed, and nothing stands still for it.
//! What moves while it is looked at is looked at in an order in which moving makes no difference:
//!
//! | what | against what | why moving does not matter |
//! |---|---|---|
//! | [`ledger`] | every sum against the fold of its events | both are of one instant |
//! | [`journal`] | what the journal says is booked, in the ledger | the journal is read first, and the ledger only grows |
//! | [`counters`] | every counter against the chats of its period | read before and after the ledger; what they were in between is known to an interval |

pub mod counters;
pub mod journal;
pub mod ledger;
#[cfg(test)]
mod tests;

use std::fmt;

/// Differences that are kept to be told one by one; beyond it they are only counted. A reader of a thousand lines knows
/// enough, and a wrong ledger must not fill the memory.
pub const DIFFERENCES_MAX: usize = 1_000;

/// What kind of thing differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The store's files are damaged.
    Store,
    /// An event holds what no event can hold.
    Event,
    /// A sum is not the sum of its events.
    Sum,
    /// The journal holds something else than the ledger.
    Journal,
    /// The journal's files are damaged.
    Damage,
    /// The ledger refused an event.
    Quarantine,
    /// A counter is not what the ledger says.
    Counter,
    /// The copy of a ledger holds something else than the ledger.
    Copy,
}

impl Kind {
    /// Its name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Event => "event",
            Self::Sum => "sum",
            Self::Journal => "journal",
            Self::Damage => "damage",
            Self::Quarantine => "quarantine",
            Self::Counter => "counter",
            Self::Copy => "copy",
        }
    }
}

/// One thing that is not as it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What kind of thing.
    pub kind: Kind,
    /// Where: names enough to find it.
    pub place: String,
    /// What of it.
    pub what: String,
    /// What it has to be.
    pub expected: String,
    /// What it is.
    pub found: String,
}

/// `usage_daily acme 2026-11-24 openai gpt-4o: chats: expected 3, found 4`
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind: _, place, what, expected, found } = self;
        write!(f, "{place}: {what}: expected {expected}, found {found}")
    }
}

/// Differences as they are found.
#[derive(Debug, Clone, Default)]
pub struct Differences {
    kept: Vec<Difference>,
    total: u64,
}

impl Differences {
    /// Adds one.
    pub fn add(
        &mut self,
        kind: Kind,
        place: impl Into<String>,
        what: impl Into<String>,
        (expected, found): (impl Into<String>, impl Into<String>),
    ) {
        self.total = self.total.saturating_add(1);
        if self.kept.len() < DIFFERENCES_MAX {
            let (place, what, expected, found) = (place.into(), what.into(), expected.into(), found.into());
            self.kept.push(Difference { kind, place, what, expected, found });
        }
    }

    /// The first [`DIFFERENCES_MAX`] of them.
    pub fn kept(&self) -> &[Difference] {
        &self.kept
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.total
    }
}
