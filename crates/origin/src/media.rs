//! Media types: which ones are well formed, and guessing between them and the extensions of names.

use api::names::FilePath;

/// Whether `value` is a media type (RFC 9110 § 8.3.1), with or without parameters, of at most
/// [`api::MAX_MEDIA_TYPE_BYTES`].
pub(crate) fn is_valid(value: &str) -> bool {
    let mut parts = value.split(';');
    let essence = parts.next().unwrap_or_default().trim();
    value.len() <= api::MAX_MEDIA_TYPE_BYTES
        && essence.split_once('/').is_some_and(|(kind, sub)| is_token(kind) && is_token(sub))
        && parts.all(|parameter| is_parameter(parameter.trim()))
}

/// The media type of a path by its extension; of text, with the character set that files are nearly always in.
pub(crate) fn guess(path: &FilePath) -> Option<String> {
    let guessed = mime_guess::from_path(path.as_str()).first_raw()?;
    Some(if guessed.starts_with("text/") { format!("{guessed}; charset=utf-8") } else { guessed.to_owned() })
}

/// The extension for a file of this media type, without the dot, where there is a usual one.
pub(crate) fn extension(media_type: &str) -> Option<&'static str> {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    EXTENSIONS.iter().find(|(known, _)| essence.eq_ignore_ascii_case(known)).map(|(_, extension)| *extension)
}

/// The media types that files without a name are likely to have.
const EXTENSIONS: [(&str, &str); 26] = [
    ("application/gzip", "gz"),
    ("application/javascript", "js"),
    ("application/json", "json"),
    ("application/pdf", "pdf"),
    ("application/wasm", "wasm"),
    ("application/xml", "xml"),
    ("application/zip", "zip"),
    ("audio/mpeg", "mp3"),
    ("audio/ogg", "ogg"),
    ("audio/wav", "wav"),
    ("font/woff2", "woff2"),
    ("image/avif", "avif"),
    ("image/gif", "gif"),
    ("image/jpeg", "jpg"),
    ("image/png", "png"),
    ("image/svg+xml", "svg"),
    ("image/webp", "webp"),
    ("text/css", "css"),
    ("text/csv", "csv"),
    ("text/html", "html"),
    ("text/javascript", "js"),
    ("text/markdown", "md"),
    ("text/plain", "txt"),
    ("text/xml", "xml"),
    ("video/mp4", "mp4"),
    ("video/webm", "webm"),
];

fn is_parameter(parameter: &str) -> bool {
    // A quoted string may hold nearly everything, but a `;` in one is so rare that it is not worth a parser.
    let Some((name, value)) = parameter.split_once('=') else { return parameter.is_empty() };
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let value_is_good = match quoted {
        Some(text) => text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\'),
        None => is_token(value),
    };
    is_token(name) && value_is_good
}

/// RFC 9110 § 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity() {
        let longest = format!("a/{}", "b".repeat(api::MAX_MEDIA_TYPE_BYTES - 2));
        for good in [
            "text/html",
            "text/html; charset=utf-8",
            "text/html;charset=\"utf-8\"",
            "multipart/form-data; boundary=x; y=z",
            "application/vnd.api+json",
            "a/b;",
            &longest,
        ] {
            assert!(is_valid(good), "{good}");
        }
        let long = format!("{longest}b");
        for bad in
            ["", "text", "/", "text/", "/html", "te xt/html", "a/b/c", "a/b; c", "a/b; c=", "a/b; =d", "ä/b", &long]
        {
            assert!(!is_valid(bad), "{bad}");
        }
    }

    #[test]
    fn guessing() {
        for (path, expected) in [
            ("a/index.html", Some("text/html; charset=utf-8")),
            ("A.CSS", Some("text/css; charset=utf-8")),
            ("a.js", Some("text/javascript; charset=utf-8")),
            ("photo.jpg", Some("image/jpeg")),
            ("a.json", Some("application/json")),
            ("README", None),
            ("a.unknown-thing", None),
        ] {
            assert_eq!(guess(&path.parse().expect(path)).as_deref(), expected, "{path}");
        }
        for (media_type, expected) in [
            ("text/plain; charset=utf-8", Some("txt")),
            ("TEXT/HTML", Some("html")),
            ("image/jpeg", Some("jpg")),
            ("image/png", Some("png")),
            ("video/mp4", Some("mp4")),
            ("application/pdf", Some("pdf")),
            ("application/octet-stream", None),
            ("x/y", None),
            ("", None),
        ] {
            assert_eq!(extension(media_type), expected, "{media_type}");
        }
    }
}
