//! Which edge serves a client: a pure decision that explains itself. Control's `/v1/locate` and the router both use it.
//!
//! Three tiers, the first that has anyone wins:
//! 1. of the live edges that hold the file and are no farther from the client than the origin, the nearest;
//! 2. of all live edges that are no farther than the origin, the nearest: it fetches the file once and then has it;
//! 3. the origin.
//!
//! Distances are great circles. Of edges equally near, the less busy one is taken, then the first by name.

mod distance;

use api::docs::Candidate;
use api::{NodeDoc, Place};

pub use distance::{EARTH_RADIUS_KM, haversine_km};

/// The name of the origin among candidates.
pub const ORIGIN: &str = "origin";

/// An edge and what is known of it.
#[derive(Debug, Clone, Copy)]
pub struct Edge<'a> {
    /// Name, place and URL.
    pub node: &'a NodeDoc,
    /// Whether it is alive. A dead edge is never chosen.
    pub alive: bool,
    /// Requests that it is serving.
    pub load: u32,
    /// Whether it is known to hold the current version of the file.
    pub has_file: bool,
}

/// Why the winner won.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// Tier 1.
    HasFile,
    /// Tier 2.
    Nearest,
    /// Tier 3, with live edges farther away.
    OriginNearer,
    /// Tier 3, without any live edge.
    NoLiveEdge,
}

impl Why {
    /// All reasons.
    pub const ALL: [Why; 4] = [Self::HasFile, Self::Nearest, Self::OriginNearer, Self::NoLiveEdge];

    /// The word in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::HasFile => "has_file",
            Self::Nearest => "nearest",
            Self::OriginNearer => "origin_nearer",
            Self::NoLiveEdge => "no_live_edge",
        }
    }

    /// The same as a sentence about the winner.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::HasFile => "the nearest live edge that has the file",
            Self::Nearest => "the nearest live edge; no live edge that has the file is as near as the origin",
            Self::OriginNearer => "nearer than every live edge",
            Self::NoLiveEdge => "no edge is alive",
        }
    }
}

/// The decision. What it costs to make does not include explaining it: ask for [`Choice::candidates`] where that is read.
#[derive(Debug, Clone)]
pub struct Choice<'a> {
    /// Why the winner won.
    pub why: Why,
    winner: Option<Measured<'a>>,
    edges: Vec<Measured<'a>>,
    origin_km: f64,
}

#[derive(Debug, Clone, Copy)]
struct Measured<'a> {
    edge: Edge<'a>,
    km: f64,
}

impl Measured<'_> {
    /// Nearest first, then least busy, then by name.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        self.km
            .total_cmp(&other.km)
            .then(self.edge.load.cmp(&other.edge.load))
            .then_with(|| self.edge.node.name.cmp(&other.edge.node.name))
    }
}

/// Chooses where a client is served from. The order of `edges` does not matter.
pub fn choose<'a>(client: Place, edges: &[Edge<'a>], origin: Place) -> Choice<'a> {
    let origin_km = haversine_km(client, origin);
    let edges: Vec<Measured<'a>> =
        edges.iter().map(|&edge| Measured { edge, km: haversine_km(client, edge.node.place) }).collect();
    let nearest = |only_holders: bool| {
        edges
            .iter()
            .filter(|m| m.edge.alive && m.km <= origin_km && (m.edge.has_file || !only_holders))
            .min_by(|a, b| a.order(b))
            .copied()
    };
    let (winner, why) = if let Some(holder) = nearest(true) {
        (Some(holder), Why::HasFile)
    } else if let Some(edge) = nearest(false) {
        (Some(edge), Why::Nearest)
    } else if edges.iter().any(|m| m.edge.alive) {
        (None, Why::OriginNearer)
    } else {
        (None, Why::NoLiveEdge)
    };
    Choice { why, winner, edges, origin_km }
}

