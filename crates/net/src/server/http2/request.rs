//! From decoded fields to the request that a service sees, judged like one of HTTP/1: pure.

use bytes::Bytes;
use http::header::{COOKIE, HOST};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, uri};

use crate::serve::ServerLimits;
use crate::server::head;
use crate::server::hpack::Block;
use crate::server::refusal::Refusal;
use crate::server::scan::METHOD_BYTES;
use crate::server::target;

/// A request, as far as its fields say.
#[derive(Debug)]
pub(crate) struct Judged {
    /// With `Host`.
    pub(crate) request: Request<()>,
    /// What its `Content-Length` says.
    pub(crate) length: Option<u64>,
    pub(crate) expects_continue: bool,
}

/// Why a request does not get to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It gets no answer: its stream is reset (RFC 9113 section 8.1.1).
    Malformed,
    Refused(Refusal),
}

/// Judges a request.
///
/// # Errors
/// See [`Fault`].
pub(crate) fn judge(block: &Block, limits: &ServerLimits) -> Result<Judged, Fault> {
    if block.is_malformed(false) {
        return Err(Fault::Malformed);
    }
    if block.is_oversize() {
        return Err(Fault::Refused(Refusal::HeadTooLong));
    }
    if block.method() == Some(b"CONNECT") {
        let is_whole = block.authority().is_some() && block.scheme().is_none() && block.path().is_none();
        return Err(if is_whole { Fault::Refused(Refusal::Connect) } else { Fault::Malformed });
    }
    let (Some(method), Some(scheme), Some(_)) = (block.method(), block.scheme(), block.path()) else {
        return Err(Fault::Malformed);
    };
    request(block, method, scheme, limits).map_err(Fault::Refused)
}

fn request(block: &Block, method: &[u8], scheme: &[u8], limits: &ServerLimits) -> Result<Judged, Refusal> {
    if method.len() > METHOD_BYTES {
        return Err(Refusal::Method);
    }
    let method = Method::from_bytes(method).map_err(|_| Refusal::Method)?;
    if block.len() > limits.head_fields {
        return Err(Refusal::TooManyFields);
    }
    let text = Bytes::copy_from_slice(block.text());
    let path = target::path(&method, block.path_in(&text).ok_or(Refusal::Target)?, limits.target_bytes)?;
    let scheme = match scheme {
        b"http" => Scheme::HTTP,
        b"https" => Scheme::HTTPS,
        _ => return Err(Refusal::Target),
    };
    let mut headers = HeaderMap::try_with_capacity(block.len() + 1).map_err(|_| Refusal::TooManyFields)?;
    for (name, value) in block.fields_in(&text) {
        let name = HeaderName::from_lowercase(name).map_err(|_| Refusal::FieldName)?;
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Refusal::FieldValue)?;
        headers.try_append(name, value).map_err(|_| Refusal::TooManyFields)?;
    }
    let mut parts = uri::Parts::default();
    // Whoever translates from HTTP/1.1 may send `Host` alone (RFC 9113 section 8.3.1).
    let authority = match block.authority_in(&text) {
        Some(authority) => Authority::from_maybe_shared(authority),
        None => Authority::try_from(headers.get(HOST).ok_or(Refusal::HostMissing)?.as_bytes()),
    };
    (parts.scheme, parts.path_and_query) = (Some(scheme), Some(path));
    parts.authority = Some(authority.map_err(|_| Refusal::Host)?);
    let uri = Uri::from_parts(parts).map_err(|_| Refusal::Target)?;
    head::check_host(Version::HTTP_2, &uri, &mut headers)?;
    let length = head::content_length(&headers)?;
    let expects_continue = head::expectation(Version::HTTP_2, &headers)?;
    join_cookies(&mut headers)?;
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    Ok(Judged { request, length, expects_continue })
}

