//! Carries settled events from the journal to the ledger, in batches, until it is told to end and all are there.
//!
//! While the ledger is away a batch is tried for ever. An event that the ledger refuses for good is found by halving its
//! batch, set aside and told; the rest goes on.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{error, warn};

use crate::domain::event::UsageEvent;
use crate::domain::ids::{KeyId, TenantId};
use crate::domain::threshold::Crossing;
use crate::domain::time::{MICROS_PER_SECOND, Micros};
use crate::ports::StoreError;
use crate::ports::crossings::{Appended, Watched};
use crate::ports::journal::{Batch, Journal};
use crate::ports::sink::Sink;
use crate::ports::tenants::TenantStore;
use crate::ports::usage::UsageStore;

use super::snapshot::Snapshots;

/// Events in one transaction: beyond this a larger batch gains nothing and holds the write lock longer.
const BATCH_EVENTS_MAX: usize = 2_000;

/// How long a batch gathers before it is written. A transaction costs an fsync however small it is; a question to the
/// ledger does not wait for this (see [`Recorder::caught_up`]).
const GATHER: Duration = Duration::from_millis(200);

/// First and longest pause after the ledger failed. It is tried for ever: an event is never dropped.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// How long a question to the ledger waits for events that are still on their way.
const CATCH_UP_MAX: Duration = Duration::from_secs(2);

/// The recorder: one task runs [`Recorder::run`], everyone else asks how far it is.
pub struct Recorder {
    journal: Arc<dyn Journal>,
    usage: Arc<dyn UsageStore>,
    tenants: Arc<dyn TenantStore>,
    sinks: Vec<Arc<dyn Sink>>,
    /// The plans that thresholds are watched of.
    snapshots: Option<Arc<Snapshots>>,
    hurry: Notify,
    through: watch::Sender<u64>,
}

impl Recorder {
    /// A recorder over its ports.
    pub fn new(
        journal: Arc<dyn Journal>,
        usage: Arc<dyn UsageStore>,
        tenants: Arc<dyn TenantStore>,
        sinks: Vec<Arc<dyn Sink>>,
    ) -> Self {
        Self { journal, usage, tenants, sinks, snapshots: None, hurry: Notify::new(), through: watch::Sender::new(0) }
    }

    /// The same, watching the thresholds of the plans that tenants are on when their events are written.
    pub fn watching(self, snapshots: Arc<Snapshots>) -> Self {
        Self { snapshots: Some(snapshots), ..self }
    }

    /// Runs until the journal is closed and empty. A panic on the way, in a store or a journal, loses nothing: what was not
    /// acknowledged comes again.
    pub async fn run(&self) {
        while AssertUnwindSafe(self.record()).catch_unwind().await.is_err() {
            error!("The recorder met a panic; nothing is lost, and it goes on.");
            sleep(BACKOFF.1).await;
        }
    }

    async fn record(&self) {
        let mut touched = Touched::default();
        loop {
            self.gather().await;
            let batch = self.journal.next(BATCH_EVENTS_MAX).await;
            if batch.events.is_empty() {
                return;
            }
            self.write(&batch).await;
            self.journal.ack(batch.through);
            self.through.send_replace(batch.through);
            self.tell(&batch.events);
            self.touch_keys(touched.news(&batch.events)).await;
        }
    }

    /// Waits until every event that was settled before this call is in the ledger, or for two seconds. Whether it is.
    pub async fn caught_up(&self) -> bool {
        let target = self.journal.settled_through();
        if *self.through.borrow() >= target {
            return true;
        }
        let is_reached = timeout(CATCH_UP_MAX, self.reaches(target)).await.is_ok();
        if !is_reached {
            warn!(
                backlog = self.journal.backlog().events,
                "The ledger is behind; an answer was given without the newest events."
            );
        }
        is_reached
    }

    /// Waits until everything up to a position of the journal is in the ledger.
    pub async fn reaches(&self, position: u64) {
        let mut through = self.through.subscribe();
        self.hurry.notify_one();
        // The sender is a part of this recorder, so there is always one.
        through.wait_for(|through| *through >= position).await.map(drop).unwrap_or_default();
    }

    /// Lets a batch grow, unless somebody waits for it or the journal is closing.
    async fn gather(&self) {
        self.journal.ready().await;
        let full = self.journal.backlog().events >= u64::try_from(BATCH_EVENTS_MAX).unwrap_or(u64::MAX);
        if !full && !self.journal.is_closed() {
            // Either way the batch is written now.
            timeout(GATHER, self.hurry.notified()).await.unwrap_or_default();
        }
    }

