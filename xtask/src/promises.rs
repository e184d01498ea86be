//! `cargo xtask promises`: the numbers that the project promises, measured on this machine, each beside its bound. Nothing here
//! fails for being slow.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::FilePath;
use clap::Args;
use client::{Upload, UploadMeta};
use http::Request;
use http_body_util::BodyExt;
use net::{Body, ClientLimits, HttpClient};

use crate::disk_hits;
use crate::herd;
use crate::many_entries;
use crate::replay::Replay;
use crate::shell::{Failed, in_a_namespace, install, release_binary, target};
use crate::up::Up;

const MIB: u64 = 1 << 20;
/// How far the hit ratios of an edge and of the simulator may be apart, in points.
const REPLAY_POINTS: f64 = 0.2;

/// One line of the table.
struct Row {
    what: String,
    measured: String,
    bound: String,
    met: bool,
}

/// What a trace is replayed through.
#[derive(Args)]
pub(crate) struct ReplayOptions {
    /// Only the rows about a trace: replay it through an edge, and through the simulator
    #[arg(long, value_name = "TRACE")]
    replay: Option<PathBuf>,
    /// Sizes of the memory tier for it, in bytes
    #[arg(long, value_name = "BYTES,…", value_delimiter = ',', default_value = "27926154,55852309")]
    sizes: Vec<u64>,
    /// Eviction policies for it
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_value = "auto")]
    policies: Vec<String>,
    /// The objective for it
    #[arg(long, value_name = "requests|bytes", default_value = "requests")]
    objective: String,
    /// The program to measure for it; without it, the release build
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

pub(crate) fn run(quick: bool, herd: bool, replay: &ReplayOptions) -> Result<(), Failed> {
    if let Some(trace) = &replay.replay {
        return replays(trace, replay);
    }
    let binary = release_binary()?;
    if herd {
        let row = tokio::runtime::Runtime::new()?.block_on(one_fetch(&binary, if quick { 2_000 } else { 10_000 }))?;
        println!("{}: {} (bound: {})", row.what, row.measured, row.bound);
        return Ok(());
    }
    install(&["b3sum"])?;
    let folder = tempfile::tempdir_in(target("bench")?)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let mut rows = many_files(&binary, folder.path(), if quick { 2_000 } else { 10_000 })?;
    rows.push(runtime.block_on(small_updates(&binary, folder.path(), if quick { 200 } else { 1_000 }))?);
    rows.push(upload_ratio(
        &binary,
        folder.path(),
        &runtime,
        if quick { 256 * MIB } else { 1_024 * MIB },
        if quick { 1 } else { 3 },
    )?);
    rows.push(runtime.block_on(memory(&binary, folder.path(), if quick { 512 * MIB } else { 5 * 1_024 * MIB }))?);
    rows.push(runtime.block_on(one_fetch(&binary, if quick { 2_000 } else { 10_000 }))?);
    let mut table = String::from("| what | measured | bound | |\n| --- | --- | --- | --- |\n");
    for row in rows {
        let mark = if row.met { "met" } else { "MISSED" };
        table.push_str(&format!("| {} | {} | {} | {mark} |\n", row.what, row.measured, row.bound));
    }
    std::fs::write(target("bench")?.join("promises.md"), &table)?;
    println!("{table}");
    Ok(())
}

/// Many entries on disk.
pub(crate) fn entries(options: &ReplayOptions, entries: u64) -> Result<(), Failed> {
    let binary = options.binary.clone().map_or_else(release_binary, Ok)?;
    let folder = tempfile::tempdir_in(target("bench")?)?;
    let starts = tokio::runtime::Runtime::new()?.block_on(many_entries::run(&binary, folder.path(), entries))?;
    many_entries::print(&starts);
    Ok(())
}

