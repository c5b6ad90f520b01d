//! Shared counters in the memory of one process: the model that other stores of them are compared with, and what tests of
//! several gateways in one process share.
//!
//! May use: `domain`, `ports`. Written to be read beside [`crate::ports::shared`], not to be fast: one lock, plain maps.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::ready;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::counting::Counting;
use crate::domain::ids::{EventId, TenantId};
use crate::domain::time::{Period, Window};
use crate::ports::BoxFuture;
use crate::ports::clock::Clock;
use crate::ports::counters::{Claim, CounterKey, CountersUnavailable};
use crate::ports::shared::{
    Ask, Beat, CallState, ClaimError, Count, Epoch, Finish, Floors, Held, Joined, Joining, Listing, Look, Member,
    NodeId, Note, Noted, Noting, Part, Peer, Pulse, SharedCounters, WANTED_FOR, WANTED_MAX, Wanted,
};

/// Nodes that were not heard of for so long are forgotten.
const QUIET_MAX_US: u64 = 60_000_000;

/// So many months and days with a counter are kept.
const PERIODS_KEPT: usize = 3;

/// Whoever may finish a tenant has so long.
const FINISH_US: u64 = 1_000_000;

/// Shared counters that are lost when the process ends, or when a test says so. Time is that of its clock.
pub struct MemoryShared {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ledger: Option<String>,
    tenants: HashMap<TenantId, Tenant>,
    known_since_us: Option<u64>,
    peers: HashMap<NodeId, Known>,
    wanted: BTreeMap<(TenantId, Wanted), u64>,
}

struct Known {
    life: u64,
    heard_us: u64,
    revision: i64,
}

struct Tenant {
    epoch: Epoch,
    is_open: bool,
    floors: Floors,
    revision: i64,
    joins: u64,
    members: HashMap<NodeId, u64>,
    calls: BTreeMap<EventId, Call>,
    leases: HashMap<NodeId, Lease>,
    booked: HashMap<CounterKey, u64>,
    /// Counters that were spoken of since it was opened, and their periods.
    seen: HashSet<CounterKey>,
    periods: BTreeSet<Period>,
    /// What all nodes that are a part of it count, and what any does.
    /// `None` while nobody has counted anything.
    by_all: Option<Counting>,
    by_any: Counting,
    /// Who writes sums, and which.
    writing: Option<(u64, HashMap<CounterKey, u64>)>,
    finisher: Option<(NodeId, u64)>,
}

struct Call {
    node: NodeId,
    state: CallState,
    amounts: Vec<(CounterKey, u64)>,
}

struct Lease {
    units: u64,
    until_us: u64,
    counters: Vec<CounterKey>,
}

impl MemoryShared {
    /// Nothing is known yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default() }
    }

    /// Everything is lost, as after a FLUSHALL.
    pub fn forget(&self) {
        *self.state.lock() = State::default();
    }

    /// One tenant is lost, as after an eviction.
    pub fn forget_tenant(&self, tenant: &TenantId) {
        self.state.lock().tenants.remove(tenant);
    }

    fn done<T: Send + 'static, E: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State, u64) -> T,
    ) -> BoxFuture<'_, Result<T, E>> {
        let now_us = self.clock.monotonic_us();
        let outcome = work(&mut self.state.lock(), now_us);
        Box::pin(ready(Ok(outcome)))
    }
}

impl SharedCounters for MemoryShared {
    fn claim<'a>(&'a self, ledger_id: &'a str) -> BoxFuture<'a, Result<(), ClaimError>> {
        let mut state = self.state.lock();
        let owner = state.ledger.get_or_insert_with(|| ledger_id.to_owned());
        let is_own = owner == ledger_id;
        let unfit = || ClaimError::Unfit("these counters are of another ledger".to_owned());
        Box::pin(ready(if is_own { Ok(()) } else { Err(unfit()) }))
    }