impl<'a> Choice<'a> {
    /// The edge that won, or nothing when the origin did.
    pub fn edge(&self) -> Option<&'a NodeDoc> {
        self.winner.map(|m| m.edge.node)
    }

    /// The winner's name: an edge's, or [`ORIGIN`].
    pub fn name(&self) -> &'a str {
        self.edge().map_or(ORIGIN, |node| node.name.as_str())
    }

    /// Everyone who could serve the client, in the order to try them: the winner, who would win without it, and so on;
    /// after the origin (`None`), because it may be away, the live edges that are farther than it.
    pub fn ranking(&self) -> Vec<Option<&'a NodeDoc>> {
        let tier = |m: &Measured<'_>| (m.km > self.origin_km, !m.edge.has_file);
        let mut live: Vec<&Measured<'a>> = self.edges.iter().filter(|m| m.edge.alive).collect();
        live.sort_by(|a, b| tier(a).cmp(&tier(b)).then_with(|| a.order(b)));
        let beyond = live.partition_point(|m| m.km <= self.origin_km);
        let (near, far) = live.split_at_checked(beyond).unwrap_or_default();
        let node = |m: &&Measured<'a>| Some(m.edge.node);
        near.iter().map(node).chain([None]).chain(far.iter().map(node)).collect()
    }

    /// Every edge and the origin, nearest first, each with why it won or lost.
    pub fn candidates(&self) -> Vec<Candidate> {
        let mut candidates: Vec<Candidate> = self.edges.iter().map(|edge| self.explain_edge(edge)).collect();
        candidates.push(Candidate {
            name: ORIGIN.to_owned(),
            distance_km: self.origin_km,
            alive: true,
            has_file: true,
            chosen: self.winner.is_none(),
            reason: self.explain_origin(),
        });
        candidates.sort_by(|a, b| {
            let by_name = || (a.name == ORIGIN, &a.name).cmp(&(b.name == ORIGIN, &b.name));
            a.distance_km.total_cmp(&b.distance_km).then_with(by_name)
        });
        candidates
    }

    fn explain_origin(&self) -> String {
        match &self.winner {
            None => self.why.sentence().to_owned(),
            Some(winner) if winner.km < self.origin_km => farther(self.origin_km, winner),
            Some(winner) => format!("as near as {}, and an edge is preferred", winner.edge.node.name),
        }
    }

    fn explain_edge(&self, candidate: &Measured<'_>) -> Candidate {
        let edge = &candidate.edge;
        let chosen = self.edge().is_some_and(|node| node.name == edge.node.name);
        let reason = match &self.winner {
            _ if chosen => self.why.sentence().to_owned(),
            _ if !edge.alive => "not alive".to_owned(),
            _ if candidate.km > self.origin_km => {
                format!("{:.0} km farther than the origin", (candidate.km - self.origin_km).max(1.0))
            }
            // Unreachable: a live edge that is no farther than the origin always beats it.
            None => "the origin was chosen".to_owned(),
            Some(winner) if self.why == Why::HasFile && !edge.has_file => {
                format!("does not have the file, which {} has", winner.edge.node.name)
            }
            Some(winner) if candidate.km > winner.km => farther(candidate.km, winner),
            Some(winner) if edge.load > winner.edge.load => {
                format!("as near as {}, and busier", winner.edge.node.name)
            }
            Some(winner) => format!("as near and as busy as {}, which comes first by name", winner.edge.node.name),
        };
        Candidate {
            name: edge.node.name.to_string(),
            distance_km: candidate.km,
            alive: edge.alive,
            has_file: edge.has_file,
            chosen,
            reason,
        }
    }
}

