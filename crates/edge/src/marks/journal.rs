//! The files of the marks: which there are, what a restart would make of them, and what happens when one cannot be written.
//!
//! `marks.snapshot` ([`super::state`]) names a generation; `marks.<generation>.log` ([`super::log`]) continues it. To
//! replace both, a log of the next generation is made, the old one is ended with «continued», records go to the new one from
//! then on, and only then is the snapshot written that the new log continues. Whenever the process or the machine ends in
//! the midst of this, the old snapshot, the old log and the new one say everything.
//!
//! When something cannot be written, the marks in memory are still right; what is wrong is the disk. So it is made
//! *distrusted*: the snapshot is removed, or, where that fails, the log is voided. A restart then revalidates everything.
//! Where not even that can be done the state is *exposed*: nothing is acknowledged until it can. A snapshot that is written
//! later holds everything and ends this.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::MarksMetrics;
use super::log::{self, Log, LogError, Seal};
use super::record::Record;
use super::state::{MAX_SNAPSHOT_BYTES, State};

pub(super) const SNAPSHOT_FILE: &str = "marks.snapshot";

/// What a restart would make of what is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// The same marks as now, but for what has not been synced.
    Trusted,
    /// No marks: everything is revalidated.
    Distrusted,
    /// Marks of which some are missing.
    Exposed,
}

/// Why there are no marks to go on with.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("there is no {SNAPSHOT_FILE}")]
    Nothing,
    #[error("{SNAPSHOT_FILE}: {0}")]
    Io(io::Error),
    #[error("{SNAPSHOT_FILE} is damaged, or of a format that this program does not read")]
    Snapshot,
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the log of generation {0} does not end where the next one goes on")]
    Chain(u64),
}

/// The files of the marks. Every method that writes blocks for about as long as the disk does.
pub(super) struct Journal {
    pub(super) folder: PathBuf,
    pub(super) seal: Seal,
    /// Where records go; nothing: they cannot be written.
    pub(super) log: Option<Log>,
    /// The log that was made last, to be voided.
    pub(super) last: Option<Arc<File>>,
    /// Of the log that was made last.
    generation: u64,
    /// Of the snapshot on the disk.
    snapshot: u64,
    pub(super) unsynced: Vec<Arc<File>>,
    /// Records that were to be written, and how many of them are on the disk or not needed there.
    pub(super) written: u64,
    pub(super) synced: u64,
    pub(super) health: Health,
    /// What went wrong last.
    pub(super) failure: String,
    metrics: MarksMetrics,
}

/// What has to be synced: the files, and how many records are on the disk then.
pub(super) struct Unsynced {
    pub(super) files: Vec<Arc<File>>,
    upto: u64,
}

