//! An edge that stands alone in front of an origin, for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::ZoneDoc;
use api::pull::{PullDoc, UpstreamDoc};
use edge::{Edge, EdgeMetrics, StandaloneConfig};
use http::{Method, Request, Response};
use net::{Body, ClientLimits, HttpClient, ServerLimits};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{Answer, MAX_TEST_BODY_BYTES};

/// What an edge is started with.
pub struct FrontSettings {
    /// The origin: `http://…`.
    pub origin: String,
    /// Bytes of the memory tier.
    pub memory_bytes: u64,
    /// What is to be different about its zone.
    pub change: fn(&mut PullDoc),
}

impl FrontSettings {
    /// An edge with 64 MiB of memory in front of an origin.
    pub fn of(origin: &str) -> Self {
        Self { origin: origin.to_owned(), memory_bytes: 64 << 20, change: |_| {} }
    }
}

/// A running edge.
pub struct Front {
    /// Where it answers: `http://…`.
    pub url: String,
    ahead_ms: Arc<AtomicU64>,
    registry: Registry,
    http: HttpClient,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Front {
    /// Starts an edge on a free port.
    pub async fn start(settings: FrontSettings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let mut pull = PullDoc::new(vec![UpstreamDoc { url: settings.origin, weight: 1 }]);
        (settings.change)(&mut pull);
        let zone = ZoneDoc { pull: Some(Box::new(pull)), ..ZoneDoc::new("site".parse().expect("a name")) };
        let ahead_ms = Arc::new(AtomicU64::new(0));
        let clock: edge::Clock = {
            let ahead_ms = Arc::clone(&ahead_ms);
            Arc::new(move || littoral::assembly::now_ms() + ahead_ms.load(Ordering::SeqCst))
        };
        let mut registry = Registry::default();
        let metrics = EdgeMetrics::new(&mut registry);
        let name = "front".parse().expect("a name");
        let limits = ServerLimits::default();
        let config = StandaloneConfig { zone, name, memory_bytes: settings.memory_bytes, limits, clock };
        let edge = Edge::standalone(config, &metrics).expect("an edge");
        let stop = CancellationToken::new();
        let task = tokio::spawn(edge.run(listener, stop.clone()));
        Self { url, ahead_ms, registry, http: HttpClient::new(ClientLimits::default()), stop, task }
    }

    /// Lets time pass at the edge.
    pub fn advance(&self, time: Duration) {
        self.ahead_ms.fetch_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// A request without a body, and its whole answer.
    pub async fn ask(&self, method: Method, target: &str, headers: &[(&str, &str)]) -> Answer {
        let (parts, body) = self.open(method, target, headers).await.into_parts();
        let body = net::read_to_end(body, MAX_TEST_BODY_BYTES).await.map_err(|error| error.to_string());
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// GET.
    pub async fn get(&self, target: &str) -> Answer {
        self.ask(Method::GET, target, &[]).await
    }

    /// GET of one range, both ends included.
    pub async fn range(&self, target: &str, first: u64, last: u64) -> Answer {
        self.ask(Method::GET, target, &[("range", &format!("bytes={first}-{last}"))]).await
    }

    /// A request without a body, and the head of its answer, whose body has yet to be read.
    pub async fn open(&self, method: Method, target: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(format!("{}{target}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).expect("a request");
        self.http.send(request).await.unwrap_or_else(|error| panic!("{target}: {error}"))
    }

    /// A metric by its whole name, labels left out: the sum of its lines.
    pub fn metric(&self, name: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("metrics");
        let value = |line: &str| {
            let (what, value) = line.rsplit_once(' ')?;
            (what.split('{').next() == Some(name)).then(|| value.parse::<f64>().ok())?
        };
        text.lines().filter_map(value).sum()
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }

    /// Ends it in the middle of whatever it does.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}
