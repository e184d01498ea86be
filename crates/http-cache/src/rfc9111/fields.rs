//! RFC 9111 § 5: the fields.

use http::header;

use super::{NOW_S, RFC, SAFE, check, headers, judged, used};
use crate::CacheControl;
use crate::cache_control::MAX_DELTA_S;
use crate::response::{Rules, age_of, asked};

#[test]
fn section_5_1_age() {
    for (name, lines, expected) in [
        ("5.1 seconds", &["Age: 60"][..], Some(60)),
        ("5.1 the first member of a list", &["Age: 60, 5"], Some(60)),
        ("5.1 the first of several lines", &["Age: 60", "Age: 5"], Some(60)),
        ("5.1 ignored: negative", &["Age: -60"], None),
        ("5.1 ignored: a fraction", &["Age: 60.5"], None),
        ("5.1 ignored: a word", &["Age: old"], None),
        ("5.1 ignored: empty", &["Age:"], None),
        ("5.1 ignored: invalid after the others were discarded", &["Age: x, 60"], None),
        ("5.1 ignored: with a parameter", &["Age: 60;a=b"], None),
        ("1.2.2 too large", &["Age: 99999999999999999999"], Some(MAX_DELTA_S)),
    ] {
        assert_eq!(age_of(&headers(lines)), expected, "{name}");
    }
}

#[test]
fn section_5_2_syntax() {
    for (name, value, expected) in [
        ("5.2 compared case-insensitively", "MAX-AGE=60", "60 MaxAge"),
        ("5.2 a token", "max-age=60", "60 MaxAge"),
        ("5.2.1.1 MUST NOT be quoted by a sender: unreadable", "max-age=\"60\"", "0 MaxAge"),
        ("5.2 what stands in quotes is no directive", "x=\"no-store, max-age=9\", max-age=60", "60 MaxAge"),
        ("5.2 an escaped quote ends nothing", "x=\"\\\", no-store\", max-age=60", "60 MaxAge"),
        ("5.2 a quote that never ends hides nothing", "x=\", max-age=60, no-store", "no-store"),
        ("5.2 empty members", ",, max-age=60 ,", "60 MaxAge"),
        ("5.2.3 MUST ignore unrecognized directives", "community=\"UCI\", max-age=60, x", "60 MaxAge"),
        ("5.2.3 a name that only begins alike is unrecognized", "no-storefront, max-age=60", "60 MaxAge"),
    ] {
        check(name, &[], 200, &[&format!("Cache-Control: {value}"), "ETag: \"a\""], &RFC, expected);
    }
}

#[test]
fn section_5_2_2_response_directives() {
    let etag = "ETag: \"a\"";
    for (name, status, value, expected) in [
        ("5.2.2 MUST obey max-age", 200, "max-age=60", "60 MaxAge"),
        ("5.2.2.3 must-understand: understood", 200, "must-understand, max-age=60", "60 MaxAge"),
        ("5.2.2.3 must-understand: not understood", 299, "must-understand, max-age=60", "not-understood"),
        ("5.2.2.3 must-understand ignores no-store", 200, "must-understand, no-store, max-age=60", "60 MaxAge"),
        ("5.2.2.3 but not where it is not understood", 299, "must-understand, no-store, max-age=60", "not-understood"),
        ("5.2.2.3 and not where it is garbled", 200, "must-understand=x, no-store, max-age=60", "no-store"),
        ("5.2.2.3 it is no lifetime", 302, "must-understand", "status"),
        ("5.2.2.3 nor stands above private", 200, "must-understand, no-store, private, max-age=60", "private"),
        ("5.2.2.4 no-cache", 200, "no-cache", "0 NoCache"),
        ("5.2.2.4 no-cache with fields counts as without", 200, "no-cache=\"a, b\", max-age=60", "0 NoCache"),
        ("5.2.2.4 no-cache as a token, too", 200, "no-cache=a, max-age=60", "0 NoCache"),
        ("5.2.2.5 MUST NOT store", 200, "no-store", "no-store"),
        ("5.2.2.5 whatever follows it", 200, "no-store=0, max-age=60", "no-store"),
        ("5.2.2.7 MUST NOT store", 200, "private", "private"),
        ("5.2.2.7 private with fields counts as without", 200, "private=\"set-cookie\", max-age=60", "private"),
        ("5.2.2.7 private as a token, too", 200, "private=set-cookie, max-age=60", "private"),
        ("5.2.2.8 proxy-revalidate does not imply that it may be stored", 418, "proxy-revalidate", "status"),
        ("5.2.2.9 public, though otherwise prohibited", 418, "public", "0 Nothing"),
        ("5.2.2.10 s-maxage overrides max-age", 200, "max-age=60, s-maxage=5", "5 SMaxage"),
        ("5.2.2.10 also where it is 0", 200, "max-age=60, s-maxage=0", "0 SMaxage"),
    ] {
        check(name, &[], status, &[&format!("Cache-Control: {value}"), etag], &RFC, expected);
    }
}

