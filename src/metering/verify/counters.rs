//! What counters say against what is booked.
//!
//! May use: `domain`, `ports`.
//!
//! Counters live in the process of the gateway and move with every call; the ledger follows a moment later. A gateway
//! answers with all its counters, and then only when the ledger has every call that had ended by then. So of two answers
//! and the ledger in between:
//!
//! ```text
//! answer 1: used a      ledger: l      answer 2: used b        a <= l <= b when the counter is right
//! ```
//!
//! Every call counted in `a` is in `l`, and every call in `l` is counted in `b`: a call is counted, then journalled, and
//! booked from the journal. A counter that is off by `d` shows `a - l <= d <= b - l`: exact when the counter rests, an
//! interval when it moves, and each further answer narrows it. Only a call that is between being counted and being
//! journalled, which are some microseconds, makes `a` one too many; so a counter is called wrong only when several answers
//! in a row say so.
//!
//! Counters that other gateways share have calls of theirs that are not booked yet. They know which part of what is used is
//! booked for certain: that part is `a`; for counters in the process it is all.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::counting::Counting;
use crate::domain::plan::{Metric, Standing, Subject};
use crate::domain::time::{Micros, Period, Window};
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::counters::{Counted, CounterKey, CounterStore, CountersUnavailable};
use crate::ports::journal::Journal;
use crate::ports::usage::{UsageStore, UsedKey};

use super::journal::JournalFacts;
use super::ledger::LedgerFacts;
use super::{Differences, Kind};
use crate::metering::recorder::Recorder;

/// Answers that are compared before those counters that never rested are given up.
pub const ROUNDS_MAX: u32 = 20;

/// Answers in a row that call a counter wrong before it is believed.
const WRONG_ROUNDS: u32 = 3;

/// All counters of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountersView {
    /// When they were read.
    pub at: Micros,
    /// The ledger that the gateway books in.
    pub ledger_id: String,
    /// Whether the ledger had every call that these counters count when the answer was given.
    pub is_booked: bool,
    /// Calls admitted and not settled when they were read.
    pub in_flight: u64,
    /// Whether other gateways count in them too: then `in_flight` is not all.
    pub is_shared: bool,
    /// All of them.
    pub counters: Vec<Counted>,
}

/// The gateway's side: gives its counters.
pub struct CountersSource {
    counters: Arc<dyn CounterStore>,
    journal: Arc<dyn Journal>,
    usage: Arc<dyn UsageStore>,
    recorder: Arc<Recorder>,
    clock: Arc<dyn Clock>,
}

/// Why counters cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CountingError {
    /// They cannot be read.
    #[error(transparent)]
    Counters(#[from] CountersUnavailable),
    /// The ledger does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CountersSource {
    /// Over its ports.
    pub fn new(
        counters: Arc<dyn CounterStore>,
        journal: Arc<dyn Journal>,
        usage: Arc<dyn UsageStore>,
        recorder: Arc<Recorder>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { counters, journal, usage, recorder, clock }
    }

    /// Reads them, then waits until the ledger has what they count.
    pub async fn view(&self) -> Result<CountersView, CountingError> {
        let ledger_id = self.usage.ledger_id().await?;
        let at = self.clock.now();
        let counters = self.counters.list().await?;
        let in_flight = self.journal.backlog().in_flight;
        let is_booked = self.recorder.caught_up().await;
        let is_shared = self.counters.health().shared;
        Ok(CountersView { at, ledger_id, is_booked, in_flight, is_shared, counters })
    }
}

/// What was compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CountersFacts {
    /// Counters that are known to be right, or wrong.
    pub compared: u64,
    /// Counters that moved whenever they were looked at, and may be right.
    pub moving: u64,
    /// The most that any of these can be off by.
    pub moving_off_max: u128,
    /// Pairs of answers that were compared.
    pub rounds: u32,
    /// The ledger was behind the calls all the time: nothing could be compared.
    pub behind: bool,
}

/// What the ledger says of one counter.
#[derive(Debug, Clone, Copy, Default)]
struct Booked {
    used: i128,
    /// What the ledger refused: the counter may have it.
    refused: i128,
}

