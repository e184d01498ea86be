//! What a newer message changes in a stored response: a 304 freshens it (RFC 9111 § 4.3.4), a HEAD does (§ 4.3.5), and an
//! unsafe request ends it (§ 4.4).

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use crate::hop;

/// The fields of a stored response after `newer`, the fields of a 304 or of the answer to a HEAD, were taken up (§ 3.2).
///
/// Every field that `newer` has replaces all lines of that name, except those that end at a hop and `Content-Length`: the
/// length of what is stored is what is stored. `keep` names further fields that stay as they are. A weak entity tag never
/// becomes strong: its bytes were not compared.
pub fn freshened(stored: &HeaderMap, newer: &HeaderMap, keep: &[HeaderName]) -> HeaderMap {
    let mut newer = newer.clone();
    hop::strip(&mut newer);
    newer.remove(header::CONTENT_LENGTH);
    for name in keep {
        newer.remove(name);
    }
    if stored.get(header::ETAG).is_some_and(is_weak) && newer.get(header::ETAG).is_some_and(|etag| !is_weak(etag)) {
        newer.remove(header::ETAG);
    }
    let mut fields = stored.clone();
    for name in newer.keys() {
        fields.remove(name);
    }
    for (name, value) in &newer {
        fields.append(name.clone(), value.clone());
    }
    fields
}

/// Whether a 304 with the fields `newer` is about a response with the fields `stored` (§ 4.3.4). A validator in it has to be
/// the stored one; one without validators is about what it was asked with.
pub fn is_about(stored: &HeaderMap, newer: &HeaderMap) -> bool {
    match (newer.get(header::ETAG), stored.get(header::ETAG)) {
        // A weak tag compares weakly, and so does a strong one with a weak one of the same text: servers that compress send
        // a weak tag with the response, and the strong one that it came from with the 304.
        (Some(new), Some(old)) => opaque(new) == opaque(old),
        // A strong tag that is not stored is another representation's, unless the date says that it is this one.
        (Some(_), None) => {
            let (new, old) = (newer.get(header::LAST_MODIFIED), stored.get(header::LAST_MODIFIED));
            new.is_some() && new == old
        }
        (None, _) => match (newer.get(header::LAST_MODIFIED), stored.get(header::LAST_MODIFIED)) {
            (Some(new), Some(old)) => new == old || stored.contains_key(header::ETAG),
            _ => true,
        },
    }
}

/// Whether the answer to a HEAD describes the stored response still (§ 4.3.5): the validators and the length that it has are
/// the stored ones.
pub fn head_agrees(stored: &HeaderMap, stored_bytes: u64, newer: &HeaderMap) -> bool {
    let same = |name: &HeaderName| newer.get(name).is_none_or(|new| stored.get(name) == Some(new));
    let length = newer.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    same(&header::ETAG) && same(&header::LAST_MODIFIED) && length.is_none_or(|length| length == stored_bytes)
}

fn is_weak(etag: &HeaderValue) -> bool {
    etag.as_bytes().starts_with(b"W/")
}

fn opaque(etag: &HeaderValue) -> &[u8] {
    let bytes = etag.as_bytes();
    bytes.strip_prefix(b"W/").unwrap_or(bytes)
}

/// Whether a method changes nothing at the origin (RFC 9110 § 9.2.1 and the registry of methods).
pub fn is_safe(method: &Method) -> bool {
    matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PROPFIND" | "REPORT" | "SEARCH" | "QUERY" | "PRI")
}

/// The URLs, as path and query, whose stored responses end when an unsafe request for `target` at `host` was answered with
/// `status` and `headers` (§ 4.4): its own, and those of `Location` and `Content-Location` on the same host. None after an
/// error.
pub fn invalidated(host: &str, target: &str, status: StatusCode, headers: &HeaderMap) -> Vec<String> {
    if !status.is_success() && !status.is_redirection() {
        return Vec::new();
    }
    let mut targets = vec![target.to_owned()];
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let reference = headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(resolved) = reference.and_then(|reference| resolve(host, target, reference))
            && !targets.contains(&resolved)
        {
            targets.push(resolved);
        }
    }
    targets
}

/// Whether `Content-Location` names the URL of the request itself (RFC 9110 § 8.7).
pub fn is_own_location(host: &str, target: &str, headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_LOCATION)
        .and_then(|value| resolve(host, target, value.to_str().ok()?))
        .is_some_and(|resolved| resolved == target)
}

/// The path and query that a reference names, seen from `target` at `host` (RFC 3986 § 5.2); nothing where it leads to
/// another host.
fn resolve(host: &str, target: &str, reference: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default().trim();
    let lower = reference.to_ascii_lowercase();
    let after_scheme = ["http:", "https:"].iter().find_map(|scheme| lower.strip_prefix(scheme).map(|_| scheme.len()));
    let rest = reference.get(after_scheme.unwrap_or(0)..)?;
    if let Some(authority_on) = rest.strip_prefix("//") {
        let end = authority_on.find(['/', '?']).unwrap_or(authority_on.len());
        let (authority, path) = authority_on.split_at_checked(end)?;
        let path = if path.starts_with('/') { without_dots(path) } else { format!("/{path}") };
        return authority.eq_ignore_ascii_case(host).then_some(path);
    }
    if after_scheme.is_some() || rest.split(['/', '?']).next().is_some_and(|first| first.contains(':')) {
        return None;
    }
    let (path, _) = target.split_once('?').unwrap_or((target, ""));
    Some(match rest.bytes().next() {
        None => target.to_owned(),
        Some(b'/') => without_dots(rest),
        Some(b'?') => format!("{path}{rest}"),
        Some(_) => {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            without_dots(&format!("{folder}/{rest}"))
        }
    })
}

