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
use http_cache::{coding, hop};
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

/// Fields that say something about the client's side, beside all that begin with `x-forwarded`; begun anew at each edge.
const ABOUT_CLIENT: [&str; 18] = [
    "forwarded",
    "x-real-ip",
    "true-client-ip",
    "x-client-ip",
    "client-ip",
    "x-cluster-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "x-original-forwarded-for",
    "cloudfront-forwarded-proto",
    "x-scheme",
    "x-url-scheme",
    "x-arr-ssl",
    "front-end-https",
    "base-url",
    "proxy",
    "http2-settings",
    "x-envoy-external-address",
];
/// Fields by which frameworks let a request mean another URL: what it means here is what it means there.
const ABOUT_URL: [&str; 9] = [
    "x-original-url",
    "x-original-host",
    "x-original-uri",
    "x-rewrite-url",
    "x-host",
    "x-http-host-override",
    "x-http-path-override",
    "x-http-destinationurl",
    "x-envoy-original-path",
];
/// Fields by which frameworks let a POST mean another method. A read means nothing but a read.
const ABOUT_METHOD: [&str; 4] = ["x-http-method-override", "x-http-method", "x-method-override", "x-original-method"];

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
/// Endings of paths whose responses are taken to be the same for everybody, cookies or not, if they are [what the ending
/// says](Asked::may_be_personal).
const STATIC_ENDINGS: [&str; 32] = [
    "avif", "bmp", "css", "eot", "flac", "gif", "ico", "jpeg", "jpg", "js", "jxl", "m4a", "m4s", "m4v", "map", "mjs",
    "mp3", "mp4", "mpd", "ogg", "ogv", "otf", "png", "svg", "ts", "ttf", "wasm", "wav", "webm", "webp", "woff",
    "woff2",
];

/// The media types that such paths have.
const STATIC_TYPES: [&str; 10] = [
    "image/*",
    "font/*",
    "audio/*",
    "video/*",
    "text/css",
    "*/javascript",
    "application/x-javascript",
    "application/wasm",
    "application/*font*",
    "application/dash+xml",
];

