//! The ledger as a question sees it: every call that ended before the question was asked is in the answer.
//!
//! Events reach the ledger in batches, a moment after their calls. Whoever asks right after a call must not miss it.

use std::sync::Arc;

use crate::domain::counting::Counting;
use crate::domain::event::UsageEvent;
use crate::domain::ids::{EventId, TenantId};
use crate::domain::threshold::Crossing;
use crate::domain::time::{Micros, Period};
use crate::ports::counters::CounterKey;
use crate::ports::crossings::{Appended, CrossingsQuery, StoredCrossing, Watched};
use crate::ports::usage::{Entry, EventsQuery, Group, StandingOf, StoredEvent, SumsQuery, UsageStore};
use crate::ports::{BoxFuture, StoreError};

use super::recorder::Recorder;

/// A ledger that waits for the recorder before it answers.
pub struct Fresh {
    ledger: Arc<dyn UsageStore>,
    recorder: Arc<Recorder>,
}

impl Fresh {
    /// The same ledger, asked after `recorder` has caught up.
    pub fn new(ledger: Arc<dyn UsageStore>, recorder: Arc<Recorder>) -> Self {
        Self { ledger, recorder }
    }
}

impl UsageStore for Fresh {
    fn append<'a>(&'a self, events: &'a [UsageEvent]) -> BoxFuture<'a, Result<u64, StoreError>> {
        self.ledger.append(events)
    }

    fn append_watched<'a>(
        &'a self,
        events: &'a [UsageEvent],
        watched: &'a Watched,
    ) -> BoxFuture<'a, Result<Appended, StoreError>> {
        self.ledger.append_watched(events, watched)
    }

    fn crossings<'a>(&'a self, query: &'a CrossingsQuery) -> BoxFuture<'a, Result<Vec<StoredCrossing>, StoreError>> {
        Box::pin(async move {
            self.recorder.caught_up().await;
            self.ledger.crossings(query).await
        })
    }

    fn crossed<'a>(&'a self, counters: &'a [CounterKey]) -> BoxFuture<'a, Result<Vec<Crossing>, StoreError>> {
        Box::pin(async move {
            self.recorder.caught_up().await;
            self.ledger.crossed(counters).await
        })
    }

    fn sums<'a>(&'a self, query: &'a SumsQuery) -> BoxFuture<'a, Result<Vec<Group>, StoreError>> {
        Box::pin(async move {
            self.recorder.caught_up().await;
            self.ledger.sums(query).await
        })
    }

    fn events<'a>(&'a self, query: &'a EventsQuery) -> BoxFuture<'a, Result<Vec<StoredEvent>, StoreError>> {
        Box::pin(async move {
            self.recorder.caught_up().await;
            self.ledger.events(query).await
        })
    }

    fn event<'a>(
        &'a self,
        tenant: Option<&'a TenantId>,
        id: EventId,
    ) -> BoxFuture<'a, Result<Option<StoredEvent>, StoreError>> {
        Box::pin(async move {
            self.recorder.caught_up().await;
            self.ledger.event(tenant, id).await
        })
    }

    fn known<'a>(&'a self, ids: &'a [EventId]) -> BoxFuture<'a, Result<Vec<EventId>, StoreError>> {
        self.ledger.known(ids)
    }

    fn used(&self, period: Period, counting: Counting) -> BoxFuture<'_, Result<Vec<(CounterKey, u64)>, StoreError>> {
        self.ledger.used(period, counting)
    }

    fn standing_of<'a>(
        &'a self,
        tenants: &'a [TenantId],
        from: [Period; 2],
        counting: Counting,
        ids: &'a [EventId],
    ) -> BoxFuture<'a, Result<StandingOf, StoreError>> {
        self.ledger.standing_of(tenants, from, counting, ids)
    }

    fn find<'a>(&'a self, ids: &'a [EventId]) -> BoxFuture<'a, Result<Vec<StoredEvent>, StoreError>> {
        self.ledger.find(ids)
    }

    fn corrections<'a>(&'a self, ids: &'a [EventId]) -> BoxFuture<'a, Result<Vec<StoredEvent>, StoreError>> {
        self.ledger.corrections(ids)
    }

    fn walk<'a>(&'a self, see: &'a mut (dyn FnMut(Entry) + Send)) -> BoxFuture<'a, Result<(), StoreError>> {
        self.ledger.walk(see)
    }

    fn events_from(&self) -> BoxFuture<'_, Result<Option<Micros>, StoreError>> {
        self.ledger.events_from()
    }

    fn old_events(&self, before: Period) -> BoxFuture<'_, Result<Vec<(Period, u64)>, StoreError>> {
        self.ledger.old_events(before)
    }

    fn drop_events<'a>(
        &'a self,
        before: Period,
        tell: &'a mut (dyn FnMut(u64) + Send),
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.ledger.drop_events(before, tell)
    }

    fn ledger_id(&self) -> BoxFuture<'_, Result<String, StoreError>> {
        self.ledger.ledger_id()
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.ledger.ready()
    }
}
