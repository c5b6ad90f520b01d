//! Thresholds of limits that were crossed: what a ledger is given to notice them, and what it is asked of them.
//!
//! May use: `domain`. They are noticed in [`super::usage::UsageStore::append_watched`].

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::ids::TenantId;
use crate::domain::plan::Plan;
use crate::domain::threshold::{Crossing, watched};

/// The plans of tenants, those with limits that have thresholds.
#[derive(Debug, Clone, Default)]
pub struct Watched(HashMap<TenantId, Arc<Plan>>);

impl FromIterator<(TenantId, Arc<Plan>)> for Watched {
    fn from_iter<I: IntoIterator<Item = (TenantId, Arc<Plan>)>>(plans: I) -> Self {
        Self(plans.into_iter().filter(|(_, plan)| watched(plan).next().is_some()).collect())
    }
}

impl Watched {
    /// The plan of a tenant, if it is watched.
    pub fn plan(&self, tenant: &TenantId) -> Option<&Plan> {
        self.0.get(tenant).map(|plan| &**plan)
    }

    /// All of them, in no order.
    pub fn plans(&self) -> impl Iterator<Item = (&TenantId, &Plan)> {
        self.0.iter().map(|(tenant, plan)| (tenant, &**plan))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What an append did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Appended {
    /// How many events were new.
    pub new: u64,
    /// What they crossed and nothing had crossed before, in the order in which it is listed.
    pub crossed: Vec<Crossing>,
}

/// Which crossings to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrossingsQuery {
    /// Of one tenant; `None` for all.
    pub tenant: Option<TenantId>,
    /// Those behind this row.
    pub after: i64,
    /// At most this many.
    pub crossings_max: u32,
}

/// A crossing and its place in the order in which they were written, which is the one in which they became visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCrossing {
    /// Grows with each one; the cursor.
    pub row: i64,
    /// The crossing.
    pub crossing: Crossing,
}
