//! The index of one folder: which entries it has, what they take, and who goes next.
//!
//! Layout: `nodes` is the slab that the policy orders, the same as the memory tier's; `records` has the rest for each of
//! its slots. `by_key` holds slot numbers under the hash of the key; the entries of one key share that hash. `due` orders
//! those that expire. Everything here is memory and takes no lock of its own: a folder keeps its index
//! behind one mutex, which is never held over a call into the file system.
//!
//! `blocks` counts what is stored and what is `reserved` for writes in flight. Writes never bring it over `limit_blocks`;
//! a scan may, and then trims.

use std::collections::HashSet;
use std::num::NonZeroU64;

use hashbrown::HashTable;

use super::format::{BLOCK_BYTES, KeyHash, Name, slices};
use crate::policy::heap::Heap;
use crate::policy::nodes::{MAX_NODES, NONE, Node, Nodes, grow};
use crate::policy::{Order, Policy, PolicyChoice};

/// The most entries of one key; a further one takes the place of the oldest.
pub const MAX_VARIANTS: usize = 64;
/// Removals that are remembered while a folder is scanned; with more, the scan adds nothing more.
const MAX_REMEMBERED: usize = 1 << 20;

/// What the index knows of an entry. A hint: the file's head says the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key_hash: [u64; 2],
    pub(crate) nonce: NonZeroU64,
    pub(crate) stored_ms: u64,
    /// `u64::MAX` while it is not known.
    pub(crate) length: u64,
    pub(crate) used_s: u32,
    pub(crate) expires_s: u32,
    pub(crate) blocks: u32,
    /// Slices that are there.
    pub(crate) present: u32,
    pub(crate) uses: u16,
    pub(crate) flags: u8,
}

/// The body follows the head; there is no slice table.
pub(crate) const WHOLE: u8 = 1;
/// Comes from a snapshot, and neither the scan nor a reader has seen the file since.
pub(crate) const UNSEEN: u8 = 2;

impl Record {
    pub(crate) fn name(&self) -> Name {
        let [low, high] = self.key_hash;
        Name { key_hash: KeyHash(u128::from(high) << 64 | u128::from(low)), nonce: self.nonce.get() }
    }

    pub(crate) fn split(key_hash: KeyHash) -> [u64; 2] {
        [key_hash.0 as u64, (key_hash.0 >> 64) as u64]
    }

    pub(crate) fn length(&self) -> Option<u64> {
        Some(self.length).filter(|&length| length != u64::MAX)
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.flags & WHOLE != 0 || self.length().is_some_and(|length| self.present >= slices(length))
    }
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// It is larger than the limit, or writes in flight hold all the room.
    Full,
    /// The policy would rather keep what is there.
    NotAdmitted,
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Index {
    nodes: Nodes,
    records: Vec<Option<Record>>,
    by_key: HashTable<u32>,
    due: Heap<u32>,
    policy: Policy,
    choice: PolicyChoice,
    blocks: u64,
    reserved: u64,
    limit_blocks: u64,
    /// Nonces that were removed since the scan began, so that it does not bring them back.
    removed: Option<HashSet<u64>>,
    /// Changes so far: a snapshot is written when there were some.
    pub(crate) changes: u64,
    pub(crate) evictions: u64,
    pub(crate) expirations: u64,
}

impl Index {
    pub(crate) fn new(limit_bytes: u64, choice: PolicyChoice) -> Self {
        Self {
            nodes: Nodes::new(),
            records: Vec::new(),
            by_key: HashTable::new(),
            due: Heap::new(),
            policy: Policy::new(choice),
            choice,
            blocks: 0,
            reserved: 0,
            limit_blocks: limit_bytes / BLOCK_BYTES,
            removed: None,
            changes: 0,
            evictions: 0,
            expirations: 0,
        }
    }

    /// Makes room for that many more entries at once.
    pub(crate) fn expect(&mut self, entries: usize) {
        self.by_key.reserve(entries, |&slot| self.nodes.at(slot).hash);
        self.records.reserve_exact(entries);
    }

    pub(crate) fn get(&self, slot: u32, nonce: NonZeroU64) -> Option<&Record> {
        self.records.get(slot as usize)?.as_ref().filter(|record| record.nonce == nonce)
    }

    pub(crate) fn get_mut(&mut self, slot: u32, nonce: NonZeroU64) -> Option<&mut Record> {
        self.records.get_mut(slot as usize)?.as_mut().filter(|record| record.nonce == nonce)
    }

