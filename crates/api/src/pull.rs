//! The policy of a pull zone: a zone whose content comes from an HTTP origin that knows nothing of Littoral.
//!
//! Everything here is data and pure functions of it. Control validates a policy before it is stored; edges trust it.
//! The function that makes cache keys ([`KeyDoc::url_key`]) lives here, because control needs it to turn the URL of a
//! purge into the key that edges use.

mod compression;
mod validate;

use std::borrow::Cow;
use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::addressing::host_name;
pub use compression::{CompressionDoc, Encoding, MAX_COMPRESSED_BYTES};

/// Upstreams that one zone may have.
pub const MAX_UPSTREAMS: usize = 32;
/// Rules, bypasses, key members, networks or header changes: the most of each that one zone may have.
pub const MAX_LIST: usize = 100;
/// Longest pattern or header value in a policy, in bytes.
pub const MAX_TEXT_BYTES: usize = 1_024;
/// Longest PEM text of a certificate authority, in bytes.
pub const MAX_CA_BYTES: usize = 64 << 10;
/// Longest time to live or grace period, in seconds: 10 years.
pub const MAX_TTL_S: u32 = 315_360_000;
/// Longest timeout, in milliseconds: one hour.
pub const MAX_TIMEOUT_MS: u32 = 3_600_000;
/// Largest weight of an upstream.
pub const MAX_WEIGHT: u32 = 1_000;
/// Connections to one server: the most that one zone may ask for.
pub const MAX_CONNECTIONS: u32 = 10_000;
/// Shortest time between two health checks, in milliseconds.
pub const MIN_CHECK_INTERVAL_MS: u32 = 100;
/// Health checks in a row after which a verdict changes: the most.
pub const MAX_CHECKS_IN_A_ROW: u32 = 100;
/// The most that [`PullDoc::max_object_bytes`] may be: 1 TiB.
pub const MAX_OBJECT_BYTES: u64 = 1 << 40;
/// The most that [`PullDoc::max_tags`] may be.
pub const MAX_RESPONSE_TAGS: u32 = 1_000;

/// Where a pull zone's content comes from, and how it is cached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PullDoc {
    /// The servers; all of them serve the same. 1 to [`MAX_UPSTREAMS`].
    pub upstreams: Vec<UpstreamDoc>,
    /// What is stored and reused where the responses leave it open.
    #[serde(default)]
    pub policy: CachePolicy,
    /// `Host` to send; absent: the one that the client asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin_host: Option<String>,
    /// Name for the TLS handshake and the certificate; absent: the name of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// Whether the certificate of an `https` server is checked.
    #[serde(default = "yes")]
    pub verify: bool,
    /// Certificates (PEM) that are trusted in addition to the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Which HTTP is spoken to the servers.
    #[serde(default)]
    pub protocol: OriginProtocol,
    /// How long is waited for what.
    #[serde(default)]
    pub timeouts: TimeoutsDoc,
    /// Connections to each server; further requests wait. 1 to [`MAX_CONNECTIONS`].
    #[serde(default = "default_connections")]
    pub max_connections: u32,
    /// Which requests are sent a second time.
    #[serde(default)]
    pub retry: RetryDoc,
    /// Asking the servers regularly whether they are well; absent: only failures of requests count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheckDoc>,
    /// Changes to the headers of requests to the origin.
    #[serde(default)]
    pub request_headers: Vec<HeaderChange>,
    /// Changes to the headers of responses to clients.
    #[serde(default)]
    pub response_headers: Vec<HeaderChange>,
    /// How long a response is fresh that says nothing about it, in seconds; absent: such a response is only kept where the
    /// RFC's heuristic applies (`rfc`), or not at all (`safe`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_ttl_s: Option<u32>,
    /// Rules by path, status and media type. The first one that fits counts.
    #[serde(default)]
    pub rules: Vec<CacheRule>,
    /// How long past its freshness a response may be served while it is being asked about (RFC 5861), in seconds, where the
    /// response does not say.
    #[serde(default)]
    pub stale_while_revalidate_s: u32,
    /// How long past its freshness a response may be served while the origin fails, in seconds, where the response does not
    /// say.
    #[serde(default = "default_stale_if_error_s")]
    pub stale_if_error_s: u32,
    /// What of a request makes the cache key.
    #[serde(default)]
    pub key: KeyDoc,
    /// Requests that are neither answered from the cache nor stored.
    #[serde(default)]
    pub bypass: Vec<RequestMatch>,
    /// Whether `Set-Cookie` is removed from responses that are stored.
    #[serde(default)]
    pub strip_set_cookie: bool,
    /// The largest response that is stored, in bytes.
    #[serde(default = "default_object_bytes")]
    pub max_object_bytes: u64,
    /// Tags that are taken from one response; further ones are left out, and counted.
    #[serde(default = "default_tags")]
    pub max_tags: u32,
    /// Which stored responses are compressed here for clients that accept it; absent: as the policy has it (`safe`: with
    /// every setting at its default; `rfc`: none).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<CompressionDoc>,
    /// Networks whose `X-Forwarded-*`, `Forwarded` and `X-Real-IP` are believed.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub trusted_networks: Vec<IpNet>,
    /// Networks that may `PURGE` without a token.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub purge_networks: Vec<IpNet>,
}

