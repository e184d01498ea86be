//! The disk tier: one self-describing file for each entry, and an index of them in memory.
//!
//! It knows keys, bytes that mean something to its caller, and slices. It knows no HTTP, no zone and no freshness. Every
//! call that touches a file blocks; callers in async code use threads that may block.
//!
//! Where what is: the file's format in `format.rs`, who is stored and who leaves in `index.rs`, a folder and its states
//! in `folder.rs`, reading and verifying in `read.rs`, writing in `write.rs`, what a start does in `scan.rs` and
//! `snapshot.rs`, what tools ask in `stats.rs`. Every call into the file system, with the faults of tests, is in
//! `files.rs`.
//!
//! Recovery: each folder's thread reads its snapshot and then looks at what is really there, while the tier serves. What the
//! index says is a hint; a file's head says the truth, and a slice's digest whether it is true. So a start after a kill,
//! or with an old snapshot or none, finds less at first, and nothing wrong.
//!
//! Locks: each folder has its own (see `folder.rs`); none is held over a call into the file system that a lookup needs.

use std::collections::HashSet;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use crate::{Memory, PolicyChoice, PolicyName};

mod files;
mod folder;
mod format;
mod index;
mod read;
mod scan;
mod snapshot;
mod stats;
mod write;

#[cfg(test)]
mod tests;

pub use files::{Failure, Faults, Operation, Rule};
pub use folder::FolderState;
pub use format::{
    BLOCK_BYTES, Flaw, KeyHash, MAX_KEY_BYTES, MAX_LENGTH_BYTES, MAX_META_BYTES, SLICE_BYTES, STAMP_BYTES, slice_bytes,
    slices,
};
pub use index::MAX_VARIANTS;
pub use read::{Head, MAX_OPEN_FILES, Present, ReadError, Reader};
pub use stats::{Cursor, Finding, Findings, FolderStats, MAX_PAGE, Stats, Summary};
pub use write::{New, WriteError};

use files::{Files, is_shortage};
use folder::{Folder, Unusable};
use read::{Handle, KEPT_OPEN_FILES};

/// The most folders of a tier.
pub const MAX_FOLDERS: usize = 16;
/// The least limit of a folder, in bytes.
pub const MIN_LIMIT_BYTES: u64 = 64 << 10;
/// How often a folder is looked at, and one that is out of use is probed, in milliseconds.
pub const PROBE_MS: u64 = 2_000;
/// How often a snapshot is written where something has changed, in milliseconds.
pub const SNAPSHOT_MS: u64 = 60_000;

/// Where a tier keeps its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderConfig {
    /// A folder for this tier alone. It is made if it is not there.
    pub path: PathBuf,
    /// What its files may take, in bytes of whole blocks of 4 KiB.
    pub limit_bytes: u64,
}

/// A clock: Unix time in milliseconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What a tier needs to know.
#[derive(Clone)]
pub struct DiskConfig {
    /// One to [`MAX_FOLDERS`].
    pub folders: Vec<FolderConfig>,
    /// Who leaves when room is needed.
    pub choice: PolicyChoice,
    /// What time it is.
    pub clock: Clock,
    /// Faults for tests; `Arc::default()` has none.
    pub faults: Arc<Faults>,
}

/// Why a tier cannot be opened. A folder that cannot be used is no reason: it is out of use until it can.
#[derive(Debug, Error)]
pub enum OpenError {
    /// None, or too many.
    #[error("{0} cache folders are configured; there may be 1 to {MAX_FOLDERS}")]
    FolderCount(usize),
    /// The same twice.
    #[error("the cache folder {} is configured twice", .0.display())]
    Twice(PathBuf),
    /// A limit below the least.
    #[error("the cache folder {} has a limit of {limit_bytes} bytes; at least {MIN_LIMIT_BYTES} are needed", path.display())]
    Limit {
        /// Which folder.
        path: PathBuf,
        /// Its limit.
        limit_bytes: u64,
    },
    /// Another process has it.
    #[error("the cache folder {} is in use by another process; give each edge its own", .0.display())]
    InUse(PathBuf),
    /// A thread could not be started.
    #[error("cannot start a thread for the cache folder {}: {error}", path.display())]
    Thread {
        /// For which folder.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
}

/// Which entry. It is never mistaken for a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryId {
    nonce: NonZeroU64,
    slot: u32,
    folder: u16,
}

