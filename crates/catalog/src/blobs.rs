//! Collecting blobs that nothing refers to, without ever taking one that an upload is about to refer to.
//!
//! A collector condemns blobs, deletes them from the object store, then has them forgotten. An uploader begins, places
//! its blob, then commits. A commit is refused when the deletion may have come after the placing: while the blob is
//! condemned, and also when it was forgotten after the upload began. For the second, each call that forgets has a
//! number, the sweep: begin hands out the newest, and the blob remembers which one forgot it. That memory is bounded:
//! after [`SWEEPS_KEPT`] further sweeps it goes, and uploads that began before those are refused whatever they bring.

use api::Digest;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use crate::rows::{digest, integer, unsigned};
use crate::write::Change;
use crate::{Catalog, CatalogError};

/// Sweeps for which it is remembered which blobs they forgot. An upload that takes longer than that places its blob
/// twice, which is all that happens.
const SWEEPS_KEPT: u64 = 100;

impl Catalog {
    /// Marks the blobs among `digests` that no file has as its content, and answers those: from now on no upload can
    /// commit them. At most [`api::node::MAX_BLOBS_PER_CALL`].
    ///
    /// # Errors
    /// The database failed.
    pub async fn condemn_blobs(&self, digests: Vec<Digest>, now_ms: u64) -> Result<Vec<Digest>, CatalogError> {
        if digests.is_empty() {
            return Ok(digests);
        }
        self.change(now_ms, |change| Box::pin(change.condemn_blobs(digests))).await
    }

    /// Takes the marks away: these blobs are deleted, or were found to be needed after all.
    ///
    /// # Errors
    /// The database failed.
    pub async fn forget_blobs(&self, digests: Vec<Digest>, now_ms: u64) -> Result<(), CatalogError> {
        if digests.is_empty() {
            return Ok(());
        }
        self.change(now_ms, |change| Box::pin(change.forget_blobs(digests))).await
    }

    /// Blobs that are marked, longest ago first, at most `limit`.
    ///
    /// # Errors
    /// The database failed.
    pub async fn condemned_blobs(&self, limit: u32) -> Result<Vec<Digest>, CatalogError> {
        let select = "SELECT digest FROM blobs WHERE forgotten IS NULL ORDER BY condemned_ms, digest LIMIT $1";
        let rows = sqlx::query(select).bind(i64::from(limit)).fetch_all(self.readers()).await?;
        rows.iter().map(|row| digest(row, "digest")).collect()
    }
}

/// The number of the newest sweep.
pub(crate) async fn sweep(sql: &mut SqliteConnection) -> Result<u64, CatalogError> {
    unsigned(&sqlx::query("SELECT sweep FROM counter").fetch_one(sql).await?, "sweep")
}

impl Change<'_> {
    /// That a blob which was placed after `began`, the sweep at the upload's beginning, cannot have been collected.
    pub(crate) async fn blob_is_in_place(&mut self, blob: &Digest, began: u64) -> Result<(), CatalogError> {
        let newest = sweep(self.sql()).await?;
        let select = sqlx::query("SELECT forgotten FROM blobs WHERE digest = $1").bind(blob.0.as_slice());
        let in_place = match select.fetch_optional(self.sql()).await? {
            Some(row) => row.try_get::<Option<i64>, _>("forgotten")?.is_some_and(|sweep| sweep <= integer(began)),
            None => began.saturating_add(SWEEPS_KEPT) >= newest,
        };
        if in_place { Ok(()) } else { Err(CatalogError::BlobCondemned(*blob)) }
    }

    async fn condemn_blobs(&mut self, digests: Vec<Digest>) -> Result<Vec<Digest>, CatalogError> {
        let mut select = QueryBuilder::<Sqlite>::new("SELECT DISTINCT digest FROM files WHERE digest IN (");
        push_list(&mut select, &digests);
        let rows = select.build().persistent(false).fetch_all(self.sql()).await?;
        let needed = rows.iter().map(|row| digest(row, "digest")).collect::<Result<Vec<_>, _>>()?;
        let mut condemned = digests;
        condemned.retain(|blob| !needed.contains(blob));
        condemned.sort_unstable();
        condemned.dedup();
        if condemned.is_empty() {
            return Ok(condemned);
        }
        let now_ms = integer(self.now_ms);
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO blobs (digest, condemned_ms) ");
        insert.push_values(&condemned, |mut row, blob| {
            row.push_bind(blob.0.to_vec()).push_bind(now_ms);
        });
        insert.push(" ON CONFLICT (digest) DO UPDATE SET condemned_ms = excluded.condemned_ms, forgotten = NULL");
        insert.build().persistent(false).execute(self.sql()).await?;
        Ok(condemned)
    }

    async fn forget_blobs(&mut self, digests: Vec<Digest>) -> Result<(), CatalogError> {
        let next = sqlx::query("UPDATE counter SET sweep = sweep + 1 RETURNING sweep").fetch_one(self.sql()).await?;
        let sweep = unsigned(&next, "sweep")?;
        let mut update = QueryBuilder::<Sqlite>::new("UPDATE blobs SET forgotten = ");
        update.push_bind(integer(sweep));
        update.push(" WHERE forgotten IS NULL AND digest IN (");
        push_list(&mut update, &digests);
        update.build().persistent(false).execute(self.sql()).await?;
        let delete = sqlx::query("DELETE FROM blobs WHERE forgotten < $1");
        delete.bind(integer(sweep.saturating_sub(SWEEPS_KEPT))).execute(self.sql()).await?;
        Ok(())
    }
}

fn push_list(query: &mut QueryBuilder<Sqlite>, digests: &[Digest]) {
    let mut list = query.separated(", ");
    for blob in digests {
        list.push_bind(blob.0.to_vec());
    }
    list.push_unseparated(")");
}
