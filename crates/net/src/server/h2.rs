//! HTTP/2 over the `h2` crate, in one task for a connection and all its streams.
//!
//! `h2` refuses what RFC 9113 calls malformed (order of pseudo-fields, upper case, fields about the connection, a length
//! that does not match). Here stands what it leaves open: the same judgement of target, host and length as in HTTP/1, and
//! bounds on what a client may make us do.
//!
//! A round of the task: take every request that has come, and try to answer it at once; let the streams go on that can; write
//! once what came of all that (`gather.rs`). A stream whose answer is there at once is never queued, woken or allocated for.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::Reason;
use h2::server::{Builder, Connection};
use http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::body::Incoming;
use super::gather::{self, Gathered, Valve};
use super::h1::Timer;
use super::plain::ReadyAnswers;
use super::stream::{self, End, Shared, Start};
use super::wire::Transport;
use crate::body::BodyError;
use crate::serve::{Peer, ServerLimits};

/// Bytes of a request body that its client may send ahead: the window of a stream.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// The same for all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes of responses that are buffered for one stream.
const SEND_BUFFER_BYTES: usize = 32 << 10;
/// Streams that the client reset and we have not looked at yet.
const UNSEEN_RESETS: usize = 20;
/// Streams that we reset because of the client's mistakes.
const MISTAKES: usize = 100;
/// A connection that has been quiet for so long gives its buffers back, in milliseconds.
const SHRINK_MS: u64 = 1_000;

/// Serves a connection that begins with HTTP/2's preface.
pub(crate) async fn run<T, S, B>(
    io: T,
    peer: SocketAddr,
    service: S,
    ready: Option<Arc<dyn ReadyAnswers>>,
    limits: ServerLimits,
    shutdown: CancellationToken,
) where
    T: Transport,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    let (io, valve) = gather::gather(io);
    let within = Duration::from_millis(limits.head_ms);
    let mut handshake = pin!(builder(&limits).handshake::<_, Bytes>(io));
    let handshake = poll_fn(|cx| {
        let connection = handshake.as_mut().poll(cx);
        // What goes wrong here the handshake comes to see, too.
        let _ = valve.poll_flush(cx);
        connection
    });
    let Ok(Ok(connection)) = tokio::time::timeout(within, handshake).await else { return };
    let shared = Arc::new(Shared { peer: Peer { address: peer, secure: T::SECURE }, ready, limits });
    let mut state = State::new(connection, valve, &shared);
    let for_streams = Arc::clone(&shared);
    let answer = move |start| stream::run(start, service.clone(), Arc::clone(&for_streams));
    let mut shut_down = pin!(shutdown.cancelled());
    // Dropped with this future: streams end with their connection.
    let mut streams = FuturesUnordered::new();
    let mut spare = None;
    poll_fn(move |cx| {
        if !state.draining && shut_down.as_mut().poll(cx).is_ready() {
            state.drain();
        }
        // Where the client does not read what there is already, nobody makes more.
        state.blocked = state.blocked && ready_or_failed(&state.valve, cx).is_pending();
        for last in [false, true] {
            while let Poll::Ready(accepted) = state.connection.poll_accept(cx) {
                let (request, respond) = match accepted {
                    Some(Ok(accepted)) => accepted,
                    Some(Err(error)) => {
                        tracing::debug!(%peer, %error, "connection ended");
                        return Poll::Ready(());
                    }
                    None => return Poll::Ready(()),
                };
                let start = if state.blocked {
                    Start::Request(Box::new((request, respond)))
                } else {
                    match stream::at_once(request, respond, &shared) {
                        Ok(end) => {
                            state.ended(&end);
                            continue;
                        }
                        Err(start) => start,
                    }
                };
                let mut slot: Slot<_> = spare.take().unwrap_or_default();
                slot.fill(answer(start));
                match if state.blocked { Poll::Pending } else { Pin::new(&mut slot).poll(cx) } {
                    Poll::Ready(end) => {
                        state.ended(&end);
                        spare = Some(slot);
                    }
                    Poll::Pending => streams.push(slot),
                }
            }
            if last || (state.is_calm() && (streams.is_empty() || state.blocked)) {
                break;
            }
            while !state.blocked
                && let Poll::Ready(Some(end)) = streams.poll_next_unpin(cx)
            {
                state.ended(&end);
            }
            // Then once more to the connection, so that what the streams had to say goes out with this round.
        }
        state.poll_end(cx, streams.is_empty())
    })
    .await;
}

