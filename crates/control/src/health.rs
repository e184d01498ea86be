//! Who is alive: the monitor's newest verdict. In memory only; after a start there is none until the monitor hands it in,
//! which it does within a second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use api::{ErrorCode, Health, NodeHealth, NodeName};
use tokio::sync::watch;

use crate::problem::Failure;

/// A verdict, and what readers of the event stream need to know about it.
pub(crate) struct Verdict {
    pub(crate) health: Health,
    /// Counts the verdicts in which somebody came, went, or became more or less busy: only those are worth a message.
    pub(crate) news: u64,
    taken_at: Instant,
}

/// The newest verdict, for everyone who wants to know.
pub(crate) struct Verdicts {
    newest: watch::Sender<Option<Arc<Verdict>>>,
}

impl Default for Verdicts {
    fn default() -> Self {
        Self { newest: watch::Sender::new(None) }
    }
}

impl Verdicts {
    /// Takes in a verdict. The same one again is success: its first answer got lost.
    ///
    /// # Errors
    /// `Conflict` for one that is older than the newest; `InvalidRequest` or `TooLarge` for one that names nobody,
    /// somebody twice, or too many.
    pub(crate) fn take(&self, health: Health) -> Result<(), Failure> {
        check(&health)?;
        let mut outcome = Ok(());
        self.newest.send_if_modified(|newest| {
            let news = match newest {
                None => 1,
                Some(known) if health.generation > known.health.generation => {
                    known.news + u64::from(told(&known.health) != told(&health))
                }
                Some(known) => {
                    let known = known.health.generation;
                    if health.generation < known {
                        let detail = format!("verdict {} is older than the one in use, {known}", health.generation);
                        outcome = Err(Failure::new(ErrorCode::Conflict, detail));
                    }
                    return false;
                }
            };
            *newest = Some(Arc::new(Verdict { health, news, taken_at: Instant::now() }));
            true
        });
        outcome
    }

    /// The newest verdict, and a wake-up at each.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Arc<Verdict>>> {
        self.newest.subscribe()
    }

    /// The health of a node, if the monitor has heard of it, with the time since its last heartbeat as it is by now.
    pub(crate) fn of(&self, node: &NodeName) -> Option<NodeHealth> {
        let verdict = self.newest.borrow().clone()?;
        let health = verdict.of(node)?;
        let since = u64::try_from(verdict.taken_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        Some(NodeHealth { last_heartbeat_ms: health.last_heartbeat_ms.saturating_add(since), ..health.clone() })
    }
}

impl Verdict {
    /// What it says of a node.
    pub(crate) fn of(&self, node: &NodeName) -> Option<&NodeHealth> {
        self.health.nodes.iter().find(|health| health.name == *node)
    }

    /// How many nodes are alive.
    pub(crate) fn living(&self) -> usize {
        self.health.nodes.iter().filter(|node| node.alive).count()
    }
}

/// What of a verdict is news when it is another: the rest changes every time.
fn told(health: &Health) -> BTreeMap<&NodeName, (bool, u32)> {
    health.nodes.iter().map(|node| (&node.name, (node.alive, node.load))).collect()
}

fn check(health: &Health) -> Result<(), Failure> {
    let count = health.nodes.len();
    if count == 0 {
        return Err(Failure::invalid("nodes: an empty membership is never taken; name every node that was heard of"));
    }
    if count > catalog::MAX_NODES {
        let detail = format!("nodes: {count} of them; at most {} are allowed", catalog::MAX_NODES);
        return Err(Failure::new(ErrorCode::TooLarge, detail));
    }
    if told(health).len() < count {
        return Err(Failure::invalid("nodes: one is named twice; name each once"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(generation: u64, alive: bool, load: u32) -> Health {
        let name = "lisbon".parse().expect("name");
        let node = NodeHealth { name, alive, last_heartbeat_ms: generation, load, applied: generation };
        Health { generation, nodes: vec![node] }
    }

    #[test]
    fn only_newer_verdicts_replace_and_only_changes_are_news() {
        let verdicts = Verdicts::default();
        let name = "lisbon".parse().expect("name");
        let seen = || verdicts.watch().borrow().as_ref().map(|v| (v.health.generation, v.news, v.living()));
        assert!(seen().is_none() && verdicts.of(&name).is_none());
        verdicts.take(health(5, true, 0)).expect("first");
        assert_eq!(seen(), Some((5, 1, 1)));
        verdicts.take(health(5, false, 0)).expect("the same generation is success");
        assert_eq!(seen(), Some((5, 1, 1)));
        assert_eq!(verdicts.take(health(4, false, 0)).expect_err("older").0.code, ErrorCode::Conflict);
        verdicts.take(health(6, true, 0)).expect("newer");
        assert_eq!(seen(), Some((6, 1, 1)), "another heartbeat alone is no news");
        verdicts.take(health(7, true, 9)).expect("busy");
        assert_eq!(seen(), Some((7, 2, 1)));
        verdicts.take(health(8, false, 9)).expect("dead");
        assert_eq!(seen(), Some((8, 3, 0)));
        assert!(verdicts.of(&name).is_some_and(|node| !node.alive && node.last_heartbeat_ms >= 8));
    }

    #[test]
    fn memberships_are_neither_empty_nor_endless_nor_double() {
        let node = |n: usize| NodeHealth {
            name: format!("n{n}").parse().expect("name"),
            ..health(1, true, 0).nodes[0].clone()
        };
        let code = |nodes: Vec<NodeHealth>| {
            Verdicts::default().take(Health { generation: 1, nodes }).err().map(|failure| failure.0.code)
        };
        assert_eq!(code(Vec::new()), Some(ErrorCode::InvalidRequest));
        assert_eq!(code(vec![node(1), node(1)]), Some(ErrorCode::InvalidRequest));
        assert_eq!(code((0..catalog::MAX_NODES).map(node).collect()), None);
        assert_eq!(code((0..=catalog::MAX_NODES).map(node).collect()), Some(ErrorCode::TooLarge));
    }
}
