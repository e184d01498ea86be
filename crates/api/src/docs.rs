//! The documents that people and programs read and write: zones, nodes, files, purges, placements.
//!
//! Times are milliseconds since the Unix epoch and end in `_ms`. Unknown members of what is *received* are errors, so
//! that a misspelt setting is never silently ignored.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::addressing::is_hostname;
use crate::https::TlsDoc;
use crate::names::{Digest, FileId, FilePath, NodeName, Place, Tag, ZoneName};
use crate::pull::PullDoc;

/// Who may read a zone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Anyone.
    #[default]
    Public,
    /// Only who presents a token with the scope `read`.
    Private,
}

/// Who leaves an edge's cache when room is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Eviction {
    /// The least recently used.
    Lru,
    /// W-TinyLFU: what was asked for least often, of late.
    Lfu,
    /// S3-FIFO: newcomers that were asked for once.
    S3Fifo,
    /// SIEVE: what was not asked for since the hand came by.
    Sieve,
    /// GreedyDual-Size with frequency: what is large and seldom asked for.
    Gdsf,
    /// Ours: heeds sizes and adapts itself.
    Auto,
}

impl Eviction {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::Lfu => "lfu",
            Self::S3Fifo => "s3fifo",
            Self::Sieve => "sieve",
            Self::Gdsf => "gdsf",
            Self::Auto => "auto",
        }
    }
}

/// What eviction aims at, where it can choose (`gdsf` and `auto`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// That as many requests as possible are hits.
    Requests,
    /// That as many bytes as possible come from hits.
    Bytes,
}

impl Objective {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Bytes => "bytes",
        }
    }
}

/// A zone: a set of hostnames with one policy. Its content is uploaded to Littoral (a store zone), or comes from an HTTP
/// origin (a pull zone).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ZoneDoc {
    /// Its name.
    pub name: ZoneName,
    /// Hostnames that it answers for, lower case, without a port. At most 100.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Whether it also answers for every host that no zone names. At most one zone does.
    #[serde(default)]
    pub catch_all: bool,
    /// Who may read it.
    #[serde(default)]
    pub access: Access,
    /// How long an edge takes a file as fresh whose own `Cache-Control` does not say, in seconds.
    #[serde(default = "default_ttl_s")]
    pub ttl_s: u32,
    /// How long past its freshness an edge may serve a file while the origin cannot be reached, in seconds.
    #[serde(default = "default_stale_if_error_s")]
    pub stale_if_error_s: u32,
    /// What a path that is empty or ends in `/` stands for, for example `index.html`; absent: such paths are not found.
    #[serde(default)]
    pub index: Option<String>,
    /// The request header that carries the client's place as `LAT,LNG`, set by something trusted in front.
    #[serde(default)]
    pub place_header: Option<String>,
    /// What URLs of this zone begin with, for example `https://cdn.example`; absent: derived from hosts and router.
    #[serde(default)]
    pub base_url: Option<String>,
    /// Who of this zone leaves an edge's memory when room is needed; absent: as the edge is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eviction: Option<Eviction>,
    /// What that aims at; absent: as the edge is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<Objective>,
    /// Redirects to `https://`, and what browsers are told about it; absent: neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsDoc>,
    /// Makes it a pull zone. `ttl_s`, `stale_if_error_s` and `index` are about store zones and mean nothing then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<Box<PullDoc>>,
}

fn default_ttl_s() -> u32 {
    3_600
}
fn default_stale_if_error_s() -> u32 {
    86_400
}

/// Hostnames that one zone may have.
pub const MAX_HOSTS_PER_ZONE: usize = 100;

impl ZoneDoc {
    /// A public zone with every setting at its default.
    pub fn new(name: ZoneName) -> Self {
        Self {
            name,
            hosts: Vec::new(),
            catch_all: false,
            access: Access::Public,
            ttl_s: default_ttl_s(),
            stale_if_error_s: default_stale_if_error_s(),
            index: None,
            place_header: None,
            base_url: None,
            eviction: None,
            objective: None,
            tls: None,
            pull: None,
        }
    }

