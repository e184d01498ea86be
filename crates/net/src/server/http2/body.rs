//! The body of a request on a stream: the connection puts bytes in, whoever has the body takes them out, wherever that runs,
//! and the windows open by what was taken.
//!
//! One lock covers a body, another what the bodies of a connection have to tell it ([`Taken`]); both are held for a few
//! instructions, and never at once. A body is bounded by the window of its stream: what comes is copied behind what is
//! there, so that it takes no more memory than that, however small the frames.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http_body::Frame;

use crate::body::BodyError;
use crate::server::body::{BodyFault, wake};
use crate::server::informational::Informational;

/// What bodies tell their connection.
#[derive(Debug, Default)]
pub(crate) struct Taken(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// Bytes that were taken since the connection has asked.
    bytes: usize,
    /// Streams that are still open and were taken from.
    streams: Vec<u32>,
    connection: Option<Waker>,
}

impl Taken {
    /// How many bytes were taken, from whichever stream, and which open streams to ask ([`Feed::taken`]); wakes `cx` for more.
    pub(crate) fn ask(&self, cx: &mut Context<'_>) -> (usize, Vec<u32>) {
        let mut told = lock(&self.0);
        if !told.connection.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            told.connection = Some(cx.waker().clone());
        }
        (std::mem::take(&mut told.bytes), std::mem::take(&mut told.streams))
    }

    fn tell(&self, bytes: usize, stream: Option<u32>) {
        let mut told = lock(&self.0);
        told.bytes += bytes;
        told.streams.extend(stream);
        let connection = told.connection.take();
        drop(told);
        wake(connection);
    }
}

#[derive(Debug)]
struct Pipe {
    stream: u32,
    state: Mutex<State>,
    taken: Arc<Taken>,
}

#[derive(Debug, Default)]
struct State {
    bytes: BytesMut,
    /// Bytes taken that the connection has not asked for.
    taken: usize,
    /// The connection was told to ask.
    told: bool,
    end: Option<Result<(), BodyFault>>,
    reader: Option<Waker>,
    /// The body was dropped.
    gone: bool,
}

