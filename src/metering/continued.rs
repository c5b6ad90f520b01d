//! A token by which a call goes on with an earlier answer, from when the call takes it to when it is billed.
//!
//! May use: `domain`, `ports`. A token serves one call. One that is refused, or dropped before its provider could charge for
//! it, was none: then the token is given back, so that the call may be made again without another chat.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use crate::domain::ids::{EventId, TenantId};
use crate::ports::continuations::{Continuations, TokenHash};

/// A token that a call took.
pub(super) struct Continued(Option<Took>);

struct Took {
    known: Arc<dyn Continuations>,
    tenant: TenantId,
    token: TokenHash,
}

impl Continued {
    /// Takes a token of the tenant for the call `id`; `None` where it has no such token.
    pub async fn take(known: &Arc<dyn Continuations>, tenant: &TenantId, token: &str, id: EventId) -> Option<Self> {
        let token = token_hash(token);
        // Only what is known to have been one is ever given back: a client may send any token.
        let is_known = known.take(tenant, token, id).await;
        is_known.then(|| Self(Some(Took { known: known.clone(), tenant: tenant.clone(), token })))
    }

    /// The call is billed.
    pub fn used(mut self) {
        self.0 = None;
    }

    /// The call is not billed.
    pub async fn give_back(mut self) {
        if let Some(Took { known, tenant, token }) = &self.0 {
            known.issue(tenant, *token).await;
        }
        self.0 = None;
    }
}

/// Given back a moment later: a drop waits for nothing, and a memory that is asked has its own bound of time.
impl Drop for Continued {
    fn drop(&mut self) {
        if let (Some(Took { known, tenant, token }), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move { known.issue(&tenant, token).await });
        }
    }
}

/// What is remembered of a token.
pub(super) fn token_hash(token: &str) -> TokenHash {
    TokenHash(Sha256::digest(token.as_bytes()).into())
}
