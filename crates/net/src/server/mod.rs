//! The server's side of HTTP on one connection: our own strict HTTP/1.1, and our own HTTP/2 (`http2/`), by prior knowledge or as
//! TLS has agreed on.
//!
//! Requests that ask for nothing special are offered to the service as they stand in the buffer (`plain.rs`), before anything is
//! parsed. Connections that wait keep no buffers (`pool.rs`).
//!
//! Pure parts (no I/O, no clock): `scan.rs` finds the head of a request in a buffer, `head.rs` judges it, `host.rs` and
//! `target.rs` its two most delicate parts, `chunked.rs` decodes bodies, `encode.rs` frames responses, `refusal.rs` names
//! everything that is refused, `hpack/` packs fields for HTTP/2. Thin shells: `wire.rs` (socket and buffers), `h1.rs` (the
//! connection's loop), `exchange.rs` (one request and its response), `reading.rs` (its body on the way in). What a service sees:
//! `body.rs`, `informational.rs`, `upgrade.rs`.
//!
//! What is strict on purpose: nothing is repaired. A request that two implementations could read differently is answered
//! with 400 and the connection is closed, because what follows it on the connection could be anything.

mod body;
mod chunked;
mod date;
mod encode;
mod exchange;
mod h1;
mod head;
mod host;
mod hpack;
mod http2;
mod informational;
mod plain;
mod pool;
mod reading;
mod refusal;
mod rewound;
mod scan;
mod target;
mod upgrade;
mod wire;

#[cfg(test)]
mod properties;

pub use body::Incoming;
pub use encode::{ready_block, ready_head};
pub(crate) use h1::run;
pub use hpack::{field as block_field, literal as block_literal};
pub(crate) use http2::run as run_http2;
pub use informational::Informational;
pub use plain::{Plain, ReadyAnswers, is_plain_field};
pub use upgrade::{OnUpgrade, UpgradeError, Upgraded};
pub(crate) use wire::Transport;
