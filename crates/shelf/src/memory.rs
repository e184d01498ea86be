//! The memory tier: a map from key to value that never holds more than a fixed number of bytes.
//!
//! Layout: the keys are spread by hash over up to [`MAX_SHARDS`] shards, each a [`Bounded`] of its own behind a mutex, with
//! an equal share of the bytes. A lock covers one shard for one operation, in which nothing waits and no value is
//! dropped: what leaves is handed to the caller. A shard is whole after every operation, so a lock that was poisoned by
//! a panic elsewhere in its thread is used on. There is nothing to recover: a start begins empty.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::bounded::{Bounded, Class, Counters, Facts, Insertion, Terms};
use crate::policy::PolicyChoice;

/// Shards of a tier that is large enough for them.
pub const MAX_SHARDS: u64 = 16;
/// The least share of a shard in bytes. A smaller tier has fewer shards: a policy with little room chooses badly, and
/// what is larger than a share cannot be kept.
pub const MIN_SHARE_BYTES: u64 = 64 << 20;
/// Slots that a listing or a removal by condition looks at while it holds a lock.
pub const STEP_SLOTS: u32 = 1024;

/// A map that holds at most a fixed number of bytes. Shared by reference.
#[derive(Debug)]
pub struct Memory<K, V> {
    shards: Box<[Mutex<Bounded<K, V>>]>,
    hasher: RandomState,
    share_bytes: u64,
    now_s: AtomicU32,
    /// The choices of all classes; its lock is held while a class is made, so that all shards number them alike.
    classes: Mutex<Vec<(PolicyChoice, Class)>>,
}

impl<K: Hash + Eq, V: Clone> Memory<K, V> {
    /// What an entry costs beside the weight that its caller gives, in bytes, at most; see [`Bounded::ENTRY_BYTES`].
    /// What a key or a value keeps on the heap is for the caller to count.
    pub const ENTRY_BYTES: u64 = Bounded::<K, V>::ENTRY_BYTES;

    /// A tier that never holds more than `limit_bytes`, counting [`Self::ENTRY_BYTES`] for each entry, with the default
    /// policy.
    pub fn new(limit_bytes: u64) -> Self {
        Self::with_policy(limit_bytes, PolicyChoice::default())
    }

    /// A tier that never holds more than `limit_bytes`, whose default class has the policy that is chosen.
    pub fn with_policy(limit_bytes: u64, choice: PolicyChoice) -> Self {
        let shards = shards_of(limit_bytes);
        let share_bytes = limit_bytes / shards;
        Self {
            shards: (0..shards).map(|_| Mutex::new(Bounded::new(share_bytes, choice))).collect(),
            hasher: RandomState::new(),
            share_bytes,
            now_s: AtomicU32::new(0),
            classes: Mutex::new(vec![(choice, Class::default())]),
        }
    }

    /// A class for a zone that names a policy: a new one, or where there are too many ([`crate::bounded::MAX_CLASSES`])
    /// the newest that has the same choice, or else the default one. Classes stay for as long as the tier.
    pub fn class_for(&self, choice: PolicyChoice) -> Class {
        let mut classes = lock(&self.classes);
        let made = self.shards.iter().map(|shard| lock(shard).add_class(choice)).last().flatten();
        if let Some(class) = made {
            classes.push((choice, class));
            return class;
        }
        classes.iter().rev().find(|(other, _)| *other == choice).map_or(Class::default(), |(_, class)| *class)
    }

    /// Says what second it is, on the clock that the expiry of entries is given in. Until it is said, nothing expires.
    pub fn set_now(&self, now_s: u32) {
        self.now_s.store(now_s, Ordering::Relaxed);
    }

    /// The hash of `key`, the same for as long as the tier lives.
    pub fn hash(&self, key: &K) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The value under `key`, which is used by that.
    pub fn get(&self, key: &K) -> Option<V> {
        let hash = self.hash(key);
        self.shard(hash).get(hash, key).cloned()
    }

    /// [`Self::get`] of a key whose [hash](Self::hash) is known, with the place that the value is in.
    pub fn get_placed(&self, hash: u64, key: &K) -> Option<(V, u32)> {
        self.shard(hash).get_placed(hash, key).map(|(value, place)| (value.clone(), place))
    }

    /// The value in a place that [`Self::get_placed`] gave for a key with this hash, if `is_same` knows it; it is used by
    /// that. Nothing, and no miss, where there is something else by now. It spares the looks at index and key. `is_same`
    /// runs under the shard's lock: it must be quick and must not use this tier.
    pub fn get_at(&self, hash: u64, place: u32, is_same: impl FnOnce(&V) -> bool) -> Option<V> {
        self.shard(hash).get_at(hash, place, is_same).cloned()
    }

