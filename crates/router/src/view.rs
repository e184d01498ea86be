//! What a router knows of the whole at one moment: zones, edges, who is alive. Immutable; a change makes a new one.

use std::collections::HashMap;
use std::sync::Arc;

use api::addressing::Zones;
use api::node::Snapshot;
use api::{Health, NodeDoc, NodeHealth, NodeName};

/// See the file's head.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// The configuration, without the readers: a router does not decide who may read.
    pub(crate) snapshot: Arc<Snapshot>,
    /// Its zones, ready to be looked up.
    pub(crate) zones: Arc<Zones>,
    /// Its edges, each with its health.
    pub(crate) edges: Vec<KnownEdge>,
    health: Arc<Health>,
}

/// An edge and its health.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KnownEdge {
    pub(crate) node: NodeDoc,
    pub(crate) alive: bool,
    pub(crate) load: u32,
}

impl View {
    /// A view without knowledge of health: all edges count as alive.
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        Self::build(Arc::new(without_readers(snapshot)), None, Arc::default())
    }

    /// The view after a snapshot arrived; nothing where that is older than what is known. Another catalog is never older.
    pub(crate) fn with_snapshot(&self, snapshot: Snapshot) -> Option<Self> {
        let (before, after) = (&self.snapshot.at, &snapshot.at);
        let same_catalog = before.catalog_id == after.catalog_id;
        if same_catalog && after.generation < before.generation {
            return None;
        }
        let health = if same_catalog { self.health.clone() } else { Arc::default() };
        Some(Self::build(Arc::new(without_readers(snapshot)), None, health))
    }

    /// The view after a verdict arrived; nothing where that is older than what is known.
    pub(crate) fn with_health(&self, health: Health) -> Option<Self> {
        if health.generation < self.health.generation {
            return None;
        }
        Some(Self::build(self.snapshot.clone(), Some(self.zones.clone()), Arc::new(health)))
    }

    fn build(snapshot: Arc<Snapshot>, zones: Option<Arc<Zones>>, health: Arc<Health>) -> Self {
        let by_name: HashMap<&NodeName, &NodeHealth> = health.nodes.iter().map(|node| (&node.name, node)).collect();
        let edges = snapshot.nodes.iter().map(|node| match by_name.get(&node.name) {
            Some(health) => KnownEdge { node: node.clone(), alive: health.alive, load: health.load },
            // No verdict at all says nothing; one that does not name an edge has never heard it.
            None => KnownEdge { node: node.clone(), alive: health.nodes.is_empty(), load: 0 },
        });
        let edges = edges.collect();
        let zones = zones.unwrap_or_else(|| Arc::new(Zones::new(&snapshot.zones)));
        Self { snapshot, zones, edges, health }
    }
}

fn without_readers(mut snapshot: Snapshot) -> Snapshot {
    snapshot.readers.clear();
    snapshot
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use api::node::{Reader, Upstream};
    use api::{Hello, Place, TokenHash, ZoneDoc};

    pub(crate) fn snapshot(catalog_id: &str, generation: u64, nodes: &[&str]) -> Snapshot {
        let place = Place { lat: 0.0, lng: 0.0 };
        let nodes = nodes.iter().map(|name| NodeDoc {
            name: name.parse().expect("name"),
            place,
            url: format!("http://{name}.example"),
            https_url: None,
        });
        Snapshot {
            format: 1,
            at: Hello { catalog_id: catalog_id.into(), head: 0, oldest: 1, generation },
            zones: vec![ZoneDoc::new("files".parse().expect("zone"))],
            nodes: nodes.collect(),
            origin: Upstream { url: "http://origin.example".into(), place },
            monitor: None,
            readers: vec![Reader { hash: TokenHash("00".into()), expires_ms: None }],
        }
    }

    fn health(generation: u64, nodes: &[(&str, bool)]) -> Health {
        let nodes = nodes.iter().map(|(name, alive)| NodeHealth {
            name: name.parse().expect("name"),
            alive: *alive,
            last_heartbeat_ms: 0,
            load: 7,
            applied: 0,
        });
        Health { generation, nodes: nodes.collect() }
    }

    /// The live edges.
    fn alive(view: &View) -> String {
        let names = view.edges.iter().filter(|edge| edge.alive).map(|edge| edge.node.name.as_str());
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn health_and_snapshots_replace_older_ones_only() {
        let view = View::new(snapshot("c", 5, &["a", "b"]));
        assert!(view.snapshot.readers.is_empty());
        assert_eq!(alive(&view), "a b");
        assert_eq!(alive(&view.with_health(Health::default()).expect("same")), "a b");

        let view = view.with_health(health(10, &[("a", true), ("x", true)])).expect("newer");
        assert_eq!(alive(&view), "a");
        assert!(view.with_health(health(9, &[("b", true)])).is_none());
        assert_eq!(alive(&view.with_health(health(10, &[("a", false)])).expect("same")), "");

        assert!(view.with_snapshot(snapshot("c", 4, &["a"])).is_none());
        let newer = view.with_snapshot(snapshot("c", 6, &["a", "b", "x"])).expect("newer");
        assert_eq!((alive(&newer), newer.edges[0].load), ("a x".to_owned(), 7));

        let other = view.with_snapshot(snapshot("other", 1, &["a", "b"])).expect("another catalog");
        assert_eq!(alive(&other), "a b");
        assert!(other.with_health(health(1, &[("b", true)])).is_some());
    }
}
