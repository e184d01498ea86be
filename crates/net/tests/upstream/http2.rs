//! HTTP/2 by prior knowledge: what is sent, how it is shared, and what its refusals mean.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response, Version};
use net::{Body, Retry, Upstream, UpstreamConfig, UpstreamProtocol};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use crate::fake::{Fake, config, fetch, get, idle, until, word};

/// Serves HTTP/2 on a connection: `answer` gets each request with its number from 0.
pub(crate) async fn serve<S, F, R>(stream: S, mut answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: FnMut(usize, Request<RecvStream>, SendResponse<Bytes>) -> R,
    R: Future<Output = ()> + Send + 'static,
{
    let mut settings = h2::server::Builder::new();
    // Many servers hang up on a client that gives up many requests. That is not what is tested with this one.
    settings.max_pending_accept_reset_streams(10_000).max_concurrent_reset_streams(10_000);
    let Ok(mut connection) = settings.handshake(stream).await else { return };
    let mut number = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(number, request, respond));
        number += 1;
    }
}

/// Answers with a short text.
pub(crate) fn say(mut respond: SendResponse<Bytes>, text: String) {
    if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
        let _ = stream.send_data(text.into(), true);
    }
}

fn http2(url: &str) -> Upstream {
    let settings = UpstreamConfig { protocol: UpstreamProtocol::Http2, ..config(&[url]) };
    Upstream::new(settings).expect("settings")
}

/// A server that resets the first request on its first connection, and answers everything else.
async fn resetting(reason: Reason) -> Fake {
    Fake::start(move |connection, stream| {
        serve(stream, move |number, _request, mut respond| async move {
            match (connection, number) {
                (0, 0) => respond.send_reset(reason),
                _ => say(respond, "hi".to_owned()),
            }
        })
    })
    .await
}

#[tokio::test]
async fn target_and_host_arrive_and_what_belongs_to_a_connection_does_not() {
    let fake = Fake::start(|_, stream| {
        serve(stream, |_, request, respond| async move {
            assert_eq!(request.version(), Version::HTTP_2);
            let names: Vec<&str> = request.headers().keys().map(http::HeaderName::as_str).collect();
            say(respond, format!("{} {} {names:?}", request.method(), request.uri()));
        })
    })
    .await;
    let upstream = http2(&fake.url);
    for target in ["/", "/a/../b//c/./%7e?", "/?a=b&&c=%zz{}|"] {
        let mut request = get(target);
        for (name, value) in
            [("connection", "upgrade"), ("upgrade", "websocket"), ("te", "gzip"), ("keep-alive", "5"), ("x-a", "b")]
        {
            request.headers_mut().insert(name, value.parse().expect("value"));
        }
        let expected = format!("GET http://shop.example{target} [\"x-a\"]");
        assert_eq!(fetch(&upstream, request).await, (200, expected));
    }
    let mut odd = get("/");
    odd.headers_mut().insert("host", "not a host".parse().expect("value"));
    assert_eq!(word(&upstream, odd).await, "bad-request");
}

#[tokio::test]
async fn requests_share_one_connection() {
    let gate = Arc::new(Notify::new());
    let open = Arc::clone(&gate);
    let fake = Fake::start(move |_, stream| {
        let open = Arc::clone(&open);
        serve(stream, move |number, _, respond| {
            let open = Arc::clone(&open);
            async move {
                // All wait for the last one.
                if number == 19 {
                    open.notify_waiters()
                } else {
                    open.notified().await
                }
                say(respond, "hi".to_owned());
            }
        })
    })
    .await;
    let upstream = http2(&fake.url);
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let upstream = upstream.clone();
        requests.spawn(async move { fetch(&upstream, get("/")).await.1 });
    }
    while let Some(answer) = requests.join_next().await {
        assert_eq!(answer.expect("answer"), "hi");
    }
    assert_eq!(fake.accepted(), 1);
    idle(&upstream, 1).await;
}

#[tokio::test]
async fn only_refused_streams_are_sent_again() {
    let post = |body: &'static str| Request::post("/").body(Body::full(body)).expect("request");
    for (reason, request, expected) in [
        (Reason::REFUSED_STREAM, get("/"), "none"),
        (Reason::REFUSED_STREAM, post(""), "none"),
        (Reason::REFUSED_STREAM, post("begun"), "closed-unsent"),
        (Reason::INTERNAL_ERROR, get("/"), "bad-response"),
        (Reason::CANCEL, get("/"), "bad-response"),
    ] {
        let fake = resetting(reason).await;
        assert_eq!(word(&http2(&fake.url), request).await, expected, "{reason:?}");
    }
}

