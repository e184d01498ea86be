//! Whether a shared cache keeps a response (RFC 9111 § 3), on which terms (§ 4.2, RFC 5861), and whether a request may be
//! answered with it (§ 4).
//!
//! [`judge`] and [`reuse`] are the whole of it: one is asked when a response arrives, the other when a stored response was
//! selected. What a zone's policy adds is in [`Rules`]; everything else is the RFCs'.

use http::{HeaderMap, Method, StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::cache_control::{CacheControl, MAX_DELTA_S};
use crate::date;
use crate::freshness::{Freshness, NotStorable, Storable, initial_age_s};
use crate::targeted::{Source, governing};
use crate::vary::Vary;

/// Of the time since the last modification, the share that a response without explicit freshness is taken to be fresh for
/// (§ 4.2.2): one in ten.
const HEURISTIC_DIVISOR: u64 = 10;
/// The longest that a heuristic makes a response fresh, in seconds: a day.
pub const MAX_HEURISTIC_S: u64 = 86_400;

/// A request and the response to it, as the cache sees them.
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'a> {
    /// The method.
    pub method: &'a Method,
    /// The fields of the request, as the client sent them.
    pub request: &'a HeaderMap,
    /// The status of the response.
    pub status: StatusCode,
    /// The fields of the response.
    pub response: &'a HeaderMap,
    /// Whether the response to a POST names the URL of the request as its own (RFC 9110 § 9.3.3).
    pub own_location: bool,
    /// When the request was sent, in seconds since the Unix epoch.
    pub asked_s: u64,
    /// When the head of the response arrived, in seconds since the Unix epoch.
    pub answered_s: u64,
}

/// What the policy of a zone says about a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Be stricter than the RFC where people expect it: see [`NotStorable`].
    pub strict: bool,
    /// Store it whatever it says, for `ttl_s` or what it says.
    pub force: bool,
    /// Do not store it.
    pub never: bool,
    /// A rule was made for responses like this one, so that an error may be kept, too.
    pub by_rule: bool,
    /// How long it is fresh where it does not say (or whatever it says, with `force`), in seconds.
    pub ttl_s: Option<u64>,
    /// Where it does not say, in seconds.
    pub stale_while_revalidate_s: u64,
    /// Where it does not say, in seconds.
    pub stale_if_error_s: u64,
    /// `Set-Cookie` is removed before anything is stored.
    pub strip_set_cookie: bool,
    /// The request carried something that marks one person, a session's cookie for example.
    pub personal: bool,
}

/// On which terms a response is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Its times.
    pub storable: Storable,
    /// Where its lifetime comes from.
    pub lifetime_from: LifetimeFrom,
    /// Which field governs it.
    pub source: Source,
    /// How old it was when it arrived, in seconds.
    pub initial_age_s: u64,
    /// It must never be served stale, whoever allows it (§ 4.2.4).
    pub never_stale: bool,
    /// It says itself that shared caches may use it, by a lifetime above 0 or `public`, or the zone's force says so. What is only kept because the zone says so is not for requests that may be one person's.
    pub shared: bool,
}

/// Where a lifetime comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LifetimeFrom {
    /// `s-maxage`.
    SMaxage,
    /// `max-age`.
    MaxAge,
    /// `Expires` less `Date`.
    Expires,
    /// A tenth of the time since `Last-Modified`.
    Heuristic,
    /// The zone's policy.
    Zone,
    /// `no-cache`: none, it is asked about at each use.
    NoCache,
    /// Nothing says anything.
    Nothing,
}

impl LifetimeFrom {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::SMaxage => "s-maxage",
            Self::MaxAge => "max-age",
            Self::Expires => "Expires less Date",
            Self::Heuristic => "a tenth of the time since Last-Modified",
            Self::Zone => "the zone's policy",
            Self::NoCache => "no-cache",
            Self::Nothing => "nothing",
        }
    }
}

