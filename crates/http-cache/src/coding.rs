//! Content codings (RFC 9110 § 8.4): which one a request accepts, which responses may be coded on their way, and what tells
//! the coded form of a response from the form in which it came.
//!
//! Nothing here allocates but the making of an entity tag: `Accept-Encoding` is read for each hit.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::conditional::etag_list_matches;
use crate::vary::{FULL_WEIGHT, thousandths};

/// A coding that can be made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Brotli,
    /// RFC 1952.
    Gzip,
}

/// Fields that are about the bytes of a representation: true of one form only (RFC 9530, RFC 3230, RFC 1864).
const ABOUT_BYTES: [HeaderName; 4] = [
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

impl Coding {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// Its name in `Content-Encoding`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// Its place in [`Self::ALL`].
    pub fn index(self) -> usize {
        match self {
            Self::Zstd => 0,
            Self::Brotli => 1,
            Self::Gzip => 2,
        }
    }

    fn of(name: &[u8]) -> Option<Self> {
        // RFC 9110 § 8.4.1.3: `x-gzip` is the same.
        let name = if name.eq_ignore_ascii_case(b"x-gzip") { b"gzip" } else { name };
        Self::ALL.into_iter().find(|coding| name.eq_ignore_ascii_case(coding.word().as_bytes()))
    }

    /// The entity tag of a response in this coding, out of the one that it has by itself: another one where that is strong,
    /// because the bytes are others (RFC 9110 § 8.8.3.3); the same where it is weak. Nothing: `etag` is none.
    pub fn etag(self, etag: &HeaderValue) -> Option<HeaderValue> {
        let bytes = etag.as_bytes();
        let inner = bytes.strip_suffix(b"\"")?;
        if bytes.starts_with(b"W/\"") {
            return Some(etag.clone());
        }
        let inner = inner.strip_prefix(b"\"")?;
        HeaderValue::from_bytes(&[b"\"", inner, b"-", self.word().as_bytes(), b"\""].concat()).ok()
    }

    /// Makes the fields of a response those of the same in this coding. `Content-Length` is left to whoever knows it.
    pub fn describe(self, fields: &mut HeaderMap) {
        fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static(self.word()));
        if let Some(etag) = fields.get(header::ETAG) {
            match self.etag(etag) {
                Some(etag) => fields.insert(header::ETAG, etag),
                None => fields.remove(header::ETAG),
            };
        }
        for name in ABOUT_BYTES {
            fields.remove(name);
        }
        // Ranges are of the response as it came. Without a strong tag nobody could tell that what they have is no part of that.
        if !fields.get(header::ETAG).is_some_and(|etag| etag.as_bytes().starts_with(b"\"")) {
            fields.insert(header::ACCEPT_RANGES, HeaderValue::from_static("none"));
        }
    }
}

/// What an `Accept-Encoding` accepts (RFC 9110 § 12.5.3), in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    weights: [u16; 3],
    /// Of a response as it is; 0 where that is not asked for by name, for then it is the last resort.
    identity: u16,
}

impl Accepted {
    /// Reads all lines. Without any, only the form in which a response came is: to say nothing is no wish for a coding. A
    /// member that cannot be read accepts nothing.
    pub fn read<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let (mut named, mut rest, mut identity) = ([None; 3], 0, 0);
        for member in lines.into_iter().flat_map(|line| line.split(|&b| b == b',')) {
            let mut parts = member.split(|&b| b == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            let weight = match (parts.next(), parts.next()) {
                (None, _) => FULL_WEIGHT,
                (Some([b'q' | b'Q', b'=', digits @ ..]), None) => thousandths(digits).unwrap_or(0),
                _ => 0,
            };
            if name == b"*" {
                rest = weight;
            } else if name.eq_ignore_ascii_case(b"identity") {
                identity = weight;
            } else if let Some(place) = Coding::of(name).and_then(|coding| named.get_mut(coding.index())) {
                *place = Some(weight);
            }
        }
        Self { weights: named.map(|weight| weight.unwrap_or(rest)), identity }
    }

    /// The `Accept-Encoding` of a request.
    pub fn of(request: &HeaderMap) -> Self {
        Self::read(request.get_all(header::ACCEPT_ENCODING).iter().map(HeaderValue::as_bytes))
    }

    fn weight(&self, coding: Coding) -> u16 {
        self.weights.get(coding.index()).copied().unwrap_or(0)
    }

    /// Whether a response may be sent in a coding.
    pub fn accepts(&self, coding: Coding) -> bool {
        self.weight(coding) > 0
    }

    /// The coding that is liked best; of equals, the first in `order`. Nothing: the form in which the response came.
    pub fn best(&self, order: impl IntoIterator<Item = Coding>) -> Option<Coding> {
        let mut best: Option<(u16, Coding)> = None;
        for coding in order {
            let weight = self.weight(coding);
            if weight > 0 && weight >= self.identity && best.is_none_or(|(most, _)| weight > most) {
                best = Some((weight, coding));
            }
        }
        best.map(|(_, coding)| coding)
    }
}

