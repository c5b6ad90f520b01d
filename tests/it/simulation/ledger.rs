//! A ledger in memory that is slow, away, silent, or loses its acknowledgements. It keeps the contract of the port: events
//! and sums change in one commit, and an event whose id is there changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;
use tollgate::domain::counting::Counting;
use tollgate::domain::event::UsageEvent;
use tollgate::domain::ids::{EventId, TenantId};
use tollgate::domain::time::{Micros, Period, Window};
use tollgate::ports::counters::{CounterKey, used_by};
use tollgate::ports::usage::{Entry, EventsQuery, Group, StandingOf, StoredEvent, Sums, SumsQuery, UsageStore};
use tollgate::ports::{BoxFuture, StoreError};

use super::bills::Units;
use super::bugs::Bug;
use super::node::{Death, Node};
use super::world::World;

/// What is committed, which all lives of the process share.
pub struct Books {
    world: Arc<World>,
    tables: Mutex<Tables>,
    pub units: Arc<Units>,
}

#[derive(Default)]
struct Tables {
    events: Vec<UsageEvent>,
    by_id: HashMap<EventId, usize>,
    sums: BTreeMap<(TenantId, Period), Sums>,
    used: BTreeMap<CounterKey, u64>,
    /// Those that were refused for good, alone, when last given.
    refused: BTreeMap<EventId, UsageEvent>,
}

/// The texts that make an event one which the ledger refuses for good.
pub const POISON: &str = "poison";

impl Books {
    pub fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self { world: world.clone(), tables: Mutex::default(), units: Arc::default() })
    }

    /// The ledger as the process of one life has it.
    pub fn of_life(self: &Arc<Self>, node: &Arc<Node>, life: u32) -> Arc<SimLedger> {
        Arc::new(SimLedger { books: self.clone(), node: node.clone(), life })
    }

    pub fn event(&self, id: EventId) -> Option<UsageEvent> {
        let tables = self.tables.lock();
        tables.by_id.get(&id).map(|at| tables.events[*at].clone())
    }

    pub fn events(&self) -> Vec<UsageEvent> {
        self.tables.lock().events.clone()
    }

    /// An event that was refused, and is not booked.
    pub fn refused(&self, id: EventId) -> Option<UsageEvent> {
        let tables = self.tables.lock();
        tables.refused.get(&id).filter(|event| !tables.by_id.contains_key(&event.id)).cloned()
    }

    /// All of these.
    pub fn all_refused(&self) -> Vec<UsageEvent> {
        let tables = self.tables.lock();
        tables.refused.values().filter(|event| !tables.by_id.contains_key(&event.id)).cloned().collect()
    }

    pub fn sums(&self) -> BTreeMap<(TenantId, Period), Sums> {
        self.tables.lock().sums.clone()
    }

    /// What a counter must be.
    pub fn used_of(&self, counter: &CounterKey) -> u64 {
        self.tables.lock().used.get(counter).copied().unwrap_or_default()
    }

    /// What some counters must be.
    fn used(&self, counting: Counting, is_asked: impl Fn(&CounterKey) -> bool) -> Vec<(CounterKey, u64)> {
        let tables = self.tables.lock();
        let is_counted = |CounterKey { subject, metric, period, .. }: &CounterKey| {
            counting.has(subject.scope(), *metric, period.window())
        };
        let asked = tables.used.iter().filter(|(counter, _)| is_counted(counter) && is_asked(counter));
        asked.map(|(counter, used)| (counter.clone(), *used)).collect()
    }

    fn commit(&self, events: &[UsageEvent]) -> u64 {
        let mut tables = self.tables.lock();
        let mut new = 0;
        for event in events {
            let at = tables.events.len();
            if tables.by_id.contains_key(&event.id) && self.world.bug != Some(Bug::LedgerBooksAgain) {
                continue;
            }
            tables.by_id.insert(event.id, at);
            new += 1;
            for window in [Window::Day, Window::Month] {
                let sums = tables.sums.entry((event.tenant.clone(), event.period(window))).or_default();
                *sums = sums.plus(&Sums::of(event)).unwrap();
            }
            for (counter, amount) in used_by(event, Counting::ALL) {
                *tables.used.entry(counter).or_default() += amount;
            }
            tables.events.push(event.clone());
            self.units.commit(event);
        }
        self.world.mix(0xb00c ^ new);
        self.world.note(|| format!("the ledger commits {} events, {new} new", events.len()));
        new
    }
}

/// The ledger of one process.
pub struct SimLedger {
    books: Arc<Books>,
    node: Arc<Node>,
    life: u32,
}

impl SimLedger {
    /// Waits as a ledger does; says why it cannot.
    pub async fn reach(&self) -> Result<(), StoreError> {
        let node = &self.node;
        node.pause().await;
        while node.broken.ledger_silent.load(Relaxed) {
            sleep(Duration::from_millis(20)).await;
        }
        if node.broken.ledger_down.load(Relaxed) {
            node.injected("the ledger is down");
            return Err(StoreError::Unavailable("down".to_owned()));
        }
        Ok(())
    }

