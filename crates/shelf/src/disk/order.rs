//! The order in which entries leave a folder: least recently used first.
//!
//! Layout: `links` has a place for each slot of the index, which names the slots before and after it.

const NONE: u32 = u32::MAX;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Order {
    links: Vec<Link>,
    newest: u32,
    oldest: u32,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    newer: u32,
    older: u32,
    linked: bool,
}

impl Default for Order {
    fn default() -> Self {
        Self { links: Vec::new(), newest: NONE, oldest: NONE }
    }
}

impl Order {
    pub(crate) fn insert(&mut self, slot: u32, _hash: u64, _bytes: u64) {
        let out = Link { newer: NONE, older: NONE, linked: false };
        if self.links.len() <= slot as usize {
            self.links.resize(slot as usize + 1, out);
        }
        self.link_newest(slot);
    }

    pub(crate) fn hit(&mut self, slot: u32) {
        self.remove(slot);
        self.link_newest(slot);
    }

    pub(crate) fn resize(&mut self, _slot: u32, _bytes: u64) {}

    pub(crate) fn victim(&mut self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    pub(crate) fn remove(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot as usize).filter(|link| link.linked) else { return };
        link.linked = false;
        let Link { newer, older, .. } = *link;
        match self.links.get_mut(newer as usize) {
            Some(neighbour) => neighbour.older = older,
            None => self.newest = older,
        }
        match self.links.get_mut(older as usize) {
            Some(neighbour) => neighbour.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, slot: u32) {
        let before = std::mem::replace(&mut self.newest, slot);
        if let Some(link) = self.links.get_mut(slot as usize) {
            *link = Link { newer: NONE, older: before, linked: true };
        }
        match self.links.get_mut(before as usize) {
            Some(neighbour) => neighbour.newer = slot,
            None => self.oldest = slot,
        }
    }
}
