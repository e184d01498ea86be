//! Purges: from what a client writes to the targets of one event. [`pages`] is about pull zones.

mod pages;

use std::sync::Arc;

use api::docs::{PurgeAnswer, PurgeRequest};
use api::names::{MAX_PATH_BYTES, decode_url};
use api::{
    ErrorCode, MAX_PURGE_TARGETS, Problem, PullDoc, PurgeTargets, Target, ZoneDoc, ZoneName, ZonePath, ZonePrefix,
    ZoneTag, Zones,
};
use axum::Json as Answer;
use axum::extract::State as Shared;

use crate::access::MayPurge;
use crate::input::Json;
use crate::problem::Failure;
use crate::{State, wait};

/// `POST /v1/purge`.
pub(crate) async fn purge(
    _: MayPurge,
    Shared(state): Shared<Arc<State>>,
    Json(request): Json<PurgeRequest>,
) -> Result<Answer<PurgeAnswer>, Failure> {
    let place = state.acks.place(request.wait)?;
    let targets = targets(request, &Zones::new(&state.catalog.zones().await?))?;
    let event = state.commit(state.catalog.append_purge(targets, state.now_ms())).await?;
    Ok(Answer(PurgeAnswer { event, receipts: wait::for_edges(&state, place, event).await? }))
}

/// What a request names, with every zone looked up. Pure.
///
/// # Errors
/// Nothing or too much is named, or one thing wrongly: the problem says which, and what would be right.
fn targets(request: PurgeRequest, zones: &Zones) -> Result<PurgeTargets, Problem> {
    let named =
        request.urls.len() + request.prefixes.len() + request.tags.len() + request.hosts.len() + request.zones.len();
    if named == 0 {
        let detail = "a purge must name something: urls, prefixes, tags, hosts or zones";
        return Err(Problem::new(ErrorCode::InvalidRequest, detail));
    }
    if named > MAX_PURGE_TARGETS {
        let detail = format!("{named} things to purge; at most {MAX_PURGE_TARGETS} are allowed in one request");
        return Err(Problem::new(ErrorCode::TooLarge, detail));
    }
    let own_zone = request.zone.as_ref().map(|name| known("zone", name, zones)).transpose()?;
    let mut targets = PurgeTargets { soft: request.soft, ..PurgeTargets::default() };
    for (at, url) in request.urls.iter().enumerate() {
        add_url(url, own_zone, zones, &mut targets).map_err(|problem| at_index("urls", at, url, problem))?;
    }
    for (at, text) in request.prefixes.iter().enumerate() {
        let prefix = prefix(text, own_zone, zones).map_err(|problem| at_index("prefixes", at, text, problem))?;
        targets.prefixes.push(prefix);
    }
    for (at, text) in request.hosts.iter().enumerate() {
        let host = pages::host(text, own_zone, zones).map_err(|problem| at_index("hosts", at, text, problem))?;
        targets.hosts.push(host);
    }
    let tag = |tag| ZoneTag { zone: request.zone.clone(), tag };
    targets.tags = request.tags.into_iter().map(tag).collect();
    for name in &request.zones {
        known("zones", name, zones)?;
    }
    targets.zones = request.zones;
    if targets.len() > MAX_PURGE_TARGETS {
        let detail = format!(
            "{} things to purge, because a path alone counts once for each of the zone's hosts; at most \
             {MAX_PURGE_TARGETS} are allowed in one request",
            targets.len()
        );
        return Err(Problem::new(ErrorCode::TooLarge, detail));
    }
    Ok(targets)
}

fn known<'z>(field: &str, name: &ZoneName, zones: &'z Zones) -> Result<&'z ZoneDoc, Problem> {
    let zone = zones.by_name(name).map(|zone| &**zone);
    zone.ok_or_else(|| Problem::new(ErrorCode::UnknownZone, format!("{field}: there is no zone '{name}'")))
}

/// Says which of many was wrong.
fn at_index(field: &str, at: usize, text: &str, problem: Problem) -> Problem {
    let shown: String = text.chars().take(80).collect();
    Problem::new(problem.code, format!("{field}[{at}] {shown:?}: {}", problem.detail))
}

/// Adds what a URL names, by the rules by which edges read it. In a store zone what follows `?` or `#` is no part of a
/// file's address; in a pull zone the query is.
fn add_url(url: &str, own_zone: Option<&ZoneDoc>, zones: &Zones, targets: &mut PurgeTargets) -> Result<(), Problem> {
    let target = match address(url)? {
        // An id means the same in every zone.
        Address::Path(path) if path.starts_with("/-/") => zones.target("", path)?,
        Address::Absolute { host, path } => match zones.by_host(host).and_then(|zone| policy(zone)) {
            Some((zone, pull)) if !path.starts_with("/-/") => {
                targets.pages.push(pages::page(zone, pull, host, path)?);
                return Ok(());
            }
            _ => zones.target(host, path)?,
        },
        Address::Path(path) => match own_zone.map(|zone| (zone, policy(zone))) {
            Some((_, Some((zone, pull)))) => {
                targets.pages.extend(pages::pages(zone, pull, path)?);
                return Ok(());
            }
            Some((zone, None)) => zones.target("", &format!("/-/content/{}{path}", zone.name))?,
            None => return Err(lacks_zone()),
        },
    };
    match target {
        Target::Path { zone, .. } if zone.pull.is_some() => {
            let detail =
                format!("zone '{}' is a pull zone: name the URL as people ask for it, with its host", zone.name);
            return Err(malformed(&detail));
        }
        Target::Path { zone, path } => targets.urls.push(ZonePath { zone: zone.name.clone(), path }),
        Target::Id { id, .. } => targets.ids.push(id),
    }
    Ok(())
}