    /// The entries of a key.
    pub(crate) fn find(&self, key_hash: KeyHash) -> impl Iterator<Item = (u32, &Record)> {
        let split = Record::split(key_hash);
        self.by_key.iter_hash(fold(split)).filter_map(move |&slot| {
            let record = self.records.get(slot as usize)?.as_ref()?;
            (record.key_hash == split).then_some((slot, record))
        })
    }

    pub(crate) fn slot_of(&self, name: Name) -> Option<u32> {
        self.find(name.key_hash).find(|(_, record)| record.nonce.get() == name.nonce).map(|(slot, _)| slot)
    }

    /// Takes `blocks` for a write, evicting until they fit. A new entry, of a key and in the end of so many bytes, has to
    /// be admitted by the policy where others would have to leave for it. What has left is added to `victims`, also when
    /// there is no room in the end: the files are for the caller to remove.
    pub(crate) fn reserve(
        &mut self,
        blocks: u32,
        newcomer: Option<(KeyHash, u64)>,
        now_s: u32,
        victims: &mut Vec<Name>,
    ) -> Result<(), NoRoom> {
        let blocks = u64::from(blocks);
        if self.reserved + blocks > self.limit_blocks || self.records.len() >= MAX_NODES {
            return Err(NoRoom::Full);
        }
        let fits = |index: &Self| index.blocks + blocks <= index.limit_blocks;
        self.evict_expired(now_s, victims, fits);
        if !fits(self)
            && let Some((key_hash, bytes)) = newcomer
        {
            let (hash, room_bytes) = (fold(Record::split(key_hash)), self.room_bytes());
            if !self.policy.admit(&self.nodes, hash, bytes, room_bytes) {
                return Err(NoRoom::NotAdmitted);
            }
            while !fits(self) {
                let record = self.policy.victim(&mut self.nodes, room_bytes).and_then(|slot| self.clear_slot(slot));
                // The rest is worth more than the newcomer.
                victims.push(record.ok_or(NoRoom::NotAdmitted)?.name());
                self.evictions += 1;
            }
        }
        self.evict(now_s, victims, fits);
        if !fits(self) {
            return Err(NoRoom::Full);
        }
        self.blocks += blocks;
        self.reserved += blocks;
        Ok(())
    }

    /// Gives back what [`Self::reserve`] took.
    pub(crate) fn unreserve(&mut self, blocks: u32) {
        self.reserved = self.reserved.saturating_sub(blocks.into());
        self.blocks = self.blocks.saturating_sub(blocks.into());
    }

    /// Forgets every entry, as when the folder has vanished. Writes in flight keep what they reserved.
    pub(crate) fn clear(&mut self) {
        let (reserved, removed) = (self.reserved, self.removed.take());
        let (evictions, expirations, changes) = (self.evictions, self.expirations, self.changes + 1);
        *self = Self::new(self.limit_blocks * BLOCK_BYTES, self.choice);
        (self.blocks, self.reserved, self.removed) = (reserved, reserved, removed);
        (self.evictions, self.expirations, self.changes) = (evictions, expirations, changes);
    }

    /// Removes entries until at least `blocks` were given back, or there are none.
    pub(crate) fn shed(&mut self, blocks: u32, now_s: u32) -> Vec<Name> {
        let (goal, mut victims) = (self.blocks.saturating_sub(blocks.into()), Vec::new());
        self.evict(now_s, &mut victims, |index| index.blocks <= goal);
        victims
    }

    /// Removes entries until the limit is kept to, as after a restart with a lower one, or `most` were removed.
    pub(crate) fn trim(&mut self, now_s: u32, most: usize) -> Vec<Name> {
        let (gone, mut victims) = (self.evictions + self.expirations + most as u64, Vec::new());
        let enough = |index: &Self| index.blocks <= index.limit_blocks || index.evictions + index.expirations >= gone;
        self.evict(now_s, &mut victims, enough);
        victims
    }

    /// Removes entries, the expired first, until it is enough or there are none.
    fn evict(&mut self, now_s: u32, victims: &mut Vec<Name>, enough: impl Fn(&Self) -> bool + Copy) {
        self.evict_expired(now_s, victims, enough);
        while !enough(self) {
            // A policy may refuse once for the sake of a newcomer that it was asked about before.
            let room_bytes = self.room_bytes();
            let slot = self.policy.victim(&mut self.nodes, room_bytes);
            let slot = slot.or_else(|| self.policy.victim(&mut self.nodes, room_bytes));
            let Some(record) = slot.and_then(|slot| self.clear_slot(slot)) else { break };
            self.evictions += 1;
            victims.push(record.name());
        }
    }

