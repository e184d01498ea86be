//! HTTP/2 with prior knowledge on the same port.

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, Response};
use net::ServerLimits;

use super::kit::{PATIENCE, Server, start};

async fn connect(server: &Server) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(server.address).await.expect("connect");
    let (client, connection) = h2::client::handshake(stream).await.expect("handshake");
    tokio::spawn(connection);
    client.ready().await.expect("ready")
}

fn get(path: &str) -> http::request::Builder {
    Request::builder().uri(format!("http://x.example{path}"))
}

/// Sends a request with a body, and reads the whole response.
async fn send(client: &SendRequest<Bytes>, request: Request<()>, body: &[u8]) -> Result<Response<Vec<u8>>, h2::Error> {
    let exchange = async {
        let mut client = client.clone().ready().await?;
        let (response, mut stream) = client.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            stream.send_data(Bytes::copy_from_slice(body), true)?;
        }
        let (parts, mut incoming) = response.await?.into_parts();
        let mut whole = Vec::new();
        while let Some(data) = incoming.data().await {
            let data = data?;
            incoming.flow_control().release_capacity(data.len())?;
            whole.extend_from_slice(&data);
        }
        Ok(Response::from_parts(parts, whole))
    };
    tokio::time::timeout(PATIENCE, exchange).await.expect("in time")
}

async fn text(client: &SendRequest<Bytes>, request: http::request::Builder, body: &str) -> (u16, String) {
    let response = send(client, request.body(()).expect("request"), body.as_bytes()).await.expect("response");
    (response.status().as_u16(), String::from_utf8(response.into_body()).expect("text"))
}

#[tokio::test]
async fn requests_and_bodies() {
    let server = start(ServerLimits::default()).await;
    let client = connect(&server).await;
    let post = |path: &str| get(path).method(Method::POST);
    let seen = text(&client, post("/seen?a").header("cookie", "a=1").header("cookie", "b=2"), "body").await;
    assert_eq!(seen.0, 200);
    assert!(seen.1.starts_with("POST http://x.example/seen?a HTTP/2.0 [") && seen.1.ends_with("] body"), "{seen:?}");
    assert!(seen.1.contains("host=\"x.example\"") && seen.1.contains("cookie=\"a=1; b=2\""), "{seen:?}");
    assert_eq!(text(&client, get("/stream"), "").await.1, "onetwo");
    assert_eq!(text(&client, post("/unread"), "not wanted").await.1, "not read");
    assert_eq!(text(&client, get("/size"), "").await.1, "Some(0) true");
    assert_eq!(text(&client, post("/size").header("content-length", "3"), "abc").await.1, "Some(3) false");
    let large = "0123456789".repeat(100_000);
    assert!(text(&client, post("/echo"), &large).await.1 == large);
}

#[tokio::test]
async fn heads_of_responses() {
    let server = start(ServerLimits::default()).await;
    let client = connect(&server).await;
    let response = send(&client, get("/framing").body(()).expect("request"), b"").await.expect("response");
    for name in ["connection", "transfer-encoding", "keep-alive", "upgrade"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    assert!(response.headers().contains_key("date"));
    assert_eq!(response.headers()["content-length"], "6");
    let head = send(&client, get("/short").method(Method::HEAD).body(()).expect("request"), b"").await.expect("head");
    assert_eq!((&head.headers()["content-length"], head.body().len()), (&"100".parse().expect("value"), 0));
    let none = send(&client, get("/no-content").body(()).expect("request"), b"").await.expect("response");
    assert!(none.status() == 204 && !none.headers().contains_key("content-length"));
}

#[tokio::test]
async fn a_body_that_breaks_resets_its_stream_and_no_other() {
    let server = start(ServerLimits::default()).await;
    let client = connect(&server).await;
    for path in ["/broken", "/short", "/long"] {
        let error = send(&client, get(path).body(()).expect("request"), b"").await.expect_err(path);
        assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR), "{path}");
    }
    assert_eq!(text(&client, get("/"), "").await.1, "ok");
}

