//! The marks of purges, in memory and on disk: an edge that starts again knows what was purged before.
//!
//! There are two series of numbers: control's events, and the marks that this edge makes itself (`PURGE` at an edge without
//! control, unsafe methods, changes of a zone's policy). What is stored carries both numbers of when its fetch began
//! ([`Began`]), and [`Marks::verdict`] says whether it may still be used.
//!
//! What is kept where (formats at the heads of the files): `marks.snapshot` (`state.rs`) and the log that continues it
//! (`log.rs`, `record.rs`), written as `journal.rs` tells; `era.json` (`era.rs`).
//!
//! A change is written to the log, then taken up in memory, then published; so whatever is known to anyone outlives the
//! process, however it ends. [`Marks::sync`] makes it outlive the machine: before an event is acknowledged, and before a
//! `PURGE` is answered. Other marks are not waited for: when the machine goes down, those of its last moments may be
//! missing, so an edge that was opened in another start of the machine and was not ended in order revalidates what it had
//! fetched for pull zones. An event that was applied but not yet acknowledged may be lost then, too; control sends it again.
//!
//! Where the marks are lost or damaged, everything stored before is [`Verdict::Unknown`]: the local numbers go on above
//! all that were given out, and what lies below where they start again is not trusted.
//!
//! Locks, in this order: `upkeep` (one job at the files at a time; held for as long as it takes), `journal` (held while a
//! record is written and taken up, so that both have one order), `state`.

mod era;
mod fields;
mod journal;
mod log;
mod record;
mod state;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use api::{Change, Event, PurgeTargets};
use futures_util::future::BoxFuture;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::CancellationToken;

use self::era::EraDoc;
use self::journal::{Health, Journal, Lost, SNAPSHOT_FILE};
use self::log::{FULL_LOG_BYTES, LONG_LOG_BYTES, Log, Seal};
use self::record::{BootId, Record};
use self::state::State;
use crate::persist::replace;
use crate::purges::{Identity, MAX_MARKS, Verdict};

/// Rest between looks at whether the files need care, in milliseconds.
const CARE_MS: u64 = 200;
/// Rest after a failure before the files are written again, in milliseconds.
const RETRY_MS: u64 = 1_000;
/// Local numbers that are reserved at once. They begin at the clock's microseconds, so that these last for twelve days of
/// restarts, or for as many marks.
const RESERVED_NUMBERS: u64 = 1 << 40;

/// When a fetch began, as numbers: the newest event of control's, and of this edge's own, that had been applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Began {
    pub(crate) event: u64,
    pub(crate) local: u64,
}

/// The disk neither takes the marks nor lets itself be made distrusted.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the marks of purges cannot be kept, and what is on disk of them cannot be removed: {why}")]
pub(crate) struct NotDurable {
    why: String,
}

/// What is counted of the marks.
#[derive(Clone, Default)]
pub(crate) struct MarksMetrics {
    pub(crate) marks: Gauge,
    pub(crate) trusted: Gauge,
    pub(crate) failures: Counter,
}

/// The marks of one edge.
pub(crate) struct Marks {
    state: RwLock<State>,
    /// What requests read at every turn, published when the marks that belong to it are in `state`.
    applied: AtomicU64,
    newest: AtomicU64,
    era: AtomicU64,
    trusted_from: u64,
    /// Whether nothing was found of a former life.
    lost: bool,
    /// Nothing: nothing is kept.
    journal: Mutex<Option<Journal>>,
    upkeep: Mutex<Upkeep>,
    /// Those who wait for a sync stand in line here, not in blocking threads: one sync does for all who came before it.
    line: tokio::sync::Mutex<()>,
    /// Who hears of the marks that this edge makes itself.
    listener: OnceLock<Arc<dyn PurgeListener>>,
    metrics: MarksMetrics,
}