fn yes() -> bool {
    true
}
fn default_connections() -> u32 {
    256
}
fn default_stale_if_error_s() -> u32 {
    86_400
}
fn default_object_bytes() -> u64 {
    64 << 30
}
fn default_tags() -> u32 {
    128
}

/// One server of a pull zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamDoc {
    /// `http://HOST[:PORT]` or `https://HOST[:PORT]`.
    pub url: String,
    /// Its share of the requests, relative to the others. 1 to [`MAX_WEIGHT`].
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

/// What is stored and reused where the responses leave it open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CachePolicy {
    /// Stricter than the RFCs where people would expect it: no heuristic freshness; nothing with `Set-Cookie`; errors only
    /// where a rule says so; a client cannot make the edge ask the origin.
    #[default]
    Safe,
    /// Everything that RFC 9111 lets a shared cache store and reuse.
    Rfc,
}

/// Which HTTP is spoken to the servers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OriginProtocol {
    /// HTTP/2 where TLS agrees on it, else HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, without TLS by prior knowledge.
    Http2,
}

/// How long is waited, in milliseconds. Each is 1 to [`MAX_TIMEOUT_MS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsDoc {
    /// For a connection, with its TLS handshake.
    pub connect_ms: u32,
    /// From the end of the request to the head of the response.
    pub first_byte_ms: u32,
    /// Between two pieces of a body.
    pub idle_ms: u32,
    /// For somebody else's fetch of the same thing, before a request goes to the origin by itself.
    pub wait_ms: u32,
}

impl Default for TimeoutsDoc {
    fn default() -> Self {
        Self { connect_ms: 3_000, first_byte_ms: 30_000, idle_ms: 30_000, wait_ms: 30_000 }
    }
}

/// Which requests are sent a second time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryDoc {
    /// Those of which nothing has reached a server.
    Unsent,
    /// Those too that are safe (GET, HEAD, OPTIONS), have no body, and met a reused connection that was closed before a
    /// byte of the response.
    #[default]
    Safe,
}

/// How the servers are asked whether they are well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthCheckDoc {
    /// The path to GET.
    pub path: String,
    /// Time between two questions, in milliseconds.
    #[serde(default = "default_interval_ms")]
    pub interval_ms: u32,
    /// For an answer, in milliseconds.
    #[serde(default = "default_check_ms")]
    pub timeout_ms: u32,
    /// The statuses that mean «well», like `200` or `2xx`.
    #[serde(default = "default_statuses")]
    #[schema(value_type = Vec<String>)]
    pub statuses: Vec<StatusRange>,
    /// Good answers in a row after which a server is used again.
    #[serde(default = "two")]
    pub healthy_after: u32,
    /// Bad ones in a row after which it is not.
    #[serde(default = "two")]
    pub unhealthy_after: u32,
}

impl HealthCheckDoc {
    /// A check of `path` with every other setting at its default.
    pub fn new(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            interval_ms: default_interval_ms(),
            timeout_ms: default_check_ms(),
            statuses: default_statuses(),
            healthy_after: two(),
            unhealthy_after: two(),
        }
    }
}

fn default_interval_ms() -> u32 {
    5_000
}
fn default_check_ms() -> u32 {
    2_000
}
fn default_statuses() -> Vec<StatusRange> {
    vec![StatusRange { first: 200, last: 399 }]
}
fn two() -> u32 {
    2
}

/// A change to headers: sets one, or removes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderChange {
    /// The name.
    pub name: String,
    /// The value to set; absent: the header is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// What a rule does with the responses that it fits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Caching {
    /// Its times count where the response does not say.
    #[default]
    Default,
    /// Its times count whatever the response says.
    Force,
    /// The response is not stored.
    Never,
}

