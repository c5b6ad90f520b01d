//! What all connections of one store of counters share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::domain::redis_url::RedisUrl;
use crate::ports::clock::Clock;

/// Where to connect and whose time it is.
pub(super) struct Settings {
    pub(super) url: RedisUrl,
    clock: Arc<dyn Clock>,
    has_warned: AtomicBool,
}

impl Settings {
    pub(super) fn new(url: RedisUrl, clock: Arc<dyn Clock>) -> Self {
        Self { url, clock, has_warned: AtomicBool::new(false) }
    }

    /// Our monotonic clock.
    pub(super) fn now_us(&self) -> u64 {
        self.clock.monotonic_us()
    }

    /// Once: a warning of what does not change by itself.
    pub(super) fn is_first_warning(&self) -> bool {
        !self.has_warned.swap(true, Ordering::Relaxed)
    }
}
