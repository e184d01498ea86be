//! `cargo xtask takeover`: an edge under load is replaced by a new process again and again, and drained at the end; no request
//! may fail.
//!
//! Clients that keep their connections, and clients that open one for each request. An answer may say that it is the last one
//! on its connection. A reset, an end without an answer, a refused connection and a wrong body are failures.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;

use crate::shell::Failed;

/// Clients of each kind.
const CLIENTS: usize = 8;
/// What is asked for; each client goes round.
const PATHS: usize = 100;
/// Bytes of an answer.
const BODY_BYTES: usize = 1_000;
/// Longest silence of the edge, in milliseconds.
const SILENCE_MS: u64 = 20_000;
/// From when nobody opens connections any more until the edge is told to end, in milliseconds.
const SETTLE_MS: u64 = 200;
/// Failures that are shown.
const SHOWN: u64 = 10;

/// What `takeover` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// Requests in all
    #[arg(long, default_value_t = 1_000_000)]
    requests: u64,
    /// How often the edge is replaced meanwhile
    #[arg(long, default_value_t = 5)]
    times: u64,
    /// The program; without it, the release build, made first
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// Runs it; a request that failed is a failure.
pub(crate) fn run(options: &Options) -> Result<(), Failed> {
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => crate::shell::release_binary()?,
    };
    let (folder, origin) = (tempfile::tempdir()?, origin()?);
    let edge = Edge::start(&binary, folder.path(), origin)?;
    let address = edge.address;
    let load = Load::default();
    let begun = Instant::now();
    let ended = std::thread::scope(|scope| {
        for client in 0..2 * CLIENTS {
            let load = &load;
            scope.spawn(move || client_until_stop(address, client, load));
        }
        let replaced = replace(edge, &binary, folder.path(), origin, options, &load);
        load.stop.store(true, Ordering::Relaxed);
        replaced
    });
    ended?;
    let (done, failed) = (load.done.load(Ordering::Relaxed), load.failed.load(Ordering::Relaxed));
    let last = load.last.load(Ordering::Relaxed);
    println!(
        "{done} requests in {:.1} s, {} takeovers, {last} answers were the last of a connection that was to be kept, {failed} failed",
        begun.elapsed().as_secs_f64(),
        options.times
    );
    if failed > 0 { Err(Failed(format!("{failed} requests failed"))) } else { Ok(()) }
}

/// Replaces the edge each time a part of the requests is done, and drains it before the last ones.
fn replace(
    mut edge: Edge,
    binary: &Path,
    folder: &Path,
    origin: SocketAddr,
    options: &Options,
    load: &Load,
) -> Result<(), Failed> {
    for number in 1..=options.times {
        load.wait(options.requests * number / (options.times + 1))?;
        let next = Edge::start(binary, folder, origin)?;
        if next.address != edge.address {
            return Err(Failed(format!("the new process serves on {}, not on {}", next.address, edge.address)));
        }
        let old = std::mem::replace(&mut edge, next);
        let before = load.done.load(Ordering::Relaxed);
        old.ended()?;
        println!(
            "takeover {number}: the old process ended after {} more requests",
            load.done.load(Ordering::Relaxed) - before
        );
    }
    load.wait(options.requests)?;
    load.drains.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(SETTLE_MS));
    let before = load.done.load(Ordering::Relaxed);
    edge.terminate()?;
    println!("drain: the process ended after {} more requests", load.done.load(Ordering::Relaxed) - before);
    Ok(())
}

/// What clients share.
#[derive(Default)]
struct Load {
    done: AtomicU64,
    failed: AtomicU64,
    /// Answers after which a client that keeps its connection had to open another one.
    last: AtomicU64,
    /// Nobody opens a connection any more: the edge is about to end.
    drains: AtomicBool,
    stop: AtomicBool,
}

