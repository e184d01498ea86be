//! The smuggling table: raw requests, the status of the answer, and whether the connection stays open. A case in a line.

use net::ServerLimits;

use super::kit::{Raw, start};

const OPEN: bool = true;
const SHUT: bool = false;

/// Request, status, whether the connection is open afterwards.
const CASES: &[(&str, u16, bool)] = &[
    // What is fine.
    ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 200, OPEN),
    ("\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", 200, OPEN),
    ("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200, SHUT),
    ("GET / HTTP/1.1\r\nHost: x\r\nConnection: a, CLOSE\r\n\r\n", 200, SHUT),
    ("GET / HTTP/1.0\r\n\r\n", 200, SHUT),
    ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", 200, OPEN),
    ("BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n", 200, OPEN),
    ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 200, OPEN),
    ("GET http://X:80/a HTTP/1.1\r\nHost: x\r\n\r\n", 200, OPEN),
    ("GET https://x/a HTTP/1.1\r\nHost: X:443\r\n\r\n", 200, OPEN),
    ("GET http://x/a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, OPEN),
    ("GET /\"\\^{|} HTTP/1.1\r\nHost: x\r\n\r\n", 200, OPEN),
    ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200, OPEN),
    ("GET / HTTP/1.1\r\nHost:x\r\nA: \t b\t \r\nEmpty:\r\n\r\n", 200, OPEN),
    ("POST /seen HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 200, OPEN),
    ("POST /seen HTTP/1.1\r\nHost: x\r\nContent-Length: 0003\r\n\r\nabc", 200, OPEN),
    ("POST /seen HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 200, OPEN),
    ("POST /seen HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, OPEN),
    (
        "POST /seen HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: CHUNKED\r\n\r\n3;a=b\r\nabc\r\n0\r\nt: u\r\n\r\n",
        200,
        OPEN,
    ),
    ("POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 200, OPEN),
    ("POST /unread HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, OPEN),
    // The request line.
    ("GET /\r\nHost: x\r\n\r\n", 400, SHUT),
    ("GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1 \r\nHost: x\r\n\r\n", 400, SHUT),
    ("GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, SHUT),
    (" GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400, SHUT),
    ("GET / a HTTP/1.1\r\nHost: x\r\n\r\n", 400, SHUT),
    ("GET / http/1.1\r\nHost: x\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1x\r\nHost: x\r\n\r\n", 400, SHUT),
    ("G@T / HTTP/1.1\r\nHost: x\r\n\r\n", 400, SHUT),
    ("\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", 400, SHUT),
    ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505, SHUT),
    ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", 505, SHUT),
    ("GET / HTTP/1.2\r\nHost: x\r\n\r\n", 505, SHUT),
    ("GET / HTTP/0.9\r\nHost: x\r\n\r\n", 505, SHUT),
    ("CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", 501, SHUT),
    ("GET a HTTP/1.1\r\nHost: x\r\n\r\n", 400, SHUT),
    ("GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400, SHUT),
    ("GET /#a HTTP/1.1\r\nHost: x\r\n\r\n", 400, SHUT),
    ("GET /\u{e4} HTTP/1.1\r\nHost: x\r\n\r\n", 400, SHUT),
    ("GET /\u{7f} HTTP/1.1\r\nHost: x\r\n\r\n", 400, SHUT),
    ("GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", 400, SHUT),
    ("GET /< HTTP/1.1\r\nHost: x\r\n\r\n", 400, SHUT),
    ("GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, SHUT),
    // Lines and fields.
    ("GET / HTTP/1.1\nHost: x\n\n", 400, SHUT),
    ("GET / HTTP/1.1\r\nHost: x\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1\r\nHost: x\r\n\n", 400, SHUT),
    ("GET / HTTP/1.1\rHost: x\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1\r\nHost: x\r\nA: b\rContent-Length: 5\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\tc\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length\t: 5\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1\r\nHost: x\r\nA\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1\r\nHost: x\r\nA(b): c\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1\r\nHost: x\r\nA: \u{b}\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1\r\nHost: x\r\nA: \u{7f}\r\n\r\n", 400, SHUT),
    // Host.
    ("GET / HTTP/1.1\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1\r\nHost: x, y\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1\r\nHost: x:port\r\n\r\n", 400, SHUT),
    ("GET / HTTP/1.1\r\nHost: u@x\r\n\r\n", 400, SHUT),
    ("GET http://x/ HTTP/1.1\r\nHost: y\r\n\r\n", 400, SHUT),
    ("GET http://x/ HTTP/1.1\r\nHost: x:81\r\n\r\n", 400, SHUT),
    ("GET http://u@x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, SHUT),
    ("GET http://x/ HTTP/1.1\r\n\r\n", 400, SHUT),
    // Framing: bytes behind the head would be another request for a server that reads it otherwise.
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", 400, SHUT),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG", 400, SHUT),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400, SHUT),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400, SHUT),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 6\r\n\r\nhello!", 400, SHUT),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\nhello", 400, SHUT),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello", 400, SHUT),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello", 400, SHUT),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\nhello", 400, SHUT),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5 5\r\n\r\nhello", 400, SHUT),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n", 400, SHUT),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", 400, SHUT),
    ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, SHUT),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, SHUT),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400, SHUT),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400, SHUT),
    (
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        SHUT,
    ),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, SHUT),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n", 400, SHUT),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400, SHUT),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n", 400, SHUT),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400, SHUT),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", 400, SHUT),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, SHUT),
    // Chunks.
    ("POST /seen HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", 400, SHUT),
    ("POST /seen HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n", 400, SHUT),
    ("POST /seen HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n", 400, SHUT),
    ("POST /seen HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", 400, SHUT),
    ("POST /seen HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400, SHUT),
    ("POST /seen HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n", 400, SHUT),
    ("POST /seen HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n0\r\n\r\n", 400, SHUT),
    (
        "POST /seen HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n",
        400,
        SHUT,
    ),
    ("POST /seen HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n", 400, SHUT),
    ("POST /seen HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nt : u\r\n\r\n", 400, SHUT),
    ("POST /seen HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n t: u\r\n\r\n", 400, SHUT),
    // Expectations.
    ("POST /seen HTTP/1.1\r\nHost: x\r\nExpect: 200-ok\r\nContent-Length: 3\r\n\r\nabc", 417, SHUT),
    ("POST /seen HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\nabc", 200, OPEN),
    ("POST /seen HTTP/1.0\r\nExpect: nonsense\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc", 200, OPEN),
];

