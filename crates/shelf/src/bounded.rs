//! A map that never holds more than a fixed number of bytes: what the memory tier has in each shard, the disk tier as its
//! index, and the simulator and the live miss-ratio curve as their caches. It knows no locks and no clock.
//!
//! Layout: `index` finds the slot of a key by its hash. Everything about an entry stands under its slot: key and value in
//! `entries`, what policies know in `nodes`, what its removal from an order needs too. `due` holds the slots of entries
//! that expire. The caller gives the hash of a key; it must be the same each time, and good in all its 64 bits.
//!
//! Entries are in *classes* (see [`Class`]), each with a policy of its own over the same bytes. When room is needed,
//! what has expired goes first, soonest first, whatever its class. Then the class that exceeds its share the most gives
//! the victim, as its policy says. A class's share of the bytes is its share of the recent requests (hits and
//! insertions; the counts are halved every [`DECAY_REQUESTS`]): a scan through one class cannot push out the others. What
//! one class does not use, the others may.

#[cfg(test)]
mod tests;

use std::hash::Hash;
use std::ops::Add;

use hashbrown::HashTable;

use crate::policy::heap::Heap;
use crate::policy::nodes::{MAX_NODES, NONE, Node, Nodes, grow, grown_bytes};
use crate::policy::{Order, Policy, PolicyChoice};

/// The most classes of a tier.
pub const MAX_CLASSES: usize = 16;
/// After this many requests the counts from which classes have their shares are halved.
pub const DECAY_REQUESTS: u32 = 1 << 16;

/// A part of a tier with a policy of its own; made by [`Bounded::add_class`]. The default is the one that a tier begins
/// with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Class(u8);

/// What an entry is put in under.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// The class that it belongs to; one that the tier does not have means the default one.
    pub class: Class,
    /// The second after which it is of no use at all, not even stale; `None`: it is always of use.
    pub expires_s: Option<u32>,
}

/// What became of a value that was put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Insertion<K, V> {
    /// It is there.
    Stored {
        /// What was there under the same key.
        replaced: Option<V>,
        /// What had to leave for it, in the order of leaving.
        evicted: Vec<(K, V)>,
    },
    /// It could be kept, but the policy holds what is there for worth more. What was there under its key is gone too.
    Refused {
        /// What was there under the same key.
        replaced: Option<V>,
        /// What left nevertheless: it had expired, or was worth even less.
        evicted: Vec<(K, V)>,
    },
    /// It is larger than the limit and was not kept; what was there under its key is gone too.
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
    /// Values that left for others while they were of use.
    pub evictions: u64,
    /// Values that left for others because they had expired.
    pub expired: u64,
    /// Values that were too large, or that the policy did not let in.
    pub refused: u64,
}

impl Add for Counters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            hits: self.hits + other.hits,
            misses: self.misses + other.misses,
            insertions: self.insertions + other.insertions,
            evictions: self.evictions + other.evictions,
            expired: self.expired + other.expired,
            refused: self.refused + other.refused,
        }
    }
}

/// What a listing says of an entry beside key and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// What it weighs, in bytes.
    pub bytes: u64,
    /// The class it is in.
    pub class: Class,
    /// See [`Terms::expires_s`].
    pub expires_s: Option<u32>,
}

/// A map that holds at most a fixed number of bytes.
#[derive(Debug)]
pub struct Bounded<K, V> {
    index: HashTable<u32>,
    nodes: Nodes,
    entries: Vec<Option<(K, V)>>,
    due: Heap<u32>,
    classes: Vec<Members>,
    /// Requests of all classes, as far as they are counted.
    requests: u32,
    bytes: u64,
    limit_bytes: u64,
    counters: Counters,
}

/// A class and what it holds.
#[derive(Debug)]
struct Members {
    policy: Policy,
    bytes: u64,
    len: usize,
    requests: u32,
}

impl Members {
    fn new(choice: PolicyChoice) -> Self {
        Self { policy: Policy::new(choice), bytes: 0, len: 0, requests: 0 }
    }
}

impl<K: Hash + Eq, V> Bounded<K, V> {
    /// What an entry costs beside what its key and value keep on the heap, in bytes, at most: its place in the slabs and
    /// in the heap of what expires (grown by quarters), in the index (at worst 16 buckets of 5 bytes for 7 entries), and
    /// what the policies keep.
    pub const ENTRY_BYTES: u64 = (grown_bytes(size_of::<Node>())
        + grown_bytes(size_of::<Option<(K, V)>>())
        + grown_bytes(size_of::<(u32, u32)>())
        + (size_of::<u32>() + 1) * 16 / 7
        + Policy::ENTRY_BYTES) as u64;

