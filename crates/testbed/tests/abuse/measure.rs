//! What an abuse costs the edge, and what it has to leave alone.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::edge::{Edge, PAGE_BYTES};

/// No wait of a test is longer; it only ends a test that has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Connections before anything is measured, and for how long, in milliseconds: what a thread makes once is there then.
const WARM_UP: usize = 8;
const WARM_UP_MS: u64 = 200;
/// Memory of the edge beside its connections that may come and go, in bytes.
const SLACK_BYTES: u64 = 4 << 20;
/// Processor time of the edge beside its connections, in milliseconds: that of the bystander, and of timers.
const SLACK_CPU_MS: u64 = 500;
/// Between two requests of the bystander, in milliseconds.
const PACE_MS: u64 = 20;
/// Of the processor time in `/proc`, in milliseconds.
const TICK_MS: u64 = 10;

/// What may be taken, for each connection.
pub(crate) struct Bounds {
    pub(crate) patience_ms: u64,
    pub(crate) connections: usize,
    pub(crate) bytes: u64,
    pub(crate) cpu_us: u64,
}

/// Has so many clients do the same at once. `attack` does it with one connection, and says how that ended; each has to end in
/// one of the ways of `ends`, and at least one of them in the first way: the others are what it looks like where that is lost.
pub(crate) async fn cost<F>(what: &str, bounds: Bounds, ends: &[&str], attack: impl Fn(SocketAddr) -> F)
where
    F: Future<Output = String> + Send + 'static,
{
    cost_at(what, bounds, ends, |edge| attack(edge.address)).await;
}

/// The same, by the port that the attack chooses.
pub(crate) async fn cost_at<F>(what: &str, bounds: Bounds, ends: &[&str], attack: impl Fn(&Edge) -> F)
where
    F: Future<Output = String> + Send + 'static,
{
    let edge = Edge::start(bounds.patience_ms).await;
    // Both are in memory from here on.
    for page in ["/page", "/large"] {
        let address = edge.address;
        let bytes = tokio::task::spawn_blocking(move || get(address, page)).await.expect("an answer");
        assert!(bytes >= PAGE_BYTES, "{page}");
    }
    let told = AtomicU64::new(0);
    let all = async |connections: usize| {
        let mut clients: JoinSet<String> = (0..connections).map(|_| attack(&edge)).collect();
        while let Some(ended) = clients.join_next().await {
            let ended = ended.expect("no panic");
            assert!(ends.contains(&&*ended), "{what}: a connection ended with {ended:?}, not with one of {ends:?}");
            told.fetch_add(u64::from(ends.first() == Some(&&*ended)), Ordering::Relaxed);
        }
    };
    // Its end is of no interest.
    let _ = tokio::time::timeout(Duration::from_millis(WARM_UP_MS), all(WARM_UP)).await;
    forget_peak(edge.pid());
    let before = (memory(edge.pid()).0, cpu_ms(edge.pid()));
    let over = Arc::new(AtomicBool::new(false));
    let (address, is_over) = (edge.address, Arc::clone(&over));
    let bystander = tokio::task::spawn_blocking(move || bystander(address, &is_over));
    all(bounds.connections).await;
    over.store(true, Ordering::Relaxed);
    let served = bystander.await.expect("others are served");
    let connections = bounds.connections as u64;
    let bytes = memory(edge.pid()).1.saturating_sub(before.0);
    let cpu = cpu_ms(edge.pid()) - before.1;
    eprintln!(
        "{what}: {connections} connections, {:.1} KiB and {} µs each; a bystander got {served} answers",
        bytes as f64 / 1024.0 / connections as f64,
        cpu * 1_000 / connections
    );
    let (most_bytes, most_cpu) =
        (bounds.bytes * connections + SLACK_BYTES, bounds.cpu_us * connections / 1_000 + SLACK_CPU_MS);
    assert!(bytes <= most_bytes, "{what}: {bytes} bytes, more than {most_bytes}");
    assert!(cpu <= most_cpu, "{what}: {cpu} ms, more than {most_cpu}");
    assert!(served > 0, "{what}: nobody else was served");
    assert!(told.load(Ordering::Relaxed) > 0, "{what}: no connection ended with {:?}", ends.first());
}

/// Asks for a page again and again, on a thread of its own, so that it is only the edge that it waits for; how often.
fn bystander(address: SocketAddr, over: &AtomicBool) -> u64 {
    let mut served = 0;
    while !over.load(Ordering::Relaxed) {
        assert_eq!(get(address, "/page"), PAGE_BYTES);
        served += 1;
        std::thread::sleep(Duration::from_millis(PACE_MS));
    }
    served
}

/// Bytes of the answer's body, which has to be a good one.
fn get(address: SocketAddr, path: &str) -> usize {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("written");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer in time");
    let end = answer.windows(4).position(|end| end == b"\r\n\r\n").expect("a head");
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer[..end]));
    answer.len() - end - 4
}

/// Resident bytes of a process: now, and at most since [`forget_peak`].
fn memory(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    };
    (of("VmRSS:"), of("VmHWM:"))
}

/// proc(5): 5 sets the peak to what there is now.
fn forget_peak(pid: u32) {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("reset");
}

/// Time that the threads of a process had, those that have ended included, in milliseconds.
fn cpu_ms(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // After the name, which may have spaces in it: the state is the third field, the times are the 14th and 15th.
    let (_, rest) = stat.rsplit_once(") ").expect("a name");
    rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number") * TICK_MS).sum()
}
