//! Addresses that present wrong credentials, and how soon one more of theirs is judged.
//!
//! A right credential of a tenant is not held up by what its neighbours do: an address here only stops the look-up of what
//! nobody knows. An address has a bucket of a minute's worth ([`crate::domain::rate`]), which a wrong credential takes from.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::domain::bound::Bound;
use crate::domain::network::Neighbour;
use crate::domain::rate;
use crate::domain::refusal::Refusal;
use crate::metering::identity::{Identities, Identity};
use crate::ports::clock::Clock;

/// Addresses that are remembered: some megabytes. When there are more, those whose minute is over are forgotten, and if that is
/// none, all: whoever has so many addresses is not held up by a limit for each.
const ADDRESSES_MAX: usize = 65_536;

/// Who presents a credential, and how often a minute it may be wrong; 0 is no limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Guest {
    /// From where, if that is known.
    pub from: Option<Neighbour>,
    /// How often.
    pub per_minute: u64,
}

/// Who presented wrong credentials within the last minute.
pub struct Strangers {
    clock: Arc<dyn Clock>,
    /// Hears of each that is not judged.
    tell: Box<dyn Fn(Bound) + Send + Sync>,
    /// When the bucket of each is full again.
    full_us: Mutex<HashMap<Neighbour, u64>>,
    /// How many there are: mostly none, and then no request asks for the lock.
    known: AtomicUsize,
}

impl Strangers {
    /// Nobody is known. `tell` hears of each credential that is not judged.
    pub fn new(clock: Arc<dyn Clock>, tell: impl Fn(Bound) + Send + Sync + 'static) -> Self {
        Self { clock, tell: Box::new(tell), full_us: Mutex::default(), known: AtomicUsize::new(0) }
    }

    /// Whose `secret` is. Where that is known here nobody asks for its `guest`; else it is judged, and the admin key compared,
    /// as long as not too many were wrong.
    ///
    /// # Errors
    /// [`Refusal::Guessing`], and those of [`Identities::find`].
    pub async fn identity(
        &self,
        identities: &Identities,
        secret: &str,
        guest: impl FnOnce() -> Guest,
    ) -> Result<Identity, Refusal> {
        if let Some(known) = identities.known(secret) {
            return known;
        }
        let guest = guest();
        self.may_try(guest).inspect_err(|_| (self.tell)(Bound::FailedKeys))?;
        let found = identities.find(secret).await;
        if matches!(found, Err(Refusal::BadKey)) {
            self.failed(guest);
        }
        found
    }

    fn may_try(&self, Guest { from, per_minute }: Guest) -> Result<(), Refusal> {
        let Some(from) = from.filter(|_| per_minute > 0 && self.known.load(Ordering::Relaxed) > 0) else {
            return Ok(());
        };
        let Some(full_us) = self.full_us.lock().get(&from).copied() else { return Ok(()) };
        let taken = rate::take(full_us, self.clock.monotonic_us(), rate::span_us(1, per_minute));
        taken.map(drop).map_err(|wait_us| Refusal::Guessing {
            retry_after_s: u32::try_from(wait_us.div_ceil(1_000_000)).unwrap_or(u32::MAX).max(1),
        })
    }

    fn failed(&self, Guest { from, per_minute }: Guest) {
        let Some(from) = from.filter(|_| per_minute > 0) else { return };
        let now = self.clock.monotonic_us();
        let mut all = self.full_us.lock();
        if all.len() >= ADDRESSES_MAX && !all.contains_key(&from) {
            all.retain(|_, full_us| *full_us > now);
            if all.len() >= ADDRESSES_MAX {
                all.clear();
            }
        }
        let full_us = all.entry(from).or_insert(now);
        // Many may have been judged at once: what they take beyond the bucket is not owed for longer than a minute.
        let then = (*full_us).max(now).saturating_add(rate::span_us(1, per_minute));
        *full_us = then.min(now.saturating_add(rate::MINUTE_US));
        self.known.store(all.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::domain::time::Micros;

    #[derive(Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now(&self) -> Micros {
            Micros(0)
        }
        fn monotonic_us(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }
        fn random(&self) -> u128 {
            0
        }
    }

    fn at(address: &str) -> Guest {
        Guest { from: Some(Neighbour::of(address.parse().unwrap())), per_minute: 60 }
    }

    #[test]
    fn an_address_fails_so_often_a_minute_and_holds_up_no_other() {
        let clock = Arc::new(Hand::default());
        let strangers = Strangers::new(clock.clone(), drop);
        let (one, other) = (at("192.0.2.1"), at("192.0.2.2"));
        for _ in 0..60 {
            assert_eq!(strangers.may_try(one), Ok(()));
            strangers.failed(one);
        }
        assert_eq!(strangers.may_try(one), Err(Refusal::Guessing { retry_after_s: 1 }));
        assert_eq!(strangers.may_try(other), Ok(()));
        assert_eq!(strangers.may_try(Guest { from: None, ..one }), Ok(()));
        assert_eq!(strangers.may_try(Guest { per_minute: 0, ..one }), Ok(()), "there is no limit");
        clock.0.store(1_000_000, Ordering::SeqCst);
        assert_eq!(strangers.may_try(one), Ok(()));
        // However many were judged at once.
        (0..10_000).for_each(|_| strangers.failed(one));
        assert_eq!(strangers.may_try(one), Err(Refusal::Guessing { retry_after_s: 1 }));
        clock.0.store(2_000_000, Ordering::SeqCst);
        assert_eq!(strangers.may_try(one), Ok(()));
    }

    #[test]
    fn no_more_addresses_are_remembered_than_there_is_room_for() {
        let strangers = Strangers::new(Arc::new(Hand::default()), drop);
        for number in 0..=u32::try_from(ADDRESSES_MAX).unwrap() {
            let from = Some(Neighbour::of(std::net::Ipv4Addr::from_bits(number).into()));
            strangers.failed(Guest { from, per_minute: 1 });
        }
        assert_eq!(strangers.full_us.lock().len(), 1);
        assert_eq!(strangers.known.load(Ordering::Relaxed), 1);
    }
}
