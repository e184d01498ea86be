//! Synthetic traces for tests: (id, bytes), the same at each run.

/// Requests for `objects` objects by Zipf's law with this exponent; sizes from 500 to 50,000 bytes, 2,000 on average,
/// independent of how popular an object is.
pub(crate) fn zipf(exponent: f64, objects: usize, requests: usize, seed: u64) -> Vec<(u64, u64)> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=objects)
        .map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        })
        .collect();
    let mut random = Random(seed);
    (0..requests)
        .map(|_| {
            let at = random.part() * sum;
            let id = sums.partition_point(|sum| *sum < at) as u64;
            (id, size(id))
        })
        .collect()
}

/// From 500 bytes on, distributed by Pareto's law with the exponent 10/9, cut off at 50,000.
fn size(id: u64) -> u64 {
    let part = Random(id ^ 0xABCD).part();
    (500.0 / (1.0 - part).powf(0.9)).min(50_000.0) as u64
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        crate::simulate::hash(self.0)
    }

    /// A number from 0 to 1.
    pub(crate) fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
