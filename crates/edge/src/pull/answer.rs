//! The response to a client: out of a stored or growing variant, or the origin's own with what we say about it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_cache::coding::{self, Coding};
use http_cache::conditional::{self, Precondition};
use http_cache::{Accepted, CacheStatus, Forward, Freshness, Outcome, Piece, Plan};
use net::{Body, BodyError};

use crate::metrics::Active;
use crate::node::Node;
use crate::pull::asked::Asked;
use crate::pull::by_range::Origin;
use crate::pull::decide::{planned, validators};
use crate::pull::fetch::strip;
use crate::pull::growing::{Growing, Reader};
use crate::pull::slice_reader::SliceReader;
use crate::pull::sliced::Sliced;
use crate::pull::stored::{Content, Part, Variant};
use crate::pull::zone::PullZone;

pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
pub(crate) const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// What a response tells about how it was come by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) outcome: Outcome,
    pub(crate) forward: Option<Forward>,
    /// The status of the origin's answer, where it was asked.
    pub(crate) status: Option<StatusCode>,
    pub(crate) stored: bool,
    pub(crate) collapsed: bool,
    pub(crate) detail: Option<&'static str>,
}

impl Told {
    pub(crate) fn of(outcome: Outcome) -> Self {
        Self { outcome, forward: None, status: None, stored: false, collapsed: false, detail: None }
    }
}

/// The answer out of a variant. `as_it_came`: the request has the very range that the variant was fetched with. Nothing
/// where the variant's first bytes are gone: it was not kept.
///
/// # Errors
/// The word for why the first bytes cannot be had.
pub(crate) async fn from_variant(
    origin: &Origin,
    variant: &Arc<Variant>,
    as_it_came: bool,
) -> Result<Option<Response<Body>>, &'static str> {
    let (mut response, spans) = match planned_from(origin, variant, as_it_came) {
        Made::Response(response) => return Ok(Some(response)),
        Made::WithBody(response, spans) => (response, spans),
        Made::Nothing => return Ok(None),
    };
    let body = match &variant.content {
        Content::Growing(growing) => follow(growing, spans),
        Content::Parts(parts) => whole(variant, parts, spans),
        Content::Sliced(sliced) => Some(from_slices(origin, sliced, spans).await?),
    };
    Ok(body.map(|body| {
        *response.body_mut() = body;
        response
    }))
}

/// What a variant makes of a request.
enum Made {
    /// All of the response.
    Response(Response<Body>),
    /// Its head, and what its body consists of.
    WithBody(Response<Body>, Vec<Span>),
    /// The variant does not have what is asked for.
    Nothing,
}

fn planned_from(origin: &Origin, variant: &Variant, as_it_came: bool) -> Made {
    let Origin { node, zone, asked, .. } = origin;
    let now_ms = node.now_ms();
    let mut fields = variant.fields.clone();
    if let Some(compression) = zone.compresses(variant) {
        coding::vary_by_coding(&mut fields);
        let accepted = Accepted::of(&asked.fields);
        let etag = fields.get(header::ETAG).filter(|_| asked.is_read());
        let named = etag.and_then(|etag| coding::named_form(&asked.fields, &accepted, etag, compression.codings()));
        if let Some(tag) = named {
            fields.insert(header::ETAG, tag);
            return Made::Response(not_modified(fields));
        }
    }
    let form = zone.form_for(asked, variant);
    let mut status = variant.status;
    let is_representation = matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT);
    let mut pieces = vec![Span::Rest];
    let mut length = variant.length;
    // Where a plan is made, that looks at the conditions.
    if is_representation && (as_it_came || variant.length.is_none()) {
        match precondition(asked, &fields, now_ms) {
            Precondition::NotModified => return Made::Response(not_modified(fields)),
            Precondition::Failed => return Made::Response(empty(StatusCode::PRECONDITION_FAILED)),
            Precondition::Proceed => {}
        }
    }
    if as_it_came && let Some(announced) = &variant.announced {
        fields.insert(header::CONTENT_RANGE, announced.content_range.clone());
        length = announced.body_length;
    } else if let (true, Some(size)) = (is_representation, variant.length) {
        let boundary = format!("{:032x}", fastrand::u128(..));
        let plan = planned(asked, variant, size, now_ms, &boundary);
        if let (Plan::Body { status: StatusCode::OK, .. }, Some((coding, bytes))) = (&plan, form) {
            return Made::Response(in_form(asked, fields, coding, bytes));
        }
        match plan {
            Plan::Body { status: planned, content_range, content_type, length: bytes, pieces: planned_pieces } => {
                let has = |piece: &Piece| match (piece, &variant.announced) {
                    (Piece::Span(span), Some(part)) => part.range.first <= span.first && span.last <= part.range.last,
                    _ => true,
                };
                if !planned_pieces.iter().all(has) {
                    return Made::Nothing;
                }
                status = planned;
                length = Some(bytes);
                set(&mut fields, header::CONTENT_RANGE, content_range.as_deref());
                set(&mut fields, header::CONTENT_TYPE, content_type.as_deref());
                pieces = planned_pieces.into_iter().map(Span::from).collect();
            }
            Plan::NotModified => {
                // A tag that it named is one of the response as it came; by a date alone it may have any form.
                if let Some((coding, _)) = form.filter(|_| !asked.fields.contains_key(header::IF_NONE_MATCH)) {
                    coding.describe(&mut fields);
                }
                return Made::Response(not_modified(fields));
            }
            Plan::PreconditionFailed => return Made::Response(empty(StatusCode::PRECONDITION_FAILED)),
            Plan::NotSatisfiable { content_range, .. } => {
                let mut response = empty(StatusCode::RANGE_NOT_SATISFIABLE);
                set(response.headers_mut(), header::CONTENT_RANGE, Some(&content_range));
                return Made::Response(response);
            }
        }
    }
    let bodiless = status == StatusCode::NO_CONTENT;
    if let Some(length) = length.filter(|_| !bodiless) {
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let mut response = empty(status);
    *response.headers_mut() = fields;
    if asked.method == Method::HEAD || bodiless { Made::Response(response) } else { Made::WithBody(response, pieces) }
}

