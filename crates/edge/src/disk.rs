//! The edge's side of the disk tier: what is written there, when, and how it is found again.
//!
//! The tiers are inclusive: what is asked for a second time is written behind, by a thread of its own, and stays in memory
//! for as long as that has room; what memory evicts is not written. Everything on disk stands under a key that holds the
//! era, so that nothing of another catalog is found, and, for pages, the fingerprint of the zone's policy.
//!
//! Every look into files goes through [`Looks`].

mod looks;

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use shelf::disk::{Disk, EntryId, KeyHash, ReadError, Reader};
use shelf::{Curve, PolicyChoice};

pub(crate) use crate::disk::looks::Looks;

/// How long what the disk has refused is not offered again, in milliseconds.
const REFUSED_MS: u64 = 10_000;
/// How long the index is waited for, and how often it is looked whether it has been read, in milliseconds.
const RECALL_MS: u64 = 60_000;
const RECALL_LOOK_MS: u64 = 20;
/// Bytes of bodies that wait to be written; what would be more is not written.
const MAX_QUEUED_BYTES: u64 = 64 << 20;
/// Jobs that wait for the writing thread. What is only worth a try is left out beyond it; the rest is done by who asks.
const MAX_QUEUED_JOBS: usize = 8_192;
/// The same for what has to be done.
const MAX_SURE_JOBS: usize = 65_536;
/// Keys that the second-hit filter remembers in each of its two halves.
const SEEN_KEYS: usize = 400_000;
/// What a response takes on disk beside its body, in bytes, about: its head, and what is left of the last block.
const CURVE_OVERHEAD_BYTES: u64 = 3 << 10;
/// Bits of each half: with two bits for a key, one key in fifty is taken for another.
const SEEN_BITS: usize = 1 << 22;

/// The disk tier of an edge.
pub(crate) struct DiskTier {
    pub(crate) disk: Arc<Disk>,
    looks: Looks,
    /// What it would hit if it had another size, of what memory does not answer.
    pub(crate) curve: Curve,
    queue: Arc<Queue>,
    seen: Mutex<Seen>,
    /// Whether it has been said goodbye to: the folders are another process's then, and so are the snapshots.
    closed: AtomicBool,
}

impl DiskTier {
    /// Starts the writing thread, which ends when this is dropped and all is written.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn new(disk: Arc<Disk>, choice: PolicyChoice) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let (jobs, tier) = (Arc::clone(&queue), Arc::clone(&disk));
        std::thread::Builder::new().name("edge-disk".to_owned()).spawn(move || jobs.work(&tier))?;
        let limit_bytes = disk.stats().folders.iter().map(|folder| folder.limit_bytes).sum();
        let curve = Curve::new(limit_bytes, choice, CURVE_OVERHEAD_BYTES);
        let (looks, seen) = (Looks::new(Arc::clone(&disk)), Mutex::new(Seen::default()));
        Ok(Self { looks, curve, disk, queue, seen, closed: AtomicBool::new(false) })
    }

    /// See [`Looks::blocking`].
    pub(crate) async fn blocking<T, F>(&self, work: F) -> Option<T>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Disk>) -> T + Send + 'static,
    {
        self.looks.blocking(work).await
    }

    /// Waits until lists of what is stored are as whole as they can be: a start reads the index while it serves.
    pub(crate) async fn recalled(&self) {
        let mut looks = RECALL_MS / RECALL_LOOK_MS;
        while !self.disk.is_recalled() && looks > 0 {
            tokio::time::sleep(Duration::from_millis(RECALL_LOOK_MS)).await;
            looks -= 1;
        }
    }

    /// The way to the disk, for what outlives a request.
    pub(crate) fn looks(&self) -> Looks {
        self.looks.clone()
    }

    /// Writes later, if there is room in the line for so many bytes. False: it is not going to be written.
    pub(crate) fn try_later(&self, bytes: u64, job: impl FnOnce(&Arc<Disk>) + Send + 'static) -> bool {
        self.queue.push(bytes, Box::new(job)).is_ok()
    }

    /// Does something that has to be done: later, or at once where the line is full.
    pub(crate) fn surely(&self, job: impl FnOnce(&Arc<Disk>) + Send + 'static) {
        if let Err(job) = self.queue.push(0, Box::new(job)) {
            job(&self.disk);
        }
    }

    /// Whether a key was seen a short while ago; from now on it was.
    pub(crate) fn seen_before(&self, key: KeyHash) -> bool {
        lock(&self.seen).check(key)
    }

    /// The same, and changes nothing.
    pub(crate) fn was_seen(&self, key: KeyHash) -> bool {
        lock(&self.seen).has(key)
    }

    /// Waits until everything in the line is written, and says goodbye to the disk, once. What is there can still be read.
    /// Blocks.
    pub(crate) fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.queue.drain();
        self.disk.close();
    }
}