/// The zone with its policy, if it is a pull zone.
fn policy(zone: &ZoneDoc) -> Option<(&ZoneDoc, &PullDoc)> {
    zone.pull.as_deref().map(|pull| (zone, pull))
}

/// The zone and the beginning of paths that a URL names. `http://host/` is the whole zone, or all of the host.
fn prefix(url: &str, own_zone: Option<&ZoneDoc>, zones: &Zones) -> Result<ZonePrefix, Problem> {
    let (zone, host, path) = match address(url)? {
        Address::Absolute { host, path } => {
            let none = || Problem::new(ErrorCode::UnknownZone, "no zone answers for this host");
            (&**zones.by_host(host).ok_or_else(none)?, Some(host), path)
        }
        Address::Path(path) => (own_zone.ok_or_else(lacks_zone)?, None, path),
    };
    if path.starts_with("/-/") {
        return Err(below_reserved());
    }
    if let Some(pull) = &zone.pull {
        return pages::prefix(zone, pull, host, path);
    }
    let raw = path.split(['?', '#']).next().unwrap_or_default();
    let prefix = decode_url(raw.strip_prefix('/').unwrap_or(raw))?;
    if prefix.starts_with(api::names::RESERVED_PREFIX) {
        return Err(below_reserved());
    }
    if prefix.len() > MAX_PATH_BYTES || prefix.chars().any(char::is_control) {
        return Err(malformed("no path begins so: it is too long, or holds control characters"));
    }
    Ok(ZonePrefix { zone: zone.name.clone(), prefix })
}

fn below_reserved() -> Problem {
    malformed("below '/-/' are files by id, which have no common prefix; name them in urls")
}

enum Address<'a> {
    Absolute { host: &'a str, path: &'a str },
    Path(&'a str),
}

/// Splits `http(s)://host[:port]/path` and `/path`.
fn address(url: &str) -> Result<Address<'_>, Problem> {
    if url.starts_with('/') {
        return Ok(Address::Path(url));
    }
    let scheme_is = |scheme: &str| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let Some((_, rest)) = url.split_once("://").filter(|(scheme, _)| scheme_is(scheme)) else {
        return Err(malformed("write http://HOST/PATH or https://HOST/PATH, or /PATH together with zone"));
    };
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if host.is_empty() || host.contains(['@', ' ']) {
        return Err(malformed("between '//' and the path must stand a host, with or without port, and nothing else"));
    }
    Ok(Address::Absolute { host, path })
}

fn lacks_zone() -> Problem {
    malformed("a path alone needs the member zone; or write the whole URL")
}