/// The response in a compressed form.
fn in_form(asked: &Asked, mut fields: HeaderMap, coding: Coding, bytes: &Bytes) -> Response<Body> {
    coding.describe(&mut fields);
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    let mut response = empty(StatusCode::OK);
    *response.headers_mut() = fields;
    if asked.method != Method::HEAD {
        *response.body_mut() = Body::full(bytes.clone());
    }
    response
}

/// The origin's own response, for the one request that it answers. Where the client's conditions were kept from the origin,
/// they are looked at here.
pub(crate) fn from_origin(
    node: &Node,
    asked: &Asked,
    mut response: Response<Body>,
    conditional: bool,
) -> Response<Body> {
    let age = response.headers().get(header::AGE).cloned();
    let length = response.headers().get(header::CONTENT_LENGTH).cloned();
    strip(response.headers_mut());
    if matches!(response.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT) && !conditional {
        match precondition(asked, response.headers(), node.now_ms()) {
            Precondition::NotModified => return not_modified(std::mem::take(response.headers_mut())),
            Precondition::Failed => return empty(StatusCode::PRECONDITION_FAILED),
            Precondition::Proceed => {}
        }
    }
    for (name, value) in [(header::AGE, age), (header::CONTENT_LENGTH, length)] {
        if let Some(value) = value {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn precondition(asked: &Asked, fields: &HeaderMap, now_ms: u64) -> Precondition {
    conditional::evaluate(&asked.method, &asked.fields, &validators(fields, now_ms))
}

/// 304, with the fields that RFC 9110 § 15.4.5 wants and without those that describe a body.
fn not_modified(mut fields: HeaderMap) -> Response<Body> {
    for name in [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_RANGE] {
        fields.remove(name);
    }
    let mut response = empty(StatusCode::NOT_MODIFIED);
    *response.headers_mut() = fields;
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Adds what a response says about the cache, and makes the zone's changes. `variant`: what it was made of.
pub(crate) fn finish(
    node: &Node,
    zone: &PullZone,
    response: &mut Response<Body>,
    variant: Option<&Variant>,
    told: &Told,
    took: Duration,
) {
    let fields = response.headers_mut();
    let age_s = variant.map(|variant| variant.age_s(node.now_ms()));
    if let Some(age_s) = age_s {
        fields.insert(header::AGE, HeaderValue::from(age_s));
    }
    let ttl_s = variant.zip(age_s).map(|(variant, age_s)| match variant.terms.storable.at(age_s) {
        Freshness::Fresh { ttl_s } => i64::try_from(ttl_s).unwrap_or(i64::MAX),
        Freshness::Stale { by_s, .. } => i64::try_from(by_s).map_or(i64::MIN, |by_s| -by_s),
    });
    let name = node.config.node.name.as_str();
    let status = CacheStatus {
        node: name,
        outcome: told.outcome,
        forward: told.forward,
        ttl_s,
        forward_status: told.status.map(|status| status.as_u16()),
        stored: told.stored,
        collapsed: told.collapsed,
        detail: told.detail,
    };
    append(fields, CACHE_STATUS, &status.to_string());
    fields.insert(X_CACHE, HeaderValue::from_static(told.outcome.x_cache()));
    append(fields, header::VIA, &format!("1.1 littoral-{name}"));
    append(fields, SERVER_TIMING, &format!("edge;dur={:.3}", took.as_secs_f64() * 1_000.0));
    zone.change_response(fields);
    node.metrics.count(told.outcome);
}

fn append(fields: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        fields.append(name, value);
    }
}

fn set(fields: &mut HeaderMap, name: HeaderName, value: Option<&str>) {
    if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
        fields.insert(name, value);
    }
}

/// What a body consists of.
enum Span {
    Text(Bytes),
    /// Bytes of the representation.
    Range {
        first: u64,
        length: u64,
    },
    /// All that there is, however much that will be.
    Rest,
}

impl From<Piece> for Span {
    fn from(piece: Piece) -> Self {
        match piece {
            Piece::Text(text) => Self::Text(text.into()),
            Piece::Span(range) => Self::Range { first: range.first, length: range.len() },
        }
    }
}

/// A body all of which is here.
fn whole(variant: &Variant, parts: &[Part], spans: Vec<Span>) -> Option<Body> {
    let mut pieces = Vec::new();
    for span in spans {
        match span {
            Span::Text(text) => pieces.push(text),
            Span::Rest => pieces.extend(parts.iter().flat_map(|part| part.pieces.iter().cloned())),
            Span::Range { first, length } => {
                pieces.extend(variant.bytes(http_cache::ByteRange { first, last: first + length - 1 })?);
            }
        }
    }
    Some(match <[Bytes; 1]>::try_from(pieces) {
        Ok([only]) => Body::full(only),
        Err(pieces) => Body::stream(stream::iter(pieces.into_iter().map(Ok))),
    })
}

/// A body out of slices. Its first bytes are there before the head of the response is sent: what cannot be had is a clean
/// error then.
async fn from_slices(origin: &Origin, sliced: &Arc<Sliced>, spans: Vec<Span>) -> Result<Body, &'static str> {
    struct Reading {
        reader: SliceReader,
        spans: VecDeque<Span>,
        /// A body that is being sent is a request in progress.
        _active: Active,
    }
    impl Reading {
        async fn next(&mut self, length: u64) -> Result<Option<Bytes>, &'static str> {
            let (first, left) = match self.spans.pop_front() {
                None => return Ok(None),
                Some(Span::Text(text)) => return Ok(Some(text)),
                Some(Span::Rest) => (0, length),
                Some(Span::Range { first, length }) => (first, length),
            };
            let bytes = self.reader.next(first, first + left).await?;
            let taken = bytes.len() as u64;
            if taken < left {
                self.spans.push_front(Span::Range { first: first + taken, length: left - taken });
            }
            Ok(Some(bytes))
        }
    }
    let reader = SliceReader::new(origin.clone(), Arc::clone(sliced));
    let mut reading = Reading { reader, spans: spans.into(), _active: origin.node.metrics.begin() };
    let length = sliced.length;
    let first = reading.next(length).await?;
    let only = reading.spans.is_empty();
    let Some(first) = first else { return Ok(Body::empty()) };
    if only {
        return Ok(Body::full(first));
    }
    let rest = stream::unfold(Some(reading), move |reading| async move {
        let mut reading = reading?;
        match reading.next(length).await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(reading))),
            Ok(None) => None,
            Err(word) => Some((Err(broken(word)), None)),
        }
    });
    Ok(Body::stream(futures_util::StreamExt::chain(stream::iter([Ok(first)]), rest)))
}

