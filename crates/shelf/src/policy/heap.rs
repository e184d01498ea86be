//! A heap of slots, the least rank on top, from which any slot can be taken out.
//!
//! Layout: a binary heap in a vector of (rank, slot). Where a slot stands is kept by the owner, who is told of each
//! move through `moved(slot, place)`; so the heap needs no map of its own. Equal ranks leave in the order of their slots'
//! places, which is the same at each run.

use crate::policy::nodes::grow;

/// A heap whose ranks are numbers that compare totally (no NaN: the owners' ranks are sums of finite terms).
#[derive(Debug)]
pub(crate) struct Heap<R> {
    items: Vec<(R, u32)>,
}

impl<R: Copy + PartialOrd> Heap<R> {
    pub(crate) const fn new() -> Self {
        Self { items: Vec::new() }
    }

    /// The least rank and its slot.
    pub(crate) fn least(&self) -> Option<(R, u32)> {
        self.items.first().copied()
    }

    /// The rank and slot at a place.
    pub(crate) fn at(&self, place: u32) -> Option<(R, u32)> {
        self.items.get(place as usize).copied()
    }

    /// What it has allocated.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.items.capacity() * size_of::<(R, u32)>()
    }

    /// Puts a slot in.
    pub(crate) fn push(&mut self, rank: R, slot: u32, moved: impl FnMut(u32, u32)) {
        grow(&mut self.items);
        self.items.push((rank, slot));
        self.rise(self.items.len() - 1, moved);
    }

    /// Takes out what is at a place; the slot that left is not told of.
    pub(crate) fn remove(&mut self, place: u32, mut moved: impl FnMut(u32, u32)) -> Option<(R, u32)> {
        let place = place as usize;
        if place >= self.items.len() {
            return None;
        }
        let gone = self.items.swap_remove(place);
        if place < self.items.len() {
            let settled = self.rise(place, &mut moved);
            self.sink(settled, moved);
        }
        Some(gone)
    }

    /// Gives what is at a place another rank.
    pub(crate) fn rerank(&mut self, place: u32, rank: R, mut moved: impl FnMut(u32, u32)) {
        let place = place as usize;
        if let Some(item) = self.items.get_mut(place) {
            item.0 = rank;
            let settled = self.rise(place, &mut moved);
            self.sink(settled, moved);
        }
    }

    fn less(&self, one: usize, other: usize) -> bool {
        match (self.items.get(one), self.items.get(other)) {
            (Some(one), Some(other)) => one.0 < other.0,
            _ => false,
        }
    }

    fn tell(&self, place: usize, moved: &mut impl FnMut(u32, u32)) {
        if let Some((_, slot)) = self.items.get(place) {
            moved(*slot, place as u32);
        }
    }

    /// Moves an item towards the top until nothing above it is greater; says where it came to rest.
    fn rise(&mut self, mut place: usize, mut moved: impl FnMut(u32, u32)) -> usize {
        while place > 0 {
            let above = (place - 1) / 2;
            if !self.less(place, above) {
                break;
            }
            self.items.swap(place, above);
            self.tell(place, &mut moved);
            place = above;
        }
        self.tell(place, &mut moved);
        place
    }

    fn sink(&mut self, mut place: usize, mut moved: impl FnMut(u32, u32)) {
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let lesser = if self.less(right, left) { right } else { left };
            if !self.less(lesser, place) {
                break;
            }
            self.items.swap(place, lesser);
            self.tell(place, &mut moved);
            place = lesser;
        }
        self.tell(place, &mut moved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct Model {
        ranks: BTreeMap<u32, u32>,
        places: BTreeMap<u32, u32>,
    }

    proptest::proptest! {
        #[test]
        fn the_least_is_on_top_and_places_are_told(ops in proptest::collection::vec((0..4_u8, 0..12_u32, 0..50_u32), 0..200)) {
            let (mut heap, mut model) = (Heap::new(), Model::default());
            for (op, slot, rank) in ops {
                let place = model.places.get(&slot).copied();
                let Model { ranks, places } = &mut model;
                let moved = |slot, place| { places.insert(slot, place); };
                match (op, place) {
                    (0 | 1, None) => {
                        ranks.insert(slot, rank);
                        heap.push(rank, slot, moved);
                    }
                    (2, Some(place)) => {
                        let expected = ranks.remove(&slot).map(|rank| (rank, slot));
                        assert_eq!(heap.remove(place, moved), expected);
                        places.remove(&slot);
                    }
                    (3, Some(place)) => {
                        ranks.insert(slot, rank);
                        heap.rerank(place, rank, moved);
                    }
                    _ => {}
                }
                assert_eq!(heap.least().map(|(rank, _)| rank), model.ranks.values().min().copied());
                assert_eq!(heap.items.len(), model.ranks.len());
                for (slot, rank) in &model.ranks {
                    assert_eq!(heap.at(model.places[slot]), Some((*rank, *slot)));
                }
            }
            assert_eq!(heap.remove(heap.items.len() as u32, |_, _| ()), None);
        }
    }
}
