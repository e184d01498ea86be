//! The log of marks: what has changed since the snapshot that it continues.
//!
//! A log is `marks.<generation>.log`, and always [`LOG_BYTES`] long: it is filled with zeros when it is made, and records
//! are written over them. So a full disk cannot stop an append, a sync has no length of a file to write, and a file that
//! was cut off is known by its length. Layout, numbers little-endian:
//!
//! - bytes 0 to 7: `LITMARKS`; 8 to 11: the format, 1; 12 to 19: the generation; 20 to 27: checksum of bytes 0 to 19;
//!   28 to 31: zeros;
//! - from byte 32 on, records: length of the record (4 bytes, not 0), the record ([`Record`]), its checksum (8 bytes);
//! - zeros.
//!
//! A checksum is the first 8 bytes of keyed BLAKE3, with the key that the snapshot holds, over the generation and the place
//! in the file (8 bytes each) and the bytes themselves: nothing from another log, or from elsewhere in this one, has the
//! right one. Whatever is not as described is damage, and a damaged log is not used at all: marks that are missing cannot
//! be told from marks that never were. That holds for the last record, too. It is whole after any end of the process but
//! one in the midst of a write of several pages, and then everything is revalidated once. What cannot be seen is a disk that
//! has lost whole writes after it had confirmed them.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fields::Fields;
use super::record::Record;

/// Length of a log: room for about 100,000 marks.
pub(super) const LOG_BYTES: usize = if cfg!(test) { 8 << 10 } else { 4 << 20 };
/// A log that holds more is to be replaced by a snapshot and a new one.
pub(super) const LONG_LOG_BYTES: usize = LOG_BYTES / 2;
/// A log that holds more is replaced before anything else is done.
pub(super) const FULL_LOG_BYTES: usize = LOG_BYTES / 4 * 3;

const MAGIC: &[u8; 8] = b"LITMARKS";
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 32;
/// What a record takes beside itself.
const FRAME_BYTES: usize = 4 + CHECKSUM_BYTES;
const CHECKSUM_BYTES: usize = 8;
const ZEROS: [u8; 4_096] = [0; 4_096];

/// The key of checksums.
pub(super) type Seal = [u8; 32];

/// A log that is being written. Records go to the file at once, and to the disk when it is synced.
pub(super) struct Log {
    pub(super) file: Arc<File>,
    pub(super) generation: u64,
    /// Where the next record goes.
    pub(super) end: usize,
    seal: Seal,
}

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    /// The operating system refuses.
    #[error("{path}: {why}")]
    Io { path: PathBuf, why: io::Error },
    /// It is not what was written.
    #[error("{path} is damaged: {what}")]
    Damaged { path: PathBuf, what: &'static str },
}

