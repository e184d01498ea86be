//! Conditional requests (RFC 9110 § 13): does a request's condition hold for the representation that is there?

use http::{HeaderMap, HeaderName, Method, header};

use crate::date;

/// What identifies the state of a representation, and when that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validators<'a> {
    /// Its entity tag, as it stands in `ETag`; empty: it has none.
    pub etag: &'a str,
    /// When it was last modified, in seconds since the Unix epoch.
    pub last_modified_s: Option<u64>,
    /// The time, in seconds since the Unix epoch: for dates whose year has two digits.
    pub now_s: u64,
}

/// What a request's conditions ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Do what the method says.
    Proceed,
    /// Answer 304: the client has it already.
    NotModified,
    /// Answer 412: the condition does not hold.
    Failed,
}

/// Evaluates the conditions of a request in the order of RFC 9110 § 13.2.2. `If-Range` is [`crate::range`]'s.
///
/// A date that cannot be read, or is given twice, is no condition; an entity tag that cannot be read matches nothing.
pub fn evaluate(method: &Method, headers: &HeaderMap, validators: &Validators<'_>) -> Precondition {
    let reading = method == Method::GET || method == Method::HEAD;
    if headers.contains_key(header::IF_MATCH) {
        if !any_line_matches(headers, &header::IF_MATCH, validators.etag, true) {
            return Precondition::Failed;
        }
    } else if let (Some(since), Some(modified)) =
        (single_date(headers, &header::IF_UNMODIFIED_SINCE, validators.now_s), validators.last_modified_s)
        && modified > since
    {
        return Precondition::Failed;
    }
    if headers.contains_key(header::IF_NONE_MATCH) {
        if any_line_matches(headers, &header::IF_NONE_MATCH, validators.etag, false) {
            return if reading { Precondition::NotModified } else { Precondition::Failed };
        }
    } else if reading
        && let (Some(since), Some(modified)) =
            (single_date(headers, &header::IF_MODIFIED_SINCE, validators.now_s), validators.last_modified_s)
        && modified <= since
    {
        return Precondition::NotModified;
    }
    Precondition::Proceed
}

fn any_line_matches(headers: &HeaderMap, name: &HeaderName, etag: &str, strong: bool) -> bool {
    headers.get_all(name).iter().any(|value| etag_list_matches(value, etag, strong))
}

fn single_date(headers: &HeaderMap, name: &HeaderName, now_s: u64) -> Option<u64> {
    let mut lines = headers.get_all(name).iter();
    let value = lines.next()?;
    if lines.next().is_some() {
        return None;
    }
    date::parse(value.to_str().ok()?, now_s)
}

/// Whether `value`, a field of `If-Match` or `If-None-Match`, names `etag` (with its quotes) or is `*`.
///
/// `strong`: only strong tags match (RFC 9110 § 8.8.3.2); else `W/` is left aside on both sides. What follows
/// something that is not an entity tag is not looked at.
pub fn etag_list_matches(value: impl AsRef<[u8]>, etag: &str, strong: bool) -> bool {
    let value = value.as_ref().trim_ascii();
    if value == b"*" {
        return true;
    }
    let (etag_weak, etag) = split_weak(etag.as_bytes());
    let mut rest = value;
    while let Some((weak, tag, after)) = next_etag(rest) {
        if tag == etag && !(strong && (weak || etag_weak)) {
            return true;
        }
        rest = after;
    }
    false
}

/// The first entity tag of a list: whether it is weak, the tag with its quotes, and what follows it.
fn next_etag(list: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    let start = list.iter().position(|b| !matches!(b, b' ' | b'\t' | b','))?;
    let (weak, tag) = split_weak(list.get(start..)?);
    let inner = tag.strip_prefix(b"\"")?;
    let length = inner.iter().position(|&b| b == b'"')?;
    // etagc = %x21 / %x23-7E / obs-text: no spaces and no controls.
    if inner.get(..length)?.iter().any(|&b| b <= b' ' || b == 0x7f) {
        return None;
    }
    let (tag, after) = tag.split_at_checked(length + 2)?;
    let ends = after.trim_ascii_start();
    (ends.is_empty() || ends.starts_with(b",")).then_some((weak, tag, after))
}

