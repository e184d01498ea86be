//! `Vary` (RFC 9111 § 4.1): which stored response answers a request, where one URL has several.
//!
//! The values of the fields that `Vary` names are compared after they were brought into one form, so that requests that mean
//! the same share a response: lines are combined and blanks around commas dropped for every field, and for `Accept-Encoding`
//! and `Accept-Language` order, letter case and weights of 1 play no part.

use http::{HeaderMap, HeaderName, header};

/// Fields that one `Vary` may name; one with more counts as `*`.
pub const MAX_VARY_FIELDS: usize = 32;

/// What the `Vary` of a response says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vary {
    /// `*`: no other request can be answered with it.
    Any,
    /// These fields, in alphabetical order, each once; empty: every request may be.
    Fields(Vec<HeaderName>),
}

impl Vary {
    /// Reads all `Vary` lines. A member that is no field name counts as `*`: nobody can tell what it stands for.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut names = Vec::new();
        for line in headers.get_all(header::VARY) {
            for member in line.as_bytes().split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|m| !m.is_empty()) {
                match HeaderName::from_bytes(member) {
                    Ok(name) if member != b"*" => names.push(name),
                    _ => return Self::Any,
                }
            }
        }
        names.sort_by(|a: &HeaderName, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        if names.len() > MAX_VARY_FIELDS { Self::Any } else { Self::Fields(names) }
    }
}

/// The value of a field of a request, in the form in which values are compared. Nothing: the request has no such field,
/// which is another thing than an empty value.
pub fn selecting_value(name: &HeaderName, request: &HeaderMap) -> Option<Box<[u8]>> {
    let mut lines = request.get_all(name).iter().peekable();
    lines.peek()?;
    let members: Vec<&[u8]> = lines.flat_map(|line| split(line.as_bytes())).collect();
    let joined = match *name {
        header::ACCEPT_ENCODING | header::ACCEPT_LANGUAGE => {
            let mut weighted: Vec<(u16, Vec<u8>)> = members.iter().map(|member| weigh(member)).collect();
            // Highest weight first; among equals the order says nothing.
            weighted.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
            weighted.dedup();
            // In bytes: two values that are no text must not become the same.
            let shown = |(weight, value): &(u16, Vec<u8>)| match *weight {
                FULL_WEIGHT => value.clone(),
                weight => [value.as_slice(), format!(";q=0.{weight:03}").as_bytes()].concat(),
            };
            weighted.iter().map(shown).collect::<Vec<_>>().join(&b',')
        }
        _ => members.join(&b','),
    };
    Some(joined.into_boxed_slice())
}

/// The language that a request likes best, in lower case; nothing where two are liked equally or there is none.
pub fn favourite_language(request: &HeaderMap) -> Option<String> {
    let mut weighted: Vec<(u16, Vec<u8>)> =
        request.get_all(header::ACCEPT_LANGUAGE).iter().flat_map(|line| split(line.as_bytes())).map(weigh).collect();
    weighted.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    match weighted.as_slice() {
        [(weight, _), (second, _), ..] if weight == second => None,
        [(weight, language), ..] if *weight > 0 && language != b"*" => String::from_utf8(language.clone()).ok(),
        _ => None,
    }
}

/// Weights in thousandths.
pub(crate) const FULL_WEIGHT: u16 = 1_000;

/// A member of a list with weights: weight and value, in lower case.
fn weigh(member: &[u8]) -> (u16, Vec<u8>) {
    let mut parts = member.split(|&b| b == b';').map(<[u8]>::trim_ascii);
    let mut value = parts.next().unwrap_or_default().to_ascii_lowercase();
    if value == b"x-gzip" {
        value = b"gzip".to_vec(); // RFC 9110 § 8.4.1.3
    }
    let mut weight = FULL_WEIGHT;
    for parameter in parts {
        let read = match parameter.split_at_checked(2) {
            Some((b"q=" | b"Q=", digits)) => thousandths(digits),
            _ => None,
        };
        match read {
            Some(read) => weight = read,
            // Whatever this is, it is part of what was asked for.
            None => {
                value.push(b';');
                value.extend_from_slice(parameter);
            }
        }
    }
    (weight, value)
}

/// `0.5` as 500 (RFC 9110 § 12.4.2).
pub(crate) fn thousandths(digits: &[u8]) -> Option<u16> {
    let (whole, fraction) = digits.split_first()?;
    let fraction = match fraction {
        [] => &[],
        [b'.', rest @ ..] if rest.len() <= 3 && rest.iter().all(u8::is_ascii_digit) => rest,
        _ => return None,
    };
    let scale = [100, 10, 1];
    let fraction: u16 = fraction.iter().zip(scale).map(|(digit, scale)| u16::from(digit - b'0') * scale).sum();
    match whole {
        b'0' => Some(fraction),
        b'1' if fraction == 0 => Some(FULL_WEIGHT),
        _ => None,
    }
}

