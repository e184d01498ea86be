//! A body on its way in, which any number of readers follow as it grows.
//!
//! The fetch appends, readers wait for what they have not seen. While the body is *kept* (it is to be stored) nothing is
//! dropped, and the fetch runs as fast as the origin sends. A body that turns out too large is kept no longer: from then on
//! the fetch is never more than [`WINDOW_BYTES`] ahead of the slowest reader, what everybody has read is dropped, and a
//! fetch that nobody reads any more ends.
//!
//! The mutex covers chunks and positions; nothing is awaited under it. A body always ends: done, or with a word for why not.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, watch};

/// How far a body that is not kept may be ahead of its slowest reader, in bytes.
pub(crate) const WINDOW_BYTES: u64 = 1 << 20;
/// The largest piece in which a finished body is stored, in bytes.
const PIECE_BYTES: usize = 1 << 20;

pub(crate) struct Growing {
    state: Mutex<State>,
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
    length: u64,
    end: End,
    kept: bool,
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
    pub(crate) fn new(first: u64) -> Arc<Self> {
        let state = State {
            chunks: VecDeque::new(),
            length: 0,
            end: End::Open,
            kept: true,
            readers: HashMap::new(),
            next_reader: 0,
        };
        Arc::new(Self { state: Mutex::new(state), changed: watch::Sender::new(0), read: Notify::new(), first })
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
            let at = state.length;
            // A copy of its own size: a chunk from the network may hold on to a much larger buffer.
            state.chunks.push_back((at, Bytes::copy_from_slice(chunk)));
            state.length += chunk.len() as u64;
            self.changed.send_replace(state.length);
        }
        loop {
            let read = self.read.notified();
            {
                let mut state = self.lock();
                if state.kept {
                    return true;
                }
                let Some(slowest) = state.readers.values().min().copied() else { return false };
                state.drop_before(slowest);
                if state.length - slowest <= WINDOW_BYTES {
                    return true;
                }
            }
            read.await;
        }
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

    /// What has come so far, in pieces of exact size.
    pub(crate) fn pieces(&self) -> Vec<Bytes> {
        let chunks: Vec<Bytes> = self.lock().chunks.iter().map(|(_, bytes)| bytes.clone()).collect();
        if let [only] = chunks.as_slice() {
            return vec![only.clone()];
        }
        let mut left: usize = chunks.iter().map(Bytes::len).sum();
        let (mut pieces, mut piece) = (Vec::new(), BytesMut::with_capacity(left.min(PIECE_BYTES)));
        for mut chunk in chunks {
            while !chunk.is_empty() {
                let room = PIECE_BYTES - piece.len();
                let part = chunk.split_to(room.min(chunk.len()));
                left -= part.len();
                piece.extend_from_slice(&part);
                if piece.len() == PIECE_BYTES {
                    pieces.push(std::mem::replace(&mut piece, BytesMut::with_capacity(left.min(PIECE_BYTES))).freeze());
                }
            }
        }
        if !piece.is_empty() {
            pieces.push(piece.freeze());
        }
        pieces
    }

    /// A reader that begins `from` bytes after its first byte; nothing where those are gone already.
    pub(crate) fn read(self: &Arc<Self>, from: u64) -> Option<Reader> {
        let mut state = self.lock();
        if from < state.chunks.front().map_or(state.length, |(at, _)| *at) && !(state.kept || state.length == 0) {
            return None;
        }
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(id, from);
        Some(Reader { body: Arc::clone(self), id, at: from, changed: self.changed.subscribe() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after every statement, so a panic elsewhere left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn drop_before(&mut self, offset: u64) {
        while self.chunks.front().is_some_and(|(at, bytes)| at + bytes.len() as u64 <= offset) {
            self.chunks.pop_front();
        }
    }

    /// The bytes from `offset` to the end of their chunk, if they have come.
    fn at(&self, offset: u64) -> Option<Bytes> {
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
    changed: watch::Receiver<u64>,
}

impl Reader {
    /// The next bytes, at most `most`; nothing at the end.
    ///
    /// # Errors
    /// The word for why it broke off, or `overtaken` where the bytes are gone.
    pub(crate) async fn next(&mut self, most: u64) -> Result<Option<Bytes>, &'static str> {
        loop {
            self.changed.borrow_and_update();
            let found = {
                let mut state = self.body.lock();
                match state.at(self.at) {
                    Some(mut bytes) => {
                        bytes.truncate(usize::try_from(most).unwrap_or(usize::MAX));
                        self.at += bytes.len() as u64;
                        state.readers.insert(self.id, self.at);
                        Some(bytes)
                    }
                    None if self.at < state.length => return Err("overtaken"),
                    None => match state.end {
                        End::Done => return Ok(None),
                        End::Failed(why) => return Err(why),
                        End::Open => None,
                    },
                }
            };
            if let Some(bytes) = found {
                self.body.read.notify_one();
                return Ok(Some(bytes));
            }
            if self.changed.changed().await.is_err() {
                return Err("abandoned");
            }
        }
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
        let body = Growing::new(0);
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
        let body = Growing::new(0);
        assert!(body.push(&Bytes::from_static(b"he")).await);
        let reader = tokio::spawn(all(body.read(0).expect("there")));
        body.fail("closed-early");
        body.finish();
        assert_eq!(reader.await.expect("task"), Err("closed-early"));
        assert!(!body.joinable());
    }

    #[tokio::test]
    async fn what_is_not_kept_waits_for_its_slowest_reader_and_ends_without_one() {
        let body = Growing::new(0);
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
            let held: usize = body.lock().chunks.iter().map(|(_, bytes)| bytes.len()).sum();
            assert!(held as u64 <= WINDOW_BYTES + 2 * chunk.len() as u64);
        }
        assert_eq!(writer.await.expect("writer"), 4 * WINDOW_BYTES);
        let nobody = Growing::new(0);
        nobody.let_go();
        assert!(!nobody.push(&chunk).await);
    }

    #[tokio::test]
    async fn pieces_are_of_exact_size() {
        let body = Growing::new(0);
        for _ in 0..20 {
            assert!(body.push(&Bytes::from(vec![1; 100_000])).await);
        }
        body.finish();
        let lengths: Vec<usize> = body.pieces().iter().map(Bytes::len).collect();
        assert_eq!(lengths, [PIECE_BYTES, 2_000_000 - PIECE_BYTES]);
    }
}
