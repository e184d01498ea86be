//! Purges: from the URLs that people write to what the event names.

use std::sync::Arc;
use std::time::Instant;

use api::names::{MAX_PATH_BYTES, decode_url};
use api::{
    ErrorCode, MAX_PURGE_TARGETS, Problem, PurgeAnswer, PurgeRequest, PurgeTargets, Target, ZoneName, ZonePath,
    ZonePrefix, ZoneTag, Zones,
};
use axum::Json as Answer;
use axum::extract::State as Shared;

use crate::access::MayPurge;
use crate::input::Json;
use crate::problem::Failure;
use crate::{State, wait};

pub(crate) async fn purge(
    _: MayPurge,
    Shared(state): Shared<Arc<State>>,
    Json(request): Json<PurgeRequest>,
) -> Result<Answer<PurgeAnswer>, Failure> {
    let zones = Zones::new(&state.catalog.zones().await?);
    let wait = request.wait;
    let targets = targets(request, &zones)?;
    let event = state.catalog.append_purge(targets, state.now_ms()).await?;
    let committed = Instant::now();
    let receipts = if wait { wait::for_edges(&state, event, committed).await? } else { Vec::new() };
    Ok(Answer(PurgeAnswer { event, receipts }))
}

fn invalid(detail: String) -> Problem {
    Problem::new(ErrorCode::InvalidRequest, detail)
}

/// What a request names.
///
/// # Errors
/// The first thing in it that names nothing, with what would be right.
fn targets(request: PurgeRequest, zones: &Zones) -> Result<PurgeTargets, Problem> {
    let count = request.urls.len() + request.prefixes.len() + request.tags.len() + request.zones.len();
    if count == 0 {
        return Err(invalid("the purge names nothing; give urls, prefixes, tags or zones".to_owned()));
    }
    if count > MAX_PURGE_TARGETS {
        let detail = format!("the purge names {count} things; at most {MAX_PURGE_TARGETS} are allowed in one");
        return Err(Problem::new(ErrorCode::TooLarge, detail));
    }
    let known = |name: &ZoneName| match zones.by_name(name) {
        Some(_) => Ok(()),
        None => Err(Problem::new(ErrorCode::UnknownZone, format!("there is no zone '{name}'"))),
    };
    request.zone.iter().chain(&request.zones).try_for_each(known)?;
    let mut targets = PurgeTargets { zones: request.zones, soft: request.soft, ..PurgeTargets::default() };
    for url in &request.urls {
        let (host, path) = split(url, request.zone.as_ref())?;
        match zones
            .target(&host, &path)
            .map_err(|problem| Problem { detail: format!("{url:?}: {}", problem.detail), ..problem })?
        {
            Target::Path { zone, path } => targets.urls.push(ZonePath { zone: zone.name.clone(), path }),
            Target::Id { id, .. } => targets.ids.push(id),
        }
    }
    for url in &request.prefixes {
        targets.prefixes.push(prefix(url, request.zone.as_ref(), zones)?);
    }
    let zone = request.zone;
    targets.tags = request.tags.into_iter().map(|tag| ZoneTag { zone: zone.clone(), tag }).collect();
    Ok(targets)
}

/// Host and path of a URL. A bare path becomes one that names its zone itself.
fn split(url: &str, zone: Option<&ZoneName>) -> Result<(String, String), Problem> {
    if url.starts_with("/-/") {
        return Ok((String::new(), url.to_owned()));
    }
    if url.starts_with('/') {
        let Some(zone) = zone else {
            return Err(invalid(format!(
                "{url:?} is a bare path: say in which zone with `zone`, or write the whole URL"
            )));
        };
        return Ok((String::new(), format!("/-/content/{zone}{url}")));
    }
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let Some(rest) = rest.filter(|rest| !rest.is_empty() && !rest.starts_with('/')) else {
        return Err(invalid(format!("{url:?} is not a URL like http://HOST/PATH, nor a path like /PATH with `zone`")));
    };
    let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(at);
    Ok((host.to_owned(), if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }))
}

