//! A body on its way in, which any number of readers follow as it grows.
//!
//! The fetch appends, readers wait for what they have not seen. While the body is *kept* (it is to be stored) nothing is
//! dropped, and the fetch runs as fast as the origin sends. A body that turns out too large is kept no longer: from then on
//! the fetch is never more than [`WINDOW_BYTES`] ahead of the slowest reader, what everybody has read is dropped, and a
//! fetch that nobody reads any more ends (before the first reader has come it waits as long as for a slow one). A reader that
//! holds the others back for [`LAGGARD_MS`] is left behind.
//!
//! A kept body that is too large for memory goes to disk as it grows ([`Spool`]): a slice that is written is dropped here at
//! once, and whoever is behind reads it from there.
//!
//! What bodies hold is counted against a [`Budget`] for as long as anybody holds them, finished or not.
//!
//! The mutex covers chunks and positions; nothing is awaited under it. A body always ends: done, or with a word for why not.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, watch};

use crate::pull::spool::Spool;

/// How far a body that is not kept may be ahead of its slowest reader, in bytes.
pub(crate) const WINDOW_BYTES: u64 = 1 << 20;
/// How long the slowest of several readers may stop the others, in milliseconds.
const LAGGARD_MS: u64 = 5_000;
/// The least size of a chunk, in bytes; smaller ones are joined.
const CHUNK_BYTES: usize = 8 << 10;
/// Bytes of a slice from disk that are handed on at a time.
const PIECE_BYTES: usize = 128 << 10;
/// A finished body of at most this size, in bytes, is stored in one piece.
const JOINED_BYTES: usize = 64 << 10;

/// Bytes that growing bodies may hold together.
pub(crate) struct Budget {
    held: AtomicU64,
    most: u64,
}

impl Budget {
    pub(crate) fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { held: AtomicU64::new(0), most })
    }

    /// Whether more is held than there should be.
    pub(crate) fn exceeded(&self) -> bool {
        self.held.load(Ordering::Acquire) > self.most
    }
}

pub(crate) struct Growing {
    state: Mutex<State>,
    budget: Arc<Budget>,
    /// Its length so far: changes with every chunk and at the end.
    changed: watch::Sender<u64>,
    /// A reader has moved on, or left.
    read: Notify,
    /// The offset of its first byte in the representation.
    first: u64,
}

struct State {
    /// Offset (from the first byte) and bytes, in order, without gaps.
    chunks: VecDeque<(u64, Bytes)>,
    /// What came last, in pieces too small to be kept each by itself: the bytes after all chunks.
    tail: BytesMut,
    length: u64,
    /// How many bytes were dropped from the beginning.
    dropped: u64,
    end: End,
    kept: bool,
    /// Where what was dropped of a kept body can be read.
    spool: Option<Spool>,
    /// How many bytes are there.
    spooled: u64,
    readers: HashMap<u64, u64>,
    next_reader: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Done,
    Failed(&'static str),
}

impl Growing {
    /// An empty body, whose first byte is number `first` of the representation.
    pub(crate) fn new(first: u64, budget: &Arc<Budget>) -> Arc<Self> {
        let state = State {
            chunks: VecDeque::new(),
            tail: BytesMut::new(),
            length: 0,
            dropped: 0,
            end: End::Open,
            kept: true,
            spool: None,
            spooled: 0,
            readers: HashMap::new(),
            next_reader: 0,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            budget: Arc::clone(budget),
            changed: watch::Sender::new(0),
            read: Notify::new(),
            first,
        })
    }

    /// The offset of its first byte in the representation.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// How many bytes have come so far.
    pub(crate) fn length(&self) -> u64 {
        self.lock().length
    }

    /// Whether who comes now can still read it from its beginning.
    pub(crate) fn joinable(&self) -> bool {
        let state = self.lock();
        state.kept && !matches!(state.end, End::Failed(_))
    }

