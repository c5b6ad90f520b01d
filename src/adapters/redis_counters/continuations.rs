//! Tokens by which answers go on, beside the counters of their tenant: each has a key of its own, which Redis forgets.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::ids::{EventId, TenantId};
use crate::ports::BoxFuture;
use crate::ports::continuations::{Continuations, REMEMBERED_US, TokenHash};
use crate::ports::counters::CountersUnavailable;

use super::words::Arguments;
use super::{RedisCounters, Store};

/// A memory that gateways share.
pub struct RedisContinuations {
    store: Arc<Store>,
    within: Duration,
}

impl RedisCounters {
    /// The memory in the same Redis. What is asked of it has `within`.
    pub fn continuations(&self, within: Duration) -> RedisContinuations {
        RedisContinuations { store: self.store.clone(), within }
    }
}

impl RedisContinuations {
    /// Does an operation on a token; gives the word that the script answers.
    async fn run(
        &self,
        name: &'static str,
        (tenant, token): (&TenantId, TokenHash),
        arguments: Arguments,
    ) -> Result<String, CountersUnavailable> {
        let hex: String = token.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let key = format!("{}t{{{tenant}}}:{hex}", self.store.ledger()?.prefix);
        self.store.run(name, key.as_bytes(), &arguments, self.within).await.map(|(word, _)| word)
    }
}

impl Continuations for RedisContinuations {
    fn issue<'a>(&'a self, tenant: &'a TenantId, token: TokenHash) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut arguments = Arguments::default();
            arguments.exact(REMEMBERED_US / 1_000);
            // What could not be remembered is forgotten: the port's contract.
            self.run("issue", (tenant, token), arguments).await.map(drop).unwrap_or_default();
        })
    }

    fn take<'a>(&'a self, tenant: &'a TenantId, token: TokenHash, id: EventId) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let mut arguments = Arguments::default();
            arguments.id(id);
            self.run("take", (tenant, token), arguments).await.is_ok_and(|word| word == "yours")
        })
    }
}
