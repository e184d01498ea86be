//! How new the requests of the moment are, for `auto`: what is asked for among much that nobody asked for before comes back
//! more seldom than what is asked for once among much that is known.
//!
//! Time is counted in requests. What counts is by how much the last [`u32::BITS`] of them differ from what was usual of late,
//! not how many were new: a cache that fills meets less and less that is new, and would take age for novelty.

/// What is usual is an average over about so many requests.
const USUAL_REQUESTS: f32 = 1024.0;
/// The level of what is usual. One more or less is one standard deviation of as many independent requests.
const USUAL_LEVEL: u8 = 4;
/// The highest level.
pub(super) const NOVELTY_MOST: u8 = 2 * USUAL_LEVEL;

/// The requests of the moment.
#[derive(Debug)]
pub(super) struct Novelty {
    /// Which of the last requests were for what nothing is known of: a bit for each, the last one lowest.
    unknown: u32,
    /// The usual part of such requests.
    usual: f32,
}

impl Novelty {
    pub(super) const fn new() -> Self {
        Self { unknown: 0, usual: 0.5 }
    }

    /// Takes note of a request.
    pub(super) fn asked(&mut self, unknown: bool) {
        self.unknown = self.unknown << 1 | u32::from(unknown);
        self.usual += (f32::from(u8::from(unknown)) - self.usual) / USUAL_REQUESTS;
    }

    /// How much of what was asked for just now was new, in 0..=[`NOVELTY_MOST`].
    pub(super) fn level(&self) -> u8 {
        let requests = u32::BITS as f32;
        let variance = requests * self.usual * (1.0 - self.usual);
        let deviation = (self.unknown.count_ones() as f32 - requests * self.usual) / variance.max(0.25).sqrt();
        (deviation + f32::from(USUAL_LEVEL) + 0.5).clamp(0.0, f32::from(NOVELTY_MOST)) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_usual_is_not_new() {
        let mut novelty = Novelty::new();
        assert_eq!(novelty.level(), 0, "nothing was asked for, where half of it is taken to be new");
        (0..8192).for_each(|n| novelty.asked(n % 4 == 0));
        assert_eq!(novelty.level(), USUAL_LEVEL);
        // 8 of 32 are usual; the standard deviation is the root of 6.
        novelty.unknown = 0x7FF;
        assert_eq!(novelty.level(), USUAL_LEVEL + 1);
        novelty.unknown = u32::MAX;
        assert_eq!(novelty.level(), NOVELTY_MOST);
        novelty.unknown = 0;
        assert_eq!(novelty.level(), USUAL_LEVEL - 3);
        for unknown in [false, true] {
            (0..100_000).for_each(|_| novelty.asked(unknown));
            assert_eq!(novelty.level(), USUAL_LEVEL, "{unknown}");
            novelty.asked(!unknown);
            assert!(novelty.level() != USUAL_LEVEL);
        }
    }
}
