//! What a local folder needs beyond `object_store`: making names durable, and finding what a crash left behind.
//!
//! A blob is placed by a second hard link to the (already synced) staging file, renamed over `blobs/ab/cd/<digest>`:
//! atomic, without copying, and it replaces a copy that has gone bad by a good one. Then the directory is synced, and
//! its parents the first time that this process places something there: a directory that is found existing may have
//! been made a moment ago by another upload, or by a process that died before it synced, so existing proves nothing.
//! Directories below `blobs/` are never removed.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use api::Digest;

use crate::BlobError;

/// The local folder of a store.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    /// The `ab/cd` whose directories are known to be durable with all their parents. The lock is held for a look or an
    /// insertion, never during I/O. At most 65,536 pairs.
    durable: Mutex<HashSet<[u8; 2]>>,
}

impl Folder {
    /// Makes the folder where it is missing, and its own name durable.
    pub(crate) fn open(root: &Path) -> Result<Self, BlobError> {
        for dir in [root.to_owned(), root.join("blobs"), root.join("staging")] {
            fs::create_dir_all(&dir).map_err(|source| BlobError::folder(&dir, source))?;
        }
        let root = fs::canonicalize(root).map_err(|source| BlobError::folder(root, source))?;
        for dir in [Some(root.as_path()), root.parent()].into_iter().flatten() {
            sync(dir)?;
        }
        Ok(Self { root, durable: Mutex::default() })
    }

    /// Makes the bytes of a staging file durable (its name need not be). Blocks.
    pub(crate) fn sync_staged(&self, name: &str) -> Result<(), BlobError> {
        sync(&self.staged(name))
    }

    /// Makes durable what was written so far of a staging file that still has its temporary name. Blocks.
    pub(crate) fn sync_growing(&self, name: &str) -> Result<(), BlobError> {
        sync(&self.growing(name))
    }

    /// Puts the staging file `name`, whose bytes are durable, in place as the blob `digest`, durably. Blocks.
    pub(crate) fn publish(&self, name: &str, digest: Digest) -> Result<(), BlobError> {
        let [a, b, ..] = digest.0;
        let first = self.root.join("blobs").join(format!("{a:02x}"));
        let leaf = first.join(format!("{b:02x}"));
        let blob = leaf.join(digest.to_string());
        let (staged, link) = (self.staged(name), self.staged(&format!("{name}.link")));

        fs::create_dir_all(&leaf).map_err(|source| BlobError::folder(&leaf, source))?;
        remove_if_there(&link)?;
        fs::hard_link(&staged, &link).map_err(|source| BlobError::folder(&staged, source))?;
        let renamed = fs::rename(&link, &blob).map_err(|source| BlobError::folder(&blob, source));
        // Also after success: renaming one name of a file over another name of it does nothing (POSIX rename).
        let removed = remove_if_there(&link);
        renamed.and(removed)?;

        sync(&leaf)?;
        if !self.lock().contains(&[a, b]) {
            sync(&first)?;
            sync(&self.root.join("blobs"))?;
            self.lock().insert([a, b]);
        }
        Ok(())
    }

    /// Removes what is left of the staging file `name`: itself, or the temporary name it is written under. Blocks.
    pub(crate) fn remove_staged(&self, name: &str) -> Result<(), BlobError> {
        remove_if_there(&self.growing(name))?;
        remove_if_there(&self.staged(&format!("{name}.link")))?;
        remove_if_there(&self.staged(name))
    }

    /// Removes every file in `staging/` that was last written longer than `age` ago, and answers how many. Blocks.
    /// Reads the directory itself, because `object_store` does not list the temporary names it writes under.
    pub(crate) fn sweep(&self, age: Duration) -> Result<u64, BlobError> {
        let dir = self.root.join("staging");
        let failed = |source| BlobError::folder(&dir, source);
        let Some(before) = SystemTime::now().checked_sub(age) else { return Ok(0) };
        let mut removed = 0;
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // An upload may finish and take its file away while this runs.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_file() && meta.modified().map_err(failed)? <= before {
                remove_if_there(&entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn staged(&self, name: &str) -> PathBuf {
        self.root.join("staging").join(name)
    }

    /// Where `object_store` writes an object before it renames it (the number is counted up, but names are unique).
    fn growing(&self, name: &str) -> PathBuf {
        self.staged(&format!("{name}#1"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<[u8; 2]>> {
        // A set of pairs is whole after every operation, also one that panicked.
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until a file's bytes, or a directory's entries, are on the disk.
fn sync(path: &Path) -> Result<(), BlobError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|source| BlobError::folder(path, source))
}

fn remove_if_there(path: &Path) -> Result<(), BlobError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(BlobError::folder(path, source)),
        _ => Ok(()),
    }
}
