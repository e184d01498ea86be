//! Frames that bring requests: HEADERS, CONTINUATION, DATA, and RST_STREAM that takes one back.
//!
//! A request whose answer is ready is answered here, out of the decoded fields: it never is a stream.

use http::{Method, Request};

use super::body::piped;
use super::connection::{Core, STREAM_WINDOW_BYTES, Step};
use super::frame::{self, Head, Reason, flag};
use super::request::{self, Fault, Judged};
use super::streams::Stream;
use crate::server::body::{BodyFault, Incoming};
use crate::server::hpack::HpackError;
use crate::server::informational::Informational;
use crate::server::plain::Plain;
use crate::server::refusal::Refusal;

/// CONTINUATION frames of one block of fields (CVE-2024-27316 and its like).
const CONTINUATIONS: u32 = 16;
/// Bytes of a block of fields as it comes in pieces: so many times what is taken of it when it is decoded.
const BLOCK_FACTOR: usize = 2;
/// Bytes of a body that is sent with its head at once.
const AT_ONCE_BYTES: usize = 32 << 10;

/// A block of fields of which there is more to come.
#[derive(Debug)]
pub(crate) struct Fragments {
    pub(super) stream: u32,
    ends: bool,
    bytes: Vec<u8>,
    frames: u32,
}

/// What a client asks for on a stream.
pub(crate) struct Asked {
    pub(crate) stream: u32,
    /// For the service, or why it is not.
    pub(crate) request: Result<Request<Incoming>, Refusal>,
    pub(crate) is_head: bool,
    pub(crate) informational: Informational,
}

