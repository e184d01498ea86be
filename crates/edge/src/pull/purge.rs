//! `PURGE`: the purge request that people know from other caches.
//!
//! `PURGE /page` purges the URL with all its variants. `Littoral-Purge` says what else is meant: `prefix` (all URLs that
//! begin like this one), `host` or `zone`; `Surrogate-Key: a b` purges what has one of these tags instead. With
//! `Fastly-Soft-Purge: 1` what is purged is stale and not gone.
//!
//! With control, the purge goes there with the client's token, and is answered when every live edge has applied it. Without,
//! this edge applies it, and answers when that is on its disk.

use std::sync::Arc;

use api::names::Tag;
use api::{ErrorCode, Problem, PurgeRequest, PurgeTargets, TokenSecret, ZoneHost, ZonePage, ZonePrefix, ZoneTag};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, header};
use net::{Body, Peer};

use crate::node::Node;
use crate::pull::asked::Asked;
use crate::pull::may_operate;
use crate::pull::zone::PullZone;

/// What a `PURGE` means.
enum What {
    Url,
    Prefix,
    Host,
    Zone,
    Tags(Vec<Tag>),
}

/// Carries out a `PURGE`.
pub(crate) async fn serve(
    node: &Arc<Node>,
    zone: &PullZone,
    asked: &Asked,
    parts: &Parts,
) -> Result<Response<Body>, Problem> {
    let what = read(parts)?;
    let soft = match text(parts, "fastly-soft-purge")? {
        None | Some("0") => false,
        Some("1") => true,
        Some(other) => return Err(invalid(format!("Fastly-Soft-Purge is {other:?}; write 1 or 0"))),
    };
    let allowed = may_operate(node, zone, parts.extensions.get::<Peer>(), &parts.headers);
    let purged = match &what {
        What::Url => format!("url {}", asked.url),
        What::Prefix => format!("prefix {}", asked.url),
        What::Host => format!("host {}", split(&asked.url).0),
        What::Zone => format!("zone {}", zone.name),
        What::Tags(tags) => format!("tags {}", tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(" ")),
    };
    let number = match (&node.control, token(parts)?) {
        (Some(control), Some(token)) => {
            let request = request(zone, asked, what, soft);
            let answer =
                control.client.with_token(&token).purge(&request).await.map_err(|error| error.into_problem())?;
            answer.event
        }
        (None, _) if allowed => mark(node, targets(zone, asked, what, soft)).await?,
        (Some(_), None) if allowed => {
            // What the operator's own machine asks of this edge is done here at once; other edges are control's business.
            mark(node, targets(zone, asked, what, soft)).await?
        }
        _ => {
            let detail = "PURGE needs «Authorization: Bearer TOKEN» with the scope 'purge', or an address in the zone's \
                          purge_networks";
            return Err(Problem::new(ErrorCode::Forbidden, detail));
        }
    };
    let json = serde_json::json!({ "purged": purged, "soft": soft, "event": number }).to_string();
    let mut response = Response::new(Body::full(Bytes::from(json)));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Purges here, and returns when that outlives the machine, and is so in every process that serves the same.
async fn mark(node: &Node, targets: PurgeTargets) -> Result<u64, Problem> {
    let number = node.mark(targets);
    let kept = node.marks.sync().await;
    kept.map_err(|error| Problem::new(ErrorCode::Internal, format!("purged until this edge is restarted: {error}")))?;
    let confirmed = node.marks.confirmed().await;
    confirmed.map_err(|error| Problem::new(ErrorCode::UpstreamTimeout, error.to_string()))?;
    Ok(number)
}

fn read(parts: &Parts) -> Result<What, Problem> {
    let tags = text(parts, "surrogate-key")?;
    match (text(parts, "littoral-purge")?, tags) {
        (None, None) | (Some("url"), None) => Ok(What::Url),
        (Some("prefix"), None) => Ok(What::Prefix),
        (Some("host"), None) => Ok(What::Host),
        (Some("zone"), None) => Ok(What::Zone),
        (None, Some(tags)) => Ok(What::Tags(Tag::parse_list(tags)?)),
        (Some(_), Some(_)) => {
            Err(invalid("Littoral-Purge and Surrogate-Key together leave open what is meant".to_owned()))
        }
        (Some(other), None) => Err(invalid(format!("Littoral-Purge is {other:?}; write url, prefix, host or zone"))),
    }
}

fn text<'a>(parts: &'a Parts, name: &str) -> Result<Option<&'a str>, Problem> {
    let Some(value) = parts.headers.get(name) else { return Ok(None) };
    value.to_str().map(Some).map_err(|_| invalid(format!("the header {name} is not text")))
}

fn token(parts: &Parts) -> Result<Option<TokenSecret>, Problem> {
    let Some(value) = text(parts, "authorization")? else { return Ok(None) };
    let token = value.strip_prefix("Bearer ").and_then(|token| TokenSecret::parse(token).ok());
    token.map(Some).ok_or_else(|| {
        Problem::new(
            ErrorCode::Unauthorized,
            "the Authorization header must be «Bearer TOKEN», with a token of Littoral's",
        )
    })
}

fn invalid(detail: String) -> Problem {
    Problem::new(ErrorCode::InvalidRequest, detail)
}

/// Of the URL: its host, and what comes after it.
fn split(url: &str) -> (&str, &str) {
    url.split_at_checked(url.find('/').unwrap_or(url.len())).unwrap_or((url, ""))
}

fn targets(zone: &PullZone, asked: &Asked, what: What, soft: bool) -> PurgeTargets {
    let (name, url) = (zone.name.clone(), asked.url.to_string());
    let mut targets = PurgeTargets { soft, ..PurgeTargets::default() };
    match what {
        What::Url => targets.pages.push(ZonePage { zone: name, url }),
        What::Prefix => targets.prefixes.push(ZonePrefix { zone: name, prefix: url }),
        What::Host => targets.hosts.push(ZoneHost { zone: name, host: split(&url).0.to_owned() }),
        What::Zone => targets.zones.push(name),
        What::Tags(tags) => {
            targets.tags.extend(tags.into_iter().map(|tag| ZoneTag { zone: Some(name.clone()), tag }));
        }
    }
    targets
}

fn request(zone: &PullZone, asked: &Asked, what: What, soft: bool) -> PurgeRequest {
    let url = format!("http://{}{}", asked.authority, asked.target);
    let mut request = PurgeRequest { soft, wait: true, zone: Some(zone.name.clone()), ..PurgeRequest::default() };
    match what {
        What::Url => request.urls.push(url),
        What::Prefix => request.prefixes.push(url),
        What::Host => request.hosts.push(split(&asked.url).0.to_owned()),
        What::Zone => request.zones.push(zone.name.clone()),
        What::Tags(tags) => request.tags = tags,
    }
    request
}
