//! The small ports of a simulated process: its clock, its counters, and who hears of what was booked.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;
use tollgate::adapters::memory_counters::MemoryCounters;
use tollgate::domain::event::UsageEvent;
use tollgate::domain::ids::{EventId, TenantId};
use tollgate::domain::plan::Standing;
use tollgate::domain::time::Micros;
use tollgate::ports::BoxFuture;
use tollgate::ports::clock::Clock;
use tollgate::ports::counters::{
    Claim, Counted, CounterKey, CounterStore, CountersHealth, CountersUnavailable, HoldOutcome, Terms,
};
use tollgate::ports::sink::Sink;

use super::bugs::Bug;
use super::ledger::POISON;
use super::node::Node;

/// The clocks of a node. It tells the model which call got which id.
pub struct SimClock(pub Arc<Node>);

impl Clock for SimClock {
    fn now(&self) -> Micros {
        self.0.wall_clock()
    }

    fn monotonic_us(&self) -> u64 {
        // From another beginning than those of others.
        self.0.elapsed_us() + self.0.number as u64 * 1_000_000
    }

    fn random(&self) -> u128 {
        u128::from(self.0.chance.next()) << 64 | u128::from(self.0.chance.next())
    }

    fn event_id(&self) -> EventId {
        let id = EventId::new(self.now().unix_ms(), self.random());
        if let Some(call) = self.0.calling() {
            self.0.model.lock().is_named(call, id, self.now());
        }
        id
    }
}

/// The real counters of one process, which may be slow and away.
pub struct SimCounters {
    pub node: Arc<Node>,
    pub inner: MemoryCounters,
}

impl CounterStore for SimCounters {
    fn hold<'a>(
        &'a self,
        id: EventId,
        claims: &'a [Claim],
        terms: Terms,
    ) -> BoxFuture<'a, Result<HoldOutcome, CountersUnavailable>> {
        Box::pin(async move {
            self.node.pause().await;
            if self.node.broken.counters.load(Relaxed) {
                self.node.injected("the counters are away");
                return Err(CountersUnavailable("away".to_owned()));
            }
            self.inner.hold(id, claims, terms).await
        })
    }

    fn settle(&self, id: EventId, claims: &[Claim], used: &[(CounterKey, u64)]) {
        let is_given_back = used.iter().all(|(_, used)| *used == 0);
        if self.node.bug == Some(Bug::HoldForgotten) && is_given_back {
            return;
        }
        self.inner.settle(id, claims, used);
    }

    fn read<'a>(&'a self, counters: &'a [CounterKey]) -> BoxFuture<'a, Result<Vec<Standing>, CountersUnavailable>> {
        self.inner.read(counters)
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Counted>, CountersUnavailable>> {
        self.inner.list()
    }

    fn seed<'a>(&'a self, counters: &'a [(CounterKey, u64)]) -> BoxFuture<'a, Result<(), CountersUnavailable>> {
        match self.node.bug {
            Some(Bug::CountersFromZero) => Box::pin(async { Ok(()) }),
            _ => self.inner.seed(counters),
        }
    }

    fn changed<'a>(&'a self, tenant: &'a TenantId, revision: i64) -> BoxFuture<'a, ()> {
        self.inner.changed(tenant, revision)
    }

    fn health(&self) -> CountersHealth {
        self.inner.health()
    }
}

/// Hears of each event once in a life, unless the journal has it twice: after a sync that failed, or after a start that
/// was killed while it took an event out of quarantine.
pub struct SimSink {
    pub node: Arc<Node>,
    pub heard: Mutex<HashSet<EventId>>,
}

impl Sink for SimSink {
    fn booked(&self, events: &[UsageEvent]) {
        for event in events {
            let may_come_again = self.node.setup.disk_fails || event.kb_id.as_deref() == Some(POISON);
            if !self.heard.lock().insert(event.id) && !may_come_again {
                self.node.fail(format!("a sink hears of {} twice", event.id));
            }
        }
    }
}