impl Core {
    pub(super) fn headers(&mut self, head: Head, payload: &[u8]) -> Result<Option<Step>, Reason> {
        if head.stream.is_multiple_of(2) {
            return Err(Reason::Protocol);
        }
        let fragment = frame::fragment(head, payload).ok_or(Reason::Protocol)?;
        let ends = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.block(head.stream, ends, fragment);
        }
        let fragments = Fragments { stream: head.stream, ends, bytes: Vec::new(), frames: 0 };
        self.keep_fragment(fragments, fragment).map(|()| None)
    }

    pub(super) fn continuation(&mut self, head: Head, payload: &[u8]) -> Result<Option<Step>, Reason> {
        let mut fragments = self.fragments.take().ok_or(Reason::Protocol)?;
        fragments.frames += 1;
        let Fragments { stream, ends, frames, .. } = fragments;
        if frames > CONTINUATIONS {
            return Err(Reason::Calm);
        }
        self.keep_fragment(fragments, payload)?;
        if !head.has(flag::END_HEADERS) {
            return Ok(None);
        }
        let block = self.fragments.take().map(|fragments| fragments.bytes).unwrap_or_default();
        self.block(stream, ends, &block)
    }

    fn keep_fragment(&mut self, mut fragments: Fragments, fragment: &[u8]) -> Result<(), Reason> {
        if fragments.bytes.len() + fragment.len() > BLOCK_FACTOR.saturating_mul(self.limits.head_bytes) {
            return Err(Reason::Calm);
        }
        fragments.bytes.extend_from_slice(fragment);
        self.fragments = Some(fragments);
        Ok(())
    }

    /// A whole block of fields: a request, or trailers.
    fn block(&mut self, stream: u32, ends: bool, block: &[u8]) -> Result<Option<Step>, Reason> {
        // Whatever becomes of it: its table is the connection's.
        self.decoder.decode(block, self.limits.head_bytes).map_err(|error| {
            tracing::debug!(peer = %self.peer.address, %error, "fields cannot be decoded");
            if error == HpackError::Bomb { Reason::Calm } else { Reason::Compression }
        })?;
        if !self.is_idle(stream) {
            return self.trailers(stream, ends).map(|()| None);
        }
        self.last = stream;
        if self.is_late(stream) {
            self.remember(stream);
            return Ok(None);
        }
        let open = self.streams.len() - self.reset;
        if open >= self.limits.h2_streams as usize {
            if self.meter.is_flooded_with_requests() {
                return Err(Reason::Calm);
            }
            self.refuse(stream, ends, Reason::Refused);
            return Ok(None);
        }
        self.meter.asked();
        self.was_asked = true;
        if ends && let Some(step) = self.answer_at_once(stream) {
            return Ok(step);
        }
        self.request(stream, ends)
    }

    /// Trailers, which nobody may rely on: they are dropped, and end the body.
    fn trailers(&mut self, stream: u32, ends: bool) -> Result<(), Reason> {
        let Some(open) = self.streams.get(&stream).filter(|open| !open.is_reset()) else {
            let is_borne = self.is_remembered(stream) || self.streams.contains_key(&stream);
            return if is_borne { Ok(()) } else { Err(Reason::StreamClosed) };
        };
        if !open.is_receiving() {
            return self.mistake(stream, Reason::StreamClosed);
        }
        if !ends || self.decoder.block().is_malformed(true) {
            return self.mistake(stream, Reason::Protocol);
        }
        self.end_body(stream)
    }

    /// Resets a stream that has not become one.
    fn refuse(&mut self, stream: u32, ends: bool, reason: Reason) {
        frame::write_reset(&mut self.out, stream, reason);
        if !ends {
            self.remember(stream);
        }
    }

    /// Answers the request that was decoded, if its answer is ready. Outer nothing: it is not.
    #[expect(clippy::option_option, reason = "the two mean different things")]
    fn answer_at_once(&mut self, stream: u32) -> Option<Option<Step>> {
        // Taken and put back: to count its users would be to write where all cores write.
        let ready = self.ready.take()?;
        let start = self.begin_block();
        let plain = Plain::of_block(self.decoder.block(), self.peer);
        let body = plain.and_then(|plain| ready.answer_block(&plain, &mut self.out));
        self.ready = Some(ready);
        let Some(body) = body else {
            self.out.truncate(start);
            return None;
        };
        self.end_block(start, stream, body.is_empty());
        if body.is_empty() {
            return Some(None);
        }
        let window = self.send_window.min(self.stream_send_window);
        let bytes = i64::try_from(body.len()).unwrap_or(i64::MAX);
        if body.len() > AT_ONCE_BYTES || bytes > window {
            let sending = Stream::new(self.stream_send_window, None, None);
            self.streams.insert(stream, sending);
            return Some(Some(Step::Body(stream, body)));
        }
        self.send_window -= bytes;
        frame::write_data(&mut self.out, stream, &body, true);
        Some(None)
    }

    /// Makes the request that was decoded one for the service.
    fn request(&mut self, stream: u32, ends: bool) -> Result<Option<Step>, Reason> {
        let judged = request::judge(self.decoder.block(), &self.limits);
        let length = judged.as_ref().map_or(None, |judged| judged.length);
        if matches!(judged, Err(Fault::Malformed)) || (ends && length.is_some_and(|length| length > 0)) {
            if !ends {
                self.remember(stream);
            }
            return self.mistake(stream, Reason::Protocol).map(|()| None);
        }
        let is_head = self.decoder.block().method() == Some(b"HEAD");
        let mut queue = Informational::new();
        let informational = queue.next(true);
        let mut feed = None;
        let request = match judged {
            Ok(Judged { request, expects_continue, .. }) => {
                let body = if ends {
                    Incoming::empty()
                } else {
                    let at_first_poll = expects_continue.then(|| informational.clone());
                    let (body, fed) = piped(stream, length, at_first_poll, &self.taken);
                    feed = Some(fed);
                    Incoming::stream(body)
                };
                let mut request = request.map(|()| body);
                request.extensions_mut().insert(self.peer);
                request.extensions_mut().insert(informational);
                Ok(request)
            }
            Err(Fault::Refused(refusal)) => {
                if !ends {
                    // Its body comes into nobody's hands.
                    feed = Some(piped(stream, None, None, &self.taken).1);
                }
                Err(refusal)
            }
            Err(Fault::Malformed) => return Ok(None),
        };
        self.streams.insert(stream, Stream::new(self.stream_send_window, feed, length));
        let is_head = is_head || request.as_ref().is_ok_and(|request| *request.method() == Method::HEAD);
        Ok(Some(Step::Request(Box::new(Asked { stream, request, is_head, informational: queue }))))
    }

    pub(super) fn data(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        let content = frame::unpadded(head, payload).ok_or(Reason::Protocol)?;
        if head.stream == 0 || self.is_idle(head.stream) {
            return Err(Reason::Protocol);
        }
        let ends = head.has(flag::END_STREAM);
        if content.is_empty() && !ends && self.meter.is_flooded() {
            return Err(Reason::Calm);
        }
        let bytes = i64::try_from(payload.len()).unwrap_or(i64::MAX);
        self.receive_window -= bytes;
        if self.receive_window < 0 {
            return Err(Reason::FlowControl);
        }
        let padding = payload.len() - content.len();
        let Some(stream) = self.streams.get_mut(&head.stream).filter(|stream| !stream.is_reset()) else {
            self.owe(payload.len());
            let is_borne = self.is_remembered(head.stream) || self.streams.contains_key(&head.stream);
            return if is_borne { Ok(()) } else { Err(Reason::StreamClosed) };
        };
        match stream.receive(content, padding) {
            // Opened again when the service has taken it.
            Ok(true) => self.owe(padding),
            Ok(false) => self.owe(payload.len()),
            Err(reason) => {
                self.owe(payload.len());
                return self.mistake(head.stream, reason);
            }
        }
        if ends { self.end_body(head.stream) } else { Ok(()) }
    }

    /// The client has sent all of a request.
    fn end_body(&mut self, stream: u32) -> Result<(), Reason> {
        let Some(open) = self.streams.get_mut(&stream) else { return Ok(()) };
        if open.misses_bytes() {
            return self.mistake(stream, Reason::Protocol);
        }
        open.end_receiving(Ok(()));
        self.forget_if_closed(stream);
        Ok(())
    }

    pub(super) fn client_resets(&mut self, head: Head, payload: &[u8]) -> Result<Option<Step>, Reason> {
        if head.stream == 0 || self.is_idle(head.stream) {
            return Err(Reason::Protocol);
        }
        frame::number(payload).ok_or(Reason::FrameSize)?;
        let Some(stream) = self.streams.get_mut(&head.stream).filter(|stream| !stream.is_reset()) else {
            return Ok(None);
        };
        stream.reset(BodyFault::Closed);
        self.reset += 1;
        self.forget_if_closed(head.stream);
        Ok(Some(Step::Reset))
    }

    /// Opens the window of a stream by what was taken of its body.
    pub(super) fn give_window(&mut self, stream: u32) {
        let Some(open) = self.streams.get_mut(&stream) else { return };
        if let Some(by) = open.owed(STREAM_WINDOW_BYTES / 2) {
            frame::write_window(&mut self.out, stream, by);
        }
        self.stop_if_unwanted(stream);
    }
}
