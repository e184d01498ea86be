//! `auto`: the default. It learns what is asked for again, and keeps what promises the most hits for the room it takes.
//!
//! Each key has a [`Record`]: uses, usual gap between them, size, time since the last, and, until it has a gap, how new the
//! requests were that it came with ([`Novelty`]) and what they were like ([`Company`]). A [`Model`] learns from the requests themselves what rate of use goes with
//! which record, and says what keeping a key is worth (`auto/model.rs`). The *density* of an entry is what it is worth for
//! each byte with the objective `requests`; with `bytes` a hit is worth the bytes that it answers, so it is what it is worth
//! itself. The least dense entry leaves. What left is remembered, without its value ([`Ghosts`]): it comes back with its
//! history, and the model learns from it too, or it would know only of the successful. A newcomer that would be the least
//! dense of all does not come in.
//!
//! Densities change with every request, so no order of them is kept: the victim is the least dense of some entries that
//! are looked at. [`SAMPLES`] are picked at random. [`newcomers::LAGS`] are those that came in 2, 4, 8, … insertions ago
//! ([`Newcomers`]): most of what comes in is not asked for again, and what it promises falls by as much from one such look
//! to the next. And the [`POOL`] least dense ones of earlier looks are looked at again. The picks are the same in
//! every run: they depend on the number of picks so far. Time is the number of requests.
//!
//! Where the ideas come from: value for each byte from GreedyDual-Size (Cherkasova 1998); classes of entries whose rates
//! by age are learnt, from LHD (Beckmann et al., NSDI 2018), which has neither sizes nor histories of what left among its
//! factors; learning from what left from LRB (Song et al., NSDI 2020), with a boosted forest in the place of a product;
//! admission against the victim from TinyLFU (Einziger et al., 2017); sampled eviction with a pool from Redis. Nothing here
//! is fitted to a trace: the numbers are bounds of work or of memory, or what the model begins with before it has learnt.

mod company;
mod factor;
mod ghosts;
mod model;
mod newcomers;
mod novelty;
mod record;
#[cfg(test)]
mod tests;

use crate::policy::nodes::{NONE, Nodes, grow, grown_bytes};
use crate::policy::{Objective, Order};
use company::{AFTER, Company};
use ghosts::Ghosts;
use model::Model;
use newcomers::Newcomers;
use novelty::Novelty;
use record::Record;

/// Entries that are looked at for a victim, whenever they came in. Of so many the best is, on average, among the worst 2 %
/// of all.
const SAMPLES: u32 = 64;
/// Entries that were looked at and nearly chosen, to be looked at again.
const POOL: usize = 8;
/// Of the entries picked at random, so many are said to the model to have waited. Every entry is told of once in a while,
/// and when it is used or leaves.
const TOLD: u32 = 16;

/// With many entries the model learns from a part of them, at least this many: more would teach it nothing new.
const LEARNERS: usize = 16_384;

/// Entries in no order, each with its record.
#[derive(Debug)]
pub(crate) struct Auto {
    objective: Objective,
    model: Box<Model>,
    held: Vec<Held>,
    ghosts: Ghosts,
    newcomers: Newcomers,
    novelty: Novelty,
    company: Company,
    /// The slots of what came in with the last requests, the last one first; [`NONE`] where nothing did.
    latest: [u32; AFTER],
    /// Slots that may be the next victims, the least dense first; some may have left since.
    pool: [u32; POOL],
    /// What was chosen when a newcomer was compared with it, and has not left since.
    chosen: u32,
    /// What is held weighs.
    bytes: u64,
    /// Requests so far; it wraps.
    now: u32,
    picks: u64,
}

/// An entry; `prev` of its node is its place among them.
#[derive(Debug, Clone, Copy)]
struct Held {
    slot: u32,
    /// Bytes, to seven digits, to spare a look at the node.
    bytes: f32,
    record: Record,
}

impl Auto {
    /// What it keeps for each entry beside the node, at most.
    pub(crate) const ENTRY_BYTES: usize = grown_bytes(size_of::<Held>()) + Ghosts::ENTRY_BYTES;

    pub(crate) fn new(objective: Objective) -> Self {
        Self {
            objective,
            model: Box::new(Model::new(objective)),
            held: Vec::new(),
            ghosts: Ghosts::new(),
            newcomers: Newcomers::new(),
            novelty: Novelty::new(),
            company: Company::new(),
            latest: [NONE; AFTER],
            pool: [NONE; POOL],
            chosen: NONE,
            bytes: 0,
            now: 0,
            picks: 0,
        }
    }