/// Whether the response of an exchange is kept, and on which terms.
///
/// # Errors
/// Why it is not.
pub fn judge(exchange: &Exchange<'_>, rules: &Rules) -> Result<Terms, NotStorable> {
    let (source, control) = governing(exchange.response);
    let explicit = explicit_lifetime(source, &control, exchange);
    if rules.never {
        return Err(NotStorable::Rule);
    }
    let method_fits = *exchange.method == Method::GET
        || (*exchange.method == Method::POST && !rules.strict && exchange.own_location && explicit.is_some());
    if !method_fits {
        return Err(NotStorable::Method);
    }
    permitted(exchange, rules, &control, explicit.is_some())?;
    // «Not even for a second» is what people say who mean «not for others».
    let shared =
        control.public || rules.force || (explicit.is_some_and(|(seconds, _)| seconds > 0) && !control.no_cache);
    if rules.personal && !shared {
        return Err(NotStorable::Cookie);
    }
    let never_stale = control.must_revalidate || control.proxy_revalidate || control.s_maxage_s.is_some();
    let (lifetime_s, lifetime_from) = lifetime(exchange, rules, &control, explicit);
    let validator = [header::ETAG, header::LAST_MODIFIED].iter().any(|name| exchange.response.contains_key(name));
    let no_cache = control.no_cache && !rules.force;
    let may_be_stale = !no_cache && !control.must_revalidate && !control.proxy_revalidate;
    let said_stale_s = control.stale_while_revalidate_s.max(control.stale_if_error_s).unwrap_or(0);
    let of_use = validator || (may_be_stale && said_stale_s > 0);
    if lifetime_s == 0 && (!of_use || (rules.strict && lifetime_from == LifetimeFrom::Nothing)) {
        return Err(NotStorable::NoFreshness);
    }
    let stale = |said: Option<u64>, default: u64| match said {
        // Beside `s-maxage` these are the origin's own word; the default is not.
        Some(said) if may_be_stale => said,
        None if may_be_stale && !never_stale => default,
        _ => 0,
    };
    Ok(Terms {
        storable: Storable {
            lifetime_s,
            stale_while_revalidate_s: stale(control.stale_while_revalidate_s, rules.stale_while_revalidate_s),
            stale_if_error_s: stale(control.stale_if_error_s, rules.stale_if_error_s),
        },
        lifetime_from,
        source,
        initial_age_s: initial_age_s(
            age_of(exchange.response),
            single_date(exchange.response, &header::DATE, exchange.answered_s),
            exchange.asked_s,
            exchange.answered_s,
        ),
        never_stale: never_stale || no_cache,
        shared,
    })
}

/// § 3: everything that forbids keeping a response, whatever its freshness.
fn permitted(
    exchange: &Exchange<'_>,
    rules: &Rules,
    control: &CacheControl,
    explicit: bool,
) -> Result<(), NotStorable> {
    let status = exchange.status.as_u16();
    let request = CacheControl::of(exchange.request);
    if status < 200 || status == 304 {
        return Err(NotStorable::Status);
    }
    if request.no_store {
        return Err(NotStorable::RequestNoStore);
    }
    if Vary::of(exchange.response) == Vary::Any {
        return Err(NotStorable::VaryAny);
    }
    if exchange.request.contains_key(header::AUTHORIZATION)
        && !(control.public || control.must_revalidate || control.s_maxage_s.is_some())
    {
        return Err(NotStorable::Authorization); // § 3.5
    }
    if rules.force {
        return Ok(());
    }
    if control.must_understand && !is_understood(status) {
        return Err(NotStorable::NotUnderstood);
    }
    if control.no_store && !control.must_understand {
        return Err(NotStorable::NoStore);
    }
    if control.private {
        return Err(NotStorable::Private);
    }
    if rules.strict {
        if exchange.response.contains_key(header::SET_COOKIE) && !rules.strip_set_cookie {
            return Err(NotStorable::SetCookie);
        }
        if !rules.by_rule && !KEPT_WHEN_STRICT.contains(&status) {
            return Err(NotStorable::Status);
        }
    }
    if !rules.by_rule && ABOUT_REQUEST.contains(&status) {
        return Err(NotStorable::Status);
    }
    let said = explicit || control.public || rules.by_rule || (rules.strict && rules.ttl_s.is_some());
    if !said && !HEURISTICALLY_CACHEABLE.contains(&status) {
        return Err(NotStorable::Status);
    }
    Ok(())
}

