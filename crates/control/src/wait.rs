//! Waiting until edges have applied an event, and telling what each of them did.
//!
//! What each edge has acknowledged is in memory only: an edge acknowledges again whenever it joins, so control forgets
//! nothing by being restarted. The map holds edges that have joined, so the catalog bounds how many there are.
//!
//! Awaited is every edge that the monitor says is alive, and every edge that has joined this control and of which the
//! monitor has said nothing yet: just after a start nobody is known to be alive, and an edge that follows the stream
//! must not pass for dead. A dead edge is named and not awaited, because it catches up before it serves stored bytes as
//! fresh. One that dies meanwhile is given up at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{ErrorCode, MAX_WAIT_MS, NodeName, Receipt, ReceiptState};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::State;
use crate::health::Verdict;
use crate::problem::Failure;

/// Requests that wait at the same time.
const MAX_WAITERS: usize = 1_024;

/// The newest event that each joined edge has acknowledged.
pub(crate) struct Acks {
    applied: watch::Sender<HashMap<NodeName, u64>>,
    waiters: Arc<Semaphore>,
}

impl Default for Acks {
    fn default() -> Self {
        Self { applied: watch::Sender::default(), waiters: Arc::new(Semaphore::new(MAX_WAITERS)) }
    }
}

/// A place among those who wait. Who does not want to wait has none.
pub(crate) struct Place {
    _permit: Option<OwnedSemaphorePermit>,
    wanted: bool,
}

impl Acks {
    /// Takes in a joined edge. What it has acknowledged before still counts.
    pub(crate) fn join(&self, node: NodeName) {
        self.applied.send_modify(|applied| {
            applied.entry(node).or_insert(0);
        });
    }

    /// Forgets an edge.
    pub(crate) fn remove(&self, node: &NodeName) {
        self.applied.send_if_modified(|applied| applied.remove(node).is_some());
    }

    /// Notes an acknowledgement. False: the edge has not joined since control started.
    ///
    /// The number may be smaller than before: an edge that was killed starts from the last one it wrote down.
    pub(crate) fn acknowledge(&self, node: &NodeName, number: u64) -> bool {
        self.applied.send_if_modified(|applied| match applied.get_mut(node) {
            Some(applied) => {
                *applied = number;
                true
            }
            None => false,
        })
    }

    /// The newest event that an edge has acknowledged; 0 if none.
    pub(crate) fn applied(&self, node: &NodeName) -> u64 {
        self.applied.borrow().get(node).copied().unwrap_or(0)
    }

    /// A place among those who wait. Taken before anything is changed, so that a refusal changes nothing.
    ///
    /// # Errors
    /// `Overloaded`: too many are waiting.
    pub(crate) fn place(&self, wanted: bool) -> Result<Place, Failure> {
        if !wanted {
            return Ok(Place { _permit: None, wanted });
        }
        match Arc::clone(&self.waiters).try_acquire_owned() {
            Ok(permit) => Ok(Place { _permit: Some(permit), wanted }),
            Err(_) => {
                let detail = format!("{MAX_WAITERS} requests wait for edges already; try again, or without waiting");
                Err(Failure::new(ErrorCode::Overloaded, detail))
            }
        }
    }
}

/// What every edge did with `event`, which was committed just now. Waits at most [`MAX_WAIT_MS`] for those that are not
/// dead, or not at all and answers nothing if that was not wanted.
///
/// # Errors
/// The catalog cannot say which edges there are. The change itself is done.
pub(crate) async fn for_edges(state: &State, place: Place, event: u64) -> Result<Vec<Receipt>, Failure> {
    if !place.wanted {
        return Ok(Vec::new());
    }
    let committed = Instant::now();
    let deadline = tokio::time::Instant::from_std(committed + Duration::from_millis(MAX_WAIT_MS));
    let (mut applied, mut verdicts) = (state.acks.applied.subscribe(), state.verdicts.watch());
    let nodes = state.catalog.nodes().await?.into_iter().map(|node| node.name);
    let mut round = Round::new(nodes, event);
    loop {
        let verdict = verdicts.borrow_and_update().clone();
        let elapsed_ms = committed.elapsed().as_secs_f64() * 1_000.0;
        if round.look(&applied.borrow_and_update(), verdict.as_deref(), elapsed_ms) {
            return Ok(round.receipts);
        }
        tokio::select! {
            _ = applied.changed() => {}
            _ = verdicts.changed() => {}
            () = tokio::time::sleep_until(deadline) => return Ok(round.timed_out(MAX_WAIT_MS as f64)),
            () = state.ending.cancelled() => return Ok(round.receipts),
        }
    }
}

/// One wait: who has applied the event, and who is still awaited (a receipt that says `Timeout`). Pure.
struct Round {
    event: u64,
    receipts: Vec<Receipt>,
}

impl Round {
    fn new(nodes: impl Iterator<Item = NodeName>, event: u64) -> Self {
        let receipt = |node| Receipt { node, state: ReceiptState::Timeout, ms: 0.0 };
        Self { event, receipts: nodes.map(receipt).collect() }
    }

