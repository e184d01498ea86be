//! The admin listener of a process: is it alive, is it ready, what does it count.
//!
//! `/livez` (the process answers), `/readyz` and `/health` (each role says whether it can do its work; 503 names those that
//! cannot), `/metrics` (OpenMetrics text), `/version`; and below [`CACHE_PATH`] what tools ask of the caches of its edges.
//!
//! The caches answer to this machine only, wherever the listener is bound: there is no token here, URLs may hold secrets,
//! and tools empty caches. A web page in a browser of this machine is no tool: it cannot send JSON to another address without
//! being asked, and its host is a name, which is refused.

use std::net::IpAddr;
use std::sync::Arc;

use api::addressing::{host_name, request_host};
use api::cache::{CACHE_PATH, CacheEdges, MAX_CACHE_REQUEST_BYTES};
use api::{ErrorCode, Problem, problem};
use edge::EdgeView;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use net::{Body, Incoming, Peer, ServerLimits};
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Says whether a role can do its work.
pub type Ready = Box<dyn Fn() -> bool + Send + Sync>;

/// What the listener shows.
pub struct Admin {
    /// The metrics of all roles of the process.
    pub registry: Registry,
    /// Each role or edge by name.
    pub ready: Vec<(String, Ready)>,
    /// The edges, whose caches tools may look into.
    pub edges: Vec<EdgeView>,
}

/// Connections at once: scrapers and probes, not people.
const CONNECTIONS: usize = 64;
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves on `listener` until `shutdown`.
pub async fn run(admin: Admin, listener: TcpListener, shutdown: CancellationToken) {
    let admin = Arc::new(admin);
    let service = net::service(move |request: Request<Incoming>| {
        let admin = Arc::clone(&admin);
        async move {
            let (parts, body) = request.into_parts();
            match parts.uri.path().strip_prefix(CACHE_PATH) {
                Some(rest) if rest.is_empty() || rest.starts_with('/') => cache(&admin, &parts, rest, body).await,
                _ => answer(&admin, &parts.method, parts.uri.path()),
            }
        }
    });
    let limits = ServerLimits { connections: CONNECTIONS, drain_ms: 1_000, ..ServerLimits::default() };
    net::serve(listener, service, limits, shutdown).await;
}

fn answer(admin: &Admin, method: &Method, path: &str) -> Response<Body> {
    if method != Method::GET && method != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "the admin listener answers GET and HEAD\n".into());
    }
    match path {
        "/livez" => text(StatusCode::OK, "text/plain", "ok\n".into()),
        "/readyz" | "/health" => ready(admin),
        "/version" => {
            text(StatusCode::OK, "application/json", json!({"version": env!("CARGO_PKG_VERSION")}).to_string())
        }
        "/metrics" => {
            let mut metrics = String::new();
            match prometheus_client::encoding::text::encode(&mut metrics, &admin.registry) {
                Ok(()) => text(StatusCode::OK, OPENMETRICS, metrics),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("{error}\n")),
            }
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "text/plain",
            format!("there are /livez, /readyz, /health, /metrics, /version and {CACHE_PATH}\n"),
        ),
    }
}

/// Answers what stands below [`CACHE_PATH`].
async fn cache(admin: &Admin, request: &Parts, rest: &str, body: Incoming) -> Response<Body> {
    let path: Vec<&str> = rest.split('/').skip(1).collect();
    let answered = match (may_ask(request), path.as_slice()) {
        (Err(problem), _) => Err(problem),
        (Ok(()), [] | [""]) => {
            let edges = CacheEdges { edges: admin.edges.iter().map(|edge| edge.name().clone()).collect() };
            Ok(text(StatusCode::OK, "application/json", json!(edges).to_string()))
        }
        (Ok(()), [name, action]) => match admin.edges.iter().find(|edge| *edge.name().as_str() == **name) {
            Some(edge) => {
                let body = net::read_to_end(body, MAX_CACHE_REQUEST_BYTES).await;
                match body.map_err(|error| Problem::new(ErrorCode::InvalidRequest, error.to_string())) {
                    Ok(body) => Ok(edge.answer_tool(&request.method, action, &body).await),
                    Err(problem) => Err(problem),
                }
            }
            None => Err(Problem::new(
                ErrorCode::UnknownNode,
                format!("no edge {name:?} runs in this process; GET {CACHE_PATH} names those that do"),
            )),
        },
        (Ok(()), _) => {
            let detail = format!("write {CACHE_PATH}/EDGE/ and stats, list, show, evict or verify");
            Err(Problem::new(ErrorCode::UnknownEndpoint, detail))
        }
    };
    answered.unwrap_or_else(|problem| {
        let json = String::from_utf8(problem.to_json()).unwrap_or_default();
        text(problem.http_status(), problem::PROBLEM_JSON, json)
    })
}

