//! What an event counts on: by whom, of what, in which windows, and how much. Counters in the process and in Redis, the
//! ledger's sums and whoever compares them all ask here, so that they cannot differ.

use std::ops::{BitAnd, BitOr};

use super::event::{Outcome, UsageEvent};
use super::hold::nano_up;
use super::plan::{Limit, Metric, Plan, Scope, Subject};
use super::time::{Period, Window};

/// Which counters there are: a set of scopes, metrics and windows. All of the tenant always, so that no other plan needs
/// others; of keys, users and knowledge bases only those that some plan limits, as there are many of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Counting(u32);

impl Counting {
    /// Every window.
    pub const WINDOWS: [Window; 2] = [Window::Month, Window::Day];

    /// Everything that can be counted.
    pub const ALL: Self = Self(0xff_ffff);

    /// What is counted of every tenant.
    pub const TENANT: Self = Self(0x3f);

    /// What has to be counted for these plans.
    pub fn of<'a>(plans: impl IntoIterator<Item = &'a Plan>) -> Self {
        let limits = plans.into_iter().flat_map(|plan| &plan.limits);
        limits.fold(Self::TENANT, |all, Limit { scope, metric, window, .. }| all | Self::one(*scope, *metric, *window))
    }

    /// One counter of each of a scope.
    pub fn one(scope: Scope, metric: Metric, window: Window) -> Self {
        let scope = match scope {
            Scope::Tenant => 0,
            Scope::Key => 6,
            Scope::User => 12,
            Scope::Kb => 18,
        };
        let metric = match metric {
            Metric::Chats => 0,
            Metric::Tokens => 2,
            Metric::Cost => 4,
        };
        let window = match window {
            Window::Month => 0,
            Window::Day => 1,
        };
        Self(1 << (scope + metric + window))
    }

    /// The set as a number, for stores.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// The set of a number.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// Whether a counter is in it.
    pub fn has(self, scope: Scope, metric: Metric, window: Window) -> bool {
        self.contains(Self::one(scope, metric, window))
    }

    /// Whether anything of a scope is counted.
    pub fn has_scope(self, scope: Scope) -> bool {
        self & (Self::of_scope(scope)) != Self::default()
    }

    /// Whether all of `other` is in it.
    pub fn contains(self, other: Self) -> bool {
        self & other == other
    }

    /// Everything of it, one after the other.
    pub fn each(self) -> impl Iterator<Item = (Scope, Metric, Window)> {
        let metrics = |scope| Metric::ALL.into_iter().map(move |metric| (scope, metric));
        let all = Scope::ALL.into_iter().flat_map(metrics);
        let all = all.flat_map(|(scope, metric)| Self::WINDOWS.map(|window| (scope, metric, window)));
        all.filter(move |(scope, metric, window)| self.has(*scope, *metric, *window))
    }

    /// What is in it and not in `other`.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn of_scope(scope: Scope) -> Self {
        let all = Metric::ALL.into_iter().flat_map(|metric| Self::WINDOWS.map(|window| (metric, window)));
        all.fold(Self::default(), |all, (metric, window)| all | Self::one(scope, metric, window))
    }
}

impl BitOr for Counting {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Counting {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// How much an event counts of each metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amounts {
    /// Chats.
    pub chats: u64,
    /// Tokens in and out together.
    pub tokens: u64,
    /// What is billed, in nano-dollars, rounded up to a whole one.
    pub cost_nano: u64,
}

impl Amounts {
    /// Those of an event: of a correction nothing, as a counter shows what was billed when it was used.
    pub fn of(event: &UsageEvent) -> Self {
        if event.outcome == Outcome::Correction {
            return Self::default();
        }
        let cost_nano = event.billable.map_or(0, nano_up);
        Self { chats: event.chats, tokens: event.tokens.total(), cost_nano }
    }

    /// That of one metric.
    pub fn of_metric(&self, metric: Metric) -> u64 {
        match metric {
            Metric::Chats => self.chats,
            Metric::Tokens => self.tokens,
            Metric::Cost => self.cost_nano,
        }
    }

    /// Whether it counts on nothing.
    pub fn are_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Both together; `None` where a sum does not fit.
    pub fn plus(&self, other: &Self) -> Option<Self> {
        Some(Self {
            chats: self.chats.checked_add(other.chats)?,
            tokens: self.tokens.checked_add(other.tokens)?,
            cost_nano: self.cost_nano.checked_add(other.cost_nano)?,
        })
    }
}

/// Everybody in its tenant that an event has to do with.
pub fn subjects_of(event: &UsageEvent) -> impl Iterator<Item = Subject> {
    let key = event.key.clone().map(Subject::Key);
    let user = event.user_id.as_deref().map(|id| Subject::User(id.into()));
    let kb = event.kb_id.as_deref().map(|id| Subject::Kb(id.into()));
    [Some(Subject::Tenant), key, user, kb].into_iter().flatten()
}

/// What an event counts on, each counter once; nothing is left out but zeros.
pub fn counts_of(event: &UsageEvent, counting: Counting) -> Vec<(Subject, Metric, Period, u64)> {
    let amounts = Amounts::of(event);
    let mut counts = Vec::new();
    if amounts.are_zero() {
        return counts;
    }
    let periods = Counting::WINDOWS.map(|window| event.period(window));
    for subject in subjects_of(event) {
        let scope = subject.scope();
        for metric in Metric::ALL {
            let amount = amounts.of_metric(metric);
            for period in periods {
                if amount > 0 && counting.has(scope, metric, period.window()) {
                    counts.push((subject.clone(), metric, period, amount));
                }
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_place_of_its_own_in_the_set() {
        let mut all = Counting::default();
        for (scope, metric, window) in Counting::ALL.each() {
            let one = Counting::one(scope, metric, window);
            assert!(!all.contains(one), "{scope:?} {metric:?} {window:?}");
            all = all | one;
            assert_eq!(Counting::TENANT.contains(one), scope == Scope::Tenant);
            assert_eq!(one.each().collect::<Vec<_>>(), [(scope, metric, window)]);
            assert!(one.has_scope(scope));
        }
        assert_eq!(all, Counting::ALL);
        assert_eq!(Counting::ALL.each().count(), 24);
        assert_eq!(Counting::from_bits(all.bits()), all);
        assert!(!Counting::TENANT.has_scope(Scope::User));
        let user = Counting::one(Scope::User, Metric::Cost, Window::Day);
        assert_eq!((Counting::TENANT | user).without(Counting::TENANT), user);
    }
}