    /// Another request: the clock goes on, and the model hears of a ghost.
    fn tick(&mut self) {
        self.now = self.now.wrapping_add(1);
        self.model.tick(self.now);
        let learners = Learners::of(self.held.len());
        if let Some((print, ghost)) = self.ghosts.next()
            && learners.has(print)
        {
            self.model.waited(ghost, self.now);
        }
    }

    fn density(&self, held: &Held) -> f64 {
        let worth = self.model.worth(&held.record, self.now);
        match self.objective {
            Objective::Requests => worth / f64::from(held.bytes),
            Objective::Bytes => worth,
        }
    }

    /// The record of a key that is asked for and not held, with this use in it.
    fn arrives(&mut self, hash: u64, bytes: u64) -> Record {
        let (known, first) = (self.ghosts.take(hash), self.first_record(bytes));
        self.novelty.asked(known.is_none());
        self.company.asked(known.map(|record| record.gap_now(self.now)));
        let Some(mut record) = known else { return first };
        self.learn_use(&mut record, ghosts::fingerprint(hash));
        record.used(self.now, bytes)
    }

    /// The record of what nothing is known of and is asked for now.
    fn first_record(&self, bytes: u64) -> Record {
        Record::new(self.now, bytes, self.novelty.level(), self.company.of_next())
    }

    /// Ends a request, after which more is known of the company of those that came in just before it. It brought in what is
    /// in the slot, or nothing.
    fn meet(&mut self, nodes: &Nodes, slot: u32) {
        if self.objective == Objective::Requests {
            return;
        }
        for (ago, latest) in (1..).zip(self.latest) {
            let held = self.place(nodes, latest).and_then(|place| self.held.get_mut(place));
            if let Some(held) = held
                && held.record.uses == 1
                && held.record.age(self.now) == ago
            {
                held.record = held.record.in_company(self.company.of(ago as usize));
            }
        }
        self.latest.rotate_right(1);
        self.latest[0] = slot;
    }

    fn learn_use(&mut self, record: &mut Record, name: u32) {
        if !Learners::of(self.held.len()).has(name) {
            return;
        }
        self.model.used(record, self.now);
        self.model.waited(record, self.now);
    }

    fn remember(&mut self, hash: u64, record: Record) {
        if let Some((print, mut forgotten)) = self.ghosts.put(hash, record, self.now, self.held.len())
            && Learners::of(self.held.len()).has(print)
        {
            self.model.waited(&mut forgotten, self.now);
        }
    }

    /// Whether a slot is among the entries, and where.
    fn place(&self, nodes: &Nodes, slot: u32) -> Option<usize> {
        let place = nodes.at(slot).prev as usize;
        self.held.get(place).filter(|held| held.slot == slot).map(|_| place)
    }

    /// The least dense of some entries, with their densities. They are the pool for the next time: none of them leaves if
    /// what they are compared with does not come in.
    fn choose(&mut self, nodes: &Nodes) -> Least {
        self.model.make_ready();
        let mut least = Least::new();
        let pool = std::mem::replace(&mut self.pool, [NONE; POOL]);
        for slot in pool.into_iter().chain(self.newcomers.slots()) {
            if let Some(held) = self.place(nodes, slot).and_then(|place| self.held.get(place)) {
                least.add(self.density(held), *held);
            }
        }
        let learners = Learners::of(self.held.len());
        for pick in 0..SAMPLES {
            self.picks = self.picks.wrapping_add(1);
            let place = ((u128::from(spread(self.picks)) * self.held.len() as u128) >> u64::BITS) as usize;
            let Some(held) = self.held.get_mut(place) else { break };
            if pick < TOLD && learners.has(held.slot) {
                self.model.waited(&mut held.record, self.now);
            }
            let held = *held;
            least.add(self.density(&held), held);
        }
        for (place, (_, held)) in self.pool.iter_mut().zip(least.items.iter().flatten()) {
            *place = held.slot;
        }
        least
    }

    /// Takes an entry out, and remembers it as a ghost.
    fn leave(&mut self, nodes: &mut Nodes, slot: u32) {
        let Some(place) = self.place(nodes, slot) else { return };
        let mut record = self.held.swap_remove(place).record;
        if let Some(moved) = self.held.get(place) {
            nodes.at_mut(moved.slot).prev = place as u32;
        }
        let node = nodes.at_mut(slot);
        let hash = node.hash;
        self.bytes -= node.bytes;
        node.prev = NONE;
        if Learners::of(self.held.len()).has(slot) {
            self.model.waited(&mut record, self.now);
        }
        self.remember(hash, record);
    }
}

