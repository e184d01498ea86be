//! One stream of a connection that the service answers: a request, and its response.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, response};
use http_body::{Body, SizeHint};
use tokio::time::Sleep;
use tower_service::Service;

use super::frame::Reason;
use super::requests::Asked;
use super::streams::{Handle, Room};
use crate::body::BodyError;
use crate::server::body::Incoming;
use crate::server::{date, encode, head};

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With a response, or with a failure of ours.
    Answered,
    /// The client took its request back.
    Reset,
    /// The client let the response stand still.
    Stalled,
}

/// A response moves on as long as its client takes this much of it within [`crate::ServerLimits::stall_ms`], in bytes.
const PROGRESS_BYTES: usize = 16 << 10;

/// What a future of a stream begins with.
pub(crate) enum Start {
    Request(Box<Asked>),
    /// The head is sent; this is what the body is, all of it.
    Body(Bytes),
}

/// Gives the request of a stream to the service, and sends its response; or the rest of one.
pub(crate) async fn run<S, B>(start: Start, stream: Handle, mut service: S, stall: Duration) -> End
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: Body<Data = Bytes>,
    B::Error: Into<BodyError>,
{
    let asked = match start {
        Start::Request(asked) => *asked,
        Start::Body(body) => {
            let left = Some(body.len() as u64);
            return Sending { stream, left, stall, moved: 0, patience: None }.all(crate::Body::full(body)).await;
        }
    };
    let Asked { request, is_head, informational: queue, .. } = asked;
    let request = match request {
        Ok(request) => request,
        Err(refusal) => {
            let mut response = Response::new(crate::Body::full(refusal.to_string()));
            *response.status_mut() = refusal.status();
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            return send(stream, response, is_head, stall).await;
        }
    };
    let Ok(()) = poll_fn(|cx| service.poll_ready(cx)).await;
    let answered = {
        let mut answer = pin!(service.call(request));
        poll_fn(|cx| {
            if let Poll::Ready(Ok(response)) = answer.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            queue.take(cx, |(status, headers)| stream.inform(status, &headers));
            stream.poll_reset(cx).map(|_| None)
        })
        .await
    };
    let Some(response) = answered else { return End::Reset };
    queue.close(|(status, headers)| stream.inform(status, &headers));
    send(stream, response, is_head, stall).await
}

async fn send<B>(stream: Handle, response: Response<B>, is_head: bool, stall: Duration) -> End
where
    B: Body<Data = Bytes>,
    B::Error: Into<BodyError>,
{
    let (mut parts, body) = response.into_parts();
    if parts.status.is_informational() {
        tracing::debug!(status = %parts.status, "the service answered with what is no answer");
        stream.reset(Reason::Internal);
        return End::Answered;
    }
    let left = frame(&mut parts, &body.size_hint(), is_head);
    let ended = left == Some(0);
    let Ok(()) = stream.respond(parts.status, &parts.headers, ended) else { return End::Reset };
    if ended {
        return End::Answered;
    }
    Sending { stream, left, stall, moved: 0, patience: None }.all(body).await
}

/// Makes a head fit for HTTP/2. How many bytes of the body are to be sent, if that is known.
fn frame(parts: &mut response::Parts, hint: &SizeHint, is_head: bool) -> Option<u64> {
    let wished = head::content_length(&parts.headers).ok().flatten();
    // What is named in Connection is only there where Connection is.
    if parts.headers.keys().any(|name| name == UPGRADE || encode::is_about_any_connection(name)) {
        leave_out_the_connection(&mut parts.headers);
    }
    if !parts.headers.contains_key(DATE) {
        parts.headers.insert(DATE, date::now());
    }
    let (said, left) = match parts.status {
        StatusCode::NO_CONTENT => (None, Some(0)),
        StatusCode::NOT_MODIFIED => (wished, Some(0)),
        _ if is_head => (wished, Some(0)),
        _ => {
            let length = wished.or_else(|| hint.exact());
            (length, length)
        }
    };
    match said {
        // As it is, unless it was said twice.
        Some(_) if wished == said && parts.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_none() => {}
        Some(length) => drop(parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length))),
        None => drop(parts.headers.remove(CONTENT_LENGTH)),
    }
    left
}