    fn hold<'a>(&'a self, ask: &'a Ask<'a>) -> BoxFuture<'a, Result<Held, CountersUnavailable>> {
        self.done(|state, now_us| match state.tenants.get_mut(ask.tenant) {
            Some(tenant) => tenant.hold(ask, now_us),
            None => Held::Unjoined,
        })
    }

    fn note<'a>(&'a self, noting: &'a Noting<'a>) -> BoxFuture<'a, Result<Noted, CountersUnavailable>> {
        let Noting { member: Member { node, life }, tenant, epoch, notes, lease_left, .. } = *noting;
        let is_part = move |tenant: &&mut Tenant| tenant.epoch == epoch && tenant.members.get(&node) == Some(&life);
        self.done(move |state, _| match state.tenants.get_mut(tenant).filter(is_part) {
            Some(tenant) => {
                notes.iter().for_each(|note| tenant.note(node, note));
                if let Some(left) = lease_left {
                    tenant.shrink_lease(node, left);
                }
                Noted::Done
            }
            None => Noted::Unjoined,
        })
    }

    fn join<'a>(&'a self, joining: &'a Joining<'a>) -> BoxFuture<'a, Result<Joined, CountersUnavailable>> {
        self.done(|state, _| {
            if !joining.is_first {
                return state.tenants.get_mut(joining.tenant).map_or(Joined::Moved, |tenant| tenant.join_on(joining));
            }
            let begun = || Tenant::building(joining.epoch, joining.floors);
            state.tenants.entry(joining.tenant.clone()).or_insert_with(begun).join(joining)
        })
    }

    fn look<'a>(&'a self, node: NodeId, tenant: &'a TenantId) -> BoxFuture<'a, Result<Look, CountersUnavailable>> {
        self.done(|state, now_us| match state.tenants.get_mut(tenant) {
            Some(tenant) => tenant.look(node, now_us),
            None => Look::Unknown,
        })
    }

    fn sums<'a>(&'a self, part: &'a Part<'a>) -> BoxFuture<'a, Result<bool, CountersUnavailable>> {
        self.done(|state, now_us| state.tenants.get_mut(part.tenant).is_some_and(|tenant| tenant.sums(part, now_us)))
    }

    fn finish<'a>(&'a self, finish: &'a Finish<'a>) -> BoxFuture<'a, Result<bool, CountersUnavailable>> {
        self.done(|state, _| state.tenants.get_mut(finish.tenant).is_some_and(|tenant| tenant.finish(finish)))
    }

    fn read<'a>(
        &'a self,
        tenant: &'a TenantId,
        counters: &'a [CounterKey],
    ) -> BoxFuture<'a, Result<Option<Vec<Count>>, CountersUnavailable>> {
        self.done(|state, _| {
            let tenant = state.tenants.get(tenant).filter(|tenant| tenant.is_open)?;
            let count = |counter: &CounterKey| (!tenant.is_below_floors(counter)).then(|| tenant.count(counter));
            counters.iter().map(count).collect()
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<(CounterKey, Count)>, CountersUnavailable>> {
        self.done(|state, _| state.tenants.values().filter(|tenant| tenant.is_open).flat_map(Tenant::list).collect())
    }

    fn changed<'a>(
        &'a self,
        tenant: &'a TenantId,
        revision: i64,
        _: std::time::Duration,
    ) -> BoxFuture<'a, Result<(), CountersUnavailable>> {
        self.done(|state, _| {
            if let Some(tenant) = state.tenants.get_mut(tenant) {
                tenant.revision = tenant.revision.max(revision);
            }
        })
    }

    fn beat<'a>(&'a self, beat: &'a Beat<'a>) -> BoxFuture<'a, Result<Pulse, CountersUnavailable>> {
        self.done(|state, now_us| state.beat(beat, now_us))
    }
}

impl State {
    fn beat(&mut self, beat: &Beat<'_>, now_us: u64) -> Pulse {
        let Member { node, life } = beat.member;
        let since = *self.known_since_us.get_or_insert(now_us);
        self.peers.insert(node, Known { life, heard_us: now_us, revision: beat.revision });
        if beat.is_last {
            self.peers.remove(&node);
        }
        self.peers.retain(|_, known| now_us.saturating_sub(known.heard_us) <= QUIET_MAX_US);
        let until_us = now_us.saturating_add(u64::try_from(WANTED_FOR.as_micros()).unwrap_or(u64::MAX));
        self.wanted.extend(beat.wanted.iter().map(|wish| (wish.clone(), until_us)));
        self.wanted.retain(|_, until_us| *until_us > now_us);
        for done in beat.done {
            self.wanted.remove(done);
        }
        let peer = |(node, known): (&NodeId, &Known)| Peer {
            member: Member { node: *node, life: known.life },
            quiet_ms: now_us.saturating_sub(known.heard_us) / 1_000,
            revision: known.revision,
        };
        Pulse {
            known_for_ms: now_us.saturating_sub(since) / 1_000,
            peers: self.peers.iter().map(peer).collect(),
            wanted: self.wanted.keys().take(WANTED_MAX).cloned().collect(),
        }
    }
}

