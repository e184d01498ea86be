//! What people write on the command line, parsed: places in a zone, durations, conditions.

use api::{Digest, FileId, FilePath, InvalidName, ZoneName};

use crate::cli::error::CliError;

/// The zone when none is named.
pub const DEFAULT_ZONE: &str = "files";

/// A place in a zone: a path, the beginning of paths, or (empty) all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The zone.
    pub zone: ZoneName,
    /// Below it, without a leading slash; not checked yet.
    pub text: String,
}

impl Remote {
    /// Reads `PATH`, `/PATH` or `ZONE:PATH`. What stands before a colon in the first segment is a zone, unless `zone`
    /// (the option `--zone`) already names one or the text begins with a slash.
    ///
    /// # Errors
    /// The text before the colon is not the name of a zone.
    pub fn parse(text: &str, zone: Option<&ZoneName>) -> Result<Self, CliError> {
        if let Some(zone) = zone {
            return Ok(Self { zone: zone.clone(), text: relative(text) });
        }
        if !names_zone(text, None) {
            return Ok(Self { zone: DEFAULT_ZONE.parse()?, text: relative(text) });
        }
        let name = text.split(':').next().unwrap_or_default();
        let zone = name.parse().map_err(|error: InvalidName| {
            CliError::from(error).with_hint(format!("if the colon belongs to the path, write /{text}"))
        })?;
        Ok(Self { zone, text: relative(text.get(name.len() + 1..).unwrap_or_default()) })
    }

    /// The path, checked.
    ///
    /// # Errors
    /// It breaks the rules of [`FilePath`].
    pub fn path(&self) -> Result<FilePath, CliError> {
        Ok(self.text.parse()?)
    }

    /// Whether it names a folder: it is empty or ends in a slash.
    pub fn is_folder(&self) -> bool {
        self.text.is_empty() || self.text.ends_with('/')
    }

    /// The path of `name` in this folder.
    ///
    /// # Errors
    /// It breaks the rules of [`FilePath`].
    pub fn join(&self, name: &str) -> Result<FilePath, InvalidName> {
        match self.text.trim_end_matches('/') {
            "" => name.parse(),
            folder => format!("{folder}/{name}").parse(),
        }
    }
}

/// Whether `text` names a zone of its own: a colon in its first segment, and no `zone` named by the option `--zone`.
pub fn names_zone(text: &str, zone: Option<&ZoneName>) -> bool {
    zone.is_none() && text.split('/').next().is_some_and(|first| first.contains(':'))
}

/// The name of a file without the folders it is in.
pub fn last_segment(path: &FilePath) -> &str {
    path.as_str().rsplit('/').next().unwrap_or_default()
}

fn relative(text: &str) -> String {
    text.strip_prefix('/').unwrap_or(text).to_owned()
}

/// A file id, written with its hyphens. Without them it could as well be a path made of a digest.
pub fn file_id(text: &str) -> Option<FileId> {
    text.contains('-').then(|| text.parse().ok()).flatten()
}

/// A path or the beginning of paths as it stands in the URL of a purge: a leading slash, and what would end or escape a
/// URL's path escaped.
pub fn url_path(text: &str) -> String {
    format!("/{}", relative(text).replace('%', "%25").replace('?', "%3F").replace('#', "%23"))
}

/// A condition of `--if-match`: a digest as `b3sum` prints it, an entity tag, or `*`.
///
/// # Errors
/// Anything else.
pub fn if_match(text: &str) -> Result<String, String> {
    if let Ok(digest) = text.parse::<Digest>() {
        return Ok(digest.etag());
    }
    let quoted = text.len() >= 2 && text.starts_with('"') && text.ends_with('"');
    if text == "*" || (quoted && text.is_ascii()) {
        return Ok(text.to_owned());
    }
    Err("use the file's BLAKE3 digest (64 hexadecimal digits), its ETag in double quotes, or *".to_owned())
}

