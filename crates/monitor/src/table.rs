//! What the monitor has heard of each node, and what follows from it. Pure: the clock is an argument, in milliseconds
//! since the monitor began.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use api::heartbeat::Heartbeat;
use api::{Health, NodeHealth, NodeName};

/// Nodes that one monitor knows.
pub(crate) const MAX_NODES: usize = 10_000;
/// How long a silent node is remembered as dead, in milliseconds. It also bounds how long a node whose clock was set
/// back is taken for a replay of itself.
pub(crate) const FORGET_AFTER_MS: u64 = 600_000;

/// All nodes.
#[derive(Debug)]
pub(crate) struct Table {
    nodes: BTreeMap<NodeName, Seen>,
    dead_after_ms: u64,
}

#[derive(Debug)]
struct Seen {
    /// The sender's start and count: heartbeats that do not exceed them are replays.
    latest: (u64, u64),
    heard_ms: u64,
    load: u32,
    applied: u64,
}

/// What became of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// From a node that was alive.
    Same,
    /// From a node that is new or was dead.
    Changed,
    /// It is not newer than the last one.
    Replayed,
    /// It is from a new node, and there are [`MAX_NODES`].
    Full,
}

/// Who is alive at one moment.
#[derive(Debug, PartialEq)]
pub(crate) struct Verdict {
    /// In order of name.
    pub(crate) nodes: Vec<NodeHealth>,
    /// After how many milliseconds the next node is dead if none is heard meanwhile.
    pub(crate) next_death_ms: Option<u64>,
}

impl Table {
    pub(crate) fn new(dead_after_ms: u64) -> Self {
        Self { nodes: BTreeMap::new(), dead_after_ms }
    }

    /// Takes over who was alive for the monitor before: each gets the full time to be heard.
    pub(crate) fn adopt(&mut self, health: &Health, now_ms: u64) {
        for node in health.nodes.iter().filter(|node| node.alive).take(MAX_NODES) {
            let seen = Seen { latest: (0, 0), heard_ms: now_ms, load: node.load, applied: node.applied };
            self.nodes.entry(node.name.clone()).or_insert(seen);
        }
    }

    pub(crate) fn hear(&mut self, beat: Heartbeat, now_ms: u64) -> Heard {
        let full = self.nodes.len() >= MAX_NODES;
        let seen =
            Seen { latest: (beat.started_ms, beat.seq), heard_ms: now_ms, load: beat.load, applied: beat.applied };
        match self.nodes.entry(beat.node) {
            Entry::Vacant(_) if full => Heard::Full,
            Entry::Vacant(entry) => {
                entry.insert(seen);
                Heard::Changed
            }
            Entry::Occupied(entry) if seen.latest <= entry.get().latest => Heard::Replayed,
            Entry::Occupied(mut entry) => {
                let before = entry.insert(seen);
                if before.alive(self.dead_after_ms, now_ms) { Heard::Same } else { Heard::Changed }
            }
        }
    }

    /// Decides who is alive, and forgets who has been silent for [`FORGET_AFTER_MS`].
    pub(crate) fn verdict(&mut self, now_ms: u64) -> Verdict {
        self.nodes.retain(|_, seen| seen.silent_ms(now_ms) < FORGET_AFTER_MS);
        let (mut nodes, mut next_death_ms) = (Vec::with_capacity(self.nodes.len()), None);
        for (name, seen) in &self.nodes {
            let alive = seen.alive(self.dead_after_ms, now_ms);
            if alive {
                let left_ms = self.dead_after_ms.saturating_sub(seen.silent_ms(now_ms));
                next_death_ms = Some(next_death_ms.map_or(left_ms, |next: u64| next.min(left_ms)));
            }
            nodes.push(NodeHealth {
                name: name.clone(),
                alive,
                last_heartbeat_ms: seen.silent_ms(now_ms),
                load: seen.load,
                applied: seen.applied,
            });
        }
        Verdict { nodes, next_death_ms }
    }

    /// Gives every node the full time again: the monitor could not hear them.
    pub(crate) fn excuse(&mut self, now_ms: u64) {
        for seen in self.nodes.values_mut() {
            seen.heard_ms = now_ms;
        }
    }
}

impl Seen {
    fn silent_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.heard_ms)
    }
    fn alive(&self, dead_after_ms: u64, now_ms: u64) -> bool {
        self.silent_ms(now_ms) < dead_after_ms
    }
}

/// Whether two verdicts name the same nodes in the same states.
pub(crate) fn same_states(a: &[NodeHealth], b: &[NodeHealth]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.name == b.name && a.alive == b.alive)
}