impl Journal {
    /// Reads what a former life has left.
    pub(super) fn load(folder: &Path, capacity: usize, metrics: MarksMetrics) -> Result<(State, Self), Lost> {
        let path = folder.join(SNAPSHOT_FILE);
        let length = match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Lost::Nothing),
            found => found.map_err(Lost::Io)?.len(),
        };
        if length > MAX_SNAPSHOT_BYTES {
            return Err(Lost::Snapshot);
        }
        let bytes = std::fs::read(&path).map_err(Lost::Io)?;
        let (mut state, seal, snapshot) = State::decode(&bytes, capacity).ok_or(Lost::Snapshot)?;
        let mut generation = snapshot;
        let (mut records, mut end) = Log::read(folder, &seal, generation)?;
        if records.last() == Some(&Record::Continued) {
            records.iter().for_each(|record| state.take(record));
            generation += 1;
            (records, end) = Log::read(folder, &seal, generation)?;
        }
        if records.contains(&Record::Continued) {
            return Err(Lost::Chain(generation));
        }
        records.iter().for_each(|record| state.take(record));
        let mut journal = Self::new(folder, seal, metrics);
        (journal.generation, journal.snapshot, journal.health) = (generation, snapshot, Health::Trusted);
        match Log::resume(folder, seal, generation, end) {
            Ok(log) => {
                journal.last = Some(Arc::clone(&log.file));
                journal.log = Some(log);
            }
            Err(error) => journal.fail(&error),
        }
        Ok((state, journal))
    }

    /// Begins anew, in a folder that may hold what cannot be used.
    pub(super) fn anew(folder: &Path, seal: Seal, metrics: MarksMetrics) -> Self {
        let mut journal = Self::new(folder, seal, metrics);
        journal.distrust();
        journal
    }

    fn new(folder: &Path, seal: Seal, metrics: MarksMetrics) -> Self {
        Self {
            folder: folder.to_owned(),
            seal,
            log: None,
            last: None,
            generation: 0,
            snapshot: 0,
            unsynced: Vec::new(),
            written: 0,
            synced: 0,
            health: Health::Exposed,
            failure: String::new(),
            metrics,
        }
    }

    /// Writes a record to the file. It is on the disk when [`Self::unsynced`] has been synced.
    pub(super) fn append(&mut self, record: &Record) {
        self.written += 1;
        let Some(log) = &mut self.log else { return };
        match log.append(record) {
            Ok(()) if self.unsynced.iter().any(|file| Arc::ptr_eq(file, &log.file)) => {}
            Ok(()) => self.unsynced.push(Arc::clone(&log.file)),
            Err(error) => self.fail(&error),
        }
    }

    pub(super) fn unsynced(&mut self) -> Unsynced {
        Unsynced { files: std::mem::take(&mut self.unsynced), upto: self.written }
    }

    pub(super) fn synced(&mut self, unsynced: &Unsynced, result: io::Result<()>) {
        match result {
            Ok(()) => self.synced = self.synced.max(unsynced.upto),
            // What a failed sync has left on the disk nobody knows, and trying it again would not tell.
            Err(error) => self.fail(&error),
        }
    }

    /// The generation of the snapshot that is to be written next, and whether its log has to be made first.
    pub(super) fn next(&self) -> (u64, bool) {
        match &self.log {
            Some(log) if log.generation > self.snapshot => (log.generation, false),
            _ => (self.generation + 1, true),
        }
    }

    /// From here on records go to `log`.
    pub(super) fn switch(&mut self, log: Log) {
        if self.log.is_some() {
            self.append(&Record::Continued);
        }
        self.last = Some(Arc::clone(&log.file));
        self.generation = log.generation;
        self.log = Some(log);
    }

    /// A snapshot is on the disk that the log of `generation` continues.
    pub(super) fn snapshot_written(&mut self, generation: u64) {
        self.snapshot = generation;
        if self.log.as_ref().is_some_and(|log| log.generation == generation) {
            if self.health != Health::Trusted {
                tracing::info!(folder = %self.folder.display(), "the marks of purges are kept on disk");
            }
            self.health = Health::Trusted;
        } else {
            // An append has failed meanwhile, so this snapshot lacks what it was about.
            self.distrust();
        }
        self.show();
    }

    /// Something could not be written.
    pub(super) fn fail(&mut self, error: &io::Error) {
        self.metrics.failures.inc();
        self.log = None;
        self.unsynced.clear();
        self.failure = error.to_string();
        self.distrust();
        let restart = if self.health == Health::Exposed { "is not safe" } else { "revalidates everything" };
        tracing::error!(folder = %self.folder.display(), %error, "the marks of purges cannot be kept; a restart {restart}");
    }

    /// Sees to it that a restart trusts nothing that is on the disk.
    pub(super) fn distrust(&mut self) {
        let removed = match std::fs::remove_file(self.folder.join(SNAPSHOT_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => File::open(&self.folder).and_then(|folder| folder.sync_all()),
        };
        // Where the folder is gone there is nothing to be trusted either.
        let gone = removed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        let void = removed.is_ok() || gone || self.last.as_ref().is_some_and(|file| Log::void(file).is_ok());
        self.health = if void { Health::Distrusted } else { Health::Exposed };
        if let (false, Err(error)) = (void, removed) {
            self.failure = format!("{}: {error}", self.folder.display());
        }
        self.show();
    }

    /// Removes what neither the snapshot nor its log needs.
    pub(super) fn tidy(&self, generation: u64) {
        log::remove_others(&self.folder, generation);
    }

    pub(super) fn show(&self) {
        self.metrics.trusted.set((self.health == Health::Trusted).into());
    }
}
