//! A live miss-ratio curve: what the hit ratio of a tier would be at half its size, as it is, at twice and at four times
//! its size, by *miniature simulation* (Waldspurger, Saemundsson, Ahmad and Park, Cache Modeling and Optimization using
//! Miniature Simulations, USENIX ATC 2017).
//!
//! Keys are sampled by their hash (SHARDS: Waldspurger, Park, Garthwaite and Ahmad, FAST 2015), so of a sampled key every
//! request is seen. For each size there is a small cache of the same policy, as much smaller as there are fewer keys. When
//! these caches together would take more than [`CURVE_BYTES`], half of the sampled keys are given up and the caches
//! are halved; so the rate finds itself, and the rate never rises again.
//!
//! A few very hot or very large keys are in the sample or not, as chance has it, and a ratio of the sample alone is off by
//! ten points where they are. But what the tier really hits is known. So only the *differences* come from the sample: the
//! hit ratio at a size is the tier's own, and what the miniature cache of that size hits more or less than the one of the
//! tier's size, of all that was asked for. Hot keys are hits in both and cancel out. (SHARDS corrects its sample by the
//! number of all requests instead, which does not help with bytes.)
//!
//! It is good to a few points where a tier holds thousands of entries, and a hint where it holds a few dozen.
//!
//! The lock covers the miniature caches and what they have found; only requests for sampled keys take it.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::bounded::{Bounded, Terms};
use crate::policy::PolicyChoice;

/// What the miniature caches take in memory, at most.
pub const CURVE_BYTES: u64 = 4_000_000;
/// The sizes that are looked at, as factors of the tier's.
pub const CURVE_FACTORS: [f64; 4] = [0.5, 1.0, 2.0, 4.0];
/// Requests for sampled keys after which what was found counts half.
const WINDOW_REQUESTS: u64 = 1 << 16;
/// The highest rate of sampling, as a threshold: a sixteenth of the keys. More would be felt on the way of each hit.
const MAX_THRESHOLD: u32 = u32::MAX / 16;
/// The tier's own counters; a thread always uses the same one.
const STRIPES: usize = 16;

thread_local! {
    /// The counters that this thread uses, of every tier.
    static STRIPE: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Ordering::Relaxed) % STRIPES
    };
}

/// The curve of a tier. Shared by reference.
#[derive(Debug)]
pub struct Curve {
    /// Keys whose place is at most this are sampled.
    threshold: AtomicU32,
    stripes: [Stripe; STRIPES],
    window: Mutex<Window>,
}

/// A point of the curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurvePoint {
    /// The size, as a factor of the tier's.
    pub factor: f64,
    /// The part of the requests that would be hits, 0 to 1.
    pub request_hit_ratio: f64,
    /// The part of the bytes that would come from hits, 0 to 1.
    pub byte_hit_ratio: f64,
}

/// What was asked for and what was hit. On a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Stripe {
    requests: AtomicU64,
    bytes: AtomicU64,
    hits: AtomicU64,
    hit_bytes: AtomicU64,
}

/// The miniature caches and what they found.
#[derive(Debug)]
struct Window {
    threshold: u32,
    limit_bytes: u64,
    overhead_bytes: u64,
    minis: [Mini; CURVE_FACTORS.len()],
    /// Requests for sampled keys since the sums were halved.
    fresh: u64,
    /// What does not count any more of all that the stripes have counted.
    forgotten: Tally,
}

#[derive(Debug)]
struct Mini {
    factor: f64,
    cache: Bounded<u64, ()>,
    /// Estimates for all keys: what was hit, divided by the rate of sampling.
    hits: Sum,
}

/// What was asked for, and of that, what was hit.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    asked: Sum,
    hits: Sum,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    requests: f64,
    bytes: f64,
}

impl Curve {
    /// The curve of a tier of `limit_bytes` whose entries weigh `overhead_bytes` beside their bytes.
    pub fn new(limit_bytes: u64, choice: PolicyChoice, overhead_bytes: u64) -> Self {
        let mini = |factor| {
            let limit_bytes = mini_bytes(limit_bytes, factor, MAX_THRESHOLD);
            Mini { factor, cache: Bounded::new(limit_bytes, choice), hits: Sum::default() }
        };
        let window = Window {
            threshold: MAX_THRESHOLD,
            limit_bytes,
            overhead_bytes,
            minis: CURVE_FACTORS.map(mini),
            fresh: 0,
            forgotten: Tally::default(),
        };
        Self { threshold: AtomicU32::new(MAX_THRESHOLD), stripes: Default::default(), window: Mutex::new(window) }
    }

