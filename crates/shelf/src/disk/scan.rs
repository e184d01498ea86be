//! What a folder's own thread does: it reads the snapshot, finds out what is really there, probes, and writes snapshots.
//!
//! The scan goes through the entries' folders one by one. A file that the index has not is opened and its head read; a
//! file that it has from a snapshot is believed in (its head is read when it is used), unless it is sliced, because
//! slices come after the snapshot. One whose length nobody has said is removed: its writer died with the life before.
//! What the snapshot has and the scan has not found is gone. What was removed since the start is not brought back, by neither.
//! Meanwhile the tier serves; a key whose folder the scan has not reached is looked for by name ([`Disk::seek`]).

use std::io;
use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::files::is_shortage;
use super::folder::{Counters, FANS, Folder, Unusable};
use super::format::{Flaw, KeyHash, Name};
use super::index::{UNSEEN, WHOLE};
use super::read::{Trouble, record_of};
use super::{Disk, EntryId, FolderState, PROBE_MS, SNAPSHOT_MS, Stop, snapshot};

/// Records looked at under one lock.
const PAGE: usize = 4096;
/// Threads that scan a folder: a disk does several reads at once sooner than one after the other.
const SCANNERS: usize = 4;
/// Folders of entries that cannot be listed before the scan gives up for now.
const MAX_FAILURES: usize = 16;

/// How far the scan of a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scan {
    /// The folder was just begun with: its snapshot is to be read first.
    Begun,
    /// There is more to do now.
    Going,
    /// There is more to do, but not now.
    Stuck,
    /// It is done.
    Done,
}

/// Gets a folder whose lock was taken ready for use. Its snapshot comes later, by its thread: a million records take a second.
pub(crate) fn start(folder: &Folder) {
    for done in &folder.scanned {
        done.store(false, Ordering::Release);
    }
    folder.scanned_fans.store(0, Ordering::Relaxed);
    folder.recalled.store(false, Ordering::Release);
    folder.index().begin_scan();
    match folder.probe() {
        Ok(()) => folder.set_state(FolderState::Ok),
        Err(error) => folder.set_state(FolderState::ReadOnly(error.to_string())),
    }
}

/// Writes a folder's snapshot.
pub(crate) fn save(folder: &Folder) {
    if folder.is_writable()
        && let Err(error) = snapshot::save(folder)
    {
        folder.failed("write the index", &error);
    }
}

/// The life of a folder's thread.
pub(crate) fn tend(disk: &Weak<Disk>, stop: &Stop, number: usize) {
    let (mut scan, mut saved_at, mut saved) = (Scan::Begun, Instant::now(), 0);
    loop {
        {
            let Some(disk) = disk.upgrade() else { return };
            let Some(folder) = disk.folders.get(number) else { return };
            scan = disk.look_after(folder, scan);
            let changes = folder.index().changes;
            if scan != Scan::Going && changes != saved && saved_at.elapsed() >= Duration::from_millis(SNAPSHOT_MS) {
                save(folder);
                (saved_at, saved) = (Instant::now(), changes);
            }
        }
        if stop.wait(Duration::from_millis(if scan == Scan::Going { 0 } else { PROBE_MS })) {
            return;
        }
    }
}

impl Disk {
    /// What the tier's clock and the state of a folder ask for now. Goes on with its scan.
    pub(crate) fn look_after(&self, folder: &Folder, mut scan: Scan) -> Scan {
        match folder.state() {
            FolderState::Gone(_) => match folder.settle() {
                Ok(()) => {
                    start(folder);
                    scan = Scan::Begun;
                }
                Err(Unusable::InUse) => folder.set_state(FolderState::Gone("another process has it".into())),
                Err(Unusable::Io(error)) => folder.set_state(FolderState::Gone(error.to_string())),
            },
            // This may take as long as the folder is silent. A failure is an answer, too.
            FolderState::Silent(_) => {
                let answer = folder.probe();
                folder.set_state(
                    answer.map_or_else(|error| FolderState::ReadOnly(error.to_string()), |()| FolderState::Ok),
                );
                folder.catch_up();
            }
            _ if self.has_vanished(folder) => {}
            FolderState::ReadOnly(_) => {
                if folder.probe().is_ok() {
                    folder.set_state(FolderState::Ok);
                }
            }
            FolderState::Ok => {}
        }
        if scan != Scan::Done && !matches!(folder.state(), FolderState::Gone(_)) {
            if scan == Scan::Begun {
                self.recall(folder);
            }
            scan = self.scan(folder);
        }
        scan
    }

