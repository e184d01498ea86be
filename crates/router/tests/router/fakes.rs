//! A control, edges and a client for the tests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::node::{Holders, Snapshot, Upstream};
use api::{Health, Hello, NodeDoc, NodeHealth, Place, TokenSecret, ZoneDoc};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use net::{Body, ClientLimits, HttpClient, Incoming, ServerLimits};
use prometheus_client::registry::Registry;
use router::{Mode, Router, RouterConfig};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// A condition that does not come true for this long fails the test.
const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const LISBON: (f64, f64) = (38.72, -9.14);
pub(crate) const BERLIN: (f64, f64) = (52.52, 13.40);
pub(crate) const TOKYO: (f64, f64) = (35.68, 139.69);
const DALLAS: (f64, f64) = (32.78, -96.80);

/// Serves `answer` on a free port until the token it gives is cancelled; the URL.
pub(crate) async fn serve<F, R>(answer: F) -> (String, CancellationToken)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = net::bind("127.0.0.1:0".parse().expect("address")).await.expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    let shutdown = CancellationToken::new();
    let limits = ServerLimits { drain_ms: 0, ..ServerLimits::default() };
    tokio::spawn(net::serve(listener, net::service(answer), limits, shutdown.clone()));
    (url, shutdown)
}

/// An address that nothing listens on.
pub(crate) async fn nobody() -> String {
    let listener = net::bind("127.0.0.1:0".parse().expect("address")).await.expect("bind");
    format!("http://{}", listener.local_addr().expect("address"))
}

/// What control says of who holds a file.
#[derive(Clone)]
pub(crate) enum Holding {
    By(Vec<&'static str>),
    NoSuchFile,
    Silence,
}

/// A control. Its stream tells every change of `snapshot` and `health`.
pub(crate) struct Control {
    pub(crate) url: String,
    pub(crate) snapshot: watch::Sender<Snapshot>,
    pub(crate) health: watch::Sender<Health>,
    pub(crate) holding: Arc<Mutex<Holding>>,
    pub(crate) stop: CancellationToken,
}

impl Control {
    pub(crate) async fn start(nodes: Vec<NodeDoc>, origin: &str) -> Self {
        let snapshot = watch::Sender::new(Snapshot {
            format: 1,
            at: Hello { catalog_id: "c".into(), head: 0, oldest: 1, generation: 1 },
            zones: vec![
                ZoneDoc {
                    catch_all: true,
                    index: Some("index.html".into()),
                    place_header: Some("x-place".into()),
                    ..ZoneDoc::new("files".parse().expect("zone"))
                },
                ZoneDoc { hosts: vec!["img.example".into()], ..ZoneDoc::new("img".parse().expect("zone")) },
            ],
            nodes,
            origin: Upstream { url: origin.to_owned(), place: Place { lat: DALLAS.0, lng: DALLAS.1 } },
            monitor: None,
            readers: vec![],
        });
        let health = watch::Sender::new(Health::default());
        let holding = Arc::new(Mutex::new(Holding::By(vec![])));
        let (snapshots, healths, held) = (snapshot.subscribe(), health.subscribe(), holding.clone());
        let (url, stop) = serve(move |request| {
            let (snapshot, health) = (snapshots.clone(), healths.clone());
            let held = held.lock().expect("lock").clone();
            async move { answer(&request, snapshot, health, held).await }
        })
        .await;
        Self { url, snapshot, health, holding, stop }
    }

    /// Changes the configuration, as a new generation.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut Snapshot)) {
        self.snapshot.send_modify(|snapshot| {
            change(snapshot);
            snapshot.at.generation += 1;
        });
    }

    /// Tells who is alive.
    pub(crate) fn alive(&self, nodes: &[(&str, bool)]) {
        self.health.send_modify(|health| {
            health.generation += 1;
            let nodes = nodes.iter().map(|(name, alive)| NodeHealth {
                name: name.parse().expect("name"),
                alive: *alive,
                last_heartbeat_ms: 0,
                load: 0,
                applied: 0,
            });
            health.nodes = nodes.collect();
        });
    }
}

async fn answer(
    request: &Request<Incoming>,
    snapshot: watch::Receiver<Snapshot>,
    health: watch::Receiver<Health>,
    holding: Holding,
) -> Response<Body> {
    assert_eq!(request.headers()["authorization"], "Bearer lit_node");
    let json = |value: serde_json::Result<Vec<u8>>| Response::new(Body::full(value.expect("json")));
    match request.uri().path() {
        "/v1/node/snapshot" => json(serde_json::to_vec(&*snapshot.borrow())),
        "/v1/node/holders" => match holding {
            Holding::By(names) => {
                let nodes = names.iter().map(|name| name.parse().expect("name")).collect();
                json(serde_json::to_vec(&Holders { nodes }))
            }
            Holding::NoSuchFile => {
                let problem = api::Problem::new(api::ErrorCode::UnknownFile, "there is no such file");
                let mut response = Response::new(Body::full(problem.to_json()));
                *response.status_mut() = problem.http_status();
                response
            }
            Holding::Silence => std::future::pending().await,
        },
        "/v1/events" => Response::new(events(snapshot, health)),
        other => panic!("control was asked for {other}"),
    }
}

