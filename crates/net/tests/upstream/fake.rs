//! An origin made of a script: what it does with each connection, in order of arrival.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;
use net::{Body, Retry, Upstream, UpstreamConfig, UpstreamProtocol, UpstreamResponse, UpstreamServer, read_to_end};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The longest that a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A listening origin. It ends with the test's runtime.
pub(crate) struct Fake {
    pub(crate) url: String,
    accepted: Arc<AtomicUsize>,
}

impl Fake {
    /// Runs `script` for each connection, with its number from 0.
    pub(crate) async fn start<F, R>(script: F) -> Self
    where
        F: Fn(usize, TcpStream) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Self::on(TcpListener::bind("127.0.0.1:0").await.expect("bind"), script)
    }

    /// The same on a listener that is there already.
    pub(crate) fn on<F, R>(listener: TcpListener, script: F) -> Self
    where
        F: Fn(usize, TcpStream) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(script(count.fetch_add(1, Ordering::SeqCst), stream));
            }
        });
        Self { url, accepted }
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    format!("http://{}", listener.local_addr().expect("address"))
}

/// Reads up to the blank line behind a head; none at the end of the connection.
pub(crate) async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).expect("text"))
}

/// Answers each request on a connection with `answer`.
pub(crate) async fn answer_all<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answer: &str) {
    while read_head(&mut stream).await.is_some() {
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A response with a short body.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Settings for these servers, patient enough for a busy machine.
pub(crate) fn config(urls: &[&str]) -> UpstreamConfig {
    UpstreamConfig {
        servers: urls.iter().map(|url| UpstreamServer { url: url.parse().expect("url"), weight: 1 }).collect(),
        sni: None,
        verify: true,
        ca_pem: None,
        protocol: UpstreamProtocol::Auto,
        connect_ms: 10_000,
        first_byte_ms: 10_000,
        idle_ms: 10_000,
        max_connections: 10,
        retry: Retry::Safe,
        health: None,
    }
}

pub(crate) fn upstream(urls: &[&str]) -> Upstream {
    Upstream::new(config(urls)).expect("settings")
}

pub(crate) fn get(target: &str) -> Request<Body> {
    Request::get(target).header("host", "shop.example").body(Body::empty()).expect("request")
}

/// Sends a request and reads the whole answer.
pub(crate) async fn fetch(upstream: &Upstream, request: Request<Body>) -> (u16, String) {
    text(upstream.send(request, None).await.expect("response")).await
}

pub(crate) async fn text(response: UpstreamResponse) -> (u16, String) {
    let status = response.response.status().as_u16();
    let body = read_to_end(response.response.into_body(), 1 << 20).await.expect("body");
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

/// The word of the error that a request ends with, be it before or within the response.
pub(crate) async fn word(upstream: &Upstream, request: Request<Body>) -> &'static str {
    match upstream.send(request, None).await {
        Err(error) => error.word(),
        Ok(response) => match read_to_end(response.response.into_body(), 1 << 20).await {
            Ok(_) => "none",
            Err(net::ReadError::Broken(error)) => {
                error.downcast_ref::<net::UpstreamError>().expect("an upstream's error").word()
            }
            Err(error) => panic!("{error}"),
        },
    }
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Waits until so many connections of the first server are idle.
pub(crate) async fn idle(upstream: &Upstream, connections: usize) {
    until("idle connections", || upstream.state()[0].idle == connections).await;
}
