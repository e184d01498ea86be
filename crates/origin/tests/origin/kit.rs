//! An origin on a socket of its own, with a folder and a stand-in for control.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::{Digest, FileDoc, Problem, TokenSecret};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use net::{Body, ClientLimits, HttpClient, ServerLimits};
use objects::{Blobs, Wanted};
use origin::{CollectorConfig, Origin, OriginConfig, OriginLimits};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::control::{self, Control, NODE_TOKEN, Records, USER};

pub(crate) struct Kit {
    pub(crate) control: Arc<Control>,
    pub(crate) origin: Origin,
    pub(crate) address: SocketAddr,
    pub(crate) blobs: Blobs,
    pub(crate) dir: tempfile::TempDir,
    registry: Registry,
    http: HttpClient,
    _shutdown: DropGuard,
}

/// An answer with its body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Up to where it broke off, if it did.
    pub(crate) body: Bytes,
    pub(crate) broken: bool,
}

impl Answer {
    pub(crate) fn problem(&self) -> Problem {
        assert_eq!(self.headers["content-type"], api::problem::PROBLEM_JSON);
        let problem: Problem = serde_json::from_slice(&self.body).expect("a problem");
        assert_eq!(problem.status, self.status.as_u16());
        problem
    }

    pub(crate) fn file(&self) -> FileDoc {
        serde_json::from_slice(&self.body).expect("a file")
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ascii"))
    }
}

impl Kit {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A kit whose configuration a test adapts.
    pub(crate) async fn with(adapt: impl FnOnce(&mut OriginConfig)) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::folder(dir.path()).expect("blobs");
        let shutdown = CancellationToken::new();
        let records = Mutex::new(Records::default());
        let control = Arc::new(Control { records, blobs: blobs.clone(), next_event: tokio::sync::Notify::new() });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let mut config = OriginConfig {
            control_url: format!("http://{}", listener.local_addr().expect("address")),
            node_token: TokenSecret::parse(NODE_TOKEN).expect("token"),
            limits: OriginLimits::default(),
            // Rounds only when a test asks for one, and no blob is too young.
            collector: CollectorConfig { every_ms: 3_600_000, grace_ms: 0, staging_ms: 3_600_000 },
        };
        let router = control::router(Arc::clone(&control));
        tokio::spawn(net::serve(listener, router, ServerLimits::default(), shutdown.clone()));

        adapt(&mut config);
        let http = HttpClient::new(ClientLimits::default());
        let mut registry = Registry::default();
        let origin = Origin::new(config, blobs.clone(), http.clone(), &mut registry);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (running, stop) = (origin.clone(), shutdown.clone());
        tokio::spawn(async move { running.run(listener, stop).await });
        Self { control, origin, address, blobs, dir, registry, http, _shutdown: shutdown.drop_guard() }
    }

    /// Sends a request with the user's token, unless `fields` hold another.
    pub(crate) async fn send(&self, method: &str, path: &str, fields: &[(&str, &str)], body: Body) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        if !fields.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", USER);
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let response = self.http.send(request.body(body).expect("request")).await.expect("response");
        read(response).await
    }

    pub(crate) async fn put(&self, path: &str, fields: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        self.send("PUT", &format!("/v1/zones/files/files/{path}"), fields, Body::full(body)).await
    }

    pub(crate) async fn get(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.send("GET", path, fields, Body::empty()).await
    }

    /// The same as a node does it.
    pub(crate) async fn node_get(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.get(path, &[fields, &[(api::headers::NODE_TOKEN, NODE_TOKEN)]].concat()).await
    }

    /// Writes `bytes` to a new connection and says no more; answers what comes back until the other side closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("connect");
        stream.write_all(bytes).await.expect("write");
        stream.shutdown().await.expect("no more");
        let mut answer = Vec::new();
        // A reset after the answer is fine: what was read counts.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Puts a file there behind the origin's back.
    pub(crate) async fn publish(&self, path: &str, body: &[u8]) -> FileDoc {
        let digest = self.store(body).await;
        let path = path.parse().expect("path");
        let file = control::file(&path, digest, body.len() as u64, 3);
        self.records(|records| records.files.insert(path, file.clone()));
        file
    }

    /// Puts a blob there that nothing refers to.
    pub(crate) async fn store(&self, body: &[u8]) -> Digest {
        let mut staging = self.blobs.stage(Wanted::default());
        staging.write(Bytes::copy_from_slice(body)).await.expect("write");
        let staged = staging.finish().await.expect("finish");
        let digest = staged.digest;
        self.blobs.place(&staged).await.expect("place");
        self.blobs.discard(staged).await.expect("discard");
        digest
    }

    /// Where a blob is.
    pub(crate) fn blob(&self, digest: Digest) -> PathBuf {
        let hex = digest.to_string();
        self.dir.path().join("blobs").join(&hex[..2]).join(&hex[2..4]).join(hex)
    }

    pub(crate) fn records<T>(&self, look: impl FnOnce(&mut Records) -> T) -> T {
        look(&mut self.control.records.lock().expect("lock"))
    }

    /// Waits until nothing is staged, and fails if that does not come.
    pub(crate) async fn nothing_is_staged(&self) {
        let staging = self.dir.path().join("staging");
        until(|| std::fs::read_dir(&staging).expect("read").next().is_none()).await;
    }

    /// The value of a metric, 0 where it is not there yet.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().expect("a number"))
    }
}

pub(crate) async fn read(response: Response<Body>) -> Answer {
    use http_body_util::BodyExt;
    let (head, mut body) = response.into_parts();
    let (mut bytes, mut broken) = (Vec::new(), false);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes.extend_from_slice(frame.data_ref().expect("data")),
            Err(_) => broken = true,
        }
    }
    Answer { status: head.status, headers: head.headers, body: bytes.into(), broken }
}

/// Waits for a condition, and fails if it does not come true within ten seconds.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("this did not come true within ten seconds");
}

/// A body in which no two slices are alike.
pub(crate) fn body(size: usize) -> Vec<u8> {
    (0..size).map(|at| ((at * 31) ^ (at >> 9) ^ (at >> 18)) as u8).collect()
}
