//! Byte ranges (RFC 9110 § 14): which bytes a request asks for, and how several of them are framed in one answer.
//!
//! The work and the answer are bounded whatever a client sends: at most [`MAX_RANGES`] ranges are looked at, and
//! overlapping ones are merged, so that no answer is larger than the body and its framing.

use http::{HeaderValue, Method};

use crate::conditional::{Validators, etag_list_matches};
use crate::date;

/// Ranges that one request may ask for.
pub const MAX_RANGES: usize = 32;

/// A range of bytes of a body, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteRange {
    /// The first byte.
    pub first: u64,
    /// The last byte; never before the first.
    pub last: u64,
}

impl ByteRange {
    /// How many bytes it has; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub fn len(&self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
}

/// What a request asks for of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All of it, with status 200.
    Whole,
    /// One range, with status 206.
    Single(ByteRange),
    /// Two or more ranges that neither overlap nor touch, with status 206 as `multipart/byteranges`. In the client's
    /// order, or ascending where some were merged.
    Several(Vec<ByteRange>),
    /// Nothing that is there: status 416 with [`unsatisfied`].
    NotSatisfiable,
    /// More than [`MAX_RANGES`].
    TooMany,
}

/// What a request with these `Range` and `If-Range` fields asks for of a body of `size` bytes.
///
/// Another method than GET, another unit than bytes and a malformed `Range` ask for the whole (§ 14.2), as does an
/// `If-Range` that does not name what is there: the same strong entity tag, or to the second the same date (§ 13.1.5).
pub fn evaluate(
    range: Option<&HeaderValue>,
    if_range: Option<&HeaderValue>,
    method: &Method,
    validators: &Validators<'_>,
    size: u64,
) -> Selection {
    let Some(range) = range else { return Selection::Whole };
    if method != Method::GET || if_range.is_some_and(|value| !still_the_same(value, validators)) {
        return Selection::Whole;
    }
    match parse(range.as_bytes()) {
        Parsed::Ignored => Selection::Whole,
        Parsed::TooMany => Selection::TooMany,
        Parsed::Specs(specs) => select(&specs, size),
    }
}

/// The only range that a request asks for, where it names its first byte: that, and the last unless it is the end.
pub fn single(range: &HeaderValue) -> Option<(u64, Option<u64>)> {
    let Parsed::Specs(specs) = parse(range.as_bytes()) else { return None };
    match specs.as_slice() {
        [Spec::From { first, last }] => Some((*first, Some(*last).filter(|last| *last != u64::MAX))),
        _ => None,
    }
}

/// The `Content-Range` of a 206 answer, or of one of its parts.
pub fn content_range(range: ByteRange, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.first, range.last)
}

/// The `Content-Range` of a 416 answer.
pub fn unsatisfied(size: u64) -> String {
    format!("bytes */{size}")
}

/// What stands before the bytes of each part of a `multipart/byteranges` body (§ 14.6).
pub fn multipart_head(boundary: &str, media_type: &str, range: ByteRange, size: u64) -> String {
    format!("\r\n--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: {}\r\n\r\n", content_range(range, size))
}

/// What stands after the last part.
pub fn multipart_tail(boundary: &str) -> String {
    format!("\r\n--{boundary}--\r\n")
}

/// The `Content-Length` of a `multipart/byteranges` body with these parts.
pub fn multipart_length(boundary: &str, media_type: &str, ranges: &[ByteRange], size: u64) -> u64 {
    let tail = multipart_tail(boundary).len() as u64;
    ranges.iter().fold(tail, |sum, range| {
        let head = multipart_head(boundary, media_type, *range, size).len() as u64;
        sum.saturating_add(head).saturating_add(range.len())
    })
}

/// Whether an `If-Range` names the representation that is there.
///
/// A client may only send a date that was strong when it got it (§ 13.1.5); a later one could not be told from it here.
fn still_the_same(if_range: &HeaderValue, validators: &Validators<'_>) -> bool {
    let value = if_range.as_bytes().trim_ascii();
    if value.ends_with(b"\"") {
        return etag_list_matches(value, validators.etag, true);
    }
    let date = std::str::from_utf8(value).ok().and_then(|text| date::parse(text, validators.now_s));
    date.is_some() && date == validators.last_modified_s
}

/// One element of the set: as the client wrote it, before the size is known.
#[derive(Debug, Clone, Copy)]
enum Spec {
    /// `first-` or `first-last`.
    From { first: u64, last: u64 },
    /// `-length`: the last so many.
    Suffix { length: u64 },
}

enum Parsed {
    Ignored,
    TooMany,
    Specs(Vec<Spec>),
}

