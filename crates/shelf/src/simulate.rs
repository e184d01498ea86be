//! What hit ratio a tier of some size would have: a trace of requests goes through the very same code that the tiers run
//! ([`Bounded`], its policies and the division into shards), with keys and sizes alone.
//!
//! What is asked for and not there is put in at once. A request for what is there is a hit, and what is there keeps the
//! size that it came in with, even where the request names another one: that is how libCacheSim counts, whose numbers
//! these are compared with. Bytes count as the request says. What is larger than a shard is a miss each time.

use crate::bounded::{Bounded, Insertion, Terms};
use crate::memory::{shard_of, shards_of};
use crate::policy::PolicyChoice;

/// A tier without values, and what happened in it.
#[derive(Debug)]
pub struct Simulation {
    shards: Vec<Bounded<u64, ()>>,
    outcome: Outcome,
}

/// What happened in a simulation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Requests.
    pub requests: u64,
    /// Of these, misses.
    pub misses: u64,
    /// Bytes asked for.
    pub bytes: u64,
    /// Of these, bytes that were not there.
    pub missed_bytes: u64,
}

impl Simulation {
    /// An empty tier of `limit_bytes`, with as many shards as a memory tier of this size has.
    pub fn new(limit_bytes: u64, choice: PolicyChoice) -> Self {
        let shards = shards_of(limit_bytes);
        let shards = (0..shards).map(|_| Bounded::new(limit_bytes / shards, choice)).collect();
        Self { shards, outcome: Outcome::default() }
    }

    /// A request for `bytes` of the object `id`; says whether it was a hit. `overhead_bytes` is what an entry weighs beside
    /// its bytes.
    pub fn request(&mut self, id: u64, bytes: u64, overhead_bytes: u64) -> bool {
        let hash = hash(id);
        let shard = shard_of(hash, self.shards.len());
        let hit = self.shards.get_mut(shard).is_some_and(|shard| {
            let hit = shard.get(hash, &id).is_some();
            if !hit {
                let weight = bytes.saturating_add(overhead_bytes);
                let _: Insertion<u64, ()> = shard.insert(hash, id, (), weight, Terms::default(), 0);
            }
            hit
        });
        self.outcome.count(bytes, hit);
        hit
    }

    /// What happened so far.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }
}

impl Outcome {
    /// Counts a request for `bytes`. Sums stop at 2^64 - 1.
    pub fn count(&mut self, bytes: u64, hit: bool) {
        self.requests += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if !hit {
            self.misses += 1;
            self.missed_bytes = self.missed_bytes.saturating_add(bytes);
        }
    }

    /// The part of the requests that were misses, 0 to 1; 0 where there were none.
    pub fn request_miss_ratio(&self) -> f64 {
        ratio(self.misses, self.requests)
    }

    /// The part of the bytes that were missed, 0 to 1; 0 where there were none.
    pub fn byte_miss_ratio(&self) -> f64 {
        ratio(self.missed_bytes, self.bytes)
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A hash that is the same at each run (the finalizer of SplitMix64, Steele, Lea and Flood, OOPSLA 2014).
pub(crate) fn hash(id: u64) -> u64 {
    let mixed = id.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MIN_SHARE_BYTES;
    use crate::traces::zipf;

    fn replay(limit_bytes: u64, choice: &str, trace: &[(u64, u64)]) -> Outcome {
        let mut simulation = Simulation::new(limit_bytes, choice.parse().unwrap());
        for (id, bytes) in trace {
            simulation.request(*id, *bytes, 0);
        }
        simulation.outcome()
    }

    #[test]
    fn hits_misses_and_bytes_are_counted() {
        let mut simulation = Simulation::new(30, "lru".parse().unwrap());
        // 1 keeps the size that it came in with, 10, so that 2 has room beside it; 3 is too large.
        let hits = [(1, 10), (1, 25), (2, 20), (1, 10), (3, 31), (3, 31), (2, 20)]
            .map(|(id, bytes)| simulation.request(id, bytes, 0));
        assert_eq!(hits, [false, true, false, true, false, false, true]);
        let outcome = simulation.outcome();
        assert_eq!(outcome, Outcome { requests: 7, misses: 4, bytes: 147, missed_bytes: 92 });
        assert_eq!((outcome.request_miss_ratio(), outcome.byte_miss_ratio()), (4.0 / 7.0, 92.0 / 147.0));
        assert_eq!((Outcome::default().request_miss_ratio(), Outcome::default().byte_miss_ratio()), (0.0, 0.0));
        // With what an entry weighs, two of 15 are too much.
        let mut simulation = Simulation::new(30, "lru".parse().unwrap());
        assert_eq!([1, 2, 1].map(|id| simulation.request(id, 15, 1)), [false; 3]);
        assert!(!simulation.request(9, u64::MAX, u64::MAX));
    }

    #[test]
    fn there_are_as_many_shards_as_in_a_tier() {
        for (limit_bytes, shards) in [(1, 1), (2 * MIN_SHARE_BYTES, 2), (100 * MIN_SHARE_BYTES, 16)] {
            assert_eq!(Simulation::new(limit_bytes, PolicyChoice::default()).shards.len(), shards);
        }
    }

    /// What is known of the policies, on a trace in which sizes do not depend on popularity.
    #[test]
    fn policies_do_as_well_as_they_are_known_to() {
        let trace = zipf(0.8, 10_000, 40_000, 1);
        let limit_bytes = 10_000 * 2_000 / 20;
        let misses = |choice| replay(limit_bytes, choice, &trace).request_miss_ratio();
        let bytes = |choice| replay(limit_bytes, choice, &trace).byte_miss_ratio();
        let lru = (misses("lru"), bytes("lru"));
        for choice in ["lfu", "s3fifo", "sieve"] {
            assert!(misses(choice) < lru.0 - 0.02 && bytes(choice) < lru.1 - 0.01, "{choice}");
        }
        assert!(misses("gdsf") < lru.0 - 0.10, "GDSF heeds sizes");
        assert!(bytes("gdsf:bytes") < lru.1 - 0.01);
        assert!(misses("auto") <= misses("gdsf") + 0.01);
        assert!(bytes("auto:bytes") <= bytes("sieve") + 0.01);
        assert_eq!(replay(limit_bytes, "auto", &trace), replay(limit_bytes, "auto", &trace), "it is deterministic");
    }
}
