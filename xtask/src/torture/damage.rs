//! Damage to a file of the disk tier, as disks, file systems and people do it. What is known here of the format stands at the
//! head of `shelf/src/disk/format.rs`; it is written down a second time so that a mistake there does not hide itself.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use twox_hash::{XxHash3_64, XxHash3_128};

const FIXED_BYTES: usize = 136;
const PLACE_BYTES: u64 = 24;
const BLOCK_BYTES: u64 = 4096;
const SLICE_BYTES: u64 = 1 << 20;
const SECTOR_BYTES: u64 = 512;
const HEAD_BYTES_AT: u64 = 12;
const LENGTH_AT: usize = 40;
const DIGEST_AT: usize = 120;

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Bit,
    Zeros,
    Garbage,
    Truncation,
    Extension,
    Deletion,
    Swap,
    Rename,
    Table,
    TableBit,
    TablePlace,
    Length,
    SealedLength,
}

impl Kind {
    /// Those of slice tables.
    pub(crate) const TABLES: [Self; 3] = [Self::Table, Self::TableBit, Self::TablePlace];
    pub(crate) const ALL: [Self; 13] = [
        Self::Bit,
        Self::Zeros,
        Self::Garbage,
        Self::Truncation,
        Self::Extension,
        Self::Deletion,
        Self::Swap,
        Self::Rename,
        Self::Table,
        Self::TableBit,
        Self::TablePlace,
        Self::Length,
        Self::SealedLength,
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Bit => "a bit",
            Self::Zeros => "a sector of zeros",
            Self::Garbage => "a sector of garbage",
            Self::Truncation => "truncated",
            Self::Extension => "extended",
            Self::Deletion => "deleted",
            Self::Swap => "swapped with another",
            Self::Rename => "renamed to another's name",
            Self::Table => "slice table: garbage in a place",
            Self::TableBit => "slice table: a bit",
            Self::TablePlace => "slice table: the place of another slice",
            Self::Length => "a length in the head changed",
            Self::SealedLength => "the same, with a right digest",
        }
    }
}

/// A file of the tier, as its head describes it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    /// The object whose body it holds.
    pub(crate) object: usize,
    pub(crate) stored_ms: u64,
    length: u64,
    places: u32,
    head_bytes: u64,
    size: u64,
}

impl Entry {
    /// Reads a head; nothing where there is none that can be read.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_owned();
        let file = File::open(path).ok()?;
        let mut fixed = [0; FIXED_BYTES];
        file.read_exact_at(&mut fixed, 0).ok()?;
        let u32_at = |at: usize| fixed.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let u64_at = |at: usize| fixed.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let mut key = vec![0; (u32_at(64)? as usize).min(1024)];
        file.read_exact_at(&mut key, FIXED_BYTES as u64).ok()?;
        let key = String::from_utf8(key).ok()?;
        let object = key.split('\0').nth(4)?.rsplit('/').next()?.parse().ok()?;
        Some(Self {
            path: path.to_owned(),
            name,
            object,
            stored_ms: u64_at(48)?,
            length: u64_at(LENGTH_AT)?,
            places: u32_at(60)?,
            head_bytes: u32_at(12)?.into(),
            size: file.metadata().ok()?.len(),
        })
    }

    pub(crate) fn is_sliced(&self) -> bool {
        self.places > 0
    }

    fn place_at(&self, number: u32) -> u64 {
        self.head_bytes + u64::from(number) * PLACE_BYTES
    }

    /// Where the body begins.
    pub(crate) fn body_at(&self) -> u64 {
        if self.is_sliced() { self.place_at(self.places).next_multiple_of(BLOCK_BYTES) } else { self.head_bytes }
    }

    /// The slices that are there.
    pub(crate) fn present(&self) -> Vec<u32> {
        let Ok(file) = File::open(&self.path) else { return Vec::new() };
        let there = |number: &u32| {
            let mut place = [0; PLACE_BYTES as usize];
            file.read_exact_at(&mut place, self.place_at(*number)).is_ok()
                && place.get(..20).is_some_and(|said| said.iter().any(|byte| *byte != 0))
        };
        (0..self.places).filter(there).collect()
    }

    /// Whether all of the body is there, as far as its head and table say.
    pub(crate) fn is_complete(&self) -> bool {
        self.size == self.body_at() + self.length && self.present().len() == self.places as usize
    }

    /// A stretch of the file in which every byte counts: the head, a place of the table, or a slice that is there.
    fn stretch(&self, random: &mut fastrand::Rng) -> Option<(u64, u64)> {
        if !self.is_sliced() {
            return Some((0, self.size));
        }
        let present = self.present();
        let number = *random.choice(&present)?;
        let from = self.body_at() + u64::from(number) * SLICE_BYTES;
        match random.u32(0..10) {
            0 => Some((0, self.head_bytes)),
            1 => Some((self.place_at(number), self.place_at(number) + PLACE_BYTES)),
            _ => Some((from, (from + SLICE_BYTES).min(self.size))),
        }
    }
}

