//! The edge that is abused: a process of its own, so that what it takes is its own. The process is this test program again,
//! with a test that is ignored otherwise.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use api::pull::{PullDoc, UpstreamDoc};
use api::{ZoneDoc, ZoneName};
use bytes::Bytes;
use http::{Method, Request, Response};
use littoral::assembly::{FrontStart, Process, wall_clock};
use net::{Body, CertificateSources, Door, Doors, Incoming, ServerLimits, Tls};
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// For a head, and for a connection without a request; and for a client that takes or sends nothing, in milliseconds: where
/// clients are to see the end of it.
pub(crate) const SHORT_MS: u64 = 2_000;
/// The same where they are to be served, however long this machine lets them wait.
pub(crate) const LONG_MS: u64 = 60_000;
/// Resets and stalls that an HTTP/2 client has.
const RESETS: usize = 20;
/// Bytes of `/page`: what a hit is.
pub(crate) const PAGE_BYTES: usize = 2_000;
/// Bytes of `/large`: more than the buffers of a connection take.
pub(crate) const LARGE_BYTES: usize = 8 << 20;

const ORIGIN: &str = "LITTORAL_ABUSE_ORIGIN";
const PATIENCE: &str = "LITTORAL_ABUSE_PATIENCE_MS";
const CERTIFICATE: &str = "LITTORAL_ABUSE_CERTIFICATE";
const KEY: &str = "LITTORAL_ABUSE_KEY";
const READY: &str = "the edge listens on ";
const AND: &str = " and, with TLS, on ";

/// Until its parent has it killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the edge of the other tests, in a process of its own"]
async fn edge() {
    let upstream = UpstreamDoc { url: std::env::var(ORIGIN).expect("an origin"), weight: 1 };
    let name: ZoneName = "site".parse().expect("a name");
    let zone = ZoneDoc { pull: Some(Box::new(PullDoc::new(vec![upstream]))), catch_all: true, ..ZoneDoc::new(name) };
    let patience_ms = std::env::var(PATIENCE).expect("patience").parse().expect("a number");
    let limits =
        ServerLimits { head_ms: patience_ms, stall_ms: patience_ms, h2_resets: RESETS, ..ServerLimits::default() };
    let mut process = Process::default();
    process.limits = limits;
    let threads = Some(2.try_into().expect("threads"));
    let any = "127.0.0.1:0".parse().expect("address");
    let plain = process.listen("plain", any, threads).await.expect("bound");
    let secure = process.listen("tls", any, threads).await.expect("bound");
    let addresses = [&plain, &secure].map(|listener| listener.local_addr().expect("address"));
    let file = |name| PathBuf::from(std::env::var_os(name).expect("a file"));
    let sources = CertificateSources { default: Some((file(CERTIFICATE), file(KEY))), folder: None };
    let tls = Door { tls: Some(Tls::open(sources).expect("a certificate")), ..Door::default() };
    let doors = Doors(vec![(plain, Door::default()), (secure, tls)]);
    let start = FrontStart {
        zone,
        name: "edge".parse().expect("a name"),
        memory_bytes: 64 << 20,
        cache: edge::CacheConfig::default(),
        access_log: None,
        state_dir: None,
        clock: wall_clock(),
    };
    process.front(start, doors, |_| {}).expect("an edge");
    eprintln!("{READY}{}{AND}{}", addresses[0], addresses[1]);
    std::future::pending::<()>().await;
}

/// An edge with its origin. Both end when it is dropped.
pub(crate) struct Edge {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) secure: SocketAddr,
    _origin: DropGuard,
    /// Who trusts it reaches the secure port.
    pub(crate) certificate: CertificateDer<'static>,
    _folder: TempDir,
}

impl Edge {
    /// Returns when it serves.
    pub(crate) async fn start(patience_ms: u64) -> Self {
        let (origin, stop) = origin().await;
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--ignored", "--exact", "edge::edge", "--nocapture"]).env(ORIGIN, format!("http://{origin}"));
        command.env(PATIENCE, patience_ms.to_string());
        let made = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).expect("certificate");
        let folder = tempfile::tempdir().expect("folder");
        for (name, text) in [(CERTIFICATE, made.cert.pem()), (KEY, made.signing_key.serialize_pem())] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            command.env(name, path);
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started");
        let said = BufReader::new(child.stderr.take().expect("its words"));
        let addresses = said.lines().map_while(Result::ok).find_map(|line| {
            let (plain, secure) = line.strip_prefix(READY)?.split_once(AND)?;
            Some((plain.parse().ok()?, secure.parse().ok()?))
        });
        let (address, secure) = addresses.expect("it serves");
        let certificate = made.cert.der().clone();
        Self { child, address, secure, _origin: stop, certificate, _folder: folder }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // It waits for nothing else.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A website: `/page` and `/large` may be kept, and of what is sent to it, it says how much that was.
async fn origin() -> (SocketAddr, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (address, stop) = (listener.local_addr().expect("address"), CancellationToken::new());
    let service = net::service(async |request: Request<Incoming>| {
        if request.method() == Method::POST {
            let read = net::read_to_end(request.into_body(), LARGE_BYTES).await;
            return Response::new(Body::full(
                read.map_or_else(|error| error.to_string(), |body| body.len().to_string()),
            ));
        }
        let size = if request.uri().path() == "/large" { LARGE_BYTES } else { PAGE_BYTES };
        let mut response = Response::new(Body::full(Bytes::from(vec![b'x'; size])));
        response.headers_mut().insert("cache-control", "max-age=3600".parse().expect("value"));
        response
    });
    tokio::spawn(net::serve(listener, service, ServerLimits::default(), stop.clone()));
    (address, stop.drop_guard())
}
