//! One try: a request on a connection until the head of its response, with its clock, and what a failure means.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HOST, TE, UPGRADE};
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, Uri, Version, request};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::config::Retry;
use super::connect::Target;
use super::error::{UpstreamError, innermost};
use super::lease::{Connection, Lease};
use super::meter::Meter;
use super::upload::{Progress, Upload};
use crate::fields;

/// Takes the informational responses (1xx but 100 and 101) that come before a response. It is called on the connection's
/// task and must not block.
pub type OnInformational = Arc<dyn Fn(StatusCode, &HeaderMap) + Send + Sync>;

/// The waits of a try.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits {
    pub(super) first_byte_ms: u64,
    pub(super) idle_ms: u64,
}

/// A try without a response.
pub(super) struct Failure {
    pub(super) error: UpstreamError,
    /// On a connection that had served another request before, which the server may close at any time.
    pub(super) reused: bool,
    /// The connection was closed after the request was sent, and not a byte of a response had come.
    pub(super) silent: bool,
}

impl Failure {
    pub(super) fn new(error: UpstreamError) -> Self {
        Self { error, reused: false, silent: false }
    }

    /// Whether the request met a connection that was on its way out.
    pub(super) fn is_stale(&self) -> bool {
        self.reused && (self.silent || matches!(self.error, UpstreamError::Unsent { .. }))
    }

    /// Whether it speaks against the server, rather than against the client, the load or the age of a connection.
    pub(super) fn blames_server(&self) -> bool {
        use UpstreamError as E;
        !self.is_stale() && !matches!(self.error, E::Busy { .. } | E::RequestBody | E::Request { .. })
    }

    /// Whether a request of which no body was taken may be sent again; `is_safe`: its method is, and it has no body.
    pub(super) fn may_repeat(&self, retry: Retry, is_safe: bool) -> bool {
        match self.error {
            UpstreamError::Request { .. } => false,
            _ if !self.error.reached_origin() => true,
            _ => retry == Retry::Safe && is_safe && self.is_stale(),
        }
    }
}

/// Sends a request and waits for the head of the response. The lease comes back with it, to be finished with the body.
pub(super) async fn exchange(
    mut lease: Lease,
    target: &Target,
    head: &request::Parts,
    upload: &Arc<Upload>,
    waits: Waits,
    informational: Option<&OnInformational>,
) -> Result<(Response<Incoming>, Lease), Failure> {
    let server = || target.name.clone();
    let reused = lease.reused;
    let Some(body) = upload.lend() else { return Err(Failure::new(UpstreamError::RequestBody)) };
    let mut request = Request::new(body);
    request.method_mut().clone_from(&head.method);
    request.headers_mut().clone_from(&head.headers);
    let Some(connection) = lease.touch() else {
        return Err(Failure::new(UpstreamError::Unsent { server: server(), why: "it is gone".to_owned() }));
    };
    let meter = match connection {
        Connection::Http1(connection) => Some(Arc::clone(&connection.meter)),
        Connection::Http2(_) => None,
    };
    let clock = Clock { upload, waits, meter: meter.as_deref(), server: &target.name };
    let before = meter.as_ref().map(|meter| (meter.written_bytes(), meter.read_bytes()));
    let answer = match connection {
        Connection::Http1(connection) => {
            request.uri_mut().clone_from(&head.uri);
            request.headers_mut().entry(HOST).or_insert(host_of(target)?);
            if let Some(listen) = informational.cloned() {
                hyper::ext::on_informational(&mut request, move |response| {
                    if response.status() != StatusCode::CONTINUE {
                        listen(response.status(), response.headers());
                    }
                });
            }
            clock.wait(connection.sender.try_send_request(request)).await
        }
        Connection::Http2(connection) => {
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = http2_uri(&head.uri, request.headers_mut(), target).map_err(Failure::new)?;
            clock.wait(connection.sender.try_send_request(request)).await
        }
    };
    let mut refused = match answer {
        Ok(Ok(mut response)) => {
            fields::detach(response.headers_mut());
            return Ok((response, lease));
        }
        Ok(Err(refused)) => refused,
        Err(late) => return Err(Failure::new(late)),
    };
    let error = refused.error();
    let why = innermost(error);
    let is_reset = http2_error(error).is_some_and(h2::Error::is_reset);
    let (unsent, answered) = match (&meter, before) {
        (Some(meter), Some((written, read))) => (meter.written_bytes() == written, meter.read_bytes() > read),
        _ => (is_refused_by_http2(error), false),
    };
    let verdict = if upload.has_failed() {
        UpstreamError::RequestBody
    } else if error.is_parse() || error.is_parse_too_large() || (is_http2_fault(error) && !unsent) {
        UpstreamError::BadResponse { server: server(), why }
    } else if error.is_user() {
        UpstreamError::Request { why }
    } else if unsent || refused.take_message().is_some() {
        UpstreamError::Unsent { server: server(), why }
    } else {
        UpstreamError::ClosedEarly { server: server(), why }
    };
    // A stream alone says nothing about its connection.
    if !is_reset {
        lease.retire();
    }
    let silent = !answered && matches!(verdict, UpstreamError::ClosedEarly { .. });
    Err(Failure { error: verdict, reused, silent })
}

