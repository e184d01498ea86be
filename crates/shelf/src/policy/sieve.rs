//! `sieve`: one queue and a hand that walks it from the oldest to the newest, sparing once what was used since it came
//! by (Zhang et al., SIEVE is simpler than LRU, NSDI 2024). What is spared keeps its place, so new entries are tried
//! quickly and old ones that are used stay.
//!
//! A victim costs as many steps as the hand passes used entries; each step takes a mark that a hit has set, so there are
//! no more steps than hits and evictions together.

use crate::policy::Order;
use crate::policy::list::List;
use crate::policy::nodes::{NONE, Nodes};

/// One list in the order of arrival, the newest at its head, and the hand.
#[derive(Debug)]
pub(crate) struct Sieve {
    list: List,
    /// Where the hand looks next, or [`NONE`]: at the tail.
    hand: u32,
}

impl Sieve {
    pub(crate) const fn new() -> Self {
        Self { list: List::new(), hand: NONE }
    }
}

impl Order for Sieve {
    fn insert(&mut self, nodes: &mut Nodes, slot: u32, _room_bytes: u64) {
        self.list.push(nodes, slot);
    }

    fn hit(&mut self, nodes: &mut Nodes, slot: u32) {
        nodes.at_mut(slot).uses = 1;
    }

    fn reweigh(&mut self, nodes: &mut Nodes, slot: u32, bytes: u64) {
        self.list.reweigh(nodes, slot, bytes);
    }

    fn remove(&mut self, nodes: &mut Nodes, slot: u32) {
        if self.hand == slot {
            self.hand = nodes.at(slot).prev;
        }
        self.list.unlink(nodes, slot);
    }

    fn victim(&mut self, nodes: &mut Nodes, _room_bytes: u64) -> Option<u32> {
        loop {
            if self.hand == NONE {
                self.hand = self.list.tail();
            }
            let slot = self.hand;
            if slot == NONE {
                return None;
            }
            let node = nodes.at_mut(slot);
            self.hand = node.prev;
            if std::mem::take(&mut node.uses) == 0 {
                self.list.unlink(nodes, slot);
                return Some(slot);
            }
        }
    }
}
