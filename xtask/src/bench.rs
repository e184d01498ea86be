//! `cargo xtask bench`: the edge beside the caches that people run, on this machine. Nothing here fails for being slow; what
//! does not start, answers wrongly or misses where it should hit does.
//!
//! Servers run on the first core (or two), what asks them and their origin on the next; see `rounds.rs` for what is measured.

mod chart;
mod docs;
mod fetch;
mod load;
mod machine;
mod origin;
pub(crate) mod own;
mod paced;
mod peers;
mod rounds;
mod rows;
mod server;
mod stalls;
mod stats;
mod table;
mod traffic_server;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use clap::builder::PossibleValuesParser;

use self::load::Files;
use self::machine::Machine;
use self::origin::Origin;
pub(crate) use self::origin::serve as origin;
use self::own::HOST;
pub(crate) use self::own::{Options as LoadOptions, run as load};
use self::peers::Peer;
use self::rounds::{World, measure};
use self::rows::Row;
use crate::shell::{Failed, in_a_namespace, install, release_binary, root, target};

/// Descriptors that a process may have, if the machine allows as many.
const DESCRIPTORS: usize = 65_536;
/// A file system in memory.
const MEMORY_FOLDER: &str = "/dev/shm";
/// Rounds and seconds of each load in a round; fewer if it is to be quick.
const ROUNDS: usize = 5;
const SECONDS: u64 = 4;
const QUICK_ROUNDS: usize = 3;
const QUICK_SECONDS: u64 = 1;

/// Whether somebody wants us to stop.
static STOP: AtomicBool = AtomicBool::new(false);

#[derive(Args)]
pub(crate) struct Options {
    /// Fewer and shorter rounds
    #[arg(long)]
    quick: bool,
    /// Only these rows
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = row_names())]
    rows: Vec<String>,
    /// Only these servers
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = peer_names())]
    peers: Vec<String>,
    /// Rounds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    rounds: Option<u64>,
    /// Seconds of each load in a round
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: Option<u64>,
    /// The edge to measure; without it, the release build
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Measure in this network namespace, with its settings of TCP, instead of in one of its own with CUBIC or Reno
    #[arg(long)]
    here: bool,
    /// Write the report and the chart to docs/bench.md and docs/bench.svg as well
    #[arg(long)]
    write_docs: bool,
}

fn row_names() -> PossibleValuesParser {
    PossibleValuesParser::new(Row::ALL.map(|row| row.name))
}

fn peer_names() -> PossibleValuesParser {
    PossibleValuesParser::new(Peer::ALL.map(Peer::name))
}

/// The cores of servers and of what asks them.
pub(crate) struct Cores {
    pub(crate) server: String,
    pub(crate) load: String,
}

impl Cores {
    /// For servers with so many workers. Where there are no cores left for the load, it shares theirs.
    fn of(workers: usize) -> Result<Self, Failed> {
        let cores = std::thread::available_parallelism()?.get();
        let (server, load) = match (workers, cores) {
            (_, 1) => return Err(Failed("two cores are needed: one for the server, one for what asks it".to_owned())),
            (1, _) => ("0", "1"),
            (_, 2 | 3) => ("0,1", "0,1"),
            _ => ("0,1", "2,3"),
        };
        Ok(Self { server: server.to_owned(), load: load.to_owned() })
    }
}

/// An error once somebody wants us to stop.
pub(crate) fn stopped() -> Result<(), Failed> {
    if STOP.load(Ordering::Relaxed) { Err(Failed("stopped".to_owned())) } else { Ok(()) }
}

/// How many descriptors a process can have here.
pub(crate) fn descriptors() -> Result<usize, Failed> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
    let hard = line.split_whitespace().nth(1).and_then(|hard| hard.parse().ok());
    Ok(hard.unwrap_or(DESCRIPTORS).min(DESCRIPTORS))
}

pub(crate) fn run(options: &Options) -> Result<(), Failed> {
    let (rows, peers) = (chosen_rows(options), chosen_peers(options));
    let packages = peers.iter().filter_map(|peer| peer.package()).chain(["wrk", "nghttp2-client"]);
    install(&packages.collect::<Vec<_>>())?;
    let binary = options.binary.clone().map_or_else(release_binary, Ok)?;
    if !options.here {
        in_a_namespace()?;
    }
    let cannot = |error| Failed(format!("cannot measure {}: {error}", binary.display()));
    let binary = binary.canonicalize().map_err(cannot)?;
    let machine = Machine::here(&binary, options.binary.is_none(), &peers)?;
    stop_on_signals()?;
    let memory = Some(Path::new(MEMORY_FOLDER)).filter(|folder| folder.is_dir());
    let folder = tempfile::tempdir_in(memory.map_or_else(|| target("bench"), |folder| Ok(folder.to_owned()))?)?;
    // Servers that run as users of their own must come in.
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
    let (cert, key) = certificate(folder.path())?;
    let world = World {
        folder: folder.path().to_owned(),
        origin: Origin::start(&Cores::of(1)?.load)?,
        files: Files::write(folder.path(), &cert)?,
        key,
        binary,
        rounds: options.rounds.map_or(if options.quick { QUICK_ROUNDS } else { ROUNDS }, |rounds| rounds as usize),
        seconds: options.seconds.unwrap_or(if options.quick { QUICK_SECONDS } else { SECONDS }),
    };
    let (mut measured, mut failures) = (Vec::new(), Vec::new());
    for row in rows {
        println!("{}: {}", row.name, row.title);
        match measure(&world, row, &peers) {
            Ok(row) => measured.push(row),
            Err(Failed(why)) => {
                stopped()?;
                println!("{}: FAILED: {why}", row.name);
                failures.push((row.name.to_owned(), why));
            }
        }
    }
    let text = table::report(&measured, &failures, &machine);
    let chart = chart::svg(&measured, &machine.to_string());
    println!("{text}");
    let report = target("bench")?;
    std::fs::write(report.join("bench.md"), &text)?;
    std::fs::write(report.join("bench.svg"), &chart)?;
    println!("the report: {0}/bench.md, {0}/bench.svg", report.display());
    if options.write_docs && failures.is_empty() {
        let docs = root().join("docs");
        std::fs::write(docs.join("bench.md"), docs::page(&text)?)?;
        std::fs::write(docs.join("bench.svg"), &chart)?;
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(Failed(format!("rows failed: {}", failures.iter().map(|(row, _)| row.as_str()).collect::<Vec<_>>().join(", "))))
}

fn chosen_rows(options: &Options) -> Vec<Row> {
    let chosen = |row: &Row| options.rows.is_empty() || options.rows.iter().any(|name| name == row.name);
    Row::ALL.into_iter().filter(chosen).collect()
}

fn chosen_peers(options: &Options) -> Vec<Peer> {
    let chosen = |peer: &Peer| options.peers.is_empty() || options.peers.iter().any(|name| name == peer.name());
    Peer::ALL.into_iter().filter(chosen).collect()
}

/// Makes the certificate (ECDSA, P-256) that all servers use, and its key.
fn certificate(folder: &Path) -> Result<(PathBuf, PathBuf), Failed> {
    let made = rcgen::generate_simple_self_signed(vec![HOST.to_owned()])?;
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&cert, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    Ok((cert, key))
}

/// Remembers SIGINT and SIGTERM, so that whatever runs is stopped in order.
fn stop_on_signals() -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
                return;
            };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            STOP.store(true, Ordering::Relaxed);
            // Whoever asks twice means at once.
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            std::process::exit(130);
        });
    });
    Ok(())
}
