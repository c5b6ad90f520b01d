//! Builds counters that the shared store has lost: every node lists its calls, one reads the ledger.
//!
//! May use: `domain`, `ports`.
//!
//! The order is what makes it exact. First all nodes list their calls, then the ledger is read, in one snapshot: its sums
//! and which of the listed calls are in them. A call that was booked before the snapshot is in the sums and known; one that is
//! booked after it is listed and not known. So each counts once, whenever it was booked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::domain::counting::Counting;
use crate::domain::ids::{EventId, TenantId};
use crate::ports::counters::CounterKey;
use crate::ports::shared::{Epoch, Finish, Floors, Joined, Joining, Look, NodeId, Note, Part, Wanted};
use crate::ports::usage::StandingOf;

use super::NodeCounters;
use super::beating::LIVE_FOR;
use super::local::micros;

/// Between two looks at what is in building.
const STEP: Duration = Duration::from_millis(20);

/// A message has so long.
const WITHIN: Duration = Duration::from_millis(500);

/// Calls listed in one message: some 60 kB.
const CALLS_MAX: usize = 500;

/// Sums in one message: some milliseconds of the store's time.
const SUMS_MAX: usize = 2_000;

/// Tenants at once: what they list is in memory together.
const TENANTS_MAX: usize = 64;

/// Calls that the ledger is asked about at once.
const IDS_MAX: usize = 5_000;

/// After this the ledger is asked again.
const LEDGER_MAX: Duration = Duration::from_secs(3);

/// All tenants are listed within this: a million of them.
const LIST_MAX: Duration = Duration::from_secs(60);

/// Between two attempts to see which tenants there are.
const LIST_AGAIN: Duration = Duration::from_secs(1);

/// A tenant that is not open after so long is given up, until somebody wants it again.
const GIVEN_UP_US: u64 = 30_000_000;

/// The nodes are asked again for a tenant that is still in building after this, and those that nobody asks see it through,
/// too: whoever wanted it may be gone, or may not reach the ledger.
const ASK_AGAIN_US: u64 = 1_000_000;

/// A node that could not read the ledger leaves it to others for so long.
const LEDGER_AGAIN_US: u64 = 2_000_000;

/// How long after the first signs of life this node looks again for calls of its earlier life: what was in building then,
/// by somebody who did not know of this node yet, is open.
const OUTLIVE_AGAIN: Duration = Duration::from_secs(5);

/// Tenants in building, as far as this node has to do with them.
#[derive(Default)]
pub(super) struct Buildings {
    all: Mutex<BTreeMap<TenantId, Building>>,
    news: Notify,
}

#[derive(Debug, Clone, Copy, Default)]
struct Building {
    /// Somebody here waits for it: this node sees it through.
    is_wanted: bool,
    /// It is open and has to be built all the same.
    is_forced: bool,
    /// The build that another node wants this one to join.
    wished: Option<Epoch>,
    began_us: u64,
    asked_us: u64,
    /// Since when this node is a part of it.
    joined_us: u64,
    /// It is left to others until then.
    others_until_us: u64,
}

impl Building {
    /// Whether this node is to look how far it is.
    fn is_due(&self, now_us: u64) -> bool {
        let waits = now_us.saturating_sub(self.joined_us) >= ASK_AGAIN_US;
        self.joined_us > 0 && (self.is_wanted || waits) && self.others_until_us <= now_us
    }
}

/// A tenant that all have joined.
struct Ready {
    tenant: TenantId,
    epoch: Epoch,
    joins: u64,
    calls: Vec<EventId>,
    floors: Floors,
    counting: Counting,
}

impl Buildings {
    /// Somebody waits for a tenant. `is_forced`: this node is a part of it, and yet it cannot be used as it is.
    pub(super) fn want(&self, tenant: &TenantId, is_forced: bool) {
        let mut all = self.all.lock();
        let building = all.entry(tenant.clone()).or_default();
        building.is_wanted = true;
        building.is_forced |= is_forced;
        drop(all);
        self.news.notify_waiters();
    }

    /// Another node builds a tenant: this one joins, also if it has joined an earlier build and not heard the end of that.
    pub(super) fn help(&self, tenant: &TenantId, epoch: Epoch) {
        let mut all = self.all.lock();
        let building = all.entry(tenant.clone()).or_default();
        (building.wished, building.joined_us) = (Some(epoch), 0);
        drop(all);
        self.news.notify_waiters();
    }

    /// How many.
    pub(super) fn count(&self) -> u64 {
        u64::try_from(self.all.lock().len()).unwrap_or(u64::MAX)
    }