    /// Takes what the snapshot says into the index.
    pub(crate) fn recall(&self, folder: &Folder) {
        match snapshot::load(folder) {
            Ok(victims) => self.discard(folder, &victims),
            Err(error) => {
                if matches!(error, snapshot::LoadError::Damaged) {
                    folder.counters.flaw(Flaw::Index);
                }
                tracing::info!(folder = %folder.path.display(), %error, "no index of the cache folder; its files are read");
            }
        }
        self.trim(folder);
        folder.recalled.store(true, Ordering::Release);
    }

    /// Keeps to the limit of a folder, a page at a time.
    fn trim(&self, folder: &Folder) {
        loop {
            let victims = folder.index().trim(self.now_s(), PAGE);
            self.discard(folder, &victims);
            if victims.len() < PAGE {
                return;
            }
        }
    }

    /// Whether the snapshots of all folders have been read, so that lists are as whole as they were. A folder that is out of
    /// use has none.
    pub fn is_recalled(&self) -> bool {
        self.stop.is_stopped()
            || self.folders.iter().all(|folder| {
                folder.recalled.load(Ordering::Acquire)
                    || folder.is_silent()
                    || matches!(folder.state(), FolderState::Gone(_))
            })
    }

    /// Whether everything that is stored under a key is known to [`Self::find`]. Memory only.
    pub fn is_scanned(&self, key_hash: KeyHash) -> bool {
        let out_of_use = |folder: &Folder| folder.is_silent() || matches!(folder.state(), FolderState::Gone(_));
        self.folders.iter().all(|folder| is_scanned(folder, key_hash) || out_of_use(folder))
    }

    /// The entries of a key, newest first, looked for in the folders that the scan has not reached. Blocks for as long as
    /// it takes to list one folder of each.
    pub fn seek(&self, key_hash: KeyHash) -> Vec<EntryId> {
        for folder in self.folders.iter().filter(|folder| !folder.is_silent() && !is_scanned(folder, key_hash)) {
            let fan = Folder::fan(Name { key_hash, nonce: 0 });
            let Ok(names) = names_in(folder, fan) else { continue };
            for name in names.into_iter().filter(|name| name.key_hash == key_hash) {
                let _ = self.find_file(folder, name);
            }
        }
        self.find(key_hash)
    }

    /// Scans a folder, as much as it can until it is to be looked after again; says whether it came to the end.
    fn scan(&self, folder: &Folder) -> Scan {
        let began = Instant::now();
        let (next, failures) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = || {
            while !self.stop.is_stopped()
                && failures.load(Ordering::Relaxed) < MAX_FAILURES
                && began.elapsed() < Duration::from_millis(PROBE_MS)
            {
                let fan = next.fetch_add(1, Ordering::Relaxed);
                if fan >= FANS {
                    break;
                }
                let failed = self.scan_fan(folder, fan).is_err();
                failures.fetch_add(usize::from(failed), Ordering::Relaxed);
            }
        };
        self.sweep_new(folder);
        std::thread::scope(|scope| {
            for _ in 1..SCANNERS {
                // With fewer threads it takes longer.
                let _ = std::thread::Builder::new().name("shelf-scan".into()).spawn_scoped(scope, work);
            }
            work();
        });
        let failures = failures.into_inner();
        if self.stop.is_stopped() || failures >= MAX_FAILURES {
            return Scan::Stuck;
        }
        if next.into_inner() < FANS {
            return Scan::Going;
        }
        if failures > 0 || self.has_vanished(folder) {
            return Scan::Stuck;
        }
        self.forget_missing(folder);
        folder.index().end_scan();
        self.trim(folder);
        Scan::Done
    }

