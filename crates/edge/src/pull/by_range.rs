//! Asking the origin for a part of a body that is stored in slices.
//!
//! The request is the client's own, with `Range` for whole slices and `If-Range` with the validator of what is stored
//! (RFC 9110 § 13.1.5). Only the very same representation is taken: another validator, length or range, or an answer with the
//! whole, means that the origin has something else by now. Then what is stored is given up, and who reads it sees a broken
//! transfer, never bytes of two versions.

use std::ops::Range;
use std::sync::Arc;

use api::SLICE_BYTES;
use futures_util::stream;
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::BodyExt;
use http_cache::{ByteRange, date};
use net::Body;

use crate::node::Node;
use crate::pull::asked::Asked;
use crate::pull::fetch::judge_for;
use crate::pull::partial::read_content_range;
use crate::pull::runs::{Begun, Handling, pump};
use crate::pull::sliced::CHANGED;
use crate::pull::stored::{PageKey, Variant};
use crate::pull::zone::PullZone;

/// How much older than its `Date` a `Last-Modified` has to be to tell two versions apart, in seconds (RFC 9110 § 8.8.2.2).
const STRONG_DATE_S: u64 = 1;

/// Where what is missing of a stored response comes from.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) node: Arc<Node>,
    pub(crate) zone: Arc<PullZone>,
    pub(crate) asked: Arc<Asked>,
    pub(crate) key: PageKey,
    pub(crate) variant: Arc<Variant>,
}

impl Origin {
    /// Carries out a run that was begun, as a task of its own.
    pub(crate) fn fetch(&self, begun: Begun) {
        let origin = self.clone();
        tokio::spawn(async move {
            match origin.ask(begun.run.bytes()).await {
                Ok((body, handling)) => {
                    origin.node.metrics.fetched.inc();
                    let forget = || origin.node.forget_body(&origin.key, &begun.sliced);
                    pump(&origin.node, &begun, body, handling, forget).await;
                }
                Err(word) => {
                    origin.node.metrics.fetch_failed.inc();
                    tracing::warn!(zone = %origin.zone.name, url = origin.key.shown(), why = word, "slices not fetched");
                    // What one person is told says nothing about what others get.
                    let personal = origin.asked.personal || origin.asked.fields.contains_key(header::AUTHORIZATION);
                    if word == CHANGED && !personal {
                        origin.node.forget_body(&origin.key, &begun.sliced);
                    }
                    begun.give_up(word);
                }
            }
        });
    }