fn events(snapshot: watch::Receiver<Snapshot>, health: watch::Receiver<Health>) -> Body {
    let hello = serde_json::to_string(&snapshot.borrow().at).expect("json");
    let first = format!("event: hello\ndata: {hello}\n\n{}", health_message(&health.borrow()));
    let later = futures_util::stream::unfold((snapshot, health), |(mut snapshot, mut health)| async move {
        let message = tokio::select! {
            Ok(()) = snapshot.changed() => {
                let generation = snapshot.borrow_and_update().at.generation;
                format!("id: {generation}\nevent: config\ndata: {{\"seq\":{generation},\"at_ms\":1,\"kind\":\"config\",\"generation\":{generation}}}\n\n")
            }
            Ok(()) = health.changed() => health_message(&health.borrow_and_update()),
            () = tokio::time::sleep(Duration::from_secs(1)) => ": ping\n\n".to_owned(),
        };
        Some((message, (snapshot, health)))
    });
    let all = futures_util::stream::once(async { first }).chain(later);
    Body::stream(all.map(|message| Ok(Bytes::from(message))))
}

fn health_message(health: &Health) -> String {
    format!("event: health\ndata: {}\n\n", serde_json::to_string(health).expect("json"))
}

pub(crate) fn node(name: &str, place: (f64, f64), url: &str) -> NodeDoc {
    let place = Place::new(place.0, place.1).expect("place");
    NodeDoc { name: name.parse().expect("name"), place, url: url.to_owned(), https_url: None }
}

/// An edge that answers with what it was asked: method, path and headers, a line each.
pub(crate) async fn echo(name: &'static str) -> (String, CancellationToken) {
    serve(move |request: Request<Incoming>| async move {
        let mut lines = vec![format!("{name} {} {}", request.method(), request.uri())];
        lines.extend(request.headers().iter().map(|(n, v)| format!("{n}: {}", v.to_str().expect("text"))));
        let body = lines.join("\n");
        let head = Response::builder()
            .header("x-edge", name)
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("content-length", body.len());
        let body = if request.method() == Method::HEAD { Body::empty() } else { Body::full(body) };
        head.body(body).expect("response")
    })
    .await
}

/// A running router.
pub(crate) struct Running {
    pub(crate) url: String,
    pub(crate) registry: Registry,
    pub(crate) shutdown: CancellationToken,
    client: HttpClient,
}

impl Running {
    pub(crate) async fn start(mode: Mode, control: &str, data_dir: Option<&std::path::Path>) -> Self {
        let listener = net::bind("127.0.0.1:0".parse().expect("address")).await.expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let mut registry = Registry::default();
        let config = RouterConfig {
            control_url: control.to_owned(),
            token: TokenSecret::parse("lit_node").expect("token"),
            mode,
            default_place: Place::new(40.42, -3.70).expect("Madrid"),
            data_dir: data_dir.map(std::path::Path::to_owned),
            server: ServerLimits::default(),
        };
        let (router, shutdown) = (Router::new(config, &mut registry), CancellationToken::new());
        let ready = router.ready();
        tokio::spawn(router.run(listener, shutdown.clone()));
        tokio::time::timeout(PATIENCE, ready).await.expect("the router gets a snapshot");
        Self { url, registry, shutdown, client: HttpClient::new(ClientLimits::default()) }
    }

    /// Sends a request; the status, the headers and the body.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.send(request.body(Body::empty()).expect("request")).await.expect("an answer");
        let (head, body) = response.into_parts();
        let body = net::read_to_end(body, 64 << 20).await.expect("a whole body");
        (head.status, head.headers, String::from_utf8(body.to_vec()).expect("text"))
    }

    /// Where a GET is redirected to.
    pub(crate) async fn location(&self, path: &str, headers: &[(&str, &str)]) -> String {
        let (status, headers, body) = self.ask(Method::GET, path, headers).await;
        assert_eq!(status, 307, "{body}");
        headers["location"].to_str().expect("text").to_owned()
    }

    /// Waits until a GET is redirected to `expected`.
    pub(crate) async fn wait_for_location(&self, path: &str, expected: &str) {
        let begun = tokio::time::Instant::now();
        loop {
            let location = self.location(path, &[]).await;
            if location == expected {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{path} still leads to {location}, not to {expected}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks for one path after the other until a metric is counted. Every request is answered with a redirect.
    pub(crate) async fn ask_until(&self, metric: &str, path: impl Fn() -> String) {
        let begun = tokio::time::Instant::now();
        while self.metric(metric) == 0 {
            assert!(begun.elapsed() < PATIENCE, "{metric} is not counted");
            self.location(&path(), &[]).await;
        }
    }

    /// The value of a metric, or nothing when it was never counted.
    pub(crate) fn metric(&self, line: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("encode");
        let value = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().expect("number"))
    }
}

/// A body that breaks off after its first piece, once `cut` says so.
pub(crate) fn broken_body(cut: Arc<Notify>) -> Body {
    let first = futures_util::stream::iter([Ok(Bytes::from_static(b"half"))]);
    Body::stream(first.chain(futures_util::stream::once(async move {
        cut.notified().await;
        Err("cut".into())
    })))
}
