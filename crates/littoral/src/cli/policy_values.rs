//! From the texts of policy flags to what they mean. Whether that is in its bounds is checked where the whole policy is.

use api::pull::{
    CacheRule, Caching, CompressionDoc, Encoding, HeaderChange, MAX_TTL_S, QueryKey, RequestMatch, StatusRange,
    UpstreamDoc,
};
use api::{Eviction, HstsDoc, Objective};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use ipnet::IpNet;
use serde::de::DeserializeOwned;

use crate::cli::values;

/// What a flag says, or that it was given an empty text, which takes away what was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Emptied<T> {
    /// The empty text.
    Empty,
    /// Anything else.
    Value(T),
}

impl<T> Emptied<T> {
    /// The value, where there is one.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Empty => None,
            Self::Value(value) => Some(value),
        }
    }
}

fn unless_empty<T>(text: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<Emptied<T>, String> {
    if text.is_empty() { Ok(Emptied::Empty) } else { parse(text).map(Emptied::Value) }
}

/// What `--eviction` of a zone says.
///
/// # Errors
/// Another word.
pub fn eviction(text: &str) -> Result<Emptied<Eviction>, String> {
    unless_empty(text, |text| word(text, "lru, lfu, s3fifo, sieve, gdsf or auto"))
}

/// What `--objective` of a zone says.
///
/// # Errors
/// Another word.
pub fn objective(text: &str) -> Result<Emptied<Objective>, String> {
    unless_empty(text, |text| word(text, "requests or bytes"))
}

/// What `--hsts` says.
///
/// # Errors
/// It does not begin with a time, or another word follows.
pub fn hsts(text: &str) -> Result<Emptied<HstsDoc>, String> {
    unless_empty(text, |text| {
        let mut words = text.split(',');
        let max_age_s = values::seconds(words.next().unwrap_or_default())?;
        let mut hsts = HstsDoc { max_age_s, include_subdomains: false, preload: false };
        for word in words {
            match word {
                "subdomains" => hsts.include_subdomains = true,
                "preload" => hsts.preload = true,
                _ => return Err(format!("{word:?} is not one of subdomains or preload")),
            }
        }
        Ok(hsts)
    })
}

fn word<T: DeserializeOwned>(text: &str, words: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|_| format!("{text:?} is not one of {words}"))
}

/// What `--ttl` says: a rule of a pull zone, or the time of a store zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ttl {
    /// `path=/img/*,ttl=1h`
    Rule(CacheRule),
    /// `1h`, in seconds.
    Plain(u32),
}

impl Ttl {
    /// The rule.
    ///
    /// # Errors
    /// It is a time.
    pub fn rule(self) -> Result<CacheRule, String> {
        match self {
            Self::Rule(rule) => Ok(rule),
            Self::Plain(_) => Err("--ttl: a time alone is about a zone of files; in front of a website say \
                                   --default-ttl, or which responses are meant, like path=/img/*,ttl=1h"
                .to_owned()),
        }
    }

    /// The time.
    ///
    /// # Errors
    /// It is a rule.
    pub fn plain(self) -> Result<u32, String> {
        match self {
            Self::Plain(seconds) => Ok(seconds),
            Self::Rule(_) => {
                Err("--ttl: a zone of files has one time for all, like 1h; rules need --upstream".to_owned())
            }
        }
    }
}

/// Takes one of the words that the API has for a `T`, like `safe`.
pub fn one_of<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    words: &'static [&'static str],
) -> impl TypedValueParser<Value = T> {
    let meaning = |word: String| serde_json::from_value::<T>(word.into()).map_err(|error| error.to_string());
    PossibleValuesParser::new(words).try_map(meaning)
}

/// Any text.
///
/// # Errors
/// Never; parsers of flags have this form.
pub fn text(text: &str) -> Result<Emptied<String>, String> {
    unless_empty(text, |text| Ok(text.to_owned()))
}

/// `10.0.0.0/8`, or an address alone.
///
/// # Errors
/// Anything else.
pub fn network(text: &str) -> Result<Emptied<IpNet>, String> {
    unless_empty(text, |text| {
        let alone = || text.parse().ok().map(|address: std::net::IpAddr| IpNet::from(address));
        let network = text.parse().ok().or_else(alone);
        network.ok_or_else(|| "use a network or an address, like 10.0.0.0/8 or ::1".to_owned())
    })
}

/// `URL[,weight=N]`. A slash at the end of the URL is left away.
///
/// # Errors
/// Anything else after the URL.
pub fn upstream(text: &str) -> Result<Emptied<UpstreamDoc>, String> {
    unless_empty(text, |text| {
        let (url, weight) = match text.split_once(',') {
            Some((url, rest)) => {
                let number = rest.strip_prefix("weight=").and_then(|number| number.parse().ok());
                (url, number.ok_or_else(|| format!("{rest:?} is not a weight; write it like {url},weight=2"))?)
            }
            None => (text, 1),
        };
        Ok(UpstreamDoc { url: url.strip_suffix('/').unwrap_or(url).to_owned(), weight })
    })
}

