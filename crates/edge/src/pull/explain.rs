//! `POST /-/explain`: what would be done with a request, by the same function that serving asks.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::{ErrorCode, ExplainRequest, Explanation, Problem};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request};
use http_cache::Outcome;
use net::Peer;

use crate::node::{Found, Link, Node};
use crate::pull::Visit;
use crate::pull::asked::Asked;
use crate::pull::decide::{Decision, Trace};
use crate::pull::zone::PullZone;

/// The request that is to be explained, as it would arrive.
///
/// # Errors
/// Names what of it cannot be one.
pub(crate) fn imagined(request: &ExplainRequest, peer: Option<&Peer>) -> Result<Parts, Problem> {
    let invalid = |what: &str, value: &str| {
        Problem::new(ErrorCode::InvalidRequest, format!("{what} {value:?} cannot stand in a request"))
    };
    let mut imagined = Request::builder()
        .method(request.method.as_str())
        .uri(&request.url)
        .body(())
        .map_err(|_| invalid("the method or URL", &format!("{} {}", request.method, request.url)))?;
    let Some(authority) = imagined.uri().authority().cloned() else {
        return Err(Problem::new(
            ErrorCode::InvalidRequest,
            format!("{:?} has no host; write http://HOST/PATH", request.url),
        ));
    };
    let fields = imagined.headers_mut();
    for (name, value) in &request.headers {
        let name = HeaderName::try_from(name.as_str()).map_err(|_| invalid("the header", name))?;
        let value = HeaderValue::try_from(value.as_str()).map_err(|_| invalid("the value", value))?;
        fields.append(name, value);
    }
    if let Ok(host) = HeaderValue::try_from(authority.as_str()) {
        fields.entry(http::header::HOST).or_insert(host);
    }
    let secure = imagined.uri().scheme_str() == Some("https");
    let address = request.client_ip.or(peer.map(|peer| peer.address.ip())).unwrap_or(IpAddr::from([127, 0, 0, 1]));
    imagined.extensions_mut().insert(Peer { address: SocketAddr::new(address, 0), secure });
    Ok(imagined.into_parts().0)
}

/// Explains what would be done with a request to a pull zone.
///
/// # Errors
/// The request would be refused: why.
pub(crate) async fn explain(node: &Arc<Node>, zone: &Arc<PullZone>, parts: &Parts) -> Result<Explanation, Problem> {
    let asked = Asked::read(zone, parts, false, &node.pull.id)?;
    let mut trace = Trace::on();
    let link = *node.link.borrow();
    trace.step("zone", || {
        let mut facts = vec![
            ("host", asked.authority.clone()),
            ("policy", if zone.strict() { "safe" } else { "rfc" }.to_owned()),
            ("client", asked.client.to_string()),
        ];
        if !node.standalone() {
            facts.push(("control", format!("{link:?}").to_lowercase()));
            facts.push(("applied_event", node.applied().to_string()));
        }
        (format!("the zone '{}' answers for this host", zone.name), facts)
    });
    let visit = Visit {
        node: Arc::clone(node),
        zone: Arc::clone(zone),
        asked: Arc::new(asked),
        started: std::time::Instant::now(),
        informational: None,
        found: Found::default(),
        lesson: None,
    };
    let key = node.page_key(zone, &visit.asked);
    let from_disk = node.look_at_page(&key).await;
    let decision = visit.decide(&key, from_disk, link != Link::CatchingUp, &mut trace);
    let outcome = told(&decision, &mut trace);
    trace.step("purges", || {
        let (host, path) = key.url.split_at_checked(key.url.find('/').unwrap_or(0)).unwrap_or_default();
        let mut facts = vec![
            ("url", key.url.to_string()),
            ("prefix", format!("any beginning of {} or of {path}", key.url)),
            ("host", host.to_owned()),
            ("zone", zone.name.to_string()),
        ];
        if let Decision::Answer { variant, .. } = &decision {
            facts.extend(variant.tags.iter().map(|tag| ("tag", tag.as_str().to_owned())));
        }
        ("any of these purges what is stored here".to_owned(), facts)
    });
    Ok(Explanation { node: node.config.node.name.to_string(), steps: trace.steps(), outcome: outcome.to_owned() })
}

/// Tells the end of it, and returns its word.
fn told(decision: &Decision, trace: &mut Trace) -> &'static str {
    let (outcome, text) = match decision {
        Decision::Answer { outcome: Outcome::Updating, .. } => {
            (Outcome::Updating.word(), "served out of memory, stale, while the origin is asked".to_owned())
        }
        Decision::Answer { outcome, .. } => {
            (outcome.word(), "served out of memory; the origin is not asked".to_owned())
        }
        Decision::Fetch(fetch) => (
            if fetch.stale.is_some() { Outcome::Expired.word() } else { Outcome::Miss.word() },
            match (&fetch.stale, fetch.if_error) {
                (Some(_), true) => {
                    "the origin is asked whether what is stored still holds; if it fails, that is served"
                }
                (Some(_), false) => "the origin is asked whether what is stored still holds; if it fails, so does this",
                (None, _) => "the origin is asked, once for all who want the same now",
            }
            .to_owned(),
        ),
        Decision::Alone(fetch) => (
            if fetch.stale.is_some() { Outcome::Expired.word() } else { Outcome::Miss.word() },
            "the origin is asked for this request by itself".to_owned(),
        ),
        Decision::Pass { why, .. } => {
            (Outcome::Bypass.word(), format!("the origin is asked, and nothing is stored ({why})"))
        }
        Decision::NotCached => ("not_cached", "504: the client only wants what is stored".to_owned()),
    };
    trace.step("answer", || (text, vec![("outcome", outcome.to_owned())]));
    outcome
}
