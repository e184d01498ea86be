//! The body of a response on its way: with its idle clock, and with the connection that it comes on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::Active;
use super::error::{UpstreamError, innermost};
use super::lease::Lease;
use super::upload::Upload;
use crate::body::BodyError;

/// A response's body. Read to its end, its connection is kept; dropped before, or broken, it is closed.
pub(super) struct Download {
    inner: Incoming,
    server: String,
    idle_ms: u64,
    deadline: Option<Pin<Box<Sleep>>>,
    held: Option<Held>,
}

/// What a response holds until its end.
pub(super) struct Held {
    pub(super) lease: Lease,
    pub(super) upload: Arc<Upload>,
    pub(super) active: Active,
}

impl Download {
    pub(super) fn new(inner: Incoming, server: String, idle_ms: u64, held: Held) -> Self {
        let mut body = Self { inner, server, idle_ms, deadline: None, held: Some(held) };
        if body.inner.is_end_stream() {
            body.finish();
        }
        body
    }

    fn finish(&mut self) {
        let Some(Held { lease, upload, active }) = self.held.take() else { return };
        drop(active);
        if upload.is_finished() {
            lease.finish();
        } else {
            // The server has answered without the rest of the request, so nobody needs it. The connection cannot be used
            // again: the server would take the next request for that rest.
            upload.abandon();
        }
    }

    fn broken(&mut self, error: UpstreamError) -> BodyError {
        self.give_up();
        error.into()
    }

    fn give_up(&mut self) {
        if let Some(held) = self.held.take() {
            held.upload.abandon();
        }
    }
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
            let idle_ms = this.idle_ms;
            let deadline =
                this.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(idle_ms))));
            return deadline.as_mut().poll(cx).map(|()| {
                let server = this.server.clone();
                Some(Err(this.broken(UpstreamError::BodyTimeout { server, ms: idle_ms })))
            });
        };
        this.deadline = None;
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if this.inner.is_end_stream() {
                    this.finish();
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                let (server, why) = (this.server.clone(), innermost(&error));
                Some(Err(this.broken(UpstreamError::ClosedEarly { server, why })))
            }
            None => {
                this.finish();
                None
            }
        })
    }
    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.give_up();
    }
}