    /// Removes entries that have expired, the first to do so first, until it is enough or there are none.
    fn evict_expired(&mut self, now_s: u32, victims: &mut Vec<Name>, enough: impl Fn(&Self) -> bool) {
        while !enough(self)
            && let Some((expires_s, slot)) = self.due.least()
            && expires_s <= now_s
            && let Some(record) = self.take(slot)
        {
            self.expirations += 1;
            victims.push(record.name());
        }
    }

    /// Puts in an entry whose blocks are reserved, or counts them now. One that is there already stays. The names are
    /// of files to be removed by the caller.
    pub(crate) fn insert(&mut self, record: Record, reserved: bool) -> (u32, Vec<Name>) {
        if let Some(slot) = self.slot_of(record.name()) {
            if reserved {
                self.unreserve(record.blocks);
            }
            return (slot, Vec::new());
        }
        let mut variants: Vec<_> = self.find(record.name().key_hash).map(|(slot, old)| (old.stored_ms, slot)).collect();
        variants.sort_unstable();
        let beyond = (variants.len() + 1).saturating_sub(MAX_VARIANTS);
        let mut victims = Vec::new();
        for (_, slot) in variants.into_iter().take(beyond) {
            self.evictions += 1;
            victims.extend(self.take(slot).map(|old| old.name()));
        }
        if reserved {
            self.reserved = self.reserved.saturating_sub(record.blocks.into());
        } else {
            self.blocks += u64::from(record.blocks);
        }
        let bytes = u64::from(record.blocks) * BLOCK_BYTES;
        let slot = self.nodes.take_slot(Node::new(fold(record.key_hash), bytes, 0));
        if slot as usize >= self.records.len() {
            grow(&mut self.records);
            self.records.push(None);
        }
        if let Some(place) = self.records.get_mut(slot as usize) {
            *place = Some(record);
        }
        self.by_key.insert_unique(fold(record.key_hash), slot, |&slot| self.nodes.at(slot).hash);
        self.set_due(slot, record.expires_s);
        let room_bytes = self.room_bytes();
        self.policy.insert(&mut self.nodes, slot, room_bytes);
        self.changes += 1;
        (slot, victims)
    }

    /// Gives an entry `blocks` that were reserved for it. Says whether the entry is still there; if not, they are given
    /// back.
    pub(crate) fn grow(&mut self, slot: u32, nonce: NonZeroU64, blocks: u32) -> bool {
        let Some(record) = self.get_mut(slot, nonce) else {
            self.unreserve(blocks);
            return false;
        };
        record.blocks += blocks;
        record.present += 1;
        let bytes = u64::from(record.blocks) * BLOCK_BYTES;
        self.reserved = self.reserved.saturating_sub(blocks.into());
        self.policy.reweigh(&mut self.nodes, slot, bytes);
        self.changes += 1;
        true
    }

    /// Corrects what the index says by what the file says: its length (`u64::MAX` = unknown), slices that are there and
    /// blocks.
    pub(crate) fn correct(&mut self, slot: u32, nonce: NonZeroU64, length: u64, present: u32, blocks: u32) {
        let Some(record) = self.get_mut(slot, nonce) else { return };
        let before = std::mem::replace(&mut record.blocks, blocks);
        (record.length, record.present) = (length, present);
        record.flags &= !UNSEEN;
        self.blocks = (self.blocks + u64::from(blocks)).saturating_sub(before.into());
        self.policy.reweigh(&mut self.nodes, slot, u64::from(blocks) * BLOCK_BYTES);
        self.changes += 1;
    }

    /// Counts a use.
    pub(crate) fn touch(&mut self, slot: u32, nonce: NonZeroU64, now_s: u32) {
        let Some(record) = self.get_mut(slot, nonce) else { return };
        record.uses = record.uses.saturating_add(1);
        record.used_s = now_s;
        self.policy.hit(&mut self.nodes, slot);
        self.changes += 1;
    }

    /// Changes when an entry expires; 0 = never.
    pub(crate) fn expire(&mut self, slot: u32, nonce: NonZeroU64, expires_s: u32) {
        let Some(record) = self.get_mut(slot, nonce) else { return };
        record.expires_s = expires_s;
        self.set_due(slot, expires_s);
        self.changes += 1;
    }

    /// Takes an entry out. Its file is for the caller to remove.
    pub(crate) fn remove(&mut self, slot: u32, nonce: NonZeroU64) -> Option<Record> {
        self.get(slot, nonce)?;
        self.take(slot)
    }