impl Tenant {
    fn building(epoch: Epoch, floors: Floors) -> Self {
        Self {
            epoch,
            is_open: false,
            floors,
            revision: 0,
            joins: 0,
            members: HashMap::new(),
            calls: BTreeMap::new(),
            leases: HashMap::new(),
            booked: HashMap::new(),
            seen: HashSet::new(),
            periods: BTreeSet::new(),
            by_all: None,
            by_any: Counting::default(),
            writing: None,
            finisher: None,
        }
    }

    fn count(&self, counter: &CounterKey) -> Count {
        let sum = |state: CallState| {
            let of_state = self.calls.values().filter(|call| call.state == state);
            let amounts = of_state.flat_map(|call| &call.amounts).filter(|(key, _)| key == counter);
            amounts.fold(0, |sum: u64, (_, amount)| sum.saturating_add(*amount))
        };
        Count {
            booked: self.booked.get(counter).copied().unwrap_or_default(),
            settled: sum(CallState::Settled),
            held: sum(CallState::Held),
            leased: self
                .leases
                .values()
                .filter(|lease| lease.counters.contains(counter))
                .map(|lease| lease.units)
                .sum(),
        }
    }

    fn list(&self) -> Vec<(CounterKey, Count)> {
        let of_calls = self.calls.values().flat_map(|call| call.amounts.iter().map(|(key, _)| key));
        let of_leases = self.leases.values().flat_map(|lease| &lease.counters);
        let keys: HashSet<&CounterKey> = self.booked.keys().chain(of_calls).chain(of_leases).collect();
        let known = keys.into_iter().filter(|key| !self.is_below_floors(key));
        known.map(|key| (key.clone(), self.count(key))).collect()
    }

    fn is_listed(&self, node: NodeId) -> bool {
        self.calls.values().any(|call| call.node == node)
    }

    fn hold(&mut self, ask: &Ask<'_>, now_us: u64) -> Held {
        if !self.is_open {
            return Held::Building;
        }
        let Member { node, life } = ask.member;
        if self.members.get(&node) != Some(&life) {
            if !ask.is_alone || self.is_listed(node) || !self.is_counted(ask.counting) {
                return Held::Unjoined;
            }
            self.counts(ask.member, ask.counting);
            self.leases.remove(&node);
        }
        if self.revision > ask.revision {
            return Held::Behind { revision: self.revision };
        }
        let counts = |tenant: &Self| ask.claims.iter().map(|claim| tenant.count(&claim.counter)).collect();
        if self.calls.contains_key(&ask.id) {
            let is_below = |claim: &Claim| self.is_below_floors(&claim.counter);
            let count = |claim| if is_below(claim) { Count::default() } else { self.count(&claim.counter) };
            return Held::Taken { epoch: self.epoch, counts: ask.claims.iter().map(count).collect(), leased: 0 };
        }
        if ask.claims.iter().any(|claim| self.is_below_floors(&claim.counter)) {
            return Held::Unjoined;
        }
        if self.lacking(ask.claims).is_some() {
            self.leases.retain(|_, lease| lease.until_us > now_us);
        }
        if let Some((claim, is_full)) = self.lacking(ask.claims) {
            let count = ask.claims.get(claim).map(|claim| self.count(&claim.counter)).unwrap_or_default();
            return if is_full { Held::Full { claim, count } } else { Held::Leased { claim, count } };
        }
        let amounts = ask.claims.iter().map(|claim| (claim.counter.clone(), claim.amount)).collect();
        self.calls.insert(ask.id, Call { node, state: CallState::Held, amounts });
        let are_seen = ask.claims.iter().filter(|claim| !self.see(&claim.counter)).count();
        if are_seen < ask.claims.len() {
            self.sweep();
        }
        let leased = self.lease(ask, now_us);
        Held::Taken { epoch: self.epoch, counts: counts(self), leased }
    }

    fn sweep(&mut self) {
        let third_newest = |window: Window| {
            let periods = self.periods.iter().rev().copied();
            periods.filter(|period| period.window() == window).nth(PERIODS_KEPT - 1)
        };
        let [month, day] = [Window::Month, Window::Day].map(third_newest);
        let floors = Floors { month: month.unwrap_or(self.floors.month), day: day.unwrap_or(self.floors.day) };
        let is_idle = |counter: &CounterKey| {
            let Count { settled, held, leased, .. } = self.count(counter);
            (settled, held, leased) == (0, 0, 0)
        };
        let gone: Vec<CounterKey> =
            self.seen.iter().filter(|counter| floors.are_above(counter) && is_idle(counter)).cloned().collect();
        for counter in gone {
            self.booked.remove(&counter);
            self.seen.remove(&counter);
        }
        let Floors { month, day } = self.floors;
        self.floors = Floors { month: month.max(floors.month), day: day.max(floors.day) };
    }

