//! Properties of the request path: whatever bytes come, split into reads however, nothing panics or hangs, the outcome is
//! that of the unsplit bytes, and no buffer grows beyond the limits.
//!
//! `PROPTEST_CASES=10000000 cargo test --release -p net properties` runs ten million executions of each.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Request, Response, Version};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::sync::CancellationToken;

use super::chunked::{Chunked, Step};
use super::head::{self, Framing, Head};
use super::plain::Plain;
use super::refusal::Refusal;
use super::scan::{EMPTY_LINES, HeadLimits, Scanner};
use super::{Incoming, Transport};
use crate::{Body, Peer, ServerLimits, read_to_end};

const PEER: Peer = Peer { address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1), secure: false };

const LIMITS: HeadLimits = HeadLimits { bytes: 256, fields: 6, target_bytes: 40 };

/// What requests and attacks are made of.
const WORDS: &[&str] = &[
    "GET",
    "POST",
    "HEAD",
    " ",
    "/",
    "/read",
    "http://x",
    "*",
    "HTTP/1.1",
    "HTTP/1.0",
    "\r\n",
    "\r\n\r\n",
    "\r",
    "\n",
    "Host: x",
    "Host:",
    ":",
    "Content-Length: ",
    "Transfer-Encoding: ",
    "chunked",
    "gzip, ",
    "Connection: close",
    "Connection: keep-alive",
    "0",
    "1",
    "5",
    "a",
    "f",
    ";",
    "\t",
    "0\r\n\r\n",
    "3\r\nabc\r\n",
    "Upgrade: x",
    "Connection: upgrade",
    "abc",
    "\0",
    "\u{7f}",
    "\u{e4}",
    ",",
    "-",
    "+",
    "#",
    "?",
    "GET /read HTTP/1.1\r\nHost: x\r\n",
    "GET /read HTTP/1.1\r\n",
    "Accept: ",
    "Host: y\r\n",
    "User-Agent: abc\r\n",
    "Connection: keep-alive\r\n",
    "POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n",
    "POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    "PRI * HTTP/2.0\r\n\r\n",
];

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        9 => (0..WORDS.len()).prop_map(|index| WORDS[index].as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..4),
        1 => (any::<u8>(), 0_usize..300).prop_map(|(byte, count)| vec![byte; count]),
    ];
    prop_oneof![8 => vec(word, 0..24).prop_map(|words| words.concat()), 1 => vec(any::<u8>(), 0..400)]
}

/// Sizes of reads, repeated as needed.
fn reads() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![Just(vec![1]), vec(1_usize..40, 1..12)]
}

fn split<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> VecDeque<&'a [u8]> {
    let mut pieces = VecDeque::new();
    for size in sizes.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (piece, rest) = bytes.split_at((*size).min(bytes.len()));
        pieces.push_back(piece);
        bytes = rest;
    }
    pieces
}

/// What the pure parts make of these pieces: each request with its body, and how it ends.
fn outcome(mut pieces: VecDeque<&[u8]>) -> Vec<String> {
    let (mut input, mut outcome) = (BytesMut::new(), Vec::new());
    loop {
        match one(&mut input, &mut pieces) {
            Ok(Some(request)) => outcome.push(request),
            Ok(None) => return outcome,
            Err(refusal) => {
                outcome.push(format!("refused: {refusal:?}"));
                return outcome;
            }
        }
    }
}

/// What is read as a plain request is one, but for host and target, which are compared with those of requests that were parsed.
fn agree(plain: &Plain<'_>, head: &Result<Head, Refusal>) {
    match head {
        Ok(head) => {
            let request = &head.request;
            assert_eq!((request.method(), request.version()), (&Method::GET, Version::HTTP_11));
            assert_eq!(head.keep_alive, !plain.closes);
            assert!(!head.upgrade && !head.expects_continue && head.framing == Framing::None);
            let parsed =
                Plain::of(request.method(), request.uri(), request.headers(), PEER, Version::HTTP_11).expect("plain");
            assert_eq!((plain.host, plain.target, plain.closes), (parsed.host, parsed.target, parsed.closes));
        }
        Err(refusal) => assert!(matches!(refusal, Refusal::Target | Refusal::Host), "{refusal:?}: {plain:?}"),
    }
}

