//! The accept loop: connections with limits, and a drain at the end.
//!
//! Life of a listener: accept → (at most `connections` at once) → `server` speaks HTTP on each → on shutdown the
//! connections that wait in the kernel are still taken (with SO_REUSEPORT a socket that closes takes its queue with it), then
//! the socket closes; idle connections close, busy ones finish their request, and after `drain_ms` what is left is cut off.
//!
//! Where it has [workers](Listener::Workers), each is a thread with a runtime of its own (`workers.rs`), and a connection
//! stays on the thread that accepted it: nothing of a request crosses to another core unless it misses.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::body::BodyError;
use crate::door::{Door, Doors};
use crate::listen::{self, BACKLOG, Listener};
use crate::server::{Incoming, ReadyAnswers};
use crate::workers;

/// What a listener allows.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Connections at once; further ones wait in the kernel's backlog.
    pub connections: usize,
    /// For the head of a request from its first byte to its last, and for an idle connection, in milliseconds.
    pub head_ms: u64,
    /// Bytes of the head of a request; 431 beyond it.
    pub head_bytes: usize,
    /// Fields in the head of a request; 431 beyond it.
    pub head_fields: usize,
    /// Bytes of the target of a request; 414 beyond it.
    pub target_bytes: usize,
    /// Streams at once on an HTTP/2 connection; further ones are refused, to be tried again.
    pub h2_streams: u32,
    /// Streams that an HTTP/2 client may reset beyond those that it lets us answer; then its connection is closed.
    pub h2_resets: usize,
    /// For a write that makes no progress, and for a client that stops in the middle of its body (HTTP/1: 408), in
    /// milliseconds.
    pub stall_ms: u64,
    /// For requests in progress at shutdown, in milliseconds.
    pub drain_ms: u64,
    /// For idle HTTP/1 connections at shutdown, in milliseconds, and never more than `drain_ms`: a request that is on its way
    /// is answered, and told that it was the last one. 0: they are closed at once.
    pub drain_idle_ms: u64,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            head_ms: 30_000,
            head_bytes: 64 << 10,
            head_fields: 100,
            target_bytes: 16 << 10,
            h2_streams: 128,
            h2_resets: 100,
            stall_ms: 60_000,
            drain_ms: 10_000,
            drain_idle_ms: 0,
        }
    }
}

/// The other end of the connection that a request came on, in the extensions of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The address of the client; behind a proxy that speaks the PROXY protocol, as that proxy says.
    pub address: SocketAddr,
    /// Whether it speaks TLS to us.
    pub secure: bool,
}

/// What answers requests: every service of this kind is one.
pub trait HttpService:
    Service<
        Request<Incoming>,
        Response = Response<<Self as HttpService>::Body>,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + 'static
{
    /// Of its responses.
    type Body: http_body::Body<Data = Bytes, Error: Into<BodyError>> + Send + 'static;
}

impl<S, B> HttpService for S
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    type Body = B;
}

/// How long to rest after an accept failed (out of descriptors, for example), in milliseconds.
const ACCEPT_REST_MS: u64 = 50;
/// Connections that are taken from a socket at most before it closes: as many as can wait there. Where others serve the same
/// socket from now on, nobody would ever see its queue empty.
const QUEUE_MAX: u32 = BACKLOG;

/// Serves plain HTTP/1.1, and HTTP/2 with prior knowledge, on `listener` until `shutdown`, then drains and returns. Dropped
/// before, it cuts everything off.
pub async fn serve<S: HttpService>(
    listener: impl Into<Listener>,
    service: S,
    limits: ServerLimits,
    shutdown: CancellationToken,
) {
    serve_doors(Doors::from(listener.into()), service, None, limits, shutdown).await;
}

/// [`serve`] on several listeners, each with its door, which have the limits together. `ready`: answers plain reads at once.
/// The first workers of all listeners are one thread, and so are the second ones, and so on.
pub async fn serve_doors<S: HttpService>(
    doors: Doors,
    service: S,
    ready: Option<Arc<dyn ReadyAnswers>>,
    limits: ServerLimits,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let serving = Serving { service, ready, limits, places, shutdown };
    let (mut here, mut threads) = (Vec::new(), Vec::<Vec<(std::net::TcpListener, Door)>>::new());
    for (listener, door) in doors.0 {
        match listener {
            Listener::Here(listener) => here.push(serving.clone().on(listener, door)),
            Listener::Workers(sockets) => {
                threads.resize_with(threads.len().max(sockets.len()), Vec::new);
                threads.iter_mut().zip(sockets).for_each(|(thread, socket)| thread.push((socket, door.clone())));
            }
        }
    }
    let lives = threads.into_iter().map(|sockets| {
        let serving = serving.clone();
        async move {
            let on = sockets.into_iter().map(|(socket, door)| {
                let serving = serving.clone();
                async move {
                    match TcpListener::from_std(socket) {
                        Ok(listener) => serving.on(listener, door).await,
                        Err(error) => tracing::error!(%error, "a worker cannot use its socket"),
                    }
                }
            });
            join_all(on).await;
        }
    });
    let workers = workers::run(lives.collect());
    drop(serving);
    tokio::join!(join_all(here), workers);
}

