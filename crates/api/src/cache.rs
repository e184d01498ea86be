//! What a running edge says about its cache, and what tools may ask of it: the documents behind `littoral cache`.
//!
//! They are spoken on the *admin listener* of a process, to this machine only, and never where the public asks:
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/cache` | [`CacheEdges`]: the edges of the process |
//! | `GET /v1/cache/EDGE/stats` | [`CacheStats`] |
//! | `POST /v1/cache/EDGE/list` with a [`CacheQuery`] | [`CachePage`] |
//! | `POST /v1/cache/EDGE/show` with a [`CacheShow`] | [`CachePage`], whose entries have their details |
//! | `POST /v1/cache/EDGE/verify` with a [`CacheVerify`] | [`CacheVerified`] |
//! | `POST /v1/cache/EDGE/evict` with a [`CacheEvict`] | [`CacheEvicted`] |
//!
//! Bodies are `application/json`, which a web page cannot send elsewhere unasked. What may take long is done in steps: an
//! answer with `next` wants to be asked again with that as `cursor`, until there is none. A cursor is for the process that
//! gave it. What comes or goes between two steps may be seen or not. Errors are problem documents.

use serde::{Deserialize, Serialize};

use crate::names::{NodeName, Tag, ZoneName};

/// Where the admin listener takes them.
pub const CACHE_PATH: &str = "/v1/cache";
/// Entries on one page of a listing, at most.
pub const MAX_CACHE_PAGE: u32 = 1_000;
/// Longest body of a request, in bytes.
pub const MAX_CACHE_REQUEST_BYTES: usize = 64 << 10;
/// Bytes that a verification reads from disk in a second, where nothing else is said.
pub const DEFAULT_VERIFY_BYTES_PER_S: u64 = 100 << 20;

/// The edges of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheEdges {
    /// Their names, in the order in which they were started.
    pub edges: Vec<NodeName>,
}

/// A tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheTier {
    /// Memory.
    Memory,
    /// Files.
    Disk,
}

/// Which entries are meant: those for which all that is said holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheFilter {
    /// The key of one entry, as a listing shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What its URL begins with: `https://host/path`, `host/path`, or `/path` on any host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Its zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<ZoneName>,
    /// One of its tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// Where it lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<CacheTier>,
    /// It was fetched or confirmed at least so many seconds ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older_s: Option<u64>,
    /// It was fetched or confirmed less than so many seconds ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub younger_s: Option<u64>,
}

impl CacheFilter {
    /// Whether it leaves nothing out, but for a whole tier.
    pub fn is_everything(&self) -> bool {
        *self == Self { tier: self.tier, ..Self::default() }
    }
}

/// What is to be listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheQuery {
    /// Which entries.
    #[serde(default)]
    pub filter: CacheFilter,
    /// How many at most: 1 to [`MAX_CACHE_PAGE`].
    #[serde(default = "most")]
    pub limit: u32,
    /// Where to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

fn most() -> u32 {
    MAX_CACHE_PAGE
}

/// Some entries. There may be few or none of them, and still more to come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CachePage {
    /// The entries: memory first, then disk. One that lies in both is there twice.
    pub entries: Vec<CacheEntry>,
    /// Where to go on; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Whether something stored may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheState {
    /// It is served.
    Fresh,
    /// Its time is over: it is asked about first.
    Stale,
    /// A soft purge names it: it is asked about first.
    SoftPurged,
    /// A purge names it: it is never used again.
    Purged,
    /// It is not known whether a purge named it: it is asked about first.
    Unsure,
    /// It was stored under another policy of its zone, or another catalog, and is not found any more.
    Outdated,
}