    /// Whether every setting is in its bounds.
    ///
    /// # Errors
    /// A sentence that names the setting, what is wrong with it and what would be right.
    pub fn validate(&self) -> Result<(), String> {
        if self.hosts.len() > MAX_HOSTS_PER_ZONE {
            return Err(format!("hosts: {} hostnames; at most {MAX_HOSTS_PER_ZONE} are allowed", self.hosts.len()));
        }
        for host in &self.hosts {
            if !is_hostname(host) {
                return Err(format!(
                    "hosts: {host:?} is not a hostname; write it in lower case without scheme or port, like www.example.org"
                ));
            }
        }
        if let Some(index) = &self.index
            && (index.contains('/') || index.parse::<FilePath>().is_err())
        {
            return Err(format!("index: {index:?} is not a file name; use something like index.html"));
        }
        if let Some(header) = &self.place_header
            && http::HeaderName::from_bytes(header.as_bytes()).is_err()
        {
            return Err(format!("place_header: {header:?} is not a header name; use something like X-Client-Place"));
        }
        if let Some(base) = &self.base_url {
            let rest = base.strip_prefix("https://").or_else(|| base.strip_prefix("http://"));
            if rest.is_none_or(|r| r.is_empty() || r.contains(['/', '?', '#', ' '])) {
                return Err(format!(
                    "base_url: {base:?} is not of the form http://HOST or https://HOST, without a path"
                ));
            }
        }
        if let Some(tls) = &self.tls {
            tls.validate().map_err(|why| format!("tls.{why}"))?;
        }
        self.pull.as_ref().map_or(Ok(()), |pull| self.validate_pull(pull))
    }

    fn validate_pull(&self, pull: &PullDoc) -> Result<(), String> {
        pull.validate().map_err(|why| format!("pull.{why}"))?;
        let answers = |host: &String| self.catch_all || self.hosts.contains(host);
        // Both ends: a purge may name either, and has to find this zone by it.
        let mut named = pull.key.host_aliases.iter().flat_map(|(alias, host)| [alias, host]);
        if let Some(host) = named.find(|host| !answers(host)) {
            return Err(format!(
                "pull.key.host_aliases: the zone does not answer for {host}; name it in hosts as well"
            ));
        }
        Ok(())
    }
}

/// All zones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ZoneList {
    /// In order of name.
    pub zones: Vec<ZoneDoc>,
}

/// A file as the catalog knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FileDoc {
    /// Never changes.
    pub id: FileId,
    /// The zone it is in.
    pub zone: ZoneName,
    /// Where in the zone.
    pub path: FilePath,
    /// Grows by one with each new content or change of metadata.
    pub version: u64,
    /// BLAKE3 of the content.
    pub digest: Digest,
    /// Bytes of content.
    pub size: u64,
    /// The `Content-Type` it is served with.
    pub media_type: String,
    /// The `Cache-Control` it is served with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// Its surrogate keys.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// Where people read it.
    pub url: String,
    /// The same by id: survives updates and renames.
    pub id_url: String,
    /// The number of the event that made this version.
    pub event: u64,
    /// When this version was made.
    pub modified_ms: u64,
    /// With `wait=edges`: what each edge answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub receipts: Vec<Receipt>,
}

/// One page of files, in order of path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FileList {
    /// The files.
    pub files: Vec<FileDoc>,
    /// Pass it as `cursor` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// One version in the history of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VersionDoc {
    /// Its number.
    pub version: u64,
    /// Its content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// The event that made it.
    pub event: u64,
    /// When.
    pub created_ms: u64,
}

/// The newest versions of a file, newest first. Only the content of the first is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VersionList {
    /// At most 100.
    pub versions: Vec<VersionDoc>,
}

/// Changes to a file that leave its content as it is. Absent members stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FilePatch {
    /// Rename it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<FilePath>,
    /// Serve it with this `Content-Type`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Serve it with this `Cache-Control`; the empty text takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// Give it these tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<Tag>>,
}

