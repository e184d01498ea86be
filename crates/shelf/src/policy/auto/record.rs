//! What `auto` remembers of a key: when and how often it was asked for. Kept for what is held and for what left.
//!
//! Time is the number of requests that the policy has seen, in 32 bits that wrap: an entry that nobody asked for in four
//! thousand million requests looks young once more, which costs a wrong guess.

/// The largest [`Record::gap`]: 33 million requests, more than a shard sees between two uses of what is worth keeping.
pub(super) const GAP_MOST: u8 = 25;
/// Where a [`Record::gap`] has the company, in bits, before the second use.
const COMPANY_BIT: u32 = 4;

/// The history of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    /// When it was last asked for.
    pub(super) last: u32,
    /// Up to when the model knows that nobody asked for it; never before `last`.
    pub(super) counted: u32,
    /// How often it was asked for; 0 only in a record of nothing.
    pub(super) uses: u16,
    /// The binary logarithm of the usual time between two uses, rounded up, in 1..=25. Each use moves it half of the way
    /// to the last time. Before the second use, when there is none: [`Self::novelty`] and [`Self::company`].
    pub(super) gap: u8,
    /// The number of bits of the size.
    pub(super) size: u8,
}

impl Record {
    /// The record of nothing.
    pub(super) const NOTHING: Self = Self { last: 0, counted: 0, uses: 0, gap: 0, size: 0 };

    /// The record of what is asked for the first time, when so much was new (`novelty.rs`), in such company (`company.rs`).
    pub(super) const fn new(now: u32, bytes: u64, novelty: u8, company: u8) -> Self {
        Self { last: now, counted: now, uses: 1, gap: company << COMPANY_BIT | novelty, size: size(bytes) }
    }

    /// Of what was used once: how new the requests were that it came with.
    pub(super) const fn novelty(&self) -> u8 {
        self.gap & ((1 << COMPANY_BIT) - 1)
    }

    /// Of what was used once: what else was asked for.
    pub(super) const fn company(&self) -> u8 {
        self.gap >> COMPANY_BIT
    }

    /// The record, used once, when more is known of its company.
    pub(super) const fn in_company(self, company: u8) -> Self {
        Self { gap: company << COMPANY_BIT | self.novelty(), ..self }
    }

    /// The gap that a use at this time ends.
    pub(super) fn gap_now(&self, now: u32) -> u8 {
        (u32::BITS - self.age(now).leading_zeros()).clamp(1, u32::from(GAP_MOST)) as u8
    }

    /// Requests since its last use.
    pub(super) const fn age(&self, now: u32) -> u32 {
        now.wrapping_sub(self.last)
    }

    /// The record after one use more.
    pub(super) fn used(&self, now: u32, bytes: u64) -> Self {
        let gap = self.gap_now(now);
        let gap = match self.gap {
            _ if self.uses < 2 => gap,
            usual => (usual + gap + u8::from(gap > usual)) / 2,
        };
        Self { last: now, counted: now, uses: self.uses.saturating_add(1), gap, size: size(bytes) }
    }
}

/// The number of bits of a size: 0 to 64.
const fn size(bytes: u64) -> u8 {
    (u64::BITS - bytes.leading_zeros()) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_moves_the_gap_half_of_the_way() {
        let first = Record::new(100, 1000, 7, 13);
        assert_eq!((first.uses, first.novelty(), first.company(), first.size, first.age(105)), (1, 7, 13, 10, 5));
        assert_eq!(first.in_company(9), Record::new(100, 1000, 7, 9));
        // 1,000 requests are 10 bits, 3 are 2 bits.
        let second = first.used(1100, 2000);
        assert_eq!((second.uses, second.gap, second.size, second.last, second.counted), (2, 10, 11, 1100, 1100));
        assert_eq!(second.used(1103, 2000).gap, 6);
        assert_eq!(second.used(1103, 2000).used(2103, 1).gap, 8);
        // The clock wraps; ages are cut at 25 bits.
        let early = Record { last: u32::MAX - 1, ..first };
        assert_eq!((early.age(2), early.used(2, 1).gap), (4, 3));
        assert_eq!(first.used(50, u64::MAX), Record { last: 50, counted: 50, uses: 2, gap: GAP_MOST, size: 64 });
        assert_eq!(Record { uses: u16::MAX, ..first }.used(101, 1).uses, u16::MAX);
    }
}