/// A stored response, or a stored file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CacheEntry {
    /// Where it lies.
    pub tier: CacheTier,
    /// The hash of its cache key: 32 hexadecimal digits. All variants have the same.
    pub key: String,
    /// Its zone; empty: it cannot be told.
    pub zone: String,
    /// `host/path?query` in a zone in front of a website, `/path` or `id:ID` in one of files.
    pub url: String,
    /// The status of the response.
    pub status: u16,
    /// Its media type, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Bytes of the whole body, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// What it takes in its tier, in bytes; of a body in slices in memory, without them.
    pub bytes: u64,
    /// Whether all of the body is there, as far as is known without reading it.
    pub complete: bool,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// When it was fetched or last confirmed, in milliseconds since the Unix epoch.
    pub stored_ms: u64,
    /// How old it is, as `Age` says it, in seconds.
    pub age_s: u64,
    /// Whether it may be used.
    pub state: CacheState,
    /// Only where one entry is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<CacheDetails>,
}

/// What else is known of an entry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheDetails {
    /// Its fields, as they go out. Bytes that are not text are replaced.
    pub fields: Vec<(String, String)>,
    /// The request fields that select it, and what they were; absent value: there was none.
    pub selected_by: Vec<(String, Option<String>)>,
    /// How long it is fresh, from when it was made, in seconds.
    pub lifetime_s: u64,
    /// How long after that it may be served while it is asked about, in seconds.
    pub stale_while_revalidate_s: u64,
    /// How long after that it may be served while its origin fails, in seconds.
    pub stale_if_error_s: u64,
    /// The newest event of control that was applied when its fetch began.
    pub began_event: u64,
    /// The same of the edge's own invalidations.
    pub began_local: u64,
    /// Slices of the body, where it lies in slices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slices: Option<u64>,
    /// Those that are there, as ranges with both ends, in order; at most [`MAX_SLICE_RANGES`] of them.
    #[serde(default)]
    pub present: Vec<(u64, u64)>,
    /// The folder on disk, counted from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<usize>,
    /// How often it was used since it came to disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u16>,
    /// The second of the Unix epoch from which it is of no use, not even stale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub useless_from_s: Option<u32>,
}

/// Ranges in [`CacheDetails::present`], at most.
pub const MAX_SLICE_RANGES: usize = 1_000;

/// What is to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheShow {
    /// A key, as a listing shows it, or a URL: then what a plain GET of it would find.
    pub what: String,
}

/// What is to leave the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheEvict {
    /// Which entries; with `tier`, only from there.
    #[serde(default)]
    pub filter: CacheFilter,
    /// Everything is meant: needed where the filter leaves nothing out.
    #[serde(default)]
    pub all: bool,
    /// Only count them.
    #[serde(default)]
    pub count: bool,
    /// Where to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// What has left.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheEvicted {
    /// Entries.
    pub entries: u64,
    /// What they took, in bytes; of bodies in slices in memory, without them.
    pub bytes: u64,
    /// Where to go on; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A step of reading everything on disk again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheVerify {
    /// Bytes to be read in a second, at most; absent: [`DEFAULT_VERIFY_BYTES_PER_S`]. Steps of several tools take turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<u64>,
    /// Where to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// What a step has found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheVerified {
    /// Entries read.
    pub entries: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Entries that the file system did not let it read.
    pub unreadable: u64,
    /// What was damaged. It is dropped, and fetched again when it is asked for.
    pub findings: Vec<CacheFinding>,
    /// Where to go on; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Something damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheFinding {
    /// The hash of its key.
    pub key: String,
    /// The folder, counted from 0.
    pub folder: usize,
    /// The slice that was damaged, where the entry itself was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<u32>,
    /// The kind, as in the metrics.
    pub kind: String,
    /// The same in a sentence.
    pub what: String,
}

/// The tiers of an edge in numbers. What is counted is counted since its start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CacheStats {
    /// The edge.
    pub node: NodeName,
    /// Memory.
    pub memory: MemoryStats,
    /// Files, where it has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskStats>,
}

