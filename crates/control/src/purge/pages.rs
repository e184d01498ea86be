//! What a purge names in pull zones: URLs with their query, as requests write them, and hosts. Pure.
//!
//! The texts that come out are those that edges make of requests ([`api::pull::KeyDoc`]), so that comparing them is all
//! that a purge takes there.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use api::addressing::host_name;
use api::pull::QueryKey;
use api::{ErrorCode, Problem, PullDoc, ZoneDoc, ZoneHost, ZonePage, ZonePrefix, Zones};

use super::malformed;

/// Longest URL of a page, or beginning of one, that a purge names, in bytes.
const MAX_URL_BYTES: usize = 8_192;
/// Hosts that are named to somebody who asked for an unknown one.
const HOSTS_SHOWN: usize = 10;

/// The page that a URL at `host` names in a pull zone.
pub(super) fn page(zone: &ZoneDoc, pull: &PullDoc, host: &str, target: &str) -> Result<ZonePage, Problem> {
    known_host(zone, pull, host)?;
    // The host as it was written: the key is made of that.
    let url = pull.key.url_key(host, &as_requested(target)?);
    Ok(ZonePage { zone: zone.name.clone(), url })
}

/// The pages that a path alone names in a pull zone: one at each of its hosts.
pub(super) fn pages(zone: &ZoneDoc, pull: &PullDoc, target: &str) -> Result<Vec<ZonePage>, Problem> {
    if zone.hosts.is_empty() {
        let detail =
            format!("zone '{}' names no hosts, so a path alone is no page of it: write the whole URL", zone.name);
        return Err(malformed(&detail));
    }
    // Aliases of one host are one page.
    let hosts: BTreeSet<_> = zone.hosts.iter().map(|host| pull.key.host(host)).collect();
    hosts.into_iter().map(|host| page(zone, pull, &host, target)).collect()
}

/// The beginning of pages: at `host`, or at every one.
pub(super) fn prefix(zone: &ZoneDoc, pull: &PullDoc, host: Option<&str>, target: &str) -> Result<ZonePrefix, Problem> {
    let target = as_requested(target)?;
    if target.contains('?') && pull.key.query != QueryKey::All {
        let detail = format!(
            "zone '{}' sorts query parameters or leaves some out, so nothing can be told by how a query begins: name \
             the beginning of the path, or whole URLs in urls",
            zone.name
        );
        return Err(malformed(&detail));
    }
    let host = host.map(|host| known_host(zone, pull, host)).transpose()?;
    Ok(ZonePrefix { zone: zone.name.clone(), prefix: format!("{}{target}", host.unwrap_or_default()) })
}

/// The zone and host that a host's name means, in `own_zone` where one is named.
pub(super) fn host(text: &str, own_zone: Option<&ZoneDoc>, zones: &Zones) -> Result<ZoneHost, Problem> {
    // As a `Host` header has it.
    let bracketed = text.parse::<Ipv6Addr>().map(|address| format!("[{address}]"));
    let text = bracketed.as_deref().unwrap_or(text);
    if text.contains(['/', '?', '#', '@', ' ']) || host_name(text).is_empty() {
        return Err(malformed("write a host alone, like shop.example"));
    }
    let unknown = || {
        let known: BTreeSet<&str> =
            zones.all().filter(|zone| zone.pull.is_some()).flat_map(|zone| &zone.hosts).map(String::as_str).collect();
        let detail = format!("no zone answers for this host; pull zones answer for {}", some_of(known.into_iter()));
        Problem::new(ErrorCode::UnknownZone, detail)
    };
    let zone = match own_zone {
        Some(zone) => zone,
        None => zones.by_host(text).ok_or_else(unknown)?,
    };
    let Some(pull) = &zone.pull else {
        let detail = format!("zone '{}' holds files, which are the same at all its hosts: name it in zones", zone.name);
        return Err(malformed(&detail));
    };
    Ok(ZoneHost { zone: zone.name.clone(), host: known_host(zone, pull, text)? })
}

/// The host as it stands in keys.
fn known_host(zone: &ZoneDoc, pull: &PullDoc, host: &str) -> Result<String, Problem> {
    let canonical = pull.key.host(host).into_owned();
    if canonical.is_empty() {
        return Err(malformed("the URL names no host"));
    }
    let is_known = |known: &String| *known == *host_name(host) || *pull.key.host(known) == *canonical;
    if zone.catch_all || zone.hosts.iter().any(is_known) {
        return Ok(canonical);
    }
    let shown = some_of(zone.hosts.iter().map(String::as_str));
    let detail = format!("zone '{}' does not answer for the host {canonical:?}; it answers for {shown}", zone.name);
    Err(Problem::new(ErrorCode::UnknownZone, detail))
}