    /// Some of a kind, the oldest first.
    fn some(&self, now_us: u64, is_some: impl Fn(&Building) -> bool) -> Vec<(TenantId, Building)> {
        let mut all = self.all.lock();
        for building in all.values_mut().filter(|building| building.began_us == 0) {
            building.began_us = now_us;
        }
        all.retain(|_, building| now_us.saturating_sub(building.began_us) < GIVEN_UP_US);
        let of_kind = all.iter().filter(|(_, building)| is_some(building));
        let mut some: Vec<_> = of_kind.map(|(tenant, building)| (tenant.clone(), *building)).collect();
        some.sort_by_key(|(_, building)| building.began_us);
        some.truncate(TENANTS_MAX);
        some
    }

    fn change(&self, tenant: &TenantId, change: impl FnOnce(&mut Building)) {
        if let Some(building) = self.all.lock().get_mut(tenant) {
            change(building);
        }
    }

    fn joins_again(&self, tenant: &TenantId) {
        self.change(tenant, |building| building.joined_us = 0);
        self.news.notify_waiters();
    }

    fn is_over(&self, tenant: &TenantId) {
        self.all.lock().remove(tenant);
    }
}

impl NodeCounters {
    /// Has the store let go of calls that an earlier life of this node was being given when it was killed: its journal does
    /// not have them, so nobody else ends them. A tenant that lists such calls is built anew when this life joins.
    /// One that lists none stays as it is.
    pub(super) async fn outlive(&self) {
        let mut heard = self.heard.subscribe();
        // The sender is a part of these counters.
        drop(heard.wait_for(|heard| heard.sent_us > 0).await);
        self.join_listed().await;
        sleep(OUTLIVE_AGAIN).await;
        self.join_listed().await;
    }

    async fn join_listed(&self) {
        loop {
            if let Ok(Ok(counted)) = timeout(LIST_MAX, self.outside.shared.list()).await {
                let listing = counted.iter().filter(|(_, count)| count.held > 0 || count.settled > 0);
                let tenants: HashSet<&TenantId> = listing.map(|(counter, _)| &counter.tenant).collect();
                let others = tenants.into_iter().filter(|tenant| self.with(tenant, |local| local.must_join()));
                others.for_each(|tenant| self.buildings.want(tenant, false));
                return;
            }
            sleep(LIST_AGAIN).await;
        }
    }

    /// Joins tenants that somebody wants built.
    pub(super) async fn join_all(&self) {
        loop {
            let some = self.some_buildings(|building, _| building.joined_us == 0).await;
            let mut steps = Vec::new();
            for (tenant, building) in &some {
                steps.push(self.join_step(tenant, *building));
            }
            join_all(steps).await;
            sleep(STEP).await;
        }
    }

    /// Sees tenants through that somebody here waits for. Beside the joins: the ledger may take its time.
    pub(super) async fn finish_all(&self) {
        loop {
            let some = self.some_buildings(Building::is_due).await;
            let mut steps = Vec::new();
            for (tenant, building) in &some {
                steps.push(self.finish_step(tenant, *building));
            }
            let ready: Vec<Ready> = join_all(steps).await.into_iter().flatten().collect();
            self.finish_ready(ready).await;
            sleep(STEP).await;
        }
    }

    /// Waits until there are some of a kind, and the store answers.
    async fn some_buildings(&self, is_some: impl Fn(&Building, u64) -> bool) -> Vec<(TenantId, Building)> {
        loop {
            let now_us = self.now_us();
            let news = self.buildings.news.notified();
            let mut news = std::pin::pin!(news);
            news.as_mut().enable();
            let some = self.buildings.some(now_us, |building| is_some(building, now_us));
            if self.is_down.load(Ordering::Relaxed) {
                sleep(STEP).await;
            } else if some.is_empty() {
                // Time makes some due, too.
                timeout(Duration::from_micros(ASK_AGAIN_US), news).await.unwrap_or_default();
            } else {
                return some;
            }
        }
    }

    async fn join_step(&self, tenant: &TenantId, building: Building) {
        match self.join(tenant, building.is_forced).await {
            Some(Joined::Open(epoch)) => {
                self.forget_wish(tenant, building.wished, epoch);
                self.is_open(tenant, building, epoch);
            }
            Some(Joined::Building(epoch)) => {
                self.forget_wish(tenant, building.wished, epoch);
                let now_us = self.now_us();
                self.buildings.change(tenant, |building| {
                    (building.joined_us, building.asked_us, building.is_forced) = (now_us, now_us, false);
                });
                self.buildings.news.notify_waiters();
                self.wishes.lock().is_wanted(tenant, Wanted::Join(epoch));
                self.hurry.notify_one();
            }
            // Again with the next step.
            Some(Joined::Moved) | None => {}
        }
    }