fn one(input: &mut BytesMut, pieces: &mut VecDeque<&[u8]>) -> Result<Option<String>, Refusal> {
    let mut scanner = Scanner::default();
    let found = loop {
        if let Some(found) = scanner.advance(input, &LIMITS)? {
            break found;
        }
        assert!(input.len() < LIMITS.bytes + 2 * EMPTY_LINES, "more is asked for only below the limit");
        let Some(piece) = pieces.pop_front() else { return Ok(None) };
        input.extend_from_slice(piece);
    };
    input.advance(found.start);
    let bytes = input.split_to(found.len()).freeze();
    let head = head::parse(&bytes, scanner.fields(), &LIMITS);
    if let Some(plain) = Plain::read(&bytes, PEER) {
        agree(&plain, &head);
    }
    let head = head?;
    assert!(head.request.headers().len() <= LIMITS.fields + 1);
    let mut body = Vec::new();
    match head.framing {
        Framing::None => {}
        Framing::Length(length) => {
            let length = usize::try_from(length).expect("64 bits");
            while input.len() < length {
                let Some(piece) = pieces.pop_front() else { return Ok(None) };
                input.extend_from_slice(piece);
            }
            body.extend_from_slice(&input.split_to(length));
        }
        Framing::Chunked => {
            let mut chunked = Chunked::new();
            loop {
                match chunked.step(input, 7)? {
                    Step::Data(data) => body.extend_from_slice(&data),
                    Step::End => break,
                    Step::More => {
                        assert!(input.is_empty());
                        let Some(piece) = pieces.pop_front() else { return Ok(None) };
                        input.extend_from_slice(piece);
                    }
                }
            }
        }
    }
    Ok(Some(format!("{:?} {body:?} {} {}", head.request, head.keep_alive, head.upgrade)))
}

impl Transport for DuplexStream {
    fn reset_on_close(&mut self) {}
}

/// What a client reads that writes these pieces to a connection, without the dates.
async fn spoken(pieces: VecDeque<&[u8]>) -> String {
    let (client, server) = tokio::io::duplex(1 << 16);
    let limits = ServerLimits { head_bytes: 256, head_fields: 6, target_bytes: 40, ..ServerLimits::default() };
    let service = crate::service(|request: Request<Incoming>| async move {
        if request.uri().path() == "/read" {
            let body = read_to_end(request.into_body(), 1 << 16).await;
            return Response::new(Body::full(format!("{body:?}")));
        }
        Response::new(Body::full("ok"))
    });
    let peer = "127.0.0.1:1".parse().expect("address");
    let serving = tokio::spawn(super::run(server, peer, service, None, limits, CancellationToken::new()));
    let (mut read, mut write) = tokio::io::split(client);
    let mut answer = Vec::new();
    let writing = async {
        for piece in pieces {
            // The server may have ended the connection.
            if write.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    let ((), end) = tokio::join!(writing, read.read_to_end(&mut answer));
    end.expect("a clean end");
    serving.await.expect("no panic");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
}

fn paused<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let in_time = async { tokio::time::timeout(Duration::from_secs(3_600), future).await.expect("no hang") };
    runtime.expect("runtime").block_on(in_time)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn splits_make_no_difference_to_the_parser(bytes in bytes(), reads in reads()) {
        prop_assert_eq!(outcome(split(&bytes, &reads)), outcome(VecDeque::from([&bytes[..]])));
    }

    #[test]
    fn splits_make_no_difference_to_the_connection(bytes in bytes(), reads in reads()) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let whole = paused(spoken(VecDeque::from([&bytes[..]])));
        prop_assert_eq!(paused(spoken(split(&bytes, &reads))), whole, "{:?}", text);
    }

    #[test]
    fn chunked_bodies_come_back(
        chunks in vec((vec(any::<u8>(), 1..50), "(;[a-z]{1,5}(=[a-z]{1,5})?)?"), 0..20),
        trailers in "([a-z]{1,8}: [ -~]{0,10}\r\n){0,3}",
        reads in reads(),
    ) {
        let (mut wire, mut body) = (Vec::new(), Vec::new());
        for (chunk, extension) in &chunks {
            wire.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
            body.extend_from_slice(chunk);
        }
        wire.extend_from_slice(format!("0\r\n{trailers}\r\nGET").as_bytes());
        let (mut input, mut chunked, mut decoded) = (BytesMut::new(), Chunked::new(), Vec::new());
        let mut pieces = split(&wire, &reads);
        loop {
            match chunked.step(&mut input, 16).expect("well-formed") {
                Step::Data(data) => {
                    prop_assert!((1..=16).contains(&data.len()));
                    decoded.extend_from_slice(&data);
                }
                Step::More => input.extend_from_slice(pieces.pop_front().expect("the end comes first")),
                Step::End => break,
            }
        }
        for piece in pieces {
            input.extend_from_slice(piece);
        }
        prop_assert_eq!(decoded, body);
        prop_assert_eq!(input.freeze(), Bytes::from_static(b"GET"));
    }
}
