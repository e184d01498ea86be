//! HTTP/1.1: what is sent, what is understood, and what connections are used again.

use std::sync::{Arc, Mutex};

use http::Request;
use net::{Body, Upstream, UpstreamProtocol};
use tokio::io::AsyncWriteExt;

use crate::fake::{Fake, answer_all, config, fetch, get, idle, ok, read_head, text, until, upstream, word};

#[tokio::test]
async fn targets_and_hosts_arrive_byte_for_byte() {
    let fake = Fake::start(|_, mut stream| async move {
        while let Some(head) = read_head(&mut stream).await {
            let _ = stream.write_all(ok(&head).as_bytes()).await;
        }
    })
    .await;
    let upstream = upstream(&[&fake.url]);
    for target in
        ["/", "/a/../b//c/./", "/%7e%2F%2f?", "/{}|^\"?a=b&&c=%zz{}|^", "/ä/ö?ü", "//double", "/a;b=c,d!$'()*+@:~"]
    {
        let (_, head) = fetch(&upstream, get(target)).await;
        assert_eq!(head, format!("GET {target} HTTP/1.1\r\nhost: shop.example\r\n\r\n"));
        idle(&upstream, 1).await;
    }
    let request = Request::options("*").body(Body::empty()).expect("request");
    let (_, head) = fetch(&upstream, request).await;
    let server = fake.url.trim_start_matches("http://");
    assert_eq!(head, format!("OPTIONS * HTTP/1.1\r\nhost: {server}\r\n\r\n"));
    assert_eq!(fake.accepted(), 1, "one connection for all of them");
}

#[tokio::test]
async fn odd_responses_are_understood() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "hi"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "hi"),
        ("HTTP/1.0 200 OK\r\n\r\nup to the end", "up to the end"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: wonderful\r\n\r\n5\r\nabc", "5\r\nabc"),
        ("HTTP/1.1 200 OK\r\nx-a : b\r\nx-c: d\r\n e\r\ncontent-length: 2\r\n\r\nhi", "hi"),
        ("HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", ""),
        ("HTTP/1.1 204 None\r\ncontent-length: 7\r\n\r\n", ""),
    ] {
        let fake = Fake::start(move |_, mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        })
        .await;
        assert_eq!(fetch(&upstream(&[&fake.url]), get("/")).await.1, expected, "{answer:?}");
    }
}

#[tokio::test]
async fn bodies_that_do_not_come_whole_are_errors() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi", "closed-early"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhi", "closed-early"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n", "closed-early"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n", "closed-early"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhi", "closed-early"),
        ("HTTP/1.1 200 OK\r\ncontent-le", "closed-early"),
        ("", "closed-early"),
        ("nonsense\r\n\r\n", "bad-response"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "bad-response"),
        ("HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "bad-response"),
    ] {
        let fake = Fake::start(move |_, mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        })
        .await;
        assert_eq!(word(&upstream(&[&fake.url]), get("/")).await, expected, "{answer:?}");
        assert_eq!(fake.accepted(), 1, "{answer:?}");
    }
}

#[tokio::test]
async fn heads_of_responses_are_bounded() {
    for (fields, bytes, expected) in
        [(250, 0, "none"), (257, 0, "bad-response"), (1, 60 << 10, "none"), (1, 70 << 10, "bad-response")]
    {
        let fake = Fake::start(move |_, stream| async move {
            let fields = (1..fields).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
            let long = "z".repeat(bytes);
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{fields}x-long: {long}\r\n\r\n");
            answer_all(stream, &answer).await;
        })
        .await;
        assert_eq!(word(&upstream(&[&fake.url]), get("/")).await, expected, "{fields} fields, {bytes} bytes");
    }
}

#[tokio::test]
async fn informational_responses_are_told() {
    let fake = Fake::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        let early =
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early\r\nlink: </a>\r\n\r\n";
        let _ = stream.write_all(format!("{early}{}", ok("end")).as_bytes()).await;
    })
    .await;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&heard);
    let listen: net::Informational = Arc::new(move |status, headers| {
        let link = headers.get("link").map(|value| value.to_str().expect("text").to_owned());
        listener.lock().expect("lock").push((status.as_u16(), link));
    });
    let response = upstream(&[&fake.url]).send(get("/"), Some(listen)).await.expect("response");
    assert_eq!(text(response).await, (200, "end".to_owned()));
    assert_eq!(*heard.lock().expect("lock"), [(102, None), (103, Some("</a>".to_owned()))]);
}

#[tokio::test]
async fn a_response_that_was_left_unread_or_is_too_long_closes_its_connection() {
    let fake = Fake::start(|_, stream| async move {
        // The second response is one that nobody asked for.
        answer_all(stream, &format!("{}{}", ok("first"), ok("smuggled"))).await;
    })
    .await;
    let upstream = upstream(&[&fake.url]);
    for round in 1..=3 {
        assert_eq!(fetch(&upstream, get("/")).await.1, "first");
        assert_eq!(fake.accepted(), round);
    }
    drop(upstream.send(get("/"), None).await.expect("response"));
    until("no connection is left", || upstream.state()[0].connections == 0).await;
}

#[tokio::test]
async fn plain_http1_can_be_asked_for() {
    let fake = Fake::start(|_, stream| async move { answer_all(stream, &ok("hi")).await }).await;
    let settings = net::UpstreamConfig { protocol: UpstreamProtocol::Http1, ..config(&[&fake.url]) };
    assert_eq!(fetch(&Upstream::new(settings).expect("settings"), get("/")).await, (200, "hi".to_owned()));
}
