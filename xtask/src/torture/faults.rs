//! Damage to a live disk tier, while readers check everything that they get.
//!
//! The memory tier is a third of what is read, in one order, again and again, with LRU: so every body comes from disk. Passes:
//! most files are damaged, once each, while the readers go around. The edge names each file that it drops in its log, and
//! counts it in its metrics. A fault is *met* when the edge has named its file since; *not met* when its object was purged or
//! brought to disk again meanwhile, or the file is held open by the edge and was deleted. All others are *uncounted*: bugs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::shell::Failed;
use crate::torture::damage::{Entry, Kind, inflict};
use crate::torture::edge::{Edge, Log, Setup, files};
use crate::torture::reader::{Connection, Tally};
use crate::torture::world::World;

const SMALL_OBJECTS: usize = 1_600;
const LARGE_OBJECTS: usize = 8;
const READERS: usize = 4;
/// Of the files that are there, the percentage that a pass damages.
const DAMAGED_PERCENT: u32 = 85;
/// Of the faults in files that have a slice table, those that are sure to be in it.
const TABLE_PERCENT: u32 = 40;
/// Objects that are changed and purged in a pass.
const PURGES: usize = 20;
/// Passes between two restarts with a damaged index.
const PASSES_OF_A_LIFE: u64 = 4;
/// Rounds of readers in a pass: the first meets what is damaged meanwhile, the second brings back what was dropped.
const ROUNDS: usize = 2;
/// Longest wait for a scan to end, in milliseconds.
const SCAN_MS: u64 = 30_000;
const CORRUPT: &str = "littoral_edge_disk_corrupt_total";

/// What came out.
#[derive(Default, Serialize)]
pub(crate) struct Outcome {
    pub(crate) by_kind: BTreeMap<String, u64>,
    pub(crate) files_damaged: u64,
    pub(crate) met: u64,
    pub(crate) not_met: u64,
    pub(crate) uncounted: u64,
    /// What the edge has counted in its metrics.
    pub(crate) counted: u64,
    pub(crate) restarts: u64,
    pub(crate) requests: u64,
    pub(crate) read_bytes: u64,
    pub(crate) wrong: u64,
    pub(crate) failed: u64,
    pub(crate) told: Vec<String>,
}

impl Outcome {
    pub(crate) fn faults(&self) -> u64 {
        self.by_kind.values().sum()
    }

    pub(crate) fn is_good(&self) -> bool {
        self.wrong == 0 && self.failed == 0 && self.uncounted == 0 && self.counted >= self.met && self.met > 0
    }
}

/// A file that was damaged, and what the log had said of it before.
struct Fault {
    entry: Entry,
    kind: Kind,
    named_before: u64,
    at_ms: u64,
}

struct Run {
    setup: Setup,
    world: Arc<World>,
    tally: Arc<Tally>,
    log: Log,
    order: Arc<Vec<usize>>,
    random: fastrand::Rng,
    open: Vec<Fault>,
    outcome: Outcome,
    older_index: Option<Vec<u8>>,
}

/// The sizes of the objects of such a run, in bytes.
pub(crate) fn sizes(random: &mut fastrand::Rng) -> Vec<u64> {
    let small = (0..SMALL_OBJECTS).map(|_| 8_000 + u64::from(random.u16(..)) / 4);
    let mut sizes: Vec<u64> = small.collect();
    sizes.extend((0..LARGE_OBJECTS).map(|_| random.u64(1_200_000..3_000_000)));
    sizes
}

/// Runs for so long.
pub(crate) async fn run(setup: Setup, world: World, time: Duration, seed: u64) -> Result<Outcome, Failed> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut order: Vec<usize> = (0..world.objects.len()).collect();
    random.shuffle(&mut order);
    let mut run = Run {
        setup,
        world: Arc::new(world),
        tally: Arc::default(),
        log: Log::default(),
        order: Arc::new(order),
        random,
        open: Vec::new(),
        outcome: Outcome::default(),
        older_index: None,
    };
    let until = Instant::now() + time;
    let mut edge = run.setup.start(&run.log)?;
    run.rounds(&edge, 2).await?;
    let mut passes = 0;
    while passes == 0 || Instant::now() < until {
        run.pass(&edge).await?;
        passes += 1;
        if passes % PASSES_OF_A_LIFE == 0 {
            edge = run.restart(edge).await?;
        }
    }
    run.last(edge).await?;
    let Run { mut outcome, tally, .. } = run;
    (outcome.requests, outcome.read_bytes) =
        (tally.requests.load(Ordering::Relaxed), tally.bytes.load(Ordering::Relaxed));
    (outcome.wrong, outcome.failed) = (tally.wrong.load(Ordering::Relaxed), tally.failed.load(Ordering::Relaxed));
    outcome.told.extend(tally.told());
    Ok(outcome)
}

