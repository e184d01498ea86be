//! What holds of any bytes at all: nothing panics, what forbids storing cannot be hidden behind anything, and every number
//! has its bound. `PROPTEST_CASES` says how many messages are tried.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use proptest::collection::vec;
use proptest::prelude::*;

use super::NOW_S;
use crate::cache_control::MAX_DELTA_S;
use crate::conditional::{self, Precondition};
use crate::freshness::current_age_s;
use crate::response::{Exchange, Rules, Terms, Use, age_of, asked, judge, reuse};
use crate::targeted::{self, Source, governing};
use crate::vary::{Vary, selecting_value};
use crate::{CacheControl, NotStorable, Piece, Plan, Validators, date, hop, plan, update};

/// Everything that may stand in a value: no controls but the tab.
fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![0x20_u8..=0x7e, 0x80_u8..=0xff, Just(b'\t'), Just(b','), Just(b'"'), Just(b'=')], 0..most)
}

/// Directives as they may come, and anything between and instead of them.
fn directives() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just("max-age=60"),
        Just("s-maxage=60"),
        Just("max-age=99999999999999999999"),
        Just("max-age=\""),
        Just("public"),
        Just("private"),
        Just("no-cache"),
        Just("no-store"),
        Just("must-understand"),
        Just("must-revalidate"),
        Just("proxy-revalidate"),
        Just("stale-while-revalidate=9"),
        Just("stale-if-error=9"),
        Just("max-stale"),
        Just("min-fresh=5"),
        Just("x=\"a,"),
    ];
    let word = prop_oneof![word.prop_map(|word| word.as_bytes().to_vec()), bytes(8)];
    vec(word, 0..5).prop_map(|words| words.join(&b", "[..]))
}

/// Dates as they may come.
fn dates() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (0_u64..3 * NOW_S).prop_map(|second| date::format(second).into_bytes()),
        Just(b"Fri, 31 Dec 9999 23:59:59 GMT".to_vec()),
        bytes(30)
    ]
}

/// Fields of a response; targeted ones only where they are wanted.
fn response(targeted: bool) -> impl Strategy<Value = HeaderMap> {
    let control = if targeted {
        vec![header::CACHE_CONTROL, targeted::CDN_CACHE_CONTROL, targeted::SURROGATE_CONTROL]
    } else {
        vec![header::CACHE_CONTROL]
    };
    let line = prop_oneof![
        4 => (proptest::sample::select(control), directives()),
        2 => (
            proptest::sample::select(vec![header::DATE, header::EXPIRES, header::LAST_MODIFIED]),
            dates()
        ),
        2 => (
            proptest::sample::select(vec![header::AGE, header::VARY, header::SET_COOKIE, header::PRAGMA, header::ETAG]),
            bytes(12)
        ),
        1 => (Just(header::ETAG), Just(b"\"a\"".to_vec())),
        1 => (Just(header::AGE), "[0-9]{1,25}".prop_map(String::into_bytes)),
    ];
    vec(line, 0..6).prop_map(map)
}

fn map(lines: Vec<(HeaderName, Vec<u8>)>) -> HeaderMap {
    lines.into_iter().map(|(name, value)| (name, HeaderValue::from_bytes(&value).expect("value"))).collect()
}

fn rules() -> impl Strategy<Value = Rules> {
    let times = (proptest::option::of(0..=MAX_DELTA_S), 0..=MAX_DELTA_S, 0..=MAX_DELTA_S);
    (any::<[bool; 6]>(), times).prop_map(|(flags, (ttl_s, stale_while_revalidate_s, stale_if_error_s))| {
        let [strict, force, never, by_rule, strip_set_cookie, personal] = flags;
        Rules {
            strict,
            force,
            never,
            by_rule,
            ttl_s,
            stale_while_revalidate_s,
            stale_if_error_s,
            strip_set_cookie,
            personal,
        }
    })
}

fn judged(request: &HeaderMap, status: u16, response: &HeaderMap, rules: &Rules) -> Result<Terms, NotStorable> {
    judge(
        &Exchange {
            method: &Method::GET,
            request,
            status: StatusCode::from_u16(status).expect("status"),
            response,
            own_location: false,
            asked_s: NOW_S,
            answered_s: NOW_S + 1,
        },
        rules,
    )
}

