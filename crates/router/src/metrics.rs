//! What a router counts.

use std::time::Duration;

use api::Problem;
use http::Response;
use net::Body;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use routing::Why;

use crate::Mode;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    answer: &'static str,
}
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Choice {
    why: &'static str,
}
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Lookup {
    result: &'static str,
}

pub(crate) struct Metrics {
    pub(crate) connects: Counter,
    pub(crate) connected: Gauge,
    pub(crate) generation: Gauge,
    pub(crate) passed_over: Counter,
    requests: Family<Answer, Counter>,
    choices: Family<Choice, Counter>,
    lookups: Family<Lookup, Counter>,
    seconds: Histogram,
}

/// Upper bounds in seconds: from a redirect to a slow edge.
const BUCKETS_S: [f64; 9] = [0.000_1, 0.000_5, 0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0];

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            connects: Counter::default(),
            connected: Gauge::default(),
            generation: Gauge::default(),
            passed_over: Counter::default(),
            requests: Family::default(),
            choices: Family::default(),
            lookups: Family::default(),
            seconds: Histogram::new(BUCKETS_S),
        };
        let r = registry.sub_registry_with_prefix("littoral_router");
        r.register("connects", "Times that control's event stream was opened", metrics.connects.clone());
        r.register("event_stream_live", "1 when the event stream is open", metrics.connected.clone());
        r.register("config_generation", "Generation of the configuration in use", metrics.generation.clone());
        r.register("passed_over", "Attempts on nodes that could not be reached", metrics.passed_over.clone());
        r.register("requests", "Requests by how they were answered", metrics.requests.clone());
        r.register("choices", "Decisions by why the winner won", metrics.choices.clone());
        r.register("holder_lookups", "Questions who holds a file, by how they ended", metrics.lookups.clone());
        r.register_with_unit("request", "Time to the head of the answer", Unit::Seconds, metrics.seconds.clone());
        metrics
    }

    pub(crate) fn answered(&self, mode: Mode, answer: &Result<Response<Body>, Problem>, took: Duration) {
        let answer = match answer {
            Ok(_) if mode == Mode::Redirect => "redirected",
            Ok(_) => "carried",
            Err(problem) if problem.http_status().is_client_error() => "refused",
            Err(_) => "failed",
        };
        self.requests.get_or_create_owned(&Answer { answer }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn chosen(&self, why: Why) {
        self.choices.get_or_create_owned(&Choice { why: why.word() }).inc();
    }

    pub(crate) fn lookup(&self, result: &'static str) {
        self.lookups.get_or_create_owned(&Lookup { result }).inc();
    }
}
