//! The ledger: events, their sums, and the questions asked of them.

use crate::domain::counting::Counting;
use crate::domain::event::{Outcome, UsageEvent, UsageSource};
use crate::domain::ids::{EventId, TenantId};
use crate::domain::money::PicoUsd;
use crate::domain::plan::Scope;
use crate::domain::price::Priced;
use crate::domain::quantities::Quantities;
use crate::domain::threshold::Crossing;
use crate::domain::time::{Micros, Period, Window};
use crate::domain::tokens::Tokens;

use super::counters::CounterKey;
use super::crossings::{Appended, CrossingsQuery, StoredCrossing, Watched};
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
    /// Answers below 400 and calls that were interrupted or broke off. What was deferred is one when it is billed.
    pub requests: u64,
    /// Chats counted.
    pub chats: u64,
    /// Answers of 400 and more, and calls without an answer.
    pub failed_requests: u64,
    /// Tokens, each kind for itself.
    pub tokens: Tokens,
    /// What was charged beside tokens, each for itself.
    pub quantities: Quantities,
    /// The cost of all priced events.
    pub cost: PicoUsd,
    /// What of it, more or less, tenants are billed.
    pub billable: PicoUsd,
    /// Requests whose model has no price. A correction that finds one has 1 less: what it alone adds is below 0, what it
    /// adds to never is.
    pub unpriced_requests: i64,
    /// Requests whose tokens were estimated.
    pub estimated_requests: u64,
    /// The estimated part of the prompt tokens.
    pub estimated_prompt: u64,
    /// The estimated part of the completion tokens.
    pub estimated_completion: u64,
}

impl Sums {
    /// The name of each value, in the order of [`Sums::values`].
    pub const NAMES: [&str; 25] = [
        "requests",
        "chats",
        "failed_requests",
        "prompt_tokens",
        "cached_tokens",
        "cache_write_tokens",
        "cache_write_long_tokens",
        "prompt_audio_tokens",
        "prompt_image_tokens",
        "cached_audio_tokens",
        "completion_tokens",
        "reasoning_tokens",
        "completion_audio_tokens",
        "completion_image_tokens",
        "audio_ms",
        "characters",
        "images",
        "web_searches",
        "file_searches",
        "estimated_cost_pico_usd",
        "billable_cost_pico_usd",
        "unpriced_requests",
        "estimated_requests",
        "estimated_prompt_tokens",
        "estimated_completion_tokens",
    ];

    /// Every value, one after the other; costs in pico-dollars.
    pub fn values(&self) -> SumValues {
        let Self {
            requests,
            chats,
            failed_requests,
            tokens,
            quantities,
            cost,
            billable,
            unpriced_requests,
            estimated_requests,
            estimated_prompt,
            estimated_completion,
        } = *self;
        values(
            [requests, chats, failed_requests].map(i128::from),
            tokens.kinds().map(i128::from),
            quantities.kinds().map(i128::from),
            [cost.0, billable.0, unpriced_requests.into()],
            [estimated_requests, estimated_prompt, estimated_completion].map(i128::from),
        )
    }

    /// What one event adds.
    pub fn of(event: &UsageEvent) -> Self {
        let is_request = event.outcome.is_request();
        let request_if = |is: bool| u64::from(is && is_request);
        let is_estimate = event.source == UsageSource::Estimate;
        let estimated = |tokens: u64| if is_estimate { tokens } else { 0 };
        let unpriced = |priced: Priced| i64::from(priced == Priced::Unpriced);
        Self {
            requests: u64::from(is_request),
            chats: event.chats,
            failed_requests: u64::from(event.outcome.is_failed()),
            tokens: event.tokens,
            quantities: event.quantities,
            cost: event.cost.unwrap_or_default(),
            billable: event.billable.unwrap_or_default(),
            unpriced_requests: match event.corrects {
                Some(corrected) => unpriced(event.priced) - unpriced(corrected.priced),
                None if is_request => unpriced(event.priced),
                None => 0,
            },
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
            quantities: self.quantities.plus(&other.quantities)?,
            cost: self.cost.plus(other.cost).ok()?,
            billable: self.billable.plus(other.billable).ok()?,
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
    /// Whose cost can be trusted so far.
    pub priced: Option<Priced>,
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

/// What some tenants used, and which of some events are booked, at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StandingOf {
    /// What the ledger sums up for each counter, in no order. One without a sum has none here.
    pub used: Vec<(CounterKey, u64)>,
    /// Those of the asked events that are booked, so that what they used is in the sums.
    pub known: Vec<EventId>,
}

/// The values of a sum as plain numbers, named by [`Sums::NAMES`]: what a damaged ledger holds may be any number.
pub type SumValues = [i128; 25];

/// What a sum is kept by, as it stands in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SumKey {
    /// A day's or a month's.
    pub window: Window,
    /// Whose.
    pub tenant: String,
    /// `2026-11-24` or `2026-11`.
    pub period: String,
    /// Of which provider.
    pub provider: String,
    /// Of which model.
    pub model: String,
}

/// Events of one day that differ in nothing by which they are counted, added up: what each kind counts as is not decided
/// by the store. The texts are those of the rows, whatever they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stratum {
    /// Whose.
    pub tenant: String,
    /// The first instant of their day, as [`UsageEvent::local`] has it.
    pub day: Micros,
    /// The provider.
    pub provider: String,
    /// The model.
    pub model: String,
    /// How they ended.
    pub outcome: String,
    /// Where their tokens come from.
    pub source: String,
    /// How far their costs can be trusted.
    pub priced: String,
    /// In corrections, how far the costs that they correct could be trusted.
    pub priced_before: Option<String>,
    /// How many they are.
    pub events: u64,
    /// Their chats.
    pub chats: i128,
    /// Their tokens, in the order of [`Tokens::KINDS`].
    pub tokens: [i128; 11],
    /// Their quantities, in the order of [`Quantities::KINDS`].
    pub quantities: [i128; 5],
    /// Their cost in pico-dollars.
    pub cost: i128,
    /// What of it is billed.
    pub billable: i128,
}

