//! Landings of parts: 206 responses, which are stored at their end, joined with what is stored, or passed on.

use std::sync::Arc;

use api::SLICE_BYTES;
use http::response::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_cache::{ByteRange, NotStorable, update};
use net::Body;

use crate::pull::by_range;
use crate::pull::fetch::{Again, Exclusive, Landing, Order};
use crate::pull::growing::Growing;
use crate::pull::sliced::Sliced;
use crate::pull::stored::{Announced, Content};

impl Order {
    /// A 206: a part that was asked for, or the rest of one that is stored (§ 3.3, § 3.4).
    pub(super) async fn part(
        &mut self,
        mut parts: Parts,
        body: Body,
        asked_ms: u64,
        answered_ms: u64,
    ) -> Result<Landing, Again> {
        let judged = self.judge(&self.asked.method, parts.status, &parts.headers, asked_ms, answered_ms);
        let rules = self.rules(parts.status, &parts.headers);
        let content_range = parts.headers.get(header::CONTENT_RANGE).cloned();
        let read = content_range.as_ref().and_then(read_content_range);
        if let Some(from) = self.fetch.missing_from {
            // Only the rest of the very same representation is of use.
            let part = self.stored_part().ok_or(Again)?;
            let (Some((range, total)), Ok(terms)) = (read, judged) else { return Err(Again) };
            let etag = parts.headers.get(header::ETAG).map(HeaderValue::as_bytes);
            let same = part.strong_etag().is_some() && part.strong_etag() == etag;
            let rest = range.first == from && range.last + 1 == total && part.length == Some(total);
            let stored = ByteRange { first: 0, last: from.saturating_sub(1) };
            let (true, true, Some(begin)) = (same, rest, part.bytes(stored)) else { return Err(Again) };
            parts.headers.remove(header::CONTENT_RANGE);
            parts.headers = update::freshened(&part.fields, &parts.headers, &[]);
            let growing = Growing::new(0, &self.node.pull.budget);
            let tags = self.tags_after(&part.tags, &parts.headers);
            let variant = self.variant(&parts, terms, rules.strip_set_cookie, answered_ms, |variant| {
                variant.tags = tags;
                variant.status = StatusCode::OK;
                variant.content = Content::Growing(Arc::clone(&growing));
                variant.length = Some(total);
            });
            return Ok(self.land(variant, &growing, parts.status, body, Some(begin)).await);
        }
        let stale = self.fetch.stale.as_ref();
        let asked_for_one = self.asked.fields.contains_key(header::RANGE)
            && self.asked.method == Method::GET
            && stale.is_none_or(|stale| stale.sliced().is_some());
        let (Ok(terms), Some((range, total)), Some(content_range), true) = (judged, read, content_range, asked_for_one)
        else {
            self.hand_over_part(parts, body, read);
            return Ok(Landing::Alone(judged.err().unwrap_or(NotStorable::UnclearPart)));
        };
        let told = http_body::Body::size_hint(&body).exact().is_none_or(|length| length == range.len());
        let by_range = by_range::validator(&parts.headers, answered_ms).is_some();
        if told
            && by_range
            && total > SLICE_BYTES
            && range.first % SLICE_BYTES == 0
            && total <= self.zone.doc.max_object_bytes
        {
            parts.headers.remove(header::CONTENT_RANGE);
            let variant = self.variant(&parts, terms, rules.strip_set_cookie, answered_ms, |variant| {
                variant.status = StatusCode::OK;
                variant.content = Content::Sliced(Sliced::new(total, true, &variant.on_disk));
                variant.length = Some(total);
            });
            return Ok(self.land_sliced(variant, parts.status, range.first..range.last + 1, body));
        }
        if range.len() > self.most_bytes() {
            self.hand_over_part(parts, body, read);
            return Ok(Landing::Alone(NotStorable::TooLarge));
        }
        parts.headers.remove(header::CONTENT_RANGE);
        let growing = Growing::new(range.first, &self.node.pull.budget);
        let body_length = http_body::Body::size_hint(&body).exact();
        let aligned = self.aligned().is_some_and(|range| Some(&range) != self.asked.fields.get(header::RANGE));
        let variant = self.variant(&parts, terms, rules.strip_set_cookie, answered_ms, |variant| {
            variant.content = Content::Growing(Arc::clone(&growing));
            variant.length = Some(total);
            variant.announced = Some(Announced { range, content_range, body_length, aligned });
        });
        Ok(self.land(variant, &growing, parts.status, body, None).await)
    }

    /// Hands over a part that may not be stored: only what the client has asked for of it.
    fn hand_over_part(&mut self, parts: Parts, body: Body, range: Option<(ByteRange, u64)>) {
        let response = Response::from_parts(parts, body);
        let asked = self.aligned().and(self.asked.fields.get(header::RANGE)).and_then(http_cache::range::single);
        let response = match (asked, range) {
            (Some((first, last)), Some((got, total))) if first >= got.first && first <= got.last => {
                let last = last.unwrap_or(u64::MAX).min(got.last);
                by_range::narrowed(response, got, ByteRange { first, last }, total)
            }
            _ => response,
        };
        self.hand_over(Exclusive::Response(response));
    }
}

/// `bytes 0-4/10`: the range and the length of the whole (RFC 9110 § 14.4). Nothing where either is not said.
pub(crate) fn read_content_range(value: &HeaderValue) -> Option<(ByteRange, u64)> {
    let text = value.to_str().ok()?;
    let (unit, rest) = text.split_once(' ')?;
    let (range, total) = rest.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    let (first, last, total) = (number(first)?, number(last)?, number(total)?);
    let holds = unit.eq_ignore_ascii_case("bytes") && first <= last && last < total;
    holds.then_some((ByteRange { first, last }, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        for (text, expected) in [
            ("bytes 0-4/10", Some((0, 4, 10))),
            ("Bytes 9-9/10", Some((9, 9, 10))),
            ("bytes 0-4/*", None),
            ("bytes */10", None),
            ("bytes 5-4/10", None),
            ("bytes 0-10/10", None),
            ("bytes -4/10", None),
            ("bytes +0-4/10", None),
            ("bytes=0-4/10", None),
            ("items 0-4/10", None),
            ("bytes 0-99999999999999999999/10", None),
        ] {
            let value = HeaderValue::from_static(text);
            let read = read_content_range(&value).map(|(range, total)| (range.first, range.last, total));
            assert_eq!(read, expected, "{text}");
        }
    }
}
