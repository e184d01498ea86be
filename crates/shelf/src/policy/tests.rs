//! The policies by hand: for each a short story in which a wrong order would let the wrong one go.

use crate::bounded::{Bounded, Insertion, Terms};
use crate::policy::nodes::{Node, Nodes};
use crate::policy::{Order, Policy, PolicyChoice};

/// A policy over nodes that are named by letters. Hashes are far apart, as good ones are.
struct Story {
    policy: Policy,
    nodes: Nodes,
    slots: Vec<(char, u32)>,
    room_bytes: u64,
}

impl Story {
    fn new(choice: &str, room_bytes: u64) -> Self {
        let choice: PolicyChoice = choice.parse().unwrap();
        Self { policy: Policy::new(choice), nodes: Nodes::new(), slots: Vec::new(), room_bytes }
    }

    /// Puts letters in, one after the other, each of the same bytes.
    fn insert(&mut self, letters: &str, bytes: u64) -> &mut Self {
        for letter in letters.chars() {
            let slot = self.nodes.take_slot(Node::new(hash(letter), bytes, 0));
            self.policy.insert(&mut self.nodes, slot, self.room_bytes);
            self.slots.push((letter, slot));
        }
        self
    }

    fn hit(&mut self, letters: &str) -> &mut Self {
        for letter in letters.chars() {
            let slot = self.slot(letter);
            self.policy.hit(&mut self.nodes, slot);
        }
        self
    }

    fn remove(&mut self, letter: char) -> &mut Self {
        let slot = self.slot(letter);
        self.policy.remove(&mut self.nodes, slot);
        self.gone(slot);
        self
    }

    fn reweigh(&mut self, letter: char, bytes: u64) -> &mut Self {
        let slot = self.slot(letter);
        self.policy.reweigh(&mut self.nodes, slot, bytes);
        self
    }

    /// The letters of the next victims.
    #[track_caller]
    fn leaves(&mut self, expected: &str) -> &mut Self {
        let mut left = String::new();
        for _ in expected.chars() {
            let Some(slot) = self.policy.victim(&mut self.nodes, self.room_bytes) else { break };
            left.push(self.gone(slot));
        }
        assert_eq!(left, expected);
        self
    }

    #[track_caller]
    fn is_empty(&mut self) {
        assert_eq!(self.policy.victim(&mut self.nodes, self.room_bytes), None);
        assert!(self.slots.is_empty());
    }

    fn slot(&self, letter: char) -> u32 {
        self.slots.iter().find(|(other, _)| *other == letter).unwrap().1
    }

    fn gone(&mut self, slot: u32) -> char {
        self.nodes.free_slot(slot);
        let at = self.slots.iter().position(|(_, other)| *other == slot).unwrap();
        self.slots.remove(at).0
    }
}

