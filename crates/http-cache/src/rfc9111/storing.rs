//! RFC 9111 § 3: what may be stored, and what becomes of stored fields.

use http::{Method, header};

use super::{RFC, SAFE, check, headers, judged, shown};
use crate::response::{HEURISTICALLY_CACHEABLE, Rules};
use crate::{hop, update};

#[test]
fn section_3_what_must_not_be_stored() {
    // Name, status, request, response; what comes of it under `rfc` and under `safe`.
    type Case<'a> = (&'a str, u16, &'a [&'a str], &'a [&'a str], &'a str, &'a str);
    let cases: &[Case<'_>] = &[
        ("3 the status code is final: 100", 100, &[], &["Cache-Control: max-age=60"], "status", "status"),
        ("3 the status code is final: 103", 103, &[], &["Cache-Control: max-age=60"], "status", "status"),
        ("3 the status code is final: 199", 199, &[], &["Cache-Control: max-age=60"], "status", "status"),
        ("3 a 304 is no response of its own", 304, &[], &["Cache-Control: max-age=60"], "status", "status"),
        ("3 a 206 is understood", 206, &[], &["Cache-Control: max-age=60"], "60 MaxAge", "60 MaxAge"),
        ("3 no-store in the response", 200, &[], &["Cache-Control: no-store"], "no-store", "no-store"),
        (
            "3 no-store beside a lifetime",
            200,
            &[],
            &["Cache-Control: max-age=60, public, no-store", "ETag: \"a\""],
            "no-store",
            "no-store",
        ),
        (
            "3 no-store on a second line",
            200,
            &[],
            &["Cache-Control: max-age=60", "Cache-Control: NO-STORE"],
            "no-store",
            "no-store",
        ),
        ("3 private in a shared cache", 200, &[], &["Cache-Control: private, max-age=60"], "private", "private"),
        (
            "3 Authorization in the request",
            200,
            &["Authorization: Basic x"],
            &["Cache-Control: max-age=60"],
            "authorization",
            "authorization",
        ),
        ("3 one of: public", 418, &[], &["Cache-Control: public", "ETag: \"a\""], "0 Nothing", "status"),
        ("3 one of: Expires", 418, &[], &["Expires: {60}"], "60 Expires", "status"),
        ("3 one of: max-age", 418, &[], &["Cache-Control: max-age=60"], "60 MaxAge", "status"),
        ("3 one of: s-maxage", 418, &[], &["Cache-Control: s-maxage=60"], "60 SMaxage", "status"),
        ("3 one of: an extension", 418, &[], &["CDN-Cache-Control: max-age=60"], "60 MaxAge", "status"),
        ("3 one of: none of these", 418, &[], &["ETag: \"a\""], "status", "status"),
        (
            "3 one of: a validator and no-cache are none",
            302,
            &[],
            &["ETag: \"a\"", "Cache-Control: no-cache"],
            "status",
            "status",
        ),
        ("3 one of: an unknown status that says so", 299, &[], &["Cache-Control: max-age=60"], "60 MaxAge", "status"),
        ("3 one of: 599 that says so", 599, &[], &["Cache-Control: max-age=60"], "60 MaxAge", "status"),
        ("3 one of: a redirect that says so", 302, &[], &["Cache-Control: max-age=60"], "60 MaxAge", "60 MaxAge"),
        ("3 an error that says so", 500, &[], &["Cache-Control: max-age=60"], "60 MaxAge", "status"),
        ("3 neither validator nor lifetime is of no use", 200, &[], &[], "no-freshness", "no-freshness"),
        ("3 a validator alone", 200, &[], &["ETag: \"a\""], "0 Nothing", "no-freshness"),
        ("4.1 Vary: * never matches", 200, &[], &["Vary: a, *", "Cache-Control: max-age=60"], "vary-any", "vary-any"),
        (
            "5.2.1.5 no-store in the request",
            200,
            &["Cache-Control: no-store"],
            &["Cache-Control: max-age=60"],
            "request-no-store",
            "request-no-store",
        ),
        ("safe: Set-Cookie", 200, &[], &["Cache-Control: max-age=60", "Set-Cookie: a=b"], "60 MaxAge", "set-cookie"),
        (
            "safe: Set-Cookie, whatever is said to CDNs",
            200,
            &[],
            &["CDN-Cache-Control: max-age=60", "Set-Cookie: a=b"],
            "60 MaxAge",
            "set-cookie",
        ),
    ];
    for (name, status, request, response, rfc, safe) in cases {
        check(name, request, *status, response, &RFC, rfc);
        check(name, request, *status, response, &SAFE, safe);
    }
    for status in HEURISTICALLY_CACHEABLE {
        let name = format!("3 one of: the status {status}");
        check(&name, &[], status, &["ETag: \"a\""], &RFC, "0 Nothing");
    }
}

