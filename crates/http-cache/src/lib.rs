//! HTTP caching decisions as pure functions: bytes and numbers in, an enum with a reason out.
//!
//! Nothing here does I/O or reads a clock: the time is an argument, in seconds since the Unix epoch. Nothing here knows
//! a zone or an edge either. Every decision is an enum whose `word()` is the same in `Cache-Status`, log and metric.
//!
//! - [`range`]: which bytes a `Range` asks for, and the framing of answers with several of them
//! - [`conditional`]: `If-Match` and its family
//! - [`cache_control`], [`freshness`]: whether a response may be kept, how long it is fresh, how old it is
//! - [`cache_status`]: how a response tells what the cache did
//! - [`hop`]: headers that end at each hop
//! - [`plan`]: what to answer to a GET or HEAD, all of the above together
//! - [`date`]: dates as HTTP writes them

pub mod cache_control;
pub mod cache_status;
pub mod conditional;
pub mod date;
pub mod freshness;
pub mod hop;
pub mod plan;
pub mod range;

pub use cache_control::CacheControl;
pub use cache_status::{CacheStatus, Outcome};
pub use conditional::{Precondition, Validators};
pub use freshness::{Decision, Defaults, Freshness, Storable};
pub use plan::{Piece, Plan};
pub use range::{ByteRange, Selection};
