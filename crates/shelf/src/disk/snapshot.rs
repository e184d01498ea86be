//! A folder's snapshot: the index as a file, so that a start need not read every head.
//!
//! ```text
//!   at  bytes  what
//!    0      8  magic: "LITINDEX"
//!    8      4  format version: 1
//!   12      4  0
//!   16      8  records
//!   24     64  …for each: key hash (16), nonce (8), stored at in ms (8), length (8; all ones = unknown), last use in s (4),
//!              expires in s (4; 0 = never), blocks (4), slices there (4), uses (2), flags (1; 1 = no slice table), 0 (5)
//!  end     16  XXH3-128 of all before it
//! ```
//!
//! It is written to a temporary name, synced and renamed; one that is damaged counts as none. Changes while it is written
//! may be in it or not. That is no harm: what it says is a hint.

use std::io;
use std::num::NonZeroU64;
use std::time::Duration;

use thiserror::Error;
use twox_hash::XxHash3_128;

use super::folder::Folder;
use super::format::{BLOCK_BYTES, Name, array};
use super::index::{Record, UNSEEN, WHOLE};

const MAGIC: &[u8; 8] = b"LITINDEX";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 24;
const RECORD_BYTES: usize = 64;
const DIGEST_BYTES: usize = 16;
/// Records that are read however low the folder's limit is: it may have been higher.
const LEAST_RECORDS: u64 = 1 << 24;
/// Records copied under one lock, and read or written with one call.
const PAGE: usize = 4096;
/// Records restored under one lock, and the rest after it, in which requests have their turn.
const RESTORED: usize = 1024;
const RESTORED_REST: Duration = Duration::from_micros(100);

/// Why there is no snapshot to begin with.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
    #[error("it is damaged, or of another version")]
    Damaged,
}

/// Writes the snapshot.
pub(crate) fn save(folder: &Folder) -> io::Result<()> {
    let temporary = folder.temporary();
    let file = folder.files.create(&temporary)?;
    let result = (|| {
        // What the snapshot names should be on the disk before it is.
        folder.files.sync_all(&file)?;
        let mut hasher = XxHash3_128::new();
        let (mut count, mut from) = (0_u64, Some(0));
        let mut at = HEAD_BYTES as u64;
        // The digest covers the head, whose count is known at the end: it goes in last.
        while let Some(slot) = from {
            let (records, next) = folder.index().page(slot, PAGE);
            let mut bytes = Vec::with_capacity(records.len() * RECORD_BYTES);
            records.iter().for_each(|(_, record)| encode(record, &mut bytes));
            folder.files.write_at(&file, [bytes.as_slice()], at)?;
            hasher.write(&bytes);
            at += bytes.len() as u64;
            count += records.len() as u64;
            from = next;
        }
        let head = head(count);
        hasher.write(&head);
        folder.files.write_at(&file, [&hasher.finish_128().to_le_bytes()[..]], at)?;
        folder.files.write_at(&file, [head.as_slice()], 0)?;
        folder.files.sync(&file)?;
        folder.files.rename(&temporary, &folder.snapshot_path())
    })();
    if result.is_err() {
        let _ = folder.files.remove(&temporary);
    }
    result
}

/// Puts what the snapshot says into the index, what was used last at the end, beside what has come to be known since the
/// start. Answers the files that have to go for it.
pub(crate) fn load(folder: &Folder) -> Result<Vec<Name>, LoadError> {
    let file = folder.files.open(&folder.snapshot_path())?;
    let size = folder.files.size(&file)?;
    if size > max_bytes(folder.limit_bytes) {
        return Err(LoadError::Damaged);
    }
    let read = |bytes: &mut [u8], at: u64| match folder.files.read_at(&file, bytes, at)? < bytes.len() {
        true => Err(LoadError::Damaged),
        false => Ok(()),
    };
    let (mut head_bytes, mut digest) = ([0; HEAD_BYTES], [0; DIGEST_BYTES]);
    read(&mut head_bytes, 0)?;
    let count = array(&head_bytes, 16).map(u64::from_le_bytes).ok_or(LoadError::Damaged)?;
    let end = count.checked_mul(RECORD_BYTES as u64).and_then(|bytes| bytes.checked_add(HEAD_BYTES as u64));
    let end = end.filter(|end| size.checked_sub(*end) == Some(DIGEST_BYTES as u64)).ok_or(LoadError::Damaged)?;
    read(&mut digest, end)?;
    // Page by page: to have the file beside the records would be most of the memory that a start takes.
    let mut records: Vec<Record> = Vec::with_capacity(usize::try_from(count).map_err(|_| LoadError::Damaged)?);
    let (mut hasher, mut page, mut at) = (XxHash3_128::new(), vec![0; PAGE * RECORD_BYTES], HEAD_BYTES as u64);
    while at < end {
        page.truncate(usize::try_from(end - at).unwrap_or(usize::MAX));
        read(&mut page, at)?;
        hasher.write(&page);
        records.extend(page.chunks_exact(RECORD_BYTES).filter_map(decode));
        at += page.len() as u64;
    }
    hasher.write(&head_bytes);
    let is_whole = records.len() as u64 == count && digest == hasher.finish_128().to_le_bytes();
    if head_bytes[..] != head(count) || !is_whole {
        return Err(LoadError::Damaged);
    }
    records.sort_unstable_by_key(|record| (record.used_s, record.stored_ms));
    folder.index().expect(records.len());
    let mut victims = Vec::new();
    for step in records.chunks(RESTORED) {
        let mut index = folder.index();
        step.iter().for_each(|record| victims.extend(index.restore(*record)));
        drop(index);
        // Else this thread would have the lock again before those who wait for it are awake.
        std::thread::sleep(RESTORED_REST);
    }
    Ok(victims)
}

/// How large a snapshot may be. A record takes a block at least, so the folder's limit bounds what can be of use, unless it
/// was lowered.
pub(crate) fn max_bytes(limit_bytes: u64) -> u64 {
    let records = (limit_bytes / BLOCK_BYTES).max(LEAST_RECORDS);
    records.saturating_mul(RECORD_BYTES as u64).saturating_add((HEAD_BYTES + DIGEST_BYTES) as u64)
}

fn head(count: u64) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend([0; 4]);
    out.extend(count.to_le_bytes());
    out
}

fn encode(record: &Record, out: &mut Vec<u8>) {
    let [low, high] = record.key_hash;
    for number in [low, high, record.nonce.get(), record.stored_ms, record.length] {
        out.extend(number.to_le_bytes());
    }
    for number in [record.used_s, record.expires_s, record.blocks, record.present] {
        out.extend(number.to_le_bytes());
    }
    out.extend(record.uses.to_le_bytes());
    out.extend([record.flags & WHOLE, 0, 0, 0, 0, 0]);
}

fn decode(bytes: &[u8]) -> Option<Record> {
    let u64_at = |at| array(bytes, at).map(u64::from_le_bytes);
    let u32_at = |at| array(bytes, at).map(u32::from_le_bytes);
    Some(Record {
        key_hash: [u64_at(0)?, u64_at(8)?],
        nonce: NonZeroU64::new(u64_at(16)?)?,
        stored_ms: u64_at(24)?,
        length: u64_at(32)?,
        used_s: u32_at(40)?,
        expires_s: u32_at(44)?,
        blocks: u32_at(48)?,
        present: u32_at(52)?,
        uses: array(bytes, 56).map(u16::from_le_bytes)?,
        flags: bytes.get(58)? & WHOLE | UNSEEN,
    })
}