impl Run {
    /// Damages while readers go around and some objects change; then looks what was met.
    async fn pass(&mut self, edge: &Edge) -> Result<(), Failed> {
        let purged: Vec<usize> = (0..PURGES).filter_map(|_| self.random.choice(self.order.iter()).copied()).collect();
        let (tier, log, seed) = (self.setup.files(), self.log.clone(), self.random.u64(..));
        let busy: Vec<String> = self.open.iter().map(|fault| fault.entry.name.clone()).collect();
        let damage = tokio::task::spawn_blocking(move || damage(&tier, &log, &busy, seed));
        let purges = purge(Arc::clone(&self.world), edge.address, purged);
        let (damaged, purged, read) = tokio::join!(damage, purges, self.rounds(edge, ROUNDS));
        purged?;
        read?;
        let (faults, files) = damaged.map_err(|error| Failed(error.to_string()))?;
        for (kind, count) in faults {
            *self.outcome.by_kind.entry(kind.word().to_owned()).or_insert(0) += count;
        }
        self.outcome.files_damaged += files.len() as u64;
        self.open.extend(files);
        self.settle(false);
        Ok(())
    }

    /// Readers go around so many times.
    async fn rounds(&self, edge: &Edge, rounds: usize) -> Result<(), Failed> {
        let (next, end) = (Arc::new(AtomicUsize::new(0)), rounds * self.order.len());
        let mut readers = Vec::new();
        for reader in 0..READERS {
            let (next, order, world) = (Arc::clone(&next), Arc::clone(&self.order), Arc::clone(&self.world));
            let (tally, address) = (Arc::clone(&self.tally), edge.address);
            let mut random = fastrand::Rng::with_seed(reader as u64);
            readers.push(tokio::spawn(async move {
                let mut connection = Connection::open(address).await?;
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    let object = order.get(turn % order.len()).and_then(|number| world.objects.get(*number));
                    let Some(object) = object.filter(|_| turn < end) else { return Ok::<_, Failed>(()) };
                    tally.read(&mut connection, object, None).await?;
                    if random.u8(..) < 16 {
                        let first = random.u64(0..object.size);
                        let last = random.u64(first..object.size);
                        tally.read(&mut connection, object, Some((first, last))).await?;
                    }
                }
            }));
        }
        for reader in readers {
            reader.await.map_err(|error| Failed(error.to_string()))??;
        }
        Ok(())
    }

    /// Sorts what is damaged: met, not met, still open.
    fn settle(&mut self, last: bool) {
        let newest = newest_of(&self.setup.files());
        for fault in std::mem::take(&mut self.open) {
            let entry = &fault.entry;
            let again = newest
                .get(&entry.object)
                .is_some_and(|(stored_ms, name)| *stored_ms >= fault.at_ms && *name != entry.name);
            let changed = self.world.objects.get(entry.object).is_some_and(|object| object.purged_ms() >= fault.at_ms);
            if self.log.times(&entry.name) > fault.named_before {
                self.outcome.met += 1;
            } else if changed || again || (last && fault.kind == Kind::Deletion && entry.is_sliced()) {
                self.outcome.not_met += 1;
            } else if last {
                self.outcome.uncounted += 1;
                let there = entry.path.exists();
                self.tally.tell(format!(
                    "UNCOUNTED: {} of object {} ({}), {}; its file is {}there",
                    entry.name,
                    entry.object,
                    if entry.is_sliced() { "sliced" } else { "whole" },
                    fault.kind.word(),
                    if there { "" } else { "not " }
                ));
            } else {
                self.open.push(fault);
            }
        }
    }

    /// Ends the edge, damages its index, and starts it again.
    async fn restart(&mut self, edge: Edge) -> Result<Edge, Failed> {
        self.outcome.counted += edge.metric(CORRUPT, "").await?;
        edge.stop()?;
        self.outcome.restarts += 1;
        let index = self.setup.files().join("index");
        let (word, is_damage) = self.damage_index(&index)?;
        *self.outcome.by_kind.entry(word.to_owned()).or_insert(0) += 1;
        let edge = self.setup.start(&self.log)?;
        if is_damage {
            self.outcome.files_damaged += 1;
            // It is read while the edge serves, and before the scan is through.
            let counted = async || Ok(edge.metric(CORRUPT, "kind=\"index\"").await? == 1);
            until_scanned(&edge, counted).await?;
            if counted().await? {
                self.outcome.met += 1;
            } else {
                self.outcome.uncounted += 1;
                self.tally.tell(format!("UNCOUNTED: {word}"));
            }
        }
        self.rounds(&edge, 1).await?;
        Ok(edge)
    }

    fn damage_index(&mut self, index: &Path) -> Result<(&'static str, bool), Failed> {
        let mut bytes = std::fs::read(index)?;
        let now = bytes.clone();
        let at = self.random.usize(0..bytes.len());
        let (word, is_damage) = match self.random.u32(0..4) {
            0 => {
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << self.random.u32(0..8));
                ("index: a bit", true)
            }
            1 => {
                bytes.truncate(at);
                ("index: truncated", true)
            }
            2 => {
                bytes.iter_mut().skip(at).take(512).for_each(|byte| *byte ^= 1 + self.random.u8(0..255));
                ("index: a sector of garbage", true)
            }
            _ => {
                bytes = self.older_index.take().unwrap_or_default();
                if bytes.is_empty() { ("index: empty", true) } else { ("index: an older one", false) }
            }
        };
        self.older_index.get_or_insert(now);
        std::fs::write(index, bytes)?;
        Ok((word, is_damage))
    }

    /// Everything is read once more, by an edge that has nothing in memory and no index.
    async fn last(&mut self, edge: Edge) -> Result<(), Failed> {
        self.rounds(&edge, 2).await?;
        self.settle(false);
        self.outcome.counted += edge.metric(CORRUPT, "").await?;
        edge.stop()?;
        std::fs::remove_file(self.setup.files().join("index"))?;
        let edge = self.setup.start(&self.log)?;
        until_scanned(&edge, async || Ok(false)).await?;
        self.rounds(&edge, 2).await?;
        self.outcome.counted += edge.metric(CORRUPT, "").await?;
        edge.stop()?;
        self.settle(true);
        Ok(())
    }
}

