//! The memory tier: a map from key to value that forgets what was used least recently, so that it never holds more than
//! a fixed number of bytes.
//!
//! Layout: the keys are spread by hash over up to [`MAX_SHARDS`] shards, each an [`Lru`] of its own behind a mutex, with
//! an equal share of the bytes. A lock covers one shard for one operation, in which nothing waits and no value is
//! dropped: what leaves is handed to the caller. A shard is whole after every operation, so a lock that was poisoned by
//! a panic elsewhere in its thread is used on. There is nothing to recover: a start begins empty.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::lru::Lru;

/// Shards of a tier that is large enough for them.
pub const MAX_SHARDS: u64 = 16;
/// The least share of a shard in bytes. A smaller tier has fewer shards, so that a share holds some slices of 1 MiB.
pub const MIN_SHARE_BYTES: u64 = 8 << 20;

/// A map that holds at most a fixed number of bytes. Shared by reference.
#[derive(Debug)]
pub struct Memory<K, V> {
    shards: Box<[Mutex<Lru<K, V>>]>,
    hasher: RandomState,
    share_bytes: u64,
}

/// What became of a value that was put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Insertion<K, V> {
    /// It is there.
    Stored {
        /// What was there under the same key.
        replaced: Option<V>,
        /// What had to leave for it, least recently used first.
        evicted: Vec<(K, V)>,
    },
    /// It is larger than [`Memory::max_item_bytes`] and was not kept; what was there under its key is gone too.
    TooLarge {
        /// What was there under the same key.
        replaced: Option<V>,
    },
}

