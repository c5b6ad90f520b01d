//! Seeded chance: SplitMix64 (Steele, Lea and Flood, 2014), a counter and a mixing function, so that it can be shared.

use std::sync::atomic::{AtomicU64, Ordering};

/// One stream of numbers, which follows from its seed.
pub struct Chance(AtomicU64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds are to have nothing in common.
        Self(AtomicU64::new(mixed(seed.wrapping_add(0x5851_f42d_4c95_7f2d))))
    }

    pub fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        mixed(self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP))
    }

    /// One of `0..end`; 0 where that is empty.
    pub fn below(&self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    /// One of `from..=to`.
    pub fn between(&self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True so many times in a thousand.
    pub fn per_mille(&self, times: u64) -> bool {
        self.below(1_000) < times
    }

    /// One of `of`.
    pub fn pick<T: Copy>(&self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    /// From 1 on, small ones as often as large ones: what happens early is as likely as what happens late.
    pub fn early_or_late(&self, most: u64) -> u64 {
        let bits = self.below(u64::from(most.max(2).ilog2()) + 1);
        self.between(1 << bits, (2 << bits).min(most.max(2)).max(1 << bits))
    }
}

/// The finalizer of SplitMix64.
pub fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
