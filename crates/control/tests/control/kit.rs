//! A control on a socket of its own, with clients that hold each kind of token and a clock that the test moves.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api::names::{Digest, NodeName, Place};
use api::node::{Committed, Conditions, Join, UploadCommit, UploadTarget, Upstream};
use api::{Health, NewToken, NodeDoc, NodeHealth, Problem, Scope, TokenKind, TokenSecret, ZoneDoc};
use bytes::Bytes;
use client::{Client, StreamItem};
use control::{Control, ControlConfig};
use http::{HeaderMap, Method, Request, StatusCode};
use net::{Body, ClientLimits, HttpClient};
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const ADMIN: &str = "lit_admin";
pub(crate) const NODE: &str = "lit_node";
pub(crate) const NOW_MS: u64 = 1_700_000_000_000;

pub(crate) struct Kit {
    pub(crate) url: String,
    pub(crate) clock_ms: Arc<AtomicU64>,
    pub(crate) http: HttpClient,
    registry: Registry,
    dir: tempfile::TempDir,
    shutdown: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// An answer with its body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn problem(&self) -> Problem {
        assert_eq!(self.headers["content-type"], api::problem::PROBLEM_JSON);
        let problem: Problem = serde_json::from_slice(&self.body).expect("a problem");
        assert_eq!(problem.status, self.status.as_u16());
        problem
    }

    /// Status, code and detail in one line.
    pub(crate) fn shown(&self) -> String {
        let problem = self.problem();
        format!("{} {}: {}", self.status.as_u16(), problem.code.word(), problem.detail)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).expect("text")
    }
}

pub(crate) fn parse<T: std::str::FromStr<Err = api::InvalidName>>(text: &str) -> T {
    text.parse().expect(text)
}

pub(crate) fn secret(text: &str) -> TokenSecret {
    TokenSecret::parse(text).expect("secret")
}

impl Kit {
    /// A control with the zone `files` for every host, one token of an administrator and one of a node.
    pub(crate) async fn new() -> Self {
        Self::start(tempfile::tempdir().expect("folder"), catalog::EVENTS_KEPT).await
    }

    pub(crate) async fn keeping_events(events_kept: u64) -> Self {
        Self::start(tempfile::tempdir().expect("folder"), events_kept).await
    }

    async fn start(dir: tempfile::TempDir, events_kept: u64) -> Self {
        let clock_ms = Arc::new(AtomicU64::new(NOW_MS));
        let clock = Arc::clone(&clock_ms);
        let origin =
            Upstream { url: "http://127.0.0.1:8601/".to_owned(), place: Place::new(10.0, 10.0).expect("place") };
        let config = ControlConfig {
            events_kept,
            clock: Arc::new(move || clock.load(Ordering::Relaxed)),
            ..ControlConfig::new(file(&dir), "http://127.0.0.1:8600".to_owned(), origin)
        };
        let mut registry = Registry::default();
        let control = Control::open(config, &mut registry).await.expect("open");
        // As at every start; from the second on this changes nothing.
        let zone = ZoneDoc { catch_all: true, index: Some("index.html".to_owned()), ..ZoneDoc::new(parse("files")) };
        control.ensure_zone(&zone).await.expect("zone");
        control.ensure_token("admin", TokenKind::User, &[Scope::Admin], &secret(ADMIN)).await.expect("admin");
        control.ensure_token("nodes", TokenKind::Node, &[], &secret(NODE)).await.expect("node");
        let listener = net::bind("127.0.0.1:0".parse().expect("address")).await.expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let shutdown = CancellationToken::new();
        let task = Some(tokio::spawn(control.run(listener, shutdown.clone())));
        let http = HttpClient::new(ClientLimits::default());
        Self { url, clock_ms, http, registry, dir, shutdown, task }
    }

    /// Stops it, waits until it has stopped, and starts another on the same catalog.
    pub(crate) async fn restart(mut self) -> Self {
        self.stop().await;
        Self::start(self.dir, catalog::EVENTS_KEPT).await
    }

    pub(crate) async fn stop(&mut self) {
        self.shutdown.cancel();
        let task = self.task.take().expect("running");
        tokio::time::timeout(std::time::Duration::from_secs(20), task).await.expect("stops").expect("no panic");
    }

    pub(crate) fn client(&self, token: Option<&str>) -> Client {
        Client::new(self.http.clone(), &self.url, token.map(secret).as_ref())
    }

    pub(crate) fn admin(&self) -> Client {
        self.client(Some(ADMIN))
    }

    pub(crate) fn node(&self) -> Client {
        self.client(Some(NODE))
    }

    /// A client with a new token of these scopes.
    pub(crate) async fn user(&self, scopes: &[Scope], expires_in_s: Option<u64>) -> (Client, String) {
        let label = "user".to_owned();
        let token = NewToken { label, kind: TokenKind::User, scopes: scopes.to_vec(), expires_in_s };
        let token = self.admin().create_token(&token).await.expect("token").token;
        (self.client(Some(&token)), token)
    }

    pub(crate) async fn send(&self, method: Method, target: &str, token: Option<&str>, body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("{}{target}", self.url));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Body::full(body.to_owned())).expect("request");
        let response = self.http.send(request).await.expect("response");
        let (status, headers) = (response.status(), response.headers().clone());
        let body = net::read_to_end(response.into_body(), 1 << 22).await.expect("body");
        Answer { status, headers, body }
    }

    /// Puts a file there, as an origin does.
    pub(crate) async fn put(&self, zone: &str, path: &str, content: &str, wait: bool) -> Committed {
        let target = UploadTarget::Path { zone: parse(zone), path: parse(path) };
        self.node().upload_commit(&upload(target, content, wait)).await.expect(path)
    }

    pub(crate) async fn join(&self, name: &str, lat: f64, lng: f64) -> NodeName {
        let node = NodeDoc {
            name: parse(name),
            place: Place::new(lat, lng).expect("place"),
            url: format!("http://{name}.example:8610"),
            https_url: None,
        };
        let join = Join { node, keeps_placements: true };
        self.node().join(&join).await.expect(name);
        join.node.name
    }

    /// Hands in a verdict on nodes and whether they are alive.
    pub(crate) async fn verdict(&self, generation: u64, nodes: &[(&str, bool)]) {
        let health = |&(name, alive): &(&str, bool)| NodeHealth {
            name: parse(name),
            alive,
            last_heartbeat_ms: 7,
            load: 3,
            applied: 0,
        };
        let health = Health { generation, nodes: nodes.iter().map(health).collect() };
        self.node().put_health(&health).await.expect("verdict");
    }

    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("metrics");
        text
    }
}

fn file(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("catalog.db")
}

pub(crate) fn upload(target: UploadTarget, content: &str, wait: bool) -> UploadCommit {
    UploadCommit {
        target,
        conditions: Conditions::default(),
        digest: Digest::of(content.as_bytes()),
        size: content.len() as u64,
        sweep: 0,
        media_type: Some("text/plain".to_owned()),
        cache_control: None,
        tags: Vec::new(),
        wait,
    }
}

/// The next message that is no comment.
pub(crate) async fn next(stream: &mut client::EventStream) -> Option<StreamItem> {
    let next = async {
        loop {
            match stream.next().await.expect("stream") {
                Some(StreamItem::Ping) => {}
                item => return item,
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), next).await.expect("a message")
}
