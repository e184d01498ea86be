//! Numbers out of samples: medians, percentiles, ratios to the best peer, and requests with a Zipf distribution. All pure.

/// The value in the middle, or the mean of the two in the middle; `None` of nothing.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*values.get(values.len() / 2 - 1)?, upper))
}

/// The smallest value that no more than the part `1 - part` of all is above; `None` of nothing.
pub(crate) fn percentile(sorted: &[u64], part: f64) -> Option<u64> {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The median over rounds of what `own` is as a multiple of the smallest of the peers in the same round. Rounds in which
/// somebody has no value do not count; `None` if no round is left.
pub(crate) fn ratio_to_best(own: &[f64], peers: &[&[f64]]) -> Option<f64> {
    let ratios = own.iter().enumerate().filter_map(|(round, own)| {
        let best = peers.iter().filter_map(|peer| peer.get(round).copied()).min_by(f64::total_cmp)?;
        (best > 0.0).then_some(own / best)
    });
    median(ratios)
}

/// So many draws from `1..=objects`, where the probability of `n` falls as `1 / n^exponent`. The same seed, the same draws.
pub(crate) fn zipf(objects: usize, exponent: f64, draws: usize, seed: u64) -> Vec<usize> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=objects)
        .map(|n| {
            sum += (n as f64).powf(-exponent);
            sum
        })
        .collect();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut draw = || {
        let at = random.f64() * sum;
        sums.partition_point(|upto| *upto < at).min(objects - 1) + 1
    };
    (0..draws).map(|_| draw()).collect()
}

#[cfg(test)]
mod tests {
    use super::{median, percentile, ratio_to_best, zipf};

    #[test]
    fn medians() {
        for (values, expected) in [
            (vec![], None),
            (vec![3.0], Some(3.0)),
            (vec![4.0, 1.0], Some(2.5)),
            (vec![9.0, 1.0, 2.0], Some(2.0)),
            (vec![9.0, 1.0, 2.0, 4.0], Some(3.0)),
        ] {
            assert_eq!(median(values.clone()), expected, "{values:?}");
        }
    }

    #[test]
    fn percentiles() {
        let hundred: Vec<u64> = (1..=100).collect();
        for (part, expected) in [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)] {
            assert_eq!(percentile(&hundred, part), Some(expected), "{part}");
        }
        assert_eq!(percentile(&[7], 0.99), Some(7));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn the_best_peer_is_that_of_the_round() {
        // 2/4, 3/2 and 1/1: another peer is the best in each.
        assert_eq!(ratio_to_best(&[2.0, 3.0, 1.0], &[&[4.0, 6.0, 1.0], &[5.0, 2.0, 2.0]]), Some(1.0));
        assert_eq!(ratio_to_best(&[2.0], &[]), None);
        assert_eq!(ratio_to_best(&[2.0], &[&[0.0]]), None, "a peer without CPU time was not measured");
    }

    #[test]
    fn zipf_has_the_shape_that_it_should() {
        let draws = zipf(10_000, 0.9, 200_000, 1);
        assert_eq!(draws, zipf(10_000, 0.9, 200_000, 1));
        assert!(draws.iter().all(|n| (1..=10_000).contains(n)));
        let count = |wanted: usize| draws.iter().filter(|n| **n == wanted).count() as f64;
        // 2^0.9 = 1.87 and 10^0.9 = 7.9 times rarer than the first.
        assert!((1.7..2.05).contains(&(count(1) / count(2))), "{}", count(1) / count(2));
        assert!((6.9..9.1).contains(&(count(1) / count(10))), "{}", count(1) / count(10));
    }
}