#[tokio::test]
async fn each_request_gets_its_status_and_its_connection_its_end() {
    let server = start(ServerLimits::default()).await;
    let mut wrong = Vec::new();
    for (request, status, open) in CASES {
        let mut raw = Raw::connect(&server).await;
        raw.write(request).await;
        let answer = raw.answer().await;
        let got = answer.as_ref().map(|answer| answer.status);
        let says_close = answer.is_some_and(|answer| answer.head.contains("connection: close\r\n"));
        let still_open = raw.is_open().await;
        if got != Some(*status) || still_open != *open || says_close == *open {
            wrong.push(format!("{request:?}: {got:?}, open {still_open}, says close {says_close}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// TLS where plain HTTP is spoken gets an alert, in its own language.
#[tokio::test]
async fn tls_on_a_port_of_plain_http_gets_an_alert() {
    let server = start(ServerLimits::default()).await;
    let mut raw = Raw::connect(&server).await;
    raw.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
    assert_eq!(raw.rest().await, ("\x15\x03\x01\x00\x02\x02\x28".to_owned(), true));
}

/// Byte for byte, as slowly as a client can send it, the answers are the same.
#[tokio::test]
async fn a_request_in_single_bytes_is_the_same_request() {
    let server = start(ServerLimits::default()).await;
    let request = "\r\nPOST /seen HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;e\r\nabc\r\n2\r\nde\r\n0\r\nt: u\r\n\r\n";
    let mut raw = Raw::connect(&server).await;
    for byte in request.as_bytes() {
        raw.write([*byte]).await;
        tokio::task::yield_now().await;
    }
    assert!(raw.answer().await.expect("an answer").body.ends_with("] abcde"));
    assert!(raw.is_open().await);
}

/// The smuggled request of a body that nobody reads is never taken for a request.
#[tokio::test]
async fn an_unread_body_is_no_request() {
    let server = start(ServerLimits::default()).await;
    let mut raw = Raw::connect(&server).await;
    let hidden = "GET /seen HTTP/1.1\r\nHost: hidden\r\n\r\n";
    raw.write(format!("POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len())).await;
    assert_eq!(raw.answer().await.expect("an answer").body, "not read");
    assert!(raw.is_open().await);
}

#[tokio::test]
async fn what_a_service_sees_is_what_was_sent() {
    let server = start(ServerLimits::default()).await;
    let cases = [
        (
            "GET /seen?a=%2F&b HTTP/1.1\r\nHost: X.y\r\nA:  b c \r\n\r\n",
            "GET /seen?a=%2F&b HTTP/1.1 [host=\"X.y\" a=\"b c\"] ",
        ),
        ("GET http://x/seen HTTP/1.0\r\n\r\n", "GET http://x/seen HTTP/1.0 [host=\"x\"] "),
        (
            "POST /seen HTTP/1.1\r\nHost: x\r\nContent-Length: 02\r\n\r\nok",
            "POST /seen HTTP/1.1 [host=\"x\" content-length=\"2\"] ok",
        ),
    ];
    for (request, seen) in cases {
        let mut raw = Raw::connect(&server).await;
        raw.write(request).await;
        assert_eq!(raw.answer().await.expect("an answer").body, seen);
    }
}
