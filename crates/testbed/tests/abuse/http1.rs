//! Abuse of HTTP/1.1.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::edge::{LARGE_BYTES, LONG_MS, PAGE_BYTES, SHORT_MS};
use crate::measure::{Bounds, PATIENCE, cost};

/// Between two bytes of somebody who takes his time.
pub(crate) const DRIP: Duration = Duration::from_millis(50);

/// What is too large is refused. Who needs more than a second to send the rest of it may lose the answer: a connection that is
/// closed while something comes is reset by the kernel.
const REFUSED: [&str; 2] = ["431 whole", "0 bytes"];

/// Reads to the end: the first line, whether it is the whole answer, and how the connection ended.
pub(crate) async fn ending(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("ended in time");
    let end = if read.is_ok() { "end" } else { "reset" };
    format!("{} {end}", said(&answer))
}

/// The status, and whether the body is as long as the head says.
pub(crate) fn said(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return format!("{} bytes", answer.len()) };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let whole = length.is_some_and(|length| length.parse() == Ok(body.len()));
    format!("{} {}", head.get(9..12).unwrap_or_default(), if whole { "whole" } else { "part" })
}

pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("connected");
    stream.set_nodelay(true).expect("set");
    stream
}

/// With as small a buffer as the kernel allows.
pub(crate) async fn connect_narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(1).expect("set");
    socket.connect(address).await.expect("connected")
}

/// Sends `begin`, and then a byte now and then, until the edge says something or ends the connection.
async fn drip(address: SocketAddr, begin: &'static [u8]) -> String {
    let mut stream = connect(address).await;
    stream.write_all(begin).await.expect("written");
    let mut ticks = tokio::time::interval(DRIP);
    while tokio::time::timeout(Duration::from_millis(1), stream.readable()).await.is_err() {
        ticks.tick().await;
        if stream.write_all(b"y").await.is_err() {
            break;
        }
    }
    ending(&mut stream).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_headers() {
    let bounds = Bounds { patience_ms: SHORT_MS, connections: 500, bytes: 24 << 10, cpu_us: 5_000 };
    cost("slow headers", bounds, &["408 whole end"], |to| drip(to, b"GET / HTTP/1.1\r\nHost: x\r\na: ")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_stop() {
    let bounds = Bounds { patience_ms: SHORT_MS, connections: 500, bytes: 96 << 10, cpu_us: 5_000 };
    cost("bodies that stop", bounds, &["408 whole end"], |to| async move {
        let mut stream = connect(to).await;
        stream
            .write_all(b"POST /form HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc")
            .await
            .expect("written");
        ending(&mut stream).await
    })
    .await;
}

/// They are slow, and mean it: they are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies() {
    let bounds = Bounds { patience_ms: LONG_MS, connections: 200, bytes: 128 << 10, cpu_us: 15_000 };
    cost("slow bodies", bounds, &["200 whole end"], |to| async move {
        let mut stream = connect(to).await;
        let head = b"POST /form HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 40\r\n\r\n";
        stream.write_all(head).await.expect("written");
        let mut ticks = tokio::time::interval(DRIP);
        for _ in 0..40 {
            ticks.tick().await;
            stream.write_all(b"y").await.expect("written");
        }
        ending(&mut stream).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_stop() {
    let bounds = Bounds { patience_ms: SHORT_MS, connections: 500, bytes: 32 << 10, cpu_us: 40_000 };
    cost("readers that stop", bounds, &["cut off"], |to| async move {
        let mut stream = connect_narrow(to).await;
        stream.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
        // The end of the connection would come behind what is not read; but what is sent on one that is gone is refused.
        let waited = Instant::now();
        while stream.write_all(b"y").await.is_ok() {
            assert!(waited.elapsed() < PATIENCE, "not cut off");
            tokio::time::sleep(DRIP).await;
        }
        "cut off".to_owned()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_at_a_time() {
    let bounds = Bounds { patience_ms: LONG_MS, connections: 200, bytes: 24 << 10, cpu_us: 5_000 };
    cost("a byte at a time", bounds, &["200 whole"], |to| async move {
        let mut stream = connect(to).await;
        for byte in b"GET /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" {
            stream.write_all(&[*byte]).await.expect("written");
            tokio::task::yield_now().await;
        }
        let mut answer = Vec::new();
        let mut byte = [0];
        while tokio::time::timeout(PATIENCE, stream.read(&mut byte)).await.expect("in time").expect("read") > 0 {
            answer.push(byte[0]);
        }
        assert!(answer.len() > PAGE_BYTES && answer.len() < LARGE_BYTES);
        said(&answer)
    })
    .await;
}

/// Sends a head until the edge has had enough of it.
async fn endless(address: SocketAddr, piece: &[u8]) -> String {
    let mut stream = connect(address).await;
    let (mut read, mut write) = stream.split();
    let _ = write.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await;
    let mut answer = Vec::new();
    let writing = async {
        for _ in 0..100_000 {
            if write.write_all(piece).await.is_err() {
                return;
            }
        }
    };
    let reading = tokio::time::timeout(PATIENCE, read.read_to_end(&mut answer));
    // It reads a little of what comes after its answer, so that the answer is not lost, and then resets the connection.
    let (_, ended) = tokio::join!(writing, reading);
    let _ = ended.expect("ended in time");
    said(&answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_headers() {
    let bounds = Bounds { patience_ms: SHORT_MS, connections: 200, bytes: 96 << 10, cpu_us: 5_000 };
    cost("huge headers", bounds, &REFUSED, |to| async move { endless(to, &[b'h'; 4_096]).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_headers() {
    let bounds = Bounds { patience_ms: SHORT_MS, connections: 200, bytes: 96 << 10, cpu_us: 5_000 };
    cost("10,000 headers", bounds, &REFUSED, |to| async move {
        let mut stream = connect(to).await;
        let mut head = b"GET / HTTP/1.1\r\nHost: x\r\n".to_vec();
        (0..10_000).for_each(|number| head.extend_from_slice(format!("h{number}: v\r\n").as_bytes()));
        head.extend_from_slice(b"\r\n");
        let _ = stream.write_all(&head).await;
        ending(&mut stream).await.trim_end_matches(" end").trim_end_matches(" reset").to_owned()
    })
    .await;
}
