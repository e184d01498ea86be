//! Certificates made for the moment, a server behind a door, and clients.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Request, Response};
use net::{Body, CertificateSources, Door, Doors, Incoming, Peer, ServerLimits, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CipherSuite, ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};

/// No wait of a test is longer; it only ends a test that has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An authority, and a folder with what it signed.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub(crate) folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "an authority of tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("authority");
        Self { issuer, folder: tempfile::tempdir().expect("folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `file.crt` and `file.key` for these names, valid from and to so many days from now.
    pub(crate) fn sign(&self, file: &str, names: &[&str], days: (i64, i64)) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        let now = SystemTime::now();
        let day = |days: i64| {
            let distance = Duration::from_secs(days.unsigned_abs() * 86_400);
            if days < 0 { now - distance } else { now + distance }
        };
        (params.not_before, params.not_after) = (day(days.0).into(), day(days.1).into());
        let key = KeyPair::generate().expect("key");
        let made = params.signed_by(&key, &self.issuer).expect("certificate");
        std::fs::write(self.path(&format!("{file}.crt")), made.pem()).expect("written");
        std::fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).expect("written");
    }

    pub(crate) fn good(&self, file: &str, names: &[&str]) {
        self.sign(file, names, (-1, 30));
    }

    pub(crate) fn folder(&self) -> CertificateSources {
        CertificateSources { folder: Some(self.folder.path().to_owned()), default: None }
    }

    pub(crate) fn pair(&self, cert: &str, key: &str) -> CertificateSources {
        CertificateSources { default: Some((self.path(cert), self.path(key))), folder: None }
    }

    pub(crate) fn tls(&self) -> Arc<Tls> {
        Tls::open(self.folder()).expect("certificates")
    }

    /// A file that curl trusts.
    pub(crate) fn ca_file(&self) -> PathBuf {
        let path = self.path("ca.pem");
        std::fs::write(&path, self.issuer.pem()).expect("written");
        path
    }

    /// A client that trusts this authority and offers these protocols.
    pub(crate) fn client(&self, versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> Arc<ClientConfig> {
        self.client_of(versions, alpn, None)
    }

    /// The same with these ciphers, in this order.
    pub(crate) fn client_of(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
        ciphers: Option<&[CipherSuite]>,
    ) -> Arc<ClientConfig> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        if let Some(ciphers) = ciphers {
            let known = std::mem::take(&mut provider.cipher_suites);
            let suite = |wanted| *known.iter().find(|suite| suite.suite() == wanted).expect("a known cipher");
            provider.cipher_suites = ciphers.iter().map(|cipher| suite(*cipher)).collect();
        }
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.issuer.der().to_vec())).expect("root");
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// A running server; it stops when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    _stop: DropGuard,
}

/// Starts a server behind this door. Its answer says the client's address and how it came.
pub(crate) async fn start(door: Door, limits: ServerLimits) -> Server {
    let listener = net::bind("127.0.0.1:0".parse().expect("address")).await.expect("bind");
    let (address, shutdown) = (listener.local_addr().expect("address"), CancellationToken::new());
    let service = net::service(|request: Request<Incoming>| async move {
        let peer = *request.extensions().get::<Peer>().expect("peer");
        let way = if peer.secure { "TLS" } else { "plain" };
        if request.uri().path() == "/large" {
            return Response::new(Body::full(vec![b'x'; 300_000]));
        }
        Response::new(Body::full(format!("{} {way} {:?}", peer.address.ip(), request.version())))
    });
    tokio::spawn(net::serve_doors(Doors(vec![(listener.into(), door)]), service, None, limits, shutdown.clone()));
    Server { address, _stop: shutdown.drop_guard() }
}

pub(crate) async fn secure(tls: &Arc<Tls>) -> Server {
    start(Door { tls: Some(Arc::clone(tls)), ..Door::default() }, ServerLimits::default()).await
}

/// Shakes hands for this name, or says why not.
pub(crate) async fn connect(
    server: &Server,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Result<TlsStream<TcpStream>, String> {
    let stream = TcpStream::connect(server.address).await.expect("connect");
    let name = ServerName::try_from(name.to_owned()).expect("name");
    let connecting = TlsConnector::from(Arc::clone(client)).connect(name, stream);
    let connected = tokio::time::timeout(PATIENCE, connecting).await.expect("in time");
    connected.map_err(|error| error.to_string())
}

/// One request over HTTP/1.1; the whole response. The connection stays.
pub(crate) async fn ask<T: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut T) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    let body = |answer: &[u8]| {
        let text = String::from_utf8_lossy(answer).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let (_, length) = head.split_once("content-length: ")?;
        let length: usize = length.split("\r\n").next()?.parse().ok()?;
        (body.len() >= length).then(|| body.to_owned())
    };
    loop {
        if let Some(body) = body(&answer) {
            return body;
        }
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut answer)).await.expect("in time");
        assert!(read.expect("read") > 0, "ended after {:?}", String::from_utf8_lossy(&answer));
    }
}

/// Sends bytes, and reads everything until the connection ends.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    stream.write_all(bytes).await.expect("written");
    let mut answer = Vec::new();
    // A reset is an end, too.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("ended in time");
    answer
}

/// The same, and says with the bytes that no more will come.
pub(crate) async fn exchange_and_end(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    stream.write_all(bytes).await.expect("written");
    stream.shutdown().await.expect("ended");
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("ended in time");
    answer
}

/// Runs curl against a server; what it printed.
pub(crate) async fn curl(server: &Server, ca: &Path, arguments: &[&str]) -> String {
    let port = server.address.port();
    let output = tokio::process::Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*", "--cacert"])
        .arg(ca)
        .arg("--resolve")
        .arg(format!("*:{port}:127.0.0.1"))
        .args(arguments.iter().map(|argument| argument.replace("PORT", &port.to_string())))
        .output()
        .await
        .expect("curl runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}
