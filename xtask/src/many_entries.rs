//! The bench rows about many entries on disk: what each costs in memory, and how long a start takes.
//!
//! The files are made by the tier's own writer; an edge that is started on their folder does not know their keys, but indexes
//! them like its own. Among them is one object that it has brought to disk itself: that is the first hit.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use shelf::PolicyChoice;
use shelf::disk::{Disk, DiskConfig, FolderConfig, KeyHash, New, STAMP_BYTES};

use crate::shell::Failed;
use crate::torture::edge::{Edge, Log, Setup};
use crate::torture::reader::Connection;
use crate::torture::world::{World, now_ms};

const DISK: &str = "64GiB";
const LIMIT_BYTES: u64 = 64 << 30;
/// Longest wait for anything, in milliseconds.
const LIMIT_MS: u64 = 300_000;
const WRITERS: u64 = 2;
/// The part of the entries that the old snapshot does not have: one in so many.
const LATE_PART: u64 = 10;

/// What a start took.
pub(crate) struct Start {
    pub(crate) first_hit: Duration,
    pub(crate) all: Duration,
    pub(crate) entries: u64,
    pub(crate) index_bytes: u64,
    pub(crate) resident_bytes: u64,
}

/// Without entries, then with so many: after an orderly end, after a kill with a snapshot that lacks the last tenth, and after
/// a kill with none.
pub(crate) async fn run(binary: &Path, folder: &Path, entries: u64) -> Result<[(&'static str, Start); 4], Failed> {
    let world = World::start(&[2_000]).await?;
    let setup = Setup {
        binary: binary.to_owned(),
        folder: folder.join("disk"),
        disk: DISK,
        origin: world.origin,
        eviction: "auto",
    };
    let log = Log::default();
    let edge = setup.start(&log)?;
    let begun = Instant::now();
    while edge.metric("littoral_edge_disk_entries{", "").await? == 0 {
        Connection::open(edge.address).await?.ask("GET", "/0", "").await?;
        within_limit(begun)?;
    }
    edge.stop()?;
    let edge = setup.start(&log)?;
    let empty = watch(&edge).await?;
    edge.stop()?;
    let tier = setup.files();
    let (index, old) = (tier.join("index"), folder.join("old-index"));
    let kept = old.clone();
    let filled = tokio::task::spawn_blocking(move || {
        let most = entries - entries / LATE_PART;
        fill(&tier, 0..most)?;
        std::fs::copy(tier.join("index"), kept)?;
        fill(&tier, most..entries)
    });
    filled.await.map_err(|error| Failed(error.to_string()))??;
    // A start is measured, and not how long the file system takes for a million files at once.
    rustix::fs::sync();
    let edge = setup.start(&log)?;
    let warm = watch(&edge).await?;
    edge.kill()?;
    std::fs::rename(&old, &index)?;
    let edge = setup.start(&log)?;
    let late = watch(&edge).await?;
    edge.kill()?;
    std::fs::remove_file(&index)?;
    let edge = setup.start(&log)?;
    let cold = watch(&edge).await?;
    edge.kill()?;
    Ok([
        ("no entries", empty),
        ("with a snapshot", warm),
        ("kill -9, a snapshot without the last tenth", late),
        ("kill -9, no snapshot", cold),
    ])
}

async fn watch(edge: &Edge) -> Result<Start, Failed> {
    while !Connection::open(edge.address).await?.ask("GET", "/0", "").await?.is_hit() {
        within_limit(edge.begun)?;
    }
    let first_hit = edge.begun.elapsed();
    while edge.metric("littoral_edge_disk_scanned_ratio", "").await? < 1 {
        within_limit(edge.begun)?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(Start {
        first_hit,
        all: edge.begun.elapsed(),
        entries: edge.metric("littoral_edge_disk_entries{", "").await?,
        index_bytes: edge.metric("littoral_edge_disk_index_bytes{", "").await?,
        resident_bytes: edge.resident_bytes(),
    })
}

fn within_limit(begun: Instant) -> Result<(), Failed> {
    let late = begun.elapsed() > Duration::from_millis(LIMIT_MS);
    if late { Err(Failed(format!("not within {LIMIT_MS} ms"))) } else { Ok(()) }
}

/// Writes entries, and ends as a tier that is closed does.
fn fill(tier: &Path, numbers: Range<u64>) -> Result<(), Failed> {
    let disk = Disk::open(DiskConfig {
        folders: vec![FolderConfig { path: tier.to_owned(), limit_bytes: LIMIT_BYTES }],
        choice: PolicyChoice::default(),
        clock: Arc::new(now_ms),
        faults: Arc::default(),
    })?;
    let write = |writer: u64| {
        let mut random = fastrand::Rng::with_seed(numbers.start + writer);
        let body = [Bytes::from_static(&[7; 1_000])];
        for number in (numbers.start + writer..numbers.end).step_by(WRITERS as usize) {
            let (key_hash, key) = (KeyHash(random.u128(..)), Bytes::from(format!("bench\0{number}")));
            let new = New { key_hash, key, meta: Bytes::new(), stamp: [0; STAMP_BYTES], expires_s: None };
            disk.write(&new, &body)?;
        }
        Ok::<(), Failed>(())
    };
    let ended = || Err(Failed("a writer ended".to_owned()));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let write = &write;
                scope.spawn(move || write(writer))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| ended()))
    })?;
    disk.close();
    Ok(())
}

/// Rows of a table.
pub(crate) fn print(starts: &[(&'static str, Start)]) {
    println!("| start | first hit | all known | entries | index | resident |\n| --- | --- | --- | --- | --- | --- |");
    for (what, start) in starts {
        println!(
            "| {what} | {:.2} s | {:.2} s | {} | {} B | {} B |",
            start.first_hit.as_secs_f64(),
            start.all.as_secs_f64(),
            start.entries,
            start.index_bytes,
            start.resident_bytes
        );
    }
}
