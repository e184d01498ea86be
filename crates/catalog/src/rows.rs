//! From rows to types, checked: a row that breaks a rule is an error, never a guess.

use std::str::FromStr;

use api::{Digest, FileId, FilePath, FileRef, Tag, ZoneName};
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use crate::CatalogError;
use crate::error::corrupt;

/// A file at its current version.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredFile {
    /// Never changes.
    pub id: FileId,
    /// Its zone.
    pub zone: ZoneName,
    /// Where in the zone.
    pub path: FilePath,
    /// Grows by one with each change.
    pub version: u64,
    /// BLAKE3 of its content.
    pub digest: Digest,
    /// Bytes of content.
    pub size: u64,
    /// Its `Content-Type`.
    pub media_type: String,
    /// Its `Cache-Control`, where it has one.
    pub cache_control: Option<String>,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// The number of the event that made this version.
    pub event: u64,
    /// When this version was made, in milliseconds since the Unix epoch.
    pub modified_ms: u64,
}

impl StoredFile {
    /// The file as an event names it.
    pub(crate) fn to_ref(&self) -> FileRef {
        FileRef {
            zone: self.zone.clone(),
            path: self.path.clone(),
            id: self.id,
            version: self.version,
            digest: self.digest,
            size: self.size,
        }
    }
}

/// A `SELECT` of whole files, ended by the given text.
macro_rules! select_files {
    ($rest:literal) => {
        concat!(
            "SELECT id, zone, path, version, digest, size, media_type, cache_control, tags, event, modified_ms FROM files ",
            $rest
        )
    };
}
pub(crate) use select_files;

pub(crate) fn file(row: &SqliteRow) -> Result<StoredFile, CatalogError> {
    Ok(StoredFile {
        id: file_id(row, "id")?,
        zone: name(row, "zone")?,
        path: name(row, "path")?,
        version: unsigned(row, "version")?,
        digest: digest(row, "digest")?,
        size: unsigned(row, "size")?,
        media_type: row.try_get("media_type")?,
        cache_control: row.try_get("cache_control")?,
        tags: json(row, "tags")?,
        event: unsigned(row, "event")?,
        modified_ms: unsigned(row, "modified_ms")?,
    })
}

/// A number as SQL keeps it. Everything counted here stays far below 2^63.
pub(crate) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(row: &SqliteRow, column: &str) -> Result<u64, CatalogError> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|why| corrupt(column, why))
}

pub(crate) fn name<T: FromStr<Err = api::InvalidName>>(row: &SqliteRow, column: &str) -> Result<T, CatalogError> {
    row.try_get::<&str, _>(column)?.parse().map_err(|why| corrupt(column, why))
}

pub(crate) fn json<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<T, CatalogError> {
    serde_json::from_str(row.try_get(column)?).map_err(|why| corrupt(column, why))
}

pub(crate) fn digest(row: &SqliteRow, column: &str) -> Result<Digest, CatalogError> {
    row.try_get::<&[u8], _>(column)?.try_into().map(Digest).map_err(|why| corrupt(column, why))
}

pub(crate) fn file_id(row: &SqliteRow, column: &str) -> Result<FileId, CatalogError> {
    Uuid::from_slice(row.try_get(column)?).map(FileId).map_err(|why| corrupt(column, why))
}
