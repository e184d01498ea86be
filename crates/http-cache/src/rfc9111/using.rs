//! RFC 9111 § 4: what may be answered with a stored response, and what ends it.

use http::{HeaderMap, Method, StatusCode};

use super::{NOW_S, RFC, SAFE, check, headers, judged, used};
use crate::conditional::{self, Precondition, Validators};
use crate::freshness::{current_age_s, initial_age_s};
use crate::response::Rules;
use crate::vary::{Vary, selecting_value};
use crate::{date, update};

#[test]
fn section_4_reuse() {
    let life = "Cache-Control: max-age=10";
    let (etag, error) = ("ETag: \"a\"", Rules { stale_if_error_s: 5, ..RFC });
    for (name, response, rules, age_s, asked, expected) in [
        ("4 fresh", &[life][..], RFC, 0, "", "fresh 10"),
        ("4.2 fresh while the lifetime is greater than the age", &[life], RFC, 9, "", "fresh 1"),
        ("4.2 not when it is equal", &[life], RFC, 10, "", "validate"),
        ("4 no-cache, unless validated", &["Cache-Control: no-cache, max-age=10", etag], RFC, 0, "", "validate"),
        (
            "4 no-cache=\"field\" counts as no-cache",
            &["Cache-Control: no-cache=\"a\", max-age=10", etag],
            RFC,
            0,
            "",
            "validate",
        ),
        ("4.2.4 stale is not permitted by itself", &[life], RFC, 11, "", "validate"),
        ("4.2.4 permitted by the client", &[life], RFC, 13, "max-stale=3", "accepted 3"),
        ("4.2.4 not prohibited: disconnected", &[life], error, 14, "", "validate or stale"),
        ("4.2.4 prohibited by no-cache", &["Cache-Control: no-cache", etag], error, 1, "max-stale", "validate"),
        (
            "4.2.4 prohibited by must-revalidate",
            &["Cache-Control: max-age=10, must-revalidate"],
            error,
            11,
            "max-stale",
            "validate",
        ),
        (
            "4.2.4 prohibited by proxy-revalidate",
            &["Cache-Control: max-age=10, proxy-revalidate"],
            error,
            11,
            "max-stale",
            "validate",
        ),
        ("4.2.4 prohibited by s-maxage", &["Cache-Control: s-maxage=10"], error, 11, "max-stale", "validate"),
        ("5.2.1.1 max-age: no older", &[life], RFC, 5, "max-age=5", "fresh 5"),
        ("5.2.1.1 max-age: older", &[life], RFC, 6, "max-age=5", "validate for the request"),
        (
            "5.2.1.1 max-age: nothing stale",
            &["Cache-Control: max-age=10, stale-while-revalidate=9"],
            RFC,
            11,
            "max-age=99",
            "validate for the request",
        ),
        ("5.2.1.1 max-age: stale, with max-stale", &[life], RFC, 11, "max-age=99, max-stale=5", "accepted 1"),
        (
            "5.2.1.1 max-age: older, with max-stale",
            &[life],
            RFC,
            11,
            "max-age=5, max-stale=5",
            "validate for the request",
        ),
        ("5.2.1.2 max-stale: not by more", &[life], RFC, 14, "max-stale=3", "validate"),
        ("5.2.1.2 max-stale: of any age", &[life], RFC, 9_999_999, "max-stale", "accepted 9999989"),
        ("5.2.1.3 min-fresh: long enough", &[life], RFC, 5, "min-fresh=5", "fresh 5"),
        ("5.2.1.3 min-fresh: not long enough", &[life], RFC, 6, "min-fresh=5", "validate for the request"),
        (
            "5.2.1.3 min-fresh: nothing stale",
            &["Cache-Control: max-age=10, stale-while-revalidate=9"],
            RFC,
            11,
            "min-fresh=1",
            "validate for the request",
        ),
        ("5.2.1.4 no-cache: fresh", &[life], RFC, 0, "no-cache", "validate for the request"),
        ("5.2.1.4 no-cache: stale", &[life], error, 11, "no-cache, max-stale", "validate for the request"),
        ("5.2.1.5 no-store does not concern what is stored", &[life], RFC, 0, "no-store", "fresh 10"),
        (
            "5.2.2.2 must-revalidate: fresh is fresh",
            &["Cache-Control: max-age=10, must-revalidate"],
            RFC,
            9,
            "",
            "fresh 1",
        ),
    ] {
        assert_eq!(used(response, &rules, age_s, asked), expected, "{name}");
    }
}

