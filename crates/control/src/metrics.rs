//! What control counts.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::State;

/// `endpoint` is the pattern of the route, never a URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    endpoint: String,
    status: &'static str,
}

pub(crate) struct Metrics {
    pub(crate) streams: Gauge,
    requests: Family<Labels, Counter>,
    seconds: Histogram,
    event: Gauge,
    alive: Gauge,
}

/// Upper bounds in seconds: from a look into the catalog to a wait for edges.
const BUCKETS_S: [f64; 9] = [0.000_5, 0.001, 0.002, 0.005, 0.02, 0.1, 0.5, 2.0, 6.0];

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            streams: Gauge::default(),
            requests: Family::default(),
            seconds: Histogram::new(BUCKETS_S),
            event: Gauge::default(),
            alive: Gauge::default(),
        };
        let r = registry.sub_registry_with_prefix("littoral_control");
        r.register("requests", "Requests by endpoint and class of status", metrics.requests.clone());
        r.register_with_unit("request", "Time to the head of the answer", Unit::Seconds, metrics.seconds.clone());
        r.register("event_streams", "Event streams open", metrics.streams.clone());
        r.register("event", "Number of the newest event", metrics.event.clone());
        r.register("nodes_alive", "Edges that the monitor takes to be alive", metrics.alive.clone());
        metrics
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

/// Shows the newest event and who is alive, until control ends.
pub(crate) async fn tally(state: &State) {
    let (mut head, mut told) = (state.catalog.watch_head(), state.verdicts.told());
    loop {
        state.metrics.event.set(i64::try_from(*head.borrow_and_update()).unwrap_or(i64::MAX));
        state.metrics.alive.set(i64::try_from(state.verdicts.living()).unwrap_or(i64::MAX));
        tokio::select! {
            changed = head.changed() => if changed.is_err() { return },
            _ = told.changed() => {}
            () = state.ending.cancelled() => return,
        }
    }
}