/// What a tier has done since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Lookups that found something.
    pub hits: u64,
    /// Lookups that found nothing.
    pub misses: u64,
    /// Values kept.
    pub insertions: u64,
    /// Values that left for others.
    pub evictions: u64,
    /// Values that were too large.
    pub refused: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> Memory<K, V> {
    /// What an entry costs beside the weight that its caller gives, in bytes: its places in the list and in the index,
    /// twice, because both grow by doubling. What a key or a value keeps on the heap is for the caller to count.
    pub const ENTRY_BYTES: u64 = Lru::<K, V>::ENTRY_BYTES;

    /// A tier that never holds more than `limit_bytes`, counting [`Self::ENTRY_BYTES`] for each entry.
    pub fn new(limit_bytes: u64) -> Self {
        let shards = (limit_bytes / MIN_SHARE_BYTES).clamp(1, MAX_SHARDS);
        let share_bytes = limit_bytes / shards;
        let shards = (0..shards).map(|_| Mutex::new(Lru::new(share_bytes))).collect();
        Self { shards, hasher: RandomState::new(), share_bytes }
    }

    /// The value under `key`, which becomes the most recently used.
    pub fn get(&self, key: &K) -> Option<V> {
        self.shard(key).get(key)
    }

    /// The value under `key`, without counting as a use of it.
    pub fn peek(&self, key: &K) -> Option<V> {
        self.shard(key).peek(key)
    }

    /// Puts `value` under `key`, as the most recently used. `weight_bytes` is what key and value keep on the heap.
    pub fn insert(&self, key: K, value: V, weight_bytes: u64) -> Insertion<K, V> {
        let mut shard = self.shard(&key);
        shard.insert(key, value, weight_bytes)
    }

    /// Takes out what is under `key`.
    pub fn remove(&self, key: &K) -> Option<V> {
        self.shard(key).remove_if(key, |_| true)
    }

    /// Takes out what is under `key` if `condition` holds for it, in one step. `condition` runs under the shard's lock:
    /// it must be quick and must not use this tier.
    pub fn remove_if(&self, key: &K, condition: impl FnOnce(&V) -> bool) -> Option<V> {
        self.shard(key).remove_if(key, condition)
    }

    /// The largest weight that [`Self::insert`] keeps, in bytes: a shard's share less the cost of an entry.
    pub fn max_item_bytes(&self) -> u64 {
        self.share_bytes.saturating_sub(Self::ENTRY_BYTES)
    }

    /// Entries held. Shards are counted one after the other, so it is exact only while nothing changes.
    pub fn len(&self) -> usize {
        self.sum(0, |sum, shard| sum + shard.len())
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held, with the cost of each entry; never more than the limit. As exact as [`Self::len`].
    pub fn bytes(&self) -> u64 {
        self.sum(0, |sum, shard| sum + shard.bytes())
    }

    /// What was done so far. As exact as [`Self::len`].
    pub fn counters(&self) -> Counters {
        self.sum(Counters::default(), |sum, shard| {
            let one = shard.counters();
            Counters {
                hits: sum.hits + one.hits,
                misses: sum.misses + one.misses,
                insertions: sum.insertions + one.insertions,
                evictions: sum.evictions + one.evictions,
                refused: sum.refused + one.refused,
            }
        })
    }

    fn sum<T>(&self, zero: T, add: impl Fn(T, &Lru<K, V>) -> T) -> T {
        self.shards.iter().fold(zero, |sum, shard| add(sum, &lock(shard)))
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "there is at least one shard, and a remainder is less than their number"
    )]
    fn shard(&self, key: &K) -> MutexGuard<'_, Lru<K, V>> {
        let hash = self.hasher.hash_one(key);
        lock(&self.shards[(hash % self.shards.len() as u64) as usize])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const MIB: u64 = 1 << 20;
    const ENTRY: u64 = Memory::<u32, u32>::ENTRY_BYTES;

    #[test]
    fn small_tiers_have_fewer_shards_and_shares_hold_slices() {
        for (limit_bytes, shards) in
            [(0, 1), (1, 1), (8 * MIB, 1), (15 * MIB, 1), (16 * MIB, 2), (128 * MIB, 16), (10 << 30, 16)]
        {
            let memory = Memory::<u32, u32>::new(limit_bytes);
            assert_eq!(memory.shards.len(), shards, "{limit_bytes}");
            assert!(memory.share_bytes * shards as u64 <= limit_bytes);
            assert!(limit_bytes < MIN_SHARE_BYTES || memory.share_bytes >= MIN_SHARE_BYTES, "{limit_bytes}");
        }
    }

    #[test]
    fn the_largest_item_is_kept_and_a_larger_one_refused() {
        let memory = Memory::<u32, u32>::new(32 * MIB);
        let largest = memory.max_item_bytes();
        assert_eq!(largest, 8 * MIB - ENTRY);
        assert_eq!(memory.insert(1, 10, largest), Insertion::Stored { replaced: None, evicted: vec![] });
        assert_eq!(memory.insert(1, 11, largest + 1), Insertion::TooLarge { replaced: Some(10) });
        assert_eq!((memory.get(&1), memory.len(), memory.bytes()), (None, 0, 0));
        assert_eq!(memory.insert(1, 12, u64::MAX), Insertion::TooLarge { replaced: None });
        assert!(matches!(Memory::<u32, u32>::new(0).insert(1, 1, 0), Insertion::TooLarge { .. }));
        assert_eq!(memory.counters(), Counters { misses: 1, insertions: 1, refused: 2, ..Counters::default() });
    }

    #[test]
    fn the_least_recently_used_leaves() {
        let memory = Memory::<u32, u32>::new(3 * (ENTRY + 10));
        for key in [1, 2, 3] {
            memory.insert(key, key, 10);
        }
        assert_eq!(memory.get(&1), Some(1));
        assert_eq!(memory.insert(4, 4, 10), Insertion::Stored { replaced: None, evicted: vec![(2, 2)] });
        assert_eq!(memory.insert(3, 33, 0), Insertion::Stored { replaced: Some(3), evicted: vec![] });
        assert_eq!(memory.insert(5, 5, ENTRY), Insertion::Stored { replaced: None, evicted: vec![(1, 1), (4, 4)] });
        assert_eq!(memory.counters().evictions, 3);
    }

    #[test]
    fn removal_may_depend_on_what_is_there() {
        let memory = Memory::<u32, u32>::new(MIB);
        memory.insert(1, 10, 0);
        assert_eq!(memory.remove_if(&1, |value| *value == 11), None);
        assert_eq!(memory.remove_if(&1, |value| *value == 10), Some(10));
        assert_eq!(memory.remove(&1), None);
        assert!(memory.is_empty());
    }

    #[test]
    fn a_poisoned_lock_is_used_on() {
        let memory = Arc::new(Memory::<u32, u32>::new(MIB));
        memory.insert(1, 10, 0);
        let shared = memory.clone();
        let poisoned = std::thread::spawn(move || shared.remove_if(&1, |_| panic!("on purpose"))).join();
        assert!(poisoned.is_err());
        assert_eq!(memory.get(&1), Some(10));
    }

    #[test]
    fn many_threads_stay_below_the_limit() {
        let memory = Memory::<u32, Arc<[u8]>>::new(64 * MIB);
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let memory = &memory;
                scope.spawn(move || {
                    for round in 0..2_000_u32 {
                        let key = round.wrapping_mul(2_654_435_761).wrapping_add(thread) % 500;
                        memory.insert(key, Arc::from(key.to_le_bytes()), MIB);
                        let value = memory.get(&(key / 2));
                        assert!(value.is_none_or(|bytes| *bytes == (key / 2).to_le_bytes()));
                        assert!(memory.bytes() <= 64 * MIB);
                    }
                });
            }
        });
        assert!(memory.len() > 8 && memory.len() < 64);
    }
}
