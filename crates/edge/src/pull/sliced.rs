//! The body of a stored response that is larger than a slice: slices in the tiers, and *runs* that bring what is missing.
//!
//! A [`Sliced`] belongs to one version of one variant: its slices are stored under its own random id, so that slices of two
//! versions cannot be mixed, and freshness, purges, tags and validators are the variant's alone. A run is one exchange with
//! the origin that brings consecutive slices. Each is a [`Growing`] while it comes, which everybody who wants its bytes follows,
//! and goes into the store when it is whole. A run keeps a window of [`WINDOW_SLICES`] for its readers and is never further
//! ahead of the slowest of them; one that nobody reads any more ends with the slice that it is at.
//!
//! A reader takes each slice from the store, else from the run that brings it, else begins a run for what it wants. A run
//! asks with `If-Range`: what has changed at the origin is never mixed with what is stored, but ends the transfer.
//!
//! The mutexes cover positions and lists only; nothing is awaited under them.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use api::SLICE_BYTES;
use api::names::ZoneName;
use bytes::Bytes;
use http_body_util::BodyExt;
use net::{Body, UpstreamError};
use shelf::disk::{EntryId, WriteError};
use tokio::sync::{Notify, watch};

use crate::disk::{OnDisk, Opened};
use crate::node::{BodyId, Node};
use crate::pull::growing::Growing;

