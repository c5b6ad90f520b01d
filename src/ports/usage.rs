//! The ledger: events, their sums, and the questions asked of them.

use crate::domain::event::{UsageEvent, UsageSource};
use crate::domain::ids::{EventId, TenantId};
use crate::domain::money::PicoUsd;
use crate::domain::price::Priced;
use crate::domain::time::{Micros, Period};
use crate::domain::tokens::Tokens;

use super::{BoxFuture, StoreError};

/// What sums can be grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dimension {
    /// `provider`.
    Provider,
    /// `model`, as the provider answered.
    Model,
    /// `key`: the key's id.
    Key,
    /// `user`: `x-tollgate-user-id`.
    User,
    /// `kb`: `x-tollgate-kb-id`.
    Kb,
    /// `day`: `2026-11-24`.
    Day,
    /// `hour`: `2026-11-24T10`.
    Hour,
}

impl Dimension {
    /// All of them, for parsers and help.
    pub const ALL: [Self; 7] = [Self::Provider, Self::Model, Self::Key, Self::User, Self::Kb, Self::Day, Self::Hour];

    /// The name in queries and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Model => "model",
            Self::Key => "key",
            Self::User => "user",
            Self::Kb => "kb",
            Self::Day => "day",
            Self::Hour => "hour",
        }
    }

    /// The one with that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dimension| dimension.as_str() == text)
    }
}

/// Sums over a set of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Answers below 400 and calls that were interrupted or broke off.
    pub requests: u64,
    /// Chats counted.
    pub chats: u64,
    /// Answers of 400 and more, and calls without an answer.
    pub failed_requests: u64,
    /// Tokens, each kind for itself.
    pub tokens: Tokens,
    /// The cost of all priced events.
    pub cost: PicoUsd,
    /// Requests whose model has no price.
    pub unpriced_requests: u64,
    /// Requests whose tokens were estimated.
    pub estimated_requests: u64,
    /// The estimated part of the prompt tokens.
    pub estimated_prompt: u64,
    /// The estimated part of the completion tokens.
    pub estimated_completion: u64,
}

impl Sums {
    /// What one event adds.
    pub fn of(event: &UsageEvent) -> Self {
        let failed = event.outcome.is_failed();
        let request_if = |is: bool| u64::from(is && !failed);
        let is_estimate = event.source == UsageSource::Estimate;
        let estimated = |tokens: u64| if is_estimate { tokens } else { 0 };
        Self {
            requests: u64::from(!failed),
            chats: event.chats,
            failed_requests: u64::from(failed),
            tokens: event.tokens,
            cost: event.cost.unwrap_or_default(),
            unpriced_requests: request_if(event.priced == Priced::Unpriced),
            estimated_requests: request_if(is_estimate),
            estimated_prompt: estimated(event.tokens.prompt),
            estimated_completion: estimated(event.tokens.completion),
        }
    }

    /// Both together; `None` where a sum does not fit.
    pub fn plus(&self, other: &Self) -> Option<Self> {
        Some(Self {
            requests: self.requests.checked_add(other.requests)?,
            chats: self.chats.checked_add(other.chats)?,
            failed_requests: self.failed_requests.checked_add(other.failed_requests)?,
            tokens: self.tokens.plus(&other.tokens)?,
            cost: self.cost.plus(other.cost).ok()?,
            unpriced_requests: self.unpriced_requests.checked_add(other.unpriced_requests)?,
            estimated_requests: self.estimated_requests.checked_add(other.estimated_requests)?,
            estimated_prompt: self.estimated_prompt.checked_add(other.estimated_prompt)?,
            estimated_completion: self.estimated_completion.checked_add(other.estimated_completion)?,
        })
    }
}

/// One group and its sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// One value for each asked dimension, in the asked order; `None` where the events have none.
    pub values: Vec<Option<String>>,
    /// The sums of the group.
    pub sums: Sums,
}

/// Which events to sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SumsQuery {
    /// Of one tenant; `None` for all (admin only).
    pub tenant: Option<TenantId>,
    /// In one day or month; `None` for all time.
    pub period: Option<Period>,
    /// Grouped by these, at most one of each; none for one total.
    pub group_by: Vec<Dimension>,
}

/// Which line items to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsQuery {
    /// Of one tenant; `None` for all (admin only).
    pub tenant: Option<TenantId>,
    /// Requested at or after.
    pub from: Option<Micros>,
    /// Requested before.
    pub to: Option<Micros>,
    /// Inserted after the row with this number: where the last page ended.
    pub after: Option<i64>,
    /// At most this many.
    pub events_max: u32,
}

/// A line item and its place in the insert order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Grows with each insert; the cursor.
    pub row: i64,
    /// The event.
    pub event: UsageEvent,
}

/// The ledger. The contract:
///
/// - `append` writes events and the day and month sums they change in one transaction. An event whose id is there
///   already changes nothing, so a batch may be sent again after an unknown outcome.
/// - Every sum equals the sum of its events, at any moment, to the unit.
pub trait UsageStore: Send + Sync {
    /// Writes events; says how many were new.
    fn append<'a>(&'a self, events: &'a [UsageEvent]) -> BoxFuture<'a, Result<u64, StoreError>>;

    /// Sums, grouped; groups in ascending order of their values. Without `group_by` exactly one group.
    fn sums<'a>(&'a self, query: &'a SumsQuery) -> BoxFuture<'a, Result<Vec<Group>, StoreError>>;

    /// Line items in insert order.
    fn events<'a>(&'a self, query: &'a EventsQuery) -> BoxFuture<'a, Result<Vec<StoredEvent>, StoreError>>;

    /// One line item; of one tenant, or of any.
    fn event<'a>(
        &'a self,
        tenant: Option<&'a TenantId>,
        id: EventId,
    ) -> BoxFuture<'a, Result<Option<StoredEvent>, StoreError>>;

    /// Which of these events it has.
    fn known<'a>(&'a self, ids: &'a [EventId]) -> BoxFuture<'a, Result<Vec<EventId>, StoreError>>;

    /// Chats of every tenant in a period, for the counters.
    fn chats<'a>(&'a self, period: Period) -> BoxFuture<'a, Result<Vec<(TenantId, u64)>, StoreError>>;

    /// Whether the store answers and its schema is the one that this version needs.
    fn ready(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}
