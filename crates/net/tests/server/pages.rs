//! Bodies that are sent from their pages: the same bytes in the same framing as if they were written.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use net::{Body, BodyError, Incoming, ServerLimits};
use pages::{LEAST_BYTES, Pool};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::kit::PATIENCE;

static POOL: LazyLock<Arc<Pool>> = LazyLock::new(|| Pool::new(256 << 20));

/// Bytes that differ from place to place.
fn content(length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

/// `/N`: N bytes in a block; `/N/stream`: the same in pieces of unknown length together, of which some are small, and some lie
/// in blocks.
async fn answer(request: Request<Incoming>) -> Response<Body> {
    let mut path = request.uri().path().trim_start_matches('/').split('/');
    let length = path.next().and_then(|length| length.parse().ok()).expect("a length");
    let body = POOL.own(content(length).into());
    assert_eq!(pages::holds(&body), length >= LEAST_BYTES);
    if path.next().is_none() {
        return Response::new(Body::full(body));
    }
    let cuts = [0, 1, 5_000, 5_001, 50_000, 50_001, 300_000, length].map(|cut| cut.min(length));
    let pieces: Vec<Result<Bytes, BodyError>> = cuts
        .windows(2)
        .map(|cut| Ok(body.slice(cut[0]..cut[1])))
        .filter(|piece| !piece.as_ref().unwrap().is_empty())
        .collect();
    Response::new(Body::stream(futures_util::stream::iter(pieces)))
}

async fn connect(limits: ServerLimits) -> (TcpStream, DropGuard) {
    let listener = net::bind("127.0.0.1:0".parse().expect("address")).await.expect("bind");
    let (address, shutdown) = (listener.local_addr().expect("address"), CancellationToken::new());
    tokio::spawn(net::serve(listener, net::service(answer), limits, shutdown.clone()));
    (TcpStream::connect(address).await.expect("connect"), shutdown.drop_guard())
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("in time").expect("a head"));
    }
    String::from_utf8(head).expect("text")
}

async fn exactly(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut body = vec![0; length];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut body)).await.expect("in time").expect("a body");
    body
}

const SIZES: [usize; 9] =
    [1, LEAST_BYTES - 1, LEAST_BYTES, LEAST_BYTES + 1, 64 << 10, 65_537, 1 << 20, (1 << 20) + 4_097, 20 << 20];

#[tokio::test]
async fn bodies_of_every_size_are_whole_one_after_the_other() {
    let (mut stream, _stop) = connect(ServerLimits::default()).await;
    for length in SIZES {
        // Two at once, so that what follows a body is surely not part of it.
        let get = format!("GET /{length} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(format!("{get}{get}").as_bytes()).await.expect("written");
        for _ in 0..2 {
            let head = head(&mut stream).await;
            assert!(head.contains(&format!("content-length: {length}\r\n")), "{head}");
            assert!(exactly(&mut stream, length).await == content(length), "{length}");
        }
    }
}

#[tokio::test]
async fn pieces_of_a_body_stand_in_their_chunks() {
    let (mut stream, _stop) = connect(ServerLimits::default()).await;
    for length in SIZES {
        stream
            .write_all(format!("GET /{length}/stream HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
            .await
            .expect("written");
        assert!(head(&mut stream).await.contains("transfer-encoding: chunked\r\n"));
        let mut body = Vec::new();
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.extend(exactly(&mut stream, 1).await);
            }
            let size = usize::from_str_radix(str::from_utf8(&line).expect("text").trim(), 16).expect("a size");
            body.extend(exactly(&mut stream, size).await);
            assert_eq!(exactly(&mut stream, 2).await, b"\r\n");
            if size == 0 {
                break;
            }
        }
        assert!(body == content(length), "{length}");
    }
}

#[tokio::test]
async fn a_socket_that_is_full_gets_the_rest_when_there_is_room() {
    let (mut stream, _stop) = connect(ServerLimits::default()).await;
    // More than the buffers of both ends take.
    let length = 32 << 20;
    stream.write_all(format!("GET /{length} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.expect("written");
    head(&mut stream).await;
    let mut body = Vec::new();
    while body.len() < length {
        let most = (300 << 10).min(length - body.len());
        body.extend(exactly(&mut stream, most).await);
    }
    assert!(body == content(length));
}

#[tokio::test]
async fn a_reader_that_stops_is_let_go_of() {
    let (mut stream, _stop) = connect(ServerLimits { stall_ms: 100, ..ServerLimits::default() }).await;
    let length = 64 << 20;
    stream.write_all(format!("GET /{length} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.expect("written");
    head(&mut stream).await;
    // It ends without a reader, and gives its block back.
    let held = || POOL.held_bytes() >= length as u64;
    let gone = async {
        while !held() {
            tokio::task::yield_now().await;
        }
        while held() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("let go of");
    let mut body = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut body)).await.expect("ended");
    assert!(body.len() < length && body == content(length)[..body.len()], "what came was right: {}", body.len());
}
