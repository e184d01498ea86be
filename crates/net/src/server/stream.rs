//! One HTTP/2 stream: a request, and its response.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, DATE, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, response};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;
use tower_service::Service;

use super::body::Incoming;
use super::informational::Informational;
use super::plain::{Plain, ReadyAnswers};
use super::refusal::Refusal;
use super::{date, encode, head, target};
use crate::body::BodyError;
use crate::serve::{Peer, ServerLimits};

/// How a stream ended.
pub(crate) enum End {
    /// With a response, or with a failure of ours.
    Answered,
    /// The client took its request back.
    Reset,
    /// The client let the response stand still.
    Stalled,
}

/// What the streams of a connection share.
pub(crate) struct Shared {
    pub(crate) peer: Peer,
    pub(crate) ready: Option<Arc<dyn ReadyAnswers>>,
    pub(crate) limits: ServerLimits,
}

/// A response moves on as long as its client takes this much of it within [`ServerLimits::stall_ms`], in bytes.
const PROGRESS_BYTES: usize = 16 << 10;

/// What a stream begins with here.
pub(crate) enum Start {
    Request(Box<(Request<RecvStream>, SendResponse<Bytes>)>),
    /// Its head is sent; this is what its body is, all of it.
    Body(SendStream<Bytes>, Bytes),
}

/// Answers a stream whose answer is ready, without any of what follows.
///
/// # Errors
/// What is left to be done: all of it, or to send a body for which the client has not given enough room yet.
pub(crate) fn at_once(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: &Shared,
) -> Result<End, Start> {
    let Some((fields, body)) = ready_answer(&request, shared) else {
        return Err(Start::Request(Box::new((request, respond))));
    };
    let mut response = Response::new(());
    *response.headers_mut() = fields;
    let Ok(mut stream) = respond.send_response(response, body.is_empty()) else { return Ok(End::Reset) };
    if body.is_empty() {
        return Ok(End::Answered);
    }
    stream.reserve_capacity(body.len());
    if stream.capacity() < body.len() {
        return Err(Start::Body(stream, body));
    }
    Ok(stream.send_data(body, true).map_or(End::Reset, |()| End::Answered))
}

fn ready_answer(request: &Request<RecvStream>, shared: &Shared) -> Option<(HeaderMap, Bytes)> {
    let ready = shared.ready.as_deref().filter(|_| request.body().is_end_stream())?;
    ready.answer_fields(&Plain::of_http2(request.method(), request.uri(), request.headers(), shared.peer)?)
}

/// Gives the request of a stream to the service, and sends its response; or the rest of one.
pub(crate) async fn run<S, B>(start: Start, mut service: S, shared: Arc<Shared>) -> End
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: Body<Data = Bytes>,
    B::Error: Into<BodyError>,
{
    let stall = Duration::from_millis(shared.limits.stall_ms);
    let (request, mut respond) = match start {
        Start::Request(start) => *start,
        Start::Body(stream, body) => {
            let left = Some(body.len() as u64);
            return Sending { stream, left, stall, moved: 0, patience: None }.all(crate::Body::full(body)).await;
        }
    };
    let is_head = request.method() == Method::HEAD;
    let mut queue = Informational::new();
    let request = match prepare(request, &shared, &mut queue) {
        Ok(request) => request,
        Err(refusal) => {
            let mut response = Response::new(crate::Body::full(refusal.to_string()));
            *response.status_mut() = refusal.status();
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            return send(respond, response, is_head, stall).await;
        }
    };
    let Ok(()) = poll_fn(|cx| service.poll_ready(cx)).await;
    let answered = {
        let mut answer = pin!(service.call(request));
        poll_fn(|cx| {
            if let Poll::Ready(Ok(response)) = answer.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            queue.take(cx, |(status, headers)| inform(&mut respond, status, headers));
            respond.poll_reset(cx).map(|_| None)
        })
        .await
    };
    let Some(response) = answered else { return End::Reset };
    queue.close(|(status, headers)| inform(&mut respond, status, headers));
    send(respond, response, is_head, stall).await
}

