//! What a connection knows, and what frames do to it. No I/O: frames come out of a buffer, answers go into one.
//!
//! Here stand the frames that concern the whole connection; `requests.rs` has those that bring requests, `streams.rs` the streams
//! and what their answers ask for. Each of the two that write, frames that come and streams that answer, stops when [`OUT_BYTES`]
//! wait to be written; then nothing is read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Context;

use bytes::{Buf, Bytes, BytesMut};

use super::body::Taken;
use super::frame::{self, Head, Reason, Settings, flag, kind};
use super::meter::Meter;
use super::requests::{Asked, Fragments};
use super::streams::Stream;
use crate::serve::{Peer, ServerLimits};
use crate::server::hpack::{self, Decoder};
use crate::server::plain::ReadyAnswers;
use crate::server::pool;

/// What a client begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a request body that its client may send ahead: the window of a stream.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// The same for all streams of a connection.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// What everybody's window is before anything is said (RFC 9113 section 6.9.2).
const FIRST_WINDOW_BYTES: i64 = 65_535;
/// Bytes that wait to be written before everything else waits for that. One answer may go beyond.
pub(crate) const OUT_BYTES: usize = 64 << 10;
/// Streams that end because of the client's mistakes (CVE-2025-8671).
const MISTAKES: usize = 100;
/// Streams that we have reset, and for which something may still be on its way.
const REMEMBERED: usize = 64;
/// The sign of life that is asked for when the connection is about to end.
const FAREWELL: [u8; 8] = *b"farewell";
/// «All streams» in the first of two farewells (RFC 9113 section 6.8).
const ALL_STREAMS: u32 = (1 << 31) - 1;

/// What `Core::advance` stops for.
pub(crate) enum Step {
    /// There is no whole frame left.
    More,
    /// First something has to be written.
    Full,
    /// A request for the service.
    Request(Box<Asked>),
    /// The rest of an answer that was ready: its body, on this stream.
    Body(u32, Bytes),
    /// The client took a request back: its stream is to be looked at.
    Reset,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Preface,
    /// The client's settings come first.
    Settings,
    Open,
    /// Both sides know that it ends; the last stream that is answered.
    Ending(u32),
    Over,
}

/// See the head of this file.
pub(crate) struct Core {
    pub(super) peer: Peer,
    pub(super) ready: Option<Arc<dyn ReadyAnswers>>,
    pub(super) limits: ServerLimits,
    phase: Phase,
    draining: bool,
    pub(super) decoder: Decoder,
    /// A block of fields that goes on in the next frame.
    pub(super) fragments: Option<Fragments>,
    pub(super) streams: BTreeMap<u32, Stream>,
    /// How many of those are reset, and only wait for their futures to see it.
    pub(super) reset: usize,
    /// The last stream that the client began.
    pub(super) last: u32,
    /// What we may send on the connection, and on a new stream.
    pub(super) send_window: i64,
    pub(super) stream_send_window: i64,
    /// What the client may still send on the connection, and by how much that is to be more.
    pub(super) receive_window: i64,
    owed: u32,
    /// Streams that wait for room or for the connection's window, the longest first.
    pub(super) waiting: Vec<u32>,
    pub(super) out: Vec<u8>,
    pub(super) written: usize,
    pub(super) meter: Meter,
    mistakes: usize,
    /// Streams reset by the client, or let stand still by it, beyond those answered.
    resets: usize,
    remembered: VecDeque<u32>,
    /// What the client takes its table for, and that our next block has to say that we use nothing of it.
    table_bytes: u32,
    says_table: bool,
    pub(super) taken: Arc<Taken>,
    /// A request has come since this was last looked at.
    pub(super) was_asked: bool,
}

impl Core {
    /// A new connection, with our settings to be written.
    pub(crate) fn new(peer: Peer, ready: Option<Arc<dyn ReadyAnswers>>, limits: ServerLimits) -> Self {
        let mut out = pool::output();
        let list_bytes = u32::try_from(limits.head_bytes).unwrap_or(u32::MAX);
        frame::write_settings(&mut out, limits.h2_streams, STREAM_WINDOW_BYTES, list_bytes, CONNECTION_WINDOW_BYTES);
        Self {
            peer,
            ready,
            limits,
            phase: Phase::Preface,
            draining: false,
            decoder: Decoder::default(),
            fragments: None,
            streams: BTreeMap::new(),
            reset: 0,
            last: 0,
            send_window: FIRST_WINDOW_BYTES,
            stream_send_window: FIRST_WINDOW_BYTES,
            receive_window: i64::from(CONNECTION_WINDOW_BYTES),
            owed: 0,
            waiting: Vec::new(),
            out,
            written: 0,
            meter: Meter::new(),
            mistakes: 0,
            resets: 0,
            remembered: VecDeque::new(),
            table_bytes: u32::try_from(hpack::TABLE_BYTES).unwrap_or(0),
            says_table: false,
            taken: Arc::default(),
            was_asked: false,
        }
    }