/// Large objects on disk, beside nginx.
pub(crate) fn shelf(options: &ReplayOptions) -> Result<(), Failed> {
    install(&["nginx-light", "curl"])?;
    let binary = options.binary.clone().map_or_else(release_binary, Ok)?;
    in_a_namespace()?;
    let folder = tempfile::tempdir_in(target("bench")?)?;
    let costs = tokio::runtime::Runtime::new()?.block_on(disk_hits::run(&binary, folder.path()))?;
    println!("| hits of 100 MiB on disk | CPU seconds per GB |\n| --- | --- |");
    println!("| edge | {:.3} |\n| nginx, sendfile | {:.3} |", costs.edge, costs.nginx);
    println!("| ratio | {:.2} |", costs.edge / costs.nginx);
    Ok(())
}

/// A trace through edges and through the simulator.
fn replays(trace: &Path, options: &ReplayOptions) -> Result<(), Failed> {
    let binary = options.binary.clone().map_or_else(release_binary, Ok)?;
    let runtime = tokio::runtime::Runtime::new()?;
    println!("| policy | memory | entry beside its body | edge: requests, bytes | simulator | difference, points | |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for policy in &options.policies {
        for memory_bytes in &options.sizes {
            let replay = Replay {
                binary: binary.clone(),
                trace: trace.to_owned(),
                memory_bytes: *memory_bytes,
                eviction: policy.clone(),
                objective: options.objective.clone(),
            };
            let (edge, simulated, overhead_bytes) = runtime.block_on(replay.run())?;
            let (requests, bytes) =
                (100.0 * (edge.requests - simulated.requests), 100.0 * (edge.bytes - simulated.bytes));
            let mark = if requests.abs() <= REPLAY_POINTS && bytes.abs() <= REPLAY_POINTS { "met" } else { "MISSED" };
            println!(
                "| {policy}, {} | {memory_bytes} | {overhead_bytes} B | {:.4}, {:.4} | {:.4}, {:.4} | {requests:+.2}, \
                 {bytes:+.2} | {mark} |",
                options.objective, edge.requests, edge.bytes, simulated.requests, simulated.bytes
            );
        }
    }
    Ok(())
}

/// Start time, and `sync` of unchanged files, with many files in the catalog.
fn many_files(binary: &Path, folder: &Path, files: usize) -> Result<Vec<Row>, Failed> {
    let (site, data) = (folder.join("many"), folder.join("many-data"));
    std::fs::create_dir_all(&site)?;
    for n in 0..files {
        std::fs::write(site.join(format!("{n}.txt")), format!("file {n}"))?;
    }
    let site = site.display().to_string();
    let first = Up::start(binary, &data, &[&site])?;
    println!("first publication of {files} files: ready after {:.1} s", first.took.as_secs_f64());
    let begun = Instant::now();
    let output = Command::new(binary).args(["sync", &site, "--data-dir"]).arg(&data).output()?;
    let synced = begun.elapsed();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() || !said.contains(&format!("{files} unchanged")) {
        return Err(Failed(format!("sync said: {said}")));
    }
    drop(first);
    let mut starts = Vec::new();
    for _ in 0..3 {
        starts.push(Up::start(binary, &data, &[])?.took);
    }
    starts.sort();
    let start = starts.get(1).copied().unwrap_or_default();
    std::fs::remove_dir_all(&data)?;
    Ok(vec![
        Row {
            what: format!("`up` accepts requests, {files} files in the catalog (after kill -9)"),
            measured: format!("{:.2} s", start.as_secs_f64()),
            bound: "1 s".to_owned(),
            met: start <= Duration::from_secs(1),
        },
        Row {
            what: format!("`sync` of {files} unchanged files"),
            measured: format!("{:.2} s", synced.as_secs_f64()),
            bound: "2 s".to_owned(),
            met: synced <= Duration::from_secs(2),
        },
    ])
}

fn path(text: &str) -> Result<Upload, Failed> {
    Ok(Upload::Path("files".parse()?, text.parse::<FilePath>()?))
}

