//! What stands beside RFC 9111: targeted fields (RFC 9213 § 2), what is stale (RFC 5861), `Cache-Status` (RFC 9211 § 2).

use http::Method;

use super::{RFC, SAFE, check, headers, judged, used};
use crate::response::Rules;
use crate::targeted::governing;
use crate::{CacheStatus, Forward, Outcome};

#[test]
fn rfc_9213_section_2() {
    let (common, etag) = ("Cache-Control: max-age=1", "ETag: \"a\"");
    for (name, lines, expected) in [
        ("2.1 MUST be ignored: empty", &["CDN-Cache-Control:", common][..], "1 MaxAge"),
        ("2.1 MUST be ignored: a parsing error", &["CDN-Cache-Control: max-age=2, &&", common], "1 MaxAge"),
        (
            "2.1 MUST be ignored: an error on another line",
            &["CDN-Cache-Control: max-age=2", "CDN-Cache-Control: ,", common],
            "1 MaxAge",
        ),
        ("2.1 MUST be ignored: upper case is an error", &["CDN-Cache-Control: Max-Age=2", common], "1 MaxAge"),
        ("2.1 parameters are ignored", &["CDN-Cache-Control: max-age=2;a=b", common], "2 MaxAge"),
        ("2.1 no coercion of a decimal", &["CDN-Cache-Control: max-age=2.5", common, etag], "0 MaxAge"),
        ("2.1 no coercion of a string", &["CDN-Cache-Control: max-age=\"2\"", common, etag], "0 MaxAge"),
        ("2.1 a value that is not its own does not unlock", &["CDN-Cache-Control: max-age=2, private=1"], "private"),
        (
            "2.1 several lines are one field",
            &["CDN-Cache-Control: max-age=2", "CDN-Cache-Control: no-store"],
            "no-store",
        ),
        (
            "2.2 MUST select the first of the list",
            &["CDN-Cache-Control: max-age=2", "Littoral-Cache-Control: max-age=3"],
            "3 MaxAge",
        ),
        (
            "2.2 MUST select the first that is valid",
            &["CDN-Cache-Control: max-age=2", "Littoral-Cache-Control: ?"],
            "2 MaxAge",
        ),
        ("2.2 MUST ignore Cache-Control", &["CDN-Cache-Control: max-age=2", "Cache-Control: no-store"], "2 MaxAge"),
        (
            "2.2 MUST ignore s-maxage of Cache-Control",
            &["CDN-Cache-Control: max-age=2", "Cache-Control: s-maxage=9"],
            "2 MaxAge",
        ),
        ("2.2 MUST ignore Expires", &["CDN-Cache-Control: public", "Expires: {60}", etag], "0 Nothing"),
        ("2.2 MUST NOT be changed by what is not on the list", &["Other-Cache-Control: no-store", common], "1 MaxAge"),
        ("2.4 MUST NOT be told by the suffix", &["X-CDN-Cache-Control: max-age=9", common], "1 MaxAge"),
        ("2.2 MUST implement max-age", &["CDN-Cache-Control: max-age=2"], "2 MaxAge"),
        ("2.2 MUST implement no-store", &["CDN-Cache-Control: no-store", common], "no-store"),
        ("2.2 MUST implement no-cache", &["CDN-Cache-Control: no-cache", common, etag], "0 NoCache"),
        ("2.2 MUST implement no-cache with fields", &["CDN-Cache-Control: no-cache=\"a\"", common, etag], "0 NoCache"),
        ("2.2 MUST implement private", &["CDN-Cache-Control: private", common], "private"),
        ("2.2 SHOULD implement s-maxage", &["CDN-Cache-Control: max-age=2, s-maxage=3"], "3 SMaxage"),
        (
            "2.2 SHOULD implement must-understand",
            &["CDN-Cache-Control: max-age=2, must-understand, no-store"],
            "2 MaxAge",
        ),
        ("2.2 no-store makes max-age inoperative", &["CDN-Cache-Control: no-store, max-age=2"], "no-store"),
        ("2.2 unrecognized directives are ignored", &["CDN-Cache-Control: x=(1 2), max-age=2"], "2 MaxAge"),
    ] {
        check(&format!("RFC 9213 {name}"), &[], 200, lines, &RFC, expected);
    }
    let revalidate = ["CDN-Cache-Control: max-age=10, must-revalidate"];
    let generous = Rules { stale_if_error_s: 99, stale_while_revalidate_s: 99, ..RFC };
    assert_eq!(
        used(&revalidate, &generous, 11, "max-stale"),
        "validate",
        "RFC 9213 2.2 MUST implement must-revalidate"
    );
}

