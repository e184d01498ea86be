//! One request and its response on an HTTP/1 connection.
//!
//! Two stages, each one future that does everything at once: *answering* polls the service, feeds it the body, and sends
//! informational responses; *sending* writes the response and still feeds the body. Nothing is spawned, and nothing but the
//! body of a request crosses to another task.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::body::Incoming;
use super::date::DateText;
use super::encode::{self, Asked, Plan};
use super::head::Head;
use super::informational::Informational;
use super::reading::{Fault, Reading};
use super::upgrade::{Fulfil, OnUpgrade};
use super::wire::{Transport, Wire};
use crate::body::BodyError;
use crate::serve::Peer;

/// What follows an exchange on its connection.
pub(crate) enum Next {
    /// Another request.
    Request,
    /// The end. `unread`: the client may still be sending.
    Close { unread: bool },
    /// Another protocol.
    Upgrade(Fulfil),
}

/// What the exchanges of one connection share.
pub(crate) struct Exchanges<T> {
    pub(crate) wire: Wire<T>,
    pub(crate) peer: Peer,
    pub(crate) date: DateText,
    pub(crate) informational: Informational,
    pub(crate) shutdown: CancellationToken,
    /// How long a client may stop in the middle of its body.
    pub(crate) silence: Duration,
}

impl<T: Transport> Exchanges<T> {
    /// Gives one request to the service, and sends its response.
    ///
    /// # Errors
    /// See [`Fault`]. Where the request turned out to be malformed nothing of a final response was sent.
    pub(crate) async fn run<S, B>(&mut self, head: Head, service: &mut S) -> Result<Next, Fault>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BodyError>,
    {
        let Head { request, framing, keep_alive, expects_continue, upgrade } = head;
        let (body, mut reading) = Reading::start(framing, expects_continue, self.silence, &mut self.wire.input);
        let mut request = request.map(|()| body);
        let version = request.version();
        let is_head = request.method() == Method::HEAD;
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(self.informational.next(version == Version::HTTP_11));
        let mut fulfil = None;
        if upgrade {
            let (on_upgrade, other_end) = OnUpgrade::new();
            request.extensions_mut().insert(on_upgrade);
            fulfil = Some(other_end);
        }
        let response = self.answer(request, service, &mut reading).await?;

        let (parts, body) = response.into_parts();
        let out = self.wire.output.staged();
        self.informational.close(|(status, headers)| encode::informational(out, status, &headers));
        let switches = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        if parts.status.is_informational() && !(switches && fulfil.is_some()) {
            return Err(Fault::Cut(format!("the service answered {} where that is no answer", parts.status)));
        }
        let body_allows = reading.answer_begins();
        let keep_alive = keep_alive && body_allows && !self.shutdown.is_cancelled();
        let asked = Asked { is_head, version, keep_alive };
        let mut plan = encode::head(out, &parts, &body.size_hint(), asked, self.date.at(SystemTime::now()));
        self.send(body, &mut plan, &mut reading).await?;
        reading.feed(&mut self.wire).await;
        match fulfil.filter(|_| switches) {
            Some(fulfil) => Ok(Next::Upgrade(fulfil)),
            None if !plan.keep_alive => Ok(Next::Close { unread: !(body_allows && reading.is_done()) }),
            None if reading.discard(&mut self.wire).await => Ok(Next::Request),
            None => Ok(Next::Close { unread: true }),
        }
    }

    async fn answer<S, B>(
        &mut self,
        request: Request<Incoming>,
        service: &mut S,
        reading: &mut Reading,
    ) -> Result<Response<B>, Fault>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    {
        let Ok(()) = poll_fn(|cx| service.poll_ready(cx)).await;
        let mut answer = pin!(service.call(request));
        poll_fn(|cx| {
            if let Poll::Ready(Ok(response)) = answer.as_mut().poll(cx) {
                return Poll::Ready(Ok(response));
            }
            let out = self.wire.output.staged();
            self.informational.take(cx, |(status, headers)| encode::informational(out, status, &headers));
            // In this order, so that a 100 that reading stages goes out, too.
            if let Poll::Ready(Err(fault)) = reading.poll(&mut self.wire, cx) {
                return Poll::Ready(Err(fault));
            }
            match self.wire.poll_settle(cx) {
                Poll::Ready(Err(_)) => Poll::Ready(Err(Fault::Gone)),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Sends the response whose head is staged.
    async fn send<B>(&mut self, body: B, plan: &mut Plan, reading: &mut Reading) -> Result<(), Fault>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BodyError>,
    {
        let mut body = pin!(body);
        let mut ended = plan.is_complete() && !plan.has_length();
        let sent = poll_fn(|cx| {
            if let Poll::Ready(sent) = poll_send(&mut self.wire, body.as_mut(), plan, &mut ended, cx) {
                return Poll::Ready(sent);
            }
            match reading.poll(&mut self.wire, cx) {
                Poll::Ready(Err(Fault::Gone)) => Poll::Ready(Err(Fault::Gone)),
                // A body that turns out to be malformed now ends the connection after the response.
                Poll::Ready(_) | Poll::Pending => Poll::Pending,
            }
        })
        .await;
        if let Err(Fault::Cut(_)) = &sent {
            // What came before the break still goes to the client.
            let _ = poll_fn(|cx| self.wire.poll_flush(cx)).await;
            if plan.ends_with_the_connection() {
                self.wire.reset_on_close();
            }
        }
        sent
    }
}

fn poll_send<T, B>(
    wire: &mut Wire<T>,
    mut body: Pin<&mut B>,
    plan: &mut Plan,
    ended: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Fault>>
where
    T: Transport,
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BodyError>,
{
    let cut = |why: String| Poll::Ready(Err(Fault::Cut(why)));
    loop {
        if wire.output.is_full() && ready!(wire.poll_drain(cx)).is_err() {
            return Poll::Ready(Err(Fault::Gone));
        }
        if *ended {
            return wire.poll_flush(cx).map_err(|_| Fault::Gone);
        }
        match body.as_mut().poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                // Trailers are left out: nobody may rely on them.
                let Ok(data) = frame.into_data() else { continue };
                let last = body.is_end_stream();
                if let Err(fault) = plan.push(&mut wire.output, data, last) {
                    return cut(fault.to_string());
                }
                *ended = last && plan.is_complete();
            }
            Poll::Ready(Some(Err(error))) => return cut(error.into().to_string()),
            Poll::Ready(None) => match plan.finish(&mut wire.output) {
                Ok(()) => *ended = true,
                Err(fault) => return cut(fault.to_string()),
            },
            // The whole length is there: what the service does afterwards is not waited for.
            Poll::Pending if plan.is_complete() => *ended = true,
            Poll::Pending => {
                if ready!(wire.poll_flush(cx)).is_err() {
                    return Poll::Ready(Err(Fault::Gone));
                }
                return Poll::Pending;
            }
        }
    }
}
