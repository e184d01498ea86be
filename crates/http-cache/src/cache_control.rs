//! `Cache-Control` (RFC 9111 § 5.2, RFC 5861): what a response permits caches, and what a request asks of them.
//!
//! Where a field is garbled the reading is the careful one: a freshness that cannot be read is none (§ 4.2.1), and a
//! directive that restricts does so whatever follows its name.

use http::{HeaderMap, header};

/// What a delta of seconds that is too large to be meant counts as (RFC 9111 § 1.2.2): 2³¹, about 68 years.
pub const MAX_DELTA_S: u64 = 1 << 31;

/// The directives of a message. Durations are in seconds and at most [`MAX_DELTA_S`].
///
/// `private` and `no-cache` with a list of fields count as without: § 5.2.2 allows that, and it is the careful reading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheControl {
    /// `max-age`. Unreadable in a response: 0.
    pub max_age_s: Option<u64>,
    /// `s-maxage`: `max-age` for shared caches. Unreadable: 0.
    pub s_maxage_s: Option<u64>,
    /// `stale-while-revalidate` (RFC 5861 § 3). Unreadable: 0.
    pub stale_while_revalidate_s: Option<u64>,
    /// `stale-if-error` (RFC 5861 § 4). Unreadable: 0.
    pub stale_if_error_s: Option<u64>,
    /// `max-stale` of a request; without an argument [`MAX_DELTA_S`]. Unreadable: 0.
    pub max_stale_s: Option<u64>,
    /// `min-fresh` of a request. Unreadable: [`MAX_DELTA_S`].
    pub min_fresh_s: Option<u64>,
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache`.
    pub no_cache: bool,
    /// `private`.
    pub private: bool,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `no-transform`.
    pub no_transform: bool,
    /// `only-if-cached`, of a request.
    pub only_if_cached: bool,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
}

impl CacheControl {
    /// The directives of a message, over all its `Cache-Control` lines.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut control = Self::default();
        for line in headers.get_all(header::CACHE_CONTROL) {
            control.read(line.as_bytes());
        }
        control
    }

    /// The directives of a single field value.
    pub fn parse(value: &str) -> Self {
        let mut control = Self::default();
        control.read(value.as_bytes());
        control
    }

    /// Adds the directives of one more line.
    pub(crate) fn read(&mut self, line: &[u8]) {
        for directive in members(line) {
            let name_end = directive.iter().position(|&b| !is_tchar(b)).unwrap_or(directive.len());
            if let Some((name, rest)) = directive.split_at_checked(name_end) {
                self.take(name, &argument(rest));
            }
        }
    }

    fn take(&mut self, name: &[u8], argument: &Argument<'_>) {
        let seconds = || argument.seconds().unwrap_or(0);
        match name.to_ascii_lowercase().as_slice() {
            // Of directives given twice, the first counts (§ 4.2.1).
            b"max-age" => self.max_age_s = self.max_age_s.or_else(|| Some(seconds())),
            b"s-maxage" => self.s_maxage_s = self.s_maxage_s.or_else(|| Some(seconds())),
            b"stale-while-revalidate" => {
                self.stale_while_revalidate_s = self.stale_while_revalidate_s.or_else(|| Some(seconds()));
            }
            b"stale-if-error" => self.stale_if_error_s = self.stale_if_error_s.or_else(|| Some(seconds())),
            b"max-stale" => {
                let given = if *argument == Argument::None { MAX_DELTA_S } else { seconds() };
                self.max_stale_s = self.max_stale_s.or(Some(given));
            }
            b"min-fresh" => {
                self.min_fresh_s = self.min_fresh_s.or_else(|| Some(argument.seconds().unwrap_or(MAX_DELTA_S)));
            }
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache = true,
            b"private" => self.private = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"no-transform" => self.no_transform = true,
            b"only-if-cached" => self.only_if_cached = true,
            // These permit (`must-understand` in spite of `no-store`), so they have to be written as they should.
            b"must-understand" => self.must_understand |= *argument == Argument::None,
            b"public" => self.public |= *argument == Argument::None,
            b"immutable" => self.immutable |= *argument == Argument::None,
            _ => {} // unknown directives are ignored (§ 5.2.3)
        }
    }
}

/// What follows the name of a directive.
#[derive(Debug, PartialEq, Eq)]
enum Argument<'a> {
    None,
    Token(&'a [u8]),
    /// Something else: a quoted string, or what is neither. No directive read here may have one (§ 5.2.2.1: «a sender MUST
    /// NOT generate the quoted-string form»), except lists of fields, which are not looked at.
    Other,
}

impl Argument<'_> {
    fn seconds(&self) -> Option<u64> {
        let Self::Token(digits) = self else { return None };
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let value = digits.iter().fold(0_u64, |sum, d| sum.saturating_mul(10).saturating_add(u64::from(d - b'0')));
        Some(value.min(MAX_DELTA_S))
    }
}

/// The directives of a list, as they stand there.
pub(crate) fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let start = rest.iter().position(|b| !matches!(b, b' ' | b'\t' | b','))?;
        let list = rest.get(start..)?;
        let (directive, after) = list.split_at_checked(end_of_directive(list))?;
        rest = after;
        Some(directive.trim_ascii())
    })
}

/// Where the directive ends that `list` begins with: at a comma outside quotes, or with the list.
///
/// A quoted string stands directly after `=`. What only looks like one, or never ends, hides nothing: a `no-store` behind a
/// stray quote counts.
fn end_of_directive(list: &[u8]) -> usize {
    let comma = list.iter().position(|&b| b == b',').unwrap_or(list.len());
    let equals = list.iter().position(|&b| b == b'=').unwrap_or(list.len());
    let quoted = list.get(equals..).and_then(|rest| rest.strip_prefix(b"=\""));
    let Some(quoted) = quoted.filter(|_| equals < comma) else { return comma };
    let mut escaped = false;
    let end = quoted.iter().position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    let after = end.and_then(|end| quoted.get(end..)).unwrap_or_default();
    match after.iter().position(|&b| b == b',') {
        Some(at) => list.len() - after.len() + at,
        None if end.is_some() => list.len(),
        None => comma,
    }
}

fn argument(rest: &[u8]) -> Argument<'_> {
    if rest.is_empty() {
        return Argument::None;
    }
    match rest.strip_prefix(b"=") {
        Some(value) if !value.is_empty() && value.iter().all(|&b| is_tchar(b)) => Argument::Token(value),
        _ => Argument::Other,
    }
}

/// RFC 9110 § 5.6.2.
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `directives` as they stand in the struct, in its order.
    fn check(lines: &[&str], expected: &str) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::CACHE_CONTROL, http::HeaderValue::from_bytes(line.as_bytes()).expect("value"));
        }
        let control = CacheControl::of(&headers);
        let mut shown: Vec<String> = [
            ("max-age", control.max_age_s),
            ("s-maxage", control.s_maxage_s),
            ("swr", control.stale_while_revalidate_s),
            ("sie", control.stale_if_error_s),
            ("max-stale", control.max_stale_s),
            ("min-fresh", control.min_fresh_s),
        ]
        .iter()
        .filter_map(|(name, value)| value.map(|v| format!("{name}={v}")))
        .collect();
        let flags = [
            ("no-store", control.no_store),
            ("no-cache", control.no_cache),
            ("private", control.private),
            ("public", control.public),
            ("must-revalidate", control.must_revalidate),
            ("proxy-revalidate", control.proxy_revalidate),
            ("must-understand", control.must_understand),
            ("no-transform", control.no_transform),
            ("only-if-cached", control.only_if_cached),
            ("immutable", control.immutable),
        ];
        shown.extend(flags.iter().filter(|(_, set)| *set).map(|(name, _)| (*name).to_owned()));
        assert_eq!(shown.join(" "), expected, "{lines:?}");
        if let [line] = lines {
            assert_eq!(CacheControl::parse(line), control);
        }
    }

    #[test]
    fn directives() {
        check(&[], "");
        check(&["public, max-age=60"], "max-age=60 public");
        check(&["PUBLIC,Max-Age=60"], "max-age=60 public");
        check(&["max-age=60", "no-store"], "max-age=60 no-store");
        check(&["s-maxage=1, stale-while-revalidate=2, stale-if-error=3"], "s-maxage=1 swr=2 sie=3");
        check(
            &["no-cache, private, must-revalidate, proxy-revalidate"],
            "no-cache private must-revalidate proxy-revalidate",
        );
        check(&["only-if-cached, max-stale, min-fresh=5"], "max-stale=2147483648 min-fresh=5 only-if-cached");
        check(&["max-stale=7, no-transform, immutable"], "max-stale=7 no-transform immutable");
        check(&["no-store, must-understand"], "no-store must-understand");
        check(&["max-age=\"60\""], "max-age=0");
        check(&["private=\"set-cookie, max-age=9\", max-age=5"], "max-age=5 private");
        check(&["x=\"a\\\", no-store\", max-age=5"], "max-age=5");
        check(&["unknown, foo=bar, , max-age=5,"], "max-age=5");
    }

    #[test]
    fn twice_large_and_garbled() {
        check(&["max-age=60, max-age=10"], "max-age=60");
        check(&["max-age=60", "max-age=99"], "max-age=60");
        check(&["max-age=2147483648"], "max-age=2147483648");
        check(&["max-age=99999999999999999999999"], "max-age=2147483648");
        for garbled in ["max-age=x", "max-age=-5", "max-age=1.5", "max-age=", "max-age", "max-age =5", "max-age= 5"] {
            check(&[garbled], "max-age=0");
        }
        check(&["no-store please"], "no-store");
        check(&["public yes, immutable=1, must-understand=1"], "");
        // A quote that does not follow `=`, or never ends, hides nothing.
        check(&["private=\"unterminated, max-age=5"], "max-age=5 private");
        check(&["x=\"unterminated, no-store"], "no-store");
        check(&["x\"y, no-store, z\""], "no-store");
        check(&["x=y\"z, no-store, z\""], "no-store");
        check(&["x= \"y, no-store\""], "no-store");
        check(&["x=\"y\" z\", no-store"], "no-store");
        check(&["x=\"a\\\\\", no-store"], "no-store");
        check(&["é=1, max-age=5"], "max-age=5");
        check(&["min-fresh=x, max-stale=x"], "max-stale=0 min-fresh=2147483648");
    }

    proptest::proptest! {
        #[test]
        fn no_field_panics(value in "([a-z-]{0,9}|no-store|max-age)?[ =\",;\\\\]{0,3}.{0,20}") {
            let _ = CacheControl::parse(&value);
        }

        #[test]
        fn whatever_stands_before_it_as_a_directive_no_store_is_found(before in "([a-z-]{1,9}(=[a-z0-9]{1,3})?,){0,5}") {
            let value = format!("{before} no-store");
            proptest::prop_assert!(CacheControl::parse(&value).no_store);
        }
    }
}
