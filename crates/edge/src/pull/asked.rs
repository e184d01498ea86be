//! A request to a pull zone as the cache understands it: from whom, for what, under which key; and the one form in which it
//! goes to the origin.
//!
//! What is not part of the key cannot change what is stored: query parameters outside the key are not sent, fields by which
//! clients could make an origin answer for another URL or method are dropped, and what a client says about itself
//! (`X-Forwarded-*` and the like) is only believed from the zone's trusted networks.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use api::addressing::request_host;
use api::{ErrorCode, Problem};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_cache::hop;
use ipnet::IpNet;
use net::{Body, Peer};

use crate::pull::zone::PullZone;

/// `CDN-Loop` (RFC 8586).
const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// How often a request may pass through Littoral before it is taken for a loop.
const MAX_PASSES: usize = 8;
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Longest `X-Forwarded-For` that is carried on, in bytes; a longer one is begun anew.
const MAX_FORWARDED_BYTES: usize = 2_048;

/// Fields that say something about the client's side; begun anew at each edge.
const ABOUT_CLIENT: [&str; 10] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-real-ip",
];
/// Fields by which frameworks let a request mean another method or URL.
const ABOUT_MEANING: [&str; 9] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-original-host",
    "x-original-uri",
    "x-rewrite-url",
    "x-host",
    "front-end-https",
];

/// Cookies that say nothing about who somebody is: those of measurement, those that tests for cookies set, and the language of
/// WordPress's login form, which stays behind after a logout.
const HARMLESS_COOKIES: [&str; 13] = [
    "_ga",
    "_ga_*",
    "_gid",
    "_gat*",
    "_gcl_*",
    "_fbp",
    "_fbc",
    "__utm*",
    "_pk_*",
    "_hj*",
    "_clck",
    "wordpress_test_cookie",
    "wp_lang",
];
/// Endings of paths whose responses are the same for everybody, cookies or not.
const STATIC_ENDINGS: [&str; 32] = [
    "avif", "bmp", "css", "eot", "flac", "gif", "ico", "jpeg", "jpg", "js", "jxl", "m4a", "m4s", "m4v", "map", "mjs",
    "mp3", "mp4", "mpd", "ogg", "ogv", "otf", "png", "svg", "ts", "ttf", "wasm", "wav", "webm", "webp", "woff",
    "woff2",
];

/// A request to a pull zone.
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// As the client sent them, without those that end at this hop.
    pub(crate) fields: HeaderMap,
    /// Path and query as the client wrote them.
    pub(crate) target: String,
    /// Path and query as they go to the origin.
    origin_target: String,
    /// The host that key and origin know, with the port that the client named.
    pub(crate) authority: String,
    /// `host/path?query`: see [`api::pull::KeyDoc::url_key`].
    pub(crate) url: Arc<str>,
    /// See [`crate::pull::stored::PageKey`].
    pub(crate) more: Arc<str>,
    /// Who asks.
    pub(crate) client: IpAddr,
    /// Whether the client speaks TLS, as far as that is to be believed.
    https: bool,
    /// From a trusted network: what the fields about the client said before us.
    forwarded_for: Option<String>,
    pub(crate) has_body: bool,
    /// The protocol that the client wants to change to.
    pub(crate) upgrade: Option<HeaderValue>,
    /// It carries a cookie that may mark a person, for something that is not the same for everybody.
    pub(crate) personal: bool,
}

impl Asked {
    /// Reads a request.
    ///
    /// # Errors
    /// The host is not one; it has come through here too often.
    pub(crate) fn read(zone: &PullZone, parts: &Parts, has_body: bool, id: &str) -> Result<Self, Problem> {
        let mut fields = parts.headers.clone();
        let wants_upgrade = parts.extensions.get::<net::OnUpgrade>().is_some();
        let upgrade = fields.get(header::UPGRADE).filter(|_| wants_upgrade).cloned();
        hop::strip(&mut fields);
        fields.remove(header::EXPECT);
        refuse_loop(&fields, id)?;

        let host = request_host(&parts.uri, &parts.headers);
        let name = zone.doc.key.host(host);
        let port = port_of(host);
        let authority = match port {
            Some(port) => format!("{}:{port}", bracketed(&name)),
            None => bracketed(&name),
        };
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let origin_target = match target.split_once('?') {
            Some((path, query)) => match zone.doc.key.query(Some(query)) {
                Some(query) => format!("{path}?{query}"),
                None => path.to_owned(),
            },
            None => target.clone(),
        };

        let peer = parts.extensions.get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip().to_canonical());
        let trusted = contains(&zone.doc.trusted_networks, peer);
        let (forwarded_for, client, https) = if trusted {
            let list = joined(&fields, &FORWARDED_FOR).filter(|list| list.len() <= MAX_FORWARDED_BYTES);
            let client = list.as_deref().and_then(|list| client_of(list, &zone.doc.trusted_networks)).unwrap_or(peer);
            let https =
                fields.get(FORWARDED_PROTO).is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
            let list = list.map_or_else(|| peer.to_string(), |list| format!("{list}, {peer}"));
            (Some(list), client, https)
        } else {
            (None, peer, false)
        };

        let mut more = String::new();
        if let Some(port) = port.filter(|&port| port != 80) {
            let _ = write!(more, "port={port};");
        }
        if https {
            more.push_str("https;");
        }
        for name in &zone.key_headers {
            for value in fields.get_all(name) {
                let _ = write!(more, "{name}={:?};", value.as_bytes().escape_ascii().to_string());
            }
        }
        for name in &zone.doc.key.cookies {
            for value in cookies(&fields).filter(|(found, _)| found == name).map(|(_, value)| value) {
                let _ = write!(more, "cookie {name}={value:?};");
            }
        }

