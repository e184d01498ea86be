//! The admin listener of a process: is it alive, is it ready, what does it count.
//!
//! `/livez` (the process answers), `/readyz` and `/health` (each role says whether it can do its work; 503 names those that
//! cannot), `/metrics` (OpenMetrics text), `/version`.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use net::{Body, Incoming, ServerLimits};
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
}

/// Connections at once: scrapers and probes, not people.
const CONNECTIONS: usize = 64;
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves on `listener` until `shutdown`.
pub async fn run(admin: Admin, listener: TcpListener, shutdown: CancellationToken) {
    let admin = Arc::new(admin);
    let service = net::service(move |request: Request<Incoming>| {
        let response = answer(&admin, request.method(), request.uri().path());
        std::future::ready(response)
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
            "there are /livez, /readyz, /health, /metrics and /version\n".into(),
        ),
    }
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
            answer(&Admin { registry: Registry::default(), ready }, &Method::GET, "/readyz").status()
        };
        assert_eq!(check(true), StatusCode::OK);
        assert_eq!(check(false), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        let admin = Admin { registry: Registry::default(), ready: Vec::new() };
        assert_eq!(answer(&admin, &Method::GET, "/metrics").status(), StatusCode::OK);
        assert_eq!(answer(&admin, &Method::GET, "/nope").status(), StatusCode::NOT_FOUND);
        assert_eq!(answer(&admin, &Method::POST, "/livez").status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
