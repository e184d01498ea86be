//! Names that are valid by construction. Each is parsed once, at the door, and trusted behind it.
//!
//! Every parser answers with [`InvalidName`], which says what was wrong and what would be right.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Longest path of a file, in bytes of UTF-8.
pub const MAX_PATH_BYTES: usize = 1_024;
/// Longest zone or node name, in bytes.
pub const MAX_NAME_BYTES: usize = 63;
/// Longest tag, in bytes.
pub const MAX_TAG_BYTES: usize = 256;
/// Paths below this prefix belong to Littoral itself (`/-/<id>`), so no file may be put there.
pub const RESERVED_PREFIX: &str = "-/";

/// A name that breaks its rules: `what` is the kind of name, `why` names the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {shown:?} is not valid: {why}")]
pub struct InvalidName {
    /// The kind of name, for example `path`.
    pub what: &'static str,
    /// The offending text, cut to 80 characters.
    pub shown: String,
    /// The rule that it breaks, as a sentence.
    pub why: String,
}

fn invalid(what: &'static str, text: &str, why: impl Into<String>) -> InvalidName {
    InvalidName { what, shown: text.chars().take(80).collect(), why: why.into() }
}

/// Implements the string conversions and serde through `FromStr` and `as_str`, so that no name is ever built unchecked.
macro_rules! string_name {
    ($name:ident) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.into()
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

/// The name of a zone: 1 to 63 of `a-z`, `0-9` and `-`, neither first nor last a `-` (a DNS label, RFC 1123 § 2.1).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "files")]
pub struct ZoneName(Box<str>);

/// The name of a node, with the same rule as [`ZoneName`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "lisbon")]
pub struct NodeName(Box<str>);

fn check_label(what: &'static str, text: &str) -> Result<Box<str>, InvalidName> {
    let rule = "use 1 to 63 of a-z, 0-9 and '-', neither starting nor ending with '-'";
    let charset = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let ends = text.starts_with('-') || text.ends_with('-');
    if text.is_empty() || text.len() > MAX_NAME_BYTES || !charset || ends {
        return Err(invalid(what, text, rule));
    }
    Ok(text.into())
}

impl FromStr for ZoneName {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        check_label("zone name", text).map(Self)
    }
}
impl FromStr for NodeName {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        check_label("node name", text).map(Self)
    }
}
string_name!(ZoneName);
string_name!(NodeName);

/// The path of a file in its zone, without a leading slash: `img/photo.jpg`.
///
/// At most [`MAX_PATH_BYTES`] bytes of UTF-8; segments are never empty, `.` or `..`; no control characters, no
/// backslash (browsers turn it into a slash), and nothing below [`RESERVED_PREFIX`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "img/photo.jpg")]
pub struct FilePath(Box<str>);

impl FromStr for FilePath {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let bad = |why: &str| Err(invalid("path", text, why));
        if text.is_empty() {
            return bad("it is empty; name at least one segment, like 'photo.jpg'");
        }
        if text.len() > MAX_PATH_BYTES {
            let why = format!("it has {} bytes; at most {MAX_PATH_BYTES} are allowed", text.len());
            return Err(invalid("path", text, why));
        }
        if text.starts_with('/') {
            return bad("it is absolute; write it without the leading '/'");
        }
        if text.contains('\\') {
            return bad("it contains a backslash; separate segments with '/'");
        }
        if text.chars().any(char::is_control) {
            return bad("it contains a control character (NUL, newline, …)");
        }
        if text.starts_with(RESERVED_PREFIX) || text == "-" {
            return bad("paths below '-/' are reserved for Littoral itself");
        }
        for segment in text.split('/') {
            match segment {
                "" => return bad("it has an empty segment ('//' or a trailing '/')"),
                "." | ".." => return bad("'.' and '..' segments are not allowed"),
                _ => {}
            }
        }
        Ok(Self(text.into()))
    }
}
string_name!(FilePath);