/// A request to a pull zone.
#[derive(Clone)]
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
    /// It carries a cookie that may mark a person.
    marked: bool,
    /// The same, for something that is not the same for everybody, as far as its path tells.
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
        // To HTTP/2 nobody changes this way any more (RFC 9113 § 3.1), but to get past whoever stands in between.
        let goes_on = |protocol: &&HeaderValue| !protocol.as_bytes().to_ascii_lowercase().starts_with(b"h2c");
        let upgrade = fields.get(header::UPGRADE).filter(|_| wants_upgrade).filter(goes_on).cloned();
        hop::strip(&mut fields);
        fields.remove(header::EXPECT);
        refuse_loop(&fields, id)?;

        let peer = parts.extensions.get::<Peer>();
        let secure = peer.is_some_and(|peer| peer.secure);
        let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.address.ip().to_canonical());
        let trusted = contains(&zone.doc.trusted_networks, peer);
        let (forwarded_for, client, https) = if trusted {
            let list = joined(&fields, &FORWARDED_FOR).filter(|list| list.len() <= MAX_FORWARDED_BYTES);
            let client = list.as_deref().and_then(|list| client_of(list, &zone.doc.trusted_networks)).unwrap_or(peer);
            let https =
                fields.get(FORWARDED_PROTO).map_or(secure, |proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
            let list = list.map_or_else(|| peer.to_string(), |list| format!("{list}, {peer}"));
            (Some(list), client, https)
        } else {
            (None, peer, secure)
        };

        let host = request_host(&parts.uri, &parts.headers);
        let name = zone.doc.key.host(host);
        let port = port_of(host).filter(|&port| port != if https { 443 } else { 80 });
        let authority = match port {
            Some(port) => format!("{}:{port}", bracketed(&name)),
            None => bracketed(&name),
        };
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let target = if target.starts_with('/') || target == "*" { target.to_owned() } else { format!("/{target}") };
        let origin_target = match target.split_once('?') {
            Some((path, query)) => match zone.doc.key.query(Some(query)) {
                Some(query) => format!("{path}?{query}"),
                None => path.to_owned(),
            },
            None => target.clone(),
        };

        let cookies = cookies(&fields);
        let mut more = String::new();
        if let Some(port) = port {
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
            for (_, value) in cookies.iter().filter(|(found, _)| found == name) {
                let _ = write!(more, "cookie {name}={value:?};");
            }
        }

        // Some programs take a comma for the end of a cookie: who knows what comes after it.
        let marked = cookies.iter().any(|(name, value)| {
            value.contains(',')
                || !HARMLESS_COOKIES.iter().any(|pattern| api::pull::glob(pattern, name))
                    && !zone.doc.key.cookies.iter().any(|keyed| keyed == name)
        });
        let path = origin_target.split('?').next().unwrap_or_default();
        let ending = path.rsplit('/').next().and_then(|file| file.rsplit_once('.')).map(|(_, ending)| ending);
        let for_everybody = ending.is_some_and(|ending| STATIC_ENDINGS.iter().any(|e| e.eq_ignore_ascii_case(ending)));
        Ok(Self {
            url: zone.doc.key.url_key(host, &target).into(),
            more: more.into(),
            personal: marked && !for_everybody && zone.strict(),
            marked: marked && zone.strict(),
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

    /// The same request as a GET.
    pub(crate) fn as_get(&self) -> Self {
        Self { method: Method::GET, ..self.clone() }
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

    /// Whether a response of this media type may be one person's. A page under a path like `/account/x.css` is one that
    /// somebody was led to, to have it stored for others (cache deception).
    pub(crate) fn may_be_personal(&self, media_type: &str) -> bool {
        let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let is_static = STATIC_TYPES.iter().any(|pattern| api::pull::glob(pattern, &essence));
        self.personal || (self.marked && !is_static)
    }

    /// Which entry of the zone's `bypass` it fits.
    pub(crate) fn bypass<'a>(&self, zone: &'a PullZone) -> Option<&'a api::pull::RequestMatch> {
        let cookies = cookies(&self.fields);
        let names: Vec<&str> = cookies.iter().map(|(name, _)| name.as_str()).collect();
        let fits = |path: &str| zone.doc.bypassed_by(path, self.query(), &names, |name| self.fields.contains_key(name));
        fits(self.path()).or_else(|| fits(&self.plain_path()))
    }

    /// The path as most origins understand it: decoded, without `.`, `..` and empty segments. What is forbidden for this path
    /// is forbidden however it is spelt.
    pub(crate) fn plain_path(&self) -> String {
        let decoded = percent_encoding::percent_decode_str(self.path()).decode_utf8_lossy();
        let mut segments: Vec<&str> = Vec::new();
        for segment in decoded.split(['/', '\\']) {
            match segment {
                "" | "." => {}
                ".." => drop(segments.pop()),
                // Parameters of a segment are no part of its name (RFC 3986 § 3.3).
                segment => segments.push(segment.split(';').next().unwrap_or_default()),
            }
        }
        let end = if decoded.ends_with('/') && !segments.is_empty() { "/" } else { "" };
        format!("/{}{end}", segments.join("/"))
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
        let reads = self.method == Method::GET || self.method == Method::HEAD;
        let dropped: Vec<HeaderName> = fields
            .keys()
            .filter(|name| {
                // To many programs `X_Forwarded_Host` is the same.
                let plain = name.as_str().replace('_', "-");
                let client = plain.starts_with("x-forwarded") || ABOUT_CLIENT.contains(&plain.as_str());
                let meaning = ABOUT_URL.contains(&plain.as_str()) || (reads && ABOUT_METHOD.contains(&plain.as_str()));
                client || (meaning && !zone.key_headers.contains(name))
            })
            .cloned()
            .collect();
        for name in dropped {
            fields.remove(name);
        }
        match zone.doc.origin_host.as_deref().unwrap_or(&self.authority) {
            // A client of HTTP/1.0 may name none; the server's own is sent then.
            "" => drop(fields.remove(header::HOST)),
            host => set(&mut fields, header::HOST, host),
        }
        let client = self.client.to_string();
        set(&mut fields, FORWARDED_FOR, self.forwarded_for.as_deref().unwrap_or(&client));
        set(&mut fields, FORWARDED_HOST, &self.authority);
        set(&mut fields, FORWARDED_PROTO, if self.https { "https" } else { "http" });
        if zone.compression.is_some()
            && let Some(tags) = fields.get(header::IF_MATCH).and_then(coding::own_tags)
        {
            fields.insert(header::IF_MATCH, tags);
        }
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

/// The cookies of a request: names and values (RFC 6265 § 4.2.1), whatever bytes stand in them.
fn cookies(fields: &HeaderMap) -> Vec<(String, String)> {
    let mut cookies = Vec::new();
    for line in fields.get_all(header::COOKIE) {
        for pair in line.as_bytes().split(|&b| b == b';') {
            let (name, value) = match pair.iter().position(|&b| b == b'=').and_then(|at| pair.split_at_checked(at)) {
                Some((name, value)) => (name, value.get(1..).unwrap_or_default()),
                None => (pair, &[][..]),
            };
            let name = String::from_utf8_lossy(name.trim_ascii()).into_owned();
            if !name.is_empty() {
                // Escaped, so that two values that are not UTF-8 stay two values.
                cookies.push((name, value.trim_ascii().escape_ascii().to_string()));
            }
        }
    }
    cookies
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

#[cfg(test)]
mod tests {
    use super::*;
    use api::pull::{CachePolicy, KeyDoc, PullDoc, QueryKey, UpstreamDoc};

    const ID: &str = "1234";

    fn zone(change: impl FnOnce(&mut PullDoc)) -> PullZone {
        let mut doc = PullDoc::new(vec![UpstreamDoc { url: "http://127.0.0.1:1".to_owned(), weight: 1 }]);
        doc.trusted_networks = vec!["10.0.0.0/8".parse().expect("network")];
        change(&mut doc);
        PullZone::new("shop".parse().expect("name"), doc)
    }

    fn parts(target: &str, peer: &str, fields: &[(&'static str, &str)]) -> Parts {
        let mut request = Request::get(target).body(()).expect("request");
        for (name, value) in fields {
            request.headers_mut().append(*name, HeaderValue::from_bytes(value.as_bytes()).expect("value"));
        }
        let address = std::net::SocketAddr::new(peer.parse().expect("address"), 1);
        request.extensions_mut().insert(Peer { address, secure: false });
        request.into_parts().0
    }

    fn read(zone: &PullZone, target: &str, peer: &str, fields: &[(&'static str, &str)]) -> Asked {
        Asked::read(zone, &parts(target, peer, fields), false, ID).unwrap_or_else(|problem| panic!("{problem:?}"))
    }

    fn sent(zone: &PullZone, asked: &Asked) -> Request<Body> {
        let fields = asked.fields.clone();
        asked.to_origin(zone, fields, Body::empty(), "lisbon", ID).unwrap_or_else(|problem| panic!("{problem:?}"))
    }

    #[test]
    fn keys_tell_apart_what_the_origin_is_told() {
        let zone = zone(|doc| {
            doc.key = KeyDoc {
                query: QueryKey::Except(vec!["utm_*".to_owned()]),
                headers: vec!["X-Country".to_owned()],
                cookies: vec!["currency".to_owned()],
                host_aliases: [("www.a.example".to_owned(), "a.example".to_owned())].into(),
            };
        });
        for (target, fields, url, more, line, host) in [
            ("/x", &[("host", "a.example")][..], "a.example/x", "", "/x", "a.example"),
            ("/x", &[("host", "WWW.a.example.")], "a.example/x", "", "/x", "a.example"),
            ("/x", &[("host", "a.example:80")], "a.example/x", "", "/x", "a.example"),
            ("/x", &[("host", "a.example:8080")], "a.example/x", "port=8080;", "/x", "a.example:8080"),
            ("/x?utm_a=1&b=2", &[("host", "a.example")], "a.example/x?b=2", "", "/x?b=2", "a.example"),
            ("/x?utm_a=1", &[("host", "a.example")], "a.example/x", "", "/x", "a.example"),
            ("/%2e%2E//x", &[("host", "a.example")], "a.example/%2e%2E//x", "", "/%2e%2E//x", "a.example"),
            ("http://b.example/x", &[("host", "b.example")], "b.example/x", "", "/x", "b.example"),
            (
                "/",
                &[("host", "a.example"), ("x-country", "de"), ("cookie", "a=1; currency=eur")],
                "a.example/",
                "x-country=\"de\";cookie currency=\"eur\";",
                "/",
                "a.example",
            ),
            (
                "/",
                &[("host", "a.example"), ("x-country", "de\";cookie currency=\"eur")],
                "a.example/",
                "x-country=\"de\\\\\\\";cookie currency=\\\\\\\"eur\";",
                "/",
                "a.example",
            ),
        ] {
            let asked = read(&zone, target, "192.0.2.1", fields);
            assert_eq!((&*asked.url, &*asked.more), (url, more), "{target} {fields:?}");
            let request = sent(&zone, &asked);
            assert_eq!(request.uri().to_string(), line, "{target}");
            assert_eq!(request.headers()["host"], host, "{target} {fields:?}");
        }
    }

    #[test]
    fn what_clients_say_about_themselves_is_believed_from_trusted_networks_only() {
        let zone = zone(|_| {});
        let fields = [
            ("host", "a"),
            ("x-forwarded-for", "198.51.100.7, 203.0.113.9, 10.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-path", "/evil"),
            ("x_forwarded_host", "evil"),
            ("true-client-ip", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
        ];
        for (peer, client, forwarded_for, proto, more) in [
            ("192.0.2.1", "192.0.2.1", "192.0.2.1", "http", ""),
            ("10.2.2.2", "203.0.113.9", "198.51.100.7, 203.0.113.9, 10.1.1.1, 10.2.2.2", "https", "https;"),
            ("::ffff:10.2.2.2", "203.0.113.9", "198.51.100.7, 203.0.113.9, 10.1.1.1, 10.2.2.2", "https", "https;"),
        ] {
            let asked = read(&zone, "/", peer, &fields);
            assert_eq!((asked.client.to_string().as_str(), &*asked.more), (client, more), "{peer}");
            let headers = sent(&zone, &asked).headers().clone();
            assert_eq!(headers["x-forwarded-for"], forwarded_for);
            assert_eq!(
                (headers["x-forwarded-proto"].as_bytes(), headers["x-forwarded-host"].as_bytes()),
                (proto.as_bytes(), &b"a"[..])
            );
            for gone in ["forwarded", "x-real-ip", "x-forwarded-path", "x_forwarded_host", "true-client-ip"] {
                assert!(!headers.contains_key(gone), "{gone}");
            }
        }
        let nonsense =
            read(&zone, "/", "10.2.2.2", &[("host", "a"), ("x-forwarded-for", "1.2.3.4, unknown, 10.0.0.1")]);
        assert_eq!(nonsense.client.to_string(), "10.0.0.1", "what stands before nonsense was made up");
    }

    #[test]
    fn the_scheme_is_that_of_the_connection_or_what_a_trusted_proxy_says() {
        let zone = zone(|_| {});
        for (peer, secure, proto, told) in [
            ("192.0.2.1", true, None, "https"),
            ("192.0.2.1", true, Some("http"), "https"),
            ("192.0.2.1", false, Some("https"), "http"),
            ("10.2.2.2", true, None, "https"),
            ("10.2.2.2", true, Some("http"), "http"),
            ("10.2.2.2", false, Some("https"), "https"),
            ("10.2.2.2", false, None, "http"),
        ] {
            let fields: Vec<_> =
                [("host", "a:443")].into_iter().chain(proto.map(|p| ("x-forwarded-proto", p))).collect();
            let mut parts = parts("/", peer, &fields);
            parts.extensions.get_mut::<Peer>().expect("peer").secure = secure;
            let asked = Asked::read(&zone, &parts, false, ID).unwrap_or_else(|problem| panic!("{problem:?}"));
            let case = format!("{peer} {secure} {proto:?}");
            assert_eq!(sent(&zone, &asked).headers()["x-forwarded-proto"], told, "{case}");
            let key = if told == "https" { "https;" } else { "port=443;" };
            assert_eq!(&*asked.more, key, "{case}");
        }
    }

    #[test]
    fn reads_cannot_be_made_to_mean_something_else() {
        let zone = zone(|_| {});
        let asked = read(
            &zone,
            "/",
            "192.0.2.1",
            &[("host", "a"), ("x-original-url", "/admin"), ("x-http-method-override", "DELETE"), ("x-kept", "1")],
        );
        let headers = sent(&zone, &asked).headers().clone();
        let gone = ABOUT_URL.iter().chain(&ABOUT_METHOD).all(|name| !headers.contains_key(*name));
        assert!(gone && headers.contains_key("x-kept"));
        assert_eq!(
            (headers["via"].as_bytes(), headers["cdn-loop"].as_bytes()),
            (&b"1.1 littoral-lisbon"[..], &b"littoral; id=1234"[..])
        );
    }

    #[test]
    fn a_bypass_fits_however_the_path_is_spelt() {
        let zone = zone(|doc| {
            let path = Some("/admin/*".to_owned());
            doc.bypass = vec![api::pull::RequestMatch { path, ..Default::default() }];
        });
        for (path, bypassed) in [
            ("/admin/a", true),
            ("/%61dmin/b", true),
            ("//admin/c", true),
            ("/./admin/d", true),
            ("/x/../admin/e", true),
            ("/admin%2ff", true),
            ("/x/%2e%2e/admin/g", true),
            ("/admin;x/h", true),
            ("/admin", false),
            ("/x/admin/a", false),
            ("/%ff", false),
        ] {
            let asked = read(&zone, path, "192.0.2.1", &[("host", "a")]);
            assert_eq!(asked.bypass(&zone).is_some(), bypassed, "{path}");
        }
    }

    #[test]
    fn a_request_that_comes_back_is_refused() {
        let zone = zone(|_| {});
        for (value, refused) in [
            ("other; id=1234", false),
            ("littoral; id=9", false),
            ("littoral; id=1234", true),
            ("other, littoral;id=1234", true),
            ("littoral, littoral, littoral, littoral, littoral, littoral, littoral", false),
            ("littoral, littoral, littoral, littoral, littoral, littoral, littoral, littoral", true),
        ] {
            let asked = Asked::read(&zone, &parts("/", "192.0.2.1", &[("host", "a"), ("cdn-loop", value)]), false, ID);
            assert_eq!(asked.err().map(|problem| problem.code), refused.then_some(ErrorCode::LoopDetected), "{value}");
        }
    }

    #[test]
    fn cookies_that_may_mark_a_person() {
        let safe = zone(|doc| doc.key.cookies = vec!["lang".to_owned()]);
        for (path, cookie, personal) in [
            ("/", "", false),
            ("/", "_ga=1; _ga_X=2; lang=de", false),
            ("/", "_ga=1; session=2", true),
            ("/", "_ga=J\u{fc}rgen; session=2", true),
            ("/", "session", true),
            ("/", "_ga=1, session=2", true),
            ("/account", "PHPSESSID=1", true),
            ("/a.css", "session=2", false),
            ("/a.css?x=/b", "session=2", false),
            ("/a.php", "session=2", true),
            ("/a.css/", "session=2", true),
        ] {
            let fields = [("host", "a"), ("cookie", cookie)];
            assert_eq!(read(&safe, path, "192.0.2.1", &fields).personal, personal, "{path} {cookie}");
        }
        let led_there = read(&safe, "/account/x.css", "192.0.2.1", &[("host", "a"), ("cookie", "session=2")]);
        for (media_type, personal) in [
            ("text/html", true),
            ("Text/CSS; charset=x", false),
            ("", true),
            ("application/json", true),
            ("image/png", false),
        ] {
            assert_eq!(led_there.may_be_personal(media_type), personal, "{media_type}");
        }
        assert!(!read(&safe, "/", "192.0.2.1", &[("host", "a")]).may_be_personal("text/html"));
        let rfc = zone(|doc| doc.policy = CachePolicy::Rfc);
        assert!(!read(&rfc, "/", "192.0.2.1", &[("host", "a"), ("cookie", "session=2")]).personal);
    }
}