/// A stream's place, to be used again.
struct Slot<F>(Pin<Box<Option<F>>>);

impl<F> Default for Slot<F> {
    fn default() -> Self {
        Self(Box::pin(None))
    }
}

impl<F> Slot<F> {
    fn fill(&mut self, stream: F) {
        self.0.set(Some(stream));
    }
}

impl<F: Future<Output = End>> Future for Slot<F> {
    type Output = End;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let Some(stream) = self.0.as_mut().as_pin_mut() else { return Poll::Ready(End::Answered) };
        let end = ready!(stream.poll(cx));
        self.0.set(None);
        Poll::Ready(end)
    }
}

/// The connection between its rounds.
struct State<T: Transport> {
    connection: Connection<Gathered<T>, Bytes>,
    valve: Valve<T>,
    peer: SocketAddr,
    draining: bool,
    /// The client does not read as fast as we write.
    blocked: bool,
    /// The client was told to calm down; the connection is about to end.
    calmed: bool,
    resets: usize,
    resets_allowed: usize,
    was_idle: bool,
    idle: Timer,
    /// Until the buffers are given back; nothing: they are.
    quiet: Option<Timer>,
}

impl<T: Transport> State<T> {
    fn new(connection: Connection<Gathered<T>, Bytes>, valve: Valve<T>, shared: &Shared) -> Self {
        Self {
            connection,
            valve,
            peer: shared.peer.address,
            draining: false,
            blocked: false,
            calmed: false,
            resets: 0,
            resets_allowed: shared.limits.h2_resets,
            was_idle: false,
            idle: Timer::new(shared.limits.head_ms),
            quiet: None,
        }
    }

    fn drain(&mut self) {
        self.draining = true;
        self.connection.graceful_shutdown();
    }

    fn ended(&mut self, end: &End) {
        // Each stream that ends well forgives a reset: who resets more than that is attacking (CVE-2023-44487), and so is
        // who lets responses stand still.
        match end {
            End::Reset | End::Stalled => self.resets += 1,
            End::Answered => self.resets = self.resets.saturating_sub(1),
        }
        if self.resets > self.resets_allowed {
            self.calm("too many streams reset or left standing");
        }
    }

    /// Nothing to object to. Where a flood comes in, the connection is ended.
    fn is_calm(&mut self) -> bool {
        let flooded = self.valve.is_flooded();
        if flooded {
            self.calm("a flood of control frames");
        }
        !flooded
    }

    fn calm(&mut self, why: &'static str) {
        if !std::mem::replace(&mut self.calmed, true) {
            tracing::debug!(peer = %self.peer, why, "connection ended");
            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        }
    }

    /// Writes what came of a round, and watches the clock where there is nothing to do. Ready: the connection is over.
    fn poll_end(&mut self, cx: &mut Context<'_>, no_streams: bool) -> Poll<()> {
        self.blocked = match self.valve.poll_flush(cx) {
            Poll::Ready(Ok(())) => false,
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Pending => true,
        };
        let idle = no_streams && !self.blocked;
        if idle && !std::mem::replace(&mut self.was_idle, idle) {
            self.idle.restart();
            self.quiet.get_or_insert_with(|| Timer::new(SHRINK_MS)).restart();
        }
        self.was_idle = idle;
        if !idle {
            return Poll::Pending;
        }
        if self.quiet.as_mut().is_some_and(|quiet| quiet.poll(cx).is_ready()) {
            self.valve.shrink();
            self.quiet = None;
        }
        ready!(self.idle.poll(cx));
        if self.draining {
            return Poll::Ready(());
        }
        self.drain();
        self.was_idle = false;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

fn ready_or_failed<T: Transport>(valve: &Valve<T>, cx: &mut Context<'_>) -> Poll<()> {
    // A failure comes again when the round ends.
    valve.poll_flush(cx).map(|_| ())
}

fn builder(limits: &ServerLimits) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(UNSEEN_RESETS)
        .max_local_error_reset_streams(Some(MISTAKES));
    builder
}
