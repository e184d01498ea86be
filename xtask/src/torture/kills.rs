//! kill -9 of an edge under load, and what it serves when it is started again on the same folder.
//!
//! A cycle: start, and ask until the first hit; read every object and compare with what was whole on disk when it was killed;
//! load for a moment, with readers, changes and purges; kill. A purge that was answered before a kill stays in force after it:
//! that is what the readers' least version checks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;

use crate::shell::Failed;
use crate::torture::damage::Entry;
use crate::torture::edge::{Log, Setup, files};
use crate::torture::reader::{Connection, Tally};
use crate::torture::world::World;

const SMALL_OBJECTS: usize = 60;
const LARGE_OBJECTS: usize = 2;
const READERS: usize = 3;
/// Load before a kill, in milliseconds: at least and at most.
const LEAST_LOAD_MS: u64 = 10;
const MOST_LOAD_MS: u64 = 120;
/// Longest wait for a first hit, in milliseconds.
const FIRST_HIT_MS: u64 = 1_000;
/// Of what was whole on disk, the part that is to be a hit after a kill.
const KEPT: f64 = 0.99;

/// What came out.
#[derive(Default, Serialize)]
pub(crate) struct Outcome {
    pub(crate) kills: u64,
    /// Objects that were whole on disk at a kill, over all kills, and how many of them were hits afterwards.
    pub(crate) whole: u64,
    pub(crate) hits: u64,
    pub(crate) purges: u64,
    /// From the start of the process, in milliseconds.
    pub(crate) first_hit_median_ms: u64,
    pub(crate) first_hit_most_ms: u64,
    pub(crate) requests: u64,
    pub(crate) wrong: u64,
    /// Failed answers after a start; what was in flight at a kill is no failure.
    pub(crate) failed: u64,
    /// What the edge has named as damaged in its log.
    pub(crate) damaged: u64,
    pub(crate) told: Vec<String>,
}

impl Outcome {
    pub(crate) fn kept(&self) -> f64 {
        if self.whole == 0 { 0.0 } else { self.hits as f64 / self.whole as f64 }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.wrong == 0
            && self.failed == 0
            && self.kills > 0
            && self.kept() >= KEPT
            && self.first_hit_most_ms < FIRST_HIT_MS
    }
}

/// The sizes of the objects of such a run, in bytes.
pub(crate) fn sizes(random: &mut fastrand::Rng) -> Vec<u64> {
    let mut sizes: Vec<u64> = (0..SMALL_OBJECTS).map(|_| random.u64(1_000..16_000)).collect();
    sizes.extend((0..LARGE_OBJECTS).map(|_| random.u64(1_100_000..1_600_000)));
    sizes
}

/// Runs for so long.
pub(crate) async fn run(setup: Setup, world: World, time: Duration, seed: u64) -> Result<Outcome, Failed> {
    let mut random = fastrand::Rng::with_seed(seed);
    let (world, log) = (Arc::new(world), Log::default());
    let (tally, in_flight) = (Arc::new(Tally::default()), Arc::new(Tally::default()));
    let mut outcome = Outcome::default();
    let (mut first_hits, until) = (Vec::new(), Instant::now() + time);
    let mut whole = BTreeSet::new();
    while outcome.kills == 0 || Instant::now() < until {
        let edge = setup.start(&log)?;
        if !whole.is_empty() {
            let first = first_hit(&world, &tally, edge.address, &whole, edge.begun).await?;
            first_hits.push(first);
        }
        let mut connection = Connection::open(edge.address).await?;
        for (number, object) in world.objects.iter().enumerate() {
            let hit = tally.read(&mut connection, object, None).await?;
            if whole.contains(&number) {
                outcome.whole += 1;
                outcome.hits += u64::from(hit);
            }
        }
        let mut jobs = JoinSet::new();
        for _ in 0..READERS {
            jobs.spawn(load(Arc::clone(&world), Arc::clone(&in_flight), edge.address, random.u64(..)));
        }
        jobs.spawn(change(Arc::clone(&world), edge.address, random.u64(..)));
        tokio::time::sleep(Duration::from_millis(random.u64(LEAST_LOAD_MS..MOST_LOAD_MS))).await;
        edge.kill()?;
        outcome.kills += 1;
        while let Some(job) = jobs.join_next().await {
            outcome.purges += job.map_err(|error| Failed(error.to_string()))?;
        }
        whole = whole_on_disk(&world, &setup);
    }
    first_hits.sort_unstable();
    outcome.first_hit_median_ms = first_hits.get(first_hits.len() / 2).copied().unwrap_or(0);
    outcome.first_hit_most_ms = first_hits.last().copied().unwrap_or(0);
    let both = [&tally, &in_flight];
    outcome.requests = both.iter().map(|tally| tally.requests.load(Ordering::Relaxed)).sum();
    outcome.wrong = both.iter().map(|tally| tally.wrong.load(Ordering::Relaxed)).sum();
    outcome.failed = tally.failed.load(Ordering::Relaxed);
    outcome.damaged = log.lines();
    outcome.told = both.iter().flat_map(|tally| tally.told()).collect();
    Ok(outcome)
}

/// Milliseconds from the start of the process to the first hit among what should be one.
async fn first_hit(
    world: &World,
    tally: &Tally,
    address: SocketAddr,
    whole: &BTreeSet<usize>,
    begun: Instant,
) -> Result<u64, Failed> {
    let mut connection = Connection::open(address).await?;
    for object in whole.iter().filter_map(|number| world.objects.get(*number)) {
        if tally.read(&mut connection, object, None).await? {
            break;
        }
    }
    Ok(begun.elapsed().as_millis() as u64)
}

/// Reads until the edge is gone.
async fn load(world: Arc<World>, tally: Arc<Tally>, address: SocketAddr, seed: u64) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let Ok(mut connection) = Connection::open(address).await else { return 0 };
    while let Some(object) = random.choice(world.objects.iter()) {
        let range = random.bool().then(|| {
            let first = random.u64(0..object.size);
            (first, random.u64(first..object.size))
        });
        if tally.read(&mut connection, object, range).await.is_err() {
            break;
        }
    }
    0
}

/// Changes and purges until the edge is gone; says how many purges were answered.
async fn change(world: Arc<World>, address: SocketAddr, seed: u64) -> u64 {
    let (mut random, mut purges) = (fastrand::Rng::with_seed(seed), 0);
    let Ok(mut connection) = Connection::open(address).await else { return 0 };
    while let Some(object) = random.choice(world.objects.iter()) {
        let version = object.change();
        match connection.ask("PURGE", &object.path, "").await {
            Ok(answer) if answer.status == 200 => object.purged(version),
            _ => break,
        }
        purges += 1;
        tokio::time::sleep(Duration::from_millis(random.u64(1..20))).await;
    }
    purges
}

/// The objects of which the newest file is whole, and was stored since they were last purged.
fn whole_on_disk(world: &World, setup: &Setup) -> BTreeSet<usize> {
    let mut newest: BTreeMap<usize, Entry> = BTreeMap::new();
    for entry in files(&setup.files()).iter().filter_map(|path| Entry::read(path)) {
        if newest.get(&entry.object).is_none_or(|known| known.stored_ms < entry.stored_ms) {
            newest.insert(entry.object, entry);
        }
    }
    let since =
        |entry: &Entry| world.objects.get(entry.object).is_some_and(|object| entry.stored_ms > object.purged_ms());
    newest.into_values().filter(|entry| entry.is_complete() && since(entry)).map(|entry| entry.object).collect()
}
