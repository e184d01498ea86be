//! Every MUST of RFC 9111 §§ 3 to 5 as a named case, and what RFC 9213 § 2, RFC 5861 and RFC 9211 § 2 add to them.
//!
//! The name of a case is section and requirement. The pure functions are asked here; `storing`, `using` and `fields` follow
//! the RFC's sections, `others` the other RFCs, `invariants` says what holds of any bytes at all.
//!
//! What only an edge can do or leave undone is a scenario file (`crates/testbed/scenarios/…`):
//!
//! | requirement | scenario |
//! | --- | --- |
//! | 3 MUST NOT store what was asked for with `no-store` | `storing/request-no-store` |
//! | 3.1 MUST include all received header fields | `storing/all-fields` |
//! | 3.1 MUST NOT store the fields of a proxy | `hop-by-hop/response` |
//! | 3.1 MUST NOT combine trailer fields with header fields | `storing/trailers` |
//! | 3.2 MUST add each field, 4.3.4 MUST update the stored fields | `validation/etag`, `validation/content-length-of-a-304` |
//! | 3.3 MUST NOT use an incomplete response as a whole | `storing/broken-off`, `ranges/a-part-is-not-the-whole` |
//! | 3.3 MUST NOT send a part without saying 206 | `ranges/of-a-stored-response` |
//! | 3.4 combine only with the same strong validator | `ranges/two-versions-are-not-combined` |
//! | 3.4 MUST update the stored fields with those of a part | `ranges/parts-keep-their-fields` |
//! | 3.5 MUST NOT use what was asked for with `Authorization` | `authorization/not-stored`, `authorization/public` |
//! | 4 MUST NOT reuse unless the target URI matches | `key/query`, `key/hosts`, `key/path-as-it-is` |
//! | 4 MUST NOT reuse unless the method allows it | `head/from-a-stored-get`, `head/is-no-get` |
//! | 4 MUST NOT reuse `no-cache` without validation | `validation/no-cache` |
//! | 4 MUST generate an `Age` | `freshness/max-age`, `freshness/without-date` |
//! | 4 MUST write unsafe requests through | `storing/post-is-passed-through`, `invalidation/*` |
//! | 4 MUST use the most recent of several | `vary/most-recent-by-date` |
//! | 4.1 MUST NOT use unless what `Vary` names matches | `vary/*` |
//! | 4.1 MUST NOT, also where a 304 brought the `Vary` | `validation/vary-in-a-304` |
//! | 4.2.4 MUST NOT generate a stale response where it is prohibited | `stale/must-revalidate`, `stale/s-maxage` |
//! | 4.3.1 MUST send the entity tags | `validation/etag`, `validation/last-modified` |
//! | 4.3.2 MUST NOT evaluate what is only for the origin | `validation/if-match-is-the-origins` |
//! | 4.3.3 MUST use the full response | `validation/changed` |
//! | 4.3.4 MUST NOT update with a 304 of another strong validator | `validation/a-304-of-another-version` |
//! | 4.3.4 MUST update, with a `Date` of when it came | `validation/304-without-date` |
//! | 4.3.5 SHOULD update or end what a HEAD tells of | `head/other-validators` |
//! | 4.4 MUST invalidate the target URI, and none of another origin | `invalidation/put-and-delete`, `invalidation/not-of-another-host` |
//! | 5.2 MUST pass directives through | `hop-by-hop/cache-directives-pass` |
//! | 5.2.1.7 504 to `only-if-cached` | `freshness/only-if-cached` |
//! | 5.2.1.5 does not concern what is stored already | `validation/no-store-does-not-evict` |
//! | 5.2.2.2 MUST generate an error rather than reuse what is stale | `stale/must-revalidate` |
//! | 5.2.2.6 MUST NOT transform | `storing/no-transform` |
//! | RFC 9213 2.2 MUST pass other targeted fields through | `targeted/not-on-the-list` |
//!
//! Not for a cache with a clock, or for a shared one: what § 4 asks of caches without a clock, and § 5.2.2.7 of private caches.
//!
//! Two readings are argued. A stale response with `s-maxage` and `stale-…` is the origin's own word (§ 5.2.3, RFC 5861), and a
//! 304 with the strong form of a stored weak tag confirms it, but never makes it strong (`update.rs`). The scheme plays no
//! part in keys here, so none in § 4.4 either.

