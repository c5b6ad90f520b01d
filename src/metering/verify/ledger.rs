//! Every sum against the fold of its events, and every event against what an event can be.
//!
//! May use: `domain`, `ports`. Memory holds one fold for each sum, not for each event.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use crate::domain::time::{Micros, Period, TimeError, Window};
use crate::ports::StoreError;
use crate::ports::usage::{Entry, Stratum, SumKey, SumValues, Sums, UsageStore, UsedKey, UsedValues};

use super::{Differences, Kind};

/// A sum of nothing.
const NONE: SumValues = [0; Sums::NAMES.len()];

/// Told now and then how many events were added up, and of how many.
pub type Progress<'a> = &'a mut (dyn FnMut(u64, u64) + Send);

/// What was compared, and what later comparisons need of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerFacts {
    /// Events added up.
    pub events: u64,
    /// Sums of days found.
    pub days: u64,
    /// Sums of months found.
    pub months: u64,
    /// By how much what events count is more than its sums: counters are compared with events, through sums.
    pub used_beyond_sums: HashMap<UsedKey, UsedValues>,
}

/// Compares all of `store` with itself.
///
/// # Errors
/// When the store does not answer. One that holds what cannot be read at all is a difference.
pub async fn compare(
    store: &dyn UsageStore,
    differences: &mut Differences,
    progress: Progress<'_>,
) -> Result<LedgerFacts, StoreError> {
    let mut fold = Fold {
        differences,
        facts: LedgerFacts::default(),
        from: None,
        expected: HashMap::new(),
        counted: HashMap::new(),
    };
    let mut events = 0;
    let walked = store
        .walk(&mut |entry| {
            if let Entry::Begin { events: all, .. } = entry {
                events = all;
            }
            if fold.take(entry) {
                progress(fold.facts.events, events);
            }
        })
        .await;
    match walked {
        Ok(()) => Ok(fold.finish()),
        Err(StoreError::Corrupt(words)) => {
            let found = ("a ledger that can be read to its end", words);
            fold.differences.add(Kind::Store, "ledger", "readable", found);
            // What was not reached is not missing.
            Ok(fold.facts)
        }
        Err(error) => Err(error),
    }
}

struct Fold<'a> {
    differences: &'a mut Differences,
    facts: LedgerFacts,
    /// Sums of before this may have lost events.
    from: Option<Micros>,
    /// What events add up to, as long as no sum was found for it.
    expected: HashMap<SumKey, SumValues>,
    /// What events count, as long as no sum was found for it.
    counted: HashMap<UsedKey, UsedValues>,
}

