//! What a plan says of its token and cost limits beside how high they are: how much a call holds of them while it is in
//! flight, and what becomes of one that does not fit.
//!
//! May use: this layer. How much one call holds is worked out in [`super::hold`].

use super::plan::Metric;

/// How much a call holds while nobody knows what it will use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sizing {
    /// What it will probably use. Calls in flight may pass a limit by what they use beyond that.
    #[default]
    Estimate,
    /// The most that it can use. No limit is ever passed.
    WorstCase,
}

/// What becomes of a call that does not fit as it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenShort {
    /// It is refused.
    #[default]
    Refuse,
    /// Its output maximum is lowered to what fits, where it has one.
    Clamp,
}

/// What becomes of a call under a cost limit whose model has no price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unpriced {
    /// It is refused.
    #[default]
    Refuse,
    /// The cost limits do not count it.
    Allow,
}

/// What becomes of a call that is charged after its answer, where worst cases are held: nothing can be held for it until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenDeferred {
    /// It is refused.
    #[default]
    Refuse,
    /// It is admitted, and may pass the limits by what it uses.
    Allow,
}

/// What becomes of an answer that puts out more than its call holds, while nothing is left of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnOverrun {
    /// It goes on to its end.
    #[default]
    Finish,
    /// A stream ends there, as it would at its output maximum.
    Cut,
}

/// A choice that configuration names.
macro_rules! named {
    ($choice:ident: $($variant:ident = $name:literal),+) => {
        impl $choice {
            /// All of them, for parsers.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name in configuration.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }

            /// The one with that name.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|choice| choice.as_str() == text)
            }
        }
    };
}

named!(Sizing: Estimate = "estimate", WorstCase = "worst_case");
named!(WhenShort: Refuse = "refuse", Clamp = "clamp");
named!(OnOverrun: Finish = "finish", Cut = "cut");
named!(Unpriced: Refuse = "refuse", Allow = "allow");
named!(WhenDeferred: Refuse = "refuse", Allow = "allow");

/// What a plan says of its token and cost limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// How much a call holds.
    pub hold: Sizing,
    /// What becomes of one that does not fit.
    pub when_short: WhenShort,
    /// What becomes of one that nobody knows the price of.
    pub unpriced: Unpriced,
    /// What becomes of one that is charged after its answer; only where worst cases are held.
    pub deferred: WhenDeferred,
    /// What becomes of an answer that is longer than was held for it.
    pub on_overrun: OnOverrun,
    /// One call holds at most this much cost, in nano-dollars; only where holds are estimates.
    pub hold_cost_max: Option<u64>,
    /// One call holds at most so many tokens; only where holds are estimates.
    pub hold_tokens_max: Option<u64>,
    /// Each limit of the plan may be passed by this many percent of it.
    pub grace_percent: u64,
}

impl Budget {
    /// Up to where a limit of `max` admits: with its grace, rounded down.
    pub fn with_grace(&self, max: u64) -> u64 {
        let grace = u128::from(max) * u128::from(self.grace_percent) / 100;
        max.saturating_add(u64::try_from(grace).unwrap_or(u64::MAX))
    }

    /// Whether a call that is charged after its answer is refused where a token or cost limit counts it.
    pub fn refuses_deferred(&self) -> bool {
        (self.hold, self.deferred) == (Sizing::WorstCase, WhenDeferred::Refuse)
    }

    /// The most that one call holds of `metric`, where the plan says so.
    pub fn hold_max(&self, metric: Metric) -> Option<u64> {
        match (self.hold, metric) {
            (Sizing::WorstCase, _) | (_, Metric::Chats) => None,
            (Sizing::Estimate, Metric::Tokens) => self.hold_tokens_max,
            (Sizing::Estimate, Metric::Cost) => self.hold_cost_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_is_whole_and_rounded_down() {
        for (max, percent, allowed) in
            [(500, 0, 500), (500, 10, 550), (9, 10, 9), (19, 10, 20), (u64::MAX, 100, u64::MAX), (0, 100, 0)]
        {
            assert_eq!(
                Budget { grace_percent: percent, ..Budget::default() }.with_grace(max),
                allowed,
                "{max} {percent}"
            );
        }
    }

    #[test]
    fn only_an_estimate_has_a_cap() {
        let caps = Budget { hold_cost_max: Some(7), hold_tokens_max: Some(9), ..Budget::default() };
        assert_eq!(Metric::ALL.map(|metric| caps.hold_max(metric)), [None, Some(9), Some(7)]);
        let worst = Budget { hold: Sizing::WorstCase, ..caps };
        assert_eq!(Metric::ALL.map(|metric| worst.hold_max(metric)), [None; 3]);
    }
}