fn leave_out_the_connection(headers: &mut HeaderMap) {
    let about: Vec<_> = headers.keys().filter(|name| encode::is_about_the_connection(name, headers)).cloned().collect();
    for name in about {
        headers.remove(name);
    }
    headers.remove(UPGRADE);
}

/// Why the body of a response did not get through.
enum Broken {
    ByClient,
    ByUs(String),
    Stalled,
}

struct Sending {
    stream: Handle,
    /// What is still to come, if there is a length.
    left: Option<u64>,
    stall: Duration,
    /// Bytes sent since `patience` began.
    moved: usize,
    /// How long the client may still wait before it takes more; begun when it first lets us wait.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Sending {
    /// Sends a body, however that ends.
    async fn all<B>(mut self, body: B) -> End
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BodyError>,
    {
        match self.body(body).await {
            Ok(()) => End::Answered,
            Err(Broken::ByClient) => End::Reset,
            Err(Broken::ByUs(why)) => {
                tracing::debug!(why, "response cut");
                self.stream.reset(Reason::Internal);
                End::Answered
            }
            Err(Broken::Stalled) => {
                self.stream.reset(Reason::Cancel);
                End::Stalled
            }
        }
    }

    async fn body<B>(&mut self, body: B) -> Result<(), Broken>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BodyError>,
    {
        let mut body = pin!(body);
        loop {
            let frame = poll_fn(|cx| match body.as_mut().poll_frame(cx) {
                Poll::Ready(frame) => Poll::Ready(Ok(frame)),
                Poll::Pending => self.stream.poll_reset(cx).map(|_| Err(Broken::ByClient)),
            });
            let Some(frame) = frame.await? else { break };
            let frame = frame.map_err(|error| Broken::ByUs(error.into().to_string()))?;
            // Trailers are left out: nobody may rely on them.
            let Ok(data) = frame.into_data() else { continue };
            if let Some(left) = self.left {
                let too_long = || Broken::ByUs(encode::LengthFault::Long.to_string());
                self.left = Some(left.checked_sub(data.len() as u64).ok_or_else(too_long)?);
            }
            let complete = self.left == Some(0);
            self.data(data, complete).await?;
            if complete {
                return Ok(());
            }
        }
        if let Some(left @ 1..) = self.left {
            return Err(Broken::ByUs(encode::LengthFault::Short { left }.to_string()));
        }
        self.stream.data(&Bytes::new(), true).map_err(|_| Broken::ByClient)
    }

    async fn data(&mut self, mut data: Bytes, complete: bool) -> Result<(), Broken> {
        while !data.is_empty() {
            let room = self.room().await?;
            let piece = data.split_to(room.min(data.len()));
            self.moved += piece.len();
            if self.moved >= PROGRESS_BYTES {
                self.patience = None;
            }
            self.stream.data(&piece, complete && data.is_empty()).map_err(|_| Broken::ByClient)?;
        }
        Ok(())
    }

    /// How much may be sent, at least a byte. While the client lets us wait its patience runs out; while others' bytes are
    /// written, the transport watches whether that goes on.
    async fn room(&mut self) -> Result<usize, Broken> {
        poll_fn(|cx| match self.stream.poll_room(cx) {
            Err(_) => Poll::Ready(Err(Broken::ByClient)),
            Ok(Room::Bytes(bytes)) => Poll::Ready(Ok(bytes)),
            Ok(Room::Turn) => Poll::Pending,
            Ok(Room::Window) => {
                let patience = self.patience.get_or_insert_with(|| {
                    self.moved = 0;
                    Box::pin(tokio::time::sleep(self.stall))
                });
                patience.as_mut().poll(cx).map(|()| Err(Broken::Stalled))
            }
        })
        .await
    }
}
