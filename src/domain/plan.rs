//! Plans and their limits.

use std::fmt;
use std::sync::Arc;

use super::budget::Budget;
use super::ids::{KeyId, PlanName};
use super::models::Models;
use super::price::tariff::Pricing;
use super::rate::Rate;
use super::threshold::Thresholds;
use super::time::Window;

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    /// Forwarded generation requests.
    Chats,
    /// Tokens in and out together.
    Tokens,
    /// What the tenant is billed, in nano-dollars (1e-9 USD), each call rounded up to a whole one: counters are compared as
    /// doubles in Redis, which are exact up to 9 million dollars so.
    Cost,
}

impl Metric {
    /// All of them, for parsers.
    pub const ALL: [Self; 3] = [Self::Chats, Self::Tokens, Self::Cost];

    /// The metric's name in answers, headers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chats => "chats",
            Self::Tokens => "tokens",
            Self::Cost => "cost_usd",
        }
    }

    /// The one with that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.as_str() == text)
    }
}

/// Each of whom a limit bounds: the tenant as a whole, or each of its keys, users or knowledge bases for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// The tenant.
    Tenant,
    /// Each key.
    Key,
    /// Each user: `x-tollgate-user-id`.
    User,
    /// Each knowledge base: `x-tollgate-kb-id`.
    Kb,
}

impl Scope {
    /// All of them, for parsers.
    pub const ALL: [Self; 4] = [Self::Tenant, Self::Key, Self::User, Self::Kb];

    /// The scope's name in configuration, answers and counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Key => "key",
            Self::User => "user",
            Self::Kb => "kb",
        }
    }

    /// The one with that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }
}

/// Who in a tenant is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// The tenant as a whole.
    Tenant,
    /// One of its keys.
    Key(KeyId),
    /// One user, by the id that the client gave.
    User(Arc<str>),
    /// One knowledge base, by the id that the client gave.
    Kb(Arc<str>),
}

impl Subject {
    /// What kind of subject it is.
    pub fn scope(&self) -> Scope {
        match self {
            Self::Tenant => Scope::Tenant,
            Self::Key(_) => Scope::Key,
            Self::User(_) => Scope::User,
            Self::Kb(_) => Scope::Kb,
        }
    }

    /// Its id within the tenant; empty for the tenant itself.
    pub fn id(&self) -> &str {
        match self {
            Self::Tenant => "",
            Self::Key(key) => key.as_str(),
            Self::User(id) | Self::Kb(id) => id,
        }
    }

    /// The subject of that kind with that id.
    pub fn of(scope: Scope, id: &str) -> Option<Self> {
        match scope {
            Scope::Tenant => id.is_empty().then_some(Self::Tenant),
            Scope::Key => id.parse().ok().map(Self::Key),
            Scope::User => Some(Self::User(id.into())),
            Scope::Kb => Some(Self::Kb(id.into())),
        }
    }
}

/// `tenant`, or `user alice`: for messages.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scope().as_str())?;
        if *self == Self::Tenant { Ok(()) } else { write!(f, " {}", self.id()) }
    }
}

/// At most `max` of `metric` in each `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// For each of whom.
    pub scope: Scope,
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
    /// The limits, at most one for each scope, metric and window.
    pub limits: Vec<Limit>,
    /// What becomes of its calls while shared counters cannot be asked.
    pub on_counters_down: OnCountersDown,
    /// The models that may be used; `None`: all.
    pub models: Option<Models>,
    /// What its tenants pay of what providers charge.
    pub pricing: Pricing,
    /// How its token and cost limits are held to.
    pub budget: Budget,
    /// How many requests and tokens may flow, at most one of each scope and metric.
    pub rates: Vec<Rate>,
    /// Of which percents of its limits somebody wants to hear.
    pub thresholds: Thresholds,
}

impl Plan {
    /// A plan of which nothing is said but its name.
    pub fn unlimited(name: PlanName) -> Self {
        let (on_counters_down, pricing) = (OnCountersDown::default(), Pricing::default());
        Self {
            name,
            limits: Vec::new(),
            on_counters_down,
            models: None,
            pricing,
            budget: Budget::default(),
            rates: Vec::new(),
            thresholds: Thresholds::default(),
        }
    }

    /// The limit on `metric` in `window` for each of `scope`; `None` when unlimited.
    pub fn limit(&self, scope: Scope, metric: Metric, window: Window) -> Option<&Limit> {
        self.limits.iter().find(|limit| (limit.scope, limit.metric, limit.window) == (scope, metric, window))
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