fn prefix(url: &str, zone: Option<&ZoneName>, zones: &Zones) -> Result<ZonePrefix, Problem> {
    let (host, path) = split(url, zone)?;
    let (zone, raw) = match (path.strip_prefix("/-/content/"), zone) {
        (Some(rest), _) => {
            let (name, raw) = rest.split_once('/').unwrap_or((rest, ""));
            let name: ZoneName = name.parse()?;
            (zones.by_name(&name), raw.to_owned())
        }
        (None, _) => (zones.by_host(&host), path.trim_start_matches('/').to_owned()),
    };
    let zone =
        zone.ok_or_else(|| Problem::new(ErrorCode::UnknownZone, format!("{url:?}: no zone answers for this host")))?;
    let raw = raw.split(['?', '#']).next().unwrap_or_default();
    let prefix = decode_url(raw)?;
    if prefix.len() > MAX_PATH_BYTES || prefix.chars().any(char::is_control) {
        return Err(invalid(format!(
            "{url:?} cannot begin a path: at most {MAX_PATH_BYTES} bytes, no control characters"
        )));
    }
    Ok(ZonePrefix { zone: zone.name.clone(), prefix })
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::ZoneDoc;

    fn zones() -> Zones {
        let files = ZoneDoc {
            catch_all: true,
            index: Some("index.html".into()),
            ..ZoneDoc::new("files".parse().expect("zone"))
        };
        let shop = ZoneDoc { hosts: vec!["shop.example".into()], ..ZoneDoc::new("shop".parse().expect("zone")) };
        Zones::new(&[files, shop])
    }

    const ID: &str = "019a9f3e-0000-7000-8000-000000000000";

    #[test]
    fn urls() {
        let check = |url: &str, zone: Option<&str>, expected: &str| {
            let zone = zone.map(|zone| zone.parse().expect("zone"));
            let request = PurgeRequest { zone, urls: vec![url.to_owned()], ..PurgeRequest::default() };
            let shown = match targets(request, &zones()) {
                Ok(targets) => match (targets.urls.as_slice(), targets.ids.as_slice()) {
                    ([url], []) => format!("{}:{}", url.zone, url.path),
                    ([], [id]) => id.to_string(),
                    other => format!("{other:?}"),
                },
                Err(problem) => problem.code.word().to_owned(),
            };
            assert_eq!(shown, expected, "{url}");
        };
        check("https://Shop.Example:8443/a%20b?x=1#y", None, "shop:a b");
        check("http://other.example/a", None, "files:a");
        check("http://other.example", None, "files:index.html");
        check("http://other.example?x", None, "files:index.html");
        check("http://other.example/d/", None, "files:d/index.html");
        check("/a/b", Some("shop"), "shop:a/b");
        check(&format!("/-/{ID}"), None, ID);
        check(&format!("http://x/-/{ID}"), None, ID);
        check("/-/content/shop/a", None, "shop:a");
        check("/a/b", None, "invalid_request");
        check("/a/b", Some("nope"), "unknown_zone");
        check("a/b", Some("shop"), "invalid_request");
        check("http:///a", None, "invalid_request");
        check("http://", None, "invalid_request");
        check("ftp://shop.example/a", None, "invalid_request");
        check("http://shop.example/a/../b", None, "invalid_name");
        check("http://shop.example/", None, "unknown_file");
    }

    #[test]
    fn prefixes() {
        let check = |url: &str, zone: Option<&str>, expected: &str| {
            let zone: Option<ZoneName> = zone.map(|zone| zone.parse().expect("zone"));
            let shown = match prefix(url, zone.as_ref(), &zones()) {
                Ok(prefix) => format!("{}:{}", prefix.zone, prefix.prefix),
                Err(problem) => problem.code.word().to_owned(),
            };
            assert_eq!(shown, expected, "{url}");
        };
        check("http://shop.example/img/", None, "shop:img/");
        check("http://shop.example/im", None, "shop:im");
        check("http://shop.example/a%20b", None, "shop:a b");
        check("http://shop.example", None, "shop:");
        check("/", Some("shop"), "shop:");
        check("/d/", Some("shop"), "shop:d/");
        check("/d/", None, "invalid_request");
        check("http://shop.example/%0a", None, "invalid_request");
        check("http://shop.example/%zz", None, "invalid_name");
    }

    #[test]
    fn bounds() {
        let named = |count: usize| {
            let urls = (0..count).map(|n| format!("http://x/{n}")).collect();
            targets(PurgeRequest { urls, ..PurgeRequest::default() }, &zones())
        };
        assert_eq!(named(0).expect_err("nothing").code, ErrorCode::InvalidRequest);
        assert_eq!(named(MAX_PURGE_TARGETS).expect("the most").len(), MAX_PURGE_TARGETS);
        assert_eq!(named(MAX_PURGE_TARGETS + 1).expect_err("one more").code, ErrorCode::TooLarge);
    }
}
