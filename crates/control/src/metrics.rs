//! What control counts.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use catalog::CatalogError;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::State;
use crate::events::BATCH_EVENTS;
use crate::problem::Failure;

/// `endpoint` is the pattern of the route, never a URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    endpoint: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

pub(crate) struct Metrics {
    pub(crate) streams: Gauge,
    requests: Family<Labels, Counter>,
    seconds: Histogram,
    commit_seconds: Histogram,
    events: Family<KindLabel, Counter>,
    event: Gauge,
    alive: Gauge,
}

/// Upper bounds in seconds: from a look into the catalog to a wait for edges.
const BUCKETS_S: [f64; 9] = [0.000_5, 0.001, 0.002, 0.005, 0.02, 0.1, 0.5, 2.0, 6.0];
/// Upper bounds in seconds: from a commit on a fast disk to one that waited behind many.
const COMMIT_BUCKETS_S: [f64; 10] = [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 5.0];

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            streams: Gauge::default(),
            requests: Family::default(),
            seconds: Histogram::new(BUCKETS_S),
            commit_seconds: Histogram::new(COMMIT_BUCKETS_S),
            events: Family::default(),
            event: Gauge::default(),
            alive: Gauge::default(),
        };
        let r = registry.sub_registry_with_prefix("littoral_control");
        r.register("requests", "Requests by endpoint and class of status", metrics.requests.clone());
        r.register_with_unit("request", "Time to the head of the answer", Unit::Seconds, metrics.seconds.clone());
        r.register_with_unit(
            "commit",
            "Time of a change of the catalog",
            Unit::Seconds,
            metrics.commit_seconds.clone(),
        );
        r.register("events", "Events committed, by kind", metrics.events.clone());
        r.register("event_streams", "Event streams open", metrics.streams.clone());
        r.register("event", "Number of the newest event", metrics.event.clone());
        r.register("nodes_alive", "Edges that the monitor takes to be alive", metrics.alive.clone());
        metrics
    }
}

impl State {
    /// Runs a change of the catalog and takes its time.
    pub(crate) async fn commit<T>(&self, change: impl Future<Output = Result<T, CatalogError>>) -> Result<T, Failure> {
        let begun = Instant::now();
        let done = change.await;
        self.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
        Ok(done?)
    }
}

/// Counts a request by the pattern of its route.
pub(crate) async fn count(
    axum::extract::State(state): axum::extract::State<Arc<State>>,
    request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let matched = request.extensions().get::<MatchedPath>();
    let endpoint = matched.map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let response = next.run(request).await;
    let status = match response.status().as_u16() / 100 {
        2 => "2xx",
        4 => "4xx",
        5 => "5xx",
        _ => "other",
    };
    state.metrics.requests.get_or_create(&Labels { endpoint, status }).inc();
    state.metrics.seconds.observe(begun.elapsed().as_secs_f64());
    response
}

/// Shows the newest event and who is alive, and counts events by kind, until control ends.
pub(crate) async fn tally(state: &State) {
    let (mut head, mut verdicts) = (state.catalog.watch_head(), state.verdicts.watch());
    let mut counted = *head.borrow_and_update();
    loop {
        let newest = *head.borrow_and_update();
        while counted < newest {
            counted = count_events(state, counted).await.unwrap_or(newest);
        }
        state.metrics.event.set(i64::try_from(newest).unwrap_or(i64::MAX));
        let living = verdicts.borrow_and_update().as_ref().map_or(0, |verdict| verdict.living());
        state.metrics.alive.set(i64::try_from(living).unwrap_or(i64::MAX));
        tokio::select! {
            changed = head.changed() => if changed.is_err() { return },
            _ = verdicts.changed() => {}
            () = state.ending.cancelled() => return,
        }
    }
}

/// Counts a batch of the events after number `counted`; answers the newest of them. None: they cannot be read, which is
/// worth no more than a gap in the count.
async fn count_events(state: &State, counted: u64) -> Option<u64> {
    let events = state.catalog.events_after(counted, BATCH_EVENTS).await.ok()?;
    for event in &events {
        state.metrics.events.get_or_create_owned(&KindLabel { kind: event.change.kind() }).inc();
    }
    events.last().map(|last| last.seq)
}
