//! Thresholds: the percents of a plan's limits that somebody wants to hear of, and what crossing one is.
//!
//! May use: this layer. A threshold is crossed by what is booked: by a sum that was below it and then is not any more.

use std::fmt;

use super::counting::Amounts;
use super::ids::{EventId, PlanName, TenantId};
use super::plan::{Limit, Metric, Plan, Scope, Subject};
use super::time::{Micros, Period, Window};

/// Thresholds of one plan: beyond these nobody reads what they tell.
pub const THRESHOLDS_MAX: usize = 10;

/// Ten times a limit.
pub const PERCENT_MAX: u16 = 1_000;

/// Percents of a limit, ascending, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thresholds(Box<[u16]>);

impl Default for Thresholds {
    /// Soon, and now.
    fn default() -> Self {
        Self(Box::new([80, 100]))
    }
}

/// As they are parsed.
impl fmt::Display for Thresholds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percents: Vec<String> = self.0.iter().map(u16::to_string).collect();
        f.write_str(&percents.join(","))
    }
}

impl Thresholds {
    /// Those that a text writes, with commas between them; an empty one writes none. `None` where they are no ascending
    /// whole percents, or too many.
    pub fn parse(text: &str) -> Option<Self> {
        if text.trim().is_empty() {
            return Some(Self(Box::default()));
        }
        let percents = text.split(',').map(|percent| percent.trim().parse().ok());
        let percents: Box<[u16]> = percents.collect::<Option<_>>()?;
        let is_in_range = percents.iter().all(|percent| (1..=PERCENT_MAX).contains(percent));
        let is_ascending = percents.is_sorted_by(|one, next| one < next);
        (is_in_range && is_ascending && percents.len() <= THRESHOLDS_MAX).then_some(Self(percents))
    }

    /// The percents, ascending.
    pub fn percents(&self) -> impl Iterator<Item = u16> {
        self.0.iter().copied()
    }

    /// Whether there are none.
    pub fn are_none(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether so much is a percent of a limit or more.
pub fn is_reached(used: u64, limit: u64, percent: u16) -> bool {
    i128::from(used) * 100 >= i128::from(limit) * i128::from(percent)
}

/// The limits of a plan, with top-ups and without grace, that sums of a scope and window may cross thresholds of: none of 0,
/// which nothing is ever below.
pub fn watched(plan: &Plan) -> impl Iterator<Item = &Limit> {
    let limits: &[Limit] = if plan.thresholds.are_none() { &[] } else { &plan.limits };
    limits.iter().filter(|limit| limit.max > 0)
}

/// What a sum of a scope and window crosses on its way from `before` to `after`: limits and percents of them.
pub fn crossed<'p>(
    plan: &'p Plan,
    (scope, window): (Scope, Window),
    (before, after): (&'p Amounts, &'p Amounts),
) -> impl Iterator<Item = (&'p Limit, u16)> {
    let limits = watched(plan).filter(move |limit| (limit.scope, limit.window) == (scope, window));
    let each = |limit: &'p Limit| plan.thresholds.percents().map(move |percent| (limit, percent));
    limits.flat_map(each).filter(move |(limit, percent)| {
        let [before, after] = [before, after].map(|amounts| amounts.of_metric(limit.metric));
        !is_reached(before, limit.max, *percent) && is_reached(after, limit.max, *percent)
    })
}

/// A threshold that was crossed: once in a day or month, whatever becomes of the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossing {
    /// Whose.
    pub tenant: TenantId,
    /// Of whom in it.
    pub subject: Subject,
    /// What is counted.
    pub metric: Metric,
    /// In which day or month.
    pub period: Period,
    /// Which percent of the limit.
    pub percent: u16,
    /// The limit as it was, with its top-up and without grace, in units of the metric.
    pub limit: u64,
    /// What was used when the events were booked that crossed it.
    pub used: u64,
    /// The tenant's plan.
    pub plan: PlanName,
    /// The event that crossed it.
    pub event: EventId,
    /// When that call was over.
    pub at: Micros,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_a_few_ascending_percents() {
        let parse = |text| Thresholds::parse(text).map(|all| all.percents().collect::<Vec<u16>>());
        assert_eq!(parse("80,100"), Some(Thresholds::default().percents().collect()));
        assert_eq!(parse(" 1 , 1000 "), Some(vec![1, 1_000]));
        assert_eq!(parse(""), Some(Vec::new()));
        assert_eq!(parse("1,2,3,4,5,6,7,8,9,10").map(|all| all.len()), Some(THRESHOLDS_MAX));
        for wrong in ["0", "1001", "100,80", "80,80", "80,", "8.5", "-1", "1,2,3,4,5,6,7,8,9,10,11", "80%"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert_eq!(Thresholds::default().to_string(), "80,100");
    }

    #[test]
    fn a_threshold_is_reached_at_its_percent_and_not_a_unit_before() {
        for (limit, percent, first) in [(10, 80, 8), (3, 80, 3), (1, 1, 1), (7, 1_000, 70), (u64::MAX, 100, u64::MAX)] {
            assert!(is_reached(first, limit, percent), "{limit} {percent}");
            assert!(!is_reached(first - 1, limit, percent), "{limit} {percent}");
        }
    }

    #[test]
    fn a_sum_crosses_what_lies_between_before_and_after() {
        let limit = |metric, max| Limit { scope: Scope::User, metric, window: Window::Day, max };
        let limits = vec![limit(Metric::Chats, 10), limit(Metric::Tokens, 0), limit(Metric::Cost, 1_000)];
        let plan = Plan { limits, ..Plan::unlimited("p".parse().unwrap()) };
        let amounts = |chats| Amounts { chats, tokens: chats * 7, cost_nano: 0 };
        let found = |of, before, after| -> Vec<(Metric, u16)> {
            let sums = (&amounts(before), &amounts(after));
            crossed(&plan, of, sums).map(|(limit, percent)| (limit.metric, percent)).collect()
        };
        let user = (Scope::User, Window::Day);
        assert_eq!(found(user, 0, 7), []);
        assert_eq!(found(user, 7, 8), [(Metric::Chats, 80)]);
        assert_eq!(found(user, 8, 9), []);
        assert_eq!(found(user, 0, 50), [(Metric::Chats, 80), (Metric::Chats, 100)]);
        assert_eq!(found((Scope::User, Window::Month), 0, 50), []);
        assert_eq!(found((Scope::Tenant, Window::Day), 0, 50), []);
        let silent = Plan { thresholds: Thresholds::parse("").unwrap(), ..plan.clone() };
        assert_eq!(crossed(&silent, user, (&amounts(0), &amounts(50))).count(), 0);
    }
}
