//! The body of a request on its way: lent to one try after the other as long as nothing of it was taken, watched for
//! progress, and given up when the response no longer needs it.
//!
//! The lock covers the body and its state; it is held only while one frame is polled.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use crate::body::{Body, BodyError};

/// The body, as the sender of the request sees it.
pub(super) struct Upload(Mutex<State>);

struct State {
    body: Body,
    /// Counts the tries, so that one that was given up cannot touch the body any more.
    attempt: u32,
    /// Something of it was taken: it cannot be sent from the beginning again.
    begun: bool,
    /// All of it was taken, or no more is wanted.
    finished: bool,
    failed: bool,
    abandoned: bool,
    /// The connection wants a piece, and there is none.
    hungry: bool,
    /// When something happened last.
    moved: Instant,
    waker: Option<Waker>,
}

/// How far it is.
pub(super) enum Progress {
    /// All was taken, at this time.
    Finished(Instant),
    /// The connection waits for the client, since then.
    Hungry(Instant),
    /// The connection takes no more, since then.
    Full(Instant),
}

impl Upload {
    pub(super) fn new(body: Body) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            body,
            attempt: 0,
            begun: false,
            finished: false,
            failed: false,
            abandoned: false,
            hungry: false,
            moved: Instant::now(),
            waker: None,
        })))
    }

    /// Whether there is no body at all.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.state();
        !state.begun && state.body.is_end_stream()
    }

    /// The body for a try; none when something of it was taken before.
    pub(super) fn lend(self: &Arc<Self>) -> Option<UploadBody> {
        let mut state = self.state();
        if state.begun {
            return None;
        }
        state.attempt += 1;
        state.finished = state.body.is_end_stream();
        state.hungry = false;
        state.moved = Instant::now();
        Some(UploadBody { upload: Arc::clone(self), attempt: state.attempt })
    }

    pub(super) fn progress(&self) -> Progress {
        let state = self.state();
        match state {
            _ if state.finished => Progress::Finished(state.moved),
            _ if state.hungry => Progress::Hungry(state.moved),
            _ => Progress::Full(state.moved),
        }
    }

    /// Whether the client's side broke off.
    pub(super) fn has_failed(&self) -> bool {
        self.state().failed
    }

    /// Whether all of it was taken.
    pub(super) fn is_finished(&self) -> bool {
        self.state().finished
    }

    /// No more of it is wanted: the connection that still sends it breaks off.
    pub(super) fn abandon(&self) {
        let waker = {
            let mut state = self.state();
            state.abandoned = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body, as the connection sees it.
pub(super) struct UploadBody {
    upload: Arc<Upload>,
    attempt: u32,
}

impl http_body::Body for UploadBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.upload.state();
        if state.abandoned || state.attempt != self.attempt {
            return Poll::Ready(Some(Err("no more of the request's body is wanted".into())));
        }
        let frame = Pin::new(&mut state.body).poll_frame(cx);
        // Being asked is progress, too: until now the connection had no room.
        if !state.hungry {
            state.moved = Instant::now();
        }
        state.hungry = frame.is_pending();
        match &frame {
            Poll::Pending => state.waker = Some(cx.waker().clone()),
            Poll::Ready(frame) => {
                state.moved = Instant::now();
                state.begun = true;
                state.failed |= matches!(frame, Some(Err(_)));
                state.finished |= frame.is_none() || state.body.is_end_stream();
            }
        }
        frame
    }
    fn is_end_stream(&self) -> bool {
        self.upload.state().body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.upload.state().body.size_hint()
    }
}

impl Drop for UploadBody {
    /// The connection lets go of a body when its length is reached, without asking for the end.
    fn drop(&mut self) {
        let mut state = self.upload.state();
        if state.attempt == self.attempt && !state.finished {
            state.finished = true;
            state.moved = Instant::now();
        }
    }
}