/// A body that follows a growing one.
fn follow(growing: &Arc<Growing>, spans: Vec<Span>) -> Option<Body> {
    struct Following {
        growing: Arc<Growing>,
        spans: std::vec::IntoIter<Span>,
        now: Option<(Reader, u64)>,
    }
    let mut following = Following { growing: Arc::clone(growing), spans: spans.into_iter(), now: None };
    // The first reader is made at once, so that what it wants is not dropped before it is polled.
    let mut before = Vec::new();
    for span in following.spans.by_ref() {
        match reader(growing, &span) {
            None => {
                if let Span::Text(text) = span {
                    before.push(text);
                }
            }
            Some(made) => {
                following.now = Some(made?);
                break;
            }
        }
    }
    let following = stream::unfold(Some(following), |following| async move {
        let mut following = following?;
        loop {
            if let Some((reader, left)) = &mut following.now {
                if *left > 0 {
                    match reader.next(*left).await {
                        Ok(Some(bytes)) => {
                            *left -= bytes.len() as u64;
                            return Some((Ok(bytes), Some(following)));
                        }
                        Ok(None) if *left > u64::MAX / 2 => {}
                        Ok(None) => return Some((Err(broken("closed-early")), None)),
                        Err(word) => return Some((Err(broken(word)), None)),
                    }
                }
                following.now = None;
            }
            match following.spans.next()? {
                Span::Text(text) => return Some((Ok(text), Some(following))),
                span => {
                    let Some(made) = reader(&following.growing, &span).flatten() else {
                        return Some((Err(broken("overtaken")), None));
                    };
                    following.now = Some(made);
                }
            }
        }
    });
    let before = stream::iter(before.into_iter().map(Ok));
    Some(Body::stream(futures_util::StreamExt::chain(before, following)))
}

/// The reader for a span, and how many bytes it is to give. Outer nothing: the span needs none; inner: the bytes are gone.
#[expect(clippy::option_option, reason = "the two are told apart by both callers")]
fn reader(growing: &Arc<Growing>, span: &Span) -> Option<Option<(Reader, u64)>> {
    match span {
        Span::Text(_) => None,
        Span::Range { first, length } => {
            Some(first.checked_sub(growing.first()).and_then(|from| growing.read(from)).map(|made| (made, *length)))
        }
        Span::Rest => Some(growing.read(0).map(|made| (made, u64::MAX))),
    }
}

fn broken(word: &'static str) -> BodyError {
    format!("the body broke off on its way here: {word}").into()
}