/// Whether any line of a field holds this text, in any case and wherever.
fn mentions(headers: &HeaderMap, name: &HeaderName, text: &[u8]) -> bool {
    let holds = |line: &HeaderValue| line.as_bytes().to_ascii_lowercase().windows(text.len()).any(|at| at == text);
    headers.get_all(name).iter().any(holds)
}

proptest! {
    #[test]
    fn whatever_is_kept_is_allowed_and_bounded(
        request in directives(),
        status in 100_u16..1_000,
        response in response(true),
        rules in rules(),
        age_s in 0..2 * MAX_DELTA_S,
    ) {
        let request = map(vec![(header::CACHE_CONTROL, request)]);
        let Ok(terms) = judged(&request, status, &response, &rules) else { return Ok(()) };
        let (source, control) = governing(&response);
        prop_assert!(!rules.never && status >= 200 && status != 304 && Vary::of(&response) != Vary::Any);
        prop_assert!(!CacheControl::of(&request).no_store);
        prop_assert!(rules.force || !control.private);
        prop_assert!(rules.force || !control.no_store || control.must_understand);
        prop_assert!(terms.shared || !rules.personal);
        prop_assert_eq!(terms.source, source);
        let set_cookie = response.contains_key(header::SET_COOKIE) && !rules.strip_set_cookie && !rules.force;
        prop_assert!(!rules.strict || !set_cookie || source != Source::CacheControl);
        let storable = terms.storable;
        prop_assert!(storable.lifetime_s <= MAX_DELTA_S);
        prop_assert!(storable.stale_while_revalidate_s <= MAX_DELTA_S && storable.stale_if_error_s <= MAX_DELTA_S);
        prop_assert!(terms.initial_age_s <= MAX_DELTA_S + 1);
        if control.no_cache && !rules.force {
            prop_assert_eq!(storable.lifetime_s, 0);
        }
        let asked = asked(&request);
        let forbidden = control.must_revalidate || control.proxy_revalidate || (control.no_cache && !rules.force);
        match reuse(&terms, age_s, Some(&asked)) {
            Use::Fresh { ttl_s } => {
                prop_assert!(age_s < storable.lifetime_s && ttl_s == storable.lifetime_s - age_s && !asked.no_cache);
            }
            Use::StaleAccepted { by_s } => {
                prop_assert!(!terms.never_stale && age_s - by_s == storable.lifetime_s && asked.max_stale_s >= Some(by_s));
            }
            Use::WhileRevalidating { by_s } => prop_assert!(!forbidden && by_s < storable.stale_while_revalidate_s),
            Use::Validate { if_error, .. } => {
                let by_s = age_s.checked_sub(storable.lifetime_s);
                prop_assert!(!if_error || (!forbidden && by_s.is_some_and(|by_s| by_s < storable.stale_if_error_s)));
            }
        }
    }

    #[test]
    fn what_forbids_cannot_be_hidden(
        before in bytes(40),
        response in response(false),
        status in 200_u16..600,
        rules in rules(),
    ) {
        let none = HeaderMap::new();
        let rules = Rules { force: false, ..rules };
        let with = |word: &str| {
            let mut response = response.clone();
            let value = [before.as_slice(), b", ", word.as_bytes()].concat();
            response.append(header::CACHE_CONTROL, HeaderValue::from_bytes(&value).expect("value"));
            response
        };
        prop_assert!(judged(&none, status, &with("private"), &rules).is_err());
        let no_store = with("No-Store");
        prop_assert!(mentions(&no_store, &header::CACHE_CONTROL, b"must-understand") || judged(&none, status, &no_store, &rules).is_err());
        for word in ["must-revalidate", "proxy-revalidate", "no-cache"] {
            if let Ok(terms) = judged(&none, status, &with(word), &rules) {
                let storable = terms.storable;
                prop_assert!(terms.never_stale && storable.stale_while_revalidate_s == 0 && storable.stale_if_error_s == 0);
            }
        }
        let request = [before.as_slice(), b",no-store"].concat();
        let request = map(vec![(header::CACHE_CONTROL, request)]);
        let forced = Rules { force: true, ..rules };
        prop_assert!(judged(&request, status, &response, &forced).is_err());
    }

    #[test]
    fn with_authorization_only_what_permits_it_is_kept(
        value in bytes(10),
        status in 200_u16..600,
        response in response(true),
        rules in rules(),
    ) {
        let request = map(vec![(header::AUTHORIZATION, value)]);
        let permits = [header::CACHE_CONTROL, targeted::CDN_CACHE_CONTROL, targeted::SURROGATE_CONTROL]
            .iter()
            .any(|name| ["public", "must-revalidate", "s-maxage"].iter().any(|word| mentions(&response, name, word.as_bytes())));
        prop_assert!(permits || judged(&request, status, &response, &rules).is_err());
    }

    #[test]
    fn a_targeted_field_is_read_or_absent(value in bytes(60), common in directives()) {
        let common = (header::CACHE_CONTROL, common);
        let alone = map(vec![common.clone()]);
        for name in [targeted::LITTORAL_CACHE_CONTROL, targeted::CDN_CACHE_CONTROL, targeted::SURROGATE_CONTROL] {
            let (source, control) = governing(&map(vec![common.clone(), (name, value.clone())]));
            let times = [control.max_age_s, control.s_maxage_s, control.stale_while_revalidate_s, control.stale_if_error_s];
            prop_assert!(times.iter().flatten().all(|&seconds| seconds <= MAX_DELTA_S));
            if source == Source::CacheControl {
                prop_assert_eq!(control, CacheControl::of(&alone));
            }
        }
    }

    #[test]
    fn a_request_selects_what_it_was_stored_for(vary in bytes(20), foo in vec(bytes(12), 0..3), name in 0_usize..3) {
        let name = [header::ACCEPT_ENCODING, header::ACCEPT_LANGUAGE, HeaderName::from_static("foo")][name].clone();
        let request = map(foo.iter().map(|value| (name.clone(), value.clone())).collect());
        let selecting = selecting_value(&name, &request);
        prop_assert_eq!(selecting.is_some(), !foo.is_empty());
        if let Vary::Fields(names) = Vary::of(&map(vec![(header::VARY, vary.clone())])) {
            prop_assert!(!vary.split(|&b| b == b',').any(|member| member.trim_ascii() == b"*"));
            prop_assert!(names.windows(2).all(|pair| pair[0].as_str() < pair[1].as_str()));
        }
        // Lines mean what their list means, unless a quote spans the comma.
        if foo.len() > 1 && !foo.iter().any(|value| value.contains(&b'"')) {
            let joined = map(vec![(name.clone(), foo.join(&b", "[..]))]);
            prop_assert_eq!(selecting, selecting_value(&name, &joined));
        }
    }

    #[test]
    fn only_dates_are_dates(text in dates(), now_s in 0..3 * NOW_S) {
        let Some(second) = std::str::from_utf8(&text).ok().and_then(|text| date::parse(text, now_s)) else { return Ok(()) };
        // What was read can be written, and is read as the same.
        prop_assert_eq!(date::parse(&date::format(second), now_s), Some(second));
    }

    #[test]
    fn an_age_is_a_bounded_number(value in bytes(12), initial_s in any::<u64>(), answered_s in any::<u64>(), now_s in any::<u64>()) {
        let digits = value.split(|&b| b == b',').next().unwrap_or_default().trim_ascii();
        let number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        let age = age_of(&map(vec![(header::AGE, value.clone())]));
        prop_assert_eq!(age.is_some(), number);
        prop_assert!(age.unwrap_or(0) <= MAX_DELTA_S);
        prop_assert!(current_age_s(initial_s, answered_s, now_s) >= initial_s);
    }

    #[test]
    fn conditions_and_ranges_of_any_bytes(
        lines in vec((proptest::sample::select(vec![
            header::IF_MATCH, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE, header::IF_RANGE,
            header::RANGE,
        ]), prop_oneof![bytes(30), dates(), "bytes=[0-9, -]{0,20}".prop_map(String::into_bytes)]), 0..4),
        etag in "(W/)?\"[!#-~]{0,5}\"|",
        last_modified_s in proptest::option::of(0..2 * NOW_S),
        size in 0_u64..1_000,
    ) {
        let mut request = map(lines);
        let validators = Validators { etag: &etag, last_modified_s, now_s: NOW_S };
        match plan::plan(&Method::GET, &request, &validators, size, "text/plain", "B") {
            Plan::Body { status, length, pieces, .. } => {
                prop_assert_eq!(status == StatusCode::PARTIAL_CONTENT, status != StatusCode::OK);
                let real: u64 = pieces.iter().map(|piece| match piece {
                    Piece::Text(text) => text.len() as u64,
                    Piece::Span(range) => range.len(),
                }).sum();
                prop_assert_eq!(length, real);
                let spans = pieces.iter().filter_map(|piece| if let Piece::Span(range) = piece { Some(range) } else { None });
                prop_assert!(spans.clone().all(|range| range.last < size) && spans.map(|range| range.len()).sum::<u64>() <= size);
            }
            Plan::PreconditionFailed => {
                prop_assert!(request.contains_key(header::IF_MATCH) || request.contains_key(header::IF_UNMODIFIED_SINCE));
            }
            Plan::NotModified => {
                prop_assert!(request.contains_key(header::IF_NONE_MATCH) || request.contains_key(header::IF_MODIFIED_SINCE));
            }
            Plan::NotSatisfiable { .. } => prop_assert!(request.contains_key(header::RANGE)),
        }
        if !etag.is_empty() {
            request.remove(header::IF_MATCH);
            request.remove(header::IF_UNMODIFIED_SINCE);
            request.insert(header::IF_NONE_MATCH, etag.parse().expect("value"));
            prop_assert_eq!(conditional::evaluate(&Method::GET, &request, &validators), Precondition::NotModified);
        }
    }

    #[test]
    fn an_update_takes_what_it_may(stored in response(true), newer in response(true), named in "[a-z-]{1,6}|etag|date|vary") {
        let mut newer = newer;
        newer.insert(header::CONTENT_LENGTH, HeaderValue::from_static("7"));
        newer.insert(header::CONNECTION, named.parse().expect("value"));
        let fields = update::freshened(&stored, &newer, &[header::SET_COOKIE]);
        prop_assert!(fields.keys().all(|name| !hop::is_hop_by_hop(name) && name != header::CONTENT_LENGTH));
        for name in stored.keys().chain(newer.keys()) {
            let (old, new, now) = (stored.get_all(name), newer.get_all(name), fields.get_all(name));
            let same = now.iter().eq(old.iter()) || now.iter().eq(new.iter());
            prop_assert!(same || [header::CONTENT_LENGTH, header::CONNECTION].contains(name), "{}", name);
        }
        prop_assert!(fields.get_all(header::SET_COOKIE).iter().eq(stored.get_all(header::SET_COOKIE)));
        let _ = (update::is_about(&stored, &newer), update::head_agrees(&stored, 7, &newer));
    }

    #[test]
    fn no_other_host_is_ever_invalidated(
        target in "/[ -~]{0,12}",
        reference in "(http:|https:|HTTP:)?//([a-z@:.]{0,9}other[.:]?[a-z0-9]{0,3}|h[.:@/][a-z]{1,3})[/?#]?[ -~]{0,12}",
        wild in bytes(30),
    ) {
        let ended = |value: &[u8]| {
            let fields = map(vec![(header::LOCATION, value.to_vec()), (header::CONTENT_LOCATION, value.to_vec())]);
            update::invalidated("h", &target, StatusCode::CREATED, &fields)
        };
        let path = reference.split_once("//").map_or("", |(_, rest)| rest);
        if !path.starts_with("h/") {
            prop_assert_eq!(ended(reference.as_bytes()), vec![target.clone()]);
        }
        let all = ended(&wild);
        prop_assert!(all.first() == Some(&target) && all.iter().all(|path| path.starts_with('/')));
    }
}
