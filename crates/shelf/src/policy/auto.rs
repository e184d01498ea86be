//! `auto`: the default. So far GDSF for the objective `requests`, and SIEVE for `bytes`.

use crate::policy::gdsf::Gdsf;
use crate::policy::nodes::Nodes;
use crate::policy::sieve::Sieve;
use crate::policy::{Objective, Order};

/// The policy that the objective asks for.
#[derive(Debug)]
pub(crate) enum Auto {
    Requests(Gdsf),
    Bytes(Sieve),
}

impl Auto {
    /// What it keeps for each entry beside the node, at most.
    pub(crate) const ENTRY_BYTES: usize = Gdsf::ENTRY_BYTES;

    pub(crate) const fn new(objective: Objective) -> Self {
        match objective {
            Objective::Requests => Self::Requests(Gdsf::new(objective)),
            Objective::Bytes => Self::Bytes(Sieve::new()),
        }
    }

    fn order(&mut self) -> &mut dyn Order {
        match self {
            Self::Requests(gdsf) => gdsf,
            Self::Bytes(sieve) => sieve,
        }
    }
}

impl Order for Auto {
    fn admit(&mut self, nodes: &Nodes, hash: u64, bytes: u64, room_bytes: u64) -> bool {
        self.order().admit(nodes, hash, bytes, room_bytes)
    }

    fn insert(&mut self, nodes: &mut Nodes, slot: u32, room_bytes: u64) {
        self.order().insert(nodes, slot, room_bytes);
    }

    fn hit(&mut self, nodes: &mut Nodes, slot: u32) {
        self.order().hit(nodes, slot);
    }

    fn reweigh(&mut self, nodes: &mut Nodes, slot: u32, bytes: u64) {
        self.order().reweigh(nodes, slot, bytes);
    }

    fn remove(&mut self, nodes: &mut Nodes, slot: u32) {
        self.order().remove(nodes, slot);
    }

    fn victim(&mut self, nodes: &mut Nodes, room_bytes: u64) -> Option<u32> {
        self.order().victim(nodes, room_bytes)
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Requests(gdsf) => gdsf.heap_bytes(),
            Self::Bytes(sieve) => sieve.heap_bytes(),
        }
    }
}