/// What the sockets of a listener share.
#[derive(Clone)]
struct Serving<S> {
    service: S,
    ready: Option<Arc<dyn ReadyAnswers>>,
    limits: ServerLimits,
    /// For connections on all sockets together.
    places: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl<S: HttpService> Serving<S> {
    /// Serves on one socket.
    async fn on(self, listener: TcpListener, door: Door) {
        let Self { service, ready, limits, places, shutdown } = self;
        let (drain_ms, stopped) = (limits.drain_ms, shutdown.clone());
        let mut begin = move |(stream, peer, place): Accepted, tasks: &mut JoinSet<()>| {
            // Small answers must not wait for an acknowledgement; a failure only costs latency.
            let _ = stream.set_nodelay(true);
            listen::for_this_machine(&stream, peer);
            // A token of its own, because all waiting connections would meet at the lock of a common one.
            let (service, ready, shutdown) = (service.clone(), ready.clone(), shutdown.child_token());
            let connection = door.clone().serve(stream, peer, service, ready, limits.clone(), shutdown);
            // Once more in a box: what a task awaits it holds twice, before and while.
            let connection = Box::pin(connection);
            tasks.spawn(async move {
                connection.await;
                drop(place);
            });
        };
        // Dropped with this future, so that whoever ends the role ends its connections, too.
        let mut tasks = JoinSet::new();
        let (mut waiting, mut failing) = (None, false);
        loop {
            let accepted = tokio::select! {
                accepted = accept(&listener, &places, &mut waiting) => accepted,
                Some(_) = tasks.join_next() => continue,
                () = stopped.cancelled() => break,
            };
            match accepted {
                Ok(accepted) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!("connections are accepted again");
                    }
                    accepted.into_iter().for_each(|accepted| begin(accepted, &mut tasks));
                }
                Err(error) => {
                    // Said once, however long it lasts: a log that fills the disk helps nobody.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "no connection can be accepted; trying again every {ACCEPT_REST_MS} ms");
                    }
                    tokio::time::sleep(Duration::from_millis(ACCEPT_REST_MS)).await;
                }
            }
        }
        // Borrowed for this block alone: a service can be sent to another thread, and not be shared with it.
        let (begin, still) = (&mut begin, &mut tasks);
        let drained = async move {
            let mut left = QUEUE_MAX;
            while left > 0 {
                tokio::select! {
                    queued = accept_queued(&listener, &places, &mut waiting) => match queued {
                        Some(queued) => begin(queued, still),
                        None => break,
                    },
                    Some(_) = still.join_next() => continue,
                }
                left -= 1;
            }
            drop(listener);
            while still.join_next().await.is_some() {}
        };
        if tokio::time::timeout(Duration::from_millis(drain_ms), drained).await.is_err() {
            tracing::warn!(connections = tasks.len(), "cut off what did not finish within the drain time");
            tasks.shutdown().await;
        }
    }
}

/// A connection, who it is from, and its place among all.
type Accepted = (TcpStream, SocketAddr, OwnedSemaphorePermit);

/// Accepted, and still without a place.
type Waiting = Option<(TcpStream, SocketAddr)>;

/// The next connection, once there is a place for it. Only then a place is asked for: who waits for a connection keeps none
/// from others. What it has when it is dropped is in `waiting`.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    waiting: &mut Waiting,
) -> std::io::Result<Option<Accepted>> {
    if waiting.is_none() {
        *waiting = Some(listener.accept().await?);
    }
    let place = Arc::clone(places).acquire_owned().await.map_err(std::io::Error::other)?;
    Ok(waiting.take().map(|(stream, peer)| (stream, peer, place)))
}

/// The same of a connection that is in the queue already; nothing: none is.
async fn accept_queued(listener: &TcpListener, places: &Arc<Semaphore>, waiting: &mut Waiting) -> Option<Accepted> {
    if waiting.is_none()
        && let Poll::Ready(Ok(queued)) = poll_fn(|cx| Poll::Ready(listener.poll_accept(cx))).await
    {
        *waiting = Some(queued);
    }
    waiting.as_ref()?;
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    waiting.take().map(|(stream, peer)| (stream, peer, place))
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
