//! Units that wait for their bill: what providers took and finish later.
//!
//! A unit comes into the store with the event that deferred it, by [`super::usage::UsageStore::append`] and in its
//! transaction. That a unit is settled is housekeeping: its bill is an event with an id that follows from the first one's,
//! so a unit that is billed again is billed once.

use std::time::Duration;

use crate::domain::ids::{EventId, KeyId, ProviderId, TenantId};
use crate::domain::time::Micros;
use crate::domain::unit::UnitName;

use super::{BoxFuture, StoreError};

/// A unit that is not billed yet, and whose bill it will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeferredUnit {
    /// Who does the work.
    pub provider: ProviderId,
    /// Its name there.
    pub name: UnitName,
    /// The event of the call that began it.
    pub event: EventId,
    /// When that call was admitted.
    pub requested_at: Micros,
    /// How far the tenant's clock was ahead of UTC then, in seconds.
    pub utc_offset_s: i32,
    /// Who pays.
    pub tenant: TenantId,
    /// The key that made the call.
    pub key: Option<KeyId>,
    /// The call's `x-tollgate-user-id`.
    pub user_id: Option<Box<str>>,
    /// The call's `x-tollgate-kb-id`.
    pub kb_id: Option<Box<str>>,
    /// The model as it was booked with the call.
    pub model: Box<str>,
    /// The model as the client asked.
    pub requested_model: Box<str>,
    /// The call's route.
    pub endpoint: String,
    /// An estimate of the prompt.
    pub prompt_tokens: u64,
    /// An estimate of what the call's own answer delivered of the output.
    pub delivered_tokens: u64,
    /// The most output that the call declared.
    pub output_max: Option<u64>,
    /// Whether it was begun with the tenant's own key, so that only that account knows it.
    pub own_account: bool,
}

/// How often a unit is asked for: first after a pause that doubles with each question, up to a longest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// The first one.
    pub first: Duration,
    /// The longest one.
    pub longest: Duration,
}

/// The store of units. The contract:
///
/// - A unit is there from the append of its event on; a second event that names the same one changes nothing.
/// - `claim` gives a unit to one of all that claim at once, and to nobody else before its next pause is over.
pub trait UnitStore: Send + Sync {
    /// The unit of that name, unless it is settled.
    fn waiting<'a>(
        &'a self,
        provider: &'a ProviderId,
        name: &'a UnitName,
    ) -> BoxFuture<'a, Result<Option<DeferredUnit>, StoreError>>;

    /// Units that are not settled, at most so many: those that are named `path` or stand below it, such as `threads/t` or
    /// `batches`; only those of `tenant` where one is given.
    fn below<'a>(
        &'a self,
        provider: &'a ProviderId,
        path: &'a str,
        tenant: Option<&'a TenantId>,
        units_max: u32,
    ) -> BoxFuture<'a, Result<Vec<DeferredUnit>, StoreError>>;

    /// Takes units that are due, at most so many, those first that are due for longest, and puts off when each is due next.
    fn claim(
        &self,
        now: Micros,
        pauses: Pauses,
        units_max: u32,
    ) -> BoxFuture<'_, Result<Vec<DeferredUnit>, StoreError>>;

    /// The bill of the unit is in the ledger.
    fn settled<'a>(
        &'a self,
        provider: &'a ProviderId,
        name: &'a UnitName,
        at: Micros,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Forgets units that were settled before `before`.
    fn forget(&self, before: Micros) -> BoxFuture<'_, Result<u64, StoreError>>;
}