    /// An empty map with one class.
    pub fn new(limit_bytes: u64, choice: PolicyChoice) -> Self {
        Self {
            index: HashTable::new(),
            nodes: Nodes::new(),
            entries: Vec::new(),
            due: Heap::new(),
            classes: vec![Members::new(choice)],
            requests: 0,
            bytes: 0,
            limit_bytes,
            counters: Counters::default(),
        }
    }

    /// One class more; `None` when there are [`MAX_CLASSES`].
    pub fn add_class(&mut self, choice: PolicyChoice) -> Option<Class> {
        if self.classes.len() >= MAX_CLASSES {
            return None;
        }
        self.classes.push(Members::new(choice));
        Some(Class(self.classes.len() as u8 - 1))
    }

    /// The value under `key`, which is used by that.
    pub fn get(&mut self, hash: u64, key: &K) -> Option<&V> {
        self.get_placed(hash, key).map(|(value, _)| value)
    }

    /// [`Self::get`], with the slot that the value is in.
    pub fn get_placed(&mut self, hash: u64, key: &K) -> Option<(&V, u32)> {
        let Some(slot) = self.find(hash, key) else {
            self.counters.misses += 1;
            return None;
        };
        self.hit(slot);
        Some((self.value(slot)?, slot))
    }

    /// The value in a slot that [`Self::get_placed`] gave, if `is_same` knows it; it is used by that. Nothing, and no miss,
    /// where there is something else by now. It spares the looks at index and key.
    pub fn get_at(&mut self, hash: u64, slot: u32, is_same: impl FnOnce(&V) -> bool) -> Option<&V> {
        if self.nodes.at(slot).hash != hash || !self.value(slot).is_some_and(is_same) {
            return None;
        }
        self.hit(slot);
        self.value(slot)
    }

    fn hit(&mut self, slot: u32) {
        self.counters.hits += 1;
        let class = self.nodes.at(slot).class;
        self.count_request(class);
        if let Some(members) = self.classes.get_mut(usize::from(class)) {
            members.policy.hit(&mut self.nodes, slot);
        }
    }

    /// The value under `key`, without a use of it and without a count.
    pub fn peek(&self, hash: u64, key: &K) -> Option<&V> {
        self.value(self.find(hash, key)?)
    }

    /// Puts `value` under `key`, weighing `bytes` in all, at the second `now_s`. A value that replaces another of its
    /// class takes over its place in the order, which is no use of it.
    pub fn insert(&mut self, hash: u64, key: K, value: V, bytes: u64, terms: Terms, now_s: u32) -> Insertion<K, V> {
        let class = if usize::from(terms.class.0) < self.classes.len() { terms.class.0 } else { 0 };
        let found = self.find(hash, &key);
        if bytes > self.limit_bytes {
            self.counters.refused += 1;
            let replaced = found.and_then(|slot| self.discard(slot)).map(|(_, value)| value);
            return Insertion::TooLarge { replaced };
        }
        self.count_request(class);
        if let Some(slot) = found
            && self.nodes.at(slot).class == class
        {
            return self.replace(slot, value, bytes, terms, now_s);
        }
        let replaced = found.and_then(|slot| self.discard(slot)).map(|(_, value)| value);
        self.add(Node::new(hash, bytes, class), key, value, terms, now_s, replaced)
    }

    /// Takes out what is under `key` if `condition` holds for it.
    pub fn remove_if(&mut self, hash: u64, key: &K, condition: impl FnOnce(&V) -> bool) -> Option<V> {
        let slot = self.find(hash, key)?;
        if !condition(self.value(slot)?) {
            return None;
        }
        self.discard(slot).map(|(_, value)| value)
    }

    /// Shows the entries in up to `most` slots from slot `from` on to `visit`, and says where to go on; `None` at the
    /// end. What comes or goes between two steps may be seen or not; all else is seen once.
    pub fn visit(&self, from: u32, most: u32, mut visit: impl FnMut(&K, &V, Facts)) -> Option<u32> {
        let (slots, next) = self.slots(from, most);
        for slot in slots {
            if let Some(Some((key, value))) = self.entries.get(slot as usize) {
                visit(key, value, self.facts(slot));
            }
        }
        next
    }

    /// Takes out the entries in up to `most` slots from slot `from` on for which `condition` holds; says where to go on,
    /// as [`Self::visit`] does.
    pub fn remove_where(
        &mut self,
        from: u32,
        most: u32,
        mut condition: impl FnMut(&K, &V, Facts) -> bool,
    ) -> (Vec<(K, V)>, Option<u32>) {
        let (slots, next) = self.slots(from, most);
        let mut removed = Vec::new();
        for slot in slots {
            if let Some(Some((key, value))) = self.entries.get(slot as usize)
                && condition(key, value, self.facts(slot))
            {
                removed.extend(self.discard(slot));
            }
        }
        (removed, next)
    }