impl Fold<'_> {
    /// Whether it was events.
    fn take(&mut self, entry: Entry) -> bool {
        match entry {
            Entry::Begin { events: _, from } => self.from = from,
            Entry::Events(stratum) => {
                self.facts.events = self.facts.events.saturating_add(stratum.events);
                self.add(&stratum);
                return true;
            }
            Entry::Sum(sum) => self.sum(sum.0, &sum.1),
            Entry::Counted(stratum) => {
                for key in stratum.keys() {
                    let sums = self.counted.entry(key).or_default();
                    for (sum, value) in sums.iter_mut().zip(stratum.values) {
                        *sum = sum.saturating_add(value);
                    }
                }
            }
            Entry::Used(used) => self.used(used.0, used.1),
            Entry::Impossible { event, rule, found } => {
                self.differences.add(Kind::Event, format!("event {event}"), rule, ("that", found));
            }
            Entry::Damage(words) => {
                self.differences.add(Kind::Store, "ledger", "files", ("whole ones", words));
            }
        }
        false
    }

    fn add(&mut self, stratum: &Stratum) {
        let values = stratum.values();
        for window in [Window::Day, Window::Month] {
            let key = SumKey {
                window,
                tenant: stratum.tenant.clone(),
                period: window.period(stratum.day).to_string(),
                provider: stratum.provider.clone(),
                model: stratum.model.clone(),
            };
            let sums = self.expected.entry(key).or_insert(NONE);
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = sum.saturating_add(value);
            }
        }
    }

    fn sum(&mut self, key: SumKey, found: &SumValues) {
        let count = match key.window {
            Window::Day => &mut self.facts.days,
            Window::Month => &mut self.facts.months,
        };
        *count = count.saturating_add(1);
        let is_alone = self.is_kept_alone(key.window.parse(&key.period));
        match self.expected.entry(key) {
            Slot::Occupied(expected) => {
                let (key, expected) = expected.remove_entry();
                if is_alone {
                    self.fall_short(&key, &expected, found);
                } else if expected != *found {
                    self.differ(&key, &expected, found);
                }
            }
            Slot::Vacant(_) if is_alone => {}
            Slot::Vacant(none) => {
                let key = none.into_key();
                self.differences.add(Kind::Sum, place(&key), "row", ("none, as it has no events", told(found)));
            }
        }
    }

    fn differ(&mut self, key: &SumKey, expected: &SumValues, found: &SumValues) {
        for ((name, expected), found) in Sums::NAMES.iter().zip(expected).zip(found) {
            if expected != found {
                self.differences.add(Kind::Sum, place(key), *name, (expected.to_string(), found.to_string()));
            }
        }
    }

    /// Whether the sum is of a time whose events were dropped.
    fn is_kept_alone(&self, period: Result<Period, TimeError>) -> bool {
        self.from.is_some_and(|from| period.is_ok_and(|period| period.end() <= from))
    }

    /// A sum whose events were dropped is at least that of the events that are left, such as those that came later.
    fn fall_short(&mut self, key: &SumKey, left: &SumValues, found: &SumValues) {
        for ((name, left), found) in Sums::NAMES.iter().zip(left).zip(found) {
            if left > found {
                let (left, found) = (format!("at least {left}"), found.to_string());
                self.differences.add(Kind::Sum, place(key), *name, (left, found));
            }
        }
    }

    /// A sum of what counters count. One whose events were dropped is dropped some time, too, whatever is added later.
    fn used(&mut self, key: UsedKey, found: UsedValues) {
        let expected = self.counted.remove(&key).unwrap_or_default();
        if expected != found && !self.is_kept_alone(period_named(&key.period)) {
            self.used_differs(&key, expected, Some(found));
        }
    }

    fn used_differs(&mut self, key: &UsedKey, expected: UsedValues, found: Option<UsedValues>) {
        let UsedKey { tenant, period, scope, subject } = key;
        let of = if subject.is_empty() { scope.clone() } else { format!("{scope} {subject}") };
        let place = format!("usage_scopes {tenant} {period} {of}");
        let of = found.unwrap_or_default();
        let beyond = [0, 1, 2].map(|at: usize| match (expected.get(at), of.get(at)) {
            (Some(expected), Some(found)) => expected.saturating_sub(*found),
            _ => 0,
        });
        self.facts.used_beyond_sums.insert(key.clone(), beyond);
        for ((name, expected), of) in ["chats", "tokens", "cost_nano_usd"].iter().zip(expected).zip(of) {
            if expected != of {
                let told = if found.is_some() { of.to_string() } else { "no row".to_owned() };
                self.differences.add(Kind::Sum, place.clone(), *name, (expected.to_string(), told));
            }
        }
    }

    fn finish(mut self) -> LedgerFacts {
        let mut missing: Vec<(SumKey, SumValues)> = std::mem::take(&mut self.expected).into_iter().collect();
        missing.sort_unstable();
        for (key, expected) in missing {
            self.differences.add(Kind::Sum, place(&key), "row", (told(&expected), "none"));
        }
        let mut missing: Vec<(UsedKey, UsedValues)> = std::mem::take(&mut self.counted).into_iter().collect();
        missing.retain(|(key, values)| *values != [0; 3] && !self.is_kept_alone(period_named(&key.period)));
        missing.sort_unstable();
        for (key, expected) in missing {
            self.used_differs(&key, expected, None);
        }
        self.facts
    }
}

/// A day or a month.
fn period_named(name: &str) -> Result<Period, TimeError> {
    Window::Month.parse(name).or_else(|_| Window::Day.parse(name))
}

fn place(key: &SumKey) -> String {
    let SumKey { window, tenant, period, provider, model } = key;
    let table = match window {
        Window::Day => "usage_daily",
        Window::Month => "usage_monthly",
    };
    format!("{table} {tenant} {period} {provider} {model}")
}

/// Every value that is not 0.
fn told(values: &SumValues) -> String {
    let some: Vec<String> = Sums::NAMES
        .iter()
        .zip(values)
        .filter(|(_, value)| **value != 0)
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    if some.is_empty() { "one of zeros".to_owned() } else { some.join(", ") }
}
