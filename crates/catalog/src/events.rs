//! The event log: appending in the transaction of the change, reading in order, dropping the oldest.

use api::{Change as Says, Event, Hello, PurgeTargets};
use futures_util::TryStreamExt;
use sqlx::Row;

use crate::rows::{integer, unsigned};
use crate::write::Change;
use crate::{Catalog, CatalogError, error};

/// Old events dropped with each new one, at most: so that a log that is too long shrinks, and no commit gets slow.
const DROPPED_PER_COMMIT: u64 = 16;
/// Bytes of JSON after which no further event is read into a batch.
const BATCH_BYTES: usize = 1 << 20;

impl Catalog {
    /// Identity, newest and oldest event, and generation of the configuration, all of one moment.
    ///
    /// # Errors
    /// The database failed.
    pub async fn head(&self) -> Result<Hello, CatalogError> {
        let row = sqlx::query("SELECT head, oldest, generation FROM counter").fetch_one(self.readers()).await?;
        Ok(Hello {
            catalog_id: self.catalog_id().to_owned(),
            head: unsigned(&row, "head")?,
            oldest: unsigned(&row, "oldest")?,
            generation: unsigned(&row, "generation")?,
        })
    }

    /// The events after number `after`, oldest first: none if it is the newest. At most `limit`, and fewer, but at least
    /// one, where they are large.
    ///
    /// # Errors
    /// `EventsGone` when the next one is no longer kept, or `after` is larger than any number given so far.
    pub async fn events_after(&self, after: u64, limit: u32) -> Result<Vec<Event>, CatalogError> {
        let select = sqlx::query("SELECT seq, at_ms, change FROM events WHERE seq > $1 ORDER BY seq LIMIT $2");
        let mut rows = select.bind(integer(after)).bind(i64::from(limit)).fetch(self.readers());
        let (mut events, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES
            && let Some(row) = rows.try_next().await?
        {
            let json: &str = row.try_get("change")?;
            bytes += json.len();
            let change = serde_json::from_str(json).map_err(|why| error::corrupt("change", why))?;
            events.push(Event { seq: unsigned(&row, "seq")?, at_ms: unsigned(&row, "at_ms")?, change });
        }
        drop(rows);
        let follows = match events.first() {
            Some(first) => first.seq == after + 1,
            // Whoever knows a number has it from a commit that is over, so it cannot be larger than the head by now.
            None => after <= self.head().await?.head,
        };
        if follows {
            return Ok(events);
        }
        Err(CatalogError::EventsGone { after, oldest: self.head().await?.oldest })
    }

    /// Logs a purge. Answers the number of its event.
    ///
    /// # Errors
    /// The database failed.
    pub async fn append_purge(&self, targets: PurgeTargets, now_ms: u64) -> Result<u64, CatalogError> {
        self.change(now_ms, |change| Box::pin(async move { change.append(&Says::Purge(targets)).await })).await
    }
}

impl Change<'_> {
    /// Makes an event with the next number, and answers the number.
    pub(crate) async fn append(&mut self, says: &Says) -> Result<u64, CatalogError> {
        let next = sqlx::query("UPDATE counter SET head = head + 1 RETURNING head, oldest");
        let row = next.fetch_one(self.sql()).await?;
        let (seq, oldest) = (unsigned(&row, "head")?, unsigned(&row, "oldest")?);
        let insert = sqlx::query("INSERT INTO events (seq, at_ms, change) VALUES ($1, $2, $3)");
        let json = serde_json::to_string(says).map_err(|why| error::corrupt("change", why))?;
        insert.bind(integer(seq)).bind(integer(self.now_ms)).bind(json).execute(self.sql()).await?;
        self.newest = Some(seq);
        let wanted = (seq + 1).saturating_sub(self.events_kept);
        if wanted > oldest {
            self.drop_events_before(wanted.min(oldest + DROPPED_PER_COMMIT)).await?;
        }
        Ok(seq)
    }

    /// Gives the configuration its next generation, and makes the event that says so.
    pub(crate) async fn append_config(&mut self) -> Result<u64, CatalogError> {
        let next = sqlx::query("UPDATE counter SET generation = generation + 1 RETURNING generation");
        let row = next.fetch_one(self.sql()).await?;
        self.append(&Says::Config { generation: unsigned(&row, "generation")? }).await
    }

    async fn drop_events_before(&mut self, oldest: u64) -> Result<(), CatalogError> {
        sqlx::query("DELETE FROM events WHERE seq < $1").bind(integer(oldest)).execute(self.sql()).await?;
        sqlx::query("UPDATE counter SET oldest = $1").bind(integer(oldest)).execute(self.sql()).await?;
        Ok(())
    }
}
