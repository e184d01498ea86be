//! Messages between nodes: joining, snapshots, acknowledgements, uploads, placements, blob collection.
//!
//! All of them are under `/v1/node/` and need a node token, in `Authorization: Bearer` (or, where a client's own
//! `Authorization` travels along, in [`crate::headers::NODE_TOKEN`]).

use serde::{Deserialize, Serialize};

use crate::docs::{Access, FileDoc, NodeDoc, ZoneDoc};
use crate::event::Hello;
use crate::names::{Digest, FileId, FilePath, NodeName, Place, Tag, ZoneName};
use crate::token::TokenHash;

/// Digests in one call about blobs.
pub const MAX_BLOBS_PER_CALL: usize = 1_000;
/// Placements in one report.
pub const MAX_PLACEMENTS_PER_REPORT: usize = 5_000;

/// `POST /v1/node/join`: an edge introduces itself. Repeating it is harmless.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// The node.
    pub node: NodeDoc,
    /// Whether what control knows of its placements still holds. False after a start with an empty cache.
    pub keeps_placements: bool,
}

/// `GET /v1/node/snapshot`: the whole configuration, numbered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The version of this document's form: 1.
    pub format: u32,
    /// Catalog identity, newest event and generation when it was taken.
    pub at: Hello,
    /// All zones.
    pub zones: Vec<ZoneDoc>,
    /// All edges.
    pub nodes: Vec<NodeDoc>,
    /// Where the origin is.
    pub origin: Upstream,
    /// Where heartbeats go: `ADDRESS:PORT` of the monitor's UDP socket. Absent: nobody listens for them.
    #[serde(default)]
    pub monitor: Option<std::net::SocketAddr>,
    /// Hashes of the tokens that may read private zones.
    pub readers: Vec<Reader>,
}

/// The newest form of [`Snapshot`] that this program reads.
pub const SNAPSHOT_FORMAT: u32 = 1;

/// An origin and where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Upstream {
    /// Its URL, without a trailing slash.
    pub url: String,
    /// Where it stands.
    pub place: Place,
}

/// A token that may read private zones, as an edge checks it without asking anyone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reader {
    /// What is stored of its secret.
    pub hash: TokenHash,
    /// When it expires.
    pub expires_ms: Option<u64>,
}

/// `POST /v1/node/ack`: the newest event that a node has applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// Who.
    pub node: NodeName,
    /// Up to where.
    pub applied: u64,
}

/// `POST /v1/node/placements`: what a node has begun or ceased to hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Placements {
    /// Files it holds, with the version it holds.
    pub added: Vec<Placement>,
    /// Files it no longer holds.
    pub removed: Vec<FileId>,
}

/// A version of a file on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The file.
    pub id: FileId,
    /// The version.
    pub version: u64,
}

/// `GET /v1/node/holders?zone=&path=`: which edges hold the current version of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Holders {
    /// Their names.
    pub nodes: Vec<NodeName>,
}

/// `GET /v1/node/resolve?zone=&path=` or `?id=`: the file, and how its zone is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resolved {
    /// The file.
    pub file: FileDoc,
    /// Who may read its zone.
    pub access: Access,
}

/// Where an upload goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "snake_case")]
pub enum UploadTarget {
    /// To a path: new, or a new version of what is there.
    Path {
        /// The zone.
        zone: ZoneName,
        /// The path.
        path: FilePath,
    },
    /// A new version of a file that exists.
    Id {
        /// The file.
        id: FileId,
    },
}

/// Conditions on an upload or deletion (RFC 9110 § 13.1), against the current digest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// `If-Match`: the raw field value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<String>,
    /// `If-None-Match`: the raw field value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_none_match: Option<String>,
}

/// `POST /v1/node/uploads/begin`: may this client upload this, before its body is read? Changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UploadBegin {
    /// The client's `Authorization` value.
    pub authorization: Option<String>,
    /// Where to.
    pub target: UploadTarget,
    /// Under which conditions.
    pub conditions: Conditions,
}

/// The answer to [`UploadBegin`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UploadReady {
    /// The path that the upload is for, also where it was named by id: its extension guesses the media type.
    pub path: FilePath,
    /// Passed on in [`UploadCommit::sweep`].
    pub sweep: u64,
}

/// `POST /v1/node/uploads/commit`: the blob is in place and synced; make it the file's newest version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UploadCommit {
    /// Where to.
    pub target: UploadTarget,
    /// Checked again, in the transaction.
    pub conditions: Conditions,
    /// The content.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// [`UploadReady::sweep`] of a begin that was answered *before* the blob was placed. It counts how often collected
    /// blobs were forgotten, so that control can tell a blob placed after its collection from one that the collector
    /// may have deleted in between. After `blob_condemned`: begin again, place again, commit with the new number.
    pub sweep: u64,
    /// Its media type; absent: that of the version before, or `application/octet-stream`.
    pub media_type: Option<String>,
    /// Its `Cache-Control`; absent: none.
    pub cache_control: Option<String>,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// Answer once every live edge has applied the event.
    pub wait: bool,
}

/// The answer to [`UploadCommit`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Committed {
    /// Whether the file is new.
    pub created: bool,
    /// The file.
    pub file: FileDoc,
}

/// `POST /v1/node/blobs/condemn`: which of these blobs does nothing refer to? Those are marked, so that no upload can
/// commit them until they are forgotten.
///
/// `POST /v1/node/blobs/forget`: these are deleted from the object store (or were found to be needed after all).
/// `GET /v1/node/blobs/condemned`: what a collector that died has left marked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Blobs {
    /// At most [`MAX_BLOBS_PER_CALL`].
    pub digests: Vec<Digest>,
}