/// Removes `.` and `..` from a path (RFC 3986 § 5.2.4); the query stays as it is.
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_at_checked(target.find('?').unwrap_or(target.len())).unwrap_or((target, ""));
    let mut segments: Vec<&str> = Vec::new();
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(segment) = parts.next() {
        let last = parts.peek().is_none();
        match segment {
            "." if last => segments.push(""),
            "." => {}
            ".." => {
                segments.pop();
                if last {
                    segments.push("");
                }
            }
            segment => segments.push(segment),
        }
    }
    format!("/{}{query}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().expect("value"));
        }
        headers
    }

    #[test]
    fn a_304_replaces_what_it_has_and_never_the_length() {
        let stored = headers(&[("content-length", "36"), ("a", "1"), ("a", "2"), ("b", "1"), ("set-cookie", "x=1")]);
        let newer = headers(&[
            ("content-length", "10"),
            ("a", "3"),
            ("c", "4"),
            ("connection", "d"),
            ("d", "5"),
            ("keep-alive", "1"),
            ("set-cookie", "x=2"),
        ]);
        let fields = freshened(&stored, &newer, &[header::SET_COOKIE]);
        let expected = headers(&[("content-length", "36"), ("b", "1"), ("set-cookie", "x=1"), ("a", "3"), ("c", "4")]);
        assert_eq!(fields, expected);
    }

    #[test]
    fn a_weak_tag_never_becomes_strong() {
        for (stored, newer, kept) in
            [("W/\"a\"", "\"a\"", "W/\"a\""), ("\"a\"", "W/\"a\"", "W/\"a\""), ("W/\"a\"", "W/\"a\"", "W/\"a\"")]
        {
            let fields = freshened(&headers(&[("etag", stored)]), &headers(&[("etag", newer)]), &[]);
            assert_eq!(fields, headers(&[("etag", kept)]), "{stored} {newer}");
        }
    }

    #[test]
    fn which_response_a_304_is_about() {
        for (stored, newer, about) in [
            (&[("etag", "\"a\"")][..], &[("etag", "\"a\"")][..], true),
            (&[("etag", "\"a\"")], &[("etag", "\"b\"")], false),
            (&[("etag", "W/\"a\"")], &[("etag", "\"a\"")], true),
            (&[("etag", "\"a\"")], &[], true),
            (&[("last-modified", "x")], &[("etag", "\"b\"")], false),
            (&[("last-modified", "x")], &[("etag", "\"b\""), ("last-modified", "x")], true),
            (&[("last-modified", "x")], &[("last-modified", "x")], true),
            (&[("last-modified", "x")], &[("last-modified", "y")], false),
            (&[("etag", "\"a\""), ("last-modified", "x")], &[("last-modified", "y")], true),
        ] {
            assert_eq!(is_about(&headers(stored), &headers(newer)), about, "{stored:?} {newer:?}");
        }
    }

    #[test]
    fn a_head_agrees_or_not() {
        let stored = headers(&[("etag", "\"a\""), ("last-modified", "x")]);
        for (newer, agrees) in [
            (&[][..], true),
            (&[("etag", "\"a\""), ("content-length", "5")], true),
            (&[("etag", "\"b\"")], false),
            (&[("last-modified", "y")], false),
            (&[("content-length", "6")], false),
        ] {
            assert_eq!(head_agrees(&stored, 5, &headers(newer)), agrees, "{newer:?}");
        }
        assert!(!head_agrees(&HeaderMap::new(), 5, &stored), "validators that are not stored");
    }

    #[test]
    fn references() {
        for (reference, expected) in [
            ("", Some("/a/b?q=1")),
            ("c", Some("/a/c")),
            ("./c?x=1", Some("/a/c?x=1")),
            ("../c", Some("/c")),
            ("../../../c", Some("/c")),
            ("/c#f", Some("/c")),
            ("/c/./d/../e/", Some("/c/e/")),
            ("..", Some("/")),
            ("?x", Some("/a/b?x")),
            ("http://h.example/c", Some("/c")),
            ("HTTPS://H.example?x", Some("/?x")),
            ("//h.example", Some("/")),
            ("//other.example/c", None),
            ("http://h.example:81/c", None),
            ("mailto:x", None),
            ("http:/c", None),
        ] {
            assert_eq!(resolve("h.example", "/a/b?q=1", reference).as_deref(), expected, "{reference}");
        }
    }

    #[test]
    fn what_an_unsafe_request_ends() {
        let answer = headers(&[("location", "/new"), ("content-location", "c")]);
        let ended = |status: u16| invalidated("h", "/a/b", StatusCode::from_u16(status).expect("status"), &answer);
        assert_eq!(ended(201), ["/a/b", "/new", "/a/c"]);
        assert_eq!(ended(303).len(), 3);
        assert!(ended(404).is_empty() && ended(500).is_empty());
        assert!(is_own_location("h", "/a/b", &headers(&[("content-location", "b")])));
        assert!(!is_own_location("h", "/a/b", &answer) && !is_own_location("h", "/a/b", &HeaderMap::new()));
        for (method, safe) in [("GET", true), ("PROPFIND", true), ("POST", false), ("M-SEARCH", false), ("get", false)]
        {
            assert_eq!(is_safe(&method.parse().expect("method")), safe, "{method}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_reference_panics(reference in "(http:|//|[.]{1,2}/)?.{0,30}") {
            if let Some(resolved) = resolve("h", "/a/b?c", &reference) {
                proptest::prop_assert!(resolved.starts_with('/'));
            }
        }
    }
}