    /// What another node wanted is over if the tenant is built, or open, under another epoch.
    fn forget_wish(&self, tenant: &TenantId, wished: Option<Epoch>, epoch: Epoch) {
        if let Some(wished) = wished.filter(|wished| *wished != epoch) {
            self.wishes.lock().is_done(tenant, Wanted::Join(wished));
        }
    }

    /// Looks how far a tenant is. Gives it when this node is to finish it.
    async fn finish_step(&self, tenant: &TenantId, building: Building) -> Option<Ready> {
        match timeout(WITHIN, self.outside.shared.look(self.options.member.node, tenant)).await {
            Ok(Ok(Look::Open(epoch))) => self.is_open(tenant, building, epoch),
            Ok(Ok(Look::Unknown)) => {
                self.with(tenant, |local| local.unjoin());
                self.buildings.joins_again(tenant);
            }
            Ok(Ok(Look::Building { epoch, joins, joined, calls, floors, counting })) => {
                if !joined.contains(&self.options.member.node) {
                    // Begun anew meanwhile.
                    self.buildings.joins_again(tenant);
                } else if self.all_live_are_in(&joined, building.joined_us) {
                    return Some(Ready { tenant: tenant.clone(), epoch, joins, calls, floors, counting });
                }
            }
            Ok(Ok(Look::Busy { is_joined: false })) => self.buildings.joins_again(tenant),
            Ok(Ok(Look::Busy { is_joined: true }) | Err(_)) | Err(_) => {}
        }
        let now_us = self.now_us();
        let epoch = self.with(tenant, |local| local.epoch());
        if let Some(epoch) = epoch.filter(|_| now_us.saturating_sub(building.asked_us) > ASK_AGAIN_US) {
            self.wishes.lock().is_wanted(tenant, Wanted::Join(epoch));
            self.buildings.change(tenant, |building| building.asked_us = now_us);
        }
        None
    }

    /// `None`: not now, or it is not known.
    async fn join(&self, tenant: &TenantId, is_forced: bool) -> Option<Joined> {
        let (calls, was_unsure) = self.with(tenant, |local| local.join(self.now_us()))?;
        let late_us = self.now_us().saturating_add(micros(WITHIN));
        let mut over = JoinOver { counters: self, tenant, late_us: Some(late_us) };
        // What an attempt has listed that had no answer is as it was then.
        let is_forced = is_forced || (was_unsure && !calls.is_empty());
        let mut epoch = Epoch(self.outside.clock.random());
        let mut parts: Vec<&[Note]> = calls.chunks(CALLS_MAX).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let last = parts.len().saturating_sub(1);
        for (at, part) in parts.into_iter().enumerate() {
            let joining = Joining {
                member: self.options.member,
                tenant,
                epoch,
                is_forced,
                floors: self.floors(),
                counting: self.counting(),
                calls: part,
                is_first: at == 0,
                is_last: at == last,
                within: WITHIN,
            };
            over.late_us = Some(self.now_us().saturating_add(micros(WITHIN)));
            let joined = timeout(WITHIN, self.outside.shared.join(&joining)).await.ok()?.ok()?;
            match joined {
                Joined::Building(begun) if at < last => epoch = begun,
                _ => {
                    over.late_us = None;
                    let now_us = self.now_us();
                    if self.with(tenant, |local| local.joined(joined, &calls, now_us)) {
                        self.buildings.want(tenant, true);
                        return None;
                    }
                    self.has_news(tenant);
                    return Some(joined);
                }
            }
        }
        None
    }

    /// This node cannot read the ledger: others may.
    fn leave_to_others(&self, ready: &[Ready]) {
        let others_until_us = self.now_us().saturating_add(LEDGER_AGAIN_US);
        for Ready { tenant, .. } in ready {
            self.buildings.change(tenant, |building| building.others_until_us = others_until_us);
        }
    }

    fn is_open(&self, tenant: &TenantId, building: Building, epoch: Epoch) {
        if building.joined_us > 0 {
            self.wishes.lock().is_done(tenant, Wanted::Join(epoch));
        }
        self.buildings.is_over(tenant);
        let now_us = self.now_us();
        let opened = self.with(tenant, |local| {
            local.is_open(now_us);
            local.opened.clone()
        });
        opened.notify_waiters();
    }

