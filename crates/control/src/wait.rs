//! Waiting until edges have applied an event.
//!
//! What each edge has acknowledged is in memory only: an edge acknowledges again whenever it joins, so control forgets
//! nothing by being restarted. The mutex covers the map for one look or one change.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::{MAX_WAIT_MS, NodeName, Receipt, ReceiptState};
use tokio::sync::watch;

use crate::State;
use crate::problem::Failure;

/// The newest event that each joined edge has acknowledged.
pub(crate) struct Acks {
    applied: Mutex<HashMap<NodeName, u64>>,
    changed: watch::Sender<()>,
}

impl Default for Acks {
    fn default() -> Self {
        Self { applied: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Acks {
    /// Takes in a joined edge. The catalog bounds how many there are.
    pub(crate) fn join(&self, node: NodeName) {
        self.lock().entry(node).or_insert(0);
    }

    /// Forgets an edge.
    pub(crate) fn remove(&self, node: &NodeName) {
        self.lock().remove(node);
        self.changed.send_replace(());
    }

    /// Notes an acknowledgement. False: the edge has not joined since control started.
    pub(crate) fn acknowledge(&self, node: &NodeName, applied: u64) -> bool {
        let known = match self.lock().get_mut(node) {
            Some(before) => {
                *before = applied;
                true
            }
            None => false,
        };
        self.changed.send_replace(());
        known
    }

    /// The newest event that an edge has acknowledged; 0 if none.
    pub(crate) fn applied(&self, node: &NodeName) -> u64 {
        self.lock().get(node).copied().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeName, u64>> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until every edge that is not dead has acknowledged `event`, at most [`MAX_WAIT_MS`]. Names every edge.
///
/// # Errors
/// The catalog cannot say which edges there are.
pub(crate) async fn for_edges(state: &State, event: u64, committed: Instant) -> Result<Vec<Receipt>, Failure> {
    let mut changed = state.acks.changed.subscribe();
    let mut receipts: Vec<Receipt> = Vec::new();
    for node in state.catalog.nodes().await? {
        let alive = state.verdicts.alive(&node.name);
        let state = if alive { ReceiptState::Timeout } else { ReceiptState::Dead };
        receipts.push(Receipt { node: node.name, state, ms: 0.0 });
    }
    let deadline = tokio::time::Instant::from_std(committed + Duration::from_millis(MAX_WAIT_MS));
    loop {
        changed.mark_unchanged();
        let mut waiting = false;
        for receipt in &mut receipts {
            if receipt.state == ReceiptState::Applied {
                continue;
            }
            receipt.ms = committed.elapsed().as_secs_f64() * 1_000.0;
            if state.acks.applied(&receipt.node) >= event {
                // Also one that counts as dead, if it has applied the event all the same.
                receipt.state = ReceiptState::Applied;
            } else {
                waiting |= receipt.state == ReceiptState::Timeout;
            }
        }
        if !waiting {
            return Ok(receipts);
        }
        tokio::select! {
            _ = changed.changed() => {}
            () = tokio::time::sleep_until(deadline) => return Ok(receipts),
            () = state.ending.cancelled() => return Ok(receipts),
        }
    }
}
