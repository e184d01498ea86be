//! Every call of the disk tier into the file system, and the faults that tests put there.
//!
//! The tier uses no file but through [`Files`], so that a test (or the torture command) can make any kind of operation
//! fail in any folder, as a full, dying or vanished disk does. Without rules a call costs one relaxed load more.
//!
//! The lock covers the list of rules; no call into the file system is made under it.

use std::fs::{File, OpenOptions, ReadDir};
use std::io::{self, IoSlice, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::buffer::spare_capacity;
use rustix::fs::{FallocateFlags, StatVfs};
use rustix::io::Errno;

/// Kinds of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Opening a file that is there.
    Open,
    /// Making a file or a folder.
    Create,
    /// Reading from a file.
    Read,
    /// Writing to a file, or setting its size.
    Write,
    /// Syncing a file or the file system.
    Sync,
    /// Renaming.
    Rename,
    /// Removing a file.
    Remove,
    /// Reserving space.
    Reserve,
    /// Listing a folder, or asking whether a file is there.
    List,
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// `ENOSPC`
    Full,
    /// `EROFS`
    ReadOnly,
    /// `EIO`
    Io,
    /// `EMFILE`
    TooManyFiles,
    /// `ENOENT`
    Missing,
    /// It waits until the rules are taken away, and then goes on.
    Hang,
}

/// When which operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The operation; `None` = whichever it is.
    pub operation: Option<Operation>,
    /// The folder's place in the configuration; `None` = in all.
    pub folder: Option<usize>,
    /// How it fails.
    pub failure: Failure,
    /// Operations that pass before the first that fails.
    pub after: u32,
    /// Operations that fail; then the rule is gone. `u32::MAX` = all.
    pub times: u32,
}

/// The rules in force. None, unless a test has made some.
#[derive(Debug, Default)]
pub struct Faults {
    any: AtomicBool,
    rules: Mutex<Vec<Rule>>,
    cleared: Condvar,
}

impl Faults {
    /// Adds a rule.
    pub fn add(&self, rule: Rule) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).push(rule);
        self.any.store(true, Ordering::Relaxed);
    }

    /// Takes all rules away.
    pub fn clear(&self) {
        self.any.store(false, Ordering::Relaxed);
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.cleared.notify_all();
    }

    fn check(&self, operation: Operation, folder: usize) -> io::Result<()> {
        if !self.any.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failure = None;
        rules.retain_mut(|rule| {
            let other = rule.operation.is_some_and(|only| only != operation);
            if failure.is_some() || other || rule.folder.is_some_and(|only| only != folder) {
                return true;
            }
            if rule.after > 0 {
                rule.after -= 1;
                return true;
            }
            failure = Some(rule.failure);
            if rule.times != u32::MAX {
                rule.times = rule.times.saturating_sub(1);
            }
            rule.times > 0
        });
        match failure {
            None => Ok(()),
            Some(Failure::Hang) => {
                let waiting = |_: &mut Vec<Rule>| self.any.load(Ordering::Relaxed);
                drop(self.cleared.wait_while(rules, waiting).unwrap_or_else(PoisonError::into_inner));
                Ok(())
            }
            Some(Failure::Full) => Err(Errno::NOSPC.into()),
            Some(Failure::ReadOnly) => Err(Errno::ROFS.into()),
            Some(Failure::Io) => Err(Errno::IO.into()),
            Some(Failure::TooManyFiles) => Err(Errno::MFILE.into()),
            Some(Failure::Missing) => Err(Errno::NOENT.into()),
        }
    }
}

/// Whether the process, not the folder, is short of something: file descriptors or memory.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN].iter().any(|short| Some(short.raw_os_error()) == errno)
}

/// Whether the file system, or our quota in it, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The file system as one folder of the tier sees it.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    folder: usize,
    faults: Arc<Faults>,
    /// Operations that have begun, and that have ended.
    counts: Arc<[AtomicU64; 2]>,
}

/// An operation, which ends with this.
struct Doing<'a>(&'a AtomicU64);

impl Drop for Doing<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Files {
    pub(crate) fn new(folder: usize, faults: Arc<Faults>) -> Self {
        Self { folder, faults, counts: Arc::default() }
    }

