//! A socket with its two buffers: what was read and not yet used, and what is to be written.
//!
//! Polled by hand, because one task reads the body of a request and writes its response at the same time.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use super::pool;
use super::rewound::Rewound;

/// Bytes asked of the socket at once.
pub(crate) const READ_BYTES: usize = 8 << 10;
/// When less room than this is left in the buffer it gets a new block: so no block is pinned by a few bytes of it.
pub(crate) const READ_LEAST_BYTES: usize = 1 << 10;
/// Up to this size pieces are copied behind the head or the chunk size, and go out in the same write. Larger ones are
/// written from where they are.
pub(crate) const COPY_BYTES: usize = 4 << 10;
/// What is staged at most before it is written.
const STAGED_BYTES: usize = 64 << 10;

/// What a connection runs on.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether what passes is encrypted.
    const SECURE: bool = false;

    /// Makes the coming end a reset. For bodies that end with the connection, where a clean end would look complete.
    fn reset_on_close(&mut self);

    /// The end follows what is written from now on, at once: what is written may wait for it.
    fn end_follows(&mut self) {}

    /// Sends `head` and after it `body` without a copy of the body, where it lies in pages that allow that. `more`: something
    /// follows. Nothing: they have to be written, as they have to where this is not a socket.
    fn poll_send(
        &mut self,
        _cx: &mut Context<'_>,
        _head: &[u8],
        _body: &Bytes,
        _more: bool,
    ) -> Option<Poll<io::Result<usize>>> {
        None
    }
}

/// See the head of this file.
pub(crate) struct Wire<T> {
    io: T,
    /// Read, not yet used.
    pub(crate) input: BytesMut,
    /// To be written.
    pub(crate) output: Outbox,
    /// Something was written since the last flush: the transport may still have a part of it.
    is_dirty: bool,
}

impl<T: Transport> Wire<T> {
    pub(crate) fn new(io: T) -> Self {
        Self { io, input: BytesMut::new(), output: Outbox::default(), is_dirty: false }
    }

    /// One read into `input`; 0 at the end of the stream. While there is nothing to read, `input` keeps no buffer.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() == 0 {
            self.input = pool::input();
        }
        if self.input.capacity() - self.input.len() < READ_LEAST_BYTES {
            self.input.reserve(READ_BYTES);
        }
        let filled = tokio_util::io::poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input);
        if filled.is_pending() && self.input.is_empty() {
            pool::give_back_input(std::mem::take(&mut self.input));
        }
        filled
    }

    /// Writes all of `output`.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let written = ready!(self.output.poll_write(&mut self.io, cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.is_dirty = true;
            self.output.advance(written);
        }
        pool::give_back_output(std::mem::take(&mut self.output.staged));
        Poll::Ready(Ok(()))
    }

    /// Writes all of `output`, through whatever buffers the transport has.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.is_dirty = false;
        Poll::Ready(Ok(()))
    }

    /// [`Self::poll_flush`] where something was written: what the transport keeps by itself goes on waiting for that.
    pub(crate) fn poll_settle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.output.is_empty() && !self.is_dirty {
            return Poll::Ready(Ok(()));
        }
        self.poll_flush(cx)
    }

    /// [`Self::poll_flush`] as a future.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Writes all of `output`, and ends the writing direction.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.end_follows();
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// See [`Transport::reset_on_close`].
    pub(crate) fn reset_on_close(&mut self) {
        self.io.reset_on_close();
    }

    /// The transport, for another protocol; what was read and not used is read again.
    pub(crate) fn into_rewound(self) -> Rewound<T> {
        Rewound::new(self.input.freeze(), self.io)
    }
}

/// What is to be written: copied bytes, then one large piece, then what ends that piece.
#[derive(Default)]
pub(crate) struct Outbox {
    staged: Vec<u8>,
    staged_written: usize,
    piece: Bytes,
    tail: &'static [u8],
}

impl Outbox {
    /// Where heads and small pieces are copied to. Only while [`Outbox::is_full`] says no.
    pub(crate) fn staged(&mut self) -> &mut Vec<u8> {
        if self.staged.capacity() == 0 {
            self.staged = pool::output();
        }
        &mut self.staged
    }

    /// Adds data and what follows it, copied if it is small.
    pub(crate) fn push(&mut self, data: Bytes, tail: &'static [u8]) {
        if data.len() <= COPY_BYTES {
            self.staged.extend_from_slice(&data);
            self.staged.extend_from_slice(tail);
        } else {
            (self.piece, self.tail) = (data, tail);
        }
    }

    /// Whether it has to be written before more is added.
    pub(crate) fn is_full(&self) -> bool {
        !self.piece.is_empty() || !self.tail.is_empty() || self.staged.len() >= STAGED_BYTES
    }

    /// Whether there is nothing to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.staged.is_empty() && self.piece.is_empty() && self.tail.is_empty()
    }

    fn poll_write<T: Transport>(&self, io: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let staged = self.staged.get(self.staged_written..).unwrap_or_default();
        if self.piece.is_empty() && self.tail.is_empty() {
            return Pin::new(io).poll_write(cx, staged);
        }
        if let Some(sent) = io.poll_send(cx, staged, &self.piece, !self.tail.is_empty()) {
            return sent;
        }
        let slices = [IoSlice::new(staged), IoSlice::new(&self.piece), IoSlice::new(self.tail)];
        Pin::new(io).poll_write_vectored(cx, &slices)
    }

    fn advance(&mut self, mut written: usize) {
        let staged = written.min(self.staged.len() - self.staged_written);
        self.staged_written += staged;
        written -= staged;
        if self.staged_written == self.staged.len() {
            self.staged.clear();
            self.staged_written = 0;
        }
        let piece = written.min(self.piece.len());
        self.piece.advance(piece);
        self.tail = self.tail.get(written - piece..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::ReadBuf;

    use super::*;

    /// Takes everything at once, and passes it on when it is flushed, in the second attempt.
    #[derive(Default)]
    struct Keeping {
        flushes: usize,
    }

    impl AsyncRead for Keeping {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Keeping {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }
        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            if self.flushes.is_multiple_of(2) { Poll::Ready(Ok(())) } else { Poll::Pending }
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Transport for Keeping {
        fn reset_on_close(&mut self) {}
    }

    #[test]
    fn what_the_transport_keeps_is_flushed_until_it_is_out_and_not_before_something_was_written() {
        let (mut wire, cx) = (Wire::new(Keeping::default()), &mut Context::from_waker(std::task::Waker::noop()));
        assert!(wire.poll_settle(cx).is_ready() && wire.io.flushes == 0);
        wire.output.staged().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        assert!(wire.poll_settle(cx).is_pending() && wire.output.is_empty());
        assert!(wire.poll_settle(cx).is_ready() && wire.io.flushes == 2);
        assert!(wire.poll_settle(cx).is_ready() && wire.io.flushes == 2);
    }
}