    /// The value under `key`, without a use of it and without a count.
    pub fn peek(&self, key: &K) -> Option<V> {
        let hash = self.hash(key);
        self.shard(hash).peek(hash, key).cloned()
    }

    /// Puts `value` under `key`. `weight_bytes` is what key and value keep on the heap. What it replaces hands over its
    /// place in the order, which is no use of it.
    pub fn insert(&self, key: K, value: V, weight_bytes: u64) -> Insertion<K, V> {
        self.insert_in(Class::default(), key, value, weight_bytes, None)
    }

    /// [`Self::insert`] of what is of no use at all, not even stale, after the second `expires_s`: when room is needed,
    /// it goes first. Until then, and while there is room, it stays and is found: freshness is the caller's.
    pub fn insert_until(&self, key: K, value: V, weight_bytes: u64, expires_s: Option<u32>) -> Insertion<K, V> {
        self.insert_in(Class::default(), key, value, weight_bytes, expires_s)
    }

    /// [`Self::insert_until`] into a class.
    pub fn insert_in(
        &self,
        class: Class,
        key: K,
        value: V,
        weight_bytes: u64,
        expires_s: Option<u32>,
    ) -> Insertion<K, V> {
        let hash = self.hash(&key);
        let bytes = weight_bytes.saturating_add(Self::ENTRY_BYTES);
        let (terms, now_s) = (Terms { class, expires_s }, self.now_s.load(Ordering::Relaxed));
        self.shard(hash).insert(hash, key, value, bytes, terms, now_s)
    }

    /// Takes out what is under `key`.
    pub fn remove(&self, key: &K) -> Option<V> {
        self.remove_if(key, |_| true)
    }

    /// Takes out what is under `key` if `condition` holds for it, in one step. `condition` runs under the shard's lock:
    /// it must be quick and must not use this tier.
    pub fn remove_if(&self, key: &K, condition: impl FnOnce(&V) -> bool) -> Option<V> {
        let hash = self.hash(key);
        self.shard(hash).remove_if(hash, key, condition)
    }

    /// Shows every entry to `visit`, a [`Self::page`] after the other.
    pub fn for_each(&self, mut visit: impl FnMut(&K, &V, Facts)) {
        let mut at = Some(Cursor::default());
        while let Some(cursor) = at {
            at = self.page(cursor, &mut visit);
        }
    }

    /// Shows the entries in the next [`STEP_SLOTS`] slots to `visit`, under one lock: it must be quick and must not use
    /// this tier. Begins with `Cursor::default()`; gives the cursor of the next page, `None` after the last one. What
    /// comes or goes between two pages may be seen or not; all else is seen once.
    pub fn page(&self, cursor: Cursor, visit: impl FnMut(&K, &V, Facts)) -> Option<Cursor> {
        let shard = self.shards.get(cursor.shard)?;
        let next = lock(shard).visit(cursor.slot, STEP_SLOTS, visit);
        let next = next.map_or(Cursor { shard: cursor.shard + 1, slot: 0 }, |slot| Cursor { slot, ..cursor });
        (next.shard < self.shards.len()).then_some(next)
    }

    /// Takes out every entry for which `condition` holds, [`STEP_SLOTS`] under one lock; `removed` is told of each outside
    /// of the lock. `condition` runs under a lock: it must be quick and must not use this tier. What comes meanwhile may
    /// stay.
    pub fn remove_where(&self, mut condition: impl FnMut(&K, &V, Facts) -> bool, mut removed: impl FnMut(K, V)) {
        for shard in &self.shards {
            let mut from = Some(0);
            while let Some(slot) = from {
                let (gone, next) = lock(shard).remove_where(slot, STEP_SLOTS, &mut condition);
                gone.into_iter().for_each(|(key, value)| removed(key, value));
                from = next;
            }
        }
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
        self.sum(Counters::default(), |sum, shard| sum + shard.counters())
    }

    fn sum<T>(&self, zero: T, add: impl Fn(T, &Bounded<K, V>) -> T) -> T {
        self.shards.iter().fold(zero, |sum, shard| add(sum, &lock(shard)))
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "there is at least one shard, and shard_of gives less than their number"
    )]
    fn shard(&self, hash: u64) -> MutexGuard<'_, Bounded<K, V>> {
        lock(&self.shards[shard_of(hash, self.shards.len())])
    }
}

