//! What can go wrong in the catalog, and how errors of the database become that.

use std::path::PathBuf;

use sqlx::migrate::MigrateError;

/// Why a catalog could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A later program has migrated it.
    #[error(
        "{} was written by a newer Littoral (its schema is at version {found}, this program knows {known}); \
         start it with that version or a later one", path.display()
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// The newest migration in it.
        found: i64,
        /// The newest migration that this program has.
        known: i64,
    },
    /// The file is something else.
    #[error("{} is not a catalog: it is not a SQLite database, or is damaged", path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be made or written.
    #[error("the catalog {} cannot be opened for writing: {why}; check that its folder exists and is writable", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// Another process is writing to it.
    #[error("the catalog {} is in use by another process", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// There is no room for it.
    #[error("there is no room left on the disk of {}", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Anything else that the database reports.
    #[error("the catalog {} cannot be opened: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// The report.
        source: sqlx::Error,
    },
}

/// Why the catalog refused, or could not do, what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// There is no zone of this name.
    #[error("there is no zone '{0}'")]
    UnknownZone(String),
    /// Files cannot be in this zone.
    #[error("zone '{0}' is a pull zone: what it serves comes from its website, and it holds no files")]
    PullZone(String),
    /// There is no such file.
    #[error("there is no file {0}")]
    UnknownFile(String),
    /// There is no node of this name.
    #[error("there is no node '{0}'")]
    UnknownNode(String),
    /// There is no token of this id.
    #[error("there is no token '{0}'")]
    UnknownToken(String),
    /// `If-Match` or `If-None-Match` did not hold.
    #[error("{0}")]
    PreconditionFailed(String),
    /// A condition or a cursor that cannot be understood.
    #[error("{0}")]
    Invalid(String),
    /// The change collides with what is there.
    #[error("{0}")]
    Conflict(String),
    /// The blob is being, or may have been, collected. See [`crate::Catalog::commit_upload`].
    #[error("the blob {0} is being collected; begin again, place it again and repeat the commit")]
    BlobCondemned(api::Digest),
    /// Events that were asked for are no longer kept, or were never made.
    #[error("events after {after} are not kept (the oldest is {oldest}); take a new snapshot and go on from there")]
    EventsGone {
        /// After which number events were asked for.
        after: u64,
        /// The oldest that is kept.
        oldest: u64,
    },
    /// The disk is full. Nothing was changed.
    #[error("there is no room left for the catalog; nothing was changed")]
    Full,
    /// The database did not get to it in time. Nothing was changed.
    #[error("the catalog is busy; nothing was changed, try again")]
    Busy,
    /// Anything else that the database reports.
    #[error("the catalog failed: {0}")]
    Database(sqlx::Error),
}

/// Primary result codes of SQLite (<https://sqlite.org/rescode.html>); extended ones keep them in their low byte.
const SQLITE_PERM: u32 = 3;
const SQLITE_BUSY: u32 = 5;
const SQLITE_LOCKED: u32 = 6;
const SQLITE_READONLY: u32 = 8;
const SQLITE_FULL: u32 = 13;
const SQLITE_CANTOPEN: u32 = 14;
const SQLITE_NOTADB: u32 = 26;

fn sqlite_code(error: &sqlx::Error) -> Option<u32> {
    let code = error.as_database_error()?.code()?;
    Some(code.parse::<u32>().ok()? & 0xff)
}

impl From<sqlx::Error> for CatalogError {
    fn from(error: sqlx::Error) -> Self {
        match (sqlite_code(&error), &error) {
            (Some(SQLITE_FULL), _) => Self::Full,
            (Some(SQLITE_BUSY | SQLITE_LOCKED), _) | (_, sqlx::Error::PoolTimedOut) => Self::Busy,
            _ => Self::Database(error),
        }
    }
}

impl OpenError {
    pub(crate) fn new(path: PathBuf, source: sqlx::Error) -> Self {
        match sqlite_code(&source) {
            Some(SQLITE_NOTADB) => Self::NotADatabase { path },
            Some(SQLITE_BUSY | SQLITE_LOCKED) => Self::Busy { path },
            Some(SQLITE_FULL) => Self::Full { path },
            Some(SQLITE_PERM | SQLITE_READONLY | SQLITE_CANTOPEN) => Self::Unwritable { path, why: source.to_string() },
            _ => Self::Database { path, source },
        }
    }

    /// `known` is the newest migration that this program has.
    pub(crate) fn migrating(path: PathBuf, error: MigrateError, known: i64) -> Self {
        match error {
            MigrateError::VersionMissing(found) => Self::NewerSchema { path, found, known },
            MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => Self::new(path, source),
            other => Self::Database { path, source: sqlx::Error::Migrate(Box::new(other)) },
        }
    }
}

/// A row that does not hold what the schema promises.
pub(crate) fn corrupt(column: &str, why: impl ToString) -> CatalogError {
    CatalogError::Database(sqlx::Error::ColumnDecode { index: column.to_owned(), source: why.to_string().into() })
}
