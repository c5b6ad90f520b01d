//! Counters at a start: what the ledger has summed, and what the journal has that the ledger does not.
//!
//! May use: `domain`, `ports`. The recorder must not run meanwhile: an event that moved between the two reads would be
//! counted twice.

use std::collections::{BTreeMap, HashMap};

use crate::domain::ids::{EventId, TenantId};
use crate::domain::plan::{Metric, Subject};
use crate::domain::time::{Micros, Period, Window};
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::counters::{CounterKey, CounterStore};
use crate::ports::journal::Journal;
use crate::ports::usage::UsageStore;

/// Ids in one question to the ledger.
const IDS_PER_QUESTION: usize = 1_000;

/// Fills the counters.
///
/// # Errors
/// When the ledger, the journal or the counters cannot be asked.
pub async fn rebuild(
    counters: &dyn CounterStore,
    usage: &dyn UsageStore,
    journal: &dyn Journal,
    clock: &dyn Clock,
) -> Result<(), StoreError> {
    let periods: Vec<Period> =
        [Window::Month, Window::Day].into_iter().flat_map(|window| periods(window, clock.now())).collect();
    let key = |tenant: TenantId, period| CounterKey { tenant, subject: Subject::Tenant, metric: Metric::Chats, period };
    let mut used: HashMap<CounterKey, u64> = HashMap::new();
    for period in &periods {
        used.extend(usage.chats(*period).await?.into_iter().map(|(tenant, chats)| (key(tenant, *period), chats)));
    }
    // By id: a journal may hold an event twice.
    let mut waiting: BTreeMap<EventId, (TenantId, Micros, u64)> = BTreeMap::new();
    journal.waiting(&mut |event| {
        if event.chats > 0 {
            waiting.insert(event.id, (event.tenant.clone(), event.local(), event.chats));
        }
    })?;
    let ids: Vec<EventId> = waiting.keys().copied().collect();
    for ids in ids.chunks(IDS_PER_QUESTION) {
        // The ledger may have them all the same: the last process ended before it could note that.
        for id in usage.known(ids).await? {
            waiting.remove(&id);
        }
    }
    for (tenant, at, chats) in waiting.into_values() {
        for period in periods.iter().filter(|period| period.start() <= at && at < period.end()) {
            let used = used.entry(key(tenant.clone(), *period)).or_default();
            *used = used.saturating_add(chats);
        }
    }
    let used: Vec<(CounterKey, u64)> = used.into_iter().collect();
    counters.seed(&used).await.map_err(|error| StoreError::Unavailable(error.to_string()))
}

/// The period before, this one and two to come, as many as a counter keeps: a clock that was ahead left events there,
/// and when it gets there again their chats are used still.
fn periods(window: Window, now: Micros) -> [Period; 4] {
    let current = window.period(now);
    let next = window.period(current.end());
    [current.previous(), current, next, window.period(next.end())]
}