/// What the response itself says about how long it is fresh (§ 4.2.1): seconds, and where it says so.
fn explicit_lifetime(source: Source, control: &CacheControl, exchange: &Exchange<'_>) -> Option<(u64, LifetimeFrom)> {
    if let Some(seconds) = control.s_maxage_s {
        return Some((seconds, LifetimeFrom::SMaxage));
    }
    if let Some(seconds) = control.max_age_s {
        return Some((seconds, LifetimeFrom::MaxAge));
    }
    if source != Source::CacheControl || !exchange.response.contains_key(header::EXPIRES) {
        return None;
    }
    // What cannot be read, or stands twice, has expired (RFC 9111 § 5.3).
    let expires = single_date(exchange.response, &header::EXPIRES, exchange.answered_s).unwrap_or(0);
    let date = single_date(exchange.response, &header::DATE, exchange.answered_s).unwrap_or(exchange.answered_s);
    Some((expires.saturating_sub(date).min(MAX_DELTA_S), LifetimeFrom::Expires))
}

fn lifetime(
    exchange: &Exchange<'_>,
    rules: &Rules,
    control: &CacheControl,
    explicit: Option<(u64, LifetimeFrom)>,
) -> (u64, LifetimeFrom) {
    if rules.force
        && let Some(ttl_s) = rules.ttl_s
    {
        return (ttl_s, LifetimeFrom::Zone);
    }
    if control.no_cache && !rules.force {
        return (0, LifetimeFrom::NoCache);
    }
    if let Some(explicit) = explicit {
        return explicit;
    }
    if let Some(ttl_s) = rules.ttl_s {
        return (ttl_s, LifetimeFrom::Zone);
    }
    let status = exchange.status.as_u16();
    if !rules.strict
        && (HEURISTICALLY_CACHEABLE.contains(&status) || control.public)
        && let Some(modified) = single_date(exchange.response, &header::LAST_MODIFIED, exchange.answered_s)
    {
        let date = single_date(exchange.response, &header::DATE, exchange.answered_s).unwrap_or(exchange.answered_s);
        let seconds = (date.saturating_sub(modified) / HEURISTIC_DIVISOR).min(MAX_HEURISTIC_S);
        return (seconds, LifetimeFrom::Heuristic);
    }
    (0, LifetimeFrom::Nothing)
}

/// The statuses that may be kept by heuristics, and where nothing else says that they may be kept (RFC 9110 § 15.1).
pub const HEURISTICALLY_CACHEABLE: [u16; 12] = [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501];

/// The statuses that a strict policy keeps without a rule for them: none that one odd request can cause.
const KEPT_WHEN_STRICT: [u16; 12] = [200, 203, 204, 206, 300, 301, 302, 303, 307, 308, 404, 410];

/// Errors that are about how a request was made and not about what it is for: another request for the same fares better.
const ABOUT_REQUEST: [u16; 11] = [408, 411, 412, 413, 416, 417, 421, 426, 428, 429, 431];

/// Whether what a status asks of caches is known and done here (§ 5.2.2.3).
fn is_understood(status: u16) -> bool {
    HEURISTICALLY_CACHEABLE.contains(&status)
        || matches!(status, 201 | 202 | 302 | 303 | 307 | 400..=403 | 406 | 409 | 411..=413 | 415..=417 | 421 | 422)
        || matches!(status, 426 | 428 | 429 | 431 | 451 | 500 | 502..=505 | 511)
}

