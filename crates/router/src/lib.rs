//! The router role: the front door that sends each client to the edge that [`routing::choose`] names, by redirect or by
//! carrying the request there itself.
//!
//! A request's stages, each a function: method → target and place ([`asked`]) → who holds the file ([`holders`]) →
//! choice → redirect or [`proxy`]. What the router knows of the whole is one immutable [`view::View`] behind a watch
//! channel: a request takes it once and keeps to it, and [`follow`] replaces it whole. The last snapshot is also on disk
//! ([`stored`]), so that a router starts and goes on while control is away. All else it remembers (holders, edges that
//! could not be reached) is in memory, bounded, and old after a second or two.

mod asked;
mod follow;
mod holders;
mod metrics;
mod proxy;
mod stored;
mod view;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use api::{ErrorCode, Place, Problem, TlsDoc, TokenSecret};
use client::Client;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, LOCATION, STRICT_TRANSPORT_SECURITY};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use net::{Body, ClientLimits, Doors, HttpClient, Incoming, Peer, ServerLimits};
use prometheus_client::registry::Registry;
use routing::{Choice, Edge};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use asked::Asked;
use holders::HolderCache;
use metrics::Metrics;
use proxy::Suspects;
use stored::Stored;
use view::View;

/// How long an edge may take to accept a connection, in milliseconds.
const EDGE_CONNECT_MS: u64 = 1_000;
/// How long control may take for an answer, or for the next sign of life on its stream, in milliseconds. When nothing
/// happens it sends one every second.
const CONTROL_MS: u64 = 5_000;
/// For the stored snapshot to be read before the first request, in milliseconds.
const RECALL_MS: u64 = 2_000;

/// What a router does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Answers 307 with the URL at the edge.
    Redirect,
    /// Carries the request to the edge and the answer back.
    Proxy,
}

/// What a router needs to know.
#[derive(Debug, Clone)]
pub struct RouterConfig {
    /// Where control is, `http://HOST:PORT`.
    pub control_url: String,
    /// The node token.
    pub token: TokenSecret,
    /// What to do with requests.
    pub mode: Mode,
    /// Where a client is taken to be who does not say so.
    pub default_place: Place,
    /// The folder for the last snapshot, which exists. Without one the router cannot start while control is away.
    pub data_dir: Option<PathBuf>,
    /// What its listener allows.
    pub server: ServerLimits,
}

/// A router, not yet running.
pub struct Router {
    shared: Arc<Shared>,
    stored: Option<Stored>,
    server: ServerLimits,
}

/// What all requests share.
struct Shared {
    mode: Mode,
    default_place: Place,
    view: watch::Sender<Option<Arc<View>>>,
    control: Client,
    holders: HolderCache,
    edges: HttpClient,
    suspects: Suspects,
    metrics: Metrics,
    /// Where it speaks TLS itself.
    https_port: OnceLock<u16>,
}

impl Router {
    /// Makes a router and registers its metrics.
    pub fn new(config: RouterConfig, registry: &mut Registry) -> Self {
        let to_control = ClientLimits {
            connect_ms: CONTROL_MS,
            head_ms: CONTROL_MS,
            idle_ms: CONTROL_MS,
            ..ClientLimits::default()
        };
        let to_edges = ClientLimits { connect_ms: EDGE_CONNECT_MS, ..ClientLimits::default() };
        let shared = Shared {
            mode: config.mode,
            default_place: config.default_place,
            view: watch::Sender::new(None),
            control: Client::new(HttpClient::new(to_control), &config.control_url, Some(&config.token)),
            holders: HolderCache::new(),
            edges: HttpClient::new(to_edges),
            suspects: Suspects::default(),
            metrics: Metrics::new(registry),
            https_port: OnceLock::new(),
        };
        Self {
            shared: Arc::new(shared),
            stored: config.data_dir.map(|folder| Stored::in_folder(&folder)),
            server: config.server,
        }
    }

    /// Waits until the router knows where to send requests: it has a snapshot, from control or from its disk.
    pub fn ready(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let mut view = self.shared.view.subscribe();
        async move {
            // An error means that the router is gone, and then nobody needs to wait for it.
            let _ = view.wait_for(Option::is_some).await;
        }
    }