/// Whether a tag is weak, and what is left without the sign of it. The sign is case-sensitive.
fn split_weak(tag: &[u8]) -> (bool, &[u8]) {
    match tag.strip_prefix(b"W/") {
        Some(opaque) => (true, opaque),
        None => (false, tag),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODIFIED_S: u64 = 784_111_777; // Sun, 06 Nov 1994 08:49:37 GMT
    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn check(method: &Method, lines: &[(&'static str, &str)], expected: Precondition) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().expect("value"));
        }
        let validators = Validators { etag: "\"a\"", last_modified_s: Some(MODIFIED_S), now_s: MODIFIED_S };
        assert_eq!(evaluate(method, &headers, &validators), expected, "{method} {lines:?}");
    }

    #[test]
    fn the_order_of_rfc_9110() {
        use Precondition::{Failed, NotModified, Proceed};
        let (get, put) = (&Method::GET, &Method::PUT);
        check(get, &[], Proceed);
        check(get, &[("if-match", "\"a\"")], Proceed);
        check(get, &[("if-match", "W/\"a\"")], Failed);
        check(get, &[("if-match", "*")], Proceed);
        check(get, &[("if-match", "\"b\""), ("if-match", "\"a\"")], Proceed);
        check(get, &[("if-match", "nonsense")], Failed);
        check(get, &[("if-match", "\"a\""), ("if-unmodified-since", BEFORE)], Proceed);
        check(get, &[("if-unmodified-since", BEFORE)], Failed);
        check(get, &[("if-unmodified-since", SAME)], Proceed);
        check(get, &[("if-unmodified-since", "nonsense")], Proceed);
        check(get, &[("if-none-match", "\"b\", W/\"a\"")], NotModified);
        check(&Method::HEAD, &[("if-none-match", "*")], NotModified);
        check(put, &[("if-none-match", "*")], Failed);
        check(put, &[("if-none-match", "\"b\"")], Proceed);
        check(get, &[("if-none-match", "\"b\""), ("if-modified-since", AFTER)], Proceed);
        check(get, &[("if-modified-since", AFTER)], NotModified);
        check(get, &[("if-modified-since", SAME)], NotModified);
        check(get, &[("if-modified-since", BEFORE)], Proceed);
        check(put, &[("if-modified-since", SAME)], Proceed);
        check(get, &[("if-modified-since", SAME), ("if-modified-since", SAME)], Proceed);
        check(get, &[("if-match", "\"a\""), ("if-none-match", "\"a\"")], NotModified);
        check(get, &[("if-match", "\"x\""), ("if-none-match", "\"a\"")], Failed);
    }

    #[test]
    fn without_a_modification_date_dates_are_no_condition() {
        let mut headers = HeaderMap::new();
        headers.insert("if-modified-since", AFTER.parse().expect("value"));
        headers.insert("if-unmodified-since", BEFORE.parse().expect("value"));
        let validators = Validators { etag: "\"a\"", last_modified_s: None, now_s: MODIFIED_S };
        assert_eq!(evaluate(&Method::GET, &headers, &validators), Precondition::Proceed);
    }

    #[test]
    fn entity_tag_lists() {
        for (list, weakly, strongly) in [
            ("\"a\"", true, true),
            ("W/\"a\"", true, false),
            ("w/\"a\"", false, false),
            ("*", true, true),
            (" * ", true, true),
            ("\"*\"", false, false),
            ("\"b\",\"a\"", true, true),
            ("\"b\" , , \"a\" ", true, true),
            ("\"b,\\\", \"a\"", true, true),
            ("\"x, \"a\"", false, false),
            ("\"b\"\"a\"", false, false),
            ("\"b\" \"a\"", false, false),
            ("a", false, false),
            ("\"a", false, false),
            ("\"A\"", false, false),
            ("\"aa\"", false, false),
            ("", false, false),
            (",", false, false),
            ("W/", false, false),
        ] {
            assert_eq!(etag_list_matches(list, "\"a\"", false), weakly, "weakly {list}");
            assert_eq!(etag_list_matches(list, "\"a\"", true), strongly, "strongly {list}");
        }
        assert!(etag_list_matches(b"\"\xff\", \"a\"", "\"a\"", true), "obs-text is allowed in a tag");
    }

    proptest::proptest! {
        #[test]
        fn no_list_panics(list in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            let _ = etag_list_matches(&list, "\"a\"", true);
        }

        #[test]
        fn a_tag_is_found_anywhere_in_a_list(before in proptest::collection::vec("[!#-~]{0,5}", 0..4)) {
            let mut list: String = before.iter().map(|tag| format!("\"{tag}\", ")).collect();
            list.push_str("\"needle-0\"");
            proptest::prop_assert!(etag_list_matches(&list, "\"needle-0\"", true));
        }
    }
}