/// Who was alive in `before` and is dead in `after`.
pub(crate) fn newly_dead<'a>(
    before: &'a [NodeHealth],
    after: &'a [NodeHealth],
) -> impl Iterator<Item = &'a NodeName> + 'a {
    let was_alive = |name: &NodeName| {
        before.binary_search_by(|node| node.name.cmp(name)).is_ok_and(|at| before.get(at).is_some_and(|n| n.alive))
    };
    after.iter().filter(move |node| !node.alive && was_alive(&node.name)).map(|node| &node.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(node: &str, started_ms: u64, seq: u64) -> Heartbeat {
        Heartbeat { node: node.parse().expect("name"), started_ms, seq, applied: seq * 10, load: 1 }
    }

    /// As `a b!`, where `!` is dead, and the time to the next death.
    fn check(table: &mut Table, now_ms: u64, expected: &str, next_death_ms: Option<u64>) {
        let verdict = table.verdict(now_ms);
        let shown: Vec<String> =
            verdict.nodes.iter().map(|n| format!("{}{}", n.name, if n.alive { "" } else { "!" })).collect();
        assert_eq!((shown.join(" ").as_str(), verdict.next_death_ms), (expected, next_death_ms), "at {now_ms}");
    }

    #[test]
    fn nodes_come_and_go() {
        let mut table = Table::new(100);
        check(&mut table, 0, "", None);
        assert_eq!(table.hear(beat("b", 1, 1), 10), Heard::Changed);
        assert_eq!(table.hear(beat("a", 1, 1), 30), Heard::Changed);
        check(&mut table, 30, "a b", Some(80));
        assert_eq!(table.hear(beat("b", 1, 2), 50), Heard::Same);
        check(&mut table, 129, "a b", Some(1));
        check(&mut table, 130, "a! b", Some(20));
        check(&mut table, 150, "a! b!", None);
        assert_eq!(table.hear(beat("a", 1, 2), 151), Heard::Changed);
        check(&mut table, 151, "a b!", Some(100));
        check(&mut table, 50 + FORGET_AFTER_MS - 1, "a! b!", None);
        check(&mut table, 50 + FORGET_AFTER_MS, "a!", None);
        check(&mut table, u64::MAX, "", None);
    }

    #[test]
    fn what_a_verdict_says_of_a_node() {
        let mut table = Table::new(100);
        table.hear(beat("a", 1, 7), 10);
        let expected =
            NodeHealth { name: "a".parse().expect("name"), alive: true, last_heartbeat_ms: 15, load: 1, applied: 70 };
        assert_eq!(table.verdict(25).nodes, [expected]);
    }

    #[test]
    fn replays_change_nothing() {
        let mut table = Table::new(100);
        table.hear(beat("a", 5, 5), 0);
        for (started_ms, seq) in [(5, 5), (5, 4), (4, 99), (0, 0)] {
            assert_eq!(table.hear(beat("a", started_ms, seq), 99), Heard::Replayed);
        }
        check(&mut table, 100, "a!", None);
        // A restart begins to count anew, with a later start.
        assert_eq!(table.hear(beat("a", 6, 0), 100), Heard::Changed);
        // Once forgotten, a clock that was set back is accepted.
        table.verdict(100 + FORGET_AFTER_MS);
        assert_eq!(table.hear(beat("a", 1, 0), 100 + FORGET_AFTER_MS), Heard::Changed);
    }

    #[test]
    fn the_number_of_nodes_is_bounded() {
        let mut table = Table::new(100);
        for n in 0..MAX_NODES {
            assert_eq!(table.hear(beat(&format!("n{n}"), 1, 1), 0), Heard::Changed);
        }
        assert_eq!(table.hear(beat("one-more", 1, 1), 0), Heard::Full);
        assert_eq!(table.hear(beat("n7", 1, 2), 0), Heard::Same);
    }

    #[test]
    fn a_restart_and_a_stall_excuse_silence() {
        let node = |name: &str, alive| NodeHealth {
            name: name.parse().expect("name"),
            alive,
            last_heartbeat_ms: 90,
            load: 3,
            applied: 4,
        };
        let mut table = Table::new(100);
        table.hear(beat("a", 1, 1), 0);
        table.adopt(&Health { generation: 1, nodes: vec![node("a", true), node("b", true), node("c", false)] }, 50);
        check(&mut table, 99, "a b", Some(1));
        check(&mut table, 149, "a! b", Some(1));
        assert_eq!(table.hear(beat("b", 1, 1), 149), Heard::Same);
        table.excuse(1_000);
        check(&mut table, 1_000, "a b", Some(100));
    }

    #[test]
    fn differences_between_verdicts() {
        let mut table = Table::new(100);
        table.hear(beat("a", 1, 1), 0);
        table.hear(beat("b", 1, 1), 50);
        let (both, one) = (table.verdict(50).nodes, table.verdict(120).nodes);
        assert!(same_states(&both, &table.verdict(60).nodes));
        assert!(!same_states(&both, &one));
        assert!(!same_states(&both, &both[..1]));
        let dead: Vec<&str> = newly_dead(&both, &one).map(NodeName::as_str).collect();
        assert_eq!(dead, ["a"]);
        assert_eq!(newly_dead(&one, &both).count(), 0);
        assert_eq!(newly_dead(&one, &one).count(), 0);
    }
}
