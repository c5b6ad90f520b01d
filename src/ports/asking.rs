//! Questions to a provider that no client asked: how a unit stands, and what is in a file of its results.

use crate::domain::ids::{ProviderId, TenantId};

use super::BoxFuture;

/// Why a question has no whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The provider is not configured here, or not any more.
    #[error("the provider is not configured")]
    Off,
    /// It was not reached, did not answer in time or broke off.
    #[error("the provider did not answer")]
    NoAnswer,
    /// Whoever looked at the answer had enough of it.
    #[error("the answer is too large")]
    TooLarge,
}

/// In which account at a provider a question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whose<'a> {
    /// On behalf of which tenant.
    pub tenant: &'a TenantId,
    /// With the tenant's own key, or else with the operator's.
    pub own_account: bool,
}

/// Asks providers with the operator's key, or with a tenant's own. Nothing of it is billed.
pub trait Ask: Send + Sync {
    /// GETs `target`, a path of the provider's API with its query. `see` is shown the pieces of an answer of status 200, until
    /// it says that it has seen enough. Gives the status.
    fn get<'a>(
        &'a self,
        whose: Whose<'a>,
        provider: &'a ProviderId,
        target: &'a str,
        see: &'a mut (dyn FnMut(&[u8]) -> bool + Send),
    ) -> BoxFuture<'a, Result<u16, AskError>>;
}