/// What to purge. URLs and prefixes are `http(s)://host/path`, or `/path` together with `zone`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PurgeRequest {
    /// The zone that bare paths and tags are meant in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<ZoneName>,
    /// Single URLs.
    #[serde(default)]
    pub urls: Vec<String>,
    /// Everything whose URL begins so.
    #[serde(default)]
    pub prefixes: Vec<String>,
    /// Everything with one of these tags (in `zone`, or in every zone).
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// Everything of these hostnames of pull zones.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Whole zones.
    #[serde(default)]
    pub zones: Vec<ZoneName>,
    /// Mark as stale instead of forgetting: revalidated at next use, still there if the origin is away.
    #[serde(default)]
    pub soft: bool,
    /// Answer once every live edge has applied it.
    #[serde(default)]
    pub wait: bool,
}

/// The answer to a purge, or to a deletion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PurgeAnswer {
    /// The number of the event.
    pub event: u64,
    /// With `wait`: what each edge answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub receipts: Vec<Receipt>,
}

/// What one edge answered to an event that somebody waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// The edge.
    pub node: NodeName,
    /// Whether it has applied the event.
    pub state: ReceiptState,
    /// How long it took, or how long was waited, in milliseconds.
    pub ms: f64,
}

/// The state of a [`Receipt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptState {
    /// The edge has applied the event: it serves nothing older as fresh.
    Applied,
    /// The edge counts as alive and did not acknowledge in time.
    Timeout,
    /// The edge counts as dead and was not waited for; it catches up before it serves again.
    Dead,
}

/// A node as it introduces itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeDoc {
    /// Its name.
    pub name: NodeName,
    /// Where it stands.
    pub place: Place,
    /// Where clients and other nodes reach it, for example `http://127.0.0.1:8610`.
    pub url: String,
    /// Where clients reach it over TLS, for example `https://edge.example`; absent: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https_url: Option<String>,
}

/// A node with what is known of its health.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// As it introduced itself.
    #[serde(flatten)]
    pub node: NodeDoc,
    /// Whether its heartbeats arrive.
    pub alive: bool,
    /// Milliseconds since its last heartbeat, where there was one.
    pub last_heartbeat_ms: Option<u64>,
    /// Requests that it was serving at its last heartbeat.
    pub load: u32,
    /// The number of the newest event it has acknowledged.
    pub applied: u64,
    /// Files of which it is known to hold the current version.
    pub files: u64,
}

/// All edges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeList {
    /// In order of name.
    pub nodes: Vec<NodeView>,
}

/// The monitor's verdict on every node it has heard of. Whole, and numbered: an older one never replaces a newer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Grows with each verdict, across restarts of the monitor.
    pub generation: u64,
    /// Each node once.
    pub nodes: Vec<NodeHealth>,
}

/// The health of one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeHealth {
    /// Which.
    pub name: NodeName,
    /// Whether it is to be used.
    pub alive: bool,
    /// Milliseconds since its last heartbeat.
    pub last_heartbeat_ms: u64,
    /// Requests in progress.
    pub load: u32,
    /// The newest event that it has applied.
    pub applied: u64,
}

/// Where a request is best served from, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Locate {
    /// The zone asked about.
    pub zone: ZoneName,
    /// The path asked about.
    pub path: FilePath,
    /// The client's place that was used.
    pub client: Place,
    /// The winner's name: an edge, or `origin`.
    pub chosen: String,
    /// Where to fetch the file.
    pub url: String,
    /// One sentence.
    pub reason: String,
    /// Every edge, and the origin, nearest first.
    pub candidates: Vec<Candidate>,
}

/// One place that was considered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Candidate {
    /// An edge's name, or `origin`.
    pub name: String,
    /// Great-circle distance from the client, in kilometres.
    pub distance_km: f64,
    /// Whether it is alive.
    pub alive: bool,
    /// Whether it is known to hold the current version.
    pub has_file: bool,
    /// Whether it won.
    pub chosen: bool,
    /// Why it won or lost.
    pub reason: String,
}

/// The state of the whole, in a few numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The version of the program that answers.
    pub version: String,
    /// The identity of the catalog: made with it, never changed.
    pub catalog_id: String,
    /// The number of the newest event.
    pub event: u64,
    /// The generation of the configuration.
    pub generation: u64,
    /// Zones.
    pub zones: u64,
    /// Files.
    pub files: u64,
    /// Bytes of all files together.
    pub bytes: u64,
    /// Edges.
    pub nodes: Vec<NodeView>,
}
