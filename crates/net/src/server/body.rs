//! [`Incoming`], the body of a request, and the pipe through which a connection feeds it.
//!
//! The connection's task pushes into the pipe, whoever has the body takes out of it, wherever that runs. One lock covers
//! the whole state of a pipe; it is held for a few instructions only. Requests without a body, and those whose small body
//! came along with the head, have no pipe.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::http2::StreamBody;
use super::refusal::Refusal;
use crate::body::BodyError;

/// Bytes of a body that are read ahead of whoever takes them; each piece counts a little more than its bytes.
pub(crate) const READ_AHEAD_BYTES: usize = 64 << 10;
/// What a piece counts beyond its bytes, so that many tiny pieces are bounded, too.
const PIECE_BYTES: usize = 64;

/// The body of a request, as it comes from the client; the framing is checked and gone, trailers are dropped.
///
/// Its size is exact where the client said it. Dropping it tells the connection that nobody wants the rest.
pub struct Incoming(Kind);

enum Kind {
    Whole(Option<Bytes>),
    Piped(Reader),
    Stream(Box<StreamBody>),
}

/// Why a body did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyFault {
    #[error("the body of the request is refused: {0}")]
    Refused(Refusal),
    #[error("the client closed the connection before the end of its body")]
    Closed,
    #[error("the response ended before the body of the request was read")]
    Answered,
}

impl Incoming {
    pub(crate) fn empty() -> Self {
        Self(Kind::Whole(None))
    }

    /// A body that is at hand as a whole.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole(Some(bytes)))
    }

    pub(crate) fn stream(body: StreamBody) -> Self {
        Self(Kind::Stream(Box::new(body)))
    }

    /// A body of `length` bytes, if that is known, and the end it is fed from.
    pub(crate) fn piped(length: Option<u64>) -> (Self, Feeder) {
        let pipe = Arc::new(Mutex::new(Pipe::default()));
        (Self(Kind::Piped(Reader { pipe: Arc::clone(&pipe), left: length, ended: false })), Feeder(pipe))
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Piped(reader) => reader.poll_frame(cx),
            Kind::Stream(stream) => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_none(),
            Kind::Piped(reader) => reader.ended || reader.left == Some(0),
            Kind::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let exact = match &self.0 {
            Kind::Whole(bytes) => Some(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Piped(Reader { ended: true, .. }) => Some(0),
            Kind::Piped(reader) => reader.left,
            Kind::Stream(stream) => stream.left(),
        };
        exact.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("size", &self.size_hint()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Pipe {
    pieces: VecDeque<Bytes>,
    /// What the pieces count.
    filled: usize,
    end: Option<Result<(), BodyFault>>,
    reader: Option<Waker>,
    feeder: Option<Waker>,
    /// The body was polled at least once.
    wanted: bool,
    /// The body was dropped.
    gone: bool,
}

fn lock(pipe: &Mutex<Pipe>) -> MutexGuard<'_, Pipe> {
    // Nothing under this lock can panic half-way.
    pipe.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes whoever waits.
pub(crate) fn wake(waiting: Option<Waker>) {
    if let Some(waker) = waiting {
        waker.wake();
    }
}

struct Reader {
    pipe: Arc<Mutex<Pipe>>,
    left: Option<u64>,
    ended: bool,
}

impl Reader {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended || self.left == Some(0) {
            return Poll::Ready(None);
        }
        let mut pipe = lock(&self.pipe);
        let first = !std::mem::replace(&mut pipe.wanted, true);
        if let Some(piece) = pipe.pieces.pop_front() {
            pipe.filled -= piece.len() + PIECE_BYTES;
            let feeder = pipe.feeder.take();
            drop(pipe);
            wake(feeder);
            self.left = self.left.map(|left| left.saturating_sub(piece.len() as u64));
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if let Some(end) = pipe.end {
            self.ended = true;
            return Poll::Ready(end.err().map(|fault| Err(fault.into())));
        }
        pipe.reader = Some(cx.waker().clone());
        let feeder = if first { pipe.feeder.take() } else { None };
        drop(pipe);
        wake(feeder);
        Poll::Pending
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut pipe = lock(&self.pipe);
        pipe.gone = true;
        pipe.pieces.clear();
        wake(pipe.feeder.take());
    }
}

/// The connection's end of a body.
pub(crate) struct Feeder(Arc<Mutex<Pipe>>);

impl Feeder {
    /// How many bytes may be pushed, at least one; `None` when nobody wants them. `only_if_wanted` waits until the body is
    /// polled for the first time.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>, only_if_wanted: bool) -> Poll<Option<usize>> {
        let mut pipe = lock(&self.0);
        if pipe.gone {
            return Poll::Ready(None);
        }
        let room = READ_AHEAD_BYTES.saturating_sub(pipe.filled + PIECE_BYTES);
        if room == 0 || (only_if_wanted && !pipe.wanted) {
            pipe.feeder = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Some(room))
    }

    pub(crate) fn is_gone(&self) -> bool {
        lock(&self.0).gone
    }

    pub(crate) fn push(&self, piece: Bytes) {
        let mut pipe = lock(&self.0);
        if !pipe.gone {
            pipe.filled += piece.len() + PIECE_BYTES;
            pipe.pieces.push_back(piece);
            wake(pipe.reader.take());
        }
    }

    /// Ends the body, if it has not ended yet.
    pub(crate) fn end(&self, end: Result<(), BodyFault>) {
        let mut pipe = lock(&self.0);
        pipe.end.get_or_insert(end);
        wake(pipe.reader.take());
    }
}

impl Drop for Feeder {
    /// A connection that ends in the middle of a body must not leave its reader waiting.
    fn drop(&mut self) {
        self.end(Err(BodyFault::Closed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn room(feeder: &Feeder, only_if_wanted: bool) -> Poll<Option<usize>> {
        feeder.poll_room(&mut Context::from_waker(Waker::noop()), only_if_wanted)
    }

    #[tokio::test]
    async fn pieces_pass_in_order_and_the_size_is_exact() {
        let (mut body, feeder) = Incoming::piped(Some(4));
        assert_eq!(body.size_hint().exact(), Some(4));
        feeder.push(Bytes::from("ab"));
        feeder.push(Bytes::from("cd"));
        feeder.end(Ok(()));
        assert_eq!(body.frame().await.expect("piece").expect("data").into_data().expect("data"), "ab");
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(2), false));
        assert_eq!(body.frame().await.expect("piece").expect("data").into_data().expect("data"), "cd");
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(0), true));
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_lost_connection_is_an_error_and_never_an_end() {
        let (mut body, feeder) = Incoming::piped(None);
        drop(feeder);
        let error = body.frame().await.expect("an error").expect_err("closed");
        assert!(error.to_string().contains("before the end"), "{error}");
        assert!(body.frame().await.is_none() && body.is_end_stream());
    }

    #[tokio::test]
    async fn what_is_read_ahead_is_bounded_however_small_the_pieces() {
        let (mut body, feeder) = Incoming::piped(None);
        assert!(room(&feeder, true).is_pending());
        let mut pieces = 0;
        while room(&feeder, false).is_ready() {
            feeder.push(Bytes::from_static(b"x"));
            pieces += 1;
        }
        assert!(pieces <= READ_AHEAD_BYTES / PIECE_BYTES);
        body.frame().await.expect("piece").expect("data");
        assert!(room(&feeder, true).is_ready());
        drop(body);
        assert_eq!(room(&feeder, true), Poll::Ready(None));
        assert!(feeder.is_gone());
    }
}
