//! A whole CDN in one process on free loopback ports, for tests: what all scenarios run on.
//!
//! [`Cluster`] is [`littoral::local`] in a temporary folder with a clock that a test can set forward, and with roles that it
//! can kill and start again. Nothing is mocked: sockets, SQLite, files and events are the real ones.
#![expect(clippy::expect_used, clippy::panic, reason = "this crate is part of tests, which fail by panicking")]

pub mod front;
pub mod media;
pub mod scenario;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::FileDoc;
use api::names::{FilePath, Place, ZoneName};
use bytes::Bytes;
use client::{Client, Upload, UploadMeta};
use edge::EdgeView;
use http::{HeaderMap, Method, Request, StatusCode};
use littoral::assembly::{EdgeStart, default_origin_place, now_ms};
use littoral::datadir::DataDir;
use littoral::local::{Local, LocalConfig, LocalEdge, start};
use net::{Body, ClientLimits, HttpClient};
use origin::CollectorConfig;
use router::Mode;
use tempfile::TempDir;

/// How long [`eventually`] waits, in milliseconds: far longer than anything takes on a slow machine.
const EVENTUALLY_MS: u64 = 20_000;
/// Longest body that a test reads, in bytes.
const MAX_TEST_BODY_BYTES: usize = 512 << 20;

/// The settings of a cluster that tests vary.
#[derive(Clone)]
pub struct Settings {
    /// Edges as `NAME@LAT,LNG`.
    pub edges: Vec<&'static str>,
    /// Each edge's memory tier, in bytes.
    pub memory_bytes: u64,
    /// Each edge's disk tier, in bytes; 0: it has none.
    pub disk_bytes: u64,
    /// What the router does.
    pub mode: Mode,
    /// How long an edge counts as alive after its last heartbeat, in milliseconds.
    pub dead_after_ms: u64,
    /// When blobs are collected.
    pub collector: CollectorConfig,
    /// Whether edges and router speak TLS, too.
    pub https: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            edges: vec!["lisbon@38.72,-9.14", "virginia@38.95,-77.45", "singapore@1.35,103.82"],
            memory_bytes: 64 << 20,
            disk_bytes: 256 << 20,
            mode: Mode::Redirect,
            dead_after_ms: 3_000,
            collector: CollectorConfig::default(),
            https: false,
        }
    }
}

/// A running CDN.
pub struct Cluster {
    /// The roles and their addresses.
    pub local: Local,
    /// Milliseconds by which the edges' clock is ahead.
    ahead_ms: Arc<AtomicU64>,
    http: HttpClient,
    memory_bytes: u64,
    folder: Arc<TempDir>,
    settings: Settings,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; an error says how the transfer broke.
    pub body: Result<Bytes, String>,
}

impl Answer {
    /// A header as text, empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
    /// The body; panics if the transfer broke.
    pub fn bytes(&self) -> &Bytes {
        match &self.body {
            Ok(bytes) => bytes,
            Err(error) => panic!("the transfer broke: {error}"),
        }
    }
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
    /// `X-Cache`.
    pub fn x_cache(&self) -> &str {
        self.header("x-cache")
    }
}

