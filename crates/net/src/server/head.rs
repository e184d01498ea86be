//! Judges a complete head of an HTTP/1 request: everything that stands in it, and how the body is framed.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Version};

use super::host::HostPort;
use super::refusal::Refusal;
use super::scan::{HeadLimits, METHOD_BYTES, is_token};
use super::target;

/// Digits of a Content-Length: what surely fits into 64 bits.
const LENGTH_DIGITS: usize = 19;

/// A request, as far as its head says.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) request: Request<()>,
    pub(crate) framing: Framing,
    /// Whether the client wants to go on with this connection.
    pub(crate) keep_alive: bool,
    pub(crate) expects_continue: bool,
    /// Whether the client asks for another protocol. Only HTTP/1.1 requests without a body can.
    pub(crate) upgrade: bool,
}

/// How the body of a request is framed (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    None,
    /// This many bytes, at least one.
    Length(u64),
    Chunked,
}

/// Reads the head in `bytes`: complete lines that end with CRLF, the last of them empty (see `scan.rs`), of which `fields`
/// are fields. Values stay slices of `bytes`.
///
/// # Errors
/// The first thing in it that is refused.
pub(crate) fn parse(bytes: &Bytes, fields: usize, limits: &HeadLimits) -> Result<Head, Refusal> {
    let (line, mut rest) = next_line(bytes).ok_or(Refusal::RequestLine)?;
    let (method, target, version) = request_line(bytes, line)?;
    if method == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    let uri = target::parse(&method, target, limits.target_bytes)?;
    let mut headers = HeaderMap::try_with_capacity(fields).map_err(|_| Refusal::TooManyFields)?;
    while let Some((line, after)) = next_line(rest).filter(|(line, _)| !line.is_empty()) {
        let (name, value) = field(bytes, line)?;
        headers.try_append(name, value).map_err(|_| Refusal::TooManyFields)?;
        rest = after;
    }
    check_host(version, &uri, &mut headers)?;
    let framing = framing(version, &mut headers)?;
    let expects_continue = expectation(version, &headers)?;
    let options = ConnectionOptions::of(&headers);
    let keep_alive = !options.close && (version == Version::HTTP_11 || options.keep_alive);
    let upgrade =
        version == Version::HTTP_11 && options.upgrade && framing == Framing::None && headers.contains_key(UPGRADE);
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = version;
    *request.headers_mut() = headers;
    let expects_continue = expects_continue && framing != Framing::None;
    Ok(Head { request, framing, keep_alive, expects_continue, upgrade })
}

/// The one Content-Length of a message, if it has one. A list or a repetition is refused, even of equal numbers: whoever
/// sends that is confused, and the next server might take the other number.
///
/// # Errors
/// [`Refusal::ContentLength`].
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Refusal::ContentLength);
    }
    let digits = value.as_bytes();
    if digits.is_empty() || digits.len() > LENGTH_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::ContentLength);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| Refusal::ContentLength)?;
    digits.parse().map(Some).map_err(|_| Refusal::ContentLength)
}

/// A line without its CRLF, and what follows it.
pub(crate) fn next_line(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let (line, after) = rest.split_at_checked(memchr::memchr(b'\n', rest)? + 1)?;
    Some((line.strip_suffix(b"\r\n")?, after))
}

fn request_line(bytes: &Bytes, line: &[u8]) -> Result<(Method, Bytes, Version), Refusal> {
    let mut parts = line.splitn(3, |&byte| byte == b' ');
    let (Some(method), Some(target), Some(version)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Refusal::RequestLine);
    };
    let version = match version {
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/1.0" => Version::HTTP_10,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => return Err(Refusal::Version),
        _ => return Err(Refusal::RequestLine),
    };
    if method.len() > METHOD_BYTES {
        return Err(Refusal::Method);
    }
    let method = Method::from_bytes(method).map_err(|_| Refusal::Method)?;
    Ok((method, bytes.slice_ref(target), version))
}

fn field(bytes: &Bytes, line: &[u8]) -> Result<(HeaderName, HeaderValue), Refusal> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Refusal::Folding);
    }
    let colon = memchr::memchr(b':', line).ok_or(Refusal::FieldName)?;
    let (name, value) = line.split_at_checked(colon).ok_or(Refusal::FieldName)?;
    // Neither type lets anything but tokens, and text without control characters, pass.
    let name = HeaderName::from_bytes(name).map_err(|_| Refusal::FieldName)?;
    let value = trim(value.get(1..).unwrap_or_default());
    let value = HeaderValue::from_maybe_shared(bytes.slice_ref(value)).map_err(|_| Refusal::FieldValue)?;
    Ok((name, value))
}

