//! The tiers of an edge's cache: memory, and below it files.
//!
//! A tier knows keys, values and bytes. It knows no HTTP, no zone and no freshness: what may be served is decided by
//! whoever looks it up.

pub mod bounded;
pub mod curve;
pub mod disk;
pub mod memory;
pub mod policy;
pub mod simulate;
#[cfg(test)]
mod traces;

pub use bounded::{Bounded, Class, Counters, Facts, Insertion, Terms};
pub use curve::{Curve, CurvePoint};
pub use memory::{Cursor, Memory};
pub use policy::{Objective, PolicyChoice, PolicyName};
