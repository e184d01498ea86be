//! Whether a policy is in its bounds and can mean what it says: asked before it is stored, and before an edge starts with it.
//!
//! A setting that could never have an effect (a path pattern that no path can fit, a rule that changes nothing) is refused
//! like a wrong one, because somebody meant something by it.

use std::collections::HashSet;
use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use http::{HeaderName, HeaderValue};

use super::{
    CacheRule, Caching, CompressionDoc, HeaderChange, HealthCheckDoc, KeyDoc, MAX_CA_BYTES, MAX_CHECKS_IN_A_ROW,
    MAX_COMPRESSED_BYTES, MAX_CONNECTIONS, MAX_LIST, MAX_OBJECT_BYTES, MAX_RESPONSE_TAGS, MAX_TEXT_BYTES,
    MAX_TIMEOUT_MS, MAX_TTL_S, MAX_UPSTREAMS, MAX_WEIGHT, MIN_CHECK_INTERVAL_MS, PullDoc, QueryKey, RequestMatch,
    UpstreamDoc,
};
use crate::addressing::is_hostname;

/// Headers that belong to one connection (RFC 9110 § 7.6.1) or to the framing of one message.
const OF_THE_CONNECTION: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];
/// Headers of requests that the edge itself decides about: what it asks the origin for is what it stores.
const OF_THE_EDGE: [&str; 7] =
    ["range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "cdn-loop"];

impl PullDoc {
    /// Whether every setting is in its bounds.
    ///
    /// # Errors
    /// A sentence that names the setting, what is wrong with it and what would be right.
    pub fn validate(&self) -> Result<(), String> {
        upstreams(&self.upstreams)?;
        if let Some(host) = &self.origin_host {
            authority("origin_host", host)?;
        }
        if let Some(name) = &self.sni
            && !is_server(name)
            && name.parse::<Ipv6Addr>().is_err()
        {
            return Err(format!("sni: {name:?} is not a hostname; write it in lower case without port"));
        }
        if let Some(pem) = &self.ca {
            certificates(pem)?;
        }
        for (setting, ms) in [
            ("timeouts.connect_ms", self.timeouts.connect_ms),
            ("timeouts.first_byte_ms", self.timeouts.first_byte_ms),
            ("timeouts.idle_ms", self.timeouts.idle_ms),
            ("timeouts.wait_ms", self.timeouts.wait_ms),
        ] {
            within(setting, ms, 1..=MAX_TIMEOUT_MS)?;
        }
        within("max_connections", self.max_connections, 1..=MAX_CONNECTIONS)?;
        if let Some(health) = &self.health {
            check_health(health)?;
        }
        header_changes("request_headers", &self.request_headers, &["host"], &OF_THE_EDGE)?;
        header_changes("response_headers", &self.response_headers, &[], &["age", "content-range"])?;
        within("default_ttl_s", self.default_ttl_s.unwrap_or(0), 0..=MAX_TTL_S)?;
        within("stale_while_revalidate_s", self.stale_while_revalidate_s, 0..=MAX_TTL_S)?;
        within("stale_if_error_s", self.stale_if_error_s, 0..=MAX_TTL_S)?;
        each("rules", &self.rules, rule)?;
        key(&self.key)?;
        each("bypass", &self.bypass, request_match)?;
        within("max_object_bytes", self.max_object_bytes, 1..=MAX_OBJECT_BYTES)?;
        within("max_tags", self.max_tags, 0..=MAX_RESPONSE_TAGS)?;
        if let Some(doc) = &self.compression {
            compression(doc)?;
        }
        at_most("trusted_networks", self.trusted_networks.len(), MAX_LIST)?;
        at_most("purge_networks", self.purge_networks.len(), MAX_LIST)
    }
}

fn upstreams(upstreams: &[UpstreamDoc]) -> Result<(), String> {
    if upstreams.is_empty() {
        return Err("upstreams: there is none; name at least one server, like http://127.0.0.1:3000".to_owned());
    }
    at_most("upstreams", upstreams.len(), MAX_UPSTREAMS)?;
    let mut known = HashSet::new();
    for (at, upstream) in upstreams.iter().enumerate() {
        let setting = format!("upstreams[{at}]");
        upstream_url(&format!("{setting}.url"), &upstream.url)?;
        within(&format!("{setting}.weight"), upstream.weight, 1..=MAX_WEIGHT)?;
        if !known.insert(&upstream.url) {
            return Err(format!("{setting}.url: {} is named twice; give it a weight instead", upstream.url));
        }
    }
    Ok(())
}

fn upstream_url(setting: &str, url: &str) -> Result<(), String> {
    const RIGHT: &str = "write http://HOST[:PORT] or https://HOST[:PORT]";
    let text: String = url.chars().take(80).collect();
    let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else {
        return Err(format!("{setting}: {text:?} does not begin with http:// or https://; {RIGHT}"));
    };
    if rest.contains('@') {
        return Err(format!(
            "{setting}: a user or password cannot stand in it; set an Authorization in request_headers"
        ));
    }
    if rest.contains(['/', '?', '#']) {
        return Err(format!(
            "{setting}: {text:?} has a path or query; {RIGHT}, for requests keep the path they ask for"
        ));
    }
    authority(setting, rest).map_err(|why| format!("{why}; {RIGHT}"))
}

/// `HOST` or `HOST:PORT`, with IPv6 addresses in brackets.
fn authority(setting: &str, text: &str) -> Result<(), String> {
    let shown: String = text.chars().take(80).collect();
    let (host, port) = match text.strip_prefix('[') {
        Some(v6) => {
            let closed = v6.split_once(']').filter(|(v6, _)| v6.parse::<Ipv6Addr>().is_ok());
            let wrong = || format!("{setting}: {shown:?} holds no IPv6 address between its brackets");
            ("", closed.ok_or_else(wrong)?.1)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    if !text.starts_with('[') && !is_server(host) {
        return Err(format!("{setting}: {shown:?} does not name a host in lower case, like shop.example or 10.0.0.5"));
    }
    let port_is_good = match port.strip_prefix(':') {
        Some(number) => {
            number.bytes().all(|b| b.is_ascii_digit()) && number.parse::<u16>().is_ok_and(|number| number > 0)
        }
        None => port.is_empty(),
    };
    if port_is_good { Ok(()) } else { Err(format!("{setting}: {shown:?} has no port from 1 to 65535 after its host")) }
}

/// A name that a server can be found by and have a certificate for: that of a host, in lower case (underscores occur in
/// container networks), or an IPv4 address. What ends in a number is an address or nothing (RFC 1123 § 2.1).
fn is_server(text: &str) -> bool {
    let is_label =
        |label: &str| !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-');
    let is_sign = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    let ends_in_number = text.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    match ends_in_number {
        true => text.parse::<Ipv4Addr>().is_ok(),
        false => text.len() <= 253 && text.split('.').all(is_label) && text.bytes().all(is_sign),
    }
}

/// PEM (RFC 7468) with at least one certificate and nothing else. What is in a certificate is found out at the first
/// connection.
fn certificates(pem: &str) -> Result<(), String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    at_most_bytes("ca", pem, MAX_CA_BYTES)?;
    if pem.contains("PRIVATE KEY") {
        return Err("ca: it holds a private key; give only the certificates".to_owned());
    }
    let mut pieces = pem.split(BEGIN);
    let before = pieces.next().unwrap_or_default();
    let mut certificates = 0;
    for piece in pieces {
        let body = piece.split_once(END).map(|(body, _)| body);
        let base64 = |b: u8| b.is_ascii_alphanumeric() || b"+/=".contains(&b) || b.is_ascii_whitespace();
        if !body.is_some_and(|body| !body.trim().is_empty() && body.bytes().all(base64)) {
            return Err(format!(
                "ca: certificate {} does not end in {END}, or holds more than base64",
                certificates + 1
            ));
        }
        certificates += 1;
    }
    if certificates == 0 || before.contains("-----BEGIN") {
        return Err(format!("ca: it is not PEM; it has to hold {BEGIN} … {END}"));
    }
    Ok(())
}

fn check_health(health: &HealthCheckDoc) -> Result<(), String> {
    at_most_bytes("health.path", &health.path, MAX_TEXT_BYTES)?;
    if !health.path.starts_with('/') || !health.path.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(format!("health.path: {:?} is not a path as it stands in a URL, like /healthz", health.path));
    }
    within("health.interval_ms", health.interval_ms, MIN_CHECK_INTERVAL_MS..=MAX_TIMEOUT_MS)?;
    within("health.timeout_ms", health.timeout_ms, 1..=MAX_TIMEOUT_MS)?;
    within("health.healthy_after", health.healthy_after, 1..=MAX_CHECKS_IN_A_ROW)?;
    within("health.unhealthy_after", health.unhealthy_after, 1..=MAX_CHECKS_IN_A_ROW)?;
    if health.statuses.is_empty() {
        return Err("health.statuses: no status would mean that a server is well; name some, like 2xx".to_owned());
    }
    at_most("health.statuses", health.statuses.len(), MAX_LIST)
}

/// Changes that name each header once, and none that is not theirs to change.
fn header_changes(
    setting: &str,
    changes: &[HeaderChange],
    elsewhere: &[&str],
    of_the_edge: &[&str],
) -> Result<(), String> {
    let mut known = HashSet::new();
    each(setting, changes, |change| {
        let name = header_name(&change.name)?;
        if OF_THE_CONNECTION.contains(&name.as_str()) {
            return Err(format!("{} belongs to one connection or message and cannot be changed", change.name));
        }
        if elsewhere.contains(&name.as_str()) {
            return Err(format!("{} is set with origin_host", change.name));
        }
        if of_the_edge.contains(&name.as_str()) {
            return Err(format!("{} is the edge's own business and cannot be changed", change.name));
        }
        if let Some(value) = &change.value {
            at_most_bytes("value", value, MAX_TEXT_BYTES)?;
            if HeaderValue::from_str(value).is_err() || value.trim() != value || !value.is_ascii() {
                return Err(format!(
                    "{value:?} is not a header value; use printable ASCII without spaces at its ends, or leave it away to remove the header"
                ));
            }
        }
        if known.insert(name) { Ok(()) } else { Err(format!("{} is changed twice; say it once", change.name)) }
    })
}

fn rule(rule: &CacheRule) -> Result<(), String> {
    if let Some(pattern) = &rule.path {
        path_pattern("path", pattern)?;
    }
    at_most("statuses", rule.statuses.len(), MAX_LIST)?;
    each("media_types", &rule.media_types, media_type)?;
    let times = [
        ("ttl_s", rule.ttl_s),
        ("stale_while_revalidate_s", rule.stale_while_revalidate_s),
        ("stale_if_error_s", rule.stale_if_error_s),
    ];
    for (setting, seconds) in times {
        within(setting, seconds.unwrap_or(0), 0..=MAX_TTL_S)?;
    }
    let timed = times.iter().any(|(_, seconds)| seconds.is_some());
    match rule.caching {
        Caching::Default | Caching::Force if !timed => Err(
            "it changes nothing; give ttl_s, stale_while_revalidate_s or stale_if_error_s, or say caching = \"never\""
                .to_owned(),
        ),
        Caching::Never if timed => Err("what is never stored has no times; leave them or `never` away".to_owned()),
        Caching::Default | Caching::Force | Caching::Never => Ok(()),
    }
}

fn key(key: &KeyDoc) -> Result<(), String> {
    let mut known = HashSet::new();
    each("key.headers", &key.headers, |text| {
        let name = header_name(text)?;
        let word = name.as_str();
        if word == "host" {
            return Err("the host is part of every key already".to_owned());
        }
        if word == "cookie" {
            return Err("name single cookies in key.cookies".to_owned());
        }
        if OF_THE_CONNECTION.contains(&word) || OF_THE_EDGE.contains(&word) {
            return Err(format!("{text} is not part of what is asked for; it cannot be part of the key"));
        }
        if known.insert(name) { Ok(()) } else { Err(format!("{text} is named twice")) }
    })?;
    let mut known = HashSet::new();
    each("key.cookies", &key.cookies, |name| {
        // A cookie's name is a token (RFC 6265 § 4.1.1), as a header's name is; unlike it, its case counts.
        if header_name(name).is_err() {
            return Err(format!("{:?} is not the name of a cookie; write a whole name, without *", shortened(name)));
        }
        if known.insert(name.as_str()) { Ok(()) } else { Err(format!("{name} is named twice")) }
    })?;
    match &key.query {
        QueryKey::All | QueryKey::None | QueryKey::Sorted => {}
        QueryKey::Only(patterns) | QueryKey::Except(patterns) => {
            if patterns.is_empty() {
                return Err("key.query: no parameter is named; use all, none or sorted instead".to_owned());
            }
            each("key.query", patterns, |pattern| query_pattern(pattern))?;
        }
    }
    aliases(key)
}

fn aliases(key: &KeyDoc) -> Result<(), String> {
    at_most("key.host_aliases", key.host_aliases.len(), MAX_LIST)?;
    for (alias, host) in &key.host_aliases {
        for name in [alias, host] {
            if !is_hostname(name) {
                return Err(format!(
                    "key.host_aliases: {:?} is not a hostname; write it in lower case without scheme or port",
                    shortened(name)
                ));
            }
        }
        if alias == host {
            return Err(format!("key.host_aliases: {alias} is an alias of itself"));
        }
        if let Some(further) = key.host_aliases.get(host) {
            return Err(format!(
                "key.host_aliases: {alias} leads to {host}, which is an alias too; lead it to {further} directly"
            ));
        }
    }
    Ok(())
}

fn request_match(entry: &RequestMatch) -> Result<(), String> {
    let RequestMatch { path, cookie, header, query } = entry;
    if [path, cookie, header, query].iter().all(|condition| condition.is_none()) {
        return Err("it has no condition and would fit every request; give path, cookie, header or query".to_owned());
    }
    if let Some(pattern) = path {
        path_pattern("path", pattern)?;
    }
    if let Some(pattern) = cookie {
        name_pattern(pattern).map_err(|why| format!("cookie: {why}"))?;
        if pattern.contains(['=', ';']) {
            return Err(format!("cookie: {pattern:?} fits no cookie; it is about names, without = and value"));
        }
    }
    if let Some(name) = header {
        header_name(name).map_err(|why| format!("header: {why}"))?;
    }
    query.as_ref().map_or(Ok(()), |pattern| query_pattern(pattern).map_err(|why| format!("query: {why}")))
}

fn path_pattern(setting: &str, pattern: &str) -> Result<(), String> {
    name_pattern(pattern).map_err(|why| format!("{setting}: {why}"))?;
    if !pattern.starts_with(['/', '*']) || pattern.contains(['?', '#']) {
        return Err(format!(
            "{setting}: {pattern:?} fits no path; a path begins with '/' and has no query, like /img/* or *.jpg"
        ));
    }
    Ok(())
}

fn query_pattern(pattern: &str) -> Result<(), String> {
    name_pattern(pattern)?;
    if pattern.contains(['&', '=', '#']) {
        return Err(format!("{pattern:?} fits no parameter; it is about names, without = and value, like utm_*"));
    }
    Ok(())
}

/// A pattern as it is compared with texts as they stand in requests, escaped: visible ASCII.
fn name_pattern(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() || pattern.len() > MAX_TEXT_BYTES || !pattern.bytes().all(|b| b.is_ascii_graphic()) {
        let shown = shortened(pattern);
        return Err(format!(
            "{shown:?} is not a pattern; use 1 to {MAX_TEXT_BYTES} visible ASCII characters, escaped as in a URL, and * for any number of them"
        ));
    }
    Ok(())
}

/// The name of a header. `*` may stand in one (RFC 9110 § 5.6.2), but whoever writes it means a pattern.
fn header_name(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    name.filter(|_| text.len() <= MAX_TEXT_BYTES && !text.contains('*')).ok_or_else(|| {
        format!("{:?} is not the name of a header; write a whole name like X-Shop, without *", shortened(text))
    })
}

/// Checks a list of at most [`MAX_LIST`], and says of an error which entry has it.
fn compression(doc: &CompressionDoc) -> Result<(), String> {
    let mut known = Vec::new();
    each("compression.encodings", &doc.encodings, |encoding| {
        if known.contains(&encoding) {
            return Err("it is named twice; name each once, the preferred first".to_owned());
        }
        known.push(encoding);
        Ok(())
    })?;
    if doc.types.is_empty() && !doc.encodings.is_empty() {
        return Err("compression.types: there is none; to compress nothing, leave encodings empty".to_owned());
    }
    each("compression.types", &doc.types, media_type)?;
    within("compression.max_bytes", doc.max_bytes, 1..=MAX_COMPRESSED_BYTES)?;
    within("compression.min_bytes", doc.min_bytes, 1..=doc.max_bytes)
}

fn media_type(pattern: &String) -> Result<(), String> {
    name_pattern(pattern)?;
    if pattern.contains([';', ' ', ',']) || !pattern.contains(['/', '*']) {
        return Err(format!("{pattern:?} fits no media type; write it like image/* or text/html"));
    }
    Ok(())
}

fn each<'a, T>(setting: &str, list: &'a [T], mut check: impl FnMut(&'a T) -> Result<(), String>) -> Result<(), String> {
    at_most(setting, list.len(), MAX_LIST)?;
    list.iter().enumerate().try_for_each(|(at, entry)| check(entry).map_err(|why| format!("{setting}[{at}]: {why}")))
}

fn within<N: PartialOrd + Display>(setting: &str, number: N, range: RangeInclusive<N>) -> Result<(), String> {
    if range.contains(&number) {
        return Ok(());
    }
    Err(format!("{setting}: {number} is out of bounds; use {} to {}", range.start(), range.end()))
}

fn at_most(setting: &str, count: usize, most: usize) -> Result<(), String> {
    if count <= most {
        Ok(())
    } else {
        Err(format!("{setting}: there are {count} entries; at most {most} are allowed"))
    }
}

fn at_most_bytes(setting: &str, text: &str, most: usize) -> Result<(), String> {
    let bytes = text.len();
    if bytes <= most { Ok(()) } else { Err(format!("{setting}: it has {bytes} bytes; at most {most} are allowed")) }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