#[test]
fn section_4_1_vary() {
    // What `Vary` says, the request that the response was stored for, another one, and whether it is answered with it.
    for (name, vary, original, presented, matches) in [
        ("4.1 no Vary", &[][..], &["Foo: 1"][..], &["Foo: 2"][..], true),
        ("4.1 the same", &["Vary: Foo"], &["Foo: 1"], &["Foo: 1", "Bar: 2"], true),
        ("4.1 MUST NOT use where a value differs", &["Vary: Foo"], &["Foo: 1"], &["Foo: 2"], false),
        ("4.1 MUST NOT use where letter case differs", &["Vary: Foo"], &["Foo: a"], &["Foo: A"], false),
        ("4.1 all nominated fields match", &["Vary: Foo, Bar"], &["Foo: 1", "Bar: 1"], &["Foo: 1", "Bar: 2"], false),
        ("4.1 over several lines", &["Vary: Foo", "Vary: bar"], &["Foo: 1", "Bar: 1"], &["Foo: 1", "Bar: 2"], false),
        ("4.1 absent only matches absent", &["Vary: Foo"], &["Foo: 1"], &[], false),
        ("4.1 absent does not match empty", &["Vary: Foo"], &[], &["Foo:"], false),
        ("4.1 absent matches absent", &["Vary: Foo"], &[], &["Bar: 1"], true),
        ("4.1 * always fails", &["Vary: *"], &["Foo: 1"], &["Foo: 1"], false),
        ("4.1 a member * always fails", &["Vary: Foo", "Vary: ,*"], &["Foo: 1"], &["Foo: 1"], false),
        ("4.1 whitespace", &["Vary: Foo"], &["Foo: 1, 2"], &["Foo: 1,2"], true),
        ("4.1 combined lines", &["Vary: Foo"], &["Foo: 1", "Foo: 2"], &["Foo: 1, 2"], true),
        ("4.1 order counts where it may", &["Vary: Foo"], &["Foo: 1, 2"], &["Foo: 2, 1"], false),
        (
            "4.1 known semantics",
            &["Vary: Accept-Encoding"],
            &["Accept-Encoding: gzip;q=1.0, BR"],
            &["Accept-Encoding: br,gzip"],
            true,
        ),
        (
            "4.1 weights count",
            &["Vary: Accept-Encoding"],
            &["Accept-Encoding: gzip;q=0"],
            &["Accept-Encoding: gzip"],
            false,
        ),
    ] {
        let (original, presented) = (headers(original), headers(presented));
        let found = match Vary::of(&headers(vary)) {
            Vary::Any => false,
            Vary::Fields(names) => {
                names.iter().all(|field| selecting_value(field, &original) == selecting_value(field, &presented))
            }
        };
        assert_eq!(found, matches, "{name}");
    }
}

#[test]
fn section_4_2_dates() {
    for (name, text, expected) in [
        ("4.2 case-insensitively", "sUN, 09 sEP 2001 01:46:40 gmt", Some(NOW_S)),
        ("4.2 MUST NOT be influenced by time zones", "Sun, 09 Sep 2001 01:46:40 +0100", None),
        ("4.2 another zone than GMT is invalid", "Sun, 09 Sep 2001 01:46:40 PST", None),
        ("4.2 UTC is another abbreviation", "Sun, 09 Sep 2001 01:46:40 UTC", None),
        ("4.2 nothing later than the received second", "Sun, 09 Sep 2001 01:46:41 GMT", Some(NOW_S + 1)),
    ] {
        assert_eq!(date::parse(text, NOW_S), expected, "{name}");
    }
}

