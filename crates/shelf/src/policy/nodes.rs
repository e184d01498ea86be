//! What a tier knows about each entry beside its key and value: the slab of *nodes* that the policies order.
//!
//! Layout: a node is named by its slot, a `u32`. A removed node leaves a hole; holes are linked through `next`, and the
//! newest one is filled first, so slots stay below the largest number of entries there ever was. The slab grows by a
//! quarter, not by doubling: growing is rare, and what it holds too much counts against every entry.
//!
//! A slot that does not exist reads as a blank node and swallows what is written to it. Policies can therefore follow
//! links without a branch for each end, and a mistake among links costs hits, never a panic.

/// No slot.
pub(crate) const NONE: u32 = u32::MAX;
/// The most nodes of a slab: some slots below [`NONE`].
pub(crate) const MAX_NODES: usize = (u32::MAX - 1) as usize;
/// A slab that is full grows by one part in this many.
const GROWTH: usize = 4;
/// The least nodes that a slab grows by.
const GROWTH_MIN: usize = 16;

/// What a policy knows of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node {
    /// The hash of its key, the same at each time that the key is asked for.
    pub(crate) hash: u64,
    /// What it weighs.
    pub(crate) bytes: u64,
    /// The neighbour towards the head of its list; in a heap, its place there.
    pub(crate) prev: u32,
    /// The neighbour towards the tail of its list; in a hole, the next hole.
    pub(crate) next: u32,
    /// Its place in the heap of what expires, or [`NONE`].
    pub(crate) due_at: u32,
    /// How often it was used, as far as its policy counts.
    pub(crate) uses: u16,
    /// Which of its policy's lists it is in.
    pub(crate) queue: u8,
    /// The class that it is in.
    pub(crate) class: u8,
}

impl Node {
    /// A node that is in no list, was never used and never expires.
    pub(crate) const fn new(hash: u64, bytes: u64, class: u8) -> Self {
        Self { hash, bytes, prev: NONE, next: NONE, due_at: NONE, uses: 0, queue: 0, class }
    }
}

const BLANK: Node = Node::new(0, 0, 0);

/// The nodes of a tier.
#[derive(Debug)]
pub(crate) struct Nodes {
    nodes: Vec<Node>,
    newest_hole: u32,
    /// What is written to slots that do not exist.
    spare: Node,
}

impl Nodes {
    pub(crate) const fn new() -> Self {
        Self { nodes: Vec::new(), newest_hole: NONE, spare: BLANK }
    }

    /// The node in a slot.
    pub(crate) fn at(&self, slot: u32) -> &Node {
        self.nodes.get(slot as usize).unwrap_or(&BLANK)
    }

    /// The node in a slot, to be changed.
    pub(crate) fn at_mut(&mut self, slot: u32) -> &mut Node {
        self.spare = BLANK;
        self.nodes.get_mut(slot as usize).unwrap_or(&mut self.spare)
    }

    /// Puts a node into a hole, or behind the last slot; at most [`MAX_NODES`] are the caller's to see to.
    pub(crate) fn take_slot(&mut self, node: Node) -> u32 {
        if self.newest_hole != NONE {
            let slot = self.newest_hole;
            self.newest_hole = self.at(slot).next;
            *self.at_mut(slot) = node;
            return slot;
        }
        grow(&mut self.nodes);
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    /// Makes a hole of a slot whose node is in no list.
    pub(crate) fn free_slot(&mut self, slot: u32) {
        *self.at_mut(slot) = Node { next: self.newest_hole, ..BLANK };
        self.newest_hole = slot;
    }

    /// What it has allocated.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
    }
}

/// Makes room for one more in a vector that is full, by a quarter of what it holds.
pub(crate) fn grow<T>(vector: &mut Vec<T>) {
    if vector.len() == vector.capacity() {
        vector.reserve_exact((vector.len() / GROWTH).max(GROWTH_MIN));
    }
}

/// What a vector that is filled through [`grow`] holds for each of many items, in bytes, at most.
pub(crate) const fn grown_bytes(item_bytes: usize) -> usize {
    item_bytes + item_bytes.div_ceil(GROWTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_filled_first_and_missing_slots_are_blank() {
        let mut nodes = Nodes::new();
        let slots: Vec<u32> = (0..4).map(|n| nodes.take_slot(Node::new(n, n, 0))).collect();
        assert_eq!(slots, [0, 1, 2, 3]);
        nodes.free_slot(1);
        nodes.free_slot(3);
        assert_eq!(nodes.take_slot(Node::new(9, 9, 0)), 3);
        assert_eq!(nodes.take_slot(Node::new(8, 8, 0)), 1);
        assert_eq!(nodes.take_slot(Node::new(7, 7, 0)), 4);
        assert_eq!((nodes.at(3).hash, nodes.at(1).hash, nodes.nodes.len()), (9, 8, 5));
        nodes.at_mut(NONE).hash = 5;
        nodes.at_mut(5).hash = 5;
        assert_eq!((*nodes.at(NONE), *nodes.at(5), *nodes.at_mut(6)), (BLANK, BLANK, BLANK));
    }

    #[test]
    fn a_vector_never_holds_more_than_a_quarter_too_much() {
        let mut vector = Vec::new();
        for n in 0..20_000_u32 {
            grow(&mut vector);
            vector.push(n);
            assert!(n < 100 || vector.capacity() * 4 <= vector.len() * 4 + n as usize + 4, "{n}");
        }
        assert_eq!(grown_bytes(8), 10);
    }
}
