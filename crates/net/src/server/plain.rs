//! Plain reads: requests that ask for nothing but what their URL names, found in the buffer without being taken apart.
//!
//! Most requests to a cache are plain, and most of their answers are ready. A service that has such answers
//! ([`ReadyAnswers`]) is asked before anything is parsed; what it does not answer goes the whole way. Nothing is decided
//! here that the whole way would decide differently: a head in which anything is unusual is not plain, and target and host
//! are only ever compared with those of requests that went the whole way.

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, Version, header};

use super::head::{next_line, trim};
use super::hpack::Block;
use crate::serve::Peer;

/// Fields that say nothing about which representation is asked for, but for what a response's `Vary` names. In lower case.
const PLAIN_FIELDS: [&str; 23] = [
    "accept",
    "user-agent",
    "accept-encoding",
    "accept-language",
    "referer",
    "origin",
    "priority",
    "dnt",
    "sec-gpc",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-fetch-user",
    "sec-ch-ua",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
    "save-data",
    "upgrade-insecure-requests",
    "x-requested-with",
    "traceparent",
    "tracestate",
    "keep-alive",
    "te",
];

/// Whether a field may stand in a plain read. Names are compared without their case.
pub fn is_plain_field(name: &[u8]) -> bool {
    PLAIN_FIELDS.iter().any(|plain| plain.as_bytes().eq_ignore_ascii_case(name))
}

