//! Nodes: the edges that have joined.

use api::{NodeDoc, NodeName, Place};
use sqlx::{Row, SqliteConnection};

use crate::rows::{name, unsigned};
use crate::write::Change;
use crate::{Catalog, CatalogError, MAX_NODES, error};

impl Catalog {
    /// Takes a node in. One that is known already with the same place and URL changes nothing, and there is no event.
    /// Without `keeps_placements` what was known of its files is forgotten. Answers whether anything of it is new.
    ///
    /// # Errors
    /// `Conflict` when there are too many nodes.
    pub async fn join(&self, node: NodeDoc, keeps_placements: bool, now_ms: u64) -> Result<bool, CatalogError> {
        self.change(now_ms, move |change| Box::pin(change.join(node, keeps_placements))).await
    }

    /// All nodes in order of name.
    ///
    /// # Errors
    /// The database failed.
    pub async fn nodes(&self) -> Result<Vec<NodeDoc>, CatalogError> {
        let mut reader = self.readers().acquire().await?;
        all(&mut reader).await
    }

    /// Forgets a node and what it holds.
    ///
    /// # Errors
    /// `UnknownNode`.
    pub async fn remove_node(&self, name: NodeName, now_ms: u64) -> Result<(), CatalogError> {
        self.change(now_ms, |change| Box::pin(change.remove_node(name))).await
    }
}

impl Change<'_> {
    async fn join(&mut self, node: NodeDoc, keeps_placements: bool) -> Result<bool, CatalogError> {
        if !keeps_placements {
            self.clear_placements(&node.name).await?;
        }
        let known = all(self.sql()).await?;
        if known.contains(&node) {
            return Ok(false);
        }
        let is_new = known.iter().all(|other| other.name != node.name);
        if is_new && known.len() >= MAX_NODES {
            return Err(CatalogError::Conflict(format!("there are {MAX_NODES} nodes already, which is the most")));
        }
        let upsert = "INSERT INTO nodes (name, lat, lng, url, https_url) VALUES ($1, $2, $3, $4, $5) \
                      ON CONFLICT (name) DO UPDATE SET lat = excluded.lat, lng = excluded.lng, url = excluded.url, \
                      https_url = excluded.https_url";
        let upsert = sqlx::query(upsert).bind(node.name.as_str()).bind(node.place.lat).bind(node.place.lng);
        upsert.bind(&node.url).bind(&node.https_url).execute(self.sql()).await?;
        self.append_config().await?;
        Ok(true)
    }

    async fn remove_node(&mut self, name: NodeName) -> Result<(), CatalogError> {
        let gone = sqlx::query("DELETE FROM nodes WHERE name = $1").bind(name.as_str()).execute(self.sql()).await?;
        if gone.rows_affected() == 0 {
            return Err(CatalogError::UnknownNode(name.to_string()));
        }
        self.append_config().await?;
        Ok(())
    }

    /// That there is such a node.
    pub(crate) async fn node_exists(&mut self, name: &NodeName) -> Result<(), CatalogError> {
        let select = sqlx::query("SELECT COUNT(*) AS nodes FROM nodes WHERE name = $1").bind(name.as_str());
        match unsigned(&select.fetch_one(self.sql()).await?, "nodes")? {
            0 => Err(CatalogError::UnknownNode(name.to_string())),
            _ => Ok(()),
        }
    }
}

async fn all(sql: &mut SqliteConnection) -> Result<Vec<NodeDoc>, CatalogError> {
    let rows = sqlx::query("SELECT name, lat, lng, url, https_url FROM nodes ORDER BY name").fetch_all(sql).await?;
    let node = |row: &_| -> Result<NodeDoc, CatalogError> {
        let place = Place::new(Row::try_get(row, "lat")?, Row::try_get(row, "lng")?);
        let place = place.map_err(|why| error::corrupt("lat", why))?;
        let (url, https_url) = (Row::try_get(row, "url")?, Row::try_get(row, "https_url")?);
        Ok(NodeDoc { name: name(row, "name")?, place, url, https_url })
    };
    rows.iter().map(node).collect()
}
