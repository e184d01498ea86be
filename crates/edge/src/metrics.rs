//! What an edge counts. One set for the whole process; the label `node` tells the edges in it apart.

mod per_thread;

use std::time::Duration;

use http_cache::{NotStorable, Outcome};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::access_log::AccessLogMetrics;
use crate::marks::MarksMetrics;
use crate::tiers_metrics::TiersMetrics;
pub(crate) use per_thread::thread_number;
use per_thread::{Seconds, ThreadsCounter};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabel {
    node: String,
}
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    node: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    node: String,
    reason: &'static str,
}

/// The metrics of all edges of a process. Cloning shares them.
#[derive(Clone)]
pub struct EdgeMetrics {
    requests: Family<OutcomeLabels, ThreadsCounter>,
    ready: Family<NodeLabel, ThreadsCounter>,
    fetches: Family<OutcomeLabels, Counter>,
    sent: Family<NodeLabel, Counter>,
    not_stored: Family<ReasonLabels, Counter>,
    waits_ended: Family<NodeLabel, Counter>,
    tags_left_out: Family<NodeLabel, Counter>,
    compressions: Family<OutcomeLabels, Counter>,
    compressed: Family<NodeLabel, Counter>,
    compressed_to: Family<NodeLabel, Counter>,
    corrupt: Family<NodeLabel, Counter>,
    disk_writes: Family<OutcomeLabels, Counter>,
    sweeps: Family<NodeLabel, Counter>,
    swept: Family<NodeLabel, Counter>,
    reconnects: Family<NodeLabel, Counter>,
    events: Family<NodeLabel, Counter>,
    applied: Family<NodeLabel, Gauge>,
    live: Family<NodeLabel, Gauge>,
    marks: Family<NodeLabel, Gauge>,
    marks_trusted: Family<NodeLabel, Gauge>,
    journal_failures: Family<NodeLabel, Counter>,
    memory: Family<NodeLabel, Gauge>,
    entries: Family<NodeLabel, Gauge>,
    active: Family<NodeLabel, Gauge>,
    seconds: Family<NodeLabel, Seconds>,
    pub(crate) access_log: AccessLogMetrics,
    pub(crate) tiers: TiersMetrics,
}

impl EdgeMetrics {
    /// Makes the metrics and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            ready: Family::default(),
            fetches: Family::default(),
            sent: Family::default(),
            not_stored: Family::default(),
            waits_ended: Family::default(),
            tags_left_out: Family::default(),
            compressions: Family::default(),
            compressed: Family::default(),
            compressed_to: Family::default(),
            corrupt: Family::default(),
            disk_writes: Family::default(),
            sweeps: Family::default(),
            swept: Family::default(),
            reconnects: Family::default(),
            events: Family::default(),
            applied: Family::default(),
            live: Family::default(),
            marks: Family::default(),
            marks_trusted: Family::default(),
            journal_failures: Family::default(),
            memory: Family::default(),
            entries: Family::default(),
            active: Family::default(),
            seconds: Family::default(),
            access_log: AccessLogMetrics::default(),
            tiers: TiersMetrics::default(),
        };
        let r = registry.sub_registry_with_prefix("littoral_edge");
        r.register("requests", "Requests by what the cache did with them", metrics.requests.clone());
        let ready = "Hits that were answered before the request was taken apart";
        r.register("ready_answers", ready, metrics.ready.clone());
        r.register("origin_fetches", "Fetches from the origin by how they ended", metrics.fetches.clone());
        r.register_with_unit("sent", "Bytes of bodies sent to clients", Unit::Bytes, metrics.sent.clone());
        r.register("not_stored", "Responses of origins that were not stored, by why", metrics.not_stored.clone());
        r.register("waits_ended", "Requests that waited too long for another's fetch", metrics.waits_ended.clone());
        r.register("tags_left_out", "Tags of responses beyond the zone's limit", metrics.tags_left_out.clone());
        let made = "Compressed forms of stored responses that were made, by whether they were worth it";
        r.register("compressions", made, metrics.compressions.clone());
        let (from, to) = ("Bytes that compressed forms were made of", "Bytes of compressed forms that were made");
        r.register_with_unit("compressed", from, Unit::Bytes, metrics.compressed.clone());
        r.register_with_unit("compressed_to", to, Unit::Bytes, metrics.compressed_to.clone());
        r.register("corrupt_slices", "Slices that did not prove to belong to their body", metrics.corrupt.clone());
        r.register(
            "disk_admissions",
            "Entries brought to the disk tier by how that ended",
            metrics.disk_writes.clone(),
        );
        r.register("disk_sweeps", "Times that the disk was searched for what was purged", metrics.sweeps.clone());
        r.register("disk_swept", "Entries on disk that were removed because they were purged", metrics.swept.clone());
        r.register("reconnects", "Times that the event stream was opened", metrics.reconnects.clone());
        r.register("events", "Events applied", metrics.events.clone());
        r.register("applied_event", "Number of the newest event applied", metrics.applied.clone());
        r.register("event_stream_live", "1 when the event stream is open and caught up", metrics.live.clone());
        r.register("marks", "Marks of purges that are kept", metrics.marks.clone());
        let trusted = "1 when a restart would know every purge; 0 when it would revalidate everything";
        r.register("marks_trusted", trusted, metrics.marks_trusted.clone());
        let failures = "Times that marks of purges could not be written to disk";
        r.register("journal_failures", failures, metrics.journal_failures.clone());
        r.register_with_unit("memory", "Bytes in the memory tier", Unit::Bytes, metrics.memory.clone());
        r.register("entries", "Entries in the memory tier", metrics.entries.clone());
        r.register("active_requests", "Requests in progress", metrics.active.clone());
        r.register_with_unit("request", "Time to the head of the response", Unit::Seconds, metrics.seconds.clone());
        r.register("access_log_lines", "Lines written to the access log", metrics.access_log.lines.clone());
        let dropped = "Lines that the access log could not take; requests never wait for it";
        r.register("access_log_dropped", dropped, metrics.access_log.dropped.clone());
        r.register_collector(Box::new(metrics.tiers.clone()));
        metrics
    }

    /// The metrics of one edge.
    pub(crate) fn of(&self, node: &str) -> NodeMetrics {
        let label = NodeLabel { node: node.to_owned() };
        let outcomes = |family: &Family<OutcomeLabels, Counter>, outcome: &'static str| {
            family.get_or_create_owned(&OutcomeLabels { node: node.to_owned(), outcome })
        };
        let requests = |outcome: &'static str| {
            self.requests.get_or_create_owned(&OutcomeLabels { node: node.to_owned(), outcome })
        };
        NodeMetrics {
            by_outcome: Outcome::ALL.map(|outcome| (outcome, requests(outcome.word()))),
            ready: self.ready.get_or_create_owned(&label),
            not_found: requests("not_found"),
            refused: requests("refused"),
            failed: requests("failed"),
            fetched: outcomes(&self.fetches, "ok"),
            fetch_failed: outcomes(&self.fetches, "failed"),
            sent_bytes: self.sent.get_or_create_owned(&label),
            not_stored: (self.not_stored.clone(), node.to_owned()),
            waits_ended: self.waits_ended.get_or_create_owned(&label),
            tags_left_out: self.tags_left_out.get_or_create_owned(&label),
            packed: outcomes(&self.compressions, "ok"),
            not_packed: outcomes(&self.compressions, "not_worth"),
            packed_before_bytes: self.compressed.get_or_create_owned(&label),
            packed_after_bytes: self.compressed_to.get_or_create_owned(&label),
            corrupt_slices: self.corrupt.get_or_create_owned(&label),
            disk_admitted: outcomes(&self.disk_writes, "ok"),
            disk_not_admitted: outcomes(&self.disk_writes, "failed"),
            sweeps: self.sweeps.get_or_create_owned(&label),
            swept: self.swept.get_or_create_owned(&label),
            reconnects: self.reconnects.get_or_create_owned(&label),
            events: self.events.get_or_create_owned(&label),
            applied_event: self.applied.get_or_create_owned(&label),
            live: self.live.get_or_create_owned(&label),
            marks: MarksMetrics {
                marks: self.marks.get_or_create_owned(&label),
                trusted: self.marks_trusted.get_or_create_owned(&label),
                failures: self.journal_failures.get_or_create_owned(&label),
            },
            memory_bytes: self.memory.get_or_create_owned(&label),
            entries: self.entries.get_or_create_owned(&label),
            active: self.active.get_or_create_owned(&label),
            seconds: self.seconds.get_or_create_owned(&label),
        }
    }
}

