//! Rates in the memory of this process: for one node, and the model that other stores are tested against.
//!
//! May use: `domain`, `ports`. One short lock over all: only plans with rates come here.

use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::ids::{EventId, TenantId};
use crate::domain::plan::Subject;
use crate::domain::rate::{self, RateMetric};
use crate::ports::BoxFuture;
use crate::ports::clock::Clock;
use crate::ports::counters::CountersUnavailable;
use crate::ports::rates::{RateClaim, RateOutcome, RateStanding, RateStore};

/// Rates are looked through for those that say nothing any more when there are twice as many as were left the last time, and
/// at least so many: then each costs one look on average.
const SWEPT_MIN: usize = 1_024;

/// Rates of this process.
pub struct MemoryRates {
    clock: Arc<dyn Clock>,
    rates: Mutex<Rates>,
}

#[derive(Default)]
struct Rates {
    /// When a bucket is full; how many requests run.
    all: HashMap<(TenantId, Subject, RateMetric), u64>,
    /// The calls in flight that took something, and when they did.
    running: HashMap<EventId, u64>,
    left: usize,
}

impl MemoryRates {
    /// Nothing is taken yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, rates: Mutex::default() }
    }
}

impl RateStore for MemoryRates {
    fn take<'a>(
        &'a self,
        id: EventId,
        tenant: &'a TenantId,
        claims: &'a [RateClaim],
    ) -> BoxFuture<'a, Result<RateOutcome, CountersUnavailable>> {
        let (now_us, mut rates) = (self.clock.monotonic_us(), self.rates.lock());
        let outcome = rates.take(now_us, tenant, claims);
        if matches!(outcome, RateOutcome::Taken(_)) {
            rates.running.insert(id, now_us);
        }
        Box::pin(ready(Ok(outcome)))
    }

    fn end(&self, id: EventId, tenant: &TenantId, claims: &[RateClaim], used: &[u64]) {
        let (now_us, mut rates) = (self.clock.monotonic_us(), self.rates.lock());
        let Some(taken_at) = rates.running.remove(&id) else { return };
        for (claim, used) in claims.iter().zip(used) {
            rates.end(now_us, tenant, claim, *used, now_us.saturating_sub(taken_at));
        }
    }

    fn read<'a>(
        &'a self,
        tenant: &'a TenantId,
        claims: &'a [RateClaim],
    ) -> BoxFuture<'a, Result<Vec<RateStanding>, CountersUnavailable>> {
        let (now_us, rates) = (self.clock.monotonic_us(), self.rates.lock());
        let value = |claim| rates.all.get(&key(tenant, claim)).copied().unwrap_or_default();
        Box::pin(ready(Ok(claims.iter().map(|claim| standing(claim, value(claim), now_us)).collect())))
    }
}

fn key(tenant: &TenantId, claim: &RateClaim) -> (TenantId, Subject, RateMetric) {
    (tenant.clone(), claim.subject.clone(), claim.metric)
}

fn standing(claim: &RateClaim, value: u64, now_us: u64) -> RateStanding {
    match claim.metric {
        RateMetric::Concurrent => RateStanding { taken: value, full_in_us: 0 },
        RateMetric::Requests | RateMetric::Tokens => {
            RateStanding { taken: rate::lacks(value, now_us, claim.max), full_in_us: value.saturating_sub(now_us) }
        }
    }
}

impl Rates {
    fn take(&mut self, now_us: u64, tenant: &TenantId, claims: &[RateClaim]) -> RateOutcome {
        let mut taken = Vec::with_capacity(claims.len());
        for (at, claim) in claims.iter().enumerate() {
            let key = key(tenant, claim);
            let value = self.all.get(&key).copied().unwrap_or_default();
            let then = match claim.metric {
                RateMetric::Concurrent if value >= claim.max => Err(0),
                RateMetric::Concurrent => Ok(value.saturating_add(1)),
                RateMetric::Requests | RateMetric::Tokens => {
                    rate::take(value, now_us, rate::span_us(claim.amount, claim.max))
                }
            };
            match then {
                Ok(then) => taken.push((key, then)),
                Err(wait_us) => return RateOutcome::Refused { claim: at, wait_us },
            }
        }
        let stand = claims.iter().zip(&taken).map(|(claim, (_, value))| standing(claim, *value, now_us)).collect();
        self.all.extend(taken);
        if self.all.len() >= SWEPT_MIN.max(self.left.saturating_mul(2)) {
            self.all.retain(
                |(_, _, metric), value| {
                    if *metric == RateMetric::Concurrent { *value > 0 } else { *value > now_us }
                },
            );
            self.left = self.all.len();
        }
        RateOutcome::Taken(stand)
    }

