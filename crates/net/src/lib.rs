//! The only place that speaks HTTP on sockets: our own server, hyper's client; listening, connecting, limits and draining.
//!
//! Roles see [`serve`], [`Door`] (TLS, PROXY protocol), [`HttpClient`] (between nodes), [`Upstream`] (towards origins) and [`Body`], and the types of the
//! `http` crate; what stands behind them can be replaced without touching a role. Absent on purpose: routing, access,
//! caching, and any knowledge of Littoral's API.

mod body;
mod client;
mod door;
mod fields;
mod handover;
mod listen;
mod proxy_protocol;
mod serve;
mod server;
mod stall;
mod tls;
mod upstream;
mod workers;

pub use body::{Body, BodyError, ReadError, read_to_end};
pub use client::{ClientLimits, HttpClient, NetError};
pub use door::{Door, Doors};
pub use handover::{HANDOVER_MESSAGE_BYTES, HandoverError, HandoverLink, HandoverPoint, ask, keep_open};
pub use listen::{Listener, MAX_WORKERS, bind, bind_udp, bind_workers};
pub use serve::{Peer, ServerLimits, serve, serve_doors, service};
pub use server::{
    Incoming, Informational, OnUpgrade, Plain, ReadyAnswers, UpgradeError, Upgraded, block_field, block_literal,
    is_plain_field, ready_block, ready_head,
};
pub use tls::{CertificateError, CertificateSources, Tls, TlsState, certificate_in};
pub use upstream::{
    HealthCheck, OnInformational, QUEUE_MAX, RESPONSE_FIELDS, RESPONSE_HEAD_BYTES, Retry, ServerState, TRIES_MAX,
    Upstream, UpstreamConfig, UpstreamConfigError, UpstreamError, UpstreamProtocol, UpstreamResponse, UpstreamServer,
    UpstreamUpgraded,
};
