//! Units that the provider finishes later, and their bills: any node may ask for one and book it, also two at once, and it
//! is booked and counted once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tollgate::domain::event::{Outcome, UsageEvent, UsageSource};
use tollgate::domain::ids::{EventId, ProviderId, TenantId};
use tollgate::domain::time::Micros;
use tollgate::domain::unit::UnitName;
use tollgate::ports::asking::{Ask, AskError, Whose};
use tollgate::ports::sink::Sink;
use tollgate::ports::units::{DeferredUnit, Pauses, UnitStore};
use tollgate::ports::{BoxFuture, StoreError};

use super::bugs::Bug;
use super::ledger::{Books, SimLedger};
use super::node::Node;
use super::world::World;

/// A unit is finished so long after it was begun, at most.
const WORK_MAX_US: u64 = 3_000_000;

/// A unit, as everybody outside a process has it.
struct Kept {
    unit: DeferredUnit,
    is_settled: bool,
    due_us: u64,
}

/// What the provider does.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    pub prompt: u64,
    pub completion: u64,
    done_us: u64,
}

/// All units of a run.
#[derive(Default)]
pub struct Units {
    kept: Mutex<BTreeMap<UnitName, Kept>>,
    works: Mutex<BTreeMap<UnitName, Work>>,
}

pub fn name_of(number: u64) -> UnitName {
    UnitName::of("responses", &format!("resp_{number:016x}")).unwrap()
}

impl Units {
    /// The provider begins one.
    pub fn begins(&self, node: &Node, name: UnitName, (prompt, completion): (u64, u64)) {
        let done_us = node.elapsed_us() + node.chance.early_or_late(WORK_MAX_US);
        self.works.lock().insert(name, Work { prompt, completion, done_us });
    }

    /// The ledger commits an event: with it a unit comes in that it defers.
    pub fn commit(&self, event: &UsageEvent) {
        let Some(of) = event.unit.as_ref().filter(|_| event.outcome == Outcome::Deferred) else { return };
        let unit = DeferredUnit {
            provider: event.provider.clone(),
            name: of.name.clone(),
            event: event.id,
            requested_at: event.requested_at,
            utc_offset_s: event.utc_offset_s,
            tenant: event.tenant.clone(),
            key: event.key.clone(),
            user_id: event.user_id.clone(),
            kb_id: event.kb_id.clone(),
            model: event.model.clone(),
            requested_model: event.requested_model.clone(),
            endpoint: event.endpoint.clone().into_owned(),
            prompt_tokens: of.prompt_tokens,
            delivered_tokens: of.delivered_tokens,
            output_max: of.output_max,
            own_account: of.own_account,
        };
        self.kept.lock().entry(of.name.clone()).or_insert(Kept { unit, is_settled: false, due_us: 0 });
    }

    /// Units that are not settled.
    pub fn waiting(&self) -> usize {
        self.kept.lock().values().filter(|kept| !kept.is_settled).count()
    }

    /// What each unit's bill is, by the id of the call that began it; and whether it is known to be booked.
    pub fn bills(&self) -> BTreeMap<EventId, (Work, bool)> {
        let works = self.works.lock();
        let kept = self.kept.lock();
        kept.iter().map(|(name, kept)| (kept.unit.event, (works[name], kept.is_settled))).collect()
    }
}

/// The units as one node has them.
pub struct SimUnits {
    pub node: Arc<Node>,
    pub units: Arc<Units>,
    pub ledger: Arc<SimLedger>,
}

impl UnitStore for SimUnits {
    fn waiting<'a>(
        &'a self,
        _: &'a ProviderId,
        name: &'a UnitName,
    ) -> BoxFuture<'a, Result<Option<DeferredUnit>, StoreError>> {
        Box::pin(async move {
            self.ledger.reach().await?;
            let kept = self.units.kept.lock();
            Ok(kept.get(name).filter(|kept| !kept.is_settled).map(|kept| kept.unit.clone()))
        })
    }

    fn below<'a>(
        &'a self,
        _: &'a ProviderId,
        path: &'a str,
        tenant: Option<&'a TenantId>,
        units_max: u32,
    ) -> BoxFuture<'a, Result<Vec<DeferredUnit>, StoreError>> {
        Box::pin(async move {
            self.ledger.reach().await?;
            let kept = self.units.kept.lock();
            let is_below = |unit: &DeferredUnit| {
                let rest = unit.name.as_str().strip_prefix(path);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                    && tenant.is_none_or(|tenant| unit.tenant == *tenant)
            };
            let open = kept.values().filter(|kept| !kept.is_settled && is_below(&kept.unit));
            Ok(open.map(|kept| kept.unit.clone()).take(units_max as usize).collect())
        })
    }

    fn claim(&self, _: Micros, pauses: Pauses, units_max: u32) -> BoxFuture<'_, Result<Vec<DeferredUnit>, StoreError>> {
        Box::pin(async move {
            self.ledger.reach().await?;
            // By a clock that all nodes share: theirs may be minutes apart, and then one would ask alone.
            let now_us = self.node.elapsed_us();
            let next_us = now_us + u64::try_from(pauses.first.as_micros()).unwrap();
            let mut kept = self.units.kept.lock();
            let due = kept.values_mut().filter(|kept| !kept.is_settled && kept.due_us <= now_us);
            let claimed = due.take(units_max as usize).map(|kept| {
                kept.due_us = next_us;
                kept.unit.clone()
            });
            Ok(claimed.collect())
        })
    }

    fn settled<'a>(
        &'a self,
        _: &'a ProviderId,
        name: &'a UnitName,
        _: Micros,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.ledger.reach().await?;
            if let Some(kept) = self.units.kept.lock().get_mut(name) {
                kept.is_settled = true;
            }
            Ok(())
        })
    }

    fn forget(&self, _: Micros) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async { Ok(0) })
    }
}

