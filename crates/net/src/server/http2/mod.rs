//! HTTP/2 (RFC 9113): the server's side of a connection, in one task for it and all its streams.
//!
//! A round of the task: take every frame that has come; begin the streams that are still wanted then, and let those go on that
//! can; write once what came of all that. A request whose answer is ready is answered while its frame is taken, out of the decoded
//! fields and into the buffer that is written: it is never queued, woken or allocated for.
//!
//! Pure: `frame.rs` (what frames look like), `meter.rs` (counts those that bring nothing), `request.rs` (judges requests), and
//! `hpack` beside this folder. State without I/O: `connection.rs`, `requests.rs`, `streams.rs`. Shells: `respond.rs` (the future of
//! a stream), `body.rs` (the body of a request on its way to the service), and this file. One lock covers the state of a
//! connection; all who lock it live in its task, and hold it for a step, never across a poll.

mod body;
mod connection;
mod frame;
mod meter;
#[cfg(test)]
mod properties;
mod request;
mod requests;
mod respond;
mod streams;
#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

pub(crate) use body::StreamBody;
use connection::{Core, Step};
use frame::Reason;
use respond::{End, Start};
use streams::{Handle, lock};

use super::h1::Timer;
use super::plain::ReadyAnswers;
use super::pool;
use super::wire::{READ_BYTES, READ_LEAST_BYTES, Transport};
use crate::serve::{HttpService, Peer, ServerLimits};

/// Streams that are begun together, once the frames that came with them were taken.
const BEGUN_AT_ONCE: usize = 64;
/// After a mistake the client gets this long to read why, and to close, in milliseconds: closing at once, with bytes unread,
/// would reset the connection and destroy the reason on its way.
const LINGER_MS: u64 = 1_000;
/// Bytes that are read and dropped meanwhile.
const LINGER_BYTES: usize = 1 << 20;

/// Serves a connection that begins with HTTP/2's preface.
pub(crate) async fn run<T: Transport, S: HttpService>(
    io: T,
    peer: SocketAddr,
    service: S,
    ready: Option<Arc<dyn ReadyAnswers>>,
    limits: ServerLimits,
    shutdown: CancellationToken,
) {
    let stall = Duration::from_millis(limits.stall_ms);
    let idle = Timer::new(limits.head_ms);
    let core = Core::new(Peer { address: peer, secure: T::SECURE }, ready, limits);
    let core = Arc::new(Mutex::new(core));
    let mut connection =
        Connection { io, input: BytesMut::new(), core: Arc::clone(&core), is_dirty: true, was_idle: true, idle };
    let answer = move |start, stream| respond::run(start, stream, service.clone(), stall);
    let mut shut_down = pin!(shutdown.cancelled());
    // Dropped with this future: streams end with their connection.
    let mut streams = FuturesUnordered::new();
    let mut spare = None;
    // Begun only when all frames that have come were taken: what the client took back by then costs the service nothing.
    let mut begun: Vec<(Handle, Start)> = Vec::new();
    let (rounds, state) = (&mut connection, Arc::clone(&core));
    let mut round = move |cx: &mut Context<'_>| {
        if !lock(&core).is_draining() && shut_down.as_mut().poll(cx).is_ready() {
            lock(&core).drain();
        }
        loop {
            let mut goes_on = false;
            loop {
                match rounds.poll_step(cx) {
                    Err(end) => return Poll::Ready(end),
                    Ok(Step::More) => break,
                    Ok(Step::Full) => {
                        goes_on = true;
                        break;
                    }
                    Ok(Step::Reset) => goes_on = true,
                    Ok(Step::Request(asked)) => begun.push((Handle::new(&core, asked.stream), Start::Request(asked))),
                    Ok(Step::Body(stream, body)) => begun.push((Handle::new(&core, stream), Start::Body(body))),
                }
                if begun.len() >= BEGUN_AT_ONCE {
                    goes_on = true;
                    break;
                }
            }
            for (stream, start) in begun.drain(..) {
                let end = if stream.is_reset() {
                    drop(stream);
                    Some(End::Reset)
                } else {
                    let mut slot: Slot<_> = spare.take().unwrap_or_default();
                    slot.fill(answer(start, stream));
                    match Pin::new(&mut slot).poll(cx) {
                        Poll::Ready(end) => {
                            spare = Some(slot);
                            Some(end)
                        }
                        Poll::Pending => {
                            streams.push(slot);
                            None
                        }
                    }
                };
                if let Some(Err(reason)) = end.map(|end| lock(&core).ended(end)) {
                    return Poll::Ready(Over::Mistake(reason));
                }
            }
            while !lock(&core).is_full()
                && let Poll::Ready(Some(end)) = streams.poll_next_unpin(cx)
            {
                if let Err(reason) = lock(&core).ended(end) {
                    return Poll::Ready(Over::Mistake(reason));
                }
            }
            match rounds.poll_write(cx) {
                // Who waits for the client to read does nothing else.
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Over::Closed),
                Poll::Ready(Ok(woke)) if woke || goes_on => {}
                Poll::Ready(Ok(_)) => return rounds.poll_end(cx),
            }
        }
    };
    let end = poll_fn(move |cx| {
        let over = ready!(round(cx));
        // Before the streams are dropped, which say nothing any more then.
        lock(&state).end(if let Over::Mistake(reason) = over { Some(reason) } else { None });
        Poll::Ready(over)
    })
    .await;
    connection.close(end).await;
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