    /// Appends. Waits where it is not kept and too far ahead. False: nobody wants it any more.
    pub(crate) async fn push(&self, chunk: &Bytes) -> bool {
        {
            let mut state = self.lock();
            state.append(chunk);
            self.budget.held.fetch_add(chunk.len() as u64, Ordering::AcqRel);
            self.changed.send_replace(state.length);
        }
        let mut slow = std::pin::pin!(tokio::time::sleep(Duration::from_millis(LAGGARD_MS)));
        loop {
            let read = self.read.notified();
            {
                let mut state = self.lock();
                if state.kept {
                    return true;
                }
                match state.readers.values().min().copied() {
                    Some(slowest) => {
                        let dropped = state.drop_before(slowest);
                        self.budget.held.fetch_sub(dropped, Ordering::AcqRel);
                        // A reader may wait for bytes that have yet to come.
                        if state.length.saturating_sub(slowest) <= WINDOW_BYTES {
                            return true;
                        }
                    }
                    // The first reader is on its way: it is told of this body at this moment.
                    None if state.next_reader == 0 && state.length <= WINDOW_BYTES => return true,
                    None if state.next_reader == 0 => {}
                    None => return false,
                }
            }
            tokio::select! {
                () = read => {}
                () = &mut slow => {
                    let mut state = self.lock();
                    if state.readers.is_empty() {
                        return false;
                    }
                    let reached = state.length;
                    // Alone, a slow reader harms nobody but itself.
                    if state.readers.len() > 1 {
                        state.readers.retain(|_, at| reached.saturating_sub(*at) <= WINDOW_BYTES);
                    }
                    slow.set(tokio::time::sleep(Duration::from_millis(LAGGARD_MS)));
                }
            }
        }
    }

    /// From now on what [`Self::spooled`] says is read from there.
    pub(crate) fn spool(&self, spool: Spool) {
        self.lock().spool = Some(spool);
    }

    /// The next slice to be written, once all of it has come; at the end, what is left. Its number and its bytes.
    pub(crate) fn next_to_spool(&self, at_end: bool) -> Option<(u32, Vec<Bytes>)> {
        let mut state = self.lock();
        let (from, slice) = (state.spooled, shelf::disk::SLICE_BYTES);
        let to = if at_end { state.length.min(from + slice) } else { from + slice };
        if from >= to || to > state.length {
            return None;
        }
        state.flush();
        let (mut at, mut pieces) = (from, Vec::new());
        while at < to {
            let mut piece = state.at(at)?;
            piece.truncate(usize::try_from(to - at).unwrap_or(usize::MAX));
            at += piece.len() as u64;
            pieces.push(piece);
        }
        Some((u32::try_from(from / slice).ok()?, pieces))
    }

    /// The slice that [`Self::next_to_spool`] gave is written: nobody needs it in memory any more.
    pub(crate) fn spooled(&self) {
        let mut state = self.lock();
        state.spooled = state.length.min(state.spooled + shelf::disk::SLICE_BYTES);
        let upto = state.spooled;
        let dropped = state.drop_before(upto);
        self.budget.held.fetch_sub(dropped, Ordering::AcqRel);
    }

    /// It is not to be stored: from now on the readers set the pace.
    pub(crate) fn let_go(&self) {
        self.lock().kept = false;
    }

    /// All of it is there.
    pub(crate) fn finish(&self) {
        self.end(End::Done);
    }

    /// It broke off.
    pub(crate) fn fail(&self, why: &'static str) {
        self.end(End::Failed(why));
    }

    fn end(&self, end: End) {
        let mut state = self.lock();
        if state.end == End::Open {
            state.end = end;
            self.changed.send_replace(state.length);
        }
    }

    /// What has come so far, in pieces of exact size, shared with those who still read it.
    pub(crate) fn pieces(&self) -> Vec<Bytes> {
        let chunks: Vec<Bytes> = {
            let mut state = self.lock();
            state.flush();
            state.chunks.iter().map(|(_, bytes)| bytes.clone()).collect()
        };
        if chunks.len() <= 1 || chunks.iter().map(Bytes::len).sum::<usize>() > JOINED_BYTES {
            return chunks;
        }
        // One piece is one write.
        vec![Bytes::from(chunks.concat())]
    }

