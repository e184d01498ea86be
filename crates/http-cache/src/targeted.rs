//! Which directives govern a response here: targeted fields come before `Cache-Control` (RFC 9213).
//!
//! In this order, the first one that is valid and not empty: `Littoral-Cache-Control` (for us), `CDN-Cache-Control` (for any
//! CDN), `Surrogate-Control` (the older name). Where one governs, `Cache-Control` and `Expires` mean nothing here (§ 2.1).
//! The first two are strict structured fields; one that does not parse is as if it were absent.

use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};
use sfv::{BareItem, Dictionary, ListEntry};

use crate::cache_control::{self, CacheControl, MAX_DELTA_S};

/// `Littoral-Cache-Control`.
pub const LITTORAL_CACHE_CONTROL: HeaderName = HeaderName::from_static("littoral-cache-control");
/// `CDN-Cache-Control` (RFC 9213 § 3.1).
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
/// `Surrogate-Control`. Meant for us alone: it is not passed on.
pub const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");
/// Longest targeted field that is read, in bytes; a longer one is as if it were absent.
pub const MAX_TARGETED_BYTES: usize = 4_096;

/// Which field the directives of a response come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// `Littoral-Cache-Control`.
    Littoral,
    /// `CDN-Cache-Control`.
    Cdn,
    /// `Surrogate-Control`.
    Surrogate,
    /// `Cache-Control` (and `Expires`).
    CacheControl,
}

impl Source {
    /// The name of the field.
    pub fn field(self) -> &'static str {
        match self {
            Self::Littoral => "Littoral-Cache-Control",
            Self::Cdn => "CDN-Cache-Control",
            Self::Surrogate => "Surrogate-Control",
            Self::CacheControl => "Cache-Control",
        }
    }
}

/// The directives that govern a response, and where they stand.
pub fn governing(headers: &HeaderMap) -> (Source, CacheControl) {
    let strict = [(Source::Littoral, LITTORAL_CACHE_CONTROL), (Source::Cdn, CDN_CACHE_CONTROL)];
    for (source, name) in strict {
        if let Some(control) = structured(headers, &name) {
            return (source, control);
        }
    }
    let surrogate = surrogate(headers);
    if surrogate != CacheControl::default() {
        return (Source::Surrogate, surrogate);
    }
    (Source::CacheControl, CacheControl::of(headers))
}

/// `Surrogate-Control` over all its lines. A member with a `;` is for the surrogate named behind it, which is not us; the
/// last part of `max-age=60+30` is how long it may be stale, which is left out.
fn surrogate(headers: &HeaderMap) -> CacheControl {
    let mut control = CacheControl::default();
    for line in headers.get_all(SURROGATE_CONTROL) {
        for member in cache_control::members(line.as_bytes()).filter(|member| !member.contains(&b';')) {
            control.read(member.split(|&b| b == b'+').next().unwrap_or_default());
        }
    }
    control
}

