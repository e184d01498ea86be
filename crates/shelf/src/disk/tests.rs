//! Tests of the disk tier on real files: what they share.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use super::scan::Scan;
use super::*;
use tempfile::TempDir;

mod crash;
mod damage;
mod fixture;
mod life;
mod model;
mod restart;
mod torture;
mod trouble;

pub(super) const MIB: u64 = 1 << 20;

/// A tier in a folder of its own, with a clock that a test sets.
pub(super) struct Bench {
    pub(super) dir: TempDir,
    pub(super) now_ms: Arc<AtomicU64>,
    pub(super) faults: Arc<Faults>,
    pub(super) folders: usize,
    pub(super) limit_bytes: u64,
    pub(super) choice: PolicyChoice,
}

impl Bench {
    pub(super) fn new(limit_bytes: u64) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let now_ms = Arc::new(AtomicU64::new(1_800_000_000_000));
        let choice = PolicyChoice { policy: PolicyName::Lru, ..PolicyChoice::default() };
        Self { dir, now_ms, faults: Arc::default(), folders: 1, limit_bytes, choice }
    }

    pub(super) fn path(&self, folder: usize) -> PathBuf {
        self.dir.path().join(format!("folder{folder}"))
    }

    pub(super) fn config(&self) -> DiskConfig {
        let now_ms = self.now_ms.clone();
        DiskConfig {
            folders: (0..self.folders)
                .map(|number| FolderConfig { path: self.path(number), limit_bytes: self.limit_bytes })
                .collect(),
            choice: self.choice,
            clock: Arc::new(move || now_ms.load(Ordering::Relaxed)),
            faults: self.faults.clone(),
        }
    }

    /// A tier without threads: its scan is done.
    pub(super) fn open(&self) -> Arc<Disk> {
        let disk = self.open_unscanned();
        self.scan(&disk);
        disk
    }

    /// One that knows what its snapshots say.
    pub(super) fn open_unscanned(&self) -> Arc<Disk> {
        let disk = self.open_unread();
        self.recall(&disk);
        disk
    }

    pub(super) fn open_unread(&self) -> Arc<Disk> {
        Arc::new(Disk::load(self.config()).expect("a tier"))
    }

    /// What a folder's thread does first.
    pub(super) fn recall(&self, disk: &Disk) {
        for folder in disk.folders.iter().filter(|folder| !matches!(folder.state(), FolderState::Gone(_))) {
            disk.recall(folder);
        }
    }

    /// What the folders' threads do every two seconds.
    pub(super) fn scan(&self, disk: &Disk) {
        for folder in &disk.folders {
            disk.look_after(folder, Scan::Going);
        }
    }

    pub(super) fn pass_s(&self, seconds: u64) {
        self.now_ms.fetch_add(seconds * 1000, Ordering::Relaxed);
    }
}

/// Every file of an entry below a folder.
pub(super) fn entry_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir() && !path.ends_with("new"))
        .flat_map(|path| fs::read_dir(path).expect("a folder of entries"))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

pub(super) fn new(key: &str) -> New {
    New {
        key_hash: KeyHash(twox_hash::XxHash3_128::oneshot(key.as_bytes())),
        key: Bytes::copy_from_slice(key.as_bytes()),
        meta: Bytes::from(format!("meta of {key}")),
        stamp: [7; STAMP_BYTES],
        expires_s: None,
    }
}

/// Bytes that differ from block to block and from seed to seed; cheap without optimisation.
pub(super) fn bytes(length: u64, seed: u64) -> Bytes {
    let mut block = [0; 1024];
    fastrand::Rng::with_seed(seed).fill(&mut block);
    let mut out = Vec::with_capacity(length as usize + block.len());
    for number in 0..length.div_ceil(1024) {
        block[..8].copy_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&block);
    }
    out.truncate(length as usize);
    out.into()
}

pub(super) fn flaws(disk: &Disk) -> Vec<(Flaw, u64)> {
    let folders = disk.stats().folders;
    folders.iter().flat_map(|folder| folder.flaws).filter(|(_, count)| *count > 0).collect()
}

/// The parts of a body that its slices are.
pub(super) fn cut(body: &Bytes) -> Vec<Bytes> {
    let count = slices(body.len() as u64) as usize;
    (0..count).map(|n| body.slice(n * MIB as usize..body.len().min((n + 1) * MIB as usize))).collect()
}

/// A large entry with all its slices.
pub(super) fn store(disk: &Disk, new: &New, body: &Bytes) -> Result<EntryId, WriteError> {
    let id = disk.create(new, Some(body.len() as u64), 0)?;
    for (number, slice) in (0..).zip(cut(body)) {
        disk.write_slice(id, number, &[slice])?;
    }
    Ok(id)
}