/// How one counter stood.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    standing: Standing,
    booked: u64,
}

/// One answer, and what the ledger said after it.
struct Look {
    is_booked: bool,
    is_idle: bool,
    standings: HashMap<CounterKey, Count>,
    booked: HashMap<CounterKey, Booked>,
}

/// What is known so far of one counter.
#[derive(Debug, Clone, Copy)]
struct Suspect {
    /// It is off by so much at least, and at most.
    off: (i128, i128),
    /// So many looks in a row say that it is wrong, and that its holds are of no call.
    wrong: u32,
    stuck: u32,
    is_right: bool,
    booked: Booked,
    standing: Standing,
}

/// A comparison under way: it is given one [`CountersView`] after the other.
pub struct CountersCheck<'a> {
    store: &'a dyn UsageStore,
    ledger: &'a LedgerFacts,
    journal: &'a JournalFacts,
    last: Option<Look>,
    suspects: HashMap<CounterKey, Suspect>,
    rounds: u32,
    was_booked: bool,
}

impl<'a> CountersCheck<'a> {
    /// Begins one, with what was found of the ledger and of the journal.
    pub fn new(store: &'a dyn UsageStore, ledger: &'a LedgerFacts, journal: &'a JournalFacts) -> Self {
        Self { store, ledger, journal, last: None, suspects: HashMap::new(), rounds: 0, was_booked: false }
    }

    /// Looks at the next answer; says whether another one can tell more.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn look(&mut self, view: CountersView) -> Result<bool, StoreError> {
        let count = |Counted { counter, standing, booked }| (counter, Count { standing, booked });
        let standings: HashMap<CounterKey, Count> = view.counters.into_iter().map(count).collect();
        let booked = self.booked(view.at, &standings).await?;
        let look =
            Look { is_booked: view.is_booked, is_idle: view.in_flight == 0 && !view.is_shared, standings, booked };
        let Some(before) = self.last.take() else {
            self.last = Some(look);
            return Ok(true);
        };
        if before.is_booked {
            self.judge(&before, &look);
        }
        self.last = Some(look);
        self.rounds = self.rounds.saturating_add(1);
        let is_open = self.suspects.values().any(Suspect::is_open) || !self.was_booked;
        Ok(is_open && self.rounds < ROUNDS_MAX)
    }

    /// Tells what is wrong.
    pub fn finish(self, differences: &mut Differences) -> CountersFacts {
        let mut facts = CountersFacts { rounds: self.rounds, behind: !self.was_booked, ..CountersFacts::default() };
        let mut suspects: Vec<(CounterKey, Suspect)> = self.suspects.into_iter().collect();
        let place = |key: &CounterKey| (key.tenant.clone(), key.period, key.subject.clone(), key.metric);
        suspects.sort_by_cached_key(|(key, _)| place(key));
        for (key, suspect) in suspects {
            let is_wrong = suspect.wrong >= WRONG_ROUNDS;
            if is_wrong || suspect.is_right {
                facts.compared = facts.compared.saturating_add(1);
            } else {
                facts.moving = facts.moving.saturating_add(1);
                let (least, most) = suspect.off;
                let off = least.unsigned_abs().max(most.unsigned_abs());
                facts.moving_off_max = facts.moving_off_max.max(off);
            }
            let CounterKey { tenant, subject, metric, period } = key;
            let of = if subject == Subject::Tenant { String::new() } else { format!("{subject} ") };
            let place = || format!("counter {tenant} {of}{} {period}", metric.as_str());
            let Booked { used, refused } = suspect.booked;
            if is_wrong {
                let more = if refused > 0 { format!(" and up to {refused} refused") } else { String::new() };
                let expected = format!("{used} in the ledger{more}");
                differences.add(Kind::Counter, place(), "used", (expected, suspect.standing.used.to_string()));
            }
            if suspect.stuck >= WRONG_ROUNDS {
                let expected = "0, as no call is in flight";
                differences.add(Kind::Counter, place(), "held", (expected, suspect.standing.held.to_string()));
            }
        }
        facts
    }

    /// What the ledger says now of every counter there is, and of those that are missing though their period runs.
    async fn booked(
        &self,
        at: Micros,
        standings: &HashMap<CounterKey, Count>,
    ) -> Result<HashMap<CounterKey, Booked>, StoreError> {
        let running = [Window::Day, Window::Month].map(|window| window.period(at));
        let counted = standings.keys().map(|key| (key.subject.scope(), key.metric, key.period.window()));
        let counting = counted
            .map(|(scope, metric, window)| Counting::one(scope, metric, window))
            .fold(Counting::TENANT, |all, one| all | one);
        let mut periods: Vec<Period> = running.into_iter().chain(standings.keys().map(|key| key.period)).collect();
        periods.sort_unstable();
        periods.dedup();
        let mut all = HashMap::new();
        for period in periods {
            let mut used: HashMap<CounterKey, u64> = self.store.used(period, counting).await?.into_iter().collect();
            if !running.contains(&period) {
                used.retain(|key, _| standings.contains_key(key));
            }
            let idle = standings.keys().filter(|key| key.period == period).map(|key| (key.clone(), 0));
            let idle: Vec<(CounterKey, u64)> = idle.filter(|(key, _)| !used.contains_key(key)).collect();
            for (key, used) in used.into_iter().chain(idle) {
                let booked = self.adjusted(&key, used);
                all.insert(key, booked);
            }
        }
        Ok(all)
    }

    /// What was used by the events, where the sums are wrong.
    fn adjusted(&self, counter: &CounterKey, used: u64) -> Booked {
        let refused = self.journal.quarantined_used.get(counter).copied().unwrap_or_default();
        let beyond = self.ledger.used_beyond_sums.get(&UsedKey::of(counter));
        let beyond = beyond.map_or(0, |[chats, tokens, cost]| match counter.metric {
            Metric::Chats => *chats,
            Metric::Tokens => *tokens,
            Metric::Cost => *cost,
        });
        Booked { used: i128::from(used).saturating_add(beyond), refused: refused.into() }
    }

    fn judge(&mut self, before: &Look, after: &Look) {
        let is_first = !self.was_booked;
        self.was_booked = true;
        for (key, booked) in &before.booked {
            let (first, then) = match (before.standings.get(key), after.standings.get(key)) {
                // Forgotten in between, as the oldest periods are.
                (Some(_), None) => continue,
                (first, then) => (first.copied().unwrap_or_default(), then.copied().unwrap_or_default()),
            };
            // Counters that come up while others are looked at would keep this going.
            if !is_first && !self.suspects.contains_key(key) {
                continue;
            }
            let suspect = self.suspects.entry(key.clone()).or_insert_with(Suspect::new);
            let is_idle = before.is_idle && after.is_idle;
            suspect.judge(*booked, first, then, is_idle);
        }
    }
}

