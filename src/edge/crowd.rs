//! How many of each are here at once: connections of an address, requests of a tenant.
//!
//! Asked once for each request, by all workers: the names are spread over shards, so that two workers seldom meet at a lock,
//! which is held for one look-up. A name that nobody has is forgotten: there are never more than connections or requests.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use parking_lot::Mutex;

/// A power of two, several times the workers that there are.
const SHARDS: usize = 64;

/// Counts by name.
pub struct Crowd<K> {
    shards: [Mutex<HashMap<K, u64>>; SHARDS],
    hasher: RandomState,
}

/// One of those that are counted, for as long as it lives.
pub struct Inside<K: Hash + Eq> {
    crowd: Arc<Crowd<K>>,
    name: K,
}

impl<K: Hash + Eq> Default for Crowd<K> {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }
}

impl<K: Hash + Eq + Clone> Crowd<K> {
    /// Counts one more of `name`; `None` where there are `max` already.
    pub fn enter(self: &Arc<Self>, name: &K, max: u64) -> Option<Inside<K>> {
        let mut here = self.shard(name)?.lock();
        match here.get_mut(name) {
            Some(count) if *count >= max => return None,
            Some(count) => *count += 1,
            None if max == 0 => return None,
            None => drop(here.insert(name.clone(), 1)),
        }
        Some(Inside { crowd: self.clone(), name: name.clone() })
    }
}

impl<K: Hash + Eq> Crowd<K> {
    fn shard(&self, name: &K) -> Option<&Mutex<HashMap<K, u64>>> {
        let hash = usize::try_from(self.hasher.hash_one(name) >> 32).unwrap_or(0);
        self.shards.get(hash % SHARDS)
    }
}

impl<K: Hash + Eq> Drop for Inside<K> {
    fn drop(&mut self) {
        let Some(mut here) = self.crowd.shard(&self.name).map(Mutex::lock) else { return };
        match here.get_mut(&self.name) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(here.remove(&self.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_of_a_name_come_in_than_it_may_have_and_none_is_remembered() {
        let crowd = Arc::<Crowd<String>>::default();
        let enter = |name: &str, max| crowd.enter(&name.to_owned(), max);
        let here: Vec<_> = (0..3).map(|_| enter("a", 3).unwrap()).collect();
        assert!(enter("a", 3).is_none() && enter("b", 0).is_none());
        let other = enter("b", 1).unwrap();
        assert!(enter("b", 1).is_none() && enter("a", 4).is_some());
        drop(here);
        assert!(enter("a", 1).is_some());
        drop(other);
        assert!(crowd.shards.iter().all(|shard| shard.lock().is_empty()));
    }

    #[test]
    fn many_threads_never_exceed_the_most_that_may_be_in() {
        let crowd = Arc::<Crowd<u8>>::default();
        let (inside, most) = (Arc::new(std::sync::atomic::AtomicU64::new(0)), 4);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let Some(_one) = crowd.enter(&1, most) else { continue };
                        assert!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < most);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(crowd.shards.iter().all(|shard| shard.lock().is_empty()));
    }
}