    /// Dies before or after `work`, or not at all. A process that is dead is not served.
    async fn commit(&self, events: &[UsageEvent]) -> u64 {
        let node = &self.node;
        let dies = node.is_time_to_die(Death::Commit);
        if dies && node.chance.per_mille(500) {
            node.die();
        }
        if !node.is_alive(self.life) {
            return std::future::pending().await;
        }
        let new = self.books.commit(events);
        if dies {
            node.die();
            return std::future::pending().await;
        }
        new
    }
}

impl UsageStore for SimLedger {
    fn append<'a>(&'a self, events: &'a [UsageEvent]) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let node = &self.node;
            self.reach().await?;
            if node.broken.poison.load(Relaxed) && events.iter().any(|event| event.kb_id.as_deref() == Some(POISON)) {
                node.injected("the ledger refuses an event");
                if let [event] = events {
                    self.books.tables.lock().refused.insert(event.id, event.clone());
                }
                return Err(StoreError::Refused("poison".to_owned()));
            }
            let new = self.commit(events).await;
            node.pause().await;
            if node.broken.acks_lost.load(Relaxed) {
                node.injected("an acknowledgement of the ledger is lost");
                return Err(StoreError::Unavailable("broken off".to_owned()));
            }
            Ok(new)
        })
    }

    fn sums<'a>(&'a self, query: &'a SumsQuery) -> BoxFuture<'a, Result<Vec<Group>, StoreError>> {
        Box::pin(async move {
            self.reach().await?;
            let tables = self.books.tables.lock();
            let of = |event: &&UsageEvent| query.tenant.as_ref().is_none_or(|tenant| event.tenant == *tenant);
            let sums = tables
                .events
                .iter()
                .filter(of)
                .fold(Sums::default(), |sums, event| sums.plus(&Sums::of(event)).unwrap());
            Ok(vec![Group { values: Vec::new(), sums }])
        })
    }

    fn events<'a>(&'a self, _: &'a EventsQuery) -> BoxFuture<'a, Result<Vec<StoredEvent>, StoreError>> {
        Box::pin(async move {
            self.reach().await?;
            Ok(Vec::new())
        })
    }

    fn event<'a>(
        &'a self,
        _: Option<&'a TenantId>,
        id: EventId,
    ) -> BoxFuture<'a, Result<Option<StoredEvent>, StoreError>> {
        Box::pin(async move {
            self.reach().await?;
            Ok(self.books.event(id).map(|event| StoredEvent { row: 0, event }))
        })
    }

    fn known<'a>(&'a self, ids: &'a [EventId]) -> BoxFuture<'a, Result<Vec<EventId>, StoreError>> {
        Box::pin(async move {
            self.reach().await?;
            let known = {
                let tables = self.books.tables.lock();
                ids.iter().filter(|id| tables.by_id.contains_key(id)).copied().collect()
            };
            // Others may commit while the answer is under way.
            self.node.pause().await;
            if self.node.chance.per_mille(100) {
                sleep(Duration::from_millis(self.node.chance.early_or_late(200))).await;
            }
            Ok(known)
        })
    }

    fn used(&self, period: Period, counting: Counting) -> BoxFuture<'_, Result<Vec<(CounterKey, u64)>, StoreError>> {
        Box::pin(async move {
            self.reach().await?;
            Ok(self.books.used(counting, |counter| counter.period == period))
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
            self.reach().await?;
            let used = self.books.used(counting, |CounterKey { tenant, period, .. }| {
                tenants.contains(tenant) && from.iter().any(|from| period.window() == from.window() && period >= from)
            });
            let tables = self.books.tables.lock();
            let known = ids.iter().filter(|id| tables.by_id.contains_key(id)).copied().collect();
            *self.node.read.lock() = tables.by_id.keys().copied().collect();
            Ok(StandingOf { used, known })
        })
    }

    fn find<'a>(&'a self, ids: &'a [EventId]) -> BoxFuture<'a, Result<Vec<StoredEvent>, StoreError>> {
        Box::pin(async move {
            self.reach().await?;
            let found = ids.iter().filter_map(|id| self.books.event(*id));
            Ok(found.map(|event| StoredEvent { row: 0, event }).collect())
        })
    }

    /// Nobody corrects here.
    fn corrections<'a>(&'a self, _: &'a [EventId]) -> BoxFuture<'a, Result<Vec<StoredEvent>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Nobody looks through this one but the model.
    fn walk<'a>(&'a self, _: &'a mut (dyn FnMut(Entry) + Send)) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.reach())
    }

    /// It keeps what it has.
    fn events_from(&self) -> BoxFuture<'_, Result<Option<Micros>, StoreError>> {
        Box::pin(async { Ok(None) })
    }

    fn old_events(&self, _: Period) -> BoxFuture<'_, Result<Vec<(Period, u64)>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn drop_events<'a>(
        &'a self,
        _: Period,
        _: &'a mut (dyn FnMut(u64) + Send),
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }

    fn ledger_id(&self) -> BoxFuture<'_, Result<String, StoreError>> {
        Box::pin(async move {
            self.reach().await?;
            Ok("simulation".to_owned())
        })
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.reach())
    }
}
