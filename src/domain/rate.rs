//! Rates: how many requests and tokens a minute, and how many requests at once.
//!
//! May use: this layer. What flows by the minute is a bucket that holds one minute's worth and fills evenly: so much may come
//! at once after a quiet minute, and over any longer time no more than the rate and one bucket. A bucket is one number, the
//! instant at which it will be full again: taking moves it into the future, and a minute ahead the bucket is empty.

use super::plan::Scope;

/// How far ahead an empty bucket is full again.
pub const MINUTE_US: u64 = 60_000_000;

/// What a rate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RateMetric {
    /// Requests a minute.
    Requests,
    /// Tokens a minute, input and output together.
    Tokens,
    /// Requests at once.
    Concurrent,
}

impl RateMetric {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Requests, Self::Tokens, Self::Concurrent];

    /// The name in configuration and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests_per_minute",
            Self::Tokens => "tokens_per_minute",
            Self::Concurrent => "concurrent_requests",
        }
    }
}

/// At most `max` of `metric` for each of `scope`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// For each of whom.
    pub scope: Scope,
    /// What is counted.
    pub metric: RateMetric,
    /// How much, at least 1.
    pub max: u64,
}

/// How long a bucket of `max` a minute takes to fill by `amount`, rounded up. What is more than a bucket holds takes all of it:
/// such a call goes through when nothing else did for a minute.
pub fn span_us(amount: u64, max: u64) -> u64 {
    let span = (u128::from(amount) * u128::from(MINUTE_US)).div_ceil(u128::from(max.max(1)));
    u64::try_from(span).map_or(MINUTE_US, |span| span.min(MINUTE_US))
}

/// Takes a span out of a bucket that will be full at `full_us`. Gives when it will be full then.
///
/// # Errors
/// How long it takes until there is as much.
pub fn take(full_us: u64, now_us: u64, span_us: u64) -> Result<u64, u64> {
    let then = full_us.max(now_us).saturating_add(span_us);
    match then.saturating_sub(now_us.saturating_add(MINUTE_US)) {
        0 => Ok(then),
        wait => Err(wait),
    }
}

/// When a bucket will be full that one span was taken from so long ago, where it should have been another. What was taken too
/// little is taken now. Of what was too much as much has filled again by itself as time went by, and whoever came since may have
/// it: that is not given back a second time.
pub fn corrected(full_us: u64, now_us: u64, taken_us: u64, used_us: u64, ago_us: u64) -> u64 {
    match used_us.checked_sub(taken_us) {
        None | Some(0) => full_us.saturating_sub((taken_us - used_us).saturating_sub(ago_us)),
        Some(more) => full_us.max(now_us).saturating_add(more),
    }
}

/// How much of `max` a bucket lacks that will be full at `full_us`, rounded up.
pub fn lacks(full_us: u64, now_us: u64, max: u64) -> u64 {
    let ahead = u128::from(full_us.saturating_sub(now_us));
    u64::try_from((ahead * u128::from(max)).div_ceil(u128::from(MINUTE_US))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bucket_holds_a_minute_and_fills_evenly() {
        let (now, span) = (1_000, span_us(1, 60));
        assert_eq!(span, 1_000_000);
        let mut full = 0;
        for _ in 0..60 {
            full = take(full, now, span).unwrap();
        }
        assert_eq!(take(full, now, span), Err(span), "a whole minute's worth at once, and no more");
        assert_eq!(take(full, now + span - 1, span), Err(1));
        assert!(take(full, now + span, span).is_ok());
        assert_eq!(lacks(full, now, 60), 60);
        assert_eq!(lacks(full, now + 30_500_000, 60), 30, "it is rounded up");
        assert_eq!(lacks(full, now + 2 * MINUTE_US, 60), 0);
    }

    #[test]
    fn more_than_a_bucket_holds_takes_all_of_it() {
        assert_eq!(span_us(1_000, 10), MINUTE_US);
        assert_eq!(span_us(u64::MAX, 1), MINUTE_US);
        assert!(take(0, 5, span_us(1_000, 10)).is_ok());
        assert_eq!(take(MINUTE_US + 5, 5, span_us(1_000, 10)), Err(MINUTE_US));
    }

    proptest! {
        #[test]
        fn in_any_time_no_more_goes_through_than_the_rate_and_one_bucket(
            max in 1_u64..500,
            gaps in prop::collection::vec(0_u64..400_000, 1..400),
        ) {
            let (mut now, mut full, mut through) = (0, 0, 0_u64);
            for gap in gaps {
                now += gap;
                if let Ok(then) = take(full, now, span_us(1, max)) {
                    full = then;
                    through += 1;
                }
            }
            prop_assert!(through <= max + (now * max).div_ceil(MINUTE_US));
        }

        #[test]
        fn what_is_given_back_late_is_not_there_a_second_time(
            max in 1_u64..100,
            calls in prop::collection::vec((0_u64..20_000_000, 1_u64..100, 0_u64..=100, 0_usize..4), 1..100),
        ) {
            let (mut now, mut full, mut used_up) = (0, 0, 0_u64);
            let mut running: Vec<(u64, u64, u64)> = Vec::new();
            for (gap, amount, percent, over) in calls {
                now += gap;
                if over < running.len() {
                    let (at, taken, used) = running.swap_remove(over);
                    full = corrected(full, now, taken, used, now - at);
                }
                let taken = span_us(amount, max);
                if let Ok(then) = take(full, now, taken) {
                    full = then;
                    let used = taken * percent / 100;
                    used_up += used;
                    running.push((now, taken, used));
                }
            }
            prop_assert!(used_up <= now + MINUTE_US);
        }
    }
}
