//! The small ports of a simulated process: its clock, its counters, and who hears of what was booked.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;
use tollgate::adapters::memory_counters::MemoryCounters;
use tollgate::domain::event::UsageEvent;
use tollgate::domain::ids::{EventId, TenantId};
use tollgate::domain::plan::{Metric, Standing, Subject};
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
            let held = match self.node.bug {
                Some(Bug::MoneyNotHeld) => self.inner.hold(id, &without_money(claims), terms).await?,
                _ => self.inner.hold(id, claims, terms).await?,
            };
            if let HoldOutcome::Held(standings) = &held {
                let full = claims.iter().zip(standings).find(|(claim, standing)| {
                    claim.counter.metric != Metric::Chats
                        && claim.max.is_some_and(|max| standing.used + standing.held > max)
                });
                if let Some(full) = full {
                    self.node.fail(format!("call {id} is taken beyond a limit: {full:?}"));
                }
                let taken = self.node.model.lock().has_taken(id, claims);
                taken.unwrap_or_else(|wrong| self.node.fail(wrong));
            }
            Ok(held)
        })
    }

    fn settle(&self, id: EventId, claims: &[Claim], used: &[(CounterKey, u64)]) {
        let is_given_back = used.iter().all(|(_, used)| *used == 0);
        if self.node.bug == Some(Bug::HoldForgotten) && is_given_back {
            return;
        }
        let claimed = |counter: &CounterKey| claims.iter().find(|claim| claim.counter == *counter);
        let used: Vec<_> = match self.node.bug {
            Some(Bug::DifferenceIsKept) => {
                let kept = used
                    .iter()
                    .map(|(counter, used)| (counter.clone(), claimed(counter).map_or(*used, |claim| claim.amount)));
                kept.collect()
            }
            Some(Bug::UsersNotCounted) => {
                used.iter().filter(|(counter, _)| counter.subject == Subject::Tenant).cloned().collect()
            }
            _ => used.to_vec(),
        };
        self.inner.settle(id, claims, &used);
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

/// The same claims, of nothing but chats.
pub fn without_money(claims: &[Claim]) -> Vec<Claim> {
    let of = |claim: &Claim| match claim.counter.metric {
        Metric::Chats => claim.clone(),
        Metric::Tokens | Metric::Cost => Claim { amount: 0, ..claim.clone() },
    };
    claims.iter().map(of).collect()
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
