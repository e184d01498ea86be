//! A zone for people: every setting on a line; of a policy, those that say something.

use api::pull::{CacheRule, Caching, CompressionDoc, HeaderChange, OriginProtocol, QueryKey, RequestMatch, RetryDoc};
use api::{Access, CachePolicy, PullDoc, ZoneDoc};

use crate::cli::error::CliError;
use crate::cli::output::Out;
use crate::cli::{https, human};

/// Prints a zone.
pub(super) fn show(out: &Out, zone: &ZoneDoc) -> Result<(), CliError> {
    if out.is_json() {
        return out.json(zone);
    }
    let lines = lines(zone);
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let lines: Vec<_> = lines.iter().map(|(name, value)| format!("{name:<width$}{value}")).collect();
    out.text(&human::plain_lines(&lines))
}

/// The word for who may read a zone.
pub(super) fn access(access: Access) -> &'static str {
    match access {
        Access::Public => "public",
        Access::Private => "private",
    }
}

/// The servers of a policy in a few words.
pub(super) fn servers(pull: &PullDoc) -> String {
    let first = pull.upstreams.first().map_or("-", |upstream| upstream.url.as_str());
    match pull.upstreams.len() {
        0 | 1 => first.to_owned(),
        count => format!("{first} +{}", count - 1),
    }
}

type Lines = Vec<(&'static str, String)>;

fn lines(zone: &ZoneDoc) -> Lines {
    let or_none = |setting: &Option<String>| setting.clone().unwrap_or_else(|| "-".to_owned());
    let mut lines = vec![
        ("zone", zone.name.to_string()),
        ("hosts", zone.hosts.join(" ")),
        ("catch all", zone.catch_all.to_string()),
        ("access", access(zone.access).to_owned()),
    ];
    match &zone.pull {
        Some(pull) => {
            origin(pull, &mut lines);
            caching(pull, &mut lines);
        }
        None => lines.extend([
            ("ttl", format!("{} s", zone.ttl_s)),
            ("stale if error", format!("{} s", zone.stale_if_error_s)),
            ("index", or_none(&zone.index)),
        ]),
    }
    lines.extend(zone.eviction.map(|eviction| ("eviction", eviction.as_str().to_owned())));
    lines.extend(zone.objective.map(|objective| ("objective", objective.as_str().to_owned())));
    lines.extend(zone.tls.iter().flat_map(https::shown));
    lines.extend([("place header", or_none(&zone.place_header)), ("base url", or_none(&zone.base_url))]);
    lines
}

/// The way to the servers.
fn origin(pull: &PullDoc, lines: &mut Lines) {
    for upstream in &pull.upstreams {
        lines.push(("upstream", format!("{} weight {}", upstream.url, upstream.weight)));
    }
    let texts = [("origin host", &pull.origin_host), ("sni", &pull.sni)];
    lines.extend(texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))));
    let certificates = match (pull.verify, &pull.ca) {
        (false, _) => "any is taken",
        (true, None) => "those of public authorities",
        (true, Some(_)) => "those of public authorities and of the zone's own",
    };
    let protocol = match pull.protocol {
        OriginProtocol::Auto => "auto",
        OriginProtocol::Http1 => "http1",
        OriginProtocol::Http2 => "http2",
    };
    let retry = match pull.retry {
        RetryDoc::Unsent => "unsent requests",
        RetryDoc::Safe => "unsent and safe requests",
    };
    let times = &pull.timeouts;
    lines.extend([
        ("certificates", certificates.to_owned()),
        ("protocol", protocol.to_owned()),
        (
            "timeouts",
            format!(
                "connect {} ms, first byte {} ms, idle {} ms, wait {} ms",
                times.connect_ms, times.first_byte_ms, times.idle_ms, times.wait_ms
            ),
        ),
        ("max connections", pull.max_connections.to_string()),
        ("retry", retry.to_owned()),
    ]);
    if let Some(health) = &pull.health {
        let statuses: Vec<String> = health.statuses.iter().map(ToString::to_string).collect();
        let said = format!(
            "{} every {} ms within {} ms, well: {} ({} in a row), ill: {} in a row",
            health.path,
            health.interval_ms,
            health.timeout_ms,
            statuses.join(" "),
            health.healthy_after,
            health.unhealthy_after
        );
        lines.push(("health", said));
    }
    lines.extend(pull.request_headers.iter().map(|change| ("request header", header(change))));
    lines.extend(pull.response_headers.iter().map(|change| ("response header", header(change))));
}

