//! A connection in the hands of one request: made by hyper on a socket, driven by a task of its own, given back when the
//! response is over and closed when anything is left undone.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::meter::{Io, Meter, Metered};
use super::pool::{POOL_IDLE_MS, Pool, STREAMS_MAX, Slot};
use super::upload::UploadBody;

/// Bytes of the head of a response.
pub const RESPONSE_HEAD_BYTES: usize = 64 << 10;
/// Fields in the head of a response.
pub const RESPONSE_FIELDS: usize = 256;
/// Bytes read from a connection, or of a request's body taken, ahead of what is passed on.
const BUFFER_BYTES: usize = 64 << 10;
/// How long a connection may take to be ready again after the end of a response, in milliseconds.
const READY_MS: u64 = 1_000;
/// Bytes that an HTTP/2 server may send ahead: for one response, and for all on a connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// How often an HTTP/2 connection is asked for a sign of life, and how long that may take, in milliseconds.
const PING_MS: u64 = 20_000;
const PONG_MS: u64 = 10_000;

/// An HTTP/1.1 connection.
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<UploadBody>,
    pub(super) meter: Arc<Meter>,
    slot: Weak<Slot>,
    _close: DropGuard,
}

impl Http1 {
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// The connection's place, for an upgrade that outlives the connection's task.
    pub(super) fn slot(&self) -> Option<Arc<Slot>> {
        self.slot.upgrade()
    }
}

/// A share of an HTTP/2 connection.
#[derive(Clone)]
pub(super) struct Http2 {
    pub(super) sender: http2::SendRequest<UploadBody>,
    pub(super) id: u64,
    /// Requests at once that the server allows, as far as is known.
    streams_max: Arc<AtomicUsize>,
}

impl Http2 {
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) fn streams_max(&self) -> usize {
        self.streams_max.load(Ordering::Relaxed).clamp(1, STREAMS_MAX)
    }
}

/// A connection for one request. Dropped, it is closed (HTTP/1.1) or its stream is counted off (HTTP/2), except that one
/// on which nothing was sent goes back to the pool.
pub(super) struct Lease {
    pool: Arc<Pool>,
    connection: Option<Connection>,
    /// Whether another request was sent on it before.
    pub(super) reused: bool,
    touched: bool,
}

pub(super) enum Connection {
    Http1(Http1),
    Http2(Http2),
}

impl Lease {
    pub(super) fn http1(pool: Arc<Pool>, connection: Http1, reused: bool) -> Self {
        Self { pool, connection: Some(Connection::Http1(connection)), reused, touched: false }
    }

    pub(super) fn http2(pool: Arc<Pool>, connection: Http2, reused: bool) -> Self {
        Self { pool, connection: Some(Connection::Http2(connection)), reused, touched: false }
    }

    /// Makes a connection of a socket.
    ///
    /// # Errors
    /// The handshake of HTTP failed.
    pub(super) async fn new(io: Box<dyn Io>, is_http2: bool, mut slot: Slot) -> Result<Self, hyper::Error> {
        let pool = Arc::clone(slot.pool());
        let (io, meter) = Metered::new(io);
        if is_http2 {
            let (sender, mut connection) = http2_builder().handshake(TokioIo::new(io)).await?;
            slot.connected();
            let streams_max = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
            let allowed = Arc::clone(&streams_max);
            let connection = std::future::poll_fn(move |cx| {
                let ended = Pin::new(&mut connection).poll(cx);
                allowed.store(connection.current_max_send_streams(), Ordering::Relaxed);
                ended
            });
            static NEXT: AtomicU64 = AtomicU64::new(0);
            let shared = Http2 { sender, id: NEXT.fetch_add(1, Ordering::Relaxed), streams_max };
            tokio::spawn(drive(connection, Arc::new(slot), CancellationToken::new(), Arc::clone(&pool)));
            pool.share(shared.clone());
            return Ok(Self::http2(pool, shared, false));
        }
        let (sender, connection) = http1_builder().handshake(TokioIo::new(io)).await?;
        slot.connected();
        let (slot, close) = (Arc::new(slot), CancellationToken::new());
        let place = Arc::downgrade(&slot);
        tokio::spawn(drive(connection.with_upgrades(), slot, close.clone(), Arc::clone(&pool)));
        pool.does_not_multiplex();
        Ok(Self::http1(pool, Http1 { sender, meter, slot: place, _close: close.drop_guard() }, false))
    }

    /// The connection, to look at.
    pub(super) fn connection(&self) -> Option<&Connection> {
        self.connection.as_ref()
    }

    /// The connection, to send a request on. From now on it goes back only by [`Self::finish`].
    pub(super) fn touch(&mut self) -> Option<&mut Connection> {
        self.touched = true;
        self.connection.as_mut()
    }

    /// The response is over, and nothing of the request is left to send.
    pub(super) fn finish(mut self) {
        match self.connection.take() {
            Some(Connection::Http1(mut connection)) => {
                let pool = Arc::clone(&self.pool);
                // hyper is ready only when its task has seen the end, too.
                tokio::spawn(async move {
                    let wait = Duration::from_millis(READY_MS);
                    if let Ok(Ok(())) = tokio::time::timeout(wait, connection.sender.ready()).await {
                        pool.give_back(connection);
                    }
                });
            }
            connection => self.connection = connection,
        }
    }

    /// The connection takes no more requests, though others on it may go on.
    pub(super) fn retire(self) {
        if let Some(Connection::Http2(connection)) = &self.connection {
            self.pool.forget(connection.id);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match self.connection.take() {
            Some(Connection::Http1(connection)) if !self.touched => self.pool.give_back(connection),
            Some(Connection::Http2(connection)) => self.pool.stream_ended(connection.id),
            Some(Connection::Http1(_)) | None => {}
        }
    }
}

/// Runs a connection until its end, and looks after the pool's idle ones meanwhile.
async fn drive<C>(connection: C, slot: Arc<Slot>, close: CancellationToken, pool: Arc<Pool>)
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let mut connection = std::pin::pin!(connection);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection to an origin ended");
                }
                break;
            }
            () = close.cancelled() => break,
            () = tokio::time::sleep(Duration::from_millis(POOL_IDLE_MS)) => pool.sweep(),
        }
    }
    drop(slot);
}

fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .max_headers(RESPONSE_FIELDS)
        .max_header_size(RESPONSE_HEAD_BYTES)
        .max_buf_size(BUFFER_BYTES);
    builder
}

fn http2_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(RESPONSE_HEAD_BYTES).unwrap_or(u32::MAX))
        .max_send_buf_size(BUFFER_BYTES)
        .keep_alive_interval(Duration::from_millis(PING_MS))
        .keep_alive_timeout(Duration::from_millis(PONG_MS));
    builder
}