/// A rule about responses. It fits where all its conditions hold; an empty condition always does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CacheRule {
    /// Paths: a [pattern](glob) like `/img/*`. Absent: every path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Statuses like `404`, `5xx` or `200-299`. Empty: those that RFC 9110 calls heuristically cacheable, without errors in
    /// a `safe` zone and with `force`; with `never`, all. A range does not fit the errors that an odd request can cause.
    #[schema(value_type = Vec<String>)]
    pub statuses: Vec<StatusRange>,
    /// Media types: patterns like `image/*`. Empty: every type.
    pub media_types: Vec<String>,
    /// What is done.
    pub caching: Caching,
    /// How long a response is fresh, in seconds. Absent: as without the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u32>,
    /// As in [`PullDoc`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_while_revalidate_s: Option<u32>,
    /// As in [`PullDoc`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_if_error_s: Option<u32>,
}

/// Requests: those for which every condition holds that is given. At least one is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RequestMatch {
    /// The path fits this [pattern](glob).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// There is a cookie whose name fits this pattern.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// There is a header of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// There is a query parameter whose name fits this pattern.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
}

/// What of a request makes the cache key, beside zone, host and path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeyDoc {
    /// The query. What is left out of the key is not sent to the origin either, so that nothing unkeyed can change what is
    /// stored.
    pub query: QueryKey,
    /// Headers whose values are part of the key.
    pub headers: Vec<String>,
    /// Cookies whose values are part of the key.
    pub cookies: Vec<String>,
    /// Hosts that are taken for another one, in key and request: alias to host. The zone answers for both.
    pub host_aliases: BTreeMap<String, String>,
}

/// Which query parameters count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueryKey {
    /// The query as it is.
    #[default]
    All,
    /// No query at all.
    None,
    /// All parameters, in order of name.
    Sorted,
    /// Only those whose name fits one of these patterns, in order of name.
    Only(Vec<String>),
    /// All but those whose name fits one of these patterns, in order of name.
    Except(Vec<String>),
}

/// Statuses from `first` to `last`: written `404`, `5xx` or `200-299`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StatusRange {
    /// The first status.
    pub first: u16,
    /// The last; never before the first.
    pub last: u16,
}

impl StatusRange {
    /// Whether `status` is one of them.
    pub fn contains(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }
}

impl std::str::FromStr for StatusRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} names no statuses; write 404, 5xx or 200-299");
        let number = |text: &str| text.parse().ok().filter(|status| (200..=599_u16).contains(status)).ok_or_else(wrong);
        if let Some(class) = text.strip_suffix("xx") {
            let first = number(&format!("{class}00"))?;
            return Ok(Self { first, last: first + 99 });
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = Self { first: number(first)?, last: number(last)? };
        if range.first <= range.last { Ok(range) } else { Err(wrong()) }
    }
}
impl TryFrom<String> for StatusRange {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}
impl From<StatusRange> for String {
    fn from(range: StatusRange) -> String {
        range.to_string()
    }
}
impl std::fmt::Display for StatusRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.first, self.last) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) if first % 100 == 0 && last == first + 99 => write!(f, "{}xx", first / 100),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl PullDoc {
    /// A policy with every setting at its default.
    pub fn new(upstreams: Vec<UpstreamDoc>) -> Self {
        Self {
            upstreams,
            policy: CachePolicy::default(),
            origin_host: None,
            sni: None,
            verify: true,
            ca: None,
            protocol: OriginProtocol::default(),
            timeouts: TimeoutsDoc::default(),
            max_connections: default_connections(),
            retry: RetryDoc::default(),
            health: None,
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            default_ttl_s: None,
            rules: Vec::new(),
            stale_while_revalidate_s: 0,
            stale_if_error_s: default_stale_if_error_s(),
            key: KeyDoc::default(),
            bypass: Vec::new(),
            strip_set_cookie: false,
            max_object_bytes: default_object_bytes(),
            max_tags: default_tags(),
            compression: None,
            trusted_networks: Vec::new(),
            purge_networks: Vec::new(),
        }
    }

    /// The first rule that fits a response with this status and media type to a request for `path`.
    pub fn rule(&self, path: &str, status: u16, media_type: &str) -> Option<&CacheRule> {
        self.rules.iter().find(|rule| rule.fits(self.policy, path, status, media_type))
    }