impl Drop for DiskTier {
    fn drop(&mut self) {
        self.queue.end();
    }
}

/// The hash that something stands under on disk.
pub(crate) fn key_hash(key: &[u8]) -> KeyHash {
    let mut bytes = [0; 16];
    blake3::Hasher::new().update(key).finalize_xof().fill(&mut bytes);
    KeyHash(u128::from_le_bytes(bytes))
}

type Job = Box<dyn FnOnce(&Arc<Disk>) + Send>;

/// What waits for the writing thread. The mutex covers the list only, not the work.
#[derive(Default)]
struct Queue {
    jobs: Mutex<Jobs>,
    changed: Condvar,
    bytes: AtomicU64,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<(u64, Job)>,
    working: bool,
    ended: bool,
}

impl Queue {
    fn push(&self, bytes: u64, job: Job) -> Result<(), Job> {
        let mut jobs = lock(&self.jobs);
        let most = if bytes > 0 { MAX_QUEUED_JOBS } else { MAX_SURE_JOBS };
        let full = jobs.waiting.len() >= most
            || (bytes > 0 && self.bytes.load(Ordering::Relaxed).saturating_add(bytes) > MAX_QUEUED_BYTES);
        if full || jobs.ended {
            return Err(job);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        jobs.waiting.push_back((bytes, job));
        drop(jobs);
        self.changed.notify_all();
        Ok(())
    }

    fn work(&self, disk: &Arc<Disk>) {
        loop {
            let (bytes, job) = {
                let mut jobs = lock(&self.jobs);
                loop {
                    jobs.working = false;
                    if let Some(next) = jobs.waiting.pop_front() {
                        jobs.working = true;
                        break next;
                    }
                    self.changed.notify_all();
                    if jobs.ended {
                        return;
                    }
                    jobs = self.changed.wait(jobs).unwrap_or_else(PoisonError::into_inner);
                }
            };
            // A panic ends one job, and not the thread.
            if std::panic::catch_unwind(AssertUnwindSafe(|| job(disk))).is_err() {
                tracing::error!("a job of the disk tier died");
            }
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn drain(&self) {
        let jobs = lock(&self.jobs);
        let busy = |jobs: &mut Jobs| jobs.working || !jobs.waiting.is_empty();
        drop(self.changed.wait_while(jobs, busy).unwrap_or_else(PoisonError::into_inner));
    }

    fn end(&self) {
        lock(&self.jobs).ended = true;
        self.changed.notify_all();
    }
}

/// Which keys were seen: two Bloom filters, of which the older is forgotten when the newer is full.
struct Seen {
    newer: Vec<u64>,
    older: Vec<u64>,
    keys: usize,
}

impl Default for Seen {
    fn default() -> Self {
        Self { newer: vec![0; SEEN_BITS / 64], older: vec![0; SEEN_BITS / 64], keys: 0 }
    }
}

impl Seen {
    fn places(key: KeyHash) -> [(usize, u64); 2] {
        [key.0 as usize, (key.0 >> 64) as usize].map(|hash| (hash / 64 % (SEEN_BITS / 64), 1 << (hash % 64)))
    }

    fn has(&self, key: KeyHash) -> bool {
        has_all(&self.newer, Self::places(key)) || has_all(&self.older, Self::places(key))
    }

    fn check(&mut self, key: KeyHash) -> bool {
        let (places, seen) = (Self::places(key), self.has(key));
        if !has_all(&self.newer, places) {
            if self.keys == SEEN_KEYS {
                std::mem::swap(&mut self.newer, &mut self.older);
                self.newer.fill(0);
                self.keys = 0;
            }
            for (at, bit) in places {
                if let Some(word) = self.newer.get_mut(at) {
                    *word |= bit;
                }
            }
            self.keys += 1;
        }
        seen
    }
}

fn has_all(bits: &[u64], places: [(usize, u64); 2]) -> bool {
    places.iter().all(|(at, bit)| bits.get(*at).is_some_and(|word| word & bit != 0))
}

/// Where on disk something lies. Shared by everything that has the same bytes there.
#[derive(Default)]
pub(crate) struct OnDisk(Mutex<Place>);

#[derive(Default)]
struct Place {
    entry: Option<EntryId>,
    /// It is on its way there.
    claimed: bool,
    /// It is not stored any more, and must not come there.
    gone: bool,
    /// It was refused, and is not offered again before.
    not_before: Option<Instant>,
}

impl OnDisk {
    /// Something that was found there.
    pub(crate) fn at(entry: EntryId) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Place { entry: Some(entry), claimed: true, ..Place::default() })))
    }

    /// Where it lies.
    pub(crate) fn entry(&self) -> Option<EntryId> {
        lock(&self.0).entry
    }

    /// True: it is not there yet, nobody else is bringing it, and whoever asked now has to.
    pub(crate) fn claim(&self) -> bool {
        let mut place = lock(&self.0);
        let due = place.not_before.is_none_or(|then| Instant::now() >= then);
        let mine = !place.claimed && !place.gone && due;
        place.claimed |= mine;
        mine
    }

    /// It came there. False: it is not stored any more, and has to be removed again.
    pub(crate) fn came(&self, entry: EntryId) -> bool {
        let mut place = lock(&self.0);
        if !place.gone {
            place.entry = Some(entry);
        }
        !place.gone
    }

    /// It did not come there: it may be offered again after a while.
    pub(crate) fn refused(&self) {
        let mut place = lock(&self.0);
        place.claimed = false;
        place.not_before = Some(Instant::now() + Duration::from_millis(REFUSED_MS));
    }

    /// It is not in this entry any more: it may be brought again. False: it was not the one.
    pub(crate) fn lost(&self, entry: EntryId) -> bool {
        let mut place = lock(&self.0);
        let this = place.entry == Some(entry);
        if this {
            (place.entry, place.claimed) = (None, false);
        }
        this
    }

    /// It is stored, perhaps again.
    pub(crate) fn adopt(&self) {
        let mut place = lock(&self.0);
        if place.gone {
            *place = Place::default();
        }
    }

    /// Whether both are one, or name one entry.
    pub(crate) fn is(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        Arc::ptr_eq(self, other) || self.entry().is_some_and(|entry| other.entry() == Some(entry))
    }

    /// It is not stored any more. Returns what is to be removed.
    pub(crate) fn leave(&self) -> Option<EntryId> {
        let mut place = lock(&self.0);
        place.gone = true;
        place.entry.take()
    }
}

