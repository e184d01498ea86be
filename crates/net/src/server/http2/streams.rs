//! The streams of a connection: their windows, and what their answers do.
//!
//! A stream is there from its request until both sides have ended and its future is gone. What its future does goes through a
//! [`Handle`], which locks the connection for each step; the future lives in the connection's own task, so nobody ever waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::body::Feed;
use super::connection::{Core, STREAM_WINDOW_BYTES};
use super::frame::{self, PAYLOAD_BYTES, Reason};
use crate::server::body::{BodyFault, wake};
use crate::server::hpack;

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    send_window: i64,
    receive_window: i64,
    /// By how much that is to be opened.
    owed: u32,
    /// Where its body goes, until the client has sent all of it.
    feed: Option<Feed>,
    /// What is still to come of it, if the client said how much.
    left: Option<u64>,
    /// We have not sent all of the answer.
    is_sending: bool,
    /// One side took it back.
    is_reset: bool,
    /// Its future is there.
    is_held: bool,
    /// It is among those that wait ([`Core::waiting`]).
    is_waiting: bool,
    waker: Option<Waker>,
}

impl Stream {
    /// A new one, whose request is followed by a body if there is a `feed`.
    pub(super) fn new(send_window: i64, feed: Option<Feed>, left: Option<u64>) -> Self {
        Self {
            send_window,
            receive_window: i64::from(STREAM_WINDOW_BYTES),
            owed: 0,
            feed,
            left,
            is_sending: true,
            is_reset: false,
            is_held: true,
            is_waiting: false,
            waker: None,
        }
    }

    pub(super) fn is_reset(&self) -> bool {
        self.is_reset
    }

    pub(super) fn is_receiving(&self) -> bool {
        self.feed.is_some()
    }

    /// Opens (or closes) the window of what we send.
    pub(super) fn open(&mut self, by: i64) -> Result<(), Reason> {
        frame::open(&mut self.send_window, by)?;
        if self.send_window > 0 && !self.is_waiting {
            wake(self.waker.take());
        }
        Ok(())
    }

    /// Takes a piece of the body. Whether anybody wants it.
    ///
    /// # Errors
    /// The mistake that it is.
    pub(super) fn receive(&mut self, content: &[u8], padding: usize) -> Result<bool, Reason> {
        let Some(feed) = &self.feed else { return Err(Reason::StreamClosed) };
        self.receive_window -= i64::try_from(content.len() + padding).unwrap_or(i64::MAX);
        if self.receive_window < 0 {
            return Err(Reason::FlowControl);
        }
        self.owed += u32::try_from(padding).unwrap_or(0);
        if let Some(left) = &mut self.left {
            // More than its length (RFC 9113 section 8.1.1).
            *left = left.checked_sub(content.len() as u64).ok_or(Reason::Protocol)?;
        }
        Ok(feed.push(content))
    }

    /// Whether less came than its length.
    pub(super) fn misses_bytes(&self) -> bool {
        self.left.is_some_and(|left| left > 0)
    }

    pub(super) fn end_receiving(&mut self, end: Result<(), BodyFault>) {
        if let Some(feed) = self.feed.take() {
            feed.end(end);
        }
    }

    pub(super) fn reset(&mut self, fault: BodyFault) {
        self.is_reset = true;
        self.is_sending = false;
        self.end_receiving(Err(fault));
        wake(self.waker.take());
    }

    /// By how much the window of its body is to be opened, if that is at least this much.
    pub(super) fn owed(&mut self, least: u32) -> Option<u32> {
        let (taken, _) = self.feed.as_ref()?.taken();
        self.owed += u32::try_from(taken).unwrap_or(0);
        if self.owed < least {
            return None;
        }
        let owed = std::mem::take(&mut self.owed);
        self.receive_window += i64::from(owed);
        Some(owed)
    }

    fn wait(&mut self, cx: &mut Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
    }
}

impl Core {
    /// Ends a stream with RST_STREAM.
    pub(super) fn reset_stream(&mut self, stream: u32, reason: Reason) {
        if self.is_over() {
            return;
        }
        frame::write_reset(&mut self.out, stream, reason);
        let Some(open) = self.streams.get_mut(&stream).filter(|open| !open.is_reset) else { return };
        let was_receiving = open.is_receiving();
        open.reset(BodyFault::Closed);
        self.reset += 1;
        if was_receiving {
            self.remember(stream);
        }
        self.forget_if_closed(stream);
    }

    /// Where the answer is complete and nobody wants the rest of the request, the client is told (RFC 9113 section 8.1).
    pub(super) fn stop_if_unwanted(&mut self, stream: u32) {
        let Some(open) = self.streams.get(&stream) else { return };
        if !open.is_sending && open.feed.as_ref().is_some_and(|feed| !feed.is_wanted()) {
            self.reset_stream(stream, Reason::NoError);
        }
    }

