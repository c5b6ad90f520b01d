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

use crate::domain::ids::{EventId, TenantId};
use crate::domain::plan::Metric;
use crate::domain::time::Window;
use crate::ports::counters::{CounterKey, CountersUnavailable};
use crate::ports::shared::{Epoch, Finish, Floors, Joined, Joining, Look, NodeId, Note, Wanted};
use crate::ports::usage::StandingOf;

use super::NodeCounters;
use super::beating::LIVE_FOR;

/// Between two looks at what is in building.
const STEP: Duration = Duration::from_millis(20);

/// A message has so long.
const WITHIN: Duration = Duration::from_millis(500);

/// Calls listed in one message: some 60 kB.
const CALLS_MAX: usize = 500;

/// Tenants at once: what they list is in memory together.
const TENANTS_MAX: usize = 64;

/// Calls that the ledger is asked about at once.
const IDS_MAX: usize = 5_000;

/// After this the ledger is asked again.
const LEDGER_MAX: Duration = Duration::from_secs(3);

/// Between two attempts to see which tenants there are.
const LIST_AGAIN: Duration = Duration::from_secs(1);

/// A tenant that is not open after so long is given up, until somebody wants it again.
const GIVEN_UP_US: u64 = 30_000_000;

/// The nodes are asked again for a tenant that is still in building after this.
const ASK_AGAIN_US: u64 = 1_000_000;

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
    began_us: u64,
    asked_us: u64,
    /// Since when this node is a part of it.
    joined_us: u64,
}

/// A tenant that all have joined.
struct Ready {
    tenant: TenantId,
    epoch: Epoch,
    joins: u64,
    calls: Vec<EventId>,
    floors: Floors,
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

    /// Another node builds a tenant: this one joins.
    pub(super) fn help(&self, tenant: &TenantId) {
        self.all.lock().entry(tenant.clone()).or_default();
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

    fn is_not_wanted(&self, tenant: &TenantId) {
        let mut all = self.all.lock();
        if all.get(tenant).is_some_and(|building| !building.is_wanted) {
            all.remove(tenant);
        }
    }

    fn is_over(&self, tenant: &TenantId) {
        self.all.lock().remove(tenant);
    }
}

impl NodeCounters {
    /// Has the store let go of calls that an earlier life of this node was being given when it was killed: its journal does
    /// not have them, so nobody else ends them. A tenant that lists such calls is built anew when this life joins.
    pub(super) async fn outlive(&self) {
        loop {
            if let Ok(counted) = self.outside.shared.list().await {
                let holding = counted.iter().filter(|(_, count)| count.held > 0);
                let tenants: HashSet<&TenantId> = holding.map(|(counter, _)| &counter.tenant).collect();
                tenants.into_iter().for_each(|tenant| self.buildings.want(tenant, false));
                return;
            }
            sleep(LIST_AGAIN).await;
        }
    }

