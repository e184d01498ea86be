//! Headers that end at each hop (RFC 9110 § 7.6.1): an intermediary drops them in both directions, and a cache stores none
//! of them (RFC 9111 § 3.1).

use http::{HeaderMap, HeaderName, header};

/// Whether a header always ends at the next hop.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Headers that `Connection` must not name (§ 7.6.1: those meant for all recipients). A client that does would hide from
/// the next hop what this one acted upon, or make a loop of requests invisible (RFC 8586 § 2).
fn is_protected(name: &HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH, header::CONTENT_TYPE, header::CACHE_CONTROL, header::AUTHORIZATION]
        .contains(name)
        || name == "cdn-loop"
}

/// Removes what ends here: the headers of [`is_hop_by_hop`] and those that `Connection` names.
pub fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&b| b == b','))
        .filter_map(|word| HeaderName::from_bytes(word.trim_ascii()).ok())
        .filter(|name| !is_protected(name))
        .collect();
    let always: Vec<HeaderName> = headers.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
    for name in named.iter().chain(&always) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_here_goes_and_the_rest_stays() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Mine"),
            ("connection", "x-other ,, Host, cache-control, CDN-Loop, \u{7f}"),
            ("x-mine", "1"),
            ("x-other", "1"),
            ("x-kept", "1"),
            ("host", "a"),
            ("cache-control", "no-cache"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("keep-alive", "timeout=5"),
            ("proxy-authentication-info", "1"),
            ("cdn-loop", "littoral"),
        ] {
            let value = http::HeaderValue::from_bytes(value.replace('\u{7f}', "é").as_bytes()).expect("value");
            headers.append(HeaderName::from_static(name), value);
        }
        strip(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["cache-control", "cdn-loop", "host", "x-kept"]);
    }
}