impl Stratum {
    /// What they add to a sum: the same as [`Sums::of`] for each of them.
    pub fn values(&self) -> SumValues {
        let outcome = Outcome::parse(&self.outcome);
        let events = i128::from(self.events);
        // What is no outcome at all is told elsewhere.
        let requests = if outcome.is_none_or(Outcome::is_request) { events } else { 0 };
        let request_if = |is: bool| if is { requests } else { 0 };
        let is_estimate = self.source == UsageSource::Estimate.as_str();
        let estimated = |tokens: i128| if is_estimate { tokens } else { 0 };
        let [prompt, .., completion, _, _, _] = self.tokens;
        let unpriced = |priced: &str| if priced == Priced::Unpriced.as_str() { events } else { 0 };
        let unpriced = match &self.priced_before {
            Some(before) => unpriced(&self.priced) - unpriced(before),
            None => request_if(self.priced == Priced::Unpriced.as_str()),
        };
        let failed = if outcome.is_some_and(Outcome::is_failed) { events } else { 0 };
        values(
            [requests, self.chats, failed],
            self.tokens,
            self.quantities,
            [self.cost, self.billable, unpriced],
            [request_if(is_estimate), estimated(prompt), estimated(completion)],
        )
    }
}

/// The values of a sum in their order.
fn values(
    counts: [i128; 3],
    tokens: [i128; 11],
    quantities: [i128; 5],
    costs: [i128; 3],
    estimated: [i128; 3],
) -> SumValues {
    let mut all = counts.into_iter().chain(tokens).chain(quantities).chain(costs).chain(estimated);
    std::array::from_fn(|_| all.next().unwrap_or_default())
}

/// What everybody in a tenant used in a period: chats, tokens and nano-dollars.
pub type UsedValues = [i128; 3];

/// What a sum of that is kept by, as it stands in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UsedKey {
    /// In which tenant.
    pub tenant: String,
    /// `2026-11-24` or `2026-11`.
    pub period: String,
    /// The name of a [`Scope`].
    pub scope: String,
    /// Who of that.
    pub subject: String,
}

impl UsedKey {
    /// That of a counter.
    pub fn of(counter: &CounterKey) -> Self {
        let CounterKey { tenant, subject, metric: _, period } = counter;
        let (scope, subject) = (subject.scope().as_str().to_owned(), subject.id().to_owned());
        Self { tenant: tenant.to_string(), period: period.to_string(), scope, subject }
    }
}

/// Events of one day that count on the same, added up. The texts are those of the rows, whatever they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedStratum {
    /// Whose.
    pub tenant: String,
    /// The first instant of their day (UTC).
    pub day: Micros,
    /// Their key, user and knowledge base.
    pub of: [Option<String>; 3],
    /// What they count.
    pub values: UsedValues,
}

impl UsedStratum {
    /// The sums that they are a part of.
    pub fn keys(&self) -> Vec<UsedKey> {
        let Self { tenant, day, of: [key, user, kb], values: _ } = self;
        let subjects = [
            (Scope::Tenant, Some("")),
            (Scope::Key, key.as_deref()),
            (Scope::User, user.as_deref()),
            (Scope::Kb, kb.as_deref()),
        ];
        let of = |window: Window| {
            let period = window.period(*day).to_string();
            subjects.into_iter().filter_map(move |(scope, subject)| {
                let (scope, subject) = (scope.as_str().to_owned(), subject?.to_owned());
                Some(UsedKey { tenant: tenant.clone(), period: period.clone(), scope, subject })
            })
        };
        Counting::WINDOWS.into_iter().flat_map(of).collect()
    }
}