/// How a connection ends.
enum Over {
    /// The client closed it, or does not read.
    Closed,
    /// There is nothing more to be done.
    Done,
    /// The client did what it must not.
    Mistake(Reason),
}

/// The connection between its rounds.
struct Connection<T> {
    io: T,
    /// Read, not yet taken.
    input: BytesMut,
    core: Arc<Mutex<Core>>,
    /// The transport may still hold something back.
    is_dirty: bool,
    was_idle: bool,
    idle: Timer,
}

impl<T: Transport> Connection<T> {
    /// Reads and takes frames, up to the first that something is to be done about; [`Step::More`]: nothing more has come.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Result<Step, Over> {
        let mut core = lock(&self.core);
        core.give_windows(cx);
        loop {
            match core.advance(&mut self.input) {
                Ok(Step::More) => {}
                Ok(step) => return Ok(step),
                Err(reason) => return Err(Over::Mistake(reason)),
            }
            if self.input.capacity() == 0 {
                self.input = pool::input();
            }
            if self.input.capacity() - self.input.len() < READ_LEAST_BYTES {
                self.input.reserve(READ_BYTES);
            }
            match tokio_util::io::poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Err(Over::Closed),
                Poll::Pending => {
                    if self.input.is_empty() {
                        pool::give_back_input(std::mem::take(&mut self.input));
                    }
                    return Ok(Step::More);
                }
            }
        }
    }

    /// Writes all there is; whether streams were woken by that. Pending: the client does not read as fast.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut core = lock(&self.core);
        let mut woke = false;
        while !core.to_write().is_empty() {
            self.is_dirty = true;
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, core.to_write()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            woke |= core.wrote(written);
        }
        if self.is_dirty {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.is_dirty = false;
        }
        Poll::Ready(Ok(woke))
    }

    /// Watches the clock where there is nothing to do.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        let mut core = lock(&self.core);
        if core.is_done() {
            return Poll::Ready(Over::Done);
        }
        let is_idle = core.has_no_streams();
        if core.was_asked() || (is_idle && !self.was_idle) {
            self.idle.restart();
        }
        self.was_idle = is_idle;
        if !is_idle {
            return Poll::Pending;
        }
        ready!(self.idle.poll(cx));
        if core.is_draining() || !core.is_open() {
            return Poll::Ready(Over::Done);
        }
        core.drain();
        self.was_idle = false;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ends the connection, so that the client can read what was sent.
    async fn close(mut self, end: Over) {
        if poll_fn(|cx| self.poll_write(cx)).await.is_err() || matches!(end, Over::Closed) {
            return;
        }
        let linger = async {
            let shut = poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await;
            if shut.is_err() || matches!(end, Over::Done) {
                return;
            }
            let mut dropped = 0;
            while dropped < LINGER_BYTES {
                self.input.clear();
                self.input.reserve(READ_BYTES);
                match tokio_util::io::read_buf(&mut self.io, &mut self.input).await {
                    Ok(read @ 1..) => dropped += read,
                    Ok(0) | Err(_) => return,
                }
            }
        };
        // Whoever is still sending then is cut off.
        let _ = tokio::time::timeout(Duration::from_millis(LINGER_MS), linger).await;
    }
}
