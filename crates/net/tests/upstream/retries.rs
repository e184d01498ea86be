//! What is sent a second time, and what never is.

use http::{Method, Request};
use net::{Body, Retry, Upstream, UpstreamConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fake::{Fake, config, fetch, get, idle, nobody, ok, read_head, upstream, word};

/// A server whose first connection answers once and closes at the second request, before a byte of an answer; later
/// connections answer always.
async fn closing() -> Fake {
    Fake::start(|number, mut stream| async move {
        let mut answered = 0;
        while let Some(head) = read_head(&mut stream).await {
            if number == 0 && answered == 1 {
                return;
            }
            if head.contains("content-length: 4") {
                let _ = stream.read_exact(&mut [0; 4]).await;
            }
            answered += 1;
            let _ = stream.write_all(ok("hi").as_bytes()).await;
        }
    })
    .await
}

#[tokio::test]
async fn on_a_reused_connection_that_closes_only_safe_requests_without_body_are_repeated() {
    for (method, body, retry, expected) in [
        (Method::GET, "", Retry::Safe, "none"),
        (Method::HEAD, "", Retry::Safe, "none"),
        (Method::OPTIONS, "", Retry::Safe, "none"),
        (Method::GET, "", Retry::Unsent, "closed-early"),
        (Method::GET, "body", Retry::Safe, "closed-early"),
        (Method::POST, "", Retry::Safe, "closed-early"),
        (Method::DELETE, "", Retry::Safe, "closed-early"),
        (Method::PUT, "body", Retry::Safe, "closed-early"),
    ] {
        let fake = closing().await;
        let upstream = Upstream::new(UpstreamConfig { retry, ..config(&[&fake.url]) }).expect("settings");
        fetch(&upstream, get("/")).await;
        idle(&upstream, 1).await;
        let request = Request::builder().method(method.clone()).uri("/").body(Body::full(body)).expect("request");
        assert_eq!(word(&upstream, request).await, expected, "{method} {body:?} {retry:?}");
        assert_eq!(fake.accepted(), if expected == "none" { 2 } else { 1 }, "{method} {body:?} {retry:?}");
    }
}

#[tokio::test]
async fn a_fresh_connection_that_got_the_request_is_never_tried_again() {
    let fake = Fake::start(|_, mut stream| async move { drop(read_head(&mut stream).await) }).await;
    let other = Fake::start(|_, mut stream| async move { drop(read_head(&mut stream).await) }).await;
    assert_eq!(word(&upstream(&[&fake.url, &other.url]), get("/")).await, "closed-early");
    assert_eq!(fake.accepted() + other.accepted(), 1);
}

#[tokio::test]
async fn nothing_is_repeated_after_a_byte_of_the_response() {
    let fake = Fake::start(|_, mut stream| async move {
        let mut answer = ok("hi");
        while read_head(&mut stream).await.is_some() {
            let _ = stream.write_all(answer.as_bytes()).await;
            if answer == "H" {
                return;
            }
            "H".clone_into(&mut answer);
        }
    })
    .await;
    let upstream = upstream(&[&fake.url]);
    fetch(&upstream, get("/")).await;
    idle(&upstream, 1).await;
    assert_eq!(word(&upstream, get("/")).await, "closed-early");
    assert_eq!(fake.accepted(), 1);
}

#[tokio::test]
async fn what_was_not_sent_goes_to_the_next_server_with_its_body() {
    let echo = Fake::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        let mut body = [0; 4];
        stream.read_exact(&mut body).await.expect("body");
        let _ = stream.write_all(ok(std::str::from_utf8(&body).expect("text")).as_bytes()).await;
    })
    .await;
    let (first, second) = (nobody().await, nobody().await);
    let upstream = upstream(&[&first, &second, &echo.url]);
    let request = || Request::post("/").body(Body::full("four")).expect("request");
    assert_eq!(fetch(&upstream, request()).await, (200, "four".to_owned()));
    assert_eq!(upstream.state().iter().map(|server| server.failures).collect::<Vec<_>>(), [1, 1, 0]);
}

#[tokio::test]
async fn tries_are_bounded() {
    let mut servers = Vec::new();
    for _ in 0..5 {
        servers.push(nobody().await);
    }
    let upstream = upstream(&servers.iter().map(String::as_str).collect::<Vec<_>>());
    let error = upstream.send(get("/"), None).await.err().expect("nobody");
    assert_eq!((error.word(), error.reached_origin()), ("connect-refused", false));
    let tried: u32 = upstream.state().iter().map(|server| server.failures).sum();
    assert_eq!(tried as usize, net::TRIES_MAX);
}

#[tokio::test]
async fn a_connection_found_closed_is_replaced_for_any_request() {
    let fake = Fake::start(|number, mut stream| async move {
        let answers = if number == 0 { 1 } else { 10 };
        for _ in 0..answers {
            if read_head(&mut stream).await.is_none() {
                return;
            }
            let _ = stream.write_all(ok("hi").as_bytes()).await;
        }
    })
    .await;
    let upstream = Upstream::new(UpstreamConfig { retry: Retry::Unsent, ..config(&[&fake.url]) }).expect("settings");
    fetch(&upstream, get("/")).await;
    crate::fake::until("the closed connection is gone", || upstream.state()[0].connections == 0).await;
    let request = Request::post("/").body(Body::empty()).expect("request");
    assert_eq!(fetch(&upstream, request).await.1, "hi");
}
