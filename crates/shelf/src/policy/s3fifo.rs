//! `s3fifo`: three queues, first in first out (Yang et al., FIFO queues are all you need for cache eviction, SOSP 2023).
//!
//! New entries begin in a *small* queue (10 % of the room). At its end, those that were used at least twice move on to the
//! *main* queue; the others leave and become *ghosts*. Who comes back as a ghost goes to main at once. At the end of main,
//! an entry that was used goes round again with one use less; uses count to 3.

use crate::policy::Order;
use crate::policy::ghost::{GHOST_BYTES, Ghosts};
use crate::policy::list::List;
use crate::policy::nodes::Nodes;

/// One part in this many of the room is the small queue's.
const SMALL_PART: u64 = 10;
/// Uses with which an entry moves on from small to main.
const MOVE_USES: u16 = 2;
/// The most uses that are counted: two bits.
const MAX_USES: u16 = 3;
/// The least number of ghosts that are kept; above, as many as there are entries.
const MIN_GHOSTS: usize = 64;

const SMALL: u8 = 0;
const MAIN: u8 = 1;

/// Two lists, each the newest at its head, and the ghosts.
#[derive(Debug)]
pub(crate) struct S3Fifo {
    small: List,
    main: List,
    ghosts: Ghosts,
}

impl S3Fifo {
    /// What it keeps for each entry beside the node, at most: a ghost.
    pub(crate) const ENTRY_BYTES: usize = GHOST_BYTES;

    pub(crate) const fn new() -> Self {
        Self { small: List::new(), main: List::new(), ghosts: Ghosts::new() }
    }

    fn list(&mut self, queue: u8) -> &mut List {
        if queue == SMALL { &mut self.small } else { &mut self.main }
    }

    /// The oldest of main that was not used; those that were go round, each with one use less.
    fn main_victim(&mut self, nodes: &mut Nodes) -> Option<u32> {
        loop {
            let slot = self.main.pop(nodes)?;
            let node = nodes.at_mut(slot);
            if node.uses == 0 {
                return Some(slot);
            }
            node.uses -= 1;
            self.main.push(nodes, slot);
        }
    }

    /// The oldest of small that was used too little; those that were used move on. `None`: all moved on.
    fn small_victim(&mut self, nodes: &mut Nodes, room_bytes: u64) -> Option<u32> {
        loop {
            let slot = self.small.pop(nodes)?;
            let node = nodes.at_mut(slot);
            if node.uses < MOVE_USES {
                let (hash, bytes) = (node.hash, node.bytes);
                let most = MIN_GHOSTS.max((self.small.len() + self.main.len()) as usize);
                self.ghosts.add(hash, bytes, most, room_bytes - room_bytes / SMALL_PART);
                return Some(slot);
            }
            (node.uses, node.queue) = (0, MAIN);
            self.main.push(nodes, slot);
        }
    }
}

impl Order for S3Fifo {
    fn insert(&mut self, nodes: &mut Nodes, slot: u32, _room_bytes: u64) {
        let node = nodes.at_mut(slot);
        node.queue = if self.ghosts.take(node.hash) { MAIN } else { SMALL };
        let queue = node.queue;
        self.list(queue).push(nodes, slot);
    }

    fn hit(&mut self, nodes: &mut Nodes, slot: u32) {
        let node = nodes.at_mut(slot);
        node.uses = (node.uses + 1).min(MAX_USES);
    }

    fn reweigh(&mut self, nodes: &mut Nodes, slot: u32, bytes: u64) {
        let queue = nodes.at(slot).queue;
        self.list(queue).reweigh(nodes, slot, bytes);
    }

    fn remove(&mut self, nodes: &mut Nodes, slot: u32) {
        let queue = nodes.at(slot).queue;
        self.list(queue).unlink(nodes, slot);
    }

    fn victim(&mut self, nodes: &mut Nodes, room_bytes: u64) -> Option<u32> {
        let main_room = room_bytes - room_bytes / SMALL_PART;
        if self.main.bytes() <= main_room
            && let Some(slot) = self.small_victim(nodes, room_bytes)
        {
            return Some(slot);
        }
        self.main_victim(nodes).or_else(|| self.small_victim(nodes, room_bytes))
    }

    fn heap_bytes(&self) -> usize {
        self.ghosts.heap_bytes()
    }
}