mod fields;
mod invariants;
mod others;
mod storing;
mod using;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::response::{Exchange, Rules, Terms, Use, Why, judge, reuse};
use crate::{CacheControl, NotStorable, date};

/// When every response of the tables arrives: 2001-09-09T01:46:40Z.
const NOW_S: u64 = 1_000_000_000;

/// Everything that the RFC lets a shared cache do.
const RFC: Rules = Rules {
    strict: false,
    force: false,
    never: false,
    by_rule: false,
    ttl_s: None,
    stale_while_revalidate_s: 0,
    stale_if_error_s: 0,
    strip_set_cookie: false,
    personal: false,
};
/// The stricter policy.
const SAFE: Rules = Rules { strict: true, ..RFC };

/// Lines `Name: value`, in which `{-60}` is the date 60 s before [`NOW_S`].
fn headers(lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').expect("a colon");
        let value = match value.trim().strip_prefix('{').and_then(|value| value.strip_suffix('}')) {
            Some(offset) => date::format(NOW_S.saturating_add_signed(offset.parse().expect("seconds"))),
            None => value.trim().to_owned(),
        };
        let name: HeaderName = name.parse().expect("name");
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("value"));
    }
    headers
}

/// What [`judge`] says of a response that took no time.
fn judged(
    method: &Method,
    request: &[&str],
    status: u16,
    response: &[&str],
    rules: &Rules,
) -> Result<Terms, NotStorable> {
    let (request, response) = (headers(request), headers(response));
    let exchange = Exchange {
        method,
        request: &request,
        status: StatusCode::from_u16(status).expect("status"),
        response: &response,
        own_location: response.contains_key("content-location"),
        asked_s: NOW_S,
        answered_s: NOW_S,
    };
    judge(&exchange, rules)
}

/// As `60 MaxAge` (lifetime and where it comes from), or the word of the reason.
fn shown(judged: Result<Terms, NotStorable>) -> String {
    match judged {
        Ok(terms) => format!("{} {:?}", terms.storable.lifetime_s, terms.lifetime_from),
        Err(reason) => reason.word().to_owned(),
    }
}

/// Checks a GET with one response under a policy.
fn check(name: &str, request: &[&str], status: u16, response: &[&str], rules: &Rules, expected: &str) {
    let policy = if rules.strict { "safe" } else { "rfc" };
    assert_eq!(shown(judged(&Method::GET, request, status, response, rules)), expected, "{name} ({policy})");
}

/// What is done with a stored response at an age, as `fresh 9`, `accepted 1`, `updating 1` or `validate`, with what follows.
fn used(response: &[&str], rules: &Rules, age_s: u64, asked: &str) -> String {
    let terms = judged(&Method::GET, &[], 200, response, rules).expect("storable");
    match reuse(&terms, age_s, Some(&CacheControl::parse(asked))) {
        Use::Fresh { ttl_s } => format!("fresh {ttl_s}"),
        Use::StaleAccepted { by_s } => format!("accepted {by_s}"),
        Use::WhileRevalidating { by_s } => format!("updating {by_s}"),
        Use::Validate { why, if_error } => {
            let why = if why == Why::Request { " for the request" } else { "" };
            format!("validate{why}{}", if if_error { " or stale" } else { "" })
        }
    }
}

#[test]
fn the_scenarios_of_the_list_exist() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../testbed/scenarios");
    let rows = include_str!("rfc9111.rs").lines().filter_map(|line| line.strip_prefix("//! | ")?.split(" | ").nth(1));
    let names: Vec<&str> = rows.flat_map(|row| row.split('`')).filter(|word| word.contains('/')).collect();
    assert!(names.len() > 20, "the list is read");
    for name in names {
        let path = match name.strip_suffix("/*") {
            Some(topic) => folder.join(topic),
            None => folder.join(format!("{name}.toml")),
        };
        assert!(path.exists(), "{name}");
    }
}
