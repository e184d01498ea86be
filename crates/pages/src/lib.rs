//! Memory for large bodies, which the kernel sends from where it is: [`send`] hands the pages themselves to a socket, where a
//! write would copy them.
//!
//! A body is put into a *block* of pages of its own ([`Pool::buffer`], [`Pool::join`]) and is `Bytes` from then on, like any
//! other. Blocks lie in one range of addresses, reserved once for the process (`arena.rs`), so that [`holds`] tells by its
//! address whether a body lies in one.
//!
//! **What is in flight.** A socket's queue refers to pages long after the write: until the other side has them, and on the same
//! machine until it has *read* them. So a block is never written again. When its last `Bytes` goes, its pages are given back
//! to the kernel (`MADV_DONTNEED`), for which those that are in flight stay as they are until the last socket has done with
//! them; the addresses get new pages when they are used again. Nothing else may ever reuse a block: not an own list of free
//! pages, and not `MADV_FREE`, which may leave a page where it is. Nor may it be a file in memory: to punch a part out of a
//! huge page of one writes zeros over bytes that are in flight.
//!
//! Where the kernel does not have it (no range of addresses, no pipe, a filter of system calls) bodies are on the heap and are
//! written as ever: nothing here fails because of that.
//!
//! This crate has `unsafe`, the only one of the workspace: to map memory, to give it back, to see a block as a slice, and to
//! show it to the kernel. Each place says why it is sound.

mod arena;
mod pool;
mod ranges;
mod send;

pub use arena::holds;
pub use pool::{Buffer, LEAST_BYTES, Pool};
pub use send::{SendError, Sent, send};
