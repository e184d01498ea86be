//! The client side towards HTTP origins: several servers of one origin, HTTP/1.1 and HTTP/2, with and without TLS.
//!
//! Life of a request: a server is chosen (`balance.rs`, `health.rs`) → a connection is taken from its pool or made
//! (`pool.rs`, `connect.rs`, `tls.rs`, `lease.rs`) → the request is sent and the head of the response awaited
//! (`exchange.rs`, `upload.rs`) → the body is handed out, and holds the connection until its end (`download.rs`). A try
//! that failed is repeated only where that cannot do anything twice: [`Retry`].
//!
//! Absent on purpose: any change to a request or response beyond what the version of HTTP needs. Which headers belong
//! to a connection, and what is cached, is the role's business.

mod balance;
mod config;
mod connect;
mod download;
mod error;
mod exchange;
mod health;
mod lease;
mod meter;
mod pool;
mod probe;
mod tls;
mod upload;

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::body::Body;
use balance::Wheel;
use connect::Target;
use download::{Download, Held};
use exchange::{Failure, Waits, exchange, wants_upgrade};
use health::Health;
use lease::{Connection, Lease};
use pool::{Grant, Pool, Refused, Slot, Want};
use tls::Tls;
use upload::Upload;

pub use config::{HealthCheck, Retry, UpstreamConfig, UpstreamConfigError, UpstreamProtocol, UpstreamServer};
pub use error::UpstreamError;
pub use exchange::Informational;
pub use lease::{RESPONSE_FIELDS, RESPONSE_HEAD_BYTES};
pub use pool::QUEUE_MAX;

/// How often one request is sent at most.
pub const TRIES_MAX: usize = 3;

/// The servers of an origin. Cloning shares them; when the last one is dropped, health checks end and idle connections
/// close, while responses that were handed out go on.
#[derive(Clone)]
pub struct Upstream(Arc<Inner>);

struct Inner {
    servers: Vec<Arc<Server>>,
    wheel: Mutex<Wheel>,
    waits: Waits,
    retry: Retry,
    _probes: Option<JoinSet<()>>,
}

struct Server {
    target: Target,
    pool: Arc<Pool>,
    health: Mutex<Health>,
    active: AtomicUsize,
}

/// A response, once its head is there.
pub struct UpstreamResponse {
    /// As the server sent it; with 101, without a body. Its body fails with an [`UpstreamError`] where it does not come
    /// whole: a clean end is a whole body.
    pub response: Response<Body>,
    /// Who sent it: host and port.
    pub server: String,
    /// With 101: the connection, to speak the new protocol on. No clock watches it.
    pub upgraded: Option<Upgraded>,
}

/// A connection after an upgrade (RFC 9110 § 7.8). It counts as one of the server's connections until it is dropped.
pub struct Upgraded {
    io: TokioIo<hyper::upgrade::Upgraded>,
    _slot: Arc<Slot>,
    _active: Active,
}

/// What is known of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerState {
    /// Host and port.
    pub server: String,
    /// Whether requests go to it. When no server is usable, they go to all.
    pub usable: bool,
    /// Why or why not, in words.
    pub why: String,
    /// Connections that are open or being opened.
    pub connections: usize,
    /// Those of them that nobody uses.
    pub idle: usize,
    /// Requests that have a connection, or are getting one, and whose response has not ended.
    pub active: usize,
    /// Failures of requests in a row.
    pub failures: u32,
}

impl Upstream {
    /// Checks the settings and, with a health check, starts it; that needs a tokio runtime.
    ///
    /// # Errors
    /// See [`UpstreamConfigError`].
    pub fn new(config: UpstreamConfig) -> Result<Self, UpstreamConfigError> {
        for (name, number) in [
            ("connect_ms", config.connect_ms),
            ("first_byte_ms", config.first_byte_ms),
            ("idle_ms", config.idle_ms),
            ("max_connections", u64::from(config.max_connections)),
            ("weight", config.servers.iter().map(|server| u64::from(server.weight)).min().unwrap_or(1)),
        ] {
            if number == 0 {
                return Err(UpstreamConfigError::Zero { name });
            }
        }
        if config.servers.is_empty() {
            return Err(UpstreamConfigError::NoServer);
        }
        let tls = Arc::new(Tls::new(&config)?);
        let connections = usize::try_from(config.max_connections).unwrap_or(usize::MAX);
        let servers = config.servers.iter().map(|server| {
            let target = Target::new(server, &config, &tls)?;
            let pool = Pool::new(connections, target.may_multiplex());
            Ok(Arc::new(Server { target, pool, health: Mutex::default(), active: AtomicUsize::new(0) }))
        });
        let servers = servers.collect::<Result<Vec<_>, UpstreamConfigError>>()?;
        let probe = config.health.map(probe::Probe::new).transpose()?;
        Ok(Self(Arc::new(Inner {
            wheel: Mutex::new(Wheel::new(config.servers.iter().map(|server| server.weight))),
            waits: Waits { first_byte_ms: config.first_byte_ms, idle_ms: config.idle_ms },
            retry: config.retry,
            _probes: probe.map(|probe| probe::start(probe, &servers)),
            servers,
        })))
    }

