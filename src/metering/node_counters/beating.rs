//! Signs of life, and what they bring back: who else is there, what they want, what was changed, and whether the store
//! answers at all.
//!
//! May use: `domain`, `ports`, the snapshot.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::domain::ids::TenantId;
use crate::ports::shared::{Beat, Pulse, Wanted};

use super::local::{Local, micros};
use super::{Heard, NodeCounters, Wishes};

/// Between two signs of life.
const BEAT: Duration = Duration::from_millis(50);

/// An answer has so long; where a call waits longer for one, a beat does, too.
const WITHIN: Duration = Duration::from_millis(250);

/// A beat waits no longer than this: the node would be gone for the others after three.
const WITHIN_MAX: Duration = Duration::from_millis(500);

/// A node that was not heard of for so long is gone: nobody waits for it.
pub(super) const LIVE_FOR: Duration = Duration::from_millis(1_500);

/// A node that had no answer for so long does not admit from leases: the others may be about to think it gone.
const CERTAIN_FOR: Duration = Duration::from_millis(1_000);

/// A lease that nobody used for so long is given back.
const IDLE: Duration = Duration::from_secs(1);

/// Beats between two looks for idle leases.
const BEATS_PER_SWEEP: u32 = 5;

/// A tenant that was joined within this is not joined again because somebody wants another build of it joined: word that
/// that one is over takes two beats.
const JOINED_FOR: Duration = Duration::from_millis(100);

/// After the ledger could not be read.
const FOLLOW_AGAIN: Duration = Duration::from_millis(500);

/// How long a change waits for the other nodes.
const SPREAD_MAX: Duration = Duration::from_secs(1);

/// How long a node that ends tries to tell what it could not tell at once: a tenant is joined, and built, in a tenth of that.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// Between two looks whether it is told.
const SETTLE_STEP: Duration = Duration::from_millis(10);

impl NodeCounters {
    pub(super) async fn beat(&self) {
        let mut sweep = 0_u32;
        loop {
            self.beat_once(false).await;
            sweep = sweep.wrapping_add(1);
            if sweep.is_multiple_of(BEATS_PER_SWEEP) {
                self.end_idle_leases();
            }
            timeout(BEAT, self.hurry.notified()).await.unwrap_or_default();
        }
    }

    /// Gives all leases back and tells all that is to be told, also of tenants that this node has to join for that, while
    /// [`Self::run`] runs. After the last call.
    pub async fn settle_up(&self) {
        let mut left = Vec::new();
        for shard in &self.shards {
            for (tenant, local) in shard.lock().iter_mut() {
                if local.recalled() || local.has_news() || local.is_sending() {
                    left.push(tenant.clone());
                }
            }
        }
        for tenant in &left {
            self.tell_all_of(tenant).await;
        }
        let until_us = self.now_us().saturating_add(micros(SETTLE_MAX));
        for tenant in &left {
            while self.with(tenant, |local| local.has_news() || local.is_sending()) && self.now_us() < until_us {
                if self.is_down.load(Ordering::Relaxed) {
                    return;
                }
                sleep(SETTLE_STEP).await;
            }
        }
    }

    /// The last sign of life: nobody waits for this node any more. After [`Self::run`] was ended.
    pub async fn leave(&self) {
        self.beat_once(true).await;
    }

    async fn beat_once(&self, is_last: bool) {
        let Wishes(wishes) = std::mem::take(&mut *self.wishes.lock());
        let of_kind = |is_wanted: bool| {
            let of_kind = wishes.iter().filter(|(_, word)| **word == is_wanted);
            of_kind.map(|(wish, _)| wish.clone()).collect::<Vec<_>>()
        };
        let (wanted, done) = (of_kind(true), of_kind(false));
        let revision = self.outside.snapshots.load().revision;
        let within = self.options.call_budget.clamp(WITHIN, WITHIN_MAX);
        let beat = Beat { member: self.options.member, revision, wanted: &wanted, done: &done, is_last, within };
        let sent_us = self.now_us();
        match timeout(within, self.outside.shared.beat(&beat)).await {
            Ok(Ok(pulse)) => {
                self.has_answered(sent_us);
                self.failures.store(0, Ordering::Relaxed);
                if self.is_down.swap(false, Ordering::Relaxed) {
                    info!("The shared counters answer again.");
                    self.news.notify_one();
                }
                self.hear(sent_us, pulse);
            }
            Ok(Err(_)) | Err(_) => {
                // A word that was said meanwhile is newer than these.
                let newer = std::mem::replace(&mut self.wishes.lock().0, wishes);
                self.wishes.lock().0.extend(newer);
                let quiet_us = sent_us.saturating_sub(self.heard.borrow().sent_us);
                if quiet_us > micros(within) && !self.is_down.swap(true, Ordering::Relaxed) {
                    warn!(
                        "The shared counters do not answer: calls are refused, or admitted from leases, until they do."
                    );
                }
                // An error may come at once.
                sleep(BEAT).await;
            }
        }
    }

