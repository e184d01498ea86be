//! `cargo xtask bench-load`, the loads that wrk and h2load do not make, in a process of its own so that it can be pinned: requests
//! at a pace (`paced.rs`), large bodies read in large pieces, a new object with each request, a full TLS handshake with each request, and connections that
//! stay and ask for nothing. A thread for each connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::bench::fetch;
use crate::bench::load::Done;
use crate::bench::paced::{self, Pace};
use crate::bench::stats::percentile;
use crate::shell::Failed;

/// What the certificate is for: an address, as in the URLs of wrk and h2load. We and h2load send no name (SNI) then; wrk sends the
/// address as one, against RFC 6066, section 3.
pub(crate) const HOST: &str = "127.0.0.1";
/// Longest silence of a server, in milliseconds.
pub(crate) const SILENCE_MS: u64 = 30_000;

/// What the process is told.
#[derive(Args)]
pub(crate) struct Options {
    kind: Kind,
    #[arg(long)]
    address: SocketAddr,
    /// What to ask for; an `N` is replaced by a number that no other request of the process has
    #[arg(long)]
    path: String,
    /// A file of paths to ask for in turn, for `paced`
    #[arg(long)]
    paths: Option<PathBuf>,
    #[arg(long)]
    connections: usize,
    #[arg(long)]
    seconds: u64,
    /// Requests a second, of all connections; without it, as many as there can be
    #[arg(long)]
    rate: Option<u64>,
    /// The server's certificate; without it, no TLS
    #[arg(long)]
    cert: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Requests on connections that are kept
    Bodies,
    /// A connection for each request
    Handshakes,
    /// Requests on connections that are kept, each at its moment
    Paced,
    /// One request on each connection, which then stays until standard input ends
    Idle,
}

/// A connection to a server, with TLS or without.
pub(crate) trait Stream: Read + Write + Send {
    /// The socket under it.
    fn socket(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Stream for StreamOwned<ClientConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref()
    }
}

/// Connects and, with a `config` of TLS, shakes hands.
pub(crate) fn connect(address: SocketAddr, config: Option<&Arc<ClientConfig>>) -> Result<Box<dyn Stream>, Failed> {
    let mut tcp = TcpStream::connect(address)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(Duration::from_millis(SILENCE_MS)))?;
    let Some(config) = config else { return Ok(Box::new(tcp)) };
    let mut session = ClientConnection::new(Arc::clone(config), ServerName::try_from(HOST)?)?;
    session.complete_io(&mut tcp)?;
    Ok(Box::new(StreamOwned::new(session, tcp)))
}

/// TLS as the loads speak it: this certificate is trusted, sessions are not resumed.
pub(crate) fn tls(cert: &Path) -> Result<Arc<ClientConfig>, Failed> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert).map_err(|error| Failed(error.to_string()))?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// The process: prints what it did as JSON.
pub(crate) fn run(options: &Options) -> Result<(), Failed> {
    let config = options.cert.as_deref().map(tls).transpose()?;
    if options.kind == Kind::Idle {
        return idle(options, config.as_ref());
    }
    let (begun, counter) = (Instant::now(), AtomicU64::new(0));
    if options.kind == Kind::Paced {
        return done(options, paced(options, config.as_ref())?, begun);
    }
    let times = std::thread::scope(|scope| {
        let client = |index| client(options, config.as_ref(), begun, index, &counter);
        let threads: Vec<_> = (0..options.connections).map(|index| scope.spawn(move || client(index))).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        let lists = joined.map(|list| list.unwrap_or_else(|_| Err(Failed("a client panicked".to_owned()))));
        lists.collect::<Result<Vec<_>, Failed>>()
    })?;
    done(options, times.concat(), begun)
}

/// Prints what was done.
fn done(options: &Options, mut times: Vec<u64>, begun: Instant) -> Result<(), Failed> {
    times.sort_unstable();
    let paced = |part| options.rate.and_then(|_| percentile(&times, part));
    let done = Done {
        requests: times.len() as u64,
        seconds: begun.elapsed().as_secs_f64(),
        p50_us: paced(0.5),
        p99_us: paced(0.99),
    };
    println!("{}", serde_json::to_string(&done)?);
    Ok(())
}

/// See `paced.rs`.
fn paced(options: &Options, config: Option<&Arc<ClientConfig>>) -> Result<Vec<u64>, Failed> {
    let paths: Vec<String> = match &options.paths {
        Some(file) => std::fs::read_to_string(file)?.lines().map(str::to_owned).collect(),
        None => vec![options.path.clone()],
    };
    let rate = options.rate.ok_or_else(|| Failed("--rate is needed".to_owned()))?;
    let Options { address, connections, seconds, .. } = *options;
    paced::run(&Pace { address, config, paths: &paths, connections, rate, seconds })
}

/// One client, until its time is over: how long each request took, in microseconds, from the moment when it was due.
fn client(
    options: &Options,
    config: Option<&Arc<ClientConfig>>,
    begun: Instant,
    index: usize,
    counter: &AtomicU64,
) -> Result<Vec<u64>, Failed> {
    let every_s = options.rate.map(|rate| options.connections as f64 / rate.max(1) as f64);
    let (mut kept, mut times, mut turn) = (None, Vec::new(), 0);
    loop {
        let mut due = Instant::now();
        if let Some(every_s) = every_s {
            // Connections take turns evenly.
            let part = index as f64 / options.connections as f64;
            due = begun + Duration::from_secs_f64((f64::from(turn) + part) * every_s);
            turn += 1;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        if due.max(Instant::now()).duration_since(begun) >= Duration::from_secs(options.seconds) {
            return Ok(times);
        }
        let path = options.path.replace('N', &counter.fetch_add(1, Ordering::Relaxed).to_string());
        if options.kind == Kind::Handshakes {
            fetch::length(&mut connect(options.address, config)?, options.address, &path, "Connection: close\r\n")?;
        } else {
            let stream = match &mut kept {
                Some(stream) => stream,
                None => kept.insert(connect(options.address, config)?),
            };
            fetch::length(stream, options.address, &path, "")?;
        }
        times.push(due.elapsed().as_micros() as u64);
    }
}

/// Opens all connections, says so, and keeps them until standard input ends.
fn idle(options: &Options, config: Option<&Arc<ClientConfig>>) -> Result<(), Failed> {
    let mut streams = Vec::with_capacity(options.connections);
    for opened in 0..options.connections {
        let asked = connect(options.address, config).and_then(|mut stream| {
            fetch::length(&mut stream, options.address, &options.path, "")?;
            Ok(stream)
        });
        streams.push(asked.map_err(|Failed(why)| Failed(format!("connection {}: {why}", opened + 1)))?);
    }
    println!("{}", streams.len());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