    /// Joins tenants that somebody wants built.
    pub(super) async fn join_all(&self) {
        loop {
            let some = self.some_buildings(|building| building.joined_us == 0 || !building.is_wanted).await;
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
            let some = self.some_buildings(|building| building.joined_us > 0 && building.is_wanted).await;
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
    async fn some_buildings(&self, is_some: impl Fn(&Building) -> bool) -> Vec<(TenantId, Building)> {
        loop {
            let news = self.buildings.news.notified();
            let mut news = std::pin::pin!(news);
            news.as_mut().enable();
            let some = self.buildings.some(self.now_us(), &is_some);
            if self.is_down.load(Ordering::Relaxed) {
                sleep(STEP).await;
            } else if some.is_empty() {
                news.await;
            } else {
                return some;
            }
        }
    }

    async fn join_step(&self, tenant: &TenantId, building: Building) {
        if building.joined_us > 0 {
            // Whoever wants it sees it through.
            self.buildings.is_not_wanted(tenant);
            return;
        }
        match self.join(tenant, building.is_forced).await {
            Ok(Joined::Open(_)) => self.is_open(tenant, building),
            Ok(Joined::Building(_)) => {
                let now_us = self.now_us();
                self.buildings.change(tenant, |building| {
                    (building.joined_us, building.asked_us, building.is_forced) = (now_us, now_us, false);
                });
                self.buildings.news.notify_waiters();
                self.wishes.lock().wanted.push((tenant.clone(), Wanted::Join));
                self.hurry.notify_one();
            }
            // It does not answer: again with the next step.
            Err(_) => {}
        }
    }

    /// Looks how far a tenant is. Gives it when this node is to finish it.
    async fn finish_step(&self, tenant: &TenantId, building: Building) -> Option<Ready> {
        match timeout(WITHIN, self.outside.shared.look(self.options.member.node, tenant)).await {
            Ok(Ok(Look::Open(_))) => self.is_open(tenant, building),
            Ok(Ok(Look::Unknown)) => {
                self.with(tenant, |local| local.unjoin());
                self.buildings.joins_again(tenant);
            }
            Ok(Ok(Look::Building { epoch, joins, joined, calls, floors })) => {
                if !joined.contains(&self.options.member.node) {
                    // Begun anew meanwhile.
                    self.buildings.joins_again(tenant);
                } else if self.all_live_are_in(&joined, building.joined_us) {
                    return Some(Ready { tenant: tenant.clone(), epoch, joins, calls, floors });
                }
            }
            Ok(Ok(Look::Busy { is_joined: false })) => self.buildings.joins_again(tenant),
            Ok(Ok(Look::Busy { is_joined: true }) | Err(_)) | Err(_) => {}
        }
        let now_us = self.now_us();
        if now_us.saturating_sub(building.asked_us) > ASK_AGAIN_US {
            self.wishes.lock().wanted.push((tenant.clone(), Wanted::Join));
            self.buildings.change(tenant, |building| building.asked_us = now_us);
        }
        None
    }

    async fn join(&self, tenant: &TenantId, is_forced: bool) -> Result<Joined, CountersUnavailable> {
        let calls = self.with(tenant, |local| local.join());
        let _over = JoinOver { counters: self, tenant };
        let now = self.outside.clock.now();
        let floors = Floors { month: Window::Month.period(now).previous(), day: Window::Day.period(now).previous() };
        let epoch = Epoch(self.outside.clock.random());
        let mut parts: Vec<&[Note]> = calls.chunks(CALLS_MAX).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let last = parts.len().saturating_sub(1);
        let mut answer = Err(CountersUnavailable("there is nothing to join with".into()));
        for (at, part) in parts.into_iter().enumerate() {
            let joining = Joining {
                member: self.options.member,
                tenant,
                epoch,
                is_forced: is_forced && at == 0,
                floors,
                calls: part,
                is_first: at == 0,
                is_last: at == last,
                within: WITHIN,
            };
            let joined = timeout(WITHIN, self.outside.shared.join(&joining)).await;
            answer = joined.unwrap_or_else(|_| Err(CountersUnavailable("the shared counters took too long".into())));
            if !matches!(answer, Ok(Joined::Building(_))) {
                break;
            }
        }
        if let Ok(joined) = answer {
            let now_us = self.now_us();
            self.with(tenant, |local| local.joined(joined, &calls, now_us));
            self.has_news(tenant);
        }
        answer
    }

    fn is_open(&self, tenant: &TenantId, building: Building) {
        if building.joined_us > 0 {
            self.wishes.lock().done.push((tenant.clone(), Wanted::Join));
        }
        self.buildings.is_over(tenant);
        self.with(tenant, |local| local.opened.clone()).notify_waiters();
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
        let read = timeout(LEDGER_MAX, self.outside.usage.standing_of(&tenants, [month, day], &ids)).await;
        let StandingOf { chats, known } = match read {
            Ok(Ok(standing)) => standing,
            Ok(Err(error)) => {
                warn!(%error, "Counters are to be built anew, and the ledger cannot be read; it is tried again.");
                return;
            }
            Err(_) => {
                warn!("Counters are to be built anew, and the ledger takes too long; it is tried again.");
                return;
            }
        };
        let known: HashSet<EventId> = known.into_iter().collect();
        let mut sums: HashMap<TenantId, Vec<(CounterKey, u64)>> = HashMap::new();
        for (tenant, period, chats) in chats {
            let key = CounterKey { tenant: tenant.clone(), metric: Metric::Chats, period };
            sums.entry(tenant).or_default().push((key, chats));
        }
        for Ready { tenant, epoch, joins, calls, .. } in ready {
            let known: Vec<EventId> = calls.iter().filter(|id| known.contains(id)).copied().collect();
            let sums = sums.get(tenant).map_or(&[][..], Vec::as_slice);
            let finish = Finish { tenant, epoch: *epoch, joins: *joins, sums, known: &known, within: WITHIN };
            let finished = timeout(WITHIN, self.outside.shared.finish(&finish)).await;
            if matches!(finished, Ok(Ok(true))) {
                self.is_open(tenant, Building { joined_us: 1, ..Building::default() });
            }
        }
    }
}

/// The end of an attempt to join, also where it was given up.
struct JoinOver<'a> {
    counters: &'a NodeCounters,
    tenant: &'a TenantId,
}

impl Drop for JoinOver<'_> {
    fn drop(&mut self) {
        self.counters.with(self.tenant, |local| local.not_joined());
        self.counters.with(self.tenant, |local| local.opened.clone()).notify_waiters();
    }
}
