//! The connection's side of a request's body: decodes it out of the wire and feeds it to whoever has the [`Incoming`].

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Sleep;

use super::body::{BodyFault, Feeder, Incoming};
use super::chunked::{Chunked, Step};
use super::head::Framing;
use super::refusal::Refusal;
use super::wire::{Transport, Wire};

/// Bytes of a body that nobody read which are read and dropped after the response, to keep the connection.
pub(crate) const DISCARD_BYTES: u64 = 256 << 10;
/// How long that may take, in milliseconds.
const DISCARD_MS: u64 = 2_000;

/// Why an exchange cannot go on.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The client is gone, or does not read.
    Gone,
    /// The response broke off; the client must notice.
    Cut(String),
    /// The request turned out to be malformed.
    Refused(Refusal),
}

/// The body of one request on its way in.
pub(crate) struct Reading {
    state: State,
    /// The client waits for 100, and has not got it.
    waits_for_continue: bool,
    silence: Silence,
}

/// How long the client may send nothing while its body is wanted.
struct Silence {
    limit: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

enum State {
    Open {
        decoder: Decoder,
        feeder: Feeder,
    },
    /// Everything was read: what comes is the next request.
    Done,
    /// The rest cannot be read, or is not worth it.
    Broken,
}

enum Decoder {
    /// Bytes left, at least one.
    Length(u64),
    Chunked(Chunked),
}

impl Reading {
    /// The body of a request that is framed like this, of which the beginning may be in `input` already.
    pub(crate) fn start(
        framing: Framing,
        waits_for_continue: bool,
        silence: Duration,
        input: &mut BytesMut,
    ) -> (Incoming, Self) {
        let silence = Silence { limit: silence, deadline: None };
        let (decoder, length) = match framing {
            Framing::None => {
                return (Incoming::empty(), Self { state: State::Done, waits_for_continue: false, silence });
            }
            Framing::Length(length) => {
                if let Some(whole) = usize::try_from(length).ok().filter(|length| *length <= input.len()) {
                    let body = Incoming::whole(input.split_to(whole).freeze());
                    return (body, Self { state: State::Done, waits_for_continue: false, silence });
                }
                (Decoder::Length(length), Some(length))
            }
            Framing::Chunked => (Decoder::Chunked(Chunked::new()), None),
        };
        let (body, feeder) = Incoming::piped(length);
        // A client that has sent some of its body does not wait.
        let waits_for_continue = waits_for_continue && input.is_empty();
        (body, Self { state: State::Open { decoder, feeder }, waits_for_continue, silence })
    }

    /// Feeds the body as far as there is room; afterwards watches for the end of the connection. Never ready but with a
    /// fault: a malformed body, or a client that is gone or silent. 100 is staged when the body is first polled.
    pub(crate) fn poll<T: Transport>(
        &mut self,
        wire: &mut Wire<T>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Infallible, Fault>> {
        while let State::Open { decoder, feeder } = &mut self.state {
            let Some(room) = ready!(feeder.poll_room(cx, self.waits_for_continue)) else { return Poll::Pending };
            if std::mem::take(&mut self.waits_for_continue) {
                wire.output.staged().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                // It must not wait for the body.
                if ready!(wire.poll_flush(cx)).is_err() {
                    return Poll::Ready(Err(Fault::Gone));
                }
            }
            match decoder.step(&mut wire.input, room) {
                Ok(Step::Data(data)) => feeder.push(data),
                Ok(Step::End) => {
                    feeder.end(Ok(()));
                    self.state = State::Done;
                }
                Ok(Step::More) => match wire.poll_fill(cx) {
                    Poll::Ready(Ok(1..)) => self.silence.deadline = None,
                    Poll::Pending => {
                        ready!(self.silence.poll(cx));
                        feeder.end(Err(BodyFault::Refused(Refusal::BodyTooSlow)));
                        self.state = State::Broken;
                        return Poll::Ready(Err(Fault::Refused(Refusal::BodyTooSlow)));
                    }
                    // The client may still read: what the service says about half a body is its matter.
                    Poll::Ready(Ok(0)) => {
                        feeder.end(Err(BodyFault::Closed));
                        self.state = State::Broken;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Fault::Gone)),
                },
                Err(refusal) => {
                    feeder.end(Err(BodyFault::Refused(refusal)));
                    self.state = State::Broken;
                    return Poll::Ready(Err(Fault::Refused(refusal)));
                }
            }
        }
        if matches!(self.state, State::Broken) || !wire.input.is_empty() {
            return Poll::Pending;
        }
        match ready!(wire.poll_fill(cx)) {
            // The next request came early; it has to wait.
            Ok(1..) => Poll::Pending,
            Ok(0) | Err(_) => Poll::Ready(Err(Fault::Gone)),
        }
    }