    /// Whether a request is to go past the cache, and by which entry of [`Self::bypass`].
    ///
    /// `cookies` are the names in the `Cookie` header; `has_header` answers for a lower-case name; `query` is what follows
    /// the `?`.
    pub fn bypassed_by(
        &self,
        path: &str,
        query: Option<&str>,
        cookies: &[&str],
        has_header: impl Fn(&str) -> bool,
    ) -> Option<&RequestMatch> {
        self.bypass.iter().find(|entry| {
            entry.path.as_ref().is_none_or(|pattern| glob(pattern, path))
                && entry.cookie.as_ref().is_none_or(|pattern| cookies.iter().any(|name| glob(pattern, name)))
                && entry.header.as_ref().is_none_or(|name| has_header(&name.to_ascii_lowercase()))
                && entry
                    .query
                    .as_ref()
                    .is_none_or(|pattern| parameters(query.unwrap_or_default()).any(|p| glob(pattern, name_of(p))))
        })
    }
}

impl CacheRule {
    fn fits(&self, policy: CachePolicy, path: &str, status: u16, media_type: &str) -> bool {
        // To keep an error takes a rule that speaks of errors; to keep one that a single odd request can cause, one that
        // names its status.
        let keeps = self.caching != Caching::Never;
        let careful = keeps && (policy == CachePolicy::Safe || self.caching == Caching::Force);
        let status_fits = if self.statuses.is_empty() {
            (!keeps || HEURISTICALLY_CACHEABLE.contains(&status)) && (!careful || status < 400)
        } else {
            self.statuses.iter().any(|range| {
                let named = range.first == range.last || !careful || !CAUSED_BY_REQUEST.contains(&status);
                named && range.contains(status)
            })
        };
        let essence = essence(media_type);
        status_fits
            && self.path.as_ref().is_none_or(|pattern| glob(pattern, path))
            && (self.media_types.is_empty() || self.media_types.iter().any(|p| glob(&p.to_ascii_lowercase(), &essence)))
    }
}

fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Errors that a client can cause by how it asks, for a URL that is well otherwise.
pub const CAUSED_BY_REQUEST: [u16; 11] = [400, 405, 406, 408, 412, 413, 414, 415, 417, 431, 501];

/// The statuses that may be kept by heuristics (RFC 9110 § 15.1).
pub const HEURISTICALLY_CACHEABLE: [u16; 12] = [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501];

impl KeyDoc {
    /// The host that stands in key and request for `host` (a `Host` header as it came).
    pub fn host<'a>(&'a self, host: &'a str) -> Cow<'a, str> {
        let name = host_name(host);
        match self.host_aliases.get(&*name) {
            Some(canonical) => Cow::Borrowed(canonical),
            None => name,
        }
    }

    /// The query (what follows the `?`) as it counts: for the key, and for the request to the origin.
    pub fn query<'a>(&self, query: Option<&'a str>) -> Option<Cow<'a, str>> {
        let query = query?;
        let chosen = |keep: &dyn Fn(&str) -> bool| {
            let mut kept: Vec<&str> = parameters(query).filter(|p| keep(name_of(p))).collect();
            // Stable: parameters of the same name keep their order, which means something to many programs.
            kept.sort_by_key(|parameter| name_of(parameter));
            (!kept.is_empty()).then(|| Cow::Owned(kept.join("&")))
        };
        match &self.query {
            QueryKey::All => Some(Cow::Borrowed(query)),
            QueryKey::None => None,
            QueryKey::Sorted => chosen(&|_| true),
            QueryKey::Only(patterns) => chosen(&|name| patterns.iter().any(|pattern| glob(pattern, name))),
            QueryKey::Except(patterns) => chosen(&|name| !patterns.iter().any(|pattern| glob(pattern, name))),
        }
    }

    /// What names a URL within its zone, for cache and purge: `host/path?query`. `target` is path and query as a request
    /// writes them, with the leading slash.
    pub fn url_key(&self, host: &str, target: &str) -> String {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, self.query(Some(query))),
            None => (target, None),
        };
        match query {
            Some(query) => format!("{}{path}?{query}", self.host(host)),
            None => format!("{}{path}", self.host(host)),
        }
    }
}

fn parameters(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter(|parameter| !parameter.is_empty())
}

fn name_of(parameter: &str) -> &str {
    parameter.split('=').next().unwrap_or_default()
}