#[tokio::test]
async fn refused() {
    let limits = ServerLimits { head_fields: 10, target_bytes: 100, ..ServerLimits::default() };
    let server = start(limits).await;
    let client = connect(&server).await;
    assert_eq!(text(&client, get("/").header("host", "other"), "").await.0, 400);
    assert_eq!(text(&client, get("/").header("host", "X.example:80"), "").await.0, 200);
    assert_eq!(text(&client, get("/").header("expect", "more"), "").await.0, 417);
    assert_eq!(text(&client, get(&format!("/{}", "p".repeat(100))), "").await.0, 414);
    assert_eq!(text(&client, Request::builder().uri("http://u@x.example/"), "").await.0, 400);
    let many = (0..11).fold(get("/"), |request, n| request.header(format!("x-{n}"), "y"));
    assert_eq!(text(&client, many, "").await.0, 431);
    // Fields about the connection are malformed: h2 resets the stream.
    for (name, value) in [("transfer-encoding", "chunked"), ("connection", "close"), ("te", "gzip")] {
        let answer = send(&client, get("/").header(name, value).body(()).expect("request"), b"").await;
        assert!(answer.is_err(), "{name}");
    }
    let wrong_length = get("/tell").method(Method::POST).header("content-length", "5").body(()).expect("request");
    assert!(send(&client, wrong_length, b"abc").await.is_err());
    assert_eq!(text(&client, get("/"), "").await.0, 200);
}

#[tokio::test]
async fn hints_and_continue() {
    let server = start(ServerLimits::default()).await;
    let mut client = connect(&server).await;
    let (mut response, _) = client.send_request(get("/hints").body(()).expect("request"), true).expect("sent");
    let mut hints = Vec::new();
    while let Some(hint) = std::future::poll_fn(|cx| response.poll_informational(cx)).await {
        hints.push(hint.expect("hint").status().as_u16());
    }
    assert_eq!(hints, [102, 103]);
    assert_eq!(response.await.expect("response").status(), 200);
    let request = get("/seen").method(Method::POST).header("expect", "100-continue").body(()).expect("request");
    let (mut response, mut body) = client.send_request(request, false).expect("sent");
    let hint = std::future::poll_fn(|cx| response.poll_informational(cx)).await.expect("continue").expect("hint");
    assert_eq!(hint.status(), 100);
    body.send_data(Bytes::from("ok"), true).expect("sent");
    assert_eq!(response.await.expect("response").status(), 200);
}

#[tokio::test]
async fn streams_run_at_once_and_the_connection_drains() {
    let server = start(ServerLimits::default()).await;
    let mut client = connect(&server).await;
    let request = get("/seen").method(Method::POST).body(()).expect("request");
    let (slow, mut body) = client.send_request(request, false).expect("sent");
    assert_eq!(text(&client, get("/"), "").await.1, "ok");
    server.shutdown.cancel();
    body.send_data(Bytes::from("ok"), true).expect("sent");
    assert_eq!(slow.await.expect("response").status(), 200);
    drop((client, body));
    tokio::time::timeout(PATIENCE, server.task).await.expect("in time").expect("drained");
}

#[tokio::test]
async fn who_resets_too_often_is_disconnected() {
    let server = start(ServerLimits { h2_resets: 10, ..ServerLimits::default() }).await;
    let client = connect(&server).await;
    let resets = async {
        for _ in 0..1_000 {
            let mut client = client.clone().ready().await?;
            let (response, mut body) = client.send_request(get("/forever").body(()).expect("request"), false)?;
            body.send_reset(h2::Reason::CANCEL);
            let _ = response.await;
            tokio::task::yield_now().await;
        }
        Ok::<_, h2::Error>(())
    };
    let error = tokio::time::timeout(PATIENCE, resets).await.expect("in time").expect_err("disconnected");
    assert!(error.is_go_away() || error.is_io() || error.is_reset(), "{error}");
}
