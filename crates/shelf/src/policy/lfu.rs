//! `lfu`: W-TinyLFU (Einziger, Eytan, Friedman and Manes, Adaptive Software Cache Management, Middleware 2018; the
//! fixed window of 1 % of TinyLFU, ACM Transactions on Storage 2017).
//!
//! New entries begin in a small *window* in the order of use. Who leaves the window competes with the victim of the main
//! part: the one that the sketch saw less often leaves, and at a draw the newcomer. The main part is a segmented LRU: a
//! second use lifts an entry from *probation* into *protected* (80 %), whose least recently used falls back.
//!
//! An entry that is larger than the window competes at the next eviction; it must be seen more often than each of those
//! that leave for it. (libCacheSim's refuses whatever is larger than the window, 1 % of the cache.)

use crate::policy::Order;
use crate::policy::list::List;
use crate::policy::nodes::{NONE, Nodes};
use crate::policy::sketch::{SKETCH_BYTES, Sketch};

/// One part in this many of the room is the window's.
const WINDOW_PART: u64 = 100;
/// Of this many parts of the main room,
const MAIN_PARTS: u64 = 5;
/// this many are for protected entries.
const PROTECTED_PARTS: u64 = 4;

const WINDOW: u8 = 0;
const PROBATION: u8 = 1;
const PROTECTED: u8 = 2;

/// Three lists, each the most recently used at its head, and the sketch.
#[derive(Debug)]
pub(crate) struct Lfu {
    window: List,
    probation: List,
    protected: List,
    sketch: Sketch,
    /// The room at the last insertion or eviction.
    room_bytes: u64,
}

impl Lfu {
    /// What it keeps for each entry beside the node, at most.
    pub(crate) const ENTRY_BYTES: usize = SKETCH_BYTES;

    pub(crate) const fn new() -> Self {
        Self {
            window: List::new(),
            probation: List::new(),
            protected: List::new(),
            sketch: Sketch::new(),
            room_bytes: 0,
        }
    }

    fn list(&mut self, queue: u8) -> &mut List {
        match queue {
            WINDOW => &mut self.window,
            PROBATION => &mut self.probation,
            _ => &mut self.protected,
        }
    }

    fn see(&mut self, nodes: &Nodes, slot: u32) {
        let entries = self.window.len() + self.probation.len() + self.protected.len();
        self.sketch.see(nodes.at(slot).hash, entries as usize);
    }

    fn window_room(&self) -> u64 {
        self.room_bytes / WINDOW_PART
    }

    fn main_room(&self) -> u64 {
        self.room_bytes - self.window_room()
    }

    fn main_bytes(&self) -> u64 {
        self.probation.bytes() + self.protected.bytes()
    }

    fn move_to(&mut self, nodes: &mut Nodes, slot: u32, queue: u8) {
        let from = std::mem::replace(&mut nodes.at_mut(slot).queue, queue);
        self.list(from).unlink(nodes, slot);
        self.list(queue).push(nodes, slot);
    }

    /// Moves the window's oldest into the main part while that has room for it.
    fn settle(&mut self, nodes: &mut Nodes) {
        while self.window.bytes() > self.window_room() {
            let oldest = self.window.tail();
            if self.main_bytes() + nodes.at(oldest).bytes > self.main_room() {
                break;
            }
            self.move_to(nodes, oldest, PROBATION);
        }
    }

    /// The entry of the main part that would leave first.
    fn main_victim(&self) -> u32 {
        if self.probation.len() > 0 { self.probation.tail() } else { self.protected.tail() }
    }

    fn take(&mut self, nodes: &mut Nodes, slot: u32) {
        let queue = nodes.at(slot).queue;
        self.list(queue).unlink(nodes, slot);
    }
}

impl Order for Lfu {
    fn insert(&mut self, nodes: &mut Nodes, slot: u32, room_bytes: u64) {
        self.room_bytes = room_bytes;
        self.see(nodes, slot);
        nodes.at_mut(slot).queue = WINDOW;
        self.window.push(nodes, slot);
        self.settle(nodes);
    }

    fn hit(&mut self, nodes: &mut Nodes, slot: u32) {
        self.see(nodes, slot);
        match nodes.at(slot).queue {
            PROBATION => {
                self.move_to(nodes, slot, PROTECTED);
                let most = self.main_room() / MAIN_PARTS * PROTECTED_PARTS;
                while self.protected.bytes() > most && self.protected.len() > 1 {
                    self.move_to(nodes, self.protected.tail(), PROBATION);
                }
            }
            queue => self.list(queue).renew(nodes, slot),
        }
    }

    fn reweigh(&mut self, nodes: &mut Nodes, slot: u32, bytes: u64) {
        let queue = nodes.at(slot).queue;
        self.list(queue).reweigh(nodes, slot, bytes);
    }

    fn remove(&mut self, nodes: &mut Nodes, slot: u32) {
        self.take(nodes, slot);
    }

    fn victim(&mut self, nodes: &mut Nodes, room_bytes: u64) -> Option<u32> {
        self.room_bytes = room_bytes;
        self.settle(nodes);
        let (newcomer, settled) = (self.window.tail(), self.main_victim());
        let crowded = self.window.bytes() > self.window_room();
        let leaver = match (newcomer, settled) {
            (NONE, NONE) => return None,
            (NONE, settled) => settled,
            (newcomer, NONE) => newcomer,
            (newcomer, settled) if crowded => {
                let seen = |slot| self.sketch.estimate(nodes.at(slot).hash);
                if seen(newcomer) > seen(settled) { settled } else { newcomer }
            }
            (_, settled) => settled,
        };
        self.take(nodes, leaver);
        Some(leaver)
    }

    fn heap_bytes(&self) -> usize {
        self.sketch.heap_bytes()
    }
}
