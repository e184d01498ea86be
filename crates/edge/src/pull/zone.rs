//! A pull zone as requests need it: its policy, ready to be applied, and the way to its origin.

use std::collections::HashMap;
use std::sync::Arc;

use api::names::ZoneName;
use api::pull::{CachePolicy, Caching, HeaderChange, OriginProtocol, PullDoc, RetryDoc};
use api::{ZoneDoc, pull};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_cache::response::Rules;
use net::{HealthCheck, Retry, Upstream, UpstreamConfig, UpstreamProtocol, UpstreamServer};
use tokio::sync::Semaphore;

use crate::pull::packed::Compression;
use crate::pull::ready;

/// A pull zone.
pub(crate) struct PullZone {
    pub(crate) name: ZoneName,
    /// Of everything in its policy that makes responses what they are: under another one nothing is found again.
    pub(crate) fingerprint: u64,
    pub(crate) doc: PullDoc,
    /// The way to its origin, or why there is none.
    pub(crate) upstream: Result<Upstream, String>,
    /// Places for connections that change their protocol.
    pub(crate) tunnels: Arc<Semaphore>,
    pub(crate) key_headers: Vec<HeaderName>,
    /// Nothing: it does not compress.
    pub(crate) compression: Option<Compression>,
    /// See [`ready::suits`].
    pub(crate) plain: bool,
    request_changes: Vec<(HeaderName, Option<HeaderValue>)>,
    response_changes: Vec<(HeaderName, Option<HeaderValue>)>,
}

/// The pull zones of a configuration, by name.
#[derive(Default)]
pub(crate) struct PullZones(HashMap<ZoneName, Arc<PullZone>>);

impl PullZones {
    /// Those among `docs`. A zone that has not changed since `before` is taken over with its connections; the names of
    /// those whose stored responses must not be used any more, because something that made them has changed, come second.
    pub(crate) fn new(docs: &[ZoneDoc], before: Option<&PullZones>) -> (Self, Vec<ZoneName>) {
        let (mut zones, mut outdated) = (HashMap::new(), Vec::new());
        for zone in docs {
            let Some(doc) = &zone.pull else { continue };
            let old = before.and_then(|before| before.0.get(&zone.name));
            let made = match old {
                Some(old) if old.doc == **doc => Arc::clone(old),
                _ => Arc::new(PullZone::new(zone.name.clone(), (**doc).clone())),
            };
            if old.is_some_and(|old| old.fingerprint != made.fingerprint) {
                outdated.push(zone.name.clone());
            }
            zones.insert(zone.name.clone(), made);
        }
        // A zone that is gone may come back under its name as another one.
        let gone = before.iter().flat_map(|before| before.0.keys()).filter(|name| !zones.contains_key(*name));
        outdated.extend(gone.cloned());
        (Self(zones), outdated)
    }

    pub(crate) fn get(&self, name: &ZoneName) -> Option<&Arc<PullZone>> {
        self.0.get(name)
    }
}

/// See [`PullZone::fingerprint`]. The same in every process, and in every version of this program that means the same by it.
fn fingerprint(doc: &PullDoc) -> u64 {
    let what = (
        (doc.policy, &doc.origin_host, doc.default_ttl_s, &doc.rules),
        (&doc.key, &doc.bypass, doc.strip_set_cookie, &doc.request_headers),
    );
    // What cannot be written has no bytes, and so one fingerprint, which is as good as any.
    let text = serde_json::to_vec(&what).unwrap_or_default();
    u64::from_le_bytes(blake3::hash(&text).as_bytes().first_chunk().copied().unwrap_or_default())
}

impl PullZone {
    pub(crate) fn new(name: ZoneName, doc: PullDoc) -> Self {
        let upstream = upstream(&doc).inspect_err(|error| tracing::error!(zone = %name, error, "no way to the origin"));
        // Control has checked names and values; what slipped through is left out.
        let changes = |list: &[HeaderChange]| {
            list.iter()
                .filter_map(|change| {
                    let value = match &change.value {
                        Some(value) => Some(HeaderValue::try_from(value.as_str()).ok()?),
                        None => None,
                    };
                    Some((change.name.parse::<HeaderName>().ok()?, value))
                })
                .collect()
        };
        Self {
            fingerprint: fingerprint(&doc),
            plain: ready::suits(&doc),
            compression: Compression::of(&doc),
            upstream,
            tunnels: Arc::new(Semaphore::new(usize::try_from(doc.max_connections / 2).unwrap_or(1).max(1))),
            key_headers: doc.key.headers.iter().filter_map(|name| name.parse().ok()).collect(),
            request_changes: changes(&doc.request_headers),
            response_changes: changes(&doc.response_headers),
            name,
            doc,
        }
    }