/// What a ledger shows of itself in [`UsageStore::walk`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// So many events will be shown.
    Begin {
        /// How many.
        events: u64,
        /// What [`UsageStore::events_from`] says.
        from: Option<Micros>,
    },
    /// Some events. One day's may come in several strata.
    Events(Box<Stratum>),
    /// One sum, after all events.
    Sum(Box<(SumKey, SumValues)>),
    /// The same events once more, as they are counted.
    Counted(Box<UsedStratum>),
    /// One sum of these, after all of them.
    Used(Box<(UsedKey, UsedValues)>),
    /// An event with a value that no event can have.
    Impossible {
        /// Its id.
        event: String,
        /// What about it is wrong.
        rule: &'static str,
        /// The value.
        found: String,
    },
    /// The store's own check of its files found this.
    Damage(String),
}

/// The ledger. The contract:
///
/// - `append` writes events and the sums they change in one transaction: those of days and months by provider and model,
///   and those of each tenant, key, user and knowledge base by what counters count. An event whose id is there
///   already changes nothing, so a batch may be sent again after an unknown outcome.
/// - Every sum equals the sum of its events, at any moment, to the unit. Where old events were dropped their sums are
///   kept; an event that comes later all the same is written and added to its sums as any other.
/// - A question that only events can answer, for a time when some were dropped, is [`StoreError::Missing`], never an
///   answer without them.
pub trait UsageStore: Send + Sync {
    /// Writes events; says how many were new.
    fn append<'a>(&'a self, events: &'a [UsageEvent]) -> BoxFuture<'a, Result<u64, StoreError>>;

    /// The same; and in the same transaction notes each threshold that a sum of a tenant, key, user or knowledge base moved
    /// over, once for each window. Events that were there cross nothing, nor do corrections, which add nothing. A store that
    /// notes none only appends.
    fn append_watched<'a>(
        &'a self,
        events: &'a [UsageEvent],
        _watched: &'a Watched,
    ) -> BoxFuture<'a, Result<Appended, StoreError>> {
        Box::pin(async move { Ok(Appended { new: self.append(events).await?, crossed: Vec::new() }) })
    }

    /// Crossings in the order in which they were noted, each visible before any with a higher row is.
    fn crossings<'a>(&'a self, _query: &'a CrossingsQuery) -> BoxFuture<'a, Result<Vec<StoredCrossing>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// The crossings of these counters, in that order.
    fn crossed<'a>(&'a self, _counters: &'a [CounterKey]) -> BoxFuture<'a, Result<Vec<Crossing>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

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

    /// What was used in a period of every counter that is counted. One that nothing was used of may have none.
    fn used(&self, period: Period, counting: Counting) -> BoxFuture<'_, Result<Vec<(CounterKey, u64)>, StoreError>>;

    /// Of one instant of the ledger: what these tenants used, of what is counted, in every month at or after the first of
    /// `from` and in every day at or after the second, and which of `ids` are booked.
    fn standing_of<'a>(
        &'a self,
        tenants: &'a [TenantId],
        from: [Period; 2],
        counting: Counting,
        ids: &'a [EventId],
    ) -> BoxFuture<'a, Result<StandingOf, StoreError>>;

    /// Those of these events that are there.
    fn find<'a>(&'a self, ids: &'a [EventId]) -> BoxFuture<'a, Result<Vec<StoredEvent>, StoreError>>;

    /// The corrections of these events, in insert order.
    fn corrections<'a>(&'a self, ids: &'a [EventId]) -> BoxFuture<'a, Result<Vec<StoredEvent>, StoreError>>;

    /// Shows the whole ledger as it stands at one instant, without copying it and without keeping writers out. Nothing of
    /// what it holds is taken for true: values that cannot be are shown like others. Memory does not grow with the
    /// number of events.
    fn walk<'a>(&'a self, see: &'a mut (dyn FnMut(Entry) + Send)) -> BoxFuture<'a, Result<(), StoreError>>;

    /// From when on the ledger has its events: some that were requested before were dropped, and their sums kept. `None`
    /// when it has all there ever were.
    fn events_from(&self) -> BoxFuture<'_, Result<Option<Micros>, StoreError>>;

    /// The months before `before`, which is a month, that have events to be dropped, and how many, oldest first. The newest
    /// event of all may be none of these.
    fn old_events(&self, before: Period) -> BoxFuture<'_, Result<Vec<(Period, u64)>, StoreError>>;

    /// Drops the events of the months before `before`, which is a month, and keeps their sums. Whoever writes or asks
    /// meanwhile waits for parts of a second at most. `tell` hears now and then how many are gone. What fails half way may
    /// be done again.
    fn drop_events<'a>(
        &'a self,
        before: Period,
        tell: &'a mut (dyn FnMut(u64) + Send),
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Tells this ledger from every other.
    fn ledger_id(&self) -> BoxFuture<'_, Result<String, StoreError>>;

    /// Whether the store answers and its schema is the one that this version needs.
    fn ready(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}