/// `Age` (§ 5.1): the first member of the list; nothing where that is not a number of seconds.
pub fn age_of(headers: &HeaderMap) -> Option<u64> {
    let first = headers.get(header::AGE)?.as_bytes().split(|&b| b == b',').next()?.trim_ascii();
    if first.is_empty() || !first.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = first.iter().fold(0_u64, |sum, d| sum.saturating_mul(10).saturating_add(u64::from(d - b'0')));
    Some(seconds.min(MAX_DELTA_S))
}

/// A date that stands once and can be read.
fn single_date(headers: &HeaderMap, name: &http::HeaderName, now_s: u64) -> Option<u64> {
    let mut lines = headers.get_all(name).iter();
    let value = lines.next()?;
    if lines.next().is_some() {
        return None;
    }
    date::parse(value.to_str().ok()?, now_s)
}

/// How a stored response may be used for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// As it is, for `ttl_s` seconds more.
    Fresh {
        /// At least 1.
        ttl_s: u64,
    },
    /// As it is though it has been stale for `by_s` seconds, because the request accepts that (`max-stale`).
    StaleAccepted {
        /// How long it has been stale.
        by_s: u64,
    },
    /// As it is while it is being asked about (RFC 5861 § 3).
    WhileRevalidating {
        /// How long it has been stale.
        by_s: u64,
    },
    /// Only after it was asked about. `if_error`: as it is where nobody can be asked.
    Validate {
        /// Why.
        why: Why,
        /// Whether it may be served if the origin fails (RFC 5861 § 4, RFC 9111 § 4.2.4).
        if_error: bool,
    },
}

/// Why a stored response has to be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is stale.
    Stale,
    /// The request wants it newer (`no-cache`, `max-age`, `min-fresh`).
    Request,
}

/// Whether a request may be answered with what is stored under these terms, at an age in seconds. `asked`: the directives of
/// the request, where the zone lets clients have a say.
pub fn reuse(terms: &Terms, age_s: u64, asked: Option<&CacheControl>) -> Use {
    match terms.storable.at(age_s) {
        Freshness::Fresh { ttl_s } => {
            let newer = asked.is_some_and(|asked| {
                asked.no_cache
                    || asked.max_age_s.is_some_and(|most| age_s > most)
                    || asked.min_fresh_s.is_some_and(|least| ttl_s < least)
            });
            if newer { Use::Validate { why: Why::Request, if_error: false } } else { Use::Fresh { ttl_s } }
        }
        Freshness::Stale { by_s, while_revalidate, if_error } => {
            // Who says `min-fresh`, or `max-age` without `max-stale`, does not want what is stale (§ 5.2.1.1, § 5.2.1.3).
            let insists = asked.is_some_and(|asked| {
                asked.no_cache
                    || asked.min_fresh_s.is_some()
                    || asked.max_age_s.is_some_and(|most| age_s > most || asked.max_stale_s.is_none())
            });
            let accepted = asked.and_then(|asked| asked.max_stale_s).is_some_and(|most| by_s <= most);
            if !insists && accepted && !terms.never_stale {
                Use::StaleAccepted { by_s }
            } else if !insists && while_revalidate {
                Use::WhileRevalidating { by_s }
            } else {
                Use::Validate { why: if insists { Why::Request } else { Why::Stale }, if_error: if_error && !insists }
            }
        }
    }
}

/// Reads the directives of a request, with `Pragma: no-cache` where there is no `Cache-Control` (§ 5.4).
pub fn asked(request: &HeaderMap) -> CacheControl {
    let mut control = CacheControl::of(request);
    if !request.contains_key(header::CACHE_CONTROL)
        && request.get(header::PRAGMA).is_some_and(|v| v.as_bytes().to_ascii_lowercase().starts_with(b"no-cache"))
    {
        control.no_cache = true;
    }
    control
}
