//! How a response tells what the cache did: `Cache-Status` (RFC 9211) and the older `X-Cache`, from one enum.

use std::fmt;

/// What the cache did with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was there and fresh.
    Hit,
    /// It was there and stale, and was served because the origin could not be reached.
    Stale,
    /// It was there and stale, and was served while it is being asked about.
    Updating,
    /// It was not there, and was fetched.
    Miss,
    /// Some of its bytes were not there, and were fetched.
    Partial,
    /// It was there and stale, and has changed.
    Expired,
    /// It was there and stale, and the origin said that it still holds.
    Revalidated,
    /// It was not looked for.
    Bypass,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Outcome; 8] = [
        Self::Hit,
        Self::Stale,
        Self::Updating,
        Self::Miss,
        Self::Partial,
        Self::Expired,
        Self::Revalidated,
        Self::Bypass,
    ];

    /// The word in log and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Updating => "updating",
            Self::Miss => "miss",
            Self::Partial => "partial",
            Self::Expired => "expired",
            Self::Revalidated => "revalidated",
            Self::Bypass => "bypass",
        }
    }

    /// The value of `X-Cache`, which has no word for a part.
    pub fn x_cache(self) -> &'static str {
        match self {
            Self::Hit => "HIT",
            Self::Stale => "STALE",
            Self::Updating => "UPDATING",
            Self::Miss | Self::Partial => "MISS",
            Self::Expired => "EXPIRED",
            Self::Revalidated => "REVALIDATED",
            Self::Bypass => "BYPASS",
        }
    }

    /// Why the request went on, as RFC 9211 § 2.2 calls it; nothing when it was answered from what was there.
    pub fn forward(self) -> Option<&'static str> {
        match self {
            Self::Hit | Self::Stale | Self::Updating => None,
            Self::Miss => Some("miss"),
            Self::Partial => Some("partial"),
            Self::Expired | Self::Revalidated => Some("stale"),
            Self::Bypass => Some("bypass"),
        }
    }
}

/// Why a request went on to the origin (RFC 9211 § 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// The zone says that it goes past the cache.
    Bypass,
    /// Its method is not answered from the cache.
    Method,
    /// Nothing is stored for the URL.
    UriMiss,
    /// Something is stored for the URL, but not for requests like this one.
    VaryMiss,
    /// Nothing usable is stored, for another reason.
    Miss,
    /// The request wants something newer, or is for one person.
    Request,
    /// What is stored is stale.
    Stale,
    /// Only some of the bytes are stored.
    Partial,
}

impl Forward {
    /// As it stands in `Cache-Status`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// One member of `Cache-Status`; `Display` writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheStatus<'a> {
    /// The name of the node; the member is called `littoral-<node>`. Of `a-z`, `0-9` and `-`.
    pub node: &'a str,
    /// What the cache did.
    pub outcome: Outcome,
    /// Why the request went on, where that is known more exactly than the outcome says.
    pub forward: Option<Forward>,
    /// How long the response remains fresh, in seconds; negative: how long it has been stale.
    pub ttl_s: Option<i64>,
    /// The status that the origin answered with. Only written where the request went on.
    pub forward_status: Option<u16>,
    /// Whether the origin's answer was kept. Only written where the request went on.
    pub stored: bool,
    /// Whether the request shared a fetch that was already under way. Only written where the request went on.
    pub collapsed: bool,
    /// A word or sentence more, for people.
    pub detail: Option<&'a str>,
}

/// What a structured field's integer holds at most (RFC 9651 § 3.3.1).
const MAX_SF_INTEGER: i64 = 999_999_999_999_999;

impl fmt::Display for CacheStatus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "littoral-{}", self.node)?;
        // What is served stale after the origin has failed did go on: the answer is no plain hit (§ 2.2).
        match self.forward.map(Forward::word).or(self.outcome.forward()) {
            None => f.write_str("; hit")?,
            Some(why) => {
                write!(f, "; fwd={why}")?;
                if let Some(status) = self.forward_status {
                    write!(f, "; fwd-status={status}")?;
                }
                if self.stored {
                    f.write_str("; stored")?;
                }
                if self.collapsed {
                    f.write_str("; collapsed")?;
                }
            }
        }
        if let Some(ttl_s) = self.ttl_s {
            write!(f, "; ttl={}", ttl_s.clamp(-MAX_SF_INTEGER, MAX_SF_INTEGER))?;
        }
        if let Some(detail) = self.detail {
            f.write_str("; detail=")?;
            write_token_or_string(f, detail)?;
        }
        Ok(())
    }
}

