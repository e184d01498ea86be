//! The head of an upload, read once and checked before anything is asked or stored. Pure.

use api::names::{FilePath, decode_url};
use api::node::Conditions;
use api::{ErrorCode, MAX_CACHE_CONTROL_BYTES, Problem, Tag};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, IF_MATCH,
    IF_NONE_MATCH,
};

use crate::media;
use crate::repr_digest::ReprDigest;

/// What a client says about the body it sends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct UploadHead {
    pub(crate) authorization: Option<String>,
    pub(crate) conditions: Conditions,
    pub(crate) media_type: Option<String>,
    pub(crate) cache_control: Option<String>,
    pub(crate) tags: Vec<Tag>,
    pub(crate) digests: Option<ReprDigest>,
    /// `?wait=edges`.
    pub(crate) wait: bool,
    /// `?name=`, for an upload that gets a generated path: the extension, with its dot.
    pub(crate) extension: Option<String>,
}

/// Longest extension that a generated path takes over from a name, in bytes.
const MAX_EXTENSION_BYTES: usize = 16;

impl UploadHead {
    /// Reads headers and query. `generated`: the path will be made up, so that a name may be given.
    pub(crate) fn parse(headers: &HeaderMap, query: Option<&str>, generated: bool) -> Result<Self, Problem> {
        for name in [CONTENT_ENCODING, CONTENT_RANGE] {
            if headers.contains_key(&name) {
                // RFC 9110 § 14.5 wants 400 for Content-Range on a PUT, so that a part never replaces the whole.
                return Err(invalid(format!("{name} is not taken here; send the whole file as it is to be kept")));
            }
        }
        let mut head = Self {
            authorization: joined(headers, &AUTHORIZATION, ", ")?,
            conditions: Conditions {
                if_match: joined(headers, &IF_MATCH, ", ")?,
                if_none_match: joined(headers, &IF_NONE_MATCH, ", ")?,
            },
            media_type: media_type(headers)?,
            cache_control: joined(headers, &CACHE_CONTROL, ", ")?,
            tags: Vec::new(),
            digests: joined(headers, &HeaderName::from_static("repr-digest"), ", ")?
                .map(|value| ReprDigest::parse(&value))
                .transpose()?,
            wait: false,
            extension: None,
        };
        if let Some(value) = &head.cache_control
            && value.len() > MAX_CACHE_CONTROL_BYTES
        {
            let length = value.len();
            return Err(invalid(format!(
                "Cache-Control has {length} bytes; at most {MAX_CACHE_CONTROL_BYTES} are kept"
            )));
        }
        if let Some(value) = joined(headers, &HeaderName::from_static("surrogate-key"), " ")? {
            head.tags = Tag::parse_list(&value)?;
        }
        head.read_query(query.unwrap_or_default(), generated)?;
        Ok(head)
    }

    fn read_query(&mut self, query: &str, generated: bool) -> Result<(), Problem> {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode_url(value)?;
            match name {
                "wait" if value == "edges" => self.wait = true,
                "wait" => return Err(invalid(format!("wait={value:?} is not known; use wait=edges or leave it out"))),
                "name" if generated => self.extension = extension_of(&value)?,
                _ => {
                    let known = if generated { "wait and name" } else { "wait" };
                    let name: String = name.chars().take(80).collect();
                    return Err(invalid(format!("there is no query parameter {name:?} here; known: {known}")));
                }
            }
        }
        Ok(())
    }

    /// What a generated path ends in: the extension of the name, else one for the media type, else nothing.
    pub(crate) fn suffix(&self) -> String {
        let guessed = || self.media_type.as_deref().and_then(media::extension).map(|known| format!(".{known}"));
        self.extension.clone().or_else(guessed).unwrap_or_default()
    }
}

fn media_type(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let value = joined(headers, &CONTENT_TYPE, ", ")?;
    match value {
        Some(value) if !media::is_valid(&value) => {
            let shown: String = value.chars().take(80).collect();
            Err(invalid(format!("Content-Type {shown:?} is not a media type; use one like text/html; charset=utf-8")))
        }
        value => Ok(value),
    }
}