fn parse(value: &[u8]) -> Parsed {
    let Some(at) = value.iter().position(|&b| b == b'=') else { return Parsed::Ignored };
    let (unit, set) = value.split_at(at);
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return Parsed::Ignored;
    }
    let mut specs = Vec::new();
    for element in set.get(1..).unwrap_or_default().split(|&b| b == b',') {
        let element = element.trim_ascii();
        if element.is_empty() {
            continue; // lists may hold empty elements (§ 5.6.1)
        }
        if specs.len() == MAX_RANGES {
            return Parsed::TooMany;
        }
        let Some(spec) = parse_spec(element) else { return Parsed::Ignored };
        specs.push(spec);
    }
    if specs.is_empty() { Parsed::Ignored } else { Parsed::Specs(specs) }
}

fn parse_spec(element: &[u8]) -> Option<Spec> {
    let dash = element.iter().position(|&b| b == b'-')?;
    let (first, last) = (element.get(..dash)?, element.get(dash + 1..)?);
    if first.is_empty() {
        return Some(Spec::Suffix { length: parse_number(last)? });
    }
    let first = parse_number(first)?;
    let last = if last.is_empty() { u64::MAX } else { parse_number(last)? };
    (first <= last).then_some(Spec::From { first, last })
}

/// Decimal digits, at least one. A number beyond `u64` is beyond every body: `u64::MAX` says the same.
fn parse_number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

fn select(specs: &[Spec], size: u64) -> Selection {
    let wanted: Vec<ByteRange> = specs.iter().filter_map(|spec| resolve(*spec, size)).collect();
    match *merged(&wanted) {
        // A suffix of an empty body is satisfiable, and Content-Range cannot say it (§ 14.1.2): the whole, which is empty.
        [] if size == 0 && specs.iter().any(|spec| matches!(spec, Spec::Suffix { length: 1.. })) => Selection::Whole,
        [] => Selection::NotSatisfiable,
        [single] => Selection::Single(single),
        ref several if several.len() == wanted.len() => Selection::Several(wanted),
        ref several => Selection::Several(several.to_vec()),
    }
}

/// The bytes of a body of `size` that a spec names, where there are any.
fn resolve(spec: Spec, size: u64) -> Option<ByteRange> {
    let end = size.checked_sub(1)?;
    match spec {
        Spec::From { first, last } => (first <= end).then_some(ByteRange { first, last: last.min(end) }),
        Spec::Suffix { length: 0 } => None,
        Spec::Suffix { length } => Some(ByteRange { first: size.saturating_sub(length), last: end }),
    }
}