    /// Serves requests from these listeners until `shutdown`, then drains.
    pub async fn run(self, doors: impl Into<Doors> + Send, shutdown: CancellationToken) {
        let doors: Doors = doors.into();
        let shared = self.shared.clone();
        if let Some(port) = doors.https_port() {
            // Run once, so it is set once.
            let _ = shared.https_port.set(port);
        }
        let service = net::service(move |request| {
            let shared = shared.clone();
            async move { shared.answer(request).await }
        });
        // Before the first request: whoever comes earlier waits for it in the kernel, and is not refused.
        // A disk that does not answer keeps nobody waiting for long.
        let recalled = follow::recall(&self.shared, self.stored.clone());
        let _ = tokio::time::timeout(Duration::from_millis(RECALL_MS), recalled).await;
        tokio::select! {
            () = net::serve_doors(doors, service, None, self.server, shutdown) => {}
            // Never the first to end: control is followed while the last requests drain, too.
            () = follow::follow(&self.shared, self.stored) => {}
        }
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let began = Instant::now();
        let answer = self.route(request).await;
        self.metrics.answered(self.mode, &answer, began.elapsed());
        answer.unwrap_or_else(problem_response)
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
        // A body is not read and not passed on: neither GET nor HEAD has one that means anything.
        let (head, _) = request.into_parts();
        if head.method != Method::GET && head.method != Method::HEAD {
            let detail = format!("a router takes GET and HEAD, not {}; upload at the api address", head.method);
            return Err(Problem::new(ErrorCode::MethodNotAllowed, detail));
        }
        let view = self.view.borrow().clone().ok_or_else(|| {
            Problem::new(ErrorCode::UpstreamUnreachable, "this router has not reached control yet; try again later")
        })?;
        let asked = Asked::new(&view.zones, &head, self.default_place)?;
        let to_us = head.extensions.get::<Peer>().is_some_and(|peer| peer.secure);
        let secure = api::https::is_secure(to_us, &head.headers);
        let tls = asked.target.zone().and_then(|zone| zone.tls.as_ref());
        if let Some(tls) = tls.filter(|tls| tls.redirect && !secure)
            && let Some(response) = self.to_https(tls, &asked, &head)
        {
            return Ok(response);
        }
        let holders = self.holders.of(&self.control, &asked.target, &self.metrics).await;
        let edges: Vec<Edge<'_>> = view
            .edges
            .iter()
            .map(|edge| Edge {
                node: &edge.node,
                alive: edge.alive,
                load: edge.load,
                has_file: holders.contains(&edge.node.name),
            })
            .collect();
        let choice = routing::choose(asked.place, &edges, view.snapshot.origin.place);
        self.metrics.chosen(choice.why);
        let mut response = match self.mode {
            Mode::Redirect => redirect(&view, &asked, &choice, secure)?,
            Mode::Proxy => self.forward(&view, &asked, &choice, &head).await?,
        };
        if let Some(hsts) = tls.and_then(|tls| tls.hsts.as_ref()).filter(|_| secure)
            && let Ok(value) = HeaderValue::try_from(hsts.value())
        {
            response.headers_mut().entry(STRICT_TRANSPORT_SECURITY).or_insert(value);
        }
        Ok(response)
    }

    /// Sends a plain request to this router's own `https://`.
    fn to_https(&self, tls: &TlsDoc, asked: &Asked, head: &Parts) -> Option<Response<Body>> {
        let port = tls.port.or_else(|| self.https_port.get().copied()).unwrap_or(443);
        let (status, location) = api::https::redirect(&head.method, &asked.host, port, head.uri.path_and_query())?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        response.headers_mut().insert(LOCATION, HeaderValue::try_from(location).ok()?);
        Some(response)
    }
}

/// `secure`: the client speaks TLS, and is led to where it can go on doing so.
fn redirect(view: &View, asked: &Asked, choice: &Choice<'_>, secure: bool) -> Result<Response<Body>, Problem> {
    let location = match choice.edge() {
        Some(edge) => {
            let url = edge.https_url.as_ref().filter(|_| secure).unwrap_or(&edge.url);
            asked.url_at_edge(&view.zones, url)
        }
        None => asked.url_at_origin(&view.snapshot.origin.url),
    };
    let location = HeaderValue::try_from(location)
        .map_err(|_| Problem::new(ErrorCode::Internal, format!("the URL of {} is not usable", choice.name())))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, location);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    set_route(&mut response, choice.name(), choice.why.sentence());
    Ok(response)
}

/// Tells where the request went and why. `reason` has neither quotes nor backslashes.
fn set_route(response: &mut Response<Body>, node: &str, reason: &str) {
    if let Ok(value) = HeaderValue::try_from(format!("{node}; reason=\"{reason}\"")) {
        response.headers_mut().insert(api::headers::ROUTE, value);
    }
}

fn problem_response(problem: Problem) -> Response<Body> {
    let mut response = Response::new(Body::full(problem.to_json()));
    *response.status_mut() = problem.http_status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(api::problem::PROBLEM_JSON));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if problem.code == ErrorCode::MethodNotAllowed {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}
