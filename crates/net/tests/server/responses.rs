//! Responses: their framing is ours, and what is wrong with a body is noticed by the client.

use net::ServerLimits;

use super::kit::{Raw, start};

async fn exchange(request: &str) -> (String, bool) {
    let server = start(ServerLimits::default()).await;
    let mut raw = Raw::connect(&server).await;
    raw.write(request).await;
    raw.rest().await
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

/// The head without its Date, which must be there.
fn split(response: &str) -> (String, String) {
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    assert_eq!(head.matches("\r\ndate: ").count(), 1, "{head}");
    let lines: Vec<&str> = head.split("\r\n").filter(|line| !line.starts_with("date: ")).collect();
    (lines.join("|"), body.to_owned())
}

#[tokio::test]
async fn framing() {
    let head = |path: &str| get(path).replace("GET", "HEAD");
    let cases = [
        (get("/"), "HTTP/1.1 200 OK|content-length: 2|connection: close", "ok"),
        (head("/"), "HTTP/1.1 200 OK|connection: close", ""),
        (head("/short"), "HTTP/1.1 200 OK|content-length: 100|connection: close", ""),
        (get("/no-content"), "HTTP/1.1 204 No Content|connection: close", ""),
        (get("/not-modified"), "HTTP/1.1 304 Not Modified|content-length: 5|connection: close", ""),
        (get("/framing"), "HTTP/1.1 200 OK|content-length: 6|connection: close", "framed"),
        (get("/hop"), "HTTP/1.1 200 OK|x-end: 1|content-length: 3|connection: close", "hop"),
        (
            get("/stream"),
            "HTTP/1.1 200 OK|transfer-encoding: chunked|connection: close",
            "3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n",
        ),
        (
            "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".into(),
            "HTTP/1.1 200 OK|connection: close",
            "onetwo",
        ),
        ("GET /close HTTP/1.1\r\nHost: x\r\n\r\n".into(), "HTTP/1.1 200 OK|content-length: 3|connection: close", "bye"),
    ];
    for (request, head, body) in cases {
        let (response, clean) = exchange(&request).await;
        assert_eq!(split(&response), (head.to_owned(), body.to_owned()), "{request}");
        assert!(clean, "{request}");
    }
}

#[tokio::test]
async fn keep_alive_of_old_clients_is_said() {
    let server = start(ServerLimits::default()).await;
    let mut raw = Raw::connect(&server).await;
    raw.write("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    assert!(raw.answer().await.expect("an answer").head.contains("connection: keep-alive\r\n"));
    assert!(raw.is_open().await);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = start(ServerLimits::default()).await;
    let mut raw = Raw::connect(&server).await;
    let mut requests = String::new();
    for n in 0..50 {
        requests += &format!("POST /seen?{n} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{n:02}");
    }
    raw.write(requests).await;
    for n in 0..50 {
        let answer = raw.answer().await.expect("an answer");
        assert!(answer.body.starts_with(&format!("POST /seen?{n} ")) && answer.body.ends_with(&format!("{n:02}")));
    }
}

#[tokio::test]
async fn a_body_that_breaks_is_never_a_clean_end() {
    // Chunked: what came, and no last chunk.
    let (response, _) = exchange(&get("/broken")).await;
    let (_, body) = split(&response);
    assert_eq!(body, "4\r\nsome\r\n5\r\nthing\r\n");
    // Ended by the connection: only a reset can say it.
    let (_, clean) = exchange("GET /broken HTTP/1.0\r\n\r\n").await;
    assert!(!clean);
    // Shorter and longer than announced.
    let (response, _) = exchange(&get("/short")).await;
    assert!(response.contains("content-length: 100\r\n") && response.ends_with("\r\n\r\nshort"));
    let (response, _) = exchange(&get("/long")).await;
    assert!(response.contains("content-length: 2\r\n") && response.ends_with("\r\n\r\n"), "{response}");
}