    /// Changes the limit; what has to leave for that is dropped.
    pub fn set_limit(&mut self, limit_bytes: u64) {
        self.limit_bytes = limit_bytes;
        while self.bytes > self.limit_bytes
            && let Some(slot) = self.victim(0, 0)
        {
            self.counters.evictions += 1;
            self.clear(slot);
        }
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held; never more than the limit.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What the map has allocated, with what its policies keep; not what keys and values keep on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.index.allocation_size()
            + self.nodes.heap_bytes()
            + self.entries.capacity() * size_of::<Option<(K, V)>>()
            + self.due.heap_bytes()
            + self.classes.capacity() * size_of::<Members>()
            + self.classes.iter().map(|members| members.policy.heap_bytes()).sum::<usize>()
    }

    fn find(&self, hash: u64, key: &K) -> Option<u32> {
        let same = |slot: &u32| {
            self.nodes.at(*slot).hash == hash
                && matches!(self.entries.get(*slot as usize), Some(Some((other, _))) if other == key)
        };
        self.index.find(hash, same).copied()
    }

    fn value(&self, slot: u32) -> Option<&V> {
        self.entries.get(slot as usize)?.as_ref().map(|(_, value)| value)
    }

    fn facts(&self, slot: u32) -> Facts {
        let node = self.nodes.at(slot);
        let expires_s = self.due.at(node.due_at).map(|(expires_s, _)| expires_s);
        Facts { bytes: node.bytes, class: Class(node.class), expires_s }
    }

    fn slots(&self, from: u32, most: u32) -> (std::ops::Range<u32>, Option<u32>) {
        let all = self.entries.len() as u32;
        let to = from.saturating_add(most.max(1)).min(all);
        (from..to, (to < all).then_some(to))
    }

