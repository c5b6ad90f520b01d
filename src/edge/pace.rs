//! Whether a client that is waited for keeps up: with sending its request, or with taking its answer.
//!
//! A limit on silence alone is kept by a client that moves one byte before each end of it, for ever. So the time in which a
//! client was waited for is summed up, less what its bytes are worth at the least rate that it has to keep. What it is
//! ahead is not saved up: who was fast must not be slow for as long. Being behind for longer than a silence may last is as
//! bad as that silence.

use std::pin::Pin;

use pingora_timeout::fast_timeout::fast_timeout;
use tokio::time::{Duration, Instant};

use crate::domain::bound::Bound;
use crate::domain::refusal::Refusal;

/// The largest frame of HTTP/2, where nobody asked for larger ones (RFC 9113, 4.2).
const PIECE_BYTES_MAX: u64 = 16 * 1024;

/// One direction of one exchange with a client.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    patience: Duration,
    /// Bytes a second; 0 for any.
    rate: u64,
    behind: Duration,
}

impl Pace {
    /// For a client that may be silent for so long, and has to move so many bytes a second (0: any).
    pub fn new(patience: Duration, rate: u64) -> Self {
        Self { patience, rate, behind: Duration::ZERO }
    }

    fn worth(&self, bytes: usize) -> Duration {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let us = bytes.saturating_mul(1_000_000).checked_div(self.rate);
        Duration::from_micros(us.unwrap_or(0))
    }

    /// How long it may be waited for, until it has moved so many bytes; 0 where that is not known.
    pub fn wait_max(&self, bytes: usize) -> Duration {
        self.patience.saturating_sub(self.behind).saturating_add(self.worth(bytes))
    }

    /// How many bytes to wait for at once, where nobody sees how many of them moved: no more than what is worth a silence.
    pub fn piece_max(&self) -> usize {
        let worth = self.rate.saturating_mul(self.patience.as_secs()).max(1);
        let most = if self.rate == 0 { PIECE_BYTES_MAX } else { worth.min(PIECE_BYTES_MAX) };
        usize::try_from(most).unwrap_or(usize::MAX)
    }

    /// It was waited for so long, and moved so many bytes.
    pub fn waited(&mut self, time: Duration, bytes: usize) {
        if self.rate > 0 {
            self.behind = self.behind.saturating_add(time).saturating_sub(self.worth(bytes));
        }
    }

    /// Waits for `work` for as long as the client keeps up, whose bytes `moved` counts. `None` once it does not.
    pub async fn keep_up<T>(
        &mut self,
        moved: impl Fn() -> u64,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        let mut before = moved();
        loop {
            let began = Instant::now();
            let done = fast_timeout(self.wait_max(0), work.as_mut()).await.ok();
            let now = moved();
            let bytes = usize::try_from(now.wrapping_sub(before)).unwrap_or(usize::MAX);
            self.waited(began.elapsed(), bytes);
            // Who moved a little may have the little time that it is worth.
            if done.is_some() || bytes == 0 || self.wait_max(0).is_zero() {
                return done;
            }
            before = now;
        }
    }
}

/// How a request body has to come in.
#[derive(Debug, Clone, Copy)]
pub struct Intake {
    /// How fast.
    pub pace: Pace,
    /// Until when all of it.
    pub until: Instant,
    /// Until when the first of it, where its client may be waiting for what it is not told.
    pub begins_by: Option<Instant>,
}

impl Intake {
    /// How long the next piece may be waited for from `now` on, and what was met when it has not come by then.
    pub fn wait_max(&self, now: Instant) -> (Duration, Refusal) {
        let (pace, left) = (self.pace.wait_max(0), self.until.saturating_duration_since(now));
        let (wait, met) = if left < pace {
            (left, Refusal::TooSlow(Bound::RequestTime))
        } else {
            (pace, Refusal::TooSlow(Bound::BodyPace))
        };
        match self.begins_by.map(|by| by.saturating_duration_since(now)) {
            Some(first) if first < wait => (first, Refusal::ExpectationFailed),
            _ => (wait, met),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_byte_before_each_end_of_patience_helps_once() {
        let mut pace = Pace::new(s(60), 1_000);
        assert_eq!(pace.wait_max(0), s(60));
        pace.waited(s(59), 1);
        assert!(pace.wait_max(0) <= Duration::from_millis(1_001), "{:?}", pace.wait_max(0));
        // One that moves as much as it has to is waited for at the last as at the first.
        let mut pace = Pace::new(s(60), 1_000);
        for _ in 0..1_000 {
            pace.waited(s(50), 50_000);
        }
        assert_eq!((pace.wait_max(0), pace.wait_max(10_000)), (s(60), s(70)));
    }

    #[test]
    fn what_was_moved_fast_is_not_saved_up() {
        let mut pace = Pace::new(s(60), 1_000);
        pace.waited(Duration::ZERO, 1 << 40);
        pace.waited(s(30), 0);
        assert_eq!(pace.wait_max(0), s(30));
        pace.waited(s(40), 0);
        assert_eq!(pace.wait_max(0), Duration::ZERO);
        // Without a least rate only the silence counts.
        let mut pace = Pace::new(s(60), 0);
        (0..100).for_each(|_| pace.waited(s(59), 1));
        assert_eq!(pace.wait_max(64 << 10), s(60));
    }

    #[tokio::test]
    async fn who_moves_bytes_is_waited_for_and_who_stops_is_not() {
        let ms = Duration::from_millis;
        for (rate, each, is_waited_for) in [(1_000, 1_000, true), (0, 1, true), (1_000, 1, false), (0, 0, false)] {
            let moved = std::cell::Cell::new(0);
            let work = std::pin::pin!(async {
                for _ in 0..10 {
                    tokio::time::sleep(ms(50)).await;
                    moved.set(moved.get() + each);
                }
            });
            let mut pace = Pace::new(ms(150), rate);
            assert_eq!(pace.keep_up(|| moved.get(), work).await.is_some(), is_waited_for, "{each} at {rate}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_request_is_bounded_however_fast_it_comes() {
        let now = Instant::now();
        let mut intake = Intake { pace: Pace::new(s(60), 0), until: now + s(100), begins_by: None };
        assert_eq!(intake.wait_max(now), (s(60), Refusal::TooSlow(Bound::BodyPace)));
        assert_eq!(intake.wait_max(now + s(90)), (s(10), Refusal::TooSlow(Bound::RequestTime)));
        assert_eq!(intake.wait_max(now + s(101)).0, Duration::ZERO);
        intake.begins_by = Some(now + s(3));
        assert_eq!(intake.wait_max(now + s(1)), (s(2), Refusal::ExpectationFailed));
        intake.begins_by = Some(now + s(300));
        assert_eq!(intake.wait_max(now), (s(60), Refusal::TooSlow(Bound::BodyPace)));
    }
}
