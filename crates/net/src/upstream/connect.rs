//! A new connection: name → TCP → TLS, all within one time. Every connection resolves the name anew, so that a change of
//! addresses takes effect without a restart.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::config::{UpstreamConfig, UpstreamConfigError, UpstreamProtocol, UpstreamServer};
use super::error::{UpstreamError, innermost};
use super::meter::Io;
use super::tls::{Tls, is_http2, server_name};

/// Where connections go, and how.
pub(super) struct Target {
    /// Host and port: what errors and `Host` call it.
    pub(super) name: String,
    /// Whether it is spoken to over TLS.
    pub(super) is_tls: bool,
    host: String,
    port: u16,
    tls: Option<(Arc<Tls>, ServerName<'static>)>,
    protocol: UpstreamProtocol,
    connect_ms: u64,
}

impl Target {
    pub(super) fn new(
        server: &UpstreamServer,
        config: &UpstreamConfig,
        tls: &Arc<Tls>,
    ) -> Result<Self, UpstreamConfigError> {
        let wrong = || UpstreamConfigError::Server { url: server.url.to_string() };
        let authority = server.url.authority().ok_or_else(wrong)?;
        let (is_tls, default_port) = match server.url.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(wrong()),
        };
        // Brackets belong to the writing of an IPv6 address in a URL, not to the address.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(wrong());
        }
        let tls = match is_tls {
            true => Some((Arc::clone(tls), server_name(config.sni.as_deref().unwrap_or(&host))?)),
            false => None,
        };
        let port = authority.port_u16().unwrap_or(default_port);
        let name = format!("{}:{port}", authority.host());
        Ok(Self { name, is_tls, host, port, tls, protocol: config.protocol, connect_ms: config.connect_ms })
    }

    /// Whether connections are likely to carry several requests at once.
    pub(super) fn may_multiplex(&self) -> bool {
        match self.protocol {
            UpstreamProtocol::Auto => self.is_tls,
            UpstreamProtocol::Http1 => false,
            UpstreamProtocol::Http2 => true,
        }
    }

    /// Whether a connection with HTTP/1.1 may be asked for, the only one that has upgrades.
    pub(super) fn can_upgrade(&self) -> bool {
        self.protocol != UpstreamProtocol::Http2
    }

    /// Opens a connection, and says whether HTTP/2 is spoken on it. `http1_only`: that it is not asked for.
    pub(super) async fn connect(&self, http1_only: bool) -> Result<(Box<dyn Io>, bool), UpstreamError> {
        let end = Instant::now() + Duration::from_millis(self.connect_ms);
        let late = |_| UpstreamError::ConnectTimeout { server: self.name.clone(), ms: self.connect_ms };
        let addresses = timeout_at(end, self.resolve()).await.map_err(late)??;
        let tcp = self.dial(&addresses, end).await?;
        // Small requests must not wait for an acknowledgement; a failure only costs latency.
        let _ = tcp.set_nodelay(true);
        let Some((tls, name)) = &self.tls else {
            return Ok((Box::new(tcp), self.protocol == UpstreamProtocol::Http2));
        };
        let failed = |why| UpstreamError::Tls { server: self.name.clone(), why };
        let config = if http1_only { &tls.http1 } else { &tls.any };
        let handshake = TlsConnector::from(Arc::clone(config)).connect(name.clone(), tcp);
        let stream = timeout_at(end, handshake).await.map_err(late)?.map_err(|error| failed(innermost(&error)))?;
        let http2 = is_http2(stream.get_ref().1.alpn_protocol());
        if self.protocol == UpstreamProtocol::Http2 && !http2 {
            return Err(failed("it did not agree to HTTP/2 (ALPN h2)".to_owned()));
        }
        Ok((Box::new(stream), http2))
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, UpstreamError> {
        let failed = |why| UpstreamError::Dns { server: self.name.clone(), why };
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let addresses: Vec<SocketAddr> = found.map_err(|error| failed(error.to_string()))?.collect();
        if addresses.is_empty() { Err(failed("it has no address".to_owned())) } else { Ok(addresses) }
    }

    /// One address after the other. Each may take its share of what is left of the time, so that a silent one does not
    /// use it up for those behind it.
    async fn dial(&self, addresses: &[SocketAddr], end: Instant) -> Result<TcpStream, UpstreamError> {
        let mut last = UpstreamError::ConnectTimeout { server: self.name.clone(), ms: self.connect_ms };
        for (index, address) in addresses.iter().enumerate() {
            let now = Instant::now();
            let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            let share = end.saturating_duration_since(now) / left;
            last = match timeout_at(now + share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    UpstreamError::ConnectRefused { server: self.name.clone() }
                }
                Ok(Err(error)) => UpstreamError::Connect { server: self.name.clone(), why: error.to_string() },
                Err(_) => UpstreamError::ConnectTimeout { server: self.name.clone(), ms: self.connect_ms },
            };
        }
        Err(last)
    }
}