/// See the head of the file. Dropping it without [`Disk::close`] is what a kill is: the snapshot stays as old as it is, and
/// the folders stay locked until their threads have noticed.
pub struct Disk {
    folders: Vec<Folder>,
    clock: Clock,
    /// When it was opened: Unix time in milliseconds.
    opened_ms: u64,
    /// Open files of sliced entries, kept for the next read.
    handles: Memory<format::Name, Arc<Handle>>,
    open_files: Arc<AtomicUsize>,
    last_ms: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    stop: Arc<Stop>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Tells the threads of a tier to end.
#[derive(Debug, Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits; says whether to end.
    fn wait(&self, duration: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.changed.wait_timeout_while(stopped, duration, |stopped| !*stopped);
        *result.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Disk {
    /// Opens the folders. Their snapshots are read, and what is really there is found out, afterwards by a thread for each
    /// folder.
    pub fn open(config: DiskConfig) -> Result<Arc<Self>, OpenError> {
        let disk = Arc::new(Self::load(config)?);
        for number in 0..disk.folders.len() {
            let (weak, stop) = (Arc::downgrade(&disk), disk.stop.clone());
            let thread = std::thread::Builder::new()
                .name(format!("shelf-{number}"))
                .spawn(move || scan::tend(&weak, &stop, number))
                .map_err(|error| {
                    disk.stop.stop();
                    let path = disk.folders.get(number).map(|folder| folder.path.clone()).unwrap_or_default();
                    OpenError::Thread { path, error }
                })?;
            disk.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(disk)
    }

    /// The same without the threads.
    fn load(config: DiskConfig) -> Result<Self, OpenError> {
        if !(1..=MAX_FOLDERS).contains(&config.folders.len()) {
            return Err(OpenError::FolderCount(config.folders.len()));
        }
        let mut seen = HashSet::new();
        let mut folders = Vec::new();
        for (number, one) in config.folders.into_iter().enumerate() {
            if one.limit_bytes < MIN_LIMIT_BYTES {
                return Err(OpenError::Limit { path: one.path, limit_bytes: one.limit_bytes });
            }
            if !seen.insert(one.path.clone()) {
                return Err(OpenError::Twice(one.path));
            }
            let folder = Folder::new(number, one, config.choice, Files::new(number, config.faults.clone()));
            folders.push(folder);
        }
        let now_ms = (config.clock)();
        let start = |folder: &Folder| match folder.settle() {
            Err(Unusable::InUse) => Err(OpenError::InUse(folder.path.clone())),
            Err(Unusable::Io(error)) => {
                folder.set_state(FolderState::Gone(error.to_string()));
                Ok(())
            }
            Ok(()) => {
                scan::start(folder);
                Ok(())
            }
        };
        // Side by side, so that a slow disk does not keep the others waiting.
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for folder in &folders {
                let thread = std::thread::Builder::new().spawn_scoped(scope, move || start(folder));
                threads.push(thread.map_err(|error| OpenError::Thread { path: folder.path.clone(), error })?);
            }
            // A thread that panicked has left its folder as not opened; there is nothing to add to that.
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
        })?;
        Ok(Self {
            folders,
            clock: config.clock,
            opened_ms: now_ms,
            handles: Memory::with_policy(
                KEPT_OPEN_FILES * Memory::<format::Name, Arc<Handle>>::ENTRY_BYTES,
                PolicyChoice { policy: PolicyName::Lru, ..PolicyChoice::default() },
            ),
            open_files: Arc::default(),
            last_ms: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            stop: Arc::default(),
            threads: Mutex::default(),
        })
    }

    /// The entries of a key, newest first. Memory only. While a folder is being scanned it may not know all of them yet:
    /// then [`Self::is_scanned`] says no, and [`Self::seek`] looks.
    pub fn find(&self, key_hash: KeyHash) -> Vec<EntryId> {
        let mut found = Vec::new();
        for (number, folder) in self.folders.iter().enumerate().filter(|(_, folder)| !folder.is_silent()) {
            let index = folder.index();
            found.extend(index.find(key_hash).map(|(slot, record)| {
                (record.stored_ms, EntryId { slot, folder: number as u16, nonce: record.nonce })
            }));
        }
        found.sort_unstable_by_key(|(stored_ms, _)| std::cmp::Reverse(*stored_ms));
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// Opens an entry for reading; blocks.
    pub fn reader(self: &Arc<Self>, id: EntryId) -> Result<Reader, ReadError> {
        Ok(Reader { disk: self.clone(), handle: self.counted(self.handle(id))? })
    }

    /// What an entry says about itself; blocks.
    pub fn head(&self, id: EntryId) -> Result<Head, ReadError> {
        Ok(self.head_of(&*self.handle(id)?))
    }

    /// The same, for who looks at many entries once: past the files that are kept open; blocks.
    pub fn glance(&self, id: EntryId) -> Result<Head, ReadError> {
        let folder = self.folder(id).ok_or(ReadError::Gone)?;
        let record = *folder.index().get(id.slot, id.nonce).ok_or(ReadError::Gone)?;
        Ok(self.head_of(&*self.open_handle(folder, id, &record, false)?))
    }

    /// Which slices of an entry are stored; blocks, and reads its slice table.
    pub fn present(&self, id: EntryId) -> Result<Present, ReadError> {
        self.present_of(&*self.handle(id)?)
    }

    /// The bytes of slice `number` of an entry, exactly; blocks.
    pub fn slice(&self, id: EntryId, number: u32) -> Result<Bytes, ReadError> {
        let handle = self.handle(id);
        self.counted(handle.and_then(|handle| self.slice_of(&handle, number)))
    }

    /// What an entry says about itself and its first slice: for a small one in a single read; blocks.
    pub fn head_and_first(&self, id: EntryId) -> Result<(Head, Bytes), ReadError> {
        let read = self.handle(id).and_then(|handle| Ok((self.head_of(&handle), self.slice_of(&handle, 0)?)));
        self.counted(read)
    }

    /// Somebody has waited for this tier for longer than is any use, and has given up. A folder that brings nothing to an end
    /// while that happens a few times is not asked any more until it answers. Memory only.
    pub fn gave_up(&self) {
        self.folders.iter().for_each(Folder::strike);
    }

    /// Counts a use of an entry, for the policy. Memory only.
    pub fn touch(&self, id: EntryId) {
        if let Some(folder) = self.folder(id) {
            folder.index().touch(id.slot, id.nonce, self.now_s());
        }
    }

    /// Writes the last snapshots, ends the threads and lets go of the folders. Nothing is written after that.
    pub fn close(&self) {
        self.end();
        for folder in &self.folders {
            scan::save(folder);
            folder.release();
        }
    }

    /// Ends the threads.
    fn end(&self) {
        self.stop.stop();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
    }

    fn counted<T>(&self, result: Result<T, ReadError>) -> Result<T, ReadError> {
        let counter = if result.is_ok() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        result
    }

    fn folder(&self, id: EntryId) -> Option<&Folder> {
        self.folders.get(usize::from(id.folder))
    }

    /// The folders in the order in which an entry of this key should go to them: each gets a share of the keys as large
    /// as its share of the bytes (weighted rendezvous hashing), so that all variants of a key are in one.
    fn placement(&self, key_hash: KeyHash) -> Vec<&Folder> {
        let mut folders: Vec<_> = self.folders.iter().map(|folder| (folder.score(key_hash), folder)).collect();
        folders.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        folders.into_iter().map(|(_, folder)| folder).collect()
    }

    /// Does what needs a file descriptor; where there is none, once more after giving back those that are kept.
    fn with_files<T>(&self, open: impl Fn() -> std::io::Result<T>) -> std::io::Result<T> {
        match open() {
            Err(error) if is_shortage(&error) => {
                self.close_kept();
                open()
            }
            result => result,
        }
    }

    /// Whether a folder has vanished; if so, it counts as empty from now on, and nothing of it stays open.
    fn has_vanished(&self, folder: &Folder) -> bool {
        let vanished = folder.has_vanished();
        if vanished {
            self.close_kept();
        }
        vanished
    }

    fn close_kept(&self) {
        self.handles.remove_where(|_, _, _| true, |_, handle| drop(handle));
    }

    fn now_s(&self) -> u32 {
        seconds((self.clock)())
    }

    /// The time, and one more than the last time it was asked for where that is later.
    fn next_ms(&self) -> u64 {
        let now = (self.clock)();
        let last = self.last_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)));
        now.max(last.unwrap_or(0) + 1)
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("folders", &self.folders.len()).finish_non_exhaustive()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

fn seconds(unix_ms: u64) -> u32 {
    u32::try_from(unix_ms / 1000).unwrap_or(u32::MAX)
}