    /// Takes note of how things stand `elapsed_ms` after the commit; answers whether nobody is awaited any more.
    fn look(&mut self, applied: &HashMap<NodeName, u64>, verdict: Option<&Verdict>, elapsed_ms: f64) -> bool {
        for receipt in &mut self.receipts {
            if receipt.state == ReceiptState::Applied {
                continue;
            }
            let acknowledged = applied.get(&receipt.node).copied();
            let said = verdict.and_then(|verdict| verdict.of(&receipt.node));
            let alive = said.map_or(acknowledged.is_some(), |health| health.alive);
            receipt.ms = elapsed_ms;
            receipt.state = match acknowledged {
                // Also one that counts as dead, if it has applied the event all the same.
                Some(number) if number >= self.event => ReceiptState::Applied,
                _ if alive => ReceiptState::Timeout,
                _ => ReceiptState::Dead,
            };
        }
        self.receipts.iter().all(|receipt| receipt.state != ReceiptState::Timeout)
    }

    /// The receipts when the time is over.
    fn timed_out(mut self, waited_ms: f64) -> Vec<Receipt> {
        for receipt in self.receipts.iter_mut().filter(|receipt| receipt.state == ReceiptState::Timeout) {
            receipt.ms = waited_ms;
        }
        self.receipts
    }
}

#[cfg(test)]
mod tests {
    use api::{Health, NodeHealth};

    use super::*;
    use crate::health::Verdicts;

    fn name(text: &str) -> NodeName {
        text.parse().expect(text)
    }

    /// Receipts as `name:state@ms`.
    fn shown(receipts: &[Receipt]) -> String {
        let words: Vec<_> = receipts.iter().map(|r| format!("{}:{:?}@{}", r.node, r.state, r.ms)).collect();
        words.join(" ")
    }

    fn verdict(nodes: &[(&str, bool)]) -> Arc<Verdict> {
        let health = |&(node, alive): &(&str, bool)| NodeHealth {
            name: name(node),
            alive,
            last_heartbeat_ms: 0,
            load: 0,
            applied: 0,
        };
        let verdicts = Verdicts::default();
        verdicts.take(Health { generation: 1, nodes: nodes.iter().map(health).collect() }).expect("verdict");
        let verdict = verdicts.watch().borrow().clone();
        verdict.expect("verdict")
    }

    #[test]
    fn everyone_is_named_with_what_they_did() {
        let nodes = ["a", "b", "c", "d"].map(name);
        let mut applied: HashMap<_, _> = [("a", 5), ("b", 4), ("c", 4)].map(|(n, seq)| (name(n), seq)).into();
        let said = verdict(&[("a", true), ("b", true), ("d", false)]);
        let mut round = Round::new(nodes.iter().cloned(), 5);
        assert!(!round.look(&applied, Some(&said), 1.0), "b is alive; c has joined and nobody called it dead");
        applied.insert(name("b"), 6);
        assert!(!round.look(&applied, Some(&said), 2.0));
        assert_eq!(shown(&round.timed_out(9.0)), "a:Applied@1 b:Applied@2 c:Timeout@9 d:Dead@2");

        // Who has applied it stays so; who dies is given up, also where it comes back with a smaller number.
        let mut round = Round::new(nodes.iter().cloned(), 5);
        assert!(!round.look(&applied, Some(&said), 1.0));
        applied.insert(name("b"), 0);
        let died = verdict(&[("a", false), ("b", false), ("c", false), ("d", false)]);
        assert!(round.look(&applied, Some(&died), 3.0));
        assert_eq!(shown(&round.receipts), "a:Applied@1 b:Applied@1 c:Dead@3 d:Dead@3");
    }

    #[test]
    fn without_a_verdict_those_who_joined_are_awaited() {
        let mut round = Round::new(["a", "b"].map(name).into_iter(), 1);
        assert!(!round.look(&[(name("a"), 0)].into(), None, 1.0));
        assert!(round.look(&[(name("a"), 1)].into(), None, 2.0));
        assert_eq!(shown(&round.receipts), "a:Applied@2 b:Dead@2");
        assert!(Round::new(std::iter::empty(), 1).look(&HashMap::new(), None, 0.0), "nobody to wait for");
    }

    #[test]
    fn only_who_has_joined_is_heard_and_waiting_is_bounded() {
        let acks = Acks::default();
        assert!(!acks.acknowledge(&name("a"), 1));
        acks.join(name("a"));
        assert!(acks.acknowledge(&name("a"), 7));
        acks.join(name("a"));
        assert_eq!(acks.applied(&name("a")), 7);
        acks.remove(&name("a"));
        assert!(acks.applied(&name("a")) == 0 && !acks.acknowledge(&name("a"), 7));
        let places: Vec<_> = (0..MAX_WAITERS).map(|_| acks.place(true).expect("place")).collect();
        assert!(acks.place(true).is_err() && acks.place(false).is_ok());
        drop(places);
        assert!(acks.place(true).is_ok());
    }
}