/// Whether these fields of a response leave its coding to us: it has none yet, and nothing forbids to change it
/// (`no-transform`, RFC 9111 § 5.2.2.6).
pub fn may_be_coded(response: &HeaderMap) -> bool {
    !response.contains_key(header::CONTENT_ENCODING) && !forbids(response)
}

/// Whether the `Cache-Control` of a message says `no-transform`.
pub fn forbids(fields: &HeaderMap) -> bool {
    forbidden(fields.get_all(header::CACHE_CONTROL).iter().map(HeaderValue::as_bytes))
}

/// The same of the lines of a `Cache-Control`.
pub fn forbidden<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> bool {
    let mut members = lines.into_iter().flat_map(|line| line.split(|&b| b == b','));
    members.any(|member| member.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

/// Says that a response depends on `Accept-Encoding`, unless it says so, or more, already.
pub fn vary_by_coding(fields: &mut HeaderMap) {
    let mut members = fields
        .get_all(header::VARY)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&b| b == b',').map(<[u8]>::trim_ascii));
    if !members.any(|member| member == b"*" || member.eq_ignore_ascii_case(b"accept-encoding")) {
        fields.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// The tag of a coded form of a response, where the request's `If-None-Match` names it and accepts its coding: whoever has
/// that form has what is there, whether or not it is kept here now.
pub fn named_form(
    request: &HeaderMap,
    accepted: &Accepted,
    etag: &HeaderValue,
    codings: impl IntoIterator<Item = Coding>,
) -> Option<HeaderValue> {
    let named = |tag: &HeaderValue| {
        let Ok(text) = tag.to_str() else { return false };
        let mut lines = request.get_all(header::IF_NONE_MATCH).iter();
        lines.any(|line| line.as_bytes().trim_ascii() != b"*" && etag_list_matches(line, text, false))
    };
    if !request.contains_key(header::IF_NONE_MATCH) {
        return None;
    }
    codings.into_iter().filter(|coding| accepted.accepts(*coding)).find_map(|coding| coding.etag(etag).filter(named))
}

/// An `If-Match` as the origin understands it: tags of coded forms are followed by those of which they were made. Nothing:
/// it needs no change.
pub fn own_tags(value: &HeaderValue) -> Option<HeaderValue> {
    let mut own = Vec::new();
    for member in value.as_bytes().split(|&b| b == b',').map(<[u8]>::trim_ascii) {
        let coded = |coding: Coding| {
            let inner = member.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
            inner.strip_suffix(coding.word().as_bytes())?.strip_suffix(b"-")
        };
        if let Some(inner) = Coding::ALL.into_iter().find_map(coded) {
            own.extend_from_slice(b", \"");
            own.extend_from_slice(inner);
            own.push(b'"');
        }
    }
    if own.is_empty() { None } else { HeaderValue::from_bytes(&[value.as_bytes(), &own].concat()).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(name.clone(), value.parse().expect("value"));
        }
        fields
    }

    #[test]
    fn what_is_accepted() {
        for (lines, expected) in [
            (&[][..], None),
            (&[""], None),
            (&["gzip"], Some("gzip")),
            (&["x-gzip"], Some("gzip")),
            (&["GZip"], Some("gzip")),
            (&["gzip, deflate, br, zstd"], Some("zstd")),
            (&["gzip, br"], Some("br")),
            (&["gzip", "br"], Some("br")),
            (&["gzip;q=1, br;q=0.9"], Some("gzip")),
            (&["gzip ; q=0.8 ,br;Q=0.9"], Some("br")),
            (&["gzip;q=0"], None),
            (&["gzip;q=0.000, br;q=0.001"], Some("br")),
            (&["*"], Some("zstd")),
            (&["*;q=0"], None),
            (&["*, zstd;q=0"], Some("br")),
            (&["gzip, *;q=0"], Some("gzip")),
            (&["*;q=0.5, gzip"], Some("gzip")),
            (&["zstd;q=0, *;q=0.1"], Some("br")),
            (&["identity"], None),
            (&["identity;q=0, gzip"], Some("gzip")),
            (&["identity, gzip"], Some("gzip")),
            (&["identity, gzip;q=0.9"], None),
            (&["identity;q=0.5, gzip;q=0.9, br;q=0.1"], Some("gzip")),
            (&["deflate, compress"], None),
            (&["gzip;q=2"], None),
            (&["gzip;q="], None),
            (&["gzip;q=0.1234"], None),
            (&["gzip;level=9"], None),
            (&["gzip;q=1;x=1"], None),
            (&[",, gzip ,"], Some("gzip")),
            (&["gzipped, brr"], None),
            (&["g zip"], None),
        ] {
            let accepted = Accepted::read(lines.iter().map(|line| line.as_bytes()));
            assert_eq!(accepted.best(Coding::ALL).map(Coding::word), expected, "{lines:?}");
        }
        let both = Accepted::read([b"zstd, br, gzip".as_slice()]);
        assert_eq!(both.best([Coding::Gzip, Coding::Zstd]), Some(Coding::Gzip), "the order of the server among equals");
        assert_eq!(both.best([]), None);
        assert!(both.accepts(Coding::Brotli) && !Accepted::of(&HeaderMap::new()).accepts(Coding::Brotli));
    }

    #[test]
    fn places_and_names() {
        for (index, coding) in Coding::ALL.into_iter().enumerate() {
            assert_eq!((coding.index(), Coding::of(coding.word().as_bytes())), (index, Some(coding)));
        }
    }

    #[test]
    fn tags_of_forms() {
        for (etag, expected) in [
            ("\"a\"", Some("\"a-gzip\"")),
            ("\"\"", Some("\"-gzip\"")),
            ("W/\"a\"", Some("W/\"a\"")),
            ("a", None),
            ("\"", None),
            ("\"a", None),
        ] {
            let made = Coding::Gzip.etag(&HeaderValue::from_static(etag));
            assert_eq!(made, expected.map(HeaderValue::from_static), "{etag}");
        }
        for (value, expected) in [
            ("\"a\"", None),
            ("*", None),
            ("\"a-gzip\"", Some("\"a-gzip\", \"a\"")),
            ("\"a-br\", W/\"b-br\", \"c-zstd\"", Some("\"a-br\", W/\"b-br\", \"c-zstd\", \"a\", \"c\"")),
            ("\"gzip\"", None),
        ] {
            let own = own_tags(&HeaderValue::from_static(value));
            assert_eq!(own, expected.map(HeaderValue::from_static), "{value}");
        }
    }

    #[test]
    fn forms_that_a_client_has() {
        for (asked, accepts, etag, expected) in [
            (Some("\"a-gzip\""), "gzip", "\"a\"", Some("\"a-gzip\"")),
            (Some("\"x\", W/\"a-br\""), "gzip, br", "\"a\"", Some("\"a-br\"")),
            (Some("\"a-gzip\""), "br", "\"a\"", None),
            (Some("\"a\""), "gzip", "\"a\"", None),
            (Some("*"), "gzip", "\"a\"", None),
            (Some("\"b-gzip\""), "gzip", "\"a\"", None),
            (Some("W/\"a\""), "gzip", "W/\"a\"", Some("W/\"a\"")),
            (None, "gzip", "\"a\"", None),
        ] {
            let request = map(&asked.map(|tags| (header::IF_NONE_MATCH, tags)).into_iter().collect::<Vec<_>>());
            let accepted = Accepted::read([accepts.as_bytes()]);
            let form = named_form(&request, &accepted, &HeaderValue::from_static(etag), Coding::ALL);
            assert_eq!(form, expected.map(HeaderValue::from_static), "{asked:?} {accepts}");
        }
    }

    #[test]
    fn what_is_left_alone_and_what_is_said() {
        for (fields, expected) in [
            (&[][..], true),
            (&[(header::CONTENT_ENCODING, "br")], false),
            (&[(header::CONTENT_ENCODING, "identity")], false),
            (&[(header::CACHE_CONTROL, "max-age=1, No-Transform")], false),
            (&[(header::CACHE_CONTROL, "max-age=1"), (header::CACHE_CONTROL, "no-transform")], false),
            (&[(header::CACHE_CONTROL, "no-transformation")], true),
        ] {
            assert_eq!(may_be_coded(&map(fields)), expected, "{fields:?}");
        }
        for (before, expected) in [
            (&[][..], &["Accept-Encoding"][..]),
            (&["Cookie"], &["Cookie", "Accept-Encoding"]),
            (&["cookie, accept-encoding"], &["cookie, accept-encoding"]),
            (&["*"], &["*"]),
        ] {
            let mut fields = map(&before.iter().map(|value| (header::VARY, *value)).collect::<Vec<_>>());
            vary_by_coding(&mut fields);
            assert_eq!(fields.get_all(header::VARY).iter().collect::<Vec<_>>(), expected, "{before:?}");
        }
        let mut fields = map(&[(header::ETAG, "\"a\""), (ABOUT_BYTES[0].clone(), "sha-256=:x:")]);
        Coding::Zstd.describe(&mut fields);
        assert_eq!(fields, map(&[(header::ETAG, "\"a-zstd\""), (header::CONTENT_ENCODING, "zstd")]));
        for (etag, ranges) in [(Some("\"a\""), "bytes"), (Some("W/\"a\""), "none"), (Some("a"), "none"), (None, "none")]
        {
            let mut fields = map(&[(header::ACCEPT_RANGES, "bytes")]);
            fields.extend(etag.map(|etag| (header::ETAG, HeaderValue::from_static(etag))));
            Coding::Gzip.describe(&mut fields);
            assert_eq!(fields[header::ACCEPT_RANGES], ranges, "{etag:?}");
        }
    }
}
