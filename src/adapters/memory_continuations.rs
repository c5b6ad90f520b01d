//! Tokens by which answers go on, in this process.
//!
//! May use: `domain`, `ports`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::ids::{EventId, TenantId};
use crate::ports::BoxFuture;
use crate::ports::clock::Clock;
use crate::ports::continuations::{Continuations, REMEMBERED_US, TokenHash};

/// Tokens that are remembered at once, 15 MB of them; of more the oldest are forgotten. That is 166 cut answers a second.
const REMEMBERED_MAX: usize = 100_000;

type Key = (TenantId, TokenHash);

/// A memory of this process.
pub struct MemoryContinuations {
    clock: Arc<dyn Clock>,
    remembered: Mutex<Remembered>,
}

#[derive(Default)]
struct Remembered {
    /// Since when, and which call took it.
    tokens: HashMap<Key, (u64, Option<EventId>)>,
    /// In the order in which they came. One that was given again is in it twice; its older place says nothing.
    order: VecDeque<(u64, Key)>,
}

impl MemoryContinuations {
    /// An empty one.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, remembered: Mutex::default() }
    }
}

impl Remembered {
    fn forget(&mut self, now_us: u64) {
        while let Some((since, key)) = self.order.front() {
            if now_us.saturating_sub(*since) < REMEMBERED_US && self.order.len() <= REMEMBERED_MAX {
                return;
            }
            if self.tokens.get(key).is_some_and(|(newest, _)| newest == since) {
                self.tokens.remove(key);
            }
            self.order.pop_front();
        }
    }
}

impl Continuations for MemoryContinuations {
    fn issue<'a>(&'a self, tenant: &'a TenantId, token: TokenHash) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let now_us = self.clock.monotonic_us();
            let key = (tenant.clone(), token);
            let mut remembered = self.remembered.lock();
            remembered.tokens.insert(key.clone(), (now_us, None));
            remembered.order.push_back((now_us, key));
            remembered.forget(now_us);
        })
    }

    fn take<'a>(&'a self, tenant: &'a TenantId, token: TokenHash, id: EventId) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let mut remembered = self.remembered.lock();
            remembered.forget(self.clock.monotonic_us());
            match remembered.tokens.get_mut(&(tenant.clone(), token)) {
                Some((_, taken_by)) => *taken_by.get_or_insert(id) == id,
                None => false,
            }
        })
    }
}
