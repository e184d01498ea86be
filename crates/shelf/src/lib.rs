//! The tiers of an edge's cache. So far there is one: memory.
//!
//! A tier knows keys, values and bytes. It knows no HTTP, no zone and no freshness: what may be served is decided by
//! whoever looks it up.

mod lru;
pub mod memory;

pub use memory::{Counters, Insertion, Memory};