/// A duration in whole seconds: `45s`, `30m`, `12h`, `30d`, `2w`.
///
/// # Errors
/// No number, no unit, another unit, nothing at all or more than a thousand years.
pub fn seconds(text: &str) -> Result<u64, String> {
    const RULE: &str = "use a whole number and a unit, like 45s, 30m, 12h, 30d or 2w";
    const MAX_SECONDS: u64 = 1_000 * 365 * 86_400;
    let unit = text.chars().next_back().ok_or(RULE)?;
    let unit_seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(RULE.to_owned()),
    };
    let number = text.trim_end_matches(unit);
    if number.len() + 1 != text.len() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(RULE.to_owned());
    }
    let number: u64 = number.parse().map_err(|_| RULE)?;
    match number.checked_mul(unit_seconds) {
        Some(seconds) if (1..=MAX_SECONDS).contains(&seconds) => Ok(seconds),
        _ => Err("use a duration from 1s to 1000 years".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The place as `zone|text`, or the error.
    fn check(text: &str, zone: Option<&str>, expected: &str) {
        let zone = zone.map(|zone| zone.parse().expect("zone"));
        let shown = match Remote::parse(text, zone.as_ref()) {
            Ok(remote) => format!("{}|{}", remote.zone, remote.text),
            Err(error) => error.to_string(),
        };
        assert!(shown.contains(expected), "{text}: {shown}");
        assert!(!expected.contains('|') || shown == expected, "{text}: {shown}");
    }

    #[test]
    fn places_in_zones() {
        check("a.jpg", None, "files|a.jpg");
        check("/a.jpg", None, "files|a.jpg");
        check("", None, "files|");
        check("img:a.jpg", None, "img|a.jpg");
        check("img:/a/", None, "img|a/");
        check("img:", None, "img|");
        check("a.jpg", Some("img"), "img|a.jpg");
        check("x:a.jpg", Some("img"), "img|x:a.jpg");
        check("/x:a.jpg", None, "files|x:a.jpg");
        check("a/b:c", None, "files|a/b:c");
        check("img:a:b", None, "img|a:b");
        check("Img:a", None, "zone name \"Img\" is not valid");
        check(":a", None, "zone name \"\" is not valid");
    }

    #[test]
    fn names_in_folders() {
        for (folder, name, path) in [
            ("", "a", "a"),
            ("img", "a", "img/a"),
            ("img/", "a", "img/a"),
            ("a//", "b", "a/b"),
            ("a/b", "c/d", "a/b/c/d"),
        ] {
            let remote = Remote::parse(folder, None).expect(folder);
            assert_eq!(remote.join(name).expect(path).as_str(), path);
        }
        let remote = Remote::parse("..", None).expect("not checked yet");
        assert!(remote.join("a").is_err() && remote.path().is_err());
    }

    #[test]
    fn durations() {
        for (text, expected) in [
            ("45s", 45),
            ("30m", 1_800),
            ("12h", 43_200),
            ("30d", 2_592_000),
            ("2w", 1_209_600),
            ("365000d", 31_536_000_000),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for bad in
            ["", "s", "30", "0d", "-1d", "+1d", "1.5h", "1y", "30dd", "1h30m", "9999999999999999999w", "365001d", "3ä"]
        {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn conditions_ids_and_urls() {
        let digest = "ab".repeat(32);
        assert_eq!(if_match(&digest), Ok(format!("\"{digest}\"")));
        assert_eq!(if_match("\"x\""), Ok("\"x\"".to_owned()));
        assert_eq!(if_match("*"), Ok("*".to_owned()));
        for bad in ["", "x", "\"", "\"ä\"", "ab"] {
            assert!(if_match(bad).is_err(), "{bad}");
        }
        assert!(file_id("019a9f3e-0000-7000-8000-000000000000").is_some());
        assert!(file_id("019a9f3e000070008000000000000000").is_none());
        assert!(file_id("photo-1.jpg").is_none());
        assert_eq!(url_path("/a b/100%?#"), "/a b/100%25%3F%23");
        assert_eq!(url_path("img/"), "/img/");
    }
}
