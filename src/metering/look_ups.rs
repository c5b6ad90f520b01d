//! How often the store is asked about keys that nobody here knows: seldom enough that probing costs nothing, and often
//! enough that a key which was just made elsewhere works on its first call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};
use tokio::time::{sleep, timeout};

use crate::ports::clock::Clock;

/// After a quiet second so many look-ups go without a wait.
const BURST: u64 = 20;

/// One more look-up is allowed in this time: twenty a second, each of which begins with the reading of one number.
const GAP_US: u64 = 50_000;

/// Nobody waits longer for a look-up, its own or one that it shares. With a store that answers it is a small part of that.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Calls that wait at once. One look-up answers them all, so more than this would take ten thousand unknown keys a second.
const WAITING_MAX: usize = 1_000;

/// Look-ups, one at a time.
pub(super) struct LookUps {
    clock: Arc<dyn Clock>,
    places: Semaphore,
    /// Look-ups that have begun; the number of the last.
    begun: AtomicU64,
    turn: Mutex<Turn>,
}

/// What only the one who looks up may touch.
#[derive(Default)]
struct Turn {
    /// The number of the last look-up that ended.
    ended: u64,
    /// Whether it could be made.
    went_well: bool,
    /// When the next one would be due at an even rate, on the clock that never goes back. A burst runs ahead of it.
    due_us: u64,
}

impl LookUps {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, places: Semaphore::new(WAITING_MAX), begun: AtomicU64::new(0), turn: Mutex::default() }
    }

    /// Makes a look-up, or waits for one of another call that begins after this one asked: an earlier one may have missed
    /// what this one is about. `false` when there was none within [`WAIT_MAX`], when it failed, or when too many wait.
    pub(super) async fn share(&self, look_up: impl Future<Output = bool>) -> bool {
        let Ok(_place) = self.places.try_acquire() else { return false };
        let before = self.begun.load(Ordering::SeqCst);
        timeout(WAIT_MAX, self.turn_after(before, look_up)).await.unwrap_or(false)
    }

    async fn turn_after(&self, before: u64, look_up: impl Future<Output = bool>) -> bool {
        let mut turn = self.turn.lock().await;
        if turn.ended > before {
            return turn.went_well;
        }
        let now = self.clock.monotonic_us();
        // The lock stays held: who comes meanwhile shares what begins after the wait.
        sleep(Duration::from_micros(turn.due_us.saturating_sub(now + (BURST - 1) * GAP_US))).await;
        turn.due_us = turn.due_us.max(now) + GAP_US;
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        turn.went_well = look_up.await;
        turn.ended = number;
        turn.went_well
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Notify;
    use tokio::time::Instant;

    use super::*;
    use crate::domain::time::Micros;

    /// The clock of the paused runtime.
    struct Turned(Instant);

    impl Clock for Turned {
        fn now(&self) -> Micros {
            Micros(0)
        }

        fn monotonic_us(&self) -> u64 {
            u64::try_from(self.0.elapsed().as_micros()).unwrap()
        }

        fn random(&self) -> u128 {
            0
        }
    }

    fn look_ups() -> Arc<LookUps> {
        Arc::new(LookUps::new(Arc::new(Turned(Instant::now()))))
    }

    #[tokio::test(start_paused = true)]
    async fn calls_at_once_share_the_look_up_that_begins_after_they_asked() {
        let (look_ups, made, let_go) = (look_ups(), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let ask = || {
            let (look_ups, made, let_go) = (look_ups.clone(), made.clone(), let_go.clone());
            tokio::spawn(async move {
                let look_up = async {
                    made.fetch_add(1, Ordering::SeqCst);
                    let_go.notified().await;
                    true
                };
                look_ups.share(look_up).await
            })
        };
        let first = ask();
        while made.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let later: Vec<_> = (0..500).map(|_| ask()).collect();
        // Without this the five hundred would not have asked yet when the first look-up ends.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let_go.notify_one();
        assert!(first.await.unwrap());
        let_go.notify_one();
        for later in later {
            assert!(later.await.unwrap());
        }
        assert_eq!(
            made.load(Ordering::SeqCst),
            2,
            "the second is shared by all who came while the first was under way"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn probing_is_slowed_down_and_not_refused() {
        let look_ups = look_ups();
        let began = Instant::now();
        let seconds = 10;
        let mut made = 0;
        while began.elapsed() < Duration::from_secs(seconds) {
            let asked = Instant::now();
            assert!(look_ups.share(async { true }).await);
            assert!(asked.elapsed() <= Duration::from_micros(GAP_US) + Duration::from_millis(1));
            made += 1;
        }
        let allowed = BURST + seconds * 1_000_000 / GAP_US;
        assert!((allowed - 10..=allowed).contains(&made), "{made} look-ups in {seconds} s, {allowed} are allowed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_silent_or_down_is_not_waited_for_without_end() {
        let look_ups = look_ups();
        let began = Instant::now();
        let asked: Vec<_> = (0..WAITING_MAX + 1)
            .map(|_| {
                let look_ups = look_ups.clone();
                tokio::spawn(async move { look_ups.share(std::future::pending()).await })
            })
            .collect();
        for asked in asked {
            assert!(!asked.await.unwrap());
        }
        assert!(began.elapsed() < WAIT_MAX + Duration::from_millis(10), "{:?}", began.elapsed());
        assert!(!look_ups.share(async { false }).await);
        assert!(look_ups.share(async { true }).await, "a look-up that failed is not shared by who comes later");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_wait_than_there_are_places() {
        let look_ups = look_ups();
        let waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| {
                let look_ups = look_ups.clone();
                tokio::spawn(async move { look_ups.share(std::future::pending()).await })
            })
            .collect();
        while look_ups.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let began = Instant::now();
        assert!(!look_ups.share(async { true }).await);
        assert_eq!(began.elapsed(), Duration::ZERO);
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