/// The request as a service sees it: judged like one of HTTP/1, with `Host`.
fn prepare(
    request: Request<RecvStream>,
    shared: &Shared,
    queue: &mut Informational,
) -> Result<Request<Incoming>, Refusal> {
    let (mut parts, stream) = request.into_parts();
    let limits = &shared.limits;
    if parts.method == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    if parts.headers.len() > limits.head_fields {
        return Err(Refusal::TooManyFields);
    }
    target::check(&parts.method, &parts.uri, limits.target_bytes)?;
    head::check_host(parts.version, &parts.uri, &mut parts.headers)?;
    let length = head::content_length(&parts.headers)?;
    let expects_continue = head::expectation(parts.version, &parts.headers)?;
    join_cookies(&mut parts.headers)?;
    let informational = queue.next(true);
    let body = if stream.is_end_stream() {
        Incoming::empty()
    } else {
        let at_first_poll = expects_continue.then(|| informational.clone());
        Incoming::stream(StreamBody { stream, left: length, at_first_poll })
    };
    parts.extensions.insert(shared.peer);
    parts.extensions.insert(informational);
    Ok(Request::from_parts(parts, body))
}

/// HTTP/2 may send a cookie in pieces (RFC 9113 section 8.2.3); everyone else knows one field only.
fn join_cookies(headers: &mut HeaderMap) -> Result<(), Refusal> {
    let mut cookies = headers.get_all(COOKIE).iter();
    if cookies.next().is_some() && cookies.next().is_some() {
        let pieces: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        let joined = HeaderValue::from_bytes(&pieces.join(b"; ".as_slice())).map_err(|_| Refusal::FieldValue)?;
        headers.insert(COOKIE, joined);
    }
    Ok(())
}

fn inform(respond: &mut SendResponse<Bytes>, status: StatusCode, headers: HeaderMap) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    // A stream that ended meanwhile needs no hints.
    let _ = respond.send_informational(response);
}

async fn send<B>(mut respond: SendResponse<Bytes>, response: Response<B>, is_head: bool, stall: Duration) -> End
where
    B: Body<Data = Bytes>,
    B::Error: Into<BodyError>,
{
    let (mut parts, body) = response.into_parts();
    if parts.status.is_informational() {
        tracing::debug!(status = %parts.status, "the service answered with what is no answer");
        respond.send_reset(Reason::INTERNAL_ERROR);
        return End::Answered;
    }
    let left = frame(&mut parts, &body.size_hint(), is_head);
    let ended = left == Some(0);
    let Ok(stream) = respond.send_response(Response::from_parts(parts, ()), ended) else { return End::Reset };
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
    stream: SendStream<Bytes>,
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
                self.stream.send_reset(Reason::INTERNAL_ERROR);
                End::Answered
            }
            Err(Broken::Stalled) => {
                self.stream.send_reset(Reason::CANCEL);
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
        self.stream.send_data(Bytes::new(), true).map_err(|_| Broken::ByClient)
    }

    async fn data(&mut self, mut data: Bytes, complete: bool) -> Result<(), Broken> {
        while !data.is_empty() {
            self.stream.reserve_capacity(data.len());
            let capacity = self.capacity().await?;
            let piece = data.split_to(capacity.min(data.len()));
            self.moved += piece.len();
            if self.moved >= PROGRESS_BYTES {
                self.patience = None;
            }
            self.stream.send_data(piece, complete && data.is_empty()).map_err(|_| Broken::ByClient)?;
        }
        Ok(())
    }

    /// How much the client lets us send, at least a byte.
    async fn capacity(&mut self) -> Result<usize, Broken> {
        poll_fn(|cx| {
            loop {
                let ready = self.stream.capacity();
                if ready > 0 {
                    return Poll::Ready(Ok(ready));
                }
                match self.stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(Broken::ByClient)),
                    Poll::Pending => {
                        let patience = self.patience.get_or_insert_with(|| {
                            self.moved = 0;
                            Box::pin(tokio::time::sleep(self.stall))
                        });
                        return patience.as_mut().poll(cx).map(|()| Err(Broken::Stalled));
                    }
                }
            }
        })
        .await
    }
}

/// The body of a request on an HTTP/2 stream. Its window opens as pieces are taken.
pub(crate) struct StreamBody {
    stream: RecvStream,
    left: Option<u64>,
    /// Where the client waits for 100.
    at_first_poll: Option<Informational>,
}

impl StreamBody {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(informational) = self.at_first_poll.take() {
            informational.send_continue();
        }
        loop {
            let data = match ready!(self.stream.poll_data(cx)) {
                None => {
                    self.left = Some(0);
                    return Poll::Ready(None);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(data)) => data,
            };
            self.stream.flow_control().release_capacity(data.len())?;
            self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// What is still to come, if the client said it.
    pub(crate) fn left(&self) -> Option<u64> {
        self.left
    }
}