    /// A counter is spoken of. Whether it is for the first time.
    fn see(&mut self, counter: &CounterKey) -> bool {
        self.periods.insert(counter.period);
        self.seen.insert(counter.clone())
    }

    /// Whether all of this was counted by everybody since it was opened, and by somebody: what nobody counts is not summed.
    fn is_counted(&self, counting: Counting) -> bool {
        self.by_all.is_some_and(|by_all| by_all.contains(counting))
    }

    /// A member is a part of it, and counts so much.
    fn counts(&mut self, member: Member, counting: Counting) {
        self.members.insert(member.node, member.life);
        self.by_all = Some(self.by_all.unwrap_or(counting) & counting);
        self.by_any = self.by_any | counting;
    }

    fn is_below_floors(&self, counter: &CounterKey) -> bool {
        self.floors.are_above(counter)
    }

    /// The first claim that does not fit, and whether it would not without leases either.
    fn lacking(&self, claims: &[Claim]) -> Option<(usize, bool)> {
        claims.iter().enumerate().find_map(|(at, claim)| {
            let max = claim.max?;
            let Count { booked, settled, held, leased } = self.count(&claim.counter);
            let taken = booked.saturating_add(settled).saturating_add(held).saturating_add(claim.amount);
            (taken.saturating_add(leased) > max).then_some((at, taken > max))
        })
    }

    fn lease(&mut self, ask: &Ask<'_>, now_us: u64) -> u64 {
        let Some(wish) = ask.lease.filter(|_| ask.claims.iter().all(|claim| claim.amount == 1)) else { return 0 };
        self.shrink_lease(ask.member.node, wish.left);
        let left = |claim: &Claim| {
            let Count { booked, settled, held, leased } = self.count(&claim.counter);
            let taken = booked.saturating_add(settled).saturating_add(held).saturating_add(leased);
            claim.max.map(|max| max.saturating_sub(taken))
        };
        let least = ask.claims.iter().filter_map(left).min();
        let units = least.map_or(wish.units_max, |left| (left / wish.parts.max(1)).min(wish.units_max));
        let counters: Vec<CounterKey> = ask.claims.iter().map(|claim| claim.counter.clone()).collect();
        let until_us = now_us.saturating_add(u64::try_from(wish.lasts.as_micros()).unwrap_or(u64::MAX));
        match self.leases.get_mut(&ask.member.node) {
            Some(lease) if lease.units > 0 && lease.counters != counters => 0,
            _ if units == 0 => 0,
            Some(lease) => {
                *lease = Lease { units: lease.units.saturating_add(units), until_us, counters };
                units
            }
            None => {
                self.leases.insert(ask.member.node, Lease { units, until_us, counters });
                units
            }
        }
    }

    fn shrink_lease(&mut self, node: NodeId, left: u64) {
        if let Some(lease) = self.leases.get_mut(&node) {
            lease.units = lease.units.min(left);
        }
    }

    fn note(&mut self, node: NodeId, note: &Note) {
        if self.is_open && (note.listing != Listing::Known || self.calls.contains_key(&note.id)) {
            let before = self.calls.get(&note.id).map_or(&[][..], |call| &call.amounts);
            let after = if note.state == CallState::Gone { &[][..] } else { &note.amounts };
            let spoken_of: Vec<CounterKey> = before.iter().chain(after).map(|(counter, _)| counter.clone()).collect();
            for counter in &spoken_of {
                self.see(counter);
            }
        }
        if !self.calls.contains_key(&note.id) {
            if note.listing == Listing::Known {
                return;
            }
            if let Some(lease) = self.leases.get_mut(&node).filter(|_| note.listing == Listing::FromLease) {
                lease.units = lease.units.saturating_sub(1);
            }
        }
        match note.state {
            CallState::Gone => {
                self.calls.remove(&note.id);
            }
            CallState::Booked if self.is_open => {
                self.calls.remove(&note.id);
                for (key, amount) in &note.amounts {
                    let booked = self.booked.entry(key.clone()).or_default();
                    *booked = booked.saturating_add(*amount);
                }
            }
            state => {
                self.calls.insert(note.id, Call { node, state, amounts: note.amounts.clone() });
            }
        }
    }