/// The provider as one node asks it.
pub struct SimAsk {
    pub node: Arc<Node>,
    pub units: Arc<Units>,
}

impl SimAsk {
    fn answer(&self, target: &str) -> Option<String> {
        let (_, name) = target.split_once("responses/")?;
        let work = *self.units.works.lock().get(&UnitName::of("responses", name)?)?;
        let Work { prompt, completion, done_us } = work;
        let (status, usage) = if self.node.elapsed_us() < done_us {
            ("in_progress", "null".to_owned())
        } else {
            let total = prompt + completion;
            let usage = format!(r#"{{"input_tokens":{prompt},"output_tokens":{completion},"total_tokens":{total}}}"#);
            ("completed", usage)
        };
        Some(format!(
            r#"{{"id":"{name}","object":"response","background":true,"status":"{status}","model":"gpt-4o-mini","output":[],"usage":{usage}}}"#
        ))
    }
}

impl Ask for SimAsk {
    fn get<'a>(
        &'a self,
        _: Whose<'a>,
        _: &'a ProviderId,
        target: &'a str,
        see: &'a mut (dyn FnMut(&[u8]) -> bool + Send),
    ) -> BoxFuture<'a, Result<u16, AskError>> {
        Box::pin(async move {
            let (node, chance) = (&self.node, &self.node.chance);
            node.pause().await;
            if !node.is_peace() && chance.per_mille(node.setup.trouble / 2) {
                node.injected("the provider does not say how a unit stands");
                tokio::time::sleep(Duration::from_millis(chance.early_or_late(2_000))).await;
                return Err(AskError::NoAnswer);
            }
            let Some(answer) = self.answer(target) else { return Ok(404) };
            see(answer.as_bytes());
            Ok(200)
        })
    }
}

/// Counters that do not hear of bills that the ledger had already.
pub struct Deaf(pub Arc<dyn Sink>);

impl Sink for Deaf {
    fn booked(&self, events: &[UsageEvent]) {
        self.0.booked(events);
    }

    fn doubted(&self, events: &[UsageEvent]) {
        let others: Vec<UsageEvent> = events.iter().filter(|event| !event.is_bill()).cloned().collect();
        self.0.doubted(&others);
    }
}

/// How the counters of a node hear of events.
pub fn hearing(bug: Option<Bug>, counters: Arc<dyn Sink>) -> Arc<dyn Sink> {
    if bug == Some(Bug::BillsCountedTwice) { Arc::new(Deaf(counters)) } else { counters }
}

/// Each bill is that of a unit, once, and says what the provider did; and one that is known to be booked is.
pub fn verify(world: &World, books: &Books, bills: &[UsageEvent]) -> Result<(), String> {
    let expected = books.units.bills();
    let mut seen = BTreeSet::new();
    for bill in bills {
        let Some((Work { prompt, completion, .. }, _)) = expected.get(&bill.id.of_bill()) else {
            return Err(format!("a bill is booked of what nobody began: {bill:?}"));
        };
        if !seen.insert(bill.id) {
            return Err(format!("a bill is booked twice: {bill:?}"));
        }
        let cost = i128::from(*prompt) * 150_000 + i128::from(*completion) * 600_000;
        let is_right = (bill.tokens.prompt, bill.tokens.completion) == (*prompt, *completion)
            && bill.cost.is_some_and(|of| of.0 == cost)
            && bill.chats == 0;
        // By a clock that was turned on by a month the provider takes too long.
        let is_given_up = world.setup.clock_jumps && bill.source == UsageSource::Estimate;
        if !is_right && !is_given_up {
            return Err(format!("{prompt} + {completion} tokens are billed as {bill:?}"));
        }
    }
    match expected.iter().find(|(call, (_, is_settled))| *is_settled && !seen.contains(&call.of_bill())) {
        Some((call, _)) => Err(format!("the unit of call {call} is settled and not billed")),
        None => Ok(()),
    }
}
