//! Eviction policies: who leaves when room is needed, and who does not come in.
//!
//! A policy orders the nodes of one class of a [`crate::Bounded`] and knows nothing of keys and values. [`Order`] is what
//! it does; [`Policy`] chooses one without dynamic dispatch. What the policies share stands in files of its own:
//! `nodes.rs` (the slab), `list.rs`, `heap.rs`, `ghost.rs` (what left), `sketch.rs` (how often something was seen).
//! All of them are deterministic: the same hashes and bytes in the same order give the same victims.

mod auto;
mod choice;
mod gdsf;
mod ghost;
pub(crate) mod heap;
mod lfu;
mod list;
mod lru;
pub(crate) mod nodes;
mod none;
mod s3fifo;
mod sieve;
mod sketch;
#[cfg(test)]
mod tests;

pub use choice::{Objective, ObjectiveError, PolicyChoice, PolicyChoiceError, PolicyName, PolicyNameError};

use auto::Auto;
use gdsf::Gdsf;
use lfu::Lfu;
use lru::Lru;
use nodes::Nodes;
use none::Keep;
use s3fifo::S3Fifo;
use sieve::Sieve;

/// What a policy does. `room_bytes` is what its class may hold at the moment.
pub(crate) trait Order {
    /// Whether something new may come in at all, when others would have to leave for it. If so, victims are asked for
    /// and then it is inserted, or it is not and the next call is another `admit` or about something else.
    fn admit(&mut self, _nodes: &Nodes, _hash: u64, _bytes: u64, _room_bytes: u64) -> bool {
        true
    }

    /// Takes in a node that is in no list. It has hash and bytes; all else is blank.
    fn insert(&mut self, nodes: &mut Nodes, slot: u32, room_bytes: u64);

    /// Notes a use of a node.
    fn hit(&mut self, nodes: &mut Nodes, slot: u32);

    /// Gives a node other bytes, which is no use of it.
    fn reweigh(&mut self, nodes: &mut Nodes, slot: u32, bytes: u64);

    /// Lets go of a node that leaves for another reason than the lack of room.
    fn remove(&mut self, nodes: &mut Nodes, slot: u32);

    /// Chooses the node that leaves, and lets go of it. `None`: there is none, or all are worth more than what `admit`
    /// was last asked about, which then does not come in.
    fn victim(&mut self, nodes: &mut Nodes, room_bytes: u64) -> Option<u32>;

    /// What it has allocated, in bytes.
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// One of the policies.
#[derive(Debug)]
pub(crate) enum Policy {
    Lru(Lru),
    Lfu(Lfu),
    S3Fifo(S3Fifo),
    Sieve(Sieve),
    Gdsf(Gdsf),
    Auto(Auto),
    None(Keep),
}

/// Calls the same method of whichever policy it is.
macro_rules! each {
    ($policy:expr, $order:ident => $call:expr) => {
        match $policy {
            Policy::Lru($order) => $call,
            Policy::Lfu($order) => $call,
            Policy::S3Fifo($order) => $call,
            Policy::Sieve($order) => $call,
            Policy::Gdsf($order) => $call,
            Policy::Auto($order) => $call,
            Policy::None($order) => $call,
        }
    };
}

impl Policy {
    /// What any policy keeps for each entry beside its node, in bytes, at most.
    pub(crate) const ENTRY_BYTES: usize =
        most(&[Lfu::ENTRY_BYTES, S3Fifo::ENTRY_BYTES, Gdsf::ENTRY_BYTES, Auto::ENTRY_BYTES]);

    pub(crate) fn new(choice: PolicyChoice) -> Self {
        match choice.policy {
            PolicyName::Lru => Self::Lru(Lru::new()),
            PolicyName::Lfu => Self::Lfu(Lfu::new()),
            PolicyName::S3Fifo => Self::S3Fifo(S3Fifo::new()),
            PolicyName::Sieve => Self::Sieve(Sieve::new()),
            PolicyName::Gdsf => Self::Gdsf(Gdsf::new(choice.objective)),
            PolicyName::Auto => Self::Auto(Auto::new(choice.objective)),
            PolicyName::None => Self::None(Keep::new()),
        }
    }
}

impl Order for Policy {
    fn admit(&mut self, nodes: &Nodes, hash: u64, bytes: u64, room_bytes: u64) -> bool {
        each!(self, order => order.admit(nodes, hash, bytes, room_bytes))
    }

    fn insert(&mut self, nodes: &mut Nodes, slot: u32, room_bytes: u64) {
        each!(self, order => order.insert(nodes, slot, room_bytes));
    }

    fn hit(&mut self, nodes: &mut Nodes, slot: u32) {
        each!(self, order => order.hit(nodes, slot));
    }

    fn reweigh(&mut self, nodes: &mut Nodes, slot: u32, bytes: u64) {
        each!(self, order => order.reweigh(nodes, slot, bytes));
    }

    fn remove(&mut self, nodes: &mut Nodes, slot: u32) {
        each!(self, order => order.remove(nodes, slot));
    }

    fn victim(&mut self, nodes: &mut Nodes, room_bytes: u64) -> Option<u32> {
        each!(self, order => order.victim(nodes, room_bytes))
    }

    fn heap_bytes(&self) -> usize {
        each!(self, order => order.heap_bytes())
    }
}

const fn most(numbers: &[usize]) -> usize {
    match numbers {
        [] => 0,
        [first, rest @ ..] => {
            let others = most(rest);
            if *first > others { *first } else { others }
        }
    }
}