    /// With its first calls.
    fn join(&mut self, joining: &Joining<'_>) -> Joined {
        let Member { node, life } = joining.member;
        if !joining.is_forced {
            match (self.members.get(&node) == Some(&life), self.is_open) {
                (true, true) => return Joined::Open(self.epoch),
                (true, false) => return Joined::Building(self.epoch),
                (false, true)
                    if joining.calls.is_empty()
                        && joining.is_last
                        && !self.is_listed(node)
                        && self.is_counted(joining.counting) =>
                {
                    self.counts(joining.member, joining.counting);
                    self.leases.remove(&node);
                    return Joined::Open(self.epoch);
                }
                (false, _) => {}
            }
        }
        if self.is_open {
            let Floors { month, day } = joining.floors;
            let floors = Floors { month: month.min(self.floors.month), day: day.min(self.floors.day) };
            let calls = std::mem::take(&mut self.calls);
            *self = Self { calls, revision: self.revision, ..Self::building(joining.epoch, floors) };
        }
        self.calls.retain(|_, call| call.node != node);
        self.members.remove(&node);
        self.join_with(joining)
    }

    /// With others than the first.
    fn join_on(&mut self, joining: &Joining<'_>) -> Joined {
        if self.is_open || self.epoch != joining.epoch {
            return Joined::Moved;
        }
        self.join_with(joining)
    }

    fn join_with(&mut self, joining: &Joining<'_>) -> Joined {
        let Member { node, .. } = joining.member;
        for Note { id, state, amounts, .. } in joining.calls {
            self.calls.insert(*id, Call { node, state: *state, amounts: amounts.clone() });
        }
        if joining.is_last {
            self.counts(joining.member, joining.counting);
        }
        self.joins = self.joins.saturating_add(1);
        Joined::Building(self.epoch)
    }

    fn look(&mut self, node: NodeId, now_us: u64) -> Look {
        if self.is_open {
            return Look::Open(self.epoch);
        }
        match self.finisher {
            Some((finisher, until_us)) if until_us > now_us => {
                if finisher != node {
                    return Look::Busy { is_joined: self.members.contains_key(&node) };
                }
            }
            _ => self.finisher = Some((node, now_us.saturating_add(FINISH_US))),
        }
        Look::Building {
            epoch: self.epoch,
            joins: self.joins,
            joined: self.members.keys().copied().collect(),
            calls: self.calls.keys().copied().collect(),
            floors: self.floors,
            counting: self.by_any,
        }
    }

    fn sums(&mut self, part: &Part<'_>, now_us: u64) -> bool {
        let writes_on = self.writing.as_ref().is_some_and(|(writer, _)| *writer == part.writer);
        let is_right = !self.is_open && self.epoch == part.epoch && self.joins == part.joins;
        if !is_right || !(part.is_first || writes_on) {
            return false;
        }
        // Whoever looks leaves it to the one that finishes it for as long as sums come.
        self.finisher = self.finisher.map(|(finisher, _)| (finisher, now_us.saturating_add(FINISH_US)));
        let sums = self.writing.take().filter(|_| writes_on).map(|(_, sums)| sums).unwrap_or_default();
        self.writing = Some((part.writer, sums.into_iter().chain(part.sums.iter().cloned()).collect()));
        self.periods.extend(part.sums.iter().map(|(counter, _)| counter.period));
        true
    }

    fn finish(&mut self, finish: &Finish<'_>) -> bool {
        let writes = self.writing.as_ref().map(|(writer, _)| *writer);
        let is_right = !self.is_open && self.epoch == finish.epoch && self.joins == finish.joins;
        if !is_right || finish.writer.is_some_and(|writer| writes != Some(writer)) {
            return false;
        }
        let written = self.writing.take().filter(|_| finish.writer.is_some()).map(|(_, sums)| sums);
        self.booked = written.into_iter().flatten().chain(finish.sums.iter().cloned()).collect();
        for id in finish.known {
            self.calls.remove(id);
        }
        for call in self.calls.values().filter(|call| call.state == CallState::Booked) {
            for (key, amount) in &call.amounts {
                let booked = self.booked.entry(key.clone()).or_default();
                *booked = booked.saturating_add(*amount);
            }
        }
        let of_calls = self.calls.values().flat_map(|call| &call.amounts).map(|(counter, _)| counter);
        self.seen = of_calls.chain(self.booked.keys()).cloned().collect();
        self.periods.extend(self.seen.iter().map(|counter| counter.period));
        self.calls.retain(|_, call| call.state != CallState::Booked);
        (self.is_open, self.finisher) = (true, None);
        true
    }
}
