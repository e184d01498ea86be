//! Measuring a row: all servers are started and warmed, then asked in turn, round after round, so that whatever else the machine
//! does meets all of them. What was not a hit (or, where it was to be one, a miss) fails the row.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::bench::fetch;
use crate::bench::load::{Files, Target, pace, saturate};
use crate::bench::origin::Origin;
use crate::bench::own::{connect, tls};
use crate::bench::peers::{Peer, Site};
use crate::bench::rows::{Load, Row};
use crate::bench::server::{Server, pinned};
use crate::bench::stalls::Stalls;
use crate::bench::{Cores, descriptors, stopped};
use crate::shell::Failed;

/// Passes over all objects until a cache has them.
const WARM_PASSES: usize = 8;
/// Connections that stay and ask for nothing, if this machine allows as many.
const IDLE_CONNECTIONS: usize = 20_000;
/// The part of the descriptors of a process that they may take: a server needs some for itself, and Traffic Server takes no
/// more connections when a tenth is left.
const IDLE_PART: f64 = 0.85;
/// The pace at which times are taken, as a part of what the slowest server of the row can do.
const PACE: f64 = 0.5;

/// What all rows share.
pub(crate) struct World {
    /// In memory, if the machine has such a file system.
    pub(crate) folder: PathBuf,
    pub(crate) origin: Origin,
    pub(crate) files: Files,
    pub(crate) key: PathBuf,
    pub(crate) binary: PathBuf,
    pub(crate) rounds: usize,
    pub(crate) seconds: u64,
}

/// A row as it was measured.
pub(crate) struct Measured {
    pub(crate) row: Row,
    pub(crate) servers: Vec<Measurement>,
    /// Who could not take part, and why.
    pub(crate) absent: Vec<(Peer, String)>,
    /// Requests a second when times were taken.
    pub(crate) rate: Option<u64>,
    /// The machine's own, just before.
    pub(crate) stalls: Stalls,
}

/// A server in a row.
pub(crate) struct Measurement {
    pub(crate) peer: Peer,
    pub(crate) rounds: Vec<Round>,
    /// After the last round, in bytes.
    pub(crate) memory_bytes: u64,
    /// How many idle connections it kept, and what each cost it in bytes.
    pub(crate) idle: Option<(usize, f64)>,
}

/// A server in a round.
pub(crate) struct Round {
    /// CPU time of all its processes for a request, in microseconds.
    pub(crate) cpu_us: f64,
    pub(crate) requests_per_s: f64,
    /// The part of its cores' time that it used.
    pub(crate) busy: f64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
}

/// A server that runs, and where.
struct Running {
    peer: Peer,
    server: Server,
    address: SocketAddr,
    rounds: Vec<Round>,
}

/// Measures a row with these servers.
pub(crate) fn measure(world: &World, row: Row, peers: &[Peer]) -> Result<Measured, Failed> {
    let (cores, stalls) = (Cores::of(row.workers)?, Stalls::watch()?);
    world.origin.pin(&cores.load)?;
    let (mut running, mut absent) = (Vec::new(), Vec::new());
    for peer in peers.iter().filter(|peer| peer.is_in(&row)) {
        stopped()?;
        if let Some(why) = peer.without_tls().filter(|_| row.tls) {
            absent.push((*peer, why.to_owned()));
            continue;
        }
        let started = start(world, row, *peer, &cores)?;
        if warm(world, row, &started)? {
            running.push(started);
        } else if peer.is_own() {
            return Err(started.server.failed("does not keep what it is to serve"));
        } else {
            absent.push((*peer, "it does not keep it".to_owned()));
        }
    }
    let (mut servers, mut rate) = (Vec::new(), None);
    if row.load != Load::Idle {
        rate = Some(rounds(world, row, &cores, &mut running)?);
    }
    for Running { peer, server, address, rounds } in running {
        let idle = if row.load == Load::Idle { Some(idle(world, row, &cores, &server, address)?) } else { None };
        servers.push(Measurement { peer, rounds, memory_bytes: server.memory_bytes(), idle });
    }
    Ok(Measured { row, servers, absent, rate, stalls })
}

/// All rounds; answers the pace.
fn rounds(world: &World, row: Row, cores: &Cores, running: &mut [Running]) -> Result<u64, Failed> {
    let mut rate = 0;
    for round in 0..world.rounds {
        let target = |server: &Running, turn: usize| Target {
            address: server.address,
            tls: row.tls,
            cores: &cores.load,
            threads: row.workers,
            seconds: world.seconds,
            turn: (2 * round + turn) as u64,
            files: &world.files,
        };
        for server in running.iter_mut() {
            stopped()?;
            let (asked, cpu_ns) = (world.origin.asked()?, server.server.cpu_ns());
            let done = saturate(row.load, &target(server, 0)).map_err(|why| server.failed(why))?;
            let cpu_ns = server.server.cpu_ns().saturating_sub(cpu_ns);
            prove(row, server, done.requests, world.origin.asked()? - asked)?;
            server.rounds.push(Round {
                cpu_us: cpu_ns as f64 / 1e3 / done.requests as f64,
                requests_per_s: done.requests as f64 / done.seconds,
                busy: cpu_ns as f64 / 1e9 / done.seconds / row.workers as f64,
                p50_us: 0,
                p99_us: 0,
            });
        }
        if round == 0 {
            let slowest = running.iter().filter_map(|server| Some(server.rounds.first()?.requests_per_s));
            rate = (PACE * slowest.min_by(f64::total_cmp).unwrap_or_default()) as u64;
        }
        for server in running.iter_mut() {
            stopped()?;
            let asked = world.origin.asked()?;
            let done = pace(row.load, &target(server, 1), rate).map_err(|why| server.failed(why))?;
            prove(row, server, done.requests, world.origin.asked()? - asked)?;
            if let Some(last) = server.rounds.last_mut() {
                (last.p50_us, last.p99_us) = (done.p50_us.unwrap_or_default(), done.p99_us.unwrap_or_default());
            }
        }
    }
    Ok(rate)
}

