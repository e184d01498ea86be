//! What a request asks for: the zone by its host, the file by its path. Shared by edge, origin and router, so that a
//! URL means the same wherever it arrives.
//!
//! - `/<path>`: the file at that path in the zone of the host; an empty path, or one that ends in `/`, is the zone's index
//! - `/-/<id>` and `/-/content-id/<id>`: the file of that id, in whatever zone
//! - `/-/content/<zone>/<path>`: the file at that path in the named zone, whatever the host

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, Uri, header};

use crate::docs::ZoneDoc;
use crate::names::{FileId, FilePath, ZoneName, decode_url};
use crate::problem::{ErrorCode, Problem};

/// What a request asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// A file by its path.
    Path {
        /// Its zone.
        zone: Arc<ZoneDoc>,
        /// Its path in the zone, with the zone's index where the URL ended in `/`.
        path: FilePath,
    },
    /// A file by its id.
    Id {
        /// Its id.
        id: FileId,
        /// The zone of the host that was asked, where there is one. The file may be in another.
        host_zone: Option<Arc<ZoneDoc>>,
    },
}

impl Target {
    /// The zone whose settings apply before the file is known.
    pub fn zone(&self) -> Option<&Arc<ZoneDoc>> {
        match self {
            Self::Path { zone, .. } => Some(zone),
            Self::Id { host_zone, .. } => host_zone.as_ref(),
        }
    }

    /// The URL path that asks for the same at every edge and origin, whatever the host.
    pub fn own_path(&self) -> String {
        match self {
            Self::Path { zone, path } => format!("/-/content/{}/{}", zone.name, path.to_url()),
            Self::Id { id, .. } => format!("/-/content-id/{id}"),
        }
    }
}

/// The zones of one snapshot, ready to be looked up by host and by name.
#[derive(Debug, Clone, Default)]
pub struct Zones {
    by_name: HashMap<ZoneName, Arc<ZoneDoc>>,
    by_host: HashMap<String, Arc<ZoneDoc>>,
    catch_all: Option<Arc<ZoneDoc>>,
}

impl Zones {
    /// Takes the zones of a snapshot. Where two claim the same host (control refuses that), the first has it.
    pub fn new(docs: &[ZoneDoc]) -> Self {
        let mut zones = Self::default();
        for doc in docs {
            let doc = Arc::new(doc.clone());
            for host in &doc.hosts {
                zones.by_host.entry(host.clone()).or_insert_with(|| doc.clone());
            }
            if doc.catch_all && zones.catch_all.is_none() {
                zones.catch_all = Some(doc.clone());
            }
            zones.by_name.entry(doc.name.clone()).or_insert(doc);
        }
        zones
    }

    /// The zone that answers for `host` (a `Host` header as it came: any case, with or without port): the one that
    /// names it, else the one that catches all.
    pub fn by_host(&self, host: &str) -> Option<&Arc<ZoneDoc>> {
        self.by_host.get(&*host_name(host)).or(self.catch_all.as_ref())
    }

