//! A server with one service for all tests, chosen by path, and a raw client with bounded waits.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Request, Response, StatusCode};
use net::{Body, BodyError, Incoming, Informational, OnUpgrade, Peer, ServerLimits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// No wait of a test is longer; it only ends a test that has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running server; it stops when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<()>,
    _stop: DropGuard,
}

/// Starts a server with these limits.
pub(crate) async fn start(limits: ServerLimits) -> Server {
    let listener = net::bind("127.0.0.1:0".parse().expect("address")).await.expect("bind");
    let (address, shutdown) = (listener.local_addr().expect("address"), CancellationToken::new());
    let task = tokio::spawn(net::serve(listener, net::service(answer), limits, shutdown.clone()));
    Server { address, shutdown: shutdown.clone(), task, _stop: shutdown.drop_guard() }
}

/// The service: the path says what it does.
async fn answer(request: Request<Incoming>) -> Response<Body> {
    assert!(request.extensions().get::<Peer>().is_some());
    let informational = request.extensions().get::<Informational>().expect("informational").clone();
    let path = request.uri().path().to_owned();
    let broken = |pieces: [&'static str; 2]| {
        let pieces = pieces.map(|piece| Ok::<_, BodyError>(Bytes::from_static(piece.as_bytes())));
        Body::stream(futures_util::stream::iter(pieces).chain(futures_util::stream::iter([Err("broken".into())])))
    };
    let with_length = |length: &str, body: Body| {
        let mut response = Response::new(body);
        response.headers_mut().insert("content-length", length.parse().expect("length"));
        response
    };
    match path.as_str() {
        // Says what it was asked, after having read the body.
        "/seen" => {
            let line = format!("{} {} {:?}", request.method(), request.uri(), request.version());
            let fields: Vec<String> = request.headers().iter().map(|(n, v)| format!("{n}={v:?}")).collect();
            let body = net::read_to_end(request.into_body(), 1 << 20).await.expect("body");
            Response::new(Body::full(format!("{line} [{}] {}", fields.join(" "), String::from_utf8_lossy(&body))))
        }
        "/tell" => {
            let read = net::read_to_end(request.into_body(), 1 << 20).await;
            Response::new(Body::full(read.map_or_else(|error| error.to_string(), |_| "whole".to_owned())))
        }
        "/unread" => Response::new(Body::full("not read")),
        "/size" => {
            let body = request.into_body();
            let hint = http_body::Body::size_hint(&body).exact();
            Response::new(Body::full(format!("{hint:?} {}", http_body::Body::is_end_stream(&body))))
        }
        // Gives the body back as it comes.
        "/echo" => Response::new(Body::wrap(request.into_body())),
        "/stream" => Response::new(Body::stream(futures_util::stream::iter(
            ["one", "two"].map(|piece| Ok(Bytes::from_static(piece.as_bytes()))),
        ))),
        "/broken" => Response::new(broken(["some", "thing"])),
        "/short" => with_length("100", Body::full("short")),
        "/long" => with_length("2", Body::full("long")),
        "/endless" => {
            Response::new(Body::stream(futures_util::stream::repeat_with(|| Ok(Bytes::from(vec![b'x'; 1 << 16])))))
        }
        "/forever" => std::future::pending().await,
        "/no-content" => {
            let mut response = with_length("5", Body::full("hello"));
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        "/not-modified" => {
            let mut response = with_length("5", Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        }
        "/framing" => {
            let mut response = Response::new(Body::full("framed"));
            for (name, value) in [
                ("transfer-encoding", "gzip"),
                ("connection", "x-hop"),
                ("keep-alive", "timeout=5"),
                ("upgrade", "x"),
                ("content-length", "+6"),
            ] {
                response.headers_mut().insert(name, value.parse().expect("value"));
            }
            response
        }
        // Answers at once, and reads the body afterwards.
        "/read-later" => {
            tokio::spawn(net::read_to_end(request.into_body(), 16 << 20));
            Response::new(Body::full("reading"))
        }
        "/hop" => {
            let mut response = Response::new(Body::full("hop"));
            for (name, value) in [("connection", "close, X-Hop"), ("x-hop", "1"), ("x-end", "1")] {
                response.headers_mut().insert(name, value.parse().expect("value"));
            }
            response
        }
        "/close" => {
            let mut response = Response::new(Body::full("bye"));
            response.headers_mut().insert("connection", "close".parse().expect("value"));
            response
        }
        "/hints" => {
            let mut headers = HeaderMap::new();
            headers.insert("link", "</a.css>; rel=preload".parse().expect("link"));
            informational.send(StatusCode::PROCESSING, &HeaderMap::new());
            tokio::task::yield_now().await;
            informational.send(StatusCode::EARLY_HINTS, &headers);
            Response::new(Body::full("hinted"))
        }
        // Hints of a task of its own, while the response is not there yet.
        "/hint-first" => {
            let (sent, wait) = tokio::sync::oneshot::channel();
            tokio::spawn(async move {
                informational.send(StatusCode::EARLY_HINTS, &HeaderMap::new());
                let _ = sent.send(());
            });
            wait.await.expect("sent");
            Response::new(Body::full("hinted"))
        }
        "/upgrade" => upgrade(&request),
        _ => Response::new(Body::full("ok")),
    }
}

/// Switches to an echo of upper-case letters.
fn upgrade(request: &Request<Incoming>) -> Response<Body> {
    let Some(on_upgrade) = request.extensions().get::<OnUpgrade>().cloned() else {
        return Response::new(Body::full("no upgrade"));
    };
    tokio::spawn(async move {
        let Ok(mut upgraded) = on_upgrade.upgraded().await else { return };
        let mut buffer = [0; 100];
        while let Ok(read @ 1..) = upgraded.read(&mut buffer).await {
            let loud = buffer[..read].to_ascii_uppercase();
            if upgraded.write_all(&loud).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert("upgrade", "loud".parse().expect("value"));
    response
}

/// A client that writes and reads bytes.
pub(crate) struct Raw(pub(crate) TcpStream);

/// A response as it was read: head (with its first line) and body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Raw {
    pub(crate) async fn connect(server: &Server) -> Self {
        Self(TcpStream::connect(server.address).await.expect("connect"))
    }

    /// Writes; that the server stops reading is no failure of the test.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = tokio::time::timeout(PATIENCE, self.0.write_all(bytes.as_ref())).await.expect("written in time");
    }

    /// Everything until the connection ends, and whether it ended cleanly.
    pub(crate) async fn rest(&mut self) -> (String, bool) {
        let mut bytes = Vec::new();
        let clean =
            tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await.expect("ended in time").is_ok();
        (String::from_utf8_lossy(&bytes).into_owned(), clean)
    }

    /// One head, up to its empty line; `None` where the connection ends instead.
    pub(crate) async fn head(&mut self) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = tokio::time::timeout(PATIENCE, self.0.read_u8()).await.expect("a head in time");
            head.push(byte.ok()?);
        }
        Some(String::from_utf8(head).expect("text"))
    }

    /// One response that is framed by Content-Length or chunks; `None` where the connection ends instead.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        let head = self.head().await?;
        let status: u16 = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        let mut body = Vec::new();
        if head.contains("transfer-encoding: chunked\r\n") {
            while !body.ends_with(b"0\r\n\r\n") {
                body.push(self.0.read_u8().await.ok()?);
            }
        } else if let Some((_, rest)) = head.split_once("content-length: ") {
            let length: usize = rest.split("\r\n").next().expect("a line").parse().expect("a length");
            body.resize(length, 0);
            tokio::time::timeout(PATIENCE, self.0.read_exact(&mut body)).await.expect("a body in time").ok()?;
        }
        Some(Answer { status, head, body: String::from_utf8(body).expect("text") })
    }

    /// Whether another request on this connection is answered.
    pub(crate) async fn is_open(&mut self) -> bool {
        self.write("GET /still-open HTTP/1.1\r\nHost: x\r\n\r\n").await;
        self.answer().await.is_some_and(|answer| answer.status == 200 && answer.body == "ok")
    }
}
