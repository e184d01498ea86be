//! How a zone is reached over TLS: where plain requests are sent, and what browsers are told to remember. Pure.
//!
//! Certificates are no part of it: they are files on the machines that serve, found by the name that a client asks for.

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::addressing::host_name;

/// How a zone treats TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsDoc {
    /// Whether plain requests are sent to `https://`: GET and HEAD with 301, others with 308, which keeps method and body.
    #[serde(default)]
    pub redirect: bool,
    /// The port that they are sent to; absent: the one on which whoever answers speaks TLS itself, else 443.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// That browsers shall use `https://` by themselves from then on; absent: they are told nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hsts: Option<HstsDoc>,
}

/// HTTP Strict Transport Security (RFC 6797 section 6.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HstsDoc {
    /// How long browsers remember it, in seconds; 0: they forget it.
    pub max_age_s: u64,
    /// Whether it holds for all names below the host's, too.
    #[serde(default)]
    pub include_subdomains: bool,
    /// Whether the hosts may be put into the lists that browsers come with.
    #[serde(default)]
    pub preload: bool,
}

/// Longest time that browsers may be told to remember, in seconds: ten years.
pub const MAX_HSTS_S: u64 = 315_360_000;
/// The least time for hosts that are to be put into the lists of browsers, in seconds: a year.
pub const MIN_PRELOAD_S: u64 = 31_536_000;

impl TlsDoc {
    /// Whether every setting is in its bounds.
    ///
    /// # Errors
    /// A sentence that names the setting, what is wrong with it and what would be right.
    pub fn validate(&self) -> Result<(), String> {
        if self.port == Some(0) {
            return Err("port: 0 is no port; leave it out for 443".to_owned());
        }
        let Some(hsts) = &self.hsts else { return Ok(()) };
        if hsts.max_age_s > MAX_HSTS_S {
            return Err(format!("hsts.max_age_s: {} is more than ten years ({MAX_HSTS_S})", hsts.max_age_s));
        }
        if hsts.preload && (!hsts.include_subdomains || hsts.max_age_s < MIN_PRELOAD_S) {
            return Err(format!(
                "hsts.preload: browsers only take hosts with include_subdomains and a max_age_s of at least {MIN_PRELOAD_S}"
            ));
        }
        if hsts.preload && !self.redirect {
            return Err("hsts.preload: browsers only take hosts that redirect to https; set redirect, too".to_owned());
        }
        Ok(())
    }
}

impl HstsDoc {
    /// The value of `Strict-Transport-Security`.
    pub fn value(&self) -> String {
        let subdomains = if self.include_subdomains { "; includeSubDomains" } else { "" };
        let preload = if self.preload { "; preload" } else { "" };
        format!("max-age={}{subdomains}{preload}", self.max_age_s)
    }
}

/// Whether a request comes over TLS, to whoever answers (`to_us`) or, as a proxy in front says, to that proxy.
///
/// Anybody may claim the latter: it only decides whether this very request is redirected and told about HSTS.
pub fn is_secure(to_us: bool, headers: &HeaderMap) -> bool {
    to_us || headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"))
}

/// The redirect of a plain request to `host` (a port on it counts for nothing) for `target`: its status, and where to.
/// Nothing where the client named no host.
pub fn redirect(method: &Method, host: &str, port: u16, target: Option<&PathAndQuery>) -> Option<(StatusCode, String)> {
    // An IPv6 address keeps its brackets.
    let name = match host.split_once(']') {
        Some((address, _)) => format!("{address}]"),
        None => host_name(host).into_owned(),
    };
    if name.is_empty() {
        return None;
    }
    let status = match *method {
        Method::GET | Method::HEAD => StatusCode::MOVED_PERMANENTLY,
        _ => StatusCode::PERMANENT_REDIRECT,
    };
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let target = target.map_or("/", PathAndQuery::as_str);
    // `OPTIONS *` asks about the server: what is nearest to it is the root.
    let target = if target.starts_with('/') { target } else { "/" };
    Some((status, format!("https://{name}{port}{target}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects() {
        for (method, host, port, target, status, location) in [
            (Method::GET, "a.example", 443, "/x?y=1", 301, "https://a.example/x?y=1"),
            (Method::HEAD, "a.example:80", 443, "/", 301, "https://a.example/"),
            (Method::POST, "a.example:8080", 8443, "/%2e//x", 308, "https://a.example:8443/%2e//x"),
            (Method::GET, "[::1]:8080", 8443, "/", 301, "https://[::1]:8443/"),
            (Method::GET, "[::1]", 443, "/", 301, "https://[::1]/"),
            (Method::OPTIONS, "a.example", 443, "*", 308, "https://a.example/"),
        ] {
            let target: PathAndQuery = target.parse().expect("target");
            let found = redirect(&method, host, port, Some(&target));
            assert_eq!(found, Some((StatusCode::from_u16(status).expect("status"), location.to_owned())));
        }
        assert_eq!(redirect(&Method::GET, "", 443, None), None);
    }

    #[test]
    fn settings() {
        let hsts = |max_age_s, include_subdomains, preload| HstsDoc { max_age_s, include_subdomains, preload };
        let doc = |redirect, hsts| TlsDoc { redirect, port: None, hsts: Some(hsts) };
        for (doc, expected) in [
            (doc(false, hsts(0, false, false)), Ok("max-age=0")),
            (doc(false, hsts(MAX_HSTS_S, true, false)), Ok("max-age=315360000; includeSubDomains")),
            (doc(true, hsts(MIN_PRELOAD_S, true, true)), Ok("max-age=31536000; includeSubDomains; preload")),
            (doc(true, hsts(MAX_HSTS_S + 1, true, false)), Err("ten years")),
            (doc(true, hsts(MIN_PRELOAD_S, false, true)), Err("include_subdomains")),
            (doc(true, hsts(MIN_PRELOAD_S - 1, true, true)), Err("at least 31536000")),
            (doc(false, hsts(MIN_PRELOAD_S, true, true)), Err("set redirect")),
            (TlsDoc { port: Some(0), ..doc(true, hsts(1, false, false)) }, Err("port")),
        ] {
            match (doc.validate(), expected) {
                (Ok(()), Ok(value)) => assert_eq!(doc.hsts.expect("hsts").value(), value),
                (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
                (result, _) => panic!("{doc:?}: {result:?}"),
            }
        }
    }

    #[test]
    fn what_counts_as_secure() {
        let mut headers = HeaderMap::new();
        assert!(is_secure(true, &headers) && !is_secure(false, &headers));
        headers.insert("x-forwarded-proto", "HTTPS".parse().expect("value"));
        assert!(is_secure(false, &headers));
        headers.insert("x-forwarded-proto", "http".parse().expect("value"));
        assert!(is_secure(true, &headers) && !is_secure(false, &headers));
    }
}
