//! One folder of the tier: where its files are, whether it can be written to, what it has counted.
//!
//! Layout on disk: `shelf` (a file that says whose folder this is, locked by the process that uses it), `index` (the
//! snapshot), `new/` (files that are not whole yet) and a folder for every three hex digits, with the entries. A single
//! level of 4,096 folders holds a million entries with 244 in each, and costs a small tier less than two levels do.
//!
//! State: *ok*; *read-only* after a failed write or sync, until a probe succeeds; *gone* while the folder is not there,
//! when it counts as empty; *silent* after [`MAX_STRIKES`] time-outs in a row, until a probe comes back. A reader is never the
//! one who waits for a folder to come back, and what was to be removed from a silent one is removed then.
//!
//! Locks: `index` covers the index and is never held over a call into the file system. `heads` covers a
//! read-change-write of a file's head or slice table; lookups do not need it. `state` covers the state's two words.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use twox_hash::XxHash3_64;

use super::FolderConfig;
use super::files::{Files, is_shortage};
use super::format::{Flaw, KeyHash, Name, blocks};
use super::index::Index;
use crate::PolicyChoice;

/// Folders of entries.
pub(crate) const FANS: usize = 4096;
/// What a file system keeps free beside us: this part of its size…
const RESERVE_PART: u64 = 100;
/// …but no more than this many bytes.
const MAX_RESERVE_BYTES: u64 = 1 << 30;
/// Time-outs in a row after which a folder is not asked any more.
pub(crate) const MAX_STRIKES: u32 = 3;
/// Files whose removal from a silent folder is remembered.
const MAX_UNLINKED_LATER: usize = 65_536;
const MARKER: &str = "shelf";
const MARKER_TEXT: &[u8] =
    b"This folder belongs to a Littoral edge. Whatever is in it may be deleted while the edge is down.\n";
const PROBE: &str = "new/probe";
const PROBED: &str = "new/probed";

/// Whether a folder can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FolderState {
    /// For everything.
    Ok,
    /// For reading only, and why.
    ReadOnly(String),
    /// Not at all, and why.
    Gone(String),
    /// Not at all until it answers again, and why. What it holds is still known.
    Silent(String),
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Folder {
    /// Its place in the configuration.
    pub(crate) number: usize,
    pub(crate) path: PathBuf,
    pub(crate) limit_bytes: u64,
    pub(crate) files: Files,
    pub(crate) counters: Counters,
    /// For each of the entries' folders, whether the scan has been there.
    pub(crate) scanned: Box<[AtomicBool]>,
    pub(crate) scanned_fans: AtomicU32,
    /// Whether its snapshot has been read.
    pub(crate) recalled: AtomicBool,
    index: Mutex<Index>,
    heads: Mutex<()>,
    state: Mutex<FolderState>,
    writable: AtomicBool,
    silent: AtomicBool,
    /// Time-outs in a row, and the operations that had ended at the last.
    strikes: Mutex<(u32, u64)>,
    /// Files to be removed when the folder answers again.
    unlink_later: Mutex<Vec<Name>>,
    lock: Mutex<Option<File>>,
    /// The device on which the folder was last seen; 0 = never.
    device: AtomicU64,
    life: u64,
    temporaries: AtomicU64,
}

/// What a folder has counted since the tier was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) reads: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) read_errors: AtomicU64,
    pub(crate) timeouts: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) write_errors: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) forgotten: AtomicU64,
    pub(crate) flaws: [AtomicU64; Flaw::ALL.len()],
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts a file that was not as it should be.
    pub(crate) fn flaw(&self, flaw: Flaw) {
        if let Some(counter) = Flaw::ALL.iter().position(|&one| one == flaw).and_then(|at| self.flaws.get(at)) {
            Self::add(counter, 1);
        }
    }
}