/// Damages a file. `other` is another one, for what takes two. Says which files it has damaged: none where that kind cannot be
/// done to it, or changes nothing.
pub(crate) fn inflict(
    kind: Kind,
    entry: &Entry,
    other: Option<&Entry>,
    random: &mut fastrand::Rng,
) -> io::Result<Vec<Entry>> {
    let file = OpenOptions::new().read(true).write(true).open(&entry.path)?;
    let done = match kind {
        Kind::Bit | Kind::Zeros | Kind::Garbage => {
            let Some((from, to)) = entry.stretch(random).filter(|(from, to)| from < to) else { return Ok(Vec::new()) };
            let at = random.u64(from..to);
            let (at, end) = match kind {
                Kind::Bit => (at, at + 1),
                _ => (at.next_multiple_of(SECTOR_BYTES).saturating_sub(SECTOR_BYTES).max(from), to),
            };
            let mut old = vec![0; (end - at).min(SECTOR_BYTES) as usize];
            file.read_exact_at(&mut old, at)?;
            let mut new = old.clone();
            match kind {
                Kind::Zeros => new.fill(0),
                Kind::Garbage => random.fill(&mut new),
                _ => new.iter_mut().for_each(|byte| *byte ^= 1 << random.u32(0..8)),
            }
            file.write_all_at(&new, at)?;
            new != old
        }
        Kind::Truncation => {
            let present = entry.present().last().map_or(0, |last| u64::from(*last) * SLICE_BYTES);
            // Within what is there, so that it can be met.
            let end = if entry.is_sliced() { entry.body_at() + present + 1 } else { entry.size };
            file.set_len(random.u64(0..end.min(entry.size)))?;
            true
        }
        Kind::Extension => {
            let more: Vec<u8> = (0..random.usize(1..2 * BLOCK_BYTES as usize)).map(|_| random.u8(..)).collect();
            file.write_all_at(&more, entry.size)?;
            true
        }
        Kind::Deletion => {
            std::fs::remove_file(&entry.path)?;
            true
        }
        Kind::Swap | Kind::Rename => {
            let Some(other) = other else { return Ok(Vec::new()) };
            let flags = if kind == Kind::Swap { RenameFlags::EXCHANGE } else { RenameFlags::empty() };
            renameat_with(CWD, &entry.path, CWD, &other.path, flags)?;
            return Ok(vec![entry.clone(), other.clone()]);
        }
        Kind::Table | Kind::TableBit | Kind::TablePlace => {
            let mut present = entry.present();
            random.shuffle(&mut present);
            let Some(number) = present.first() else { return Ok(Vec::new()) };
            let mut place = [0; PLACE_BYTES as usize];
            match (kind, present.get(1)) {
                (Kind::TablePlace, None) => return Ok(Vec::new()),
                (Kind::TablePlace, Some(other)) => file.read_exact_at(&mut place, entry.place_at(*other))?,
                (Kind::TableBit, _) => {
                    file.read_exact_at(&mut place, entry.place_at(*number))?;
                    if let Some(byte) = random.choice(place.iter_mut()) {
                        *byte ^= 1 << random.u32(0..8);
                    }
                }
                _ => random.fill(&mut place),
            }
            file.write_all_at(&place, entry.place_at(*number))?;
            true
        }
        Kind::Length | Kind::SealedLength => {
            let mut head = vec![0; entry.head_bytes as usize];
            file.read_exact_at(&mut head, 0)?;
            if kind == Kind::Length && random.bool() {
                file.write_all_at(&random.u32(..).to_le_bytes(), HEAD_BYTES_AT)?;
                return Ok(vec![entry.clone()]);
            }
            let length = entry.length ^ random.u64(1..1 << 20);
            if let Some(place) = head.get_mut(LENGTH_AT..LENGTH_AT + 8) {
                place.copy_from_slice(&length.to_le_bytes());
            }
            if kind == Kind::SealedLength {
                seal(&mut head);
            }
            file.write_all_at(&head, 0)?;
            true
        }
    };
    Ok(if done { vec![entry.clone()] } else { Vec::new() })
}

/// Gives a head the digest that it should have.
fn seal(head: &mut [u8]) {
    let mut of = head.get(16..40).unwrap_or_default().to_vec();
    for number in [1_u32, 1, 0] {
        of.extend(number.to_le_bytes());
    }
    let seed = XxHash3_64::oneshot(&of);
    if let Some(place) = head.get_mut(DIGEST_AT..DIGEST_AT + 16) {
        place.fill(0);
    }
    let digest = XxHash3_128::oneshot_with_seed(seed, head);
    if let Some(place) = head.get_mut(DIGEST_AT..DIGEST_AT + 16) {
        place.copy_from_slice(&digest.to_le_bytes());
    }
}