/// Whether a request asks for another protocol on its connection (RFC 9110 § 7.8).
pub(super) fn wants_upgrade(headers: &HeaderMap) -> bool {
    let named = |value: &http::HeaderValue| {
        value.to_str().is_ok_and(|list| list.split(',').any(|item| item.trim().eq_ignore_ascii_case("upgrade")))
    };
    headers.contains_key(UPGRADE) && headers.get_all(CONNECTION).iter().any(named)
}

/// How long a try may wait: while the body moves, from its last move; once it is sent, for the first byte.
struct Clock<'a> {
    upload: &'a Upload,
    waits: Waits,
    /// Of a connection that serves nobody else: what it writes is this request.
    meter: Option<&'a Meter>,
    server: &'a str,
}

impl Clock<'_> {
    async fn wait<T>(&self, answer: impl Future<Output = T>) -> Result<T, UpstreamError> {
        let mut answer = std::pin::pin!(answer);
        loop {
            tokio::select! {
                biased;
                answer = answer.as_mut() => return Ok(answer),
                () = tokio::time::sleep_until(self.deadline().0) => {
                    let (deadline, error) = self.deadline();
                    if deadline <= Instant::now() {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn deadline(&self) -> (Instant, UpstreamError) {
        let Waits { first_byte_ms, idle_ms } = self.waits;
        let server = self.server.to_owned();
        let written = |moved: Instant| self.meter.map_or(moved, |meter| moved.max(meter.written_at()));
        let (from, ms, error) = match self.upload.progress() {
            Progress::Finished(at) => {
                (written(at), first_byte_ms, UpstreamError::FirstByteTimeout { server, ms: first_byte_ms })
            }
            Progress::Full(since) => (written(since), idle_ms, UpstreamError::UploadStalled { server, ms: idle_ms }),
            Progress::Hungry(since) => (since, idle_ms, UpstreamError::RequestBody),
        };
        (from + Duration::from_millis(ms), error)
    }
}

fn host_of(target: &Target) -> Result<http::HeaderValue, Failure> {
    http::HeaderValue::from_str(&target.name)
        .map_err(|error| Failure::new(UpstreamError::Request { why: error.to_string() }))
}

/// The target in HTTP/2's parts. `Host` becomes the authority, and what belongs to a connection goes (RFC 9113 § 8.2.2).
fn http2_uri(target_form: &Uri, headers: &mut HeaderMap, target: &Target) -> Result<Uri, UpstreamError> {
    for name in
        [CONNECTION, UPGRADE, HeaderName::from_static("keep-alive"), HeaderName::from_static("proxy-connection")]
    {
        headers.remove(name);
    }
    if headers.get(TE).is_some_and(|value| value != "trailers") {
        headers.remove(TE);
    }
    let host = headers.remove(HOST);
    let authority = host.as_ref().map_or(target.name.as_bytes(), http::HeaderValue::as_bytes);
    Uri::builder()
        .scheme(if target.is_tls { "https" } else { "http" })
        .authority(authority)
        .path_and_query(target_form.path_and_query().map_or("/", |target| target.as_str()))
        .build()
        .map_err(|error| UpstreamError::Request { why: format!("its Host or target: {error}") })
}

fn http2_error(error: &hyper::Error) -> Option<&h2::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

/// Whether the server says that it has not looked at the request (RFC 9113 §§ 6.8, 8.7): its stream was refused, or lies
/// behind the last one of a `GOAWAY`.
fn is_refused_by_http2(error: &hyper::Error) -> bool {
    http2_error(error).is_some_and(|error| {
        error.is_remote()
            && (error.is_go_away() || (error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)))
    })
}

/// Whether the stream alone broke off, or the peer broke the rules of HTTP/2.
fn is_http2_fault(error: &hyper::Error) -> bool {
    http2_error(error).is_some_and(|error| !error.is_io())
}
