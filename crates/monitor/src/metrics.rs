//! What a monitor counts.

use api::NodeHealth;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rejected {
    reason: &'static str,
}

pub(crate) struct Metrics {
    pub(crate) heartbeats: Counter,
    pub(crate) reports: Counter,
    pub(crate) report_failures: Counter,
    rejected: Family<Rejected, Counter>,
    alive: Gauge,
    dead: Gauge,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            heartbeats: Counter::default(),
            reports: Counter::default(),
            report_failures: Counter::default(),
            rejected: Family::default(),
            alive: Gauge::default(),
            dead: Gauge::default(),
        };
        let r = registry.sub_registry_with_prefix("littoral_monitor");
        r.register("heartbeats", "Heartbeats accepted", metrics.heartbeats.clone());
        r.register("rejected_heartbeats", "Datagrams dropped, by reason", metrics.rejected.clone());
        r.register("reports", "Verdicts that control has taken", metrics.reports.clone());
        r.register("report_failures", "Verdicts that control could not be told", metrics.report_failures.clone());
        r.register("nodes_alive", "Nodes whose heartbeats arrive", metrics.alive.clone());
        r.register("nodes_dead", "Nodes that fell silent and are not forgotten yet", metrics.dead.clone());
        metrics
    }

    pub(crate) fn rejected(&self, reason: &'static str) {
        self.rejected.get_or_create_owned(&Rejected { reason }).inc();
    }

    pub(crate) fn nodes(&self, nodes: &[NodeHealth]) {
        let alive = nodes.iter().filter(|node| node.alive).count();
        self.alive.set(i64::try_from(alive).unwrap_or(i64::MAX));
        self.dead.set(i64::try_from(nodes.len() - alive).unwrap_or(i64::MAX));
    }
}
