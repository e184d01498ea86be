//! Counters that each hit adds to. Threads add to places of their own, because a place that two cores write to by turns costs
//! each of them more than all else that a hit counts; who reads the metrics adds the places up.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::counter::{Atomic, Counter};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Places; threads beyond so many share them.
const PLACES: usize = 16;

/// A counter that many threads add to.
pub(crate) type ThreadsCounter = Counter<u64, PerThread>;

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct PerThread([Place<AtomicU64>; PLACES]);

/// Far enough from the next one for processors that fetch two cache lines at once.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Place<T>(T);

/// The number of this thread, from 0 on.
pub(crate) fn thread_number() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = THREADS.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

/// The place of this thread.
fn mine<T>(places: &[Place<T>; PLACES]) -> &T {
    let [first, ..] = places;
    &places.get(thread_number() % PLACES).unwrap_or(first).0
}

impl Atomic<u64> for PerThread {
    fn inc(&self) -> u64 {
        self.inc_by(1)
    }
    fn inc_by(&self, more: u64) -> u64 {
        mine(&self.0).fetch_add(more, Ordering::Relaxed)
    }
    fn get(&self) -> u64 {
        self.0.iter().map(|place| place.0.load(Ordering::Relaxed)).sum()
    }
}

/// Upper bounds of the histogram, in seconds: from a memory hit to a slow origin.
const BUCKETS_S: [f64; 10] = [0.000_1, 0.000_5, 0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 20.0];

/// A histogram of times that many threads add to. Cloning shares it.
#[derive(Clone, Default)]
pub(crate) struct Seconds(Arc<[Place<Times>; PLACES]>);

#[derive(Debug, Default)]
struct Times {
    /// The last one: above all bounds.
    buckets: [AtomicU64; BUCKETS_S.len() + 1],
    nanoseconds: AtomicU64,
}

impl fmt::Debug for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seconds")
    }
}

impl Seconds {
    /// Adds a time.
    pub(crate) fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let times = mine(&self.0);
        let bucket = BUCKETS_S.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS_S.len());
        if let Some(bucket) = times.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        times.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

impl EncodeMetric for Seconds {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let bounds = BUCKETS_S.into_iter().chain([f64::INFINITY]);
        let sum = |of: &dyn Fn(&Times) -> u64| self.0.iter().map(|place| of(&place.0)).sum::<u64>();
        let buckets: Vec<(f64, u64)> = bounds
            .enumerate()
            .map(|(at, bound)| {
                let count = |times: &Times| times.buckets.get(at).map_or(0, |bucket| bucket.load(Ordering::Relaxed));
                (bound, sum(&count))
            })
            .collect();
        let seconds = sum(&|times| times.nanoseconds.load(Ordering::Relaxed)) as f64 / 1e9;
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Seconds {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    #[test]
    fn threads_are_added_up() {
        let (counter, seconds) = (ThreadsCounter::default(), Seconds::default());
        let threads: Vec<_> = (0..2 * PLACES as u64)
            .map(|number| {
                let (counter, seconds) = (counter.clone(), seconds.clone());
                std::thread::spawn(move || {
                    counter.inc_by(number);
                    seconds.observe(Duration::from_micros(100 * number));
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("ended"));
        assert_eq!(counter.get(), 31 * 32 / 2);

        seconds.observe(Duration::from_secs(21));
        let mut registry = Registry::default();
        registry.register("time", "A time", seconds);
        let mut text = String::new();
        encode(&mut text, &registry).expect("metrics");
        for line in [
            "time_bucket{le=\"0.0001\"} 2",
            "time_bucket{le=\"0.0005\"} 6",
            "time_bucket{le=\"0.001\"} 11",
            "time_bucket{le=\"0.005\"} 32",
            "time_bucket{le=\"20.0\"} 32",
            "time_bucket{le=\"+Inf\"} 33",
            "time_count 33",
            "time_sum 21.0496",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} not in\n{text}");
        }
    }
}