impl Load {
    /// Until so many requests are done.
    fn wait(&self, requests: u64) -> Result<(), Failed> {
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            let done = self.done.load(Ordering::Relaxed) + self.failed.load(Ordering::Relaxed);
            if done >= requests {
                return Ok(());
            }
            if done > seen {
                (seen, since) = (done, Instant::now());
            } else if since.elapsed() > Duration::from_millis(2 * SILENCE_MS) {
                return Err(Failed(format!("nothing happens any more after {done} requests")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Even numbers keep their connection.
fn client_until_stop(address: SocketAddr, number: usize, load: &Load) {
    let (keeps, mut kept, mut at) = (number.is_multiple_of(2), None, number);
    while !load.stop.load(Ordering::Relaxed) {
        if kept.is_none() && load.drains.load(Ordering::Relaxed) {
            return;
        }
        at += 1;
        let path = at % PATHS;
        let asked = match kept.take() {
            Some(stream) => Ok(stream),
            None => connect(address),
        };
        match asked.and_then(|stream| ask(stream, path, keeps)) {
            Ok(stream) => {
                load.done.fetch_add(1, Ordering::Relaxed);
                load.last.fetch_add((keeps && stream.is_none()).into(), Ordering::Relaxed);
                kept = stream;
            }
            Err(Failed(why)) => {
                if load.failed.fetch_add(1, Ordering::Relaxed) < SHOWN {
                    println!("a request on a {} connection failed: {why}", if keeps { "kept" } else { "new" });
                }
            }
        }
    }
}

fn connect(address: SocketAddr) -> Result<BufReader<TcpStream>, Failed> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(SILENCE_MS)))?;
    Ok(BufReader::new(stream))
}

/// One request; answers the connection where it may be used again.
fn ask(mut stream: BufReader<TcpStream>, path: usize, keeps: bool) -> Result<Option<BufReader<TcpStream>>, Failed> {
    let close = if keeps { "" } else { "Connection: close\r\n" };
    stream.get_mut().write_all(format!("GET /{path} HTTP/1.1\r\nHost: site.example\r\n{close}\r\n").as_bytes())?;
    let (mut line, mut status, mut again) = (String::new(), String::new(), keeps);
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(Failed(format!("the connection ended after {status:?}")));
        }
        match line.trim_end() {
            "" => break,
            text if status.is_empty() => status = text.to_owned(),
            text => again &= !text.eq_ignore_ascii_case("connection: close"),
        }
    }
    let mut body = [0; BODY_BYTES];
    stream.read_exact(&mut body)?;
    if status != "HTTP/1.1 200 OK" || body != body_of(path) {
        return Err(Failed(format!("{status:?} with another body")));
    }
    Ok(Some(stream).filter(|_| again))
}

fn body_of(path: usize) -> [u8; BODY_BYTES] {
    [b'a' + (path % 26) as u8; BODY_BYTES]
}

/// A website whose pages may be kept, and which is as good as its path.
fn origin() -> Result<SocketAddr, Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(address)
}

/// Until the edge leaves; an error is its matter, too.
fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let (mut first, mut line) = (String::new(), String::new());
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if first.is_empty() {
                first.clone_from(&line);
            }
        }
        let path = first.split(' ').nth(1).and_then(|path| path.trim_start_matches('/').parse().ok()).unwrap_or(0);
        let head = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
        stream.write_all(&[head.as_bytes(), &body_of(path)].concat())?;
    }
}

/// A process, killed when dropped.
struct Edge {
    child: Child,
    address: SocketAddr,
}

impl Edge {
    /// Returns when it serves.
    fn start(binary: &Path, folder: &Path, origin: SocketAddr) -> Result<Self, Failed> {
        let mut command = Command::new(binary);
        command.args([
            "edge",
            "--json",
            "--threads",
            "2",
            "--listen",
            "127.0.0.1:0",
            "--upstream",
            &format!("http://{origin}"),
        ]);
        command.arg("--disk").arg(format!("{}=1GiB", folder.join("disk").display()));
        command.arg("--handover").arg(folder.join("handover")).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let mut edge = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let ready: serde_json::Value =
            serde_json::from_str(&line).map_err(|error| Failed(format!("the edge said {line:?}: {error}")))?;
        let url = ready.get("url").and_then(serde_json::Value::as_str).unwrap_or_default();
        edge.address =
            url.trim_start_matches("http://").parse().map_err(|_| Failed(format!("no address in {line:?}")))?;
        Ok(edge)
    }

    /// Waits for its end, which has to be a good one.
    fn ended(mut self) -> Result<(), Failed> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(2 * SILENCE_MS) {
            if let Some(status) = self.child.try_wait()? {
                return if status.success() { Ok(()) } else { Err(Failed(format!("the edge ended with {status}"))) };
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(Failed("the edge does not end".to_owned()))
    }

    /// Asks it to end, and waits for that.
    fn terminate(self) -> Result<(), Failed> {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        self.ended()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // Most have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