    /// Every zone, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<ZoneDoc>> {
        self.by_name.values()
    }

    /// The zone of that name.
    pub fn by_name(&self, name: &ZoneName) -> Option<&Arc<ZoneDoc>> {
        self.by_name.get(name)
    }

    /// What a request for `raw_path` (the request target: percent-encoded, with or without query) at `host` asks for.
    ///
    /// # Errors
    /// `InvalidName` for a path that breaks the rules of [`FilePath`], `UnknownZone` where no zone answers, `UnknownFile`
    /// for an empty path in a zone without index and for anything else below `/-/`.
    pub fn target(&self, host: &str, raw_path: &str) -> Result<Target, Problem> {
        let path = raw_path.split(['?', '#']).next().unwrap_or_default();
        let path = path.strip_prefix('/').unwrap_or(path);
        if let Some(own) = path.strip_prefix("-/") {
            return self.own_target(host, own);
        }
        let zone = self.by_host(host).ok_or_else(|| {
            let host = host.chars().take(80).collect::<String>();
            Problem::new(ErrorCode::UnknownZone, format!("no zone answers for the host {host:?}"))
        })?;
        file_in(zone, path)
    }

    /// Where an edge that is reached at `base_url` (without a trailing slash) serves `target`: short where the host of
    /// that URL leads to the target's zone.
    pub fn url_at_edge(&self, base_url: &str, target: &Target) -> String {
        match target {
            Target::Id { id, .. } => format!("{base_url}/-/{id}"),
            Target::Path { zone, path } if self.leads_to(base_url, zone) => format!("{base_url}/{}", path.to_url()),
            Target::Path { .. } => format!("{base_url}{}", target.own_path()),
        }
    }

    fn leads_to(&self, base_url: &str, zone: &ZoneDoc) -> bool {
        let host = base_url.split_once("://").map_or(base_url, |(_, host)| host);
        self.by_host(host).is_some_and(|found| found.name == zone.name)
    }

    /// What is below `/-/`.
    fn own_target(&self, host: &str, own: &str) -> Result<Target, Problem> {
        if let Some(rest) = own.strip_prefix("content/") {
            let Some((name, path)) = rest.split_once('/') else {
                return Err(unknown_file("use /-/content/ZONE/PATH"));
            };
            let name: ZoneName = name.parse()?;
            let zone = self
                .by_name(&name)
                .ok_or_else(|| Problem::new(ErrorCode::UnknownZone, format!("there is no zone '{name}'")))?;
            return file_in(zone, path);
        }
        let id = own.strip_prefix("content-id/").unwrap_or(own);
        match id.parse() {
            Ok(id) => Ok(Target::Id { id, host_zone: self.by_host(host).cloned() }),
            Err(_) => Err(unknown_file("below /-/ there are only /-/ID and /-/content/ZONE/PATH")),
        }
    }
}

fn file_in(zone: &Arc<ZoneDoc>, raw: &str) -> Result<Target, Problem> {
    let mut path = decode_url(raw)?;
    if path.is_empty() || path.ends_with('/') {
        let Some(index) = &zone.index else {
            return Err(unknown_file(&format!("zone '{}' has no index: name a file", zone.name)));
        };
        path.push_str(index);
    }
    Ok(Target::Path { zone: zone.clone(), path: path.parse()? })
}

fn unknown_file(what_would_be_right: &str) -> Problem {
    Problem::new(ErrorCode::UnknownFile, format!("there is no file at this address; {what_would_be_right}"))
}

/// The host that a request names: that of its target where it has one (RFC 9112 § 3.2.2), else its `Host` header, else
/// the empty text.
pub fn request_host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    match uri.authority() {
        Some(authority) => authority.as_str().rsplit('@').next().unwrap_or_default(),
        None => headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default(),
    }
}

