//! Which entries came in when, for `auto` to look at them again after 2, 4, 8, … further insertions.
//!
//! A ring of slots that grows to [`RING`] and then begins anew. It is not told what leaves: a slot may be empty by now, or
//! of another entry, which is then looked at instead.

/// How many looks there are at what came in of late.
pub(super) const LAGS: u32 = 12;
/// Insertions that are remembered: as many as the last look goes back (16 KiB).
const RING: usize = 1 << LAGS;

/// The ring.
#[derive(Debug)]
pub(super) struct Newcomers {
    slots: Vec<u32>,
    /// Where the next slot goes once the ring is full.
    next: usize,
}

impl Newcomers {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), next: 0 }
    }

    /// Notes that an entry came in.
    pub(super) fn push(&mut self, slot: u32) {
        if self.slots.len() < RING {
            self.slots.push(slot);
            return;
        }
        if let Some(oldest) = self.slots.get_mut(self.next) {
            *oldest = slot;
        }
        self.next = (self.next + 1) % RING;
    }

    /// The slots of what came in 2, 4, 8, … insertions ago: 1 is the last.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> + use<> {
        let count = self.slots.len();
        let picked: [Option<u32>; LAGS as usize] = std::array::from_fn(|look| {
            let back = 2_usize << look;
            let place = (self.next + count).checked_sub(back)?;
            (back <= count).then(|| self.slots.get(place % count).copied())?
        });
        picked.into_iter().flatten()
    }

    /// What it has allocated.
    pub(super) fn heap_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_go_back_twice_as_far_each_time() {
        let mut newcomers = Newcomers::new();
        let slots = |newcomers: &Newcomers| newcomers.slots().collect::<Vec<_>>();
        assert_eq!(slots(&newcomers), [0; 0]);
        newcomers.push(0);
        assert_eq!(slots(&newcomers), [0; 0]);
        (1..9).for_each(|slot| newcomers.push(slot));
        assert_eq!(slots(&newcomers), [7, 5, 1]);
        let all = |last: u32| (1..=LAGS).map(|look| last + 1 - (1 << look)).collect::<Vec<_>>();
        for slot in 9..3 * RING as u32 {
            newcomers.push(slot);
            if slot + 1 >= RING as u32 {
                assert_eq!(slots(&newcomers), all(slot), "{slot}");
            }
        }
        assert_eq!(newcomers.heap_bytes(), RING * size_of::<u32>());
    }
}
