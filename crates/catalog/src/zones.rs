//! Zones: documents by name. A host belongs to one zone at most, and one zone at most catches all other hosts.

use api::{ZoneDoc, ZoneName};
use sqlx::SqliteConnection;

use crate::rows::{json, unsigned};
use crate::write::Change;
use crate::{Catalog, CatalogError, MAX_ZONES, error};

/// What became of a zone that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZonePut {
    /// It is new.
    Created,
    /// Its document is another one now.
    Changed,
    /// It was like this already: there is no event.
    Unchanged,
}

impl Catalog {
    /// Makes a zone, or replaces its document. The document has passed [`ZoneDoc::validate`].
    ///
    /// # Errors
    /// `Conflict`, naming the other zone, for a host that it has or a second `catch_all`; `Conflict`, where a zone with files
    /// is to become a pull zone; or there are too many zones.
    pub async fn put_zone(&self, zone: ZoneDoc, now_ms: u64) -> Result<ZonePut, CatalogError> {
        self.change(now_ms, |change| Box::pin(change.put_zone(zone))).await
    }

    /// The zone of that name.
    ///
    /// # Errors
    /// `UnknownZone`.
    pub async fn zone(&self, name: &ZoneName) -> Result<ZoneDoc, CatalogError> {
        let select = sqlx::query("SELECT document FROM zones WHERE name = $1").bind(name.as_str());
        let row = select.fetch_optional(self.readers()).await?;
        json(&row.ok_or_else(|| unknown(name))?, "document")
    }

    /// All zones in order of name.
    ///
    /// # Errors
    /// The database failed.
    pub async fn zones(&self) -> Result<Vec<ZoneDoc>, CatalogError> {
        let mut reader = self.readers().acquire().await?;
        all(&mut reader).await
    }

    /// Deletes a zone without files.
    ///
    /// # Errors
    /// `UnknownZone`, or `Conflict` when it holds files.
    pub async fn delete_zone(&self, name: ZoneName, now_ms: u64) -> Result<(), CatalogError> {
        self.change(now_ms, |change| Box::pin(change.delete_zone(name))).await
    }
}

impl Change<'_> {
    async fn put_zone(&mut self, zone: ZoneDoc) -> Result<ZonePut, CatalogError> {
        let others = all(self.sql()).await?;
        let before = others.iter().find(|other| other.name == zone.name);
        if before == Some(&zone) {
            return Ok(ZonePut::Unchanged);
        }
        if before.is_some_and(|before| before.pull.is_some() != zone.pull.is_some()) {
            let files = self.files_in(&zone.name).await?;
            if files > 0 {
                let detail = format!(
                    "zone '{}' holds {files} files and cannot become a pull zone; delete those first, or make another zone",
                    zone.name
                );
                return Err(CatalogError::Conflict(detail));
            }
        }
        let put = if before.is_some() { ZonePut::Changed } else { ZonePut::Created };
        if put == ZonePut::Created && others.len() >= MAX_ZONES {
            return Err(CatalogError::Conflict(format!("there are {MAX_ZONES} zones already, which is the most")));
        }
        for other in others.iter().filter(|other| other.name != zone.name) {
            if zone.catch_all && other.catch_all {
                let detail = format!("zone '{}' is already the one that catches all hosts", other.name);
                return Err(CatalogError::Conflict(detail));
            }
            if let Some(host) = zone.hosts.iter().find(|host| other.hosts.contains(host)) {
                let detail = format!("host '{host}' already belongs to zone '{}'", other.name);
                return Err(CatalogError::Conflict(detail));
            }
        }
        let document = serde_json::to_string(&zone).map_err(|why| error::corrupt("document", why))?;
        let upsert = "INSERT INTO zones (name, document) VALUES ($1, $2) \
                      ON CONFLICT (name) DO UPDATE SET document = excluded.document";
        sqlx::query(upsert).bind(zone.name.as_str()).bind(document).execute(self.sql()).await?;
        self.append_config().await?;
        Ok(put)
    }

    async fn files_in(&mut self, name: &ZoneName) -> Result<u64, CatalogError> {
        let files = sqlx::query("SELECT COUNT(*) AS files FROM files WHERE zone = $1").bind(name.as_str());
        unsigned(&files.fetch_one(self.sql()).await?, "files")
    }

    async fn delete_zone(&mut self, name: ZoneName) -> Result<(), CatalogError> {
        let files = self.files_in(&name).await?;
        if files > 0 {
            let detail = format!("zone '{name}' still holds {files} files; delete those first");
            return Err(CatalogError::Conflict(detail));
        }
        let gone = sqlx::query("DELETE FROM zones WHERE name = $1").bind(name.as_str()).execute(self.sql()).await?;
        if gone.rows_affected() == 0 {
            return Err(unknown(&name));
        }
        self.append_config().await?;
        Ok(())
    }
}

/// That there is such a zone, and that files can be in it.
pub(crate) async fn holds_files(sql: &mut SqliteConnection, name: &ZoneName) -> Result<(), CatalogError> {
    let select = sqlx::query("SELECT document FROM zones WHERE name = $1").bind(name.as_str());
    let row = select.fetch_optional(sql).await?.ok_or_else(|| unknown(name))?;
    let zone: ZoneDoc = json(&row, "document")?;
    if zone.pull.is_some() { Err(CatalogError::PullZone(name.to_string())) } else { Ok(()) }
}

async fn all(sql: &mut SqliteConnection) -> Result<Vec<ZoneDoc>, CatalogError> {
    let rows = sqlx::query("SELECT document FROM zones ORDER BY name").fetch_all(sql).await?;
    rows.iter().map(|row| json(row, "document")).collect()
}

fn unknown(name: &ZoneName) -> CatalogError {
    CatalogError::UnknownZone(name.to_string())
}
