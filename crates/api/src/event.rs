//! The event log: every change that an edge must know of, numbered without gaps.
//!
//! An edge that has applied event N never serves as fresh a byte whose fetch began before N and which N names.
//! The stream at `GET /v1/events?after=N` sends [`Hello`] first (SSE event `hello`), then each [`Event`] with its number
//! as SSE `id` and its kind as SSE `event`, and [`crate::Health`] (SSE event `health`, not numbered) when it changes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::names::{Digest, FileId, FilePath, Tag, ZoneName};

/// One numbered line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number: one more than the one before.
    pub seq: u64,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What changed.
    #[serde(flatten)]
    pub change: Change,
}

/// What an event says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// A file is new, has new content, or new metadata.
    FileUpdated(FileRef),
    /// A file has another path; `path` is the new one.
    FileMoved {
        /// The file as it is now.
        #[serde(flatten)]
        file: FileRef,
        /// Where it was.
        old_path: FilePath,
    },
    /// A file is gone.
    FileDeleted(FileRef),
    /// A purge.
    Purge(PurgeTargets),
    /// Zones, nodes or tokens changed: fetch a new snapshot.
    Config {
        /// The generation of the configuration after the change.
        generation: u64,
    },
}

impl Change {
    /// The kind, as it stands in JSON and in the SSE `event` field.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::FileUpdated(_) => "file_updated",
            Self::FileMoved { .. } => "file_moved",
            Self::FileDeleted(_) => "file_deleted",
            Self::Purge(_) => "purge",
            Self::Config { .. } => "config",
        }
    }
}

/// The file that an event is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FileRef {
    /// Its zone.
    pub zone: ZoneName,
    /// Its path.
    pub path: FilePath,
    /// Its identity.
    pub id: FileId,
    /// The version that the event made (of a deletion: the last one).
    pub version: u64,
    /// The content of that version.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// What a purge names. At most [`crate::MAX_PURGE_TARGETS`] in all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PurgeTargets {
    /// Files by their path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<ZonePath>,
    /// URLs of pull zones, with all that is stored under them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<ZonePage>,
    /// Files by their id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<FileId>,
    /// Paths that begin so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<ZonePrefix>,
    /// Tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<ZoneTag>,
    /// Hosts of pull zones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<ZoneHost>,
    /// Zones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<ZoneName>,
    /// Stale instead of gone.
    #[serde(default)]
    pub soft: bool,
}

impl PurgeTargets {
    /// How many things it names.
    pub fn len(&self) -> usize {
        self.urls.len()
            + self.pages.len()
            + self.ids.len()
            + self.prefixes.len()
            + self.tags.len()
            + self.hosts.len()
            + self.zones.len()
    }
    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A path in a zone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct ZonePath {
    /// The zone.
    pub zone: ZoneName,
    /// The path.
    pub path: FilePath,
}

/// A URL of a pull zone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct ZonePage {
    /// The zone.
    pub zone: ZoneName,
    /// What names the URL in the zone: `host/path?query`, as [`crate::pull::KeyDoc::url_key`] makes it.
    pub url: String,
}

/// A host of a pull zone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct ZoneHost {
    /// The zone.
    pub zone: ZoneName,
    /// The host as it stands in keys: lower case, without a port, aliases resolved.
    pub host: String,
}

/// The beginning of paths in a zone. Any text, not only whole segments; the empty text means the whole zone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct ZonePrefix {
    /// The zone.
    pub zone: ZoneName,
    /// The beginning. In a store zone: decoded, without a leading slash. In a pull zone: of path and query as requests write
    /// them, with the leading slash (`/a/`: at every host), or with a host in front (`shop.example/a/`).
    pub prefix: String,
}

/// A tag, in one zone or in all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct ZoneTag {
    /// The zone; absent: every zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<ZoneName>,
    /// The tag.
    pub tag: Tag,
}

/// The first message of every event stream: what the reader is about to catch up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hello {
    /// The catalog's identity. Another one than before means that all numbers known so far mean nothing.
    pub catalog_id: String,
    /// The number of the newest event when the stream began.
    pub head: u64,
    /// The number of the oldest event that is still kept (1 if none was dropped).
    pub oldest: u64,
    /// The generation of the configuration when the stream began.
    pub generation: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_of_every_kind_is_fixed() {
        let file = FileRef {
            zone: "files".parse().expect("zone"),
            path: "a/b.txt".parse().expect("path"),
            id: "019a9f3e-0000-7000-8000-000000000000".parse().expect("id"),
            version: 2,
            digest: Digest([0xab; 32]),
            size: 5,
        };
        let purge = PurgeTargets {
            tags: vec![ZoneTag { zone: None, tag: "t".parse().expect("tag") }],
            soft: true,
            ..PurgeTargets::default()
        };
        let changes = [
            Change::FileUpdated(file.clone()),
            Change::FileMoved { file: file.clone(), old_path: "old".parse().expect("path") },
            Change::FileDeleted(file),
            Change::Purge(purge),
            Change::Config { generation: 7 },
        ];
        let lines: Vec<String> = (1..)
            .zip(changes)
            .map(|(seq, change)| {
                let kind = change.kind();
                let event = Event { seq, at_ms: 1_000 + seq, change };
                let json = serde_json::to_string(&event).expect("json");
                assert!(json.contains(&format!("\"kind\":\"{kind}\"")), "{json}");
                assert_eq!(serde_json::from_str::<Event>(&json).expect(&json), event);
                json
            })
            .collect();
        assert_eq!(lines.join("\n"), include_str!("../fixtures/events_v1.jsonl").trim_end());
    }
}