/// The frames that a server begins with, and `GOAWAY` with the last stream 0: nothing was looked at (RFC 9113 § 6.8).
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[tokio::test]
async fn a_request_behind_the_last_stream_of_a_goaway_is_sent_again() {
    let fake = Fake::start(|connection, mut stream| async move {
        if connection > 0 {
            return serve(stream, |_, _, respond| async move { say(respond, "hi".to_owned()) }).await;
        }
        let _ = stream.write_all(&SETTINGS).await;
        // The preface, then frames up to the first HEADERS.
        let mut preface = [0; 24];
        let _ = stream.read_exact(&mut preface).await;
        loop {
            let mut frame = [0; 9];
            stream.read_exact(&mut frame).await.expect("frame");
            let length = usize::from(frame[1]) << 8 | usize::from(frame[2]);
            stream.read_exact(&mut vec![0; length]).await.expect("payload");
            if frame[3] == 1 {
                break;
            }
        }
        let _ = stream.write_all(&GOAWAY).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let upstream = Upstream::new(UpstreamConfig {
        protocol: UpstreamProtocol::Http2,
        retry: Retry::Unsent,
        ..config(&[&fake.url])
    })
    .expect("settings");
    let request = Request::post("/").body(Body::empty()).expect("request");
    assert_eq!(fetch(&upstream, request).await.1, "hi");
    assert_eq!(fake.accepted(), 2);
}

#[tokio::test]
async fn bodies_that_do_not_come_whole_are_errors() {
    // Shorter than announced; or reset, once the client has the head.
    for announced in [true, false] {
        let gate = Arc::new(Notify::new());
        let open = Arc::clone(&gate);
        let fake = Fake::start(move |_, stream| {
            let open = Arc::clone(&open);
            serve(stream, move |_, _, mut respond| {
                let open = Arc::clone(&open);
                async move {
                    let mut response = Response::new(());
                    if announced {
                        response.headers_mut().insert("content-length", http::HeaderValue::from_static("9"));
                    }
                    let mut stream = respond.send_response(response, false).expect("open");
                    let _ = stream.send_data("hi".into(), announced);
                    open.notified().await;
                    stream.send_reset(Reason::INTERNAL_ERROR);
                }
            })
        })
        .await;
        let response = http2(&fake.url).send(get("/"), None).await.expect("head");
        gate.notify_one();
        let error = net::read_to_end(response.response.into_body(), 100).await.expect_err("not whole");
        let net::ReadError::Broken(error) = error else { panic!("{error}") };
        assert_eq!(error.downcast_ref::<net::UpstreamError>().expect("ours").word(), "closed-early", "{announced}");
    }
}

#[tokio::test]
async fn a_reused_connection_that_closes_is_replaced_for_safe_requests() {
    for (retry, expected) in [(Retry::Safe, "none"), (Retry::Unsent, "closed-early")] {
        let fake = Fake::start(|connection, stream| async move {
            let mut served = h2::server::handshake(stream).await.expect("handshake");
            let mut number = 0;
            while let Some(Ok((_, respond))) = served.accept().await {
                if (connection, number) == (0, 1) {
                    // Cut, without a word.
                    return;
                }
                number += 1;
                say(respond, "hi".to_owned());
            }
        })
        .await;
        let settings = UpstreamConfig { protocol: UpstreamProtocol::Http2, retry, ..config(&[&fake.url]) };
        let upstream = Upstream::new(settings).expect("settings");
        fetch(&upstream, get("/")).await;
        assert_eq!(word(&upstream, get("/")).await, expected, "{retry:?}");
    }
}

#[tokio::test]
async fn an_early_response_ends_the_upload() {
    let fake =
        Fake::start(|_, stream| serve(stream, |_, _, respond| async move { say(respond, "no".to_owned()) })).await;
    let upstream = http2(&fake.url);
    let (pieces, receiver) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let body =
        futures_util::stream::unfold(
            receiver,
            |mut receiver| async move { Some((Ok(receiver.recv().await?), receiver)) },
        );
    pieces.send(Bytes::from("begin")).expect("somebody listens");
    let request = Request::post("/").body(Body::stream(body.boxed())).expect("request");
    assert_eq!(fetch(&upstream, request).await.1, "no");
    until("the upload is let go", || pieces.is_closed()).await;
    assert_eq!(fetch(&upstream, get("/")).await.1, "no");
    assert_eq!(fake.accepted(), 1, "the connection goes on");
}