    /// Whether every node that is there has joined. What was heard before this node joined says nothing: nodes may have come
    /// since.
    fn all_live_are_in(&self, joined: &[NodeId], joined_us: u64) -> bool {
        let heard = self.heard.borrow();
        let live_ms = LIVE_FOR.as_millis();
        let is_in = |node: NodeId| joined.contains(&node);
        heard.sent_us > joined_us
            && u128::from(heard.pulse.known_for_ms) >= live_ms
            && heard.pulse.peers.iter().all(|peer| u128::from(peer.quiet_ms) > live_ms || is_in(peer.member.node))
    }

    /// Reads the ledger for tenants that all have joined, and opens them.
    async fn finish_ready(&self, ready: Vec<Ready>) {
        let mut some: Vec<Ready> = Vec::new();
        let mut ids = 0_usize;
        for tenant in ready {
            ids = ids.saturating_add(tenant.calls.len());
            some.push(tenant);
            if ids >= IDS_MAX {
                self.finish_some(&std::mem::take(&mut some)).await;
                ids = 0;
            }
        }
        if !some.is_empty() {
            self.finish_some(&some).await;
        }
    }

    async fn finish_some(&self, ready: &[Ready]) {
        let Some(month) = ready.iter().map(|ready| ready.floors.month).min() else { return };
        let Some(day) = ready.iter().map(|ready| ready.floors.day).min() else { return };
        let tenants: Vec<TenantId> = ready.iter().map(|ready| ready.tenant.clone()).collect();
        let ids: Vec<EventId> = ready.iter().flat_map(|ready| &ready.calls).copied().collect();
        let counting = ready.iter().fold(self.counting(), |all, ready| all | ready.counting);
        let read = timeout(LEDGER_MAX, self.outside.usage.standing_of(&tenants, [month, day], counting, &ids)).await;
        let StandingOf { used, known } = match read {
            Ok(Ok(standing)) => standing,
            Ok(Err(error)) => {
                warn!(%error, "Counters are to be built anew, and the ledger cannot be read; it is tried again.");
                return self.leave_to_others(ready);
            }
            Err(_) => {
                warn!("Counters are to be built anew, and the ledger takes too long; it is tried again.");
                return self.leave_to_others(ready);
            }
        };
        let known: HashSet<EventId> = known.into_iter().collect();
        let mut sums: HashMap<TenantId, Vec<(CounterKey, u64)>> = HashMap::new();
        for (counter, sum) in used {
            sums.entry(counter.tenant.clone()).or_default().push((counter, sum));
        }
        for Ready { tenant, epoch, joins, calls, .. } in ready {
            let known: Vec<EventId> = calls.iter().filter(|id| known.contains(id)).copied().collect();
            let sums = sums.get(tenant).map_or(&[][..], Vec::as_slice);
            if self.finish_one((tenant, *epoch, *joins), sums, &known).await {
                self.is_open(tenant, Building { joined_us: 1, ..Building::default() }, *epoch);
            }
        }
    }
}

impl NodeCounters {
    /// Gives the store all sums of a tenant, in parts where they are many; whether it is open then.
    async fn finish_one(
        &self,
        (tenant, epoch, joins): (&TenantId, Epoch, u64),
        sums: &[(CounterKey, u64)],
        known: &[EventId],
    ) -> bool {
        // One of a thousand users has some thousands, and others wait while the store takes them.
        let mut parts = sums.chunks(SUMS_MAX);
        let last = parts.next_back().unwrap_or_default();
        let writer = u64::try_from(self.outside.clock.random() >> 64).unwrap_or_default();
        let mut is_first = true;
        for sums in parts {
            let part = Part { tenant, epoch, joins, writer, is_first, sums, within: WITHIN };
            if !matches!(timeout(WITHIN, self.outside.shared.sums(&part)).await, Ok(Ok(true))) {
                return false;
            }
            is_first = false;
        }
        let writer = (!is_first).then_some(writer);
        let finish = Finish { tenant, epoch, joins, writer, sums: last, known, within: WITHIN };
        matches!(timeout(WITHIN, self.outside.shared.finish(&finish)).await, Ok(Ok(true)))
    }
}

/// The end of an attempt to join, also where it was given up.
struct JoinOver<'a> {
    counters: &'a NodeCounters,
    tenant: &'a TenantId,
    /// It has had no answer, and may be done until then.
    late_us: Option<u64>,
}

impl Drop for JoinOver<'_> {
    fn drop(&mut self) {
        let opened = self.counters.with(self.tenant, |local| {
            local.not_joined(self.late_us);
            local.opened.clone()
        });
        opened.notify_waiters();
    }
}
