//! TLS towards clients: rustls over aws-lc-rs, versions 1.2 and 1.3, `h2` and `http/1.1` by ALPN, resumption, no early data.
//!
//! `files.rs` reads and checks one certificate, `store.rs` keeps all of them by name and in step with their files; here
//! stands the handshake, with its limits. A connection that has shaken hands (`stream.rs`) is a
//! [`Transport`](crate::server::Transport) like a plain one.

mod files;
mod store;
mod stream;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs;
use rustls::server::ServerSessionMemoryCache;
use rustls::{CipherSuite, HandshakeKind, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use files::{CertificateError, certificate_in};
pub use store::CertificateSources;
use store::Store;
use stream::Hello;
pub(crate) use stream::TlsStream;

use crate::server::Transport;

/// How often the files of certificates are looked at, in milliseconds.
const WATCH_MS: u64 = 5_000;
/// For a handshake, from the connection to its end, in milliseconds.
const HANDSHAKE_MS: u64 = 10_000;
/// Sessions of clients of TLS 1.2 that cannot keep a ticket.
const SESSIONS: usize = 4_096;
/// Tickets for each connection of TLS 1.3: a session that is taken up brings the next one.
const TICKETS: usize = 1;

/// Ciphers that we prefer: SHA-384, which comes with the longer key, costs a tenth of a handshake where SHA-256 costs nearly
/// nothing, and nobody breaks either.
const PREFERRED: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];
/// Ciphers that a client prefers if AES is slow on it; it gets them then.
const WITHOUT_AES: [CipherSuite; 3] = [
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// The alert `unrecognized_name` (RFC 6066 section 3) as a record of its own, before any key is agreed on.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// The side of a server in TLS: its certificates, and what all its connections share. One for a process.
#[derive(Debug)]
pub struct Tls {
    /// We choose the cipher,
    config: Arc<ServerConfig>,
    /// or the client does.
    by_client: Arc<ServerConfig>,
    store: Arc<Store>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    full: AtomicU64,
    resumed: AtomicU64,
    failed: AtomicU64,
    unknown_names: AtomicU64,
}

/// What happened so far, and what is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsState {
    /// Handshakes with everything in them.
    pub full_handshakes: u64,
    /// Handshakes that took up an earlier session.
    pub resumed_handshakes: u64,
    /// Handshakes that failed, those for unknown names included.
    pub failed_handshakes: u64,
    /// Handshakes for names that no certificate is for.
    pub unknown_names: u64,
    /// Certificates that were exchanged while running.
    pub reloads: u64,
    /// Certificates that could not be.
    pub reload_failures: u64,
    /// The file of each certificate, and when it ends, in seconds since the Unix epoch.
    pub certificates: Vec<(PathBuf, u64)>,
}