    /// Notes a request for `bytes` under a key with this hash, and whether the tier had it. For a key that is not sampled
    /// this is a multiplication, a comparison, and two or four additions to counters that few others write to.
    pub fn record(&self, hash: u64, bytes: u64, hit: bool) {
        self.count(bytes, hit);
        if place(hash) > self.threshold.load(Ordering::Relaxed) {
            return;
        }
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.record(hash, bytes, || self.counted());
        self.threshold.store(window.threshold, Ordering::Relaxed);
    }

    /// Notes a request for something that the tier would not have taken in, whatever its size: a miss, and nothing to keep.
    pub fn pass(&self, bytes: u64) {
        self.count(bytes, false);
    }

    fn count(&self, bytes: u64, hit: bool) {
        if let Some(stripe) = self.stripes.get(STRIPE.with(|stripe| *stripe)) {
            stripe.count(bytes, hit);
        }
    }

    /// The curve over the last requests, the older ones counting less. All zero before the first request.
    pub fn ratios(&self) -> [CurvePoint; CURVE_FACTORS.len()] {
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let Tally { asked, hits } = self.counted().less(window.forgotten);
        let same = window.minis.iter().find(|mini| mini.factor == 1.0).map_or(Sum::default(), |mini| mini.hits);
        window.minis.each_ref().map(|mini| {
            let more = mini.hits.less(same);
            CurvePoint {
                factor: mini.factor,
                request_hit_ratio: ratio(hits.requests + more.requests, asked.requests),
                byte_hit_ratio: ratio(hits.bytes + more.bytes, asked.bytes),
            }
        })
    }

    /// The part of the keys that is sampled, 0 to 1.
    pub fn rate(&self) -> f64 {
        rate(self.threshold.load(Ordering::Relaxed))
    }

    /// What it has allocated, in bytes.
    pub fn heap_bytes(&self) -> u64 {
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.minis.iter().map(|mini| mini.cache.heap_bytes() as u64).sum()
    }

    /// All that was ever counted.
    fn counted(&self) -> Tally {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        self.stripes.iter().fold(Tally::default(), |all, stripe| Tally {
            asked: all.asked.plus(Sum { requests: number(&stripe.requests), bytes: number(&stripe.bytes) }),
            hits: all.hits.plus(Sum { requests: number(&stripe.hits), bytes: number(&stripe.hit_bytes) }),
        })
    }
}