/// The metrics of one edge, resolved once, so that counting is an atomic add.
pub(crate) struct NodeMetrics {
    by_outcome: [(Outcome, ThreadsCounter); 8],
    ready: ThreadsCounter,
    pub(crate) not_found: ThreadsCounter,
    pub(crate) refused: ThreadsCounter,
    pub(crate) failed: ThreadsCounter,
    pub(crate) fetched: Counter,
    pub(crate) fetch_failed: Counter,
    pub(crate) sent_bytes: Counter,
    not_stored: (Family<ReasonLabels, Counter>, String),
    pub(crate) waits_ended: Counter,
    pub(crate) tags_left_out: Counter,
    pub(crate) packed: Counter,
    pub(crate) not_packed: Counter,
    pub(crate) packed_before_bytes: Counter,
    pub(crate) packed_after_bytes: Counter,
    pub(crate) corrupt_slices: Counter,
    pub(crate) disk_admitted: Counter,
    pub(crate) disk_not_admitted: Counter,
    pub(crate) sweeps: Counter,
    pub(crate) swept: Counter,
    pub(crate) reconnects: Counter,
    pub(crate) events: Counter,
    pub(crate) applied_event: Gauge,
    pub(crate) live: Gauge,
    pub(crate) marks: MarksMetrics,
    pub(crate) memory_bytes: Gauge,
    pub(crate) entries: Gauge,
    active: Gauge,
    seconds: Seconds,
}

/// Counts a request as in progress until it is dropped, also when its client goes away first.
pub(crate) struct Active(Gauge);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl NodeMetrics {
    /// Counts a request, or the sending of its body.
    pub(crate) fn begin(&self) -> Active {
        self.active.inc();
        Active(self.active.clone())
    }

    /// Requests in progress.
    pub(crate) fn load(&self) -> u32 {
        u32::try_from(self.active.get()).unwrap_or(0)
    }

    /// Counts a response that was not stored.
    pub(crate) fn count_not_stored(&self, why: NotStorable) {
        let (family, node) = &self.not_stored;
        family.get_or_create_owned(&ReasonLabels { node: node.clone(), reason: why.word() }).inc();
    }

    /// Counts a request whose head was sent after this time.
    pub(crate) fn observe(&self, time: Duration) {
        self.seconds.observe(time);
    }

    /// Counts a hit whose answer was ready.
    pub(crate) fn count_ready(&self, time: Duration) {
        self.count(Outcome::Hit);
        self.ready.inc();
        self.seconds.observe(time);
    }

    pub(crate) fn count(&self, outcome: Outcome) {
        for (which, counter) in &self.by_outcome {
            if *which == outcome {
                counter.inc();
            }
        }
    }
}
