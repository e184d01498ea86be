//! Which server gets the next request: smooth weighted round robin. Pure.
//!
//! It was chosen over two random choices by load because its shares are exact and repeatable, also for a handful of
//! requests: whoever writes 3 to 1 sees 3 to 1. A server that is slow is held back by its connections' bound, one that
//! fails by its ejection.

/// Turns of the servers.
#[derive(Debug)]
pub(super) struct Wheel {
    /// For each server its weight, and what it has to its credit.
    servers: Vec<(i64, i64)>,
}

impl Wheel {
    pub(super) fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        Self { servers: weights.into_iter().map(|weight| (i64::from(weight), 0)).collect() }
    }

    /// The next of those servers that are `eligible`; none where none is. Each gains its weight, and the richest pays
    /// for all: so it comes as often as its weight says, and never in a clump.
    pub(super) fn next(&mut self, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let mut total = 0;
        let mut richest: Option<(usize, i64)> = None;
        for (index, (weight, credit)) in self.servers.iter_mut().enumerate().filter(|(index, _)| eligible(*index)) {
            *credit += *weight;
            total += *weight;
            if richest.is_none_or(|(_, most)| *credit > most) {
                richest = Some((index, *credit));
            }
        }
        let (index, _) = richest?;
        if let Some((_, credit)) = self.servers.get_mut(index) {
            *credit -= total;
        }
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns() {
        let all: &[usize] = &[0, 1, 2];
        for (weights, eligible, expected) in [
            (vec![1], all, vec![0, 0, 0]),
            (vec![1, 1], all, vec![0, 1, 0, 1]),
            (vec![3, 1], all, vec![0, 0, 1, 0, 0, 0, 1, 0]),
            (vec![5, 1, 1], all, vec![0, 0, 1, 0, 2, 0, 0]),
            (vec![1, 5, 1], &[0, 2], vec![0, 2, 0, 2]),
        ] {
            let mut wheel = Wheel::new(weights.clone());
            let turns: Vec<usize> =
                expected.iter().map(|_| wheel.next(|index| eligible.contains(&index)).expect("eligible")).collect();
            assert_eq!(turns, expected, "{weights:?}");
        }
        assert_eq!(Wheel::new([1]).next(|_| false), None);
    }

    proptest::proptest! {
        #[test]
        fn over_a_round_everyone_gets_exactly_its_weight(weights in proptest::collection::vec(1_u32..20, 1..6)) {
            let mut wheel = Wheel::new(weights.clone());
            let mut got = vec![0; weights.len()];
            for _ in 0..weights.iter().sum::<u32>() {
                got[wheel.next(|_| true).expect("eligible")] += 1;
            }
            proptest::prop_assert_eq!(got, weights);
        }
    }
}