fn hash(letter: char) -> u64 {
    (u64::from(letter) + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

#[test]
fn lru_lets_go_of_what_was_used_least_recently() {
    let mut story = Story::new("lru", 100);
    story.insert("abcde", 1).hit("ab").remove('d').leaves("cea").insert("f", 1).hit("b").leaves("fb").is_empty();
}

#[test]
fn sieve_spares_once_what_was_used_and_keeps_its_place() {
    let mut story = Story::new("sieve", 100);
    // The hand passes a and b, which were used, takes c and rests at d; f comes in behind it.
    story.insert("abcde", 1).hit("abba").leaves("c").insert("f", 1).hit("e");
    // d, then e is spared, then f; then from the old end: a, which is not spared again, and b. LRU would begin with d, a.
    story.leaves("dfabe").is_empty();
    // The hand stands on what is removed.
    story.insert("abcd", 1).hit("a").leaves("b").remove('c').leaves("da").is_empty();
}

#[test]
fn s3fifo_sifts_newcomers_and_welcomes_ghosts() {
    // Ten parts: one for small.
    let mut story = Story::new("s3fifo", 10);
    // a was used twice and moves to main; b was used once and leaves as a ghost, as do c to i.
    story.insert("abcdefghij", 1).hit("aab").leaves("bcdefghi");
    // b comes back into main, k into small. Small is emptied first; main is first in, first out.
    story.insert("bk", 1).leaves("jk").leaves("ab").is_empty();
    // What left main is no ghost: a begins in small again and leaves before b, which left small as a ghost once more.
    story.insert("b", 1).leaves("b").insert("ba", 1).leaves("a").leaves("b").is_empty();
}

#[test]
fn s3fifo_lets_used_entries_of_main_go_round() {
    let mut story = Story::new("s3fifo", 10);
    story.insert("abc", 1).leaves("abc").insert("abc", 1);
    // All are in main now. a has three uses however often it is hit, b has one.
    story.hit("aaaaaab").leaves("cba").is_empty();
    // Main holds more than its nine parts: it gives the victim, not small.
    story.insert("abcdefghij", 1).leaves("abcdefghij").insert("abcdefghij", 1).insert("k", 1).leaves("a");
    story.leaves("k").leaves("bcdefghij").is_empty();
}

#[test]
fn lfu_weighs_newcomers_against_what_would_leave() {
    // A window of one byte, and 99 of main, of which 79 are protected.
    let mut story = Story::new("lfu", 100);
    // a to c have settled in main; d is in the window.
    story.insert("abcd", 33).hit("aabb");
    // The window is too full, and its oldest must go: d was seen as often as c and leaves.
    story.insert("e", 1).leaves("d");
    // So does e; but f was seen twice, and c leaves for it.
    story.insert("f", 33).hit("f").insert("g", 1).leaves("ec");
    // Now f has room in main, on probation; a and b are protected, g is alone in the window.
    story.leaves("fabg").is_empty();
}

#[test]
fn lfu_remembers_what_left() {
    let mut story = Story::new("lfu", 100);
    story.insert("abc", 33);
    for _ in 0..3 {
        // x is asked for again and again, and in the end more often than a, which has waited longest.
        story.insert("x", 33);
        if story.policy.victim(&mut story.nodes, 100).map(|slot| story.gone(slot)) == Some('a') {
            return story.leaves("b").leaves("c").leaves("x").is_empty();
        }
    }
    panic!("x was never let in");
}

#[test]
fn lfu_protects_what_was_used_twice_up_to_its_part() {
    let mut story = Story::new("lfu", 100);
    // Main has 99 bytes, 76 for what is protected: three of the four.
    story.insert("abcd", 24).hit("abcd");
    // The window is empty and main is asked: a was the first to be protected and fell back.
    story.leaves("abcd").is_empty();
    story.insert("abcd", 24).hit("dcba").leaves("dcba").is_empty();
}

#[test]
fn gdsf_weighs_uses_by_size_and_ages() {
    let mut story = Story::new("gdsf", 1000);
    // Worth: a 1/10, b 1/100, c 3/100, d 1/50.
    story.insert("a", 10).insert("bc", 100).insert("d", 50).hit("cc").leaves("bd");
    // L is 1/50 now, so e is worth 1/50 + 1/100 = 3/100 and f 1/50 + 1/125 = 0.028, less than c.
    story.insert("f", 125).leaves("f").insert("e", 90).leaves("cea").is_empty();
    // What became larger is worth less.
    story.insert("a", 10).insert("b", 20).reweigh('a', 40).leaves("ab").is_empty();
}

#[test]
fn gdsf_for_bytes_counts_uses_alone() {
    let mut story = Story::new("gdsf:bytes", 1000);
    story.insert("a", 1).insert("b", 500).hit("b").leaves("a");
    // L is 1: c is worth 2, as b is; with a use it is worth more.
    story.insert("c", 1).hit("c").leaves("bc").is_empty();
}

#[test]
fn a_newcomer_that_is_worth_less_is_not_let_in() {
    let mut cache: Bounded<char, ()> = Bounded::new(200, "gdsf".parse().unwrap());
    let mut insert = |letter: char, bytes, uses| {
        let insertion = cache.insert(hash(letter), letter, (), bytes, Terms::default(), 0);
        (1..uses).for_each(|_| assert!(cache.get(hash(letter), &letter).is_some()));
        match insertion {
            Insertion::Stored { evicted, .. } => (true, evicted.into_iter().map(|(letter, ())| letter).collect()),
            Insertion::Refused { evicted, .. } => (false, evicted.into_iter().map(|(letter, ())| letter).collect()),
            Insertion::TooLarge { .. } => (false, "too large".to_owned()),
        }
    };
    // Worth: a 3/60, b 1/40, c 1/100. Equals are let in; L is 1/100, then 2/100, so e is worth 5/100 in the end.
    assert_eq!(insert('a', 60, 3), (true, String::new()));
    assert_eq!(insert('b', 40, 1), (true, String::new()));
    assert_eq!(insert('c', 100, 1), (true, String::new()));
    assert_eq!(insert('d', 100, 1), (true, "c".to_owned()));
    assert_eq!(insert('e', 100, 3), (true, "d".to_owned()));
    // 2/100 + 1/60 is more than b's 1/40, and less than a's and e's 5/100: b leaves, and that is not enough.
    assert_eq!(insert('f', 60, 1), (false, "b".to_owned()));
    // L is 2/100 + 1/60 now: 0.0367. The next of 100 bytes is worth 0.0467, of 60 bytes 0.0533.
    assert_eq!(insert('g', 100, 1), (false, String::new()));
    assert_eq!(insert('h', 201, 1), (false, "too large".to_owned()));
    let counters = cache.counters();
    assert_eq!((counters.insertions, counters.evictions, counters.refused, cache.bytes()), (5, 3, 3, 160));
}

/// Hot keys that are asked for in turn, and between them a scan of keys that never come back: how many of the requests
/// for hot keys are hits, in percent.
fn hits_beside_a_scan(choice: &str) -> u64 {
    let mut cache: Bounded<u64, ()> = Bounded::new(1000, choice.parse().unwrap());
    let (mut hits, mut asked, mut fresh) = (0, 0, 1 << 20);
    for round in 0..60_u64 {
        for hot in 0..50 {
            let mut ask = |key: u64| {
                let hash = (key + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93);
                let hash = hash ^ (hash >> 29);
                let hit = cache.get(hash, &key).is_some();
                if !hit {
                    cache.insert(hash, key, (), 10, Terms::default(), 0);
                }
                u64::from(hit)
            };
            let hit = ask(hot);
            if round >= 10 {
                (hits, asked) = (hits + hit, asked + 1);
            }
            // Before the scan begins, the hot keys have been asked for a few times.
            for _ in 0..if round >= 5 { 3 } else { 0 } {
                fresh += 1;
                ask(fresh);
            }
        }
    }
    hits * 100 / asked
}

#[test]
fn scans_push_the_hot_keys_out_of_lru_alone() {
    assert_eq!(hits_beside_a_scan("lru"), 0);
    for choice in ["lfu", "s3fifo", "sieve", "gdsf", "auto", "auto:bytes"] {
        let hits = hits_beside_a_scan(choice);
        assert!(hits >= 95, "{choice}: {hits} %");
    }
}

#[test]
fn what_policies_keep_is_what_they_say() {
    for choice in ["lru", "lfu", "s3fifo", "sieve", "gdsf", "auto", "auto:bytes"] {
        let mut cache: Bounded<u64, u32> = Bounded::new(10_000, choice.parse().unwrap());
        for key in 0..20_000_u64 {
            cache.insert(key.wrapping_mul(0xD6E8_FEB8_6659_FD93), key, 0, 1, Terms::default(), 0);
        }
        let most = cache.len() as u64 * Bounded::<u64, u32>::ENTRY_BYTES;
        assert!(cache.len() == 10_000 && cache.heap_bytes() as u64 <= most, "{choice}: {} {most}", cache.heap_bytes());
    }
}
