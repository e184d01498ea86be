//! What an edge knows about purges, as one value: what its log changes, and what its snapshot holds.
//!
//! A snapshot is `marks.snapshot`; a new one replaces it as a whole. Layout, numbers little-endian:
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `LITSNAPS` |
//! | 4 | format, 1 |
//! | 8 | generation: the log that continues it |
//! | 32 | the key of names (its first half) and of the log's checksums (the whole) |
//! | 8, 8, 8, 8 | era; newest event applied; newest local number; local number from which on everything is known |
//! | 16, 1 | the machine's start in which the edge was opened last; 1 if it has ended in order since, else 0 |
//! | 1, (4, n) | 1 if a catalog is known, else 0; the length of its id and the id |
//! | table | marks of events |
//! | table | marks of this edge's own |
//! | 32 | BLAKE3 of everything before |
//!
//! A table: floor (8), number of prefix lengths (4), the lengths (4 each), number of marks (4), the marks (hash, newest hard
//! number, newest soft number, 8 bytes each).

use super::fields::{Fields, push_text};
use super::log::Seal;
use super::record::{BootId, Record};
use crate::purges::{MAX_MARKS, Names, Purges};

/// Longest snapshot that is read: both tables full, and what prefix lengths and an id can take.
pub(super) const MAX_SNAPSHOT_BYTES: u64 = 2 * MAX_MARKS as u64 * MARK_BYTES as u64 + (1 << 20);

const MAGIC: &[u8; 8] = b"LITSNAPS";
const FORMAT: u32 = 1;
const MARK_BYTES: usize = 24;
const SUM_BYTES: usize = blake3::OUT_LEN;

/// What an edge knows about purges.
pub(super) struct State {
    /// Names the series of event numbers; another one for every catalog.
    pub(super) era: u64,
    /// The newest event applied.
    pub(super) applied: u64,
    /// The newest of the edge's own numbers.
    pub(super) newest: u64,
    /// What has a smaller local number was fetched before marks were lost: nothing is known about it.
    pub(super) trusted_from: u64,
    pub(super) boot: BootId,
    pub(super) closed: bool,
    /// The catalog whose event numbers these are.
    pub(super) catalog_id: Option<String>,
    pub(super) events: Purges,
    pub(super) local: Purges,
    names: Names,
    capacity: usize,
}

impl State {
    /// Of an edge that knows nothing yet.
    pub(super) fn new(era: u64, names: Names, capacity: usize) -> Self {
        Self {
            era,
            applied: 0,
            newest: 0,
            trusted_from: 0,
            boot: BootId::default(),
            closed: true,
            catalog_id: None,
            events: Purges::new(names, capacity),
            local: Purges::new(names, capacity),
            names,
            capacity,
        }
    }

    /// Changes it: now, or again when the log is read. Taking the same records once more changes nothing.
    pub(super) fn take(&mut self, record: &Record) {
        let was_closed = std::mem::replace(&mut self.closed, *record == Record::Closed);
        match record {
            Record::Opened { boot, start } => self.open(was_closed, *boot, *start),
            Record::Closed | Record::Continued => {}
            Record::Event { number, named } => {
                self.events.apply(*number, named);
                self.applied = self.applied.max(*number);
            }
            Record::Local { number, named } => {
                self.local.apply(*number, named);
                self.newest = self.newest.max(*number);
            }
            Record::Skipped { number } => {
                self.events.raise_floor(*number);
                self.applied = self.applied.max(*number);
            }
            Record::StartedOver { era, number, catalog_id } => {
                self.events = Purges::new(self.names, self.capacity);
                (self.era, self.applied, self.catalog_id) = (*era, *number, Some(catalog_id.clone()));
            }
        }
    }

    fn open(&mut self, was_closed: bool, boot: BootId, start: u64) {
        // What the edge itself marks is not synced each time. If the machine has gone down in the midst of it, some of it
        // may be missing, and only the log could have told which.
        let same_boot = boot == self.boot && boot != BootId::default();
        if !was_closed && !same_boot {
            self.local.raise_floor(start);
        }
        self.newest = self.newest.max(start);
        self.boot = boot;
    }

    /// The names that marks are kept under.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    pub(super) fn encode(&self, seal: &Seal, generation: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity((self.events.len() + self.local.len()) * MARK_BYTES + 4_096);
        bytes.extend(MAGIC);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(generation.to_le_bytes());
        bytes.extend(seal);
        for number in [self.era, self.applied, self.newest, self.trusted_from] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.boot);
        bytes.push(self.closed.into());
        bytes.push(self.catalog_id.is_some().into());
        if let Some(id) = &self.catalog_id {
            push_text(&mut bytes, id);
        }
        push_table(&mut bytes, &self.events);
        push_table(&mut bytes, &self.local);
        let sum = blake3::hash(&bytes);
        bytes.extend(sum.as_bytes());
        bytes
    }

    /// Reads a snapshot: the state, its key, and the log that continues it. Nothing: it is damaged, or of another format.
    pub(super) fn decode(bytes: &[u8], capacity: usize) -> Option<(Self, Seal, u64)> {
        let (bytes, sum) = bytes.split_at_checked(bytes.len().checked_sub(SUM_BYTES)?)?;
        let mut fields = Fields(bytes);
        let known = fields.take(MAGIC.len())? == MAGIC && fields.u32()? == FORMAT;
        if !known || blake3::hash(bytes).as_bytes() != sum {
            return None;
        }
        let generation = fields.u64()?;
        let seal: Seal = fields.array()?;
        let names = names_of(&seal);
        let state = Self {
            era: fields.u64()?,
            applied: fields.u64()?,
            newest: fields.u64()?,
            trusted_from: fields.u64()?,
            boot: fields.array()?,
            closed: fields.u8()? == 1,
            catalog_id: if fields.u8()? == 1 { Some(fields.text()?) } else { None },
            events: table(&mut fields, names, capacity)?,
            local: table(&mut fields, names, capacity)?,
            names,
            capacity,
        };
        fields.is_empty().then_some((state, seal, generation))
    }
}

/// The names that belong to a key.
pub(super) fn names_of(seal: &Seal) -> Names {
    let mut key = [0; 16];
    for (to, from) in key.iter_mut().zip(seal) {
        *to = *from;
    }
    Names::new(&key)
}

fn push_table(bytes: &mut Vec<u8>, purges: &Purges) {
    let push_count = |bytes: &mut Vec<u8>, count: usize| bytes.extend(u32::try_from(count).unwrap_or(0).to_le_bytes());
    bytes.extend(purges.floor().to_le_bytes());
    push_count(bytes, purges.prefix_lengths().len());
    bytes.extend(purges.prefix_lengths().flat_map(u32::to_le_bytes));
    push_count(bytes, purges.len());
    for (hash, hard, soft) in purges.marks() {
        bytes.extend(hash.to_le_bytes());
        bytes.extend(hard.to_le_bytes());
        bytes.extend(soft.to_le_bytes());
    }
}

fn table(fields: &mut Fields<'_>, names: Names, capacity: usize) -> Option<Purges> {
    let floor = fields.u64()?;
    let count = fields.u32()?;
    let lengths: Vec<u32> = (0..count).map(|_| fields.u32()).collect::<Option<_>>()?;
    let count = usize::try_from(fields.u32()?).ok()?;
    let mut marks = Fields(fields.take(count.checked_mul(MARK_BYTES)?)?);
    let marks = (0..count).map(|_| Some((marks.u64()?, marks.u64()?, marks.u64()?))).collect::<Option<_>>()?;
    Some(Purges::restored(names, capacity, floor, &lengths, marks))
}
