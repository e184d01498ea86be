//! The truth in SQL: zones, nodes, files, versions, placements, events, tokens, and blobs on their way out.
//!
//! **Layout.** One SQLite file in WAL mode; `migrations/` says what is in it, and `0001_initial.sql` explains each
//! table. Statements keep to what PostgreSQL also takes (`$1`, `ON CONFLICT`, `RETURNING`), so that it can be put under
//! the same texts and the same behaviour suite.
//!
//! **Update.** Every change is one transaction on the one writing connection: the change, and the event that says it,
//! numbered from a one-row counter in that same transaction. So numbers have no gaps, become visible in their order, and
//! a change without its event cannot exist. A transaction runs in a task of its own: once begun it ends, also when
//! whoever asked for it goes away. Readers have their own read-only connections and never wait for the writer.
//!
//! **Recovery.** `synchronous=FULL`: what was answered is on the disk. After a crash SQLite replays the WAL up to the
//! last whole transaction; there is nothing else to repair.

mod blobs;
mod changes;
mod conditions;
mod error;
mod events;
mod files;
mod nodes;
mod placements;
mod rows;
mod tokens;
mod write;
mod zones;

#[cfg(test)]
mod suite;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, SqlitePool};
use tokio::sync::watch;
use uuid::Uuid;

pub use changes::CommittedFile;
pub use error::{CatalogError, OpenError};
pub use files::{FilePage, Totals};
pub use rows::StoredFile;
pub use zones::ZonePut;

/// Events that are kept at least as long as there are not this many newer ones.
pub const EVENTS_KEPT: u64 = 1_000_000;
/// Versions of a file that are kept in its history.
pub const VERSIONS_KEPT: u64 = 100;
/// Zones, at most.
pub const MAX_ZONES: usize = 10_000;
/// Nodes, at most.
pub const MAX_NODES: usize = 1_000;
/// Tokens, at most.
pub const MAX_TOKENS: usize = 10_000;
/// Read-only connections.
const READERS: u32 = 4;
/// How long a statement waits for a lock that another process holds, in milliseconds.
pub const BUSY_TIMEOUT_MS: u64 = 5_000;
/// How long a call waits for a connection that other calls use, in milliseconds.
const ACQUIRE_TIMEOUT_MS: u64 = 10_000;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// What may be chosen when a catalog is opened.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Events that are kept. At least 1.
    pub events_kept: u64,
    /// How long to wait for a lock that another process holds, in milliseconds.
    pub busy_timeout_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { events_kept: EVENTS_KEPT, busy_timeout_ms: BUSY_TIMEOUT_MS }
    }
}

/// An open catalog. Cloning shares it.
#[derive(Clone)]
pub struct Catalog {
    shared: Arc<Shared>,
}

struct Shared {
    /// One connection. Holding it is the right to write.
    writer: SqlitePool,
    readers: SqlitePool,
    catalog_id: String,
    /// The newest event that is committed. Only ever grows.
    head: watch::Sender<u64>,
    settings: Settings,
}

impl Catalog {
    /// Opens the catalog in the file at `path`, makes it if it is not there, and migrates it if it is old.
    ///
    /// # Errors
    /// See [`OpenError`]; each says what is wrong with the file.
    pub async fn open(path: &Path, settings: Settings) -> Result<Self, OpenError> {
        let fail = |error| OpenError::new(path.to_owned(), error);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(Duration::from_millis(settings.busy_timeout_ms))
            .foreign_keys(true);
        let writing = options
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let writer = pool().max_connections(1).connect_with(writing).await.map_err(fail)?;
        let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
        MIGRATIONS.run(&writer).await.map_err(|error| OpenError::migrating(path.to_owned(), error, known))?;
        let catalog_id = identity(&writer).await.map_err(fail)?;
        let readers = pool().max_connections(READERS).connect_lazy_with(options.read_only(true));
        let head = sqlx::query("SELECT head FROM counter").fetch_one(&writer).await.map_err(fail)?;
        let head = u64::try_from(head.try_get::<i64, _>("head").map_err(fail)?).unwrap_or_default();
        let (head, _) = watch::channel(head);
        Ok(Self { shared: Arc::new(Shared { writer, readers, catalog_id, head, settings }) })
    }

    /// The identity of this catalog: made with it, never changed.
    pub fn catalog_id(&self) -> &str {
        &self.shared.catalog_id
    }

    /// The number of the newest event, and a wake-up whenever it grows.
    pub fn watch_head(&self) -> watch::Receiver<u64> {
        self.shared.head.subscribe()
    }

    /// Ends transactions in progress, moves the WAL into the file and closes it. Later calls fail.
    pub async fn close(&self) {
        self.shared.readers.close().await;
        self.shared.writer.close().await;
    }

    fn readers(&self) -> &SqlitePool {
        &self.shared.readers
    }
}

fn pool() -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .acquire_timeout(Duration::from_millis(ACQUIRE_TIMEOUT_MS))
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// The catalog's identity, made now if the catalog is.
async fn identity(writer: &SqlitePool) -> Result<String, sqlx::Error> {
    if let Some(row) = sqlx::query("SELECT catalog_id FROM meta").fetch_optional(writer).await? {
        return row.try_get("catalog_id");
    }
    let catalog_id = Uuid::now_v7().to_string();
    let insert = sqlx::query("INSERT INTO meta (only_row, catalog_id) VALUES (1, $1)");
    insert.bind(&catalog_id).execute(writer).await?;
    Ok(catalog_id)
}