/// `put --wait` over one connection, and what every edge serves after each.
async fn small_updates(binary: &Path, folder: &Path, rounds: usize) -> Result<Row, Failed> {
    let up = Up::start(binary, &folder.join("small"), &[])?;
    let (client, http) = (up.client()?, HttpClient::new(ClientLimits::default()));
    let meta = UploadMeta { wait: true, ..UploadMeta::default() };
    let (mut times, mut old) = (Vec::new(), 0);
    for round in 0..rounds {
        let body = format!("update {round}");
        let begun = Instant::now();
        let (_, doc) = client.upload(&path("hot.txt")?, &meta, Body::full(body.clone())).await?;
        times.push(begun.elapsed());
        if doc.receipts.len() != up.edges().len() {
            return Err(Failed(format!("{} receipts", doc.receipts.len())));
        }
        for edge in up.edges() {
            let response = http.send(Request::get(format!("{edge}/hot.txt")).body(Body::empty())?).await?;
            let served = net::read_to_end(response.into_body(), 1_000).await?;
            old += usize::from(served != body.as_bytes());
        }
    }
    times.sort();
    let at = |part: f64| times.get(((times.len() - 1) as f64 * part) as usize).copied().unwrap_or_default();
    let p99 = at(0.99);
    Ok(Row {
        what: format!("`put --wait`, {rounds} updates, three edges"),
        measured: format!("p50 {:.1?}, p99 {p99:.1?}, max {:.1?}; old bytes served: {old}", at(0.5), at(1.0)),
        bound: "p99 25 ms; 0".to_owned(),
        met: p99 <= Duration::from_millis(25) && old == 0,
    })
}

/// The time of an upload through `put` as a multiple of `cp`, `b3sum` and `sync` of the same file.
fn upload_ratio(
    binary: &Path,
    folder: &Path,
    runtime: &tokio::runtime::Runtime,
    bytes: u64,
    rounds: usize,
) -> Result<Row, Failed> {
    let file = folder.join("large.bin");
    let mut random = fastrand::Rng::with_seed(1);
    let mut piece = vec![0; MIB as usize];
    let mut ratios = Vec::new();
    let up = Up::start(binary, &folder.join("upload"), &[])?;
    for round in 0..rounds {
        let mut out = std::fs::File::create(&file)?;
        for _ in 0..bytes / MIB {
            random.fill(&mut piece);
            std::io::Write::write_all(&mut out, &piece)?;
        }
        out.sync_all()?;
        let (name, copy) = (file.display().to_string(), folder.join("copy.bin"));
        let script = format!("cp '{name}' '{0}' && b3sum '{0}' >/dev/null && sync '{0}'", copy.display());
        let begun = Instant::now();
        let copied = Command::new("sh").args(["-c", &script]).status()?.success();
        let baseline = begun.elapsed();
        std::fs::remove_file(&copy)?;
        let begun = Instant::now();
        let put = Command::new(binary)
            .args(["put", &name, "large.bin", "--quiet", "--data-dir"])
            .arg(folder.join("upload"))
            .output()?;
        let upload = begun.elapsed();
        if !copied || !put.status.success() {
            return Err(Failed(format!("the upload failed: {}", String::from_utf8_lossy(&put.stderr))));
        }
        println!("round {round}: cp + b3sum + sync {baseline:.2?}, put {upload:.2?}");
        ratios.push(upload.as_secs_f64() / baseline.as_secs_f64());
    }
    let doc = runtime
        .block_on(async { up.client()?.file(&"files".parse()?, &"large.bin".parse()?).await.map_err(Failed::from) })?;
    let sum = Command::new("b3sum").arg(&file).output()?;
    if !String::from_utf8_lossy(&sum.stdout).starts_with(&doc.digest.to_string()) {
        return Err(Failed("b3sum prints another digest than the API".to_owned()));
    }
    drop(up);
    std::fs::remove_dir_all(folder.join("upload"))?;
    std::fs::remove_file(&file)?;
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios.get(ratios.len() / 2).copied().unwrap_or_default();
    Ok(Row {
        what: format!("`put` of {} MiB against cp + b3sum + sync", bytes / MIB),
        measured: format!("{ratio:.2} ×"),
        bound: "2 ×".to_owned(),
        met: ratio <= 2.0,
    })
}