impl Tls {
    /// Reads the certificates.
    ///
    /// # Errors
    /// See [`CertificateError`]: every one of them has to be good.
    pub fn open(sources: CertificateSources) -> Result<Arc<Self>, CertificateError> {
        let setup = |why: rustls::Error| CertificateError::Setup { why: why.to_string() };
        let mut provider = aws_lc_rs::default_provider();
        // Stable: otherwise the order stays.
        provider.cipher_suites.sort_by_key(|suite| !PREFERRED.contains(&suite.suite()));
        let provider = Arc::new(provider);
        let store = Arc::new(Store::open(sources, Arc::clone(&provider), SystemTime::now())?);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(setup)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&store) as _);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Its keys are exchanged every few hours; all threads have the same.
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(setup)?;
        config.send_tls13_tickets = TICKETS;
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        let by_client = Arc::new(config.clone());
        config.ignore_client_order = true;
        Ok(Arc::new(Self { config: Arc::new(config), by_client, store, counts: Counts::default() }))
    }

    /// Reads all certificates again. What cannot be read stays as it was, and the log says why. How many certificates are
    /// served, and how many of them are not what their files say.
    pub fn reload(&self) -> (usize, usize) {
        self.store.reload(true, SystemTime::now())
    }

    /// Looks at the files every few seconds until `shutdown`, and exchanges what has changed.
    pub async fn watch(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(WATCH_MS)) => {}
                () = shutdown.cancelled() => return,
            }
            let tls = Arc::clone(&self);
            // It only fails if it panics, and then the next look is as good.
            let _ = tokio::task::spawn_blocking(move || tls.look(SystemTime::now())).await;
        }
    }

    /// One look, as of `now`.
    fn look(&self, now: SystemTime) {
        self.store.reload(false, now);
    }

    /// The numbers of this moment.
    pub fn state(&self) -> TlsState {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        TlsState {
            full_handshakes: read(&self.counts.full),
            resumed_handshakes: read(&self.counts.resumed),
            failed_handshakes: read(&self.counts.failed),
            unknown_names: read(&self.counts.unknown_names),
            reloads: read(&self.store.reloads),
            reload_failures: read(&self.store.reload_failures),
            certificates: self.store.ends(),
        }
    }

    /// Shakes hands, within [`HANDSHAKE_MS`].
    pub(crate) async fn accept<T: Transport>(&self, io: T) -> Result<TlsStream<T>, HandshakeError<T>> {
        let deadline = Instant::now() + Duration::from_millis(HANDSHAKE_MS);
        let mut hello = Hello::new(io);
        // Whoever says nothing, or something else, wanted no handshake that could fail.
        let begun = tokio::time::timeout_at(deadline, hello.more()).await;
        match hello.first {
            None => return Err(HandshakeError::Silent),
            Some(byte) if byte.is_ascii_uppercase() => return Err(HandshakeError::Plain(hello.io)),
            Some(_) => {}
        }
        let handshake = match begun {
            Ok(Err(why)) => Err(HandshakeError::Hello(why)),
            _ => {
                let handshake = tokio::time::timeout_at(deadline, self.handshake(hello)).await;
                handshake.unwrap_or(Err(HandshakeError::TooSlow))
            }
        };
        match &handshake {
            Ok(stream) if stream.session().handshake_kind() == Some(HandshakeKind::Resumed) => &self.counts.resumed,
            Ok(_) => &self.counts.full,
            Err(_) => &self.counts.failed,
        }
        .fetch_add(1, Ordering::Relaxed);
        handshake
    }

    async fn handshake<T: Transport>(&self, mut hello: Hello<T>) -> Result<TlsStream<T>, HandshakeError<T>> {
        let accepted = loop {
            match hello.accepted().await.map_err(HandshakeError::Hello)? {
                Some(accepted) => break accepted,
                None => hello.more().await.map_err(HandshakeError::Hello)?,
            }
        };
        let wanted = accepted.client_hello();
        let config = match wanted.cipher_suites().iter().find(|suite| self.speaks(**suite)) {
            Some(first) if WITHOUT_AES.contains(first) => &self.by_client,
            _ => &self.config,
        };
        let mut io = hello.io;
        if self.store.find(wanted.server_name()).is_none() {
            self.counts.unknown_names.fetch_add(1, Ordering::Relaxed);
            // Whoever does not read this alert sees the connection end.
            let _ = io.write_all(&UNRECOGNIZED_NAME).await;
            let _ = io.shutdown().await;
            return Err(HandshakeError::Name { name: wanted.server_name().unwrap_or("no name").to_owned() });
        }
        TlsStream::shake_hands(io, accepted, Arc::clone(config)).await.map_err(HandshakeError::Failed)
    }

    fn speaks(&self, cipher: CipherSuite) -> bool {
        self.config.crypto_provider().cipher_suites.iter().any(|suite| suite.suite() == cipher)
    }
}

/// Why a connection did not come to speak TLS. Of interest for debugging only: anybody can cause it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError<T> {
    #[error("nothing was said")]
    Silent,
    #[error("plain HTTP on a port of TLS")]
    Plain(T),
    #[error("the handshake took more than {HANDSHAKE_MS} ms")]
    TooSlow,
    #[error("no handshake of TLS: {0}")]
    Hello(io::Error),
    #[error("no certificate is for {name}")]
    Name { name: String },
    #[error("the handshake failed: {0}")]
    Failed(io::Error),
}

/// Whether HTTP/2 was agreed on.
pub(crate) fn is_http2<T: Transport>(stream: &TlsStream<T>) -> bool {
    stream.session().alpn_protocol() == Some(b"h2")
}
