//! Each wait has its end and its word, and what moves is not cut off.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::Request;
use net::{Body, Upstream, UpstreamConfig, UpstreamServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};

use crate::fake::{Fake, answer_all, config, fetch, get, nobody, ok, read_head, text, until, upstream, word};

/// Short enough for a test, where the end of the wait is what it is about.
const SHORT_MS: u64 = 50;

fn impatient(url: &str) -> UpstreamConfig {
    UpstreamConfig { first_byte_ms: SHORT_MS, idle_ms: SHORT_MS, ..config(&[url]) }
}

fn made(settings: UpstreamConfig) -> Upstream {
    Upstream::new(settings).expect("settings")
}

/// A body that says what it is told, and an end for it.
fn told() -> (mpsc::UnboundedSender<Bytes>, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let pieces = futures_util::stream::unfold(receiver, |mut receiver: mpsc::UnboundedReceiver<Bytes>| async move {
        let piece = receiver.recv().await?;
        Some((Ok(piece), receiver))
    });
    (sender, Body::stream(pieces))
}

#[tokio::test]
async fn every_error_has_its_word() {
    let silent = Fake::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let halting = Fake::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi").await;
        std::future::pending::<()>().await;
    })
    .await;
    let deaf = Fake::start(|_, stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let deaf_tls = deaf.url.replace("http://", "https://");
    let plain = Fake::start(|_, stream| async move { answer_all(stream, "not TLS at all\r\n\r\n").await }).await;
    let not_tls = Fake::start(|_, mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    for (settings, expected, reached) in [
        (config(&[&nobody().await]), "connect-refused", false),
        (config(&["http://name.invalid"]), "dns-failed", false),
        (UpstreamConfig { connect_ms: SHORT_MS, ..config(&[&deaf_tls]) }, "connect-timeout", false),
        (config(&[&not_tls.url.replace("http://", "https://")]), "tls-failed", false),
        (impatient(&silent.url), "first-byte-timeout", true),
        (config(&[&plain.url]), "bad-response", true),
    ] {
        let error = made(settings).send(get("/"), None).await.err().expect("an error");
        assert_eq!((error.word(), error.reached_origin()), (expected, reached), "{error}");
    }
    assert_eq!(word(&made(impatient(&halting.url)), get("/")).await, "body-timeout");
    // An origin that reads nothing, and more to send than all buffers hold.
    let piece = || Ok(Bytes::from(vec![0; 1 << 20]));
    let body = Body::stream(futures_util::stream::iter(0..64).map(move |_| piece()));
    let request = Request::post("/").body(body).expect("request");
    assert_eq!(word(&made(impatient(&deaf.url)), request).await, "upload-stalled");
    // A client that sends nothing, and one that breaks off.
    let waiting = Request::post("/").body(Body::stream(futures_util::stream::pending())).expect("request");
    let upstream = made(impatient(&silent.url));
    assert_eq!(word(&upstream, waiting).await, "request-body-failed");
    let broken = Body::stream(futures_util::stream::iter([Ok(Bytes::from("a")), Err("gone".into())]));
    assert_eq!(word(&upstream, Request::post("/").body(broken).expect("request")).await, "request-body-failed");
    assert_eq!(upstream.state()[0].failures, 0, "the server is not to blame for its clients");
}

#[tokio::test]
async fn an_upload_may_take_longer_than_the_first_byte_as_long_as_it_moves() {
    let seen = Arc::new(Notify::new());
    let saw = Arc::clone(&seen);
    let fake = Fake::start(move |_, mut stream| {
        let saw = Arc::clone(&saw);
        async move {
            read_head(&mut stream).await;
            // A chunk of one byte each: length, line, byte, line.
            for _ in 0..10 {
                let _ = stream.read_exact(&mut [0; 6]).await;
                saw.notify_one();
            }
            let _ = stream.read_exact(&mut [0; 5]).await;
            let _ = stream.write_all(ok("all of it").as_bytes()).await;
        }
    })
    .await;
    let upstream = made(UpstreamConfig { first_byte_ms: 500, idle_ms: 10_000, ..config(&[&fake.url]) });
    let (pieces, body) = told();
    let feed = async {
        for _ in 0..10 {
            pieces.send(Bytes::from("x")).expect("somebody listens");
            seen.notified().await;
            // Ten of these are longer than the wait for the first byte.
            tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        }
        drop(pieces);
    };
    let request = Request::post("/").body(body).expect("request");
    let (answer, ()) = tokio::join!(fetch(&upstream, request), feed);
    assert_eq!(answer, (200, "all of it".to_owned()));
}

#[tokio::test]
async fn an_early_response_is_handed_out_and_the_rest_of_the_upload_is_given_up() {
    let fake = Fake::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        let refusal = "HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno";
        let _ = stream.write_all(refusal.as_bytes()).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let upstream = upstream(&[&fake.url]);
    let (pieces, body) = told();
    pieces.send(Bytes::from("begin")).expect("somebody listens");
    let response = upstream.send(Request::post("/").body(body).expect("request"), None).await.expect("response");
    assert_eq!(text(response).await, (413, "no".to_owned()));
    until("the connection is closed", || upstream.state()[0].connections == 0).await;
    until("the upload is let go", || pieces.is_closed()).await;
}

#[tokio::test]
async fn a_body_in_both_directions_at_once_flows() {
    let fake = Fake::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        for _ in 0..3 {
            let mut chunk = [0; 6];
            let _ = stream.read_exact(&mut chunk).await;
            let _ = stream.write_all(&chunk).await;
        }
        let _ = stream.read_exact(&mut [0; 5]).await;
        let _ = stream.write_all(b"0\r\n\r\n").await;
        read_head(&mut stream).await;
    })
    .await;
    let upstream = upstream(&[&fake.url]);
    let (pieces, body) = told();
    let response = upstream.send(Request::post("/").body(body).expect("request"), None).await.expect("response");
    let mut body = http_body_util::BodyExt::into_data_stream(response.response.into_body());
    for piece in ["a", "b", "c"] {
        pieces.send(Bytes::from(piece)).expect("somebody listens");
        assert_eq!(body.next().await.expect("piece").expect("whole"), piece);
    }
    drop(pieces);
    assert!(body.next().await.is_none());
    crate::fake::idle(&upstream, 1).await;
}

#[tokio::test]
async fn all_addresses_of_a_name_are_tried() {
    // `localhost` has two addresses on most machines, and the server listens on one of them.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("address").port();
    let _fake = Fake::on(listener, |_, stream| async move { answer_all(stream, &ok("hi")).await });
    let url = format!("http://localhost:{port}").parse().expect("url");
    let settings = UpstreamConfig { servers: vec![UpstreamServer { url, weight: 1 }], ..config(&[]) };
    assert_eq!(fetch(&made(settings), get("/")).await.1, "hi");
}