/// What stays unescaped in a path segment: RFC 3986 § 3.3 `pchar`, and `/` between segments.
const PATH_ESCAPES: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

impl FilePath {
    /// Decodes the path of a URL (without its leading slash, still percent-encoded) once, and checks the result.
    ///
    /// # Errors
    /// A malformed escape, bytes that are not UTF-8, or a path that breaks the rules of [`FilePath`].
    pub fn from_url(raw: &str) -> Result<Self, InvalidName> {
        decode_url(raw)?.parse()
    }

    /// The path as it stands in a URL: percent-encoded, slashes kept.
    pub fn to_url(&self) -> String {
        utf8_percent_encode(&self.0, PATH_ESCAPES).to_string()
    }
}

/// Percent-decodes the path of a URL once.
///
/// # Errors
/// A `%` that two hexadecimal digits do not follow, or bytes that are not UTF-8.
pub fn decode_url(raw: &str) -> Result<String, InvalidName> {
    let mut rest = raw.as_bytes();
    while let Some(at) = rest.iter().position(|&b| b == b'%') {
        let digits = rest.get(at + 1..at + 3);
        if !digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit)) {
            return Err(invalid("path", raw, "a '%' must be followed by two hexadecimal digits"));
        }
        rest = rest.get(at + 3..).unwrap_or_default();
    }
    match percent_decode_str(raw).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(invalid("path", raw, "it is not UTF-8 after percent-decoding")),
    }
}

/// A tag (surrogate key): 1 to [`MAX_TAG_BYTES`] visible ASCII characters without a comma.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "product-42")]
pub struct Tag(Box<str>);

impl FromStr for Tag {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() || text.len() > MAX_TAG_BYTES || !text.bytes().all(|b| b.is_ascii_graphic() && b != b',') {
            return Err(invalid("tag", text, "use 1 to 256 visible ASCII characters without spaces or commas"));
        }
        Ok(Self(text.into()))
    }
}
string_name!(Tag);

impl Tag {
    /// Parses a `Surrogate-Key` value: tags between spaces, repetitions dropped, order kept.
    ///
    /// # Errors
    /// A tag that breaks the rule, or more than [`crate::MAX_TAGS_PER_FILE`] of them.
    pub fn parse_list(value: &str) -> Result<Vec<Tag>, InvalidName> {
        let mut tags: Vec<Tag> = Vec::new();
        for word in value.split_ascii_whitespace() {
            let tag: Tag = word.parse()?;
            if tags.contains(&tag) {
                continue;
            }
            if tags.len() == crate::MAX_TAGS_PER_FILE {
                return Err(invalid("Surrogate-Key", value, format!("at most {} tags", crate::MAX_TAGS_PER_FILE)));
            }
            tags.push(tag);
        }
        Ok(tags)
    }
}

/// The identity of a file: a UUIDv7 (RFC 9562 § 5.7) that never changes and is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, format = "uuid")]
pub struct FileId(pub Uuid);

