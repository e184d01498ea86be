//! The request target (RFC 9112 section 3.2): origin-form, absolute-form and asterisk-form, byte for byte.

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Method, Uri};

use super::refusal::Refusal;

/// The target as a URI that holds exactly these bytes. The query and the path are never normalised here; what the URI type
/// cannot carry unchanged (`<`, `>`, a backquote in a path, a quotation mark in a query, a fragment) is refused.
///
/// # Errors
/// [`Refusal::Target`], [`Refusal::TargetTooLong`], or [`Refusal::Host`] for what is wrong with its authority.
pub(crate) fn parse(method: &Method, raw: Bytes, max_bytes: usize) -> Result<Uri, Refusal> {
    if raw.len() > max_bytes {
        return Err(Refusal::TargetTooLong);
    }
    if !raw.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#') {
        return Err(Refusal::Target);
    }
    match raw.first() {
        Some(b'/') => origin_form(raw),
        Some(b'*') if raw.len() == 1 && method == Method::OPTIONS => Ok(Uri::from(PathAndQuery::from_static("*"))),
        _ => absolute_form(raw),
    }
}

/// The same judgement of a path and query as HTTP/2 has them.
///
/// # Errors
/// [`Refusal::Target`], [`Refusal::TargetTooLong`].
pub(crate) fn path(method: &Method, raw: Bytes, max_bytes: usize) -> Result<PathAndQuery, Refusal> {
    if raw.len() > max_bytes {
        return Err(Refusal::TargetTooLong);
    }
    let is_form = raw.first() == Some(&b'/') || (*raw == *b"*" && *method == Method::OPTIONS);
    if !is_form || !raw.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#') {
        return Err(Refusal::Target);
    }
    exact(raw)
}

/// The port that is meant where the scheme of `uri` stands alone.
pub(crate) fn default_port(uri: &Uri) -> u16 {
    if uri.scheme_str() == Some("https") { 443 } else { 80 }
}

fn origin_form(raw: Bytes) -> Result<Uri, Refusal> {
    exact(raw).map(Uri::from)
}

fn exact(raw: Bytes) -> Result<PathAndQuery, Refusal> {
    let path = PathAndQuery::from_maybe_shared(raw.clone()).map_err(|_| Refusal::Target)?;
    if path.as_str().as_bytes() == raw { Ok(path) } else { Err(Refusal::Target) }
}

fn absolute_form(raw: Bytes) -> Result<Uri, Refusal> {
    let uri = Uri::from_maybe_shared(raw.clone()).map_err(|_| Refusal::Target)?;
    let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(Refusal::Target);
    };
    let prefix = uri.scheme_str().map_or(0, str::len) + "://".len() + authority.as_str().len();
    let rest = raw.get(prefix..).unwrap_or_default();
    let exact = uri.path_and_query().is_some_and(|path| path.as_str().as_bytes() == rest);
    match rest.first() {
        None => Ok(uri),
        Some(b'/') if exact => Ok(uri),
        _ => Err(Refusal::Target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let parse = |method: Method, text: &'static str| parse(&method, Bytes::from_static(text.as_bytes()), 100);
        for good in ["/", "//", "//a/b", "/a?b=c", "/%", "/\"\\^{|}", "/?\\^`{|}", "/a:b@c", "/?", "/a?b?c", "/../x"] {
            assert_eq!(parse(Method::GET, good).expect(good).to_string(), good);
        }
        for good in ["http://a", "http://a/", "HTTP://a:80/b?c", "https://[::1]:8/x"] {
            assert!(parse(Method::GET, good).is_ok(), "{good}");
        }
        let bad = [
            "",
            "a",
            "*",
            "**",
            "/#",
            "/a#b",
            "/<",
            "/>",
            "/`",
            "/?\"",
            "/ä",
            "/\u{7f}",
            "/\t",
            "ftp://a/",
            "http:///",
            "http://",
            "a:80",
            "http://a?b",
            "http:/a",
            "?a",
            "http://a\\b/",
        ];
        for bad in bad {
            assert_eq!(parse(Method::GET, bad), Err(Refusal::Target), "{bad}");
        }
        assert_eq!(parse(Method::OPTIONS, "*").expect("asterisk").path(), "*");
        assert_eq!(parse(Method::OPTIONS, "*a"), Err(Refusal::Target));
    }
}