impl Stripe {
    fn count(&self, bytes: u64, hit: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if hit {
            self.hits.fetch_add(1, Ordering::Relaxed);
            self.hit_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl Window {
    fn record(&mut self, hash: u64, bytes: u64, counted: impl FnOnce() -> Tally) {
        if place(hash) > self.threshold {
            return;
        }
        let weight = 1.0 / rate(self.threshold);
        for mini in &mut self.minis {
            if mini.cache.get(hash, &hash).is_some() {
                mini.hits = mini.hits.plus(Sum { requests: weight, bytes: bytes as f64 * weight });
            } else {
                mini.cache.insert(hash, hash, (), bytes.saturating_add(self.overhead_bytes), Terms::default(), 0);
            }
        }
        while self.entries() * Bounded::<u64, ()>::ENTRY_BYTES > CURVE_BYTES {
            self.give_up_half();
        }
        self.fresh += 1;
        if self.fresh >= WINDOW_REQUESTS {
            self.fresh = 0;
            self.minis.iter_mut().for_each(|mini| mini.hits = mini.hits.half());
            let Tally { asked, hits } = counted().less(self.forgotten);
            self.forgotten.asked = self.forgotten.asked.plus(asked.half());
            self.forgotten.hits = self.forgotten.hits.plus(hits.half());
        }
    }

    fn entries(&self) -> u64 {
        self.minis.iter().map(|mini| mini.cache.len() as u64).sum()
    }

    /// Samples half as many keys. It takes time for all entries, a few ten thousand, and happens a few times in a tier's
    /// life.
    fn give_up_half(&mut self) {
        self.threshold /= 2;
        for mini in &mut self.minis {
            mini.cache.remove_where(0, u32::MAX, |hash, (), _| place(*hash) > self.threshold);
            mini.cache.set_limit(mini_bytes(self.limit_bytes, mini.factor, self.threshold));
        }
    }
}

impl Tally {
    fn less(self, other: Self) -> Self {
        Self { asked: self.asked.less(other.asked), hits: self.hits.less(other.hits) }
    }
}

impl Sum {
    fn plus(self, other: Self) -> Self {
        Self { requests: self.requests + other.requests, bytes: self.bytes + other.bytes }
    }

    fn less(self, other: Self) -> Self {
        Self { requests: self.requests - other.requests, bytes: self.bytes - other.bytes }
    }

    fn half(self) -> Self {
        Self { requests: self.requests / 2.0, bytes: self.bytes / 2.0 }
    }
}

/// Where a key stands among all, for sampling: other bits than shards and indexes use.
fn place(hash: u64) -> u32 {
    (hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32
}

fn rate(threshold: u32) -> f64 {
    (f64::from(threshold) + 1.0) / (f64::from(u32::MAX) + 1.0)
}

fn mini_bytes(limit_bytes: u64, factor: f64, threshold: u32) -> u64 {
    (limit_bytes as f64 * factor * rate(threshold)) as u64
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::{Simulation, hash};
    use crate::traces::zipf;
    use std::collections::HashSet;

    /// Replays a trace through a curve and through whole tiers; says how far they are apart at most, in points of
    /// requests and of bytes.
    fn points_apart(choice: &str, limit_bytes: u64, trace: &[(u64, u64)]) -> (f64, f64) {
        let choice: PolicyChoice = choice.parse().unwrap();
        let curve = Curve::new(limit_bytes, choice, 10);
        let mut tiers = CURVE_FACTORS.map(|factor| Simulation::new((limit_bytes as f64 * factor) as u64, choice));
        for (id, bytes) in trace {
            let hits = tiers.each_mut().map(|tier| tier.request(*id, *bytes, 10));
            curve.record(hash(*id), *bytes, hits[1]);
        }
        assert!(curve.heap_bytes() <= CURVE_BYTES);
        let (mut requests, mut bytes) = (0.0_f64, 0.0_f64);
        for ((point, tier), factor) in curve.ratios().into_iter().zip(&tiers).zip(CURVE_FACTORS) {
            let outcome = tier.outcome();
            assert_eq!(point.factor.to_bits(), factor.to_bits());
            requests = requests.max((point.request_hit_ratio - 1.0 + outcome.request_miss_ratio()).abs());
            bytes = bytes.max((point.byte_hit_ratio - 1.0 + outcome.byte_miss_ratio()).abs());
        }
        (requests * 100.0, bytes * 100.0)
    }

    #[test]
    fn it_is_near_what_whole_tiers_do() {
        let trace = zipf(0.9, 30_000, 80_000, 7);
        let footprint_bytes: u64 = 30_000 * 2_000;
        for choice in ["lru", "gdsf", "auto"] {
            let (requests, bytes) = points_apart(choice, footprint_bytes / 10, &trace);
            assert!(requests < 2.0 && bytes < 5.0, "{choice}: {requests:.1} and {bytes:.1} points");
        }
    }

    #[test]
    fn in_a_large_tier_fewer_keys_are_sampled_and_memory_is_bounded() {
        let trace = zipf(0.7, 400_000, 200_000, 8);
        let curve = Curve::new(u64::MAX, PolicyChoice::default(), 0);
        assert!((curve.rate() - 1.0 / 16.0).abs() < 0.001);
        let mut seen = HashSet::new();
        for (id, bytes) in &trace {
            curve.record(hash(*id), *bytes, !seen.insert(*id));
        }
        let (rate, bytes) = (curve.rate(), curve.heap_bytes());
        assert!(rate < 0.07 && bytes <= CURVE_BYTES && bytes > CURVE_BYTES / 8, "{rate} {bytes}");
        // Everything fits, so each key is missed once.
        let hits = 1.0 - seen.len() as f64 / trace.len() as f64;
        for point in curve.ratios() {
            assert!((point.request_hit_ratio - hits).abs() < 0.03, "{point:?} {hits}");
        }
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let curve = Curve::new(2_000, "lru".parse().unwrap(), 0);
        assert_eq!(curve.ratios().map(|point| point.request_hit_ratio), [0.0; 4]);
        let sampled = || (0..).filter(|id| place(hash(*id)) <= MAX_THRESHOLD);
        // Misses alone for a window, then hits alone for two.
        let (misses, hot) = (sampled().take(WINDOW_REQUESTS as usize), sampled().take(50).collect::<Vec<u64>>());
        misses.for_each(|id| curve.record(hash(id), 1, false));
        assert!(curve.ratios().iter().all(|point| point.request_hit_ratio == 0.0));
        for id in hot.iter().cycle().take(2 * WINDOW_REQUESTS as usize) {
            curve.record(hash(*id), 1, true);
        }
        // A half of the misses' window was forgotten at its end, a half of the rest at the end of each of the others:
        // 1/8 of it is left, beside 1/4 and 1/2 of those with hits.
        for point in curve.ratios() {
            assert!((point.request_hit_ratio - 6.0 / 7.0).abs() < 0.01, "{point:?}");
        }
    }
}
