//! *Ghosts*: what left, oldest first, without the values. Who is asked for again while still a ghost left too early.
//!
//! Layout: a ring of (fingerprint, bytes) in the order of leaving, and a table from the fingerprint to the number of its
//! turn in the ring. What comes back leaves the table at once and the ring when its turn comes, so every operation is a
//! few steps. A fingerprint is 32 bits of the hash: among a million ghosts one key in 4,000 is mistaken for a ghost,
//! which costs nothing but a wrong guess.

use std::collections::VecDeque;

use hashbrown::HashTable;

/// What a ghost costs, in bytes, at most: its place in the ring, which grows by doubling, and in the table, which has at
/// worst 16 buckets for 7 ghosts.
pub(crate) const GHOST_BYTES: usize = 2 * size_of::<(u32, u32)>() + (size_of::<(u32, u32)>() + 1) * 16 / 7;

/// The ghosts of a policy.
#[derive(Debug)]
pub(crate) struct Ghosts {
    /// Fingerprints, and their bytes up to 4 GiB.
    ring: VecDeque<(u32, u32)>,
    /// Fingerprints, and the number of their newest turn.
    table: HashTable<(u32, u32)>,
    /// The number of the turn at the front of the ring; it wraps.
    front: u32,
    /// What the turns of the ring weigh.
    bytes: u64,
}

impl Ghosts {
    pub(crate) const fn new() -> Self {
        Self { ring: VecDeque::new(), table: HashTable::new(), front: 0, bytes: 0 }
    }

    /// Notes what left, then forgets the oldest until at most `most` ghosts of `room_bytes` together are kept.
    pub(crate) fn add(&mut self, hash: u64, bytes: u64, most: usize, room_bytes: u64) {
        let print = fingerprint(hash);
        let turn = self.front.wrapping_add(self.ring.len() as u32);
        self.forget(print, |_| true);
        self.table.insert_unique(spread(print), (print, turn), |(print, _)| spread(*print));
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.ring.push_back((print, bytes));
        self.bytes += u64::from(bytes);
        while self.ring.len() > most || self.bytes > room_bytes {
            let Some((print, bytes)) = self.ring.pop_front() else { break };
            let turn = self.front;
            self.front = turn.wrapping_add(1);
            self.bytes = self.bytes.saturating_sub(u64::from(bytes));
            self.forget(print, |newest| newest == turn);
        }
    }

    /// Whether it is a ghost; it is none any more.
    pub(crate) fn take(&mut self, hash: u64) -> bool {
        self.forget(fingerprint(hash), |_| true)
    }

    /// What it has allocated.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.ring.capacity() * size_of::<(u32, u32)>() + self.table.allocation_size()
    }

    fn forget(&mut self, print: u32, condition: impl Fn(u32) -> bool) -> bool {
        let found = self.table.find_entry(spread(print), |(other, turn)| *other == print && condition(*turn));
        found.map(|entry| entry.remove()).is_ok()
    }
}

fn fingerprint(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// The table wants its hashes in all 64 bits (Fibonacci hashing).
fn spread(print: u32) -> u64 {
    u64::from(print).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        n << 32
    }

    #[test]
    fn it_forgets_the_oldest_by_number_and_by_bytes() {
        let mut ghosts = Ghosts::new();
        for n in 0..5 {
            ghosts.add(hash(n), 10, 3, 1000);
        }
        assert_eq!([0, 1, 2, 3, 4].map(|n| ghosts.take(hash(n))), [false, false, true, true, true]);
        assert!(!ghosts.take(hash(4)));
        for n in 0..5 {
            ghosts.add(hash(n), 10, 100, 25);
        }
        assert_eq!([2, 3, 4].map(|n| ghosts.take(hash(n))), [false, true, true]);
        ghosts.add(hash(9), u64::MAX, 100, 1000);
        assert!(!ghosts.take(hash(9)));
    }

    #[test]
    fn what_leaves_again_is_as_young_as_its_last_leaving() {
        let mut ghosts = Ghosts::new();
        ghosts.add(hash(1), 1, 3, 1000);
        assert!(ghosts.take(hash(1)));
        for n in [2, 1, 3] {
            ghosts.add(hash(n), 1, 3, 1000);
        }
        // The first turn of 1 is over; the second is not.
        assert_eq!([1, 2, 3].map(|n| ghosts.take(hash(n))), [true, true, true]);
    }

    #[test]
    fn a_ghost_costs_what_is_said() {
        let mut ghosts = Ghosts::new();
        for n in 0..30_000_usize {
            ghosts.add(hash(n as u64), 1, 1 << 20, u64::MAX);
            assert!(n < 1000 || ghosts.heap_bytes() <= (n + 1) * (GHOST_BYTES + 1), "{n}");
        }
    }
}