impl Cluster {
    /// Starts a cluster with the default settings.
    pub async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    /// Starts a cluster.
    pub async fn with(settings: Settings) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        Self::start_in(settings, folder, Arc::new(AtomicU64::new(0))).await
    }

    async fn start_in(settings: Settings, folder: Arc<TempDir>, ahead_ms: Arc<AtomicU64>) -> Self {
        let edges = settings.edges.iter().map(|text| {
            let (name, place) = text.split_once('@').expect("NAME@LAT,LNG");
            LocalEdge { name: name.parse().expect(name), place: place.parse().expect(place) }
        });
        let clock_ahead = Arc::clone(&ahead_ms);
        let config = LocalConfig {
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port_base: 0,
            edges: edges.collect(),
            memory_bytes: settings.memory_bytes,
            disk_bytes: settings.disk_bytes,
            router_mode: settings.mode,
            origin_place: default_origin_place(),
            default_place: default_origin_place(),
            collector: settings.collector.clone(),
            dead_after_ms: settings.dead_after_ms,
            clock: Arc::new(move || now_ms() + clock_ahead.load(Ordering::SeqCst)),
            https: settings.https,
        };
        let data_dir = DataDir::open(folder.path()).expect("data folder");
        let local = start(config, data_dir).await.expect("a running cluster");
        let http = HttpClient::new(ClientLimits::default());
        Self { local, ahead_ms, http, memory_bytes: settings.memory_bytes, folder, settings }
    }

    /// Stops everything and starts it again on the same folder, on other ports.
    pub async fn restart(self) -> Self {
        let Self { local, ahead_ms, folder, settings, .. } = self;
        let Local { process, data_dir, .. } = local;
        process.stop().await;
        drop(data_dir);
        Self::start_in(settings, folder, ahead_ms).await
    }

    /// The data folder.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Sets the edges' clock forward.
    pub fn advance(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).expect("not for ever");
        self.ahead_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// A client with the administrator's token.
    pub fn client(&self) -> Client {
        self.local.client()
    }

    /// The zone that answers for every host.
    pub fn zone(&self) -> ZoneName {
        "files".parse().expect("a zone name")
    }

    /// The address of an edge.
    pub fn edge_url(&self, name: &str) -> String {
        let found = self.local.edges.iter().find(|(node, _)| node.name.as_str() == name);
        found.expect("an edge of that name").0.url.clone()
    }

    /// A look at an edge.
    pub fn edge_view(&self, name: &str) -> EdgeView {
        let found = self.local.edges.iter().find(|(node, _)| node.name.as_str() == name);
        found.expect("an edge of that name").1.clone()
    }

    /// The addresses of all edges.
    pub fn edge_urls(&self) -> Vec<String> {
        self.local.edges.iter().map(|(node, _)| node.url.clone()).collect()
    }

    /// Uploads to a path of the default zone, and waits until every edge has applied the event.
    pub async fn put(&self, path: &str, body: impl Into<Bytes>) -> FileDoc {
        self.put_with(path, body, &UploadMeta::default()).await
    }

    /// The same with what goes with it.
    pub async fn put_with(&self, path: &str, body: impl Into<Bytes>, meta: &UploadMeta) -> FileDoc {
        let meta = UploadMeta { wait: true, ..meta.clone() };
        self.client().upload(&self.at(path), &meta, Body::full(body)).await.expect("uploaded").1
    }

    /// Uploads without waiting for anybody.
    pub async fn put_unseen(&self, path: &str, body: impl Into<Bytes>) -> FileDoc {
        self.client().upload(&self.at(path), &UploadMeta::default(), Body::full(body)).await.expect("uploaded").1
    }

    fn at(&self, path: &str) -> Upload {
        let path: FilePath = path.parse().expect(path);
        Upload::Path(self.zone(), path)
    }

    /// GET, without following redirects.
    pub async fn get(&self, url: &str) -> Answer {
        self.ask(Method::GET, url, &[]).await
    }

    /// Any request without a body.
    pub async fn ask(&self, method: Method, url: &str, headers: &[(&str, &str)]) -> Answer {
        self.try_ask(method, url, headers, Body::empty()).await.unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    /// Any request; an error if there was no answer at all.
    pub async fn try_ask(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).expect("a request");
        let (parts, body) = self.http.send(request).await.map_err(|error| error.to_string())?.into_parts();
        let body = net::read_to_end(body, MAX_TEST_BODY_BYTES).await.map_err(|error| error.to_string());
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    /// A request with a token of one's own (or none) to the api address.
    pub async fn api(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut headers = headers.to_vec();
        if let Some(bearer) = &bearer {
            headers.push(("authorization", bearer));
        }
        let url = format!("{}{path}", self.local.api);
        self.try_ask(method, &url, &headers, Body::full(body)).await.unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    /// The administrator's token.
    pub fn admin_token(&self) -> String {
        self.local.admin_token.reveal().to_owned()
    }

    /// Ends a role at once: `control`, `origin`, `monitor`, `router`, `edge NAME`.
    pub async fn kill(&mut self, role: &str) {
        self.local.process.take(role).unwrap_or_else(|| panic!("{role} does not run")).kill().await;
    }

    /// Stops a role in order.
    pub async fn stop(&mut self, role: &str) {
        self.local.process.take(role).unwrap_or_else(|| panic!("{role} does not run")).stop().await;
    }

    /// Starts another edge, or one that was killed, on a port of its own.
    pub async fn start_edge(&mut self, text: &str) {
        let control_url = self.local.control.clone();
        self.start_edge_at(text, control_url).await;
    }

    /// The same, reaching control at `control_url`.
    pub async fn start_edge_at(&mut self, text: &str, control_url: String) {
        let (name, place) = text.split_once('@').expect("NAME@LAT,LNG");
        let place: Place = place.parse().expect(place);
        let listener = net::bind((Ipv4Addr::LOCALHOST, 0).into()).await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let node = api::NodeDoc { name: name.parse().expect(name), place, url, https_url: None };
        let ahead_ms = Arc::clone(&self.ahead_ms);
        let start = EdgeStart {
            node: node.clone(),
            control_url,
            token: self.local.node_token.clone(),
            memory_bytes: self.memory_bytes,
            cache: edge::CacheConfig::default(),
            access_log: None,
            data_dir: self.folder.path().join("edges").join(name),
            clock: Arc::new(move || now_ms() + ahead_ms.load(Ordering::SeqCst)),
        };
        let view = self.local.process.edge(start, listener, |_| {}).expect("an edge");
        self.local.edges.retain(|(known, _)| known.name != node.name);
        self.local.edges.push((node, view));
    }

    /// Stops everything in order.
    pub async fn shut_down(self) {
        self.shut_down_keeping(|| {}).await;
    }

    /// Stops everything in order, and lets `look` at the folder before it is gone.
    pub async fn shut_down_keeping(self, look: impl FnOnce()) {
        self.local.process.stop().await;
        look();
    }
}

/// Waits until `condition` holds, asking again after short rests; panics with `what` when it never does.
pub async fn eventually<F, R>(what: &str, mut condition: F)
where
    F: FnMut() -> R,
    R: Future<Output = bool>,
{
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < Duration::from_millis(EVENTUALLY_MS), "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A way from an edge to control that can be cut: bytes are passed on in both directions until then.
pub struct Link {
    /// What the edge is told to be control's address.
    pub url: String,
    whole: tokio::sync::watch::Sender<bool>,
}

impl Link {
    /// A way to `url` (`http://ADDRESS:PORT`).
    pub async fn to(url: &str) -> Self {
        let target = url.strip_prefix("http://").expect("http").to_owned();
        let listener = net::bind((Ipv4Addr::LOCALHOST, 0).into()).await.expect("a free port");
        let own = format!("http://{}", listener.local_addr().expect("address"));
        let (whole, watch) = tokio::sync::watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (target, mut watch) = (target.clone(), watch.clone());
                tokio::spawn(async move {
                    if !*watch.borrow() {
                        return;
                    }
                    let Ok(mut far) = tokio::net::TcpStream::connect(&target).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = watch.wait_for(|whole| !whole) => {}
                    }
                });
            }
        });
        Self { url: own, whole }
    }

    /// Breaks every connection and refuses new ones.
    pub fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// Lets new connections through again.
    pub fn mend(&self) {
        self.whole.send_replace(true);
    }
}