/// The name in a `Host` header: lower case, without port, without the dot that may end a hostname, without the brackets
/// of an IPv6 address.
pub fn host_name(host: &str) -> Cow<'_, str> {
    let host = host.trim();
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// Whether `text` is a hostname as zones name them: lower case, without port and without a dot at its end (RFC 1123 § 2.1).
pub fn is_hostname(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| !label.is_empty() && label.len() <= 63)
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "019a9f3e-0000-7000-8000-000000000000";

    fn zones() -> Zones {
        let zone = |name: &str, hosts: &[&str], catch_all, index: Option<&str>| ZoneDoc {
            hosts: hosts.iter().map(|&h| h.to_owned()).collect(),
            catch_all,
            index: index.map(str::to_owned),
            ..ZoneDoc::new(name.parse().expect(name))
        };
        Zones::new(&[
            zone("files", &[], true, Some("index.html")),
            zone("img", &["img.example", "pics.example"], false, None),
        ])
    }

    /// The target as `zone:path`, `id@zone`, or the word of the problem.
    fn check(host: &str, path: &str, expected: &str) {
        let shown = match zones().target(host, path) {
            Ok(Target::Path { zone, path }) => format!("{}:{path}", zone.name),
            Ok(Target::Id { id, host_zone }) => format!("{id}@{}", host_zone.expect("zone").name),
            Err(problem) => problem.code.word().to_owned(),
        };
        assert_eq!(shown, expected, "{host} {path}");
    }

    #[test]
    fn paths_and_hosts() {
        check("img.example", "/a/b.png", "img:a/b.png");
        check("PICS.example.:8080", "/a%20b?x=1", "img:a b");
        check("other.example", "/a", "files:a");
        check("", "/a", "files:a");
        check("[::1]:80", "/a", "files:a");
        check("x", "/", "files:index.html");
        check("x", "/docs/?q=/", "files:docs/index.html");
        check("x", "", "files:index.html");
        check("img.example", "/", "unknown_file");
        check("x", "/a/../b", "invalid_name");
        check("x", "/%2e%2e/b", "invalid_name");
        check("x", "//a", "invalid_name");
        check("x", "//", "invalid_name");
        check("x", "/a%zz", "invalid_name");
        check("x", "/%2d/x", "invalid_name");
    }

    #[test]
    fn addresses_of_our_own() {
        check("x", &format!("/-/{ID}?a"), &format!("{ID}@files"));
        check("img.example", &format!("/-/content-id/{ID}"), &format!("{ID}@img"));
        check("img.example", "/-/content/files/a%2fb", "files:a/b");
        check("x", "/-/content/files/", "files:index.html");
        check("x", "/-/content/img/", "unknown_file");
        check("x", "/-/content/files", "unknown_file");
        check("x", "/-/content/nope/a", "unknown_zone");
        check("x", "/-/content/NOPE/a", "invalid_name");
        check("x", "/-/content/files/../a", "invalid_name");
        check("x", "/-/blob/abc", "unknown_file");
        check("x", "/-/", "unknown_file");
    }

    #[test]
    fn urls_lead_back_to_their_target() {
        let zones = zones();
        for (base_url, path, expected) in [
            ("http://127.0.0.1:80", "/a%20b", "http://127.0.0.1:80/a%20b"),
            ("http://127.0.0.1:80", "/-/content/img/a%20b", "http://127.0.0.1:80/-/content/img/a%20b"),
            ("https://img.example", "/-/content/img/a", "https://img.example/a"),
            ("https://img.example", "/-/content/files/a", "https://img.example/-/content/files/a"),
        ] {
            let target = zones.target("x", path).expect(path);
            let url = zones.url_at_edge(base_url, &target);
            assert_eq!(url, expected);
            let host = base_url.split_once("//").expect("scheme").1;
            assert_eq!(zones.target(host, url.strip_prefix(base_url).expect("base")), Ok(target.clone()));
            assert_eq!(zones.target("any", &target.own_path()), Ok(target));
        }
        let target = zones.target("x", &format!("/-/{ID}")).expect("id");
        assert_eq!(zones.url_at_edge("http://e", &target), format!("http://e/-/{ID}"));
        assert_eq!(zones.target("x", &target.own_path()), Ok(target));
    }

    #[test]
    fn no_zone_answers() {
        let none = Zones::new(&[]);
        assert_eq!(none.target("x", "/a").expect_err("no zone").code, ErrorCode::UnknownZone);
        assert!(matches!(none.target("x", &format!("/-/{ID}")), Ok(Target::Id { host_zone: None, .. })));
    }

    #[test]
    fn names_in_host_headers() {
        for (host, name) in [
            ("A.Example:80", "a.example"),
            ("a.", "a"),
            ("[2001:DB8::1]:443", "2001:db8::1"),
            ("[::1", "::1"),
            (":80", ""),
            ("", ""),
        ] {
            assert_eq!(host_name(host), name, "{host}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "b.example".parse().expect("value"));
        assert_eq!(request_host(&Uri::from_static("/x"), &headers), "b.example");
        assert_eq!(request_host(&Uri::from_static("http://c.example:1/x"), &headers), "c.example:1");
        assert_eq!(request_host(&Uri::from_static("http://me@c.example/x"), &headers), "c.example");
        assert_eq!(request_host(&Uri::from_static("/x"), &HeaderMap::new()), "");
    }

    proptest::proptest! {
        #[test]
        fn any_host_and_path_is_answered(host in ".{0,40}", path in "(/|-/|content/|files|[a-z%./?])*") {
            let _ = zones().target(&host, &path);
        }
    }
}
