//! Upgrades: WebSocket and the like.

use http::Request;
use net::{Body, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fake::{Fake, fetch, ok, read_head, text, until, upstream};

fn asking() -> Request<Body> {
    let request = Request::get("/chat").header("host", "shop.example");
    request.header("connection", "keep-alive, Upgrade").header("upgrade", "echo").body(Body::empty()).expect("request")
}

async fn echo(upstream: &Upstream) {
    let response = upstream.send(asking(), None).await.expect("response");
    assert_eq!(response.response.status(), 101);
    assert_eq!(response.response.headers()["upgrade"], "echo");
    let mut stream = response.upgraded.expect("upgraded");
    for word in ["early", "hello", "world"] {
        if word != "early" {
            stream.write_all(word.as_bytes()).await.expect("write");
        }
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await.expect("read");
        assert_eq!(answer, word.as_bytes());
    }
    assert_eq!(upstream.state()[0].connections, 1, "it still counts");
    drop(stream);
    until("it no longer counts", || upstream.state()[0].connections == 0 && upstream.state()[0].active == 0).await;
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways_and_counts() {
    let fake = Fake::start(|_, mut stream| async move {
        let head = read_head(&mut stream).await.expect("request");
        assert!(head.contains("upgrade: echo"));
        let switched = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nearly";
        let _ = stream.write_all(switched.as_bytes()).await;
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await;
    echo(&upstream(&[&fake.url])).await;
}

#[tokio::test]
async fn a_server_may_answer_without_upgrading() {
    let fake = Fake::start(|_, mut stream| async move {
        while read_head(&mut stream).await.is_some() {
            let _ = stream.write_all(ok("plain").as_bytes()).await;
        }
    })
    .await;
    let upstream = upstream(&[&fake.url]);
    let response = upstream.send(asking(), None).await.expect("response");
    assert!(response.upgraded.is_none());
    assert_eq!(text(response).await, (200, "plain".to_owned()));
    crate::fake::idle(&upstream, 1).await;
    assert_eq!(fetch(&upstream, crate::fake::get("/")).await.1, "plain");
    assert_eq!(fake.accepted(), 1);
}
