//! The bench row about replaying a trace: its requests go over HTTP through a real edge, one after the other, and through
//! `littoral cache simulate`; both are to hit equally often.
//!
//! The origin answers each request with as many bytes as the trace says last of the object, which is what the simulator takes,
//! and no validator, so that bodies stay whole. What an entry weighs beside its body is measured first, in the same edge, and told to the simulator.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use net::{Body, Incoming, ServerLimits};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::shell::{Failed, output_of};
use crate::torture::reader::Connection;

/// Requests from which the weight of an entry is told; they fit into the smallest edge.
const WEIGHED: usize = 200;
/// Longest wait for the edge to listen, in milliseconds.
const START_MS: u64 = 10_000;

/// Killed when dropped.
struct Edge(Child);

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is replayed, and through what.
pub(crate) struct Replay {
    pub(crate) binary: PathBuf,
    pub(crate) trace: PathBuf,
    pub(crate) memory_bytes: u64,
    pub(crate) eviction: String,
    pub(crate) objective: String,
}

/// Hit ratios of requests and bytes.
pub(crate) struct Ratios {
    pub(crate) requests: f64,
    pub(crate) bytes: f64,
}

impl Replay {
    /// What the edge had, and what the simulator says, with the weight of an entry beside its body in bytes.
    pub(crate) async fn run(&self) -> Result<(Ratios, Ratios, u64), Failed> {
        let trace = read(&self.trace)?;
        let size = Arc::new(AtomicU64::new(0));
        let origin = origin(Arc::clone(&size)).await?;
        let (edge, address, admin) = self.start(origin).await?;
        let mut reader = Connection::open(address).await?;
        let mut body_bytes = 0;
        for (id, bytes) in trace.iter().take(WEIGHED).copied() {
            size.store(bytes, Ordering::SeqCst);
            body_bytes += if ask(&mut reader, id).await? { 0 } else { bytes };
        }
        let held = metric(admin, "littoral_edge_memory_bytes{").await?;
        let entries = metric(admin, "littoral_edge_entries{").await?;
        let overhead_bytes = held.saturating_sub(body_bytes) / entries.max(1);
        drop(edge);
        let (_edge, address, _) = self.start(origin).await?;
        let mut reader = Connection::open(address).await?;
        let (mut hits, mut hit_bytes, mut all_bytes) = (0_u64, 0_u64, 0_u64);
        for (id, bytes) in trace.iter().copied() {
            size.store(bytes, Ordering::SeqCst);
            let hit = ask(&mut reader, id).await?;
            hits += u64::from(hit);
            hit_bytes += if hit { bytes } else { 0 };
            all_bytes += bytes;
        }
        let measured =
            Ratios { requests: hits as f64 / trace.len() as f64, bytes: hit_bytes as f64 / all_bytes as f64 };
        Ok((measured, self.simulated(overhead_bytes)?, overhead_bytes))
    }

    async fn start(&self, origin: SocketAddr) -> Result<(Edge, SocketAddr, SocketAddr), Failed> {
        let mut free = Vec::new();
        for _ in 0..2 {
            free.push(TcpListener::bind("127.0.0.1:0").await?);
        }
        let addresses: Vec<SocketAddr> = free.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        drop(free);
        let &[address, admin] = addresses.as_slice() else { return Err(Failed("no free ports".to_owned())) };
        let mut command = Command::new(&self.binary);
        command.args(["edge", "--upstream", &format!("http://{origin}"), "--listen", &address.to_string()]);
        command.args(["--admin", &admin.to_string(), "--memory", &self.memory_bytes.to_string()]);
        command.args(["--eviction", &self.eviction, "--objective", &self.objective]);
        let edge = Edge(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        let begun = Instant::now();
        for each in [address, admin] {
            while TcpStream::connect(each).await.is_err() {
                if begun.elapsed() > Duration::from_millis(START_MS) {
                    return Err(Failed(format!("nothing listens on {each}")));
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Ok((edge, address, admin))
    }

    fn simulated(&self, overhead_bytes: u64) -> Result<Ratios, Failed> {
        let mut command = Command::new(&self.binary);
        command.args(["cache", "simulate"]).arg(&self.trace).args(["--sizes", &self.memory_bytes.to_string()]);
        command.args(["--policies", &self.eviction, "--objective", &self.objective]);
        command.args(["--overhead", &overhead_bytes.to_string(), "-o", "json"]);
        let rows: serde_json::Value = serde_json::from_str(&output_of(&mut command)?)?;
        let ratio = |name: &str| rows.get(0).and_then(|row| row.get(name)).and_then(serde_json::Value::as_f64);
        let both = ratio("request_miss_ratio").zip(ratio("byte_miss_ratio"));
        let (requests, bytes) = both.ok_or_else(|| Failed(format!("the simulator said {rows}")))?;
        Ok(Ratios { requests: 1.0 - requests, bytes: 1.0 - bytes })
    }
}

/// Asks for an object; says whether it was a hit.
async fn ask(reader: &mut Connection, id: u64) -> Result<bool, Failed> {
    let answer = reader.ask("GET", &format!("/{id}"), "").await?;
    if answer.status != 200 {
        return Err(Failed(format!("/{id} was answered with {}", answer.status)));
    }
    Ok(answer.is_hit())
}

async fn metric(admin: SocketAddr, name: &str) -> Result<u64, Failed> {
    let answer = Connection::open(admin).await?.ask("GET", "/metrics", "").await?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let line = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.rsplit(' ').next());
    line.and_then(|value| value.parse().ok()).ok_or_else(|| Failed(format!("there is no metric {name}")))
}

/// An origin that answers everything with so many bytes.
async fn origin(size: Arc<AtomicU64>) -> Result<SocketAddr, Failed> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let service = net::service(move |_: Request<Incoming>| {
        let bytes = usize::try_from(size.load(Ordering::SeqCst)).unwrap_or(0);
        let mut response = Response::new(Body::full(Bytes::from(vec![b'x'; bytes])));
        let forever = HeaderValue::from_static("public, max-age=864000");
        response.headers_mut().insert(header::CACHE_CONTROL, forever);
        async move { response }
    });
    tokio::spawn(net::serve(listener, service, ServerLimits::default(), CancellationToken::new()));
    Ok(address)
}

/// Ids and sizes of a trace, each object with its last size throughout: lines of `time id size`, plain or packed with xz.
fn read(trace: &Path) -> Result<Vec<(u64, u64)>, Failed> {
    let packed = trace.extension().is_some_and(|extension| extension == "xz");
    let text =
        if packed { output_of(Command::new("xz").arg("-dc").arg(trace))? } else { std::fs::read_to_string(trace)? };
    let line = |line: &str| {
        let mut words = line.split_whitespace().skip(1).map(str::parse::<u64>);
        match (words.next(), words.next()) {
            (Some(Ok(id)), Some(Ok(bytes))) => Ok((id, bytes)),
            _ => Err(Failed(format!("{line:?} is not 'time id size'"))),
        }
    };
    let requests = text.lines().map(line).collect::<Result<Vec<_>, _>>()?;
    let last: HashMap<u64, u64> = requests.iter().copied().collect();
    Ok(requests.into_iter().map(|(id, bytes)| (id, last.get(&id).copied().unwrap_or(bytes))).collect())
}
