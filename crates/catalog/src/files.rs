//! Reading files: one, a page of many, the history of one, and how many there are.

use api::docs::VersionDoc;
use api::node::UploadTarget;
use api::{FileId, FilePath, ZoneName};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sqlx::SqliteConnection;

use crate::rows::{StoredFile, digest, file, select_files, unsigned};
use crate::{Catalog, CatalogError, zones};

/// One page of files in order of the bytes of their paths.
#[derive(Debug, Clone, PartialEq)]
pub struct FilePage {
    /// The files.
    pub files: Vec<StoredFile>,
    /// Where the next page begins; none if this is the last.
    pub next_cursor: Option<String>,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Zones.
    pub zones: u64,
    /// Files.
    pub files: u64,
    /// Bytes of all files together; content that two files share counts twice.
    pub bytes: u64,
}

impl Catalog {
    /// The file at a path.
    ///
    /// # Errors
    /// `UnknownZone`, `PullZone` or `UnknownFile`.
    pub async fn file(&self, zone: &ZoneName, path: &FilePath) -> Result<StoredFile, CatalogError> {
        let mut reader = self.readers().acquire().await?;
        existing(&mut reader, &UploadTarget::Path { zone: zone.clone(), path: path.clone() }).await
    }

    /// The file of an id.
    ///
    /// # Errors
    /// `UnknownFile`.
    pub async fn file_by_id(&self, id: FileId) -> Result<StoredFile, CatalogError> {
        let mut reader = self.readers().acquire().await?;
        existing(&mut reader, &UploadTarget::Id { id }).await
    }

    /// A page of the files of a zone whose path begins with `prefix`, at most `limit`, after the page that gave `cursor`.
    ///
    /// # Errors
    /// `UnknownZone`, `PullZone`, or `Invalid` for a cursor that no page gave.
    pub async fn list(
        &self,
        zone: &ZoneName,
        prefix: &str,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<FilePage, CatalogError> {
        let mut reader = self.readers().acquire().await?;
        zones::holds_files(&mut reader, zone).await?;
        let after = cursor.map(decode_cursor).transpose()?.unwrap_or_default();
        // The text of a prefix range is a half-open interval, so the index alone answers, whatever signs are in it. One
        // row more than asked for tells whether there is another page.
        let select = sqlx::query(select_files!(
            "WHERE zone = $1 AND path >= $2 AND path < $3 AND path > $4 ORDER BY path LIMIT $5"
        ));
        let select = select.bind(zone.as_str()).bind(prefix).bind(prefix_end(prefix)).bind(&after);
        let rows = select.bind(i64::from(limit) + 1).fetch_all(&mut *reader).await?;
        let mut files = rows.iter().map(file).collect::<Result<Vec<_>, _>>()?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = files.len() > limit;
        files.truncate(limit);
        let next_cursor = files.last().filter(|_| more).map(|last| encode_cursor(&last.path));
        Ok(FilePage { files, next_cursor })
    }

    /// The newest versions of a file, newest first.
    ///
    /// # Errors
    /// `UnknownFile`.
    pub async fn versions(&self, id: FileId) -> Result<Vec<VersionDoc>, CatalogError> {
        let select = sqlx::query(
            "SELECT version, digest, size, event, created_ms FROM versions WHERE file_id = $1 ORDER BY version DESC",
        );
        let rows = select.bind(id.0.as_bytes().as_slice()).fetch_all(self.readers()).await?;
        if rows.is_empty() {
            return Err(unknown_id(id));
        }
        let version = |row: &_| -> Result<VersionDoc, CatalogError> {
            Ok(VersionDoc {
                version: unsigned(row, "version")?,
                digest: digest(row, "digest")?,
                size: unsigned(row, "size")?,
                event: unsigned(row, "event")?,
                created_ms: unsigned(row, "created_ms")?,
            })
        };
        rows.iter().map(version).collect()
    }

    /// How many zones, files and bytes there are.
    ///
    /// # Errors
    /// The database failed.
    pub async fn totals(&self) -> Result<Totals, CatalogError> {
        let select = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM zones) AS zones, COUNT(*) AS files, \
             CAST(COALESCE(SUM(size), 0) AS BIGINT) AS bytes FROM files",
        );
        let row = select.fetch_one(self.readers()).await?;
        Ok(Totals { zones: unsigned(&row, "zones")?, files: unsigned(&row, "files")?, bytes: unsigned(&row, "bytes")? })
    }
}