/// A targeted field (RFC 9213 § 2.1): a dictionary whose values are those of `Cache-Control`'s directives. Nothing: it is
/// absent, empty or does not parse.
fn structured(headers: &HeaderMap, name: &HeaderName) -> Option<CacheControl> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    let text = lines.join(&b',');
    if lines.is_empty() || text.len() > MAX_TARGETED_BYTES {
        return None;
    }
    let members: Dictionary = sfv::Parser::new(&text).parse().ok()?;
    if members.is_empty() {
        return None;
    }
    let mut control = CacheControl::default();
    for (key, value) in &members {
        let item = match value {
            ListEntry::Item(item) => Some(&item.bare_item),
            ListEntry::InnerList(_) => None,
        };
        // A value of the wrong type concerns its directive, not the whole field. The reading is the careful one of
        // `Cache-Control`: a time that cannot be read is none, and what restricts does so whatever its value, but for «no».
        let seconds = Some(match item {
            Some(BareItem::Integer(number)) => u64::try_from(i64::from(*number)).unwrap_or(0).min(MAX_DELTA_S),
            _ => 0,
        });
        let set = matches!(item, Some(BareItem::Boolean(true)));
        let restricts = !matches!(item, Some(BareItem::Boolean(false)));
        match key.as_str() {
            "max-age" => control.max_age_s = seconds,
            "s-maxage" => control.s_maxage_s = seconds,
            "stale-while-revalidate" => control.stale_while_revalidate_s = seconds,
            "stale-if-error" => control.stale_if_error_s = seconds,
            "no-store" => control.no_store = restricts,
            "no-cache" => control.no_cache = restricts,
            "private" => control.private = restricts,
            "public" => control.public = set,
            "must-revalidate" => control.must_revalidate = restricts,
            "proxy-revalidate" => control.proxy_revalidate = restricts,
            "must-understand" => control.must_understand = set,
            "no-transform" => control.no_transform = restricts,
            "immutable" => control.immutable = set,
            _ => {}
        }
    }
    Some(control)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source, `max-age` and whether `no-store` is set.
    fn check(lines: &[(&'static str, &str)], source: Source, max_age_s: Option<u64>, no_store: bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().expect("value"));
        }
        let (found, control) = governing(&headers);
        assert_eq!((found, control.max_age_s, control.no_store), (source, max_age_s, no_store), "{lines:?}");
    }

    #[test]
    fn the_first_valid_field_governs() {
        use Source::{CacheControl, Cdn, Littoral, Surrogate};
        let (own, cdn, old, common) =
            ("littoral-cache-control", "cdn-cache-control", "surrogate-control", "cache-control");
        check(&[(common, "max-age=1")], CacheControl, Some(1), false);
        check(&[(common, "max-age=1"), (cdn, "max-age=2")], Cdn, Some(2), false);
        check(&[(common, "no-store"), (cdn, "max-age=2")], Cdn, Some(2), false);
        check(&[(cdn, "max-age=2"), (own, "max-age=3")], Littoral, Some(3), false);
        check(&[(old, "max-age=4"), (cdn, "max-age=2")], Cdn, Some(2), false);
        check(&[(old, "max-age=4"), (common, "max-age=1")], Surrogate, Some(4), false);
        check(&[(old, "max-age=4+10"), (common, "max-age=1")], Surrogate, Some(4), false);
        check(&[(old, "max-age=9;other, max-age=4"), (common, "max-age=1")], Surrogate, Some(4), false);
        check(&[(old, "max-age=9;other"), (common, "max-age=1")], CacheControl, Some(1), false);
        check(&[(old, "max-age=4+10, no-store")], Surrogate, Some(4), true);
        check(&[(old, "max-age=4"), (old, "no-store")], Surrogate, Some(4), true);
        check(&[(old, "content=\"a;b, c\", no-store")], Surrogate, None, true);
        check(&[(old, "content=\"ESI/1.0\""), (common, "max-age=1")], CacheControl, Some(1), false);
        check(&[(cdn, "no-store"), (common, "max-age=1")], Cdn, None, true);
        check(&[(cdn, "foo"), (common, "max-age=1")], Cdn, None, false);
        check(&[(cdn, "max-age=2"), (cdn, "no-store")], Cdn, Some(2), true);
        check(&[(cdn, "max-age=1, max-age=2")], Cdn, Some(2), false);
        check(&[(cdn, "no-store=?0")], Cdn, None, false);
        check(&[(cdn, "max-age=99999999999")], Cdn, Some(MAX_DELTA_S), false);
    }

    #[test]
    fn what_does_not_parse_is_absent() {
        for bad in ["", "max-age=10000, &&&&&", "max-age =5", "max-age= 5", "MaX-aGe=5", "max-age=5,", "a b", "=", "é"]
        {
            let lines = [("cdn-cache-control", bad), ("cache-control", "max-age=1")];
            check(&lines, Source::CacheControl, Some(1), false);
        }
        let long = format!("max-age=5{}", ", a".repeat(MAX_TARGETED_BYTES / 3));
        check(&[("cdn-cache-control", &long)], Source::CacheControl, None, false);
        // A wrong type concerns one directive.
        for wrong in ["max-age=\"10000\"", "max-age=1.5", "max-age", "max-age=(1)", "max-age=-5"] {
            check(&[("cdn-cache-control", wrong), ("cache-control", "max-age=1")], Source::Cdn, Some(0), false);
        }
        for wrong in ["no-store=1", "no-store=yes", "no-store=\"\"", "no-store=()"] {
            check(&[("cdn-cache-control", wrong)], Source::Cdn, None, true);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_field_panics(value in "[a-z=\",;?0-9 ()-]{0,80}|[ -~]{0,40}") {
            let mut headers = HeaderMap::new();
            for name in [LITTORAL_CACHE_CONTROL, CDN_CACHE_CONTROL, SURROGATE_CONTROL] {
                headers.insert(name, value.parse().expect("value"));
                let _ = governing(&headers);
            }
        }
    }
}