/// The members of a list, without the blanks around them. Commas in quotes separate nothing.
fn split(line: &[u8]) -> Vec<&[u8]> {
    let (mut members, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, &byte) in line.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                members.push(line.get(start..at).unwrap_or_default().trim_ascii());
                start = at + 1;
            }
            _ => {}
        }
    }
    members.push(line.get(start..).unwrap_or_default().trim_ascii());
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &str, lines: &[&str]) -> HeaderMap {
        let name: HeaderName = name.parse().expect("name");
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name.clone(), http::HeaderValue::from_bytes(line.as_bytes()).expect("value"));
        }
        headers
    }

    #[test]
    fn what_vary_names() {
        for (lines, expected) in [
            (&[][..], Some("")),
            (&["Foo, bar", "FOO"], Some("bar,foo")),
            (&["", ","], Some("")),
            (&["*"], None),
            (&["*, *"], None),
            (&["", "*"], None),
            (&[", *"], None),
            (&["Foo, *"], None),
            (&["*, Foo"], None),
            (&["a b"], None),
        ] {
            let shown = match Vary::of(&headers("vary", lines)) {
                Vary::Any => None,
                Vary::Fields(names) => Some(names.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(",")),
            };
            assert_eq!(shown.as_deref(), expected, "{lines:?}");
        }
        let many = |n: usize| (0..n).map(|i| format!("x{i},")).collect::<String>();
        assert!(matches!(Vary::of(&headers("vary", &[&many(MAX_VARY_FIELDS)])), Vary::Fields(_)));
        assert_eq!(Vary::of(&headers("vary", &[&many(MAX_VARY_FIELDS + 1)])), Vary::Any);
    }

    #[test]
    fn values_that_mean_the_same_are_the_same() {
        for (name, one, other, same) in [
            ("foo", &["1, 2"][..], &["1", "2"][..], true),
            ("foo", &["1,2"], &[" 1, 2 "], true),
            ("foo", &["1,2"], &["2,1"], false),
            ("foo", &["a"], &["A"], false),
            ("foo", &["\"a, b\""], &["\"a,b\""], false),
            ("foo", &[""], &[], false),
            ("accept-language", &["en, de"], &["de, en"], true),
            ("accept-language", &["en, de"], &["eN, De"], true),
            ("accept-language", &["en, de"], &[" en ,   de"], true),
            ("accept-language", &["en;q=1.0, de"], &["de", "en"], true),
            ("accept-language", &["en;q=0.5, de"], &["de, en;q=0.50"], true),
            ("accept-language", &["en;q=0.5, de"], &["de;q=0.5, en"], false),
            ("accept-encoding", &["gzip, br"], &["br,x-gzip"], true),
            ("accept-encoding", &["gzip;q=0"], &["gzip"], false),
            ("accept-encoding", &["gzip"], &["gzip, br"], false),
            ("accept-encoding", &["gzip;q=2"], &["gzip"], false),
            ("accept-encoding", &["gzip;q=0.5"], &["gzip;500"], false),
            ("accept-encoding", &["gzip;q=0.5"], &["gzip;q=500"], false),
            ("accept-encoding", &["gzip;q=0.5"], &["gzip; Q=0.50"], true),
        ] {
            let field: HeaderName = name.parse().expect("name");
            let (one, other) = (headers(name, one), headers(name, other));
            let equal = selecting_value(&field, &one) == selecting_value(&field, &other);
            assert_eq!(equal, same, "{name} {one:?} {other:?}");
        }
    }

    #[test]
    fn values_that_are_no_text_differ() {
        let value = |byte: u8| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_LANGUAGE, http::HeaderValue::from_bytes(&[byte]).expect("value"));
            selecting_value(&header::ACCEPT_LANGUAGE, &headers)
        };
        assert_ne!(value(0xfe), value(0xff));
    }

    #[test]
    fn the_favourite_language() {
        for (lines, expected) in [
            (&["fr;q=0.5, de;q=1.0"][..], Some("de")),
            (&["de"], Some("de")),
            (&["DE-at", "en;q=0.9"], Some("de-at")),
            (&["de, en"], None),
            (&["*"], None),
            (&["de;q=0"], None),
            (&[], None),
        ] {
            assert_eq!(favourite_language(&headers("accept-language", lines)).as_deref(), expected, "{lines:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_value_panics(value in proptest::collection::vec(0x20_u8..=0xff, 0..60)) {
            let value: Vec<u8> = value.into_iter().filter(|&b| b != 0x7f).collect();
            for name in ["vary", "foo", "accept-language", "accept-encoding"] {
                let name: HeaderName = name.parse().expect("name");
                let mut headers = HeaderMap::new();
                headers.insert(name.clone(), http::HeaderValue::from_bytes(&value).expect("value"));
                let _ = (Vary::of(&headers), selecting_value(&name, &headers), favourite_language(&headers));
            }
        }
    }
}