    /// Removes what a former life was writing.
    fn sweep_new(&self, folder: &Folder) {
        let Ok(entries) = folder.files.list(&folder.new_path()) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_str().is_some_and(|name| folder.is_ours(name)) {
                continue;
            }
            if let Err(error) = folder.files.remove(&entry.path()) {
                folder.failed("remove", &error);
            }
        }
    }

    fn scan_fan(&self, folder: &Folder, fan: usize) -> io::Result<()> {
        let Some(done) = folder.scanned.get(fan).filter(|done| !done.load(Ordering::Acquire)) else { return Ok(()) };
        for name in names_in(folder, fan)? {
            match self.find_file(folder, name) {
                Err(error) if is_shortage(&error) => return Err(error),
                // One bad sector does not end the scan. The file is left out; it may be readable at the next start.
                Err(_) => Counters::add(&folder.counters.read_errors, 1),
                Ok(()) => {}
            }
        }
        done.store(true, Ordering::Release);
        folder.scanned_fans.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes note of a file that is there.
    fn find_file(&self, folder: &Folder, name: Name) -> io::Result<()> {
        let known = {
            let mut index = folder.index();
            index.slot_of(name).and_then(|slot| index.seen(slot))
        };
        if known.is_some_and(|flags| flags & WHOLE != 0 || flags & UNSEEN == 0) {
            return Ok(());
        }
        // Slices may be written to what is known.
        let _unchanging = known.map(|_| folder.heads());
        match record_of(folder, name, |path| self.with_files(|| folder.files.open(path))) {
            Ok(None) => Ok(()),
            // Whoever was to say how long it is has died.
            Ok(Some(truth)) if truth.length().is_none() && truth.stored_ms < self.opened_ms => {
                let mut index = folder.index();
                index.slot_of(name).and_then(|slot| index.remove_at(slot));
                drop(index);
                self.discard(folder, &[name]);
                Ok(())
            }
            Ok(Some(truth)) => {
                let mut index = folder.index();
                let victims = match index.slot_of(name) {
                    // The snapshot had it. Once more, as of one that is known.
                    Some(_) if known.is_none() => {
                        drop(index);
                        return self.find_file(folder, name);
                    }
                    Some(slot) => {
                        index.correct(slot, truth.nonce, truth.length, truth.present, truth.blocks);
                        index.expire(slot, truth.nonce, truth.expires_s);
                        Vec::new()
                    }
                    None => index.restore(truth),
                };
                drop(index);
                self.discard(folder, &victims);
                Ok(())
            }
            Err(Trouble::Io(error)) => Err(error),
            Err(Trouble::Flaw(flaw)) => {
                let known = {
                    let mut index = folder.index();
                    index.slot_of(name).and_then(|slot| index.remove_at(slot))
                };
                if known.is_none() && !folder.index().may_add(name.nonce) {
                    return Ok(());
                }
                folder.counters.flaw(flaw);
                let file = name.file_name();
                tracing::warn!(folder = %folder.path.display(), file, kind = flaw.word(), "dropped a damaged entry");
                self.discard(folder, &[name]);
                Ok(())
            }
        }
    }

    /// What the snapshot has and the scan has not found.
    fn forget_missing(&self, folder: &Folder) {
        let mut from = Some(0);
        while let Some(at) = from {
            let mut index = folder.index();
            let (records, next) = index.page(at, PAGE);
            for (slot, record) in records {
                if record.flags & UNSEEN != 0 && index.remove(slot, record.nonce).is_some() {
                    Counters::add(&folder.counters.forgotten, 1);
                }
            }
            from = next;
        }
    }
}

fn is_scanned(folder: &Folder, key_hash: KeyHash) -> bool {
    let fan = Folder::fan(Name { key_hash, nonce: 0 });
    folder.scanned.get(fan).is_some_and(|done| done.load(Ordering::Acquire))
}

/// The entries' files in one of the folders; what is named otherwise is not ours.
fn names_in(folder: &Folder, fan: usize) -> io::Result<Vec<Name>> {
    let entries = match folder.files.list(&folder.fan_path(fan)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_str().and_then(Name::parse);
        names.extend(name.filter(|&name| Folder::fan(name) == fan));
    }
    Ok(names)
}