    /// Takes an entry out of its order and of everything else.
    fn take(&mut self, slot: u32) -> Option<Record> {
        self.policy.remove(&mut self.nodes, slot);
        self.clear_slot(slot)
    }

    /// Takes an entry that is in no order any more out of everything else.
    fn clear_slot(&mut self, slot: u32) -> Option<Record> {
        let record = self.records.get_mut(slot as usize)?.take()?;
        if let Ok(entry) = self.by_key.find_entry(fold(record.key_hash), |&other| other == slot) {
            entry.remove();
        }
        self.set_due(slot, 0);
        self.nodes.free_slot(slot);
        self.blocks = self.blocks.saturating_sub(record.blocks.into());
        if let Some(removed) = &mut self.removed
            && removed.len() < MAX_REMEMBERED
        {
            removed.insert(record.nonce.get());
        }
        self.changes += 1;
        Some(record)
    }

    /// The same, of whatever is in the slot.
    pub(crate) fn remove_at(&mut self, slot: u32) -> Option<Record> {
        let nonce = self.records.get(slot as usize)?.as_ref()?.nonce;
        self.remove(slot, nonce)
    }

    /// Puts in what a snapshot or the scan has found, unless it is known already, was removed since the scan began, or is
    /// larger than the limit, which may have been lowered: that would push out all else before it goes itself. Uses count
    /// for the policy as far as it can tell many from one. The names are of files to be removed by the caller.
    pub(crate) fn restore(&mut self, record: Record) -> Vec<Name> {
        if !self.may_add(record.nonce.get()) || self.slot_of(record.name()).is_some() {
            return Vec::new();
        }
        if u64::from(record.blocks) > self.limit_blocks {
            self.evictions += 1;
            return vec![record.name()];
        }
        let (slot, victims) = self.insert(record, false);
        if record.uses > 0 {
            self.policy.hit(&mut self.nodes, slot);
        }
        victims
    }

    /// Notes that the file of a whole entry is there; says what was known of it before.
    pub(crate) fn seen(&mut self, slot: u32) -> Option<u8> {
        let record = self.records.get_mut(slot as usize)?.as_mut()?;
        let before = record.flags;
        if before & WHOLE != 0 {
            record.flags &= !UNSEEN;
        }
        Some(before)
    }

    /// From now on removals are remembered, for [`Self::may_add`].
    pub(crate) fn begin_scan(&mut self) {
        self.removed = Some(HashSet::new());
    }

    /// See [`Self::begin_scan`].
    pub(crate) fn end_scan(&mut self) {
        self.removed = None;
    }

    /// Whether what the snapshot or the scan has found and the index has not may be put in: it was not removed meanwhile.
    pub(crate) fn may_add(&self, nonce: u64) -> bool {
        self.removed.as_ref().is_none_or(|removed| removed.len() < MAX_REMEMBERED && !removed.contains(&nonce))
    }

    /// Up to `most` records from slot `from` on, and the slot to go on from; `None` at the end.
    pub(crate) fn page(&self, from: u32, most: usize) -> (Vec<(u32, Record)>, Option<u32>) {
        let mut out = Vec::new();
        for (slot, record) in self.records.iter().enumerate().skip(from as usize) {
            if out.len() >= most {
                return (out, Some(slot as u32));
            }
            out.extend(record.map(|record| (slot as u32, record)));
        }
        (out, None)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Bytes taken and reserved.
    pub(crate) fn bytes(&self) -> u64 {
        self.blocks * BLOCK_BYTES
    }

    /// What it has allocated, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.by_key.allocation_size()
            + self.nodes.heap_bytes()
            + self.records.capacity() * size_of::<Option<Record>>()
            + self.due.heap_bytes()
            + self.policy.heap_bytes()
    }

    /// What entries may take, in bytes.
    fn room_bytes(&self) -> u64 {
        self.limit_blocks.saturating_sub(self.reserved) * BLOCK_BYTES
    }

    fn set_due(&mut self, slot: u32, expires_s: u32) {
        let place = self.nodes.at(slot).due_at;
        let moved = |slot, place| self.nodes.at_mut(slot).due_at = place;
        match (place, expires_s) {
            (NONE, 0) => {}
            (NONE, expires_s) => self.due.push(expires_s, slot, moved),
            (place, 0) => {
                self.due.remove(place, moved);
                self.nodes.at_mut(slot).due_at = NONE;
            }
            (place, expires_s) => self.due.rerank(place, expires_s, moved),
        }
    }
}

/// Key hashes are evenly spread, so half of one is as good as any hash of it.
fn fold([low, high]: [u64; 2]) -> u64 {
    low ^ high.rotate_left(32)
}
