//! The courier: tells the shared store what became of this node's calls, many in one message.
//!
//! May use: `domain`, `ports`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::time::{sleep, timeout};

use crate::domain::ids::TenantId;
use crate::ports::shared::{Noted, Noting};

use super::NodeCounters;
use super::local::micros;

/// How long news gather. What a node that dies had not told is what it admitted from leases in this time.
const GATHER: Duration = Duration::from_millis(5);

/// A message has so long: nobody waits for it.
const WITHIN: Duration = Duration::from_millis(500);

/// Messages under way at once, of as many tenants.
const MESSAGES_MAX: usize = 64;

/// Messages of the courier's that a question waits for before it tells the rest itself: the next is under way at once.
const MESSAGES_BEFORE_MAX: usize = 4;

/// Between two attempts while the store does not answer.
const PAUSE: Duration = Duration::from_millis(50);

impl NodeCounters {
    pub(super) async fn tell(&self) {
        loop {
            self.news.notified().await;
            sleep(GATHER).await;
            if self.is_down.load(Ordering::Relaxed) {
                sleep(PAUSE).await;
            }
            let tenants = std::mem::take(&mut *self.queue.lock());
            let tell = |tenant: TenantId| async move {
                self.with(&tenant, |local| local.is_queued = false);
                self.tell_of(&tenant).await;
            };
            stream::iter(tenants).for_each_concurrent(MESSAGES_MAX, tell).await;
        }
    }

    /// Tells what there was to tell of a tenant when this was called, also what is under way, for which it waits a call's
    /// budget. A message that it sends itself is not given up before its time: what comes after would have to wait for that.
    pub(super) async fn tell_all_of(&self, tenant: &TenantId) {
        let others = async {
            for _ in 0..MESSAGES_BEFORE_MAX {
                let arrived = self.with(tenant, |local| local.arrived.clone());
                let mut arrived = std::pin::pin!(arrived.notified());
                arrived.as_mut().enable();
                if !self.with(tenant, |local| local.is_sending()) {
                    return;
                }
                arrived.await;
            }
        };
        if timeout(self.options.call_budget, others).await.is_ok() {
            self.tell_of(tenant).await;
        }
    }

    /// Tells all that there is to tell of a tenant, or puts it into the queue again.
    pub(super) async fn tell_of(&self, tenant: &TenantId) {
        loop {
            let (must_join, is_doubtful, batch) = self.with(tenant, |local| {
                let must_join = local.must_join() && local.has_news();
                (must_join, local.is_doubtful(), local.batch(self.now_us()))
            });
            if must_join || is_doubtful {
                self.buildings.want(tenant, is_doubtful);
            }
            let Some(batch) = batch else { break };
            let asked_us = self.now_us();
            let late_us = asked_us.saturating_add(micros(WITHIN));
            let telling = Telling { counters: self, tenant, batch: Some(batch), late_us };
            let Some(batch) = &telling.batch else { break };
            let noting = Noting {
                member: self.options.member,
                tenant,
                epoch: batch.epoch,
                notes: &batch.notes,
                lease_left: batch.lease_left,
                within: WITHIN,
            };
            let answer = timeout(WITHIN, self.outside.shared.note(&noting)).await;
            let is_down = self.is_down.load(Ordering::Relaxed);
            if matches!(answer, Ok(Ok(_))) {
                self.has_answered(asked_us);
            }
            match answer {
                Ok(Ok(Noted::Done)) => telling.told(),
                Ok(Ok(Noted::Unjoined)) => {
                    telling.not_done();
                    self.with(tenant, |local| local.unjoin());
                    self.buildings.want(tenant, false);
                    break;
                }
                Ok(Err(_)) | Err(_) => {
                    drop(telling);
                    if !is_down {
                        self.failed();
                    }
                    break;
                }
            }
        }
        // Until a node has joined it cannot tell: the courier comes again when it has.
        if self.with(tenant, |local| local.has_news() && !local.must_join()) {
            self.has_news(tenant);
        }
    }
}

/// A message under way: what it says is told again unless the store has it.
struct Telling<'a> {
    counters: &'a NodeCounters,
    tenant: &'a TenantId,
    batch: Option<super::local::Batch>,
    /// Without an answer it may be done until then.
    late_us: u64,
}

impl Telling<'_> {
    fn told(mut self) {
        if let Some(batch) = self.batch.take() {
            self.counters.with(self.tenant, |local| local.told(&batch));
        }
    }

    /// The answer is that nothing of it was done.
    fn not_done(mut self) {
        self.late_us = 0;
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.counters.with(self.tenant, |local| local.not_told(&batch, self.late_us));
        }
    }
}