impl FromStr for FileId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match Uuid::try_parse(text) {
            Ok(id) => Ok(Self(id)),
            Err(_) => Err(invalid("file id", text, "use a UUID like 019a9f3e-0000-7000-8000-000000000000")),
        }
    }
}
impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// A BLAKE3 digest of a whole body, written as 64 lower-case hexadecimal digits: what `b3sum` prints.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
    /// The strong entity tag of a body with this digest: the digest in double quotes (RFC 9110 § 8.8.3).
    pub fn etag(&self) -> String {
        format!("\"{self}\"")
    }
}
impl FromStr for Digest {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match blake3::Hash::from_hex(text) {
            Ok(hash) => Ok(Self(*hash.as_bytes())),
            Err(_) => Err(invalid("digest", text, "use the 64 hexadecimal digits that b3sum prints")),
        }
    }
}
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl TryFrom<String> for Digest {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}
impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// A place on Earth: latitude −90 to 90 and longitude −180 to 180, in degrees.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "RawPlace")]
pub struct Place {
    /// Latitude in degrees, north positive.
    pub lat: f64,
    /// Longitude in degrees, east positive.
    pub lng: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlace {
    lat: f64,
    lng: f64,
}
impl TryFrom<RawPlace> for Place {
    type Error = InvalidName;
    fn try_from(raw: RawPlace) -> Result<Self, InvalidName> {
        Place::new(raw.lat, raw.lng)
    }
}

impl Place {
    /// A place, checked.
    ///
    /// # Errors
    /// A coordinate that is not a number or out of its bounds.
    pub fn new(lat: f64, lng: f64) -> Result<Self, InvalidName> {
        if (-90.0..=90.0).contains(&lat) && (-180.0..=180.0).contains(&lng) {
            return Ok(Self { lat, lng });
        }
        Err(invalid("place", &format!("{lat},{lng}"), "use LAT,LNG in degrees: -90 to 90, -180 to 180"))
    }
}
impl FromStr for Place {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let parsed =
            text.split_once(',').and_then(|(lat, lng)| Some((lat.trim().parse().ok()?, lng.trim().parse().ok()?)));
        let Some((lat, lng)) = parsed else {
            return Err(invalid("place", text, "use LAT,LNG in degrees, like 38.72,-9.14"));
        };
        Place::new(lat, lng)
    }
}
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.lat, self.lng)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_paths_say_why() {
        let long = "a".repeat(MAX_PATH_BYTES + 1);
        let cases: &[(&str, &str)] = &[
            ("", "empty"),
            ("/etc/passwd", "absolute"),
            ("..", "'.' and '..'"),
            ("a/../b", "'.' and '..'"),
            ("%2e%2e/b", "'.' and '..'"),
            ("%2E%2e%2fb", "'.' and '..'"),
            ("a//b", "empty segment"),
            ("a/", "empty segment"),
            ("a%00b", "control character"),
            ("a%0Ab", "control character"),
            ("a%5cb", "backslash"),
            ("%ff%fe", "not UTF-8"),
            ("a%2", "two hexadecimal digits"),
            ("a%zz", "two hexadecimal digits"),
            ("-/x", "reserved"),
            (&long, "at most 1024"),
        ];
        for (raw, why) in cases {
            let error = FilePath::from_url(raw).expect_err(raw).to_string();
            assert!(error.contains(why), "{raw:?}: {error}");
        }
    }

    #[test]
    fn good_paths_round_trip() {
        let longest = "a".repeat(MAX_PATH_BYTES);
        for path in ["a", "img/photo 1.jpg", "größe/日本.html", "100%.txt", "a?b#c", "...", "-", "a-/b", &longest] {
            if path == "-" {
                continue;
            }
            let parsed: FilePath = path.parse().expect(path);
            assert_eq!(FilePath::from_url(&parsed.to_url()).expect(path), parsed);
        }
    }

    #[test]
    fn labels_tags_places() {
        assert!("files".parse::<ZoneName>().is_ok());
        for bad in ["", "-a", "a-", "A", "a_b", &"x".repeat(64)] {
            assert!(bad.parse::<ZoneName>().is_err(), "{bad:?}");
        }
        assert_eq!(Tag::parse_list(" a  b a ").expect("tags").len(), 2);
        assert!(Tag::parse_list("a,b").is_err());
        let many = (0..=crate::MAX_TAGS_PER_FILE).map(|n| format!("t{n} ")).collect::<String>();
        assert!(Tag::parse_list(&many).is_err());
        assert!("91,0".parse::<Place>().is_err());
        assert!("NaN,0".parse::<Place>().is_err());
        assert!("38.7,-9.1".parse::<Place>().is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_path_parser_panics_and_all_accepted_round_trip(raw in ".{0,80}") {
            if let Ok(path) = FilePath::from_url(&raw) {
                proptest::prop_assert_eq!(FilePath::from_url(&path.to_url()).expect("round trip"), path);
            }
        }
    }
}
