//! A sketch of how often hashes were seen lately: a count-min sketch of 4-bit counters that are halved from time to time
//! (Einziger, Friedman and Manes, TinyLFU, ACM Transactions on Storage 2017).
//!
//! Layout: words of 16 counters; each hash has a counter in 4 words, a quarter of the word for each row, and its estimate
//! is the least of the four. There is a word for each entry of the cache. The sketch grows by doubling: a word's number
//! is the low bits of a hash, so the two halves of the larger one both begin as the smaller one, and every estimate stays
//! as it was.

/// Rows: counters that each hash has.
const ROWS: u32 = 4;
/// The most that a counter counts to.
pub(crate) const MAX_COUNT: u8 = 15;
/// Counters are halved when this many were seen for each word.
const SEEN_PER_WORD: u64 = 10;
/// Words of the smallest sketch.
const MIN_WORDS: usize = 64;
/// The most words, which bounds how long halving and growing hold the lock that the cache is under (128 MiB).
const MAX_WORDS: usize = 1 << 24;
/// What an entry costs here at most: its word, twice, because the number of words is a power of two.
pub(crate) const SKETCH_BYTES: usize = 2 * size_of::<u64>();

/// All counters of a word without their highest bit: what is left of a word that was shifted right by one.
const HALVES: u64 = 0x7777_7777_7777_7777;

/// Counts of hashes.
#[derive(Debug)]
pub(crate) struct Sketch {
    words: Vec<u64>,
    seen: u64,
}

impl Sketch {
    pub(crate) const fn new() -> Self {
        Self { words: Vec::new(), seen: 0 }
    }

    /// Counts a hash; the cache has `entries` now.
    pub(crate) fn see(&mut self, hash: u64, entries: usize) {
        while self.words.len() < entries.clamp(MIN_WORDS, MAX_WORDS) {
            self.double();
        }
        for row in 0..ROWS {
            let (word, shift) = self.place(hash, row);
            if let Some(word) = self.words.get_mut(word)
                && (*word >> shift) & u64::from(MAX_COUNT) < u64::from(MAX_COUNT)
            {
                *word += 1 << shift;
            }
        }
        self.seen += 1;
        if self.seen >= self.words.len() as u64 * SEEN_PER_WORD {
            self.halve();
        }
    }

    /// How often a hash was seen: never less than the truth, up to [`MAX_COUNT`] and since the counters were halved.
    pub(crate) fn estimate(&self, hash: u64) -> u8 {
        let count = |row| {
            let (word, shift) = self.place(hash, row);
            self.words.get(word).map_or(0, |word| ((word >> shift) & u64::from(MAX_COUNT)) as u8)
        };
        (0..ROWS).map(count).min().unwrap_or(0)
    }

    /// What it has allocated.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    /// The word of a row, and where in it the counter begins.
    fn place(&self, hash: u64, row: u32) -> (usize, u32) {
        // A rotation and an odd factor for each row: rows must not share their collisions.
        let mixed = (hash.rotate_left(row * 16) ^ u64::from(row)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = mixed ^ (mixed >> 32);
        let word = mixed as usize & self.words.len().wrapping_sub(1);
        (word, (row * 4 + (mixed >> 60) as u32 % 4) * 4)
    }

    fn double(&mut self) {
        if self.words.is_empty() {
            self.words = vec![0; MIN_WORDS];
        } else {
            self.words.extend_from_within(..);
        }
    }

    fn halve(&mut self) {
        for word in &mut self.words {
            *word = (*word >> 1) & HALVES;
        }
        self.seen /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        (n + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93)
    }

    #[test]
    fn it_counts_up_to_the_most_and_never_too_little() {
        let mut sketch = Sketch::new();
        assert_eq!(sketch.estimate(hash(1)), 0);
        for n in 0..40 {
            for _ in 0..n % 20 {
                sketch.see(hash(n), 1000);
            }
        }
        for n in 0..40 {
            assert!(u64::from(sketch.estimate(hash(n))) >= (n % 20).min(15), "{n}");
        }
        let unseen = (100..1100).filter(|n| sketch.estimate(hash(*n)) == 0).count();
        assert!(unseen > 990, "{unseen}");
    }

    #[test]
    fn growing_keeps_every_estimate() {
        let mut sketch = Sketch::new();
        for n in 0..100 {
            sketch.see(hash(n % 30), 1);
        }
        let before: Vec<u8> = (0..60).map(|n| sketch.estimate(hash(n))).collect();
        while sketch.words.len() < 1024 {
            sketch.double();
        }
        assert_eq!(before, (0..60).map(|n| sketch.estimate(hash(n))).collect::<Vec<_>>());
    }

    #[test]
    fn counts_are_halved_when_ten_for_each_word_were_seen() {
        let mut sketch = Sketch::new();
        for _ in 0..MIN_WORDS as u64 * SEEN_PER_WORD - 1 {
            sketch.see(hash(1), 0);
        }
        assert_eq!(sketch.estimate(hash(1)), 15);
        sketch.see(hash(1), 0);
        assert_eq!((sketch.estimate(hash(1)), sketch.seen), (7, MIN_WORDS as u64 * SEEN_PER_WORD / 2));
        assert_eq!(sketch.heap_bytes(), MIN_WORDS * 8);
    }
}