    /// The body with these bytes.
    async fn ask(&self, bytes: Range<u64>) -> Result<(Body, Handling), &'static str> {
        let range = ByteRange { first: bytes.start, last: bytes.end.saturating_sub(1) };
        let by_range = self.variant.sliced().is_none_or(|body| body.by_range);
        let fields = self.question(by_range.then_some(range)).ok_or("bad-request")?;
        let (asked_ms, name) = (self.node.now_ms(), self.node.config.node.name.as_str());
        let asked = self.asked.as_get();
        let request = asked.to_origin(&self.zone, fields, Body::empty(), name, &self.node.pull.id);
        let request = request.map_err(|_| "bad-request")?;
        let upstream = self.zone.upstream.as_ref().map_err(|_| "bad-upstream")?;
        let answer = upstream.send(request, None).await.map_err(|error| {
            tracing::debug!(zone = %self.zone.name, %error, "slices not fetched");
            error.word()
        })?;
        let (parts, body) = answer.response.into_parts();
        match parts.status {
            StatusCode::PARTIAL_CONTENT if by_range => {}
            StatusCode::OK if !by_range => {}
            // The whole, or nothing at this place: it is not what it was.
            StatusCode::OK
            | StatusCode::PARTIAL_CONTENT
            | StatusCode::RANGE_NOT_SATISFIABLE
            | StatusCode::NOT_FOUND
            | StatusCode::GONE => return Err(CHANGED),
            _ => return Err("origin-error"),
        }
        let bytes = if by_range {
            parts.headers.get(header::CONTENT_RANGE).and_then(read_content_range)
        } else {
            // Where it does not say how long it is, that is found out at its end.
            http_body::Body::size_hint(&body).exact().or(self.variant.length).map(|length| (range, length))
        };
        // Where there is nothing to tell versions apart, only a whole can be taken, and has to be compared.
        let compared = !by_range && self.tells_nothing(&parts);
        let same = compared || self.is_the_same(&parts);
        if bytes != self.variant.length.map(|length| (range, length)) || !same {
            return Err(CHANGED);
        }
        let stored =
            judge_for(&self.zone, &asked, &Method::GET, (parts.status, &parts.headers), asked_ms, self.node.now_ms());
        Ok((body, Handling { stored: stored.is_ok(), compared }))
    }

    fn question(&self, range: Option<ByteRange>) -> Option<HeaderMap> {
        let mut fields = self.asked.fields.clone();
        for name in CONDITIONS {
            fields.remove(name);
        }
        if let Some(range) = range {
            fields.insert(header::RANGE, HeaderValue::try_from(format!("bytes={}-{}", range.first, range.last)).ok()?);
            fields.insert(header::IF_RANGE, validator(&self.variant.fields, self.variant.answered_ms)?.clone());
        }
        Some(fields)
    }

    /// Whether neither an answer nor what is stored has anything that tells versions apart.
    fn tells_nothing(&self, parts: &Parts) -> bool {
        let none =
            |fields: &HeaderMap| !fields.contains_key(header::ETAG) && !fields.contains_key(header::LAST_MODIFIED);
        none(&parts.headers)
            && none(&self.variant.fields)
            && parts.headers.get(header::CONTENT_ENCODING) == self.variant.fields.get(header::CONTENT_ENCODING)
    }

    /// Whether an answer is of the very representation that is stored.
    fn is_the_same(&self, parts: &Parts) -> bool {
        let tell = |fields, answered_ms| validator(fields, answered_ms).map(HeaderValue::as_bytes);
        let stored = tell(&self.variant.fields, self.variant.answered_ms);
        // The answer need not repeat a date that makes its validator a strong one.
        let name = if self.variant.strong_etag().is_some() { header::ETAG } else { header::LAST_MODIFIED };
        let encoding = parts.headers.get(header::CONTENT_ENCODING);
        // A part need not repeat what a request with `If-Range` has shown to be known (RFC 9110 § 15.3.7).
        let silent = encoding.is_none() && parts.status == StatusCode::PARTIAL_CONTENT;
        stored.is_some()
            && parts.headers.get(&name).map(HeaderValue::as_bytes) == stored
            && (silent || encoding == self.variant.fields.get(header::CONTENT_ENCODING))
    }
}

/// Fields that make a request conditional, or ask for a part.
const CONDITIONS: [HeaderName; 6] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
    header::IF_RANGE,
];

/// What tells a representation apart from every other of its URL: a strong entity tag, else a `Last-Modified` that is strong
/// (RFC 9110 § 8.8.2.2).
pub(crate) fn validator(fields: &HeaderMap, answered_ms: u64) -> Option<&HeaderValue> {
    if let Some(etag) = fields.get(header::ETAG) {
        return Some(etag).filter(|etag| etag.as_bytes().starts_with(b"\""));
    }
    let now_s = answered_ms / 1_000;
    let read = |name| date::parse(fields.get(name)?.to_str().ok()?, now_s);
    let (modified, made) = (read(header::LAST_MODIFIED)?, read(header::DATE)?);
    fields.get(header::LAST_MODIFIED).filter(|_| modified.saturating_add(STRONG_DATE_S) <= made)
}

/// Whether a whole response can be kept in slices that are asked for one by one.
pub(crate) fn can_be_sliced(fields: &HeaderMap, length: u64, answered_ms: u64) -> bool {
    length > SLICE_BYTES && takes_ranges(fields, answered_ms)
}

/// Whether the origin can be asked for parts of a response.
pub(crate) fn takes_ranges(fields: &HeaderMap, answered_ms: u64) -> bool {
    let by_range = fields
        .get_all(header::ACCEPT_RANGES)
        .iter()
        .any(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"bytes"));
    by_range && validator(fields, answered_ms).is_some()
}