#[test]
fn section_4_2_1_lifetimes() {
    for (name, response, expected) in [
        ("4.2.1 s-maxage first", &["Cache-Control: max-age=2, s-maxage=1", "Expires: {3}"][..], "1 SMaxage"),
        ("4.2.1 then max-age", &["Cache-Control: max-age=2", "Expires: {3}"], "2 MaxAge"),
        ("4.2.1 then Expires less Date", &["Expires: {3}", "Date: {-2}"], "5 Expires"),
        ("4.2.1 without Date: when it was received", &["Expires: {3}"], "3 Expires"),
        ("4.2.1 an unreadable Date is none", &["Expires: {3}", "Date: yesterday"], "3 Expires"),
        ("4.2.1 no lifetime below nothing", &["Expires: {-3}", "Date: {0}", "ETag: \"a\""], "0 Expires"),
        ("4.2.1 then heuristics", &["Last-Modified: {-100}"], "10 Heuristic"),
        ("4.2.1 the first of two max-age", &["Cache-Control: max-age=2, max-age=9"], "2 MaxAge"),
        ("4.2.1 two Expires: stale", &["Expires: {3}", "Expires: {3}", "ETag: \"a\""], "0 Expires"),
        ("4.2.1 the most restrictive", &["Cache-Control: max-age=9, no-cache", "ETag: \"a\""], "0 NoCache"),
        ("4.2.1 an unreadable max-age: stale", &["Cache-Control: max-age=9.5", "ETag: \"a\""], "0 MaxAge"),
        ("4.2.1 an unreadable s-maxage: stale", &["Cache-Control: s-maxage=a, max-age=9", "ETag: \"a\""], "0 SMaxage"),
        (
            "4.2.2 MUST NOT use heuristics beside max-age",
            &["Cache-Control: max-age=0", "Last-Modified: {-100}"],
            "0 MaxAge",
        ),
        ("4.2.2 MUST NOT use heuristics beside Expires", &["Expires: 0", "Last-Modified: {-100}"], "0 Expires"),
        ("4.2.2 a tenth, at most a day", &["Last-Modified: {-100000000}"], "86400 Heuristic"),
        ("4.2.2 counted from Date", &["Last-Modified: {-100}", "Date: {-50}"], "5 Heuristic"),
        ("4.2.2 not of the future", &["Last-Modified: {100}"], "0 Heuristic"),
        ("1.2.2 too large: 2147483648", &["Cache-Control: max-age=2147483649"], "2147483648 MaxAge"),
        ("1.2.2 larger than any number", &["Cache-Control: s-maxage=99999999999999999999"], "2147483648 SMaxage"),
        ("1.2.2 Expires in the year 9999", &["Expires: Fri, 31 Dec 9999 23:59:59 GMT"], "2147483648 Expires"),
    ] {
        check(name, &[], 200, response, &RFC, expected);
    }
    for (name, status, response, rfc) in [
        ("4.2.2 a status that is heuristically cacheable", 404, &["Last-Modified: {-100}"][..], "10 Heuristic"),
        ("4.2.2 MUST NOT for another status", 500, &["Last-Modified: {-100}"], "status"),
        ("4.2.2 unless marked public", 500, &["Last-Modified: {-100}", "Cache-Control: public"], "10 Heuristic"),
    ] {
        check(name, &[], status, response, &RFC, rfc);
    }
    check("safe: no heuristics", &[], 200, &["Last-Modified: {-100}"], &SAFE, "no-freshness");
}

#[test]
fn section_4_2_3_ages() {
    // `Age`, `Date`, request time, response time, now; the age.
    for (name, age, date, asked, answered, now, expected) in [
        ("4.2.3 nothing said", None, None, 100, 100, 100, 0),
        ("4.2.3 resident time", None, None, 100, 100, 130, 30),
        ("4.2.3 age_value MUST count from the request, not the response", Some(5), None, 100, 103, 103, 8),
        ("4.2.3 apparent age", None, Some(60), 100, 100, 100, 40),
        ("4.2.3 a negative apparent age is 0", None, Some(160), 100, 100, 100, 0),
        ("4.2.3 the greater of both: apparent", Some(5), Some(60), 100, 100, 100, 40),
        ("4.2.3 the greater of both: corrected", Some(50), Some(60), 100, 102, 102, 52),
        ("4.2.3 all together", Some(50), Some(60), 100, 102, 110, 60),
        ("1.2.2 an overflow is not negative", Some(u64::MAX), None, 100, 102, 110, u64::MAX),
    ] {
        let initial = initial_age_s(age, date, asked, answered);
        assert_eq!(current_age_s(initial, answered, now), expected, "{name}");
    }
    let terms = judged(&Method::GET, &[], 200, &["Cache-Control: max-age=9", "Age: 4", "Date: {-7}"], &RFC);
    assert_eq!(terms.expect("storable").initial_age_s, 7, "4.2.3 in the terms of a response");
}

#[test]
fn section_4_3_2_conditions_of_clients() {
    let modified = "If-Modified-Since: {0}";
    for (name, request, expected) in [
        ("4.3.2 If-None-Match of what is stored", &["If-None-Match: \"x\", W/\"a\""][..], Precondition::NotModified),
        ("4.3.2 If-None-Match of something else", &["If-None-Match: \"x\""], Precondition::Proceed),
        (
            "4.3.2 If-None-Match comes before If-Modified-Since",
            &["If-None-Match: \"x\"", modified],
            Precondition::Proceed,
        ),
        ("4.3.2 If-Modified-Since", &[modified], Precondition::NotModified),
        ("4.3.2 If-Modified-Since, and it was", &["If-Modified-Since: {-1}"], Precondition::Proceed),
    ] {
        let validators = Validators { etag: "\"a\"", last_modified_s: Some(NOW_S), now_s: NOW_S };
        assert_eq!(conditional::evaluate(&Method::GET, &headers(request), &validators), expected, "{name}");
    }
}