    /// Forgets a stream of which nothing is left.
    pub(super) fn forget_if_closed(&mut self, stream: u32) {
        let Some(open) = self.streams.get(&stream) else { return };
        if !open.is_held && !open.is_sending && !open.is_receiving() {
            self.reset -= usize::from(open.is_reset);
            self.streams.remove(&stream);
        }
    }

    /// Whether there were any.
    pub(super) fn wake_waiting(&mut self) -> bool {
        let woken = !self.waiting.is_empty();
        for stream in std::mem::take(&mut self.waiting) {
            if let Some(open) = self.streams.get_mut(&stream) {
                open.is_waiting = false;
                wake(open.waker.take());
            }
        }
        woken
    }
}

/// The stream is gone, or has been reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// How much may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing before the client opens a window.
    Window,
    /// Nothing before others' bytes are written.
    Turn,
}

/// A stream as its future has it.
pub(crate) struct Handle {
    core: Arc<Mutex<Core>>,
    stream: u32,
}

/// A connection.
pub(crate) fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    // What a panic leaves half-way under this lock ends with its task.
    core.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handle {
    /// For the future of a stream that was just begun.
    pub(crate) fn new(core: &Arc<Mutex<Core>>, stream: u32) -> Self {
        Self { core: Arc::clone(core), stream }
    }

    /// Whether the stream was taken back, or has ended otherwise.
    pub(crate) fn is_reset(&self) -> bool {
        lock(&self.core).streams.get(&self.stream).is_none_or(Stream::is_reset)
    }

    /// Waits until the stream is reset.
    pub(crate) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<Gone> {
        match lock(&self.core).streams.get_mut(&self.stream) {
            Some(stream) if !stream.is_reset => {
                stream.wait(cx);
                Poll::Pending
            }
            _ => Poll::Ready(Gone),
        }
    }

    /// Sends an informational response.
    pub(crate) fn inform(&self, status: StatusCode, fields: &HeaderMap) {
        // A stream that ended meanwhile needs no hints.
        let _ = self.head(status, fields, false, false);
    }

    /// Sends the head of the response; `ends`: it has no body.
    pub(crate) fn respond(&self, status: StatusCode, fields: &HeaderMap, ends: bool) -> Result<(), Gone> {
        self.head(status, fields, ends, true)
    }

    fn head(&self, status: StatusCode, fields: &HeaderMap, ends: bool, is_final: bool) -> Result<(), Gone> {
        let mut core = lock(&self.core);
        if !core.streams.get(&self.stream).is_some_and(|stream| stream.is_sending) {
            return Err(Gone);
        }
        let start = core.begin_block();
        hpack::status(&mut core.out, status);
        hpack::fields(&mut core.out, fields);
        core.end_block(start, self.stream, ends);
        if ends && is_final {
            core.end_sending(self.stream);
        }
        Ok(())
    }

    /// How much of a body may be sent now.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Result<Room, Gone> {
        let mut core = lock(&self.core);
        let (of_connection, is_full) = (core.send_window, core.is_full());
        let stream = core.streams.get_mut(&self.stream).filter(|stream| stream.is_sending).ok_or(Gone)?;
        let window = stream.send_window.min(of_connection);
        if window > 0 && !is_full {
            return Ok(Room::Bytes(usize::try_from(window).unwrap_or(PAYLOAD_BYTES).min(PAYLOAD_BYTES)));
        }
        stream.wait(cx);
        if stream.send_window > 0 && !std::mem::replace(&mut stream.is_waiting, true) {
            core.waiting.push(self.stream);
        }
        Ok(if window > 0 { Room::Turn } else { Room::Window })
    }

    /// Sends a piece of a body, of at most what there is [room](Self::poll_room) for; `ends`: it is the last one.
    pub(crate) fn data(&self, data: &Bytes, ends: bool) -> Result<(), Gone> {
        let mut core = lock(&self.core);
        let bytes = i64::try_from(data.len()).unwrap_or(i64::MAX);
        let stream = core.streams.get_mut(&self.stream).filter(|stream| stream.is_sending).ok_or(Gone)?;
        stream.send_window -= bytes;
        core.send_window -= bytes;
        frame::write_data(&mut core.out, self.stream, data, ends);
        if ends {
            core.end_sending(self.stream);
        }
        Ok(())
    }

    /// Resets the stream, if it has not ended.
    pub(crate) fn reset(&self, reason: Reason) {
        let mut core = lock(&self.core);
        if core.streams.get(&self.stream).is_some_and(|stream| stream.is_sending) {
            core.reset_stream(self.stream, reason);
        }
    }
}

impl Core {
    fn end_sending(&mut self, stream: u32) {
        if let Some(open) = self.streams.get_mut(&stream) {
            open.is_sending = false;
        }
        self.stop_if_unwanted(stream);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut core = lock(&self.core);
        if let Some(stream) = core.streams.get_mut(&self.stream) {
            stream.is_held = false;
            if stream.is_sending {
                // A future that was cut off.
                core.reset_stream(self.stream, Reason::Internal);
            }
            core.stop_if_unwanted(self.stream);
            core.forget_if_closed(self.stream);
        }
    }
}