    /// A reader that begins `from` bytes after its first byte; nothing where those are gone already.
    pub(crate) fn read(self: &Arc<Self>, from: u64) -> Option<Reader> {
        let mut state = self.lock();
        if from < state.dropped && !(state.kept || state.length == 0) {
            return None;
        }
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(id, from);
        Some(Reader { body: Arc::clone(self), id, at: from, here: None, changed: self.changed.subscribe() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after every statement, so a panic elsewhere left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        let held = {
            let state = self.lock();
            state.length - state.dropped
        };
        self.budget.held.fetch_sub(held, Ordering::AcqRel);
    }
}

impl State {
    /// Appends a copy of its own size: a chunk from the network may hold on to a much larger buffer.
    fn append(&mut self, chunk: &Bytes) {
        self.length += chunk.len() as u64;
        if chunk.len() < CHUNK_BYTES {
            self.tail.extend_from_slice(chunk);
        } else {
            self.flush();
            self.chunks.push_back((self.length - chunk.len() as u64, Bytes::copy_from_slice(chunk)));
        }
        if self.tail.len() >= CHUNK_BYTES {
            self.flush();
        }
    }

    /// Makes a chunk of the tail.
    fn flush(&mut self) {
        if !self.tail.is_empty() {
            let at = self.chunks.back().map_or(self.dropped, |(at, bytes)| at + bytes.len() as u64);
            self.chunks.push_back((at, Bytes::copy_from_slice(&self.tail)));
            self.tail.clear();
        }
    }

    /// Drops what lies before `offset`, and says how many bytes that was.
    fn drop_before(&mut self, offset: u64) -> u64 {
        let mut dropped = 0;
        while let Some(length) = self.chunks.front().map(|(at, bytes)| (at + bytes.len() as u64 <= offset, bytes.len()))
            && length.0
        {
            self.chunks.pop_front();
            dropped += length.1 as u64;
        }
        self.dropped += dropped;
        dropped
    }

    /// The bytes from `offset` to the end of their chunk, if they have come.
    fn at(&self, offset: u64) -> Option<Bytes> {
        let tail_at = self.length - self.tail.len() as u64;
        if offset >= tail_at {
            let rest = self.tail.get(usize::try_from(offset - tail_at).ok()?..)?;
            return (!rest.is_empty()).then(|| Bytes::copy_from_slice(rest));
        }
        let index = self.chunks.partition_point(|(at, _)| *at <= offset).checked_sub(1)?;
        let (at, bytes) = self.chunks.get(index)?;
        let skip = usize::try_from(offset - at).ok()?;
        (skip < bytes.len()).then(|| bytes.slice(skip..))
    }
}

/// A place in a growing body.
pub(crate) struct Reader {
    body: Arc<Growing>,
    id: u64,
    at: u64,
    /// A slice that was read from disk, and where it begins.
    here: Option<(u64, Bytes)>,
    changed: watch::Receiver<u64>,
}

impl Reader {
    /// The next bytes, at most `most`; nothing at the end.
    ///
    /// # Errors
    /// The word for why it broke off, or `overtaken` where the bytes are gone.
    pub(crate) async fn next(&mut self, most: u64) -> Result<Option<Bytes>, &'static str> {
        loop {
            if let Some(mut bytes) = self.on_disk() {
                bytes.truncate(usize::try_from(most).unwrap_or(usize::MAX));
                self.moved(bytes.len() as u64);
                return Ok(Some(bytes));
            }
            self.changed.borrow_and_update();
            let spool = {
                let state = self.body.lock();
                match state.at(self.at) {
                    Some(mut bytes) => {
                        drop(state);
                        bytes.truncate(usize::try_from(most).unwrap_or(usize::MAX));
                        self.moved(bytes.len() as u64);
                        return Ok(Some(bytes));
                    }
                    None if self.at < state.spooled => Some(state.spool.clone().ok_or("overtaken")?),
                    None if self.at < state.length => return Err("overtaken"),
                    None => match state.end {
                        End::Done => return Ok(None),
                        End::Failed(why) => return Err(why),
                        End::Open => None,
                    },
                }
            };
            if let Some(spool) = spool {
                let number = self.at / shelf::disk::SLICE_BYTES;
                let slice = spool.slice(u32::try_from(number).unwrap_or(u32::MAX)).await?;
                self.here = Some((number * shelf::disk::SLICE_BYTES, slice));
            } else if self.changed.changed().await.is_err() {
                return Err("abandoned");
            }
        }
    }

    /// What comes next in the slice that was read from disk.
    fn on_disk(&mut self) -> Option<Bytes> {
        let (first, slice) = self.here.as_ref()?;
        let from = usize::try_from(self.at.checked_sub(*first)?).ok()?;
        if from >= slice.len() {
            self.here = None;
            return None;
        }
        Some(slice.slice(from..slice.len().min(from + PIECE_BYTES)))
    }

    fn moved(&mut self, bytes: u64) {
        self.at += bytes;
        if let Some(place) = self.body.lock().readers.get_mut(&self.id) {
            *place = self.at;
        }
        self.body.read.notify_one();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.body.lock().readers.remove(&self.id);
        self.body.read.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(mut reader: Reader) -> Result<Vec<u8>, &'static str> {
        let mut bytes = Vec::new();
        while let Some(chunk) = reader.next(u64::MAX).await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    #[tokio::test]
    async fn readers_follow_from_anywhere_and_see_the_end() {
        let body = Growing::new(0, &Budget::new(1));
        let early = tokio::spawn(all(body.read(0).expect("there")));
        assert!(body.push(&Bytes::from_static(b"hello ")).await);
        let middle = tokio::spawn(all(body.read(3).expect("there")));
        assert!(body.push(&Bytes::from_static(b"world")).await);
        body.finish();
        let late = tokio::spawn(all(body.read(11).expect("there")));
        assert_eq!(early.await.expect("task").expect("whole"), b"hello world");
        assert_eq!(middle.await.expect("task").expect("whole"), b"lo world");
        assert_eq!(late.await.expect("task").expect("whole"), b"");
        assert_eq!(body.pieces().concat(), b"hello world");
        let mut reader = body.read(1).expect("there");
        assert_eq!(reader.next(2).await.expect("bytes").expect("some"), "el");
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_an_error_for_everybody() {
        let body = Growing::new(0, &Budget::new(1));
        assert!(body.push(&Bytes::from_static(b"he")).await);
        let reader = tokio::spawn(all(body.read(0).expect("there")));
        body.fail("closed-early");
        body.finish();
        assert_eq!(reader.await.expect("task"), Err("closed-early"));
        assert!(!body.joinable());
    }

    #[tokio::test]
    async fn what_is_not_kept_waits_for_its_slowest_reader_and_ends_without_one() {
        let body = Growing::new(0, &Budget::new(1));
        let chunk = Bytes::from(vec![7; 64 << 10]);
        let (mut slow, mut quick) = (body.read(0).expect("there"), body.read(0).expect("there"));
        body.let_go();
        assert!(!body.joinable());
        let writer = {
            let (body, chunk) = (Arc::clone(&body), chunk.clone());
            tokio::spawn(async move {
                let mut pushed = 0_u64;
                while pushed < 4 * WINDOW_BYTES && body.push(&chunk).await {
                    pushed += chunk.len() as u64;
                }
                body.finish();
                pushed
            })
        };
        let mut ahead = 0;
        while ahead < WINDOW_BYTES {
            ahead += quick.next(u64::MAX).await.expect("bytes").expect("more").len() as u64;
        }
        assert!(body.length() <= WINDOW_BYTES + chunk.len() as u64, "the slow reader holds the writer back");
        slow.next(u64::MAX).await.expect("bytes").expect("more");
        drop(slow);
        while quick.next(u64::MAX).await.expect("bytes").is_some() {
            let held = {
                let state = body.lock();
                state.length - state.dropped
            };
            assert!(held <= WINDOW_BYTES + 2 * chunk.len() as u64);
        }
        assert_eq!(writer.await.expect("writer"), 4 * WINDOW_BYTES);
        let nobody = Growing::new(0, &Budget::new(1));
        drop(nobody.read(0));
        nobody.let_go();
        assert!(!nobody.push(&chunk).await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_reader_is_waited_for_and_not_for_ever() {
        let body = Growing::new(0, &Budget::new(1));
        body.let_go();
        let chunk = Bytes::from(vec![7; WINDOW_BYTES as usize]);
        assert!(body.push(&chunk).await, "there is room for a window");
        let (writer, reader) = tokio::join!(body.push(&chunk), async {
            tokio::time::sleep(Duration::from_millis(LAGGARD_MS / 2)).await;
            let mut reader = body.read(0).expect("nothing was dropped");
            reader.next(u64::MAX).await.expect("bytes");
            reader
        });
        assert!(writer);
        drop(reader);
        let nobody = Growing::new(0, &Budget::new(1));
        nobody.let_go();
        assert!(nobody.push(&chunk).await && !nobody.push(&chunk).await);
    }

    #[tokio::test]
    async fn small_chunks_are_joined_and_large_ones_shared() {
        for (chunk, count, expected) in [
            (100_000, 20, vec![100_000; 20]),
            (1_000, 40, vec![40_000]),
            (1, 10_000, vec![10_000]),
            (1, 80_000, [vec![CHUNK_BYTES; 9], vec![80_000 - 9 * CHUNK_BYTES]].concat()),
            (10, 1, vec![10]),
        ] {
            let body = Growing::new(0, &Budget::new(1));
            for _ in 0..count {
                assert!(body.push(&Bytes::from(vec![1; chunk])).await);
            }
            body.finish();
            assert_eq!(body.pieces().iter().map(Bytes::len).collect::<Vec<_>>(), expected);
        }
    }

    #[tokio::test]
    async fn what_is_held_counts_until_nobody_holds_it() {
        let budget = Budget::new(100);
        let body = Growing::new(0, &budget);
        assert!(body.push(&Bytes::from(vec![1; 100])).await && !budget.exceeded());
        assert!(body.push(&Bytes::from(vec![1; 1])).await && budget.exceeded());
        body.finish();
        let reader = body.read(0).expect("there");
        drop(body);
        assert!(budget.exceeded(), "a reader holds it");
        drop(reader);
        assert_eq!(budget.held.load(Ordering::Acquire), 0);
    }

    #[tokio::test]
    async fn a_reader_that_is_ahead_of_the_bytes_stops_nobody() {
        let body = Growing::new(0, &Budget::new(1));
        let ahead = body.read(1_000).expect("there");
        body.let_go();
        for _ in 0..10 {
            assert!(body.push(&Bytes::from(vec![1; 200])).await);
        }
        body.finish();
        assert_eq!(all(ahead).await.expect("whole").len(), 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_the_others_back_is_left_behind() {
        let body = Growing::new(0, &Budget::new(1));
        let (mut stuck, quick) = (body.read(0).expect("there"), body.read(0).expect("there"));
        body.let_go();
        let chunk = Bytes::from(vec![7; 256 << 10]);
        let writer = {
            let body = Arc::clone(&body);
            tokio::spawn(async move {
                for _ in 0..16 {
                    assert!(body.push(&chunk).await);
                }
                body.finish();
            })
        };
        assert_eq!(all(quick).await.expect("whole").len(), 4 << 20);
        writer.await.expect("writer");
        assert_eq!(stuck.next(u64::MAX).await, Err("overtaken"));
    }
}