#[test]
fn rfc_5861_windows() {
    let update = ["Cache-Control: max-age=10, stale-while-revalidate=5"];
    let error = ["Cache-Control: max-age=10, stale-if-error=5"];
    let zone = Rules { stale_while_revalidate_s: 3, stale_if_error_s: 7, ..SAFE };
    for (name, response, rules, age_s, expected) in [
        ("3 fresh is fresh", &update[..], RFC, 9, "fresh 1"),
        ("3 MAY serve while revalidating: from the first second", &update, RFC, 10, "updating 0"),
        ("3 to the last", &update, RFC, 14, "updating 4"),
        ("3 SHOULD NOT after that", &update, RFC, 15, "validate"),
        ("4 MAY be used on an error: from the first second", &error, RFC, 10, "validate or stale"),
        ("4 to the last", &error, RFC, 14, "validate or stale"),
        ("4 SHOULD NOT after that", &error, RFC, 15, "validate"),
        ("zone: while revalidating, then on an error", &["Cache-Control: max-age=10"], zone, 12, "updating 2"),
        ("zone: on an error", &["Cache-Control: max-age=10"], zone, 13, "validate or stale"),
        ("zone: and no longer", &["Cache-Control: max-age=10"], zone, 17, "validate"),
        (
            "zone: yields to what the response says",
            &["Cache-Control: max-age=10, stale-while-revalidate=0, stale-if-error=0"],
            zone,
            10,
            "validate",
        ),
        (
            "zone: yields to an unreadable time",
            &["Cache-Control: max-age=10, stale-while-revalidate=x, stale-if-error"],
            zone,
            10,
            "validate",
        ),
        ("zone: yields to s-maxage", &["Cache-Control: s-maxage=10"], zone, 10, "validate"),
        (
            "s-maxage: the origin's own word counts",
            &["Cache-Control: s-maxage=10, stale-while-revalidate=5"],
            RFC,
            11,
            "updating 1",
        ),
        (
            "no lifetime, and no validator",
            &["Cache-Control: max-age=0, stale-while-revalidate=5"],
            SAFE,
            1,
            "updating 1",
        ),
        (
            "no lifetime, and no validator, on an error",
            &["Cache-Control: max-age=0, stale-if-error=5"],
            SAFE,
            1,
            "validate or stale",
        ),
    ] {
        assert_eq!(used(response, &rules, age_s, ""), expected, "RFC 5861 {name}");
    }
    let none = ["Cache-Control: max-age=0, must-revalidate, stale-while-revalidate=5"];
    check("RFC 5861: must-revalidate leaves nothing to keep", &[], 200, &none, &RFC, "no-freshness");
    check("zone: its grace keeps nothing by itself", &[], 200, &["Cache-Control: max-age=0"], &zone, "no-freshness");
}

#[test]
fn rfc_9211_section_2() {
    let plain = CacheStatus {
        node: "a",
        outcome: Outcome::Hit,
        forward: None,
        ttl_s: None,
        forward_status: None,
        stored: false,
        collapsed: false,
        detail: None,
    };
    let all = CacheStatus { forward_status: Some(200), stored: true, collapsed: true, ttl_s: Some(5), ..plain };
    for (name, status, expected) in [
        ("2.1 hit", CacheStatus { ttl_s: Some(376), ..plain }, "littoral-a; hit; ttl=376"),
        (
            "2.1 stale, without going forward",
            CacheStatus { outcome: Outcome::Stale, ttl_s: Some(-412), ..plain },
            "littoral-a; hit; ttl=-412",
        ),
        ("2.1 hit and fwd are exclusive", all, "littoral-a; hit; ttl=5"),
        (
            "2.2 stale",
            CacheStatus { outcome: Outcome::Revalidated, forward_status: Some(304), ..plain },
            "littoral-a; fwd=stale; fwd-status=304",
        ),
        ("2.2 partial", CacheStatus { outcome: Outcome::Partial, ..plain }, "littoral-a; fwd=partial"),
        ("2.2 bypass", CacheStatus { outcome: Outcome::Bypass, ..plain }, "littoral-a; fwd=bypass"),
        (
            "2.2 the most specific reason",
            CacheStatus { outcome: Outcome::Miss, forward: Some(Forward::UriMiss), ..plain },
            "littoral-a; fwd=uri-miss",
        ),
        (
            "2.3 to 2.6",
            CacheStatus { outcome: Outcome::Miss, ..all },
            "littoral-a; fwd=miss; fwd-status=200; stored; collapsed; ttl=5",
        ),
        ("2.8 detail", CacheStatus { detail: Some("a b"), ..plain }, "littoral-a; hit; detail=\"a b\""),
    ] {
        assert_eq!(status.to_string(), expected, "RFC 9211 {name}");
        let parsed: sfv::List = sfv::Parser::new(&expected).parse().expect("a structured list");
        assert_eq!(parsed.len(), 1, "RFC 9211 2 a list whose members MUST be strings or tokens: {name}");
    }
}

#[test]
fn which_field_governs_is_told() {
    for (lines, field) in [
        (&["Littoral-Cache-Control: max-age=1", "CDN-Cache-Control: max-age=1"][..], "Littoral-Cache-Control"),
        (&["CDN-Cache-Control: max-age=1", "Surrogate-Control: max-age=1"], "CDN-Cache-Control"),
        (&["Surrogate-Control: max-age=1", "Cache-Control: max-age=1"], "Surrogate-Control"),
        (&["Cache-Control: max-age=1"], "Cache-Control"),
    ] {
        assert_eq!(governing(&headers(lines)).0.field(), field);
        let lines: Vec<&str> = lines.iter().copied().chain(["ETag: \"a\""]).collect();
        let terms = judged(&Method::GET, &[], 200, &lines, &RFC).expect("storable");
        assert_eq!(terms.source.field(), field);
    }
}