/// Without the spaces and tabs around it. (Other whitespace is a control character, and stays to be refused.)
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Exactly one Host in HTTP/1.1, valid, and the same as the authority of an absolute target. Where only the target names
/// the host (HTTP/1.0, HTTP/2), the field is added, so that services need to look at one place only.
pub(crate) fn check_host(version: Version, uri: &http::Uri, headers: &mut HeaderMap) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::HostTwice);
    }
    let authority = uri.authority().map(|authority| authority.as_str());
    match (host, authority) {
        (None, _) if version == Version::HTTP_11 => return Err(Refusal::HostMissing),
        (None, None) if version == Version::HTTP_10 => {}
        (None, None) => return Err(Refusal::HostMissing),
        (None, Some(authority)) => {
            HostPort::parse(authority.as_bytes())?;
            let value = HeaderValue::from_str(authority).map_err(|_| Refusal::Host)?;
            headers.insert(HOST, value);
        }
        (Some(host), None) => {
            HostPort::parse(host.as_bytes())?;
        }
        (Some(host), Some(authority)) => {
            let (host, authority) = (HostPort::parse(host.as_bytes())?, HostPort::parse(authority.as_bytes())?);
            if !host.is(&authority, target::default_port(uri)) {
                return Err(Refusal::HostContradicts);
            }
        }
    }
    Ok(())
}

fn framing(version: Version, headers: &mut HeaderMap) -> Result<Framing, Refusal> {
    let length = content_length(headers)?;
    if headers.contains_key(TRANSFER_ENCODING) {
        if length.is_some() {
            return Err(Refusal::LengthAndEncoding);
        }
        if version != Version::HTTP_11 {
            return Err(Refusal::EncodingInOldVersion);
        }
        return encoding(headers).map(|()| Framing::Chunked);
    }
    let Some(length) = length else { return Ok(Framing::None) };
    // A number with leading zeros is passed on as what it was read as.
    if headers.get(CONTENT_LENGTH).is_some_and(|value| value.len() > 1 && value.as_bytes().starts_with(b"0")) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(if length == 0 { Framing::None } else { Framing::Length(length) })
}

/// Only `chunked`. Where it is the last of other codings the body could be delimited, but not decoded: 501. Everything
/// else cannot even be delimited: 400 (RFC 9112 section 6.3).
fn encoding(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut values = headers.get_all(TRANSFER_ENCODING).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(Refusal::Encoding) };
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let value = value.as_bytes();
    if is_chunked(value) {
        return Ok(());
    }
    let mut codings = value.split(|&byte| byte == b',').map(trim);
    let chunked_last = codings.next_back().is_some_and(is_chunked);
    let others_known =
        codings.all(|coding| !coding.is_empty() && coding.iter().all(|&b| is_token(b)) && !is_chunked(coding));
    Err(if chunked_last && others_known { Refusal::UnknownEncoding } else { Refusal::Encoding })
}

/// Whether the client waits for 100 (RFC 9110 section 10.1.1). HTTP/1.0 has no expectations.
pub(crate) fn expectation(version: Version, headers: &HeaderMap) -> Result<bool, Refusal> {
    let mut values = headers.get_all(EXPECT).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        _ if version == Version::HTTP_10 => Ok(false),
        (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(true),
        _ => Err(Refusal::Expectation),
    }
}

#[derive(Default)]
struct ConnectionOptions {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
}

impl ConnectionOptions {
    fn of(headers: &HeaderMap) -> Self {
        let mut options = Self::default();
        for value in headers.get_all(CONNECTION) {
            for option in value.as_bytes().split(|&byte| byte == b',').map(trim) {
                options.close |= option.eq_ignore_ascii_case(b"close");
                options.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                options.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
            }
        }
        options
    }
}

/// Whether the `Connection` of the same message names this field, which then ends with this connection.
pub(crate) fn is_named_in_connection(headers: &HeaderMap, name: &HeaderName) -> bool {
    let mut options = headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    options.any(|option| trim(option).eq_ignore_ascii_case(name.as_str().as_bytes()))
}

/// Whether the service's `Connection` asks for the end of the connection.
pub(crate) fn asks_to_close(headers: &HeaderMap) -> bool {
    headers.contains_key(CONNECTION) && ConnectionOptions::of(headers).close
}
