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
    count: fn(&EstimateInput) -> Tokens,
}

impl Default for Estimator {
    fn default() -> Self {
        Self::by(estimate::by_tokenizer)
    }
}

impl Estimator {
    /// An estimator that counts like this.
    pub(super) fn by(count: fn(&EstimateInput) -> Tokens) -> Self {
        Self { running: Arc::new(Semaphore::new(RUNNING_MAX)), count }
    }

    /// Tokens of a call, by the tokenizer if it is done in time, else by the byte count. Never fails: a tokenizer that
    /// panics has not counted.
    pub async fn run(&self, input: EstimateInput) -> Tokens {
        let by_bytes = estimate::by_bytes(&input);
        let (running, count_tokens) = (self.running.clone(), self.count);
        let counted = timeout(WAIT_MAX, async move {
            let permit = running.acquire_owned().await.ok()?;
            let count = move || {
                let _until_counted = permit;
                count_tokens(&input)
            };
            tokio::task::spawn_blocking(count).await.ok()
        });
        counted.await.ok().flatten().unwrap_or(by_bytes)
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::ids::ProviderId;
    use crate::providers::Prompt;

    use super::*;

    fn input(prompt_bytes: u64) -> EstimateInput {
        let (provider, model) = (ProviderId::new("openai"), String::new());
        EstimateInput {
            provider,
            model,
            prompt: Prompt::TextBytes(prompt_bytes),
            output: String::new(),
            output_bytes: 40,
        }
    }

    fn panics_at_a_long_prompt(input: &EstimateInput) -> Tokens {
        match input.prompt {
            Prompt::TextBytes(400) => panic!("a tokenizer's bug"),
            _ => Tokens { prompt: 7, completion: 7, ..Tokens::default() },
        }
    }

    #[tokio::test]
    async fn a_tokenizer_that_panics_is_replaced_by_the_byte_count_and_is_asked_again() {
        let estimator = Estimator::by(panics_at_a_long_prompt);
        for _ in 0..3 * RUNNING_MAX {
            let counted = estimator.run(input(400)).await;
            assert_eq!(counted, Tokens { prompt: 100, completion: 10, ..Tokens::default() });
        }
        assert_eq!(estimator.run(input(4)).await.prompt, 7);
    }
}