#[test]
fn section_5_2_2_once_stale() {
    // A zone that allows everything, and a client, too.
    let generous = Rules { stale_while_revalidate_s: 99, stale_if_error_s: 99, ..RFC };
    for (name, control, expected) in [
        ("nothing forbids it", "max-age=10", "accepted 1"),
        ("5.2.2.2 must-revalidate: MUST NOT reuse", "max-age=10, must-revalidate", "validate"),
        ("5.2.2.2 in all circumstances", "max-age=10, must-revalidate, stale-if-error=99", "validate"),
        ("5.2.2.4 no-cache: MUST NOT be used", "max-age=10, no-cache, stale-while-revalidate=99", "validate"),
        ("5.2.2.8 proxy-revalidate: MUST NOT reuse", "max-age=10, proxy-revalidate", "validate"),
        ("5.2.2.8 in all circumstances", "max-age=10, proxy-revalidate, stale-while-revalidate=99", "validate"),
        ("5.2.2.10 s-maxage: MUST NOT reuse", "s-maxage=10", "validate"),
        ("5.2.2.10 not even where max-age were longer", "s-maxage=10, max-age=99", "validate"),
    ] {
        let response = [&format!("Cache-Control: {control}"), "ETag: \"a\""];
        assert_eq!(used(&response, &generous, 11, "max-stale"), expected, "{name}");
        let forced = judged(&http::Method::GET, &[], 200, &response, &Rules { ttl_s: Some(10), ..generous });
        assert_eq!(forced.expect("storable").never_stale, expected == "validate", "{name}, in its terms");
    }
}

#[test]
fn section_5_3_expires() {
    for (name, lines, expected) in [
        ("5.3 a date", &["Expires: {60}"][..], "60 Expires"),
        ("5.3 MUST be in the past: 0", &["Expires: 0"], "0 Expires"),
        ("5.3 MUST be in the past: -1", &["Expires: -1"], "0 Expires"),
        ("5.3 MUST be in the past: no date", &["Expires: tomorrow"], "0 Expires"),
        ("5.3 MUST be in the past: empty", &["Expires:"], "0 Expires"),
        ("5.3 MUST be in the past: another shape", &["Expires: Sunday, 9 Sep 2001 01:47:40 GMT"], "0 Expires"),
        ("5.3 MUST be in the past: another zone", &["Expires: Sun, 09 Sep 2001 05:47:40 EST"], "0 Expires"),
        ("5.3 MUST be ignored beside max-age", &["Expires: {60}", "Cache-Control: max-age=5"], "5 MaxAge"),
        ("5.3 MUST be ignored beside an expired max-age", &["Expires: {60}", "Cache-Control: max-age=0"], "0 MaxAge"),
        ("5.3 MUST be ignored beside s-maxage", &["Expires: {60}", "Cache-Control: s-maxage=5"], "5 SMaxage"),
        ("5.3 a weekday that does not fit", &["Expires: Mon, 09 Sep 2001 01:47:40 GMT"], "60 Expires"),
    ] {
        let lines: Vec<&str> = lines.iter().copied().chain(["ETag: \"a\""]).collect();
        check(name, &[], 200, &lines, &RFC, expected);
        check(name, &[], 200, &lines, &SAFE, expected);
    }
    assert!(headers(&["Expires: {0}"]).get(header::EXPIRES).is_some_and(|v| v == "Sun, 09 Sep 2001 01:46:40 GMT"));
    assert_eq!(crate::date::format(NOW_S), "Sun, 09 Sep 2001 01:46:40 GMT");
}

#[test]
fn section_5_4_pragma() {
    for (name, lines, no_cache) in [
        ("5.4 no-cache", &["Pragma: no-cache"][..], true),
        ("5.4 in any case", &["Pragma: No-Cache"], true),
        ("5.4 something else", &["Pragma: x"], false),
        ("5.4 not beside Cache-Control", &["Pragma: no-cache", "Cache-Control: max-age=9"], false),
    ] {
        assert_eq!(asked(&headers(lines)).no_cache, no_cache, "{name}");
    }
    check("5.4 says nothing in a response", &[], 200, &["Pragma: no-cache", "Expires: {60}"], &RFC, "60 Expires");
    assert_eq!(CacheControl::parse("only-if-cached"), asked(&headers(&["Cache-Control: only-if-cached"])));
}
