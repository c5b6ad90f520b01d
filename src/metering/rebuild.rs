//! Counters at a start: what the ledger has summed, and what the journal has that the ledger does not.
//!
//! May use: `domain`, `ports`. The recorder must not run meanwhile: an event that moved between the two reads would be
//! counted twice.

use std::collections::{BTreeMap, HashMap};

use crate::domain::counting::Counting;
use crate::domain::ids::EventId;
use crate::domain::time::{Micros, Period, Window};
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::counters::{CounterKey, CounterStore, used_by};
use crate::ports::journal::Journal;
use crate::ports::usage::UsageStore;

/// Ids in one question to the ledger.
const IDS_PER_QUESTION: usize = 1_000;

/// Fills the counters with what is counted.
///
/// # Errors
/// When the ledger, the journal or the counters cannot be asked.
pub async fn rebuild(
    counters: &dyn CounterStore,
    usage: &dyn UsageStore,
    journal: &dyn Journal,
    clock: &dyn Clock,
    counting: Counting,
) -> Result<(), StoreError> {
    let periods: Vec<Period> = Counting::WINDOWS.into_iter().flat_map(|window| periods(window, clock.now())).collect();
    let mut used: HashMap<CounterKey, u64> = HashMap::new();
    for period in &periods {
        used.extend(usage.used(*period, counting).await?);
    }
    // By id: a journal may hold an event twice.
    let mut waiting: BTreeMap<EventId, Vec<(CounterKey, u64)>> = BTreeMap::new();
    journal.waiting(&mut |event| {
        let used = used_by(&event, counting);
        if !used.is_empty() {
            waiting.insert(event.id, used);
        }
    })?;
    let ids: Vec<EventId> = waiting.keys().copied().collect();
    for ids in ids.chunks(IDS_PER_QUESTION) {
        // The ledger may have them all the same: the last process ended before it could note that.
        for id in usage.known(ids).await? {
            waiting.remove(&id);
        }
    }
    for (counter, amount) in waiting.into_values().flatten() {
        if periods.contains(&counter.period) {
            let used = used.entry(counter).or_default();
            *used = used.saturating_add(amount);
        }
    }
    let used: Vec<(CounterKey, u64)> = used.into_iter().collect();
    counters.seed(&used).await.map_err(|error| StoreError::Unavailable(error.to_string()))
}

/// The two periods before, this one and two to come, as many as a counter keeps. Before, as it is yesterday yet for a tenant
/// whose zone is behind UTC, and its calls of the day before may be on their way to the ledger. To come, as a clock that was
/// ahead left events there, and when it gets there again what they used is used still.
fn periods(window: Window, now: Micros) -> [Period; 5] {
    let current = window.period(now);
    let (before, next) = (current.previous(), window.period(current.end()));
    [before.previous(), before, current, next, window.period(next.end())]
}
