//! What an upstream is told: its servers, how to speak to them, and how long to wait.
//!
//! `net` knows no wire contract; a role translates its own settings into these.

use http::Uri;

/// The servers of one origin, and how they are spoken to.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    /// All of them serve the same. At least one.
    pub servers: Vec<UpstreamServer>,
    /// Name for the TLS handshake and the certificate; absent: the host of the server.
    pub sni: Option<String>,
    /// Whether certificates are checked.
    pub verify: bool,
    /// Certificates (PEM) that are trusted in addition to the public ones.
    pub ca_pem: Option<String>,
    /// Which HTTP is spoken.
    pub protocol: UpstreamProtocol,
    /// For name, TCP and TLS of a new connection together, in milliseconds.
    pub connect_ms: u64,
    /// From the end of the request to the head of the response, and for a free connection, in milliseconds.
    pub first_byte_ms: u64,
    /// Between two pieces of a body, in either direction, in milliseconds.
    pub idle_ms: u64,
    /// Connections to each server. Further requests wait, at most [`QUEUE_MAX`](super::QUEUE_MAX) of them.
    pub max_connections: u32,
    /// Which requests are sent a second time.
    pub retry: Retry,
    /// Asking the servers regularly whether they are well; absent: only failures of requests count.
    pub health: Option<HealthCheck>,
}

/// One server.
#[derive(Debug, Clone)]
pub struct UpstreamServer {
    /// `http://HOST[:PORT]` or `https://HOST[:PORT]`; a path is ignored.
    pub url: Uri,
    /// Its share of the requests, relative to the others. At least 1.
    pub weight: u32,
}

/// Which HTTP is spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/2 where TLS agrees on it, else HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, without TLS by prior knowledge (RFC 9113 § 3.3). Upgrades are then not asked for.
    Http2,
}

/// Which requests are sent a second time, as long as nothing of their body was taken from the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Retry {
    /// Those of which nothing has reached a server.
    Unsent,
    /// Those too that are safe (GET, HEAD, OPTIONS), have no body, and met a reused connection that was closed before a
    /// byte of the response (RFC 9110 § 9.2.2, RFC 9112 § 9.3.1).
    #[default]
    Safe,
}

/// How the servers are asked whether they are well: a `GET` on a new connection.
#[derive(Debug, Clone)]
pub struct HealthCheck {
    /// Path and query to ask for.
    pub path: String,
    /// `Host` to send; absent: that of the server.
    pub host: Option<String>,
    /// Between two questions, in milliseconds.
    pub interval_ms: u64,
    /// For the head of the answer, in milliseconds.
    pub timeout_ms: u64,
    /// Statuses of a server that is well, as ranges from first to last.
    pub statuses: Vec<(u16, u16)>,
    /// Good answers in a row until a server is used again.
    pub healthy_after: u32,
    /// Bad answers in a row until it is no longer used.
    pub unhealthy_after: u32,
}

/// Why an upstream cannot be made of its settings.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UpstreamConfigError {
    /// There is no server.
    #[error("there is no server; name at least one, as http://HOST[:PORT]")]
    NoServer,
    /// A server's address cannot be used.
    #[error("{url} names no server; write http://HOST[:PORT] or https://HOST[:PORT]")]
    Server {
        /// As it was given.
        url: String,
    },
    /// A number is zero that has to be more.
    #[error("{name} is 0; it has to be at least 1")]
    Zero {
        /// Which one.
        name: &'static str,
    },
    /// The name for the TLS handshake is none.
    #[error("{name:?} is neither a host name nor an IP address, so no certificate can be checked against it")]
    ServerName {
        /// As it was given.
        name: String,
    },
    /// The trusted certificates cannot be read.
    #[error("the trusted certificates cannot be used: {why}; give one or more CERTIFICATE sections in PEM")]
    Ca {
        /// What is wrong with them.
        why: String,
    },
    /// The TLS library refuses the settings.
    #[error("TLS cannot be set up: {why}")]
    Tls {
        /// What it said.
        why: String,
    },
    /// The target of the health check is none.
    #[error("the health check cannot be sent: {why}; its path begins with / and its host is HOST[:PORT]")]
    HealthCheck {
        /// What is wrong with it.
        why: String,
    },
}