        let marked = cookies(&fields).any(|(name, _)| {
            !HARMLESS_COOKIES.iter().any(|pattern| api::pull::glob(pattern, name))
                && !zone.doc.key.cookies.iter().any(|keyed| keyed == name)
        });
        let path = origin_target.split('?').next().unwrap_or_default();
        let ending = path.rsplit('/').next().and_then(|file| file.rsplit_once('.')).map(|(_, ending)| ending);
        let for_everybody = ending.is_some_and(|ending| STATIC_ENDINGS.iter().any(|e| e.eq_ignore_ascii_case(ending)));
        Ok(Self {
            url: zone.doc.key.url_key(host, &target).into(),
            more: more.into(),
            personal: marked && !for_everybody && zone.strict(),
            method: parts.method.clone(),
            fields,
            target,
            origin_target,
            authority,
            client,
            https,
            forwarded_for,
            has_body,
            upgrade,
        })
    }

    /// The path, without the query.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// What follows the `?`.
    pub(crate) fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// Whether a cached response may be the answer: a GET or HEAD that asks for nothing else.
    pub(crate) fn is_read(&self) -> bool {
        (self.method == Method::GET || self.method == Method::HEAD) && self.upgrade.is_none()
    }

    /// Which entry of the zone's `bypass` it fits.
    pub(crate) fn bypass<'a>(&self, zone: &'a PullZone) -> Option<&'a api::pull::RequestMatch> {
        let names: Vec<&str> = cookies(&self.fields).map(|(name, _)| name).collect();
        zone.doc.bypassed_by(self.path(), self.query(), &names, |name| self.fields.contains_key(name))
    }

    /// The request to the origin, with these fields of the client's; `node` and `id` name this edge.
    ///
    /// # Errors
    /// The target cannot be written as one.
    pub(crate) fn to_origin(
        &self,
        zone: &PullZone,
        mut fields: HeaderMap,
        body: Body,
        node: &str,
        id: &str,
    ) -> Result<Request<Body>, Problem> {
        for name in ABOUT_CLIENT {
            fields.remove(name);
        }
        if self.method == Method::GET || self.method == Method::HEAD {
            for name in ABOUT_MEANING {
                if !zone.key_headers.iter().any(|keyed| keyed.as_str() == name) {
                    fields.remove(name);
                }
            }
        }
        let host = zone.doc.origin_host.as_deref().unwrap_or(&self.authority);
        set(&mut fields, header::HOST, host);
        let client = self.client.to_string();
        set(&mut fields, FORWARDED_FOR, self.forwarded_for.as_deref().unwrap_or(&client));
        set(&mut fields, FORWARDED_HOST, &self.authority);
        set(&mut fields, FORWARDED_PROTO, if self.https { "https" } else { "http" });
        append(&mut fields, header::VIA, &format!("1.1 littoral-{node}"));
        append(&mut fields, CDN_LOOP, &format!("littoral; id={id}"));
        if let Some(protocol) = &self.upgrade {
            fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            fields.insert(header::UPGRADE, protocol.clone());
        }
        zone.change_request(&mut fields);
        let uri: Uri = self.origin_target.parse().map_err(|error| {
            Problem::new(
                ErrorCode::InvalidRequest,
                format!("the target {:?} cannot be sent on: {error}", self.origin_target),
            )
        })?;
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = fields;
        Ok(request)
    }
}

/// Refuses what has been here before (RFC 8586 § 2.1).
fn refuse_loop(fields: &HeaderMap, id: &str) -> Result<(), Problem> {
    let mut passes = 0;
    for line in fields.get_all(CDN_LOOP) {
        let text = String::from_utf8_lossy(line.as_bytes());
        for member in text.split(',').map(str::trim).filter(|member| member.split(';').next() == Some("littoral")) {
            passes += 1;
            if member.split(';').any(|parameter| parameter.trim() == format!("id={id}")) || passes >= MAX_PASSES {
                let detail = "the request has come back to this edge: an upstream of its zone leads here";
                return Err(Problem::new(ErrorCode::LoopDetected, detail));
            }
        }
    }
    Ok(())
}

/// The cookies of a request: names and values (RFC 6265 § 4.2.1).
fn cookies(fields: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    fields
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.trim(), value.trim()))
        .filter(|(name, _)| !name.is_empty())
}

pub(crate) fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// The last address in `X-Forwarded-For` that is not of a trusted network: the one that a trusted proxy saw.
fn client_of(list: &str, trusted: &[IpNet]) -> Option<IpAddr> {
    let mut last = None;
    for entry in list.rsplit(',') {
        // What is no address was made up, and so is everything before it.
        let Ok(address) = entry.trim().parse::<IpAddr>() else { return last };
        let address = address.to_canonical();
        last = Some(address);
        if !contains(trusted, address) {
            break;
        }
    }
    last
}

fn joined(fields: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines: Option<Vec<&str>> = fields.get_all(name).iter().map(|line| line.to_str().ok()).collect();
    lines.filter(|lines| !lines.is_empty()).map(|lines| lines.join(", "))
}

fn port_of(host: &str) -> Option<u16> {
    let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
    after.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
}

fn bracketed(name: &str) -> String {
    if name.contains(':') { format!("[{name}]") } else { name.to_owned() }
}

fn set(fields: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        fields.insert(name, value);
    }
}

fn append(fields: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        fields.append(name, value);
    }
}
