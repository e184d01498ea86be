//! Which pages are free: pure. Ranges are kept whole: what is given back joins its neighbours.

use std::collections::{BTreeMap, BTreeSet};

/// The free pages of a range, by number.
#[derive(Debug)]
pub(crate) struct Ranges {
    /// First page and length of each; no two touch.
    by_first: BTreeMap<u32, u32>,
    /// The same as length and first page.
    by_length: BTreeSet<(u32, u32)>,
}

impl Ranges {
    /// All of `pages` pages are free.
    pub(crate) fn new(pages: u32) -> Self {
        let mut ranges = Self { by_first: BTreeMap::new(), by_length: BTreeSet::new() };
        if pages > 0 {
            ranges.add(0, pages);
        }
        ranges
    }

    /// Takes so many pages, at least one, out of the smallest range that has them, and says which is the first. In
    /// logarithmic time.
    pub(crate) fn take(&mut self, pages: u32) -> Option<u32> {
        let (length, first) = *self.by_length.range((pages, 0)..).next()?;
        self.remove(first, length);
        if length > pages {
            self.add(first + pages, length - pages);
        }
        Some(first)
    }

    /// Gives back what [`Self::take`] gave. In logarithmic time.
    pub(crate) fn give_back(&mut self, mut first: u32, mut pages: u32) {
        if let Some((&before, &length)) = self.by_first.range(..first).next_back()
            && before + length == first
        {
            self.remove(before, length);
            (first, pages) = (before, length + pages);
        }
        if let Some(&length) = self.by_first.get(&(first + pages)) {
            self.remove(first + pages, length);
            pages += length;
        }
        self.add(first, pages);
    }

    fn add(&mut self, first: u32, length: u32) {
        self.by_first.insert(first, length);
        self.by_length.insert((length, first));
    }

    fn remove(&mut self, first: u32, length: u32) {
        self.by_first.remove(&first);
        self.by_length.remove(&(length, first));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_smallest_range_that_fits_is_taken_and_neighbours_join() {
        let mut ranges = Ranges::new(100);
        assert_eq!([ranges.take(10), ranges.take(20), ranges.take(5)], [Some(0), Some(10), Some(30)]);
        assert_eq!((ranges.take(66), ranges.take(65), ranges.take(1)), (None, Some(35), None));
        ranges.give_back(10, 20);
        ranges.give_back(35, 65);
        assert_eq!(ranges.take(20), Some(10), "exactly as long");
        ranges.give_back(10, 20);
        ranges.give_back(30, 5);
        ranges.give_back(0, 10);
        assert_eq!((ranges.by_first.len(), ranges.take(100)), (1, Some(0)));
        assert_eq!(Ranges::new(0).take(1), None);
    }

    proptest! {
        /// Against a map of single pages: what is taken was free, and is taken wherever a range is long enough.
        #[test]
        fn like_a_map_of_pages(steps in proptest::collection::vec((1_u32..9, any::<bool>(), any::<prop::sample::Index>()), 1..200)) {
            const PAGES: usize = 64;
            let (mut ranges, mut free, mut taken) = (Ranges::new(PAGES as u32), [true; PAGES], Vec::new());
            for (pages, give_back, which) in steps {
                if give_back && !taken.is_empty() {
                    let (first, pages): (u32, u32) = taken.swap_remove(which.index(taken.len()));
                    free[first as usize..(first + pages) as usize].fill(true);
                    ranges.give_back(first, pages);
                    continue;
                }
                let fits = free.windows(pages as usize).any(|window| window.iter().all(|free| *free));
                let got = ranges.take(pages);
                prop_assert_eq!(got.is_some(), fits);
                if let Some(first) = got {
                    let range = &mut free[first as usize..(first + pages) as usize];
                    prop_assert!(range.iter().all(|free| *free));
                    range.fill(false);
                    taken.push((first, pages));
                }
            }
            let whole = free.chunk_by(|a, b| a == b).filter(|chunk| chunk[0]).count();
            prop_assert_eq!(ranges.by_first.len(), whole);
            prop_assert_eq!(ranges.by_length.len(), whole);
        }
    }
}
