//! Plans and their limits.

use super::ids::PlanName;
use super::models::Models;
use super::price::tariff::Pricing;
use super::time::Window;

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    /// Forwarded generation requests.
    Chats,
}

impl Metric {
    /// The metric's name in answers, headers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chats => "chats",
        }
    }
}

/// At most `max` of `metric` in each `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What is counted.
    pub metric: Metric,
    /// In which windows.
    pub window: Window,
    /// How much fits, in units of the metric.
    pub max: u64,
}

/// What becomes of a call while shared counters cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnCountersDown {
    /// It is refused, to be tried again later.
    #[default]
    Refuse,
    /// It is admitted while the node has something left of the tenant's lease, also when the lease is over.
    Lease,
}

impl OnCountersDown {
    /// The name in configuration and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Lease => "lease",
        }
    }

    /// The one with that name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Refuse, Self::Lease].into_iter().find(|choice| choice.as_str() == text)
    }
}

/// What a tenant may use. No limit on a metric and window means that it is unlimited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The name tenants are put on it by.
    pub name: PlanName,
    /// The limits, at most one for each metric and window.
    pub limits: Vec<Limit>,
    /// What becomes of its calls while shared counters cannot be asked.
    pub on_counters_down: OnCountersDown,
    /// The models that may be used; `None`: all.
    pub models: Option<Models>,
    /// What its tenants pay of what providers charge.
    pub pricing: Pricing,
}

impl Plan {
    /// The limit on `metric` in `window`; `None` when unlimited.
    pub fn limit(&self, metric: Metric, window: Window) -> Option<&Limit> {
        self.limits.iter().find(|limit| limit.metric == metric && limit.window == window)
    }
}

/// How much of one limit is gone at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Settled and in flight and will stay.
    pub used: u64,
    /// Held by calls in flight.
    pub held: u64,
}

impl Standing {
    /// What is left of `max`; 0 when it is passed.
    pub fn remaining(self, max: u64) -> u64 {
        max.saturating_sub(self.used).saturating_sub(self.held)
    }
}
