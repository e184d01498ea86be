//! A list through nodes, from head to tail, that knows how much it holds. All links are slots, so there is no `unsafe`.

use crate::policy::nodes::{NONE, Nodes};

/// A list. Its nodes carry the links; a node is in at most one list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct List {
    head: u32,
    tail: u32,
    bytes: u64,
    len: u32,
}

impl List {
    pub(crate) const fn new() -> Self {
        Self { head: NONE, tail: NONE, bytes: 0, len: 0 }
    }

    /// The node at the tail, or [`NONE`].
    pub(crate) fn tail(&self) -> u32 {
        self.tail
    }

    /// What its nodes weigh.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many nodes it has.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// Puts a node that is in no list at the head.
    pub(crate) fn push(&mut self, nodes: &mut Nodes, slot: u32) {
        let second = std::mem::replace(&mut self.head, slot);
        let node = nodes.at_mut(slot);
        (node.prev, node.next) = (NONE, second);
        self.bytes += node.bytes;
        self.len += 1;
        if second == NONE {
            self.tail = slot;
        } else {
            nodes.at_mut(second).prev = slot;
        }
    }

    /// Takes a node of this list out of it.
    pub(crate) fn unlink(&mut self, nodes: &mut Nodes, slot: u32) {
        let node = nodes.at_mut(slot);
        let (prev, next, bytes) = (node.prev, node.next, node.bytes);
        (node.prev, node.next) = (NONE, NONE);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.len = self.len.saturating_sub(1);
        if prev == NONE {
            self.head = next;
        } else {
            nodes.at_mut(prev).next = next;
        }
        if next == NONE {
            self.tail = prev;
        } else {
            nodes.at_mut(next).prev = prev;
        }
    }

    /// Takes the node at the tail out.
    pub(crate) fn pop(&mut self, nodes: &mut Nodes) -> Option<u32> {
        let slot = self.tail;
        if slot == NONE {
            return None;
        }
        self.unlink(nodes, slot);
        Some(slot)
    }

    /// Moves a node of this list to its head.
    pub(crate) fn renew(&mut self, nodes: &mut Nodes, slot: u32) {
        if self.head != slot {
            self.unlink(nodes, slot);
            self.push(nodes, slot);
        }
    }

    /// Notes that a node of this list weighs something else now.
    pub(crate) fn reweigh(&mut self, nodes: &mut Nodes, slot: u32, bytes: u64) {
        let node = nodes.at_mut(slot);
        self.bytes = self.bytes.saturating_sub(node.bytes) + bytes;
        node.bytes = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::nodes::Node;
    use proptest::prelude::{Strategy, prop_oneof};

    #[derive(Debug, Clone)]
    enum Op {
        Push(u64),
        Pop,
        Unlink(usize),
        Renew(usize),
        Reweigh(usize, u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (0..9_u64).prop_map(Op::Push),
            proptest::strategy::Just(Op::Pop),
            (0..9_usize).prop_map(Op::Unlink),
            (0..9_usize).prop_map(Op::Renew),
            (0..9_usize, 0..9_u64).prop_map(|(at, bytes)| Op::Reweigh(at, bytes)),
        ]
    }

    proptest::proptest! {
        #[test]
        fn it_is_a_list(ops in proptest::collection::vec(op(), 0..100)) {
            let (mut nodes, mut list, mut model) = (Nodes::new(), List::new(), Vec::<u32>::new());
            for op in ops {
                match op {
                    Op::Push(bytes) => {
                        let slot = nodes.take_slot(Node::new(0, bytes, 0));
                        list.push(&mut nodes, slot);
                        model.insert(0, slot);
                    }
                    Op::Pop => {
                        let popped = list.pop(&mut nodes);
                        assert_eq!(popped, model.pop());
                        if let Some(slot) = popped {
                            nodes.free_slot(slot);
                        }
                    }
                    Op::Unlink(at) if at < model.len() => {
                        let slot = model.remove(at);
                        list.unlink(&mut nodes, slot);
                        nodes.free_slot(slot);
                    }
                    Op::Renew(at) if at < model.len() => {
                        let slot = model.remove(at);
                        model.insert(0, slot);
                        list.renew(&mut nodes, slot);
                    }
                    Op::Reweigh(at, bytes) if at < model.len() => list.reweigh(&mut nodes, model[at], bytes),
                    _ => {}
                }
                let (mut down, mut at) = (Vec::new(), list.head);
                while at != NONE {
                    down.push(at);
                    at = nodes.at(at).next;
                }
                let (mut up, mut at) = (Vec::new(), list.tail);
                while at != NONE {
                    up.insert(0, at);
                    at = nodes.at(at).prev;
                }
                assert_eq!((&down, &up), (&model, &model));
                assert_eq!(list.len() as usize, model.len());
                assert_eq!(list.bytes(), model.iter().map(|slot| nodes.at(*slot).bytes).sum::<u64>());
            }
        }
    }
}