impl Order for Auto {
    fn admit(&mut self, nodes: &Nodes, hash: u64, bytes: u64, room_bytes: u64) -> bool {
        let least = self.choose(nodes);
        self.chosen = least.items.first().and_then(|item| *item).map_or(NONE, |(_, held)| held.slot);
        let record = match self.ghosts.find(hash) {
            Some(record) => record.used(self.now, bytes),
            None => self.first_record(bytes),
        };
        let density = self.density(&Held { slot: NONE, bytes: bytes.max(1) as f32, record });
        // It must be worth more than each that would leave for it, as far as these are known.
        let mut lacking_bytes = self.bytes.saturating_add(bytes).saturating_sub(room_bytes) as f64;
        for (other, held) in least.items.iter().flatten() {
            if density < *other {
                self.tick();
                let record = self.arrives(hash, bytes);
                self.remember(hash, record);
                self.meet(nodes, NONE);
                return false;
            }
            lacking_bytes -= f64::from(held.bytes);
            if lacking_bytes <= 0.0 {
                break;
            }
        }
        true
    }

    fn insert(&mut self, nodes: &mut Nodes, slot: u32, _room_bytes: u64) {
        self.tick();
        let node = nodes.at_mut(slot);
        node.prev = self.held.len() as u32;
        let (hash, bytes) = (node.hash, node.bytes);
        let record = self.arrives(hash, bytes);
        self.bytes += bytes;
        self.newcomers.push(slot);
        grow(&mut self.held);
        self.held.push(Held { slot, bytes: bytes.max(1) as f32, record });
        self.meet(nodes, slot);
    }

    fn hit(&mut self, nodes: &mut Nodes, slot: u32) {
        self.tick();
        let Some(place) = self.place(nodes, slot) else { return };
        let Some(mut record) = self.held.get(place).map(|held| held.record) else { return };
        self.learn_use(&mut record, slot);
        self.novelty.asked(false);
        self.company.asked(Some(record.gap_now(self.now)));
        if let Some(held) = self.held.get_mut(place) {
            held.record = record.used(self.now, nodes.at(slot).bytes);
        }
        self.meet(nodes, NONE);
    }

    fn reweigh(&mut self, nodes: &mut Nodes, slot: u32, bytes: u64) {
        let place = self.place(nodes, slot);
        let before = std::mem::replace(&mut nodes.at_mut(slot).bytes, bytes);
        self.bytes = self.bytes - before + bytes;
        if let Some(held) = place.and_then(|place| self.held.get_mut(place)) {
            held.bytes = bytes.max(1) as f32;
        }
    }

    fn remove(&mut self, nodes: &mut Nodes, slot: u32) {
        self.leave(nodes, slot);
    }

    fn victim(&mut self, nodes: &mut Nodes, _room_bytes: u64) -> Option<u32> {
        let chosen = std::mem::replace(&mut self.chosen, NONE);
        let slot = match self.place(nodes, chosen) {
            Some(_) => chosen,
            None => self.choose(nodes).items.first().and_then(|item| *item)?.1.slot,
        };
        self.leave(nodes, slot);
        Some(slot)
    }

    fn heap_bytes(&self) -> usize {
        self.held.capacity() * size_of::<Held>() + self.ghosts.heap_bytes() + self.newcomers.heap_bytes()
    }
}

/// Which entries the model learns from: those whose slot, or fingerprint as a ghost, ends in zeros. Of these it hears both
/// uses and waiting, of the others neither, so what it learns is not biased.
struct Learners {
    mask: u32,
}

impl Learners {
    const fn of(held: usize) -> Self {
        let parts = held / LEARNERS;
        Self { mask: if parts < 2 { 0 } else { (1 << parts.ilog2()) - 1 } }
    }

    const fn has(&self, name: u32) -> bool {
        name & self.mask == 0
    }
}

/// The least dense of what it is shown.
struct Least {
    items: [Option<(f64, Held)>; POOL],
}

impl Least {
    const fn new() -> Self {
        Self { items: [None; POOL] }
    }

    fn add(&mut self, density: f64, held: Held) {
        if self.items.iter().flatten().any(|(_, other)| other.slot == held.slot) {
            return;
        }
        let mut item = Some((density, held));
        for other in &mut self.items {
            if other.is_none_or(|(least, _)| density < least) || item.is_none() {
                std::mem::swap(other, &mut item);
                if item.is_none() {
                    return;
                }
            }
        }
    }
}

/// Numbers that look like chance (the mixing of SplitMix64, Steele et al. 2014).
const fn spread(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}
