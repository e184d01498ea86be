//! What tools and metrics ask: counters, a listing, and a reading of everything that is stored.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::folder::{FANS, Folder};
use super::format::{BLOCK_BYTES, Flaw, KeyHash};
use super::index::Record;
use super::{Disk, EntryId, FolderState, ReadError};

/// The most entries on a page of [`Disk::list`].
pub const MAX_PAGE: usize = 4096;

/// What the tier has and has done since it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Reads that brought something.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Files that are open for reading.
    pub open_files: usize,
    /// Each folder, in the order of the configuration.
    pub folders: Vec<FolderStats>,
}

/// What a folder has and has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderStats {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it can be used.
    pub state: FolderState,
    /// Entries that the index knows.
    pub entries: u64,
    /// What they take, with what is reserved for writes in flight.
    pub bytes: u64,
    /// What they may take.
    pub limit_bytes: u64,
    /// What the index takes in memory.
    pub index_bytes: u64,
    /// How much of the folder was looked at since it came into use, in thousandths; 1000 = all.
    pub scanned_permille: u32,
    /// Slices read and verified.
    pub reads: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Reads that the file system failed.
    pub read_errors: u64,
    /// Times that somebody gave up waiting while the folder was busy.
    pub timeouts: u64,
    /// Entries made and slices written.
    pub writes: u64,
    /// Bytes of bodies written.
    pub written_bytes: u64,
    /// Writes, syncs and removals that the file system failed.
    pub write_errors: u64,
    /// Writes refused: out of use, full, too large.
    pub refused: u64,
    /// Entries that left for others.
    pub evictions: u64,
    /// Entries that left because they had expired.
    pub expirations: u64,
    /// Entries that a snapshot had and the folder had not: removed after it was written, or lost.
    pub forgotten: u64,
    /// What was found damaged, of each kind.
    pub flaws: [(Flaw, u64); Flaw::ALL.len()],
}

/// Where a listing goes on. `Cursor::default()` is the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Which folder.
    pub folder: u16,
    /// Which of its slots.
    pub slot: u32,
}

/// What the index knows of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Which entry.
    pub id: EntryId,
    /// The hash of its key.
    pub key_hash: KeyHash,
    /// Its folder's place in the configuration.
    pub folder: usize,
    /// What its file takes.
    pub bytes: u64,
    /// Bytes of the body, where that is known.
    pub length: Option<u64>,
    /// Whether all slices are there.
    pub complete: bool,
    /// When it was stored: Unix time in milliseconds.
    pub stored_ms: u64,
    /// When it was last used: Unix time in seconds.
    pub used_s: u32,
    /// When it stops being of use: Unix time in seconds.
    pub expires_s: Option<u32>,
    /// How often it was used; 65,535 = that or more.
    pub uses: u16,
}

/// What [`Disk::verify`] has found wrong, dropped and counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whose entry it was.
    pub key_hash: KeyHash,
    /// Its folder's place in the configuration.
    pub folder: usize,
    /// The slice that was damaged, where the entry itself was not.
    pub slice: Option<u32>,
    /// What was wrong.
    pub flaw: Flaw,
}

/// What a step of [`Disk::verify`] has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// Entries read.
    pub entries: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What was wrong.
    pub findings: Vec<Finding>,
    /// Entries that the file system did not let us read.
    pub unreadable: u64,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