/// The file that a target names, if there is one.
///
/// # Errors
/// `UnknownZone` for a path in a zone that is not there, `PullZone` in one that holds no files.
pub(crate) async fn find(
    sql: &mut SqliteConnection,
    target: &UploadTarget,
) -> Result<Option<StoredFile>, CatalogError> {
    let row = match target {
        UploadTarget::Path { zone, path } => {
            let select = sqlx::query(select_files!("WHERE zone = $1 AND path = $2"));
            let row = select.bind(zone.as_str()).bind(path.as_str()).fetch_optional(&mut *sql).await?;
            if row.is_none() {
                zones::holds_files(sql, zone).await?;
            }
            row
        }
        UploadTarget::Id { id } => {
            let select = sqlx::query(select_files!("WHERE id = $1"));
            select.bind(id.0.as_bytes().as_slice()).fetch_optional(sql).await?
        }
    };
    row.as_ref().map(file).transpose()
}

/// The file that a target names.
pub(crate) async fn existing(sql: &mut SqliteConnection, target: &UploadTarget) -> Result<StoredFile, CatalogError> {
    find(sql, target).await?.ok_or_else(|| match target {
        UploadTarget::Path { zone, path } => CatalogError::UnknownFile(format!("'{path}' in zone '{zone}'")),
        UploadTarget::Id { id } => unknown_id(*id),
    })
}

pub(crate) fn unknown_id(id: FileId) -> CatalogError {
    CatalogError::UnknownFile(format!("with the id {id}"))
}

/// The first text, in order of bytes, behind every path that begins with `prefix`.
///
/// UTF-8 keeps the order of code points, so this is `prefix` with its last character replaced by the next one. Without
/// a next one: the longest path there can be, of the last character there is, and one more.
fn prefix_end(prefix: &str) -> String {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // Surrogates are no characters: the next one after U+D7FF is U+E000.
        let next = if last == '\u{D7FF}' { Some('\u{E000}') } else { char::from_u32(u32::from(last) + 1) };
        if let Some(next) = next {
            chars.push(next);
            return chars.into_iter().collect();
        }
    }
    char::MAX.to_string().repeat(api::names::MAX_PATH_BYTES / char::MAX.len_utf8() + 1)
}

fn encode_cursor(last: &FilePath) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(last.as_str())
}

fn decode_cursor(cursor: &str) -> Result<String, CatalogError> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok();
    let path = bytes.and_then(|bytes| String::from_utf8(bytes).ok()).filter(|path| path.parse::<FilePath>().is_ok());
    let why = "cursor: not one that a page gave; leave it out to begin at the first page";
    path.ok_or_else(|| CatalogError::Invalid(why.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_just_behind_it() {
        let last = char::MAX.to_string();
        for (prefix, end) in [
            ("a", "b"),
            ("a/", "a0"),
            ("a%", "a&"),
            ("ä", "å"),
            ("a\u{7f}", "a\u{80}"),
            ("\u{D7FF}", "\u{E000}"),
            (&format!("a{last}{last}"), "b"),
        ] {
            assert_eq!(prefix_end(prefix), end);
        }
        let longest = last.repeat(api::names::MAX_PATH_BYTES / 4);
        assert!(longest.parse::<FilePath>().is_ok());
        for prefix in ["", &last, &longest] {
            assert!(prefix_end(prefix) > longest, "{prefix:?}");
        }
    }

    #[test]
    fn cursors() {
        let path: FilePath = "größe/a b".parse().expect("path");
        assert_eq!(decode_cursor(&encode_cursor(&path)).expect("cursor"), path.as_str());
        for bad in ["", "a/b", "////", "_w"] {
            assert!(matches!(decode_cursor(bad), Err(CatalogError::Invalid(_))), "{bad}");
        }
    }
}