    /// Sends a request and returns once the head of its response is there, while the body may still be on its way.
    ///
    /// The request's URI is path and query (or `*`), sent byte for byte as it stands; its `Host` is sent as it stands, too
    /// (HTTP/2: as `:authority`), and that of the server where there is none. Its version and extensions are ignored. A
    /// response that comes before the whole request was sent is handed out at once; what is left of the request is sent
    /// until the response ends. `informational` hears of 102, 103 and the like (HTTP/1.1 only: hyper passes over those of
    /// HTTP/2).
    ///
    /// # Errors
    /// See [`UpstreamError`]. Dropping the future closes the connection.
    pub async fn send(
        &self,
        request: Request<Body>,
        informational: Option<Informational>,
    ) -> Result<UpstreamResponse, UpstreamError> {
        let (head, body) = request.into_parts();
        let upload = Upload::new(body);
        let is_safe = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS) && upload.is_empty();
        let mut barred = vec![false; self.0.servers.len()];
        let mut last = UpstreamError::RequestBody;
        for _ in 0..TRIES_MAX {
            let Some((index, server)) = self.choose(&barred) else { break };
            let failure = match self.attempt(server, &head, &upload, informational.as_ref()).await {
                Ok(response) => {
                    server.health().succeeded();
                    return Ok(response);
                }
                Err(failure) => failure,
            };
            if failure.error.blames_server() && !failure.stale {
                server.health().failed(Instant::now(), &failure.error.to_string());
            }
            let again = !failure.error.reached_origin() || (failure.stale && is_safe && self.0.retry == Retry::Safe);
            let lost = matches!(failure.error, UpstreamError::Request { .. });
            // Another server may do better; with a stale connection the same one will.
            if failure.error.is_connect() || matches!(failure.error, UpstreamError::Busy { .. }) {
                if let Some(barred) = barred.get_mut(index) {
                    *barred = true;
                }
            } else {
                server.pool.close_idle();
            }
            last = failure.error;
            if !again || lost {
                break;
            }
        }
        Err(last)
    }

    /// What is known of the servers, in the order of the settings.
    pub fn state(&self) -> Vec<ServerState> {
        let now = Instant::now();
        let state = |server: &Arc<Server>| {
            let health = server.health();
            let (usable, why) = health.verdict(now);
            ServerState {
                server: server.target.name.clone(),
                usable,
                why,
                connections: server.pool.connections(),
                idle: server.pool.idle(),
                active: server.active.load(Ordering::Relaxed),
                failures: health.failures(),
            }
        };
        self.0.servers.iter().map(state).collect()
    }

    /// The next server: of the usable ones, or of all where none is usable, but none that failed this request already.
    fn choose(&self, barred: &[bool]) -> Option<(usize, &Arc<Server>)> {
        let now = Instant::now();
        let is_open = |index: usize| barred.get(index) == Some(&false);
        let usable: Vec<bool> = self.0.servers.iter().map(|server| server.health().is_usable(now)).collect();
        let mut wheel = self.0.wheel.lock().unwrap_or_else(PoisonError::into_inner);
        let index =
            wheel.next(|index| is_open(index) && usable.get(index) == Some(&true)).or_else(|| wheel.next(is_open))?;
        Some((index, self.0.servers.get(index)?))
    }

    /// One try.
    async fn attempt(
        &self,
        server: &Arc<Server>,
        head: &request::Parts,
        upload: &Arc<Upload>,
        informational: Option<&Informational>,
    ) -> Result<UpstreamResponse, Failure> {
        let active = Active::new(server);
        let name = || server.target.name.clone();
        let upgrades = wants_upgrade(&head.headers) && server.target.can_upgrade();
        let lease = self.lease(server, if upgrades { Want::Http1 } else { Want::Any }).await.map_err(Failure::new)?;
        // Taken now: the connection's task ends with the upgrade.
        let slot = match lease.connection() {
            Some(Connection::Http1(connection)) if upgrades => connection.slot(),
            _ => None,
        };
        let (mut response, lease) = exchange(lease, &server.target, head, upload, self.0.waits, informational).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let held = Held { lease, upload: Arc::clone(upload), active };
            let idle_ms = self.0.waits.idle_ms;
            let response = response.map(|body| Body::wrap(Download::new(body, name(), idle_ms, held)));
            return Ok(UpstreamResponse { response, server: name(), upgraded: None });
        }
        let broken = |why: String| Failure::new(UpstreamError::BadResponse { server: name(), why });
        let slot = slot.ok_or_else(|| broken("101, though no upgrade was asked for".to_owned()))?;
        let wait = Duration::from_millis(self.0.waits.first_byte_ms);
        let upgraded = tokio::time::timeout(wait, hyper::upgrade::on(&mut response)).await;
        let late = || broken("101, but the request's body had not ended".to_owned());
        let io = upgraded.map_err(|_| late())?.map_err(|error| broken(error.to_string()))?;
        let upgraded = Upgraded { io: TokioIo::new(io), _slot: slot, _active: active };
        Ok(UpstreamResponse { response: response.map(|_| Body::empty()), server: name(), upgraded: Some(upgraded) })
    }

    async fn lease(&self, server: &Server, want: Want) -> Result<Lease, UpstreamError> {
        let name = || server.target.name.clone();
        let wait = Duration::from_millis(self.0.waits.first_byte_ms);
        let busy = |refused| match refused {
            Refused::QueueFull => UpstreamError::Busy { server: name(), why: "as many requests wait as may" },
            Refused::WaitedTooLong => UpstreamError::Busy { server: name(), why: "this request has waited too long" },
        };
        match server.pool.acquire(want, wait).await.map_err(busy)? {
            Grant::Reuse(lease) => Ok(lease),
            Grant::Open(slot) => {
                let (io, is_http2) = server.target.connect(want == Want::Http1).await?;
                let made = Lease::new(io, is_http2, slot).await;
                made.map_err(|error| UpstreamError::Unsent { server: name(), why: error::innermost(&error) })
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for server in &self.servers {
            server.pool.close();
        }
    }
}

impl Server {
    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one request of a server while it lives.
struct Active(Arc<Server>);

impl Active {
    fn new(server: &Arc<Server>) -> Self {
        server.active.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(server))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