/// At most [`HOSTS_SHOWN`] of them, for a sentence.
fn some_of<'a>(mut hosts: impl Iterator<Item = &'a str>) -> String {
    let shown: Vec<&str> = hosts.by_ref().take(HOSTS_SHOWN).collect();
    match (shown.is_empty(), hosts.next()) {
        (true, _) => "none".to_owned(),
        (false, None) => shown.join(", "),
        (false, Some(_)) => format!("{} …", shown.join(", ")),
    }
}

/// Path and query as a request has them: with a leading slash, without fragment, and escaped where somebody wrote signs
/// that cannot stand in a request.
fn as_requested(target: &str) -> Result<String, Problem> {
    let target = target.split('#').next().unwrap_or_default();
    if target.chars().any(char::is_control) {
        return Err(malformed("no URL holds control characters"));
    }
    let mut requested = String::with_capacity(target.len() + 1);
    if !target.starts_with('/') {
        requested.push('/');
    }
    for byte in target.bytes() {
        if byte.is_ascii_graphic() {
            requested.push(char::from(byte));
        } else {
            requested.push_str(&format!("%{byte:02X}"));
        }
    }
    if requested.len() > MAX_URL_BYTES {
        return Err(malformed(&format!("it has {} bytes; at most {MAX_URL_BYTES} are allowed", requested.len())));
    }
    Ok(requested)
}

#[cfg(test)]
mod tests {
    use super::super::targets;
    use super::*;
    use api::pull::UpstreamDoc;
    use api::{MAX_PURGE_TARGETS, PurgeRequest};
    use serde_json::json;

    fn zone(name: &str, hosts: &[&str], catch_all: bool, key: serde_json::Value) -> ZoneDoc {
        let upstream = UpstreamDoc { url: "http://127.0.0.1:3000".to_owned(), weight: 1 };
        let pull = PullDoc { key: serde_json::from_value(key).expect("key"), ..PullDoc::new(vec![upstream]) };
        let zone = ZoneDoc {
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            catch_all,
            pull: Some(Box::new(pull)),
            ..ZoneDoc::new(name.parse().expect(name))
        };
        assert_eq!(zone.validate(), Ok(()));
        zone
    }

    /// `shop` with an alias, `news` that sorts queries, `img` of files, `all` for every other host.
    fn zones() -> Zones {
        Zones::new(&[
            zone(
                "shop",
                &["shop.example", "www.shop.example", "shop.test"],
                false,
                json!({"host_aliases": {"www.shop.example": "shop.example"}}),
            ),
            zone("news", &["news.example"], false, json!({"query": {"except": ["utm_*"]}})),
            zone("all", &[], true, json!({})),
            ZoneDoc { hosts: vec!["img.example".to_owned()], ..ZoneDoc::new("img".parse().expect("zone")) },
        ])
    }

    /// What becomes of a request: `zone>url`, `zone^prefix`, `zone@host`; or the word of the problem and its text.
    fn shown(request: serde_json::Value) -> String {
        let request: PurgeRequest = serde_json::from_value(request).expect("request");
        match targets(request, &zones()) {
            Ok(targets) => {
                assert!(targets.urls.is_empty() && targets.ids.is_empty());
                let pages = targets.pages.iter().map(|page| format!("{}>{}", page.zone, page.url));
                let prefixes = targets.prefixes.iter().map(|prefix| format!("{}^{}", prefix.zone, prefix.prefix));
                let hosts = targets.hosts.iter().map(|host| format!("{}@{}", host.zone, host.host));
                pages.chain(prefixes).chain(hosts).collect::<Vec<_>>().join(" ")
            }
            Err(problem) => format!("{}! {}", problem.code.word(), problem.detail),
        }
    }

