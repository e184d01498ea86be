//! `cargo xtask takeover`: an edge under load is replaced by a new process again and again, and drained at the end; no request
//! may fail.
//!
//! Clients that keep their connections, and clients that open one for each request; plainly, with TLS, and over HTTP/2. An
//! answer may say that it is the last one on its connection. A reset, an end without an answer, a refused connection and a
//! wrong body are failures. Somebody purges meanwhile: what is served after that by any of the processes has to be new.

mod http1;
mod http2;
mod process;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;

use crate::bench::own::tls;
use crate::shell::Failed;
use crate::takeover::http1::Way;
use crate::takeover::process::{Edge, Setup};

/// Clients of each kind.
const CLIENTS: usize = 8;
/// What is asked for; each client goes round.
const PATHS: usize = 100;
/// Longest silence of the edge, in milliseconds.
const SILENCE_MS: u64 = 20_000;
/// From when nobody opens connections any more until the edge is told to end, in milliseconds.
const SETTLE_MS: u64 = 200;
/// Failures that are shown.
const SHOWN: u64 = 10;

/// What `takeover` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// Requests in all, for each kind of load
    #[arg(long, default_value_t = 1_000_000)]
    requests: u64,
    /// How often the edge is replaced meanwhile
    #[arg(long, default_value_t = 5)]
    times: u64,
    /// Only with TLS; without these two, all three kinds of load in turn
    #[arg(long)]
    tls: bool,
    /// Only over HTTP/2
    #[arg(long)]
    http2: bool,
    /// The program; without it, the release build, made first
    #[arg(long)]
    binary: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Tls,
    Http2,
}

/// Runs it; a request that failed is a failure.
pub(crate) fn run(options: &Options) -> Result<(), Failed> {
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => crate::shell::release_binary()?,
    };
    let chosen = |kind: &Kind| match kind {
        Kind::Plain => !options.tls && !options.http2,
        Kind::Tls => options.tls || !options.http2,
        Kind::Http2 => options.http2 || !options.tls,
    };
    for kind in [Kind::Plain, Kind::Tls, Kind::Http2].into_iter().filter(chosen) {
        under(kind, &Setup::new(binary.clone())?, options)?;
    }
    Ok(())
}

fn under(kind: Kind, setup: &Setup, options: &Options) -> Result<(), Failed> {
    let edge = Edge::start(setup)?;
    let [plain, secure] = edge.addresses;
    let config = tls(&setup.cert())?;
    let way = match kind {
        Kind::Plain => Way { address: plain, tls: None },
        Kind::Tls | Kind::Http2 => Way { address: secure, tls: Some(&config) },
    };
    let load = Load::default();
    let begun = Instant::now();
    let ended = std::thread::scope(|scope| {
        let load = &load;
        if kind == Kind::Http2 {
            scope.spawn(|| {
                if let Err(Failed(why)) = http2::clients(secure, &config, CLIENTS, load) {
                    load.fails("the clients of HTTP/2", &why);
                }
            });
        } else {
            (0..2 * CLIENTS).for_each(|client| drop(scope.spawn(move || http1::client(way, client, load))));
        }
        scope.spawn(move || http1::purger(way, &setup.website, load));
        let replaced = replace(edge, setup, options, load);
        load.stop.store(true, Ordering::Relaxed);
        replaced
    });
    ended?;
    let [done, failed, last, purges, refused] =
        [&load.done, &load.failed, &load.last, &load.purges, &load.refused].map(|of| of.load(Ordering::Relaxed));
    println!(
        "{kind:?}: {done} requests in {:.1} s, {} takeovers, {purges} purges, {last} answers were the last of a connection that was to be kept, {refused} streams were not begun, {failed} failed",
        begun.elapsed().as_secs_f64(),
        options.times
    );
    if failed > 0 { Err(Failed(format!("{failed} requests failed"))) } else { Ok(()) }
}

/// Replaces the edge each time a part of the requests is done, and drains it before the last ones.
fn replace(mut edge: Edge, setup: &Setup, options: &Options, load: &Load) -> Result<(), Failed> {
    for number in 1..=options.times {
        load.wait(options.requests * number / (options.times + 1))?;
        let next = Edge::start(setup)?;
        if next.addresses != edge.addresses {
            return Err(Failed(format!("the new process serves on {:?}, not on {:?}", next.addresses, edge.addresses)));
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
    purges: AtomicU64,
    /// Streams that were not begun, because of a goodbye.
    refused: AtomicU64,
    /// Answers after which a client that keeps its connection had to open another one.
    last: AtomicU64,
    /// Nobody opens a connection any more: the edge is about to end.
    drains: AtomicBool,
    stop: AtomicBool,
}

impl Load {
    /// Whether a client goes on; `connected`: it needs no new connection for that.
    fn goes_on(&self, connected: bool) -> bool {
        !self.stop.load(Ordering::Relaxed) && (connected || !self.drains.load(Ordering::Relaxed))
    }

    fn fails(&self, what: &str, why: &str) {
        if self.failed.fetch_add(1, Ordering::Relaxed) < SHOWN {
            println!("{what} failed: {why}");
        }
    }

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