/// How much the process grows while a large file goes up and comes down through an edge.
async fn memory(binary: &Path, folder: &Path, bytes: u64) -> Result<Row, Failed> {
    let tier = 64 * MIB;
    let up = Arc::new(Up::start(binary, &folder.join("memory"), &["--memory", "64MiB"])?);
    let before = up.resident_bytes();
    let (peak, stop) = (Arc::new(AtomicU64::new(before)), Arc::new(AtomicBool::new(false)));
    let watcher = {
        let (up, peak, stop) = (Arc::clone(&up), Arc::clone(&peak), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                peak.fetch_max(up.resident_bytes(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        })
    };
    let begun = Instant::now();
    let doc = transfer(&up, bytes).await?;
    let took = begun.elapsed();
    stop.store(true, Ordering::Relaxed);
    let _ = watcher.join();
    let grown = peak.load(Ordering::Relaxed).saturating_sub(before);
    // One edge was read through: one memory tier was filled.
    let beyond = grown.saturating_sub(tier);
    Ok(Row {
        what: format!("memory while {} MiB go up and come down through an edge ({took:.1?})", doc / MIB),
        measured: format!(
            "{} MiB at start, {} MiB more at the peak, {} MiB beyond the tier",
            before / MIB,
            grown / MIB,
            beyond / MIB
        ),
        bound: "64 MiB beyond the tier".to_owned(),
        met: beyond <= 64 * MIB,
    })
}

/// Uploads and downloads a body of `bytes` that is made as it goes; answers how many bytes came back, proved equal.
async fn transfer(up: &Up, bytes: u64) -> Result<u64, Failed> {
    let pieces = bytes / MIB;
    let make = |at: u64| {
        let mut piece = vec![0; MIB as usize];
        fastrand::Rng::with_seed(at).fill(&mut piece);
        bytes::Bytes::from(piece)
    };
    let stream = futures_util::stream::iter((0..pieces).map(move |at| Ok(make(at))));
    let meta = UploadMeta { size: Some(bytes), ..UploadMeta::default() };
    let (_, doc) = up.client()?.upload(&path("huge.bin")?, &meta, Body::stream(stream)).await?;
    let edge = up.edges().into_iter().next().ok_or_else(|| Failed("no edge".to_owned()))?;
    let response = HttpClient::new(ClientLimits::default())
        .send(Request::get(format!("{edge}/huge.bin")).body(Body::empty())?)
        .await?;
    let (length, digest) = drain(response.into_body()).await?;
    if digest != doc.digest.to_string() {
        return Err(Failed(format!("{digest} came back for {}", doc.digest)));
    }
    Ok(length)
}

/// Many clients for one cold object.
async fn one_fetch(binary: &Path, clients: usize) -> Result<Row, Failed> {
    let herd = herd::run(binary, clients).await?;
    let (first, last) = (herd.first.as_secs_f64(), herd.last.as_secs_f64());
    Ok(Row {
        what: format!("{} simultaneous clients for one cold object that takes its origin 1 s", herd.clients),
        measured: format!(
            "{} origin requests; last byte of the first client after {first:.2} s, of the last after {last:.2} s: {:.2} ×",
            herd.origin_requests,
            herd.ratio()
        ),
        bound: "1 origin request; 1.2 ×".to_owned(),
        met: herd.origin_requests == 1 && herd.ratio() <= 1.2,
    })
}

/// The length and the BLAKE3 digest of a body that is not kept.
async fn drain(mut body: Body) -> Result<(u64, String), Failed> {
    let (mut length, mut hasher) = (0, blake3::Hasher::new());
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|error| Failed(error.to_string()))?.into_data() {
            length += data.len() as u64;
            hasher.update(&data);
        }
    }
    Ok((length, hasher.finalize().to_hex().to_string()))
}