    /// Whether the zone's policy is stricter than the RFCs.
    pub(crate) fn strict(&self) -> bool {
        self.doc.policy == CachePolicy::Safe
    }

    /// What the zone's policy says about a response.
    pub(crate) fn rules(&self, path: &str, status: StatusCode, media_type: &str, personal: bool) -> Rules {
        let status = status.as_u16();
        let rule = self.doc.rule(path, status, media_type);
        let caching = rule.map_or(Caching::Default, |rule| rule.caching);
        let default_ttl_s = self.doc.default_ttl_s.filter(|_| pull::HEURISTICALLY_CACHEABLE.contains(&status));
        // An error is only kept where a rule was made for it.
        let default_ttl_s = default_ttl_s.filter(|_| !self.strict() || status < 400);
        Rules {
            strict: self.strict(),
            force: caching == Caching::Force,
            never: caching == Caching::Never,
            by_rule: rule.is_some_and(|rule| !rule.statuses.is_empty()),
            ttl_s: rule.and_then(|rule| rule.ttl_s).or(default_ttl_s).map(u64::from),
            stale_while_revalidate_s: rule
                .and_then(|rule| rule.stale_while_revalidate_s)
                .unwrap_or(self.doc.stale_while_revalidate_s)
                .into(),
            stale_if_error_s: rule.and_then(|rule| rule.stale_if_error_s).unwrap_or(self.doc.stale_if_error_s).into(),
            strip_set_cookie: self.doc.strip_set_cookie || caching == Caching::Force,
            personal,
        }
    }

    /// Makes the zone's changes to the fields of a request to the origin.
    pub(crate) fn change_request(&self, fields: &mut HeaderMap) {
        change(&self.request_changes, fields);
    }

    /// Makes the zone's changes to the fields of a response to a client.
    pub(crate) fn change_response(&self, fields: &mut HeaderMap) {
        change(&self.response_changes, fields);
    }
}

fn change(changes: &[(HeaderName, Option<HeaderValue>)], fields: &mut HeaderMap) {
    for (name, value) in changes {
        match value {
            Some(value) => {
                fields.insert(name.clone(), value.clone());
            }
            None => {
                fields.remove(name);
            }
        }
    }
}

fn upstream(doc: &PullDoc) -> Result<Upstream, String> {
    let servers = doc
        .upstreams
        .iter()
        .map(|server| {
            let url = server.url.parse().map_err(|error| format!("the upstream {}: {error}", server.url))?;
            Ok(UpstreamServer { url, weight: server.weight })
        })
        .collect::<Result<Vec<_>, String>>()?;
    let config = UpstreamConfig {
        servers,
        sni: doc.sni.clone(),
        verify: doc.verify,
        ca_pem: doc.ca.clone(),
        protocol: match doc.protocol {
            OriginProtocol::Auto => UpstreamProtocol::Auto,
            OriginProtocol::Http1 => UpstreamProtocol::Http1,
            OriginProtocol::Http2 => UpstreamProtocol::Http2,
        },
        connect_ms: doc.timeouts.connect_ms.into(),
        first_byte_ms: doc.timeouts.first_byte_ms.into(),
        idle_ms: doc.timeouts.idle_ms.into(),
        max_connections: doc.max_connections,
        retry: match (doc.retry, doc.policy) {
            // What reached the origin is not sent again by a cache that does what the RFCs say and nothing else.
            (RetryDoc::Unsent, _) | (_, CachePolicy::Rfc) => Retry::Unsent,
            (RetryDoc::Safe, CachePolicy::Safe) => Retry::Safe,
        },
        health: doc.health.as_ref().map(|health| HealthCheck {
            path: health.path.clone(),
            host: doc.origin_host.clone(),
            interval_ms: health.interval_ms.into(),
            timeout_ms: health.timeout_ms.into(),
            statuses: health.statuses.iter().map(|range| (range.first, range.last)).collect(),
            healthy_after: health.healthy_after,
            unhealthy_after: health.unhealthy_after,
        }),
    };
    Upstream::new(config).map_err(|error| error.to_string())
}
