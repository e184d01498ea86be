//! What else is asked for around a request, for `auto`: among things that nobody has seen before, among those that are asked
//! for all the time, or among those that come back after long. What that says of a newcomer's chances the model learns.
//!
//! Company is the mean, over the requests nearby, of the binary logarithm of the gap that each of them ended; what nothing is
//! known of counts as 0. It is known in part when something comes in, and in full [`AFTER`] requests later.

use super::record::GAP_MOST;

/// Requests before one that are its company.
const BEFORE: usize = 4;
/// Requests after it.
pub(super) const AFTER: usize = 2;
/// Bits of a gap for each level of company.
const LEVEL_BITS: usize = 2;
/// The highest level.
pub(super) const COMPANY_MOST: u8 = GAP_MOST.div_ceil(LEVEL_BITS as u8);

/// The last requests.
#[derive(Debug)]
pub(super) struct Company {
    /// The gap that each ended, as a record has it, or 0; the last one first.
    gaps: [u8; BEFORE + 1 + AFTER],
}

impl Company {
    pub(super) const fn new() -> Self {
        Self { gaps: [0; BEFORE + 1 + AFTER] }
    }

    /// Takes note of a request: the gap that it ended, if it is for something that is known.
    pub(super) fn asked(&mut self, gap: Option<u8>) {
        self.gaps.rotate_right(1);
        self.gaps[0] = gap.unwrap_or(0);
    }

    /// The company of the next request, as far as it is known, in 0..=[`COMPANY_MOST`].
    pub(super) fn of_next(&self) -> u8 {
        self.level(BEFORE)
    }

    /// The company of the request that came so many before the last one, 1 to [`AFTER`].
    pub(super) fn of(&self, ago: usize) -> u8 {
        self.level(BEFORE + 1 + ago)
    }

    /// The level of so many requests.
    fn level(&self, requests: usize) -> u8 {
        let gaps = self.gaps.iter().take(requests);
        gaps.map(|gap| usize::from(*gap)).sum::<usize>().div_ceil(LEVEL_BITS * requests) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn company_is_the_mean_of_the_gaps_around() {
        let mut company = Company::new();
        assert_eq!(company.of_next(), 0);
        (0..BEFORE).for_each(|_| company.asked(Some(GAP_MOST)));
        assert_eq!(company.of_next(), COMPANY_MOST);
        // Something new, and after it two that are known: 4 × 25, 0, 9, 5 of 5, 6 and 7 requests.
        company.asked(None);
        assert_eq!(company.of_next(), 75_u8.div_ceil(2 * 4));
        company.asked(Some(9));
        assert_eq!(company.of(1), 109_u8.div_ceil(2 * 6));
        company.asked(Some(5));
        assert_eq!((company.of(2), company.of(1)), (114_u8.div_ceil(2 * 7), 89_u8.div_ceil(2 * 6)));
        (0..BEFORE + 1 + AFTER).for_each(|_| company.asked(None));
        assert_eq!((company.of_next(), company.of(AFTER)), (0, 0));
    }
}