fn farther(km: f64, winner: &Measured<'_>) -> String {
    format!("{:.0} km farther than {}", (km - winner.km).max(1.0), winner.edge.node.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, any};

    /// An edge as the tests write it: `name@lat,lng`, then `+` has the file, `!` is dead, `#n` is busy.
    fn node(text: &str) -> (NodeDoc, bool, bool, u32) {
        let (name, rest) = text.split_once('@').expect("name@place");
        let place = rest.split(['+', '!', '#']).next().expect("place").parse().expect("place");
        let load = rest.split_once('#').map_or(0, |(_, n)| n.parse().expect("load"));
        let doc = NodeDoc {
            name: name.parse().expect("name"),
            place,
            url: format!("http://{name}.example"),
            https_url: None,
        };
        (doc, !rest.contains('!'), rest.contains('+'), load)
    }

    fn check(client: &str, edges: &[&str], origin: &str, expected: &str, why: Why) -> Vec<Candidate> {
        let parsed: Vec<_> = edges.iter().map(|text| node(text)).collect();
        let edges: Vec<Edge<'_>> = parsed
            .iter()
            .map(|(node, alive, has_file, load)| Edge { node, alive: *alive, has_file: *has_file, load: *load })
            .collect();
        let choice = choose(client.parse().expect("place"), &edges, origin.parse().expect("place"));
        assert_eq!((choice.name(), choice.why), (expected, why), "{client} {parsed:?}");
        let candidates = choice.candidates();
        assert_eq!(candidates.len(), edges.len() + 1);
        let chosen: Vec<&str> = candidates.iter().filter(|c| c.chosen).map(|c| c.name.as_str()).collect();
        assert_eq!(chosen, [expected]);
        assert!(candidates.is_sorted_by(|a, b| a.distance_km <= b.distance_km));
        candidates
    }

    const LISBON: &str = "lisbon@38.72,-9.14";
    const TOKYO: &str = "tokyo@35.68,139.69";
    const BERLIN: &str = "berlin@52.52,13.40";
    const DALLAS: &str = "32.78,-96.80";
    const MADRID: &str = "40.42,-3.70";

    #[test]
    fn three_tiers() {
        let with = |edge: &str, mark: &str| format!("{edge}{mark}");
        check(MADRID, &[LISBON, BERLIN, TOKYO], DALLAS, "lisbon", Why::Nearest);
        check(MADRID, &[LISBON, &with(BERLIN, "+"), TOKYO], DALLAS, "berlin", Why::HasFile);
        check(MADRID, &[&with(LISBON, "+"), &with(BERLIN, "+")], DALLAS, "lisbon", Why::HasFile);
        // Who has it is farther than the origin: the nearest edge fetches it.
        check(MADRID, &[LISBON, &with(TOKYO, "+")], DALLAS, "lisbon", Why::Nearest);
        check(MADRID, &[TOKYO], DALLAS, "origin", Why::OriginNearer);
        check(MADRID, &[&with(TOKYO, "+")], DALLAS, "origin", Why::OriginNearer);
        check(MADRID, &[], DALLAS, "origin", Why::NoLiveEdge);
        check(MADRID, &[&with(LISBON, "!+")], DALLAS, "origin", Why::NoLiveEdge);
        check(MADRID, &[&with(LISBON, "!+"), BERLIN], DALLAS, "berlin", Why::Nearest);
    }

    #[test]
    fn ties() {
        check("0,0", &["a@1,0", "b@-1,0"], "50,0", "a", Why::Nearest);
        check("0,0", &["a@1,0#5", "b@-1,0#4"], "50,0", "b", Why::Nearest);
        check("0,0", &["b@-1,0", "a@1,0"], "50,0", "a", Why::Nearest);
        // An edge where the origin is wins over it.
        check("0,0", &["a@9,9"], "9,9", "a", Why::Nearest);
    }

    #[test]
    fn the_order_to_try() {
        let parsed = ["a@1,0", "b@2,0+", "c@3,0+!", "d@60,0", "e@70,0+", "f@0.5,0#9"].map(node);
        let edges = parsed.each_ref().map(|(node, alive, has_file, load)| Edge {
            node,
            alive: *alive,
            has_file: *has_file,
            load: *load,
        });
        let [client, origin] = ["0,0", "50,0"].map(|place| place.parse().expect("place"));
        let ranking = choose(client, &edges, origin).ranking();
        let names: Vec<&str> = ranking.iter().map(|node| node.map_or(ORIGIN, |node| node.name.as_str())).collect();
        assert_eq!(names, ["b", "f", "a", "origin", "e", "d"]);
    }

    #[test]
    fn candidates_explain_themselves() {
        let edges = ["a@1,0+", "b@-1,0+#3", "c@2,0+", "d@0.5,0", "e@80,0", "f@1,0!", "g@1,0+"];
        let candidates = check("0,0", &edges, "50,0", "a", Why::HasFile);
        let shown: Vec<String> = candidates.iter().map(|c| format!("{}: {}", c.name, c.reason)).collect();
        assert_eq!(
            shown,
            [
                "d: does not have the file, which a has",
                "a: the nearest live edge that has the file",
                "b: as near as a, and busier",
                "f: not alive",
                "g: as near and as busy as a, which comes first by name",
                "c: 111 km farther than a",
                "origin: 5449 km farther than a",
                "e: 3336 km farther than the origin",
            ]
        );
        let candidates = check("0,0", &["a@9,9"], "9,9", "a", Why::Nearest);
        assert_eq!(candidates[1].reason, "as near as a, and an edge is preferred");
    }

    fn places() -> impl Strategy<Value = Place> {
        (-90.0..=90.0_f64, -180.0..=180.0_f64).prop_map(|(lat, lng)| Place { lat, lng })
    }

    proptest::proptest! {
        #[test]
        fn never_dead_and_the_order_does_not_matter(
            client in places(),
            origin in places(),
            raw in proptest::collection::vec((places(), any::<bool>(), any::<bool>(), 0..3_u32), 0..12),
            turn in 0..12_usize,
        ) {
            let nodes: Vec<NodeDoc> = (0..)
                .zip(&raw)
                .map(|(n, (place, ..))| NodeDoc { name: format!("n{n}").parse().expect("name"), place: *place, url: String::new(), https_url: None })
                .collect();
            let mut edges: Vec<Edge<'_>> = nodes
                .iter()
                .zip(&raw)
                .map(|(node, (_, alive, has_file, load))| Edge { node, alive: *alive, has_file: *has_file, load: *load })
                .collect();
            let choice = choose(client, &edges, origin);
            let (name, why, candidates) = (choice.name(), choice.why, choice.candidates());
            if let Some(winner) = edges.iter().find(|edge| edge.node.name.as_str() == name) {
                assert!(winner.alive);
                assert!(haversine_km(client, winner.node.place) <= haversine_km(client, origin));
            }
            // Who is next in the ranking wins once those before it are dead, as long as the origin is not reached.
            let mut without = edges.clone();
            for next in choice.ranking() {
                assert_eq!(choose(client, &without, origin).edge(), next);
                let Some(next) = next else { break };
                without.retain(|edge| edge.node.name != next.name);
            }
            let turn = turn % edges.len().max(1);
            edges.rotate_left(turn);
            let again = choose(client, &edges, origin);
            assert_eq!((again.name(), again.why), (name, why));
            assert_eq!(again.candidates(), candidates);
        }
    }
}
