//! HTTP caching decisions as pure functions: bytes and numbers in, an enum with a reason out.
//!
//! Nothing here does I/O or reads a clock: the time is an argument, in seconds since the Unix epoch. Nothing here knows
//! a zone or an edge either. Every decision is an enum whose `word()` is the same in `Cache-Status`, log and metric.
//!
//! - [`range`]: which bytes a `Range` asks for, and the framing of answers with several of them
//! - [`conditional`]: `If-Match` and its family
//! - [`response`]: whether a response is kept, on which terms, and whether a request may be answered with it
//! - [`cache_control`], [`targeted`]: the directives that govern a response
//! - [`freshness`]: how long a response is fresh, how old it is
//! - [`vary`]: which of several responses of one URL answers a request
//! - [`coding`]: compressed forms of a response, and who accepts them
//! - [`update`]: what a 304, a HEAD or an unsafe request changes in what is stored
//! - [`cache_status`]: how a response tells what the cache did
//! - [`hop`]: headers that end at each hop
//! - [`plan`]: what to answer to a GET or HEAD, all of the above together
//! - [`date`]: dates as HTTP writes them

pub mod cache_control;
pub mod cache_status;
pub mod coding;
pub mod conditional;
pub mod date;
pub mod freshness;
pub mod hop;
pub mod plan;
pub mod range;
pub mod response;
pub mod targeted;
pub mod update;
pub mod vary;

#[cfg(test)]
mod rfc9111;

pub use cache_control::CacheControl;
pub use cache_status::{CacheStatus, Forward, Outcome};
pub use coding::{Accepted, Coding};
pub use conditional::{Precondition, Validators};
pub use freshness::{Decision, Defaults, Freshness, NotStorable, Storable};
pub use plan::{Piece, Plan};
pub use range::{ByteRange, Selection};
