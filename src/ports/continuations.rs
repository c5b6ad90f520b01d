//! Answers that go on in another call: which tokens a tenant was given for that, so that the call is no new chat.

use crate::domain::ids::{EventId, TenantId};

use super::BoxFuture;

/// A token is remembered for ten minutes. Whoever goes on later begins a new chat.
pub const REMEMBERED_US: u64 = 600 * 1_000_000;

/// The SHA-256 of a token: tokens themselves hold what the model wrote, and are kept nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

/// Remembers tokens. A memory that is lost or cannot be asked has forgotten: a chat is counted then, and none is let
/// through for nothing. The contract:
///
/// - What `issue` remembered of a tenant, `take` finds for one call, once, by every gateway that shares the memory.
/// - `take` by the same call again says the same.
/// - Neither waits longer than counters may.
pub trait Continuations: Send + Sync {
    /// The tenant was given the token, or has it again as the call that took it was not billed.
    fn issue<'a>(&'a self, tenant: &'a TenantId, token: TokenHash) -> BoxFuture<'a, ()>;

    /// Whether the tenant was given the token and no other call took it. Now the call `id` has.
    fn take<'a>(&'a self, tenant: &'a TenantId, token: TokenHash, id: EventId) -> BoxFuture<'a, bool>;
}