/// An entry that is being read; opened at the first read.
#[derive(Default)]
pub(crate) struct Opened(Option<Reader>);

impl DiskTier {
    /// A slice of what lies at a place. Nothing: it is not there, or was damaged, which has been counted and dropped.
    pub(crate) async fn slice(&self, place: &OnDisk, opened: &mut Opened, index: u64) -> Option<Bytes> {
        let (entry, number) = (place.entry()?, u32::try_from(index).ok()?);
        let before = opened.0.take().filter(|reader| reader.id() == entry);
        let read = self.blocking(move |disk| {
            let reader = match before {
                Some(reader) => reader,
                None => disk.reader(entry).map_err(|error| (None, error))?,
            };
            match reader.slice(number) {
                Ok(bytes) => Ok((reader, bytes)),
                Err(error) => Err((Some(reader), error)),
            }
        });
        match read.await? {
            Ok((reader, bytes)) => {
                opened.0 = Some(reader);
                self.disk.touch(entry);
                Some(bytes)
            }
            Err((reader, error)) => {
                match error {
                    ReadError::Absent => opened.0 = reader,
                    ReadError::Gone => drop(place.lost(entry)),
                    ReadError::Silent => {} // said when it fell silent
                    ReadError::Corrupt(flaw) => {
                        tracing::warn!(index, %flaw, "a slice on disk was damaged; it is fetched again")
                    }
                    error => tracing::warn!(index, %error, "a slice on disk cannot be read; it is fetched again"),
                }
                None
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these cover is whole after every statement, so a panic elsewhere left nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_remembered_for_a_while_and_in_bounds() {
        let mut seen = Seen::default();
        let key = |n: u64| key_hash(&n.to_le_bytes());
        assert!(!seen.check(key(1)) && seen.check(key(1)));
        let mistaken = (10..110_000).filter(|n| seen.check(key(*n))).count();
        assert!(mistaken < 2_000, "{mistaken}");
        assert!(seen.check(key(1)));
        for n in 1_000_000..1_000_000 + 2 * SEEN_KEYS as u64 + 20_000 {
            seen.check(key(n));
        }
        assert!(!seen.check(key(1)) || !seen.check(key(50)), "the oldest are forgotten");
        assert!(seen.keys <= SEEN_KEYS);
    }

    #[test]
    fn what_left_does_not_come_back() {
        let place = OnDisk::default();
        assert!(place.claim() && !place.claim());
        place.refused();
        assert!(!place.claim(), "not at once");
        place.leave();
        place.adopt();
        assert!(place.claim());
        assert_eq!(place.leave(), None);
        assert!(!place.claim());
    }
}
