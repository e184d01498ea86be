//! The only place that knows hyper: listening, connecting, limits and draining.
//!
//! Roles see [`serve`], [`HttpClient`] (between nodes), [`Upstream`] (towards origins) and [`Body`], and the types of the
//! `http` crate; what stands behind them can be replaced without touching a role. Absent on purpose: routing, access,
//! caching, and any knowledge of Littoral's API.

mod body;
mod client;
mod listen;
mod serve;
mod stall;
mod upstream;

pub use body::{Body, BodyError, ReadError, read_to_end};
pub use client::{ClientLimits, HttpClient, NetError};
pub use hyper::body::Incoming;
pub use listen::{bind, bind_udp};
pub use serve::{Peer, ServerLimits, serve, service};
pub use upstream::{
    HealthCheck, Informational, QUEUE_MAX, RESPONSE_FIELDS, RESPONSE_HEAD_BYTES, Retry, ServerState, TRIES_MAX,
    Upgraded, Upstream, UpstreamConfig, UpstreamConfigError, UpstreamError, UpstreamProtocol, UpstreamResponse,
    UpstreamServer,
};
