//! What a new connection goes through before HTTP: who it is from (PROXY protocol), and TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::listen::Listener;
use crate::proxy_protocol;
use crate::serve::{HttpService, ServerLimits};
use crate::server::{self, ReadyAnswers, Transport};
use crate::stall::StallGuard;
use crate::tls::{self, HandshakeError, Tls, TlsStream};

/// What connections of a listener are like. The default: plain HTTP, directly from clients.
#[derive(Debug, Clone, Default)]
pub struct Door {
    /// TLS on every connection; nothing: plain HTTP.
    pub tls: Option<Arc<Tls>>,
    /// Proxies whose connections begin with a header of the PROXY protocol; others' are taken as they are.
    pub proxies: Arc<[IpNet]>,
}

/// The listeners of a role, each with its door.
#[derive(Debug)]
pub struct Doors(pub Vec<(Listener, Door)>);

impl<L: Into<Listener>> From<L> for Doors {
    /// One listener for plain HTTP.
    fn from(listener: L) -> Self {
        Self(vec![(listener.into(), Door::default())])
    }
}

impl Doors {
    /// The port of the first listener that speaks TLS.
    pub fn https_port(&self) -> Option<u16> {
        let (listener, _) = self.0.iter().find(|(_, door)| door.tls.is_some())?;
        listener.local_addr().ok().map(|address| address.port())
    }
}

/// The first byte of a handshake of TLS (RFC 8446 section 5.1).
pub(crate) const TLS_HANDSHAKE: u8 = 22;
/// For the answer to whoever speaks HTTP where TLS is spoken, in milliseconds.
const PLAIN_ANSWER_MS: u64 = 1_000;

/// Bytes of a request in plain text that are dropped at once.
const DROPPED_BYTES: usize = 4 << 10;

/// The answer to whoever speaks HTTP where TLS is spoken.
const PLAIN_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 61\r\nconnection: close\r\n\r\n\
    this port speaks TLS: use https:// in front of this address.\n";

impl Door {
    /// Serves one connection to its end.
    pub(crate) async fn serve<S: HttpService>(
        self,
        mut stream: TcpStream,
        peer: SocketAddr,
        service: S,
        ready: Option<Arc<dyn ReadyAnswers>>,
        limits: ServerLimits,
        shutdown: CancellationToken,
    ) {
        // In boxes, because the future of an idle connection is as large as the largest part that it may ever come to.
        let peer = match self.proxies.is_empty() {
            true => peer,
            false => match Box::pin(self.peer(&mut stream, peer)).await {
                Some(client) => client,
                None => return,
            },
        };
        let stall = Duration::from_millis(limits.stall_ms);
        let Some(tls) = self.tls else {
            let io = StallGuard::new(stream, stall);
            return Box::pin(server::run(io, peer, service, ready, limits, shutdown)).await;
        };
        match Box::pin(shake_hands(&tls, StallGuard::new(stream, stall), peer)).await {
            Some(stream) if tls::is_http2(&stream) => {
                Box::pin(server::run_http2(*stream, peer, service, ready, limits, shutdown)).await;
            }
            Some(stream) => Box::pin(server::run(*stream, peer, service, ready, limits, shutdown)).await,
            None => {}
        }
    }

    /// Who the connection is from; nothing: it is not to be served.
    async fn peer(&self, stream: &mut TcpStream, peer: SocketAddr) -> Option<SocketAddr> {
        let address = peer.ip().to_canonical();
        if !self.proxies.iter().any(|network| network.contains(&address)) {
            return Some(peer);
        }
        match proxy_protocol::read(stream).await {
            Ok(client) => Some(client.unwrap_or(peer)),
            Err(error) => {
                tracing::warn!(proxy = %peer, %error, "connection closed");
                None
            }
        }
    }
}

/// What passes in clear text from here on; nothing: it did not come to that. Whoever speaks HTTP instead is told so.
async fn shake_hands<T: Transport>(tls: &Tls, io: T, peer: SocketAddr) -> Option<Box<TlsStream<T>>> {
    match tls.accept(io).await {
        Ok(stream) => Some(Box::new(stream)),
        Err(error) => {
            tracing::debug!(%peer, %error, "connection closed");
            if let HandshakeError::Plain(io) = error {
                refuse_plain(io).await;
            }
            None
        }
    }
}

/// Tells a client that TLS is spoken here.
async fn refuse_plain<T: Transport>(mut io: T) {
    let answer = async {
        // What fails here fails for somebody who has to come again anyway.
        let _ = io.write_all(PLAIN_ANSWER).await;
        let _ = io.shutdown().await;
        // Closing with bytes unread would destroy the answer on its way.
        let mut rest = vec![0; DROPPED_BYTES];
        while let Ok(1..) = io.read(&mut rest).await {}
    };
    let _ = tokio::time::timeout(Duration::from_millis(PLAIN_ANSWER_MS), answer).await;
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};

    use super::*;
    use crate::server::Incoming;

    /// Most of what an idle connection costs beside the kernel's part: what it is while it waits for its first byte or for its
    /// next request, and what it goes through before.
    #[tokio::test]
    async fn a_connection_is_small() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let stream = TcpStream::connect(address).await.expect("connect");
        let service = crate::service(async |_: Request<Incoming>| Response::new(crate::Body::empty()));
        let (limits, shutdown) = (ServerLimits::default(), CancellationToken::new());
        let io = StallGuard::new(TcpStream::connect(address).await.expect("connect"), Duration::ZERO);
        let http = server::run(io, address, service.clone(), None, limits.clone(), shutdown.clone());
        let door = Door::default().serve(stream, address, service, None, limits, shutdown);
        let sizes = (std::mem::size_of_val(&door), std::mem::size_of_val(&http));
        assert!(sizes.0 <= 640 && sizes.1 <= 1_024, "{sizes:?}");
    }

    #[test]
    fn the_answer_in_plain_text_is_as_long_as_it_says() {
        let text = str::from_utf8(PLAIN_ANSWER).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }
}