#[test]
fn section_4_3_4_freshening() {
    let strong = ["ETag: \"a\"", "Last-Modified: {-9}"];
    for (name, stored, newer, about) in [
        ("4.3.4 the same strong validator", &strong[..], &["ETag: \"a\""][..], true),
        ("4.3.4 MUST NOT update with another strong one", &strong, &["ETag: \"b\"", "Last-Modified: {-9}"], false),
        ("4.3.4 MUST NOT update what has no strong one", &["Last-Modified: {-9}"], &["ETag: \"b\""], false),
        ("4.3.4 nor what has no validator", &[], &["ETag: \"b\""], false),
        ("4.3.4 a weak one that corresponds", &["ETag: W/\"a\""], &["ETag: W/\"a\""], true),
        ("4.3.4 a weak one that does not", &["ETag: W/\"a\""], &["ETag: W/\"b\""], false),
        ("4.3.4 the same date", &["Last-Modified: {-9}"], &["Last-Modified: {-9}"], true),
        ("4.3.4 another date", &["Last-Modified: {-9}"], &["Last-Modified: {-8}"], false),
        ("4.3.4 no validator in either", &[], &[], true),
    ] {
        assert_eq!(update::is_about(&headers(stored), &headers(newer)), about, "{name}");
    }
    let fields = update::freshened(&headers(&strong), &headers(&["Date: {5}", "Cache-Control: max-age=9"]), &[]);
    let expected = headers(&["ETag: \"a\"", "Last-Modified: {-9}", "Date: {5}", "Cache-Control: max-age=9"]);
    assert_eq!(fields, expected, "4.3.4 MUST update its header fields");
}

#[test]
fn section_4_3_5_head() {
    let stored = headers(&["ETag: \"a\"", "Last-Modified: {-9}"]);
    for (name, newer, agrees) in [
        ("4.3.5 matching validators and length", &["ETag: \"a\"", "Content-Length: 3"][..], true),
        ("4.3.5 another tag", &["ETag: \"b\"", "Content-Length: 3"], false),
        ("4.3.5 another date", &["Last-Modified: {-8}"], false),
        ("4.3.5 another length", &["ETag: \"a\"", "Content-Length: 4"], false),
        ("4.3.5 no length", &["ETag: \"a\""], true),
    ] {
        assert_eq!(update::head_agrees(&stored, 3, &headers(newer)), agrees, "{name}");
    }
    let newer = headers(&["ETag: \"a\""]);
    assert!(!update::head_agrees(&HeaderMap::new(), 3, &newer), "4.3.5 a received validator that is not stored");
}

#[test]
fn section_4_4_invalidation() {
    for (name, status, response, expected) in [
        ("4.4 MUST invalidate the target: 2xx", 200, &[][..], "/a"),
        ("4.4 MUST invalidate the target: 3xx", 303, &[], "/a"),
        ("4.4 not after a client's error", 404, &["Location: /b"], ""),
        ("4.4 not after a server's error", 500, &[], ""),
        ("4.4 not before it is final", 103, &[], ""),
        ("4.4 may invalidate Location", 201, &["Location: /b"], "/a /b"),
        ("4.4 may invalidate Content-Location", 200, &["Content-Location: c"], "/a /c"),
        ("4.4 the same origin", 201, &["Location: http://H.example/b"], "/a /b"),
        ("4.4 MUST NOT at another host", 201, &["Location: http://other.example/b"], "/a"),
        ("4.4 MUST NOT at another port", 201, &["Content-Location: //h.example:8080/b"], "/a"),
        ("4.4 MUST NOT at a host that only begins alike", 201, &["Location: //h.example.other/b"], "/a"),
        ("4.4 MUST NOT behind a name before the host", 201, &["Location: //h.example@other/b"], "/a"),
        ("4.4 MUST NOT at another scheme than HTTP's", 201, &["Location: ftp://h.example/b"], "/a"),
    ] {
        let status = StatusCode::from_u16(status).expect("status");
        let ended = update::invalidated("h.example", "/a", status, &headers(response)).join(" ");
        assert_eq!(ended, expected, "{name}");
    }
    for (name, method, safe) in [
        ("4.4 unsafe: PUT", "PUT", false),
        ("4.4 unsafe: POST", "POST", false),
        ("4.4 unsafe: DELETE", "DELETE", false),
        ("4.4 unsafe: PATCH", "PATCH", false),
        ("4.4 unsafe: a method whose safety is unknown", "FROBNICATE", false),
        ("4.4 safe: GET", "GET", true),
        ("4.4 safe: HEAD", "HEAD", true),
        ("4.4 safe: OPTIONS", "OPTIONS", true),
    ] {
        assert_eq!(update::is_safe(&method.parse().expect("method")), safe, "{name}");
    }
}