/// Whether a request for the caches comes from a tool on this machine.
fn may_ask(request: &Parts) -> Result<(), Problem> {
    let forbidden = |detail: &str| Err(Problem::new(ErrorCode::Forbidden, detail));
    let peer = request.extensions.get::<Peer>().map(|peer| peer.address.ip().to_canonical());
    if !peer.is_some_and(|address| address.is_loopback()) {
        return forbidden(
            "caches are looked into from their own machine only; use it there, or through a tunnel to it",
        );
    }
    let host = host_name(request_host(&request.uri, &request.headers));
    if host != "localhost" && host.parse::<IpAddr>().is_err() {
        return forbidden("the admin listener is asked by its address, and not by a name");
    }
    let is_json = request.headers.get(header::CONTENT_TYPE).is_some_and(|value| value == "application/json");
    if request.method != Method::GET && !is_json {
        let detail = "the body must be application/json, and its Content-Type has to say so";
        return Err(Problem::new(ErrorCode::InvalidRequest, detail));
    }
    Ok(())
}

fn ready(admin: &Admin) -> Response<Body> {
    let checks: serde_json::Map<_, _> = admin
        .ready
        .iter()
        .map(|(name, ready)| (name.clone(), json!(if ready() { "ready" } else { "not ready" })))
        .collect();
    let all = checks.values().all(|state| state == "ready");
    let status = if all { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    text(status, "application/json", json!({"ready": all, "roles": checks}).to_string())
}

fn text(status: StatusCode, media_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_who_is_not() {
        let check = |edge_ready: bool| {
            let ready: Vec<(String, Ready)> =
                vec![("control".into(), Box::new(|| true)), ("edge lisbon".into(), Box::new(move || edge_ready))];
            let edges = Vec::new();
            answer(&Admin { registry: Registry::default(), ready, edges }, &Method::GET, "/readyz").status()
        };
        assert_eq!(check(true), StatusCode::OK);
        assert_eq!(check(false), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        let admin = Admin { registry: Registry::default(), ready: Vec::new(), edges: Vec::new() };
        assert_eq!(answer(&admin, &Method::GET, "/metrics").status(), StatusCode::OK);
        assert_eq!(answer(&admin, &Method::GET, "/nope").status(), StatusCode::NOT_FOUND);
        assert_eq!(answer(&admin, &Method::POST, "/livez").status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    #[test]
    fn caches_answer_tools_on_this_machine() {
        let ask = |peer: &str, method: Method, host: &str, media_type: Option<&str>| {
            let mut request = Request::builder().method(method).uri("/v1/cache").header("host", host);
            if let Some(media_type) = media_type {
                request = request.header("content-type", media_type);
            }
            let mut request = request.body(()).expect("request");
            request.extensions_mut().insert(Peer { address: peer.parse().expect("address"), secure: false });
            may_ask(&request.into_parts().0).map_err(|problem| problem.code)
        };
        let json = Some("application/json");
        assert_eq!(ask("127.0.0.1:5", Method::GET, "127.0.0.1:8604", None), Ok(()));
        assert_eq!(ask("[::1]:5", Method::POST, "[::1]:8604", json), Ok(()));
        assert_eq!(ask("[::ffff:127.0.0.1]:5", Method::POST, "localhost:8604", json), Ok(()));
        for (peer, host) in [("10.0.0.1:5", "127.0.0.1"), ("127.0.0.1:5", "evil.example"), ("127.0.0.1:5", "")] {
            assert_eq!(ask(peer, Method::GET, host, None), Err(ErrorCode::Forbidden), "{peer} {host}");
        }
        for media_type in [None, Some("text/plain")] {
            assert_eq!(ask("127.0.0.1:5", Method::POST, "127.0.0.1", media_type), Err(ErrorCode::InvalidRequest));
        }
    }
}
