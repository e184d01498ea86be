//! An edge that stands alone in front of an origin, for tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::ZoneDoc;
use api::cache::CACHE_PATH;
use api::pull::{PullDoc, UpstreamDoc};
use edge::shelf::disk::OpenError;
use edge::{AccessLogConfig, CacheConfig, Edge, EdgeMetrics, StandaloneConfig};
use http::{Method, Request, Response, StatusCode};
use littoral::admin::Admin;
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
    /// A folder for the disk tier and the edge's state.
    pub folder: Option<PathBuf>,
    /// Bytes of the disk tier.
    pub disk_bytes: u64,
    /// How the tiers are kept.
    pub cache: CacheConfig,
    /// The file of its access log.
    pub access_log: Option<PathBuf>,
    /// What is to be different about its zone.
    pub change: fn(&mut PullDoc),
}

impl FrontSettings {
    /// An edge with 64 MiB of memory in front of an origin.
    pub fn of(origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            memory_bytes: 64 << 20,
            folder: None,
            disk_bytes: 1 << 30,
            cache: CacheConfig::default(),
            access_log: None,
            change: |_| {},
        }
    }

    /// The same with a disk tier of 1 GiB in a folder.
    pub fn with_disk(origin: &str, folder: &Path) -> Self {
        Self { folder: Some(folder.to_owned()), ..Self::of(origin) }
    }
}

/// Ends a task with whatever holds it.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A running edge.
pub struct Front {
    /// Where it answers: `http://…`.
    pub url: String,
    /// Its admin listener, which has no metrics here: `http://…`.
    pub admin: String,
    ahead_ms: Arc<AtomicU64>,
    registry: Registry,
    http: HttpClient,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Front {
    /// Starts an edge on a free port. One that was killed may hold its folders for a moment more: that is waited for.
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
        let mut cache = settings.cache;
        if let Some(folder) = &settings.folder {
            cache.folders.push(littoral::tiers::files(folder, settings.disk_bytes));
        }
        let (memory_bytes, state_dir) = (settings.memory_bytes, settings.folder.map(|folder| folder.join("state")));
        let access_log = settings.access_log.map(|file| AccessLogConfig { file: Some(file), sample: 1.0 });
        let config = StandaloneConfig { zone, name, memory_bytes, cache, state_dir, access_log, limits, clock };
        let begun = Instant::now();
        let edge = loop {
            match Edge::standalone(config.clone(), &metrics) {
                Ok(edge) => break edge,
                Err(edge::EdgeError::Disk(OpenError::InUse(_))) if begun.elapsed() < Duration::from_secs(20) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        let stop = CancellationToken::new();
        let admin_listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let admin = format!("http://{}", admin_listener.local_addr().expect("an address"));
        let shown = Admin { registry: Registry::default(), ready: Vec::new(), edges: vec![edge.view()] };
        let admin_task = AbortOnDrop(tokio::spawn(littoral::admin::run(shown, admin_listener, stop.clone())));
        let run = edge.run(listener, stop.clone());
        let task = tokio::spawn(async move {
            let _admin = admin_task;
            run.await;
        });
        Self { url, admin, ahead_ms, registry, http: HttpClient::new(ClientLimits::default()), stop, task }
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
        // Not the address: that is another one after a restart, and the port is part of the key.
        let mut request =
            Request::builder().method(method).uri(format!("{}{target}", self.url)).header("host", "site.example");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).expect("a request");
        self.http.send(request).await.unwrap_or_else(|error| panic!("{target}: {error}"))
    }

    /// Asks its admin listener about its cache: POST where there is something to say, else GET.
    pub async fn tool(&self, path: &str, what: Option<serde_json::Value>) -> (StatusCode, serde_json::Value) {
        let request = Request::builder().uri(format!("{}{CACHE_PATH}{path}", self.admin));
        let request = match what {
            Some(what) => request
                .method(Method::POST)
                .header("content-type", "application/json")
                .body(Body::full(what.to_string())),
            None => request.body(Body::empty()),
        };
        let response =
            self.http.send(request.expect("a request")).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        let status = response.status();
        let body = net::read_to_end(response.into_body(), MAX_TEST_BODY_BYTES).await.expect("a body");
        (status, serde_json::from_slice(&body).expect("JSON"))
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