/// Where a listing goes on. See [`Memory::page`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    shard: usize,
    slot: u32,
}

impl Cursor {
    /// It as a number, for texts.
    pub fn to_number(self) -> u64 {
        (self.shard as u64) << 32 | u64::from(self.slot)
    }

    /// The cursor of a number. One that no listing gave leads to some entries or to none.
    pub fn from_number(number: u64) -> Self {
        Self { shard: (number >> 32) as usize, slot: number as u32 }
    }
}

/// How many shards a tier of this size has.
pub(crate) fn shards_of(limit_bytes: u64) -> u64 {
    (limit_bytes / MIN_SHARE_BYTES).clamp(1, MAX_SHARDS)
}

/// The shard of a hash. It is decided by bits in the middle: the index of a shard uses those at both ends.
pub(crate) fn shard_of(hash: u64, shards: usize) -> usize {
    let middle = (hash >> 16) & u64::from(u32::MAX);
    ((middle * shards as u64) >> 32) as usize
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

    fn lru(limit_bytes: u64) -> Memory<u32, u32> {
        Memory::with_policy(limit_bytes, "lru".parse().unwrap())
    }

    #[test]
    fn small_tiers_have_fewer_shards() {
        for (limit_bytes, shards) in
            [(0, 1), (1, 1), (64 * MIB, 1), (127 * MIB, 1), (128 * MIB, 2), (1024 * MIB, 16), (10 << 30, 16)]
        {
            let memory = Memory::<u32, u32>::new(limit_bytes);
            assert_eq!(memory.shards.len(), shards, "{limit_bytes}");
            assert!(memory.share_bytes * shards as u64 <= limit_bytes);
            assert!(limit_bytes < MIN_SHARE_BYTES || memory.share_bytes >= MIN_SHARE_BYTES, "{limit_bytes}");
        }
    }

    #[test]
    fn all_shards_are_used_alike() {
        let memory = Memory::<u32, u32>::new(1024 * MIB);
        for key in 0..16_000 {
            memory.insert(key, key, 0);
        }
        for shard in &memory.shards {
            let len = lock(shard).len();
            assert!((800..1200).contains(&len), "{len}");
        }
    }

    #[test]
    fn the_largest_item_is_kept_and_a_larger_one_refused() {
        let memory = Memory::<u32, u32>::new(256 * MIB);
        let largest = memory.max_item_bytes();
        assert_eq!(largest, 64 * MIB - ENTRY);
        assert_eq!(memory.insert(1, 10, largest), Insertion::Stored { replaced: None, evicted: vec![] });
        assert_eq!(memory.insert(1, 11, largest + 1), Insertion::TooLarge { replaced: Some(10) });
        assert_eq!((memory.get(&1), memory.len(), memory.bytes()), (None, 0, 0));
        assert_eq!(memory.insert(1, 12, u64::MAX), Insertion::TooLarge { replaced: None });
        assert!(matches!(Memory::<u32, u32>::new(0).insert(1, 1, 0), Insertion::TooLarge { .. }));
        assert_eq!(memory.counters(), Counters { misses: 1, insertions: 1, refused: 2, ..Counters::default() });
    }

    #[test]
    fn the_policy_says_who_leaves_and_a_look_is_no_use() {
        let memory = lru(3 * (ENTRY + 10));
        for key in [1, 2, 3] {
            memory.insert(key, key, 10);
        }
        assert_eq!((memory.get(&1), memory.peek(&2), memory.peek(&9)), (Some(1), Some(2), None));
        assert_eq!(memory.insert(4, 4, 10), Insertion::Stored { replaced: None, evicted: vec![(2, 2)] });
        assert_eq!(memory.get(&3), Some(3));
        assert_eq!(memory.insert(3, 33, 0), Insertion::Stored { replaced: Some(3), evicted: vec![] });
        assert_eq!(memory.insert(5, 5, ENTRY), Insertion::Stored { replaced: None, evicted: vec![(1, 1), (4, 4)] });
        let counters = Counters { hits: 2, insertions: 6, evictions: 3, ..Counters::default() };
        assert_eq!(memory.counters(), counters);
    }

    #[test]
    fn a_place_is_good_for_as_long_as_its_value_is_in_it() {
        let memory = lru(2 * ENTRY);
        let hash = memory.hash(&1);
        assert_eq!(memory.get_placed(hash, &1), None);
        memory.insert(1, 10, 0);
        let (value, place) = memory.get_placed(hash, &1).unwrap();
        memory.insert(2, 20, 0);
        // It is a use: 2 leaves.
        assert_eq!((value, memory.get_at(hash, place, |value| *value == 10)), (10, Some(10)));
        memory.insert(3, 30, 0);
        assert_eq!((memory.peek(&2), memory.peek(&1)), (None, Some(10)));
        assert_eq!(memory.get_at(hash, place, |value| *value == 11), None);
        assert_eq!(memory.get_at(hash + 1, place, |_| true), None);
        assert_eq!(memory.get_at(hash, 9, |_| true), None);
        memory.remove(&1);
        assert_eq!(memory.get_at(hash, place, |_| true), None);
        assert_eq!((memory.counters().hits, memory.counters().misses), (2, 1));
    }

    #[test]
    fn what_has_expired_leaves_first_and_not_before_its_second() {
        let memory = lru(3 * ENTRY);
        memory.insert(1, 1, 0);
        memory.insert_until(2, 2, 0, Some(100));
        memory.insert_until(3, 3, 0, Some(50));
        memory.set_now(49);
        assert_eq!(memory.insert(4, 4, 0), Insertion::Stored { replaced: None, evicted: vec![(1, 1)] });
        memory.set_now(100);
        assert_eq!(memory.get(&3), Some(3));
        assert_eq!(memory.insert(5, 5, 0), Insertion::Stored { replaced: None, evicted: vec![(3, 3)] });
        assert_eq!(memory.insert(6, 6, 0), Insertion::Stored { replaced: None, evicted: vec![(2, 2)] });
        assert_eq!(memory.insert(7, 7, 0), Insertion::Stored { replaced: None, evicted: vec![(4, 4)] });
        assert_eq!((memory.counters().expired, memory.counters().evictions), (2, 2));
    }

    #[test]
    fn listing_and_removal_by_condition_see_every_entry_once() {
        let memory = Memory::<u32, u32>::new(256 * MIB);
        let (some, all) = (memory.class_for("sieve".parse().unwrap()), 5 * STEP_SLOTS);
        for key in 0..all {
            memory.insert_in(if key % 3 == 0 { some } else { Class::default() }, key, key, 7, Some(key));
        }
        let (mut seen, mut pages) = (vec![0; all as usize], 0);
        let mut at = Some(Cursor::default());
        while let Some(cursor) = at {
            at = memory.page(cursor, |key, value, facts| {
                seen[*key as usize] += 1;
                assert_eq!((value, facts.bytes, facts.expires_s), (key, ENTRY + 7, Some(*key)));
                assert_eq!(facts.class == some, key % 3 == 0);
            });
            assert!(at.is_none_or(|cursor| Cursor::from_number(cursor.to_number()) == cursor));
            pages += 1;
        }
        assert!(pages >= 5 && seen.iter().all(|times| *times == 1), "{pages}");
        let mut removed = 0;
        memory.remove_where(|key, _, _| key % 2 == 0, |key, _| removed += u32::from(key % 2 == 0));
        assert_eq!((removed, memory.len()), (all / 2, all as usize / 2));
        memory.for_each(|key, _, _| assert_eq!(key % 2, 1));
    }

    #[test]
    fn classes_run_out_and_are_then_shared_with_their_like() {
        let memory = lru(256 * MIB);
        let gdsf = memory.class_for("gdsf".parse().unwrap());
        let classes: Vec<Class> = (2..16).map(|_| memory.class_for("sieve".parse().unwrap())).collect();
        assert_eq!(memory.class_for("gdsf".parse().unwrap()), gdsf);
        assert_eq!(memory.class_for("sieve".parse().unwrap()), classes[13]);
        assert_eq!(memory.class_for("lfu".parse().unwrap()), Class::default());
        assert!(classes.iter().all(|class| *class != gdsf && *class != Class::default()));
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
        let memory = Memory::<u32, Arc<[u8]>>::new(128 * MIB);
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let memory = &memory;
                scope.spawn(move || {
                    for round in 0..2_000_u32 {
                        let key = round.wrapping_mul(2_654_435_761).wrapping_add(thread) % 500;
                        memory.insert(key, Arc::from(key.to_le_bytes()), MIB);
                        let value = memory.get(&(key / 2));
                        assert!(value.is_none_or(|bytes| *bytes == (key / 2).to_le_bytes()));
                        assert!(memory.bytes() <= 128 * MIB);
                    }
                });
            }
        });
        assert!(memory.len() > 64 && memory.len() < 128);
    }
}
