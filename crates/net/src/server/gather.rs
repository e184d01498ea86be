//! The transport of an HTTP/2 connection as `h2` sees it, and as the connection's task does.
//!
//! Out: `h2` flushes after nearly every frame, which over TLS would be a record and a write for each response. Here its
//! writes are gathered and its flushes are nothing; the task flushes once after it has polled everything there is to poll.
//! In: the frames pass by, and a [`Meter`] counts those that cost work and bring nothing, which `h2` takes without end.
//!
//! One lock covers the transport and its buffers. Both sides live in one task, so nobody ever waits for it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are gathered before they are written.
const GATHERED_BYTES: usize = 64 << 10;
/// Control frames (all but HEADERS and DATA) that a client may send at once without asking for anything.
const CONTROL_FRAMES: u32 = 1_000;
/// Those that it earns with a request,
const FRAMES_PER_REQUEST: u32 = 2;
/// with each 1 KiB that it takes of responses,
const BYTES_PER_FRAME: usize = 1 << 10;
/// and with each second.
const FRAMES_PER_SECOND: u32 = 50;
/// Bytes that a connection begins with before its first frame (RFC 9113 section 3.4).
const PREFACE_BYTES: u32 = 24;
/// Bytes of the head of a frame (RFC 9113 section 4.1).
const HEAD_BYTES: usize = 9;

/// The side of `h2`.
pub(crate) struct Gathered<T>(Arc<Mutex<Inner<T>>>);

/// The side of the connection's task.
pub(crate) struct Valve<T>(Arc<Mutex<Inner<T>>>);

struct Inner<T> {
    io: T,
    out: Vec<u8>,
    written: usize,
    /// Something was written since the last whole flush.
    dirty: bool,
    meter: Meter,
}

/// Both sides of `io`, which begins with HTTP/2's preface.
pub(crate) fn gather<T>(io: T) -> (Gathered<T>, Valve<T>) {
    let inner = Inner { io, out: Vec::new(), written: 0, dirty: false, meter: Meter::new() };
    let inner = Arc::new(Mutex::new(inner));
    (Gathered(Arc::clone(&inner)), Valve(inner))
}

fn lock<T>(inner: &Mutex<Inner<T>>) -> MutexGuard<'_, Inner<T>> {
    // Nothing under this lock leaves its state half-way, even if the transport panics.
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: AsyncWrite + Unpin> Valve<T> {
    /// Writes all that was gathered. Pending: the client does not read as fast.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).poll_flush(cx)
    }

    /// Whether the client sends control frames and nothing else; nothing more is read then.
    pub(crate) fn is_flooded(&self) -> bool {
        lock(&self.0).meter.flooded
    }

    /// Gives the memory of the buffer back.
    pub(crate) fn shrink(&self) {
        let mut inner = lock(&self.0);
        if inner.out.is_empty() {
            inner.out = Vec::new();
        }
    }
}