    fn check(&self, operation: Operation) -> io::Result<Doing<'_>> {
        let [begun, ended] = &*self.counts;
        begun.fetch_add(1, Ordering::Relaxed);
        let doing = Doing(ended);
        self.faults.check(operation, self.folder).map(|()| doing)
    }

    /// How many operations have begun, and how many have ended, one way or the other.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let [begun, ended] = &*self.counts;
        let ended = ended.load(Ordering::Relaxed);
        (begun.load(Ordering::Relaxed), ended)
    }

    /// Opens a file for reading.
    pub(crate) fn open(&self, path: &Path) -> io::Result<File> {
        let _doing = self.check(Operation::Open)?;
        File::open(path)
    }

    /// Opens a file for writing in place; it must be there.
    pub(crate) fn open_to_write(&self, path: &Path) -> io::Result<File> {
        let _doing = self.check(Operation::Open)?;
        OpenOptions::new().read(true).write(true).open(path)
    }

    /// Makes a file that is not there yet.
    pub(crate) fn create(&self, path: &Path) -> io::Result<File> {
        let _doing = self.check(Operation::Create)?;
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    /// Makes a file, or empties the one that is there.
    pub(crate) fn create_over(&self, path: &Path) -> io::Result<File> {
        let _doing = self.check(Operation::Create)?;
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)
    }

    /// Makes a folder and those above it; one that is there is fine.
    pub(crate) fn create_folder(&self, path: &Path) -> io::Result<()> {
        let _doing = self.check(Operation::Create)?;
        std::fs::create_dir_all(path)
    }

    /// Fills `buffer` from the bytes at `at`; says how many there were before the end of the file.
    pub(crate) fn read_at(&self, file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let _doing = self.check(Operation::Read)?;
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, at + done as u64) {
                Ok(0) => break,
                Ok(more) => done += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// The `most` bytes at `at`, or as many as there were before the end of the file. Memory for them is not filled with zeros
    /// first.
    pub(crate) fn read(&self, file: &File, most: usize, at: u64) -> io::Result<Vec<u8>> {
        let _doing = self.check(Operation::Read)?;
        let mut bytes = Vec::with_capacity(most);
        while bytes.len() < most {
            let from = at + bytes.len() as u64;
            match rustix::io::pread(file, spare_capacity(&mut bytes), from) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        bytes.truncate(most);
        Ok(bytes)
    }

    /// The size of a file.
    pub(crate) fn size(&self, file: &File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    /// Writes `chunks` one after the other at `at`.
    pub(crate) fn write_at<'a>(
        &self,
        file: &File,
        chunks: impl IntoIterator<Item = &'a [u8]>,
        mut at: u64,
    ) -> io::Result<()> {
        for chunk in chunks {
            let _doing = self.check(Operation::Write)?;
            file.write_all_at(chunk, at)?;
            at += chunk.len() as u64;
        }
        Ok(())
    }

    /// Writes `chunks` at the position of the file, with as few calls as possible.
    pub(crate) fn append<'a>(&self, mut file: &File, chunks: impl IntoIterator<Item = &'a [u8]>) -> io::Result<()> {
        let _doing = self.check(Operation::Write)?;
        let mut slices: Vec<_> = chunks.into_iter().filter(|chunk| !chunk.is_empty()).map(IoSlice::new).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            match file.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(done) => IoSlice::advance_slices(&mut rest, done),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sets the size of a file; what is new is a hole.
    pub(crate) fn set_size(&self, file: &File, bytes: u64) -> io::Result<()> {
        let _doing = self.check(Operation::Write)?;
        file.set_len(bytes)
    }

    /// Reserves space for the bytes at `at`, without changing the file's size. A file system that cannot is fine.
    pub(crate) fn reserve(&self, file: &File, at: u64, bytes: u64) -> io::Result<()> {
        let _doing = self.check(Operation::Reserve)?;
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, at, bytes.max(1)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Gives the space of the bytes at `at` back, as far as the file system can.
    pub(crate) fn release(&self, file: &File, at: u64, bytes: u64) {
        let flags = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE;
        let _ = rustix::fs::fallocate(file, flags, at, bytes.max(1));
    }

    /// Syncs a file, its size included.
    pub(crate) fn sync(&self, file: &File) -> io::Result<()> {
        let _doing = self.check(Operation::Sync)?;
        file.sync_all()
    }

    /// Syncs the file system that holds `file`: what could not be written since the last time is an error.
    pub(crate) fn sync_all(&self, file: &File) -> io::Result<()> {
        let _doing = self.check(Operation::Sync)?;
        Ok(rustix::fs::syncfs(file)?)
    }

    /// Renames, over what is there.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _doing = self.check(Operation::Rename)?;
        std::fs::rename(from, to)
    }

    /// Removes a file; one that is not there is fine.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        let _doing = self.check(Operation::Remove)?;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// What is in a folder.
    pub(crate) fn list(&self, path: &Path) -> io::Result<ReadDir> {
        let _doing = self.check(Operation::List)?;
        std::fs::read_dir(path)
    }

    /// Whether something is there.
    pub(crate) fn is_there(&self, path: &Path) -> io::Result<bool> {
        match self.check(Operation::List) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            result => result.and_then(|_doing| path.try_exists()),
        }
    }

    /// How large the file system is and how much of it is free for us, in bytes.
    pub(crate) fn space(&self, path: &Path) -> io::Result<Space> {
        let _doing = self.check(Operation::Reserve)?;
        let StatVfs { f_frsize, f_blocks, f_bavail, .. } = rustix::fs::statvfs(path)?;
        Ok(Space { total_bytes: f_blocks.saturating_mul(f_frsize), free_bytes: f_bavail.saturating_mul(f_frsize) })
    }

    /// Asks the kernel to forget what it holds of a file, so that the next read comes from the disk.
    pub(crate) fn forget(&self, file: &File) {
        let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    }
}

/// See [`Files::space`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Space {
    pub(crate) total_bytes: u64,
    pub(crate) free_bytes: u64,
}
