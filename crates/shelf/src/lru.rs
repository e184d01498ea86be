//! One shard of the memory tier: a map with a list through its entries, from most to least recently used.
//!
//! Layout: entries live in `slots`, a vector in which a removed entry leaves a hole that `holes` remembers and the next
//! entry fills. `index` says in which slot a key is. The list links slots by number, so that no `unsafe` is needed.

use std::collections::HashMap;
use std::hash::Hash;

use crate::memory::{Counters, Insertion};

/// A map that holds at most `limit_bytes`.
#[derive(Debug)]
pub(crate) struct Lru<K, V> {
    index: HashMap<K, usize>,
    slots: Vec<Option<Entry<K, V>>>,
    holes: Vec<usize>,
    newest: Option<usize>,
    oldest: Option<usize>,
    bytes: u64,
    limit_bytes: u64,
    counters: Counters,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    bytes: u64,
    newer: Option<usize>,
    older: Option<usize>,
}

impl<K: Hash + Eq + Clone, V: Clone> Lru<K, V> {
    /// See [`crate::Memory::ENTRY_BYTES`].
    pub(crate) const ENTRY_BYTES: u64 =
        2 * (size_of::<Option<Entry<K, V>>>() + size_of::<(K, usize)>() + size_of::<usize>()) as u64;

    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self {
            index: HashMap::new(),
            slots: Vec::new(),
            holes: Vec::new(),
            newest: None,
            oldest: None,
            bytes: 0,
            limit_bytes,
            counters: Counters::default(),
        }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        let Some(&slot) = self.index.get(key) else {
            self.counters.misses += 1;
            return None;
        };
        self.counters.hits += 1;
        self.unlink(slot);
        self.link_newest(slot);
        self.entry(slot).map(|entry| entry.value.clone())
    }

    pub(crate) fn peek(&mut self, key: &K) -> Option<V> {
        let slot = *self.index.get(key)?;
        self.entry(slot).map(|entry| entry.value.clone())
    }

    pub(crate) fn insert(&mut self, key: K, value: V, weight_bytes: u64) -> Insertion<K, V> {
        let replaced = self.remove_if(&key, |_| true);
        let bytes = weight_bytes.saturating_add(Self::ENTRY_BYTES);
        if bytes > self.limit_bytes {
            self.counters.refused += 1;
            return Insertion::TooLarge { replaced };
        }
        let mut evicted = Vec::new();
        // The sum is at most twice a limit that memory can hold, so it does not overflow.
        while self.bytes + bytes > self.limit_bytes {
            let Some(entry) = self.oldest.and_then(|slot| self.take(slot)) else { break };
            self.counters.evictions += 1;
            evicted.push((entry.key, entry.value));
        }
        self.counters.insertions += 1;
        self.bytes += bytes;
        let slot = self.fill_hole(Entry { key: key.clone(), value, bytes, newer: None, older: None });
        self.index.insert(key, slot);
        self.link_newest(slot);
        Insertion::Stored { replaced, evicted }
    }

    pub(crate) fn remove_if(&mut self, key: &K, condition: impl FnOnce(&V) -> bool) -> Option<V> {
        let slot = *self.index.get(key)?;
        if !condition(&self.entry(slot)?.value) {
            return None;
        }
        self.take(slot).map(|entry| entry.value)
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    fn entry(&mut self, slot: usize) -> Option<&mut Entry<K, V>> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Takes an entry out of list, index and slots.
    fn take(&mut self, slot: usize) -> Option<Entry<K, V>> {
        self.unlink(slot);
        let entry = self.slots.get_mut(slot)?.take()?;
        self.holes.push(slot);
        self.index.remove(&entry.key);
        self.bytes -= entry.bytes;
        Some(entry)
    }

    fn fill_hole(&mut self, entry: Entry<K, V>) -> usize {
        if let Some(hole) = self.holes.pop()
            && let Some(slot) = self.slots.get_mut(hole)
        {
            *slot = Some(entry);
            return hole;
        }
        self.slots.push(Some(entry));
        self.slots.len() - 1
    }

    /// Joins the neighbours of an entry, leaving the entry itself outside of the list.
    fn unlink(&mut self, slot: usize) {
        let Some(entry) = self.entry(slot) else { return };
        let (newer, older) = (entry.newer.take(), entry.older.take());
        match newer.and_then(|slot| self.entry(slot)) {
            Some(neighbour) => neighbour.older = older,
            None => self.newest = older,
        }
        match older.and_then(|slot| self.entry(slot)) {
            Some(neighbour) => neighbour.newer = newer,
            None => self.oldest = newer,
        }
    }

    /// Puts an entry that is outside of the list at its newest end.
    fn link_newest(&mut self, slot: usize) {
        let before = self.newest.replace(slot);
        if let Some(entry) = self.entry(slot) {
            entry.older = before;
        }
        match before.and_then(|slot| self.entry(slot)) {
            Some(neighbour) => neighbour.newer = Some(slot),
            None => self.oldest = Some(slot),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, any, prop_oneof};

    const ENTRY: u64 = Lru::<u8, u32>::ENTRY_BYTES;
    const LIMIT: u64 = 5 * ENTRY + 100;

    /// The same, said as simply as possible: a list, newest first.
    #[derive(Default)]
    struct Model(Vec<(u8, u32, u64)>);

    impl Model {
        fn bytes(&self) -> u64 {
            self.0.iter().map(|(_, _, bytes)| bytes).sum()
        }
        fn remove(&mut self, key: u8) -> Option<u32> {
            let at = self.0.iter().position(|(k, _, _)| *k == key)?;
            Some(self.0.remove(at).1)
        }
        fn get(&mut self, key: u8) -> Option<u32> {
            let at = self.0.iter().position(|(k, _, _)| *k == key)?;
            let entry = self.0.remove(at);
            self.0.insert(0, entry);
            Some(entry.1)
        }
        fn insert(&mut self, key: u8, value: u32, weight: u64) -> Insertion<u8, u32> {
            let replaced = self.remove(key);
            if weight + ENTRY > LIMIT {
                return Insertion::TooLarge { replaced };
            }
            let mut evicted = Vec::new();
            while self.bytes() + weight + ENTRY > LIMIT {
                let (key, value, _) = self.0.pop().expect("more bytes than none");
                evicted.push((key, value));
            }
            self.0.insert(0, (key, value, weight + ENTRY));
            Insertion::Stored { replaced, evicted }
        }
    }

    #[derive(Debug, Clone)]
    enum Op {
        Get(u8),
        Insert(u8, u32, u64),
        Remove(u8),
        RemoveIfEven(u8),
    }

    fn op() -> impl Strategy<Value = Op> {
        let key = || 0..10_u8;
        prop_oneof![
            key().prop_map(Op::Get),
            (key(), any::<u32>(), 0..LIMIT).prop_map(|(key, value, weight)| Op::Insert(key, value, weight)),
            (key(), any::<u32>(), 0..40_u64).prop_map(|(key, value, weight)| Op::Insert(key, value, weight)),
            key().prop_map(Op::Remove),
            key().prop_map(Op::RemoveIfEven),
        ]
    }

    /// Walks the list in both directions.
    fn check_list(lru: &mut Lru<u8, u32>, model: &Model) {
        let expected: Vec<u8> = model.0.iter().map(|(key, _, _)| *key).collect();
        let (mut down, mut at) = (Vec::new(), lru.newest);
        while let Some(entry) = at.and_then(|slot| lru.entry(slot)) {
            down.push(entry.key);
            at = entry.older;
        }
        let (mut up, mut at) = (Vec::new(), lru.oldest);
        while let Some(entry) = at.and_then(|slot| lru.entry(slot)) {
            up.insert(0, entry.key);
            at = entry.newer;
        }
        assert_eq!((&down, &up), (&expected, &expected));
        assert_eq!((lru.len(), lru.bytes()), (model.0.len(), model.bytes()));
        assert_eq!(lru.slots.len() - lru.holes.len(), lru.len());
    }

    proptest::proptest! {
        #[test]
        fn it_does_what_the_model_does(ops in proptest::collection::vec(op(), 0..200)) {
            let (mut lru, mut model) = (Lru::new(LIMIT), Model::default());
            for op in ops {
                match op {
                    Op::Get(key) => assert_eq!(lru.get(&key), model.get(key)),
                    Op::Insert(key, value, weight) => {
                        assert_eq!(lru.insert(key, value, weight), model.insert(key, value, weight));
                    }
                    Op::Remove(key) => assert_eq!(lru.remove_if(&key, |_| true), model.remove(key)),
                    Op::RemoveIfEven(key) => {
                        let even = model.0.iter().any(|(k, value, _)| *k == key && value % 2 == 0);
                        let expected = if even { model.remove(key) } else { None };
                        assert_eq!(lru.remove_if(&key, |value| value % 2 == 0), expected);
                    }
                }
                check_list(&mut lru, &model);
                assert!(lru.bytes() <= LIMIT);
            }
        }
    }
}