/// The extension of a file name, lower case with its dot; nothing where it has none worth keeping.
fn extension_of(name: &str) -> Result<Option<String>, Problem> {
    if name.contains('/') {
        return Err(invalid(format!("name={name:?} is not a file name; leave the folders out, like name=photo.jpg")));
    }
    let name: FilePath = name.parse()?;
    let extension = name.as_str().rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    let good = |e: &String| {
        (1..=MAX_EXTENSION_BYTES).contains(&e.len()) && e.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    Ok(extension.filter(good).map(|extension| format!(".{extension}")))
}

/// All lines of a field as one value.
fn joined(headers: &HeaderMap, name: &HeaderName, separator: &str) -> Result<Option<String>, Problem> {
    let mut whole: Option<String> = None;
    for line in headers.get_all(name) {
        let line = line.to_str().map_err(|_| invalid(format!("{name} holds characters that are not visible ASCII")))?;
        match &mut whole {
            Some(whole) => *whole = format!("{whole}{separator}{line}"),
            None => whole = Some(line.to_owned()),
        }
    }
    Ok(whole)
}

fn invalid(detail: String) -> Problem {
    Problem::new(ErrorCode::InvalidRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(fields: &[(&'static str, &str)], query: Option<&str>, generated: bool) -> Result<UploadHead, Problem> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let value = http::HeaderValue::from_bytes(value.as_bytes()).expect("value");
            headers.append(HeaderName::from_static(name), value);
        }
        UploadHead::parse(&headers, query, generated)
    }

    #[test]
    fn everything_that_may_be_said() {
        let head = parse(
            &[
                ("authorization", "Bearer x"),
                ("content-type", "text/html"),
                ("cache-control", "max-age=60"),
                ("cache-control", "public"),
                ("surrogate-key", "a b"),
                ("surrogate-key", "c a"),
                ("if-match", "\"1\""),
                ("if-match", "\"2\""),
                ("if-none-match", "*"),
                ("repr-digest", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"),
            ],
            Some("wait=edges"),
            false,
        )
        .expect("good");
        assert_eq!(head.authorization.as_deref(), Some("Bearer x"));
        assert_eq!(head.media_type.as_deref(), Some("text/html"));
        assert_eq!(head.cache_control.as_deref(), Some("max-age=60, public"));
        assert_eq!(head.tags.len(), 3);
        assert_eq!(head.conditions.if_match.as_deref(), Some("\"1\", \"2\""));
        assert_eq!(head.conditions.if_none_match.as_deref(), Some("*"));
        assert!(head.digests.is_some() && head.wait);
        let nothing = parse(&[], None, false).expect("nothing said");
        assert!(nothing.media_type.is_none() && nothing.digests.is_none() && !nothing.wait);
    }

    #[test]
    fn bad_heads_say_why() {
        let long = "x".repeat(MAX_CACHE_CONTROL_BYTES + 1);
        let many = (0..=api::MAX_TAGS_PER_FILE).map(|n| format!("t{n} ")).collect::<String>();
        type Case<'a> = (&'a [(&'static str, &'a str)], Option<&'a str>, &'a str);
        let cases: &[Case<'_>] = &[
            (&[("content-encoding", "gzip")], None, "content-encoding is not taken"),
            (&[("content-range", "bytes 0-1/2")], None, "content-range is not taken"),
            (&[("content-type", "nonsense")], None, "is not a media type"),
            (&[("content-type", "a/b"), ("content-type", "c/d")], None, "is not a media type"),
            (&[("cache-control", &long)], None, "at most 1024"),
            (&[("surrogate-key", "a,b")], None, "without spaces or commas"),
            (&[("surrogate-key", &many)], None, "at most 128 tags"),
            (&[("repr-digest", "x")], None, "sha-256=:BASE64:"),
            (&[("if-match", "\"ä\"")], None, "visible ASCII"),
            (&[], Some("wait=yes"), "use wait=edges"),
            (&[], Some("wait"), "use wait=edges"),
            (&[], Some("name=a.txt"), "\"name\""),
            (&[], Some("wait=edges&Wait=edges"), "\"Wait\""),
            (&[], Some("wait=%zz"), "hexadecimal"),
        ];
        for (fields, query, why) in cases {
            let problem = parse(fields, *query, false).expect_err(why);
            assert_eq!(problem.status, 400, "{why}");
            assert!(problem.detail.contains(why), "{why}: {}", problem.detail);
        }
    }

    #[test]
    fn generated_paths_end_in_an_extension() {
        for (query, media_type, expected) in [
            ("name=photo.JPG", None, ".jpg"),
            ("name=my%20photo.tar.gz", Some("image/png"), ".gz"),
            ("name=README", Some("image/png"), ".png"),
            ("name=odd.%C3%A4", None, ""),
            ("name=odd.aaaaaaaaaaaaaaaaa", None, ""),
            ("", Some("text/plain"), ".txt"),
            ("", None, ""),
        ] {
            let fields: Vec<_> = media_type.map(|value| ("content-type", value)).into_iter().collect();
            assert_eq!(parse(&fields, Some(query), true).expect(query).suffix(), expected, "{query}");
        }
        for bad in ["name=", "name=a/b.txt", "name=a%00b", "name=..", "other=1"] {
            assert_eq!(parse(&[], Some(bad), true).expect_err(bad).status, 400, "{bad}");
        }
    }
}
