//! Who takes blocks, and how many: a pool with a limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::arena::Block;

/// The least size of a body that gets a block, in bytes. Smaller ones are written as quickly as they are handed over, and
/// would waste more of their last page.
pub const LEAST_BYTES: usize = 32 << 10;

/// Room for bodies, up to a limit. What does not fit is on the heap.
#[derive(Debug)]
pub struct Pool {
    limit_bytes: u64,
    held_bytes: AtomicU64,
    no_room: AtomicU64,
}

impl Pool {
    /// A pool of at most `limit_bytes`, counted in whole pages.
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self { limit_bytes, held_bytes: AtomicU64::new(0), no_room: AtomicU64::new(0) })
    }

    /// A buffer of exactly `length` bytes, all zero: a block if it is at least [`LEAST_BYTES`] and there is room, else of the
    /// heap.
    pub fn buffer(self: &Arc<Self>, length: usize) -> Buffer {
        if length < LEAST_BYTES {
            return Buffer(Kind::Heap(vec![0; length]));
        }
        Buffer(match Block::take(self, length) {
            Some(block) => Kind::Block(block),
            None => {
                self.no_room.fetch_add(1, Ordering::Relaxed);
                Kind::Heap(vec![0; length])
            }
        })
    }

    /// These pieces as one, in a [buffer](Self::buffer).
    pub fn join(self: &Arc<Self>, pieces: &[Bytes]) -> Bytes {
        let length = pieces.iter().map(Bytes::len).sum();
        if length < LEAST_BYTES {
            return pieces.concat().into();
        }
        let mut buffer = self.buffer(length);
        let mut rest = buffer.as_mut();
        for piece in pieces {
            let (place, after) = rest.split_at_mut(piece.len());
            place.copy_from_slice(piece);
            rest = after;
        }
        buffer.freeze()
    }

    /// The same bytes in a block, if they are enough for one, and not in one already.
    pub fn own(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        if bytes.len() < LEAST_BYTES || crate::holds(&bytes) { bytes } else { self.join(&[bytes]) }
    }

    /// Bytes in blocks now, in whole pages.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Bodies that were large enough for a block and did not get one.
    pub fn no_room(&self) -> u64 {
        self.no_room.load(Ordering::Relaxed)
    }

    pub(crate) fn reserve(&self, bytes: u64) -> bool {
        let more = |held: u64| held.checked_add(bytes).filter(|held| *held <= self.limit_bytes);
        self.held_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(crate) fn release(&self, bytes: u64) {
        self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes that are to be filled.
pub struct Buffer(Kind);

enum Kind {
    Heap(Vec<u8>),
    Block(Block),
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Kind::Heap(bytes) => bytes,
            Kind::Block(block) => block.as_mut(),
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        match &self.0 {
            Kind::Heap(bytes) => bytes,
            Kind::Block(block) => block.as_ref(),
        }
    }
}

impl Buffer {
    /// They are filled, and never change again.
    pub fn freeze(self) -> Bytes {
        match self.0 {
            Kind::Heap(bytes) => bytes.into(),
            Kind::Block(block) => Bytes::from_owner(block),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_the_least_size_get_blocks_up_to_the_limit() {
        let pool = Pool::new(3 * LEAST_BYTES as u64);
        assert!(!crate::holds(pool.buffer(LEAST_BYTES - 1).as_ref()));
        assert_eq!((pool.held_bytes(), pool.no_room()), (0, 0));
        let one = pool.own(Bytes::from(vec![1; LEAST_BYTES]));
        // A page more than a byte less.
        let two = pool.own(Bytes::from(vec![2; LEAST_BYTES + 1]));
        let page = rustix::param::page_size() as u64;
        assert_eq!(pool.held_bytes(), 2 * LEAST_BYTES as u64 + page);
        let three = pool.own(Bytes::from(vec![3; LEAST_BYTES]));
        assert!(crate::holds(&one) && crate::holds(&two) && !crate::holds(&three));
        assert_eq!((&one[..], pool.no_room()), (&[1; LEAST_BYTES][..], 1));
        let part = two.slice(LEAST_BYTES..);
        drop((one, two));
        assert_eq!((&part[..], pool.held_bytes()), (&[2][..], LEAST_BYTES as u64 + page));
        drop(part);
        assert_eq!(pool.held_bytes(), 0);
        let exactly = pool.buffer(3 * LEAST_BYTES);
        assert!(crate::holds(exactly.as_ref()) && pool.held_bytes() == 3 * LEAST_BYTES as u64);
    }

    #[test]
    fn buffers_are_zero_also_where_others_were() {
        let pool = Pool::new(1 << 20);
        for _ in 0..3 {
            let mut buffer = pool.buffer(5 * LEAST_BYTES);
            assert!(buffer.as_ref().iter().all(|byte| *byte == 0));
            buffer.as_mut().fill(0xFF);
            assert!(buffer.freeze().iter().all(|byte| *byte == 0xFF));
        }
    }

    #[test]
    fn pieces_are_joined_in_their_order() {
        let pool = Pool::new(1 << 20);
        let pieces = |lengths: &[usize]| -> Vec<Bytes> {
            (0_u8..).zip(lengths).map(|(value, length)| Bytes::from(vec![value; *length])).collect()
        };
        for lengths in [&[][..], &[5], &[5, 0, 7], &[LEAST_BYTES - 1, 1], &[1, LEAST_BYTES, 0, 3]] {
            let pieces = pieces(lengths);
            let joined = pool.join(&pieces);
            assert_eq!(joined, pieces.concat());
            assert_eq!(crate::holds(&joined), joined.len() >= LEAST_BYTES);
            // What is in a block already stays where it is.
            assert_eq!(pool.own(joined.clone()).as_ptr(), joined.as_ptr());
        }
    }

    #[test]
    fn many_threads_take_and_drop_blocks_that_are_theirs_alone() {
        let pool = Pool::new(32 << 20);
        std::thread::scope(|scope| {
            for value in 0..4_u8 {
                let pool = &pool;
                scope.spawn(move || {
                    let mut kept = std::collections::VecDeque::new();
                    for turn in 0..300_usize {
                        let length = LEAST_BYTES + turn * 997 % (200 << 10);
                        kept.push_back(pool.own(Bytes::from(vec![value; length])));
                        if kept.len() > 20 {
                            assert!(kept.pop_front().unwrap().iter().all(|byte| *byte == value));
                        }
                    }
                });
            }
        });
        assert_eq!(pool.held_bytes(), 0);
    }
}
