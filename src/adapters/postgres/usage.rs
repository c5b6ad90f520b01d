//! Questions about events and their sums in Postgres.
//!
//! May use: `domain`, `ports`. Questions are those of [`crate::adapters::sql`].

use sqlx::Postgres;

use super::PostgresLedger;
use crate::adapters::sql::{crossings, scopes, usage, walk};
use crate::domain::counting::Counting;
use crate::domain::event::UsageEvent;
use crate::domain::ids::{EventId, TenantId};
use crate::domain::threshold::Crossing;
use crate::domain::time::{Micros, Period};
use crate::ports::counters::CounterKey;
use crate::ports::crossings::{Appended, CrossingsQuery, StoredCrossing, Watched};
use crate::ports::usage::{Entry, EventsQuery, Group, StandingOf, StoredEvent, SumsQuery, UsageStore};
use crate::ports::{BoxFuture, StoreError};

/// A walk reads everything: it takes as long as it takes, and sorts with more memory than a report may. It has the table
/// before it has its instant, as a partition that is dropped is gone for older instants too.
const WALK: &str = "LOCK TABLE usage_events IN ACCESS SHARE MODE; \
    SET LOCAL statement_timeout = 0; SET LOCAL work_mem = '64MB'";

impl UsageStore for PostgresLedger {
    fn append<'a>(&'a self, events: &'a [UsageEvent]) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move { Ok(self.append_all(events, &Watched::default()).await?.new) })
    }

    fn append_watched<'a>(
        &'a self,
        events: &'a [UsageEvent],
        watched: &'a Watched,
    ) -> BoxFuture<'a, Result<Appended, StoreError>> {
        Box::pin(self.append_all(events, watched))
    }

    fn crossings<'a>(&'a self, query: &'a CrossingsQuery) -> BoxFuture<'a, Result<Vec<StoredCrossing>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let found = crossings::list::<Postgres>(&mut reader, query).await;
            reader.answer(found)
        })
    }

    fn crossed<'a>(&'a self, counters: &'a [CounterKey]) -> BoxFuture<'a, Result<Vec<Crossing>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let found = crossings::of_counters::<Postgres>(&mut reader, counters).await;
            reader.answer(found)
        })
    }

    fn sums<'a>(&'a self, query: &'a SumsQuery) -> BoxFuture<'a, Result<Vec<Group>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let groups = usage::sums::<Postgres>(&mut reader, query).await;
            reader.answer(groups)
        })
    }

    fn events<'a>(&'a self, query: &'a EventsQuery) -> BoxFuture<'a, Result<Vec<StoredEvent>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let events = usage::events::<Postgres>(&mut reader, query).await;
            reader.answer(events)
        })
    }

    fn event<'a>(
        &'a self,
        tenant: Option<&'a TenantId>,
        id: EventId,
    ) -> BoxFuture<'a, Result<Option<StoredEvent>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let event = usage::event::<Postgres>(&mut reader, tenant, id).await;
            reader.answer(event)
        })
    }

    fn known<'a>(&'a self, ids: &'a [EventId]) -> BoxFuture<'a, Result<Vec<EventId>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let known = usage::known::<Postgres>(&mut reader, ids).await;
            reader.answer(known)
        })
    }

    fn used(&self, period: Period, counting: Counting) -> BoxFuture<'_, Result<Vec<(CounterKey, u64)>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let used = scopes::used::<Postgres>(&mut reader, period, counting).await;
            reader.answer(used)
        })
    }

    fn standing_of<'a>(
        &'a self,
        tenants: &'a [TenantId],
        from: [Period; 2],
        counting: Counting,
        ids: &'a [EventId],
    ) -> BoxFuture<'a, Result<StandingOf, StoreError>> {
        Box::pin(async move {
            let mut snapshot = self.snapshot().await?;
            let standing = scopes::standing_of::<Postgres>(&mut snapshot, tenants, from, counting, ids).await;
            snapshot.end(standing).await
        })
    }

    fn find<'a>(&'a self, ids: &'a [EventId]) -> BoxFuture<'a, Result<Vec<StoredEvent>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let found = usage::find::<Postgres>(&mut reader, ids).await;
            reader.answer(found)
        })
    }

    fn corrections<'a>(&'a self, ids: &'a [EventId]) -> BoxFuture<'a, Result<Vec<StoredEvent>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let found = usage::corrections::<Postgres>(&mut reader, ids).await;
            reader.answer(found)
        })
    }

    /// Postgres has no check of its files that every user may ask for, so none is told.
    fn walk<'a>(&'a self, see: &'a mut (dyn FnMut(Entry) + Send)) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut view = self.snapshot().await?;
            view.say(WALK).await?;
            let walked = walk::walk::<Postgres>(&mut view, see).await;
            view.end(walked).await
        })
    }

    fn events_from(&self) -> BoxFuture<'_, Result<Option<Micros>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let from = usage::events_from::<Postgres>(&mut reader).await;
            reader.answer(from)
        })
    }

    fn old_events(&self, before: Period) -> BoxFuture<'_, Result<Vec<(Period, u64)>, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let events = usage::old_events::<Postgres>(&mut reader, before, "TRUE").await;
            reader.answer(events)
        })
    }

    fn drop_events<'a>(
        &'a self,
        before: Period,
        tell: &'a mut (dyn FnMut(u64) + Send),
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.drop_all(before, tell))
    }

    fn ledger_id(&self) -> BoxFuture<'_, Result<String, StoreError>> {
        Box::pin(async move {
            let mut reader = self.reader().await?;
            let id = usage::ledger_id::<Postgres>(&mut reader).await;
            reader.answer(id)
        })
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.check_schema())
    }
}