impl Disk {
    /// What the tier has and has done. Memory only.
    pub fn stats(&self) -> Stats {
        Stats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            open_files: self.open_files.load(Ordering::Relaxed),
            folders: self.folders.iter().map(folder_stats).collect(),
        }
    }

    /// Up to `most` entries (at most [`MAX_PAGE`]) from a cursor on, and where to go on. Memory only. What comes or goes
    /// between two pages may be seen or not; all else is seen once.
    pub fn list(&self, from: Cursor, most: usize) -> (Vec<Summary>, Option<Cursor>) {
        let Some(folder) = self.folders.get(usize::from(from.folder)) else { return (Vec::new(), None) };
        let (records, next) = folder.index().page(from.slot, most.clamp(1, MAX_PAGE));
        let summaries = records.into_iter().map(|(slot, record)| summary(folder, slot, &record)).collect();
        let next = match next {
            Some(slot) => Some(Cursor { slot, ..from }),
            None if usize::from(from.folder) + 1 < self.folders.len() => {
                Some(Cursor { folder: from.folder + 1, slot: 0 })
            }
            None => None,
        };
        (summaries, next)
    }

    /// What the index knows of an entry, if that is still there. Memory only.
    pub fn summary(&self, id: EntryId) -> Option<Summary> {
        let folder = self.folder(id)?;
        let record = folder.index().get(id.slot, id.nonce).copied()?;
        Some(summary(folder, id.slot, &record))
    }

    /// Reads what is stored from the disk again, about `most_bytes` of it and at most [`MAX_PAGE`] entries; what is damaged
    /// is dropped and counted. Blocks.
    pub fn verify(&self, from: Cursor, most_bytes: u64) -> Findings {
        let mut done = Findings { next: Some(from), ..Findings::default() };
        let more = |done: &Findings| done.entries == 0 || (done.bytes < most_bytes && done.entries < MAX_PAGE as u64);
        while let Some(cursor) = done.next.filter(|_| more(&done)) {
            let (page, next) = self.list(cursor, 1);
            done.next = next;
            for one in page {
                self.verify_one(&one, &mut done);
            }
        }
        done
    }

    fn verify_one(&self, one: &Summary, done: &mut Findings) {
        let Some(folder) = self.folder(one.id) else { return };
        let Some(record) = folder.index().get(one.id.slot, one.id.nonce).copied() else { return };
        done.entries += 1;
        let mut note = |slice, error| match error {
            ReadError::Corrupt(flaw) => {
                done.findings.push(Finding { key_hash: one.key_hash, folder: one.folder, slice, flaw });
            }
            ReadError::Io(_) | ReadError::Busy | ReadError::Silent => done.unreadable += 1,
            ReadError::Absent | ReadError::Gone => {}
        };
        let handle = match self.open_handle(folder, one.id, &record, true) {
            Ok(handle) => handle,
            Err(error) => return note(None, error),
        };
        done.bytes += handle.header.body_at();
        for number in 0..handle.header.places.max(1) {
            match self.slice_of(&handle, number) {
                Ok(slice) => done.bytes += slice.len() as u64,
                Err(error) => note((handle.header.places > 0).then_some(number), error),
            }
        }
    }
}

fn folder_stats(folder: &Folder) -> FolderStats {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let counters = &folder.counters;
    let (entries, bytes, index_bytes, evictions, expirations) = {
        let index = folder.index();
        (index.len() as u64, index.bytes(), index.heap_bytes() as u64, index.evictions, index.expirations)
    };
    let mut flaws = Flaw::ALL.map(|flaw| (flaw, 0));
    for ((_, total), counter) in flaws.iter_mut().zip(&counters.flaws) {
        *total = count(counter);
    }
    FolderStats {
        path: folder.path.clone(),
        state: folder.state(),
        entries,
        bytes,
        limit_bytes: folder.limit_bytes,
        index_bytes,
        scanned_permille: folder.scanned_fans.load(Ordering::Relaxed) * 1000 / FANS as u32,
        reads: count(&counters.reads),
        read_bytes: count(&counters.read_bytes),
        read_errors: count(&counters.read_errors),
        timeouts: count(&counters.timeouts),
        writes: count(&counters.writes),
        written_bytes: count(&counters.written_bytes),
        write_errors: count(&counters.write_errors),
        refused: count(&counters.refused),
        evictions,
        expirations,
        forgotten: count(&counters.forgotten),
        flaws,
    }
}

fn summary(folder: &Folder, slot: u32, record: &Record) -> Summary {
    let nonce: NonZeroU64 = record.nonce;
    Summary {
        id: EntryId { nonce, slot, folder: folder.number as u16 },
        key_hash: record.name().key_hash,
        folder: folder.number,
        bytes: u64::from(record.blocks) * BLOCK_BYTES,
        length: record.length(),
        complete: record.is_complete(),
        stored_ms: record.stored_ms,
        used_s: record.used_s,
        expires_s: Some(record.expires_s).filter(|&expires| expires != 0),
        uses: record.uses,
    }
}
