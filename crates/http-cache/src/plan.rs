//! What to answer to a GET or HEAD for a representation that is at hand: conditions first, then ranges, as one pure
//! decision that origin and edge share. Who acts on it turns each [`Piece`] into bytes.

use http::{HeaderMap, Method, StatusCode, header};

use crate::conditional::{self, Precondition, Validators};
use crate::range::{self, ByteRange, Selection};

/// A piece of the body of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// These bytes: the framing of `multipart/byteranges`.
    Text(String),
    /// These bytes of the representation.
    Span(ByteRange),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// 200 or 206 with a body (to HEAD: with the head of one).
    Body {
        /// 200 or 206.
        status: StatusCode,
        /// `Content-Range`, for a single range.
        content_range: Option<String>,
        /// `Content-Type` instead of the representation's, for several ranges.
        content_type: Option<String>,
        /// `Content-Length`.
        length: u64,
        /// The body, in order. Empty for HEAD.
        pieces: Vec<Piece>,
    },
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
    /// 416, with this `Content-Range`. `too_many`: for the number of ranges, not for where they lie.
    NotSatisfiable {
        /// `bytes */SIZE`.
        content_range: String,
        /// There are more than [`range::MAX_RANGES`].
        too_many: bool,
    },
}

/// Decides the answer to a GET or HEAD with these headers for a representation of `size` bytes and of the type
/// `media_type`. `boundary` separates the parts of several ranges: it must not occur in the representation, so a random
/// one is right.
pub fn plan(
    method: &Method,
    headers: &HeaderMap,
    validators: &Validators<'_>,
    size: u64,
    media_type: &str,
    boundary: &str,
) -> Plan {
    match conditional::evaluate(method, headers, validators) {
        Precondition::NotModified => return Plan::NotModified,
        Precondition::Failed => return Plan::PreconditionFailed,
        Precondition::Proceed => {}
    }
    let asked = (headers.get(header::RANGE), headers.get(header::IF_RANGE));
    let plan = match range::evaluate(asked.0, asked.1, method, validators, size) {
        Selection::Whole => whole(size),
        Selection::Single(range) => Plan::Body {
            status: StatusCode::PARTIAL_CONTENT,
            content_range: Some(range::content_range(range, size)),
            content_type: None,
            length: range.len(),
            pieces: vec![Piece::Span(range)],
        },
        Selection::Several(ranges) => several(&ranges, size, media_type, boundary),
        Selection::NotSatisfiable => {
            return Plan::NotSatisfiable { content_range: range::unsatisfied(size), too_many: false };
        }
        Selection::TooMany => return Plan::NotSatisfiable { content_range: range::unsatisfied(size), too_many: true },
    };
    match plan {
        Plan::Body { status, content_range, content_type, length, .. } if method == Method::HEAD => {
            Plan::Body { status, content_range, content_type, length, pieces: Vec::new() }
        }
        plan => plan,
    }
}

fn whole(size: u64) -> Plan {
    let pieces = match size.checked_sub(1) {
        Some(last) => vec![Piece::Span(ByteRange { first: 0, last })],
        None => Vec::new(),
    };
    Plan::Body { status: StatusCode::OK, content_range: None, content_type: None, length: size, pieces }
}

fn several(ranges: &[ByteRange], size: u64, media_type: &str, boundary: &str) -> Plan {
    let mut pieces = Vec::with_capacity(ranges.len() * 2 + 1);
    for range in ranges {
        pieces.push(Piece::Text(range::multipart_head(boundary, media_type, *range, size)));
        pieces.push(Piece::Span(*range));
    }
    pieces.push(Piece::Text(range::multipart_tail(boundary)));
    Plan::Body {
        status: StatusCode::PARTIAL_CONTENT,
        content_range: None,
        content_type: Some(format!("multipart/byteranges; boundary={boundary}")),
        length: range::multipart_length(boundary, media_type, ranges, size),
        pieces,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, fields: &[(header::HeaderName, &str)], size: u64) -> Plan {
        let headers: HeaderMap =
            fields.iter().map(|(name, value)| (name.clone(), value.parse().expect("value"))).collect();
        let validators = Validators { etag: "\"e\"", last_modified_s: Some(1_000), now_s: 1_000 };
        plan(&method, &headers, &validators, size, "text/plain", "B")
    }

    fn body(plan: Plan) -> (u16, u64, Option<String>, Vec<Piece>) {
        match plan {
            Plan::Body { status, length, content_range, pieces, .. } => {
                (status.as_u16(), length, content_range, pieces)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn whole_head_and_empty() {
        let all = vec![Piece::Span(ByteRange { first: 0, last: 9 })];
        assert_eq!(body(check(Method::GET, &[], 10)), (200, 10, None, all));
        assert_eq!(body(check(Method::HEAD, &[], 10)), (200, 10, None, vec![]));
        assert_eq!(body(check(Method::GET, &[], 0)), (200, 0, None, vec![]));
    }

    #[test]
    fn conditions_come_before_ranges() {
        let range = (header::RANGE, "bytes=2-3");
        assert_eq!(check(Method::GET, &[range.clone(), (header::IF_NONE_MATCH, "\"e\"")], 10), Plan::NotModified);
        assert_eq!(check(Method::GET, &[range.clone(), (header::IF_MATCH, "\"x\"")], 10), Plan::PreconditionFailed);
        let span = vec![Piece::Span(ByteRange { first: 2, last: 3 })];
        assert_eq!(body(check(Method::GET, &[range], 10)), (206, 2, Some("bytes 2-3/10".into()), span));
    }

    #[test]
    fn several_ranges_announce_the_length_that_they_have() {
        let plan = check(Method::GET, &[(header::RANGE, "bytes=0-1,5-6")], 10);
        let (status, length, _, pieces) = body(plan);
        let real: u64 = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.len() as u64,
                Piece::Span(range) => range.len(),
            })
            .sum();
        assert_eq!((status, length, pieces.len()), (206, real, 5));
    }

    #[test]
    fn refusals() {
        let refused = |value: &str| check(Method::GET, &[(header::RANGE, value)], 10);
        let none = Plan::NotSatisfiable { content_range: "bytes */10".into(), too_many: false };
        assert_eq!(refused("bytes=10-"), none);
        let many = format!("bytes={}", vec!["1-1"; range::MAX_RANGES + 1].join(","));
        assert_eq!(refused(&many), Plan::NotSatisfiable { content_range: "bytes */10".into(), too_many: true });
    }
}