/// Writes a structured field's token where the text is one, else a string (RFC 9651 § 4.1.6, § 4.1.7). What a string
/// cannot hold is written as `?`.
fn write_token_or_string(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    if is_sf_token(text) {
        return f.write_str(text);
    }
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            ' '..='~' => write!(f, "{c}")?,
            _ => f.write_str("?")?,
        }
    }
    f.write_str("\"")
}

fn is_sf_token(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '*')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: CacheStatus<'static> = CacheStatus {
        node: "lisbon",
        outcome: Outcome::Hit,
        forward: None,
        ttl_s: None,
        forward_status: None,
        stored: false,
        collapsed: false,
        detail: None,
    };

    fn check(status: CacheStatus<'_>, expected: &str) {
        assert_eq!(status.to_string(), expected);
        assert!(http::HeaderValue::from_str(&status.to_string()).is_ok());
    }

    #[test]
    fn members() {
        check(CacheStatus { ttl_s: Some(123), ..PLAIN }, "littoral-lisbon; hit; ttl=123");
        check(CacheStatus { outcome: Outcome::Stale, ttl_s: Some(-4), ..PLAIN }, "littoral-lisbon; hit; ttl=-4");
        // What is only said of a request that went on is not said of a hit.
        check(
            CacheStatus { stored: true, collapsed: true, forward_status: Some(200), ..PLAIN },
            "littoral-lisbon; hit",
        );
        check(
            CacheStatus {
                outcome: Outcome::Miss,
                forward_status: Some(200),
                stored: true,
                collapsed: true,
                ttl_s: Some(60),
                ..PLAIN
            },
            "littoral-lisbon; fwd=miss; fwd-status=200; stored; collapsed; ttl=60",
        );
        check(
            CacheStatus { outcome: Outcome::Revalidated, forward_status: Some(304), ..PLAIN },
            "littoral-lisbon; fwd=stale; fwd-status=304",
        );
        check(CacheStatus { outcome: Outcome::Bypass, ..PLAIN }, "littoral-lisbon; fwd=bypass");
        check(CacheStatus { outcome: Outcome::Partial, ..PLAIN }, "littoral-lisbon; fwd=partial");
        check(
            CacheStatus { outcome: Outcome::Miss, forward: Some(Forward::VaryMiss), ..PLAIN },
            "littoral-lisbon; fwd=vary-miss",
        );
        check(CacheStatus { ttl_s: Some(i64::MIN), ..PLAIN }, "littoral-lisbon; hit; ttl=-999999999999999");
    }

    #[test]
    fn details() {
        for (detail, expected) in [
            ("no-store", "no-store"),
            ("a/b:c", "a/b:c"),
            ("two words", "\"two words\""),
            ("1st", "\"1st\""),
            ("", "\"\""),
            ("say \"hi\" \\", "\"say \\\"hi\\\" \\\\\""),
            ("línea\r\n", "\"l?nea??\""),
        ] {
            check(CacheStatus { detail: Some(detail), ..PLAIN }, &format!("littoral-lisbon; hit; detail={expected}"));
        }
    }

    #[test]
    fn every_outcome_has_its_own_word() {
        let words: std::collections::HashSet<&str> = Outcome::ALL.iter().map(|outcome| outcome.word()).collect();
        assert_eq!(words.len(), Outcome::ALL.len());
    }

    proptest::proptest! {
        #[test]
        fn any_detail_makes_a_header(detail in ".{0,40}") {
            check_header(&detail)?;
        }
    }

    fn check_header(detail: &str) -> Result<(), proptest::test_runner::TestCaseError> {
        let value = CacheStatus { detail: Some(detail), ..PLAIN }.to_string();
        proptest::prop_assert!(value.is_ascii() && http::HeaderValue::from_str(&value).is_ok(), "{}", value);
        Ok(())
    }
}
