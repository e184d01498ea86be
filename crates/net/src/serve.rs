//! The accept loop: HTTP/1.1 connections with limits, and a drain at the end.
//!
//! Life of a listener: accept → (at most `connections` at once) → hyper serves requests one after the other → on
//! shutdown no new connection is taken, idle ones close, busy ones finish their request, and after `drain_ms` what is
//! left is cut off.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::body::BodyError;
use crate::stall::StallGuard;

/// What a listener allows.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Connections at once; further ones wait in the kernel's backlog.
    pub connections: usize,
    /// For the head of a request, and for an idle connection, in milliseconds.
    pub head_ms: u64,
    /// Bytes of the head of a request. hyper answers 431 beyond it.
    pub head_bytes: usize,
    /// Fields in the head of a request. hyper answers 431 beyond it.
    pub head_fields: usize,
    /// For a write that makes no progress, in milliseconds.
    pub stall_ms: u64,
    /// For requests in progress at shutdown, in milliseconds.
    pub drain_ms: u64,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            head_ms: 30_000,
            head_bytes: 64 << 10,
            head_fields: 100,
            stall_ms: 60_000,
            drain_ms: 10_000,
        }
    }
}

/// The address of the client, in the extensions of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// How long to rest after an accept failed (out of descriptors, for example), in milliseconds.
const ACCEPT_REST_MS: u64 = 50;

/// Serves HTTP/1.1 on `listener` until `shutdown`, then drains and returns.
pub async fn serve<S, B>(listener: TcpListener, service: S, limits: ServerLimits, shutdown: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    let places = Arc::new(Semaphore::new(limits.connections));
    // Dropped with this future, so that whoever ends the role ends its connections, too.
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            Some(_) = tasks.join_next() => continue,
            () = shutdown.cancelled() => break,
        };
        let (stream, peer, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(ACCEPT_REST_MS)).await;
                continue;
            }
        };
        let connection = connection(stream, peer, service.clone(), limits.clone(), shutdown.clone());
        tasks.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop(listener);
    let drained = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_millis(limits.drain_ms), drained).await.is_err() {
        tracing::warn!(connections = tasks.len(), "cut off what did not finish within the drain time");
        tasks.shutdown().await;
    }
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

async fn connection<S, B>(
    stream: TcpStream,
    peer: SocketAddr,
    service: S,
    limits: ServerLimits,
    shutdown: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    // Small answers must not wait for an acknowledgement; a failure only costs latency.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(StallGuard::new(stream, Duration::from_millis(limits.stall_ms)));
    let service = TowerToHyperService::new(WithPeer { inner: service, peer });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.head_ms))
        .max_buf_size(limits.head_bytes)
        .max_headers(limits.head_fields)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

#[derive(Clone)]
struct WithPeer<S> {
    inner: S,
    peer: SocketAddr,
}

impl<S: Service<Request<Incoming>>> Service<Request<Incoming>> for WithPeer<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }
    fn call(&mut self, mut request: Request<Incoming>) -> S::Future {
        request.extensions_mut().insert(Peer(self.peer));
        self.inner.call(request)
    }
}

/// A service from an async function of a request.
pub fn service<F, R, B>(
    handle: F,
) -> impl Service<
    Request<Incoming>,
    Response = Response<B>,
    Error = Infallible,
    Future = BoxFuture<'static, Result<Response<B>, Infallible>>,
> + Clone
+ Send
+ 'static
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<B>> + Send + 'static,
{
    Closure(handle)
}

#[derive(Clone)]
struct Closure<F>(F);

impl<F, R, B> Service<Request<Incoming>> for Closure<F>
where
    F: Fn(Request<Incoming>) -> R,
    R: Future<Output = Response<B>> + Send + 'static,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<B>, Infallible>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let response = (self.0)(request);
        Box::pin(async move { Ok(response.await) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, ClientLimits, HttpClient, bind, read_to_end};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn start(limits: ServerLimits) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = bind("127.0.0.1:0".parse().expect("address")).await.expect("bind");
        let (address, shutdown) = (listener.local_addr().expect("address"), CancellationToken::new());
        let echo = service(|request: Request<Incoming>| async move {
            assert!(request.extensions().get::<Peer>().is_some());
            let body = read_to_end(request.into_body(), 1 << 20).await.expect("body");
            Response::new(Body::full(body))
        });
        let task = tokio::spawn(serve(listener, echo, limits, shutdown.clone()));
        (address, shutdown, task)
    }

    async fn answer_to(address: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connect");
        stream.write_all(head.as_bytes()).await.expect("write");
        let mut answer = Vec::new();
        // A reset after the answer is fine: what was read counts.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn serves_drains_and_returns() {
        let (address, shutdown, task) = start(ServerLimits::default()).await;
        let client = HttpClient::new(ClientLimits::default());
        let request = Request::post(format!("http://{address}/")).body(Body::full("hello")).expect("request");
        let response = client.send(request).await.expect("response");
        assert_eq!(read_to_end(response.into_body(), 100).await.expect("body"), "hello");
        shutdown.cancel();
        task.await.expect("drained");
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn heads_are_bounded_in_bytes_fields_and_time() {
        let limits = ServerLimits { head_bytes: 8 << 10, head_fields: 10, head_ms: 100, ..ServerLimits::default() };
        let (address, _shutdown, _task) = start(limits).await;
        let ten = (0..9).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
        let good = format!("GET / HTTP/1.1\r\nhost: x\r\n{ten}\r\n");
        assert!(answer_to(address, &good).await.starts_with("HTTP/1.1 200"));
        let eleven = format!("GET / HTTP/1.1\r\nhost: x\r\nx-10: y\r\n{ten}\r\n");
        assert!(answer_to(address, &eleven).await.starts_with("HTTP/1.1 431"));
        let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(9 << 10));
        assert!(answer_to(address, &long).await.starts_with("HTTP/1.1 431"));
        // Half a head: the connection is closed without the test having to wait for more than the limit.
        let slow = answer_to(address, "GET / HTTP/1.1\r\nho").await;
        assert!(slow.is_empty() || slow.starts_with("HTTP/1.1 408"), "{slow}");
    }
}
