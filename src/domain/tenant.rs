//! Tenants.

use super::ids::{PlanName, TenantId};
use super::time::Micros;
use super::zone::Zone;

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
    /// Whose clock its days and months are of, from the next call on.
    pub zone: Zone,
    /// When it was created.
    pub created_at: Micros,
}
