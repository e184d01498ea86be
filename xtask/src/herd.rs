//! The bench row about one fetch: thousands of clients that want the same cold object at the same moment, through a `littoral edge`
//! before an origin that takes its time.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::shell::Failed;

/// How long the origin takes, in milliseconds.
const ORIGIN_MS: u64 = 1_000;
/// The object.
const BODY_BYTES: usize = 1_024;
/// Descriptors that each process may need: one for each client, and some.
const DESCRIPTORS: usize = 20_000;
/// Longest wait for the edge to listen, and for all clients to be served, in milliseconds.
const LIMIT_MS: u64 = 60_000;

/// What was measured.
pub(crate) struct Herd {
    pub(crate) clients: usize,
    /// From the moment when all clients ask to the last byte of the first that is served, and of the last.
    pub(crate) first: Duration,
    pub(crate) last: Duration,
    pub(crate) origin_requests: usize,
}

impl Herd {
    /// The time of the last client as a multiple of that of the first.
    pub(crate) fn ratio(&self) -> f64 {
        self.last.as_secs_f64() / self.first.as_secs_f64()
    }
}

/// The edge under test; killed when dropped.
struct Edge(Child);

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) async fn run(binary: &Path, clients: usize) -> Result<Herd, Failed> {
    allow_descriptors()?;
    let asked = Arc::new(AtomicUsize::new(0));
    let origin = start_origin(Arc::clone(&asked)).await?;
    let edge = free_address().await?;
    let mut command = Command::new(binary);
    command.args(["edge", "--upstream", &format!("http://{origin}"), "--listen", &edge.to_string()]);
    let _edge = Edge(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let begun = Instant::now();
    while TcpStream::connect(edge).await.is_err() {
        if begun.elapsed() > Duration::from_millis(LIMIT_MS) {
            return Err(Failed(format!("nothing listens on {edge}")));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let served = tokio::time::timeout(Duration::from_millis(LIMIT_MS), stampede(edge, clients)).await;
    let (first, last) = served.map_err(|_| Failed(format!("not all clients were served within {LIMIT_MS} ms")))??;
    Ok(Herd { clients, first, last, origin_requests: asked.load(Ordering::SeqCst) })
}

/// Lets this process, and those that it starts, have a descriptor for each client.
fn allow_descriptors() -> Result<(), Failed> {
    let own = std::process::id().to_string();
    let limit = format!("--nofile={DESCRIPTORS}:");
    let status = Command::new("prlimit").args(["--pid", &own, &limit]).status()?;
    if status.success() { Ok(()) } else { Err(Failed(format!("{DESCRIPTORS} descriptors are not allowed here"))) }
}

async fn free_address() -> Result<SocketAddr, Failed> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?)
}

/// An origin that answers every request after a while, and counts them.
async fn start_origin(asked: Arc<AtomicUsize>) -> Result<SocketAddr, Failed> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let asked = Arc::clone(&asked);
            tokio::spawn(async move {
                if !read_head(&mut stream).await {
                    return;
                }
                asked.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(ORIGIN_MS)).await;
                let head = format!(
                    "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nConnection: close\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
                );
                let _ = stream.write_all(&[head.as_bytes(), &[b'x'; BODY_BYTES]].concat()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    Ok(address)
}

/// Whether a whole head of a request came.
async fn read_head(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut head).await {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
    }
    true
}

/// Connects all clients, lets them ask at the same moment, and answers when the first and the last was served.
async fn stampede(edge: SocketAddr, clients: usize) -> Result<(Duration, Duration), Failed> {
    let start = watch::Sender::new(None::<Instant>);
    let mut tasks = Vec::with_capacity(clients);
    for _ in 0..clients {
        tasks.push(tokio::spawn(client(TcpStream::connect(edge).await?, start.subscribe())));
    }
    start.send_replace(Some(Instant::now()));
    let mut served = Vec::with_capacity(clients);
    for task in tasks {
        served.push(task.await??);
    }
    let times = || served.iter().map(|(took, _)| took);
    let (first, last) = (times().min(), times().max());
    first.zip(last).map(|(first, last)| (*first, *last)).ok_or_else(|| Failed("no clients".to_owned()))
}

/// One client: from the common start to the last byte of its body. Its connection stays open, as a browser's does: to close
/// 10,000 is no part of serving them.
async fn client(
    mut stream: TcpStream,
    mut start: watch::Receiver<Option<Instant>>,
) -> Result<(Duration, TcpStream), Failed> {
    let begun = start.wait_for(Option::is_some).await.ok().and_then(|begun| *begun);
    let begun = begun.ok_or_else(|| Failed("the start never came".to_owned()))?;
    stream.write_all(b"GET /cold HTTP/1.1\r\nHost: shop.example\r\n\r\n").await?;
    let mut answer = Vec::with_capacity(2 * BODY_BYTES);
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(Failed("a client's connection was closed".to_owned()));
        }
        // The body has no line ends, so where these stand, so far from the end, is the end of the head.
        let head_end = answer.len().checked_sub(BODY_BYTES).and_then(|end| answer.get(..end));
        if head_end.is_some_and(|head| head.ends_with(b"\r\n\r\n")) {
            break;
        }
    }
    let took = begun.elapsed();
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok((took, stream));
    }
    Err(Failed(format!("a client got {:.200}", String::from_utf8_lossy(&answer))))
}
