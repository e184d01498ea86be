//! The wire contract of Littoral: what the roles, the command line and other people's programs say to each other.
//!
//! Everything here is data: names that are valid by construction ([`names`]), what a URL asks for ([`addressing`]),
//! documents ([`docs`]), the policy of pull zones ([`pull`]), TLS ([`https`]), the event log ([`event`]), errors ([`problem`]), tokens ([`token`]), the messages between nodes
//! ([`node`]), heartbeats ([`heartbeat`]), what tools ask of a cache ([`cache`]) and the OpenAPI description ([`openapi`]). There is no I/O and no clock in this
//! crate.
//!
//! Types here are what is *sent*. What a role stores is its own business and has its own types.

pub mod addressing;
pub mod cache;
pub mod docs;
pub mod event;
pub mod explain;
pub mod headers;
pub mod heartbeat;
pub mod https;
pub mod names;
pub mod node;
pub mod openapi;
pub mod problem;
pub mod pull;
pub mod slices;
pub mod token;

pub use addressing::{Target, Zones};
pub use docs::{
    Access, Eviction, FileDoc, FileList, FilePatch, Health, Locate, NodeDoc, NodeHealth, NodeList, NodeView, Objective,
    PurgeAnswer, PurgeRequest, Receipt, ReceiptState, Status, VersionDoc, VersionList, ZoneDoc, ZoneList,
};
pub use event::{Change, Event, FileRef, Hello, PurgeTargets, ZoneHost, ZonePage, ZonePath, ZonePrefix, ZoneTag};
pub use explain::{ExplainRequest, ExplainStep, Explanation};
pub use https::{HstsDoc, TlsDoc};
pub use names::{Digest, FileId, FilePath, InvalidName, NodeName, Place, Tag, ZoneName};
pub use problem::{ErrorCode, Problem};
pub use pull::{CachePolicy, PullDoc};
pub use token::{NewToken, Scope, TokenAnswer, TokenDoc, TokenHash, TokenKind, TokenList, TokenSecret};

/// Length of a slice in bytes: the unit of fetching, verifying and caching. Never visible in HTTP.
pub const SLICE_BYTES: u64 = 1 << 20;
/// Longest JSON body that any endpoint of the API reads, in bytes.
pub const MAX_JSON_BODY_BYTES: usize = 1 << 20;
/// Targets (URLs, prefixes, tags and zones together) that one purge may name.
pub const MAX_PURGE_TARGETS: usize = 1_000;
/// Tags that one file may carry.
pub const MAX_TAGS_PER_FILE: usize = 128;
/// Files on one page of a listing.
pub const MAX_PAGE_FILES: u32 = 1_000;
/// Longest `Cache-Control` value kept with a file, in bytes.
pub const MAX_CACHE_CONTROL_BYTES: usize = 1_024;
/// Longest media type kept with a file, in bytes.
pub const MAX_MEDIA_TYPE_BYTES: usize = 255;
/// Longest time that a request with `wait=edges` waits for acknowledgements, in milliseconds.
pub const MAX_WAIT_MS: u64 = 5_000;