/// The range of whole slices that is asked for in the place of `range`: it begins with a slice, and ends with one where that
/// costs the origin no more than one slice in all.
pub(crate) fn aligned(range: &HeaderValue) -> Option<HeaderValue> {
    let (first, last) = http_cache::range::single(range)?;
    let begin = first - first % SLICE_BYTES;
    let text = match last {
        None => format!("bytes={begin}-"),
        Some(last) => {
            let end = (last / SLICE_BYTES).checked_add(1)?.checked_mul(SLICE_BYTES)? - 1;
            let more = (first - begin) + (end - last);
            format!("bytes={begin}-{}", if more <= SLICE_BYTES { end } else { last })
        }
    };
    HeaderValue::try_from(text).ok()
}

/// A part of the part that came: what the client had asked for.
pub(crate) fn narrowed(mut response: Response<Body>, got: ByteRange, wanted: ByteRange, total: u64) -> Response<Body> {
    let fields = response.headers_mut();
    if let Ok(range) = HeaderValue::try_from(http_cache::range::content_range(wanted, total)) {
        fields.insert(header::CONTENT_RANGE, range);
    }
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(wanted.len()));
    response.map(|body| {
        let state = (body, wanted.first - got.first, wanted.len());
        Body::stream(stream::unfold(state, |(mut body, mut skip, mut left)| async move {
            while left > 0 {
                let mut bytes = match body.frame().await {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(bytes) => bytes,
                        Err(_) => continue,
                    },
                    Some(Err(error)) => return Some((Err(error), (body, 0, 0))),
                    None => return Some((Err("the body ended early".into()), (body, 0, 0))),
                };
                let skipped = skip.min(bytes.len() as u64);
                skip -= skipped;
                drop(bytes.split_to(usize::try_from(skipped).unwrap_or(usize::MAX)));
                bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                if !bytes.is_empty() {
                    left -= bytes.len() as u64;
                    return Some((Ok(bytes), (body, skip, left)));
                }
            }
            None
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_become_ranges_of_slices() {
        const S: u64 = SLICE_BYTES;
        for (range, expected) in [
            ("bytes=0-0".to_owned(), Some(format!("bytes=0-{}", S - 1))),
            (format!("bytes={}-{}", S, S), Some(format!("bytes={S}-{}", 2 * S - 1))),
            (format!("bytes={}-", S + 5), Some(format!("bytes={S}-"))),
            // A byte of each of two slices: one slice more at most.
            (format!("bytes={}-{}", S - 1, S), Some(format!("bytes=0-{S}"))),
            (format!("bytes={}-{}", 5, 2 * S - 6), Some(format!("bytes=0-{}", 2 * S - 1))),
            (format!("bytes=0-{}", u64::MAX), Some("bytes=0-".to_owned())),
            ("bytes=-5".to_owned(), None),
            ("bytes=0-1,3-4".to_owned(), None),
            ("bytes=5-4".to_owned(), None),
            ("lines=0-1".to_owned(), None),
        ] {
            let made = aligned(&HeaderValue::try_from(&range).expect(&range));
            assert_eq!(made.map(|value| value.to_str().expect("text").to_owned()), expected, "{range}");
        }
    }

    #[test]
    fn what_tells_versions_apart() {
        let now_ms = 1_800_000_000_000;
        let date = |s: u64| http_cache::date::format(s);
        for (etag, modified_s, made_s, expected) in [
            (Some("\"a\""), None, None, true),
            (Some("W/\"a\""), Some(1_000_000_000), Some(1_700_000_000), false),
            (None, Some(1_000_000_000), Some(1_000_000_001), true),
            (None, Some(1_000_000_000), Some(1_000_000_000), false),
            (None, Some(1_000_000_000), None, false),
            (None, None, Some(1_000_000_000), false),
        ] {
            let mut fields = HeaderMap::new();
            let mut set = |name, value: Option<String>| {
                if let Some(value) = value {
                    fields.insert(name, HeaderValue::try_from(value).expect("value"));
                }
            };
            set(header::ETAG, etag.map(str::to_owned));
            set(header::LAST_MODIFIED, modified_s.map(date));
            set(header::DATE, made_s.map(date));
            assert_eq!(validator(&fields, now_ms).is_some(), expected, "{etag:?} {modified_s:?} {made_s:?}");
        }
    }
}