fn malformed(detail: &str) -> Problem {
    Problem::new(ErrorCode::InvalidRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "019a9f3e-0000-7000-8000-000000000000";

    fn zones(catch_all: bool) -> Zones {
        let zone = |name: &str, hosts: &[&str], catch_all, index: Option<&str>| ZoneDoc {
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            catch_all,
            index: index.map(str::to_owned),
            ..ZoneDoc::new(name.parse().expect(name))
        };
        Zones::new(&[
            zone("files", &[], catch_all, Some("index.html")),
            zone("img", &["img.example", "pics.example"], false, None),
        ])
    }

    /// What becomes of one text, as `zone:path`, `#id`, or the word of the problem and its beginning.
    fn check(as_prefix: bool, zone: Option<&str>, text: &str, expected: &str) {
        let mut request = PurgeRequest { zone: zone.map(|z| z.parse().expect(z)), ..PurgeRequest::default() };
        if as_prefix { &mut request.prefixes } else { &mut request.urls }.push(text.to_owned());
        let shown = match targets(request, &zones(true)) {
            Ok(PurgeTargets { urls, ids, prefixes, .. }) => {
                let urls = urls.iter().map(|url| format!("{}:{}", url.zone, url.path));
                let ids = ids.iter().map(|id| format!("#{id}"));
                let prefixes = prefixes.iter().map(|prefix| format!("{}:{}", prefix.zone, prefix.prefix));
                urls.chain(ids).chain(prefixes).collect()
            }
            Err(problem) => {
                assert!(problem.detail.contains("[0]") || problem.detail.starts_with("zone"), "{}", problem.detail);
                format!("{}!", problem.code.word())
            }
        };
        assert_eq!(shown, expected, "{zone:?} {text}");
    }

    #[test]
    fn urls() {
        let url = |zone, text: &str, expected: &str| check(false, zone, text, expected);
        url(None, "http://img.example/a/b.png", "img:a/b.png");
        url(None, "https://PICS.example:8443/a%20b", "img:a b");
        url(None, "HTTP://img.example/a?size=1#x", "img:a");
        url(None, "http://anything.example/a", "files:a");
        url(None, "http://127.0.0.1:8600/docs/", "files:docs/index.html");
        url(None, "http://127.0.0.1:8600", "files:index.html");
        url(None, "http://127.0.0.1:8600?x", "files:index.html");
        url(None, "http://[::1]:8600/a", "files:a");
        url(None, &format!("http://img.example/-/{ID}"), &format!("#{ID}"));
        url(None, &format!("/-/{ID}?x"), &format!("#{ID}"));
        url(Some("img"), "/a/b", "img:a/b");
        url(Some("img"), "/a%2fb?x", "img:a/b");
        url(Some("files"), "/", "files:index.html");
        url(Some("files"), "/docs/", "files:docs/index.html");
        url(Some("img"), "http://other.example/a", "files:a");
        url(None, "/a", "invalid_request!");
        url(None, "a", "invalid_request!");
        url(Some("img"), "a", "invalid_request!");
        url(None, "", "invalid_request!");
        url(None, "ftp://img.example/a", "invalid_request!");
        url(None, "//img.example/a", "invalid_request!");
        url(None, "http:///a", "invalid_request!");
        url(None, "http://me@img.example/a", "invalid_request!");
        url(None, "http://img.example/", "unknown_file!");
        url(None, "http://img.example/../a", "invalid_name!");
        url(None, "http://img.example/%2e%2e/a", "invalid_name!");
        url(None, "http://img.example/a%zz", "invalid_name!");
        url(Some("img"), "//a", "invalid_name!");
        url(None, "http://img.example/-/nonsense", "unknown_file!");
        url(None, "/-/content/img/a", "img:a");
        url(Some("nope"), "/a", "unknown_zone!");
    }

    #[test]
    fn prefixes() {
        let prefix = |zone, text: &str, expected: &str| check(true, zone, text, expected);
        prefix(None, "http://img.example/a/", "img:a/");
        prefix(None, "http://img.example/a%20", "img:a ");
        prefix(None, "http://img.example/a?x", "img:a");
        prefix(None, "http://img.example/", "img:");
        prefix(None, "http://img.example", "img:");
        prefix(None, "http://x/docs", "files:docs");
        prefix(Some("img"), "/", "img:");
        prefix(Some("img"), "/a", "img:a");
        prefix(Some("img"), "/a/../b", "img:a/../b");
        prefix(None, "/a", "invalid_request!");
        prefix(Some("img"), "a", "invalid_request!");
        prefix(None, "http://img.example/-/x", "invalid_request!");
        prefix(Some("img"), "/-/", "invalid_request!");
        prefix(None, "http://img.example/%0a", "invalid_request!");
        prefix(Some("img"), &format!("/{}", "x".repeat(1_025)), "invalid_request!");
        prefix(None, "http://img.example/%ff", "invalid_name!");
        prefix(Some("nope"), "/a", "unknown_zone!");
    }

    #[test]
    fn counts_tags_and_zones() {
        let parse = |json: serde_json::Value| serde_json::from_value::<PurgeRequest>(json).expect("request");
        let code = |json| targets(parse(json), &zones(false)).expect_err("refused").code;
        let some = serde_json::json!({"zone": "img", "tags": ["a", "b"], "zones": ["files"], "soft": true});
        let purge = targets(parse(some), &zones(false)).expect("purge");
        assert!(
            purge.soft && purge.tags.iter().all(|tag| tag.zone.as_ref().is_some_and(|zone| zone.as_str() == "img"))
        );
        assert_eq!((purge.len(), purge.zones.len()), (3, 1));
        let everywhere = targets(parse(serde_json::json!({"tags": ["a"]})), &zones(false)).expect("purge");
        assert_eq!(everywhere.tags[0].zone, None);

        assert_eq!(code(serde_json::json!({})), ErrorCode::InvalidRequest);
        assert_eq!(code(serde_json::json!({"zone": "img", "soft": true})), ErrorCode::InvalidRequest);
        assert_eq!(code(serde_json::json!({"zones": ["img", "nope"]})), ErrorCode::UnknownZone);
        assert_eq!(code(serde_json::json!({"urls": ["http://nobody.example/a"]})), ErrorCode::UnknownZone);
        assert_eq!(code(serde_json::json!({"prefixes": ["http://nobody.example/a"]})), ErrorCode::UnknownZone);
        let many = |count: usize| serde_json::json!({"tags": vec!["t"; count - 1], "zones": ["img"]});
        assert_eq!(
            targets(parse(many(MAX_PURGE_TARGETS)), &zones(false)).expect("just so many").len(),
            MAX_PURGE_TARGETS
        );
        assert_eq!(code(many(MAX_PURGE_TARGETS + 1)), ErrorCode::TooLarge);
    }
}
