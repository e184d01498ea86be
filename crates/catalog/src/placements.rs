//! Placements: which node said that it holds which version of which file.

use std::collections::{BTreeMap, HashSet};

use api::node::{Placement, Placements};
use api::{FileId, FilePath, NodeName, ZoneName};
use sqlx::{QueryBuilder, Sqlite};

use crate::rows::{file_id, integer, name, unsigned};
use crate::write::Change;
use crate::{Catalog, CatalogError, zones};

/// Placements written in one transaction, so that no commit waits long behind a report.
const PLACEMENTS_PER_CHANGE: usize = 500;

impl Catalog {
    /// Takes in what a node has begun or ceased to hold. Files that are gone meanwhile are skipped.
    ///
    /// # Errors
    /// `UnknownNode`: it has not joined.
    pub async fn apply_placements(
        &self,
        node: &NodeName,
        placements: Placements,
        now_ms: u64,
    ) -> Result<(), CatalogError> {
        for removed in placements.removed.chunks(PLACEMENTS_PER_CHANGE) {
            let (node, removed) = (node.clone(), removed.to_vec());
            self.change(now_ms, |change| Box::pin(change.remove_placements(node, removed))).await?;
        }
        for added in placements.added.chunks(PLACEMENTS_PER_CHANGE) {
            let (node, added) = (node.clone(), added.to_vec());
            self.change(now_ms, |change| Box::pin(change.add_placements(node, added))).await?;
        }
        Ok(())
    }

    /// Forgets what a node holds.
    ///
    /// # Errors
    /// `UnknownNode`.
    pub async fn clear_placements(&self, node: NodeName, now_ms: u64) -> Result<(), CatalogError> {
        self.change(now_ms, |change| {
            Box::pin(async move {
                change.node_exists(&node).await?;
                change.clear_placements(&node).await
            })
        })
        .await
    }

    /// The nodes that hold the current version of a file, in order of name: none if there is no such file.
    ///
    /// # Errors
    /// `UnknownZone`.
    pub async fn holders(&self, zone: &ZoneName, path: &FilePath) -> Result<Vec<NodeName>, CatalogError> {
        let mut reader = self.readers().acquire().await?;
        let select = sqlx::query(
            "SELECT p.node AS node FROM files f JOIN placements p ON p.file_id = f.id AND p.version = f.version \
             WHERE f.zone = $1 AND f.path = $2 ORDER BY p.node",
        );
        let rows = select.bind(zone.as_str()).bind(path.as_str()).fetch_all(&mut *reader).await?;
        if rows.is_empty() {
            zones::holds_files(&mut reader, zone).await?;
        }
        rows.iter().map(|row| name(row, "node")).collect()
    }

    /// Of how many files each node holds the current version. Nodes that hold none are not in it.
    ///
    /// # Errors
    /// The database failed.
    pub async fn held_files(&self) -> Result<BTreeMap<NodeName, u64>, CatalogError> {
        let select = sqlx::query(
            "SELECT p.node AS node, COUNT(*) AS files FROM placements p \
             JOIN files f ON f.id = p.file_id AND f.version = p.version GROUP BY p.node",
        );
        let rows = select.fetch_all(self.readers()).await?;
        rows.iter().map(|row| Ok((name(row, "node")?, unsigned(row, "files")?))).collect()
    }
}

impl Change<'_> {
    async fn add_placements(&mut self, node: NodeName, added: Vec<Placement>) -> Result<(), CatalogError> {
        self.node_exists(&node).await?;
        let mut select = QueryBuilder::<Sqlite>::new("SELECT id FROM files WHERE id IN (");
        push_list(&mut select, added.iter().map(|placement| placement.id));
        let rows = select.build().persistent(false).fetch_all(self.sql()).await?;
        let known = rows.iter().map(|row| file_id(row, "id")).collect::<Result<HashSet<_>, _>>()?;
        // One statement may not touch a row twice, so the last word on each file counts.
        let latest: BTreeMap<FileId, u64> = added.iter().map(|placement| (placement.id, placement.version)).collect();
        let rows: Vec<_> = latest.into_iter().filter(|(id, _)| known.contains(id)).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO placements (file_id, node, version) ");
        insert.push_values(rows, |mut row, (id, version)| {
            row.push_bind(id.0.as_bytes().to_vec()).push_bind(node.to_string()).push_bind(integer(version));
        });
        insert.push(" ON CONFLICT (file_id, node) DO UPDATE SET version = excluded.version");
        insert.build().persistent(false).execute(self.sql()).await?;
        Ok(())
    }

    async fn remove_placements(&mut self, node: NodeName, removed: Vec<FileId>) -> Result<(), CatalogError> {
        self.node_exists(&node).await?;
        let mut delete = QueryBuilder::<Sqlite>::new("DELETE FROM placements WHERE node = ");
        delete.push_bind(node.to_string());
        delete.push(" AND file_id IN (");
        push_list(&mut delete, removed.into_iter());
        delete.build().persistent(false).execute(self.sql()).await?;
        Ok(())
    }

    /// Forgets what a node holds; nothing if it is not known.
    pub(crate) async fn clear_placements(&mut self, node: &NodeName) -> Result<(), CatalogError> {
        let delete = sqlx::query("DELETE FROM placements WHERE node = $1").bind(node.as_str());
        delete.execute(self.sql()).await?;
        Ok(())
    }
}

fn push_list(query: &mut QueryBuilder<Sqlite>, ids: impl Iterator<Item = FileId>) {
    let mut list = query.separated(", ");
    for id in ids {
        list.push_bind(id.0.as_bytes().to_vec());
    }
    list.push_unseparated(")");
}