    fn end(&mut self, now_us: u64, tenant: &TenantId, claim: &RateClaim, used: u64, ago_us: u64) {
        let value = self.all.entry(key(tenant, claim)).or_default();
        *value = match claim.metric {
            RateMetric::Concurrent => value.saturating_sub(1),
            RateMetric::Requests | RateMetric::Tokens => {
                let [taken, used] = [claim.amount, used].map(|amount| rate::span_us(amount, claim.max));
                rate::corrected(*value, now_us, taken, used, ago_us)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::FutureExt;

    use super::*;
    use crate::domain::time::Micros;

    #[derive(Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now(&self) -> Micros {
            Micros(0)
        }

        fn monotonic_us(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        fn random(&self) -> u128 {
            0
        }
    }

    fn claim(metric: RateMetric, amount: u64, max: u64) -> RateClaim {
        RateClaim { subject: Subject::Tenant, metric, amount, max }
    }

    fn bench() -> (Arc<Hand>, MemoryRates, TenantId) {
        let clock = Arc::new(Hand::default());
        (clock.clone(), MemoryRates::new(clock), "acme".parse().unwrap())
    }

    fn take(rates: &MemoryRates, tenant: &TenantId, claims: &[RateClaim]) -> RateOutcome {
        rates.take(EventId::new(1, 1), tenant, claims).now_or_never().unwrap().unwrap()
    }

    #[test]
    fn all_is_taken_or_nothing() {
        let (_, rates, acme) = bench();
        let claims = [claim(RateMetric::Requests, 1, 10), claim(RateMetric::Concurrent, 1, 1)];
        assert!(matches!(take(&rates, &acme, &claims), RateOutcome::Taken(_)));
        for _ in 0..20 {
            assert_eq!(take(&rates, &acme, &claims), RateOutcome::Refused { claim: 1, wait_us: 0 });
        }
        rates.end(EventId::new(1, 1), &acme, &claims, &[1, 0]);
        let standings = rates.read(&acme, &claims).now_or_never().unwrap().unwrap();
        assert_eq!(standings.iter().map(|standing| standing.taken).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn what_was_taken_too_much_is_given_back_and_too_little_is_taken() {
        let (clock, rates, acme) = bench();
        let tokens = [claim(RateMetric::Tokens, 600, 1_000)];
        assert!(matches!(take(&rates, &acme, &tokens), RateOutcome::Taken(_)));
        let wait_us = 12_000_000;
        assert_eq!(take(&rates, &acme, &tokens), RateOutcome::Refused { claim: 0, wait_us });
        rates.end(EventId::new(1, 1), &acme, &tokens, &[100]);
        assert!(matches!(take(&rates, &acme, &tokens), RateOutcome::Taken(_)));
        rates.end(EventId::new(1, 1), &acme, &tokens, &[1_000]);
        // A hundred beyond a whole bucket, and 600 more: 42 seconds.
        assert_eq!(take(&rates, &acme, &tokens), RateOutcome::Refused { claim: 0, wait_us: 42_000_000 });
        clock.0.fetch_add(42_000_000, Ordering::Relaxed);
        assert!(matches!(take(&rates, &acme, &tokens), RateOutcome::Taken(_)));
    }

    #[test]
    fn what_was_not_taken_is_not_given_back() {
        let (_, rates, acme) = bench();
        let claims = [claim(RateMetric::Tokens, 600, 1_000), claim(RateMetric::Concurrent, 1, 1)];
        assert!(matches!(take(&rates, &acme, &claims), RateOutcome::Taken(_)));
        rates.end(EventId::new(2, 2), &acme, &claims, &[0, 0]);
        let standings = rates.read(&acme, &claims).now_or_never().unwrap().unwrap();
        assert_eq!(standings.iter().map(|standing| standing.taken).collect::<Vec<_>>(), [600, 1]);
    }

    #[test]
    fn rates_that_say_nothing_are_forgotten() {
        let (clock, rates, acme) = bench();
        for user in 0..10_000 {
            let subject = Subject::of(crate::domain::plan::Scope::User, &format!("u{user}")).unwrap();
            clock.0.fetch_add(1_000_000, Ordering::Relaxed);
            let claims = [RateClaim { subject, ..claim(RateMetric::Requests, 1, 60) }];
            assert!(matches!(take(&rates, &acme, &claims), RateOutcome::Taken(_)));
        }
        assert!(rates.rates.lock().all.len() <= SWEPT_MIN);
    }
}
