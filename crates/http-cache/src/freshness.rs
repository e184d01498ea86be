//! Whether a shared cache may keep a response, how long it is fresh, and how old it is (RFC 9111 § 3, § 4.2).

use serde::{Deserialize, Serialize};

use crate::cache_control::CacheControl;

/// What counts where a response says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// How long it is fresh, in seconds.
    pub ttl_s: u64,
    /// How long past that it may be served while the origin cannot be reached, in seconds.
    pub stale_if_error_s: u64,
}

/// Whether a response may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Storable(Storable),
    /// It may not.
    NotStorable(NotStorable),
}

/// Why a response may not be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStorable {
    /// It says `no-store`.
    NoStore,
    /// It says `private`, and this cache is shared.
    Private,
    /// The request says `no-store` (RFC 9111 § 5.2.1.5).
    RequestNoStore,
    /// The request carried `Authorization`, and the response does not say that it is for others, too (§ 3.5).
    Authorization,
    /// It says `Vary: *` (§ 4.1).
    VaryAny,
    /// Its status is not kept without being told to (§ 3); when strict, that of an error never is.
    Status,
    /// It says `must-understand`, and its status is not understood (§ 5.2.2.3).
    NotUnderstood,
    /// The method's responses are not kept (§ 2).
    Method,
    /// It says nothing about its freshness, or has none and nothing to ask about it with.
    NoFreshness,
    /// Strict: it sets a cookie, which is for one person.
    SetCookie,
    /// Strict: the request carried a cookie that marks one person, and the response does not say that it is for everyone.
    Cookie,
    /// A rule of the zone forbids it.
    Rule,
    /// The zone says that requests like this go past the cache.
    Bypass,
    /// It is larger than the zone or the store allows.
    TooLarge,
    /// It is a part of something, and does not say clearly which (§ 3.3).
    UnclearPart,
}

impl NotStorable {
    /// Whether it is about the request and not about what was asked for: others may fare better.
    pub fn is_about_request(self) -> bool {
        matches!(self, Self::RequestNoStore | Self::Authorization | Self::Method | Self::Cookie | Self::UnclearPart)
    }

    /// The word in `Cache-Status`, log and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::RequestNoStore => "request-no-store",
            Self::Authorization => "authorization",
            Self::VaryAny => "vary-any",
            Self::Status => "status",
            Self::NotUnderstood => "not-understood",
            Self::Method => "method",
            Self::NoFreshness => "no-freshness",
            Self::SetCookie => "set-cookie",
            Self::Cookie => "cookie",
            Self::Rule => "rule",
            Self::Bypass => "bypass-rule",
            Self::TooLarge => "too-large",
            Self::UnclearPart => "unclear-part",
        }
    }
}

/// How long a kept response may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storable {
    /// How long it is fresh, counted by its age, in seconds. 0: it is asked about at each use.
    pub lifetime_s: u64,
    /// How long past its lifetime it may be served while it is being asked about, in seconds (RFC 5861 § 3).
    pub stale_while_revalidate_s: u64,
    /// How long past its lifetime it may be served while the origin cannot be reached, in seconds (RFC 5861 § 4).
    pub stale_if_error_s: u64,
}

/// The state of a kept response at a certain age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It may be served as it is, for `ttl_s` seconds more.
    Fresh {
        /// At least 1.
        ttl_s: u64,
    },
    /// It has to be asked about first.
    Stale {
        /// How long it has been stale, in seconds.
        by_s: u64,
        /// Whether it may be served meanwhile.
        while_revalidate: bool,
        /// Whether it may be served if the origin cannot be reached.
        if_error: bool,
    },
}

/// Whether a response with these directives may be kept by a shared cache, and for how long.
///
/// `s-maxage` comes before `max-age`, and that before the default (§ 4.2.1). Stale use is only what the response itself
/// or the default grants, and none at all where `no-cache`, `must-revalidate` or `proxy-revalidate` forbid it; `s-maxage`
/// forbids the default (§ 4.2.4), while `stale-…` beside it are the origin's own word (RFC 5861).
pub fn decide(control: &CacheControl, defaults: Defaults) -> Decision {
    if control.no_store {
        return Decision::NotStorable(NotStorable::NoStore);
    }
    if control.private {
        return Decision::NotStorable(NotStorable::Private);
    }
    if control.no_cache {
        return Decision::Storable(Storable { lifetime_s: 0, stale_while_revalidate_s: 0, stale_if_error_s: 0 });
    }
    let lifetime_s = control.s_maxage_s.or(control.max_age_s).unwrap_or(defaults.ttl_s);
    if control.must_revalidate || control.proxy_revalidate {
        return Decision::Storable(Storable { lifetime_s, stale_while_revalidate_s: 0, stale_if_error_s: 0 });
    }
    let default_if_error_s = if control.s_maxage_s.is_some() { 0 } else { defaults.stale_if_error_s };
    Decision::Storable(Storable {
        lifetime_s,
        stale_while_revalidate_s: control.stale_while_revalidate_s.unwrap_or(0),
        stale_if_error_s: control.stale_if_error_s.unwrap_or(default_if_error_s),
    })
}

