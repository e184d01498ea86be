//! Carrying a request to an edge and the answer back, streaming.
//!
//! Who cannot be reached, or breaks off before the head of its answer, is passed over for the next in the choice's
//! ranking (GET and HEAD change nothing, so repeating them is safe) and tried last for [`SUSPECT_MS`]. Once a head has
//! arrived the answer is that one's: if it breaks off, the client sees a broken transfer.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::{ErrorCode, NodeDoc, Problem};
use http::header::{CONTENT_LENGTH, FORWARDED, HOST, HeaderName, VIA};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response};
use net::{Body, NetError, Peer};
use routing::{Choice, ORIGIN};

use crate::asked::Asked;
use crate::view::View;
use crate::{Shared, set_route};

/// Nodes that one request is tried on.
const MAX_ATTEMPTS: usize = 3;
/// How long a node that could not be reached is tried last, in milliseconds.
const SUSPECT_MS: u64 = 2_000;
/// Suspects remembered: more than a site has edges.
const MAX_SUSPECTS: usize = 1_000;
/// How this hop calls itself in `Via`.
const VIA_ROUTER: HeaderValue = HeaderValue::from_static(api::headers::VIA_ROUTER);
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

impl Shared {
    /// Carries a request to the first in the choice's ranking that answers.
    ///
    /// # Errors
    /// Nobody could be reached, or one took too long.
    pub(crate) async fn forward(
        &self,
        view: &View,
        asked: &Asked,
        choice: &Choice<'_>,
        head: &Parts,
    ) -> Result<Response<Body>, Problem> {
        let headers = forwarded_headers(asked, head);
        let mut failed: Vec<String> = Vec::new();
        for node in self.suspects.last(choice.ranking()).into_iter().take(MAX_ATTEMPTS) {
            let name = node.map_or(ORIGIN, |node| node.name.as_str());
            let url = upstream_url(view, asked, node);
            let mut request =
                Request::builder().method(head.method.clone()).uri(url).body(Body::empty()).map_err(|error| {
                    Problem::new(ErrorCode::Internal, format!("the URL of {name} is not usable: {error}"))
                })?;
            *request.headers_mut() = headers.clone();
            match self.edges.send(request).await {
                Ok(mut response) => {
                    http_cache::hop::strip(response.headers_mut());
                    response.headers_mut().append(VIA, VIA_ROUTER);
                    let reason = match failed.as_slice() {
                        [] if name == choice.name() => choice.why.sentence().to_owned(),
                        [] => format!("{} could not be reached a moment ago", choice.name()),
                        failed => format!("{} could not be reached", failed.join(" and ")),
                    };
                    set_route(&mut response, name, &reason);
                    return Ok(response);
                }
                Err(error @ NetError::Timeout { .. }) => {
                    self.suspects.add(name);
                    // The client has waited long enough.
                    return Err(Problem::new(
                        ErrorCode::UpstreamTimeout,
                        format!("{name} did not answer in time: {error}"),
                    ));
                }
                Err(error) => {
                    tracing::warn!(node = name, %error, "passing over a node");
                    self.metrics.passed_over.inc();
                    self.suspects.add(name);
                    failed.push(name.to_owned());
                }
            }
        }
        let detail = format!("{} could not be reached; try again later", failed.join(", "));
        Err(Problem::new(ErrorCode::UpstreamUnreachable, detail))
    }
}

/// Where a node serves what was asked for, the `Host` header being the client's.
fn upstream_url(view: &View, asked: &Asked, node: Option<&NodeDoc>) -> String {
    let Some(node) = node else { return asked.url_at_origin(&view.snapshot.origin.url) };
    let edge_url = node.url.trim_end_matches('/');
    if asked.host.is_empty() {
        // Without a host the path alone may mean another zone there.
        return format!("{edge_url}{}{}", asked.target.own_path(), asked.query);
    }
    format!("{edge_url}{}{}", asked.path, asked.query)
}

/// The headers of a request as they go on: without what ends here, and with what the client was.
///
/// A client's own `X-Forwarded-*` and `Forwarded` are not believed and not passed on, nor are headers that only our own
/// parts exchange.
fn forwarded_headers(asked: &Asked, head: &Parts) -> HeaderMap {
    let mut headers = head.headers.clone();
    http_cache::hop::strip(&mut headers);
    for name in [CONTENT_LENGTH, FORWARDED, FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST] {
        headers.remove(name);
    }
    for name in [api::headers::NODE_TOKEN, api::headers::CLIENT_AUTHORIZATION] {
        headers.remove(name);
    }
    headers.remove(HOST);
    if let Ok(host) = HeaderValue::try_from(&asked.host)
        && !asked.host.is_empty()
    {
        headers.insert(HOST, host.clone());
        headers.insert(FORWARDED_HOST, host);
    }
    let peer = head.extensions.get::<Peer>();
    if let Some(peer) = peer
        && let Ok(ip) = HeaderValue::try_from(peer.address.ip().to_canonical().to_string())
    {
        headers.insert(FORWARDED_FOR, ip);
    }
    let proto = if peer.is_some_and(|peer| peer.secure) { "https" } else { "http" };
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(proto));
    headers.append(VIA, VIA_ROUTER);
    headers
}

/// Nodes that could not be reached a moment ago. The mutex is held for one look or one note.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    since: Mutex<HashMap<String, Instant>>,
}

impl Suspects {
    fn add(&self, name: &str) {
        let mut since = self.lock();
        let now = Instant::now();
        since.retain(|_, at| recent(*at, now));
        if since.len() < MAX_SUSPECTS {
            since.insert(name.to_owned(), now);
        }
    }

    /// The same nodes with the suspects last, otherwise in their order.
    fn last<'a>(&self, mut nodes: Vec<Option<&'a NodeDoc>>) -> Vec<Option<&'a NodeDoc>> {
        let (since, now) = (self.lock(), Instant::now());
        let suspect = |node: &Option<&NodeDoc>| {
            let name = node.map_or(ORIGIN, |node| node.name.as_str());
            since.get(name).is_some_and(|at| recent(*at, now))
        };
        nodes.sort_by_key(suspect); // a stable sort
        nodes
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn recent(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < Duration::from_millis(SUSPECT_MS)
}