    #[test]
    fn urls_are_keys() {
        let long = "x".repeat(MAX_URL_BYTES);
        for (zone, url, expected) in [
            (None, "https://shop.example/a?b=2&a=1", "shop>shop.example/a?b=2&a=1"),
            (None, "https://WWW.shop.example:8443/a", "shop>shop.example/a"),
            (None, "http://shop.example", "shop>shop.example/"),
            (None, "http://shop.example?x", "shop>shop.example/?x"),
            (None, "http://shop.example/a?#top", "shop>shop.example/a?"),
            (None, "http://shop.example/a%20b//../ü c", "shop>shop.example/a%20b//../%C3%BC%20c"),
            (None, "http://news.example/?b=2&utm_x=1&a=1", "news>news.example/?a=1&b=2"),
            (None, "http://any.example:80/a", "all>any.example/a"),
            (None, "http://[::1]:8610/a", "all>::1/a"),
            (Some("shop"), "/a?x", "shop>shop.example/a?x shop>shop.test/a?x"),
            (Some("shop"), "http://news.example/a", "news>news.example/a"),
            (Some("all"), "/a", "invalid_request! urls[0] \"/a\": zone 'all' names no hosts"),
            (None, "/a", "invalid_request! urls[0]"),
            (None, "http://:80/a", "invalid_request! urls[0]"),
            (None, "http://shop.example/a\nb", "invalid_request! urls[0]"),
            (None, "http://shop.example/-/x", "unknown_file! urls[0]"),
            (None, "/-/content/shop/a", "invalid_request! urls[0] \"/-/content/shop/a\": zone 'shop' is a pull zone"),
            (Some("shop"), long.as_str(), "invalid_request!"),
        ] {
            let shown = shown(json!({"zone": zone, "urls": [url]}));
            assert!(shown == expected || expected.contains('!') && shown.starts_with(expected), "{url}: {shown}");
        }
        let shown = shown(json!({"urls": [format!("http://shop.example/{long}")]}));
        assert!(shown.contains("8193 bytes; at most 8192"), "{shown}");
    }

    #[test]
    fn prefixes_are_beginnings_of_keys() {
        for (zone, url, expected) in [
            (None, "https://www.shop.example/img/", "shop^shop.example/img/"),
            (None, "https://shop.example", "shop^shop.example/"),
            (None, "https://shop.example/search?q=", "shop^shop.example/search?q="),
            (None, "http://any.example/a", "all^any.example/a"),
            (Some("shop"), "/img/", "shop^/img/"),
            (Some("all"), "/", "all^/"),
            (Some("shop"), "/ü", "shop^/%C3%BC"),
            (
                None,
                "http://news.example/?a",
                "invalid_request! prefixes[0] \"http://news.example/?a\": zone 'news' sorts",
            ),
            (Some("shop"), "/-/", "invalid_request! prefixes[0]"),
            (None, "/img/", "invalid_request! prefixes[0]"),
        ] {
            let shown = shown(json!({"zone": zone, "prefixes": [url]}));
            assert!(shown == expected || expected.contains('!') && shown.starts_with(expected), "{url}: {shown}");
        }
    }

    #[test]
    fn hosts_are_those_in_keys() {
        for (zone, host, expected) in [
            (None, "shop.example", "shop@shop.example"),
            (None, "WWW.Shop.Example.:8080", "shop@shop.example"),
            (Some("shop"), "shop.test", "shop@shop.test"),
            (None, "any.example", "all@any.example"),
            (Some("all"), "any.example", "all@any.example"),
            (Some("all"), "::1", "all@::1"),
            (None, "[::1]:8610", "all@::1"),
            (
                Some("shop"),
                "sohp.example",
                "unknown_zone! hosts[0] \"sohp.example\": zone 'shop' does not answer for the host \"sohp.example\"; it \
                 answers for shop.example, www.shop.example, shop.test",
            ),
            (None, "img.example", "invalid_request! hosts[0] \"img.example\": zone 'img' holds files"),
            (Some("img"), "img.example", "invalid_request! hosts[0]"),
            (None, "http://shop.example/", "invalid_request! hosts[0] \"http://shop.example/\": write a host alone"),
            (None, "", "invalid_request! hosts[0]"),
            (Some("nope"), "a", "unknown_zone! zone: there is no zone 'nope'"),
        ] {
            let shown = shown(json!({"zone": zone, "hosts": [host]}));
            assert!(shown == expected || expected.contains('!') && shown.starts_with(expected), "{host}: {shown}");
        }
        let none = targets(
            serde_json::from_value(json!({"hosts": ["a.example"]})).expect("request"),
            &Zones::new(&[zone("shop", &["shop.example"], false, json!({}))]),
        );
        let why = none.expect_err("nobody answers").detail;
        assert!(why.contains("no zone answers for this host") && why.contains("shop.example"), "{why}");
    }

    #[test]
    fn paths_count_once_for_each_host() {
        let paths: Vec<_> = (0..MAX_PURGE_TARGETS / 2).map(|at| format!("/{at}")).collect();
        let targets_of = |paths: &[String]| {
            let request = json!({"zone": "shop", "urls": paths});
            targets(serde_json::from_value(request).expect("request"), &zones())
        };
        assert_eq!(targets_of(&paths).expect("just so many").len(), MAX_PURGE_TARGETS);
        let mut more = paths;
        more.push("/one-more".to_owned());
        let problem = targets_of(&more).expect_err("too many");
        assert_eq!(problem.code, ErrorCode::TooLarge);
        assert!(problem.detail.contains("1002") && problem.detail.contains("hosts"), "{}", problem.detail);
    }
}