/// What is cached, under which key, and for how long.
fn caching(pull: &PullDoc, lines: &mut Lines) {
    let policy = match pull.policy {
        CachePolicy::Safe => "safe",
        CachePolicy::Rfc => "rfc",
    };
    lines.push(("policy", policy.to_owned()));
    lines.push(("default ttl", pull.default_ttl_s.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s"))));
    lines.extend(pull.rules.iter().map(|entry| ("rule", rule(entry))));
    lines.push(("stale while revalidate", format!("{} s", pull.stale_while_revalidate_s)));
    lines.push(("stale if error", format!("{} s", pull.stale_if_error_s)));
    let query = match &pull.key.query {
        QueryKey::All => "all".to_owned(),
        QueryKey::None => "none".to_owned(),
        QueryKey::Sorted => "sorted".to_owned(),
        QueryKey::Only(patterns) => format!("only {}", patterns.join(" ")),
        QueryKey::Except(patterns) => format!("except {}", patterns.join(" ")),
    };
    lines.push(("query", query));
    if !pull.key.headers.is_empty() {
        lines.push(("key headers", pull.key.headers.join(" ")));
    }
    if !pull.key.cookies.is_empty() {
        lines.push(("key cookies", pull.key.cookies.join(" ")));
    }
    lines.extend(pull.key.host_aliases.iter().map(|(alias, host)| ("alias", format!("{alias} is {host}"))));
    lines.extend(pull.bypass.iter().map(|entry| ("bypass", request_match(entry))));
    lines.push(("strip set-cookie", pull.strip_set_cookie.to_string()));
    lines.push(("max object", human::size(pull.max_object_bytes)));
    lines.push(("max tags", pull.max_tags.to_string()));
    lines.push(("compression", compression(&pull.compression())));
    for (name, networks) in [("trusted", &pull.trusted_networks), ("purge from", &pull.purge_networks)] {
        if !networks.is_empty() {
            lines.push((name, networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")));
        }
    }
}

fn compression(doc: &CompressionDoc) -> String {
    if doc.encodings.is_empty() {
        return "off".to_owned();
    }
    let encodings: Vec<&str> = doc.encodings.iter().map(|encoding| encoding.word()).collect();
    let (min, max) = (human::size(doc.min_bytes.into()), human::size(doc.max_bytes.into()));
    format!("{} of {}, {min} to {max}", encodings.join(" "), doc.types.join(" "))
}

fn header(change: &HeaderChange) -> String {
    match &change.value {
        Some(value) => format!("{}: {value}", change.name),
        None => format!("{} is removed", change.name),
    }
}

/// As `--ttl` takes it, but with times in seconds.
fn rule(rule: &CacheRule) -> String {
    let mut members = Vec::new();
    members.extend(rule.path.iter().map(|pattern| format!("path={pattern}")));
    members.extend(rule.statuses.iter().map(|range| format!("status={range}")));
    members.extend(rule.media_types.iter().map(|pattern| format!("type={pattern}")));
    for (name, time) in
        [("ttl", rule.ttl_s), ("revalidate", rule.stale_while_revalidate_s), ("grace", rule.stale_if_error_s)]
    {
        members.extend(time.map(|seconds| format!("{name}={seconds}s")));
    }
    match rule.caching {
        Caching::Default => {}
        Caching::Force => members.push("caching=force".to_owned()),
        Caching::Never => members.push("caching=never".to_owned()),
    }
    members.join(",")
}

/// As `--bypass` takes it.
fn request_match(entry: &RequestMatch) -> String {
    let conditions =
        [("path", &entry.path), ("cookie", &entry.cookie), ("header", &entry.header), ("query", &entry.query)];
    let said = conditions.into_iter().filter_map(|(name, text)| Some(format!("{name}={}", text.as_ref()?)));
    said.collect::<Vec<_>>().join(",")
}
