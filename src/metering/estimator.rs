//! Counts tokens where the provider said nothing, off the I/O threads and a few at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::domain::tokens::Tokens;
use crate::providers::estimate::{self, EstimateInput};

/// Estimates at once: enough that one hostile prompt does not hold up the next call, few enough to leave cores free.
const RUNNING_MAX: usize = 2;

/// A call waits this long for its estimate, the vocabulary's first load included; then the byte count has to do.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// Runs token estimates on blocking threads.
#[derive(Debug, Clone)]
pub struct Estimator {
    running: Arc<Semaphore>,
}

impl Default for Estimator {
    fn default() -> Self {
        Self { running: Arc::new(Semaphore::new(RUNNING_MAX)) }
    }
}

impl Estimator {
    /// Tokens of a call, by the tokenizer if it is done in time, else by the byte count. Never fails.
    pub async fn run(&self, input: EstimateInput) -> Tokens {
        let by_bytes = estimate::by_bytes(&input);
        let running = self.running.clone();
        let counted = timeout(WAIT_MAX, async move {
            let permit = running.acquire_owned().await.ok()?;
            let count = move || {
                let _until_counted = permit;
                estimate::by_tokenizer(&input)
            };
            tokio::task::spawn_blocking(count).await.ok()
        });
        counted.await.ok().flatten().unwrap_or(by_bytes)
    }
}