    /// Puts in what is not there, if its policy lets it.
    fn add(&mut self, node: Node, key: K, value: V, terms: Terms, now_s: u32, replaced: Option<V>) -> Insertion<K, V> {
        let (class, bytes) = (node.class, node.bytes);
        let mut evicted = Vec::new();
        if self.lacks_room(bytes) {
            self.evict_expired(bytes, now_s, &mut evicted);
        }
        if self.lacks_room(bytes) {
            let room_bytes = self.room(class);
            let admitted = self
                .classes
                .get_mut(usize::from(class))
                .is_none_or(|members| members.policy.admit(&self.nodes, node.hash, bytes, room_bytes));
            while admitted
                && self.lacks_room(bytes)
                && let Some(slot) = self.victim(class, bytes)
            {
                self.counters.evictions += 1;
                evicted.extend(self.clear(slot));
            }
            if self.lacks_room(bytes) {
                self.counters.refused += 1;
                return Insertion::Refused { replaced, evicted };
            }
        }
        self.counters.insertions += 1;
        let slot = self.nodes.take_slot(node);
        if slot as usize >= self.entries.len() {
            grow(&mut self.entries);
            self.entries.push(None);
        }
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            *entry = Some((key, value));
        }
        self.index.insert_unique(node.hash, slot, |slot| self.nodes.at(*slot).hash);
        self.set_expiry(slot, terms.expires_s);
        self.bytes += bytes;
        let room_bytes = self.room(class);
        if let Some(members) = self.classes.get_mut(usize::from(class)) {
            members.bytes += bytes;
            members.len += 1;
            members.policy.insert(&mut self.nodes, slot, room_bytes);
        }
        Insertion::Stored { replaced, evicted }
    }

    /// Puts another value into a slot. It may be the victim itself when it needs more room than it had.
    fn replace(&mut self, slot: u32, value: V, bytes: u64, terms: Terms, now_s: u32) -> Insertion<K, V> {
        let node = self.nodes.at(slot);
        let (class, before) = (node.class, node.bytes);
        let replaced = self.entries.get_mut(slot as usize).and_then(Option::as_mut);
        let replaced = replaced.map(|(_, old)| std::mem::replace(old, value));
        self.set_expiry(slot, terms.expires_s);
        self.bytes = self.bytes - before + bytes;
        if let Some(members) = self.classes.get_mut(usize::from(class)) {
            members.bytes = members.bytes - before + bytes;
            members.policy.reweigh(&mut self.nodes, slot, bytes);
        }
        let mut evicted = Vec::new();
        while self.bytes > self.limit_bytes {
            let leaver = match self.first_expired(now_s) {
                Some(leaver) => {
                    self.leave_order(leaver);
                    self.counters.expired += u64::from(leaver != slot);
                    leaver
                }
                None => {
                    // No class is empty of victims while it holds too much; were it so, this entry would go.
                    let leaver = self.victim(class, 0).unwrap_or_else(|| {
                        self.leave_order(slot);
                        slot
                    });
                    self.counters.evictions += u64::from(leaver != slot);
                    leaver
                }
            };
            let gone = self.clear(leaver);
            if leaver == slot {
                self.counters.refused += 1;
                return Insertion::Refused { replaced, evicted };
            }
            evicted.extend(gone);
        }
        self.counters.insertions += 1;
        Insertion::Stored { replaced, evicted }
    }

    fn lacks_room(&self, bytes: u64) -> bool {
        self.bytes.saturating_add(bytes) > self.limit_bytes || self.len() >= MAX_NODES
    }

    /// Evicts what has expired, soonest first, while room is needed.
    fn evict_expired(&mut self, bytes: u64, now_s: u32, evicted: &mut Vec<(K, V)>) {
        while self.lacks_room(bytes)
            && let Some(slot) = self.first_expired(now_s)
        {
            self.counters.expired += 1;
            evicted.extend(self.discard(slot));
        }
    }

    fn first_expired(&self, now_s: u32) -> Option<u32> {
        self.due.least().filter(|(expires_s, _)| *expires_s <= now_s).map(|(_, slot)| slot)
    }

    /// Lets the class that exceeds its share the most choose who leaves, for `incoming` bytes of `class`.
    fn victim(&mut self, class: u8, incoming: u64) -> Option<u32> {
        let fullest = if self.classes.len() == 1 { 0 } else { self.fullest(class, incoming) };
        let room_bytes = self.room(fullest);
        self.classes.get_mut(usize::from(fullest))?.policy.victim(&mut self.nodes, room_bytes)
    }

    fn fullest(&self, class: u8, incoming: u64) -> u8 {
        let excess = |number: u8, members: &Members| {
            let coming = if number == class { incoming } else { 0 };
            // At most 2^64 bytes in 2^17 requests: far from the ends of 128 bits.
            i128::from(members.bytes + coming) * i128::from(self.requests)
                - i128::from(self.limit_bytes) * i128::from(members.requests)
        };
        let all = (0_u8..).zip(&self.classes);
        let most = all.filter(|(_, members)| members.len > 0).max_by_key(|(number, members)| excess(*number, members));
        most.map_or(0, |(number, _)| number)
    }

    /// What a class may hold: everything if it is the only one; else its share, or what it holds where that is more.
    fn room(&self, class: u8) -> u64 {
        let Some(members) = self.classes.get(usize::from(class)) else { return 0 };
        if self.classes.len() == 1 {
            return self.limit_bytes;
        }
        let share = u128::from(self.limit_bytes) * u128::from(members.requests) / u128::from(self.requests.max(1));
        members.bytes.max(u64::try_from(share).unwrap_or(self.limit_bytes))
    }

    fn count_request(&mut self, class: u8) {
        if let Some(members) = self.classes.get_mut(usize::from(class)) {
            members.requests += 1;
            self.requests += 1;
        }
        if self.requests >= DECAY_REQUESTS {
            for members in &mut self.classes {
                members.requests /= 2;
            }
            self.requests = self.classes.iter().map(|members| members.requests).sum();
        }
    }

    fn set_expiry(&mut self, slot: u32, expires_s: Option<u32>) {
        let place = self.nodes.at(slot).due_at;
        let moved = |slot, place| self.nodes.at_mut(slot).due_at = place;
        match (place, expires_s) {
            (NONE, None) => {}
            (NONE, Some(expires_s)) => self.due.push(expires_s, slot, moved),
            (place, Some(expires_s)) => self.due.rerank(place, expires_s, moved),
            (place, None) => {
                self.due.remove(place, moved);
                self.nodes.at_mut(slot).due_at = NONE;
            }
        }
    }

    /// Takes an entry out of its order and of everything else.
    fn discard(&mut self, slot: u32) -> Option<(K, V)> {
        self.leave_order(slot);
        self.clear(slot)
    }

    fn leave_order(&mut self, slot: u32) {
        let class = usize::from(self.nodes.at(slot).class);
        if let Some(members) = self.classes.get_mut(class) {
            members.policy.remove(&mut self.nodes, slot);
        }
    }

    /// Takes an entry that is in no order any more out of everything else.
    fn clear(&mut self, slot: u32) -> Option<(K, V)> {
        self.set_expiry(slot, None);
        let Node { hash, bytes, class, .. } = *self.nodes.at(slot);
        if let Ok(found) = self.index.find_entry(hash, |other| *other == slot) {
            found.remove();
        }
        self.bytes -= bytes;
        if let Some(members) = self.classes.get_mut(usize::from(class)) {
            members.bytes -= bytes;
            members.len -= 1;
        }
        self.nodes.free_slot(slot);
        self.entries.get_mut(slot as usize)?.take()
    }
}
