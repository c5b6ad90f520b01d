//! What time it is at a server, never later than it is there.

/// An answer counts for the current span and the next: so long that one in it was fast, so short that clocks that run
/// apart (100 millionths at most) differ by no more than 2 ms.
const SPAN_US: u64 = 10_000_000;

/// How far a server's clock is ahead of ours, at least.
///
/// An answer that says `server` and came at `ours` was written before: the distance is at least `server - ours`, and the
/// largest of these is nearest to the truth. It is at most `server - sent`; if that is less than what was known, somebody
/// put the server's clock back, and what was known is worth nothing.
#[derive(Debug, Default)]
pub(super) struct ServerClock {
    ahead_us: Option<i64>,
    before_us: Option<i64>,
    span: u64,
}

impl ServerClock {
    /// Takes in an answer. All in microseconds; `sent` and `came` on our monotonic clock.
    pub(super) fn heard(&mut self, sent_us: u64, came_us: u64, server_us: i64) {
        let least = server_us.saturating_sub_unsigned(came_us);
        let most = server_us.saturating_sub_unsigned(sent_us);
        let span = came_us / SPAN_US;
        if self.ahead().is_some_and(|known| known > most) {
            (self.ahead_us, self.before_us) = (None, None);
        } else if span > self.span {
            self.before_us = if span == self.span.saturating_add(1) { self.ahead_us } else { None };
            self.ahead_us = None;
        }
        self.span = span;
        self.ahead_us = Some(self.ahead_us.map_or(least, |known| known.max(least)));
    }

    /// The server's time at one of our instants, or before it; `None` while nothing was heard.
    pub(super) fn at(&self, ours_us: u64) -> Option<i64> {
        self.ahead().map(|ahead| ahead.saturating_add_unsigned(ours_us))
    }

    fn ahead(&self) -> Option<i64> {
        self.ahead_us.max(self.before_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn the_fastest_answer_of_the_last_spans_counts() {
        let mut clock = ServerClock::default();
        assert_eq!(clock.at(0), None);
        // It is 1,000 s ahead. The answers take 80, 2 and 30 ms.
        for (came, slow) in [(SECOND, 80_000), (2 * SECOND, 2_000), (3 * SECOND, 30_000)] {
            let server = i64::try_from(came + 1_000 * SECOND - slow).unwrap();
            clock.heard(came - slow, came, server);
        }
        assert_eq!(clock.at(0), Some(1_000_000_000 - 2_000));
        // Two spans later the slow one is all that is known.
        clock.heard(32 * SECOND, 33 * SECOND, 1_032_500_000);
        assert_eq!(clock.at(0), Some(999_500_000));
    }

    #[test]
    fn a_span_that_has_just_begun_remembers_the_one_before() {
        let mut clock = ServerClock::default();
        clock.heard(9_000_000, 9_001_000, 9_000_500);
        clock.heard(10_000_000, 10_900_000, 10_100_000);
        assert_eq!(clock.at(0), Some(-500));
        clock.heard(20_000_000, 20_900_000, 20_100_000);
        assert_eq!(clock.at(0), Some(-800_000));
    }

    #[test]
    fn a_clock_that_was_put_back_is_believed_at_once() {
        let mut clock = ServerClock::default();
        clock.heard(1_000_000, 1_001_000, 5_000_500);
        clock.heard(2_000_000, 2_001_000, 2_000_500);
        assert_eq!(clock.at(0), Some(-500));
    }
}
