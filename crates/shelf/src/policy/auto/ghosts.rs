//! What `auto` remembers of keys that are not held: a table of records that forgets the one that was idle longest.
//!
//! Layout: sets of [`WAYS`] cells; a key has its place in the set that its fingerprint (32 bits of its hash) names. In a
//! full set the record that was idle longest makes room. The table begins with [`FIRST_CELLS`] and doubles when it is
//! three quarters full, until it has as many cells as it is told that it may need: at least [`LEAST_CELLS`], then one for
//! each entry that is held, or up to twice as many, because it doubles.

use super::record::Record;

/// Cells of a set: two lines of a processor's cache. With fewer, sets fill more unevenly.
const WAYS: usize = 8;
/// Cells that a table begins with (8 KiB), so that small or idle tiers pay little.
const FIRST_CELLS: usize = 512;
/// Cells that a table may have in any case: 1 MiB, 1.6 % of a shard of 64 MiB. A small cache needs to remember much more
/// than it holds to know what is asked for again, and after which time. Only what leaves fills them.
const LEAST_CELLS: usize = 65_536;
/// What a cell costs.
const CELL_BYTES: usize = size_of::<Cell>();

/// A record and whose it is; free while the record is of nothing.
#[derive(Debug, Clone, Copy)]
struct Cell {
    print: u32,
    record: Record,
}

const FREE: Cell = Cell { print: 0, record: Record::NOTHING };

/// The table.
#[derive(Debug)]
pub(super) struct Ghosts {
    cells: Vec<Cell>,
    taken: usize,
    /// Where [`Ghosts::next`] goes on.
    hand: usize,
}

impl Ghosts {
    /// What it costs for each entry that is held, in bytes, at most, where these are more than [`LEAST_CELLS`].
    pub(super) const ENTRY_BYTES: usize = 2 * CELL_BYTES;

    pub(super) const fn new() -> Self {
        Self { cells: Vec::new(), taken: 0, hand: 0 }
    }

    /// What is remembered of a key.
    pub(super) fn find(&self, hash: u64) -> Option<Record> {
        let print = fingerprint(hash);
        let set = self.cells.get(self.set(print)..)?.iter().take(WAYS);
        set.filter(|cell| cell.record.uses > 0 && cell.print == print).map(|cell| cell.record).next()
    }

    /// What was remembered of a key; it is forgotten.
    pub(super) fn take(&mut self, hash: u64) -> Option<Record> {
        let print = fingerprint(hash);
        let set = self.set(print);
        let mut cells = self.cells.iter_mut().skip(set).take(WAYS);
        let cell = cells.find(|cell| cell.record.uses > 0 && cell.print == print)?;
        self.taken -= 1;
        Some(std::mem::replace(cell, FREE).record)
    }

    /// Remembers a key, of which nothing is remembered, while `held` entries are held. Says what was forgotten for it,
    /// with its fingerprint.
    pub(super) fn put(&mut self, hash: u64, record: Record, now: u32, held: usize) -> Option<(u32, Record)> {
        if self.taken * 4 >= self.cells.len() * 3 && self.cells.len() < held.max(LEAST_CELLS) {
            self.double(now);
        }
        let forgotten = self.place(Cell { print: fingerprint(hash), record }, now)?;
        (forgotten.record.uses > 0).then_some((forgotten.print, forgotten.record))
    }

    /// The next fingerprint and record in the order of the cells, round and round, if the next cell has one.
    pub(super) fn next(&mut self) -> Option<(u32, &mut Record)> {
        self.hand = if self.hand + 1 < self.cells.len() { self.hand + 1 } else { 0 };
        let cell = self.cells.get_mut(self.hand).filter(|cell| cell.record.uses > 0)?;
        Some((cell.print, &mut cell.record))
    }

    /// What it has allocated.
    pub(super) fn heap_bytes(&self) -> usize {
        self.cells.capacity() * CELL_BYTES
    }

    /// Puts a cell into its set, over a free one or the one that was idle longest, which it returns.
    fn place(&mut self, cell: Cell, now: u32) -> Option<Cell> {
        let set = self.set(cell.print);
        let idle = |cell: &&mut Cell| if cell.record.uses == 0 { u64::MAX } else { u64::from(cell.record.age(now)) };
        let over = self.cells.iter_mut().skip(set).take(WAYS).max_by_key(idle)?;
        let before = std::mem::replace(over, cell);
        self.taken += usize::from(before.record.uses == 0);
        Some(before)
    }

    fn double(&mut self, now: u32) {
        let cells = (self.cells.len() * 2).max(FIRST_CELLS);
        let before = std::mem::replace(&mut self.cells, vec![FREE; cells]);
        self.taken = 0;
        for cell in before.into_iter().filter(|cell| cell.record.uses > 0) {
            self.place(cell, now);
        }
    }

    /// The first cell of a fingerprint's set. The number of sets is a power of two.
    fn set(&self, print: u32) -> usize {
        let sets = (self.cells.len() / WAYS) as u64;
        let spread = print.wrapping_mul(0x9E37_79B9);
        ((u64::from(spread) * sets) >> u32::BITS) as usize * WAYS
    }
}

/// What stands for a hash.
pub(super) fn fingerprint(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u32) -> u64 {
        u64::from(n) << 32
    }

    #[test]
    fn it_remembers_what_was_idle_least() {
        let mut ghosts = Ghosts::new();
        let mut forgotten = 0;
        for n in 0..200_000 {
            forgotten += u32::from(ghosts.put(hash(n), Record::new(n, 1, 0, 0), n, 10).is_some());
        }
        assert_eq!((ghosts.cells.len(), ghosts.taken), (LEAST_CELLS, 200_000 - forgotten as usize));
        let found = |range: std::ops::Range<u32>| range.filter(|n| ghosts.find(hash(*n)).is_some()).count();
        assert_eq!(found(0..100_000), 0);
        assert!(found(190_000..200_000) > 9_900, "{}", found(190_000..200_000));
        assert_eq!(ghosts.take(hash(199_999)), Some(Record::new(199_999, 1, 0, 0)));
        assert_eq!((ghosts.take(hash(199_999)), ghosts.find(hash(199_999))), (None, None));
    }

    #[test]
    fn it_grows_with_what_is_held_and_the_hand_sees_all() {
        let mut ghosts = Ghosts::new();
        assert_eq!((ghosts.find(1), ghosts.take(1), ghosts.next()), (None, None, None));
        for n in 0..90_000 {
            ghosts.put(hash(n), Record::new(n, 1, 0, 0), n, 90_000);
        }
        assert_eq!(ghosts.cells.len(), 131_072);
        assert!(ghosts.taken > 89_000, "{}", ghosts.taken);
        assert!(ghosts.heap_bytes() <= 90_000 * Ghosts::ENTRY_BYTES);
        let seen = (0..131_072).filter(|_| ghosts.next().is_some()).count();
        assert_eq!(seen, ghosts.taken);
    }
}
