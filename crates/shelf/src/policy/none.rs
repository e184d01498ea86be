//! `none`: what is there stays until it expires, and nothing new comes in where room is lacking. What eviction costs is measured
//! against it.

use crate::policy::Order;
use crate::policy::list::List;
use crate::policy::nodes::Nodes;

/// One list, the newest at its head. Uses are not noted.
#[derive(Debug)]
pub(crate) struct Keep {
    list: List,
}

impl Keep {
    pub(crate) const fn new() -> Self {
        Self { list: List::new() }
    }
}

impl Order for Keep {
    fn admit(&mut self, _nodes: &Nodes, _hash: u64, _bytes: u64, _room_bytes: u64) -> bool {
        false
    }

    fn insert(&mut self, nodes: &mut Nodes, slot: u32, _room_bytes: u64) {
        self.list.push(nodes, slot);
    }

    fn hit(&mut self, _nodes: &mut Nodes, _slot: u32) {}

    fn reweigh(&mut self, nodes: &mut Nodes, slot: u32, bytes: u64) {
        self.list.reweigh(nodes, slot, bytes);
    }

    fn remove(&mut self, nodes: &mut Nodes, slot: u32) {
        self.list.unlink(nodes, slot);
    }

    /// The oldest: for other classes, whose share it takes, and where the limit itself falls.
    fn victim(&mut self, nodes: &mut Nodes, _room_bytes: u64) -> Option<u32> {
        self.list.pop(nodes)
    }
}