impl Running {
    fn failed(&self, Failed(why): Failed) -> Failed {
        self.server.failed(&format!("was asked and {why}"))
    }
}

/// Whether the origin was asked as often as it should have been.
fn prove(row: Row, server: &Running, requests: u64, origin_requests: u64) -> Result<(), Failed> {
    let misses = matches!(row.load, Load::Misses { .. });
    if misses && origin_requests < requests {
        return Err(server.server.failed(&format!("asked its origin {origin_requests} times for {requests} misses")));
    }
    if !misses && origin_requests > 0 {
        return Err(server.server.failed(&format!("asked its origin {origin_requests} times during hits")));
    }
    Ok(())
}

fn start(world: &World, row: Row, peer: Peer, cores: &Cores) -> Result<Running, Failed> {
    let folder = world.folder.join(format!("{}-{}", row.name, peer.name()));
    std::fs::create_dir_all(&folder)?;
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755))?;
    let (plain, tls) = free_addresses()?;
    let site = Site {
        folder: folder.clone(),
        origin: world.origin.address,
        plain,
        tls: row.tls.then_some(tls),
        workers: row.workers,
        connections: descriptors()?,
        cert: world.files.cert.clone(),
        key: world.key.clone(),
        binary: world.binary.clone(),
    };
    let listens: Vec<SocketAddr> = [Some(plain), site.tls].into_iter().flatten().collect();
    let server = Server::start(peer.title(), &cores.server, &peer.prepare(&site)?, &folder, &listens)?;
    Ok(Running { peer, server, address: if row.tls { tls } else { plain }, rounds: Vec::new() })
}

/// Two addresses where nobody listens.
fn free_addresses() -> Result<(SocketAddr, SocketAddr), Failed> {
    let (one, other) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok((one.local_addr()?, other.local_addr()?))
}

/// Asks for everything until the origin is asked for nothing any more. Answers whether that came to be.
fn warm(world: &World, row: Row, server: &Running) -> Result<bool, Failed> {
    let config = if row.tls { Some(tls(&world.files.cert)?) } else { None };
    let wrong = |Failed(why)| server.server.failed(&format!("was warmed and answered wrongly: {why}"));
    for _ in 0..WARM_PASSES {
        let asked = world.origin.asked()?;
        let mut stream = connect(server.address, config.as_ref()).map_err(wrong)?;
        for (path, bytes) in row.warm_paths() {
            let length = fetch::length(&mut stream, server.address, &path, "").map_err(wrong)?;
            if length != bytes {
                return Err(wrong(Failed(format!("{path} has {length} bytes"))));
            }
        }
        if world.origin.asked()? == asked {
            return Ok(true);
        }
        stopped()?;
    }
    Ok(false)
}

/// How many idle connections were kept, and what each cost in bytes.
fn idle(world: &World, row: Row, cores: &Cores, server: &Server, address: SocketAddr) -> Result<(usize, f64), Failed> {
    let connections = IDLE_CONNECTIONS.min((IDLE_PART * descriptors()? as f64) as usize);
    let before = server.memory_bytes();
    let _held = hold(&world.files.cert, row, cores, address, connections).map_err(|Failed(why)| server.failed(&why))?;
    let after = server.memory_bytes();
    Ok((connections, after.saturating_sub(before) as f64 / connections as f64))
}

/// A process that keeps connections until it is dropped.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn hold(cert: &Path, row: Row, cores: &Cores, address: SocketAddr, connections: usize) -> Result<Held, Failed> {
    let mut command = pinned(&cores.load);
    command.arg("prlimit").arg(format!("--nofile={}:", descriptors()?)).arg(std::env::current_exe()?);
    command.args(["bench-load", "idle", "--address", &address.to_string(), "--seconds", "0"]);
    command.args(["--connections", &connections.to_string()]);
    for (path, _) in row.warm_paths() {
        command.args(["--path", &path]);
    }
    if row.tls {
        command.arg("--cert").arg(cert);
    }
    let mut held = Held(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
    let mut line = String::new();
    if let Some(stdout) = held.0.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    if line.trim() == connections.to_string() {
        return Ok(held);
    }
    Err(Failed(format!("did not keep {connections} idle connections: {}", line.trim())))
}