/// Slices that a run holds for its readers, the one that is coming among them.
const WINDOW_SLICES: usize = 3;
/// How far from its beginning a reader has to be for a run to be of no use to it, in bytes.
pub(crate) const AHEAD_BYTES: u64 = WINDOW_SLICES as u64 * SLICE_BYTES;
/// How long the slowest of several readers may stop the others, and how long a run waits for its first, in milliseconds.
const LAGGARD_MS: u64 = 5_000;

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
    async fn keep(&self, node: &Node, index: u64, bytes: Bytes) -> bool {
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
    async fn read(&self, node: &Node, opened: &mut Opened, index: u64) -> Option<Bytes> {
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
    fn join(self: &Arc<Self>, index: u64, wanted: Range<u64>) -> (Seat, Option<Begun>) {
        let upto = self.bytes_of(index).end.min(wanted.end);
        let mut runs = self.lock();
        if let Some(run) = runs.iter().find(|run| run.brings(index, upto, self.by_range)) {
            return (Seat::take(run, index), None);
        }
        let run = Run::new(wanted, index);
        runs.push(Arc::clone(&run));
        (Seat::take(&run, index), Some(Begun { sliced: Arc::clone(self), run }))
    }

    fn end(&self, run: &Arc<Run>) {
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

/// Consecutive slices on their way.
pub(crate) struct Run {
    /// Of the body. The first byte begins a slice; the last may lie within one, which is then not stored.
    bytes: Range<u64>,
    /// The slice for which it was begun.
    wanted_from: u64,
    state: Mutex<State>,
    /// Changes whenever a slice begins, and at the end.
    changed: watch::Sender<()>,
    /// A reader has moved on, come or left.
    moved: Notify,
}

struct State {
    /// The newest slices, in order; the last is the one that is coming.
    window: VecDeque<(u64, Arc<Growing>)>,
    /// The slice that comes after the window.
    next: u64,
    ended: Option<&'static str>,
    /// Where each reader is.
    readers: HashMap<u64, u64>,
    next_reader: u64,
}

impl Run {
    fn new(bytes: Range<u64>, wanted_from: u64) -> Arc<Self> {
        let state = State {
            window: VecDeque::new(),
            next: bytes.start / SLICE_BYTES,
            ended: None,
            readers: HashMap::new(),
            next_reader: 0,
        };
        Arc::new(Self {
            bytes,
            wanted_from,
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
            moved: Notify::new(),
        })
    }

    /// The bytes that it is to bring.
    pub(crate) fn bytes(&self) -> Range<u64> {
        self.bytes.clone()
    }

    /// Whether a slice is in its window, or is going to be, for who sits in it.
    fn has_for_reader(&self, index: u64) -> bool {
        let state = self.lock();
        let first = state.window.front().map_or(state.next, |(first, _)| *first);
        let coming = state.ended.is_none() && index.saturating_mul(SLICE_BYTES) < self.bytes.end;
        index >= first && (index < state.next || coming)
    }

    /// Whether it brings a slice, up to the byte `upto`, to who is not in it yet. `near`: soon enough, that is.
    fn brings(&self, index: u64, upto: u64, near: bool) -> bool {
        let soon = !near || index < self.lock().next.saturating_add(WINDOW_SLICES as u64);
        soon && upto <= self.bytes.end && self.has_for_reader(index) && self.lock().ended.is_none()
    }

    /// A slice, once it has begun to come. Nothing: it has passed, or the run has ended; why, where that is known.
    async fn slice(&self, index: u64) -> Result<Arc<Growing>, &'static str> {
        let mut changed = self.changed.subscribe();
        loop {
            {
                changed.borrow_and_update();
                let state = self.lock();
                if let Some((_, growing)) = state.window.iter().find(|(at, _)| *at == index) {
                    return Ok(Arc::clone(growing));
                }
                match state.ended {
                    Some(why) => return Err(why),
                    None if index < state.next => return Err("passed"),
                    None => {}
                }
            }
            if changed.changed().await.is_err() {
                return Err("abandoned");
            }
        }
    }

    /// Makes room in the window for the next slice. Nothing: nobody wants it. `hurry`: what has passed can be had from the
    /// store, and cannot be asked for again, so that nobody is waited for.
    async fn advance(&self, node: &Node, hurry: bool) -> Option<Arc<Growing>> {
        let mut slow = std::pin::pin!(tokio::time::sleep(Duration::from_millis(LAGGARD_MS)));
        loop {
            let moved = self.moved.notified();
            {
                let mut state = self.lock();
                let slowest = state.readers.values().min().copied();
                // Little before anybody has come, and where there is much on its way already.
                let narrow = state.next_reader == 0 || node.pull.budget.exceeded();
                let window = if narrow { 1 } else { WINDOW_SLICES };
                // Before the first reader has come, what there is waits for it.
                if slowest.is_none() && state.next_reader > 0 && !hurry {
                    return None;
                }
                while hurry && state.window.len() >= window {
                    state.window.pop_front();
                }
                while state.window.len() >= window
                    && state.window.front().zip(slowest).is_some_and(|((first, _), slowest)| *first < slowest)
                {
                    state.window.pop_front();
                }
                if state.window.len() < window {
                    let index = state.next;
                    let growing = Growing::new(index.saturating_mul(SLICE_BYTES), &node.pull.budget);
                    state.window.push_back((index, Arc::clone(&growing)));
                    state.next += 1;
                    drop(state);
                    self.changed.send_replace(());
                    return Some(growing);
                }
            }
            tokio::select! {
                () = moved => {}
                () = &mut slow => {
                    let mut state = self.lock();
                    if state.readers.is_empty() {
                        return None;
                    }
                    // Alone, a slow reader harms nobody but itself. Others go on, and it gets the rest by itself.
                    let slowest = state.readers.values().min().copied().unwrap_or_default();
                    if state.readers.values().any(|at| *at > slowest) {
                        state.readers.retain(|_, at| *at > slowest);
                    }
                    slow.set(tokio::time::sleep(Duration::from_millis(LAGGARD_MS)));
                }
            }
        }
    }

    /// It brings nothing more, and why; what has begun is told the same. Only the first word counts.
    fn end(&self, why: &'static str) {
        let mut state = self.lock();
        if state.ended.is_none() {
            state.ended = Some(why);
            if let Some((_, growing)) = state.window.back() {
                growing.fail(why); // says nothing where it is whole
            }
        }
        drop(state);
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after every statement, so a panic elsewhere left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader's place in a run.
pub(crate) struct Seat {
    run: Arc<Run>,
    id: u64,
}

impl Seat {
    fn take(run: &Arc<Run>, index: u64) -> Self {
        let mut state = run.lock();
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(id, index);
        drop(state);
        run.moved.notify_one();
        Self { run: Arc::clone(run), id }
    }

    fn move_to(&self, index: u64) {
        if let Some(at) = self.run.lock().readers.get_mut(&self.id) {
            *at = index;
        }
        self.run.moved.notify_one();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.run.lock().readers.remove(&self.id);
        self.run.moved.notify_one();
    }
}

/// A run that was begun, and that ends with this, however that comes about.
pub(crate) struct Begun {
    pub(crate) sliced: Arc<Sliced>,
    pub(crate) run: Arc<Run>,
}

impl Begun {
    /// It brings nothing, and why.
    pub(crate) fn give_up(&self, why: &'static str) {
        self.sliced.end(&self.run);
        self.run.end(why);
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.give_up("abandoned");
    }
}

/// What is done with the slices of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Handling {
    /// They may be stored.
    pub(crate) stored: bool,
    /// Nothing but their bytes tells that they are of what is stored: those that are there have to be the same, and nothing of
    /// the run is stored.
    pub(crate) compared: bool,
}

/// Copies the body of an exchange into a run.
///
/// # Errors
/// The word for why it ended early; [`CHANGED`]: it is of something else than what is stored.
pub(crate) async fn pump(node: &Arc<Node>, begun: &Begun, body: Body, handling: Handling) -> Result<(), &'static str> {
    let end = copy(node, &begun.sliced, &begun.run, body, handling).await;
    end.inspect_err(|word| {
        tracing::debug!(word, "a run of slices ended early");
        begun.give_up(word);
    })
}

/// The word for a representation that is not what is stored any more.
pub(crate) const CHANGED: &str = "changed";

async fn copy(
    node: &Arc<Node>,
    sliced: &Arc<Sliced>,
    run: &Arc<Run>,
    body: Body,
    handling: Handling,
) -> Result<(), &'static str> {
    let mut opened = Opened::default();
    let mut at = run.bytes.start;
    let mut body = std::pin::pin!(body);
    let mut coming: Option<Arc<Growing>> = None;
    let mut kept = true;
    while at < run.bytes.end {
        let frame = body.frame().await.ok_or("closed-early")?.map_err(|error| {
            let word = error.downcast_ref::<UpstreamError>().map_or("closed-early", UpstreamError::word);
            tracing::warn!(%error, "a body from the origin broke off");
            word
        })?;
        let Ok(mut bytes) = frame.into_data() else { continue };
        while !bytes.is_empty() && at < run.bytes.end {
            let growing = match coming.take() {
                Some(growing) => growing,
                None => run.advance(node, !sliced.by_range && kept).await.ok_or("abandoned")?,
            };
            let index = at / SLICE_BYTES;
            let whole = sliced.bytes_of(index);
            let end = whole.end.min(run.bytes.end);
            let take = usize::try_from(end - at).unwrap_or(usize::MAX).min(bytes.len());
            let piece = bytes.split_to(take);
            growing.push(&piece).await;
            at += piece.len() as u64;
            if at < end {
                coming = Some(growing);
                continue;
            }
            growing.finish();
            if at < whole.end {
                continue; // the rest of this slice is not part of the run
            }
            let bytes = Bytes::from(growing.pieces().concat());
            if handling.compared {
                // Who follows this run has got nothing but what is the same in both, so that what it gets is whole.
                match sliced.read(node, &mut opened, index).await {
                    Some(before) if before == bytes => {}
                    None if index >= run.wanted_from => {}
                    _ => return Err(CHANGED),
                }
            } else if handling.stored {
                kept = sliced.keep(node, index, bytes).await;
            }
        }
    }
    Ok(())
}

/// What a reader of a body in slices needs to begin runs.
pub(crate) trait Source: Send + Sync {
    /// Carries out a run that was begun, as a task of its own.
    fn fetch(&self, begun: Begun);
}

/// A reader of a span of a body in slices.
pub(crate) struct SlicedReader<S> {
    node: Arc<Node>,
    sliced: Arc<Sliced>,
    source: S,
    seat: Option<Seat>,
    now: Option<crate::pull::growing::Reader>,
    /// A stored slice that is being read.
    here: Option<(u64, Bytes)>,
    opened: Opened,
    failures: u32,
}

/// Bytes of a stored slice that are handed on at a time.
const PIECE_BYTES: u64 = 128 << 10;
/// Slices that one exchange with the origin brings at most.
const MAX_RUN_SLICES: u64 = 1_024;
/// How often in a row a reader may be let down before its transfer breaks.
const MAX_FAILURES: u32 = 3;

impl<S: Source> SlicedReader<S> {
    /// A reader that begins runs by `source`.
    pub(crate) fn new(node: Arc<Node>, sliced: Arc<Sliced>, source: S) -> Self {
        Self { node, sliced, source, seat: None, now: None, here: None, opened: Opened::default(), failures: 0 }
    }

    /// Some of the bytes from `at` on, which are wanted up to `end`.
    ///
    /// # Errors
    /// The word for why they cannot be had.
    pub(crate) async fn next(&mut self, at: u64, end: u64) -> Result<Bytes, &'static str> {
        loop {
            let index = at / SLICE_BYTES;
            let slice = self.sliced.bytes_of(index);
            let most = slice.end.min(end).saturating_sub(at);
            let failed = if let Some(reader) = &mut self.now {
                match reader.next(most).await {
                    Ok(Some(bytes)) => {
                        self.failures = 0;
                        if at + bytes.len() as u64 >= slice.end.min(end) {
                            self.now = None;
                        }
                        return Ok(bytes);
                    }
                    Ok(None) => "closed-early",
                    Err(word) => word,
                }
            } else if let Some(bytes) = self.stored(index, at, most).await {
                self.failures = 0;
                return Ok(bytes);
            } else {
                match self.coming(at, end).await {
                    Ok(growing) => {
                        self.now = growing.read(at - slice.start);
                        continue;
                    }
                    Err(word) => word,
                }
            };
            (self.now, self.seat) = (None, None);
            self.failures += 1;
            if failed == CHANGED || self.failures >= MAX_FAILURES {
                return Err(failed);
            }
        }
    }

    /// At most `most` bytes from `at` on, out of a stored slice.
    async fn stored(&mut self, index: u64, at: u64, most: u64) -> Option<Bytes> {
        if let Some(seat) = &self.seat
            && seat.run.has_for_reader(index)
        {
            return None; // the run holds it for its readers
        }
        let bytes = match self.here.take().filter(|(before, _)| *before == index) {
            Some((_, bytes)) => bytes,
            None => self.sliced.read(&self.node, &mut self.opened, index).await?,
        };
        self.seat = None;
        let from = usize::try_from(at - self.sliced.bytes_of(index).start).ok()?;
        let to = from.checked_add(usize::try_from(most.min(PIECE_BYTES)).ok()?)?;
        let piece = (from < to && to <= bytes.len()).then(|| bytes.slice(from..to));
        self.here = Some((index, bytes));
        piece
    }

    /// The slice with the byte `at`, as it comes, with a seat in the run that brings it.
    async fn coming(&mut self, at: u64, end: u64) -> Result<Arc<Growing>, &'static str> {
        let index = at / SLICE_BYTES;
        match &self.seat {
            Some(seat) if seat.run.has_for_reader(index) => seat.move_to(index),
            _ => {
                let (seat, begun) = self.sliced.join(index, self.missing(at, end));
                self.seat = Some(seat);
                if let Some(begun) = begun {
                    self.source.fetch(begun);
                }
            }
        }
        match &self.seat {
            Some(seat) => seat.run.slice(index).await,
            None => Err("abandoned"),
        }
    }

    /// The bytes to ask for: from the slice of `at` up to one that is stored already, or to the end of what is wanted, and then
    /// to the end of its slice where that costs the origin no more than one slice in all.
    fn missing(&self, at: u64, end: u64) -> Range<u64> {
        let sliced = &self.sliced;
        if !sliced.by_range {
            return 0..sliced.length;
        }
        let (index, last) = (at / SLICE_BYTES, end.saturating_sub(1) / SLICE_BYTES);
        let most = index.saturating_add(MAX_RUN_SLICES);
        let stop = (index + 1..=last).take_while(|index| *index < most).find(|index| sliced.has(&self.node, *index));
        let start = sliced.bytes_of(index).start;
        match stop {
            Some(stop) => start..sliced.bytes_of(stop).start,
            None if last >= most => start..sliced.bytes_of(most).start,
            None => {
                let whole = sliced.bytes_of(last).end;
                start..if (at - start) + (whole - end) <= SLICE_BYTES { whole } else { end }
            }
        }
    }
}
