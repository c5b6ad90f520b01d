//! Counts tokens where the provider said nothing, off the I/O threads and a few at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::domain::tokens::Tokens;
use crate::ports::BoxFuture;
use crate::providers::estimate::{self, EstimateInput};

/// Estimates at once: enough that one hostile prompt does not hold up the next call, few enough to leave cores free.
const RUNNING_MAX: usize = 2;

/// A call waits this long for its estimate, the vocabulary's first load included; then the byte count has to do.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// How tokens are counted; `None` when the counting broke off. The permit is to be kept until it is over, also when
/// nobody waits for it any more.
pub type Count = Arc<dyn Fn(EstimateInput, OwnedSemaphorePermit) -> BoxFuture<'static, Option<Tokens>> + Send + Sync>;

/// Runs token estimates on blocking threads.
#[derive(Clone)]
pub struct Estimator {
    running: Arc<Semaphore>,
    count: Count,
}

impl Default for Estimator {
    fn default() -> Self {
        Self::by(estimate::by_tokenizer)
    }
}

impl Estimator {
    /// An estimator that counts like this, on blocking threads.
    pub(super) fn by(count_tokens: fn(&EstimateInput) -> Tokens) -> Self {
        Self::counting(Arc::new(move |input, permit| {
            let count = move || {
                let _until_counted = permit;
                count_tokens(&input)
            };
            Box::pin(async move { tokio::task::spawn_blocking(count).await.ok() })
        }))
    }

    /// An estimator that counts in a way of its own, such as without threads in a simulation, which must replay.
    pub fn counting(count: Count) -> Self {
        Self { running: Arc::new(Semaphore::new(RUNNING_MAX)), count }
    }

    /// Tokens of a call, by the tokenizer if it is done in time, else by the byte count. Never fails: a tokenizer that
    /// panics has not counted.
    pub async fn run(&self, input: EstimateInput) -> Tokens {
        let by_bytes = estimate::by_bytes(&input);
        let (running, count) = (self.running.clone(), self.count.clone());
        let counted = timeout(WAIT_MAX, async move {
            let permit = running.acquire_owned().await.ok()?;
            count(input, permit).await
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