impl Storable {
    /// Its state at an age in seconds.
    pub fn at(&self, age_s: u64) -> Freshness {
        match self.lifetime_s.checked_sub(age_s) {
            Some(ttl_s @ 1..) => Freshness::Fresh { ttl_s },
            _ => {
                let by_s = age_s.saturating_sub(self.lifetime_s);
                Freshness::Stale {
                    by_s,
                    while_revalidate: by_s < self.stale_while_revalidate_s,
                    if_error: by_s < self.stale_if_error_s,
                }
            }
        }
    }
}

/// How old a response already was when it arrived, in seconds (§ 4.2.3, `corrected_initial_age`).
///
/// `age_s` and `date_s` are its `Age` and `Date`; `asked_s` and `answered_s` are the times of the request and of the
/// response by the own clock, in seconds since the Unix epoch.
pub fn initial_age_s(age_s: Option<u64>, date_s: Option<u64>, asked_s: u64, answered_s: u64) -> u64 {
    let apparent_s = date_s.map_or(0, |date| answered_s.saturating_sub(date));
    let corrected_s = age_s.unwrap_or(0).saturating_add(answered_s.saturating_sub(asked_s));
    apparent_s.max(corrected_s)
}

/// How old a kept response is now, in seconds (§ 4.2.3, `current_age`). A clock that was set back adds nothing.
pub fn current_age_s(initial_age_s: u64, answered_s: u64, now_s: u64) -> u64 {
    initial_age_s.saturating_add(now_s.saturating_sub(answered_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Defaults = Defaults { ttl_s: 3_600, stale_if_error_s: 86_400 };

    /// As `lifetime/stale-while-revalidate/stale-if-error`, or the word of the reason.
    fn check(control: &str, expected: &str) {
        let shown = match decide(&CacheControl::parse(control), DEFAULTS) {
            Decision::Storable(s) => {
                format!("{}/{}/{}", s.lifetime_s, s.stale_while_revalidate_s, s.stale_if_error_s)
            }
            Decision::NotStorable(reason) => reason.word().to_owned(),
        };
        assert_eq!(shown, expected, "{control}");
    }

    #[test]
    fn what_is_kept_and_how_long() {
        check("", "3600/0/86400");
        check("public", "3600/0/86400");
        check("max-age=60", "60/0/86400");
        check("max-age=60, s-maxage=5", "5/0/0");
        check("s-maxage=5, stale-if-error=9", "5/0/9");
        check("max-age=60, stale-while-revalidate=7, stale-if-error=0", "60/7/0");
        check("max-age=60, must-revalidate, stale-if-error=9", "60/0/0");
        check("max-age=60, proxy-revalidate", "60/0/0");
        check("no-cache, max-age=60, stale-if-error=9", "0/0/0");
        check("max-age=0", "0/0/86400");
        check("max-age=nonsense", "0/0/86400");
        check("no-store, max-age=60", "no-store");
        check("private, max-age=60", "private");
        check("private=\"set-cookie\", public", "private");
    }

    #[test]
    fn states_by_age() {
        let kept = Storable { lifetime_s: 10, stale_while_revalidate_s: 5, stale_if_error_s: 20 };
        let stale = |by_s, while_revalidate, if_error| Freshness::Stale { by_s, while_revalidate, if_error };
        for (age_s, expected) in [
            (0, Freshness::Fresh { ttl_s: 10 }),
            (9, Freshness::Fresh { ttl_s: 1 }),
            (10, stale(0, true, true)),
            (14, stale(4, true, true)),
            (15, stale(5, false, true)),
            (29, stale(19, false, true)),
            (30, stale(20, false, false)),
            (u64::MAX, stale(u64::MAX - 10, false, false)),
        ] {
            assert_eq!(kept.at(age_s), expected, "age {age_s}");
        }
        let never = Storable { lifetime_s: 0, stale_while_revalidate_s: 0, stale_if_error_s: 0 };
        assert_eq!(never.at(0), stale(0, false, false));
    }

    #[test]
    fn ages() {
        for (age_s, date_s, asked_s, answered_s, expected) in [
            (None, None, 100, 100, 0),
            (None, None, 100, 103, 3),
            (Some(7), None, 100, 103, 10),
            (Some(7), Some(50), 100, 103, 53),
            (None, Some(200), 100, 103, 3),
            (Some(u64::MAX), None, 100, 103, u64::MAX),
            (None, None, 103, 100, 0),
        ] {
            assert_eq!(initial_age_s(age_s, date_s, asked_s, answered_s), expected);
        }
        assert_eq!(current_age_s(5, 100, 110), 15);
        assert_eq!(current_age_s(5, 110, 100), 5);
        assert_eq!(current_age_s(u64::MAX, 0, 9), u64::MAX);
    }
}
