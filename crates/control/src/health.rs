//! The monitor's newest verdict. In memory only: the monitor hands in the next one within a second.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{ErrorCode, Health, NodeHealth, NodeName, Problem};
use tokio::sync::watch;

/// The newest verdict, and the newest in which somebody came or went.
pub(crate) struct Verdicts {
    newest: watch::Sender<Arc<Health>>,
    told: watch::Sender<Arc<Health>>,
}

impl Default for Verdicts {
    fn default() -> Self {
        let nothing = Arc::new(Health::default());
        Self { newest: watch::Sender::new(Arc::clone(&nothing)), told: watch::Sender::new(nothing) }
    }
}

fn living(health: &Health) -> BTreeMap<&NodeName, bool> {
    health.nodes.iter().map(|node| (&node.name, node.alive)).collect()
}

impl Verdicts {
    /// Takes in a verdict. The same one again is no error.
    ///
    /// # Errors
    /// `Conflict` for one that is older than the newest.
    pub(crate) fn take(&self, health: Health) -> Result<(), Problem> {
        let newest = self.newest.borrow().generation;
        if health.generation < newest {
            let detail = format!("verdict {} is older than the one in use, {newest}", health.generation);
            return Err(Problem::new(ErrorCode::Conflict, detail));
        }
        let health = Arc::new(health);
        self.newest.send_replace(Arc::clone(&health));
        let come_or_gone = living(&self.told.borrow()) != living(&health);
        if come_or_gone {
            self.told.send_replace(health);
        }
        Ok(())
    }

    /// What readers of the event stream are told: the verdict as it was when somebody last came or went.
    pub(crate) fn told(&self) -> watch::Receiver<Arc<Health>> {
        self.told.subscribe()
    }

    /// The health of a node, if the monitor has heard of it.
    pub(crate) fn of(&self, node: &NodeName) -> Option<NodeHealth> {
        self.newest.borrow().nodes.iter().find(|health| health.name == *node).cloned()
    }

    /// Whether a node is to be used. One that was never heard of is not.
    pub(crate) fn alive(&self, node: &NodeName) -> bool {
        self.of(node).is_some_and(|health| health.alive)
    }

    /// How many nodes are alive.
    pub(crate) fn living(&self) -> usize {
        self.newest.borrow().nodes.iter().filter(|node| node.alive).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_replaces_older_and_only_changes_are_told() {
        let verdict = |generation, alive, load| {
            let name = "a".parse().expect("name");
            Health { generation, nodes: vec![NodeHealth { name, alive, last_heartbeat_ms: 0, load, applied: 0 }] }
        };
        let verdicts = Verdicts::default();
        let mut told = verdicts.told();
        let name = "a".parse().expect("name");
        assert!(!verdicts.alive(&name));
        verdicts.take(verdict(5, true, 0)).expect("newer");
        assert!(verdicts.alive(&name) && told.has_changed().expect("open"));
        told.mark_unchanged();
        verdicts.take(verdict(6, true, 9)).expect("newer");
        assert!(!told.has_changed().expect("open"), "only the load has changed");
        assert_eq!(verdicts.of(&name).map(|node| node.load), Some(9));
        assert!(verdicts.take(verdict(5, false, 0)).is_err());
        verdicts.take(verdict(6, true, 9)).expect("the same again");
        verdicts.take(verdict(7, false, 0)).expect("newer");
        assert!(told.has_changed().expect("open") && verdicts.living() == 0);
    }
}