    /// Those who hear of events must not keep them from the ledger: one that panics has missed this batch and gets the
    /// next.
    fn tell(&self, events: &[UsageEvent]) {
        for sink in &self.sinks {
            if catch_unwind(AssertUnwindSafe(|| sink.booked(events))).is_err() {
                error!(
                    events = events.len(),
                    "One that hears of booked events panicked; the events are in the ledger."
                );
            }
        }
    }

    /// Those who count must know what may be counted twice.
    fn doubt(&self, part: &[UsageEvent]) {
        for sink in &self.sinks {
            if catch_unwind(AssertUnwindSafe(|| sink.doubted(part))).is_err() {
                error!(events = part.len(), "One that hears of events that the ledger had panicked.");
            }
        }
    }

    fn tell_crossed(&self, crossed: &[Crossing]) {
        for sink in self.sinks.iter().filter(|_| !crossed.is_empty()) {
            if catch_unwind(AssertUnwindSafe(|| sink.crossed(crossed))).is_err() {
                error!(
                    crossings = crossed.len(),
                    "One that hears of crossed thresholds panicked; they are in the ledger."
                );
            }
        }
    }

    /// The plans of those whose events these are.
    fn watched(&self, events: &[UsageEvent]) -> Watched {
        let Some(snapshots) = &self.snapshots else { return Watched::default() };
        let snapshot = snapshots.load();
        let tenants: HashSet<&TenantId> = events.iter().map(|event| &event.tenant).collect();
        let plan = |id: &TenantId| Some((id.clone(), snapshot.accounts.get(id)?.plan.clone()?));
        tenants.into_iter().filter_map(plan).collect()
    }

    /// Returns when the ledger, or the quarantine, has every event of the batch.
    async fn write(&self, batch: &Batch) {
        // Parts still to be written, the next one last. At most one more than the times a batch can be halved.
        let mut parts: Vec<&[UsageEvent]> = vec![&batch.events];
        let mut pause = BACKOFF.0;
        while let Some(part) = parts.pop() {
            let watched = self.watched(part);
            let failure = match (self.usage.append_watched(part, &watched).await, part) {
                (Ok(Appended { new, crossed }), _) => {
                    if usize::try_from(new) != Ok(part.len()) {
                        self.doubt(part);
                    }
                    self.tell_crossed(&crossed);
                    pause = BACKOFF.0;
                    continue;
                }
                (Err(StoreError::Refused(reason)), [event]) => match self.journal.quarantine(event, &reason) {
                    Ok(()) => {
                        error!(id = %event.id, tenant = %event.tenant, reason, "The ledger refuses an event for good; it is set aside in the journal, and asked for again at the next start.");
                        continue;
                    }
                    Err(error) => error,
                },
                (Err(StoreError::Refused(_)), _) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                    continue;
                }
                (Err(error), _) => error,
            };
            report(&failure, part.len());
            parts.push(part);
            sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// `last_used_at` is for people: losing one is harmless, so a failure is only told.
    async fn touch_keys(&self, used: Vec<(KeyId, Micros)>) {
        if used.is_empty() {
            return;
        }
        if let Err(error) = self.tenants.touch_keys(&used).await {
            warn!(%error, "The last use of keys was not noted.");
        }
    }
}

/// The keys whose use in this minute the store knows already: noting it is one more transaction, and once a minute will do.
#[derive(Default)]
struct Touched {
    minute: i64,
    keys: HashSet<KeyId>,
}

impl Touched {
    fn news(&mut self, events: &[UsageEvent]) -> Vec<(KeyId, Micros)> {
        let mut news = Vec::new();
        for event in events {
            let Some(key) = &event.key else { continue };
            let minute = event.requested_at.0.div_euclid(60 * MICROS_PER_SECOND);
            if minute > self.minute {
                self.minute = minute;
                self.keys.clear();
            }
            if !self.keys.contains(key) {
                self.keys.insert(key.clone());
                news.push((key.clone(), event.requested_at));
            }
        }
        news
    }
}

fn report(error: &StoreError, events: usize) {
    warn!(%error, events, "The ledger did not take a batch; it will be sent again.");
}

#[cfg(test)]
mod tests;