    /// Takes whole frames out of `input` up to the first that somebody else has to do something about.
    ///
    /// # Errors
    /// What the connection ends with.
    pub(crate) fn advance(&mut self, input: &mut BytesMut) -> Result<Step, Reason> {
        if self.phase == Phase::Preface && !self.preface(input)? {
            return Ok(Step::More);
        }
        loop {
            if self.is_full() {
                return Ok(Step::Full);
            }
            let Some(head) = Head::read(input) else { return Ok(Step::More) };
            if head.length > frame::PAYLOAD_BYTES {
                return Err(Reason::FrameSize);
            }
            let end = frame::HEAD_BYTES + head.length;
            let Some(payload) = input.get(frame::HEAD_BYTES..end) else {
                input.reserve(end - input.len());
                return Ok(Step::More);
            };
            let step = self.frame(head, payload)?;
            input.advance(end);
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    /// Whether the preface is there; it is taken then.
    fn preface(&mut self, input: &mut BytesMut) -> Result<bool, Reason> {
        if input.starts_with(PREFACE) {
            input.advance(PREFACE.len());
            self.phase = Phase::Settings;
            return Ok(true);
        }
        if PREFACE.starts_with(input) { Ok(false) } else { Err(Reason::Protocol) }
    }

    fn frame(&mut self, head: Head, payload: &[u8]) -> Result<Option<Step>, Reason> {
        // Between the pieces of a block of fields nothing else stands (RFC 9113 section 4.3).
        let goes_on = self.fragments.as_ref().map(|fragments| fragments.stream);
        let is_next = head.kind == kind::CONTINUATION && goes_on == Some(head.stream);
        let is_first = self.phase == Phase::Settings;
        if goes_on.is_some() != is_next || (is_first && (head.kind != kind::SETTINGS || head.has(flag::ACK))) {
            return Err(Reason::Protocol);
        }
        match head.kind {
            kind::HEADERS => return self.headers(head, payload),
            kind::DATA => return self.data(head, payload).map(|()| None),
            _ if self.meter.is_flooded() => return Err(Reason::Calm),
            kind::CONTINUATION if is_next => return self.continuation(head, payload),
            kind::CONTINUATION | kind::PUSH_PROMISE => return Err(Reason::Protocol),
            kind::SETTINGS => self.settings(head, payload)?,
            kind::PING => self.ping(head, payload)?,
            kind::RST_STREAM => return self.client_resets(head, payload),
            kind::WINDOW_UPDATE => self.window_update(head, payload)?,
            kind::PRIORITY => self.priority(head, payload)?,
            kind::GOAWAY if head.stream != 0 => return Err(Reason::Protocol),
            kind::GOAWAY if payload.len() < 8 => return Err(Reason::FrameSize),
            // GOAWAY: the client begins no more streams, and closes when it has its answers. Others mean nothing to us.
            _ => {}
        }
        Ok(None)
    }

    fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        if head.stream != 0 {
            return Err(Reason::Protocol);
        }
        if head.has(flag::ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(Reason::FrameSize) };
        }
        let settings = Settings::read(payload)?;
        if let Some(bytes) = settings.table_bytes {
            // Where it becomes smaller, the next block has to begin with a size (RFC 9113 section 4.3.1).
            self.says_table |= bytes < self.table_bytes;
            self.table_bytes = bytes;
        }
        if let Some(window) = settings.window {
            let by = i64::from(window) - self.stream_send_window;
            self.stream_send_window += by;
            for stream in self.streams.values_mut() {
                stream.open(by)?;
            }
        }
        if self.phase == Phase::Settings {
            self.phase = Phase::Open;
        }
        frame::write_settings_taken(&mut self.out);
        Ok(())
    }

