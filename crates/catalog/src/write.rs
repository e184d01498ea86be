//! The one way to change the catalog: a transaction on the one writing connection, in a task of its own.

use std::pin::Pin;

use sqlx::{Connection, Sqlite, SqliteConnection, Transaction};

use crate::{Catalog, CatalogError};

/// A change in the making, and the clock it happens at.
pub(crate) struct Change<'t> {
    sql: Transaction<'t, Sqlite>,
    /// Milliseconds since the Unix epoch.
    pub(crate) now_ms: u64,
    /// Events to keep.
    pub(crate) events_kept: u64,
    /// The newest event made in it.
    pub(crate) newest: Option<u64>,
}

/// What a change does, and what it answers.
pub(crate) type Work<'c, T> = Pin<Box<dyn Future<Output = Result<T, CatalogError>> + Send + 'c>>;

impl Change<'_> {
    /// The connection inside the transaction.
    pub(crate) fn sql(&mut self) -> &mut SqliteConnection {
        &mut self.sql
    }
}

impl Catalog {
    /// Runs `work` in a transaction: all of it if it answers `Ok`, nothing otherwise. Then wakes who watches the head.
    ///
    /// The task goes on when the caller's future is dropped, so that a committed event is always announced.
    pub(crate) async fn change<T, F>(&self, now_ms: u64, work: F) -> Result<T, CatalogError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Change<'_>) -> Work<'c, T> + Send + 'static,
    {
        let catalog = self.clone();
        let task = tokio::spawn(async move { catalog.transact(now_ms, work).await });
        match task.await {
            Ok(answer) => answer,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => Err(CatalogError::Database(sqlx::Error::PoolClosed)),
            },
        }
    }

    async fn transact<T, F>(&self, now_ms: u64, work: F) -> Result<T, CatalogError>
    where
        F: for<'c> FnOnce(&'c mut Change<'_>) -> Work<'c, T>,
    {
        let mut writer = self.shared.writer.acquire().await?;
        let (answer, newest, clean) = self.attempt(&mut writer, now_ms, work).await;
        if !clean {
            // Some errors, like a full disk, end the transaction on the database's side alone. The connection and sqlx
            // then disagree on whether there is one, so it is replaced; closing it rolls back what there may be.
            writer.close_on_drop();
        }
        if let (Ok(_), Some(newest)) = (&answer, newest) {
            self.announce(newest);
        }
        answer
    }

    /// Answers the outcome, the newest event made, and whether the connection is certain to be out of the transaction.
    async fn attempt<T, F>(
        &self,
        writer: &mut SqliteConnection,
        now_ms: u64,
        work: F,
    ) -> (Result<T, CatalogError>, Option<u64>, bool)
    where
        F: for<'c> FnOnce(&'c mut Change<'_>) -> Work<'c, T>,
    {
        // Taking the write lock at once means that nothing read in here can change before the commit.
        let sql = match writer.begin_with("BEGIN IMMEDIATE").await {
            Ok(sql) => sql,
            Err(error) => return (Err(error.into()), None, false),
        };
        let events_kept = self.shared.settings.events_kept.max(1);
        let mut change = Change { sql, now_ms, events_kept, newest: None };
        match work(&mut change).await {
            Ok(answer) => {
                let committed = change.sql.commit().await;
                let clean = committed.is_ok();
                (committed.map(|()| answer).map_err(CatalogError::from), change.newest, clean)
            }
            Err(error) => {
                let clean = change.sql.rollback().await.is_ok();
                (Err(error), None, clean)
            }
        }
    }

    /// Commits in quick succession may get here in another order than they were made in.
    fn announce(&self, newest: u64) {
        self.shared.head.send_if_modified(|head| {
            let grows = newest > *head;
            *head = (*head).max(newest);
            grows
        });
    }
}
