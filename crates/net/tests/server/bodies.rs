//! Bodies of requests: streamed with back-pressure, 100, and what is left unread.

use std::time::Duration;

use net::ServerLimits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::kit::{PATIENCE, Raw, start};

#[tokio::test]
async fn the_size_is_known_where_the_client_says_it() {
    let server = start(ServerLimits::default()).await;
    let mut raw = Raw::connect(&server).await;
    let cases = [
        ("", "Some(0) true"),
        ("Content-Length: 0\r\n", "Some(0) true"),
        ("Content-Length: 200000\r\n", "Some(200000) false"),
        ("Transfer-Encoding: chunked\r\n", "None false"),
    ];
    for (fields, seen) in cases {
        raw.write(format!("POST /size HTTP/1.1\r\nHost: x\r\n{fields}\r\n")).await;
        assert_eq!(raw.answer().await.expect("an answer").body, seen, "{fields}");
        if fields.contains("200000") {
            raw.write(vec![b'x'; 200_000]).await;
        }
    }
}

#[tokio::test]
async fn a_large_body_streams_through_in_both_directions() {
    let server = start(ServerLimits::default()).await;
    let sent: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    let raw = Raw::connect(&server).await;
    let (mut read, mut write) = raw.0.into_split();
    let copy = sent.clone();
    let writer = tokio::spawn(async move {
        let head =
            format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", copy.len());
        write.write_all(head.as_bytes()).await.expect("head");
        write.write_all(&copy).await.expect("body");
        write
    });
    let mut got = Vec::new();
    tokio::time::timeout(PATIENCE, read.read_to_end(&mut got)).await.expect("in time").expect("clean");
    let start = got.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    assert!(got[start..] == sent[..]);
    writer.await.expect("written");
}

#[tokio::test]
async fn continue_is_sent_when_the_body_is_wanted_and_not_otherwise() {
    let server = start(ServerLimits::default()).await;
    let request =
        |path: &str| format!("POST {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    let mut raw = Raw::connect(&server).await;
    raw.write(request("/seen")).await;
    assert_eq!(raw.head().await.expect("continue"), "HTTP/1.1 100 Continue\r\n\r\n");
    raw.write("abc").await;
    assert!(raw.answer().await.expect("an answer").body.ends_with("abc"));
    assert!(raw.is_open().await);
    // Not wanted: the final response at once, and the connection ends, since the body may come or not.
    raw.write(request("/unread")).await;
    let answer = raw.answer().await.expect("an answer");
    assert!(answer.status == 200 && answer.head.contains("connection: close\r\n"));
    assert!(!raw.is_open().await);
}

#[tokio::test]
async fn a_long_unread_body_ends_the_connection_and_the_answer_arrives() {
    let server = start(ServerLimits::default()).await;
    let mut raw = Raw::connect(&server).await;
    raw.write("POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n").await;
    raw.write(vec![b'x'; 100_000]).await;
    let answer = raw.answer().await.expect("an answer");
    assert!(answer.body == "not read" && answer.head.contains("connection: close\r\n"));
    // Chunked: how long it is shows only later.
    let mut raw = Raw::connect(&server).await;
    raw.write("POST /unread HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n").await;
    assert_eq!(raw.answer().await.expect("an answer").body, "not read");
    raw.write(vec![b'x'; 0x10_0000]).await;
    raw.write("\r\n0\r\n\r\n").await;
    assert!(!raw.is_open().await);
}

#[tokio::test]
async fn a_service_that_never_reads_holds_no_more_than_the_bound() {
    let server = start(ServerLimits::default()).await;
    let mut raw = Raw::connect(&server).await;
    raw.write("POST /forever HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n").await;
    // What the sockets of both sides hold is some MiB; the rest has to stay with the client.
    let piece = vec![b'x'; 1 << 16];
    let mut taken = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(300), raw.0.write(&piece)).await {
        taken += written.expect("open");
    }
    assert!(taken < 50_000_000, "{taken}");
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_body_breaks_it() {
    let server = start(ServerLimits::default()).await;
    let mut raw = Raw::connect(&server).await;
    raw.write("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello").await;
    let head = raw.head().await.expect("a head");
    assert!(head.contains("content-length: 10\r\n"), "{head}");
    raw.0.shutdown().await.expect("half-closed");
    let (rest, _) = raw.rest().await;
    assert_eq!(rest, "hello");
}

#[tokio::test]
async fn a_body_that_is_read_after_the_response_is_taken_whole() {
    let server = start(ServerLimits::default()).await;
    let mut raw = Raw::connect(&server).await;
    let body = vec![b'x'; 8 << 20];
    raw.write(format!("POST /read-later HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len())).await;
    tokio::time::timeout(PATIENCE, raw.0.write_all(&body)).await.expect("in time").expect("taken");
    assert_eq!(raw.answer().await.expect("an answer").body, "reading");
    assert!(raw.is_open().await);
}

#[tokio::test]
async fn half_a_body_is_answered() {
    let server = start(ServerLimits::default()).await;
    let mut raw = Raw::connect(&server).await;
    raw.write("POST /tell HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello").await;
    raw.0.shutdown().await.expect("half-closed");
    let answer = raw.answer().await.expect("an answer");
    assert!(answer.body.contains("before the end of its body"), "{answer:?}");
    assert!(answer.head.contains("connection: close\r\n"));
}
