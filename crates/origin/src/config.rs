//! What an origin is told when it starts. Plain data: who assembles it reads files and environment.

use api::TokenSecret;
use net::ServerLimits;

/// How an origin reaches control, and what it allows.
#[derive(Debug, Clone)]
pub struct OriginConfig {
    /// Where control is: `http://HOST:PORT`.
    pub control_url: String,
    /// Presented to control, and expected of the nodes that read content.
    pub node_token: TokenSecret,
    /// What clients and nodes may ask for.
    pub limits: OriginLimits,
    /// When blobs are collected.
    pub collector: CollectorConfig,
}

/// Bounds on what clients and nodes may ask for.
#[derive(Debug, Clone)]
pub struct OriginLimits {
    /// Of connections and request heads.
    pub server: ServerLimits,
    /// Uploads at the same time. Each takes at most about 16 MiB of memory, small ones as much as they are long.
    pub uploads: usize,
    /// Answers with content at the same time. Each takes at most about 3 MiB of memory.
    pub reads: usize,
    /// Longest silence of a client that sends a body, in milliseconds.
    pub body_idle_ms: u64,
    /// How long an upload tries to commit a blob that is being collected, in milliseconds.
    pub condemned_ms: u64,
}

impl Default for OriginLimits {
    fn default() -> Self {
        Self { server: ServerLimits::default(), uploads: 64, reads: 512, body_idle_ms: 30_000, condemned_ms: 5_000 }
    }
}

/// When blobs are collected.
#[derive(Debug, Clone)]
pub struct CollectorConfig {
    /// Between two rounds, in milliseconds.
    pub every_ms: u64,
    /// How long a blob is left alone after it was written, in milliseconds.
    pub grace_ms: u64,
    /// How long a staging object is left alone after it was last written to, in milliseconds. Longer than any upload
    /// can stand still.
    pub staging_ms: u64,
}

impl Default for CollectorConfig {
    fn default() -> Self {
        Self { every_ms: 300_000, grace_ms: 3_600_000, staging_ms: 86_400_000 }
    }
}