/// The same bytes in ascending ranges that neither overlap nor touch.
fn merged(ranges: &[ByteRange]) -> Vec<ByteRange> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut merged: Vec<ByteRange> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(before) if range.first <= before.last.saturating_add(1) => before.last = before.last.max(range.last),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: &str = "\"a\"";
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn selection(range: &[u8], if_range: Option<&str>, method: &Method, size: u64) -> Selection {
        let range = HeaderValue::from_bytes(range).expect("value");
        let if_range = if_range.map(|value| value.parse().expect("value"));
        let validators = Validators { etag: ETAG, last_modified_s: Some(784_111_777), now_s: 784_111_777 };
        evaluate(Some(&range), if_range.as_ref(), method, &validators, size)
    }

    /// As `whole`, `416`, `many` or `first-last,…`.
    fn shown(selection: &Selection) -> String {
        match selection {
            Selection::Whole => "whole".to_owned(),
            Selection::Single(range) => format!("{}-{}", range.first, range.last),
            Selection::Several(ranges) => {
                ranges.iter().map(|r| format!("{}-{}", r.first, r.last)).collect::<Vec<_>>().join(",")
            }
            Selection::NotSatisfiable => "416".to_owned(),
            Selection::TooMany => "many".to_owned(),
        }
    }

    fn check(range: &str, size: u64, expected: &str) {
        assert_eq!(shown(&selection(range.as_bytes(), None, &Method::GET, size)), expected, "{range} of {size}");
    }

    #[test]
    fn ranges_of_ten_bytes() {
        for (range, expected) in [
            ("bytes=0-0", "0-0"),
            ("bytes=0-", "0-9"),
            ("bytes=3-5", "3-5"),
            ("bytes=3-99", "3-9"),
            ("bytes=9-", "9-9"),
            ("bytes=10-", "416"),
            ("bytes=-3", "7-9"),
            ("bytes=-99", "0-9"),
            ("bytes=-0", "416"),
            ("BYTES=0-1", "0-1"),
            ("bytes=00000000000000000000000000003-5", "3-5"),
            ("bytes=0-18446744073709551615", "0-9"),
            ("bytes=0-99999999999999999999999", "0-9"),
            ("bytes=18446744073709551616-", "416"),
            ("bytes=-99999999999999999999999", "0-9"),
            // malformed, or not ours: ignored
            ("bytes", "whole"),
            ("bytes=", "whole"),
            ("bytes=,", "whole"),
            ("bytes=-", "whole"),
            ("bytes=a-b", "whole"),
            ("bytes=5-3", "whole"),
            ("bytes=1-2-3", "whole"),
            ("bytes=+1-2", "whole"),
            ("bytes=1 - 2", "whole"),
            ("bytes =1-2", "whole"),
            ("lines=1-2", "whole"),
            ("0-5", "whole"),
            ("bytes=0-1,x", "whole"),
            // several
            ("bytes=0-1,5-6", "0-1,5-6"),
            ("bytes=5-6 ,, 0-1", "5-6,0-1"),
            ("bytes=0-1,20-30", "0-1"),
            ("bytes=20-,30-", "416"),
            ("bytes=0-4,3-6", "0-6"),
            ("bytes=0-1,2-3", "0-3"),
            ("bytes=8-9,0-3,2-4", "0-4,8-9"),
            ("bytes=0-0,-1", "0-0,9-9"),
            ("bytes=0-,0-,0-,0-", "0-9"),
        ] {
            check(range, 10, expected);
        }
    }

    #[test]
    fn extreme_sizes() {
        check("bytes=0-", 0, "416");
        check("bytes=-1", 0, "whole");
        check("bytes=-0", 0, "416");
        check("bytes=0-,-1", 0, "whole");
        check("bytes=0-", u64::MAX, "0-18446744073709551614");
        check("bytes=18446744073709551614-", u64::MAX, "18446744073709551614-18446744073709551614");
        assert_eq!(ByteRange { first: 0, last: u64::MAX }.len(), u64::MAX);
    }

    #[test]
    fn the_number_of_ranges_is_bounded() {
        let set = |n: u64| (0..n).map(|i| format!("{}-{},", i * 10, i * 10)).collect::<String>();
        let selection = |n| selection(format!("bytes={}", set(n)).as_bytes(), None, &Method::GET, 1 << 20);
        assert!(matches!(selection(32), Selection::Several(ranges) if ranges.len() == MAX_RANGES));
        assert_eq!(selection(33), Selection::TooMany);
        assert_eq!(selection(1_000), Selection::TooMany);
    }

    #[test]
    fn only_get_and_only_if_it_is_still_the_same() {
        for (method, if_range, expected) in [
            (&Method::GET, None, "0-1"),
            (&Method::HEAD, None, "whole"),
            (&Method::PUT, None, "whole"),
            (&Method::GET, Some(ETAG), "0-1"),
            (&Method::GET, Some("W/\"a\""), "whole"),
            (&Method::GET, Some("\"b\""), "whole"),
            (&Method::GET, Some(DATE), "0-1"),
            (&Method::GET, Some("Sun, 06 Nov 1994 08:49:38 GMT"), "whole"),
            (&Method::GET, Some("Sun, 06 Nov 1994 08:49:36 GMT"), "whole"),
            (&Method::GET, Some("nonsense"), "whole"),
            (&Method::GET, Some("*"), "whole"),
        ] {
            assert_eq!(shown(&selection(b"bytes=0-1", if_range, method, 10)), expected, "{method} {if_range:?}");
        }
        let none = Validators { etag: ETAG, last_modified_s: None, now_s: 784_111_777 };
        let (range, if_range) = (HeaderValue::from_static("bytes=0-1"), HeaderValue::from_static("nonsense"));
        assert_eq!(evaluate(Some(&range), Some(&if_range), &Method::GET, &none, 10), Selection::Whole);
        assert_eq!(evaluate(None, None, &Method::GET, &none, 10), Selection::Whole);
    }

    #[test]
    fn framing_adds_up() {
        let ranges = [ByteRange { first: 0, last: 1 }, ByteRange { first: 5, last: 9 }];
        let mut body = String::new();
        for range in ranges {
            body.push_str(&multipart_head("B", "text/plain", range, 10));
            body.push_str(&"x".repeat(usize::try_from(range.len()).expect("small")));
        }
        body.push_str(&multipart_tail("B"));
        assert_eq!(
            body,
            "\r\n--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\nxx\
             \r\n--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 5-9/10\r\n\r\nxxxxx\r\n--B--\r\n"
        );
        assert_eq!(multipart_length("B", "text/plain", &ranges, 10), body.len() as u64);
        assert_eq!(unsatisfied(10), "bytes */10");
    }

    proptest::proptest! {
        #[test]
        fn any_field_selects_only_what_is_there(
            field in "bytes=([0-9]{0,21}-[0-9]{0,21}[, ]{0,2}){0,40}|[ -~]{0,40}",
            size in proptest::prelude::any::<u64>(),
        ) {
            let ranges = match selection(field.as_bytes(), None, &Method::GET, size) {
                Selection::Single(range) => vec![range],
                Selection::Several(ranges) => ranges,
                _ => Vec::new(),
            };
            proptest::prop_assert!(ranges.len() <= MAX_RANGES);
            for range in &ranges {
                proptest::prop_assert!(range.first <= range.last && range.last < size);
            }
            proptest::prop_assert_eq!(merged(&ranges).len(), ranges.len(), "none overlap or touch");
        }
    }
}
