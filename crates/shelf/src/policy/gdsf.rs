//! `gdsf`: GreedyDual-Size with frequency (Cherkasova, HPL-98-69R1, 1998). An entry's rank is `L + uses · value`; the least
//! rank leaves, and `L` rises to it, so that what was worth much long ago is overtaken by what is worth something now.
//!
//! With the objective `requests` the value of an entry is 1 / size: the most requests answered for each byte held. With
//! `bytes` each byte that is answered counts, so value is 1: `L + uses` (LFU with dynamic ageing).
//!
//! A newcomer competes: what ranks below it leaves for it, and when nothing does any more and there is still no room, it
//! is not let in, and its own rank becomes `L` (as in libCacheSim; the paper lets it in whatever leaves).
//!
//! `L` never falls. Ranks are finite: at most 2^64 evictions can each raise `L` by at most 65,535.

use crate::policy::heap::Heap;
use crate::policy::nodes::{Nodes, grown_bytes};
use crate::policy::{Objective, Order};

/// A heap by rank. `prev` of a node is its place in the heap, `uses` how often it was asked for, at first 1.
#[derive(Debug)]
pub(crate) struct Gdsf {
    heap: Heap<f64>,
    inflation: f64,
    objective: Objective,
    /// The rank of the newcomer for which room is being made.
    newcomer: Option<f64>,
}

impl Gdsf {
    /// What it keeps for each entry beside the node, at most.
    pub(crate) const ENTRY_BYTES: usize = grown_bytes(size_of::<(f64, u32)>());

    pub(crate) const fn new(objective: Objective) -> Self {
        Self { heap: Heap::new(), inflation: 0.0, objective, newcomer: None }
    }

    fn rank(&self, uses: u16, bytes: u64) -> f64 {
        let value = match self.objective {
            Objective::Requests => 1.0 / bytes.max(1) as f64,
            Objective::Bytes => 1.0,
        };
        self.inflation + f64::from(uses) * value
    }

    fn rerank(&mut self, nodes: &mut Nodes, slot: u32) {
        let node = nodes.at(slot);
        let (place, rank) = (node.prev, self.rank(node.uses, node.bytes));
        self.heap.rerank(place, rank, |slot, place| nodes.at_mut(slot).prev = place);
    }
}

impl Order for Gdsf {
    fn admit(&mut self, _nodes: &Nodes, _hash: u64, bytes: u64, _room_bytes: u64) -> bool {
        self.newcomer = Some(self.rank(1, bytes));
        true
    }

    fn insert(&mut self, nodes: &mut Nodes, slot: u32, _room_bytes: u64) {
        self.newcomer = None;
        let node = nodes.at_mut(slot);
        node.uses = 1;
        let rank = self.rank(1, node.bytes);
        self.heap.push(rank, slot, |slot, place| nodes.at_mut(slot).prev = place);
    }

    fn hit(&mut self, nodes: &mut Nodes, slot: u32) {
        let node = nodes.at_mut(slot);
        node.uses = node.uses.saturating_add(1);
        self.rerank(nodes, slot);
    }

    fn reweigh(&mut self, nodes: &mut Nodes, slot: u32, bytes: u64) {
        nodes.at_mut(slot).bytes = bytes;
        self.rerank(nodes, slot);
    }

    fn remove(&mut self, nodes: &mut Nodes, slot: u32) {
        let place = nodes.at(slot).prev;
        self.heap.remove(place, |slot, place| nodes.at_mut(slot).prev = place);
    }

    fn victim(&mut self, nodes: &mut Nodes, _room_bytes: u64) -> Option<u32> {
        let (rank, slot) = self.heap.least()?;
        if let Some(newcomer) = self.newcomer
            && newcomer < rank
        {
            self.newcomer = None;
            self.inflation = newcomer;
            return None;
        }
        self.inflation = rank;
        self.remove(nodes, slot);
        Some(slot)
    }

    fn heap_bytes(&self) -> usize {
        self.heap.heap_bytes()
    }
}