    fn hear(&self, sent_us: u64, pulse: Pulse) {
        for (tenant, wanted) in &pulse.wanted {
            match wanted {
                Wanted::Join(epoch) => {
                    let has = |local: &mut Local| {
                        local.has_joined(*epoch) || local.joined_within(sent_us, micros(JOINED_FOR))
                    };
                    if !self.with(tenant, has) {
                        self.buildings.help(tenant, *epoch);
                    }
                }
                Wanted::Lease => {
                    if self.with(tenant, Local::recalled) {
                        self.has_news(tenant);
                    }
                }
            }
        }
        self.heard.send_replace(Heard { sent_us, pulse });
    }

    /// Reads tenants and keys again when another node has newer ones. Beside the beats: the ledger may take its time.
    pub(super) async fn follow(&self) {
        let mut heard = self.heard.subscribe();
        // The sender is a part of these counters, so there is always one.
        while heard.changed().await.is_ok() {
            let newest = heard.borrow_and_update().pulse.peers.iter().map(|peer| peer.revision).max();
            if newest.is_none_or(|newest| newest <= self.outside.snapshots.load().revision) {
                continue;
            }
            if let Err(error) = self.outside.snapshots.refresh(&*self.outside.tenants).await {
                warn!(%error, "Another gateway changed tenants or keys, and they could not be read again.");
                sleep(FOLLOW_AGAIN).await;
            }
        }
    }

    /// Whether the others know that this node is there: then its leases and calls are waited for.
    pub(super) fn is_live(&self, now_us: u64) -> bool {
        let sent_us = self.heard.borrow().sent_us;
        sent_us > 0 && now_us.saturating_sub(sent_us) < micros(CERTAIN_FOR)
    }

    /// Nodes that are there, this one included; 0 while that is not known.
    pub(super) fn nodes(&self) -> u64 {
        let heard = self.heard.borrow();
        let live = heard.pulse.peers.iter().filter(|peer| u128::from(peer.quiet_ms) <= LIVE_FOR.as_millis());
        u64::try_from(live.count()).unwrap_or(u64::MAX)
    }

    fn end_idle_leases(&self) {
        let now_us = self.now_us();
        let mut ended: Vec<TenantId> = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            let idle = shard.iter_mut().filter(|(_, local)| local.leased() > 0);
            for (tenant, local) in idle {
                if local.end_lease_idle_for(now_us, micros(IDLE)) {
                    ended.push(tenant.clone());
                }
            }
        }
        ended.iter().for_each(|tenant| self.has_news(tenant));
    }

    /// Returns when all nodes have a change, or after a second.
    pub(super) async fn spread(&self, tenant: &TenantId, revision: i64) {
        let told = timeout(WITHIN, self.outside.shared.changed(tenant, revision, WITHIN)).await;
        if !matches!(told, Ok(Ok(()))) {
            warn!(%tenant, "The shared counters were not told of a change; the other gateways see it within two seconds.");
            return;
        }
        self.hurry.notify_one();
        let mut heard = self.heard.subscribe();
        let all_have = |heard: &Heard| {
            let mut live = heard.pulse.peers.iter().filter(|peer| u128::from(peer.quiet_ms) <= LIVE_FOR.as_millis());
            live.all(|peer| peer.revision >= revision)
        };
        let spread = timeout(SPREAD_MAX, heard.wait_for(all_have)).await;
        if spread.is_err() {
            warn!(%tenant, "Not every gateway has seen a change within a second; they do when they can read the ledger.");
        }
    }
}