/// The memory tier in numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemoryStats {
    /// Responses, files and slices.
    pub entries: u64,
    /// What they take, with what keeping them takes.
    pub bytes: u64,
    /// What they may take.
    pub limit_bytes: u64,
    /// Lookups that found something.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Entries put in.
    pub admissions: u64,
    /// Entries that left for others.
    pub evictions: u64,
    /// Entries that left because they were of no use any more.
    pub expired: u64,
    /// Entries that were not kept: too large, or worth less than what is there.
    pub refused: u64,
    /// Who leaves when room is needed.
    pub eviction: String,
    /// What that aims at.
    pub objective: String,
    /// The policies of zones that name another, with the names of those zones.
    pub classes: Vec<CacheClass>,
    /// What it would be at other sizes.
    pub curve: Vec<CurvePoint>,
}

/// A part of the memory tier with a policy of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheClass {
    /// Who leaves.
    pub eviction: String,
    /// What that aims at.
    pub objective: String,
    /// The zones whose entries go there.
    pub zones: Vec<ZoneName>,
}

/// What part of the recent requests would be hits if the tier had another size: an estimate from a sample of the keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// The size, as a factor of what it has.
    pub factor: f64,
    /// The part of the requests, 0 to 1.
    pub requests: f64,
    /// The part of the bytes, 0 to 1.
    pub bytes: f64,
}

/// The disk tier in numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiskStats {
    /// Reads that brought something.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Files open for reading.
    pub open_files: u64,
    /// Who leaves when room is needed.
    pub eviction: String,
    /// What that aims at.
    pub objective: String,
    /// What it would be at other sizes, of what memory does not answer.
    #[serde(default)]
    pub curve: Vec<CurvePoint>,
    /// Each folder.
    pub folders: Vec<DiskFolderStats>,
}

/// Whether a folder can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskFolderState {
    /// For everything.
    Ok,
    /// For reading only.
    ReadOnly,
    /// Not at all.
    Gone,
}

/// A folder of the disk tier in numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiskFolderStats {
    /// Where it is.
    pub path: String,
    /// Whether it can be used.
    pub state: DiskFolderState,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Entries.
    pub entries: u64,
    /// What they take.
    pub bytes: u64,
    /// What they may take.
    pub limit_bytes: u64,
    /// What the index of them takes in memory.
    pub index_bytes: u64,
    /// How much of the folder was looked at since the start, in thousandths; 1,000: all.
    pub scanned_permille: u32,
    /// Slices read and verified.
    pub reads: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Reads that the file system failed.
    pub read_errors: u64,
    /// Entries made and slices written.
    pub writes: u64,
    /// Bytes of bodies written.
    pub written_bytes: u64,
    /// Writes, syncs and removals that the file system failed.
    pub write_errors: u64,
    /// Writes that were refused: out of use, full, too large, not worth it.
    pub refused: u64,
    /// Entries that left for others.
    pub evictions: u64,
    /// Entries that left because they were of no use any more.
    pub expired: u64,
    /// What was found damaged, of each kind.
    pub damaged: Vec<(String, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_leave_something_out() {
        let everything = |json: &str| serde_json::from_str::<CacheFilter>(json).expect(json).is_everything();
        assert!(everything("{}") && everything(r#"{"tier": "disk"}"#));
        for json in [r#"{"zone": "a"}"#, r#"{"older_s": 0}"#, r#"{"tier": "disk", "tag": "x"}"#, r#"{"prefix": ""}"#] {
            assert!(!everything(json), "{json}");
        }
    }

    #[test]
    fn what_is_not_said_has_its_default_and_what_is_misspelt_is_an_error() {
        let query: CacheQuery = serde_json::from_str("{}").expect("query");
        assert_eq!(query, CacheQuery { filter: CacheFilter::default(), limit: MAX_CACHE_PAGE, cursor: None });
        assert!(serde_json::from_str::<CacheQuery>(r#"{"filter": {"zones": "a"}}"#).is_err());
        assert!(serde_json::from_str::<CacheEvict>(r#"{"everything": true}"#).is_err());
    }
}