impl<T: AsyncWrite + Unpin> Inner<T> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            let rest = self.out.get(self.written..).unwrap_or_default();
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
            self.meter.wrote(written);
        }
        self.out.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.dirty {
            ready!(self.poll_drain(cx))?;
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.dirty = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Room for more, at least a byte.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.out.len() >= GATHERED_BYTES {
            ready!(self.poll_drain(cx))?;
        }
        if self.out.capacity() == 0 {
            self.out.reserve_exact(GATHERED_BYTES);
        }
        self.dirty = true;
        Poll::Ready(Ok(GATHERED_BYTES - self.out.len()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gathered<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        if inner.meter.flooded {
            // Never woken for this: the task ends the connection.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut inner.io).poll_read(cx, buf))?;
        inner.meter.see(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gathered<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = lock(&self.0);
        let taken = ready!(inner.poll_room(cx))?.min(buf.len());
        inner.out.extend_from_slice(buf.get(..taken).unwrap_or_default());
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = lock(&self.0);
        let room = ready!(inner.poll_room(cx))?;
        let mut taken = 0;
        for buf in bufs {
            let piece = buf.get(..buf.len().min(room - taken)).unwrap_or_default();
            inner.out.extend_from_slice(piece);
            taken += piece.len();
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing: see the head of this file.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        ready!(inner.poll_flush(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

/// Walks over the heads of the frames that come in.
struct Meter {
    /// Bytes before the next head.
    skip: u32,
    head: [u8; HEAD_BYTES],
    have: usize,
    /// Control frames that may still come.
    left: u32,
    /// Bytes written that have earned no frame yet.
    written: usize,
    /// When `left` was last filled up by time; only looked at when it is used up.
    since: Instant,
    flooded: bool,
}

impl Meter {
    fn new() -> Self {
        Self {
            skip: PREFACE_BYTES,
            head: [0; HEAD_BYTES],
            have: 0,
            left: CONTROL_FRAMES,
            written: 0,
            since: Instant::now(),
            flooded: false,
        }
    }

    fn see(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = (self.skip as usize).min(bytes.len());
            self.skip -= u32::try_from(skipped).unwrap_or(self.skip);
            bytes = bytes.get(skipped..).unwrap_or_default();
            let taken = (HEAD_BYTES - self.have).min(bytes.len());
            let (piece, rest) = bytes.split_at_checked(taken).unwrap_or_default();
            if let Some(room) = self.head.get_mut(self.have..self.have + taken) {
                room.copy_from_slice(piece);
            }
            self.have += taken;
            bytes = rest;
            if self.have == HEAD_BYTES {
                let [high, middle, low, kind, ..] = self.head;
                self.have = 0;
                self.skip = u32::from_be_bytes([0, high, middle, low]);
                self.count(kind);
            }
        }
    }

    fn count(&mut self, kind: u8) {
        match kind {
            // DATA: its flow is bounded, and `h2` counts the small and empty ones.
            0 => {}
            // HEADERS: a request, or a mistake that ends the connection.
            1 => self.earn(FRAMES_PER_REQUEST),
            _ => match self.left.checked_sub(1) {
                Some(left) => self.left = left,
                None => {
                    let seconds = u32::try_from(self.since.elapsed().as_secs()).unwrap_or(u32::MAX);
                    self.since = Instant::now();
                    self.flooded = seconds == 0;
                    self.earn(seconds.saturating_mul(FRAMES_PER_SECOND));
                }
            },
        }
    }

    fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        self.earn(u32::try_from(self.written / BYTES_PER_FRAME).unwrap_or(u32::MAX));
        self.written %= BYTES_PER_FRAME;
    }

    fn earn(&mut self, frames: u32) {
        self.left = self.left.saturating_add(frames).min(CONTROL_FRAMES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![0, 0, u8::try_from(payload).expect("short"), kind, 0, 0, 0, 0, 0];
        frame.resize(HEAD_BYTES + payload, 0xff);
        frame
    }

    #[test]
    fn control_frames_are_counted_wherever_the_bytes_are_cut() {
        let frames = [frame(4, 0), frame(1, 20), frame(6, 8), frame(0, 200), frame(8, 4), frame(3, 4)].concat();
        let bytes = [PREFACE, &frames].concat();
        for size in [1, 2, 7, 8, 9, 10, 33, 500] {
            let mut meter = Meter::new();
            bytes.chunks(size).for_each(|piece| meter.see(piece));
            // Four of them, and the request after the first of them has earned no more than can be kept.
            assert_eq!(meter.left, CONTROL_FRAMES - 3, "{size}");
        }
    }

    #[test]
    fn a_flood_is_one_that_nothing_else_stands_against() {
        let ping = frame(6, 8);
        let mut meter = Meter::new();
        meter.see(PREFACE);
        for _ in 0..CONTROL_FRAMES {
            meter.see(&ping);
        }
        assert!(!meter.flooded);
        meter.see(&frame(1, 1));
        meter.see(&ping);
        meter.see(&ping);
        meter.wrote(BYTES_PER_FRAME - 1);
        meter.wrote(1);
        meter.see(&ping);
        assert!(!meter.flooded);
        meter.since = Instant::now();
        meter.see(&ping);
        assert!(meter.flooded);
    }

    #[test]
    fn time_forgives() {
        let Some(past) = Instant::now().checked_sub(std::time::Duration::from_secs(3)) else { return };
        let mut meter = Meter { left: 0, since: past, ..Meter::new() };
        meter.count(6);
        assert!(!meter.flooded && meter.left >= 3 * FRAMES_PER_SECOND);
    }
}