/// Whether `text` fits a pattern, in which `*` stands for any number of characters, also none, and everything else for
/// itself. Takes at most `pattern × text` steps.
pub fn glob(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        match rest.split_once(piece) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "a/b", true),
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("/a*", "/ab", true),
            ("*.jpg", "/x.jpg", true),
            ("*.jpg", "/x.jpg?", false),
            ("/a/*/c", "/a/b/c", true),
            ("/a/*/c", "/a/c", false),
            ("a*a", "a", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXcYb", false),
            ("**", "x", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn keys() {
        let key = |query| KeyDoc {
            query,
            host_aliases: [("www.a.example".to_owned(), "a.example".to_owned())].into(),
            ..KeyDoc::default()
        };
        let patterns = |list: &[&str]| list.iter().map(|&p| p.to_owned()).collect::<Vec<_>>();
        for (query, host, target, expected) in [
            (QueryKey::All, "A.example:8080", "/x?b=2&a=1", "a.example/x?b=2&a=1"),
            (QueryKey::All, "www.a.example", "/x?", "a.example/x?"),
            (QueryKey::All, "other", "/", "other/"),
            (QueryKey::None, "a.example", "/x?b=2", "a.example/x"),
            (QueryKey::Sorted, "a.example", "/x?b=2&a=1&b=1&&a", "a.example/x?a=1&a&b=2&b=1"),
            (QueryKey::Only(patterns(&["a"])), "a.example", "/x?b=2&a=1", "a.example/x?a=1"),
            (QueryKey::Only(patterns(&["a"])), "a.example", "/x?b=2", "a.example/x"),
            (QueryKey::Except(patterns(&["utm_*"])), "a.example", "/x?utm_a=2&a=1", "a.example/x?a=1"),
        ] {
            assert_eq!(key(query.clone()).url_key(host, target), expected, "{query:?}");
        }
    }

    #[test]
    fn statuses() {
        for (text, shown) in
            [("404", Some("404")), ("5xx", Some("5xx")), ("200-299", Some("2xx")), ("301-302", Some("301-302"))]
        {
            assert_eq!(text.parse::<StatusRange>().ok().map(|range| range.to_string()).as_deref(), shown);
        }
        for bad in ["", "99", "600", "1xx", "6xx", "299-200", "abc", "2x", "-"] {
            assert!(bad.parse::<StatusRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let mut pull = PullDoc::new(Vec::new());
        let rule = |path: Option<&str>, statuses: &[&str], media_types: &[&str], ttl_s| CacheRule {
            path: path.map(str::to_owned),
            statuses: statuses.iter().map(|s| s.parse().expect("status")).collect(),
            media_types: media_types.iter().map(|&m| m.to_owned()).collect(),
            ttl_s: Some(ttl_s),
            ..CacheRule::default()
        };
        pull.rules =
            vec![rule(Some("/img/*"), &[], &[], 1), rule(None, &["5xx"], &[], 2), rule(None, &[], &["Image/*"], 3)];
        for (path, status, media_type, ttl_s) in [
            ("/img/a", 200, "text/html", Some(1)),
            ("/img/a", 500, "text/html", Some(2)),
            ("/x", 200, "IMAGE/png; q=1", Some(3)),
            ("/x", 200, "text/html", None),
            ("/img/a", 302, "image/png", None),
        ] {
            assert_eq!(pull.rule(path, status, media_type).and_then(|rule| rule.ttl_s), ttl_s, "{path} {status}");
        }
    }

    #[test]
    fn every_condition_of_a_bypass_has_to_hold() {
        let mut pull = PullDoc::new(Vec::new());
        pull.bypass = vec![
            RequestMatch { path: Some("/admin/*".into()), ..Default::default() },
            RequestMatch { cookie: Some("wordpress_logged_in_*".into()), ..Default::default() },
            RequestMatch { header: Some("X-Debug".into()), query: Some("trace".into()), ..Default::default() },
        ];
        for (path, query, cookie, header, expected) in [
            ("/admin/x", None, "", "", true),
            ("/", None, "wordpress_logged_in_1", "", true),
            ("/", None, "other", "", false),
            ("/", None, "", "x-debug", false),
            ("/", Some("a=1&trace=1"), "", "x-debug", true),
        ] {
            assert_eq!(pull.bypassed_by(path, query, &[cookie], |name| name == header).is_some(), expected, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_pattern_without_stars_is_equality(pattern in "[ab/]{0,4}", text in "[ab/]{0,4}") {
            proptest::prop_assert_eq!(glob(&pattern, &text), pattern == text);
        }

        #[test]
        fn sorting_makes_one_key_of_any_order(mut pairs in proptest::collection::vec("[a-c]=[0-9]", 1..6)) {
            pairs.sort();
            pairs.dedup_by_key(|pair| pair.as_bytes()[0]);
            let key = KeyDoc { query: QueryKey::Sorted, ..KeyDoc::default() };
            let forward = key.url_key("h", &format!("/?{}", pairs.join("&")));
            pairs.reverse();
            proptest::prop_assert_eq!(forward, key.url_key("h", &format!("/?{}", pairs.join("&"))));
        }
    }
}