/// A plain read: a GET with a host and no field but plain ones.
#[derive(Debug, Clone, Copy)]
pub struct Plain<'a> {
    /// Who asks.
    pub peer: Peer,
    /// Of HTTP.
    pub version: Version,
    /// `Host`, as it came.
    pub host: &'a [u8],
    /// The target, as it came; it begins with `/`.
    pub target: &'a [u8],
    /// It says that the connection is to end after the response.
    pub closes: bool,
    fields: Fields<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Fields<'a> {
    /// Lines that end with CRLF, and an empty one.
    Lines(&'a [u8]),
    Map(&'a HeaderMap),
    Block(&'a Block),
}

/// What answers plain reads at once.
pub trait ReadyAnswers: Send + Sync + 'static {
    /// Appends the head of the response without its empty line to `head`, and gives the body, whose length the head says.
    /// What is about the connection is left to the server. `None`: it has no answer ready, and has appended nothing.
    fn answer(&self, asked: &Plain<'_>, head: &mut Vec<u8>) -> Option<Bytes>;

    /// The same in HTTP/2, where heads are blocks of HPACK: appends all its fields to `block`, `:status` first, with
    /// [`crate::ready_block`] and [`crate::block_field`].
    fn answer_block(&self, asked: &Plain<'_>, block: &mut Vec<u8>) -> Option<Bytes>;
}

impl<'a> Plain<'a> {
    /// The plain read whose head these bytes are: complete lines that end with CRLF, the last of them empty. Nothing, if it
    /// is not one, or anything about it would have to be looked at more closely.
    pub(crate) fn read(head: &'a [u8], peer: Peer) -> Option<Self> {
        let (line, fields) = next_line(head)?;
        let target = line.strip_prefix(b"GET ")?.strip_suffix(b" HTTP/1.1")?;
        if target.first() != Some(&b'/') {
            return None;
        }
        let (mut host, mut closes, mut rest) = (None, false, fields);
        while let Some((line, after)) = line_of_field(rest)? {
            let (name, value) = line;
            if name.eq_ignore_ascii_case(b"host") {
                if host.replace(value).is_some() {
                    return None;
                }
            } else if name.eq_ignore_ascii_case(b"connection") {
                closes |= closes_after(value)?;
            } else if !is_plain_field(name) {
                return None;
            }
            rest = after;
        }
        Some(Self { peer, version: Version::HTTP_11, host: host?, target, closes, fields: Fields::Lines(fields) })
    }

    /// The same of the parts of a request that was parsed. Its body must be known to be empty.
    pub fn of(method: &Method, uri: &'a Uri, fields: &'a HeaderMap, peer: Peer, version: Version) -> Option<Self> {
        let plain = |name: &header::HeaderName| {
            *name == header::HOST || *name == header::CONNECTION || is_plain_field(name.as_str().as_bytes())
        };
        if *method != Method::GET || !fields.keys().all(plain) {
            return None;
        }
        let mut closes = false;
        for value in fields.get_all(header::CONNECTION) {
            closes |= closes_after(value.as_bytes())?;
        }
        let (host, target) = (fields.get(header::HOST)?, uri.path_and_query()?.as_str());
        target.starts_with('/').then(|| Self {
            peer,
            version,
            host: host.as_bytes(),
            target: target.as_bytes(),
            closes,
            fields: Fields::Map(fields),
        })
    }

    /// The same of a request of HTTP/2, whose authority is its host. Its body must be known to be empty.
    pub(crate) fn of_block(block: &'a Block, peer: Peer) -> Option<Self> {
        let is_web = matches!(block.scheme(), Some(b"http" | b"https"));
        if block.method() != Some(b"GET") || !is_web || !block.is_plain() {
            return None;
        }
        let (host, target) = (block.authority()?, block.path()?);
        let fields = Fields::Block(block);
        target.starts_with(b"/").then_some(Self { peer, version: Version::HTTP_2, host, target, closes: false, fields })
    }

    /// The values of a field, whose name is given in lower case.
    pub fn values(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let (lines, map, block) = match self.fields {
            Fields::Lines(lines) => (lines, None, None),
            Fields::Map(map) => (&[][..], Some(map), None),
            Fields::Block(block) => (&[][..], None, Some(block)),
        };
        let mut rest = lines;
        let in_lines = std::iter::from_fn(move || {
            loop {
                let ((found, value), after) = line_of_field(rest)??;
                rest = after;
                if found.eq_ignore_ascii_case(name.as_bytes()) {
                    return Some(value);
                }
            }
        });
        let in_map = map.into_iter().flat_map(move |map| map.get_all(name)).map(|value| value.as_bytes());
        let in_block = block.into_iter().flat_map(Block::fields).filter(move |(found, _)| *found == name.as_bytes());
        in_lines.chain(in_map).chain(in_block.map(|(_, value)| value))
    }
}

/// Whether a value of `Connection` ends the connection; nothing where it says anything else than that or the opposite.
fn closes_after(value: &[u8]) -> Option<bool> {
    let closes = value.eq_ignore_ascii_case(b"close");
    (closes || value.eq_ignore_ascii_case(b"keep-alive")).then_some(closes)
}

/// A field's name and value.
type Field<'a> = (&'a [u8], &'a [u8]);

/// The next field and what follows it; inner nothing at the empty line, outer nothing where it is not surely well-formed.
#[expect(clippy::option_option, reason = "the two mean different things")]
fn line_of_field(rest: &[u8]) -> Option<Option<(Field<'_>, &[u8])>> {
    let (line, after) = next_line(rest)?;
    if line.is_empty() {
        return Some(None);
    }
    let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
    let value = trim(value.get(1..)?);
    // What `http::HeaderValue` takes, but for tabs.
    let is_text = value.iter().all(|&byte| byte >= b' ' && byte != 0x7f);
    is_text.then_some(Some(((name, value), after)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        Peer { address: std::net::SocketAddr::from(([127, 0, 0, 1], 1)), secure: false }
    }

    fn read(head: &str) -> Option<(String, String)> {
        let peer = peer();
        let plain = Plain::read(head.as_bytes(), peer)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some((text(plain.host), text(plain.target)))
    }

    #[test]
    fn plain_heads() {
        for (head, host, target) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "a", "/"),
            ("GET /x?y HTTP/1.1\r\nhost:a:80 \r\nConnection: Keep-Alive\r\nUSER-AGENT: \t\r\n\r\n", "a:80", "/x?y"),
            ("GET /é HTTP/1.1\r\naccept: */*\r\nHost: b\r\nAccept: text/html\r\n\r\n", "b", "/é"),
        ] {
            assert_eq!(read(head), Some((host.to_owned(), target.to_owned())), "{head}");
        }
    }

    #[test]
    fn anything_unusual_goes_the_whole_way() {
        for head in [
            "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
            "get / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n User-Agent: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent : x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: \0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: \x0c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: x\n\r\n",
        ] {
            assert_eq!(read(head), None, "{head:?}");
        }
    }

    #[test]
    fn parsed_requests_are_plain_where_their_heads_are() {
        let peer = peer();
        for (name, value, plain) in [
            ("user-agent", "x", true),
            ("connection", "keep-alive", true),
            ("connection", "Close", true),
            ("connection", "upgrade", false),
            ("cookie", "a=b", false),
            ("x-other", "", false),
        ] {
            let head = format!("GET /x HTTP/1.1\r\nHost: a\r\n{name}: {value}\r\n\r\n");
            let request = http::Request::get("/x").header("host", "a").header(name, value).body(()).expect("request");
            assert_eq!(read(&head).is_some(), plain, "{name}");
            assert_eq!(
                Plain::of(request.method(), request.uri(), request.headers(), peer, Version::HTTP_11).is_some(),
                plain,
                "{name}"
            );
        }
    }

    #[test]
    fn values_of_a_field() {
        let peer = peer();
        let head = "GET / HTTP/1.1\r\nHost: a\r\nAccept: x\r\nDNT: 1\r\naccept:y\r\n\r\n";
        let plain = Plain::read(head.as_bytes(), peer).expect("plain");
        assert_eq!(plain.values("accept").collect::<Vec<_>>(), [b"x", b"y"]);
        assert_eq!(plain.values("origin").count(), 0);
    }
}