#[test]
fn section_3_the_method_is_understood() {
    let (said, own) = ("Cache-Control: max-age=60", "Content-Location: /a");
    for (method, response, rfc, safe) in [
        ("GET", &[said][..], "60 MaxAge", "60 MaxAge"),
        ("HEAD", &[said], "method", "method"),
        ("PUT", &[said, own], "method", "method"),
        ("DELETE", &[said, own], "method", "method"),
        ("OPTIONS", &[said], "method", "method"),
        ("get", &[said], "method", "method"),
        ("UNHEARD-OF", &[said], "method", "method"),
        // RFC 9110 § 9.3.3
        ("POST", &[said, own], "60 MaxAge", "method"),
        ("POST", &[said], "method", "method"),
        ("POST", &[own, "ETag: \"a\""], "method", "method"),
    ] {
        let method: Method = method.parse().expect("method");
        assert_eq!(shown(judged(&method, &[], 200, response, &RFC)), rfc, "{method} {response:?}");
        assert_eq!(shown(judged(&method, &[], 200, response, &SAFE)), safe, "{method} {response:?}");
    }
}

#[test]
fn section_3_1_fields_that_must_not_be_stored() {
    let mut fields = headers(&[
        "Connection: X-Named",
        "X-Named: 1",
        "Proxy-Authenticate: 1",
        "Proxy-Authentication-Info: 1",
        "Proxy-Authorization: 1",
        "X-Unrecognized: kept",
    ]);
    hop::strip(&mut fields);
    assert_eq!(fields, headers(&["X-Unrecognized: kept"]));
}

#[test]
fn section_3_2_updating_stored_fields() {
    let stored = ["Content-Length: 3", "X-Old: kept", "Content-Type: text/a", "X-Twice: 1", "X-Twice: 2"];
    for (name, newer, expected) in [
        ("MUST add each field", "X-New: 1", "X-New: 1"),
        ("MUST replace values that are present", "X-Twice: 3", "X-Twice: 3"),
        ("Content-* is no exception", "Content-Type: text/b", "Content-Type: text/b"),
        ("except Content-Length", "Content-Length: 4", "Content-Length: 3"),
    ] {
        let fields = update::freshened(&headers(&stored), &headers(&[newer]), &[]);
        let (field, value) = expected.split_once(": ").expect("a field");
        let values: Vec<_> = fields.get_all(field).iter().collect();
        assert_eq!(values, [value], "3.2 {name}");
        assert_eq!(fields.get("x-old").expect("kept"), "kept", "3.2 {name}");
    }
    for name in ["Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization", "Keep-Alive", "X-Named"] {
        let newer = headers(&["Connection: X-Named", &format!("{name}: 1")]);
        assert_eq!(update::freshened(&headers(&stored), &newer, &[]), headers(&stored), "3.2 except {name} (§ 3.1)");
    }
    let newer = headers(&["Content-Range: bytes 0-0/1"]);
    let fields = update::freshened(&headers(&stored), &newer, &[header::CONTENT_RANGE]);
    assert_eq!(fields, headers(&stored), "3.2 except fields that the recipient processes");
}

#[test]
fn section_3_5_authorization() {
    for (name, response, expected) in [
        ("3.5 public allows it", &["Cache-Control: public, max-age=60"][..], "60 MaxAge"),
        ("3.5 must-revalidate allows it", &["Cache-Control: must-revalidate, max-age=60"], "60 MaxAge"),
        ("3.5 s-maxage allows it", &["Cache-Control: s-maxage=60"], "60 SMaxage"),
        ("3.5 max-age does not", &["Cache-Control: max-age=60"], "authorization"),
        ("3.5 Expires does not", &["Expires: {60}"], "authorization"),
        ("3.5 proxy-revalidate does not", &["Cache-Control: proxy-revalidate, max-age=60"], "authorization"),
        ("3.5 must-understand does not", &["Cache-Control: must-understand, max-age=60"], "authorization"),
        ("3.5 a field for CDNs does not", &["CDN-Cache-Control: max-age=60"], "authorization"),
        (
            "3.5 what a field for CDNs overrides does not",
            &["CDN-Cache-Control: max-age=60", "Cache-Control: public"],
            "authorization",
        ),
        ("3.5 a field for CDNs may say public", &["CDN-Cache-Control: public, max-age=60"], "60 MaxAge"),
        ("3.5 public beside private does not", &["Cache-Control: public, private, max-age=60"], "private"),
        ("3.5 public beside no-store does not", &["Cache-Control: public, no-store, max-age=60"], "no-store"),
    ] {
        for rules in [RFC, SAFE] {
            check(name, &["Authorization: Basic x"], 200, response, &rules, expected);
        }
    }
    let force = Rules { force: true, ttl_s: Some(60), ..RFC };
    let response = ["Cache-Control: max-age=60"];
    check("3.5 no rule of a zone allows it", &["Authorization: x"], 200, &response, &force, "authorization");
}

