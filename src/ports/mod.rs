//! What the gateway needs from outside, as traits with their contracts: counters, ledger, tenants, journal, sinks, clock.
//!
//! May use: `domain`. Each port has one file here, one file for each adapter in `adapters`, and one conformance suite
//! that every adapter runs.

pub mod asking;
pub mod clock;
pub mod continuations;
pub mod counters;
pub mod crossings;
pub mod journal;
pub mod objects;
pub mod prices;
pub mod rates;
pub mod shared;
pub mod sink;
pub mod tenants;
pub mod transfer;
pub mod units;
pub mod usage;

use std::pin::Pin;

/// A boxed future: port traits are used as objects, so that the binary chooses adapters at start.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A store that cannot do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Locked, gone, full or slow: the same call may succeed later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store holds something this version does not understand.
    #[error("the store holds something that this version cannot read: {0}")]
    Corrupt(String),
    /// What was given does not fit the store, such as a cost beyond what a row can hold: it will not fit later either.
    #[error("the store cannot take this: {0}")]
    Refused(String),
    /// What was asked breaks a rule of the store, such as a second tenant with the same id.
    #[error("{0} exists already")]
    Exists(String),
    /// What was named is not there.
    #[error("{0} does not exist")]
    Missing(String),
}