/// `NAME: VALUE` sets a header, `NAME:` removes it.
///
/// # Errors
/// There is no colon.
pub fn header_change(text: &str) -> Result<Emptied<HeaderChange>, String> {
    unless_empty(text, |text| {
        let (name, value) = text.split_once(':').ok_or("write 'NAME: VALUE' to set a header, 'NAME:' to remove it")?;
        let value = value.trim();
        Ok(HeaderChange { name: name.to_owned(), value: (!value.is_empty()).then(|| value.to_owned()) })
    })
}

/// A duration from zero on: `0s`, `45s`, `30m`, `12h`, `30d`, `2w`.
///
/// # Errors
/// Another form, or more than [`MAX_TTL_S`].
pub fn time(text: &str) -> Result<u32, String> {
    if text == "0" || text == "0s" {
        return Ok(0);
    }
    let seconds = values::seconds(text)?;
    u32::try_from(seconds).ok().filter(|s| *s <= MAX_TTL_S).ok_or_else(|| "use at most 3650d".to_owned())
}

/// The same, or nothing.
///
/// # Errors
/// As of [`time`].
pub fn default_time(text: &str) -> Result<Emptied<u32>, String> {
    unless_empty(text, time)
}

/// A rule, or a duration alone.
///
/// # Errors
/// A member that is not known, or a value that is not one of its member's.
pub fn ttl(text: &str) -> Result<Emptied<Ttl>, String> {
    unless_empty(text, |text| if text.contains('=') { rule(text).map(Ttl::Rule) } else { time(text).map(Ttl::Plain) })
}

fn rule(text: &str) -> Result<CacheRule, String> {
    let mut rule = CacheRule::default();
    for member in text.split(',') {
        let (name, value) =
            member.split_once('=').ok_or_else(|| format!("{member:?} is not of the form NAME=VALUE"))?;
        let said = |why: String| format!("{name}: {why}");
        match name {
            "path" => once(&mut rule.path, name, value.to_owned())?,
            "status" => rule.statuses.push(value.parse::<StatusRange>().map_err(said)?),
            "type" => rule.media_types.push(value.to_owned()),
            "ttl" => once(&mut rule.ttl_s, name, time(value).map_err(said)?)?,
            "grace" => once(&mut rule.stale_if_error_s, name, time(value).map_err(said)?)?,
            "revalidate" => once(&mut rule.stale_while_revalidate_s, name, time(value).map_err(said)?)?,
            "caching" => {
                rule.caching = match value {
                    "force" => Caching::Force,
                    "never" => Caching::Never,
                    _ => return Err(format!("{member:?}: use caching=force or caching=never")),
                }
            }
            _ => {
                return Err(format!(
                    "there is no {name:?}; use path, status, type, ttl, grace, revalidate and caching"
                ));
            }
        }
    }
    Ok(rule)
}

/// Conditions: `path=/admin/*,cookie=session`.
///
/// # Errors
/// A condition that is not known, or twice the same.
pub fn bypass(text: &str) -> Result<Emptied<RequestMatch>, String> {
    unless_empty(text, |text| {
        let mut entry = RequestMatch::default();
        for member in text.split(',') {
            let (name, value) =
                member.split_once('=').ok_or_else(|| format!("{member:?} is not of the form NAME=VALUE"))?;
            let condition = match name {
                "path" => &mut entry.path,
                "cookie" => &mut entry.cookie,
                "header" => &mut entry.header,
                "query" => &mut entry.query,
                _ => return Err(format!("there is no {name:?}; use path, cookie, header and query")),
            };
            once(condition, name, value.to_owned())?;
        }
        Ok(entry)
    })
}

fn once<T>(setting: &mut Option<T>, name: &str, value: T) -> Result<(), String> {
    match setting.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{name} is said twice; repeat the whole flag instead")),
    }
}

/// `all`, `none`, `sorted`, `only:a,b`, `except:utm_*`.
///
/// # Errors
/// Anything else.
pub fn query(text: &str) -> Result<QueryKey, String> {
    let patterns = |list: &str| list.split(',').map(str::to_owned).collect();
    match (text, text.split_once(':')) {
        ("all", _) => Ok(QueryKey::All),
        ("none", _) => Ok(QueryKey::None),
        ("sorted", _) => Ok(QueryKey::Sorted),
        (_, Some(("only", list))) => Ok(QueryKey::Only(patterns(list))),
        (_, Some(("except", list))) => Ok(QueryKey::Except(patterns(list))),
        _ => Err("use all, none, sorted, only:NAME,NAME or except:NAME,NAME".to_owned()),
    }
}

/// What `--compression` says of the encodings: `on`, `off`, or those that are made, like `br,gzip`.
///
/// # Errors
/// Another word.
pub fn encodings(text: &str) -> Result<Emptied<Vec<Encoding>>, String> {
    unless_empty(text, |text| match text {
        "on" => Ok(CompressionDoc::default().encodings),
        "off" => Ok(Vec::new()),
        list => list.split(',').map(|one| word(one, "on, off, zstd, br or gzip")).collect(),
    })
}

/// `ALIAS=HOST`.
///
/// # Errors
/// There is no `=`.
pub fn alias(text: &str) -> Result<Emptied<(String, String)>, String> {
    unless_empty(text, |text| {
        let (alias, host) = text.split_once('=').ok_or("write it like www.shop.example=shop.example")?;
        Ok((alias.to_owned(), host.to_owned()))
    })
}