#[test]
fn rules_of_a_zone() {
    let never = Rules { never: true, ..RFC };
    let force = Rules { force: true, ttl_s: Some(30), strip_set_cookie: true, ..SAFE };
    let listed = Rules { by_rule: true, ttl_s: Some(30), ..SAFE };
    let silent = Rules { ttl_s: Some(30), ..SAFE };
    let personal = Rules { personal: true, ttl_s: Some(30), ..SAFE };
    let force_personal = Rules { personal: true, ..force };
    let stripped = Rules { strip_set_cookie: true, ..SAFE };
    for (name, rules, status, response, expected) in [
        ("never", &never, 200, &["Cache-Control: max-age=60"][..], "rule"),
        ("never stands above force", &Rules { never: true, ..force }, 200, &[], "rule"),
        ("force: no-store", &force, 200, &["Cache-Control: no-store"], "30 Zone"),
        ("force: private", &force, 200, &["Cache-Control: private, max-age=9"], "30 Zone"),
        ("force: no-cache", &force, 200, &["Cache-Control: no-cache"], "30 Zone"),
        ("force: Set-Cookie", &force, 200, &["Set-Cookie: a=b"], "30 Zone"),
        ("force: an error", &force, 500, &[], "30 Zone"),
        ("force: for one person's request, too", &force_personal, 200, &[], "30 Zone"),
        ("force: not Vary: *", &force, 200, &["Vary: *"], "vary-any"),
        ("force: no final status", &force, 100, &[], "status"),
        ("force without a time: what it says", &Rules { ttl_s: None, ..force }, 200, &["Expires: {9}"], "9 Expires"),
        ("force without a time: nothing said", &Rules { ttl_s: None, ..force }, 200, &[], "no-freshness"),
        ("a rule for errors", &listed, 500, &[], "30 Zone"),
        ("a rule for errors yields", &listed, 500, &["Cache-Control: max-age=5"], "5 MaxAge"),
        ("a rule for errors yields to no-store", &listed, 500, &["Cache-Control: no-store"], "no-store"),
        ("a time for what says nothing", &silent, 200, &[], "30 Zone"),
        ("a time for a redirect that says nothing", &silent, 302, &[], "30 Zone"),
        ("a time is not for errors", &silent, 500, &[], "status"),
        ("a time yields to an unreadable one", &silent, 200, &["Cache-Control: max-age=x", "ETag: \"a\""], "0 MaxAge"),
        ("a time yields to no-cache", &silent, 200, &["Cache-Control: no-cache", "ETag: \"a\""], "0 NoCache"),
        ("cookies: what says nothing", &personal, 200, &[], "cookie"),
        ("cookies: only must-revalidate", &personal, 200, &["Cache-Control: must-revalidate"], "cookie"),
        ("cookies: a lifetime", &personal, 200, &["Cache-Control: max-age=9"], "9 MaxAge"),
        ("cookies: no lifetime left", &personal, 200, &["Cache-Control: max-age=0", "ETag: \"a\""], "cookie"),
        ("cookies: long expired", &personal, 200, &["Expires: {-9}", "ETag: \"a\""], "cookie"),
        ("cookies: public", &personal, 200, &["Cache-Control: public, max-age=0", "ETag: \"a\""], "0 MaxAge"),
        (
            "cookies: not even for shared caches",
            &personal,
            200,
            &["Cache-Control: s-maxage=0", "ETag: \"a\""],
            "cookie",
        ),
        ("cookies: no-cache for CDNs", &personal, 200, &["CDN-Cache-Control: no-cache", "ETag: \"a\""], "cookie"),
        (
            "cookies: no-cache beside a time",
            &personal,
            200,
            &["Cache-Control: no-cache, max-age=9", "ETag: \"a\""],
            "cookie",
        ),
        ("cookies: for CDNs", &personal, 200, &["CDN-Cache-Control: max-age=9"], "9 MaxAge"),
        ("Set-Cookie, stripped", &stripped, 200, &["Cache-Control: max-age=9", "Set-Cookie: a=b"], "9 MaxAge"),
    ] {
        check(name, &[], status, response, rules, expected);
    }
}
