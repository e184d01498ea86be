//! A factor of `auto`'s rates: a value for each of its levels, learnt from the uses that there were at a level and the uses
//! that were expected there.
//!
//! Levels that are seldom seen are known badly, and whoever looks for the best finds those that are wrong the most. What
//! [`Factor::fit`] is told to take as seen already holds them back, and [`Factor::along_a_line`] has them lean on the rest.

/// What is left of a count at each adjustment: half of it is gone after 92 of them, or 12,000 requests.
const FIT_KEEP: f64 = 0.9925;
/// Uses and expected uses that each level is taken to have had already: what is seen less often than this moves little.
const PRIOR_USES: f64 = 8.0;
/// A level is not moved by more than this factor at once.
const STEP_MOST: f64 = 2.0;
/// Levels stay within this factor of 1, and finite with it.
const LEVEL_MOST: f64 = 1e12;
/// What a line through the levels counts for at each of them, in uses (the mean of a Gamma distribution of the rate).
const LINE_USES: f64 = 100.0;
/// The line is taken to be level until it has seen about as much as this: uses, times the square of their distance in
/// levels from the middle.
const LINE_PRIOR: f64 = 30.0;

/// A factor of the rate, at its levels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factor<const LEVELS: usize> {
    pub(super) levels: [Level; LEVELS],
}

/// What is known of a level.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    pub(super) value: f64,
    /// Uses of late.
    pub(super) used: f64,
    /// The sum of the rates over the time that was waited, as they are now.
    pub(super) expected: f64,
}

impl<const LEVELS: usize> Factor<LEVELS> {
    pub(super) fn new(value: impl Fn(usize) -> f64) -> Self {
        Self { levels: std::array::from_fn(|level| Level { value: value(level), used: 0.0, expected: 0.0 }) }
    }

    /// The value of a level; 1 where there is no such level.
    pub(super) fn value(&self, level: usize) -> f64 {
        self.levels.get(level).map_or(1.0, |level| level.value)
    }

    /// Counts what happened at a level.
    pub(super) fn count(&mut self, level: usize, used: f64, expected: f64) {
        if let Some(level) = self.levels.get_mut(level) {
            level.used += used;
            level.expected += expected;
        }
    }

    /// Moves each level towards what was counted. It is taken to have been seen with a value of 1 for `doubt` uses already:
    /// more for a factor that may well say nothing.
    pub(super) fn fit(&mut self, doubt: f64) {
        for level in &mut self.levels {
            let ratio = (level.used + PRIOR_USES + doubt) / (level.expected + PRIOR_USES + doubt * level.value);
            // With six factors moving at once it settles if each takes less than 2/6 of the way.
            let step = ratio.sqrt().sqrt().clamp(1.0 / STEP_MOST, STEP_MOST);
            level.value = (level.value * step).clamp(1.0 / LEVEL_MOST, LEVEL_MOST);
            level.expected *= step * FIT_KEEP;
            level.used *= FIT_KEEP;
        }
    }

    /// The values, with a straight line through their logarithms taken for what is known of each of them beforehand: those
    /// of which little is known are nearly on it.
    pub(super) fn along_a_line(&self) -> [f64; LEVELS] {
        let levels = || (0_u32..).map(f64::from).zip(&self.levels);
        let mean = |of: fn(f64, &Level) -> f64| {
            let (sum, weight) = levels().fold((0.0, 0.0), |(sum, weight), (place, level)| {
                (sum + level.weight() * of(place, level), weight + level.weight())
            });
            if weight > 0.0 { sum / weight } else { 0.0 }
        };
        let (middle, height) = (mean(|place, _| place), mean(|_, level| level.value.ln()));
        let (rise, run) = levels().fold((0.0, LINE_PRIOR), |(rise, run), (place, level)| {
            let far = level.weight() * (place - middle);
            (rise + far * (level.value.ln() - height), run + far * (place - middle))
        });
        let mut values = [1.0; LEVELS];
        for (value, (place, level)) in values.iter_mut().zip(levels()) {
            let line = (height + rise / run * (place - middle)).exp();
            *value = line * (level.used + LINE_USES) / (level.expected * line / level.value + LINE_USES);
        }
        values
    }
}

impl Level {
    /// How much is known of it, in uses.
    const fn weight(&self) -> f64 {
        (self.used + self.expected) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(values: [(f64, f64); 6]) -> Factor<6> {
        Factor { levels: values.map(|(value, uses)| Level { value, used: uses, expected: uses }) }
    }

    #[test]
    fn levels_move_to_what_was_counted_and_doubt_holds_them_back() {
        let fitted = |doubt: f64| {
            let mut factor = Factor::<2>::new(|_| 1.0);
            for _ in 0..2000 {
                factor.count(0, 8.0, factor.value(0) * 2.0);
                factor.fit(doubt);
            }
            (factor.value(0), factor.value(1))
        };
        let ((free, other), (doubted, _)) = (fitted(0.0), fitted(1000.0));
        assert!((free - 4.0).abs() < 0.1, "{free}");
        assert_eq!(other, 1.0, "nothing was counted there");
        // 8 and 2 a time come to 1,067 and 267.
        assert!((doubted - (1067.0 + 1008.0) / (267.0 + 1008.0)).abs() < 0.1, "{doubted}");
        assert_eq!(Factor::<2>::new(|_| 3.0).value(2), 1.0, "there is no such level");
    }

    #[test]
    fn what_is_known_badly_is_nearly_on_the_line() {
        let seen = 1000.0;
        // Each level is half of the last one, as far as is known; of one too much was seen in few uses.
        let line =
            known([(1.0, seen), (0.5, seen), (0.25, seen), (0.125, seen), (8.0, 1.0), (1.0, 0.0)]).along_a_line();
        for (value, at_most) in line.into_iter().zip([1.1, 0.6, 0.3, 0.15, 0.08, 0.05]) {
            assert!(value < at_most && value > at_most / 2.0, "{line:?}");
        }
        // What is known well stays where it is.
        let known_well = known([(1.0, 1e6), (8.0, 1e6), (1.0, 1e6), (8.0, 1e6), (1.0, 1e6), (8.0, 1e6)]);
        let pairs = known_well.along_a_line().into_iter().zip(known_well.levels);
        pairs.for_each(|(value, level)| assert!((value / level.value - 1.0).abs() < 0.01, "{value}"));
        // A single level tells of no slope, and nothing of nothing.
        let one = known([(3.0, 5.0), (1.0, 0.0), (1.0, 0.0), (1.0, 0.0), (1.0, 0.0), (1.0, 0.0)]).along_a_line();
        assert!(one.iter().all(|value| (value - 3.0).abs() < 1e-9), "{one:?}");
        assert_eq!(Factor::<6>::new(|_| 1.0).along_a_line(), [1.0; 6]);
        let least =
            known([(LEVEL_MOST, seen), (1.0 / LEVEL_MOST, seen), (1.0, 0.0), (1.0, 0.0), (1.0, 0.0), (1.0, 0.0)]);
        assert!(least.along_a_line().iter().all(|value| value.is_finite() && *value >= 0.0), "{least:?}");
    }
}
