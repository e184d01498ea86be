//! `littoral edge` as a process, a website behind it, and an authority whose certificates it serves.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

/// No wait of a test is longer; it only ends a test that has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a condition.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A running `littoral edge`, killed when dropped.
pub(crate) struct Edge {
    pub(crate) child: Child,
    pub(crate) ready: Value,
    /// What it has logged.
    log: Arc<Mutex<String>>,
}

impl Edge {
    fn spawn(more: &[&str]) -> (Child, Arc<Mutex<String>>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_littoral"));
        command.args(["edge", "--json", "--threads", "2"]).args(more).env("LITTORAL_LOG", "info");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
        let (log, errors) = (Arc::new(Mutex::new(String::new())), child.stderr.take().expect("errors"));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                kept.lock().expect("not poisoned").push_str(&format!("{line}\n"));
            }
        });
        (child, log)
    }

    /// Returns when it serves.
    pub(crate) fn start(more: &[&str]) -> Self {
        let (mut child, log) = Self::spawn(more);
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("output")).read_line(&mut line).expect("the ready line");
        let said = || log.lock().expect("not poisoned").clone();
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}: {}", said()));
        Self { child, ready, log }
    }

    /// One that does not come to serve: how it ends.
    pub(crate) fn refused(more: &[&str]) -> (ExitStatus, String) {
        let (mut child, log) = Self::spawn(more);
        let status = child.wait().expect("ended");
        until("its last words", || Arc::strong_count(&log) == 1);
        (status, log.lock().expect("not poisoned").clone())
    }

    fn address_of(&self, name: &str, scheme: &str) -> SocketAddr {
        let url = self.ready.get(name).and_then(Value::as_str).unwrap_or_default();
        url.trim_start_matches(scheme).parse().unwrap_or_else(|_| panic!("no {name} in {}", self.ready))
    }

    pub(crate) fn plain(&self) -> SocketAddr {
        self.address_of("url", "http://")
    }

    pub(crate) fn tls(&self) -> SocketAddr {
        self.address_of("https", "https://")
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("not poisoned").clone()
    }

    /// Waits until its log has so many lines with a word in them.
    pub(crate) fn says(&self, word: &str, times: usize) {
        until(&format!("{word:?}, {times} times, in {}", self.log()), || self.log().matches(word).count() >= times);
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    }

    /// Waits for its end, which has to be a good one.
    pub(crate) fn ended(mut self) {
        until("the end of the old process", || self.child.try_wait().expect("its end").is_some());
        assert!(self.child.wait().expect("ended").success(), "{}", self.log());
    }
}

impl Drop for Edge {
    #[expect(clippy::print_stderr, reason = "a test that has failed shows what its edge has said")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the edge said:\n{}", self.log());
        }
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A website, each page of which may be kept and says in which version it is.
pub(crate) struct Website {
    pub(crate) url: String,
    version: Arc<AtomicU64>,
}

impl Website {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let version = Arc::new(AtomicU64::new(1));
        let shown = Arc::clone(&version);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shown = Arc::clone(&shown);
                std::thread::spawn(move || serve(stream, &shown));
            }
        });
        Self { url, version }
    }

    /// Its pages are others from now on: of which version.
    pub(crate) fn change(&self) -> u64 {
        self.version.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// Until the edge leaves; an error is its matter, too.
fn serve(mut stream: TcpStream, version: &AtomicU64) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
        }
        let body = version.load(Ordering::SeqCst).to_string();
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes())?;
    }
}

/// An authority, and a folder with what it signed.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("authority");
        Self { issuer, folder: tempfile::tempdir().expect("folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a new certificate and its key into `site.crt` and `site.key`, and answers the certificate.
    pub(crate) fn sign(&self) -> Vec<u8> {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
        let key = KeyPair::generate().expect("key");
        let made = params.signed_by(&key, &self.issuer).expect("certificate");
        replace(&self.path("site.crt"), &made.pem());
        replace(&self.path("site.key"), &key.serialize_pem());
        made.der().to_vec()
    }

    /// The flags of an edge that serves that.
    pub(crate) fn flags(&self) -> Vec<String> {
        let file = |name| self.path(name).display().to_string();
        ["--tls-listen", "127.0.0.1:0", "--cert", &file("site.crt"), "--key", &file("site.key")]
            .map(str::to_owned)
            .into()
    }

    /// A client that trusts it and offers one protocol.
    pub(crate) fn client(&self, protocol: &str) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.issuer.der().to_vec())).expect("root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Arc::new(config)
    }
}

/// Writes a file as a whole.
pub(crate) fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(new, path).expect("renamed");
}

pub(crate) fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Shakes hands to the end.
pub(crate) fn connect_tls(address: SocketAddr, client: &Arc<ClientConfig>) -> std::io::Result<TlsStream> {
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::clone(client), name).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, connect(address)?);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// The certificate that is served.
pub(crate) fn certificate(address: SocketAddr, client: &Arc<ClientConfig>) -> Vec<u8> {
    // A session that is resumed has the certificate of its first connection.
    let mut client = ClientConfig::clone(client);
    client.resumption = rustls::client::Resumption::disabled();
    let stream = connect_tls(address, &Arc::new(client)).expect("connected");
    stream.conn.peer_certificates().and_then(|chain| chain.first()).expect("a certificate").to_vec()
}

/// An answer over HTTP/1.1.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// Whether the connection may be used again.
    pub(crate) fn keeps(&self) -> bool {
        !self.head.contains("\r\nconnection: close")
    }

    pub(crate) fn x_cache(&self) -> &str {
        let line = self.head.split("\r\n").find_map(|line| line.strip_prefix("x-cache: "));
        line.unwrap_or_default()
    }
}

/// One request, and its answer to the end.
pub(crate) fn ask(stream: &mut (impl Read + Write), method: &str, path: &str) -> std::io::Result<Answer> {
    stream.write_all(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
    stream.flush()?;
    answer(stream)
}

/// The answer to a request that was made.
pub(crate) fn answer(stream: &mut impl Read) -> std::io::Result<Answer> {
    let early = |what: &str| std::io::Error::new(std::io::ErrorKind::UnexpectedEof, what.to_owned());
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Err(early(&format!("the connection ended after {:?}", String::from_utf8_lossy(&head))));
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(|| early(&head))?;
    let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let mut body = vec![0; length.ok_or_else(|| early(&head))?];
    stream.read_exact(&mut body)?;
    Ok(Answer { status, head, body: String::from_utf8_lossy(&body).into_owned() })
}
