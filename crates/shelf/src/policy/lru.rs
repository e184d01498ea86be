//! `lru`: what was used least recently leaves first.

use crate::policy::Order;
use crate::policy::list::List;
use crate::policy::nodes::Nodes;

/// One list, the most recently used at its head.
#[derive(Debug)]
pub(crate) struct Lru {
    list: List,
}

impl Lru {
    pub(crate) const fn new() -> Self {
        Self { list: List::new() }
    }
}

impl Order for Lru {
    fn insert(&mut self, nodes: &mut Nodes, slot: u32, _room_bytes: u64) {
        self.list.push(nodes, slot);
    }

    fn hit(&mut self, nodes: &mut Nodes, slot: u32) {
        self.list.renew(nodes, slot);
    }

    fn reweigh(&mut self, nodes: &mut Nodes, slot: u32, bytes: u64) {
        self.list.reweigh(nodes, slot, bytes);
    }

    fn remove(&mut self, nodes: &mut Nodes, slot: u32) {
        self.list.unlink(nodes, slot);
    }

    fn victim(&mut self, nodes: &mut Nodes, _room_bytes: u64) -> Option<u32> {
        self.list.pop(nodes)
    }
}