    /// Says whether the connection can go on after the response whose head is to be written now, as far as this body is
    /// concerned. A client that still waits for 100 may or may not send its body: the connection ends.
    pub(crate) fn answer_begins(&mut self) -> bool {
        let State::Open { decoder, feeder } = &self.state else { return self.is_done() };
        let too_long = feeder.is_gone() && matches!(decoder, Decoder::Length(left) if *left > DISCARD_BYTES);
        if too_long || self.waits_for_continue {
            feeder.end(Err(BodyFault::Answered));
            self.state = State::Broken;
            return false;
        }
        true
    }

    /// Whether the body was read to its end.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Goes on with a body that the service still reads after its response, as long as both sides make progress.
    pub(crate) async fn feed<T: Transport>(&mut self, wire: &mut Wire<T>) {
        let limit = self.silence.limit;
        while let State::Open { decoder, feeder } = &mut self.state {
            let room = tokio::time::timeout(limit, poll_fn(|cx| feeder.poll_room(cx, false))).await;
            let Ok(Some(room)) = room else { return };
            match decoder.step(&mut wire.input, room) {
                Ok(Step::Data(data)) => feeder.push(data),
                Ok(Step::End) => {
                    feeder.end(Ok(()));
                    self.state = State::Done;
                }
                Ok(Step::More) => {
                    let read = tokio::time::timeout(limit, poll_fn(|cx| wire.poll_fill(cx))).await;
                    if !matches!(read, Ok(Ok(1..))) {
                        feeder.end(Err(BodyFault::Closed));
                        self.state = State::Broken;
                    }
                }
                Err(refusal) => {
                    feeder.end(Err(BodyFault::Refused(refusal)));
                    self.state = State::Broken;
                }
            }
        }
    }

    /// Reads and drops what is left of a body that nobody reads, within bounds. Whether the connection can go on.
    pub(crate) async fn discard<T: Transport>(self, wire: &mut Wire<T>) -> bool {
        let State::Open { mut decoder, feeder } = self.state else { return self.is_done() };
        feeder.end(Err(BodyFault::Answered));
        let discard = async {
            let mut dropped = 0;
            while dropped <= DISCARD_BYTES {
                match decoder.step(&mut wire.input, usize::MAX) {
                    Ok(Step::Data(data)) => dropped += data.len() as u64,
                    Ok(Step::End) => return true,
                    Ok(Step::More) => match poll_fn(|cx| wire.poll_fill(cx)).await {
                        Ok(1..) => {}
                        Ok(0) | Err(_) => return false,
                    },
                    Err(_) => return false,
                }
            }
            false
        };
        tokio::time::timeout(Duration::from_millis(DISCARD_MS), discard).await.unwrap_or(false)
    }
}

impl Silence {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit))).as_mut().poll(cx)
    }
}

impl Decoder {
    fn step(&mut self, input: &mut BytesMut, max_bytes: usize) -> Result<Step, Refusal> {
        match self {
            Self::Chunked(chunked) => chunked.step(input, max_bytes),
            Self::Length(0) => Ok(Step::End),
            Self::Length(_) if input.is_empty() => Ok(Step::More),
            Self::Length(left) => {
                let wanted = usize::try_from(*left).unwrap_or(usize::MAX);
                let data = input.split_to(wanted.min(input.len()).min(max_bytes)).freeze();
                *left -= data.len() as u64;
                Ok(Step::Data(data))
            }
        }
    }
}
