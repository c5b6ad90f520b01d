//! Tenants.

use super::ids::{PlanName, TenantId};
use super::time::Micros;

/// One customer of the gateway's operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its display name.
    pub name: String,
    /// The plan it is on.
    pub plan: PlanName,
    /// A suspended tenant's keys are refused.
    pub suspended: bool,
    /// When it was created.
    pub created_at: Micros,
}