impl State {
    /// Takes all there is; what the connection is to be told then.
    fn take(&mut self, stream: u32) -> (Bytes, Option<u32>) {
        let bytes = self.bytes.split().freeze();
        self.taken += bytes.len();
        let tells = self.end.is_none() && !std::mem::replace(&mut self.told, true);
        (bytes, tells.then_some(stream))
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can panic half-way.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A body and the end it is fed from. `left`: its length, if the client said it. `at_first_poll`: where the client waits for 100.
pub(crate) fn piped(
    stream: u32,
    left: Option<u64>,
    at_first_poll: Option<Informational>,
    taken: &Arc<Taken>,
) -> (StreamBody, Feed) {
    let pipe = Arc::new(Pipe { stream, state: Mutex::default(), taken: Arc::clone(taken) });
    (StreamBody { pipe: Arc::clone(&pipe), left, ended: false, at_first_poll }, Feed(pipe))
}

/// The body of a request on an HTTP/2 stream. Dropping it tells the connection that nobody wants the rest.
#[derive(Debug)]
pub(crate) struct StreamBody {
    pipe: Arc<Pipe>,
    left: Option<u64>,
    ended: bool,
    at_first_poll: Option<Informational>,
}

impl StreamBody {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(informational) = self.at_first_poll.take() {
            informational.send_continue();
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let mut state = lock(&self.pipe.state);
        if !state.bytes.is_empty() {
            let (bytes, tells) = state.take(self.pipe.stream);
            drop(state);
            self.pipe.taken.tell(bytes.len(), tells);
            self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match state.end {
            Some(end) => {
                self.ended = true;
                Poll::Ready(end.err().map(|fault| Err(fault.into())))
            }
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        let state = lock(&self.pipe.state);
        self.ended || (state.bytes.is_empty() && state.end == Some(Ok(())))
    }

    /// What is still to come, if that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        if self.ended { Some(0) } else { self.left }
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        let mut state = lock(&self.pipe.state);
        state.gone = true;
        let (bytes, tells) = state.take(self.pipe.stream);
        drop(state);
        if tells.is_some() || !bytes.is_empty() {
            self.pipe.taken.tell(bytes.len(), tells);
        }
    }
}

/// The connection's end of a body.
#[derive(Debug)]
pub(crate) struct Feed(Arc<Pipe>);

impl Feed {
    /// Adds bytes; whether anybody wants them.
    pub(crate) fn push(&self, bytes: &[u8]) -> bool {
        let mut state = lock(&self.0.state);
        if !state.gone && !bytes.is_empty() {
            state.bytes.extend_from_slice(bytes);
            wake(state.reader.take());
        }
        !state.gone
    }

    /// Ends the body.
    pub(crate) fn end(self, end: Result<(), BodyFault>) {
        self.set_end(end);
    }

    fn set_end(&self, end: Result<(), BodyFault>) {
        let mut state = lock(&self.0.state);
        state.end.get_or_insert(end);
        wake(state.reader.take());
    }

    /// How many bytes were taken since this was last asked, and whether the body is wanted any longer.
    pub(crate) fn taken(&self) -> (usize, bool) {
        let mut state = lock(&self.0.state);
        state.told = false;
        (std::mem::take(&mut state.taken), !state.gone)
    }

    /// Whether somebody has the body.
    pub(crate) fn is_wanted(&self) -> bool {
        !lock(&self.0.state).gone
    }
}

impl Drop for Feed {
    /// A connection that ends in the middle of a body must not leave its reader waiting.
    fn drop(&mut self) {
        self.set_end(Err(BodyFault::Closed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(body: &mut StreamBody) -> Poll<Option<Result<Bytes, String>>> {
        let frame = body.poll_frame(&mut Context::from_waker(Waker::noop()));
        frame.map(|frame| frame.map(|frame| frame.map_err(|e| e.to_string()).map(|f| f.into_data().expect("data"))))
    }

    fn ask(taken: &Taken) -> (usize, Vec<u32>) {
        taken.ask(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn bytes_pass_and_what_was_taken_is_told_once() {
        let taken = Arc::default();
        let (mut body, feed) = piped(3, Some(5), None, &taken);
        assert!(poll(&mut body).is_pending());
        assert!(feed.push(b"ab") && feed.push(b"c"));
        assert_eq!(poll(&mut body), Poll::Ready(Some(Ok(Bytes::from("abc")))), "small pieces are joined");
        assert_eq!((body.left(), body.is_end_stream()), (Some(2), false));
        feed.push(b"de");
        poll(&mut body).is_ready().then_some(()).expect("the rest");
        assert_eq!((ask(&taken), ask(&taken)), ((5, vec![3]), (0, vec![])));
        assert_eq!((feed.taken(), feed.taken()), ((5, true), (0, true)));
        feed.end(Ok(()));
        assert!(body.is_end_stream());
        assert_eq!(poll(&mut body), Poll::Ready(None));
        drop(body);
        assert_eq!(ask(&taken), (0, vec![]), "of an ended stream nothing is to be told");
    }

    #[test]
    fn who_drops_a_body_gives_its_bytes_back() {
        let taken = Arc::default();
        let (body, feed) = piped(3, None, None, &taken);
        feed.push(b"abc");
        drop(body);
        assert_eq!((ask(&taken), feed.taken()), ((3, vec![3]), (3, false)));
        assert!(!feed.push(b"d") && !feed.is_wanted());
        // The same where it is dropped only after its end.
        let (body, feed) = piped(5, None, None, &taken);
        feed.push(b"abc");
        feed.end(Ok(()));
        drop(body);
        assert_eq!(ask(&taken), (3, vec![]));
    }

    #[test]
    fn a_lost_connection_is_an_error_and_never_an_end() {
        let (mut body, feed) = piped(1, None, None, &Arc::default());
        feed.push(b"ab");
        drop(feed);
        assert_eq!(poll(&mut body), Poll::Ready(Some(Ok(Bytes::from("ab")))));
        let Poll::Ready(Some(Err(error))) = poll(&mut body) else { panic!("an error") };
        assert!(error.contains("before the end"), "{error}");
        assert_eq!(poll(&mut body), Poll::Ready(None));
    }
}