/// Waits until an edge has scanned its disk, or it is enough before that.
async fn until_scanned(edge: &Edge, enough: impl AsyncFn() -> Result<bool, Failed>) -> Result<(), Failed> {
    let begun = Instant::now();
    while !enough().await? && edge.metric("littoral_edge_disk_scanned_ratio", "").await? < 1 {
        if begun.elapsed() > Duration::from_millis(SCAN_MS) {
            return Err(Failed("the scan does not end".to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Damages most files that are there, but for those whose damage is still open.
fn damage(tier: &Path, log: &Log, busy: &[String], seed: u64) -> (Vec<(Kind, u64)>, Vec<Fault>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut paths = files(tier);
    random.shuffle(&mut paths);
    let (mut counts, mut faults) = (BTreeMap::new(), Vec::new());
    let mut paths = paths.into_iter();
    while let Some(path) = paths.next() {
        let free = |path: &Path| {
            Entry::read(path).filter(|entry| !busy.contains(&entry.name) && entry.path.ends_with(&entry.name))
        };
        let Some(entry) = free(&path).filter(|_| random.u32(0..100) < DAMAGED_PERCENT) else { continue };
        let table = entry.is_sliced() && random.u32(0..100) < TABLE_PERCENT;
        let kinds = if table { &Kind::TABLES[..] } else { &Kind::ALL[..] };
        let kind = random.choice(kinds).copied().unwrap_or(Kind::Bit);
        let kind = if Kind::TABLES.contains(&kind) && !entry.is_sliced() { Kind::Bit } else { kind };
        // Only whole files change names: another object's file under the name of a sliced one that is held open is not met.
        let takes_two = matches!(kind, Kind::Swap | Kind::Rename);
        let other = if takes_two { paths.next().and_then(|path| free(&path)) } else { None };
        let named = |entry: &Entry| log.times(&entry.name);
        let before: Vec<u64> = std::iter::once(&entry).chain(&other).map(named).collect();
        let at_ms = crate::torture::world::now_ms();
        // What was dropped meanwhile cannot be damaged any more.
        let Ok(done) = inflict(kind, &entry, other.as_ref(), &mut random) else { continue };
        if !done.is_empty() {
            *counts.entry(kind).or_insert(0) += 1;
        }
        let named = done.into_iter().zip(before);
        faults.extend(named.map(|(entry, named_before)| Fault { entry, kind, named_before, at_ms }));
    }
    (counts.into_iter().collect(), faults)
}

/// The newest file of each object: when it was stored, and its name.
fn newest_of(tier: &Path) -> BTreeMap<usize, (u64, String)> {
    let mut newest = BTreeMap::new();
    for entry in files(tier).iter().filter_map(|path| Entry::read(path)) {
        let known = newest.entry(entry.object).or_insert((0, String::new()));
        if entry.stored_ms >= known.0 {
            *known = (entry.stored_ms, entry.name);
        }
    }
    newest
}

/// Changes objects and purges them, one after the other.
async fn purge(world: Arc<World>, address: std::net::SocketAddr, numbers: Vec<usize>) -> Result<(), Failed> {
    let mut connection = Connection::open(address).await?;
    for object in numbers.iter().filter_map(|number| world.objects.get(*number)) {
        let version = object.change();
        let answer = connection.ask("PURGE", &object.path, "").await?;
        if answer.status != 200 {
            return Err(Failed(format!("PURGE was answered with {}", answer.status)));
        }
        object.purged(version);
    }
    Ok(())
}