/// HTTP/2 may send a cookie in pieces (RFC 9113 section 8.2.3); everyone else knows one field only.
fn join_cookies(headers: &mut HeaderMap) -> Result<(), Refusal> {
    let mut cookies = headers.get_all(COOKIE).iter();
    if cookies.next().is_some() && cookies.next().is_some() {
        let pieces: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        let joined = HeaderValue::from_bytes(&pieces.join(b"; ".as_slice())).map_err(|_| Refusal::FieldValue)?;
        headers.insert(COOKIE, joined);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::hpack::{self, Decoder};

    const REFUSED: fn(Refusal) -> String = |refusal| refusal.to_string();

    /// What becomes of these fields; those of a plain GET are added where they are not there.
    fn seen(fields: &[(&str, &str)]) -> String {
        let mut block = Vec::new();
        for (name, value) in [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "x")] {
            if !fields.iter().any(|(given, _)| *given == name) {
                hpack::field(&mut block, name, value.as_bytes());
            }
        }
        // An empty value here stands for a pseudo-field that is not sent.
        for (name, value) in fields.iter().filter(|(name, value)| !(name.starts_with(':') && value.is_empty())) {
            hpack::field(&mut block, name, value.as_bytes());
        }
        let mut decoder = Decoder::default();
        decoder.decode(&block, 2_000).expect("a block");
        let limits = ServerLimits { head_fields: 5, target_bytes: 20, ..ServerLimits::default() };
        match judge(decoder.block(), &limits) {
            Ok(Judged { request, length, expects_continue }) => {
                let fields: Vec<_> =
                    request.headers().iter().map(|(name, value)| format!("{name}={value:?}")).collect();
                let fields = fields.join(" ");
                format!("{} {} {fields} {length:?} {expects_continue}", request.method(), request.uri())
            }
            Err(Fault::Malformed) => "malformed".to_owned(),
            Err(Fault::Refused(refusal)) => refusal.to_string(),
        }
    }

    #[test]
    fn good_requests() {
        for (fields, expected) in [
            (&[][..], "GET http://x/ host=\"x\" None false"),
            (&[(":path", "/a?b")], "GET http://x/a?b host=\"x\" None false"),
            (&[(":path", "*"), (":method", "OPTIONS")], "OPTIONS http://x* host=\"x\" None false"),
            (&[("host", "X:80")], "GET http://x/ host=\"X:80\" None false"),
            (&[(":authority", ""), ("host", "y")], "GET http://y/ host=\"y\" None false"),
            (&[("cookie", "a=1"), ("cookie", "b=2")], "GET http://x/ cookie=\"a=1; b=2\" host=\"x\" None false"),
            (&[("content-length", "7")], "GET http://x/ content-length=\"7\" host=\"x\" Some(7) false"),
            (&[("expect", "100-continue")], "GET http://x/ expect=\"100-continue\" host=\"x\" None true"),
        ] {
            assert_eq!(seen(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn bad_requests() {
        let malformed = "malformed".to_owned();
        for (fields, expected) in [
            (&[(":method", "")][..], malformed.clone()),
            (&[(":scheme", "")], malformed.clone()),
            (&[(":path", "")], malformed.clone()),
            (&[("te", "gzip")], malformed.clone()),
            (&[(":method", "CONNECT")], malformed),
            (&[(":method", "CONNECT"), (":scheme", ""), (":path", "")], REFUSED(Refusal::Connect)),
            (&[(":method", "G T")], REFUSED(Refusal::Method)),
            (&[(":scheme", "ftp")], REFUSED(Refusal::Target)),
            (&[(":path", "a")], REFUSED(Refusal::Target)),
            (&[(":path", "*")], REFUSED(Refusal::Target)),
            (&[(":path", "/a#b")], REFUSED(Refusal::Target)),
            (&[(":path", "/a b")], REFUSED(Refusal::Target)),
            (&[(":path", "/12345678901234567890")], REFUSED(Refusal::TargetTooLong)),
            (&[(":authority", "u@x")], REFUSED(Refusal::Host)),
            (&[(":authority", "")], REFUSED(Refusal::HostMissing)),
            (&[(":authority", "/")], REFUSED(Refusal::Host)),
            (&[("host", "y")], REFUSED(Refusal::HostContradicts)),
            (&[("host", "x"), ("host", "x")], REFUSED(Refusal::HostTwice)),
            (&[("content-length", "7"), ("content-length", "7")], REFUSED(Refusal::ContentLength)),
            (&[("expect", "more")], REFUSED(Refusal::Expectation)),
            (&[("a", ""), ("b", ""), ("c", ""), ("d", ""), ("e", ""), ("f", "")], REFUSED(Refusal::TooManyFields)),
        ] {
            assert_eq!(seen(fields), expected, "{fields:?}");
        }
        assert_eq!(seen(&[("a", &"x".repeat(2_000))]), Refusal::HeadTooLong.to_string());
    }
}