impl Log {
    /// Makes an empty log, on the disk when this returns. Blocks.
    pub(super) fn create(folder: &Path, seal: Seal, generation: u64) -> io::Result<Self> {
        let (path, temporary) = (path_of(folder, generation), folder.join("marks.log.new"));
        let mut bytes = header(&seal, generation);
        bytes.resize(LOG_BYTES, 0);
        let mut file = File::create(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()?;
        Ok(Self { file: Arc::new(file), generation, end: HEADER_BYTES, seal })
    }

    /// Reads a log: its records, and where the next one goes. Blocks.
    pub(super) fn read(folder: &Path, seal: &Seal, generation: u64) -> Result<(Vec<Record>, usize), LogError> {
        let path = path_of(folder, generation);
        let io = |why| LogError::Io { path: path.clone(), why };
        let right_length = std::fs::metadata(&path).map_err(io)?.len() == LOG_BYTES as u64;
        let damaged = |what| LogError::Damaged { path: path.clone(), what };
        if !right_length {
            return Err(damaged("its length is not that of a log"));
        }
        records(&std::fs::read(&path).map_err(io)?, seal, generation).map_err(damaged)
    }

    /// Opens a log that was read, to go on at `end`. Blocks.
    pub(super) fn resume(folder: &Path, seal: Seal, generation: u64, end: usize) -> io::Result<Self> {
        let file = File::options().write(true).open(path_of(folder, generation))?;
        Ok(Self { file: Arc::new(file), generation, end, seal })
    }

    /// Writes a record. It outlives the process from here on, and the machine once the file is synced.
    pub(super) fn append(&mut self, record: &Record) -> io::Result<()> {
        let record = record.encode();
        if self.end + record.len() + FRAME_BYTES > LOG_BYTES {
            let why = format!("a record of {} bytes does not fit into what is left of the log of marks", record.len());
            return Err(io::Error::new(io::ErrorKind::StorageFull, why));
        }
        let mut bytes = u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
        bytes.extend(checksum(&self.seal, self.generation, self.end, &record));
        bytes.splice(4..4, record);
        self.file.write_all_at(&bytes, self.end as u64)?;
        self.end += bytes.len();
        Ok(())
    }

    /// Makes the log one that nobody will read. Blocks.
    pub(super) fn void(file: &File) -> io::Result<()> {
        file.write_all_at(&[0; HEADER_BYTES], 0)?;
        file.sync_data()
    }
}

/// Removes every log but that of one generation. What cannot be removed is tried again by the next life.
pub(super) fn remove_others(folder: &Path, generation: u64) {
    let keep = path_of(folder, generation);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_log = name.to_str().is_some_and(|name| name.starts_with("marks.") && name.ends_with(".log"));
        if is_log && entry.path() != keep {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

pub(super) fn path_of(folder: &Path, generation: u64) -> PathBuf {
    folder.join(format!("marks.{generation}.log"))
}

fn header(seal: &Seal, generation: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend(generation.to_le_bytes());
    bytes.extend(checksum(seal, generation, 0, &bytes));
    bytes.resize(HEADER_BYTES, 0);
    bytes
}

fn records(bytes: &[u8], seal: &Seal, generation: u64) -> Result<(Vec<Record>, usize), &'static str> {
    let mut fields = Fields(bytes);
    if fields.take(HEADER_BYTES) != Some(&header(seal, generation)) {
        return Err("its head is not the one that was written");
    }
    let mut records = Vec::new();
    loop {
        let at = bytes.len() - fields.0.len();
        if fields.0.len() < FRAME_BYTES || fields.0.starts_with(&[0; 4]) {
            let blank = fields.0.chunks(ZEROS.len()).all(|chunk| ZEROS.starts_with(chunk));
            return if blank { Ok((records, at)) } else { Err("there is something behind its end") };
        }
        let record = fields.u32().and_then(|length| fields.take(usize::try_from(length).ok()?));
        let (Some(record), Some(sum)) = (record, fields.array()) else { return Err("a record goes beyond its end") };
        if checksum(seal, generation, at, record) != sum {
            return Err("the checksum of a record is wrong");
        }
        records.push(Record::decode(record).ok_or("it holds a record that this program does not know")?);
    }
}

fn checksum(seal: &Seal, generation: u64, at: usize, bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(seal);
    hasher.update(&generation.to_le_bytes()).update(&(at as u64).to_le_bytes()).update(bytes);
    let mut sum = [0; CHECKSUM_BYTES];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAL: Seal = [7; 32];

    fn record(number: u64) -> Record {
        Record::Event { number, named: Vec::new() }
    }

    #[test]
    fn a_log_comes_back_goes_on_and_ends_where_it_is_full() {
        let folder = tempfile::tempdir().expect("folder");
        let mut log = Log::create(folder.path(), SEAL, 3).expect("log");
        let mut written = Vec::new();
        for number in 1..=5 {
            log.append(&record(number)).expect("appended");
            written.push(record(number));
        }
        let (records, end) = Log::read(folder.path(), &SEAL, 3).expect("read");
        assert_eq!((&records, end), (&written, log.end));
        let mut log = Log::resume(folder.path(), SEAL, 3, end).expect("open");
        let most = (LOG_BYTES - end) / (FRAME_BYTES + record(0).encode().len());
        for number in 0..most as u64 {
            log.append(&record(number)).expect("appended");
            written.push(record(number));
        }
        let full = log.append(&record(9)).expect_err("full");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        let (records, end) = Log::read(folder.path(), &SEAL, 3).expect("read");
        assert_eq!((records, end), (written, log.end));
    }

    #[test]
    fn any_damage_is_seen() {
        let folder = tempfile::tempdir().expect("folder");
        let mut log = Log::create(folder.path(), SEAL, 3).expect("log");
        for number in 1..=3 {
            log.append(&record(number)).expect("appended");
        }
        let whole = std::fs::read(path_of(folder.path(), 3)).expect("read");
        assert_eq!(records(&whole, &SEAL, 3).expect("whole").0.len(), 3);
        for at in (0..log.end + 40).chain([LOG_BYTES - 1]) {
            for bit in [0, 7] {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                assert!(records(&bytes, &SEAL, 3).is_err(), "bit {bit} of byte {at}");
            }
        }
        // The last record, cut out of its place, or put there again.
        let length = (log.end - HEADER_BYTES) / 3;
        let mut bytes = whole.clone();
        bytes.copy_within(log.end - length..log.end, log.end);
        assert!(records(&bytes, &SEAL, 3).is_err());
        bytes[log.end - length..log.end + length].fill(0);
        bytes[log.end - length] = 1;
        assert!(records(&bytes, &SEAL, 3).is_err());
        // Of another generation, or of another key.
        assert!(records(&whole, &SEAL, 4).is_err());
        assert!(records(&whole, &[8; 32], 3).is_err());
        // Cut off.
        for length in [0, 1, log.end, LOG_BYTES - 1] {
            std::fs::write(path_of(folder.path(), 3), &whole[..length]).expect("cut");
            assert!(matches!(Log::read(folder.path(), &SEAL, 3), Err(LogError::Damaged { .. })), "{length}");
        }
    }

    #[test]
    fn a_log_that_was_voided_is_not_read_and_others_can_be_removed() {
        let folder = tempfile::tempdir().expect("folder");
        let log = Log::create(folder.path(), SEAL, 1).expect("log");
        Log::create(folder.path(), SEAL, 2).expect("log");
        std::fs::write(folder.path().join("marks.snapshot"), "x").expect("another file");
        Log::void(&log.file).expect("void");
        assert!(matches!(Log::read(folder.path(), &SEAL, 1), Err(LogError::Damaged { .. })));
        remove_others(folder.path(), 2);
        assert!(matches!(Log::read(folder.path(), &SEAL, 1), Err(LogError::Io { .. })));
        assert!(Log::read(folder.path(), &SEAL, 2).is_ok());
        assert!(folder.path().join("marks.snapshot").exists());
    }
}
