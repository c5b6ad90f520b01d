//! Counts tokens where the provider said nothing, off the I/O threads and a few at a time.
//!
//! A prompt is the client's to choose, so an estimate may be made to take as long as one can. What it may cost others is
//! bounded: so much text, so many at once, so many that wait; what is beyond is estimated by its bytes at once.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::domain::tokens::Tokens;
use crate::ports::BoxFuture;
use crate::ports::sink::EstimatedBy;
use crate::providers::estimate::{self, EstimateInput};

/// Estimates at once: a quarter of the cores, so that those who answer clients always have most of them.
const CORES_FOR_ONE: usize = 4;

/// More at once than this only wait for memory.
const RUNNING_MAX: usize = 8;

/// How many may wait for each that runs: the last of them has its turn in time even if all before it take 40 ms.
const WAITING_FOR_ONE: usize = 64;

/// A call waits this long for its estimate, the vocabulary's first load included; then the byte count has to do.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// How tokens are counted; `None` when the counting broke off. The permit is to be kept until it is over, also when
/// nobody waits for it any more.
pub type Count = Arc<dyn Fn(EstimateInput, OwnedSemaphorePermit) -> BoxFuture<'static, Option<Tokens>> + Send + Sync>;

/// Runs token estimates on blocking threads.
#[derive(Clone)]
pub struct Estimator {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    count: Count,
}

/// Tokens, and how they came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// The tokens.
    pub tokens: Tokens,
    /// How they were counted.
    pub by: EstimatedBy,
}

impl Default for Estimator {
    fn default() -> Self {
        Self::by(estimate::by_tokenizer)
    }
}

impl Estimator {
    /// An estimator that counts like this, on blocking threads.
    pub(super) fn by(count_tokens: fn(&EstimateInput) -> Tokens) -> Self {
        let cores = available_parallelism().map_or(1, NonZero::get);
        Self::of(cores.div_ceil(CORES_FOR_ONE).min(RUNNING_MAX), on_threads(count_tokens))
    }

    /// An estimator that counts in a way of its own, such as without threads in a simulation, which must replay.
    pub fn counting(count: Count) -> Self {
        Self::of(1, count)
    }

    fn of(running: usize, count: Count) -> Self {
        let waiting = running.saturating_mul(WAITING_FOR_ONE + 1);
        Self { running: Arc::new(Semaphore::new(running)), waiting: Arc::new(Semaphore::new(waiting)), count }
    }

    /// Tokens of a call, by the tokenizer if it is done in time, else by the byte count. Never fails: a tokenizer that
    /// panics has not counted.
    pub async fn run(&self, input: EstimateInput) -> Estimate {
        let by_bytes = estimate::by_bytes(&input);
        let Ok(_place) = self.waiting.try_acquire() else {
            return Estimate { tokens: by_bytes, by: EstimatedBy::BytesForWant };
        };
        let (running, count) = (self.running.clone(), self.count.clone());
        let counted = timeout(WAIT_MAX, async move {
            let permit = running.acquire_owned().await.ok()?;
            count(input, permit).await
        });
        match counted.await.ok().flatten() {
            Some(tokens) => Estimate { tokens, by: EstimatedBy::Tokenizer },
            None => Estimate { tokens: by_bytes, by: EstimatedBy::BytesForTime },
        }
    }
}

fn on_threads(count_tokens: fn(&EstimateInput) -> Tokens) -> Count {
    Arc::new(move |input, permit| {
        let count = move || {
            let _until_counted = permit;
            count_tokens(&input)
        };
        Box::pin(async move { tokio::task::spawn_blocking(count).await.ok() })
    })
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::sync::oneshot;

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
            output_max: None,
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
            let tokens = Tokens { prompt: 100, completion: 10, ..Tokens::default() };
            assert_eq!(counted, Estimate { tokens, by: EstimatedBy::BytesForTime });
        }
        assert_eq!(estimator.run(input(4)).await.tokens.prompt, 7);
    }

    #[tokio::test]
    async fn beyond_the_queue_an_estimate_is_made_of_the_bytes_at_once() {
        let (ends, end) = oneshot::channel::<()>();
        let end = futures_util::FutureExt::shared(end);
        let estimator = Estimator::counting(Arc::new(move |_, permit| {
            let end = end.clone();
            Box::pin(async move {
                let _until_counted = permit;
                end.await.ok().map(|()| Tokens { prompt: 7, ..Tokens::default() })
            })
        }));
        let queue = join_all((0..=WAITING_FOR_ONE).map(|_| estimator.run(input(400))));
        let beyond = async {
            let counted = estimator.run(input(400)).await;
            ends.send(()).unwrap();
            counted
        };
        // The queue is filled first, and nothing of it ends before the one beyond it did.
        let (queued, beyond) = tokio::join!(biased; queue, beyond);
        assert_eq!((beyond.by, beyond.tokens.prompt), (EstimatedBy::BytesForWant, 100));
        assert!(queued.iter().all(|counted| counted.by == EstimatedBy::Tokenizer && counted.tokens.prompt == 7));
        assert_eq!(estimator.run(input(400)).await.by, EstimatedBy::Tokenizer);
    }
}