/// Why a folder cannot be used at all.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// Another process has it.
    InUse,
    Io(io::Error),
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Folder {
    pub(crate) fn new(number: usize, config: FolderConfig, choice: PolicyChoice, files: Files) -> Self {
        let FolderConfig { path, limit_bytes } = config;
        Self {
            number,
            path,
            limit_bytes,
            files,
            counters: Counters::default(),
            scanned: (0..FANS).map(|_| AtomicBool::new(false)).collect(),
            scanned_fans: AtomicU32::new(0),
            recalled: AtomicBool::new(false),
            index: Mutex::new(Index::new(limit_bytes, choice)),
            heads: Mutex::new(()),
            state: Mutex::new(FolderState::Gone("not opened yet".into())),
            writable: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            strikes: Mutex::default(),
            unlink_later: Mutex::default(),
            lock: Mutex::new(None),
            device: AtomicU64::new(0),
            life: fastrand::u64(..),
            temporaries: AtomicU64::new(0),
        }
    }

    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a read-change-write of a head or a slice table.
    pub(crate) fn heads(&self) -> MutexGuard<'_, ()> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> FolderState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Acquire)
    }

    /// Whether nothing is to be asked of the folder, because it does not answer.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Acquire)
    }

    /// Somebody has waited for too long, perhaps for this folder: after [`MAX_STRIKES`] times without any operation that
    /// has come to an end between them it is silent.
    pub(crate) fn strike(&self) {
        let (begun, ended) = self.files.counts();
        if begun == ended || self.is_silent() {
            return;
        }
        Counters::add(&self.counters.timeouts, 1);
        let strikes = {
            let mut last = self.strikes.lock().unwrap_or_else(PoisonError::into_inner);
            *last = if last.1 == ended { (last.0 + 1, ended) } else { (1, ended) };
            last.0
        };
        if strikes >= MAX_STRIKES && !matches!(self.state(), FolderState::Gone(_)) {
            self.set_state(FolderState::Silent(format!("{strikes} time-outs in a row")));
        }
    }

    /// The folder has answered: what was put off is done.
    pub(crate) fn catch_up(&self) {
        let later = std::mem::take(&mut *self.unlink_later.lock().unwrap_or_else(PoisonError::into_inner));
        self.unlink(&later);
    }

    /// In which of the entries' folders a file is.
    pub(crate) fn fan(name: Name) -> usize {
        (name.key_hash.0 >> 116) as usize
    }

    pub(crate) fn fan_path(&self, fan: usize) -> PathBuf {
        self.path.join(format!("{fan:03x}"))
    }

    pub(crate) fn path_of(&self, name: Name) -> PathBuf {
        let mut path = self.fan_path(Self::fan(name));
        path.push(name.file_name());
        path
    }

    /// Where the snapshot is.
    pub(crate) fn snapshot_path(&self) -> PathBuf {
        self.path.join("index")
    }

    /// Where files are made.
    pub(crate) fn new_path(&self) -> PathBuf {
        self.path.join("new")
    }

    /// A name for a file that is being made.
    pub(crate) fn temporary(&self) -> PathBuf {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        self.new_path().join(format!("{:016x}-{number:x}", self.life))
    }

    /// Whether a file in `new/` was made by this process.
    pub(crate) fn is_ours(&self, file_name: &str) -> bool {
        file_name.starts_with(&format!("{:016x}-", self.life))
    }

    /// Makes what a folder needs and takes its lock. What it then holds is for the scan to find.
    pub(crate) fn settle(&self) -> Result<(), Unusable> {
        let marker = self.path.join(MARKER);
        let known = self.device.load(Ordering::Relaxed);
        if known != 0 && !self.files.is_there(&marker)? {
            // It may be a mount point without its mount. Writing there would fill another file system.
            let now = std::fs::metadata(&self.path).map_or(known, |metadata| metadata.dev());
            if now != known {
                return Err(Unusable::Io(io::Error::other("another file system is mounted there")));
            }
        }
        self.files.create_folder(&self.new_path())?;
        let file = match self.files.open_to_write(&marker) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = self.files.create_over(&marker)?;
                self.files.write_at(&file, [MARKER_TEXT], 0)?;
                file
            }
            // A read-only file system: what is there can be read.
            Err(_) => self.files.open(&marker)?,
            Ok(file) => file,
        };
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        *lock = None;
        match file.try_lock() {
            Err(std::fs::TryLockError::WouldBlock) => return Err(Unusable::InUse),
            Err(std::fs::TryLockError::Error(error)) => return Err(error.into()),
            Ok(()) => {}
        }
        self.device.store(file.metadata()?.dev(), Ordering::Relaxed);
        *lock = Some(file);
        Ok(())
    }

    /// Puts the folder into a state.
    pub(crate) fn set_state(&self, state: FolderState) {
        let mut current = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.writable.store(state == FolderState::Ok, Ordering::Release);
        self.silent.store(matches!(state, FolderState::Silent(_)), Ordering::Release);
        if *current == state {
            return;
        }
        let path = self.path.display();
        match &state {
            FolderState::Ok => tracing::info!(folder = %path, "cache folder is in use"),
            FolderState::ReadOnly(reason) => {
                tracing::warn!(folder = %path, %reason, "cache folder is out of use for writing");
            }
            FolderState::Silent(reason) => {
                tracing::warn!(folder = %path, %reason, "cache folder is out of use until it answers");
            }
            FolderState::Gone(reason) => tracing::warn!(folder = %path, %reason, "cache folder is out of use"),
        }
        *current = state;
    }

    /// Lets go of the folder for good: nothing is written to it any more, and another process may take it.
    pub(crate) fn release(&self) {
        self.writable.store(false, Ordering::Release);
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A write has failed: the folder is not written to until a probe succeeds, unless it is the process that is short
    /// of something.
    pub(crate) fn failed(&self, what: &str, error: &io::Error) {
        Counters::add(&self.counters.write_errors, 1);
        if !is_shortage(error) && self.is_writable() {
            self.set_state(FolderState::ReadOnly(format!("{what}: {error}")));
        }
    }

    /// Whether the folder has vanished; if so, it counts as empty from now on.
    pub(crate) fn has_vanished(&self) -> bool {
        let vanished = matches!(self.files.is_there(&self.path.join(MARKER)), Ok(false));
        if vanished {
            self.index().clear();
            *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.set_state(FolderState::Gone("its files are not there".into()));
        }
        vanished
    }

    /// Does with a small file all that is done with a large one: makes, reserves, writes, syncs, renames and removes it.
    pub(crate) fn probe(&self) -> io::Result<()> {
        let (path, renamed) = (self.path.join(PROBE), self.path.join(PROBED));
        self.files.create_folder(&self.new_path())?;
        let file = self.files.create_over(&path)?;
        let result = self
            .files
            .reserve(&file, 0, MARKER_TEXT.len() as u64)
            .and_then(|()| self.files.write_at(&file, [MARKER_TEXT], 0))
            .and_then(|()| self.files.sync(&file))
            .and_then(|()| self.files.rename(&path, &renamed));
        self.files.remove(if result.is_ok() { &renamed } else { &path })?;
        result
    }

    /// Removes files whose entries are gone from the index.
    pub(crate) fn unlink(&self, names: &[Name]) {
        if self.is_silent() {
            let mut later = self.unlink_later.lock().unwrap_or_else(PoisonError::into_inner);
            let room = MAX_UNLINKED_LATER.saturating_sub(later.len());
            later.extend(names.iter().take(room)); // beyond that, the next start finds them, and what replaced them
            return;
        }
        for &name in names {
            if let Err(error) = self.files.remove(&self.path_of(name)) {
                self.failed("remove", &error);
            }
        }
    }

    /// Whether `bytes` can be written while the file system keeps its reserve. Where others have filled it, entries of
    /// ours that take as much have left the index for it; their names are for the caller to unlink, and then to ask again.
    pub(crate) fn has_space(&self, bytes: u64) -> io::Result<bool> {
        let space = self.files.space(&self.path)?;
        let reserve = (space.total_bytes / RESERVE_PART).min(MAX_RESERVE_BYTES);
        Ok(space.free_bytes >= reserve.saturating_add(bytes))
    }

    /// See [`Self::has_space`]: entries that make room for `bytes`.
    pub(crate) fn shed(&self, bytes: u64, now_s: u32) -> Vec<Name> {
        self.index().shed(blocks(bytes), now_s)
    }

    /// How well an entry fits here; the folder with the highest score gets it.
    pub(crate) fn score(&self, key_hash: KeyHash) -> f64 {
        let mut bytes = [0; 24];
        let (hash, number) = bytes.split_at_mut(16);
        hash.copy_from_slice(&key_hash.0.to_le_bytes());
        number.copy_from_slice(&(self.number as u64).to_le_bytes());
        // Between 0 and 1, and neither of them.
        let even = ((XxHash3_64::oneshot(&bytes) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -(self.limit_bytes as f64) / even.ln()
    }

    /// Moves a file that is whole to its place.
    pub(crate) fn place(&self, temporary: &Path, name: Name) -> io::Result<()> {
        let path = self.path_of(name);
        match self.files.rename(temporary, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.files.create_folder(&self.fan_path(Self::fan(name)))?;
                self.files.rename(temporary, &path)
            }
            result => result,
        }
    }
}