    fn ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        if head.stream != 0 {
            return Err(Reason::Protocol);
        }
        let payload: [u8; 8] = payload.try_into().map_err(|_| Reason::FrameSize)?;
        if !head.has(flag::ACK) {
            frame::write_ping(&mut self.out, payload, flag::ACK);
        } else if payload == FAREWELL && self.draining && self.phase == Phase::Open {
            // What the client began before it heard of the end has come.
            self.phase = Phase::Ending(self.last);
            frame::write_goaway(&mut self.out, self.last, Reason::NoError);
        }
        Ok(())
    }

    fn window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        let by = frame::number(payload).ok_or(Reason::FrameSize)? & 0x7fff_ffff;
        if head.stream == 0 {
            if by == 0 {
                return Err(Reason::Protocol);
            }
            frame::open(&mut self.send_window, i64::from(by))?;
            self.wake_waiting();
            return Ok(());
        }
        if self.is_idle(head.stream) {
            return Err(Reason::Protocol);
        }
        let Some(stream) = self.streams.get_mut(&head.stream).filter(|stream| !stream.is_reset()) else {
            return Ok(());
        };
        match stream.open(i64::from(by)) {
            _ if by == 0 => self.mistake(head.stream, Reason::Protocol),
            Ok(()) => Ok(()),
            Err(reason) => self.mistake(head.stream, reason),
        }
    }

    /// Says nothing to us any more (RFC 9113 section 5.3.2).
    fn priority(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        if head.stream == 0 {
            return Err(Reason::Protocol);
        }
        let is_open = self.streams.contains_key(&head.stream);
        if payload.len() != 5 && is_open { self.mistake(head.stream, Reason::FrameSize) } else { Ok(()) }
    }

    /// Whether a stream has not been begun, or never will be.
    pub(super) fn is_idle(&self, stream: u32) -> bool {
        stream > self.last || stream.is_multiple_of(2)
    }

    /// Whether a request is too late to be answered; the client has been told, and tries it elsewhere.
    pub(super) fn is_late(&self, stream: u32) -> bool {
        matches!(self.phase, Phase::Ending(last) if stream > last)
    }

    /// A stream ends because of a mistake of the client.
    ///
    /// # Errors
    /// The connection ends, if there were too many.
    pub(super) fn mistake(&mut self, stream: u32, reason: Reason) -> Result<(), Reason> {
        self.mistakes += 1;
        if self.mistakes > MISTAKES {
            return Err(Reason::Calm);
        }
        self.reset_stream(stream, reason);
        Ok(())
    }

    /// Something may still come on a stream that we have reset.
    pub(super) fn remember(&mut self, stream: u32) {
        if self.remembered.len() == REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back(stream);
    }

    /// Whether what comes on a stream that is not open is to be borne.
    pub(super) fn is_remembered(&self, stream: u32) -> bool {
        self.remembered.contains(&stream)
    }

    /// Bytes came that the client may send again on the connection.
    pub(super) fn owe(&mut self, bytes: usize) {
        self.owed = self.owed.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.owed >= CONNECTION_WINDOW_BYTES / 2 {
            frame::write_window(&mut self.out, 0, self.owed);
            self.receive_window += i64::from(self.owed);
            self.owed = 0;
        }
    }

    /// Opens the windows by what was taken of bodies; `cx` is woken for more.
    pub(crate) fn give_windows(&mut self, cx: &mut Context<'_>) {
        let (bytes, streams) = self.taken.ask(cx);
        self.owe(bytes);
        for stream in streams {
            self.give_window(stream);
        }
    }

    /// Each stream that ends well forgives a reset: who resets more than that is attacking (CVE-2023-44487), and so is who lets
    /// responses stand still.
    ///
    /// # Errors
    /// The connection ends, if there were too many.
    pub(crate) fn ended(&mut self, end: super::respond::End) -> Result<(), Reason> {
        use super::respond::End;
        match end {
            End::Reset | End::Stalled => self.resets += 1,
            End::Answered => self.resets = self.resets.saturating_sub(1),
        }
        if self.resets > self.limits.h2_resets { Err(Reason::Calm) } else { Ok(()) }
    }

    /// Announces the end: what the client has begun until it hears of it is answered.
    pub(crate) fn drain(&mut self) {
        if !std::mem::replace(&mut self.draining, true) {
            frame::write_goaway(&mut self.out, ALL_STREAMS, Reason::NoError);
            frame::write_ping(&mut self.out, FAREWELL, 0);
        }
    }

    /// The connection is over, because of a mistake of the client if there is a `reason`: nothing more is said but that.
    pub(crate) fn end(&mut self, reason: Option<Reason>) {
        if let Some(reason) = reason {
            tracing::debug!(peer = %self.peer.address, ?reason, "connection ended");
            frame::write_goaway(&mut self.out, self.last, reason);
        }
        self.phase = Phase::Over;
    }

    /// Whether nothing more is to be said.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Whether the end was announced.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether the client's settings have come.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Ending(_))
    }

    /// Whether nothing is left to be done after an end that was announced.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Ending(_)) && self.streams.is_empty()
    }

    /// Whether no stream is open.
    pub(crate) fn has_no_streams(&self) -> bool {
        self.streams.is_empty()
    }

    /// Whether enough waits to be written.
    pub(crate) fn is_full(&self) -> bool {
        self.out.len() >= OUT_BYTES
    }

    /// Whether a request has come since this was last asked.
    pub(crate) fn was_asked(&mut self) -> bool {
        std::mem::take(&mut self.was_asked)
    }

    /// What is to be written.
    pub(crate) fn to_write(&self) -> &[u8] {
        self.out.get(self.written..).unwrap_or_default()
    }

    /// So much of it was written. Whether streams were woken by that.
    pub(crate) fn wrote(&mut self, bytes: usize) -> bool {
        self.written += bytes;
        self.meter.wrote(bytes);
        if self.written < self.out.len() {
            return false;
        }
        self.written = 0;
        self.out.clear();
        pool::give_back_output(std::mem::take(&mut self.out));
        self.wake_waiting()
    }

    /// Begins a block of fields at the end of what is to be written; where it begins.
    pub(super) fn begin_block(&mut self) -> usize {
        if self.out.capacity() == 0 {
            self.out = pool::output();
        }
        let start = self.out.len();
        self.out.extend_from_slice(&[0; frame::HEAD_BYTES]);
        if self.says_table {
            self.out.push(hpack::EMPTY_TABLE);
        }
        start
    }

    /// Sends the block that began at `start`.
    pub(super) fn end_block(&mut self, start: usize, stream: u32, ends: bool) {
        self.says_table = false;
        frame::seal_fields(&mut self.out, start, stream, ends);
    }
}
