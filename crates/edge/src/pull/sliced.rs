//! The body of a stored response that is larger than a slice: slices in the tiers.
//!
//! A [`Sliced`] belongs to one version of one variant: its slices are stored under its own random id, so that slices of two
//! versions cannot be mixed, and freshness, purges, tags and validators are the variant's alone. What is missing is brought by
//! [runs](crate::pull::runs), and read with what is stored by [`crate::pull::slice_reader`].
//!
//! The mutexes cover bits and lists only; nothing is awaited under them.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use api::SLICE_BYTES;
use api::names::ZoneName;
use bytes::Bytes;
use shelf::disk::{EntryId, WriteError};

use crate::disk::{OnDisk, Opened};
use crate::node::{BodyId, Node};
use crate::pull::runs::{Begun, Run, Seat};

/// The word for a representation that is not what is stored any more.
pub(crate) const CHANGED: &str = "changed";

/// A body in slices. Shared by all versions of its variant's fields, and by everybody who reads it.
pub(crate) struct Sliced {
    /// What its slices are stored under.
    pub(crate) id: u128,
    /// Of the whole body, in bytes.
    pub(crate) length: u64,
    /// The origin can be asked for some of it. Where not, all of it is asked for again when something is missing.
    pub(crate) by_range: bool,
    /// The zone of its variant, from when that is in its page.
    pub(crate) zone: OnceLock<ZoneName>,
    /// Its variant's place on disk.
    disk: Arc<OnDisk>,
    runs: Mutex<Vec<Arc<Run>>>,
    stored: Mutex<Stored>,
}

/// What of a body is stored.
#[derive(Default)]
struct Stored {
    /// It does not belong to a stored variant any more: nothing that comes is stored.
    gone: bool,
    /// Slices that were put into memory, and may have left that since.
    in_memory: Bits,
    /// Slices that were written to disk, or found there.
    on_disk: Bits,
}

impl Sliced {
    /// A body of which nothing is here yet, for a variant with this place on disk.
    pub(crate) fn new(length: u64, by_range: bool, disk: &Arc<OnDisk>) -> Arc<Self> {
        let (id, disk) = (fastrand::u128(..), Arc::clone(disk));
        let (zone, runs, stored) = (OnceLock::new(), Mutex::default(), Mutex::default());
        Arc::new(Self { id, length, by_range, zone, disk, runs, stored })
    }

    /// A body that lies on disk, all of it or the slices that `has` says.
    pub(crate) fn on_disk(length: u64, by_range: bool, disk: &Arc<OnDisk>, has: impl Fn(u64) -> bool) -> Arc<Self> {
        let body = Self::new(length, by_range, disk);
        {
            let mut stored = body.stored();
            (0..body.slices()).filter(|index| has(*index)).for_each(|index| stored.on_disk.set(index));
        }
        body
    }

    /// Its variant's place on disk.
    pub(crate) fn place(&self) -> &Arc<OnDisk> {
        &self.disk
    }

    /// How many slices it has.
    pub(crate) fn slices(&self) -> u64 {
        self.length.div_ceil(SLICE_BYTES)
    }

    /// The bytes of a slice, as offsets in the body.
    pub(crate) fn bytes_of(&self, index: u64) -> Range<u64> {
        let first = index.saturating_mul(SLICE_BYTES);
        first..first.saturating_add(SLICE_BYTES).min(self.length)
    }

    /// What a slice is stored under.
    pub(crate) fn key(&self, index: u64) -> (BodyId, u64) {
        (BodyId::Page(self.id), index)
    }

    /// Its variant is not stored any more: nothing that comes is stored either.
    pub(crate) fn let_go(&self) {
        self.stored().gone = true;
    }

    /// Its variant is stored, perhaps again.
    pub(crate) fn adopt(&self) {
        self.stored().gone = false;
    }

    /// The slices that may be in memory, which from now on count as gone from there.
    pub(crate) fn leave_memory(&self) -> Vec<u64> {
        std::mem::take(&mut self.stored().in_memory).all()
    }

    /// Whether a slice is stored, as far as that is known without a look at the disk.
    pub(crate) fn has(&self, node: &Node, index: u64) -> bool {
        node.has_slice(&self.key(index)) || (self.disk.entry().is_some() && self.stored().on_disk.has(index))
    }

    /// A slice that was to leave memory stays there.
    pub(crate) fn still_in_memory(&self, index: u64) {
        self.stored().in_memory.set(index);
    }

