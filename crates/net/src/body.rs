//! One body type for requests and responses, so that roles do not name hyper's.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};

/// Why a body broke off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body: nothing, bytes at hand, or a stream.
pub struct Body(Kind);

enum Kind {
    Full(Option<Bytes>),
    Boxed(UnsyncBoxBody<Bytes, BodyError>),
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self(Kind::Full(None))
    }

    /// These bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self(Kind::Full((!bytes.is_empty()).then_some(bytes)))
    }

    /// Bytes as they come, of a length that is not known.
    pub fn stream(stream: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Self {
        Self(Kind::Boxed(StreamBody::new(stream.map(|item| item.map(Frame::data))).boxed_unsync()))
    }

    /// Any other body.
    pub fn wrap<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        Self(Kind::Boxed(body.map_err(Into::into).boxed_unsync()))
    }

    /// Whether all of it is in memory already.
    pub fn is_here(&self) -> bool {
        matches!(self.0, Kind::Full(_))
    }

    /// The same body; it fails with [`ReadError::Idle`] when no bytes arrive for `idle`.
    pub fn with_idle_timeout(self, idle: Duration) -> Self {
        let Kind::Boxed(inner) = self.0 else { return self };
        Self(Kind::Boxed(IdleTimeout { inner, idle, deadline: None }.boxed_unsync()))
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Boxed(body) => Pin::new(body).poll_frame(cx),
        }
    }
    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Boxed(body) => body.is_end_stream(),
        }
    }
    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Boxed(body) => body.size_hint(),
        }
    }
}

struct IdleTimeout {
    inner: UnsyncBoxBody<Bytes, BodyError>,
    idle: Duration,
    deadline: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl http_body::Body for IdleTimeout {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            this.deadline = None;
            return Poll::Ready(frame);
        }
        let idle = this.idle;
        let deadline = this.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        deadline.as_mut().poll(cx).map(|()| Some(Err(ReadError::Idle { ms: idle.as_millis() }.into())))
    }
    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is longer than the caller allows.
    #[error("the body is longer than {max_bytes} bytes")]
    TooLong {
        /// The bound.
        max_bytes: usize,
    },
    /// No bytes arrived for a while.
    #[error("no bytes arrived for {ms} ms")]
    Idle {
        /// How long was waited.
        ms: u128,
    },
    /// The sender or the connection broke off.
    #[error("the body broke off: {0}")]
    Broken(BodyError),
}

/// Reads a whole body of at most `max_bytes` bytes into one buffer of its own.
///
/// # Errors
/// It is longer, or breaks off.
pub async fn read_to_end<B>(body: B, max_bytes: usize) -> Result<Bytes, ReadError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BodyError>,
{
    let mut body = std::pin::pin!(body);
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > max_bytes {
        return Err(ReadError::TooLong { max_bytes });
    }
    let mut buffer = BytesMut::with_capacity(announced);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|e| ReadError::Broken(e.into()))?.into_data() else { continue };
        if buffer.len() + data.len() > max_bytes {
            return Err(ReadError::TooLong { max_bytes });
        }
        buffer.extend_from_slice(&data);
    }
    Ok(buffer.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn read_to_end_is_bounded_at_its_edge() {
        let stream = || Body::stream(futures_util::stream::iter(["ab", "cd"].map(|s| Ok(Bytes::from(s)))));
        assert_eq!(read_to_end(stream(), 4).await.expect("fits"), "abcd");
        assert!(matches!(read_to_end(stream(), 3).await, Err(ReadError::TooLong { max_bytes: 3 })));
        assert!(matches!(read_to_end(Body::full("abcd"), 3).await, Err(ReadError::TooLong { .. })));
        assert_eq!(read_to_end(Body::empty(), 0).await.expect("empty"), "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_body_times_out() {
        let body = Body::stream(futures_util::stream::pending()).with_idle_timeout(Duration::from_secs(5));
        let error = read_to_end(body, 10).await.expect_err("silent");
        assert!(error.to_string().contains("5000 ms"), "{error}");
    }
}
