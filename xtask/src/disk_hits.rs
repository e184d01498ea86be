//! The bench row about large objects on disk: CPU seconds of the server per GB of the edge against nginx that serves its own
//! cached file with sendfile, one core for the server and another for the client, rounds taken in turn.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use net::{Body, Incoming, ServerLimits};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::shell::{Failed, output_of};

const OBJECT_BYTES: usize = 100 << 20;
/// Reads of a round.
const READS: usize = 20;
const ROUNDS: usize = 5;
/// `/proc/*/stat` counts in these parts of a second, on every Linux that there is.
const TICKS_PER_S: f64 = 100.0;
/// Longest wait for a server to listen, and for the object to be on disk, in milliseconds.
const START_MS: u64 = 30_000;
const SERVER_CORE: &str = "0";
const CLIENT_CORE: &str = "1";

/// Medians, in seconds of CPU per 10^9 bytes.
pub(crate) struct Costs {
    pub(crate) edge: f64,
    pub(crate) nginx: f64,
}

/// Killed when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // nginx ends its workers when it is told to, not when it is killed.
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

impl Server {
    fn start(program: &Path, arguments: &[&str]) -> Result<Self, Failed> {
        let mut command = Command::new("taskset");
        command.args(["-c", SERVER_CORE]).arg(program).args(arguments);
        Ok(Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    }

    /// CPU seconds so far, of it and its children.
    fn cpu_s(&self) -> Result<f64, Failed> {
        let id = self.0.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        let mut ticks = 0;
        for process in children.split_whitespace().chain([id.to_string().as_str()]) {
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
            let times = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
            ticks += times.filter_map(|time| time.parse::<u64>().ok()).sum::<u64>();
        }
        Ok(ticks as f64 / TICKS_PER_S)
    }
}

pub(crate) async fn run(binary: &Path, folder: &Path) -> Result<Costs, Failed> {
    let origin = origin().await?;
    let (ports, nginx_root) = (free(2).await?, folder.join("nginx"));
    let &[edge_at, nginx_at] = ports.as_slice() else { return Err(Failed("no free ports".to_owned())) };
    std::fs::create_dir_all(&nginx_root)?;
    let conf = nginx_root.join("nginx.conf");
    let root = nginx_root.display();
    std::fs::write(
        &conf,
        format!(
            "daemon off; worker_processes 1; pid {root}/pid; error_log {root}/error.log;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on;\n\
             proxy_cache_path {root}/cache keys_zone=k:1m max_size=1g; proxy_temp_path {root}/temp;\n\
             server {{ listen {nginx_at}; location / {{ proxy_pass http://{origin}; proxy_cache k; }} }} }}\n"
        ),
    )?;
    let nginx = Server::start(Path::new("nginx"), &["-c", &conf.display().to_string()])?;
    let disk = format!("{}=1GiB", folder.join("edge").display());
    let upstream = format!("http://{origin}");
    let listen = edge_at.to_string();
    let edge = Server::start(
        binary,
        &["edge", "--upstream", &upstream, "--listen", &listen, "--disk", &disk, "--memory", "16MiB"],
    )?;
    let begun = Instant::now();
    for address in [edge_at, nginx_at] {
        while TcpStream::connect(address).await.is_err() {
            if begun.elapsed() > Duration::from_millis(START_MS) {
                return Err(Failed(format!("nothing listens on {address}")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let tier = folder.join("edge/cache");
    while stored(&tier) < OBJECT_BYTES as u64 {
        if begun.elapsed() > Duration::from_millis(2 * START_MS) {
            return Err(Failed("the object does not come to disk".to_owned()));
        }
        read(edge_at, 1)?;
    }
    read(nginx_at, 2)?;
    let (mut edge_costs, mut nginx_costs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (server, address, costs) in [(&edge, edge_at, &mut edge_costs), (&nginx, nginx_at, &mut nginx_costs)] {
            let before = server.cpu_s()?;
            read(address, READS)?;
            costs.push((server.cpu_s()? - before) / (READS * OBJECT_BYTES) as f64 * 1e9);
        }
    }
    Ok(Costs { edge: median(edge_costs), nginx: median(nginx_costs) })
}

/// Bytes that files take below a folder.
fn stored(folder: &Path) -> u64 {
    let output = Command::new("du").args(["-sB1"]).arg(folder).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

/// Reads the object so many times over one connection, and drops the bytes.
fn read(address: SocketAddr, times: usize) -> Result<(), Failed> {
    let mut command = Command::new("taskset");
    command.args(["-c", CLIENT_CORE, "curl", "-sf", "--parallel-max", "1", "-w", "%{size_download}\n"]);
    for _ in 0..times {
        command.args(["-o", "/dev/null", &format!("http://{address}/big")]);
    }
    let said = output_of(&mut command)?;
    let whole = said.lines().filter(|line| line.parse() == Ok(OBJECT_BYTES)).count();
    if whole == times { Ok(()) } else { Err(Failed(format!("{whole} of {times} reads were whole"))) }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

async fn free(count: usize) -> Result<Vec<SocketAddr>, Failed> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(TcpListener::bind("127.0.0.1:0").await?);
    }
    Ok(held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?)
}

/// An origin with one object, in ranges too.
async fn origin() -> Result<SocketAddr, Failed> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let body = Bytes::from((0..OBJECT_BYTES).map(|at| (at % 251) as u8).collect::<Vec<u8>>());
    let service = net::service(move |_: Request<Incoming>| {
        let mut response = Response::new(Body::full(body.clone()));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=864000"));
        response.headers_mut().insert(header::ETAG, HeaderValue::from_static("\"1\""));
        async move { response }
    });
    tokio::spawn(net::serve(listener, service, ServerLimits::default(), CancellationToken::new()));
    Ok(address)
}
