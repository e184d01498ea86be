//! Buffers that connections of a thread hand to each other: a connection that waits for a request has none, so that tens of
//! thousands of them cost little, and the one that is served next finds a buffer that is still in the processor's cache.

use std::cell::RefCell;

use bytes::BytesMut;

use super::wire::READ_BYTES;

/// Buffers of each kind that a thread keeps while nobody uses them.
const KEPT: usize = 16;
/// The largest buffer that is kept, in bytes.
const KEPT_BYTES: usize = 128 << 10;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { inputs: Vec::new(), outputs: Vec::new() }) };
}

struct Pool {
    inputs: Vec<BytesMut>,
    outputs: Vec<Vec<u8>>,
}

/// An empty buffer to read into, with room for [`READ_BYTES`].
pub(crate) fn input() -> BytesMut {
    let mut buffer = POOL.with_borrow_mut(|pool| pool.inputs.pop()).unwrap_or_default();
    // Takes back what was used of it, where nobody else has a part of it any more.
    buffer.reserve(READ_BYTES);
    buffer
}

/// Takes a buffer that is empty.
pub(crate) fn give_back_input(buffer: BytesMut) {
    POOL.with_borrow_mut(|pool| {
        if buffer.is_empty() && buffer.capacity() > 0 && pool.inputs.len() < KEPT {
            pool.inputs.push(buffer);
        }
    });
}

/// An empty buffer to write into.
pub(crate) fn output() -> Vec<u8> {
    POOL.with_borrow_mut(|pool| pool.outputs.pop()).unwrap_or_default()
}

/// Takes a buffer that is empty.
pub(crate) fn give_back_output(buffer: Vec<u8>) {
    POOL.with_borrow_mut(|pool| {
        let keeps = buffer.is_empty() && (1..=KEPT_BYTES).contains(&buffer.capacity());
        if keeps && pool.outputs.len() < KEPT {
            pool.outputs.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_the_pool_is_bounded() {
        let mut input = input();
        assert!(input.capacity() >= READ_BYTES && input.is_empty());
        input.extend_from_slice(b"request");
        let at = input.as_ptr();
        let rest = input.split_off(7);
        drop(input);
        give_back_input(rest);
        let again = super::input();
        assert!(again.capacity() >= READ_BYTES);
        assert_eq!(again.as_ptr(), at, "its room is taken back");

        for _ in 0..2 * KEPT {
            give_back_output(Vec::with_capacity(8));
            give_back_input(BytesMut::with_capacity(8));
        }
        give_back_output(Vec::new());
        let (inputs, outputs) = POOL.with_borrow(|pool| (pool.inputs.len(), pool.outputs.len()));
        assert_eq!((inputs, outputs), (KEPT, KEPT));
        POOL.with_borrow_mut(|pool| pool.outputs.clear());
        give_back_output(Vec::with_capacity(KEPT_BYTES + 1));
        give_back_output(vec![1]);
        assert_eq!(POOL.with_borrow(|pool| pool.outputs.len()), 0);
    }
}