    /// A slice was written to disk.
    pub(crate) fn written(&self, index: u64) {
        self.stored().on_disk.set(index);
    }

    /// Puts a slice into the store: on disk where its variant is, else in memory. False: it is not kept.
    pub(crate) async fn keep(&self, node: &Node, index: u64, bytes: Bytes) -> bool {
        if self.stored().gone {
            return false;
        }
        if let (Some(tier), Some(entry), Ok(number)) = (&node.disk, self.disk.entry(), u32::try_from(index)) {
            let body = bytes.clone();
            let written = tier.blocking(move |disk| disk.write_slice(entry, number, &[body])).await;
            match written {
                Some(Ok(())) => {
                    self.written(index);
                    return true;
                }
                Some(Err(error)) => {
                    tracing::debug!(index, %error, "a slice is kept in memory instead of on disk");
                    if matches!(error, WriteError::Gone) {
                        self.gone_from_disk(entry);
                    }
                }
                None => tracing::debug!(index, "the disk did not answer in time; a slice is kept in memory"),
            }
        }
        self.keep_in_memory(node, index, bytes)
    }

    fn keep_in_memory(&self, node: &Node, index: u64, bytes: Bytes) -> bool {
        self.stored().in_memory.set(index);
        let kept = node.keep_slice(self.zone.get(), self.key(index), bytes);
        // Its variant may have left meanwhile.
        let gone = self.stored().gone;
        if gone {
            node.drop_slice(&self.key(index));
        }
        kept && !gone
    }

    /// What was on disk is not there any more.
    fn gone_from_disk(&self, entry: EntryId) {
        if self.disk.lost(entry) {
            self.stored().on_disk = Bits::default();
        }
    }

    /// A stored slice.
    pub(crate) async fn read(&self, node: &Node, opened: &mut Opened, index: u64) -> Option<Bytes> {
        if let Some(bytes) = node.stored_slice(&self.key(index)) {
            return Some(bytes);
        }
        let bytes = node.disk.as_ref()?.slice(&self.disk, opened, index).await;
        match &bytes {
            // Small bodies belong into memory; large ones are the business of the operating system's page cache.
            Some(bytes) if self.length <= SLICE_BYTES => drop(self.keep_in_memory(node, index, bytes.clone())),
            Some(_) => {}
            None => self.stored().on_disk.clear(index),
        }
        bytes
    }

    fn stored(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a run over these bytes, the first of which begins a slice; for the caller to [pump](pump).
    pub(crate) fn begin(self: &Arc<Self>, bytes: Range<u64>) -> Begun {
        let run = Run::new(bytes, 0);
        self.lock().push(Arc::clone(&run));
        Begun { sliced: Arc::clone(self), run }
    }

    /// A seat in the run that brings a slice; else in a new one, which comes second and is for the caller to carry out.
    /// A run that is far behind is none to wait for, where the origin can be asked for the slice itself.
    pub(crate) fn join(self: &Arc<Self>, index: u64, wanted: Range<u64>) -> (Seat, Option<Begun>) {
        let upto = self.bytes_of(index).end.min(wanted.end);
        let mut runs = self.lock();
        if let Some(run) = runs.iter().find(|run| run.brings(index, upto, self.by_range)) {
            return (Seat::take(run, index), None);
        }
        let run = Run::new(wanted, index);
        runs.push(Arc::clone(&run));
        (Seat::take(&run, index), Some(Begun { sliced: Arc::clone(self), run }))
    }

    pub(crate) fn end(&self, run: &Arc<Run>) {
        self.lock().retain(|other| !Arc::ptr_eq(other, run));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Run>>> {
        // The list is whole after every statement, so a panic elsewhere left nothing half done.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A set of small numbers.
#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn at(&mut self, index: u64) -> Option<(&mut u64, u64)> {
        let at = usize::try_from(index / 64).ok()?;
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0.get_mut(at).map(|word| (word, 1 << (index % 64)))
    }

    fn set(&mut self, index: u64) {
        if let Some((word, bit)) = self.at(index) {
            *word |= bit;
        }
    }

    fn clear(&mut self, index: u64) {
        if let Some((word, bit)) = self.at(index) {
            *word &= !bit;
        }
    }

    fn has(&self, index: u64) -> bool {
        let word = usize::try_from(index / 64).ok().and_then(|at| self.0.get(at));
        word.is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    fn all(&self) -> Vec<u64> {
        (0..self.0.len() as u64 * 64).filter(|index| self.has(*index)).collect()
    }
}