/// Who tells another process, which serves the same for the moment, what is purged here.
pub trait PurgeListener: Send + Sync {
    /// Something was purged here, and counts here. Must not block.
    fn purged(&self, targets: &PurgeTargets);
    /// Returns when the other process, where there is one, has taken up everything that was purged before.
    ///
    /// # Errors
    /// See [`NotConfirmed`].
    fn confirmed(&self) -> BoxFuture<'_, Result<(), NotConfirmed>>;
}

/// Another process serves the same, and nobody knows whether it has taken up what was purged here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another process is taking over, and has not confirmed the purge: ask once more")]
pub struct NotConfirmed;

#[derive(Default)]
struct Upkeep {
    /// As it is on the disk.
    era: Option<EraDoc>,
    retry_at: Option<Instant>,
}

/// Sees to it that a start trusts nothing that a folder holds, of which nobody is in charge.
pub(crate) fn distrust(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(folder.join(SNAPSHOT_FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => std::fs::File::open(folder).and_then(|folder| folder.sync_all()),
    }
}

impl Marks {
    /// Marks that end with the process.
    pub(crate) fn in_memory(now_ms: u64, metrics: MarksMetrics) -> Self {
        let mut state = State::new(random_number(), state::names_of(&random()), MAX_MARKS);
        state.take(&Record::Opened { boot: BootId::default(), start: micros(now_ms) });
        Self::of(state, false, None, Upkeep::default(), metrics)
    }

    /// Takes up the marks that a folder holds, and keeps them there. Blocks. A folder that cannot be read or written is no
    /// reason not to serve: everything stored is revalidated, and the files are tried again.
    pub(crate) fn open(folder: &Path, now_ms: u64, metrics: MarksMetrics) -> Self {
        Self::open_with(folder, now_ms, boot_id(), MAX_MARKS, metrics)
    }

    fn open_with(folder: &Path, now_ms: u64, boot: BootId, capacity: usize, metrics: MarksMetrics) -> Self {
        let era = EraDoc::read(folder);
        let (mut state, journal, lost) = match Journal::load(folder, capacity, metrics.clone()) {
            Ok((state, journal)) => (state, journal, false),
            Err(why) => {
                match &why {
                    Lost::Nothing if era.is_none() => {
                        tracing::info!(folder = %folder.display(), "no marks of purges yet")
                    }
                    why => {
                        tracing::error!(folder = %folder.display(), error = %why, "the marks of purges are lost: revalidating everything")
                    }
                }
                let seal: Seal = random();
                let id = era.as_ref().map_or_else(random_number, |doc| doc.era);
                let mut state = State::new(id, state::names_of(&seal), capacity);
                state.catalog_id = era.as_ref().and_then(|doc| doc.catalog_id.clone());
                (state, Journal::anew(folder, seal, metrics.clone()), true)
            }
        };
        let known = if lost { era.as_ref().map_or(0, |doc| doc.reserved) } else { state.newest };
        let start = micros(now_ms).max(known.saturating_add(1));
        if lost {
            state.trusted_from = start;
        }
        let marks = Self::of(state, lost, Some(journal), Upkeep { era, retry_at: None }, metrics);
        marks.commit(|_| Record::Opened { boot, start });
        // Known by its log from here on: had this one been lost with the machine, nobody could tell that it was open.
        if let Err(error) = marks.settle(FULL_LOG_BYTES) {
            tracing::error!(folder = %folder.display(), %error, "a restart is not safe");
        }
        marks
    }

    fn of(state: State, lost: bool, journal: Option<Journal>, upkeep: Upkeep, metrics: MarksMetrics) -> Self {
        metrics.marks.set(i64::try_from(state.events.len() + state.local.len()).unwrap_or(i64::MAX));
        match &journal {
            Some(journal) => journal.show(),
            None => drop(metrics.trusted.set(1)),
        }
        Self {
            applied: AtomicU64::new(state.applied),
            newest: AtomicU64::new(state.newest),
            era: AtomicU64::new(state.era),
            trusted_from: state.trusted_from,
            state: RwLock::new(state),
            lost,
            journal: Mutex::new(journal),
            upkeep: Mutex::new(upkeep),
            line: tokio::sync::Mutex::new(()),
            listener: OnceLock::new(),
            metrics,
        }
    }

    /// Names the series of event numbers. Keys of what is stored hold it, so that nothing that was numbered in another one
    /// is ever found again.
    pub(crate) fn era(&self) -> u64 {
        self.era.load(Ordering::Acquire)
    }

    /// The newest event applied.
    pub(crate) fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// The numbers that a fetch which begins now carries.
    pub(crate) fn began(&self) -> Began {
        Began { event: self.applied(), local: self.newest.load(Ordering::Acquire) }
    }

    /// The catalog whose events these are, where one is known.
    pub(crate) fn catalog_id(&self) -> Option<String> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).catalog_id.clone()
    }

    /// Whether nothing was found of a former life when this one began.
    pub(crate) fn lost(&self) -> bool {
        self.lost
    }

    /// Whether a restart now would know everything that is known now, but for what has not been synced.
    pub(crate) fn trusted(&self) -> bool {
        lock(&self.journal).as_ref().is_none_or(|journal| journal.health == Health::Trusted)
    }

    /// The same, and the folder is this process's: not left to another one.
    pub(crate) fn kept(&self) -> bool {
        lock(&self.journal).as_ref().is_some_and(|journal| journal.health == Health::Trusted)
    }

    /// Where they are kept, while that is this process's.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        lock(&self.journal).as_ref().map(|journal| journal.folder.clone())
    }

    /// Applies an event. Once this returns, nothing that it names and that was fetched before is served as fresh.
    pub(crate) fn apply(&self, event: &Event) {
        self.commit(|state| Record::Event { number: event.seq, named: state.names().of(&event.change) });
    }

    /// Makes a mark of this edge's own, and returns its number. Once this returns, nothing that it names and that was fetched
    /// before is served as fresh.
    pub(crate) fn mark(&self, targets: PurgeTargets) -> u64 {
        let number = self.mark_unheard(targets.clone());
        // Afterwards: what was not told because there was nobody is in the files that somebody finds.
        if let Some(listener) = self.listener.get() {
            listener.purged(&targets);
        }
        number
    }

    /// Returns when every process that serves the same has the marks that were made here before.
    ///
    /// # Errors
    /// See [`NotConfirmed`].
    pub(crate) async fn confirmed(&self) -> Result<(), NotConfirmed> {
        match self.listener.get() {
            Some(listener) => listener.confirmed().await,
            None => Ok(()),
        }
    }

    /// The same of a mark that another process has made and told of.
    pub(crate) fn mark_unheard(&self, targets: PurgeTargets) -> u64 {
        let change = Change::Purge(targets);
        let mut given = 0;
        self.commit(|state| {
            given = state.newest.saturating_add(1);
            Record::Local { number: given, named: state.names().of(&change) }
        });
        given
    }

    /// Continues at event `number` without knowing what happened before: everything is revalidated at its next use.
    pub(crate) fn skip_to(&self, number: u64) {
        self.commit(|_| Record::Skipped { number });
    }

    /// Begins anew at event `number` of a catalog: nothing stored before is found again.
    pub(crate) fn start_over(&self, catalog_id: &str, number: u64) {
        let era = random_number();
        self.commit(|_| Record::StartedOver { era, number, catalog_id: catalog_id.to_owned() });
    }

    /// Whether something may be used that is known under `identity` and whose fetch began then.
    pub(crate) fn verdict(&self, identity: Identity<'_>, began: Began) -> Verdict {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let local = state.local.verdict(identity, began.local);
        local.max(state.events.verdict(identity, began.event)).max(self.trust(began.local))
    }

    /// The same of a file of a store zone, which only events can name. `local`: the edge's own number when it was fetched.
    pub(crate) fn verdict_on_file(&self, identity: Identity<'_>, began: Began) -> Verdict {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.events.verdict(identity, began.event).max(self.trust(began.local))
    }

    fn trust(&self, local: u64) -> Verdict {
        if local < self.trusted_from { Verdict::Unknown } else { Verdict::Clean }
    }

    /// Writes a change to the log, takes it up, and publishes it.
    fn commit(&self, change: impl FnOnce(&State) -> Record) {
        let mut journal = lock(&self.journal);
        // Only who holds the journal changes the state, so this is still what is so when the change is taken up.
        let record = change(&self.state.read().unwrap_or_else(PoisonError::into_inner));
        if let Some(journal) = journal.as_mut() {
            journal.append(&record);
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.take(&record);
        // The numbers first: a request reads the era for its key before it reads the numbers that its fetch begins at, so
        // nothing of the new era can carry a number of the old one.
        self.applied.store(state.applied, Ordering::Release);
        self.newest.store(state.newest, Ordering::Release);
        self.era.store(state.era, Ordering::Release);
        self.metrics.marks.set(i64::try_from(state.events.len() + state.local.len()).unwrap_or(i64::MAX));
    }

    /// Returns when everything that was applied before outlives the machine, or when a restart revalidates everything.
    ///
    /// # Errors
    /// [`NotDurable`]: a restart would serve as fresh what has been purged.
    pub(crate) async fn sync(self: &Arc<Self>) -> Result<(), NotDurable> {
        let Some(wanted) = lock(&self.journal).as_ref().map(|journal| journal.written) else { return Ok(()) };
        let _turn = self.line.lock().await;
        let done = |journal: &Journal| journal.synced >= wanted && journal.health == Health::Trusted;
        if lock(&self.journal).as_ref().is_none_or(done) {
            return Ok(());
        }
        let marks = Arc::clone(self);
        let settled = tokio::task::spawn_blocking(move || marks.settle(FULL_LOG_BYTES)).await;
        settled.unwrap_or_else(|error| Err(NotDurable { why: error.to_string() }))
    }

    /// The same as [`Self::sync`], where there is nobody else to wait for. Blocks.
    pub(crate) fn sync_blocking(&self) -> Result<(), NotDurable> {
        self.settle(FULL_LOG_BYTES)
    }

    /// Keeps the log short, and gets the files right again after a failure, until `shutdown`.
    pub(crate) async fn keep(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(CARE_MS)) => {}
                () = shutdown.cancelled() => return,
            }
            if lock(&self.journal).as_ref().is_some_and(|journal| needs_snapshot(journal, LONG_LOG_BYTES)) {
                let marks = Arc::clone(&self);
                // What went wrong has been said in the log.
                let _ = tokio::task::spawn_blocking(move || marks.settle(LONG_LOG_BYTES)).await;
            }
        }
    }

    /// From now on `listener` hears of each mark that this edge makes itself. Only the first one does.
    pub(crate) fn tell(&self, listener: Arc<dyn PurgeListener>) {
        let _ = self.listener.set(listener);
    }

    /// Ends in order and leaves the files to another process: what is marked from now on is in memory alone. Blocks. False:
    /// there were none, or they were left before.
    pub(crate) fn leave(&self) -> bool {
        self.close();
        // Whoever keeps the files is done with them then, and finds nothing to keep afterwards.
        let _upkeep = lock(&self.upkeep);
        let left = lock(&self.journal).take();
        self.metrics.trusted.set(1);
        left.is_some()
    }

    /// Ends in order: when the machine starts again, nothing is in doubt. Blocks.
    pub(crate) fn close(&self) {
        self.commit(|_| Record::Closed);
        let _ = self.settle(FULL_LOG_BYTES);
    }

    /// Syncs what was written, and writes a new snapshot where the log is longer than `long_bytes` or nothing is right on the
    /// disk. Blocks.
    fn settle(&self, long_bytes: usize) -> Result<(), NotDurable> {
        let mut upkeep = lock(&self.upkeep);
        let Some(unsynced) = lock(&self.journal).as_mut().map(Journal::unsynced) else { return Ok(()) };
        let result = unsynced.files.iter().try_for_each(|file| file.sync_data());
        let (due, folder) = {
            let mut journal = lock(&self.journal);
            let Some(journal) = journal.as_mut() else { return Ok(()) };
            journal.synced(&unsynced, result);
            if journal.health == Health::Exposed {
                journal.distrust();
            }
            (needs_snapshot(journal, long_bytes), journal.folder.clone())
        };
        let rested = upkeep.retry_at.is_none_or(|at| Instant::now() >= at);
        if rested {
            let kept = self.keep_era(&mut upkeep, &folder);
            let kept = if due { kept.and_then(|()| self.write_snapshot(&folder)) } else { kept };
            upkeep.retry_at = match kept {
                Ok(()) => None,
                Err(error) => {
                    // Said once, not at every try.
                    if upkeep.retry_at.is_none() {
                        tracing::warn!(folder = %folder.display(), %error, "cannot write the state of the marks; trying again");
                    }
                    Some(Instant::now() + Duration::from_millis(RETRY_MS))
                }
            };
        }
        match lock(&self.journal).as_ref() {
            Some(journal) if journal.health == Health::Exposed => Err(NotDurable { why: journal.failure.clone() }),
            _ => Ok(()),
        }
    }

    /// Writes `era.json` where it is not what it should be.
    fn keep_era(&self, upkeep: &mut Upkeep, folder: &Path) -> std::io::Result<()> {
        let wanted = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            let reserved = upkeep.era.as_ref().map_or(0, |doc| doc.reserved);
            let enough = reserved > state.newest.saturating_add(RESERVED_NUMBERS / 2);
            let reserved = if enough { reserved } else { state.newest.saturating_add(RESERVED_NUMBERS) };
            EraDoc::new(state.era, state.catalog_id.clone(), reserved)
        };
        if upkeep.era.as_ref() != Some(&wanted) {
            wanted.write(folder)?;
            upkeep.era = Some(wanted);
        }
        Ok(())
    }

    fn write_snapshot(&self, folder: &Path) -> std::io::Result<()> {
        let Some((generation, seal, make_log)) = lock(&self.journal).as_ref().map(|journal| {
            let (generation, make_log) = journal.next();
            (generation, journal.seal, make_log)
        }) else {
            return Ok(());
        };
        if make_log {
            let log = Log::create(folder, seal, generation)?;
            if let Some(journal) = lock(&self.journal).as_mut() {
                journal.switch(log);
            }
        }
        // Everything that went to the log before is in the state; what comes now goes to the new log and may be in both.
        let bytes = self.state.read().unwrap_or_else(PoisonError::into_inner).encode(&seal, generation);
        let written = replace(folder, SNAPSHOT_FILE, &bytes);
        if let Some(journal) = lock(&self.journal).as_mut() {
            match &written {
                Ok(()) => {
                    journal.snapshot_written(generation);
                    journal.tidy(generation);
                }
                // The rename may have been done all the same; the old snapshot says as much as before.
                Err(_) if journal.health != Health::Trusted => journal.distrust(),
                Err(_) => {}
            }
        }
        written
    }
}

fn needs_snapshot(journal: &Journal, long_bytes: usize) -> bool {
    journal.health != Health::Trusted || journal.log.as_ref().is_none_or(|log| log.end > long_bytes)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Local numbers begin at the clock, so that they are new even where nothing was kept.
fn micros(now_ms: u64) -> u64 {
    now_ms.saturating_mul(1_000)
}

/// From the operating system; from a generator that it has seeded, should it have no more.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if getrandom::fill(&mut bytes).is_err() {
        bytes.fill_with(|| fastrand::u8(..));
    }
    bytes
}

fn random_number() -> u64 {
    u64::from_le_bytes(random())
}

/// Names this start of the machine. Zeros, where it has no name for it, are like no other start.
fn boot_id() -> BootId {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or_default().to_le_bytes()
}