impl Suspect {
    fn new() -> Self {
        let (booked, standing) = (Booked::default(), Standing::default());
        Self { off: (i128::MIN, i128::MAX), wrong: 0, stuck: 0, is_right: false, booked, standing }
    }

    /// `first` was read before the ledger said `booked`, `then` after it.
    fn judge(&mut self, booked: Booked, first: Count, then: Count, is_idle: bool) {
        let least = i128::from(first.booked).saturating_sub(booked.used).saturating_sub(booked.refused);
        let (first, then) = (first.standing, then.standing);
        let most = i128::from(then.used).saturating_sub(booked.used);
        self.off = (self.off.0.max(least), self.off.1.min(most));
        (self.booked, self.standing) = (booked, then);
        let may_be_right = least <= 0 && most >= 0;
        self.wrong = if may_be_right { 0 } else { self.wrong.saturating_add(1) };
        let is_exact = first.used == then.used || (self.off.0 >= 0 && self.off.1 <= 0);
        self.is_right = may_be_right && (self.is_right || is_exact);
        let is_stuck = is_idle && first.held > 0 && then.held > 0;
        self.stuck = if is_stuck { self.stuck.saturating_add(1) } else { 0 };
    }

    /// Whether another look can tell more.
    fn is_open(&self) -> bool {
        (!self.is_right && self.wrong < WRONG_ROUNDS) || (1..WRONG_ROUNDS).contains(&self.stuck)
    }
}
