//! The HTTP client between nodes, towards origins and in the command line: HTTP/1.1, pooled, every wait bounded.

use std::time::Duration;

use http::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::body::Body;
use crate::fields;

/// How long to wait, and how much to keep.
#[derive(Debug, Clone)]
pub struct ClientLimits {
    /// For the TCP connection, in milliseconds.
    pub connect_ms: u64,
    /// From sending the request to the head of the response, in milliseconds. It covers the sending of the request's body, too,
    /// so uploads raise it.
    pub head_ms: u64,
    /// Between two pieces of the response's body, in milliseconds.
    pub idle_ms: u64,
    /// Idle connections kept for one host.
    pub idle_connections: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self { connect_ms: 2_000, head_ms: 15_000, idle_ms: 15_000, idle_connections: 64 }
    }
}

/// How long an idle connection is kept, in seconds. Shorter than servers keep theirs, so that they rarely close under us.
const POOL_IDLE_S: u64 = 20;

/// A request that got no response.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The peer could not be reached: nothing of the request left this machine.
    #[error("cannot connect to {peer}: {why}")]
    Connect {
        /// Host and port.
        peer: String,
        /// What the operating system said.
        why: String,
    },
    /// The peer took too long.
    #[error("{peer} did not answer within {ms} ms")]
    Timeout {
        /// Host and port.
        peer: String,
        /// How long was waited.
        ms: u64,
    },
    /// The connection broke, or the answer was not HTTP. The peer may have acted on the request.
    #[error("the exchange with {peer} failed: {why}")]
    Exchange {
        /// Host and port.
        peer: String,
        /// What went wrong.
        why: String,
    },
}

impl NetError {
    /// Whether the peer may have seen the request.
    pub fn reached_peer(&self) -> bool {
        !matches!(self, Self::Connect { .. })
    }
}

/// A pool of connections. Cloning shares it.
#[derive(Clone)]
pub struct HttpClient {
    inner: Client<HttpConnector, Body>,
    limits: ClientLimits,
}

impl HttpClient {
    /// A pool with these limits.
    pub fn new(limits: ClientLimits) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_millis(limits.connect_ms)));
        let inner = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(POOL_IDLE_S))
            .pool_max_idle_per_host(limits.idle_connections)
            // A request that met a dying pooled connection is repeated only where nothing of it was sent.
            .retry_canceled_requests(true)
            .build(connector);
        Self { inner, limits }
    }

    /// Sends `request` (its URI absolute, `http://`) and returns once the head of the response is there.
    ///
    /// # Errors
    /// See [`NetError`]; the request's body may have been read in part.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, NetError> {
        let peer = request.uri().authority().map_or_else(|| "(no host)".to_owned(), ToString::to_string);
        let wait = Duration::from_millis(self.limits.head_ms);
        match tokio::time::timeout(wait, self.inner.request(request)).await {
            Ok(Ok(mut response)) => {
                fields::detach(response.headers_mut());
                let idle = Duration::from_millis(self.limits.idle_ms);
                Ok(response.map(|body| Body::wrap(body).with_idle_timeout(idle)))
            }
            Ok(Err(error)) if error.is_connect() => Err(NetError::Connect { peer, why: innermost(&error) }),
            Ok(Err(error)) => Err(NetError::Exchange { peer, why: innermost(&error) }),
            Err(_) => Err(NetError::Timeout { peer, ms: self.limits.head_ms }),
        }
    }
}

/// The deepest cause: «Connection refused» instead of «client error (Connect)».
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refused_connection_says_so_and_reached_nobody() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        drop(listener);
        let request = Request::get(format!("http://{address}/")).body(Body::empty()).expect("request");
        let error = HttpClient::new(ClientLimits::default()).send(request).await.err().expect("refused");
        assert!(!error.reached_peer());
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[tokio::test]
    async fn a_silent_server_times_out() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let request = Request::get(format!("http://{address}/")).body(Body::empty()).expect("request");
        let client = HttpClient::new(ClientLimits { head_ms: 30, ..ClientLimits::default() });
        let error = client.send(request).await.err().expect("silent");
        assert!(matches!(error, NetError::Timeout { ms: 30, .. }), "{error}");
    }
}
